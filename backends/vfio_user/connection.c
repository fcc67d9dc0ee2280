/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Framing of vfio-user messages; connection.h describes the data and its invariants.
 */
#include "connection.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/alloc.h"
#include "common/foreign.h"
#include "common/socket.h"

enum {
    /* Room for payloads is grown in one step to at least this. */
    PAYLOAD_ROOM_MIN = 4096,
    /* A payload room larger than this is given back after the message. */
    PAYLOAD_ROOM_KEEP = 65536,
    /* Control room for more descriptors than are allowed, so that a few too many are seen and
     * closed by us; beyond that the kernel drops them and says MSG_CTRUNC. */
    CONTROL_FDS = VFIO_USER_MAX_FDS * 2,
};

int vfio_user_connection_init(struct vfio_user_connection *connection, int fd)
{
    int ret = socket_begin(fd);

    if (ret < 0) {
        return ret;
    }
    memset(connection, 0, sizeof(*connection));
    connection->fd = fd;
    return 0;
}

/* Forget the current message and close what came with it and was not taken. */
static void drop_message(struct vfio_user_connection *connection)
{
    for (unsigned i = 0; i < connection->n_fds; i++) {
        if (connection->fds[i] >= 0) {
            foreign_close(connection->fds[i]);
        }
    }
    connection->n_fds = 0;
    connection->fds_lost = false;
    connection->received = 0;
    connection->complete = false;
    if (connection->payload_room > PAYLOAD_ROOM_KEEP) {
        base_free(connection->payload);
        connection->payload = NULL;
        connection->payload_room = 0;
    }
}

void vfio_user_connection_fini(struct vfio_user_connection *connection)
{
    drop_message(connection);
    close(connection->fd);
    base_free(connection->payload);
    base_free(connection->output);
    memset(connection, 0, sizeof(*connection));
    connection->fd = -1;
}

/* One read of at most size bytes, as socket_receive; descriptors that are too many are closed. */
static ssize_t receive_bytes(struct vfio_user_connection *connection, void *data, size_t size)
{
    struct socket_fds came;
    ssize_t n = socket_receive(connection->fd, data, size, &came,
                               connection->no_fds || connection->fds_lost ? 0 : CONTROL_FDS);

    connection->fds_lost |= came.lost;
    for (unsigned i = 0; i < came.count; i++) {
        if (connection->n_fds < VFIO_USER_MAX_FDS) {
            connection->fds[connection->n_fds++] = came.fds[i];
        } else {
            foreign_close(came.fds[i]);
            connection->fds_lost = true;
        }
    }
    return n;
}

static int reserve_payload(struct vfio_user_connection *connection, size_t size)
{
    uint8_t *room;

    if (size <= connection->payload_room) {
        return 0;
    }
    if (size < PAYLOAD_ROOM_MIN) {
        size = PAYLOAD_ROOM_MIN;
    }
    room = base_realloc_array(NULL, size, 1);
    if (!room) {
        return -ENOMEM;
    }
    base_free(connection->payload);
    connection->payload = room;
    connection->payload_room = size;
    return 0;
}

/* Receive the header. Returns 1 when it is whole, 0 for "not now", or a negative errno. */
static int receive_header(struct vfio_user_connection *connection)
{
    while (connection->received < sizeof(connection->header)) {
        ssize_t n = receive_bytes(connection, (uint8_t *)&connection->header + connection->received,
                                  sizeof(connection->header) - connection->received);

        if (n <= 0) {
            return (int)n;
        }
        connection->received += (size_t)n;
    }
    return 1;
}

static int receive_payload(struct vfio_user_connection *connection)
{
    while (connection->received < connection->header.size) {
        size_t have = connection->received - sizeof(connection->header);
        ssize_t n = receive_bytes(connection, connection->payload + have,
                                  connection->header.size - connection->received);

        if (n <= 0) {
            return (int)n;
        }
        connection->received += (size_t)n;
    }
    return 1;
}

void vfio_user_connection_settle(struct vfio_user_connection *connection)
{
    if (connection->complete) {
        drop_message(connection);
    }
}

int vfio_user_connection_receive(struct vfio_user_connection *connection,
                                 struct vfio_user_message *message)
{
    int ret;

    memset(message, 0, sizeof(*message));
    vfio_user_connection_settle(connection);
    ret = receive_header(connection);
    if (ret <= 0) {
        return ret;
    }
    message->header = connection->header;
    if (connection->header.size < sizeof(connection->header) ||
        connection->header.size > sizeof(connection->header) + VFIO_USER_MAX_PAYLOAD) {
        return -EBADMSG;
    }
    ret = reserve_payload(connection, connection->header.size - sizeof(connection->header));
    if (ret < 0) {
        return ret;
    }
    ret = receive_payload(connection);
    if (ret <= 0) {
        return ret;
    }
    connection->complete = true;
    message->payload = connection->payload;
    message->payload_size = connection->header.size - sizeof(connection->header);
    message->fds = connection->fds;
    message->n_fds = connection->n_fds;
    message->fds_lost = connection->fds_lost;
    return 1;
}

/* Keep the bytes of iov[] from the skip-th on. */
static int keep_output(struct vfio_user_connection *connection, const struct iovec *iov, int n_iov,
                       size_t skip)
{
    size_t size = 0;

    for (int i = 0; i < n_iov; i++) {
        size += iov[i].iov_len;
    }
    size -= skip;
    if (connection->output_first > 0) {
        memmove(connection->output, connection->output + connection->output_first,
                connection->output_end - connection->output_first);
        connection->output_end -= connection->output_first;
        connection->output_first = 0;
    }
    if (size > connection->output_room - connection->output_end) {
        size_t room = connection->output_end + size;
        uint8_t *output = base_realloc_array(connection->output, room, 1);

        if (!output) {
            return -ENOMEM;
        }
        connection->output = output;
        connection->output_room = room;
    }
    for (int i = 0; i < n_iov; i++) {
        size_t n = iov[i].iov_len;
        size_t skipped = skip < n ? skip : n;

        skip -= skipped;
        if (n > skipped) {
            memcpy(connection->output + connection->output_end,
                   (const uint8_t *)iov[i].iov_base + skipped, n - skipped);
            connection->output_end += n - skipped;
        }
    }
    return 0;
}

int vfio_user_connection_send_fds(struct vfio_user_connection *connection,
                                  struct vfio_user_header header, const void *first,
                                  size_t first_size, const void *second, size_t second_size,
                                  const int *fds, unsigned n_fds)
{
    struct iovec iov[3] = {
        {.iov_base = &header, .iov_len = sizeof(header)},
        {.iov_base = (void *)first, .iov_len = first_size},
        {.iov_base = (void *)second, .iov_len = second_size},
    };
    size_t size = sizeof(header) + first_size + second_size;
    ssize_t sent = 0;

    if (n_fds > VFIO_USER_MAX_FDS) {
        return -EINVAL;
    }
    header.size = (uint32_t)size;
    if (!vfio_user_connection_pending(connection)) {
        sent = socket_send(connection->fd, iov, 3, fds, n_fds);
        if (sent < 0) {
            return (int)sent;
        }
    }
    if (sent == 0 && n_fds > 0) {
        return -EAGAIN;
    }
    return (size_t)sent == size ? 0 : keep_output(connection, iov, 3, (size_t)sent);
}

int vfio_user_connection_send(struct vfio_user_connection *connection,
                              struct vfio_user_header header, const void *first, size_t first_size,
                              const void *second, size_t second_size)
{
    return vfio_user_connection_send_fds(connection, header, first, first_size, second, second_size,
                                         NULL, 0);
}

int vfio_user_connection_flush(struct vfio_user_connection *connection)
{
    while (vfio_user_connection_pending(connection)) {
        struct iovec iov = {
            .iov_base = connection->output + connection->output_first,
            .iov_len = connection->output_end - connection->output_first,
        };
        ssize_t n = socket_send(connection->fd, &iov, 1, NULL, 0);

        if (n <= 0) {
            return (int)n;
        }
        connection->output_first += (size_t)n;
    }
    /* Nothing waits: give the room back, it is seldom needed. */
    base_free(connection->output);
    connection->output = NULL;
    connection->output_room = connection->output_first = connection->output_end = 0;
    return 0;
}

bool vfio_user_connection_pending(const struct vfio_user_connection *connection)
{
    return connection->output_end > connection->output_first;
}

bool vfio_user_connection_congested(const struct vfio_user_connection *connection)
{
    return connection->output_end - connection->output_first > VFIO_USER_OUTPUT_LIMIT;
}
