/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of root and context entries: each reserved bit, each unsupported value, the fault each
 * gives,
 * and which of them FPD keeps from being recorded.
 */
#include "base/alloc.h"
#include "vtd/test_unit.h"

#include <errno.h>

#define IOVA 0x5000ull
#define FPD 2ull

/* A translating unit with one page mapped at IOVA, and where its entries are. */
struct tables {
    struct unit unit;
    uint64_t root_entry;
    uint64_t context_entry;
    uint64_t lo; /* good values */
    uint64_t hi;
};

static void tables_init(struct tables *tables, const struct viommu_vtd_config *config)
{
    struct unit *unit = &tables->unit;
    struct guest *guest = &unit->guest;

    unit_init(unit, config);
    unit_translate(unit);
    unit_map(unit, IOVA, guest_page(guest), 1, SPEC_R | SPEC_W);
    tables->root_entry = guest->root + (unit->id >> 8) * 16u;
    tables->context_entry =
        (guest_load(guest, tables->root_entry) & ~0xfffull) + (unit->id & 0xff) * 16u;
    tables->lo = guest_load(guest, tables->context_entry);
    tables->hi = guest_load(guest, tables->context_entry + 8);
}

/* Writes an entry and invalidates what the unit knows. */
static void set(struct tables *tables, uint64_t entry, uint64_t lo, uint64_t hi)
{
    struct guest *guest = &tables->unit.guest;

    guest_store(guest, entry, lo);
    guest_store(guest, entry + 8, hi);
    guest_flush_context(guest, SPEC_GLOBAL, 0, 0, 0);
    guest_flush_iotlb(guest, SPEC_GLOBAL, 0, 0, 0);
}

static void expect_good(struct tables *tables)
{
    assert_int_equal(unit_read(&tables->unit, IOVA), 0);
    unit_expect_no_fault(&tables->unit);
}

static void expect(struct tables *tables, unsigned reason)
{
    assert_int_equal(unit_read(&tables->unit, IOVA), -EFAULT);
    unit_expect_fault(&tables->unit, reason, IOVA, false);
}

/* A context entry that is wrong: recorded, unless FPD. */
static void expect_context(struct tables *tables, uint64_t lo, uint64_t hi, unsigned reason)
{
    set(tables, tables->context_entry, lo, hi);
    expect(tables, reason);
    set(tables, tables->context_entry, lo | FPD, hi);
    assert_int_equal(unit_read(&tables->unit, IOVA), -EFAULT);
    unit_expect_no_fault(&tables->unit);
}

static void test_root_entry(void **state)
{
    struct tables t;
    uint64_t lo;

    (void)state;
    tables_init(&t, &(struct viommu_vtd_config){.host_address_width = 40});
    lo = guest_load(&t.unit.guest, t.root_entry);
    expect_good(&t);
    set(&t, t.root_entry, 0, 0);
    expect(&t, SPEC_ROOT_NOT_PRESENT);
    /* Not present, nothing else counts. */
    set(&t, t.root_entry, ~1ull, ~0ull);
    expect(&t, SPEC_ROOT_NOT_PRESENT);
    for (unsigned bit = 0; bit < 64; bit++) {
        if ((bit >= 1 && bit <= 11) || bit >= 40) {
            set(&t, t.root_entry, lo | 1ull << bit, 0);
            expect(&t, SPEC_ROOT_RESERVED);
        }
        set(&t, t.root_entry, lo, 1ull << bit);
        expect(&t, SPEC_ROOT_RESERVED);
    }
    set(&t, t.root_entry, lo, 0);
    expect_good(&t);
    unit_fini(&t.unit);
}

/* No memory at the table's address, or an address that cannot be. */
static void test_root_table_unreadable(void **state)
{
    static const uint64_t roots[] = {0x80000000, 1ull << 40, ~0xfffull};
    struct tables t;

    (void)state;
    tables_init(&t, &(struct viommu_vtd_config){.host_address_width = 40});
    for (unsigned i = 0; i < 3; i++) {
        guest_write(&t.unit.guest, SPEC_RTADDR, 8, roots[i]);
        guest_command(&t.unit.guest, SPEC_SRTP, true);
        expect(&t, SPEC_ROOT_ACCESS);
    }
    guest_set_root(&t.unit.guest);
    expect_good(&t);
    unit_fini(&t.unit);
}

/* Memory past the host width cannot hold it, though it is there. */
static void test_root_table_past_the_width(void **state)
{
    struct tables t;
    struct viommu_memory_batch *batch;
    struct viommu_memory_slot slot = {.first = 1ull << 40, .last = (1ull << 40) + 0xfff, .fd = -1};

    (void)state;
    tables_init(&t, &(struct viommu_vtd_config){.host_address_width = 40});
    slot.host = guest_host(&t.unit.guest, t.unit.guest.root);
    assert_int_equal(viommu_memory_batch_begin(t.unit.guest.memory, &batch), 0);
    assert_int_equal(viommu_memory_batch_add(batch, &slot), 0);
    assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), 0);
    guest_write(&t.unit.guest, SPEC_RTADDR, 8, slot.first);
    guest_command(&t.unit.guest, SPEC_SRTP, true);
    expect(&t, SPEC_ROOT_ACCESS);
    unit_fini(&t.unit);
}

static void test_root_table_mode(void **state)
{
    struct tables t;

    (void)state;
    tables_init(&t, &(struct viommu_vtd_config){0});
    for (uint64_t mode = 1; mode < 4; mode++) {
        guest_write(&t.unit.guest, SPEC_RTADDR, 8, t.unit.guest.root | mode << 10);
        guest_command(&t.unit.guest, SPEC_SRTP, true);
        expect(&t, SPEC_ROOT_MODE);
    }
    unit_fini(&t.unit);
}

static void test_context_table_unreadable(void **state)
{
    struct tables t;

    (void)state;
    tables_init(&t, &(struct viommu_vtd_config){0});
    set(&t, t.root_entry, 0x80000001, 0);
    expect(&t, SPEC_CONTEXT_ACCESS);
    unit_fini(&t.unit);
}

/* The context entry of the last function of a bus lies at the end of its table. */
static void test_entry_places(void **state)
{
    static const uint16_t ids[] = {0x0000, 0x0001, 0x00ff, 0x8000, 0xff00, 0xffff};
    struct tables t;

    (void)state;
    tables_init(&t, &(struct viommu_vtd_config){0});
    for (unsigned i = 0; i < sizeof(ids) / sizeof(*ids); i++) {
        uint64_t table = guest_page(&t.unit.guest);
        uint64_t page = guest_page(&t.unit.guest);

        guest_map(&t.unit.guest, table, 4, IOVA, page, 1, SPEC_R);
        guest_attach(&t.unit.guest, ids[i], 9, table, 4, SPEC_TT_UNTRANSLATED);
        assert_int_equal(viommu_device_set_requester(t.unit.device, ids[i]), 0);
        assert_int_equal(unit_gpa(&t.unit, IOVA), page);
    }
    unit_fini(&t.unit);
}

static void test_context_not_present(void **state)
{
    struct tables t;

    (void)state;
    tables_init(&t, &(struct viommu_vtd_config){0});
    expect_context(&t, 0, 0, SPEC_CONTEXT_NOT_PRESENT);
    /* FPD is the one bit that counts. */
    expect_context(&t, ~(FPD | 1), ~0ull, SPEC_CONTEXT_NOT_PRESENT);
    unit_fini(&t.unit);
}

static void test_context_reserved(void **state)
{
    struct tables t;

    (void)state;
    tables_init(&t, &(struct viommu_vtd_config){.host_address_width = 40});
    for (unsigned bit = 0; bit < 64; bit++) {
        if ((bit >= 4 && bit <= 11) || bit >= 40) {
            expect_context(&t, t.lo | 1ull << bit, t.hi, SPEC_CONTEXT_RESERVED);
        }
        if (bit == 7 || bit >= 24) {
            expect_context(&t, t.lo, t.hi | 1ull << bit, SPEC_CONTEXT_RESERVED);
        }
    }
    /* Bits 70:67 are software's. */
    set(&t, t.context_entry, t.lo, t.hi | 0x78);
    expect_good(&t);
    unit_fini(&t.unit);
}

/* Domain ids past what ND says are reserved bits. */
static void test_domain_bits(void **state)
{
    (void)state;
    for (uint8_t bits = 4; bits <= 16; bits += 2) {
        struct tables t;

        tables_init(&t, &(struct viommu_vtd_config){.domain_bits = bits});
        for (unsigned bit = 0; bit < 16; bit++) {
            uint64_t hi = t.hi | 1ull << (8 + bit);

            if (bit >= bits) {
                expect_context(&t, t.lo, hi, SPEC_CONTEXT_RESERVED);
            } else {
                set(&t, t.context_entry, t.lo, hi);
                expect_good(&t);
            }
        }
        unit_fini(&t.unit);
    }
}

static void test_address_width(void **state)
{
    static const uint8_t widths[] = {39, 48, 57};

    (void)state;
    for (unsigned w = 0; w < 3; w++) {
        struct tables t;

        tables_init(&t, &(struct viommu_vtd_config){.address_width = widths[w]});
        for (uint64_t aw = 0; aw < 8; aw++) {
            bool supported =
                aw == 1 || (aw == 2 && widths[w] >= 48) || (aw == 3 && widths[w] == 57);
            /* With pass-through the tables do not count, but the width does. */
            uint64_t lo = (t.lo & ~0xcull) | 2u << 2;

            if (supported) {
                set(&t, t.context_entry, lo, (t.hi & ~7ull) | aw);
                expect_good(&t);
            } else {
                expect_context(&t, lo, (t.hi & ~7ull) | aw, SPEC_CONTEXT_INVALID);
                expect_context(&t, t.lo, (t.hi & ~7ull) | aw, SPEC_CONTEXT_INVALID);
            }
        }
        unit_fini(&t.unit);
    }
}

static void test_translation_type(void **state)
{
    (void)state;
    for (unsigned dt = 0; dt < 2; dt++) {
        for (unsigned no_pt = 0; no_pt < 2; no_pt++) {
            struct tables t;

            tables_init(&t, &(struct viommu_vtd_config){.device_tlb = dt,
                                                        .no_pass_through = no_pt});
            for (uint64_t type = 0; type < 4; type++) {
                bool supported = type == 0 || (type == 1 && dt) || (type == 2 && !no_pt);
                uint64_t lo = (t.lo & ~0xcull) | type << 2;

                if (supported) {
                    set(&t, t.context_entry, lo, t.hi);
                    expect_good(&t);
                } else {
                    expect_context(&t, lo, t.hi, SPEC_CONTEXT_INVALID);
                }
            }
            unit_fini(&t.unit);
        }
    }
}

/* Reserved bits come before width and type. */
static void test_order_of_checks(void **state)
{
    struct tables t;

    (void)state;
    tables_init(&t, &(struct viommu_vtd_config){0});
    expect_context(&t, t.lo | 3 << 2 | 1 << 4, t.hi | 7, SPEC_CONTEXT_RESERVED);
    unit_fini(&t.unit);
}

/* Pass-through does not look at the table pointer. */
static void test_pass_through_ignores_pointer(void **state)
{
    struct tables t;

    (void)state;
    tables_init(&t, &(struct viommu_vtd_config){.host_address_width = 40});
    set(&t, t.context_entry, ~0xfffull | 2u << 2 | 1, t.hi);
    expect_good(&t);
    assert_int_equal(unit_gpa(&t.unit, IOVA), IOVA);
    unit_fini(&t.unit);
}

static void test_first_table_unreadable(void **state)
{
    struct tables t;

    (void)state;
    tables_init(&t, &(struct viommu_vtd_config){0});
    expect_context(&t, 0x80000001, t.hi, SPEC_CONTEXT_INVALID);
    unit_fini(&t.unit);
}

/* Nothing that was refused is remembered: when the entry becomes good it is used at once. */
static void test_faults_are_not_cached(void **state)
{
    static const bool caching_mode[] = {false, true};

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct tables t;
        struct guest *guest = &t.unit.guest;

        tables_init(&t, &(struct viommu_vtd_config){.caching_mode = caching_mode[i]});
        guest_store(guest, t.context_entry, 0);
        expect(&t, SPEC_CONTEXT_NOT_PRESENT);
        guest_store(guest, t.context_entry, t.lo);
        if (!caching_mode[i]) {
            expect_good(&t);
        }
        guest_flush_context(guest, SPEC_GLOBAL, 0, 0, 0);
        expect_good(&t);
        unit_fini(&t.unit);
    }
}

/* Without translation nobody looks at the tables. */
static void test_translation_off(void **state)
{
    struct tables t;

    (void)state;
    tables_init(&t, &(struct viommu_vtd_config){0});
    guest_command(&t.unit.guest, SPEC_TE, false);
    set(&t, t.root_entry, ~0ull, ~0ull);
    assert_int_equal(unit_gpa(&t.unit, IOVA), IOVA);
    assert_int_equal(unit_write(&t.unit, IOVA), 0);
    unit_expect_no_fault(&t.unit);
    unit_fini(&t.unit);
}

/*
 * Without memory a context is used and not remembered; the embedder is told, the guest sees
 * nothing.
 */
static void test_no_memory_for_a_context(void **state)
{
    struct tables t;
    struct viommu_stats stats;

    (void)state;
    tables_init(&t, &(struct viommu_vtd_config){0});
    expect_good(&t); /* this thread's first section needs memory too */
    for (unsigned n = 1; n <= 2; n++) {
        set(&t, t.context_entry, t.lo, t.hi);
        t.unit.event_count = 0;
        base_alloc_fail_at(n);
        expect_good(&t);
        assert_true(base_alloc_failed());
        base_alloc_fail_at(0);
        guest_process(&t.unit.guest);
        assert_int_equal(t.unit.event_count, 1);
        assert_int_equal(t.unit.events[0].kind, VIOMMU_EVENT_HOST_FAILURE);
        assert_int_equal(t.unit.events[0].error, -ENOMEM);
        assert_int_equal(t.unit.events[0].requester, t.unit.id);
    }
    /* Three fetches, one each that was not remembered; the next is, and then none is needed. */
    expect_good(&t);
    expect_good(&t);
    viommu_stats_get(t.unit.guest.iommu, &stats, sizeof(stats));
    assert_int_equal(stats.context_fetches, 4);
    unit_fini(&t.unit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_root_entry),
        cmocka_unit_test(test_root_table_unreadable),
        cmocka_unit_test(test_root_table_past_the_width),
        cmocka_unit_test(test_root_table_mode),
        cmocka_unit_test(test_context_table_unreadable),
        cmocka_unit_test(test_entry_places),
        cmocka_unit_test(test_context_not_present),
        cmocka_unit_test(test_context_reserved),
        cmocka_unit_test(test_domain_bits),
        cmocka_unit_test(test_address_width),
        cmocka_unit_test(test_translation_type),
        cmocka_unit_test(test_order_of_checks),
        cmocka_unit_test(test_pass_through_ignores_pointer),
        cmocka_unit_test(test_first_table_unreadable),
        cmocka_unit_test(test_faults_are_not_cached),
        cmocka_unit_test(test_translation_off),
        cmocka_unit_test(test_no_memory_for_a_context),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
