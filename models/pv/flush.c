/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Paravirtual operations: from PENDING to FREE, and what a slot refers to.
 *
 * Each context has a queue of what awaits its flush. A flush notes where the queue ends, has the
 * real IOMMU flushed without the lock, and then drops what lies before that place: what came later
 * waits for a later flush. Two that overlap do no harm: what one has dropped the other does not
 * find. Slots that lie side by side in queue, table and index leave them together: most do, where
 * much is unmapped at once, and where their page lies in the index is looked for once for eight.
 */
#include "pv/engine.h"

#include <errno.h>

#include "base/alloc.h"

enum {
    PUTS = 64, /* that are dropped in one go */
    LOOK = 64, /* places that are looked at under one lock */
};

int pv_slot_link(struct pv_slot *slot, struct pv_vm *named, struct pv_vm *owner)
{
    struct pv_alias *alias;
    int error;

    if (owner) {
        alias = base_alloc(sizeof(*alias));
        if (!alias) {
            return -ENOMEM;
        }
    }
    error = pv_index_add(&named->index, slot);
    if (owner && error) {
        base_free(alias);
    } else if (owner) {
        *alias = (struct pv_alias){
            .next = owner->aliases, .at = &owner->aliases, .slot = slot, .owner = owner->id};
        if (alias->next) {
            alias->next->at = &alias->next;
        }
        owner->aliases = alias;
        owner->alias_count++;
        slot->alias = alias;
    }
    return error;
}

void pv_slot_unlink(struct viommu_pv *pv, struct pv_slot *slot, struct pv_vm *held,
                    struct pv_put *put)
{
    struct pv_alias *alias = slot->alias;

    put->vm = held && held->id == slot->vm ? held : pv_vm_find(pv, slot->vm);
    put->owner = NULL;
    put->handle = slot->handle;
    put->order = slot->order;
    put->perm = slot->perm;
    put->flags = slot->flags;
    put->holds = put->vm != held;
    pv_index_remove(&put->vm->index, slot);
    pv_hold(put->vm, &put->hold, slot->frame, slot->frame + (UINT64_C(1) << slot->order) - 1);
    put->vm->users += put->holds;
    if (alias) {
        put->owner = pv_vm_find(pv, alias->owner);
        put->owner->users++;
        put->owner->alias_count--;
        if (put->owner->alias == alias) {
            put->owner->alias = alias->next;
        }
        *alias->at = alias->next;
        if (alias->next) {
            alias->next->at = alias->at;
        }
        base_free(alias);
        slot->alias = NULL;
    }
}

void pv_slot_remove(struct pv_slot *slot)
{
    struct pv_context *context = slot->context;

    context->vm->mappings--;
    pv_tree_remove(&context->tree, slot);
}

void pv_slots_give_up(const struct pv_run *run, struct pv_slot *slots, unsigned count,
                      uint64_t tables)
{
    for (unsigned i = 0; i < count; i++) {
        pv_slot_remove(&slots[i]);
    }
    if (run->vm->tables > tables) {
        pv_tree_trim(&run->context->tree);
    }
}

void pv_put_end(const struct pv_put *put)
{
    if (put->hold.at) {
        pv_let_go(&put->hold);
    }
    put->vm->users -= put->holds;
    if (put->owner) {
        put->owner->users--;
    }
}

/* Drops what was taken for a page. Without the lock. */
static void put_one(struct viommu_pv *pv, const struct pv_put *put)
{
    if (put->flags & PV_FLAG_UNREFERENCED) {
        return;
    }
    if (put->perm & VIOMMU_PV_WRITE) {
        if (put->flags & PV_FLAG_DIRTY) {
            pv->ops->mark_dirty(pv->opaque, put->order, put->handle);
        }
        pv->ops->put_type(pv->opaque, put->order, put->handle);
    }
    pv->ops->put_page(pv->opaque, put->order, put->handle);
}

void pv_put_all(struct viommu_pv *pv, const struct pv_put *puts, unsigned count)
{
    pv_unlock(pv);
    for (unsigned i = 0; i < count; i++) {
        put_one(pv, &puts[i]);
    }
    pv_lock(pv);
    for (unsigned i = 0; i < count; i++) {
        pv_put_end(&puts[i]);
    }
}

int pv_isolate(struct viommu_pv *pv, struct pv_context *context)
{
    context->isolated = true;
    context->failures++;
    context->isolating++;
    pv_unlock(pv);
    pv->ops->isolate(pv->opaque, context->space);
    pv_lock(pv);
    context->isolating--;
    return -EIO;
}

void pv_isolation_ends(struct pv_context *context, uint64_t failures)
{
    if (failures == context->failures && !context->isolating) {
        context->isolated = false;
    }
}

/* ---- flushing ---- */

static struct pv_slot **queue_at(const struct viommu_pv *pv, const struct pv_context *context,
                                 uint64_t place)
{
    return &context->queue[place & pv->ring];
}

/* Whether a place lies before another one. */
static bool is_before(uint64_t place, uint64_t other)
{
    return (int64_t)(place - other) < 0;
}

/*
 * Widens [first, last] to the pages that meet it, of those that are in the queue now; false when
 * none does. Gives the lock up now and then.
 */
static bool widen(struct viommu_pv *pv, const struct pv_context *context, uint64_t *first,
                  uint64_t *last)
{
    uint64_t from = *first;
    uint64_t to = *last;
    uint64_t place = context->head;
    uint64_t end = context->tail;
    unsigned looked = 0;
    bool any = false;

    while (is_before(place, end)) {
        const struct pv_slot *slot = *queue_at(pv, context, place++);

        pv_step();
        if (slot && slot->device_frame <= to && pv_slot_last(slot) >= from) {
            any = true;
            *first = slot->device_frame < *first ? slot->device_frame : *first;
            *last = pv_slot_last(slot) > *last ? pv_slot_last(slot) : *last;
        }
        if (++looked % LOOK == 0) {
            pv_give_way(pv);
            place = is_before(place, context->head) ? context->head : place; /* flushed meanwhile */
        }
    }
    return any;
}

/* Moves the head on past some places of slots that are no more; true: there may be more. */
static bool move_head(const struct viommu_pv *pv, struct pv_context *context)
{
    unsigned looked = 0;

    while (looked < LOOK && context->head != context->tail &&
           !*queue_at(pv, context, context->head)) {
        pv_step();
        context->head++;
        looked++;
    }
    return looked == LOOK;
}

/* A slot has been flushed, and is in the queue no more; `held` and `put` as of pv_slot_unlink(). */
static void end_one(struct viommu_pv *pv, struct pv_slot *slot, struct pv_vm *held,
                    struct pv_put *put)
{
    struct pv_context *context = slot->context;

    context->pending--;
    context->frames -= UINT64_C(1) << slot->order;
    pv_slot_unlink(pv, slot, held, put);
    if (slot->flags & PV_FLAG_REVOKING) {
        slot->state = PV_SLOT_REVOKED;
        slot->flags = 0;
        context->revoked++;
    } else {
        pv_slot_remove(slot);
    }
}

/*
 * How many slots from a place of the queue on, `most` at the most, can be ended together: they lie
 * side by side in one table, as their pages do, and nobody else maps those. 1 also when the first
 * is of another kind.
 */
static unsigned run_at(const struct viommu_pv *pv, struct pv_context *context, uint64_t place,
                       unsigned most)
{
    struct pv_slot *slots = *queue_at(pv, context, place);
    unsigned count = 0;

    if (most < 2 || slots->order || *queue_at(pv, context, place + 1) != slots + 1) {
        return 1;
    }
    most = pv_tree_used_run(&context->tree, slots->device_frame, most, &slots);
    while (count < most && *queue_at(pv, context, place + count) == &slots[count] &&
           slots[count].vm == slots->vm && slots[count].frame == slots->frame + count &&
           !slots[count].at && !slots[count].alias && !(slots[count].flags & PV_FLAG_REVOKING)) {
        pv_step();
        count++;
    }
    return count ? count : 1;
}

/* As end_one(), for several as run_at() finds them. */
static void end_run(struct viommu_pv *pv, struct pv_slot *slots, unsigned count, struct pv_vm *held,
                    struct pv_put *puts)
{
    struct pv_context *context = slots->context;
    struct pv_vm *vm = held && held->id == slots->vm ? held : pv_vm_find(pv, slots->vm);

    pv_index_prefetch(&vm->index, slots->frame, count);
    for (unsigned i = 0; i < count; i++) {
        puts[i] = (struct pv_put){
            .vm = vm, .handle = slots[i].handle, .perm = slots[i].perm, .flags = slots[i].flags};
    }
    pv_hold(vm, &puts->hold, slots->frame, slots->frame + count - 1);
    puts->holds = vm != held;
    vm->users += puts->holds;
    pv_index_remove_run(&vm->index, slots, count);
    context->pending -= count;
    context->frames -= count;
    context->vm->mappings -= count;
    pv_tree_remove_run(&context->tree, slots, count);
}

/* Takes slots out of the queue, from a place on where one is, `most` at the most. Returns how
   many. */
static unsigned take_some(struct viommu_pv *pv, struct pv_context *context, uint64_t place,
                          unsigned most, struct pv_vm *held, struct pv_put *puts)
{
    struct pv_slot *slots = *queue_at(pv, context, place);
    unsigned count = run_at(pv, context, place, most);

    for (unsigned i = 0; i < count; i++) {
        *queue_at(pv, context, place + i) = NULL;
    }
    if (count == 1) {
        end_one(pv, slots, held, puts);
    } else {
        end_run(pv, slots, count, held, puts);
    }
    return count;
}

/* Takes flushed slots out of the queue, from *place on, at LOOK places. Returns how many. */
static unsigned take(struct viommu_pv *pv, struct pv_context *context, uint64_t *place,
                     uint64_t end, const struct viommu_pv_range *range, struct pv_put *puts)
{
    uint64_t stop;
    unsigned count = 0;

    if (is_before(*place, context->head)) {
        *place = context->head; /* another flush was here */
    }
    stop = is_before(*place, end) ? *place + (end - *place < LOOK ? end - *place : LOOK) : *place;
    while (*place != stop) {
        struct pv_slot *slot = *queue_at(pv, context, *place);
        unsigned some = 1;

        pv_step();
        if (slot && slot->device_frame >= range->first && pv_slot_last(slot) <= range->last) {
            uint64_t most = range->last - slot->device_frame + 1;

            most = most < stop - *place ? most : stop - *place;
            some = take_some(pv, context, *place, (unsigned)most, count ? puts[count - 1].vm : NULL,
                             &puts[count]);
            count += some;
        }
        *place += some;
    }
    (void)move_head(pv, context);
    return count;
}

int pv_flush(struct viommu_pv *pv, struct pv_context *context, uint64_t first, uint64_t last)
{
    uint64_t place = context->head;
    uint64_t end = context->tail;
    struct viommu_pv_range range = {first, last};
    struct pv_put puts[PUTS];
    bool whole = first == 0 && last >= context->tree.last;
    int error;

    if (whole) {
        range.last = context->tree.last;
        if (!context->pending && !context->isolated && context->head == context->tail) {
            return 0;
        }
    } else if (!widen(pv, context, &range.first, &range.last)) {
        return 0;
    }
    pv_unlock(pv);
    error = pv->ops->flush(pv->opaque, context->space, range.first, range.last);
    pv_lock(pv);
    if (error) {
        return pv_isolate(pv, context);
    }
    while (is_before(place, end)) {
        unsigned count = take(pv, context, &place, end, &range, puts);

        pv_put_all(pv, puts, count);
    }
    while (move_head(pv, context)) {
        pv_give_way(pv);
    }
    return 0;
}

int pv_run_flush(struct pv_run *run)
{
    const struct viommu_pv_flush_call *in = &run->call->in.flush;
    uint64_t last = in->last;
    uint64_t failures;
    int error = pv_enter_context(run, in->context);

    if (error) {
        return error;
    }
    if (in->flags & VIOMMU_PV_WHOLE) {
        last = run->pv->config.device_frame_max;
    } else if (last > run->pv->config.device_frame_max) {
        return -ERANGE;
    }
    pv_lock(run->pv);
    failures = run->context->failures;
    error = pv_flush(run->pv, run->context, in->first, last);
    if (!error && in->first == 0 && last == run->pv->config.device_frame_max) {
        pv_isolation_ends(run->context, failures);
    }
    pv_unlock(run->pv);
    return error;
}
