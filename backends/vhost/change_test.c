/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The vhost backend, its far side stepped by hand: how far an UPDATE reaches, what comes before one
 * that says something else than the last, and what a ring loses by an INVALIDATE.
 */
#include "vhost/test_far.h"

#include "vhost/private.h"

/* ---- how far ---- */

/* The longest run that so many looks to either side find; what follows it is another's. */
static void test_longest_run(void **state)
{
    const uint64_t pages = 3 * VHOST_LOOK_PAGES, asked = VHOST_LOOK_PAGES + 10;
    const struct vhost_iotlb_msg *update;
    struct bed bed;

    (void)state;
    bed_start(&bed);
    for (uint64_t i = 0; i < pages; i++) {
        bed_map(&bed, 0x200000 + i * 0x1000, 0x80000 + i * 0x1000, SPEC_R);
    }
    far_miss(&bed.far, 0x200000 + asked * 0x1000 + 0xfff, 1);
    bed_run(&bed);
    update = far_last(&bed.far, VHOST_IOTLB_UPDATE);
    assert_true(update->iova == 0x200000 + 10 * 0x1000);
    assert_true(update->size == (2 * VHOST_LOOK_PAGES + 1) * 0x1000);
    far_miss(&bed.far, 0x200000 + (pages - 1) * 0x1000, 1);
    bed_run(&bed);
    update = far_last(&bed.far, VHOST_IOTLB_UPDATE);
    assert_true(update->iova == 0x200000 + (asked + VHOST_LOOK_PAGES + 1) * 0x1000);
    assert_true(update->iova + update->size == 0x200000 + pages * 0x1000);
    bed_fini(&bed);
}

/* ---- what changes ---- */

/* The far side asks, as one does that forgot. What it is told is something new: so it was told to
   drop what it had before, the whole of it. */
static void told_anew(struct bed *bed, uint64_t iova, uint8_t perm, uint64_t first, uint64_t size)
{
    const struct vhost_iotlb_msg *dropped, *update;
    unsigned from = bed->far.log_count;

    bed_unit_forgets(bed); /* of what it has cached it answers what it answered */
    far_miss(&bed->far, iova, perm);
    bed_run(bed);
    assert_int_equal(far_count(&bed->far, from, VHOST_USER_IOTLB_MSG, VHOST_IOTLB_INVALIDATE), 1);
    assert_int_equal(far_count(&bed->far, from, VHOST_USER_IOTLB_MSG, VHOST_IOTLB_UPDATE), 1);
    dropped = far_last(&bed->far, VHOST_IOTLB_INVALIDATE);
    update = far_last(&bed->far, VHOST_IOTLB_UPDATE);
    assert_true((const void *)dropped < (const void *)update); /* in the order of the log */
    assert_true(dropped->iova == first && dropped->size == size);
    assert_true(update->iova <= iova && iova < update->iova + update->size);
}

static void test_permissions_change(void **state)
{
    static const uint8_t perms[] = {3, 1, 2, 3, 2, 1, 3};
    struct bed bed;

    (void)state;
    bed_start(&bed);
    bed.far.exact = true;
    bed_map(&bed, 0x200000, 0x50000, perms[0]);
    bed_map(&bed, 0x201000, 0x70000, SPEC_R | SPEC_W);
    far_miss(&bed.far, 0x200000, perms[0]);
    far_miss(&bed.far, 0x201000, 3);
    bed_run(&bed);
    for (unsigned i = 1; i < sizeof(perms); i++) {
        uint8_t other = perms[i] ^ 3;

        bed_map(&bed, 0x200000, 0x50000, perms[i]);
        told_anew(&bed, 0x200010, perms[i], 0x200000, 0x1000);
        assert_non_null(far_find(&bed.far, 0x200000, perms[i]));
        assert_true(!other || !far_find(&bed.far, 0x200000, other));
        assert_int_equal(far_last(&bed.far, VHOST_IOTLB_UPDATE)->perm, perms[i]);
        assert_non_null(far_find(&bed.far, 0x201000, 3));
    }
    bed_fini(&bed);
}

static void test_target_changes(void **state)
{
    const struct far_entry *entry;
    struct bed bed;
    uint64_t left;

    (void)state;
    bed_start(&bed);
    for (uint64_t i = 0; i < 3; i++) {
        bed_map(&bed, 0x200000 + i * 0x1000, 0x50000 + i * 0x1000, SPEC_R);
    }
    far_miss(&bed.far, 0x200000, 1);
    bed_run(&bed);
    bed_map(&bed, 0x201000, 0x60000, SPEC_R);
    told_anew(&bed, 0x201004, 1, 0x200000, 0x3000);
    entry = far_find(&bed.far, 0x201000, 1);
    assert_true(entry->iova == 0x201000 && entry->size == 0x1000);
    assert_int_equal(far_offset(&bed.far, entry->uaddr, &left), 0x60000);
    bed_fini(&bed);
}

/* The same by a larger page: from then on a part of it invalidates the whole. */
static void test_page_size_changes(void **state)
{
    const struct vhost_iotlb_msg *message;
    struct bed bed;

    (void)state;
    bed_start(&bed);
    for (uint64_t i = 0; i < 3; i++) {
        bed_map(&bed, 0x400000 + i * 0x1000, 0x200000 + i * 0x1000, SPEC_R | SPEC_W);
    }
    far_miss(&bed.far, 0x400000, 3);
    bed_run(&bed);
    bed_map_large(&bed, 0x400000, 0x200000);
    told_anew(&bed, 0x401000, 3, 0x400000, 0x3000);
    bed_flush_begin(&bed, 0x5ff000, 0);
    bed_run(&bed);
    assert_true(bed_flushed(&bed));
    message = far_last(&bed.far, VHOST_IOTLB_INVALIDATE);
    assert_true(message->iova == 0x400000 && message->size == 0x200000);
    assert_null(far_find(&bed.far, 0x400000, 1));
    bed_fini(&bed);
}

/* A run of a large page and a small one beside it: of the large one a part invalidates the whole,
   whichever was asked for. */
static void test_large_page_inside_of_a_run(void **state)
{
    (void)state;
    for (unsigned behind = 0; behind < 2; behind++) {
        const uint64_t large = 0x400000, asked = behind ? large + 0x200000 : large - 0x1000;
        const uint64_t gpa = 0x200000 * (1 - behind); /* the small one: before it, or at its end */
        const struct vhost_iotlb_msg *message;
        struct bed bed;

        bed_start(&bed);
        bed_map_large(&bed, large, gpa);
        bed_map(&bed, asked, behind ? 0x200000 : gpa - 0x1000, SPEC_R | SPEC_W);
        far_miss(&bed.far, asked, 3);
        bed_run(&bed);
        message = far_last(&bed.far, VHOST_IOTLB_UPDATE);
        assert_true(message->iova == (behind ? large : asked) && message->size == 0x201000);
        bed_flush_begin(&bed, behind ? large : large + 0x1ff000, 0);
        bed_run(&bed);
        assert_true(bed_flushed(&bed));
        message = far_last(&bed.far, VHOST_IOTLB_INVALIDATE);
        assert_true(message->iova <= large);
        assert_true(message->iova + message->size >= large + 0x200000);
        bed_fini(&bed);
    }
}

/* ---- rings ---- */

static void assert_ring_is_told(struct bed *bed, uint64_t iova)
{
    for (unsigned i = 0; i < 3; i++) {
        assert_non_null(far_find(&bed->far, iova + i * 0x1000, 3));
    }
}

/* Each page of each area, also one that has its last bytes alone, and no other. */
static void test_ring_loses_a_part(void **state)
{
    struct viommu_vhost_ring ring = {.size = 256,
                                     .descriptors = 0x300000,
                                     .available = 0x301dfc, /* its last two bytes are in 0x302000 */
                                     .used = 0x303800,      /* its last six in 0x304000 */
                                     .kick = -1,
                                     .call = -1};
    struct bed bed;

    (void)state;
    bed_start(&bed);
    bed.far.exact = true;
    for (uint64_t i = 0; i < 6; i++) {
        bed_map(&bed, 0x300000 + i * 0x1000, 0x80000 + i * 0x2000, SPEC_R | SPEC_W);
    }
    assert_int_equal(viommu_vhost_ring_start(bed.vhost, 1, &ring), 0);
    bed_run(&bed);
    for (uint64_t page = 0; page < 5; page++) {
        uint64_t at = 0x300000 + page * 0x1000;
        struct viommu_vhost_statistics before;

        assert_non_null(far_find(&bed.far, at, 3));
        bed_flush_begin(&bed, at, 0);
        bed_run(&bed);
        assert_true(bed_flushed(&bed));
        assert_non_null(far_find(&bed.far, at, 3));
        /* What is beside a ring is no part of it. */
        far_miss(&bed.far, 0x305000, 3);
        bed_run(&bed);
        before = bed_statistics(&bed);
        bed_flush_begin(&bed, 0x305000, 0);
        bed_run(&bed);
        assert_true(bed_flushed(&bed));
        assert_int_equal(bed_statistics(&bed).updates, before.updates);
    }
    bed_fini(&bed);
}

/* A ring in the midst of something larger, or at its beginning, which is dropped whole: where one
   begins another is ignored. */
static void ring_inside_of_an_entry(uint64_t begin)
{
    for (uint64_t hit = begin; hit < begin + 0x8000; hit += 0x1000) {
        struct viommu_vhost_ring ring = {.size = 256,
                                         .descriptors = 0x200000,
                                         .available = 0x201000,
                                         .used = 0x202000,
                                         .kick = -1,
                                         .call = -1};
        struct bed bed;

        bed_start(&bed);
        for (uint64_t i = 0; i < 8; i++) {
            bed_map(&bed, begin + i * 0x1000, 0x80000 + i * 0x1000, 3);
        }
        far_miss(&bed.far, 0x200000, 3);
        bed_run(&bed);
        assert_true(far_find(&bed.far, 0x200000, 3)->size == 0x8000);
        assert_int_equal(viommu_vhost_ring_start(bed.vhost, 1, &ring), 0);
        bed_run(&bed);
        bed_flush_begin(&bed, hit, 0);
        bed_run(&bed);
        assert_true(bed_flushed(&bed));
        assert_ring_is_told(&bed, 0x200000);
        assert_ring_is_told(&bed, 0x100000);
        bed_fini(&bed);
    }
}

static void test_ring_inside_of_an_entry(void **state)
{
    (void)state;
    ring_inside_of_an_entry(0x1fe000);
    ring_inside_of_an_entry(0x200000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_longest_run),
        cmocka_unit_test(test_permissions_change),
        cmocka_unit_test(test_target_changes),
        cmocka_unit_test(test_page_size_changes),
        cmocka_unit_test(test_large_page_inside_of_a_run),
        cmocka_unit_test(test_ring_loses_a_part),
        cmocka_unit_test(test_ring_inside_of_an_entry),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
