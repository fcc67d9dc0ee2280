/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of what invalidations drop: every granularity, through the queue and through registers,
 * and how
 * registers answer incorrect requests. Device-TLB invalidations are in device_tlb_test.c.
 *
 * A check has two halves: after a change of the tables the old translation is still in use (else
 * the
 * test could not fail), after the invalidation it is not.
 */
#include "iommu/iommu.h"
#include "vtd/test_unit.h"

#include <errno.h>

#define RW (SPEC_R | SPEC_W)
#define IOVA 0x40000000ull
#define OLD 0x300000ull
#define NEW 0x310000ull
#define SIZE_2M 0x200000ull
#define SIZE_1G 0x40000000ull

#define IVA(unit) ((unit)->guest.iotlb_offset)
#define IOTLB(unit) ((unit)->guest.iotlb_offset + 8)
#define BUSY (1ull << 63)

static void invalidate_init(struct unit *unit, const struct viommu_vtd_config *config)
{
    unit_init(unit, config);
    unit_translate(unit);
}

/* Has a page cached, then changes its entry behind the unit's back. */
static void make_stale(struct unit *unit, uint64_t iova)
{
    unit_map(unit, iova, OLD, 1, RW);
    guest_flush_iotlb(&unit->guest, SPEC_GLOBAL, 0, 0, 0);
    assert_int_equal(unit_gpa(unit, iova), OLD);
    unit_map(unit, iova, NEW, 1, RW);
    assert_int_equal(unit_gpa(unit, iova), OLD);
}

static void expect_fresh(struct unit *unit, uint64_t iova)
{
    assert_int_equal(unit_gpa(unit, iova), NEW);
}

/* Registers can be used only while the queue is off, so it is turned on for one submission. */
static void submit(struct unit *unit, struct spec_descriptor descriptor)
{
    guest_queue_on(&unit->guest);
    guest_queue_put(&unit->guest, descriptor);
    guest_queue_wait(&unit->guest);
    guest_queue_off(&unit->guest);
}

static void test_iotlb_by_queue(void **state)
{
    struct unit unit;

    (void)state;
    invalidate_init(&unit, &(struct viommu_vtd_config){0});
    make_stale(&unit, IOVA);
    submit(&unit, spec_iotlb_invalidate(SPEC_GLOBAL, 0, 0, 0, false));
    expect_fresh(&unit, IOVA);
    make_stale(&unit, IOVA);
    submit(&unit, spec_iotlb_invalidate(SPEC_DOMAIN, UNIT_DOMAIN, 0, 0, false));
    expect_fresh(&unit, IOVA);
    make_stale(&unit, IOVA);
    submit(&unit, spec_iotlb_invalidate(SPEC_SELECTIVE, UNIT_DOMAIN, IOVA, 0, false));
    expect_fresh(&unit, IOVA);
    make_stale(&unit, IOVA);
    submit(&unit, spec_iotlb_invalidate(SPEC_SELECTIVE, UNIT_DOMAIN, IOVA, 0, true));
    expect_fresh(&unit, IOVA);
    unit_fini(&unit);
}

/* 2^AM pages from an aligned address on; low bits of the address are ignored. */
static void test_address_masks(void **state)
{
    struct unit unit;

    (void)state;
    invalidate_init(&unit, &(struct viommu_vtd_config){0});
    for (unsigned mask = 0; mask <= 18; mask++) {
        uint64_t last = IOVA + (((1ull << mask) - 1) << 12);

        make_stale(&unit, last);
        submit(&unit, spec_iotlb_invalidate(SPEC_SELECTIVE, UNIT_DOMAIN, IOVA, mask, false));
        expect_fresh(&unit, last);
        make_stale(&unit, IOVA);
        submit(&unit, spec_iotlb_invalidate(SPEC_SELECTIVE, UNIT_DOMAIN, last, mask, false));
        expect_fresh(&unit, IOVA);
    }
    unit_fini(&unit);
}

/* One page of a larger page: every piece of it goes. */
static void try_super_page(unsigned level, uint64_t size)
{
    struct unit unit;

    invalidate_init(&unit, &(struct viommu_vtd_config){0});
    unit_map(&unit, SIZE_1G, 8 * SIZE_1G, level, RW);
    assert_int_equal(unit_gpa(&unit, SIZE_1G), 8 * SIZE_1G);
    assert_int_equal(unit_gpa(&unit, SIZE_1G + size - 0x1000), 8 * SIZE_1G + size - 0x1000);
    unit_map(&unit, SIZE_1G, 9 * SIZE_1G, level, RW);
    assert_int_equal(unit_gpa(&unit, SIZE_1G), 8 * SIZE_1G);
    submit(&unit, spec_iotlb_invalidate(SPEC_SELECTIVE, UNIT_DOMAIN, SIZE_1G + size / 2, 0, true));
    assert_int_equal(unit_gpa(&unit, SIZE_1G), 9 * SIZE_1G);
    assert_int_equal(unit_gpa(&unit, SIZE_1G + size - 0x1000), 9 * SIZE_1G + size - 0x1000);
    unit_fini(&unit);
}

static void test_super_pages(void **state)
{
    (void)state;
    try_super_page(2, SIZE_2M);
    try_super_page(3, SIZE_1G);
}

/* A 2 MiB page becomes a table: none of its pieces survives the invalidation of the range. */
static void test_super_page_becomes_a_table(void **state)
{
    struct unit unit;
    uint64_t slot;

    (void)state;
    invalidate_init(&unit, &(struct viommu_vtd_config){0});
    slot = unit_map(&unit, SIZE_2M, SIZE_2M * 8, 2, RW);
    for (uint64_t at = 0; at < SIZE_2M; at += 0x1000) {
        assert_int_equal(unit_gpa(&unit, SIZE_2M + at), SIZE_2M * 8 + at);
    }
    guest_store(&unit.guest, slot, guest_page(&unit.guest) | RW);
    submit(&unit, spec_iotlb_invalidate(SPEC_SELECTIVE, UNIT_DOMAIN, SIZE_2M, 9, false));
    for (uint64_t at = 0; at < SIZE_2M; at += 0x1000) {
        assert_int_equal(unit_read(&unit, SIZE_2M + at), -EFAULT);
    }
    unit_fini(&unit);
}

/* Bits of a domain id past ND, and of an address past MGAW, are ignored: not looked at. */
static void test_ignored_bits_of_a_domain(void **state)
{
    struct unit unit;
    struct spec_descriptor descriptor;

    (void)state;
    invalidate_init(&unit, &(struct viommu_vtd_config){.domain_bits = 4});
    make_stale(&unit, IOVA);
    submit(&unit, spec_iotlb_invalidate(SPEC_DOMAIN, 0xfff0 | UNIT_DOMAIN, 0, 0, false));
    expect_fresh(&unit, IOVA);
    make_stale(&unit, IOVA);
    descriptor = spec_iotlb_invalidate(SPEC_SELECTIVE, 0x10 | UNIT_DOMAIN, IOVA, 0, false);
    submit(&unit, descriptor);
    expect_fresh(&unit, IOVA);
    unit_fini(&unit);
}

static void test_ignored_bits_of_an_address(void **state)
{
    struct unit unit;

    (void)state;
    invalidate_init(&unit, &(struct viommu_vtd_config){.address_width = 39});
    make_stale(&unit, IOVA);
    submit(&unit, spec_iotlb_invalidate(SPEC_SELECTIVE, UNIT_DOMAIN, IOVA | 1ull << 45 | 1ull << 63,
                                        0, false));
    expect_fresh(&unit, IOVA);
    unit_fini(&unit);
}

/* Two roots under one domain id are both meant. */
static void test_all_roots_of_a_domain(void **state)
{
    struct unit unit;
    struct viommu_device_config config = {.requester = viommu_requester(3, 0, 0)};
    struct viommu_translation out;
    struct viommu_device *other;
    uint64_t table;
    uint64_t slot;

    (void)state;
    invalidate_init(&unit, &(struct viommu_vtd_config){0});
    table = guest_page(&unit.guest);
    slot = guest_map(&unit.guest, table, 4, IOVA, OLD, 1, RW);
    guest_attach(&unit.guest, config.requester, UNIT_DOMAIN, table, 4, SPEC_TT_UNTRANSLATED);
    assert_int_equal(viommu_device_add(unit.guest.iommu, &config, &other), 0);
    make_stale(&unit, IOVA);
    assert_int_equal(viommu_device_translate(other, NULL, IOVA, VIOMMU_READ, &out), 0);
    guest_store(&unit.guest, slot, NEW | RW);
    submit(&unit, spec_iotlb_invalidate(SPEC_SELECTIVE, UNIT_DOMAIN, IOVA, 0, false));
    expect_fresh(&unit, IOVA);
    assert_int_equal(viommu_device_translate(other, NULL, IOVA, VIOMMU_READ, &out), 0);
    assert_int_equal(out.gpa, NEW);
    unit_fini(&unit);
}

/* The cache's ids run out again and again: nothing old is used, and caching goes on. */
static void test_ids_run_out(void **state)
{
    struct unit unit;
    struct iotlb *iotlb;
    struct viommu_stats stats;

    (void)state;
    invalidate_init(&unit, &(struct viommu_vtd_config){0});
    iotlb = &unit.guest.iommu->iotlb;
    iotlb->id_last = iotlb->id_next + 2;
    for (unsigned i = 0; i < 50; i++) {
        uint64_t page = 0x100000 + 0x1000 * i;

        unit_map(&unit, IOVA, page, 1, RW);
        submit(&unit, spec_iotlb_invalidate(SPEC_DOMAIN, UNIT_DOMAIN, 0, 0, false));
        assert_int_equal(unit_gpa(&unit, IOVA), page);
        assert_int_equal(unit_gpa(&unit, IOVA), page);
    }
    assert_true(iotlb->id_next <= iotlb->id_last + 1);
    viommu_stats_get(unit.guest.iommu, &stats, sizeof(stats));
    assert_true(stats.iotlb_hits >= 40);
    unit_fini(&unit);
}

/* ---- contexts -------------------------------------------------------------------------------- */

/* A context that is cached and has changed: the device now has another table. */
struct moved {
    struct unit unit;
    uint64_t tables[2];
    unsigned now;
};

static void moved_init(struct moved *moved, const struct viommu_vtd_config *config)
{
    invalidate_init(&moved->unit, config);
    for (unsigned i = 0; i < 2; i++) {
        moved->tables[i] = guest_page(&moved->unit.guest);
        guest_map(&moved->unit.guest, moved->tables[i], 4, IOVA, 0x100000 * (i + 1), 1, RW);
    }
    moved->now = 0;
    guest_attach(&moved->unit.guest, moved->unit.id, UNIT_DOMAIN, moved->tables[0], 4,
                 SPEC_TT_UNTRANSLATED);
    guest_flush_context(&moved->unit.guest, SPEC_GLOBAL, 0, 0, 0);
    assert_int_equal(unit_gpa(&moved->unit, IOVA), 0x100000);
}

static void move(struct moved *moved)
{
    uint64_t old = 0x100000 * (moved->now + 1);

    assert_int_equal(unit_gpa(&moved->unit, IOVA), old);
    moved->now = !moved->now;
    guest_attach(&moved->unit.guest, moved->unit.id, UNIT_DOMAIN, moved->tables[moved->now], 4,
                 SPEC_TT_UNTRANSLATED);
    assert_int_equal(unit_gpa(&moved->unit, IOVA), old);
}

static void expect_moved(struct moved *moved)
{
    assert_int_equal(unit_gpa(&moved->unit, IOVA), 0x100000 * (moved->now + 1));
}

static void test_context_by_queue(void **state)
{
    struct moved m;

    (void)state;
    moved_init(&m, &(struct viommu_vtd_config){0});
    move(&m);
    submit(&m.unit, spec_context_invalidate(SPEC_GLOBAL, 0, 0, 0));
    expect_moved(&m);
    move(&m);
    submit(&m.unit, spec_context_invalidate(SPEC_DOMAIN, UNIT_DOMAIN, 0, 0));
    expect_moved(&m);
    move(&m);
    submit(&m.unit, spec_context_invalidate(SPEC_SELECTIVE, UNIT_DOMAIN, m.unit.id, 0));
    expect_moved(&m);
    unit_fini(&m.unit);
}

/* FM masks bit 2, bits 2:1, bits 2:0 of the source id. */
static void test_function_masks(void **state)
{
    static const uint16_t masked[] = {0, 4, 6, 7};
    struct moved m;

    (void)state;
    moved_init(&m, &(struct viommu_vtd_config){0});
    for (unsigned fm = 0; fm < 4; fm++) {
        for (uint16_t function = 0; function < 8; function++) {
            uint16_t source = m.unit.id ^ (function & masked[fm]);

            move(&m);
            submit(&m.unit, spec_context_invalidate(SPEC_SELECTIVE, UNIT_DOMAIN, source, fm));
            expect_moved(&m);
        }
    }
    unit_fini(&m.unit);
}

static void test_context_by_registers(void **state)
{
    struct moved m;
    uint64_t value;

    (void)state;
    moved_init(&m, &(struct viommu_vtd_config){.no_queued_invalidation = true});
    for (uint64_t granularity = 1; granularity < 4; granularity++) {
        move(&m);
        guest_flush_context(&m.unit.guest, (enum spec_granularity)granularity, UNIT_DOMAIN,
                            m.unit.id, 0);
        value = guest_read(&m.unit.guest, SPEC_CCMD, 8);
        assert_int_equal(value >> 59 & 3, granularity);
        expect_moved(&m);
    }
    unit_fini(&m.unit);
}

/* ---- registers ------------------------------------------------------------------------------- */

static void test_iotlb_by_registers(void **state)
{
    struct unit unit;

    (void)state;
    invalidate_init(&unit, &(struct viommu_vtd_config){.caching_mode = true});
    for (uint64_t granularity = 1; granularity < 4; granularity++) {
        make_stale(&unit, IOVA);
        guest_flush_iotlb(&unit.guest, (enum spec_granularity)granularity, UNIT_DOMAIN, IOVA, 0);
        assert_int_equal(guest_read(&unit.guest, IOTLB(&unit), 8) >> 57 & 3, granularity);
        expect_fresh(&unit, IOVA);
    }
    unit_fini(&unit);
}

/* What was carried out, after a request for this granularity. */
static unsigned actual_context(struct unit *unit, uint64_t granularity)
{
    guest_write(&unit->guest, SPEC_CCMD, 8, BUSY | granularity << 61);
    guest_poll(&unit->guest, SPEC_CCMD, 8, BUSY, 0);
    return guest_read(&unit->guest, SPEC_CCMD, 8) >> 59 & 3;
}

static unsigned actual_iotlb(struct unit *unit, uint64_t granularity, uint64_t mask)
{
    guest_write(&unit->guest, IVA(unit), 8, IOVA | mask);
    guest_write(&unit->guest, IOTLB(unit), 8, BUSY | granularity << 60);
    guest_poll(&unit->guest, IOTLB(unit), 8, BUSY, 0);
    return guest_read(&unit->guest, IOTLB(unit), 8) >> 57 & 3;
}

/* An incorrect request is ignored, its command bit clears, and the answer is granularity 0. */
static void test_incorrect_requests(void **state)
{
    struct unit unit;

    (void)state;
    invalidate_init(&unit, &(struct viommu_vtd_config){0});
    assert_int_equal(actual_context(&unit, 1), 1);
    assert_int_equal(actual_context(&unit, 0), 0);
    assert_int_equal(actual_iotlb(&unit, 1, 0), 1);
    assert_int_equal(actual_iotlb(&unit, 0, 0), 0);
    assert_int_equal(actual_iotlb(&unit, 3, 18), 3);
    for (uint64_t mask = 19; mask < 64; mask++) {
        assert_int_equal(actual_iotlb(&unit, 3, mask), 0);
        assert_int_equal(actual_iotlb(&unit, 2, mask), 2); /* the mask is not looked at */
    }
    unit_fini(&unit);
}

static void test_registers_while_queue_is_on(void **state)
{
    struct unit unit;

    (void)state;
    invalidate_init(&unit, &(struct viommu_vtd_config){0});
    guest_queue_on(&unit.guest);
    assert_int_equal(actual_context(&unit, 1), 0);
    assert_int_equal(actual_iotlb(&unit, 1, 0), 0);
    guest_queue_off(&unit.guest);
    assert_int_equal(actual_context(&unit, 1), 1);
    assert_int_equal(actual_iotlb(&unit, 1, 0), 1);
    unit_fini(&unit);
}

static void test_registers_in_another_mode(void **state)
{
    struct unit unit;

    (void)state;
    invalidate_init(&unit, &(struct viommu_vtd_config){0});
    guest_write(&unit.guest, SPEC_RTADDR, 8, unit.guest.root | 1 << 10);
    guest_command(&unit.guest, SPEC_SRTP, true);
    assert_int_equal(actual_context(&unit, 1), 0);
    assert_int_equal(actual_iotlb(&unit, 1, 0), 0);
    unit_fini(&unit);
}

/* IVT and ICC stay set while DMA from before is under way, and a second request is ignored. */
static void test_registers_wait_for_dma(void **state)
{
    struct unit unit;
    struct guest *guest = &unit.guest;

    (void)state;
    invalidate_init(&unit, &(struct viommu_vtd_config){0});
    assert_int_equal(viommu_dma_begin(guest->iommu), 0);
    guest_write(guest, SPEC_CCMD, 8, BUSY | 1ull << 61);
    guest_write(guest, IOTLB(&unit), 8, BUSY | 1ull << 60);
    guest_process(guest);
    assert_true(guest_read(guest, SPEC_CCMD, 8) & BUSY);
    assert_true(guest_read(guest, IOTLB(&unit), 8) & BUSY);
    guest_write(guest, IOTLB(&unit), 8, 0);
    assert_true(guest_read(guest, IOTLB(&unit), 8) & BUSY);
    viommu_dma_end(guest->iommu);
    guest_process(guest);
    assert_false(guest_read(guest, SPEC_CCMD, 8) & BUSY);
    assert_int_equal(guest_read(guest, IOTLB(&unit), 8) >> 57 & 3, 1);
    unit_fini(&unit);
}

/* ---- counters -------------------------------------------------------------------------------- */

static void test_statistics(void **state)
{
    struct unit unit;
    struct viommu_stats stats;

    (void)state;
    unit_init(&unit, &(struct viommu_vtd_config){0});
    for (unsigned granularity = 1; granularity < 4; granularity++) {
        for (unsigned i = 0; i < granularity; i++) {
            submit(&unit, spec_context_invalidate(granularity, 1, 1, 0));
            submit(&unit, spec_iotlb_invalidate(granularity, 1, 0, 0, false));
        }
    }
    submit(&unit, spec_interrupt_cache_invalidate(false, 0, 0));
    submit(&unit, spec_interrupt_cache_invalidate(true, 5, 3));
    viommu_stats_get(unit.guest.iommu, &stats, sizeof(stats));
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(stats.context_invalidations[i], i + 1);
        assert_int_equal(stats.iotlb_invalidations[i], i + 1);
    }
    assert_int_equal(stats.interrupt_cache_invalidations, 2);
    assert_int_equal(stats.waits_completed, 14);
    assert_int_equal(stats.queue_errors, 0);
    unit_fini(&unit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_iotlb_by_queue),
        cmocka_unit_test(test_address_masks),
        cmocka_unit_test(test_super_pages),
        cmocka_unit_test(test_super_page_becomes_a_table),
        cmocka_unit_test(test_ignored_bits_of_a_domain),
        cmocka_unit_test(test_ignored_bits_of_an_address),
        cmocka_unit_test(test_all_roots_of_a_domain),
        cmocka_unit_test(test_ids_run_out),
        cmocka_unit_test(test_context_by_queue),
        cmocka_unit_test(test_function_masks),
        cmocka_unit_test(test_context_by_registers),
        cmocka_unit_test(test_iotlb_by_registers),
        cmocka_unit_test(test_incorrect_requests),
        cmocka_unit_test(test_registers_while_queue_is_on),
        cmocka_unit_test(test_registers_in_another_mode),
        cmocka_unit_test(test_registers_wait_for_dma),
        cmocka_unit_test(test_statistics),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
