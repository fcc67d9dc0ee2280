/* SPDX-License-Identifier: BSD-2-Clause */
/* Slots and the reverse index, against plain arrays. */
#include "pv/index.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/alloc.h"

enum {
    FRAMES = 1 << 13,
    WIDE = 40, /* bits of a device frame */
};

static uint64_t next(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

/* A plain tree: which slot covers a frame. */
static void test_tree(void **state)
{
    static struct pv_slot *model[FRAMES];
    uint64_t seed = 4711;
    uint64_t tables = 0;
    struct pv_tree tree;

    (void)state;
    pv_tree_init(&tree, NULL, FRAMES - 1, &tables, 12);
    for (unsigned i = 0; i < 60000; i++) {
        uint64_t at = next(&seed) % FRAMES;
        unsigned order = next(&seed) % 50 == 0 ? 9 : 0;
        uint64_t expected = at;
        uint64_t found;
        struct pv_slot *slot;

        at = i % 5000 < 2500 ? at % 1200 : at;
        at &= ~((UINT64_C(1) << order) - 1);
        if (next(&seed) % 3 && i % 2000 < 1500) {
            bool taken = false;
            int error;

            for (uint64_t j = at; j < at + (1u << order); j++) {
                taken |= model[j] != NULL;
            }
            base_alloc_fail_at(i % 7 == 0 ? 1 + i % 3 : 0);
            error = pv_tree_claim(&tree, at, order, &slot);
            base_alloc_fail_at(0);
            assert_true(taken ? error == -EEXIST
                              : error == 0 || error == -ENOSPC || error == -ENOMEM);
            for (uint64_t j = at; !error && j < at + (1u << order); j++) {
                model[j] = slot;
            }
        } else if (model[at]) {
            slot = model[at];
            for (uint64_t j = slot->device_frame, last = pv_slot_last(slot); j <= last; j++) {
                model[j] = NULL;
            }
            pv_tree_remove(&tree, slot);
        }
        assert_ptr_equal(pv_tree_find(&tree, at), model[at]);
        for (expected = at; expected < FRAMES && !model[expected]; expected++) {
        }
        assert_ptr_equal(pv_tree_next(&tree, at), expected < FRAMES ? model[expected] : NULL);
        for (expected = at; expected < FRAMES && model[expected]; expected++) {
        }
        assert_int_equal(pv_tree_gap(&tree, at, FRAMES - 1, &found), expected < FRAMES);
        assert_true(expected == FRAMES || found == expected);
        if (i % 16 == 0) {
            assert_null(pv_tree_check(&tree, NULL, NULL));
            assert_true(tables <= 12);
        }
    }
    for (struct pv_slot *slot; (slot = pv_tree_next(&tree, 0));) {
        pv_tree_remove(&tree, slot);
    }
    pv_tree_fini(&tree);
    assert_int_equal(tables, 0);
}

/* Far apart: few slots in a large space, and its ends. */
static void test_sparse(void **state)
{
    const uint64_t last = (UINT64_C(1) << WIDE) - 1;
    struct pv_slot *slots[64];
    uint64_t tables = 0;
    struct pv_tree tree;
    uint64_t found;

    (void)state;
    pv_tree_init(&tree, NULL, last, &tables, 1000);
    assert_null(pv_tree_next(&tree, 0));
    assert_true(pv_tree_gap(&tree, last, last, &found));
    for (unsigned i = 0; i < 64; i++) {
        uint64_t at = i == 63 ? last : (uint64_t)i << (WIDE - 6);

        assert_int_equal(pv_tree_claim(&tree, at, 0, &slots[i]), 0);
    }
    assert_false(pv_tree_gap(&tree, last, last, &found));
    assert_null(pv_tree_find(&tree, last + 1));
    assert_null(pv_tree_next(&tree, last + 1));
    for (unsigned i = 0; i < 62; i++) {
        assert_ptr_equal(pv_tree_next(&tree, slots[i]->device_frame + 1), slots[i + 1]);
    }
    assert_int_equal(pv_tree_claim(&tree, 1 << 18, 18, &slots[0]), 0);
    assert_int_equal(pv_tree_claim(&tree, (1 << 18) + 5, 0, &slots[1]), -EEXIST);
    assert_ptr_equal(pv_tree_find(&tree, (1 << 19) - 1), slots[0]);
    assert_null(pv_tree_check(&tree, NULL, NULL));
    for (struct pv_slot *slot; (slot = pv_tree_next(&tree, 0));) {
        pv_tree_remove(&tree, slot);
    }
    pv_tree_fini(&tree);
    assert_int_equal(tables, 0);
}

static void test_index(void **state)
{
    enum { SLOTS = 3000 };
    struct pv_slot *slots = calloc(SLOTS, sizeof(*slots));
    struct pv_index index;
    struct pv_walk walk;
    uint64_t seed = 12345;

    (void)state;
    pv_index_init(&index, 1);
    for (unsigned i = 0; i < 40000; i++) {
        struct pv_slot *slot = &slots[next(&seed) % SLOTS];

        if (slot->state) {
            pv_index_remove(&index, slot);
            slot->state = PV_SLOT_FREE;
        } else {
            slot->order = next(&seed) % 40 == 0 ? 9 : next(&seed) % 40 == 0 ? 18 : 0;
            slot->frame = next(&seed) % (i % 8000 < 4000 ? 500 : 1 << 20);
            slot->frame &= ~((UINT64_C(1) << slot->order) - 1);
            base_alloc_fail_at(i % 3 == 0);
            slot->state = pv_index_add(&index, slot) ? PV_SLOT_FREE : PV_SLOT_LIVE;
            base_alloc_fail_at(0);
        }
        if (i % 500 == 0) {
            uint64_t frame = next(&seed) % 500;
            unsigned expected = 0;
            unsigned found = 0;

            assert_null(pv_index_check(&index, 0));
            for (unsigned j = 0; j < SLOTS; j++) {
                expected += slots[j].state && frame >= slots[j].frame &&
                            frame < slots[j].frame + (UINT64_C(1) << slots[j].order);
            }
            pv_walk_begin(&index, &walk, frame);
            while (pv_walk_next(&index, &walk)) {
                found++;
            }
            pv_walk_end(&index, &walk);
            assert_int_equal(found, expected);
            assert_int_equal(pv_index_has(&index, frame), expected > 0);
        }
    }
    pv_walk_all_begin(&index, &walk);
    for (struct pv_slot *slot; (slot = pv_walk_all_next(&index, &walk));) {
        pv_index_remove(&index, slot);
    }
    pv_walk_end(&index, &walk);
    assert_int_equal(index.count, 0);
    pv_index_fini(&index);
    free(slots);
}

/* One more slot of a page that a tree's slot maps, or not any more: it is in a group then. */
static void second_slot(struct pv_index *index, struct pv_slot *slot, uint64_t frame)
{
    if (slot->state) {
        pv_index_remove(index, slot);
        slot->state = PV_SLOT_FREE;
    } else {
        *slot = (struct pv_slot){.frame = frame, .state = PV_SLOT_LIVE};
        assert_int_equal(pv_index_add(index, slot), 0);
    }
}

/* Slots of a tree, in an index, claimed and removed side by side: as many as can be. */
static void test_runs(void **state)
{
    enum { SHIFT = 3 }; /* of frames against device frames: blocks and tables end elsewhere */
    static bool model[FRAMES];
    struct pv_slot second = {.state = PV_SLOT_FREE};
    uint64_t seed = 815;
    uint64_t tables = 0;
    struct pv_tree tree;
    struct pv_index index;
    struct pv_slot *slots;

    (void)state;
    pv_index_init(&index, 1);
    pv_tree_init(&tree, NULL, FRAMES - 1, &tables, 100);
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t at = next(&seed) % (i % 4000 < 2000 ? 1024 : FRAMES);
        unsigned most = 1 + (unsigned)(next(&seed) % (i % 1000 < 500 ? 20 : 600));
        unsigned count = pv_tree_used_run(&tree, at, most, &slots);
        unsigned expected = 0;

        while (expected < most && (at + expected) / 512 == at / 512 && model[at + expected]) {
            expected++;
        }
        assert_int_equal(count, expected);
        if (count && i % 50 == 0) {
            second_slot(&index, &second, second.state ? second.frame : slots->frame);
        }
        for (unsigned j = 0; j < count; j++) {
            if (slots[j].at) {
                count = j; /* it is not alone */
            }
        }
        if (count) {
            pv_index_prefetch(&index, slots->frame, count);
            pv_index_remove_run(&index, slots, count);
            pv_tree_remove_run(&tree, slots, count);
            memset(&model[at], 0, count);
        } else if (!expected && next(&seed) % 4) {
            count = most;
            assert_int_equal(pv_tree_claim_run(&tree, at, &count, &slots), 0);
            for (unsigned j = 0; j < count; j++) {
                slots[j] = (struct pv_slot){
                    .device_frame = at + j, .frame = at + j + SHIFT, .state = PV_SLOT_LIVE};
                assert_int_equal(pv_index_add(&index, &slots[j]), 0);
                model[at + j] = true;
            }
        }
        if (i % 16 == 0) {
            assert_null(pv_tree_check(&tree, NULL, NULL));
            assert_null(pv_index_check(&index, 0));
            assert_int_equal(index.count, tree.slots + (second.state != PV_SLOT_FREE));
        }
    }
    for (struct pv_slot *slot; (slot = pv_tree_next(&tree, 0));) {
        pv_index_remove(&index, slot);
        pv_tree_remove(&tree, slot);
    }
    if (second.state) {
        pv_index_remove(&index, &second);
    }
    assert_int_equal(index.count, 0);
    pv_index_fini(&index);
    pv_tree_fini(&tree);
    assert_int_equal(tables, 0);
}

/* A table that was full is not, after a run. */
static void test_run_of_a_full_table(void **state)
{
    uint64_t tables = 0;
    struct pv_tree tree;
    struct pv_slot *slots;
    unsigned count = 512;
    uint64_t gap;

    (void)state;
    pv_tree_init(&tree, NULL, FRAMES - 1, &tables, 100);
    assert_int_equal(pv_tree_claim_run(&tree, 0, &count, &slots), 0);
    assert_int_equal(count, 512);
    for (unsigned i = 0; i < count; i++) {
        slots[i] = (struct pv_slot){.device_frame = i, .state = PV_SLOT_LIVE};
    }
    assert_null(pv_tree_check(&tree, NULL, NULL));
    pv_tree_remove_run(&tree, &slots[100], 200);
    assert_null(pv_tree_check(&tree, NULL, NULL));
    assert_true(pv_tree_gap(&tree, 0, FRAMES - 1, &gap));
    assert_int_equal(gap, 100);
    pv_tree_remove_run(&tree, slots, 100);
    pv_tree_remove_run(&tree, &slots[300], 212);
    pv_tree_fini(&tree);
    assert_int_equal(tables, 0);
}

/* Memory of an index that was large goes with the last run, too. */
static void test_last_run(void **state)
{
    struct pv_slot *slots = calloc(FRAMES, sizeof(*slots));
    struct pv_index index;

    (void)state;
    assert_non_null(slots);
    pv_index_init(&index, 1);
    for (unsigned i = 0; i < FRAMES; i++) {
        slots[i] = (struct pv_slot){.frame = i, .state = PV_SLOT_LIVE};
        assert_int_equal(pv_index_add(&index, &slots[i]), 0);
    }
    assert_true(index.chains > 512);
    pv_index_remove_run(&index, slots, FRAMES - 8);
    assert_int_equal(index.count, 8);
    assert_null(pv_index_check(&index, 0));
    pv_index_remove_run(&index, &slots[FRAMES - 8], 8);
    assert_int_equal(index.count, 0);
    assert_int_equal(index.chains, 0);
    pv_index_fini(&index);
    free(slots);
}

/* Tables that become full, and are not any more, on every level. */
static void test_full(void **state)
{
    uint64_t tables = 0;
    struct pv_tree tree;
    struct pv_slot *slot;
    uint64_t found;

    (void)state;
    pv_tree_init(&tree, NULL, (UINT64_C(1) << 19) - 1, &tables, 1000);
    for (uint64_t at = 0; at < 512; at++) {
        assert_int_equal(pv_tree_claim(&tree, at, 0, &slot), 0);
    }
    for (uint64_t at = 512; at < UINT64_C(1) << 18; at += 512) {
        assert_int_equal(pv_tree_claim(&tree, at, 9, &slot), 0);
    }
    assert_null(pv_tree_check(&tree, NULL, NULL));
    assert_false(pv_tree_gap(&tree, 0, (UINT64_C(1) << 18) - 1, &found));
    /* One page of 512 in the first table: it, and those above, have a gap again. */
    pv_tree_remove(&tree, pv_tree_find(&tree, 77));
    assert_null(pv_tree_check(&tree, NULL, NULL));
    assert_true(pv_tree_gap(&tree, 0, (UINT64_C(1) << 18) - 1, &found));
    assert_int_equal(found, 77);
    assert_int_equal(pv_tree_claim(&tree, 77, 0, &slot), 0);
    assert_null(pv_tree_check(&tree, NULL, NULL));
    assert_false(pv_tree_gap(&tree, 0, (UINT64_C(1) << 18) - 1, &found));
    while ((slot = pv_tree_next(&tree, 0))) {
        pv_tree_remove(&tree, slot);
    }
    pv_tree_fini(&tree);
    assert_int_equal(tables, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tree),
        cmocka_unit_test(test_sparse),
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_index),
        cmocka_unit_test(test_runs),
        cmocka_unit_test(test_last_run),
        cmocka_unit_test(test_run_of_a_full_table),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
