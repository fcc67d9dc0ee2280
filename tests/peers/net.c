/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The driver of net.h. A descriptor's number is the first that is free; chains are one long.
 */
#include "net.h"

#include "guest.h"

#include <endian.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { WRITE_ONLY = 2, ETHERNET = 14 };

static void note_wrong(struct net *net, const char *what, uint64_t a, uint64_t b)
{
    if (!net->wrong[0]) {
        snprintf(net->wrong, sizeof(net->wrong), "%s: %#llx, %#llx", what, (unsigned long long)a,
                 (unsigned long long)b);
    }
}

void net_init(struct net *net)
{
    memset(net, 0, sizeof(*net));
    for (unsigned i = 0; i < 2; i++) {
        net->rings[i].kick = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        net->rings[i].call = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        if (net->rings[i].kick < 0 || net->rings[i].call < 0) {
            guest_die("eventfd: %s", strerror(errno));
        }
    }
}

void net_fini(struct net *net)
{
    for (unsigned i = 0; i < 2; i++) {
        close(net->rings[i].kick);
        close(net->rings[i].call);
    }
}

static void store(uint8_t *at, uint64_t value, unsigned bytes)
{
    value = htole64(value);
    memcpy(at, &value, bytes);
}

static uint64_t load(const uint8_t *at, unsigned bytes)
{
    uint64_t value = 0;

    memcpy(&value, at, bytes);
    return le64toh(value);
}

static void lend(struct net_ring *ring, const struct net_buffer *buffer, unsigned flags)
{
    unsigned number = 0;
    uint8_t *descriptor;

    while (number < NET_RING && ring->is_lent[number]) {
        number++;
    }
    if (number == NET_RING) {
        guest_die("a ring is full");
    }
    ring->is_lent[number] = true;
    ring->lent[number] = *buffer;
    ring->lent_count++;
    descriptor = ring->descriptors + number * 16;
    store(descriptor, buffer->iova + buffer->offset, 8);
    store(descriptor + 8, buffer->length, 4);
    store(descriptor + 12, flags, 2);
    store(descriptor + 14, 0, 2);
    store(ring->available + 4 + ring->available_index % NET_RING * 2, number, 2);
    ring->available_index++;
    atomic_store_explicit((_Atomic uint16_t *)(void *)(ring->available + 2),
                          htole16(ring->available_index), memory_order_release);
}

void net_receive_into(struct net *net, const struct net_buffer *buffer)
{
    lend(&net->rings[0], buffer, WRITE_ONLY);
}

/* The bytes of a frame: addresses, type, number, and what follows from it. */
static uint8_t byte_of(uint64_t number, unsigned at)
{
    return (uint8_t)((number * 0x9e3779b97f4a7c15ull >> (at % 8 * 8)) + at);
}

void net_send(struct net *net, const struct net_buffer *buffer)
{
    static const uint8_t start[ETHERNET] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5};
    uint8_t *at = buffer->host + buffer->offset;
    uint64_t number = net->sent++;

    memset(at, 0, NET_HEADER);
    at += NET_HEADER;
    memcpy(at, start, ETHERNET);
    store(at + ETHERNET, number, 8);
    for (unsigned i = ETHERNET + 8; i + NET_HEADER < buffer->length; i++) {
        at[i] = byte_of(number, i);
    }
    lend(&net->rings[1], buffer, 0);
}

void net_kick(struct net *net, unsigned ring)
{
    uint64_t one = 1;

    if (write(net->rings[ring].kick, &one, sizeof(one)) != sizeof(one) && errno != EAGAIN) {
        guest_die("eventfd: %s", strerror(errno));
    }
}

static void check_frame(struct net *net, const struct net_buffer *buffer, uint32_t length)
{
    const uint8_t *at = buffer->host + buffer->offset + NET_HEADER;
    uint64_t number;

    if (length < NET_HEADER + NET_FRAME_MIN || length > buffer->length) {
        note_wrong(net, "a frame's length", length, buffer->length);
        return;
    }
    number = load(at + ETHERNET, 8);
    if (number < net->expected || number >= net->sent ||
        (number > net->expected && !net->may_lose)) {
        note_wrong(net, "a frame's number", number, net->expected);
        return;
    }
    for (unsigned i = ETHERNET + 8; i + NET_HEADER < length; i++) {
        if (at[i] != byte_of(number, i)) {
            note_wrong(net, "a frame's byte, its number", i, number);
            return;
        }
    }
    if (number > net->expected) {
        net->lost += number - net->expected;
    }
    net->expected = number + 1;
    net->received++;
}

bool net_take_back(struct net *net, unsigned which, struct net_buffer *buffer)
{
    struct net_ring *ring = &net->rings[which];
    uint16_t index = le16toh(atomic_load_explicit(
        (_Atomic uint16_t *)(void *)(ring->used + 2), memory_order_acquire));
    const uint8_t *element = ring->used + 4 + ring->used_index % NET_RING * 8;
    uint64_t number;

    if (index == ring->used_index) {
        return false;
    }
    number = load(element, 4);
    if (number >= NET_RING || !ring->is_lent[number]) {
        note_wrong(net, "a used descriptor", number, ring->used_index);
        return false;
    }
    ring->used_index++;
    ring->is_lent[number] = false;
    ring->lent_count--;
    *buffer = ring->lent[number];
    if (which == 0) {
        check_frame(net, buffer, (uint32_t)load(element + 4, 4));
    }
    return true;
}
