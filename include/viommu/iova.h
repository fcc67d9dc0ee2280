/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An IOVA space: which device addresses may be used, by whom, and for what.
 *
 * Several parties share the addresses of a device. The host's IOMMU translates only some of them;
 * firmware, interrupt controllers and bridges keep others for themselves; the guest, or the
 * embedder, maps memory in what is left. The space knows all of them, and says no, with the two
 * sides named, before an address gets two meanings.
 *
 * An *owner* is one party, a device or the embedder itself, by name. It has
 * - *limits*: the addresses that it can use at all (its apertures). What is usable is what no
 *   owner's limits leave out; without limits it is everything;
 * - *reservations*: addresses kept for a purpose. Each is an object of its own. They may touch and
 *   overlap, are never joined, and releasing one gives back exactly what it took;
 * - *memory*: guest memory that is there, or is *declared*: it may come later;
 * - *mappings*: what is mapped now.
 *
 * A *window* is a reservation of type VIOMMU_IOVA_SW_MSI: addresses at which the doorbells of the
 * host's interrupt controllers are mapped, one mapping a doorbell, when they are asked for. A
 * *movable* window gets out of the way of what comes later, until its first doorbell is mapped;
 * then it stays.
 *
 * Modes. In an *identity* space there is no IOMMU that the guest can see: device addresses are
 * guest-physical ones, and a guest's driver may use any of them without anybody noticing. So
 * memory, present or declared, must lie inside the limits and outside reservations, and nothing
 * else is placed there. Otherwise the guest chooses device addresses itself, and memory conflicts
 * with nothing; only windows are not placed where it was said to be.
 *
 * What conflicts:
 *
 *     comes            conflicts with
 *     mapping          limits, reservations, mappings, memory (identity)
 *     memory           limits, reservations, mappings (all: identity)
 *     reservation      mappings, doorbells, memory (identity)
 *     limits           mappings, doorbells, memory (identity)
 *
 * A reservation of type VIOMMU_IOVA_DIRECT_RELAXABLE conflicts with nothing: only allocation and
 * the placing of windows avoid it. A movable window that is not in use conflicts only where it has
 * no other place to go.
 *
 * Devices are *in* a space (viommu_device_config.space) that is not an identity space: what may be
 * used in it is what they may use. A virtio-iommu tells its guest, and refuses anything else; a
 * VT-d guest may map what it likes, but what is not usable is not sent to mirrors. What guests have
 * mapped for the devices conflicts, as mappings do, with reservations and limits that come, though
 * it is not in the space: the holder is then "domain N of BB:DD.F" or, of a mirror, "device
 * BB:DD.F". A movable window that has to go is put where no guest has mapped anything.
 *
 * A call that fails has changed nothing.
 *
 * Threads: one at a time for a space; whoever has several takes a lock around. Adding a device to
 * the space, removing one that is in it, and subscribing a mirror to one or ending its subscription
 * are calls for the space in this sense. No call blocks; those that change what may be used take
 * the locks of the instances whose devices are in the space.
 */
#ifndef VIOMMU_IOVA_H
#define VIOMMU_IOVA_H

#include <viommu/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct viommu_iova;
struct viommu_iova_owner;
struct viommu_iova_reservation;
struct viommu_iova_memory;
struct viommu_iova_follower;
struct viommu_memory;

/* The longest name of an owner, with its final zero. */
#define VIOMMU_IOVA_NAME_MAX 64

/* What a reservation is for. */
enum viommu_iova_type {
    VIOMMU_IOVA_DIRECT,           /* mapped one to one, always: firmware uses it */
    VIOMMU_IOVA_DIRECT_RELAXABLE, /* the same until the device is given to somebody */
    VIOMMU_IOVA_RESERVED,         /* not to be used */
    VIOMMU_IOVA_MSI,              /* the platform takes writes there for interrupts */
    VIOMMU_IOVA_SW_MSI,           /* a window for doorbells, which software maps */
    VIOMMU_IOVA_P2P, /* a bridge's window: requests go to a neighbour, never to the IOMMU */
};

#define VIOMMU_IOVA_TYPES 6

/* The name of a type as Linux has it in sysfs where it has one: "direct", "direct-relaxable",
   "reserved", "msi", "sw-msi", "p2p"; NULL for another number. */
const char *viommu_iova_type_name(enum viommu_iova_type type);

/* What a side of a conflict is. */
enum viommu_iova_kind {
    VIOMMU_IOVA_RESERVATION,
    VIOMMU_IOVA_LIMIT, /* its range is what the limits leave out */
    VIOMMU_IOVA_MAPPING,
    VIOMMU_IOVA_DOORBELL,
    VIOMMU_IOVA_MEMORY,
};

struct viommu_iova_side {
    enum viommu_iova_kind kind;
    enum viommu_iova_type type; /* of a reservation */
    struct viommu_range range;  /* all of it */
    char owner[VIOMMU_IOVA_NAME_MAX];
};

/* Why a call was refused. */
struct viommu_iova_conflict {
    struct viommu_iova_side asked; /* what was to come */
    struct viommu_iova_side holder; /* what is there */
};

struct viommu_iova_config {
    bool identity;    /* see above */
    uint64_t granule; /* the smallest page, a power of two; 0: 4096 */
};

/* A space with nothing in it. Returns 0, -EINVAL (the granule) or -ENOMEM. */
int viommu_iova_create(const struct viommu_iova_config *config, struct viommu_iova **out);

/*
 * Destroys the space and everything in it. NULL is accepted. Devices that are in it go on by what
 * they knew last.
 */
void viommu_iova_destroy(struct viommu_iova *space);

/* Adds an owner. The name is for people, copied, and need not be the only one. Returns 0; -EINVAL
   for a name that is empty or too long; -ENOMEM. */
int viommu_iova_owner_create(struct viommu_iova *space, const char *name,
                             struct viommu_iova_owner **out);

/* Removes an owner and all that it has. NULL is accepted. */
void viommu_iova_owner_destroy(struct viommu_iova_owner *owner);

/*
 * Says which addresses the owner can use: `count` ranges in any order, once for an owner. Returns
 * 0; -EEXIST when a mapping or doorbell, -EADDRINUSE when memory would lie outside; -EADDRNOTAVAIL
 * when a movable window would, and has no other place; each with *conflict filled in (where not
 * NULL). -EALREADY when the owner has limits; -EINVAL for no range, or a first above its last;
 * -ENOSPC for more than a million claims in the space, or more ranges than the guest of a device
 * can be told of; -ERANGE when a device is behind a unit of a greater address width that is
 * started; -ENOMEM.
 */
int viommu_iova_limit(struct viommu_iova_owner *owner, const struct viommu_range *ranges,
                      size_t count, struct viommu_iova_conflict *conflict);

struct viommu_iova_request {
    enum viommu_iova_type type;
    /* Where; a movable window: where it is put if that is free. */
    struct viommu_range range;
    /* For VIOMMU_IOVA_SW_MSI only: made of whole granules, and `range` aligned to `align`. */
    bool movable;
    struct viommu_range bounds; /* where a movable window may be; {0, 0}: anywhere */
    uint64_t align;             /* of a movable window, a power of two; 0: the granule */
};

/*
 * Reserves everything that is asked for, or nothing; out[i] is of requests[i]. Returns 0; -EEXIST
 * (meets a mapping or a doorbell), -EADDRINUSE (meets memory), -EADDRNOTAVAIL (a movable window has
 * no place): with *conflict filled in where not NULL, for a window that came with the call both
 * sides are the window; -EINVAL for a request that makes no sense; -ENOSPC and -ERANGE as above;
 * -ENOMEM.
 */
int viommu_iova_reserve(struct viommu_iova_owner *owner, const struct viommu_iova_request *requests,
                        size_t count, struct viommu_iova_reservation **out,
                        struct viommu_iova_conflict *conflict);

/* Gives the reservation back, with its doorbells. NULL is accepted. */
void viommu_iova_release(struct viommu_iova_reservation *reservation);

/* Where it is now. A movable window changes places inside other calls: the generation tells. */
struct viommu_range viommu_iova_reservation_range(
    const struct viommu_iova_reservation *reservation);

/*
 * Adds guest memory [first, last]; `declared`: it is not there, but may come. Memory may overlap
 * other memory: it comes where it was declared. Returns 0; in an identity space -ERANGE (outside an
 * owner's limits), -EADDRNOTAVAIL (meets a reservation, or a movable window with no other place),
 * -EEXIST (meets a mapping), with *conflict filled in where not NULL; -EINVAL for a first above its
 * last; -ENOSPC for more than a million claims in the space; -ENOMEM.
 */
int viommu_iova_memory_add(struct viommu_iova_owner *owner, const struct viommu_range *range,
                           bool declared, struct viommu_iova_memory **out,
                           struct viommu_iova_conflict *conflict);

/* Takes memory away, or says that it will not come. NULL is accepted; memory that follows a slot
   (below) is left alone. */
void viommu_iova_memory_remove(struct viommu_iova_memory *memory);

/*
 * The owner's memory follows a guest memory (viommu/memory.h): it has the slots that are there, and
 * those that batches bring, from before they can be reached until the batch that removes them is
 * complete. A batch that does not fit into the space is refused: viommu_memory_batch_commit returns
 * -EADDRNOTAVAIL, and nothing has changed but that a movable window, of another space that follows
 * the same memory, may have moved. Memory that the owner has already, not declared, with the range
 * of a slot (a loaded space has that) is taken over: its handle is void. Several spaces may follow
 * one memory, and a space several.
 *
 * Threads: committing batches of the memory, and viommu_memory_process, are calls for the space
 * from now on.
 *
 * Returns 0; -EADDRNOTAVAIL when a slot does not fit, with *conflict filled in where not NULL;
 * -EINVAL; -ENOSPC for more than a million claims in the space; -ENOMEM.
 */
int viommu_iova_follow(struct viommu_iova_owner *owner, struct viommu_memory *memory,
                       struct viommu_iova_follower **out, struct viommu_iova_conflict *conflict);

/* Why the last batch was refused that this follower refused. Returns 0; -ENOENT: it refused none;
   -EINVAL. */
int viommu_iova_follower_refused(const struct viommu_iova_follower *follower,
                                 struct viommu_iova_conflict *conflict);

/* Ends it: slots are no memory of the owner's any more, and no batch is refused. NULL is accepted;
   when the owner is removed its followers end. */
void viommu_iova_unfollow(struct viommu_iova_follower *follower);

/*
 * Whether memory could be added there, as far as fixed things are concerned (a movable window is
 * taken to find a place). Returns 0, or what viommu_iova_memory_add would for a conflict, with
 * *conflict filled in where not NULL: its `asked` has the name that is given; -EINVAL.
 */
int viommu_iova_memory_fits(const struct viommu_iova *space, const struct viommu_range *range,
                            const char *name, struct viommu_iova_conflict *conflict);

/*
 * Notes that [first, last], whole granules, is mapped. Returns 0; -ERANGE (outside an owner's
 * limits), -EADDRNOTAVAIL (meets a reservation, or a movable window with no other place), -EEXIST
 * (meets a mapping), -EADDRINUSE (meets memory): with *conflict filled in where not NULL; -EINVAL;
 * -ENOMEM. O(log n) of the mappings.
 */
int viommu_iova_map(struct viommu_iova_owner *owner, const struct viommu_range *range,
                    struct viommu_iova_conflict *conflict);

/* Notes that the mapping that is exactly [first, last], and the owner's, is gone. Returns 0 or
   -ENOENT. O(log n). */
int viommu_iova_unmap(struct viommu_iova_owner *owner, const struct viommu_range *range);

/*
 * Finds `size` bytes (whole granules) inside `within` (NULL: anywhere) that are free: inside all
 * limits, outside every reservation, mapping and, in an identity space, memory; *first is a
 * multiple of `align`, a power of two (0: the granule). They are then a mapping of the owner's.
 * Never wraps. Returns 0, -ENOSPC, -EINVAL or -ENOMEM. O(log n) where mappings are as aligned as
 * what is asked for.
 */
int viommu_iova_alloc(struct viommu_iova_owner *owner, uint64_t size, uint64_t align,
                      const struct viommu_range *within, uint64_t *first);

/*
 * Gives the device address of a doorbell, a host-physical address, in a window. The first time its
 * granule gets an address inside the window, *fresh (where not NULL) is true, and the embedder maps
 * that granule; later it is the same address. Doorbells in one granule share it. Each call counts
 * one use. The window does not move any more. Returns 0; -ENOSPC when the window is full; -EINVAL
 * when the reservation is no window; -ENOMEM.
 */
int viommu_iova_doorbell_map(struct viommu_iova_reservation *window, uint64_t doorbell,
                             uint64_t *iova, bool *fresh);

/* Ends one use. *last (where not NULL) is true when it was the last: the embedder unmaps it.
   Returns 0, or -ENOENT when it is not in use. */
int viommu_iova_doorbell_unmap(struct viommu_iova_reservation *window, uint64_t doorbell,
                               bool *last);

/* An entry of the list of what is reserved. */
struct viommu_iova_reserved {
    enum viommu_iova_type type;
    struct viommu_range range;
    bool movable;      /* it can still move */
    size_t doorbells;  /* mapped in it */
    const char *owner; /* valid while the owner is there */
};

/*
 * The two lists, each in order of addresses: what may be used (inside all limits, outside
 * reservations that conflict) in ranges that do not touch, and every reservation by itself. *count
 * is the room, then how many there are; with room for fewer nothing is filled in and -ENOSPC is
 * returned. Else 0 or -ENOMEM. *generation (where not NULL) is that of the list.
 */
int viommu_iova_usable(const struct viommu_iova *space, struct viommu_range *ranges, size_t *count,
                       uint64_t *generation);
int viommu_iova_reserved(const struct viommu_iova *space, struct viommu_iova_reserved *entries,
                         size_t *count, uint64_t *generation);

/* A number that changes whenever one of the two lists does. */
uint64_t viommu_iova_generation(const struct viommu_iova *space);

/*
 * Saved state. All of a space is saved: owners with their limits, reservations with the places
 * where windows are and the doorbells in them, memory, mappings, and the generation; not which
 * devices are in it. *data is given back by viommu_save_free (viommu/save.h). Returns 0, -EINVAL or
 * -ENOMEM.
 */
int viommu_iova_save(const struct viommu_iova *space, void **data, size_t *size);

/*
 * Makes a space of a saved state. `data` need not be trusted, but nobody changes it meanwhile. What
 * is in the space the next functions tell. Devices are added to it as to any other, before the
 * state of their instance is loaded: that of a virtio-iommu fits where the space closes nothing
 * that is mapped (else viommu_load returns -EINVAL). Returns 0; -EBADMSG when this is no saved
 * space, was cut short or changed, or makes no sense (so with thousands of reservations each of
 * which lies over thousands of others); -ENOTSUP when it is newer than this library; -EINVAL;
 * -ENOMEM.
 */
int viommu_iova_load(const void *data, size_t size, struct viommu_iova **out);

/*
 * What is in a space: the owners, what an owner has reserved, and its memory, the newest first;
 * `after` NULL: the first of them. NULL: there is no other. A loaded space has the order of the
 * saved one.
 */
struct viommu_iova_owner *viommu_iova_owner_next(const struct viommu_iova *space,
                                                 const struct viommu_iova_owner *after);
struct viommu_iova_reservation *viommu_iova_reservation_next(
    const struct viommu_iova_owner *owner, const struct viommu_iova_reservation *after);
struct viommu_iova_memory *viommu_iova_memory_next(const struct viommu_iova_owner *owner,
                                                   const struct viommu_iova_memory *after);

/* What they are. */
const char *viommu_iova_owner_name(const struct viommu_iova_owner *owner);
enum viommu_iova_type viommu_iova_reservation_type(
    const struct viommu_iova_reservation *reservation);
struct viommu_range viommu_iova_memory_range(const struct viommu_iova_memory *memory,
                                             bool *declared); /* may be NULL */

#ifdef __cplusplus
}
#endif

#endif
