/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of listeners that begin in the middle of something: what they see at first and what they
 * are told afterwards is all there is, and nothing of it twice.
 */
#include "base/alloc.h"
#include "memory/test_memory.h"

#include <errno.h>
#include <stdio.h>

#define A UINT64_C(0x10000)
#define B UINT64_C(0x20000)
#define C UINT64_C(0x30000)

/* A listener that writes down, in a line, what it saw and was told: "{10000}" at first, then
   "-10000+20000" before a change and "!-10000+20000" after it. */
struct test_listener {
    struct viommu_memory_listener *listener;
    char said[512];
    int answer;       /* to `changing` */
    int begin_answer; /* of the function that is shown the slots */
    uint64_t token;
    bool in_changing; /* begins `other` inside its own calls */
    bool in_changed;
    struct test_listener *other;
};

static struct viommu_memory *memory;
static struct test_listener one;
static struct test_listener two;

static void say(struct test_listener *listener, const char *text)
{
    size_t length = strlen(listener->said);

    snprintf(listener->said + length, sizeof(listener->said) - length, "%s", text);
}

static void say_address(struct test_listener *listener, const char *sign, uint64_t address)
{
    char text[32];

    snprintf(text, sizeof(text), "%s%llx", sign, (unsigned long long)address);
    say(listener, text);
}

static void said(struct test_listener *listener, const char *expected)
{
    assert_string_equal(listener->said, expected);
    listener->said[0] = 0;
}

static void say_change(struct test_listener *listener, const struct viommu_memory_change *change)
{
    for (size_t i = 0; i < change->removed_count; i++) {
        say_address(listener, "-", change->removed[i].first);
    }
    for (size_t i = 0; i < change->added_count; i++) {
        say_address(listener, "+", change->added[i].first);
    }
}

static int begin(struct test_listener *listener);

static int changing(void *opaque, const struct viommu_memory_change *change)
{
    struct test_listener *listener = opaque;

    say_change(listener, change);
    listener->token = change->token;
    if (listener->in_changing) {
        listener->in_changing = false;
        begin(listener->other);
    }
    return listener->answer;
}

static void changed(void *opaque, const struct viommu_memory_change *change)
{
    struct test_listener *listener = opaque;

    say(listener, "!");
    say_change(listener, change);
    if (listener->in_changed) {
        listener->in_changed = false;
        begin(listener->other);
    }
}

static const struct viommu_memory_listener_ops ops = {.changing = changing, .changed = changed};

static int slots(void *opaque, const struct viommu_memory_slot *slot, size_t count)
{
    struct test_listener *listener = opaque;

    say(listener, "{");
    for (size_t i = 0; i < count; i++) {
        say_address(listener, i ? " " : "", slot[i].first);
    }
    say(listener, "}");
    return listener->begin_answer;
}

static int begin(struct test_listener *listener)
{
    return memory_listener_begin(memory, &ops, listener, slots, &listener->listener);
}

static int setup(void **state)
{
    (void)state;
    one = (struct test_listener){.other = &two};
    two = (struct test_listener){.other = &one};
    assert_int_equal(viommu_memory_create(&memory), 0);
    assert_int_equal(test_add_one(memory, A, 1, 0), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    base_alloc_fail_at(0);
    if (one.listener) {
        assert_int_equal(viommu_memory_listener_remove(one.listener), 0);
    }
    if (two.listener) {
        assert_int_equal(viommu_memory_listener_remove(two.listener), 0);
    }
    assert_true(test_finish(memory));
    viommu_memory_destroy(memory);
    return 0;
}

static void test_at_rest(void **state)
{
    (void)state;
    assert_int_equal(begin(&one), 0);
    said(&one, "{10000}");
    assert_int_equal(test_add_one(memory, B, 1, 1), 0);
    said(&one, "+20000!+20000");
    assert_int_equal(begin(&two), 0);
    said(&two, "{10000 20000}");
    assert_int_equal(test_remove_one(memory, A, 1), 0);
    said(&one, "-10000!-10000");
    said(&two, "-10000!-10000");
}

static void test_empty(void **state)
{
    (void)state;
    assert_int_equal(test_remove_one(memory, A, 1), 0);
    assert_int_equal(begin(&one), 0);
    said(&one, "{}");
}

/* It is not one when its first look failed. */
static void test_refused(void **state)
{
    (void)state;
    one.begin_answer = -ENOMEM;
    assert_int_equal(begin(&one), -ENOMEM);
    said(&one, "{10000}");
    assert_null(one.listener);
    assert_int_equal(test_add_one(memory, B, 1, 1), 0);
    said(&one, "");
    one.begin_answer = 0;
    base_alloc_fail_at(1);
    assert_int_equal(begin(&one), -ENOMEM);
    said(&one, "");
}

/* A batch that is accepted and waits for somebody's answer: readers do not see it yet. */
static void test_before_it_is_published(void **state)
{
    (void)state;
    one.answer = VIOMMU_PENDING;
    assert_int_equal(begin(&one), 0);
    assert_int_equal(test_add_one(memory, B, 1, 1), VIOMMU_PENDING);
    said(&one, "{10000}+20000");
    assert_int_equal(begin(&two), 0);
    said(&two, "{10000}");
    assert_int_equal(viommu_memory_listener_complete(one.listener, one.token), 0);
    assert_true(test_finish(memory));
    said(&one, "!+20000");
    said(&two, "+20000!+20000");
    assert_true(test_present(memory, B));
}

/* The newcomer's answer counts, too. */
static void test_answer_of_the_newcomer(void **state)
{
    (void)state;
    one.answer = VIOMMU_PENDING;
    two.answer = VIOMMU_PENDING;
    assert_int_equal(begin(&one), 0);
    assert_int_equal(test_remove_one(memory, A, 1), VIOMMU_PENDING);
    assert_int_equal(begin(&two), 0);
    assert_int_equal(viommu_memory_listener_complete(one.listener, one.token), 0);
    assert_int_equal(viommu_memory_process(memory), VIOMMU_PENDING);
    said(&two, "{10000}-10000");
    assert_true(test_present(memory, A));
    assert_int_equal(viommu_memory_listener_complete(two.listener, two.token), 0);
    assert_true(test_finish(memory));
    assert_false(test_present(memory, A));
}

/* One that readers see already, but that is not complete: a section is open. */
static void test_published_and_not_complete(void **state)
{
    struct epoch *epoch = memory_epoch(memory);

    (void)state;
    assert_int_equal(begin(&one), 0);
    said(&one, "{10000}");
    assert_true(epoch_enter(epoch));
    assert_int_equal(test_remove_one(memory, A, 1), VIOMMU_PENDING);
    said(&one, "-10000");
    assert_int_equal(begin(&two), 0);
    said(&two, "{}");
    assert_int_equal(test_add_one(memory, B, 1, 1), VIOMMU_PENDING); /* behind it */
    epoch_leave(epoch);
    assert_true(test_finish(memory));
    said(&one, "!-10000+20000!+20000");
    said(&two, "+20000!+20000");
}

/* Two are under way: one is published, the other one waits behind it. */
static void test_between_two(void **state)
{
    struct epoch *epoch = memory_epoch(memory);

    (void)state;
    assert_int_equal(begin(&one), 0);
    assert_true(epoch_enter(epoch));
    assert_int_equal(test_remove_one(memory, A, 1), VIOMMU_PENDING);
    assert_int_equal(test_add_one(memory, C, 1, 1), VIOMMU_PENDING);
    assert_int_equal(begin(&two), 0);
    said(&two, "{}");
    epoch_leave(epoch);
    assert_true(test_finish(memory));
    said(&two, "+30000!+30000");
    said(&one, "{10000}-10000!-10000+30000!+30000");
}

/* From inside a listener that is told of a change before it happens. */
static void test_in_changing(void **state)
{
    (void)state;
    one.in_changing = true;
    assert_int_equal(begin(&one), 0);
    assert_int_equal(test_add_one(memory, B, 1, 1), 0);
    said(&one, "{10000}+20000!+20000");
    said(&two, "{10000}+20000!+20000");
}

/* And of one that did: it has seen that. */
static void test_in_changed(void **state)
{
    (void)state;
    one.in_changed = true;
    assert_int_equal(begin(&one), 0);
    assert_int_equal(test_add_one(memory, B, 1, 1), 0);
    said(&one, "{10000}+20000!+20000");
    said(&two, "{10000 20000}");
    assert_int_equal(test_add_one(memory, C, 1, 2), 0);
    said(&two, "+30000!+30000");
}

/* Each answer is for the change that it was asked about. */
static void test_tokens(void **state)
{
    uint64_t old;

    (void)state;
    one.answer = VIOMMU_PENDING;
    assert_int_equal(begin(&one), 0);
    assert_int_equal(test_add_one(memory, B, 1, 1), VIOMMU_PENDING);
    old = one.token;
    assert_int_equal(viommu_memory_listener_complete(one.listener, old + 1), -ENOENT);
    assert_int_equal(viommu_memory_listener_complete(one.listener, old), 0);
    assert_int_equal(viommu_memory_listener_complete(one.listener, old), -ENOENT);
    assert_true(test_finish(memory));
    assert_int_equal(test_add_one(memory, C, 1, 2), VIOMMU_PENDING);
    assert_int_equal(viommu_memory_listener_complete(one.listener, old), -ENOENT);
    assert_int_equal(viommu_memory_listener_complete(one.listener, one.token), 0);
    assert_true(test_finish(memory));
}

/* What nobody answers any more is not waited for. */
static void test_removed_while_awaited(void **state)
{
    (void)state;
    one.answer = VIOMMU_PENDING;
    assert_int_equal(begin(&one), 0);
    assert_int_equal(test_remove_one(memory, A, 1), VIOMMU_PENDING);
    assert_int_equal(viommu_memory_listener_remove(one.listener), 0);
    one.listener = NULL;
    assert_true(test_readable(memory, 1000));
    assert_true(test_finish(memory));
    assert_false(test_present(memory, A));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_at_rest, setup, teardown),
        cmocka_unit_test_setup_teardown(test_empty, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_before_it_is_published, setup, teardown),
        cmocka_unit_test_setup_teardown(test_answer_of_the_newcomer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_published_and_not_complete, setup, teardown),
        cmocka_unit_test_setup_teardown(test_between_two, setup, teardown),
        cmocka_unit_test_setup_teardown(test_in_changing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_in_changed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tokens, setup, teardown),
        cmocka_unit_test_setup_teardown(test_removed_while_awaited, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
