/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The wire of wire.h: one thread that polls up to four sockets. Writing waits:
 * a back-end that hangs makes it hang, until wire_close() shuts the sockets.
 */
#include "wire.h"

#include "guest.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HEADER = 12, PAYLOAD_MAX = 4096, FDS_MAX = 16 };

enum request {
    SET_MEM_TABLE = 5,
    SET_BACKEND_REQ_FD = 21,
    IOTLB = 22,
    CHANNEL_IOTLB = 1,
};

enum { FLAG_REPLY = 1u << 2, FLAG_NEED_REPLY = 1u << 3 };
enum iotlb { MISS = 1, UPDATE, INVALIDATE };

struct message {
    uint32_t request;
    uint32_t flags;
    uint32_t size;
    uint8_t payload[PAYLOAD_MAX];
    int fds[FDS_MAX];
    unsigned fd_count;
};

struct iotlb_payload {
    uint64_t iova;
    uint64_t size;
    uint64_t address;
    uint8_t perm;
    uint8_t type;
};

/* ---- messages ---- */

static void close_fds(struct message *message)
{
    while (message->fd_count) {
        close(message->fds[--message->fd_count]);
    }
}

static bool receive(int socket, struct message *message)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(FDS_MAX * sizeof(int))];
    } control;
    struct iovec part = {.iov_base = message, .iov_len = HEADER};
    struct msghdr header = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof(control),
    };
    ssize_t got;

    message->fd_count = 0;
    do {
        got = recvmsg(socket, &header, MSG_WAITALL | MSG_CMSG_CLOEXEC);
    } while (got < 0 && errno == EINTR);
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&header); got > 0 && c; c = CMSG_NXTHDR(&header, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
            message->fd_count = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
            memcpy(message->fds, CMSG_DATA(c), message->fd_count * sizeof(int));
        }
    }
    if (got != HEADER || message->size > PAYLOAD_MAX ||
        (message->size &&
         recv(socket, message->payload, message->size, MSG_WAITALL) != (ssize_t)message->size)) {
        close_fds(message);
        return false;
    }
    return true;
}

static bool pass_on(int socket, struct message *message)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(FDS_MAX * sizeof(int))];
    } control = {0};
    struct iovec part = {.iov_base = message, .iov_len = HEADER + message->size};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
    ssize_t sent;

    if (message->fd_count) {
        header.msg_control = &control;
        header.msg_controllen = CMSG_SPACE(message->fd_count * sizeof(int));
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(message->fd_count * sizeof(int));
        memcpy(CMSG_DATA(&control.header), message->fds, message->fd_count * sizeof(int));
    }
    sent = sendmsg(socket, &header, MSG_NOSIGNAL);
    while (sent > 0 && (size_t)sent < part.iov_len) {
        ssize_t more = send(socket, (char *)message + sent, part.iov_len - (size_t)sent,
                            MSG_NOSIGNAL);

        sent = more < 0 ? more : sent + more;
    }
    close_fds(message);
    return sent > 0;
}

/* ---- what they say ---- */

static bool iotlb_of(const struct message *message, struct iotlb_payload *out)
{
    if (message->size < 26) {
        return false;
    }
    memcpy(&out->iova, message->payload, 8);
    memcpy(&out->size, message->payload + 8, 8);
    memcpy(&out->address, message->payload + 16, 8);
    out->perm = message->payload[24];
    out->type = message->payload[25];
    return true;
}

static void take_regions(struct wire *wire, const struct message *message)
{
    uint32_t count;

    memcpy(&count, message->payload, 4);
    wire->region_count = count < WIRE_REGIONS ? count : WIRE_REGIONS;
    for (unsigned i = 0; i < wire->region_count; i++) {
        memcpy(&wire->regions[i], message->payload + 8 + i * 32, sizeof(wire->regions[i]));
    }
}

static void on_update(struct wire *wire, const struct iotlb_payload *iotlb)
{
    atomic_fetch_add(&wire->updates, 1);
    if (iotlb->size > atomic_load(&wire->longest)) {
        atomic_store(&wire->longest, iotlb->size);
    }
    for (unsigned i = 0; i < wire->region_count; i++) {
        const struct wire_region *region = &wire->regions[i];
        uint64_t offset = iotlb->address - region->address;

        if (iotlb->address >= region->address && offset < region->size &&
            iotlb->size <= region->size - offset) {
            ledger_update(wire->ledger, iotlb->iova, iotlb->size, region->gpa + offset,
                          iotlb->perm);
            return;
        }
    }
    ledger_wrong(wire->ledger, "UPDATE of %#llx leads to no memory, or to two pieces",
                 (unsigned long long)iotlb->iova);
}

static void expect_answer(struct wire *wire, const struct wire_request *request)
{
    if (wire->waiting_count == WIRE_WAITING) {
        guest_die("%u requests wait for an answer", wire->waiting_count);
    }
    wire->waiting[(wire->waiting_first + wire->waiting_count++) % WIRE_WAITING] = *request;
}

static void from_front(struct wire *wire, struct message *message)
{
    struct wire_request request = {.request = message->request, .id = ++wire->next_id};
    struct iotlb_payload iotlb = {0};

    if (message->request == SET_MEM_TABLE && message->size >= 8) {
        take_regions(wire, message);
    } else if (message->request == IOTLB && iotlb_of(message, &iotlb)) {
        if (iotlb.type == UPDATE) {
            on_update(wire, &iotlb);
        } else if (iotlb.type == INVALIDATE) {
            int victim = atomic_exchange(&wire->victim, 0);

            if (victim) {
                kill(victim, SIGKILL);
            }
            atomic_fetch_add(&wire->invalidations, 1);
            request.invalidate = true;
            request.iova = iotlb.iova;
            request.size = iotlb.size;
            ledger_invalidate(wire->ledger, request.id, iotlb.iova, iotlb.size);
        }
    }
    if (message->flags & FLAG_NEED_REPLY) {
        expect_answer(wire, &request);
    }
}

/* Requests with an answer of their own, which is no acknowledgement, are not waited for here. */
static void from_back(struct wire *wire, struct message *message)
{
    struct wire_request *first = &wire->waiting[wire->waiting_first];

    if (!wire->waiting_count || first->request != message->request) {
        return;
    }
    wire->waiting_first = (wire->waiting_first + 1) % WIRE_WAITING;
    wire->waiting_count--;
    if (!first->invalidate) {
        return;
    }
    ledger_acknowledged(wire->ledger, first->id, first->iova, first->size);
    atomic_fetch_add(&wire->acknowledged, 1);
    if (atomic_exchange(&wire->garble, false)) {
        message->request ^= 0x55;
    }
}

/* The channel's two ends: the far one goes to the back-end in place of the front-end's. */
static void put_channel_on_wire(struct wire *wire, struct message *message)
{
    int pair[2];

    if (message->request != SET_BACKEND_REQ_FD || message->fd_count != 1) {
        return;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) {
        guest_die("socketpair: %s", strerror(errno));
    }
    wire->near_channel = message->fds[0];
    wire->far_channel = pair[0];
    message->fds[0] = pair[1];
}

static bool turn(struct wire *wire, unsigned which)
{
    struct iotlb_payload iotlb;
    struct message message;

    switch (which) {
    case 0:
        if (!receive(wire->near, &message)) {
            return false;
        }
        from_front(wire, &message);
        put_channel_on_wire(wire, &message);
        return pass_on(wire->far, &message);
    case 1:
        if (!receive(wire->far, &message)) {
            return false;
        }
        from_back(wire, &message);
        return pass_on(wire->near, &message);
    case 2:
        return receive(wire->near_channel, &message) && pass_on(wire->far_channel, &message);
    default:
        if (!receive(wire->far_channel, &message)) {
            return false;
        }
        if (message.request == CHANNEL_IOTLB && iotlb_of(&message, &iotlb) && iotlb.type == MISS) {
            atomic_fetch_add(&wire->misses, 1);
        }
        return pass_on(wire->near_channel, &message);
    }
}

static void *pass(void *arg)
{
    struct wire *wire = arg;
    bool going = true;

    while (going) {
        struct pollfd fds[4] = {
            {.fd = wire->near, .events = POLLIN},
            {.fd = wire->far, .events = POLLIN},
            {.fd = wire->near_channel, .events = POLLIN},
            {.fd = wire->far_channel, .events = POLLIN},
        };

        if (poll(fds, 4, -1) < 0 && errno != EINTR) {
            break;
        }
        for (unsigned i = 0; i < 4 && going; i++) {
            if (fds[i].fd >= 0 && fds[i].revents) {
                going = turn(wire, i);
            }
        }
    }
    /* Before the front-end hears that it is over. */
    ledger_gone(wire->ledger);
    atomic_store(&wire->over, true);
    shutdown(wire->near, SHUT_RDWR);
    shutdown(wire->far, SHUT_RDWR);
    return NULL;
}

/* ---- life ---- */

bool wire_is_cut_off(void *opaque)
{
    struct wire *wire = opaque;
    struct pollfd fd = {.fd = wire->near, .events = POLLRDHUP};

    return atomic_load(&wire->over) ||
           (poll(&fd, 1, 0) > 0 && fd.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

int wire_open(struct wire *wire, struct ledger *ledger, int far)
{
    int pair[2];

    memset(wire, 0, sizeof(*wire));
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) {
        guest_die("socketpair: %s", strerror(errno));
    }
    wire->ledger = ledger;
    wire->near = pair[0];
    wire->far = far;
    wire->near_channel = wire->far_channel = -1;
    ledger->is_cut_off = wire_is_cut_off;
    ledger->opaque = wire;
    guest_ok(-pthread_create(&wire->thread, NULL, pass, wire), "pthread_create");
    return pair[1];
}

void wire_close(struct wire *wire)
{
    shutdown(wire->near, SHUT_RDWR);
    shutdown(wire->far, SHUT_RDWR);
    pthread_join(wire->thread, NULL);
    wire->ledger->is_cut_off = NULL;
    close(wire->near);
    close(wire->far);
    if (wire->near_channel >= 0) {
        close(wire->near_channel);
        close(wire->far_channel);
    }
}
