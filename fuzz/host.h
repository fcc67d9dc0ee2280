/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A host as an input wants it, for targets of code that waits and makes descriptors: what can be
 * made no more, who else reads, and what time it is. The functions here take the place of the C
 * library's, so one file of a program includes this.
 *
 * Time stands still until the input has it pass (host_wait and the like); then the timers whose
 * time has come fire. Only the monotonic clock is so: the fuzzer itself needs the others.
 */
#ifndef VIOMMU_FUZZ_HOST_H
#define VIOMMU_FUZZ_HOST_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
    HOST_FDS_MAX = 1024,
};

#define HOST_START UINT64_C(1000000000000) /* in nanoseconds, as all times here */

static unsigned host_left;                 /* until something cannot be made; 0: all can */
static bool host_signal_taken;             /* somebody takes the next signal, just before us */
static uint64_t host_now = HOST_START;     /* the time */
static uint64_t host_timers[HOST_FDS_MAX]; /* when that descriptor fires; 0: it does not */

static inline void host_reset(void)
{
    host_left = 0;
    host_signal_taken = false;
    host_now = HOST_START;
    memset(host_timers, 0, sizeof(host_timers));
}

static inline bool host_fails(int error)
{
    if (host_left == 0 || --host_left > 0) {
        return false;
    }
    errno = error;
    return true;
}

static inline void host_fire(int fd)
{
    const struct itimerspec at_once = {.it_value = {.tv_nsec = 1}};

    host_timers[fd] = 0;
    syscall(SYS_timerfd_settime, fd, 0, &at_once, NULL);
}

/* So much time passes. */
static inline void host_wait(uint64_t ns)
{
    host_now += ns;
    for (int fd = 0; fd < HOST_FDS_MAX; fd++) {
        if (host_timers[fd] != 0 && host_timers[fd] <= host_now) {
            host_fire(fd);
        }
    }
}

/* Time passes until the next timer fires, if any is set. */
static inline void host_wait_for_any(void)
{
    uint64_t next = 0;

    for (int fd = 0; fd < HOST_FDS_MAX; fd++) {
        if (host_timers[fd] != 0 && (next == 0 || host_timers[fd] < next)) {
            next = host_timers[fd];
        }
    }
    host_wait(next > host_now ? next - host_now : 0);
}

/* Time passes until this timer fires, if it is set. */
static inline void host_wait_for(int fd)
{
    if (fd >= 0 && fd < HOST_FDS_MAX && host_timers[fd] > host_now) {
        host_wait(host_timers[fd] - host_now);
    }
}

int eventfd(unsigned count, int flags)
{
    return host_fails(EMFILE) ? -1 : (int)syscall(SYS_eventfd2, count, flags);
}

int timerfd_create(clockid_t clock, int flags)
{
    int fd = host_fails(EMFILE) ? -1 : (int)syscall(SYS_timerfd_create, clock, flags);

    if (fd >= 0 && fd < HOST_FDS_MAX) {
        host_timers[fd] = 0; /* of one that had the number before */
    }
    return fd;
}

int timerfd_settime(int fd, int flags, const struct itimerspec *to, struct itimerspec *from)
{
    const struct itimerspec never = {.it_value = {.tv_nsec = 0}};
    uint64_t at = (uint64_t)to->it_value.tv_sec * 1000000000 + (uint64_t)to->it_value.tv_nsec;

    (void)from;
    if (fd < 0 || fd >= HOST_FDS_MAX) {
        errno = EBADF;
        return -1;
    }
    host_timers[fd] = at != 0 && !(flags & TFD_TIMER_ABSTIME) ? host_now + at : at;
    if (at != 0 && host_timers[fd] <= host_now) {
        host_fire(fd);
        return 0;
    }
    return (int)syscall(SYS_timerfd_settime, fd, 0, &never, NULL);
}

int epoll_ctl(int epoll, int what, int fd, struct epoll_event *event)
{
    return what == EPOLL_CTL_ADD && host_fails(ENOSPC)
               ? -1
               : (int)syscall(SYS_epoll_ctl, epoll, what, fd, event);
}

ssize_t preadv2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    if (host_signal_taken) {
        host_signal_taken = false;
        errno = EAGAIN;
        return -1;
    }
    return syscall(SYS_preadv2, fd, iov, (long)count, (long)offset, 0L, (long)flags);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    if (clock != CLOCK_MONOTONIC) {
        return (int)syscall(SYS_clock_gettime, clock, now);
    }
    now->tv_sec = (time_t)(host_now / 1000000000);
    now->tv_nsec = (long)(host_now % 1000000000);
    return 0;
}

#endif
