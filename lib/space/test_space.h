/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * For tests of this room: regions made in a line, and an IOMMU that is an array.
 *
 * The IOMMU has TEST_PAGES pages of its own page size. Each attribute index (0: secure, 1: not) has
 * for each page where it leads and what it allows.
 */
#ifndef VIOMMU_SPACE_TEST_SPACE_H
#define VIOMMU_SPACE_TEST_SPACE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdatomic.h>
#include <string.h>
#include <viommu/cpu_tlb.h>
#include <viommu/space.h>

#define TEST_PAGES 64
#define KIB 1024ull

static const struct viommu_bus_attrs secure = {.secure = true, .requester = 3};
static const struct viommu_bus_attrs normal = {.requester = 4};

struct test_iommu {
    struct viommu_region *region;
    struct viommu_space *space; /* where all lead */
    uint64_t page;              /* size */
    _Atomic uint64_t to[2][TEST_PAGES]; /* address | perm */
    unsigned asked;
    unsigned refusals;
    uint64_t refused_at;
    uint32_t refused_perm;
    int answer; /* to refusals */
};

static unsigned test_index_of(void *opaque, const struct viommu_bus_attrs *attrs)
{
    (void)opaque;
    return !attrs->secure && !attrs->unspecified;
}

static void test_translate(void *opaque, uint64_t address, unsigned index, struct viommu_hop *hop)
{
    struct test_iommu *iommu = opaque;
    uint64_t to = iommu->to[index][address / iommu->page % TEST_PAGES];

    iommu->asked++;
    *hop = (struct viommu_hop){.space = iommu->space,
                               .address = (to & ~3ull) + address % iommu->page,
                               .page = iommu->page,
                               .perm = to & 3};
}

static int test_refused(void *opaque, uint64_t address, uint32_t perm, unsigned index,
                        const struct viommu_bus_attrs *attrs)
{
    struct test_iommu *iommu = opaque;

    (void)index;
    (void)attrs;
    iommu->refusals++;
    iommu->refused_at = address;
    iommu->refused_perm = perm;
    return iommu->answer;
}

static const struct viommu_region_iommu_ops test_iommu_ops = {
    .index_count = 2,
    .index_of = test_index_of,
    .translate = test_translate,
    .refused = test_refused,
};

/* One to one, all allowed. */
static inline void test_iommu_init(struct viommu_bus *bus, struct test_iommu *iommu, uint64_t page,
                                   struct viommu_space *space)
{
    struct viommu_region_config config = {.name = "iommu",
                                          .kind = VIOMMU_REGION_IOMMU,
                                          .last = TEST_PAGES * page - 1,
                                          .iommu = &test_iommu_ops,
                                          .opaque = iommu};

    *iommu = (struct test_iommu){.space = space, .page = page};
    for (unsigned i = 0; i < TEST_PAGES; i++) {
        iommu->to[0][i] = i * page | 3;
        iommu->to[1][i] = i * page | 3;
    }
    assert_int_equal(viommu_region_create(bus, &config, &iommu->region), 0);
}

static inline struct viommu_region *test_region(struct viommu_bus *bus, const char *name,
                                                enum viommu_region_kind kind, uint64_t size,
                                                void *host)
{
    struct viommu_region_config config = {
        .name = name, .kind = kind, .last = size - 1, .host = host};
    struct viommu_region *region;

    assert_int_equal(viommu_region_create(bus, &config, &region), 0);
    return region;
}

static inline struct viommu_region *test_alias(struct viommu_bus *bus, const char *name,
                                               struct viommu_region *target, uint64_t offset,
                                               uint64_t size)
{
    struct viommu_region_config config = {.name = name,
                                          .kind = VIOMMU_REGION_ALIAS,
                                          .last = size - 1,
                                          .target = target,
                                          .offset = offset};
    struct viommu_region *region;

    assert_int_equal(viommu_region_create(bus, &config, &region), 0);
    return region;
}

#endif
