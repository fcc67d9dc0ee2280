/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Random operations on the world of test_world.h, eight bytes each: calls of VMs, and what a
 * hypervisor does. Each returns a number that is made of all its answers, so that two worlds can be
 * compared.
 */
#ifndef VIOMMU_PV_TEST_RANDOM_H
#define VIOMMU_PV_TEST_RANDOM_H

#include "pv/test_calls.h"

enum {
    RANDOM_CONTEXTS = 3,
    RANDOM_DEVICES = 4,
};

static inline uint64_t random_mix(uint64_t sum, uint64_t value)
{
    return (sum ^ value) * UINT64_C(0x9e3779b97f4a7c15) + (sum >> 7);
}

static inline uint64_t random_answer(uint64_t sum, const struct viommu_pv_answer *answer)
{
    return random_mix(random_mix(random_mix(sum, answer->status), answer->done), answer->stopped);
}

/* A range of map or unmap; a narrow choice of numbers, so that they meet often. */
static inline struct world_range random_range(const uint8_t *bytes)
{
    struct world_range range = {
        .context = bytes[1] >> 6 == 3 ? 7 : bytes[1] >> 6,
        .of = bytes[1] & 8 ? VIOMMU_PV_SELF : bytes[1] >> 4 & 3,
        .frame = bytes[2] & 31,
        .device_frame = (bytes[3] & 31) + (bytes[3] & 64 ? 50 : 0),
        .count = 1,
        .perm = (bytes[4] & 3) ? (bytes[4] & 3) : 1,
        .flags = bytes[4] >> 2 & 1,
    };

    if (bytes[5] < 40) {
        range.order = 9;
        range.frame = 512;
        range.device_frame = 512 * (1 + (bytes[3] & 3));
    } else if (bytes[5] < 120) {
        range.count = 1 + bytes[6] % 40;
    } else if (bytes[5] < 150) {
        range.count = 60 + bytes[6]; /* more than are done at a time */
    }
    return range;
}

static inline uint64_t random_foreign(struct world *world, uint32_t vm, const uint8_t *bytes)
{
    struct {
        struct viommu_pv_foreign_call call;
        uint64_t frames[16];
    } in = {.call = {.context = bytes[1] & 3,
                     .vm = bytes[2] & 3,
                     .device_frame_max = bytes[3] & 1 ? 40 : WORLD_DEVICE - 1,
                     .perm = 1 + (bytes[4] & 1),
                     .count = 1 + (bytes[5] & 15)}};
    struct {
        struct viommu_pv_answer answer;
        struct viommu_pv_item items[16];
    } out = {.answer = {.status = 0}};
    uint64_t sum = 0;

    in.call.head =
        (struct viommu_pv_head){VIOMMU_PV_VERSION, VIOMMU_PV_MAP_FOREIGN,
                                (uint32_t)(sizeof(in.call) + in.call.count * sizeof(uint64_t))};
    for (unsigned i = 0; i < in.call.count; i++) {
        in.frames[i] = (bytes[6] + i * bytes[7]) & 63;
    }
    (void)world_call(world, vm, &in, sizeof(in), &out, sizeof(out));
    sum = random_answer(sum, &out.answer);
    for (unsigned i = 0; i < in.call.count && out.answer.size > sizeof(out.answer); i++) {
        sum = random_mix(random_mix(sum, out.items[i].status), out.items[i].device_frame);
    }
    return sum;
}

static inline uint64_t random_find(struct world *world, uint32_t vm, const uint8_t *bytes)
{
    struct viommu_pv_find_call in = {.head = WORLD_HEAD(VIOMMU_PV_FIND, struct viommu_pv_find_call),
                                     .vm = bytes[2] & 3,
                                     .frame = bytes[3]};
    struct viommu_pv_lookup_call look = {
        .head = WORLD_HEAD(VIOMMU_PV_LOOKUP, struct viommu_pv_lookup_call),
        .context = bytes[4] & 3,
        .device_frame = bytes[5]};
    struct viommu_pv_acknowledge_call told = {
        .head = WORLD_HEAD(VIOMMU_PV_ACKNOWLEDGE, struct viommu_pv_acknowledge_call),
        .vm = bytes[2] & 3,
        .frame = bytes[3] & 31};
    struct viommu_pv_find out = {.count = 0};
    struct viommu_pv_lookup found = {.frame = 0};
    struct viommu_pv_acknowledged acknowledged = {.remaining = 0};
    uint64_t sum;

    (void)world_call(world, vm, &in, sizeof(in), &out, sizeof(out));
    (void)world_call(world, vm, &look, sizeof(look), &found, sizeof(found));
    (void)world_call(world, vm, &told, sizeof(told), &acknowledged, sizeof(acknowledged));
    sum = random_mix(random_answer(0, &acknowledged.answer), acknowledged.remaining);
    sum = random_mix(random_answer(sum, &out.answer), out.count);
    sum = random_mix(random_mix(sum, found.frame), found.answer.status);
    return random_mix(random_mix(sum, found.vm), found.perm);
}

/* The hypervisor gives a frame another state, where nothing refers to its page. */
static inline void random_state(struct world *world, uint32_t vm, const uint8_t *bytes)
{
    struct world_frame *at = &world->vms[vm].frames[bytes[2] & 31];
    enum viommu_pv_page_state state = bytes[3] % 7;
    uint32_t other = bytes[4] & 3;
    int machine;

    if (!world->vms[vm].there || (at->machine >= 0 && world->pages[at->machine].refs)) {
        return;
    }
    if (state == VIOMMU_PV_PAGE_MMIO && world_status(world, vm).mapped) {
        return; /* a mapping of MMIO holds no reference: ask all */
    }
    if (bytes[5] < 60 && other != vm && world->vms[other].there && at->machine < 0) {
        machine = world->vms[other].frames[bytes[6] & 31].machine;
        if (machine >= 0) {
            *at = (struct world_frame){.machine = machine};
        }
        return;
    }
    at->state = state;
    if (at->machine >= 0) {
        world->pages[at->machine].other_type = bytes[5] > 240;
    } else if (state != VIOMMU_PV_PAGE_ON_DEMAND) {
        at->machine = world_free_page(world, vm);
    }
}

static inline bool random_owned(const struct world *world, uint32_t vm, uint64_t frame)
{
    int machine = world->vms[vm].frames[frame].machine;

    return machine >= 0 && world->pages[machine].owner == vm;
}

/* A page goes: asked for, taken by force if need be, and reused when nobody refers to it. */
static inline uint64_t random_remove(struct world *world, uint32_t vm, const uint8_t *bytes)
{
    uint64_t frame = bytes[2] & 31;
    uint64_t sum = 0;
    int ret = viommu_pv_page_remove(world->pv, vm, frame);
    bool given = bytes[3] & 1;

    sum = random_mix(sum, (uint64_t)ret);
    if (ret != VIOMMU_PENDING && ret != 0) {
        return sum;
    }
    if (!given) {
        do {
            ret = viommu_pv_page_revoke(world->pv, vm, frame);
        } while (ret == VIOMMU_PENDING && world_between(world));
        sum = random_mix(sum, (uint64_t)ret);
    }
    if (ret == 0 && random_owned(world, vm, frame) &&
        world->pages[world->vms[vm].frames[frame].machine].refs == 0) {
        /* Others that have it as theirs lose it, too. */
        for (unsigned v = 0; v < WORLD_VMS; v++) {
            for (unsigned i = 0; i < WORLD_FRAMES; i++) {
                if (v != vm &&
                    world->vms[v].frames[i].machine == world->vms[vm].frames[frame].machine) {
                    world->vms[v].frames[i] = (struct world_frame){.machine = -1};
                }
            }
        }
        sum = random_mix(sum, world_release_frame(world, vm, frame));
    }
    if (bytes[4] & 1) {
        (void)viommu_pv_page_settle(world->pv, vm, frame);
    }
    return sum;
}

static inline uint64_t random_hypervisor(struct world *world, uint32_t vm, const uint8_t *bytes)
{
    /* A device with two functions, or (odd) one of them alone. */
    uint32_t device = bytes[2] % RANDOM_DEVICES + 8 * vm;
    const uint32_t functions[] = {device, device + RANDOM_DEVICES};
    uint64_t ret = 0;

    switch (bytes[0] >> 4 & 7) {
    case 0:
        if (bytes[7] < 60) {
            ret = (uint64_t)world_destroy_vm(world, vm);
        }
        return ret;
    case 1:
        ret = (uint64_t)world_add_vm(world, vm, bytes[2] & 1);
        return random_mix(ret, world_enable(world, vm));
    case 2:
        return (uint64_t)viommu_pv_device_add_functions(world->pv, vm, functions,
                                                        bytes[3] & 1 ? 1 : 2);
    case 3:
        return (uint64_t)(bytes[7] < 60 ? viommu_pv_device_remove(world->pv, vm, device) : 0);
    case 4:
        return random_remove(world, vm, bytes);
    case 5:
        (void)viommu_pv_page_settle(world->pv, vm, bytes[2] & 31);
        return 0;
    case 6:
        world->refuse_use[vm] = bytes[2] < 30 ? bytes[3] & 15 : 0;
        return 0;
    default:
        random_state(world, vm, bytes);
        return 0;
    }
}

/* One operation. */
static inline uint64_t random_operate(struct world *world, const uint8_t *bytes)
{
    uint32_t vm = bytes[7] & 3;
    struct world_range range = random_range(bytes);
    struct viommu_pv_answer answer = {.done = 0};
    uint32_t context = 0;
    uint64_t sum = 0;

    switch (bytes[0] % 16) {
    case 0:
    case 1:
    case 2:
    case 3:
    case 4:
        (void)world_ranged(world, vm, VIOMMU_PV_MAP, &range, &answer);
        return random_answer(0, &answer);
    case 5:
    case 6:
    case 7:
        (void)world_ranged(world, vm, VIOMMU_PV_UNMAP, &range, &answer);
        return random_answer(0, &answer);
    case 8:
        return world_do_flush(world, vm, bytes[1] & 3);
    case 9:
        sum = world_alloc(world, vm, &context);
        return random_mix(sum, context);
    case 10:
        return world_free(world, vm, bytes[1] & 3);
    case 11:
        return world_move(world, vm, (bytes[1] & 7) + 8 * vm, bytes[2] & 3);
    case 12:
        return random_foreign(world, vm, bytes);
    case 13:
        return random_find(world, vm, bytes);
    default:
        return random_hypervisor(world, vm, bytes);
    }
}

/* Something else, in the middle of a step, or between two: nothing can be waited for. */
static inline void random_in_the_middle(struct world *world, const uint8_t *bytes)
{
    uint32_t vm = bytes[1] & 3;
    uint64_t frame = bytes[2] & 31;
    uint32_t device = bytes[2] % RANDOM_DEVICES + 8 * vm;
    unsigned yield_every = world->yield_every;
    struct world_range range = random_range(bytes);
    uint32_t context;

    world->yield_every = 0;
    switch (bytes[0] & 15) {
    case 0:
        if (viommu_pv_vm_destroy(world->pv, vm) == 0) {
            world_forget_vm(world, vm);
        }
        break;
    case 1:
        (void)viommu_pv_page_remove(world->pv, vm, frame);
        (void)viommu_pv_page_revoke(world->pv, vm, frame);
        break;
    case 2:
        (void)world_ranged(world, vm, VIOMMU_PV_MAP, &range, NULL);
        break;
    case 3:
        (void)world_ranged(world, vm, VIOMMU_PV_UNMAP, &range, NULL);
        break;
    case 4:
        (void)world_do_flush(world, vm, bytes[3] & 3);
        break;
    case 5:
        (void)world_free(world, vm, bytes[3] & 3);
        break;
    case 6:
        (void)world_move(world, vm, (bytes[2] & 7) + 8 * vm, bytes[3] & 3);
        break;
    case 7:
        (void)world_enable(world, vm);
        break;
    case 8:
        (void)viommu_pv_page_remove(world->pv, vm, frame);
        break;
    case 9:
        (void)viommu_pv_page_settle(world->pv, vm, frame);
        break;
    case 10:
        (void)random_foreign(world, vm, bytes);
        break;
    case 11:
        (void)random_find(world, vm, bytes);
        break;
    case 12:
        (void)viommu_pv_device_add(world->pv, vm, device);
        break;
    case 13:
        (void)viommu_pv_device_remove(world->pv, vm, device);
        break;
    case 14:
        (void)world_alloc(world, vm, &context);
        break;
    default:
        (void)world_add_vm(world, vm, bytes[3] & 1);
        break;
    }
    world->yield_every = yield_every;
}

#endif
