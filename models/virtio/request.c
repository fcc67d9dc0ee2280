/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Requests: decoded, checked, carried out, answered.
 *
 * What the driver wrote is copied once, then decoded as a whole, then checked in the order of the
 * specification's text, and only then anything changes. Where the text leaves the status to us:
 *   - a domain id outside the domain range is RANGE in ATTACH; elsewhere no such domain exists
 *   - whole granules that end before they begin are INVAL; ones outside the input range are RANGE
 *   - guest addresses past the guest-physical space are FAULT
 *   - a range that meets what is reserved for an endpoint of the domain is INVAL
 *   - so is reserved what the domain has mapped: ATTACH is UNSUPP
 *   - UNMAP with a reserved field that is not zero is INVAL, and removes nothing
 *   - a request too small for its type, with room for a tail, is INVAL
 *   - MAP and UNMAP without the feature MAP_UNMAP are UNSUPP
 * Of mirrors (mirror.c):
 *   - MAP where a mirror of the domain may not map is INVAL, as in a reserved region; ATTACH of an
 *     endpoint to a domain with such mappings is UNSUPP
 *   - MAP and ATTACH that a mirror cannot follow are NOMEM where the host says -ENOSPC, -ENOMEM or
 *     the like, otherwise DEVERR
 *   - a request that waited for its turn when the device was reset is IOERR
 *
 * While mirrors try a request all later ones, but PROBE, wait for their turn. With a hostile cache
 * they wait a while in any case, and all behind them: until then devices reach what they reached.
 */
#include "virtio/unit.h"

#include "iommu/watch.h"

#include <errno.h>

/* A request under way through this file. */
struct request {
    struct virtio *virtio;
    uint8_t in[VIRTIO_MAP_SIZE]; /* as much as there is, see copy_in */
    size_t in_size;
    uint8_t *out;
    size_t out_size;
    size_t written;
    uint64_t number;
    struct virtio_operation *operation; /* that it has, or begins; or NULL */
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
    uint8_t status;

    if (field32(request, 16) || (flags & ~known)) {
        return VIOMMU_VIRTIO_INVAL;
    }
    if (!requester) {
        return VIOMMU_VIRTIO_NOENT;
    }
    if (domain < config->domain_first || domain > config->domain_last) {
        return VIOMMU_VIRTIO_RANGE;
    }
    if (virtio_try_attach(request->virtio, domain, requester, flags & VIRTIO_ATTACH_BYPASS,
                          &request->operation, &status)) {
        return status;
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

    if ((run->first | run->target | (run->last + 1)) & virtio->granule) {
        return VIOMMU_VIRTIO_RANGE;
    }
    if (run->first > run->last) {
        return VIOMMU_VIRTIO_INVAL;
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
              (flags & VIRTIO_MAP_MMIO ? MAPPINGS_MMIO : 0);
    status = domain_of(request, &domain);
    if (!status) {
        status = virtio_addresses_check(request->virtio, &run);
    }
    if (!status && virtio_is_reserved(domain, run.first, run.last)) {
        status = VIOMMU_VIRTIO_INVAL;
    }
    return status ? status : virtio_map(request->virtio, domain, &run, &request->operation);
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

/*
 * The used length counts from the beginning of `out`, and all that it counts has to be written:
 * where PROBE is refused there are zeroes, which are no property.
 */
static void answer(struct request *request, uint8_t status)
{
    size_t at = tail_at(request);

    if (status) {
        memset(request->out, 0, at);
    }
    virtio_put32(request->out + at, status); /* and three zeroes */
    request->written = at + VIRTIO_TAIL_SIZE;
}

static void advance(struct virtio *virtio)
{
    virtio->iommu.drain_open = 0;
    virtio_operations_advance(virtio);
    virtio->iommu.drain_open = 0;
}

/* Whether some that came before have not been told yet. */
static bool is_behind(const struct virtio *virtio)
{
    return virtio->first || (virtio->telling && !pthread_equal(virtio->teller, pthread_self()));
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
    virtio->iommu.drain_open = 0;
    if (!is_behind(virtio) && virtio_operation_complete(virtio, operation)) {
        virtio_operation_free(virtio, operation);
        return false;
    }
    operation->tells = true;
    operation->token = token;
    operation->status = status;
    operation->number = request->number;
    operation->written = request->out ? VIRTIO_TAIL_SIZE : 0; /* a reset has no answer */
    virtio_operation_append(virtio, operation);
    advance(virtio);
    return true;
}

/*
 * Behind others a request that takes nothing away needs an operation, too, so that it is told in
 * its turn. PROBE changes nothing, and is told at once.
 */
static bool needs_place(const struct request *request)
{
    const struct virtio *virtio = request->virtio;

    return (is_behind(virtio) || follow_trying(&virtio->iommu)) && request->in[0] != VIRTIO_PROBE;
}

/* Carries it out, or begins to. Returns the status; that of what is tried comes later. */
static uint8_t carry_out(struct request *request)
{
    struct virtio *virtio = request->virtio;
    uint8_t status = VIOMMU_VIRTIO_INVAL;

    if (request->in_size >= types[request->in[0]].size) {
        status = types[request->in[0]].run(request);
    }
    virtio->requests++;
    if (status) {
        virtio->refused++;
    }
    return status;
}

/*
 * Whether it is begun late, or behind one that is: then the former, by the seed of the cache. A
 * driver that waits for answers sees no difference.
 */
static bool is_late(const struct request *request, unsigned *late)
{
    const struct virtio *virtio = request->virtio;

    *late = 0;
    if (!virtio->iommu.kept || request->in[0] == VIRTIO_PROBE) {
        return false;
    }
    *late = kept_below(virtio->iommu.kept, VIRTIO_DELAYS);
    return *late || virtio_request_queued(virtio);
}

/* Nothing is done yet. There is an operation. */
static void queue(struct request *request, uint64_t token, unsigned late)
{
    struct virtio_operation *operation = request->operation;

    operation->phase = PHASE_QUEUED;
    operation->late = late;
    operation->tells = true;
    operation->token = token;
    operation->number = request->number;
    operation->written = VIRTIO_TAIL_SIZE;
    operation->in_size = request->in_size;
    memcpy(operation->in, request->in,
           request->in_size < sizeof(operation->in) ? request->in_size : sizeof(operation->in));
    virtio_operation_append(request->virtio, operation);
}

static void run_queued(struct virtio *virtio, struct virtio_operation *operation)
{
    struct request request = {
        .virtio = virtio, .in_size = operation->in_size, .operation = operation};

    memcpy(request.in, operation->in, sizeof(operation->in));
    operation->phase = PHASE_DONE;
    operation->status = carry_out(&request);
}

void virtio_requests_run(struct virtio *virtio)
{
    for (struct virtio_operation *o = virtio->first; o && !follow_trying(&virtio->iommu);
         o = o->next) {
        if (o->phase == PHASE_QUEUED) {
            if (o->late) {
                iommu_kick(&virtio->iommu); /* it is begun by viommu_process */
                break;
            }
            run_queued(virtio, o);
        }
    }
}

struct virtio_operation *virtio_request_queued(const struct virtio *virtio)
{
    struct virtio_operation *o = virtio->first;

    while (o && o->phase != PHASE_QUEUED) {
        o = o->next;
    }
    return o;
}

bool virtio_requests_late(struct virtio *virtio)
{
    struct virtio_operation *queued;

    if (!virtio->iommu.kept || follow_trying(&virtio->iommu)) {
        return false; /* what is tried goes on by itself */
    }
    queued = virtio_request_queued(virtio);
    if (queued && queued->late) {
        queued->late--;
    }
    virtio_requests_run(virtio);
    queued = virtio_request_queued(virtio);
    return queued && queued->late;
}

/* Returns 0 or VIOMMU_PENDING. Under the lock. */
static int run(struct request *request, uint64_t token)
{
    struct viommu *iommu = &request->virtio->iommu;
    uint8_t status = VIOMMU_VIRTIO_NOMEM;
    bool needs;
    unsigned late;
    bool later;

    if (request->virtio->first) {
        advance(request->virtio);
    }
    later = is_late(request, &late);
    needs = needs_place(request) || later;
    if (needs) {
        (void)virtio_operation_need(request->virtio, &request->operation);
    }
    if (request->operation && (follow_trying(iommu) || later)) {
        queue(request, token, late);
        if (later) {
            iommu_kick(iommu); /* what is tried goes on by itself */
        }
        return VIOMMU_PENDING;
    }
    if (request->operation || !needs) {
        status = carry_out(request);
    } else {
        request->virtio->requests++;
        request->virtio->refused++;
    }
    if (finish(request, status, token)) {
        iommu_kick(iommu);
        return VIOMMU_PENDING;
    }
    answer(request, status);
    watch_answered(&request->virtio->iommu, request->number, status, request->written);
    return 0;
}

/*
 * Copies what will be decoded, once: no field that is looked at lies behind those of MAP. By sizes
 * that the compiler knows, as far as there are such: these are a few loads. In parts that do not
 * overlap, and that no field straddles: a processor waits where a load follows two stores.
 */
static void copy_in(struct request *request, const void *in, size_t size)
{
    request->in_size = size;
    if (size >= VIRTIO_MAP_SIZE) {
        memcpy(request->in, in, VIRTIO_MAP_SIZE);
    } else if (size >= VIRTIO_UNMAP_SIZE) {
        memcpy(request->in, in, VIRTIO_UNMAP_SIZE - 4);
        memcpy(request->in + VIRTIO_UNMAP_SIZE - 4, (const uint8_t *)in + VIRTIO_UNMAP_SIZE - 4, 4);
    } else if (size) {
        memcpy(request->in, in, size);
    }
}

/* How many bytes that copied. */
static size_t copied(const struct request *request)
{
    size_t size = request->in_size;

    return size >= VIRTIO_MAP_SIZE ? VIRTIO_MAP_SIZE
           : size >= VIRTIO_UNMAP_SIZE ? VIRTIO_UNMAP_SIZE : size;
}

/* Under the lock. */
static void take(struct request *request)
{
    request->number = ++request->virtio->taken;
    watch_request(&request->virtio->iommu, request->number, request->in, copied(request),
                  request->in_size, request->out_size);
}

/* What has no place for an answer, or is of an unknown type. */
static void pass_over(struct request *request)
{
    struct viommu *iommu = &request->virtio->iommu;

    iommu_lock(iommu);
    take(request);
    watch_answered(iommu, request->number, VIOMMU_OBSERVED_SILENCE, 0);
    iommu_unlock(iommu);
}

static bool is_busy(const struct virtio *virtio)
{
    return virtio->count >= VIRTIO_OPERATIONS ||
           virtio->iommu.notify.outstanding >= NOTIFY_OUTSTANDING_MAX;
}

int viommu_virtio_request(struct viommu *iommu, const void *in, size_t in_size, void *out,
                          size_t out_size, uint64_t token, size_t *written)
{
    struct request request;
    int ret = 0;

    *written = 0;
    request.virtio = virtio_checked(iommu);
    request.out = out;
    request.out_size = out_size;
    request.written = 0;
    request.operation = NULL;
    if (!request.virtio) {
        return -EINVAL;
    }
    if (!atomic_load(&iommu->started)) {
        return -EAGAIN;
    }
    if (iommu_reentered(iommu)) {
        return -EDEADLK;
    }
    copy_in(&request, in, in_size);
    if (in_size < VIRTIO_HEAD_SIZE || out_size < VIRTIO_TAIL_SIZE || !is_known(&request)) {
        pass_over(&request);
        return 0;
    }
    iommu_lock(iommu);
    if (is_busy(request.virtio)) {
        ret = -EBUSY;
    } else {
        take(&request);
        ret = run(&request, token);
    }
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
    request.operation = is_busy(virtio) ? NULL : virtio_operation_new(virtio);
    if (!request.operation) {
        ret = is_busy(virtio) ? -EBUSY : -ENOMEM;
    } else {
        request.number = ++virtio->taken;
        watch_restart(iommu, request.number);
        virtio_trial_cancel(virtio);
        virtio_domains_drop(virtio);
        virtio_faults_clear(virtio);
        virtio->accepted = 0;
        virtio_operation_everyone(virtio, request.operation);
        ret = finish(&request, VIOMMU_VIRTIO_OK, token) ? VIOMMU_PENDING : 0;
        if (!ret) {
            watch_answered(iommu, request.number, VIOMMU_VIRTIO_OK, 0);
        }
        iommu_kick(iommu);
    }
    iommu_unlock(iommu);
    epoch_reap(iommu->epoch);
    return ret;
}
