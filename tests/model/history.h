/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What hardware may answer: the present values, and older ones that no completed invalidation
 * covers.
 *
 * The test's *universe* is a fixed set of requesters, of page-table roots and of pages. For each
 * requester there is a log of context values, for each (root, levels, page) a log of page values;
 * each logged value has the time when it ceased to be true. Invalidations are logged when they
 * complete, with the time when they were submitted. A value that ceased at `end` may still be
 * answered unless an invalidation later than `end` covers it:
 *   context value: by the domain it names and its requester;
 *   page value: by the domain of the context it was found through, and by any page of its leaf (a
 *   page-selective invalidation takes the whole super-page).
 * Refusals and not-present entries are never answered from a cache: clients that map without an
 * invalidation, where caching mode is off, count on that.
 *
 * Times only grow; every refresh and every invalidation has its own.
 */
#ifndef VIOMMU_MODEL_HISTORY_H
#define VIOMMU_MODEL_HISTORY_H

#include "../support/vtd_spec.h"
#include "walker.h"

#define HISTORY_REQUESTERS 10
#define HISTORY_TABLES 6
#define HISTORY_DEPTHS 3 /* tables of 3, 4 and 5 levels */
#define HISTORY_PAGES_MAX 96
#define HISTORY_VALUES 24
#define HISTORY_EVENTS 256

#define HISTORY_PRESENT UINT64_MAX

struct history_context {
    struct context_value value;
    uint64_t end;
};

struct history_page {
    struct page_value value;
    uint64_t end;
};

struct history_context_log {
    unsigned count;
    struct history_context values[HISTORY_VALUES];
};

struct history_page_log {
    unsigned count;
    struct history_page values[HISTORY_VALUES];
};

struct history_event {
    uint64_t time;
    enum spec_granularity granularity;
    uint16_t domain;
    uint16_t requester;
    unsigned function_mask;
    uint64_t first;
    uint64_t last;
};

struct history {
    struct ram *ram;
    const struct walker_config *config;
    uint64_t root; /* the root-table register in force */
    uint64_t now;

    uint16_t requesters[HISTORY_REQUESTERS];
    uint64_t tables[HISTORY_TABLES];
    uint64_t pages[HISTORY_PAGES_MAX]; /* sorted */
    unsigned page_count;

    struct history_context_log contexts[HISTORY_REQUESTERS];
    struct history_page_log logs[HISTORY_TABLES][HISTORY_DEPTHS][HISTORY_PAGES_MAX];

    struct history_event context_events[HISTORY_EVENTS];
    unsigned context_event_count;
    struct history_event iotlb_events[HISTORY_EVENTS];
    unsigned iotlb_event_count;
};

/* Index of a page of the universe, or -1. */
int history_page_index(const struct history *history, uint64_t iova);
int history_requester_index(const struct history *history, uint16_t requester);

/* Reads everything anew. To be called after each change of tables, memory or root. */
void history_refresh(struct history *history);

/* The time at which an invalidation is submitted: it covers what ceased to be true before. */
uint64_t history_submit(struct history *history);

/* An invalidation that was submitted at `time` has completed. */
void history_invalidate_context(struct history *history, uint64_t time,
                                enum spec_granularity granularity, uint16_t domain,
                                uint16_t requester, unsigned function_mask);
void history_invalidate_iotlb(struct history *history, uint64_t time,
                              enum spec_granularity granularity, uint16_t domain, uint64_t first,
                              uint64_t last);

/* Whether logs are so full that the guest must invalidate everything now. */
bool history_full(const struct history *history);

/* Whether a logged value may be answered now. */
bool history_context_allowed(const struct history *history, uint16_t requester,
                             const struct history_context *entry);
bool history_page_allowed(const struct history *history, uint16_t domain, uint64_t iova,
                          const struct history_page *entry);

/* The log of a page under a context value; NULL when its table is not of the universe. */
const struct history_page_log *history_log(const struct history *history,
                                           const struct context_value *context, int page_index);

#endif
