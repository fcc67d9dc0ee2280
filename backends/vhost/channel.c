/* SPDX-License-Identifier: BSD-2-Clause */
/* Framing of vhost-user messages; channel.h describes the data. */
#include "vhost/channel.h"

#include "base/alloc.h"
#include "common/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

/* Bytes of one write. Of more the kernel may take a part, if a socket's buffer is its smallest. */
#define WRITE_MAX 2048u
_Static_assert((int)VHOST_USER_REGIONS_MAX <= SOCKET_FDS_MAX, "a write has room for all files");
_Static_assert(sizeof(struct vhost_user_header) + sizeof(struct vhost_user_memory) <= WRITE_MAX,
               "a write has room for every message");

int vhost_channel_init(struct vhost_channel *channel, int fd, size_t room)
{
    int ret = socket_begin(fd);

    if (ret) {
        return ret;
    }
    *channel = (struct vhost_channel){.fd = -1, .room = room};
    channel->out = base_alloc(room);
    if (!channel->out) {
        return -ENOMEM;
    }
    socket_refuse_fds(fd);
    channel->fd = fd;
    return 0;
}

static void close_fds(const int *fds, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        close(fds[i]);
    }
}

static void drop_parcel(struct vhost_channel *channel)
{
    struct vhost_parcel *parcel = &channel->parcels[channel->parcel_first];

    close_fds(parcel->fds, parcel->count);
    channel->parcel_first = (channel->parcel_first + 1) % CHANNEL_PARCELS;
    channel->parcel_count--;
}

void vhost_channel_fini(struct vhost_channel *channel)
{
    while (channel->parcel_count) {
        drop_parcel(channel);
    }
    if (channel->fd >= 0) {
        close(channel->fd);
    }
    base_free(channel->out);
    *channel = (struct vhost_channel){.fd = -1};
}

/* ---- in ---- */

/* Reads what there is, into an empty buffer. Returns as socket_receive; no descriptors may come,
 * and there is no room for any. */
static ssize_t fill(struct vhost_channel *channel)
{
    struct socket_fds came;
    ssize_t n = socket_receive(channel->fd, channel->in, sizeof(channel->in), &came, 0);

    if (came.lost) {
        return -EPROTO;
    }
    channel->in_first = 0;
    channel->in_end = n > 0 ? (size_t)n : 0;
    channel->in_drained = n < (ssize_t)sizeof(channel->in);
    return n;
}

/* Up to `size` bytes of what comes. Returns as socket_receive. */
static ssize_t receive_bytes(struct vhost_channel *channel, void *data, size_t size)
{
    size_t left = channel->in_end - channel->in_first;

    if (!left) {
        ssize_t n = channel->in_drained ? 0 : fill(channel);

        channel->in_drained = n > 0 && channel->in_drained; /* it is asked the next time */
        if (n <= 0) {
            return n;
        }
        left = channel->in_end;
    }
    size = size < left ? size : left;
    memcpy(data, channel->in + channel->in_first, size);
    channel->in_first += size;
    return (ssize_t)size;
}

int vhost_channel_receive(struct vhost_channel *channel)
{
    const size_t head = sizeof(channel->header);

    if (channel->received >= head && channel->received == head + channel->header.size) {
        channel->received = 0; /* the last one was taken */
    }
    while (channel->received < head || channel->received < head + channel->header.size) {
        size_t received = channel->received;
        bool in_head = received < head;
        uint8_t *to = in_head ? (uint8_t *)&channel->header + received
                              : channel->payload.bytes + (received - head);
        size_t size = (in_head ? head : head + channel->header.size) - received;
        ssize_t n = receive_bytes(channel, to, size);

        if (n <= 0) {
            return (int)n;
        }
        channel->received += (size_t)n;
        if (channel->received >= head && channel->header.size > VHOST_USER_PAYLOAD_IN_MAX) {
            return -EPROTO;
        }
    }
    return 1;
}

/* ---- out ---- */

static void put_bytes(struct vhost_channel *channel, const void *data, size_t size)
{
    size_t at = (size_t)channel->put & (channel->room - 1);
    size_t to_end = channel->room - at;
    size_t first = size < to_end ? size : to_end;

    if (size) {
        memcpy(channel->out + at, data, first);
        memcpy(channel->out, (const uint8_t *)data + first, size - first);
    }
    channel->put += size;
}

static int put_fds(struct vhost_channel *channel, const int *fds, unsigned count)
{
    unsigned i = (channel->parcel_first + channel->parcel_count) % CHANNEL_PARCELS;
    struct vhost_parcel *parcel = &channel->parcels[i];

    if (channel->parcel_count == CHANNEL_PARCELS) {
        return -ENOBUFS;
    }
    *parcel = (struct vhost_parcel){.at = channel->put};
    while (parcel->count < count) {
        int copy = fcntl(fds[parcel->count], F_DUPFD_CLOEXEC, 0);

        if (copy < 0) {
            int error = -errno;

            close_fds(parcel->fds, parcel->count);
            return error;
        }
        parcel->fds[parcel->count++] = copy;
    }
    channel->parcel_count++;
    return 0;
}

int vhost_channel_put(struct vhost_channel *channel, uint32_t request, uint32_t flags,
                      const void *payload, size_t size, const int *fds, unsigned fd_count)
{
    struct vhost_user_header header = {
        .request = request,
        .flags = flags | VHOST_USER_VERSION,
        .size = (uint32_t)size,
    };

    if (sizeof(header) + size > channel->room - vhost_channel_waiting(channel)) {
        return -ENOBUFS;
    }
    if (fd_count) {
        int ret = put_fds(channel, fds, fd_count);

        if (ret) {
            return ret;
        }
    }
    put_bytes(channel, &header, sizeof(header));
    put_bytes(channel, payload, size);
    return 0;
}

/* What was put at `at`, as a header. */
static struct vhost_user_header header_at(const struct vhost_channel *channel, uint64_t at)
{
    struct vhost_user_header header;

    for (size_t i = 0; i < sizeof(header); i++) {
        ((uint8_t *)&header)[i] = channel->out[(size_t)(at + i) & (channel->room - 1)];
    }
    return header;
}

/* Where a write that begins at a message ends, which is before `end` or there. */
static uint64_t whole_messages(const struct vhost_channel *channel, uint64_t end)
{
    uint64_t at = channel->sent;

    while (at < end) {
        uint64_t next = at + sizeof(struct vhost_user_header) + header_at(channel, at).size;

        if (at > channel->sent && next - channel->sent > WRITE_MAX) {
            break;
        }
        at = next;
    }
    return at;
}

/*
 * One write: whole messages, up to the next one with descriptors, which are sent with what follows
 * them.
 */
static ssize_t send_some(struct vhost_channel *channel)
{
    const struct vhost_parcel *parcel = NULL;
    uint64_t end = channel->put;
    size_t at = (size_t)channel->sent & (channel->room - 1);
    struct iovec iov[2] = {{.iov_base = channel->out + at}, {.iov_base = channel->out}};
    unsigned next = channel->parcel_first;
    size_t size;
    ssize_t n;

    if (channel->parcel_count && channel->parcels[next].at == channel->sent) {
        parcel = &channel->parcels[next];
        next = (next + 1) % CHANNEL_PARCELS;
    }
    if (channel->parcel_count > (parcel ? 1u : 0u)) {
        end = channel->parcels[next].at;
    }
    if (channel->sent == channel->whole) {
        channel->whole = whole_messages(channel, end);
    }
    size = (size_t)(channel->whole - channel->sent);
    iov[0].iov_len = size < channel->room - at ? size : channel->room - at;
    iov[1].iov_len = size - iov[0].iov_len;
    n = socket_send(channel->fd, iov, 2, parcel ? parcel->fds : NULL, parcel ? parcel->count : 0);
    if (n > 0 && parcel) {
        drop_parcel(channel);
    }
    return n;
}

int vhost_channel_flush(struct vhost_channel *channel)
{
    while (vhost_channel_waiting(channel)) {
        ssize_t n = send_some(channel);

        if (n <= 0) {
            return (int)n;
        }
        channel->sent += (size_t)n;
    }
    return 0;
}
