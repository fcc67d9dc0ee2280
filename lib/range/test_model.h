/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A plain model of the range map, for its tests and its fuzz target: runs in a sorted array, each
 * operation a loop over all of them, written without a look at the tree.
 */
#ifndef VIOMMU_RANGE_TEST_MODEL_H
#define VIOMMU_RANGE_TEST_MODEL_H

#include "range/range_map.h"

#include <errno.h>
#include <string.h>

#define MODEL_MAX 4096

struct model {
    struct range_run runs[MODEL_MAX];
    size_t count;
};

/* The first run that ends at the address or above; the count when there is none. */
static inline size_t model_from(const struct model *model, uint64_t address)
{
    size_t i = 0;

    while (i < model->count && model->runs[i].last < address) {
        i++;
    }
    return i;
}

static inline void model_put(struct model *model, size_t at, struct range_run run)
{
    memmove(&model->runs[at + 1], &model->runs[at], (model->count - at) * sizeof(run));
    model->runs[at] = run;
    model->count++;
}

static inline void model_drop(struct model *model, size_t at)
{
    model->count--;
    memmove(&model->runs[at], &model->runs[at + 1], (model->count - at) * sizeof(model->runs[0]));
}

static inline int model_insert(struct model *model, struct range_run run)
{
    size_t at;

    if (run.first > run.last) {
        return -EINVAL;
    }
    if (run.tag & RANGE_NO_TARGET) {
        run.target = 0;
    } else if (UINT64_MAX - run.target < run.last - run.first) {
        return -EINVAL;
    }
    at = model_from(model, run.first);
    if (at < model->count && model->runs[at].first <= run.last) {
        return -EEXIST;
    }
    model_put(model, at, run);
    return 0;
}

static inline int model_erase(struct model *model, uint64_t first, uint64_t last)
{
    size_t at = model_from(model, first);

    if (at == model->count || model->runs[at].first != first || model->runs[at].last != last) {
        return -ENOENT;
    }
    model_drop(model, at);
    return 0;
}

/* The run from an address on, its target moved. */
static inline struct range_run model_tail(struct range_run run, uint64_t first)
{
    if (!(run.tag & RANGE_NO_TARGET)) {
        run.target += first - run.first;
    }
    run.first = first;
    return run;
}

static inline int model_split(struct model *model, uint64_t address)
{
    size_t at = model_from(model, address);

    if (at == model->count || model->runs[at].first > address) {
        return -ENOENT;
    }
    if (model->runs[at].first < address) {
        model_put(model, at + 1, model_tail(model->runs[at], address));
        model->runs[at].last = address - 1;
    }
    return 0;
}

static inline int model_cut(struct model *model, uint64_t first, uint64_t last)
{
    size_t at;

    if (first > last) {
        return -EINVAL;
    }
    (void)model_split(model, first);
    if (last != UINT64_MAX) {
        (void)model_split(model, last + 1);
    }
    at = model_from(model, first);
    while (at < model->count && model->runs[at].first <= last) {
        model_drop(model, at);
    }
    return 0;
}

static inline bool model_joins(const struct range_run *left, const struct range_run *right)
{
    uint64_t length = right->first - left->first;

    return right->first - 1 == left->last && left->tag == right->tag &&
           (left->tag & RANGE_NO_TARGET ||
            (right->target >= length && right->target - length == left->target));
}

static inline bool model_merge(struct model *model, uint64_t address)
{
    size_t at = model_from(model, address);
    bool changed = false;

    if (at == model->count || model->runs[at].first > address) {
        return false;
    }
    if (at + 1 < model->count && model_joins(&model->runs[at], &model->runs[at + 1])) {
        model->runs[at].last = model->runs[at + 1].last;
        model_drop(model, at + 1);
        changed = true;
    }
    if (at && model_joins(&model->runs[at - 1], &model->runs[at])) {
        model->runs[at - 1].last = model->runs[at].last;
        model_drop(model, at);
        changed = true;
    }
    return changed;
}

/* Whether [first, last] can hold the size at the alignment; where at first. */
static inline bool model_place(uint64_t first, uint64_t last, uint64_t size, uint64_t align,
                               uint64_t *place)
{
    uint64_t odd = first & (align - 1);

    if (odd && UINT64_MAX - first < align - odd) {
        return false;
    }
    *place = odd ? first + (align - odd) : first;
    return *place <= last && last - *place >= size - 1;
}

/* The lowest place in [first, last], whatever is in the way. */
static inline int model_find_gap(const struct model *model, uint64_t first, uint64_t last,
                                 uint64_t size, uint64_t align, uint64_t *place)
{
    for (size_t at = model_from(model, first); at < model->count; at++) {
        const struct range_run *run = &model->runs[at];

        if (run->first > last) {
            break;
        }
        if (run->first > first && model_place(first, run->first - 1, size, align, place)) {
            return 0;
        }
        if (run->last >= last) {
            return -ENOSPC;
        }
        first = run->last + 1;
    }
    return model_place(first, last, size, align, place) ? 0 : -ENOSPC;
}

static inline bool model_same_run(const struct range_run *a, const struct range_run *b)
{
    return a->first == b->first && a->last == b->last && a->target == b->target && a->tag == b->tag;
}

/* Whether the map has the model's runs, as a cursor tells them. */
static inline bool model_is(const struct model *model, const struct range_map *map)
{
    struct range_cursor cursor;
    struct range_run run;
    size_t at = 0;

    range_cursor_seek(&cursor, map, 0);
    while (range_cursor_next(&cursor, UINT64_MAX, &run)) {
        if (at == model->count || !model_same_run(&model->runs[at], &run)) {
            return false;
        }
        at++;
    }
    return at == model->count && map->count == model->count;
}

/* Returns 0 or -ERANGE or -EINVAL. */
static inline int model_erase_inside(struct model *model, uint64_t first, uint64_t last,
                                     struct range_erased *erased)
{
    size_t at = model_from(model, first);
    size_t end = at;

    *erased = (struct range_erased){0};
    if (first > last) {
        return -EINVAL;
    }
    while (end < model->count && model->runs[end].first <= last) {
        if (model->runs[end].first < first || model->runs[end].last > last) {
            return -ERANGE;
        }
        end++;
    }
    if (end > at) {
        *erased = (struct range_erased){end - at, model->runs[at].first, model->runs[end - 1].last};
    }
    while (end-- > at) {
        model_drop(model, at);
    }
    return 0;
}

/* Whether a look-up beside changes, of which there is none, says the same. */
static inline bool model_peeks_same(const struct model *model, const struct range_map *map,
                                    uint64_t address)
{
    size_t at = model_from(model, address);
    bool there = at < model->count && model->runs[at].first <= address;
    struct range_run run = {0};
    uint64_t version;

    if (range_map_peek(map, address, &run, &version) != (there ? RANGE_FOUND : RANGE_FREE)) {
        return false;
    }
    return !there || (model_same_run(&run, &model->runs[at]) && range_map_is(map, version));
}

/* Whether look-ups around an address answer as the model does. */
static inline bool model_looks_same(const struct model *model, const struct range_map *map,
                                    uint64_t address)
{
    size_t at = model_from(model, address);
    struct range_run run;

    if (range_map_from(map, address, &run) != (at < model->count) ||
        (at < model->count && !model_same_run(&run, &model->runs[at]))) {
        return false;
    }
    if (range_map_before(map, address, &run) != (at > 0) ||
        (at && !model_same_run(&run, &model->runs[at - 1]))) {
        return false;
    }
    return range_map_find(map, address, &run) ==
           (at < model->count && model->runs[at].first <= address);
}

#endif
