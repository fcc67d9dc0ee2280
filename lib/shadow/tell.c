/* SPDX-License-Identifier: BSD-2-Clause */
/* What is counted and told of a sync, and what stops it. */
#include "shadow/sync.h"

#include <errno.h>

/* The mirrors that a shadow's changes concern: members, and those about to be. */
static struct mirror *user_from(struct mirror *mirror, const struct shadow *shadow)
{
    while (mirror && mirror->shadow != shadow && mirror->target_shadow != shadow) {
        mirror = mirror->next;
    }
    return mirror;
}

static uint16_t requester_of(const struct mirror *mirror)
{
    return atomic_load(&mirror->subscriber->device->requesters[0])->id;
}

/* Fences every mirror of a shadow; with the last one it goes itself. */
enum verdict stop(struct viommu *iommu, struct shadow *shadow, int error, bool deny,
                         const char *text)
{
    struct mirror *mirror = user_from(iommu->follow.mirrors, shadow);
    struct mirror *next;

    while (mirror) {
        next = user_from(mirror->next, shadow);
        mirror_fence_for(iommu, mirror, error, deny, text);
        mirror = next;
    }
    return STOPPED;
}

enum verdict stop_for_quota(struct viommu *iommu, struct shadow *shadow, uint64_t first,
                                   uint64_t last)
{
    const struct mirror *user = user_from(iommu->follow.mirrors, shadow);
    struct viommu_event event = {
        .kind = VIOMMU_EVENT_QUOTA,
        .requester = user ? requester_of(user) : 0,
        .error = -EDQUOT,
        .first = first,
        .last = last,
        .text = "the guest's tables need more than the quota of its mirrors",
    };

    iommu_post_event(iommu, &event);
    return stop(iommu, shadow, -EDQUOT, false, "a mirror's tables are past their quota");
}

/* The event of a stretch of pages, for the first mirror that it concerns. */
static void tell_stretch(struct viommu *iommu, const struct shadow *shadow,
                         enum viommu_event_kind kind, uint64_t first, uint64_t last, uint64_t from,
                         uint64_t to, const char *text)
{
    const struct mirror *user = user_from(iommu->follow.mirrors, shadow);
    struct viommu_event event = {
        .kind = kind,
        .requester = user ? requester_of(user) : 0,
        .first = first,
        .last = last,
        .from_gpa = from & SHADOW_TARGET,
        .from_perm = (uint32_t)(from & SHADOW_PERM),
        .to_gpa = to & SHADOW_TARGET,
        .to_perm = (uint32_t)(to & SHADOW_PERM),
        .text = text,
    };

    if (user) {
        iommu_post_event(iommu, &event);
    }
}

void tell_bad(struct viommu *iommu, const struct shadow *shadow, uint64_t first,
                     uint64_t last)
{
    tell_stretch(iommu, shadow, VIOMMU_EVENT_BAD_ENTRY, first, last, 0, 0,
                 "a table entry cannot be read or has reserved bits set: nothing is mapped there");
}

/* Whether a mirror of the shadow nears its limit: mappings then grow together. */
bool is_crowded(const struct viommu *iommu, const struct shadow *shadow)
{
    struct mirror *mirror = user_from(iommu->follow.mirrors, shadow);

    while (mirror && !mirror_crowded(mirror)) {
        mirror = user_from(mirror->next, shadow);
    }
    return mirror != NULL;
}

void count_same(struct viommu *iommu, uint64_t present, uint64_t absent)
{
    iommu->stats.pages_present[iommu->follow.cause_now] += present;
    iommu->stats.pages_absent[iommu->follow.cause_now] += absent;
}

/* Counts the block's changes. Returns whether live entries were rewritten. */
bool count_changes(struct viommu *iommu, const struct block *block)
{
    enum viommu_cause cause = iommu->follow.cause_now;
    struct viommu_stats *stats = &iommu->stats;
    bool rewritten = false;

    for (unsigned i = block->low; i <= block->high; i++) {
        bool was = (block->old[i] & SHADOW_PERM) != 0;
        bool is = (block->new[i] & SHADOW_PERM) != 0;

        if (same_value(block->old[i], block->new[i])) {
            count_same(iommu, was, !was);
        } else if (was && is) {
            stats->pages_rewritten[cause]++;
            rewritten = true;
        } else {
            stats->pages_gone[cause] += was;
            stats->pages_appeared[cause] += is;
        }
    }
    return rewritten;
}

/* Whether page i is of the kind that a stretch of events is about. */
static bool is_rewritten(const struct block *block, unsigned i)
{
    return !same_value(block->old[i], block->new[i]) && (block->old[i] & SHADOW_PERM) &&
           (block->new[i] & SHADOW_PERM);
}

static bool is_newly_bad(const struct block *block, unsigned i)
{
    return (block->new[i] & SHADOW_BAD) && !(block->old[i] & SHADOW_BAD);
}

void tell_rewritten_stretch(struct viommu *iommu, const struct shadow *shadow, uint64_t first,
                            uint64_t last, uint64_t from, uint64_t to)
{
    tell_stretch(iommu, shadow, VIOMMU_EVENT_REWRITTEN, first, last, from, to,
                 "the guest rewrote live entries");
}

void tell_rewritten(struct viommu *iommu, const struct shadow *shadow,
                           const struct block *block)
{
    unsigned last;

    for (unsigned i = block->low; i <= block->high; i = last + 1) {
        last = i;
        if (!is_rewritten(block, i)) {
            continue;
        }
        while (last < block->high && is_rewritten(block, last + 1) &&
               goes_on(block->old[last], block->old[last + 1]) &&
               goes_on(block->new[last], block->new[last + 1])) {
            last++;
        }
        tell_rewritten_stretch(iommu, shadow, page_address(block, i),
                               page_address(block, last) | 0xfff, block->old[i], block->new[i]);
    }
}

void tell_newly_bad(struct viommu *iommu, const struct shadow *shadow,
                           const struct block *block)
{
    unsigned last;

    if (block->bad_last) {
        tell_bad(iommu, shadow, block->bad_first, block->bad_last);
        return;
    }
    for (unsigned i = block->low; i <= block->high; i = last + 1) {
        last = i;
        if (!is_newly_bad(block, i)) {
            continue;
        }
        while (last < block->high && is_newly_bad(block, last + 1)) {
            last++;
        }
        tell_bad(iommu, shadow, page_address(block, i), page_address(block, last) | 0xfff);
    }
}

/* Applies the policy for live entries that were rewritten. Returns whether to go on. */
bool policy_lets(struct viommu *iommu, struct shadow *shadow, uint64_t first, uint64_t last)
{
    switch (iommu->follow.policy) {
    case VIOMMU_REWRITE_FENCE:
        (void)stop(iommu, shadow, -EPERM, true, "the guest rewrote live entries: fenced by policy");
        return false;
    case VIOMMU_REWRITE_STOP:
        if (!iommu->follow.stop_told) {
            iommu->follow.stop_told = true;
            tell_stretch(iommu, shadow, VIOMMU_EVENT_STOP, first, last, 0, 0,
                         "the guest rewrote live entries: the machine should be stopped");
        }
        return true;
    default:
        return true;
    }
}

/* One stretch of what a mirror is not given, in [at, last]; `first` leads to `value`. */
static void tell_not_given(struct viommu *iommu, const struct mirror *mirror, uint64_t first,
                           uint64_t value, uint64_t at, uint64_t last, const char *text)
{
    struct viommu_event event = {
        .kind = VIOMMU_EVENT_NOT_MAPPED,
        .requester = requester_of(mirror),
        .first = at,
        .last = last,
        .to_gpa = (value & SHADOW_TARGET) + (at - first),
        .to_perm = (uint32_t)(value & SHADOW_PERM),
        .text = text,
    };

    iommu_post_event(iommu, &event);
}

/* What a mirror will not be given of [first, last], which leads to `value` now. */
static void tell_not_mapped(struct viommu *iommu, const struct mirror *mirror,
                            const struct layout *layout, uint64_t first, uint64_t last,
                            uint64_t value)
{
    struct shadow_extent piece;
    uint64_t at = first;

    while (layout_piece(mirror, layout, at, last, &piece)) {
        if (piece.first > at) {
            tell_not_given(iommu, mirror, first, value, at, piece.first - 1,
                           "mapped by the guest, but not memory or not allowed");
            at = piece.first;
        }
        if (piece.perm != (value & SHADOW_PERM)) {
            tell_not_given(iommu, mirror, first, value, at, piece.last < last ? piece.last : last,
                           "mapped writable by the guest, but read-only memory");
        }
        if (piece.last >= last) {
            return;
        }
        at = piece.last + 1;
    }
    tell_not_given(iommu, mirror, first, value, at, last,
                   "mapped by the guest, but not memory or not allowed");
}

void tell_mappings_unreachable(struct viommu *iommu, const struct mappings *mappings,
                               uint64_t first)
{
    struct layout layout = {
        .kind = VIEW_MAPPINGS,
        .memory = iommu->follow.memory,
        .last = UINT64_MAX,
        .mappings = mappings,
    };
    struct range_run run;

    if (!range_map_find(&mappings->map, first, &run) || !(run.tag & MAPPINGS_PERM) ||
        (run.tag & MAPPINGS_MMIO)) {
        return;
    }
    for (const struct mirror *m = iommu->follow.mirrors; m; m = m->next) {
        if (m->source == mappings) {
            tell_not_mapped(iommu, m, &layout, run.first, run.last,
                            run.target | (run.tag & MAPPINGS_PERM));
        }
    }
}

/* The same for every mirror of the shadow; the patch is made. */
void tell_stretch_unreachable(struct viommu *iommu, const struct shadow *shadow, uint64_t first,
                                uint64_t last, uint64_t value)
{
    struct layout layout = {
        .kind = VIEW_TABLES,
        .shadow = shadow,
        .patch = &iommu->follow.patch,
        .memory = iommu->follow.memory,
    };
    const struct mirror *mirror = user_from(iommu->follow.mirrors, shadow);

    for (; mirror; mirror = user_from(mirror->next, shadow)) {
        tell_not_mapped(iommu, mirror, &layout, first, last, value);
    }
}

void tell_unreachable(struct viommu *iommu, const struct shadow *shadow,
                             const struct block *block)
{
    unsigned last;

    for (unsigned i = block->low; i <= block->high; i = last + 1) {
        last = i;
        if (!(block->new[i] & SHADOW_PERM) || same_value(block->old[i], block->new[i])) {
            continue;
        }
        while (last < block->high && goes_on(block->new[last], block->new[last + 1]) &&
               !same_value(block->old[last + 1], block->new[last + 1])) {
            last++;
        }
        tell_stretch_unreachable(iommu, shadow, page_address(block, i),
                            page_address(block, last) | 0xfff, block->new[i]);
    }
}
