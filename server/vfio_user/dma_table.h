/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The DMA regions that a client has mapped: which addresses, and what it takes to map them again in
 * another process. It is what lets an endpoint refuse overlapping maps and inexact unmaps before a
 * function hears of them.
 *
 * A sorted array of pointers to inclusive ranges: a client may have thousands, and change them all
 * the time, so what moves with a change is small. Invariant: ranges ascend and do not overlap;
 * there are at most VFIO_USER_MAX_DMA_REGIONS.
 */
#ifndef VIOMMU_SERVER_VFIO_USER_DMA_TABLE_H
#define VIOMMU_SERVER_VFIO_USER_DMA_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct client_file;

struct vfio_user_dma_range {
    uint64_t first;
    uint64_t last;
    void *cookie; /* the function's own */
    struct client_file *file; /* NULL: none came along, or nobody wants it, or it was not kept */
    uint64_t file_offset;
    bool file_lost; /* one came along and was not kept */
    bool readable;
    bool writable;
};

struct vfio_user_dma_table {
    struct vfio_user_dma_range **ranges;
    size_t n;
    size_t room;
};

/* Give up all regions, and their files. */
void vfio_user_dma_table_fini(struct vfio_user_dma_table *table);

/* Add [first, last]; *out is its entry, good until it is removed. Returns 0, -EEXIST
 * when it meets another range, -ENOSPC when there are too many, -ENOMEM. */
int vfio_user_dma_table_add(struct vfio_user_dma_table *table, uint64_t first, uint64_t last,
                            struct vfio_user_dma_range **out);

/* Remove exactly this range and say what its cookie was. Returns 0 or -ENOENT. */
int vfio_user_dma_table_remove(struct vfio_user_dma_table *table, uint64_t first, uint64_t last,
                               void **cookie);

#endif
