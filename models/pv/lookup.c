/* SPDX-License-Identifier: BSD-2-Clause */
/* Paravirtual operations: what is mapped where, both ways. */
#include "pv/engine.h"

#include <errno.h>

#include "base/alloc.h"

enum {
    CHAIN = 1024, /* slots that are looked at in one step */
    STEP = 64,
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
static void found(const struct pv_run *run, const struct pv_slot *slot, uint64_t frame, bool live,
                  struct viommu_pv_place *places, uint32_t room, uint64_t *count)
{
    bool counts = live ? slot->state == PV_SLOT_LIVE : slot->state != PV_SLOT_REVOKED;

    if (!counts || slot->context->vm != run->vm || slot->vm != run->named->id ||
        frame < slot->frame || (frame - slot->frame) >> slot->order) {
        return;
    }
    if (*count < room && places) {
        places[*count] = (struct viommu_pv_place){
            .device_frame = slot->device_frame + (frame - slot->frame),
            .context = slot->context->id,
            .perm = slot->perm,
        };
    }
    ++*count;
}

uint64_t pv_places(struct pv_run *run, uint64_t frame, bool live, struct viommu_pv_place *places,
                   uint32_t room)
{
    uint64_t count = 0;
    unsigned seen = 0;
    const struct pv_slot *slot;
    struct pv_walk walk;

    pv_walk_begin(&run->named->index, &walk, frame);
    while ((slot = pv_walk_next(&run->named->index, &walk)) && seen < CHAIN) {
        found(run, slot, frame, live, places, room, &count);
        seen++;
    }
    pv_walk_end(&run->named->index, &walk);
    if (!slot) {
        return count;
    }
    /* Too many for one step, of whomever: the caller's own are gone through instead. */
    count = 0;
    for (uint32_t id = 0; id < run->pv->config.contexts_max; id++) {
        struct pv_context *context = run->vm->contexts[id];

        if (!context || (live && context->closing)) {
            continue;
        }
        context->users++;
        slot = pv_tree_next(&context->tree, 0);
        for (seen = 0; slot; seen++) {
            uint64_t next = pv_slot_last(slot) + 1;

            found(run, slot, frame, live, places, room, &count);
            if (seen % STEP == STEP - 1) {
                pv_unlock(run->pv);
                pv_lock(run->pv);
            }
            slot = pv_tree_next(&context->tree, next);
        }
        context->users--;
    }
    return count;
}

int pv_run_find(struct pv_run *run)
{
    struct viommu_pv_call *call = run->call;
    const struct viommu_pv_find_call *in = &call->in.find;
    uint64_t count = 0;
    int error = in->frame > run->pv->config.frame_max ? -ERANGE : pv_enter_named(run, in->vm);

    if (error) {
        return error;
    }
    pv_lock(run->pv);
    count = pv_places(run, in->frame, true, call->places, in->room);
    pv_unlock(run->pv);
    call->done = !call->places ? 0 : count < in->room ? count : in->room;
    call->out.find.count = count;
    return count ? 0 : -ENXIO;
}
