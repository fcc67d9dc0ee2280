/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Listeners of a memory: a list in the order in which they came, guarded by the memory's lock.
 *
 * Each remembers the last batch that it was told of, before and after; so the driver finds whom to
 * tell by looking through the list again after every call, and the list may change while the lock
 * is dropped. The listener that is being called cannot go: its removal waits for the call's end. A
 * call is therefore the only thing anybody here waits for, and who is in one may not wait
 * (`inside`).
 */
#include "memory/private.h"

#include "base/alloc.h"

#include <errno.h>

/* Calls of listeners that this thread is in, one inside the other. */
static _Thread_local unsigned inside;

bool memory_in_listener(void)
{
    return inside > 0;
}

static int call(const struct viommu_memory_listener *listener,
                const struct viommu_memory_change *change, enum batch_phase phase)
{
    const struct viommu_memory_listener_ops *ops = listener->ops;
    int answer = 0;

    inside++;
    if (phase == BATCH_CHANGING && ops->changing) {
        answer = ops->changing(listener->opaque, change);
    } else if (phase == BATCH_LEAVING && ops->leaving) {
        answer = ops->leaving(listener->opaque, change);
    } else if (phase == BATCH_CHANGED && ops->changed) {
        ops->changed(listener->opaque, change);
    }
    inside--;
    return answer;
}

/* The last batch that a listener was told of in a phase. */
static uint64_t *told_seq(struct viommu_memory_listener *listener, enum batch_phase phase)
{
    switch (phase) {
    case BATCH_CHANGING:
        return &listener->changing_seq;
    case BATCH_LEAVING:
        return &listener->leaving_seq;
    default:
        return &listener->changed_seq;
    }
}

/* The answer may come from another thread before the call returns: it is awaited from the start. */
static void tell(struct viommu_memory *memory, struct viommu_memory_listener *listener,
                 const struct viommu_memory_batch *batch)
{
    enum batch_phase phase = batch->phase;
    struct viommu_memory_change change = {
        .removed = batch->removed,
        .removed_count = batch->removed_count,
        .added = batch->added,
        .added_count = batch->added_count,
    };
    int answer;

    *told_seq(listener, phase) = batch->seq;
    if (phase != BATCH_CHANGED) {
        listener->token = ++memory->last_token;
        listener->awaited = true;
    }
    change.token = listener->token;
    listener->calling = true;
    pthread_mutex_unlock(&memory->lock);
    answer = call(listener, &change, phase);
    pthread_mutex_lock(&memory->lock);
    listener->calling = false;
    if (phase != BATCH_CHANGED && answer != VIOMMU_PENDING) {
        listener->awaited = false;
    }
    if (listener->removed) {
        pthread_cond_broadcast(&memory->called);
    }
}

static struct viommu_memory_listener *next_untold(const struct viommu_memory *memory,
                                                  const struct viommu_memory_batch *batch)
{
    struct viommu_memory_listener *listener;

    for (listener = memory->listeners; listener; listener = listener->next) {
        if (*told_seq(listener, batch->phase) < batch->seq && !listener->removed) {
            return listener;
        }
    }
    return NULL;
}

bool memory_tell_next(struct viommu_memory *memory, struct viommu_memory_batch *batch)
{
    struct viommu_memory_listener *listener = next_untold(memory, batch);

    if (listener) {
        tell(memory, listener, batch);
    }
    return listener;
}

bool memory_has_untold(const struct viommu_memory *memory, const struct viommu_memory_batch *batch)
{
    return next_untold(memory, batch);
}

bool memory_awaits_listener(const struct viommu_memory *memory)
{
    const struct viommu_memory_listener *listener;

    for (listener = memory->listeners; listener; listener = listener->next) {
        if (listener->awaited && !listener->removed) {
            return true;
        }
    }
    return false;
}

static struct viommu_memory_listener **list_end(struct viommu_memory *memory)
{
    struct viommu_memory_listener **link = &memory->listeners;

    while (*link) {
        link = &(*link)->next;
    }
    return link;
}

static struct viommu_memory_listener *
listener_create(struct viommu_memory *memory, const struct viommu_memory_listener_ops *ops,
                void *opaque)
{
    struct viommu_memory_listener *listener = base_alloc(sizeof(*listener));

    if (listener) {
        listener->memory = memory;
        listener->ops = ops;
        listener->opaque = opaque;
    }
    return listener;
}

/* The last batch that readers see already. */
static uint64_t published_seq(const struct viommu_memory *memory)
{
    if (!memory->queue) {
        return memory->last_seq;
    }
    return memory->queue->phase == BATCH_CHANGING ? memory->queue->seq - 1 : memory->queue->seq;
}

int memory_listener_begin(struct viommu_memory *memory,
                          const struct viommu_memory_listener_ops *ops, void *opaque,
                          int (*slots)(void *opaque, const struct viommu_memory_slot *slots,
                                       size_t count),
                          struct viommu_memory_listener **out)
{
    struct viommu_memory_listener *listener = listener_create(memory, ops, opaque);
    const struct memory_snapshot *snapshot;
    int ret;

    if (!listener) {
        return -ENOMEM;
    }
    pthread_mutex_lock(&memory->lock);
    /* Published snapshots change under the lock: this one stays while it is held. */
    snapshot = memory_snapshot(memory);
    ret = slots(opaque, snapshot->slots, snapshot->count);
    if (!ret) {
        listener->changing_seq = published_seq(memory);
        listener->leaving_seq = listener->changing_seq;
        listener->changed_seq = listener->changing_seq;
        *list_end(memory) = listener;
        *out = listener;
    }
    pthread_mutex_unlock(&memory->lock);
    if (ret) {
        base_free(listener);
    }
    return ret;
}

int viommu_memory_listener_add(struct viommu_memory *memory,
                               const struct viommu_memory_listener_ops *ops, void *opaque,
                               struct viommu_memory_listener **out)
{
    struct viommu_memory_listener *listener;

    if (memory_in_listener()) {
        return -EDEADLK;
    }
    listener = listener_create(memory, ops, opaque);
    if (!listener) {
        return -ENOMEM;
    }
    *out = listener; /* before it can be called: its functions may look there */
    pthread_mutex_lock(&memory->lock);
    listener->changing_seq = memory->last_seq;
    listener->leaving_seq = memory->last_seq;
    listener->changed_seq = memory->last_seq;
    *list_end(memory) = listener;
    pthread_mutex_unlock(&memory->lock);
    return 0;
}

static void unlink_listener(struct viommu_memory_listener *listener)
{
    struct viommu_memory_listener **link = &listener->memory->listeners;

    while (*link != listener) {
        link = &(*link)->next;
    }
    *link = listener->next;
}

int viommu_memory_listener_remove(struct viommu_memory_listener *listener)
{
    struct viommu_memory *memory = listener->memory;

    if (memory_in_listener()) {
        return -EDEADLK;
    }
    pthread_mutex_lock(&memory->lock);
    listener->removed = true;
    while (listener->calling) {
        pthread_cond_wait(&memory->called, &memory->lock);
    }
    unlink_listener(listener);
    /* A batch may have waited for this one. A driver looks at the list itself before it leaves. */
    if (memory->queue && !memory->driving) {
        wake_kick(&memory->wake);
    }
    pthread_mutex_unlock(&memory->lock);
    base_free(listener);
    return 0;
}

int viommu_memory_listener_complete(struct viommu_memory_listener *listener, uint64_t token)
{
    struct viommu_memory *memory = listener->memory;
    int error = -ENOENT;

    pthread_mutex_lock(&memory->lock);
    if (listener->awaited && listener->token == token) {
        listener->awaited = false;
        error = 0;
        if (!memory->driving) {
            wake_kick(&memory->wake);
        }
    }
    pthread_mutex_unlock(&memory->lock);
    return error;
}
