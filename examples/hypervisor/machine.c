/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The machine's pages, and the operations of the engine's table. See machine.h.
 *
 * Every page is plain RAM that is there, so nothing is ever prepared, logged or MMIO; no VM begins
 * with anything mapped; the device has no reserved ranges. Called by one thread.
 */
#include "machine.h"

#include <errno.h>
#include <stddef.h>

#include "iommu.h"
#include "wire.h"

enum {
    FRAMES = 16, /* of a VM */
};

struct page {
    uint64_t refs;
    uint64_t types; /* of them: as a writable page */
};

static struct page pages[MACHINE_PAGES];
static int64_t frames[VM_COUNT + 1][FRAMES];
static struct machine_events told;
static bool is_careless;

void machine_create(const struct machine_events *events, bool careless)
{
    told = *events;
    is_careless = careless;
    for (unsigned vm = 0; vm <= VM_COUNT; vm++) {
        for (unsigned i = 0; i < FRAMES; i++) {
            frames[vm][i] = -1;
        }
    }
}

void machine_give(uint32_t vm, uint64_t first, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        frames[vm][i] = (int64_t)(first + i);
    }
}

int64_t machine_page(uint32_t vm, uint64_t frame)
{
    return vm <= VM_COUNT && frame < FRAMES ? frames[vm][frame] : -1;
}

bool machine_take(uint32_t vm, uint64_t frame)
{
    int64_t page = machine_page(vm, frame);

    if (page < 0 || pages[page].refs) {
        return false;
    }
    frames[vm][frame] = -1;
    return true;
}

bool machine_is_quiet(void)
{
    for (unsigned i = 0; i < MACHINE_PAGES; i++) {
        if (pages[i].refs || pages[i].types) {
            return false;
        }
    }
    return true;
}

/* ---- pages ---- */

static int op_lookup(void *opaque, uint32_t vm, uint64_t frame, unsigned order,
                     struct viommu_pv_page *page)
{
    int64_t found = machine_page(vm, frame);

    (void)opaque;
    (void)order;
    if (found < 0) {
        return -ENOENT;
    }
    *page = (struct viommu_pv_page){.handle = (uint64_t)found, .owner = vm};
    return 0;
}

static int op_prepare(void *opaque, uint32_t vm, uint64_t frame, unsigned order, bool write)
{
    (void)opaque;
    (void)vm;
    (void)frame;
    (void)order;
    (void)write;
    return -ENOENT;
}

static int op_get_page(void *opaque, uint32_t vm, uint64_t frame, unsigned order, uint64_t handle)
{
    (void)opaque;
    (void)order;
    if (machine_page(vm, frame) != (int64_t)handle) {
        return -ENOENT;
    }
    pages[handle].refs++;
    return 0;
}

static void op_put_page(void *opaque, unsigned order, uint64_t handle)
{
    (void)opaque;
    (void)order;
    pages[handle].refs--;
}

static int op_get_type(void *opaque, unsigned order, uint64_t handle)
{
    (void)opaque;
    (void)order;
    pages[handle].types++;
    return 0;
}

static void op_put_type(void *opaque, unsigned order, uint64_t handle)
{
    (void)opaque;
    (void)order;
    pages[handle].types--;
}

static void op_mark_dirty(void *opaque, unsigned order, uint64_t handle)
{
    (void)opaque;
    (void)order;
    (void)handle;
}

/* ---- privileges: the mapper models a device for the guest, and nobody else does ---- */

static bool op_may_call(void *opaque, uint32_t vm, unsigned operation)
{
    (void)opaque;
    (void)operation;
    return vm == MAPPER;
}

static bool op_may_use(void *opaque, uint32_t vm, uint32_t other, uint32_t perm)
{
    (void)opaque;
    (void)perm;
    return vm == MAPPER && other == GUEST;
}

/* ---- the IOMMU ---- */

static int op_reserved(void *opaque, uint32_t vm, uint32_t device, struct viommu_pv_range *ranges,
                       size_t room, size_t *count)
{
    (void)opaque;
    (void)vm;
    (void)device;
    (void)ranges;
    (void)room;
    *count = 0;
    return 0;
}

static int op_context_create(void *opaque, uint32_t vm, uint32_t context, void **space)
{
    (void)opaque;
    (void)vm;
    (void)context;
    *space = space_create();
    return *space ? 0 : -ENOMEM;
}

static void op_context_destroy(void *opaque, void *space)
{
    (void)opaque;
    space_destroy(space);
}

static int op_attach(void *opaque, uint32_t device, void *from, void *to)
{
    (void)opaque;
    (void)device;
    (void)from;
    return space_attach(to) ? 0 : -ENODEV;
}

static int op_identity(void *opaque, void *space, uint64_t first, uint64_t last, bool mapped)
{
    (void)opaque;
    (void)space;
    (void)first;
    (void)last;
    (void)mapped;
    return -ENOMEM; /* there are no reserved ranges */
}

static int op_map(void *opaque, void *space, uint64_t device_frame, unsigned order, uint64_t handle,
                  uint32_t perm)
{
    (void)opaque;
    (void)order;
    space_map(space, device_frame, handle, perm);
    return 0;
}

static int op_unmap(void *opaque, void *space, uint64_t device_frame, unsigned order)
{
    (void)opaque;
    (void)order;
    space_unmap(space, device_frame);
    return 0;
}

static int op_flush(void *opaque, void *space, uint64_t first, uint64_t last)
{
    (void)opaque;
    (void)first;
    (void)last;
    return is_careless || space_flush(space) ? 0 : -EIO;
}

static void op_isolate(void *opaque, void *space)
{
    (void)opaque;
    (void)space;
    (void)space_attach(NULL); /* there is one device */
}

static int op_drop_default(void *opaque, uint32_t vm, void *space, uint64_t *cursor)
{
    (void)opaque;
    (void)vm;
    (void)space;
    (void)cursor;
    return 0;
}

static bool op_yield(void *opaque)
{
    (void)opaque;
    return false;
}

/* ---- a page is wanted back ---- */

static void op_give_back(void *opaque, uint32_t mapper, uint32_t context, uint64_t device_frame,
                         uint32_t vm, uint64_t frame)
{
    (void)opaque;
    (void)mapper;
    (void)context;
    (void)vm;
    (void)frame;
    told.give_back(device_frame);
}

static void op_acknowledged(void *opaque, uint32_t mapper, uint32_t vm, uint64_t frame,
                            uint64_t remaining)
{
    (void)opaque;
    (void)mapper;
    (void)vm;
    (void)frame;
    (void)remaining;
    told.acknowledged();
}

const struct viommu_pv_ops machine_ops = {
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
