/* SPDX-License-Identifier: BSD-2-Clause */
/* Paravirtual operations: what is mapped where, both ways. */
#include "pv/engine.h"

#include <errno.h>

#include "base/alloc.h"

enum {
    CHAIN = 1024, /* slots of a frame that are looked at, whosever they are */
    STEP = 32,    /* under one lock */
};

int pv_run_lookup(struct pv_run *run)
{
    const struct viommu_pv_lookup_call *in = &run->call->in.lookup;
    struct viommu_pv_lookup *out = &run->call->out.lookup;
    const struct pv_slot *slot;
    int error = pv_enter_context(run, in->context);

    if (error) {
        return error;
    }
    if (in->device_frame > run->pv->config.device_frame_max) {
        return -ERANGE;
    }
    pv_lock(run->pv);
    slot = pv_tree_find(&run->context->tree, in->device_frame);
    if (slot && slot->state == PV_SLOT_LIVE) {
        out->vm = slot->vm;
        out->frame = slot->frame + (in->device_frame - slot->device_frame);
        out->perm = slot->perm;
        out->order = slot->order;
    } else {
        error = slot && slot->state == PV_SLOT_REVOKED ? -ESTALE : -ENXIO;
    }
    pv_unlock(run->pv);
    return error;
}

/* Counts a slot of the caller's, if it maps the frame, and writes its place down. */
static void found(const struct pv_run *run, const struct pv_slot *slot,
                  const struct pv_wanted *wanted, struct pv_search *search)
{
    uint64_t frame = wanted->frame;
    bool counts = wanted->live ? slot->state == PV_SLOT_LIVE : slot->state != PV_SLOT_REVOKED;

    if (!counts || slot->context->vm != run->vm || slot->vm != run->named->id ||
        frame < slot->frame || (frame - slot->frame) >> slot->order) {
        return;
    }
    if (search->count < wanted->room) {
        wanted->places[search->count] = (struct viommu_pv_place){
            .device_frame = slot->device_frame + (frame - slot->frame),
            .context = slot->context->id,
            .perm = slot->perm,
        };
    }
    search->count++;
}

/* The lock is given up. */
static bool yields(struct pv_run *run)
{
    bool yes;

    pv_unlock(run->pv);
    yes = pv_should_yield(run);
    pv_lock(run->pv);
    return yes;
}

/*
 * Goes through the slots of a frame; false when there are too many of them, which others may have
 * made. What comes meanwhile is not counted, what was there and stays is, once.
 */
static bool look_at_all(struct pv_run *run, const struct pv_wanted *wanted)
{
    struct pv_search *search = &run->call->search;
    const struct pv_slot *slot;
    struct pv_walk walk;
    unsigned seen = 0;

    pv_walk_begin(&run->named->index, &walk, wanted->frame);
    while ((slot = pv_walk_next(&run->named->index, &walk)) && seen < CHAIN) {
        found(run, slot, wanted, search);
        if (++seen % STEP == 0) {
            pv_give_way(run->pv);
        }
    }
    pv_walk_end(&run->named->index, &walk);
    return !slot;
}

/* Goes on through the caller's slots in a context. Returns 0 at the end, or VIOMMU_PENDING. */
static int look_at_context(struct pv_run *run, struct pv_context *context,
                           const struct pv_wanted *wanted)
{
    struct pv_search *search = &run->call->search;
    const struct pv_slot *slot;
    int result = 0;

    context->users++;
    while (!result && (slot = pv_tree_next(&context->tree, search->device_frame))) {
        search->device_frame = pv_slot_last(slot) + 1;
        found(run, slot, wanted, search);
        if (++search->seen % STEP == 0 && yields(run)) {
            result = VIOMMU_PENDING;
        }
    }
    context->users--;
    return result;
}

/*
 * Goes on through the caller's slots, by context and device frame, which do not depend on what
 * comes and goes. A context that is another by now was not there when the call began.
 */
static int look_at_own(struct pv_run *run, const struct pv_wanted *wanted)
{
    struct pv_search *search = &run->call->search;

    for (; search->context < run->pv->config.contexts_max; search->context++) {
        struct pv_context *context = run->vm->contexts[search->context];
        bool same = context && (!search->serial || search->serial == context->serial);

        if (same && !(wanted->live && context->closing)) {
            search->serial = context->serial;
            if (look_at_context(run, context, wanted)) {
                return VIOMMU_PENDING;
            }
        }
        search->serial = 0;
        search->device_frame = 0;
        if (++search->seen % STEP == 0 && yields(run)) {
            search->context++;
            return VIOMMU_PENDING;
        }
    }
    return 0;
}

int pv_places(struct pv_run *run, const struct pv_wanted *wanted)
{
    struct viommu_pv_call *call = run->call;

    if (!call->place) {
        call->search = (struct pv_search){.count = 0};
        if (look_at_all(run, wanted)) {
            return 0;
        }
        call->search.count = 0;
        call->place = 1; /* that much is done */
    }
    return look_at_own(run, wanted);
}

int pv_run_find(struct pv_run *run)
{
    struct viommu_pv_call *call = run->call;
    const struct viommu_pv_find_call *in = &call->in.find;
    const struct pv_wanted wanted = {
        .frame = in->frame, .live = true, .places = call->places, .room = in->room};
    uint64_t count;
    int error = in->frame > run->pv->config.frame_max ? -ERANGE : pv_enter_named(run, in->vm);

    if (error) {
        return error;
    }
    pv_lock(run->pv);
    error = pv_places(run, &wanted);
    pv_unlock(run->pv);
    if (error) {
        return error;
    }
    count = call->search.count;
    call->done = count < in->room ? count : in->room;
    call->out.find.count = count;
    return count ? 0 : -ENXIO;
}
