/* SPDX-License-Identifier: BSD-2-Clause */
/* How a DMA request begins: shared by reads, writes, and translation requests. In a section. */
#ifndef VIOMMU_DEVICE_DMA_H
#define VIOMMU_DEVICE_DMA_H

#include "iommu/iommu.h"

#include <errno.h>

/*
 * Translates an untranslated request, or a translated one, from the cache or by the model. Returns
 * 0, -EPERM (denied), -EFAULT or -EAGAIN.
 */
int dma_translate(const struct dma_request *request, struct viommu_translation *out);

/*
 * The requester that a request of the device goes under. Returns 0; -EINVAL for an alias that it
 * does not have, or an unknown type; -ENOTSUP for what takes a device-TLB where it has none.
 */
static inline int dma_requester(struct viommu_device *device, const struct viommu_dma_attrs *attrs,
                                struct requester **out)
{
    unsigned alias = attrs ? attrs->alias : 0;

    if (attrs && attrs->type != VIOMMU_DMA_UNTRANSLATED) {
        if (attrs->type != VIOMMU_DMA_TRANSLATED && attrs->type != VIOMMU_DMA_TRANSLATION) {
            return -EINVAL;
        }
        if (!device->ats) {
            return -ENOTSUP;
        }
    }
    if (alias && alias >= atomic_load_explicit(&device->requester_count, memory_order_acquire)) {
        return -EINVAL;
    }
    *out = atomic_load_explicit(&device->requesters[alias], memory_order_acquire);
    return 0;
}

static inline int dma_request_init(struct dma_request *request, struct viommu_device *device,
                                   const struct viommu_dma_attrs *attrs, uint64_t iova,
                                   uint32_t perm)
{
    struct requester *requester;
    int ret = dma_requester(device, attrs, &requester);

    if (!ret) {
        *request = (struct dma_request){
            .device = device,
            .requester = requester,
            .iova = iova,
            .perm = perm,
            .type = attrs ? attrs->type : VIOMMU_DMA_UNTRANSLATED,
        };
    }
    return ret;
}

#endif
