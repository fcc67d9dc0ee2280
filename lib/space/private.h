/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of this room share: the bus, its regions and spaces, views, and CPUs.
 *
 * region.c has the tree of regions, flatten.c lays a space out, bus.c publishes and waits, route.c
 * follows an address through IOMMUs, access.c reads and writes, cpu.c is a CPU between its safe
 * points, tlb.c its entries, pair.c who is told of which IOMMU's changes.
 *
 * Vocabulary: a *view* is a flat, immutable array of ranges; a *snapshot* holds the views of all
 * spaces, and is what a commit replaces. A *section* is one of the bus's epoch: what a reader found
 * in a snapshot lives until its section ends. A running CPU is inside one. A *pair* is an IOMMU
 * region and an attribute index as a CPU knows them: it is *armed* while it stands in the region's
 * list. A *link* ties a TLB entry to one pair that it came through, with the address there.
 *
 * Invariants:
 * - A region is freed when its references are gone (its owner's, its container's, those of aliases,
 *   views and spaces), and the calls that began before have ended: `calls` is an epoch of its own,
 *   for callbacks run outside of sections, so that a long one holds back nobody's flush.
 * - Who takes something away (a view, an IOMMU's translation) first makes it unreachable, then asks
 *   CPUs to drop what they have of it, then begins a drain. A CPU's section either began after
 *   that, and then the CPU saw what it was asked, or the drain waits for it.
 * - A pair is armed before the IOMMU is asked, so a change that the answer does not know yet is
 *   told of, and dropped at the next safe point, after the entry was made.
 *
 * Locking: `lock` guards the tree of regions, references and commits. `told` guards the lists of
 * armed pairs and what CPUs are asked; it nests inside `lock`. A CPU's entries, links and pairs
 * belong to the thread that runs it. Callbacks are made without either, but for `kick`.
 */
#ifndef VIOMMU_SPACE_PRIVATE_H
#define VIOMMU_SPACE_PRIVATE_H

#include "base/epoch.h"

#include <pthread.h>
#include <viommu/cpu_tlb.h>
#include <viommu/space.h>

#define SPACES_MAX 4096u
#define NEST_MAX 64u             /* of containers and aliases */
#define STEPS_MAX (1u << 20)     /* regions and ranges looked at for one view */
#define INDEXES_MAX 16u          /* attribute indexes of an IOMMU */
#define CALLS_MAX 16u            /* callbacks inside callbacks, of one thread */
#define CHANGED_MAX 8u           /* buses that one access waits for */
#define ASKED_MAX 64u            /* ranges that a CPU is asked to drop at once */
#define CACHED_HOPS_MAX 4u       /* of one TLB entry */

struct pair;

struct viommu_region {
    struct viommu_bus *bus;
    struct viommu_region *next; /* among all of the bus */
    struct viommu_region *prev;
    char *name;
    enum viommu_region_kind kind;
    uint64_t id; /* never given twice */
    uint64_t last;
    char *host;
    const struct viommu_region_ops *ops;
    const struct viommu_region_iommu_ops *iommu;
    struct viommu_region *target;
    uint64_t offset;
    void *opaque;
    void (*released)(void *opaque);
    const void *owner;

    /* Under the bus's lock. */
    size_t references;
    uint64_t changed; /* the bus's change that last touched it */
    bool off;
    struct viommu_region *container;
    uint64_t at;
    int32_t priority;
    struct viommu_region *children; /* by falling priority; of equal ones the last added first */
    struct viommu_region *sibling;
    struct viommu_region *sibling_prev;

    struct epoch_deferred deferred; /* of `calls` */
    struct pair **armed;            /* by attribute index; under `told` */
};

struct view_range {
    uint64_t first;
    uint64_t last;
    uint64_t offset; /* of first, in the region */
    struct viommu_region *region;
};

struct view {
    size_t references; /* snapshots; under the bus's lock */
    const struct viommu_region *root; /* that it shows; only compared */
    uint64_t built;    /* the bus's change that it knows */
    uint64_t *firsts;  /* again, for the search */
    _Atomic uint32_t hint; /* the range that was found last */
    uint32_t count;
    struct view_range ranges[];
};

struct snapshot {
    struct epoch_deferred deferred;
    struct viommu_bus *bus;
    uint32_t count;
    struct view *views[]; /* by a space's number; NULL: no such space */
};

struct viommu_space {
    struct viommu_bus *bus;
    struct viommu_region *root;
    uint32_t number;
};

struct viommu_bus {
    struct epoch epoch; /* sections: snapshots and TLBs */
    struct epoch calls; /* callbacks of regions */
    _Atomic(struct snapshot *) snapshot;
    _Atomic uint64_t reentries;

    pthread_mutex_t lock;
    struct viommu_region *regions;
    struct viommu_space *spaces[SPACES_MAX];
    uint32_t space_count; /* numbers given so far */
    uint64_t changes;
    uint64_t last_id;

    pthread_mutex_t told;
    struct viommu_cpu *cpus;
};

/* What this thread is doing on buses. */
struct space_thread {
    unsigned sections;  /* open, of any bus */
    struct call *calls; /* callbacks, the innermost first */
    struct viommu_bus *changed[CHANGED_MAX]; /* buses whose IOMMUs an access has changed */
    unsigned changed_count;
    struct viommu_cpu *running; /* CPUs, of any bus */
};
extern _Thread_local struct space_thread space_thread
    __attribute__((visibility("hidden"), tls_model("initial-exec")));

/* A callback that this thread is in. */
struct call {
    struct call *outer;
    const struct viommu_region *region;
};

/* ---- region.c ---- */

/* Under the lock: a reference more, or less; the last one frees the region when calls are over. */
void region_get(struct viommu_region *region);
void region_put(struct viommu_region *region);

/* Under the lock: notes a change of the region. */
void region_touch(struct viommu_region *region);

/* Frees it at once, and says so to `released`. */
void region_free(struct viommu_region *region);

/* ---- flatten.c ---- */

/* Lays out what the region shows. Under the lock. Returns 0, -ENOMEM, -ELOOP or -E2BIG. */
int view_build(struct viommu_region *root, struct view **out);

/* Whether what the region shows may have changed after the bus's change `since`. Under the lock. */
bool view_outdated(const struct viommu_region *root, uint64_t since);

/* ---- bus.c ---- */

/* Sections: of a thread that runs no CPU, for a moment; and of a running CPU. */
bool section_enter(struct viommu_bus *bus);
void section_leave(struct viommu_bus *bus);

static inline struct snapshot *snapshot_now(struct viommu_bus *bus)
{
    return atomic_load_explicit(&bus->snapshot, memory_order_acquire);
}

/*
 * After an access, outside of sections: waits for CPUs where the access changed an IOMMU. Inside of
 * one, or of a callback, the outermost access does it.
 */
void bus_settle(struct viommu_bus *bus);

/* ---- route.c ---- */

struct hop {
    struct viommu_region *region;
    uint32_t index;
    uint64_t address;
    uint32_t pair; /* of the CPU that asks */
};

struct route {
    struct viommu_region *region; /* where it ends; NULL: nowhere */
    uint64_t offset;
    uint64_t before; /* so many bytes before and behind the address go the same way */
    uint64_t after;
    uint32_t perm;
    unsigned hop_count;
    bool uncached;    /* not every hop has a pair */
    int refuser;      /* the first hop that did not allow what was needed; -1: none */
    struct hop hops[VIOMMU_HOPS_MAX];
};

/*
 * Follows an address. `need` are the permissions for which to find the refuser: the way ends there.
 * With a CPU, its pairs are armed on the way. Inside a section. Returns 0 or -ELOOP.
 */
int route_find(struct viommu_bus *bus, const struct viommu_space *space, uint64_t address,
               const struct viommu_bus_attrs *attrs, uint32_t need, struct viommu_cpu *cpu,
               struct route *route);

/* The range of the view that holds the address, or NULL: then [*first, *last] is the gap. */
const struct view_range *view_find(struct view *view, uint64_t address, uint64_t *first,
                                   uint64_t *last);

/* ---- access.c ---- */

/* As viommu_space_read and _write, for a fetch, too. Copies from or into buf. */
int space_access(struct viommu_space *space, uint64_t address, void *buf, size_t len,
                 const struct viommu_bus_attrs *attrs, uint32_t need);

/* ---- pair.c, tlb.c, cpu.c ---- */

#define NO_LINK UINT32_MAX
#define NO_PAIR UINT32_MAX

struct pair {
    /* The thread's that runs the CPU. */
    uint64_t id;   /* of the region; 0: the pair is free */
    uint32_t index;
    uint32_t links;
    uint32_t next; /* in its bucket, or among the free */
    /* Under `told`. */
    struct viommu_cpu *cpu;
    struct viommu_region *region; /* that it stands in the list of; NULL: not armed */
    struct pair *armed_next;
    struct pair *armed_prev;
};

/* A TLB entry's tie to a pair. Numbered: entry * CACHED_HOPS_MAX + hop. */
struct link {
    uint32_t pair;
    uint32_t next; /* in its bucket */
    uint32_t prev;
    uint64_t first; /* where the page's first byte crossed the IOMMU */
};

struct slot {
    uint32_t links;      /* used of its links */
    uint64_t generation; /* of the part, when it was filled */
};

struct asked_range {
    uint32_t pair;
    uint64_t first;
    uint64_t last;
};

struct part {
    struct viommu_space *space;
    struct viommu_bus_attrs attrs;
};

struct viommu_cpu {
    struct viommu_cpu_tlb tlb; /* first: what is used most */
    struct viommu_bus *bus;
    struct viommu_cpu_config config;
    struct part parts[VIOMMU_CPU_INDEXES_MAX];
    unsigned depth; /* begins without ends */
    bool away;      /* in an access that has left the section: callbacks run */
    bool passed;    /* a safe point, since the section that its thread's CPUs share began */
    struct viommu_cpu *running_next; /* of its thread */

    struct viommu_tlb_entry *entries; /* of all parts, one after the other */
    struct slot *slots;               /* the same */
    struct link *links;
    uint32_t *link_buckets; /* by pair and page */
    uint32_t link_bucket_count; /* a power of two */
    uint32_t slot_count;
    struct pair *pairs;
    uint32_t *pair_buckets;
    uint32_t pair_bucket_count; /* a power of two */
    uint32_t pair_free;
    _Atomic uint64_t stats[6]; /* by the owner; read by anybody */

    /* Under `told`. */
    struct viommu_cpu *next;
    struct asked_range asked[ASKED_MAX];
    unsigned asked_count;
    bool asked_all;
    uint32_t armed;
};

enum { STAT_FILLS, STAT_UNCACHED, STAT_DROPPED, STAT_RANGED, STAT_FULL };

static inline void cpu_count(struct viommu_cpu *cpu, unsigned stat, uint64_t by)
{
    uint64_t was = atomic_load_explicit(&cpu->stats[stat], memory_order_relaxed);

    atomic_store_explicit(&cpu->stats[stat], was + by, memory_order_relaxed);
}

/* pair.c */

int pairs_init(struct viommu_cpu *cpu);
void pairs_fini(struct viommu_cpu *cpu);

/*
 * The armed pair of an IOMMU region and an attribute index: found, or made. NO_PAIR when there are
 * too many.
 */
uint32_t pair_arm(struct viommu_cpu *cpu, struct viommu_region *region, uint32_t index);

/* Under `told`: disarms the pairs of a region that goes. */
void pairs_forget(struct viommu_region *region);

/* Disarms and frees the pair if it has no links. */
void pair_rest(struct viommu_cpu *cpu, uint32_t pair);

/* cpu.c; under `told` */

/* Asks for a safe point. */
void cpu_ask(struct viommu_cpu *cpu);
/* Asks to drop all. */
void cpu_ask_all(struct viommu_cpu *cpu);
/* Asks to drop what crossed [first, last] of a pair. */
void cpu_ask_range(struct viommu_cpu *cpu, const struct pair *pair, uint64_t first, uint64_t last);

/* tlb.c */

int tlb_init(struct viommu_cpu *cpu);
void tlb_fini(struct viommu_cpu *cpu);
void tlb_flush(struct viommu_cpu *cpu, unsigned index);
void tlb_flush_page(struct viommu_cpu *cpu, unsigned index, uint64_t address);
void tlb_flush_range(struct viommu_cpu *cpu, uint32_t pair, uint64_t first, uint64_t last);
/* Unties entries that full flushes have left behind. */
void tlb_sweep(struct viommu_cpu *cpu);
/*
 * Makes an entry of a route that can be cached: it holds for the whole page of `address` (the
 * CPU's). perm: what the CPU's own MMU allows.
 */
void tlb_insert(struct viommu_cpu *cpu, unsigned index, uint64_t address, const struct route *route,
                uint32_t perm);

#endif
