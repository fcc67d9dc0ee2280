/* SPDX-License-Identifier: BSD-2-Clause */
/* Counters: what is counted under the lock, and what each device counts for itself. */
#include "iommu/iommu.h"

#include <string.h>

#ifndef VIOMMU_VERSION
#error "the build defines VIOMMU_VERSION"
#endif

const char *viommu_version(void)
{
    return VIOMMU_VERSION;
}

static uint64_t value_of(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

void stats_add_device(struct viommu_stats *sum, const struct viommu_device *device)
{
    const struct device_stats *stats = &device->stats;
    uint64_t hits = value_of(&stats->iotlb_hits);

    sum->translations += hits + value_of(&stats->iotlb_misses);
    sum->iotlb_hits += hits;
    sum->walks += value_of(&stats->walks);
    sum->refused += value_of(&stats->refused);
    sum->interrupts_requested += value_of(&stats->interrupts_requested);
    sum->bytes_read += value_of(&stats->bytes_read);
    sum->bytes_written += value_of(&stats->bytes_written);
    sum->windows_pinned += value_of(&device->windows.pinned);
    sum->pages_pinned += value_of(&device->windows.pages_pinned);
    sum->windows_open += atomic_load_explicit(&device->windows.count, memory_order_relaxed);
}

int viommu_stats_get(struct viommu *iommu, struct viommu_stats *stats, size_t size)
{
    struct viommu_stats sum;
    size_t known = size < sizeof(sum) ? size : sizeof(sum);

    iommu_lock(iommu);
    sum = iommu->stats;
    for (const struct viommu_device *device = iommu->devices; device; device = device->next) {
        stats_add_device(&sum, device);
    }
    sum.windows_open += atomic_load_explicit(&iommu->windows.orphans.count, memory_order_relaxed);
    follow_stats(iommu, &sum);
    iommu_unlock(iommu);
    memset(stats, 0, size);
    memcpy(stats, &sum, known);
    return 0;
}
