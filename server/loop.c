/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An epoll loop; see loop.h.
 */
#include "loop.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

int loop_init(struct loop *loop)
{
    memset(loop, 0, sizeof(*loop));
    loop->signals.fd = -1;
    loop->epoll = epoll_create1(EPOLL_CLOEXEC);
    return loop->epoll < 0 ? -errno : 0;
}

void loop_fini(struct loop *loop)
{
    if (loop->signals.fd >= 0) {
        close(loop->signals.fd);
    }
    close(loop->epoll);
}

static void signal_came(void *opaque, uint32_t events)
{
    struct loop *loop = opaque;
    struct signalfd_siginfo info;

    (void)events;
    if (read(loop->signals.fd, &info, sizeof(info)) == sizeof(info)) {
        loop->stop = true;
    }
}

int loop_stop_on_signals(struct loop *loop)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0) {
        return -errno;
    }
    loop->signals = (struct loop_source){
        .fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC),
        .events = EPOLLIN,
        .ready = signal_came,
        .opaque = loop,
    };
    return loop->signals.fd < 0 ? -errno : loop_add(loop, &loop->signals);
}

int loop_add(struct loop *loop, struct loop_source *source)
{
    struct epoll_event event = {.events = source->events, .data.ptr = source};

    return epoll_ctl(loop->epoll, EPOLL_CTL_ADD, source->fd, &event) < 0 ? -errno : 0;
}

void loop_remove(struct loop *loop, struct loop_source *source)
{
    epoll_ctl(loop->epoll, EPOLL_CTL_DEL, source->fd, NULL);
}

void loop_set_events(struct loop *loop, struct loop_source *source, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};

    if (events != source->events) {
        source->events = events;
        epoll_ctl(loop->epoll, EPOLL_CTL_MOD, source->fd, &event);
    }
}

int loop_step(struct loop *loop, int timeout_ms)
{
    struct epoll_event event;
    int n = epoll_wait(loop->epoll, &event, 1, loop->again ? 0 : timeout_ms);

    if (n < 0) {
        return errno == EINTR ? 0 : -errno;
    }
    if (n == 1) {
        struct loop_source *source = event.data.ptr;

        source->ready(source->opaque, event.events);
    }
    if (loop->after && (n == 1 || loop->again)) {
        loop->again = loop->after(loop->after_opaque);
    }
    return n;
}

int loop_run(struct loop *loop)
{
    int ret = 0;

    loop->again = loop->after != NULL; /* what was there before the first event */
    while (!loop->stop && ret >= 0) {
        ret = loop_step(loop, -1);
    }
    return ret < 0 ? ret : 0;
}
