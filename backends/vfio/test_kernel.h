/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The kernel that tests of the VFIO backend play: this program's own `ioctl`, which the linker
 * takes in place of libc's, of one type-1 container. What is in it is in test_space.h; what it says
 * of itself, and how it fails, is here. kernel_begin() makes it as it usually is.
 */
#ifndef VIOMMU_VFIO_TEST_KERNEL_H
#define VIOMMU_VFIO_TEST_KERNEL_H

#include "common/test_space.h"
#include "vfio/test_answer.h"

#include <errno.h>
#include <stdarg.h>
#include <sys/ioctl.h>

#define CONTAINER 77

/* What the kernel says of the container, beside what is in its space (test_space.h). */
static struct {
    int api_version;
    bool type1_v2;
    bool unmap_all;
    struct test_answer answer;
    uint32_t grows; /* so many times, the answer grew since it was asked for */
    /* What was asked last, and how often. */
    struct vfio_iommu_type1_dma_map map;
    uint32_t unmap_flags;
    unsigned infos;
    /* Injected failures. */
    int info_error;
} kernel;

static inline int get_info(struct vfio_iommu_type1_info *info)
{
    uint32_t room = info->argsz;
    uint32_t needed = (uint32_t)kernel.answer.size;

    kernel.infos++;
    if (kernel.info_error) {
        return refuse(kernel.info_error);
    }
    if (kernel.grows) {
        kernel.grows--;
        info->argsz = room + 8;
        return 0;
    }
    if (room < needed) {
        /* Without the chain, as the kernel does it. */
        memcpy(info, kernel.answer.bytes, sizeof(*info));
        info->cap_offset = 0;
    } else {
        memcpy(info, kernel.answer.bytes, needed);
    }
    info->argsz = needed;
    return 0;
}

static inline int map_dma(const struct vfio_iommu_type1_dma_map *map)
{
    uint64_t last = map->iova + map->size - 1;

    space.maps++;
    kernel.map = *map;
    if (map->argsz != sizeof(*map) || !map->size || !map->flags || map->vaddr & 0xfff) {
        return refuse(EINVAL);
    }
    return space_map(map->iova, last, ENOSPC);
}

static inline bool is_cut(const struct viommu_range *mapping, uint64_t first, uint64_t last)
{
    return mapping->first <= last && first <= mapping->last &&
           (mapping->first < first || mapping->last > last);
}

static inline int unmap_dma(struct vfio_iommu_type1_dma_unmap *unmap)
{
    bool all = unmap->flags & VFIO_DMA_UNMAP_FLAG_ALL;
    uint64_t first = unmap->iova;
    uint64_t last = all ? UINT64_MAX : first + unmap->size - 1;
    uint64_t size = 0;
    unsigned kept = 0;

    space.unmaps++;
    kernel.unmap_flags = unmap->flags;
    if (space.unmap_error) {
        return refuse(space.unmap_error);
    }
    if (unmap->argsz != sizeof(*unmap) || (all && (!kernel.unmap_all || unmap->size || first)) ||
        (!all && (!unmap->size || last < first))) {
        return refuse(EINVAL);
    }
    for (unsigned i = 0; i < space.count; i++) {
        if (is_cut(&space.mappings[i], first, last)) {
            return refuse(EINVAL);
        }
    }
    for (unsigned i = 0; i < space.count; i++) {
        struct viommu_range m = space.mappings[i];

        if (m.first >= first && m.last <= last) {
            size += m.last - m.first + 1;
        } else {
            space.mappings[kept++] = m;
        }
    }
    space.count = kept;
    unmap->size = size - space.unmap_less;
    return 0;
}

/* In place of libc's. */
int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    void *argument;

    va_start(arguments, request);
    argument = va_arg(arguments, void *);
    va_end(arguments);
    if (fd != CONTAINER) {
        return refuse(ENOTTY);
    }
    switch (request) {
    case VFIO_GET_API_VERSION:
        return kernel.api_version;
    case VFIO_CHECK_EXTENSION:
        return (uintptr_t)argument == VFIO_TYPE1v2_IOMMU ? kernel.type1_v2
               : (uintptr_t)argument == VFIO_UNMAP_ALL   ? kernel.unmap_all
                                                         : 0;
    case VFIO_IOMMU_GET_INFO:
        return get_info(argument);
    case VFIO_IOMMU_MAP_DMA:
        return map_dma(argument);
    case VFIO_IOMMU_UNMAP_DMA:
        return unmap_dma(argument);
    default:
        return refuse(ENOTTY);
    }
}

static const struct viommu_range usual[] = {{0, 0xfedfffff}, {0xfef00000, 0x7fffffffff}};

static inline void kernel_begin(void)
{
    memset(&kernel, 0, sizeof(kernel));
    space_begin();
    kernel.type1_v2 = true;
    kernel.unmap_all = true;
    answer_begin(&kernel.answer, VFIO_IOMMU_INFO_CAPS | VFIO_IOMMU_INFO_PGSIZES, 0x40201000);
    answer_add_ranges(&kernel.answer, usual, 2);
    answer_add_available(&kernel.answer, 1000);
}

#endif
