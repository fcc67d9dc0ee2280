/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The unit in the modes that test drivers (enum viommu_cache_mode): contexts and pages are looked
 * up in what was kept before the tables are read.
 *
 * Contexts are kept by source id, pages by domain (iotlb/kept.h): so a context that was replaced
 * leaves its domain's pages where they are, until the guest invalidates those. Only the guest's
 * invalidations and a reset drop anything; to set the root pointer does not (CAP.ESRTPS is clear).
 * In caching mode what is not present, and faults, are kept too; such a context belongs to domain
 * 0. A root table of a wrong mode is no entry, and not kept.
 *
 * Nothing is published in a requester here: the fast way never knows an answer, and who may use a
 * domain is never sure, so all are told of its invalidations.
 */
#include "base/alloc.h"
#include "vtd/unit.h"

#include <errno.h>

struct vtd_kept_context {
    struct vtd_kept_context *next;
    uint16_t id;
    enum vtd_reason reason;
    struct vtd_context context;
};

static struct vtd_kept_context **link_of(struct vtd *vtd, uint16_t id)
{
    struct vtd_kept_context **link = &vtd->kept_contexts[id % VTD_KEPT_BUCKETS];

    while (*link && (*link)->id != id) {
        link = &(*link)->next;
    }
    return link;
}

static void lose(struct vtd_kept_context **link)
{
    struct vtd_kept_context *kept = *link;

    *link = kept->next;
    base_free(kept);
}

/* Whether a context is kept, and is to be used this time. */
static bool context_find(struct vtd *vtd, uint16_t id, struct vtd_context *context,
                         enum vtd_reason *reason)
{
    struct vtd_kept_context **link = link_of(vtd, id);

    if (!*link) {
        return false;
    }
    switch (kept_chance(vtd->iommu.kept)) {
    case KEPT_LOSE:
        lose(link);
        return false;
    case KEPT_PASS_OVER:
        return false;
    case KEPT_USE:
        break;
    }
    *context = (*link)->context;
    *reason = (*link)->reason;
    return true;
}

static void not_kept(struct vtd *vtd, uint16_t id, uint64_t iova, const char *text)
{
    struct viommu_event event = {
        .kind = VIOMMU_EVENT_CACHE_FULL,
        .requester = id,
        .error = -ENOSPC,
        .first = iova & ~0xfffULL,
        .last = iova | 0xfff,
        .text = text,
    };

    iommu_post_event(&vtd->iommu, &event);
}

/* One that is kept and was passed over stays as it was. */
static void context_keep(struct vtd *vtd, uint16_t id, const struct vtd_context *context,
                         enum vtd_reason reason)
{
    bool allowed = !reason || (vtd->config.caching_mode && reason != VTD_MODE_INVALID);
    struct vtd_kept_context **link = link_of(vtd, id);
    struct vtd_kept_context *kept;

    if (!allowed || *link) {
        return;
    }
    kept = base_alloc(sizeof(*kept));
    if (!kept) {
        not_kept(vtd, id, 0, "no memory to keep a requester's context");
        return;
    }
    *kept = (struct vtd_kept_context){.id = id, .reason = reason, .context = *context};
    *link = kept;
}

enum vtd_reason vtd_kept_context_get(struct vtd *vtd, uint16_t id, struct vtd_context *context)
{
    enum vtd_reason reason = VTD_OK;
    uint64_t ticket;

    iommu_lock(&vtd->iommu);
    ticket = kept_ticket(vtd->iommu.kept);
    if (!vtd->state.translating || !context_find(vtd, id, context, &reason)) {
        reason = vtd_context_fetch(vtd, id, context);
        if (vtd->state.translating) {
            context_keep(vtd, id, context, reason);
        }
    }
    iommu_unlock(&vtd->iommu);
    context->ticket = ticket;
    return reason;
}

void vtd_kept_contexts_drop(struct vtd *vtd, enum vtd_granularity granularity, uint16_t domain,
                            uint16_t source, uint16_t compared)
{
    for (unsigned i = 0; i < VTD_KEPT_BUCKETS; i++) {
        struct vtd_kept_context **link = &vtd->kept_contexts[i];

        while (*link) {
            bool of_domain = (*link)->context.domain == domain;
            bool of_source = !(((*link)->id ^ source) & compared);

            if (granularity == VTD_GLOBAL ||
                (of_domain && (granularity == VTD_DOMAIN || of_source))) {
                lose(link);
            } else {
                link = &(*link)->next;
            }
        }
    }
}

void vtd_kept_reset(struct vtd *vtd)
{
    if (vtd->iommu.kept) {
        vtd_kept_contexts_drop(vtd, VTD_GLOBAL, 0, 0, 0);
    }
}

bool vtd_kept_page_find(struct vtd *vtd, const struct dma_request *request,
                        const struct vtd_context *context, struct pagetable_walk *walk,
                        enum vtd_reason *reason)
{
    struct device_stats *stats = &request->device->stats;
    struct kept_page page;

    if (!kept_find(vtd->iommu.kept, context->domain, request->iova, &page)) {
        return false;
    }
    walk->mask = (1ULL << pagetable_shift(page.level)) - 1;
    walk->gpa = page.gpa | (request->iova & walk->mask);
    walk->entry = page.entry;
    walk->level = page.level;
    walk->perm = page.perm;
    *reason = (enum vtd_reason)page.reason;
    if (!request->quiet) {
        /* It was counted as a miss: the fast way does not know it. */
        counter_add(&stats->iotlb_misses, UINT64_MAX);
        counter_add(&stats->iotlb_hits, 1);
    }
    return true;
}

void vtd_kept_page_add(struct vtd *vtd, const struct dma_request *request,
                       const struct vtd_context *context, const struct pagetable_walk *walk,
                       enum vtd_reason reason)
{
    unsigned level = walk->perm ? walk->level : 0;
    uint64_t mask = (1ULL << pagetable_shift(level)) - 1;
    struct kept_page page = {
        .iova = request->iova & ~mask,
        .gpa = walk->perm ? walk->gpa & ~mask : 0,
        .entry = walk->entry,
        .domain = context->domain,
        .level = (uint8_t)level,
        .perm = (uint8_t)walk->perm,
        .reason = (uint8_t)reason,
    };

    if (kept_add(vtd->iommu.kept, &page, context->ticket)) {
        iommu_lock(&vtd->iommu);
        not_kept(vtd, request->requester->id, page.iova,
                 "the cache is full: what else is translated is not kept");
        iommu_unlock(&vtd->iommu);
    }
}
