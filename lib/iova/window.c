/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Windows for doorbells: how they find a place, move, and are filled.
 *
 * Moving is part of adding a claim (space_claim). Memory for all of it, and for the way back, is
 * reserved first; then the claim is added, the windows in its way are taken out of the cover, and
 * each gets a new place. Where one finds none, all goes back.
 */
#include "iova/space.h"

#include "iova/cover.h"

#include <errno.h>

static const struct viommu_range nowhere = {1, 0};

static uint64_t size_less_one(const struct viommu_range *range)
{
    return range->last - range->first;
}

/* The last memory that meets the range; where there is none, false. */
static bool memory_meets(const struct viommu_iova *space, const struct viommu_range *range,
                         uint64_t *last)
{
    bool meets = false;

    for (const struct viommu_iova_memory *memory = space->memories; memory;
         memory = memory->next) {
        if (space_meets(&memory->range, range) && (!meets || memory->range.last > *last)) {
            *last = memory->range.last;
            meets = true;
        }
    }
    return meets;
}

/* Finds the lowest place for a window inside its bounds that is free, also of memory. */
static bool find_place(struct viommu_iova *space, const struct viommu_iova_reservation *window,
                       struct viommu_range *place)
{
    uint64_t less_one = size_less_one(&window->range);
    uint64_t from = window->bounds.first;
    uint64_t behind = 0;

    for (;;) {
        if (from > window->bounds.last ||
            range_map_find_gap(&space->cover, from, window->bounds.last, less_one + 1,
                               window->align, &place->first)) {
            return false;
        }
        place->last = place->first + less_one;
        if (!memory_meets(space, place, &behind) && !tenants_meet(space, place, &behind)) {
            return true;
        }
        if (behind == UINT64_MAX) {
            return false;
        }
        from = behind + 1;
    }
}

static bool is_free(const struct viommu_iova *space, const struct viommu_iova_reservation *window,
                    const struct viommu_range *place)
{
    uint64_t behind = 0;

    return place->first >= window->bounds.first && place->last <= window->bounds.last &&
           !cover_meets(&space->cover, place->first, place->last) &&
           !memory_meets(space, place, &behind) && !tenants_meet(space, place, &behind);
}

/* Puts a window where it was asked for, if it comes and that is free, else where there is room. */
static bool place_window(struct viommu_iova *space, struct viommu_iova_reservation *window)
{
    struct viommu_range place = window->range;

    if ((window->before.first <= window->before.last || !is_free(space, window, &place)) &&
        !find_place(space, window, &place)) {
        return false;
    }
    window->range = place;
    window->placed = true;
    cover_add(&space->cover, place.first, place.last);
    return true;
}

static void lift(struct viommu_iova *space, struct viommu_iova_reservation *window)
{
    cover_remove(&space->cover, window->range.first, window->range.last);
    window->placed = false;
}

/* Marks the windows that have to move; returns how many operations of the cover that takes. */
static size_t mark(struct viommu_iova *space, const struct viommu_range *ranges, size_t count)
{
    size_t need = 0;

    for (struct viommu_iova_reservation *window = space->reservations; window;
         window = window->next) {
        bool meets = !window->placed;

        if (!space_is_loose(window)) {
            continue;
        }
        for (size_t i = 0; i < count && !meets; i++) {
            meets = space_meets(&window->range, &ranges[i]);
        }
        if (meets) {
            window->moving = true;
            window->before = window->placed ? window->range : nowhere;
            /* A new place is free: one run; and the way back. */
            need += 3 + (window->placed ? cover_need(&space->cover, window->range.first,
                                                     window->range.last) : 0);
        }
    }
    return need;
}

static void unmark(struct viommu_iova *space)
{
    for (struct viommu_iova_reservation *window = space->reservations; window;
         window = window->next) {
        window->moving = false;
    }
}

/* Puts those that are marked back, once the claims that were in the way are gone. */
static void move_back(struct viommu_iova *space)
{
    struct viommu_iova_reservation *window;

    for (window = space->reservations; window; window = window->next) {
        if (window->moving && window->placed) {
            lift(space, window);
        }
    }
    for (window = space->reservations; window; window = window->next) {
        if (window->moving && window->before.first <= window->before.last) {
            window->range = window->before;
            window->placed = true;
            cover_add(&space->cover, window->range.first, window->range.last);
        }
    }
}

/* Describes that a window finds no place, because of one of the ranges or because it comes. */
static void describe_stuck(const struct viommu_iova_reservation *window,
                           const struct viommu_range *ranges, size_t count,
                           struct viommu_iova_conflict *conflict)
{
    bool comes = window->before.first > window->before.last;

    space_side(&conflict->holder, VIOMMU_IOVA_RESERVATION,
               comes ? &window->range : &window->before, window->owner);
    conflict->holder.type = window->type;
    if (comes) {
        conflict->asked = conflict->holder;
        return;
    }
    for (size_t i = 0; i < count; i++) {
        if (space_meets(&window->before, &ranges[i])) {
            conflict->asked.range = ranges[i];
            return;
        }
    }
}

/* Moves those that are marked; *moved is set if there are some. Returns one without a place. */
static struct viommu_iova_reservation *move(struct viommu_iova *space, bool *moved)
{
    struct viommu_iova_reservation *window;

    for (window = space->reservations; window; window = window->next) {
        if (window->moving && window->placed) {
            lift(space, window);
            *moved = true;
        }
    }
    for (window = space->reservations; window; window = window->next) {
        if (window->moving && !place_window(space, window)) {
            return window;
        }
    }
    return NULL;
}

/* Tells tenants of the new lists. Says which of the ranges it was that meets what one has. */
static int tell_tenants(struct viommu_iova *space, const struct viommu_range *ranges, size_t count,
                        struct viommu_iova_conflict *conflict)
{
    int error = tenants_change(space, &conflict->holder);

    if (error == -EEXIST) {
        for (size_t i = 0; i < count; i++) {
            if (space_meets(&conflict->holder.range, &ranges[i])) {
                conflict->asked.range = ranges[i];
                break;
            }
        }
    }
    return error;
}

/* Moves windows out of the way of what was added, and tells tenants. All or nothing. */
static int make_way(struct viommu_iova *space, const struct viommu_range *ranges, size_t count,
                    bool listed, struct viommu_iova_conflict *conflict)
{
    struct viommu_iova_reservation *stuck;
    bool moved = false;
    int error = 0;

    tenants_lock(space);
    stuck = move(space, &moved);
    if (stuck) {
        describe_stuck(stuck, ranges, count, conflict);
        error = -EADDRNOTAVAIL;
    } else if (moved || listed) {
        error = tell_tenants(space, ranges, count, conflict);
    }
    tenants_unlock(space);
    space->generation += moved && !error;
    return error;
}

int space_claim(struct viommu_iova *space, const struct viommu_range *ranges, size_t count,
                bool listed, struct viommu_iova_conflict *conflict)
{
    size_t need = mark(space, ranges, count);
    int error;

    for (size_t i = 0; i < count; i++) {
        need += cover_need(&space->cover, ranges[i].first, ranges[i].last);
    }
    error = range_map_reserve(&space->cover, need);
    if (error) {
        unmark(space);
        return error;
    }
    for (size_t i = 0; i < count; i++) {
        cover_add(&space->cover, ranges[i].first, ranges[i].last);
    }
    error = make_way(space, ranges, count, listed, conflict);
    if (error) {
        for (size_t i = 0; i < count; i++) {
            cover_remove(&space->cover, ranges[i].first, ranges[i].last);
        }
        move_back(space);
    }
    unmark(space);
    range_map_release(&space->cover);
    return error;
}

/* ---- doorbells ---- */

/* The end of what a doorbell must not meet in a place: a limit, another reservation, memory. */
static bool place_meets(const struct viommu_iova_reservation *window,
                        const struct viommu_range *place, uint64_t *last)
{
    const struct viommu_iova *space = window->owner->space;
    const struct viommu_iova_reservation *other = space->reservations;

    for (; other; other = other->next) {
        if (other != window && space_type_conflicts(other->type) &&
            space_meets(&other->range, place)) {
            *last = other->range.last;
            return true;
        }
    }
    for (const struct viommu_iova_owner *owner = space->owners; owner; owner = owner->next) {
        for (size_t i = 0; i < owner->hole_count; i++) {
            if (space_meets(&owner->holes[i], place)) {
                *last = owner->holes[i].last;
                return true;
            }
        }
    }
    return space->identity && memory_meets(space, place, last);
}

/* The lowest granule of the window that is free; false when it is full. */
static bool find_granule(struct viommu_iova_reservation *window, uint64_t *found)
{
    uint64_t granule = window->owner->space->granule;
    uint64_t from = window->range.first;

    for (;;) {
        struct viommu_range place;
        uint64_t behind = 0;

        if (from > window->range.last ||
            range_map_find_gap(&window->inside, from, window->range.last, granule, granule,
                               &place.first)) {
            return false;
        }
        place.last = place.first + granule - 1;
        if (!place_meets(window, &place, &behind)) {
            *found = place.first;
            return true;
        }
        if (behind == UINT64_MAX) {
            return false;
        }
        from = behind + 1;
    }
}

/* A granule of a doorbell; its tag counts its uses. */
static bool find_doorbell(const struct viommu_iova_reservation *window, uint64_t doorbell,
                          struct range_run *run)
{
    return range_map_find(&window->doorbells, doorbell, run);
}

static int add_doorbell(struct viommu_iova_reservation *window, uint64_t doorbell,
                        struct range_run *run)
{
    uint64_t less_one = window->owner->space->granule - 1;
    struct range_run back;
    int error;

    *run = (struct range_run){
        .first = doorbell & ~less_one, .last = doorbell | less_one, .tag = 1};
    if (!find_granule(window, &run->target)) {
        return -ENOSPC;
    }
    back = (struct range_run){run->target, run->target + less_one, run->first, 0};
    error = range_map_insert(&window->doorbells, run);
    if (error) {
        return error;
    }
    error = range_map_insert(&window->inside, &back);
    if (error) {
        range_map_erase(&window->doorbells, run->first, run->last, NULL);
    }
    return error;
}

int viommu_iova_doorbell_map(struct viommu_iova_reservation *window, uint64_t doorbell,
                             uint64_t *iova, bool *fresh)
{
    struct range_run run;
    bool found;

    if (!window || !iova || window->type != VIOMMU_IOVA_SW_MSI) {
        return -EINVAL;
    }
    found = find_doorbell(window, doorbell, &run);
    if (found) {
        /* It is there, with a tag of the same kind. */
        (void)range_map_retag(&window->doorbells, run.first, run.last, run.tag + 1);
    } else {
        int error = add_doorbell(window, doorbell, &run);

        if (error) {
            return error;
        }
        window->owner->space->generation++;
        window->movable = false;
    }
    *iova = range_run_target(&run, doorbell);
    if (fresh) {
        *fresh = !found;
    }
    space_check(window->owner->space);
    return 0;
}

int viommu_iova_doorbell_unmap(struct viommu_iova_reservation *window, uint64_t doorbell,
                               bool *last)
{
    struct range_run run;

    if (!window || !find_doorbell(window, doorbell, &run)) {
        return -ENOENT;
    }
    if (last) {
        *last = run.tag == 1;
    }
    if (run.tag > 1) {
        (void)range_map_retag(&window->doorbells, run.first, run.last, run.tag - 1);
    } else {
        uint64_t end = run.target + (run.last - run.first);

        range_map_erase(&window->doorbells, run.first, run.last, NULL);
        range_map_erase(&window->inside, run.target, end, NULL);
        window->owner->space->generation++;
    }
    space_check(window->owner->space);
    return 0;
}

void window_fini(struct viommu_iova_reservation *window)
{
    range_map_fini(&window->doorbells);
    range_map_fini(&window->inside);
}
