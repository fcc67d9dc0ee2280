/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A hypervisor for tests: a few VMs, machine pages with reference counts, and a simulated IOMMU
 * whose devices remember every translation that they were given until it is flushed.
 *
 * world_check() judges: the engine's own structures; that references are as many as live and
 * remembered translations, references as a writable page as many as those that allow writing; that
 * no device can reach a free page; that what devices may have written is in the log of what is
 * written. Each operation judges, too: a device's reserved ranges are mapped before it comes to a
 * space and until it has left, once, and nothing else ever is at any frame of them.
 *
 * Every operation of the table counts as a step. The n-th step can fail (`fail_at`, where it may)
 * or call something back (`intrude_at`); `yield_every` says how often a long call is made to yield.
 * What yields is gone on with at once, or after something else (`between`).
 */
#ifndef VIOMMU_PV_TEST_WORLD_H
#define VIOMMU_PV_TEST_WORLD_H

#include "pv/engine.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

#define WORLD_CHECK(condition)                                                                     \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

enum {
    WORLD_VMS = 4,
    WORLD_FRAMES = 1024, /* of a VM; from 512 on one page of order 9 */
    WORLD_POOL = 64,     /* machine pages beyond those that VMs begin with */
    WORLD_MACHINE = WORLD_VMS * WORLD_FRAMES + WORLD_POOL,
    WORLD_DEVICE = 4096, /* device frames of a space that are used */
    WORLD_STALE = 2048,  /* remembered translations of a space */
    WORLD_SPACES = 24,
    WORLD_DEVICES = 32,
    WORLD_DEFAULT = 5,   /* pieces of a VM's default map */
    WORLD_RESERVED = 64, /* a device's reserved range begins here, times its id */
};

struct world_page {
    uint32_t owner;
    unsigned refs;
    unsigned types;
    bool other_type; /* in use as something that is not writable */
    bool free;
    bool logged;   /* as it was looked up last */
    bool unmarked; /* a device may have written what the log does not know of */
    unsigned dirty;
};

struct world_frame {
    int machine; /* -1: nothing there */
    enum viommu_pv_page_state state;
};

struct world_vm {
    bool there;
    struct world_frame frames[WORLD_FRAMES];
    unsigned default_left; /* pieces of the default map */
};

struct world_translation {
    bool there;
    bool logged; /* what is written by it has to be in the log */
    uint8_t order;
    uint8_t perm;
    uint64_t device_frame;
    uint64_t handle;
    unsigned long unmapped; /* the how-manieth to be, where it is remembered */
};

struct world_space {
    bool there;
    bool isolated;
    unsigned devices;
    unsigned identities;
    bool identity[WORLD_DEVICE]; /* the frame is mapped one to one */
    unsigned live_count;
    struct world_translation live[WORLD_DEVICE]; /* at its first device frame */
    struct world_translation stale[WORLD_STALE];
    unsigned stale_count;
};

struct world {
    struct viommu_pv *pv;
    struct world_vm vms[WORLD_VMS];
    struct world_page pages[WORLD_MACHINE];
    struct world_space spaces[WORLD_SPACES];
    struct world_space *device_at[WORLD_DEVICES]; /* by the number of a function */
    uint64_t refuse_call;                         /* bit n: operation n */
    uint64_t refuse_use[WORLD_VMS];               /* bit n: not the pages of VM n */
    uint64_t refuse_write[WORLD_VMS];             /* likewise: not to write them */
    unsigned long steps;
    unsigned long fail_at;
    unsigned long fail_more; /* so many steps after it fail, too */
    bool failed;
    unsigned long intrude_at;
    void (*intrude)(struct world *world);
    bool inside;
    void (*between)(struct world *world); /* when something yields, or waits for others; or NULL */
    unsigned yield_every;                 /* 0: never */
    unsigned long asked;
    bool flush_fails;
    unsigned long flushes;
    unsigned long unmapped;
    unsigned long told; /* give_back */
    unsigned long acknowledged;
    unsigned long prepared;
    uint32_t told_mapper;
    uint64_t told_device_frame;
};

/* One step; true when it is to fail. */
static inline bool world_step(struct world *world)
{
    world->steps++;
    if (world->steps == world->intrude_at && world->intrude && !world->inside) {
        world->inside = true;
        world->intrude(world);
        world->inside = false;
    }
    if (world->fail_at && world->steps >= world->fail_at &&
        world->steps <= world->fail_at + world->fail_more) {
        world->failed = true;
        return true;
    }
    return false;
}

/* Something else may happen now, before what yielded goes on. True, but where this is such. */
static inline bool world_between(struct world *world)
{
    if (world->inside) {
        return false;
    }
    if (world->between) {
        world->inside = true;
        world->between(world);
        world->inside = false;
    }
    return true;
}

/* ---- pages ---- */

static inline int world_lookup(void *opaque, uint32_t vm, uint64_t frame, unsigned order,
                               struct viommu_pv_page *page)
{
    struct world *world = opaque;
    const struct world_frame *at;

    if (world_step(world) || vm >= WORLD_VMS || !world->vms[vm].there ||
        frame + (1u << order) > WORLD_FRAMES || (order && frame != 512)) {
        return -ENOENT;
    }
    at = &world->vms[vm].frames[frame];
    for (unsigned i = 0; i < 1u << order; i++) {
        if (at[i].machine < 0 && at[i].state != VIOMMU_PV_PAGE_ON_DEMAND) {
            return -ENOENT;
        }
        if (order && (at[i].state != at->state || at[i].machine != at->machine + (int)i)) {
            return -ENOENT;
        }
    }
    if (at->machine >= 0) {
        world->pages[at->machine].logged = at->state == VIOMMU_PV_PAGE_DIRTY_LOGGED;
    }
    *page = (struct viommu_pv_page){
        .handle = at->state == VIOMMU_PV_PAGE_MMIO ? WORLD_MACHINE + frame
                  : at->machine < 0                ? 0
                                                   : (uint64_t)at->machine,
        .owner = at->machine < 0 ? vm : world->pages[at->machine].owner,
        .state = at->state,
    };
    return 0;
}

/* A page for a frame that has none. */
static inline int world_free_page(struct world *world, uint32_t vm)
{
    for (unsigned i = WORLD_VMS * WORLD_FRAMES; i < WORLD_MACHINE; i++) {
        if (world->pages[i].free) {
            WORLD_CHECK(world->pages[i].refs == 0);
            world->pages[i] = (struct world_page){.owner = vm};
            return (int)i;
        }
    }
    return -1;
}

static inline int world_prepare(void *opaque, uint32_t vm, uint64_t frame, unsigned order,
                                bool write)
{
    struct world *world = opaque;
    struct world_frame *at = &world->vms[vm].frames[frame];

    (void)order;
    (void)write;
    if (world_step(world)) {
        return -EAGAIN;
    }
    world->prepared++;
    if (at->state == VIOMMU_PV_PAGE_PAGED_OUT) {
        at->state = VIOMMU_PV_PAGE_RAM; /* it is there when one comes again */
        return -EAGAIN;
    }
    if (at->state == VIOMMU_PV_PAGE_ON_DEMAND) {
        if (at->machine < 0) {
            at->machine = world_free_page(world, vm);
        }
        if (at->machine < 0) {
            return -ENOMEM;
        }
    }
    for (unsigned i = 0; i < 1u << order; i++) {
        at[i].state = VIOMMU_PV_PAGE_RAM;
    }
    return 0;
}

static inline int world_get_page(void *opaque, uint32_t vm, uint64_t frame, unsigned order,
                                 uint64_t handle)
{
    struct world *world = opaque;

    if (world_step(world)) {
        return -ENOENT;
    }
    for (unsigned i = 0; i < 1u << order; i++) {
        if (world->vms[vm].frames[frame + i].machine != (int)(handle + i)) {
            return -ENOENT;
        }
    }
    for (unsigned i = 0; i < 1u << order; i++) {
        WORLD_CHECK(!world->pages[handle + i].free);
        world->pages[handle + i].refs++;
    }
    return 0;
}

static inline void world_put_page(void *opaque, unsigned order, uint64_t handle)
{
    struct world *world = opaque;

    (void)world_step(world);
    for (unsigned i = 0; i < 1u << order; i++) {
        WORLD_CHECK(world->pages[handle + i].refs > world->pages[handle + i].types);
        world->pages[handle + i].refs--;
    }
}

static inline int world_get_type(void *opaque, unsigned order, uint64_t handle)
{
    struct world *world = opaque;

    if (world_step(world) || world->pages[handle].other_type) {
        return -EBUSY;
    }
    for (unsigned i = 0; i < 1u << order; i++) {
        WORLD_CHECK(world->pages[handle + i].refs > world->pages[handle + i].types);
        world->pages[handle + i].types++;
    }
    return 0;
}

static inline void world_put_type(void *opaque, unsigned order, uint64_t handle)
{
    struct world *world = opaque;

    (void)world_step(world);
    for (unsigned i = 0; i < 1u << order; i++) {
        WORLD_CHECK(world->pages[handle + i].types > 0);
        world->pages[handle + i].types--;
    }
}

static inline void world_mark_dirty(void *opaque, unsigned order, uint64_t handle)
{
    struct world *world = opaque;

    (void)world_step(world);
    for (unsigned i = 0; i < 1u << order; i++) {
        world->pages[handle + i].dirty++;
        world->pages[handle + i].unmarked = false;
    }
}

/* ---- privileges ---- */

static inline bool world_may_call(void *opaque, uint32_t vm, unsigned operation)
{
    struct world *world = opaque;

    (void)vm;
    (void)world_step(world);
    return !(world->refuse_call >> operation & 1);
}

static inline bool world_may_use(void *opaque, uint32_t vm, uint32_t other, uint32_t perm)
{
    struct world *world = opaque;

    WORLD_CHECK(world->vms[vm].there && vm != other && perm && perm <= 3);
    (void)world_step(world);
    return !(world->refuse_use[vm] >> other & 1) &&
           !((perm & VIOMMU_PV_WRITE) && world->refuse_write[vm] >> other & 1);
}

/* ---- the IOMMU ---- */

/* A device has one range of two frames; a device of an odd id has a second one. Those of several
   VMs, whose ids differ by eight, have the same ranges. */
static inline struct viommu_pv_range world_range_of(uint32_t device, unsigned number)
{
    uint64_t first = (uint64_t)WORLD_RESERVED * (device & 7) + 16 * number;

    return (struct viommu_pv_range){first, first + 1};
}

/* Whether all that a device needs is mapped one to one; without a space it needs nothing. */
static inline bool world_has_ranges(const struct world_space *space, uint32_t device)
{
    for (unsigned i = 0; space && i <= (device & 1); i++) {
        struct viommu_pv_range range = world_range_of(device, i);

        if (!space->identity[range.first] || !space->identity[range.last]) {
            return false;
        }
    }
    return true;
}

static inline int world_reserved(void *opaque, uint32_t vm, uint32_t device,
                                 struct viommu_pv_range *ranges, size_t room, size_t *count)
{
    struct world *world = opaque;

    (void)vm;
    if (world_step(world)) {
        return -ENODEV;
    }
    *count = 1 + (device & 1);
    for (size_t i = 0; i < *count && i < room; i++) {
        ranges[i] = world_range_of(device, (unsigned)(*count - 1 - i)); /* not in order */
    }
    return 0;
}

static inline int world_context_create(void *opaque, uint32_t vm, uint32_t context, void **space)
{
    struct world *world = opaque;

    (void)vm;
    (void)context;
    if (world_step(world)) {
        return -ENOMEM;
    }
    for (unsigned i = 0; i < WORLD_SPACES; i++) {
        if (!world->spaces[i].there) {
            memset(&world->spaces[i], 0, sizeof(world->spaces[i]));
            world->spaces[i].there = true;
            *space = &world->spaces[i];
            return 0;
        }
    }
    return -ENOMEM;
}

static inline void world_context_destroy(void *opaque, void *space)
{
    struct world_space *it = space;

    (void)world_step(opaque);
    WORLD_CHECK(it->live_count == 0 && it->stale_count == 0 && it->devices == 0 &&
                it->identities == 0);
    for (unsigned i = 0; i < WORLD_DEVICE; i++) {
        WORLD_CHECK(!it->live[i].there);
    }
    it->there = false;
}

static inline int world_attach(void *opaque, uint32_t device, void *from, void *to)
{
    struct world *world = opaque;
    struct world_space *old = from;
    struct world_space *now = to;

    if (world_step(world) && now) {
        return -ENODEV;
    }
    WORLD_CHECK(device < WORLD_DEVICES && world->device_at[device] == old);
    world->device_at[device] = now;
    /* Its reserved ranges are there before it is, and as long as it is. */
    WORLD_CHECK(world_has_ranges(now, device) && world_has_ranges(old, device));
    if (old) {
        old->devices--;
    }
    if (now) {
        now->devices++;
    }
    return 0;
}

/* Whether something else is mapped in a range, or may be: a device has it until it is flushed. */
static inline bool world_meets(const struct world_space *space, uint64_t first, uint64_t last)
{
    for (uint64_t at = last + 1 > 512 ? last - 511 : 0; at <= last; at++) {
        if (space->live[at].there && at + (1u << space->live[at].order) > first) {
            return true;
        }
    }
    for (unsigned i = 0; i < space->stale_count; i++) {
        const struct world_translation *at = &space->stale[i];

        if (at->device_frame <= last && at->device_frame + (1u << at->order) > first) {
            return true;
        }
    }
    return false;
}

static inline int world_identity(void *opaque, void *space, uint64_t first, uint64_t last,
                                 bool mapped)
{
    struct world_space *it = space;

    WORLD_CHECK(last == first + 1);
    if (world_step(opaque) && mapped) {
        return -ENOMEM;
    }
    it->identities += mapped ? 1 : -1u;
    for (uint64_t at = first; at <= last; at++) {
        WORLD_CHECK(it->identity[at] == !mapped && !world_meets(it, at, at));
        it->identity[at] = mapped;
    }
    for (unsigned i = 0; i < WORLD_DEVICES; i++) {
        WORLD_CHECK(((struct world *)opaque)->device_at[i] != it || world_has_ranges(it, i));
    }
    return 0;
}

static inline int world_map(void *opaque, void *space, uint64_t device_frame, unsigned order,
                            uint64_t handle, uint32_t perm)
{
    struct world *world = opaque;
    struct world_space *it = space;
    struct world_translation *at = &it->live[device_frame];
    bool logged = handle < WORLD_MACHINE && world->pages[handle].logged && (perm & VIOMMU_PV_WRITE);

    if (world_step(world)) {
        return -ENOMEM;
    }
    WORLD_CHECK(device_frame + (1u << order) <= WORLD_DEVICE && !at->there);
    for (unsigned i = 0; i < 1u << order; i++) {
        WORLD_CHECK(!it->identity[device_frame + i]);
    }
    for (unsigned i = 0; i < it->stale_count; i++) {
        /* What is mapped again was flushed before. */
        WORLD_CHECK(it->stale[i].device_frame + (1u << it->stale[i].order) <= device_frame ||
                    it->stale[i].device_frame >= device_frame + (1u << order));
    }
    it->live_count++;
    *at = (struct world_translation){true,   logged, (uint8_t)order, (uint8_t)perm, device_frame,
                                     handle, 0};
    if (logged) {
        world->pages[handle].unmarked = true;
    }
    return 0;
}

static inline int world_unmap(void *opaque, void *space, uint64_t device_frame, unsigned order)
{
    struct world *world = opaque;
    struct world_space *it = space;
    struct world_translation *at = &it->live[device_frame];
    uint64_t frames = UINT64_C(1) << order;

    if (world_step(world)) {
        return -EIO;
    }
    WORLD_CHECK(at->there && at->order == order && it->stale_count < WORLD_STALE);
    /* Never does more await a flush than the limit, but for a page that is larger, alone. */
    for (unsigned i = 0; i < it->stale_count; i++) {
        frames += UINT64_C(1) << it->stale[i].order;
    }
    WORLD_CHECK(it->stale_count == 0 || frames <= world->pv->config.deferred_max);
    at->unmapped = ++world->unmapped;
    it->stale[it->stale_count++] = *at;
    at->there = false;
    it->live_count--;
    return 0;
}

static inline int world_flush(void *opaque, void *space, uint64_t first, uint64_t last)
{
    struct world *world = opaque;
    struct world_space *it = space;
    unsigned kept = 0;
    unsigned long before = world->unmapped; /* what comes during this step is not flushed */

    world->flushes++;
    if (world_step(world) || world->flush_fails) {
        return -EIO;
    }
    for (unsigned i = 0; i < it->stale_count; i++) {
        const struct world_translation *at = &it->stale[i];

        if (at->unmapped > before || at->device_frame < first ||
            at->device_frame + (1u << at->order) - 1 > last) {
            it->stale[kept++] = *at;
        } else if (at->logged) {
            world->pages[at->handle].unmarked = true;
        }
    }
    it->stale_count = kept;
    return 0;
}

static inline void world_isolate(void *opaque, void *space)
{
    (void)world_step(opaque);
    ((struct world_space *)space)->isolated = true;
}

static inline int world_drop_default(void *opaque, uint32_t vm, void *space, uint64_t *cursor)
{
    struct world *world = opaque;

    (void)space;
    if (world_step(world)) {
        return -EIO;
    }
    /* It goes on where it was. */
    WORLD_CHECK(*cursor + world->vms[vm].default_left == WORLD_DEFAULT);
    if (world->vms[vm].default_left) {
        world->vms[vm].default_left--;
        ++*cursor;
    }
    return world->vms[vm].default_left ? VIOMMU_PENDING : 0;
}

static inline bool world_yield(void *opaque)
{
    struct world *world = opaque;

    (void)world_step(world);
    return world->yield_every && ++world->asked % world->yield_every == 0;
}

static inline void world_give_back(void *opaque, uint32_t mapper, uint32_t context,
                                   uint64_t device_frame, uint32_t vm, uint64_t frame)
{
    struct world *world = opaque;

    (void)context;
    (void)vm;
    (void)frame;
    (void)world_step(world);
    world->told++;
    world->told_mapper = mapper;
    world->told_device_frame = device_frame;
}

static inline void world_acknowledged(void *opaque, uint32_t mapper, uint32_t vm, uint64_t frame,
                                      uint64_t remaining)
{
    struct world *world = opaque;

    (void)mapper;
    (void)vm;
    (void)frame;
    (void)remaining;
    (void)world_step(world);
    world->acknowledged++;
}

static const struct viommu_pv_ops world_ops = {
    .lookup = world_lookup,
    .prepare = world_prepare,
    .get_page = world_get_page,
    .put_page = world_put_page,
    .get_type = world_get_type,
    .put_type = world_put_type,
    .mark_dirty = world_mark_dirty,
    .may_call = world_may_call,
    .may_use = world_may_use,
    .reserved = world_reserved,
    .context_create = world_context_create,
    .context_destroy = world_context_destroy,
    .attach = world_attach,
    .identity = world_identity,
    .map = world_map,
    .unmap = world_unmap,
    .flush = world_flush,
    .isolate = world_isolate,
    .drop_default = world_drop_default,
    .yield = world_yield,
    .give_back = world_give_back,
    .acknowledged = world_acknowledged,
};

/* ---- the world ---- */

static inline int world_add_vm(struct world *world, uint32_t vm, bool empty)
{
    struct world_vm *it = &world->vms[vm];
    int error = viommu_pv_vm_add(world->pv, vm, empty);

    if (error) {
        return error;
    }
    it->there = true;
    it->default_left = empty ? 0 : WORLD_DEFAULT;
    for (unsigned i = 0; i < WORLD_FRAMES; i++) {
        unsigned machine = vm * WORLD_FRAMES + i;

        it->frames[i] = (struct world_frame){.machine = (int)machine};
        world->pages[machine] = (struct world_page){.owner = vm};
    }
    return 0;
}

/* With `settings`, and the table above if there is none in them; VM n is n, with nothing mapped. */
static inline struct world *world_create(const struct viommu_pv_config *settings, unsigned vms)
{
    struct world *world = calloc(1, sizeof(*world));
    struct viommu_pv_config config = *settings;

    WORLD_CHECK(world);
    config.ops = config.ops ? config.ops : &world_ops;
    config.opaque = world;
    config.device_frame_max = WORLD_DEVICE - 1;
    config.frame_max = 2 * WORLD_FRAMES - 1;
    WORLD_CHECK(viommu_pv_create(&config, &world->pv) == 0);
    for (unsigned i = 0; i < WORLD_MACHINE; i++) {
        world->pages[i].free = true;
    }
    for (unsigned i = 0; i < vms; i++) {
        WORLD_CHECK(world_add_vm(world, i, true) == 0);
    }
    return world;
}

/* VM 0 has a page of each state, one of VM 2's, none, and one that is of another type. */
static inline void world_give_states(struct world *world)
{
    struct world_frame *frames = world->vms[0].frames;

    frames[1].state = VIOMMU_PV_PAGE_READ_ONLY;
    frames[2].state = VIOMMU_PV_PAGE_DIRTY_LOGGED;
    frames[3].state = VIOMMU_PV_PAGE_PAGED_OUT;
    frames[4].state = VIOMMU_PV_PAGE_SHARED;
    frames[5] = (struct world_frame){-1, VIOMMU_PV_PAGE_ON_DEMAND};
    frames[6].state = VIOMMU_PV_PAGE_MMIO;
    frames[7].machine = world->vms[2].frames[7].machine; /* VM 2's page */
    frames[8].machine = -1;
    world->pages[frames[9].machine].other_type = true;
}

/* Adds what a translation holds. */
static inline void world_count(const struct world *world, const struct world_translation *at,
                               unsigned *refs, unsigned *types)
{
    for (unsigned i = 0; i < 1u << at->order && at->handle + i < WORLD_MACHINE; i++) {
        refs[at->handle + i]++;
        types[at->handle + i] += (at->perm & VIOMMU_PV_WRITE) != 0;
        WORLD_CHECK(!world->pages[at->handle + i].free);
    }
}

static inline void world_check(struct world *world)
{
    static _Thread_local unsigned refs[WORLD_MACHINE];
    static _Thread_local unsigned types[WORLD_MACHINE];
    const char *wrong = pv_check(world->pv);

    if (wrong) {
        fprintf(stderr, "%s\n", wrong);
        abort();
    }
    memset(refs, 0, sizeof(refs));
    memset(types, 0, sizeof(types));
    for (unsigned s = 0; s < WORLD_SPACES; s++) {
        const struct world_space *space = &world->spaces[s];

        for (unsigned i = 0, seen = 0; space->there && seen < space->live_count; i++) {
            if (space->live[i].there) {
                seen++;
                world_count(world, &space->live[i], refs, types);
            }
        }
        for (unsigned i = 0; space->there && i < space->stale_count; i++) {
            world_count(world, &space->stale[i], refs, types);
        }
    }
    for (unsigned i = 0; i < WORLD_MACHINE; i++) {
        WORLD_CHECK(world->pages[i].refs == refs[i] && world->pages[i].types == types[i]);
        WORLD_CHECK(!world->pages[i].unmarked);
    }
}

/* A VM is gone; its pages are free, and nobody has them as theirs. */
static inline void world_forget_vm(struct world *world, uint32_t vm)
{
    world->vms[vm].there = false;
    for (unsigned v = 0; v < WORLD_VMS; v++) {
        for (unsigned i = 0; i < WORLD_FRAMES; i++) {
            struct world_frame *at = &world->vms[v].frames[i];

            if (v == vm || (at->machine >= 0 && world->pages[at->machine].owner == vm)) {
                *at = (struct world_frame){.machine = -1};
            }
        }
    }
    for (unsigned i = 0; i < WORLD_MACHINE; i++) {
        if (world->pages[i].owner == vm && !world->pages[i].free) {
            WORLD_CHECK(world->pages[i].refs == 0 && world->pages[i].types == 0);
            world->pages[i].free = true;
        }
    }
}

static inline int world_destroy_vm(struct world *world, uint32_t vm)
{
    int error;

    do {
        error = viommu_pv_vm_destroy(world->pv, vm);
    } while (error == VIOMMU_PENDING && world_between(world));
    if (!error) {
        world_forget_vm(world, vm);
    }
    return error;
}

/* All VMs die; then nothing is left. */
static inline void world_end(struct world *world)
{
    world->fail_at = 0;
    world->intrude_at = 0;
    world->between = NULL;
    world->flush_fails = false;
    for (unsigned i = 0; i < WORLD_VMS; i++) {
        int error = world_destroy_vm(world, i);

        WORLD_CHECK(error == 0 || error == -ENOENT);
    }
    world_check(world);
    for (unsigned i = 0; i < WORLD_MACHINE; i++) {
        WORLD_CHECK(world->pages[i].refs == 0);
    }
    for (unsigned i = 0; i < WORLD_SPACES; i++) {
        WORLD_CHECK(!world->spaces[i].there);
    }
    WORLD_CHECK(viommu_pv_destroy(world->pv) == 0);
    free(world);
}

/* A page that is not a VM's any more is free when nobody refers to it. */
static inline bool world_release_frame(struct world *world, uint32_t vm, uint64_t frame)
{
    struct world_frame *at = &world->vms[vm].frames[frame];

    if (at->machine >= 0) {
        if (world->pages[at->machine].refs) {
            return false;
        }
        world->pages[at->machine].free = true;
    }
    *at = (struct world_frame){.machine = -1};
    return true;
}

#endif
