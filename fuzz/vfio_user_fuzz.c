/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: what a vfio-user client may send to the served VT-d unit and to an edu device behind
 * it.
 *
 * The first byte chooses how the rest is taken:
 *   RAW        the rest is the byte stream of one endpoint's client, sent in pieces
 *   otherwise  the rest is records, each a 4-byte head (what, flags, size low, size high) and then
 *              so many bytes
 * `what` in a record is the command of a message whose header is made here, or POKE, which writes
 * guest memory (a 4-byte address, then data). Its flags choose the endpoint, the descriptors that
 * go along, NO_REPLY, and whether the client reads its replies.
 *
 * Numbers are little endian. One run makes a fresh unit, and may not leak anything: memory is
 * watched by the leak checker, descriptors by a count here.
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

#include "edu.h"
#include "log.h"
#include "support/fds.h"
#include "vfio_user/endpoint.h"
#include "vtd_function.h"

enum {
    MODE_RAW = 1,
    MODE_RAW_EDU = 2,   /* RAW: the stream goes to the edu device */
    MODE_RAW_HELLO = 4, /* RAW: after a VERSION made here */
    MODE_CACHING = 8,
    MODE_NARROW = 16,
    MODE_DEVICE_TLB = 32,

    POKE = 0xff,

    FLAG_EDU = 1,
    FLAG_NO_REPLY = 2,
    FLAG_MEMORY_FD = 4, /* one descriptor of guest memory */
    FLAG_EVENTFDS = 8,  /* as many eventfds as the flags' top three bits say, plus one */
    FLAG_UNREAD = 16,   /* leave the replies in the socket */

    RAM_SIZE = 1 << 20,
    MESSAGE_MAX = 4096,
    REQUESTER = 0x28,
};

struct peer {
    struct vfio_user_endpoint endpoint;
    int fd;
    bool open;
};

struct world {
    struct vtd_function vtd;
    struct edu edu;
    struct viommu_device *device;
    struct peer unit_peer, edu_peer;
};

static int ram_fd = -1, event_fd = -1;
static uint8_t *ram;

static void check(bool condition)
{
    if (!condition) {
        abort();
    }
}

static void prepare(void)
{
    if (ram_fd >= 0) {
        return;
    }
    server_log_to(NULL);
    ram_fd = memfd_create("fuzz", MFD_CLOEXEC);
    event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    check(ram_fd >= 0 && event_fd >= 0 && ftruncate(ram_fd, RAM_SIZE) == 0);
    ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, ram_fd, 0);
    check(ram != MAP_FAILED);
}

static void peer_open(struct peer *peer, struct pci_function *function)
{
    int pair[2];

    check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
    check(vfio_user_endpoint_init(&peer->endpoint, function, pair[1]) == 0);
    peer->fd = pair[0];
    peer->open = true;
}

static void peer_close(struct peer *peer)
{
    if (peer->open) {
        vfio_user_endpoint_fini(&peer->endpoint);
        close(peer->fd);
        peer->open = false;
    }
}

static void peer_send(struct peer *peer, const void *data, size_t size, const int *fds,
                      unsigned n_fds)
{
    /* A socket that is full takes nothing, or a part: both are fine. */
    (void)!support_send_fds(peer->fd, data, size, fds, n_fds);
}

static void peer_read_all(struct peer *peer)
{
    static uint8_t scrap[65536];

    while (recv(peer->fd, scrap, sizeof(scrap), MSG_DONTWAIT) > 0) {
        if (vfio_user_connection_flush(&peer->endpoint.connection) < 0) {
            break;
        }
    }
}

/* Let the server work; a connection that it gives up is made anew. */
static void serve(struct world *world, struct peer *peer)
{
    struct pci_function *function = peer->endpoint.function;

    if (vfio_user_endpoint_ready(&peer->endpoint) < 0) {
        peer_close(peer);
        peer_open(peer, function);
    }
    for (int i = 0; i < 4; i++) {
        unit_process(&world->vtd.unit);
    }
}

static void hello(struct world *world, struct peer *peer)
{
    static const struct {
        struct vfio_user_header header;
        struct vfio_user_version version;
    } message = {.header = {.command = VFIO_USER_VERSION, .size = 20}};

    peer_send(peer, &message, 20, NULL, 0);
    serve(world, peer);
    peer_read_all(peer);
}

static void poke(const uint8_t *data, size_t size)
{
    uint32_t address;

    if (size >= sizeof(address)) {
        memcpy(&address, data, sizeof(address));
        address %= RAM_SIZE;
        size -= sizeof(address);
        memcpy(ram + address, data + sizeof(address),
               size < RAM_SIZE - address ? size : RAM_SIZE - address);
    }
}

static void record(struct world *world, uint8_t what, uint8_t flags, const uint8_t *data,
                   size_t size)
{
    struct peer *peer = flags & FLAG_EDU ? &world->edu_peer : &world->unit_peer;
    uint8_t message[sizeof(struct vfio_user_header) + MESSAGE_MAX];
    struct vfio_user_header header = {
        .command = what,
        .size = (uint32_t)(sizeof(header) + size),
        .flags = flags & FLAG_NO_REPLY ? VFIO_USER_NO_REPLY : 0,
    };
    int fds[16];
    unsigned n_fds = 0;

    if (what == POKE) {
        poke(data, size);
        return;
    }
    if (flags & FLAG_MEMORY_FD) {
        fds[n_fds++] = ram_fd;
    }
    for (unsigned i = 0; (flags & FLAG_EVENTFDS) && i <= (unsigned)flags >> 5; i++) {
        fds[n_fds++] = event_fd;
    }
    memcpy(message, &header, sizeof(header));
    memcpy(message + sizeof(header), data, size);
    peer_send(peer, message, header.size, fds, n_fds);
    serve(world, peer);
    if (!(flags & FLAG_UNREAD)) {
        peer_read_all(peer);
        peer_read_all(&world->unit_peer);
    }
}

static void play_records(struct world *world, const uint8_t *data, size_t size)
{
    hello(world, &world->unit_peer);
    hello(world, &world->edu_peer);
    while (size >= 4) {
        size_t length = (size_t)(data[2] | data[3] << 8) % (MESSAGE_MAX + 1);

        if (length > size - 4) {
            length = size - 4;
        }
        record(world, data[0], data[1], data + 4, length);
        data += 4 + length;
        size -= 4 + length;
    }
}

static void play_raw(struct world *world, uint8_t mode, const uint8_t *data, size_t size)
{
    struct peer *peer = mode & MODE_RAW_EDU ? &world->edu_peer : &world->unit_peer;
    size_t piece = 1;

    if (mode & MODE_RAW_HELLO) {
        hello(world, peer);
    }
    while (size > 0) {
        size_t n = piece < size ? piece : size;

        peer_send(peer, data, n, &ram_fd, n % 2);
        serve(world, peer);
        peer_read_all(peer);
        data += n;
        size -= n;
        piece = piece * 3 % 97;
    }
}

static void open_world(struct world *world, uint8_t mode)
{
    struct viommu_vtd_config config = {
        .address_width = mode & MODE_NARROW ? 39 : 48,
        .caching_mode = mode & MODE_CACHING,
        .device_tlb = mode & MODE_DEVICE_TLB,
    };
    static const struct viommu_config caches = {.iotlb_entries = 256};
    struct viommu_device_config device = {
        .requester = REQUESTER,
        .ats = mode & MODE_DEVICE_TLB,
    };
    struct device_dma dma = unit_dma;

    memset(world, 0, sizeof(*world));
    check(vtd_function_init(&world->vtd, "vtd", &config, &caches) == 0);
    check(viommu_start(world->vtd.unit.iommu) == 0);
    check(viommu_device_add(world->vtd.unit.iommu, &device, &world->device) == 0);
    dma.opaque = world->device;
    edu_init(&world->edu, "edu", &dma);
    peer_open(&world->unit_peer, &world->vtd.function);
    peer_open(&world->edu_peer, &world->edu.function);
}

static void close_world(struct world *world)
{
    peer_close(&world->edu_peer);
    peer_close(&world->unit_peer);
    viommu_device_remove(world->device);
    vtd_function_fini(&world->vtd);
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
    memset(ram, 0, RAM_SIZE);
    fds = support_open_fds();
    open_world(&world, data[0]);
    if (data[0] & MODE_RAW) {
        play_raw(&world, data[0], data + 1, size - 1);
    } else {
        play_records(&world, data + 1, size - 1);
    }
    close_world(&world);
    check(support_open_fds() == fds);
    return 0;
}
