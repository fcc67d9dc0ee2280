/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The model-based random test: random tables, devices, invalidations and DMA, each answer checked
 * against a slow, obvious model (walker.c: what the tables say; history.c: what a cache may still
 * say; faults.c: what the fault registers must say).
 *
 * Without arguments it runs fixed seeds, a few seconds in all. --seed N --steps N runs one seed,
 * and --seeds N --steps N that many from a seed on; a mismatch prints what to give here.
 */
#include "garbage.h"
#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct world world; /* large */

/* Operations and how often, of 1000. */
static const struct {
    unsigned weight;
    void (*operation)(struct world *world);
} operations[] = {
    {440, world_access},       {80, world_translated},   {90, world_edit_tables},
    {110, world_build_mapping}, {16, world_edit_context}, {6, world_edit_root},
    {70, world_invalidate},    {80, world_clear_faults}, {22, world_device},
    {12, world_memory},        {12, world_command},      {12, world_bad_descriptor},
    {19, world_device_tlb},    {28, world_revoke},         {1, world_reset},
    {2, world_take_over},
};

static void one_step(void)
{
    unsigned which = world_below(&world, 1000);

    for (size_t i = 0; i < sizeof(operations) / sizeof(operations[0]); i++) {
        if (which < operations[i].weight) {
            operations[i].operation(&world);
            return;
        }
        which -= operations[i].weight;
    }
}

static void run_seed(uint64_t seed, uint64_t steps, bool verbose)
{
    struct viommu_stats stats;

    world_init(&world, seed);
    for (world.step = 0; world.step < steps; world.step++) {
        one_step();
    }
    viommu_stats_get(world.guest.iommu, &stats, sizeof(stats));
    if (verbose) {
        printf("seed %llu: %llu steps, %llu accesses, %llu allowed, %llu cache hits, %llu walks, "
               "%llu faults recorded, %llu lost since the last of %llu takeovers\n",
               (unsigned long long)seed, (unsigned long long)steps,
               (unsigned long long)world.accesses, (unsigned long long)world.allowed,
               (unsigned long long)stats.iotlb_hits, (unsigned long long)stats.walks,
               (unsigned long long)stats.faults_recorded, (unsigned long long)stats.faults_lost,
               (unsigned long long)world.takeovers);
    }
    world_fini(&world);
}

static int usage(void)
{
    fprintf(stderr, "usage: model_test [--garbage] [--seed N] [--seeds N] [--steps N]\n");
    return 2;
}

int main(int argc, char **argv)
{
    uint64_t seed = 1;
    uint64_t seeds = 0;
    uint64_t steps = 3000;
    bool garbage_only = false;
    bool chosen = argc > 1;

    for (int i = 1; i < argc; i++) {
        uint64_t *number = !strcmp(argv[i], "--seed")    ? &seed
                           : !strcmp(argv[i], "--seeds") ? &seeds
                           : !strcmp(argv[i], "--steps") ? &steps
                                                         : NULL;

        if (!strcmp(argv[i], "--garbage")) {
            garbage_only = true;
        } else if (number && i + 1 < argc) {
            *number = strtoull(argv[++i], NULL, 0);
        } else {
            return usage();
        }
    }
    if (!seeds) {
        seeds = chosen ? 1 : 40;
    }
    for (uint64_t i = 0; i < seeds; i++) {
        if (garbage_only) {
            garbage_run(seed + i, steps);
        } else {
            run_seed(seed + i, steps, chosen && seeds < 100);
        }
    }
    for (uint64_t i = 0; !chosen && i < 20; i++) {
        garbage_run(seed + i, 2000);
    }
    printf("model: ok (%llu seeds of %llu steps)\n", (unsigned long long)seeds,
           (unsigned long long)steps);
    return 0;
}
