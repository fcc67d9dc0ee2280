/* SPDX-License-Identifier: BSD-2-Clause */
/* Paravirtual operations: what always holds when nobody is at work, for tests. See engine.h. */
#include "pv/engine.h"

#ifdef VIOMMU_TESTING

_Thread_local unsigned long pv_steps;
_Thread_local struct pv_held pv_held;
_Thread_local void (*pv_reading)(const void *from, size_t size, bool begins);

/* What is counted on the way. */
struct counts {
    struct viommu_pv *pv;
    const struct pv_context *context;
    uint64_t linked;
    uint64_t pending;
    uint64_t frames;
    uint64_t revoked;
};

/* Whether the index of the VM that it names has the slot, the only one of its page. */
static bool is_indexed(struct viommu_pv *pv, const struct pv_slot *slot)
{
    struct pv_vm *vm = pv_vm_find(pv, slot->vm);
    const struct pv_slot *at;
    struct pv_walk walk;

    if (!vm) {
        return false;
    }
    pv_walk_begin(&vm->index, &walk, slot->frame);
    do {
        at = pv_walk_next(&vm->index, &walk);
    } while (at && at != slot);
    pv_walk_end(&vm->index, &walk);
    return at;
}

static const char *check_slot(void *opaque, const struct pv_slot *slot)
{
    struct counts *counts = opaque;
    const struct pv_vm *vm = counts->context->vm;

    switch (slot->state) {
    case PV_SLOT_REVOKED:
        counts->revoked++;
        return slot->at || slot->next || slot->alias ? "a revoked slot is in an index" : NULL;
    case PV_SLOT_PENDING:
        counts->pending++;
        counts->frames += UINT64_C(1) << slot->order;
        break;
    case PV_SLOT_LIVE:
        if (slot->flags & PV_FLAG_REVOKING) {
            return "a live slot is to be revoked";
        }
        break;
    default:
        return "a slot is on its way, and nobody is at work";
    }
    counts->linked++;
    if (slot->at ? *slot->at != slot : !is_indexed(counts->pv, slot)) {
        return "a slot with references is in no index";
    }
    if (slot->state == PV_SLOT_LIVE &&
        pv_reserved_meets(vm, slot->device_frame, pv_slot_last(slot), NULL)) {
        return "a reserved frame is mapped";
    }
    return slot->alias && slot->alias->slot != slot ? "an alias is of another slot" : NULL;
}

static const char *check_queue(const struct viommu_pv *pv, const struct pv_context *context)
{
    uint64_t pending = 0;

    for (uint64_t place = context->head; place != context->tail; place++) {
        const struct pv_slot *slot = context->queue[place & pv->ring];

        if (slot && (slot->state != PV_SLOT_PENDING || slot->context != context)) {
            return "what is in the queue does not await a flush";
        }
        pending += slot != NULL;
    }
    if (pending != context->pending || context->tail - context->head > pv->config.deferred_max) {
        return "the queue's count is wrong";
    }
    return NULL;
}

static const char *check_context(struct viommu_pv *pv, const struct pv_context *context,
                                 uint64_t *linked)
{
    struct counts counts = {.pv = pv, .context = context};
    const char *wrong = pv_tree_check(&context->tree, check_slot, &counts);

    wrong = wrong ? wrong : check_queue(pv, context);
    if (wrong) {
        return wrong;
    }
    if (counts.pending != context->pending || counts.frames != context->frames ||
        counts.revoked != context->revoked || context->leaving) {
        return "a context's counts are wrong";
    }
    if (context->users) {
        return "a context is in use, and nobody is at work";
    }
    if (context->frames > pv->config.deferred_max && !context->isolated) {
        return "more awaits its flush than the limit";
    }
    *linked += counts.linked;
    return NULL;
}

static const char *check_devices(const struct pv_vm *vm, uint32_t contexts)
{
    for (uint32_t id = 0; id < contexts; id++) {
        const struct pv_context *context = vm->contexts[id];
        unsigned devices = 0;
        unsigned ranges = 0;
        unsigned users = 0;

        for (const struct pv_device *device = vm->devices; device && context;
             device = device->next) {
            devices += device->context == context;
            ranges += device->context == context ? (unsigned)device->range_count : 0;
        }
        for (size_t i = 0; context && i < context->identity_count; i++) {
            users += context->identities[i].users;
        }
        if (context && (devices != context->devices || users != ranges)) {
            return "a context does not know its devices";
        }
    }
    return NULL;
}

static const char *check_vm(struct viommu_pv *pv, const struct pv_vm *vm, uint64_t *linked)
{
    const char *wrong = pv_index_check(&vm->index, vm->id);
    uint64_t aliases = 0;
    uint64_t slots = 0;

    for (uint32_t id = 0; id < pv->config.contexts_max && !wrong; id++) {
        if (vm->contexts[id]) {
            slots += vm->contexts[id]->tree.slots;
            wrong = check_context(pv, vm->contexts[id], linked);
        }
    }
    for (struct pv_alias *const *at = &vm->aliases; *at; at = &(*at)->next) {
        aliases++;
        if ((*at)->at != at || (*at)->owner != vm->id || (*at)->slot->alias != *at) {
            return "the list of aliases is broken";
        }
    }
    wrong = wrong ? wrong : check_devices(vm, pv->config.contexts_max);
    if (!wrong && (slots != vm->mappings || aliases != vm->alias_count || vm->holds)) {
        wrong = "a VM's counts are wrong";
    }
    return !wrong && (vm->users || vm->moving || vm->dropping || vm->removing)
               ? "a VM is in use, and nobody is at work"
               : wrong;
}

/* VMs that were found last are there. */
static const char *check_near(struct viommu_pv *pv)
{
    for (unsigned i = 0; i < PV_NEAR; i++) {
        const struct pv_vm *near = pv->near[i];
        bool there = !near;

        for (size_t j = 0; j < pv->vm_count && !there; j++) {
            there = pv->vms[j] == near && near->id % PV_NEAR == i;
        }
        if (!there) {
            return "a VM is remembered that is not there";
        }
    }
    return NULL;
}

const char *pv_check(struct viommu_pv *pv)
{
    uint64_t linked = 0;
    uint64_t indexed = 0;
    const char *wrong = NULL;

    pv_lock(pv);
    wrong = check_near(pv);
    for (size_t i = 0; i < pv->vm_count && !wrong; i++) {
        wrong = check_vm(pv, pv->vms[i], &linked);
        indexed += pv->vms[i]->index.count;
    }
    if (!wrong && linked != indexed) {
        wrong = "slots and indices differ";
    }
    pv_unlock(pv);
    return wrong;
}

#endif
