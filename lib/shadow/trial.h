/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Trials: changes that a guest asked for, and mirrors may refuse.
 *
 * A model whose guest maps by requests has no tables to compare. It keeps the mappings of a domain
 * in a range map, and mirrors of the domain's devices read their layout from that: there is no
 * second record. Each run is one extent, whatever its size. Such a guest hears what became of its
 * request, so a mapping that cannot be made is no difference to be tried again: it is refused, and
 * nothing has changed.
 *
 * Vocabulary. *Mappings* are the range map of one domain; the model's domain uses them, and so does
 * each mirror that has them as its view. A *trial* is one change that mirrors walk to before it
 * counts:
 *   ADD     a run comes
 *   REMOVE  the runs in a range go
 *   VIEW    the devices of a requester get another view
 * Runs that come or go are in the map while mirrors walk; the trial's range tells them from the
 * others. A layout shows the map as it was before the trial, or, *ahead*, as it is to be.
 *
 * When a MAP fails in an ADD or a VIEW, every mirror that takes part stops at the end of the
 * cluster where it is, then walks back over what it has walked over. REMOVE cannot fail: a mirror
 * that does not follow is fenced, and its device denied. So is one that does not answer in time;
 * that is a failure of the trial, too. What a mirror cannot map again on its way back is a
 * difference, as ever, and so is what fails when nobody can be told: memory that came, a mirror
 * that is new, guest memory that a device is to reach one to one because something was taken away.
 *
 * Invariants:
 * - One trial at a time, in one batch, after views were looked at and before tables are synced.
 * - While it lasts the model changes no mappings that a mirror has, or is about to have.
 * - DMA finds nothing in the range of a trial (mappings_find): what comes is not there yet, what
 *   goes is not there any more.
 * - When the model hears that a trial is over, all mirrors that took part hold either what was
 *   asked for, or what they held before.
 *
 * Locking: the IOMMU's lock.
 */
#ifndef VIOMMU_SHADOW_TRIAL_H
#define VIOMMU_SHADOW_TRIAL_H

#include "base/epoch.h"
#include "notify/notify.h"
#include "range/range_map.h"

#include <viommu/iommu.h>

struct shadow_view;

/* In the tags of runs. */
#define MAPPINGS_PERM ((uint64_t)(VIOMMU_READ | VIOMMU_WRITE))
#define MAPPINGS_MMIO UINT64_C(4) /* the guest says that it leads to no memory */

struct mappings {
    struct epoch_deferred deferred;
    struct epoch *epoch;
    struct range_map map; /* device addresses to guest-physical ones */
    _Atomic bool tried;   /* there was a trial, or is: from then on only mappings_find tells */
    bool changes;         /* there is a trial */
    bool adds;            /* what is in its range comes; or it goes */
    struct viommu_range range;
    unsigned users;
};

/*
 * Empty, with one user. Part of what base_alloc gave, at its beginning. They are freed when
 * sections of the epoch that began before have ended: DMA looks into them without the lock.
 */
void mappings_init(struct mappings *mappings, struct epoch *epoch);
struct mappings *mappings_get(struct mappings *mappings);
/* One user less; the last one frees them. NULL is accepted. */
void mappings_put(struct mappings *mappings);

/* What DMA finds at an address. */
static inline bool mappings_find(const struct mappings *mappings, uint64_t address,
                                 struct range_run *run)
{
    return range_map_find(&mappings->map, address, run) &&
           !(mappings->changes && address >= mappings->range.first &&
             address <= mappings->range.last);
}

/* The same without the lock, inside a section. False decides nothing. */
static inline bool mappings_peek(const struct mappings *mappings, uint64_t address,
                                 struct range_run *run, uint64_t *version)
{
    /* Before: a drain after mappings_try leaves nobody there. After: what comes is in the map. */
    return !atomic_load_explicit(&mappings->tried, memory_order_relaxed) &&
           range_map_peek(&mappings->map, address, run, version) == RANGE_FOUND &&
           !atomic_load_explicit(&mappings->tried, memory_order_relaxed);
}

/* Whether what was peeked is so still. Under the lock. */
static inline bool mappings_still(const struct mappings *mappings, uint64_t version)
{
    return range_map_is(&mappings->map, version) &&
           !atomic_load_explicit(&mappings->tried, memory_order_relaxed);
}

/* Before the first trial changes anything. */
static inline void mappings_try(struct mappings *mappings)
{
    atomic_store_explicit(&mappings->tried, true, memory_order_release);
}

/*
 * The first run that ends at `from` or above and begins at `last` or below, as a layout shows it:
 * before the trial, or ahead.
 */
bool mappings_next(const struct mappings *mappings, bool ahead, uint64_t from, uint64_t last,
                   struct range_run *run);

enum trial_kind {
    TRIAL_NONE,
    TRIAL_ADD,
    TRIAL_REMOVE,
    TRIAL_VIEW,
};

/* What mirrors have to say before the model changes mappings. */

/* Whether a mirror has these mappings, or may have them soon: changes are trials then. */
bool follow_shares(const struct viommu *iommu, const struct mappings *mappings);
/* Whether a requester's device has a mirror that is not fenced. */
bool follow_mirrors(const struct viommu *iommu, uint16_t requester);
/*
 * Whether the mirrors of the requesters that `match` names may map all of a range; whether those of
 * one may map all that is in mappings.
 */
bool follow_allows(const struct viommu *iommu, notify_match *match, const void *what,
                   uint64_t first, uint64_t last);
bool follow_allows_all(const struct viommu *iommu, uint16_t requester,
                       const struct mappings *mappings);

/*
 * A trial begins; none is under way. The run of an ADD is in the map already, and those of a REMOVE
 * are whole in the range. `wait` (or NULL) is over with the batch. When it is over the model's
 * `tried` is called.
 */
bool follow_trying(const struct viommu *iommu);
void follow_add(struct viommu *iommu, struct wait *wait, struct mappings *mappings, uint64_t first,
                uint64_t last);
void follow_remove(struct viommu *iommu, struct wait *wait, struct mappings *mappings,
                   uint64_t first, uint64_t last);
void follow_move(struct viommu *iommu, struct wait *wait, uint16_t requester,
                 const struct shadow_view *view);
/* It is to fail (-ECANCELED); a REMOVE goes on. */
void follow_cancel(struct viommu *iommu);

#endif
