/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The range set: which addresses are in it, as runs [first, last] that neither overlap nor touch.
 *
 * A range map whose runs have no target; adding merges them. So iteration (range_cursor_seek and
 * range_cursor_next on `set.map`), gaps and memory are the map's, and so is its locking: the
 * owner's.
 *
 * A call that returns -ENOMEM has changed nothing, whole-set operations included.
 */
#ifndef VIOMMU_RANGE_RANGE_SET_H
#define VIOMMU_RANGE_RANGE_SET_H

#include "range/range_map.h"

struct range_set {
    struct range_map map;
};

void range_set_init(struct range_set *set);
void range_set_fini(struct range_set *set);

/* Union with [first, last]. Returns 0, -EINVAL (first > last) or -ENOMEM. */
int range_set_add(struct range_set *set, uint64_t first, uint64_t last);

/* Subtracts [first, last]. Returns 0, -EINVAL or -ENOMEM. */
int range_set_subtract(struct range_set *set, uint64_t first, uint64_t last);

/* Whether all of [first, last] is in the set. */
bool range_set_contains(const struct range_set *set, uint64_t first, uint64_t last);

/* Whether some of it is. */
bool range_set_meets(const struct range_set *set, uint64_t first, uint64_t last);

/* Union, difference and intersection with another set, or itself. Return 0 or -ENOMEM. */
int range_set_add_set(struct range_set *set, const struct range_set *other);
int range_set_subtract_set(struct range_set *set, const struct range_set *other);
int range_set_intersect_set(struct range_set *set, const struct range_set *other);

/*
 * For every run, in order, of what [first, last] and the set have in common: seek once, then next
 * while it returns true.
 */
static inline bool range_set_next_clipped(struct range_cursor *cursor, uint64_t first,
                                          uint64_t last, struct range_run *run)
{
    if (!range_cursor_next(cursor, last, run)) {
        return false;
    }
    range_run_clip(run, first, last);
    return true;
}

#endif
