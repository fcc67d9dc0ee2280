/* SPDX-License-Identifier: BSD-2-Clause */
/* The handover's socket; channel.h has what is said. */
#include "handover/channel.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "clock.h"
#include "unix_socket.h"

enum {
    BATCH_FDS = 253, /* the most that Linux takes in one message */
    RETRY_MS = 5,
};

static const char magic[8] = "viommuHO";

struct header {
    char magic[8];
    uint32_t version;
    uint32_t what;
    uint64_t size;
    uint32_t fds;
    uint32_t zero;
};
_Static_assert(sizeof(struct header) == 32, "no gaps");

uint64_t handover_deadline(unsigned ms)
{
    return clock_ms() + ms;
}

bool handover_trusts(int fd)
{
    struct ucred peer;
    socklen_t size = sizeof(peer);

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == geteuid();
}

int handover_listen(const char *path)
{
    return unix_socket_listen(path, 0600);
}

int handover_connect(const char *path)
{
    int fd = unix_socket_connect(path);

    if (fd >= 0 && !handover_trusts(fd)) {
        close(fd);
        return -EPERM;
    }
    return fd;
}

/* Waits until the socket may be read or written. Returns 0, -ETIMEDOUT, or a negative errno. */
static int wait_for(int fd, short events, uint64_t deadline)
{
    for (;;) {
        struct pollfd pollfd = {.fd = fd, .events = events};
        uint64_t now = clock_ms();
        int timeout = -1, n;

        if (deadline != HANDOVER_FOREVER) {
            if (now >= deadline) {
                return -ETIMEDOUT;
            }
            timeout = deadline - now < 60000 ? (int)(deadline - now) : 60000;
        }
        n = poll(&pollfd, 1, timeout);
        if (n > 0) {
            return 0;
        }
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
    }
}

/* Too many descriptors are on their way: the peer has to take some in first. */
static int wait_for_room(uint64_t deadline)
{
    if (clock_ms() >= deadline) {
        return -ETIMEDOUT;
    }
    poll(NULL, 0, RETRY_MS);
    return 0;
}

static int send_all(int fd, struct msghdr *msg, size_t size, uint64_t deadline)
{
    while (size > 0) {
        ssize_t n = sendmsg(fd, msg, MSG_NOSIGNAL | MSG_DONTWAIT);
        int ret = 0;

        if (n >= 0) {
            /* Descriptors went with the first byte. */
            msg->msg_control = NULL;
            msg->msg_controllen = 0;
            msg->msg_iov->iov_base = (uint8_t *)msg->msg_iov->iov_base + n;
            msg->msg_iov->iov_len -= (size_t)n;
            size -= (size_t)n;
        } else if (errno == EAGAIN) {
            ret = wait_for(fd, POLLOUT, deadline);
        } else if (errno == ETOOMANYREFS) {
            ret = wait_for_room(deadline);
        } else if (errno != EINTR) {
            ret = -errno;
        }
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

static int send_bytes(int fd, const void *data, size_t size, uint64_t deadline)
{
    struct iovec iov = {.iov_base = (void *)data, .iov_len = size};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    return send_all(fd, &msg, size, deadline);
}

static int send_batch(int fd, const int *fds, size_t count, uint64_t deadline)
{
    union {
        char room[CMSG_SPACE(BATCH_FDS * sizeof(int))];
        struct cmsghdr align;
    } control = {.room = {0}};
    char byte = '+';
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.room,
        .msg_controllen = CMSG_SPACE(count * sizeof(int)),
    };
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(cmsg), fds, count * sizeof(int));
    return send_all(fd, &msg, 1, deadline);
}

static size_t batch_size(size_t left)
{
    return left < BATCH_FDS ? left : BATCH_FDS;
}

int handover_send(int fd, enum handover_what what, const void *data, size_t size,
                  const struct handover_fds *fds, uint64_t deadline)
{
    size_t count = fds ? fds->count : 0;
    struct header header = {
        .version = HANDOVER_VERSION,
        .what = what,
        .size = size,
        .fds = (uint32_t)count,
    };
    int ret;

    memcpy(header.magic, magic, sizeof(magic));
    ret = send_bytes(fd, &header, sizeof(header), deadline);
    if (ret == 0) {
        ret = send_bytes(fd, data, size, deadline);
    }
    for (size_t i = 0; ret == 0 && i < count; i += BATCH_FDS) {
        ret = send_batch(fd, fds->fds + i, batch_size(count - i), deadline);
    }
    return ret;
}

/* Keep the descriptors of one control message. Those that are more than `most` are closed. */
static int keep_fds(const struct cmsghdr *cmsg, size_t most, struct handover_fds *fds)
{
    size_t n = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    int ret = 0;

    for (size_t i = 0; i < n; i++) {
        int fd;

        memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(fd));
        if (ret == 0 && fds->count >= most) {
            ret = -EPROTO;
        }
        if (ret == 0) {
            ret = handover_fds_add(fds, fd);
            ret = ret < 0 ? ret : 0;
        }
        if (ret < 0) {
            close(fd);
        }
    }
    return ret;
}

/* Receive bytes; descriptors that come along go into fds, up to `most` in all. */
static int receive_bytes(int fd, void *data, size_t size, struct handover_fds *fds, size_t most,
                         uint64_t deadline)
{
    union {
        char room[CMSG_SPACE(BATCH_FDS * sizeof(int))];
        struct cmsghdr align;
    } control;
    size_t done = 0;
    int ret = 0;

    while (ret == 0 && done < size) {
        struct iovec iov = {.iov_base = (uint8_t *)data + done, .iov_len = size - done};
        struct msghdr msg = {
            .msg_iov = &iov,
            .msg_iovlen = 1,
            .msg_control = control.room,
            .msg_controllen = sizeof(control.room),
        };
        ssize_t n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

        if (n < 0) {
            bool not_yet = errno == EAGAIN;

            ret = not_yet ? wait_for(fd, POLLIN, deadline) : errno == EINTR ? 0 : -errno;
            continue;
        }
        for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg); cmsg; cmsg = CMSG_NXTHDR(&msg, cmsg)) {
            /* A socket of this family brings nothing of another level, and descriptors once. */
            if (cmsg->cmsg_type == SCM_RIGHTS) {
                ret = keep_fds(cmsg, most, fds);
            }
        }
        if (ret == 0 && (msg.msg_flags & MSG_CTRUNC)) {
            ret = -EMFILE; /* this process may not have so many */
        } else if (ret == 0 && n == 0) {
            ret = -ECONNRESET;
        }
        done += (size_t)n;
    }
    return ret;
}

static int check_header(const struct header *header)
{
    if (memcmp(header->magic, magic, sizeof(magic)) != 0) {
        return -EPROTO;
    }
    if (header->version != HANDOVER_VERSION) {
        return -EPROTONOSUPPORT;
    }
    if (header->what < HANDOVER_HELLO || header->what > HANDOVER_GO || header->zero != 0 ||
        header->size > (header->what == HANDOVER_STATE ? HANDOVER_SIZE_MAX : HANDOVER_TEXT_MAX) ||
        header->fds > (header->what == HANDOVER_STATE ? HANDOVER_FDS_MAX : 0)) {
        return -EPROTO;
    }
    return 0;
}

static int receive_batches(int fd, struct handover_message *message, size_t count,
                           uint64_t deadline)
{
    int ret = 0;

    while (ret == 0 && message->fds.count < count) {
        size_t wanted = message->fds.count + batch_size(count - message->fds.count);
        char byte;

        ret = receive_bytes(fd, &byte, 1, &message->fds, wanted, deadline);
        if (ret == 0 && message->fds.count != wanted) {
            ret = -EPROTO;
        }
    }
    return ret;
}

int handover_receive(int fd, struct handover_message *message, uint64_t deadline)
{
    struct header header;
    int ret;

    memset(message, 0, sizeof(*message));
    ret = receive_bytes(fd, &header, sizeof(header), &message->fds, 0, deadline);
    if (ret == 0) {
        ret = check_header(&header);
    }
    if (ret == 0) {
        message->what = header.what;
        message->size = (size_t)header.size;
        message->data = malloc(message->size + 1);
        ret = message->data ? 0 : -ENOMEM;
    }
    if (ret == 0) {
        ret = receive_bytes(fd, message->data, message->size, &message->fds, 0, deadline);
    }
    if (ret == 0) {
        ((char *)message->data)[message->size] = '\0'; /* so that a text is one */
        ret = receive_batches(fd, message, header.fds, deadline);
    }
    if (ret < 0) {
        handover_message_fini(message);
    }
    return ret;
}

void handover_message_fini(struct handover_message *message)
{
    handover_fds_close(&message->fds);
    free(message->data);
    memset(message, 0, sizeof(*message));
}
