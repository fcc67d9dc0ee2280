/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tenants of an IOVA space: those who live by what may be used in it. A device is one.
 *
 * A change of what may be used is made in two steps, with the locks of all tenants held: each is
 * asked (`prepare`) whether it can live with the new list, then all of them go by it (`commit`), or
 * none does (`abort`). So whatever a guest does at the same time comes before it, or after.
 *
 * When more may be used, because something was given back, nobody is in the way; a tenant that
 * lacks memory, or room, for the new list goes on by the one that it has.
 *
 * Locking: the list of tenants is the space's. Locks are taken in the order of `lock_order`, so
 * that two spaces that share instances do not wait for one another.
 */
#ifndef VIOMMU_IOVA_TENANT_H
#define VIOMMU_IOVA_TENANT_H

#include <viommu/iova.h>

/* What may be used, as whole pages of 4 KiB: in order, none touching another. */
struct iova_usable {
    size_t count;
    struct viommu_range ranges[];
};

struct iova_tenant;

struct iova_tenant_ops {
    /* The lock of all tenants with the same `lock_order`. */
    void (*lock)(struct iova_tenant *tenant);
    void (*unlock)(struct iova_tenant *tenant);
    /*
     * It is to go by this list, which it copies. Returns 0; -EEXIST with *holder, what is mapped
     * outside; -ENOSPC (its guest cannot be told of so many ranges); -ERANGE (its guest uses higher
     * addresses); -ENOMEM. After a failure there is nothing to abort. Under the lock, as the
     * others.
     */
    int (*prepare)(struct iova_tenant *tenant, const struct iova_usable *usable,
                   struct viommu_iova_side *holder);
    void (*commit)(struct iova_tenant *tenant);
    void (*abort)(struct iova_tenant *tenant);
    /*
     * A window of `size` bytes is to come to `first`. Returns false when nothing that is mapped is
     * in its way; else true, and *behind is the last address of what is.
     */
    bool (*meets)(struct iova_tenant *tenant, uint64_t first, uint64_t size, uint64_t *behind);
};

struct iova_tenant {
    struct iova_tenant *next;
    struct viommu_iova *space; /* NULL: it is in none, or that has gone */
    const struct iova_tenant_ops *ops;
    const void *lock_order;
};

/* What may be used now; base_free it. Returns 0, -EINVAL (an identity space has none) or
   -ENOMEM. */
int iova_usable_make(const struct viommu_iova *space, struct iova_usable **out);

/* Enters a space, with what may be used now known; cannot fail. */
void iova_tenant_enter(struct viommu_iova *space, struct iova_tenant *tenant);
/* Leaves the one that it is in. */
void iova_tenant_leave(struct iova_tenant *tenant);

#endif
