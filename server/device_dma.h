/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How a served device reaches memory: through a unit, or without one.
 *
 * read and write copy, and are done when they return. pin gives the device pointers into guest
 * memory instead, for transfers that take longer: they are good until unpin. Whoever takes memory
 * away meanwhile (the guest invalidates, or memory goes) waits for that, and has `revoke` called;
 * when the device takes too long its DMA is refused from then on (-EPERM), until it is reset.
 *
 * All of them return 0 or a negative errno, and are called on the server's thread, unpin too. None
 * blocks, but where memory can only be had by asking for it (direct_memory.h): then read, write,
 * pin and commit wait for the answer, and not for ever.
 */
#ifndef VIOMMU_SERVER_DEVICE_DMA_H
#define VIOMMU_SERVER_DEVICE_DMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* A stretch of device addresses; size is not 0. */
struct device_dma_range {
    uint64_t iova;
    size_t size;
};

/* Memory that is pinned; what is in it belongs to who pins. */
struct device_dma_pin;

struct device_dma_request {
    const struct device_dma_range *ranges;
    size_t count;
    bool to_memory; /* the device writes there, else it reads */
    /* It is wanted back: unpin soon. On the server's thread, not from inside pin; may unpin. */
    void (*revoke)(void *opaque);
    void *opaque;
};

struct device_dma {
    int (*read)(void *opaque, uint64_t iova, void *data, size_t size);
    int (*write)(void *opaque, uint64_t iova, const void *data, size_t size);
    /*
     * All ranges or none. *iov_count is the room in iov, then how many were filled; neighbours in
     * host memory are one. -ENOSPC: that is too little room; -EFAULT, -EPERM: refused; -ENXIO: no
     * memory there.
     */
    int (*pin)(void *opaque, const struct device_dma_request *request, struct iovec *iov,
               size_t *iov_count, struct device_dma_pin **out);
    /*
     * The device has written all that it was to write there: it is in memory when this returns 0.
     * Before unpin, for requests to memory; what is unpinned without it may or may not be in
     * memory. NULL: it is there already, whatever the device writes.
     */
    int (*commit)(void *opaque, struct device_dma_pin *pin);
    void (*unpin)(void *opaque, struct device_dma_pin *pin);
    /* The device was reset: it is admitted again. What it had pinned may still be. May be NULL. */
    void (*reset)(void *opaque);
    void *opaque;
};

#endif
