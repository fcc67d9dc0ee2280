/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Lays a space out: the tree of regions becomes a sorted array of ranges.
 *
 * Regions are visited by falling priority, and each takes what is still free of its place: a range
 * map holds what is taken, so n ranges cost n log n. A run's target is the offset in the region,
 * its tag is the region. A place is handed down as offsets in the region that is visited, [first,
 * last], and `base`, what to add for an address of the space (it wraps where an alias begins late).
 */
#include "space/private.h"

#include "base/alloc.h"
#include "range/range_map.h"

#include <errno.h>

struct layout {
    struct range_map map;
    unsigned steps;
};

static int take(struct layout *layout, struct viommu_region *region, uint64_t base, uint64_t first,
                uint64_t last)
{
    struct range_run run = {.first = first, .last = last, .target = first - base};

    run.tag = (uintptr_t)region;
    return range_map_insert(&layout->map, &run);
}

/* Addresses [first, last] of the space: what is free of them is the region's. */
static int fill(struct layout *layout, struct viommu_region *region, uint64_t base, uint64_t first,
                uint64_t last)
{
    struct range_run taken;
    int error = 0;

    while (!error) {
        if (++layout->steps > STEPS_MAX) {
            return -E2BIG;
        }
        if (!range_map_from(&layout->map, first, &taken) || taken.first > last) {
            return take(layout, region, base, first, last);
        }
        if (taken.first > first) {
            error = take(layout, region, base, first, taken.first - 1);
        }
        if (taken.last >= last) {
            break;
        }
        first = taken.last + 1;
    }
    return error;
}

static int visit(struct layout *layout, struct viommu_region *region, uint64_t base, uint64_t first,
                 uint64_t last, unsigned depth);

static int visit_children(struct layout *layout, struct viommu_region *container, uint64_t base,
                          uint64_t first, uint64_t last, unsigned depth)
{
    int error = 0;

    for (struct viommu_region *child = container->children; child && !error;
         child = child->sibling) {
        uint64_t end = child->at + child->last;
        uint64_t from = child->at > first ? child->at : first;
        uint64_t to = end < last ? end : last;

        if (++layout->steps > STEPS_MAX) {
            return -E2BIG;
        }
        if (from <= to) {
            error = visit(layout, child, base + child->at, from - child->at, to - child->at, depth);
        }
    }
    return error;
}

static int visit(struct layout *layout, struct viommu_region *region, uint64_t base, uint64_t first,
                 uint64_t last, unsigned depth)
{
    if (depth > NEST_MAX) {
        return -ELOOP;
    }
    if (region->off || first > region->last) {
        return 0;
    }
    if (last > region->last) {
        last = region->last;
    }
    if (region->kind == VIOMMU_REGION_CONTAINER) {
        return visit_children(layout, region, base, first, last, depth + 1);
    }
    if (region->kind == VIOMMU_REGION_ALIAS) {
        if (++layout->steps > STEPS_MAX) {
            return -E2BIG;
        }
        return visit(layout, region->target, base - region->offset, first + region->offset,
                     last + region->offset, depth + 1);
    }
    return fill(layout, region, base, base + first, base + last);
}

/* For as many ranges as there may be steps, at most. */
static struct view *view_alloc(size_t count)
{
    size_t ranges = count * sizeof(struct view_range);
    struct view *view = base_alloc(sizeof(*view) + ranges + count * sizeof(uint64_t));

    if (view) {
        view->firsts = (uint64_t *)((char *)view->ranges + ranges);
    }
    return view;
}

/* Adds a range, which continues the last one or does not. */
static void view_append(struct view *view, const struct range_run *run)
{
    struct viommu_region *region = (struct viommu_region *)(uintptr_t)run->tag;
    struct view_range *last = view->count ? &view->ranges[view->count - 1] : NULL;

    if (last && last->region == region && last->last + 1 == run->first &&
        last->offset + (run->first - last->first) == run->target) {
        last->last = run->last;
        return;
    }
    view->firsts[view->count] = run->first;
    view->ranges[view->count++] = (struct view_range){
        .first = run->first, .last = run->last, .offset = run->target, .region = region};
}

int view_build(struct viommu_region *root, struct view **out)
{
    struct layout layout = {.steps = 0};
    struct range_cursor cursor;
    struct range_run run;
    struct view *view;
    int error;

    range_map_init(&layout.map);
    error = visit(&layout, root, 0, 0, root->last, 0);
    view = error ? NULL : view_alloc(layout.map.count);
    if (view) {
        range_cursor_seek(&cursor, &layout.map, 0);
        while (range_cursor_next(&cursor, UINT64_MAX, &run)) {
            view_append(view, &run);
        }
        for (uint32_t i = 0; i < view->count; i++) {
            region_get(view->ranges[i].region);
        }
        view->root = root;
        view->built = root->bus->changes;
        *out = view;
    } else if (!error) {
        error = -ENOMEM;
    }
    range_map_fini(&layout.map);
    return error;
}

static bool outdated(const struct viommu_region *region, uint64_t since, unsigned depth,
                     unsigned *steps)
{
    if (region->changed > since || depth > NEST_MAX || ++*steps > STEPS_MAX) {
        return true;
    }
    if (region->off) {
        return false;
    }
    if (region->target) {
        return outdated(region->target, since, depth + 1, steps);
    }
    for (const struct viommu_region *child = region->children; child; child = child->sibling) {
        if (outdated(child, since, depth + 1, steps)) {
            return true;
        }
    }
    return false;
}

bool view_outdated(const struct viommu_region *root, uint64_t since)
{
    unsigned steps = 0;

    return outdated(root, since, 0, &steps);
}
