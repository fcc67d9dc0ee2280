/* SPDX-License-Identifier: BSD-2-Clause */
/* Calls of the VMs of test_world.h, whole: made, gone on with, and their answers looked at. */
#ifndef VIOMMU_PV_TEST_CALLS_H
#define VIOMMU_PV_TEST_CALLS_H

#include "pv/test_world.h"

/* Makes a call and goes on with it until it is answered; returns its status. */
static inline uint32_t world_call(struct world *world, uint32_t vm, const void *in, size_t in_size,
                                  void *out, size_t out_size)
{
    struct viommu_pv_call *rest = NULL;
    size_t written = 0;
    int ret = viommu_pv_call(world->pv, vm, in, in_size, out, out_size, &written,
                             world->yield_every ? &rest : NULL);

    while (ret == VIOMMU_PENDING) {
        (void)world_between(world);
        ret = viommu_pv_resume(world->pv, rest, out, out_size, &written);
    }
    WORLD_CHECK(ret == 0 || ret == -ENOENT);
    WORLD_CHECK(ret || written >= sizeof(struct viommu_pv_answer));
    return ret ? VIOMMU_PV_ESHUTDOWN : ((struct viommu_pv_answer *)out)->status;
}

#define WORLD_HEAD(op, type)                                                                       \
    {                                                                                              \
        .version = VIOMMU_PV_VERSION, .operation = (op), .size = sizeof(type)                      \
    }

static inline uint32_t world_enable(struct world *world, uint32_t vm)
{
    struct viommu_pv_head in = WORLD_HEAD(VIOMMU_PV_ENABLE, struct viommu_pv_head);
    struct viommu_pv_answer out;

    return world_call(world, vm, &in, sizeof(in), &out, sizeof(out));
}

static inline uint32_t world_alloc(struct world *world, uint32_t vm, uint32_t *context)
{
    struct viommu_pv_alloc_call in = {
        .head = WORLD_HEAD(VIOMMU_PV_CONTEXT_ALLOC, struct viommu_pv_alloc_call)};
    struct viommu_pv_alloc out = {.context = 0};
    uint32_t status = world_call(world, vm, &in, sizeof(in), &out, sizeof(out));

    *context = out.context;
    return status;
}

static inline uint32_t world_free(struct world *world, uint32_t vm, uint32_t context)
{
    struct viommu_pv_free_call in = {
        .head = WORLD_HEAD(VIOMMU_PV_CONTEXT_FREE, struct viommu_pv_free_call), .context = context};
    struct viommu_pv_answer out;

    return world_call(world, vm, &in, sizeof(in), &out, sizeof(out));
}

static inline uint32_t world_move(struct world *world, uint32_t vm, uint32_t device,
                                  uint32_t context)
{
    struct viommu_pv_attach_call in = {
        .head = WORLD_HEAD(VIOMMU_PV_ATTACH, struct viommu_pv_attach_call),
        .device = device,
        .context = context};
    struct viommu_pv_answer out;

    return world_call(world, vm, &in, sizeof(in), &out, sizeof(out));
}

/* What map and unmap are about. */
struct world_range {
    uint32_t context;
    uint32_t of; /* whose frames */
    uint64_t frame;
    uint64_t device_frame;
    uint64_t count;
    uint32_t order;
    uint32_t perm; /* of map */
    uint32_t flags;
};

static inline uint32_t world_ranged(struct world *world, uint32_t vm, unsigned operation,
                                    const struct world_range *range,
                                    struct viommu_pv_answer *answer)
{
    struct viommu_pv_map_call in = {
        .head = WORLD_HEAD((uint16_t)operation, struct viommu_pv_map_call),
        .context = range->context,
        .vm = range->of,
        .frame = range->frame,
        .device_frame = range->device_frame,
        .count = range->count,
        .order = range->order,
        .perm = operation == VIOMMU_PV_MAP ? range->perm : 0,
        .flags = range->flags,
    };
    struct viommu_pv_answer out = {.done = 0};
    uint32_t status = world_call(world, vm, &in, sizeof(in), &out, sizeof(out));

    if (answer) {
        *answer = out;
    }
    return status;
}

static inline uint32_t world_do_map(struct world *world, uint32_t vm, struct world_range range)
{
    return world_ranged(world, vm, VIOMMU_PV_MAP, &range, NULL);
}

static inline uint32_t world_do_unmap(struct world *world, uint32_t vm, struct world_range range)
{
    return world_ranged(world, vm, VIOMMU_PV_UNMAP, &range, NULL);
}

static inline uint32_t world_do_flush(struct world *world, uint32_t vm, uint32_t context)
{
    struct viommu_pv_flush_call in = {.head =
                                          WORLD_HEAD(VIOMMU_PV_FLUSH, struct viommu_pv_flush_call),
                                      .context = context,
                                      .flags = VIOMMU_PV_WHOLE};
    struct viommu_pv_answer out;

    return world_call(world, vm, &in, sizeof(in), &out, sizeof(out));
}

static inline struct viommu_pv_vm_status world_status(struct world *world, uint32_t vm)
{
    struct viommu_pv_vm_status status = {0};

    (void)viommu_pv_vm_status(world->pv, vm, &status, sizeof(status));
    return status;
}

#endif
