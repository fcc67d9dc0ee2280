/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of translation requests and translated requests (PCI ATS): what is answered, what is
 * refused, and
 * which refusals are recorded.
 */
#include "vtd/test_unit.h"

#include <errno.h>

#define RW (SPEC_R | SPEC_W)
#define BOTH (VIOMMU_READ | VIOMMU_WRITE)
#define SIZE_2M 0x200000ull
#define INTERRUPTS 0xfee00000ull

#define REQUEST 1 /* the AT field */
#define TRANSLATED 2

static void ats_init(struct unit *unit, const struct viommu_vtd_config *config,
                     enum spec_translation_type type)
{
    struct viommu_vtd_config with_tlb = *config;

    with_tlb.device_tlb = true;
    unit_init(unit, &with_tlb);
    unit_translate_as(unit, type);
}

/* Asks for one page. */
static int ask(struct unit *unit, uint64_t iova, bool no_write, struct viommu_ats_entry *entry)
{
    return viommu_device_ats_translate(unit->device, NULL, iova, 0x1000, no_write, entry, 1);
}

static int translated_write(struct unit *unit, uint64_t address)
{
    struct viommu_dma_attrs attrs = {.type = VIOMMU_DMA_TRANSLATED};
    uint64_t value = 1;

    return viommu_device_write(unit->device, &attrs, address, &value, sizeof(value));
}

static void expect_empty(struct unit *unit, uint64_t iova)
{
    struct viommu_ats_entry entry;

    assert_int_equal(ask(unit, iova, false, &entry), 1);
    assert_int_equal(entry.perm, 0);
    unit_expect_no_fault(unit);
}

static void expect_refused(struct unit *unit, uint64_t iova, unsigned reason)
{
    struct viommu_ats_entry entry;

    assert_int_equal(ask(unit, iova, false, &entry), -EFAULT);
    unit_expect_fault_as(unit, reason, iova, false, REQUEST);
}

static void test_answer(void **state)
{
    struct unit unit;
    struct viommu_ats_entry entry;

    (void)state;
    ats_init(&unit, &(struct viommu_vtd_config){0}, SPEC_TT_ALL);
    unit_map(&unit, 0x5000, 0x9000, 1, RW);
    unit_map(&unit, 0x6000, 0xa000, 1, SPEC_R | SPEC_SNP);
    unit_map(&unit, 0x7000, 0xb000, 1, SPEC_W);
    assert_int_equal(ask(&unit, 0x5123, false, &entry), 1);
    assert_int_equal(entry.iova, 0x5000);
    assert_int_equal(entry.gpa, 0x9000);
    assert_int_equal(entry.mask, 0xfff);
    assert_int_equal(entry.perm, BOTH);
    assert_false(entry.untranslated_only);
    assert_false(entry.snoop);
    /* What is allowed, whatever was asked. */
    assert_int_equal(ask(&unit, 0x6000, false, &entry), 1);
    assert_int_equal(entry.perm, VIOMMU_READ);
    assert_true(entry.snoop);
    assert_int_equal(ask(&unit, 0x7000, true, &entry), 1);
    assert_int_equal(entry.perm, VIOMMU_WRITE);
    unit_expect_no_fault(&unit);
    unit_fini(&unit);
}

static void test_answer_of_a_super_page(void **state)
{
    struct unit unit;
    struct viommu_ats_entry entry;

    (void)state;
    ats_init(&unit, &(struct viommu_vtd_config){0}, SPEC_TT_ALL);
    unit_map(&unit, SIZE_2M, 8 * SIZE_2M, 2, RW);
    assert_int_equal(ask(&unit, SIZE_2M + 0x12345, false, &entry), 1);
    assert_int_equal(entry.iova, SIZE_2M);
    assert_int_equal(entry.gpa, 8 * SIZE_2M);
    assert_int_equal(entry.mask, SIZE_2M - 1);
    unit_fini(&unit);
}

/* Several pages: they abut and are of one size; it ends where something differs. */
static void test_run(void **state)
{
    struct unit unit;
    struct viommu_ats_entry entries[8];
    int n;

    (void)state;
    ats_init(&unit, &(struct viommu_vtd_config){0}, SPEC_TT_ALL);
    for (unsigned i = 0; i < 4; i++) {
        unit_map(&unit, 0x1000 * (i + 1), 0x10000 - 0x1000 * i, 1, RW);
    }
    n = viommu_device_ats_translate(unit.device, NULL, 0x1000, 0x4000, false, entries, 8);
    assert_int_equal(n, 4);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(entries[i].iova, 0x1000 * (i + 1));
        assert_int_equal(entries[i].gpa, 0x10000 - 0x1000 * i);
    }
    assert_int_equal(
        viommu_device_ats_translate(unit.device, NULL, 0x1800, 0x801, false, entries, 8), 2);
    assert_int_equal(
        viommu_device_ats_translate(unit.device, NULL, 0x1800, 0x800, false, entries, 8), 1);
    assert_int_equal(
        viommu_device_ats_translate(unit.device, NULL, 0x1000, 0x4000, false, entries, 2), 2);
    /* A refusal behind the first is not recorded: the device will ask for it by itself. */
    unit_map(&unit, 0x3000, INTERRUPTS, 1, RW);
    assert_int_equal(
        viommu_device_ats_translate(unit.device, NULL, 0x1000, 0x4000, false, entries, 8), 2);
    unit_expect_no_fault(&unit);
    unit_fini(&unit);
}

static void test_run_ends_at_another_size(void **state)
{
    struct unit unit;
    struct viommu_ats_entry entries[8];

    (void)state;
    ats_init(&unit, &(struct viommu_vtd_config){0}, SPEC_TT_ALL);
    unit_map(&unit, SIZE_2M - 0x1000, 0x9000, 1, RW);
    unit_map(&unit, SIZE_2M, 0, 2, RW);
    assert_int_equal(viommu_device_ats_translate(unit.device, NULL, SIZE_2M - 0x1000, 0x2000, false,
                                                 entries, 8), 1);
    unit_fini(&unit);
}

/* Answered with nothing, and not recorded: the device may ask again. */
static void test_nothing_there(void **state)
{
    struct unit unit;

    (void)state;
    ats_init(&unit, &(struct viommu_vtd_config){0}, SPEC_TT_ALL);
    expect_empty(&unit, 0);
    expect_empty(&unit, 1ull << 48);
    expect_empty(&unit, ~0xfffull);
    unit_map(&unit, 0, 0, 1, 0);
    expect_empty(&unit, 0);
    unit_fini(&unit);
}

static void test_refused_with_reason(void **state)
{
    struct unit unit;
    uint64_t entry;

    (void)state;
    ats_init(&unit, &(struct viommu_vtd_config){0}, SPEC_TT_ALL);
    unit_map(&unit, 0x1000, 0, 1, RW | 1ull << 62);
    expect_refused(&unit, 0x1000, SPEC_TABLE_RESERVED);
    unit_map(&unit, 0x2000, INTERRUPTS, 1, RW);
    expect_refused(&unit, 0x2000, SPEC_INTERRUPT_RANGE);
    entry = guest_load(&unit.guest, unit.table);
    guest_store(&unit.guest, unit.table, 0x80000000 | RW);
    expect_refused(&unit, 0x1000, SPEC_TABLE_ACCESS);
    guest_store(&unit.guest, unit.table, entry);
    guest_context(&unit.guest, unit.id, 0, 0);
    guest_flush_context(&unit.guest, SPEC_GLOBAL, 0, 0, 0);
    expect_refused(&unit, 0x1000, SPEC_CONTEXT_NOT_PRESENT);
    guest_context(&unit.guest, unit.id, 0x80000000 | 1 | SPEC_TT_ALL << 2, UNIT_DOMAIN << 8 | 2);
    guest_flush_context(&unit.guest, SPEC_GLOBAL, 0, 0, 0);
    expect_refused(&unit, 0x1000, SPEC_CONTEXT_INVALID);
    unit_fini(&unit);
}

/* FPD keeps a refusal from being recorded. */
static void test_fault_processing_disable(void **state)
{
    struct unit unit;
    struct viommu_ats_entry entry;

    (void)state;
    ats_init(&unit, &(struct viommu_vtd_config){0}, SPEC_TT_ALL);
    guest_context(&unit.guest, unit.id, unit.table | 1 << 2 | 3, UNIT_DOMAIN << 8 | 2);
    guest_flush_context(&unit.guest, SPEC_GLOBAL, 0, 0, 0);
    unit_map(&unit, 0x2000, INTERRUPTS, 1, RW);
    assert_int_equal(ask(&unit, 0x2000, false, &entry), -EFAULT);
    assert_int_equal(translated_write(&unit, INTERRUPTS), -EFAULT);
    unit_expect_no_fault(&unit);
    unit_fini(&unit);
}

/* The interrupt range is written untranslated; who only reads gets nothing. */
static void test_interrupt_range(void **state)
{
    struct unit unit;
    struct viommu_ats_entry entry;

    (void)state;
    ats_init(&unit, &(struct viommu_vtd_config){0}, SPEC_TT_ALL);
    unit_map(&unit, INTERRUPTS, 0x5000, 1, RW);
    assert_int_equal(ask(&unit, INTERRUPTS, false, &entry), 1);
    assert_int_equal(entry.perm, VIOMMU_WRITE);
    assert_true(entry.untranslated_only);
    assert_int_equal(ask(&unit, INTERRUPTS, true, &entry), 1);
    assert_int_equal(entry.perm, 0);
    unit_expect_no_fault(&unit);
    unit_fini(&unit);
}

/* A larger page that meets the range is never given out whole. */
static void test_super_page_meets_interrupt_range(void **state)
{
    struct unit unit;
    struct viommu_ats_entry entry;

    (void)state;
    ats_init(&unit, &(struct viommu_vtd_config){0}, SPEC_TT_ALL);
    unit_map(&unit, INTERRUPTS, 0, 2, RW);
    unit_map(&unit, 0, INTERRUPTS, 2, RW);
    assert_int_equal(ask(&unit, 0xfef00000, false, &entry), 1);
    assert_int_equal(entry.iova, 0xfef00000);
    assert_int_equal(entry.gpa, 0x100000);
    assert_true(entry.mask <= 0xfffff);
    assert_int_equal(ask(&unit, 0x100000, false, &entry), 1);
    assert_int_equal(entry.gpa, 0xfef00000);
    assert_true(entry.mask <= 0xfffff);
    expect_refused(&unit, 0x1000, SPEC_INTERRUPT_RANGE);
    unit_fini(&unit);
}

/* ---- translation types ----------------------------------------------------------------------- */

static void test_type_blocks(void **state)
{
    static const enum spec_translation_type types[] = {SPEC_TT_UNTRANSLATED, SPEC_TT_PASS};

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct unit unit;

        ats_init(&unit, &(struct viommu_vtd_config){0}, types[i]);
        expect_refused(&unit, 0x1000, SPEC_BLOCKED);
        /* Even to the interrupt range. */
        expect_refused(&unit, INTERRUPTS, SPEC_BLOCKED);
        assert_int_equal(translated_write(&unit, 0x1000), -EFAULT);
        unit_expect_fault_as(&unit, SPEC_BLOCKED, 0x1000, true, TRANSLATED);
        unit_fini(&unit);
    }
}

static void test_untranslated_with_device_tlb(void **state)
{
    struct unit unit;

    (void)state;
    ats_init(&unit, &(struct viommu_vtd_config){0}, SPEC_TT_ALL);
    unit_map(&unit, 0x1000, 0x9000, 1, RW);
    assert_int_equal(unit_gpa(&unit, 0x1000), 0x9000);
    assert_int_equal(unit_read(&unit, 0x2000), -EFAULT);
    unit_expect_fault(&unit, SPEC_READ, 0x2000, false);
    unit_fini(&unit);
}

/* Translated requests are not translated: the address is where they go. */
static void test_translated(void **state)
{
    struct unit unit;
    struct viommu_dma_attrs attrs = {.type = VIOMMU_DMA_TRANSLATED};
    struct viommu_translation out;
    uint64_t page;

    (void)state;
    ats_init(&unit, &(struct viommu_vtd_config){.host_address_width = 40}, SPEC_TT_ALL);
    page = guest_page(&unit.guest);
    assert_int_equal(translated_write(&unit, page), 0);
    assert_int_equal(guest_load(&unit.guest, page), 1);
    assert_int_equal(
        viommu_device_translate(unit.device, &attrs, (1ull << 40) - 1, VIOMMU_READ, &out), 0);
    assert_int_equal(out.gpa, (1ull << 40) - 1);
    assert_int_equal(translated_write(&unit, 1ull << 40), -EFAULT);
    unit_expect_fault_as(&unit, SPEC_BEYOND_WIDTH, 1ull << 40, true, TRANSLATED);
    assert_int_equal(translated_write(&unit, INTERRUPTS), -EFAULT);
    unit_expect_fault_as(&unit, SPEC_INTERRUPT_RANGE, INTERRUPTS, true, TRANSLATED);
    assert_int_equal(unit.interrupt_count, 0);
    unit_fini(&unit);
}

/* With translation off nothing is known of device-TLBs; nothing is recorded either. */
static void test_translation_off(void **state)
{
    struct unit unit;
    struct viommu_ats_entry entry;

    (void)state;
    ats_init(&unit, &(struct viommu_vtd_config){0}, SPEC_TT_ALL);
    guest_command(&unit.guest, SPEC_TE, false);
    assert_int_equal(ask(&unit, 0x1000, false, &entry), -EFAULT);
    assert_int_equal(translated_write(&unit, 0x1000), -EFAULT);
    unit_expect_no_fault(&unit);
    unit_fini(&unit);
}

/* ---- the call -------------------------------------------------------------------------------- */

static void test_bad_calls(void **state)
{
    struct unit unit;
    struct viommu_ats_entry entry;
    struct viommu_dma_attrs attrs = {.alias = 1};
    struct viommu_device *d;

    (void)state;
    ats_init(&unit, &(struct viommu_vtd_config){0}, SPEC_TT_ALL);
    d = unit.device;
    assert_int_equal(viommu_device_ats_translate(d, NULL, 0, 0, false, &entry, 1), -EINVAL);
    assert_int_equal(viommu_device_ats_translate(d, NULL, 0, 1, false, &entry, 0), -EINVAL);
    assert_int_equal(viommu_device_ats_translate(d, NULL, ~0ull, 2, false, &entry, 1), -EINVAL);
    assert_int_equal(viommu_device_ats_translate(d, NULL, 1, ~0ull, false, &entry, 1), 1);
    assert_int_equal(viommu_device_ats_translate(d, NULL, 2, ~0ull, false, &entry, 1), -EINVAL);
    assert_int_equal(viommu_device_ats_translate(d, &attrs, 0, 1, false, &entry, 1), -EINVAL);
    unit_fini(&unit);
}

static void test_needs_ats(void **state)
{
    struct unit unit;
    struct viommu_device_config config = {.requester = 0x100};
    struct viommu_ats_entry entry;
    struct viommu_device *device;

    (void)state;
    ats_init(&unit, &(struct viommu_vtd_config){0}, SPEC_TT_ALL);
    assert_int_equal(viommu_device_add(unit.guest.iommu, &config, &device), 0);
    assert_int_equal(viommu_device_ats_translate(device, NULL, 0, 1, false, &entry, 1), -ENOTSUP);
    unit_fini(&unit);
    unit_init(&unit, &(struct viommu_vtd_config){0});
    config.ats = true;
    assert_int_equal(viommu_device_add(unit.guest.iommu, &config, &device), -ENOTSUP);
    unit_fini(&unit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answer),
        cmocka_unit_test(test_answer_of_a_super_page),
        cmocka_unit_test(test_run),
        cmocka_unit_test(test_run_ends_at_another_size),
        cmocka_unit_test(test_nothing_there),
        cmocka_unit_test(test_refused_with_reason),
        cmocka_unit_test(test_fault_processing_disable),
        cmocka_unit_test(test_interrupt_range),
        cmocka_unit_test(test_super_page_meets_interrupt_range),
        cmocka_unit_test(test_type_blocks),
        cmocka_unit_test(test_untranslated_with_device_tlb),
        cmocka_unit_test(test_translated),
        cmocka_unit_test(test_translation_off),
        cmocka_unit_test(test_bad_calls),
        cmocka_unit_test(test_needs_ats),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
