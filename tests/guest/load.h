/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * load.h - many threads that use the disk at once.
 *
 * Vocabulary.  "Piece": sectors that are read or written with one call, 512 bytes to 1 MiB.  Each
 * load cuts the whole disk into pieces of mixed sizes, in a mixed-up order; buffers begin wherever
 * direct I/O lets them.  Threads are pinned, one CPU after the other.
 */
#ifndef VIOMMU_GUEST_LOAD_H
#define VIOMMU_GUEST_LOAD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "disk.h"

enum {
    LOAD_THREADS_MAX = 16,
};

enum load_kind {
    LOAD_WRITE,     /* the whole disk once, with one generation */
    LOAD_READ,      /* the whole disk once, compared with the marks */
    LOAD_MIXED,     /* both, at random, until it is ended */
};

struct load;

struct load_worker {
    struct load *load;
    unsigned index;
    pthread_t thread;
    uint8_t *buffer;
    uint64_t random;
};

/* The counters may be read while it runs. */
struct load {
    struct disk *disk;
    enum load_kind kind;
    uint16_t generation;
    unsigned threads;
    struct load_piece *pieces;
    unsigned piece_count;
    struct load_worker workers[LOAD_THREADS_MAX];
    atomic_uint next;
    atomic_bool stop;
    atomic_uint done;           /* calls that did what they should */
    atomic_uint failed;         /* that gave an errno */
    atomic_int error;           /* the last one, positive */
    atomic_uint wrong;          /* reads that brought something else */
    atomic_uint wrong_sector;   /* of the last of them */
    atomic_uint slowest_ms;     /* call */
};

/* Start; false (and reported) when the guest has no memory or threads for it. */
bool load_begin(struct load *load, struct disk *disk, enum load_kind kind, unsigned threads);

/* Wait for the end (LOAD_MIXED: make it end).  True: no call failed or brought something else. */
bool load_end(struct load *load);

/* Wait until so many more calls were done, or failed; false: that took too long. */
bool load_wait_done(struct load *load, unsigned more, unsigned seconds);
bool load_wait_failed(struct load *load, unsigned more, unsigned seconds);
/* Wait until calls do not end any more: each thread is in one.  False: they still did. */
bool load_wait_still(struct load *load, unsigned seconds);

/* Begin and end. */
bool load_run(struct disk *disk, enum load_kind kind, unsigned threads, struct load *load);

/* Tell the detail for the next check. */
void load_detail(const struct load *load);

#endif
