/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * For tests: a vhost-user back-end that is stepped by hand, behind a device of a guest whose RAM is
 * a file.
 *
 * The back-end obeys: it keeps what an UPDATE tells it, ignores an UPDATE where it has something
 * that begins there, and drops whole entries where an INVALIDATE meets them or touches their
 * beginning. All of that is what DPDK does; `exact` makes it one that drops no more than it is told
 * to. It remembers the messages that it was sent.
 *
 * The guest has page tables of three levels in a VT-d unit; time is virtual.
 */
#ifndef VIOMMU_VHOST_TEST_FAR_H
#define VIOMMU_VHOST_TEST_FAR_H

#include <viommu/vhost.h>

#include "base/alloc.h"
#include "support/guest.h"
#include "vhost/protocol.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define FAR_ENTRIES 8192
#define FAR_LOG     4096
#define FAR_PAGES   1024ull /* of guest RAM */
#define FAR_LEVELS  3
#define FAR_MS      UINT64_C(1000000)
#define FAR_FEATURES                                                                               \
    (VHOST_FEATURE_VERSION_1 | VHOST_FEATURE_ACCESS_PLATFORM | VHOST_FEATURE_PROTOCOL_FEATURES |   \
     0xff)
#define FAR_PROTOCOL (VHOST_USER_F_REPLY_ACK | VHOST_USER_F_BACKEND_REQ | VHOST_USER_F_MQ)

struct far_entry {
    uint64_t iova;
    uint64_t size;
    uint64_t uaddr;
    uint8_t perm;
};

struct far_message {
    uint32_t request;
    uint32_t flags;
    uint32_t size;
    unsigned fds;
    union {
        uint8_t bytes[512];
        uint64_t number;
        struct vhost_vring_state state;
        struct vhost_vring_addr addresses;
        struct vhost_iotlb_msg iotlb;
        struct vhost_user_memory memory;
    } payload;
};

struct far_ring {
    unsigned size;
    unsigned base;
    bool enabled;
    struct vhost_vring_addr addresses;
    int kick;
    int call;
};

struct far {
    int fd;
    int requests;
    uint64_t features;
    uint64_t protocol;
    uint64_t queues;
    bool silent; /* it works on messages, but acknowledges nothing */
    bool exact;
    uint64_t accepted;
    struct vhost_user_memory memory;
    int memory_fds[VHOST_USER_REGIONS_MAX];
    struct far_entry *entries;
    unsigned entry_count;
    struct far_ring rings[VIOMMU_VHOST_RINGS_MAX];
    struct far_message *log;
    unsigned log_count;
    unsigned owed; /* acknowledgements that it did not send */
    uint32_t owed_requests[FAR_LOG];
};

struct bed {
    struct guest guest;
    int ram_fd;
    uint8_t *ram;
    uint64_t clock;
    struct viommu_device *device;
    uint64_t table; /* root of its page tables */
    uint64_t used;  /* guest address of the used ring that was made last */
    struct viommu_vhost *vhost;
    struct far far;
    unsigned ready;
    unsigned failed;
    int error;
    unsigned stopped;
    unsigned stopped_ring;
    uint16_t stopped_at;
};

/* ---- the far side ---- */

static inline void far_close(struct far *far)
{
    int *fds[] = {&far->fd, &far->requests};

    for (unsigned i = 0; i < 2; i++) {
        if (*fds[i] >= 0) {
            close(*fds[i]);
        }
        *fds[i] = -1;
    }
    for (unsigned i = 0; i < far->memory.count; i++) {
        close(far->memory_fds[i]);
    }
    far->memory.count = 0;
    if (!far->log) {
        return; /* it never was: its rings have no descriptors, not those that are 0 */
    }
    for (unsigned i = 0; i < VIOMMU_VHOST_RINGS_MAX; i++) {
        if (far->rings[i].kick >= 0) {
            close(far->rings[i].kick);
        }
        if (far->rings[i].call >= 0) {
            close(far->rings[i].call);
        }
        far->rings[i] = (struct far_ring){.kick = -1, .call = -1};
    }
}

static inline void far_init(struct far *far, int fd)
{
    struct far_message *log = far->log ? far->log : malloc(FAR_LOG * sizeof(*log));
    struct far_entry *entries =
        far->entries ? far->entries : malloc(FAR_ENTRIES * sizeof(*entries));

    *far = (struct far){
        .fd = fd,
        .requests = -1,
        .features = FAR_FEATURES,
        .protocol = FAR_PROTOCOL,
        .queues = 1,
        .log = log,
        .entries = entries,
    };
    assert_true(log && entries);
    for (unsigned i = 0; i < VIOMMU_VHOST_RINGS_MAX; i++) {
        far->rings[i].kick = -1;
        far->rings[i].call = -1;
    }
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
}

static inline void far_send(int fd, uint32_t request, uint32_t flags, const void *payload,
                            size_t size)
{
    uint8_t bytes[sizeof(struct vhost_user_header) + 512];
    struct vhost_user_header header = {request, flags | VHOST_USER_VERSION, (uint32_t)size};

    memcpy(bytes, &header, sizeof(header));
    memcpy(bytes + sizeof(header), payload, size);
    assert_int_equal(send(fd, bytes, sizeof(header) + size, MSG_NOSIGNAL), sizeof(header) + size);
}

static inline void far_answer(struct far *far, uint32_t request, uint64_t number)
{
    far_send(far->fd, request, VHOST_USER_REPLY, &number, sizeof(number));
}

/* Acknowledges what was not. */
static inline void far_pay(struct far *far)
{
    for (unsigned i = 0; i < far->owed; i++) {
        far_answer(far, far->owed_requests[i], 0);
    }
    far->owed = 0;
}

static inline void far_drop(struct far *far, uint64_t iova, uint64_t size)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < far->entry_count; i++) {
        struct far_entry e = far->entries[i];
        uint64_t end = e.iova + e.size;
        bool meets = e.iova < iova + size && end > iova;

        if (far->exact && meets) {
            /* What is left of it on either side. */
            if (end > iova + size) {
                struct far_entry rest = e;

                assert_true(far->entry_count < FAR_ENTRIES);
                rest.uaddr += iova + size - e.iova;
                rest.size = end - (iova + size);
                rest.iova = iova + size;
                far->entries[far->entry_count++] = rest;
            }
            if (e.iova < iova) {
                e.size = iova - e.iova;
                far->entries[kept++] = e;
            }
        } else if (!meets && (far->exact || e.iova != iova + size)) {
            far->entries[kept++] = e;
        }
    }
    far->entry_count = kept;
}

static inline void far_update(struct far *far, const struct vhost_iotlb_msg *m)
{
    assert_true(m->size > 0 && m->iova + m->size > m->iova);
    assert_true(m->perm >= 1 && m->perm <= 3);
    for (unsigned i = 0; i < far->entry_count; i++) {
        if (far->entries[i].iova == m->iova) {
            return;
        }
    }
    assert_true(far->entry_count < FAR_ENTRIES);
    far->entries[far->entry_count++] = (struct far_entry){m->iova, m->size, m->uaddr, m->perm};
}

/* The entry that allows an access, or NULL. Of several the one that begins first counts. */
static inline const struct far_entry *far_find(const struct far *far, uint64_t iova, uint8_t perm)
{
    const struct far_entry *first = NULL;

    for (unsigned i = 0; i < far->entry_count; i++) {
        const struct far_entry *e = &far->entries[i];

        if (iova >= e->iova && iova - e->iova < e->size && (!first || e->iova < first->iova)) {
            first = e;
        }
    }
    return first && !(perm & ~first->perm) ? first : NULL;
}

/* Which region of its memory a key is in; the offset in the file. */
static inline uint64_t far_offset(const struct far *far, uint64_t uaddr, uint64_t *left)
{
    for (unsigned i = 0; i < far->memory.count; i++) {
        const struct vhost_user_region *r = &far->memory.regions[i];

        if (uaddr >= r->uaddr && uaddr - r->uaddr < r->size) {
            *left = r->size - (uaddr - r->uaddr);
            return r->offset + (uaddr - r->uaddr);
        }
    }
    fail_msg("key %llx is in no region", (unsigned long long)uaddr);
    return 0;
}

static inline int far_take_fd(int *to, int *fds, unsigned count)
{
    assert_int_equal(count, 1);
    if (*to >= 0) {
        close(*to);
    }
    *to = fds[0];
    return 0;
}

static inline void far_work(struct far *far, struct far_message *m, int *fds)
{
    struct far_ring *ring = &far->rings[m->payload.state.index % VIOMMU_VHOST_RINGS_MAX];
    struct vhost_vring_state state = m->payload.state;

    switch (m->request) {
    case VHOST_USER_GET_FEATURES:
        far_answer(far, m->request, far->features);
        return;
    case VHOST_USER_GET_PROTOCOL_FEATURES:
        far_answer(far, m->request, far->protocol);
        return;
    case VHOST_USER_GET_QUEUE_NUM:
        far_answer(far, m->request, far->queues);
        return;
    case VHOST_USER_GET_VRING_BASE:
        state.num = ring->base;
        ring->enabled = false;
        far_send(far->fd, m->request, VHOST_USER_REPLY, &state, sizeof(state));
        return;
    case VHOST_USER_SET_FEATURES:
        far->accepted = m->payload.number;
        break;
    case VHOST_USER_SET_MEM_TABLE:
        for (unsigned i = 0; i < far->memory.count; i++) {
            close(far->memory_fds[i]);
        }
        far->memory = m->payload.memory;
        assert_int_equal(m->fds, far->memory.count);
        memcpy(far->memory_fds, fds, m->fds * sizeof(*fds));
        assert_int_equal(far->entry_count, 0); /* they lead nowhere now */
        break;
    case VHOST_USER_SET_BACKEND_REQ_FD:
        far_take_fd(&far->requests, fds, m->fds);
        break;
    case VHOST_USER_SET_VRING_NUM:
        ring->size = state.num;
        break;
    case VHOST_USER_SET_VRING_BASE:
        ring->base = state.num;
        break;
    case VHOST_USER_SET_VRING_ADDR:
        ring->addresses = m->payload.addresses;
        break;
    case VHOST_USER_SET_VRING_KICK:
    case VHOST_USER_SET_VRING_CALL:
        ring = &far->rings[m->payload.number & 0xff];
        if (!(m->payload.number & VHOST_USER_NO_FD)) {
            far_take_fd(m->request == VHOST_USER_SET_VRING_KICK ? &ring->kick : &ring->call, fds,
                        m->fds);
        }
        break;
    case VHOST_USER_SET_VRING_ENABLE:
        ring->enabled = state.num;
        break;
    case VHOST_USER_IOTLB_MSG:
        if (m->payload.iotlb.type == VHOST_IOTLB_UPDATE) {
            far_update(far, &m->payload.iotlb);
        } else {
            assert_int_equal(m->payload.iotlb.type, VHOST_IOTLB_INVALIDATE);
            assert_true(m->payload.iotlb.iova + m->payload.iotlb.size > m->payload.iotlb.iova);
            far_drop(far, m->payload.iotlb.iova, m->payload.iotlb.size);
        }
        break;
    default:
        break;
    }
    if (m->flags & VHOST_USER_NEED_REPLY) {
        if (far->silent) {
            far->owed_requests[far->owed++ % FAR_LOG] = m->request;
        } else {
            far_answer(far, m->request, 0);
        }
    }
}

/* One message. Returns false when there is none. */
static inline bool far_step(struct far *far)
{
    union {
        char room[CMSG_SPACE(VHOST_USER_REGIONS_MAX * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct far_message *m = &far->log[far->log_count % FAR_LOG];
    struct iovec iov = {m, sizeof(struct vhost_user_header)};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.room,
                         .msg_controllen = sizeof(control.room)};
    int fds[VHOST_USER_REGIONS_MAX];
    ssize_t n = far->fd < 0 ? -1 : recvmsg(far->fd, &msg, MSG_CMSG_CLOEXEC);

    if (n <= 0) {
        return false;
    }
    assert_int_equal(n, sizeof(struct vhost_user_header));
    m->fds = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
        m->fds = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(fds, CMSG_DATA(c), m->fds * sizeof(int));
    }
    assert_true(m->size <= sizeof(m->payload));
    assert_int_equal(m->flags & VHOST_USER_VERSION_MASK, VHOST_USER_VERSION);
    memset(&m->payload, 0, sizeof(m->payload));
    assert_int_equal(m->size ? recv(far->fd, m->payload.bytes, m->size, 0) : 0, m->size);
    far->log_count++;
    far_work(far, m, fds);
    return true;
}

/* How often it was sent a request; of IOTLB messages: of a type. Since `from`. */
static inline unsigned far_count(const struct far *far, unsigned from, uint32_t request,
                                 uint8_t type)
{
    unsigned count = 0;

    for (unsigned i = from; i < far->log_count; i++) {
        const struct far_message *m = &far->log[i % FAR_LOG];

        count += m->request == request && (!type || m->payload.iotlb.type == type);
    }
    return count;
}

/* The last IOTLB message of a type. */
static inline const struct vhost_iotlb_msg *far_last(const struct far *far, uint8_t type)
{
    for (unsigned i = far->log_count; i > 0 && i + FAR_LOG > far->log_count; i--) {
        const struct far_message *m = &far->log[(i - 1) % FAR_LOG];

        if (m->request == VHOST_USER_IOTLB_MSG && m->payload.iotlb.type == type) {
            return &m->payload.iotlb;
        }
    }
    fail_msg("no IOTLB message of type %u", type);
    return NULL;
}

static inline void far_miss(struct far *far, uint64_t iova, uint8_t perm)
{
    struct vhost_iotlb_msg m = {.iova = iova, .perm = perm, .type = VHOST_IOTLB_MISS};

    far_send(far->requests, VHOST_USER_BACKEND_IOTLB_MSG, 0, &m, sizeof(m));
}

/* ---- the bed ---- */

static inline uint64_t bed_clock(void *opaque)
{
    return ((struct bed *)opaque)->clock;
}

static inline void bed_on_ready(void *opaque)
{
    ((struct bed *)opaque)->ready++;
}

static inline void bed_on_failed(void *opaque, int error)
{
    struct bed *bed = opaque;

    bed->failed++;
    bed->error = error;
}

static inline void bed_on_stopped(void *opaque, unsigned ring, uint16_t next)
{
    struct bed *bed = opaque;

    bed->stopped++;
    bed->stopped_ring = ring;
    bed->stopped_at = next;
}

static inline void bed_slots(struct bed *bed, const struct viommu_memory_slot *slots, size_t count)
{
    struct viommu_memory_batch *batch;

    assert_int_equal(viommu_memory_batch_begin(bed->guest.memory, &batch), 0);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(viommu_memory_batch_add(batch, &slots[i]), 0);
    }
    assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), 0);
}

/* Guest pages [first, last] lie at the same place of the RAM's file. */
static inline struct viommu_memory_slot bed_slot(const struct bed *bed, uint64_t first,
                                                 uint64_t last, uint32_t flags)
{
    return (struct viommu_memory_slot){
        .first = first * 4096,
        .last = last * 4096 + 4095,
        .host = bed->ram + first * 4096,
        .fd = bed->ram_fd,
        .fd_offset = first * 4096,
        .flags = flags,
    };
}

/* A guest with a device whose tables are empty; no far side yet. */
static inline void bed_init(struct bed *bed)
{
    struct guest_config config = {.clock = bed_clock, .ack_timeout_ms = 100, .iotlb_entries = 256};
    struct viommu_device_config device = {.requester = 0x18};
    struct viommu_memory_slot slot;

    *bed = (struct bed){.clock = FAR_MS, .far = {.fd = -1, .requests = -1}};
    bed->ram_fd = memfd_create("ram", MFD_CLOEXEC);
    assert_true(bed->ram_fd >= 0);
    assert_int_equal(ftruncate(bed->ram_fd, FAR_PAGES * 4096), 0);
    bed->ram = mmap(NULL, FAR_PAGES * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, bed->ram_fd, 0);
    assert_true(bed->ram != MAP_FAILED);
    assert_int_equal(viommu_memory_create(&bed->guest.memory), 0);
    slot = bed_slot(bed, 0, FAR_PAGES - 1, 0);
    bed_slots(bed, &slot, 1);
    config.memory = bed->guest.memory;
    config.ram = bed->ram;
    config.ram_pages = FAR_PAGES;
    config.opaque = bed;
    assert_int_equal(guest_init(&bed->guest, &config), 0);
    guest_set_root(&bed->guest);
    bed->table = guest_page(&bed->guest);
    guest_attach(&bed->guest, device.requester, 1, bed->table, FAR_LEVELS, SPEC_TT_UNTRANSLATED);
    guest_queue_on(&bed->guest);
    guest_command(&bed->guest, SPEC_TE, true);
    assert_int_equal(viommu_device_add(bed->guest.iommu, &device, &bed->device), 0);
}

static inline void bed_fini(struct bed *bed)
{
    struct viommu_memory *memory = bed->guest.memory;

    viommu_vhost_destroy(bed->vhost);
    far_close(&bed->far);
    free(bed->far.log);
    free(bed->far.entries);
    guest_fini(&bed->guest);
    viommu_memory_destroy(memory);
    munmap(bed->ram, FAR_PAGES * 4096);
    close(bed->ram_fd);
}

/* Two ends of a connection; the far side's is taken. */
static inline int bed_pair(struct bed *bed)
{
    int ends[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    far_close(&bed->far);
    far_init(&bed->far, ends[1]);
    return ends[0];
}

static inline struct viommu_vhost_config bed_config(struct bed *bed)
{
    return (struct viommu_vhost_config){
        .device = bed->device,
        .memory = bed->guest.memory,
        .features = 0x0f,
        .rings = 2,
        .ready = bed_on_ready,
        .stopped = bed_on_stopped,
        .failed = bed_on_failed,
        .opaque = bed,
    };
}

static inline void bed_create(struct bed *bed)
{
    struct viommu_vhost_config config = bed_config(bed);

    config.fd = bed_pair(bed);
    assert_int_equal(viommu_vhost_create(&config, &bed->vhost), 0);
}

static inline bool bed_has_work(struct bed *bed)
{
    struct pollfd poller = {.fd = viommu_vhost_event_fd(bed->vhost), .events = POLLIN};

    return poll(&poller, 1, 0) > 0;
}

/* Both sides do all that they can. */
static inline void bed_run(struct bed *bed)
{
    for (unsigned i = 0; i < 10000; i++) {
        bool more = false;

        while (far_step(&bed->far)) {
            more = true;
        }
        if (bed_has_work(bed)) {
            (void)viommu_vhost_process(bed->vhost);
            more = true;
        }
        if (!more) {
            return;
        }
    }
    fail_msg("there is no end to it");
}

/* Time goes. */
static inline void bed_wait(struct bed *bed, uint64_t ms)
{
    bed->clock += ms * FAR_MS;
    (void)viommu_vhost_process(bed->vhost);
    guest_process(&bed->guest);
    bed_run(bed);
}

/* ---- the guest ---- */

static inline void bed_map(struct bed *bed, uint64_t iova, uint64_t gpa, uint64_t perm)
{
    (void)guest_map(&bed->guest, bed->table, FAR_LEVELS, iova, gpa, 1, perm);
}

static inline void bed_unmap(struct bed *bed, uint64_t iova)
{
    guest_store(&bed->guest, guest_map(&bed->guest, bed->table, FAR_LEVELS, iova, 0, 1, 0), 0);
}

static inline void bed_map_large(struct bed *bed, uint64_t iova, uint64_t gpa)
{
    (void)guest_map(&bed->guest, bed->table, FAR_LEVELS, iova, gpa, 2, SPEC_R | SPEC_W);
}

/* What the unit has cached goes, by other translations that need its place: from here on it reads
   the tables as they are. */
static inline void bed_unit_forgets(struct bed *bed)
{
    const uint64_t elsewhere = UINT64_C(1) << 36;

    bed_map_large(bed, elsewhere, 0);
    for (uint64_t at = elsewhere; at < elsewhere + 0x200000; at += 0x1000) {
        struct viommu_translation translation;

        assert_int_equal(viommu_device_translate(bed->device, NULL, at, VIOMMU_READ, &translation),
                         0);
    }
}

/* Faults that the guest was told of, which it then clears. */
static inline unsigned bed_faults(struct bed *bed)
{
    struct guest *guest = &bed->guest;
    unsigned count = 0;

    for (unsigned i = 0; i < guest->fault_count; i++) {
        uint64_t at = guest->fault_offset + i * 16u + 12;

        if (guest_read(guest, at, 4) >> 31) {
            count++;
            guest_write(guest, at, 4, 1u << 31);
        }
    }
    return count;
}

static inline unsigned bed_open_fds(void)
{
    unsigned count = 0;

    for (int fd = 0; fd < 1024; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

/* Puts an invalidation and a wait for it; whether that is over is in bed_flushed. */
static inline void bed_flush_begin(struct bed *bed, uint64_t iova, unsigned order)
{
    struct guest *guest = &bed->guest;

    guest_queue_put(guest, spec_iotlb_invalidate(SPEC_SELECTIVE, 1, iova, order, false));
    guest->status_value++;
    guest_queue_put(guest, spec_wait(SPEC_WAIT_STATUS, guest->status, guest->status_value));
    guest_queue_kick(guest);
    guest_process(guest);
}

static inline bool bed_flushed(struct bed *bed)
{
    guest_process(&bed->guest);
    return (uint32_t)guest_load(&bed->guest, bed->guest.status) == bed->guest.status_value;
}

/* A ring in one page each, which is mapped. */
static inline void bed_start_ring(struct bed *bed, unsigned number, uint64_t iova)
{
    struct viommu_vhost_ring ring = {
        .size = 256,
        .descriptors = iova,
        .available = iova + 0x1000,
        .used = iova + 0x2000,
        .kick = eventfd(0, EFD_CLOEXEC),
        .call = eventfd(0, EFD_CLOEXEC),
    };

    for (unsigned i = 0; i < 3; i++) {
        bed->used = guest_page(&bed->guest);
        bed_map(bed, iova + i * 0x1000, bed->used, 3);
    }
    assert_int_equal(viommu_vhost_ring_start(bed->vhost, number, &ring), 0);
    close(ring.kick);
    close(ring.call);
    bed_run(bed);
}

/* Negotiated, with one ring that runs at 0x100000. */
static inline void bed_start(struct bed *bed)
{
    bed_init(bed);
    bed_create(bed);
    bed_run(bed);
    assert_int_equal(bed->ready, 1);
    assert_int_equal(viommu_vhost_accept(bed->vhost, viommu_vhost_features(bed->vhost)), 0);
    bed_start_ring(bed, 0, 0x100000);
}

static inline struct viommu_vhost_statistics bed_statistics(struct bed *bed)
{
    struct viommu_vhost_statistics s;

    assert_int_equal(viommu_vhost_statistics(bed->vhost, &s, sizeof(s)), 0);
    return s;
}

#endif
