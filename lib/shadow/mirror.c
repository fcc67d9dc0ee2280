/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One mirror: what it is told, one call at a time, and what becomes of the answers.
 *
 * A MAP that failed is a difference: the piece is kept in `missing`, is not unmapped when it goes,
 * and is tried again: after a pause, when a sync covers it, and when something else was unmapped.
 * Anything else that fails fences the mirror: what it holds is not known any more.
 */
#include "iommu/iommu.h"

#include "base/alloc.h"

#include <errno.h>
#include <string.h>

#define RETRY_PAUSE_MAX 1000000000ULL
/* So many failures in a row end an attempt: whatever the reason is, it lasts. */
#define RETRY_FAILURES 16
#define DEFAULT_DIFFERENCES 65536

static bool range_meet(struct viommu_range *range, const struct viommu_range *other)
{
    range->first = range->first > other->first ? range->first : other->first;
    range->last = range->last < other->last ? range->last : other->last;
    return range->first <= range->last;
}

/* Takes a range out of what is allowed. There is room for one more. */
static void forbid(struct mirror *mirror, const struct viommu_range *range)
{
    struct viommu_range *allowed = mirror->allowed;
    size_t count = 0;

    if (range->first > range->last) {
        return;
    }
    /* The ranges are apart, so one of them at most becomes two: none is overwritten unread. */
    memmove(allowed + 1, allowed, mirror->allowed_count * sizeof(*allowed));
    for (size_t i = 1; i <= mirror->allowed_count; i++) {
        struct viommu_range old = allowed[i];

        if (old.first > range->last || old.last < range->first) {
            allowed[count++] = old;
            continue;
        }
        if (old.first < range->first) {
            allowed[count++] = (struct viommu_range){old.first, range->first - 1};
        }
        if (old.last > range->last) {
            allowed[count++] = (struct viommu_range){range->last + 1, old.last};
        }
    }
    mirror->allowed_count = count;
}

/* Takes out what devices never reach. */
static void forbid_reserved(const struct viommu *iommu, struct mirror *mirror)
{
    struct viommu_range range;

    forbid(mirror, &iommu->model->interrupts);
    for (size_t i = 0; iommu->model->reserved && iommu->model->reserved(iommu, i, &range); i++) {
        forbid(mirror, &range);
    }
}

static size_t reserved_count(const struct viommu *iommu)
{
    struct viommu_range range;
    size_t count = 1; /* the interrupt range */

    for (size_t i = 0; iommu->model->reserved && iommu->model->reserved(iommu, i, &range); i++) {
        count++;
    }
    return count;
}

static int allowed_fill(struct viommu *iommu, struct mirror *mirror)
{
    static const struct viommu_range everything = {0, UINT64_MAX};
    const struct viommu_subscription *what = &mirror->subscriber->what;
    const struct viommu_range *allowed = what->allowed ? what->allowed : &everything;
    size_t count = what->allowed ? what->allowed_count : 1;

    mirror->allowed = base_alloc_array(count + reserved_count(iommu) + 1,
                                       sizeof(*mirror->allowed));
    if (!mirror->allowed) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < count; i++) {
        struct viommu_range range = allowed[i];

        if (range_meet(&range, &what->range)) {
            mirror->allowed[mirror->allowed_count++] = range;
        }
    }
    forbid_reserved(iommu, mirror);
    return 0;
}

int mirror_attach(struct viommu *iommu, struct viommu_subscriber *subscriber)
{
    struct mirror *mirror = base_alloc(sizeof(*mirror));

    if (!mirror) {
        return -ENOMEM;
    }
    mirror->subscriber = subscriber;
    range_map_init(&mirror->odd);
    range_map_init(&mirror->missing);
    range_set_init(&mirror->unmade);
    if (allowed_fill(iommu, mirror)) {
        base_free(mirror);
        return -ENOMEM;
    }
    subscriber->mirror = mirror;
    return 0;
}

void mirror_free(struct mirror *mirror)
{
    range_map_fini(&mirror->odd);
    range_map_fini(&mirror->missing);
    range_set_fini(&mirror->unmade);
    base_free(mirror->allowed);
    base_free(mirror);
}

void mirror_enter(struct viommu *iommu, struct mirror *mirror)
{
    mirror->next = iommu->follow.mirrors;
    iommu->follow.mirrors = mirror;
    follow_review_mirror(iommu, mirror, VIOMMU_CAUSE_REPLAY);
}

static void deactivate(struct viommu *iommu, struct mirror *mirror)
{
    struct mirror **link = &iommu->follow.active;

    if (!mirror->is_active) {
        return;
    }
    while (*link != mirror) {
        link = &(*link)->next_active;
    }
    *link = mirror->next_active;
    mirror->is_active = false;
}

void mirror_activate(struct viommu *iommu, struct mirror *mirror)
{
    if (!mirror->is_active) {
        mirror->is_active = true;
        mirror->next_active = iommu->follow.active;
        iommu->follow.active = mirror;
    }
}

void mirror_count(struct viommu *iommu, struct mirror *mirror)
{
    uint64_t bytes = range_map_memory(&mirror->odd) + range_map_memory(&mirror->missing);

    if (mirror->adopting) {
        return; /* what it holds it was given within another instance's quota */
    }
    iommu->follow.odd_bytes += bytes - mirror->counted;
    mirror->counted = bytes;
}

/* It has no view any more, and nothing to do. */
static void mirror_clear(struct viommu *iommu, struct mirror *mirror)
{
    deactivate(iommu, mirror);
    mirror->walk.active = false;
    mirror->splitting = false;
    mirror->retrying = false;
    mirror->retry_now = false;
    mirror->retry_time = 0;
    mirror->review = false;
    mirror->review_wanted = false;
    mirror->switching = false;
    mirror->switched = false;
    mirror->trying = false;
    mirror->adopting = false;
    mirror->kind = VIEW_NONE;
    mirror->mappings = 0;
    range_map_fini(&mirror->odd);
    range_map_fini(&mirror->missing);
    mirror_count(iommu, mirror);
    if (mirror->shadow) {
        shadow_put(iommu, mirror->shadow);
        mirror->shadow = NULL;
    }
    if (mirror->target_shadow) {
        shadow_put(iommu, mirror->target_shadow);
        mirror->target_shadow = NULL;
    }
    mappings_put(mirror->source);
    mirror->source = NULL;
    mappings_put(mirror->target.mappings);
    mirror->target.mappings = NULL;
}

void mirror_set_view(struct viommu *iommu, struct mirror *mirror, const struct shadow_view *view,
                     struct shadow *shadow)
{
    struct shadow *old = mirror->shadow;
    struct mappings *old_source = mirror->source;

    mirror->kind = view->kind;
    mirror->domain = view->domain;
    mirror->identity_last = view->last;
    mirror->shadow = shadow;
    mirror->source = view->mappings ? mappings_get(view->mappings) : NULL;
    if (old) {
        shadow_put(iommu, old);
    }
    mappings_put(old_source);
}

void mirror_leave(struct viommu *iommu, struct mirror *mirror)
{
    struct mirror **link = &iommu->follow.mirrors;

    while (*link != mirror) {
        link = &(*link)->next;
    }
    *link = mirror->next;
    mirror->gone = true;
    iommu->follow.fences_due -= mirror->fence_due;
    mirror_clear(iommu, mirror);
}

uint64_t mirror_blocks(const struct mirror *mirror, const struct shadow_extent *extent)
{
    if (mirror->subscriber->what.form != VIOMMU_FORM_POW2) {
        return 1;
    }
    return pow2_count_with_target(extent->first, extent->last, extent->gpa);
}

bool mirror_crowded(const struct mirror *mirror)
{
    uint64_t max = mirror->subscriber->what.mappings_max;

    return max && mirror->mappings > max / 4 * 3 + max % 4 * 3 / 4;
}

static uint16_t own_id(const struct mirror *mirror)
{
    return atomic_load(&mirror->subscriber->device->requesters[0])->id;
}

static void tell(struct viommu *iommu, const struct mirror *mirror, enum viommu_event_kind kind,
                 int error, const char *text)
{
    struct viommu_event event = {
        .kind = kind,
        .requester = own_id(mirror),
        .error = error,
        .first = mirror->block.first,
        .last = mirror->block.last,
        .text = text,
    };

    iommu_post_event(iommu, &event);
}

void mirror_fence(struct viommu *iommu, struct mirror *mirror)
{
    mirror->subscriber->fenced = true;
    if (!mirror->fence_due) {
        mirror->fence_due = true;
        iommu->follow.fences_due++;
    }
    if (mirror->busy) {
        mirror->busy = false;
        notify_call_off(iommu, mirror);
    }
    mirror_clear(iommu, mirror);
    iommu_kick(iommu);
}

void mirror_fence_for(struct viommu *iommu, struct mirror *mirror, int error, bool deny,
                      const char *text)
{
    if (mirror->subscriber->fenced) {
        return;
    }
    tell(iommu, mirror, VIOMMU_EVENT_FENCED, error, text);
    if (deny) {
        device_deny(mirror->subscriber->device, error, text);
    }
    trial_fenced(iommu, mirror, error);
    mirror_fence(iommu, mirror);
}

static void fence_take(struct viommu *iommu, struct mirror *mirror)
{
    iommu->follow.fences_due -= mirror->fence_due;
    mirror->fence_due = false;
}

void mirrors_fence_due(struct viommu *iommu, unsigned *budget)
{
    struct mirror *mirror = iommu->follow.mirrors;
    int ret;

    while (mirror && *budget) {
        if (!mirror->fence_due) {
            mirror = mirror->next;
            continue;
        }
        fence_take(iommu, mirror);
        (*budget)--;
        mirror->fencing = true;
        ret = notify_call_fence(iommu, mirror->subscriber);
        mirror->fencing = false;
        if (ret && !mirror->gone) {
            tell(iommu, mirror, VIOMMU_EVENT_HOST_FAILURE, ret,
                 "a mirror that was fenced may still reach memory that it should not");
        }
        mirror = iommu->follow.mirrors; /* others may have come and gone meanwhile */
    }
}

static uint32_t differences_max(const struct mirror *mirror)
{
    uint32_t max = mirror->subscriber->what.differences_max;

    return max ? max : DEFAULT_DIFFERENCES;
}

/* A MAP failed: it is remembered, or the mirror is fenced when that is too much. */
static void difference_add(struct viommu *iommu, struct mirror *mirror, int error)
{
    const struct shadow_extent *block = &mirror->block;
    struct range_run run = {block->first, block->last, block->gpa, block->perm};

    if (mirror->missing.count >= differences_max(mirror)) {
        mirror_fence_for(iommu, mirror, error, true, "a mirror misses too many mappings");
        return;
    }
    if (range_map_insert(&mirror->missing, &run)) {
        mirror_fence_for(iommu, mirror, -ENOMEM, true, "no memory to note what a mirror misses");
        return;
    }
    if (mirror->missing.count == 1) {
        tell(iommu, mirror, VIOMMU_EVENT_DIFFERS, error,
             "a mapping failed: it will be tried again, and so will others that fail");
    }
    mirror_count(iommu, mirror);
    if (!mirror->retry_time) {
        mirror->retry_pause = MIRROR_RETRY_PAUSE;
        mirror->retry_time = iommu_now(iommu) + mirror->retry_pause;
    }
}

/* One that was missing is made, or is not wanted any more. */
static bool difference_remove(struct viommu *iommu, struct mirror *mirror)
{
    const struct shadow_extent *block = &mirror->block;

    if (!mirror->missing.count ||
        range_map_erase(&mirror->missing, block->first, block->last, NULL)) {
        return false;
    }
    mirror_count(iommu, mirror);
    if (!mirror->missing.count) {
        mirror->retry_time = 0;
        tell(iommu, mirror, VIOMMU_EVENT_FOLLOWS, 0, "nothing is missing any more");
    }
    return true;
}

static void map_answered(struct viommu *iommu, struct mirror *mirror, int status)
{
    if (!status) {
        mirror->mappings++;
    }
    if (mirror->retrying) {
        mirror->retry_failed = status ? mirror->retry_failed + 1 : 0;
        mirror->retry_succeeded |= !status;
        if (!status) {
            (void)difference_remove(iommu, mirror);
        }
    } else if (status && !(mirror->trying && trial_map_failed(iommu, mirror, status))) {
        difference_add(iommu, mirror, status);
    }
}

void mirror_answer(struct viommu *iommu, struct mirror *mirror, int status)
{
    mirror->busy = false;
    iommu->stats.calls_failed += status != 0;
    if (mirror->op.kind == VIOMMU_CHANGE_MAP) {
        map_answered(iommu, mirror, status);
    } else if (status) {
        mirror_fence_for(iommu, mirror, status, true, "a mirror failed to follow a change");
    } else if (mirror->op.kind == VIOMMU_CHANGE_UNMAP) {
        mirror->mappings -= mirror->op.pieces;
        if (mirror->missing.count) {
            mirror->retry_now = true; /* there may be room now */
        }
    }
    iommu_kick(iommu);
}

void mirror_timed_out(struct viommu *iommu, struct mirror *mirror)
{
    mirror->busy = false;
    iommu->stats.calls_failed++;
    mirror_fence_for(iommu, mirror, -ETIMEDOUT, true,
                     "a mirror did not acknowledge a change in time");
    iommu_kick(iommu);
}

static void call_count(struct viommu *iommu, enum viommu_change_kind kind)
{
    switch (kind) {
    case VIOMMU_CHANGE_MAP:
        iommu->stats.calls_map++;
        break;
    case VIOMMU_CHANGE_UNMAP:
        iommu->stats.calls_unmap++;
        break;
    case VIOMMU_CHANGE_REPLACE:
        iommu->stats.calls_replace++;
        break;
    default:
        break;
    }
}

/* Where a mapping that is to be made lies in the host. */
static void change_set_host(const struct viommu *iommu, const struct mirror *mirror,
                            struct viommu_change *change)
{
    const struct memory_list *memory =
        mirror->walk.active ? mirror->walk.to.memory : iommu->follow.memory;
    const struct viommu_memory_slot *slot = memory_list_from(memory, change->gpa);

    change->host = (char *)slot->host + (change->gpa - slot->first);
    change->fd = slot->fd;
    change->fd_offset = slot->fd < 0 ? 0 : slot->fd_offset + (change->gpa - slot->first);
}

/* Whether what it is told of leads to one place: not several mappings, nor none. */
static bool has_target(const struct mirror *mirror)
{
    const struct mirror_op *op = &mirror->op;

    return op->pieces == 1 && (op->kind != VIOMMU_CHANGE_SKIPPED || op->extent.perm);
}

/* Tells the mirror of the block that is due. */
static void block_tell(struct viommu *iommu, struct mirror *mirror)
{
    const struct shadow_extent *block = &mirror->block;
    enum viommu_change_kind kind = mirror->op.kind;
    uint64_t max = mirror->subscriber->what.mappings_max;
    struct viommu_change change = {
        .kind = kind,
        .requester = own_id(mirror),
        .first = block->first,
        .last = block->last,
        .cause = mirror->op.cause,
        .gpa = has_target(mirror) ? block->gpa : 0,
        .fd = -1,
    };

    if (kind == VIOMMU_CHANGE_UNMAP && difference_remove(iommu, mirror)) {
        (void)range_set_add(&mirror->unmade, block->first, block->last); /* for statistics only */
        return;
    }
    if (kind == VIOMMU_CHANGE_MAP && max && mirror->mappings >= max) {
        map_answered(iommu, mirror, -ENOSPC);
        return;
    }
    if (kind != VIOMMU_CHANGE_UNMAP) {
        change.perm = block->perm;
    }
    if (kind == VIOMMU_CHANGE_MAP || kind == VIOMMU_CHANGE_REPLACE) {
        change_set_host(iommu, mirror, &change);
    }
    call_count(iommu, kind);
    mirror->busy = true;
    notify_call(iommu, mirror, &change);
}

static void op_begin(struct mirror *mirror)
{
    const struct shadow_extent *extent = &mirror->op.extent;

    mirror->block = *extent;
    mirror->splitting = mirror->subscriber->what.form == VIOMMU_FORM_POW2;
    if (mirror->splitting && mirror->op.kind == VIOMMU_CHANGE_SKIPPED) {
        pow2_begin(&mirror->split, extent->first, extent->last);
    } else if (mirror->splitting) {
        pow2_begin_with_target(&mirror->split, extent->first, extent->last, extent->gpa);
    }
}

/* The next block of the operation under way. */
static bool op_next_block(struct mirror *mirror)
{
    struct pow2_block block;

    if (!mirror->splitting) {
        return false;
    }
    if (!pow2_next(&mirror->split, &block)) {
        mirror->splitting = false;
        return false;
    }
    mirror->block = (struct shadow_extent){
        .first = block.first,
        .last = block.last,
        .gpa = mirror->op.extent.gpa + (block.first - mirror->op.extent.first),
        .perm = mirror->op.extent.perm,
    };
    return true;
}

void mirror_retry_begin(struct viommu *iommu, struct mirror *mirror)
{
    mirror->retry_now = false;
    mirror->retry_time = 0;
    mirror->retrying = true;
    mirror->retry_at = 0;
    mirror->retry_failed = 0;
    mirror->retry_succeeded = false;
    mirror_activate(iommu, mirror);
}

static void retry_end(struct viommu *iommu, struct mirror *mirror)
{
    mirror->retrying = false;
    if (!mirror->missing.count) {
        return;
    }
    mirror->retry_pause = mirror->retry_succeeded ? MIRROR_RETRY_PAUSE : mirror->retry_pause * 2;
    if (mirror->retry_pause > RETRY_PAUSE_MAX) {
        mirror->retry_pause = RETRY_PAUSE_MAX;
    }
    mirror->retry_time = iommu_now(iommu) + mirror->retry_pause;
}

/* The next difference to try again. */
static bool retry_next(struct viommu *iommu, struct mirror *mirror)
{
    uint64_t max = mirror->subscriber->what.mappings_max;
    struct range_run run;

    if (mirror->retry_failed >= RETRY_FAILURES || (max && mirror->mappings >= max) ||
        !range_map_from(&mirror->missing, mirror->retry_at, &run)) {
        retry_end(iommu, mirror);
        return false;
    }
    mirror->op = (struct mirror_op){
        .kind = VIOMMU_CHANGE_MAP,
        .cause = VIOMMU_CAUSE_RETRY,
        .extent = {run.first, run.last, run.target, (uint32_t)run.tag},
        .pieces = 1,
    };
    mirror->block = mirror->op.extent;
    /* Behind the last address there is nothing: a wrapped search would begin anew. */
    if (run.last == UINT64_MAX) {
        mirror->retry_failed = RETRY_FAILURES;
    }
    mirror->retry_at = run.last + 1;
    iommu->stats.retries++;
    return true;
}

/* Finds what the mirror is to be told next. */
static enum walk_result mirror_next(struct viommu *iommu, struct mirror *mirror)
{
    enum walk_result result;

    if (op_next_block(mirror)) {
        return WALK_TELL;
    }
    if (mirror->retrying) {
        return retry_next(iommu, mirror) ? WALK_TELL : WALK_OVER;
    }
    result = walk_next(iommu, mirror, &mirror->op);
    if (result == WALK_TELL) {
        op_begin(mirror);
        if (mirror->splitting) {
            (void)op_next_block(mirror); /* there is one at least */
        }
    }
    return result;
}

bool mirrors_work(struct viommu *iommu, unsigned *budget)
{
    struct mirror *mirror = iommu->follow.active;

    while (mirror && *budget) {
        if (mirror->busy) {
            mirror = mirror->next_active;
            continue;
        }
        switch (mirror_next(iommu, mirror)) {
        case WALK_OVER:
            deactivate(iommu, mirror);
            break;
        case WALK_TELL:
            (*budget)--;
            block_tell(iommu, mirror);
            break;
        case WALK_MORE:
            (*budget)--;
            break;
        }
        mirror = iommu->follow.active; /* a call gives the lock up */
    }
    return iommu->follow.active != NULL;
}
