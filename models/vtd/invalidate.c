/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What each invalidation does (6.5.1, 6.5.2), given as a descriptor; register-based ones are put into
 * the same form.
 *
 * What is cached goes at once, at the start. The operation is complete when the requests that began
 * before have ended: until then they may use what they found.
 *
 * Two kinds take two drains. Pages dropped one by one may be cached again by a request that walked the
 * tables before; so when such requests have ended the pages are dropped once more, and then those
 * requests have to end that found them in between. A device-TLB invalidation waits for translation
 * requests that are being answered, tells the device, and waits for translated requests that were
 * under way when it answered.
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

/* Bits above the number of domains, and of pages above the address width, are ignored. */
static uint16_t domain_of(const struct vtd *vtd, uint64_t low)
{
    return (uint16_t)(low >> 16 & ((1u << vtd->config.domain_bits) - 1));
}

static void context_start(struct vtd *vtd, const struct vtd_operation *operation)
{
    /* Requester id bits that the function mask leaves to be compared. */
    static const uint16_t compared[4] = {0xffff, 0xfffb, 0xfff9, 0xfff8};
    enum vtd_granularity granularity = granularity_of(operation->low);
    uint16_t source = (uint16_t)(operation->low >> 32);

    switch (granularity) {
    case VTD_GLOBAL:
        requesters_forget(&vtd->iommu, 0, 0);
        break;
    case VTD_DOMAIN:
        vtd_contexts_forget_domain(vtd, domain_of(vtd, operation->low));
        break;
    case VTD_SELECTIVE:
        requesters_forget(&vtd->iommu, source, compared[operation->low >> 48 & 3]);
        break;
    }
    vtd->iommu.stats.context_invalidations[granularity - 1]++;
}

/*
 * The pages of a page-selective invalidation. The hint that only leaf entries changed is not used: no
 * upper entries are cached.
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

    return iotlb_drop_range(&vtd->iommu.iotlb, domain_of(vtd, operation->low), range.first,
                            range.last);
}

static void iotlb_start(struct vtd *vtd, struct vtd_operation *operation)
{
    enum vtd_granularity granularity = granularity_of(operation->low);

    switch (granularity) {
    case VTD_GLOBAL:
        iotlb_drop_all(&vtd->iommu.iotlb);
        break;
    case VTD_DOMAIN:
        iotlb_drop_domain(&vtd->iommu.iotlb, domain_of(vtd, operation->low));
        break;
    case VTD_SELECTIVE:
        operation->again = drop_pages(vtd, operation);
        break;
    }
    vtd->iommu.stats.iotlb_invalidations[granularity - 1]++;
}

/*
 * The range of a device-TLB descriptor: with S set the lowest clear bit of the page number gives the
 * size, half of it below; no clear bit at all, or none but the top one, is everything.
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

static void device_tell(struct vtd *vtd, struct vtd_operation *operation)
{
    struct viommu_range range = device_range(operation->high);
    struct viommu_change change = {
        .kind = VIOMMU_CHANGE_DEVICE_TLB,
        .requester = (uint16_t)(operation->low >> 32),
        .first = range.first,
        .last = range.last,
    };

    notify_post(&vtd->iommu, &change, &operation->wait);
}

void vtd_operation_start(struct vtd *vtd, struct vtd_operation *operation)
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
        vtd->iommu.stats.device_tlb_invalidations++;
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

/* Requests from before have ended: what is next? */
static enum vtd_phase drained(struct vtd *vtd, struct vtd_operation *operation)
{
    if (type_of(operation->low) == VTD_DESC_DEVICE_TLB) {
        device_tell(vtd, operation);
        return PHASE_TELL;
    }
    if (operation->again) {
        (void)drop_pages(vtd, operation);
        wait_drain(&vtd->iommu, &operation->wait);
        return PHASE_SETTLE;
    }
    return PHASE_DONE;
}

bool vtd_operation_advance(struct vtd *vtd, struct vtd_operation *operation)
{
    if (operation->phase == PHASE_DONE || !wait_over(&vtd->iommu, &operation->wait)) {
        return false;
    }
    switch (operation->phase) {
    case PHASE_DRAIN:
        operation->phase = drained(vtd, operation);
        break;
    case PHASE_TELL:
        wait_drain(&vtd->iommu, &operation->wait);
        operation->phase = PHASE_SETTLE;
        break;
    default:
        operation->phase = PHASE_DONE;
        break;
    }
    return true;
}

bool vtd_operation_draining(const struct vtd_operation *operation)
{
    return operation->phase != PHASE_DONE && !operation->wait.deliveries;
}
