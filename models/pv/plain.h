/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Paravirtual operations: pages of order 0 that ask for nothing special, which range.c maps many
 * at a time and single.c by themselves. In line, for it is most of what such a page costs.
 */
#ifndef VIOMMU_PV_PLAIN_H
#define VIOMMU_PV_PLAIN_H

#include "pv/engine.h"

/* Whether a page asks for nothing special: it belongs to the VM that was named, and is ready. */
static inline bool pv_is_plain(const struct pv_run *run, const struct viommu_pv_page *page,
                               uint32_t perm)
{
    if (page->owner != run->named->id) {
        return false;
    }
    switch (page->state) {
    case VIOMMU_PV_PAGE_RAM:
        return true;
    case VIOMMU_PV_PAGE_READ_ONLY:
    case VIOMMU_PV_PAGE_SHARED:
    case VIOMMU_PV_PAGE_DIRTY_LOGGED:
        return !(perm & VIOMMU_PV_WRITE);
    default:
        return false;
    }
}

/* References to a page. Returns 0, -EAGAIN for one that is not plain, or what is wrong with it.
   Without the lock. */
static inline int pv_plain_reference(const struct pv_run *run, uint64_t frame, uint32_t perm,
                                     uint64_t *handle)
{
    const struct viommu_pv *pv = run->pv;
    const struct viommu_pv_ops *ops = pv->ops;
    struct viommu_pv_page page;

    if (ops->lookup(pv->opaque, run->named->id, frame, 0, &page)) {
        return -ENOENT;
    }
    if (!pv_is_plain(run, &page, perm)) {
        return -EAGAIN;
    }
    if (ops->get_page(pv->opaque, run->named->id, frame, 0, page.handle)) {
        return -ENOENT;
    }
    if ((perm & VIOMMU_PV_WRITE) && ops->get_type(pv->opaque, 0, page.handle)) {
        ops->put_page(pv->opaque, 0, page.handle);
        return -EBUSY;
    }
    *handle = page.handle;
    return 0;
}

/* Drops them. Without the lock. */
static inline void pv_plain_drop(const struct viommu_pv *pv, uint64_t handle, uint32_t perm)
{
    if (perm & VIOMMU_PV_WRITE) {
        pv->ops->put_type(pv->opaque, 0, handle);
    }
    pv->ops->put_page(pv->opaque, 0, handle);
}

/* What the slot says of a page that there are references to. With the lock. */
static inline void pv_plain_claim(const struct pv_run *run, struct pv_slot *slot,
                                  uint64_t device_frame, uint64_t frame, uint64_t handle,
                                  uint32_t perm)
{
    *slot = (struct pv_slot){
        .device_frame = device_frame,
        .frame = frame,
        .handle = handle,
        .context = run->context,
        .vm = run->named->id,
        .state = PV_SLOT_CLAIMED,
        .perm = (uint8_t)perm,
    };
}

#endif
