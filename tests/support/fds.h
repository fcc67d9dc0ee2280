/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Descriptors, for tests and fuzz targets: how many there are, a message that brings some, and a
 * host that has none left.
 */
#ifndef VIOMMU_TESTS_SUPPORT_FDS_H
#define VIOMMU_TESTS_SUPPORT_FDS_H

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    SUPPORT_FDS_MAX = 64, /* with one message */
};

/* How many this process has open; the one that is needed to look counts, each time. */
static inline unsigned support_open_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    unsigned n = 0;

    if (!dir) {
        abort();
    }
    while (readdir(dir)) {
        n++;
    }
    closedir(dir);
    return n;
}

/* So many descriptors at most, as numbers; 0: as many as at first. */
static inline void support_limit_fds(rlim_t most)
{
    static struct rlimit usual;
    struct rlimit limit;

    if (usual.rlim_cur == 0 && getrlimit(RLIMIT_NOFILE, &usual) < 0) {
        abort();
    }
    limit = usual;
    if (most > 0) {
        limit.rlim_cur = most;
    }
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0) {
        abort();
    }
}

/* From now on there are so many left; `fd` is any that is open. */
static inline void support_starve_fds(int fd, unsigned left)
{
    int lowest = fcntl(fd, F_DUPFD, 0);

    if (lowest < 0 || close(lowest) < 0) {
        abort();
    }
    support_limit_fds((rlim_t)lowest + left);
}

/* As many as ever. */
static inline void support_feed_fds(void)
{
    support_limit_fds(0);
}

/* Sends bytes, with descriptors at the first of them, without waiting. Returns what sendmsg
   does. */
static inline ssize_t support_send_fds(int fd, const void *data, size_t size, const int *fds,
                                       unsigned n_fds)
{
    union {
        char room[CMSG_SPACE(SUPPORT_FDS_MAX * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec iov = {.iov_base = (void *)data, .iov_len = size};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    if (n_fds > SUPPORT_FDS_MAX) {
        abort();
    }
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
    return sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

#endif
