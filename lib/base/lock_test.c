/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the lock: alone it is a word that goes and comes; threads that count under it lose
 * nothing, though many of them sleep; a sleeper is woken.
 */
#include "base/lock.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <time.h>

#include <cmocka.h>

enum {
    THREADS = 6,
    ROUNDS = 20000,
};

static struct {
    struct base_lock lock;
    unsigned long count; /* under the lock */
    bool inside;         /* likewise */
    _Atomic unsigned wrong;
    _Atomic unsigned done;
} shared;

static uint32_t word(void)
{
    return atomic_load(&shared.lock.word);
}

static void test_word(void **state)
{
    (void)state;
    assert_int_equal(word(), BASE_LOCK_FREE);
    base_lock_take(&shared.lock);
    assert_int_equal(word(), BASE_LOCK_TAKEN);
    base_lock_give(&shared.lock);
    assert_int_equal(word(), BASE_LOCK_FREE);
}

static void *count(void *opaque)
{
    (void)opaque;
    for (unsigned i = 0; i < ROUNDS; i++) {
        base_lock_take(&shared.lock);
        shared.wrong += shared.inside;
        shared.inside = true;
        shared.count++;
        if (i % 1024 == 0) {
            sched_yield(); /* long enough for others to fall asleep */
        }
        shared.inside = false;
        base_lock_give(&shared.lock);
    }
    return NULL;
}

static void test_threads(void **state)
{
    pthread_t threads[THREADS];

    (void)state;
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, count, NULL), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_int_equal(shared.wrong, 0);
    assert_int_equal(shared.count, THREADS * ROUNDS);
    assert_int_equal(word(), BASE_LOCK_FREE);
}

static void *once(void *opaque)
{
    (void)opaque;
    base_lock_take(&shared.lock);
    shared.done++;
    base_lock_give(&shared.lock);
    return NULL;
}

static void rest(void)
{
    struct timespec time = {.tv_nsec = 1000000};

    nanosleep(&time, NULL);
}

/* Each of those that sleep is woken by the one before it. */
static void test_sleepers(void **state)
{
    pthread_t threads[THREADS];

    (void)state;
    base_lock_take(&shared.lock);
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, once, NULL), 0);
    }
    while (word() != BASE_LOCK_WANTED) {
        rest();
    }
    for (unsigned i = 0; i < 20; i++) {
        rest(); /* for the others to come */
    }
    assert_int_equal(shared.done, 0);
    base_lock_give(&shared.lock);
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_int_equal(shared.done, THREADS);
    base_lock_take(&shared.lock);
    base_lock_give(&shared.lock);
    assert_int_equal(word(), BASE_LOCK_FREE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_word),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_sleepers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
