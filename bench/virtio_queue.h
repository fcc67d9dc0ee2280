/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A virtio-iommu behind its PCI function, and a guest's driver of its request queue: for the row
 * `virtio-queue`. The device is the one of `viommu serve --virtio`; the driver does what Linux
 * does, but for the time that its own locks and memory take.
 *
 * Guest memory: the rings, then the requests, each QUEUE_SLOT bytes with its tail behind it. A
 * *batch* is offered and notified at once; then the device is given time until all have come back.
 */
#ifndef VIOMMU_BENCH_VIRTIO_QUEUE_H
#define VIOMMU_BENCH_VIRTIO_QUEUE_H

#include "virtio/iommu.h"

#include <viommu/viommu.h>

#define QUEUE_SLOT      64 /* bytes from one request to the next */
#define QUEUE_BATCH_MAX 32 /* requests that are offered at once, at most */

struct virtio_queue_driver {
    struct virtio_iommu iommu;
    struct viommu_device *device;
    uint8_t *ram;
    size_t ram_size;
    uint64_t slots;
    uint16_t offered; /* available index */
    uint16_t seen;    /* used index */
};

/*
 * A device that runs, with room for so many requests in memory, and an endpoint. Dies when it
 * cannot be made.
 */
void queue_driver_init(struct virtio_queue_driver *driver, uint64_t slots, uint32_t mappings_max,
                       uint16_t endpoint);
void queue_driver_fini(struct virtio_queue_driver *driver);

/* Where a request is to be written. */
uint8_t *queue_driver_slot(const struct virtio_queue_driver *driver, uint64_t slot);

/* Has `count` requests carried out, from a slot on. False when one is not answered with OK. */
bool queue_driver_send(struct virtio_queue_driver *driver, uint64_t slot, unsigned count);

#endif
