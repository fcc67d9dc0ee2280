/* SPDX-License-Identifier: BSD-2-Clause */
/* How a DMA request begins: shared by reads, writes, and translation requests. In a section. */
#ifndef VIOMMU_DEVICE_DMA_H
#define VIOMMU_DEVICE_DMA_H

#include "iommu/iommu.h"

#include <errno.h>

/* Returns 0, or -EINVAL for an alias that the device does not have. */
static inline int dma_request_init(struct dma_request *request, struct viommu_device *device,
                                   const struct viommu_dma_attrs *attrs, uint64_t iova, uint32_t perm)
{
    unsigned alias = attrs ? attrs->alias : 0;

    if (alias >= atomic_load_explicit(&device->requester_count, memory_order_acquire)) {
        return -EINVAL;
    }
    *request = (struct dma_request){
        .device = device,
        .requester = atomic_load_explicit(&device->requesters[alias], memory_order_acquire),
        .iova = iova,
        .perm = perm,
        .type = attrs ? attrs->type : VIOMMU_DMA_UNTRANSLATED,
    };
    return 0;
}

#endif
