/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of this room share: the memory object, its batches and its listeners.
 *
 * memory.c has the object and the making of batches, plan.c judges a batch and builds the snapshot
 * it leads to, guard.c asks others whether they agree, commit.c carries accepted batches out,
 * listener.c keeps and calls listeners, access.c copies.
 *
 * Vocabulary: a batch is *open* until its commit, then *accepted* (it cannot fail any more) and
 * queued, *published* when readers see its snapshot, *complete* when no reader can see what it
 * removed and all listeners know. A thread that carries batches out is the *driver*; there is one
 * at a time.
 *
 * Invariants:
 * - A queued batch holds the snapshot that it publishes, built from that of the batch before it.
 *   `latest` is the snapshot that all accepted batches lead to: the last one's in the queue, or the
 *   published one. It can be freed only after a newer one became the latest.
 * - Batches are carried out one after the other, in the order of `seq`.
 * - With no driver and a batch queued, one of these holds: the event fd was kicked; its timer is
 *   set, for the head of the queue waits for a drain; or the head waits for a listener, whose
 *   answer or removal kicks it.
 *
 * Locking: `lock` guards every member below it and what hangs on them; an open batch belongs to its
 * maker. The lock is never held during a callback of the embedder's, and readers of the snapshot
 * never take it. The driver alone changes a batch's phase, so a batch stays put while the driver is
 * out in a callback.
 */
#ifndef VIOMMU_MEMORY_PRIVATE_H
#define VIOMMU_MEMORY_PRIVATE_H

#include "base/epoch.h"
#include "base/wake.h"
#include "memory/memory.h"

#include <pthread.h>
#include <stdatomic.h>

enum batch_phase {
    BATCH_CHANGING, /* telling listeners, then waiting for their answers */
    BATCH_DRAINING, /* published; sections that began before may still be open */
    BATCH_LEAVING,  /* telling listeners that those have ended, then waiting for their answers */
    BATCH_CHANGED,  /* telling listeners that it is over */
    BATCH_COMPLETE,
};

struct viommu_memory_batch {
    struct viommu_memory *memory;
    struct viommu_memory_batch *next; /* in the queue, or among the finished */

    /* As asked for. */
    struct viommu_memory_slot *added; /* sorted by address once planned */
    size_t added_count;
    size_t added_room;
    struct viommu_range *ranges; /* to be removed */
    size_t range_count;
    size_t range_room;

    /* As planned. */
    struct memory_snapshot *after;      /* NULL once published */
    struct viommu_memory_slot *removed; /* copies, for listeners */
    size_t removed_count;

    /* As carried out. */
    uint64_t seq;
    enum batch_phase phase;
    bool detached; /* its commit has returned VIOMMU_PENDING: nobody else will free it */
    uint64_t drain_target;
    viommu_memory_done *done;
    void *opaque;
};

struct viommu_memory_listener {
    struct viommu_memory *memory;
    struct viommu_memory_listener *next;
    const struct viommu_memory_listener_ops *ops;
    void *opaque;
    uint64_t changing_seq; /* last batch that it was told of before */
    uint64_t leaving_seq;  /* when no access finds what goes */
    uint64_t changed_seq;  /* and after */
    uint64_t token;        /* of the last batch that it was told of */
    bool awaited;          /* its answer to `token` is missing */
    bool calling;          /* the driver is in one of its functions */
    bool removed;          /* is not called any more */
};

struct viommu_memory {
    _Atomic unsigned references;
    struct epoch epoch;
    _Atomic(struct memory_snapshot *) snapshot;
    _Atomic uint64_t published; /* the epoch's time when that was last replaced */
    struct wake wake;

    pthread_mutex_t lock;
    pthread_cond_t called; /* a call of a listener that is being removed has returned */
    const struct memory_snapshot *latest;
    struct viommu_memory_batch *queue; /* accepted, not complete; oldest first */
    struct viommu_memory_batch **queue_tail;
    struct viommu_memory_batch *finished; /* complete, `done` not yet called; oldest first */
    struct viommu_memory_batch **finished_tail;
    struct viommu_memory_listener *listeners; /* in the order in which they came */
    struct memory_guard *guards;
    uint64_t last_seq;
    uint64_t last_token;
    bool driving;        /* there is a driver */
    bool turned_away;    /* a process call met a driver and left */
    bool timer_set;
    uint64_t poll_pause; /* until the drain is looked at again; wake_pause */
};

/* memory.c */

/* A snapshot with room for `count` slots, or NULL. */
struct memory_snapshot *memory_snapshot_alloc(size_t count);
void memory_snapshot_free(struct epoch_deferred *deferred);
void memory_batch_free(struct viommu_memory_batch *batch);

/* plan.c */

/*
 * Judges a batch against the slots it will meet, and fills `after` and `removed`. Returns 0,
 * -EEXIST, -ENOENT, -EINVAL or -ENOMEM as viommu_memory_batch_commit. What it filled goes with the
 * batch.
 */
int memory_plan(struct viommu_memory_batch *batch, const struct memory_snapshot *before);

/* guard.c; with the lock held */

/* Asks all guards for slots that come: 0, or what one says. Then none has them. */
int memory_guards_ask(struct viommu_memory *memory, const struct viommu_memory_slot *slots,
                      size_t count);

/* Tells all of them that slots have gone. */
void memory_guards_tell(struct viommu_memory *memory, const struct viommu_memory_slot *slots,
                        size_t count);

/* listener.c; all but the first with the lock held */

/* Whether this thread is in a listener's call, of whichever memory. */
bool memory_in_listener(void);

/*
 * Tells one listener that has not heard of the batch in its phase yet: CHANGING, LEAVING or
 * CHANGED. Drops the lock meanwhile. Returns false when all have heard.
 */
bool memory_tell_next(struct viommu_memory *memory, struct viommu_memory_batch *batch);

/* Whether an answer is missing. */
bool memory_awaits_listener(const struct viommu_memory *memory);

/* Whether a listener has still to hear of the batch in its phase. */
bool memory_has_untold(const struct viommu_memory *memory, const struct viommu_memory_batch *batch);

#endif
