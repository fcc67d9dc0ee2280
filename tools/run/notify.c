/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The notify room: what the library tells the embedder. Interrupts and events are kept in the order
 * in which they came, until an operation takes them.
 */
#include "notify.h"

#include "../trace/words.h"

#include <stdlib.h>
#include <string.h>

enum { LISTED_MAX = 64 }; /* kinds of events that are told in one line */

void messages_init(struct messages *messages)
{
    messages->first = NULL;
    messages->end = &messages->first;
}

void messages_add(struct messages *messages, const struct message *message)
{
    struct message *copied = run_alloc(sizeof(*copied));

    *copied = *message;
    copied->next = NULL;
    *messages->end = copied;
    messages->end = &copied->next;
}

bool messages_take(struct run *run, struct messages *messages, struct message *out)
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

bool messages_take_token(struct messages *messages, uint64_t token, struct message *out)
{
    for (struct message **at = &messages->first; *at; at = &(*at)->next) {
        struct message *message = *at;

        if (message->change.token != token) {
            continue;
        }
        *out = *message;
        *at = message->next;
        if (!*at) {
            messages->end = at;
        }
        free(message);
        return true;
    }
    return false;
}

unsigned messages_count(const struct messages *messages)
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

    messages_add(&unit->run->interrupts,
                 &(struct message){.interrupt = *interrupt, .unit = unit});
}

void notify_event(void *opaque, const struct viommu_event *event)
{
    struct unit *unit = opaque;

    messages_add(&unit->run->events, &(struct message){.event = *event, .unit = unit});
}

static void do_interrupt(struct run *run)
{
    struct message message;

    if (!messages_take(run, &run->interrupts, &message)) {
        return;
    }
    result_hex(&run->result, "address", message.interrupt.address);
    result_hex(&run->result, "data", message.interrupt.data);
    result_word(&run->result, "from", message.interrupt.from_unit ? "unit" : "device");
    result_requester(&run->result, "requester", message.interrupt.requester);
}

static void do_interrupts(struct run *run)
{
    result_decimal(&run->result, "count", messages_count(&run->interrupts));
    if (arg_flag(run, "forget")) {
        messages_destroy(&run->interrupts);
    }
}

/* Whether an event tells where addresses led, and lead. */
static bool tells_targets(enum viommu_event_kind kind)
{
    return kind == VIOMMU_EVENT_REWRITTEN || kind == VIOMMU_EVENT_STOP ||
           kind == VIOMMU_EVENT_BAD_ENTRY || kind == VIOMMU_EVENT_NOT_MAPPED;
}

static void result_targets(struct result *result, const struct viommu_event *event)
{
    result_hex(result, "from-gpa", event->from_gpa);
    result_perm(result, "from-perm", event->from_perm);
    result_hex(result, "to-gpa", event->to_gpa);
    result_perm(result, "to-perm", event->to_perm);
}

static void do_event(struct run *run)
{
    struct message message;
    const struct viommu_event *event = &message.event;

    if (!messages_take(run, &run->events, &message)) {
        return;
    }
    result_word(&run->result, "kind", trace_event_word(event->kind));
    result_requester(&run->result, "requester", event->requester);
    if (event->kind == VIOMMU_EVENT_OVERFLOW) {
        result_decimal(&run->result, "lost", (unsigned)event->error);
    } else {
        result_word(&run->result, "error", errno_word(event->error));
    }
    result_hex(&run->result, "first", event->first);
    result_hex(&run->result, "last", event->last);
    if (tells_targets(event->kind)) {
        result_targets(&run->result, event);
    }
    if (event->text) {
        result_text(&run->result, "text", event->text, strlen(event->text));
    }
}

/* The kinds of the events not yet taken, in one text. */
static void result_event_list(struct run *run)
{
    char *text = NULL;
    size_t size = 0;
    unsigned count = 0;
    FILE *out = open_memstream(&text, &size);

    if (!out) {
        return;
    }
    for (const struct message *message = run->events.first; message && count < LISTED_MAX;
         message = message->next) {
        fprintf(out, "%s%s", count++ ? " " : "", trace_event_word(message->event.kind));
    }
    fclose(out);
    result_text(&run->result, "list", text, size);
    free(text);
}

static void do_events(struct run *run)
{
    result_decimal(&run->result, "count", messages_count(&run->events));
    result_event_list(run);
    if (arg_flag(run, "forget")) {
        messages_destroy(&run->events);
    }
}

const struct command notify_commands[] = {
    {"interrupt", "", "Takes the next interrupt that was delivered; none when there is none.",
     do_interrupt},
    {"interrupts", "[forget!]", "Counts the interrupts not yet taken.", do_interrupts},
    {"event", "", "Takes the next event the embedder was told; none when there is none.", do_event},
    {"events", "[forget!]", "Counts the events not yet taken, and tells their kinds.", do_events},
    {0},
};
