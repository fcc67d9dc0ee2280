/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Carries out batches: tell listeners, wait for their answers, publish, drain, have listeners let
 * go of what is removed, tell them of the end, call done. Structures, invariants and locking:
 * private.h.
 *
 * One thread at a time drives, from a commit or from viommu_memory_process. It takes one step after
 * the other until the batches that it came for are complete, or the oldest has to wait; then it
 * leaves, and sees to it that the event fd tells somebody to come back (leave_word). A thread that
 * meets a driver goes away: its batch is in the queue, and the driver looks at the queue once more
 * before it leaves.
 *
 * done functions are called from viommu_memory_process only. A commit that completes the batches of
 * others leaves them among the finished, for the next process call.
 */
#include "memory/private.h"

#include <errno.h>
#include <viommu/memory.h>

static void append(struct viommu_memory_batch ***tail, struct viommu_memory_batch *batch)
{
    batch->next = NULL;
    **tail = batch;
    *tail = &batch->next;
}

static struct viommu_memory_batch *pop(struct viommu_memory_batch **list,
                                       struct viommu_memory_batch ***tail)
{
    struct viommu_memory_batch *batch = *list;

    *list = batch->next;
    if (!*list) {
        *tail = list;
    }
    return batch;
}

/* epoch_begin_drain fences after the new snapshot: later sections cannot see the old one. */
static void publish(struct viommu_memory *memory, struct viommu_memory_batch *batch)
{
    struct memory_snapshot *old = atomic_exchange(&memory->snapshot, batch->after);

    batch->after = NULL;
    batch->drain_target = epoch_begin_drain(&memory->epoch);
    atomic_store(&memory->published, batch->drain_target);
    epoch_defer(&memory->epoch, &old->deferred, memory_snapshot_free);
    memory->poll_pause = 0;
    batch->phase = BATCH_DRAINING;
}

/* Takes the head, which is complete, off the queue. Its commit frees it, when it still runs. */
static void finish_head(struct viommu_memory *memory)
{
    struct viommu_memory_batch *batch = pop(&memory->queue, &memory->queue_tail);

    batch->phase = BATCH_COMPLETE;
    memory_guards_tell(memory, batch->removed, batch->removed_count);
    if (batch->detached && batch->done) {
        append(&memory->finished_tail, batch);
    } else if (batch->detached) {
        memory_batch_free(batch);
    }
}

/* Nobody can hold on to what a batch does not remove. */
static bool drained(struct viommu_memory *memory, const struct viommu_memory_batch *batch)
{
    return !batch->removed_count || epoch_drained(&memory->epoch, batch->drain_target);
}

/* Takes the head one step further. Returns false when it has to wait. May drop the lock. */
static bool step_head(struct viommu_memory *memory)
{
    struct viommu_memory_batch *batch = memory->queue;

    switch (batch->phase) {
    case BATCH_CHANGING:
        if (memory_tell_next(memory, batch)) {
            return true;
        }
        if (memory_awaits_listener(memory)) {
            return false;
        }
        publish(memory, batch);
        return true;
    case BATCH_DRAINING:
        if (!drained(memory, batch)) {
            return false;
        }
        batch->phase = batch->removed_count ? BATCH_LEAVING : BATCH_CHANGED;
        return true;
    case BATCH_LEAVING:
        if (memory_tell_next(memory, batch)) {
            return true;
        }
        if (memory_awaits_listener(memory)) {
            return false;
        }
        batch->phase = BATCH_CHANGED;
        return true;
    case BATCH_CHANGED:
        if (!memory_tell_next(memory, batch)) {
            finish_head(memory);
        }
        return true;
    case BATCH_COMPLETE:
        break;
    }
    return false;
}

/* Drops the lock. */
static void call_done(struct viommu_memory *memory)
{
    struct viommu_memory_batch *batch = pop(&memory->finished, &memory->finished_tail);

    pthread_mutex_unlock(&memory->lock);
    batch->done(batch->opaque);
    memory_batch_free(batch);
    pthread_mutex_lock(&memory->lock);
}

static void set_timer(struct viommu_memory *memory)
{
    wake_at(&memory->wake, wake_now() + wake_pause(&memory->poll_pause));
    memory->timer_set = true;
}

static void forget_timer(struct viommu_memory *memory)
{
    if (memory->timer_set) {
        wake_at(&memory->wake, 0);
        memory->timer_set = false;
    }
}

/* Whether the head could go on at once: the driver came for older batches only. */
static bool head_is_ready(const struct viommu_memory *memory)
{
    const struct viommu_memory_batch *batch = memory->queue;

    return batch && (batch->phase == BATCH_CHANGING || batch->phase == BATCH_LEAVING) &&
           (memory_has_untold(memory, batch) || !memory_awaits_listener(memory));
}

/* Before the driver leaves: whatever is left to do must wake somebody. */
static void leave_word(struct viommu_memory *memory)
{
    if (memory->queue && memory->queue->phase == BATCH_DRAINING) {
        set_timer(memory);
    } else {
        forget_timer(memory);
    }
    if (memory->finished || memory->turned_away || head_is_ready(memory)) {
        wake_kick(&memory->wake);
    }
    memory->turned_away = false;
}

/*
 * Carries out what was accepted up to `last_seq`, as far as it goes without waiting. The bound
 * keeps a thread from working for others, or for its own done functions, without an end.
 */
static void drive(struct viommu_memory *memory, uint64_t last_seq, bool may_call_done)
{
    memory->driving = true;
    for (;;) {
        if (may_call_done && memory->finished) {
            call_done(memory);
        } else if (!memory->queue || memory->queue->seq > last_seq || !step_head(memory)) {
            break;
        }
    }
    leave_word(memory);
    memory->driving = false;
}

static void accept(struct viommu_memory_batch *batch, viommu_memory_done *done, void *opaque)
{
    struct viommu_memory *memory = batch->memory;

    batch->seq = ++memory->last_seq;
    batch->phase = BATCH_CHANGING;
    batch->done = done;
    batch->opaque = opaque;
    memory->latest = batch->after;
    append(&memory->queue_tail, batch);
}

/* Carries out an accepted batch as far as it goes. Returns 0 or VIOMMU_PENDING. */
static int carry_out(struct viommu_memory *memory, struct viommu_memory_batch *batch)
{
    if (!memory->driving) {
        drive(memory, batch->seq, false);
    }
    if (batch->phase != BATCH_COMPLETE) {
        batch->detached = true;
        return VIOMMU_PENDING;
    }
    memory_batch_free(batch);
    return 0;
}

static int plan_and_carry_out(struct viommu_memory *memory, struct viommu_memory_batch *batch,
                              viommu_memory_done *done, void *opaque)
{
    int result;

    pthread_mutex_lock(&memory->lock);
    result = memory_plan(batch, memory->latest);
    if (!result) {
        result = memory_guards_ask(memory, batch->added, batch->added_count);
    }
    if (result) {
        memory_batch_free(batch);
    } else {
        accept(batch, done, opaque);
        result = carry_out(memory, batch);
    }
    pthread_mutex_unlock(&memory->lock);
    return result;
}

int viommu_memory_batch_commit(struct viommu_memory_batch *batch, viommu_memory_done *done,
                               void *opaque)
{
    struct viommu_memory *memory = batch->memory;
    int result;

    if (memory_in_listener()) {
        memory_batch_free(batch);
        return -EDEADLK;
    }
    memory_get(memory);
    result = plan_and_carry_out(memory, batch, done, opaque);
    epoch_reap(&memory->epoch);
    memory_put(memory);
    return result;
}

static int process_locked(struct viommu_memory *memory)
{
    if (memory->driving) {
        memory->turned_away = true;
        return VIOMMU_PENDING;
    }
    drive(memory, memory->last_seq, true);
    return memory->queue || memory->finished ? VIOMMU_PENDING : 0;
}

int viommu_memory_process(struct viommu_memory *memory)
{
    int result;

    memory_get(memory);
    pthread_mutex_lock(&memory->lock);
    wake_clear(&memory->wake);
    result = process_locked(memory);
    pthread_mutex_unlock(&memory->lock);
    epoch_reap(&memory->epoch);
    memory_put(memory);
    return result;
}
