/* SPDX-License-Identifier: BSD-2-Clause */
/* A lock for short steps, where it is found taken. See lock.h. */
#include "base/lock.h"

#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    LOOKS = 100,
};

void base_lock_wait(struct base_lock *lock)
{
    for (int i = 0; i < LOOKS; i++) {
        uint32_t word = atomic_load_explicit(&lock->word, memory_order_relaxed);

        if (word == BASE_LOCK_FREE &&
            atomic_compare_exchange_weak_explicit(&lock->word, &word, BASE_LOCK_TAKEN,
                                                  memory_order_acquire, memory_order_relaxed)) {
            return;
        }
    }
    /* Whoever has slept once takes it as wanted: there may be others, who are not counted. */
    while (atomic_exchange_explicit(&lock->word, BASE_LOCK_WANTED, memory_order_acquire) !=
           BASE_LOCK_FREE) {
        (void)syscall(SYS_futex, &lock->word, FUTEX_WAIT_PRIVATE, BASE_LOCK_WANTED, NULL, NULL, 0);
    }
}

void base_lock_wake(struct base_lock *lock)
{
    (void)syscall(SYS_futex, &lock->word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}
