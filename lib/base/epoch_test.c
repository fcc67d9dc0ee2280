/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of epochs: what holds back a drain and what does not, nesting, more epochs than a thread
 * has words, threads that come and go, deferred frees; and readers under load, which
 * ThreadSanitizer checks: an object is replaced, drained, poisoned and freed while they read it.
 *
 * Assertions are made on the main thread only; others count what they find wrong.
 */
#include "base/epoch.h"

#include "base/alloc.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define MANY 8         /* more epochs than a thread has words */
#define READERS 3
#define REPLACEMENTS 3000
#define HOLDERS 12     /* threads at once; more than any other test has */
#define POISON 0xdeadu

static int setup(void **state)
{
    static struct epoch epoch;

    *state = &epoch;
    return epoch_init(&epoch);
}

static int teardown(void **state)
{
    epoch_fini(*state);
    return 0;
}

static void test_drain_with_nobody_inside(void **state)
{
    struct epoch *epoch = *state;
    uint64_t first = epoch_begin_drain(epoch);
    uint64_t second = epoch_begin_drain(epoch);

    assert_true(second > first);
    assert_true(epoch_drained(epoch, second));
    assert_true(epoch_drained(epoch, first));
    assert_true(epoch_drained(epoch, first)); /* as often as asked */
}

static void test_section_before_holds_back(void **state)
{
    struct epoch *epoch = *state;
    uint64_t target;

    assert_false(epoch_inside(epoch));
    assert_true(epoch_enter(epoch));
    assert_true(epoch_inside(epoch));
    target = epoch_begin_drain(epoch);
    assert_false(epoch_drained(epoch, target));
    assert_false(epoch_drained(epoch, target));
    epoch_leave(epoch);
    assert_false(epoch_inside(epoch));
    assert_true(epoch_drained(epoch, target));
}

static void test_section_after_does_not(void **state)
{
    struct epoch *epoch = *state;
    uint64_t target = epoch_begin_drain(epoch);

    assert_true(epoch_enter(epoch));
    assert_true(epoch_drained(epoch, target));
    epoch_leave(epoch);
}

static void test_section_between_two_drains(void **state)
{
    struct epoch *epoch = *state;
    uint64_t before = epoch_begin_drain(epoch);
    uint64_t after;

    assert_true(epoch_enter(epoch));
    after = epoch_begin_drain(epoch);
    assert_false(epoch_drained(epoch, after));
    assert_true(epoch_drained(epoch, before));
    assert_false(epoch_drained(epoch, after));
    epoch_leave(epoch);
    assert_true(epoch_enter(epoch)); /* a new one, after both */
    assert_true(epoch_drained(epoch, after));
    epoch_leave(epoch);
}

static void test_nested_sections_are_as_old_as_the_first(void **state)
{
    struct epoch *epoch = *state;
    uint64_t target;

    assert_true(epoch_enter(epoch));
    target = epoch_begin_drain(epoch);
    assert_true(epoch_enter(epoch));
    assert_true(epoch_enter(epoch));
    epoch_leave(epoch);
    assert_false(epoch_drained(epoch, target));
    epoch_leave(epoch);
    assert_true(epoch_inside(epoch));
    assert_false(epoch_drained(epoch, target));
    epoch_leave(epoch);
    assert_false(epoch_inside(epoch));
    assert_true(epoch_drained(epoch, target));
}

static void test_epochs_do_not_hold_each_other(void **state)
{
    struct epoch *one = *state;
    struct epoch two;
    uint64_t target;

    assert_int_equal(epoch_init(&two), 0);
    assert_true(epoch_enter(one));
    assert_false(epoch_inside(&two));
    target = epoch_begin_drain(&two);
    assert_true(epoch_drained(&two, target));
    assert_true(epoch_enter(&two));
    target = epoch_begin_drain(one);
    epoch_leave(one); /* not in the order of nesting: each is its own */
    assert_true(epoch_inside(&two));
    assert_false(epoch_inside(one));
    assert_true(epoch_drained(one, target));
    target = epoch_begin_drain(&two);
    assert_true(epoch_enter(&two));
    epoch_leave(&two);
    assert_false(epoch_drained(&two, target));
    epoch_leave(&two);
    assert_true(epoch_drained(&two, target));
    epoch_fini(&two);
}

/* `forward`: leaves in the order of entering, else the other way round. */
static void check_many(struct epoch *epochs, bool forward)
{
    uint64_t targets[MANY];

    for (unsigned i = 0; i < MANY; i++) {
        assert_true(epoch_enter(&epochs[i]));
        assert_true(epoch_inside(&epochs[i]));
        targets[i] = epoch_begin_drain(&epochs[i]);
    }
    for (unsigned n = 0; n < MANY; n++) {
        unsigned i = forward ? n : MANY - 1 - n;

        assert_true(epoch_enter(&epochs[i])); /* nested, wherever there is room by now */
        assert_false(epoch_drained(&epochs[i], targets[i]));
        epoch_leave(&epochs[i]);
        assert_true(epoch_inside(&epochs[i]));
        assert_false(epoch_drained(&epochs[i], targets[i]));
        epoch_leave(&epochs[i]);
    }
    for (unsigned i = 0; i < MANY; i++) {
        assert_false(epoch_inside(&epochs[i]));
        assert_true(epoch_drained(&epochs[i], targets[i]));
    }
}

static void test_more_epochs_than_words(void **state)
{
    struct epoch epochs[MANY];

    (void)state;
    for (unsigned i = 0; i < MANY; i++) {
        assert_int_equal(epoch_init(&epochs[i]), 0);
    }
    check_many(epochs, true);
    check_many(epochs, false);
    check_many(epochs, true);
    for (unsigned i = 0; i < MANY; i++) {
        epoch_fini(&epochs[i]);
    }
}

static void test_number_of_epochs_is_bounded(void **state)
{
    enum { BOUND = 32767, ROOM = 40000 };
    struct epoch *epochs = base_alloc_array(ROOM, sizeof(*epochs));
    unsigned count = 0;
    int error = 0;

    (void)state;
    assert_non_null(epochs);
    while (count < ROOM && !error) {
        error = epoch_init(&epochs[count]);
        count += !error;
    }
    assert_int_equal(error, -ENOSPC);
    assert_int_equal(count, BOUND);
    epoch_fini(&epochs[BOUND / 2]); /* room again */
    assert_int_equal(epoch_init(&epochs[BOUND / 2]), 0);
    for (unsigned i = 0; i < count; i++) {
        epoch_fini(&epochs[i]);
    }
    base_free(epochs);
}

struct garbage {
    struct epoch_deferred deferred;
    unsigned *freed;
};

static void free_garbage(struct epoch_deferred *deferred)
{
    struct garbage *garbage = (struct garbage *)deferred;

    ++*garbage->freed;
    base_free(garbage);
}

static void defer_garbage(struct epoch *epoch, unsigned *freed)
{
    struct garbage *garbage = base_alloc(sizeof(*garbage));

    assert_non_null(garbage);
    garbage->freed = freed;
    epoch_defer(epoch, &garbage->deferred, free_garbage);
}

static void test_deferred_waits_for_sections(void **state)
{
    struct epoch *epoch = *state;
    unsigned early = 0;
    unsigned late = 0;

    epoch_reap(epoch); /* nothing there */
    defer_garbage(epoch, &early);
    assert_int_equal(early, 0); /* only a reap frees */
    assert_true(epoch_enter(epoch));
    defer_garbage(epoch, &late);
    defer_garbage(epoch, &late);
    epoch_reap(epoch);
    assert_int_equal(early, 1); /* its drain began before the section */
    assert_int_equal(late, 0);
    epoch_reap(epoch);
    assert_int_equal(late, 0);
    epoch_leave(epoch);
    assert_int_equal(late, 0);
    epoch_reap(epoch);
    assert_int_equal(late, 2);
    epoch_reap(epoch);
    assert_int_equal(late, 2);
}

static void test_fini_frees_the_rest(void **state)
{
    struct epoch epoch;
    unsigned freed = 0;

    (void)state;
    assert_int_equal(epoch_init(&epoch), 0);
    for (unsigned i = 0; i < 100; i++) {
        defer_garbage(&epoch, &freed);
    }
    epoch_fini(&epoch);
    assert_int_equal(freed, 100);
}

static void test_defer_needs_no_memory(void **state)
{
    struct epoch *epoch = *state;
    struct garbage *garbage = base_alloc(sizeof(*garbage));
    unsigned freed = 0;

    assert_non_null(garbage);
    garbage->freed = &freed;
    assert_true(epoch_enter(epoch)); /* this thread's record is there */
    epoch_leave(epoch);
    base_alloc_fail_at(1);
    epoch_defer(epoch, &garbage->deferred, free_garbage);
    epoch_reap(epoch);
    assert_false(base_alloc_failed());
    base_alloc_fail_at(0);
    assert_int_equal(freed, 1);
}

struct chain {
    struct epoch_deferred deferred;
    struct epoch *epoch;
    unsigned left;
};

/* Frees may defer and reap themselves. */
static void free_chain(struct epoch_deferred *deferred)
{
    struct chain *chain = (struct chain *)deferred;

    if (chain->left) {
        chain->left--;
        epoch_defer(chain->epoch, &chain->deferred, free_chain);
        epoch_reap(chain->epoch);
    } else {
        base_free(chain);
    }
}

static void test_free_may_defer(void **state)
{
    struct epoch *epoch = *state;
    struct chain *chain = base_alloc(sizeof(*chain));

    assert_non_null(chain);
    chain->epoch = epoch;
    chain->left = 5;
    epoch_defer(epoch, &chain->deferred, free_chain);
    for (unsigned i = 0; i < 6; i++) {
        epoch_reap(epoch);
    }
}

/* A thread that opens a section and stays in it until told. */
struct holder {
    struct epoch *epoch;
    pthread_barrier_t *inside;
    pthread_barrier_t *leave;
    bool entered;
};

static void *hold_section(void *arg)
{
    struct holder *holder = arg;

    holder->entered = epoch_enter(holder->epoch);
    pthread_barrier_wait(holder->inside);
    pthread_barrier_wait(holder->leave);
    if (holder->entered) {
        epoch_leave(holder->epoch);
    }
    return NULL;
}

static void test_other_threads_section_holds_back(void **state)
{
    struct epoch *epoch = *state;
    pthread_barrier_t inside;
    pthread_barrier_t leave;
    struct holder holder = {.epoch = epoch, .inside = &inside, .leave = &leave};
    pthread_t thread;
    uint64_t target;

    pthread_barrier_init(&inside, NULL, 2);
    pthread_barrier_init(&leave, NULL, 2);
    assert_int_equal(pthread_create(&thread, NULL, hold_section, &holder), 0);
    pthread_barrier_wait(&inside);
    assert_true(holder.entered);
    assert_false(epoch_inside(epoch)); /* its, not ours */
    target = epoch_begin_drain(epoch);
    assert_false(epoch_drained(epoch, target));
    pthread_barrier_wait(&leave);
    pthread_join(thread, NULL);
    assert_true(epoch_drained(epoch, target));
    pthread_barrier_destroy(&inside);
    pthread_barrier_destroy(&leave);
}

/* The order matters here: each thread's end gives the next one its record. */
static void *enter_and_leave(void *arg)
{
    struct epoch *epoch = arg;
    bool entered = epoch_enter(epoch);

    if (entered) {
        epoch_leave(epoch);
    }
    return entered ? arg : NULL;
}

static void test_records_are_used_again(void **state)
{
    struct epoch *epoch = *state;
    void *entered;

    for (unsigned i = 0; i < 200; i++) {
        pthread_t thread;

        base_alloc_fail_at(i ? 1 : 0); /* from the second on there is a record to be had */
        assert_int_equal(pthread_create(&thread, NULL, enter_and_leave, epoch), 0);
        pthread_join(thread, &entered);
        assert_non_null(entered);
    }
    assert_false(base_alloc_failed());
    base_alloc_fail_at(0);
    assert_true(epoch_drained(epoch, epoch_begin_drain(epoch)));
}

/* First refused for want of memory, then tries again. */
static void *enter_twice(void *arg)
{
    struct epoch *epoch = arg;
    bool first;
    bool inside;

    base_alloc_fail_at(1);
    first = epoch_enter(epoch);
    inside = epoch_inside(epoch);
    base_alloc_fail_at(0);
    if (first || inside || !epoch_enter(epoch)) {
        return NULL;
    }
    epoch_leave(epoch);
    return arg;
}

static void test_no_memory_for_a_record(void **state)
{
    struct epoch *epoch = *state;
    struct holder holders[HOLDERS];
    pthread_barrier_t inside;
    pthread_barrier_t leave;
    pthread_t threads[HOLDERS];
    pthread_t refused;
    void *well;

    pthread_barrier_init(&inside, NULL, HOLDERS + 1);
    pthread_barrier_init(&leave, NULL, HOLDERS + 1);
    for (unsigned i = 0; i < HOLDERS; i++) {
        holders[i] = (struct holder){.epoch = epoch, .inside = &inside, .leave = &leave};
        assert_int_equal(pthread_create(&threads[i], NULL, hold_section, &holders[i]), 0);
    }
    pthread_barrier_wait(&inside);
    assert_int_equal(pthread_create(&refused, NULL, enter_twice, epoch), 0);
    pthread_join(refused, &well);
    pthread_barrier_wait(&leave);
    for (unsigned i = 0; i < HOLDERS; i++) {
        pthread_join(threads[i], NULL);
        assert_true(holders[i].entered);
    }
    assert_non_null(well);
    pthread_barrier_destroy(&inside);
    pthread_barrier_destroy(&leave);
}

/* An object behind a pointer, whose two words are equal as long as it may be read. */
struct object {
    struct epoch_deferred deferred;
    unsigned a;
    unsigned b;
};

struct shared {
    struct epoch *epoch;
    _Atomic(struct object *) object;
    _Atomic bool stop;
    _Atomic unsigned wrong;
    _Atomic unsigned reads;
};

static struct object *object_new(unsigned value)
{
    struct object *object = base_alloc(sizeof(*object));

    if (object) {
        object->a = value;
        object->b = value;
    }
    return object;
}

static void poison_and_free(struct epoch_deferred *deferred)
{
    struct object *object = (struct object *)deferred;

    object->a = POISON;
    object->b = ~POISON;
    base_free(object);
}

static void *read_objects(void *arg)
{
    struct shared *shared = arg;
    unsigned depth = 1;

    while (!atomic_load(&shared->stop)) {
        for (unsigned i = 0; i < depth; i++) {
            atomic_fetch_add(&shared->wrong, !epoch_enter(shared->epoch));
        }
        for (unsigned i = 0; i < depth; i++) {
            struct object *object =
                atomic_load_explicit(&shared->object, memory_order_acquire);

            atomic_fetch_add(&shared->wrong, object->a != object->b);
            epoch_leave(shared->epoch);
        }
        atomic_fetch_add(&shared->reads, 1);
        depth = depth % 3 + 1;
        sched_yield(); /* here rather than in a section, or drains take a time slice each */
    }
    return NULL;
}

/* Replaces the object; drains and frees it here, or defers that. */
static void replace(struct shared *shared, unsigned value, bool defer)
{
    struct object *fresh = object_new(value);
    struct object *old;
    uint64_t target;

    assert_non_null(fresh);
    old = atomic_exchange(&shared->object, fresh);
    if (defer) {
        epoch_defer(shared->epoch, &old->deferred, poison_and_free);
        epoch_reap(shared->epoch);
        return;
    }
    target = epoch_begin_drain(shared->epoch);
    while (!epoch_drained(shared->epoch, target)) {
        sched_yield();
    }
    poison_and_free(&old->deferred);
}

static void test_readers_never_see_what_was_freed(void **state)
{
    struct shared shared = {.epoch = *state};
    pthread_t threads[READERS];

    atomic_init(&shared.object, object_new(0));
    assert_non_null(atomic_load(&shared.object));
    for (unsigned i = 0; i < READERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, read_objects, &shared), 0);
    }
    while (!atomic_load(&shared.reads)) {
        sched_yield();
    }
    for (unsigned i = 1; i <= REPLACEMENTS; i++) {
        replace(&shared, i, i % 4 == 0);
    }
    atomic_store(&shared.stop, true);
    for (unsigned i = 0; i < READERS; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(atomic_load(&shared.wrong), 0);
    base_free(atomic_load(&shared.object));
}

struct crowd {
    struct shared shared;
    struct epoch others[MANY]; /* held open meanwhile, so that reads are under the wildcard */
};

static void *read_under_wildcard(void *arg)
{
    struct crowd *crowd = arg;
    struct shared *shared = &crowd->shared;

    while (!atomic_load(&shared->stop)) {
        struct object *object;

        for (unsigned i = 0; i < MANY; i++) {
            atomic_fetch_add(&shared->wrong, !epoch_enter(&crowd->others[i]));
        }
        atomic_fetch_add(&shared->wrong, !epoch_enter(shared->epoch));
        object = atomic_load_explicit(&shared->object, memory_order_acquire);
        for (unsigned i = 0; i < MANY; i++) { /* words come free: the section must not care */
            epoch_leave(&crowd->others[i]);
        }
        atomic_fetch_add(&shared->wrong, object->a != object->b);
        epoch_leave(shared->epoch);
        sched_yield();
    }
    return NULL;
}

static void test_readers_under_the_wildcard(void **state)
{
    static struct crowd crowd;
    pthread_t threads[2];

    crowd.shared.epoch = *state;
    for (unsigned i = 0; i < MANY; i++) {
        assert_int_equal(epoch_init(&crowd.others[i]), 0);
    }
    atomic_store(&crowd.shared.object, object_new(0));
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, read_under_wildcard, &crowd), 0);
    }
    for (unsigned i = 1; i <= REPLACEMENTS / 4; i++) {
        replace(&crowd.shared, i, i % 4 == 0);
    }
    atomic_store(&crowd.shared.stop, true);
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(atomic_load(&crowd.shared.wrong), 0);
    base_free(atomic_load(&crowd.shared.object));
    for (unsigned i = 0; i < MANY; i++) {
        epoch_fini(&crowd.others[i]);
    }
}

struct deferrers {
    struct epoch *epoch;
    _Atomic unsigned freed;
};

struct counted {
    struct epoch_deferred deferred;
    _Atomic unsigned *freed;
};

static void free_counted(struct epoch_deferred *deferred)
{
    struct counted *counted = (struct counted *)deferred;

    atomic_fetch_add(counted->freed, 1);
    base_free(counted);
}

static void *defer_and_reap(void *arg)
{
    struct deferrers *deferrers = arg;

    for (unsigned i = 0; i < 1000; i++) {
        struct counted *counted = base_alloc(sizeof(*counted));

        if (!counted || !epoch_enter(deferrers->epoch)) {
            return NULL;
        }
        counted->freed = &deferrers->freed;
        epoch_defer(deferrers->epoch, &counted->deferred, free_counted);
        epoch_leave(deferrers->epoch);
        epoch_reap(deferrers->epoch);
    }
    return arg;
}

static void test_threads_defer_and_reap(void **state)
{
    struct deferrers deferrers = {.epoch = *state};
    pthread_t threads[READERS];
    void *well;

    for (unsigned i = 0; i < READERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, defer_and_reap, &deferrers), 0);
    }
    for (unsigned i = 0; i < READERS; i++) {
        pthread_join(threads[i], &well);
        assert_non_null(well);
    }
    epoch_reap(*state);
    assert_int_equal(atomic_load(&deferrers.freed), READERS * 1000);
}

int main(void)
{
#define EPOCH_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_number_of_epochs_is_bounded),
        EPOCH_TEST(test_drain_with_nobody_inside),
        EPOCH_TEST(test_section_before_holds_back),
        EPOCH_TEST(test_section_after_does_not),
        EPOCH_TEST(test_section_between_two_drains),
        EPOCH_TEST(test_nested_sections_are_as_old_as_the_first),
        EPOCH_TEST(test_epochs_do_not_hold_each_other),
        cmocka_unit_test(test_more_epochs_than_words),
        EPOCH_TEST(test_deferred_waits_for_sections),
        cmocka_unit_test(test_fini_frees_the_rest),
        EPOCH_TEST(test_defer_needs_no_memory),
        EPOCH_TEST(test_free_may_defer),
        EPOCH_TEST(test_other_threads_section_holds_back),
        EPOCH_TEST(test_records_are_used_again),
        EPOCH_TEST(test_readers_never_see_what_was_freed),
        EPOCH_TEST(test_readers_under_the_wildcard),
        EPOCH_TEST(test_threads_defer_and_reap),
        EPOCH_TEST(test_no_memory_for_a_record),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
