/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a faithful or a hostile cache holds: see kept.h.
 */
#include "kept.h"

#include "../support/guest.h"

#include <string.h>

static bool hostile(const struct kept *kept)
{
    return kept->mode == VIOMMU_CACHE_HOSTILE;
}

void kept_note_context(struct kept *kept, uint64_t time, uint16_t requester,
                       const struct context_value *value)
{
    if (value->reason && (!kept->caching_mode || value->reason == SPEC_ROOT_MODE)) {
        return;
    }
    for (unsigned i = 0; i < kept->context_count; i++) {
        struct kept_context *known = &kept->contexts[i];

        if (known->requester == requester &&
            (!hostile(kept) || !memcmp(&known->value, value, sizeof(*value)))) {
            known->time = hostile(kept) ? time : known->time;
            return;
        }
    }
    if (kept->context_count == KEPT_CONTEXTS) {
        guest_die("the test's record of kept contexts overflows");
    }
    kept->contexts[kept->context_count++] = (struct kept_context){requester, time, *value};
}

static bool may_keep(const struct kept *kept, const struct page_value *value)
{
    return kept->caching_mode ||
           (!value->reason && value->perm && !spec_in_interrupt_range(value->gpa));
}

void kept_note_page(struct kept *kept, uint64_t time, uint16_t domain, uint64_t iova,
                    const struct page_value *value)
{
    uint64_t mask = value->perm && !value->reason ? value->mask : 0xfff;
    struct kept_page page = {domain, iova & ~mask, time, *value};

    if (!may_keep(kept, value)) {
        return;
    }
    page.value.mask = mask;
    page.value.gpa &= ~mask;
    for (unsigned i = 0; i < kept->page_count; i++) {
        struct kept_page *known = &kept->pages[i];

        if (known->domain == domain && known->iova == page.iova && known->value.mask == mask &&
            (!hostile(kept) || !memcmp(&known->value, &page.value, sizeof(page.value)))) {
            known->time = hostile(kept) ? time : known->time;
            return;
        }
    }
    if (kept->quota && kept->page_count == kept->quota && !hostile(kept)) {
        return;
    }
    if (kept->page_count == KEPT_PAGES) {
        guest_die("the test's record of kept pages overflows");
    }
    kept->pages[kept->page_count++] = page;
}

const struct context_value *kept_next_context(const struct kept *kept, uint16_t requester,
                                              unsigned *at)
{
    while (*at < kept->context_count) {
        const struct kept_context *known = &kept->contexts[(*at)++];

        if (known->requester == requester) {
            return &known->value;
        }
    }
    return NULL;
}

static bool covers(const struct kept_page *known, uint16_t domain, uint64_t iova)
{
    return known->domain == domain && known->iova == (iova & ~known->value.mask);
}

bool kept_next_page(const struct kept *kept, uint16_t domain, uint64_t iova, unsigned *at,
                    struct page_value *value)
{
    const struct kept_page *found = NULL;

    while (*at < kept->page_count) {
        const struct kept_page *known = &kept->pages[(*at)++];

        if (!covers(known, domain, iova) || (found && found->value.mask < known->value.mask)) {
            continue;
        }
        found = known;
        if (hostile(kept)) {
            break;
        }
    }
    if (!found) {
        return false;
    }
    *value = found->value;
    value->gpa |= iova & value->mask & ~0xfffull;
    return true;
}

void kept_invalidate_contexts(struct kept *kept, uint64_t time, enum spec_granularity granularity,
                              uint16_t domain, uint16_t requester, unsigned function_mask)
{
    static const uint16_t masks[4] = {0, 4, 6, 7};
    unsigned left = 0;

    for (unsigned i = 0; i < kept->context_count; i++) {
        const struct kept_context *known = &kept->contexts[i];
        bool same = !((known->requester ^ requester) & ~masks[function_mask] & 0xffff);
        bool hit = granularity == SPEC_GLOBAL ||
                   (known->value.domain == domain && (granularity == SPEC_DOMAIN || same));

        if (!hit || known->time > time) {
            kept->contexts[left++] = *known;
        }
    }
    kept->context_count = left;
}

void kept_invalidate_pages(struct kept *kept, uint64_t time, enum spec_granularity granularity,
                           uint16_t domain, uint64_t first, uint64_t last)
{
    unsigned left = 0;

    for (unsigned i = 0; i < kept->page_count; i++) {
        const struct kept_page *known = &kept->pages[i];
        bool meets = known->iova <= last && (known->iova | known->value.mask) >= first;
        bool hit = granularity == SPEC_GLOBAL ||
                   (known->domain == domain && (granularity == SPEC_DOMAIN || meets));

        if (!hit || known->time > time) {
            kept->pages[left++] = *known;
        }
    }
    kept->page_count = left;
}

bool kept_full(const struct kept *kept)
{
    return kept->context_count > KEPT_CONTEXTS - 64 || kept->page_count > KEPT_PAGES - 512;
}
