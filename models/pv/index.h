/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The reverse index of a VM: which slots, of whatever context, map its frames.
 *
 * A hash of chains through the slots, by their first frame. It grows by one chain at a time, which
 * splits one other (linear hashing), so that no step is longer than a chain; the chains' heads lie
 * in segments that never move. Eight frames in a row have chains side by side. It never shrinks
 * until it is empty: its size is bounded by what was mapped at once.
 *
 * A page that belongs to another VM than the one that was named has an alias besides, in a list of
 * the other. Under the engine's lock.
 */
#ifndef VIOMMU_PV_INDEX_H
#define VIOMMU_PV_INDEX_H

#include "pv/table.h"

#include <stddef.h>

struct pv_index {
    struct pv_slot ***segments;
    size_t segment_room;
    uint64_t chains; /* 0: nothing is allocated */
    uint64_t count;
    uint64_t seed;
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

/*
 * The first slot, or the next after another, whose page of any order has the frame in it. The index
 * has not changed in between.
 */
struct pv_slot *pv_index_find(const struct pv_index *index, uint64_t frame);
struct pv_slot *pv_index_after(const struct pv_index *index, uint64_t frame,
                               const struct pv_slot *slot);

/* The first slot of the chain at *position or of a later one, which *position becomes; or NULL. */
struct pv_slot *pv_index_any(const struct pv_index *index, uint64_t *position);

#ifdef VIOMMU_TESTING
/* NULL, or what is wrong with the chains. */
const char *pv_index_check(const struct pv_index *index, uint32_t vm);
#endif

#endif
