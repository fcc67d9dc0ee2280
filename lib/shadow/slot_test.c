/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of a block's forms: that each is made where it is the smallest, and says what it was made
 * of.
 */
#include "shadow/test_model.h"

#include "viommu/types.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define PAGE UINT64_C(4096)
#define SIZE_1G (512 * 512 * PAGE)
#define NODE sizeof(struct shadow_node)
#define RW (VIOMMU_READ | VIOMMU_WRITE)
#define START SHADOW_START

static struct shadow_slot build(const uint64_t *values)
{
    struct shadow_slot slot;
    uint64_t back[SHADOW_PAGES];

    assert_int_equal(shadow_slot_build(values, true, &slot), 0);
    assert_int_equal(slot.whole, slot.kind != SHADOW_EMPTY);
    shadow_slot_expand(&slot, back);
    assert_memory_equal(back, values, sizeof(back));
    return slot;
}

/* Builds a slot and sees that it is of a kind and owns so many bytes. */
static void assert_built(const uint64_t *values, enum shadow_kind kind, size_t bytes)
{
    struct shadow_slot slot = build(values);

    assert_int_equal(slot.kind, kind);
    assert_int_equal(shadow_slot_bytes(&slot), bytes);
    shadow_slot_free(&slot);
    assert_int_equal(slot.kind, SHADOW_EMPTY);
}

static void test_forms(void **state)
{
    static const size_t bytes[] = {0, 0, 52 * 8, 4096};
    uint64_t values[SHADOW_PAGES];

    (void)state;
    for (unsigned form = SHADOW_EMPTY; form <= SHADOW_FULL; form++) {
        model_form(values, form, 0);
        assert_built(values, form, bytes[form]);
    }
}

static void test_runs(void **state)
{
    uint64_t values[SHADOW_PAGES];

    (void)state;
    for (unsigned first = 0; first < SHADOW_PAGES; first += 73) {
        for (unsigned last = first; last < SHADOW_PAGES; last += last < 500 ? 11 : 1) {
            struct shadow_slot slot;

            memset(values, 0, sizeof(values));
            model_shape(values, MODEL_LINEAR, first, last - first + 1, 7 * PAGE, VIOMMU_WRITE);
            slot = build(values);
            assert_int_equal(slot.kind, SHADOW_RUN);
            assert_int_equal(slot.first, first);
            assert_int_equal(slot.last, last);
            assert_int_equal(slot.value, 7 * PAGE | VIOMMU_WRITE | START);
        }
    }
}

/* One page less than linear in some way. */
static void test_what_is_no_run(void **state)
{
    uint64_t values[SHADOW_PAGES];
    static const uint64_t odd[] = {0, SHADOW_BAD, 9 * PAGE | VIOMMU_READ | START,
                                   8 * PAGE | RW | START, 0x1000 | RW | START};

    (void)state;
    for (unsigned i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
        for (unsigned count = 18; count <= SHADOW_PAGES; count += SHADOW_PAGES - 18) {
            memset(values, 0, sizeof(values));
            model_shape(values, MODEL_LINEAR, 0, count, PAGE, RW);
            values[8] = odd[i];
            model_start(values);
            assert_built(values, count == 18 ? SHADOW_SPARSE : SHADOW_FULL,
                         count == 18 ? (count - !odd[i]) * 8 : 4096);
        }
    }
    /* Linear, but two extents. */
    memset(values, 0, sizeof(values));
    model_shape(values, MODEL_LINEAR, 0, 10, PAGE, RW);
    values[5] |= START;
    assert_built(values, SHADOW_SPARSE, 80);
}

static void test_sparse_limit(void **state)
{
    uint64_t values[SHADOW_PAGES] = {0};

    (void)state;
    model_shape(values, MODEL_SCATTERED, 385, 127, SIZE_1G, RW);
    assert_built(values, SHADOW_SPARSE, 512);
    values[0] = SHADOW_BAD;
    assert_built(values, SHADOW_FULL, 4096);
    values[511] = 0;
    assert_built(values, SHADOW_SPARSE, 512);
    values[511] = PAGE | RW | START;
    assert_built(values, SHADOW_FULL, 4096);
}

static void test_build_fails(void **state)
{
    uint64_t values[SHADOW_PAGES];
    struct shadow_slot slot;

    (void)state;
    for (unsigned form = SHADOW_EMPTY; form <= SHADOW_FULL; form++) {
        model_form(values, form, 0);
        base_alloc_fail_at(1);
        assert_int_equal(shadow_slot_build(values, true, &slot),
                         form >= SHADOW_SPARSE ? -ENOMEM : 0);
        base_alloc_fail_at(0);
        assert_int_equal(slot.kind, form >= SHADOW_SPARSE ? SHADOW_EMPTY : form);
    }
}

/* A slot that owns memory is freed with what it owns (the sanitizers see to it). */
static void test_free_a_node_in_no_map(void **state)
{
    struct shadow_slot run = {
        .value = SIZE_1G | RW | START,
        .kind = SHADOW_RUN,
        .last = SHADOW_PAGES - 1,
    };
    struct shadow_slot slot;
    uint64_t values[SHADOW_PAGES];

    (void)state;
    assert_int_equal(shadow_slot_break(&run, &slot), 0);
    model_form(values, SHADOW_SPARSE, 0);
    slot.node->slots[4] = build(values);
    model_form(values, SHADOW_FULL, 0);
    slot.node->slots[5] = build(values);
    assert_int_equal(shadow_slot_bytes(&slot), NODE + 52 * 8 + 4096);
    shadow_slot_free(&slot);
    assert_int_equal(shadow_slot_bytes(&slot), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_runs),
        cmocka_unit_test(test_what_is_no_run),
        cmocka_unit_test(test_sparse_limit),
        cmocka_unit_test(test_build_fails),
        cmocka_unit_test(test_free_a_node_in_no_map),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
