/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where reservations of an IOVA space (viommu/iova.h) come from: what a host says, read into
 * requests. Each reader takes the bytes of one answer, opens nothing, and believes nothing that it
 * can check.
 *
 * What VFIO and iommufd say of addresses that may be mapped is in the subscription of their
 * backend:
 *
 *     viommu_vfio_subscription(vfio, &what);
 *     if (what.allowed) {
 *         viommu_iova_limit(owner, what.allowed, what.allowed_count, &conflict);
 *     }
 *
 * Threads: any.
 */
#ifndef VIOMMU_IOVA_SOURCE_H
#define VIOMMU_IOVA_SOURCE_H

#include <viommu/iova.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Reads a text of /sys/kernel/iommu_groups/N/reserved_regions: a line a region, of two numbers and
 * a type. Linux calls a window that software maps "msi" as it does the hardware's: both are
 * VIOMMU_IOVA_MSI here. A type that is not known is VIOMMU_IOVA_RESERVED. *count is the room, then
 * how many regions there are. Returns 0; -ENOSPC (nothing useful is in requests), or -EIO for a
 * text that makes no sense.
 */
int viommu_iova_read_reserved_regions(const char *text, size_t size,
                                      struct viommu_iova_request *requests, size_t *count);

/*
 * Reads a text of /proc/iomem: the windows of host bridges, which are the lines "PCI Bus
 * SEGMENT:BUS" that are inside no other such line. They are VIOMMU_IOVA_P2P: where a request can be
 * turned to a neighbour at the root, it is inside these. *count as above. Returns 0; -ENOSPC;
 * -EACCES when all addresses are 0, as the kernel has it for those who may not see them; -EIO for a
 * text that makes no sense.
 */
int viommu_iova_read_iomem(const char *text, size_t size, struct viommu_iova_request *requests,
                           size_t *count);

/* A PCI bridge, as its configuration space tells. */
struct viommu_pci_bridge {
    uint8_t secondary;   /* the bus below it */
    uint8_t subordinate; /* the last bus below it */
    /* What it forwards downwards: 32-bit memory, and prefetchable memory, which may be above 4 GiB.
       None when memory is switched off in its command register. */
    struct viommu_range windows[2];
    unsigned window_count;
    /* It is a downstream or root port that sends every request from below upwards, to the IOMMU,
       whatever its address: ACS has request redirection and upstream forwarding switched on. */
    bool redirects;
    /* The upstream port of a switch: what its downstream ports send upwards passes it. */
    bool upstream;
};

/*
 * Reads the configuration space of a function, 64 bytes at least; what ACS says is behind byte 256,
 * so with fewer nothing is redirected. Returns 0; -ENODEV when it is no bridge; -EIO for less than
 * 64 bytes, all ones (it does not answer), or a list of capabilities that makes no sense.
 */
int viommu_pci_bridge_read(const void *config, size_t size, struct viommu_pci_bridge *bridge);

#ifdef __cplusplus
}
#endif

#endif
