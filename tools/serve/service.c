/* SPDX-License-Identifier: BSD-2-Clause */
/* Opening and closing what is served; see service.h. */
#include "service.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <viommu/device.h>
#include <viommu/iommu.h>

#include "client_memory.h"
#include "kind.h"
#include "log.h"
#include "vfio_user/endpoint_state.h"

const char *service_socket_error(int error)
{
    return error == -EADDRINUSE     ? "it is served already"
           : error == -EEXIST       ? "it exists and is no socket"
           : error == -ENAMETOOLONG ? "the name of a socket has 107 bytes at most"
                                    : strerror(-error);
}

const char *service_far_error(int error)
{
    return error == -ECONNREFUSED   ? "nobody serves there"
           : error == -EAGAIN       ? "it does not take another client"
           : error == -ENAMETOOLONG ? "the name of a socket has 107 bytes at most"
                                    : strerror(-error);
}

static void process_unit(struct service *service)
{
    if (service->options->iommu == SERVE_VIRTIO) {
        virtio_iommu_process(&service->virtio);
    } else {
        unit_process(service->unit);
    }
}

/* Timers of the unit, and what its memory waits for. */
static void unit_ready(void *opaque, uint32_t events)
{
    (void)events;
    process_unit(opaque);
}

/* Another thread brought work: after this event the unit is due. */
static void work_came(void *opaque, uint32_t events)
{
    struct service *service = opaque;
    uint64_t count;

    (void)events;
    (void)!read(service->unit->work_fd, &count, sizeof(count));
}

/* After each event: the unit may have work, may have sent messages on its port, or met memory that
 * is gone. Returns whether it has more to do. */
static bool after_event(void *opaque)
{
    struct service *service = opaque;

    if (service->unit && unit_is_due(service->unit)) {
        process_unit(service);
    }
    for (unsigned i = 0; i < service->device_count; i++) {
        port_update(&service->devices[i].port);
    }
    if (service->unit) {
        port_update(&service->unit_port);
        unit_report(service->unit);
    } else if (client_memory_losses() != service->losses_logged) {
        service->losses_logged = client_memory_losses();
        server_log("part of a client's memory is gone; zeros stand in for it");
    }
    handover_step(&service->handover);
    return service->unit && unit_is_due(service->unit);
}

static int watch(struct service *service, struct loop_source *source, int fd,
                 void (*ready)(void *opaque, uint32_t events))
{
    *source = (struct loop_source){
        .fd = fd,
        .events = EPOLLIN,
        .ready = ready,
        .opaque = service,
    };
    return loop_add(&service->loop, source);
}

/* How people call the unit. */
const char *service_unit_name(const struct service *service)
{
    return service->options->iommu == SERVE_VIRTIO ? "virtio-iommu" : "VT-d unit";
}

static int init_unit(struct service *service)
{
    const struct serve_options *options = service->options;
    int ret;

    if (options->iommu == SERVE_VIRTIO) {
        ret = virtio_iommu_init(&service->virtio, "virtio", &options->virtio, &options->caches);
        service->unit_function = &service->virtio.pci.function;
        service->unit = ret < 0 ? NULL : &service->virtio.unit;
    } else {
        ret = vtd_function_init(&service->vtd, "vtd", &options->vtd, &options->caches);
        service->unit_function = &service->vtd.function;
        service->unit = ret < 0 ? NULL : &service->vtd.unit;
    }
    service->unit_function->memory_max = CLIENT_MAPPINGS_MAX;
    return ret;
}

static void fini_unit(struct service *service)
{
    service->unit = NULL;
    if (service->options->iommu == SERVE_VIRTIO) {
        virtio_iommu_fini(&service->virtio);
    } else {
        vtd_function_fini(&service->vtd);
    }
}

int service_make_unit(struct service *service)
{
    int ret = init_unit(service);

    if (ret < 0) {
        server_log("cannot make a %s of this configuration: %s", service_unit_name(service),
                   strerror(-ret));
        return ret;
    }
    ret = watch(service, &service->unit_timers, viommu_event_fd(service->unit->iommu), unit_ready);
    if (ret == 0) {
        ret = watch(service, &service->memory_work, viommu_memory_event_fd(service->unit->memory),
                    unit_ready);
    }
    if (ret == 0) {
        ret = watch(service, &service->unit_work, service->unit->work_fd, work_came);
    }
    if (ret < 0) {
        server_log("cannot watch the %s: %s", service_unit_name(service), strerror(-ret));
        fini_unit(service);
    }
    return ret;
}

int service_save_unit(const struct service *service, struct save_writer *writer)
{
    return service->options->iommu == SERVE_VIRTIO ? virtio_iommu_save(&service->virtio, writer)
                                                   : vtd_function_save(&service->vtd, writer);
}

int service_load_unit(struct service *service, struct save_section *section)
{
    return service->options->iommu == SERVE_VIRTIO ? virtio_iommu_load(&service->virtio, section)
                                                   : vtd_function_load(&service->vtd, section);
}

static int open_unit(struct service *service)
{
    const char *socket = service->options->unit_socket;
    int ret = service_make_unit(service);

    if (ret < 0) {
        return ret;
    }
    ret = viommu_start(service->unit->iommu);
    if (ret == 0) {
        ret = port_open(&service->unit_port, &service->loop, service->unit_function, socket);
    }
    if (ret < 0) {
        server_log("cannot serve the %s on %s: %s", service_unit_name(service), socket,
                   service_socket_error(ret));
        fini_unit(service);
    }
    return ret;
}

/* Its place behind the unit. */
static int place_behind(struct service *service, struct served_device *served, uint16_t requester)
{
    struct viommu_device_config config = {.requester = requester};
    int ret = viommu_device_add(service->unit->iommu, &config, &served->behind);

    if (ret < 0) {
        server_log("%s: %s", served->name,
                   ret == -EEXIST ? "two devices cannot have one requester id" : strerror(-ret));
        return ret;
    }
    served->memory = service->unit->memory;
    served->dma = unit_dma;
    served->dma.opaque = served->behind;
    return 0;
}

/* Its place where there is no unit. */
static int place_alone(struct service *service, struct served_device *served, uint16_t requester)
{
    int ret = 0;

    for (unsigned i = 0; i < service->device_count; i++) {
        if (service->devices[i].requester == requester) {
            ret = -EEXIST;
        }
    }
    if (ret == 0) {
        ret = direct_memory_init(&served->direct);
    }
    if (ret < 0) {
        server_log("%s: %s", served->name,
                   ret == -EEXIST ? "two devices cannot have one requester id" : strerror(-ret));
        return ret;
    }
    served->dma = direct_memory_dma;
    served->dma.opaque = &served->direct;
    return 0;
}

static void leave_place(struct served_device *served)
{
    if (served->behind) {
        viommu_device_remove(served->behind);
    } else {
        direct_memory_fini(&served->direct);
    }
}

int service_place(struct service *service, const struct serve_device_options *options,
                  struct served_device **out)
{
    struct served_device *served = &service->devices[service->device_count];

    *out = served;
    served->kind = options->kind;
    served->requester = options->requester;
    served->loop = &service->loop;
    snprintf(served->name, sizeof(served->name), "%s %02x:%02x.%x", options->kind->name,
             options->requester >> 8, options->requester >> 3 & 0x1f, options->requester & 7);
    return service->unit ? place_behind(service, served, options->requester)
                             : place_alone(service, served, options->requester);
}

void service_connect(const struct service *service, struct served_device *served)
{
    if (!served->behind) {
        direct_memory_attach(&served->direct, served->function);
        served->function->memory_max = CLIENT_MAPPINGS_MAX / service->options->device_count;
    }
}

static int open_device(struct service *service, const struct serve_device_options *options)
{
    struct served_device *served;
    int ret = service_place(service, options, &served);

    if (ret < 0) {
        return ret;
    }
    ret = served->kind->open(served, options);
    if (ret < 0) {
        leave_place(served);
        return ret;
    }
    service_connect(service, served);
    ret = port_open(&served->port, &service->loop, served->function, options->socket);
    if (ret < 0) {
        server_log("cannot serve %s on %s: %s", served->name, options->socket,
                   service_socket_error(ret));
        if (served->kind->close(served) == 0) {
            leave_place(served);
        }
        return ret;
    }
    service->device_count++;
    return 0;
}

int service_trace(struct service *service)
{
    const char *path = service->options->trace;

    if (path && !service->unit) {
        server_log("cannot trace into %s: there is no unit", path);
        return -EINVAL;
    }
    return path ? serve_trace_open(&service->trace, &service->loop, service->unit->iommu,
                                   service->options)
                : 0;
}

int service_prepare(struct service *service, const struct serve_options *options)
{
    int ret;

    memset(service, 0, sizeof(*service));
    service->options = options;
    service->losses_logged = client_memory_losses();
    service->folder = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    service->devices = calloc(SERVE_DEVICES_MAX, sizeof(*service->devices));
    ret = service->devices ? loop_init(&service->loop) : -ENOMEM;
    if (ret < 0) {
        server_log("cannot start: %s", strerror(-ret));
        free(service->devices);
        return ret;
    }
    service->loop.after = after_event;
    service->loop.after_opaque = service;
    return 0;
}

int service_open(struct service *service, const struct serve_options *options)
{
    int ret = service_prepare(service, options);

    if (ret < 0) {
        return ret;
    }
    ret = loop_stop_on_signals(&service->loop);
    if (ret == 0 && options->iommu != SERVE_NONE) {
        ret = open_unit(service);
    }
    for (unsigned i = 0; ret == 0 && i < options->device_count; i++) {
        ret = open_device(service, &options->devices[i]);
    }
    if (ret == 0) {
        ret = service_trace(service); /* empties its file, unless a device has that */
    }
    if (ret == 0) {
        ret = handover_open(&service->handover, service);
    }
    if (ret < 0) {
        service_close(service);
    }
    return ret;
}

void service_close(struct service *service)
{
    bool stuck = false;

    handover_close(&service->handover);
    for (unsigned i = 0; i < service->device_count; i++) {
        struct served_device *served = &service->devices[i];

        port_close(&served->port);
        if (served->kind->close(served) < 0) {
            stuck = true;
        } else {
            leave_place(served);
        }
    }
    if (service->unit) {
        port_close(&service->unit_port);
        serve_trace_close(&service->trace);
    }
    if (stuck) {
        return; /* all that may be in use stays until the process ends */
    }
    if (service->unit) {
        fini_unit(service);
    }
    loop_fini(&service->loop);
    close(service->folder);
    free(service->devices);
}

void service_pause(struct service *service)
{
    if (service->unit) {
        port_pause(&service->unit_port);
    }
    for (unsigned i = 0; i < service->device_count; i++) {
        struct served_device *served = &service->devices[i];

        port_pause(&served->port);
        if (served->kind->quiesce) {
            served->kind->quiesce(served);
        }
    }
}

int service_resume(struct service *service)
{
    int ret = service->unit ? port_resume(&service->unit_port) : 0;

    for (unsigned i = 0; i < service->device_count; i++) {
        struct served_device *served = &service->devices[i];
        int resumed = port_resume(&served->port);

        if (served->kind->resume) {
            served->kind->resume(served);
        }
        ret = ret < 0 ? ret : resumed;
    }
    return ret;
}

static const char *port_busy(const struct port *port)
{
    return port->connected ? vfio_user_endpoint_unsaveable(&port->endpoint) : NULL;
}

const char *service_busy(const struct service *service)
{
    const char *busy = NULL;

    if (service->unit) {
        busy = service->unit->leaving ? "memory is still being taken away"
                                      : port_busy(&service->unit_port);
    }
    for (unsigned i = 0; !busy && i < service->device_count; i++) {
        const struct served_device *served = &service->devices[i];

        if (served->kind->quiet && !served->kind->quiet(served)) {
            busy = "a device's work does not end";
        } else if (served->direct.leaving) {
            busy = "memory is still being taken away";
        } else {
            busy = port_busy(&served->port);
        }
    }
    return busy;
}
