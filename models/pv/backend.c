/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Paravirtual operations: the adapter to the library's backends.
 *
 * A backend is driven through the subscription that it fills in (viommu/notify.h), as a mirror of
 * which the engine's slots are the record: each page is one mapping, made when nothing is there and
 * taken away whole. Backends complete an unmapping before they return, so there is nothing to
 * flush; one that answers later (VIOMMU_PENDING) cannot be driven so, and is treated as having
 * failed.
 */
#include <viommu/pv.h>

#include <errno.h>
#include <string.h>

#include "base/alloc.h"

enum {
    PAGE_BITS = 12,
};

struct viommu_pv_backend {
    struct viommu_subscription what;
    uint64_t mappings;
    bool failed;  /* an unmapping, and what it was to take away may be there */
    bool dropped; /* all there was, for good: the backend is fenced */
};

int viommu_pv_backend_create(const struct viommu_subscription *what, struct viommu_pv_backend **out)
{
    const uint32_t kinds = VIOMMU_CHANGE_MAP | VIOMMU_CHANGE_UNMAP;
    struct viommu_pv_backend *backend;

    if (what->role != VIOMMU_ROLE_MIRROR || (what->kinds & kinds) != kinds || !what->change ||
        !what->fence) {
        return -EINVAL;
    }
    if (what->page_sizes && !(what->page_sizes >> PAGE_BITS & 1)) {
        return -ENOTSUP;
    }
    backend = base_alloc(sizeof(*backend));
    if (!backend) {
        return -ENOMEM;
    }
    backend->what = *what;
    *out = backend;
    return 0;
}

void viommu_pv_backend_destroy(struct viommu_pv_backend *backend)
{
    base_free(backend);
}

static struct viommu_range range_of(uint64_t device_frame, unsigned order)
{
    struct viommu_range range = {.first = device_frame << PAGE_BITS};

    range.last = range.first + ((UINT64_C(1) << (order + PAGE_BITS)) - 1);
    return range;
}

/* Whether the range is one that the backend can have. */
static bool is_allowed(const struct viommu_subscription *what, const struct viommu_range *range)
{
    bool whole = what->range.first == 0 && what->range.last == 0;

    if (!whole && (range->first < what->range.first || range->last > what->range.last)) {
        return false;
    }
    for (size_t i = 0; what->allowed && i < what->allowed_count; i++) {
        if (range->first >= what->allowed[i].first && range->last <= what->allowed[i].last) {
            return true;
        }
    }
    return !what->allowed;
}

/* A change, done; VIOMMU_PENDING is none. */
static int tell(struct viommu_pv_backend *backend, const struct viommu_change *change)
{
    int error = backend->what.change(backend->what.opaque, change);

    return error > 0 ? -EIO : error;
}

int viommu_pv_backend_map(struct viommu_pv_backend *backend, uint64_t device_frame, unsigned order,
                          const struct viommu_pv_memory *memory, uint32_t perm)
{
    struct viommu_range range = range_of(device_frame, order);
    struct viommu_change change = {
        .kind = VIOMMU_CHANGE_MAP,
        .first = range.first,
        .last = range.last,
        .perm = perm,
        .gpa = memory->gpa,
        .host = memory->host,
        .fd = memory->fd,
        .fd_offset = memory->fd_offset,
    };
    int error;

    if (backend->dropped || backend->failed) {
        return -EIO;
    }
    if (!is_allowed(&backend->what, &range)) {
        return -ERANGE;
    }
    if (backend->what.form == VIOMMU_FORM_POW2 && (memory->gpa & (range.last - range.first))) {
        return -ERANGE; /* blocks are aligned in their target, too */
    }
    if (backend->what.mappings_max && backend->mappings >= backend->what.mappings_max) {
        return -ENOMEM;
    }
    error = tell(backend, &change);
    backend->mappings += error == 0;
    return error;
}

int viommu_pv_backend_unmap(struct viommu_pv_backend *backend, uint64_t device_frame,
                            unsigned order)
{
    struct viommu_range range = range_of(device_frame, order);
    struct viommu_change change = {
        .kind = VIOMMU_CHANGE_UNMAP,
        .first = range.first,
        .last = range.last,
        .fd = -1,
    };
    int error = backend->dropped ? 0 : tell(backend, &change);

    if (error) {
        backend->failed = true;
        return error;
    }
    backend->mappings -= !backend->dropped;
    return 0;
}

int viommu_pv_backend_flush(struct viommu_pv_backend *backend)
{
    return backend->failed ? -EIO : 0;
}

int viommu_pv_backend_isolate(struct viommu_pv_backend *backend)
{
    int error = backend->what.fence(backend->what.opaque);

    if (!error) {
        backend->failed = false;
        backend->dropped = true;
        backend->mappings = 0;
    }
    return error;
}
