/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A hypervisor for the engine of paravirtual operations (viommu/pv.h) that agrees to everything,
 * does nothing and keeps nothing: every frame is a page of the VM that is named, whose handle is
 * its number. Tests and benchmarks that judge something else than a hypervisor take this table, and
 * put in it what they judge. (models/pv/test_world.h is one that judges all of it.)
 */
#ifndef VIOMMU_TESTS_PV_QUIET_H
#define VIOMMU_TESTS_PV_QUIET_H

#include <errno.h>
#include <viommu/pv.h>

static inline int pv_quiet_lookup(void *opaque, uint32_t vm, uint64_t frame, unsigned order,
                                  struct viommu_pv_page *page)
{
    (void)opaque, (void)order;
    *page = (struct viommu_pv_page){.handle = frame, .owner = vm};
    return 0;
}

static inline int pv_quiet_prepare(void *opaque, uint32_t vm, uint64_t frame, unsigned order,
                                   bool write)
{
    (void)opaque, (void)vm, (void)frame, (void)order, (void)write;
    return -EAGAIN;
}

static inline int pv_quiet_get_page(void *opaque, uint32_t vm, uint64_t frame, unsigned order,
                                    uint64_t handle)
{
    (void)opaque, (void)vm, (void)frame, (void)order, (void)handle;
    return 0;
}

static inline void pv_quiet_put_page(void *opaque, unsigned order, uint64_t handle)
{
    (void)opaque, (void)order, (void)handle;
}

static inline int pv_quiet_get_type(void *opaque, unsigned order, uint64_t handle)
{
    (void)opaque, (void)order, (void)handle;
    return 0;
}

static inline void pv_quiet_put_type(void *opaque, unsigned order, uint64_t handle)
{
    (void)opaque, (void)order, (void)handle;
}

static inline void pv_quiet_mark_dirty(void *opaque, unsigned order, uint64_t handle)
{
    (void)opaque, (void)order, (void)handle;
}

static inline bool pv_quiet_may_call(void *opaque, uint32_t vm, unsigned operation)
{
    (void)opaque, (void)vm, (void)operation;
    return true;
}

static inline bool pv_quiet_may_use(void *opaque, uint32_t vm, uint32_t other, uint32_t perm)
{
    (void)opaque, (void)vm, (void)other, (void)perm;
    return true;
}

static inline int pv_quiet_reserved(void *opaque, uint32_t vm, uint32_t device,
                                    struct viommu_pv_range *ranges, size_t room, size_t *count)
{
    (void)opaque, (void)vm, (void)device, (void)ranges, (void)room;
    *count = 0;
    return 0;
}

static inline int pv_quiet_context_create(void *opaque, uint32_t vm, uint32_t context, void **space)
{
    static int any;

    (void)opaque, (void)vm, (void)context;
    *space = &any;
    return 0;
}

static inline void pv_quiet_context_destroy(void *opaque, void *space)
{
    (void)opaque, (void)space;
}

static inline int pv_quiet_attach(void *opaque, uint32_t device, void *from, void *to)
{
    (void)opaque, (void)device, (void)from, (void)to;
    return 0;
}

static inline int pv_quiet_identity(void *opaque, void *space, uint64_t first, uint64_t last,
                                    bool mapped)
{
    (void)opaque, (void)space, (void)first, (void)last, (void)mapped;
    return 0;
}

static inline int pv_quiet_map(void *opaque, void *space, uint64_t device_frame, unsigned order,
                               uint64_t handle, uint32_t perm)
{
    (void)opaque, (void)space, (void)device_frame, (void)order, (void)handle, (void)perm;
    return 0;
}

static inline int pv_quiet_unmap(void *opaque, void *space, uint64_t device_frame, unsigned order)
{
    (void)opaque, (void)space, (void)device_frame, (void)order;
    return 0;
}

static inline int pv_quiet_flush(void *opaque, void *space, uint64_t first, uint64_t last)
{
    (void)opaque, (void)space, (void)first, (void)last;
    return 0;
}

static inline void pv_quiet_isolate(void *opaque, void *space)
{
    (void)opaque, (void)space;
}

static inline int pv_quiet_drop_default(void *opaque, uint32_t vm, void *space, uint64_t *cursor)
{
    (void)opaque, (void)vm, (void)space, (void)cursor;
    return 0;
}

static inline bool pv_quiet_yield(void *opaque)
{
    (void)opaque;
    return false;
}

static inline void pv_quiet_give_back(void *opaque, uint32_t mapper, uint32_t context,
                                      uint64_t device_frame, uint32_t vm, uint64_t frame)
{
    (void)opaque, (void)mapper, (void)context, (void)device_frame, (void)vm, (void)frame;
}

static inline void pv_quiet_acknowledged(void *opaque, uint32_t mapper, uint32_t vm, uint64_t frame,
                                         uint64_t remaining)
{
    (void)opaque, (void)mapper, (void)vm, (void)frame, (void)remaining;
}

static inline struct viommu_pv_ops pv_quiet(void)
{
    return (struct viommu_pv_ops){
        .lookup = pv_quiet_lookup,
        .prepare = pv_quiet_prepare,
        .get_page = pv_quiet_get_page,
        .put_page = pv_quiet_put_page,
        .get_type = pv_quiet_get_type,
        .put_type = pv_quiet_put_type,
        .mark_dirty = pv_quiet_mark_dirty,
        .may_call = pv_quiet_may_call,
        .may_use = pv_quiet_may_use,
        .reserved = pv_quiet_reserved,
        .context_create = pv_quiet_context_create,
        .context_destroy = pv_quiet_context_destroy,
        .attach = pv_quiet_attach,
        .identity = pv_quiet_identity,
        .map = pv_quiet_map,
        .unmap = pv_quiet_unmap,
        .flush = pv_quiet_flush,
        .isolate = pv_quiet_isolate,
        .drop_default = pv_quiet_drop_default,
        .yield = pv_quiet_yield,
        .give_back = pv_quiet_give_back,
        .acknowledged = pv_quiet_acknowledged,
    };
}

#endif
