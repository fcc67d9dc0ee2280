/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a far device server says of its device: its regions and interrupts.
 *
 * The answers are decoded and checked here, once; the client is told what was understood of them,
 * and nothing else: regions and interrupts past those of PCI, and capabilities of a region other
 * than its mappable areas, stay with the far server.
 *
 * A region that can be mapped has a file, which the client maps itself. Invariants: areas lie
 * inside their region; a region without a file is not MMAP, and has no areas.
 */
#ifndef VIOMMU_SERVER_RELAY_FAR_INFO_H
#define VIOMMU_SERVER_RELAY_FAR_INFO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vfio_user/protocol.h"

enum {
    FAR_AREAS_MAX = 64,
    FAR_VECTORS_MAX = 2048, /* of an interrupt index: what MSI-X has at most */
};

struct far_region {
    uint32_t flags; /* VFIO_REGION_INFO_FLAG_READ, _WRITE, _MMAP */
    uint64_t size;
    uint64_t offset;     /* where it begins in the file */
    int fd;              /* the file, or -1 */
    unsigned area_count; /* 0: all of it can be mapped, if any */
    struct vfio_region_sparse_mmap_area areas[FAR_AREAS_MAX];
};

struct far_irqs {
    uint32_t flags;
    uint32_t count;
};

struct far_info {
    uint32_t flags;
    unsigned region_count; /* VFIO_PCI_NUM_REGIONS at most */
    unsigned irq_count;    /* VFIO_PCI_NUM_IRQS at most */
    struct far_region regions[VFIO_PCI_NUM_REGIONS];
    struct far_irqs irqs[VFIO_PCI_NUM_IRQS];
};

/* An answer to GET_REGION_INFO, at its longest: there is as much room for one of the far server. */
#define FAR_REGION_ANSWER_MAX                                                                      \
    (sizeof(struct vfio_region_info) + sizeof(struct vfio_region_info_cap_sparse_mmap) +           \
     FAR_AREAS_MAX * sizeof(struct vfio_region_sparse_mmap_area))

/* Nothing is known. */
void far_info_init(struct far_info *info);

/* Closes the files. */
void far_info_fini(struct far_info *info);

/*
 * Take an answer in: to GET_INFO, and of each region and interrupt index that it names. Return 0,
 * or -EPROTO for what makes no sense. Of fds[] the one that is kept is replaced by -1; with `files`
 * false none is, and no region can be mapped.
 */
int far_info_device(struct far_info *info, const void *data, size_t size);
int far_info_region(struct far_info *info, unsigned index, const void *data, size_t size, int *fds,
                    unsigned n_fds, bool files);
int far_info_irqs(struct far_info *info, unsigned index, const void *data, size_t size);

/* The answer to a client's GET_REGION_INFO that has room for argsz bytes, the structure at least.
 * Returns its size. */
size_t far_info_region_answer(const struct far_info *info, unsigned index, uint32_t argsz,
                              uint8_t answer[FAR_REGION_ANSWER_MAX]);

/* What a client that was told the one could not expect of the other, for people; NULL: nothing. */
const char *far_info_difference(const struct far_info *told, const struct far_info *now);

#endif
