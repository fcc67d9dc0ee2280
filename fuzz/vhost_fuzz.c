/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzzes what a vhost-user back-end may send, on both of its sockets, and what the kernel's vhost
 * may: raw bytes, in pieces and with descriptors; answers that are right, or nearly; floods of
 * questions; sockets that are closed. Behind it is a small guest, which maps, unmaps, invalidates,
 * starts and stops rings; memory comes and goes, time passes, devices are reset, allocations fail.
 *
 * Held: what is sent is well formed and of a bounded amount; no descriptor is left open; when all
 * is over no invalidation is left that waits, and no removal of memory.
 *
 * The first byte says how it begins; then each operation is a byte, the low four bits what, and
 * where the highest is set the next four say which allocation fails in it.
 */
#include "bytes.h"
#include "support/guest.h"

#include <base/alloc.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include <vhost/private.h>
#include <viommu/vhost.h>

#define PAGES     64
#define PIECES    16
#define LEVELS    3
#define BASE      0x100000ull
#define REQUESTER 0x18
#define LARGE     0x200000ull   /* a large page of the guest's */
#define EXTRA     0x40000000ull /* a slot that comes and goes: the last pages of the file */
#define OWED_MAX  256
#define FDS_MAX   128
#define MS        UINT64_C(1000000)

/* The first byte. */
enum {
    START_KERNEL = 1,
    START_RINGS = 2,  /* negotiated, with two rings that run */
    START_SMALL = 4,  /* it lacks features */
    START_WRITES = 8, /* who may write may read */
    START_FILES = 16, /* memory lies in many pieces of its file; the last is read-only */
    START_MANY = 32,  /* four rings are wanted */
    START_FAILS = 64, /* the next bytes: allocations that fail when it is created */
};

enum operation {
    OP_RAW = 0,
    OP_ANSWER,
    OP_LIE,
    OP_MISS,
    OP_FDS,
    OP_MAP,
    OP_FLUSH,
    OP_RING,
    OP_PROCESS,
    OP_TIME,
    OP_MEMORY,
    OP_RECONNECT,
    OP_DEVICE,
    OP_READ,
    OP_CLOSE,
    OP_TABLES,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct owed {
    uint32_t request;
    bool question;
};

struct bed {
    struct guest guest;
    struct viommu_device *device;
    struct viommu_vhost *vhost;
    uint64_t clock;
    uint64_t table;
    bool kernel;
    bool small;
    int far[2]; /* its ends of both sockets */
    struct owed owed[OWED_MAX];
    unsigned owed_count;
    bool extra_there;
    bool extra_leaves;
};

static int ram_fd = -1;
static int other_fd = -1;
static uint8_t *ram;

/* The kernel's. */
int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;

    (void)fd;
    (void)request;
    va_start(arguments, request);
    *va_arg(arguments, uint64_t *) = 2; /* messages of version 2 */
    va_end(arguments);
    return 0;
}

static unsigned open_fds(void)
{
    unsigned count = 0;

    for (int fd = 0; fd < FDS_MAX; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

static uint64_t on_clock(void *opaque)
{
    return ((struct bed *)opaque)->clock;
}

/* ---- the far side ---- */

static void take_fds(struct bed *bed, struct msghdr *msg, uint32_t request)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        for (size_t i = 0; i < count; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
            if (request == VHOST_USER_SET_BACKEND_REQ_FD && bed->far[1] < 0) {
                bed->far[1] = fd;
            } else {
                close(fd);
            }
        }
    }
}

static bool is_question(uint32_t request)
{
    return request == VHOST_USER_GET_FEATURES || request == VHOST_USER_GET_PROTOCOL_FEATURES ||
           request == VHOST_USER_GET_QUEUE_NUM || request == VHOST_USER_GET_VRING_BASE;
}

/* Reads one message, which is well formed. Returns false where there is none. */
static bool read_message(struct bed *bed)
{
    union {
        char room[CMSG_SPACE(64 * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct vhost_user_header header;
    uint8_t payload[512];
    struct iovec iov = {&header, sizeof(header)};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.room,
                         .msg_controllen = sizeof(control.room)};
    ssize_t n = bed->far[0] < 0 ? -1 : recvmsg(bed->far[0], &msg, MSG_DONTWAIT);

    if (n <= 0) {
        return false;
    }
    take_fds(bed, &msg, header.request);
    if (n != sizeof(header) || (header.flags & ~8u) != 1 || header.size > sizeof(payload) ||
        (header.size && recv(bed->far[0], payload, header.size, MSG_DONTWAIT) != header.size)) {
        guest_die("message %u, flags %u, size %u", header.request, header.flags, header.size);
    }
    if ((is_question(header.request) || (header.flags & VHOST_USER_NEED_REPLY)) &&
        bed->owed_count < OWED_MAX) {
        bed->owed[bed->owed_count++] = (struct owed){header.request, is_question(header.request)};
    }
    return true;
}

static void read_all(struct bed *bed)
{
    struct vhost_msg_v2 message;

    if (bed->kernel) {
        while (bed->far[0] >= 0 && recv(bed->far[0], &message, sizeof(message), MSG_DONTWAIT) > 0) {
            if (message.type != VHOST_IOTLB_MSG_V2 || !message.iotlb.size) {
                guest_die("a message to the kernel: %u", message.type);
            }
        }
        return;
    }
    while (read_message(bed)) {
        /* one after the other */
    }
}

static void send_bytes(struct bed *bed, unsigned socket, const void *bytes, size_t size)
{
    if (bed->far[socket] >= 0 && size) {
        (void)!send(bed->far[socket], bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
}

static void send_answer(struct bed *bed, uint32_t request, uint32_t flags, uint64_t number)
{
    struct {
        struct vhost_user_header header;
        uint64_t number;
    } __attribute__((packed)) message = {{request, flags, 8}, number};

    send_bytes(bed, 0, &message, sizeof(message));
}

static uint64_t right_answer(const struct bed *bed, uint32_t request)
{
    switch (request) {
    case VHOST_USER_GET_FEATURES:
        return VHOST_FEATURE_VERSION_1 | VHOST_FEATURE_ACCESS_PLATFORM |
               (bed->small ? 0 : VHOST_FEATURE_PROTOCOL_FEATURES);
    case VHOST_USER_GET_PROTOCOL_FEATURES:
        return VHOST_USER_F_REPLY_ACK | VHOST_USER_F_BACKEND_REQ | VHOST_USER_F_MQ;
    case VHOST_USER_GET_QUEUE_NUM:
        return 1;
    default:
        return 0;
    }
}

static void answer(struct bed *bed, unsigned count)
{
    unsigned i;

    for (i = 0; i < count && i < bed->owed_count; i++) {
        uint32_t request = bed->owed[i].request;

        send_answer(bed, request, VHOST_USER_VERSION | VHOST_USER_REPLY,
                    right_answer(bed, request));
    }
    bed->owed_count -= i;
    memmove(bed->owed, bed->owed + i, bed->owed_count * sizeof(*bed->owed));
}

static void miss(struct bed *bed, uint64_t iova, uint8_t perm, uint32_t flags)
{
    struct vhost_iotlb_msg iotlb = {.iova = iova, .perm = perm, .type = VHOST_IOTLB_MISS};

    if (bed->kernel) {
        struct vhost_msg_v2 message = {.type = VHOST_IOTLB_MSG_V2, .iotlb = iotlb};

        send_bytes(bed, 0, &message, sizeof(message));
    } else {
        struct {
            struct vhost_user_header header;
            struct vhost_iotlb_msg iotlb;
        } __attribute__((packed)) message = {
            {VHOST_USER_BACKEND_IOTLB_MSG, VHOST_USER_VERSION | flags, sizeof(iotlb)}, iotlb};

        send_bytes(bed, 1, &message, sizeof(message));
    }
}

static void send_fds(struct bed *bed, unsigned socket, unsigned count)
{
    union {
        char room[CMSG_SPACE(16 * sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    uint8_t bytes[20] = {0};
    struct iovec iov = {bytes, sizeof(bytes)};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.room,
                         .msg_controllen = CMSG_SPACE(count * sizeof(int))};
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

    if (bed->far[socket] < 0) {
        return;
    }
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(count * sizeof(int));
    for (unsigned i = 0; i < count; i++) {
        memcpy(CMSG_DATA(cmsg) + i * sizeof(int), &ram_fd, sizeof(ram_fd));
    }
    (void)!sendmsg(bed->far[socket], &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void close_far(struct bed *bed)
{
    for (unsigned i = 0; i < 2; i++) {
        if (bed->far[i] >= 0) {
            close(bed->far[i]);
        }
        bed->far[i] = -1;
    }
    bed->owed_count = 0;
}

/* ---- the guest ---- */

static struct viommu_memory_slot slot(uint64_t first, unsigned page, unsigned count)
{
    return (struct viommu_memory_slot){.first = first,
                                       .last = first + count * 4096ull - 1,
                                       .host = ram + page * 4096ull,
                                       .fd = ram_fd,
                                       .fd_offset = page * 4096ull};
}

static void on_left(void *opaque)
{
    struct bed *bed = opaque;

    bed->extra_there = false;
    bed->extra_leaves = false;
}

static void change_memory(struct bed *bed)
{
    struct viommu_memory_slot extra = slot(EXTRA, PAGES, 4);
    struct viommu_memory_batch *batch;
    bool leaves = bed->extra_there;
    int ret;

    if (bed->extra_leaves || viommu_memory_batch_begin(bed->guest.memory, &batch)) {
        return;
    }
    ret = leaves ? viommu_memory_batch_remove(batch, extra.first, extra.last)
                 : viommu_memory_batch_add(batch, &extra);
    if (ret) {
        viommu_memory_batch_abort(batch);
        return;
    }
    bed->extra_leaves = leaves;
    ret = viommu_memory_batch_commit(batch, leaves ? on_left : NULL, bed);
    if (ret < 0) {
        bed->extra_leaves = false;
    } else if (!leaves) {
        bed->extra_there = true;
    } else if (!ret) {
        on_left(bed);
    }
}

static void map(struct bed *bed, uint8_t where, uint8_t to, uint8_t perm)
{
    uint64_t gpa = to & 0x80 ? EXTRA + (to & 7) * 4096ull : (to % PAGES) * 4096ull;

    if (perm & 0x80) {
        (void)guest_map(&bed->guest, bed->table, LEVELS, LARGE, 0, 2, perm & 3);
    } else {
        (void)guest_map(&bed->guest, bed->table, LEVELS, BASE + (where % 128) * 4096ull, gpa, 1,
                        perm & 3);
    }
}

static void flush(struct bed *bed, uint8_t where, uint8_t kind)
{
    struct guest *guest = &bed->guest;
    bool all = kind & 0x80;

    guest_queue_put(guest,
                    spec_iotlb_invalidate(all ? SPEC_DOMAIN : SPEC_SELECTIVE, 1,
                                          (where & 0x40 ? LARGE : BASE) + (where % 32) * 4096ull,
                                          kind % 10, false));
    guest->status_value++;
    guest_queue_put(guest, spec_wait(SPEC_WAIT_STATUS, guest->status, guest->status_value));
    guest_queue_kick(guest);
}

static void ring(struct bed *bed, uint8_t what)
{
    struct viommu_vhost_ring setup = {
        .size = (uint16_t)(1u << (what >> 4)),
        .next = what,
        .descriptors = BASE + (what & 8 ? 8 : 0) * 4096ull,
        .available = BASE + 0x1000,
        .used = BASE + 0x2000,
        .kick = what & 4 ? -1 : ram_fd,
        .call = what & 4 ? ram_fd : -1,
    };

    if ((what & 0xf0) == 0xf0) {
        setup.size = what & 8 ? 0 : 3; /* none, or no power of two */
    } else if ((what & 0xf8) == 0xe8) {
        setup.used = BASE + (what & 2 ? 0x2001 : 0x1000000000000000ull);
    }
    if (what & 2 && what < 0xe0) {
        (void)viommu_vhost_ring_stop(bed->vhost, what & 1);
    } else {
        (void)viommu_vhost_ring_start(bed->vhost, what & 1, &setup);
    }
}

static void device(struct bed *bed, uint8_t what)
{
    switch (what % 4) {
    case 0:
        (void)viommu_device_reset(bed->device);
        break;
    case 1:
        (void)viommu_device_set_requester(bed->device, what & 4 ? REQUESTER : 0x20);
        break;
    case 2:
        (void)viommu_vhost_accept(bed->vhost, viommu_vhost_features(bed->vhost));
        break;
    default:
        guest_write(&bed->guest, SPEC_GCMD, 4, SPEC_QIE | (what & 4 ? SPEC_TE : 0));
        break;
    }
}

/* ---- all together ---- */

/* One end of a connection; the other one is far[0]. */
static int connect_far(struct bed *bed)
{
    int ends[2];

    close_far(bed);
    if (socketpair(AF_UNIX, (bed->kernel ? SOCK_SEQPACKET : SOCK_STREAM) | SOCK_CLOEXEC, 0, ends)) {
        guest_die("socketpair");
    }
    bed->far[0] = ends[1];
    return ends[0];
}

static void reconnect(struct bed *bed)
{
    int old[2] = {bed->far[0], bed->far[1]};
    int fd;

    if (viommu_vhost_state(bed->vhost) != VIOMMU_VHOST_FAILED || bed->kernel) {
        return;
    }
    (void)old;
    (void)viommu_device_reset(bed->device); /* it may be denied */
    fd = connect_far(bed);
    if (viommu_vhost_reconnect(bed->vhost, fd)) {
        close(fd);
    }
}

static void process(struct bed *bed)
{
    (void)viommu_vhost_process(bed->vhost);
    if (vhost_channel_waiting(&bed->vhost->main) > VHOST_OUT_ROOM) {
        guest_die("too much is waiting");
    }
    guest_process(&bed->guest);
    (void)viommu_memory_process(bed->guest.memory);
}

static void raw(struct bed *bed, struct fuzz_input *input)
{
    uint8_t bytes[256];
    uint8_t what = fuzz_byte(input);
    unsigned count = what & 0x7f;

    for (unsigned i = 0; i < count; i++) {
        bytes[i] = fuzz_byte(input);
    }
    send_bytes(bed, what >> 7, bytes, count);
}

static void operate(struct bed *bed, struct fuzz_input *input)
{
    uint8_t what = fuzz_byte(input);
    uint8_t a = fuzz_byte(input);
    uint8_t b = 0;

    if (what & 0x80) {
        base_alloc_fail_at(1 + (what >> 4 & 7));
    }
    switch ((enum operation)(what & 15)) {
    case OP_RAW:
        raw(bed, input);
        break;
    case OP_ANSWER:
        read_all(bed);
        answer(bed, 1 + a);
        break;
    case OP_LIE:
        b = fuzz_byte(input);
        send_answer(bed, bed->owed_count && !(a & 1) ? bed->owed[0].request : b, a & 2 ? a >> 2 : 5,
                    fuzz_number(input, 8));
        break;
    case OP_MISS:
        b = fuzz_byte(input);
        for (unsigned i = 0; i <= (b >> 4); i++) {
            uint64_t base = !(b & 8) ? BASE : a & 0x80 ? UINT64_MAX - 0xff * 1024 : LARGE;

            miss(bed, base + a * 1024ull + i * 4096, b & 7 ? b & 3 : 3,
                 b & 4 ? VHOST_USER_NEED_REPLY : 0);
        }
        break;
    case OP_FDS:
        send_fds(bed, a & 1, 1 + (a >> 1) % 16);
        break;
    case OP_MAP:
        b = fuzz_byte(input);
        map(bed, a, b, fuzz_byte(input));
        break;
    case OP_FLUSH:
        flush(bed, a, fuzz_byte(input));
        break;
    case OP_RING:
        ring(bed, a);
        break;
    case OP_PROCESS:
        process(bed);
        break;
    case OP_TIME:
        bed->clock += a * 10 * MS;
        process(bed);
        break;
    case OP_MEMORY:
        change_memory(bed);
        break;
    case OP_RECONNECT:
        reconnect(bed);
        break;
    case OP_DEVICE:
        device(bed, a);
        break;
    case OP_READ:
        read_all(bed);
        break;
    case OP_CLOSE:
        if (bed->far[a & 1] >= 0) {
            close(bed->far[a & 1]);
            bed->far[a & 1] = -1;
        }
        break;
    case OP_TABLES:
        /* All pages follow one another. */
        for (uint8_t i = 0; i < 32; i++) {
            map(bed, i, (uint8_t)(a + i) & 0x7f, 3);
        }
        break;
    }
    base_alloc_fail_at(0);
}

static void on_ready(void *opaque)
{
    if (viommu_vhost_state(((struct bed *)opaque)->vhost) != VIOMMU_VHOST_READY) {
        guest_die("ready, and is not");
    }
}

static void on_stopped(void *opaque, unsigned ring, uint16_t next)
{
    (void)opaque;
    (void)next;
    if (ring >= VIOMMU_VHOST_RINGS_MAX) {
        guest_die("ring %u stopped", ring);
    }
}

static void on_failed(void *opaque, int error)
{
    (void)opaque;
    if (error >= 0) {
        guest_die("failed with %d", error);
    }
}

/* In one piece, or in many: pages of the file in another order, the last of them read-only. */
static void add_memory(struct viommu_memory *memory, bool pieces)
{
    struct viommu_memory_slot all = slot(0, 0, PAGES);
    struct viommu_memory_batch *batch;

    guest_ok(viommu_memory_batch_begin(memory, &batch), "batch");
    if (!pieces) {
        guest_ok(viommu_memory_batch_add(batch, &all), "slot");
    }
    for (unsigned i = 0; pieces && i < PIECES; i++) {
        const unsigned pages = PAGES / PIECES;
        struct viommu_memory_slot piece = slot(i * pages * 4096ull, i * pages, pages);

        /* The file of an even one is the file; of an odd one no file at all, or another. */
        piece.fd = i == 3 ? -1 : i == 5 ? other_fd : ram_fd;
        piece.fd_offset = i % 2 && i != 5 ? (PIECES - i) * pages * 4096ull : piece.fd_offset;
        piece.flags = i == PIECES - 1 ? VIOMMU_MEMORY_READONLY : 0;
        guest_ok(viommu_memory_batch_add(batch, &piece), "piece");
    }
    guest_ok(viommu_memory_batch_commit(batch, NULL, NULL), "commit");
}

/* Creates it, with allocations that fail, and then again. */
static void create(struct bed *bed, const struct viommu_vhost_config *config, unsigned fail)
{
    int ret;

    base_alloc_fail_at(fail);
    ret = viommu_vhost_create(config, &bed->vhost);
    base_alloc_fail_at(0);
    if (ret && (!fail || ret != -ENOMEM)) {
        guest_die("created: %d", ret);
    }
    if (ret) {
        guest_ok(viommu_vhost_create(config, &bed->vhost), "vhost");
    }
}

static bool begin(struct bed *bed, uint8_t start, unsigned fail)
{
    struct guest_config config = {
        .clock = on_clock, .opaque = bed, .ack_timeout_ms = 100, .ram_pages = PAGES, .ram = ram};
    struct viommu_device_config device_config = {.requester = REQUESTER};
    struct viommu_vhost_config vhost = {.features = UINT64_MAX,
                                        .rings = start & START_MANY ? 4 : 2,
                                        .timeout_ms = start & START_MANY ? 500 : 0,
                                        .writable_is_readable = start & START_WRITES,
                                        .ready = on_ready,
                                        .stopped = on_stopped,
                                        .failed = on_failed,
                                        .opaque = bed};

    *bed = (struct bed){
        .clock = MS, .far = {-1, -1}, .kernel = start & START_KERNEL, .small = start & START_SMALL};
    guest_ok(viommu_memory_create(&config.memory), "memory");
    add_memory(config.memory, start & START_FILES);
    memset(ram, 0, PAGES * 4096);
    guest_ok(guest_init(&bed->guest, &config), "guest");
    guest_set_root(&bed->guest);
    bed->table = guest_page(&bed->guest);
    guest_attach(&bed->guest, REQUESTER, 1, bed->table, LEVELS, SPEC_TT_UNTRANSLATED);
    guest_queue_on(&bed->guest);
    guest_command(&bed->guest, SPEC_TE, true);
    guest_ok(viommu_device_add(bed->guest.iommu, &device_config, &bed->device), "device");
    vhost.kind = bed->kernel ? VIOMMU_VHOST_KERNEL : VIOMMU_VHOST_USER;
    vhost.device = bed->device;
    vhost.memory = bed->guest.memory;
    vhost.fd = connect_far(bed);
    create(bed, &vhost, fail);
    for (unsigned i = 0; (start & START_RINGS) && i < 20; i++) {
        read_all(bed);
        answer(bed, OWED_MAX);
        process(bed);
        if (i == 10) {
            for (uint8_t page = 0; page < 16; page++) {
                map(bed, page, (uint8_t)(page + 40), 3);
            }
            ring(bed, 0x40);
            ring(bed, 0x49);
        }
    }
    return true;
}

/* Time runs out for the far side: nothing waits for it then. */
static void end(struct bed *bed)
{
    struct viommu_memory *memory = bed->guest.memory;
    uint32_t status;

    for (unsigned i = 0; i < 3; i++) {
        bed->clock += 2000 * MS;
        process(bed);
    }
    for (unsigned i = 0; i < 1000 && viommu_memory_process(memory) == VIOMMU_PENDING; i++) {
        process(bed);
    }
    status = (uint32_t)guest_load(&bed->guest, bed->guest.status);
    if (guest_read(&bed->guest, SPEC_FSTS, 4) & SPEC_IQE) {
        status = bed->guest.status_value; /* a map of the guest's went over its own queue */
    }
    if (status != bed->guest.status_value || bed->extra_leaves) {
        guest_die("something waits: status %u of %u, memory %d", status, bed->guest.status_value,
                  bed->extra_leaves);
    }
    viommu_vhost_destroy(bed->vhost);
    close_far(bed);
    guest_fini(&bed->guest);
    viommu_memory_destroy(memory);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {.data = data, .size = size};
    struct bed bed;
    unsigned fds;
    uint8_t start;

    if (ram_fd < 0) {
        other_fd = memfd_create("other", MFD_CLOEXEC);
        ram_fd = memfd_create("ram", MFD_CLOEXEC);
        if (ram_fd < 0 || ftruncate(ram_fd, (PAGES + 4) * 4096)) {
            guest_die("memory of the guest");
        }
        ram = mmap(NULL, (PAGES + 4) * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ram_fd, 0);
        if (ram == MAP_FAILED) {
            guest_die("memory of the guest");
        }
    }
    fds = open_fds();
    start = fuzz_byte(&input);
    begin(&bed, start, start & START_FAILS ? fuzz_byte(&input) % 16 : 0);
    while (fuzz_more(&input)) {
        operate(&bed, &input);
    }
    end(&bed);
    if (open_fds() != fds) {
        guest_die("%u descriptors are open, before %u", open_fds(), fds);
    }
    return 0;
}
