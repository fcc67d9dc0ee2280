/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The model test's world: a unit under test, devices, guest memory, the history of what may be
 * answered, and the mirror of the fault registers.
 *
 * Guest memory is laid out by page number of slot 0: data, root tables, context tables, a *pool* of
 * pages that serve as page tables of any level (and sometimes as data), queue, wait status, data.
 *
 * Operations (operations.c, commands.c) change the world at random and check what the library does;
 * world_note() says what is done, and world_fail() prints the last notes with the seed, and exits.
 */
#ifndef VIOMMU_MODEL_WORLD_H
#define VIOMMU_MODEL_WORLD_H

#include "../support/guest.h"
#include "../support/random.h"
#include "faults.h"
#include "history.h"
#include "ram.h"

enum world_layout { /* page numbers of slot 0 */
    WORLD_ROOTS = 2,
    WORLD_ROOT_COUNT = 2,
    WORLD_CONTEXTS = 4,
    WORLD_CONTEXT_COUNT = 3,
    WORLD_POOL = 7,
    WORLD_POOL_COUNT = 20,
    WORLD_QUEUE = 27,
    WORLD_STATUS = 28,
    WORLD_DATA = 29,
    WORLD_DATA_COUNT = 35,
};

#define WORLD_DEVICES 8
#define WORLD_NOTES 48
#define WORLD_ALIASES 2

#define WORLD_FAULT_DATA 0x31
#define WORLD_WAIT_DATA 0x32

struct world;

enum world_answer {
    WORLD_ANSWER_NOW,
    WORLD_ANSWER_LATER,
    WORLD_ANSWER_FAIL,
    WORLD_ANSWER_NEVER,
};

struct world_device {
    struct world *world;
    struct viommu_device *device; /* NULL: not there */
    struct viommu_subscriber *subscriber;
    uint16_t requester;
    uint16_t aliases[WORLD_ALIASES];
    unsigned alias_count;
    bool ats;
    bool denied;
    /* The last change it heard of. */
    enum world_answer answer;
    bool heard;
    uint64_t heard_first;
    uint64_t heard_last;
    uint64_t token;
};

struct world {
    uint64_t seed;
    uint64_t step;
    struct random random;
    struct viommu_vtd_config vtd;
    struct walker_config walker;
    struct guest guest;
    struct ram ram;
    struct history history;
    struct faults faults;
    struct world_device devices[WORLD_DEVICES];

    uint64_t clock;
    bool translating;
    bool queue_on;
    bool section;       /* a DMA section is open, until the removal of memory goes on */
    bool dirty;         /* tables, memory or root changed since the last refresh */

    /* Wait completion: the mirror of ICS and IECTL, and what came. */
    bool wait_complete;
    bool wait_masked;
    bool wait_pending;
    uint64_t wait_messages;
    uint64_t wait_messages_seen;
    uint64_t fault_messages_seen;
    uint64_t device_messages_seen;
    uint64_t denied_events;

    uint64_t takeovers;
    uint64_t accesses; /* how many were allowed, of all */
    uint64_t allowed;

    char notes[WORLD_NOTES][160];
    unsigned note_count;
};

void world_init(struct world *world, uint64_t seed);
void world_fini(struct world *world);

void world_note(struct world *world, const char *format, ...) __attribute__((format(printf, 2, 3)));
_Noreturn void world_fail(struct world *world, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Dies, with the notes, unless error is 0. */
void world_ok(struct world *world, int error, const char *what);

static inline unsigned world_below(struct world *world, unsigned bound)
{
    return random_below(&world->random, bound);
}

static inline bool world_percent(struct world *world, unsigned percent)
{
    return random_percent(&world->random, percent);
}

static inline uint64_t world_page(unsigned page)
{
    return page * RAM_PAGE;
}

/* Refreshes the history when something changed. */
void world_refresh(struct world *world);

/* Lets the unit do all its work, then compares messages and interrupt control registers. */
void world_drain(struct world *world);

/* Compares FSTS and all fault records with a mirror. */
bool world_faults_equal(struct world *world, const struct faults *faults);

/* Takes a random device that is there, or NULL. */
struct world_device *world_any_device(struct world *world);
uint16_t world_any_requester(struct world *world);
uint64_t world_any_page(struct world *world);
uint16_t world_any_domain(struct world *world);

/* Writes the root-table register and sets the root pointer. */
void world_set_root(struct world *world, uint64_t root);

/* Random changes and checks, one file a kind. Each is one operation of the test. */
void world_edit_tables(struct world *world);
void world_edit_context(struct world *world);
void world_edit_root(struct world *world);
void world_build_mapping(struct world *world);
void world_revoke(struct world *world); /* what was used lately: changed, invalidated, used again */

void world_forget_recent(void);            /* before a new seed */
/* A page that was accessed lately, and by whom, so that the next access is there; NULL: none. */
struct world_device *world_recent(struct world *world, uint64_t *iova);
void world_access(struct world *world);     /* read, write or translate */
void world_translated(struct world *world); /* an ATS request, or a translated one */

void world_invalidate(struct world *world);
void world_invalidate_all(struct world *world);
/* Page-selective, of the page of `iova` alone. */
void world_invalidate_page(struct world *world, uint16_t domain, uint64_t iova);
void world_bad_descriptor(struct world *world);
void world_device_tlb(struct world *world);

void world_memory(struct world *world);
void world_device(struct world *world);
void world_command(struct world *world);
void world_clear_faults(struct world *world);
void world_reset(struct world *world);

/* Its state is saved, and another instance goes on in its place. */
void world_take_over(struct world *world);
/* The same, sometimes, whenever the unit is given time to work. */
void world_take_over_sometimes(void *opaque);
int world_on_change(void *opaque, const struct viommu_change *change);

#endif
