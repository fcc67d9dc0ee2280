/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tours of a world's pages (see world.h), by the library and by the baseline.
 *
 * A *chain* is dependent: the next address comes out of the last answer, so that the latency of a
 * look-up is what counts. A *stream* is independent: the same pages in the same order, but the
 * addresses are known beforehand, so that look-ups can overlap; `order` holds them for one whole
 * cycle, and a stream's count is a multiple of the number of pages.
 *
 * Where the library is used, a *section* (viommu_dma_begin, viommu_dma_end) holds TOUR_SECTION
 * translations, or, in the functions named _each, one. All of them return false when a translation
 * was refused, and leave in *tour what world_tour_ok checks.
 */
#ifndef VIOMMU_BENCH_TOURS_H
#define VIOMMU_BENCH_TOURS_H

#include "baseline.h"
#include "world.h"

#define TOUR_SECTION 4096
#define TOUR_LIST 256

bool chain_viommu(struct world *world, struct viommu_device *device, struct tour *tour,
                  uint64_t count);
bool chain_viommu_each(struct world *world, struct viommu_device *device, struct tour *tour,
                       uint64_t count);
bool chain_baseline(struct baseline *baseline, struct tour *tour, uint64_t count);

/* The addresses of one cycle that begins at page 0; to be freed. NULL without memory. */
uint64_t *stream_order(const struct world *world);

bool stream_viommu(struct world *world, struct viommu_device *device, const uint64_t *order,
                   struct tour *tour, uint64_t count);
bool stream_viommu_each(struct world *world, struct viommu_device *device, const uint64_t *order,
                        struct tour *tour, uint64_t count);
/* TOUR_LIST addresses a call, TOUR_SECTION a section. */
bool stream_viommu_many(struct world *world, struct viommu_device *device, const uint64_t *order,
                        struct tour *tour, uint64_t count);
bool stream_baseline(struct baseline *baseline, const struct world *world, const uint64_t *order,
                     struct tour *tour, uint64_t count);

/* Puts a tour's beginning and end into it. `iova` is the address that would come next. */
static inline void tour_set(struct tour *tour, uint64_t count, uint64_t sum, uint64_t iova)
{
    tour->start = tour->page;
    tour->page = (iova - WORLD_IOVA) >> 12;
    tour->count = count;
    tour->sum = sum;
}

#endif
