/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Paravirtual operations: one page is mapped.
 *
 * It is looked up and judged without side effects; then made ready, and looked up and judged
 * again; then references, the slot, the real mapping; undone in reverse where one fails.
 */
#include "pv/engine.h"

#include <errno.h>

bool pv_should_yield(const struct pv_run *run)
{
    return run->call->may_yield && run->pv->ops->yield(run->pv->opaque);
}

/* ---- one page ---- */

/* An item on its way. */
struct way {
    struct pv_run *run;
    const struct pv_item *item;
    struct viommu_pv_page page;
    struct pv_vm *owner; /* counted as used, when it is neither the named VM nor NULL */
    uint64_t tables;     /* of the VM, before the slot was claimed */
    struct pv_hold hold; /* of the named VM, */
    bool held;           /* while references are ours and no slot's */
    bool kept;           /* it failed, and a slot has the references */
};

/* With the lock. */
static void hold(struct way *way)
{
    const struct pv_item *item = way->item;

    way->held = true;
    pv_hold(way->run->named, &way->hold, item->frame,
            item->frame + (UINT64_C(1) << item->order) - 1);
}

static void let_go(struct way *way)
{
    way->held = false;
    pv_let_go(&way->hold);
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
    if (pv_reserved_meets(run->vm, item->device_frame,
                          item->device_frame + (UINT64_C(1) << item->order) - 1, NULL)) {
        return -EADDRNOTAVAIL; /* of a device that has just come */
    }
    return pv_vm_leaving(run->named, item->frame, item->frame + (UINT64_C(1) << item->order) - 1)
               ? -ENOENT
               : 0;
}

/*
 * What is in the way of a slot: 0, -EEXIST, or -EAGAIN when it waits to be flushed. Of many of
 * these not all are looked at, as they are flushed at any rate: what else there is is seen then.
 */
static int in_the_way(const struct pv_run *run, const struct pv_item *item)
{
    enum { LOOK = 32 };
    uint64_t last = item->device_frame + (UINT64_C(1) << item->order) - 1;
    unsigned looked = 0;
    int found = 0;

    for (const struct pv_slot *slot = pv_tree_next(&run->context->tree, item->device_frame);
         slot && slot->device_frame <= last && looked++ < LOOK;
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
            pv_slots_give_up(run, slot, 1, way->tables);
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
    pv_slot_unlink(way->run->pv, slot, NULL, &put);
    pv_put_end(&put); /* the call itself sees to it that the VMs stay */
    hold(way);
    pv_slots_give_up(way->run, slot, 1, way->tables);
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

void pv_map_unknown(struct viommu_pv *pv, struct pv_slot *slot)
{
    struct pv_context *context = slot->context;
    uint64_t first = slot->device_frame;
    uint64_t last = pv_slot_last(slot);

    slot->state = PV_SLOT_LEAVING;
    (void)pv_isolate(pv, context); /* before another call can use it */
    if (pv_unmap_leaving(pv, slot, 0) == 0) {
        (void)pv_flush(pv, context, first, last);
    }
}

/* With the references taken. */
static int map_page(struct way *way)
{
    struct viommu_pv *pv = way->run->pv;
    const struct pv_item *item = way->item;
    struct pv_slot *slot = NULL;
    int error = claim(way, &slot);

    if (error) {
        return error;
    }
    error = pv->ops->map(pv->opaque, way->run->context->space, item->device_frame, item->order,
                         way->page.handle, item->perm);
    if (error && error != -EIO) {
        unclaim(way, slot);
        return pv_map_error(error);
    }
    if (is_logged(way)) {
        pv->ops->mark_dirty(pv->opaque, item->order, way->page.handle);
    }
    if (error) {
        way->kept = true;
        pv_lock(pv);
        pv_map_unknown(pv, slot);
        pv_unlock(pv);
        return -EIO;
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
