/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What `viommu serve` serves: a unit, the devices behind it, a port for each, and the loop that
 * keeps them going.
 *
 * Threads: one; what devices have of their own they keep to themselves.
 */
#ifndef VIOMMU_TOOLS_SERVE_SERVICE_H
#define VIOMMU_TOOLS_SERVE_SERVICE_H

#include <stdbool.h>

#include "device_dma.h"
#include "edu.h"
#include "loop.h"
#include "mirror.h"
#include "options.h"
#include "port.h"
#include "vtd_function.h"

struct served_edu {
    struct edu edu;
    bool mirrored;
    struct serve_mirror mirror;
};

/* A device that is served. */
struct served_device {
    const struct serve_kind *kind;
    char name[24]; /* for messages to people */
    struct viommu_device *behind; /* its place behind the unit */
    struct device_dma dma;
    struct pci_function *function; /* of the kind's own */
    struct port port;
    union {
        struct served_edu edu;
    };
};

struct service {
    struct loop loop;
    struct vtd_function vtd;
    struct port vtd_port;
    struct loop_source unit_work;
    struct loop_source memory_work;
    struct served_device *devices;
    unsigned device_count;
};

/* Opens everything that was asked for. Returns 0, or a negative errno after saying what is wrong.
 * The options outlive the service. */
int service_open(struct service *service, const struct serve_options *options);
void service_close(struct service *service);

#endif
