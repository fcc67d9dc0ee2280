/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An eventfd and a timerfd behind one epoll descriptor.
 *
 * A kick sets the flag, then writes. The flag falls only when that was read: wake_clear that comes
 * between the two leaves it alone, for the write makes the descriptor readable and clearing comes
 * again. So without the flag there is nothing to read, and no system call is needed to know that.
 */
#include "base/wake.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define PAUSE_FIRST_NS 20000
#define PAUSE_LAST_NS 1000000

static int watch(struct wake *wake, int fd)
{
    struct epoll_event event = {.events = EPOLLIN};

    return epoll_ctl(wake->poll_fd, EPOLL_CTL_ADD, fd, &event) ? -errno : 0;
}

int wake_init(struct wake *wake, void (*tell)(void *opaque), void *opaque)
{
    int ret;

    wake->tell = tell;
    wake->opaque = opaque;
    atomic_init(&wake->kicked, 0);
    wake->at = 0;
    wake->poll_fd = epoll_create1(EPOLL_CLOEXEC);
    wake->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    wake->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    ret = wake->poll_fd < 0 || wake->event_fd < 0 || wake->timer_fd < 0 ? -errno : 0;
    if (!ret) {
        ret = watch(wake, wake->event_fd);
    }
    if (!ret) {
        ret = watch(wake, wake->timer_fd);
    }
    if (ret) {
        wake_fini(wake);
    }
    return ret;
}

static void close_valid(int fd)
{
    if (fd >= 0) {
        close(fd);
    }
}

void wake_fini(struct wake *wake)
{
    close_valid(wake->timer_fd);
    close_valid(wake->event_fd);
    close_valid(wake->poll_fd);
}

void wake_kick(struct wake *wake)
{
    uint64_t one = 1;

    if (atomic_exchange(&wake->kicked, 1)) {
        return;
    }
    if (wake->tell) {
        wake->tell(wake->opaque);
    } else {
        (void)!write(wake->event_fd, &one, sizeof(one));
    }
}

void wake_remind(struct wake *wake)
{
    if (wake->tell && atomic_load(&wake->kicked)) {
        wake->tell(wake->opaque);
    }
}

void wake_at(struct wake *wake, uint64_t ns)
{
    struct itimerspec when = {
        .it_value = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)},
    };

    /* Most rounds of work neither find nor leave a time: they cost no system call. */
    if (!ns && !wake->at) {
        return;
    }
    wake->at = ns;
    (void)timerfd_settime(wake->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

void wake_by(struct wake *wake, uint64_t ns)
{
    if (!wake->at || ns < wake->at) {
        wake_at(wake, ns);
    }
}

/* Takes what is there to read. False: not yet. */
static bool take(int fd)
{
    uint64_t count;

    return read(fd, &count, sizeof(count)) == (ssize_t)sizeof(count);
}

void wake_clear(struct wake *wake)
{
    /* A time that has come only just may not be readable yet: then it stays, to be read later. */
    if (wake->at && wake->at <= wake_now() && take(wake->timer_fd)) {
        wake->at = 0;
    }
    /*
     * The descriptor first, the flag second: a kick between the two is not written, but its work
     * was there before the flag fell, and the caller looks for work after this.
     */
    if (atomic_load(&wake->kicked) && (wake->tell || take(wake->event_fd))) {
        (void)atomic_exchange(&wake->kicked, 0);
    }
}

uint64_t wake_pause(uint64_t *pause)
{
    uint64_t next = *pause * 2;

    *pause = next < PAUSE_FIRST_NS ? PAUSE_FIRST_NS : next > PAUSE_LAST_NS ? PAUSE_LAST_NS : next;
    return *pause;
}

uint64_t wake_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}
