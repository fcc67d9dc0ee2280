/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vhost_echo_frames.c - what vhost-echo does with frames: they go from one ring to the other.
 *
 * A frame is looked up whole before it is touched: ring words, descriptors and buffers of both
 * rings. If anything is missing nothing was done, and the same is tried again when a message has
 * come.
 */
#include <linux/vhost_types.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vhost_echo.h"

enum {
    SEGMENTS = 64,
    FRAME_MAX = 65536 + 12,
    HEADER = 12, /* of virtio-net before each frame */
    BATCH = 64,
};

struct segment {
    uint8_t *at;
    uint32_t length;
};

struct chain {
    uint16_t head;
    unsigned count;
    uint32_t bytes;
    struct segment segments[SEGMENTS];
};

uint64_t echo_count;

static uint8_t *word(uint64_t iova, uint8_t perm)
{
    uint64_t length;

    return echo_look_up(iova, perm, &length);
}

static bool add_segment(struct chain *chain, const struct vring_desc *descriptor, uint8_t perm)
{
    uint64_t iova = descriptor->addr, left = descriptor->len, length;

    while (left > 0) {
        struct segment *segment = &chain->segments[chain->count];

        segment->at = echo_look_up(iova, perm, &length);
        if (!segment->at || chain->count + 1 == SEGMENTS) {
            return false;
        }
        segment->length = (uint32_t)(length < left ? length : left);
        chain->bytes += segment->length;
        iova += segment->length;
        left -= segment->length;
        chain->count++;
    }
    return true;
}

static bool get_descriptor(uint64_t table, unsigned at, struct vring_desc *descriptor)
{
    const uint8_t *place = word(table + sizeof(*descriptor) * at, VHOST_ACCESS_RO);

    if (place) {
        memcpy(descriptor, place, sizeof(*descriptor));
    }
    return place != NULL;
}

/* The descriptors of a chain, and where they lead. */
static bool gather(const struct echo_ring *ring, struct chain *chain, uint8_t perm)
{
    uint64_t table = ring->descriptors;
    struct vring_desc descriptor = {.next = chain->head, .flags = VRING_DESC_F_NEXT};
    unsigned size = ring->size, left = size;

    while (descriptor.flags & VRING_DESC_F_NEXT) {
        if (left-- == 0 || descriptor.next >= size) {
            echo_violation("a chain that makes no sense");
            return false;
        }
        if (!get_descriptor(table, descriptor.next, &descriptor)) {
            return false;
        }
        if (descriptor.flags & VRING_DESC_F_INDIRECT) {
            table = descriptor.addr;
            left = size = descriptor.len / sizeof(descriptor);
            descriptor = (struct vring_desc){.flags = VRING_DESC_F_NEXT};
        } else if (!add_segment(chain, &descriptor, perm)) {
            return false;
        }
    }
    return true;
}

/* The next chain of a ring, and everything that returning it will need. */
static bool peek(struct echo_ring *ring, struct chain *chain, uint8_t perm)
{
    const uint8_t *index = word(ring->available + 2, VHOST_ACCESS_RO), *entry;
    const uint8_t *used = word(ring->used + 2, VHOST_ACCESS_WO);
    uint64_t element = ring->used + 4 + 8 * (uint64_t)(ring->returned % ring->size);

    if (!index || !used) {
        return false;
    }
    if (!ring->placed) {
        memcpy(&ring->returned, used, 2);
        ring->placed = true;
        return peek(ring, chain, perm);
    }
    if (__atomic_load_n((const uint16_t *)index, __ATOMIC_ACQUIRE) == ring->next) {
        return false;
    }
    entry = word(ring->available + 4 + 2 * (uint64_t)(ring->next % ring->size), VHOST_ACCESS_RO);
    if (!entry || !word(element, VHOST_ACCESS_WO) || !word(element + 4, VHOST_ACCESS_WO) ||
        !word(ring->available, VHOST_ACCESS_RO)) {
        return false;
    }
    *chain = (struct chain){.count = 0};
    memcpy(&chain->head, entry, 2);
    return gather(ring, chain, perm);
}

/* All of it was found by peek. */
static void give_back(struct echo_ring *ring, const struct chain *chain, uint32_t length)
{
    uint64_t element = ring->used + 4 + 8 * (uint64_t)(ring->returned % ring->size);
    uint32_t head = chain->head;

    memcpy(word(element, VHOST_ACCESS_WO), &head, 4);
    memcpy(word(element + 4, VHOST_ACCESS_WO), &length, 4);
    ring->next++;
    ring->returned++;
    __atomic_store_n((uint16_t *)word(ring->used + 2, VHOST_ACCESS_WO), ring->returned,
                     __ATOMIC_RELEASE);
}

static void interrupt(struct echo_ring *ring)
{
    uint16_t flags;
    uint64_t one = 1;

    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    memcpy(&flags, word(ring->available, VHOST_ACCESS_RO), 2);
    if (!(flags & VRING_AVAIL_F_NO_INTERRUPT) && ring->call >= 0 &&
        write(ring->call, &one, sizeof(one)) < 0) {
        perror("call");
    }
}

/* Returns whether a frame went back. */
static bool echo_one(struct echo_ring *rings)
{
    static uint8_t frame[FRAME_MAX];
    static struct chain out, in;
    uint32_t size = 0, done = 0;

    if (!peek(&rings[1], &out, VHOST_ACCESS_RO) || !peek(&rings[0], &in, VHOST_ACCESS_WO)) {
        return false;
    }
    if (out.bytes > sizeof(frame) || out.bytes < HEADER || out.bytes > in.bytes) {
        give_back(&rings[1], &out, 0); /* too large to go back: it is dropped */
        return true;
    }
    for (unsigned i = 0; i < out.count; i++) {
        memcpy(frame + size, out.segments[i].at, out.segments[i].length);
        size += out.segments[i].length;
    }
    memset(frame, 0, HEADER);
    frame[10] = 1; /* buffers */
    for (unsigned i = 0; done < size; i++) {
        uint32_t part = in.segments[i].length < size - done ? in.segments[i].length : size - done;

        memcpy(in.segments[i].at, frame + done, part);
        done += part;
    }
    give_back(&rings[1], &out, 0);
    give_back(&rings[0], &in, size);
    echo_count++;
    return true;
}

bool echo_frames(struct echo_ring *rings)
{
    unsigned count = 0;

    for (unsigned i = 0; i < ECHO_RINGS; i++) {
        if (!rings[i].runs || !rings[i].enabled) {
            return false;
        }
    }
    while (count < BATCH && echo_one(rings)) {
        count++;
    }
    for (unsigned i = 0; count > 0 && i < ECHO_RINGS; i++) {
        interrupt(&rings[i]);
    }
    return count == BATCH;
}
