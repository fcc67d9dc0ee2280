/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A wire between a vhost-user front-end and its back-end, and what passes on it.
 *
 * The front-end is given one end of a socket pair; a thread here passes on each message, with its
 * descriptors, and tells the ledger of those of the IOTLB before they go on. The channel on which
 * the back-end asks is put on the wire too: each side gets a socket pair of ours in place of the
 * other's end. Layouts are the protocol's, written down here and independently of the library.
 *
 * Threads: one thread opens and closes a wire; counters may be read by any.
 */
#ifndef PEERS_WIRE_H
#define PEERS_WIRE_H

#include "ledger.h"

#include <stdatomic.h>

enum { WIRE_REGIONS = 64, WIRE_WAITING = 4096 };

struct wire_region {
    uint64_t gpa;
    uint64_t size;
    uint64_t address;
};

/* A request whose answer is outstanding. */
struct wire_request {
    uint32_t request;
    uint64_t id;
    bool invalidate;
    uint64_t iova;
    uint64_t size;
};

struct wire {
    struct ledger *ledger;
    int near; /* the front-end's socket, our end */
    int far;  /* the back-end's */
    int near_channel;
    int far_channel;
    pthread_t thread;
    struct wire_region regions[WIRE_REGIONS];
    unsigned region_count;
    struct wire_request waiting[WIRE_WAITING]; /* a ring: answers come in order */
    unsigned waiting_first;
    unsigned waiting_count;
    uint64_t next_id;
    _Atomic uint64_t misses;
    _Atomic uint64_t updates;
    _Atomic uint64_t invalidations;
    _Atomic uint64_t acknowledged;
    _Atomic uint64_t longest; /* the largest UPDATE, in bytes */
    _Atomic bool garble;      /* the next answer to an INVALIDATE is changed into nonsense */
    _Atomic int victim;       /* a process to kill when the next INVALIDATE passes; 0: none */
    _Atomic bool over;
};

/* `far` is connected to the back-end and taken over. Returns the front-end's end. */
int wire_open(struct wire *wire, struct ledger *ledger, int far);
/* Ends it, whoever is still there. */
void wire_close(struct wire *wire);
/* Has the front-end left? For the ledger. */
bool wire_is_cut_off(void *wire);

#endif
