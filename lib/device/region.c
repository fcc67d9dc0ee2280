/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A device as an IOMMU region of a bus; an instance's registers as a region.
 *
 * Translating is a quiet request: it records nothing. What it does not allow, and is really wanted,
 * is asked for again aloud: then the model records the fault.
 *
 * Why no old translation is used after an invalidation. An access translates inside a section of
 * its bus, and a CPU caches inside one. The model takes the old away and waits for the sections of
 * its memory's epoch, in which each look at the tables is made; then it tells the region's
 * subscriber, which asks CPUs to drop what crossed the addresses, and begins a drain of the bus.
 * Who has found the old did so inside a section that began before that drain. The invalidation
 * completes when the drain is over; viommu_process() looks (notify/notify.h, follower).
 *
 * Locking. `device` becomes NULL, once, when the region is given back: who is in a section or in a
 * callback of the region goes on with the one that he read.
 */
#include "device/dma.h"
#include "space/space.h"

#include "base/alloc.h"

#include <viommu/device_region.h>

struct device_region {
    struct notify_follower follower; /* first */
    _Atomic(struct viommu_device *) device;
    struct viommu_bus *bus;
    struct viommu_space *space;
    struct viommu_region *region;
    struct viommu_subscriber *subscriber;
};

/* ---- translation ---- */

/* Whether the tables allow something. A model may answer by the permission that is asked for. */
static bool look(struct viommu_device *device, uint64_t address, struct viommu_translation *out)
{
    static const uint32_t perms[] = {0, VIOMMU_READ, VIOMMU_WRITE};
    struct dma_request request;
    int ret = -EFAULT;

    for (unsigned i = 0; i < 3 && ret == -EFAULT; i++) {
        ret = dma_request_init(&request, device, NULL, address, perms[i]);
        request.quiet = true;
        if (!ret) {
            ret = dma_translate(&request, out);
        }
    }
    return !ret;
}

static unsigned on_index(void *opaque, const struct viommu_bus_attrs *attrs)
{
    (void)opaque;
    (void)attrs;
    return 0;
}

static void on_translate(void *opaque, uint64_t address, unsigned index, struct viommu_hop *hop)
{
    struct device_region *self = opaque;
    struct viommu_device *device = atomic_load_explicit(&self->device, memory_order_acquire);
    struct viommu_translation translation;
    bool found;

    (void)index;
    hop->page = 4096;
    /* Inside a section of the bus: the thread has its record. */
    if (!device || !epoch_enter(device->iommu->epoch)) {
        return;
    }
    found = look(device, address, &translation);
    epoch_leave(device->iommu->epoch);
    if (found) {
        hop->space = self->space;
        hop->address = translation.gpa;
        hop->page = translation.mask + 1;
        hop->perm = translation.perm;
    }
}

/* A request that is made to be refused. 0: it is not. In a section. */
static int ask_aloud(struct viommu_device *device, uint64_t address, uint32_t perm)
{
    struct viommu_translation translation;
    struct dma_request request;
    int ret = dma_request_init(&request, device, NULL, address, perm);

    if (ret) {
        return ret;
    }
    ret = dma_translate(&request, &translation);
    if (!ret && translation.interrupt && (perm & VIOMMU_READ)) {
        device->iommu->model->refuse_interrupt(device->iommu, &request);
        ret = -EFAULT;
    }
    return ret == -EAGAIN ? -EIO : ret;
}

static int on_refused(void *opaque, uint64_t address, uint32_t perm, unsigned index,
                      const struct viommu_bus_attrs *attrs)
{
    struct device_region *self = opaque;
    struct viommu_device *device = atomic_load_explicit(&self->device, memory_order_acquire);
    int ret;

    /* To a device's IOMMU a fetch is a read: asked for without one, any permission would do. */
    if (perm & VIOMMU_EXEC) {
        perm |= VIOMMU_READ;
    }
    (void)index;
    (void)attrs;
    if (!device || !epoch_enter(device->iommu->epoch)) {
        return -EIO;
    }
    ret = ask_aloud(device, address, perm & (VIOMMU_READ | VIOMMU_WRITE));
    epoch_leave(device->iommu->epoch);
    return ret ? ret : -EAGAIN;
}

static const struct viommu_region_iommu_ops region_ops = {
    .index_count = 1,
    .index_of = on_index,
    .translate = on_translate,
    .refused = on_refused,
};

/* ---- changes ---- */

static int on_change(void *opaque, const struct viommu_change *change)
{
    struct device_region *self = opaque;

    viommu_region_iommu_changed(self->region, 0, change->first, change->last);
    self->follower.target = bus_drain_begin(self->bus);
    return bus_drained(self->bus, self->follower.target) ? 0 : VIOMMU_PENDING;
}

static bool on_over(struct notify_follower *follower, uint64_t target)
{
    return bus_drained(((struct device_region *)follower)->bus, target);
}

static void on_drop(struct notify_follower *follower)
{
    viommu_region_iommu_changed(((struct device_region *)follower)->region, 0, 0, UINT64_MAX);
}

/* ---- life ---- */

static void on_released(void *opaque)
{
    base_free(opaque);
}

static int make_region(struct device_region *self, const char *name)
{
    struct viommu_region_config config = {
        .name = name,
        .kind = VIOMMU_REGION_IOMMU,
        .last = UINT64_MAX,
        .iommu = &region_ops,
        .opaque = self,
        .released = on_released,
        .owner = atomic_load(&self->device)->iommu,
    };

    return viommu_region_create(self->bus, &config, &self->region);
}

static int subscribe(struct device_region *self)
{
    struct viommu_subscription what = {
        .kinds = VIOMMU_CHANGE_UNMAP,
        .form = VIOMMU_FORM_RANGE,
        .role = VIOMMU_ROLE_CACHE,
        .change = on_change,
        .opaque = self,
    };

    return notify_follow(atomic_load(&self->device), &what, &self->follower, &self->subscriber);
}

int viommu_device_region_create(struct viommu_device *device, struct viommu_bus *bus,
                                const char *name, struct viommu_space *space,
                                struct viommu_region **out)
{
    struct device_region *self;
    int ret;

    if (!space || space_bus(space) != bus) {
        return -EINVAL;
    }
    self = base_alloc(sizeof(*self));
    if (!self) {
        return -ENOMEM;
    }
    self->follower = (struct notify_follower){.over = on_over, .drop = on_drop};
    atomic_init(&self->device, device);
    self->bus = bus;
    self->space = space;
    ret = make_region(self, name);
    if (ret) {
        base_free(self);
        return ret;
    }
    ret = subscribe(self);
    if (ret) {
        viommu_region_destroy(self->region); /* which frees the rest */
        return ret;
    }
    *out = self->region;
    return 0;
}

int viommu_device_region_destroy(struct viommu_region *region)
{
    struct device_region *self;

    if (!region) {
        return 0;
    }
    self = region_opaque(region);
    if (iommu_reentered(atomic_load(&self->device)->iommu) || !bus_may_wait()) {
        return -EDEADLK;
    }
    atomic_store(&self->device, NULL);
    on_drop(&self->follower);
    (void)viommu_bus_wait(self->bus);
    /* Only now: invalidations do not wait for it any more. */
    (void)viommu_subscriber_destroy(self->subscriber);
    viommu_region_destroy(region);
    return 0;
}

/* ---- registers ---- */

static int on_read(void *opaque, uint64_t offset, unsigned size,
                   const struct viommu_bus_attrs *attrs, uint64_t *value)
{
    (void)attrs;
    return viommu_mmio_read(opaque, offset, size, value);
}

static int on_write(void *opaque, uint64_t offset, unsigned size,
                    const struct viommu_bus_attrs *attrs, uint64_t value)
{
    (void)attrs;
    return viommu_mmio_write(opaque, offset, size, value);
}

static const struct viommu_region_ops registers_ops = {.read = on_read, .write = on_write};

int viommu_registers_region_create(struct viommu *iommu, struct viommu_bus *bus, const char *name,
                                   uint64_t size, struct viommu_region **out)
{
    struct viommu_region_config config = {
        .name = name,
        .kind = VIOMMU_REGION_MMIO,
        .last = size - 1,
        .ops = &registers_ops,
        .opaque = iommu,
        .owner = iommu,
    };

    return size ? viommu_region_create(bus, &config, out) : -EINVAL;
}
