/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Layouts of the virtio specification, version 1.3, chapter 5.13 (IOMMU device): offsets in bytes,
 * all numbers little endian.
 */
#ifndef VIOMMU_VIRTIO_SPEC_H
#define VIOMMU_VIRTIO_SPEC_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

enum virtio_request_type {
    VIRTIO_ATTACH = 1,
    VIRTIO_DETACH = 2,
    VIRTIO_MAP = 3,
    VIRTIO_UNMAP = 4,
    VIRTIO_PROBE = 5,
};

/* Sizes of what the device reads, and of the tail that it writes. */
enum {
    VIRTIO_ATTACH_SIZE = 20,
    VIRTIO_DETACH_SIZE = 20,
    VIRTIO_MAP_SIZE = 36,
    VIRTIO_UNMAP_SIZE = 28,
    VIRTIO_PROBE_SIZE = 72,
    VIRTIO_HEAD_SIZE = 4,
    VIRTIO_TAIL_SIZE = 4,
};

#define VIRTIO_ATTACH_BYPASS 1u

#define VIRTIO_MAP_READ 1u
#define VIRTIO_MAP_WRITE 2u
#define VIRTIO_MAP_MMIO 4u

/* Properties that PROBE tells. */
enum {
    VIRTIO_RESV_MEM = 1,
    VIRTIO_RESV_MEM_LENGTH = 20,
    VIRTIO_RESV_MEM_SIZE = 24, /* with its header */
    VIRTIO_RESV_MEM_RESERVED = 0,
    VIRTIO_RESV_MEM_MSI = 1,
};

enum virtio_fault_reason {
    VIRTIO_FAULT_UNKNOWN = 0,
    VIRTIO_FAULT_DOMAIN = 1,
    VIRTIO_FAULT_MAPPING = 2,
};

#define VIRTIO_FAULT_READ 1u
#define VIRTIO_FAULT_WRITE 2u
#define VIRTIO_FAULT_ADDRESS 0x100u

/* The device configuration space. */
enum {
    VIRTIO_CONFIG_PAGE_SIZE_MASK = 0,
    VIRTIO_CONFIG_INPUT_FIRST = 8,
    VIRTIO_CONFIG_INPUT_LAST = 16,
    VIRTIO_CONFIG_DOMAIN_FIRST = 24,
    VIRTIO_CONFIG_DOMAIN_LAST = 28,
    VIRTIO_CONFIG_PROBE_SIZE = 32,
    VIRTIO_CONFIG_BYPASS = 36,
    VIRTIO_CONFIG_SIZE = 40,
};

/* Where the interrupt controller listens. */
#define VIRTIO_INTERRUPT_FIRST UINT64_C(0xfee00000)
#define VIRTIO_INTERRUPT_LAST UINT64_C(0xfeefffff)

static inline uint32_t virtio_get32(const uint8_t *at)
{
    uint32_t value;

    memcpy(&value, at, sizeof(value));
    return le32toh(value);
}

static inline uint64_t virtio_get64(const uint8_t *at)
{
    uint64_t value;

    memcpy(&value, at, sizeof(value));
    return le64toh(value);
}

static inline void virtio_put16(uint8_t *at, uint16_t value)
{
    value = htole16(value);
    memcpy(at, &value, sizeof(value));
}

static inline void virtio_put32(uint8_t *at, uint32_t value)
{
    value = htole32(value);
    memcpy(at, &value, sizeof(value));
}

static inline void virtio_put64(uint8_t *at, uint64_t value)
{
    value = htole64(value);
    memcpy(at, &value, sizeof(value));
}

#endif
