/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the walker, with a format of its own: every level, page sizes, reserved bits,
 * permissions, tables
 * without memory, and that each entry is read once.
 *
 * "Once" is shown by a format whose bits lie so that a walk can pass through one entry that
 * another thread
 * flips between two tables: both are valid, and what comes out is one of the two whole.
 */
#include "pagetable/pagetable.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define PAGE UINT64_C(4096)
#define PAGES 16u
#define BASE UINT64_C(0x100000) /* where the tables lie for the guest */

#define READ 1ULL
#define WRITE 2ULL
#define RW (READ | WRITE)
#define LARGE (1ULL << 7)
#define NO_TABLE (1ULL << 11) /* reserved in entries that point to tables */
#define NO_PAGE (1ULL << 10)  /* and in those that map pages */

static const struct pagetable_format format = {
    .read = READ,
    .write = WRITE,
    .large = LARGE,
    .reserved_table = NO_TABLE | 1ULL << 62,
    .reserved_page = NO_PAGE | 1ULL << 62,
    .large_levels = 1 << 1 | 1 << 2,
};

static _Alignas(4096) uint64_t tables[PAGES][512];
static struct memory_snapshot *snapshot;

static int setup(void **state)
{
    (void)state;
    memset(tables, 0, sizeof(tables));
    snapshot = calloc(1, sizeof(*snapshot) + sizeof(struct viommu_memory_slot));
    if (!snapshot) {
        return 1;
    }
    snapshot->count = 1;
    snapshot->slots[0] = (struct viommu_memory_slot){
        .first = BASE, .last = BASE + (sizeof(tables) - 1), .host = tables, .fd = -1};
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(snapshot);
    return 0;
}

static uint64_t table(unsigned i)
{
    return BASE + i * PAGE;
}

/*
 * Tables 0, 1, 2... are those of the levels from the top; entry `index` of each leads to the
 * next.
 */
static void chain(unsigned levels, uint64_t iova, uint64_t gpa)
{
    for (unsigned i = 0; i < levels; i++) {
        unsigned index = iova >> (12 + 9 * (levels - 1 - i)) & 511;

        tables[i][index] = htole64((i + 1 < levels ? table(i + 1) : gpa) | RW);
    }
}

static enum pagetable_status walk(unsigned levels, uint64_t iova, struct pagetable_walk *out)
{
    *out = (struct pagetable_walk){0};
    return pagetable_walk(&format, snapshot, table(0), levels, iova, out);
}

static void test_levels(void **state)
{
    struct pagetable_walk out;

    (void)state;
    for (unsigned levels = 1; levels <= 5; levels++) {
        uint64_t bits = 12 + 9 * levels;
        uint64_t iova = 0x123456789abcd123 & ((UINT64_C(1) << bits) - 1);

        memset(tables, 0, sizeof(tables));
        chain(levels, iova, 0xabc000);
        assert_int_equal(walk(levels, iova, &out), PAGETABLE_OK);
        assert_int_equal(out.gpa, 0xabc000 | (iova & 0xfff));
        assert_int_equal(out.mask, 0xfff);
        assert_int_equal(out.perm, VIOMMU_READ | VIOMMU_WRITE);
        assert_int_equal(out.level, 0);
        assert_int_equal(out.entry, 0xabc000 | RW);
        /* Every other index at any level is empty. */
        for (unsigned bit = 12; bit < bits; bit++) {
            assert_int_equal(walk(levels, iova ^ UINT64_C(1) << bit, &out), PAGETABLE_NOT_PRESENT);
            assert_int_equal(out.level, (bit - 12) / 9);
        }
    }
}

static void test_large_pages(void **state)
{
    struct pagetable_walk out;
    uint64_t iova = 0x0000654321abc123;

    (void)state;
    for (unsigned level = 1; level <= 2; level++) {
        uint64_t mask = (UINT64_C(1) << (12 + 9 * level)) - 1;
        unsigned index = iova >> (12 + 9 * level) & 511;

        chain(4, iova, 0);
        tables[3 - level][index] = htole64(UINT64_C(0x7f80000000) | LARGE | RW);
        assert_int_equal(walk(4, iova, &out), PAGETABLE_OK);
        assert_int_equal(out.level, level);
        assert_int_equal(out.mask, mask);
        assert_int_equal(out.gpa, UINT64_C(0x7f80000000) | (iova & mask));
    }
    /* At the top it is no page. */
    tables[0][iova >> 39 & 511] |= htole64(LARGE);
    assert_int_equal(walk(4, iova, &out), PAGETABLE_RESERVED);
    assert_int_equal(out.level, 3);
}

/* Bits below the size of a larger page must be clear. */
static void test_large_page_alignment(void **state)
{
    struct pagetable_walk out;

    (void)state;
    for (unsigned level = 1; level <= 2; level++) {
        for (unsigned bit = 12; bit < 40; bit++) {
            uint64_t entry = UINT64_C(1) << bit | LARGE | RW;
            bool below = bit < 12 + 9 * level;

            chain(4, 0, 0);
            tables[3 - level][0] = htole64(entry);
            assert_int_equal(walk(4, 0, &out), below ? PAGETABLE_RESERVED : PAGETABLE_OK);
        }
    }
}

static void test_reserved(void **state)
{
    struct pagetable_walk out;

    (void)state;
    for (unsigned level = 0; level < 4; level++) {
        uint64_t *entry = &tables[3 - level][0];
        bool page = level == 0;
        uint64_t good;

        chain(4, 0, 0x5000);
        good = *entry;
        *entry = good | htole64(NO_TABLE);
        assert_int_equal(walk(4, 0, &out), page ? PAGETABLE_OK : PAGETABLE_RESERVED);
        *entry = good | htole64(NO_PAGE);
        assert_int_equal(walk(4, 0, &out), page ? PAGETABLE_RESERVED : PAGETABLE_OK);
        *entry = good | htole64(1ULL << 62);
        assert_int_equal(walk(4, 0, &out), PAGETABLE_RESERVED);
        assert_int_equal(out.level, level);
        assert_int_equal(out.entry, le64toh(*entry));
        /* In an entry that allows nothing they are not looked at. */
        *entry = (good | htole64(1ULL << 62)) & ~htole64(RW);
        assert_int_equal(walk(4, 0, &out), PAGETABLE_NOT_PRESENT);
        *entry = good;
    }
}

static void test_permissions(void **state)
{
    struct pagetable_walk out;

    (void)state;
    for (unsigned perms = 0; perms < 256; perms++) {
        enum pagetable_status status = PAGETABLE_OK;
        unsigned all = 3;

        chain(4, 0, 0x5000);
        for (unsigned i = 0; i < 4; i++) {
            unsigned perm = perms >> 2 * i & 3;

            tables[i][0] = htole64((le64toh(tables[i][0]) & ~RW) | perm);
            status = perm ? status : PAGETABLE_NOT_PRESENT;
            all &= perm;
        }
        assert_int_equal(walk(4, 0, &out), status);
        if (!status) {
            assert_int_equal(out.perm, (all & READ ? VIOMMU_READ : 0) |
                                           (all & WRITE ? VIOMMU_WRITE : 0));
        }
    }
}

static void test_unreadable(void **state)
{
    struct pagetable_walk out;

    (void)state;
    chain(4, 0, 0x5000);
    assert_int_equal(pagetable_walk(&format, snapshot, 0x80000000, 4, 0, &out),
                     PAGETABLE_UNREADABLE);
    assert_int_equal(out.level, 3);
    for (unsigned i = 0; i < 3; i++) {
        uint64_t good = tables[i][0];

        tables[i][0] = htole64(PAGETABLE_ADDRESS | RW);
        assert_int_equal(walk(4, 0, &out), PAGETABLE_UNREADABLE);
        assert_int_equal(out.level, 2 - i);
        tables[i][0] = good;
    }
    /* The page itself need not lie in memory. */
    tables[3][0] = htole64(PAGETABLE_ADDRESS | RW);
    assert_int_equal(walk(4, 0, &out), PAGETABLE_OK);
    assert_int_equal(out.gpa, PAGETABLE_ADDRESS);
}

/*
 * Tables in slots of their own, with holes between, and in no order in the host: every level lies
 * in another slot than the one before, or in the same.
 */
static void test_tables_in_several_slots(void **state)
{
    struct memory_snapshot *several =
        calloc(1, sizeof(*several) + PAGES * sizeof(struct viommu_memory_slot));
    struct pagetable_walk out;

    (void)state;
    assert_non_null(several);
    several->count = PAGES;
    for (unsigned i = 0; i < PAGES; i++) {
        several->slots[i] = (struct viommu_memory_slot){.first = table(2 * i),
                                                        .last = table(2 * i) + (PAGE - 1),
                                                        .host = tables[(i * 5 + 3) % PAGES],
                                                        .fd = -1};
    }
    /* Which slot each level's table is in: four digits. */
    for (unsigned where = 0; where < 0x10000; where += 7) {
        uint64_t iova = 0x123456789000;
        unsigned slots[4];

        memset(tables, 0, sizeof(tables));
        for (unsigned i = 0; i < 4; i++) {
            slots[i] = where >> 4 * i & 15;
        }
        for (unsigned i = 4; i-- > 0;) {
            unsigned index = iova >> (12 + 9 * (3 - i)) & 511;
            uint64_t next = i < 3 ? table(2 * slots[i + 1]) : 0xabc000;

            tables[(slots[i] * 5 + 3) % PAGES][index] = htole64(next | RW);
        }
        out = (struct pagetable_walk){0};
        assert_int_equal(pagetable_walk(&format, several, table(2 * slots[0]), 4, iova, &out),
                         PAGETABLE_OK);
        assert_int_equal(out.gpa, 0xabc000);
        /* The last table in the hole behind its slot. */
        tables[(slots[2] * 5 + 3) % PAGES][iova >> 21 & 511] =
            htole64((table(2 * slots[3]) + PAGE) | RW);
        assert_int_equal(pagetable_walk(&format, several, table(2 * slots[0]), 4, iova, &out),
                         PAGETABLE_UNREADABLE);
        assert_int_equal(out.level, 0);
    }
    free(several);
}

/* A table without memory for part of its entries: only those are unreadable. */
static void test_table_at_the_end_of_memory(void **state)
{
    struct pagetable_walk out;

    (void)state;
    tables[PAGES - 1][511] = htole64(0x5000 | RW);
    assert_int_equal(pagetable_walk(&format, snapshot, table(PAGES - 1), 1, 511 * PAGE, &out),
                     PAGETABLE_OK);
    assert_int_equal(pagetable_walk(&format, snapshot, table(PAGES), 1, 0, &out),
                     PAGETABLE_UNREADABLE);
}

/* A table that leads to itself: the walk ends after as many entries as there are levels. */
static void test_self_reference(void **state)
{
    struct pagetable_walk out;

    (void)state;
    for (unsigned i = 0; i < 512; i++) {
        tables[0][i] = htole64(table(0) | RW);
    }
    for (unsigned levels = 1; levels <= 5; levels++) {
        assert_int_equal(walk(levels, 0x123, &out), PAGETABLE_OK);
        assert_int_equal(out.gpa, table(0) + 0x123);
    }
}

/* Bits above the address, and all that no mask names, are ignored. */
static void test_ignored_bits(void **state)
{
    struct pagetable_walk out;
    uint64_t ignored = UINT64_C(0xbff0000000000378);

    (void)state;
    chain(4, 0, 0x5000);
    for (unsigned i = 0; i < 4; i++) {
        tables[i][0] |= htole64(ignored);
    }
    assert_int_equal(walk(4, 0x18, &out), PAGETABLE_OK);
    assert_int_equal(out.gpa, 0x5018);
}

/* ---- each entry is read once ----------------------------------------------------------------- */

static _Atomic bool stop;

/* Flips one entry between a page that may be read and another that may be written. */
static void *flip(void *arg)
{
    _Atomic uint64_t *entry = arg;

    while (!atomic_load(&stop)) {
        atomic_store(entry, htole64(0x5000 | READ));
        atomic_store(entry, htole64(0x6000 | WRITE));
    }
    return NULL;
}

static void test_read_once(void **state)
{
    struct pagetable_walk out;
    pthread_t thread;

    (void)state;
    chain(4, 0, 0x5000);
    tables[3][0] = htole64(0x5000 | READ);
    atomic_store(&stop, false);
    assert_int_equal(pthread_create(&thread, NULL, flip, &tables[3][0]), 0);
    for (unsigned i = 0; i < 200000; i++) {
        bool whole = walk(4, 0, &out) == PAGETABLE_OK &&
                     ((out.gpa == 0x5000 && out.perm == VIOMMU_READ) ||
                      (out.gpa == 0x6000 && out.perm == VIOMMU_WRITE));

        if (!whole) {
            atomic_store(&stop, true);
            pthread_join(thread, NULL);
            fail_msg("gpa %#llx with permission %u", (unsigned long long)out.gpa, out.perm);
        }
    }
    atomic_store(&stop, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_levels, setup, teardown),
        cmocka_unit_test_setup_teardown(test_large_pages, setup, teardown),
        cmocka_unit_test_setup_teardown(test_large_page_alignment, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reserved, setup, teardown),
        cmocka_unit_test_setup_teardown(test_permissions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unreadable, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tables_in_several_slots, setup, teardown),
        cmocka_unit_test_setup_teardown(test_table_at_the_end_of_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_self_reference, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ignored_bits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_read_once, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
