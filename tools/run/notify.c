/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The notify room: what the library tells others. Interrupts, events and changes are kept in the
 * order in which they came, until an operation takes them.
 *
 * A subscriber's answer to changes is set in advance: ok, pending, or a failure; what it answered
 * pending it completes with `complete`, the oldest first or by token. A subscriber may also be told
 * to touch: inside its callback it then reads a byte as its device, which the library allows, and
 * tries to write a register, which it refuses.
 */
#include "run.h"

#include <stdlib.h>
#include <string.h>

struct message {
    struct message *next;
    union {
        struct viommu_interrupt interrupt;
        struct viommu_event event;
        struct viommu_change change;
    };
    const struct unit *unit;
    int answer; /* of a change */
    int read_status;
    int control_status;
};

struct subscriber {
    struct subscriber *next;
    char *name;
    struct device *device;
    struct viommu_subscriber *handle;
    int answer;
    bool touch;
    uint64_t touch_iova;
    unsigned heard;
    struct messages changes; /* not yet taken by `change` */
    struct messages pending; /* not yet completed */
};

void messages_init(struct messages *messages)
{
    messages->first = NULL;
    messages->end = &messages->first;
}

static void add_message(struct messages *messages, const struct message *message)
{
    struct message *copied = run_alloc(sizeof(*copied));

    *copied = *message;
    copied->next = NULL;
    *messages->end = copied;
    messages->end = &copied->next;
}

/* Takes the oldest one; false, with the status none, when there is none. */
static bool take_message(struct run *run, struct messages *messages, struct message *out)
{
    struct message *first = messages->first;

    if (!first) {
        result_status(&run->result, "none");
        return false;
    }
    *out = *first;
    messages->first = first->next;
    if (!messages->first) {
        messages->end = &messages->first;
    }
    free(first);
    return true;
}

static unsigned count_messages(const struct messages *messages)
{
    unsigned count = 0;

    for (const struct message *message = messages->first; message; message = message->next) {
        count++;
    }
    return count;
}

void messages_destroy(struct messages *messages)
{
    while (messages->first) {
        struct message *message = messages->first;

        messages->first = message->next;
        free(message);
    }
    messages->end = &messages->first;
}

void notify_interrupt(void *opaque, const struct viommu_interrupt *interrupt)
{
    struct unit *unit = opaque;

    add_message(&unit->run->interrupts,
                &(struct message){.interrupt = *interrupt, .unit = unit});
}

void notify_event(void *opaque, const struct viommu_event *event)
{
    struct unit *unit = opaque;

    add_message(&unit->run->events, &(struct message){.event = *event, .unit = unit});
}

static void do_interrupt(struct run *run)
{
    struct message message;

    if (!take_message(run, &run->interrupts, &message)) {
        return;
    }
    result_hex(&run->result, "address", message.interrupt.address);
    result_hex(&run->result, "data", message.interrupt.data);
    result_word(&run->result, "from", message.interrupt.from_unit ? "unit" : "device");
    result_requester(&run->result, "requester", message.interrupt.requester);
}

static void do_interrupts(struct run *run)
{
    result_decimal(&run->result, "count", count_messages(&run->interrupts));
    if (arg_flag(run, "forget")) {
        messages_destroy(&run->interrupts);
    }
}

static const char *event_word(enum viommu_event_kind kind)
{
    switch (kind) {
    case VIOMMU_EVENT_FENCED:
        return "fenced";
    case VIOMMU_EVENT_DENIED:
        return "denied";
    case VIOMMU_EVENT_HOST_FAILURE:
        return "host-failure";
    case VIOMMU_EVENT_REENTRY:
        return "reentry";
    case VIOMMU_EVENT_OVERFLOW:
        return "overflow";
    }
    return "unknown";
}

static void do_event(struct run *run)
{
    struct message message;
    const struct viommu_event *event = &message.event;

    if (!take_message(run, &run->events, &message)) {
        return;
    }
    result_word(&run->result, "kind", event_word(event->kind));
    result_requester(&run->result, "requester", event->requester);
    if (event->kind == VIOMMU_EVENT_OVERFLOW) {
        result_decimal(&run->result, "lost", (unsigned)event->error);
    } else {
        result_word(&run->result, "error", errno_word(event->error));
    }
    result_hex(&run->result, "first", event->first);
    result_hex(&run->result, "last", event->last);
    if (event->text) {
        result_text(&run->result, "text", event->text, strlen(event->text));
    }
}

static void do_events(struct run *run)
{
    result_decimal(&run->result, "count", count_messages(&run->events));
    if (arg_flag(run, "forget")) {
        messages_destroy(&run->events);
    }
}

/* The library calls this from viommu_process. */
static int heard(void *opaque, const struct viommu_change *change)
{
    struct subscriber *subscriber = opaque;
    struct message message = {.change = *change, .answer = subscriber->answer};
    uint8_t byte;

    if (subscriber->touch) {
        message.read_status = viommu_device_read(device_handle(subscriber->device), NULL,
                                                 subscriber->touch_iova, &byte, 1);
        message.control_status = viommu_mmio_write(device_unit(subscriber->device)->iommu, 0, 4, 0);
    }
    subscriber->heard++;
    add_message(&subscriber->changes, &message);
    if (subscriber->answer == VIOMMU_PENDING) {
        add_message(&subscriber->pending, &message);
    }
    return subscriber->answer;
}

static struct subscriber *find_subscriber(struct run *run, const char *name)
{
    struct subscriber *subscriber = run->subscribers;

    while (subscriber && strcmp(subscriber->name, name)) {
        subscriber = subscriber->next;
    }
    return subscriber;
}

static struct subscriber *arg_subscriber(struct run *run)
{
    const char *name = line_argument(&run->line, "subscriber")->value;
    struct subscriber *subscriber = find_subscriber(run, name);

    if (!subscriber) {
        run_error(run, name, "there is no subscriber of this name");
    }
    return subscriber;
}

/* ok, pending, or the word of an errno. */
static bool answer_argument(struct run *run, const char *name, int *answer)
{
    const char *text = "ok";

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

static void do_subscribe(struct run *run)
{
    struct device *device = arg_device(run, "dev");
    struct viommu_subscription subscription = {.change = heard};
    struct subscriber *subscriber;
    const char *name;
    uint64_t kinds = VIOMMU_CHANGE_DEVICE_TLB;
    int answer;
    int error;

    if (!device || !arg_text(run, "name", &name) || !answer_argument(run, "answer", &answer) ||
        !arg_number_max(run, "kinds", UINT32_MAX, &kinds) ||
        !arg_number(run, "first", &subscription.range.first) ||
        !arg_number(run, "last", &subscription.range.last)) {
        return;
    }
    if (arg_flag(run, "range")) {
        subscription.form = VIOMMU_FORM_RANGE;
    }
    if (arg_flag(run, "cache")) {
        kinds = VIOMMU_CHANGE_UNMAP;
    }
    if (find_subscriber(run, name)) {
        run_error(run, name, "there is a subscriber of this name");
        return;
    }
    subscriber = run_alloc(sizeof(*subscriber));
    subscription.opaque = subscriber;
    subscription.kinds = (uint32_t)kinds;
    subscriber->answer = answer;
    subscriber->device = device;
    subscriber->touch = arg_given(run, "touch");
    messages_init(&subscriber->changes);
    messages_init(&subscriber->pending);
    error = arg_number(run, "touch", &subscriber->touch_iova)
                ? viommu_device_subscribe(device_handle(device), &subscription, &subscriber->handle)
                : -1;
    result_errno(&run->result, error);
    if (error) {
        free(subscriber);
        return;
    }
    subscriber->name = run_copy_text(name);
    subscriber->next = run->subscribers;
    run->subscribers = subscriber;
}

static void subscriber_free(struct subscriber *subscriber)
{
    messages_destroy(&subscriber->changes);
    messages_destroy(&subscriber->pending);
    free(subscriber->name);
    free(subscriber);
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
    int answer;

    if (subscriber && answer_argument(run, "answer", &answer)) {
        subscriber->answer = answer;
    }
}

static void do_change(struct run *run)
{
    struct subscriber *subscriber = arg_subscriber(run);
    struct message message;

    if (!subscriber || !take_message(run, &subscriber->changes, &message)) {
        return;
    }
    result_requester(&run->result, "requester", message.change.requester);
    result_hex(&run->result, "first", message.change.first);
    result_hex(&run->result, "last", message.change.last);
    result_word(&run->result, "answer", errno_word(message.answer));
    if (message.answer == VIOMMU_PENDING) {
        result_hex(&run->result, "token", message.change.token);
    }
    if (subscriber->touch) {
        result_word(&run->result, "read", errno_word(message.read_status));
        result_word(&run->result, "control", errno_word(message.control_status));
    }
}

static void do_changes(struct run *run)
{
    struct subscriber *subscriber = arg_subscriber(run);

    if (!subscriber) {
        return;
    }
    result_decimal(&run->result, "heard", subscriber->heard);
    result_decimal(&run->result, "pending", count_messages(&subscriber->pending));
}

/* Forgets the message of a token, if it is there. */
static void forget_token(struct messages *messages, uint64_t token)
{
    for (struct message **at = &messages->first; *at; at = &(*at)->next) {
        struct message *message = *at;

        if (message->change.token != token) {
            continue;
        }
        *at = message->next;
        if (!*at) {
            messages->end = at;
        }
        free(message);
        break;
    }
}

/* The token of the argument, or of the oldest pending change, which is forgotten. */
static bool token_argument(struct run *run, struct subscriber *subscriber, uint64_t *token)
{
    struct message message;

    if (arg_given(run, "token")) {
        if (!arg_number(run, "token", token)) {
            return false;
        }
        forget_token(&subscriber->pending, *token);
        return true;
    }
    if (!take_message(run, &subscriber->pending, &message)) {
        return false;
    }
    *token = message.change.token;
    return true;
}

static void do_complete(struct run *run)
{
    struct subscriber *subscriber = arg_subscriber(run);
    uint64_t token;
    int status;

    if (!subscriber || !answer_argument(run, "status", &status) ||
        !token_argument(run, subscriber, &token)) {
        return;
    }
    result_errno(&run->result,
                 viommu_change_complete(device_unit(subscriber->device)->iommu, token, status));
}

const struct command notify_commands[] = {
    {"interrupt", "", "Takes the next interrupt that was delivered; none when there is none.",
     do_interrupt},
    {"interrupts", "[forget!]", "Counts the interrupts not yet taken.", do_interrupts},
    {"event", "", "Takes the next event the embedder was told; none when there is none.", do_event},
    {"events", "[forget!]", "Counts the events not yet taken.", do_events},
    {"subscribe", "name dev [answer] [cache!] [range!] [first=] [last=] [touch=] [kinds=]",
     "Subscribes to a device's changes, and says how they are answered.", do_subscribe},
    {"unsubscribe", "subscriber", "Ends a subscription.", do_unsubscribe},
    {"answer", "subscriber answer", "Says how changes are answered from here on.", do_answer},
    {"change", "subscriber",
     "Takes the next change a subscriber heard of; none when there is none.", do_change},
    {"changes", "subscriber", "Counts the changes heard, and those not completed.", do_changes},
    {"complete", "subscriber [status=] [token=]",
     "Completes a change that was answered pending: the oldest, or that of a token.", do_complete},
    {0},
};
