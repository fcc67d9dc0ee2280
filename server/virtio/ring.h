/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A split virtqueue, from the device's side (virtio 1.3, section 2.7), with indirect descriptors
 * and event indices where those were negotiated.
 *
 * The driver offers chains of descriptors; the device looks at the next one (_peek), takes it
 * (_take), and gives it back with a length (_return), now or later, in any order. A chain that was
 * looked at and not taken is looked at anew the next time.
 *
 * The rings are guest memory, which a hostile driver changes at any time. So each descriptor is
 * read once, into the chain; what the chain says then holds, whatever becomes of the memory.
 * Nothing that is there makes the device read or write outside of guest memory, or work without
 * end: a chain has no more descriptors than the queue has entries.
 *
 * What is wrong with one chain (a loop, a place outside of the table, an indirect table in another,
 * something to read after something to write) spoils that chain alone: it has no bytes, and goes
 * back with length 0, so that a driver which waits for it does not wait for ever. What is wrong
 * with the queue itself (an index that runs ahead, a head that is none, memory that is not there)
 * breaks it: -EBADMSG or what the memory says, and the driver has to reset the device.
 *
 * Threads: the server's one thread; the driver's are ordered against as section 2.7.13 wants it.
 */
#ifndef VIOMMU_SERVER_VIRTIO_RING_H
#define VIOMMU_SERVER_VIRTIO_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct viommu_memory;

enum {
    VIRTIO_RING_SIZE_MAX = 256, /* entries of a queue of ours */
};

struct virtio_ring {
    struct viommu_memory *memory;
    uint16_t size; /* always a power of two up to VIRTIO_RING_SIZE_MAX */
    /* What the driver has set; only good while the ring is enabled. */
    bool enabled;
    uint64_t descriptors; /* guest-physical addresses */
    uint64_t available;
    uint64_t used;
    /* What was negotiated. */
    bool indirect;
    bool event_index;
    /* Where the device is. */
    uint16_t next;     /* the next place in the available ring */
    uint16_t returned; /* how many were returned: the used index */
    uint16_t told;     /* the used index when an interrupt was last considered */
};

/* A stretch of guest memory; its length is not 0. */
struct virtio_segment {
    uint64_t gpa;
    uint32_t length;
};

struct virtio_chain {
    uint16_t head;
    bool spoilt;       /* it makes no sense, and has no segments */
    unsigned readable; /* segments that the driver wrote; they come first */
    unsigned count;    /* and all of them */
    uint64_t readable_bytes;
    uint64_t writable_bytes;
    struct virtio_segment segments[VIRTIO_RING_SIZE_MAX];
};

/* As after a reset of the device: not enabled, size and addresses as given. */
void virtio_ring_reset(struct virtio_ring *ring, uint16_t size);

/* Whether the driver's addresses are aligned and do not wrap. */
bool virtio_ring_is_sound(const struct virtio_ring *ring);

/*
 * Looks at the next chain. Returns 1; 0 when there is none: then the driver is asked to notify; or
 * a negative errno: the queue is broken.
 */
int virtio_ring_peek(struct virtio_ring *ring, struct virtio_chain *chain);

/* The chain that was looked at is the device's now. */
void virtio_ring_take(struct virtio_ring *ring);

/* Gives a chain back; `length` bytes from the beginning of what is writable were written. Returns 0
 * or a negative errno: the queue is broken. */
int virtio_ring_return(struct virtio_ring *ring, uint16_t head, uint32_t length);

/* After chains were returned: 1 when the driver wants an interrupt, 0 when not; or a negative
 * errno: the queue is broken. */
int virtio_ring_wants_interrupt(struct virtio_ring *ring);

/*
 * Copies `size` bytes out of what is readable, or into what is writable, from the beginning.
 * Returns 0; -EINVAL when there are not so many; or what the memory says: then some may have been
 * copied.
 */
int virtio_chain_read(const struct virtio_ring *ring, const struct virtio_chain *chain, void *data,
                      size_t size);
int virtio_chain_write(const struct virtio_ring *ring, const struct virtio_chain *chain,
                       const void *data, size_t size);

#endif
