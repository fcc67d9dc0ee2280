/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the caches that are faithful and hostile: what is kept, found and dropped; fills that
 * are under way; the quota; and for the hostile one that it loses, takes turns, repeats itself for
 * one seed, and never finds what was dropped.
 */
#include "base/alloc.h"
#include "iotlb/kept.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define PAGE UINT64_C(4096)
#define SIZE_2M (512 * PAGE)
#define SIZE_1G (512 * SIZE_2M)

static struct kept *kept;

static int teardown(void **state)
{
    (void)state;
    kept_destroy(kept);
    kept = NULL;
    return 0;
}

static void create(enum viommu_cache_mode mode, uint64_t seed, uint32_t quota)
{
    assert_int_equal(kept_create(mode, seed, quota, &kept), 0);
}

static struct kept_page page_of(uint16_t domain, uint64_t iova, uint64_t gpa, unsigned level)
{
    return (struct kept_page){
        .iova = iova,
        .gpa = gpa,
        .entry = gpa | 3,
        .domain = domain,
        .level = (uint8_t)level,
        .perm = VIOMMU_READ,
    };
}

static int add(uint16_t domain, uint64_t iova, uint64_t gpa, unsigned level)
{
    struct kept_page page = page_of(domain, iova, gpa, level);

    return kept_add(kept, &page, kept_ticket(kept));
}

/* The first guest address of the page found, or 0. */
static uint64_t find(uint16_t domain, uint64_t iova)
{
    struct kept_page page;

    return kept_find(kept, domain, iova, &page) ? page.gpa : 0;
}

static void test_all_of_a_page_is_given_back(void **state)
{
    struct kept_page page = page_of(7, SIZE_2M, 4 * SIZE_2M, 1);
    struct kept_page found;

    (void)state;
    create(VIOMMU_CACHE_FAITHFUL, 0, 10);
    page.reason = 12;
    page.perm = 0;
    assert_int_equal(kept_add(kept, &page, kept_ticket(kept)), 0);
    memset(&found, 0xff, sizeof(found));
    assert_true(kept_find(kept, 7, SIZE_2M + 5 * PAGE + 17, &found));
    assert_int_equal(found.iova, page.iova);
    assert_int_equal(found.gpa, page.gpa);
    assert_int_equal(found.entry, page.entry);
    assert_int_equal(found.domain, 7);
    assert_int_equal(found.level, 1);
    assert_int_equal(found.perm, 0);
    assert_int_equal(found.reason, 12);
    assert_false(kept_find(kept, 7, 2 * SIZE_2M, &found));
    assert_false(kept_find(kept, 7, SIZE_2M - 1, &found));
    assert_false(kept_find(kept, 6, SIZE_2M, &found));
}

static void test_the_smallest_page_answers(void **state)
{
    (void)state;
    create(VIOMMU_CACHE_FAITHFUL, 0, 10);
    assert_int_equal(add(1, 0, SIZE_1G, 2), 0);
    assert_int_equal(add(1, SIZE_2M, SIZE_2M, 1), 0);
    assert_int_equal(add(1, SIZE_2M + PAGE, 8 * PAGE, 0), 0);
    assert_int_equal(find(1, SIZE_2M + PAGE), 8 * PAGE);
    assert_int_equal(find(1, SIZE_2M), SIZE_2M);
    assert_int_equal(find(1, 5 * SIZE_2M), SIZE_1G);
}

static void test_what_is_there_is_not_replaced(void **state)
{
    (void)state;
    create(VIOMMU_CACHE_FAITHFUL, 0, 10);
    assert_int_equal(add(1, PAGE, 8 * PAGE, 0), 0);
    assert_int_equal(add(1, PAGE, 9 * PAGE, 0), 0);
    assert_int_equal(find(1, PAGE), 8 * PAGE);
    assert_int_equal(kept->count, 1);
}

static void fill_some(void)
{
    assert_int_equal(add(1, PAGE, 8 * PAGE, 0), 0);
    assert_int_equal(add(1, SIZE_2M, SIZE_2M, 1), 0);
    assert_int_equal(add(1, SIZE_1G, SIZE_1G, 2), 0);
    assert_int_equal(add(2, PAGE, 9 * PAGE, 0), 0);
}

static void test_drops_by_range(void **state)
{
    (void)state;
    create(VIOMMU_CACHE_FAITHFUL, 0, 100);
    fill_some();
    kept_drop_range(kept, 1, 0, PAGE - 1);
    kept_drop_range(kept, 1, 2 * PAGE, SIZE_2M - 1);
    assert_int_equal(kept->count, 4);
    kept_drop_range(kept, 1, PAGE, 2 * PAGE - 1);
    assert_int_equal(find(1, PAGE), 0);
    assert_int_equal(find(2, PAGE), 9 * PAGE);
    /* One page inside a larger one drops all of it. */
    kept_drop_range(kept, 1, SIZE_2M + 7 * PAGE, SIZE_2M + 8 * PAGE - 1);
    assert_int_equal(find(1, SIZE_2M), 0);
    kept_drop_range(kept, 1, 2 * SIZE_1G - PAGE, 2 * SIZE_1G - 1);
    assert_int_equal(find(1, SIZE_1G), 0);
    assert_int_equal(kept->count, 1);
}

/* A range so large that all is looked at, not page by page. */
static void test_drops_by_a_large_range(void **state)
{
    (void)state;
    create(VIOMMU_CACHE_FAITHFUL, 0, 100);
    fill_some();
    kept_drop_range(kept, 1, SIZE_2M + PAGE, SIZE_1G);
    assert_int_equal(find(1, PAGE), 8 * PAGE);
    assert_int_equal(find(1, SIZE_2M), 0);
    assert_int_equal(find(1, SIZE_1G), 0);
    kept_drop_range(kept, 2, 0, UINT64_MAX);
    assert_int_equal(kept->count, 1);
}

static void test_drops_of_a_domain_and_of_all(void **state)
{
    (void)state;
    create(VIOMMU_CACHE_FAITHFUL, 0, 100);
    fill_some();
    kept_drop_domain(kept, 1);
    assert_int_equal(kept->count, 1);
    assert_int_equal(find(2, PAGE), 9 * PAGE);
    fill_some();
    kept_drop_all(kept);
    assert_int_equal(kept->count, 0);
}

static void test_a_walk_under_way_brings_nothing_back(void **state)
{
    struct kept_page page = page_of(1, PAGE, 8 * PAGE, 0);
    uint64_t ticket;

    (void)state;
    create(VIOMMU_CACHE_FAITHFUL, 0, 100);
    ticket = kept_ticket(kept);
    kept_drop_range(kept, 9, 0, PAGE - 1);
    assert_int_equal(kept_add(kept, &page, ticket), 0);
    assert_int_equal(find(1, PAGE), 0);
    assert_int_equal(kept_add(kept, &page, kept_ticket(kept)), 0);
    assert_int_equal(find(1, PAGE), 8 * PAGE);
}

static void test_a_full_cache_keeps_what_it_has_and_says_so(void **state)
{
    (void)state;
    create(VIOMMU_CACHE_FAITHFUL, 0, 3);
    for (uint64_t i = 1; i <= 3; i++) {
        assert_int_equal(add(1, i * PAGE, i * PAGE, 0), 0);
    }
    assert_int_equal(add(1, 4 * PAGE, 4 * PAGE, 0), -ENOSPC);
    assert_int_equal(add(1, 5 * PAGE, 5 * PAGE, 0), 0); /* told already */
    for (uint64_t i = 1; i <= 5; i++) {
        assert_int_equal(find(1, i * PAGE), i <= 3 ? i * PAGE : 0);
    }
    kept_drop_range(kept, 1, PAGE, 2 * PAGE - 1);
    assert_int_equal(add(1, 4 * PAGE, 4 * PAGE, 0), 0);
    assert_int_equal(find(1, 4 * PAGE), 4 * PAGE);
    assert_int_equal(add(1, 5 * PAGE, 5 * PAGE, 0), -ENOSPC);
}

static void test_no_memory(void **state)
{
    (void)state;
    for (unsigned long n = 1; n <= 2; n++) {
        base_alloc_fail_at(n);
        assert_int_equal(kept_create(VIOMMU_CACHE_FAITHFUL, 0, 3, &kept), -ENOMEM);
    }
    create(VIOMMU_CACHE_FAITHFUL, 0, 3);
    base_alloc_fail_at(1);
    assert_int_equal(add(1, PAGE, PAGE, 0), -ENOSPC);
    base_alloc_fail_at(0);
    assert_int_equal(find(1, PAGE), 0);
    kept_destroy(NULL);
}

static void test_faithful_takes_no_chances(void **state)
{
    (void)state;
    create(VIOMMU_CACHE_FAITHFUL, 1, 3);
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(kept_chance(kept), KEPT_USE);
        assert_int_equal(kept_below(kept, 1000), 0);
    }
}

/* Asks for a page 64 times, keeping `fresh` at each miss; returns the answers, a bit each. */
static uint64_t ask(uint64_t seed, bool *old_after_new)
{
    uint64_t answers = 0;
    bool new_seen = false;

    create(VIOMMU_CACHE_HOSTILE, seed, 10);
    assert_int_equal(add(1, PAGE, 8 * PAGE, 0), 0);
    for (unsigned i = 0; i < 64; i++) {
        uint64_t found = find(1, PAGE);

        answers = answers << 1 | (found != 0);
        new_seen |= !found || found == 9 * PAGE;
        *old_after_new |= new_seen && found == 8 * PAGE;
        if (!found) {
            assert_int_equal(add(1, PAGE, 9 * PAGE, 0), 0);
        }
    }
    kept_destroy(kept);
    kept = NULL;
    return answers;
}

static void test_hostile_loses_and_repeats_itself(void **state)
{
    bool old_after_new = false;
    bool ignored = false;
    uint64_t first = ask(1, &old_after_new);

    (void)state;
    assert_int_not_equal(first, 0);
    assert_int_not_equal(first, UINT64_MAX);
    assert_int_equal(ask(1, &ignored), first);
    assert_int_not_equal(ask(2, &old_after_new), first);
    for (uint64_t seed = 3; seed < 10; seed++) {
        ask(seed, &old_after_new);
    }
    assert_true(old_after_new);
}

static void test_hostile_never_finds_what_was_dropped(void **state)
{
    (void)state;
    create(VIOMMU_CACHE_HOSTILE, 5, 100);
    for (unsigned i = 0; i < 200; i++) {
        assert_int_equal(add(1, PAGE, 8 * PAGE, 0), 0);
        find(1, PAGE);
        kept_drop_range(kept, 1, PAGE, 2 * PAGE - 1);
        for (unsigned j = 0; j < 4; j++) {
            assert_int_equal(find(1, PAGE), 0);
        }
    }
}

static void test_hostile_stays_within_its_quota(void **state)
{
    unsigned found = 0;

    (void)state;
    create(VIOMMU_CACHE_HOSTILE, 5, 64);
    for (uint64_t i = 0; i < 1000; i++) {
        assert_int_equal(add(1, i * PAGE, (i + 1) * PAGE, 0), 0);
        assert_true(kept->count <= 64);
    }
    for (uint64_t i = 0; i < 1000; i++) {
        found += find(1, i * PAGE) != 0;
    }
    assert_in_range(found, 20, 64);
}

static void test_hostile_numbers_stay_below(void **state)
{
    bool seen[6] = {false};

    (void)state;
    create(VIOMMU_CACHE_HOSTILE, 5, 64);
    for (unsigned i = 0; i < 200; i++) {
        unsigned n = kept_below(kept, 6);

        assert_true(n < 6);
        seen[n] = true;
    }
    for (unsigned n = 0; n < 6; n++) {
        assert_true(seen[n]);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_all_of_a_page_is_given_back, teardown),
        cmocka_unit_test_teardown(test_the_smallest_page_answers, teardown),
        cmocka_unit_test_teardown(test_what_is_there_is_not_replaced, teardown),
        cmocka_unit_test_teardown(test_drops_by_range, teardown),
        cmocka_unit_test_teardown(test_drops_by_a_large_range, teardown),
        cmocka_unit_test_teardown(test_drops_of_a_domain_and_of_all, teardown),
        cmocka_unit_test_teardown(test_a_walk_under_way_brings_nothing_back, teardown),
        cmocka_unit_test_teardown(test_a_full_cache_keeps_what_it_has_and_says_so, teardown),
        cmocka_unit_test_teardown(test_no_memory, teardown),
        cmocka_unit_test_teardown(test_faithful_takes_no_chances, teardown),
        cmocka_unit_test_teardown(test_hostile_loses_and_repeats_itself, teardown),
        cmocka_unit_test_teardown(test_hostile_never_finds_what_was_dropped, teardown),
        cmocka_unit_test_teardown(test_hostile_stays_within_its_quota, teardown),
        cmocka_unit_test_teardown(test_hostile_numbers_stay_below, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
