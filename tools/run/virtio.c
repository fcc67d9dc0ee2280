/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The virtio room: a virtio-iommu, and its driver's requests.
 *
 * `virtio unit` makes a unit of this model beside those that `unit` makes; operations that are not
 * about registers, queues or tables (devices, subscribers, windows, saved states) work on both. A
 * request's status is its answer; `pending` when it completes later: then `virtio completed` takes
 * it. One that completes while the unit comes to rest (autoprocess) is told at once.
 */
#include "virtio.h"

#include "trace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    ATTACH = 1,
    DETACH,
    MAP,
    UNMAP,
    PROBE,
    ATTACH_BYPASS = 1,
    MAP_MMIO = 4,
    PROBE_SIZE_AT = 32,
    BYPASS_AT = 36,
    TAIL = 4,
    IN_MAX = 256,
    OUT_MAX = 1 << 17,
    PROPERTIES_MAX = 8, /* that are told */
};

struct completion {
    struct completion *next;
    uint64_t token;
    uint8_t status;
};

struct virtio_room {
    struct viommu_virtio_config config;
    struct viommu_virtio_region region; /* of the configuration */
    struct completion *first; /* not yet taken */
    struct completion **end;
    uint64_t token; /* of the last request */
    unsigned faulted; /* times that faults were announced */
};

static const char *const statuses[] = {"ok",    "ioerr", "unsupp", "deverr", "inval",
                                       "range", "noent", "fault",  "nomem"};

static const char *status_word(uint8_t status)
{
    return status < sizeof(statuses) / sizeof(statuses[0]) ? statuses[status] : "unknown";
}

static void on_completed(void *opaque, uint64_t token, uint8_t status)
{
    struct virtio_room *room = ((struct unit *)opaque)->virtio;
    struct completion *completion = run_alloc(sizeof(*completion));

    *completion = (struct completion){.token = token, .status = status};
    *room->end = completion;
    room->end = &completion->next;
}

static void on_faulted(void *opaque)
{
    ((struct unit *)opaque)->virtio->faulted++;
}

void virtio_room_destroy(struct virtio_room *room)
{
    while (room && room->first) {
        struct completion *next = room->first->next;

        free(room->first);
        room->first = next;
    }
    free(room);
}

const struct viommu_virtio_config *virtio_unit_config(const struct unit *unit)
{
    return &unit->virtio->config;
}

int virtio_unit_create(const struct unit *unit, struct viommu **out)
{
    return viommu_virtio_create(&unit->config, &unit->virtio->config, out);
}

/* ---- the unit ---- */

static bool arg_32(struct run *run, const char *name, uint32_t *out)
{
    uint64_t value = *out;

    if (!arg_number_max(run, name, UINT32_MAX, &value)) {
        return false;
    }
    *out = (uint32_t)value;
    return true;
}

static bool config_arguments(struct run *run, struct virtio_room *room)
{
    struct viommu_virtio_config *config = &room->config;
    uint64_t width = 0;

    if (!arg_number(run, "features", &config->features) ||
        !arg_number(run, "page-sizes", &config->page_size_mask) ||
        !arg_number(run, "input-first", &config->input.first) ||
        !arg_number(run, "input-last", &config->input.last) ||
        !arg_32(run, "domain-first", &config->domain_first) ||
        !arg_32(run, "domain-last", &config->domain_last) ||
        !arg_number_max(run, "host-width", 64, &width) ||
        !arg_switch(run, "bypass", &config->bypass) ||
        !arg_32(run, "probe-size", &config->probe_size) ||
        !arg_number(run, "reserved-first", &room->region.first) ||
        !arg_number(run, "reserved-last", &room->region.last) ||
        !arg_32(run, "domains-max", &config->domains_max) ||
        !arg_32(run, "endpoints-max", &config->domain_endpoints_max) ||
        !arg_32(run, "mappings-max", &config->mappings_max) ||
        !arg_32(run, "faults-max", &config->faults_max)) {
        return false;
    }
    config->host_address_width = (uint8_t)width;
    config->regions = &room->region;
    config->region_count = arg_given(run, "reserved-last");
    return true;
}

/* The driver accepts all that is offered, unless it says otherwise later. */
static int start(struct run *run, struct unit *unit)
{
    int error = viommu_start(unit->iommu);

    if (error) {
        return error;
    }
    trace_begin(run, unit);
    return viommu_virtio_accept(unit->iommu, viommu_virtio_features(unit->iommu));
}

static void do_unit(struct run *run)
{
    struct virtio_room *room = run_alloc(sizeof(*room));
    const char *name = "unit";
    struct unit *unit;

    room->end = &room->first;
    room->config.completed = on_completed;
    room->config.faulted = on_faulted;
    arg_text(run, "name", &name);
    if (!config_arguments(run, room)) {
        free(room);
        return;
    }
    unit = unit_begin(run, name);
    if (!unit) {
        free(room);
        return;
    }
    unit->virtio = room;
    if (unit_add(run, unit, virtio_unit_create(unit, &unit->iommu)) &&
        !arg_flag(run, "stopped")) {
        result_errno(&run->result, start(run, unit));
    }
}

/* The current unit's room; says an error when that is a VT-d unit, or there is none. */
static struct virtio_room *arg_room(struct run *run)
{
    struct unit *unit = run_unit(run);

    if (unit && !unit->virtio) {
        run_error(run, NULL, "this is no virtio-iommu: `virtio unit` makes one");
    }
    return unit ? unit->virtio : NULL;
}

static void do_accept(struct run *run)
{
    uint64_t features;

    if (arg_room(run)) {
        features = viommu_virtio_features(run->unit->iommu);
        if (arg_number(run, "features", &features)) {
            result_errno(&run->result, viommu_virtio_accept(run->unit->iommu, features));
            result_hex(&run->result, "offered", viommu_virtio_features(run->unit->iommu));
        }
    }
}

/* ---- requests ---- */

struct message_in {
    uint8_t bytes[IN_MAX];
    size_t size;
};

static void put(struct message_in *in, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        in->bytes[in->size++] = (uint8_t)(value >> 8 * i);
    }
}

static uint64_t get(const uint8_t *at, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes; i++) {
        value |= (uint64_t)at[i] << 8 * i;
    }
    return value;
}

/* Takes the completion of a token, where it has come. */
static bool take_token(struct virtio_room *room, uint64_t token, uint8_t *status)
{
    for (struct completion **at = &room->first; *at; at = &(*at)->next) {
        struct completion *completion = *at;

        if (completion->token == token) {
            *status = completion->status;
            *at = completion->next;
            if (!*at) {
                room->end = at;
            }
            free(completion);
            return true;
        }
    }
    return false;
}

/* Lets the unit work, and says what became of what was pending. */
static void report_pending(struct run *run, struct virtio_room *room)
{
    uint8_t status;

    run_settle(run);
    if (take_token(room, room->token, &status)) {
        result_status(&run->result, status_word(status));
    } else {
        result_status(&run->result, "pending");
        result_decimal(&run->result, "token", room->token);
    }
}

/* Sends a request with `room_out` bytes for the answer; returns how many were written. */
static size_t submit(struct run *run, struct virtio_room *room, const struct message_in *in,
                     uint8_t *out, size_t room_out)
{
    size_t written = 0;
    int ret = viommu_virtio_request(run->unit->iommu, in->bytes, in->size, out, room_out,
                                    ++room->token, &written);

    if (ret == VIOMMU_PENDING) {
        report_pending(run, room);
    } else if (ret) {
        result_errno(&run->result, ret);
    } else if (!written) {
        result_status(&run->result, "silent");
    } else {
        result_status(&run->result, status_word(out[written - TAIL]));
    }
    return written;
}

static void send_plain(struct run *run, struct virtio_room *room, const struct message_in *in)
{
    uint8_t out[TAIL];

    (void)submit(run, room, in, out, sizeof(out));
}

/* dev= is a device, or a number: endpoints that nobody has can be named, too. */
static bool arg_endpoint(struct run *run, uint32_t *out)
{
    const char *text = line_argument(&run->line, "dev")->value;
    uint64_t number;
    uint16_t id;

    if (number_value(text, &number)) {
        *out = (uint32_t)number;
        return true;
    }
    if (!arg_requester(run, "dev", &id)) {
        return false;
    }
    *out = id;
    return true;
}

static void do_attach(struct run *run)
{
    struct virtio_room *room = arg_room(run);
    uint32_t flags = arg_flag(run, "bypass") ? ATTACH_BYPASS : 0;
    uint32_t reserved = 0;
    struct message_in in = {.size = 0};
    uint32_t endpoint;
    uint32_t domain = 0;

    if (room && arg_32(run, "domain", &domain) && arg_endpoint(run, &endpoint) &&
        arg_32(run, "flags", &flags) && arg_32(run, "reserved", &reserved)) {
        put(&in, ATTACH, 4);
        put(&in, domain, 4);
        put(&in, endpoint, 4);
        put(&in, flags, 4);
        put(&in, reserved, 4);
        send_plain(run, room, &in);
    }
}

static void do_detach(struct run *run)
{
    struct virtio_room *room = arg_room(run);
    struct message_in in = {.size = 0};
    uint32_t endpoint;
    uint32_t domain = 0;

    if (room && arg_32(run, "domain", &domain) && arg_endpoint(run, &endpoint)) {
        put(&in, DETACH, 4);
        put(&in, domain, 4);
        put(&in, endpoint, 4);
        put(&in, 0, 8);
        send_plain(run, room, &in);
    }
}

/* [iova, iova + size - 1], or up to last=. */
static bool arg_range(struct run *run, uint64_t *first, uint64_t *last)
{
    uint64_t size = 4096;

    if (!arg_number(run, "iova", first) || !arg_number(run, "size", &size)) {
        return false;
    }
    *last = *first + size - 1;
    return arg_number(run, "last", last);
}

static void do_map(struct run *run)
{
    struct virtio_room *room = arg_room(run);
    struct message_in in = {.size = 0};
    uint32_t perm = VIOMMU_READ | VIOMMU_WRITE;
    uint32_t domain = 0;
    uint32_t flags;
    uint64_t first;
    uint64_t last;
    uint64_t gpa;

    if (!room || !arg_32(run, "domain", &domain) || !arg_range(run, &first, &last) ||
        !arg_number(run, "gpa", &gpa) || !arg_perm(run, "perm", &perm)) {
        return;
    }
    flags = perm | (arg_flag(run, "mmio") ? MAP_MMIO : 0);
    if (arg_32(run, "flags", &flags)) {
        put(&in, MAP, 4);
        put(&in, domain, 4);
        put(&in, first, 8);
        put(&in, last, 8);
        put(&in, gpa, 8);
        put(&in, flags, 4);
        send_plain(run, room, &in);
    }
}

static void do_unmap(struct run *run)
{
    struct virtio_room *room = arg_room(run);
    struct message_in in = {.size = 0};
    uint32_t reserved = 0;
    uint32_t domain = 0;
    uint64_t first;
    uint64_t last;

    if (room && arg_32(run, "domain", &domain) && arg_range(run, &first, &last) &&
        arg_32(run, "reserved", &reserved)) {
        put(&in, UNMAP, 4);
        put(&in, domain, 4);
        put(&in, first, 8);
        put(&in, last, 8);
        put(&in, reserved, 4);
        send_plain(run, room, &in);
    }
}

/* The regions that the properties name, as a driver reads them. */
static void result_properties(struct run *run, const uint8_t *at, size_t size)
{
    static const char *const firsts[PROPERTIES_MAX] = {"first0", "first1", "first2", "first3",
                                                       "first4", "first5", "first6", "first7"};
    static const char *const lasts[PROPERTIES_MAX] = {"last0", "last1", "last2", "last3",
                                                      "last4", "last5", "last6", "last7"};
    static const char *const types[PROPERTIES_MAX] = {"type0", "type1", "type2", "type3",
                                                      "type4", "type5", "type6", "type7"};
    unsigned count = 0;

    while (size >= 24 && get(at, 2) && count < PROPERTIES_MAX) {
        size_t length = get(at + 2, 2) + 4;

        result_word(&run->result, types[count], at[4] == 1 ? "msi" : "reserved");
        result_hex(&run->result, firsts[count], get(at + 8, 8));
        result_hex(&run->result, lasts[count++], get(at + 16, 8));
        length = length < size ? length : size;
        at += length;
        size -= length;
    }
}

static void do_probe(struct run *run)
{
    struct virtio_room *room = arg_room(run);
    struct message_in in = {.size = 0};
    uint64_t space;
    uint32_t endpoint;
    uint8_t *out;
    size_t written;

    if (!room || !arg_endpoint(run, &endpoint)) {
        return;
    }
    space = register_get(run, PROBE_SIZE_AT, 4) + TAIL;
    if (!arg_number_max(run, "room", OUT_MAX, &space)) {
        return;
    }
    put(&in, PROBE, 4);
    put(&in, endpoint, 4);
    in.size += 64;
    out = run_alloc(OUT_MAX);
    written = submit(run, room, &in, out, space);
    if (written > TAIL && !out[written - TAIL]) {
        result_properties(run, out, written - TAIL);
    }
    free(out);
}

static void do_raw(struct run *run)
{
    struct virtio_room *room = arg_room(run);
    struct message_in in = {.size = 0};
    uint64_t space = TAIL;
    uint8_t *data;
    uint8_t *out;
    size_t size;
    size_t written;

    if (!room || !arg_number_max(run, "room", OUT_MAX, &space) || !arg_data(run, &data, &size)) {
        return;
    }
    in.size = size < IN_MAX ? size : IN_MAX;
    memcpy(in.bytes, data, in.size);
    free(data);
    out = run_alloc(OUT_MAX);
    written = submit(run, room, &in, out, space);
    result_decimal(&run->result, "written", written);
    free(out);
}

static void do_reset(struct run *run)
{
    struct virtio_room *room = arg_room(run);
    int ret;

    if (!room) {
        return;
    }
    ret = viommu_virtio_reset(run->unit->iommu, ++room->token);
    if (ret == VIOMMU_PENDING) {
        report_pending(run, room);
    } else {
        result_errno(&run->result, ret);
    }
}

static void do_bypass(struct run *run)
{
    bool on = false;

    if (!arg_room(run)) {
        return;
    }
    if (arg_given(run, "switch") && arg_switch(run, "switch", &on)) {
        register_set(run, BYPASS_AT, 1, on);
        run_settle(run);
    }
    result_switch(&run->result, "bypass", register_get(run, BYPASS_AT, 1) & 1);
}

/* ---- what comes back ---- */

static void do_completed(struct run *run)
{
    struct virtio_room *room = arg_room(run);
    uint64_t token;
    uint8_t status;

    if (!room) {
        return;
    }
    if (!room->first) {
        result_status(&run->result, "none");
        return;
    }
    token = room->first->token;
    (void)take_token(room, token, &status);
    result_status(&run->result, status_word(status));
    result_decimal(&run->result, "token", token);
}

static void do_fault(struct run *run)
{
    static const char *const reasons[] = {"unknown", "domain", "mapping"};
    uint8_t bytes[VIOMMU_VIRTIO_FAULT_SIZE];
    uint64_t size = sizeof(bytes);
    int ret;

    if (!arg_room(run) || !arg_number_max(run, "room", sizeof(bytes), &size)) {
        return;
    }
    ret = viommu_virtio_fault(run->unit->iommu, bytes, size);
    if (ret <= 0) {
        result_status(&run->result, ret ? errno_word(ret) : "none");
        return;
    }
    result_word(&run->result, "reason", bytes[0] < 3 ? reasons[bytes[0]] : "other");
    result_perm(&run->result, "access", (uint32_t)get(bytes + 4, 4) & 3);
    result_requester(&run->result, "endpoint", (uint16_t)get(bytes + 8, 4));
    result_hex(&run->result, "address", get(bytes + 16, 8));
}

static void do_status(struct run *run)
{
    struct virtio_room *room = arg_room(run);
    struct viommu_virtio_status status;

    if (!room) {
        return;
    }
    result_errno(&run->result, viommu_virtio_status(run->unit->iommu, &status, sizeof(status)));
    result_decimal(&run->result, "domains", status.domains);
    result_decimal(&run->result, "endpoints", status.endpoints);
    result_decimal(&run->result, "mappings", status.mappings);
    result_decimal(&run->result, "memory", status.memory);
    result_decimal(&run->result, "pending", status.pending);
    result_decimal(&run->result, "faults", status.faults_waiting);
    result_decimal(&run->result, "announced", room->faulted);
    result_decimal(&run->result, "requests", status.requests);
    result_decimal(&run->result, "refused", status.refused);
}

const struct command virtio_commands[] = {
    {"virtio unit",
     "[name] [features=] [page-sizes=] [input-first=] [input-last=] [domain-first=] [domain-last=]"
     " [host-width=] [bypass=] [probe-size=] [reserved-first=] [reserved-last=] [domains-max=]"
     " [endpoints-max=] [mappings-max=] [faults-max=] " COMMON_CONFIGURATION " [stopped!]",
     "Makes a virtio-iommu, starts it unless stopped, accepts all features, and uses it.", do_unit},
    {"virtio accept", "[features]", "The driver accepts features: all, or these.", do_accept},
    {"virtio attach", "domain dev [bypass!] [flags=] [reserved=]",
     "Attaches an endpoint to a domain.", do_attach},
    {"virtio detach", "domain dev", "Detaches an endpoint from a domain.", do_detach},
    {"virtio map", "domain iova gpa [size] [perm] [last=] [mmio!] [flags=]",
     "Maps a range of a domain.", do_map},
    {"virtio unmap", "domain iova [size] [last=] [reserved=]", "Unmaps a range of a domain.",
     do_unmap},
    {"virtio probe", "dev [room=]", "Asks for an endpoint's properties.", do_probe},
    {"virtio raw", "[room=] " DATA_ARGUMENTS, "Sends a request of any bytes.", do_raw},
    {"virtio reset", "", "Resets the device, as a driver does.", do_reset},
    {"virtio bypass", "[switch]", "Writes the field `bypass`, or reads it.", do_bypass},
    {"virtio completed", "", "Takes the next request that was pending and is complete.",
     do_completed},
    {"virtio fault", "[room=]", "Takes the next fault that the event queue would tell.", do_fault},
    {"virtio status", "", "Tells domains, endpoints, mappings, and what is under way.", do_status},
    {0},
};
