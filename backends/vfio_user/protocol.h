/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The vfio-user protocol, version 0.0: what travels over the socket.
 *
 * A message is a 16-byte header, a payload, and up to eight file descriptors attached to one of its
 * bytes. Everything is in the byte order of the host. Region, interrupt and flag definitions are
 * the kernel's own, from <linux/vfio.h>; only what differs from the ioctl interface is defined
 * here.
 *
 * "Client" is who has the guest's memory, "server" is who has the device: we are either. A
 * "command" asks, a "reply" answers it and carries the same id; either side may send commands.
 */
#ifndef VIOMMU_BACKENDS_VFIO_USER_PROTOCOL_H
#define VIOMMU_BACKENDS_VFIO_USER_PROTOCOL_H

#include <linux/vfio.h>
#include <stdint.h>

enum {
    VFIO_USER_MAJOR = 0,
    VFIO_USER_MINOR = 0,
    /* What we promise to accept when a version is agreed on. */
    VFIO_USER_MAX_FDS = 8,
    VFIO_USER_MAX_DATA = 1048576,
    VFIO_USER_PAGE_SIZES = 4096,
    /* The protocol's default for the number of DMA regions that are valid at one time. */
    VFIO_USER_MAX_DMA_REGIONS = 65535,
};

enum vfio_user_command {
    VFIO_USER_VERSION = 1,
    VFIO_USER_DMA_MAP = 2,
    VFIO_USER_DMA_UNMAP = 3,
    VFIO_USER_DEVICE_GET_INFO = 4,
    VFIO_USER_DEVICE_GET_REGION_INFO = 5,
    VFIO_USER_DEVICE_GET_REGION_IO_FDS = 6,
    VFIO_USER_DEVICE_GET_IRQ_INFO = 7,
    VFIO_USER_DEVICE_SET_IRQS = 8,
    VFIO_USER_REGION_READ = 9,
    VFIO_USER_REGION_WRITE = 10,
    VFIO_USER_DMA_READ = 11,
    VFIO_USER_DMA_WRITE = 12,
    VFIO_USER_DEVICE_RESET = 13,
};

/* vfio_user_header.flags */
#define VFIO_USER_TYPE_MASK    0xfu
#define VFIO_USER_TYPE_COMMAND 0x0u
#define VFIO_USER_TYPE_REPLY   0x1u
#define VFIO_USER_NO_REPLY     0x10u
#define VFIO_USER_ERROR        0x20u

struct vfio_user_header {
    uint16_t id;
    uint16_t command;
    uint32_t size; /* of the whole message, this header included */
    uint32_t flags;
    uint32_t error; /* errno, in a reply that has VFIO_USER_ERROR */
};

struct vfio_user_version {
    uint16_t major;
    uint16_t minor;
    /* then, optionally, JSON text that ends with a NUL */
};

struct vfio_user_dma_map {
    uint32_t argsz;
    uint32_t flags; /* VFIO_DMA_MAP_FLAG_READ, _WRITE */
    uint64_t offset;
    uint64_t address;
    uint64_t size;
};

struct vfio_user_dma_unmap {
    uint32_t argsz;
    uint32_t flags; /* VFIO_DMA_UNMAP_FLAG_ALL */
    uint64_t address;
    uint64_t size;
};

/* The ioctl's structure has grown since; this message has not. */
struct vfio_user_device_info {
    uint32_t argsz;
    uint32_t flags;
    uint32_t num_regions;
    uint32_t num_irqs;
};

struct vfio_user_region_io_fds {
    uint32_t argsz;
    uint32_t flags;
    uint32_t index;
    uint32_t count;
    /* then count descriptions, in a reply */
};

struct vfio_user_region_access {
    uint64_t offset;
    uint32_t region;
    uint32_t count;
    /* then count bytes, in a write command and in a read reply */
};

struct vfio_user_dma_access {
    uint64_t address;
    uint64_t count;
    /* then count bytes, in a write command and in a read reply */
};

_Static_assert(sizeof(struct vfio_user_header) == 16, "wire format");
_Static_assert(sizeof(struct vfio_user_version) == 4, "wire format");
_Static_assert(sizeof(struct vfio_user_dma_map) == 32, "wire format");
_Static_assert(sizeof(struct vfio_user_dma_unmap) == 24, "wire format");
_Static_assert(sizeof(struct vfio_user_device_info) == 16, "wire format");
_Static_assert(sizeof(struct vfio_user_region_io_fds) == 16, "wire format");
_Static_assert(sizeof(struct vfio_user_region_access) == 16, "wire format");
_Static_assert(sizeof(struct vfio_user_dma_access) == 16, "wire format");
_Static_assert(sizeof(struct vfio_region_info) == 32, "wire format");
_Static_assert(sizeof(struct vfio_irq_info) == 16, "wire format");
_Static_assert(sizeof(struct vfio_irq_set) == 20, "wire format");

/* The largest payload that is accepted: a region write of the largest count. */
#define VFIO_USER_MAX_PAYLOAD (sizeof(struct vfio_user_region_access) + VFIO_USER_MAX_DATA)

#endif
