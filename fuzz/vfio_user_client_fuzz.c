/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzzes the vfio-user client: what a far server may say, at any time, on both of its sockets,
 * while a mirror follows a guest's tables, commands are sent, and DMA is asked for.
 *
 * The first two bytes choose the world, and what the server says first. Then operations: bytes as
 * they are, messages with a header that is half right, answers to what came last or earlier, and a
 * server that for once does what it is asked; the guest, who maps and invalidates; the embedder,
 * who also gives what is no socket, asks for what cannot be, and calls a subscription's functions
 * as the unit would. An allocation of any of them may fail, so may a system call, and there may be
 * no descriptor left.
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
#include "far_server.h"
#include "support/fds.h"
#include "support/guest.h"

#include <base/alloc.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vfio_user/protocol.h"

enum {
    HASTY_MS = 3,

    RAM_PAGES = 64,
    FIRST_DATA = 32,
    DATA_PAGES = 16,
    SECRET_PAGE = 48,
    REQUESTER = 0x28,
    DOMAIN = 3,
};

struct world {
    struct guest guest;
    struct viommu_device *device;
    struct viommu_vfio_user *client;
    struct viommu_subscriber *mirror;
    uint8_t fail_at; /* which allocation of the next operation fails; 0: none */
    uint64_t table;
    uint64_t clock;
    unsigned replies;
    unsigned flood; /* each reply that the embedder hears of brings the next one, so many times */
    size_t flood_size;
    bool chatty; /* the embedder sends a command where it hears of an interrupt */
    struct {
        int error; /* of the next call of these that is the client's; 0: it is made */
        bool epoll;
    } failing;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct world world;
static uint8_t *ram;

/* None, and one of a file that is not open. */
static const int no_fd = 1 << 20;
static int path_fd = -1;
static int two_fds[2];

static int process_client(void)
{
    return world.client ? viommu_vfio_user_process(world.client) : -ENOTCONN;
}

static void prepare(void)
{
    if (far.memory_fd >= 0) {
        return;
    }
    far.memory_fd = memfd_create("fuzz", MFD_CLOEXEC);
    far.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    far.datagram_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    far.inet_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0); /* one of streams is put aside */
    path_fd = open("/", O_PATH | O_CLOEXEC);
    two_fds[0] = two_fds[1] = far.event_fd;
    support_feed_fds();
    far.process = process_client;
    far_check(far.memory_fd >= 0 && far.event_fd >= 0 && far.datagram_fd >= 0 &&
                  ftruncate(far.memory_fd, RAM_PAGES * GUEST_PAGE) == 0 &&
                  getrandom(far.secret, sizeof(far.secret), 0) == sizeof(far.secret),
              "files");
    ram = mmap(NULL, RAM_PAGES * GUEST_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, far.memory_fd, 0);
    far_check(ram != MAP_FAILED, "memory");
}

/* ---- what fails ------------------------------------------------------------------------------ */

/* In place of the C library's. What the server sends does not fail so. */
ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
    if (world.failing.error && !world.failing.epoll && fd != far.fd && fd != far.twin) {
        errno = world.failing.error;
        world.failing.error = 0;
        return -1;
    }
    return syscall(SYS_sendmsg, fd, msg, flags);
}

int epoll_ctl(int epoll, int op, int fd, struct epoll_event *event)
{
    if (world.failing.error && world.failing.epoll) {
        errno = world.failing.error;
        world.failing.error = 0;
        return -1;
    }
    return (int)syscall(SYS_epoll_ctl, epoll, op, fd, event);
}

/* ---- our side -------------------------------------------------------------------------------- */

static void on_ready(void *opaque)
{
    (void)opaque;
    far_check(viommu_vfio_user_process(world.client) == 0, "processing in the midst of that");
}

static void on_failed(void *opaque, int error)
{
    (void)opaque;
    far_check(error < 0, "failed without an error");
    far_check(viommu_vfio_user_process(world.client) == error, "failed, and goes on");
    far_check(viommu_vfio_user_send(world.client, VFIO_USER_DEVICE_RESET, NULL, 0, NULL, 0, NULL, 0,
                                    NULL, NULL) == -EPIPE,
              "failed, and sends");
}

/* Passes on to the unit what it would have heard. */
static void on_answered(void *opaque, uint64_t token, int status)
{
    (void)opaque;
    far_check(status <= 0, "how a change ended");
    (void)viommu_change_complete(world.guest.iommu, token, status);
}

static void on_interrupt(void *opaque, const struct viommu_interrupt *interrupt)
{
    (void)opaque;
    (void)interrupt;
    if (world.chatty && world.client) {
        (void)viommu_vfio_user_send(world.client, VFIO_USER_DEVICE_RESET, NULL, 0, NULL, 0, NULL, 0,
                                    NULL, NULL);
    }
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
    (void)viommu_vfio_user_process(world.client);
    if (world.flood && far.fd >= 0) {
        world.flood--;
        far_answer_one(world.flood, 0, 0, world.flood_size);
    }
}

static void subscribe(void)
{
    struct viommu_subscription what;

    if (!world.mirror && (far.mode & FAR_MIRROR) &&
        viommu_vfio_user_subscription(world.client, &what) == 0) {
        (void)viommu_device_subscribe(world.device, &what, &world.mirror);
    }
}

/* `bare`: nobody wants to hear of it, but of how changes end. */
static void connect_client(struct fuzz_input *input, bool bare)
{
    struct viommu_vfio_user_config config = {
        .device = world.device,
        .isolate = far.mode & FAR_ISOLATE,
        .mappings_max = far.mode & FAR_FEW ? 3
                        : bare             ? 100
                                           : 0,
        .timeout_ms = far.mode & FAR_HASTY ? HASTY_MS : 0,
        .ready = bare ? NULL : on_ready,
        .failed = bare ? NULL : on_failed,
        .answered = bare ? on_answered : NULL,
        .opaque = &world,
    };
    int pair[2], ret;

    far_check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0,
              "pair");
    config.fd = pair[1];
    far.fd = pair[0];
    world.failing.error = 0;
    base_alloc_fail_at(world.fail_at);
    ret = viommu_vfio_user_create(&config, &world.client);
    if (ret == -ENOMEM && world.fail_at) {
        ret = viommu_vfio_user_create(&config, &world.client); /* the socket is ours still */
    }
    base_alloc_fail_at(0);
    guest_ok(ret, "client");
    if (!(far.mode & FAR_SILENT)) {
        far_behave(input);
        (void)viommu_vfio_user_process(world.client);
    }
}

static void disconnect_client(void)
{
    guest_ok(viommu_subscriber_destroy(world.mirror), "unsubscribe");
    world.mirror = NULL;
    viommu_vfio_user_destroy(world.client);
    world.client = NULL;
    world.replies = world.flood = 0;
    far_close_end(&far.fd);
    far_close_end(&far.twin);
}

static void send_command(struct fuzz_input *input, uint8_t kind)
{
    static uint8_t payload[70000];
    size_t size = kind & 1 ? fuzz_number(input, 2) : kind;
    unsigned fds = kind & 2 && !(far.mode & FAR_ISOLATE);

    /* More than can be: none of it is looked at. */
    if (viommu_vfio_user_send(world.client, fuzz_byte(input), payload,
                              kind == 0xff ? SIZE_MAX : size, payload,
                              kind == 0xf7 ? SIZE_MAX : kind & 31,
                              kind == 0xd7   ? &no_fd
                              : kind == 0xdf ? two_fds
                                             : &far.event_fd,
                              kind == 0xef   ? 1000
                              : kind == 0xe7 ? 9
                              : kind == 0xdf ? 2
                                             : fds,
                              kind & 4 ? on_reply : NULL, NULL) == 0 &&
        kind & 4) {
        world.replies++;
    }
}

/* What makes no sense is refused, and nothing comes of it. */
static void misuse(void)
{
    struct viommu_vfio_user_config config = {.device = world.device, .fd = far.event_fd};
    struct viommu_vfio_user *none = NULL;

    far_check(viommu_vfio_user_create(NULL, &none) == -EINVAL, "no configuration");
    far_check(viommu_vfio_user_create(&config, NULL) == -EINVAL, "nowhere to put it");
    config.fd = -1;
    far_check(viommu_vfio_user_create(&config, &none) == -EINVAL, "no socket");
    config.fd = far.event_fd;
    config.device = NULL;
    far_check(viommu_vfio_user_create(&config, &none) == -EINVAL, "no device");
    far_check(!none, "a client of nothing");
    viommu_vfio_user_destroy(NULL);
    for (unsigned i = 0; i < 3; i++) {
        far_check(viommu_vfio_user_send(world.client, VFIO_USER_REGION_READ, NULL, i == 0, NULL,
                                        i == 1, NULL, i == 2, NULL, NULL) < 0,
                  "bytes or descriptors of nowhere");
    }
}

/* Another client, for a moment: of what is no such socket, or of one that is full or left. */
static void other_client(uint8_t kind, unsigned left)
{
    static const uint8_t filling[4096];
    struct viommu_vfio_user_config config = {.device = world.device};
    struct viommu_vfio_user *other;
    int pair[2], ret;

    far_check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0,
              "pair");
    config.fd = pair[1];
    switch (kind & 7) {
    case 0: /* no descriptor */
        config.fd = no_fd;
        break;
    case 1: /* one that cannot be watched */
        config.fd = far.memory_fd;
        break;
    case 2: /* one with which nothing can be done */
        config.fd = path_fd;
        break;
    case 3: /* who left */
        far_close_end(&pair[0]);
        break;
    case 4: /* who does not read */
        while (send(pair[1], filling, sizeof(filling), MSG_DONTWAIT) > 0) {
        }
        break;
    default:
        break;
    }
    base_alloc_fail_at(world.fail_at);
    if (left) {
        support_starve_fds(far.memory_fd, left - 1);
    }
    ret = viommu_vfio_user_create(&config, &other);
    support_feed_fds();
    base_alloc_fail_at(0);
    if (ret == 0) {
        ret = viommu_vfio_user_process(other);
        far_check(pair[0] >= 0 || ret < 0, "it is not seen to have left");
        viommu_vfio_user_destroy(other);
        far_check(fcntl(config.fd, F_GETFD) < 0, "the socket is not closed");
    } else {
        close(pair[1]);
    }
    far_close_end(&pair[0]);
}

/* What the unit may call, called by the embedder. */
static void call_change(struct fuzz_input *input)
{
    static const enum viommu_change_kind kinds[] = {
        VIOMMU_CHANGE_MAP, VIOMMU_CHANGE_UNMAP, VIOMMU_CHANGE_REPLACE, VIOMMU_CHANGE_DEVICE_TLB};
    uint8_t how = fuzz_byte(input);
    uint64_t first = fuzz_byte(input) * (uint64_t)GUEST_PAGE;
    struct viommu_subscription what;
    struct viommu_change change = {
        .kind = kinds[how & 3],
        .first = first,
        .last = how & 4 ? first + (UINT64_C(1) << 43) : first + GUEST_PAGE - 1,
        .perm = how >> 6,
        .fd = how & 8    ? -1
              : how & 16 ? no_fd
                         : far.memory_fd,
        .token = first,
    };

    if (viommu_vfio_user_subscription(world.client, &what) == 0) {
        int ret = how & 32 ? what.fence(what.opaque) : what.change(what.opaque, &change);

        far_check(ret <= 0 || ret == VIOMMU_PENDING, "an answer to a change");
    }
}

/* ---- the guest ------------------------------------------------------------------------------- */

static void map(struct fuzz_input *input)
{
    uint8_t first = fuzz_byte(input);
    uint8_t kind = fuzz_byte(input);

    for (unsigned i = 0; i < 1u + (kind >> 2 & 7); i++) {
        uint64_t gpa = FIRST_DATA + ((kind & 128 ? i * 7 : i) + first) % DATA_PAGES;

        guest_map(&world.guest, world.table, 3, FAR_BASE + ((first + i) % 64) * GUEST_PAGE,
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
        far_check(i < 1000, "an invalidation does not complete");
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
        .last = RAM_PAGES * GUEST_PAGE - 1,
        .host = ram,
        .fd = mode & FAR_NO_FILE ? -1 : far.memory_fd,
    };
    struct viommu_device_config device = {.requester = REQUESTER};
    struct guest_config config = {.vtd = {.caching_mode = caching},
                                  .callbacks = {.interrupt = on_interrupt},
                                  .opaque = &world,
                                  .clock = on_clock,
                                  .iotlb_entries = 256,
                                  .ram_pages = RAM_PAGES,
                                  .ram = ram};

    memset(&world, 0, sizeof(world));
    far_begin(mode);
    world.clock = 1000000000;
    memset(ram, 0, RAM_PAGES * GUEST_PAGE);
    memcpy(ram + SECRET_PAGE * GUEST_PAGE + 40, far.secret, sizeof(far.secret));
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
        far_check(page[i] == (i >= 40 && i < 40 + FAR_SECRET_SIZE ? far.secret[i - 40] : 0),
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
    far_check(viommu_vfio_user_transfer_max(world.client) <= VFIO_USER_MAX_DATA,
              "largest transfer");
    far_check(viommu_vfio_user_fds_max(world.client) <= VFIO_USER_MAX_FDS, "most descriptors");
    viommu_vfio_user_statistics(world.client, &statistics, sizeof(statistics));
    viommu_vfio_user_statistics(world.client, &statistics, sizeof(statistics.maps));
}

static void step(struct fuzz_input *input);

/* The next operation, where it is the client's, with few descriptors left. */
static void step_starved(struct fuzz_input *input, unsigned left)
{
    uint8_t op = input->size ? input->data[0] & 15 : 0;
    bool ours = op == 8 || op == 9 || op == 13 || (op == 15 && input->data[0] >> 4 == 2);

    if (ours) {
        support_starve_fds(far.memory_fd, left);
        step(input);
        support_feed_fds();
    }
}

static void more(struct fuzz_input *input, uint8_t kind)
{
    static const int errors[] = {EINTR, ENFILE, ETOOMANYREFS, ENOBUFS, EMFILE, ENOMEM, EIO, EPIPE};
    uint8_t n;

    switch (kind) {
    case 0:
        misuse();
        break;
    case 1:
        step_starved(input, fuzz_byte(input));
        break;
    case 2:
        call_change(input);
        break;
    case 3:
        far_answer_earlier(input);
        break;
    case 4:
        n = fuzz_byte(input);
        world.failing.error = errors[n & 7];
        world.failing.epoll = n & 8;
        break;
    case 5:
        n = fuzz_byte(input) % FAR_PAST;
        world.flood = n;
        world.flood_size = fuzz_number(input, 3) % (FAR_MESSAGE_MAX - 1024);
        far_answer_one(n, 0, 0, world.flood_size);
        break;
    case 6:
        world.chatty = !world.chatty;
        break;
    case 7: /* bytes of the input, with descriptors */
        n = fuzz_byte(input);
        far_say_with(input, n, fuzz_byte(input) & 31);
        break;
    default:
        break;
    }
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
        far_say(input, fuzz_byte(input));
        break;
    case 4:
        far_behave(input);
        break;
    case 5:
        (void)far_receive(kind & 1 ? far.twin : far.fd);
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
        if (kind == 15 && far.mode & FAR_HASTY) {
            usleep(1000 * (HASTY_MS + 1));
        }
        break;
    case 11:
        guest_ok(viommu_device_reset(world.device), "device reset");
        break;
    case 12:
        if (kind < 4) {
            disconnect_client();
            connect_client(input, kind & 1);
        } else if (kind < 8) {
            far_close_end(kind & 1 ? &far.twin : &far.fd);
        } else {
            other_client(kind, fuzz_byte(input));
        }
        break;
    case 15:
        more(input, kind);
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
    open_world(mode, mode & FAR_MIRROR);
    connect_client(&input, false);
    while (fuzz_more(&input)) {
        step(&input);
    }
    close_world();
    far_check(support_open_fds() == fds, "descriptors leak");
    return 0;
}
