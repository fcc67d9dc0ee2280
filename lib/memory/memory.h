/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest memory inside the library: the immutable snapshot that readers use.
 *
 * A snapshot is an array of slots sorted by address. Readers load it inside a section of the
 * memory's epoch and may use it, and the host memory of its slots, until the section ends. A commit
 * publishes a new snapshot; removed slots are reported done only after a drain.
 *
 * Guest tables are read through memory_load64: one aligned atomic load, so that a guest that
 * rewrites an entry meanwhile gives us the old or the new value, and every decision is made on one
 * copy.
 */
#ifndef VIOMMU_MEMORY_MEMORY_H
#define VIOMMU_MEMORY_MEMORY_H

#include "base/epoch.h"

#include <endian.h>
#include <stdatomic.h>
#include <string.h>
#include <viommu/memory.h>

struct memory_snapshot {
    struct epoch_deferred deferred;
    size_t count;
    struct viommu_memory_slot slots[];
};

/* The epoch that protects the memory's snapshots, and every IOMMU's DMA on it. */
struct epoch *memory_epoch(struct viommu_memory *memory);

/* The current snapshot, never NULL. Inside a section. */
const struct memory_snapshot *memory_snapshot(struct viommu_memory *memory);

/*
 * For who is told that slots are leaving: sections that began at this time of the epoch, or later,
 * do not find them.
 */
uint64_t memory_published(const struct viommu_memory *memory);

/* Holds the object; viommu_memory_destroy by its owner then waits for the last memory_put. */
void memory_get(struct viommu_memory *memory);
void memory_put(struct viommu_memory *memory);

/* The slot that holds `gpa`, or NULL. */
static inline const struct viommu_memory_slot *
memory_find(const struct memory_snapshot *snapshot, uint64_t gpa)
{
    size_t low = 0;
    size_t high = snapshot->count;

    while (low < high) {
        size_t mid = (low + high) / 2;

        if (gpa > snapshot->slots[mid].last) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    if (low == snapshot->count || gpa < snapshot->slots[low].first) {
        return NULL;
    }
    return &snapshot->slots[low];
}

/*
 * Host address of guest bytes [gpa, gpa + len - 1] that lie in one slot, or NULL: some of it is no
 * memory, or is ROM and `write` is asked for, or spans two slots. len is 1 or more.
 */
static inline void *memory_host(const struct memory_snapshot *snapshot, uint64_t gpa, size_t len,
                                bool write)
{
    const struct viommu_memory_slot *slot = memory_find(snapshot, gpa);

    if (!slot || len - 1 > slot->last - gpa || (write && (slot->flags & VIOMMU_MEMORY_READONLY))) {
        return NULL;
    }
    return (char *)slot->host + (gpa - slot->first);
}

/* Reads a little-endian 64-bit entry once. gpa is 8-byte aligned. False: no memory there. */
static inline bool memory_load64(const struct memory_snapshot *snapshot, uint64_t gpa,
                                 uint64_t *out)
{
    _Atomic uint64_t *entry = memory_host(snapshot, gpa, 8, false);

    if (!entry) {
        return false;
    }
    *out = le64toh(atomic_load_explicit(entry, memory_order_acquire));
    return true;
}

/*
 * The same for entries that are likely to lie in one slot: it is looked for anew only where an
 * entry does not lie in *slot, the last one's; NULL at first.
 */
static inline bool memory_load64_near(const struct memory_snapshot *snapshot,
                                      const struct viommu_memory_slot **slot, uint64_t gpa,
                                      uint64_t *out)
{
    _Atomic uint64_t *entry;

    if (!*slot || gpa < (*slot)->first || gpa > (*slot)->last) {
        *slot = memory_find(snapshot, gpa);
        if (!*slot) {
            return false;
        }
    }
    /* Slots are pages, and an entry is aligned: it lies in one as a whole. */
    entry = (_Atomic uint64_t *)((char *)(*slot)->host + (gpa - (*slot)->first));
    *out = le64toh(atomic_load_explicit(entry, memory_order_acquire));
    return true;
}

/*
 * Adds a listener that knows all from its beginning: `slots` is called, under the memory's lock,
 * with what readers see now; the listener hears of every batch that they do not see yet, accepted
 * before or later. Returns 0, what `slots` returned, or -ENOMEM. From inside a listener, too.
 */
int memory_listener_begin(struct viommu_memory *memory,
                          const struct viommu_memory_listener_ops *ops, void *opaque,
                          int (*slots)(void *opaque, const struct viommu_memory_slot *slots,
                                       size_t count),
                          struct viommu_memory_listener **out);

/*
 * A guard judges batches before they are accepted: what it refuses never becomes guest memory. Both
 * functions are called with the memory's lock held, and call nothing of the memory's.
 */
struct memory_guard;

struct memory_guard_ops {
    /* These slots come, all or none. Returns 0 or the errno that the commit then returns. */
    int (*coming)(struct memory_guard *guard, const struct viommu_memory_slot *slots,
                  size_t count);
    /* They did not come after all; or they were removed, and the batch is complete. */
    void (*gone)(struct memory_guard *guard, const struct viommu_memory_slot *slots,
                 size_t count);
};

struct memory_guard {
    struct memory_guard *next;
    const struct memory_guard_ops *ops;
};

/* Adds a guard, which is asked for what is there. Returns 0, or what it says; then it is not added.
   Who has a guard holds the memory. */
int memory_guard_add(struct viommu_memory *memory, struct memory_guard *guard);
/* Neither of its functions is called any more; what is there it is not told. */
void memory_guard_remove(struct viommu_memory *memory, struct memory_guard *guard);

/*
 * Copies between guest memory and a buffer, across slots. Checked whole first. Returns 0, -ENXIO,
 * -EROFS or -EINVAL as viommu_memory_read and viommu_memory_write. Inside a section.
 */
int memory_copy_out(const struct memory_snapshot *snapshot, uint64_t gpa, void *buf, size_t len);
int memory_copy_in(const struct memory_snapshot *snapshot, uint64_t gpa, const void *buf,
                   size_t len);

#endif
