/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The slots of a context: a tree of tables by device frame, 9 bits a level, like a page table.
 *
 * Tables of level 0 hold 512 slots for pages of order 0. In those above, an entry is the table
 * below it, or one slot of order 9 (in level 1) or 18 (in level 2). A table knows which of its
 * entries are there, and which of those are full: so the next slot and the next gap are found
 * without a search through what lies between, and an emptied table is freed. A few tables of level
 * 0 stay when they become empty, unless there are many, and one more is kept for its memory:
 * mapping and unmapping a page again and again allocates nothing. The table of level 0 that was
 * used last is remembered. A slot takes one line of the CPU's caches.
 *
 * The slot's other members are the engine's; the tree knows where it lies. All of it is under the
 * engine's lock; a slot stays where it is until it is removed.
 */
#ifndef VIOMMU_PV_TABLE_H
#define VIOMMU_PV_TABLE_H

#include <stdbool.h>
#include <stdint.h>

struct pv_alias;
struct pv_context;

/* A step of a loop whose length is not known beforehand: tests count them. */
#ifdef VIOMMU_TESTING
extern _Thread_local unsigned long pv_steps;

static inline void pv_step(void)
{
    pv_steps++;
}
#else
static inline void pv_step(void)
{
}
#endif

enum pv_slot_state {
    PV_SLOT_FREE = 0,
    PV_SLOT_CLAIMED, /* a call is about to map it */
    PV_SLOT_LIVE,
    PV_SLOT_LEAVING, /* a call is about to unmap it */
    PV_SLOT_PENDING, /* unmapped, and awaits a flush; its references are held */
    PV_SLOT_REVOKED, /* taken away by force: no references, in no index */
    PV_SLOT_GROUP,   /* no slot at all: it stands for several in the index */
};

enum pv_slot_flag {
    PV_FLAG_UNREFERENCED = 1, /* MMIO: no reference was taken */
    PV_FLAG_DIRTY = 2,        /* its writes are logged */
    PV_FLAG_REVOKING = 4,     /* LEAVING or PENDING: REVOKED when it is flushed */
    PV_FLAG_TOLD = 8,         /* its mapper was asked to give it back */
};

struct pv_slot {
    uint64_t device_frame; /* its first */
    uint64_t frame;        /* its first, of the VM that was named */
    uint64_t handle;
    struct pv_slot *next; /* in the index, among those that map the same page */
    struct pv_slot **at;  /* what points to this one there; NULL: no other maps it */
    struct pv_context *context;
    struct pv_alias *alias; /* when the page belongs to another VM than the named one */
    uint32_t vm;            /* that was named */
    uint8_t state;
    uint8_t order;
    uint8_t perm;
    uint8_t flags;
};

enum {
    PV_STAY = 8,
};

struct pv_table;

struct pv_tree {
    struct pv_context *context; /* for its slots */
    struct pv_table *root;      /* or NULL */
    struct pv_table *stay[PV_STAY]; /* tables that stay, empty or not; or NULL */
    unsigned stays;                 /* the one that does so longest */
    struct pv_table *spare;     /* an empty table that is in no place, and not counted, or NULL */
    struct pv_table *recent;    /* of level 0; or NULL */
    unsigned levels;
    uint64_t last;    /* the largest device frame */
    uint64_t *tables; /* how many there are, and may be, in the VM */
    uint64_t tables_max;
    uint64_t slots; /* in use */
};

static inline uint64_t pv_slot_last(const struct pv_slot *slot)
{
    return slot->device_frame + (UINT64_C(1) << slot->order) - 1;
}

void pv_tree_init(struct pv_tree *tree, struct pv_context *context, uint64_t last, uint64_t *tables,
                  uint64_t tables_max);
/* No slot is in use. */
void pv_tree_fini(struct pv_tree *tree);

/* The slot in use that covers a device frame, or NULL. */
struct pv_slot *pv_tree_find(struct pv_tree *tree, uint64_t device_frame);

/* The first slot in use that ends at `from` or behind it, or NULL. */
struct pv_slot *pv_tree_next(const struct pv_tree *tree, uint64_t from);

/*
 * A slot for a page, CLAIMED and otherwise zero. Returns 0; -EEXIST when one in use meets it;
 * -ENOSPC (tables_max) or -ENOMEM.
 */
int pv_tree_claim(struct pv_tree *tree, uint64_t device_frame, unsigned order,
                  struct pv_slot **out);

/*
 * Pages of order 0 side by side, in one table: how many slots from a device frame on are free, or
 * in use, `max` at most; the memory of the first one is on its way into the CPU's caches. Where
 * there is no table yet they are all free.
 */
unsigned pv_tree_free_run(struct pv_tree *tree, uint64_t device_frame, unsigned max);
unsigned pv_tree_used_run(struct pv_tree *tree, uint64_t device_frame, unsigned max,
                          struct pv_slot **out);
/*
 * As many as *count free ones, as pv_tree_free_run() says, become in use; *count becomes how many,
 * not 0. The caller writes all of each of them. Errors as of pv_tree_claim().
 */
int pv_tree_claim_run(struct pv_tree *tree, uint64_t device_frame, unsigned *count,
                      struct pv_slot **out);

/* The same for one slot: whether it is free; and it becomes in use. */
bool pv_tree_is_free(struct pv_tree *tree, uint64_t device_frame);
int pv_tree_claim_one(struct pv_tree *tree, uint64_t device_frame, struct pv_slot **out);

/* The slot is free, and no more. */
void pv_tree_remove(struct pv_tree *tree, struct pv_slot *slot);
/* So are slots of order 0 side by side, in one table. */
void pv_tree_remove_run(struct pv_tree *tree, struct pv_slot *slots, unsigned count);

/* No empty table stays. */
void pv_tree_trim(struct pv_tree *tree);

/* The first device frame in [from, to] that no slot covers. */
bool pv_tree_gap(const struct pv_tree *tree, uint64_t from, uint64_t to, uint64_t *out);

#ifdef VIOMMU_TESTING
/* Checks the whole tree; calls `each` for the slots in order. NULL, or what is wrong. */
const char *pv_tree_check(const struct pv_tree *tree,
                          const char *(*each)(void *opaque, const struct pv_slot *slot),
                          void *opaque);
#endif

#endif
