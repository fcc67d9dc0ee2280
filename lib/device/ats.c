/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Translation requests of devices that have a device-TLB (PCI ATS).
 *
 * A completion is a run of entries of one size that follow one another. The model makes them one at
 * a time; the run ends where the next one would differ, or be refused.
 */
#include "device/dma.h"
#include "iommu/watch.h"

#include <errno.h>

/* Whether an entry can follow in a run: one size, and all of them translations or none. */
static bool like(const struct viommu_ats_entry *entry, const struct viommu_ats_entry *first)
{
    return entry->mask == first->mask && !entry->perm == !first->perm &&
           entry->untranslated_only == first->untranslated_only;
}

/* Fills the run from the second entry on. */
static unsigned run_extend(const struct dma_request *first, uint64_t last,
                           struct viommu_ats_entry *entries, unsigned count)
{
    struct viommu *iommu = first->device->iommu;
    struct dma_request request = *first;
    unsigned n = 1;

    request.quiet = true;
    while (n < count) {
        uint64_t end = entries[n - 1].iova + entries[n - 1].mask;

        if (end >= last) {
            break;
        }
        request.iova = end + 1;
        if (iommu->model->ats(iommu, &request, &entries[n]) || !like(&entries[n], &entries[0])) {
            break;
        }
        n++;
    }
    return n;
}

static int request_run(struct viommu_device *device, const struct viommu_dma_attrs *attrs,
                       uint64_t iova, uint64_t last, uint32_t perm,
                       struct viommu_ats_entry *entries, unsigned count)
{
    struct viommu_dma_attrs how = {
        .type = VIOMMU_DMA_TRANSLATION,
        .alias = attrs ? attrs->alias : 0,
    };
    struct viommu *iommu = device->iommu;
    struct dma_request request;
    int ret;

    ret = dma_request_init(&request, device, &how, iova, perm);
    if (ret) {
        return ret;
    }
    counter_add(&device->stats.iotlb_misses, 1);
    ret = atomic_load_explicit(&device->denied, memory_order_relaxed)
              ? -EPERM
              : iommu->model->ats(iommu, &request, &entries[0]);
    if (ret) {
        counter_add(&device->stats.refused, 1);
        watch_miss(&request, ret, 0, 0, 0);
        return ret;
    }
    watch_miss(&request, 0, entries[0].gpa, entries[0].mask, entries[0].perm);
    return (int)run_extend(&request, last, entries, count);
}

int viommu_device_ats_translate(struct viommu_device *device, const struct viommu_dma_attrs *attrs,
                                uint64_t iova, uint64_t len, bool no_write,
                                struct viommu_ats_entry *entries, unsigned count)
{
    uint32_t perm = no_write ? VIOMMU_READ : VIOMMU_READ | VIOMMU_WRITE;
    int ret;

    if (!len || !count || count > INT32_MAX || len - 1 > UINT64_MAX - iova) {
        return -EINVAL;
    }
    if (!epoch_enter(device->iommu->epoch)) {
        return -ENOMEM;
    }
    ret = request_run(device, attrs, iova, iova + (len - 1), perm, entries, count);
    epoch_leave(device->iommu->epoch);
    return ret;
}
