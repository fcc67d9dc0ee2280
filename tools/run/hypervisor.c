/* SPDX-License-Identifier: BSD-2-Clause */
/* A simulated hypervisor for scenarios. See hypervisor.h. */
#include "hypervisor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "run.h"

enum {
    IDENTITY = 1 << 30, /* the handle of a frame that is mapped one to one, without the frame */
};

/* ---- pages ---- */

static struct hypervisor_frame *frame_of(struct hypervisor *hypervisor, uint32_t vm, uint64_t frame)
{
    return &hypervisor->vms[vm].frames[frame];
}

static int op_lookup(void *opaque, uint32_t vm, uint64_t frame, unsigned order,
                     struct viommu_pv_page *page)
{
    struct hypervisor *hypervisor = opaque;
    uint64_t count = UINT64_C(1) << order;
    const struct hypervisor_frame *at;

    if (vm >= HYPERVISOR_VMS || !hypervisor->vms[vm].there || frame >= HYPERVISOR_FRAMES ||
        count > HYPERVISOR_FRAMES - frame) {
        return -ENOENT;
    }
    at = frame_of(hypervisor, vm, frame);
    for (uint64_t i = 0; i < count; i++) {
        if ((!at[i].page && at[i].state != VIOMMU_PV_PAGE_ON_DEMAND) || at[i].state != at->state ||
            (i && at[i].page != at->page + i)) {
            return -ENOENT;
        }
    }
    *page = (struct viommu_pv_page){
        .handle = at->page ? (uint64_t)(at->page - hypervisor->pages) : 0,
        .owner = at->page ? at->page->owner : vm,
        .state = at->state,
    };
    return 0;
}

static int op_prepare(void *opaque, uint32_t vm, uint64_t frame, unsigned order, bool write)
{
    struct hypervisor *hypervisor = opaque;
    struct hypervisor_frame *at = frame_of(hypervisor, vm, frame);
    bool paged_out = at->state == VIOMMU_PV_PAGE_PAGED_OUT;

    (void)write;
    hypervisor->prepared++;
    for (uint64_t i = 0; i < UINT64_C(1) << order; i++) {
        if (!at[i].page) {
            at[i].page = &hypervisor->pages[vm * HYPERVISOR_FRAMES + frame + i];
            *at[i].page = (struct hypervisor_page){.owner = vm};
        }
        at[i].state = VIOMMU_PV_PAGE_RAM;
    }
    return paged_out ? -EAGAIN : 0; /* it is there when one comes again */
}

static int op_get_page(void *opaque, uint32_t vm, uint64_t frame, unsigned order, uint64_t handle)
{
    struct hypervisor *hypervisor = opaque;

    if (frame_of(hypervisor, vm, frame)->page != &hypervisor->pages[handle]) {
        return -ENOENT;
    }
    for (uint64_t i = 0; i < UINT64_C(1) << order; i++) {
        hypervisor->pages[handle + i].refs++;
    }
    return 0;
}

static void op_put_page(void *opaque, unsigned order, uint64_t handle)
{
    for (uint64_t i = 0; i < UINT64_C(1) << order; i++) {
        ((struct hypervisor *)opaque)->pages[handle + i].refs--;
    }
}

static int op_get_type(void *opaque, unsigned order, uint64_t handle)
{
    struct hypervisor_page *page = &((struct hypervisor *)opaque)->pages[handle];

    for (uint64_t i = 0; i < UINT64_C(1) << order; i++) {
        if (page[i].typed) {
            return -EBUSY;
        }
    }
    for (uint64_t i = 0; i < UINT64_C(1) << order; i++) {
        page[i].types++;
    }
    return 0;
}

static void op_put_type(void *opaque, unsigned order, uint64_t handle)
{
    for (uint64_t i = 0; i < UINT64_C(1) << order; i++) {
        ((struct hypervisor *)opaque)->pages[handle + i].types--;
    }
}

static void op_mark_dirty(void *opaque, unsigned order, uint64_t handle)
{
    for (uint64_t i = 0; i < UINT64_C(1) << order; i++) {
        ((struct hypervisor *)opaque)->pages[handle + i].dirty++;
    }
}

/* ---- privileges ---- */

static bool op_may_call(void *opaque, uint32_t vm, unsigned operation)
{
    (void)vm;
    return !(((struct hypervisor *)opaque)->refused_calls >> operation & 1);
}

static bool op_may_use(void *opaque, uint32_t vm, uint32_t other, uint32_t perm)
{
    (void)perm;
    return !(((struct hypervisor *)opaque)->vms[vm].refused >> other & 1);
}

/* ---- devices and spaces ---- */

struct hypervisor_device *hypervisor_device(struct hypervisor *hypervisor, uint32_t vm, uint32_t id)
{
    for (unsigned i = 0; i < HYPERVISOR_DEVICES; i++) {
        struct hypervisor_device *device = &hypervisor->devices[i];

        if (device->there && device->vm == vm && device->id == id) {
            return device;
        }
    }
    return NULL;
}

struct hypervisor_device *hypervisor_device_add(struct hypervisor *hypervisor, uint32_t vm,
                                                uint32_t id)
{
    for (unsigned i = 0; i < HYPERVISOR_DEVICES; i++) {
        struct hypervisor_device *device = &hypervisor->devices[i];

        if (!device->there) {
            *device = (struct hypervisor_device){.there = true, .vm = vm, .id = id};
            return device;
        }
    }
    return NULL;
}

static int op_reserved(void *opaque, uint32_t vm, uint32_t id, struct viommu_pv_range *ranges,
                       size_t room, size_t *count)
{
    const struct hypervisor_device *device = hypervisor_device(opaque, vm, id);

    if (!device) {
        return -ENODEV;
    }
    for (size_t i = 0; i < device->reserved_count && i < room; i++) {
        ranges[i] = device->reserved[i];
    }
    *count = device->reserved_count;
    return 0;
}

static int op_context_create(void *opaque, uint32_t vm, uint32_t context, void **space)
{
    (void)opaque;
    (void)vm;
    (void)context;
    *space = run_alloc(sizeof(struct hypervisor_space));
    return 0;
}

static void remove_translation(struct hypervisor_translation **at)
{
    struct hypervisor_translation *translation = *at;

    *at = translation->next;
    free(translation);
}

static void op_context_destroy(void *opaque, void *opaque_space)
{
    struct hypervisor_space *space = opaque_space;

    (void)opaque;
    while (space->translations) {
        remove_translation(&space->translations);
    }
    free(space);
}

const struct hypervisor_translation *hypervisor_translate(const struct hypervisor_device *device,
                                                          uint64_t device_frame)
{
    const struct hypervisor_translation *found = NULL;

    if (!device->space || device->space->isolated) {
        return NULL;
    }
    for (const struct hypervisor_translation *at = device->space->translations; at; at = at->next) {
        if (device_frame - at->device_frame < UINT64_C(1) << at->order &&
            (!found || found->stale)) {
            found = at;
        }
    }
    return found;
}

/* Whether a device's reserved ranges lead where they should. */
static bool is_bare(const struct hypervisor_device *device)
{
    for (size_t i = 0; i < device->reserved_count; i++) {
        const struct hypervisor_translation *at =
            hypervisor_translate(device, device->reserved[i].first);

        if (!at || at->stale || at->handle != IDENTITY + device->reserved[i].first) {
            return true;
        }
    }
    return false;
}

static int op_attach(void *opaque, uint32_t id, void *from, void *to)
{
    struct hypervisor *hypervisor = opaque;

    if (hypervisor->attach_fails && to) {
        return -ENODEV;
    }
    for (unsigned i = 0; i < HYPERVISOR_DEVICES; i++) {
        struct hypervisor_device *device = &hypervisor->devices[i];

        /* A new device is in no space yet, as is one of another VM with the same id: by turns. */
        if (device->there && device->id == id && device->space == from) {
            hypervisor->bare |= from && is_bare(device);
            device->space = to;
            if (to) {
                device->space->isolated = false;
            }
            hypervisor->bare |= to && is_bare(device);
            return 0;
        }
    }
    return -ENODEV;
}

static void add_translation(struct hypervisor_space *space,
                            const struct hypervisor_translation *translation)
{
    struct hypervisor_translation *copy = run_alloc(sizeof(*copy));

    *copy = *translation;
    copy->next = space->translations;
    space->translations = copy;
}

static struct hypervisor_translation *find_live(const struct hypervisor_space *space,
                                                uint64_t device_frame)
{
    struct hypervisor_translation *at = space->translations;

    while (at && (at->stale || at->device_frame != device_frame)) {
        at = at->next;
    }
    return at;
}

static int op_identity(void *opaque, void *space, uint64_t first, uint64_t last, bool mapped)
{
    (void)opaque;
    for (uint64_t frame = first; frame <= last; frame++) {
        if (mapped) {
            add_translation(space, &(struct hypervisor_translation){.device_frame = frame,
                                                                    .handle = IDENTITY + frame,
                                                                    .perm = 3});
        } else {
            find_live(space, frame)->stale = true;
        }
    }
    return 0;
}

static int op_map(void *opaque, void *space, uint64_t device_frame, unsigned order, uint64_t handle,
                  uint32_t perm)
{
    if (((struct hypervisor *)opaque)->map_fails) {
        return -ENOMEM;
    }
    add_translation(
        space, &(struct hypervisor_translation){
                   .device_frame = device_frame, .order = order, .handle = handle, .perm = perm});
    return 0;
}

static int op_unmap(void *opaque, void *space, uint64_t device_frame, unsigned order)
{
    (void)opaque;
    (void)order;
    find_live(space, device_frame)->stale = true;
    return 0;
}

static int op_flush(void *opaque, void *opaque_space, uint64_t first, uint64_t last)
{
    struct hypervisor *hypervisor = opaque;
    struct hypervisor_space *space = opaque_space;

    hypervisor->flushes++;
    if (hypervisor->flush_fails) {
        return -EIO;
    }
    for (struct hypervisor_translation **at = &space->translations; *at;) {
        if ((*at)->stale && (*at)->device_frame <= last &&
            (*at)->device_frame + (UINT64_C(1) << (*at)->order) > first) {
            remove_translation(at);
        } else {
            at = &(*at)->next;
        }
    }
    return 0;
}

static void op_isolate(void *opaque, void *space)
{
    (void)opaque;
    ((struct hypervisor_space *)space)->isolated = true;
}

static int op_drop_default(void *opaque, uint32_t vm, void *space, uint64_t *cursor)
{
    struct hypervisor_vm *it = &((struct hypervisor *)opaque)->vms[vm];

    (void)space;
    if (it->default_left) {
        it->default_left--;
        ++*cursor;
    }
    return it->default_left ? VIOMMU_PENDING : 0;
}

static bool op_yield(void *opaque)
{
    struct hypervisor *hypervisor = opaque;

    return hypervisor->yield_every && ++hypervisor->yield_asked % hypervisor->yield_every == 0;
}

static void op_give_back(void *opaque, uint32_t mapper, uint32_t context, uint64_t device_frame,
                         uint32_t vm, uint64_t frame)
{
    struct hypervisor_asked **end = &((struct hypervisor *)opaque)->asked;

    while (*end) {
        end = &(*end)->next;
    }
    *end = run_alloc(sizeof(**end));
    **end = (struct hypervisor_asked){.mapper = mapper,
                                      .context = context,
                                      .device_frame = device_frame,
                                      .vm = vm,
                                      .frame = frame};
}

static void op_acknowledged(void *opaque, uint32_t mapper, uint32_t vm, uint64_t frame,
                            uint64_t remaining)
{
    (void)mapper;
    (void)vm;
    (void)frame;
    (void)remaining;
    ((struct hypervisor *)opaque)->acknowledged++;
}

const struct viommu_pv_ops hypervisor_ops = {
    .lookup = op_lookup,
    .prepare = op_prepare,
    .get_page = op_get_page,
    .put_page = op_put_page,
    .get_type = op_get_type,
    .put_type = op_put_type,
    .mark_dirty = op_mark_dirty,
    .may_call = op_may_call,
    .may_use = op_may_use,
    .reserved = op_reserved,
    .context_create = op_context_create,
    .context_destroy = op_context_destroy,
    .attach = op_attach,
    .identity = op_identity,
    .map = op_map,
    .unmap = op_unmap,
    .flush = op_flush,
    .isolate = op_isolate,
    .drop_default = op_drop_default,
    .yield = op_yield,
    .give_back = op_give_back,
    .acknowledged = op_acknowledged,
};

/* ---- VMs ---- */

void hypervisor_vm_begin(struct hypervisor *hypervisor, uint32_t vm, uint64_t default_pieces)
{
    struct hypervisor_vm *it = &hypervisor->vms[vm];

    memset(it, 0, sizeof(*it));
    it->there = true;
    it->default_left = default_pieces;
    for (unsigned i = 0; i < HYPERVISOR_FRAMES; i++) {
        it->frames[i].page = &hypervisor->pages[vm * HYPERVISOR_FRAMES + i];
        *it->frames[i].page = (struct hypervisor_page){.owner = vm};
    }
}

void hypervisor_vm_end(struct hypervisor *hypervisor, uint32_t vm)
{
    hypervisor->vms[vm].there = false;
    for (unsigned v = 0; v < HYPERVISOR_VMS; v++) {
        for (unsigned i = 0; i < HYPERVISOR_FRAMES; i++) {
            struct hypervisor_frame *at = &hypervisor->vms[v].frames[i];

            if (at->page && at->page->owner == vm) {
                *at = (struct hypervisor_frame){.page = NULL};
            }
        }
    }
    for (unsigned i = 0; i < HYPERVISOR_DEVICES; i++) {
        if (hypervisor->devices[i].vm == vm) {
            hypervisor->devices[i].there = false;
        }
    }
}

struct hypervisor_asked *hypervisor_asked_take(struct hypervisor *hypervisor)
{
    struct hypervisor_asked *asked = hypervisor->asked;

    if (asked) {
        hypervisor->asked = asked->next;
    }
    return asked;
}
