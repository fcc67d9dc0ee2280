/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a faithful cache holds, exactly; or what a hostile one may hold, at most.
 *
 * Each look-up that the unit makes is noted here with what the tables say at that moment, and
 * "known" stands for what is kept of it: contexts by requester, pages by domain. A faithful cache
 * answers from what is known, always, and else by the tables; a hostile one may do either. When an
 * invalidation has completed, what was noted before it was submitted goes.
 *
 * With caching mode off, what is not present or faults is never known.
 */
#ifndef VIOMMU_MODEL_KEPT_H
#define VIOMMU_MODEL_KEPT_H

#include "../support/vtd_spec.h"
#include "walker.h"

#include <viommu/iommu.h>

#define KEPT_CONTEXTS 1024
#define KEPT_PAGES 4096

struct kept_context {
    uint16_t requester;
    uint64_t time;
    struct context_value value;
};

struct kept_page {
    uint16_t domain;
    uint64_t iova; /* of the page, as large as value.mask says */
    uint64_t time;
    struct page_value value; /* gpa: of the first byte */
};

struct kept {
    enum viommu_cache_mode mode;
    bool caching_mode;
    uint32_t quota; /* pages; 0: no limit */
    unsigned context_count;
    unsigned page_count;
    struct kept_context contexts[KEPT_CONTEXTS];
    struct kept_page pages[KEPT_PAGES];
};

/* Notes look-ups; what may not be kept, or is known already, is passed over. */
void kept_note_context(struct kept *kept, uint64_t time, uint16_t requester,
                       const struct context_value *value);
void kept_note_page(struct kept *kept, uint64_t time, uint16_t domain, uint64_t iova,
                    const struct page_value *value);

/* The next known value from *at on, or NULL; *at moves behind it. */
const struct context_value *kept_next_context(const struct kept *kept, uint16_t requester,
                                              unsigned *at);
/* The value is of the 4 KiB page asked for. A faithful cache: only the smallest page. */
bool kept_next_page(const struct kept *kept, uint16_t domain, uint64_t iova, unsigned *at,
                    struct page_value *value);

void kept_invalidate_contexts(struct kept *kept, uint64_t time, enum spec_granularity granularity,
                              uint16_t domain, uint16_t requester, unsigned function_mask);
void kept_invalidate_pages(struct kept *kept, uint64_t time, enum spec_granularity granularity,
                           uint16_t domain, uint64_t first, uint64_t last);

/* Whether the guest must invalidate everything now. */
bool kept_full(const struct kept *kept);

#endif
