/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a mirror holds: the mappings that it was told to make, sorted by address; none overlaps
 * another. It stands for the host's real mappings, and is as strict as the strictest of them: what
 * a change says is judged before it is applied.
 *
 * It is an array with a gap, where the last change was: calls come in the order of addresses, so
 * that the next one is near it.
 */
#ifndef VIOMMU_TOOLS_RUN_HELD_H
#define VIOMMU_TOOLS_RUN_HELD_H

#include <viommu/notify.h>

struct held_mapping {
    uint64_t first;
    uint64_t last;
    uint64_t gpa; /* where `first` leads */
    uint8_t *host;
    uint32_t perm;
};

struct held {
    struct held_mapping *mappings; /* `gap` of them, then nothing, then the others at the end */
    size_t count;
    size_t gap;
    size_t room;
};

/* Frees what it holds, and leaves it empty. */
void held_drop(struct held *held);

/* The mapping of an index below `count`. */
struct held_mapping *held_at(const struct held *held, size_t index);

/* The mapping of an address, or NULL. */
const struct held_mapping *held_find(const struct held *held, uint64_t address);

/* The index of the first mapping that ends at an address or above; `count` when there is none. */
size_t held_from(const struct held *held, uint64_t address);

/*
 * What is wrong with a change that comes to a subscriber (a mirror) of these terms now: a sentence,
 * static; or NULL.
 */
const char *held_judge(const struct held *held, const struct viommu_subscription *terms,
                       const struct viommu_change *change);

/* Applies a change that was judged right. */
void held_apply(struct held *held, const struct viommu_change *change);

#endif
