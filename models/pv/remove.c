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

/* Takes a slot in, if that is to be. With the lock. */
static void batch_take(struct batch *batch, struct pv_slot *slot)
{
    struct pv_context *context = slot->context;

    if (context->isolated && !batch->retry) {
        return;
    }
    if (slot->state != PV_SLOT_LIVE && slot->state != PV_SLOT_PENDING) {
        batch->busy = true;
        return;
    }
    batch->entries[batch->count].slot = slot->state == PV_SLOT_LIVE ? slot : NULL;
    batch->entries[batch->count].context = context;
    batch->count++;
    context->users++;
    context->vm->users++;
    if (slot->state == PV_SLOT_LIVE) {
        slot->state = PV_SLOT_LEAVING;
    }
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

        if (i + 1 == batch->count || batch->entries[i + 1].context != context) {
            batch->failed |= pv_flush(pv, context, 0, context->tree.last) != 0;
        }
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

/* What is revoked: a way through slots, which begins anew, and whether there is anything left. */
struct revoked {
    struct pv_slot *(*next)(struct pv_vm *vm, struct pv_walk *walk);
    void (*anew)(struct pv_vm *vm, struct pv_walk *walk);
    bool (*left)(struct pv_vm *vm, const struct pv_walk *walk);
};

/* Looks at some slots, and takes in what is to be; false at the end of the way. */
static bool batch_fill(struct batch *batch, struct pv_vm *vm, struct pv_walk *walk,
                       const struct revoked *what)
{
    struct pv_slot *slot = NULL;

    for (unsigned looked = 0; looked < BATCH && (slot = what->next(vm, walk)); looked++) {
        batch_take(batch, slot);
    }
    return slot;
}

/*
 * Revokes what is on the way, which it goes again and again until nothing is left of it, or nothing
 * more can be done now. *retry says whether contexts that are isolated are tried, and is kept for
 * the next call. `resumed`: it stands where the last call left it, so that what is behind it was
 * seen by that one. With the lock, and the VM there to stay; gives the lock up meanwhile.
 */
static int revoke(struct viommu_pv *pv, struct pv_vm *vm, struct pv_walk *walk,
                  const struct revoked *what, bool *retry, bool resumed)
{
    struct batch batch = {.count = 0, .retry = *retry};
    bool progress = false;

    while (what->left(vm, walk)) {
        bool more = batch_fill(&batch, vm, walk, what);
        bool taken = batch.count > 0;

        progress |= taken;
        batch_run(pv, &batch);
        if (batch.retry && batch.failed) {
            return -EIO;
        }
        if (!more) {
            what->anew(vm, walk);
            if (!resumed && !progress && (batch.retry || batch.busy)) {
                return VIOMMU_PENDING; /* others have to end what they are at */
            }
            batch.retry = resumed ? batch.retry : !progress;
            *retry = batch.retry;
            batch.busy = false;
            progress = false;
            resumed = false;
        }
        if (taken && (yields(pv) || batch.stuck)) {
            return VIOMMU_PENDING;
        }
        if (!taken && more) {
            pv_unlock(pv); /* only for a moment */
            pv_lock(pv);
        }
    }
    return 0;
}

/* ---- pages ---- */

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

/*
 * Asks those who have not been asked yet, some at a time. With the lock, and the VM in use; gives
 * the lock up meanwhile.
 */
static void ask(struct viommu_pv *pv, struct pv_vm *vm, uint64_t frame, bool fresh)
{
    struct asked list[BATCH];
    struct pv_walk walk;
    struct pv_slot *slot;

    pv_walk_begin(&vm->index, &walk, frame);
    do {
        unsigned count = 0;

        for (unsigned looked = 0; looked < BATCH && (slot = pv_walk_next(&vm->index, &walk));
             looked++) {
            if (is_to_be_told(slot, fresh)) {
                slot->flags |= PV_FLAG_TOLD;
                list[count++] = (struct asked){
                    .device_frame = slot->device_frame + (frame - slot->frame),
                    .mapper = slot->context->vm->id,
                    .context = slot->context->id,
                };
            }
        }
        pv_unlock(pv);
        for (unsigned i = 0; i < count; i++) {
            pv->ops->give_back(pv->opaque, list[i].mapper, list[i].context, list[i].device_frame,
                               vm->id, frame);
        }
        pv_lock(pv);
    } while (slot);
    pv_walk_end(&vm->index, &walk);
}

/*
 * With the lock: whether nobody maps the page, and no reference to it is just being taken or
 * dropped. Each call that is under way holds 64 times at most; of a page that is mapped that is not
 * looked at.
 */
static bool is_drained(const struct pv_vm *vm, uint64_t frame)
{
    const struct pv_hold *hold = vm->holds;

    if (pv_index_has(&vm->index, frame)) {
        return false;
    }
    while (hold && (frame < hold->first || frame > hold->last)) {
        pv_step();
        hold = hold->next;
    }
    return !hold;
}

int viommu_pv_page_remove(struct viommu_pv *pv, uint32_t id, uint64_t frame)
{
    struct pv_vm *vm;
    bool fresh;
    int error;

    pv_lock(pv);
    vm = pv_vm_find(pv, id);
    vm = vm && vm->coming ? NULL : vm;
    fresh = vm && !pv_vm_leaving(vm, frame, frame);
    error = !vm ? -ENOENT : fresh ? range_set_add(&vm->leaving, frame, frame) : 0;
    if (!error) {
        vm->users++;
        ask(pv, vm, frame, fresh);
        error = is_drained(vm, frame) ? 0 : VIOMMU_PENDING;
        vm->users--;
    }
    pv_unlock(pv);
    return error;
}

static struct pv_slot *next_of_frame(struct pv_vm *vm, struct pv_walk *walk)
{
    return pv_walk_next(&vm->index, walk);
}

static void frame_anew(struct pv_vm *vm, struct pv_walk *walk)
{
    uint64_t frame = walk->frame;

    pv_walk_end(&vm->index, walk);
    pv_walk_begin(&vm->index, walk, frame);
}

static bool frame_left(struct pv_vm *vm, const struct pv_walk *walk)
{
    return !is_drained(vm, walk->frame);
}

static const struct revoked of_frame = {next_of_frame, frame_anew, frame_left};

/* Where the last call about the frame came to; NULL: there was none, or another call is at it. */
static struct pv_revoking *revoking_find(struct pv_vm *vm, uint64_t frame)
{
    for (unsigned i = 0; i < PV_REVOKING; i++) {
        struct pv_revoking *it = &vm->revoking[i];

        if (it->there && !it->busy && it->walk.frame == frame) {
            return it;
        }
    }
    return NULL;
}

static void revoking_end(struct pv_vm *vm, struct pv_revoking *it)
{
    pv_walk_end(&vm->index, &it->walk);
    it->there = false;
}

/* One that is not used, or not by a call; NULL: calls are at all of them. */
static struct pv_revoking *revoking_free(struct pv_vm *vm)
{
    struct pv_revoking *it = NULL;

    for (unsigned i = 0; i < PV_REVOKING && (!it || it->there); i++) {
        struct pv_revoking *at = &vm->revoking[i];

        if (!at->there || (!at->busy && !it)) {
            it = at;
        }
    }
    if (it && it->there) {
        revoking_end(vm, it); /* the next call about that page begins anew */
    }
    return it;
}

/* With the lock, and the VM in use; gives the lock up meanwhile. */
static int revoke_page(struct viommu_pv *pv, struct pv_vm *vm, uint64_t frame)
{
    struct pv_revoking *it = revoking_find(vm, frame);
    struct pv_revoking own; /* where more are under way than are remembered */
    bool resumed = it;
    int error;

    if (!resumed) {
        it = revoking_free(vm);
        it = it ? it : &own;
        *it = (struct pv_revoking){.there = true};
        pv_walk_begin(&vm->index, &it->walk, frame);
    }
    it->busy = true;
    error = revoke(pv, vm, &it->walk, &of_frame, &it->retry, resumed);
    it->busy = false;
    /* Of a page that has been settled meanwhile nothing is left to go on with. */
    if (error == 0 || it == &own || !pv_vm_leaving(vm, frame, frame)) {
        revoking_end(vm, it);
    }
    return error;
}

int viommu_pv_page_revoke(struct viommu_pv *pv, uint32_t id, uint64_t frame)
{
    struct pv_vm *vm;
    int error;

    pv_lock(pv);
    vm = pv_vm_find(pv, id);
    if (!vm || !pv_vm_leaving(vm, frame, frame)) {
        error = vm ? -EINVAL : -ENOENT;
    } else {
        vm->users++;
        error = revoke_page(pv, vm, frame);
        vm->users--;
    }
    pv_unlock(pv);
    return error;
}

/* What was asked for may be asked for again. With the lock; gives it up now and then. */
static void forget_told(struct viommu_pv *pv, struct pv_vm *vm, uint64_t frame)
{
    struct pv_walk walk;
    struct pv_slot *slot;
    unsigned looked = 0;

    pv_walk_begin(&vm->index, &walk, frame);
    while ((slot = pv_walk_next(&vm->index, &walk))) {
        if (!pv_vm_leaving(vm, slot->frame, slot->frame + (UINT64_C(1) << slot->order) - 1)) {
            slot->flags &= (uint8_t)~PV_FLAG_TOLD;
        }
        if (++looked % BATCH == 0) {
            pv_give_way(pv);
        }
    }
    pv_walk_end(&vm->index, &walk);
}

int viommu_pv_page_settle(struct viommu_pv *pv, uint32_t id, uint64_t frame)
{
    struct pv_vm *vm;
    int error;

    pv_lock(pv);
    vm = pv_vm_find(pv, id);
    if (!vm || !pv_vm_leaving(vm, frame, frame)) {
        error = -ENOENT;
    } else {
        error = range_set_subtract(&vm->leaving, frame, frame);
    }
    if (!error) {
        struct pv_revoking *it;

        while ((it = revoking_find(vm, frame))) { /* several, where calls were made inside others */
            revoking_end(vm, it);
        }
        vm->users++;
        forget_told(pv, vm, frame);
        vm->users--;
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
    const struct pv_wanted wanted = {.frame = in->frame};
    uint64_t remaining;
    bool leaving;
    int error = in->frame > pv->config.frame_max ? -ERANGE : pv_enter_named(run, in->vm);

    if (error) {
        return error;
    }
    pv_lock(pv);
    error = pv_places(run, &wanted);
    leaving = pv_vm_leaving(run->named, in->frame, in->frame);
    pv_unlock(pv);
    if (error) {
        return error;
    }
    remaining = run->call->search.count;
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

/* Slots that map the VM's frames, then those that map pages of it as another's. */
static struct pv_slot *next_of_all(struct pv_vm *vm, struct pv_walk *walk)
{
    struct pv_slot *slot = pv_walk_all_next(&vm->index, walk);
    struct pv_alias *alias = vm->alias;

    if (!slot && alias) {
        vm->alias = alias->next;
        slot = alias->slot;
    }
    return slot;
}

static void all_anew(struct pv_vm *vm, struct pv_walk *walk)
{
    if (vm->walking) {
        pv_walk_end(&vm->index, walk);
    }
    pv_walk_all_begin(&vm->index, walk);
    vm->walking = true;
    vm->alias = vm->aliases;
}

static bool all_left(struct pv_vm *vm, const struct pv_walk *walk)
{
    (void)walk;
    return vm->index.count || vm->alias_count;
}

static const struct revoked of_all = {next_of_all, all_anew, all_left};

/* Takes away what others map of a VM's pages; goes on where it was when it is called again. */
static int revoke_all(struct viommu_pv *pv, struct pv_vm *vm)
{
    bool resumed = vm->walking;

    if (!resumed) {
        all_anew(vm, &vm->walk);
    }
    return revoke(pv, vm, &vm->walk, &of_all, &vm->retrying, resumed);
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
