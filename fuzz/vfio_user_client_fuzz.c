/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzzes the vfio-user client: what a far server may say, at any time, on both of its sockets,
 * while a mirror follows a guest's tables, commands are sent, and DMA is asked for.
 *
 * The first two bytes choose the world, and what the server says first. Then operations: bytes as
 * they are, messages with a header that is half right, answers to what came last, and a server that
 * for once does what it is asked; the guest, who maps and invalidates; the embedder. An allocation
 * of any of them may fail.
 *
 * At the end everything is taken down. Nothing may leak, descriptors neither; the guest's
 * invalidation completes, whatever the server did; and a page that no table ever leads to was
 * neither written nor read. A file of memory is given to the server without `isolate`, but it is
 * not malice of that kind that is looked for here: only what the client does.
 *
 * Memory: 64 pages. Tables are in the first half, what is mapped in pages 32 to 47; page 48 is the
 * one that is not.
 */
#include "bytes.h"
#include "support/fds.h"
#include "support/guest.h"

#include <base/alloc.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vfio_user/protocol.h"

enum {
    MODE_ISOLATE = 1,
    MODE_MIRROR = 2,
    MODE_TWIN = 4,   /* the server has one, and says so */
    MODE_SILENT = 8, /* VERSION is not answered but by the input */
    MODE_TEXT = 16,  /* what the server says of itself is the input's */
    MODE_FEW = 32,   /* few mappings */
    MODE_HASTY = 64, /* a millisecond is all that it may take to answer */

    RAM_PAGES = 64,
    FIRST_DATA = 32,
    DATA_PAGES = 16,
    SECRET_PAGE = 48,
    SECRET_SIZE = 16,
    REQUESTER = 0x28,
    DOMAIN = 3,
    MESSAGE_MAX = 65536,
};

#define BASE UINT64_C(0x40000000)

struct world {
    struct guest guest;
    struct viommu_device *device;
    struct viommu_vfio_user *client;
    struct viommu_subscriber *mirror;
    uint8_t mode;
    uint8_t fail_at; /* which allocation of the next operation fails; 0: none */
    bool ready;
    uint64_t table;
    uint64_t clock;
    int fd; /* the server's ends, or -1 */
    int twin;
    struct vfio_user_header last; /* the last command that came */
    struct vfio_user_dma_unmap last_unmap;
    unsigned replies;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct world world;
/* What a server can send: memory, an eventfd, and sockets of other kinds than the twin's. */
static int memory_fd = -1, event_fd = -1, datagram_fd = -1, inet_fd = -1;
static uint8_t *ram;
static uint8_t secret[SECRET_SIZE];
static uint8_t message[MESSAGE_MAX];

static void check(bool condition, const char *what)
{
    if (!condition) {
        guest_die("%s", what);
    }
}

static void prepare(void)
{
    if (memory_fd >= 0) {
        return;
    }
    memory_fd = memfd_create("fuzz", MFD_CLOEXEC);
    event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    datagram_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    inet_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0); /* one of streams is put aside */
    check(memory_fd >= 0 && event_fd >= 0 && datagram_fd >= 0 &&
              ftruncate(memory_fd, RAM_PAGES * GUEST_PAGE) == 0 &&
              getrandom(secret, sizeof(secret), 0) == sizeof(secret),
          "files");
    ram = mmap(NULL, RAM_PAGES * GUEST_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd, 0);
    check(ram != MAP_FAILED, "memory");
}

/* ---- the server ------------------------------------------------------------------------------ */

static void close_end(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

static void send_bytes(int fd, const void *data, size_t size, const int *fds, unsigned n_fds)
{
    /* A socket that is full takes nothing, or a part: both are fine. */
    if (fd >= 0) {
        (void)!support_send_fds(fd, data, size, fds, n_fds);
    }
}

/* A message of which the input gives the payload, in front of it what is given. */
static void send_message(int fd, struct vfio_user_header header, const void *first,
                         size_t first_size, struct fuzz_input *input, size_t size, unsigned n_fds)
{
    const int some[] = {memory_fd, event_fd, datagram_fd, inet_fd < 0 ? event_fd : inet_fd};
    int fds[16];

    size = size < input->size ? size : input->size;
    header.size = (uint32_t)(sizeof(header) + first_size + size);
    memcpy(message, &header, sizeof(header));
    if (first_size) {
        memcpy(message + sizeof(header), first, first_size);
    }
    memcpy(message + sizeof(header) + first_size, input->data, size);
    input->data += size;
    input->size -= size;
    for (unsigned i = 0; i < n_fds; i++) {
        fds[i] = some[i % 4];
    }
    send_bytes(fd, message, header.size, fds, n_fds);
}

/*
 * Looks through what came for what nobody may know; byte by byte: what is given to memmem the
 * fuzzer sees, and puts into its inputs, and so a server may know it.
 */
static void look_for_secret(const uint8_t *data, size_t size)
{
    for (size_t i = 0; i + SECRET_SIZE <= size; i++) {
        size_t same = 0;

        while (same < SECRET_SIZE && data[i + same] == secret[same]) {
            same++;
        }
        check(same < SECRET_SIZE, "the secret page was read");
    }
}

/* Takes a message in; descriptors are dropped. False when there is none. */
static bool receive(int fd)
{
    union {
        char room[CMSG_SPACE(VFIO_USER_MAX_FDS * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct vfio_user_header header;
    struct iovec iov = {.iov_base = &header, .iov_len = sizeof(header)};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.room,
                         .msg_controllen = sizeof(control.room)};
    size_t left;

    if (fd < 0 || recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != sizeof(header)) {
        return false;
    }
    for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg); cmsg; cmsg = CMSG_NXTHDR(&msg, cmsg)) {
        for (size_t i = 0; i < (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
            int got;

            memcpy(&got, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(got));
            close(got);
            check(!(world.mode & MODE_ISOLATE) || header.command == VFIO_USER_DEVICE_SET_IRQS,
                  "a file was passed in spite of isolation");
        }
    }
    check(header.size >= sizeof(header), "our own header");
    left = header.size - sizeof(header);
    if ((header.flags & VFIO_USER_TYPE_MASK) == VFIO_USER_TYPE_COMMAND) {
        world.last = header;
    }
    while (left) {
        ssize_t n =
            recv(fd, message, left < sizeof(message) ? left : sizeof(message), MSG_DONTWAIT);

        if (n <= 0) {
            if (!world.client || viommu_vfio_user_process(world.client) < 0) {
                /* It was cut off in the middle of a message: what came of it is no header. */
                close_end(fd == world.fd ? &world.fd : &world.twin);
                return false;
            }
            continue;
        }
        look_for_secret(message, (size_t)n);
        if (header.command == VFIO_USER_DMA_UNMAP && (size_t)n >= sizeof(world.last_unmap)) {
            memcpy(&world.last_unmap, message, sizeof(world.last_unmap));
        }
        left -= (size_t)n;
    }
    return true;
}

static void answer_version(struct fuzz_input *input)
{
    static const char usual[] =
        "\0\0\0\0{\"capabilities\":{\"max_msg_fds\":8,\"max_dma_maps\":50}}";
    static const char with_twin[] =
        "\0\0\0\0{\"capabilities\":{\"twin_socket\":{\"supported\":true,\"fd_index\":0}}}";
    struct vfio_user_header header = world.last;
    bool twin = world.mode & MODE_TWIN;
    const char *text = twin ? with_twin : usual;
    size_t size = twin ? sizeof(with_twin) : sizeof(usual);
    int pair[2];

    header.flags = VFIO_USER_TYPE_REPLY;
    if (world.mode & MODE_TEXT) {
        send_message(world.fd, header, "\0\0\0", 4, input, fuzz_number(input, 2), 0);
        return;
    }
    header.size = (uint32_t)(sizeof(header) + size);
    memcpy(message, &header, sizeof(header));
    memcpy(message + sizeof(header), text, size);
    if (twin && world.twin < 0) {
        check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0,
              "pair");
        world.twin = pair[0];
        send_bytes(world.fd, message, header.size, &pair[1], 1);
        close(pair[1]);
    } else {
        send_bytes(world.fd, message, header.size, NULL, 0);
    }
}

/* Answers the last command as it should be. */
static void answer_well(struct fuzz_input *input)
{
    struct vfio_user_header header = world.last;

    if (header.command == VFIO_USER_VERSION) {
        answer_version(input);
        return;
    }
    header.flags = VFIO_USER_TYPE_REPLY;
    header.error = 0;
    send_message(world.fd, header, &world.last_unmap,
                 header.command == VFIO_USER_DMA_UNMAP ? sizeof(world.last_unmap) : 0, input, 0, 0);
}

/* Does all that it is asked. */
static void behave(struct fuzz_input *input)
{
    for (unsigned i = 0; i < 100; i++) {
        world.last.flags = VFIO_USER_NO_REPLY;
        if (!receive(world.fd)) {
            break;
        }
        if (!(world.last.flags & VFIO_USER_NO_REPLY)) {
            answer_well(input);
        }
    }
    while (receive(world.twin)) {
    }
}

static void say(struct fuzz_input *input, uint8_t kind)
{
    int fd = kind & 8 ? world.twin : world.fd;
    struct vfio_user_header header = {.id = kind};
    struct vfio_user_dma_access access;
    size_t size;

    switch (kind & 7) {
    case 0: /* bytes */
        size = fuzz_byte(input);
        size = size < input->size ? size : input->size;
        send_bytes(fd, input->data, size, &event_fd, kind >> 7);
        input->data += size;
        input->size -= size;
        break;
    case 1: /* a message of any kind; its number may be the last command's */
        header.id = kind & 128 ? world.last.id : kind;
        header.command = fuzz_byte(input);
        header.flags = fuzz_byte(input);
        header.error = fuzz_byte(input);
        send_message(fd, header, NULL, 0, input, fuzz_byte(input), kind >> 4);
        break;
    case 2: /* an answer to the last command, of any content */
        header = world.last;
        header.flags = VFIO_USER_TYPE_REPLY | (kind & 16 ? VFIO_USER_ERROR : 0);
        header.error = kind & 16 ? fuzz_byte(input) : 0;
        send_message(fd, header, NULL, 0, input, fuzz_byte(input), kind >> 5);
        break;
    case 3: /* or a good one */
        answer_well(input);
        break;
    default: /* DMA */
        header.command = kind & 1 ? VFIO_USER_DMA_READ : VFIO_USER_DMA_WRITE;
        header.flags = kind & 16 ? VFIO_USER_NO_REPLY : 0;
        access.address = kind & 32 ? fuzz_number(input, 8) : BASE + fuzz_number(input, 3) % 0x18000;
        access.count = kind & 64 ? fuzz_number(input, 8) : fuzz_number(input, 2);
        size = kind & 1 ? 0 : kind & 128 ? fuzz_byte(input) : access.count;
        send_message(fd, header, &access, sizeof(access), input, size < 60000 ? size : 60000, 0);
        break;
    }
}

/* ---- our side -------------------------------------------------------------------------------- */

static void on_ready(void *opaque)
{
    ((struct world *)opaque)->ready = true;
}

static void on_failed(void *opaque, int error)
{
    (void)opaque;
    check(error < 0, "failed without an error");
}

static uint64_t on_clock(void *opaque)
{
    return ((const struct world *)opaque)->clock;
}

static void on_reply(void *opaque, const struct viommu_vfio_user_reply *reply)
{
    uint8_t sum = 0;

    (void)opaque;
    world.replies--;
    for (size_t i = 0; i < reply->size; i++) {
        sum ^= ((const uint8_t *)reply->data)[i];
    }
    (void)sum;
    if (reply->fd_count) {
        close(reply->fds[0]);
        reply->fds[0] = -1;
    }
}

static void subscribe(void)
{
    struct viommu_subscription what;

    if (world.ready && !world.mirror && (world.mode & MODE_MIRROR) &&
        viommu_vfio_user_subscription(world.client, &what) == 0) {
        (void)viommu_device_subscribe(world.device, &what, &world.mirror);
    }
}

static void connect_client(struct fuzz_input *input)
{
    struct viommu_vfio_user_config config = {
        .device = world.device,
        .isolate = world.mode & MODE_ISOLATE,
        .mappings_max = world.mode & MODE_FEW ? 3 : 0,
        .timeout_ms = world.mode & MODE_HASTY ? 1 : 0,
        .ready = on_ready,
        .failed = on_failed,
        .opaque = &world,
    };
    int pair[2], ret;

    check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0, "pair");
    config.fd = pair[1];
    world.fd = pair[0];
    base_alloc_fail_at(world.fail_at);
    ret = viommu_vfio_user_create(&config, &world.client);
    if (ret == -ENOMEM && world.fail_at) {
        ret = viommu_vfio_user_create(&config, &world.client); /* the socket is ours still */
    }
    base_alloc_fail_at(0);
    guest_ok(ret, "client");
    if (!(world.mode & MODE_SILENT)) {
        behave(input);
        (void)viommu_vfio_user_process(world.client);
    }
}

static void disconnect_client(void)
{
    guest_ok(viommu_subscriber_destroy(world.mirror), "unsubscribe");
    world.mirror = NULL;
    viommu_vfio_user_destroy(world.client);
    world.client = NULL;
    world.ready = false;
    world.replies = 0;
    close_end(&world.fd);
    close_end(&world.twin);
}

static void send_command(struct fuzz_input *input, uint8_t kind)
{
    static uint8_t payload[70000];
    size_t size = kind & 1 ? fuzz_number(input, 2) : kind;
    unsigned fds = kind & 2 && !(world.mode & MODE_ISOLATE);

    /* More than can be: none of it is looked at. */
    if (viommu_vfio_user_send(world.client, fuzz_byte(input), payload,
                              kind == 0xff ? SIZE_MAX : size, payload,
                              kind == 0xf7 ? SIZE_MAX : kind & 31, &event_fd,
                              kind == 0xef   ? 1000
                              : kind == 0xe7 ? 9
                                             : fds,
                              kind & 4 ? on_reply : NULL, NULL) == 0 &&
        kind & 4) {
        world.replies++;
    }
}

/* ---- the guest ------------------------------------------------------------------------------- */

static void map(struct fuzz_input *input)
{
    uint8_t first = fuzz_byte(input);
    uint8_t kind = fuzz_byte(input);

    for (unsigned i = 0; i < 1u + (kind >> 2 & 7); i++) {
        uint64_t gpa = FIRST_DATA + ((kind & 128 ? i * 7 : i) + first) % DATA_PAGES;

        guest_map(&world.guest, world.table, 3, BASE + ((first + i) % 64) * GUEST_PAGE,
                  kind & 3 ? gpa * GUEST_PAGE : 0, 1, kind & 3);
    }
}

static void invalidate(void)
{
    struct guest *guest = &world.guest;

    guest_queue_put(guest, spec_iotlb_invalidate(SPEC_DOMAIN, DOMAIN, 0, 0, false));
    guest->status_value++;
    guest_queue_put(guest, spec_wait(SPEC_WAIT_STATUS, guest->status, guest->status_value));
    guest_queue_kick(guest);
}

static void process_unit(unsigned calls)
{
    for (unsigned i = 0; i < calls && viommu_process(world.guest.iommu, 0) == VIOMMU_PENDING; i++) {
    }
}

/* The queue has room for what follows: the last one may be 256 entries behind. */
static void settle(void)
{
    for (unsigned i = 0;
         (uint32_t)guest_load(&world.guest, world.guest.status) != world.guest.status_value; i++) {
        check(i < 1000, "an invalidation does not complete");
        process_unit(100);
        world.clock += 100000000;
        if (world.client) {
            (void)viommu_vfio_user_process(world.client);
        }
    }
}

static void open_world(uint8_t mode, bool caching)
{
    struct viommu_memory *memory;
    struct viommu_memory_batch *batch;
    struct viommu_memory_slot slot = {
        .last = RAM_PAGES * GUEST_PAGE - 1, .host = ram, .fd = memory_fd};
    struct viommu_device_config device = {.requester = REQUESTER};
    struct guest_config config = {.vtd = {.caching_mode = caching},
                                  .opaque = &world,
                                  .clock = on_clock,
                                  .iotlb_entries = 256,
                                  .ram_pages = RAM_PAGES,
                                  .ram = ram};

    memset(&world, 0, sizeof(world));
    world.mode = mode;
    world.fd = world.twin = -1;
    world.clock = 1000000000;
    memset(ram, 0, RAM_PAGES * GUEST_PAGE);
    memcpy(ram + SECRET_PAGE * GUEST_PAGE + 40, secret, sizeof(secret));
    guest_ok(viommu_memory_create(&memory), "memory");
    guest_ok(viommu_memory_batch_begin(memory, &batch), "batch");
    guest_ok(viommu_memory_batch_add(batch, &slot), "slot");
    guest_ok(viommu_memory_batch_commit(batch, NULL, NULL), "commit");
    config.memory = memory;
    guest_ok(guest_init(&world.guest, &config), "guest");
    guest_ok(viommu_device_add(world.guest.iommu, &device, &world.device), "device");
    guest_set_root(&world.guest);
    guest_queue_on(&world.guest);
    world.table = guest_page(&world.guest);
    guest_attach(&world.guest, REQUESTER, DOMAIN, world.table, 3, SPEC_TT_UNTRANSLATED);
    guest_command(&world.guest, SPEC_TE, true);
}

static void close_world(void)
{
    uint8_t *page = ram + SECRET_PAGE * GUEST_PAGE;
    struct viommu_memory *memory = world.guest.memory;

    settle();
    disconnect_client();
    settle();
    for (unsigned i = 0; i < GUEST_PAGE; i++) {
        check(page[i] == (i >= 40 && i < 40 + SECRET_SIZE ? secret[i - 40] : 0),
              "the secret page was written");
    }
    guest_ok(viommu_device_remove(world.device), "device");
    guest_fini(&world.guest);
    viommu_memory_destroy(memory);
}

static void look(void)
{
    struct viommu_vfio_user_statistics statistics;
    struct viommu_subscription what;

    (void)viommu_vfio_user_subscription(world.client, &what);
    check(viommu_vfio_user_transfer_max(world.client) <= VFIO_USER_MAX_DATA, "largest transfer");
    viommu_vfio_user_statistics(world.client, &statistics, sizeof(statistics));
    viommu_vfio_user_statistics(world.client, &statistics, sizeof(statistics.maps));
}

static void step(struct fuzz_input *input)
{
    uint8_t op = fuzz_byte(input);
    uint8_t kind = op >> 4;

    world.fail_at = 0;
    if ((op & 15) == 14) {
        world.fail_at = 1 + kind % 8;
        op = fuzz_byte(input);
        kind = op >> 4;
        /* To begin anew is the embedder's, who would try again. */
        base_alloc_fail_at((op & 15) == 11 || (op & 15) == 12 ? 0 : world.fail_at);
    }
    switch (op & 15) {
    case 0:
    case 1:
    case 2:
    case 3:
        say(input, fuzz_byte(input));
        break;
    case 4:
        behave(input);
        break;
    case 5:
        (void)receive(kind & 1 ? world.twin : world.fd);
        break;
    case 6:
        map(input);
        break;
    case 7:
        settle();
        invalidate();
        break;
    case 8:
        process_unit(1 + kind);
        break;
    case 9:
        send_command(input, fuzz_byte(input));
        break;
    case 10:
        world.clock += kind * 50000000ull;
        if (kind == 15 && world.mode & MODE_HASTY) {
            usleep(2000);
        }
        break;
    case 11:
        guest_ok(viommu_device_reset(world.device), "device reset");
        break;
    case 12:
        if (kind < 4) {
            disconnect_client();
            connect_client(input);
        } else if (kind < 8) {
            close_end(kind & 1 ? &world.twin : &world.fd);
        }
        break;
    default:
        (void)viommu_vfio_user_process(world.client);
        subscribe();
        look();
        break;
    }
    base_alloc_fail_at(0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {.data = data, .size = size};
    unsigned fds;
    uint8_t mode;

    prepare();
    fds = support_open_fds();
    mode = fuzz_byte(&input);
    open_world(mode, mode & MODE_MIRROR);
    connect_client(&input);
    while (fuzz_more(&input)) {
        step(&input);
    }
    close_world();
    check(support_open_fds() == fds, "descriptors leak");
    return 0;
}
