/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Requests (chapters 3 and 4): what the cache does not know.
 *
 * The order of checks is the specification's: context, type, address width, walk, permission,
 * output. A refusal is recorded as a fault unless its context disables fault processing; faults of
 * the root and of unreadable context entries cannot be disabled.
 */
#include "vtd/unit.h"

#include <errno.h>

static bool in_interrupt_range(uint64_t address)
{
    return address >= VTD_INTERRUPT_FIRST && address <= VTD_INTERRUPT_LAST;
}

static bool meets_interrupt_range(uint64_t first, uint64_t last)
{
    return first <= VTD_INTERRUPT_LAST && last >= VTD_INTERRUPT_FIRST;
}

/*
 * A context's FPD bit keeps faults from being recorded, but those of the ways to the context entry
 * (table 30): it is not known before that is read.
 */
static int refuse(struct vtd *vtd, const struct dma_request *request,
                  const struct vtd_context *context, enum vtd_reason reason)
{
    if (request->quiet || context->fault_disable) {
        return -EFAULT;
    }
    iommu_lock(&vtd->iommu);
    vtd_fault_record(vtd, request, reason);
    iommu_unlock(&vtd->iommu);
    return -EFAULT;
}

/* A page where device and guest address are the same. */
static void identity(uint64_t address, uint32_t perm, struct viommu_translation *out)
{
    *out = (struct viommu_translation){.gpa = address, .mask = 0xfff, .perm = perm};
}

/*
 * A request to the interrupt address range, which translation does not concern. What is no 32-bit
 * store is refused: reads here, stores of other sizes by viommu_device_write, which knows the size.
 */
static int interrupt_request(struct vtd *vtd, const struct dma_request *request,
                             struct viommu_translation *out)
{
    identity(request->iova, VIOMMU_WRITE, out);
    out->interrupt = true;
    if (!(request->perm & VIOMMU_READ)) {
        return 0;
    }
    vtd_refuse_interrupt(&vtd->iommu, request);
    return -EFAULT;
}

void vtd_refuse_interrupt(struct viommu *iommu, const struct dma_request *request)
{
    struct vtd *vtd = vtd_of(iommu);

    iommu_lock(iommu);
    if (vtd->state.translating && !request->quiet) {
        vtd_fault_record(vtd, request, VTD_INTERRUPT_ACCESS);
    }
    iommu_unlock(iommu);
}

/* The fault of a walk that did not reach a page, or VTD_OK where nothing is present. */
static enum vtd_reason walk_reason(const struct vtd_context *context, enum pagetable_status status,
                                   const struct pagetable_walk *walk)
{
    switch (status) {
    case PAGETABLE_UNREADABLE:
        /* The first table belongs to the context entry (LCT.4.3). */
        return walk->level + 1 == context->levels ? VTD_CONTEXT_INVALID : VTD_TABLE_UNREADABLE;
    case PAGETABLE_RESERVED:
        return VTD_ENTRY_RESERVED;
    default:
        return VTD_OK;
    }
}

static enum vtd_reason missing_permission(uint32_t wanted, uint32_t allowed)
{
    if (wanted & ~allowed & VIOMMU_WRITE) {
        return VTD_NO_WRITE;
    }
    /* A zero-length read is satisfied with any permission (CAP.ZLR). */
    return (wanted & ~allowed & VIOMMU_READ) || !allowed ? VTD_NO_READ : VTD_OK;
}

/* Whether hardware could cache what a walk found: in caching mode anything. */
static bool may_keep(const struct vtd *vtd, const struct pagetable_walk *walk,
                     enum vtd_reason reason)
{
    return vtd->config.caching_mode || (!reason && walk->perm && !in_interrupt_range(walk->gpa));
}

/*
 * Walks the context's tables. A page that is not present has perm 0. Inline, so that the walk's
 * result need not go through memory: what is added to its loads shows in every miss.
 */
static inline __attribute__((always_inline)) enum vtd_reason
walk_tables(struct vtd *vtd, const struct dma_request *request, const struct vtd_context *context,
            struct pagetable_walk *walk)
{
    const struct memory_snapshot *memory = memory_snapshot(vtd->iommu.memory);
    enum pagetable_status status;
    enum vtd_reason reason;

    *walk = (struct pagetable_walk){.mask = 0xfff};
    if (vtd->iommu.kept && vtd_kept_page_find(vtd, request, context, walk, &reason)) {
        return reason;
    }
    counter_add(&request->device->stats.walks, 1);
    status = pagetable_walk(&vtd->format, memory, context->root, context->levels, request->iova,
                            walk);
    if (status) {
        walk->perm = 0;
        walk->mask = 0xfff;
    }
    reason = walk_reason(context, status, walk);
    if (vtd->iommu.kept && may_keep(vtd, walk, reason)) {
        vtd_kept_page_add(vtd, request, context, walk, reason);
    }
    return reason;
}

/*
 * A larger page that reaches into the interrupt range, on either side, is used page by page: there
 * its translation does not hold.
 */
static uint64_t usable_mask(const struct pagetable_walk *walk, uint64_t iova)
{
    uint64_t first_in = iova & ~walk->mask;
    uint64_t first_out = walk->gpa & ~walk->mask;

    return meets_interrupt_range(first_in, first_in | walk->mask) ||
                   meets_interrupt_range(first_out, first_out | walk->mask)
               ? 0xfff
               : walk->mask;
}

/* Says where a translation comes from, to whoever asked. */
static void found(const struct dma_request *request, int32_t domain, uint8_t level)
{
    if (request->found) {
        *request->found = (struct dma_found){.domain = domain, .level = level};
    }
}

static int translate_by_tables(struct vtd *vtd, const struct dma_request *request,
                               const struct vtd_context *context, struct viommu_translation *out)
{
    struct iotlb_tag *tag = context->base.tag;
    uint64_t id = tag ? atomic_load_explicit(&tag->id, memory_order_acquire) : 0;
    struct pagetable_walk walk;
    enum vtd_reason reason;

    if (request->iova > context->last) {
        return refuse(vtd, request, context, VTD_ADDRESS_TOO_LARGE);
    }
    reason = walk_tables(vtd, request, context, &walk);
    if (!reason) {
        reason = missing_permission(request->perm, walk.perm);
    }
    if (!reason && in_interrupt_range(walk.gpa)) {
        reason = VTD_INTERRUPT_OUTPUT;
    }
    if (reason) {
        return refuse(vtd, request, context, reason);
    }
    if (id) {
        iotlb_fill(&vtd->iommu.iotlb, tag, id, request->iova, walk.gpa, walk.perm, walk.level);
    }
    found(request, context->domain, (uint8_t)walk.level);
    *out = (struct viommu_translation){
        .gpa = walk.gpa,
        .mask = usable_mask(&walk, request->iova),
        .perm = walk.perm,
    };
    return 0;
}

static int untranslated(struct vtd *vtd, const struct dma_request *request,
                        struct viommu_translation *out)
{
    const struct vtd_context *context;
    struct vtd_context own;
    enum vtd_reason reason;

    if (in_interrupt_range(request->iova)) {
        return interrupt_request(vtd, request, out);
    }
    reason = vtd_context_get(vtd, request->requester, &own, &context);
    if (reason) {
        return refuse(vtd, request, context, reason);
    }
    if (context->translating && context->type != VTD_TT_PASS_THROUGH) {
        return translate_by_tables(vtd, request, context, out);
    }
    if (request->iova > vtd_host_last(vtd)) {
        /* With translation off nothing is recorded: no unit is at work. */
        return context->translating ? refuse(vtd, request, context, VTD_ADDRESS_TOO_LARGE)
                                    : -EFAULT;
    }
    found(request, context->translating ? context->domain : WINDOW_DOMAIN_NONE, 0);
    identity(request->iova, VIOMMU_READ | VIOMMU_WRITE, out);
    return 0;
}

/* What stops a translation request or a translated one before its address counts. */
static int device_tlb_context(struct vtd *vtd, const struct dma_request *request,
                              struct vtd_context *own, const struct vtd_context **context)
{
    enum vtd_reason reason = vtd_context_get(vtd, request->requester, own, context);

    if (!reason && !(*context)->translating) {
        return -EFAULT;
    }
    if (!reason && (*context)->type != VTD_TT_DEVICE_TLB) {
        reason = VTD_TYPE_BLOCKS;
    }
    return reason ? refuse(vtd, request, *context, reason) : 0;
}

static int translated(struct vtd *vtd, const struct dma_request *request,
                      struct viommu_translation *out)
{
    const struct vtd_context *context;
    struct vtd_context own;
    int ret = device_tlb_context(vtd, request, &own, &context);

    if (ret) {
        return ret;
    }
    if (request->iova > vtd_host_last(vtd)) {
        return refuse(vtd, request, context, VTD_ADDRESS_TOO_LARGE);
    }
    if (in_interrupt_range(request->iova)) {
        return refuse(vtd, request, context, VTD_INTERRUPT_OUTPUT);
    }
    identity(request->iova, VIOMMU_READ | VIOMMU_WRITE, out);
    return 0;
}

int vtd_translate(struct viommu *iommu, const struct dma_request *request,
                  struct viommu_translation *out)
{
    struct vtd *vtd = vtd_of(iommu);

    if (!atomic_load_explicit(&iommu->started, memory_order_acquire)) {
        return -EAGAIN;
    }
    return request->type == VIOMMU_DMA_UNTRANSLATED ? untranslated(vtd, request, out)
                                                    : translated(vtd, request, out);
}

/* An answer that gives nothing: the device may ask again later. */
static void ats_empty(uint64_t iova, struct viommu_ats_entry *out)
{
    *out = (struct viommu_ats_entry){.iova = iova & ~0xfffULL, .mask = 0xfff};
}

static int ats_by_tables(struct vtd *vtd, const struct dma_request *request,
                         const struct vtd_context *context, struct viommu_ats_entry *out)
{
    struct pagetable_walk walk;
    enum vtd_reason reason = walk_tables(vtd, request, context, &walk);
    uint64_t mask;

    if (!reason && walk.perm && in_interrupt_range(walk.gpa)) {
        reason = VTD_INTERRUPT_OUTPUT;
    }
    if (reason) {
        return refuse(vtd, request, context, reason);
    }
    if (!walk.perm) {
        ats_empty(request->iova, out);
        return 0;
    }
    mask = usable_mask(&walk, request->iova);
    *out = (struct viommu_ats_entry){
        .iova = request->iova & ~mask,
        .gpa = walk.gpa & ~mask,
        .mask = mask,
        .perm = walk.perm,
        .snoop = (walk.entry & ENTRY_SNOOP) != 0,
    };
    return 0;
}

int vtd_ats(struct viommu *iommu, const struct dma_request *request, struct viommu_ats_entry *out)
{
    struct vtd *vtd = vtd_of(iommu);
    const struct vtd_context *context;
    struct vtd_context own;
    int ret;

    if (!atomic_load_explicit(&iommu->started, memory_order_acquire)) {
        return -EAGAIN;
    }
    ret = device_tlb_context(vtd, request, &own, &context);
    if (ret) {
        return ret;
    }
    if (in_interrupt_range(request->iova)) {
        /* Stores to the interrupt range go untranslated; a reader gets nothing (3.15). */
        ats_empty(request->iova, out);
        if (request->perm & VIOMMU_WRITE) {
            out->perm = VIOMMU_WRITE;
            out->untranslated_only = true;
        }
        return 0;
    }
    if (request->iova > context->last) {
        ats_empty(request->iova, out);
        return 0;
    }
    return ats_by_tables(vtd, request, context, out);
}
