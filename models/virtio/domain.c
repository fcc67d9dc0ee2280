/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Domains, endpoints and mappings: what requests do, once they are known to be well formed.
 *
 * Each function reserves whatever it needs, and only then changes something: what is refused has
 * changed nothing.
 *
 * Removing mappings costs time in proportion to them; each was paid for by a request that made it.
 */
#include "base/alloc.h"
#include "virtio/unit.h"

#include <errno.h>

/* ---- indices ---- */

int virtio_index_add(struct range_map *index, uint32_t id, struct virtio_domain *domain)
{
    struct range_run run = {.first = id, .last = id, .target = (uintptr_t)domain};

    return range_map_insert(index, &run);
}

struct virtio_domain *virtio_index_find(const struct range_map *index, uint32_t id)
{
    struct range_run run;

    return range_map_find(index, id, &run) ? (struct virtio_domain *)(uintptr_t)run.target : NULL;
}

struct virtio_domain *virtio_index_next(const struct range_map *index, uint32_t *id)
{
    struct range_run run;

    if (!range_map_from(index, *id, &run)) {
        return NULL;
    }
    *id = (uint32_t)run.first;
    return (struct virtio_domain *)(uintptr_t)run.target;
}

struct virtio_domain *virtio_domain_find(struct virtio *virtio, uint32_t id)
{
    struct virtio_domain *domain = virtio->recent;

    if (domain && domain->id == id) {
        return domain;
    }
    domain = virtio_index_find(&virtio->domains, id);
    virtio->recent = domain;
    return domain;
}

struct virtio_domain *virtio_endpoint_domain(const struct virtio *virtio, uint32_t endpoint)
{
    return virtio_index_find(&virtio->endpoints, endpoint);
}

/* ---- domains ---- */

static struct virtio_domain *domain_create(struct virtio *virtio, uint32_t id, bool bypass)
{
    struct virtio_domain *domain = base_alloc(sizeof(*domain));

    if (!domain) {
        return NULL;
    }
    mappings_init(&domain->mappings, virtio->iommu.epoch);
    domain->id = id;
    domain->bypass = bypass;
    range_map_init(&domain->closed);
    if (virtio_index_add(&virtio->domains, id, domain)) {
        base_free(domain);
        return NULL;
    }
    domain->serial = ++virtio->serial;
    return domain;
}

static void domain_destroy(struct virtio *virtio, struct virtio_domain *domain)
{
    (void)range_map_erase(&virtio->domains, domain->id, domain->id, NULL);
    virtio->recent = NULL;
    virtio->mappings -= domain->mappings.map.count - domain->leaving;
    range_map_fini(&domain->closed);
    mappings_put(&domain->mappings);
}

void virtio_domains_free(struct range_map *domains)
{
    struct virtio_domain *domain;
    uint32_t id = 0;

    while ((domain = virtio_index_next(domains, &id))) {
        (void)range_map_erase(domains, id, id, NULL);
        domain->endpoints = 0;
        range_map_fini(&domain->closed);
        mappings_put(&domain->mappings);
    }
    range_map_fini(domains);
}

void virtio_domains_drop(struct virtio *virtio)
{
    /* No section that begins from now on finds a domain. */
    requesters_forget(&virtio->iommu, 0, 0);
    requesters_told(&virtio->iommu);
    virtio->recent = NULL;
    virtio_domains_free(&virtio->domains);
    range_map_fini(&virtio->endpoints);
    virtio->mappings = 0;
}

/* ---- endpoints ---- */

/*
 * Takes an endpoint out of its domain, which goes with its last one. By then no section finds it
 * any more: one that begins after the domain was handed to the epoch does not hold it back.
 */
static void endpoint_leave(struct virtio *virtio, struct virtio_domain *domain,
                           struct requester *requester)
{
    requester_forget(&virtio->iommu, requester);
    (void)range_map_erase(&virtio->endpoints, requester->id, requester->id, NULL);
    virtio_domain_open(domain, atomic_load(&requester->closed));
    if (!--domain->endpoints) {
        domain_destroy(virtio, domain);
    }
}

void virtio_requester_gone(struct viommu *iommu, struct requester *requester)
{
    struct virtio *virtio = virtio_of(iommu);
    struct virtio_domain *domain = virtio_endpoint_domain(virtio, requester->id);

    if (domain) {
        endpoint_leave(virtio, domain, requester);
        virtio_endpoint_gone(virtio);
    }
}

/* Whether one more domain may be made, when the endpoint has left the one where it is. */
static bool domains_have_room(const struct virtio *virtio, const struct virtio_domain *old)
{
    size_t count = virtio->domains.count - (old && old->endpoints == 1);

    return count < virtio->config.domains_max;
}

/* Whether an endpoint may join the domain, or one may be made for it. */
static uint8_t may_attach(const struct virtio *virtio, const struct virtio_domain *domain,
                          const struct virtio_domain *old, const struct requester *requester,
                          bool bypass)
{
    uint32_t limit = virtio->config.domain_endpoints_max;

    if (!domain) {
        return domains_have_room(virtio, old) ? VIOMMU_VIRTIO_OK : VIOMMU_VIRTIO_NOMEM;
    }
    if (domain->bypass != bypass) {
        return VIOMMU_VIRTIO_INVAL;
    }
    if (domain == old) {
        return VIOMMU_VIRTIO_OK;
    }
    return (limit && domain->endpoints >= limit) ||
                   !virtio_domain_fits(domain, atomic_load(&requester->closed))
               ? VIOMMU_VIRTIO_UNSUPP
               : VIOMMU_VIRTIO_OK;
}

uint8_t virtio_may_attach(struct virtio *virtio, uint32_t id,
                          const struct requester *requester, bool bypass)
{
    return may_attach(virtio, virtio_domain_find(virtio, id),
                      virtio_endpoint_domain(virtio, requester->id), requester, bypass);
}

bool virtio_operation_need(struct virtio *virtio, struct virtio_operation **operation)
{
    if (!*operation) {
        *operation = virtio_operation_new(virtio);
    }
    return *operation != NULL;
}

/*
 * Whether it takes something away, or a mirror has to follow. Bypass may have been switched off
 * just now, and not everybody told of it: by the time they are, this endpoint would not be among
 * them.
 */
static bool attach_operates(const struct virtio *virtio, const struct virtio_domain *old,
                            const struct requester *requester)
{
    return old || virtio_bypasses(virtio) || virtio->unasked.bypass ||
           follow_mirrors(&virtio->iommu, requester->id);
}

uint8_t virtio_attach(struct virtio *virtio, uint32_t id, struct requester *requester, bool bypass,
                      struct virtio_operation **operation)
{
    struct virtio_domain *old = virtio_endpoint_domain(virtio, requester->id);
    struct virtio_domain *domain = virtio_domain_find(virtio, id);
    bool operates = attach_operates(virtio, old, requester);
    bool made = !domain;
    uint8_t status = may_attach(virtio, domain, old, requester, bypass);

    if (status || (domain && domain == old)) {
        return status;
    }
    if (operates && !virtio_operation_need(virtio, operation)) {
        return VIOMMU_VIRTIO_NOMEM;
    }
    domain = made ? domain_create(virtio, id, bypass) : domain;
    if (!domain) {
        return VIOMMU_VIRTIO_NOMEM;
    }
    if (range_map_reserve(&virtio->endpoints, 1) ||
        virtio_domain_close(domain, atomic_load(&requester->closed))) {
        range_map_release(&virtio->endpoints);
        if (made) {
            domain_destroy(virtio, domain);
        }
        return VIOMMU_VIRTIO_NOMEM;
    }
    if (old) {
        endpoint_leave(virtio, old, requester);
    }
    (void)virtio_index_add(&virtio->endpoints, requester->id, domain);
    range_map_release(&virtio->endpoints);
    domain->endpoints++;
    if (operates) {
        virtio_operation_endpoint(virtio, *operation, requester);
    }
    return VIOMMU_VIRTIO_OK;
}

uint8_t virtio_detach(struct virtio *virtio, struct virtio_domain *domain,
                      struct requester *requester, struct virtio_operation **operation)
{
    if (!virtio_operation_need(virtio, operation)) {
        return VIOMMU_VIRTIO_NOMEM;
    }
    endpoint_leave(virtio, domain, requester);
    virtio_operation_endpoint(virtio, *operation, requester);
    return VIOMMU_VIRTIO_OK;
}

/* ---- mappings ---- */

/* Whether no mapping meets the run. */
static bool is_free(const struct range_map *map, const struct range_run *run)
{
    struct range_run there;

    return !range_map_from(map, run->first, &there) || there.first > run->last;
}

static uint8_t insert(struct virtio *virtio, struct virtio_domain *domain,
                      const struct range_run *run)
{
    int ret;

    if (virtio->mappings >= virtio->config.mappings_max) {
        return is_free(&domain->mappings.map, run) ? VIOMMU_VIRTIO_NOMEM : VIOMMU_VIRTIO_INVAL;
    }
    ret = range_map_insert(&domain->mappings.map, run);
    if (ret) {
        return ret == -ENOMEM ? VIOMMU_VIRTIO_NOMEM : VIOMMU_VIRTIO_INVAL;
    }
    virtio->mappings++;
    return VIOMMU_VIRTIO_OK;
}

uint8_t virtio_map(struct virtio *virtio, struct virtio_domain *domain,
                   const struct range_run *run, struct virtio_operation **operation)
{
    uint8_t status;

    if (!follow_shares(&virtio->iommu, &domain->mappings)) {
        return insert(virtio, domain, run);
    }
    if (!virtio_mirrors_allow(virtio, domain, run)) {
        return VIOMMU_VIRTIO_INVAL;
    }
    if (!virtio_operation_need(virtio, operation)) {
        return VIOMMU_VIRTIO_NOMEM;
    }
    mappings_try(&domain->mappings);
    status = insert(virtio, domain, run);
    if (!status) {
        virtio_try_map(virtio, domain, run, *operation);
    }
    return status;
}

/* Whether no mapping reaches over a border of the range. */
static bool covers_whole(const struct range_map *map, uint64_t first, uint64_t last)
{
    struct range_run run;

    if (range_map_find(map, first, &run) && run.first < first) {
        return false;
    }
    return !range_map_find(map, last, &run) || run.last == last;
}

/* UNMAP where mirrors have to follow: what goes stays in the map until they have. */
static uint8_t unmap_followed(struct virtio *virtio, struct virtio_domain *domain, uint64_t first,
                              uint64_t last, struct virtio_operation **operation)
{
    struct range_run run;

    if (!covers_whole(&domain->mappings.map, first, last)) {
        return VIOMMU_VIRTIO_RANGE;
    }
    if (!range_map_from(&domain->mappings.map, first, &run) || run.first > last) {
        return VIOMMU_VIRTIO_OK;
    }
    if (!virtio_operation_need(virtio, operation)) {
        return VIOMMU_VIRTIO_NOMEM;
    }
    mappings_try(&domain->mappings);
    virtio_operation_pages(virtio, *operation, domain, run.first, last);
    virtio_try_unmap(virtio, domain, run.first, last, *operation);
    return VIOMMU_VIRTIO_OK;
}

uint8_t virtio_unmap(struct virtio *virtio, struct virtio_domain *domain, uint64_t first,
                     uint64_t last, struct virtio_operation **operation)
{
    struct range_erased erased;

    if (follow_shares(&virtio->iommu, &domain->mappings)) {
        return unmap_followed(virtio, domain, first, last, operation);
    }
    /* Nothing may fail once mappings have gone: should it need an operation, there is one. */
    if (virtio->ready_used && !virtio_operation_need(virtio, operation)) {
        return VIOMMU_VIRTIO_NOMEM;
    }
    if (range_map_erase_inside(&domain->mappings.map, first, last, &erased)) {
        return VIOMMU_VIRTIO_RANGE;
    }
    virtio->mappings -= erased.count;
    if (erased.count && !virtio_pages_at_once(virtio, domain, erased.first, erased.last)) {
        (void)virtio_operation_need(virtio, operation);
        virtio_operation_pages(virtio, *operation, domain, erased.first, erased.last);
    }
    return VIOMMU_VIRTIO_OK;
}
