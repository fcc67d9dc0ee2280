/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Requests: decoded, checked, carried out, answered.
 *
 * What the driver wrote is copied once, then decoded as a whole, then checked in the order of the
 * specification's text, and only then anything changes. Where the text leaves the status to us:
 *   - a domain id outside the domain range is RANGE in ATTACH; elsewhere no such domain exists
 *   - a range that ends before it begins is INVAL; one outside the input range is RANGE
 *   - guest addresses past the guest-physical space are FAULT
 *   - a range that meets what is reserved for an endpoint of the domain is INVAL
 *   - so is reserved what the domain has mapped: ATTACH is UNSUPP
 *   - UNMAP with a reserved field that is not zero is INVAL, and removes nothing
 *   - a request too small for its type, with room for a tail, is INVAL
 *   - MAP and UNMAP without the feature MAP_UNMAP are UNSUPP
 */
#include "virtio/unit.h"

#include <errno.h>

/* A request under way through this file. */
struct request {
    struct virtio *virtio;
    uint8_t in[VIRTIO_REQUEST_MAX];
    size_t in_size;
    uint8_t *out;
    size_t out_size;
    size_t written;
    struct virtio_operation *operation; /* begun, where something was taken away */
};

static uint32_t field32(const struct request *request, unsigned at)
{
    return virtio_get32(request->in + at);
}

static uint64_t field64(const struct request *request, unsigned at)
{
    return virtio_get64(request->in + at);
}

static struct requester *endpoint_find(const struct request *request, uint32_t endpoint)
{
    return endpoint > UINT16_MAX ? NULL
                                 : requester_find(&request->virtio->iommu, (uint16_t)endpoint);
}

static bool accepted(const struct request *request, enum viommu_virtio_feature feature)
{
    return (request->virtio->accepted & feature) != 0;
}

/* ---- ATTACH, DETACH ---- */

static uint8_t attach(struct request *request)
{
    const struct viommu_virtio_config *config = &request->virtio->config;
    uint32_t domain = field32(request, 4);
    uint32_t flags = field32(request, 12);
    uint32_t known = accepted(request, VIOMMU_VIRTIO_BYPASS_CONFIG) ? VIRTIO_ATTACH_BYPASS : 0;
    struct requester *requester = endpoint_find(request, field32(request, 8));

    if (field32(request, 16) || (flags & ~known)) {
        return VIOMMU_VIRTIO_INVAL;
    }
    if (!requester) {
        return VIOMMU_VIRTIO_NOENT;
    }
    if (domain < config->domain_first || domain > config->domain_last) {
        return VIOMMU_VIRTIO_RANGE;
    }
    return virtio_attach(request->virtio, domain, requester, flags & VIRTIO_ATTACH_BYPASS,
                         &request->operation);
}

static uint8_t detach(struct request *request)
{
    struct virtio_domain *domain = virtio_domain_find(request->virtio, field32(request, 4));
    struct requester *requester = endpoint_find(request, field32(request, 8));

    if (!requester) {
        return VIOMMU_VIRTIO_NOENT;
    }
    if (!domain || virtio_endpoint_domain(request->virtio, requester->id) != domain) {
        return VIOMMU_VIRTIO_INVAL;
    }
    return virtio_detach(request->virtio, domain, requester, &request->operation);
}

/* ---- MAP, UNMAP ---- */

/* The domain of a MAP or UNMAP, or why it is none. */
static uint8_t domain_of(const struct request *request, struct virtio_domain **domain)
{
    *domain = virtio_domain_find(request->virtio, field32(request, 4));
    if (!*domain) {
        return VIOMMU_VIRTIO_NOENT;
    }
    return (*domain)->bypass ? VIOMMU_VIRTIO_INVAL : VIOMMU_VIRTIO_OK;
}

uint8_t virtio_addresses_check(const struct virtio *virtio, const struct range_run *run)
{
    const struct viommu_virtio_config *config = &virtio->config;
    unsigned width = config->host_address_width;
    uint64_t host_last = width < 64 ? (1ULL << width) - 1 : UINT64_MAX;

    if (run->first > run->last) {
        return VIOMMU_VIRTIO_INVAL;
    }
    if ((run->first | run->target | (run->last + 1)) & virtio->granule) {
        return VIOMMU_VIRTIO_RANGE;
    }
    if (run->first < config->input.first || run->last > config->input.last) {
        return VIOMMU_VIRTIO_RANGE;
    }
    if (run->target > host_last || run->last - run->first > host_last - run->target) {
        return VIOMMU_VIRTIO_FAULT;
    }
    return VIOMMU_VIRTIO_OK;
}

static uint8_t map(struct request *request)
{
    uint32_t flags = field32(request, 32);
    uint32_t known = VIRTIO_MAP_READ | VIRTIO_MAP_WRITE |
                     (accepted(request, VIOMMU_VIRTIO_MMIO) ? VIRTIO_MAP_MMIO : 0);
    struct range_run run = {
        .first = field64(request, 8),
        .last = field64(request, 16),
        .target = field64(request, 24),
    };
    struct virtio_domain *domain;
    uint8_t status;

    if (!accepted(request, VIOMMU_VIRTIO_MAP_UNMAP)) {
        return VIOMMU_VIRTIO_UNSUPP;
    }
    if (flags & ~known) {
        return VIOMMU_VIRTIO_INVAL;
    }
    run.tag = (flags & VIRTIO_MAP_READ ? VIOMMU_READ : 0) |
              (flags & VIRTIO_MAP_WRITE ? VIOMMU_WRITE : 0) |
              (flags & VIRTIO_MAP_MMIO ? MAPPING_MMIO : 0);
    status = domain_of(request, &domain);
    if (!status) {
        status = virtio_addresses_check(request->virtio, &run);
    }
    if (!status && virtio_is_reserved(domain, run.first, run.last)) {
        status = VIOMMU_VIRTIO_INVAL;
    }
    return status ? status : virtio_map(request->virtio, domain, &run);
}

static uint8_t unmap(struct request *request)
{
    uint64_t first = field64(request, 8);
    uint64_t last = field64(request, 16);
    struct virtio_domain *domain;
    uint8_t status;

    if (!accepted(request, VIOMMU_VIRTIO_MAP_UNMAP)) {
        return VIOMMU_VIRTIO_UNSUPP;
    }
    if (field32(request, 24)) {
        return VIOMMU_VIRTIO_INVAL;
    }
    status = domain_of(request, &domain);
    if (status || first > last) {
        return status ? status : VIOMMU_VIRTIO_INVAL;
    }
    return virtio_unmap(request->virtio, domain, first, last, &request->operation);
}

/* ---- PROBE ---- */

static uint8_t probe(struct request *request)
{
    const struct viommu_virtio_config *config = &request->virtio->config;
    const struct requester *requester = endpoint_find(request, field32(request, 4));

    if (request->out_size < (size_t)config->probe_size + VIRTIO_TAIL_SIZE) {
        return VIOMMU_VIRTIO_INVAL;
    }
    if (!requester) {
        return VIOMMU_VIRTIO_NOENT;
    }
    virtio_put_properties(request->virtio, requester, request->out);
    return VIOMMU_VIRTIO_OK;
}

/* ---- all of them ---- */

static const struct {
    size_t size;
    uint8_t (*run)(struct request *request);
} types[] = {
    [VIRTIO_ATTACH] = {VIRTIO_ATTACH_SIZE, attach}, [VIRTIO_DETACH] = {VIRTIO_DETACH_SIZE, detach},
    [VIRTIO_MAP] = {VIRTIO_MAP_SIZE, map},          [VIRTIO_UNMAP] = {VIRTIO_UNMAP_SIZE, unmap},
    [VIRTIO_PROBE] = {VIRTIO_PROBE_SIZE, probe},
};

static bool is_known(const struct request *request)
{
    unsigned type = request->in[0];

    return type >= VIRTIO_ATTACH && type <= VIRTIO_PROBE &&
           (type != VIRTIO_PROBE || (request->virtio->config.features & VIOMMU_VIRTIO_PROBE));
}

/* Where the tail begins: behind the properties of PROBE, as far as there is room for them. */
static size_t tail_at(const struct request *request)
{
    size_t properties = request->virtio->config.probe_size;

    if (request->in[0] != VIRTIO_PROBE) {
        return 0;
    }
    return request->out_size - VIRTIO_TAIL_SIZE < properties
               ? request->out_size - VIRTIO_TAIL_SIZE
               : properties;
}

static void answer(struct request *request, uint8_t status)
{
    const uint8_t tail[VIRTIO_TAIL_SIZE] = {status};
    size_t at = tail_at(request);

    memcpy(request->out + at, tail, sizeof(tail));
    request->written = at + sizeof(tail);
}

/*
 * What was done is complete when what it took away is, and when all that came before is complete.
 * Returns whether it is pending.
 */
static bool finish(struct request *request, uint8_t status, uint64_t token)
{
    struct virtio *virtio = request->virtio;
    struct virtio_operation *operation = request->operation;

    if (!operation) {
        return false;
    }
    operation->tells = true;
    operation->token = token;
    operation->status = status;
    virtio_operation_append(virtio, operation);
    virtio->iommu.drain_open = 0;
    virtio_operations_advance(virtio);
    virtio->iommu.drain_open = 0;
    if (virtio->first == operation && virtio_operation_take(virtio)) {
        virtio_operation_free(operation);
        return false;
    }
    return true;
}

/*
 * Behind others a request that takes nothing away needs an operation, too, so that it is told in
 * its turn. PROBE changes nothing, and is told at once.
 */
static bool needs_place(const struct request *request)
{
    return request->virtio->first && request->in[0] != VIRTIO_PROBE;
}

/* Carries a request of the right size out. `place` is for one that needs it, or NULL. */
static uint8_t carry_out(struct request *request, struct virtio_operation *place)
{
    uint8_t status = types[request->in[0]].run(request);

    if (request->operation || !place) {
        virtio_operation_free(place);
    } else {
        place->phase = PHASE_DONE;
        request->operation = place;
    }
    return status;
}

/* Returns 0 or VIOMMU_PENDING. Under the lock. */
static int run(struct request *request, uint64_t token)
{
    struct virtio_operation *place = NULL;
    uint8_t status = VIOMMU_VIRTIO_INVAL;

    if (request->in_size >= types[request->in[0]].size) {
        place = needs_place(request) ? virtio_operation_new() : NULL;
        status = needs_place(request) && !place ? VIOMMU_VIRTIO_NOMEM : carry_out(request, place);
    }
    request->virtio->requests++;
    request->virtio->refused += status != VIOMMU_VIRTIO_OK;
    if (finish(request, status, token)) {
        iommu_kick(&request->virtio->iommu);
        return VIOMMU_PENDING;
    }
    answer(request, status);
    return 0;
}

static bool is_busy(const struct virtio *virtio)
{
    return virtio->count >= VIRTIO_OPERATIONS ||
           virtio->iommu.notify.outstanding >= NOTIFY_OUTSTANDING_MAX;
}

int viommu_virtio_request(struct viommu *iommu, const void *in, size_t in_size, void *out,
                          size_t out_size, uint64_t token, size_t *written)
{
    struct request request = {
        .virtio = virtio_checked(iommu), .in_size = in_size, .out = out, .out_size = out_size};
    int ret = 0;

    *written = 0;
    if (!request.virtio) {
        return -EINVAL;
    }
    if (!atomic_load(&iommu->started)) {
        return -EAGAIN;
    }
    if (iommu_reentered(iommu)) {
        return -EDEADLK;
    }
    if (in_size) {
        memcpy(request.in, in, in_size < sizeof(request.in) ? in_size : sizeof(request.in));
    }
    if (in_size < VIRTIO_HEAD_SIZE || out_size < VIRTIO_TAIL_SIZE || !is_known(&request)) {
        return 0;
    }
    iommu_lock(iommu);
    ret = is_busy(request.virtio) ? -EBUSY : run(&request, token);
    iommu_unlock(iommu);
    *written = request.written;
    epoch_reap(iommu->epoch);
    return ret;
}

int viommu_virtio_reset(struct viommu *iommu, uint64_t token)
{
    struct request request = {.virtio = virtio_checked(iommu)};
    struct virtio *virtio = request.virtio;
    int ret;

    if (!virtio) {
        return -EINVAL;
    }
    if (!atomic_load(&iommu->started)) {
        return -EAGAIN;
    }
    if (iommu_reentered(iommu)) {
        return -EDEADLK;
    }
    iommu_lock(iommu);
    request.operation = is_busy(virtio) ? NULL : virtio_operation_new();
    if (!request.operation) {
        ret = is_busy(virtio) ? -EBUSY : -ENOMEM;
    } else {
        virtio_domains_drop(virtio);
        virtio_faults_clear(virtio);
        virtio->accepted = 0;
        virtio_operation_everyone(virtio, request.operation);
        ret = finish(&request, VIOMMU_VIRTIO_OK, token) ? VIOMMU_PENDING : 0;
        iommu_kick(iommu);
    }
    iommu_unlock(iommu);
    epoch_reap(iommu->epoch);
    return ret;
}
