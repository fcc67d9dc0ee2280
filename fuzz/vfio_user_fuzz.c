/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: what a vfio-user client may send to the served VT-d unit, to an edu device behind
 * it, and to a function of our own, which does all that a function may.
 *
 * The first byte chooses how the rest is taken:
 *   RAW        the rest is the byte stream of one endpoint's client, sent in pieces
 *   otherwise  the rest is records, each a 4-byte head (what, flags, size low, size high) and then
 *              so many bytes
 * `what` in a record is the command of a message whose header is made here, or POKE, which writes
 * guest memory (a 4-byte address, then data), or one of enum action. The flags of a command choose
 * the endpoint, the descriptors that go along, NO_REPLY, and whether the client reads its replies.
 * Our own function is chosen by a bit of `what`; its memory and its reset may be under way for as
 * long as the input wants, and it asks for memory and raises interrupts when the input says so.
 * In a command an allocation may fail, and there may be no descriptor left.
 *
 * Numbers are little endian. One run makes a fresh unit, and may not leak anything: memory is
 * watched by the leak checker, descriptors by a count here.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "edu.h"
#include "failing.h"
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
    MODE_FEW = 64, /* our own function takes few regions */

    POKE = 0xff,
    OWN = 0x40, /* with a command: it is for our own function */

    FLAG_EDU = 1,
    FLAG_NO_REPLY = 2,
    FLAG_MEMORY_FD = 4, /* one descriptor of guest memory */
    FLAG_EVENTFDS = 8,  /* as many eventfds as the flags' top three bits say, plus one */
    FLAG_UNREAD = 16,   /* leave the replies in the socket */

    RAM_SIZE = 1 << 20,
    MESSAGE_MAX = 4096,
    REQUESTER = 0x28,
    OWN_REGIONS = 3,
    OWN_BAR2_SIZE = 2 * VFIO_USER_MAX_DATA,
    BAD_OFFSET = 0xbad000, /* in a file: our own function does not map it */
};

/* Their flags choose the endpoint where nothing else is said: 0 our own, 1 the edu's, 2 the unit's.
 */
enum action {
    ACTION_UNDER_WAY = 0xfe, /* flags: 1 memory that was unmapped is in use; 2 a reset goes on */
    ACTION_BUS = 0xfd,       /* our function asks its bus: what (see use_bus), then operands */
    ACTION_TWIN = 0xfc,      /* the client sends bytes on its twin socket; flags 1: it closes it */
    ACTION_UPDATE = 0xfb,
    ACTION_ALLOC = 0xfa,    /* flags: which allocation of the next command fails */
    ACTION_STARVE = 0xf9,   /* flags: how many descriptors are left for it */
    ACTION_LEAVE = 0xf8,    /* the client closes its end; flags 16: nobody looks */
    ACTION_AGAIN = 0xf7,    /* another client, who says nothing yet */
    ACTION_TAKE = 0xf6,     /* the client reads so many KiB: flags, of our own endpoint's */
    ACTION_EVENTFDS = 0xf5, /* flags: which descriptors are sent as eventfds: see prepare */
    ACTION_RAW = 0xf4,      /* the client sends these bytes */
    ACTION_MSIX = 0xf3,     /* of our own function: enabled, or not */
};

enum { EVENTFD_KINDS = 5 };

struct peer {
    struct vfio_user_endpoint endpoint;
    int fd;
    bool open;
};

struct own {
    struct pci_function function;
    bool unmapping, resetting;
};

struct world {
    struct vtd_function vtd;
    struct edu edu;
    struct viommu_device *device;
    struct own own;
    struct peer unit_peer, edu_peer, own_peer;
    int twin;        /* the client's end, or -1 */
    unsigned starve; /* for the next command: so many descriptors and one; 0: as ever */
    unsigned alloc;  /* which of its allocations fails; 0: none */
    unsigned eventfd_kind;
};

static int ram_fd = -1;
static int event_fds[EVENTFD_KINDS];
static uint8_t *ram;

static void check(bool condition)
{
    if (!condition) {
        abort();
    }
}

/* ---- our own function ------------------------------------------------------------------------ */

static void own_read(void *opaque, unsigned bar, uint64_t offset, void *data, size_t size)
{
    (void)opaque;
    check(offset + size <= (bar == 0 ? 4096 : OWN_BAR2_SIZE));
    memset(data, 0x22, size);
}

static void own_write(void *opaque, unsigned bar, uint64_t offset, const void *data, size_t size)
{
    (void)opaque;
    check(offset + size <= (bar == 0 ? 4096 : OWN_BAR2_SIZE));
    (void)memchr(data, 0x7f, size);
}

static void own_config(void *opaque, uint64_t offset, size_t size)
{
    (void)opaque;
    check(offset + size <= PCI_CONFIG_SIZE && size > 0);
}

static void own_reset(void *opaque)
{
    (void)opaque;
}

static bool own_resetting(void *opaque)
{
    return ((struct own *)opaque)->resetting;
}

static int own_map(void *opaque, const struct pci_dma_region *region, int fd, void **cookie)
{
    (void)opaque;
    (void)fd;
    *cookie = (void *)(uintptr_t)region->first;
    return region->file_offset == BAD_OFFSET ? -EIO : 0;
}

static void own_unmap(void *opaque, uint64_t first, uint64_t last, void *cookie)
{
    (void)opaque;
    check(first <= last && (uintptr_t)cookie == (uintptr_t)first);
}

static bool own_unmapping(void *opaque)
{
    return ((struct own *)opaque)->unmapping;
}

static void own_init(struct own *own, bool few)
{
    static const struct pci_function_ops ops = {
        .bar_read = own_read,
        .bar_write = own_write,
        .config_reading = own_config,
        .config_written = own_config,
        .reset = own_reset,
        .resetting = own_resetting,
    };
    static const struct pci_memory_ops memory = {
        .map = own_map,
        .unmap = own_unmap,
        .unmapping = own_unmapping,
    };
    static const struct pci_ids ids = {.vendor = 1, .device = 2, .interrupt_pin = 1};

    own->function = (struct pci_function){
        .name = "own",
        .ops = &ops,
        .opaque = own,
        .memory = &memory,
        .memory_opaque = own,
        .memory_max = few ? OWN_REGIONS : 0,
    };
    pci_config_init(&own->function.config, &ids);
    pci_config_add_bar(&own->function.config, 0, 4096, PCI_BAR_MEMORY32, false);
    pci_config_add_bar(&own->function.config, 2, OWN_BAR2_SIZE, PCI_BAR_MEMORY64, false);
    pci_config_add_msi(&own->function.config, 4);
    pci_config_add_msix(&own->function.config, 8, 2, 0x1000, 0x2000);
}

/* ---- peers ----------------------------------------------------------------------------------- */

static void prepare(void)
{
    const uint64_t full = UINT64_MAX - 1;

    if (ram_fd >= 0) {
        return;
    }
    server_log_to(NULL);
    ram_fd = memfd_create("fuzz", MFD_CLOEXEC);
    event_fds[0] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    event_fds[1] = eventfd(0, EFD_CLOEXEC);
    event_fds[2] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    event_fds[3] = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC); /* its name is as long */
    event_fds[4] = open("/", O_PATH | O_CLOEXEC);
    for (unsigned i = 0; i < EVENTFD_KINDS; i++) {
        check(event_fds[i] >= 0);
    }
    check(write(event_fds[2], &full, sizeof(full)) == sizeof(full));
    support_feed_fds();
    check(ram_fd >= 0 && ftruncate(ram_fd, RAM_SIZE) == 0);
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

/* Reads so many bytes at most; a descriptor that comes is that of a twin socket. */
static ssize_t peer_take(struct world *world, struct peer *peer, size_t size)
{
    static uint8_t scrap[65536];
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec iov = {.iov_base = scrap, .iov_len = size < sizeof(scrap) ? size : sizeof(scrap)};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.room,
        .msg_controllen = sizeof(control.room),
    };
    ssize_t n = recvmsg(peer->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    const struct cmsghdr *cmsg = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;

    if (cmsg && cmsg->cmsg_type == SCM_RIGHTS) {
        if (world->twin >= 0) {
            close(world->twin);
        }
        memcpy(&world->twin, CMSG_DATA(cmsg), sizeof(world->twin));
    }
    return n;
}

static void peer_read_all(struct world *world, struct peer *peer)
{
    while (peer_take(world, peer, SIZE_MAX) > 0) {
        if (vfio_user_connection_flush(&peer->endpoint.connection) < 0) {
            break;
        }
    }
}

/* Let the server work; a connection that it gives up is made anew. */
static void serve(struct world *world, struct peer *peer)
{
    struct pci_function *function = peer->endpoint.function;

    int ret = vfio_user_endpoint_ready(&peer->endpoint);

    failing_alloc_at(0);
    support_feed_fds();
    if (ret < 0) {
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
    peer_read_all(world, peer);
}

/* ---- actions --------------------------------------------------------------------------------- */

static struct peer *choose(struct world *world, uint8_t flags)
{
    return flags & 2 ? &world->unit_peer : flags & 1 ? &world->edu_peer : &world->own_peer;
}

/* What a function asks of its bus. Nothing is waited for: an answer is there, or comes too late. */
static void use_bus(struct world *world, const uint8_t *data, size_t size)
{
    static uint8_t memory[65536];
    const struct pci_function *function = &world->own.function;
    const uint8_t operand = size > 1 ? data[1] : 0;
    const size_t amount = operand * 256u + (size > 2 ? data[2] : 0);

    switch (size > 0 ? data[0] : 0) {
    case 0:
        function->bus->message_interrupt(function->bus_opaque, operand);
        break;
    case 1:
        function->bus->line_interrupt(function->bus_opaque, operand & 1);
        break;
    case 2:
        (void)function->bus->write_message(function->bus_opaque, 0xfee00000, operand);
        break;
    case 3:
        (void)function->bus->read_memory(function->bus_opaque, 0x1000, memory, amount, 0);
        break;
    default:
        (void)function->bus->write_memory(function->bus_opaque, 0x1000, memory, amount, 0);
        break;
    }
}

static void use_twin(struct world *world, uint8_t flags, const uint8_t *data, size_t size)
{
    if (world->twin >= 0 && flags & 1) {
        close(world->twin);
        world->twin = -1;
    } else if (world->twin >= 0) {
        (void)!support_send_fds(world->twin, data, size, NULL, 0);
    }
}

static void peer_again(struct peer *peer)
{
    struct pci_function *function = peer->endpoint.function;

    peer_close(peer);
    check(vfio_user_endpoint_init(&peer->endpoint, function, -1) == -EBADF);
    check(vfio_user_endpoint_init(&peer->endpoint, function, event_fds[4]) == -EBADF);
    peer_open(peer, function);
}

static void act(struct world *world, enum action what, uint8_t flags, const uint8_t *data,
                size_t size)
{
    struct peer *peer = choose(world, flags);

    switch (what) {
    case ACTION_UNDER_WAY:
        world->own.unmapping = flags & 1;
        world->own.resetting = flags & 2;
        break;
    case ACTION_BUS:
        use_bus(world, data, size);
        break;
    case ACTION_TWIN:
        use_twin(world, flags, data, size);
        break;
    case ACTION_UPDATE:
        vfio_user_endpoint_update(&peer->endpoint);
        check((vfio_user_endpoint_events(&peer->endpoint) & ~0x5u) == 0);
        break;
    case ACTION_ALLOC:
        world->alloc = flags;
        break;
    case ACTION_STARVE:
        world->starve = flags + 1u;
        break;
    case ACTION_LEAVE:
        shutdown(peer->fd, SHUT_RDWR);
        if (!(flags & 16)) {
            serve(world, peer);
        }
        break;
    case ACTION_AGAIN:
        peer_again(peer);
        break;
    case ACTION_TAKE:
        (void)peer_take(world, &world->own_peer, flags * 1024u);
        serve(world, &world->own_peer);
        break;
    case ACTION_EVENTFDS:
        world->eventfd_kind = flags % EVENTFD_KINDS;
        break;
    case ACTION_RAW:
        peer_send(peer, data, size, NULL, 0);
        serve(world, peer);
        break;
    case ACTION_MSIX:
        world->own.function.config.value[world->own.function.config.msix + PCI_MSIX_FLAGS + 1] ^=
            PCI_MSIX_FLAGS_ENABLE >> 8;
        break;
    default:
        break;
    }
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
    struct peer *peer = what & OWN         ? &world->own_peer
                        : flags & FLAG_EDU ? &world->edu_peer
                                           : &world->unit_peer;
    uint8_t message[sizeof(struct vfio_user_header) + MESSAGE_MAX];
    struct vfio_user_header header = {
        .command = what & ~OWN,
        .size = (uint32_t)(sizeof(header) + size),
        .flags = flags & FLAG_NO_REPLY ? VFIO_USER_NO_REPLY : 0,
    };
    int fds[16];
    unsigned n_fds = 0;

    if (what == POKE) {
        poke(data, size);
        return;
    }
    if (what >= ACTION_MSIX) {
        act(world, what, flags, data, size);
        return;
    }
    if (flags & FLAG_MEMORY_FD) {
        fds[n_fds++] = ram_fd;
    }
    for (unsigned i = 0; (flags & FLAG_EVENTFDS) && i <= (unsigned)flags >> 5; i++) {
        fds[n_fds++] = event_fds[world->eventfd_kind];
    }
    memcpy(message, &header, sizeof(header));
    memcpy(message + sizeof(header), data, size);
    peer_send(peer, message, header.size, fds, n_fds);
    if (world->starve) {
        support_starve_fds(ram_fd, world->starve - 1);
    }
    failing_alloc_at(world->alloc);
    serve(world, peer);
    world->alloc = world->starve = 0;
    if (!(flags & FLAG_UNREAD)) {
        peer_read_all(world, peer);
        peer_read_all(world, &world->unit_peer);
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
        peer_read_all(world, peer);
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
    own_init(&world->own, mode & MODE_FEW);
    peer_open(&world->own_peer, &world->own.function);
    world->twin = -1;
}

static void close_world(struct world *world)
{
    peer_close(&world->own_peer);
    peer_close(&world->edu_peer);
    peer_close(&world->unit_peer);
    if (world->twin >= 0) {
        close(world->twin);
    }
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
