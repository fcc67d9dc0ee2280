/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the host's kernel answers to the vhost target: its calls fail where the input says so, and
 * the ioctls of a vhost device are played. Instead of the C library's functions; one fault at a
 * time.
 *
 * The monotonic clock is the target's where `virtual_time` is not NULL.
 */
#ifndef VIOMMU_FUZZ_VHOST_FAULTS_H
#define VIOMMU_FUZZ_VHOST_FAULTS_H

#include <errno.h>
#include <fcntl.h>
#include <linux/vhost.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum fault_call {
    FAULT_NONE,
    FAULT_FCNTL,
    FAULT_EPOLL_CREATE,
    FAULT_EPOLL_CTL,
    FAULT_SOCKETPAIR,
    FAULT_SENDMSG,
    FAULT_RECVMSG,
    FAULT_READ,
    FAULT_WRITE,
    FAULT_FSTAT,
    FAULT_GET_FEATURES,
    FAULT_SET_FEATURES,
    FAULT_CALLS,
};

static struct {
    enum fault_call call;
    unsigned left; /* it is the n-th of these that fails, once; 0: none */
    uint8_t how;
} fault;

static bool fault_shortened; /* a message may have left by halves */
static const uint64_t *virtual_time;

/* Whether the call fails; errno says why. */
static inline bool fault_now(enum fault_call call)
{
    static const int errors[] = {EINTR, ENOMEM, EMFILE, EAGAIN, EIO, ECONNRESET};

    if (fault.call != call || !fault.left || --fault.left) {
        return false;
    }
    errno = errors[fault.how % (sizeof(errors) / sizeof(errors[0]))];
    return true;
}

static inline void fault_set(unsigned call, unsigned left, uint8_t how)
{
    fault.call = (enum fault_call)(call % FAULT_CALLS);
    fault.left = left;
    fault.how = how;
}

/* Of its own are what `how` says above 127: not all is done, and it is no error. */
static inline bool fault_is_short(void)
{
    return fault.how & 0x80;
}

int fcntl(int fd, int command, ...)
{
    va_list arguments;
    long argument;

    va_start(arguments, command);
    argument = va_arg(arguments, long);
    va_end(arguments);
    return fault_now(FAULT_FCNTL) ? -1 : (int)syscall(SYS_fcntl, fd, command, argument);
}

int epoll_create1(int flags)
{
    return fault_now(FAULT_EPOLL_CREATE) ? -1 : (int)syscall(SYS_epoll_create1, flags);
}

int epoll_ctl(int poll_fd, int operation, int fd, struct epoll_event *event)
{
    return fault_now(FAULT_EPOLL_CTL) ? -1
                                      : (int)syscall(SYS_epoll_ctl, poll_fd, operation, fd, event);
}

int socketpair(int domain, int type, int protocol, int ends[2])
{
    return fault_now(FAULT_SOCKETPAIR) ? -1
                                       : (int)syscall(SYS_socketpair, domain, type, protocol, ends);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    struct iovec half;
    struct msghdr less = *message;

    if (!fault_now(FAULT_SENDMSG)) {
        return syscall(SYS_sendmsg, fd, message, flags);
    }
    if (!fault_is_short()) {
        return -1;
    }
    half = message->msg_iov[0];
    half.iov_len -= half.iov_len / 2;
    less.msg_iov = &half;
    less.msg_iovlen = 1;
    fault_shortened = true;
    return syscall(SYS_sendmsg, fd, &less, flags);
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    bool fails = fault_now(FAULT_RECVMSG);
    ssize_t n;

    if (fails && !fault_is_short()) {
        return -1;
    }
    n = syscall(SYS_recvmsg, fd, message, flags);
    message->msg_flags |= fails ? MSG_CTRUNC : 0;
    return n;
}

ssize_t read(int fd, void *bytes, size_t size)
{
    return fault_now(FAULT_READ) ? -1 : syscall(SYS_read, fd, bytes, size);
}

ssize_t write(int fd, const void *bytes, size_t size)
{
    if (!fault_now(FAULT_WRITE)) {
        return syscall(SYS_write, fd, bytes, size);
    }
    return fault_is_short() ? (ssize_t)(size - 1) : -1;
}

int fstat(int fd, struct stat *status)
{
    return fault_now(FAULT_FSTAT) ? -1 : (int)syscall(SYS_fstat, fd, status);
}

/* The kernel's vhost. */
int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    uint64_t *features;

    (void)fd;
    va_start(arguments, request);
    features = va_arg(arguments, uint64_t *);
    va_end(arguments);
    if (request == VHOST_SET_BACKEND_FEATURES) {
        return fault_now(FAULT_SET_FEATURES) ? -1 : 0;
    }
    *features = UINT64_C(1) << VHOST_BACKEND_F_IOTLB_MSG_V2;
    if (fault_now(FAULT_GET_FEATURES)) {
        *features = 0;
        return fault_is_short() ? 0 : -1;
    }
    return 0;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    if (virtual_time && clock == CLOCK_MONOTONIC) {
        now->tv_sec = (time_t)(*virtual_time / 1000000000);
        now->tv_nsec = (long)(*virtual_time % 1000000000);
        return 0;
    }
    return (int)syscall(SYS_clock_gettime, clock, now);
}

#endif
