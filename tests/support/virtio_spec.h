/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Requests to a virtio-iommu as a driver makes them, by the virtio specification (1.3, 5.13), and
 * how its answers read. Written from the specification; it knows nothing of the library's own
 * headers.
 */
#ifndef VIOMMU_SUPPORT_VIRTIO_SPEC_H
#define VIOMMU_SUPPORT_VIRTIO_SPEC_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum spec_virtio_type {
    SPEC_VIRTIO_ATTACH = 1,
    SPEC_VIRTIO_DETACH,
    SPEC_VIRTIO_MAP,
    SPEC_VIRTIO_UNMAP,
    SPEC_VIRTIO_PROBE,
};

enum spec_virtio_status {
    SPEC_S_OK,
    SPEC_S_IOERR,
    SPEC_S_UNSUPP,
    SPEC_S_DEVERR,
    SPEC_S_INVAL,
    SPEC_S_RANGE,
    SPEC_S_NOENT,
    SPEC_S_FAULT,
    SPEC_S_NOMEM,
};

enum {
    SPEC_ATTACH_BYPASS = 1,
    SPEC_MAP_READ = 1,
    SPEC_MAP_WRITE = 2,
    SPEC_MAP_RW = 3,
    SPEC_MAP_MMIO = 4,
    SPEC_FAULT_READ = 1,
    SPEC_FAULT_WRITE = 2,
    SPEC_FAULT_ADDRESS = 0x100,
    SPEC_FAULT_R_DOMAIN = 1,
    SPEC_FAULT_R_MAPPING = 2,
    SPEC_CONFIG_BYPASS = 36, /* offset in the configuration space */
};

/* The part that the device reads. */
struct spec_virtio_request {
    uint8_t bytes[72];
    size_t size;
};

static inline void spec_virtio_put(struct spec_virtio_request *request, uint64_t value,
                                   unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        request->bytes[request->size++] = (uint8_t)(value >> 8 * i);
    }
}

static inline uint64_t spec_virtio_get(const uint8_t *at, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes; i++) {
        value |= (uint64_t)at[i] << 8 * i;
    }
    return value;
}

static inline struct spec_virtio_request spec_virtio_begin(enum spec_virtio_type type)
{
    struct spec_virtio_request request = {{0}, 0};

    spec_virtio_put(&request, type, 4);
    return request;
}

static inline struct spec_virtio_request spec_virtio_attach(uint32_t domain, uint32_t endpoint,
                                                            uint32_t flags)
{
    struct spec_virtio_request request = spec_virtio_begin(SPEC_VIRTIO_ATTACH);

    spec_virtio_put(&request, domain, 4);
    spec_virtio_put(&request, endpoint, 4);
    spec_virtio_put(&request, flags, 4);
    spec_virtio_put(&request, 0, 4);
    return request;
}

static inline struct spec_virtio_request spec_virtio_detach(uint32_t domain, uint32_t endpoint)
{
    struct spec_virtio_request request = spec_virtio_begin(SPEC_VIRTIO_DETACH);

    spec_virtio_put(&request, domain, 4);
    spec_virtio_put(&request, endpoint, 4);
    spec_virtio_put(&request, 0, 8);
    return request;
}

static inline struct spec_virtio_request spec_virtio_map(uint32_t domain, uint64_t first,
                                                         uint64_t last, uint64_t gpa,
                                                         uint32_t flags)
{
    struct spec_virtio_request request = spec_virtio_begin(SPEC_VIRTIO_MAP);

    spec_virtio_put(&request, domain, 4);
    spec_virtio_put(&request, first, 8);
    spec_virtio_put(&request, last, 8);
    spec_virtio_put(&request, gpa, 8);
    spec_virtio_put(&request, flags, 4);
    return request;
}

static inline struct spec_virtio_request spec_virtio_unmap(uint32_t domain, uint64_t first,
                                                           uint64_t last)
{
    struct spec_virtio_request request = spec_virtio_begin(SPEC_VIRTIO_UNMAP);

    spec_virtio_put(&request, domain, 4);
    spec_virtio_put(&request, first, 8);
    spec_virtio_put(&request, last, 8);
    spec_virtio_put(&request, 0, 4);
    return request;
}

static inline struct spec_virtio_request spec_virtio_probe(uint32_t endpoint)
{
    struct spec_virtio_request request = spec_virtio_begin(SPEC_VIRTIO_PROBE);

    spec_virtio_put(&request, endpoint, 4);
    request.size += 64;
    return request;
}

#endif
