/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Paravirtual operations: the adapter to the library's backends.
 *
 * A backend is driven through the subscription that it fills in (viommu/notify.h), as a mirror of
 * which the engine's slots are the record: each page is one mapping, made when nothing is there and
 * taken away whole. VFIO, iommufd and traces answer at once. One that answers later
 * (VIOMMU_PENDING: a vfio-user server) is waited for: of a mapping at once, of an unmapping at the
 * flush, or before the next call, as a mirror has one call outstanding at a time. One that does not
 * answer in time counts as failed: an unmapping's flush fails; for a mapping, which may still come,
 * all is dropped for good. So it is when nobody knows what became of a mapping, as the connection
 * is over.
 *
 * A backend that failed, or was isolated, is finished: nothing is mapped with it any more. Until it
 * says that all is dropped every flush fails; each asks again.
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
    PAGE_MASK = (1 << PAGE_BITS) - 1,
    TIMEOUT_MS = 10000,
};

_Static_assert((int)VIOMMU_PV_READ == (int)VIOMMU_READ && (int)VIOMMU_PV_WRITE == (int)VIOMMU_WRITE,
               "permissions are passed on as they come");

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
    bool failed;  /* something may be there that was to go, and has not been dropped */
    bool fenced;  /* it was asked to drop all */
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

    if (what->role == VIOMMU_ROLE_CACHE || what->adopt) {
        return -ENOTSUP;
    }
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

/* ---- what the backend can have ---- */

static size_t allowed_count(const struct viommu_subscription *what)
{
    return what->allowed ? what->allowed_count : 1;
}

/* One of the ranges that the backend can have, sorted; false where nothing is left of it. */
static bool allowed(const struct viommu_subscription *what, size_t number,
                    struct viommu_range *range)
{
    bool whole = what->range.first == 0 && what->range.last == 0;

    *range = what->allowed ? what->allowed[number] : (struct viommu_range){0, UINT64_MAX};
    if (!whole && range->first < what->range.first) {
        range->first = what->range.first;
    }
    if (!whole && range->last > what->range.last) {
        range->last = what->range.last;
    }
    return range->first <= range->last;
}

static bool is_allowed(const struct viommu_subscription *what, const struct viommu_range *range)
{
    struct viommu_range each;

    for (size_t i = 0; i < allowed_count(what); i++) {
        if (allowed(what, i, &each) && range->first >= each.first && range->last <= each.last) {
            return true;
        }
    }
    return false;
}

/* The frames that lie whole in a range; false: none does. */
static bool frames_in(const struct viommu_range *range, struct viommu_pv_range *frames)
{
    uint64_t end = range->last >> PAGE_BITS; /* behind the last one, or it */

    frames->first = (range->first >> PAGE_BITS) + ((range->first & PAGE_MASK) != 0);
    if ((range->last & PAGE_MASK) != PAGE_MASK) {
        if (end == 0) {
            return false;
        }
        end--;
    }
    frames->last = end;
    return frames->first <= frames->last;
}

/* The gaps, with room for `room` of them. */
struct holes {
    struct viommu_pv_range *ranges;
    size_t room;
    size_t count;
};

static void add_hole(struct holes *holes, uint64_t first, uint64_t last)
{
    if (holes->count < holes->room) {
        holes->ranges[holes->count] = (struct viommu_pv_range){first, last};
    }
    holes->count++;
}

void viommu_pv_backend_holes(const struct viommu_pv_backend *backend, uint64_t last,
                             struct viommu_pv_range *ranges, size_t room, size_t *count)
{
    struct holes holes = {ranges, room, 0};
    struct viommu_pv_range frames;
    struct viommu_range each;
    uint64_t next = 0; /* not looked at yet */

    for (size_t i = 0; i < allowed_count(&backend->what) && next <= last; i++) {
        if (!allowed(&backend->what, i, &each) || !frames_in(&each, &frames)) {
            continue;
        }
        if (frames.first > next) {
            add_hole(&holes, next, frames.first - 1 < last ? frames.first - 1 : last);
        }
        next = frames.last + 1; /* far below 2^64 */
    }
    if (next <= last) {
        add_hole(&holes, next, last);
    }
    *count = holes.count;
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

/*
 * Whether something may be there that was to go. One that was asked to drop all, and could not say
 * that it had, is asked again.
 */
static bool has_failed(struct viommu_pv_backend *backend)
{
    settle(backend);
    if (backend->fenced) {
        (void)viommu_pv_backend_isolate(backend);
    }
    return backend->failed;
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
        return -EADDRNOTAVAIL;
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
        if (error == -ETIMEDOUT || error == -EIO) {
            (void)viommu_pv_backend_isolate(backend); /* it may be there, or still be made */
            return -EIO;
        }
    }
    backend->mappings += error == 0;
    return error == -EIO ? -ENOMEM : error; /* a refusal; of -EIO the engine would think more */
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
    bool failed = has_failed(backend);
    int error;

    if (backend->dropped) {
        return 0;
    }
    error = failed ? -EIO : tell(backend, &change);
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
    return has_failed(backend) ? -EIO : 0;
}

void viommu_pv_backend_gone(struct viommu_pv_backend *backend)
{
    pthread_mutex_lock(&backend->lock);
    backend->open = false;
    pthread_mutex_unlock(&backend->lock);
    backend->unmapping = false;
    backend->failed = false;
    backend->dropped = true;
    backend->mappings = 0;
}

int viommu_pv_backend_isolate(struct viommu_pv_backend *backend)
{
    int error;

    settle(backend);
    if (backend->dropped) {
        return 0;
    }
    backend->failed = true;
    backend->fenced = true;
    error = backend->what.fence(backend->what.opaque);
    if (!error) {
        viommu_pv_backend_gone(backend);
    }
    return error;
}
