/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A virtual machine in one process, with a network device that testpmd works on: memory in files, a
 * unit, a device behind it, our front-end, and the wire (wire.h) between that and testpmd.
 *
 * The guest has a window of device addresses, one page at a time mapped to a page of its memory,
 * and keeps the ledger (ledger.h). The unit is VT-d with caching mode, or a virtio-iommu.
 *
 * Threads. "The monitor": a thread that does the unit's and the front-end's work when their
 * descriptors say so; only it calls the front-end. The guest's driver of the unit is the caller's,
 * one thread at a time.
 */
#ifndef PEERS_WORLD_H
#define PEERS_WORLD_H

#include "far.h"
#include "guest.h"
#include "net.h"
#include "wire.h"

#include <viommu/vhost.h>

#define WINDOW_FIRST 0x7ffe0000ull /* it crosses a border of 1 GiB, so tables are many */

enum {
    WORLD_DOMAIN = 5,
    WINDOW_PAGES = 1024,
    RING_PAGES = 8, /* the first of the window: 3 of each ring, and one unused between them */
    LOW_PAGES = 2048, /* of guest memory at 0: tables in the first half, buffers in the second */
    HIGH_PAGES = 2048, /* of guest memory at 4 GiB, in another file: buffers */
    SPARE_PAGES = LOW_PAGES / 2 + HIGH_PAGES,
    TIMEOUT_MS = 10000, /* of acknowledgements: threads of testpmd wait for each other, spinning */
    ANSWER_MS = 30000, /* of other answers: testpmd listens before it is able to answer */
};

/* How the guest tells that it changed pages. */
enum flush {
    FLUSH_PAGES, /* each page by itself, as Linux does when strict */
    FLUSH_DOMAIN, /* the domain, as when lazy */
};

struct world_page {
    uint64_t gpa;
    uint8_t perm; /* 0: not mapped */
    bool changed; /* and the unit was not told */
};

struct world_options {
    const char *program;   /* testpmd */
    const char *directory; /* for its socket */
    const char *log;       /* of what it says; or NULL */
    bool is_virtio;
    /* For figures: no wire and no ledger; and no monitor: whoever waits calls world_work. */
    bool bare;
};

struct world {
    bool is_virtio;
    bool bare;
    struct far far;
    struct ledger ledger;
    struct wire wire;
    struct net net;

    uint8_t *low;
    uint8_t *high;
    int files[2];
    struct viommu_memory *memory;
    struct guest guest; /* VT-d */
    struct viommu *iommu;
    struct viommu_device *device;
    struct viommu_vhost *vhost;
    uint64_t table;
    struct world_page pages[WINDOW_PAGES];
    uint64_t spare[SPARE_PAGES]; /* guest addresses of pages that nobody uses */
    unsigned spare_count;
    uint64_t sent;              /* virtio requests */
    _Atomic uint64_t completed;

    pthread_t monitor;
    int bell;
    pthread_mutex_t lock;
    pthread_cond_t rung;
    void (*call)(struct world *world); /* for the monitor to do */
    bool stop;
    _Atomic unsigned ready;  /* times that the front-end was ready */
    _Atomic unsigned failed; /* or failed, */
    _Atomic int error;       /* why */
    bool rings_started;
    int next_fd;
    int result;
};

/* All of it; rings run when it returns. Ends the program where something fails. */
void world_init(struct world *world, const struct world_options *options);
void world_fini(struct world *world);

static inline uint64_t world_iova(unsigned page)
{
    return WINDOW_FIRST + page * GUEST_PAGE;
}

uint8_t *world_host(struct world *world, uint64_t gpa);

/* A page of guest memory that nobody uses; it must hold the poison that world_give put there. */
uint64_t world_take(struct world *world);
void world_give(struct world *world, uint64_t gpa);

/* Changes where pages of the window lead; perm 0 unmaps. The unit is told by world_flush. */
void world_map(struct world *world, unsigned page, uint64_t gpa, uint8_t perm);
/* Tells the unit of what changed, and waits until that is complete. */
void world_flush(struct world *world, enum flush flush);
/* The unit is told of pages that have not changed. */
void world_flush_anyway(struct world *world, unsigned page, unsigned count);

/* Without a monitor: does what there is to do, or waits for a moment that something comes. */
void world_work(struct world *world);

/* A fault that the guest can see has been recorded so many times. */
uint64_t world_faults(struct world *world);

/* testpmd anew (it must not run), and the front-end connects to it. Returns when rings run. */
void world_reconnect(struct world *world);

/* Waits until a counter has passed a value; false after some seconds. */
bool world_wait(_Atomic unsigned *counter, unsigned value);
uint64_t world_now(void); /* ns */
void world_sleep(unsigned us);
struct viommu_vhost_statistics world_statistics(struct world *world);

#endif
