/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the tests of this room share: an instance with guest memory and three devices, a virtual
 * clock, a driver's requests and what came of them. Memory is one slot from guest address 0; each
 * of its pages holds its own number.
 */
#ifndef VIOMMU_VIRTIO_TEST_VIRTIO_H
#define VIOMMU_VIRTIO_TEST_VIRTIO_H

#include "support/virtio_spec.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <viommu/viommu.h>

#include <cmocka.h>

#define BED_PAGES 64u
#define BED_DEVICES 3u
#define BED_PENDING 0xffu /* in place of a status */
#define BED_SILENT 0xfeu  /* nothing was written */
#define BED_DONE 64u
#define PAGE UINT64_C(4096)
#define MS UINT64_C(1000000)

struct bed_done {
    uint64_t token;
    uint8_t status;
};

struct bed {
    struct viommu_memory *memory;
    struct viommu *iommu;
    struct viommu_device *devices[BED_DEVICES]; /* ids 8, 9, 10 */
    uint8_t *ram;
    uint64_t now;
    uint64_t token; /* of the last request */
    struct bed_done done[BED_DONE];
    unsigned done_count;
    void (*on_done)(struct bed *bed); /* or NULL */
    unsigned faulted; /* calls */
    unsigned interrupts;
    unsigned events;
    struct viommu_event event; /* the last one */
    struct viommu_virtio_config virtio;
    struct viommu_config config;
    struct viommu_iova *space; /* of the devices, or NULL */
    struct viommu_iova_owner *host;
    struct viommu_iova *other; /* of the last device; NULL: the same */
};

static inline void bed_completed(void *opaque, uint64_t token, uint8_t status)
{
    struct bed *bed = opaque;

    assert_true(bed->done_count < BED_DONE);
    bed->done[bed->done_count++] = (struct bed_done){token, status};
    if (bed->on_done) {
        bed->on_done(bed);
    }
}

static inline void bed_faulted(void *opaque)
{
    ((struct bed *)opaque)->faulted++;
}

static inline void bed_interrupt(void *opaque, const struct viommu_interrupt *interrupt)
{
    (void)interrupt;
    ((struct bed *)opaque)->interrupts++;
}

static inline void bed_event(void *opaque, const struct viommu_event *event)
{
    struct bed *bed = opaque;

    bed->events++;
    bed->event = *event;
}

static inline uint64_t bed_clock(void *opaque)
{
    return ((struct bed *)opaque)->now;
}

static inline void bed_memory(struct bed *bed)
{
    struct viommu_memory_slot slot = {.last = BED_PAGES * PAGE - 1, .fd = -1};
    struct viommu_memory_batch *batch;

    bed->ram = aligned_alloc(PAGE, BED_PAGES * PAGE);
    assert_non_null(bed->ram);
    memset(bed->ram, 0, BED_PAGES * PAGE);
    for (uint64_t i = 0; i < BED_PAGES; i++) {
        memcpy(bed->ram + i * PAGE, &i, sizeof(i));
    }
    slot.host = bed->ram;
    assert_int_equal(viommu_memory_create(&bed->memory), 0);
    assert_int_equal(viommu_memory_batch_begin(bed->memory, &batch), 0);
    assert_int_equal(viommu_memory_batch_add(batch, &slot), 0);
    assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), 0);
}

static inline void bed_devices(const struct bed *bed, struct viommu *iommu,
                               struct viommu_device **devices)
{
    for (unsigned i = 0; i < BED_DEVICES; i++) {
        struct viommu_device_config device = {
            .requester = (uint16_t)(8 + i),
            .space = i == BED_DEVICES - 1 && bed->other ? bed->other : bed->space,
        };

        assert_int_equal(viommu_device_add(iommu, &device, &devices[i]), 0);
    }
}

/* A reservation of the space; returns what came of it, with the conflict. */
static inline int bed_reserve(struct bed *bed, enum viommu_iova_type type, uint64_t first,
                              uint64_t last, struct viommu_iova_reservation **out,
                              struct viommu_iova_conflict *conflict)
{
    struct viommu_iova_request request = {.type = type, .range = {first, last}};

    return viommu_iova_reserve(bed->host, &request, 1, out, conflict);
}

/* A space, and what is reserved there, for the devices of a bed that comes. */
static inline void bed_space(struct bed *bed, const struct viommu_range *ranges, size_t count)
{
    const struct viommu_iova_config config = {0};
    struct viommu_iova_reservation *reservation;

    *bed = (struct bed){0};
    assert_int_equal(viommu_iova_create(&config, &bed->space), 0);
    assert_int_equal(viommu_iova_owner_create(bed->space, "host", &bed->host), 0);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(bed_reserve(bed, VIOMMU_IOVA_RESERVED, ranges[i].first, ranges[i].last,
                                     &reservation, NULL), 0);
    }
}

/* Everything is there and started, the features are accepted. */
static inline void bed_begin(struct bed *bed, const struct viommu_virtio_config *virtio)
{
    bed->now = 1;
    bed->virtio = *virtio;
    bed_memory(bed);
    bed->virtio.completed = bed_completed;
    bed->virtio.faulted = bed_faulted;
    bed->config = (struct viommu_config){
        .memory = bed->memory,
        .callbacks = {.interrupt = bed_interrupt, .event = bed_event},
        .opaque = bed,
        .clock = bed_clock,
    };
    assert_int_equal(viommu_virtio_create(&bed->config, &bed->virtio, &bed->iommu), 0);
    bed_devices(bed, bed->iommu, bed->devices);
    assert_int_equal(viommu_start(bed->iommu), 0);
    assert_int_equal(viommu_virtio_accept(bed->iommu, viommu_virtio_features(bed->iommu)), 0);
}

/* The same, without a space. */
static inline void bed_init(struct bed *bed, const struct viommu_virtio_config *virtio)
{
    *bed = (struct bed){0};
    bed_begin(bed, virtio);
}

static inline void bed_fini(struct bed *bed)
{
    viommu_destroy(bed->iommu);
    viommu_iova_destroy(bed->space);
    viommu_iova_destroy(bed->other);
    viommu_memory_destroy(bed->memory);
    free(bed->ram);
}

static inline void bed_process(struct bed *bed)
{
    while (viommu_process(bed->iommu, 0) == VIOMMU_PENDING) {
    }
}

/* A status, or BED_PENDING, or BED_SILENT. */
static inline uint8_t bed_request(struct bed *bed, struct spec_virtio_request request)
{
    uint8_t out[4] = {0xaa, 0xaa, 0xaa, 0xaa};
    size_t written = 99;
    int ret = viommu_virtio_request(bed->iommu, request.bytes, request.size, out, sizeof(out),
                                    ++bed->token, &written);

    if (ret) {
        assert_int_equal(ret, VIOMMU_PENDING);
        assert_int_equal(written, 0);
        return BED_PENDING;
    }
    if (!written) {
        assert_int_equal(out[0], 0xaa);
        return BED_SILENT;
    }
    assert_int_equal(written, 4);
    assert_int_equal(out[1] | out[2] | out[3], 0);
    return out[0];
}

static inline uint8_t bed_attach(struct bed *bed, uint32_t domain, uint32_t endpoint,
                                 uint32_t flags)
{
    return bed_request(bed, spec_virtio_attach(domain, endpoint, flags));
}

static inline uint8_t bed_detach(struct bed *bed, uint32_t domain, uint32_t endpoint)
{
    return bed_request(bed, spec_virtio_detach(domain, endpoint));
}

static inline uint8_t bed_map(struct bed *bed, uint32_t domain, uint64_t first, uint64_t last,
                              uint64_t gpa, uint32_t flags)
{
    return bed_request(bed, spec_virtio_map(domain, first, last, gpa, flags));
}

static inline uint8_t bed_unmap(struct bed *bed, uint32_t domain, uint64_t first, uint64_t last)
{
    return bed_request(bed, spec_virtio_unmap(domain, first, last));
}

/* The first word of what a device reads at an address, or the error. */
static inline int64_t bed_read(struct bed *bed, unsigned device, uint64_t iova)
{
    uint64_t value;
    int ret = viommu_device_read(bed->devices[device], NULL, iova, &value, sizeof(value));

    return ret ? ret : (int64_t)value;
}

/* Whether a device may write there: 0 or the error. */
static inline int bed_write(struct bed *bed, unsigned device, uint64_t iova)
{
    struct viommu_translation out;

    return viommu_device_translate(bed->devices[device], NULL, iova, VIOMMU_WRITE, &out);
}

static inline struct viommu_virtio_status bed_status(struct bed *bed)
{
    struct viommu_virtio_status status;

    assert_int_equal(viommu_virtio_status(bed->iommu, &status, sizeof(status)), 0);
    return status;
}

static inline struct viommu_stats bed_stats(struct bed *bed)
{
    struct viommu_stats stats;

    assert_int_equal(viommu_stats_get(bed->iommu, &stats, sizeof(stats)), 0);
    return stats;
}

/* There is a fault, this one; it is fetched. */
static inline void bed_expect_fault(struct bed *bed, unsigned reason, unsigned flags,
                                    uint32_t endpoint, uint64_t address)
{
    uint8_t bytes[24];

    assert_int_equal(viommu_virtio_fault(bed->iommu, bytes, sizeof(bytes)), 24);
    assert_int_equal(spec_virtio_get(bytes, 4), reason);
    assert_int_equal(spec_virtio_get(bytes + 4, 4), flags);
    assert_int_equal(spec_virtio_get(bytes + 8, 4), endpoint);
    assert_int_equal(spec_virtio_get(bytes + 12, 4), 0);
    assert_int_equal(spec_virtio_get(bytes + 16, 8), address);
}

static inline void bed_expect_no_fault(struct bed *bed)
{
    uint8_t bytes[24];

    assert_int_equal(viommu_virtio_fault(bed->iommu, bytes, sizeof(bytes)), 0);
}

#endif
