/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Root and context entries (9.1, 9.3): what the guest says of a requester.
 *
 * An entry has two quadwords. The lower one holds the present bit; it is read before and after the
 * upper one, so that an entry which the guest replaces meanwhile is taken whole, old or new.
 */
#include "base/alloc.h"
#include "vtd/unit.h"

#include <errno.h>

#define READ_TRIES 4

struct entry {
    uint64_t low;
    uint64_t high;
};

static bool entry_read(const struct memory_snapshot *memory, uint64_t gpa, struct entry *entry)
{
    uint64_t again;

    if (!memory_load64(memory, gpa, &entry->low)) {
        return false;
    }
    for (unsigned i = 0; i < READ_TRIES; i++) {
        if (!memory_load64(memory, gpa + 8, &entry->high) ||
            !memory_load64(memory, gpa, &again)) {
            return false;
        }
        if (again == entry->low) {
            break;
        }
        entry->low = again;
    }
    return true;
}

static enum vtd_reason root_read(const struct vtd *vtd, const struct memory_snapshot *memory,
                                 uint16_t id, uint64_t *table)
{
    uint64_t base = vtd->state.root & RTADDR_ADDRESS;
    struct entry root;

    if (vtd->state.root & RTADDR_TTM) {
        return VTD_MODE_INVALID;
    }
    if (base > vtd_host_last(vtd) || !entry_read(memory, base + (id >> 8) * 16u, &root)) {
        return VTD_ROOT_UNREADABLE;
    }
    if (!(root.low & ROOT_PRESENT)) {
        return VTD_ROOT_NOT_PRESENT;
    }
    if ((root.low & (ROOT_RESERVED | ~vtd_host_last(vtd))) || root.high) {
        return VTD_ROOT_RESERVED;
    }
    *table = root.low & ~0xfffULL;
    return VTD_OK;
}

/* The number of levels that the address width field asks for; 0: unsupported. */
static uint8_t levels_of(const struct vtd *vtd, uint64_t high)
{
    switch (high & CONTEXT_HIGH_AW) {
    case 1:
        return 3;
    case 2:
        return vtd->config.address_width >= 48 ? 4 : 0;
    case 3:
        return vtd->config.address_width >= 57 ? 5 : 0;
    default:
        return 0;
    }
}

static bool type_supported(const struct vtd *vtd, enum vtd_translation_type type)
{
    switch (type) {
    case VTD_TT_UNTRANSLATED:
        return true;
    case VTD_TT_DEVICE_TLB:
        return vtd->config.device_tlb;
    case VTD_TT_PASS_THROUGH:
        return !vtd->config.no_pass_through;
    default:
        return false;
    }
}

static bool context_reserved(const struct vtd *vtd, const struct entry *entry,
                             enum vtd_translation_type type)
{
    uint64_t domain = entry->high >> CONTEXT_HIGH_DID_SHIFT & 0xffff;

    /* Pass-through ignores the table pointer. */
    return (entry->low & CONTEXT_RESERVED) || (entry->high & CONTEXT_HIGH_RESERVED) ||
           domain >> vtd->config.domain_bits ||
           (type != VTD_TT_PASS_THROUGH && (entry->low & ~0xfffULL) > vtd_host_last(vtd));
}

static enum vtd_reason context_decode(const struct vtd *vtd, const struct entry *entry,
                                      struct vtd_context *context)
{
    enum vtd_translation_type type = entry->low >> CONTEXT_TT_SHIFT & 3;
    unsigned bits;

    context->fault_disable = (entry->low & CONTEXT_FPD) != 0;
    if (!(entry->low & CONTEXT_PRESENT)) {
        return VTD_CONTEXT_NOT_PRESENT;
    }
    if (context_reserved(vtd, entry, type)) {
        return VTD_CONTEXT_RESERVED;
    }
    context->levels = levels_of(vtd, entry->high);
    if (!context->levels || !type_supported(vtd, type)) {
        return VTD_CONTEXT_INVALID;
    }
    context->type = type;
    context->domain = (uint16_t)(entry->high >> CONTEXT_HIGH_DID_SHIFT);
    context->root = entry->low & ~0xfffULL;
    bits = 12 + 9u * context->levels;
    bits = bits < vtd->config.address_width ? bits : vtd->config.address_width;
    context->last = (1ULL << bits) - 1;
    return VTD_OK;
}

enum vtd_reason vtd_context_fetch(struct vtd *vtd, uint16_t id, struct vtd_context *context)
{
    const struct memory_snapshot *memory = memory_snapshot(vtd->iommu.memory);
    enum vtd_reason reason;
    struct entry entry;
    uint64_t table = 0;

    *context = (struct vtd_context){.translating = vtd->state.translating != 0};
    if (!context->translating) {
        return VTD_OK;
    }
    vtd->iommu.stats.context_fetches++;
    reason = root_read(vtd, memory, id, &table);
    if (reason) {
        return reason;
    }
    if (!entry_read(memory, table + (id & 0xff) * 16u, &entry)) {
        return VTD_CONTEXT_UNREADABLE;
    }
    return context_decode(vtd, &entry, context);
}

static bool uses_cache(const struct vtd_context *context)
{
    return context->translating && context->type != VTD_TT_PASS_THROUGH;
}

static void not_remembered(struct vtd *vtd, const struct requester *requester)
{
    struct viommu_event event = {
        .kind = VIOMMU_EVENT_HOST_FAILURE,
        .requester = requester->id,
        .error = -ENOMEM,
        .text = "no memory to remember a requester's context: its requests are slow",
    };

    iommu_post_event(&vtd->iommu, &event);
}

/*
 * Remembers a valid context. Without memory it is used once, and fetched again for the next
 * request. Returns what to use.
 */
static const struct vtd_context *context_publish(struct vtd *vtd, struct requester *requester,
                                                 const struct vtd_context *context)
{
    struct vtd_context *copy = base_alloc(sizeof(*copy));
    struct iotlb_key key = {context->root, context->domain, context->levels};

    if (!copy) {
        not_remembered(vtd, requester);
        return context;
    }
    *copy = *context;
    if (uses_cache(context)) {
        copy->base.tag = iotlb_tag_get(&vtd->iommu.iotlb, &key);
        if (!copy->base.tag) {
            base_free(copy);
            not_remembered(vtd, requester);
            return context;
        }
    }
    if (vtd->iommu.iotlb.renew_target) {
        /* Tag ids ran out: viommu_process ends the renewal. */
        iommu_kick(&vtd->iommu);
    }
    atomic_store_explicit(&requester->context, &copy->base, memory_order_release);
    return copy;
}

static const struct vtd_context *context_known(struct requester *requester)
{
    return (const struct vtd_context *)atomic_load_explicit(&requester->context,
                                                            memory_order_acquire);
}

enum vtd_reason vtd_context_get(struct vtd *vtd, struct requester *requester,
                                struct vtd_context *own, const struct vtd_context **context)
{
    enum vtd_reason reason = VTD_OK;

    if (vtd->iommu.kept) {
        *context = own;
        return vtd_kept_context_get(vtd, requester->id, own);
    }
    *context = context_known(requester);
    if (*context) {
        return VTD_OK;
    }
    iommu_lock(&vtd->iommu);
    *context = context_known(requester);
    if (!*context) {
        *context = own;
        reason = vtd_context_fetch(vtd, requester->id, own);
        if (!reason && requester->users) {
            *context = context_publish(vtd, requester, own);
        }
    }
    iommu_unlock(&vtd->iommu);
    return reason;
}

void vtd_contexts_forget_domain(struct vtd *vtd, uint16_t domain)
{
    for (unsigned i = 0; i < REQUESTER_BUCKETS; i++) {
        for (struct requester *r = vtd->iommu.requesters[i]; r; r = r->next) {
            const struct vtd_context *context = (struct vtd_context *)atomic_load(&r->context);

            /* One that is not known may have been of this domain. */
            if (!context || (context->translating && context->domain == domain)) {
                requester_forget(&vtd->iommu, r);
            }
        }
    }
}

void vtd_view(struct viommu *iommu, uint16_t id, struct shadow_view *out)
{
    struct vtd *vtd = vtd_of(iommu);
    struct vtd_context context;

    *out = (struct shadow_view){.kind = VIEW_NONE};
    if (vtd_context_fetch(vtd, id, &context)) {
        return;
    }
    if (!uses_cache(&context)) {
        out->kind = VIEW_IDENTITY;
        out->last = vtd_host_last(vtd);
        return;
    }
    *out = (struct shadow_view){
        .kind = VIEW_TABLES,
        .domain = context.domain,
        .levels = context.levels,
        .root = context.root,
    };
}
