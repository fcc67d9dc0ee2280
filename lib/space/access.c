/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reads and writes: in pieces that go one way each.
 *
 * A piece of RAM is copied inside a section, which keeps the region and what IOMMUs said. A
 * callback runs outside, so that it may take its time: it holds back only who waits for calls. A
 * thread that is in a callback of a region does not enter another of the same region: a device that
 * is made to access its own registers gets an error, instead of running over its own feet. Nor does
 * an access that crossed an IOMMU reach registers of the IOMMU's owner.
 */
#include "space/private.h"
#include "space/space.h"

#include <errno.h>
#include <string.h>

/* One access, and how far it has come. */
struct access {
    struct viommu_space *space;
    uint64_t address;
    char *buf;
    size_t len; /* what is left */
    const struct viommu_bus_attrs *attrs;
    uint32_t need;
    const void *owner;     /* of an IOMMU that it crossed before it came here */
    struct epoch *section; /* the caller's, left with the bus's; or NULL */
};

/* Leaves the section of a piece, and the caller's. */
static void leave(struct access *access)
{
    section_leave(access->space->bus);
    if (access->section) {
        epoch_leave(access->section);
        access->section = NULL;
    }
}

static int refuse_reentry(struct access *access)
{
    atomic_fetch_add_explicit(&access->space->bus->reentries, 1, memory_order_relaxed);
    leave(access);
    return -EDEADLK;
}

static void advance(struct access *access, size_t bytes)
{
    access->address += bytes;
    access->buf += bytes;
    access->len -= bytes;
}

static bool is_plain_size(size_t len)
{
    return len == 1 || len == 2 || len == 4 || len == 8;
}

static void copy(const struct access *access, char *host, size_t bytes)
{
    uint64_t value = 0;

    if (access->need & VIOMMU_WRITE) {
        if (!is_plain_size(bytes)) {
            memcpy(host, access->buf, bytes);
            return;
        }
        memcpy(&value, access->buf, bytes);
        viommu_tlb_store(host, (unsigned)bytes, value);
    } else if (is_plain_size(bytes)) {
        value = viommu_tlb_load(host, (unsigned)bytes);
        memcpy(access->buf, &value, bytes);
    } else {
        memcpy(access->buf, host, bytes);
    }
}

/* Begins a callback of a region that a section holds, and ends the section. */
static int call_begin(struct access *access, struct call *call, const struct viommu_region *region)
{
    unsigned deep = 0;

    for (const struct call *outer = space_thread.calls; outer; outer = outer->outer) {
        if (outer->region == region || ++deep == CALLS_MAX) {
            return refuse_reentry(access);
        }
    }
    /* This thread has a record: it cannot fail. */
    (void)epoch_enter(&access->space->bus->calls);
    leave(access);
    call->region = region;
    call->outer = space_thread.calls;
    space_thread.calls = call;
    return 0;
}

static void call_end(struct viommu_bus *bus, const struct call *call)
{
    space_thread.calls = call->outer;
    epoch_leave(&bus->calls);
}

/* The longest piece that a region takes: a power of two, aligned, not longer than `len`. */
static unsigned register_size(const struct viommu_region *region, uint64_t offset, size_t len)
{
    unsigned size = region->ops->max_size ? region->ops->max_size : 8;

    while (size > len || (offset & (size - 1))) {
        size /= 2;
    }
    return size;
}

/* Whether the access has crossed an IOMMU of this owner. */
static bool crossed(const struct access *access, const struct route *route, const void *owner)
{
    bool ret = access->owner == owner;

    for (unsigned i = 0; i < route->hop_count; i++) {
        ret |= route->hops[i].region->owner == owner;
    }
    return ret;
}

static int access_registers(struct access *access, const struct route *route, size_t *bytes)
{
    const struct viommu_region *region = route->region;
    unsigned size = register_size(region, route->offset, *bytes);
    uint64_t value = 0;
    struct call call;
    int error = region->owner && crossed(access, route, region->owner)
                    ? refuse_reentry(access)
                    : call_begin(access, &call, region);

    if (error) {
        return error;
    }
    *bytes = size;
    if (access->need & VIOMMU_WRITE) {
        memcpy(&value, access->buf, size);
        error = region->ops->write(region->opaque, route->offset, size, access->attrs, value);
    } else {
        error = region->ops->read(region->opaque, route->offset, size, access->attrs, &value);
        if (!error) {
            memcpy(access->buf, &value, size);
        }
    }
    call_end(access->space->bus, &call);
    return error > 0 || error == -EAGAIN ? -EIO : error;
}

/* Tells the IOMMU that did not allow it: it decides what becomes of the access. */
static int access_refused(struct access *access, const struct route *route, size_t bytes)
{
    const struct hop *hop = &route->hops[route->refuser];
    const struct viommu_region *region = hop->region;
    struct call call;
    int error;

    if (!region->iommu->refused) {
        leave(access);
        return -EACCES;
    }
    error = call_begin(access, &call, region);
    if (error) {
        return error;
    }
    error = region->iommu->refused(region->opaque, hop->address, access->need, hop->index,
                                   access->attrs);
    call_end(access->space->bus, &call);
    if (!error && !(access->need & VIOMMU_WRITE)) {
        memset(access->buf, 0, bytes);
    }
    return error > 0 ? -EIO : error;
}

/* One piece; the section is entered and left. *done: what was asked for may be longer. */
static int access_piece(struct access *access, size_t *done)
{
    struct viommu_bus *bus = access->space->bus;
    struct route route;
    size_t bytes;
    int error;

    if (!section_enter(bus)) {
        /* Not with a section of the caller's: the thread has its record. */
        return -ENOMEM;
    }
    error = route_find(bus, access->space, access->address, access->attrs, access->need, NULL,
                       &route);
    bytes = route.after < access->len ? (size_t)route.after + 1 : access->len;
    if (!error && route.refuser >= 0) {
        error = access_refused(access, &route, bytes);
    } else if (!error && route.region && route.region->kind == VIOMMU_REGION_MMIO) {
        error = access_registers(access, &route, &bytes);
    } else {
        if (!error && !route.region) {
            error = -ENXIO;
        } else if (!error && (route.perm & access->need) != access->need) {
            error = -EROFS;
        } else if (!error) {
            copy(access, route.region->host + route.offset, bytes);
        }
        leave(access);
    }
    *done = bytes;
    return error;
}

int space_access(struct viommu_space *space, uint64_t address, void *buf, size_t len,
                 const struct viommu_bus_attrs *attrs, uint32_t need)
{
    struct access access = {
        .space = space, .address = address, .buf = buf, .len = len, .attrs = attrs, .need = need};
    unsigned refusals = 0;
    size_t done;
    int error = 0;

    if (len && len - 1 > UINT64_MAX - address) {
        return -EINVAL;
    }
    while (access.len && !error) {
        error = access_piece(&access, &done);
        if (error == -EAGAIN) {
            error = ++refusals < SPACE_REFUSALS_MAX ? 0 : -EACCES;
        } else if (!error) {
            refusals = 0;
            advance(&access, done);
        }
    }
    bus_settle(space->bus);
    return error;
}

int space_step(struct space_step *step)
{
    struct access access = {
        .space = step->space,
        .address = step->address,
        .buf = step->buf,
        .len = step->len,
        .attrs = &step->attrs,
        .need = step->write ? VIOMMU_WRITE : VIOMMU_READ,
        .owner = step->owner,
        .section = step->section,
    };
    int error = access_piece(&access, &step->len);

    bus_settle(step->space->bus);
    return error;
}

int viommu_space_read(struct viommu_space *space, uint64_t address, void *buf, size_t len,
                      const struct viommu_bus_attrs *attrs)
{
    return space_access(space, address, buf, len, attrs, VIOMMU_READ);
}

int viommu_space_write(struct viommu_space *space, uint64_t address, const void *buf, size_t len,
                       const struct viommu_bus_attrs *attrs)
{
    /* Only read, as no permission but that of writing is asked for. */
    return space_access(space, address, (void *)(uintptr_t)buf, len, attrs, VIOMMU_WRITE);
}
