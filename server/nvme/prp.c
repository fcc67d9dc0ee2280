/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PRP lists; prp.h says what they are.
 */
#include "prp.h"

#include <errno.h>

enum {
    ENTRY_SIZE = sizeof(uint64_t),
    LIST_ALIGN = 8,
    FIRST_ALIGN = 4,
    /* Entries of one list that are ever needed: those for data, and one that leads on. */
    LIST_MAX = NVME_RANGES_MAX + 1,
};

/* What is decoded so far. */
struct layout {
    const struct nvme_prp_memory *memory;
    struct device_dma_range *ranges;
    size_t count;
    size_t left; /* bytes that no entry was seen for */
};

static uint64_t page_size(const struct layout *layout)
{
    return UINT64_C(1) << layout->memory->page_shift;
}

static uint64_t page_offset(const struct layout *layout, uint64_t address)
{
    return address & (page_size(layout) - 1);
}

/* Pages that the bytes left take, when the next one begins a page. */
static size_t pages_left(const struct layout *layout)
{
    return (layout->left + page_size(layout) - 1) >> layout->memory->page_shift;
}

/* Take from address up to the end of its page, or what is left. */
static void take(struct layout *layout, uint64_t address)
{
    uint64_t room = page_size(layout) - page_offset(layout, address);
    size_t size = layout->left < room ? layout->left : (size_t)room;
    struct device_dma_range *last = layout->count ? &layout->ranges[layout->count - 1] : NULL;

    if (last && last->iova + last->size == address && address != 0) {
        last->size += size;
    } else {
        layout->ranges[layout->count++] = (struct device_dma_range){.iova = address, .size = size};
    }
    layout->left -= size;
}

/* Read one list, take what it names, and say where the next one is. */
static int take_list(struct layout *layout, uint64_t *list)
{
    uint64_t entries[LIST_MAX];
    size_t wanted = pages_left(layout);
    size_t room = (size_t)((page_size(layout) - page_offset(layout, *list)) / ENTRY_SIZE);
    size_t n = wanted <= room ? wanted : room;
    int ret = layout->memory->read(layout->memory->opaque, *list, entries, n * ENTRY_SIZE);

    if (ret < 0) {
        return ret;
    }
    for (size_t i = 0; i < n; i++) {
        if (page_offset(layout, entries[i]) != 0) {
            return -EINVAL;
        }
        if (i == n - 1 && wanted > n) {
            *list = entries[i];
        } else {
            take(layout, entries[i]);
        }
    }
    return 0;
}

int nvme_prp_decode(const struct nvme_prp_memory *memory, uint64_t prp1, uint64_t prp2,
                    size_t length, struct device_dma_range ranges[NVME_RANGES_MAX], size_t *count)
{
    struct layout layout = {.memory = memory, .ranges = ranges, .left = length};
    int ret = 0;

    if (prp1 % FIRST_ALIGN != 0) {
        return -EINVAL;
    }
    take(&layout, prp1);
    if (layout.left > page_size(&layout)) {
        uint64_t list = prp2;

        if (list % LIST_ALIGN != 0) {
            return -EINVAL;
        }
        while (ret == 0 && layout.left > 0) {
            ret = take_list(&layout, &list);
        }
    } else if (layout.left > 0) {
        if (page_offset(&layout, prp2) != 0) {
            return -EINVAL;
        }
        take(&layout, prp2);
    }
    *count = layout.count;
    return ret;
}
