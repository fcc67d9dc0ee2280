/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What takes something away, and when that is complete.
 *
 * What is cached goes at once, at the start. Then: the requests of devices that began before have
 * to end (they may use what they found); then subscribers that cache are told, and pinned windows
 * asked back; when all have answered, requests that were under way with what those had cached have
 * to end, too. Mirrors follow meanwhile, and must have.
 */
#include "base/alloc.h"
#include "virtio/unit.h"

static const struct viommu_range everything = {0, UINT64_MAX};

struct virtio_operation *virtio_operation_new(struct virtio *virtio)
{
    if (virtio->ready_used) {
        return base_alloc(sizeof(struct virtio_operation));
    }
    virtio->ready_used = true;
    virtio->ready = (struct virtio_operation){0};
    return &virtio->ready;
}

void virtio_operation_free(struct virtio *virtio, struct virtio_operation *operation)
{
    if (operation == &virtio->ready) {
        virtio->ready_used = false;
    } else {
        base_free(operation);
    }
}

/* Says whom it concerns: subscribers that are told, and windows. Then it waits. */
static void begin(struct virtio *virtio, struct virtio_operation *operation, notify_match *match,
                  const void *what, const struct window_concern *concern)
{
    struct viommu_change change = {
        .kind = VIOMMU_CHANGE_UNMAP, .first = concern->first, .last = concern->last};

    operation->phase = PHASE_DRAIN;
    notify_hold(&virtio->iommu, &operation->wait);
    notify_post(&virtio->iommu, &change, match, what, &operation->wait);
    windows_concern(&operation->wait.windows, concern);
    wait_drain(&virtio->iommu, &operation->wait);
}

struct attached {
    const struct virtio *virtio;
    const struct virtio_domain *domain;
};

static bool is_attached(const struct requester *requester, const void *what)
{
    const struct attached *attached = what;

    return virtio_endpoint_domain(attached->virtio, requester->id) == attached->domain;
}

bool virtio_pages_at_once(struct virtio *virtio, struct virtio_domain *domain, uint64_t first,
                          uint64_t last)
{
    struct viommu *iommu = &virtio->iommu;
    uint64_t drain;

    if (virtio->first || iommu->followed) {
        return false;
    }
    (void)iotlb_drop_range(&iommu->iotlb, virtio_number(domain), first, last);
    drain = epoch_begin_drain(iommu->epoch);
    iommu->stats.drains++;
    if (!epoch_drained(iommu->epoch, drain)) {
        return false;
    }
    /* Nobody looks into what was taken out before. */
    range_map_trim(&domain->mappings.map);
    if (!windows_none(&iommu->windows)) {
        return false;
    }
    iommu->stats.iotlb_invalidations[2]++;
    return true;
}

void virtio_operation_pages(struct virtio *virtio, struct virtio_operation *operation,
                            struct virtio_domain *domain, uint64_t first, uint64_t last)
{
    struct attached attached = {virtio, domain};
    struct window_concern concern = {
        .first = first, .last = last, .domain = virtio_number(domain)};

    /* Nothing is cached late (unit.h): once is enough. */
    (void)iotlb_drop_range(&virtio->iommu.iotlb, virtio_number(domain), first, last);
    begin(virtio, operation, is_attached, &attached, &concern);
    operation->domain = domain->id;
    operation->serial = domain->serial;
    operation->tried = atomic_load_explicit(&domain->mappings.tried, memory_order_relaxed);
    operation->drain = operation->wait.drain;
    domain->drain = operation->drain;
    virtio->iommu.stats.iotlb_invalidations[2]++;
}

/* Its next request finds out what it reaches. */
static void forget(struct virtio *virtio, struct requester *requester)
{
    requester_forget(&virtio->iommu, requester);
    requester->forgotten = false;
}

static bool has_id(const struct requester *requester, const void *what)
{
    return requester->id == *(const uint16_t *)what;
}

void virtio_operation_endpoint(struct virtio *virtio, struct virtio_operation *operation,
                               struct requester *requester)
{
    struct window_concern concern = {
        .last = UINT64_MAX,
        .domain = WINDOW_DOMAIN_ANY,
        .id = requester->id,
        .compared = UINT16_MAX,
    };

    forget(virtio, requester);
    begin(virtio, operation, has_id, &requester->id, &concern);
    follow_review(&virtio->iommu, &operation->wait, has_id, &requester->id, VIOMMU_CAUSE_CONTEXT);
    virtio->iommu.stats.context_invalidations[2]++;
}

static bool is_anyone(const struct requester *requester, const void *what)
{
    (void)requester;
    (void)what;
    return true;
}

void virtio_operation_everyone(struct virtio *virtio, struct virtio_operation *operation)
{
    struct window_concern concern = {
        .first = everything.first, .last = everything.last, .domain = WINDOW_DOMAIN_ANY};

    requesters_forget(&virtio->iommu, 0, 0);
    requesters_told(&virtio->iommu);
    begin(virtio, operation, is_anyone, NULL, &concern);
    follow_review(&virtio->iommu, &operation->wait, NULL, NULL, VIOMMU_CAUSE_CONTEXT);
    virtio->iommu.stats.context_invalidations[0]++;
}

/* ---- what no request asked for ---- */

/* Who is told. */
static bool is_unasked(const struct requester *requester, const void *what)
{
    const struct virtio *virtio = what;
    const struct virtio_domain *domain = virtio_endpoint_domain(virtio, requester->id);

    return (virtio->unasked.bypass && !domain) ||
           (virtio->unasked.closed && virtio_reaches_all(virtio, domain));
}

/*
 * Those whose endpoint has gone are not told (the device was removed, or whoever gave it another id
 * sees to it): only windows of theirs are asked back, of every domain: it may be gone, too. Those
 * that lead where they led stay.
 */
static void unasked_begin(struct virtio *virtio)
{
    struct virtio_unasked *unasked = &virtio->unasked;
    struct attached nowhere = {virtio, NULL};
    bool any = unasked->gone || unasked->closed;
    struct window_concern concern = {
        .last = UINT64_MAX, .domain = any ? WINDOW_DOMAIN_ANY : WINDOW_DOMAIN_NONE};

    begin(virtio, &unasked->operation, is_unasked, virtio, &concern);
    if (any && notify_has_mirrors(&virtio->iommu)) {
        /* One that has another id now, or may map less. */
        follow_join(&virtio->iommu, &unasked->operation.wait);
    }
    if (unasked->bypass) {
        follow_review(&virtio->iommu, &unasked->operation.wait, is_attached, &nowhere,
                      VIOMMU_CAUSE_CONTEXT);
    }
    unasked->bypass = false;
    unasked->gone = false;
    unasked->closed = false;
}

/* More came meanwhile: those who asked for the old after the first time hear of it, too. */
static void unasked_once_more(struct virtio *virtio)
{
    virtio->unasked.again = false;
    virtio->unasked.operation.wait = (struct wait){0};
    unasked_begin(virtio);
}

static void unasked_came(struct virtio *virtio)
{
    struct virtio_unasked *unasked = &virtio->unasked;

    if (!unasked->active) {
        unasked->operation = (struct virtio_operation){0};
        unasked->active = true;
        unasked_begin(virtio);
        virtio_operation_append(virtio, &unasked->operation);
    } else if (unasked->operation.phase == PHASE_DONE) {
        unasked_once_more(virtio); /* it waits for its turn only */
    } else {
        unasked->again = true; /* begun anew when this is over */
    }
    iommu_kick(&virtio->iommu);
}

void virtio_bypass_changed(struct virtio *virtio)
{
    /* What is cached goes now. Those that are attached find out again what they know already. */
    requesters_forget(&virtio->iommu, 0, 0);
    requesters_told(&virtio->iommu);
    virtio->iommu.stats.context_invalidations[0]++;
    virtio->unasked.bypass = true;
    unasked_came(virtio);
}

void virtio_endpoint_gone(struct virtio *virtio)
{
    virtio->unasked.gone = true;
    unasked_came(virtio);
}

void virtio_bypass_closed(struct virtio *virtio)
{
    virtio->unasked.closed = true;
    unasked_came(virtio);
}

/* ---- progress ---- */

/*
 * Its first drain is over: what was kept of the mappings that it took out goes, unless more went
 * meanwhile, which has a drain of its own. Where mirrors try changes nothing is kept from now on.
 */
static void trim(struct virtio *virtio, struct virtio_operation *operation)
{
    struct virtio_domain *domain =
        operation->serial ? virtio_index_find(&virtio->domains, operation->domain) : NULL;

    if (domain && domain->serial == operation->serial) {
        if (operation->tried) {
            range_map_release(&domain->mappings.map);
        } else if (domain->drain == operation->drain) {
            range_map_trim(&domain->mappings.map);
        }
    }
    operation->serial = 0;
}

/* The requests that it waited for have ended: what is next? */
static enum virtio_phase after_drain(struct virtio *virtio, struct virtio_operation *operation)
{
    struct wait *wait = &operation->wait;
    bool windows;

    if (operation->phase == PHASE_SETTLE) {
        return PHASE_FOLLOW;
    }
    trim(virtio, operation);
    notify_release(&virtio->iommu, wait);
    windows = windows_ask(&virtio->iommu, &wait->windows, wait->drain);
    return wait->told || windows ? PHASE_TELL : PHASE_FOLLOW;
}

static bool is_told(const struct virtio_operation *operation)
{
    return operation->wait.deliveries || windows_stands(&operation->wait.windows);
}

/* Whether it goes on by itself: not when it waits for its turn, or for mirrors. */
static bool is_running(const struct virtio *virtio, const struct virtio_operation *operation)
{
    switch (operation->phase) {
    case PHASE_DRAIN:
    case PHASE_TELL:
    case PHASE_SETTLE:
        return true;
    case PHASE_FOLLOW:
        return follow_done(&virtio->iommu, &operation->wait);
    default:
        return false;
    }
}

/* Returns whether the phase moved. */
static bool advance(struct virtio *virtio, struct virtio_operation *operation)
{
    struct wait *wait = &operation->wait;

    if (!is_running(virtio, operation) || !wait_drained(&virtio->iommu, wait) ||
        windows_spent(&virtio->iommu)) {
        return false;
    }
    if (operation->phase == PHASE_FOLLOW) {
        operation->phase = PHASE_DONE;
    } else if (operation->phase != PHASE_TELL) {
        operation->phase = after_drain(virtio, operation);
    } else {
        (void)windows_over(&wait->windows);
        if (is_told(operation)) {
            return false;
        }
        if (wait->told) {
            wait_drain(&virtio->iommu, wait);
            operation->phase = PHASE_SETTLE;
        } else {
            operation->phase = PHASE_FOLLOW; /* windows only: nobody uses one that is released */
        }
    }
    if (operation->phase == PHASE_DONE && operation == &virtio->unasked.operation &&
        virtio->unasked.again) {
        unasked_once_more(virtio);
    }
    return true;
}

bool virtio_operation_complete(struct virtio *virtio, struct virtio_operation *operation)
{
    while (advance(virtio, operation)) {
        /* one phase after the other */
    }
    return operation->phase == PHASE_DONE;
}

static void advance_all(struct virtio *virtio)
{
    bool moved;

    do {
        moved = false;
        for (struct virtio_operation *o = virtio->first; o; o = o->next) {
            moved |= advance(virtio, o);
        }
    } while (moved);
}

void virtio_operations_advance(struct virtio *virtio)
{
    advance_all(virtio);
    /* Of what no request asked for nobody is told: it holds up no one once it is over. */
    if (virtio->first == &virtio->unasked.operation) {
        (void)virtio_operation_take(virtio);
    }
}

bool virtio_operations_draining(const struct virtio *virtio)
{
    for (const struct virtio_operation *o = virtio->first; o; o = o->next) {
        if (is_running(virtio, o) && !(o->phase == PHASE_TELL && is_told(o))) {
            return true;
        }
    }
    return false;
}

/* ---- the order ---- */

void virtio_operation_append(struct virtio *virtio, struct virtio_operation *operation)
{
    operation->next = NULL;
    *virtio->end = operation;
    virtio->end = &operation->next;
    virtio->count++;
}

struct virtio_operation *virtio_operation_take(struct virtio *virtio)
{
    struct virtio_operation *operation = virtio->first;

    if (!operation || operation->phase != PHASE_DONE) {
        return NULL;
    }
    virtio->first = operation->next;
    if (!virtio->first) {
        virtio->end = &virtio->first;
    }
    virtio->count--;
    if (operation == &virtio->unasked.operation) {
        virtio->unasked.active = false;
    }
    return operation;
}

void virtio_operations_forget(struct virtio *virtio)
{
    struct virtio_operation *next;

    for (struct virtio_operation *o = virtio->first; o; o = next) {
        next = o->next;
        notify_forget(&virtio->iommu, &o->wait);
        if (o != &virtio->unasked.operation) {
            virtio_operation_free(virtio, o);
        }
    }
    virtio->first = NULL;
    virtio->end = &virtio->first;
    virtio->count = 0;
    virtio->unasked = (struct virtio_unasked){0};
    virtio->trial.operation = NULL;
    follow_cancel(&virtio->iommu);
}
