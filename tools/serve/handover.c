/* SPDX-License-Identifier: BSD-2-Clause */
/* Giving a service away; see handover.h. */
#include "handover.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "handover/channel.h"
#include "log.h"
#include "service.h"
#include "state.h"
#include "unix_socket.h"

enum {
    SILENCE_MS = 3000, /* before it begins to speak */
    HELLO_MS = 500,    /* a successor that has begun to speak finishes its sentence */
    REFUSAL_MS = 200,  /* it may be gone */
    TRANSFER_MS = 10000, /* to send everything, and then until it is loaded */
};

static int listen_for_successor(struct handover *handover);

static void stop_listening(struct handover *handover)
{
    if (handover->listener.fd >= 0) {
        loop_remove(&handover->service->loop, &handover->listener);
        unix_socket_remove(handover->path, &handover->file);
        close(handover->listener.fd);
        handover->listener.fd = -1;
    }
}

/* How long the successor may take for its next step; 0: for ever. */
static void set_patience(struct handover *handover, unsigned ms)
{
    const struct itimerspec patience = {
        .it_value = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L},
    };

    timerfd_settime(handover->timer.fd, 0, &patience, NULL);
}

/* The successor is not to be. All goes on. */
static void drop_successor(struct handover *handover)
{
    int ret;

    loop_remove(&handover->service->loop, &handover->successor);
    close(handover->successor.fd);
    handover->successor.fd = -1;
    set_patience(handover, 0);
    if (handover->pausing) {
        handover->pausing = false;
        ret = service_resume(handover->service);
        if (ret < 0) {
            server_log("cannot go on: %s", strerror(-ret));
        }
    }
}

static void refuse(struct handover *handover, const char *why)
{
    int ret;

    server_log("process %d does not take over: %s", (int)handover->peer, why);
    handover_send(handover->successor.fd, HANDOVER_REFUSAL, why, strlen(why), NULL,
                  handover_deadline(REFUSAL_MS));
    drop_successor(handover);
    ret = loop_add(&handover->service->loop, &handover->listener);
    if (ret < 0) {
        server_log("cannot wait for another successor: %s", strerror(-ret));
    }
}

static const char *explain(int error)
{
    return error == -EPROTONOSUPPORT ? "it is of another version"
           : error == -EPROTO        ? "it does not speak as a successor does"
           : error == -ECONNRESET    ? "it went away"
           : error == -ETIMEDOUT     ? "it takes too long"
                                     : strerror(-error);
}

/* Waits until the successor says that it has loaded everything. */
static bool is_ready(struct handover *handover)
{
    struct handover_message message;
    int ret = handover_receive(handover->successor.fd, &message, handover_deadline(TRANSFER_MS));
    bool ready;

    if (ret < 0) {
        refuse(handover, explain(ret));
        return false;
    }
    ready = message.what == HANDOVER_READY;
    if (!ready) {
        refuse(handover, message.what == HANDOVER_REFUSAL ? message.data : explain(-EPROTO));
    }
    handover_message_fini(&message);
    return ready;
}

/* The successor has everything: from the word on it serves. Our own socket makes way before, for
 * it may want to be asked in the same place. */
static void let_go(struct handover *handover)
{
    int ret;

    stop_listening(handover);
    ret = handover_send(handover->successor.fd, HANDOVER_GO, NULL, 0, NULL,
                        handover_deadline(HELLO_MS));
    if (ret == 0) {
        handover->service->handed_over = true;
        handover->service->loop.stop = true;
        return;
    }
    server_log("process %d does not take over: %s", (int)handover->peer, explain(ret));
    drop_successor(handover);
    ret = listen_for_successor(handover);
    if (ret < 0) {
        server_log("cannot listen on %s any more: %s", handover->path, strerror(-ret));
    }
}

static void transfer(struct handover *handover, const struct service_state *state)
{
    int ret = handover_send(handover->successor.fd, HANDOVER_STATE, state->data, state->size,
                            &state->fds, handover_deadline(TRANSFER_MS));

    if (ret < 0) {
        refuse(handover, explain(ret));
    } else if (is_ready(handover)) {
        let_go(handover);
    }
}

void handover_step(struct handover *handover)
{
    struct service_state state;
    int ret;

    if (!handover->service || !handover->pausing || service_busy(handover->service)) {
        return;
    }
    ret = service_save(handover->service, &state);
    if (ret == -EBUSY) {
        return; /* the unit is in the middle of something */
    }
    if (ret < 0) {
        refuse(handover, strerror(-ret));
        return;
    }
    transfer(handover, &state);
    service_state_fini(&state);
}

static void timer_ready(void *opaque, uint32_t events)
{
    struct handover *handover = opaque;
    uint64_t count;

    (void)events;
    if (read(handover->timer.fd, &count, sizeof(count)) != sizeof(count) ||
        handover->successor.fd < 0) {
        return;
    }
    if (handover->pausing) {
        const char *busy = service_busy(handover->service);

        refuse(handover, busy ? busy : "the unit's work does not end");
    } else {
        refuse(handover, "it says nothing");
    }
}

/* It has said something, or gone. */
static void successor_ready(void *opaque, uint32_t events)
{
    struct handover *handover = opaque;
    struct handover_message message;
    int ret = handover_receive(handover->successor.fd, &message, handover_deadline(HELLO_MS));

    (void)events;
    if (ret == 0 && (message.what != HANDOVER_HELLO || handover->pausing)) {
        ret = -EPROTO;
    }
    handover_message_fini(&message);
    if (ret < 0) {
        refuse(handover, explain(ret));
        return;
    }
    server_log("process %d asks to take over", (int)handover->peer);
    handover->pausing = true;
    set_patience(handover, HANDOVER_PATIENCE_MS);
    service_pause(handover->service);
}

static void listener_ready(void *opaque, uint32_t events)
{
    struct handover *handover = opaque;
    struct loop *loop = &handover->service->loop;
    int fd = accept4(handover->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    struct ucred peer;
    socklen_t size = sizeof(peer);

    (void)events;
    if (fd < 0) {
        return;
    }
    if (!handover_trusts(fd) || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0) {
        server_log("a process of another user asked to take over");
        close(fd);
        return;
    }
    handover->peer = peer.pid;
    handover->successor = (struct loop_source){
        .fd = fd,
        .events = EPOLLIN,
        .ready = successor_ready,
        .opaque = handover,
    };
    if (loop_add(loop, &handover->successor) < 0) {
        close(fd);
        handover->successor.fd = -1;
        return;
    }
    loop_remove(loop, &handover->listener);
    set_patience(handover, SILENCE_MS);
}

static int listen_for_successor(struct handover *handover)
{
    int fd = handover_listen(handover->path), ret;

    if (fd < 0) {
        return fd;
    }
    handover->listener = (struct loop_source){
        .fd = fd,
        .events = EPOLLIN,
        .ready = listener_ready,
        .opaque = handover,
    };
    ret = lstat(handover->path, &handover->file) < 0 ? -errno : 0;
    if (ret == 0) {
        ret = loop_add(&handover->service->loop, &handover->listener);
    }
    if (ret < 0) {
        stop_listening(handover);
    }
    return ret;
}

static int start_timer(struct handover *handover)
{
    handover->timer = (struct loop_source){
        .fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK),
        .events = EPOLLIN,
        .ready = timer_ready,
        .opaque = handover,
    };
    if (handover->timer.fd < 0) {
        return -errno;
    }
    return loop_add(&handover->service->loop, &handover->timer);
}

int handover_open(struct handover *handover, struct service *service)
{
    int ret;

    if (!service->options->handover) {
        return 0;
    }
    handover->service = service;
    handover->listener.fd = handover->successor.fd = -1;
    handover->pausing = false;
    snprintf(handover->path, sizeof(handover->path), "%s", service->options->handover);
    ret = start_timer(handover);
    if (ret == 0) {
        ret = listen_for_successor(handover);
    }
    if (ret < 0) {
        server_log("cannot offer a handover on %s: %s", handover->path,
                   service_socket_error(ret));
        handover_close(handover);
    }
    return ret;
}

void handover_close(struct handover *handover)
{
    if (!handover->service) {
        return;
    }
    stop_listening(handover);
    if (handover->successor.fd >= 0) {
        close(handover->successor.fd);
    }
    if (handover->timer.fd >= 0) {
        close(handover->timer.fd);
    }
    handover->service = NULL;
}
