/* SPDX-License-Identifier: BSD-2-Clause */
/* `viommu acpi dmar`: the DMAR table of one VT-d unit; see acpi.h. */
#include "acpi.h"
#include "parse.h"

#include <stdlib.h>

enum { DEFAULT_WIDTH = 48 };

/* Where the firmware of QEMU's q35 puts a 16 MiB 32-bit BAR when nothing else is in the way. */
static const uint64_t default_base = 0xfd000000;

enum option_key {
    OPTION_BASE = 'b',
    OPTION_WIDTH = 'w',
    OPTION_SIZE = ACPI_OPTION_DMAR,
    OPTION_INCLUDE_ALL,
    OPTION_RMRR,
    OPTION_ATS,
    OPTION_INTREMAP,
};

static const struct argp_option options[] = {
    {"base", OPTION_BASE, "ADDR", 0, "guest address of the unit's registers (0xfd000000)", 1},
    {"size", OPTION_SIZE, "BYTES", 0, "size of its registers, a power of two (4k)", 1},
    {"width", OPTION_WIDTH, "N", 0, "bits of a guest-physical address, 1 to 64 (48)", 1},
    {"include-all", OPTION_INCLUDE_ALL, NULL, 0,
     "every device of the segment is behind the unit, in place of --device", 1},
    {"rmrr", OPTION_RMRR, "FIRST-LAST", 0,
     "memory that the devices use from the start; FIRST and LAST + 1 are multiples of 4k", 1},
    {"ats", OPTION_ATS, NULL, 0, "device-TLBs are allowed below every root port", 1},
    {"intremap", OPTION_INTREMAP, NULL, 0, "interrupt remapping is supported", 1},
    {0},
};

static void base_option(struct argp_state *state, struct acpi_dmar_request *dmar, const char *text)
{
    dmar->unit.base = acpi_number(state, "base", text, UINT64_MAX);
    if (dmar->unit.base % ACPI_PAGE) {
        argp_error(state, "--base: %s is not a multiple of 4k", text);
    }
}

static void size_option(struct argp_state *state, struct acpi_dmar_request *dmar, const char *text)
{
    uint64_t size = acpi_number(state, "size", text, (uint64_t)ACPI_PAGE << 15);

    if (size < ACPI_PAGE || (size & (size - 1))) {
        argp_error(state, "--size: %s is not a power of two of at least 4k", text);
    }
    dmar->unit.register_size = size;
}

static void width_option(struct argp_state *state, struct acpi_dmar_request *dmar, const char *text)
{
    uint64_t width = acpi_number(state, "width", text, 64);

    if (!width) {
        argp_error(state, "--width: 0 is too small");
    }
    dmar->table.host_address_width = (uint8_t)width;
}

static bool parse_scope(const char *text, struct viommu_dmar_scope *scope)
{
    scope->type = VIOMMU_DMAR_SCOPE_ENDPOINT;
    /* The bus may be left out: it is 0 then. */
    (void)parse_bus_part(&text, &scope->start_bus);
    for (;;) {
        unsigned n = scope->path_length;

        if (n == VIOMMU_DMAR_PATH_MAX ||
            !parse_function_part(&text, &scope->path[n].device, &scope->path[n].function)) {
            return false;
        }
        scope->path_length++;
        if (!*text) {
            return true;
        }
        if (*text++ != '/') {
            return false;
        }
    }
}

static void rmrr_option(struct argp_state *state, struct acpi_dmar_request *dmar, const char *text)
{
    struct viommu_dmar_reserved *reserved = &dmar->reserved[dmar->table.reserved_count];
    const char *at = text;

    if (dmar->table.reserved_count == ACPI_RESERVED_MAX) {
        argp_error(state, "--rmrr: more than %d ranges", ACPI_RESERVED_MAX);
    }
    if (!parse_number_part(&at, &reserved->first) || *at++ != '-' ||
        !parse_number(at, &reserved->last)) {
        argp_error(state, "--rmrr: '%s' is not FIRST-LAST, as 0x7fe00000-0x7fe0ffff", text);
    }
    if (reserved->first % ACPI_PAGE || reserved->last % ACPI_PAGE != ACPI_PAGE - 1) {
        argp_error(state, "--rmrr: %s does not begin and end at a multiple of 4k", text);
    }
    if (reserved->first > reserved->last) {
        argp_error(state, "--rmrr: %s ends before it begins", text);
    }
    dmar->table.reserved_count++;
}

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    struct acpi_request *request = state->input;
    struct acpi_dmar_request *dmar = &request->dmar;

    switch (key) {
    case OPTION_BASE:
        dmar->option = "base";
        base_option(state, dmar, text);
        return 0;
    case OPTION_SIZE:
        dmar->option = "size";
        size_option(state, dmar, text);
        return 0;
    case OPTION_WIDTH:
        dmar->option = "width";
        width_option(state, dmar, text);
        return 0;
    case OPTION_INCLUDE_ALL:
        dmar->option = "include-all";
        dmar->unit.include_all = true;
        return 0;
    case OPTION_RMRR:
        dmar->option = "rmrr";
        rmrr_option(state, dmar, text);
        return 0;
    case OPTION_ATS:
        dmar->option = "ats";
        dmar->ats = true;
        return 0;
    case OPTION_INTREMAP:
        dmar->option = "intremap";
        dmar->table.interrupt_remapping = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void begin(struct acpi_request *request)
{
    request->dmar.table.host_address_width = DEFAULT_WIDTH;
    request->dmar.unit.base = default_base;
    request->dmar.unit.register_size = ACPI_PAGE;
}

static void check(struct argp_state *state, const struct acpi_request *request)
{
    const struct acpi_dmar_request *dmar = &request->dmar;

    if (request->viot.option) {
        argp_error(state, "--%s is an option of viot", request->viot.option);
    }
    if (!request->device_count && !dmar->unit.include_all) {
        argp_error(state, "no device is behind the unit: give --device or --include-all");
    }
    if (request->device_count && dmar->unit.include_all) {
        argp_error(state, "--include-all takes every device: leave --device out");
    }
    if (dmar->table.reserved_count && !request->device_count) {
        argp_error(state, "--rmrr needs a --device that uses the memory");
    }
}

/* Points the table's parts at what was gathered. */
static void finish(struct argp_state *state, struct acpi_request *request)
{
    struct acpi_dmar_request *dmar = &request->dmar;

    check(state, request);
    for (size_t i = 0; i < request->device_count; i++) {
        if (!parse_scope(request->devices[i], &dmar->scopes[i])) {
            argp_error(state, "--device: '%s' is not [BUS:]DEV.FN, as 05.0", request->devices[i]);
        }
    }
    dmar->unit.segment = request->segment;
    dmar->unit.scopes = dmar->scopes;
    dmar->unit.scope_count = request->device_count;
    for (size_t i = 0; i < dmar->table.reserved_count; i++) {
        dmar->reserved[i].segment = request->segment;
        dmar->reserved[i].scopes = dmar->scopes;
        dmar->reserved[i].scope_count = request->device_count;
    }
    dmar->table.units = &dmar->unit;
    dmar->table.unit_count = 1;
    dmar->table.reserved = dmar->reserved;
    if (dmar->ats) {
        dmar->ats_ports.segment = request->segment;
        dmar->ats_ports.all_ports = true;
        dmar->table.ats = &dmar->ats_ports;
        dmar->table.ats_count = 1;
    }
}

static int64_t build(const struct acpi_request *request, void *table, size_t size)
{
    return viommu_dmar_build(&request->dmar.table, table, size);
}

const struct acpi_table acpi_dmar = {
    .name = "dmar",
    .options = &(const struct argp){.options = options, .parser = parse_option},
    .begin = begin,
    .finish = finish,
    .build = build,
};
