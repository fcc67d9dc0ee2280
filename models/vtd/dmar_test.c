/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the DMAR builder: every byte of a table with one structure of each kind, and each way to
 * refuse a value. The bytes are the specification's, written by hand; iasl decodes them the same
 * way.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <viommu/dmar.h>

#include "base/alloc.h"

static const struct viommu_dmar_scope endpoint = {
    .type = VIOMMU_DMAR_SCOPE_ENDPOINT,
    .start_bus = 0,
    .path_length = 1,
    .path = {{5, 0}},
};

static const struct viommu_dmar_scope behind_bridge = {
    .type = VIOMMU_DMAR_SCOPE_BRIDGE,
    .start_bus = 0x20,
    .path_length = 2,
    .path = {{0x1c, 3}, {0, 1}},
};

static const struct viommu_dmar_scope ioapic = {
    .type = VIOMMU_DMAR_SCOPE_IOAPIC,
    .enumeration_id = 8,
    .start_bus = 0xff,
    .path_length = 1,
    .path = {{0x1f, 7}},
};

static const struct viommu_dmar_unit unit = {
    .base = 0xfd000000,
    .register_size = 4096,
    .scopes = &endpoint,
    .scope_count = 1,
};

static const struct viommu_dmar one_unit = {
    .host_address_width = 48,
    .units = &unit,
    .unit_count = 1,
};

static uint8_t sum(const uint8_t *bytes, size_t count)
{
    uint8_t total = 0;

    for (size_t i = 0; i < count; i++) {
        total = (uint8_t)(total + bytes[i]);
    }
    return total;
}

static void test_one_unit(void **state)
{
    static const uint8_t body[] = {
        47, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,          /* HAW - 1, flags, reserved */
        0, 0, 24, 0, 0, 0, 0, 0,                      /* DRHD, length, flags, size, segment */
        0, 0, 0, 0xfd, 0, 0, 0, 0,                    /* base */
        1, 8, 0, 0, 0, 0, 5, 0,                       /* scope: 00:05.0 */
    };
    uint8_t table[128];
    int64_t length = viommu_dmar_build(&one_unit, table, sizeof(table));

    (void)state;
    assert_int_equal(length, 72);
    assert_memory_equal(table, "DMAR", 4);
    assert_int_equal(table[4] | table[5] << 8 | table[6] << 16 | table[7] << 24, 72);
    assert_int_equal(table[8], 1);
    assert_memory_equal(table + 36, body, sizeof(body));
    assert_int_equal(sum(table, 72), 0);
}

static void test_all_kinds(void **state)
{
    static const uint8_t body[] = {
        38, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        /* DRHD of segment 1: a bridge behind a bridge, 8 KiB of registers */
        0, 0, 26, 0, 0, 1, 1, 0, 0, 0x10, 0, 0xfd, 2, 0, 0, 0,
        2, 10, 0, 0, 0, 0x20, 0x1c, 3, 0, 1,
        /* DRHD of segment 0: all the rest, and an IOAPIC */
        0, 0, 24, 0, 1, 0, 0, 0, 0, 0, 0, 0xfe, 0, 0, 0, 0,
        3, 8, 0, 0, 8, 0xff, 0x1f, 7,
        /* RMRR */
        1, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0xe0, 0x7f, 0, 0, 0, 0, 0xff, 0x2f, 0xe0, 0x7f, 0, 0, 0, 0,
        1, 8, 0, 0, 0, 0, 5, 0,
        /* ATSR: some ports, then all ports of segment 1 */
        2, 0, 18, 0, 0, 0, 0, 0, 2, 10, 0, 0, 0, 0x20, 0x1c, 3, 0, 1,
        2, 0, 8, 0, 1, 0, 1, 0,
    };
    static const struct viommu_dmar_unit units[] = {
        {.base = 0x2fd001000, .register_size = 8192, .segment = 1, .scopes = &behind_bridge,
         .scope_count = 1},
        {.base = 0xfe000000, .register_size = 4096, .include_all = true, .scopes = &ioapic,
         .scope_count = 1},
    };
    static const struct viommu_dmar_reserved reserved = {
        .first = 0x7fe00000, .last = 0x7fe02fff, .scopes = &endpoint, .scope_count = 1,
    };
    static const struct viommu_dmar_ats ats[] = {
        {.scopes = &behind_bridge, .scope_count = 1},
        {.segment = 1, .all_ports = true},
    };
    static const struct viommu_dmar dmar = {
        .host_address_width = 39,
        .interrupt_remapping = true,
        .x2apic_opt_out = true,
        .units = units,
        .unit_count = 2,
        .reserved = &reserved,
        .reserved_count = 1,
        .ats = ats,
        .ats_count = 2,
    };
    uint8_t table[256];
    int64_t length = viommu_dmar_build(&dmar, table, sizeof(table));

    (void)state;
    assert_int_equal(length, 36 + sizeof(body));
    assert_memory_equal(table + 36, body, sizeof(body));
    assert_int_equal(sum(table, (size_t)length), 0);
}

static void test_room(void **state)
{
    uint8_t table[73];

    (void)state;
    assert_int_equal(viommu_dmar_build(&one_unit, NULL, 0), 72);
    memset(table, 0xaa, sizeof(table));
    assert_int_equal(viommu_dmar_build(&one_unit, table, 72), 72);
    assert_int_equal(table[72], 0xaa);
    memset(table, 0xaa, sizeof(table));
    assert_int_equal(viommu_dmar_build(&one_unit, table, 71), -ENOSPC);
    assert_int_equal(table[71], 0xaa);
    assert_int_equal(viommu_dmar_build(&one_unit, table, 0), -ENOSPC);
}

static int64_t build_scope(struct viommu_dmar_scope scope)
{
    struct viommu_dmar_unit changed = unit;
    struct viommu_dmar dmar = one_unit;

    changed.scopes = &scope;
    dmar.units = &changed;
    return viommu_dmar_build(&dmar, NULL, 0);
}

static void test_wrong_scopes(void **state)
{
    struct viommu_dmar_scope scope = endpoint;

    (void)state;
    scope.type = 0;
    assert_int_equal(build_scope(scope), -EINVAL);
    scope.type = 5;
    assert_int_equal(build_scope(scope), -EINVAL);
    scope = endpoint;
    scope.path_length = 0;
    assert_int_equal(build_scope(scope), -EINVAL);
    scope.path_length = VIOMMU_DMAR_PATH_MAX + 1;
    assert_int_equal(build_scope(scope), -EINVAL);
    scope.path_length = VIOMMU_DMAR_PATH_MAX;
    assert_int_equal(build_scope(scope), 48 + 16 + 6 + 16);
    scope = endpoint;
    scope.path[0].device = 32;
    assert_int_equal(build_scope(scope), -EINVAL);
    scope.path[0].device = 31;
    scope.path[0].function = 8;
    assert_int_equal(build_scope(scope), -EINVAL);
    scope = endpoint;
    scope.enumeration_id = 1;
    assert_int_equal(build_scope(scope), -EINVAL);
}

static int64_t build_unit(struct viommu_dmar_unit changed)
{
    struct viommu_dmar dmar = one_unit;

    dmar.units = &changed;
    return viommu_dmar_build(&dmar, NULL, 0);
}

static void test_wrong_units(void **state)
{
    struct viommu_dmar_unit changed = unit;

    (void)state;
    changed.base = 0xfd000800;
    assert_int_equal(build_unit(changed), -EINVAL);
    changed.base = UINT64_MAX - 4095;
    assert_int_equal(build_unit(changed), 72);
    changed.register_size = 8192;
    assert_int_equal(build_unit(changed), -EINVAL);
    changed.base = 0;
    changed.register_size = 0;
    assert_int_equal(build_unit(changed), -EINVAL);
    changed.register_size = 4097;
    assert_int_equal(build_unit(changed), -EINVAL);
    changed.register_size = 3 * 4096;
    assert_int_equal(build_unit(changed), -EINVAL);
    changed.register_size = (uint64_t)4096 << 15;
    assert_int_equal(build_unit(changed), 72);
    changed.register_size = (uint64_t)4096 << 16;
    assert_int_equal(build_unit(changed), -EINVAL);
    changed = unit;
    changed.scopes = NULL;
    assert_int_equal(build_unit(changed), -EINVAL);
    changed.scope_count = 0;
    assert_int_equal(build_unit(changed), 64);
}

static void test_include_all_is_last(void **state)
{
    struct viommu_dmar_unit units[2] = {unit, unit};
    struct viommu_dmar dmar = one_unit;

    (void)state;
    dmar.units = units;
    dmar.unit_count = 2;
    units[0].include_all = true;
    assert_int_equal(viommu_dmar_build(&dmar, NULL, 0), -EINVAL);
    units[0].segment = 1;
    assert_int_equal(viommu_dmar_build(&dmar, NULL, 0), 96);
    units[0].segment = 0;
    units[0].include_all = false;
    units[1].include_all = true;
    assert_int_equal(viommu_dmar_build(&dmar, NULL, 0), 96);
}

static void test_widths(void **state)
{
    struct viommu_dmar dmar = one_unit;

    (void)state;
    dmar.host_address_width = 0;
    assert_int_equal(viommu_dmar_build(&dmar, NULL, 0), -EINVAL);
    dmar.host_address_width = 65;
    assert_int_equal(viommu_dmar_build(&dmar, NULL, 0), -EINVAL);
    dmar.host_address_width = 64;
    assert_int_equal(viommu_dmar_build(&dmar, NULL, 0), 72);
}

static int64_t build_reserved(uint64_t first, uint64_t last, size_t scope_count)
{
    struct viommu_dmar_reserved reserved = {
        .first = first, .last = last, .scopes = &endpoint, .scope_count = scope_count,
    };
    struct viommu_dmar dmar = one_unit;

    dmar.reserved = &reserved;
    dmar.reserved_count = 1;
    return viommu_dmar_build(&dmar, NULL, 0);
}

static void test_wrong_reserved(void **state)
{
    (void)state;
    assert_int_equal(build_reserved(0x1000, 0x1fff, 1), 72 + 32);
    assert_int_equal(build_reserved(0x1000, 0x1fff, 0), -EINVAL);
    assert_int_equal(build_reserved(0x1001, 0x1fff, 1), -EINVAL);
    assert_int_equal(build_reserved(0x1000, 0x1ffe, 1), -EINVAL);
    assert_int_equal(build_reserved(0x2000, 0x1fff, 1), -EINVAL);
    assert_int_equal(build_reserved(0, UINT64_MAX, 1), 72 + 32);
}

/* The length field of a structure has 16 bits. */
static void test_structure_too_long(void **state)
{
    enum { COUNT = 8192 };
    struct viommu_dmar_scope *scopes = calloc(COUNT, sizeof(*scopes));
    struct viommu_dmar_unit changed = unit;

    (void)state;
    assert_non_null(scopes);
    for (size_t i = 0; i < COUNT; i++) {
        scopes[i] = endpoint;
    }
    changed.scopes = scopes;
    changed.scope_count = COUNT;
    assert_int_equal(build_unit(changed), -E2BIG);
    changed.scope_count = (UINT16_MAX - 16) / 8;
    assert_int_equal(build_unit(changed), 48 + 16 + 8 * (int64_t)changed.scope_count);
    free(scopes);
}

/* What a space says is mapped one to one: pages, joined where they touch; and nothing else. */
static void test_of_a_space(void **state)
{
    const struct viommu_iova_config config = {0};
    const struct viommu_iova_request requests[] = {
        {.type = VIOMMU_IOVA_DIRECT, .range = {0x7fe01800, 0x7fe027ff}},
        {.type = VIOMMU_IOVA_DIRECT, .range = {0x7fe02800, 0x7fe03000}},
        {.type = VIOMMU_IOVA_DIRECT, .range = {UINT64_MAX - 1, UINT64_MAX}},
        {.type = VIOMMU_IOVA_DIRECT, .range = {0x1000, 0x1fff}},
        {.type = VIOMMU_IOVA_DIRECT_RELAXABLE, .range = {0x2000, 0x2fff}},
        {.type = VIOMMU_IOVA_RESERVED, .range = {0x4000, 0x4fff}},
    };
    const struct viommu_dmar_reserved like = {
        .segment = 3, .scopes = &endpoint, .scope_count = 1};
    struct viommu_iova_reservation *reservations[6];
    struct viommu_dmar_reserved out[4];
    struct viommu_iova_owner *owner;
    struct viommu_iova_owner *other;
    struct viommu_iova *space;
    struct viommu_dmar table = one_unit;
    size_t count = 2;

    (void)state;
    assert_int_equal(viommu_iova_create(&config, &space), 0);
    assert_int_equal(viommu_iova_owner_create(space, "disk", &owner), 0);
    assert_int_equal(viommu_iova_owner_create(space, "other", &other), 0);
    assert_int_equal(viommu_iova_reserve(owner, requests, 6, reservations, NULL), 0);
    assert_int_equal(viommu_dmar_reserve(owner, &like, out, &count), -ENOSPC);
    assert_int_equal(count, 3);
    count = 4;
    for (unsigned long n = 1;; n++) {
        int error;

        base_alloc_fail_at(n);
        error = viommu_dmar_reserve(owner, &like, out, &count);
        base_alloc_fail_at(0);
        if (!error) {
            assert_true(n > 1);
            break;
        }
        assert_int_equal(error, -ENOMEM);
        assert_int_equal(count, 4);
    }
    assert_int_equal(count, 3);
    assert_int_equal(out[0].first, 0x1000);
    assert_int_equal(out[0].last, 0x1fff);
    assert_int_equal(out[1].first, 0x7fe01000);
    assert_int_equal(out[1].last, 0x7fe03fff);
    assert_int_equal(out[2].first, UINT64_MAX - 0xfff);
    assert_int_equal(out[2].last, UINT64_MAX);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(out[i].segment, 3);
        assert_ptr_equal(out[i].scopes, &endpoint);
        assert_int_equal(out[i].scope_count, 1);
    }
    table.reserved = out;
    table.reserved_count = 2;
    assert_int_equal(viommu_dmar_build(&table, NULL, 0), 48 + 24 + 2 * 32);
    count = 0;
    assert_int_equal(viommu_dmar_reserve(other, &like, NULL, &count), 0);
    assert_int_equal(count, 0);
    count = 1;
    assert_int_equal(viommu_dmar_reserve(other, &like, NULL, &count), -EINVAL);
    assert_int_equal(viommu_dmar_reserve(NULL, &like, out, &count), -EINVAL);
    assert_int_equal(viommu_dmar_reserve(owner, NULL, out, &count), -EINVAL);
    assert_int_equal(viommu_dmar_reserve(owner, &like, out, NULL), -EINVAL);
    viommu_iova_destroy(space);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_unit),
        cmocka_unit_test(test_all_kinds),
        cmocka_unit_test(test_room),
        cmocka_unit_test(test_wrong_scopes),
        cmocka_unit_test(test_wrong_units),
        cmocka_unit_test(test_include_all_is_last),
        cmocka_unit_test(test_widths),
        cmocka_unit_test(test_wrong_reserved),
        cmocka_unit_test(test_structure_too_long),
        cmocka_unit_test(test_of_a_space),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
