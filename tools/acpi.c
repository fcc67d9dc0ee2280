/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * viommu acpi dmar: writes the DMAR table of one VT-d unit, for `qemu -acpitable file=...`.
 *
 * The command line is gathered into a struct request; then the table is built twice: once to learn
 * its length, once into memory of that length.
 */
#include "parse.h"
#include "tools.h"

#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <viommu/dmar.h>

enum {
    DEVICES_MAX = 256,
    RESERVED_MAX = 64,
    PAGE = 4096,
    DEFAULT_WIDTH = 48,
};

/* Where the firmware of QEMU's q35 puts a 16 MiB 32-bit BAR when nothing else is in the way. */
static const uint64_t default_base = 0xfd000000;

enum option_key {
    OPTION_BASE = 'b',
    OPTION_WIDTH = 'w',
    OPTION_DEVICE = 'd',
    OPTION_OUTPUT = 'o',
    OPTION_INCLUDE_ALL = 0x100,
    OPTION_INTREMAP,
    OPTION_RMRR,
    OPTION_ATS,
    OPTION_SIZE,
    OPTION_SEGMENT,
};

struct request {
    const char *output;
    bool table_named;
    bool ats;
    struct viommu_dmar dmar;
    struct viommu_dmar_unit unit;
    struct viommu_dmar_scope devices[DEVICES_MAX];
    size_t device_count;
    struct viommu_dmar_reserved reserved[RESERVED_MAX];
};

static const struct argp_option options[] = {
    {"base", OPTION_BASE, "ADDR", 0, "guest address of the unit's registers (0xfd000000)", 0},
    {"size", OPTION_SIZE, "BYTES", 0, "size of its registers, a power of two (4k)", 0},
    {"width", OPTION_WIDTH, "N", 0, "bits of a guest-physical address, 1 to 64 (48)", 0},
    {"segment", OPTION_SEGMENT, "N", 0, "PCI segment (0)", 0},
    {"device", OPTION_DEVICE, "[BUS:]DEV.FN", 0,
     "a device behind the unit; behind bridges BUS:DEV.FN/DEV.FN..., from the root bus on. "
     "May be given many times", 1},
    {"include-all", OPTION_INCLUDE_ALL, NULL, 0, "every device of the segment is behind the unit",
     1},
    {"rmrr", OPTION_RMRR, "FIRST-LAST", 0,
     "memory that the devices use from the start; FIRST and LAST + 1 are multiples of 4k", 1},
    {"ats", OPTION_ATS, NULL, 0, "device-TLBs are allowed below every root port", 1},
    {"intremap", OPTION_INTREMAP, NULL, 0, "interrupt remapping is supported", 1},
    {"output", OPTION_OUTPUT, "FILE", 0, "where to write the table; - is standard output", 2},
    {0},
};

/* Ends the program through argp when the number is none or too large. */
static uint64_t number_option(struct argp_state *state, const char *name, const char *text,
                              uint64_t max)
{
    uint64_t value = 0;

    if (!parse_number(text, &value)) {
        argp_error(state, "--%s: '%s' is not a number", name, text);
    }
    if (value > max) {
        argp_error(state, "--%s: %s is too large", name, text);
    }
    return value;
}

static void base_option(struct argp_state *state, struct request *request, const char *text)
{
    request->unit.base = number_option(state, "base", text, UINT64_MAX);
    if (request->unit.base % PAGE) {
        argp_error(state, "--base: %s is not a multiple of 4k", text);
    }
}

static void size_option(struct argp_state *state, struct request *request, const char *text)
{
    uint64_t size = number_option(state, "size", text, (uint64_t)PAGE << 15);

    if (size < PAGE || (size & (size - 1))) {
        argp_error(state, "--size: %s is not a power of two of at least 4k", text);
    }
    request->unit.register_size = size;
}

static void width_option(struct argp_state *state, struct request *request, const char *text)
{
    uint64_t width = number_option(state, "width", text, 64);

    if (!width) {
        argp_error(state, "--width: 0 is too small");
    }
    request->dmar.host_address_width = (uint8_t)width;
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

static void device_option(struct argp_state *state, struct request *request, const char *text)
{
    if (request->device_count == DEVICES_MAX) {
        argp_error(state, "--device: more than %d devices", DEVICES_MAX);
    } else if (!parse_scope(text, &request->devices[request->device_count++])) {
        argp_error(state, "--device: '%s' is not [BUS:]DEV.FN, as 05.0", text);
    }
}

static void rmrr_option(struct argp_state *state, struct request *request, const char *text)
{
    struct viommu_dmar_reserved *reserved = &request->reserved[request->dmar.reserved_count];
    const char *at = text;

    if (request->dmar.reserved_count == RESERVED_MAX) {
        argp_error(state, "--rmrr: more than %d ranges", RESERVED_MAX);
    }
    if (!parse_number_part(&at, &reserved->first) || *at++ != '-' ||
        !parse_number(at, &reserved->last)) {
        argp_error(state, "--rmrr: '%s' is not FIRST-LAST, as 0x7fe00000-0x7fe0ffff", text);
    }
    if (reserved->first % PAGE || reserved->last % PAGE != PAGE - 1) {
        argp_error(state, "--rmrr: %s does not begin and end at a multiple of 4k", text);
    }
    if (reserved->first > reserved->last) {
        argp_error(state, "--rmrr: %s ends before it begins", text);
    }
    request->dmar.reserved_count++;
}

static void name_argument(struct argp_state *state, struct request *request, const char *text)
{
    if (request->table_named) {
        argp_error(state, "'%s' is one argument too many", text);
    }
    if (strcmp(text, "dmar")) {
        argp_error(state, "there is no table '%s'; there is: dmar", text);
    }
    request->table_named = true;
}

static void end_of_arguments(struct argp_state *state, const struct request *request)
{
    if (!request->table_named) {
        argp_error(state, "which table? there is: dmar");
    }
    if (!request->output) {
        argp_error(state, "-o FILE is missing (- is standard output)");
    }
    if (!request->device_count && !request->unit.include_all) {
        argp_error(state, "no device is behind the unit: give --device or --include-all");
    }
    if (request->device_count && request->unit.include_all) {
        argp_error(state, "--include-all takes every device: leave --device out");
    }
    if (request->dmar.reserved_count && !request->device_count) {
        argp_error(state, "--rmrr needs a --device that uses the memory");
    }
}

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    struct request *request = state->input;

    switch (key) {
    case OPTION_BASE:
        base_option(state, request, text);
        return 0;
    case OPTION_SIZE:
        size_option(state, request, text);
        return 0;
    case OPTION_WIDTH:
        width_option(state, request, text);
        return 0;
    case OPTION_SEGMENT:
        request->unit.segment = (uint16_t)number_option(state, "segment", text, UINT16_MAX);
        return 0;
    case OPTION_DEVICE:
        device_option(state, request, text);
        return 0;
    case OPTION_INCLUDE_ALL:
        request->unit.include_all = true;
        return 0;
    case OPTION_RMRR:
        rmrr_option(state, request, text);
        return 0;
    case OPTION_ATS:
        request->ats = true;
        return 0;
    case OPTION_INTREMAP:
        request->dmar.interrupt_remapping = true;
        return 0;
    case OPTION_OUTPUT:
        request->output = text;
        return 0;
    case ARGP_KEY_ARG:
        name_argument(state, request, text);
        return 0;
    case ARGP_KEY_END:
        end_of_arguments(state, request);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* Points the table's parts at what was gathered. */
static void assemble(struct request *request, struct viommu_dmar_ats *ats)
{
    request->unit.scopes = request->devices;
    request->unit.scope_count = request->device_count;
    for (size_t i = 0; i < request->dmar.reserved_count; i++) {
        request->reserved[i].segment = request->unit.segment;
        request->reserved[i].scopes = request->devices;
        request->reserved[i].scope_count = request->device_count;
    }
    request->dmar.units = &request->unit;
    request->dmar.unit_count = 1;
    request->dmar.reserved = request->reserved;
    if (request->ats) {
        ats->segment = request->unit.segment;
        ats->all_ports = true;
        request->dmar.ats = ats;
        request->dmar.ats_count = 1;
    }
}

static int write_table(const char *name, const void *table, size_t size)
{
    FILE *out = strcmp(name, "-") ? fopen(name, "wb") : stdout;
    int error = 0;

    if (!out) {
        error = errno;
    } else if (fwrite(table, 1, size, out) != size || fflush(out)) {
        error = errno;
    }
    if (out && out != stdout && fclose(out) && !error) {
        error = errno;
    }
    if (error) {
        fprintf(stderr, "viommu acpi: %s: %s\n", name, strerror(error));
    }
    return error ? TOOL_FAILED : TOOL_OK;
}

static int build(struct request *request)
{
    struct viommu_dmar_ats ats = {0};
    int64_t length;
    uint8_t *table;
    int status;

    assemble(request, &ats);
    length = viommu_dmar_build(&request->dmar, NULL, 0);
    table = length > 0 ? malloc((size_t)length) : NULL;
    if (table) {
        length = viommu_dmar_build(&request->dmar, table, (size_t)length);
    }
    if (!table || length < 0) {
        fprintf(stderr, "viommu acpi: cannot build the table: %s\n",
                strerror(length < 0 ? (int)-length : ENOMEM));
        free(table);
        return TOOL_FAILED;
    }
    status = write_table(request->output, table, (size_t)length);
    free(table);
    return status;
}

int viommu_tool_acpi(int argc, char **argv)
{
    static const struct argp argp = {
        .options = options,
        .parser = parse_option,
        .args_doc = "dmar",
        .doc = "Writes the ACPI DMAR table of one VT-d unit.\v"
               "Example, for a guest with one edu device behind the unit:\n"
               "  viommu acpi dmar --device 00:05.0 -o dmar.bin\n"
               "  qemu-system-x86_64 ... -acpitable file=dmar.bin\n"
               "\n"
               "Exit status: 0 the table is written, 1 it is not, 2 wrong usage.",
    };
    struct request request = {
        .dmar.host_address_width = DEFAULT_WIDTH,
        .unit = {.base = default_base, .register_size = PAGE},
    };
    char name[] = "viommu acpi";

    argp_err_exit_status = TOOL_USAGE;
    argv[0] = name;
    if (argp_parse(&argp, argc, argv, 0, NULL, &request)) {
        return TOOL_USAGE;
    }
    return build(&request);
}
