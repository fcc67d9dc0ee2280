/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the translation cache: pages do not answer for one another, replacement, tags, drops,
 * fills that are under way, torn entries, and ids that run out.
 */
#include "base/alloc.h"
#include "iotlb/iotlb.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define PAGE UINT64_C(4096)
#define SIZE_2M (512 * PAGE)
#define SIZE_1G (512 * SIZE_2M)
#define ENTRIES 1024u
#define TOP (UINT64_C(1) << 57)

static struct epoch epoch;
static struct iotlb iotlb;

static int setup(void **state)
{
    (void)state;
    return epoch_init(&epoch) || iotlb_init(&iotlb, &epoch, ENTRIES);
}

static int teardown(void **state)
{
    (void)state;
    iotlb_fini(&iotlb);
    epoch_fini(&epoch);
    return 0;
}

static struct iotlb_tag *tag_of(uint16_t domain, uint64_t root)
{
    struct iotlb_key key = {.root = root, .domain = domain, .levels = 4};
    struct iotlb_tag *tag = iotlb_tag_get(&iotlb, &key);

    assert_non_null(tag);
    return tag;
}

static uint64_t id_of(struct iotlb_tag *tag)
{
    return atomic_load(&tag->id);
}

/* Set in what look returns for a page that is cached. */
#define FOUND UINT64_C(4)

/* What look returns for a page that `fill` cached. */
static uint64_t frame_of(uint64_t gpa)
{
    return gpa | FOUND | VIOMMU_READ;
}

static uint64_t number_of(uint64_t id)
{
    return id >> iotlb_id_shift(&iotlb.table);
}

/* What is cached for an address: the frame, FOUND, and what it allows; or 0. */
static uint64_t look(const struct iotlb *from, uint64_t id, uint64_t iova)
{
    uint64_t frame;
    uint64_t probed = iotlb_probe(&from->table, id, iova, &frame);

    return id && !(probed & iotlb_wanted(0)) ? frame | FOUND | iotlb_perm(probed) : 0;
}

static void fill(struct iotlb_tag *tag, uint64_t iova, uint64_t gpa)
{
    iotlb_fill(&iotlb, tag, id_of(tag), iova, gpa, VIOMMU_READ, 0);
}

static uint64_t find(struct iotlb_tag *tag, uint64_t iova)
{
    return look(&iotlb, id_of(tag), iova);
}

static void test_sizes(void **state)
{
    (void)state;
    for (unsigned bits = 8; bits <= 20; bits += 4) {
        struct iotlb other;

        assert_int_equal(iotlb_init(&other, &epoch, 1u << bits), 0);
        assert_int_equal(other.mask, (1u << bits) - 1);
        assert_int_equal(look(&other, iotlb_id(&other.table, 1), 0), 0);
        iotlb_fini(&other);
    }
}

static void test_allocation_failures(void **state)
{
    struct iotlb_key key = {.domain = 1};
    struct iotlb other;

    (void)state;
    base_alloc_fail_at(1);
    assert_int_equal(iotlb_init(&other, &epoch, 256), -ENOMEM);
    iotlb_fini(&other);
    base_alloc_fail_at(1);
    assert_null(iotlb_tag_get(&iotlb, &key));
    assert_null(iotlb.tags);
    base_alloc_fail_at(0);
}

static void test_fill_and_find(void **state)
{
    struct iotlb_tag *tag = tag_of(1, 0x1000);

    (void)state;
    assert_int_equal(find(tag, 0x5000), 0);
    fill(tag, 0x5000, 0x9000);
    assert_int_equal(find(tag, 0x5000), frame_of(0x9000));
    assert_int_equal(find(tag, 0x5fff), frame_of(0x9000));
    assert_int_equal(find(tag, 0x4fff), 0);
    assert_int_equal(find(tag, 0x6000), 0);
    /* Filled again, the newer counts. */
    fill(tag, 0x5000, 0xa000);
    assert_int_equal(find(tag, 0x5000), frame_of(0xa000));
    iotlb_tag_put(&iotlb, tag);
}

/* An entry answers for what it allows, and says what that is. */
static void test_permissions(void **state)
{
    struct iotlb_tag *tag = tag_of(1, 0x1000);

    (void)state;
    for (uint32_t perm = 0; perm < 4; perm++) {
        uint64_t frame;
        uint64_t probed;

        iotlb_fill(&iotlb, tag, id_of(tag), 0x5123, 0x9fff, perm, 0);
        probed = iotlb_probe(&iotlb.table, id_of(tag), 0x5678, &frame);
        assert_int_equal(iotlb_perm(probed), perm);
        assert_int_equal(iotlb_gpa(frame, 0x5678), 0x9678);
        for (uint32_t wanted = 0; wanted < 4; wanted++) {
            assert_int_equal(!(probed & iotlb_wanted(wanted)), !(wanted & ~perm));
        }
    }
    iotlb_tag_put(&iotlb, tag);
}

/* It says what size of page it is a piece of, whatever that allows. */
static void test_levels(void **state)
{
    struct iotlb_tag *tag = tag_of(1, 0x1000);

    (void)state;
    for (unsigned level = 0; level < 4; level++) {
        for (uint32_t perm = 0; perm < 4; perm++) {
            uint64_t frame;
            uint64_t probed;

            iotlb_fill(&iotlb, tag, id_of(tag), 0x5000, 0x9000, perm, level);
            probed = iotlb_probe(&iotlb.table, id_of(tag), 0x5000, &frame);
            assert_int_equal(probed & iotlb_wanted(0), 0);
            assert_int_equal(iotlb_level(probed), level);
            assert_int_equal(iotlb_perm(probed), perm);
            assert_int_equal(frame, 0x9000);
        }
    }
    iotlb_tag_put(&iotlb, tag);
}

/* The highest number of an id leaves the marks alone, whatever the cache's size. */
static void test_highest_id(void **state)
{
    (void)state;
    for (unsigned bits = 8; bits <= 20; bits += 4) {
        struct iotlb other;
        uint64_t id;

        assert_int_equal(iotlb_init(&other, &epoch, 1u << bits), 0);
        id = iotlb_id(&other.table, other.id_last);
        assert_int_equal(iotlb_entry_key(&other.table, id, UINT64_MAX) >> IOTLB_LEVEL_SHIFT, 0);
        assert_int_equal(iotlb_id(&other.table, other.id_last + 1) >> IOTLB_LEVEL_SHIFT, 1);
        assert_int_equal(look(&other, id, 0), 0);
        iotlb_fini(&other);
    }
}

/* A page that differs from a cached one in any one bit, and one of another tag, is not it. */
static void test_no_page_answers_for_another(void **state)
{
    struct iotlb_tag *tags[2] = {tag_of(1, 0x1000), tag_of(2, 0x1000)};
    static const uint64_t pages[] = {0, 0x5000, 0x123456789000, TOP - PAGE};

    (void)state;
    for (unsigned i = 0; i < sizeof(pages) / sizeof(*pages); i++) {
        fill(tags[0], pages[i], 0x9000);
        for (unsigned bit = 12; bit < 64; bit++) {
            assert_int_equal(find(tags[0], pages[i] ^ UINT64_C(1) << bit), 0);
        }
        assert_int_equal(find(tags[1], pages[i]), 0);
        for (unsigned bit = 0; iotlb.id_last >> bit; bit++) {
            uint64_t number = number_of(id_of(tags[0])) ^ UINT64_C(1) << bit;

            assert_int_equal(look(&iotlb, iotlb_id(&iotlb.table, number), pages[i]), 0);
        }
        assert_int_equal(find(tags[0], pages[i]), frame_of(0x9000));
    }
    iotlb_tag_put(&iotlb, tags[0]);
    iotlb_tag_put(&iotlb, tags[1]);
}

/* Pages that follow one another fill the cache without pushing one another out. */
static void test_as_many_pages_as_slots(void **state)
{
    struct iotlb_tag *tag = tag_of(1, 0x1000);

    (void)state;
    for (uint64_t i = 0; i < ENTRIES; i++) {
        fill(tag, 0x40000000 + i * PAGE, i * PAGE);
    }
    for (uint64_t i = 0; i < ENTRIES; i++) {
        assert_int_equal(find(tag, 0x40000000 + i * PAGE), frame_of(i * PAGE));
    }
    iotlb_tag_put(&iotlb, tag);
}

/* With far more pages than slots every answer is right or none. */
static void test_replacement(void **state)
{
    struct iotlb_tag *tag = tag_of(1, 0x1000);
    unsigned hits = 0;

    (void)state;
    for (uint64_t i = 0; i < 20 * ENTRIES; i++) {
        fill(tag, i * 7 * PAGE, i * PAGE);
        assert_int_equal(find(tag, i * 7 * PAGE), frame_of(i * PAGE));
    }
    for (uint64_t i = 0; i < 20 * ENTRIES; i++) {
        uint64_t frame = find(tag, i * 7 * PAGE);

        assert_true(frame == 0 || frame == frame_of(i * PAGE));
        hits += frame != 0;
    }
    assert_true(hits > ENTRIES / 2 && hits <= ENTRIES);
    iotlb_tag_put(&iotlb, tag);
}

/* All 64 bits of an address count. */
static void test_every_bit_of_an_address(void **state)
{
    struct iotlb_tag *tag = tag_of(1, 0x1000);

    (void)state;
    fill(tag, 0, 0x9000);
    for (unsigned bit = 12; bit < 64; bit++) {
        uint64_t iova = UINT64_C(1) << bit;

        assert_int_equal(find(tag, iova), 0);
        assert_int_equal(find(tag, ~iova), 0);
        fill(tag, iova, 0xa000);
        assert_int_equal(find(tag, iova), frame_of(0xa000));
        assert_int_not_equal(find(tag, 0), frame_of(0xa000));
        fill(tag, 0, 0x9000);
    }
    iotlb_tag_put(&iotlb, tag);
}

/* ---- tags ------------------------------------------------------------------------------------ */

static void test_tags_are_shared(void **state)
{
    struct iotlb_tag *tag = tag_of(1, 0x1000);
    struct iotlb_key other = {.root = 0x1000, .domain = 1, .levels = 3};

    (void)state;
    assert_ptr_equal(tag_of(1, 0x1000), tag);
    assert_ptr_not_equal(tag_of(1, 0x2000), tag);
    assert_ptr_not_equal(tag_of(2, 0x1000), tag);
    assert_ptr_not_equal(iotlb_tag_get(&iotlb, &other), tag);
    /* It lives until the last user has put it. */
    fill(tag, 0x5000, 0x9000);
    iotlb_tag_put(&iotlb, tag);
    assert_int_equal(find(tag, 0x5000), frame_of(0x9000));
    assert_ptr_equal(tag_of(1, 0x1000), tag);
}

/* A tag that went and came again does not find what its forerunner had cached. */
static void test_tag_reborn(void **state)
{
    struct iotlb_tag *tag = tag_of(1, 0x1000);

    (void)state;
    fill(tag, 0x5000, 0x9000);
    iotlb_tag_put(&iotlb, tag);
    epoch_reap(&epoch);
    tag = tag_of(1, 0x1000);
    assert_int_equal(find(tag, 0x5000), 0);
    iotlb_tag_put(&iotlb, tag);
}

/* Someone in a section may still look at a tag that was put. */
static void test_tag_outlives_sections(void **state)
{
    struct iotlb_tag *tag = tag_of(1, 0x1000);
    uint64_t id = id_of(tag);

    (void)state;
    assert_true(epoch_enter(&epoch));
    iotlb_tag_put(&iotlb, tag);
    epoch_reap(&epoch);
    assert_int_equal(id_of(tag), id);
    epoch_leave(&epoch);
    epoch_reap(&epoch);
}

/* ---- drops ----------------------------------------------------------------------------------- */

static void test_drop_tag_domain_all(void **state)
{
    struct iotlb_tag *a = tag_of(1, 0x1000);
    struct iotlb_tag *b = tag_of(1, 0x2000);
    struct iotlb_tag *c = tag_of(2, 0x1000);
    struct iotlb_tag *tags[3] = {a, b, c};

    (void)state;
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 3; i++) {
            fill(tags[i], 0x5000 + i * PAGE, i * PAGE);
        }
        switch (round) {
        case 0:
            iotlb_drop_tag(&iotlb, a);
            break;
        case 1:
            iotlb_drop_domain(&iotlb, 1);
            break;
        case 2:
            iotlb_drop_all(&iotlb);
            break;
        }
        assert_int_equal(find(a, 0x5000), 0);
        assert_int_equal(find(b, 0x6000), round >= 1 ? 0 : frame_of(PAGE));
        assert_int_equal(find(c, 0x7000), round >= 2 ? 0 : frame_of(2 * PAGE));
    }
}

/* A fill under the id from before a drop is nobody's. */
static void test_fill_after_drop(void **state)
{
    struct iotlb_tag *tag = tag_of(1, 0x1000);
    uint64_t id = id_of(tag);

    (void)state;
    iotlb_drop_domain(&iotlb, 1);
    iotlb_fill(&iotlb, tag, id, 0x5000, 0x9000, VIOMMU_READ, 0);
    assert_int_equal(find(tag, 0x5000), 0);
    assert_int_not_equal(id_of(tag), id);
}

static void test_drop_range(void **state)
{
    struct iotlb_tag *tags[2] = {tag_of(1, 0x1000), tag_of(1, 0x2000)};
    struct iotlb_tag *other = tag_of(2, 0x1000);

    (void)state;
    fill(other, 0x20000, 0);
    for (unsigned t = 0; t < 2; t++) {
        for (uint64_t i = 0; i < 16; i++) {
            fill(tags[t], 0x10000 + i * PAGE, i * PAGE);
        }
    }
    /* Page by page: a fill under way may bring one back, so it is to be done again. */
    assert_true(iotlb_drop_range(&iotlb, 1, 0x14000, 0x17fff));
    for (unsigned t = 0; t < 2; t++) {
        for (uint64_t i = 0; i < 16; i++) {
            bool dropped = i >= 4 && i <= 7;

            assert_int_equal(find(tags[t], 0x10000 + i * PAGE), dropped ? 0 : frame_of(i * PAGE));
        }
    }
    assert_int_equal(find(other, 0x20000), frame_of(0));
    assert_false(iotlb_drop_range(&iotlb, 3, 0, UINT64_MAX)); /* a domain that nobody has */
}

/* Any byte of a page is the page. */
static void test_drop_part_of_a_page(void **state)
{
    struct iotlb_tag *tag = tag_of(1, 0x1000);

    (void)state;
    fill(tag, 0x5000, 0);
    fill(tag, 0x6000, 0);
    (void)iotlb_drop_range(&iotlb, 1, 0x5fff, 0x6000);
    assert_int_equal(find(tag, 0x5000), 0);
    assert_int_equal(find(tag, 0x6000), 0);
}

/* The first drop does not stop a fill that began before; the second, after the drain, does. */
static void test_late_fill(void **state)
{
    struct iotlb_tag *tag = tag_of(1, 0x1000);
    uint64_t id = id_of(tag);

    (void)state;
    if (iotlb_drop_range(&iotlb, 1, 0x5000, 0x5fff)) {
        iotlb_fill(&iotlb, tag, id, 0x5000, 0x9000, VIOMMU_READ, 0);
        (void)iotlb_drop_range(&iotlb, 1, 0x5000, 0x5fff);
    } else {
        iotlb_fill(&iotlb, tag, id, 0x5000, 0x9000, VIOMMU_READ, 0);
    }
    assert_int_equal(find(tag, 0x5000), 0);
}

/* Large ranges take a new id: then nothing needs to be done again. */
static void test_drop_large_range(void **state)
{
    static const struct viommu_range ranges[] = {
        {0, UINT64_MAX}, {0, SIZE_1G - 1}, {SIZE_1G, UINT64_MAX}, {0, TOP - 1}};

    (void)state;
    for (unsigned i = 0; i < sizeof(ranges) / sizeof(*ranges); i++) {
        struct iotlb_tag *tag = tag_of(1, 0x1000);
        uint64_t inside = ranges[i].first + 5 * PAGE;
        uint64_t id = id_of(tag);

        fill(tag, inside, 0x9000);
        assert_false(iotlb_drop_range(&iotlb, 1, ranges[i].first, ranges[i].last));
        assert_int_not_equal(id_of(tag), id);
        assert_int_equal(find(tag, inside), 0);
        iotlb_fill(&iotlb, tag, id, inside, 0x9000, VIOMMU_READ, 0);
        assert_int_equal(find(tag, inside), 0);
    }
}

/* One byte of a larger page: all of its pieces go. */
static void try_super_page(unsigned level, uint64_t size)
{
    struct iotlb_tag *tag = tag_of((uint16_t)level, 0x1000);
    static const uint64_t touched[] = {0, 0x123456, SIZE_2M - 1};

    for (unsigned i = 0; i < 3; i++) {
        for (uint64_t at = 0; at < size; at += size / 64) {
            iotlb_fill(&iotlb, tag, id_of(tag), SIZE_1G + at, at, VIOMMU_READ, level);
        }
        assert_int_not_equal(find(tag, SIZE_1G), 0);
        (void)iotlb_drop_range(&iotlb, (uint16_t)level, SIZE_1G + touched[i], SIZE_1G + touched[i]);
        for (uint64_t at = 0; at < size; at += size / 64) {
            assert_int_equal(find(tag, SIZE_1G + at), 0);
        }
    }
}

static void test_super_pages(void **state)
{
    (void)state;
    try_super_page(1, SIZE_2M);
    try_super_page(2, SIZE_1G);
}

/* After a drop of the tag, 4 KiB pages alone are dropped one by one again. */
static void test_super_pages_are_forgotten(void **state)
{
    struct iotlb_tag *tag = tag_of(1, 0x1000);

    (void)state;
    iotlb_fill(&iotlb, tag, id_of(tag), SIZE_1G, 0, VIOMMU_READ, 2);
    iotlb_drop_tag(&iotlb, tag);
    fill(tag, 0x5000, 0x9000);
    fill(tag, 0x6000, 0xa000);
    assert_true(iotlb_drop_range(&iotlb, 1, 0x5000, 0x5fff));
    assert_int_equal(find(tag, 0x5000), 0);
    assert_int_equal(find(tag, 0x6000), frame_of(0xa000));
}

/* ---- torn entries ---------------------------------------------------------------------------- */

/* Whether any key near the two entries' own finds something in the slot. */
static bool anything_found(struct iotlb_tag *const *tags, const uint64_t *iovas)
{
    for (unsigned t = 0; t < 2; t++) {
        for (int delta = -4; delta <= 4; delta++) {
            for (unsigned i = 0; i < 2; i++) {
                uint64_t iova = iovas[i] + (uint64_t)(delta * (int64_t)(ENTRIES * PAGE));
                uint64_t number = number_of(id_of(tags[t])) + (uint64_t)delta;

                if (look(&iotlb, iotlb_id(&iotlb.table, number), iovas[i]) ||
                    look(&iotlb, id_of(tags[t]), iova)) {
                    return true;
                }
            }
        }
    }
    return false;
}

/* A slot with halves of two entries: nobody finds anything there. */
static void test_torn_entries(void **state)
{
    struct iotlb_tag *tags[2] = {tag_of(1, 0x1000), tag_of(2, 0x1000)};

    (void)state;
    for (uint64_t n = 1; n < 2000; n++) {
        uint64_t iovas[2] = {n * 0x12345000 % TOP & ~(PAGE - 1), n * PAGE};
        struct iotlb_slot *slots[2];
        uint64_t checks[2];
        uint64_t frames[2];

        for (unsigned i = 0; i < 2; i++) {
            uint64_t key = iotlb_entry_key(&iotlb.table, id_of(tags[i]), iovas[i]);

            slots[i] = iotlb_slot(&iotlb.table, key, iovas[i]);
            fill(tags[i], iovas[i], (n + i) * PAGE);
            checks[i] = atomic_load(&slots[i]->check);
            frames[i] = atomic_load(&slots[i]->frame);
            atomic_store(&slots[i]->check, 0);
            atomic_store(&slots[i]->frame, 0);
        }
        for (unsigned i = 0; i < 2; i++) {
            atomic_store(&slots[i]->check, checks[i]);
            atomic_store(&slots[i]->frame, frames[!i]);
            assert_false(anything_found(tags, iovas));
            /* Half cleared. */
            atomic_store(&slots[i]->frame, 0);
            assert_false(anything_found(tags, iovas));
            atomic_store(&slots[i]->check, 0);
            atomic_store(&slots[i]->frame, frames[i]);
            assert_false(anything_found(tags, iovas));
            /* The test finds what is whole. */
            atomic_store(&slots[i]->check, checks[i]);
            assert_true(anything_found(tags, iovas));
            atomic_store(&slots[i]->check, 0);
            atomic_store(&slots[i]->frame, 0);
        }
    }
}

/* ---- ids run out ----------------------------------------------------------------------------- */

static void test_renewal(void **state)
{
    struct iotlb_tag *tag = tag_of(1, 0x1000);
    struct iotlb_tag *other = tag_of(2, 0x1000);
    uint64_t first_id = id_of(tag);

    (void)state;
    assert_false(iotlb_renew(&iotlb));
    fill(tag, 0x5000, 0x9000);
    iotlb.id_last = iotlb.id_next + 3;
    for (unsigned i = 0; i < 4; i++) {
        iotlb_drop_tag(&iotlb, tag);
        assert_int_not_equal(id_of(tag), 0);
    }
    assert_true(epoch_enter(&epoch)); /* someone who may hold an old id */
    iotlb_drop_tag(&iotlb, tag);
    /* Nothing is cached until it has left. */
    assert_int_equal(id_of(tag), 0);
    assert_int_equal(id_of(other), 0);
    fill(tag, 0x5000, 0x9000);
    assert_int_equal(find(tag, 0x5000), 0);
    assert_true(iotlb_renew(&iotlb));
    iotlb_drop_all(&iotlb);
    assert_int_equal(id_of(tag), 0);
    assert_int_equal(id_of(tag_of(3, 0x1000)), 0);
    /* Its fill under the oldest id comes late... */
    iotlb_fill(&iotlb, tag, first_id, 0x5000, 0x9000, VIOMMU_READ, 0);
    epoch_leave(&epoch);
    assert_false(iotlb_renew(&iotlb));
    /* ...and is not found though the id may be used again. */
    assert_int_not_equal(id_of(tag), 0);
    assert_int_not_equal(id_of(other), 0);
    assert_int_not_equal(id_of(tag), id_of(other));
    for (uint64_t number = 1; number < 10; number++) {
        assert_int_equal(look(&iotlb, iotlb_id(&iotlb.table, number), 0x5000), 0);
    }
    fill(tag, 0x5000, 0xa000);
    assert_int_equal(find(tag, 0x5000), frame_of(0xa000));
}

/* A tag made while ids are renewed gets one with all others. */
static void test_many_renewals(void **state)
{
    struct iotlb_tag *tag = tag_of(1, 0x1000);

    (void)state;
    iotlb.id_last = iotlb.id_next + 2;
    for (unsigned i = 0; i < 100; i++) {
        iotlb_drop_tag(&iotlb, tag);
        assert_false(iotlb_renew(&iotlb));
        assert_int_not_equal(id_of(tag), 0);
        assert_true(number_of(id_of(tag)) <= iotlb.id_last);
        assert_int_equal(find(tag, 0x5000), 0);
        fill(tag, 0x5000, i * PAGE);
        assert_int_equal(find(tag, 0x5000), frame_of(i * PAGE));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_sizes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_allocation_failures, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fill_and_find, setup, teardown),
        cmocka_unit_test_setup_teardown(test_permissions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_levels, setup, teardown),
        cmocka_unit_test_setup_teardown(test_highest_id, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_page_answers_for_another, setup, teardown),
        cmocka_unit_test_setup_teardown(test_as_many_pages_as_slots, setup, teardown),
        cmocka_unit_test_setup_teardown(test_replacement, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_bit_of_an_address, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tags_are_shared, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tag_reborn, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tag_outlives_sections, setup, teardown),
        cmocka_unit_test_setup_teardown(test_drop_tag_domain_all, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fill_after_drop, setup, teardown),
        cmocka_unit_test_setup_teardown(test_drop_range, setup, teardown),
        cmocka_unit_test_setup_teardown(test_drop_part_of_a_page, setup, teardown),
        cmocka_unit_test_setup_teardown(test_late_fill, setup, teardown),
        cmocka_unit_test_setup_teardown(test_drop_large_range, setup, teardown),
        cmocka_unit_test_setup_teardown(test_super_pages, setup, teardown),
        cmocka_unit_test_setup_teardown(test_super_pages_are_forgotten, setup, teardown),
        cmocka_unit_test_setup_teardown(test_torn_entries, setup, teardown),
        cmocka_unit_test_setup_teardown(test_renewal, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_renewals, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
