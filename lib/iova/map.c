/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Mappings: noted, forgotten, and placed. What is quick is what is usual: nothing claims the range,
 * so nothing is asked about it.
 */
#include "iova/space.h"

#include "iova/cover.h"

#include <errno.h>

static struct range_run mapping_run(struct viommu_iova_owner *owner,
                                    const struct viommu_range *range)
{
    return (struct range_run){
        .first = range->first,
        .last = range->last,
        .tag = RANGE_NO_TARGET | (uintptr_t)owner,
    };
}

/*
 * Notes a mapping that other claims meet: what conflicts is found, loose windows give way. The note
 * comes before the claim, which moves them: after that nothing can fail.
 */
static int add_slowly(struct viommu_iova_owner *owner, const struct range_run *run,
                      struct viommu_iova_conflict *conflict)
{
    const struct viommu_range range = {run->first, run->last};
    struct viommu_iova *space = owner->space;
    int error;

    space_side(&conflict->asked, VIOMMU_IOVA_MAPPING, &range, owner);
    error = space_conflict(space, conflict);
    error = error ? error : range_map_insert(&space->mappings, run);
    if (error) {
        return error;
    }
    error = space_claim(space, &range, 1, false, conflict);
    if (error) {
        range_map_erase(&space->mappings, range.first, range.last, NULL);
    }
    return error;
}

/* Notes one where nothing is claimed. -EEXIST: something is. */
static int add_quickly(struct viommu_iova *space, const struct range_run *run)
{
    int error = cover_add_free(&space->cover, run->first, run->last);

    if (error) {
        return error;
    }
    error = range_map_insert(&space->mappings, run);
    if (error) {
        cover_remove(&space->cover, run->first, run->last);
    }
    return error;
}

/* Notes a mapping; `conflict` is filled in where it is one. */
static int add_mapping(struct viommu_iova_owner *owner, const struct viommu_range *range,
                       struct viommu_iova_conflict *conflict)
{
    struct range_run run = mapping_run(owner, range);
    int error = add_quickly(owner->space, &run);

    if (error == -EEXIST) {
        error = add_slowly(owner, &run, conflict);
    }
    owner->mappings += !error;
    return error;
}

int viommu_iova_map(struct viommu_iova_owner *owner, const struct viommu_range *range,
                    struct viommu_iova_conflict *conflict)
{
    struct viommu_iova_conflict found;
    struct viommu_range place;
    int error;

    if (!owner || !range || range->first > range->last ||
        (range->first | (range->last + 1)) & (owner->space->granule - 1)) {
        return -EINVAL;
    }
    place = *range; /* which may be a part of *conflict */
    if (conflict) {
        *conflict = (struct viommu_iova_conflict){0};
    }
    error = add_mapping(owner, &place, conflict ? conflict : &found);
    space_check(owner->space);
    return error;
}

int viommu_iova_unmap(struct viommu_iova_owner *owner, const struct viommu_range *range)
{
    struct viommu_iova *space;
    struct range_run run;

    if (!owner || !range) {
        return -EINVAL;
    }
    space = owner->space;
    run = mapping_run(owner, range);
    if (range_map_erase_run(&space->mappings, &run)) {
        return -ENOENT;
    }
    cover_remove(&space->cover, run.first, run.last);
    owner->mappings--;
    space_check(space);
    return 0;
}

int viommu_iova_alloc(struct viommu_iova_owner *owner, uint64_t size, uint64_t align,
                      const struct viommu_range *within, uint64_t *first)
{
    static const struct viommu_range all = {0, UINT64_MAX};
    struct viommu_iova_conflict none;
    struct viommu_iova *space;
    struct viommu_range place;
    int error;

    if (!owner || !first) {
        return -EINVAL;
    }
    space = owner->space;
    within = within ? within : &all;
    align = align ? align : space->granule;
    if (!size || size & (space->granule - 1) || align & (align - 1) || align < space->granule ||
        within->first > within->last) {
        return -EINVAL;
    }
    error = range_map_find_gap(&space->cover, within->first, within->last, size, align,
                               &place.first);
    if (error) {
        return error;
    }
    place.last = place.first + (size - 1);
    error = add_mapping(owner, &place, &none);
    if (!error) {
        *first = place.first;
    }
    space_check(space);
    return error;
}
