/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What each invalidation does (6.5.1, 6.5.2), given as a descriptor; register-based ones are put
 * into the same form.
 *
 * With a hostile cache an operation first waits (PHASE_LATE) before it begins; all else here is
 * said of the moment when it does.
 *
 * What is cached goes at once, at the start. The operation is complete when the requests that began
 * before have ended: until then they may use what they found.
 *
 * Pages dropped one by one may be cached again by a request that walked the tables before; so when
 * such requests have ended the pages are dropped once more, and then those requests have to end
 * that found them in between.
 *
 * Mirrors begin to follow at once: they look at the tables, and what they unmap is gone.
 *
 * Who is to be told (device-TLBs, and subscribers that cache) is decided at the start, and told
 * when requests that could make them cache the old have ended. When all have answered, requests
 * that were under way with what they had cached have to end, too.
 *
 * Pinned windows are asked back at the same time: then all that were made by what was dropped are
 * known. A window knows under which requester id and domain it was made; what the guest says of
 * that requester since does not count.
 */
#include "vtd/unit.h"

static enum vtd_granularity granularity_of(uint64_t low)
{
    return (enum vtd_granularity)(low >> 4 & 3);
}

static enum vtd_descriptor type_of(uint64_t low)
{
    return (enum vtd_descriptor)(low & 0xf);
}

/* Posts a change to those whom it concerns; they are told in PHASE_TELL. */
static void post(struct vtd *vtd, struct vtd_operation *operation, enum viommu_change_kind kind,
                 struct viommu_range range, notify_match *match, const void *what)
{
    struct viommu_change change = {.kind = kind, .first = range.first, .last = range.last};

    notify_hold(&vtd->iommu, &operation->wait);
    notify_post(&vtd->iommu, &change, match, what, &operation->wait);
}

static const struct viommu_range everything = {0, UINT64_MAX};

/* Windows that are concerned: of a domain, or of requesters, or all of them. */
static void concern(struct vtd_operation *operation, struct viommu_range range, int32_t domain,
                    uint16_t id, uint16_t compared)
{
    struct window_concern what = {
        .first = range.first,
        .last = range.last,
        .domain = domain,
        .id = id,
        .compared = compared,
    };

    windows_concern(&operation->wait.windows, &what);
}

static bool was_forgotten(const struct requester *requester, const void *what)
{
    (void)what;
    return requester->forgotten;
}

/*
 * Requesters whose contexts were just forgotten may have other tables now: nothing cached counts.
 */
static void post_forgotten(struct vtd *vtd, struct vtd_operation *operation)
{
    post(vtd, operation, VIOMMU_CHANGE_UNMAP, everything, was_forgotten, NULL);
    follow_review(&vtd->iommu, &operation->wait, was_forgotten, NULL, VIOMMU_CAUSE_CONTEXT);
    requesters_told(&vtd->iommu);
}

void vtd_operation_start_over(struct vtd *vtd, struct vtd_operation *operation)
{
    operation->phase = PHASE_DRAIN;
    requesters_forget(&vtd->iommu, 0, 0);
    iotlb_drop_all(&vtd->iommu.iotlb);
    post_forgotten(vtd, operation);
    follow_invalidate(&vtd->iommu, &operation->wait, FOLLOW_ANY_DOMAIN, 0, UINT64_MAX,
                      VIOMMU_CAUSE_CONTEXT);
    concern(operation, everything, WINDOW_DOMAIN_ANY, 0, 0);
    wait_drain(&vtd->iommu, &operation->wait);
}

/* Bits above the number of domains, and of pages above the address width, are ignored. */
static uint16_t domain_of(const struct vtd *vtd, uint64_t low)
{
    return (uint16_t)(low >> 16 & ((1u << vtd->config.domain_bits) - 1));
}

static void context_start(struct vtd *vtd, struct vtd_operation *operation)
{
    /* Requester id bits that the function mask leaves to be compared. */
    static const uint16_t compared[4] = {0xffff, 0xfffb, 0xfff9, 0xfff8};
    enum vtd_granularity granularity = granularity_of(operation->low);
    uint16_t source = (uint16_t)(operation->low >> 32);
    uint16_t mask = compared[operation->low >> 48 & 3];

    switch (granularity) {
    case VTD_GLOBAL:
        requesters_forget(&vtd->iommu, 0, 0);
        concern(operation, everything, WINDOW_DOMAIN_ANY, 0, 0);
        break;
    case VTD_DOMAIN:
        vtd_contexts_forget_domain(vtd, domain_of(vtd, operation->low));
        concern(operation, everything, domain_of(vtd, operation->low), 0, 0);
        break;
    case VTD_SELECTIVE:
        requesters_forget(&vtd->iommu, source, mask);
        concern(operation, everything, WINDOW_DOMAIN_ANY, source, mask);
        break;
    }
    if (vtd->iommu.kept) {
        vtd_kept_contexts_drop(vtd, granularity, domain_of(vtd, operation->low), source,
                               compared[operation->low >> 48 & 3]);
    }
    post_forgotten(vtd, operation);
    vtd->iommu.stats.context_invalidations[granularity - 1]++;
}

/*
 * The pages of a page-selective invalidation. The hint that only leaf entries changed is not used:
 * no upper entries are cached.
 */
static struct viommu_range pages_of(const struct vtd *vtd, uint64_t high)
{
    uint64_t span = (1ULL << (12 + (high & 0x3f))) - 1;
    uint64_t width = (1ULL << vtd->config.address_width) - 1;
    struct viommu_range range;

    range.first = high & width & ~span;
    range.last = range.first | span;
    return range;
}

static bool drop_pages(struct vtd *vtd, const struct vtd_operation *operation)
{
    struct viommu_range range = pages_of(vtd, operation->high);

    if (vtd->iommu.kept) {
        /* A page that was looked up before the drop is not kept after it. */
        kept_drop_range(vtd->iommu.kept, domain_of(vtd, operation->low), range.first, range.last);
        return false;
    }
    return iotlb_drop_range(&vtd->iommu.iotlb, domain_of(vtd, operation->low), range.first,
                            range.last);
}

static void drop_all(struct vtd *vtd)
{
    if (vtd->iommu.kept) {
        kept_drop_all(vtd->iommu.kept);
    } else {
        iotlb_drop_all(&vtd->iommu.iotlb);
    }
}

static void drop_domain(struct vtd *vtd, uint16_t domain)
{
    if (vtd->iommu.kept) {
        kept_drop_domain(vtd->iommu.kept, domain);
    } else {
        iotlb_drop_domain(&vtd->iommu.iotlb, domain);
    }
}

/* Whether a requester may use a domain; NULL is every domain. One that is not known may. */
static bool may_use_domain(const struct requester *requester, const void *what)
{
    const struct vtd_context *context =
        (const struct vtd_context *)atomic_load(&requester->context);
    const uint16_t *domain = what;

    return !domain || !context || (context->translating && context->domain == *domain);
}

static void iotlb_start(struct vtd *vtd, struct vtd_operation *operation)
{
    static const enum viommu_cause causes[] = {
        [VTD_GLOBAL] = VIOMMU_CAUSE_GLOBAL,
        [VTD_DOMAIN] = VIOMMU_CAUSE_DOMAIN,
        [VTD_SELECTIVE] = VIOMMU_CAUSE_PAGES,
    };
    enum vtd_granularity granularity = granularity_of(operation->low);
    uint16_t domain = domain_of(vtd, operation->low);
    struct viommu_range range = everything;

    switch (granularity) {
    case VTD_GLOBAL:
        drop_all(vtd);
        break;
    case VTD_DOMAIN:
        drop_domain(vtd, domain);
        break;
    case VTD_SELECTIVE:
        operation->again = drop_pages(vtd, operation);
        range = pages_of(vtd, operation->high);
        break;
    }
    post(vtd, operation, VIOMMU_CHANGE_UNMAP, range, may_use_domain,
         granularity == VTD_GLOBAL ? NULL : &domain);
    concern(operation, range, granularity == VTD_GLOBAL ? WINDOW_DOMAIN_ANY : domain, 0, 0);
    follow_invalidate(&vtd->iommu, &operation->wait,
                      granularity == VTD_GLOBAL ? FOLLOW_ANY_DOMAIN : domain, range.first,
                      range.last, causes[granularity]);
    vtd->iommu.stats.iotlb_invalidations[granularity - 1]++;
}

/*
 * The range of a device-TLB descriptor: with S set the lowest clear bit of the page number gives
 * the size, half of it below; no clear bit at all, or none but the top one, is everything.
 */
static struct viommu_range device_range(uint64_t high)
{
    struct viommu_range range = {.first = high & ~0xfffULL};
    uint64_t ones = high | 0xfff;
    uint64_t span;

    if (!(high & 1)) {
        range.last = range.first | 0xfff;
        return range;
    }
    if ((ones | 1ULL << 63) == UINT64_MAX) {
        return (struct viommu_range){0, UINT64_MAX};
    }
    /* The run of ones from the bottom, and the clear bit above it. */
    span = ones ^ (ones + 1);
    range.first &= ~span;
    range.last = range.first | span;
    return range;
}

static bool has_id(const struct requester *requester, const void *what)
{
    return requester->id == *(const uint16_t *)what;
}

static void device_tlb_start(struct vtd *vtd, struct vtd_operation *operation)
{
    uint16_t source = (uint16_t)(operation->low >> 32);

    post(vtd, operation, VIOMMU_CHANGE_DEVICE_TLB, device_range(operation->high), has_id, &source);
    vtd->iommu.stats.device_tlb_invalidations++;
}

/* Begins it. */
static void begin(struct vtd *vtd, struct vtd_operation *operation)
{
    operation->phase = PHASE_DRAIN;
    switch (type_of(operation->low)) {
    case VTD_DESC_CONTEXT:
        context_start(vtd, operation);
        break;
    case VTD_DESC_IOTLB:
        iotlb_start(vtd, operation);
        break;
    case VTD_DESC_DEVICE_TLB:
        device_tlb_start(vtd, operation);
        break;
    case VTD_DESC_INTERRUPT_CACHE:
        vtd->iommu.stats.interrupt_cache_invalidations++;
        operation->phase = PHASE_DONE;
        return;
    case VTD_DESC_WAIT:
        operation->phase = PHASE_DONE;
        return;
    }
    wait_drain(&vtd->iommu, &operation->wait);
}

void vtd_operation_queue(struct vtd *vtd, struct vtd_operation *operation, bool behind_late)
{
    bool is_wait = type_of(operation->low) == VTD_DESC_WAIT;

    operation->delay =
        vtd->iommu.kept && !is_wait ? kept_below(vtd->iommu.kept, VTD_DELAYS) : 0;
    if (is_wait || !(operation->delay || behind_late)) {
        begin(vtd, operation);
    } else {
        operation->phase = PHASE_LATE;
    }
}

void vtd_operation_start(struct vtd *vtd, struct vtd_operation *operation)
{
    vtd_operation_queue(vtd, operation, false);
}

bool vtd_operation_begin(struct vtd *vtd, struct vtd_operation *operation, bool behind_late)
{
    if (behind_late || vtd->iommu.notify.outstanding >= NOTIFY_OUTSTANDING_MAX) {
        return false;
    }
    if (operation->delay) {
        operation->delay--;
        return false;
    }
    begin(vtd, operation);
    return true;
}

/* The requests that it waited for have ended: what is next? */
static enum vtd_phase after_drain(struct vtd *vtd, struct vtd_operation *operation)
{
    struct wait *wait = &operation->wait;
    bool windows;

    if (operation->phase == PHASE_DRAIN && operation->again) {
        (void)drop_pages(vtd, operation);
        wait_drain(&vtd->iommu, wait);
        return PHASE_AGAIN;
    }
    if (operation->phase == PHASE_SETTLE) {
        return PHASE_DONE;
    }
    notify_release(&vtd->iommu, wait);
    windows = windows_ask(&vtd->iommu, &wait->windows, wait->drain);
    return wait->told || wait->follow || windows ? PHASE_TELL : PHASE_DONE;
}

/* Whether subscribers have not answered, mirrors not followed, or windows not been released. */
static bool is_told(const struct vtd *vtd, const struct vtd_operation *operation)
{
    return operation->wait.deliveries || !follow_done(&vtd->iommu, &operation->wait) ||
           windows_stands(&operation->wait.windows);
}

bool vtd_operation_advance(struct vtd *vtd, struct vtd_operation *operation)
{
    struct wait *wait = &operation->wait;

    if (operation->phase == PHASE_LATE || operation->phase == PHASE_DONE ||
        !wait_drained(&vtd->iommu, wait)) {
        return false;
    }
    if (windows_spent(&vtd->iommu)) {
        return false; /* in the next round */
    }
    if (operation->phase != PHASE_TELL) {
        operation->phase = after_drain(vtd, operation);
        return true;
    }
    (void)windows_over(&wait->windows);
    if (is_told(vtd, operation)) {
        return false;
    }
    if (!wait->told && !wait->follow) {
        operation->phase = PHASE_DONE; /* it was windows only: nobody uses one that is released */
        return true;
    }
    wait_drain(&vtd->iommu, wait);
    operation->phase = PHASE_SETTLE;
    return true;
}

bool vtd_operation_draining(const struct vtd *vtd, const struct vtd_operation *operation)
{
    return operation->phase != PHASE_DONE && operation->phase != PHASE_LATE &&
           !(operation->phase == PHASE_TELL && is_told(vtd, operation));
}
