/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Address spaces: what lies where for a CPU or a device, and what answers an access.
 *
 * A *bus* holds all that belongs together. A *region* is something that can be accessed (RAM, ROM,
 * a model's registers), an IOMMU, a window on another region (an *alias*), or a *container* of
 * regions. Where children of a container overlap, the one of the higher priority is seen; of equal
 * ones that which was added last; where a child shows nothing, those below it do. A *space* shows
 * one region from address 0 on. An IOMMU region leads an address on into a space, its own or
 * another: a *hop*; an access may cross several.
 *
 * Changes of regions are seen by nobody until viommu_bus_commit, which shows all of them at once.
 * Each space is then a flat array of ranges, its *view*, that is never changed, only replaced.
 *
 * Errors of an access, the same everywhere: -ENXIO nothing is there (a bus's decode error); -EIO or
 * what else a region answered (its error); -EROFS a write to ROM; -EACCES an IOMMU refused and has
 * no say of its own; -ELOOP more than VIOMMU_HOPS_MAX IOMMUs in a row; -EDEADLK a region's callback
 * has come back to the same region, or an access to the registers of an IOMMU that it crossed
 * (viommu_bus_stats counts them); -EINVAL the access passes the top of the space; -ENOMEM on a
 * thread's first access.
 *
 * Threads: every function may be called from any thread unless its comment says otherwise.
 * Callbacks are called without a lock, on the thread that makes the access.
 */
#ifndef VIOMMU_SPACE_H
#define VIOMMU_SPACE_H

#include <viommu/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct viommu_bus;
struct viommu_region;
struct viommu_space;

/* IOMMUs that one access may cross. */
#define VIOMMU_HOPS_MAX 8

/* Every attribute index of an IOMMU region, where one is asked for. */
#define VIOMMU_INDEX_ALL UINT32_MAX

/* What is known of an access besides its address. All zero: non-secure, not privileged. */
struct viommu_bus_attrs {
    uint16_t requester; /* who makes it */
    bool secure;
    bool privileged;
    bool unspecified; /* nothing of the above is known */
};

/* Registers of a model. */
struct viommu_region_ops {
    /*
     * An access of `size` bytes, 1, 2, 4 or 8 and not more than max_size, at a multiple of its
     * size. Values are little-endian numbers. Returns 0, or a negative errno for the accessor. May
     * call everything here; an access that leads back to the same region is refused.
     */
    int (*read)(void *opaque, uint64_t offset, unsigned size, const struct viommu_bus_attrs *attrs,
                uint64_t *value);
    int (*write)(void *opaque, uint64_t offset, unsigned size,
                 const struct viommu_bus_attrs *attrs, uint64_t value);
    unsigned max_size; /* 1, 2, 4 or 8; 0 is 8. Longer accesses come in pieces */
};

/* What an IOMMU makes of an address. */
struct viommu_hop {
    struct viommu_space *space; /* where it leads; NULL: nowhere */
    uint64_t address;           /* there */
    uint64_t page;              /* what was said holds for the aligned block of this size around
                                   the address: a power of two; 0: for all of them */
    uint32_t perm;              /* VIOMMU_READ (which includes to execute), VIOMMU_WRITE */
};

/* An IOMMU as a region. */
struct viommu_region_iommu_ops {
    unsigned index_count; /* attribute indexes that it tells apart, 1 to 16 */
    /* The attribute index of an access: below index_count. Must not depend on anything else. */
    unsigned (*index_of)(void *opaque, const struct viommu_bus_attrs *attrs);
    /*
     * What becomes of an address of the region, for all permissions at once. Has no side effects:
     * records no fault, latches nothing, calls nothing of ours. Must be quick; it may take a lock
     * under which viommu_region_iommu_changed is called by nobody. *hop is zeroed.
     */
    void (*translate)(void *opaque, uint64_t address, unsigned index, struct viommu_hop *hop);
    /*
     * A real access (perm: what it needed) that `translate` did not allow: the place to record a
     * fault and to raise an interrupt. Returns 0: reads are zero and writes ignored; a negative
     * errno: the access's; -EAGAIN: it is allowed by now, ask again. NULL is -EACCES.
     */
    int (*refused)(void *opaque, uint64_t address, uint32_t perm, unsigned index,
                   const struct viommu_bus_attrs *attrs);
};

enum viommu_region_kind {
    VIOMMU_REGION_CONTAINER,
    VIOMMU_REGION_RAM,
    VIOMMU_REGION_ROM,
    VIOMMU_REGION_MMIO,
    VIOMMU_REGION_ALIAS,
    VIOMMU_REGION_IOMMU,
};

struct viommu_region_config {
    const char *name; /* copied; NULL is "" */
    enum viommu_region_kind kind;
    uint64_t last;                               /* its last byte; the first is 0 */
    void *host;                                  /* RAM and ROM: where byte 0 lies */
    const struct viommu_region_ops *ops;         /* MMIO; not copied */
    const struct viommu_region_iommu_ops *iommu; /* IOMMU; not copied */
    struct viommu_region *target;                /* alias: of this region ... */
    uint64_t offset;                             /* ... what begins here */
    void *opaque;                                /* for callbacks */
    /*
     * Called with opaque when nobody uses the region any more, after its destruction; from
     * viommu_bus_commit, viommu_bus_wait or viommu_bus_destroy. May be NULL.
     */
    void (*released)(void *opaque);
    /*
     * Whose it is, only compared; NULL: nobody's. An access that has crossed an IOMMU does not
     * reach MMIO of the same owner (-EDEADLK): an IOMMU's own registers. For what belongs to an
     * instance (viommu/device_region.h) its pointer.
     */
    const void *owner;
};

/*
 * Creates a bus without anything. Returns 0, -ENOMEM or -ENOSPC (too many live buses and memories
 * in this process).
 */
int viommu_bus_create(struct viommu_bus **out);

/*
 * Frees the bus and all that is still on it; NULL is accepted. No access and no CPU may be at work,
 * and none of its callbacks.
 */
void viommu_bus_destroy(struct viommu_bus *bus);

/*
 * Creates a region, which lies nowhere yet. Returns 0; -EINVAL for a configuration that makes no
 * sense: a member missing, an alias that passes 2^64, host memory that wraps; -ENOMEM.
 */
int viommu_region_create(struct viommu_bus *bus, const struct viommu_region_config *config,
                         struct viommu_region **out);

/*
 * Gives a region back; NULL is accepted. It leaves its container; its children have none any more.
 * Views that show it go on to do so until the next commit, and an alias of it shows it as long as
 * the alias lives. `released` says when it is over.
 */
void viommu_region_destroy(struct viommu_region *region);

/*
 * Puts a region into a container, its first byte at `at`. What reaches out of the container is not
 * seen. Returns 0; -EINVAL `container` is none, or of another bus, or the region passes 2^64;
 * -EBUSY the region is in a container already.
 */
int viommu_region_add(struct viommu_region *container, struct viommu_region *region, uint64_t at,
                      int32_t priority);

/* Takes a region out of its container. Returns 0, or -ENOENT when it is in none. */
int viommu_region_remove(struct viommu_region *region);

/* A region that is off shows nothing. They begin on. */
void viommu_region_enable(struct viommu_region *region, bool on);

/* What the configuration said. The name lives as long as the region. */
const char *viommu_region_name(const struct viommu_region *region);
enum viommu_region_kind viommu_region_kind(const struct viommu_region *region);

/*
 * Creates a space that shows `root`. It is empty until the next commit. Returns 0, -ENOMEM or
 * -ENOSPC (more than 4,096 spaces; those that went since the last commit count, too).
 */
int viommu_space_create(struct viommu_region *root, struct viommu_space **out);

/*
 * Gives a space back; NULL is accepted. No CPU looks through it any more, no IOMMU leads into it,
 * and no access to it is under way.
 */
void viommu_space_destroy(struct viommu_space *space);

/*
 * Shows all changes, in all spaces at once: an access sees either all of them or none. CPUs drop
 * what they have cached, before the old views are freed. Returns 0. With a negative errno nothing
 * is shown, and the changes are kept for the next commit: -ENOMEM; -ELOOP regions contain
 * themselves, or are nested deeper than 64; -E2BIG a space takes more than a million steps or
 * so to lay out.
 *
 * Does not wait for anybody: see viommu_bus_wait.
 */
int viommu_bus_commit(struct viommu_bus *bus);

/*
 * Waits until no access and no CPU uses what commits and changes of IOMMUs, made before, took
 * away: then memory may be unmapped. Blocks while a CPU has not come to a safe point, or a callback
 * of a region is running. Returns 0, or -EDEADLK from inside a callback, a section or a running
 * CPU, which would wait for itself.
 */
int viommu_bus_wait(struct viommu_bus *bus);

/* What viommu_bus_wait_begin and viommu_bus_wait_end remember. */
struct viommu_bus_ticket {
    uint64_t sections;
    uint64_t calls; /* 0: not yet waited for */
};

/*
 * The same in two halves, for who cannot block: the first takes down what was done until now, the
 * second says whether it is over: 0, or VIOMMU_PENDING. Frees what can be freed.
 */
void viommu_bus_wait_begin(struct viommu_bus *bus, struct viommu_bus_ticket *ticket);
int viommu_bus_wait_end(struct viommu_bus *bus, struct viommu_bus_ticket *ticket);

/* What a bus did. Members are only ever added, at the end. */
struct viommu_bus_stats {
    uint64_t reentries; /* accesses that were refused with -EDEADLK */
};

/* Tells what a bus did, `size` bytes at most (the caller's sizeof). */
void viommu_bus_stats(struct viommu_bus *bus, struct viommu_bus_stats *stats, size_t size);

/*
 * An IOMMU region translates addresses [first, last] otherwise from now on, for one attribute index
 * or VIOMMU_INDEX_ALL. Call it after the new state is what `translate` sees, never before: a CPU
 * may ask again at once. CPUs drop what crossed these addresses at their next safe points. Does not
 * wait; but an access that caused it, through a model's registers, returns to its CPU or its caller
 * only when no other CPU can use the old state any more (except from inside a callback or a running
 * CPU's begin and end: then the outermost access, or the end, waits). It waits for CPUs of the
 * first 8 buses that it changed. A range with first > last is nothing.
 */
void viommu_region_iommu_changed(struct viommu_region *region, uint32_t index, uint64_t first,
                                 uint64_t last);

/*
 * Reads or writes `len` bytes. An access is made in pieces where regions, pages of IOMMUs or sizes
 * demand it, in rising order; the first error ends it, and pieces before it have been made. A
 * naturally aligned access of 1, 2, 4 or 8 bytes to RAM is atomic. Returns 0 or an error of an
 * access, as above.
 */
int viommu_space_read(struct viommu_space *space, uint64_t address, void *buf, size_t len,
                      const struct viommu_bus_attrs *attrs);
int viommu_space_write(struct viommu_space *space, uint64_t address, const void *buf, size_t len,
                       const struct viommu_bus_attrs *attrs);

/* Where an address leads. */
struct viommu_route {
    const struct viommu_region *region; /* what is there; NULL: nothing */
    uint64_t offset;                    /* in it */
    uint64_t first; /* addresses [first, last] around the address lead to the same region, */
    uint64_t last;  /* one after the other, with the same permissions and hops */
    uint32_t perm;  /* what the whole way allows; VIOMMU_EXEC, too */
    unsigned hops;  /* IOMMUs on the way */
};

/*
 * Says where an address leads, without side effects. What is said may change at once, unless the
 * caller sees to it that it does not; the region is only to be looked at until then. Returns 0
 * (also when nothing is there, or nothing is allowed: perm is 0), -ELOOP or -ENOMEM.
 */
int viommu_space_resolve(struct viommu_space *space, uint64_t address,
                         const struct viommu_bus_attrs *attrs, struct viommu_route *out);

/*
 * The ranges of a space as it is shown now, by address: fills in `first`, `last`, `region`,
 * `offset` (of first) of up to *count entries, and sets *count to how many there are; `routes` may
 * be NULL. Returns 0, -ENOSPC when there are more than there was room, or -ENOMEM.
 */
int viommu_space_ranges(struct viommu_space *space, struct viommu_route *routes, size_t *count);

#ifdef __cplusplus
}
#endif

#endif
