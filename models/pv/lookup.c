/* SPDX-License-Identifier: BSD-2-Clause */
/* Paravirtual operations: what is mapped where, both ways. */
#include "pv/engine.h"

#include <errno.h>

#include "base/alloc.h"

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

int pv_run_find(struct pv_run *run)
{
    struct viommu_pv_call *call = run->call;
    const struct viommu_pv_find_call *in = &call->in.find;
    uint64_t count = 0;
    int error = pv_enter_named(run, in->vm);

    if (error) {
        return error;
    }
    if (in->frame > run->pv->config.frame_max) {
        return -ERANGE;
    }
    pv_lock(run->pv);
    for (const struct pv_slot *slot = pv_index_find(&run->named->index, in->frame); slot;
         slot = pv_index_after(&run->named->index, in->frame, slot)) {
        if (slot->state != PV_SLOT_LIVE || slot->context->vm != run->vm) {
            continue;
        }
        if (count < in->room && call->places) {
            call->places[count] = (struct viommu_pv_place){
                .device_frame = slot->device_frame + (in->frame - slot->frame),
                .context = slot->context->id,
                .perm = slot->perm,
            };
            call->done = count + 1;
        }
        count++;
    }
    pv_unlock(run->pv);
    call->out.find.count = count;
    return count ? 0 : -ENXIO;
}
