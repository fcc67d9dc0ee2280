/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What devices ask for, and the cache does not know.
 *
 * The interrupt window and what is closed come first, whatever the endpoint is attached to; then
 * the endpoint's domain, or bypass; then the mapping and its permission.
 *
 * Nobody waits for a lock once the context is known: a request in bypass needs none, and another
 * one looks into the domain's mappings beside whoever changes them. What it finds is as good as if
 * it had been in the cache: who takes the mapping away waits for this section. But to put it there
 * takes the lock, and a look whether it is so still; where somebody has the lock the page is not
 * cached this time. All that is not found takes the lock, and is looked up again.
 */
#include "base/alloc.h"
#include "virtio/unit.h"

#include <errno.h>

/* Without the lock. */
static int refuse(struct virtio *virtio, const struct dma_request *request)
{
    iommu_lock(&virtio->iommu);
    virtio_fault_record(virtio, request, VIRTIO_FAULT_MAPPING);
    iommu_unlock(&virtio->iommu);
    return -EFAULT;
}

void virtio_refuse_interrupt(struct viommu *iommu, const struct dma_request *request)
{
    (void)refuse(virtio_of(iommu), request);
}

/* A page where device and guest address are the same. */
static void identity(uint64_t address, uint32_t perm, struct viommu_translation *out)
{
    *out = (struct viommu_translation){.gpa = address, .mask = 0xfff, .perm = perm};
}

/* Stores go to the interrupt controller, untranslated. */
static int interrupt_request(struct virtio *virtio, const struct dma_request *request,
                             struct viommu_translation *out)
{
    identity(request->iova, VIOMMU_WRITE, out);
    out->interrupt = true;
    return request->perm & VIOMMU_READ ? refuse(virtio, request) : 0;
}

/* Says where a translation comes from, to whoever asked. */
static void found(const struct dma_request *request, int32_t number)
{
    if (request->found) {
        *request->found = (struct dma_found){.domain = number};
    }
}

static int bypass(const struct dma_request *request, int32_t number, struct viommu_translation *out)
{
    found(request, number);
    identity(request->iova, VIOMMU_READ | VIOMMU_WRITE, out);
    return 0;
}

/*
 * The largest aligned block around an address that the mapping translates as a whole, less one.
 */
static uint64_t block_mask(const struct range_run *run, uint64_t iova)
{
    uint64_t mask = 0xfff;

    while (mask != UINT64_MAX) {
        uint64_t wider = mask << 1 | 1;

        if ((iova & ~wider) < run->first || (iova | wider) > run->last ||
            ((run->target - run->first) & wider)) {
            break;
        }
        mask = wider;
    }
    return mask;
}

/* ---- contexts ---- */

static void not_remembered(struct virtio *virtio, const struct requester *requester)
{
    struct viommu_event event = {
        .kind = VIOMMU_EVENT_HOST_FAILURE,
        .requester = requester->id,
        .error = -ENOMEM,
        .text = "no memory to remember a requester's domain: its requests are slow",
    };

    iommu_post_event(&virtio->iommu, &event);
}

static bool context_tag(struct virtio *virtio, struct virtio_context *context,
                        const struct virtio_domain *domain)
{
    struct iotlb_key key = {.root = domain->serial, .domain = virtio_number(domain)};

    context->base.tag = iotlb_tag_get(&virtio->iommu.iotlb, &key);
    if (virtio->iommu.iotlb.renew_target) {
        /* Tag ids ran out: viommu_process ends the renewal. */
        iommu_kick(&virtio->iommu);
    }
    return context->base.tag != NULL;
}

/* Remembers what a requester reaches: a domain, or NULL for bypass. Returns it, or NULL. */
static const struct virtio_context *remember(struct virtio *virtio, struct requester *requester,
                                             const struct virtio_domain *domain)
{
    struct virtio_context *context;

    context = (struct virtio_context *)atomic_load(&requester->context);
    if (context || !requester->users) {
        return context;
    }
    context = base_alloc(sizeof(*context));
    if (!context) {
        not_remembered(virtio, requester);
        return NULL;
    }
    context->bypass = !domain || domain->bypass;
    context->number = domain ? virtio_number(domain) : WINDOW_DOMAIN_NONE;
    context->domain = context->bypass ? NULL : domain;
    if (!context->bypass && !context_tag(virtio, context, domain)) {
        base_free(context);
        not_remembered(virtio, requester);
        return NULL;
    }
    atomic_store_explicit(&requester->context, &context->base, memory_order_release);
    return context;
}

/* ---- the look-up, under the lock ---- */

static bool is_allowed(uint32_t wanted, uint32_t perm)
{
    /* A zero-length read is satisfied with any permission. */
    return !(wanted & ~perm) && perm;
}

static int by_mappings(struct virtio *virtio, const struct dma_request *request,
                       const struct virtio_domain *domain, const struct virtio_context *context,
                       struct viommu_translation *out)
{
    struct iotlb_tag *tag = context ? context->base.tag : NULL;
    struct range_run run = {0};
    uint32_t perm = 0;

    counter_add(&request->device->stats.walks, 1);
    if (mappings_find(&domain->mappings, request->iova, &run)) {
        perm = (uint32_t)(run.tag & MAPPINGS_PERM);
    }
    if (!is_allowed(request->perm, perm)) {
        virtio_fault_record(virtio, request, VIRTIO_FAULT_MAPPING);
        return -EFAULT;
    }
    *out = (struct viommu_translation){
        .gpa = range_run_target(&run, request->iova),
        .mask = block_mask(&run, request->iova),
        .perm = perm,
    };
    if (tag) {
        iotlb_fill(&virtio->iommu.iotlb, tag, atomic_load(&tag->id), request->iova, out->gpa, perm,
                   0);
    }
    found(request, virtio_number(domain));
    return 0;
}

/* What the requester's context does not tell: it was not there. */
static int by_endpoint(struct virtio *virtio, const struct dma_request *request,
                       struct viommu_translation *out)
{
    const struct virtio_domain *domain = virtio_endpoint_domain(virtio, request->requester->id);

    if (!domain && !virtio_bypasses(virtio)) {
        virtio_fault_record(virtio, request, VIRTIO_FAULT_DOMAIN);
        return -EFAULT;
    }
    if (domain && !domain->bypass) {
        return by_mappings(virtio, request, domain, remember(virtio, request->requester, domain),
                           out);
    }
    (void)remember(virtio, request->requester, domain);
    return bypass(request, domain ? virtio_number(domain) : WINDOW_DOMAIN_NONE, out);
}

static int look_up(struct virtio *virtio, const struct dma_request *request,
                   struct viommu_translation *out)
{
    const struct virtio_context *context;

    if (!request->requester->users) {
        return -EFAULT; /* its device has another id by now, and another device may have this one */
    }
    /* Under the lock it says what is so now, and its domain is there. */
    context = (const struct virtio_context *)atomic_load(&request->requester->context);
    return context && context->domain
               ? by_mappings(virtio, request, context->domain, context, out)
               : by_endpoint(virtio, request, out);
}

/* ---- the look-up without it ---- */

/* Caches what was found in the mappings' version, if that is still so. */
static void cache(struct virtio *virtio, const struct dma_request *request,
                  const struct virtio_context *context, uint64_t version,
                  const struct viommu_translation *found)
{
    struct viommu *iommu = &virtio->iommu;
    struct iotlb_tag *tag = context->base.tag;

    if (!iommu_trylock(iommu)) {
        return;
    }
    if (atomic_load(&request->requester->context) == &context->base &&
        mappings_still(&context->domain->mappings, version)) {
        iotlb_fill(&iommu->iotlb, tag, atomic_load(&tag->id), request->iova, found->gpa,
                   found->perm, 0);
    }
    iommu_unlock(iommu);
}

/* False decides nothing. */
static bool peek(struct virtio *virtio, const struct dma_request *request,
                 const struct virtio_context *context, struct viommu_translation *out)
{
    struct range_run run;
    uint64_t version;
    uint32_t perm;

    if (!mappings_peek(&context->domain->mappings, request->iova, &run, &version)) {
        return false;
    }
    perm = (uint32_t)(run.tag & MAPPINGS_PERM);
    if (!is_allowed(request->perm, perm)) {
        return false;
    }
    *out = (struct viommu_translation){
        .gpa = range_run_target(&run, request->iova),
        .mask = block_mask(&run, request->iova),
        .perm = perm,
    };
    counter_add(&request->device->stats.walks, 1);
    cache(virtio, request, context, version, out);
    found(request, context->number);
    return true;
}

int virtio_translate(struct viommu *iommu, const struct dma_request *request,
                     struct viommu_translation *out)
{
    struct virtio *virtio = virtio_of(iommu);
    const struct virtio_context *context;
    int ret;

    if (!atomic_load_explicit(&iommu->started, memory_order_acquire)) {
        return -EAGAIN;
    }
    if (virtio_in_interrupt_range(request->iova)) {
        return interrupt_request(virtio, request, out);
    }
    if (closed_meets(atomic_load_explicit(&request->requester->closed, memory_order_acquire),
                     request->iova, request->iova)) {
        return refuse(virtio, request);
    }
    context = (const struct virtio_context *)atomic_load_explicit(&request->requester->context,
                                                                  memory_order_acquire);
    if (context && context->bypass) {
        return bypass(request, context->number, out);
    }
    if (context && peek(virtio, request, context, out)) {
        return 0;
    }
    iommu_lock(iommu);
    ret = look_up(virtio, request, out);
    iommu_unlock(iommu);
    return ret;
}
