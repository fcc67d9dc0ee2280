/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The command line of `viommu serve`, taken apart and checked. Names point into it.
 */
#ifndef VIOMMU_TOOLS_SERVE_OPTIONS_H
#define VIOMMU_TOOLS_SERVE_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include <viommu/virtio.h>
#include <viommu/vtd.h>

#include "device_options.h"

enum {
    SERVE_DEVICES_MAX = 32,
    SERVE_ARGUMENTS_MAX = 96,
};

/* What stands between devices and memory. */
enum serve_iommu {
    SERVE_VTD,
    SERVE_VIRTIO,
    SERVE_NONE, /* devices reach memory directly */
};

struct serve_options {
    enum serve_iommu iommu;
    const char *unit_socket; /* this and the next ones are of the unit */
    const char *socket_option; /* that named it */
    struct viommu_vtd_config vtd;
    struct viommu_virtio_config virtio;
    struct viommu_config caches; /* what it says of these and of time, and nothing else */
    const char *trace; /* the file to write what the unit does into, or NULL */
    bool iommu_given;
    bool taken;   /* they are another server's */
    bool refused; /* taken, and wrong */
    bool isolate; /* no other process is to have memory of the guest */
    unsigned width; /* as given, for either unit; 0: not given */
    unsigned host_width;
    /* An option of either unit, of VT-d's, of the virtio-iommu's, that was given; or NULL. */
    const char *unit_option;
    const char *vtd_option;
    const char *virtio_option;
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
 * outlive the call; our own handover stays. Returns 0; -EBADMSG, after saying so, when one is not
 * known here, or they are wrong otherwise; or -ENOMEM.
 */
int serve_options_take(struct serve_options *options, unsigned count, const char *const *arguments);
void serve_options_fini(struct serve_options *options);

#endif
