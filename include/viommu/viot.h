/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The ACPI VIOT table, which tells a guest of its virtio-iommus that are PCI functions, and what is
 * behind them (ACPI specification, "Virtual I/O Translation Table").
 *
 * The endpoint id of a function is its requester id, as viommu/virtio.h has it.
 */
#ifndef VIOMMU_VIOT_H
#define VIOMMU_VIOT_H

#include <viommu/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A virtio-iommu. */
struct viommu_viot_iommu {
    uint16_t segment;
    uint16_t function; /* its requester id */
};

/*
 * Functions behind one, with consecutive requester ids. Name exactly those that are served: a guest
 * attaches all that are named, and some give up on every device when one of them is refused.
 */
struct viommu_viot_range {
    uint16_t segment;
    uint16_t first; /* requester ids */
    uint16_t last;
    size_t iommu; /* which of the virtio-iommus */
};

struct viommu_viot {
    const struct viommu_viot_iommu *iommus;
    size_t iommu_count;
    const struct viommu_viot_range *ranges;
    size_t range_count;
};

/*
 * Writes the table, checksum included, to `table`, `size` bytes at most. Returns its length (with a
 * NULL table too, to learn it); -EINVAL for a range that ends before it begins, that names no
 * virtio-iommu of the table, that overlaps another, or that has a virtio-iommu in it; or for two
 * virtio-iommus in one place; -ENOSPC when it does not fit `size`; -E2BIG when it is larger than
 * the format allows: 65,535 entries, the virtio-iommus in the first 64 KiB. Takes time with the
 * square of the number of ranges. Calls nothing back; any thread.
 */
int64_t viommu_viot_build(const struct viommu_viot *viot, void *table, size_t size);

#ifdef __cplusplus
}
#endif

#endif
