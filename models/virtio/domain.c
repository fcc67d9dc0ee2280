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

struct virtio_domain *virtio_domain_find(const struct virtio *virtio, uint32_t id)
{
    return virtio_index_find(&virtio->domains, id);
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
    domain->id = id;
    domain->bypass = bypass;
    range_map_init(&domain->map);
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
    virtio->mappings -= domain->map.count;
    range_map_fini(&domain->map);
    range_map_fini(&domain->closed);
    base_free(domain);
}

void virtio_domains_free(struct range_map *domains)
{
    struct virtio_domain *domain;
    uint32_t id = 0;

    while ((domain = virtio_index_next(domains, &id))) {
        (void)range_map_erase(domains, id, id, NULL);
        range_map_fini(&domain->map);
        range_map_fini(&domain->closed);
        base_free(domain);
    }
    range_map_fini(domains);
}

void virtio_domains_drop(struct virtio *virtio)
{
    virtio_domains_free(&virtio->domains);
    range_map_fini(&virtio->endpoints);
    virtio->mappings = 0;
}

/* ---- endpoints ---- */

/* Takes an endpoint out of its domain, which goes with its last one. */
static void endpoint_leave(struct virtio *virtio, struct virtio_domain *domain,
                           const struct requester *requester)
{
    (void)range_map_erase(&virtio->endpoints, requester->id, requester->id, NULL);
    virtio_domain_open(domain, atomic_load(&requester->closed));
    if (!--domain->endpoints) {
        domain_destroy(virtio, domain);
    }
}

void virtio_requester_gone(struct viommu *iommu, const struct requester *requester)
{
    struct virtio *virtio = virtio_of(iommu);
    struct virtio_domain *domain = virtio_endpoint_domain(virtio, requester->id);

    if (domain) {
        endpoint_leave(virtio, domain, requester);
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

uint8_t virtio_attach(struct virtio *virtio, uint32_t id, struct requester *requester, bool bypass,
                      struct virtio_operation **operation)
{
    struct virtio_domain *old = virtio_endpoint_domain(virtio, requester->id);
    struct virtio_domain *domain = virtio_domain_find(virtio, id);
    bool made = !domain;
    uint8_t status = may_attach(virtio, domain, old, requester, bypass);

    if (status || (domain && domain == old)) {
        return status;
    }
    if (old || virtio_bypasses(virtio)) {
        *operation = virtio_operation_new();
        if (!*operation) {
            return VIOMMU_VIRTIO_NOMEM;
        }
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
    if (*operation) {
        virtio_operation_endpoint(virtio, *operation, requester);
    }
    return VIOMMU_VIRTIO_OK;
}

uint8_t virtio_detach(struct virtio *virtio, struct virtio_domain *domain,
                      struct requester *requester, struct virtio_operation **operation)
{
    *operation = virtio_operation_new();
    if (!*operation) {
        return VIOMMU_VIRTIO_NOMEM;
    }
    endpoint_leave(virtio, domain, requester);
    virtio_operation_endpoint(virtio, *operation, requester);
    return VIOMMU_VIRTIO_OK;
}

/* ---- mappings ---- */

uint8_t virtio_map(struct virtio *virtio, struct virtio_domain *domain,
                   const struct range_run *run)
{
    struct range_run there;

    if (range_map_from(&domain->map, run->first, &there) && there.first <= run->last) {
        return VIOMMU_VIRTIO_INVAL;
    }
    if (virtio->mappings >= virtio->config.mappings_max || range_map_insert(&domain->map, run)) {
        return VIOMMU_VIRTIO_NOMEM;
    }
    virtio->mappings++;
    return VIOMMU_VIRTIO_OK;
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

/* Removes the mappings in the range. Returns whether there were some, and from where to where. */
static bool remove_mappings(struct virtio *virtio, struct virtio_domain *domain, uint64_t *first,
                            uint64_t *last)
{
    uint64_t at = *first;
    uint64_t limit = *last;
    struct range_run run;
    bool some = false;

    while (range_map_from(&domain->map, at, &run) && run.first <= limit) {
        (void)range_map_erase(&domain->map, run.first, run.last, NULL);
        virtio->mappings--;
        *first = some ? *first : run.first;
        *last = run.last;
        some = true;
        at = run.last;
    }
    return some;
}

uint8_t virtio_unmap(struct virtio *virtio, struct virtio_domain *domain, uint64_t first,
                     uint64_t last, struct virtio_operation **operation)
{
    struct range_run run;

    if (!covers_whole(&domain->map, first, last)) {
        return VIOMMU_VIRTIO_RANGE;
    }
    if (!range_map_from(&domain->map, first, &run) || run.first > last) {
        return VIOMMU_VIRTIO_OK;
    }
    *operation = virtio_operation_new();
    if (!*operation) {
        return VIOMMU_VIRTIO_NOMEM;
    }
    (void)remove_mappings(virtio, domain, &first, &last);
    virtio_operation_pages(virtio, *operation, domain, first, last);
    return VIOMMU_VIRTIO_OK;
}
