/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Judges a batch and builds the snapshot that it leads to, before anything happens.
 *
 * Three steps, each of which reads what the one before left: mark the slots that the ranges take
 * away (`gone`, a byte a slot of the old snapshot), sort the additions, merge what stays with them.
 * Nothing outside the batch is changed, so a refusal leaves no trace.
 */
#include "memory/private.h"

#include "base/alloc.h"

#include <errno.h>
#include <stdlib.h>

/* Index of the first slot that ends at `address` or above; count when there is none. */
static size_t first_ending_at(const struct memory_snapshot *snapshot, uint64_t address)
{
    size_t low = 0;
    size_t high = snapshot->count;

    while (low < high) {
        size_t mid = (low + high) / 2;

        if (snapshot->slots[mid].last < address) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

/* Marks what one range removes. Ranges of a batch may overlap: each is judged by itself. */
static int mark_range(const struct memory_snapshot *before, const struct viommu_range *range,
                      bool *gone)
{
    size_t begin = first_ending_at(before, range->first);
    size_t i;

    for (i = begin; i < before->count && before->slots[i].first <= range->last; i++) {
        if (before->slots[i].first < range->first || before->slots[i].last > range->last) {
            return -EINVAL;
        }
        gone[i] = true;
    }
    return i > begin ? 0 : -ENOENT;
}

static int mark_ranges(const struct viommu_memory_batch *batch,
                       const struct memory_snapshot *before, bool *gone)
{
    for (size_t i = 0; i < batch->range_count; i++) {
        int error = mark_range(before, &batch->ranges[i], gone);

        if (error) {
            return error;
        }
    }
    return 0;
}

/* Copies the marked slots into batch->removed. */
static int collect_removed(struct viommu_memory_batch *batch, const struct memory_snapshot *before,
                           const bool *gone)
{
    size_t count = 0;

    for (size_t i = 0; i < before->count; i++) {
        count += gone[i];
    }
    if (!count) {
        return 0;
    }
    batch->removed = base_alloc_array(count, sizeof(*batch->removed));
    if (!batch->removed) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < before->count; i++) {
        if (gone[i]) {
            batch->removed[batch->removed_count++] = before->slots[i];
        }
    }
    return 0;
}

static int plan_removals(struct viommu_memory_batch *batch, const struct memory_snapshot *before,
                         bool *gone)
{
    int error = mark_ranges(batch, before, gone);

    return error ? error : collect_removed(batch, before, gone);
}

static int by_address(const void *a, const void *b)
{
    const struct viommu_memory_slot *left = a;
    const struct viommu_memory_slot *right = b;

    return (left->first > right->first) - (left->first < right->first);
}

/* Merges the slots that stay with the sorted additions. -EEXIST where two overlap. */
static int merge(struct memory_snapshot *after, const struct memory_snapshot *before,
                 const bool *gone, const struct viommu_memory_batch *batch)
{
    size_t old = 0;
    size_t new = 0;

    for (size_t i = 0; i < after->count; i++) {
        while (gone && old < before->count && gone[old]) {
            old++;
        }
        if (old < before->count && (new == batch->added_count ||
                                    before->slots[old].first <= batch->added[new].first)) {
            after->slots[i] = before->slots[old++];
        } else {
            after->slots[i] = batch->added[new++];
        }
        if (i && after->slots[i].first <= after->slots[i - 1].last) {
            return -EEXIST;
        }
    }
    return 0;
}

static int build_after(struct viommu_memory_batch *batch, const struct memory_snapshot *before,
                       const bool *gone)
{
    size_t count = before->count - batch->removed_count + batch->added_count;

    if (batch->added_count) {
        qsort(batch->added, batch->added_count, sizeof(*batch->added), by_address);
    }
    batch->after = memory_snapshot_alloc(count);
    return batch->after ? merge(batch->after, before, gone, batch) : -ENOMEM;
}

int memory_plan(struct viommu_memory_batch *batch, const struct memory_snapshot *before)
{
    bool *gone;
    int error;

    if (!batch->range_count) {
        return build_after(batch, before, NULL);
    }
    gone = base_alloc_array(before->count + 1, sizeof(*gone));
    if (!gone) {
        return -ENOMEM;
    }
    error = plan_removals(batch, before, gone);
    if (!error) {
        error = build_after(batch, before, gone);
    }
    base_free(gone);
    return error;
}
