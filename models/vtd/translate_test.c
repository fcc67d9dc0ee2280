/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of requests: tables of all widths and page sizes, permissions, reserved bits, the interrupt
 * address range, pass-through, zero-length reads. Requests of device-TLBs are in ats_test.c.
 */
#include "vtd/test_unit.h"

#include <errno.h>

#define RW (SPEC_R | SPEC_W)
#define SIZE_2M 0x200000ull
#define SIZE_1G 0x40000000ull
#define INTERRUPTS 0xfee00000ull

static void translate_init(struct unit *unit, const struct viommu_vtd_config *config)
{
    unit_init(unit, config);
    unit_translate(unit);
}

/* Changes an entry and drops what was cached. */
static void set_entry(struct unit *unit, uint64_t slot, uint64_t entry)
{
    guest_store(&unit->guest, slot, entry);
    guest_flush_iotlb(&unit->guest, SPEC_GLOBAL, 0, 0, 0);
}

static void expect_read_fault(struct unit *unit, uint64_t iova, unsigned reason)
{
    assert_int_equal(unit_read(unit, iova), -EFAULT);
    unit_expect_fault(unit, reason, iova, false);
}

static void expect_write_fault(struct unit *unit, uint64_t iova, unsigned reason)
{
    assert_int_equal(unit_write(unit, iova), -EFAULT);
    unit_expect_fault(unit, reason, iova, true);
}

static void test_data_arrives(void **state)
{
    struct unit unit;
    uint64_t page;
    uint64_t value = 0x1122334455667788;

    (void)state;
    translate_init(&unit, &(struct viommu_vtd_config){0});
    page = guest_page(&unit.guest);
    unit_map(&unit, 0x7000, page, 1, RW);
    assert_int_equal(viommu_device_write(unit.device, NULL, 0x7ff8, &value, 8), 0);
    assert_int_equal(guest_load(&unit.guest, page + 0xff8), value);
    guest_store(&unit.guest, page + 8, 42);
    assert_int_equal(viommu_device_read(unit.device, NULL, 0x7008, &value, 8), 0);
    assert_int_equal(value, 42);
    unit_fini(&unit);
}

/* The first and the last page of each width, and the first address past it. */
static void try_width(uint8_t address_width, unsigned levels, unsigned bits)
{
    struct unit unit;
    uint64_t end = 1ull << bits;
    uint64_t page;

    unit_init(&unit, &(struct viommu_vtd_config){.address_width = address_width});
    unit.levels = levels;
    unit_translate(&unit);
    page = guest_page(&unit.guest);
    unit_map(&unit, 0, page, 1, RW);
    unit_map(&unit, end - 0x1000, page + 0x1000, 1, RW);
    assert_int_equal(unit_gpa(&unit, 8), page + 8);
    assert_int_equal(unit_gpa(&unit, end - 8), page + 0x1ff8);
    assert_int_equal(unit_read(&unit, end), -EFAULT);
    /* The recorded address is cut at the widest that the unit has. */
    unit_expect_fault(&unit, SPEC_BEYOND_WIDTH, end & ((1ull << address_width) - 1), false);
    assert_int_equal(unit_write(&unit, 1ull << 63), -EFAULT);
    unit_expect_fault(&unit, SPEC_BEYOND_WIDTH, 0, true);
    assert_int_equal(unit_read_nothing(&unit, ~0ull), -EFAULT);
    unit_expect_fault(&unit, SPEC_BEYOND_WIDTH, (1ull << address_width) - 1, false);
    unit_fini(&unit);
}

static void test_widths(void **state)
{
    (void)state;
    try_width(39, 3, 39);
    try_width(48, 3, 39);
    try_width(48, 4, 48);
    try_width(57, 3, 39);
    try_width(57, 4, 48);
    try_width(57, 5, 57);
}

/* A different entry at each level leads to a different page. */
static void test_every_level_counts(void **state)
{
    struct unit unit;

    (void)state;
    translate_init(&unit, &(struct viommu_vtd_config){.address_width = 57});
    for (unsigned shift = 12; shift < 57; shift++) {
        unit_map(&unit, 1ull << shift, (uint64_t)shift << 12, 1, RW);
    }
    for (unsigned shift = 12; shift < 57; shift++) {
        assert_int_equal(unit_gpa(&unit, (1ull << shift) + 0x123), ((uint64_t)shift << 12) + 0x123);
    }
    unit_fini(&unit);
}

static void test_super_pages(void **state)
{
    struct unit unit;
    struct viommu_translation out;

    (void)state;
    translate_init(&unit, &(struct viommu_vtd_config){0});
    unit_map(&unit, SIZE_1G, SIZE_1G * 5, 3, RW);
    unit_map(&unit, SIZE_2M, SIZE_2M * 7, 2, SPEC_R);
    assert_int_equal(unit_gpa(&unit, SIZE_1G + 0x12345678), SIZE_1G * 5 + 0x12345678);
    assert_int_equal(unit_gpa(&unit, SIZE_2M + 0x123456), SIZE_2M * 7 + 0x123456);
    assert_int_equal(unit_gpa(&unit, 2 * SIZE_2M - 1), SIZE_2M * 8 - 1);
    assert_int_equal(
        viommu_device_translate(unit.device, NULL, SIZE_2M + 0x199999, VIOMMU_READ, &out), 0);
    assert_int_equal(out.perm, VIOMMU_READ);
    assert_int_equal(out.gpa, SIZE_2M * 7 + 0x199999);
    expect_write_fault(&unit, SIZE_2M + 0x1000, SPEC_WRITE);
    unit_fini(&unit);
}

static void test_no_super_pages(void **state)
{
    struct unit unit;

    (void)state;
    translate_init(&unit, &(struct viommu_vtd_config){.no_super_pages = true});
    unit_map(&unit, SIZE_1G, 0, 3, RW);
    unit_map(&unit, SIZE_2M, 0, 2, RW);
    expect_read_fault(&unit, SIZE_1G, SPEC_TABLE_RESERVED);
    expect_read_fault(&unit, SIZE_2M, SPEC_TABLE_RESERVED);
    unit_fini(&unit);
}

/* Effective permission is what all levels allow. */
static void test_permissions(void **state)
{
    struct unit unit;
    uint64_t slots[4]; /* of levels 1 to 4, for iova 0 */
    uint64_t entries[4];

    (void)state;
    translate_init(&unit, &(struct viommu_vtd_config){0});
    slots[0] = unit_map(&unit, 0, guest_page(&unit.guest), 1, RW);
    slots[3] = unit.table;
    slots[2] = guest_load(&unit.guest, slots[3]) & ~0xfffull;
    slots[1] = guest_load(&unit.guest, slots[2]) & ~0xfffull;
    assert_int_equal(guest_load(&unit.guest, slots[1]) & ~0xfffull, slots[0]);
    for (unsigned i = 0; i < 4; i++) {
        entries[i] = guest_load(&unit.guest, slots[i]) & ~RW;
    }
    for (unsigned perms = 0; perms < 256; perms++) {
        unsigned all = 3;

        for (unsigned i = 0; i < 4; i++) {
            all &= perms >> 2 * i & 3;
            guest_store(&unit.guest, slots[i], entries[i] | (perms >> 2 * i & 3));
        }
        guest_flush_iotlb(&unit.guest, SPEC_GLOBAL, 0, 0, 0);
        if (all & 1) {
            assert_int_equal(unit_read(&unit, 0), 0);
        } else {
            expect_read_fault(&unit, 0, SPEC_READ);
        }
        if (all & 2) {
            assert_int_equal(unit_write(&unit, 0), 0);
        } else {
            expect_write_fault(&unit, 0, SPEC_WRITE);
        }
        /* A zero-length read is allowed by either (CAP.ZLR). */
        if (all) {
            assert_int_equal(unit_read_nothing(&unit, 0), 0);
        } else {
            assert_int_equal(unit_read_nothing(&unit, 0), -EFAULT);
            unit_expect_fault(&unit, SPEC_READ, 0, false);
        }
    }
    unit_fini(&unit);
}

/* What is cached with one permission is looked up again for the other. */
static void test_cached_permission(void **state)
{
    struct unit unit;
    uint64_t page;

    (void)state;
    translate_init(&unit, &(struct viommu_vtd_config){0});
    page = guest_page(&unit.guest);
    unit_map(&unit, 0x1000, page, 1, SPEC_R);
    unit_map(&unit, 0x2000, page, 1, SPEC_W);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(unit_read(&unit, 0x1000), 0);
        expect_write_fault(&unit, 0x1000, SPEC_WRITE);
        assert_int_equal(unit_write(&unit, 0x2000), 0);
        assert_int_equal(unit_read_nothing(&unit, 0x2000), 0);
        expect_read_fault(&unit, 0x2000, SPEC_READ);
    }
    unit_fini(&unit);
}

/* ---- reserved bits of entries ---------------------------------------------------------------- */

/*
 * Every bit of an entry but permission and address: reserved gives the fault, others are
 * ignored.
 */
static void try_entry_bits(struct unit *unit, uint64_t slot, uint64_t iova, uint64_t reserved,
                           uint64_t ignored)
{
    uint64_t entry = guest_load(&unit->guest, slot);

    for (unsigned bit = 2; bit < 64; bit++) {
        if (reserved >> bit & 1) {
            set_entry(unit, slot, entry | 1ull << bit);
            expect_read_fault(unit, iova, SPEC_TABLE_RESERVED);
            /* With one permission only, too. */
            set_entry(unit, slot, (entry & ~SPEC_R) | 1ull << bit);
            expect_write_fault(unit, iova, SPEC_TABLE_RESERVED);
            /* An entry that allows nothing is not looked at further. */
            set_entry(unit, slot, (entry & ~RW) | 1ull << bit);
            expect_read_fault(unit, iova, SPEC_READ);
        } else if (ignored >> bit & 1) {
            set_entry(unit, slot, entry | 1ull << bit);
            assert_int_equal(unit_gpa(unit, iova), iova);
        }
    }
    set_entry(unit, slot, entry);
    assert_int_equal(unit_gpa(unit, iova), iova);
}

#define HIGH_IGNORED (0xffull << 52 | 1ull << 60 | 1ull << 61 | 1ull << 63)
#define HIGH_RESERVED(haw) ((((1ull << (52 - (haw))) - 1) << (haw)) | 1ull << 62)

static void try_reserved_bits(uint8_t haw, bool no_snoop)
{
    struct unit unit;
    uint64_t snoop = 1ull << 11;
    uint64_t always = HIGH_RESERVED(haw);
    uint64_t leaf = always | (no_snoop ? snoop : 0);
    uint64_t low_ignored = 0x77c; /* 6:2, 10:8 */
    uint64_t slot;

    translate_init(&unit, &(struct viommu_vtd_config){
                              .host_address_width = haw, .no_snoop_control = no_snoop});
    slot = unit_map(&unit, 0, 0, 1, RW);
    /* 4 KiB page: bit 7 is ignored. */
    try_entry_bits(&unit, slot, 0, leaf, HIGH_IGNORED | low_ignored | 1 << 7 | (snoop & ~leaf));
    /* The three levels above. */
    slot = unit.table;
    try_entry_bits(&unit, slot, 0, always | snoop | 1 << 7, HIGH_IGNORED | low_ignored);
    slot = guest_load(&unit.guest, slot) & ~0xfffull;
    try_entry_bits(&unit, slot, 0, always | snoop, HIGH_IGNORED | low_ignored);
    slot = guest_load(&unit.guest, slot) & ~0xfffull;
    try_entry_bits(&unit, slot, 0, always | snoop, HIGH_IGNORED | low_ignored);
    /* Larger pages: the address below their size. */
    slot = unit_map(&unit, SIZE_2M, SIZE_2M, 2, RW);
    try_entry_bits(&unit, slot, SIZE_2M, leaf | 0x1ff000,
                   HIGH_IGNORED | low_ignored | (snoop & ~leaf));
    slot = unit_map(&unit, SIZE_1G, SIZE_1G, 3, RW);
    try_entry_bits(&unit, slot, SIZE_1G, leaf | 0x3ffff000,
                   HIGH_IGNORED | low_ignored | (snoop & ~leaf));
    unit_fini(&unit);
}

static void test_reserved_bits(void **state)
{
    (void)state;
    try_reserved_bits(48, false);
    try_reserved_bits(36, true);
    try_reserved_bits(52, false);
}

static void test_unreadable_tables(void **state)
{
    struct unit unit;
    uint64_t slot;
    uint64_t good;

    (void)state;
    translate_init(&unit, &(struct viommu_vtd_config){0});
    unit_map(&unit, 0, 0, 1, RW);
    slot = unit.table;
    for (unsigned level = 4; level > 1; level--) {
        good = guest_load(&unit.guest, slot);
        set_entry(&unit, slot, 0x80000000 | RW);
        expect_read_fault(&unit, 0, SPEC_TABLE_ACCESS);
        set_entry(&unit, slot, good);
        slot = good & ~0xfffull;
    }
    assert_int_equal(unit_gpa(&unit, 0), 0);
    unit_fini(&unit);
}

/* A table that is its own child: the walk ends, at a page that is the table. */
static void test_table_points_to_itself(void **state)
{
    struct unit unit;

    (void)state;
    translate_init(&unit, &(struct viommu_vtd_config){0});
    for (unsigned i = 0; i < 512; i++) {
        guest_store(&unit.guest, unit.table + 8 * i, unit.table | RW);
    }
    assert_int_equal(unit_gpa(&unit, 0), unit.table);
    assert_int_equal(unit_gpa(&unit, 0xfffffffff123), unit.table + 0x123);
    unit_fini(&unit);
}

/* Nothing there: what a device sees is an error of the bus, not a fault of the guest's tables. */
static void test_page_without_memory(void **state)
{
    struct unit unit;

    (void)state;
    translate_init(&unit, &(struct viommu_vtd_config){0});
    unit_map(&unit, 0, 0x80000000, 1, RW);
    assert_int_equal(unit_read(&unit, 0), -ENXIO);
    assert_int_equal(unit_write(&unit, 0), -ENXIO);
    unit_expect_no_fault(&unit);
    unit_fini(&unit);
}

static void test_fault_processing_disable(void **state)
{
    struct unit unit;
    uint64_t lo;

    (void)state;
    translate_init(&unit, &(struct viommu_vtd_config){0});
    lo = unit.table | 1 << 1 | 1;
    guest_context(&unit.guest, unit.id, lo, UNIT_DOMAIN << 8 | 2);
    guest_flush_context(&unit.guest, SPEC_GLOBAL, 0, 0, 0);
    assert_int_equal(unit_read(&unit, 0), -EFAULT);
    assert_int_equal(unit_write(&unit, 0), -EFAULT);
    assert_int_equal(unit_read(&unit, 1ull << 50), -EFAULT);
    unit_map(&unit, 0, 0, 1, RW | 1ull << 62);
    assert_int_equal(unit_read(&unit, 0), -EFAULT);
    unit_map(&unit, 0x1000, INTERRUPTS, 1, RW);
    assert_int_equal(unit_read(&unit, 0x1000), -EFAULT);
    unit_expect_no_fault(&unit);
    /* But not a bad access to the interrupt range. */
    expect_read_fault(&unit, INTERRUPTS, 0x29);
    unit_fini(&unit);
}

/* ---- pass-through ---------------------------------------------------------------------------- */

static void test_pass_through(void **state)
{
    struct unit unit;
    struct viommu_translation out;

    (void)state;
    unit_init(&unit, &(struct viommu_vtd_config){.address_width = 39, .host_address_width = 46});
    unit_translate_as(&unit, SPEC_TT_PASS);
    assert_int_equal(unit_gpa(&unit, 0x1234), 0x1234);
    assert_int_equal(unit_write(&unit, 0x2000), 0);
    /* The host width is what counts, not that of the tables. */
    assert_int_equal(unit_gpa(&unit, (1ull << 46) - 1), (1ull << 46) - 1);
    assert_int_equal(unit_read(&unit, 1ull << 46), -EFAULT);
    unit_expect_fault(&unit, SPEC_BEYOND_WIDTH, 0, false);
    assert_int_equal(
        viommu_device_translate(unit.device, NULL, 0, VIOMMU_READ | VIOMMU_WRITE, &out), 0);
    assert_int_equal(out.perm, VIOMMU_READ | VIOMMU_WRITE);
    assert_false(out.interrupt);
    expect_read_fault(&unit, INTERRUPTS, 0x29);
    unit_fini(&unit);
}

/* ---- the interrupt address range ------------------------------------------------------------- */

static void test_interrupt(void **state)
{
    struct unit unit;
    uint32_t data = 0x4041;

    (void)state;
    translate_init(&unit, &(struct viommu_vtd_config){0});
    assert_int_equal(viommu_device_write(unit.device, NULL, INTERRUPTS + 0x100c, &data, 4), 0);
    assert_int_equal(unit.interrupt_count, 1);
    assert_int_equal(unit.interrupts[0].address, INTERRUPTS + 0x100c);
    assert_int_equal(unit.interrupts[0].data, 0x4041);
    assert_int_equal(unit.interrupts[0].requester, unit.id);
    assert_false(unit.interrupts[0].from_unit);
    assert_int_equal(viommu_device_write(unit.device, NULL, 0xfeeffffc, &data, 4), 0);
    assert_int_equal(unit.interrupt_count, 2);
    unit_expect_no_fault(&unit);
    unit_fini(&unit);
}

/* What is no aligned store of four bytes is refused, whatever the tables map there. */
static void test_interrupt_range_other_access(void **state)
{
    struct unit unit;
    uint8_t data[8] = {0};

    (void)state;
    translate_init(&unit, &(struct viommu_vtd_config){0});
    unit_map(&unit, INTERRUPTS, 0, 1, RW);
    expect_read_fault(&unit, INTERRUPTS, 0x29);
    for (unsigned len = 0; len <= 8; len++) {
        for (unsigned offset = 0; offset < 8; offset++) {
            if (len == 4 && offset % 4 == 0) {
                continue;
            }
            assert_int_equal(
                viommu_device_write(unit.device, NULL, INTERRUPTS + 0x10 + offset, data, len),
                -EFAULT);
            unit_expect_fault(&unit, 0x29, INTERRUPTS, true);
        }
    }
    /* A zero-length read succeeds, and nothing is recorded. */
    assert_int_equal(unit_read_nothing(&unit, INTERRUPTS), 0);
    unit_expect_no_fault(&unit);
    assert_int_equal(unit.interrupt_count, 0);
    unit_fini(&unit);
}

/*
 * A write that runs from memory into the range: it is two packets, page by page, and the second
 * is a
 * message with its own address and its own four bytes.
 */
static void test_interrupt_behind_memory(void **state)
{
    struct unit unit;
    uint32_t data[2] = {0x11111111, 0x22222222};
    uint64_t page;

    (void)state;
    translate_init(&unit, &(struct viommu_vtd_config){0});
    page = guest_page(&unit.guest);
    unit_map(&unit, INTERRUPTS - 0x1000, page, 1, RW);
    assert_int_equal(viommu_device_write(unit.device, NULL, INTERRUPTS - 4, data, 8), 0);
    assert_int_equal(guest_load(&unit.guest, page + 0xff8) >> 32, 0x11111111);
    assert_int_equal(unit.interrupt_count, 1);
    assert_int_equal(unit.interrupts[0].address, INTERRUPTS);
    assert_int_equal(unit.interrupts[0].data, 0x22222222);
    unit_fini(&unit);
}

/* The neighbours on both sides are ordinary. */
static void test_interrupt_range_neighbours(void **state)
{
    struct unit unit;

    (void)state;
    translate_init(&unit, &(struct viommu_vtd_config){0});
    unit_map(&unit, INTERRUPTS - 0x1000, 0x3000, 1, RW);
    unit_map(&unit, 0xfef00000, 0x4000, 1, RW);
    assert_int_equal(unit_gpa(&unit, INTERRUPTS - 1), 0x3fff);
    assert_int_equal(unit_gpa(&unit, 0xfef00000), 0x4000);
    unit_fini(&unit);
}

/* A page that leads into the range. */
static void test_interrupt_range_as_output(void **state)
{
    struct unit unit;

    (void)state;
    translate_init(&unit, &(struct viommu_vtd_config){0});
    unit_map(&unit, 0x1000, INTERRUPTS, 1, RW);
    unit_map(&unit, 0x2000, 0xfeeff000, 1, RW);
    unit_map(&unit, 0x3000, 0xfef00000, 1, RW);
    for (unsigned i = 0; i < 2; i++) {
        expect_read_fault(&unit, 0x1000, SPEC_INTERRUPT_RANGE);
        expect_write_fault(&unit, 0x2ff8, SPEC_INTERRUPT_RANGE);
        assert_int_equal(unit_gpa(&unit, 0x3000), 0xfef00000);
    }
    unit_fini(&unit);
}

/* Of a super-page that spans the range, on either side, only the rest can be used. */
static void test_super_page_meets_interrupt_range(void **state)
{
    static const uint64_t probes[] = {0, 0x1000, 0xff000, 0x100000, 0x1ff000};
    struct unit unit;
    struct viommu_translation out;

    (void)state;
    translate_init(&unit, &(struct viommu_vtd_config){0});
    /* Input: 0xfee00000 is the start of a 2 MiB page of which the first MiB is the range. */
    unit_map(&unit, INTERRUPTS, 0, 2, RW);
    /* Output: the same, elsewhere. */
    unit_map(&unit, 0, INTERRUPTS, 2, RW);
    for (unsigned i = 0; i < sizeof(probes) / sizeof(*probes); i++) {
        bool inside = probes[i] < 0x100000;

        if (inside) {
            expect_read_fault(&unit, INTERRUPTS + probes[i], 0x29);
            expect_read_fault(&unit, probes[i], SPEC_INTERRUPT_RANGE);
            continue;
        }
        assert_int_equal(viommu_device_translate(unit.device, NULL, INTERRUPTS + probes[i],
                                                 VIOMMU_READ, &out), 0);
        assert_int_equal(out.gpa, probes[i]);
        assert_true(out.mask <= 0xfffff);
        assert_int_equal(
            viommu_device_translate(unit.device, NULL, probes[i], VIOMMU_READ, &out), 0);
        assert_int_equal(out.gpa, INTERRUPTS + probes[i]);
        assert_true(out.mask <= 0xfffff);
    }
    unit_fini(&unit);
}

/* A 1 GiB page around the range: the range inside is still the range. */
static void test_giant_page_around_interrupt_range(void **state)
{
    struct unit unit;
    uint32_t data = 1;

    (void)state;
    translate_init(&unit, &(struct viommu_vtd_config){0});
    unit_map(&unit, 0xc0000000, 0x40000000, 3, RW);
    assert_int_equal(unit_gpa(&unit, 0xfedfffff), 0x7edfffff);
    assert_int_equal(unit_gpa(&unit, 0xfef00000), 0x7ef00000);
    expect_read_fault(&unit, INTERRUPTS, 0x29);
    assert_int_equal(viommu_device_write(unit.device, NULL, INTERRUPTS, &data, 4), 0);
    assert_int_equal(unit.interrupt_count, 1);
    unit_fini(&unit);
}

static void test_interrupt_without_translation(void **state)
{
    struct unit unit;
    uint32_t data = 7;

    (void)state;
    unit_init(&unit, &(struct viommu_vtd_config){0});
    assert_int_equal(viommu_device_write(unit.device, NULL, INTERRUPTS, &data, 4), 0);
    assert_int_equal(unit.interrupt_count, 1);
    /* Nothing is recorded while no unit is at work. */
    (void)unit_read(&unit, INTERRUPTS);
    unit_expect_no_fault(&unit);
    unit_fini(&unit);
}

/* ---- sharing --------------------------------------------------------------------------------- */

/* Two devices of one domain share what is cached; of two domains they do not. */
static void test_devices_share_a_domain(void **state)
{
    struct unit unit;
    struct viommu_device_config config = {.requester = viommu_requester(0, 6, 0)};
    struct viommu_translation out;
    struct viommu_device *other;
    struct viommu_stats stats;

    (void)state;
    translate_init(&unit, &(struct viommu_vtd_config){0});
    unit_map(&unit, 0x1000, 0x3000, 1, RW);
    assert_int_equal(viommu_device_add(unit.guest.iommu, &config, &other), 0);
    guest_attach(&unit.guest, config.requester, UNIT_DOMAIN, unit.table, 4, SPEC_TT_UNTRANSLATED);
    assert_int_equal(unit_gpa(&unit, 0x1000), 0x3000);
    assert_int_equal(viommu_device_translate(other, NULL, 0x1000, VIOMMU_READ, &out), 0);
    /* Its first request fetches its context; the second finds what the first device left. */
    assert_int_equal(viommu_device_translate(other, NULL, 0x1000, VIOMMU_READ, &out), 0);
    viommu_stats_get(unit.guest.iommu, &stats, sizeof(stats));
    assert_int_equal(stats.translations, 3);
    assert_int_equal(stats.context_fetches, 2);
    assert_true(stats.iotlb_hits >= 1);
    unit_fini(&unit);
}

/* One domain id with two roots: each device follows its own context entry. */
static void test_one_domain_two_roots(void **state)
{
    struct unit unit;
    struct viommu_device_config config = {.requester = viommu_requester(0, 6, 0)};
    struct viommu_translation out;
    struct viommu_device *other;
    uint64_t table;

    (void)state;
    translate_init(&unit, &(struct viommu_vtd_config){0});
    unit_map(&unit, 0x1000, 0x3000, 1, RW);
    table = guest_page(&unit.guest);
    guest_map(&unit.guest, table, 4, 0x1000, 0x4000, 1, RW);
    assert_int_equal(viommu_device_add(unit.guest.iommu, &config, &other), 0);
    guest_attach(&unit.guest, config.requester, UNIT_DOMAIN, table, 4, SPEC_TT_UNTRANSLATED);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(unit_gpa(&unit, 0x1000), 0x3000);
        assert_int_equal(viommu_device_translate(other, NULL, 0x1000, VIOMMU_READ, &out), 0);
        assert_int_equal(out.gpa, 0x4000);
    }
    unit_fini(&unit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_data_arrives),
        cmocka_unit_test(test_widths),
        cmocka_unit_test(test_every_level_counts),
        cmocka_unit_test(test_super_pages),
        cmocka_unit_test(test_no_super_pages),
        cmocka_unit_test(test_permissions),
        cmocka_unit_test(test_cached_permission),
        cmocka_unit_test(test_reserved_bits),
        cmocka_unit_test(test_unreadable_tables),
        cmocka_unit_test(test_table_points_to_itself),
        cmocka_unit_test(test_page_without_memory),
        cmocka_unit_test(test_fault_processing_disable),
        cmocka_unit_test(test_pass_through),
        cmocka_unit_test(test_interrupt),
        cmocka_unit_test(test_interrupt_range_other_access),
        cmocka_unit_test(test_interrupt_behind_memory),
        cmocka_unit_test(test_interrupt_range_neighbours),
        cmocka_unit_test(test_interrupt_range_as_output),
        cmocka_unit_test(test_super_page_meets_interrupt_range),
        cmocka_unit_test(test_giant_page_around_interrupt_range),
        cmocka_unit_test(test_interrupt_without_translation),
        cmocka_unit_test(test_devices_share_a_domain),
        cmocka_unit_test(test_one_domain_two_roots),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
