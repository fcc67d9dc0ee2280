/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The reverse index of a VM: which slots, of whatever context, map its frames.
 *
 * Pages that lie side by side, eight of one order, share a *block*, which says for each of them
 * which slot maps it. Blocks are in a hash of chains. It grows by one chain at a time, which splits
 * one other (linear hashing), so that no step is longer than a chain; the chains' heads lie in
 * segments that never move. It never shrinks until it is empty: its size is bounded by what was
 * mapped at once. The block that was used last is remembered, and some that became empty are kept
 * for their memory.
 *
 * Slots that map the same page are in a list, in no order, which a *group* stands for in the block;
 * new ones are put in front. So it takes the same time to add or remove a slot however many there
 * are of its page.
 *
 * Going through slots may take several steps, with the lock given up in between: a *walk* stands at
 * a slot, and is moved on when that is removed. What comes meanwhile is not visited, what was there
 * from the beginning, and stays, is visited once.
 *
 * A page that belongs to another VM than the one that was named has an alias besides, in a list of
 * the other. Under the engine's lock.
 */
#ifndef VIOMMU_PV_INDEX_H
#define VIOMMU_PV_INDEX_H

#include "pv/table.h"

#include <stddef.h>

struct pv_block;

struct pv_walk {
    struct pv_walk *next;
    struct pv_slot *slot;   /* the next one, or NULL: those of the next page */
    uint64_t frame;         /* of a walk through the slots of a frame */
    unsigned order;         /* which of the orders comes next */
    uint64_t chain;         /* of a walk through all slots: the next chain, */
    struct pv_block *block; /* the block, or NULL: the first one of that chain, */
    unsigned place;         /* and the place in it */
};

struct pv_index {
    struct pv_block ***segments;
    size_t segment_room;
    uint64_t chains; /* 0: nothing is allocated */
    uint64_t mask;   /* the largest power of two up to the number of chains, less one */
    uint64_t blocks; /* in chains */
    uint64_t count;  /* of slots */
    uint64_t large;  /* of them, not of order 0 */
    uint64_t seed;
    struct pv_block *recent; /* or NULL */
    struct pv_block *spare;  /* blocks in no chain */
    unsigned spare_count;
    struct pv_walk *walks;
};

struct pv_alias {
    struct pv_alias *next;
    struct pv_alias **at;
    struct pv_slot *slot;
    uint32_t owner;
};

void pv_index_init(struct pv_index *index, uint64_t seed);
void pv_index_fini(struct pv_index *index);

/* Takes a slot in. Returns 0 or -ENOMEM. */
int pv_index_add(struct pv_index *index, struct pv_slot *slot);
/* Takes it out; it is in. */
void pv_index_remove(struct pv_index *index, struct pv_slot *slot);
/* Takes out slots of order 0 that lie side by side in a table, as their pages do, each of which is
   the only one that maps its page (pv_slot.at). */
void pv_index_remove_run(struct pv_index *index, const struct pv_slot *slots, unsigned count);
/* Makes the memory that these need for pages of order 0 side by side come into the CPU's caches. */
void pv_index_prefetch(const struct pv_index *index, uint64_t frame, unsigned count);

/* Whether a page of any order is mapped that has the frame in it. */
bool pv_index_has(const struct pv_index *index, uint64_t frame);

/* From now until pv_walk_end(): through the slots whose page, of any order, has the frame in it. */
void pv_walk_begin(struct pv_index *index, struct pv_walk *walk, uint64_t frame);
/* The next one, or NULL. */
struct pv_slot *pv_walk_next(const struct pv_index *index, struct pv_walk *walk);
/* Likewise, through all slots there are, while none comes. It may begin anew. */
void pv_walk_all_begin(struct pv_index *index, struct pv_walk *walk);
struct pv_slot *pv_walk_all_next(const struct pv_index *index, struct pv_walk *walk);
/* Ends either. */
void pv_walk_end(struct pv_index *index, struct pv_walk *walk);

#ifdef VIOMMU_TESTING
/* NULL, or what is wrong. */
const char *pv_index_check(const struct pv_index *index, uint32_t vm);
#endif

#endif
