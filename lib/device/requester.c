/* SPDX-License-Identifier: BSD-2-Clause */
/* Requester ids, the devices that use them, and what is known of them. */
#include "device/requester.h"

#include "base/alloc.h"
#include "iommu/iommu.h"
#include "iommu/watch.h"

#include <errno.h>

static struct requester **bucket_of(struct viommu *iommu, uint16_t id)
{
    return &iommu->requesters[(id ^ id >> 8) % REQUESTER_BUCKETS];
}

struct requester *requester_find(struct viommu *iommu, uint16_t id)
{
    struct requester *requester = *bucket_of(iommu, id);

    while (requester && requester->id != id) {
        requester = requester->next;
    }
    return requester;
}

int requester_take(struct viommu *iommu, uint16_t id, bool shared, struct requester **out)
{
    struct requester **bucket = bucket_of(iommu, id);
    struct requester *requester = requester_find(iommu, id);

    if (requester) {
        if (!shared || !requester->shared) {
            return -EEXIST;
        }
        requester->users++;
        *out = requester;
        return 0;
    }
    requester = base_alloc(sizeof(*requester));
    if (!requester) {
        return -ENOMEM;
    }
    requester->id = id;
    requester->shared = shared;
    requester->users = 1;
    requester->next = *bucket;
    *bucket = requester;
    *out = requester;
    watch_requester(iommu, id, true);
    return 0;
}

static void requester_free(struct epoch_deferred *deferred)
{
    struct requester *requester =
        (struct requester *)((char *)deferred - offsetof(struct requester, deferred));

    base_free(atomic_load(&requester->closed));
    base_free(requester);
}

void requester_release(struct viommu *iommu, struct requester *requester)
{
    struct requester **link = bucket_of(iommu, requester->id);

    if (--requester->users) {
        requester_reopen(iommu, requester);
        return;
    }
    if (iommu->model->requester_gone) {
        iommu->model->requester_gone(iommu, requester);
    }
    while (*link != requester) {
        link = &(*link)->next;
    }
    *link = requester->next;
    watch_requester(iommu, requester->id, false);
    requester_forget(iommu, requester);
    epoch_defer(iommu->epoch, &requester->deferred, requester_free);
}

static void context_free(struct epoch_deferred *deferred)
{
    /* Models put a struct context first in theirs, and it begins with this. */
    base_free(deferred);
}

void requester_forget(struct viommu *iommu, struct requester *requester)
{
    struct context *context = atomic_exchange(&requester->context, NULL);

    requester->forgotten = true;
    if (!context) {
        return;
    }
    if (context->tag) {
        iotlb_tag_put(&iommu->iotlb, context->tag);
    }
    epoch_defer(iommu->epoch, &context->deferred, context_free);
}

void requesters_forget(struct viommu *iommu, uint16_t id, uint16_t mask)
{
    for (unsigned i = 0; i < REQUESTER_BUCKETS; i++) {
        for (struct requester *r = iommu->requesters[i]; r; r = r->next) {
            if (!((r->id ^ id) & mask)) {
                requester_forget(iommu, r);
            }
        }
    }
}

void requesters_watch(struct viommu *iommu)
{
    if (!watch_is_on(iommu)) {
        return;
    }
    for (unsigned i = 0; i < REQUESTER_BUCKETS; i++) {
        for (struct requester *r = iommu->requesters[i]; r; r = r->next) {
            watch_requester(iommu, r->id, true);
            requester_watch_closed(iommu, r);
        }
    }
}

void device_deny(struct viommu_device *device, int error, const char *text)
{
    struct viommu_event event = {
        .kind = VIOMMU_EVENT_DENIED,
        .requester = atomic_load(&device->requesters[0])->id,
        .error = error,
        .text = text,
    };

    if (!atomic_exchange(&device->denied, true)) {
        iommu_post_event(device->iommu, &event);
    }
}

void device_admit(struct viommu_device *device)
{
    atomic_store(&device->denied, false);
    notify_born_again(device->iommu, device);
    for (struct viommu_subscriber *s = device->subscribers; s; s = s->next) {
        s->fenced = false;
        if (s->mirror) {
            follow_review_mirror(device->iommu, s->mirror, VIOMMU_CAUSE_REPLAY);
        }
    }
}

void requesters_told(struct viommu *iommu)
{
    for (unsigned i = 0; i < REQUESTER_BUCKETS; i++) {
        for (struct requester *r = iommu->requesters[i]; r; r = r->next) {
            r->forgotten = false;
        }
    }
}

static void device_link(struct viommu_device *device)
{
    struct viommu *iommu = device->iommu;

    device->next = iommu->devices;
    device->link = &iommu->devices;
    if (device->next) {
        device->next->link = &device->next;
    }
    iommu->devices = device;
}

static void device_unlink(struct viommu_device *device)
{
    *device->link = device->next;
    if (device->next) {
        device->next->link = device->link;
    }
}

/* Makes it one of the instance's. Under the lock. */
static int device_enter(struct viommu_device *device, const struct viommu_device_config *config)
{
    struct viommu *iommu = device->iommu;
    struct requester *requester;
    int ret;

    if (config->ats && !iommu->model->has_ats(iommu)) {
        return -ENOTSUP;
    }
    ret = requester_take(iommu, config->requester, config->shared, &requester);
    if (ret) {
        return ret;
    }
    atomic_init(&device->requesters[0], requester);
    atomic_init(&device->requester_count, 1);
    device_link(device);
    ret = device_fits(device);
    ret = ret ? ret : requester_close(device, requester);
    if (ret) {
        device_unlink(device);
        requester_release(iommu, requester);
    }
    return ret;
}

int viommu_device_add(struct viommu *iommu, const struct viommu_device_config *config,
                      struct viommu_device **out)
{
    struct viommu_device *device;
    int ret;

    if (iommu_reentered(iommu)) {
        return -EDEADLK;
    }
    device = base_alloc_aligned(_Alignof(struct viommu_device), sizeof(*device));
    if (!device) {
        return -ENOMEM;
    }
    device->iommu = iommu;
    device->ats = config->ats;
    window_list_init(&device->windows);
    ret = device_reserved_init(device, config->space);
    if (!ret) {
        iommu_lock(iommu);
        ret = device_enter(device, config);
        iommu_unlock(iommu);
    }
    if (ret) {
        device_reserved_fini(device);
        window_list_fini(&device->windows);
        base_free(device);
        return ret;
    }
    device_enter_space(device, config->space);
    *out = device;
    return 0;
}

/* Takes the aliases from number `from` on. Under the lock. */
static void requesters_release(struct viommu_device *device, uint32_t from)
{
    uint32_t count = atomic_load(&device->requester_count);

    atomic_store(&device->requester_count, from);
    for (uint32_t i = from; i < count; i++) {
        requester_release(device->iommu, atomic_load(&device->requesters[i]));
    }
}

void device_free(struct viommu_device *device)
{
    struct viommu *iommu = device->iommu;

    device_leave_space(device);
    iommu_lock(iommu);
    device_unlink(device);
    notify_remove_device(iommu, device);
    windows_wait_for_look(iommu, device);
    requesters_release(device, 0);
    windows_orphan(iommu, device);
    stats_add_device(&iommu->stats, device);
    iommu_kick(iommu);
    iommu_unlock(iommu);
    epoch_reap(iommu->epoch);
    window_list_fini(&device->windows);
    device_reserved_fini(device);
    base_free(device);
}

int viommu_device_remove(struct viommu_device *device)
{
    if (!device) {
        return 0;
    }
    if (iommu_reentered(device->iommu)) {
        return -EDEADLK;
    }
    device_free(device);
    return 0;
}

/* Its mirrors may have other tables now. Under the lock. */
static void device_review(struct viommu_device *device)
{
    for (struct viommu_subscriber *s = device->subscribers; s; s = s->next) {
        if (s->mirror) {
            follow_review_mirror(device->iommu, s->mirror, VIOMMU_CAUSE_CONTEXT);
        }
    }
}

int viommu_device_set_requester(struct viommu_device *device, uint16_t id)
{
    struct viommu *iommu = device->iommu;
    struct requester *old;
    struct requester *new;
    int ret = 0;

    if (iommu_reentered(iommu)) {
        return -EDEADLK;
    }
    iommu_lock(iommu);
    old = atomic_load(&device->requesters[0]);
    if (old->id != id) {
        ret = requester_take(iommu, id, old->shared, &new);
        if (!ret) {
            /* DMA does not find it before it knows what is closed. */
            ret = requester_close(device, new);
            if (ret) {
                requester_release(iommu, new);
            }
        }
        if (!ret) {
            atomic_store(&device->requesters[0], new);
            requester_release(iommu, old);
            notify_born_again(iommu, device);
            device_review(device);
        }
    }
    iommu_unlock(iommu);
    epoch_reap(iommu->epoch);
    return ret;
}

int viommu_device_add_alias(struct viommu_device *device, uint16_t id)
{
    struct viommu *iommu = device->iommu;
    struct requester *requester;
    uint32_t count;
    int ret;

    if (iommu_reentered(iommu)) {
        return -EDEADLK;
    }
    iommu_lock(iommu);
    count = atomic_load(&device->requester_count);
    ret = count <= VIOMMU_ALIASES_MAX ? requester_take(iommu, id, false, &requester) : -ENOSPC;
    if (!ret) {
        ret = requester_close(device, requester);
        if (ret) {
            requester_release(iommu, requester);
        }
    }
    if (!ret) {
        atomic_store(&device->requesters[count], requester);
        atomic_store(&device->requester_count, count + 1);
        notify_born_again(iommu, device);
        ret = (int)count;
    }
    iommu_unlock(iommu);
    return ret;
}

int viommu_device_remove_aliases(struct viommu_device *device)
{
    struct viommu *iommu = device->iommu;

    if (iommu_reentered(iommu)) {
        return -EDEADLK;
    }
    iommu_lock(iommu);
    requesters_release(device, 1);
    iommu_unlock(iommu);
    epoch_reap(iommu->epoch);
    return 0;
}

int viommu_device_reset(struct viommu_device *device)
{
    struct viommu *iommu = device->iommu;

    if (iommu_reentered(iommu)) {
        return -EDEADLK;
    }
    iommu_lock(iommu);
    device_admit(device);
    iommu_unlock(iommu);
    return 0;
}

uint16_t viommu_device_requester(const struct viommu_device *device)
{
    uint16_t id;

    iommu_lock(device->iommu);
    id = atomic_load(&device->requesters[0])->id;
    iommu_unlock(device->iommu);
    return id;
}
