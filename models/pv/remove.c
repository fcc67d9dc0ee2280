/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Paravirtual operations: pages are removed, and VMs die.
 *
 * What is to be revoked is found by the index of the VM whose frames are mapped, in batches: slots
 * become LEAVING under the lock, then each is unmapped, then their contexts are flushed. Contexts
 * in which a flush failed before come last: what others map is revoked all the same.
 */
#include "pv/engine.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"

enum {
    BATCH = 64,
};

struct batch {
    struct {
        struct pv_context *context; /* in use, and its VM */
        struct pv_slot *slot;       /* LEAVING; NULL: only to be flushed */
    } entries[BATCH];
    unsigned count;
    bool busy;   /* there were slots that other calls are at */
    bool stuck;  /* a queue is full of what other calls are at */
    bool failed; /* a flush or an unmapping, in this batch */
    bool retry;  /* only contexts that are isolated are left, and are tried again */
};

/* Takes a slot in, if that is to be; false when there is no room for it. With the lock. */
static bool batch_take(struct batch *batch, struct pv_slot *slot)
{
    struct pv_context *context = slot->context;

    if (context->isolated && !batch->retry) {
        return true;
    }
    if (slot->state != PV_SLOT_LIVE && slot->state != PV_SLOT_PENDING) {
        batch->busy = true;
        return true;
    }
    if (batch->count == BATCH) {
        return false;
    }
    batch->entries[batch->count].slot = slot->state == PV_SLOT_LIVE ? slot : NULL;
    batch->entries[batch->count].context = context;
    batch->count++;
    context->users++;
    context->vm->users++;
    if (slot->state == PV_SLOT_LIVE) {
        slot->state = PV_SLOT_LEAVING;
    }
    return true;
}

/* Unmaps and flushes what was taken. With the lock; gives it up meanwhile. */
static void batch_run(struct viommu_pv *pv, struct batch *batch)
{
    batch->failed = false;
    batch->stuck = false;
    for (unsigned i = 0; i < batch->count; i++) {
        if (batch->entries[i].slot) {
            int error = pv_unmap_leaving(pv, batch->entries[i].slot, PV_FLAG_REVOKING);

            batch->failed |= error == -EIO;
            batch->stuck |= error == -EAGAIN;
        }
    }
    for (unsigned i = 0; i < batch->count; i++) {
        struct pv_context *context = batch->entries[i].context;

        batch->failed |= pv_flush(pv, context, 0, context->tree.last) != 0;
        context->users--;
        context->vm->users--;
    }
    batch->count = 0;
}

/* Asked between two batches; the lock is given up. */
static bool yields(struct viommu_pv *pv)
{
    bool yes;

    pv_unlock(pv);
    yes = pv->ops->yield(pv->opaque);
    pv_lock(pv);
    return yes;
}

/*
 * Runs a batch that may be empty; true when there is no more to do in this call, and what it comes
 * to: 0 when nothing is left.
 */
static bool batch_ends(struct viommu_pv *pv, struct batch *batch, bool left, int *result)
{
    *result = VIOMMU_PENDING;
    if (!left) {
        *result = 0;
        return true;
    }
    if (batch->count == 0) {
        if (batch->retry || batch->busy) {
            return true; /* others have to end what they are at */
        }
        batch->retry = true;
        return false;
    }
    batch_run(pv, batch);
    if (batch->retry && batch->failed) {
        *result = -EIO;
        return true;
    }
    batch->retry = false;
    return yields(pv) || batch->stuck;
}

/* ---- pages ---- */

/* Where a frame is in the list of those to be removed, or would be. */
static size_t leaving_place(const struct pv_vm *vm, uint64_t frame)
{
    size_t low = 0;
    size_t high = vm->leaving_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (vm->leaving[middle] < frame) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

bool pv_vm_leaving_next(const struct pv_vm *vm, uint64_t *frame, uint64_t last)
{
    size_t place = leaving_place(vm, *frame);

    if (place == vm->leaving_count || vm->leaving[place] > last) {
        return false;
    }
    *frame = vm->leaving[place];
    return true;
}

bool pv_vm_leaving(const struct pv_vm *vm, uint64_t first, uint64_t last)
{
    return pv_vm_leaving_next(vm, &first, last);
}

/* *fresh: it was not in the list. */
static int leaving_add(struct pv_vm *vm, uint64_t frame, bool *fresh)
{
    size_t place = leaving_place(vm, frame);

    *fresh = false;
    if (pv_vm_leaving(vm, frame, frame)) {
        return 0;
    }
    if (vm->leaving_count == vm->leaving_room) {
        size_t room = vm->leaving_room ? vm->leaving_room * 2 : 16;
        uint64_t *more = base_realloc_array(vm->leaving, room, sizeof(*more));

        if (!more) {
            return -ENOMEM;
        }
        vm->leaving = more;
        vm->leaving_room = room;
    }
    memmove(vm->leaving + place + 1, vm->leaving + place,
            (vm->leaving_count - place) * sizeof(*vm->leaving));
    vm->leaving[place] = frame;
    vm->leaving_count++;
    *fresh = true;
    return 0;
}

/* It is in the list. */
static void leaving_remove(struct pv_vm *vm, uint64_t frame)
{
    size_t place = leaving_place(vm, frame);

    vm->leaving_count--;
    memmove(vm->leaving + place, vm->leaving + place + 1,
            (vm->leaving_count - place) * sizeof(*vm->leaving));
}

/* Whom to ask. */
struct asked {
    uint64_t device_frame;
    uint32_t mapper;
    uint32_t context;
};

/* Of a large page that was asked for because of another frame each frame is asked for. */
static bool is_to_be_told(const struct pv_slot *slot, bool fresh)
{
    return slot->state == PV_SLOT_LIVE && (fresh || !(slot->flags & PV_FLAG_TOLD));
}

/* Lists those who have not been asked yet; *out is to be freed. With the lock. */
static int list_asked(const struct pv_vm *vm, uint64_t frame, bool fresh, struct asked **out,
                      size_t *count)
{
    struct asked *list;
    size_t total = 0;

    for (struct pv_slot *slot = pv_index_find(&vm->index, frame); slot;
         slot = pv_index_after(&vm->index, frame, slot)) {
        total += is_to_be_told(slot, fresh);
    }
    *count = 0;
    *out = NULL;
    if (total == 0) {
        return 0;
    }
    list = base_alloc_array(total, sizeof(*list));
    if (!list) {
        return -ENOMEM;
    }
    for (struct pv_slot *slot = pv_index_find(&vm->index, frame); slot;
         slot = pv_index_after(&vm->index, frame, slot)) {
        if (is_to_be_told(slot, fresh)) {
            slot->flags |= PV_FLAG_TOLD;
            list[(*count)++] = (struct asked){
                .device_frame = slot->device_frame + (frame - slot->frame),
                .mapper = slot->context->vm->id,
                .context = slot->context->id,
            };
        }
    }
    *out = list;
    return 0;
}

/* With the lock: whether nobody maps the page, and no reference of the VM's is just being dropped.
 */
static bool is_drained(const struct pv_vm *vm, uint64_t frame)
{
    return !pv_index_find(&vm->index, frame) && vm->putting == 0;
}

int viommu_pv_page_remove(struct viommu_pv *pv, uint32_t id, uint64_t frame)
{
    struct asked *list = NULL;
    size_t count = 0;
    struct pv_vm *vm;
    bool fresh;
    int error;

    pv_lock(pv);
    vm = pv_vm_find(pv, id);
    vm = vm && vm->coming ? NULL : vm;
    error = vm ? leaving_add(vm, frame, &fresh) : -ENOENT;
    if (!error) {
        error = list_asked(vm, frame, fresh, &list, &count);
        if (error && fresh) {
            leaving_remove(vm, frame); /* the next call begins anew, and asks all */
        }
    }
    if (!error) {
        vm->users++;
    }
    pv_unlock(pv);
    if (error) {
        return error;
    }
    for (size_t i = 0; i < count; i++) {
        pv->ops->give_back(pv->opaque, list[i].mapper, list[i].context, list[i].device_frame, id,
                           frame);
    }
    base_free(list);
    pv_lock(pv);
    error = is_drained(vm, frame) ? 0 : VIOMMU_PENDING;
    vm->users--;
    pv_unlock(pv);
    return error;
}

/* Revokes what maps the frame. With the lock, and the VM in use. */
static int revoke_frame(struct viommu_pv *pv, struct pv_vm *vm, uint64_t frame)
{
    struct batch batch = {.count = 0};
    int result;

    do {
        batch.busy = false;
        for (struct pv_slot *slot = pv_index_find(&vm->index, frame);
             slot && batch_take(&batch, slot); slot = pv_index_after(&vm->index, frame, slot)) {
        }
    } while (!batch_ends(pv, &batch, !is_drained(vm, frame), &result));
    return result;
}

int viommu_pv_page_revoke(struct viommu_pv *pv, uint32_t id, uint64_t frame)
{
    struct pv_vm *vm;
    int error = 0;

    pv_lock(pv);
    vm = pv_vm_find(pv, id);
    if (!vm || !pv_vm_leaving(vm, frame, frame)) {
        error = vm ? -EINVAL : -ENOENT;
    } else {
        vm->users++;
        error = revoke_frame(pv, vm, frame);
        vm->users--;
    }
    pv_unlock(pv);
    return error;
}

int viommu_pv_page_settle(struct viommu_pv *pv, uint32_t id, uint64_t frame)
{
    struct pv_vm *vm;
    int error = 0;

    pv_lock(pv);
    vm = pv_vm_find(pv, id);
    if (!vm || !pv_vm_leaving(vm, frame, frame)) {
        error = -ENOENT;
    } else {
        leaving_remove(vm, frame);
        for (struct pv_slot *slot = pv_index_find(&vm->index, frame); slot;
             slot = pv_index_after(&vm->index, frame, slot)) {
            if (!pv_vm_leaving(vm, slot->frame, slot->frame + (UINT64_C(1) << slot->order) - 1)) {
                slot->flags &= (uint8_t)~PV_FLAG_TOLD;
            }
        }
    }
    pv_unlock(pv);
    return error;
}

/*
 * Which frames of a VM are about to be removed is told to those who map the frame in question, and
 * to those who may map any of the VM's: who has just given it back is one.
 */
int pv_run_acknowledge(struct pv_run *run)
{
    const struct viommu_pv_acknowledge_call *in = &run->call->in.acknowledge;
    struct viommu_pv *pv = run->pv;
    uint64_t remaining;
    bool leaving;
    int error = in->frame > pv->config.frame_max ? -ERANGE : pv_enter_named(run, in->vm);

    if (error) {
        return error;
    }
    pv_lock(pv);
    remaining = pv_places(run, in->frame, false, NULL, 0);
    leaving = pv_vm_leaving(run->named, in->frame, in->frame);
    pv_unlock(pv);
    if (!remaining && !pv_may_use(run, run->named->id, VIOMMU_PV_READ) &&
        !pv_may_use(run, run->named->id, VIOMMU_PV_WRITE)) {
        return -EPERM;
    }
    if (!leaving) {
        return -ENOENT;
    }
    run->call->out.acknowledged.remaining = remaining;
    pv->ops->acknowledged(pv->opaque, run->vm->id, run->named->id, in->frame, remaining);
    return 0;
}

/* ---- VMs ---- */

/* Fills a batch with slots that map the VM's frames, from where the last one ended. */
static void take_index(struct pv_vm *vm, struct batch *batch)
{
    struct pv_slot *slot;

    while ((slot = pv_index_any(&vm->index, &vm->position))) {
        for (; slot; slot = slot->next) {
            if (!batch_take(batch, slot)) {
                return;
            }
        }
        vm->position++;
    }
}

static void take_aliases(struct pv_vm *vm, struct batch *batch)
{
    for (struct pv_alias *alias = vm->aliases; alias; alias = alias->next) {
        if (!batch_take(batch, alias->slot)) {
            return;
        }
    }
}

/* Takes away what others map of a VM's pages. */
static int revoke_all(struct viommu_pv *pv, struct pv_vm *vm)
{
    struct batch batch = {.count = 0};
    int result;

    do {
        batch.busy = false;
        take_index(vm, &batch);
        take_aliases(vm, &batch);
        if (batch.count == 0) {
            vm->position = 0;
        }
    } while (!batch_ends(pv, &batch, vm->index.count || vm->alias_count, &result));
    return result;
}

/* Takes away what a VM maps. */
static int clear_all(struct viommu_pv *pv, struct pv_vm *vm)
{
    int error = 0;

    for (uint32_t id = 0; id < pv->config.contexts_max; id++) {
        struct pv_context *context = vm->contexts[id];
        int ret = context ? pv_context_clear(pv, context, true) : 0;

        if (ret == VIOMMU_PENDING) {
            return ret;
        }
        error = ret ? ret : error;
    }
    return error;
}

static int take_apart(struct viommu_pv *pv, struct pv_vm *vm)
{
    int error = clear_all(pv, vm);
    int others = error == VIOMMU_PENDING ? 0 : revoke_all(pv, vm);

    error = others ? others : error;
    if (!error) {
        error = pv_devices_remove(pv, vm);
    }
    if (!error && (vm->users || vm->mappings)) {
        error = VIOMMU_PENDING;
    }
    return error;
}

int viommu_pv_vm_destroy(struct viommu_pv *pv, uint32_t id)
{
    struct pv_vm *vm;
    int error;

    pv_lock(pv);
    vm = pv_vm_find(pv, id);
    vm = vm && vm->coming ? NULL : vm;
    if (vm) {
        vm->dying = true;
    }
    if (!vm || vm->removing || vm->users) {
        pv_unlock(pv);
        return vm ? VIOMMU_PENDING : -ENOENT;
    }
    vm->removing = true;
    error = take_apart(pv, vm);
    if (error) {
        vm->removing = false;
    } else {
        pv_vm_take_out(pv, vm); /* nobody can come to use it now */
    }
    pv_unlock(pv);
    if (error) {
        return error;
    }
    for (uint32_t context = 0; context < pv->config.contexts_max; context++) {
        if (vm->contexts[context]) {
            pv_context_free(pv, vm->contexts[context]);
        }
    }
    pv_vm_free(vm);
    return 0;
}
