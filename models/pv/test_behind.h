/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The world of test_world.h, some of whose spaces have a backend of the library behind them, by the
 * adapter: what the backend has done the world does, too, and judges.
 *
 * A test program has one such world. The next context that comes takes `next`, if that is a
 * subscription. The pages of the machine lie in a file, one behind the other.
 */
#ifndef VIOMMU_PV_TEST_BEHIND_H
#define VIOMMU_PV_TEST_BEHIND_H

#include "pv/test_calls.h"

#include <sys/mman.h>
#include <unistd.h>

static struct {
    struct world *world;
    struct viommu_subscription next; /* of the next context; `change` NULL: none */
    struct viommu_pv_backend *backends[WORLD_SPACES];
    bool tells_holes; /* devices say where nothing can be mapped, and nothing else */
    struct viommu_pv_ops ops;
    uint8_t *host;
    int fd;
} behind;

static inline struct viommu_pv_backend **behind_backend(void *space)
{
    return &behind.backends[(struct world_space *)space - behind.world->spaces];
}

static inline int behind_context_create(void *opaque, uint32_t vm, uint32_t context, void **space)
{
    int error;

    behind.world = opaque;
    error = world_context_create(opaque, vm, context, space);
    if (!error && behind.next.change) {
        WORLD_CHECK(viommu_pv_backend_create(&behind.next, behind_backend(*space)) == 0);
        behind.next.change = NULL;
    }
    return error;
}

static inline void behind_context_destroy(void *opaque, void *space)
{
    viommu_pv_backend_destroy(*behind_backend(space));
    *behind_backend(space) = NULL;
    world_context_destroy(opaque, space);
}

static inline int behind_map(void *opaque, void *space, uint64_t device_frame, unsigned order,
                             uint64_t handle, uint32_t perm)
{
    const struct viommu_pv_memory memory = {
        .host = behind.host + (handle << 12),
        .fd = behind.fd,
        .fd_offset = handle << 12,
        .gpa = handle << 12,
    };
    struct viommu_pv_backend *backend = *behind_backend(space);
    int error = backend ? viommu_pv_backend_map(backend, device_frame, order, &memory, perm) : 0;

    if (error && error != -EIO) {
        return error;
    }
    /* It may be mapped: what is remembered is the worst. */
    return world_map(opaque, space, device_frame, order, handle, perm) ? -ENOMEM : error;
}

static inline int behind_unmap(void *opaque, void *space, uint64_t device_frame, unsigned order)
{
    struct viommu_pv_backend *backend = *behind_backend(space);
    int error = backend ? viommu_pv_backend_unmap(backend, device_frame, order) : 0;

    return error ? error : world_unmap(opaque, space, device_frame, order);
}

static inline int behind_flush(void *opaque, void *space, uint64_t first, uint64_t last)
{
    struct viommu_pv_backend *backend = *behind_backend(space);
    int error = backend ? viommu_pv_backend_flush(backend) : 0;

    return error ? error : world_flush(opaque, space, first, last);
}

static inline void behind_isolate(void *opaque, void *space)
{
    if (*behind_backend(space)) {
        (void)viommu_pv_backend_isolate(*behind_backend(space));
    }
    world_isolate(opaque, space);
}

/* Of the first space that has a backend, where a device's are asked for. */
static inline int behind_reserved(void *opaque, uint32_t vm, uint32_t device,
                                  struct viommu_pv_range *ranges, size_t room, size_t *count)
{
    if (!behind.tells_holes) {
        return world_reserved(opaque, vm, device, ranges, room, count);
    }
    viommu_pv_backend_holes(behind.backends[0], WORLD_DEVICE - 1, ranges, room, count);
    return 0;
}

static inline int behind_identity(void *opaque, void *space, uint64_t first, uint64_t last,
                                  bool mapped)
{
    return behind.tells_holes ? 0 : world_identity(opaque, space, first, last, mapped);
}

static inline int behind_attach(void *opaque, uint32_t device, void *from, void *to)
{
    return behind.tells_holes ? 0 : world_attach(opaque, device, from, to);
}

/* VM 0, enabled, has a context of that subscription, and VM 1 another, of none. */
static inline struct world *behind_create(const struct viommu_subscription *what,
                                          const struct viommu_pv_config *settings)
{
    struct viommu_pv_config config = *settings;
    struct world *world;

    memset(&behind, 0, sizeof(behind));
    behind.next = *what;
    behind.ops = world_ops;
    behind.ops.context_create = behind_context_create;
    behind.ops.context_destroy = behind_context_destroy;
    behind.ops.map = behind_map;
    behind.ops.unmap = behind_unmap;
    behind.ops.flush = behind_flush;
    behind.ops.isolate = behind_isolate;
    behind.ops.reserved = behind_reserved;
    behind.ops.identity = behind_identity;
    behind.ops.attach = behind_attach;
    behind.fd = memfd_create("machine", MFD_CLOEXEC);
    WORLD_CHECK(behind.fd >= 0 && ftruncate(behind.fd, (off_t)WORLD_MACHINE << 12) == 0);
    behind.host =
        mmap(NULL, (size_t)WORLD_MACHINE << 12, PROT_READ | PROT_WRITE, MAP_SHARED, behind.fd, 0);
    WORLD_CHECK(behind.host != MAP_FAILED);
    config.ops = &behind.ops;
    world = world_create(&config, 2);
    WORLD_CHECK(world_enable(world, 0) == VIOMMU_PV_OK && world_enable(world, 1) == VIOMMU_PV_OK);
    return world;
}

static inline void behind_end(struct world *world)
{
    world_end(world);
    WORLD_CHECK(munmap(behind.host, (size_t)WORLD_MACHINE << 12) == 0 && close(behind.fd) == 0);
}

/* Pages of VM 0, in context 0. */
static inline uint32_t behind_do_map(struct world *world, uint64_t frame, uint64_t device_frame,
                                     uint64_t count)
{
    return world_do_map(world, 0, (struct world_range){0, 0, frame, device_frame, count, 0, 3, 0});
}

static inline uint32_t behind_do_unmap(struct world *world, uint64_t frame, uint64_t device_frame,
                                       uint64_t count, uint32_t flags)
{
    return world_do_unmap(world, 0,
                          (struct world_range){0, 0, frame, device_frame, count, 0, 0, flags});
}

#endif
