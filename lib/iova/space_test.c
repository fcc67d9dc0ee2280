/* SPDX-License-Identifier: BSD-2-Clause */
/* The IOVA space, case by case. Its invariants are checked after every call (check.c). */
#include <viommu/iova.h>

#include "base/alloc.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define RANGE(first, last) (&(struct viommu_range){first, last})
#define GIB (UINT64_C(1) << 30)

struct fixture {
    struct viommu_iova *space;
    struct viommu_iova_owner *vmm;
    struct viommu_iova_owner *disk;
    struct viommu_iova_conflict conflict;
};

static void begin(struct fixture *f, bool identity)
{
    const struct viommu_iova_config config = {.identity = identity};

    memset(f, 0, sizeof(*f));
    assert_int_equal(viommu_iova_create(&config, &f->space), 0);
    assert_int_equal(viommu_iova_owner_create(f->space, "vmm", &f->vmm), 0);
    assert_int_equal(viommu_iova_owner_create(f->space, "disk", &f->disk), 0);
}

static void end(struct fixture *f)
{
    viommu_iova_destroy(f->space);
}

static int reserve(struct fixture *f, enum viommu_iova_type type, uint64_t first, uint64_t last,
                   struct viommu_iova_reservation **out)
{
    const struct viommu_iova_request request = {.type = type, .range = {first, last}};

    return viommu_iova_reserve(f->disk, &request, 1, out, &f->conflict);
}

static int movable(struct fixture *f, uint64_t first, uint64_t last, uint64_t bound_first,
                   uint64_t bound_last, struct viommu_iova_reservation **out)
{
    const struct viommu_iova_request request = {
        .type = VIOMMU_IOVA_SW_MSI,
        .range = {first, last},
        .movable = true,
        .bounds = {bound_first, bound_last},
    };

    return viommu_iova_reserve(f->disk, &request, 1, out, &f->conflict);
}

static int map(struct fixture *f, uint64_t first, uint64_t last)
{
    return viommu_iova_map(f->vmm, RANGE(first, last), &f->conflict);
}

static void expect_side(const struct viommu_iova_side *side, enum viommu_iova_kind kind,
                        const char *owner, uint64_t first, uint64_t last)
{
    assert_int_equal(side->kind, kind);
    assert_string_equal(side->owner, owner);
    assert_int_equal(side->range.first, first);
    assert_int_equal(side->range.last, last);
}

static void expect_usable(const struct fixture *f, const struct viommu_range *ranges, size_t count)
{
    struct viommu_range found[16];
    size_t n = 16;

    assert_int_equal(viommu_iova_usable(f->space, found, &n, NULL), 0);
    assert_int_equal(n, count);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(found[i].first, ranges[i].first);
        assert_int_equal(found[i].last, ranges[i].last);
    }
}

/* Reservations that touch or overlap stay apart, and one gives back what it took. */
static void test_release_gives_back_exactly(void **state)
{
    struct fixture f;
    struct viommu_iova_reservation *a;
    struct viommu_iova_reservation *b;
    struct viommu_iova_reservation *c;

    (void)state;
    begin(&f, false);
    assert_int_equal(reserve(&f, VIOMMU_IOVA_RESERVED, 0x1000, 0x1fff, &a), 0);
    assert_int_equal(reserve(&f, VIOMMU_IOVA_RESERVED, 0x2000, 0x2fff, &b), 0);
    assert_int_equal(reserve(&f, VIOMMU_IOVA_RESERVED, 0x2800, 0x3fff, &c), 0);
    expect_usable(&f, (struct viommu_range[]){{0, 0xfff}, {0x4000, UINT64_MAX}}, 2);
    viommu_iova_release(b);
    expect_usable(&f, (struct viommu_range[]){{0, 0xfff}, {0x2000, 0x27ff}, {0x4000, UINT64_MAX}},
                  3);
    viommu_iova_release(a);
    expect_usable(&f, (struct viommu_range[]){{0, 0x27ff}, {0x4000, UINT64_MAX}}, 2);
    viommu_iova_release(c);
    viommu_iova_release(NULL);
    expect_usable(&f, (struct viommu_range[]){{0, UINT64_MAX}}, 1);
    end(&f);
}

static void test_lists(void **state)
{
    struct fixture f;
    struct viommu_iova_reservation *r[2];
    const struct viommu_iova_request requests[] = {
        {.type = VIOMMU_IOVA_MSI, .range = {0xfee00000, 0xfeefffff}},
        {.type = VIOMMU_IOVA_DIRECT_RELAXABLE, .range = {0xd0000, 0xdffff}},
    };
    struct viommu_iova_reserved entries[2];
    struct viommu_range usable[2];
    uint64_t before;
    uint64_t generation;
    size_t n = 1;

    (void)state;
    begin(&f, false);
    before = viommu_iova_generation(f.space);
    assert_int_equal(viommu_iova_reserve(f.disk, requests, 2, r, NULL), 0);
    assert_int_not_equal(viommu_iova_generation(f.space), before);
    assert_int_equal(viommu_iova_reserved(f.space, entries, &n, NULL), -ENOSPC);
    assert_int_equal(n, 2);
    assert_int_equal(viommu_iova_reserved(f.space, entries, &n, &generation), 0);
    assert_int_equal(generation, viommu_iova_generation(f.space));
    assert_int_equal(entries[0].type, VIOMMU_IOVA_DIRECT_RELAXABLE);
    assert_int_equal(entries[1].type, VIOMMU_IOVA_MSI);
    assert_int_equal(entries[1].range.last, 0xfeefffff);
    assert_string_equal(entries[1].owner, "disk");
    n = 1;
    assert_int_equal(viommu_iova_usable(f.space, usable, &n, NULL), -ENOSPC);
    assert_int_equal(n, 2);
    /* The relaxable one is usable. */
    expect_usable(&f, (struct viommu_range[]){{0, 0xfedfffff}, {0xfef00000, UINT64_MAX}}, 2);
    /* Mappings are not in the lists. */
    generation = viommu_iova_generation(f.space);
    assert_int_equal(map(&f, 0, 0xfff), 0);
    assert_int_equal(viommu_iova_unmap(f.vmm, RANGE(0, 0xfff)), 0);
    assert_int_equal(viommu_iova_generation(f.space), generation);
    before = generation;
    viommu_iova_owner_destroy(f.disk);
    assert_int_not_equal(viommu_iova_generation(f.space), before);
    expect_usable(&f, (struct viommu_range[]){{0, UINT64_MAX}}, 1);
    end(&f);
}

static void test_type_names(void **state)
{
    (void)state;
    assert_string_equal(viommu_iova_type_name(VIOMMU_IOVA_DIRECT), "direct");
    assert_string_equal(viommu_iova_type_name(VIOMMU_IOVA_P2P), "p2p");
    assert_null(viommu_iova_type_name((enum viommu_iova_type)VIOMMU_IOVA_TYPES));
}

/* A new device is refused whole, where one of its reservations meets something. */
static void test_reservation_meets_mapping(void **state)
{
    struct fixture f;
    struct viommu_iova_reservation *r[2];
    const struct viommu_iova_request requests[] = {
        {.type = VIOMMU_IOVA_RESERVED, .range = {0x100000, 0x1fffff}},
        {.type = VIOMMU_IOVA_DIRECT, .range = {0x8000, 0x9fff}},
    };
    uint64_t generation;

    (void)state;
    begin(&f, false);
    assert_int_equal(map(&f, 0x9000, 0xafff), 0);
    generation = viommu_iova_generation(f.space);
    assert_int_equal(viommu_iova_reserve(f.disk, requests, 2, r, &f.conflict), -EEXIST);
    expect_side(&f.conflict.asked, VIOMMU_IOVA_RESERVATION, "disk", 0x8000, 0x9fff);
    assert_int_equal(f.conflict.asked.type, VIOMMU_IOVA_DIRECT);
    expect_side(&f.conflict.holder, VIOMMU_IOVA_MAPPING, "vmm", 0x9000, 0xafff);
    assert_null(r[0]);
    assert_int_equal(viommu_iova_generation(f.space), generation);
    assert_int_equal(map(&f, 0x100000, 0x1fffff), 0);
    /* One that software can give up stands in nobody's way. */
    assert_int_equal(reserve(&f, VIOMMU_IOVA_DIRECT_RELAXABLE, 0x8000, 0x9fff, r), 0);
    assert_int_equal(map(&f, 0x8000, 0x8fff), 0);
    end(&f);
}

static void test_mapping_conflicts(void **state)
{
    struct fixture f;
    struct viommu_iova_reservation *r;

    (void)state;
    begin(&f, false);
    assert_int_equal(reserve(&f, VIOMMU_IOVA_P2P, 0x10000, 0x1ffff, &r), 0);
    assert_int_equal(map(&f, 0xf000, 0x10fff), -EADDRNOTAVAIL);
    expect_side(&f.conflict.asked, VIOMMU_IOVA_MAPPING, "vmm", 0xf000, 0x10fff);
    expect_side(&f.conflict.holder, VIOMMU_IOVA_RESERVATION, "disk", 0x10000, 0x1ffff);
    assert_int_equal(f.conflict.holder.type, VIOMMU_IOVA_P2P);
    assert_int_equal(map(&f, 0xf000, 0xffff), 0);
    assert_int_equal(map(&f, 0, UINT64_MAX), -EADDRNOTAVAIL);
    assert_int_equal(map(&f, 0xe000, 0xffff), -EEXIST);
    expect_side(&f.conflict.holder, VIOMMU_IOVA_MAPPING, "vmm", 0xf000, 0xffff);
    /* Exactly, and by its owner. */
    assert_int_equal(viommu_iova_unmap(f.vmm, RANGE(0xf000, 0xf7ff)), -ENOENT);
    assert_int_equal(viommu_iova_unmap(f.disk, RANGE(0xf000, 0xffff)), -ENOENT);
    assert_int_equal(viommu_iova_unmap(f.vmm, RANGE(0xf000, 0xffff)), 0);
    assert_int_equal(viommu_iova_unmap(f.vmm, RANGE(0xf000, 0xffff)), -ENOENT);
    viommu_iova_release(r);
    assert_int_equal(map(&f, 0, UINT64_MAX), 0);
    assert_int_equal(map(&f, UINT64_MAX - 0xfff, UINT64_MAX), -EEXIST);
    assert_int_equal(reserve(&f, VIOMMU_IOVA_RESERVED, 0x10000, 0x1ffff, &r), -EEXIST);
    assert_int_equal(map(&f, 0x800, 0xfff), -EINVAL);
    assert_int_equal(map(&f, 0x1000, 0x17ff), -EINVAL);
    assert_int_equal(map(&f, 0x2000, 0xfff), -EINVAL);
    end(&f);
}

static void test_limits(void **state)
{
    struct fixture f;
    const struct viommu_range ranges[] = {{0x100000, GIB - 1}, {0x1000, 0xffff}};
    uint64_t generation;

    (void)state;
    begin(&f, false);
    assert_int_equal(map(&f, GIB, GIB + 0xfff), 0);
    assert_int_equal(viommu_iova_limit(f.disk, ranges, 2, &f.conflict), -EEXIST);
    expect_side(&f.conflict.asked, VIOMMU_IOVA_LIMIT, "disk", GIB, UINT64_MAX);
    expect_side(&f.conflict.holder, VIOMMU_IOVA_MAPPING, "vmm", GIB, GIB + 0xfff);
    assert_int_equal(viommu_iova_unmap(f.vmm, RANGE(GIB, GIB + 0xfff)), 0);
    assert_int_equal(viommu_iova_limit(f.disk, ranges, 0, NULL), -EINVAL);
    assert_int_equal(viommu_iova_limit(f.disk, RANGE(1, 0), 1, NULL), -EINVAL);
    assert_int_equal(viommu_iova_limit(f.disk, ranges, 2, &f.conflict), 0);
    assert_int_equal(viommu_iova_limit(f.disk, ranges, 2, &f.conflict), -EALREADY);
    expect_usable(&f, (struct viommu_range[]){{0x1000, 0xffff}, {0x100000, GIB - 1}}, 2);
    assert_int_equal(map(&f, 0xf000, 0x10fff), -ERANGE);
    expect_side(&f.conflict.holder, VIOMMU_IOVA_LIMIT, "disk", 0x10000, 0xfffff);
    /* What is usable is inside the limits of all. */
    assert_int_equal(viommu_iova_limit(f.vmm, RANGE(0x8000, 0x1fffff), 1, &f.conflict), 0);
    expect_usable(&f, (struct viommu_range[]){{0x8000, 0xffff}, {0x100000, 0x1fffff}}, 2);
    generation = viommu_iova_generation(f.space);
    viommu_iova_owner_destroy(f.disk);
    assert_int_not_equal(viommu_iova_generation(f.space), generation);
    expect_usable(&f, (struct viommu_range[]){{0x8000, 0x1fffff}}, 1);
    end(&f);
}

/* Without an IOMMU of the guest's, addresses are memory's. */
static void test_identity_memory(void **state)
{
    struct fixture f;
    struct viommu_iova_reservation *r;
    struct viommu_iova_memory *low;
    struct viommu_iova_memory *more;

    (void)state;
    begin(&f, true);
    assert_int_equal(viommu_iova_limit(f.disk, RANGE(0, (GIB << 9) - 1), 1, NULL), 0);
    assert_int_equal(reserve(&f, VIOMMU_IOVA_P2P, 4 * GIB, 6 * GIB - 1, &r), 0);
    assert_int_equal(viommu_iova_memory_add(f.vmm, RANGE(0, GIB - 1), false, &low, &f.conflict),
                     0);
    /* A bridge's window where memory would be. */
    assert_int_equal(viommu_iova_memory_add(f.vmm, RANGE(5 * GIB, 7 * GIB - 1), true, &more,
                                            &f.conflict), -EADDRNOTAVAIL);
    expect_side(&f.conflict.asked, VIOMMU_IOVA_MEMORY, "vmm", 5 * GIB, 7 * GIB - 1);
    expect_side(&f.conflict.holder, VIOMMU_IOVA_RESERVATION, "disk", 4 * GIB, 6 * GIB - 1);
    assert_int_equal(viommu_iova_memory_fits(f.space, RANGE(5 * GIB, 5 * GIB), "guest",
                                             &f.conflict), -EADDRNOTAVAIL);
    assert_string_equal(f.conflict.asked.owner, "guest");
    assert_int_equal(viommu_iova_memory_fits(f.space, RANGE(6 * GIB, 6 * GIB), "guest", NULL), 0);
    assert_int_equal(viommu_iova_memory_add(f.vmm, RANGE(0, GIB << 9), true, &more, &f.conflict),
                     -ERANGE);
    assert_int_equal(viommu_iova_memory_add(f.vmm, RANGE(6 * GIB, 8 * GIB - 1), true, &more,
                                            &f.conflict), 0);
    assert_int_equal(reserve(&f, VIOMMU_IOVA_RESERVED, 7 * GIB, 9 * GIB, &r), -EADDRINUSE);
    expect_side(&f.conflict.holder, VIOMMU_IOVA_MEMORY, "vmm", 6 * GIB, 8 * GIB - 1);
    assert_int_equal(map(&f, 7 * GIB, 7 * GIB + 0xfff), -EADDRINUSE);
    /* It comes where it was declared. */
    assert_int_equal(viommu_iova_memory_add(f.vmm, RANGE(6 * GIB, 7 * GIB - 1), false, &low,
                                            &f.conflict), 0);
    viommu_iova_memory_remove(more);
    viommu_iova_memory_remove(NULL);
    assert_int_equal(reserve(&f, VIOMMU_IOVA_RESERVED, 7 * GIB, 9 * GIB, &r), 0);
    end(&f);
}

static void test_windows_give_way(void **state)
{
    struct fixture f;
    struct viommu_iova_reservation *window;
    struct viommu_iova_reservation *r;
    struct viommu_iova_memory *memory;
    uint64_t generation;
    uint64_t iova;

    (void)state;
    begin(&f, true);
    assert_int_equal(movable(&f, 0x8000000, 0x80fffff, 0x1000000, GIB - 1, &window), 0);
    assert_int_equal(viommu_iova_reservation_range(window).first, 0x8000000);
    generation = viommu_iova_generation(f.space);
    assert_int_equal(viommu_iova_memory_add(f.vmm, RANGE(0x1000000, 0x8000fff), true, &memory,
                                            &f.conflict), 0);
    assert_int_equal(viommu_iova_reservation_range(window).first, 0x8001000);
    assert_int_not_equal(viommu_iova_generation(f.space), generation);
    assert_int_equal(map(&f, 0x8001000, 0x8001fff), 0);
    assert_int_equal(viommu_iova_reservation_range(window).first, 0x8002000);
    assert_int_equal(viommu_iova_reservation_range(window).last, 0x8101fff);
    assert_int_equal(viommu_iova_limit(f.disk, RANGE(0, 0x8fffffff), 1, NULL), 0);
    /* No place is left: refused, and it is where it was. */
    generation = viommu_iova_generation(f.space);
    assert_int_equal(reserve(&f, VIOMMU_IOVA_RESERVED, 0x8003000, GIB, &r), -EADDRNOTAVAIL);
    expect_side(&f.conflict.asked, VIOMMU_IOVA_RESERVATION, "disk", 0x8003000, GIB);
    assert_int_equal(f.conflict.asked.type, VIOMMU_IOVA_RESERVED);
    expect_side(&f.conflict.holder, VIOMMU_IOVA_RESERVATION, "disk", 0x8002000, 0x8101fff);
    assert_int_equal(f.conflict.holder.type, VIOMMU_IOVA_SW_MSI);
    assert_int_equal(viommu_iova_generation(f.space), generation);
    assert_int_equal(viommu_iova_reservation_range(window).first, 0x8002000);
    assert_int_equal(map(&f, 0x8010000, 0x8fffffff), -EADDRNOTAVAIL);
    assert_int_equal(viommu_iova_unmap(f.vmm, RANGE(0x8010000, 0x8fffffff)), -ENOENT);
    /* In use: it stays. */
    assert_int_equal(viommu_iova_doorbell_map(window, 0xfee00000, &iova, NULL), 0);
    assert_int_equal(map(&f, 0x8100000, 0x8100fff), -EADDRNOTAVAIL);
    assert_int_equal(reserve(&f, VIOMMU_IOVA_RESERVED, 0x8002000, 0x8003fff, &r), -EEXIST);
    expect_side(&f.conflict.holder, VIOMMU_IOVA_DOORBELL, "disk", 0x8002000, 0x8002fff);
    /* No longer used: it stays all the same. */
    assert_int_equal(viommu_iova_doorbell_unmap(window, 0xfee00000, NULL), 0);
    assert_int_equal(map(&f, 0x8100000, 0x8100fff), -EADDRNOTAVAIL);
    end(&f);
}

/* Two windows move at once, or neither. */
static void test_windows_move_together(void **state)
{
    struct fixture f;
    struct viommu_iova_reservation *a;
    struct viommu_iova_reservation *b;
    struct viommu_iova_reservation *r;

    (void)state;
    begin(&f, false);
    assert_int_equal(movable(&f, 0x1000, 0x1fff, 0, 0x4fff, &a), 0);
    assert_int_equal(movable(&f, 0x2000, 0x2fff, 0, 0x4fff, &b), 0);
    assert_int_equal(reserve(&f, VIOMMU_IOVA_RESERVED, 0x0, 0x3fff, &r), -EADDRNOTAVAIL);
    assert_int_equal(viommu_iova_reservation_range(a).first, 0x1000);
    assert_int_equal(viommu_iova_reservation_range(b).first, 0x2000);
    assert_int_equal(reserve(&f, VIOMMU_IOVA_RESERVED, 0x0, 0x2fff, &r), 0);
    assert_int_equal(viommu_iova_reservation_range(a).first +
                     viommu_iova_reservation_range(b).first, 0x7000);
    assert_int_equal(movable(&f, 0, 0xfff, 0, 0x4fff, &r), -EADDRNOTAVAIL);
    expect_side(&f.conflict.asked, VIOMMU_IOVA_RESERVATION, "disk", 0, 0xfff);
    end(&f);
}

/* Memory that was declared is avoided by windows in a translated space, too. */
static void test_windows_avoid_declared_memory(void **state)
{
    struct fixture f;
    struct viommu_iova_reservation *window;
    struct viommu_iova_memory *memory;

    (void)state;
    begin(&f, false);
    assert_int_equal(viommu_iova_memory_add(f.vmm, RANGE(0, 0xffff), false, &memory, NULL), 0);
    assert_int_equal(viommu_iova_memory_add(f.vmm, RANGE(0x8000, 0x1ffff), true, &memory, NULL),
                     0);
    assert_int_equal(movable(&f, 0x4000, 0x4fff, 0, 0, &window), 0);
    assert_int_equal(viommu_iova_reservation_range(window).first, 0x20000);
    viommu_iova_release(window);
    assert_int_equal(movable(&f, 0x4000, 0x4fff, 0, 0x1ffff, &window), -EADDRNOTAVAIL);
    /* The guest chooses its addresses itself. */
    assert_int_equal(map(&f, 0x4000, 0x4fff), 0);
    assert_int_equal(viommu_iova_memory_add(f.vmm, RANGE(0, UINT64_MAX), true, &memory, NULL), 0);
    assert_int_equal(movable(&f, 0x40000, 0x40fff, 0, 0, &window), -EADDRNOTAVAIL);
    end(&f);
}

static void test_doorbells(void **state)
{
    struct fixture f;
    struct viommu_iova_reservation *window;
    struct viommu_iova_reservation *r;
    uint64_t iova;
    bool fresh;
    bool last;

    (void)state;
    begin(&f, false);
    assert_int_equal(reserve(&f, VIOMMU_IOVA_SW_MSI, 0x8000800, 0x80047ff, &window), 0);
    assert_int_equal(reserve(&f, VIOMMU_IOVA_RESERVED, 0x8002000, 0x8002fff, &r), 0);
    /* Whole granules inside the window: 0x8001000, not 0x8002000, 0x8003000; then it ends. */
    assert_int_equal(viommu_iova_doorbell_map(window, 0xfee00040, &iova, &fresh), 0);
    assert_int_equal(iova, 0x8001040);
    assert_true(fresh);
    assert_int_equal(viommu_iova_doorbell_map(window, 0xfee00080, &iova, &fresh), 0);
    assert_int_equal(iova, 0x8001080);
    assert_false(fresh);
    assert_int_equal(viommu_iova_doorbell_map(window, UINT64_MAX - 3, &iova, &fresh), 0);
    assert_int_equal(iova, 0x8003ffc);
    assert_int_equal(viommu_iova_doorbell_map(window, 0x1000, &iova, &fresh), -ENOSPC);
    assert_int_equal(viommu_iova_doorbell_unmap(window, 0x1000, &last), -ENOENT);
    assert_int_equal(viommu_iova_doorbell_unmap(window, 0xfee00000, &last), 0);
    assert_false(last);
    assert_int_equal(viommu_iova_doorbell_map(window, 0x1000, &iova, &fresh), -ENOSPC);
    assert_int_equal(viommu_iova_doorbell_unmap(window, 0xfee00000, &last), 0);
    assert_true(last);
    assert_int_equal(viommu_iova_doorbell_map(window, 0x1000, &iova, &fresh), 0);
    assert_int_equal(iova, 0x8001000);
    assert_int_equal(viommu_iova_doorbell_map(r, 0x1000, &iova, &fresh), -EINVAL);
    /* Limits that would leave out a doorbell. */
    assert_int_equal(viommu_iova_limit(f.vmm, RANGE(0x8002000, UINT64_MAX), 1, &f.conflict),
                     -EEXIST);
    expect_side(&f.conflict.holder, VIOMMU_IOVA_DOORBELL, "disk", 0x8001000, 0x8001fff);
    viommu_iova_release(window);
    assert_int_equal(viommu_iova_limit(f.vmm, RANGE(0x8002000, UINT64_MAX), 1, &f.conflict), 0);
    end(&f);
}

static void test_alloc(void **state)
{
    struct fixture f;
    struct viommu_iova_reservation *r;
    uint64_t at;

    (void)state;
    begin(&f, false);
    assert_int_equal(reserve(&f, VIOMMU_IOVA_MSI, 0x3000, 0x3fff, &r), 0);
    assert_int_equal(reserve(&f, VIOMMU_IOVA_DIRECT_RELAXABLE, 0x4000, 0x4fff, &r), 0);
    assert_int_equal(viommu_iova_alloc(f.vmm, 0x2000, 0, RANGE(0x1800, UINT64_MAX), &at), 0);
    assert_int_equal(at, 0x5000);
    assert_int_equal(viommu_iova_alloc(f.vmm, 0x1000, 0, NULL, &at), 0);
    assert_int_equal(at, 0);
    assert_int_equal(viommu_iova_alloc(f.vmm, 0x1000, 0x200000, RANGE(1, UINT64_MAX), &at), 0);
    assert_int_equal(at, 0x200000);
    /* At the top nothing wraps. */
    assert_int_equal(viommu_iova_alloc(f.vmm, 0x1000, GIB, RANGE(UINT64_MAX - GIB + 2, UINT64_MAX),
                                       &at), -ENOSPC);
    assert_int_equal(viommu_iova_alloc(f.vmm, GIB, GIB, RANGE(UINT64_MAX - 2 * GIB + 2, UINT64_MAX),
                                       &at), 0);
    assert_int_equal(at, UINT64_MAX - GIB + 1);
    assert_int_equal(viommu_iova_alloc(f.vmm, UINT64_C(1) << 63, 0, NULL, &at), 0);
    assert_int_equal(viommu_iova_alloc(f.vmm, UINT64_C(1) << 63, 0, NULL, &at), -ENOSPC);
    assert_int_equal(viommu_iova_alloc(f.vmm, 0, 0, NULL, &at), -EINVAL);
    assert_int_equal(viommu_iova_alloc(f.vmm, 0x1800, 0, NULL, &at), -EINVAL);
    assert_int_equal(viommu_iova_alloc(f.vmm, 0x1000, 0x3000, NULL, &at), -EINVAL);
    assert_int_equal(viommu_iova_alloc(f.vmm, 0x1000, 0x800, NULL, &at), -EINVAL);
    assert_int_equal(viommu_iova_alloc(f.vmm, 0x1000, 0, RANGE(1, 0), &at), -EINVAL);
    end(&f);
}

static void test_misuse(void **state)
{
    struct viommu_iova_config config = {.granule = 3};
    struct viommu_iova_owner *owner;
    struct viommu_iova *space;
    struct fixture f;
    struct viommu_iova_reservation *r;
    struct viommu_iova_request request = {.type = VIOMMU_IOVA_RESERVED, .range = {0, 0xfff}};
    char name[VIOMMU_IOVA_NAME_MAX + 1];

    (void)state;
    assert_int_equal(viommu_iova_create(&config, &space), -EINVAL);
    viommu_iova_destroy(NULL);
    viommu_iova_owner_destroy(NULL);
    begin(&f, false);
    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = 0;
    assert_int_equal(viommu_iova_owner_create(f.space, name, &owner), -EINVAL);
    assert_int_equal(viommu_iova_owner_create(f.space, "", &owner), -EINVAL);
    request.movable = true; /* of a type that does not move */
    assert_int_equal(viommu_iova_reserve(f.disk, &request, 1, &r, NULL), -EINVAL);
    request.type = VIOMMU_IOVA_SW_MSI;
    request.range = (struct viommu_range){0x800, 0xfff};
    assert_int_equal(viommu_iova_reserve(f.disk, &request, 1, &r, NULL), -EINVAL);
    request.range = (struct viommu_range){0x1000, 0xfff};
    assert_int_equal(viommu_iova_reserve(f.disk, &request, 1, &r, NULL), -EINVAL);
    request.range = (struct viommu_range){0, 0xfff};
    request.align = 0x800;
    assert_int_equal(viommu_iova_reserve(f.disk, &request, 1, &r, NULL), -EINVAL);
    request.align = 0;
    request.type = (enum viommu_iova_type)99;
    assert_int_equal(viommu_iova_reserve(f.disk, &request, 1, &r, NULL), -EINVAL);
    assert_int_equal(viommu_iova_reserve(f.disk, &request, 0, &r, NULL), 0);
    end(&f);
}

/* Every allocation of every call fails once: nothing has changed then, and the call works after. */
static void test_allocation_failures(void **state)
{
    struct fixture f;
    struct viommu_iova_reservation *r[3];
    struct viommu_iova_memory *memory;
    const struct viommu_iova_request requests[] = {
        {.type = VIOMMU_IOVA_RESERVED, .range = {0x1000, 0x1fff}},
        {.type = VIOMMU_IOVA_SW_MSI, .range = {0x4000, 0x4fff}, .movable = true},
        {.type = VIOMMU_IOVA_P2P, .range = {0x10000, 0x1ffff}},
    };
    struct viommu_range usable[8];
    struct viommu_range place;
    uint64_t iova;
    unsigned failures = 0;

#define TRY(call)                                                                                  \
    for (unsigned long n = 1;; n++) {                                                              \
        uint64_t generation = viommu_iova_generation(f.space);                                     \
        int error;                                                                                 \
                                                                                                   \
        base_alloc_fail_at(n);                                                                     \
        error = (call);                                                                            \
        if (!base_alloc_failed()) {                                                                \
            base_alloc_fail_at(0);                                                                 \
            assert_int_equal(error, 0);                                                            \
            break;                                                                                 \
        }                                                                                          \
        failures++;                                                                                \
        assert_int_equal(error, -ENOMEM);                                                          \
        assert_int_equal(viommu_iova_generation(f.space), generation);                             \
    }

    (void)state;
    begin(&f, true);
    TRY(viommu_iova_reserve(f.disk, requests, 3, r, NULL));
    TRY(viommu_iova_memory_add(f.vmm, RANGE(0x4000, 0x8fff), true, &memory, NULL));
    TRY(viommu_iova_limit(f.disk, RANGE(0x1000, GIB - 1), 1, NULL));
    /* Over the window, which gives way, or stays when there is no memory to note the mapping. */
    place = viommu_iova_reservation_range(r[1]);
    TRY(map(&f, place.first, place.last));
    assert_int_not_equal(viommu_iova_reservation_range(r[1]).first, place.first);
    TRY(map(&f, 0x20000, 0x20fff));
    TRY(viommu_iova_doorbell_map(r[1], 0xfee00000, &iova, NULL));
    TRY(viommu_iova_alloc(f.vmm, 0x1000, 0, NULL, &iova));
    size_t count = 8;
    TRY(viommu_iova_usable(f.space, usable, &count, NULL));
    assert_true(failures > 8);
    end(&f);
#undef TRY
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_release_gives_back_exactly),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_type_names),
        cmocka_unit_test(test_reservation_meets_mapping),
        cmocka_unit_test(test_mapping_conflicts),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_identity_memory),
        cmocka_unit_test(test_windows_give_way),
        cmocka_unit_test(test_windows_move_together),
        cmocka_unit_test(test_windows_avoid_declared_memory),
        cmocka_unit_test(test_doorbells),
        cmocka_unit_test(test_alloc),
        cmocka_unit_test(test_misuse),
        cmocka_unit_test(test_allocation_failures),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
