/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Random layouts, translations, and accesses by two CPUs, against a model without any TLB or view.
 *
 * The model finds an address anew each time: it goes down the tree of regions by priority, and
 * through IOMMUs, in the plainest way. The two CPUs run on one thread and take turns; each access
 * is made when the CPU has come to a safe point, so it must see every change made before.
 */
#include "space/test_space.h"

#include "support/random.h"

#include <errno.h>
#include <stdlib.h>

#define CPU_PAGE 1024u
#define SPACES 3
#define REGIONS 19
#define IOMMUS 3
#define REACH 0x10000u /* addresses of a space in use */
#define RAM_SIZE 0x8000u

/* What the test did to a region, as it did it. */
struct model_region {
    struct viommu_region *region;
    struct viommu_region_config config;
    struct model_region *container; /* committed or not */
    uint64_t at;
    int32_t priority;
    unsigned added; /* when */
    bool off;
    unsigned target;
    /* The same when it was last committed. */
    struct model_region *shown_in;
    uint64_t shown_at;
    int32_t shown_priority;
    unsigned shown_added;
    bool shown_off;
};

struct bed {
    struct random random;
    struct viommu_bus *bus;
    struct model_region roots[SPACES];
    struct viommu_space *spaces[SPACES];
    struct model_region regions[REGIONS];
    struct test_iommu iommus[IOMMUS]; /* regions 0 to IOMMUS - 1 */
    unsigned iommu_space[IOMMUS];
    struct viommu_cpu *cpus[2];
    unsigned adds;
    unsigned good; /* accesses that were answered */
    unsigned char ram[2][RAM_SIZE];
};

/* ---- the model ---- */

struct place {
    const struct model_region *region; /* NULL: nothing */
    uint64_t offset;
};

static const struct model_region *region_number(const struct bed *bed, unsigned number)
{
    return &bed->regions[number];
}

/* The region that is seen at an offset of another. */
static struct place see(const struct bed *bed, const struct model_region *region, uint64_t offset,
                        unsigned depth)
{
    struct place none = {.region = NULL};
    bool tried[REGIONS] = {false};

    if (region->shown_off || offset > region->config.last || depth > 20) {
        return none;
    }
    if (region->config.kind == VIOMMU_REGION_ALIAS) {
        return see(bed, region_number(bed, region->target), offset + region->config.offset,
                   depth + 1);
    }
    if (region->config.kind != VIOMMU_REGION_CONTAINER) {
        return (struct place){region, offset};
    }
    for (;;) {
        const struct model_region *best = NULL;
        struct place place;

        for (unsigned i = 0; i < REGIONS; i++) {
            const struct model_region *child = &bed->regions[i];

            if (child->shown_in == region && !tried[i] &&
                (!best || child->shown_priority > best->shown_priority ||
                 (child->shown_priority == best->shown_priority &&
                  child->shown_added > best->shown_added))) {
                best = child;
            }
        }
        if (!best) {
            return none;
        }
        tried[best - bed->regions] = true;
        if (offset >= best->shown_at) {
            place = see(bed, best, offset - best->shown_at, depth + 1);
            if (place.region) {
                return place;
            }
        }
    }
}

struct answer {
    int error; /* of a read, or of a write where that was asked */
    unsigned char *host;
};

static struct answer model_access(struct bed *bed, unsigned space, uint64_t address, bool is_secure,
                                  bool write)
{
    for (unsigned hops = 0;; hops++) {
        struct place place = see(bed, &bed->roots[space], address, 0);
        unsigned number;
        uint64_t to;

        if (!place.region) {
            return (struct answer){.error = -ENXIO};
        }
        if (place.region->config.kind == VIOMMU_REGION_RAM) {
            return (struct answer){
                .host = (unsigned char *)place.region->config.host + place.offset};
        }
        if (place.region->config.kind == VIOMMU_REGION_ROM) {
            return (struct answer){.error = write ? -EROFS : 0,
                                   .host = (unsigned char *)place.region->config.host +
                                           place.offset};
        }
        if (hops == VIOMMU_HOPS_MAX) {
            return (struct answer){.error = -ELOOP};
        }
        number = (unsigned)(place.region - bed->regions);
        to = bed->iommus[number].to[!is_secure][place.offset / bed->iommus[number].page];
        if (!(to & (write ? VIOMMU_WRITE : VIOMMU_READ))) {
            return (struct answer){.error = -EIO};
        }
        address = (to & ~3ull) + place.offset % bed->iommus[number].page;
        space = bed->iommu_space[number];
    }
}

static void model_commit(struct bed *bed)
{
    for (unsigned i = 0; i < REGIONS; i++) {
        struct model_region *region = &bed->regions[i];

        region->shown_in = region->container;
        region->shown_at = region->at;
        region->shown_priority = region->priority;
        region->shown_added = region->added;
        region->shown_off = region->off;
    }
}

/* ---- what is done ---- */

/* Mostly a multiple of the CPU's page; sometimes the middle of something. */
static uint64_t any_place(struct bed *bed)
{
    static const unsigned odd[] = {32, 512, 2048};
    uint64_t place = random_below(&bed->random, REACH / CPU_PAGE) * (uint64_t)CPU_PAGE;

    return place + (random_percent(&bed->random, 10) ? odd[random_below(&bed->random, 3)] : 0);
}

static void make_region(struct bed *bed, unsigned number)
{
    struct model_region *region = &bed->regions[number];
    struct viommu_region_config *config = &region->config;

    if (number < IOMMUS) {
        static const uint64_t pages[] = {64, 1024, 4096};

        bed->iommu_space[number] = random_below(&bed->random, SPACES);
        test_iommu_init(bed->bus, &bed->iommus[number], pages[number],
                        bed->spaces[bed->iommu_space[number]]);
        bed->iommus[number].answer = -EIO;
        config->kind = VIOMMU_REGION_IOMMU;
        config->last = TEST_PAGES * pages[number] - 1;
        region->region = bed->iommus[number].region;
        return;
    }
    *config = (struct viommu_region_config){.name = "r", .last = RAM_SIZE - 1};
    switch (number % 4) {
    case 0:
        config->kind = VIOMMU_REGION_CONTAINER;
        config->last = random_below(&bed->random, 64) * 1024 + 1023;
        break;
    case 1:
        config->kind = VIOMMU_REGION_RAM;
        config->host = bed->ram[0];
        break;
    case 2:
        config->kind = random_percent(&bed->random, 50) ? VIOMMU_REGION_RAM : VIOMMU_REGION_ROM;
        config->host = bed->ram[1];
        config->last = random_below(&bed->random, RAM_SIZE);
        break;
    default:
        config->kind = VIOMMU_REGION_ALIAS;
        region->target = random_below(&bed->random, number);
        config->target = bed->regions[region->target].region;
        config->offset = random_below(&bed->random, 16) * 512;
        config->last = random_below(&bed->random, 64) * 1024 + 1023;
        break;
    }
    assert_int_equal(viommu_region_create(bed->bus, config, &region->region), 0);
}

/* A container with a lower number than the region's: no region contains itself. */
static struct model_region *any_container(struct bed *bed, unsigned number)
{
    if (random_percent(&bed->random, 40)) {
        for (unsigned i = number + 1; i < REGIONS; i++) {
            if (bed->regions[i].config.kind == VIOMMU_REGION_CONTAINER) {
                return &bed->regions[i];
            }
        }
    }
    return &bed->roots[random_below(&bed->random, SPACES)];
}

static void change_layout(struct bed *bed)
{
    unsigned number = random_below(&bed->random, REGIONS);
    struct model_region *region = &bed->regions[number];

    if (random_percent(&bed->random, region->off ? 80 : 10)) {
        region->off = !region->off;
        viommu_region_enable(region->region, !region->off);
    } else if (region->container && random_percent(&bed->random, 50)) {
        assert_int_equal(viommu_region_remove(region->region), 0);
        region->container = NULL;
    } else if (!region->container) {
        struct model_region *container = any_container(bed, number);

        region->at = any_place(bed);
        region->priority = (int32_t)random_below(&bed->random, 3) - 1;
        region->added = ++bed->adds;
        assert_int_equal(viommu_region_add(container->region, region->region, region->at,
                                           region->priority), 0);
        region->container = container;
    }
    if (random_percent(&bed->random, 70)) {
        assert_int_equal(viommu_bus_commit(bed->bus), 0);
        model_commit(bed);
    }
}

static void change_translation(struct bed *bed)
{
    struct test_iommu *iommu = &bed->iommus[random_below(&bed->random, IOMMUS)];
    unsigned first = random_below(&bed->random, TEST_PAGES);
    unsigned last = random_percent(&bed->random, 80) ? first
                                                     : first + random_below(&bed->random,
                                                                            TEST_PAGES - first);
    unsigned index = random_below(&bed->random, 2);

    for (unsigned i = first; i <= last; i++) {
        uint64_t perm = random_percent(&bed->random, 70) ? 3 : random_below(&bed->random, 4);

        iommu->to[index][i] = any_place(bed) / 64 * 64 | perm;
    }
    viommu_region_iommu_changed(iommu->region, index, first * iommu->page,
                                (last + 1) * iommu->page - 1);
}

static void access_once(struct bed *bed)
{
    unsigned who = random_below(&bed->random, 2);
    unsigned index = random_below(&bed->random, 2);
    struct viommu_cpu *cpu = bed->cpus[who];
    const struct viommu_cpu_tlb *tlb = viommu_cpu_tlb(cpu);
    uint64_t address = any_place(bed) + random_below(&bed->random, 64);
    bool write = random_percent(&bed->random, 40);
    struct answer expected;
    uint64_t value = random_below(&bed->random, 256);
    int error;

    viommu_cpu_safe_point(cpu, tlb);
    expected = model_access(bed, who, address, !index, write);
    if (write) {
        error = viommu_cpu_store(cpu, tlb, index, address, 1, value);
    } else {
        error = viommu_cpu_load(cpu, tlb, index, address, 1, VIOMMU_CPU_READ, &value);
    }
    if (error != expected.error || (!error && *expected.host != value)) {
        fail_msg("cpu %u index %u address %#llx %s: %d, expected %d", who, index,
                 (unsigned long long)address, write ? "write" : "read", error, expected.error);
    }
    bed->good += !error;
}

static unsigned play(unsigned seed)
{
    unsigned good;
    struct bed *bed = calloc(1, sizeof(*bed));
    struct viommu_cpu_config config = {
        .indexes = 2, .page_bits = 10, .entries = 32, .notifiers = 1 + seed % 5};

    bed->random.state = seed;
    assert_int_equal(viommu_bus_create(&bed->bus), 0);
    for (unsigned i = 0; i < SPACES; i++) {
        bed->roots[i].region = test_region(bed->bus, "root", VIOMMU_REGION_CONTAINER, 0, NULL);
        bed->roots[i].config.kind = VIOMMU_REGION_CONTAINER;
        bed->roots[i].config.last = UINT64_MAX;
        assert_int_equal(viommu_space_create(bed->roots[i].region, &bed->spaces[i]), 0);
    }
    for (unsigned i = 0; i < REGIONS; i++) {
        make_region(bed, i);
    }
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(viommu_cpu_create(bed->bus, &config, &bed->cpus[i]), 0);
        assert_int_equal(viommu_cpu_set_space(bed->cpus[i], 0, bed->spaces[i], &secure), 0);
        assert_int_equal(viommu_cpu_set_space(bed->cpus[i], 1, bed->spaces[i], &normal), 0);
        assert_int_equal(viommu_cpu_begin(bed->cpus[i]), 0);
    }
    for (unsigned i = 0; i < 30; i++) {
        change_layout(bed);
        change_translation(bed);
    }
    for (unsigned i = 0; i < 3000; i++) {
        unsigned what = random_below(&bed->random, 100);

        if (what < 2) {
            change_layout(bed);
        } else if (what < 12) {
            change_translation(bed);
        } else {
            access_once(bed);
        }
    }
    viommu_cpu_end(bed->cpus[1]);
    viommu_cpu_end(bed->cpus[0]);
    assert_int_equal(viommu_bus_wait(bed->bus), 0);
    viommu_bus_destroy(bed->bus);
    good = bed->good;
    free(bed);
    return good;
}

static void random_worlds(void **state)
{
    const char *scale = getenv("VIOMMU_TEST_SCALE");
    unsigned count = 400 * (scale ? (unsigned)atoi(scale) : 1);

    unsigned good = 0;

    (void)state;
    for (unsigned seed = 1; seed <= count; seed++) {
        good += play(seed);
    }
    print_message("%u accesses of %u were answered\n", good, count * 3000);
    assert_true(good > count * 300); /* it is about something */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_worlds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
