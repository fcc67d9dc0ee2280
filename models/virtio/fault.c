/* SPDX-License-Identifier: BSD-2-Clause */
/* Faults, in a ring until the transport has a buffer of the driver's for each. */
#include "virtio/unit.h"

#include "iommu/watch.h"

#include <errno.h>

static uint32_t flags_of(const struct dma_request *request)
{
    uint32_t flags = VIRTIO_FAULT_ADDRESS;

    flags |= request->perm & VIOMMU_WRITE ? VIRTIO_FAULT_WRITE : 0;
    /* A zero-length read asks for nothing, but it is a read. */
    flags |= !(request->perm & VIOMMU_WRITE) || (request->perm & VIOMMU_READ) ? VIRTIO_FAULT_READ
                                                                              : 0;
    return flags;
}

void virtio_fault_record(struct virtio *virtio, const struct dma_request *request,
                         enum virtio_fault_reason reason)
{
    struct virtio_faults *faults = &virtio->faults;
    uint32_t place = (faults->first + faults->count) % virtio->config.faults_max;

    if (request->quiet) {
        return;
    }
    if (faults->count == virtio->config.faults_max) {
        virtio->iommu.stats.faults_lost++;
        watch_fault(&virtio->iommu, request, reason, 0, -ENOSPC);
        return;
    }
    faults->ring[place] = (struct virtio_fault){
        .reason = reason,
        .flags = flags_of(request),
        .endpoint = request->requester->id,
        .address = request->iova,
    };
    faults->count++;
    virtio->iommu.stats.faults_recorded++;
    watch_fault(&virtio->iommu, request, reason, place, 0);
    if (!faults->told) {
        iommu_kick(&virtio->iommu);
    }
}

void virtio_faults_clear(struct virtio *virtio)
{
    virtio->faults.first = 0;
    virtio->faults.count = 0;
    virtio->faults.told = false;
}

static void encode(const struct virtio_fault *fault, uint8_t *at)
{
    memset(at, 0, VIOMMU_VIRTIO_FAULT_SIZE);
    at[0] = fault->reason;
    virtio_put32(at + 4, fault->flags);
    virtio_put32(at + 8, fault->endpoint);
    virtio_put64(at + 16, fault->address);
}

/* Takes the oldest one. Under the lock. */
static bool take(struct virtio *virtio, struct virtio_fault *out)
{
    struct virtio_faults *faults = &virtio->faults;

    if (!faults->count) {
        return false;
    }
    *out = faults->ring[faults->first];
    faults->first = (faults->first + 1) % virtio->config.faults_max;
    if (!--faults->count) {
        faults->told = false;
    }
    return true;
}

int viommu_virtio_fault(struct viommu *iommu, void *buf, size_t size)
{
    struct virtio *virtio = virtio_checked(iommu);
    uint8_t bytes[VIOMMU_VIRTIO_FAULT_SIZE];
    struct virtio_fault fault;
    int ret = 0;

    if (!virtio) {
        return -EINVAL;
    }
    iommu_lock(iommu);
    if (virtio->faults.count && size < sizeof(bytes)) {
        ret = -ENOSPC;
    } else if (take(virtio, &fault)) {
        ret = sizeof(bytes);
    }
    iommu_unlock(iommu);
    if (ret > 0) {
        encode(&fault, bytes);
        memcpy(buf, bytes, sizeof(bytes));
    }
    return ret;
}
