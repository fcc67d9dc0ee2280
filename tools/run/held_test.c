/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of what a mirror holds, and of how calls are judged; see held.h. */
#include "held.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const struct viommu_range allowed[] = {{0, 0xfffff}, {0x200000, 0x2fffff}};

static const struct viommu_subscription any_range = {
    .kinds = VIOMMU_CHANGE_MAP | VIOMMU_CHANGE_UNMAP,
    .form = VIOMMU_FORM_RANGE,
    .role = VIOMMU_ROLE_MIRROR,
};

static struct viommu_change map(uint64_t first, uint64_t last, uint64_t gpa)
{
    return (struct viommu_change){.kind = VIOMMU_CHANGE_MAP, .first = first, .last = last,
                                  .gpa = gpa, .perm = VIOMMU_READ | VIOMMU_WRITE};
}

static struct viommu_change unmap(uint64_t first, uint64_t last, uint64_t gpa)
{
    return (struct viommu_change){.kind = VIOMMU_CHANGE_UNMAP, .first = first, .last = last,
                                  .gpa = gpa};
}

/* Judges; applies what is right. */
static const char *tell(struct held *held, const struct viommu_subscription *terms,
                        struct viommu_change change)
{
    const char *wrong = held_judge(held, terms, &change);

    if (!wrong) {
        held_apply(held, &change);
    }
    return wrong;
}

static void assert_wrong(const char *wrong, const char *word)
{
    assert_non_null(wrong);
    assert_non_null(strstr(wrong, word));
}

static void test_map_and_unmap(void **state)
{
    struct held held = {0};

    (void)state;
    assert_null(tell(&held, &any_range, map(0x5000, 0x7fff, 0x1000)));
    assert_null(tell(&held, &any_range, map(0x1000, 0x1fff, 0x9000)));
    assert_null(tell(&held, &any_range, map(0x8000, 0x8fff, 0x9000)));
    assert_int_equal(held.count, 3);
    assert_null(held_find(&held, 0x4fff));
    assert_int_equal(held_find(&held, 0x5000)->gpa, 0x1000);
    assert_int_equal(held_find(&held, 0x7fff)->first, 0x5000);
    assert_int_equal(held_from(&held, 0x8000), 2);
    assert_wrong(tell(&held, &any_range, map(0x7000, 0x8fff, 0)), "over something");
    assert_wrong(tell(&held, &any_range, map(0x0, 0x1fff, 0)), "over something");
    assert_null(tell(&held, &any_range, unmap(0x5000, 0x7fff, 0x1000)));
    assert_null(held_find(&held, 0x5000));
    assert_int_equal(held.count, 2);
    held_drop(&held);
    assert_int_equal(held.count, 0);
}

/* Changes here and there, against what is there by rights. */
static void test_changes_everywhere(void **state)
{
    struct held held = {0};
    bool mapped[256] = {false};
    uint64_t random = 1;

    (void)state;
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t page;

        random = random * 6364136223846793005 + 1442695040888963407;
        page = random >> 56;
        if (mapped[page]) {
            assert_null(tell(&held, &any_range,
                             unmap(page << 12, page << 12 | 0xfff, page << 13)));
        } else {
            assert_null(tell(&held, &any_range, map(page << 12, page << 12 | 0xfff, page << 13)));
        }
        mapped[page] = !mapped[page];
        page = random >> 40 & 255;
        assert_int_equal(held_find(&held, page << 12) != NULL, mapped[page]);
    }
    for (size_t i = 1; i < held.count; i++) {
        assert_true(held_at(&held, i - 1)->last < held_at(&held, i)->first);
    }
    held_drop(&held);
}

static void test_unmap_is_of_whole_mappings(void **state)
{
    struct viommu_subscription spans = any_range;
    struct held held = {0};

    (void)state;
    spans.unmap_spans = true;
    assert_wrong(tell(&held, &spans, unmap(0x1000, 0x1fff, 0)), "not mapped");
    tell(&held, &spans, map(0x1000, 0x2fff, 0x8000));
    tell(&held, &spans, map(0x3000, 0x3fff, 0x2000));
    tell(&held, &spans, map(0x5000, 0x5fff, 0x3000));
    assert_wrong(tell(&held, &spans, unmap(0x2000, 0x2fff, 0x9000)), "cuts");
    assert_wrong(tell(&held, &spans, unmap(0x1000, 0x1fff, 0x8000)), "cuts");
    assert_wrong(tell(&held, &spans, unmap(0x0, 0x2fff, 0x8000)), "begins where");
    assert_wrong(tell(&held, &spans, unmap(0x3000, 0x4fff, 0x2000)), "not mapped");
    assert_wrong(tell(&held, &spans, unmap(0x3000, 0x5fff, 0x2000)), "not mapped");
    assert_wrong(tell(&held, &spans, unmap(0x1000, 0x2fff, 0x9000)), "another target");
    assert_wrong(tell(&held, &any_range, unmap(0x1000, 0x3fff, 0)), "several");
    assert_null(tell(&held, &spans, unmap(0x1000, 0x3fff, 0)));
    assert_int_equal(held.count, 1);
    held_drop(&held);
}

static void test_terms(void **state)
{
    struct viommu_subscription terms = any_range;
    struct held held = {0};

    (void)state;
    terms.range = (struct viommu_range){0x10000, 0xffffffff};
    terms.allowed = allowed;
    terms.allowed_count = 2;
    terms.mappings_max = 1;
    assert_wrong(tell(&held, &terms, map(0x1000, 0x1fff, 0)), "outside the range");
    assert_wrong(tell(&held, &terms, map(0xff000, 0x100fff, 0)), "outside what is allowed");
    assert_wrong(tell(&held, &terms, map(0x100000, 0x1fffff, 0)), "outside what is allowed");
    assert_wrong(tell(&held, &any_range, map(0xfedff000, 0xfee00fff, 0)), "interrupt");
    assert_wrong(tell(&held, &any_range, map(0x800, 0x17ff, 0)), "whole pages");
    assert_null(tell(&held, &terms, map(0x200000, 0x2fffff, 0)));
    assert_wrong(tell(&held, &terms, map(0x10000, 0x10fff, 0)), "more mappings");
    held_drop(&held);
}

static void test_blocks(void **state)
{
    struct viommu_subscription terms = any_range;
    struct held held = {0};

    (void)state;
    terms.form = VIOMMU_FORM_POW2;
    assert_wrong(tell(&held, &terms, map(0x1000, 0x2fff, 0x1000)), "block");
    assert_wrong(tell(&held, &terms, map(0x2000, 0x3fff, 0x1000)), "block");
    assert_wrong(tell(&held, &terms, map(0x4000, 0x6fff, 0x4000)), "block");
    assert_null(tell(&held, &terms, map(0x2000, 0x3fff, 0x6000)));
    held_drop(&held);
}

static void test_replace_and_skip(void **state)
{
    struct viommu_subscription terms = any_range;
    struct viommu_change change = map(0x1000, 0x2fff, 0x8000);
    struct held held = {0};

    (void)state;
    tell(&held, &terms, change);
    change.kind = VIOMMU_CHANGE_REPLACE;
    change.gpa = 0x9000;
    assert_wrong(tell(&held, &terms, change), "not asked for");
    terms.kinds |= VIOMMU_CHANGE_REPLACE | VIOMMU_CHANGE_SKIPPED;
    assert_null(tell(&held, &terms, change));
    assert_int_equal(held_find(&held, 0x1000)->gpa, 0x9000);
    assert_wrong(tell(&held, &terms, change), "changes nothing");
    change.last = 0x1fff;
    assert_wrong(tell(&held, &terms, change), "exactly one");
    change.kind = VIOMMU_CHANGE_SKIPPED;
    assert_null(tell(&held, &terms, change));
    change.gpa = 0x8000;
    assert_wrong(tell(&held, &terms, change), "differently");
    change.perm = 0;
    assert_wrong(tell(&held, &terms, change), "absent");
    held_drop(&held);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_map_and_unmap),
        cmocka_unit_test(test_changes_everywhere),
        cmocka_unit_test(test_unmap_is_of_whole_mappings),
        cmocka_unit_test(test_terms),
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_replace_and_skip),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
