/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The subscriber room: who is told of changes, and what he answers; see subscriber.h. What only
 * mirrors do is in mirror.c.
 *
 * A subscriber may be told to touch: inside its callback it then reads a byte as its device, which
 * the library allows, and tries to write a register, which it refuses.
 */
#include "subscriber.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    ALL_KINDS = VIOMMU_CHANGE_MAP | VIOMMU_CHANGE_UNMAP | VIOMMU_CHANGE_DEVICE_TLB |
                VIOMMU_CHANGE_REPLACE,
    LISTED_MAX = 100, /* calls that are told in one line */
};

const char *change_word(unsigned kind)
{
    switch (kind) {
    case VIOMMU_CHANGE_MAP:
        return "map";
    case VIOMMU_CHANGE_UNMAP:
        return "unmap";
    case VIOMMU_CHANGE_DEVICE_TLB:
        return "device-tlb";
    case VIOMMU_CHANGE_REPLACE:
        return "replace";
    case VIOMMU_CHANGE_SKIPPED:
        return "skipped";
    default:
        return "unknown";
    }
}

static const char *cause_word(enum viommu_cause cause)
{
    static const char *const words[VIOMMU_CAUSES] = {"pages",  "domain", "global", "context",
                                                     "memory", "replay", "retry"};

    return cause < VIOMMU_CAUSES ? words[cause] : "unknown";
}

/* What the subscriber answers now. */
static int next_answer(struct subscriber *subscriber, enum viommu_change_kind kind)
{
    struct failure *failure = &subscriber->failure;

    if (kind == VIOMMU_CHANGE_SKIPPED) {
        return 0;
    }
    if (!failure->times || !(failure->kinds & kind)) {
        return subscriber->answer;
    }
    if (failure->skip) {
        failure->skip--;
        return subscriber->answer;
    }
    failure->times--;
    return failure->answer;
}

/* The library calls this from viommu_process. */
static int heard(void *opaque, const struct viommu_change *change)
{
    struct subscriber *subscriber = opaque;
    struct message message = {.change = *change,
                              .answer = next_answer(subscriber, change->kind)};
    bool right = !subscriber->mirror || mirror_judge(subscriber, change);
    uint8_t byte;

    if (subscriber->touch) {
        message.read_status = viommu_device_read(device_handle(subscriber->device), NULL,
                                                 subscriber->touch_iova, &byte, 1);
        message.control_status = viommu_mmio_write(device_unit(subscriber->device)->iommu, 0, 4, 0);
    }
    subscriber->heard++;
    messages_add(&subscriber->changes, &message);
    if (message.answer == VIOMMU_PENDING) {
        messages_add(&subscriber->pending, &message);
    } else if (!message.answer && subscriber->mirror && right) {
        mirror_apply(subscriber, change);
    }
    return message.answer;
}

static struct subscriber *find_subscriber(struct run *run, const char *name)
{
    struct subscriber *subscriber = run->subscribers;

    while (subscriber && strcmp(subscriber->name, name)) {
        subscriber = subscriber->next;
    }
    return subscriber;
}

struct subscriber *arg_subscriber(struct run *run)
{
    const char *name = line_argument(&run->line, "subscriber")->value;
    struct subscriber *subscriber = find_subscriber(run, name);

    if (!subscriber) {
        run_error(run, name, "there is no subscriber of this name");
    }
    return subscriber;
}

/* ok, pending, or the word of an errno; without the argument *answer stays. */
static bool answer_argument(struct run *run, const char *name, int *answer)
{
    const char *text = "ok";

    if (!arg_given(run, name)) {
        return true;
    }
    arg_text(run, name, &text);
    *answer = errno_of_word(text);
    if (!strcmp(text, "pending")) {
        *answer = VIOMMU_PENDING;
    }
    if (*answer || !strcmp(text, "ok")) {
        return true;
    }
    run_error(run, text, "%s is ok, pending, or a failure as io-error", name);
    return false;
}

static void subscriber_free(struct subscriber *subscriber)
{
    messages_destroy(&subscriber->changes);
    messages_destroy(&subscriber->pending);
    mirror_destroy(subscriber->mirror);
    free(subscriber->name);
    free(subscriber);
}

/* What the arguments say of caches and mirrors alike. */
static bool subscription_arguments(struct run *run, struct subscriber *subscriber,
                                   struct viommu_subscription *subscription)
{
    uint64_t kinds = arg_flag(run, "cache") ? VIOMMU_CHANGE_UNMAP : VIOMMU_CHANGE_DEVICE_TLB;

    if (!answer_argument(run, "answer", &subscriber->answer) ||
        !arg_number_max(run, "kinds", UINT32_MAX, &kinds) ||
        !arg_number(run, "first", &subscription->range.first) ||
        !arg_number(run, "last", &subscription->range.last) ||
        !arg_number(run, "touch", &subscriber->touch_iova)) {
        return false;
    }
    subscriber->touch = arg_given(run, "touch");
    subscription->kinds = (uint32_t)kinds;
    subscription->form = arg_flag(run, "range") ? VIOMMU_FORM_RANGE : VIOMMU_FORM_POW2;
    return !arg_flag(run, "mirror") || mirror_create(run, subscriber, subscription);
}

/* Frees the subscriber when it could not be had. */
static void subscribe(struct run *run, struct subscriber *subscriber)
{
    struct viommu_subscription subscription = {.change = heard, .opaque = subscriber};
    int error;

    if (!subscription_arguments(run, subscriber, &subscription)) {
        subscriber_free(subscriber);
        return;
    }
    error = viommu_device_subscribe(device_handle(subscriber->device), &subscription,
                                    &subscriber->handle);
    result_errno(&run->result, error);
    if (error) {
        subscriber_free(subscriber);
        return;
    }
    subscriber->subscription = subscription;
    subscriber->next = run->subscribers;
    run->subscribers = subscriber;
}

/* The list has the newest first. */
static int copy_from(struct subscriber *subscriber, const struct unit *unit, bool adopt)
{
    int error = subscriber ? copy_from(subscriber->next, unit, adopt) : 0;
    struct viommu_subscription subscription;

    if (error || !subscriber || device_unit(subscriber->device) != unit) {
        return error;
    }
    subscription = subscriber->subscription;
    subscription.adopt = adopt && subscriber->mirror;
    return viommu_device_subscribe(device_copied(subscriber->device), &subscription,
                                   &subscriber->copied);
}

int subscribers_copy(struct run *run, const struct unit *unit, bool adopt)
{
    return copy_from(run->subscribers, unit, adopt);
}

void subscribers_move(struct run *run, const struct unit *unit, bool adopt)
{
    for (struct subscriber *subscriber = run->subscribers; subscriber;
         subscriber = subscriber->next) {
        if (device_unit(subscriber->device) != unit) {
            continue;
        }
        subscriber->handle = subscriber->copied;
        messages_destroy(&subscriber->pending);
        if (subscriber->mirror && !adopt) {
            mirror_begin_anew(subscriber->mirror);
        }
    }
}

static void do_subscribe(struct run *run)
{
    struct device *device = arg_device(run, "dev");
    struct subscriber *subscriber;
    const char *name;

    if (!device || !arg_text(run, "name", &name)) {
        return;
    }
    if (find_subscriber(run, name)) {
        run_error(run, name, "there is a subscriber of this name");
        return;
    }
    subscriber = run_alloc(sizeof(*subscriber));
    subscriber->run = run;
    subscriber->name = run_copy_text(name);
    subscriber->device = device;
    messages_init(&subscriber->changes);
    messages_init(&subscriber->pending);
    subscribe(run, subscriber);
}

void subscribers_free(struct run *run, const struct device *device)
{
    for (struct subscriber **at = &run->subscribers; *at;) {
        struct subscriber *subscriber = *at;

        if (subscriber->device != device) {
            at = &subscriber->next;
            continue;
        }
        *at = subscriber->next;
        subscriber_free(subscriber);
    }
}

static void do_unsubscribe(struct run *run)
{
    struct subscriber *subscriber = arg_subscriber(run);
    struct subscriber **at = &run->subscribers;

    if (!subscriber) {
        return;
    }
    while (*at != subscriber) {
        at = &(*at)->next;
    }
    *at = subscriber->next;
    result_errno(&run->result, viommu_subscriber_destroy(subscriber->handle));
    subscriber_free(subscriber);
}

static void do_answer(struct run *run)
{
    struct subscriber *subscriber = arg_subscriber(run);

    if (subscriber && answer_argument(run, "answer", &subscriber->answer)) {
        answer_argument(run, "fence", &subscriber->fence_answer);
    }
}

/* Kinds of changes joined by |, as they are printed. */
static bool kinds_argument(struct run *run, uint32_t *kinds)
{
    const struct word *word = line_argument(&run->line, "kinds");
    const char *at = word ? word->value : "";

    for (uint32_t found = *at ? 0 : *kinds; ; at++) {
        size_t length = strcspn(at, "|");
        uint32_t bit = VIOMMU_CHANGE_MAP;

        while (length && bit <= ALL_KINDS && (strlen(change_word(bit)) != length ||
                                              strncmp(change_word(bit), at, length))) {
            bit <<= 1;
        }
        if (length && !(bit & ALL_KINDS)) {
            run_error(run, word->value,
                      "kinds are map, unmap, replace and device-tlb, joined by |");
            return false;
        }
        found |= length ? bit : 0;
        at += length;
        if (!*at) {
            *kinds = found;
            return true;
        }
    }
}

static void do_fail(struct run *run)
{
    struct subscriber *subscriber = arg_subscriber(run);
    struct failure failure = {.kinds = ALL_KINDS, .times = 1, .answer = errno_of_word("io-error")};
    uint64_t nth = 1;

    if (!subscriber || !arg_number(run, "nth", &nth) || !arg_number(run, "times", &failure.times) ||
        !answer_argument(run, "error", &failure.answer) || !kinds_argument(run, &failure.kinds)) {
        return;
    }
    if (!nth) {
        run_error(run, "nth", "calls count from 1, the next one");
        return;
    }
    failure.skip = nth - 1;
    subscriber->failure = failure;
}

static void result_change(struct result *result, const struct subscriber *subscriber,
                          const struct viommu_change *change)
{
    result_word(result, "kind", change_word(change->kind));
    result_requester(result, "requester", change->requester);
    result_hex(result, "first", change->first);
    result_hex(result, "last", change->last);
    if (!subscriber->mirror) {
        return;
    }
    result_hex(result, "gpa", change->gpa);
    result_perm(result, "perm", change->perm);
    result_word(result, "cause", cause_word(change->cause));
}

static void do_change(struct run *run)
{
    struct subscriber *subscriber = arg_subscriber(run);
    struct message message;

    if (!subscriber || !messages_take(run, &subscriber->changes, &message)) {
        return;
    }
    if (message.fence) {
        result_word(&run->result, "kind", "fence");
    } else {
        result_change(&run->result, subscriber, &message.change);
    }
    result_word(&run->result, "answer", errno_word(message.answer));
    if (message.answer == VIOMMU_PENDING) {
        result_hex(&run->result, "token", message.change.token);
    }
    if (subscriber->touch) {
        result_word(&run->result, "read", errno_word(message.read_status));
        result_word(&run->result, "control", errno_word(message.control_status));
    }
}

/* map:0x1000-0x1fff>0x5000/rw, and what was answered unless that was ok. */
static void print_call(const struct message *message, FILE *out)
{
    static const char *const perms[] = {"none", "r", "w", "rw"};
    const struct viommu_change *change = &message->change;

    if (message->fence) {
        fputs("fence", out);
    } else {
        fprintf(out, "%s:0x%" PRIx64 "-0x%" PRIx64, change_word(change->kind), change->first,
                change->last);
    }
    if (change->kind == VIOMMU_CHANGE_MAP || change->kind == VIOMMU_CHANGE_REPLACE) {
        fprintf(out, ">0x%" PRIx64, change->gpa);
    }
    if (change->kind == VIOMMU_CHANGE_MAP || change->kind == VIOMMU_CHANGE_REPLACE ||
        change->kind == VIOMMU_CHANGE_SKIPPED) {
        fprintf(out, "/%s", perms[change->perm & (VIOMMU_READ | VIOMMU_WRITE)]);
    }
    if (message->answer) {
        fprintf(out, "!%s", errno_word(message->answer));
    }
}

static void result_calls(struct run *run, const struct messages *messages)
{
    char *text = NULL;
    size_t size = 0;
    unsigned count = 0;
    FILE *out = open_memstream(&text, &size);

    if (!out) {
        return;
    }
    for (const struct message *message = messages->first; message; message = message->next) {
        if (count < LISTED_MAX) {
            fputs(count ? " " : "", out);
            print_call(message, out);
        }
        count++;
    }
    if (count > LISTED_MAX) {
        fprintf(out, " +%u", count - LISTED_MAX);
    }
    fclose(out);
    result_text(&run->result, "list", text, size);
    free(text);
}

static void do_calls(struct run *run)
{
    struct subscriber *subscriber = arg_subscriber(run);

    if (!subscriber) {
        return;
    }
    result_decimal(&run->result, "count", messages_count(&subscriber->changes));
    if (!arg_flag(run, "forget")) {
        result_calls(run, &subscriber->changes);
    }
    messages_destroy(&subscriber->changes);
}

static void do_changes(struct run *run)
{
    struct subscriber *subscriber = arg_subscriber(run);

    if (!subscriber) {
        return;
    }
    result_decimal(&run->result, "heard", subscriber->heard);
    result_decimal(&run->result, "pending", messages_count(&subscriber->pending));
}

/* The pending change that is to be completed: of the argument's token, or the oldest. */
static bool pending_argument(struct run *run, struct subscriber *subscriber,
                             struct message *message)
{
    uint64_t token;

    if (!arg_given(run, "token")) {
        return messages_take(run, &subscriber->pending, message);
    }
    if (!arg_number(run, "token", &token)) {
        return false;
    }
    if (!messages_take_token(&subscriber->pending, token, message)) {
        message->change = (struct viommu_change){.token = token};
    }
    return true;
}

static void do_complete(struct run *run)
{
    struct subscriber *subscriber = arg_subscriber(run);
    struct message message = {0};
    int status = 0;
    int error;

    if (!subscriber || !answer_argument(run, "status", &status) ||
        !pending_argument(run, subscriber, &message)) {
        return;
    }
    error = viommu_change_complete(device_unit(subscriber->device)->iommu, message.change.token,
                                   status);
    if (!error && !status && subscriber->mirror) {
        mirror_apply(subscriber, &message.change);
    }
    result_errno(&run->result, error);
}

const struct command subscriber_commands[] = {
    {"subscribe",
     "name dev [answer] [cache!] [range!] [first=] [last=] [touch=] [kinds=] " MIRROR_ARGUMENTS,
     "Subscribes to a device's changes, and says how they are answered.", do_subscribe},
    {"unsubscribe", "subscriber", "Ends a subscription.", do_unsubscribe},
    {"answer", "subscriber [answer] [fence=]",
     "Says how changes are answered from here on, and fencing.", do_answer},
    {"fail", "subscriber [nth=] [error=] [times=] [kinds=]",
     "Lets the n-th call from here on fail, or be answered pending.", do_fail},
    {"change", "subscriber",
     "Takes the next change a subscriber heard of; none when there is none.", do_change},
    {"calls", "subscriber [forget!]",
     "Takes all changes a subscriber heard of, and lists them in one line.", do_calls},
    {"changes", "subscriber", "Counts the changes heard, and those not completed.", do_changes},
    {"complete", "subscriber [status=] [token=]",
     "Completes a change that was answered pending: the oldest, or that of a token.", do_complete},
    {0},
};
