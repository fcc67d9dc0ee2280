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
    SERVE_ARGUMENTS_MAX = 96,
};

struct serve_options {
    bool no_unit; /* devices reach memory directly; the next ones are of the unit */
    const char *vtd_socket;
    struct viommu_vtd_config vtd;
    uint32_t iotlb_entries;
    const char *trace; /* the file to write what the unit does into, or NULL */
    const char *unit_option; /* one of those that were given, or NULL */
    struct serve_device_options devices[SERVE_DEVICES_MAX];
    unsigned device_count;
    const char *handover; /* where a successor may ask to take over, or NULL */
    const char *takeover; /* whom to take over from, or NULL: then the rest comes from there */
    /* All that says what is served, as --NAME=VALUE: what a successor needs. */
    char *arguments[SERVE_ARGUMENTS_MAX];
    unsigned argument_count;
    char *words[SERVE_ARGUMENTS_MAX + 2]; /* _take: the command line, kept */
};

/* Ends the program, with a message, when the command line is wrong or asks for help. */
void serve_options_parse(struct serve_options *options, int argc, char **argv);

/*
 * The same for the arguments that another server had, SERVE_ARGUMENTS_MAX at most, which need not
 * outlive the call; our own handover stays. Returns 0 or -ENOMEM.
 */
int serve_options_take(struct serve_options *options, unsigned count, const char *const *arguments);
void serve_options_fini(struct serve_options *options);

#endif
