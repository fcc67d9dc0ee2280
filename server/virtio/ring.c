/* SPDX-License-Identifier: BSD-2-Clause */
/* See ring.h. Offsets and flags are the specification's. */
#include "virtio/ring.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_ring.h>
#include <stdatomic.h>
#include <string.h>

#include <viommu/memory.h>

/* Both rings: flags, index, entries, and behind them the other side's event index. */
enum {
    RING_FLAGS = 0,
    RING_INDEX = 2,
    RING_ENTRIES = 4,
    AVAILABLE_ENTRY = 2,
    USED_ENTRY = 8,
};

static uint64_t available_entry(const struct virtio_ring *ring, uint16_t index)
{
    return ring->available + RING_ENTRIES + (uint64_t)AVAILABLE_ENTRY * (index % ring->size);
}

static uint64_t used_entry(const struct virtio_ring *ring, uint16_t index)
{
    return ring->used + RING_ENTRIES + (uint64_t)USED_ENTRY * (index % ring->size);
}

/* Written by the driver: when it wants an interrupt. */
static uint64_t used_event(const struct virtio_ring *ring)
{
    return ring->available + RING_ENTRIES + (uint64_t)AVAILABLE_ENTRY * ring->size;
}

/* Written by the device: when it wants to be notified. */
static uint64_t available_event(const struct virtio_ring *ring)
{
    return ring->used + RING_ENTRIES + (uint64_t)USED_ENTRY * ring->size;
}

void virtio_ring_reset(struct virtio_ring *ring, uint16_t size)
{
    *ring = (struct virtio_ring){.memory = ring->memory, .size = size};
}

/* Whether an area is aligned, and ends before the address space does. */
static bool is_area(uint64_t first, uint64_t size, uint64_t alignment)
{
    return first % alignment == 0 && first <= UINT64_MAX - size;
}

bool virtio_ring_is_sound(const struct virtio_ring *ring)
{
    uint64_t size = ring->size;

    return is_area(ring->descriptors, sizeof(struct vring_desc) * size, 16) &&
           is_area(ring->available, RING_ENTRIES + AVAILABLE_ENTRY * size + 2, 2) &&
           is_area(ring->used, RING_ENTRIES + USED_ENTRY * size + 2, 4);
}

/* ---- chains ---- */

/* A table of descriptors, and where in it the walk is. */
struct walk {
    const struct virtio_ring *ring;
    struct virtio_chain *chain;
    uint64_t table;
    uint32_t entries;
    bool inside; /* an indirect table */
    uint32_t at;
    unsigned steps; /* descriptors read, in all tables */
};

static int read_descriptor(const struct walk *walk, struct vring_desc *descriptor)
{
    struct vring_desc raw;
    uint64_t offset = (uint64_t)sizeof(raw) * walk->at;
    int ret;

    if (offset > UINT64_MAX - walk->table) {
        return -EINVAL;
    }
    ret = viommu_memory_read(walk->ring->memory, walk->table + offset, &raw, sizeof(raw));
    if (ret < 0) {
        return ret;
    }
    descriptor->addr = le64toh(raw.addr);
    descriptor->len = le32toh(raw.len);
    descriptor->flags = le16toh(raw.flags);
    descriptor->next = le16toh(raw.next);
    return 0;
}

/* Goes on in the indirect table that a descriptor leads to. False: it must not lead there. */
static bool enter_table(struct walk *walk, const struct vring_desc *descriptor)
{
    if (!walk->ring->indirect || walk->inside || descriptor->flags & VRING_DESC_F_NEXT ||
        descriptor->len % sizeof(*descriptor) != 0) {
        return false;
    }
    walk->inside = true;
    walk->table = descriptor->addr;
    walk->entries = descriptor->len / sizeof(*descriptor);
    walk->at = 0;
    return true;
}

/* Adds what a descriptor describes. False: it must not come here. */
static bool add_segment(struct virtio_chain *chain, const struct vring_desc *descriptor)
{
    bool writable = descriptor->flags & VRING_DESC_F_WRITE;

    if (!writable && chain->writable_bytes > 0) {
        return false;
    }
    if (descriptor->len == 0) {
        return true;
    }
    chain->segments[chain->count++] =
        (struct virtio_segment){.gpa = descriptor->addr, .length = descriptor->len};
    if (writable) {
        chain->writable_bytes += descriptor->len;
    } else {
        chain->readable++;
        chain->readable_bytes += descriptor->len;
    }
    return true;
}

/* Reads the next descriptor. Returns 1 when another follows, 0 when it was the last, or a negative
 * errno when the chain makes no sense. */
static int step(struct walk *walk)
{
    struct vring_desc descriptor;
    int ret;

    /* A chain with more steps than the queue has entries is too long, or a loop. The descriptor
     * that leads to an indirect table is not counted. */
    if (walk->at >= walk->entries || walk->steps++ >= walk->ring->size + (walk->inside ? 1u : 0u)) {
        return -EINVAL;
    }
    ret = read_descriptor(walk, &descriptor);
    if (ret < 0) {
        return ret;
    }
    if (descriptor.flags & VRING_DESC_F_INDIRECT) {
        return enter_table(walk, &descriptor) ? 1 : -EINVAL;
    }
    if (!add_segment(walk->chain, &descriptor)) {
        return -EINVAL;
    }
    walk->at = descriptor.next;
    return descriptor.flags & VRING_DESC_F_NEXT ? 1 : 0;
}

static void read_chain(const struct virtio_ring *ring, struct virtio_chain *chain, uint16_t head)
{
    struct walk walk = {
        .ring = ring,
        .chain = chain,
        .table = ring->descriptors,
        .entries = ring->size,
        .at = head,
    };
    int ret;

    chain->head = head;
    chain->spoilt = false;
    chain->readable = chain->count = 0;
    chain->readable_bytes = chain->writable_bytes = 0;
    do {
        ret = step(&walk);
    } while (ret > 0);
    if (ret < 0) {
        chain->spoilt = true;
        chain->readable = chain->count = 0;
        chain->readable_bytes = chain->writable_bytes = 0;
    }
}

/* ---- the two rings ---- */

/* How many chains wait. */
static int waiting(struct virtio_ring *ring)
{
    uint16_t index, count;
    int ret = viommu_memory_load16(ring->memory, ring->available + RING_INDEX, &index);

    if (ret < 0) {
        return ret;
    }
    count = (uint16_t)(index - ring->next);
    return count > ring->size ? -EBADMSG : count;
}

/* There is nothing: asks to be notified of the next, and looks again. */
static int waiting_or_notified(struct virtio_ring *ring)
{
    int ret = waiting(ring);

    if (ret != 0 || !ring->event_index) {
        return ret;
    }
    ret = viommu_memory_store16(ring->memory, available_event(ring), ring->next);
    if (ret < 0) {
        return ret;
    }
    atomic_thread_fence(memory_order_seq_cst);
    return waiting(ring);
}

int virtio_ring_peek(struct virtio_ring *ring, struct virtio_chain *chain)
{
    uint16_t head;
    int ret = waiting_or_notified(ring);

    if (ret <= 0) {
        return ret;
    }
    ret = viommu_memory_load16(ring->memory, available_entry(ring, ring->next), &head);
    if (ret < 0) {
        return ret;
    }
    if (head >= ring->size) {
        return -EBADMSG;
    }
    read_chain(ring, chain, head);
    return 1;
}

void virtio_ring_take(struct virtio_ring *ring)
{
    ring->next++;
}

int virtio_ring_return(struct virtio_ring *ring, uint16_t head, uint32_t length)
{
    const struct vring_used_elem entry = {.id = htole32(head), .len = htole32(length)};
    int ret =
        viommu_memory_write(ring->memory, used_entry(ring, ring->returned), &entry, sizeof(entry));

    if (ret < 0) {
        return ret;
    }
    ring->returned++;
    /* The index tells the driver of the entry, and of what the chain holds now: a release. */
    return viommu_memory_store16(ring->memory, ring->used + RING_INDEX, ring->returned);
}

int virtio_ring_wants_interrupt(struct virtio_ring *ring)
{
    uint16_t before = ring->told, word;
    int ret;

    if (before == ring->returned) {
        return 0;
    }
    atomic_thread_fence(memory_order_seq_cst);
    ring->told = ring->returned;
    if (!ring->event_index) {
        ret = viommu_memory_load16(ring->memory, ring->available + RING_FLAGS, &word);
        return ret < 0 ? ret : !(word & VRING_AVAIL_F_NO_INTERRUPT);
    }
    ret = viommu_memory_load16(ring->memory, used_event(ring), &word);
    return ret < 0 ? ret : vring_need_event(word, ring->returned, before);
}

/* ---- what chains lead to ---- */

int virtio_chain_read(const struct virtio_ring *ring, const struct virtio_chain *chain, void *data,
                      size_t size)
{
    uint8_t *bytes = data;
    int ret = size > chain->readable_bytes ? -EINVAL : 0;

    for (unsigned i = 0; ret == 0 && size > 0; i++) {
        const struct virtio_segment *segment = &chain->segments[i];
        size_t n = size < segment->length ? size : segment->length;

        ret = viommu_memory_read(ring->memory, segment->gpa, bytes, n);
        bytes += n;
        size -= n;
    }
    return ret;
}

int virtio_chain_write(const struct virtio_ring *ring, const struct virtio_chain *chain,
                       const void *data, size_t size)
{
    const uint8_t *bytes = data;
    int ret = size > chain->writable_bytes ? -EINVAL : 0;

    for (unsigned i = chain->readable; ret == 0 && size > 0; i++) {
        const struct virtio_segment *segment = &chain->segments[i];
        size_t n = size < segment->length ? size : segment->length;

        ret = viommu_memory_write(ring->memory, segment->gpa, bytes, n);
        bytes += n;
        size -= n;
    }
    return ret;
}
