/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The memory object, and batches until their commit. Structures, invariants and locking: private.h.
 *
 * The object is counted: its owner holds one reference, every IOMMU and every guard one, and so
 * does a thread while it carries out batches. What is left with the last reference (batches that
 * never completed, listeners) is freed without a call of anybody.
 */
#include "memory/private.h"

#include "base/alloc.h"

#include <errno.h>
#include <viommu/memory.h>

#define SLOT_ALIGN 4096u

struct memory_snapshot *memory_snapshot_alloc(size_t count)
{
    struct memory_snapshot *snapshot;
    size_t room = (SIZE_MAX - sizeof(*snapshot)) / sizeof(snapshot->slots[0]);

    if (count > room) {
        return NULL;
    }
    snapshot = base_alloc(sizeof(*snapshot) + count * sizeof(snapshot->slots[0]));
    if (snapshot) {
        snapshot->count = count;
    }
    return snapshot;
}

void memory_snapshot_free(struct epoch_deferred *deferred)
{
    base_free((char *)deferred - offsetof(struct memory_snapshot, deferred));
}

static int init_parts(struct viommu_memory *memory)
{
    int error = epoch_init(&memory->epoch);

    if (error) {
        return error;
    }
    error = wake_init(&memory->wake, NULL, NULL);
    if (error) {
        epoch_fini(&memory->epoch);
        return error;
    }
    /* With default attributes these two cannot fail on Linux. */
    pthread_mutex_init(&memory->lock, NULL);
    pthread_cond_init(&memory->called, NULL);
    return 0;
}

int viommu_memory_create(struct viommu_memory **out)
{
    struct viommu_memory *memory = base_alloc(sizeof(*memory));
    struct memory_snapshot *empty = memory_snapshot_alloc(0);
    int error = memory && empty ? init_parts(memory) : -ENOMEM;

    if (error) {
        base_free(empty);
        base_free(memory);
        return error;
    }
    atomic_init(&memory->references, 1);
    atomic_init(&memory->snapshot, empty);
    memory->latest = empty;
    memory->queue_tail = &memory->queue;
    memory->finished_tail = &memory->finished;
    *out = memory;
    return 0;
}

static void free_batches(struct viommu_memory_batch *batch)
{
    while (batch) {
        struct viommu_memory_batch *next = batch->next;

        memory_batch_free(batch);
        batch = next;
    }
}

static void free_listeners(struct viommu_memory_listener *listener)
{
    while (listener) {
        struct viommu_memory_listener *next = listener->next;

        base_free(listener);
        listener = next;
    }
}

static void memory_free(struct viommu_memory *memory)
{
    free_batches(memory->queue);
    free_batches(memory->finished);
    free_listeners(memory->listeners);
    epoch_fini(&memory->epoch);
    memory_snapshot_free(&atomic_load_explicit(&memory->snapshot, memory_order_relaxed)->deferred);
    wake_fini(&memory->wake);
    pthread_cond_destroy(&memory->called);
    pthread_mutex_destroy(&memory->lock);
    base_free(memory);
}

void memory_get(struct viommu_memory *memory)
{
    atomic_fetch_add_explicit(&memory->references, 1, memory_order_relaxed);
}

void memory_put(struct viommu_memory *memory)
{
    if (atomic_fetch_sub_explicit(&memory->references, 1, memory_order_acq_rel) == 1) {
        memory_free(memory);
    }
}

void viommu_memory_destroy(struct viommu_memory *memory)
{
    if (memory) {
        memory_put(memory);
    }
}

struct epoch *memory_epoch(struct viommu_memory *memory)
{
    return &memory->epoch;
}

const struct memory_snapshot *memory_snapshot(struct viommu_memory *memory)
{
    return atomic_load_explicit(&memory->snapshot, memory_order_acquire);
}

uint64_t memory_published(const struct viommu_memory *memory)
{
    return atomic_load(&memory->published);
}

int viommu_memory_event_fd(struct viommu_memory *memory)
{
    return memory->wake.poll_fd;
}

int viommu_memory_batch_begin(struct viommu_memory *memory, struct viommu_memory_batch **out)
{
    struct viommu_memory_batch *batch = base_alloc(sizeof(*batch));

    if (!batch) {
        return -ENOMEM;
    }
    batch->memory = memory;
    *out = batch;
    return 0;
}

/* Makes room for one more in an array of `count`; *room is what it holds. */
static int grow(void **array, size_t count, size_t *room, size_t size)
{
    size_t wanted = *room ? *room * 2 : 4;
    void *grown;

    if (count < *room) {
        return 0;
    }
    grown = base_realloc_array(*array, wanted, size);
    if (!grown) {
        return -ENOMEM;
    }
    *array = grown;
    *room = wanted;
    return 0;
}

static bool slot_valid(const struct viommu_memory_slot *slot)
{
    uintptr_t host = (uintptr_t)slot->host;

    if (slot->first > slot->last || slot->first % SLOT_ALIGN || (slot->last + 1) % SLOT_ALIGN) {
        return false;
    }
    /* Table entries are loaded atomically, so what is aligned for the guest must be so here. */
    if (!host || host % sizeof(uint64_t) || slot->last - slot->first > UINTPTR_MAX - host) {
        return false;
    }
    return !(slot->flags & ~(uint32_t)VIOMMU_MEMORY_READONLY);
}

int viommu_memory_batch_add(struct viommu_memory_batch *batch,
                            const struct viommu_memory_slot *slot)
{
    void *array = batch->added;
    int error;

    if (!slot_valid(slot)) {
        return -EINVAL;
    }
    error = grow(&array, batch->added_count, &batch->added_room, sizeof(*slot));
    batch->added = array;
    if (!error) {
        batch->added[batch->added_count++] = *slot;
    }
    return error;
}

int viommu_memory_batch_remove(struct viommu_memory_batch *batch, uint64_t first, uint64_t last)
{
    struct viommu_range range = {.first = first, .last = last};
    void *array = batch->ranges;
    int error;

    if (first > last) {
        return -EINVAL;
    }
    error = grow(&array, batch->range_count, &batch->range_room, sizeof(range));
    batch->ranges = array;
    if (!error) {
        batch->ranges[batch->range_count++] = range;
    }
    return error;
}

void memory_batch_free(struct viommu_memory_batch *batch)
{
    base_free(batch->added);
    base_free(batch->ranges);
    base_free(batch->removed);
    base_free(batch->after);
    base_free(batch);
}

void viommu_memory_batch_abort(struct viommu_memory_batch *batch)
{
    if (batch) {
        memory_batch_free(batch);
    }
}
