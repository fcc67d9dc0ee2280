/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of the event loop: one event at a time, and what is done after each, until it is done. */
#include "loop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

static struct loop loop;
static struct loop_source sources[2];
static unsigned ready_count, after_count;
static unsigned portions; /* that are left to do after an event */

static void ready(void *opaque, uint32_t events)
{
    struct loop_source *source = opaque;
    uint64_t count;

    assert_int_equal(events, EPOLLIN);
    assert_int_equal(read(source->fd, &count, sizeof(count)), sizeof(count));
    ready_count++;
}

static bool after(void *opaque)
{
    (void)opaque;
    after_count++;
    if (portions > 0 && --portions > 0) {
        return true;
    }
    loop.stop = ready_count == 2;
    return false;
}

static void ring(unsigned which)
{
    const uint64_t one = 1;

    assert_int_equal(write(sources[which].fd, &one, sizeof(one)), sizeof(one));
}

static int setup(void **state)
{
    (void)state;
    ready_count = after_count = portions = 0;
    assert_int_equal(loop_init(&loop), 0);
    for (unsigned i = 0; i < 2; i++) {
        sources[i] = (struct loop_source){
            .fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
            .events = EPOLLIN,
            .ready = ready,
            .opaque = &sources[i],
        };
        assert_true(sources[i].fd >= 0);
        assert_int_equal(loop_add(&loop, &sources[i]), 0);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        loop_remove(&loop, &sources[i]);
        close(sources[i].fd);
    }
    loop_fini(&loop);
    return 0;
}

static void one_event_at_a_time(void **state)
{
    (void)state;
    loop.after = after;
    assert_int_equal(loop_step(&loop, 0), 0);
    assert_int_equal(after_count, 0); /* nothing happened */
    ring(0);
    ring(1);
    for (unsigned i = 1; i <= 2; i++) {
        assert_int_equal(loop_step(&loop, -1), 1);
        assert_int_equal(ready_count, i);
        assert_int_equal(after_count, i);
    }
    assert_int_equal(loop_step(&loop, 0), 0);
    assert_int_equal(after_count, 2);
}

/* Without `after` events are handled all the same. */
static void nothing_after(void **state)
{
    (void)state;
    ring(1);
    assert_int_equal(loop_step(&loop, -1), 1);
    assert_int_equal(loop_step(&loop, 0), 0);
    assert_int_equal(ready_count, 1);
}

/* What is left over is gone on with, without waiting; events come in between. */
static void more_to_do(void **state)
{
    (void)state;
    loop.after = after;
    portions = 4;
    ring(0);
    assert_int_equal(loop_step(&loop, -1), 1);
    assert_int_equal(loop_step(&loop, -1), 0); /* or this would wait for ever */
    assert_int_equal(after_count, 2);
    ring(1);
    assert_int_equal(loop_step(&loop, -1), 1);
    assert_int_equal(ready_count, 2);
    assert_int_equal(after_count, 3);
    assert_int_equal(loop_step(&loop, -1), 0);
    assert_int_equal(after_count, 4);
    assert_int_equal(loop_step(&loop, 0), 0); /* it is done */
    assert_int_equal(after_count, 4);
}

/* A loop begins with what was there before it ran. */
static void before_the_first_event(void **state)
{
    (void)state;
    loop.after = after;
    portions = 3;
    ready_count = 2; /* so it ends by itself */
    assert_int_equal(loop_run(&loop), 0);
    assert_int_equal(ready_count, 2);
    assert_int_equal(after_count, 3);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(one_event_at_a_time, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_after, setup, teardown),
        cmocka_unit_test_setup_teardown(more_to_do, setup, teardown),
        cmocka_unit_test_setup_teardown(before_the_first_event, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
