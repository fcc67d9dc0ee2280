/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The command line of `viommu serve`, taken apart and checked. Names point into it.
 */
#ifndef VIOMMU_TOOLS_SERVE_OPTIONS_H
#define VIOMMU_TOOLS_SERVE_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include <viommu/vtd.h>

#include "device_options.h"

enum {
    SERVE_DEVICES_MAX = 32,
};

struct serve_options {
    bool no_unit; /* devices reach memory directly; the next ones are of the unit */
    const char *vtd_socket;
    struct viommu_vtd_config vtd;
    uint32_t iotlb_entries;
    const char *unit_option; /* one of those that were given, or NULL */
    struct serve_device_options devices[SERVE_DEVICES_MAX];
    unsigned device_count;
};

/* Ends the program, with a message, when the command line is wrong or asks for help. */
void serve_options_parse(struct serve_options *options, int argc, char **argv);
void serve_options_fini(struct serve_options *options);

#endif
