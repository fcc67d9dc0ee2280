/* SPDX-License-Identifier: BSD-2-Clause */
/* What meets what: the table in viommu/iova.h, gone through. */
#include "iova/space.h"

#include <errno.h>
#include <stdio.h>

void space_side(struct viommu_iova_side *side, enum viommu_iova_kind kind,
                const struct viommu_range *range, const struct viommu_iova_owner *owner)
{
    *side = (struct viommu_iova_side){.kind = kind, .range = *range};
    snprintf(side->owner, sizeof(side->owner), "%s", owner->name);
}

static int with_limits(const struct viommu_iova *space, struct viommu_iova_conflict *conflict)
{
    for (const struct viommu_iova_owner *owner = space->owners; owner; owner = owner->next) {
        for (size_t i = 0; i < owner->hole_count; i++) {
            if (space_meets(&owner->holes[i], &conflict->asked.range)) {
                space_side(&conflict->holder, VIOMMU_IOVA_LIMIT, &owner->holes[i], owner);
                return -ERANGE;
            }
        }
    }
    return 0;
}

static int with_reservations(const struct viommu_iova *space,
                             struct viommu_iova_conflict *conflict)
{
    const struct viommu_iova_reservation *reservation = space->reservations;

    for (; reservation; reservation = reservation->next) {
        if (!space_is_loose(reservation) && space_type_conflicts(reservation->type) &&
            space_meets(&reservation->range, &conflict->asked.range)) {
            space_side(&conflict->holder, VIOMMU_IOVA_RESERVATION, &reservation->range,
                       reservation->owner);
            conflict->holder.type = reservation->type;
            return -EADDRNOTAVAIL;
        }
    }
    return 0;
}

static int with_mappings(const struct viommu_iova *space, struct viommu_iova_conflict *conflict)
{
    struct range_run run;
    struct viommu_range range;

    if (!range_map_from(&space->mappings, conflict->asked.range.first, &run) ||
        run.first > conflict->asked.range.last) {
        return 0;
    }
    range = (struct viommu_range){run.first, run.last};
    space_side(&conflict->holder, VIOMMU_IOVA_MAPPING, &range, space_mapping_owner(&run));
    return -EEXIST;
}

static int with_doorbells(const struct viommu_iova *space, struct viommu_iova_conflict *conflict)
{
    const struct viommu_iova_reservation *window = space->reservations;

    for (; window; window = window->next) {
        struct range_run run;
        struct viommu_range range;

        if (range_map_from(&window->inside, conflict->asked.range.first, &run) &&
            run.first <= conflict->asked.range.last) {
            range = (struct viommu_range){run.first, run.last};
            space_side(&conflict->holder, VIOMMU_IOVA_DOORBELL, &range, window->owner);
            return -EEXIST;
        }
    }
    return 0;
}

static int with_memory(const struct viommu_iova *space, struct viommu_iova_conflict *conflict)
{
    const struct viommu_iova_memory *memory = space->identity ? space->memories : NULL;

    for (; memory; memory = memory->next) {
        if (space_meets(&memory->range, &conflict->asked.range)) {
            space_side(&conflict->holder, VIOMMU_IOVA_MEMORY, &memory->range, memory->owner);
            return -EADDRINUSE;
        }
    }
    return 0;
}

int space_conflict(const struct viommu_iova *space, struct viommu_iova_conflict *conflict)
{
    enum viommu_iova_kind kind = conflict->asked.kind;
    bool uses = kind == VIOMMU_IOVA_MAPPING || kind == VIOMMU_IOVA_MEMORY;
    int error = 0;

    if (kind == VIOMMU_IOVA_MEMORY && !space->identity) {
        return 0;
    }
    if (kind == VIOMMU_IOVA_RESERVATION && !space_type_conflicts(conflict->asked.type)) {
        return 0;
    }
    if (uses) {
        error = with_limits(space, conflict);
        error = error ? error : with_reservations(space, conflict);
    }
    error = error ? error : with_mappings(space, conflict);
    if (!uses) {
        error = error ? error : with_doorbells(space, conflict);
    }
    if (kind != VIOMMU_IOVA_MEMORY) {
        error = error ? error : with_memory(space, conflict);
    }
    return error;
}
