/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * DMA of a device behind a unit: the functions of device_dma.h, by the library's.
 *
 * A pin is a pinned window (viommu/window.h). The unit waits for it where it has to, and asks for
 * it back from viommu_process, which unit_process calls on the server's thread.
 */
#include <errno.h>
#include <stdlib.h>

#include <viommu/device.h>
#include <viommu/window.h>

#include "unit.h"

enum {
    RANGES_AT_HAND = 64, /* more need memory for the time of the call */
};

struct device_dma_pin {
    struct viommu_window *window;
};

static int dma_read(void *opaque, uint64_t iova, void *data, size_t size)
{
    return viommu_device_read(opaque, NULL, iova, data, size);
}

static int dma_write(void *opaque, uint64_t iova, const void *data, size_t size)
{
    return viommu_device_write(opaque, NULL, iova, data, size);
}

/* Device addresses as the library has them. */
static int convert(const struct device_dma_request *request, struct viommu_range *ranges)
{
    for (size_t i = 0; i < request->count; i++) {
        const struct device_dma_range *range = &request->ranges[i];

        ranges[i].first = range->iova;
        ranges[i].last = range->iova + (range->size - 1);
        if (range->size == 0 || ranges[i].last < ranges[i].first) {
            return -EINVAL;
        }
    }
    return 0;
}

static int pin_ranges(struct viommu_device *device, const struct device_dma_request *request,
                      struct viommu_range *ranges, struct iovec *iov, size_t *iov_count,
                      struct viommu_window **out)
{
    const struct viommu_window_request wanted = {
        .ranges = ranges,
        .count = request->count,
        .perm = request->to_memory ? VIOMMU_WRITE : VIOMMU_READ,
        .revoke = request->revoke,
        .opaque = request->opaque,
    };
    int ret = convert(request, ranges);

    return ret < 0 ? ret : viommu_device_pin(device, NULL, &wanted, iov, iov_count, out);
}

static int dma_pin(void *opaque, const struct device_dma_request *request, struct iovec *iov,
                   size_t *iov_count, struct device_dma_pin **out)
{
    struct viommu_range at_hand[RANGES_AT_HAND], *ranges = at_hand;
    struct device_dma_pin *pin;
    int ret = -ENOMEM;

    if (request->count > VIOMMU_WINDOW_RANGES_MAX) {
        return -EINVAL;
    }
    if (request->count > RANGES_AT_HAND) {
        ranges = malloc(request->count * sizeof(*ranges));
    }
    pin = malloc(sizeof(*pin));
    if (ranges && pin) {
        ret = pin_ranges(opaque, request, ranges, iov, iov_count, &pin->window);
    }
    if (ranges != at_hand) {
        free(ranges);
    }
    if (ret < 0) {
        free(pin);
        return ret;
    }
    *out = pin;
    return 0;
}

static void dma_unpin(void *opaque, struct device_dma_pin *pin)
{
    (void)opaque;
    viommu_window_release(pin->window);
    free(pin);
}

static void dma_reset(void *opaque)
{
    viommu_device_reset(opaque);
}

const struct device_dma unit_dma = {
    .read = dma_read,
    .write = dma_write,
    .pin = dma_pin,
    .unpin = dma_unpin,
    .reset = dma_reset,
};
