/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What `viommu acpi` writes: one table of those it knows.
 *
 * A table has options of its own, an argp child each, and some that all tables have: devices,
 * segment, output. The command line is gathered first, then its table checks what it was given, and
 * builds.
 */
#ifndef VIOMMU_TOOLS_ACPI_H
#define VIOMMU_TOOLS_ACPI_H

#include <argp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <viommu/dmar.h>
#include <viommu/viot.h>

enum {
    ACPI_DEVICES_MAX = 256,
    ACPI_RESERVED_MAX = 64,
    ACPI_PAGE = 4096,
};

/* Options with a short name have it as key; the others get numbers from here on. */
enum {
    ACPI_OPTION_DMAR = 0x100,
    ACPI_OPTION_VIOT = 0x200,
};

struct acpi_dmar_request {
    const char *option; /* the last one that was given, or NULL */
    bool ats;
    struct viommu_dmar table;
    struct viommu_dmar_unit unit;
    struct viommu_dmar_ats ats_ports;
    struct viommu_dmar_scope scopes[ACPI_DEVICES_MAX];
    struct viommu_dmar_reserved reserved[ACPI_RESERVED_MAX];
};

struct acpi_viot_request {
    const char *option;
    struct viommu_viot table;
    struct viommu_viot_iommu iommu;
    struct viommu_viot_range ranges[ACPI_DEVICES_MAX];
};

struct acpi_request {
    const struct acpi_table *table; /* NULL until it is named */
    const char *output;
    uint16_t segment;
    const char *devices[ACPI_DEVICES_MAX]; /* as they were written */
    size_t device_count;
    struct acpi_dmar_request dmar;
    struct acpi_viot_request viot;
};

/* One kind of table. */
struct acpi_table {
    const char *name;
    const struct argp *options;
    /* Before the command line is read; NULL: all is 0. */
    void (*begin)(struct acpi_request *request);
    /* All of it has been read. Ends the program through argp when something is wrong. */
    void (*finish)(struct argp_state *state, struct acpi_request *request);
    /* Builds the table as the library's builder does. */
    int64_t (*build)(const struct acpi_request *request, void *table, size_t size);
};

extern const struct acpi_table acpi_dmar;
extern const struct acpi_table acpi_viot;

/* Ends the program through argp when the number is none or too large. */
uint64_t acpi_number(struct argp_state *state, const char *name, const char *text, uint64_t max);

#endif
