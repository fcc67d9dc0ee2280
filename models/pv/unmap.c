/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Paravirtual operations: from LIVE to PENDING, and the calls that unmap.
 *
 * A slot is LEAVING while the real IOMMU unmaps it. Those that lie side by side become so together,
 * and PENDING together: the lock is taken for all of them.
 */
#include "pv/engine.h"

#include <errno.h>

enum {
    SOME = 64,
};

/* ---- slots ---- */

static uint64_t frames_of(const struct pv_slot *slot)
{
    return UINT64_C(1) << slot->order;
}

/* Makes room in the queue, for a slot that is LEAVING. */
static int make_room(struct viommu_pv *pv, struct pv_context *context, uint64_t frames)
{
    int error = 0;

    if (!pv_queue_has_room(pv, context, frames)) {
        error = pv_flush(pv, context, 0, context->tree.last);
        if (!error && !pv_queue_has_room(pv, context, frames)) {
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
    slot->flags |= flags;
    pv_queue_add(pv, slot, 1);
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

/* How many slots of order 0 the queue has room for. */
static unsigned room_for(const struct viommu_pv *pv, const struct pv_context *context,
                         unsigned count)
{
    uint64_t max = pv->config.deferred_max;
    uint64_t places = context->tail - context->head + context->leaving;
    uint64_t used = places > context->frames ? places : context->frames;

    return used >= max ? 0 : count < max - used ? count : (unsigned)(max - used);
}

/* Unmaps slots that are LEAVING; *count becomes how many were. Without the lock. */
static int unmap_each(struct viommu_pv *pv, const struct pv_slot *slots, unsigned *count,
                      bool may_yield)
{
    uint64_t device_frame = slots->device_frame;
    void *space = slots->context->space;
    unsigned end = *count;
    int error = 0;

    for (*count = 0; *count < end && !error; *count += !error) {
        if (may_yield && *count && pv->ops->yield(pv->opaque)) {
            return VIOMMU_PENDING;
        }
        error = pv->ops->unmap(pv->opaque, space, device_frame + *count, 0) ? -EIO : 0;
    }
    return error;
}

int pv_unmap_run(struct viommu_pv *pv, struct pv_slot *slots, unsigned *count, bool may_yield)
{
    struct pv_context *context = slots->context;
    unsigned all = room_for(pv, context, *count);
    int error;

    *count = all;
    if (all == 0) {
        return -EAGAIN;
    }
    for (unsigned i = 0; i < all; i++) {
        slots[i].state = PV_SLOT_LEAVING;
    }
    context->leaving += all;
    context->frames += all;
    pv_unlock(pv);
    error = unmap_each(pv, slots, count, may_yield);
    pv_lock(pv);
    context->leaving -= all;
    context->frames -= all - *count;
    pv_queue_add(pv, slots, *count);
    for (unsigned i = *count; i < all; i++) {
        slots[i].state = PV_SLOT_LIVE;
    }
    return error == -EIO ? pv_isolate(pv, context) : error;
}

/* ---- calls ---- */

static bool is_what(const struct pv_slot *slot, uint32_t vm, uint64_t frame, uint64_t device_frame,
                    unsigned order)
{
    return slot->vm == vm && slot->frame == frame && slot->device_frame == device_frame &&
           slot->order == order;
}

/* With the lock. */
static int unmap_item(struct pv_run *run, uint32_t vm, uint64_t frame, uint64_t device_frame,
                      unsigned order)
{
    struct pv_context *context = run->context;
    struct pv_slot *slot = pv_tree_find(&context->tree, device_frame);
    bool revoking = slot && (slot->flags & PV_FLAG_REVOKING);

    if (!slot || slot->state == PV_SLOT_CLAIMED || (slot->state == PV_SLOT_PENDING && !revoking)) {
        return -ENXIO;
    }
    if (slot->state == PV_SLOT_LEAVING) {
        return -EAGAIN;
    }
    if (!is_what(slot, vm, frame, device_frame, order)) {
        return -ESTALE;
    }
    switch (slot->state) {
    case PV_SLOT_REVOKED:
        context->revoked--;
        pv_slot_remove(slot);
        return 0;
    case PV_SLOT_PENDING:
        slot->flags &= (uint8_t)~PV_FLAG_REVOKING;
        return 0;
    default:
        return context->isolated ? -EIO : pv_unmap_slot(run->pv, slot, 0);
    }
}

/*
 * Pages of a call from one on that are mapped as it says, side by side: how many, and the slot of
 * the first. With the lock.
 */
static unsigned live_run(const struct pv_run *run, uint32_t vm, uint64_t done,
                         struct pv_slot **slots)
{
    const struct viommu_pv_map_call *in = &run->call->in.map;
    uint64_t left = in->count - done;
    unsigned most = left < SOME ? (unsigned)left : SOME;
    unsigned count = 0;

    if (in->order || run->context->isolated) {
        return 0;
    }
    most = pv_tree_used_run(&run->context->tree, in->device_frame + done, most, slots);
    while (count < most && (*slots)[count].state == PV_SLOT_LIVE && (*slots)[count].vm == vm &&
           (*slots)[count].frame == in->frame + done + count) {
        count++;
    }
    return count;
}

/* Unmaps the next page of a call, or some; *count becomes how many. With the lock. */
static int unmap_next(struct pv_run *run, uint32_t vm, uint64_t done, unsigned *count)
{
    const struct viommu_pv_map_call *in = &run->call->in.map;
    uint64_t offset = done << in->order;
    struct pv_slot *slots;
    int error;

    *count = live_run(run, vm, done, &slots);
    if (*count) {
        error = pv_unmap_run(run->pv, slots, count, run->call->may_yield);
        if (error != -EAGAIN) {
            return error;
        }
    }
    error = unmap_item(run, vm, in->frame + offset, in->device_frame + offset, in->order);
    *count = !error;
    return error;
}

/* What was unmapped is flushed before the call returns, whatever stopped it. With the lock. */
static int unmap_end(struct pv_run *run, int error)
{
    const struct viommu_pv_call *call = run->call;
    const struct viommu_pv_map_call *in = &call->in.map;
    int failed = 0;

    if (call->done && !(in->flags & VIOMMU_PV_DEFER)) {
        failed = pv_flush(run->pv, run->context, in->device_frame,
                          in->device_frame + (call->done << in->order) - 1);
    }
    if (run->context->isolated) {
        failed = -EIO;
    }
    return failed ? failed : error;
}

void pv_unmap_stopped(struct pv_run *run)
{
    /* A VM that is dying is flushed whole, and so is a context that goes. */
    if (!run->vm || !run->call->done) {
        return;
    }
    pv_lock(run->pv);
    if (run->context || !pv_enter_context_locked(run, run->call->in.map.context)) {
        (void)unmap_end(run, 0);
    }
    pv_unlock(run->pv);
}

/*
 * Whether the call should yield. With the lock; gives it up to ask. One that never yields is not
 * asked; it gives the lock up for what is live, and now and then for what is not.
 */
static bool gives_way(const struct pv_run *run, unsigned steps)
{
    bool yes;

    if (!run->call->may_yield && steps % SOME) {
        return false;
    }
    pv_unlock(run->pv);
    yes = pv_should_yield(run);
    pv_lock(run->pv);
    return yes;
}

int pv_enter_unmap(struct pv_run *run)
{
    const struct viommu_pv_map_call *in = &run->call->in.map;
    int error = pv_enter_context_locked(run, in->context);

    return error ? error : pv_check_numbers(run->pv, in);
}

/* With the lock. */
static int unmap_all(struct pv_run *run)
{
    struct viommu_pv_call *call = run->call;
    uint32_t vm = call->in.map.vm == VIOMMU_PV_SELF ? run->vm->id : call->in.map.vm;
    unsigned steps = 0;
    int error = 0;

    while (!error && call->done < call->in.map.count) {
        unsigned count = 0;

        if (steps && gives_way(run, steps)) {
            return VIOMMU_PENDING;
        }
        steps++;
        error = run->vm->dying ? -ESHUTDOWN : unmap_next(run, vm, call->done, &count);
        call->done += count;
    }
    return error;
}

int pv_run_unmap(struct pv_run *run)
{
    struct viommu_pv_call *call = run->call;
    int error = run->entered;

    if (!error) {
        pv_lock(run->pv);
        error = unmap_all(run);
        if (error != VIOMMU_PENDING) {
            error = unmap_end(run, error);
        }
        pv_leave(run);
        pv_unlock(run->pv);
    }
    call->stopped = call->in.map.device_frame + (call->done << (call->in.map.order & 63));
    return error;
}
