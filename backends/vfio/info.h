/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the kernel tells of a VFIO container's IOMMU: the answer to VFIO_IOMMU_GET_INFO, a structure
 * with a chain of capabilities behind it, as bytes.
 *
 * A capability begins with a header: which one it is, its version, and at which offset from the
 * start of the answer the next header is (0: none). The kernel puts each behind the one before, and
 * not always aligned; so a chain that does not lead forward, or out of the answer, is refused, and
 * everything is copied out before it is looked at.
 */
#ifndef VIOMMU_VFIO_INFO_H
#define VIOMMU_VFIO_INFO_H

#include <viommu/types.h>

struct vfio_info {
    struct viommu_range *allowed; /* as a subscription wants it; NULL: not told, so everything */
    size_t allowed_count;
    uint64_t page_sizes; /* as a subscription wants it; 0: not told */
    bool available_told;
    uint32_t available; /* mappings that can be made, where told */
};

/*
 * Reads `size` bytes of an answer. Returns 0; -EIO when it makes no sense; -ERANGE when it says
 * that nothing may be mapped at all; -ENOMEM. After a failure there is nothing to be freed.
 */
int vfio_info_parse(const void *answer, size_t size, struct vfio_info *info);

void vfio_info_free(struct vfio_info *info);

#endif
