/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: what a server that takes over reads from the one before it.
 *
 * The first byte says what the rest is:
 *   CHANNEL    the bytes of the socket between the two
 *   otherwise  the saved state of an ENDPOINT (of an edu with memory of its own, and a client as
 *              enum shape says), of an EDU, or of the UNIT. With RAW the rest is that state;
 *              without, it is changes to a state that was really saved: records of a place (2
 *              bytes, little endian) and a byte to put there, then how much to cut off, then which
 *              allocation fails when it is loaded.
 *
 * What is loaded goes on for a while, and may not leak: memory is watched by the leak checker,
 * descriptors by a count here.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "direct_memory.h"
#include "edu.h"
#include "failing.h"
#include "handover/channel.h"
#include "log.h"
#include "save/stream.h"
#include "support/fds.h"
#include "vfio_user/endpoint_state.h"
#include "vtd_function.h"

enum {
    CHANNEL = 0,
    ENDPOINT = 1,
    EDU = 2,
    UNIT = 3,
    WHAT = 3,
    RAW = 0x80,

    RAM_SIZE = 1 << 16,
    DATA_SIZE = 4096,
    SECTION_HEAD = 24, /* before the body, in a stream */
};

/* Of a client, when its endpoint is saved. */
enum shape {
    SHAPE_PAYLOAD = 4, /* in the middle of a payload, with a descriptor; else of a header */
    SHAPE_UNREAD = 8,  /* it has not read its replies */
    SHAPE_TWIN = 16,   /* with a twin socket */
    SHAPE_BARE = 32,   /* some of its memory has no file, or may not be written or read */
    SHAPE_LISTENS = 64, /* its socket is none of a connection */
};

struct device {
    struct edu edu;
    struct direct_memory memory;
    struct vfio_user_endpoint endpoint;
};

static int ram_fd = -1;

static void check(bool condition)
{
    if (!condition) {
        abort();
    }
}

static void prepare(void)
{
    if (ram_fd < 0) {
        server_log_to(NULL);
        ram_fd = memfd_create("fuzz", MFD_CLOEXEC);
        check(ram_fd >= 0 && ftruncate(ram_fd, RAM_SIZE) == 0);
    }
}

static void device_init(struct device *device)
{
    struct device_dma dma = direct_memory_dma;

    memset(device, 0, sizeof(*device));
    check(direct_memory_init(&device->memory) == 0);
    dma.opaque = &device->memory;
    edu_init(&device->edu, "edu", &dma);
    direct_memory_attach(&device->memory, &device->edu.function);
}

static void say(int fd, const void *data, size_t size, int with)
{
    check(support_send_fds(fd, data, size, &with, with >= 0) == (ssize_t)size);
}

/* Regions without a file, or that may only be read, or written, or neither. */
static void map_bare(struct device *device, int fd)
{
    for (unsigned i = 0; i < 4; i++) {
        const struct {
            struct vfio_user_header header;
            struct vfio_user_dma_map map;
        } map = {{.command = VFIO_USER_DMA_MAP, .size = 48},
                 {.argsz = 32, .flags = i, .address = (i + 1) << 20, .size = 0x1000}};

        say(fd, &map, 48, i & 1 ? ram_fd : -1);
    }
    check(vfio_user_endpoint_ready(&device->endpoint) == 0);
}

/* Reads until the socket is full, and some of the replies are kept. */
static void read_much(struct device *device, int fd)
{
    const struct {
        struct vfio_user_header header;
        struct vfio_user_region_access access;
    } read = {{.command = VFIO_USER_REGION_READ, .size = 32},
              {.region = 0, .count = DATA_SIZE}};

    for (unsigned i = 0; i < 200 && !vfio_user_connection_pending(&device->endpoint.connection);
         i++) {
        say(fd, &read, 32, -1);
        check(vfio_user_endpoint_ready(&device->endpoint) == 0);
    }
}

/* A client that has agreed, mapped memory, wants interrupts, and is in the middle of a message. */
static int connect_client(struct device *device, unsigned shape)
{
    static const char twin[] = "{\"capabilities\":{\"twin_socket\":{\"supported\":true}}}";
    static const struct {
        struct vfio_user_header header;
        struct vfio_user_version version;
    } hello = {{.command = VFIO_USER_VERSION, .size = 20}, {0}};
    static const struct {
        struct vfio_user_header header;
        struct vfio_user_dma_map map;
    } map = {{.command = VFIO_USER_DMA_MAP, .size = 48},
             {.argsz = 32, .flags = 3, .address = 0x1000, .size = 0x8000}};
    static const struct {
        struct vfio_user_header header;
        uint32_t argsz, flags, index, start, count; /* struct vfio_irq_set */
    } irqs = {{.command = VFIO_USER_DEVICE_SET_IRQS, .size = 36}, 20,
              VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_PCI_MSI_IRQ_INDEX, 0,
              1};
    int pair[2], event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    check(event >= 0);
    check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
    check(vfio_user_endpoint_init(&device->endpoint, &device->edu.function, pair[1]) == 0);
    if (shape & SHAPE_TWIN) {
        struct vfio_user_header header = hello.header;

        header.size += sizeof(twin);
        say(pair[0], &header, sizeof(header), -1);
        say(pair[0], &hello.version, 4, -1);
        say(pair[0], twin, sizeof(twin), -1);
    } else {
        say(pair[0], &hello, 20, -1);
    }
    say(pair[0], &map, 48, ram_fd);
    say(pair[0], &irqs, 36, event);
    check(vfio_user_endpoint_ready(&device->endpoint) == 0);
    if (shape & SHAPE_BARE) {
        map_bare(device, pair[0]);
    }
    if (shape & SHAPE_UNREAD) {
        read_much(device, pair[0]);
    }
    if (shape & SHAPE_PAYLOAD) {
        say(pair[0], &map, 30, ram_fd);
    } else {
        say(pair[0], &hello, 10, -1);
    }
    check(vfio_user_endpoint_ready(&device->endpoint) == 0);
    close(event);
    return pair[0];
}

/* A body that was saved, or given, and the descriptors that it names. */
struct state {
    uint8_t *body;
    size_t size;
    unsigned fail_at; /* which allocation fails when it is loaded; 0: none does */
    struct handover_fds fds;
};

static void begin(struct save_writer *writer)
{
    save_writer_init(writer, SAVE_SERVER);
    save_begin(writer, 1, 0, 1, 0);
}

static unsigned change(struct state *state, const uint8_t *data, size_t size)
{
    for (; size >= 3 && state->size > 0; data += 3, size -= 3) {
        state->body[(size_t)(data[0] | data[1] << 8) % state->size] = data[2];
    }
    if (size > 0) {
        state->size -= data[0] < state->size ? data[0] : state->size;
    }
    return size > 1 ? data[1] : 0;
}

/* The saved body, changed or replaced as the input says. */
static void finish(struct state *state, struct save_writer *writer, bool raw, const uint8_t *data,
                   size_t size)
{
    size_t head = writer->section + SECTION_HEAD;

    check(writer->error == 0);
    state->size = raw ? size : writer->size - head;
    state->body = malloc(state->size + 1);
    check(state->body != NULL);
    memcpy(state->body, raw ? data : writer->data + head, state->size);
    save_writer_fini(writer);
    state->fail_at = raw ? 0 : change(state, data, size);
    for (size_t i = 0; i < state->fds.count; i++) {
        state->fds.fds[i] = dup(state->fds.fds[i]);
        check(state->fds.fds[i] >= 0);
    }
}

static void state_fini(struct state *state)
{
    handover_fds_close(&state->fds);
    free(state->body);
}

static void play_endpoint(unsigned how, const uint8_t *data, size_t size)
{
    static struct device from, to;
    struct state state = {.body = NULL};
    struct save_writer writer;
    struct save_section section = {.kind = 1, .version = 1};
    static const uint8_t rest[64];
    const struct sockaddr no_name = {.sa_family = AF_UNIX}; /* the kernel finds one */
    int client, ret;

    device_init(&from);
    device_init(&to);
    client = connect_client(&from, how);
    check(!vfio_user_endpoint_unsaveable(&from.endpoint));
    begin(&writer);
    vfio_user_endpoint_save(&from.endpoint, &writer, &state.fds);
    finish(&state, &writer, how & RAW, data, size);
    if (how & SHAPE_LISTENS) {
        close(state.fds.fds[0]);
        state.fds.fds[0] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        check(bind(state.fds.fds[0], &no_name, sizeof(no_name.sa_family)) == 0 &&
              listen(state.fds.fds[0], 1) == 0);
    }
    section.at = state.body;
    section.left = state.size;
    failing_alloc_at(state.fail_at);
    ret = vfio_user_endpoint_load(&to.endpoint, &to.edu.function, &section, &state.fds);
    failing_alloc_at(0);
    if (ret == 0 && save_close(&section) == 0) {
        say(client, rest, sizeof(rest), -1);
        pci_function_message_interrupt(&to.edu.function, 0);
        for (int i = 0; i < 4 && vfio_user_endpoint_ready(&to.endpoint) == 0; i++) {
            vfio_user_endpoint_update(&to.endpoint);
        }
        vfio_user_endpoint_fini(&to.endpoint);
    } else {
        vfio_user_endpoint_discard(&to.endpoint);
    }
    vfio_user_endpoint_fini(&from.endpoint);
    direct_memory_fini(&from.memory);
    direct_memory_fini(&to.memory);
    state_fini(&state);
    close(client);
}

static void play_edu(bool raw, const uint8_t *data, size_t size)
{
    static struct device from, to;
    struct state state = {.body = NULL};
    struct save_writer writer;
    struct save_section section = {.kind = 1, .version = 1};
    uint64_t value = EDU_DMA_START | EDU_DMA_TO_MEMORY | EDU_DMA_INTERRUPT;

    device_init(&from);
    device_init(&to);
    begin(&writer);
    edu_save(&from.edu, &writer);
    finish(&state, &writer, raw, data, size);
    section.at = state.body;
    section.left = state.size;
    if (edu_load(&to.edu, &section) == 0) {
        to.edu.function.ops->bar_write(&to.edu, 0, EDU_REG_DMA_COMMAND, &value, 8);
        to.edu.function.ops->bar_read(&to.edu, 0, EDU_REG_STATUS, &value, 4);
    }
    direct_memory_fini(&from.memory);
    direct_memory_fini(&to.memory);
    state_fini(&state);
}

static void play_unit(bool raw, const uint8_t *data, size_t size)
{
    static struct vtd_function from, to;
    const struct viommu_vtd_config config = {.address_width = 48};
    const struct viommu_config caches = {.iotlb_entries = 256};
    struct state state = {.body = NULL};
    struct save_writer writer;
    struct save_section section = {.kind = 1, .version = 1};

    check(vtd_function_init(&from, "from", &config, &caches) == 0);
    check(viommu_start(from.unit.iommu) == 0);
    check(vtd_function_init(&to, "to", &config, &caches) == 0);
    begin(&writer);
    check(vtd_function_save(&from, &writer) == 0);
    finish(&state, &writer, raw, data, size);
    section.at = state.body;
    section.left = state.size;
    if (vtd_function_load(&to, &section) == 0) {
        unit_process(&to.unit);
    }
    vtd_function_fini(&from);
    vtd_function_fini(&to);
    state_fini(&state);
}

static void play_channel(const uint8_t *data, size_t size)
{
    struct handover_message message;
    int pair[2], ret;

    check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    if (size > 40) { /* a descriptor goes with the byte after a header and a short state */
        say(pair[0], data, 40, -1);
        say(pair[0], data + 40, size - 40, ram_fd);
    } else if (size > 0) {
        say(pair[0], data, size, -1);
    }
    shutdown(pair[0], SHUT_WR);
    do {
        ret = handover_receive(pair[1], &message, handover_deadline(100));
        if (ret == 0) {
            handover_message_fini(&message);
        }
    } while (ret == 0);
    close(pair[0]);
    close(pair[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned fds;
    bool raw;

    if (size == 0 || size > 65536) {
        return 0;
    }
    prepare();
    fds = support_open_fds();
    raw = data[0] & RAW;
    switch (data[0] & WHAT) {
    case CHANNEL:
        play_channel(data + 1, size - 1);
        break;
    case ENDPOINT:
        play_endpoint(data[0], data + 1, size - 1);
        break;
    case EDU:
        play_edu(raw, data + 1, size - 1);
        break;
    default:
        play_unit(raw, data + 1, size - 1);
        break;
    }
    check(support_open_fds() == fds);
    return 0;
}
