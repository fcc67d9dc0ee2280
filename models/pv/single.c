/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Paravirtual operations: a call that maps or unmaps one page, of order 0, that asks for nothing
 * special. Most calls are such; what others need is left out here: no page after it, nobody to
 * yield to, no larger page.
 *
 * What is special is seen while the call is entered: then nothing has been done yet, and the call
 * begins as any other. Or it is seen later: then the call goes on as any other from where it is.
 *
 * The lock is taken as often as the hypervisor must be called in between. To map: the call is
 * entered; the page is looked up and referenced; its slot is claimed; it is mapped; the slot is
 * LIVE and the call over. To unmap: the call is entered; privileges; the slot is LEAVING; it is
 * unmapped, and flushed if the call does not defer that; the slot is FREE; references are dropped;
 * the call is over. A slot that is unmapped and flushed by one call is never PENDING: nobody else
 * would have to flush it. When the flush fails it is, as then somebody has to.
 */
#include "pv/plain.h"

enum {
    SPECIAL = -EAGAIN, /* not an error: the call goes on as any other */
};

/* ---- entering: with the lock ---- */

/* Finds the caller and the context. False: something is special. */
static inline bool find(struct pv_run *run)
{
    const struct viommu_pv_map_call *in = &run->call->in.map;
    const struct viommu_pv_config *config = &run->pv->config;
    struct pv_vm *vm = pv_vm_find(run->pv, run->call->caller);
    struct pv_context *context;

    if (!vm || vm->dying || in->context >= config->contexts_max || in->frame > config->frame_max ||
        in->device_frame > config->device_frame_max) {
        return false;
    }
    context = vm->contexts[in->context];
    if (!context || context->closing || context->isolated) {
        return false;
    }
    run->vm = vm;
    run->context = context;
    return true;
}

static void enter(struct pv_run *run)
{
    run->vm->users++;
    run->context->users++;
}

/* Whether the page may be mapped, as far as VMs and context go. */
static inline bool admits(const struct pv_run *run, const struct pv_vm *named)
{
    const struct viommu_pv_map_call *in = &run->call->in.map;
    const struct pv_vm *vm = run->vm;

    return !vm->dying && !named->dying && !run->context->isolated &&
           vm->mappings < run->pv->config.mappings_max &&
           !pv_reserved_meets(vm, in->device_frame, in->device_frame, NULL) &&
           !pv_vm_leaving(named, in->frame, in->frame);
}

static bool enter_map(struct pv_run *run)
{
    const struct viommu_pv_map_call *in = &run->call->in.map;
    struct pv_vm *named;

    if (!find(run) || run->vm->enabling != PV_ENABLED) {
        return false;
    }
    named = in->vm == VIOMMU_PV_SELF ? run->vm : pv_vm_find(run->pv, in->vm);
    if (!named || !pv_tree_is_free(&run->context->tree, in->device_frame) || !admits(run, named)) {
        return false;
    }
    pv_index_prefetch(&named->index, in->frame, 1);
    enter(run);
    run->named = named;
    named->users++;
    pv_hold(named, &run->hold, in->frame, in->frame);
    run->held = true;
    return true;
}

static bool enter_unmap(struct pv_run *run)
{
    if (!find(run)) {
        return false;
    }
    enter(run);
    return true;
}

/* ---- mapping ---- */

/* A slot for the page, CLAIMED; or NULL, and nothing has changed. With the lock. */
static struct pv_slot *claim(struct pv_run *run, uint64_t handle)
{
    const struct viommu_pv_map_call *in = &run->call->in.map;
    uint64_t tables = run->vm->tables;
    struct pv_slot *slot;

    if (!admits(run, run->named) ||
        pv_tree_claim_one(&run->context->tree, in->device_frame, &slot)) {
        return NULL;
    }
    pv_plain_claim(run, slot, in->device_frame, in->frame, handle, in->perm);
    run->vm->mappings++;
    if (pv_index_add(&run->named->index, slot)) {
        pv_slots_give_up(run, slot, 1, tables);
        return NULL;
    }
    pv_let_go(&run->hold); /* the slot says it now */
    run->held = false;
    return slot;
}

/* The page could not be mapped, or nobody knows. With the lock; gives it up meanwhile. */
static int undo(struct pv_run *run, struct pv_slot *slot, uint64_t tables, int error)
{
    struct pv_put put;

    if (error == -EIO) {
        pv_map_unknown(run->pv, slot);
        return -EIO;
    }
    pv_slot_unlink(run->pv, slot, NULL, &put);
    pv_slots_give_up(run, slot, 1, tables);
    pv_put_all(run->pv, &put, 1);
    return pv_map_error(error);
}

/* Whoever began to remove the page meanwhile did not ask for what was not mapped yet. With the
   lock; gives it up meanwhile. */
static void tell(const struct pv_run *run, struct pv_slot *slot)
{
    const struct viommu_pv_map_call *in = &run->call->in.map;
    struct viommu_pv *pv = run->pv;

    slot->flags |= PV_FLAG_TOLD;
    pv_unlock(pv);
    pv->ops->give_back(pv->opaque, run->vm->id, run->context->id, in->device_frame, run->named->id,
                       in->frame);
    pv_lock(pv);
}

/* What a page of a VM that is dying comes to is no news. With the lock. */
static int news(const struct pv_run *run, int error)
{
    return error && error != -EIO && (run->vm->dying || run->named->dying) ? -ESHUTDOWN : error;
}

/* Maps the page that there are references to. Ends with the lock taken, but for SPECIAL. */
static int map_plain(struct pv_run *run, uint64_t handle)
{
    const struct viommu_pv_map_call *in = &run->call->in.map;
    struct viommu_pv *pv = run->pv;
    struct pv_slot *slot;
    uint64_t tables;
    int error;

    pv_lock(pv);
    tables = run->vm->tables;
    slot = claim(run, handle);
    pv_unlock(pv);
    if (!slot) {
        pv_plain_drop(pv, handle, in->perm);
        return SPECIAL;
    }
    error = pv->ops->map(pv->opaque, run->context->space, in->device_frame, 0, handle, in->perm);
    pv_lock(pv);
    if (error) {
        return undo(run, slot, tables, error);
    }
    slot->state = PV_SLOT_LIVE;
    if (pv_vm_leaving(run->named, in->frame, in->frame)) {
        tell(run, slot);
    }
    return 0;
}

/* The page is mapped as any other. Ends with the lock taken. */
static int map_special(struct pv_run *run)
{
    const struct viommu_pv_map_call *in = &run->call->in.map;
    struct pv_item item = {.frame = in->frame, .device_frame = in->device_frame, .perm = in->perm};
    int error;

    pv_lock(run->pv);
    pv_let_go(&run->hold);
    run->held = false;
    pv_unlock(run->pv);
    error = pv_map_item(run, &item);
    pv_lock(run->pv);
    return error;
}

static int map(struct pv_run *run)
{
    const struct viommu_pv_map_call *in = &run->call->in.map;
    const struct viommu_pv *pv = run->pv;
    uint64_t handle;
    int error;

    if (!pv->ops->may_call(pv->opaque, run->vm->id, VIOMMU_PV_MAP) ||
        !pv_may_use(run, run->named->id, in->perm)) {
        pv_lock(run->pv);
        return -EPERM;
    }
    error = pv_plain_reference(run, in->frame, in->perm, &handle);
    if (!error) {
        error = map_plain(run, handle);
    } else if (error != SPECIAL) {
        pv_lock(run->pv);
    }
    if (error == SPECIAL) {
        error = map_special(run);
    }
    return news(run, error);
}

/* ---- unmapping ---- */

/* The slot, LEAVING now; or NULL where something is special, of the page, too. With the lock. */
static struct pv_slot *leave(const struct pv_run *run)
{
    const struct viommu_pv_map_call *in = &run->call->in.map;
    struct pv_context *context = run->context;
    uint32_t vm = in->vm == VIOMMU_PV_SELF ? run->vm->id : in->vm;
    struct pv_slot *slot = pv_tree_find(&context->tree, in->device_frame);

    if (!slot || slot->state != PV_SLOT_LIVE || slot->order || slot->flags || slot->alias ||
        slot->vm != vm || slot->frame != in->frame || run->vm->dying || context->isolated ||
        !pv_queue_has_room(run->pv, context, 1)) {
        return NULL;
    }
    slot->state = PV_SLOT_LEAVING;
    context->leaving++;
    context->frames++;
    return slot;
}

/* The slot is unmapped and flushed, and the references are dropped. With the lock; gives it up
   meanwhile. */
static void set_free(const struct pv_run *run, struct pv_slot *slot)
{
    struct viommu_pv *pv = run->pv;
    struct pv_vm *named = pv_vm_find(pv, slot->vm);
    uint64_t handle = slot->handle;
    uint32_t perm = slot->perm;
    struct pv_hold hold;

    run->context->frames--;
    named->users++;
    pv_hold(named, &hold, slot->frame, slot->frame);
    pv_index_remove(&named->index, slot);
    pv_slot_remove(slot);
    pv_unlock(pv);
    pv_plain_drop(pv, handle, perm);
    pv_lock(pv);
    pv_let_go(&hold);
    named->users--;
}

/* Ends with the lock taken. */
static int unmap_plain(struct pv_run *run, struct pv_slot *slot)
{
    const struct viommu_pv_map_call *in = &run->call->in.map;
    struct pv_context *context = run->context;
    struct viommu_pv *pv = run->pv;
    bool deferred = in->flags & VIOMMU_PV_DEFER;
    int failed = 0;

    if (pv->ops->unmap(pv->opaque, context->space, in->device_frame, 0)) {
        pv_lock(pv);
        context->leaving--;
        context->frames--;
        slot->state = PV_SLOT_LIVE;
        return pv_isolate(pv, context);
    }
    if (!deferred) {
        failed = pv->ops->flush(pv->opaque, context->space, in->device_frame, in->device_frame);
    }
    pv_lock(pv);
    run->call->done = 1;
    context->leaving--;
    if (deferred || failed) {
        pv_queue_add(pv, slot, 1);
    } else {
        set_free(run, slot);
    }
    return failed ? pv_isolate(pv, context) : context->isolated ? -EIO : 0;
}

/* Ends with the lock taken, or (true) the call is over. */
static bool unmap(struct pv_run *run, int *error)
{
    struct viommu_pv *pv = run->pv;
    struct pv_slot *slot;

    if (!pv->ops->may_call(pv->opaque, run->vm->id, VIOMMU_PV_UNMAP)) {
        pv_lock(pv);
        *error = -EPERM;
        return false;
    }
    pv_lock(pv);
    slot = leave(run);
    pv_unlock(pv);
    if (!slot) {
        *error = pv_run_unmap(run);
        return true;
    }
    *error = unmap_plain(run, slot);
    return false;
}

/* ---- calls ---- */

bool pv_run_single(struct viommu_pv *pv, struct viommu_pv_call *call, int *error)
{
    struct pv_run run = {.pv = pv, .call = call};
    bool is_map = call->operation == VIOMMU_PV_MAP;
    bool entered;

    pv_lock(pv);
    entered = is_map ? enter_map(&run) : enter_unmap(&run);
    pv_unlock(pv);
    if (!entered) {
        return false;
    }
    call->done = 0;
    if (is_map) {
        *error = map(&run);
        call->done = !*error;
    } else if (unmap(&run, error)) {
        return true;
    }
    pv_leave(&run);
    pv_unlock(pv);
    call->stopped = call->in.map.device_frame + call->done;
    return true;
}
