/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the iommufd backend needs of the kernel's interface to /dev/iommu.
 *
 * <linux/iommufd.h> came with Linux 6.2, and the headers of Debian 12 are those of 6.1; so the
 * three requests that are used are described here, under names of our own. The interface is stable:
 * each structure begins with its size, and a kernel that knows a longer one takes these for its
 * start.
 */
#ifndef VIOMMU_IOMMUFD_UAPI_H
#define VIOMMU_IOMMUFD_UAPI_H

#include <stdint.h>
#include <sys/ioctl.h>

/* Numbers: a request has no direction and no size in its number, only the type and this. */
#define IOMMUFD_IOCTL_TYPE ';'
#define IOMMUFD_IOVA_RANGES _IO(IOMMUFD_IOCTL_TYPE, 0x84)
#define IOMMUFD_MAP _IO(IOMMUFD_IOCTL_TYPE, 0x85)
#define IOMMUFD_UNMAP _IO(IOMMUFD_IOCTL_TYPE, 0x86)

/* Flags of a map request. */
#define IOMMUFD_MAP_FIXED 1u /* at `iova`, not where the kernel likes */
#define IOMMUFD_MAP_WRITE 2u
#define IOMMUFD_MAP_READ 4u

struct iommufd_range {
    uint64_t first;
    uint64_t last;
};

/* Which addresses can be mapped. -EMSGSIZE: `count` says how long the array must be. */
struct iommufd_iova_ranges {
    uint32_t size;
    uint32_t ioas;
    uint32_t count; /* in: length of the array; out: of what it should hold */
    uint32_t reserved;
    uint64_t ranges;    /* address of an array of struct iommufd_range */
    uint64_t alignment; /* out: of a mapping's ends, a power of two, at most the host's page */
};

/* Maps memory of this process; nothing may be mapped there. */
struct iommufd_map {
    uint32_t size;
    uint32_t flags;
    uint32_t ioas;
    uint32_t reserved;
    uint64_t address; /* in this process */
    uint64_t length;
    uint64_t iova;
};

/* Unmaps whole mappings. From 0, of length UINT64_MAX: all there are. */
struct iommufd_unmap {
    uint32_t size;
    uint32_t ioas;
    uint64_t iova;
    uint64_t length; /* out: what was unmapped */
};

_Static_assert(sizeof(struct iommufd_iova_ranges) == 32, "as the kernel has it");
_Static_assert(sizeof(struct iommufd_map) == 40, "as the kernel has it");
_Static_assert(sizeof(struct iommufd_unmap) == 24, "as the kernel has it");

#endif
