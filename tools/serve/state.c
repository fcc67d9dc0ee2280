/* SPDX-License-Identifier: BSD-2-Clause */
/* Saving and loading a service; state.h has the sections. */
#include "state.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "kind.h"
#include "log.h"
#include "save/stream.h"
#include "service.h"

enum section_kind {
    SECTION_SERVICE = 1,
    SECTION_PORT,
    SECTION_DEVICE,
    SECTION_UNIT,
};

enum {
    SECTION_VERSION = 1,
    ARGUMENT_MAX = 8192,
};

static void save_options(const struct service *service, struct save_writer *writer,
                         struct handover_fds *fds)
{
    const struct serve_options *options = service->options;

    save_begin(writer, SECTION_SERVICE, 0, SECTION_VERSION, 0);
    handover_put_fd(writer, fds, service->folder);
    save_put32(writer, options->argument_count);
    for (unsigned i = 0; i < options->argument_count; i++) {
        handover_put_data(writer, options->arguments[i], strlen(options->arguments[i]) + 1);
    }
    save_end(writer);
}

static void save_port(struct port *port, unsigned instance, struct save_writer *writer,
                      struct handover_fds *fds)
{
    save_begin(writer, SECTION_PORT, instance, SECTION_VERSION, 0);
    port_save(port, writer, fds);
    save_end(writer);
}

static void save_device(struct served_device *served, unsigned instance,
                        struct save_writer *writer, struct handover_fds *fds)
{
    save_begin(writer, SECTION_DEVICE, instance, SECTION_VERSION, 0);
    direct_memory_save(&served->direct, writer);
    served->kind->save(served, writer, fds);
    save_end(writer);
    save_port(&served->port, instance + 1, writer, fds);
}

static int save_unit(const struct service *service, struct save_writer *writer)
{
    int ret;

    save_begin(writer, SECTION_UNIT, 0, SECTION_VERSION, 0);
    ret = service_save_unit(service, writer);
    save_end(writer);
    return ret;
}

int service_save(struct service *service, struct service_state *state)
{
    struct save_writer writer;
    int ret = 0, finished;

    memset(state, 0, sizeof(*state));
    save_writer_init(&writer, SAVE_SERVER);
    save_options(service, &writer, &state->fds);
    if (service->unit) {
        save_port(&service->unit_port, 0, &writer, &state->fds);
    }
    for (unsigned i = 0; i < service->device_count; i++) {
        save_device(&service->devices[i], i, &writer, &state->fds);
    }
    if (service->unit) {
        ret = save_unit(service, &writer);
    }
    finished = save_finish(&writer, &state->data, &state->size);
    ret = ret < 0 ? ret : finished;
    if (ret < 0) {
        service_state_fini(state);
    }
    return ret;
}

void service_state_fini(struct service_state *state)
{
    save_free(state->data);
    handover_fds_fini(&state->fds);
    memset(state, 0, sizeof(*state));
}

/* The next section, which has to be this one. */
static int next(struct save_reader *reader, enum section_kind kind, unsigned instance,
                struct save_section *section)
{
    if (!save_next(reader, section) || section->kind != (uint32_t)kind ||
        section->instance != instance) {
        return -EBADMSG;
    }
    return save_accept(section, SECTION_VERSION);
}

/* Ends a section: the first of both errors. */
static int finish(struct save_section *section, int error)
{
    int ret = save_close(section);

    return error < 0 ? error : ret;
}

/* Options, as a command line has them. */
static int load_options(struct save_reader *reader, struct serve_options *options,
                        struct handover_fds *fds)
{
    const char *arguments[SERVE_ARGUMENTS_MAX];
    struct save_section section;
    int ret = next(reader, SECTION_SERVICE, 0, &section), folder;
    uint32_t count;

    if (ret < 0) {
        return ret;
    }
    folder = handover_look_fd(&section, fds);
    count = save_get32(&section);
    if (folder < 0 || count > SERVE_ARGUMENTS_MAX) {
        save_spoil(&section);
    }
    for (uint32_t i = 0; i < count && !section.error; i++) {
        size_t size;
        const char *text = handover_get_data(&section, ARGUMENT_MAX, &size);

        if (!text || size == 0 || text[size - 1]) {
            save_spoil(&section);
        } else {
            arguments[i] = text;
        }
    }
    ret = save_close(&section);
    if (ret == 0 && fchdir(folder) < 0) {
        ret = -errno;
    }
    if (ret == 0) {
        ret = serve_options_take(options, count, arguments);
    }
    return ret;
}

static int load_port(struct service *service, struct save_reader *reader, unsigned instance,
                     struct port *port, struct pci_function *function, const char *path,
                     struct handover_fds *fds)
{
    struct save_section section;
    int ret = next(reader, SECTION_PORT, instance, &section);

    if (ret == 0) {
        ret = finish(&section, port_load(port, &service->loop, function, path, &section, fds));
    }
    return ret;
}

static int load_device(struct service *service, struct save_reader *reader,
                       const struct serve_device_options *options, struct handover_fds *fds)
{
    struct save_section section;
    struct served_device *served;
    int ret = service_place(service, options, &served);

    if (ret == 0) {
        ret = next(reader, SECTION_DEVICE, service->device_count, &section);
    }
    if (ret == 0) {
        ret = direct_memory_load(&served->direct, &section);
    }
    if (ret == 0) {
        ret = finish(&section, served->kind->load(served, options, &section, fds));
    }
    if (ret == 0) {
        service_connect(service, served);
        service->device_count++;
        ret = load_port(service, reader, service->device_count, &served->port, served->function,
                        options->socket, fds);
    }
    return ret;
}

static int load_unit(struct service *service, struct save_reader *reader)
{
    struct save_section section;
    int ret = next(reader, SECTION_UNIT, 0, &section);

    return ret < 0 ? ret : finish(&section, service_load_unit(service, &section));
}

/* With the options there. */
static int load_all(struct service *service, struct save_reader *reader,
                    const struct serve_options *options, struct handover_fds *fds)
{
    struct save_section rest;
    int ret = service_prepare(service, options);

    if (ret == 0 && options->iommu != SERVE_NONE) {
        ret = service_make_unit(service);
        if (ret == 0) {
            ret = load_port(service, reader, 0, &service->unit_port, service->unit_function,
                            options->unit_socket, fds);
        }
    }
    for (unsigned i = 0; ret == 0 && i < options->device_count; i++) {
        ret = load_device(service, reader, &options->devices[i], fds);
    }
    if (ret == 0 && service->unit) {
        ret = load_unit(service, reader);
    }
    return ret == 0 && save_next(reader, &rest) ? -EBADMSG : ret;
}

int service_load(struct service *service, struct serve_options *options, const void *data,
                 size_t size, struct handover_fds *fds)
{
    struct save_reader reader;
    int ret = save_open(&reader, SAVE_SERVER, data, size);

    if (ret == 0) {
        ret = load_options(&reader, options, fds);
    }
    if (ret == 0) {
        ret = load_all(service, &reader, options, fds);
    }
    if (ret < 0) {
        server_log("cannot load what the other server has saved: %s",
                   ret == -EBADMSG ? "it makes no sense" : strerror(-ret));
    }
    return ret;
}
