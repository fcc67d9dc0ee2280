/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the rows `virtio-*` work on: a virtio-iommu with one domain and two devices in it, the
 * baseline likewise, and the same mappings of 4 KiB in both.
 *
 * The device addresses are cut into *places* of 4 KiB, twice as many as there are mappings. Which
 * ones are taken is a window on one cycle through all of them in no useful order (a linear
 * congruential generator of full period), so requests and translations come at addresses in no
 * useful order. Where a place leads follows from its number.
 */
#ifndef VIOMMU_BENCH_VIRTIO_WORLD_H
#define VIOMMU_BENCH_VIRTIO_WORLD_H

#include "baseline_virtio.h"

#include <viommu/viommu.h>

#define VIRTIO_DOMAIN 7
#define VIRTIO_DEVICES 2
#define VIRTIO_ENDPOINT 8 /* of the first device */
#define VIRTIO_IOVA (UINT64_C(1) << 32)
#define VIRTIO_REQUEST 36 /* bytes from one request to the next */

/* Which places are taken: from `oldest` to before `next`, `mappings` of the cycle. */
struct virtio_window {
    uint64_t oldest;
    uint64_t next;
};

struct virtio_world {
    uint64_t mappings;
    uint64_t places; /* a power of two */
    struct viommu_memory *memory;
    struct viommu *iommu;
    struct viommu_device *devices[VIRTIO_DEVICES];
    struct baseline_virtio baseline;
    struct virtio_window window;          /* of the library */
    struct virtio_window baseline_window; /* of the baseline */
};

/* `entries`: of the translation cache. Dies when it cannot be made. */
void virtio_world_init(struct virtio_world *world, uint64_t mappings, uint32_t entries);
void virtio_world_fini(struct virtio_world *world);

static inline uint64_t virtio_next(const struct virtio_world *world, uint64_t place)
{
    return (place * 0xd1342543de82ef95ULL + 0x2545f4914f6cdd1dULL) & (world->places - 1);
}

static inline uint64_t virtio_iova(uint64_t place)
{
    return VIRTIO_IOVA + (place << 12);
}

static inline uint64_t virtio_gpa(uint64_t place)
{
    return virtio_iova(place) ^ UINT64_C(1) << 45;
}

/* Write a request of VIRTIO_REQUEST bytes at most. */
void virtio_put_map(uint8_t *at, uint64_t place);
void virtio_put_unmap(uint8_t *at, uint64_t place);

/* The requests one after another: false when one is not answered with OK. */
bool virtio_send(struct virtio_world *world, const uint8_t *requests, uint64_t count);
bool virtio_send_baseline(struct virtio_world *world, const uint8_t *requests, uint64_t count);

/* Whether some places are mapped, or not, as the window says: for both sides. */
bool virtio_window_ok(struct virtio_world *world);
bool virtio_window_ok_baseline(struct virtio_world *world);

#endif
