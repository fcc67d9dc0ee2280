/* SPDX-License-Identifier: BSD-2-Clause */
/* The timed loops of most rows. */
#include "tours.h"

#include <stdlib.h>

/* What a chain carries from one look-up to the next. */
struct step {
    uint64_t iova;
    uint64_t sum;
};

static inline bool step_viommu(struct viommu_device *device, struct step *step)
{
    struct viommu_translation t;

    if (viommu_device_translate(device, NULL, step->iova, VIOMMU_READ, &t)) {
        return false;
    }
    step->sum += t.gpa;
    step->iova = t.gpa - WORLD_GPA + WORLD_IOVA;
    return true;
}

static inline uint64_t at_most(uint64_t count, uint64_t limit)
{
    return count < limit ? count : limit;
}

bool chain_viommu(struct world *world, struct viommu_device *device, struct tour *tour,
                  uint64_t count)
{
    struct step step = {.iova = world_iova(tour->page)};
    bool ok = true;

    for (uint64_t done = 0; ok && done < count; done += TOUR_SECTION) {
        uint64_t end = at_most(count - done, TOUR_SECTION);

        if (viommu_dma_begin(world->guest.iommu)) {
            return false;
        }
        for (uint64_t i = 0; ok && i < end; i++) {
            ok = step_viommu(device, &step);
        }
        viommu_dma_end(world->guest.iommu);
    }
    tour_set(tour, count, step.sum, step.iova);
    return ok;
}

bool chain_viommu_each(struct world *world, struct viommu_device *device, struct tour *tour,
                       uint64_t count)
{
    struct step step = {.iova = world_iova(tour->page)};
    bool ok = true;

    for (uint64_t i = 0; ok && i < count; i++) {
        if (viommu_dma_begin(world->guest.iommu)) {
            return false;
        }
        ok = step_viommu(device, &step);
        viommu_dma_end(world->guest.iommu);
    }
    tour_set(tour, count, step.sum, step.iova);
    return ok;
}

bool chain_baseline(struct baseline *baseline, struct tour *tour, uint64_t count)
{
    uint64_t iova = world_iova(tour->page);
    uint64_t sum = 0;

    for (uint64_t i = 0; i < count; i++) {
        uint64_t gpa;

        if (!baseline_translate(baseline, WORLD_DOMAIN, iova, VIOMMU_READ, &gpa)) {
            return false;
        }
        sum += gpa;
        iova = gpa - WORLD_GPA + WORLD_IOVA;
    }
    tour_set(tour, count, sum, iova);
    return true;
}

uint64_t *stream_order(const struct world *world)
{
    uint64_t *order = malloc(world->pages * sizeof(*order));
    uint64_t page = 0;

    for (uint64_t i = 0; order && i < world->pages; i++) {
        order[i] = world_iova(page);
        page = world_next(world, page);
    }
    return order;
}

bool stream_viommu(struct world *world, struct viommu_device *device, const uint64_t *order,
                   struct tour *tour, uint64_t count)
{
    struct viommu_translation t;
    uint64_t sum = 0;
    bool ok = true;

    for (uint64_t done = 0; ok && done < count; done += TOUR_SECTION) {
        uint64_t end = at_most(count - done, TOUR_SECTION);

        if (viommu_dma_begin(world->guest.iommu)) {
            return false;
        }
        for (uint64_t i = 0; ok && i < end; i++) {
            uint64_t iova = order[(done + i) & (world->pages - 1)];

            ok = !viommu_device_translate(device, NULL, iova, VIOMMU_READ, &t);
            sum += t.gpa;
        }
        viommu_dma_end(world->guest.iommu);
    }
    tour_set(tour, count, sum, WORLD_IOVA);
    return ok;
}

bool stream_viommu_each(struct world *world, struct viommu_device *device, const uint64_t *order,
                        struct tour *tour, uint64_t count)
{
    struct viommu_translation t;
    uint64_t sum = 0;
    bool ok = true;

    for (uint64_t i = 0; ok && i < count; i++) {
        if (viommu_dma_begin(world->guest.iommu)) {
            return false;
        }
        ok = !viommu_device_translate(device, NULL, order[i & (world->pages - 1)], VIOMMU_READ, &t);
        sum += t.gpa;
        viommu_dma_end(world->guest.iommu);
    }
    tour_set(tour, count, sum, WORLD_IOVA);
    return ok;
}

/* One list, which does not reach past the end of the order. */
static bool list_viommu(struct viommu_device *device, const uint64_t *iovas, uint64_t *sum)
{
    uint64_t gpas[TOUR_LIST];
    size_t translated;

    if (viommu_device_translate_many(device, NULL, iovas, TOUR_LIST, VIOMMU_READ, gpas,
                                     &translated)) {
        return false;
    }
    for (size_t i = 0; i < TOUR_LIST; i++) {
        *sum += gpas[i];
    }
    return true;
}

bool stream_viommu_many(struct world *world, struct viommu_device *device, const uint64_t *order,
                        struct tour *tour, uint64_t count)
{
    uint64_t sum = 0;
    bool ok = true;

    for (uint64_t done = 0; ok && done < count; done += TOUR_SECTION) {
        uint64_t end = at_most(count - done, TOUR_SECTION);

        if (viommu_dma_begin(world->guest.iommu)) {
            return false;
        }
        for (uint64_t i = 0; ok && i < end; i += TOUR_LIST) {
            ok = list_viommu(device, &order[(done + i) & (world->pages - 1)], &sum);
        }
        viommu_dma_end(world->guest.iommu);
    }
    tour_set(tour, count, sum, WORLD_IOVA);
    return ok;
}

bool stream_baseline(struct baseline *baseline, const struct world *world, const uint64_t *order,
                     struct tour *tour, uint64_t count)
{
    uint64_t sum = 0;

    for (uint64_t i = 0; i < count; i++) {
        uint64_t gpa;

        if (!baseline_translate(baseline, WORLD_DOMAIN, order[i & (world->pages - 1)], VIOMMU_READ,
                                &gpa)) {
            return false;
        }
        sum += gpa;
    }
    tour_set(tour, count, sum, WORLD_IOVA);
    return true;
}
