/* SPDX-License-Identifier: BSD-2-Clause */
/* Those who live by what may be used; see tenant.h. */
#include "iova/tenant.h"

#include "base/alloc.h"
#include "iova/space.h"

#include <errno.h>

#define PAGE_MASK UINT64_C(0xfff)

/* Devices use whole pages: what is in part reserved is so as a whole. Returns how many are left. */
static size_t trim(struct viommu_range *ranges, size_t count)
{
    size_t kept = 0;

    for (size_t i = 0; i < count; i++) {
        uint64_t first = (ranges[i].first + PAGE_MASK) & ~PAGE_MASK;
        uint64_t end = (ranges[i].last + 1) & ~PAGE_MASK; /* 0: the top */

        if (first >= ranges[i].first && first <= end - 1 && end - 1 <= ranges[i].last) {
            ranges[kept++] = (struct viommu_range){first, end - 1};
        }
    }
    return kept;
}

int iova_usable_make(const struct viommu_iova *space, struct iova_usable **out)
{
    struct iova_usable *usable = NULL;
    size_t count = 0;
    int error = space->identity ? -EINVAL : viommu_iova_usable(space, NULL, &count, NULL);

    if (error && error != -ENOSPC) {
        return error;
    }
    usable = base_alloc(sizeof(*usable) + count * sizeof(usable->ranges[0]));
    if (!usable) {
        return -ENOMEM;
    }
    usable->count = count;
    error = viommu_iova_usable(space, usable->ranges, &usable->count, NULL);
    if (error) {
        base_free(usable);
        return error;
    }
    usable->count = trim(usable->ranges, usable->count);
    *out = usable;
    return 0;
}

void iova_tenant_enter(struct viommu_iova *space, struct iova_tenant *tenant)
{
    struct iova_tenant **at = &space->tenants;

    while (*at && (uintptr_t)(*at)->lock_order < (uintptr_t)tenant->lock_order) {
        at = &(*at)->next;
    }
    tenant->space = space;
    tenant->next = *at;
    *at = tenant;
}

void iova_tenant_leave(struct iova_tenant *tenant)
{
    struct iova_tenant **at;

    for (at = &tenant->space->tenants; *at != tenant; at = &(*at)->next) {
    }
    *at = tenant->next;
    tenant->space = NULL;
}

void tenants_evict(struct viommu_iova *space)
{
    while (space->tenants) {
        iova_tenant_leave(space->tenants);
    }
}

/* Whether it is the first of those that share a lock. */
static bool begins_group(const struct iova_tenant *before, const struct iova_tenant *tenant)
{
    return !before || before->lock_order != tenant->lock_order;
}

void tenants_lock(struct viommu_iova *space)
{
    const struct iova_tenant *before = NULL;

    for (struct iova_tenant *tenant = space->tenants; tenant; tenant = tenant->next) {
        if (begins_group(before, tenant)) {
            tenant->ops->lock(tenant);
        }
        before = tenant;
    }
}

void tenants_unlock(struct viommu_iova *space)
{
    const struct iova_tenant *before = NULL;

    for (struct iova_tenant *tenant = space->tenants; tenant; tenant = tenant->next) {
        if (begins_group(before, tenant)) {
            tenant->ops->unlock(tenant);
        }
        before = tenant;
    }
}

int tenants_change(struct viommu_iova *space, struct viommu_iova_side *holder)
{
    struct iova_usable *usable;
    struct iova_tenant *tenant;
    struct iova_tenant *failed;
    int error;

    if (!space->tenants) {
        return 0;
    }
    error = iova_usable_make(space, &usable);
    if (error) {
        return error;
    }
    for (tenant = space->tenants; tenant; tenant = tenant->next) {
        error = tenant->ops->prepare(tenant, usable, holder);
        if (error) {
            break;
        }
    }
    failed = tenant;
    for (tenant = space->tenants; tenant != failed; tenant = tenant->next) {
        if (error) {
            tenant->ops->abort(tenant);
        } else {
            tenant->ops->commit(tenant);
        }
    }
    base_free(usable);
    return error;
}

void tenants_widen(struct viommu_iova *space)
{
    struct viommu_iova_side holder;
    struct iova_usable *usable;

    if (!space->tenants || iova_usable_make(space, &usable)) {
        return;
    }
    tenants_lock(space);
    for (struct iova_tenant *tenant = space->tenants; tenant; tenant = tenant->next) {
        if (!tenant->ops->prepare(tenant, usable, &holder)) {
            tenant->ops->commit(tenant);
        }
    }
    tenants_unlock(space);
    base_free(usable);
}

bool tenants_meet(const struct viommu_iova *space, const struct viommu_range *place,
                  uint64_t *behind)
{
    uint64_t size = place->last - place->first + 1;

    for (struct iova_tenant *tenant = space->tenants; tenant; tenant = tenant->next) {
        if (tenant->ops->meets(tenant, place->first, size, behind)) {
            return true;
        }
    }
    return false;
}
