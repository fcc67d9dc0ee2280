/* SPDX-License-Identifier: BSD-2-Clause */
/* The virtio-iommu: configuration and its space, features, life, its share of viommu_process. */
#include "virtio/unit.h"

#include "base/alloc.h"
#include "iommu/watch.h"
#include "pagetable/pagetable.h"

#include <errno.h>

#define FEATURES_ALL UINT64_C(0x7f)
#define FEATURES_DEFAULT (FEATURES_ALL & ~(uint64_t)VIOMMU_VIRTIO_BYPASS)
#define PROBE_SIZE_MAX 65536u
#define FAULTS_MAX 65536u
#define REGION_PAGE UINT64_C(0xfff)

/* ---- configuration ---- */

static uint64_t or_default(uint64_t value, uint64_t otherwise)
{
    return value ? value : otherwise;
}

static void config_fill(struct viommu_virtio_config *config)
{
    config->features = or_default(config->features, FEATURES_DEFAULT);
    config->page_size_mask = or_default(config->page_size_mask, 1 << 12 | 1 << 21 | 1 << 30);
    if (!(config->features & VIOMMU_VIRTIO_INPUT_RANGE)) {
        config->input = (struct viommu_range){0, UINT64_MAX};
    } else if (!config->input.first && !config->input.last) {
        config->input.last = (1ULL << 48) - 1;
    }
    if (!(config->features & VIOMMU_VIRTIO_DOMAIN_RANGE)) {
        config->domain_first = 0;
        config->domain_last = UINT32_MAX;
    } else if (!config->domain_last) {
        config->domain_last = UINT16_MAX;
    }
    config->host_address_width = (uint8_t)or_default(config->host_address_width, 52);
    config->probe_size = (uint32_t)or_default(config->probe_size, 512);
    config->domains_max = (uint32_t)or_default(config->domains_max, 65536);
    config->mappings_max = (uint32_t)or_default(config->mappings_max, 1 << 20);
    config->faults_max = (uint32_t)or_default(config->faults_max, 256);
    config->bypass = config->bypass && (config->features & VIOMMU_VIRTIO_BYPASS_CONFIG);
}

static bool features_valid(uint64_t features)
{
    uint64_t both = VIOMMU_VIRTIO_BYPASS | VIOMMU_VIRTIO_BYPASS_CONFIG;

    return !(features & ~FEATURES_ALL) && (features & VIOMMU_VIRTIO_MAP_UNMAP) &&
           (features & both) != both;
}

static uint64_t granule_of(const struct viommu_virtio_config *config)
{
    return (config->page_size_mask & -config->page_size_mask) - 1;
}

static bool config_valid(const struct viommu_virtio_config *config)
{
    uint64_t granule = granule_of(config);

    return features_valid(config->features) && granule >= 0xfff && granule < 1ULL << 30 &&
           config->input.first <= config->input.last &&
           !((config->input.first | (config->input.last + 1)) & granule) &&
           config->domain_first <= config->domain_last && config->host_address_width >= 32 &&
           config->host_address_width <= 64 && config->faults_max <= FAULTS_MAX &&
           config->probe_size >= VIRTIO_RESV_MEM_SIZE && config->probe_size <= PROBE_SIZE_MAX;
}

/* ---- the configuration space ---- */

static void config_space(const struct virtio *virtio, uint8_t *space)
{
    const struct viommu_virtio_config *config = &virtio->config;

    memset(space, 0, VIRTIO_CONFIG_SIZE);
    virtio_put64(space + VIRTIO_CONFIG_PAGE_SIZE_MASK, config->page_size_mask);
    virtio_put64(space + VIRTIO_CONFIG_INPUT_FIRST, config->input.first);
    virtio_put64(space + VIRTIO_CONFIG_INPUT_LAST, config->input.last);
    virtio_put32(space + VIRTIO_CONFIG_DOMAIN_FIRST, config->domain_first);
    virtio_put32(space + VIRTIO_CONFIG_DOMAIN_LAST, config->domain_last);
    virtio_put32(space + VIRTIO_CONFIG_PROBE_SIZE,
                 config->features & VIOMMU_VIRTIO_PROBE ? config->probe_size : 0);
    space[VIRTIO_CONFIG_BYPASS] = virtio->bypass;
}

static uint64_t config_read(struct viommu *iommu, uint64_t offset, unsigned size)
{
    uint8_t space[VIRTIO_CONFIG_SIZE + sizeof(uint64_t)] = {0};

    if (offset >= VIRTIO_CONFIG_SIZE) {
        return 0;
    }
    config_space(virtio_of(iommu), space);
    return virtio_get64(space + offset) & (size < 8 ? (1ULL << size * 8) - 1 : UINT64_MAX);
}

/* Values other than 0 and 1 are none for `bypass`: they are ignored. */
static void config_write(struct viommu *iommu, uint64_t offset, unsigned size, uint64_t value)
{
    struct virtio *virtio = virtio_of(iommu);
    uint8_t byte;

    if (offset > VIRTIO_CONFIG_BYPASS || VIRTIO_CONFIG_BYPASS - offset >= size ||
        !(virtio->accepted & VIOMMU_VIRTIO_BYPASS_CONFIG)) {
        return;
    }
    byte = (uint8_t)(value >> (VIRTIO_CONFIG_BYPASS - offset) * 8);
    if (byte <= 1 && byte != virtio->bypass) {
        virtio->bypass = byte;
        virtio_bypass_changed(virtio);
    }
}

/* ---- life and work ---- */

static void forget_everything(struct virtio *virtio)
{
    virtio_operations_forget(virtio);
    virtio_domains_drop(virtio);
    virtio_faults_clear(virtio);
}

static void virtio_free(struct virtio *virtio)
{
    base_free(virtio->faults.ring);
    base_free(virtio);
}

static void virtio_destroy(struct viommu *iommu)
{
    struct virtio *virtio = virtio_of(iommu);

    virtio_domains_drop(virtio); /* while there is the memory's epoch */
    iommu_fini(iommu);
    while (virtio->first) {
        struct virtio_operation *next = virtio->first->next;

        if (virtio->first != &virtio->unasked.operation) {
            virtio_operation_free(virtio, virtio->first);
        }
        virtio->first = next;
    }
    virtio_free(virtio);
}

static void virtio_power_on(struct viommu *iommu)
{
    struct virtio *virtio = virtio_of(iommu);

    forget_everything(virtio);
    virtio->accepted = 0;
    virtio->bypass = virtio->config.bypass;
}

static bool virtio_take_message(struct viommu *iommu, struct viommu_interrupt *out)
{
    (void)iommu;
    (void)out;
    return false;
}

static bool virtio_work(struct viommu *iommu, unsigned *budget)
{
    bool late = virtio_requests_late(virtio_of(iommu));

    (void)budget; /* what is under way is bounded (VIRTIO_OPERATIONS) */
    virtio_operations_advance(virtio_of(iommu));
    return windows_spent(iommu) || late;
}

/* One that is being told is in nobody's list: it would be missed. */
static bool virtio_quiet(const struct viommu *iommu)
{
    const struct virtio *virtio = (const struct virtio *)iommu;

    return !virtio_request_queued(virtio) && !virtio->telling;
}

static bool virtio_draining(struct viommu *iommu)
{
    return virtio_operations_draining(virtio_of(iommu));
}

/* Tells that an operation is complete. */
static void tell_completed(struct virtio *virtio, struct virtio_operation *operation)
{
    struct viommu *iommu = &virtio->iommu;
    uint64_t token = operation->token;
    uint8_t status = operation->status;
    bool tells = operation->tells && virtio->config.completed;
    struct callback_mark mark;

    if (operation->tells) {
        watch_answered(iommu, operation->number, status, operation->written);
    }
    if (operation != &virtio->unasked.operation) {
        virtio_operation_free(virtio, operation);
    }
    if (tells) {
        virtio->telling = true;
        virtio->teller = pthread_self();
        iommu_unlock(iommu);
        callback_enter(&mark, iommu, false);
        virtio->config.completed(iommu->opaque, token, status);
        callback_leave(&mark);
        iommu_lock(iommu);
        virtio->telling = false;
    }
}

static void tell_faulted(struct virtio *virtio)
{
    struct viommu *iommu = &virtio->iommu;
    struct callback_mark mark;

    virtio->faults.told = true;
    if (virtio->config.faulted) {
        iommu_unlock(iommu);
        callback_enter(&mark, iommu, false);
        virtio->config.faulted(iommu->opaque);
        callback_leave(&mark);
        iommu_lock(iommu);
    }
}

static bool virtio_deliver(struct viommu *iommu)
{
    struct virtio *virtio = virtio_of(iommu);
    struct virtio_operation *operation = virtio_operation_take(virtio);

    if (operation) {
        tell_completed(virtio, operation);
        return true;
    }
    if (virtio->faults.count && !virtio->faults.told) {
        tell_faulted(virtio);
        return true;
    }
    return false;
}

/* ---- what this model has not ---- */

static int virtio_ats(struct viommu *iommu, const struct dma_request *request,
                      struct viommu_ats_entry *out)
{
    (void)iommu;
    (void)request;
    (void)out;
    return -EFAULT;
}

static bool virtio_no(const struct viommu *iommu)
{
    (void)iommu;
    return false;
}

/* Requests tell all that mirrors need. */
static bool virtio_yes(const struct viommu *iommu)
{
    (void)iommu;
    return true;
}

static const struct pagetable_format *virtio_format(const struct viommu *iommu)
{
    static const struct pagetable_format none;

    (void)iommu;
    return &none;
}

static const struct model virtio_model = {
    .destroy = virtio_destroy,
    .reset = virtio_power_on,
    .mmio_read = config_read,
    .mmio_write = config_write,
    .take_message = virtio_take_message,
    .work = virtio_work,
    .draining = virtio_draining,
    .deliver = virtio_deliver,
    .requester_gone = virtio_requester_gone,
    .translate = virtio_translate,
    .refuse_interrupt = virtio_refuse_interrupt,
    .ats = virtio_ats,
    .closing = virtio_closing,
    .closed = virtio_closed,
    .maps = virtio_maps,
    .has_ats = virtio_no,
    .can_mirror = virtio_yes,
    .narrow = virtio_narrow,
    .view = virtio_view,
    .tried = virtio_tried,
    .format = virtio_format,
    .interrupts = {VIRTIO_INTERRUPT_FIRST, VIRTIO_INTERRUPT_LAST},
    .id = MODEL_VIRTIO,
    .save_version = VIRTIO_SAVE_VERSION,
    .quiet = virtio_quiet,
    .save = virtio_save,
    .decode = virtio_decode,
    .discard = virtio_discard,
    .restore = virtio_restore,
};

struct virtio *virtio_checked(struct viommu *iommu)
{
    return iommu->model == &virtio_model ? virtio_of(iommu) : NULL;
}

/* ---- the public calls ---- */

int viommu_virtio_create(const struct viommu_config *config,
                         const struct viommu_virtio_config *virtio_config, struct viommu **out)
{
    struct viommu_virtio_config filled = *virtio_config;
    struct virtio *virtio;
    int ret;

    config_fill(&filled);
    if (!config_valid(&filled)) {
        return -EINVAL;
    }
    virtio = base_alloc_aligned(_Alignof(struct virtio), sizeof(*virtio));
    if (!virtio) {
        return -ENOMEM;
    }
    virtio->config = filled;
    virtio->granule = granule_of(&filled);
    virtio->end = &virtio->first;
    range_map_init(&virtio->domains);
    range_map_init(&virtio->endpoints);
    virtio->faults.ring = base_alloc_array(filled.faults_max, sizeof(*virtio->faults.ring));
    ret = virtio->faults.ring ? iommu_init(&virtio->iommu, &virtio_model, config) : -ENOMEM;
    if (ret) {
        virtio_free(virtio);
        return ret;
    }
    *out = &virtio->iommu;
    return 0;
}

uint64_t viommu_virtio_features(const struct viommu *iommu)
{
    return iommu->model == &virtio_model ? ((const struct virtio *)iommu)->config.features : 0;
}

int viommu_virtio_accept(struct viommu *iommu, uint64_t features)
{
    struct virtio *virtio = virtio_checked(iommu);
    bool bypassed;

    features &= FEATURES_ALL;
    if (!virtio || (features & ~virtio->config.features)) {
        return -EINVAL;
    }
    if (!atomic_load(&iommu->started)) {
        return -EAGAIN;
    }
    if (iommu_reentered(iommu)) {
        return -EDEADLK;
    }
    iommu_lock(iommu);
    watch_accepted(iommu, features);
    bypassed = virtio_bypasses(virtio);
    virtio->accepted = features;
    if (bypassed != virtio_bypasses(virtio)) {
        virtio_bypass_changed(virtio);
    }
    iommu_unlock(iommu);
    return 0;
}

static uint64_t memory_of(const struct virtio *virtio)
{
    uint64_t memory = range_map_memory(&virtio->domains) + range_map_memory(&virtio->endpoints);
    const struct virtio_domain *domain;
    uint32_t id = 0;

    while ((domain = virtio_index_next(&virtio->domains, &id))) {
        memory += sizeof(*domain) + range_map_memory(&domain->mappings.map) +
                  range_map_memory(&domain->closed);
        if (id++ == UINT32_MAX) {
            break;
        }
    }
    return memory;
}

int viommu_virtio_status(struct viommu *iommu, struct viommu_virtio_status *status, size_t size)
{
    struct virtio *virtio = virtio_checked(iommu);
    struct viommu_virtio_status now;

    if (!virtio) {
        return -EINVAL;
    }
    iommu_lock(iommu);
    now = (struct viommu_virtio_status){
        .domains = virtio->domains.count,
        .endpoints = virtio->endpoints.count,
        .mappings = virtio->mappings,
        .memory = memory_of(virtio),
        .pending = virtio->count,
        .faults_waiting = virtio->faults.count,
        .requests = virtio->requests,
        .refused = virtio->refused,
        .features = virtio->accepted,
    };
    iommu_unlock(iommu);
    memset(status, 0, size);
    memcpy(status, &now, size < sizeof(now) ? size : sizeof(now));
    return 0;
}
