/* SPDX-License-Identifier: BSD-2-Clause */
/* The cover against an array of claims: at both ends of the address space, in any order. */
#include "iova/cover.h"

#include "base/alloc.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define CLAIMS 40

struct claim {
    uint64_t first;
    uint64_t last;
};

static struct claim claims[CLAIMS];
static unsigned count;

static unsigned covering(uint64_t address)
{
    unsigned n = 0;

    for (unsigned i = 0; i < count; i++) {
        n += claims[i].first <= address && address <= claims[i].last;
    }
    return n;
}

static bool border(uint64_t address)
{
    for (unsigned i = 0; i < count; i++) {
        if (claims[i].first == address || claims[i].last + 1 == address) {
            return true;
        }
    }
    return false;
}

static void compare(const struct range_map *cover, uint64_t base)
{
    struct range_run run = {0};
    uint64_t address = base;

    do {
        unsigned expected = covering(address);
        bool found = range_map_find(cover, address, &run);

        assert_int_equal(found ? cover_tag(&run).claims : 0, expected);
        if (found) {
            assert_true(run.first == address || !border(address));
            assert_true(run.first != address || border(address));
        }
    } while (++address & 63);
}

static void add(struct range_map *cover, uint64_t first, uint64_t last)
{
    assert_int_equal(range_map_reserve(cover, cover_need(cover, first, last)), 0);
    /* What is reserved is enough. */
    base_alloc_fail_at(1);
    cover_add(cover, first, last);
    assert_false(base_alloc_failed());
    base_alloc_fail_at(0);
    range_map_release(cover);
    claims[count++] = (struct claim){first, last};
}

static void take(struct range_map *cover, unsigned i)
{
    base_alloc_fail_at(1);
    cover_remove(cover, claims[i].first, claims[i].last);
    assert_false(base_alloc_failed());
    base_alloc_fail_at(0);
    claims[i] = claims[--count];
}

static void test_random(void **state)
{
    static const uint64_t bases[] = {0, 0x7fffffc0, UINT64_MAX - 63};

    (void)state;
    srand(1);
    for (unsigned b = 0; b < 3; b++) {
        struct range_map cover;

        range_map_init(&cover);
        count = 0;
        for (unsigned step = 0; step < 4000; step++) {
            unsigned from = (unsigned)rand() % 64;
            unsigned to = from + (unsigned)rand() % (64 - from);

            if (count < CLAIMS && rand() % 3) {
                add(&cover, bases[b] + from, bases[b] + to);
            } else if (count) {
                take(&cover, (unsigned)rand() % count);
            }
            if (rand() % 64 == 0) {
                while (count) {
                    take(&cover, 0);
                }
                assert_int_equal(cover.count, 0);
            }
            compare(&cover, bases[b]);
        }
        range_map_fini(&cover);
    }
}

/* Claims that touch stay apart: each can go by itself. */
static void test_neighbours_stay_apart(void **state)
{
    struct range_map cover;

    (void)state;
    range_map_init(&cover);
    count = 0;
    add(&cover, 0x1000, 0x1fff);
    add(&cover, 0x2000, 0x2fff);
    add(&cover, 0, UINT64_MAX);
    assert_int_equal(cover.count, 4);
    take(&cover, 0);
    assert_true(cover_meets(&cover, 0x1000, 0x1fff));
    take(&cover, 0); /* the whole space */
    assert_false(cover_meets(&cover, 0, 0x1fff));
    assert_true(cover_meets(&cover, 0, 0x2000));
    assert_false(cover_meets(&cover, 0x3000, UINT64_MAX));
    take(&cover, 0);
    assert_int_equal(cover.count, 0);
    range_map_fini(&cover);
}

static void test_add_free(void **state)
{
    struct range_map cover;

    (void)state;
    range_map_init(&cover);
    count = 0;
    assert_int_equal(cover_add_free(&cover, 0x1000, 0x1fff), 0);
    add(&cover, 0x1800, 0x27ff);
    cover_remove(&cover, 0x1000, 0x1fff);
    assert_int_equal(cover.count, 1);
    base_alloc_fail_at(1);
    range_map_fini(&cover);
    range_map_init(&cover);
    assert_int_equal(cover_add_free(&cover, 0, UINT64_MAX), -ENOMEM);
    base_alloc_fail_at(0);
    range_map_fini(&cover);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_neighbours_stay_apart),
        cmocka_unit_test(test_add_free),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
