/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The server's event loop: descriptors and what to do when they are ready, on one thread.
 *
 * A source belongs to its owner, who embeds it. Events are taken from the kernel one at a time, so
 * a source may be removed, and its memory reused, at any moment outside its own use. After each
 * event the loop calls its `after` function, where owners look at what the event changed elsewhere.
 * When that has more to do than it should do at once, it is called again soon, after the next event
 * or without one.
 */
#ifndef VIOMMU_SERVER_LOOP_H
#define VIOMMU_SERVER_LOOP_H

#include <stdbool.h>
#include <stdint.h>

struct loop_source {
    int fd;
    uint32_t events; /* EPOLLIN, EPOLLOUT */
    void (*ready)(void *opaque, uint32_t events);
    void *opaque;
};

struct loop {
    int epoll;
    bool stop;
    struct loop_source signals;
    bool (*after)(void *opaque); /* true: there is more to do */
    void *after_opaque;
    bool again; /* it said so */
};

/* Returns 0 or a negative errno. */
int loop_init(struct loop *loop);
void loop_fini(struct loop *loop);

/* From now on SIGINT, SIGTERM and SIGHUP end loop_run. They stay blocked for the process's other
 * uses. Returns 0 or a negative errno. */
int loop_stop_on_signals(struct loop *loop);

/* Watch a source, or stop watching it. The source must stay where it is meanwhile. */
int loop_add(struct loop *loop, struct loop_source *source);
void loop_remove(struct loop *loop, struct loop_source *source);

/* Watch for other events. Does nothing when they are the same. */
void loop_set_events(struct loop *loop, struct loop_source *source, uint32_t events);

/* Wait for one event, timeout_ms at most (-1: as long as it takes; none while `after` has more to
 * do), and handle it. Returns 1 when there was one, 0 when there was none, or a negative errno. */
int loop_step(struct loop *loop, int timeout_ms);

/* Handle events until `stop` is set. Returns 0 or a negative errno. */
int loop_run(struct loop *loop);

#endif
