/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Paravirtual operations: devices, and the ranges that they need mapped one to one.
 *
 * A range is there before its device is, and goes after it: in the context that the device comes to
 * it is mapped first, and in the one that the device leaves it is unmapped last. Devices with the
 * same range share it. No mapping of a guest meets any reserved range of its devices, in no
 * context.
 *
 * A device may be several functions, phantom functions among them. They are taken from space to
 * space one after another; where one cannot be, those before it are taken back; and where that
 * cannot be done either, all of them are taken to none.
 *
 * One device of a VM is moved at a time (`moving`), so what is mapped one to one in its contexts,
 * and where its devices are, is changed without the lock by whoever has that.
 */
#include "pv/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

enum {
    RANGES_MAX = 65536, /* of a device */
    COPIED = 1024,      /* ranges that are copied under one lock */
};

/* ---- reserved ranges ---- */

bool pv_reserved_search(const struct pv_vm *vm, uint64_t first, uint64_t last,
                        struct viommu_pv_range *met)
{
    size_t low = 0;
    size_t high = vm->reserved_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (vm->reserved[middle].last < first) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == vm->reserved_count || vm->reserved[low].first > last) {
        return false;
    }
    if (met) {
        *met = vm->reserved[low];
    }
    return true;
}

static int compare(const void *a, const void *b)
{
    const struct viommu_pv_range *x = a;
    const struct viommu_pv_range *y = b;

    return x->first < y->first ? -1 : x->first > y->first;
}

static size_t append(struct viommu_pv_range *all, size_t count, const struct pv_device *device)
{
    for (size_t i = 0; i < device->range_count; i++) {
        all[count++] = device->ranges[i];
    }
    return count;
}

/* The ranges of all devices of a VM and of one more (or NULL); NULL without memory. */
static struct viommu_pv_range *gather(const struct pv_vm *vm, const struct pv_device *more,
                                      size_t *out)
{
    size_t room = more ? more->range_count : 0;
    struct viommu_pv_range *all;
    size_t count = 0;
    size_t kept = 0;

    for (const struct pv_device *device = vm->devices; device; device = device->next) {
        room += device->range_count;
    }
    all = base_alloc_array(room + 1, sizeof(*all));
    if (!all) {
        return NULL;
    }
    for (const struct pv_device *device = vm->devices; device; device = device->next) {
        count = append(all, count, device);
    }
    if (more) {
        count = append(all, count, more);
    }
    qsort(all, count, sizeof(*all), compare);
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || memcmp(&all[i], &all[kept - 1], sizeof(*all)) != 0) {
            all[kept++] = all[i];
        }
    }
    *out = kept;
    return all;
}

static void set_reserved(struct pv_vm *vm, struct viommu_pv_range *all, size_t count)
{
    base_free(vm->reserved);
    vm->reserved = all;
    vm->reserved_count = count;
    vm->generation++;
}

/* After a device has gone. With the lock. Without memory for a new list more is reserved than need
 * be. */
static void forget_reserved(struct pv_vm *vm)
{
    size_t count;
    struct viommu_pv_range *all = gather(vm, NULL, &count);

    if (all) {
        set_reserved(vm, all, count);
    }
}

/* Reserves the ranges of a device that comes. With the lock. */
static int reserve(const struct viommu_pv *pv, struct pv_vm *vm, const struct pv_device *device)
{
    struct viommu_pv_range *all;
    size_t count;

    for (size_t i = 0; i < device->range_count; i++) {
        for (uint32_t id = 0; id < pv->config.contexts_max; id++) {
            const struct pv_context *context = vm->contexts[id];
            const struct pv_slot *slot =
                context ? pv_tree_next(&context->tree, device->ranges[i].first) : NULL;

            if (slot && slot->device_frame <= device->ranges[i].last) {
                return -EADDRNOTAVAIL;
            }
        }
    }
    all = gather(vm, device, &count);
    if (!all) {
        return -ENOMEM;
    }
    for (size_t i = 1; i < count; i++) {
        if (all[i].first <= all[i - 1].last) {
            base_free(all); /* in part the range of another device */
            return -EADDRNOTAVAIL;
        }
    }
    set_reserved(vm, all, count);
    return 0;
}

/* ---- what is mapped one to one ---- */

static void identity_drop(struct viommu_pv *pv, struct pv_context *context,
                          const struct viommu_pv_range *range)
{
    size_t i = 0;

    while (memcmp(&context->identities[i].range, range, sizeof(*range)) != 0) {
        i++;
    }
    if (--context->identities[i].users) {
        return;
    }
    context->identities[i] = context->identities[--context->identity_count];
    (void)pv->ops->identity(pv->opaque, context->space, range->first, range->last, false);
    if (pv->ops->flush(pv->opaque, context->space, range->first, range->last)) {
        pv_lock(pv);
        (void)pv_isolate(pv, context);
        pv_unlock(pv);
    }
}

static int identity_add(struct viommu_pv *pv, struct pv_context *context,
                        const struct viommu_pv_range *range)
{
    struct pv_identity *more;

    for (size_t i = 0; i < context->identity_count; i++) {
        if (memcmp(&context->identities[i].range, range, sizeof(*range)) == 0) {
            context->identities[i].users++;
            return 0;
        }
    }
    more = base_realloc_array(context->identities, context->identity_count + 1, sizeof(*more));
    if (!more) {
        return -ENOMEM;
    }
    context->identities = more;
    if (pv->ops->identity(pv->opaque, context->space, range->first, range->last, true)) {
        return -ENOMEM;
    }
    more[context->identity_count++] = (struct pv_identity){.range = *range, .users = 1};
    return 0;
}

static void identities_drop(struct viommu_pv *pv, struct pv_context *context,
                            const struct pv_device *device, size_t count)
{
    while (count > 0) {
        identity_drop(pv, context, &device->ranges[--count]);
    }
}

static int identities_add(struct viommu_pv *pv, struct pv_context *context,
                          const struct pv_device *device)
{
    for (size_t i = 0; i < device->range_count; i++) {
        if (identity_add(pv, context, &device->ranges[i])) {
            identities_drop(pv, context, device, i);
            return -ENOMEM;
        }
    }
    return 0;
}

static void *space_of(const struct pv_device *device, const struct pv_context *context)
{
    return device->nowhere || !context ? NULL : context->space;
}

/* Takes all functions to no space; that does not fail. */
static void cut_off(struct viommu_pv *pv, const struct pv_device *device, void *from)
{
    for (size_t i = 0; i < device->function_count; i++) {
        (void)pv->ops->attach(pv->opaque, device->functions[i], from, NULL);
    }
}

/*
 * The first `count` functions have come to a space, the next one could not. Takes them back; or,
 * where that fails, all functions to no space.
 */
static void take_back(struct viommu_pv *pv, struct pv_device *device, void *from, void *to,
                      size_t count)
{
    size_t left = from == to ? 0 : count;

    while (left > 0 && pv->ops->attach(pv->opaque, device->functions[left - 1], to, from) == 0) {
        left--;
    }
    if (left == 0) {
        return;
    }
    for (size_t i = 0; i < device->function_count; i++) {
        (void)pv->ops->attach(pv->opaque, device->functions[i], i < left ? to : from, NULL);
    }
    device->nowhere = true;
}

/* Takes all functions from space to space. */
static int attach(struct viommu_pv *pv, struct pv_device *device, void *from, void *to)
{
    for (size_t i = 0; i < device->function_count; i++) {
        int error = pv->ops->attach(pv->opaque, device->functions[i], from, to);

        if (error) {
            take_back(pv, device, from, to, i);
            return error == -ENOMEM ? -ENOMEM : -ENODEV;
        }
    }
    device->nowhere = false;
    return 0;
}

/* Moves a device, in the embedder too; when it fails it is where it was, or reaches nothing. */
static int move(struct viommu_pv *pv, struct pv_device *device, struct pv_context *from,
                struct pv_context *to)
{
    int error = from == to ? 0 : identities_add(pv, to, device);

    if (error) {
        return error;
    }
    error = attach(pv, device, space_of(device, from), to->space);
    if (error && from != to) {
        identities_drop(pv, to, device, device->range_count);
    } else if (!error && from && from != to) {
        identities_drop(pv, from, device, device->range_count);
    }
    return error;
}

/* ---- devices come and go ---- */

static bool has_function(const struct pv_device *device, uint32_t id)
{
    for (size_t i = 0; i < device->function_count; i++) {
        if (device->functions[i] == id) {
            return true;
        }
    }
    return false;
}

/* The device that a function belongs to. */
static struct pv_device **find(struct pv_vm *vm, uint32_t id)
{
    struct pv_device **at = &vm->devices;

    while (*at && !has_function(*at, id)) {
        at = &(*at)->next;
    }
    return at;
}

static void device_free(struct pv_device *device)
{
    base_free(device->functions);
    base_free(device->ranges);
    base_free(device);
}

/* Takes the turn to move devices. With the lock. */
static int begin_move(struct pv_vm *vm)
{
    if (vm->moving) {
        return -EBUSY;
    }
    vm->moving = true;
    vm->users++;
    return 0;
}

static void end_move(struct pv_vm *vm)
{
    vm->moving = false;
    vm->users--;
}

/* Asks what one function needs, and adds that to the device's ranges. */
static int ask(const struct viommu_pv *pv, uint32_t vm, uint32_t id, struct pv_device *device)
{
    size_t before = device->range_count;
    struct viommu_pv_range *ranges;
    size_t count = 0;
    size_t again = 0;

    if (pv->ops->reserved(pv->opaque, vm, id, NULL, 0, &count)) {
        return -ENODEV;
    }
    if (count > RANGES_MAX - before) {
        return -EINVAL;
    }
    if (count == 0) {
        return 0;
    }
    ranges = base_realloc_array(device->ranges, before + count, sizeof(*ranges));
    if (!ranges) {
        return -ENOMEM;
    }
    device->ranges = ranges;
    if (pv->ops->reserved(pv->opaque, vm, id, ranges + before, count, &again) || again != count) {
        return -ENODEV;
    }
    device->range_count = before + count;
    return 0;
}

/* Puts a device's ranges in order; functions may have the same ones. */
static int order(const struct viommu_pv *pv, struct pv_device *device)
{
    struct viommu_pv_range *ranges = device->ranges;
    size_t kept = 0;

    if (device->range_count) {
        qsort(ranges, device->range_count, sizeof(*ranges), compare);
    }
    for (size_t i = 0; i < device->range_count; i++) {
        if (ranges[i].first > ranges[i].last || ranges[i].last > pv->config.device_frame_max) {
            return -EINVAL;
        }
        if (kept && memcmp(&ranges[i], &ranges[kept - 1], sizeof(*ranges)) == 0) {
            continue;
        }
        if (kept && ranges[i].first <= ranges[kept - 1].last) {
            return -EINVAL;
        }
        ranges[kept++] = ranges[i];
    }
    device->range_count = kept;
    return 0;
}

static int create(const struct viommu_pv *pv, uint32_t vm, const uint32_t *functions, size_t count,
                  struct pv_device **out)
{
    struct pv_device *device = base_alloc(sizeof(*device));
    int error = 0;

    if (!device) {
        return -ENOMEM;
    }
    device->functions = base_alloc_array(count, sizeof(*functions));
    if (!device->functions) {
        device_free(device);
        return -ENOMEM;
    }
    for (size_t i = 0; i < count && !error; i++) {
        error = has_function(device, functions[i]) ? -EINVAL : 0;
        device->functions[device->function_count++] = functions[i];
        error = error ? error : ask(pv, vm, functions[i], device);
    }
    error = error ? error : order(pv, device);
    if (error) {
        device_free(device);
        return error;
    }
    *out = device;
    return 0;
}

/* With the turn to move. */
static int add(struct viommu_pv *pv, struct pv_vm *vm, const uint32_t *functions, size_t count)
{
    struct pv_context *context = vm->contexts[0];
    struct pv_device *device;
    int error = create(pv, vm->id, functions, count, &device);

    if (error) {
        return error;
    }
    pv_lock(pv);
    error = reserve(pv, vm, device);
    pv_unlock(pv);
    if (!error) {
        error = move(pv, device, NULL, context);
        pv_lock(pv);
        if (error) {
            forget_reserved(vm);
        } else {
            device->context = context;
            context->devices++;
            device->next = vm->devices;
            vm->devices = device;
            if (context->isolated) {
                (void)pv_isolate(pv, context); /* a flush failed before the device was there */
            }
        }
        pv_unlock(pv);
    }
    if (error) {
        device_free(device);
    }
    return error;
}

static bool has_any(struct pv_vm *vm, const uint32_t *functions, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (*find(vm, functions[i])) {
            return true;
        }
    }
    return false;
}

int viommu_pv_device_add(struct viommu_pv *pv, uint32_t id, uint32_t device)
{
    return viommu_pv_device_add_functions(pv, id, &device, 1);
}

int viommu_pv_device_add_functions(struct viommu_pv *pv, uint32_t id, const uint32_t *functions,
                                   size_t count)
{
    struct pv_vm *vm;
    int error;

    if (count == 0 || count > VIOMMU_PV_FUNCTIONS_MAX) {
        return -EINVAL;
    }
    pv_lock(pv);
    vm = pv_vm_find(pv, id);
    if (!vm || vm->dying) {
        error = vm ? -ESHUTDOWN : -ENOENT;
    } else if (has_any(vm, functions, count)) {
        error = -EEXIST;
    } else {
        error = vm->contexts[0]->isolated ? -EIO : begin_move(vm);
    }
    pv_unlock(pv);
    if (error) {
        return error;
    }
    error = add(pv, vm, functions, count);
    pv_lock(pv);
    end_move(vm);
    pv_unlock(pv);
    return error;
}

/* With the turn to move, and the lock; gives it up meanwhile. */
static void take_away(struct viommu_pv *pv, struct pv_vm *vm, struct pv_device **at)
{
    struct pv_device *device = *at;
    struct pv_context *context = device->context;

    context->users++;
    pv_unlock(pv);
    if (!device->nowhere) {
        cut_off(pv, device, context->space);
    }
    identities_drop(pv, context, device, device->range_count);
    pv_lock(pv);
    context->users--;
    context->devices--;
    *at = device->next;
    device_free(device);
    forget_reserved(vm);
}

int viommu_pv_device_remove(struct viommu_pv *pv, uint32_t id, uint32_t device)
{
    struct pv_vm *vm;
    struct pv_device **at;
    int error;

    pv_lock(pv);
    vm = pv_vm_find(pv, id);
    at = vm ? find(vm, device) : NULL;
    if (!at || !*at) {
        error = vm ? -ENODEV : -ENOENT;
    } else {
        error = begin_move(vm);
    }
    if (!error) {
        take_away(pv, vm, at);
        end_move(vm);
    }
    pv_unlock(pv);
    return error;
}

int pv_devices_remove(struct viommu_pv *pv, struct pv_vm *vm)
{
    if (vm->devices && vm->moving) {
        return VIOMMU_PENDING;
    }
    vm->moving = true;
    while (vm->devices) {
        take_away(pv, vm, &vm->devices);
    }
    vm->moving = false;
    return 0;
}

/* ---- calls ---- */

int pv_run_attach(struct pv_run *run)
{
    const struct viommu_pv_attach_call *in = &run->call->in.attach;
    struct viommu_pv *pv = run->pv;
    struct pv_vm *vm = run->vm;
    struct pv_device *device;
    struct pv_context *from = NULL;
    int error = pv_enter_context(run, in->context);

    if (error) {
        return error;
    }
    pv_lock(pv);
    device = *find(vm, in->device);
    if (!device) {
        error = -ENODEV;
    } else if (run->context->isolated) {
        error = -EIO;
    } else if (vm->dying) {
        error = -ESHUTDOWN;
    } else {
        error = begin_move(vm) ? -EAGAIN : 0;
    }
    if (!error) {
        from = device->context;
        from->users++;
        run->context->devices++;
    }
    pv_unlock(pv);
    if (error) {
        return error;
    }
    error = move(pv, device, from, run->context);
    pv_lock(pv);
    if (error) {
        run->context->devices--;
    } else {
        device->context = run->context;
        from->devices--;
        if (run->context->isolated) {
            /* A flush failed before the device was there. It has come, and is cut off. */
            (void)pv_isolate(pv, run->context);
        }
    }
    from->users--;
    end_move(vm);
    pv_unlock(pv);
    return error == -ENOMEM ? -ENOSPC : error;
}

/* The ranges that are asked for, which stay while the lock is held. */
static int reserved_of(const struct pv_run *run, const struct viommu_pv_range **ranges,
                       size_t *count)
{
    struct pv_vm *vm = run->vm;
    uint32_t id = run->call->in.reserved.device;
    const struct pv_device *device;

    if (id == VIOMMU_PV_ALL) {
        *ranges = vm->reserved;
        *count = vm->reserved_count;
        return 0;
    }
    device = *find(vm, id);
    if (!device) {
        return -ENODEV;
    }
    *ranges = device->ranges;
    *count = device->range_count;
    return 0;
}

/* Copies some more ranges; *changed: they are others than before, and none is copied. */
static int copy_some(struct pv_run *run, bool *changed)
{
    struct viommu_pv_call *call = run->call;
    struct viommu_pv_reserved *out = &call->out.reserved;
    const struct viommu_pv_range *ranges;
    size_t count;
    int error;

    pv_lock(run->pv);
    error = reserved_of(run, &ranges, &count);
    if (error) {
        count = 0;
    }
    *changed = error || out->generation != run->vm->generation || out->count != count;
    if (*changed) {
        out->generation = error ? 0 : run->vm->generation;
        out->count = (uint32_t)count;
        call->place = 0;
    } else {
        size_t left = count - (size_t)call->place;

        left = left < COPIED ? left : COPIED;
        memcpy(call->ranges + call->place, ranges + call->place, left * sizeof(*ranges));
        call->place += left;
    }
    pv_unlock(run->pv);
    return error;
}

int pv_run_reserved(struct pv_run *run)
{
    struct viommu_pv_call *call = run->call;
    const struct viommu_pv_reserved *out = &call->out.reserved;
    bool changed;
    int error;

    do {
        error = copy_some(run, &changed);
        if (changed) {
            base_free(call->ranges);
            call->ranges = NULL;
        }
        if (error || out->count == 0 || out->count > call->in.reserved.room) {
            return error;
        }
        if (changed) {
            call->ranges = base_alloc_array(out->count, sizeof(*call->ranges));
            if (!call->ranges) {
                return -ENOSPC;
            }
        } else if (call->place < out->count && pv_should_yield(run)) {
            return VIOMMU_PENDING;
        }
    } while (call->place < out->count);
    call->done = out->count;
    return 0;
}
