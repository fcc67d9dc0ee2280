/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Paravirtual operations: pages of another VM, at device frames that the engine chooses.
 *
 * A context remembers where the last one was placed and looks on from there, so that many are
 * placed without looking at what is taken again and again.
 */
#include "pv/engine.h"

#include <errno.h>

/* The first device frame in [from, to] that is neither in use nor reserved. With the lock. */
static bool gap(const struct pv_run *run, uint64_t from, uint64_t to, uint64_t *out)
{
    struct viommu_pv_range met;

    while (pv_tree_gap(&run->context->tree, from, to, out)) {
        if (!pv_reserved_meets(run->vm, *out, *out, &met)) {
            return true;
        }
        from = met.last + 1; /* below 2^45 */
    }
    return false;
}

/* Chooses a device frame up to `max`. */
static int choose(struct pv_run *run, uint64_t max, uint64_t *out)
{
    struct pv_context *context = run->context;
    int error = 0;

    pv_lock(run->pv);
    if (context->hint > max) {
        context->hint = 0;
    }
    if (!gap(run, context->hint, max, out) && !gap(run, 0, max, out)) {
        /* What awaits its flush is free after it. */
        error = pv_flush(run->pv, context, 0, context->tree.last);
        if (!error && !gap(run, 0, max, out)) {
            error = -ENOSPC;
        }
    }
    if (!error) {
        context->hint = *out + 1;
    }
    pv_unlock(run->pv);
    return error;
}

/* A device has come that has the frame reserved. */
static bool is_reserved(const struct pv_run *run, uint64_t device_frame)
{
    bool reserved;

    pv_lock(run->pv);
    reserved = pv_reserved_meets(run->vm, device_frame, device_frame, NULL);
    pv_unlock(run->pv);
    return reserved;
}

static int map_one(struct pv_run *run, uint64_t frame, uint64_t *device_frame)
{
    const struct viommu_pv_foreign_call *in = &run->call->in.foreign;
    struct pv_item item = {.frame = frame, .perm = in->perm, .flags = in->flags};
    int error;

    if (frame > run->pv->config.frame_max) {
        return -ERANGE;
    }
    do {
        error = choose(run, in->device_frame_max, &item.device_frame);
        /* Another call may take the same one: then there is another. */
        error = error ? error : pv_map_item(run, &item);
    } while (error == -EEXIST || (error == -EADDRNOTAVAIL && is_reserved(run, item.device_frame)));
    *device_frame = error ? 0 : item.device_frame;
    return error;
}

static int enter(struct pv_run *run)
{
    const struct viommu_pv_foreign_call *in = &run->call->in.foreign;
    int error = pv_enter_context(run, in->context);

    if (!error && in->device_frame_max > run->pv->config.device_frame_max) {
        error = -ERANGE;
    }
    error = error ? error : pv_enter_named(run, in->vm);
    return error ? error : pv_may_use(run, run->named->id, in->perm) ? 0 : -EPERM;
}

int pv_run_foreign(struct pv_run *run)
{
    struct viommu_pv_call *call = run->call;
    int error = enter(run);
    bool begun = false;

    while (!error && call->place < call->in.foreign.count) {
        struct viommu_pv_item *item = &call->items[call->place];

        if (begun && pv_should_yield(run)) {
            return VIOMMU_PENDING;
        }
        begun = true;
        error = map_one(run, call->frames[call->place], &item->device_frame);
        item->status = (uint32_t)-error;
        call->done += !error;
        call->place++;
        error = 0; /* each item has its own */
    }
    return error; /* what is left has it as its status, too */
}
