/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a guest's tables allow of a window of device addresses, against what a process elsewhere has
 * been given of it; and what was wrong in that.
 *
 * The guest's side tells before it changes an entry (ledger_change), and when the invalidation is
 * complete (ledger_complete): in between both the old and the new are right. Who watches the
 * conversation with the far side (wire.h) tells what passes. Wrong is: an UPDATE of what neither
 * the old nor the new entry allows; an UPDATE where the far side holds something else (it must drop
 * that first); and, when the invalidation is complete, that the far side still holds the old.
 *
 * Threads: all functions, any thread.
 */
#ifndef PEERS_LEDGER_H
#define PEERS_LEDGER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum { LEDGER_READ = 1, LEDGER_WRITE = 2 };

/* A page of guest memory, and what is allowed; perm 0: nothing. */
struct ledger_entry {
    uint64_t gpa;
    uint8_t perm;
};

struct ledger_page {
    struct ledger_entry now;
    struct ledger_entry next; /* while `changing` */
    bool changing;
    struct ledger_entry held;    /* by the far side */
    struct ledger_entry leaving; /* told to drop it, has not answered */
    uint64_t leaving_id;
};

struct ledger {
    pthread_mutex_t lock;
    uint64_t first;
    unsigned count;
    struct ledger_page *pages;
    bool writable_is_readable; /* a far side that wants both for what it only writes gets both */
    /* Is the far side cut off? What it holds is then its own affair; or NULL. */
    bool (*is_cut_off)(void *opaque);
    void *opaque;
    uint64_t updates; /* pages that were given */
    uint64_t drops;   /* pages that were held and dropped, as it said */
    unsigned wrong;
    char what[256]; /* the first that was wrong */
};

/* `count` pages from `first` on. Ends the program when there is no memory. */
void ledger_init(struct ledger *ledger, uint64_t first, unsigned count);
void ledger_fini(struct ledger *ledger);

/* The guest's side. `page` is a number in the window. */
void ledger_change(struct ledger *ledger, unsigned page, uint64_t gpa, uint8_t perm);
void ledger_complete(struct ledger *ledger, unsigned page);

/* What passes. `gpa` is where the UPDATE's address leads, by the memory table; ids grow. */
void ledger_update(struct ledger *ledger, uint64_t iova, uint64_t size, uint64_t gpa, uint8_t perm);
void ledger_invalidate(struct ledger *ledger, uint64_t id, uint64_t iova, uint64_t size);
void ledger_acknowledged(struct ledger *ledger, uint64_t id, uint64_t iova, uint64_t size);
/* The connection is over. */
void ledger_gone(struct ledger *ledger);

/* What was wrong first, or NULL; and how many pages were held and dropped. */
const char *ledger_why(struct ledger *ledger);
uint64_t ledger_drops(struct ledger *ledger);

/* Notes something wrong. */
void ledger_wrong(struct ledger *ledger, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
