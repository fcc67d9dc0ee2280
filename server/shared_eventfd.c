/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Signals by way of the kernel's asynchronous input and output; see shared_eventfd.h.
 *
 * A request to the kernel can name an eventfd that is to be signalled when it is complete. The
 * kernel does not wait there: it adds one, or leaves a full counter as it is. So the request is one
 * that is complete at once: to read no bytes of that same eventfd, which is refused, whatever its
 * counter is, because there would have to be eight. That costs half as much again as to ask whether
 * there is room, and then to write. Which is what is done where there are no such requests (Linux
 * before 5.8), or we may not make any (seccomp), or in the child of a fork, which has not the
 * context of its parent: whoever fills the counter between the two stops us there.
 *
 * Completions are of no interest. They are taken away when there is no room for more.
 */
#include "shared_eventfd.h"

#include <errno.h>
#include <linux/aio_abi.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { ROOM = 128 }; /* for completions, at least */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static aio_context_t context; /* 0: there is none */

static void begin(void)
{
    if (syscall(SYS_io_setup, (long)ROOM, &context) < 0) {
        context = 0;
    }
}

static void take_away(void)
{
    struct io_event events[ROOM];
    struct timespec none = {0};

    (void)syscall(SYS_io_getevents, context, 0L, (long)ROOM, events, &none);
}

static bool submit(int fd)
{
    struct iocb request = {
        .aio_lio_opcode = IOCB_CMD_PREAD,
        .aio_fildes = (uint32_t)fd,
        .aio_flags = IOCB_FLAG_RESFD,
        .aio_resfd = (uint32_t)fd,
    };
    struct iocb *requests[] = {&request};

    return syscall(SYS_io_submit, context, 1L, requests) == 1;
}

static bool signal_by_request(int fd)
{
    if (submit(fd)) {
        return true;
    }
    if (errno != EAGAIN) {
        return false;
    }
    take_away();
    return submit(fd);
}

static bool signal_by_write(int fd)
{
    struct pollfd pollfd = {.fd = fd, .events = POLLOUT};
    uint64_t one = 1;

    return poll(&pollfd, 1, 0) == 1 && (pollfd.revents & POLLOUT) &&
           write(fd, &one, sizeof(one)) == sizeof(one);
}

bool shared_eventfd_signal(int fd)
{
    pthread_once(&once, begin);
    return (context && signal_by_request(fd)) || signal_by_write(fd);
}

bool shared_eventfd_take(int fd)
{
    struct pollfd pollfd = {.fd = fd, .events = POLLIN};
    uint64_t count;
    const struct iovec into = {.iov_base = &count, .iov_len = sizeof(count)};
    ssize_t n = preadv2(fd, &into, 1, -1, RWF_NOWAIT);

    if (n < 0 && errno == EOPNOTSUPP && poll(&pollfd, 1, 0) == 1) {
        n = read(fd, &count, sizeof(count)); /* a kernel that cannot promise not to wait */
    }
    return n == sizeof(count);
}
