/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Requests to a client over its twin socket; client_dma.h says what they are.
 */
#include "client_dma.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../clock.h"

int vfio_user_client_dma_open(struct vfio_user_client_dma *dma, uint64_t transfer_max, int *theirs)
{
    int pair[2], ret;

    if (transfer_max == 0) {
        return -ENOTSUP;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        return -errno;
    }
    memset(dma, 0, sizeof(*dma));
    ret = vfio_user_connection_init(&dma->connection, pair[0]);
    if (ret < 0) {
        close(pair[0]);
        close(pair[1]);
        return ret;
    }
    dma->transfer_max = transfer_max < VFIO_USER_MAX_DATA ? (size_t)transfer_max
                                                          : VFIO_USER_MAX_DATA;
    dma->open = true;
    *theirs = pair[1];
    return 0;
}

void vfio_user_client_dma_close(struct vfio_user_client_dma *dma)
{
    if (dma->open) {
        vfio_user_connection_fini(&dma->connection);
    }
    memset(dma, 0, sizeof(*dma));
}

static int give_up(struct vfio_user_client_dma *dma, int error)
{
    if (dma->error == 0) {
        dma->error = error;
    }
    return error;
}

/* Wait until the socket can do what is next, or the time is over. */
static int wait_for_socket(const struct vfio_user_connection *connection, uint64_t deadline_ms)
{
    struct pollfd poll_fd = {
        .fd = connection->fd,
        .events = (short)(POLLIN | (vfio_user_connection_pending(connection) ? POLLOUT : 0)),
    };
    uint64_t now = clock_ms(), left = now < deadline_ms ? deadline_ms - now : 0;
    int ret = left == 0 ? 0 : poll(&poll_fd, 1, left < INT16_MAX ? (int)left : INT16_MAX);

    if (ret < 0) {
        return errno == EINTR ? 0 : -errno;
    }
    return ret == 0 && clock_ms() >= deadline_ms ? -ETIMEDOUT : 0;
}

/* The next message, once all that waited to be sent has been. */
static int await_message(struct vfio_user_connection *connection, uint64_t deadline_ms,
                         struct vfio_user_message *message)
{
    int ret = 0;

    connection->no_fds = true; /* none comes with an answer */
    while (ret == 0) {
        ret = vfio_user_connection_flush(connection);
        if (ret == 0) {
            ret = vfio_user_connection_receive(connection, message);
        }
        if (ret == 0) {
            ret = wait_for_socket(connection, deadline_ms);
        }
    }
    return ret < 0 ? ret : 0;
}

/* Is it the answer to this request, with exactly the data that was asked for? Returns 0, -EFAULT
 * for a refusal, or -EPROTO. */
static int check_answer(const struct vfio_user_header *asked,
                        const struct vfio_user_dma_access *access,
                        const struct vfio_user_message *message)
{
    const struct vfio_user_header *header = &message->header;
    size_t data = asked->command == VFIO_USER_DMA_READ ? (size_t)access->count : 0;

    if (header->id != asked->id || header->command != asked->command ||
        (header->flags & VFIO_USER_TYPE_MASK) != VFIO_USER_TYPE_REPLY) {
        return -EPROTO;
    }
    if (header->flags & VFIO_USER_ERROR) {
        return -EFAULT;
    }
    if (message->payload_size != sizeof(*access) + data ||
        memcmp(message->payload, access, sizeof(*access)) != 0) {
        return -EPROTO;
    }
    return 0;
}

/* One message and its answer. */
static int ask(struct vfio_user_client_dma *dma, uint16_t command,
               const struct vfio_user_dma_access *access, void *data, uint64_t deadline_ms)
{
    const bool reads = command == VFIO_USER_DMA_READ;
    const struct vfio_user_header header = {
        .id = dma->next_id++,
        .command = command,
        .flags = VFIO_USER_TYPE_COMMAND,
    };
    struct vfio_user_message message;
    int ret = vfio_user_connection_send(&dma->connection, header, access, sizeof(*access),
                                        reads ? NULL : data, reads ? 0 : (size_t)access->count);

    if (ret == 0) {
        ret = await_message(&dma->connection, deadline_ms, &message);
    }
    if (ret < 0) {
        return give_up(dma, ret == -EBADMSG ? -EPROTO : ret);
    }
    ret = check_answer(&header, access, &message);
    if (ret == 0 && reads) {
        memcpy(data, message.payload + sizeof(*access), (size_t)access->count);
    }
    vfio_user_connection_settle(&dma->connection);
    if (ret == -EFAULT) {
        dma->refused++;
    } else if (ret < 0) {
        give_up(dma, ret);
    } else {
        dma->reads += reads;
        dma->writes += !reads;
    }
    return ret;
}

static int copy(struct vfio_user_client_dma *dma, uint16_t command, uint64_t address, uint8_t *data,
                size_t size, uint64_t deadline_ms)
{
    int ret = dma->open ? dma->error : -ENOTSUP;

    while (ret == 0 && size > 0) {
        const struct vfio_user_dma_access access = {
            .address = address,
            .count = size < dma->transfer_max ? size : dma->transfer_max,
        };

        ret = ask(dma, command, &access, data, deadline_ms);
        address += access.count;
        data += access.count;
        size -= (size_t)access.count;
    }
    return ret;
}

int vfio_user_client_dma_read(struct vfio_user_client_dma *dma, uint64_t address, void *data,
                              size_t size, uint64_t deadline_ms)
{
    return copy(dma, VFIO_USER_DMA_READ, address, data, size, deadline_ms);
}

int vfio_user_client_dma_write(struct vfio_user_client_dma *dma, uint64_t address, const void *data,
                               size_t size, uint64_t deadline_ms)
{
    return copy(dma, VFIO_USER_DMA_WRITE, address, (uint8_t *)data, size, deadline_ms);
}

int vfio_user_client_dma_post(struct vfio_user_client_dma *dma, uint64_t address, const void *data,
                              size_t size)
{
    const struct vfio_user_header header = {
        .id = dma->next_id,
        .command = VFIO_USER_DMA_WRITE,
        .flags = VFIO_USER_TYPE_COMMAND | VFIO_USER_NO_REPLY,
    };
    const struct vfio_user_dma_access access = {.address = address, .count = size};
    int ret = dma->open ? vfio_user_client_dma_flush(dma) : -ENOTSUP;

    if (ret < 0) {
        return ret;
    }
    if (vfio_user_connection_pending(&dma->connection)) {
        return -ENOBUFS;
    }
    dma->next_id++;
    ret = vfio_user_connection_send(&dma->connection, header, &access, sizeof(access), data, size);
    return ret < 0 ? give_up(dma, ret) : 0;
}

int vfio_user_client_dma_flush(struct vfio_user_client_dma *dma)
{
    int ret = dma->open ? dma->error : 0;

    if (ret == 0 && dma->open) {
        ret = vfio_user_connection_flush(&dma->connection);
    }
    return ret < 0 ? give_up(dma, ret) : 0;
}
