/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Addresses that endpoints may not use: what is closed to a requester (device/reserved.h), which
 * comes of the IOVA space that its device is in, and the interrupt window.
 *
 * The specification has two subtypes of reserved regions. MSI is the interrupt window's alone: an
 * endpoint is to have one region of that subtype at most. Everything else is RESERVED: reservations
 * of all types that conflict with mappings, and what the limits of the space leave out of the input
 * range. It has none for addresses that are always mapped one to one (VIOMMU_IOVA_DIRECT). They are
 * RESERVED as well: the guest cannot use them, and neither can the device through this IOMMU.
 * Relaxable ones are not told, and can be mapped.
 *
 * A domain keeps what is closed to its endpoints together, counted (iova/cover.h): so whether a MAP
 * meets it is found in O(log n), and an endpoint that leaves gives back exactly what it brought.
 */
#include "virtio/unit.h"

#include <errno.h>
#include <stdio.h>

static bool meets_mapping(const struct virtio_domain *domain, const struct viommu_range *range,
                          struct range_run *run)
{
    return range_map_from(&domain->mappings.map, range->first, run) && run->first <= range->last;
}

/* ---- what a domain keeps ---- */

int virtio_domain_close(struct virtio_domain *domain, const struct closed *closed)
{
    size_t need = 0;

    for (size_t i = 0; closed && i < closed->count; i++) {
        need += cover_need(&domain->closed, closed->ranges[i].first, closed->ranges[i].last);
    }
    if (!need) {
        return 0;
    }
    if (range_map_reserve(&domain->closed, need)) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < closed->count; i++) {
        cover_add(&domain->closed, closed->ranges[i].first, closed->ranges[i].last);
    }
    range_map_release(&domain->closed);
    return 0;
}

void virtio_domain_open(struct virtio_domain *domain, const struct closed *closed)
{
    for (size_t i = 0; closed && i < closed->count; i++) {
        cover_remove(&domain->closed, closed->ranges[i].first, closed->ranges[i].last);
    }
}

bool virtio_domain_fits(const struct virtio_domain *domain, const struct closed *closed)
{
    struct range_run run;

    for (size_t i = 0; closed && i < closed->count; i++) {
        if (meets_mapping(domain, &closed->ranges[i], &run)) {
            return false;
        }
    }
    return true;
}

bool virtio_is_reserved(const struct virtio_domain *domain, uint64_t first, uint64_t last)
{
    return (first <= VIRTIO_INTERRUPT_LAST && last >= VIRTIO_INTERRUPT_FIRST) ||
           (domain->closed.count && cover_meets(&domain->closed, first, last));
}

/* ---- what the space says ---- */

/* The part of a closed range that the guest is told of; false for none. */
static bool told_of(const struct virtio *virtio, struct viommu_range *range)
{
    const struct viommu_range *input = &virtio->config.input;

    range->first = range->first > input->first ? range->first : input->first;
    range->last = range->last < input->last ? range->last : input->last;
    return range->first <= range->last;
}

/* How many regions PROBE tells. */
static size_t regions(const struct virtio *virtio, const struct closed *closed)
{
    size_t count = 1;

    for (size_t i = 0; i < closed->count; i++) {
        struct viommu_range range = closed->ranges[i];

        count += told_of(virtio, &range);
    }
    return count;
}

/* Whether something is closed now that was not. */
static bool closes_more(const struct closed *old, const struct closed *closed)
{
    size_t at = 0;

    for (size_t i = 0; i < closed->count; i++) {
        const struct viommu_range *range = &closed->ranges[i];

        while (old && at < old->count && old->ranges[at].last < range->first) {
            at++;
        }
        if (!old || at == old->count || old->ranges[at].first > range->first ||
            old->ranges[at].last < range->last) {
            return true;
        }
    }
    return false;
}

/*
 * While mirrors try a change what comes is in the map already, and what goes is still there; an
 * ATTACH is judged once more when they have.
 */
int virtio_closing(struct viommu *iommu, struct requester *requester, const struct closed *closed,
                   struct viommu_iova_side *holder)
{
    struct virtio *virtio = virtio_of(iommu);
    struct virtio_domain *domain = virtio_endpoint_domain(virtio, requester->id);
    struct range_run run;

    if (regions(virtio, closed) > virtio->config.probe_size / VIRTIO_RESV_MEM_SIZE) {
        return -ENOSPC;
    }
    for (size_t i = 0; domain && i < closed->count; i++) {
        if (meets_mapping(domain, &closed->ranges[i], &run)) {
            *holder = (struct viommu_iova_side){.kind = VIOMMU_IOVA_MAPPING,
                                                .range = {run.first, run.last}};
            snprintf(holder->owner, sizeof(holder->owner), "domain %u of %02x:%02x.%x", domain->id,
                     requester->id >> 8, requester->id >> 3 & 0x1f, requester->id & 7u);
            return -EEXIST;
        }
    }
    if (domain && virtio_domain_close(domain, closed)) {
        return -ENOMEM;
    }
    /* Requests in bypass mode that began before, and windows, may still use it. */
    if (virtio_reaches_all(virtio, domain) && atomic_load(&iommu->started) &&
        closes_more(atomic_load(&requester->closed), closed)) {
        virtio_bypass_closed(virtio);
    }
    return 0;
}

void virtio_closed(struct viommu *iommu, struct requester *requester, const struct closed *closed)
{
    struct virtio_domain *domain = virtio_endpoint_domain(virtio_of(iommu), requester->id);

    if (domain) {
        virtio_domain_open(domain, closed);
    }
}

bool virtio_maps(struct viommu *iommu, const struct requester *requester, uint64_t first,
                 uint64_t size, uint64_t *behind)
{
    struct virtio_domain *domain = virtio_endpoint_domain(virtio_of(iommu), requester->id);
    uint64_t at;

    if (!domain) {
        return false;
    }
    if (range_map_find_gap(&domain->mappings.map, first, UINT64_MAX, size, 1, &at)) {
        *behind = UINT64_MAX;
        return true;
    }
    *behind = at - 1; /* not used when there is a gap at the beginning */
    return at != first;
}

/* ---- PROBE ---- */

static uint8_t *put_region(uint8_t *at, uint8_t subtype, const struct viommu_range *range)
{
    uint8_t property[VIRTIO_RESV_MEM_SIZE] = {0};

    virtio_put16(property, VIRTIO_RESV_MEM);
    virtio_put16(property + 2, VIRTIO_RESV_MEM_LENGTH);
    property[4] = subtype;
    virtio_put64(property + 8, range->first);
    virtio_put64(property + 16, range->last);
    memcpy(at, property, sizeof(property));
    return at + sizeof(property);
}

void virtio_put_properties(const struct virtio *virtio, const struct requester *requester,
                           uint8_t *at)
{
    static const struct viommu_range interrupts = {VIRTIO_INTERRUPT_FIRST, VIRTIO_INTERRUPT_LAST};
    const struct closed *closed = atomic_load(&requester->closed);

    memset(at, 0, virtio->config.probe_size);
    at = put_region(at, VIRTIO_RESV_MEM_MSI, &interrupts);
    for (size_t i = 0; closed && i < closed->count; i++) {
        struct viommu_range range = closed->ranges[i];

        if (told_of(virtio, &range)) {
            at = put_region(at, VIRTIO_RESV_MEM_RESERVED, &range);
        }
    }
}
