/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Functions of the C library's, for the test of who calls them: time that goes by at the test's
 * word, and watches that cannot be made. Only for net_test.c.
 */
#ifndef VIOMMU_SERVER_VIRTIO_TEST_HOST_H
#define VIOMMU_SERVER_VIRTIO_TEST_HOST_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static time_t ahead; /* seconds that went by unnoticed */
static bool no_watches;

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int ret = (int)syscall(SYS_clock_gettime, clock, now);

    now->tv_sec += ahead;
    return ret;
}

int epoll_ctl(int epoll, int what, int fd, struct epoll_event *event)
{
    if (no_watches && what == EPOLL_CTL_ADD) {
        errno = ENOSPC;
        return -1;
    }
    return (int)syscall(SYS_epoll_ctl, epoll, what, fd, event);
}

#endif
