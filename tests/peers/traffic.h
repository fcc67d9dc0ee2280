/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Frames that go to testpmd and come back, on a thread of their own, and pages that may be mapped
 * elsewhere meanwhile.
 *
 * The pages of the window past the rings are buffers, one page each. A page is free, lent to the
 * device, or taken by somebody who maps it elsewhere (traffic_take, traffic_give_back): then the
 * device has no business there.
 *
 * Threads: any.
 */
#ifndef PEERS_TRAFFIC_H
#define PEERS_TRAFFIC_H

#include "random.h"
#include "world.h"

enum {
    BUFFERS_FIRST = RING_PAGES + 8, /* the pages before are for what checks do by themselves */
    BUFFERS = 384,
    RECEIVE_POSTED = 128,
    SEND_OUTSTANDING = 48,
};

struct traffic {
    struct world *world;
    pthread_t thread;
    pthread_mutex_t lock; /* of `busy`, `quiet`, the driver's rings, world->pages of buffers */
    bool busy[BUFFERS];   /* lent or taken */
    struct random random;
    _Atomic bool stop;
    bool quiet; /* send nothing */
    _Atomic uint64_t received;
    _Atomic uint64_t outstanding; /* frames under way */
    _Atomic bool wrong;
};

/* Maps the buffers and begins. */
void traffic_start(struct traffic *traffic, struct world *world);
void traffic_stop(struct traffic *traffic);

/* Waits for so many more frames. Returns NULL, or what is wrong. */
const char *traffic_wait(struct traffic *traffic, unsigned frames);
/* Waits until nothing is under way, and nothing is sent; and on again. Returns as above. */
const char *traffic_pause(struct traffic *traffic);
void traffic_go_on(struct traffic *traffic);
/* Whether frames may be missing: the far side was started again, or found no room in time. */
void traffic_may_lose(struct traffic *traffic, bool may);

/* Takes free buffers, `count` at most: numbers of pages in the window. Returns how many. */
unsigned traffic_take(struct traffic *traffic, unsigned *pages, unsigned count);
void traffic_give_back(struct traffic *traffic, const unsigned *pages, unsigned count);

/* Permissions for a page, as drivers choose them. */
uint8_t traffic_perm(struct random *random);

#endif
