/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: a device in another process behind a unit (server/relay/), with both of its sides in
 * the input's hands: what a client may ask, and what a far server may answer and say.
 *
 * The first byte: enum START_*. Then records, each a 4-byte head (what, flags, size low,
 * size high) and so many bytes. `what` is the command of a client's message whose header is made
 * here, or one of enum action. The far server answers as one should, but where the input gave it
 * other answers before: `flags` of ANSWER say to which of the next commands, and how it differs.
 * Time is the input's, too (host.h).
 *
 * Numbers are little endian. One run makes a fresh unit, and may not leak anything: memory is
 * watched by the leak checker, descriptors by a count here.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "host.h"
#include "log.h"
#include "relay/relay.h"
#include "support/fds.h"
#include "unix_socket.h"
#include "vfio_user/connection.h"
#include "vfio_user/endpoint.h"
#include "vtd_function.h"

enum {
    START_ISOLATED = 1,
    START_QUICK = 2, /* its times are set, and short */
    START_ALONE = 4, /* nobody listens */
    START_LACKS = 8, /* and more: the how many-th thing cannot be made */
};

enum action {
    ACTION_ANSWER = 0xff,  /* of the far server, in place of a right one, later */
    ACTION_SAY = 0xfe,     /* it sends these bytes */
    ACTION_COMMAND = 0xfd, /* it sends a command: its number is the first byte */
    ACTION_LEAVE = 0xfc,
    ACTION_GO = 0xfb,     /* nobody listens any more; or somebody again */
    ACTION_DIE = 0xf3,    /* likewise, and its socket is still there */
    ACTION_HOLD = 0xfa,   /* it answers nothing; or again */
    ACTION_TIME = 0xf9,   /* time passes until the relay's timer fires */
    ACTION_WAIT = 0xf5,   /* `flags` times 100 ms pass */
    ACTION_LACK = 0xf4,   /* the how many-th thing (`flags`) cannot be made */
    ACTION_BUSY = 0xf2,   /* it takes in no connection; or again */
    ACTION_SIGNAL = 0xf1, /* it interrupts by all eventfds that it ever had; with `flags` somebody
                             else takes the first signal */
    ACTION_CLIENT = 0xf8, /* the client leaves, and another comes */
    ACTION_MEMORY = 0xf7, /* guest memory leaves, or comes */
    ACTION_RAW = 0xf6,    /* the client sends these bytes */

    FLAG_NO_REPLY = 1, /* of a client's command */
    FLAG_FDS = 2,      /* as many eventfds as the flags' top three bits say, plus one */
    FLAG_UNREAD = 4,   /* leave the answers in the socket */

    ANSWER_SKIP = 0x0f,   /* flags of ANSWER: so many right ones come before */
    ANSWER_ERROR = 0x10,  /* it is an error */
    ANSWER_NUMBER = 0x20, /* to a command that nobody sent */
    ANSWER_FD = 0x40,     /* with a descriptor */
    ANSWER_NONE = 0x80, /* there is none; with ANSWER_FD: there is, and it is of another file; then
                           with ANSWER_ERROR: of another file system */

    ANSWERS_MAX = 16,
    GIVEN_MAX = 16,
    TURNS_MAX = 64,
    MESSAGE_MAX = 4096,
    RAM_SIZE = 1 << 16,
    BAR_SIZE = 0x2000,
};

struct answer {
    uint8_t flags;
    size_t size;
    const uint8_t *data;
};

struct far {
    int listener;
    bool connected;
    bool hold;
    bool busy;
    struct vfio_user_connection connection;
    struct answer answers[ANSWERS_MAX];
    unsigned answer_count;
    int given[GIVEN_MAX]; /* eventfds, the last ones, of other connections, too */
    unsigned given_count;
};

struct world {
    struct loop loop;
    struct vtd_function vtd;
    struct viommu_device *device;
    void *cookie;
    bool memory;
    struct relay relay;
    bool open;
    struct vfio_user_endpoint endpoint;
    int client;
    struct far far;
};

static const struct pci_dma_region ram_region = {
    .last = RAM_SIZE - 1,
    .readable = true,
    .writable = true,
};
static char path[64];
static int ram_fd = -1, other_fd = -1, event_fd = -1;

static void check(bool condition)
{
    if (!condition) {
        abort();
    }
}

static void remove_socket(void)
{
    unlink(path);
}

static void prepare(void)
{
    if (ram_fd >= 0) {
        return;
    }
    server_log_to(NULL);
    snprintf(path, sizeof(path), "/tmp/viommu-relay-fuzz-%d", (int)getpid());
    atexit(remove_socket);
    ram_fd = memfd_create("fuzz", MFD_CLOEXEC);
    other_fd = memfd_create("fuzz", MFD_CLOEXEC);
    event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    check(ram_fd >= 0 && other_fd >= 0 && event_fd >= 0 && ftruncate(ram_fd, RAM_SIZE) == 0);
}

/* ---- the far server -------------------------------------------------------------------------- */

static void far_listen(struct far *far)
{
    far->listener = unix_socket_listen(path, 0700);
    check(far->listener >= 0);
}

static void far_drop(struct far *far)
{
    if (far->connected) {
        vfio_user_connection_fini(&far->connection);
        far->connected = false;
    }
}

/* Its socket may stay. */
static void far_go(struct far *far, bool cleanly)
{
    far_drop(far);
    close(far->listener);
    if (cleanly) {
        unlink(path);
    }
    far->listener = -1;
}

/* With a descriptor, where it is not negative. */
static void far_send(struct far *far, struct vfio_user_header header, const void *data, size_t size,
                     int fd)
{
    if (vfio_user_connection_send_fds(&far->connection, header, data, size, NULL, 0, &fd, fd >= 0) <
        0) {
        far_drop(far);
    }
}

/* The right answer: its size. */
static size_t right_answer(const struct vfio_user_message *command, uint8_t data[MESSAGE_MAX],
                           bool *fd)
{
    static const char version[] = "\0\0\0\0{\"capabilities\":{\"max_msg_fds\":8}}";
    struct vfio_user_device_info device = {
        .argsz = sizeof(device),
        .flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET,
        .num_regions = VFIO_PCI_NUM_REGIONS,
        .num_irqs = VFIO_PCI_NUM_IRQS,
    };
    struct vfio_region_info region;
    struct vfio_irq_info irqs;
    struct vfio_user_region_access access;

    *fd = false;
    switch (command->header.command) {
    case VFIO_USER_VERSION:
        memcpy(data, version, sizeof(version));
        return sizeof(version);
    case VFIO_USER_DEVICE_GET_INFO:
        memcpy(data, &device, sizeof(device));
        return sizeof(device);
    case VFIO_USER_DEVICE_GET_REGION_INFO:
        memcpy(&region, command->payload, sizeof(region));
        region.flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
        region.argsz = sizeof(region);
        region.size = BAR_SIZE;
        if (region.index == 0) {
            region.flags |= VFIO_REGION_INFO_FLAG_MMAP;
            *fd = true;
        }
        memcpy(data, &region, sizeof(region));
        return sizeof(region);
    case VFIO_USER_DEVICE_GET_IRQ_INFO:
        memcpy(&irqs, command->payload, sizeof(irqs));
        irqs.flags = VFIO_IRQ_INFO_EVENTFD;
        irqs.count = 8;
        memcpy(data, &irqs, sizeof(irqs));
        return sizeof(irqs);
    case VFIO_USER_REGION_READ:
    case VFIO_USER_REGION_WRITE:
        memcpy(&access, command->payload, sizeof(access));
        check(access.region < VFIO_PCI_NUM_REGIONS);
        memset(data, 0x11, MESSAGE_MAX);
        memcpy(data, &access, sizeof(access));
        if (command->header.command == VFIO_USER_REGION_WRITE) {
            check(command->payload_size == sizeof(access) + access.count);
            return sizeof(access);
        }
        return access.count < MESSAGE_MAX - sizeof(access) ? sizeof(access) + access.count
                                                           : sizeof(access);
    case VFIO_USER_DMA_UNMAP:
    case VFIO_USER_DEVICE_GET_REGION_IO_FDS:
        memcpy(data, command->payload, command->payload_size);
        return command->payload_size;
    default:
        return 0;
    }
}

static void far_answer(struct far *far, const struct vfio_user_message *command)
{
    struct vfio_user_header header = {
        .id = command->header.id,
        .command = command->header.command,
        .flags = VFIO_USER_TYPE_REPLY,
    };
    uint8_t data[MESSAGE_MAX];
    size_t size;
    bool fd;

    if (far->answer_count > 0 && (far->answers[0].flags & ANSWER_SKIP) == 0) {
        const struct answer other = far->answers[0];

        far->answer_count--;
        memmove(&far->answers[0], &far->answers[1], far->answer_count * sizeof(far->answers[0]));
        if ((other.flags & (ANSWER_NONE | ANSWER_FD)) == ANSWER_NONE) {
            return;
        }
        header.id ^= other.flags & ANSWER_NUMBER;
        if ((other.flags & ANSWER_ERROR) && !(other.flags & ANSWER_FD)) {
            header.flags |= VFIO_USER_ERROR;
            header.error = other.size > 0 ? other.data[0] : 5;
        }
        far_send(far, header, other.data, header.flags & VFIO_USER_ERROR ? 0 : other.size,
                 !(other.flags & ANSWER_FD)     ? -1
                 : !(other.flags & ANSWER_NONE) ? ram_fd
                 : other.flags & ANSWER_ERROR   ? event_fd
                                                : other_fd);
        return;
    }
    if (far->answer_count > 0) {
        far->answers[0].flags--;
    }
    size = right_answer(command, data, &fd);
    far_send(far, header, data, size, fd ? ram_fd : -1);
}

/* Keeps the descriptors that came with a command. */
static void far_keep(struct far *far, struct vfio_user_message *message)
{
    for (unsigned i = 0; i < message->n_fds; i++) {
        int *place = &far->given[far->given_count++ % GIVEN_MAX];

        if (far->given_count > GIVEN_MAX) {
            close(*place);
        }
        *place = message->fds[i];
        message->fds[i] = -1;
    }
}

static unsigned far_given(const struct far *far)
{
    return far->given_count < GIVEN_MAX ? far->given_count : GIVEN_MAX;
}

static void far_signals(struct far *far)
{
    const uint64_t one = 1;

    for (unsigned i = 0; i < far_given(far); i++) {
        (void)!write(far->given[i], &one, sizeof(one));
    }
}

static void far_forgets(struct far *far)
{
    for (unsigned i = 0; i < far_given(far); i++) {
        close(far->given[i]);
    }
    far->given_count = 0;
}

/* Takes in and answers all that came; returns whether there was anything. */
static bool far_step(struct far *far)
{
    struct vfio_user_message message;
    bool any = false;
    int ret = 1;

    if (!far->connected && far->listener >= 0 && !far->busy) {
        int fd = accept4(far->listener, NULL, NULL, SOCK_CLOEXEC);

        far->connected = fd >= 0 && vfio_user_connection_init(&far->connection, fd) == 0;
        any = far->connected;
    }
    while (far->connected && !far->hold && ret > 0) {
        ret = vfio_user_connection_receive(&far->connection, &message);
        any = any || ret > 0;
        if (ret > 0 && (message.header.flags & VFIO_USER_TYPE_MASK) == VFIO_USER_TYPE_COMMAND) {
            if (message.header.command == VFIO_USER_DEVICE_SET_IRQS) {
                far_keep(far, &message);
            }
            far_answer(far, &message);
        }
    }
    if (ret < 0) {
        far_drop(far);
    }
    return any;
}

/* ---- the client ------------------------------------------------------------------------------ */

static void client_send(struct world *world, const void *data, size_t size, unsigned n_fds)
{
    int fds[VFIO_USER_MAX_FDS] = {0};

    for (unsigned i = 0; i < n_fds; i++) {
        fds[i] = event_fd;
    }
    (void)!support_send_fds(world->client, data, size, fds, n_fds);
}

static void client_read(struct world *world)
{
    static uint8_t scrap[65536];

    while (recv(world->client, scrap, sizeof(scrap), MSG_DONTWAIT) > 0) {
        if (vfio_user_connection_flush(&world->endpoint.connection) < 0) {
            break;
        }
    }
}

static void client_leave(struct world *world)
{
    if (world->open) {
        vfio_user_endpoint_fini(&world->endpoint);
        close(world->client);
        world->open = false;
    }
}

static void client_come(struct world *world)
{
    static const struct {
        struct vfio_user_header header;
        struct vfio_user_version version;
    } message = {.header = {.command = VFIO_USER_VERSION, .size = 20}};
    int pair[2];

    check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
    check(vfio_user_endpoint_init(&world->endpoint, &world->relay.function, pair[1]) == 0);
    world->client = pair[0];
    world->open = true;
    client_send(world, &message, 20, 0);
}

/* ---- all ------------------------------------------------------------------------------------- */

/* Let everybody work while the far server has something to do: it is asked much before it is up. */
static void work(struct world *world)
{
    for (int i = 0, quiet = 0; i < TURNS_MAX && quiet < 2; i++) {
        if (world->open && vfio_user_endpoint_ready(&world->endpoint) < 0) {
            client_leave(world);
            client_come(world);
        }
        for (int n = 0; n < 16 && loop_step(&world->loop, 0) > 0; n++) {
        }
        unit_process(&world->vtd.unit);
        quiet = far_step(&world->far) ? 0 : quiet + 1;
    }
    check(world->relay.command_count <= RELAY_COMMANDS_MAX);
    check((world->relay.state == RELAY_DOWN) == (world->relay.far == NULL));
}

static void time_passes(struct world *world)
{
    host_wait_for(world->relay.timer.fd);
    work(world);
}

static void memory(struct world *world)
{
    if (world->memory) {
        unit_memory_ops.unmap(&world->vtd.unit, ram_region.first, ram_region.last, world->cookie);
        world->memory = false;
    } else if (!unit_memory_ops.unmapping(&world->vtd.unit)) {
        world->memory =
            unit_memory_ops.map(&world->vtd.unit, &ram_region, ram_fd, &world->cookie) == 0;
    }
}

static void far_command(struct far *far, const uint8_t *data, size_t size)
{
    const struct vfio_user_header header = {.id = 7, .command = size > 0 ? data[0] : 0};

    if (far->connected && size > 0) {
        far_send(far, header, data + 1, size - 1, -1);
    }
}

static void far_plan(struct far *far, uint8_t flags, const uint8_t *data, size_t size)
{
    if (far->answer_count < ANSWERS_MAX) {
        far->answers[far->answer_count++] = (struct answer){flags, size, data};
    }
}

static void client_command(struct world *world, uint8_t command, uint8_t flags, const uint8_t *data,
                           size_t size)
{
    uint8_t message[sizeof(struct vfio_user_header) + MESSAGE_MAX];
    const struct vfio_user_header header = {
        .command = command,
        .size = (uint32_t)(sizeof(header) + size),
        .flags = flags & FLAG_NO_REPLY ? VFIO_USER_NO_REPLY : 0,
    };

    memcpy(message, &header, sizeof(header));
    memcpy(message + sizeof(header), data, size);
    client_send(world, message, header.size, flags & FLAG_FDS ? (flags >> 5) + 1u : 0);
    work(world);
    if (!(flags & FLAG_UNREAD)) {
        client_read(world);
    }
}

static void record(struct world *world, uint8_t what, uint8_t flags, const uint8_t *data,
                   size_t size)
{
    struct far *far = &world->far;

    switch (what) {
    case ACTION_ANSWER:
        far_plan(far, flags, data, size);
        return;
    case ACTION_SAY:
        if (far->connected) {
            (void)!send(far->connection.fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        }
        break;
    case ACTION_COMMAND:
        far_command(far, data, size);
        break;
    case ACTION_LEAVE:
        far_drop(far);
        if (flags) {
            return; /* nobody has heard of it */
        }
        break;
    case ACTION_GO:
    case ACTION_DIE:
        far->listener < 0 ? far_listen(far) : far_go(far, what == ACTION_GO);
        break;
    case ACTION_BUSY:
        far->busy = !far->busy;
        if (far->listener >= 0) {
            check(listen(far->listener, far->busy ? 0 : 4) == 0);
        }
        break;
    case ACTION_SIGNAL:
        host_signal_taken = flags;
        far_signals(far);
        break;
    case ACTION_LACK:
        host_left = flags;
        return;
    case ACTION_WAIT:
        host_wait(flags * UINT64_C(100000000));
        break;
    case ACTION_HOLD:
        far->hold = !far->hold;
        break;
    case ACTION_TIME:
        time_passes(world);
        return;
    case ACTION_CLIENT:
        client_leave(world);
        client_come(world);
        break;
    case ACTION_MEMORY:
        memory(world);
        break;
    case ACTION_RAW:
        client_send(world, data, size, flags & FLAG_FDS ? 1 : 0);
        break;
    default:
        client_command(world, what, flags, data, size);
        return;
    }
    work(world);
}

/* Returns false where the relay could not begin. */
static bool open_world(struct world *world, uint8_t start)
{
    static const struct viommu_vtd_config config = {.caching_mode = true};
    static const struct viommu_config caches = {.iotlb_entries = 256};
    const struct viommu_device_config device = {.requester = 0x30};
    struct relay_config relay = {
        .name = "relay",
        .path = path,
        .isolate = start & START_ISOLATED,
        .answer_ms = start & START_QUICK ? 900 : 0,
        .join_ms = start & START_QUICK ? 500 : 0,
    };
    int ret;

    host_reset();
    memset(world, 0, sizeof(*world));
    check(loop_init(&world->loop) == 0);
    check(vtd_function_init(&world->vtd, "vtd", &config, &caches) == 0);
    check(viommu_start(world->vtd.unit.iommu) == 0);
    check(viommu_device_add(world->vtd.unit.iommu, &device, &world->device) == 0);
    memory(world);
    world->far.listener = -1;
    if (!(start & START_ALONE)) {
        far_listen(&world->far);
    }
    relay.device = world->device;
    host_left = start / START_LACKS;
    ret = relay_open(&world->relay, &world->loop, &relay);
    check((ret == 0) == !(start & START_ALONE) || start >= START_LACKS);
    host_left = 0;
    return ret == 0;
}

static void play(struct world *world, const uint8_t *data, size_t size)
{
    client_come(world);
    while (size >= 4) {
        size_t length = (size_t)(data[2] | data[3] << 8) % (MESSAGE_MAX + 1);

        length = length < size - 4 ? length : size - 4;
        record(world, data[0], data[1], data + 4, length);
        data += 4 + length;
        size -= 4 + length;
    }
    host_left = 0;
    client_leave(world);
    relay_close(&world->relay);
}

static void close_world(struct world *world)
{
    far_drop(&world->far);
    far_forgets(&world->far);
    host_signal_taken = false;
    if (world->far.listener >= 0) {
        far_go(&world->far, true);
    }
    unlink(path);
    if (world->memory) {
        memory(world);
    }
    viommu_device_remove(world->device);
    vtd_function_fini(&world->vtd);
    loop_fini(&world->loop);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct world world;
    unsigned fds;

    if (size == 0) {
        return 0;
    }
    prepare();
    fds = support_open_fds();
    if (open_world(&world, data[0])) {
        play(&world, data + 1, size - 1);
    }
    close_world(&world);
    check(support_open_fds() == fds);
    return 0;
}
