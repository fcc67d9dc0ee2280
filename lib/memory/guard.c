/* SPDX-License-Identifier: BSD-2-Clause */
/* Guards: who judges batches before they are accepted; see memory.h. The list is guarded by the
   memory's lock, which is held while they are asked and told. */
#include "memory/private.h"

static void tell_until(struct viommu_memory *memory, const struct memory_guard *end,
                       const struct viommu_memory_slot *slots, size_t count)
{
    for (struct memory_guard *guard = memory->guards; guard != end; guard = guard->next) {
        guard->ops->gone(guard, slots, count);
    }
}

int memory_guards_ask(struct viommu_memory *memory, const struct viommu_memory_slot *slots,
                      size_t count)
{
    if (!count) {
        return 0;
    }
    for (struct memory_guard *guard = memory->guards; guard; guard = guard->next) {
        int error = guard->ops->coming(guard, slots, count);

        if (error) {
            tell_until(memory, guard, slots, count);
            return error;
        }
    }
    return 0;
}

void memory_guards_tell(struct viommu_memory *memory, const struct viommu_memory_slot *slots,
                        size_t count)
{
    if (count) {
        tell_until(memory, NULL, slots, count);
    }
}

/*
 * What is there, for a guard that comes: the slots that all accepted batches lead to, and those
 * which a batch in the queue removes: they have still to go. On the way back it is told that they
 * have gone, up to the batch `end`.
 */
static void take_back(struct viommu_memory *memory, struct memory_guard *guard,
                      const struct viommu_memory_batch *end)
{
    const struct viommu_memory_batch *batch;

    for (batch = memory->queue; batch != end; batch = batch->next) {
        if (batch->removed_count) {
            guard->ops->gone(guard, batch->removed, batch->removed_count);
        }
    }
}

static int ask_for_all(struct viommu_memory *memory, struct memory_guard *guard)
{
    const struct memory_snapshot *latest = memory->latest;
    const struct viommu_memory_batch *batch;
    int error = 0;

    for (batch = memory->queue; batch && !error;) {
        error = batch->removed_count
                    ? guard->ops->coming(guard, batch->removed, batch->removed_count)
                    : 0;
        batch = error ? batch : batch->next;
    }
    if (!error && latest->count) {
        error = guard->ops->coming(guard, latest->slots, latest->count);
    }
    if (error) {
        take_back(memory, guard, batch);
    }
    return error;
}

int memory_guard_add(struct viommu_memory *memory, struct memory_guard *guard)
{
    int error;

    pthread_mutex_lock(&memory->lock);
    error = ask_for_all(memory, guard);
    if (!error) {
        guard->next = memory->guards;
        memory->guards = guard;
    }
    pthread_mutex_unlock(&memory->lock);
    return error;
}

void memory_guard_remove(struct viommu_memory *memory, struct memory_guard *guard)
{
    struct memory_guard **at = &memory->guards;

    pthread_mutex_lock(&memory->lock);
    while (*at != guard) {
        at = &(*at)->next;
    }
    *at = guard->next;
    pthread_mutex_unlock(&memory->lock);
}
