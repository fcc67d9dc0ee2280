/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The range map: which runs of addresses lead where.
 *
 * Vocabulary. A *run* is [first, last], both included, so the whole 64-bit space is one run; runs
 * of a map never overlap. Its *target* is where `first` leads (iova -> gpa, say) and advances with
 * the address. Its *tag* is the owner's: permissions, flags, a number. A run whose tag has
 * RANGE_NO_TARGET leads nowhere. A *gap* is what lies free between runs. What a call inserts stays
 * as it is: only the calls that say so (split, cut, merge) change the borders of runs.
 *
 * A B+-tree: see range/tree.h for its nodes. Every operation on one run is O(log n); cut is, for
 * each run.
 *
 * Memory. A call that returns -ENOMEM has changed nothing. Insert, split and cut are the calls that
 * may need memory, at most one allocation for each level of the tree; range_map_reserve makes it in
 * advance, so that what follows cannot fail (reserve, fill, publish).
 *
 * Locking: none. The owner of a map locks; look-ups (of a const map) may run beside each other,
 * nothing beside a change or a search for a gap. A cursor is good until the next change.
 *
 * But for range_map_peek, a look-up that runs beside anything. Each change makes the map's version
 * odd, and when it is over even again; who peeks goes on only where the version is as it was, and
 * otherwise throws away what it read. What it reads must still be memory: an owner who lets others
 * peek keeps nodes (range_map_keep), and gives them back (range_map_trim) when those who may have
 * peeked before they were taken out have ended.
 */
#ifndef VIOMMU_RANGE_RANGE_MAP_H
#define VIOMMU_RANGE_RANGE_MAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* In a tag: the run has no target (kept as 0). The other 63 bits are the owner's. */
#define RANGE_NO_TARGET (UINT64_C(1) << 63)

/* No tree is higher: the lowest fill of its nodes makes that more runs than memory can hold. */
#define RANGE_HEIGHT_MAX 12

struct range_node;

struct range_run {
    uint64_t first;
    uint64_t last;
    uint64_t target;
    uint64_t tag;
};

/* Nodes that wait to be used. */
struct range_spare {
    struct range_node *nodes;
    size_t count;
};

struct range_map {
    struct range_node *root; /* NULL: empty */
    unsigned height;         /* levels of nodes */
    size_t count;            /* runs */
    size_t nodes[2];         /* in the tree: leaves, inner nodes */
    struct range_spare spare[2];
    size_t spare_keep; /* so many of each kind are not given back */
    _Atomic uint64_t version; /* odd: it is being changed */
#ifdef VIOMMU_TESTING
    size_t unchecked; /* changes since the last check */
#endif
};

/* A place in the map, and the way to it: index[0] is in a leaf, index[height - 1] in the root. */
struct range_path {
    struct range_node *node[RANGE_HEIGHT_MAX];
    unsigned index[RANGE_HEIGHT_MAX];
};

struct range_cursor {
    const struct range_map *map;
    struct range_path path;
};

/* An empty map; it needs no memory. */
void range_map_init(struct range_map *map);

/* Frees all memory and leaves an empty map. */
void range_map_fini(struct range_map *map);

/* Where an address of the run leads. */
static inline uint64_t range_run_target(const struct range_run *run, uint64_t address)
{
    return run->tag & RANGE_NO_TARGET ? 0 : run->target + (address - run->first);
}

/*
 * Shortens the run to what lies in [first, last], which it meets; the target moves with the front.
 */
static inline void range_run_clip(struct range_run *run, uint64_t first, uint64_t last)
{
    if (run->first < first) {
        run->target = range_run_target(run, first);
        run->first = first;
    }
    if (run->last > last) {
        run->last = last;
    }
}

/*
 * Adds a run. Returns 0, -EINVAL (first > last, or a target that wraps), -EEXIST (a part of it is
 * taken), or -ENOMEM.
 */
int range_map_insert(struct range_map *map, const struct range_run *run);

/*
 * Removes the run that is exactly [first, last], and tells what it was where `erased` is not NULL.
 * Returns 0 or -ENOENT. Needs no memory.
 */
int range_map_erase(struct range_map *map, uint64_t first, uint64_t last, struct range_run *erased);

/* Removes a run that is exactly this one, with its target and tag. Returns 0 or -ENOENT. Needs no
   memory. */
int range_map_erase_run(struct range_map *map, const struct range_run *run);

/* What range_map_erase_inside took away. */
struct range_erased {
    size_t count;
    uint64_t first; /* of the first run, and the last of the last one; where there were some */
    uint64_t last;
};

/*
 * Removes the runs that lie in [first, last], unless one reaches over a border: then nothing has
 * changed. Returns 0 (nothing there is fine), -ERANGE (one does) or -EINVAL. Needs no memory.
 * *erased is filled in where 0 is returned. One run, as wide as the range, is found once.
 */
int range_map_erase_inside(struct range_map *map, uint64_t first, uint64_t last,
                           struct range_erased *erased);

/* Gives the run that is exactly [first, last] another tag, which like the old one has a target or
   not. Returns 0, -ENOENT or -EINVAL. Needs no memory. */
int range_map_retag(struct range_map *map, uint64_t first, uint64_t last, uint64_t tag);

/*
 * Removes [first, last] from whatever there is: runs inside go, runs that cross a border lose a
 * part, one that crosses both becomes two. Returns 0 (nothing there is fine), -EINVAL or -ENOMEM.
 */
int range_map_cut(struct range_map *map, uint64_t first, uint64_t last);

/*
 * Makes the address the beginning of a run: the run that contains it becomes two, unless it begins
 * there. Returns 0, -ENOENT (no run contains it) or -ENOMEM.
 */
int range_map_split(struct range_map *map, uint64_t address);

/*
 * Joins the run that contains the address with its neighbours, where they are contiguous in address
 * and target and have one tag. Returns whether that changed something. Needs no memory.
 */
bool range_map_merge(struct range_map *map, uint64_t address);

/* The run that contains the address. */
bool range_map_find(const struct range_map *map, uint64_t address, struct range_run *run);

enum range_peek {
    RANGE_FREE,    /* no run contains the address */
    RANGE_FOUND,
    RANGE_CHANGES, /* not known: the map is being changed */
};

/*
 * The run that contains the address, beside changes (see above). *version (with RANGE_FOUND) is
 * that of the map which has this run.
 */
enum range_peek range_map_peek(const struct range_map *map, uint64_t address, struct range_run *run,
                               uint64_t *version);

/* Whether that is still its version. By whoever keeps changes away. */
static inline bool range_map_is(const struct range_map *map, uint64_t version)
{
    return atomic_load_explicit(&map->version, memory_order_relaxed) == version;
}

/* From now on nodes that are taken out are kept, until range_map_trim or range_map_fini. */
void range_map_keep(struct range_map *map);

/* Gives back what is kept, but for some. */
void range_map_trim(struct range_map *map);

/* The run that contains the address, or the first one after it. */
bool range_map_from(const struct range_map *map, uint64_t address, struct range_run *run);

/* The last run that ends before the address. */
bool range_map_before(const struct range_map *map, uint64_t address, struct range_run *run);

/*
 * Iteration: range_cursor_seek, then range_cursor_next while it returns true. The first run is that
 * of range_map_from(first); the last one begins at `last` or below.
 */
void range_cursor_seek(struct range_cursor *cursor, const struct range_map *map, uint64_t first);
bool range_cursor_next(struct range_cursor *cursor, uint64_t last, struct range_run *run);

/*
 * Finds `size` free addresses inside [first, last], the first of them a multiple of `align` (a
 * power of two). Never wraps. Returns 0, -ENOSPC, or -EINVAL.
 *
 * The lowest place, in O(log n), where gaps are as aligned as what is asked for (all of them in
 * pages, and a page asked for). Where many gaps are large enough but lie badly, it is the lowest
 * until RANGE_GAP_TRIES of them were seen, then the lowest that fits however it lies, again in
 * O(log n); only if there is none of those, every gap of that size is looked at. What it learns it
 * keeps: not beside look-ups.
 */
int range_map_find_gap(struct range_map *map, uint64_t first, uint64_t last, uint64_t size,
                       uint64_t align, uint64_t *found);

#define RANGE_GAP_TRIES 64

/*
 * From now until range_map_release, `operations` calls of insert, split or cut find the memory that
 * they need, whatever is erased and merged between them. A second call does not add to the first:
 * what it asks for is counted from then on. Returns 0 or -ENOMEM.
 */
int range_map_reserve(struct range_map *map, size_t operations);

/* Gives back what the reservation has left. */
void range_map_release(struct range_map *map);

/* Bytes that the map uses now, spare memory included. */
size_t range_map_memory(const struct range_map *map);

#ifdef VIOMMU_TESTING
/*
 * Aborts where an invariant does not hold. Called by itself after every change of a map of up to a
 * thousand runs, and after every so many in a larger one.
 */
void range_map_check(const struct range_map *map);
#endif

#endif
