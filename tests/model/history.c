/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What hardware may answer: see history.h.
 */
#include "history.h"

#include "../support/guest.h"

#include <string.h>

/* Logs fuller than this ask for a global invalidation; one more change never fills them. */
#define NEARLY_FULL (HISTORY_VALUES - 4)

int history_page_index(const struct history *history, uint64_t iova)
{
    for (unsigned i = 0; i < history->page_count; i++) {
        if (history->pages[i] == (iova & ~0xfffull)) {
            return (int)i;
        }
    }
    return -1;
}

int history_requester_index(const struct history *history, uint16_t requester)
{
    for (unsigned i = 0; i < HISTORY_REQUESTERS; i++) {
        if (history->requesters[i] == requester) {
            return (int)i;
        }
    }
    return -1;
}

static void log_context(struct history *history, struct history_context_log *log,
                        const struct context_value *value)
{
    unsigned i;

    for (i = 0; i < log->count; i++) {
        struct history_context *entry = &log->values[i];
        bool equal = !memcmp(&entry->value, value, sizeof(*value));

        if (equal) {
            if (entry->end != HISTORY_PRESENT) {
                break;
            }
            return;
        }
    }
    for (unsigned j = 0; j < log->count; j++) {
        if (log->values[j].end == HISTORY_PRESENT) {
            log->values[j].end = history->now;
        }
    }
    if (i == log->count) {
        if (log->count == HISTORY_VALUES) {
            guest_die("a context log of the test overflows");
        }
        log->values[log->count++].value = *value;
    }
    log->values[i].end = HISTORY_PRESENT;
}

static void log_page(struct history *history, struct history_page_log *log,
                     const struct page_value *value)
{
    unsigned i;

    for (i = 0; i < log->count; i++) {
        struct history_page *entry = &log->values[i];

        if (!memcmp(&entry->value, value, sizeof(*value))) {
            if (entry->end != HISTORY_PRESENT) {
                break;
            }
            return;
        }
    }
    for (unsigned j = 0; j < log->count; j++) {
        if (log->values[j].end == HISTORY_PRESENT) {
            log->values[j].end = history->now;
        }
    }
    if (i == log->count) {
        if (log->count == HISTORY_VALUES) {
            guest_die("a page log of the test overflows");
        }
        log->values[log->count++].value = *value;
    }
    log->values[i].end = HISTORY_PRESENT;
}

void history_refresh(struct history *history)
{
    for (unsigned i = 0; i < HISTORY_REQUESTERS; i++) {
        struct context_value value = walker_context(history->ram, history->config, history->root,
                                                    history->requesters[i]);

        log_context(history, &history->contexts[i], &value);
    }
    for (unsigned table = 0; table < HISTORY_TABLES; table++) {
        for (unsigned levels = 3; levels < 3 + HISTORY_DEPTHS; levels++) {
            if (!(history->config->sagaw >> (levels - 2) & 1)) {
                continue;
            }
            for (unsigned page = 0; page < history->page_count; page++) {
                struct page_value value;

                if (history->pages[page] >> (12 + 9 * levels)) {
                    continue;
                }
                value = walker_page(history->ram, history->config, history->tables[table], levels,
                                    history->pages[page]);
                log_page(history, &history->logs[table][levels - 3][page], &value);
            }
        }
    }
    history->now++;
}

static bool same_function(const struct history_event *event, uint16_t requester)
{
    static const uint16_t masks[4] = {0, 4, 6, 7};

    return !((event->requester ^ requester) & ~masks[event->function_mask] & 0xffff);
}

bool history_context_allowed(const struct history *history, uint16_t requester,
                             const struct history_context *entry)
{
    if (entry->end == HISTORY_PRESENT) {
        return true;
    }
    if (entry->value.reason) {
        return false;
    }
    for (unsigned i = 0; i < history->context_event_count; i++) {
        const struct history_event *event = &history->context_events[i];

        if (event->time <= entry->end) {
            continue;
        }
        if (event->granularity == SPEC_GLOBAL ||
            (event->domain == entry->value.domain &&
             (event->granularity == SPEC_DOMAIN || same_function(event, requester)))) {
            return false;
        }
    }
    return true;
}

bool history_page_allowed(const struct history *history, uint16_t domain, uint64_t iova,
                          const struct history_page *entry)
{
    uint64_t first = iova & ~entry->value.mask;
    uint64_t last = iova | entry->value.mask;

    if (entry->end == HISTORY_PRESENT) {
        return true;
    }
    if (entry->value.reason || !entry->value.perm) {
        return false;
    }
    for (unsigned i = 0; i < history->iotlb_event_count; i++) {
        const struct history_event *event = &history->iotlb_events[i];

        if (event->time <= entry->end) {
            continue;
        }
        if (event->granularity == SPEC_GLOBAL ||
            (event->domain == domain && (event->granularity == SPEC_DOMAIN ||
                                         (event->first <= last && event->last >= first)))) {
            return false;
        }
    }
    return true;
}

uint64_t history_submit(struct history *history)
{
    return history->now++;
}

/* After a global invalidation nothing that ceased before it needs to be remembered. */
static void forget_contexts(struct history *history, uint64_t time)
{
    for (unsigned i = 0; i < HISTORY_REQUESTERS; i++) {
        struct history_context_log *log = &history->contexts[i];
        unsigned kept = 0;

        for (unsigned j = 0; j < log->count; j++) {
            if (log->values[j].end >= time) {
                log->values[kept++] = log->values[j];
            }
        }
        log->count = kept;
    }
    history->context_event_count = 0;
}

static void forget_pages(struct history *history, uint64_t time)
{
    struct history_page_log *log = &history->logs[0][0][0];

    for (unsigned i = 0; i < HISTORY_TABLES * HISTORY_DEPTHS * HISTORY_PAGES_MAX; i++, log++) {
        unsigned kept = 0;

        for (unsigned j = 0; j < log->count; j++) {
            if (log->values[j].end >= time) {
                log->values[kept++] = log->values[j];
            }
        }
        log->count = kept;
    }
    history->iotlb_event_count = 0;
}

void history_invalidate_context(struct history *history, uint64_t time,
                                enum spec_granularity granularity, uint16_t domain,
                                uint16_t requester, unsigned function_mask)
{
    if (granularity == SPEC_GLOBAL) {
        forget_contexts(history, time);
    } else if (history->context_event_count < HISTORY_EVENTS) {
        history->context_events[history->context_event_count++] = (struct history_event){
            .time = time,
            .granularity = granularity,
            .domain = domain,
            .requester = requester,
            .function_mask = function_mask,
        };
    }
}

void history_invalidate_iotlb(struct history *history, uint64_t time,
                              enum spec_granularity granularity, uint16_t domain, uint64_t first,
                              uint64_t last)
{
    if (granularity == SPEC_GLOBAL) {
        forget_pages(history, time);
    } else if (history->iotlb_event_count < HISTORY_EVENTS) {
        history->iotlb_events[history->iotlb_event_count++] = (struct history_event){
            .time = time,
            .granularity = granularity,
            .domain = domain,
            .first = first,
            .last = last,
        };
    }
}

bool history_full(const struct history *history)
{
    const struct history_page_log *log = &history->logs[0][0][0];

    if (history->context_event_count > HISTORY_EVENTS - 16 ||
        history->iotlb_event_count > HISTORY_EVENTS - 16) {
        return true;
    }
    for (unsigned i = 0; i < HISTORY_REQUESTERS; i++) {
        if (history->contexts[i].count > NEARLY_FULL) {
            return true;
        }
    }
    for (unsigned i = 0; i < HISTORY_TABLES * HISTORY_DEPTHS * HISTORY_PAGES_MAX; i++, log++) {
        if (log->count > NEARLY_FULL) {
            return true;
        }
    }
    return false;
}

const struct history_page_log *history_log(const struct history *history,
                                           const struct context_value *context, int page_index)
{
    for (unsigned i = 0; i < HISTORY_TABLES; i++) {
        if (history->tables[i] == context->table) {
            return &history->logs[i][context->levels - 3][page_index];
        }
    }
    return NULL;
}
