/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One socket of a vhost-user connection: messages in and out, without ever waiting.
 *
 * In: what has come is read at once, as much as there is room for, and taken message by message. No
 * message that may come is longer than an IOTLB message, and none has descriptors: they are refused
 * where they are sent, or there is no room for them, and the peer is at fault.
 *
 * Out: a ring buffer of a fixed size. A write is of whole messages, and of so few bytes that the
 * socket takes all or none: there are peers that read a header, then what it announces, and leave
 * if that is not there at once (DPDK). What the socket does not take waits there; a message that
 * does not fit means that the peer does not read. Descriptors are copies, which are closed when
 * they have left; they go with the first byte of their message.
 *
 * Locking: the owner's.
 */
#ifndef VIOMMU_VHOST_CHANNEL_H
#define VIOMMU_VHOST_CHANNEL_H

#include "vhost/protocol.h"

#include <stdbool.h>
#include <stddef.h>

/* Messages with descriptors that can wait: those of every ring, and a few more. */
#define CHANNEL_PARCELS 160

/* Bytes of one read: what a far side answers to several messages is taken in at once. */
#define VHOST_CHANNEL_IN 1024

/* Descriptors that go with the byte at `at` of all that was ever put. */
struct vhost_parcel {
    uint64_t at;
    unsigned count;
    int fds[VHOST_USER_REGIONS_MAX];
};

struct vhost_channel {
    int fd; /* -1: none */

    uint8_t in[VHOST_CHANNEL_IN]; /* bytes that have come: [in_first, in_end) are not taken yet */
    size_t in_first;
    size_t in_end;
    bool in_drained;                 /* the last read got all that there was */
    struct vhost_user_header header; /* of what comes, or came */
    union {
        uint8_t bytes[VHOST_USER_PAYLOAD_IN_MAX];
        uint64_t number;
        struct vhost_vring_state state;
        struct vhost_iotlb_msg iotlb;
    } payload;
    size_t received; /* of header and payload */

    uint8_t *out;
    size_t room;   /* a power of two */
    uint64_t sent; /* bytes, ever */
    uint64_t put;
    uint64_t whole; /* where the messages end that are being sent; not before `sent` */
    struct vhost_parcel parcels[CHANNEL_PARCELS];
    unsigned parcel_first;
    unsigned parcel_count;
};

/* Takes `fd` over, which becomes non-blocking. Returns 0, -ENOMEM or the error of fcntl. */
int vhost_channel_init(struct vhost_channel *channel, int fd, size_t room);

/* Closes everything; one that is zeroed but for fd -1 is accepted. */
void vhost_channel_fini(struct vhost_channel *channel);

/*
 * Reads a message. Returns 1: header and payload are there, until the next call; 0: it has not come
 * yet, and the socket is readable when more does; -ECONNRESET: the peer left; -EPROTO: it sends
 * what cannot be; or the socket's error. Who does not call it until then has to come again by
 * itself: what has come may lie here, and the socket be empty.
 */
int vhost_channel_receive(struct vhost_channel *channel);

/*
 * Puts a message. The descriptors are copied. Returns 0, -ENOBUFS (no room), or an error of copying
 * descriptors; then nothing was put.
 */
int vhost_channel_put(struct vhost_channel *channel, uint32_t request, uint32_t flags,
                      const void *payload, size_t size, const int *fds, unsigned fd_count);

/* Sends what the socket takes. Returns 0 or the socket's error. */
int vhost_channel_flush(struct vhost_channel *channel);

/* Bytes that wait. */
static inline size_t vhost_channel_waiting(const struct vhost_channel *channel)
{
    return (size_t)(channel->put - channel->sent);
}

#endif
