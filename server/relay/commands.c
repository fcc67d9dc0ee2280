/* SPDX-License-Identifier: BSD-2-Clause */
/* The client's commands; see commands.h. */
#include "commands.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <viommu/device.h>

#include "common/foreign.h"
#include "relay.h"
#include "vfio_user/interrupts.h"
#include "vfio_user/remote.h"

static void answer(struct relay *relay, const struct vfio_user_header *header, int error,
                   const struct vfio_user_remote_answer *what)
{
    if (relay->endpoint) {
        vfio_user_endpoint_answer(relay->endpoint, header, error, what);
    }
}

static void answer_error(struct relay *relay, const struct vfio_user_header *header, int error)
{
    answer(relay, header, error, NULL);
}

static void answer_data(struct relay *relay, const struct vfio_user_header *header,
                        const void *data, size_t size)
{
    const struct vfio_user_remote_answer what = {.head = data, .head_size = size};

    answer(relay, header, 0, &what);
}

/* All ones, as of a device that has left the bus. */
static void answer_ones(struct relay *relay, const struct vfio_user_header *header,
                        const struct vfio_user_region_access *access)
{
    struct vfio_user_remote_answer what = {
        .head = access,
        .head_size = sizeof(*access),
        .tail_size = access->count,
    };
    void *ones = access->count > 0 ? malloc(access->count) : NULL;

    if (!ones && access->count > 0) {
        answer_error(relay, header, -ENOMEM);
        return;
    }
    if (ones) {
        memset(ones, 0xff, access->count);
    }
    what.tail = ones;
    answer(relay, header, 0, &what);
    free(ones);
}

/* ---- the far server's answers --------------------------------------------------------------- */

static void end_command(struct relay_command *command)
{
    struct relay *relay = command->relay;

    relay->command_count--;
    relay->command_bytes -= command->bytes;
    relay->giving &= !command->eventfds;
    command->used = false;
}

static bool is_access(const struct relay_command *command,
                      const struct viommu_vfio_user_reply *reply, size_t data_size)
{
    return reply->size == sizeof(command->access) + data_size &&
           memcmp(reply->data, &command->access, sizeof(command->access)) == 0;
}

/* The client, which closes them one day, shall not wait for whoever is behind one. */
static bool is_io_fds(const struct relay_command *command,
                      const struct viommu_vfio_user_reply *reply)
{
    for (unsigned i = 0; i < reply->fd_count; i++) {
        if (!foreign_closes_at_once(reply->fds[i])) {
            return false;
        }
    }
    return reply->size >= sizeof(struct vfio_user_region_io_fds) && reply->size <= command->room &&
           reply->fd_count <= VFIO_USER_MAX_FDS;
}

/* Passes an answer on. Returns false when it makes no sense. */
static bool pass_back(struct relay_command *command, const struct viommu_vfio_user_reply *reply)
{
    struct relay *relay = command->relay;
    struct vfio_user_remote_answer what = {.head = reply->data, .head_size = reply->size};

    switch (command->header.command) {
    case VFIO_USER_REGION_READ:
        if (!is_access(command, reply, command->access.count)) {
            return false;
        }
        break;
    case VFIO_USER_REGION_WRITE:
        if (!is_access(command, reply, 0)) {
            return false;
        }
        break;
    case VFIO_USER_DEVICE_GET_REGION_IO_FDS:
        if (!is_io_fds(command, reply)) {
            return false;
        }
        what.fds = reply->fds;
        what.n_fds = reply->fd_count;
        relay->io_fds |= reply->fd_count > 0;
        break;
    case VFIO_USER_DEVICE_RESET:
        viommu_device_reset(relay->config.device);
        what.head_size = 0;
        break;
    default:
        what.head_size = 0;
    }
    answer(relay, &command->header, 0, &what);
    return true;
}

static void replied(void *opaque, const struct viommu_vfio_user_reply *reply)
{
    struct relay_command *command = opaque;
    struct relay *relay = command->relay;

    command->error = command->error ? command->error : reply->error;
    if (command->parts > 1) {
        command->parts--;
        return;
    }
    if (command->error == 0 && relay->broken == 0 && pass_back(command, reply)) {
        end_command(command);
        return;
    }
    if (command->error == 0 && relay->broken == 0) {
        relay->broken = -EPROTO;
    }
    command->refused = true;
    command->error = command->error ? command->error : -EPROTO;
}

void relay_commands_settle(struct relay *relay)
{
    for (unsigned i = 0; i < RELAY_COMMANDS_MAX && relay->command_count > 0; i++) {
        struct relay_command *command = &relay->commands[i];

        if (!command->used || !command->refused) {
            continue;
        }
        if (command->eventfds) {
            relay_vectors_set(&relay->vectors, command->index, command->start, command->count,
                              NULL);
        }
        answer_error(relay, &command->header, command->error);
        end_command(command);
    }
}

/* There will be no answer: one is given as by a device that is down. A reset waits for the far
 * server to be joined again. */
static void answer_dead(struct relay *relay, struct relay_command *command)
{
    const struct vfio_user_header *header = &command->header;

    switch (header->command) {
    case VFIO_USER_DEVICE_RESET:
        command->refused = false;
        return;
    case VFIO_USER_REGION_READ:
        answer_ones(relay, header, &command->access);
        break;
    case VFIO_USER_REGION_WRITE:
        answer_data(relay, header, &command->access, sizeof(command->access));
        break;
    case VFIO_USER_DEVICE_SET_IRQS:
        answer_data(relay, header, NULL, 0); /* what is remembered is given when it is back */
        break;
    default:
        answer_error(relay, header, -EIO);
    }
    relay->answered_dead++;
    end_command(command);
}

bool relay_commands_lose(struct relay *relay)
{
    bool waiting = false;

    for (unsigned i = 0; i < RELAY_COMMANDS_MAX && relay->command_count > 0; i++) {
        struct relay_command *command = &relay->commands[i];

        if (command->used) {
            answer_dead(relay, command);
            waiting |= command->used;
        }
    }
    return waiting;
}

void relay_commands_reset(struct relay *relay, int error)
{
    for (unsigned i = 0; i < RELAY_COMMANDS_MAX && relay->command_count > 0; i++) {
        struct relay_command *command = &relay->commands[i];

        if (command->used) {
            answer(relay, &command->header, error, &(struct vfio_user_remote_answer){0});
            end_command(command);
        }
    }
}

void relay_commands_drop(struct relay *relay)
{
    for (unsigned i = 0; i < RELAY_COMMANDS_MAX; i++) {
        relay->commands[i].used = false;
    }
    relay->command_count = 0;
    relay->command_bytes = 0;
    relay->giving = false;
}

/* ---- the client's commands ------------------------------------------------------------------ */

/* A place for a command; there is one, else none would have been taken in. */
static struct relay_command *begin_command(struct relay *relay,
                                           const struct vfio_user_header *header, size_t bytes)
{
    for (unsigned i = 0; i < RELAY_COMMANDS_MAX; i++) {
        struct relay_command *command = &relay->commands[i];

        if (!command->used) {
            *command = (struct relay_command){
                .relay = relay,
                .used = true,
                .header = *header,
                .bytes = bytes,
            };
            relay->command_count++;
            relay->command_bytes += bytes;
            return command;
        }
    }
    return NULL;
}

/* Send a command that has its place: so much of what the client sent. Returns false when it was
 * refused. */
static bool pass_on(struct relay_command *command, const struct vfio_user_message *message,
                    size_t size)
{
    struct relay *relay = command->relay;
    int ret = viommu_vfio_user_send(relay->far, message->header.command, message->payload, size,
                                    NULL, 0, message->fds, message->n_fds, replied, command);

    relay->passed_on++;
    if (ret == -EPIPE) {
        answer_dead(relay, command);
    } else if (ret < 0) {
        answer_error(relay, &command->header, ret);
        end_command(command);
        return false;
    }
    return true;
}

static void get_info(struct relay *relay, const struct vfio_user_message *message)
{
    struct vfio_user_device_info info;

    memcpy(&info, message->payload, sizeof(info));
    if (info.argsz < sizeof(info)) {
        answer_error(relay, &message->header, -EINVAL);
        return;
    }
    info = (struct vfio_user_device_info){
        .argsz = sizeof(info),
        .flags = relay->info.flags,
        .num_regions = relay->info.region_count,
        .num_irqs = relay->info.irq_count,
    };
    answer_data(relay, &message->header, &info, sizeof(info));
}

static void get_region_info(struct relay *relay, const struct vfio_user_message *message)
{
    uint8_t data[FAR_REGION_ANSWER_MAX];
    struct vfio_user_remote_answer what = {.head = data};
    struct vfio_region_info info;
    const struct far_region *region;

    memcpy(&info, message->payload, sizeof(info));
    if (info.argsz < sizeof(info) || info.index >= relay->info.region_count) {
        answer_error(relay, &message->header, -EINVAL);
        return;
    }
    region = &relay->info.regions[info.index];
    what.head_size = far_info_region_answer(&relay->info, info.index, info.argsz, data);
    if (region->fd >= 0) {
        what.fds = &region->fd;
        what.n_fds = 1;
    }
    answer(relay, &message->header, 0, &what);
}

static void get_irq_info(struct relay *relay, const struct vfio_user_message *message)
{
    struct vfio_irq_info info;

    memcpy(&info, message->payload, sizeof(info));
    if (info.argsz < sizeof(info) || info.index >= relay->info.irq_count) {
        answer_error(relay, &message->header, -EINVAL);
        return;
    }
    info = (struct vfio_irq_info){
        .argsz = sizeof(info),
        .flags = relay->info.irqs[info.index].flags,
        .index = info.index,
        .count = relay->info.irqs[info.index].count,
    };
    answer_data(relay, &message->header, &info, sizeof(info));
}

static void get_io_fds(struct relay *relay, const struct vfio_user_message *message)
{
    struct vfio_user_region_io_fds io;
    struct relay_command *command;

    memcpy(&io, message->payload, sizeof(io));
    if (relay->config.isolate) {
        answer_error(relay, &message->header, -ENOTSUP);
    } else if (message->payload_size != sizeof(io) || message->n_fds > 0 || io.argsz < sizeof(io) ||
               io.index >= relay->info.region_count) {
        answer_error(relay, &message->header, -EINVAL);
    } else if (relay->state != RELAY_UP) {
        answer_error(relay, &message->header, -EIO);
    } else {
        command = begin_command(relay, &message->header, 0);
        command->room = io.argsz;
        pass_on(command, message, sizeof(io));
    }
}

/* Is exactly one of the bits in mask set? */
static bool exactly_one(uint32_t flags, uint32_t mask)
{
    flags &= mask;
    return flags != 0 && (flags & (flags - 1)) == 0;
}

static int check_set(const struct relay *relay, const struct vfio_irq_set *set, size_t data_size,
                     unsigned n_fds)
{
    const uint32_t type = VFIO_IRQ_SET_DATA_TYPE_MASK, action = VFIO_IRQ_SET_ACTION_TYPE_MASK;
    uint32_t limit;

    if (set->argsz < sizeof(*set) || (set->flags & ~(type | action)) != 0 ||
        !exactly_one(set->flags, type) || !exactly_one(set->flags, action) ||
        set->index >= relay->info.irq_count) {
        return -EINVAL;
    }
    limit = relay->info.irqs[set->index].count;
    if (set->start > limit || set->count > limit - set->start) {
        return -EINVAL;
    }
    if (set->flags & VFIO_IRQ_SET_DATA_EVENTFD) {
        if (set->count == 0 || (n_fds != 0 && n_fds != set->count)) {
            return -EINVAL;
        }
        /* What masks by eventfd could not be given again. */
        return set->flags & VFIO_IRQ_SET_ACTION_TRIGGER ? 0 : -ENOTSUP;
    }
    if (n_fds != 0 || ((set->flags & VFIO_IRQ_SET_DATA_BOOL) && data_size != set->count)) {
        return -EINVAL;
    }
    return 0;
}

/* Remembers the eventfds of a command, or that there are none any more. */
static void remember(struct relay *relay, const struct vfio_irq_set *set,
                     struct vfio_user_message *message)
{
    if (set->flags & VFIO_IRQ_SET_DATA_EVENTFD) {
        relay_vectors_set(&relay->vectors, set->index, set->start, set->count,
                          message->n_fds ? message->fds : NULL);
    } else if (set->count == 0 && set->start == 0 && (set->flags & VFIO_IRQ_SET_DATA_NONE) &&
               (set->flags & VFIO_IRQ_SET_ACTION_TRIGGER)) {
        relay_vectors_set(&relay->vectors, set->index, 0, relay->info.irqs[set->index].count, NULL);
    }
}

/* So many of a range that has eventfds. Returns what viommu_vfio_user_send does. */
static int give_part(struct relay_command *command, const struct vfio_irq_set *set)
{
    struct relay *relay = command->relay;
    int fds[VFIO_USER_MAX_FDS];

    for (uint32_t i = 0; i < set->count; i++) {
        fds[i] = relay_vectors_give(&relay->vectors, set->index, set->start + i);
        if (fds[i] < 0) {
            return fds[i];
        }
    }
    return viommu_vfio_user_send(relay->far, VFIO_USER_DEVICE_SET_IRQS, set, sizeof(*set), NULL, 0,
                                 fds, set->count, replied, command);
}

/*
 * A range that has eventfds, which are remembered already: in as many commands as it takes, because
 * the far server may take fewer descriptors with one than we do. The client is answered when all
 * are.
 */
static void give_vectors(struct relay_command *command, const struct vfio_irq_set *set)
{
    struct relay *relay = command->relay;
    size_t max = viommu_vfio_user_fds_max(relay->far);
    struct vfio_irq_set part = *set;
    int ret = max > 0 ? 0 : -ENOTSUP;

    part.argsz = sizeof(part);
    relay->passed_on++;
    for (uint32_t done = 0; ret == 0 && done < set->count; done += part.count) {
        part.start = set->start + done;
        part.count = set->count - done < max ? set->count - done : (uint32_t)max;
        ret = give_part(command, &part);
        command->parts += ret == 0;
    }
    if (ret < 0 && command->parts > 0) {
        command->error = ret; /* told when the others are answered */
    } else if (ret == -EPIPE) {
        answer_dead(relay, command);
    } else if (ret < 0) {
        relay_vectors_set(&relay->vectors, set->index, set->start, set->count, NULL);
        answer_error(relay, &command->header, ret);
        end_command(command);
    }
}

static void set_irqs(struct relay *relay, struct vfio_user_message *message)
{
    struct relay_command *command;
    struct vfio_irq_set set;
    int ret;

    memcpy(&set, message->payload, sizeof(set));
    ret = check_set(relay, &set, message->payload_size - sizeof(set), message->n_fds);
    if (ret == 0) {
        ret = vfio_user_interrupts_accept(message->fds, message->n_fds);
    }
    if (ret == 0) {
        ret = relay_vectors_reserve(&relay->vectors, &relay->info, set.index);
    }
    if (ret < 0) {
        answer_error(relay, &message->header, ret);
        return;
    }
    if (relay->state != RELAY_UP) {
        remember(relay, &set, message);
        answer_data(relay, &message->header, NULL, 0);
        return;
    }
    command = begin_command(relay, &message->header, 0);
    command->eventfds = relay->giving = set.flags & VFIO_IRQ_SET_DATA_EVENTFD;
    command->index = set.index;
    command->start = set.start;
    command->count = set.count;
    if (message->n_fds > 0) {
        remember(relay, &set, message);
        give_vectors(command, &set);
    } else if (pass_on(command, message,
                       sizeof(set) + (set.flags & VFIO_IRQ_SET_DATA_BOOL ? set.count : 0))) {
        remember(relay, &set, message);
    }
}

/* Is the access inside its region, allowed there, and no larger than both sides take? */
static int check_access(const struct relay *relay, const struct vfio_user_region_access *access,
                        uint32_t needed)
{
    const struct far_region *region;

    if (access->region >= relay->info.region_count || access->count > VFIO_USER_MAX_DATA) {
        return -EINVAL;
    }
    region = &relay->info.regions[access->region];
    if (!(region->flags & needed) || access->offset > region->size ||
        access->count > region->size - access->offset) {
        return -EINVAL;
    }
    return relay->state == RELAY_UP && access->count > viommu_vfio_user_transfer_max(relay->far)
               ? -EINVAL
               : 0;
}

static void region_read(struct relay *relay, const struct vfio_user_message *message)
{
    struct vfio_user_region_access access;
    struct relay_command *command;
    int ret;

    memcpy(&access, message->payload, sizeof(access));
    ret = message->payload_size == sizeof(access) && message->n_fds == 0
              ? check_access(relay, &access, VFIO_REGION_INFO_FLAG_READ)
              : -EINVAL;
    if (ret < 0) {
        answer_error(relay, &message->header, ret);
    } else if (relay->state != RELAY_UP || access.count == 0) {
        relay->answered_dead += access.count > 0;
        answer_ones(relay, &message->header, &access);
    } else {
        command = begin_command(relay, &message->header, access.count);
        command->access = access;
        pass_on(command, message, sizeof(access));
    }
}

static void region_write(struct relay *relay, const struct vfio_user_message *message)
{
    struct vfio_user_region_access access;
    struct relay_command *command;
    int ret;

    memcpy(&access, message->payload, sizeof(access));
    ret = message->payload_size - sizeof(access) == access.count && message->n_fds == 0
              ? check_access(relay, &access, VFIO_REGION_INFO_FLAG_WRITE)
              : -EINVAL;
    if (ret < 0) {
        answer_error(relay, &message->header, ret);
    } else if (relay->state != RELAY_UP || access.count == 0) {
        relay->answered_dead += access.count > 0;
        answer_data(relay, &message->header, &access, sizeof(access));
    } else {
        command = begin_command(relay, &message->header, access.count);
        command->access = access;
        pass_on(command, message, sizeof(access) + access.count);
    }
}

static void reset(struct relay *relay, const struct vfio_user_message *message)
{
    struct relay_command *command;

    if (message->payload_size != 0 || message->n_fds != 0) {
        answer_error(relay, &message->header, -EINVAL);
        return;
    }
    command = begin_command(relay, &message->header, 0);
    if (relay->state == RELAY_UP) {
        pass_on(command, message, 0);
    } else {
        relay_join_now(relay);
    }
}

void relay_command(void *opaque, struct vfio_user_message *message)
{
    struct relay *relay = opaque;

    relay->told |= relay->state == RELAY_UP;
    if (!relay->told) {
        /* A client that knows nothing of the device can only be told that there is none. */
        answer_error(relay, &message->header, -EIO);
        return;
    }
    switch (message->header.command) {
    case VFIO_USER_DEVICE_GET_INFO:
        get_info(relay, message);
        break;
    case VFIO_USER_DEVICE_GET_REGION_INFO:
        get_region_info(relay, message);
        break;
    case VFIO_USER_DEVICE_GET_REGION_IO_FDS:
        get_io_fds(relay, message);
        break;
    case VFIO_USER_DEVICE_GET_IRQ_INFO:
        get_irq_info(relay, message);
        break;
    case VFIO_USER_DEVICE_SET_IRQS:
        set_irqs(relay, message);
        break;
    case VFIO_USER_REGION_READ:
        region_read(relay, message);
        break;
    case VFIO_USER_REGION_WRITE:
        region_write(relay, message);
        break;
    case VFIO_USER_DEVICE_RESET:
        reset(relay, message);
        break;
    default:
        answer_error(relay, &message->header, -ENOTSUP);
    }
}
