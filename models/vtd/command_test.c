/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the global command register: set-root-pointer, translation and the queue, one by one,
 * several at
 * once, again while in progress, and with DMA under way. Invalidation by registers is in
 * invalidate_test.c.
 */
#include "vtd/test_unit.h"

#include <errno.h>

#define RW (SPEC_R | SPEC_W)
#define IOVA 0x5000ull

static uint32_t gsts(struct unit *unit)
{
    return (uint32_t)guest_read(&unit->guest, SPEC_GSTS, 4);
}

static void command(struct unit *unit, uint32_t value)
{
    guest_write(&unit->guest, SPEC_GCMD, 4, value);
    guest_process(&unit->guest);
}

/* Two root tables that give the device different pages. */
struct roots {
    struct unit unit;
    uint64_t root[2];
};

#define PAGE_OF(i) (0x100000ull * ((i) + 1))

static void roots_init(struct roots *roots)
{
    struct guest *guest = &roots->unit.guest;

    unit_init(&roots->unit, &(struct viommu_vtd_config){0});
    for (unsigned i = 0; i < 2; i++) {
        uint64_t table = guest_page(guest);

        guest_map(guest, table, 4, IOVA, PAGE_OF(i), 1, RW);
        guest->root = 0;
        guest_attach(guest, roots->unit.id, 5, table, 4, SPEC_TT_UNTRANSLATED);
        roots->root[i] = guest->root;
    }
}

static void set_root(struct roots *roots, unsigned i)
{
    guest_write(&roots->unit.guest, SPEC_RTADDR, 8, roots->root[i]);
    command(&roots->unit, (gsts(&roots->unit) & SPEC_GSTS_STICKY) | SPEC_SRTP);
}

static void test_one_by_one(void **state)
{
    struct roots r;

    (void)state;
    roots_init(&r);
    assert_int_equal(gsts(&r.unit), 0);
    set_root(&r, 0);
    assert_int_equal(gsts(&r.unit), SPEC_SRTP);
    assert_int_equal(unit_gpa(&r.unit, IOVA), IOVA);
    command(&r.unit, SPEC_TE);
    assert_int_equal(gsts(&r.unit), SPEC_SRTP | SPEC_TE);
    assert_int_equal(unit_gpa(&r.unit, IOVA), PAGE_OF(0));
    command(&r.unit, SPEC_TE | SPEC_QIE);
    assert_int_equal(gsts(&r.unit), SPEC_SRTP | SPEC_TE | SPEC_QIE);
    command(&r.unit, SPEC_QIE);
    assert_int_equal(gsts(&r.unit), SPEC_SRTP | SPEC_QIE);
    assert_int_equal(unit_gpa(&r.unit, IOVA), IOVA);
    command(&r.unit, 0);
    assert_int_equal(gsts(&r.unit), SPEC_SRTP); /* a one-shot: writing 0 does not undo it */
    unit_fini(&r.unit);
}

/* A guest that asks for everything at once gets it. */
static void test_all_at_once(void **state)
{
    struct roots r;

    (void)state;
    roots_init(&r);
    guest_write(&r.unit.guest, SPEC_RTADDR, 8, r.root[1]);
    command(&r.unit, SPEC_TE | SPEC_SRTP | SPEC_QIE);
    assert_int_equal(gsts(&r.unit), SPEC_TE | SPEC_SRTP | SPEC_QIE);
    assert_int_equal(unit_gpa(&r.unit, IOVA), PAGE_OF(1));
    command(&r.unit, SPEC_SRTP);
    assert_int_equal(gsts(&r.unit), SPEC_SRTP);
    unit_fini(&r.unit);
}

/* Of one write the root comes first: translation is never on with the old one. */
static void test_order_of_one_write(void **state)
{
    struct roots r;

    (void)state;
    roots_init(&r);
    guest_write(&r.unit.guest, SPEC_RTADDR, 8, r.root[1]);
    assert_int_equal(viommu_dma_begin(r.unit.guest.iommu), 0);
    command(&r.unit, SPEC_TE | SPEC_SRTP | SPEC_QIE);
    assert_int_equal(gsts(&r.unit), 0);
    assert_int_equal(unit_gpa(&r.unit, IOVA), IOVA);
    viommu_dma_end(r.unit.guest.iommu);
    guest_process(&r.unit.guest);
    assert_int_equal(gsts(&r.unit), SPEC_TE | SPEC_SRTP | SPEC_QIE);
    assert_int_equal(unit_gpa(&r.unit, IOVA), PAGE_OF(1));
    unit_fini(&r.unit);
}

/* Nothing happens inside the register write; the status tells when it has. */
static void test_status_follows(void **state)
{
    struct roots r;

    (void)state;
    roots_init(&r);
    set_root(&r, 0);
    guest_write(&r.unit.guest, SPEC_GCMD, 4, SPEC_SRTP);
    /* RTPS is clear while the command is in progress. */
    assert_int_equal(gsts(&r.unit), 0);
    guest_process(&r.unit.guest);
    assert_int_equal(gsts(&r.unit), SPEC_SRTP);
    unit_fini(&r.unit);
}

/* RTADDR counts at set-root-pointer only: not when written, not when translation is turned on. */
static void test_root_is_latched(void **state)
{
    struct roots r;

    (void)state;
    roots_init(&r);
    set_root(&r, 0);
    guest_write(&r.unit.guest, SPEC_RTADDR, 8, r.root[1]);
    command(&r.unit, SPEC_TE);
    assert_int_equal(unit_gpa(&r.unit, IOVA), PAGE_OF(0));
    command(&r.unit, 0);
    command(&r.unit, SPEC_TE);
    assert_int_equal(unit_gpa(&r.unit, IOVA), PAGE_OF(0));
    command(&r.unit, SPEC_TE | SPEC_SRTP);
    assert_int_equal(unit_gpa(&r.unit, IOVA), PAGE_OF(1));
    unit_fini(&r.unit);
}

/* While translating, with what software must do after it. */
static void test_new_root_while_translating(void **state)
{
    struct roots r;

    (void)state;
    roots_init(&r);
    set_root(&r, 0);
    command(&r.unit, SPEC_TE);
    for (unsigned i = 0; i < 4; i++) {
        set_root(&r, i & 1);
        guest_flush_context(&r.unit.guest, SPEC_GLOBAL, 0, 0, 0);
        guest_flush_iotlb(&r.unit.guest, SPEC_GLOBAL, 0, 0, 0);
        assert_int_equal(unit_gpa(&r.unit, IOVA), PAGE_OF(i & 1));
        assert_int_equal(gsts(&r.unit), SPEC_SRTP | SPEC_TE);
    }
    unit_fini(&r.unit);
}

/* Commands complete when the requests that began before them are over. */
static void test_commands_wait_for_dma(void **state)
{
    struct roots r;
    struct viommu *iommu;

    (void)state;
    roots_init(&r);
    iommu = r.unit.guest.iommu;
    assert_int_equal(viommu_dma_begin(iommu), 0);
    set_root(&r, 0);
    assert_int_equal(gsts(&r.unit), 0);
    viommu_dma_end(iommu);
    guest_process(&r.unit.guest);
    assert_int_equal(gsts(&r.unit), SPEC_SRTP);

    assert_int_equal(viommu_dma_begin(iommu), 0);
    command(&r.unit, SPEC_TE);
    assert_int_equal(gsts(&r.unit), SPEC_SRTP);
    /* New requests meet the new state at once. */
    assert_int_equal(unit_gpa(&r.unit, IOVA), PAGE_OF(0));
    viommu_dma_end(iommu);
    guest_process(&r.unit.guest);
    assert_int_equal(gsts(&r.unit), SPEC_SRTP | SPEC_TE);

    assert_int_equal(viommu_dma_begin(iommu), 0);
    command(&r.unit, 0);
    assert_int_equal(gsts(&r.unit), SPEC_SRTP | SPEC_TE);
    viommu_dma_end(iommu);
    guest_process(&r.unit.guest);
    assert_int_equal(gsts(&r.unit), SPEC_SRTP);
    unit_fini(&r.unit);
}

/* Once more before the first is complete: the last pointer counts, and it completes once. */
static void test_again_in_progress(void **state)
{
    struct roots r;
    struct viommu *iommu;

    (void)state;
    roots_init(&r);
    iommu = r.unit.guest.iommu;
    assert_int_equal(viommu_dma_begin(iommu), 0);
    set_root(&r, 0);
    set_root(&r, 1);
    assert_int_equal(gsts(&r.unit), 0);
    viommu_dma_end(iommu);
    guest_process(&r.unit.guest);
    assert_int_equal(gsts(&r.unit), SPEC_SRTP);
    command(&r.unit, SPEC_TE);
    assert_int_equal(unit_gpa(&r.unit, IOVA), PAGE_OF(1));
    unit_fini(&r.unit);
}

/* On, off, on before anything could complete. */
static void test_changes_of_mind(void **state)
{
    struct roots r;
    struct viommu *iommu;

    (void)state;
    roots_init(&r);
    iommu = r.unit.guest.iommu;
    set_root(&r, 0);
    assert_int_equal(viommu_dma_begin(iommu), 0);
    command(&r.unit, SPEC_TE);
    command(&r.unit, 0);
    viommu_dma_end(iommu);
    guest_process(&r.unit.guest);
    assert_int_equal(gsts(&r.unit), SPEC_SRTP);
    assert_int_equal(unit_gpa(&r.unit, IOVA), IOVA);
    guest_write(&r.unit.guest, SPEC_GCMD, 4, SPEC_TE);
    guest_write(&r.unit.guest, SPEC_GCMD, 4, 0);
    guest_write(&r.unit.guest, SPEC_GCMD, 4, SPEC_TE | SPEC_QIE);
    guest_process(&r.unit.guest);
    assert_int_equal(gsts(&r.unit), SPEC_SRTP | SPEC_TE | SPEC_QIE);
    assert_int_equal(unit_gpa(&r.unit, IOVA), PAGE_OF(0));
    unit_fini(&r.unit);
}

/* Xen writes the raw status with one bit more: RTPS comes back as a command, and is harmless. */
static void test_raw_status_as_command(void **state)
{
    struct roots r;

    (void)state;
    roots_init(&r);
    set_root(&r, 0);
    command(&r.unit, SPEC_TE);
    command(&r.unit, gsts(&r.unit) | SPEC_QIE);
    assert_int_equal(gsts(&r.unit), SPEC_SRTP | SPEC_TE | SPEC_QIE);
    assert_int_equal(unit_gpa(&r.unit, IOVA), PAGE_OF(0));
    unit_fini(&r.unit);
}

/* Commands of features that are absent do nothing. */
static void test_absent_commands(void **state)
{
    struct roots r;

    (void)state;
    roots_init(&r);
    command(&r.unit, ~(SPEC_TE | SPEC_SRTP | SPEC_QIE));
    assert_int_equal(gsts(&r.unit), 0);
    unit_fini(&r.unit);
}

/* A byte of the register carries only its own commands. */
static void test_partial_write(void **state)
{
    struct roots r;

    (void)state;
    roots_init(&r);
    set_root(&r, 0);
    command(&r.unit, SPEC_TE | SPEC_QIE);
    for (unsigned offset = 0; offset < 3; offset++) {
        guest_write(&r.unit.guest, SPEC_GCMD + offset, 1, 0);
        guest_process(&r.unit.guest);
        assert_int_equal(gsts(&r.unit), SPEC_SRTP | SPEC_TE | SPEC_QIE);
    }
    guest_write(&r.unit.guest, SPEC_GCMD + 3, 1, SPEC_TE >> 24);
    guest_process(&r.unit.guest);
    assert_int_equal(gsts(&r.unit), SPEC_SRTP | SPEC_TE);
    unit_fini(&r.unit);
}

/* Translation on without a root ever set: defined, and refused. */
static void test_translation_without_root(void **state)
{
    struct unit unit;

    (void)state;
    unit_init(&unit, &(struct viommu_vtd_config){0});
    guest_command(&unit.guest, SPEC_TE, true);
    assert_int_equal(unit_read(&unit, 0), -EFAULT);
    unit_expect_fault(&unit, SPEC_ROOT_NOT_PRESENT, 0, false);
    unit_fini(&unit);
}

/* What was cached while translation was on is not used after off and on. */
static void test_cache_does_not_survive_off(void **state)
{
    struct roots r;
    uint64_t slot;

    (void)state;
    roots_init(&r);
    set_root(&r, 0);
    command(&r.unit, SPEC_TE);
    assert_int_equal(unit_gpa(&r.unit, IOVA), PAGE_OF(0));
    command(&r.unit, 0);
    slot = guest_load(&r.unit.guest, r.root[0]) & ~0xfffull; /* the context table */
    slot = guest_load(&r.unit.guest, slot + r.unit.id * 16u) & ~0xfffull;
    guest_map(&r.unit.guest, slot, 4, IOVA, PAGE_OF(7), 1, RW);
    assert_int_equal(unit_gpa(&r.unit, IOVA), IOVA);
    command(&r.unit, SPEC_TE);
    assert_int_equal(unit_gpa(&r.unit, IOVA), PAGE_OF(7));
    unit_fini(&r.unit);
}

static void test_reset_in_progress(void **state)
{
    struct roots r;
    struct viommu *iommu;

    (void)state;
    roots_init(&r);
    iommu = r.unit.guest.iommu;
    set_root(&r, 0);
    assert_int_equal(viommu_dma_begin(iommu), 0);
    command(&r.unit, SPEC_TE | SPEC_QIE);
    guest_write(&r.unit.guest, SPEC_CCMD, 8, 1ull << 63 | 1ull << 61);
    guest_process(&r.unit.guest);
    assert_int_equal(viommu_reset(iommu), 0);
    viommu_dma_end(iommu);
    guest_process(&r.unit.guest);
    assert_int_equal(gsts(&r.unit), 0);
    assert_int_equal(guest_read(&r.unit.guest, SPEC_CCMD, 8), 0);
    assert_int_equal(unit_gpa(&r.unit, IOVA), IOVA);
    /* A reboot: everything again. */
    set_root(&r, 1);
    command(&r.unit, SPEC_TE);
    assert_int_equal(unit_gpa(&r.unit, IOVA), PAGE_OF(1));
    unit_fini(&r.unit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_by_one),
        cmocka_unit_test(test_all_at_once),
        cmocka_unit_test(test_order_of_one_write),
        cmocka_unit_test(test_status_follows),
        cmocka_unit_test(test_root_is_latched),
        cmocka_unit_test(test_new_root_while_translating),
        cmocka_unit_test(test_commands_wait_for_dma),
        cmocka_unit_test(test_again_in_progress),
        cmocka_unit_test(test_changes_of_mind),
        cmocka_unit_test(test_raw_status_as_command),
        cmocka_unit_test(test_absent_commands),
        cmocka_unit_test(test_partial_write),
        cmocka_unit_test(test_translation_without_root),
        cmocka_unit_test(test_cache_does_not_survive_off),
        cmocka_unit_test(test_reset_in_progress),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
