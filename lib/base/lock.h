/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A lock for steps of some nanoseconds: a word that is taken and given up in line, with one atomic
 * operation each. Who finds it taken looks for a moment whether it comes free, then sleeps in the
 * kernel until it is woken.
 *
 * As a mutex it is not recursive, is given up by the thread that took it, and what is written under
 * it is seen by the next one to take it. It is not fair: nothing long is done under it.
 */
#ifndef VIOMMU_BASE_LOCK_H
#define VIOMMU_BASE_LOCK_H

#include <stdatomic.h>
#include <stdint.h>

enum {
    BASE_LOCK_FREE = 0, /* what zeroed memory is */
    BASE_LOCK_TAKEN,
    BASE_LOCK_WANTED, /* taken, and perhaps somebody sleeps */
};

struct base_lock {
    _Atomic uint32_t word;
};

/* The ways that are not quick: waits until it is taken; wakes one that sleeps. */
void base_lock_wait(struct base_lock *lock);
void base_lock_wake(struct base_lock *lock);

static inline void base_lock_take(struct base_lock *lock)
{
    uint32_t word = BASE_LOCK_FREE;

    if (!atomic_compare_exchange_strong_explicit(&lock->word, &word, BASE_LOCK_TAKEN,
                                                 memory_order_acquire, memory_order_relaxed)) {
        base_lock_wait(lock);
    }
}

static inline void base_lock_give(struct base_lock *lock)
{
    if (atomic_exchange_explicit(&lock->word, BASE_LOCK_FREE, memory_order_release) ==
        BASE_LOCK_WANTED) {
        base_lock_wake(lock);
    }
}

#endif
