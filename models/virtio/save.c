/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The model's part of a saved state.
 *
 * Structure, version 1: the configuration as a guest sees it; the features accepted, and `bypass`;
 * domains by their ids, each with its mappings in the order of addresses; endpoints by their ids,
 * each with its domain's; faults that wait; requests that were pending, with their tokens and
 * statuses, in order.
 *
 * The work of a pending request is done, and in what is saved: what it waited for was of the old
 * instance. So it completes in the new one as soon as that is processed, and mirrors have followed.
 * (While mirrors try a request nothing is saved: viommu_save says -EBUSY.)
 *
 * What is read is built aside, and checked against the invariants of unit.h and the limits of the
 * configuration. Restoring takes it over, which cannot fail.
 */
#include "base/alloc.h"
#include "virtio/unit.h"

#include <errno.h>

/* What was read. It is moved, piece by piece, into the instance. */
struct virtio_loaded {
    uint64_t accepted;
    bool bypass;
    struct range_map domains;
    struct range_map endpoints;
    uint64_t mappings;
    uint64_t serial;
    struct virtio_fault *faults;
    uint32_t fault_count;
    struct virtio_operation *operations;
    struct virtio_operation **end;
    unsigned operation_count;
};

/* ---- saved ---- */

static void config_save(const struct virtio *virtio, struct save_writer *writer)
{
    const struct viommu_virtio_config *config = &virtio->config;

    save_put64(writer, config->features);
    save_put64(writer, config->page_size_mask);
    save_put64(writer, config->input.first);
    save_put64(writer, config->input.last);
    save_put32(writer, config->domain_first);
    save_put32(writer, config->domain_last);
    save_put8(writer, config->host_address_width);
    save_put8(writer, config->bypass);
    save_put32(writer, config->probe_size);
    save_put32(writer, (uint32_t)config->region_count);
    for (size_t i = 0; i < config->region_count; i++) {
        save_put64(writer, config->regions[i].first);
        save_put64(writer, config->regions[i].last);
    }
}

static void domain_save(const struct virtio_domain *domain, struct save_writer *writer)
{
    struct range_cursor cursor;
    struct range_run run;

    save_put32(writer, domain->id);
    save_put8(writer, domain->bypass);
    save_put32(writer, (uint32_t)domain->mappings.map.count);
    range_cursor_seek(&cursor, &domain->mappings.map, 0);
    while (range_cursor_next(&cursor, UINT64_MAX, &run)) {
        save_put64(writer, run.first);
        save_put64(writer, run.last);
        save_put64(writer, run.target);
        save_put8(writer, (uint8_t)run.tag);
    }
}

static void domains_save(const struct virtio *virtio, struct save_writer *writer)
{
    struct range_cursor cursor;
    struct range_run run;

    save_put32(writer, (uint32_t)virtio->domains.count);
    range_cursor_seek(&cursor, &virtio->domains, 0);
    while (range_cursor_next(&cursor, UINT64_MAX, &run)) {
        domain_save((const struct virtio_domain *)(uintptr_t)run.target, writer);
    }
    save_put32(writer, (uint32_t)virtio->endpoints.count);
    range_cursor_seek(&cursor, &virtio->endpoints, 0);
    while (range_cursor_next(&cursor, UINT64_MAX, &run)) {
        save_put16(writer, (uint16_t)run.first);
        save_put32(writer, ((const struct virtio_domain *)(uintptr_t)run.target)->id);
    }
}

static void faults_save(const struct virtio *virtio, struct save_writer *writer)
{
    const struct virtio_faults *faults = &virtio->faults;

    save_put32(writer, faults->count);
    for (uint32_t i = 0; i < faults->count; i++) {
        const struct virtio_fault *fault =
            &faults->ring[(faults->first + i) % virtio->config.faults_max];

        save_put8(writer, fault->reason);
        save_put32(writer, fault->flags);
        save_put16(writer, (uint16_t)fault->endpoint);
        save_put64(writer, fault->address);
    }
}

static void operations_save(const struct virtio *virtio, struct save_writer *writer)
{
    uint32_t count = 0;

    for (const struct virtio_operation *o = virtio->first; o; o = o->next) {
        count += o->tells;
    }
    save_put32(writer, count);
    for (const struct virtio_operation *o = virtio->first; o; o = o->next) {
        if (o->tells) {
            save_put64(writer, o->token);
            save_put8(writer, o->status);
        }
    }
}

void virtio_save(struct viommu *iommu, struct save_writer *writer)
{
    const struct virtio *virtio = virtio_of(iommu);

    config_save(virtio, writer);
    save_put64(writer, virtio->accepted);
    save_put8(writer, virtio->bypass);
    domains_save(virtio, writer);
    faults_save(virtio, writer);
    operations_save(virtio, writer);
}

/* ---- loaded ---- */

static bool regions_read(const struct viommu_virtio_config *config, struct save_section *section)
{
    if (save_get32(section) != config->region_count) {
        return false;
    }
    for (size_t i = 0; i < config->region_count; i++) {
        uint64_t first = save_get64(section);
        uint64_t last = save_get64(section);

        if (first != config->regions[i].first || last != config->regions[i].last) {
            return false;
        }
    }
    return true;
}

/* Whether it is of a device that a guest cannot tell from this one. */
static bool config_read(const struct viommu_virtio_config *config, struct save_section *section)
{
    bool same = save_get64(section) == config->features;

    same &= save_get64(section) == config->page_size_mask;
    same &= save_get64(section) == config->input.first;
    same &= save_get64(section) == config->input.last;
    same &= save_get32(section) == config->domain_first;
    same &= save_get32(section) == config->domain_last;
    same &= save_get8(section) == config->host_address_width;
    same &= save_get8(section) == config->bypass;
    same &= save_get32(section) == config->probe_size;
    return same && regions_read(config, section);
}

static bool offered(const struct virtio *virtio, enum viommu_virtio_feature feature)
{
    return (virtio->config.features & feature) != 0;
}

static int state_read(const struct virtio *virtio, struct save_section *section,
                      struct virtio_loaded *loaded)
{
    uint8_t bypass;

    loaded->accepted = save_get64(section);
    bypass = save_get8(section);
    loaded->bypass = bypass;
    if ((loaded->accepted & ~virtio->config.features) ||
        bypass > offered(virtio, VIOMMU_VIRTIO_BYPASS_CONFIG)) {
        save_spoil(section);
    }
    return section->error;
}

static int mapping_read(const struct virtio *virtio, struct save_section *section,
                        struct virtio_domain *domain)
{
    uint64_t known = MAPPINGS_PERM;
    struct range_run run;
    struct range_run behind;

    run.first = save_get64(section);
    run.last = save_get64(section);
    run.target = save_get64(section);
    run.tag = save_get8(section);
    if (section->error) {
        return section->error;
    }
    known |= offered(virtio, VIOMMU_VIRTIO_MMIO) ? MAPPINGS_MMIO : 0;
    if ((run.tag & ~known) || virtio_addresses_check(virtio, &run) ||
        range_map_from(&domain->mappings.map, run.first, &behind)) {
        return -EBADMSG;
    }
    return range_map_insert(&domain->mappings.map, &run);
}

/* The mappings of a domain that is in the index already. */
static int mappings_read(const struct virtio *virtio, struct save_section *section,
                         struct virtio_loaded *loaded, struct virtio_domain *domain)
{
    uint32_t count = save_get32(section);
    int ret = section->error;

    if (!ret && domain->bypass && count) {
        return -EBADMSG;
    }
    for (uint32_t i = 0; !ret && i < count; i++) {
        if (loaded->mappings++ >= virtio->config.mappings_max) {
            return -EINVAL;
        }
        ret = mapping_read(virtio, section, domain);
    }
    return ret;
}

/* Whether an index has this id or a higher one: then it is out of order here. */
static bool has_from(const struct range_map *index, uint32_t id)
{
    return virtio_index_next(index, &id) != NULL;
}

static int domain_read(const struct virtio *virtio, struct save_section *section,
                       struct virtio_loaded *loaded)
{
    uint32_t id = save_get32(section);
    uint8_t bypass = save_get8(section);
    struct virtio_domain *domain;
    int ret;

    if (section->error) {
        return section->error;
    }
    if (bypass > offered(virtio, VIOMMU_VIRTIO_BYPASS_CONFIG) ||
        id < virtio->config.domain_first || id > virtio->config.domain_last ||
        has_from(&loaded->domains, id)) {
        return -EBADMSG;
    }
    domain = base_alloc(sizeof(*domain));
    if (!domain) {
        return -ENOMEM;
    }
    mappings_init(&domain->mappings, virtio->iommu.epoch);
    domain->id = id;
    domain->bypass = bypass;
    domain->serial = ++loaded->serial;
    ret = virtio_index_add(&loaded->domains, id, domain);
    if (ret) {
        base_free(domain);
        return ret;
    }
    return mappings_read(virtio, section, loaded, domain);
}

static int domains_read(const struct virtio *virtio, struct save_section *section,
                        struct virtio_loaded *loaded)
{
    uint32_t count = save_get32(section);
    int ret = section->error;

    if (!ret && count > virtio->config.domains_max) {
        return -EINVAL;
    }
    for (uint32_t i = 0; !ret && i < count; i++) {
        ret = domain_read(virtio, section, loaded);
    }
    return ret;
}

static int endpoint_read(const struct virtio *virtio, struct save_section *section,
                         struct virtio_loaded *loaded)
{
    uint16_t id = save_get16(section);
    uint32_t domain_id = save_get32(section);
    struct virtio_domain *domain = virtio_index_find(&loaded->domains, domain_id);
    uint32_t limit = virtio->config.domain_endpoints_max;
    int ret;

    if (section->error || !domain || has_from(&loaded->endpoints, id)) {
        return section->error ? section->error : -EBADMSG;
    }
    if (!requester_find((struct viommu *)(uintptr_t)&virtio->iommu, id)) {
        return -ENODEV;
    }
    if (limit && domain->endpoints >= limit) {
        return -EINVAL;
    }
    ret = virtio_index_add(&loaded->endpoints, id, domain);
    domain->endpoints++;
    return ret;
}

static int endpoints_read(const struct virtio *virtio, struct save_section *section,
                          struct virtio_loaded *loaded)
{
    uint32_t count = save_get32(section);
    int ret = section->error;
    struct range_cursor cursor;
    struct range_run run;

    for (uint32_t i = 0; !ret && i < count; i++) {
        ret = endpoint_read(virtio, section, loaded);
    }
    range_cursor_seek(&cursor, &loaded->domains, 0);
    while (!ret && range_cursor_next(&cursor, UINT64_MAX, &run)) {
        ret = ((const struct virtio_domain *)(uintptr_t)run.target)->endpoints ? 0 : -EBADMSG;
    }
    return ret;
}

static int faults_read(const struct virtio *virtio, struct save_section *section,
                       struct virtio_loaded *loaded)
{
    uint32_t flags = VIRTIO_FAULT_READ | VIRTIO_FAULT_WRITE | VIRTIO_FAULT_ADDRESS;
    uint32_t count = save_get32(section);

    if (section->error || count > virtio->config.faults_max) {
        return section->error ? section->error : -EINVAL;
    }
    loaded->faults = base_alloc_array(count + 1, sizeof(*loaded->faults));
    if (!loaded->faults) {
        return -ENOMEM;
    }
    loaded->fault_count = count;
    for (uint32_t i = 0; i < count; i++) {
        struct virtio_fault *fault = &loaded->faults[i];

        fault->reason = save_get8(section);
        fault->flags = save_get32(section);
        fault->endpoint = save_get16(section);
        fault->address = save_get64(section);
        if (fault->reason > VIRTIO_FAULT_MAPPING || (fault->flags & ~flags)) {
            save_spoil(section);
        }
    }
    return section->error;
}

static int operations_read(struct save_section *section, struct virtio_loaded *loaded)
{
    uint32_t count = save_get32(section);

    if (!section->error && count > VIRTIO_OPERATIONS) {
        save_spoil(section);
    }
    for (uint32_t i = 0; !section->error && i < count; i++) {
        struct virtio_operation *operation = base_alloc(sizeof(*operation));

        if (!operation) {
            return -ENOMEM;
        }
        operation->phase = PHASE_DONE;
        operation->tells = true;
        operation->token = save_get64(section);
        operation->status = save_get8(section);
        if (operation->status > VIOMMU_VIRTIO_NOMEM) {
            save_spoil(section);
        }
        *loaded->end = operation;
        loaded->end = &operation->next;
        loaded->operation_count++;
    }
    return section->error;
}

int virtio_decode(struct viommu *iommu, struct save_section *section, void **state)
{
    const struct virtio *virtio = virtio_of(iommu);
    struct virtio_loaded *loaded;
    int ret;

    if (!config_read(&virtio->config, section)) {
        return section->error ? section->error : -EINVAL;
    }
    loaded = base_alloc(sizeof(*loaded));
    if (!loaded) {
        return -ENOMEM;
    }
    loaded->end = &loaded->operations;
    range_map_init(&loaded->domains);
    range_map_init(&loaded->endpoints);
    *state = loaded;
    ret = state_read(virtio, section, loaded);
    ret = ret ? ret : domains_read(virtio, section, loaded);
    ret = ret ? ret : endpoints_read(virtio, section, loaded);
    ret = ret ? ret : faults_read(virtio, section, loaded);
    ret = ret ? ret : operations_read(section, loaded);
    return ret ? ret : save_close(section);
}

void virtio_discard(void *state)
{
    struct virtio_loaded *loaded = state;

    if (!loaded) {
        return;
    }
    virtio_domains_free(&loaded->domains);
    range_map_fini(&loaded->endpoints);
    base_free(loaded->faults);
    while (loaded->operations) {
        struct virtio_operation *next = loaded->operations->next;

        base_free(loaded->operations);
        loaded->operations = next;
    }
    base_free(loaded);
}

/* Mirrors find out in their first batch what they are to have. */
static void follow_after_load(struct virtio *virtio)
{
    for (struct virtio_operation *o = virtio->first; o; o = o->next) {
        o->phase = PHASE_FOLLOW;
        follow_join(&virtio->iommu, &o->wait);
    }
}

void virtio_restore(struct viommu *iommu, const void *state)
{
    struct virtio *virtio = virtio_of(iommu);
    struct virtio_loaded *loaded = (struct virtio_loaded *)(uintptr_t)state;

    virtio->accepted = loaded->accepted;
    virtio->bypass = loaded->bypass;
    virtio->domains = loaded->domains;
    virtio->endpoints = loaded->endpoints;
    virtio->mappings = loaded->mappings;
    virtio->serial = loaded->serial;
    virtio->faults.count = loaded->fault_count;
    memcpy(virtio->faults.ring, loaded->faults, loaded->fault_count * sizeof(*loaded->faults));
    if (loaded->operations) {
        virtio->first = loaded->operations;
        virtio->end = loaded->end;
        virtio->count = loaded->operation_count;
    }
    if (notify_has_mirrors(iommu)) {
        follow_after_load(virtio);
    }
    /* They are the instance's now. */
    range_map_init(&loaded->domains);
    range_map_init(&loaded->endpoints);
    loaded->operations = NULL;
}
