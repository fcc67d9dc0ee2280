/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The memory that a command names: two physical region page entries (PRPs), and lists of them,
 * become ranges of device addresses.
 *
 * The first entry may begin anywhere in a memory page, all later ones begin pages. A list is a part
 * of a memory page, up to its end; where more entries follow, the last one leads to the next list.
 * Each list is read once. How many are read is limited by the length alone: every list but the
 * first, which may begin at the end of its page, gives an entry for data at least.
 */
#ifndef VIOMMU_SERVER_NVME_PRP_H
#define VIOMMU_SERVER_NVME_PRP_H

#include <stddef.h>
#include <stdint.h>

#include "../device_dma.h"

enum {
    /* The most that one command transfers, and the ranges that this can be cut into. */
    NVME_TRANSFER_MAX = 1 << 20,
    NVME_RANGES_MAX = NVME_TRANSFER_MAX / 4096 + 1,
};

struct nvme_prp_memory {
    int (*read)(void *opaque, uint64_t iova, void *data, size_t size);
    void *opaque;
    unsigned page_shift; /* 12 to 16 */
};

/*
 * length is 1 to NVME_TRANSFER_MAX. Neighbours become one range; all ranges together are length
 * bytes. Returns 0; -EINVAL for an entry whose offset is not allowed; or what `read` returned.
 */
int nvme_prp_decode(const struct nvme_prp_memory *memory, uint64_t prp1, uint64_t prp2,
                    size_t length, struct device_dma_range ranges[NVME_RANGES_MAX], size_t *count);

#endif
