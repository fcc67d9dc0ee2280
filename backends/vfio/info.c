/* SPDX-License-Identifier: BSD-2-Clause */
/* Reading the answer to VFIO_IOMMU_GET_INFO. */
#include "vfio/info.h"

#include "base/alloc.h"
#include "common/allowed.h"

#include <errno.h>
#include <linux/vfio.h>
#include <string.h>

/* The answer, and how much of it there is. */
struct answer {
    const unsigned char *bytes;
    size_t size;
};

/* Copies bytes out of the answer; false when they are not all inside. */
static bool copy(const struct answer *answer, size_t offset, void *to, size_t size)
{
    if (offset > answer->size || size > answer->size - offset) {
        return false;
    }
    memcpy(to, answer->bytes + offset, size);
    return true;
}

static int read_ranges(const struct answer *answer, size_t offset, struct vfio_info *info)
{
    struct vfio_iommu_type1_info_cap_iova_range cap;
    struct viommu_range *ranges;
    size_t count;
    int ret;

    if (info->allowed || !copy(answer, offset, &cap, sizeof(cap))) {
        return -EIO;
    }
    offset += sizeof(cap);
    count = cap.nr_iovas;
    if (count > (answer->size - offset) / sizeof(struct vfio_iova_range)) {
        return -EIO;
    }
    ranges = base_alloc_array(count, sizeof(*ranges));
    if (!ranges) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < count; i++) {
        struct vfio_iova_range range;

        copy(answer, offset + i * sizeof(range), &range, sizeof(range));
        ranges[i] = (struct viommu_range){.first = range.start, .last = range.end};
    }
    ret = allowed_normalise(ranges, &count);
    if (ret == 0 && count == 0) {
        ret = -ERANGE;
    }
    if (ret < 0) {
        base_free(ranges);
        return ret;
    }
    info->allowed = ranges;
    info->allowed_count = count;
    return 0;
}

static int read_available(const struct answer *answer, size_t offset, struct vfio_info *info)
{
    struct vfio_iommu_type1_info_dma_avail cap;

    if (!copy(answer, offset, &cap, sizeof(cap))) {
        return -EIO;
    }
    info->available_told = true;
    info->available = cap.avail;
    return 0;
}

/* What is not known, in its kind or version, is passed over. */
static int read_capability(const struct answer *answer, size_t offset,
                           const struct vfio_info_cap_header *header, struct vfio_info *info)
{
    if (header->version != 1) {
        return 0;
    }
    switch (header->id) {
    case VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE:
        return read_ranges(answer, offset, info);
    case VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL:
        return read_available(answer, offset, info);
    default:
        return 0;
    }
}

static int read_chain(const struct answer *answer, size_t offset, struct vfio_info *info)
{
    struct vfio_info_cap_header header;
    size_t behind = offsetof(struct vfio_iommu_type1_info, cap_offset) + sizeof(uint32_t);

    while (offset) {
        int ret;

        if (offset < behind || !copy(answer, offset, &header, sizeof(header))) {
            return -EIO;
        }
        ret = read_capability(answer, offset, &header, info);
        if (ret < 0) {
            return ret;
        }
        behind = offset + sizeof(header);
        offset = header.next;
    }
    return 0;
}

int vfio_info_parse(const void *answer, size_t size, struct vfio_info *info)
{
    struct answer bytes = {.bytes = answer, .size = size};
    struct vfio_iommu_type1_info head = {0};
    int ret = 0;

    *info = (struct vfio_info){0};
    if (!copy(&bytes, 0, &head, offsetof(struct vfio_iommu_type1_info, cap_offset))) {
        return -EIO;
    }
    if ((head.flags & VFIO_IOMMU_INFO_PGSIZES) && head.iova_pgsizes) {
        /* Larger pages than the smallest are put together of those, where the host has none. */
        uint64_t smallest = head.iova_pgsizes & -head.iova_pgsizes;

        info->page_sizes = ~(smallest - 1);
    }
    if (head.flags & VFIO_IOMMU_INFO_CAPS) {
        if (!copy(&bytes, offsetof(struct vfio_iommu_type1_info, cap_offset), &head.cap_offset,
                  sizeof(head.cap_offset))) {
            return -EIO;
        }
        ret = read_chain(&bytes, head.cap_offset, info);
    }
    if (ret < 0) {
        vfio_info_free(info);
    }
    return ret;
}

void vfio_info_free(struct vfio_info *info)
{
    base_free(info->allowed);
    *info = (struct vfio_info){0};
}
