/* SPDX-License-Identifier: BSD-2-Clause */
/* Answers to VFIO_IOMMU_GET_INFO, put together for tests. */
#ifndef VIOMMU_VFIO_TEST_ANSWER_H
#define VIOMMU_VFIO_TEST_ANSWER_H

#include <linux/vfio.h>
#include <stdint.h>
#include <string.h>
#include <viommu/types.h>

#define ANSWER_BYTES 512

/* An answer in the making; capabilities follow one another, however they are aligned then. */
struct test_answer {
    unsigned char bytes[ANSWER_BYTES];
    size_t size;
    size_t link; /* where the offset of the next capability goes */
};

static inline void answer_put32(struct test_answer *answer, size_t offset, uint32_t value)
{
    memcpy(answer->bytes + offset, &value, sizeof(value));
}

static inline void answer_begin(struct test_answer *answer, uint32_t flags, uint64_t page_sizes)
{
    struct vfio_iommu_type1_info info = {
        .argsz = sizeof(info), .flags = flags, .iova_pgsizes = page_sizes};

    memset(answer, 0, sizeof(*answer));
    memcpy(answer->bytes, &info, sizeof(info));
    answer->size = sizeof(info);
    answer->link = offsetof(struct vfio_iommu_type1_info, cap_offset);
}

/* Appends a capability, `size` bytes with its header; returns its offset. */
static inline size_t answer_add(struct test_answer *answer, uint16_t id, uint16_t version,
                                const void *body, size_t size)
{
    struct vfio_info_cap_header header = {.id = id, .version = version};
    size_t offset = answer->size;

    memcpy(answer->bytes + offset, body, size);
    memcpy(answer->bytes + offset, &header, sizeof(header));
    answer_put32(answer, answer->link, (uint32_t)offset);
    answer->link = offset + offsetof(struct vfio_info_cap_header, next);
    answer->size += size;
    return offset;
}

static inline size_t answer_add_ranges(struct test_answer *answer,
                                       const struct viommu_range *ranges, uint32_t count)
{
    struct vfio_iommu_type1_info_cap_iova_range cap = {.nr_iovas = count};
    unsigned char body[ANSWER_BYTES];

    memcpy(body, &cap, sizeof(cap));
    /* The kernel's ranges are two 64-bit words, both ends included, as ours. */
    if (count) {
        memcpy(body + sizeof(cap), ranges, count * sizeof(*ranges));
    }
    return answer_add(answer, VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, 1, body,
                      sizeof(cap) + count * sizeof(*ranges));
}

static inline size_t answer_add_available(struct test_answer *answer, uint32_t available)
{
    struct vfio_iommu_type1_info_dma_avail cap = {.avail = available};

    return answer_add(answer, VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, 1, &cap, sizeof(cap));
}

#endif
