/* SPDX-License-Identifier: BSD-2-Clause */
/* Row: entering and leaving a section. */
#include "bench.h"
#include "fence.h"
#include "world.h"

#include <stdlib.h>

static void teardown(void *state)
{
    struct world *world = state;

    world_fini(world);
    free(world);
}

static void *setup(bool quick)
{
    struct world *world = malloc(sizeof(*world));

    (void)quick;
    if (world) {
        world_init(world, 512);
    }
    return world;
}

static bool section(void *state, uint64_t count)
{
    struct world *world = state;
    bool ok = true;

    for (uint64_t i = 0; ok && i < count; i++) {
        ok = !viommu_dma_begin(world->guest.iommu);
        viommu_dma_end(world->guest.iommu);
    }
    return ok;
}

static bool fence(void *state, uint64_t count)
{
    (void)state;
    return fence_run(count);
}

static const struct row rows[] = {
    {
        .name = "section",
        .text = "viommu_dma_begin and viommu_dma_end with nothing between",
        .unit = "section",
        .setup = setup,
        .teardown = teardown,
        .sides =
            {
                {.name = "viommu", .run = section},
                {.name = "one full fence", .run = fence},
            },
        .side_count = 2,
        .ratios = {{0, 1, RATIO_COST, 2}},
        .ratio_count = 1,
    },
};

const struct row_list section_rows = {rows, 1};
