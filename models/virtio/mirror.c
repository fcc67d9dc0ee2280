/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Mirrors: what they hold, and what they are asked.
 *
 * Where a mirror has a part in it, a MAP, and an ATTACH to a domain that has mappings or is a
 * bypass, is tried (lib/shadow/trial.h): mirrors go first, and when one cannot follow nothing has
 * changed, and the status tells. Only when all have followed does DMA see the mapping, or the
 * endpoint's new domain; until then it goes by the old. An UNMAP hides its mappings from DMA at
 * once; mirrors then follow, and it is complete when they have. All else that takes something away
 * (DETACH, resets, `bypass`, ATTACH to a new domain) happens at once, and is complete when mirrors
 * have followed.
 *
 * So that each request finds what those before it left, all wait for their turn while something is
 * tried. A reset does not: what is tried is called off, and what waits ends undone.
 */
#include "virtio/unit.h"

#include <errno.h>

/* ---- what the shadow asks ---- */

void virtio_view(struct viommu *iommu, uint16_t requester, struct shadow_view *out)
{
    struct virtio *virtio = virtio_of(iommu);
    struct virtio_domain *domain = virtio_endpoint_domain(virtio, requester);

    *out = (struct shadow_view){.kind = VIEW_NONE, .last = UINT64_MAX};
    if (domain && !domain->bypass) {
        out->kind = VIEW_MAPPINGS;
        out->mappings = &domain->mappings;
    } else if (domain || virtio_bypasses(virtio)) {
        out->kind = VIEW_IDENTITY;
    }
}

/* The input range ends where mirrors do; sizes that they cannot map are no hints any more. */
int virtio_narrow(struct viommu *iommu, uint64_t last, uint64_t page_sizes)
{
    struct virtio *virtio = virtio_of(iommu);
    struct viommu_virtio_config *config = &virtio->config;
    uint64_t granule = virtio->granule;
    uint64_t end;

    if (last >= config->input.last && !(config->page_size_mask & ~page_sizes)) {
        return 0;
    }
    /* Behind the last whole granule; 0: behind everything. */
    end = last < config->input.last ? (last + 1) & ~granule : config->input.last + 1;
    if (atomic_load(&iommu->started) || !(page_sizes & (granule + 1)) ||
        end - 1 < config->input.first || (last < config->input.last && !end) ||
        (end - 1 != config->input.last && !(config->features & VIOMMU_VIRTIO_INPUT_RANGE))) {
        return -ERANGE;
    }
    config->input.last = end - 1;
    config->page_size_mask &= page_sizes;
    return 0;
}

/* ---- what is tried ---- */

struct attached {
    const struct virtio *virtio;
    const struct virtio_domain *domain;
};

static bool is_attached(const struct requester *requester, const void *what)
{
    const struct attached *attached = what;

    return virtio_endpoint_domain(attached->virtio, requester->id) == attached->domain;
}

bool virtio_mirrors_allow(const struct virtio *virtio, const struct virtio_domain *domain,
                          const struct range_run *run)
{
    struct attached attached = {virtio, domain};

    return follow_allows(&virtio->iommu, is_attached, &attached, run->first, run->last);
}

static void begin(struct virtio *virtio, const struct virtio_trial *trial)
{
    virtio->trial = *trial;
    iommu_kick(&virtio->iommu);
}

void virtio_try_map(struct virtio *virtio, struct virtio_domain *domain,
                    const struct range_run *run, struct virtio_operation *operation)
{
    struct virtio_trial trial = {
        .operation = operation, .type = VIRTIO_MAP, .domain = domain};

    operation->phase = PHASE_TRY;
    begin(virtio, &trial);
    follow_add(&virtio->iommu, NULL, &domain->mappings, run->first, run->last);
}

void virtio_try_unmap(struct virtio *virtio, struct virtio_domain *domain, uint64_t first,
                      uint64_t last, struct virtio_operation *operation)
{
    struct virtio_trial trial = {
        .operation = operation, .type = VIRTIO_UNMAP, .domain = domain};
    struct range_cursor cursor;
    struct range_run run;

    range_cursor_seek(&cursor, &domain->mappings.map, first);
    while (range_cursor_next(&cursor, last, &run)) {
        domain->leaving++;
    }
    virtio->mappings -= domain->leaving;
    begin(virtio, &trial);
    follow_remove(&virtio->iommu, &operation->wait, &domain->mappings, first, last);
}

bool virtio_try_attach(struct virtio *virtio, uint32_t id, const struct requester *requester,
                       bool bypass, struct virtio_operation **operation, uint8_t *status)
{
    struct virtio_domain *domain = virtio_domain_find(virtio, id);
    struct virtio_trial trial = {
        .type = VIRTIO_ATTACH, .id = id, .endpoint = requester->id, .bypass = bypass};
    struct shadow_view view = {.kind = VIEW_IDENTITY, .last = UINT64_MAX};

    *status = virtio_may_attach(virtio, id, requester, bypass);
    if (*status || (domain && domain == virtio_endpoint_domain(virtio, requester->id)) ||
        (!domain && !bypass) || !follow_mirrors(&virtio->iommu, requester->id)) {
        return false;
    }
    if (domain && !bypass) {
        view.kind = VIEW_MAPPINGS;
        view.mappings = &domain->mappings;
        if (!follow_allows_all(&virtio->iommu, requester->id, view.mappings)) {
            *status = VIOMMU_VIRTIO_UNSUPP;
            return true;
        }
    }
    if (!virtio_operation_need(virtio, operation)) {
        *status = VIOMMU_VIRTIO_NOMEM;
        return true;
    }
    trial.operation = *operation;
    trial.operation->phase = PHASE_TRY;
    begin(virtio, &trial);
    follow_move(&virtio->iommu, NULL, requester->id, &view);
    return true;
}

/* ---- what became of it ---- */

static uint8_t status_of(int error)
{
    switch (error) {
    case 0:
        return VIOMMU_VIRTIO_OK;
    case -ENOSPC:
    case -ENOMEM:
    case -EMFILE:
    case -ENFILE:
    case -EDQUOT:
        return VIOMMU_VIRTIO_NOMEM;
    case -ECANCELED:
        return VIOMMU_VIRTIO_IOERR;
    default:
        return VIOMMU_VIRTIO_DEVERR;
    }
}

/* The mapping is there, or it is gone again. */
static uint8_t map_tried(struct virtio *virtio, const struct virtio_trial *trial, int error)
{
    if (trial->operation) {
        trial->operation->phase = PHASE_DONE;
    }
    virtio->mappings -= error && trial->domain->endpoints;
    return status_of(error);
}

/* Mirrors have followed, so the endpoint may. It, or the domain, may have gone meanwhile. */
static uint8_t attach_tried(struct virtio *virtio, struct virtio_trial *trial, int error)
{
    struct requester *requester = requester_find(&virtio->iommu, trial->endpoint);
    uint8_t status = status_of(error);

    if (!trial->operation) {
        return status;
    }
    trial->operation->phase = PHASE_DONE;
    if (!status) {
        status = requester ? virtio_attach(virtio, trial->id, requester, trial->bypass,
                                           &trial->operation)
                           : VIOMMU_VIRTIO_NOENT;
        if (status && requester) {
            /* What mirrors have is what it had. */
            virtio_operation_endpoint(virtio, trial->operation, requester);
        }
    }
    return status;
}

static uint8_t tried(struct virtio *virtio, struct virtio_trial *trial, int error)
{
    switch (trial->type) {
    case VIRTIO_MAP:
        return map_tried(virtio, trial, error);
    case VIRTIO_ATTACH:
        return attach_tried(virtio, trial, error);
    default:
        trial->domain->leaving = 0;
        return VIOMMU_VIRTIO_OK;
    }
}

void virtio_tried(struct viommu *iommu, int error)
{
    struct virtio *virtio = virtio_of(iommu);
    struct virtio_trial trial = virtio->trial;
    uint8_t status;

    virtio->trial = (struct virtio_trial){0};
    status = tried(virtio, &trial, error);
    if (trial.operation) {
        trial.operation->status = status;
        virtio->refused += status != VIOMMU_VIRTIO_OK;
    }
    virtio_requests_run(virtio);
}

void virtio_trial_cancel(struct virtio *virtio)
{
    for (struct virtio_operation *o = virtio->first; o; o = o->next) {
        if (o->phase == PHASE_QUEUED) {
            o->phase = PHASE_DONE;
            o->status = VIOMMU_VIRTIO_IOERR;
            virtio->requests++;
            virtio->refused++;
        }
    }
    follow_cancel(&virtio->iommu);
}
