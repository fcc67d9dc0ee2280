/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vhost_echo.c - a vhost-user back-end of a network device that sends every frame back.
 *
 *     vhost-echo SOCKET
 *
 * It listens on SOCKET and serves one front-end after the other, until SIGTERM. It is what a far
 * process is to be, in small: it has an IOTLB of its own and reaches guest memory by nothing else;
 * what it does not find there it asks for once (MISS), and it acknowledges an INVALIDATE when it
 * has dropped what that names. Written from the protocol's text alone: it shares no code with the
 * front-end that it tests. Split rings, indirect descriptors.
 *
 * It looks at what a front-end must not do: change a translation in place, give one outside of the
 * memory table, start rings before all is said. Each is a line "violation: ..." on standard output,
 * and at the end the status is 1. At the end it also prints what it did.
 *
 * SIGUSR1 has it send the front-end what makes no sense.
 *
 * This is the conversation; what is done with frames is in vhost_echo_frames.c.
 */
#include <errno.h>
#include <linux/vhost_types.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "vhost_echo.h"

enum {
    GET_FEATURES = 1,
    SET_FEATURES = 2,
    SET_OWNER = 3,
    SET_MEM_TABLE = 5,
    SET_VRING_NUM = 8,
    SET_VRING_ADDR = 9,
    SET_VRING_BASE = 10,
    GET_VRING_BASE = 11,
    SET_VRING_KICK = 12,
    SET_VRING_CALL = 13,
    SET_VRING_ERR = 14,
    GET_PROTOCOL_FEATURES = 15,
    SET_PROTOCOL_FEATURES = 16,
    GET_QUEUE_NUM = 17,
    SET_VRING_ENABLE = 18,
    SET_BACKEND_REQ_FD = 21,
    IOTLB_MSG = 22,
    BACKEND_IOTLB_MSG = 1,

    VERSION = 1,
    REPLY = 4,
    NEED_REPLY = 8,

    REGIONS = 8,
    ENTRIES = 2048,
    ASKED = 64,
};

#define F_MRG_RXBUF         (UINT64_C(1) << 15)
#define F_INDIRECT          (UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC)
#define F_PROTOCOL_FEATURES (UINT64_C(1) << 30)
#define F_VERSION_1         (UINT64_C(1) << 32)
#define F_ACCESS_PLATFORM   (UINT64_C(1) << 33)
#define FEATURES                                                                                   \
    (F_MRG_RXBUF | F_INDIRECT | F_PROTOCOL_FEATURES | F_VERSION_1 | F_ACCESS_PLATFORM)
/* REPLY_ACK, and the back-end's own requests. */
#define PROTOCOL_FEATURES (UINT64_C(1) << 3 | UINT64_C(1) << 5)

struct header {
    uint32_t request, flags, size;
};

struct region {
    uint64_t gpa, size, uaddr, offset;
};

union payload {
    uint64_t number;
    struct vhost_vring_state state;
    struct vhost_vring_addr address;
    struct vhost_iotlb_msg iotlb;
    struct {
        uint32_t count, padding;
        struct region regions[REGIONS];
    } memory;
    uint8_t bytes[512];
};

struct message {
    struct header header;
    union payload payload;
    int fds[REGIONS];
    unsigned fd_count;
};

struct entry {
    uint64_t iova, size, uaddr;
    uint8_t perm;
};

static struct {
    int front, back; /* the front-end's socket; ours to ask it, or -1 */
    uint64_t features;
    struct region regions[REGIONS];
    uint8_t *mapped[REGIONS];
    unsigned region_count;
    struct entry entries[ENTRIES];
    unsigned entry_count, victim;
    struct {
        uint64_t page;
        uint8_t perm;
    } asked[ASKED];
    unsigned asked_next;
    struct echo_ring rings[ECHO_RINGS];
} all;

/* Set by signals, which come in wait_for() only: none is missed by who goes to sleep there. */
static volatile sig_atomic_t ending, garbage;
static uint64_t misses, updates, invalidations, front_ends, violations;

void echo_violation(const char *format, ...)
{
    va_list arguments;

    violations++;
    printf("violation: ");
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
    fflush(stdout);
}

/* poll(), and the only place where signals come. Returns false when nothing may be done but to look
 * why. */
static bool wait_for(struct pollfd *fds, unsigned count, bool at_once)
{
    static const struct timespec none;
    sigset_t no_signals;

    sigemptyset(&no_signals);
    return ppoll(fds, count, at_once ? &none : NULL, &no_signals) >= 0;
}

/* ---- messages ---- */

static bool send_all(int fd, const void *data, size_t size)
{
    return send(fd, data, size, MSG_NOSIGNAL) == (ssize_t)size;
}

static bool answer(const struct message *message, const void *data, uint32_t size)
{
    struct {
        struct header header;
        uint8_t data[64];
    } out = {.header = {message->header.request, VERSION | REPLY, size}};

    memcpy(out.data, data, size);
    return send_all(all.front, &out, sizeof(out.header) + size);
}

static bool answer_number(const struct message *message, uint64_t number)
{
    return answer(message, &number, sizeof(number));
}

static bool receive_rest(void *data, size_t size)
{
    return size == 0 || recv(all.front, data, size, MSG_WAITALL) == (ssize_t)size;
}

/* The header, with descriptors, and then the payload. */
static bool receive(struct message *message)
{
    char control[CMSG_SPACE(sizeof(message->fds))];
    struct iovec iov = {&message->header, sizeof(message->header)};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control,
        .msg_controllen = sizeof(control),
    };
    ssize_t n = recvmsg(all.front, &msg, MSG_CMSG_CLOEXEC);
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

    message->fd_count = 0;
    if (n <= 0) {
        return false;
    }
    if (cmsg && cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS) {
        message->fd_count = (unsigned)((cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(message->fds, CMSG_DATA(cmsg), message->fd_count * sizeof(int));
    }
    if (!receive_rest((uint8_t *)&message->header + n, sizeof(message->header) - (size_t)n)) {
        return false;
    }
    if (message->header.size > sizeof(message->payload) || (message->header.flags & 3) != VERSION) {
        echo_violation("a header of request %u, %u bytes, flags %x", message->header.request,
                       message->header.size, message->header.flags);
        return false;
    }
    memset(&message->payload, 0, sizeof(message->payload));
    return receive_rest(&message->payload, message->header.size);
}

/* ---- addresses ---- */

static uint8_t *find_memory(uint64_t uaddr, uint64_t size)
{
    for (unsigned i = 0; i < all.region_count; i++) {
        const struct region *region = &all.regions[i];

        if (uaddr >= region->uaddr && uaddr - region->uaddr < region->size &&
            size <= region->size - (uaddr - region->uaddr)) {
            return all.mapped[i] + region->offset + (uaddr - region->uaddr);
        }
    }
    return NULL;
}

static void ask(uint64_t iova, uint8_t perm)
{
    struct {
        struct header header;
        struct vhost_iotlb_msg message;
    } __attribute__((packed)) out = {
        .header = {BACKEND_IOTLB_MSG, VERSION, sizeof(out.message)},
        .message = {.iova = iova, .perm = perm, .type = VHOST_IOTLB_MISS},
    };

    for (unsigned i = 0; i < ASKED; i++) {
        if (all.asked[i].page == iova >> 12 && all.asked[i].perm == perm) {
            return;
        }
    }
    all.asked[all.asked_next].page = iova >> 12;
    all.asked[all.asked_next].perm = perm;
    all.asked_next = (all.asked_next + 1) % ASKED;
    misses++;
    send_all(all.back, &out, sizeof(out));
}

static void forget_asked(uint64_t first, uint64_t last)
{
    for (unsigned i = 0; i < ASKED; i++) {
        if (all.asked[i].page >= first >> 12 && all.asked[i].page <= last >> 12) {
            all.asked[i].perm = 0;
        }
    }
}

/* Where an address leads, and how far. NULL: it was asked for. */
uint8_t *echo_look_up(uint64_t iova, uint8_t perm, uint64_t *length)
{
    for (unsigned i = 0; i < all.entry_count; i++) {
        const struct entry *entry = &all.entries[i];

        if (iova - entry->iova < entry->size && (entry->perm & perm) == perm) {
            *length = entry->size - (iova - entry->iova);
            return find_memory(entry->uaddr + (iova - entry->iova), 1);
        }
    }
    ask(iova, perm);
    return NULL;
}

static void update(const struct vhost_iotlb_msg *message)
{
    struct entry *entry;
    uint64_t last = message->iova + (message->size - 1);

    updates++;
    forget_asked(message->iova, last);
    if (message->size == 0 || last < message->iova || !find_memory(message->uaddr, message->size)) {
        echo_violation("an update of %llx, %llx bytes, to %llx, which is not in the memory table",
                       (unsigned long long)message->iova, (unsigned long long)message->size,
                       (unsigned long long)message->uaddr);
        return;
    }
    for (unsigned i = 0; i < all.entry_count; i++) {
        entry = &all.entries[i];
        if (message->iova <= entry->iova + (entry->size - 1) && entry->iova <= last &&
            (message->uaddr - message->iova != entry->uaddr - entry->iova ||
             message->perm != entry->perm)) {
            echo_violation("an update of %llx changes what is held there",
                           (unsigned long long)message->iova);
        }
    }
    if (all.entry_count < ENTRIES) {
        entry = &all.entries[all.entry_count++];
    } else {
        entry = &all.entries[all.victim++ % ENTRIES];
    }
    *entry = (struct entry){message->iova, message->size, message->uaddr, message->perm};
}

static void invalidate(const struct vhost_iotlb_msg *message)
{
    uint64_t last = message->iova + (message->size - 1);

    invalidations++;
    if (last < message->iova) {
        last = UINT64_MAX;
    }
    for (unsigned i = 0; i < all.entry_count;) {
        const struct entry *entry = &all.entries[i];

        if (message->iova <= entry->iova + (entry->size - 1) && entry->iova <= last) {
            all.entries[i] = all.entries[--all.entry_count];
        } else {
            i++;
        }
    }
    forget_asked(message->iova, last);
}

/* ---- requests ---- */

static void close_fd(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
    }
    *fd = -1;
}

static void drop_memory(void)
{
    for (unsigned i = 0; i < all.region_count; i++) {
        munmap(all.mapped[i], all.regions[i].offset + all.regions[i].size);
    }
    all.region_count = 0;
}

static bool set_memory(struct message *message)
{
    drop_memory();
    all.entry_count = 0; /* they were found in the old one */
    forget_asked(0, UINT64_MAX);
    if (message->payload.memory.count > REGIONS ||
        message->payload.memory.count != message->fd_count) {
        echo_violation("%u regions with %u descriptors", message->payload.memory.count,
                       message->fd_count);
        return false;
    }
    for (unsigned i = 0; i < message->fd_count; i++) {
        const struct region *region = &message->payload.memory.regions[i];
        void *at = mmap(NULL, region->offset + region->size, PROT_READ | PROT_WRITE, MAP_SHARED,
                        message->fds[i], 0);

        if (at == MAP_FAILED) {
            echo_violation("a region that cannot be mapped: %s", strerror(errno));
            return false;
        }
        all.regions[i] = *region;
        all.mapped[i] = at;
        all.region_count = i + 1;
    }
    return true;
}

static struct echo_ring *ring_of(uint64_t number)
{
    if (number < ECHO_RINGS) {
        return &all.rings[number];
    }
    echo_violation("ring %llu", (unsigned long long)number);
    return NULL;
}

static void take_fd(struct message *message, int *fd)
{
    close_fd(fd);
    if (message->fd_count > 0) {
        *fd = message->fds[0];
        message->fd_count = 0;
    }
}

static bool set_address(const struct vhost_vring_addr *address)
{
    struct echo_ring *ring = ring_of(address->index);

    if (!ring) {
        return false;
    }
    ring->descriptors = address->desc_user_addr;
    ring->available = address->avail_user_addr;
    ring->used = address->used_user_addr;
    ring->placed = false;
    return true;
}

static bool get_base(struct message *message)
{
    struct echo_ring *ring = ring_of(message->payload.state.index);

    if (!ring) {
        return false;
    }
    ring->runs = false;
    message->payload.state.num = ring->next;
    return answer(message, &message->payload.state, sizeof(message->payload.state));
}

static bool iotlb(const struct vhost_iotlb_msg *message)
{
    if (message->type == VHOST_IOTLB_UPDATE) {
        update(message);
    } else if (message->type == VHOST_IOTLB_INVALIDATE) {
        invalidate(message);
    } else {
        echo_violation("an IOTLB message of type %u", message->type);
    }
    return true;
}

static bool set_state(const struct message *message)
{
    const struct vhost_vring_state *state = &message->payload.state;
    struct echo_ring *ring = ring_of(state->index);

    if (!ring) {
        return false;
    }
    if (message->header.request == SET_VRING_NUM) {
        ring->size = state->num;
    } else if (message->header.request == SET_VRING_BASE) {
        ring->next = (uint16_t)state->num;
    } else {
        ring->enabled = state->num;
    }
    return true;
}

static bool set_kick(struct message *message)
{
    struct echo_ring *ring = ring_of(message->payload.number & 0xff);

    if (!ring) {
        return false;
    }
    take_fd(message, &ring->kick);
    ring->runs = true;
    if (ring->size == 0 || (ring->size & (ring->size - 1)) || ring->available == 0 ||
        !(all.features & F_ACCESS_PLATFORM) || all.back < 0 || all.region_count == 0) {
        echo_violation("a ring starts, and not all was said before");
        ring->runs = false;
    }
    return true;
}

/* Returns whether the request is answered with 0, if the front-end wants that. */
static bool obey(struct message *message)
{
    struct echo_ring *ring;

    switch (message->header.request) {
    case SET_FEATURES:
        all.features = message->payload.number;
        return !(all.features & ~FEATURES);
    case SET_OWNER:
    case SET_PROTOCOL_FEATURES:
        return true;
    case SET_MEM_TABLE:
        return set_memory(message);
    case SET_VRING_NUM:
    case SET_VRING_BASE:
    case SET_VRING_ENABLE:
        return set_state(message);
    case SET_VRING_ADDR:
        return set_address(&message->payload.address);
    case SET_VRING_KICK:
        return set_kick(message);
    case SET_VRING_CALL:
        ring = ring_of(message->payload.number & 0xff);
        if (ring) {
            take_fd(message, &ring->call);
        }
        return ring != NULL;
    case SET_VRING_ERR:
        return true;
    case SET_BACKEND_REQ_FD:
        take_fd(message, &all.back);
        return true;
    case IOTLB_MSG:
        return iotlb(&message->payload.iotlb);
    default:
        echo_violation("request %u", message->header.request);
        return false;
    }
}

static bool handle(struct message *message)
{
    switch (message->header.request) {
    case GET_FEATURES:
        return answer_number(message, FEATURES);
    case GET_PROTOCOL_FEATURES:
        return answer_number(message, PROTOCOL_FEATURES);
    case GET_QUEUE_NUM:
        return answer_number(message, 1);
    case GET_VRING_BASE:
        return get_base(message);
    default: {
        bool good = obey(message);

        return message->header.flags & NEED_REPLY ? answer_number(message, !good) : good;
    }
    }
}

static bool next_message(void)
{
    static struct message message;
    bool good = receive(&message);

    good = good && handle(&message);
    for (unsigned i = 0; i < message.fd_count; i++) {
        close(message.fds[i]);
    }
    return good;
}

/* ---- one front-end ---- */

static void send_garbage(void)
{
    uint8_t bytes[256];

    memset(bytes, 0xa5, sizeof(bytes));
    garbage = 0;
    send_all(all.front, bytes, sizeof(bytes));
}

static void drain_kick(int fd)
{
    uint64_t count;

    if (read(fd, &count, sizeof(count)) < 0 && errno != EAGAIN) {
        perror("kick");
    }
}

static void serve(void)
{
    struct pollfd fds[1 + ECHO_RINGS];
    bool again = false;

    for (;;) {
        fds[0] = (struct pollfd){.fd = all.front, .events = POLLIN};
        for (unsigned i = 0; i < ECHO_RINGS; i++) {
            fds[1 + i] =
                (struct pollfd){.fd = all.rings[i].runs ? all.rings[i].kick : -1, .events = POLLIN};
        }
        if (!wait_for(fds, 1 + ECHO_RINGS, again) && errno != EINTR) {
            return;
        }
        if (ending) {
            return;
        }
        if (garbage) {
            send_garbage();
            continue;
        }
        if (fds[0].revents && !next_message()) {
            return;
        }
        for (unsigned i = 0; i < ECHO_RINGS; i++) {
            if (fds[1 + i].revents & POLLIN) {
                drain_kick(fds[1 + i].fd);
            }
        }
        again = echo_frames(all.rings);
    }
}

static void begin(int fd)
{
    memset(&all, 0, sizeof(all));
    all.front = fd;
    all.back = -1;
    for (unsigned i = 0; i < ECHO_RINGS; i++) {
        all.rings[i].kick = all.rings[i].call = -1;
    }
    front_ends++;
}

static void end(void)
{
    drop_memory();
    for (unsigned i = 0; i < ECHO_RINGS; i++) {
        close_fd(&all.rings[i].kick);
        close_fd(&all.rings[i].call);
    }
    close_fd(&all.back);
    close_fd(&all.front);
}

static void on_signal(int number)
{
    if (number == SIGUSR1) {
        garbage = 1;
    } else {
        ending = 1;
    }
}

static int listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || strlen(path) >= sizeof(address.sun_path)) {
        return -1;
    }
    strcpy(address.sun_path, path);
    unlink(path);
    if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 4) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static void take_signals(void)
{
    static const int numbers[] = {SIGTERM, SIGINT, SIGUSR1};
    const struct sigaction action = {.sa_handler = on_signal};
    sigset_t signals;

    sigemptyset(&signals);
    for (unsigned i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        sigaddset(&signals, numbers[i]);
        sigaction(numbers[i], &action, NULL);
    }
    sigprocmask(SIG_BLOCK, &signals, NULL);
}

int main(int argc, char **argv)
{
    int listener;

    take_signals();
    listener = argc == 2 ? listen_at(argv[1]) : -1;
    if (listener < 0) {
        fprintf(stderr, "usage: vhost-echo SOCKET\n");
        return 2;
    }
    while (!ending) {
        struct pollfd at = {.fd = listener, .events = POLLIN};
        int fd = wait_for(&at, 1, false) ? accept4(listener, NULL, NULL, SOCK_CLOEXEC) : -1;

        if (fd >= 0) {
            begin(fd);
            serve();
            end();
        }
    }
    unlink(argv[1]);
    printf("front-ends %llu, frames %llu, misses %llu, updates %llu, invalidations %llu, "
           "violations %llu\n",
           (unsigned long long)front_ends, (unsigned long long)echo_count,
           (unsigned long long)misses, (unsigned long long)updates,
           (unsigned long long)invalidations, (unsigned long long)violations);
    return violations > 0;
}
