/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The range set, on the range map. A change by one range needs memory for one insertion at most,
 * before anything is changed; a change by a set reserves it for all.
 */
#include "range/range_set.h"

#include "range/tree.h"

#include <errno.h>

void range_set_init(struct range_set *set)
{
    range_map_init(&set->map);
}

void range_set_fini(struct range_set *set)
{
    range_map_fini(&set->map);
}

bool range_set_contains(const struct range_set *set, uint64_t first, uint64_t last)
{
    struct range_run run;

    return range_map_find(&set->map, first, &run) && run.last >= last;
}

bool range_set_meets(const struct range_set *set, uint64_t first, uint64_t last)
{
    struct range_run run;

    return range_map_from(&set->map, first, &run) && run.first <= last;
}

/* Makes a run of the set longer, into what is free. */
static void extend(struct range_map *map, const struct range_run *run, uint64_t first,
                   uint64_t last)
{
    struct range_path path;

    tree_seek(map, run->first, &path);
    tree_entries(path.node[0], 0)[path.index[0]].first = first;
    path.node[0]->last[path.index[0]] = last;
    tree_refresh(map, &path);
    tree_changed(map);
}

int range_set_add(struct range_set *set, uint64_t first, uint64_t last)
{
    struct range_map *map = &set->map;
    struct range_run whole = {.first = first, .last = last, .tag = RANGE_NO_TARGET};
    uint64_t after = last == UINT64_MAX ? last : last + 1;
    struct range_run run; /* the first that meets or touches */
    struct range_run end;

    if (first > last) {
        return -EINVAL;
    }
    if (!range_map_from(map, first ? first - 1 : 0, &run) || run.first > after) {
        return range_map_insert(map, &whole);
    }
    if (range_map_find(map, after, &end)) {
        whole.last = end.last > last ? end.last : last;
    }
    /* It takes the others over: no memory is needed. */
    if (run.last < whole.last) {
        (void)range_map_cut(map, run.last + 1, whole.last);
    }
    extend(map, &run, run.first < first ? run.first : first,
           run.last > whole.last ? run.last : whole.last);
    return 0;
}

int range_set_subtract(struct range_set *set, uint64_t first, uint64_t last)
{
    return range_map_cut(&set->map, first, last);
}

/* Applies a change for each run of the other set. */
static int for_each_run(struct range_set *set, const struct range_set *other,
                        int (*apply)(struct range_set *set, uint64_t first, uint64_t last))
{
    size_t keep = set->map.spare_keep;
    struct range_cursor cursor;
    struct range_run run;
    int error = range_map_reserve(&set->map, other->map.count);

    range_cursor_seek(&cursor, &other->map, 0);
    while (!error && range_cursor_next(&cursor, UINT64_MAX, &run)) {
        error = apply(set, run.first, run.last);
    }
    set->map.spare_keep = keep;
    tree_trim(&set->map);
    return error;
}

int range_set_add_set(struct range_set *set, const struct range_set *other)
{
    return set == other ? 0 : for_each_run(set, other, range_set_add);
}

int range_set_subtract_set(struct range_set *set, const struct range_set *other)
{
    if (set == other) {
        return range_map_cut(&set->map, 0, UINT64_MAX);
    }
    return for_each_run(set, other, range_set_subtract);
}

/* Subtracts the gaps of the other set. */
static int subtract_gaps(struct range_set *set, const struct range_set *other)
{
    struct range_cursor cursor;
    struct range_run run;
    uint64_t from = 0;
    int error = 0;

    range_cursor_seek(&cursor, &other->map, 0);
    while (!error && range_cursor_next(&cursor, UINT64_MAX, &run)) {
        if (run.first > from) {
            error = range_set_subtract(set, from, run.first - 1);
        }
        if (run.last == UINT64_MAX) {
            return error;
        }
        from = run.last + 1;
    }
    return error ? error : range_set_subtract(set, from, UINT64_MAX);
}

int range_set_intersect_set(struct range_set *set, const struct range_set *other)
{
    size_t keep = set->map.spare_keep;
    int error;

    if (set == other) {
        return 0;
    }
    error = range_map_reserve(&set->map, other->map.count + 1);
    if (!error) {
        error = subtract_gaps(set, other);
    }
    set->map.spare_keep = keep;
    tree_trim(&set->map);
    return error;
}
