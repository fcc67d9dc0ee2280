/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Threads for tests: a crew works until it is told to stop.
 *
 * How long a test lasts: each calls crew_more() before a round; it says yes until about 1.5 seconds
 * have passed, or as many times that as the environment variable VIOMMU_TEST_SCALE says (long
 * runs). On a machine with much to do not every thread has had its turn by then: a test that has
 * not shown anything yet goes on for longer, up to CREW_PATIENCE.
 */
#ifndef VIOMMU_THREADS_CREW_H
#define VIOMMU_THREADS_CREW_H

#include "../support/guest.h"
#include "../support/random.h"

#include <stdatomic.h>

#define CREW_MAX 16
#define CREW_PATIENCE 40 /* seconds */

struct crew {
    _Atomic bool stopped;
    unsigned count;
    unsigned long threads[CREW_MAX]; /* pthread_t */
};

void crew_start(struct crew *crew, void *(*work)(void *arg), void *arg);

/* Tells all to stop, and waits for them. */
void crew_stop(struct crew *crew);

static inline bool crew_working(struct crew *crew)
{
    return !atomic_load_explicit(&crew->stopped, memory_order_relaxed);
}

struct crew_time {
    uint64_t end;
    uint64_t last; /* also without having shown anything */
};

struct crew_time crew_begin(void);

/* `shown`: what the test is to meet has come about. */
bool crew_more(const struct crew_time *time, bool shown);

/*
 * What tests that lend pages to a device share: `count` pages with one table, which map at
 * `first_iova` and on once their entries say so. Returns the table.
 */
uint64_t crew_pages(struct guest *guest, unsigned count, uint64_t first_iova, uint64_t *pages,
                    uint64_t *entries);

/* The page holds nothing but this byte, or the test ends with the text. */
void crew_check_page(const uint8_t *host, uint8_t byte, const char *text);

/* Nothing for so many microseconds. */
void crew_sleep(unsigned microseconds);

/*
 * Somebody who does the unit's work: waits for the event fd, calls viommu_process. `arg` is a
 * struct crew_processor. Counts its rounds, so that a test can see whether the descriptor is
 * readable for nothing.
 */
struct crew_processor {
    struct crew *crew;
    struct guest *guest;
    unsigned budget;
    _Atomic uint64_t rounds;
};

void *crew_process(void *arg);

#endif
