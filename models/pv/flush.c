/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Paravirtual operations: from LIVE to PENDING to FREE.
 *
 * Each context has a queue of what awaits its flush. A flush notes where the queue ends, has the
 * real IOMMU flushed without the lock, and then drops what lies before that place: what came later
 * waits for a later flush. Two that overlap do no harm: what one has dropped the other does not
 * find.
 */
#include "pv/engine.h"

#include <errno.h>

#include "base/alloc.h"

enum {
    PUTS = 64, /* that are dropped in one go */
};

int pv_slot_link(struct pv_slot *slot, struct pv_vm *named, struct pv_vm *owner)
{
    struct pv_alias *alias;
    int error;

    if (owner) {
        alias = base_alloc(sizeof(*alias));
        if (!alias) {
            return -ENOMEM;
        }
    }
    error = pv_index_add(&named->index, slot);
    if (owner && error) {
        base_free(alias);
    } else if (owner) {
        *alias = (struct pv_alias){
            .next = owner->aliases, .at = &owner->aliases, .slot = slot, .owner = owner->id};
        if (alias->next) {
            alias->next->at = &alias->next;
        }
        owner->aliases = alias;
        owner->alias_count++;
        slot->alias = alias;
    }
    return error;
}

struct pv_put pv_slot_unlink(struct viommu_pv *pv, struct pv_slot *slot)
{
    struct pv_put put = {.vm = pv_vm_find(pv, slot->vm),
                         .handle = slot->handle,
                         .order = slot->order,
                         .perm = slot->perm,
                         .flags = slot->flags};
    struct pv_alias *alias = slot->alias;

    pv_index_remove(&put.vm->index, slot);
    pv_vm_hold(put.vm);
    if (alias) {
        put.owner = pv_vm_find(pv, alias->owner);
        pv_vm_hold(put.owner);
        put.owner->alias_count--;
        *alias->at = alias->next;
        if (alias->next) {
            alias->next->at = alias->at;
        }
        base_free(alias);
        slot->alias = NULL;
    }
    return put;
}

void pv_slot_remove(struct pv_slot *slot)
{
    struct pv_context *context = slot->context;

    context->vm->mappings--;
    pv_tree_remove(&context->tree, slot);
}

void pv_put_end(const struct pv_put *put)
{
    pv_vm_let_go(put->vm);
    if (put->owner) {
        pv_vm_let_go(put->owner);
    }
}

void pv_put(struct viommu_pv *pv, const struct pv_put *put)
{
    if (put->flags & PV_FLAG_UNREFERENCED) {
        return;
    }
    if (put->perm & VIOMMU_PV_WRITE) {
        if (put->flags & PV_FLAG_DIRTY) {
            pv->ops->mark_dirty(pv->opaque, put->order, put->handle);
        }
        pv->ops->put_type(pv->opaque, put->order, put->handle);
    }
    pv->ops->put_page(pv->opaque, put->order, put->handle);
}

int pv_isolate(struct viommu_pv *pv, struct pv_context *context)
{
    context->isolated = true;
    context->failures++;
    context->isolating++;
    pv_unlock(pv);
    pv->ops->isolate(pv->opaque, context->space);
    pv_lock(pv);
    context->isolating--;
    return -EIO;
}

void pv_isolation_ends(struct pv_context *context, uint64_t failures)
{
    if (failures == context->failures && !context->isolating) {
        context->isolated = false;
    }
}

/* ---- unmapping ---- */

static uint64_t frames_of(const struct pv_slot *slot)
{
    return UINT64_C(1) << slot->order;
}

static bool has_room(const struct viommu_pv *pv, const struct pv_context *context, uint64_t frames)
{
    uint64_t max = pv->config.deferred_max;

    return context->tail - context->head + context->leaving < max &&
           (context->frames == 0 || context->frames + frames <= max);
}

/* Makes room in the queue, for a slot that is LEAVING. */
static int make_room(struct viommu_pv *pv, struct pv_context *context, uint64_t frames)
{
    int error = 0;

    if (!has_room(pv, context, frames)) {
        error = pv_flush(pv, context, 0, context->tree.last);
        if (!error && !has_room(pv, context, frames)) {
            error = -EAGAIN; /* other calls are about to fill it */
        }
    }
    return error;
}

int pv_unmap_leaving(struct viommu_pv *pv, struct pv_slot *slot, uint8_t flags)
{
    struct pv_context *context = slot->context;
    uint64_t frames = frames_of(slot);
    uint64_t first = slot->device_frame;
    uint64_t last = pv_slot_last(slot);
    int error;

    error = make_room(pv, context, frames);
    if (error) {
        slot->state = PV_SLOT_LIVE;
        return error;
    }
    context->leaving++;
    context->frames += frames;
    pv_unlock(pv);
    error = pv->ops->unmap(pv->opaque, context->space, first, slot->order);
    pv_lock(pv);
    context->leaving--;
    if (error) {
        context->frames -= frames;
        slot->state = PV_SLOT_LIVE;
        return pv_isolate(pv, context);
    }
    slot->state = PV_SLOT_PENDING;
    slot->flags |= flags;
    context->queue[context->tail++ % pv->config.deferred_max] = slot;
    context->pending++;
    if (frames > pv->config.deferred_max) {
        (void)pv_flush(pv, context, first, last); /* a failure is in `isolated` */
    }
    return 0;
}

int pv_unmap_slot(struct viommu_pv *pv, struct pv_slot *slot, uint8_t flags)
{
    if (slot->state != PV_SLOT_LIVE) {
        return -EAGAIN;
    }
    slot->state = PV_SLOT_LEAVING;
    return pv_unmap_leaving(pv, slot, flags);
}

/* ---- flushing ---- */

static struct pv_slot **queue_at(const struct viommu_pv *pv, const struct pv_context *context,
                                 uint64_t place)
{
    return &context->queue[place % pv->config.deferred_max];
}

/* Widens [first, last] to the pages that meet it; false when none does. */
static bool widen(const struct viommu_pv *pv, const struct pv_context *context, uint64_t *first,
                  uint64_t *last)
{
    uint64_t from = *first;
    uint64_t to = *last;
    bool any = false;

    for (uint64_t place = context->head; place != context->tail; place++) {
        const struct pv_slot *slot = *queue_at(pv, context, place);

        if (slot && slot->device_frame <= to && pv_slot_last(slot) >= from) {
            any = true;
            *first = slot->device_frame < *first ? slot->device_frame : *first;
            *last = pv_slot_last(slot) > *last ? pv_slot_last(slot) : *last;
        }
    }
    return any;
}

/* Takes up to PUTS flushed slots out of the queue, from *place on. Returns how many. */
static unsigned take(struct viommu_pv *pv, struct pv_context *context, uint64_t *place,
                     uint64_t end, const struct viommu_pv_range *range, struct pv_put *puts)
{
    unsigned count = 0;

    if ((int64_t)(*place - context->head) < 0) {
        *place = context->head; /* another flush was here */
    }
    for (; (int64_t)(*place - end) < 0 && count < PUTS; ++*place) {
        struct pv_slot **at = queue_at(pv, context, *place);
        struct pv_slot *slot = *at;

        if (!slot || slot->device_frame < range->first || pv_slot_last(slot) > range->last) {
            continue;
        }
        *at = NULL;
        context->pending--;
        context->frames -= frames_of(slot);
        puts[count++] = pv_slot_unlink(pv, slot);
        if (slot->flags & PV_FLAG_REVOKING) {
            slot->state = PV_SLOT_REVOKED;
            slot->flags = 0;
            context->revoked++;
        } else {
            pv_slot_remove(slot);
        }
    }
    while (context->head != context->tail && !*queue_at(pv, context, context->head)) {
        context->head++;
    }
    return count;
}

int pv_flush(struct viommu_pv *pv, struct pv_context *context, uint64_t first, uint64_t last)
{
    uint64_t place = context->head;
    uint64_t end = context->tail;
    struct viommu_pv_range range = {first, last};
    struct pv_put puts[PUTS];
    bool whole = first == 0 && last >= context->tree.last;
    unsigned count;
    int error;

    if (!widen(pv, context, &range.first, &range.last) && !(whole && context->isolated)) {
        return 0;
    }
    if (whole) {
        range = (struct viommu_pv_range){0, context->tree.last};
    }
    pv_unlock(pv);
    error = pv->ops->flush(pv->opaque, context->space, range.first, range.last);
    pv_lock(pv);
    if (error) {
        return pv_isolate(pv, context);
    }
    while ((count = take(pv, context, &place, end, &range, puts)) > 0) {
        pv_unlock(pv);
        for (unsigned i = 0; i < count; i++) {
            pv_put(pv, &puts[i]);
        }
        pv_lock(pv);
        for (unsigned i = 0; i < count; i++) {
            pv_put_end(&puts[i]);
        }
    }
    return 0;
}

int pv_run_flush(struct pv_run *run)
{
    const struct viommu_pv_flush_call *in = &run->call->in.flush;
    uint64_t last = in->last;
    uint64_t failures;
    int error = pv_enter_context(run, in->context);

    if (error) {
        return error;
    }
    if (in->flags & VIOMMU_PV_WHOLE) {
        last = run->pv->config.device_frame_max;
    } else if (last > run->pv->config.device_frame_max) {
        return -ERANGE;
    }
    pv_lock(run->pv);
    failures = run->context->failures;
    error = pv_flush(run->pv, run->context, in->first, last);
    if (!error && in->first == 0 && last == run->pv->config.device_frame_max) {
        pv_isolation_ends(run->context, failures);
    }
    pv_unlock(run->pv);
    return error;
}
