/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Owners whose memory is the slots of a guest memory (viommu/memory.h).
 *
 * A follower is a guard of that memory (memory/memory.h): it takes the slots of each batch into the
 * space before the batch is accepted, or refuses the batch, and takes out what was removed when the
 * batch is complete. So the space has, at any time, every slot that can be reached or is about to
 * be. Two of one range are there while one goes and the other has come; which object is whose makes
 * no difference.
 *
 * Locking: its functions run under the memory's lock, and take none: an identity space has no
 * tenants, and elsewhere memory claims nothing. Who commits a batch keeps others from the space.
 */
#include "iova/space.h"

#include "base/alloc.h"
#include "memory/memory.h"

#include <errno.h>

struct viommu_iova_follower {
    struct memory_guard guard;
    struct viommu_iova_follower *next;
    struct viommu_iova_owner *owner;
    struct viommu_memory *memory;
    bool refused;
    struct viommu_iova_conflict conflict; /* of what was refused last */
};

static struct viommu_iova_follower *of(struct memory_guard *guard)
{
    return (struct viommu_iova_follower *)((char *)guard -
                                           offsetof(struct viommu_iova_follower, guard));
}

static int on_coming(struct memory_guard *guard, const struct viommu_memory_slot *slots,
                     size_t count)
{
    struct viommu_iova_follower *follower = of(guard);
    struct viommu_iova_conflict conflict = {0};
    struct viommu_iova_memory *memory = NULL;
    struct viommu_range *ranges = base_alloc_array(count, sizeof(*ranges));
    int error;

    if (!ranges) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < count; i++) {
        ranges[i] = (struct viommu_range){slots[i].first, slots[i].last};
    }
    error = space_add_memory(follower->owner, ranges, count, false, &memory, &conflict);
    base_free(ranges);
    for (size_t i = 0; i < count && !error; i++) {
        memory->follower = follower;
        memory = memory->next;
    }
    if (error == -ERANGE || error == -EADDRNOTAVAIL || error == -EEXIST) {
        /* To whom commits a batch they are the same; the conflict has the difference. */
        error = -EADDRNOTAVAIL;
        follower->refused = true;
        follower->conflict = conflict;
    }
    return error;
}

static struct viommu_iova_memory *find(const struct viommu_iova_owner *owner,
                                       const struct viommu_iova_follower *follower,
                                       const struct viommu_range *range)
{
    struct viommu_iova_memory *memory = owner->space->memories;

    while (memory && (memory->owner != owner || memory->follower != follower || memory->declared ||
                      memory->range.first != range->first || memory->range.last != range->last)) {
        memory = memory->next;
    }
    return memory;
}

static void on_gone(struct memory_guard *guard, const struct viommu_memory_slot *slots,
                    size_t count)
{
    struct viommu_iova_follower *follower = of(guard);

    for (size_t i = 0; i < count; i++) {
        struct viommu_range range = {slots[i].first, slots[i].last};
        struct viommu_iova_memory *memory = find(follower->owner, follower, &range);

        if (memory) {
            space_remove_memory(memory);
        }
    }
}

static const struct memory_guard_ops guard_ops = {.coming = on_coming, .gone = on_gone};

/* What the owner had of the slots by itself, from a saved state for instance, is theirs now. */
static void take_over(const struct viommu_iova_follower *follower)
{
    struct viommu_iova_memory *memory = follower->owner->space->memories;

    for (; memory; memory = memory->next) {
        struct viommu_iova_memory *same;

        if (memory->follower == follower) {
            same = find(follower->owner, NULL, &memory->range);
            if (same) {
                /* It may be the next one in the list: the object stays where it is. */
                space_remove_memory(same);
            }
        }
    }
}

int viommu_iova_follow(struct viommu_iova_owner *owner, struct viommu_memory *memory,
                       struct viommu_iova_follower **out, struct viommu_iova_conflict *conflict)
{
    struct viommu_iova_follower *follower;
    int error;

    if (!owner || !memory || !out) {
        return -EINVAL;
    }
    follower = base_alloc(sizeof(*follower));
    if (!follower) {
        return -ENOMEM;
    }
    follower->guard.ops = &guard_ops;
    follower->owner = owner;
    follower->memory = memory;
    error = memory_guard_add(memory, &follower->guard);
    if (conflict) {
        *conflict = follower->conflict;
    }
    if (error) {
        base_free(follower);
        return error;
    }
    memory_get(memory);
    follower->next = owner->space->followers;
    owner->space->followers = follower;
    take_over(follower);
    *out = follower;
    return 0;
}

int viommu_iova_follower_refused(const struct viommu_iova_follower *follower,
                                 struct viommu_iova_conflict *conflict)
{
    if (!follower || !conflict) {
        return -EINVAL;
    }
    if (!follower->refused) {
        return -ENOENT;
    }
    *conflict = follower->conflict;
    return 0;
}

static void drop_memory(const struct viommu_iova_follower *follower)
{
    struct viommu_iova_memory *memory = follower->owner->space->memories;

    while (memory) {
        struct viommu_iova_memory *next = memory->next;

        if (memory->follower == follower) {
            space_remove_memory(memory);
        }
        memory = next;
    }
}

void viommu_iova_unfollow(struct viommu_iova_follower *follower)
{
    struct viommu_iova_follower **at;

    if (!follower) {
        return;
    }
    memory_guard_remove(follower->memory, &follower->guard);
    drop_memory(follower);
    for (at = &follower->owner->space->followers; *at != follower; at = &(*at)->next) {
    }
    *at = follower->next;
    memory_put(follower->memory);
    base_free(follower);
}

void followers_end(struct viommu_iova_owner *owner)
{
    struct viommu_iova_follower *follower = owner->space->followers;

    while (follower) {
        struct viommu_iova_follower *next = follower->next;

        if (follower->owner == owner) {
            viommu_iova_unfollow(follower);
        }
        follower = next;
    }
}
