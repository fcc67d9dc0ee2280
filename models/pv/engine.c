/* SPDX-License-Identifier: BSD-2-Clause */
/* Paravirtual operations: the engine, and its VMs. See engine.h. */
#include "pv/engine.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "base/alloc.h"

enum {
    ITEMS_MAX = 65536,
    DEFERRED_MAX = 65536,
    CONTEXTS_MAX = 65536,
};

#define ORDERS (UINT64_C(1) | UINT64_C(1) << 9 | UINT64_C(1) << 18)

static bool ops_complete(const struct viommu_pv_ops *ops)
{
    return ops && ops->lookup && ops->prepare && ops->get_page && ops->put_page && ops->get_type &&
           ops->put_type && ops->mark_dirty && ops->may_call && ops->may_use && ops->reserved &&
           ops->context_create && ops->context_destroy && ops->attach && ops->identity &&
           ops->map && ops->unmap && ops->flush && ops->isolate && ops->drop_default &&
           ops->yield && ops->give_back && ops->acknowledged;
}

static void default_64(uint64_t *value, uint64_t standard)
{
    *value = *value ? *value : standard;
}

static void default_32(uint32_t *value, uint32_t standard)
{
    *value = *value ? *value : standard;
}

int viommu_pv_create(const struct viommu_pv_config *config, struct viommu_pv **out)
{
    struct viommu_pv_config all = *config;
    struct viommu_pv *pv;

    default_64(&all.frame_max, (UINT64_C(1) << 36) - 1);
    default_64(&all.device_frame_max, (UINT64_C(1) << 36) - 1);
    default_64(&all.orders, ORDERS);
    default_64(&all.count_max, 1 << 20);
    default_64(&all.mappings_max, 1 << 20);
    default_64(&all.tables_max, 1 << 14);
    default_32(&all.contexts_max, 16);
    default_32(&all.items_max, 512);
    default_32(&all.deferred_max, 1024);
    if (!ops_complete(all.ops) || all.frame_max >> 52 || all.device_frame_max >> 45 ||
        (all.orders & ~ORDERS) || !(all.orders & 1) || all.count_max >> 52 ||
        all.contexts_max > CONTEXTS_MAX || all.items_max > ITEMS_MAX ||
        all.deferred_max > DEFERRED_MAX) {
        return -EINVAL;
    }
    pv = base_alloc(sizeof(*pv));
    if (!pv) {
        return -ENOMEM;
    }
    pthread_mutex_init(&pv->lock, NULL);
    pv->config = all;
    pv->ops = all.ops;
    pv->opaque = all.opaque;
    pv->ring = 1;
    while (pv->ring < all.deferred_max) {
        pv->ring *= 2;
    }
    pv->ring--;
    if (getrandom(&pv->seed, sizeof(pv->seed), GRND_NONBLOCK) < 0) {
        pv->seed = (uintptr_t)pv; /* then it takes a guest a little less to find long chains */
    }
    *out = pv;
    return 0;
}

int viommu_pv_destroy(struct viommu_pv *pv)
{
    if (!pv) {
        return 0;
    }
    if (pv->vm_count) {
        return -EBUSY;
    }
    pthread_mutex_destroy(&pv->lock);
    base_free(pv->vms);
    base_free(pv);
    return 0;
}

/* ---- VMs ---- */

/* Where a VM is among all, or would be. */
static size_t vm_place(const struct viommu_pv *pv, uint32_t id)
{
    size_t low = 0;
    size_t high = pv->vm_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (pv->vms[middle]->id < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

struct pv_vm *pv_vm_search(struct viommu_pv *pv, uint32_t id)
{
    size_t place = vm_place(pv, id);

    if (place == pv->vm_count || pv->vms[place]->id != id) {
        return NULL;
    }
    pv->near[id % PV_NEAR] = pv->vms[place];
    return pv->vms[place];
}

/* Takes a VM among all. With the lock. */
static int vm_insert(struct viommu_pv *pv, struct pv_vm *vm)
{
    size_t place = vm_place(pv, vm->id);
    struct pv_vm **vms;

    if (pv_vm_find(pv, vm->id)) {
        return -EEXIST;
    }
    vms = base_realloc_array(pv->vms, pv->vm_count + 1, sizeof(struct pv_vm *));
    if (!vms) {
        return -ENOMEM;
    }
    memmove(vms + place + 1, vms + place, (pv->vm_count - place) * sizeof(struct pv_vm *));
    vms[place] = vm;
    pv->vms = vms;
    pv->vm_count++;
    vm->serial = ++pv->serial;
    return 0;
}

void pv_vm_free(struct pv_vm *vm)
{
    pv_index_fini(&vm->index);
    base_free(vm->reserved);
    range_set_fini(&vm->leaving);
    base_free(vm->contexts);
    base_free(vm);
}

int viommu_pv_vm_add(struct viommu_pv *pv, uint32_t id, bool empty)
{
    struct pv_vm *vm;
    uint32_t context = 0;
    int error;

    if (id == VIOMMU_PV_SELF) {
        return -EINVAL;
    }
    vm = base_alloc(sizeof(*vm));
    if (!vm) {
        return -ENOMEM;
    }
    vm->id = id;
    vm->empty = empty;
    vm->users = 1; /* until it is whole */
    vm->dying = true;
    vm->coming = true;
    vm->generation = 1;
    pv_index_init(&vm->index, pv->seed);
    range_set_init(&vm->leaving);
    vm->contexts = base_alloc_array(pv->config.contexts_max, sizeof(struct pv_context *));
    if (!vm->contexts) {
        pv_vm_free(vm);
        return -ENOMEM;
    }
    pv_lock(pv);
    error = vm_insert(pv, vm);
    pv_unlock(pv);
    if (error) {
        pv_vm_free(vm);
        return error;
    }
    error = pv_context_create(pv, vm, &context);
    pv_lock(pv);
    vm->users--;
    vm->coming = false;
    if (error) {
        pv_vm_take_out(pv, vm);
    } else {
        vm->dying = false;
    }
    pv_unlock(pv);
    if (error) {
        pv_vm_free(vm);
    }
    return error;
}

void pv_vm_take_out(struct viommu_pv *pv, struct pv_vm *vm)
{
    size_t place = vm_place(pv, vm->id);

    if (pv->near[vm->id % PV_NEAR] == vm) {
        pv->near[vm->id % PV_NEAR] = NULL;
    }
    pv->vm_count--;
    memmove(pv->vms + place, pv->vms + place + 1, (pv->vm_count - place) * sizeof(struct pv_vm *));
}

int viommu_pv_vm_status(struct viommu_pv *pv, uint32_t id, struct viommu_pv_vm_status *status,
                        size_t size)
{
    struct viommu_pv_vm_status now = {0};
    struct pv_vm *vm;

    pv_lock(pv);
    vm = pv_vm_find(pv, id);
    if (!vm) {
        pv_unlock(pv);
        return -ENOENT;
    }
    now.mappings = vm->mappings;
    now.mapped = vm->index.count + vm->alias_count;
    now.tables = vm->tables;
    now.contexts = vm->context_count;
    now.enabled = vm->enabling == PV_ENABLED;
    now.dying = vm->dying;
    for (uint32_t i = 0; i < pv->config.contexts_max; i++) {
        const struct pv_context *context = vm->contexts[i];

        if (context) {
            now.pending += context->pending;
            now.revoked += context->revoked;
            now.isolated += context->isolated;
        }
    }
    pv_unlock(pv);
    memcpy(status, &now, size < sizeof(now) ? size : sizeof(now));
    return 0;
}
