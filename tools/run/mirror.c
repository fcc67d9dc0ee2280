/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The mirror room: subscribers that keep mappings, as a VFIO container does.
 *
 * A mirror stands for hardware. It remembers what it was told to map (held.h), and judges every
 * call by that: a call that real mappings could not follow, a target that is not the guest's
 * memory, a mapping of memory that is freed, are *violations*, which fail the line at which they
 * happen. After each line it also compares what it holds with what the library says it holds.
 */
#include "held.h"
#include "subscriber.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <viommu/trace.h>

enum {
    ALLOWED_MAX = 64,
    REACH_MAX = 16 << 20,
    LISTED_MAX = 100,
};

struct mirror {
    struct held held;
    struct viommu_subscription terms;
    struct viommu_range allowed[ALLOWED_MAX];
    bool fenced;
    struct viommu_trace *trace; /* or NULL */
    int trace_fd;
};

void mirror_violation(const struct subscriber *subscriber, const char *what, uint64_t first,
                      uint64_t last)
{
    struct run *run = subscriber->run;

    fprintf(stderr, "%s:%u: %s\n  mirror %s was told wrongly: %s (0x%" PRIx64 "-0x%" PRIx64 ")\n",
            run->file, run->line_number, run->line.text, subscriber->name, what, first, last);
    run->violated = true;
}

/* Whether the library, too, says that the subscriber is fenced. */
static bool library_says_fenced(const struct subscriber *subscriber)
{
    struct viommu_subscriber_status status;

    viommu_subscriber_status(subscriber->handle, &status, sizeof(status));
    return status.fenced;
}

/* What is wrong with the memory behind a mapping, or NULL. */
static const char *judge_memory(const struct run *run, const struct viommu_change *change)
{
    struct memory_place place = {
        .gpa = change->gpa,
        .size = change->last - change->first + 1,
        .host = change->host,
    };

    if (!memory_is_at(run, &place)) {
        return "a target that is not guest memory in one piece, or a pointer that is not there";
    }
    return place.readonly && change->perm & VIOMMU_WRITE ? "write permission for ROM" : NULL;
}

bool mirror_judge(struct subscriber *subscriber, const struct viommu_change *change)
{
    struct mirror *mirror = subscriber->mirror;
    const char *wrong = held_judge(&mirror->held, &mirror->terms, change);

    if (mirror->fenced && !library_says_fenced(subscriber)) {
        mirror->fenced = false;
    }
    if (mirror->fenced) {
        wrong = "a change, though it is fenced";
    } else if (messages_count(&subscriber->pending)) {
        wrong = "a change while another is not completed";
    }
    if (!wrong && (change->kind == VIOMMU_CHANGE_MAP || change->kind == VIOMMU_CHANGE_REPLACE)) {
        wrong = judge_memory(subscriber->run, change);
    }
    if (wrong) {
        mirror_violation(subscriber, wrong, change->first, change->last);
    }
    return !wrong;
}

void mirror_apply(struct subscriber *subscriber, const struct viommu_change *change)
{
    held_apply(&subscriber->mirror->held, change);
}

/* The library calls this as it calls `heard`. */
static int fence(void *opaque)
{
    struct subscriber *subscriber = opaque;
    struct message message = {.fence = true, .answer = subscriber->fence_answer};

    subscriber->heard++;
    messages_add(&subscriber->changes, &message);
    messages_destroy(&subscriber->pending);
    subscriber->mirror->fenced = true;
    if (!message.answer) {
        held_drop(&subscriber->mirror->held);
    }
    return message.answer;
}

/* One range, FIRST-LAST, of a list that commas divide; moves *at behind it. */
static bool parse_range(const char **at, struct viommu_range *range)
{
    size_t length = strcspn(*at, ",");
    char *text = strndup(*at, length);
    char *dash = text ? strchr(text, '-') : NULL;
    bool good = false;

    if (dash) {
        *dash = '\0';
        good = number_value(text, &range->first) && number_value(dash + 1, &range->last);
    }
    free(text);
    *at += length + ((*at)[length] == ',');
    return good;
}

static bool allowed_argument(struct run *run, struct mirror *mirror)
{
    const struct word *word = line_argument(&run->line, "allowed");
    const char *at = word ? word->value : "";

    while (*at) {
        if (mirror->terms.allowed_count == ALLOWED_MAX ||
            !parse_range(&at, &mirror->allowed[mirror->terms.allowed_count])) {
            run_error(run, word->value, "allowed is up to %d ranges, FIRST-LAST,FIRST-LAST",
                      ALLOWED_MAX);
            return false;
        }
        mirror->terms.allowed_count++;
    }
    mirror->terms.allowed = word ? mirror->allowed : NULL;
    return true;
}

static uint32_t kinds_of_flags(const struct run *run)
{
    return VIOMMU_CHANGE_MAP | VIOMMU_CHANGE_UNMAP |
           (arg_flag(run, "replace") ? VIOMMU_CHANGE_REPLACE : 0u) |
           (arg_flag(run, "skips") ? VIOMMU_CHANGE_SKIPPED : 0u) |
           (arg_flag(run, "device-tlb") ? VIOMMU_CHANGE_DEVICE_TLB : 0u);
}

/* With trace=FILE the calls pass through the library's tracing backend. */
static bool open_trace(struct run *run, struct mirror *mirror,
                       struct viommu_subscription *subscription)
{
    const struct word *word = line_argument(&run->line, "trace");
    struct viommu_trace_config config = {.next = subscription};
    int error;

    if (!word) {
        return true;
    }
    fflush(stdout);
    mirror->trace_fd = strcmp(word->value, "-")
                           ? open(word->value, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)
                           : dup(STDOUT_FILENO);
    if (mirror->trace_fd < 0) {
        run_error(run, word->value, "%s", strerror(errno));
        return false;
    }
    config.fd = mirror->trace_fd;
    config.skips = arg_flag(run, "skips");
    error = viommu_trace_create(&config, &mirror->trace);
    if (error) {
        run_error(run, word->value, "the trace cannot be made: %s", errno_word(error));
        return false;
    }
    viommu_trace_subscription(mirror->trace, subscription);
    return true;
}

bool mirror_create(struct run *run, struct subscriber *subscriber,
                   struct viommu_subscription *subscription)
{
    struct mirror *mirror = run_alloc(sizeof(*mirror));
    uint64_t differences = 0;

    mirror->trace_fd = -1;
    subscriber->mirror = mirror;
    mirror->terms = *subscription;
    mirror->terms.role = VIOMMU_ROLE_MIRROR;
    mirror->terms.fence = fence;
    mirror->terms.unmap_spans = arg_flag(run, "unmap-spans");
    if (!arg_given(run, "kinds")) {
        mirror->terms.kinds = kinds_of_flags(run);
    }
    if (!allowed_argument(run, mirror) ||
        !arg_number(run, "mappings-max", &mirror->terms.mappings_max) ||
        !arg_number_max(run, "differences-max", UINT32_MAX, &differences) ||
        !arg_number(run, "page-sizes", &mirror->terms.page_sizes)) {
        return false;
    }
    mirror->terms.differences_max = (uint32_t)differences;
    *subscription = mirror->terms;
    return open_trace(run, mirror, subscription);
}

void mirror_begin_anew(struct mirror *mirror)
{
    held_drop(&mirror->held);
    mirror->fenced = false;
}

void mirror_destroy(struct mirror *mirror)
{
    if (!mirror) {
        return;
    }
    viommu_trace_destroy(mirror->trace);
    if (mirror->trace_fd >= 0) {
        close(mirror->trace_fd);
    }
    held_drop(&mirror->held);
    free(mirror);
}

/* Compares what a mirror holds with what the library thinks. */
static void compare(const struct subscriber *subscriber)
{
    struct mirror *mirror = subscriber->mirror;
    struct viommu_subscriber_status status = {0};

    viommu_subscriber_status(subscriber->handle, &status, sizeof(status));
    mirror->fenced = mirror->fenced && status.fenced;
    if (status.behind || messages_count(&subscriber->pending)) {
        return;
    }
    if (status.fenced && !mirror->fenced && subscriber->run->autoprocess) {
        mirror_violation(subscriber, "it counts as fenced and was not told", 0, UINT64_MAX);
    } else if (!status.fenced && status.mappings != mirror->held.count) {
        fprintf(stderr, "  %" PRIu64 " mappings by the library, %zu held\n", status.mappings,
                mirror->held.count);
        mirror_violation(subscriber, "its mappings are counted wrongly", 0, UINT64_MAX);
    }
}

void mirrors_check(struct run *run)
{
    for (struct subscriber *subscriber = run->subscribers; subscriber;
         subscriber = subscriber->next) {
        if (subscriber->mirror) {
            compare(subscriber);
        }
    }
}

void mirrors_lose_memory(struct run *run, const void *host, uint64_t size)
{
    const uint8_t *begin = host;

    for (struct subscriber *subscriber = run->subscribers; subscriber;
         subscriber = subscriber->next) {
        const struct held *held = subscriber->mirror ? &subscriber->mirror->held : NULL;

        for (size_t i = 0; held && i < held->count; i++) {
            const struct held_mapping *mapping = held_at(held, i);

            if (mapping->host + (mapping->last - mapping->first) >= begin &&
                mapping->host < begin + size) {
                mirror_violation(subscriber, "memory that it still maps was given up",
                                 mapping->first, mapping->last);
            }
        }
    }
}

/* The subscriber of the argument, which is a mirror; NULL with an error said. */
static struct subscriber *arg_mirror(struct run *run)
{
    struct subscriber *subscriber = arg_subscriber(run);

    if (subscriber && !subscriber->mirror) {
        run_error(run, subscriber->name, "this subscriber is no mirror");
        return NULL;
    }
    return subscriber;
}

static void do_mirror(struct run *run)
{
    struct subscriber *subscriber = arg_mirror(run);
    struct viommu_subscriber_status status = {0};

    if (!subscriber) {
        return;
    }
    result_errno(&run->result,
                 viommu_subscriber_status(subscriber->handle, &status, sizeof(status)));
    result_word(&run->result, "fenced", status.fenced ? "yes" : "no");
    result_word(&run->result, "behind", status.behind ? "yes" : "no");
    result_decimal(&run->result, "mappings", status.mappings);
    result_decimal(&run->result, "differences", status.differences);
}

static void result_mapping(struct result *result, const struct held_mapping *mapping)
{
    if (!mapping) {
        result_status(result, "none");
        return;
    }
    result_hex(result, "first", mapping->first);
    result_hex(result, "last", mapping->last);
    result_hex(result, "gpa", mapping->gpa);
    result_perm(result, "perm", mapping->perm);
}

/* All mappings: how many, of how many bytes, and the list of them. */
static void result_held(struct result *result, const struct held *held)
{
    static const char *const perms[] = {"none", "r", "w", "rw"};
    uint64_t bytes = 0;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    for (size_t i = 0; out && i < held->count; i++) {
        const struct held_mapping *mapping = held_at(held, i);

        bytes += mapping->last - mapping->first + 1;
        if (i < LISTED_MAX) {
            fprintf(out, "%s0x%" PRIx64 "-0x%" PRIx64 ">0x%" PRIx64 "/%s", i ? " " : "",
                    mapping->first, mapping->last, mapping->gpa, perms[mapping->perm & 3]);
        }
    }
    if (!out) {
        return;
    }
    if (held->count > LISTED_MAX) {
        fprintf(out, " +%zu", held->count - LISTED_MAX);
    }
    fclose(out);
    result_decimal(result, "count", held->count);
    result_size(result, "bytes", bytes);
    result_text(result, "list", text, size);
    free(text);
}

static void do_mapped(struct run *run)
{
    struct subscriber *subscriber = arg_mirror(run);
    uint64_t iova;

    if (!subscriber) {
        return;
    }
    if (!arg_given(run, "iova")) {
        result_held(&run->result, &subscriber->mirror->held);
    } else if (arg_number(run, "iova", &iova)) {
        result_mapping(&run->result, held_find(&subscriber->mirror->held, iova));
    }
}

/* Reads as the hardware behind the mirror would; false where it would be refused. */
static bool reach(const struct held *held, uint64_t iova, uint8_t *bytes, size_t size)
{
    while (size) {
        const struct held_mapping *mapping = held_find(held, iova);
        uint64_t length;

        if (!mapping || !(mapping->perm & VIOMMU_READ)) {
            return false;
        }
        length = mapping->last - iova + 1;
        length = length && length < size ? length : size;
        memcpy(bytes, mapping->host + (iova - mapping->first), (size_t)length);
        bytes += length;
        size -= (size_t)length;
        iova += length;
    }
    return true;
}

static void do_reach(struct run *run)
{
    struct subscriber *subscriber = arg_mirror(run);
    uint64_t iova;
    uint64_t size;
    uint8_t *bytes;

    if (!subscriber || !arg_number(run, "iova", &iova) ||
        !arg_number_max(run, "len", REACH_MAX, &size)) {
        return;
    }
    bytes = run_alloc((size_t)size);
    if (reach(&subscriber->mirror->held, iova, bytes, (size_t)size)) {
        memory_result_bytes(run, bytes, (size_t)size);
    } else {
        result_errno(&run->result, -EFAULT);
    }
    free(bytes);
}

const struct command mirror_commands[] = {
    {"mirror", "subscriber", "Tells how a mirror stands.", do_mirror},
    {"mapped", "subscriber [iova]",
     "Tells what a mirror holds: at an address (none when nothing), or in all.", do_mapped},
    {"reach", "subscriber iova len", "Reads through a mirror's mappings, as its hardware would.",
     do_reach},
    {0},
};
