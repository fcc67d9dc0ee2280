/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The far side of the vhost target, which the input drives: it reads what it is told and checks it,
 * answers, asks, and sends what it likes; a back-end on two sockets, or the kernel on one.
 */
#ifndef VIOMMU_FUZZ_VHOST_FAR_H
#define VIOMMU_FUZZ_VHOST_FAR_H

#include "support/guest.h"
#include "vhost_faults.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <vhost/private.h>

#define PAGES    128
#define OWED_MAX 8192
#define MS       UINT64_C(1000000)

struct owed {
    uint32_t request;
    bool question;
};

struct bed {
    struct guest guest;
    struct viommu_device *device;
    struct viommu_vhost *vhost;
    struct viommu_subscriber *beside; /* another one of the device's, which calls what it likes */
    struct viommu_memory_listener *listener;
    uint64_t clock;
    uint64_t table;
    bool kernel;
    bool small;        /* it lacks features */
    bool no_mq;        /* it has few rings */
    bool tight;        /* its socket takes little at once */
    bool eager;        /* callbacks do something */
    uint64_t features; /* of the device, that it has besides */
    int far[2];        /* its ends of both sockets */
    struct owed owed[OWED_MAX];
    unsigned owed_count;
    struct vhost_user_memory memory; /* as it was told */
    bool extra_there;
    bool extra_leaves;
    unsigned reconnects; /* that callbacks may still make */
    unsigned asked;      /* addresses that a flood has asked for */
    unsigned rounds;     /* of floods, that may still come: they take long */
    bool large_outside;  /* the large page leads to where no tables are */
};

static int ram_fd = -1;
static uint8_t *ram;

/* ---- what it is told ---- */

static inline void close_far(struct bed *bed)
{
    for (unsigned i = 0; i < 2; i++) {
        if (bed->far[i] >= 0) {
            close(bed->far[i]);
        }
        bed->far[i] = -1;
    }
    bed->owed_count = 0;
    bed->memory.count = 0;
}

static inline void take_fds(struct bed *bed, struct msghdr *msg, uint32_t request)
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

/* A key leads into one region of the memory that it was told of last; the kernel's into ours. */
static inline bool key_leads(const struct bed *bed, uint64_t key, uint64_t size)
{
    if (bed->kernel) {
        uint64_t at = key - (uintptr_t)ram;

        return at < (PAGES + 4) * 4096 && size <= (PAGES + 4) * 4096 - at;
    }
    for (unsigned i = 0; i < bed->memory.count; i++) {
        const struct vhost_user_region *r = &bed->memory.regions[i];

        if (key >= r->uaddr && key - r->uaddr < r->size && size <= r->size - (key - r->uaddr)) {
            return true;
        }
    }
    return false;
}

static inline void check_iotlb(const struct bed *bed, const struct vhost_iotlb_msg *m)
{
    bool update = m->type == VHOST_IOTLB_UPDATE;

    if (!m->size || m->iova + m->size < m->iova ||
        (update ? !m->perm || m->perm > 3 || !key_leads(bed, m->uaddr, m->size)
                : m->type != VHOST_IOTLB_INVALIDATE)) {
        guest_die("told %u of %#llx, %#llx bytes, key %#llx, perm %u", m->type,
                  (unsigned long long)m->iova, (unsigned long long)m->size,
                  (unsigned long long)m->uaddr, m->perm);
    }
}

static inline bool is_question(uint32_t request)
{
    return request == VHOST_USER_GET_FEATURES || request == VHOST_USER_GET_PROTOCOL_FEATURES ||
           request == VHOST_USER_GET_QUEUE_NUM || request == VHOST_USER_GET_VRING_BASE;
}

/* Returns false where it is not all there, and should be. */
static inline bool read_payload(struct bed *bed, void *payload, size_t size)
{
    if (recv(bed->far[0], payload, size, MSG_DONTWAIT) == (ssize_t)size) {
        return true;
    }
    if (fault_shortened) {
        close_far(bed);
    }
    return fault_shortened;
}

/* Reads one message, which is well formed. Returns false where there is none. */
static inline bool read_message(struct bed *bed)
{
    union {
        char room[CMSG_SPACE(64 * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct vhost_user_header header;
    union {
        uint8_t bytes[512];
        struct vhost_user_memory memory;
        struct vhost_iotlb_msg iotlb;
    } payload;
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
    if (fault_shortened && n != sizeof(header)) {
        close_far(bed); /* as back-ends do that read it all, or leave */
        return false;
    }
    if (n != sizeof(header) || (header.flags & ~8u) != 1 || header.size > sizeof(payload) ||
        (header.size && !read_payload(bed, &payload, header.size))) {
        guest_die("message %u, flags %u, size %u", header.request, header.flags, header.size);
    }
    if (bed->far[0] < 0) {
        return false;
    }
    if (header.request == VHOST_USER_SET_MEM_TABLE) {
        bed->memory = payload.memory;
    } else if (header.request == VHOST_USER_IOTLB_MSG) {
        check_iotlb(bed, &payload.iotlb);
    }
    if ((is_question(header.request) || (header.flags & VHOST_USER_NEED_REPLY)) &&
        bed->owed_count < OWED_MAX) {
        bed->owed[bed->owed_count++] = (struct owed){header.request, is_question(header.request)};
    }
    return true;
}

/* Replies to what it asked. */
static inline void read_replies(const struct bed *bed)
{
    struct {
        struct vhost_user_header header;
        uint64_t number;
    } __attribute__((packed)) reply;

    while (bed->far[1] >= 0 &&
           recv(bed->far[1], &reply, sizeof(reply), MSG_DONTWAIT) == sizeof(reply)) {
        if (reply.header.request != VHOST_USER_BACKEND_IOTLB_MSG || reply.header.flags != 5 ||
            reply.header.size != 8 || reply.number) {
            guest_die("a reply: %u, flags %u", reply.header.request, reply.header.flags);
        }
    }
}

static inline void read_all(struct bed *bed)
{
    struct vhost_msg_v2 message;

    if (!bed->kernel) {
        while (read_message(bed)) {
            /* one after the other */
        }
        read_replies(bed);
        return;
    }
    while (bed->far[0] >= 0 && recv(bed->far[0], &message, sizeof(message), MSG_DONTWAIT) > 0) {
        if (message.type != VHOST_IOTLB_MSG_V2) {
            guest_die("a message to the kernel: %u", message.type);
        }
        check_iotlb(bed, &message.iotlb);
    }
}

/* ---- what it says ---- */

static inline bool send_bytes(struct bed *bed, unsigned socket, const void *bytes, size_t size)
{
    return bed->far[socket] >= 0 && size &&
           send(bed->far[socket], bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL) > 0;
}

static inline bool send_answer(struct bed *bed, uint32_t request, uint32_t flags, uint64_t number)
{
    struct {
        struct vhost_user_header header;
        uint64_t number;
    } __attribute__((packed)) message = {{request, flags, 8}, number};

    return send_bytes(bed, 0, &message, sizeof(message));
}

static inline uint64_t right_answer(const struct bed *bed, uint32_t request)
{
    switch (request) {
    case VHOST_USER_GET_FEATURES:
        return VHOST_FEATURE_VERSION_1 | VHOST_FEATURE_ACCESS_PLATFORM | bed->features |
               (bed->small ? 0 : VHOST_FEATURE_PROTOCOL_FEATURES);
    case VHOST_USER_GET_PROTOCOL_FEATURES:
        return VHOST_USER_F_REPLY_ACK | VHOST_USER_F_BACKEND_REQ |
               (bed->no_mq ? 0 : VHOST_USER_F_MQ);
    case VHOST_USER_GET_QUEUE_NUM:
        return 1;
    default:
        return 0;
    }
}

/* As many as it owes, and as the socket takes. */
static inline void answer(struct bed *bed, unsigned count)
{
    unsigned i = 0;

    while (i < count && i < bed->owed_count &&
           (send_answer(bed, bed->owed[i].request, VHOST_USER_VERSION | VHOST_USER_REPLY,
                        right_answer(bed, bed->owed[i].request)))) {
        i++;
    }
    bed->owed_count -= i;
    memmove(bed->owed, bed->owed + i, bed->owed_count * sizeof(*bed->owed));
}

static inline void miss(struct bed *bed, uint64_t iova, uint8_t perm, uint32_t flags)
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

static inline void send_fds(struct bed *bed, unsigned socket, unsigned count)
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

/* Two ends of a connection. */
static inline void make_pair(const struct bed *bed, int ends[2])
{
    int least = 1;

    if (syscall(SYS_socketpair, AF_UNIX,
                (bed->kernel ? SOCK_SEQPACKET : SOCK_STREAM) | SOCK_CLOEXEC, 0, ends)) {
        guest_die("socketpair");
    }
    if (bed->tight) {
        (void)setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &least, sizeof(least));
    }
}

#endif
