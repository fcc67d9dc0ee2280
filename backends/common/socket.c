/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads and writes of a socket; see socket.h. */
#include "common/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

enum { PASS_PIDFD = 76, PASS_RIGHTS = 83 }; /* SO_..., which older headers have not */

int socket_begin(int fd)
{
    static const int told[] = {
        SO_PASSCRED,
        SO_PASSSEC,
        PASS_PIDFD,
    };
    const int no = 0;
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
        return -errno;
    }
    for (unsigned i = 0; i < sizeof(told) / sizeof(told[0]); i++) {
        /* Where there is such a thing. */
        (void)setsockopt(fd, SOL_SOCKET, told[i], &no, sizeof(no));
    }
    return 0;
}

void socket_refuse_fds(int fd)
{
    const int no = 0;

    (void)setsockopt(fd, SOL_SOCKET, PASS_RIGHTS, &no, sizeof(no));
}

ssize_t socket_send(int fd, struct iovec *iov, int n_iov, const int *fds, unsigned n_fds)
{
    union {
        char room[CMSG_SPACE(SOCKET_FDS_MAX * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)n_iov};
    ssize_t n;

    if (n_fds > 0) {
        struct cmsghdr *cmsg;

        memset(&control, 0, sizeof(control));
        msg.msg_control = control.room;
        msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        cmsg = CMSG_FIRSTHDR(&msg);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(cmsg), fds, n_fds * sizeof(int));
    }
    do {
        n = sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return errno == EAGAIN ? 0 : -errno;
    }
    return n;
}

/* Adds those of one control message. */
static void take(struct socket_fds *fds, const struct cmsghdr *cmsg)
{
    size_t n = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);

    memcpy(fds->fds + fds->count, CMSG_DATA(cmsg), n * sizeof(int));
    fds->count += (unsigned)n;
}

ssize_t socket_receive(int fd, void *data, size_t size, struct socket_fds *fds, unsigned fds_room)
{
    union {
        char room[CMSG_SPACE(SOCKET_FDS_IN_MAX * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec iov = {.iov_base = data, .iov_len = size};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = fds_room > 0 ? control.room : NULL,
        .msg_controllen = fds_room > 0 ? CMSG_SPACE(fds_room * sizeof(int)) : 0,
    };
    ssize_t n;

    fds->count = 0;
    fds->lost = false;
    do {
        n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return errno == EAGAIN ? 0 : -errno;
    }
    for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg); cmsg; cmsg = CMSG_NXTHDR(&msg, cmsg)) {
        if (cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS) {
            take(fds, cmsg);
        }
    }
    fds->lost = msg.msg_flags & MSG_CTRUNC;
    return n == 0 ? -ECONNRESET : n;
}
