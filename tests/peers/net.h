/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The driver of a virtio network device, as a guest has one: a receive and a transmit ring, whose
 * addresses and buffers are device addresses (virtio 1.x, split rings).
 *
 * A buffer lies in one page. Pages are lent: who gives one is told when the device is done with it.
 * Frames carry a number, and bytes that follow from it; what comes back is checked byte for byte.
 *
 * Threads: one at a time.
 */
#ifndef PEERS_NET_H
#define PEERS_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    NET_RING = 256, /* descriptors: each of a ring's three parts fits in a page */
    NET_HEADER = 12,
    NET_FRAME_MIN = 64,
    NET_FRAME_MAX = 1500,
};

/* A page that is lent to the device. */
struct net_buffer {
    uint64_t iova;
    uint8_t *host;
    uint16_t offset; /* in the page, of the buffer */
    uint16_t length;
    void *owner;
};

struct net_ring {
    uint8_t *descriptors; /* where they are in this process; change when a ring is moved */
    uint8_t *available;
    uint8_t *used;
    int kick;
    int call;
    uint16_t available_index;
    uint16_t used_index;
    struct net_buffer lent[NET_RING];
    bool is_lent[NET_RING];
    unsigned lent_count;
};

struct net {
    struct net_ring rings[2]; /* receive, transmit */
    uint64_t sent;            /* number of the next frame */
    uint64_t expected;        /* number of the frame that comes back next */
    uint64_t received;
    uint64_t lost;  /* frames that were left out, where that is allowed */
    bool may_lose;  /* since the far side crashed */
    char wrong[200]; /* the first thing that was wrong; empty: nothing */
};

void net_init(struct net *net);
void net_fini(struct net *net);

/* Lends a page: to receive into, or with the next frame written into it, `length` bytes in all. */
void net_receive_into(struct net *net, const struct net_buffer *buffer);
void net_send(struct net *net, const struct net_buffer *buffer);
/* Tells the device that there is something. */
void net_kick(struct net *net, unsigned ring);
/* A page that the device is done with; false: none. A received frame is checked. */
bool net_take_back(struct net *net, unsigned ring, struct net_buffer *buffer);

#endif
