/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of the event descriptor: kicks, times, clearing; no wake-up is lost between threads. */
#include "base/wake.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#define MS UINT64_C(1000000)
#define ROUNDS 20000u

/* Whether the descriptor becomes readable within `ms`. */
static bool readable(const struct wake *wake, int ms)
{
    struct pollfd pollfd = {.fd = wake->poll_fd, .events = POLLIN};

    return poll(&pollfd, 1, ms) == 1;
}

static int setup(void **state)
{
    static struct wake wake;

    *state = &wake;
    return wake_init(&wake, NULL, NULL);
}

static int teardown(void **state)
{
    wake_fini(*state);
    return 0;
}

static void test_kick_and_clear(void **state)
{
    struct wake *wake = *state;

    assert_false(readable(wake, 0));
    wake_kick(wake);
    assert_true(readable(wake, 0));
    assert_true(readable(wake, 0)); /* looking does not consume it */
    wake_clear(wake);
    assert_false(readable(wake, 0));
    wake_kick(wake);
    wake_kick(wake);
    wake_kick(wake);
    wake_clear(wake);
    assert_false(readable(wake, 0));
    wake_kick(wake);
    assert_true(readable(wake, 0));
}

/* What was kicked, or whose time came, is cleared, and comes again; else nothing happens. */
static void test_clear_again(void **state)
{
    struct wake *wake = *state;

    for (unsigned i = 0; i < 3; i++) {
        wake_clear(wake);
        wake_clear(wake);
        wake_kick(wake);
        wake_kick(wake);
        assert_true(readable(wake, 0));
        wake_clear(wake);
        assert_false(readable(wake, 0));
        wake_at(wake, wake_now());
        assert_true(readable(wake, 5000));
        wake_clear(wake);
        assert_false(readable(wake, 0));
    }
}

static void count_call(void *opaque)
{
    (*(unsigned *)opaque)++;
}

/* A function in the descriptor's place: called once until the next clear; times come as ever. */
static void test_told_by_a_function(void **state)
{
    struct wake wake;
    unsigned calls = 0;

    (void)state;
    assert_int_equal(wake_init(&wake, count_call, &calls), 0);
    for (unsigned i = 1; i < 4; i++) {
        wake_kick(&wake);
        wake_kick(&wake);
        assert_int_equal(calls, i);
        wake_clear(&wake);
        wake_clear(&wake);
        assert_int_equal(calls, i);
    }
    wake_kick(&wake);
    assert_false(readable(&wake, 0));
    wake_at(&wake, wake_now());
    assert_true(readable(&wake, 5000));
    wake_clear(&wake);
    assert_false(readable(&wake, 0));
    assert_int_equal(calls, 4);
    wake_fini(&wake);
}

static void test_clear_without_kick(void **state)
{
    struct wake *wake = *state;

    wake_clear(wake);
    wake_clear(wake);
    assert_false(readable(wake, 0));
    wake_kick(wake);
    assert_true(readable(wake, 0));
}

static void test_time_comes(void **state)
{
    struct wake *wake = *state;
    uint64_t when = wake_now() + 30 * MS;

    wake_at(wake, when);
    if (wake_now() + 15 * MS < when) { /* else this machine is too busy to tell */
        assert_false(readable(wake, 0));
    }
    assert_true(readable(wake, 5000));
    assert_true(wake_now() >= when);
    wake_clear(wake);
    assert_false(readable(wake, 0)); /* a time comes once */
}

static void test_past_time_is_now(void **state)
{
    struct wake *wake = *state;

    wake_at(wake, wake_now() - 1);
    assert_true(readable(wake, 1000));
    wake_clear(wake);
    wake_at(wake, 1);
    assert_true(readable(wake, 1000));
}

static void test_later_time_replaces_earlier(void **state)
{
    struct wake *wake = *state;

    wake_at(wake, wake_now() + 1);
    wake_at(wake, wake_now() + 3600000 * MS);
    assert_false(readable(wake, 10));
    wake_at(wake, wake_now() + 1 * MS);
    assert_true(readable(wake, 5000));
}

/* A time that is set already, and comes before, stays; one that comes after it gives way. */
static void test_time_or_earlier(void **state)
{
    struct wake *wake = *state;

    wake_by(wake, wake_now() + 3600000 * MS);
    wake_by(wake, wake_now() + 7200000 * MS);
    assert_false(readable(wake, 5));
    wake_by(wake, wake_now() + 1 * MS);
    wake_by(wake, wake_now() + 3600000 * MS);
    assert_true(readable(wake, 5000));
    wake_by(wake, wake_now() + 3600000 * MS); /* it is cleared first */
    assert_true(readable(wake, 0));
    wake_clear(wake);
    assert_false(readable(wake, 0));
    wake_by(wake, wake_now() + 1 * MS);
    assert_true(readable(wake, 5000));
}

static void test_zero_forgets_the_time(void **state)
{
    struct wake *wake = *state;

    wake_at(wake, wake_now() + 5 * MS);
    wake_at(wake, 0);
    assert_false(readable(wake, 20));
    wake_at(wake, wake_now());
    assert_true(readable(wake, 1000));
    wake_at(wake, 0); /* also one that has come */
    assert_false(readable(wake, 0));
    wake_kick(wake);
    wake_at(wake, 0); /* but not a kick */
    assert_true(readable(wake, 0));
}

static void test_clear_keeps_a_time_to_come(void **state)
{
    struct wake *wake = *state;

    uint64_t when = wake_now() + 20 * MS;

    wake_at(wake, when);
    wake_kick(wake);
    wake_clear(wake);
    if (wake_now() < when) { /* else this machine is too busy to tell: it may have come, too */
        assert_true(readable(wake, 5000));
    }
}

/* Times are set and cleared the moment that they come, again and again: none is lost, and none
   stays. */
static void test_times_that_come_at_once(void **state)
{
    struct wake *wake = *state;

    for (unsigned i = 0; i < 2000; i++) {
        wake_by(wake, wake_now() + i % 64 * 1000);
        while (wake->at) {
            wake_clear(wake);
        }
        assert_false(readable(wake, 0));
    }
}

/* The clock has come to the time, and the descriptor is not readable yet: it is, and is read,
   later. */
static void test_cleared_before_it_is_readable(void **state)
{
    struct wake *wake = *state;

    uint64_t when = wake_now() + 20 * MS;

    wake_at(wake, when);
    wake->at = 1;
    wake_clear(wake);
    if (wake_now() >= when) {
        return; /* this machine is too busy to tell: it may have been readable */
    }
    assert_int_equal(wake->at, 1);
    assert_true(readable(wake, 5000));
    wake_clear(wake);
    assert_int_equal(wake->at, 0);
    assert_false(readable(wake, 0));
}

/* Between the two steps of a kick. */
static void test_cleared_within_a_kick(void **state)
{
    struct wake *wake = *state;
    const uint64_t one = 1;

    atomic_store(&wake->kicked, 1);
    wake_clear(wake);
    wake_clear(wake);
    assert_int_equal(write(wake->event_fd, &one, sizeof(one)), sizeof(one));
    assert_true(readable(wake, 0));
    wake_clear(wake);
    assert_false(readable(wake, 0));
    wake_kick(wake);
    assert_true(readable(wake, 0));
}

static void test_far_time(void **state)
{
    struct wake *wake = *state;

    wake_at(wake, UINT64_MAX);
    assert_false(readable(wake, 5));
}

static void test_clock_goes_on(void **state)
{
    uint64_t before = wake_now();

    (void)state;
    usleep(1000);
    assert_true(wake_now() >= before + 900000);
}

/* Highest descriptor in use, plus one, is where the next ones would go. */
static unsigned open_descriptors(void)
{
    unsigned count = 0;

    for (int fd = 0; fd < 256; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

static void test_no_descriptors(void **state)
{
    struct rlimit old;
    struct rlimit tight;
    struct wake wake;
    unsigned before = open_descriptors();
    int taken[3];

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    for (int i = 0; i < 3; i++) {
        taken[i] = dup(0);
        assert_true(taken[i] >= 0);
    }
    tight = old;
    tight.rlim_cur = (rlim_t)taken[2] + 1;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
    for (int free_ones = 0; free_ones < 3; free_ones++) { /* every one of its three fails in turn */
        int error = wake_init(&wake, NULL, NULL);

        if (error) {
            assert_int_equal(error, -EMFILE);
        } else {
            wake_fini(&wake);
            assert_true(free_ones > 0); /* holes below gave it room */
        }
        close(taken[free_ones]);
        assert_int_equal(open_descriptors(), before + 2 - (unsigned)free_ones);
    }
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_equal(open_descriptors(), before);
}

struct handover {
    struct wake *wake;
    _Atomic unsigned work;
};

static void *produce(void *arg)
{
    struct handover *handover = arg;

    for (unsigned i = 0; i < ROUNDS; i++) {
        atomic_fetch_add(&handover->work, 1);
        wake_kick(handover->wake);
    }
    return NULL;
}

/* Two threads give work, one takes it: it may never sleep on work that is there. */
static void test_no_kick_is_lost(void **state)
{
    struct handover handover = {.wake = *state};
    unsigned taken = 0;
    pthread_t threads[2];

    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, produce, &handover), 0);
    }
    while (taken < 2 * ROUNDS && readable(handover.wake, 10000)) {
        wake_clear(handover.wake);
        taken += atomic_exchange(&handover.work, 0);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(taken, 2 * ROUNDS);
    wake_clear(handover.wake); /* a last one may have been written after its work was taken */
    assert_false(readable(handover.wake, 0));
}

int main(void)
{
#define WAKE_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        WAKE_TEST(test_kick_and_clear),
        WAKE_TEST(test_clear_again),
        cmocka_unit_test(test_told_by_a_function),
        WAKE_TEST(test_clear_without_kick),
        WAKE_TEST(test_time_comes),
        WAKE_TEST(test_past_time_is_now),
        WAKE_TEST(test_later_time_replaces_earlier),
        WAKE_TEST(test_time_or_earlier),
        WAKE_TEST(test_zero_forgets_the_time),
        WAKE_TEST(test_clear_keeps_a_time_to_come),
        WAKE_TEST(test_times_that_come_at_once),
        WAKE_TEST(test_cleared_before_it_is_readable),
        WAKE_TEST(test_cleared_within_a_kick),
        WAKE_TEST(test_far_time),
        cmocka_unit_test(test_clock_goes_on),
        cmocka_unit_test(test_no_descriptors),
        WAKE_TEST(test_no_kick_is_lost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
