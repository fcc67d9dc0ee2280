/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Batches: what was asked for, in an order in which nothing is away that need not be.
 *
 * A batch first brings mirrors in line with guest memory, then asks the model for the views that
 * were to be looked at again. The shadows that mirrors are to switch to are filled while those
 * still have their old view (but for shadows that others leave: those only have to be there); then
 * they switch; only then are the other shadows synced, so that a device that left a set of tables
 * does not see them being taken apart. Between the two, mirrors walk to what a trial asks for.
 * Last, what had failed is tried again.
 */
#include "shadow/follow.h"

#include "base/alloc.h"
#include "iommu/iommu.h"

#include <errno.h>

/* Ranges that one sync keeps apart; more of them are one large one. */
#define RANGES_MAX 512
/* Slots of a shadow without users that are freed for a unit of budget. */
#define FREE_SLOTS 64
#define QUOTA_BASE (16ULL << 20)

void follow_init(struct viommu *iommu, const struct viommu_config *config)
{
    iommu->follow.batch_open = 1;
    iommu->follow.quota = config->shadow_quota;
    iommu->follow.policy = config->rewrite_policy;
}

static void shadow_free(struct shadow *shadow)
{
    range_set_fini(&shadow->wanted);
    range_set_fini(&shadow->ranges);
    base_free(shadow);
}

/* Frees some of those without users. Returns false when there are none. */
static bool free_dying(struct viommu *iommu)
{
    struct shadow *shadow = iommu->follow.dying;

    if (!shadow) {
        return false;
    }
    if (shadow_map_free_some(&shadow->map, FREE_SLOTS)) {
        iommu->follow.dying = shadow->next;
        shadow_free(shadow);
    }
    return true;
}

void follow_fini(struct viommu *iommu)
{
    follow_memory_stop(iommu);
    while (free_dying(iommu)) {
    }
    trial_fini(iommu);
}

void follow_want(struct viommu *iommu)
{
    iommu->follow.wanted = true;
    iommu_kick(iommu);
}

uint64_t follow_bytes(const struct viommu *iommu)
{
    return iommu->follow.map_bytes + iommu->follow.odd_bytes;
}

uint64_t follow_quota(const struct viommu *iommu)
{
    uint64_t pages = iommu->follow.memory ? iommu->follow.memory->pages : 0;

    return iommu->follow.quota ? iommu->follow.quota : pages * 4096 / 100 + QUOTA_BASE;
}

void follow_stats(const struct viommu *iommu, struct viommu_stats *stats)
{
    stats->shadow_bytes = follow_bytes(iommu);
    for (const struct shadow *shadow = iommu->follow.shadows; shadow; shadow = shadow->next) {
        stats->shadow_pages += shadow->map.pages;
    }
}

/* The shadow of a set of tables, for one more user. NULL: there is no memory. */
static struct shadow *shadow_get(struct viommu *iommu, uint64_t root, uint8_t levels)
{
    struct shadow *shadow = iommu->follow.shadows;

    while (shadow && (shadow->root != root || shadow->map.levels != levels)) {
        shadow = shadow->next;
    }
    if (!shadow) {
        shadow = base_alloc(sizeof(*shadow));
        if (!shadow) {
            return NULL;
        }
        shadow->root = root;
        shadow_map_init(&shadow->map, levels);
        range_set_init(&shadow->wanted);
        range_set_init(&shadow->ranges);
        shadow->next = iommu->follow.shadows;
        iommu->follow.shadows = shadow;
    }
    shadow->users++;
    return shadow;
}

static void patch_drop(struct viommu *iommu)
{
    if (iommu->follow.patched || iommu->follow.cutting) {
        iommu->follow.patched = false;
        iommu->follow.cutting = false;
        shadow_slot_free(&iommu->follow.patch.slot);
    }
}

void shadow_put(struct viommu *iommu, struct shadow *shadow)
{
    struct shadow **link = &iommu->follow.shadows;

    if (--shadow->users) {
        return;
    }
    if (iommu->follow.syncing == shadow) {
        patch_drop(iommu);
        iommu->follow.syncing = NULL;
    }
    while (*link != shadow) {
        link = &(*link)->next;
    }
    *link = shadow->next;
    iommu->follow.map_bytes -= shadow->map.bytes;
    shadow->next = iommu->follow.dying;
    iommu->follow.dying = shadow;
    iommu_kick(iommu);
}

/* ---- requests ------------------------------------------------------------------------------- */

static void shadow_want(struct shadow *shadow, uint64_t first, uint64_t last,
                        enum viommu_cause cause)
{
    if (cause > shadow->wanted_cause) {
        shadow->wanted_cause = cause;
    }
    if (shadow->wanted_all) {
        return;
    }
    if (shadow->wanted.map.count >= RANGES_MAX || range_set_add(&shadow->wanted, first, last)) {
        shadow->wanted_all = true;
    }
}

void follow_join(struct viommu *iommu, struct wait *wait)
{
    if (wait) {
        wait->follow = iommu->follow.batch_open;
    }
    follow_want(iommu);
}

void follow_invalidate(struct viommu *iommu, struct wait *wait, int domain, uint64_t first,
                       uint64_t last, enum viommu_cause cause)
{
    bool any = false;

    for (struct mirror *mirror = iommu->follow.mirrors; mirror; mirror = mirror->next) {
        /* One that is to be looked at may be in any domain. */
        bool all = domain == FOLLOW_ANY_DOMAIN || mirror->review || mirror->review_wanted;

        if (mirror->shadow && (all || mirror->domain == domain)) {
            shadow_want(mirror->shadow, first, last, cause);
            any = true;
        }
        if (mirror->target_shadow && (all || mirror->target.domain == domain)) {
            shadow_want(mirror->target_shadow, first, last, cause);
            any = true;
        }
        any |= mirror->review || mirror->review_wanted || mirror->switching || mirror->fence_due;
    }
    if (any) {
        follow_join(iommu, wait);
    }
}

void follow_review_mirror(struct viommu *iommu, struct mirror *mirror, enum viommu_cause cause)
{
    mirror->review_wanted = true;
    mirror->review_cause = cause;
    follow_want(iommu);
}

void follow_review(struct viommu *iommu, struct wait *wait, notify_match *match, const void *what,
                   enum viommu_cause cause)
{
    for (struct mirror *mirror = iommu->follow.mirrors; mirror; mirror = mirror->next) {
        const struct requester *requester =
            atomic_load(&mirror->subscriber->device->requesters[0]);

        if (match && !match(requester, what)) {
            continue;
        }
        if (!mirror->subscriber->fenced) {
            mirror->review_wanted = true;
            mirror->review_cause = cause;
            follow_join(iommu, wait);
        } else if (mirror->fence_due) {
            follow_join(iommu, wait); /* it may hold what it did */
        }
    }
}

bool follow_done(const struct viommu *iommu, const struct wait *wait)
{
    return wait->follow <= iommu->follow.batch_done;
}

uint64_t follow_deadline(const struct viommu *iommu)
{
    uint64_t deadline = 0;

    if (iommu->follow.phase != FOLLOW_IDLE) {
        return 0; /* it goes on with an answer */
    }
    for (const struct mirror *mirror = iommu->follow.mirrors; mirror; mirror = mirror->next) {
        if (mirror->retry_time && (!deadline || mirror->retry_time < deadline)) {
            deadline = mirror->retry_time;
        }
    }
    return deadline;
}

/* ---- the batch ------------------------------------------------------------------------------ */

static bool retry_due(const struct viommu *iommu)
{
    uint64_t deadline = follow_deadline(iommu);

    return deadline && deadline <= iommu_now(iommu);
}

static void shadow_take_wanted(struct shadow *shadow)
{
    struct range_set none = shadow->ranges; /* empty since its last sync */

    shadow->ranges = shadow->wanted;
    shadow->wanted = none;
    shadow->sync = shadow->wanted_all || shadow->ranges.map.count;
    shadow->all = shadow->wanted_all;
    shadow->wanted_all = false;
    shadow->cause = shadow->wanted_cause;
    shadow->wanted_cause = VIOMMU_CAUSE_PAGES;
}

static bool batch_begin(struct viommu *iommu)
{
    struct follow *follow = &iommu->follow;
    bool due = retry_due(iommu);
    bool adopting = false;

    if (!follow->wanted && !due) {
        return false;
    }
    follow->wanted = false;
    follow->stop_told = false;
    follow->batch_open++;
    for (struct mirror *mirror = follow->mirrors; mirror; mirror = mirror->next) {
        adopting |= mirror->adopting;
        mirror->review = mirror->review_wanted;
        mirror->review_wanted = false;
        mirror->retry_now |= mirror->retry_time && mirror->retry_time <= iommu_now(iommu);
    }
    for (struct shadow *shadow = follow->shadows; shadow; shadow = shadow->next) {
        shadow_take_wanted(shadow);
    }
    follow_memory_catch_up(iommu);
    if (adopting) {
        /* What those hold is cut by memory as it was: they need a view before that changes. */
        follow->wanted = follow->notes != NULL;
        follow->phase = FOLLOW_REVIEW;
    } else {
        follow->phase = FOLLOW_MEMORY;
    }
    return true;
}

static void memory_step(struct viommu *iommu)
{
    struct follow *follow = &iommu->follow;

    if (follow->memory_next || follow->memory_failed) {
        follow->memory_failed = false;
        follow_memory_end(iommu);
        return;
    }
    if (!follow->notes) {
        follow->phase = FOLLOW_REVIEW;
        return;
    }
    if (!follow_memory_begin(iommu)) {
        follow->memory_failed = true; /* ended when the fence functions have been called */
        return;
    }
    for (struct mirror *mirror = follow->mirrors; mirror; mirror = mirror->next) {
        struct layout from = mirror_layout(iommu, mirror);
        struct layout to = from;

        if (mirror->subscriber->fenced) {
            continue;
        }
        to.memory = follow->memory_next;
        walk_begin(mirror, &from, &to, 0, UINT64_MAX, VIOMMU_CAUSE_MEMORY);
        mirror_activate(iommu, mirror);
    }
}

bool view_is(const struct mirror *mirror, const struct shadow_view *view)
{
    if (mirror->kind != view->kind) {
        return false;
    }
    switch (view->kind) {
    case VIEW_IDENTITY:
        return mirror->identity_last == view->last;
    case VIEW_TABLES:
        return mirror->shadow->root == view->root && mirror->shadow->map.levels == view->levels;
    case VIEW_MAPPINGS:
        return mirror->source == view->mappings;
    default:
        return true;
    }
}

/* Asks the model what the mirror's device reaches now. */
static void review(struct viommu *iommu, struct mirror *mirror)
{
    const struct requester *requester = atomic_load(&mirror->subscriber->device->requesters[0]);
    struct shadow_view view = {0};

    mirror->review = false;
    if (mirror->subscriber->fenced) {
        return;
    }
    (void)epoch_enter(iommu->epoch); /* cannot fail in viommu_process */
    iommu->model->view(iommu, requester->id, &view);
    epoch_leave(iommu->epoch);
    if (!mirror->adopting && view_is(mirror, &view)) {
        mirror->domain = view.domain;
        return;
    }
    if (view.kind == VIEW_TABLES) {
        mirror->target_shadow = shadow_get(iommu, view.root, view.levels);
        if (!mirror->target_shadow) {
            mirror_fence_for(iommu, mirror, -ENOMEM, true, "no memory to follow a device's tables");
            return;
        }
        mirror->target_shadow->fill = true;
        mirror->target_shadow->cause = mirror->review_cause;
    }
    if (view.mappings) {
        (void)mappings_get(view.mappings);
    }
    mirror->target = view;
    mirror->switching = true;
}

/*
 * A shadow that a mirror is about to leave is not synced before that: it would follow tables that
 * it has no more. Those who come to it take what it has, and follow with the others.
 */
static void put_off_fills(struct viommu *iommu)
{
    for (struct mirror *mirror = iommu->follow.mirrors; mirror; mirror = mirror->next) {
        if (mirror->switching && mirror->shadow && mirror->shadow->fill) {
            mirror->shadow->fill = false;
            mirror->shadow->sync = true;
            mirror->shadow->all = true;
        }
    }
}

static void review_step(struct viommu *iommu)
{
    for (struct mirror *mirror = iommu->follow.mirrors; mirror; mirror = mirror->next) {
        if (mirror->review) {
            review(iommu, mirror);
            return;
        }
    }
    put_off_fills(iommu);
    iommu->follow.phase = FOLLOW_FILL;
}

/* The members have walked to the patch. */
static void patch_commit(struct viommu *iommu, struct shadow *shadow)
{
    struct follow *follow = &iommu->follow;
    uint64_t before = shadow->map.bytes;

    shadow_map_replace(&shadow->map, follow->patch.level, follow->patch.first,
                       &follow->patch.slot);
    follow->map_bytes += shadow->map.bytes - before;
    follow->patched = false;
}

/* Whether something that a mirror misses lies in what was synced. */
static bool misses_some(const struct mirror *mirror, const struct shadow *shadow)
{
    struct range_cursor cursor;
    struct range_run run;
    struct range_run missing;

    if (shadow->fill || shadow->all) {
        return true;
    }
    range_cursor_seek(&cursor, &shadow->ranges.map, 0);
    while (range_cursor_next(&cursor, UINT64_MAX, &run)) {
        if (range_map_from(&mirror->missing, run.first, &missing) && missing.first <= run.last) {
            return true;
        }
    }
    return false;
}

/* What members miss already in what is to be synced is tried again after it. */
static void sync_begin(struct viommu *iommu, struct shadow *shadow)
{
    struct follow *follow = &iommu->follow;

    follow->syncing = shadow;
    follow->cause_now = shadow->cause;
    follow->sync_at = 0;
    shadow->tables = 0;
    for (struct mirror *mirror = follow->mirrors; mirror; mirror = mirror->next) {
        mirror->retry_now |=
            mirror->shadow == shadow && mirror->missing.count && misses_some(mirror, shadow);
    }
}

static void sync_end(struct viommu *iommu, struct shadow *shadow)
{
    shadow->fill = false;
    shadow->sync = false;
    shadow->all = false;
    range_set_fini(&shadow->ranges);
    iommu->follow.syncing = NULL;
}

static struct shadow *next_to_sync(const struct viommu *iommu, bool fill)
{
    struct shadow *shadow = iommu->follow.shadows;

    while (shadow && !(fill ? shadow->fill : shadow->sync)) {
        shadow = shadow->next;
    }
    return shadow;
}

/* Syncs those to be filled, or those with ranges. */
static void sync_phase_step(struct viommu *iommu, bool fill, unsigned *budget)
{
    struct follow *follow = &iommu->follow;

    if (!follow->syncing) {
        struct shadow *next = next_to_sync(iommu, fill);

        if (!next) {
            follow->phase = fill ? FOLLOW_SWITCH : FOLLOW_RETRY;
            return;
        }
        sync_begin(iommu, next);
    }
    if (follow->patched) {
        patch_commit(iommu, follow->syncing);
    } else if (!sync_step(iommu, follow->syncing, budget)) {
        sync_end(iommu, follow->syncing);
    }
}

static void switch_begin(struct viommu *iommu, struct mirror *mirror)
{
    struct layout from = mirror_layout(iommu, mirror);
    struct layout to = view_layout(iommu, &mirror->target);

    to.shadow = mirror->target_shadow;
    mirror->switched = true;
    walk_begin(mirror, &from, &to, 0, UINT64_MAX, mirror->review_cause);
    mirror_activate(iommu, mirror);
}

static void switch_end(struct viommu *iommu, struct mirror *mirror)
{
    struct shadow *shadow = mirror->target_shadow;

    mirror->target_shadow = NULL;
    mirror_set_view(iommu, mirror, &mirror->target, shadow);
    mappings_put(mirror->target.mappings);
    mirror->target.mappings = NULL;
    mirror->switching = false;
    mirror->switched = false;
    if (mirror->adopting) {
        adoption_over(iommu, mirror);
    }
}

static void switch_step(struct viommu *iommu)
{
    struct mirror *next;
    bool began = false;

    for (struct mirror *mirror = iommu->follow.mirrors; mirror; mirror = next) {
        next = mirror->next;
        if (mirror->switched) {
            switch_end(iommu, mirror);
        } else if (mirror->switching) {
            switch_begin(iommu, mirror);
            began = true;
        }
    }
    if (!began) {
        iommu->follow.phase = FOLLOW_TRIAL;
    }
}

static void retry_step(struct viommu *iommu)
{
    struct follow *follow = &iommu->follow;

    for (struct mirror *mirror = follow->mirrors; mirror; mirror = mirror->next) {
        if (mirror->retry_now && mirror->missing.count) {
            mirror_retry_begin(iommu, mirror);
        }
        mirror->retry_now = false;
    }
    if (!follow->active) {
        follow->phase = FOLLOW_IDLE;
        follow->batch_done = follow->batch_open - 1;
        iommu->work_came = true;
    }
}

static void batch_step(struct viommu *iommu, unsigned *budget)
{
    switch (iommu->follow.phase) {
    case FOLLOW_IDLE:
        break;
    case FOLLOW_MEMORY:
        memory_step(iommu);
        break;
    case FOLLOW_REVIEW:
        review_step(iommu);
        break;
    case FOLLOW_FILL:
        sync_phase_step(iommu, true, budget);
        break;
    case FOLLOW_SWITCH:
        switch_step(iommu);
        break;
    case FOLLOW_TRIAL:
        if (!trial_step(iommu)) {
            iommu->follow.phase = FOLLOW_SYNC;
        }
        break;
    case FOLLOW_SYNC:
        sync_phase_step(iommu, false, budget);
        break;
    case FOLLOW_RETRY:
        retry_step(iommu);
        break;
    }
}

bool follow_work(struct viommu *iommu, unsigned *budget)
{
    struct follow *follow = &iommu->follow;

    for (;;) {
        bool active;

        mirrors_fence_due(iommu, budget);
        active = mirrors_work(iommu, budget);
        if (!*budget) {
            return true;
        }
        if (follow->fences_due) {
            continue; /* nothing is complete before those are called */
        }
        if (active) {
            return false; /* it goes on with an answer */
        }
        follow_memory_answer_stale(iommu);
        if (follow->phase != FOLLOW_IDLE) {
            batch_step(iommu, budget);
            (*budget)--;
        } else if (free_dying(iommu)) {
            (*budget)--;
        } else if (!batch_begin(iommu)) {
            return false;
        }
    }
}
