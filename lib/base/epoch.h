/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Epochs: the one way in which readers without locks are protected.
 *
 * A *section* is a stretch of a thread's work between epoch_enter and epoch_leave. A *drain* asks: have
 * all sections that began before now ended? What was unpublished before the drain began cannot be
 * reached by anyone once the answer is yes: it may be freed, reused, or reported gone.
 *
 * An *epoch* here is a clock of its own (one for each guest memory), so that a long section in one
 * guest does not delay another's drains. Each thread has one record, taken on its first section and
 * returned when it ends, with a few words: one for each epoch it has a section open in. A word holds
 * the epoch's id and the time the section began, so entering is one store and one full fence.
 *
 * Invariants:
 * - `now` only grows. A section that began at time t may see what was published before t or later,
 *   never what was unpublished before a drain that returned a target <= t.
 * - A drain with target T is over when no word with the epoch's id holds a time below T.
 * - Sections nest. Those that find no free word (more than EPOCH_NEST epochs at once) open the
 *   wildcard, which holds back every epoch: safe, only slower.
 *
 * Nothing here blocks. A section must be left on the thread that entered it.
 */
#ifndef VIOMMU_BASE_EPOCH_H
#define VIOMMU_BASE_EPOCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct epoch_deferred {
    struct epoch_deferred *next;
    void (*free)(struct epoch_deferred *deferred);
    uint64_t target;
};

struct epoch {
    uint64_t id;            /* shifted to its place in a word */
    _Atomic uint64_t now;   /* time; starts at 1 */
    _Atomic uint64_t quiet; /* drains with a target up to this are known to be over */
    /* What waits to be freed, newest first. */
    _Atomic(struct epoch_deferred *) deferred;
    atomic_flag reaping;
};

/* Returns 0, or -ENOSPC when too many epochs live in this process. */
int epoch_init(struct epoch *epoch);

/* No section may be open. Frees everything deferred. */
void epoch_fini(struct epoch *epoch);

/*
 * Opens a section. Returns false (once, on a thread's first section) when there is no memory for the
 * thread's record: the section is then not open and the caller must not read.
 */
bool epoch_enter(struct epoch *epoch);
void epoch_leave(struct epoch *epoch);

#ifdef VIOMMU_TESTING
/* Whether this thread has a section of the epoch open, or one of every epoch (the wildcard). */
bool epoch_inside(const struct epoch *epoch);
#endif

/*
 * Begins a drain: what the caller unpublished before is covered by it. Returns its target, for
 * epoch_drained. The call itself is a full fence.
 */
uint64_t epoch_begin_drain(struct epoch *epoch);

/* Whether every section that began before the drain has ended. Cheap when asked again. */
bool epoch_drained(struct epoch *epoch, uint64_t target);

/*
 * Frees something that was just unpublished when no section can see it any more: by epoch_reap or
 * epoch_fini, through deferred->free. Needs no memory.
 */
void epoch_defer(struct epoch *epoch, struct epoch_deferred *deferred,
                 void (*free)(struct epoch_deferred *deferred));

/* Frees what can be freed. Any thread; no lock that `free` might take may be held. */
void epoch_reap(struct epoch *epoch);

#endif
