/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The inside of an IOVA space (viommu/iova.h). Private to this room.
 *
 * Everything that takes addresses is a *claim* of a range: a reservation, what an owner's limits
 * leave out, a mapping, and in an identity space memory. All claims are in the *cover* (cover.h),
 * which answers two questions in O(log n): is all of this free, and where is something free. What
 * it is that meets a range is asked only when something does: then the lists of reservations and
 * limits, which are short, are gone through, and the map of mappings is searched.
 *
 * Cost. Mapping where nothing is claimed, unmapping and allocation are O(log n) of all there is. To
 * find out what it is that conflicts, to claim over a relaxable reservation, and to place a window,
 * is O(n) of the reservations, limits and memory: that is what a host and its embedder have, not
 * what a guest can make. A guest's own requests never come here: models go by what is closed to a
 * device (device/reserved.h), in O(log n).
 *
 * Invariants, except inside space_claim:
 * - The cover is that of the claims, and of nothing else.
 * - A mapping meets no other mapping, no limit, no reservation that conflicts, no memory in an
 *   identity space. Its tag is its owner.
 * - A movable window without doorbells ("loose") meets no other claim.
 * - A doorbell lies inside its window, and outside every other reservation that conflicts, limit
 *   and memory of an identity space.
 */
#ifndef VIOMMU_IOVA_SPACE_H
#define VIOMMU_IOVA_SPACE_H

#include <viommu/iova.h>

#include "iova/tenant.h"
#include "range/range_map.h"

#define SPACE_CLAIMS_MAX (1u << 20)
#define SPACE_GRANULE 4096

struct viommu_iova_owner {
    struct viommu_iova_owner *next;
    struct viommu_iova *space;
    struct viommu_range *holes; /* what its limits leave out, in order */
    size_t hole_count;
    bool limited;
    size_t mappings;
    uint32_t number; /* while the space is saved */
    char name[VIOMMU_IOVA_NAME_MAX];
};

struct viommu_iova_reservation {
    struct viommu_iova_reservation *next;
    struct viommu_iova_owner *owner;
    enum viommu_iova_type type;
    struct viommu_range range;
    bool movable; /* until the first doorbell */
    bool placed;  /* its range is in the cover */
    bool moving;  /* inside space_claim */
    struct viommu_range before; /* where it was, while it moves; .first > .last: nowhere */
    struct viommu_range bounds;
    uint64_t align;
    struct range_map doorbells; /* granules by doorbell, leading to their iova; tag: uses */
    struct range_map inside;    /* the same by iova, leading to the doorbell */
};

struct viommu_iova_memory {
    struct viommu_iova_memory *next;
    struct viommu_iova_owner *owner;
    struct viommu_range range;
    bool declared;
    const struct viommu_iova_follower *follower; /* it is that of a slot, and goes with it */
};

struct viommu_iova {
    bool identity;
    uint64_t granule;
    struct range_map cover;
    struct range_map mappings;
    struct viommu_iova_owner *owners;
    struct viommu_iova_reservation *reservations; /* the newest first */
    struct viommu_iova_memory *memories;
    struct viommu_iova_follower *followers;
    struct iova_tenant *tenants; /* in the order of their locks */
    size_t claims; /* without mappings */
    uint64_t generation;
    bool loading; /* the invariants do not hold yet */
};

static inline bool space_meets(const struct viommu_range *a, const struct viommu_range *b)
{
    return a->first <= b->last && b->first <= a->last;
}

static inline bool space_type_conflicts(enum viommu_iova_type type)
{
    return type != VIOMMU_IOVA_DIRECT_RELAXABLE;
}

/* It moves out of the way. */
static inline bool space_is_loose(const struct viommu_iova_reservation *reservation)
{
    return reservation->movable && !reservation->doorbells.count;
}

static inline struct viommu_iova_owner *space_mapping_owner(const struct range_run *run)
{
    return (struct viommu_iova_owner *)(uintptr_t)(run->tag & ~RANGE_NO_TARGET);
}

/* Describes a side. */
void space_side(struct viommu_iova_side *side, enum viommu_iova_kind kind,
                const struct viommu_range *range, const struct viommu_iova_owner *owner);

/*
 * conflict.c: whether `asked`, described in *conflict, meets something that is fixed. Returns 0, or
 * the error with the holder filled in.
 */
int space_conflict(const struct viommu_iova *space, struct viommu_iova_conflict *conflict);

/*
 * window.c: adds claims to the cover, and moves loose windows out of their way; those that are not
 * placed yet get a place. `listed`: they are in the lists already, and change what may be used.
 * Tenants go by that from now on. Returns 0; -EADDRNOTAVAIL, with the holder in *conflict (what was
 * asked when it is a window that comes); what a tenant says (tenant.h); -ENOMEM. After a failure
 * all is as it was.
 */
int space_claim(struct viommu_iova *space, const struct viommu_range *ranges, size_t count,
                bool listed, struct viommu_iova_conflict *conflict);

/*
 * space.c: decodes a request into a reservation that is in no list yet. Returns 0 or -EINVAL; then,
 * too, it can be freed.
 */
int space_decode(struct viommu_iova_owner *owner, const struct viommu_iova_request *request,
                 struct viommu_iova_reservation *out);

/*
 * space.c: adds memory, all of it or none, the first of the space's list then: *out, and what comes
 * after it there. Returns what viommu_iova_memory_add does.
 */
int space_add_memory(struct viommu_iova_owner *owner, const struct viommu_range *ranges,
                     size_t count, bool declared, struct viommu_iova_memory **out,
                     struct viommu_iova_conflict *conflict);
void space_remove_memory(struct viommu_iova_memory *memory);

/* follow.c: the owner goes. */
void followers_end(struct viommu_iova_owner *owner);

/* window.c: frees what a reservation has of doorbells. */
void window_fini(struct viommu_iova_reservation *window);

/* tenant.c: takes the locks of all tenants; the next two are called with them. */
void tenants_lock(struct viommu_iova *space);
void tenants_unlock(struct viommu_iova *space);
/* The lists have changed: all tenants go by them, or none does. Returns what one says
   (tenant.h). */
int tenants_change(struct viommu_iova *space, struct viommu_iova_side *holder);
/* Whether what tenants have mapped is in a window's way; then *behind is where that ends. */
bool tenants_meet(const struct viommu_iova *space, const struct viommu_range *place,
                  uint64_t *behind);
/* More may be used than before. Without the locks. */
void tenants_widen(struct viommu_iova *space);
/* The space goes. */
void tenants_evict(struct viommu_iova *space);

#ifdef VIOMMU_TESTING
/* check.c: aborts where an invariant does not hold. */
void space_check(const struct viommu_iova *space);
#else
static inline void space_check(const struct viommu_iova *space)
{
    (void)space;
}
#endif

#endif
