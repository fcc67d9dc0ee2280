/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * All that a call can change, as it was: what the hypervisor of test_world.h has (pages with their
 * references, frames with what is populated, the IOMMU's tables and what devices remember) and what
 * the engine has (slots, indices, queues, quotas). Two are compared, and the first difference
 * named.
 */
#ifndef VIOMMU_PV_TEST_SNAPSHOT_H
#define VIOMMU_PV_TEST_SNAPSHOT_H

#include "pv/test_calls.h"

struct snapshot {
    struct world_page pages[WORLD_MACHINE];
    struct world_vm vms[WORLD_VMS];
    struct world_space spaces[WORLD_SPACES]; /* only those that are there */
    unsigned device_at[WORLD_DEVICES];       /* the number of the space, from 1 on */
    unsigned long prepared;
    unsigned long flushes;
    uint64_t tables[WORLD_VMS];
    uint64_t engine; /* made of all the engine has, but for `tables` */
};

static inline uint64_t snapshot_mix(uint64_t sum, uint64_t value)
{
    return ((sum ^ value) * UINT64_C(0x9e3779b97f4a7c15)) ^ sum >> 29;
}

static inline uint64_t snapshot_slot(uint64_t sum, const struct pv_slot *slot)
{
    sum = snapshot_mix(sum, slot->device_frame);
    sum = snapshot_mix(sum, slot->frame);
    sum = snapshot_mix(sum, slot->handle);
    sum = snapshot_mix(sum, slot->vm);
    sum = snapshot_mix(sum, slot->state | slot->order << 8 | slot->perm << 16 | slot->flags << 24);
    return snapshot_mix(sum, slot->alias ? slot->alias->owner : UINT64_MAX);
}

static inline uint64_t snapshot_context(uint64_t sum, const struct pv_context *context)
{
    sum = snapshot_mix(sum, context->id);
    sum = snapshot_mix(sum, context->serial);
    sum = snapshot_mix(sum, context->users);
    sum = snapshot_mix(sum, context->devices);
    sum = snapshot_mix(sum, context->isolated | context->closing << 1);
    sum = snapshot_mix(sum, context->frames);
    sum = snapshot_mix(sum, context->pending);
    sum = snapshot_mix(sum, context->leaving);
    sum = snapshot_mix(sum, context->revoked);
    sum = snapshot_mix(sum, context->tree.slots);
    for (const struct pv_slot *slot = pv_tree_next(&context->tree, 0); slot;
         slot = pv_tree_next(&context->tree, pv_slot_last(slot) + 1)) {
        sum = snapshot_slot(sum, slot);
    }
    return sum;
}

static inline uint64_t snapshot_vm(uint64_t sum, const struct viommu_pv *pv, const struct pv_vm *vm)
{
    struct range_cursor cursor;
    struct range_run run;

    sum = snapshot_mix(sum, vm->id);
    sum = snapshot_mix(sum, vm->serial);
    sum = snapshot_mix(sum, vm->users);
    sum = snapshot_mix(sum, vm->holds != NULL);
    sum = snapshot_mix(sum, vm->enabling);
    sum = snapshot_mix(sum, vm->mappings);
    sum = snapshot_mix(sum, vm->index.count);
    sum = snapshot_mix(sum, vm->alias_count);
    sum = snapshot_mix(sum, vm->generation);
    sum = snapshot_mix(sum, vm->reserved_count);
    range_cursor_seek(&cursor, &vm->leaving.map, 0);
    while (range_cursor_next(&cursor, UINT64_MAX, &run)) {
        sum = snapshot_mix(snapshot_mix(sum, run.first), run.last);
    }
    for (uint32_t id = 0; id < pv->config.contexts_max; id++) {
        sum = vm->contexts[id] ? snapshot_context(sum, vm->contexts[id]) : snapshot_mix(sum, id);
    }
    return sum;
}

/* To be freed. */
static inline struct snapshot *snapshot_take(const struct world *world)
{
    struct snapshot *it = calloc(1, sizeof(*it));

    WORLD_CHECK(it);
    memcpy(it->pages, world->pages, sizeof(it->pages));
    memcpy(it->vms, world->vms, sizeof(it->vms));
    for (unsigned i = 0; i < WORLD_SPACES; i++) {
        if (world->spaces[i].there) {
            memcpy(&it->spaces[i], &world->spaces[i], sizeof(it->spaces[i]));
        }
    }
    for (unsigned i = 0; i < WORLD_DEVICES; i++) {
        const struct world_space *at = world->device_at[i];

        it->device_at[i] = at ? (unsigned)(at - world->spaces) + 1 : 0;
    }
    it->prepared = world->prepared;
    it->flushes = world->flushes;
    for (size_t i = 0; i < world->pv->vm_count; i++) {
        it->tables[world->pv->vms[i]->id] = world->pv->vms[i]->tables;
        it->engine = snapshot_vm(it->engine, world->pv, world->pv->vms[i]);
    }
    return it;
}

/* In whatever order they came. */
static inline bool snapshot_same_translation(const struct world_translation *a,
                                             const struct world_translation *b)
{
    return a->there == b->there &&
           (!a->there || (a->logged == b->logged && a->order == b->order && a->perm == b->perm &&
                          a->device_frame == b->device_frame && a->handle == b->handle));
}

static inline bool snapshot_same_space(const struct world_space *a, const struct world_space *b)
{
    bool same = a->there == b->there && a->isolated == b->isolated && a->devices == b->devices &&
                a->identities == b->identities && a->live_count == b->live_count &&
                a->stale_count == b->stale_count &&
                memcmp(a->identity, b->identity, sizeof(a->identity)) == 0;

    for (unsigned i = 0; same && i < WORLD_DEVICE; i++) {
        same = snapshot_same_translation(&a->live[i], &b->live[i]);
    }
    for (unsigned i = 0; same && i < a->stale_count; i++) {
        same = snapshot_same_translation(&a->stale[i], &b->stale[i]);
    }
    return same;
}

/*
 * What of the page has changed, or NULL. References and types only, where a page was populated or
 * a VM was given another one (`prepared`).
 */
static inline const char *snapshot_pages(const struct snapshot *a, const struct snapshot *b)
{
    for (unsigned i = 0; i < WORLD_MACHINE; i++) {
        if (a->pages[i].refs != b->pages[i].refs) {
            return "references";
        }
        if (a->pages[i].types != b->pages[i].types) {
            return "type references";
        }
        if (a->pages[i].dirty != b->pages[i].dirty) {
            return "the log";
        }
        if (a->prepared == b->prepared &&
            (a->pages[i].free != b->pages[i].free || a->pages[i].owner != b->pages[i].owner)) {
            return "the pool";
        }
    }
    return a->prepared == b->prepared && memcmp(a->vms, b->vms, sizeof(a->vms)) != 0
               ? "the population"
               : NULL;
}

/* The first thing that differs, or NULL: nothing does. Tables may have become fewer. */
static inline const char *snapshot_differs(const struct snapshot *before,
                                           const struct snapshot *after)
{
    const char *what = snapshot_pages(before, after);

    for (unsigned i = 0; i < WORLD_SPACES && !what; i++) {
        if ((before->spaces[i].there || after->spaces[i].there) &&
            !snapshot_same_space(&before->spaces[i], &after->spaces[i])) {
            what = "the IOMMU";
        }
    }
    for (unsigned i = 0; i < WORLD_VMS && !what; i++) {
        what = after->tables[i] > before->tables[i] ? "tables" : NULL;
    }
    if (!what && memcmp(before->device_at, after->device_at, sizeof(before->device_at)) != 0) {
        what = "devices";
    }
    return what ? what : before->engine != after->engine ? "the engine" : NULL;
}

#endif
