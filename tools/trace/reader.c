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

static void read_header(struct reading *reading)
{
    struct viommu_vtd_config *config = &reading->trace->config;
    const char *format = json_string_value(json_object_get(reading->object, "format"));
    const json_t *unit = json_object_get(reading->object, "unit");

    if (!format || strcmp(format, "viommu-trace") != 0) {
        fail(reading, "this is not the first line of a trace");
        return;
    }
    get_number(reading, "version", 0, INT32_MAX);
    if (json_integer_value(json_object_get(reading->object, "version")) != TRACE_FORMAT) {
        fail(reading, "the trace has another format than version %d", TRACE_FORMAT);
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
    get_registers(reading, reading->trace->registers);
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

static bool is_control(unsigned kind)
{
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
    if (!reading->failed && is_control(record.kind)) {
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
    *trace = (struct trace){.records = NULL};
}
