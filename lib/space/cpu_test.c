/* SPDX-License-Identifier: BSD-2-Clause */
/* The soft TLB: what is cached, what drops it, and who is told. */
#include "space/private.h"
#include "space/test_space.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#define RAM_AT 0x100000u
#define PAGE 4096u

/* A CPU in front of an IOMMU that leads to RAM in another space. */
struct bed {
    struct viommu_bus *bus;
    struct viommu_region *root;
    struct viommu_region *behind;
    struct viommu_space *space;
    struct viommu_space *second;
    struct test_iommu iommu;
    struct viommu_cpu *cpu;
    const struct viommu_cpu_tlb *tlb;
    unsigned kicks;
    uint64_t kick_saw; /* what page 5 of the IOMMU was then */
    struct viommu_cpu_walk walk;
    int walk_error;
    char ram[TEST_PAGES * PAGE];
};

static void on_kick(void *opaque)
{
    struct bed *bed = opaque;

    bed->kicks++;
    bed->kick_saw = bed->iommu.to[1][5];
}

static void make_cpu(struct bed *bed, struct viommu_cpu_config config)
{
    viommu_cpu_destroy(bed->cpu);
    config.opaque = bed;
    config.kick = on_kick;
    assert_int_equal(viommu_cpu_create(bed->bus, &config, &bed->cpu), 0);
    bed->tlb = viommu_cpu_tlb(bed->cpu);
    assert_int_equal(viommu_cpu_set_space(bed->cpu, 0, bed->space, &normal), 0);
    assert_int_equal(viommu_cpu_begin(bed->cpu), 0);
}

static int setup(void **state)
{
    struct bed *bed = calloc(1, sizeof(*bed));
    struct viommu_region *ram;

    assert_int_equal(viommu_bus_create(&bed->bus), 0);
    bed->root = test_region(bed->bus, "root", VIOMMU_REGION_CONTAINER, 0, NULL);
    bed->behind = test_region(bed->bus, "behind", VIOMMU_REGION_CONTAINER, 0, NULL);
    ram = test_region(bed->bus, "ram", VIOMMU_REGION_RAM, sizeof(bed->ram), bed->ram);
    assert_int_equal(viommu_space_create(bed->root, &bed->space), 0);
    assert_int_equal(viommu_space_create(bed->behind, &bed->second), 0);
    test_iommu_init(bed->bus, &bed->iommu, PAGE, bed->second);
    bed->iommu.answer = -EIO;
    assert_int_equal(viommu_region_add(bed->root, bed->iommu.region, RAM_AT, 0), 0);
    assert_int_equal(viommu_region_add(bed->behind, ram, 0, 0), 0);
    assert_int_equal(viommu_bus_commit(bed->bus), 0);
    make_cpu(bed, (struct viommu_cpu_config){.indexes = 3, .entries = 64, .notifiers = 2});
    for (unsigned i = 0; i < TEST_PAGES; i++) {
        bed->ram[i * PAGE] = (char)i;
    }
    *state = bed;
    return 0;
}

static int teardown(void **state)
{
    struct bed *bed = *state;

    viommu_cpu_end(bed->cpu);
    viommu_bus_destroy(bed->bus);
    free(bed);
    return 0;
}

static uint64_t page_at(unsigned page)
{
    return RAM_AT + page * PAGE;
}

static void *find(struct bed *bed, unsigned page, enum viommu_cpu_use use)
{
    return viommu_tlb_find(bed->tlb, 0, page_at(page), 1, use);
}

static int load(struct bed *bed, unsigned page)
{
    uint64_t value;
    int error = viommu_cpu_load(bed->cpu, bed->tlb, 0, page_at(page), 1, VIOMMU_CPU_READ, &value);

    return error ? error : (int)value;
}

static void safe_point(struct bed *bed)
{
    viommu_cpu_safe_point(bed->cpu, bed->tlb);
}

static struct viommu_cpu_stats stats_of(struct bed *bed)
{
    struct viommu_cpu_stats stats;

    viommu_cpu_stats(bed->cpu, &stats);
    return stats;
}

static void caches_all_permissions_at_once(void **state)
{
    struct bed *bed = *state;

    assert_null(find(bed, 5, VIOMMU_CPU_READ));
    assert_int_equal(load(bed, 5), 5);
    assert_ptr_equal(find(bed, 5, VIOMMU_CPU_READ), bed->ram + 5 * PAGE);
    assert_ptr_equal(find(bed, 5, VIOMMU_CPU_WRITE), bed->ram + 5 * PAGE);
    assert_ptr_equal(find(bed, 5, VIOMMU_CPU_FETCH), bed->ram + 5 * PAGE);
    assert_null(viommu_tlb_find(bed->tlb, 0, page_at(5) + PAGE - 3, 4, VIOMMU_CPU_READ));
    assert_non_null(viommu_tlb_find(bed->tlb, 0, page_at(5) + PAGE - 4, 4, VIOMMU_CPU_READ));
    assert_null(viommu_tlb_find(bed->tlb, 1, page_at(5), 1, VIOMMU_CPU_READ));
    assert_int_equal(bed->iommu.asked, 1);
    /* Read only, write only, nothing: a fill latches nothing; a real access does. */
    bed->iommu.to[1][6] = 6 * PAGE | VIOMMU_READ;
    bed->iommu.to[1][7] = 7 * PAGE | VIOMMU_WRITE;
    bed->iommu.to[1][8] = 0;
    assert_int_equal(viommu_cpu_fill(bed->cpu, 0, page_at(6)), VIOMMU_READ | VIOMMU_EXEC);
    assert_int_equal(viommu_cpu_fill(bed->cpu, 0, page_at(7)), VIOMMU_WRITE);
    assert_int_equal(viommu_cpu_fill(bed->cpu, 0, page_at(8)), 0);
    assert_int_equal(viommu_cpu_fill(bed->cpu, 0, 0), 0);
    assert_non_null(find(bed, 6, VIOMMU_CPU_FETCH));
    assert_null(find(bed, 6, VIOMMU_CPU_WRITE));
    assert_non_null(find(bed, 7, VIOMMU_CPU_WRITE));
    assert_null(find(bed, 7, VIOMMU_CPU_READ));
    assert_null(find(bed, 8, VIOMMU_CPU_READ));
    assert_int_equal(bed->iommu.refusals, 0);
    assert_int_equal(viommu_cpu_store(bed->cpu, bed->tlb, 0, page_at(6), 1, 1), -EIO);
    assert_int_equal(bed->iommu.refusals, 1);
    assert_int_equal(bed->iommu.refused_at, 6 * PAGE);
    assert_int_equal(load(bed, 8), -EIO);
    assert_int_equal(viommu_cpu_access(bed->cpu, 0, 0, &(char){0}, 1, VIOMMU_CPU_READ), -ENXIO);
    assert_int_equal(viommu_cpu_access(bed->cpu, 1, 0, &(char){0}, 1, VIOMMU_CPU_READ), -ENXIO);
    assert_int_equal(viommu_cpu_access(bed->cpu, 3, 0, &(char){0}, 1, VIOMMU_CPU_READ), -EINVAL);
}

static void over_page_borders(void **state)
{
    struct bed *bed = *state;
    uint64_t value = 0;
    char all[3 * PAGE];

    bed->iommu.to[1][1] = 9 * PAGE | 3;
    assert_int_equal(viommu_cpu_store(bed->cpu, bed->tlb, 0, page_at(1) - 3, 8,
                                      0x8877665544332211), 0);
    assert_memory_equal(bed->ram + PAGE - 3, "\x11\x22\x33", 3);
    assert_memory_equal(bed->ram + 9 * PAGE, "\x44\x55\x66\x77\x88", 5);
    assert_int_equal(viommu_cpu_load(bed->cpu, bed->tlb, 0, page_at(1) - 3, 8, VIOMMU_CPU_FETCH,
                                     &value), 0);
    assert_int_equal(value, 0x8877665544332211);
    assert_int_equal(viommu_cpu_access(bed->cpu, 0, page_at(0) + 1, all, sizeof(all),
                                       VIOMMU_CPU_READ), 0);
    assert_memory_equal(all + PAGE - 1, bed->ram + 9 * PAGE, PAGE);
    assert_memory_equal(all + 2 * PAGE - 1, bed->ram + 2 * PAGE, PAGE);
    assert_int_equal(viommu_cpu_access(bed->cpu, 0, UINT64_MAX, all, 2, VIOMMU_CPU_READ), -EINVAL);
}

static void changes_drop_what_crossed_them(void **state)
{
    struct bed *bed = *state;

    for (unsigned i = 0; i < 32; i++) {
        assert_int_equal(load(bed, i), i);
    }
    assert_int_equal(stats_of(bed).armed, 1);
    bed->iommu.to[1][5] = 40 * PAGE | 3;
    viommu_region_iommu_changed(bed->iommu.region, 0, 0, UINT64_MAX); /* another index */
    assert_int_equal(bed->kicks, 0);
    viommu_region_iommu_changed(bed->iommu.region, 1, 5 * PAGE + 7, 5 * PAGE + 7);
    assert_int_equal(bed->kicks, 1);
    assert_int_equal(bed->kick_saw, 40 * PAGE | 3);
    assert_int_equal(load(bed, 5), 5); /* until the next safe point */
    safe_point(bed);
    assert_int_equal(load(bed, 5), 40);
    assert_int_equal(stats_of(bed).entries_dropped, 1);
    assert_int_equal(stats_of(bed).fills, 33);
    assert_int_equal(stats_of(bed).full_flushes, 1); /* by set_space */
    /* A range, and one of any size. */
    viommu_region_iommu_changed(bed->iommu.region, VIOMMU_INDEX_ALL, 6 * PAGE, 8 * PAGE - 1);
    safe_point(bed);
    assert_int_equal(stats_of(bed).entries_dropped, 3);
    assert_null(find(bed, 6, VIOMMU_CPU_READ));
    assert_null(find(bed, 7, VIOMMU_CPU_READ));
    assert_non_null(find(bed, 8, VIOMMU_CPU_READ));
    viommu_region_iommu_changed(bed->iommu.region, 1, 20 * PAGE, UINT64_MAX);
    viommu_region_iommu_changed(bed->iommu.region, 1, 1, 0);
    safe_point(bed);
    assert_int_equal(stats_of(bed).entries_dropped, 15);
    assert_null(find(bed, 20, VIOMMU_CPU_READ));
    assert_non_null(find(bed, 19, VIOMMU_CPU_READ));
}

static void too_many_changes_drop_all(void **state)
{
    struct bed *bed = *state;

    for (unsigned i = 0; i < 32; i++) {
        (void)load(bed, i);
    }
    for (unsigned i = 0; i < ASKED_MAX + 1; i++) {
        viommu_region_iommu_changed(bed->iommu.region, 1, i, i);
    }
    safe_point(bed);
    for (unsigned i = 0; i < 32; i++) {
        assert_null(find(bed, i, VIOMMU_CPU_READ));
    }
    assert_int_equal(load(bed, 3), 3);
}

/* Armed on fill; rests when it is told in vain; others make room. */
static void notifiers(void **state)
{
    struct bed *bed = *state;
    struct test_iommu more[3];

    for (unsigned i = 0; i < 3; i++) {
        test_iommu_init(bed->bus, &more[i], PAGE, bed->second);
        assert_int_equal(viommu_region_add(bed->root, more[i].region, 0x1000000 * (i + 1), 0), 0);
    }
    assert_int_equal(viommu_bus_commit(bed->bus), 0);
    safe_point(bed);
    assert_int_equal(stats_of(bed).armed, 0);
    (void)load(bed, 1);
    (void)load(bed, 2);
    assert_int_equal(stats_of(bed).armed, 1);
    viommu_region_iommu_changed(bed->iommu.region, 1, PAGE, 2 * PAGE - 1);
    safe_point(bed);
    viommu_region_iommu_changed(bed->iommu.region, 1, PAGE, 2 * PAGE - 1);
    safe_point(bed);
    assert_int_equal(stats_of(bed).armed, 1); /* page 2 came through it */
    viommu_region_iommu_changed(bed->iommu.region, 1, 0, UINT64_MAX);
    safe_point(bed);
    viommu_region_iommu_changed(bed->iommu.region, 1, 0, UINT64_MAX);
    safe_point(bed);
    assert_int_equal(stats_of(bed).armed, 0);
    viommu_region_iommu_changed(bed->iommu.region, 1, 0, UINT64_MAX);
    assert_int_equal(bed->kicks, 5);
    /* Two pairs are all there are: the third is not cached while the others have entries. */
    (void)load(bed, 1);
    assert_true(viommu_cpu_fill(bed->cpu, 0, 0x1000000) > 0);
    assert_true(viommu_cpu_fill(bed->cpu, 0, 0x2000000) > 0);
    assert_non_null(viommu_tlb_find(bed->tlb, 0, 0x1000000, 1, VIOMMU_CPU_READ));
    assert_null(viommu_tlb_find(bed->tlb, 0, 0x2000000, 1, VIOMMU_CPU_READ));
    assert_int_equal(stats_of(bed).armed, 2);
    /* After a full flush they make room. */
    viommu_cpu_flush(bed->cpu);
    assert_true(viommu_cpu_fill(bed->cpu, 0, 0x2000000) > 0);
    assert_non_null(viommu_tlb_find(bed->tlb, 0, 0x2000000, 1, VIOMMU_CPU_READ));
    assert_int_equal(stats_of(bed).armed, 1);
}

static void released_with_the_region_and_the_cpu(void **state)
{
    struct bed *bed = *state;
    struct test_iommu other;

    (void)load(bed, 1);
    assert_int_equal(stats_of(bed).armed, 1);
    viommu_region_destroy(bed->iommu.region);
    assert_int_equal(viommu_bus_commit(bed->bus), 0);
    viommu_cpu_end(bed->cpu);
    assert_int_equal(viommu_bus_wait(bed->bus), 0);
    assert_int_equal(stats_of(bed).armed, 0);
    assert_int_equal(viommu_cpu_begin(bed->cpu), 0);
    /* Another in its place, perhaps in its memory: it is armed anew. */
    test_iommu_init(bed->bus, &other, PAGE, bed->second);
    assert_int_equal(viommu_region_add(bed->root, other.region, RAM_AT, 0), 0);
    assert_int_equal(viommu_bus_commit(bed->bus), 0);
    safe_point(bed);
    assert_int_equal(load(bed, 1), 1);
    assert_int_equal(stats_of(bed).armed, 1);
    /* A CPU that goes with armed pairs, running entries or not. */
    viommu_cpu_end(bed->cpu);
    make_cpu(bed, (struct viommu_cpu_config){.indexes = 1, .entries = 16});
    viommu_region_iommu_changed(other.region, VIOMMU_INDEX_ALL, 0, UINT64_MAX);
    assert_int_equal(bed->kicks, 2); /* by the commits, of the first one */
    assert_int_equal(load(bed, 1), 1);
}

static void smaller_than_a_page_is_not_cached(void **state)
{
    struct bed *bed = *state;
    struct test_iommu fine;

    test_iommu_init(bed->bus, &fine, 64, bed->second);
    assert_int_equal(viommu_region_add(bed->root, fine.region, 0x1000000, 0), 0);
    assert_int_equal(viommu_bus_commit(bed->bus), 0);
    safe_point(bed);
    fine.to[1][1] = 7 * PAGE | 3;
    for (unsigned i = 0; i < 3; i++) {
        uint64_t value;

        assert_int_equal(viommu_cpu_load(bed->cpu, bed->tlb, 0, 0x1000040, 1, VIOMMU_CPU_READ,
                                         &value), 0);
        assert_int_equal(value, 7);
    }
    assert_null(viommu_tlb_find(bed->tlb, 0, 0x1000040, 1, VIOMMU_CPU_READ));
    assert_int_equal(stats_of(bed).uncached, 3);
    assert_int_equal(stats_of(bed).fills, 0);
    /* A part of a page in a view. */
    assert_int_equal(viommu_region_remove(bed->iommu.region), 0);
    assert_int_equal(viommu_region_add(bed->root, bed->iommu.region, RAM_AT + 0x800, 0), 0);
    assert_int_equal(viommu_bus_commit(bed->bus), 0);
    safe_point(bed);
    assert_int_equal(load(bed, 1), bed->ram[0x800]);
    assert_null(find(bed, 1, VIOMMU_CPU_READ));
    assert_int_equal(stats_of(bed).fills, 0);
}

static void crossed_at_an_offset(void **state)
{
    struct bed *bed = *state;
    struct test_iommu big;

    /* Pages of 64 KiB, seen with an offset that is no multiple of the CPU's page. */
    test_iommu_init(bed->bus, &big, 65536, bed->second);
    assert_int_equal(viommu_region_add(bed->root, test_alias(bed->bus, "a", big.region, 0x200,
                                                             0x80000), 0x1000000, 0), 0);
    assert_int_equal(viommu_bus_commit(bed->bus), 0);
    safe_point(bed);
    assert_true(viommu_cpu_fill(bed->cpu, 0, 0x1000000) > 0);
    assert_ptr_equal(viommu_tlb_find(bed->tlb, 0, 0x1000000, 1, VIOMMU_CPU_READ),
                     bed->ram + 0x200);
    /* The byte before, and that behind, are not crossed. */
    viommu_region_iommu_changed(big.region, 1, 0x1ff, 0x1ff);
    viommu_region_iommu_changed(big.region, 1, 0x1200, 0x1200);
    safe_point(bed);
    assert_non_null(viommu_tlb_find(bed->tlb, 0, 0x1000000, 1, VIOMMU_CPU_READ));
    viommu_region_iommu_changed(big.region, 1, 0x11ff, 0x11ff);
    safe_point(bed);
    assert_null(viommu_tlb_find(bed->tlb, 0, 0x1000000, 1, VIOMMU_CPU_READ));
    assert_true(viommu_cpu_fill(bed->cpu, 0, 0x1000000) > 0);
    viommu_region_iommu_changed(big.region, 1, 0x200, 0x200);
    safe_point(bed);
    assert_null(viommu_tlb_find(bed->tlb, 0, 0x1000000, 1, VIOMMU_CPU_READ));
}

static void long_chains_are_not_cached(void **state)
{
    struct bed *bed = *state;
    struct test_iommu iommus[CACHED_HOPS_MAX];
    struct viommu_space *space = bed->space;
    uint64_t value;

    viommu_cpu_end(bed->cpu);
    make_cpu(bed, (struct viommu_cpu_config){.indexes = 1});
    for (unsigned i = 0; i < CACHED_HOPS_MAX; i++) {
        struct viommu_region *root = test_region(bed->bus, "", VIOMMU_REGION_CONTAINER, 0, NULL);

        test_iommu_init(bed->bus, &iommus[i], PAGE, space);
        iommus[i].to[1][1] = i ? PAGE | 3 : page_at(1) | 3;
        assert_int_equal(viommu_space_create(root, &space), 0);
        assert_int_equal(viommu_region_add(root, iommus[i].region, 0, 0), 0);
        assert_int_equal(viommu_bus_commit(bed->bus), 0);
        safe_point(bed);
        assert_int_equal(viommu_cpu_set_space(bed->cpu, 0, space, &normal), 0);
        assert_int_equal(viommu_cpu_load(bed->cpu, bed->tlb, 0, PAGE, 1, VIOMMU_CPU_READ, &value),
                         0);
        assert_int_equal(value, 1);
        assert_int_equal(viommu_tlb_find(bed->tlb, 0, PAGE, 1, VIOMMU_CPU_READ) != NULL,
                         i + 2 <= CACHED_HOPS_MAX);
        if (i + 2 <= CACHED_HOPS_MAX) {
            /* Each hop of it drops it. */
            viommu_region_iommu_changed(bed->iommu.region, 1, PAGE, PAGE);
            safe_point(bed);
            assert_null(viommu_tlb_find(bed->tlb, 0, PAGE, 1, VIOMMU_CPU_READ));
            assert_true(viommu_cpu_fill(bed->cpu, 0, PAGE) > 0);
            viommu_region_iommu_changed(iommus[i].region, 1, PAGE, PAGE);
            safe_point(bed);
            assert_null(viommu_tlb_find(bed->tlb, 0, PAGE, 1, VIOMMU_CPU_READ));
        }
    }
}

static void twice_through_one_iommu(void **state)
{
    struct bed *bed = *state;

    /* Its page 1 leads to its own page 2. */
    bed->iommu.space = bed->space;
    bed->iommu.to[1][1] = page_at(2) | 3;
    bed->iommu.to[1][2] = 0x2000000 | 3;
    assert_int_equal(viommu_region_add(bed->root, test_region(bed->bus, "r", VIOMMU_REGION_RAM,
                                                              PAGE, bed->ram + 9 * PAGE),
                                       0x2000000, 0), 0);
    assert_int_equal(viommu_bus_commit(bed->bus), 0);
    safe_point(bed);
    for (unsigned i = 1; i < 4; i++) {
        assert_int_equal(load(bed, 1), 9);
        assert_non_null(find(bed, 1, VIOMMU_CPU_READ));
        viommu_region_iommu_changed(bed->iommu.region, 1, (i & 1) * PAGE, (i & 2 ? 2 : 1) * PAGE);
        safe_point(bed);
        assert_null(find(bed, 1, VIOMMU_CPU_READ));
    }
}

static void generations_begin_anew(void **state)
{
    struct bed *bed = *state;

    viommu_cpu_end(bed->cpu);
    make_cpu(bed, (struct viommu_cpu_config){.page_bits = 10, .entries = 16});
    for (unsigned i = 0; i < 5000; i++) {
        assert_null(find(bed, 1, VIOMMU_CPU_READ));
        assert_int_equal(load(bed, 1), 1);
        assert_non_null(find(bed, 1, VIOMMU_CPU_READ));
        viommu_cpu_flush(bed->cpu);
    }
    assert_int_equal(load(bed, 1), 1);
    assert_int_equal(load(bed, 2), 2);
    viommu_cpu_flush_page(bed->cpu, 0, page_at(2) + 5);
    assert_non_null(find(bed, 1, VIOMMU_CPU_READ));
    assert_null(find(bed, 2, VIOMMU_CPU_READ));
}

static int on_walk(void *opaque, unsigned index, uint64_t address, enum viommu_cpu_use use,
                   struct viommu_cpu_walk *walk)
{
    struct bed *bed = opaque;

    (void)index;
    (void)address;
    (void)use;
    *walk = bed->walk;
    return bed->walk_error;
}

static void the_cpus_own_tables(void **state)
{
    struct bed *bed = *state;
    uint64_t value;

    viommu_cpu_end(bed->cpu);
    make_cpu(bed, (struct viommu_cpu_config){.walk = on_walk});
    bed->walk = (struct viommu_cpu_walk){.address = page_at(3), .perm = VIOMMU_READ};
    assert_int_equal(viommu_cpu_load(bed->cpu, bed->tlb, 0, 0x7000, 1, VIOMMU_CPU_READ, &value), 0);
    assert_int_equal(value, 3);
    assert_non_null(viommu_tlb_find(bed->tlb, 0, 0x7fff, 1, VIOMMU_CPU_READ));
    assert_null(viommu_tlb_find(bed->tlb, 0, 0x7000, 1, VIOMMU_CPU_WRITE));
    assert_int_equal(viommu_cpu_store(bed->cpu, bed->tlb, 0, 0x7000, 1, 1), -EACCES);
    assert_int_equal(viommu_cpu_load(bed->cpu, bed->tlb, 0, 0x7000, 1, VIOMMU_CPU_FETCH, &value),
                     -EACCES);
    bed->walk_error = -EFAULT;
    assert_int_equal(viommu_cpu_store(bed->cpu, bed->tlb, 0, 0x7000, 1, 1), -EFAULT);
    assert_int_equal(viommu_cpu_fill(bed->cpu, 0, 0x9000), -EFAULT);
    bed->walk_error = 5; /* no errno */
    assert_int_equal(viommu_cpu_store(bed->cpu, bed->tlb, 0, 0x7000, 1, 1), -EIO);
    /* What the IOMMU changes is found by where it was crossed, not by the CPU's address. */
    viommu_region_iommu_changed(bed->iommu.region, 1, 3 * PAGE, 3 * PAGE);
    safe_point(bed);
    assert_null(viommu_tlb_find(bed->tlb, 0, 0x7000, 1, VIOMMU_CPU_READ));
    /* Other attributes than those of the MMU index. */
    bed->walk_error = 0;
    bed->walk.has_attrs = true;
    bed->walk.attrs = secure;
    bed->iommu.to[0][3] = 11 * PAGE | 3;
    assert_int_equal(viommu_cpu_load(bed->cpu, bed->tlb, 0, 0x7000, 1, VIOMMU_CPU_READ, &value), 0);
    assert_int_equal(value, 11);
}

static void views_change_under_the_cpu(void **state)
{
    struct bed *bed = *state;
    struct viommu_region *cover = test_region(bed->bus, "cover", VIOMMU_REGION_ROM, PAGE,
                                              bed->ram + 30 * PAGE);

    assert_int_equal(load(bed, 2), 2);
    assert_int_equal(viommu_region_add(bed->root, cover, page_at(2), 1), 0);
    assert_int_equal(load(bed, 2), 2);
    assert_int_equal(viommu_bus_commit(bed->bus), 0);
    assert_int_equal(load(bed, 2), 2); /* it has come to no safe point */
    safe_point(bed);
    assert_int_equal(load(bed, 2), 30);
    assert_int_equal(viommu_cpu_store(bed->cpu, bed->tlb, 0, page_at(2), 1, 1), -EROFS);
    /* A CPU that is stopped hears of it when it begins. */
    viommu_cpu_end(bed->cpu);
    viommu_region_enable(cover, false);
    assert_int_equal(viommu_bus_commit(bed->bus), 0);
    assert_int_equal(viommu_bus_wait(bed->bus), 0);
    assert_int_equal(viommu_cpu_begin(bed->cpu), 0);
    assert_int_equal(load(bed, 2), 2);
    /* Nothing has changed: nothing is dropped. */
    assert_int_equal(viommu_bus_commit(bed->bus), 0);
    safe_point(bed);
    assert_non_null(find(bed, 2, VIOMMU_CPU_READ));
}

static int use_the_cpu(void *opaque, uint64_t offset, unsigned size,
                       const struct viommu_bus_attrs *attrs, uint64_t *value)
{
    struct bed *bed = opaque;

    (void)offset;
    (void)size;
    (void)attrs;
    *value = 0x77;
    safe_point(bed);
    viommu_cpu_honour(bed->cpu);
    assert_int_equal(viommu_cpu_fill(bed->cpu, 0, page_at(2)), -EDEADLK);
    return viommu_cpu_access(bed->cpu, 0, page_at(2), &(char){0}, 1, VIOMMU_CPU_READ) == -EDEADLK
               ? 0
               : -EIO;
}

static int ignore_write(void *opaque, uint64_t offset, unsigned size,
                        const struct viommu_bus_attrs *attrs, uint64_t value)
{
    (void)opaque;
    (void)offset;
    (void)size;
    (void)attrs;
    (void)value;
    return 0;
}

/* A callback that its own CPU's access has led to gets an error of that CPU, and nothing breaks. */
static void a_callback_does_not_use_the_cpu(void **state)
{
    static const struct viommu_region_ops ops = {.read = use_the_cpu, .write = ignore_write};
    struct bed *bed = *state;
    struct viommu_region_config config = {
        .kind = VIOMMU_REGION_MMIO, .last = 0xfff, .ops = &ops, .opaque = bed};
    struct viommu_region *region;
    uint64_t value;

    assert_int_equal(viommu_region_create(bed->bus, &config, &region), 0);
    assert_int_equal(viommu_region_add(bed->root, region, 0, 0), 0);
    assert_int_equal(viommu_bus_commit(bed->bus), 0);
    assert_int_equal(viommu_cpu_load(bed->cpu, bed->tlb, 0, 8, 1, VIOMMU_CPU_READ, &value), 0);
    assert_int_equal(value, 0x77);
    assert_int_equal(viommu_bus_wait(bed->bus), -EDEADLK); /* it runs */
    assert_int_equal(load(bed, 2), 2);
}

/* A CPU of another bus, on a thread of its own, which takes its time when it is asked. */
struct runner {
    struct bed *bed;
    struct viommu_cpu *cpu;
    atomic_bool runs;
    atomic_bool asked;
    atomic_bool stopped;
};

static void on_runner_kick(void *opaque)
{
    atomic_store(&((struct runner *)opaque)->asked, true);
}

static void *runner_run(void *opaque)
{
    struct runner *runner = opaque;

    assert_int_equal(viommu_cpu_begin(runner->cpu), 0);
    assert_int_equal(viommu_cpu_fill(runner->cpu, 0, page_at(1)), 7);
    atomic_store(&runner->runs, true);
    while (!atomic_load(&runner->asked)) {
        sched_yield();
    }
    usleep(20000);
    atomic_store(&runner->stopped, true);
    viommu_cpu_end(runner->cpu);
    return NULL;
}

/* A register that changes an IOMMU of two buses, its own last. */
static int change_two(void *opaque, uint64_t offset, unsigned size,
                      const struct viommu_bus_attrs *attrs, uint64_t value)
{
    struct bed **beds = opaque;

    viommu_region_iommu_changed(beds[1]->iommu.region, VIOMMU_INDEX_ALL, 0, PAGE * 2 - 1);
    viommu_region_iommu_changed(beds[0]->iommu.region, VIOMMU_INDEX_ALL, 0, PAGE * 2 - 1);
    return ignore_write(opaque, offset, size, attrs, value);
}

static void an_access_waits_for_cpus_of_all_buses_that_it_changed(void **state)
{
    static const struct viommu_region_ops ops = {.read = use_the_cpu, .write = change_two};
    struct bed *beds[2] = {*state};
    struct viommu_region_config config = {
        .kind = VIOMMU_REGION_MMIO, .last = 0xfff, .ops = &ops, .opaque = beds};
    struct runner runner = {0};
    struct viommu_cpu_config cpu = {.opaque = &runner, .kick = on_runner_kick};
    struct viommu_region *region;
    pthread_t thread;
    void *other;

    setup(&other);
    beds[1] = other;
    viommu_cpu_end(beds[0]->cpu); /* else this thread does not wait */
    viommu_cpu_end(beds[1]->cpu);
    assert_int_equal(viommu_region_create(beds[0]->bus, &config, &region), 0);
    assert_int_equal(viommu_region_add(beds[0]->root, region, 0, 0), 0);
    assert_int_equal(viommu_bus_commit(beds[0]->bus), 0);
    assert_int_equal(viommu_cpu_create(beds[1]->bus, &cpu, &runner.cpu), 0);
    assert_int_equal(viommu_cpu_set_space(runner.cpu, 0, beds[1]->space, &normal), 0);
    assert_int_equal(pthread_create(&thread, NULL, runner_run, &runner), 0);
    while (!atomic_load(&runner.runs)) {
        sched_yield();
    }

    assert_int_equal(viommu_space_write(beds[0]->space, 0, "", 1, &normal), 0);
    assert_true(atomic_load(&runner.stopped));

    pthread_join(thread, NULL);
    assert_int_equal(viommu_cpu_begin(beds[0]->cpu), 0);
    assert_int_equal(viommu_cpu_begin(beds[1]->cpu), 0);
    teardown(&other);
}

static void two_cpus_of_one_thread(void **state)
{
    struct bed *bed = *state;
    struct viommu_cpu_config none = {0};
    struct viommu_bus_ticket ticket;
    struct viommu_cpu *other;

    assert_int_equal(viommu_cpu_create(bed->bus, &none, &other), 0);
    assert_int_equal(viommu_cpu_begin(other), 0);
    for (unsigned i = 0; i < 3; i++) {
        viommu_bus_wait_begin(bed->bus, &ticket);
        assert_int_equal(viommu_bus_wait_end(bed->bus, &ticket), VIOMMU_PENDING);
        safe_point(bed);
        assert_int_equal(viommu_bus_wait_end(bed->bus, &ticket), VIOMMU_PENDING);
        viommu_cpu_safe_point(other, viommu_cpu_tlb(other));
        assert_int_equal(viommu_bus_wait_end(bed->bus, &ticket), 0);
    }
    /* One that is inside twice holds all back. */
    assert_int_equal(viommu_cpu_begin(other), 0);
    viommu_bus_wait_begin(bed->bus, &ticket);
    assert_int_equal(viommu_bus_wait_end(bed->bus, &ticket), VIOMMU_PENDING);
    viommu_cpu_safe_point(other, viommu_cpu_tlb(other));
    safe_point(bed);
    assert_int_equal(viommu_bus_wait_end(bed->bus, &ticket), VIOMMU_PENDING);
    viommu_cpu_end(other);
    viommu_cpu_end(other);
    safe_point(bed);
    assert_int_equal(viommu_bus_wait_end(bed->bus, &ticket), 0);
    viommu_cpu_destroy(other);
}

static void configurations(void **state)
{
    struct bed *bed = *state;
    static const struct viommu_cpu_config bad[] = {
        {.indexes = 17}, {.page_bits = 9}, {.page_bits = 17}, {.entries = 24}, {.entries = 8},
        {.entries = 2 << 20}, {.notifiers = 5000},
    };
    struct viommu_cpu *cpu;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(viommu_cpu_create(bed->bus, &bad[i], &cpu), -EINVAL);
    }
    assert_int_equal(viommu_cpu_set_space(bed->cpu, 3, bed->space, &normal), -EINVAL);
    assert_int_equal(viommu_cpu_fill(bed->cpu, 3, page_at(0)), -EINVAL);
    viommu_cpu_end(bed->cpu);
    assert_int_equal(viommu_cpu_fill(bed->cpu, 0, page_at(0)), -EINVAL);
    assert_int_equal(viommu_cpu_access(bed->cpu, 0, page_at(0), &(char){0}, 1, VIOMMU_CPU_READ),
                     -EINVAL); /* it does not run */
    assert_int_equal(viommu_cpu_begin(bed->cpu), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(caches_all_permissions_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(over_page_borders, setup, teardown),
        cmocka_unit_test_setup_teardown(changes_drop_what_crossed_them, setup, teardown),
        cmocka_unit_test_setup_teardown(too_many_changes_drop_all, setup, teardown),
        cmocka_unit_test_setup_teardown(notifiers, setup, teardown),
        cmocka_unit_test_setup_teardown(released_with_the_region_and_the_cpu, setup, teardown),
        cmocka_unit_test_setup_teardown(smaller_than_a_page_is_not_cached, setup, teardown),
        cmocka_unit_test_setup_teardown(crossed_at_an_offset, setup, teardown),
        cmocka_unit_test_setup_teardown(long_chains_are_not_cached, setup, teardown),
        cmocka_unit_test_setup_teardown(twice_through_one_iommu, setup, teardown),
        cmocka_unit_test_setup_teardown(generations_begin_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(the_cpus_own_tables, setup, teardown),
        cmocka_unit_test_setup_teardown(views_change_under_the_cpu, setup, teardown),
        cmocka_unit_test_setup_teardown(a_callback_does_not_use_the_cpu, setup, teardown),
        cmocka_unit_test_setup_teardown(an_access_waits_for_cpus_of_all_buses_that_it_changed,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(two_cpus_of_one_thread, setup, teardown),
        cmocka_unit_test_setup_teardown(configurations, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
