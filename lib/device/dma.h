/* SPDX-License-Identifier: BSD-2-Clause */
/* The parts of a DMA request that reads, writes and translation requests share. In a section. */
#ifndef VIOMMU_DEVICE_DMA_H
#define VIOMMU_DEVICE_DMA_H

#include "iommu/iommu.h"

/* Returns 0, or -EINVAL for an alias that the device does not have. */
int dma_request_init(struct dma_request *request, struct viommu_device *device,
                     const struct viommu_dma_attrs *attrs, uint64_t iova, uint32_t perm);

/* From the cache, else by the model. Returns 0, -EPERM (denied), -EFAULT or -EAGAIN. */
int dma_translate(const struct dma_request *request, struct viommu_translation *out);

#endif
