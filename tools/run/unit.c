/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The unit room: IOMMU instances are made, configured, started, reset, and given time to work.
 *
 * The first unit is made by `unit`; more have names, and `use` says which one operations are about.
 * All share the guest's memory and the virtual clock.
 */
#include "trace.h"
#include "virtio.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

enum {
    MILLISECOND = 1000000,
    VIRTIO_CONFIG_SIZE = 40, /* bytes of the configuration space */
};

static uint64_t virtual_clock(void *opaque)
{
    return ((struct unit *)opaque)->run->now;
}

/* A switch of the scenario that is the inverse of a flag of the configuration. */
static bool inverse_switch(struct run *run, const char *name, bool *out)
{
    bool on = !*out;

    if (!arg_switch(run, name, &on)) {
        return false;
    }
    *out = !on;
    return true;
}

static bool byte_argument(struct run *run, const char *name, uint8_t *out)
{
    uint64_t value = *out;

    if (!arg_number_max(run, name, UINT8_MAX, &value)) {
        return false;
    }
    *out = (uint8_t)value;
    return true;
}

bool unit_arguments(struct run *run, struct viommu_vtd_config *vtd)
{
    uint64_t records = vtd->fault_records;

    if (!byte_argument(run, "width", &vtd->address_width) ||
        !byte_argument(run, "host-width", &vtd->host_address_width) ||
        !byte_argument(run, "domain-bits", &vtd->domain_bits) ||
        !arg_switch(run, "caching-mode", &vtd->caching_mode) ||
        !inverse_switch(run, "super-pages", &vtd->no_super_pages) ||
        !inverse_switch(run, "pass-through", &vtd->no_pass_through) ||
        !inverse_switch(run, "queue", &vtd->no_queued_invalidation) ||
        !inverse_switch(run, "snoop-control", &vtd->no_snoop_control) ||
        !arg_switch(run, "device-tlb", &vtd->device_tlb) ||
        !arg_number_max(run, "fault-records", UINT16_MAX, &records) ||
        !arg_requester(run, "requester", &vtd->unit_requester)) {
        return false;
    }
    vtd->fault_records = (uint16_t)records;
    return true;
}

static struct unit *find_unit(struct run *run, const char *name)
{
    struct unit *unit = run->units;

    while (unit && strcmp(unit->name, name)) {
        unit = unit->next;
    }
    return unit;
}

static void add_unit(struct run *run, struct unit *unit)
{
    struct unit **end = &run->units;

    while (*end) {
        end = &(*end)->next;
    }
    *end = unit;
    run->unit = unit;
}

/* What every model is configured with. */
static bool common_arguments(struct run *run, struct viommu_config *config)
{
    static const char *const policies[] = {"continue", "fence", "stop", NULL};
    static const char *const modes[] = {"normal", "faithful", "hostile", NULL};
    unsigned policy = VIOMMU_REWRITE_CONTINUE;
    unsigned mode = VIOMMU_CACHE_NORMAL;
    uint64_t quota = 0;
    uint64_t ack_timeout = 0; /* nanoseconds */
    uint64_t iotlb = 0;

    if (!arg_duration(run, "ack-timeout", &ack_timeout) ||
        !arg_number_max(run, "iotlb", UINT32_MAX, &iotlb) ||
        !arg_choice(run, "rewrite-policy", policies, &policy) ||
        !arg_number(run, "shadow-quota", &config->shadow_quota) ||
        !arg_choice(run, "cache", modes, &mode) ||
        !arg_number_max(run, "cache-quota", UINT32_MAX, &quota) ||
        !arg_number(run, "cache-seed", &config->cache_seed) || !arg_bus(run, &config->space)) {
        return false;
    }
    if (ack_timeout % MILLISECOND || ack_timeout / MILLISECOND > UINT32_MAX) {
        run_error(run, NULL, "ack-timeout is whole milliseconds, 4294967295 at most");
        return false;
    }
    config->ack_timeout_ms = (uint32_t)(ack_timeout / MILLISECOND);
    config->iotlb_entries = (uint32_t)iotlb;
    config->rewrite_policy = (enum viommu_rewrite_policy)policy;
    config->cache_mode = (enum viommu_cache_mode)mode;
    config->cache_quota = (uint32_t)quota;
    return true;
}

static void start(struct run *run, struct unit *unit)
{
    int error = viommu_start(unit->iommu);

    result_errno(&run->result, error);
    if (!error) {
        trace_begin(run, unit);
    }
}

struct unit *unit_begin(struct run *run, const char *name)
{
    struct unit *unit;

    if (find_unit(run, name)) {
        run_error(run, name, "there is a unit of this name");
        return NULL;
    }
    unit = run_alloc(sizeof(*unit));
    unit->run = run;
    unit->config = (struct viommu_config){
        .memory = run->memory,
        .callbacks = {.interrupt = notify_interrupt, .event = notify_event},
        .opaque = unit,
        .clock = virtual_clock,
    };
    if (!common_arguments(run, &unit->config)) {
        free(unit);
        return NULL;
    }
    unit->name = run_copy_text(name);
    return unit;
}

bool unit_add(struct run *run, struct unit *unit, int error)
{
    result_errno(&run->result, error);
    if (error) {
        virtio_room_destroy(unit->virtio);
        free(unit->name);
        free(unit);
        return false;
    }
    add_unit(run, unit);
    return true;
}

static void do_unit(struct run *run)
{
    const char *name = "unit";
    struct unit *unit;

    arg_text(run, "name", &name);
    unit = unit_begin(run, name);
    if (!unit) {
        return;
    }
    if (!unit_arguments(run, &unit->vtd)) {
        free(unit->name);
        free(unit);
        return;
    }
    if (unit_add(run, unit, viommu_vtd_create(&unit->config, &unit->vtd, &unit->iommu)) &&
        !arg_flag(run, "stopped")) {
        start(run, unit);
    }
}

static void do_use(struct run *run)
{
    const char *name;
    struct unit *unit;

    arg_text(run, "name", &name);
    unit = find_unit(run, name);
    if (unit) {
        run->unit = unit;
    } else {
        run_error(run, name, "there is no unit of this name");
    }
}

static void do_configure(struct run *run)
{
    struct unit *unit = run_unit(run);
    struct viommu_vtd_config vtd;
    int error;

    if (!unit) {
        return;
    }
    vtd = unit->vtd;
    if (!unit_arguments(run, &vtd)) {
        return;
    }
    error = viommu_vtd_configure(unit->iommu, &vtd);
    if (!error) {
        unit->vtd = vtd;
    }
    result_errno(&run->result, error);
}

static void do_start(struct run *run)
{
    struct unit *unit = run_unit(run);

    if (unit) {
        start(run, unit);
    }
}

/* What the guest had set up is gone; what the builders know of tables in memory stays true. */
static void do_reset(struct run *run)
{
    struct unit *unit = run_unit(run);

    if (!unit) {
        return;
    }
    result_errno(&run->result, viommu_reset(unit->iommu));
    queue_destroy(unit->queue);
    unit->queue = NULL;
}

static void unit_free(struct run *run, struct unit *unit)
{
    if (unit->virtio) {
        trace_end(run, unit); /* as traces_end_virtio */
    }
    devices_destroy(run, unit);
    trace_end(run, unit);
    viommu_destroy(unit->iommu);
    tables_destroy(unit->tables);
    queue_destroy(unit->queue);
    virtio_room_destroy(unit->virtio);
    free(unit->name);
    free(unit);
}

static void do_destroy(struct run *run)
{
    struct unit *unit = run_unit(run);
    struct unit **at = &run->units;

    if (!unit) {
        return;
    }
    if (run->holds) {
        run_error(run, NULL, "a translation is still held: `release` it first");
        return;
    }
    while (*at != unit) {
        at = &(*at)->next;
    }
    *at = unit->next;
    run->unit = run->units;
    unit_free(run, unit);
}

void units_destroy(struct run *run)
{
    while (run->units) {
        struct unit *unit = run->units;

        run->units = unit->next;
        unit_free(run, unit);
    }
}

static void do_process(struct run *run)
{
    struct unit *unit = run_unit(run);
    uint64_t budget = 0;

    if (!unit || !arg_number_max(run, "budget", UINT32_MAX, &budget)) {
        return;
    }
    result_errno(&run->result, viommu_process(unit->iommu, (unsigned)budget));
    viommu_memory_process(run->memory);
}

static void do_autoprocess(struct run *run)
{
    arg_switch(run, "switch", &run->autoprocess);
}

bool unit_ready(const struct unit *unit)
{
    struct pollfd descriptor = {.fd = viommu_event_fd(unit->iommu), .events = POLLIN};

    return poll(&descriptor, 1, 0) == 1;
}

static void do_ready(struct run *run)
{
    struct unit *unit = run_unit(run);

    if (unit) {
        result_status(&run->result, unit_ready(unit) ? "yes" : "no");
    }
}

static void do_info(struct run *run)
{
    struct unit *unit = run_unit(run);

    if (!unit) {
        return;
    }
    result_word(&run->result, "name", unit->name);
    result_size(&run->result, "registers",
                unit->virtio ? VIRTIO_CONFIG_SIZE : viommu_vtd_register_size(unit->iommu));
    result_word(&run->result, "version", viommu_version());
}

/* Every member of struct viommu_stats by its name; of an array one name an element. */
#define COUNTER(member) {#member, offsetof(struct viommu_stats, member)}
#define COUNTER_OF(member, index, name) {name, offsetof(struct viommu_stats, member[index])}
#define COUNTERS_BY_CAUSE(member)                                                                  \
    COUNTER_OF(member, VIOMMU_CAUSE_PAGES, #member "_pages"),                                      \
        COUNTER_OF(member, VIOMMU_CAUSE_DOMAIN, #member "_domain"),                                \
        COUNTER_OF(member, VIOMMU_CAUSE_GLOBAL, #member "_global"),                                \
        COUNTER_OF(member, VIOMMU_CAUSE_CONTEXT, #member "_context"),                              \
        COUNTER_OF(member, VIOMMU_CAUSE_MEMORY, #member "_memory"),                                \
        COUNTER_OF(member, VIOMMU_CAUSE_REPLAY, #member "_replay"),                                \
        COUNTER_OF(member, VIOMMU_CAUSE_RETRY, #member "_retry")

static const struct {
    const char *name;
    size_t offset;
} counters[] = {
    COUNTER(translations),
    COUNTER(iotlb_hits),
    COUNTER(walks),
    COUNTER(context_fetches),
    COUNTER(refused),
    COUNTER(faults_recorded),
    COUNTER(faults_lost),
    COUNTER(interrupts_requested),
    COUNTER(interrupts_sent),
    COUNTER(bytes_read),
    COUNTER(bytes_written),
    COUNTER_OF(context_invalidations, 0, "context_invalidations_global"),
    COUNTER_OF(context_invalidations, 1, "context_invalidations_domain"),
    COUNTER_OF(context_invalidations, 2, "context_invalidations_device"),
    COUNTER_OF(iotlb_invalidations, 0, "iotlb_invalidations_global"),
    COUNTER_OF(iotlb_invalidations, 1, "iotlb_invalidations_domain"),
    COUNTER_OF(iotlb_invalidations, 2, "iotlb_invalidations_page"),
    COUNTER(device_tlb_invalidations),
    COUNTER(interrupt_cache_invalidations),
    COUNTER(waits_completed),
    COUNTER(queue_errors),
    COUNTER(drains),
    COUNTER(drains_delayed),
    COUNTER(acks_pending),
    COUNTER(acks_timed_out),
    COUNTER(events_lost),
    COUNTERS_BY_CAUSE(tables_compared),
    COUNTERS_BY_CAUSE(pages_present),
    COUNTERS_BY_CAUSE(pages_absent),
    COUNTERS_BY_CAUSE(pages_appeared),
    COUNTERS_BY_CAUSE(pages_gone),
    COUNTERS_BY_CAUSE(pages_rewritten),
    COUNTER(calls_map),
    COUNTER(calls_unmap),
    COUNTER(calls_replace),
    COUNTER(calls_failed),
    COUNTER(pages_interrupted),
    COUNTER(windows),
    COUNTER(window_ns),
    COUNTER(window_ns_max),
    COUNTER(retries),
    COUNTER(shadow_bytes),
    COUNTER(shadow_pages),
    COUNTER(windows_pinned),
    COUNTER(pages_pinned),
    COUNTER(windows_open),
    COUNTER(windows_revoked),
    COUNTER(windows_overdue),
    COUNTER(windows_kept),
};

enum { COUNTERS = sizeof(counters) / sizeof(counters[0]) };

static void result_counter(struct run *run, const struct viommu_stats *stats, unsigned index)
{
    uint64_t value;

    memcpy(&value, (const char *)stats + counters[index].offset, sizeof(value));
    result_decimal(&run->result, counters[index].name, value);
}

static const char *next_counter(void *opaque)
{
    unsigned *index = opaque;

    return *index < COUNTERS ? counters[(*index)++].name : NULL;
}

/* The counter that a word of the line names. */
static void named_counter(struct run *run, const struct viommu_stats *stats, const char *name)
{
    unsigned first = 0;
    const char *near;

    for (unsigned i = 0; i < COUNTERS; i++) {
        if (!strcmp(counters[i].name, name)) {
            result_counter(run, stats, i);
            return;
        }
    }
    near = nearest(name, next_counter, &first);
    run_error(run, name, "no such counter%s%s", near ? "; did you mean " : "", near ? near : "");
}

static void do_stats(struct run *run)
{
    struct unit *unit = run_unit(run);
    const struct line *line = &run->line;
    struct viommu_stats stats;

    if (!unit) {
        return;
    }
    result_errno(&run->result, viommu_stats_get(unit->iommu, &stats, sizeof(stats)));
    for (unsigned i = line->first_argument; i < line->word_count && !run->failed; i++) {
        named_counter(run, &stats, line->words[i].value);
    }
    for (unsigned i = 0; i < COUNTERS && line->first_argument == line->word_count; i++) {
        result_counter(run, &stats, i);
    }
}

const struct command unit_commands[] = {
    {"unit",
     "[name] " CONFIGURATION " " COMMON_CONFIGURATION " [stopped!]",
     "Makes a VT-d unit, starts it unless stopped, and uses it from here on.", do_unit},
    {"use", "name", "Says which unit operations are about from here on.", do_use},
    {"configure", CONFIGURATION, "Configures a stopped unit anew.", do_configure},
    {"start", "", "Starts a stopped unit.", do_start},
    {"reset", "", "Resets the unit, as a platform reset does.", do_reset},
    {"destroy", "", "Destroys the unit and its devices.", do_destroy},
    {"process", "[budget]", "Lets the unit work: once, with a budget.", do_process},
    {"autoprocess", "switch",
     "on (as at first): units work until idle after each operation; or off.", do_autoprocess},
    {"ready", "", "Tells whether the unit's event descriptor is readable: yes or no.", do_ready},
    {"info", "", "Tells the unit's name, register size and version.", do_info},
    {"stats", "...", "Tells the counters named, or all.", do_stats},
    {0},
};
