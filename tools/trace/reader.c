/* SPDX-License-Identifier: BSD-2-Clause */
/* See reader.h. */
#include "reader.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum {
    SLOTS_MAX = 1 << 15,
    LINE_MAX_BYTES = 64 * 1024, /* a writer's longest is far below */
};

/* The reading of a file: the line at hand, and what is wrong with it. */
struct reading {
    struct trace *trace;
    struct trace_error *error;
    unsigned line;
    uint64_t index; /* of the last observation */
    json_t *object;
    bool failed;
};

__attribute__((format(printf, 2, 3))) static void fail(struct reading *reading, const char *format,
                                                       ...)
{
    va_list arguments;

    if (reading->failed) {
        return;
    }
    reading->failed = true;
    reading->error->line = reading->line;
    va_start(arguments, format);
    vsnprintf(reading->error->text, sizeof(reading->error->text), format, arguments);
    va_end(arguments);
}

/* "0x" and 1 to 16 digits. */
static bool parse_hex(const char *text, uint64_t *out)
{
    size_t digits;

    if (!text || strncmp(text, "0x", 2) != 0) {
        return false;
    }
    digits = strspn(text + 2, "0123456789abcdefABCDEF");
    if (digits < 1 || digits > 16 || text[2 + digits]) {
        return false;
    }
    *out = strtoull(text + 2, NULL, 16);
    return true;
}

/* A member of the line that is an address or a bit pattern. */
static uint64_t get_hex_of(struct reading *reading, const json_t *object, const char *name)
{
    uint64_t value = 0;

    if (!parse_hex(json_string_value(json_object_get(object, name)), &value)) {
        fail(reading, "\"%s\" is missing, or is no number like \"0x1f\"", name);
    }
    return value;
}

static uint64_t get_hex(struct reading *reading, const char *name)
{
    return get_hex_of(reading, reading->object, name);
}

/* One that counts, within limits. */
static int64_t get_number_of(struct reading *reading, const json_t *object, const char *name,
                             int64_t least, int64_t most)
{
    const json_t *value = json_object_get(object, name);
    int64_t number = json_integer_value(value);

    if (!json_is_integer(value) || number < least || number > most) {
        fail(reading, "\"%s\" is missing, or is no number from %lld to %lld", name,
             (long long)least, (long long)most);
        return least;
    }
    return number;
}

static int64_t get_number(struct reading *reading, const char *name, int64_t least, int64_t most)
{
    return get_number_of(reading, reading->object, name, least, most);
}

static void get_switches(struct reading *reading, const json_t *unit)
{
    for (unsigned i = 0; i < TRACE_SWITCHES; i++) {
        const struct trace_switch *known = &trace_switches[i];
        const json_t *value = json_object_get(unit, known->name);
        bool *member = (bool *)((char *)&reading->trace->config + known->offset);

        if (!json_is_boolean(value)) {
            fail(reading, "\"%s\" is missing, or neither true nor false", known->name);
            return;
        }
        *member = json_is_true(value) != known->inverse;
    }
}

static void get_registers(struct reading *reading, uint64_t *registers)
{
    const json_t *object = json_object_get(reading->object, "registers");

    for (unsigned i = 0; i < TRACE_REGISTERS; i++) {
        registers[i] = get_hex_of(reading, object, trace_registers[i].name);
    }
}

/* ---- of a virtio-iommu ---- */

static struct trace_state get_state(struct reading *reading)
{
    const json_t *object = json_object_get(reading->object, "state");
    uint64_t values[TRACE_STATES];

    for (unsigned i = 0; i < TRACE_STATES; i++) {
        values[i] = get_hex_of(reading, object, trace_state_words[i]);
    }
    return (struct trace_state){values[0], values[1], values[2], values[3], values[4]};
}

static bool get_region(const json_t *pair, struct viommu_virtio_region *region)
{
    return json_array_size(pair) == 2 &&
           parse_hex(json_string_value(json_array_get(pair, 0)), &region->first) &&
           parse_hex(json_string_value(json_array_get(pair, 1)), &region->last);
}

static void get_regions(struct reading *reading, const json_t *list)
{
    struct trace *trace = reading->trace;
    size_t count = json_array_size(list);

    if (!json_is_array(list)) {
        fail(reading, "\"regions\" is missing, or is no list");
        return;
    }
    trace->regions = calloc(count + 1, sizeof(*trace->regions));
    if (!trace->regions) {
        fail(reading, "there is not enough memory for the trace");
        return;
    }
    for (size_t i = 0; i < count; i++) {
        if (!get_region(json_array_get(list, i), &trace->regions[i])) {
            fail(reading, "\"regions\" has something that is not like [\"0x1000\",\"0x1fff\"]");
        }
    }
    trace->virtio.regions = trace->regions;
    trace->virtio.region_count = count;
}

static void read_virtio_header(struct reading *reading, const json_t *unit)
{
    struct trace *trace = reading->trace;
    const json_t *bypass = json_object_get(unit, "bypass");

    trace->is_virtio = true;
    for (unsigned i = 0; i < TRACE_NUMBERS; i++) {
        const struct trace_number *known = &trace_numbers[i];
        int64_t most = known->size == 4 ? UINT32_MAX : UINT8_MAX;

        trace_number_set(known, &trace->virtio,
                         known->bits ? get_hex_of(reading, unit, known->name)
                                     : (uint64_t)get_number_of(reading, unit, known->name, 0,
                                                               most));
    }
    if (!json_is_boolean(bypass)) {
        fail(reading, "\"bypass\" is missing, or neither true nor false");
    }
    trace->virtio.bypass = json_is_true(bypass);
    get_regions(reading, json_object_get(unit, "regions"));
    if (json_object_get(reading->object, "state")) {
        trace->has_start = true;
        trace->start_state = get_state(reading);
    }
}

static int hex_digit(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *at = c ? strchr(digits, c) : NULL;

    return at ? (int)(at - digits) : -1;
}

/* The bytes of a request go behind those of the ones before. */
static void get_bytes(struct reading *reading, struct trace_record *record)
{
    struct trace *trace = reading->trace;
    const char *text = json_string_value(json_object_get(reading->object, "bytes"));
    size_t length = text ? strlen(text) : 1;

    if (length % 2 || length / 2 > TRACE_BYTES_MAX) {
        fail(reading, "\"bytes\" is missing, or is not at most %d bytes in hexadecimal",
             TRACE_BYTES_MAX);
        return;
    }
    if (trace->byte_room - trace->byte_count < TRACE_BYTES_MAX) {
        size_t room = trace->byte_room ? 2 * trace->byte_room : 4096;
        uint8_t *bytes = realloc(trace->bytes, room);

        if (!bytes) {
            fail(reading, "there is not enough memory for the trace");
            return;
        }
        trace->bytes = bytes;
        trace->byte_room = room;
    }
    record->low = trace->byte_count;
    record->slot = (uint32_t)(length / 2);
    for (size_t i = 0; i < length; i += 2) {
        int high = hex_digit(text[i]);
        int low = hex_digit(text[i + 1]);

        if (high < 0 || low < 0) {
            fail(reading, "\"bytes\" has something that is no hexadecimal digit");
            return;
        }
        trace->bytes[trace->byte_count++] = (uint8_t)(high << 4 | low);
    }
}

static uint32_t get_status(struct reading *reading)
{
    const char *word = json_string_value(json_object_get(reading->object, "status"));

    for (uint32_t i = 0; word && i < TRACE_STATUSES; i++) {
        if (!strcmp(word, trace_status_words[i])) {
            return i;
        }
    }
    if (!word || strcmp(word, trace_status_word(VIOMMU_OBSERVED_SILENCE)) != 0) {
        fail(reading, "\"status\" is missing, or not one that there is");
    }
    return VIOMMU_OBSERVED_SILENCE;
}

/* "bus:device.function" */
static uint16_t get_requester(struct reading *reading)
{
    const char *word = json_string_value(json_object_get(reading->object, "requester"));
    unsigned bus = 0, device = 0, function = 0;
    int end = 0;

    if (!word || sscanf(word, "%2x:%2x.%1x%n", &bus, &device, &function, &end) != 3 || end != 7 ||
        word[end] || device > 0x1f || function > 7) {
        fail(reading, "\"requester\" is missing, or is not like \"00:1f.7\"");
    }
    return (uint16_t)(bus << 8 | device << 3 | function);
}

static bool get_present(struct reading *reading)
{
    const json_t *value = json_object_get(reading->object, "present");

    if (!json_is_boolean(value)) {
        fail(reading, "\"present\" is missing, or neither true nor false");
    }
    return json_is_true(value);
}

static uint64_t get_count(struct reading *reading, const char *name)
{
    return (uint64_t)get_number(reading, name, 0, INT64_MAX);
}

/* ---- of both ---- */

static void read_header(struct reading *reading)
{
    struct viommu_vtd_config *config = &reading->trace->config;
    const char *format = json_string_value(json_object_get(reading->object, "format"));
    const char *model = json_string_value(json_object_get(reading->object, "model"));
    const json_t *unit = json_object_get(reading->object, "unit");

    if (!format || strcmp(format, "viommu-trace") != 0) {
        fail(reading, "this is not the first line of a trace");
        return;
    }
    get_number(reading, "version", 0, INT32_MAX);
    if (json_integer_value(json_object_get(reading->object, "version")) != TRACE_FORMAT) {
        fail(reading, "the trace has another format than version %d", TRACE_FORMAT);
    }
    if (model && !strcmp(model, "virtio")) {
        read_virtio_header(reading, unit);
        return;
    }
    if (json_object_get(reading->object, "cap")) {
        reading->trace->has_capabilities = true;
        reading->trace->cap = get_hex(reading, "cap");
        reading->trace->ecap = get_hex(reading, "ecap");
    }
    if (json_object_get(reading->object, "registers")) {
        reading->trace->has_start = true;
        get_registers(reading, reading->trace->start);
    }
    config->address_width = (uint8_t)get_number_of(reading, unit, "width", 0, UINT8_MAX);
    config->host_address_width = (uint8_t)get_number_of(reading, unit, "host-width", 0, UINT8_MAX);
    config->domain_bits = (uint8_t)get_number_of(reading, unit, "domain-bits", 0, UINT8_MAX);
    config->fault_records =
        (uint16_t)get_number_of(reading, unit, "fault-records", 0, UINT16_MAX);
    get_switches(reading, unit);
}

static void read_end(struct reading *reading)
{
    if (reading->trace->is_virtio) {
        reading->trace->end_state = get_state(reading);
    } else {
        get_registers(reading, reading->trace->registers);
    }
    reading->trace->ended = true;
    reading->trace->end_line = reading->line;
}

static void get_descriptor(struct reading *reading, struct trace_record *record)
{
    record->slot = (uint32_t)get_number(reading, "slot", 0, SLOTS_MAX - 1);
    record->low = get_hex(reading, "low");
    record->high = get_hex(reading, "high");
}

static void get_command(struct reading *reading, struct trace_record *record)
{
    record->offset = get_hex(reading, "offset");
    record->value = get_hex(reading, "value");
    if (json_object_get(reading->object, "low")) {
        record->low = get_hex(reading, "low");
        record->high = get_hex(reading, "high");
    }
}

static void get_virtio_members(struct reading *reading, struct trace_record *record)
{
    switch (record->kind) {
    case VIOMMU_OBSERVED_ACCEPTED:
        record->value = get_hex(reading, "value");
        break;
    case VIOMMU_OBSERVED_REQUEST:
        record->value = get_count(reading, "number");
        record->size = (uint32_t)get_number(reading, "size", 0, UINT32_MAX);
        record->high = get_count(reading, "room");
        get_bytes(reading, record);
        break;
    case VIOMMU_OBSERVED_RESTART:
        record->value = get_count(reading, "number");
        break;
    case VIOMMU_OBSERVED_ANSWERED:
        record->value = get_count(reading, "number");
        record->reason = get_status(reading);
        record->size = (uint32_t)get_number(reading, "written", 0, UINT32_MAX);
        break;
    case VIOMMU_OBSERVED_REQUESTER:
        record->slot = get_requester(reading);
        record->value = get_present(reading);
        break;
    default:
        break;
    }
}

static void get_members(struct reading *reading, struct trace_record *record)
{
    switch (record->kind) {
    case VIOMMU_OBSERVED_WRITE:
        record->offset = get_hex(reading, "offset");
        record->size = (uint32_t)get_number(reading, "size", 1, 8);
        record->value = get_hex(reading, "value");
        break;
    case VIOMMU_OBSERVED_COMMAND:
    case VIOMMU_OBSERVED_COMPLETED:
        get_command(reading, record);
        break;
    case VIOMMU_OBSERVED_DESCRIPTOR:
        get_descriptor(reading, record);
        break;
    case VIOMMU_OBSERVED_REFUSED:
        get_descriptor(reading, record);
        record->reason = (uint32_t)get_number(reading, "reason", 1, 15);
        break;
    case VIOMMU_OBSERVED_RETIRED:
        get_descriptor(reading, record);
        record->error = (int)get_number(reading, "error", INT32_MIN, 0);
        break;
    case VIOMMU_OBSERVED_MESSAGE:
        record->offset = get_hex(reading, "offset");
        record->address = get_hex(reading, "address");
        record->value = get_hex(reading, "value");
        break;
    default:
        get_virtio_members(reading, record);
        break;
    }
}

static unsigned kind_of(const struct reading *reading)
{
    const char *word = json_string_value(json_object_get(reading->object, "kind"));

    for (unsigned kind = 1; word && kind < TRACE_KINDS; kind++) {
        if (!strcmp(word, trace_kind_words[kind])) {
            return kind;
        }
    }
    return 0;
}

static bool is_control(const struct trace *trace, unsigned kind)
{
    if (kind > VIOMMU_OBSERVED_EVENT && !trace->is_virtio) {
        return false;
    }
    return kind != VIOMMU_OBSERVED_MISS && kind != VIOMMU_OBSERVED_FAULT &&
           kind != VIOMMU_OBSERVED_EVENT;
}

static void keep(struct reading *reading, const struct trace_record *record)
{
    struct trace *trace = reading->trace;

    if (trace->count == trace->room) {
        size_t room = trace->room ? 2 * trace->room : 1024;
        struct trace_record *records =
            reallocarray(trace->records, room, sizeof(*trace->records));

        if (!records) {
            fail(reading, "there is not enough memory for the trace");
            return;
        }
        trace->records = records;
        trace->room = room;
    }
    trace->records[trace->count++] = *record;
}

static void read_observation(struct reading *reading)
{
    struct trace_record record = {.kind = kind_of(reading), .line = reading->line};
    uint64_t index = (uint64_t)get_number(reading, "index", 0, INT64_MAX);

    if (reading->trace->ended) {
        fail(reading, "something follows the end of the trace");
    }
    if (!record.kind) {
        fail(reading, "\"kind\" is missing, or not one that a trace has");
    }
    if (index <= reading->index && !reading->failed) {
        fail(reading, "\"index\" does not grow");
    }
    reading->index = index;
    if (record.kind == TRACE_END) {
        read_end(reading);
        return;
    }
    get_members(reading, &record);
    if (!reading->failed && is_control(reading->trace, record.kind)) {
        keep(reading, &record);
    }
}

static void read_line(struct reading *reading, const char *text, size_t length)
{
    json_error_t error;

    reading->line++;
    reading->object = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(reading->object)) {
        fail(reading, "this is no JSON object: %.100s", reading->object ? "" : error.text);
    } else if (reading->line == 1) {
        read_header(reading);
    } else {
        read_observation(reading);
    }
    json_decref(reading->object);
}

/* One line, with its end if it has one: 0 at the end of the file. */
static size_t next_line(struct reading *reading, FILE *file, char *text)
{
    size_t length = 0;
    int c = 0;

    while (c != '\n' && (c = getc_unlocked(file)) != EOF) {
        if (length == LINE_MAX_BYTES) {
            reading->line++;
            fail(reading, "the line is too long");
            return 0;
        }
        text[length++] = (char)c;
    }
    return length;
}

bool trace_read(FILE *file, struct trace *trace, struct trace_error *error)
{
    struct reading reading = {.trace = trace, .error = error};
    char *text = malloc(LINE_MAX_BYTES);
    size_t length;

    *trace = (struct trace){.records = NULL};
    if (!text) {
        fail(&reading, "there is not enough memory");
    }
    while (!reading.failed && (length = next_line(&reading, file, text)) > 0) {
        if (text[length - 1] == '\n') {
            read_line(&reading, text, length);
        }
    }
    if (!reading.failed && ferror(file)) {
        reading.line = 0;
        fail(&reading, "%s", strerror(errno));
    }
    if (!reading.failed && !reading.line) {
        fail(&reading, "there is no line in it");
    }
    free(text);
    if (reading.failed) {
        trace_drop(trace);
    }
    return !reading.failed;
}

void trace_drop(struct trace *trace)
{
    free(trace->records);
    free(trace->regions);
    free(trace->bytes);
    *trace = (struct trace){.records = NULL};
}
