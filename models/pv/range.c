/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Paravirtual operations: the pages of a call that maps.
 *
 * As map.c tells it, one page after another; but pages that ask for nothing special are mapped some
 * at a time, so that the lock is taken for all of them: they are of order 0, belong to the VM that
 * was named, are ready, and their slots are free and in one table. Those are looked up and
 * referenced, one by one; then their slots are claimed; then they are mapped, one by one; then
 * their slots become LIVE. Where one fails those before it are mapped, and those after it have not
 * been begun, or everything is undone for them. What is in the way of several is looked at for one:
 * it says what is wrong with that.
 */
#include "pv/plain.h"

#include <errno.h>

enum {
    SOME = 64,
};

/* Pages on their way. */
struct some {
    struct pv_run *run;
    uint64_t frame; /* of the first */
    uint64_t device_frame;
    uint32_t perm;
    unsigned count;         /* that have references */
    uint64_t handles[SOME]; /* of those */
    struct pv_slot *slots;  /* side by side */
    unsigned claimed;
    unsigned mapped;
    uint64_t tables; /* of the VM, before the slots were claimed */
};

/* ---- how many ---- */

/* Of pages from a frame on, those that may be mapped at a device frame, as far as VMs and context
   go. With the lock. */
static unsigned admit(const struct pv_run *run, uint64_t frame, uint64_t device_frame,
                      unsigned count)
{
    const struct pv_vm *vm = run->vm;
    uint64_t max = run->pv->config.mappings_max;
    uint64_t leaving = frame;

    if (count == 0 || vm->dying || run->named->dying || run->context->isolated ||
        vm->mappings >= max ||
        pv_reserved_meets(vm, device_frame, device_frame + count - 1, NULL)) {
        return 0;
    }
    count = count < max - vm->mappings ? count : (unsigned)(max - vm->mappings);
    return pv_vm_leaving_next(run->named, &leaving, frame + count - 1) ? (unsigned)(leaving - frame)
                                                                       : count;
}

static void let_go(struct pv_run *run)
{
    if (run->held) {
        pv_let_go(&run->hold);
        run->held = false;
    }
}

/*
 * How many may be mapped together, after the first `done` of a call; none are held. From now on,
 * until let_go(), those pages are. With the lock.
 */
static void plan(struct pv_run *run, uint64_t done)
{
    const struct viommu_pv_map_call *in = &run->call->in.map;
    uint64_t frame = in->frame + done;
    uint64_t device_frame = in->device_frame + done;
    uint64_t left = in->count - done;
    unsigned count = left < SOME ? (unsigned)left : SOME;

    run->some = 0;
    if (in->order == 0 && count) {
        count = pv_tree_free_run(&run->context->tree, device_frame, count);
        run->some = admit(run, frame, device_frame, count);
    }
    if (run->some) {
        pv_index_prefetch(&run->named->index, frame, run->some);
        pv_hold(run->named, &run->hold, frame, frame + run->some - 1);
        run->held = true;
    }
}

/* ---- their references ---- */

/* References to `count` pages, or fewer: 0, or what is wrong with the next, or VIOMMU_PENDING. */
static int reference(struct some *some, unsigned count)
{
    int error = 0;

    while (!error && some->count < count) {
        if (some->count && pv_should_yield(some->run)) {
            return VIOMMU_PENDING;
        }
        error = pv_plain_reference(some->run, some->frame + some->count, some->perm,
                                   &some->handles[some->count]);
        some->count += !error;
    }
    return error == -EAGAIN ? 0 : error;
}

/* ---- their slots ---- */

/* Slots from a number on are not claimed any more; nor is room for them, which counts. */
static void give_up(struct some *some, unsigned from)
{
    pv_slots_give_up(some->run, &some->slots[from], some->claimed - from, some->tables);
    some->claimed = from;
}

/* Claims slots for as many as can have one. With the lock. */
static void claim(struct some *some)
{
    struct pv_run *run = some->run;
    unsigned count = admit(run, some->frame, some->device_frame, some->count);

    some->tables = run->vm->tables;
    if (count == 0 ||
        pv_tree_claim_run(&run->context->tree, some->device_frame, &count, &some->slots)) {
        return;
    }
    some->claimed = count;
    run->vm->mappings += count;
    for (unsigned i = 0; i < count; i++) {
        pv_plain_claim(run, &some->slots[i], some->device_frame + i, some->frame + i,
                       some->handles[i], some->perm);
    }
    for (unsigned i = 0; i < count; i++) {
        if (pv_index_add(&run->named->index, &some->slots[i])) {
            give_up(some, i);
            return;
        }
    }
}

/* Claims; the references of those that have no slot are dropped. Without the lock. */
static void claim_or_drop(struct some *some)
{
    struct pv_run *run = some->run;

    pv_lock(run->pv);
    claim(some);
    if (some->claimed == some->count) {
        let_go(run); /* the slots say it now */
    }
    pv_unlock(run->pv);
    for (unsigned i = some->claimed; i < some->count; i++) {
        pv_plain_drop(run->pv, some->handles[i], some->perm);
    }
}

/* ---- mapped ---- */

static int map(struct some *some)
{
    const struct pv_run *run = some->run;
    const struct viommu_pv *pv = run->pv;
    int error = 0;

    while (!error && some->mapped < some->claimed) {
        error = pv->ops->map(pv->opaque, run->context->space, some->device_frame + some->mapped, 0,
                             some->handles[some->mapped], some->perm);
        some->mapped += !error;
    }
    return pv_map_error(error);
}

/* Undoes it for those from a number on. With the lock; gives it up meanwhile. */
static void undo(struct some *some, unsigned from)
{
    struct viommu_pv *pv = some->run->pv;
    struct pv_put puts[SOME];
    unsigned count = 0;

    for (unsigned i = from; i < some->claimed; i++) {
        pv_slot_unlink(pv, &some->slots[i], count ? puts[count - 1].vm : NULL, &puts[count]);
        count++;
    }
    give_up(some, from);
    pv_put_all(pv, puts, count);
}

/*
 * Whoever began to remove a frame of them meanwhile did not ask for what was not mapped yet. With
 * the lock; gives it up meanwhile.
 */
static void tell(const struct some *some)
{
    const struct pv_run *run = some->run;
    struct viommu_pv *pv = run->pv;
    uint64_t frame = some->frame;
    uint64_t last = some->frame + some->mapped - 1;
    unsigned told[SOME];
    unsigned count = 0;

    for (; frame <= last && pv_vm_leaving_next(run->named, &frame, last); frame++) {
        unsigned number = (unsigned)(frame - some->frame);

        some->slots[number].flags |= PV_FLAG_TOLD;
        told[count++] = number;
    }
    if (count == 0) {
        return;
    }
    pv_unlock(pv);
    for (unsigned i = 0; i < count; i++) {
        pv->ops->give_back(pv->opaque, run->vm->id, run->context->id, some->device_frame + told[i],
                           run->named->id, some->frame + told[i]);
    }
    pv_lock(pv);
}

/*
 * Those that were mapped become LIVE; of the others nothing is left, but for one of which nobody
 * knows. With the lock; gives it up meanwhile.
 */
static void publish(struct some *some, int error)
{
    struct viommu_pv *pv = some->run->pv;
    bool unknown = error == -EIO;

    if (unknown) {
        pv_map_unknown(pv, &some->slots[some->mapped]);
    }
    if (some->mapped + unknown < some->claimed) {
        undo(some, some->mapped + unknown);
    }
    for (unsigned i = 0; i < some->mapped; i++) {
        some->slots[i].state = PV_SLOT_LIVE;
    }
    if (some->mapped) {
        tell(some);
    }
}

/*
 * Maps pages that may be mapped together; *mapped becomes how many were. Returns 0, VIOMMU_PENDING
 * to yield before the next, or what is wrong with that. 0, and none: try the next by itself.
 */
static int map_some(struct pv_run *run, uint64_t done, unsigned *mapped)
{
    const struct viommu_pv_map_call *in = &run->call->in.map;
    struct some some;
    int result;
    int error = 0;

    some.run = run;
    some.frame = in->frame + done;
    some.device_frame = in->device_frame + done;
    some.perm = in->perm;
    some.count = 0;
    some.claimed = 0;
    some.mapped = 0;
    result = reference(&some, run->some);
    if (some.count) {
        claim_or_drop(&some);
        error = map(&some);
    }
    if (error || some.claimed < some.count) {
        result = error;
    }
    *mapped = some.mapped;
    pv_lock(run->pv);
    let_go(run);
    publish(&some, error);
    if (result < 0 && result != -EIO && (run->vm->dying || run->named->dying)) {
        result = -ESHUTDOWN; /* what its pages come to is no news */
    }
    if (result == 0 && done + some.mapped < in->count) {
        plan(run, done + some.mapped);
    } else {
        pv_leave(run);
    }
    pv_unlock(run->pv);
    return result;
}

/* ---- calls ---- */

int pv_check_numbers(const struct viommu_pv *pv, const struct viommu_pv_map_call *in)
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

int pv_enter_map(struct pv_run *run)
{
    const struct viommu_pv_map_call *in = &run->call->in.map;
    int error = pv_enter_context_locked(run, in->context);

    error = error ? error : pv_check_numbers(run->pv, in);
    error = error ? error : check_reserved(run, in);
    error = error ? error : pv_enter_named_locked(run, in->vm);
    if (!error) {
        plan(run, run->call->done);
    }
    return error;
}

/* The next page by itself. */
static int map_one(struct pv_run *run, uint64_t done, unsigned *mapped)
{
    const struct viommu_pv_map_call *in = &run->call->in.map;
    uint64_t offset = done << in->order;
    struct pv_item item = {.frame = in->frame + offset,
                           .device_frame = in->device_frame + offset,
                           .order = in->order,
                           .perm = in->perm,
                           .flags = in->flags};
    int error;

    if (run->held) {
        pv_lock(run->pv);
        let_go(run);
        pv_unlock(run->pv);
    }
    error = pv_map_item(run, &item);
    *mapped = !error;
    if (!error && in->order == 0 && done + 1 < in->count) {
        pv_lock(run->pv);
        plan(run, done + 1);
        pv_unlock(run->pv);
    }
    return error;
}

static int map_all(struct pv_run *run)
{
    struct viommu_pv_call *call = run->call;
    bool begun = false;
    int error = 0;

    while (!error && call->done < call->in.map.count) {
        unsigned mapped = 0;

        if (begun && pv_should_yield(run)) {
            return VIOMMU_PENDING;
        }
        begun = true;
        if (run->some) {
            error = map_some(run, call->done, &mapped);
        }
        if (!error && !mapped) {
            error = map_one(run, call->done, &mapped);
        }
        call->done += mapped;
    }
    return error;
}

int pv_run_map(struct pv_run *run)
{
    struct viommu_pv_call *call = run->call;
    const struct viommu_pv_map_call *in = &call->in.map;
    int error = run->entered;

    if (!error) {
        error = pv_may_use(run, run->named->id, in->perm) ? map_all(run) : -EPERM;
    }
    call->stopped = in->device_frame + (call->done << (in->order & 63));
    return error;
}
