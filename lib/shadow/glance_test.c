/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Quick looks: a yes is exact, and everything that counts turns it into a no; what does not count,
 * does not.
 */
#include "shadow/glance.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define READ 1ULL
#define WRITE 2ULL
#define RESERVED (1ULL << 51)
#define IGNORED (1ULL << 60 | 1ULL << 5 | SHADOW_START | SHADOW_BAD)
#define PAGE 4096ULL

static _Atomic uint64_t leaf[SHADOW_PAGES];
static uint64_t values[SHADOW_PAGES];

static struct glance glance_of(uint64_t allowed)
{
    return (struct glance){.leaf = leaf, .allowed = allowed, .reserved = RESERVED};
}

/* Scattered pages with holes, some read-only, ignored bits set. */
static void fill(void)
{
    for (unsigned i = 0; i < SHADOW_PAGES; i++) {
        uint64_t perm = i % 7 ? READ | WRITE : READ;
        uint64_t page = (i * 0x9e3779b97f4a7c15ULL & SHADOW_TARGET & ~RESERVED) | perm;

        leaf[i] = i % 5 ? page | IGNORED : IGNORED;
        values[i] = i % 5 ? page | SHADOW_START : 0;
    }
}

static void fill_run(uint64_t first)
{
    for (unsigned i = 0; i < SHADOW_PAGES; i++) {
        leaf[i] = (first + i * PAGE) | IGNORED;
    }
}

static void test_same(void **state)
{
    struct glance glance = glance_of(READ | WRITE);

    (void)state;
    fill();
    assert_true(glance_values(&glance, values));
    glance.next_leaf = leaf;
    glance.next_values = values;
    assert_true(glance_values(&glance, values));
}

/* Every bit of every entry that counts. */
static void test_every_bit(void **state)
{
    const struct glance glance = glance_of(READ | WRITE);

    (void)state;
    fill();
    for (unsigned i = 0; i < SHADOW_PAGES; i++) {
        for (unsigned bit = 0; bit < 64; bit++) {
            uint64_t mask = 1ULL << bit;
            bool counts = mask & (SHADOW_TARGET | READ | WRITE);

            leaf[i] ^= mask;
            assert_int_equal(glance_values(&glance, values), !counts);
            leaf[i] ^= mask;
        }
    }
}

static void test_values_that_need_a_look(void **state)
{
    struct glance glance = glance_of(READ | WRITE);

    (void)state;
    fill();
    leaf[10] = 0;
    values[10] = SHADOW_BAD; /* it was told of, and is gone now */
    assert_false(glance_values(&glance, values));

    fill();
    glance.allowed = READ; /* the levels above took the permission that is remembered */
    assert_false(glance_values(&glance, values));
    for (unsigned i = 0; i < SHADOW_PAGES; i++) {
        values[i] &= ~WRITE;
    }
    assert_true(glance_values(&glance, values));
}

static void test_run(void **state)
{
    const struct glance glance = glance_of(READ | WRITE);
    uint64_t first = 0x1234ULL << 20 | READ | WRITE;

    (void)state;
    fill_run(first);
    assert_true(glance_run(&glance, first));
    assert_false(glance_run(&glance, first + PAGE));
    for (unsigned i = 0; i < SHADOW_PAGES; i++) {
        leaf[i] ^= PAGE;
        assert_false(glance_run(&glance, first));
        leaf[i] ^= PAGE;
    }
}

static void test_nothing(void **state)
{
    const struct glance glance = glance_of(READ | WRITE);

    (void)state;
    for (unsigned i = 0; i < SHADOW_PAGES; i++) {
        leaf[i] = IGNORED;
    }
    assert_true(glance_run(&glance, 0));
    for (unsigned i = 0; i < SHADOW_PAGES; i++) {
        leaf[i] = READ;
        assert_false(glance_run(&glance, 0));
        leaf[i] = 0;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same),
        cmocka_unit_test(test_every_bit),
        cmocka_unit_test(test_values_that_need_a_look),
        cmocka_unit_test(test_run),
        cmocka_unit_test(test_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
