/* SPDX-License-Identifier: BSD-2-Clause */
/* Telling the watcher; watch.h says from where. */
#include "iommu/watch.h"

#include <errno.h>

int viommu_watch(struct viommu *iommu, const struct viommu_watcher *watcher)
{
    if (watcher && !watcher->observe) {
        return -EINVAL;
    }
    iommu_lock(iommu);
    iommu->watcher = watcher ? *watcher : (struct viommu_watcher){0};
    iommu->observations = 0;
    atomic_store_explicit(&iommu->watched, watcher != NULL, memory_order_relaxed);
    requesters_watch(iommu);
    iommu_unlock(iommu);
    return 0;
}

__attribute__((cold, noinline)) void watch_tell(struct viommu *iommu,
                                                struct viommu_observation observation)
{
    observation.index = ++iommu->observations;
    observation.time = iommu_now(iommu);
    iommu->watcher.observe(iommu->watcher.opaque, &observation);
}

__attribute__((cold, noinline)) void watch_tell_miss(const struct dma_request *request,
                                                     struct viommu_observation observation)
{
    struct viommu *iommu = request->device->iommu;

    observation.requester = request->requester->id;
    observation.type = request->type;
    observation.iova = request->iova;
    observation.wanted = request->perm;
    iommu_lock(iommu);
    if (watch_is_on(iommu)) {
        watch_tell(iommu, observation);
    }
    iommu_unlock(iommu);
}
