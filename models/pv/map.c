/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Paravirtual operations: map and unmap.
 *
 * One page: looked up and judged without side effects; then made ready, and looked up and judged
 * again; then references, the slot, the real mapping; undone in reverse where one fails.
 */
#include "pv/engine.h"

#include <errno.h>

bool pv_should_yield(const struct pv_run *run)
{
    return run->call->may_yield && run->pv->ops->yield(run->pv->opaque);
}

bool pv_may_use(const struct pv_run *run, uint32_t vm, uint32_t perm)
{
    return vm == run->vm->id || run->pv->ops->may_use(run->pv->opaque, run->vm->id, vm, perm);
}

/* ---- one page ---- */

/* An item on its way. */
struct way {
    struct pv_run *run;
    const struct pv_item *item;
    struct viommu_pv_page page;
    struct pv_vm *owner; /* counted as used, when it is neither the named VM nor NULL */
    uint64_t tables;     /* of the VM, before the slot was claimed */
    bool held;           /* references are ours and no slot's: the VMs' pages do not drain */
    bool kept;           /* it failed, and a slot has the references */
};

/* With the lock. */
static void hold(struct way *way)
{
    way->held = true;
    way->run->named->putting++;
    if (way->owner) {
        way->owner->putting++;
    }
}

static void let_go(struct way *way)
{
    way->held = false;
    way->run->named->putting--;
    if (way->owner) {
        way->owner->putting--;
    }
}

static void leave_owner(struct way *way)
{
    if (way->owner) {
        pv_lock(way->run->pv);
        way->owner->users--;
        pv_unlock(way->run->pv);
        way->owner = NULL;
    }
}

/* The VM that the page belongs to, where that is not the one that was named. */
static int enter_owner(struct way *way)
{
    struct pv_run *run = way->run;
    struct pv_vm *owner;
    int error = 0;

    if (way->page.owner == run->named->id) {
        return 0;
    }
    pv_lock(run->pv);
    owner = pv_vm_find(run->pv, way->page.owner);
    if (!owner || owner->dying) {
        error = owner ? -ESHUTDOWN : -ESRCH;
    } else {
        owner->users++;
        way->owner = owner;
    }
    pv_unlock(run->pv);
    if (!error && !pv_may_use(run, owner->id, way->item->perm)) {
        error = -EPERM;
    }
    return error;
}

/* What the page's state says, as far as that is final. */
static int judge(const struct way *way)
{
    const struct pv_item *item = way->item;

    switch (way->page.state) {
    case VIOMMU_PV_PAGE_READ_ONLY:
        return item->perm & VIOMMU_PV_WRITE ? -EACCES : 0;
    case VIOMMU_PV_PAGE_MMIO:
        return item->flags & VIOMMU_PV_MMIO ? 0 : -EOPNOTSUPP;
    default:
        return 0;
    }
}

/* Looks the page up, and judges: without side effects. */
static int look(struct way *way)
{
    struct viommu_pv *pv = way->run->pv;
    int error;

    leave_owner(way);
    if (pv->ops->lookup(pv->opaque, way->run->named->id, way->item->frame, way->item->order,
                        &way->page)) {
        return -ENOENT;
    }
    error = enter_owner(way);
    return error ? error : judge(way);
}

static bool needs_preparing(const struct way *way)
{
    switch (way->page.state) {
    case VIOMMU_PV_PAGE_PAGED_OUT:
    case VIOMMU_PV_PAGE_ON_DEMAND:
        return true;
    case VIOMMU_PV_PAGE_SHARED:
        return way->item->perm & VIOMMU_PV_WRITE;
    default:
        return false;
    }
}

static int prepare(struct way *way)
{
    struct viommu_pv *pv = way->run->pv;
    int error = pv->ops->prepare(pv->opaque, way->run->named->id, way->item->frame,
                                 way->item->order, way->item->perm & VIOMMU_PV_WRITE);

    if (error) {
        return error == -ENOENT ? -ENOENT : error == -ENOMEM ? -ENOSPC : -EAGAIN;
    }
    error = look(way);
    return error ? error : needs_preparing(way) ? -EAGAIN : 0;
}

/* Whether the slot could be claimed, as far as VMs and context go. With the lock. */
static int admit(const struct way *way)
{
    const struct pv_run *run = way->run;
    const struct pv_item *item = way->item;

    if (run->vm->dying || run->named->dying || (way->owner && way->owner->dying)) {
        return -ESHUTDOWN;
    }
    if (run->context->isolated) {
        return -EIO;
    }
    if (run->context->closing) {
        return -EBADF;
    }
    if (pv_reserved_meets(run->vm, item->device_frame,
                          item->device_frame + (UINT64_C(1) << item->order) - 1, NULL)) {
        return -EADDRNOTAVAIL; /* of a device that has just come */
    }
    return pv_vm_leaving(run->named, item->frame, item->frame + (UINT64_C(1) << item->order) - 1)
               ? -ENOENT
               : 0;
}

/* What is in the way of a slot: 0, -EEXIST, or -EAGAIN when it waits to be flushed. */
static int in_the_way(const struct pv_run *run, const struct pv_item *item)
{
    uint64_t last = item->device_frame + (UINT64_C(1) << item->order) - 1;
    int found = 0;

    for (const struct pv_slot *slot = pv_tree_next(&run->context->tree, item->device_frame);
         slot && slot->device_frame <= last;
         slot = pv_tree_next(&run->context->tree, pv_slot_last(slot) + 1)) {
        if (slot->state != PV_SLOT_PENDING && slot->state != PV_SLOT_LEAVING) {
            return -EEXIST;
        }
        found = -EAGAIN;
    }
    return found;
}

/*
 * Looks at the slot before anything is done to the page, which is not done for nothing; flushes
 * what awaits that.
 */
static int glance(struct way *way)
{
    struct pv_run *run = way->run;
    const struct pv_item *item = way->item;
    int error;

    pv_lock(run->pv);
    error = admit(way);
    if (!error) {
        error = in_the_way(run, item);
        if (error == -EAGAIN) {
            error = pv_flush(run->pv, run->context, item->device_frame,
                             item->device_frame + (UINT64_C(1) << item->order) - 1);
            error = error ? error : admit(way); /* things happened meanwhile */
            error = error ? error : in_the_way(run, item);
        }
    }
    if (!error && run->vm->mappings >= run->pv->config.mappings_max) {
        error = -ENOSPC;
    }
    pv_unlock(run->pv);
    return error;
}

static bool is_logged(const struct way *way)
{
    return way->page.state == VIOMMU_PV_PAGE_DIRTY_LOGGED && (way->item->perm & VIOMMU_PV_WRITE);
}

/* The slot is not claimed any more; nor is room for it, which counts. */
static void give_up(const struct way *way, struct pv_slot *slot)
{
    struct pv_run *run = way->run;

    pv_slot_remove(slot);
    if (run->vm->tables > way->tables) {
        pv_tree_trim(&run->context->tree);
    }
}

static int claim(struct way *way, struct pv_slot **out)
{
    struct pv_run *run = way->run;
    const struct pv_item *item = way->item;
    struct pv_slot *slot;
    int error;

    pv_lock(run->pv);
    error = admit(way);
    if (!error && run->vm->mappings >= run->pv->config.mappings_max) {
        error = -ENOSPC;
    }
    if (!error) {
        way->tables = run->vm->tables;
        error = pv_tree_claim(&run->context->tree, item->device_frame, item->order, &slot);
        error = error == -EEXIST ? in_the_way(run, item) : error ? -ENOSPC : 0;
    }
    if (!error) {
        run->vm->mappings++;
        slot->frame = item->frame;
        slot->handle = way->page.handle;
        slot->vm = run->named->id;
        slot->perm = (uint8_t)item->perm;
        slot->flags = way->page.state == VIOMMU_PV_PAGE_MMIO ? PV_FLAG_UNREFERENCED
                      : is_logged(way)                       ? PV_FLAG_DIRTY
                                                             : 0;
        *out = slot;
        if (pv_slot_link(slot, run->named, way->owner)) {
            give_up(way, slot);
            error = -ENOSPC;
        } else {
            let_go(way); /* the slot says it now */
        }
    }
    pv_unlock(run->pv);
    return error;
}

static void unclaim(struct way *way, struct pv_slot *slot)
{
    struct pv_put put;

    pv_lock(way->run->pv);
    put = pv_slot_unlink(way->run->pv, slot);
    pv_put_end(&put); /* the call itself sees to it that the VMs stay */
    hold(way);
    give_up(way, slot);
    pv_unlock(way->run->pv);
}

static void publish(struct way *way, struct pv_slot *slot)
{
    struct viommu_pv *pv = way->run->pv;
    uint64_t frame;
    uint64_t last;

    pv_lock(pv);
    slot->state = PV_SLOT_LIVE;
    /* Whoever began to remove a frame of it meanwhile did not ask for what was not mapped yet. */
    frame = way->item->frame;
    last = frame + (UINT64_C(1) << way->item->order) - 1;
    if (pv_vm_leaving_next(way->run->named, &frame, last)) {
        slot->flags |= PV_FLAG_TOLD;
    }
    while (pv_vm_leaving_next(way->run->named, &frame, last)) {
        pv_unlock(pv);
        pv->ops->give_back(pv->opaque, way->run->vm->id, way->run->context->id,
                           way->item->device_frame + (frame - way->item->frame),
                           way->run->named->id, frame);
        frame++;
        pv_lock(pv);
    }
    pv_unlock(pv);
}

/*
 * Nobody knows whether it was mapped, or will be: what may be there is taken away as any mapping
 * is, and keeps its references until a flush has succeeded.
 */
static int map_failed(struct way *way, struct pv_slot *slot)
{
    struct viommu_pv *pv = way->run->pv;
    struct pv_context *context = way->run->context;
    const struct pv_item *item = way->item;

    way->kept = true;
    pv_lock(pv);
    slot->state = PV_SLOT_LEAVING;
    (void)pv_isolate(pv, context); /* before another call can use it */
    if (pv_unmap_leaving(pv, slot, 0) == 0) {
        (void)pv_flush(pv, context, item->device_frame,
                       item->device_frame + (UINT64_C(1) << item->order) - 1);
    }
    pv_unlock(pv);
    return -EIO;
}

/* With the references taken. */
static int map_page(struct way *way)
{
    struct viommu_pv *pv = way->run->pv;
    const struct pv_item *item = way->item;
    struct pv_slot *slot;
    int error = claim(way, &slot);

    if (error) {
        return error;
    }
    error = pv->ops->map(pv->opaque, way->run->context->space, item->device_frame, item->order,
                         way->page.handle, item->perm);
    if (error && error != -EIO) {
        unclaim(way, slot);
        return -ENOSPC;
    }
    if (is_logged(way)) {
        pv->ops->mark_dirty(pv->opaque, item->order, way->page.handle);
    }
    if (error) {
        return map_failed(way, slot);
    }
    publish(way, slot);
    return 0;
}

/* With the page as it is to be mapped, and its VMs held. */
static int reference_held(struct way *way)
{
    struct viommu_pv *pv = way->run->pv;
    const struct pv_item *item = way->item;
    bool write = item->perm & VIOMMU_PV_WRITE;
    uint64_t handle = way->page.handle;
    int error;

    if (way->page.state == VIOMMU_PV_PAGE_MMIO) {
        struct viommu_pv_page now;

        /* There is no reference that would tell whether it still is there. */
        if (pv->ops->lookup(pv->opaque, way->run->named->id, item->frame, item->order, &now) ||
            now.state != way->page.state || now.handle != handle || now.owner != way->page.owner) {
            return -ENOENT;
        }
        return map_page(way);
    }
    if (pv->ops->get_page(pv->opaque, way->run->named->id, item->frame, item->order, handle)) {
        return -ENOENT;
    }
    error = write && pv->ops->get_type(pv->opaque, item->order, handle) ? -EBUSY : 0;
    if (!error) {
        error = map_page(way);
        if (way->kept) {
            return error;
        }
        if (error && write) {
            pv->ops->put_type(pv->opaque, item->order, handle);
        }
    }
    if (error) {
        pv->ops->put_page(pv->opaque, item->order, handle);
    }
    return error;
}

/*
 * From before the first reference until the slot has it, or until it is put, a page that is to be
 * removed counts as not drained; one that is to be removed already is not touched.
 */
static int reference(struct way *way)
{
    const struct pv_item *item = way->item;
    struct viommu_pv *pv = way->run->pv;
    int error;

    pv_lock(pv);
    error =
        pv_vm_leaving(way->run->named, item->frame, item->frame + (UINT64_C(1) << item->order) - 1)
            ? -ENOENT
            : 0;
    if (!error) {
        hold(way);
    }
    pv_unlock(pv);
    if (error) {
        return error;
    }
    error = reference_held(way);
    if (way->held) {
        pv_lock(pv);
        let_go(way);
        pv_unlock(pv);
    }
    return error;
}

/* Looks at the page, and makes it ready if its state asks for that. */
static int ready(struct way *way)
{
    int error = look(way);

    if (!error && needs_preparing(way)) {
        error = glance(way);
        error = error ? error : prepare(way);
    }
    return error;
}

/* What a page of a VM that is dying comes to is no news. */
static bool is_dying(const struct way *way)
{
    const struct pv_run *run = way->run;
    bool dying;

    pv_lock(run->pv);
    dying = run->vm->dying || run->named->dying || (way->owner && way->owner->dying);
    pv_unlock(run->pv);
    return dying;
}

int pv_map_item(struct pv_run *run, const struct pv_item *item)
{
    struct way way = {.run = run, .item = item};
    int error = ready(&way);

    if (!error) {
        error = reference(&way);
        if (error == -EAGAIN) {
            /* The slot awaits its flush, which takes its time: the page may be another then. */
            error = glance(&way);
            error = error ? error : ready(&way);
            error = error ? error : reference(&way);
        }
    }
    if (error && error != -EIO && is_dying(&way)) {
        error = -ESHUTDOWN;
    }
    leave_owner(&way);
    return error;
}

/* ---- ranges ---- */

/* Whether numbers are in range; orders and alignment, too. */
static int check_numbers(const struct viommu_pv *pv, const struct viommu_pv_map_call *in)
{
    uint64_t frames;

    if (in->order > 63 || !(pv->config.orders >> in->order & 1) ||
        in->count > pv->config.count_max) {
        return -ERANGE;
    }
    /* Below 2^52 items of up to 2^18 frames: */
    if (in->count > UINT64_MAX >> in->order) {
        return -ERANGE;
    }
    frames = in->count << in->order;
    if (in->frame > pv->config.frame_max || in->device_frame > pv->config.device_frame_max ||
        (frames && (frames - 1 > pv->config.frame_max - in->frame ||
                    frames - 1 > pv->config.device_frame_max - in->device_frame))) {
        return -ERANGE;
    }
    if ((in->frame | in->device_frame) & ((UINT64_C(1) << in->order) - 1)) {
        return -EINVAL;
    }
    return 0;
}

static int check_reserved(const struct pv_run *run, const struct viommu_pv_map_call *in)
{
    return in->count && pv_reserved_meets(run->vm, in->device_frame,
                                          in->device_frame + (in->count << in->order) - 1, NULL)
               ? -EADDRNOTAVAIL
               : 0;
}

/* What is checked before the first page is looked at. */
static int enter_map(struct pv_run *run, const struct viommu_pv_map_call *in)
{
    int numbers = check_numbers(run->pv, in);
    int error;

    pv_lock(run->pv);
    error = pv_enter_context_locked(run, in->context);
    error = error ? error : numbers;
    error = error ? error : check_reserved(run, in);
    error = error ? error : pv_enter_named_locked(run, in->vm);
    pv_unlock(run->pv);
    return error ? error : pv_may_use(run, run->named->id, in->perm) ? 0 : -EPERM;
}

int pv_run_map(struct pv_run *run)
{
    struct viommu_pv_call *call = run->call;
    const struct viommu_pv_map_call *in = &call->in.map;
    int error = enter_map(run, in);
    bool begun = false;

    call->stopped = in->device_frame + (call->done << (in->order & 63));
    while (!error && call->done < in->count) {
        uint64_t offset = call->done << in->order;
        struct pv_item item = {.frame = in->frame + offset,
                               .device_frame = in->device_frame + offset,
                               .order = in->order,
                               .perm = in->perm,
                               .flags = in->flags};

        if (begun && pv_should_yield(run)) {
            return VIOMMU_PENDING;
        }
        begun = true;
        call->stopped = item.device_frame;
        error = pv_map_item(run, &item);
        call->done += !error;
    }
    return error;
}

/* ---- unmap ---- */

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

/* What was unmapped is flushed before the call returns, whatever stopped it. */
static int unmap_end(struct pv_run *run, int error)
{
    struct viommu_pv_call *call = run->call;
    const struct viommu_pv_map_call *in = &call->in.map;
    int failed = 0;

    pv_lock(run->pv);
    if (call->done && !(in->flags & VIOMMU_PV_DEFER)) {
        failed = pv_flush(run->pv, run->context, in->device_frame,
                          in->device_frame + (call->done << in->order) - 1);
    }
    if (run->context->isolated) {
        failed = -EIO;
    }
    pv_unlock(run->pv);
    return failed ? failed : error;
}

void pv_unmap_stopped(struct pv_run *run)
{
    /* A VM that is dying is flushed whole, and so is a context that goes. */
    if (run->vm && run->call->done && !pv_enter_context(run, run->call->in.map.context)) {
        (void)unmap_end(run, 0);
    }
}

/*
 * Whether the call should yield. With the lock; gives it up to ask. One that never yields is not
 * asked; it gives the lock up for each item that is live, and now and then for those that are not.
 */
static bool gives_way(const struct pv_run *run)
{
    bool yes;

    if (!run->call->may_yield && run->call->done % 64) {
        return false;
    }
    pv_unlock(run->pv);
    yes = pv_should_yield(run);
    pv_lock(run->pv);
    return yes;
}

int pv_run_unmap(struct pv_run *run)
{
    struct viommu_pv_call *call = run->call;
    const struct viommu_pv_map_call *in = &call->in.map;
    uint32_t vm = in->vm == VIOMMU_PV_SELF ? run->vm->id : in->vm;
    int error = pv_enter_context(run, in->context);
    bool begun = false;

    error = error ? error : check_numbers(run->pv, in);
    call->stopped = in->device_frame + (call->done << (in->order & 63));
    if (error) {
        return error;
    }
    pv_lock(run->pv);
    while (!error && call->done < in->count) {
        uint64_t offset = call->done << in->order;

        if (begun && gives_way(run)) {
            pv_unlock(run->pv);
            return VIOMMU_PENDING;
        }
        begun = true;
        call->stopped = in->device_frame + offset;
        error = run->vm->dying
                    ? -ESHUTDOWN
                    : unmap_item(run, vm, in->frame + offset, in->device_frame + offset, in->order);
        call->done += !error;
    }
    pv_unlock(run->pv);
    return unmap_end(run, error);
}
