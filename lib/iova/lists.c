/* SPDX-License-Identifier: BSD-2-Clause */
/* The two lists that are asked for: what may be used, and what is reserved. */
#include "iova/space.h"

#include "range/range_set.h"

#include <errno.h>
#include <stdlib.h>

/* What may be used, as a set. */
static int find_usable(const struct viommu_iova *space, struct range_set *usable)
{
    const struct viommu_iova_reservation *reservation = space->reservations;
    int error = range_set_add(usable, 0, UINT64_MAX);

    for (const struct viommu_iova_owner *owner = space->owners; owner; owner = owner->next) {
        for (size_t i = 0; i < owner->hole_count && !error; i++) {
            error = range_set_subtract(usable, owner->holes[i].first, owner->holes[i].last);
        }
    }
    for (; reservation && !error; reservation = reservation->next) {
        if (space_type_conflicts(reservation->type)) {
            error = range_set_subtract(usable, reservation->range.first,
                                       reservation->range.last);
        }
    }
    return error;
}

int viommu_iova_usable(const struct viommu_iova *space, struct viommu_range *ranges, size_t *count,
                       uint64_t *generation)
{
    struct range_set usable;
    struct range_cursor cursor;
    struct range_run run;
    size_t room = *count;
    int error;

    range_set_init(&usable);
    error = find_usable(space, &usable);
    if (!error) {
        *count = usable.map.count;
        error = room < *count ? -ENOSPC : 0;
    }
    if (!error) {
        range_cursor_seek(&cursor, &usable.map, 0);
        while (range_cursor_next(&cursor, UINT64_MAX, &run)) {
            *ranges++ = (struct viommu_range){run.first, run.last};
        }
    }
    range_set_fini(&usable);
    if (generation) {
        *generation = space->generation;
    }
    return error;
}

static int by_address(const void *a, const void *b)
{
    const struct viommu_iova_reserved *x = a;
    const struct viommu_iova_reserved *y = b;

    if (x->range.first != y->range.first) {
        return x->range.first < y->range.first ? -1 : 1;
    }
    if (x->range.last != y->range.last) {
        return x->range.last < y->range.last ? -1 : 1;
    }
    return (x->type > y->type) - (x->type < y->type);
}

int viommu_iova_reserved(const struct viommu_iova *space, struct viommu_iova_reserved *entries,
                         size_t *count, uint64_t *generation)
{
    const struct viommu_iova_reservation *reservation;
    size_t room = *count;
    size_t n = 0;

    if (generation) {
        *generation = space->generation;
    }
    for (reservation = space->reservations; reservation; reservation = reservation->next) {
        n++;
    }
    *count = n;
    if (room < n) {
        return -ENOSPC;
    }
    n = 0;
    for (reservation = space->reservations; reservation; reservation = reservation->next) {
        entries[n++] = (struct viommu_iova_reserved){
            .type = reservation->type,
            .range = reservation->range,
            .movable = reservation->movable,
            .doorbells = reservation->doorbells.count,
            .owner = reservation->owner->name,
        };
    }
    if (n > 1) {
        qsort(entries, n, sizeof(*entries), by_address);
    }
    return 0;
}
