/* SPDX-License-Identifier: BSD-2-Clause */
/* Follows an address through views and IOMMUs; see private.h. */
#include "space/private.h"

#include <errno.h>

static bool range_holds(const struct view_range *range, uint64_t address)
{
    return address - range->first <= range->last - range->first;
}

/* The last range that begins at the address or below; the view has one or more. */
static uint32_t search(const struct view *view, uint64_t address)
{
    const uint64_t *base = view->firsts;
    uint32_t count = view->count;

    while (count > 1) {
        uint32_t half = count / 2;

        base += base[half] <= address ? half : 0;
        count -= half;
    }
    return (uint32_t)(base - view->firsts);
}

static void gap(const struct view *view, uint32_t below, uint64_t address, uint64_t *first,
                uint64_t *last)
{
    *first = 0;
    *last = UINT64_MAX;
    if (!view->count) {
        return;
    }
    if (view->firsts[below] > address) {
        *last = view->firsts[below] - 1;
        return;
    }
    *first = view->ranges[below].last + 1;
    if (below + 1 < view->count) {
        *last = view->firsts[below + 1] - 1;
    }
}

const struct view_range *view_find(struct view *view, uint64_t address, uint64_t *first,
                                   uint64_t *last)
{
    uint32_t hint = atomic_load_explicit(&view->hint, memory_order_relaxed);
    uint32_t found = 0;

    if (hint < view->count && range_holds(&view->ranges[hint], address)) {
        return &view->ranges[hint];
    }
    if (view->count) {
        found = search(view, address);
        if (range_holds(&view->ranges[found], address)) {
            atomic_store_explicit(&view->hint, found, memory_order_relaxed);
            return &view->ranges[found];
        }
    }
    gap(view, found, address, first, last);
    return NULL;
}

static void narrow(struct route *route, uint64_t before, uint64_t after)
{
    if (before < route->before) {
        route->before = before;
    }
    if (after < route->after) {
        route->after = after;
    }
}

/* What lies at the address of a space: a range, or nothing, with how far that goes. */
static const struct view_range *look(const struct snapshot *snapshot,
                                     const struct viommu_space *space, uint64_t address,
                                     struct route *route)
{
    struct view *view = space->number < snapshot->count ? snapshot->views[space->number] : NULL;
    const struct view_range *range;
    uint64_t first = 0;
    uint64_t last = UINT64_MAX;

    range = view ? view_find(view, address, &first, &last) : NULL;
    if (range) {
        first = range->first;
        last = range->last;
    }
    narrow(route, address - first, last - address);
    return range;
}

static void end(struct route *route, const struct view_range *range, uint64_t offset)
{
    route->region = range->region;
    route->offset = offset;
    if (range->region->kind == VIOMMU_REGION_ROM) {
        route->perm &= VIOMMU_READ | VIOMMU_EXEC;
    }
}

/*
 * Crosses one IOMMU. Returns where it goes on, with *address there; NULL when that is nowhere, or
 * not allowed.
 */
static const struct viommu_space *cross(struct viommu_bus *bus, struct viommu_region *region,
                                        uint64_t *address, const struct viommu_bus_attrs *attrs,
                                        uint32_t need, struct viommu_cpu *cpu, struct route *route)
{
    struct hop *hop = &route->hops[route->hop_count++];
    struct viommu_hop answer = {0};
    uint64_t inside;

    *hop = (struct hop){.region = region, .address = *address, .pair = NO_PAIR};
    hop->index = region->iommu->index_of(region->opaque, attrs);
    if (hop->index < region->iommu->index_count) {
        if (cpu) {
            hop->pair = pair_arm(cpu, region, hop->index);
            route->uncached |= hop->pair == NO_PAIR;
        }
        region->iommu->translate(region->opaque, *address, hop->index, &answer);
    }
    inside = answer.page - 1; /* all ones where there is no page */
    narrow(route, *address & inside, inside - (*address & inside));
    if (!answer.space || answer.space->bus != bus) {
        answer.perm = 0;
    }
    if (!(answer.perm & VIOMMU_READ)) {
        route->perm &= ~(uint32_t)(VIOMMU_READ | VIOMMU_EXEC);
    }
    if (!(answer.perm & VIOMMU_WRITE)) {
        route->perm &= ~(uint32_t)VIOMMU_WRITE;
    }
    if ((route->perm & need) != need) {
        route->refuser = (int)route->hop_count - 1;
        return NULL;
    }
    *address = answer.address;
    return route->perm ? answer.space : NULL;
}

int route_find(struct viommu_bus *bus, const struct viommu_space *space, uint64_t address,
               const struct viommu_bus_attrs *attrs, uint32_t need, struct viommu_cpu *cpu,
               struct route *route)
{
    const struct snapshot *snapshot = snapshot_now(bus);

    route->region = NULL;
    route->before = UINT64_MAX;
    route->after = UINT64_MAX;
    route->perm = VIOMMU_READ | VIOMMU_WRITE | VIOMMU_EXEC;
    route->hop_count = 0;
    route->uncached = false;
    route->refuser = -1;
    while (space) {
        const struct view_range *range = look(snapshot, space, address, route);

        if (!range) {
            break;
        }
        address = range->offset + (address - range->first);
        if (range->region->kind != VIOMMU_REGION_IOMMU) {
            end(route, range, address);
            return 0;
        }
        if (route->hop_count == VIOMMU_HOPS_MAX) {
            return -ELOOP;
        }
        space = cross(bus, range->region, &address, attrs, need, cpu, route);
    }
    route->perm = 0;
    return 0;
}

int viommu_space_resolve(struct viommu_space *space, uint64_t address,
                         const struct viommu_bus_attrs *attrs, struct viommu_route *out)
{
    struct viommu_bus *bus = space->bus;
    struct route route;
    int error;

    if (!section_enter(bus)) {
        return -ENOMEM;
    }
    error = route_find(bus, space, address, attrs, 0, NULL, &route);
    *out = (struct viommu_route){
        .region = route.region,
        .offset = route.region ? route.offset : 0,
        .first = address - route.before,
        .last = address + route.after,
        .perm = error ? 0 : route.perm,
        .hops = route.hop_count,
    };
    section_leave(bus);
    return error;
}

int viommu_space_ranges(struct viommu_space *space, struct viommu_route *routes, size_t *count)
{
    struct viommu_bus *bus = space->bus;
    const struct snapshot *snapshot;
    const struct view *view;
    size_t room = routes ? *count : 0;

    if (!section_enter(bus)) {
        return -ENOMEM;
    }
    snapshot = snapshot_now(bus);
    view = space->number < snapshot->count ? snapshot->views[space->number] : NULL;
    *count = view ? view->count : 0;
    for (size_t i = 0; i < *count && i < room; i++) {
        const struct view_range *range = &view->ranges[i];

        routes[i] = (struct viommu_route){.region = range->region,
                                          .offset = range->offset,
                                          .first = range->first,
                                          .last = range->last};
    }
    section_leave(bus);
    return routes && *count > room ? -ENOSPC : 0;
}
