/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * viommu acpi: writes the ACPI table of an IOMMU, for `qemu -acpitable file=...`.
 *
 * The command line is gathered into a struct acpi_request; then the table is built twice: once to
 * learn its length, once into memory of that length.
 */
#include "acpi.h"
#include "parse.h"
#include "tools.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum option_key {
    OPTION_DEVICE = 'd',
    OPTION_OUTPUT = 'o',
    OPTION_SEGMENT = 's',
};

static const struct acpi_table *const tables[] = {&acpi_dmar, &acpi_viot};

enum { TABLE_COUNT = sizeof(tables) / sizeof(tables[0]) };

static const struct argp_option options[] = {
    {"device", OPTION_DEVICE, "[BUS:]DEV.FN", 0,
     "a device behind the IOMMU. For dmar, behind bridges BUS:DEV.FN/DEV.FN..., from the root bus "
     "on. May be given many times", 0},
    {"segment", OPTION_SEGMENT, "N", 0, "PCI segment of the IOMMU and the devices (0)", 0},
    {"output", OPTION_OUTPUT, "FILE", 0, "where to write the table; - is standard output", 0},
    {0},
};

uint64_t acpi_number(struct argp_state *state, const char *name, const char *text, uint64_t max)
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

static void device_option(struct argp_state *state, struct acpi_request *request, const char *text)
{
    if (request->device_count == ACPI_DEVICES_MAX) {
        argp_error(state, "--device: more than %d devices", ACPI_DEVICES_MAX);
    }
    request->devices[request->device_count++] = text;
}

static void name_argument(struct argp_state *state, struct acpi_request *request, const char *text)
{
    if (request->table) {
        argp_error(state, "'%s' is one argument too many", text);
    }
    for (size_t i = 0; i < TABLE_COUNT; i++) {
        if (!strcmp(text, tables[i]->name)) {
            request->table = tables[i];
        }
    }
    if (!request->table) {
        argp_error(state, "there is no table '%s'; there are: dmar, viot", text);
    }
}

static void end_of_arguments(struct argp_state *state, struct acpi_request *request)
{
    if (!request->table) {
        argp_error(state, "which table? there are: dmar, viot");
    }
    if (!request->output) {
        argp_error(state, "-o FILE is missing (- is standard output)");
    }
    request->table->finish(state, request);
}

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    struct acpi_request *request = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        for (size_t i = 0; i < TABLE_COUNT; i++) {
            state->child_inputs[i] = request;
        }
        return 0;
    case OPTION_DEVICE:
        device_option(state, request, text);
        return 0;
    case OPTION_SEGMENT:
        request->segment = (uint16_t)acpi_number(state, "segment", text, UINT16_MAX);
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

static int build(const struct acpi_request *request)
{
    int64_t length = request->table->build(request, NULL, 0);
    uint8_t *table = length > 0 ? malloc((size_t)length) : NULL;
    int status;

    if (table) {
        length = request->table->build(request, table, (size_t)length);
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
    const struct argp_child children[] = {
        {acpi_dmar.options, 0, "dmar, the table of one VT-d unit:", 1},
        {acpi_viot.options, 0, "viot, the table of one virtio-iommu:", 2},
        {0},
    };
    const struct argp argp = {
        .options = options,
        .parser = parse_option,
        .args_doc = "dmar\nviot",
        .doc = "Writes the ACPI table that tells a guest of its IOMMU: DMAR of a VT-d unit, VIOT "
               "of a virtio-iommu.\v"
               "Examples, for a guest with one edu device behind the unit, or behind the "
               "virtio-iommu:\n"
               "  viommu acpi dmar --device 05.0 -o dmar.bin\n"
               "  viommu acpi viot --iommu 04.0 --device 05.0 -o viot.bin\n"
               "  qemu-system-x86_64 ... -acpitable file=viot.bin\n"
               "\n"
               "A VIOT names exactly the devices that the virtio-iommu has: its endpoints, whose "
               "ids are their requester ids.\n"
               "\n"
               "Exit status: 0 the table is written, 1 it is not, 2 wrong usage.",
        .children = children,
    };
    struct acpi_request request = {0};
    char name[] = "viommu acpi";

    argp_err_exit_status = TOOL_USAGE;
    argv[0] = name;
    for (size_t i = 0; i < TABLE_COUNT; i++) {
        if (tables[i]->begin) {
            tables[i]->begin(&request);
        }
    }
    if (argp_parse(&argp, argc, argv, 0, NULL, &request)) {
        return TOOL_USAGE;
    }
    return build(&request);
}
