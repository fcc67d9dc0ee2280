/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The kernel that tests of the iommufd backend play: this program's own `ioctl`, which the linker
 * takes in place of libc's, of one I/O address space. What is in it is in test_space.h; what it
 * says of itself, and how it fails, is here. kernel_begin() makes it as it usually is.
 */
#ifndef VIOMMU_IOMMUFD_TEST_KERNEL_H
#define VIOMMU_IOMMUFD_TEST_KERNEL_H

#include "common/test_space.h"
#include "iommufd/uapi.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

#define FD     77
#define IOAS   3
#define RANGES 16

/* What the kernel says of the address space, beside what is in it (test_space.h). */
static struct {
    struct iommufd_range ranges[RANGES];
    uint32_t range_count;
    uint64_t alignment;
    /* What was asked last, and how often. */
    struct iommufd_map map;
    struct iommufd_unmap unmap;
    unsigned asks;
    /* Injected failures. */
    bool always_more; /* ranges than there is room for */
    int ask_error;
} kernel;

static inline int iova_ranges(struct iommufd_iova_ranges *request)
{
    uint32_t room = request->count;

    kernel.asks++;
    if (kernel.ask_error) {
        return refuse(kernel.ask_error);
    }
    if (request->size != sizeof(*request) || request->reserved) {
        return refuse(EOPNOTSUPP);
    }
    request->count = kernel.always_more ? room + 1 : kernel.range_count;
    request->alignment = kernel.alignment;
    memcpy((void *)(uintptr_t)request->ranges, kernel.ranges,
           (room < kernel.range_count ? room : kernel.range_count) * sizeof(kernel.ranges[0]));
    return request->count > room ? refuse(EMSGSIZE) : 0;
}

static inline int map_pages(const struct iommufd_map *map)
{
    uint64_t last = map->iova + map->length - 1;

    space.maps++;
    kernel.map = *map;
    if (map->size != sizeof(*map) || map->reserved || !(map->flags & IOMMUFD_MAP_FIXED)) {
        return refuse(EOPNOTSUPP);
    }
    if (!(map->flags & (IOMMUFD_MAP_READ | IOMMUFD_MAP_WRITE)) || !map->length) {
        return refuse(EINVAL);
    }
    return space_map(map->iova, last, ENOMEM);
}

static inline int unmap_all(struct iommufd_unmap *unmap)
{
    unmap->length = 0;
    for (unsigned i = 0; i < space.count; i++) {
        unmap->length += space.mappings[i].last - space.mappings[i].first + 1;
    }
    space.count = 0;
    return 0;
}

static inline int unmap_pages(struct iommufd_unmap *unmap)
{
    uint64_t last = unmap->iova + unmap->length - 1;

    space.unmaps++;
    kernel.unmap = *unmap;
    if (space.unmap_error) {
        return refuse(space.unmap_error);
    }
    if (unmap->iova == 0 && unmap->length == UINT64_MAX) {
        return unmap_all(unmap);
    }
    for (unsigned i = 0; i < space.count; i++) {
        if (space.mappings[i].first == unmap->iova && space.mappings[i].last == last) {
            space.mappings[i] = space.mappings[--space.count];
            unmap->length -= space.unmap_less;
            return 0;
        }
    }
    return refuse(ENOENT);
}

/* In place of libc's. */
int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    void *argument;

    va_start(arguments, request);
    argument = va_arg(arguments, void *);
    va_end(arguments);
    if (fd != FD) {
        return refuse(ENOTTY);
    }
    switch (request) {
    case IOMMUFD_IOVA_RANGES:
        return ((struct iommufd_iova_ranges *)argument)->ioas == IOAS ? iova_ranges(argument)
                                                                      : refuse(ENOENT);
    case IOMMUFD_MAP:
        return ((struct iommufd_map *)argument)->ioas == IOAS ? map_pages(argument)
                                                              : refuse(ENOENT);
    case IOMMUFD_UNMAP:
        return ((struct iommufd_unmap *)argument)->ioas == IOAS ? unmap_pages(argument)
                                                                : refuse(ENOENT);
    default:
        return refuse(ENOTTY);
    }
}

static inline void kernel_begin(void)
{
    memset(&kernel, 0, sizeof(kernel));
    space_begin();
    kernel.ranges[0] = (struct iommufd_range){0, 0xfedfffff};
    kernel.ranges[1] = (struct iommufd_range){0xfef00000, 0x7fffffffff};
    kernel.range_count = 2;
    kernel.alignment = 4096;
}

#endif
