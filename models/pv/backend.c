/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Paravirtual operations: the adapter to the library's backends.
 *
 * A backend is driven through the subscription that it fills in (viommu/notify.h), as a mirror of
 * which the engine's slots are the record: each page is one mapping, made when nothing is there and
 * taken away whole. The library's own backends answer at once. One that answers later
 * (VIOMMU_PENDING) is waited for: of a mapping at once, of an unmapping at the flush, or before the
 * next call, as a mirror has one call outstanding at a time. One that does not answer in time
 * counts as failed: an unmapping's flush fails; for a mapping, which may still come, all is dropped
 * for good.
 *
 * Locking. Callers take turns; the mutex is for the answer, which comes from any thread.
 */
#include <viommu/pv.h>

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"

enum {
    PAGE_BITS = 12,
    TIMEOUT_MS = 10000,
};

struct viommu_pv_backend {
    struct viommu_subscription what;
    uint64_t mappings;
    uint32_t timeout_ms;
    bool unmapping; /* an unmapping's answer has not been looked at */
    pthread_mutex_t lock;
    pthread_cond_t answered;
    /* Under the lock: */
    uint64_t token; /* of the last call */
    bool open;      /* it has not been answered */
    int status;     /* the answer */
    /* Not so: */
    bool failed;  /* an unmapping, and what it was to take away may be there */
    bool dropped; /* all there was, for good: the backend is fenced */
};

static int prepare_waiting(struct viommu_pv_backend *backend)
{
    pthread_condattr_t attributes;
    int error = pthread_condattr_init(&attributes);

    if (error) {
        return error;
    }
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    error = pthread_cond_init(&backend->answered, &attributes);
    pthread_condattr_destroy(&attributes);
    if (!error) {
        error = pthread_mutex_init(&backend->lock, NULL);
        if (error) {
            pthread_cond_destroy(&backend->answered);
        }
    }
    return error;
}

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
    backend->timeout_ms = TIMEOUT_MS;
    if (prepare_waiting(backend)) {
        base_free(backend);
        return -ENOMEM;
    }
    *out = backend;
    return 0;
}

void viommu_pv_backend_destroy(struct viommu_pv_backend *backend)
{
    if (backend) {
        pthread_cond_destroy(&backend->answered);
        pthread_mutex_destroy(&backend->lock);
        base_free(backend);
    }
}

void viommu_pv_backend_set_timeout(struct viommu_pv_backend *backend, uint32_t milliseconds)
{
    backend->timeout_ms = milliseconds;
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

/* ---- answers ---- */

int viommu_pv_backend_complete(struct viommu_pv_backend *backend, uint64_t token, int status)
{
    int error = -ENOENT;

    pthread_mutex_lock(&backend->lock);
    if (backend->open && backend->token == token) {
        backend->open = false;
        backend->status = status > 0 ? -EIO : status;
        pthread_cond_signal(&backend->answered);
        error = 0;
    }
    pthread_mutex_unlock(&backend->lock);
    return error;
}

/* Waits for the answer to the last call; -ETIMEDOUT when none comes. */
static int wait_for_answer(struct viommu_pv_backend *backend)
{
    struct timespec end;
    int error = 0;

    (void)clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += backend->timeout_ms / 1000;
    end.tv_nsec += (long)(backend->timeout_ms % 1000) * 1000000;
    if (end.tv_nsec >= 1000000000) {
        end.tv_sec++;
        end.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&backend->lock);
    while (backend->open && !error) {
        error = pthread_cond_timedwait(&backend->answered, &backend->lock, &end);
    }
    if (backend->open) {
        backend->open = false;
        backend->status = -ETIMEDOUT;
    }
    error = backend->status;
    pthread_mutex_unlock(&backend->lock);
    return error;
}

/* Waits for what is outstanding. */
static void settle(struct viommu_pv_backend *backend)
{
    if (backend->unmapping) {
        backend->unmapping = false;
        backend->failed |= wait_for_answer(backend) != 0;
    }
}

/* Makes a call. Returns its answer, or VIOMMU_PENDING: wait_for_answer() has it. */
static int tell(struct viommu_pv_backend *backend, struct viommu_change *change)
{
    int error;

    pthread_mutex_lock(&backend->lock);
    change->token = ++backend->token;
    backend->open = true; /* the answer may come before the call returns */
    pthread_mutex_unlock(&backend->lock);
    error = backend->what.change(backend->what.opaque, change);
    if (error == VIOMMU_PENDING) {
        return error;
    }
    pthread_mutex_lock(&backend->lock);
    backend->open = false;
    pthread_mutex_unlock(&backend->lock);
    return error > 0 ? -EIO : error;
}

/* ---- calls ---- */

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

    settle(backend);
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
    if (error == VIOMMU_PENDING) {
        error = wait_for_answer(backend);
        if (error == -ETIMEDOUT) {
            backend->failed = true;
            (void)viommu_pv_backend_isolate(backend); /* it may still be made */
            return -EIO;
        }
    }
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
    int error = 0;

    settle(backend);
    if (backend->dropped) {
        return 0;
    }
    error = backend->failed ? -EIO : tell(backend, &change);
    if (error == VIOMMU_PENDING) {
        backend->unmapping = true;
        error = 0;
    }
    if (error) {
        backend->failed = true;
        return error;
    }
    backend->mappings--;
    return 0;
}

int viommu_pv_backend_flush(struct viommu_pv_backend *backend)
{
    settle(backend);
    return backend->failed ? -EIO : 0;
}

int viommu_pv_backend_isolate(struct viommu_pv_backend *backend)
{
    int error;

    settle(backend);
    error = backend->what.fence(backend->what.opaque);
    if (!error) {
        backend->failed = false;
        backend->dropped = true;
        backend->mappings = 0;
    }
    return error;
}
