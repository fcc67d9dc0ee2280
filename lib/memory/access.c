/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Copies between guest memory and buffers, over as many slots as they span.
 *
 * A range is checked whole before its first byte moves. Between the two nothing can change: both
 * read one snapshot, which is immutable, and the section keeps the slots' host memory. The bytes
 * themselves belong to the guest, which may write them meanwhile: a copy then holds some of the old
 * and some of the new.
 */
#include "memory/memory.h"

#include <errno.h>
#include <viommu/memory.h>

/* Bytes of [gpa, gpa + len - 1] that lie in the slot. */
static size_t piece(const struct viommu_memory_slot *slot, uint64_t gpa, size_t len)
{
    uint64_t rest = slot->last - gpa;

    return len - 1 > rest ? (size_t)rest + 1 : len;
}

static int check(const struct memory_snapshot *snapshot, uint64_t gpa, size_t len, bool write)
{
    int error = 0;

    if (len && len - 1 > UINT64_MAX - gpa) {
        return -EINVAL;
    }
    while (len) {
        const struct viommu_memory_slot *slot = memory_find(snapshot, gpa);
        size_t bytes;

        if (!slot) {
            return -ENXIO;
        }
        if (write && (slot->flags & VIOMMU_MEMORY_READONLY)) {
            error = -EROFS;
        }
        bytes = piece(slot, gpa, len);
        gpa += bytes;
        len -= bytes;
    }
    return error;
}

int memory_copy_out(const struct memory_snapshot *snapshot, uint64_t gpa, void *buf, size_t len)
{
    char *to = buf;
    int error = check(snapshot, gpa, len, false);

    if (error) {
        return error;
    }
    while (len) {
        const struct viommu_memory_slot *slot = memory_find(snapshot, gpa);
        size_t bytes = piece(slot, gpa, len);

        memcpy(to, (const char *)slot->host + (gpa - slot->first), bytes);
        to += bytes;
        gpa += bytes;
        len -= bytes;
    }
    return 0;
}

int memory_copy_in(const struct memory_snapshot *snapshot, uint64_t gpa, const void *buf,
                   size_t len)
{
    const char *from = buf;
    int error = check(snapshot, gpa, len, true);

    if (error) {
        return error;
    }
    while (len) {
        const struct viommu_memory_slot *slot = memory_find(snapshot, gpa);
        size_t bytes = piece(slot, gpa, len);

        memcpy((char *)slot->host + (gpa - slot->first), from, bytes);
        from += bytes;
        gpa += bytes;
        len -= bytes;
    }
    return 0;
}

int viommu_memory_read(struct viommu_memory *memory, uint64_t gpa, void *buf, size_t len)
{
    int error;

    if (!epoch_enter(memory_epoch(memory))) {
        return -ENOMEM;
    }
    error = memory_copy_out(memory_snapshot(memory), gpa, buf, len);
    epoch_leave(memory_epoch(memory));
    return error;
}

int viommu_memory_write(struct viommu_memory *memory, uint64_t gpa, const void *buf, size_t len)
{
    int error;

    if (!epoch_enter(memory_epoch(memory))) {
        return -ENOMEM;
    }
    error = memory_copy_in(memory_snapshot(memory), gpa, buf, len);
    epoch_leave(memory_epoch(memory));
    return error;
}

/* The 16-bit word at gpa, in the current snapshot. */
static int find16(struct viommu_memory *memory, uint64_t gpa, bool write, _Atomic uint16_t **out)
{
    const struct memory_snapshot *snapshot = memory_snapshot(memory);
    int error = gpa & 1 ? -EINVAL : check(snapshot, gpa, sizeof(uint16_t), write);

    if (!error) {
        *out = memory_host(snapshot, gpa, sizeof(uint16_t), write);
    }
    return error;
}

int viommu_memory_load16(struct viommu_memory *memory, uint64_t gpa, uint16_t *value)
{
    _Atomic uint16_t *word;
    int error;

    if (!epoch_enter(memory_epoch(memory))) {
        return -ENOMEM;
    }
    error = find16(memory, gpa, false, &word);
    if (!error) {
        *value = le16toh(atomic_load_explicit(word, memory_order_acquire));
    }
    epoch_leave(memory_epoch(memory));
    return error;
}

int viommu_memory_store16(struct viommu_memory *memory, uint64_t gpa, uint16_t value)
{
    _Atomic uint16_t *word;
    int error;

    if (!epoch_enter(memory_epoch(memory))) {
        return -ENOMEM;
    }
    error = find16(memory, gpa, true, &word);
    if (!error) {
        atomic_store_explicit(word, htole16(value), memory_order_release);
    }
    epoch_leave(memory_epoch(memory));
    return error;
}
