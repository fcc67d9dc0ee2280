/* SPDX-License-Identifier: BSD-2-Clause */
/* Sorting, joining and trimming of the ranges that may be mapped. */
#include "common/allowed.h"

#include <errno.h>
#include <stdlib.h>

#define PAGE_MASK UINT64_C(0xfff)

static int by_first(const void *a, const void *b)
{
    const struct viommu_range *x = a;
    const struct viommu_range *y = b;

    return (x->first > y->first) - (x->first < y->first);
}

/* Of sorted ranges; returns how many are left. */
static size_t join(struct viommu_range *ranges, size_t count)
{
    size_t kept = 0;

    for (size_t i = 0; i < count; i++) {
        struct viommu_range *last = kept ? &ranges[kept - 1] : NULL;

        if (last && (last->last == UINT64_MAX || ranges[i].first <= last->last + 1)) {
            last->last = ranges[i].last > last->last ? ranges[i].last : last->last;
        } else {
            ranges[kept++] = ranges[i];
        }
    }
    return kept;
}

/* Cuts a range to whole pages; false when there is none. */
static bool trim(struct viommu_range *range)
{
    uint64_t into = range->first & PAGE_MASK;
    uint64_t over = (range->last + 1) & PAGE_MASK;

    if (range->last - range->first < (into ? PAGE_MASK + 1 - into : 0) + over + PAGE_MASK) {
        return false;
    }
    range->first += into ? PAGE_MASK + 1 - into : 0;
    range->last -= over;
    return true;
}

int allowed_normalise(struct viommu_range *ranges, size_t *count)
{
    size_t joined;
    size_t kept = 0;

    for (size_t i = 0; i < *count; i++) {
        if (ranges[i].first > ranges[i].last) {
            return -EIO;
        }
    }
    if (*count > 1) {
        qsort(ranges, *count, sizeof(*ranges), by_first);
    }
    joined = join(ranges, *count);
    for (size_t i = 0; i < joined; i++) {
        ranges[kept] = ranges[i];
        kept += trim(&ranges[kept]) ? 1 : 0;
    }
    *count = kept;
    return 0;
}
