/* SPDX-License-Identifier: BSD-2-Clause */
/* Paravirtual operations: contexts come, are enabled, cleared, and go. */
#include "pv/engine.h"

#include <errno.h>

#include "base/alloc.h"

enum {
    SOME = 64, /* slots that are unmapped together */
};

/* ---- they come and go ---- */

/* Puts a context at its id, or the lowest; it is not found there by calls yet. */
static int insert(struct viommu_pv *pv, struct pv_vm *vm, struct pv_context *context, uint32_t *id)
{
    uint32_t at = *id == UINT32_MAX ? 0 : *id;
    int error = -ENOSPC;

    pv_lock(pv);
    while (at < pv->config.contexts_max && vm->contexts[at]) {
        at++;
    }
    if (at < pv->config.contexts_max) {
        context->id = at;
        context->serial = ++pv->serial;
        vm->contexts[at] = context;
        vm->context_count++;
        *id = at;
        error = 0;
    }
    pv_unlock(pv);
    return error;
}

static void take_out(struct viommu_pv *pv, struct pv_context *context)
{
    pv_lock(pv);
    context->vm->contexts[context->id] = NULL;
    context->vm->context_count--;
    pv_unlock(pv);
}

static void release(struct pv_context *context)
{
    pv_tree_fini(&context->tree);
    base_free(context->identities);
    base_free(context->queue);
    base_free(context);
}

int pv_context_create(struct viommu_pv *pv, struct pv_vm *vm, uint32_t *id)
{
    struct pv_context *context = base_alloc(sizeof(*context));
    void *space = NULL;
    int error;

    if (!context) {
        return -ENOMEM;
    }
    context->vm = vm;
    context->closing = true;
    context->users = 1;
    context->queue = base_alloc_array(pv->ring + 1, sizeof(struct pv_slot *));
    pv_tree_init(&context->tree, context, pv->config.device_frame_max, &vm->tables,
                 pv->config.tables_max);
    error = context->queue ? insert(pv, vm, context, id) : -ENOMEM;
    if (error) {
        release(context);
        return error;
    }
    error = pv->ops->context_create(pv->opaque, vm->id, *id, &space);
    if (error) {
        take_out(pv, context);
        release(context);
        return error;
    }
    pv_lock(pv);
    context->space = space; /* CONTEXT_FREE of the same id looks at it */
    context->closing = false;
    context->users = 0;
    pv_unlock(pv);
    return 0;
}

void pv_context_free(struct viommu_pv *pv, struct pv_context *context)
{
    take_out(pv, context);
    pv->ops->context_destroy(pv->opaque, context->space);
    pv_lock(pv);
    release(context); /* counts the VM's tables */
    pv_unlock(pv);
}

/* Asked between two slots; the lock is given up. */
static bool yields(struct viommu_pv *pv)
{
    bool yes;

    pv_unlock(pv);
    yes = pv->ops->yield(pv->opaque);
    pv_lock(pv);
    return yes;
}

/* Takes one slot away; true when that is another call's to end. */
static bool clear_slot(struct viommu_pv *pv, struct pv_slot *slot, int *error)
{
    switch (slot->state) {
    case PV_SLOT_REVOKED:
        slot->context->revoked--;
        pv_slot_remove(slot);
        return false;
    case PV_SLOT_PENDING:
        slot->flags &= (uint8_t)~PV_FLAG_REVOKING;
        return false;
    case PV_SLOT_LIVE:
        *error = pv_unmap_slot(pv, slot, 0);
        return *error == -EAGAIN;
    default:
        return true;
    }
}

/*
 * Takes a slot away, or several that are LIVE and lie side by side; *at becomes the place behind
 * them. True when that is another call's to end. *error may be that it should yield.
 */
static bool clear_some(struct viommu_pv *pv, struct pv_slot *slot, uint64_t *at, bool may_yield,
                       int *error)
{
    struct pv_tree *tree = &slot->context->tree;
    uint64_t first = slot->device_frame;
    unsigned most = slot->order ? 0 : pv_tree_used_run(tree, first, SOME, &slot);
    unsigned count = 0;

    while (count < most && slot[count].state == PV_SLOT_LIVE) {
        count++;
    }
    if (count > 1) {
        *error = pv_unmap_run(pv, slot, &count, may_yield);
        if (*error != -EAGAIN) {
            *at = first + count;
            return false;
        }
    }
    *at = pv_slot_last(slot) + 1;
    return clear_slot(pv, slot, error);
}

int pv_context_clear(struct viommu_pv *pv, struct pv_context *context, bool may_yield)
{
    struct pv_slot *slot;
    uint64_t at = 0;
    bool yield = false;
    unsigned steps = 0;
    int error = 0;

    while (!yield && (slot = pv_tree_next(&context->tree, at))) {
        bool busy;

        error = 0; /* that of a slot before was -EAGAIN: its turn comes again */
        busy = clear_some(pv, slot, &at, may_yield, &error);
        if (error < 0 && !busy) {
            return error;
        }
        yield = error == VIOMMU_PENDING || (may_yield && yields(pv));
        if (!may_yield && ++steps % (SOME / 2) == 0) {
            pv_unlock(pv); /* only for a moment: slots that are REVOKED go without that */
            pv_lock(pv);
        }
    }
    error = pv_flush(pv, context, 0, context->tree.last);
    if (error) {
        return error;
    }
    return context->tree.slots ? VIOMMU_PENDING : 0;
}

/* ---- calls ---- */

int pv_run_alloc(struct pv_run *run)
{
    uint32_t id = UINT32_MAX;
    int error = pv_context_create(run->pv, run->vm, &id);

    run->call->out.alloc.context = id;
    if (error) {
        run->call->out.alloc.context = 0;
        return -ENOSPC;
    }
    return 0;
}

/* Finds the context to be freed; one whose freeing was interrupted, too. */
static int enter_closing(struct pv_run *run, uint32_t id)
{
    struct viommu_pv_call *call = run->call;
    struct pv_context *context = NULL;
    int error = 0;

    pv_lock(run->pv);
    if (id && id < run->pv->config.contexts_max) {
        context = run->vm->contexts[id];
    }
    if (!context || !context->space ||
        (call->context_serial && call->context_serial != context->serial)) {
        error = -EBADF;
    } else if (context->devices) {
        error = -ENOTEMPTY;
    } else if (context->users) {
        error = -EAGAIN;
    } else {
        call->context_serial = context->serial;
        context->closing = true;
        context->users++;
        run->context = context;
    }
    pv_unlock(run->pv);
    return error;
}

int pv_run_free(struct pv_run *run)
{
    int error = enter_closing(run, run->call->in.free.context);

    if (error) {
        return error;
    }
    pv_lock(run->pv);
    error = pv_context_clear(run->pv, run->context, run->call->may_yield);
    if ((error == VIOMMU_PENDING && !run->call->may_yield) ||
        (error == 0 && run->context->users > 1)) {
        error = -EAGAIN; /* the page of a slot is just being removed */
    }
    if (error < 0) {
        run->context->closing = false;
    }
    pv_unlock(run->pv);
    if (!error) {
        pv_context_free(run->pv, run->context);
        run->context = NULL;
    }
    return error;
}

/* ---- enable ---- */

/* Takes what was mapped from the beginning away. */
static int drop_default(struct pv_run *run, struct pv_context *context)
{
    struct viommu_pv *pv = run->pv;
    uint64_t cursor = run->vm->cursor;
    uint64_t failures;
    int error;

    pv_lock(pv);
    failures = context->failures;
    pv_unlock(pv);
    do {
        error = pv->ops->drop_default(pv->opaque, run->vm->id, context->space, &cursor);
    } while (error == VIOMMU_PENDING && !pv_should_yield(run));
    run->vm->cursor = cursor; /* `dropping` makes it ours */
    if (error == VIOMMU_PENDING) {
        return error;
    }
    error = error || pv->ops->flush(pv->opaque, context->space, 0, pv->config.device_frame_max);
    pv_lock(pv);
    if (error) {
        error = pv_isolate(pv, context);
    } else {
        pv_isolation_ends(context, failures);
    }
    pv_unlock(pv);
    return error;
}

int pv_run_enable(struct pv_run *run)
{
    struct pv_vm *vm = run->vm;
    int error = 0;

    pv_lock(run->pv);
    if (vm->enabling == PV_ENABLED) {
        error = -EALREADY;
    } else if (vm->dropping) {
        error = -EAGAIN;
    } else {
        vm->enabling = PV_ENABLING;
        vm->dropping = true;
    }
    pv_unlock(run->pv);
    if (error) {
        return error;
    }
    if (!vm->empty) {
        error = drop_default(run, vm->contexts[0]); /* which stays as long as the VM does */
    }
    pv_lock(run->pv);
    vm->dropping = false;
    vm->enabling = error ? PV_ENABLING : PV_ENABLED;
    pv_unlock(run->pv);
    return error;
}
