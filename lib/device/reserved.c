/* SPDX-License-Identifier: BSD-2-Clause */
/* What is closed to devices and requesters; see reserved.h. */
#include "device/reserved.h"

#include "base/alloc.h"
#include "iommu/iommu.h"
#include "iommu/watch.h"
#include "range/range_set.h"

#include <errno.h>
#include <stdio.h>

bool closed_meets(const struct closed *closed, uint64_t first, uint64_t last)
{
    size_t low = 0;
    size_t high = closed ? closed->count : 0;
    size_t count = high;

    while (low < high) {
        size_t mid = (low + high) / 2;

        if (first > closed->ranges[mid].last) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low < count && closed->ranges[low].first <= last;
}

/* ---- what is closed to a requester ---- */

/* What the device goes by, or is about to; NULL: it may use everything. */
static const struct iova_usable *usable_of(const struct viommu_device *device)
{
    return device->usable_next ? device->usable_next : device->usable;
}

/* Adds what a device may not use. */
static int add_closed(struct range_set *set, const struct viommu_device *device)
{
    const struct iova_usable *usable = usable_of(device);
    uint64_t from = 0;
    int error = 0;

    if (!usable) {
        return 0;
    }
    for (size_t i = 0; i < usable->count && !error; i++) {
        if (usable->ranges[i].first > from) {
            error = range_set_add(set, from, usable->ranges[i].first - 1);
        }
        if (usable->ranges[i].last == UINT64_MAX) {
            return error;
        }
        from = usable->ranges[i].last + 1;
    }
    return error ? error : range_set_add(set, from, UINT64_MAX);
}

static bool uses(const struct viommu_device *device, const struct requester *requester)
{
    uint32_t count = atomic_load(&device->requester_count);

    for (uint32_t i = 0; i < count; i++) {
        if (atomic_load(&device->requesters[i]) == requester) {
            return true;
        }
    }
    return false;
}

/*
 * Gathers it of all that use the requester: one only, mostly, and that is `device` (or NULL), which
 * may be about to.
 */
static int gather(struct viommu *iommu, const struct viommu_device *device,
                  const struct requester *requester, struct range_set *set)
{
    int error = 0;

    if (device && requester->users == 1) {
        return add_closed(set, device);
    }
    for (const struct viommu_device *d = iommu->devices; d && !error; d = d->next) {
        if (d == device || uses(d, requester)) {
            error = add_closed(set, d);
        }
    }
    return error;
}

static int make_closed(struct viommu *iommu, const struct viommu_device *device,
                       const struct requester *requester, struct closed **out)
{
    const struct viommu_range *interrupts = &iommu->model->interrupts;
    struct range_cursor cursor;
    struct range_set set;
    struct range_run run;
    int error;

    range_set_init(&set);
    error = gather(iommu, device, requester, &set);
    if (!error && interrupts->first <= interrupts->last) {
        error = range_set_subtract(&set, interrupts->first, interrupts->last);
    }
    *out = error ? NULL
                 : base_alloc(sizeof(**out) + set.map.count * sizeof((*out)->ranges[0]));
    if (*out) {
        range_cursor_seek(&cursor, &set.map, 0);
        while (range_cursor_next(&cursor, UINT64_MAX, &run)) {
            (*out)->ranges[(*out)->count++] = (struct viommu_range){run.first, run.last};
        }
    } else {
        error = -ENOMEM;
    }
    range_set_fini(&set);
    return error;
}

/* Says to the model which ranges do not count any more: they were replaced, or did not come. */
static void tell_closed(struct viommu *iommu, struct requester *requester,
                        const struct closed *gone)
{
    if (iommu->model->closed && gone) {
        iommu->model->closed(iommu, requester, gone);
    }
}

static void unstage(struct viommu *iommu, struct requester *requester)
{
    if (requester->closed_next) {
        tell_closed(iommu, requester, requester->closed_next);
        base_free(requester->closed_next);
        requester->closed_next = NULL;
    }
}

/* Makes a new list, for which the model has room from now on. */
static int stage(struct viommu *iommu, const struct viommu_device *device,
                 struct requester *requester, struct viommu_iova_side *holder)
{
    struct closed *closed;
    int error;

    unstage(iommu, requester);
    error = make_closed(iommu, device, requester, &closed);
    if (!error && iommu->model->closing) {
        error = iommu->model->closing(iommu, requester, closed, holder);
    }
    if (error) {
        base_free(closed);
        return error;
    }
    requester->closed_next = closed;
    return 0;
}

static void closed_free(struct epoch_deferred *deferred)
{
    base_free((char *)deferred - offsetof(struct closed, deferred));
}

void requester_watch_closed(struct viommu *iommu, const struct requester *requester)
{
    const struct closed *closed = atomic_load(&requester->closed);

    if (!closed || !iommu->model->closing) {
        return;
    }
    if (!closed->count) {
        watch_closed(iommu, requester->id, 0, 1, 0);
    }
    for (size_t i = 0; i < closed->count; i++) {
        watch_closed(iommu, requester->id, (uint32_t)i, closed->ranges[i].first,
                     closed->ranges[i].last);
    }
}

/* Publishes it. */
static void publish(struct viommu *iommu, struct requester *requester)
{
    struct closed *old;

    if (requester->closed_next) {
        old = atomic_exchange(&requester->closed, requester->closed_next);
        requester->closed_next = NULL;
        tell_closed(iommu, requester, old);
        requester_watch_closed(iommu, requester);
        if (old) {
            epoch_defer(iommu->epoch, &old->deferred, closed_free);
        }
    }
}

int requester_close(struct viommu_device *device, struct requester *requester)
{
    struct viommu *iommu = device->iommu;
    struct viommu_iova_side holder;
    int error;

    if (!device->usable && !atomic_load(&requester->closed)) {
        return 0;
    }
    error = stage(iommu, device, requester, &holder);
    if (!error) {
        publish(iommu, requester);
    }
    return error;
}

void requester_reopen(struct viommu *iommu, struct requester *requester)
{
    struct viommu_iova_side holder;

    /* Without memory it goes on as it is: more is closed than has to be. */
    if (atomic_load(&requester->closed) && !stage(iommu, NULL, requester, &holder)) {
        publish(iommu, requester);
    }
}

/* ---- a device in a space ---- */

static struct viommu_device *device_of(struct iova_tenant *tenant)
{
    return (struct viommu_device *)((char *)tenant - offsetof(struct viommu_device, tenant));
}

static void tenant_lock(struct iova_tenant *tenant)
{
    iommu_lock(device_of(tenant)->iommu);
}

static void tenant_unlock(struct iova_tenant *tenant)
{
    iommu_unlock(device_of(tenant)->iommu);
}

uint64_t device_usable_last(const struct viommu_device *device)
{
    const struct iova_usable *usable = usable_of(device);

    if (!usable) {
        return UINT64_MAX;
    }
    return usable->count ? usable->ranges[usable->count - 1].last : 0;
}

int device_fits(const struct viommu_device *device)
{
    struct viommu *iommu = device->iommu;

    return iommu->model->closing || !usable_of(device)
               ? 0
               : iommu->model->narrow(iommu, device_usable_last(device), UINT64_MAX);
}

static void describe(const struct viommu_device *device, const struct viommu_range *range,
                     struct viommu_iova_side *holder)
{
    uint16_t id = atomic_load(&device->requesters[0])->id;

    *holder = (struct viommu_iova_side){.kind = VIOMMU_IOVA_MAPPING, .range = *range};
    snprintf(holder->owner, sizeof(holder->owner), "device %02x:%02x.%x", id >> 8, id >> 3 & 0x1f,
             id & 7u);
}

/* Whether mirrors can live with it: none holds anything that is closed now. */
static int stage_mirrors(struct viommu_device *device, struct viommu_iova_side *holder)
{
    const struct closed *closed = atomic_load(&device->requesters[0])->closed_next;

    for (struct viommu_subscriber *s = device->subscribers; s; s = s->next) {
        struct viommu_range held;
        int error;

        if (!s->mirror) {
            continue;
        }
        for (size_t i = 0; i < closed->count; i++) {
            if (mirror_has(device->iommu, s->mirror, &closed->ranges[i], &held)) {
                describe(device, &held, holder);
                return -EEXIST;
            }
        }
        error = mirror_restrict(device->iommu, s->mirror, device->usable_next);
        if (error) {
            return error;
        }
    }
    return 0;
}

static void tenant_abort(struct iova_tenant *tenant)
{
    struct viommu_device *device = device_of(tenant);
    uint32_t count = atomic_load(&device->requester_count);

    for (uint32_t i = 0; i < count; i++) {
        unstage(device->iommu, atomic_load(&device->requesters[i]));
    }
    for (struct viommu_subscriber *s = device->subscribers; s; s = s->next) {
        if (s->mirror) {
            mirror_restrict_end(device->iommu, s->mirror, false);
        }
    }
    base_free(device->usable_next);
    device->usable_next = NULL;
}

static int tenant_prepare(struct iova_tenant *tenant, const struct iova_usable *usable,
                          struct viommu_iova_side *holder)
{
    struct viommu_device *device = device_of(tenant);
    uint32_t count = atomic_load(&device->requester_count);
    size_t size = sizeof(*usable) + usable->count * sizeof(usable->ranges[0]);
    int error = 0;

    device->usable_next = base_alloc(size);
    if (!device->usable_next) {
        return -ENOMEM;
    }
    memcpy(device->usable_next, usable, size);
    for (uint32_t i = 0; i < count && !error; i++) {
        error = stage(device->iommu, device, atomic_load(&device->requesters[i]), holder);
    }
    error = error ? error : stage_mirrors(device, holder);
    error = error ? error : device_fits(device);
    if (error) {
        tenant_abort(tenant);
    }
    return error;
}

static void tenant_commit(struct iova_tenant *tenant)
{
    struct viommu_device *device = device_of(tenant);
    uint32_t count = atomic_load(&device->requester_count);

    for (uint32_t i = 0; i < count; i++) {
        publish(device->iommu, atomic_load(&device->requesters[i]));
    }
    for (struct viommu_subscriber *s = device->subscribers; s; s = s->next) {
        if (s->mirror) {
            mirror_restrict_end(device->iommu, s->mirror, true);
        }
    }
    base_free(device->usable);
    device->usable = device->usable_next;
    device->usable_next = NULL;
    iommu_kick(device->iommu);
}

static bool tenant_meets(struct iova_tenant *tenant, uint64_t first, uint64_t size,
                         uint64_t *behind)
{
    struct viommu_device *device = device_of(tenant);
    struct viommu *iommu = device->iommu;
    uint32_t count = atomic_load(&device->requester_count);
    struct viommu_range held;
    struct viommu_range place = {first, first + (size - 1)};

    for (uint32_t i = 0; i < count && iommu->model->maps; i++) {
        if (iommu->model->maps(iommu, atomic_load(&device->requesters[i]), first, size, behind)) {
            return true;
        }
    }
    for (struct viommu_subscriber *s = device->subscribers; s; s = s->next) {
        if (s->mirror && mirror_has(iommu, s->mirror, &place, &held)) {
            *behind = held.last;
            return true;
        }
    }
    return false;
}

static const struct iova_tenant_ops tenant_ops = {
    .lock = tenant_lock,
    .unlock = tenant_unlock,
    .prepare = tenant_prepare,
    .commit = tenant_commit,
    .abort = tenant_abort,
    .meets = tenant_meets,
};

int device_reserved_init(struct viommu_device *device, struct viommu_iova *space)
{
    int error = 0;

    device->tenant.ops = &tenant_ops;
    device->tenant.lock_order = device->iommu;
    if (space) {
        error = iova_usable_make(space, &device->usable);
    }
    return error;
}

void device_enter_space(struct viommu_device *device, struct viommu_iova *space)
{
    if (space) {
        iova_tenant_enter(space, &device->tenant);
    }
}

void device_leave_space(struct viommu_device *device)
{
    struct viommu_iova *space = device->tenant.space;

    if (!space) {
        return;
    }
    iova_tenant_leave(&device->tenant);
    for (struct viommu_subscriber *s = device->subscribers; s; s = s->next) {
        viommu_iova_owner_destroy(s->limits);
        s->limits = NULL;
    }
    if (device->own_space) {
        viommu_iova_destroy(space);
    }
}

void device_reserved_fini(struct viommu_device *device)
{
    base_free(device->usable);
}

int device_limit(struct viommu_device *device, const struct viommu_range *allowed, size_t count,
                 struct viommu_iova_owner **out)
{
    struct viommu_iova_side name;
    const struct viommu_range none = {0};
    int error;

    *out = NULL;
    if (!device->tenant.space) {
        struct viommu_iova_config config = {0};
        struct viommu_iova *space;

        if (!device->iommu->model->closing) {
            return 0;
        }
        error = viommu_iova_create(&config, &space);
        if (error) {
            return error;
        }
        device->own_space = true;
        iova_tenant_enter(space, &device->tenant);
    }
    iommu_lock(device->iommu);
    describe(device, &none, &name);
    iommu_unlock(device->iommu);
    error = viommu_iova_owner_create(device->tenant.space, name.owner, out);
    error = error ? error : viommu_iova_limit(*out, allowed, count, NULL);
    if (error) {
        device_unlimit(device, *out);
        *out = NULL;
    }
    return error;
}

void device_unlimit(struct viommu_device *device, struct viommu_iova_owner *limits)
{
    /* With its space an owner has gone, too. */
    if (device->tenant.space) {
        viommu_iova_owner_destroy(limits);
    }
}
