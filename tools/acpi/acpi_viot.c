/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `viommu acpi viot`: the VIOT table of one virtio-iommu; see acpi.h.
 *
 * Devices become ranges: those whose requester ids follow one another are one range.
 */
#include "acpi.h"
#include "parse.h"

#include <stdlib.h>

enum option_key {
    OPTION_IOMMU = 'i',
};

static const struct argp_option options[] = {
    {"iommu", OPTION_IOMMU, "[BUS:]DEV.FN", 0, "the virtio-iommu", 1},
    {0},
};

static bool parse_function(const char *text, uint16_t *out)
{
    uint8_t bus = 0;
    uint8_t device;
    uint8_t function;

    /* The bus may be left out: it is 0 then. */
    (void)parse_bus_part(&text, &bus);
    if (!parse_function_part(&text, &device, &function) || *text) {
        return false;
    }
    *out = (uint16_t)(bus << 8 | device << 3 | function);
    return true;
}

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    struct acpi_request *request = state->input;
    struct acpi_viot_request *viot = &request->viot;

    if (key != OPTION_IOMMU) {
        return ARGP_ERR_UNKNOWN;
    }
    if (viot->option) {
        argp_error(state, "--iommu: a table has one");
    }
    viot->option = "iommu";
    if (!parse_function(text, &viot->iommu.function)) {
        argp_error(state, "--iommu: '%s' is not [BUS:]DEV.FN, as 04.0", text);
    }
    return 0;
}

static int compare(const void *a, const void *b)
{
    const struct viommu_viot_range *x = a;
    const struct viommu_viot_range *y = b;

    return (x->first > y->first) - (x->first < y->first);
}

/* One range a device, in order. */
static void gather(struct argp_state *state, struct acpi_request *request)
{
    struct acpi_viot_request *viot = &request->viot;

    for (size_t i = 0; i < request->device_count; i++) {
        struct viommu_viot_range *range = &viot->ranges[i];

        if (!parse_function(request->devices[i], &range->first)) {
            argp_error(state, "--device: '%s' is not [BUS:]DEV.FN, as 05.0", request->devices[i]);
        }
        if (range->first == viot->iommu.function) {
            argp_error(state, "--device: %s is the virtio-iommu itself", request->devices[i]);
        }
        range->segment = request->segment;
        range->last = range->first;
    }
    qsort(viot->ranges, request->device_count, sizeof(viot->ranges[0]), compare);
}

/* Makes one range of those that follow one another; returns how many are left. */
static size_t join(struct viommu_viot_range *ranges, size_t count)
{
    size_t kept = 0;

    for (size_t i = 1; i < count; i++) {
        if (ranges[i].first <= ranges[kept].last + 1) {
            ranges[kept].last = ranges[i].last;
        } else {
            ranges[++kept] = ranges[i];
        }
    }
    return count ? kept + 1 : 0;
}

static void finish(struct argp_state *state, struct acpi_request *request)
{
    struct acpi_viot_request *viot = &request->viot;

    if (request->dmar.option) {
        argp_error(state, "--%s is an option of dmar", request->dmar.option);
    }
    if (!viot->option) {
        argp_error(state, "where is the virtio-iommu? give --iommu");
    }
    if (!request->device_count) {
        argp_error(state, "no device is behind the virtio-iommu: give --device");
    }
    gather(state, request);
    viot->iommu.segment = request->segment;
    viot->table.iommus = &viot->iommu;
    viot->table.iommu_count = 1;
    viot->table.ranges = viot->ranges;
    viot->table.range_count = join(viot->ranges, request->device_count);
}

static int64_t build(const struct acpi_request *request, void *table, size_t size)
{
    return viommu_viot_build(&request->viot.table, table, size);
}

const struct acpi_table acpi_viot = {
    .name = "viot",
    .options = &(const struct argp){.options = options, .parser = parse_option},
    .finish = finish,
    .build = build,
};
