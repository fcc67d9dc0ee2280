/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What `viommu serve` serves: a unit, the devices behind it (or devices without one), a port for
 * each, and the loop that keeps them going.
 *
 * Threads: one; what devices have of their own they keep to themselves.
 */
#ifndef VIOMMU_TOOLS_SERVE_SERVICE_H
#define VIOMMU_TOOLS_SERVE_SERVICE_H

#include <stdbool.h>

#include "device_dma.h"
#include "direct_memory.h"
#include "edu.h"
#include "handover.h"
#include "loop.h"
#include "mirror.h"
#include "nvme/nvme.h"
#include "options.h"
#include "port.h"
#include "relay/relay.h"
#include "trace.h"
#include "unit.h"
#include "virtio/iommu.h"
#include "virtio/net.h"
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
    uint16_t requester;
    struct loop *loop;
    struct viommu_device *behind; /* its place behind the unit, or NULL: it is not behind one */
    struct viommu_memory *memory; /* then the unit's */
    struct direct_memory direct;  /* then it has memory of its own */
    struct device_dma dma;
    struct pci_function *function; /* of the kind's own */
    struct port port;
    union {
        struct served_edu edu;
        struct nvme *nvme;
        struct virtio_net *net;
        struct relay *relay;
    };
};

struct service {
    const struct serve_options *options;
    struct loop loop;
    int folder; /* what names in the options are relative to */
    struct unit *unit; /* of the next, or NULL: what follows, up to the devices, is not there */
    union {
        struct vtd_function vtd;
        struct virtio_iommu virtio;
    };
    struct pci_function *unit_function;
    struct port unit_port;
    struct loop_source unit_timers;
    struct loop_source memory_work;
    struct loop_source unit_work; /* that another thread brought */
    struct serve_trace trace;
    struct served_device *devices;
    unsigned device_count;
    uint64_t losses_logged; /* without a unit: of client memory */
    struct handover handover;
    bool handed_over; /* another process serves all of it now */
};

/* Opens everything that was asked for. Returns 0, or a negative errno after saying what is wrong.
 * The options outlive the service. */
int service_open(struct service *service, const struct serve_options *options);
void service_close(struct service *service);

/* Take nothing in any more, and begin nothing; and go on. */
void service_pause(struct service *service);
int service_resume(struct service *service);

/* Traces the unit, if that was asked for. Returns 0, or a negative errno after saying what is
 * wrong. */
int service_trace(struct service *service);

/* What of a paused service is still under way, for people; NULL: nothing. */
const char *service_busy(const struct service *service);

/* How people call the unit. */
const char *service_unit_name(const struct service *service);

/* What an error of listening on a socket means, for people. */
const char *service_socket_error(int error);

/* The same, of connecting to one that another process serves. */
const char *service_far_error(int error);

/* Parts of opening, for who makes a service of saved state (state.h). */
int service_prepare(struct service *service, const struct serve_options *options);
int service_make_unit(struct service *service);
int service_load_unit(struct service *service, struct save_section *section);
int service_save_unit(const struct service *service, struct save_writer *writer);
/* The next device in its place, not counted yet; its kind makes it. */
int service_place(struct service *service, const struct serve_device_options *options,
                  struct served_device **out);
/* The kind has made it: give it the memory that it is to use. */
void service_connect(const struct service *service, struct served_device *served);

#endif
