/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One vfio-user connection: messages in and out of a non-blocking Unix stream socket.
 *
 * Incoming: a receive asks the socket for what the current message still lacks and never for more,
 * so that file descriptors, which the kernel attaches to bytes, belong to the message they came
 * with. The message is assembled in memory of our own; what a handler sees cannot change under it.
 *
 * Outgoing: a message is written at once; what the socket does not take is kept and written when it
 * takes more. A peer that does not read its replies is not read either (see _congested), so the
 * kept bytes are bounded by VFIO_USER_OUTPUT_LIMIT and the largest single reply.
 *
 * Invariants: received <= sizeof header + payload size; n_fds <= VFIO_USER_MAX_FDS; each fd in
 * fds[] is ours to close. Nothing here blocks. One thread at a time.
 */
#ifndef VIOMMU_BACKENDS_VFIO_USER_CONNECTION_H
#define VIOMMU_BACKENDS_VFIO_USER_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol.h"

enum {
    /* With more than this waiting to be written, nothing more is read. */
    VFIO_USER_OUTPUT_LIMIT = 65536,
};

/* A complete message. The payload is valid until the next receive or fini on the connection. */
struct vfio_user_message {
    struct vfio_user_header header;
    const uint8_t *payload;
    size_t payload_size;
    int *fds; /* take one by replacing it with -1; the rest are closed */
    unsigned n_fds;
    bool fds_lost; /* more than VFIO_USER_MAX_FDS came, or the kernel could not hand them over */
};

struct vfio_user_connection {
    int fd;

    struct vfio_user_header header;
    uint8_t *payload;
    size_t payload_room;
    size_t received; /* bytes of the current message that are here, header included */
    bool complete;   /* the current message was handed out; the next receive drops it */
    bool no_fds;     /* there is no room for descriptors: the kernel drops what comes */
    bool fds_lost;
    unsigned n_fds;
    int fds[VFIO_USER_MAX_FDS];

    uint8_t *output;
    size_t output_room;
    size_t output_first; /* output[output_first .. output_end) waits to be written */
    size_t output_end;
};

/* Take over the socket fd and make it non-blocking. Returns 0 or a negative errno (fd is then still
 * the caller's). */
int vfio_user_connection_init(struct vfio_user_connection *connection, int fd);

/* Close the socket and everything received with it. */
void vfio_user_connection_fini(struct vfio_user_connection *connection);

/*
 * Receive. Returns 1 with a complete message; 0 when the rest of it has not come yet; -ECONNRESET
 * when the peer closed; -EBADMSG when the header's size cannot be (framing is lost: message->header
 * is set so that an error can be replied before the connection is closed); another negative errno
 * when the socket failed or memory was refused.
 */
int vfio_user_connection_receive(struct vfio_user_connection *connection,
                                 struct vfio_user_message *message);

/* Send a message whose payload is in two parts (either may be empty). header->size is filled in
 * here. Returns 0 (sent or kept) or a negative errno, after which the connection is to be closed.
 */
int vfio_user_connection_send(struct vfio_user_connection *connection,
                              struct vfio_user_header header, const void *first, size_t first_size,
                              const void *second, size_t second_size);

/* The same, with n_fds descriptors, which stay the caller's; none is kept: -EAGAIN, and nothing was
 * sent, when the socket does not take them now. */
int vfio_user_connection_send_fds(struct vfio_user_connection *connection,
                                  struct vfio_user_header header, const void *first,
                                  size_t first_size, const void *second, size_t second_size,
                                  const int *fds, unsigned n_fds);

/* Write what is kept. Returns 0 or a negative errno, after which the connection is to be closed. */
int vfio_user_connection_flush(struct vfio_user_connection *connection);

/* Drop a message that was handed out, with what came along and was not taken. */
void vfio_user_connection_settle(struct vfio_user_connection *connection);

/* Is anything waiting for the socket to become writable? */
bool vfio_user_connection_pending(const struct vfio_user_connection *connection);

/* Is so much waiting that no further command should be taken in? */
bool vfio_user_connection_congested(const struct vfio_user_connection *connection);

#endif
