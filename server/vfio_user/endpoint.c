/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The commands of vfio-user; endpoint.h describes the life of an endpoint.
 */
#include "endpoint.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../client_file.h"
#include "../log.h"
#include "common/foreign.h"
#include "remote.h"

enum {
    /* Commands handled in one _ready, so that one client cannot keep the loop for itself. */
    COMMANDS_PER_READY = 64,
    /* Complaints about one client that are printed. */
    COMPLAINTS_MAX = 10,
    BUFFER_KEEP = 65536,
    /* Of a command: its answer comes by vfio_user_endpoint_answer(), or has. */
    ANSWERED_ELSEWHERE = 1,
};

/* What a command's handler answers. */
struct reply {
    union {
        struct vfio_user_version version;
        struct vfio_user_dma_unmap dma_unmap;
        struct vfio_user_device_info device;
        struct vfio_region_info region;
        struct vfio_irq_info irq;
        struct vfio_user_region_access access;
    } head;
    size_t head_size;
    const void *tail;
    size_t tail_size;
    int fd; /* goes along, and is closed; -1: none does */
};

static uint64_t region_size(const struct vfio_user_endpoint *endpoint, uint32_t region)
{
    if (region < PCI_CONFIG_N_BARS) {
        return endpoint->function->config.bar_size[region];
    }
    return region == VFIO_PCI_CONFIG_REGION_INDEX ? PCI_CONFIG_SIZE : 0;
}

static int reserve_buffer(struct vfio_user_endpoint *endpoint, size_t size)
{
    uint8_t *buffer;

    if (size <= endpoint->buffer_room) {
        return 0;
    }
    buffer = malloc(size);
    if (!buffer) {
        return -ENOMEM;
    }
    free(endpoint->buffer);
    endpoint->buffer = buffer;
    endpoint->buffer_room = size;
    return 0;
}

/* The client's end of a twin socket, for a client that takes one. */
static int offer_twin(struct vfio_user_endpoint *endpoint, int *theirs)
{
    int ret = endpoint->client.twin_socket && !endpoint->function->remote
                  ? vfio_user_client_dma_open(&endpoint->client_dma,
                                              endpoint->client.max_data_xfer_size, theirs)
                  : -ENOTSUP;

    return ret == -ENOTSUP ? 0 : ret;
}

static int handle_version(struct vfio_user_endpoint *endpoint, struct vfio_user_message *message,
                          struct reply *reply)
{
    const unsigned memory_max = endpoint->function->memory_max;
    struct vfio_user_version version;
    int ret;

    memcpy(&version, message->payload, sizeof(version));
    if (endpoint->negotiated || version.major != VFIO_USER_MAJOR) {
        return -EINVAL;
    }
    ret = vfio_user_capabilities_parse(message->payload + sizeof(version),
                                       message->payload_size - sizeof(version), &endpoint->client);
    if (ret == 0) {
        ret = reserve_buffer(endpoint, VFIO_USER_CAPABILITIES_ROOM);
    }
    if (ret == 0) {
        ret = offer_twin(endpoint, &reply->fd);
    }
    if (ret < 0) {
        return ret;
    }
    endpoint->negotiated = true;
    reply->head.version.major = VFIO_USER_MAJOR;
    reply->head.version.minor = VFIO_USER_MINOR;
    reply->head_size = sizeof(reply->head.version);
    reply->tail = endpoint->buffer;
    reply->tail_size = vfio_user_capabilities_text(
        (char *)endpoint->buffer, memory_max ? memory_max : VFIO_USER_MAX_DMA_REGIONS,
        endpoint->client_dma.open);
    return 0;
}

int vfio_user_endpoint_map(struct vfio_user_endpoint *endpoint, const struct pci_dma_region *region,
                           int fd)
{
    const struct pci_function *function = endpoint->function;
    struct vfio_user_dma_range *range;
    void *cookie;
    int ret;

    if (function->memory_max > 0 && endpoint->dma.n >= function->memory_max) {
        return -ENOSPC;
    }
    ret = vfio_user_dma_table_add(&endpoint->dma, region->first, region->last, &range);
    if (ret < 0) {
        return ret;
    }
    range->file_offset = region->file_offset;
    range->readable = region->readable;
    range->writable = region->writable;
    if (!function->memory) {
        return 0;
    }
    ret = function->memory->map(function->memory_opaque, region, fd, &range->cookie);
    if (ret < 0) {
        vfio_user_dma_table_remove(&endpoint->dma, region->first, region->last, &cookie);
        return ret;
    }
    range->file = fd >= 0 ? client_file_get(fd) : NULL;
    range->file_lost = fd >= 0 && !range->file;
    return 0;
}

static int handle_dma_map(struct vfio_user_endpoint *endpoint, struct vfio_user_message *message,
                          struct reply *reply)
{
    struct vfio_user_dma_map map;
    struct pci_dma_region region;
    int fd = message->n_fds ? message->fds[0] : -1;

    (void)reply;
    memcpy(&map, message->payload, sizeof(map));
    if (map.size == 0 || map.address + (map.size - 1) < map.address || message->n_fds > 1 ||
        (map.flags & ~(uint32_t)(VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE)) != 0) {
        return -EINVAL;
    }
    region = (struct pci_dma_region){
        .first = map.address,
        .last = map.address + (map.size - 1),
        .file_offset = map.offset,
        .readable = map.flags & VFIO_DMA_MAP_FLAG_READ,
        .writable = map.flags & VFIO_DMA_MAP_FLAG_WRITE,
    };
    return vfio_user_endpoint_map(endpoint, &region, fd);
}

static void unmap_all(struct vfio_user_endpoint *endpoint)
{
    const struct pci_function *function = endpoint->function;

    for (size_t i = 0; i < endpoint->dma.n && function->memory; i++) {
        const struct vfio_user_dma_range *range = endpoint->dma.ranges[i];

        function->memory->unmap(function->memory_opaque, range->first, range->last, range->cookie);
    }
    vfio_user_dma_table_fini(&endpoint->dma);
}

static int handle_dma_unmap(struct vfio_user_endpoint *endpoint, struct vfio_user_message *message,
                            struct reply *reply)
{
    const struct pci_function *function = endpoint->function;
    struct vfio_user_dma_unmap unmap;
    uint64_t last;
    void *cookie;
    int ret;

    memcpy(&unmap, message->payload, sizeof(unmap));
    if (unmap.flags & ~(uint32_t)VFIO_DMA_UNMAP_FLAG_ALL) {
        return -ENOTSUP;
    }
    if (unmap.flags & VFIO_DMA_UNMAP_FLAG_ALL) {
        if (unmap.address != 0 || unmap.size != 0) {
            return -EINVAL;
        }
        unmap_all(endpoint);
    } else {
        if (unmap.size == 0) {
            return -EINVAL;
        }
        last = unmap.address + (unmap.size - 1);
        ret = vfio_user_dma_table_remove(&endpoint->dma, unmap.address, last, &cookie);
        if (ret < 0) {
            return ret;
        }
        if (function->memory) {
            function->memory->unmap(function->memory_opaque, unmap.address, last, cookie);
        }
    }
    reply->head.dma_unmap = unmap;
    reply->head_size = sizeof(unmap);
    return 0;
}

static int handle_get_info(struct vfio_user_endpoint *endpoint, struct vfio_user_message *message,
                           struct reply *reply)
{
    struct vfio_user_device_info *info = &reply->head.device;

    (void)endpoint;
    memcpy(info, message->payload, sizeof(*info));
    if (info->argsz < sizeof(*info)) {
        return -EINVAL;
    }
    *info = (struct vfio_user_device_info){
        .argsz = sizeof(*info),
        .flags = VFIO_DEVICE_FLAGS_RESET | VFIO_DEVICE_FLAGS_PCI,
        .num_regions = VFIO_PCI_NUM_REGIONS,
        .num_irqs = VFIO_PCI_NUM_IRQS,
    };
    reply->head_size = sizeof(*info);
    return 0;
}

static int handle_get_region_info(struct vfio_user_endpoint *endpoint,
                                  struct vfio_user_message *message, struct reply *reply)
{
    struct vfio_region_info *info = &reply->head.region;

    memcpy(info, message->payload, sizeof(*info));
    if (info->argsz < sizeof(*info) || info->index >= VFIO_PCI_NUM_REGIONS) {
        return -EINVAL;
    }
    *info = (struct vfio_region_info){
        .argsz = sizeof(*info),
        .index = info->index,
        .size = region_size(endpoint, info->index),
    };
    if (info->size > 0) {
        info->flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
    }
    reply->head_size = sizeof(*info);
    return 0;
}

static int handle_get_irq_info(struct vfio_user_endpoint *endpoint,
                               struct vfio_user_message *message, struct reply *reply)
{
    struct vfio_irq_info *info = &reply->head.irq;

    memcpy(info, message->payload, sizeof(*info));
    if (info->argsz < sizeof(*info)) {
        return -EINVAL;
    }
    info->argsz = sizeof(*info);
    reply->head_size = sizeof(*info);
    return vfio_user_interrupts_info(&endpoint->interrupts, info);
}

static int handle_set_irqs(struct vfio_user_endpoint *endpoint, struct vfio_user_message *message,
                           struct reply *reply)
{
    struct vfio_irq_set set;

    (void)reply;
    memcpy(&set, message->payload, sizeof(set));
    if (set.argsz < sizeof(set)) {
        return -EINVAL;
    }
    return vfio_user_interrupts_set(&endpoint->interrupts, &set, message->payload + sizeof(set),
                                    message->payload_size - sizeof(set), message->fds,
                                    message->n_fds);
}

/* Is the access inside its region, and no larger than agreed? */
static int check_access(const struct vfio_user_endpoint *endpoint,
                        const struct vfio_user_region_access *access)
{
    uint64_t size;

    if (access->region >= VFIO_PCI_NUM_REGIONS || access->count > VFIO_USER_MAX_DATA) {
        return -EINVAL;
    }
    size = region_size(endpoint, access->region);
    return access->offset > size || access->count > size - access->offset ? -EINVAL : 0;
}

static int handle_region_read(struct vfio_user_endpoint *endpoint,
                              struct vfio_user_message *message, struct reply *reply)
{
    const struct pci_function *function = endpoint->function;
    struct vfio_user_region_access access;
    int ret;

    memcpy(&access, message->payload, sizeof(access));
    ret = check_access(endpoint, &access);
    if (ret == 0) {
        ret = reserve_buffer(endpoint, access.count);
    }
    if (ret < 0) {
        return ret;
    }
    if (access.count > 0) {
        if (access.region == VFIO_PCI_CONFIG_REGION_INDEX) {
            if (function->ops->config_reading) {
                function->ops->config_reading(function->opaque, access.offset, access.count);
            }
            pci_config_read(&function->config, access.offset, endpoint->buffer, access.count);
        } else {
            function->ops->bar_read(function->opaque, access.region, access.offset,
                                    endpoint->buffer, access.count);
        }
    }
    reply->head.access = access;
    reply->head_size = sizeof(access);
    reply->tail = endpoint->buffer;
    reply->tail_size = access.count;
    return 0;
}

static int handle_region_write(struct vfio_user_endpoint *endpoint,
                               struct vfio_user_message *message, struct reply *reply)
{
    struct pci_function *function = endpoint->function;
    struct vfio_user_region_access access;
    const uint8_t *data = message->payload + sizeof(access);
    int ret;

    memcpy(&access, message->payload, sizeof(access));
    ret = check_access(endpoint, &access);
    if (ret < 0) {
        return ret;
    }
    if (message->payload_size - sizeof(access) != access.count) {
        return -EINVAL;
    }
    if (access.count > 0) {
        if (access.region == VFIO_PCI_CONFIG_REGION_INDEX) {
            pci_config_write(&function->config, access.offset, data, access.count);
            if (function->ops->config_written) {
                function->ops->config_written(function->opaque, access.offset, access.count);
            }
        } else {
            function->ops->bar_write(function->opaque, access.region, access.offset, data,
                                     access.count);
        }
    }
    reply->head.access = access;
    reply->head_size = sizeof(access);
    return 0;
}

static void reset_function(struct vfio_user_endpoint *endpoint)
{
    if (endpoint->function->remote) {
        return; /* its own to do, when it is detached */
    }
    vfio_user_interrupts_reset(&endpoint->interrupts);
    pci_config_reset(&endpoint->function->config);
    endpoint->function->ops->reset(endpoint->function->opaque);
}

static int handle_reset(struct vfio_user_endpoint *endpoint, struct vfio_user_message *message,
                        struct reply *reply)
{
    (void)message;
    (void)reply;
    reset_function(endpoint);
    return 0;
}

struct command {
    size_t payload_min;
    /* NULL: none that functions of this process know. */
    int (*handle)(struct vfio_user_endpoint *endpoint, struct vfio_user_message *message,
                  struct reply *reply);
    bool remote; /* a function that is elsewhere carries it out itself */
};

static const struct command commands[] = {
    [VFIO_USER_VERSION] = {sizeof(struct vfio_user_version), handle_version, false},
    [VFIO_USER_DMA_MAP] = {sizeof(struct vfio_user_dma_map), handle_dma_map, false},
    [VFIO_USER_DMA_UNMAP] = {sizeof(struct vfio_user_dma_unmap), handle_dma_unmap, false},
    [VFIO_USER_DEVICE_GET_INFO] = {sizeof(struct vfio_user_device_info), handle_get_info, true},
    [VFIO_USER_DEVICE_GET_REGION_INFO] = {sizeof(struct vfio_region_info), handle_get_region_info,
                                          true},
    [VFIO_USER_DEVICE_GET_REGION_IO_FDS] = {sizeof(struct vfio_user_region_io_fds), NULL, true},
    [VFIO_USER_DEVICE_GET_IRQ_INFO] = {sizeof(struct vfio_irq_info), handle_get_irq_info, true},
    [VFIO_USER_DEVICE_SET_IRQS] = {sizeof(struct vfio_irq_set), handle_set_irqs, true},
    [VFIO_USER_REGION_READ] = {sizeof(struct vfio_user_region_access), handle_region_read, true},
    [VFIO_USER_REGION_WRITE] = {sizeof(struct vfio_user_region_access), handle_region_write, true},
    [VFIO_USER_DEVICE_RESET] = {0, handle_reset, true},
};

/* Carry out a command. Returns 0 with the reply filled in, ANSWERED_ELSEWHERE, or a negative
   errno. */
static int handle_command(struct vfio_user_endpoint *endpoint, struct vfio_user_message *message,
                          struct reply *reply)
{
    const struct command *command;

    if (message->header.command >= sizeof(commands) / sizeof(commands[0]) ||
        !(commands[message->header.command].handle || endpoint->function->remote)) {
        return -ENOTSUP;
    }
    command = &commands[message->header.command];
    if (message->payload_size < command->payload_min || message->fds_lost ||
        (!endpoint->negotiated && message->header.command != VFIO_USER_VERSION)) {
        return -EINVAL;
    }
    if (endpoint->function->remote && command->remote) {
        endpoint->function->remote->command(endpoint->function->opaque, message);
        return ANSWERED_ELSEWHERE;
    }
    return command->handle ? command->handle(endpoint, message, reply) : -ENOTSUP;
}

static int send_reply(struct vfio_user_endpoint *endpoint, const struct vfio_user_header *header,
                      int error, const struct reply *reply)
{
    struct vfio_user_header answer = {
        .id = header->id,
        .command = header->command,
        .flags = VFIO_USER_TYPE_REPLY,
    };

    if (error < 0) {
        answer.flags |= VFIO_USER_ERROR;
        answer.error = (uint32_t)-error;
        return vfio_user_connection_send(&endpoint->connection, answer, NULL, 0, NULL, 0);
    }
    return vfio_user_connection_send_fds(&endpoint->connection, answer, &reply->head,
                                         reply->head_size, reply->tail, reply->tail_size,
                                         &reply->fd, reply->fd >= 0);
}

static void complain(struct vfio_user_endpoint *endpoint, const struct vfio_user_header *header,
                     int error)
{
    if (endpoint->refused++ < COMPLAINTS_MAX) {
        server_log("%s: refused command %u of %u bytes: %s", endpoint->function->name,
                   header->command, header->size, strerror(-error));
    }
}

/* The client is to go, though nothing of its may come to be read: whoever watches the socket is
 * woken, and _ready says why. */
static void give_up(struct vfio_user_endpoint *endpoint, int error)
{
    if (endpoint->error == 0) {
        endpoint->error = error;
        shutdown(endpoint->connection.fd, SHUT_RDWR);
    }
}

void vfio_user_endpoint_answer(struct vfio_user_endpoint *endpoint,
                               const struct vfio_user_header *command, int error,
                               const struct vfio_user_remote_answer *what)
{
    struct vfio_user_header header = {
        .id = command->id,
        .command = command->command,
        .flags = VFIO_USER_TYPE_REPLY,
    };
    int ret;

    if (error < 0) {
        complain(endpoint, command, error);
    }
    if (command->flags & VFIO_USER_NO_REPLY) {
        return;
    }
    if (error < 0) {
        ret = send_reply(endpoint, command, error, NULL);
    } else {
        ret = vfio_user_connection_send_fds(&endpoint->connection, header, what->head,
                                            what->head_size, what->tail, what->tail_size, what->fds,
                                            what->n_fds);
    }
    if (ret == -EAGAIN) {
        /* Descriptors are not kept for a client that does not read. */
        ret = send_reply(endpoint, command, ret, NULL);
    }
    if (ret < 0) {
        give_up(endpoint, ret);
    }
}

static bool unfinished(const struct vfio_user_endpoint *endpoint, uint16_t command)
{
    const struct pci_function *function = endpoint->function;

    switch (command) {
    case VFIO_USER_DMA_UNMAP:
        return function->memory && function->memory->unmapping(function->memory_opaque);
    case VFIO_USER_DEVICE_RESET:
        return function->ops->resetting && function->ops->resetting(function->opaque);
    default:
        return false;
    }
}

static int answer(struct vfio_user_endpoint *endpoint, const struct vfio_user_header *header,
                  int error, const struct reply *reply)
{
    if (error == 0 && unfinished(endpoint, header->command)) {
        endpoint->holding = true;
        endpoint->held = *header;
        endpoint->held_reply = reply->head.dma_unmap;
        return 0;
    }
    return header->flags & VFIO_USER_NO_REPLY ? 0 : send_reply(endpoint, header, error, reply);
}

/* End the command whose end is held back, if what it waits for has come about. */
static int release(struct vfio_user_endpoint *endpoint)
{
    struct reply reply = {
        .head.dma_unmap = endpoint->held_reply,
        .head_size =
            endpoint->held.command == VFIO_USER_DMA_UNMAP ? sizeof(endpoint->held_reply) : 0,
        .fd = -1,
    };

    if (!endpoint->holding || unfinished(endpoint, endpoint->held.command)) {
        return 0;
    }
    endpoint->holding = false;
    return endpoint->held.flags & VFIO_USER_NO_REPLY
               ? 0
               : send_reply(endpoint, &endpoint->held, 0, &reply);
}

static int handle_message(struct vfio_user_endpoint *endpoint, struct vfio_user_message *message)
{
    uint32_t type = message->header.flags & VFIO_USER_TYPE_MASK;
    struct reply reply = {.fd = -1};
    int error, ret;

    if (type == VFIO_USER_TYPE_REPLY) {
        return 0;
    }
    endpoint->commands++;
    error = type == VFIO_USER_TYPE_COMMAND ? handle_command(endpoint, message, &reply) : -EINVAL;
    if (error < 0) {
        complain(endpoint, &message->header, error);
    }
    ret = error == ANSWERED_ELSEWHERE ? 0 : answer(endpoint, &message->header, error, &reply);
    if (reply.fd >= 0) {
        close(reply.fd);
    }
    if (endpoint->buffer_room > BUFFER_KEEP) {
        free(endpoint->buffer);
        endpoint->buffer = NULL;
        endpoint->buffer_room = 0;
    }
    return ret;
}

/* May the next command be taken in? */
static bool open_for_commands(const struct vfio_user_endpoint *endpoint)
{
    const struct pci_function *function = endpoint->function;

    return !endpoint->holding && endpoint->error == 0 &&
           !vfio_user_connection_congested(&endpoint->connection) &&
           !(function->remote && function->remote->full(function->opaque));
}

int vfio_user_endpoint_ready(struct vfio_user_endpoint *endpoint)
{
    int ret = endpoint->error;

    if (ret == 0) {
        ret = release(endpoint);
    }
    if (ret == 0) {
        ret = vfio_user_client_dma_flush(&endpoint->client_dma);
    }
    if (ret == 0) {
        ret = vfio_user_connection_flush(&endpoint->connection);
    }
    for (int i = 0; ret == 0 && i < COMMANDS_PER_READY && open_for_commands(endpoint); i++) {
        struct vfio_user_message message;

        endpoint->connection.no_fds = foreign_aside() >= FOREIGN_ASIDE_MAX;
        ret = vfio_user_connection_receive(&endpoint->connection, &message);
        if (ret == -EBADMSG) {
            complain(endpoint, &message.header, ret);
            send_reply(endpoint, &message.header, ret, NULL);
        }
        if (ret <= 0) {
            break;
        }
        ret = handle_message(endpoint, &message);
    }
    return endpoint->error < 0 ? endpoint->error : ret;
}

void vfio_user_endpoint_update(struct vfio_user_endpoint *endpoint)
{
    int ret = endpoint->error == 0 ? release(endpoint) : 0;

    if (ret == 0) {
        ret = vfio_user_client_dma_flush(&endpoint->client_dma);
    }
    if (ret < 0) {
        give_up(endpoint, ret);
    }
}

uint32_t vfio_user_endpoint_events(const struct vfio_user_endpoint *endpoint)
{
    uint32_t events = 0;

    if (open_for_commands(endpoint)) {
        events |= POLLIN;
    }
    if (vfio_user_connection_pending(&endpoint->connection)) {
        events |= POLLOUT;
    }
    return events;
}

static void bus_message_interrupt(void *opaque, unsigned vector)
{
    struct vfio_user_endpoint *endpoint = opaque;

    bool msix = pci_config_msix_enabled(&endpoint->function->config);

    vfio_user_interrupts_trigger(&endpoint->interrupts,
                                 msix ? VFIO_PCI_MSIX_IRQ_INDEX : VFIO_PCI_MSI_IRQ_INDEX, vector);
}

static void bus_line_interrupt(void *opaque, bool level)
{
    struct vfio_user_endpoint *endpoint = opaque;

    vfio_user_interrupts_set_level(&endpoint->interrupts, level);
}

/* An interrupt message goes out as a DMA write that wants no reply: the client may at this moment
 * wait for the reply to a command of its own, and would answer only afterwards. */
static int bus_write_message(void *opaque, uint64_t address, uint32_t data)
{
    struct vfio_user_endpoint *endpoint = opaque;
    struct vfio_user_header header = {
        .id = endpoint->next_id++,
        .command = VFIO_USER_DMA_WRITE,
        .flags = VFIO_USER_TYPE_COMMAND | VFIO_USER_NO_REPLY,
    };
    struct vfio_user_dma_access access = {.address = address, .count = sizeof(data)};
    int ret;

    if (!endpoint->negotiated) {
        return -ENOTCONN;
    }
    if (endpoint->client_dma.open) {
        ret = vfio_user_client_dma_post(&endpoint->client_dma, address, &data, sizeof(data));
    } else if (vfio_user_connection_congested(&endpoint->connection)) {
        ret = -ENOBUFS;
    } else {
        ret = vfio_user_connection_send(&endpoint->connection, header, &access, sizeof(access),
                                        &data, sizeof(data));
    }
    if (ret == -ENOBUFS) {
        endpoint->messages_lost++;
    } else if (ret < 0) {
        give_up(endpoint, ret);
    }
    return ret;
}

/* What asking for memory ended with, for the function. */
static int asked(struct vfio_user_endpoint *endpoint, int ret)
{
    if (endpoint->client_dma.error < 0) {
        give_up(endpoint, endpoint->client_dma.error);
    } else if (ret == -ENOTSUP && !endpoint->told_no_twin) {
        endpoint->told_no_twin = true;
        server_log("%s: DMA to memory that its client gave without a file is refused: the client "
                   "offers no twin socket",
                   endpoint->function->name);
    }
    return ret;
}

static int bus_read_memory(void *opaque, uint64_t address, void *data, size_t size,
                           uint64_t deadline_ms)
{
    struct vfio_user_endpoint *endpoint = opaque;

    return asked(endpoint, vfio_user_client_dma_read(&endpoint->client_dma, address, data, size,
                                                     deadline_ms));
}

static int bus_write_memory(void *opaque, uint64_t address, const void *data, size_t size,
                            uint64_t deadline_ms)
{
    struct vfio_user_endpoint *endpoint = opaque;

    return asked(endpoint, vfio_user_client_dma_write(&endpoint->client_dma, address, data, size,
                                                      deadline_ms));
}

static const struct pci_bus_ops bus_ops = {
    .message_interrupt = bus_message_interrupt,
    .line_interrupt = bus_line_interrupt,
    .write_message = bus_write_message,
    .read_memory = bus_read_memory,
    .write_memory = bus_write_memory,
};

void vfio_user_endpoint_attach(struct vfio_user_endpoint *endpoint, struct pci_function *function)
{
    const struct pci_config *config = &function->config;

    vfio_user_interrupts_init(&endpoint->interrupts);
    vfio_user_interrupts_set_count(&endpoint->interrupts, VFIO_PCI_INTX_IRQ_INDEX,
                                   config->initial[PCI_INTERRUPT_PIN] != 0);
    vfio_user_interrupts_set_count(&endpoint->interrupts, VFIO_PCI_MSI_IRQ_INDEX,
                                   pci_config_msi_messages(config));
    vfio_user_interrupts_set_count(&endpoint->interrupts, VFIO_PCI_MSIX_IRQ_INDEX,
                                   pci_config_msix_vectors(config));
    endpoint->function = function;
    function->bus = &bus_ops;
    function->bus_opaque = endpoint;
    if (function->remote) {
        function->remote->attach(function->opaque, endpoint);
    }
}

int vfio_user_endpoint_init(struct vfio_user_endpoint *endpoint, struct pci_function *function,
                            int fd)
{
    int ret;

    memset(endpoint, 0, sizeof(*endpoint));
    ret = vfio_user_connection_init(&endpoint->connection, fd);
    if (ret == 0) {
        vfio_user_endpoint_attach(endpoint, function);
    }
    return ret;
}

void vfio_user_endpoint_fini(struct vfio_user_endpoint *endpoint)
{
    reset_function(endpoint);
    vfio_user_endpoint_discard(endpoint);
}

void vfio_user_endpoint_discard(struct vfio_user_endpoint *endpoint)
{
    if (endpoint->function->remote) {
        endpoint->function->remote->detach(endpoint->function->opaque);
    }
    unmap_all(endpoint);
    endpoint->function->bus = NULL;
    endpoint->function->bus_opaque = NULL;
    vfio_user_interrupts_clear(&endpoint->interrupts);
    vfio_user_client_dma_close(&endpoint->client_dma);
    vfio_user_connection_fini(&endpoint->connection);
    free(endpoint->buffer);
    memset(endpoint, 0, sizeof(*endpoint));
}
