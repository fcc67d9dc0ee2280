/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A sorted array of DMA ranges; see dma_table.h.
 */
#include "dma_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../client_file.h"
#include "vfio_user/protocol.h"

void vfio_user_dma_table_fini(struct vfio_user_dma_table *table)
{
    for (size_t i = 0; i < table->n; i++) {
        client_file_put(table->ranges[i]->file);
        free(table->ranges[i]);
    }
    free(table->ranges);
    memset(table, 0, sizeof(*table));
}

/* The place of the first range that ends at or after an address. */
static size_t find(const struct vfio_user_dma_table *table, uint64_t address)
{
    size_t low = 0, high = table->n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (table->ranges[middle]->last < address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static int reserve(struct vfio_user_dma_table *table)
{
    struct vfio_user_dma_range **ranges;
    size_t room = table->room ? 2 * table->room : 16;

    if (table->n < table->room) {
        return 0;
    }
    ranges = realloc(table->ranges, room * sizeof(*ranges));
    if (!ranges) {
        return -ENOMEM;
    }
    table->ranges = ranges;
    table->room = room;
    return 0;
}

int vfio_user_dma_table_add(struct vfio_user_dma_table *table, uint64_t first, uint64_t last,
                            struct vfio_user_dma_range **out)
{
    size_t i = find(table, first);
    struct vfio_user_dma_range *range;
    int ret;

    if (i < table->n && table->ranges[i]->first <= last) {
        return -EEXIST;
    }
    if (table->n == VFIO_USER_MAX_DMA_REGIONS) {
        return -ENOSPC;
    }
    ret = reserve(table);
    if (ret < 0) {
        return ret;
    }
    range = calloc(1, sizeof(*range));
    if (!range) {
        return -ENOMEM;
    }
    range->first = first;
    range->last = last;
    memmove(&table->ranges[i + 1], &table->ranges[i], (table->n - i) * sizeof(table->ranges[0]));
    table->ranges[i] = range;
    table->n++;
    *out = range;
    return 0;
}

int vfio_user_dma_table_remove(struct vfio_user_dma_table *table, uint64_t first, uint64_t last,
                               void **cookie)
{
    size_t i = find(table, first);
    struct vfio_user_dma_range *range = i < table->n ? table->ranges[i] : NULL;

    if (!range || range->first != first || range->last != last) {
        return -ENOENT;
    }
    *cookie = range->cookie;
    client_file_put(range->file);
    free(range);
    table->n--;
    memmove(&table->ranges[i], &table->ranges[i + 1], (table->n - i) * sizeof(table->ranges[0]));
    return 0;
}
