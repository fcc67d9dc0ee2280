/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The front-end of vhost-user: negotiation, memory table, rings.
 *
 * Every step is a message and the answer to it. The back-end works on messages in their order and
 * answers in that order, so a step need not wait for the one before it, unless it depends on what
 * that is answered. It is told of features and memory when the first ring starts: guest memory is
 * known by then, and what the driver accepted.
 *
 * A memory table replaces the one before it, with all that the back-end holds of that: it is told
 * to drop everything first, and of its rings anew.
 */
#include "vhost/private.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MS              UINT64_C(1000000)
#define FEATURES_NEEDED (VHOST_FEATURE_VERSION_1 | VHOST_FEATURE_ACCESS_PLATFORM)
#define PROTOCOL_NEEDED (VHOST_USER_F_REPLY_ACK | VHOST_USER_F_BACKEND_REQ)

/* ---- messages ---- */

/*
 * What the guest waits for is late here before it is for the IOMMU: the far side has to be cut off
 * before the guest goes on, not after.
 */
static uint64_t deadline_of(const struct viommu_vhost *vhost, const struct vhost_wait *wait)
{
    uint64_t ms = vhost->config.timeout_ms ? vhost->config.timeout_ms : 1000;
    uint64_t of_guest = vhost->iommu->ack_timeout - vhost->iommu->ack_timeout / 4;

    return vhost_now(vhost) + (wait->kind == VHOST_WAIT_CHANGE ? of_guest : ms * MS);
}

static void await(struct viommu_vhost *vhost, const struct vhost_wait *wait, uint32_t request)
{
    unsigned at = (vhost->wait_first + vhost->wait_count) % VHOST_WAITS_MAX;

    if (vhost->wait_count == VHOST_WAITS_MAX) {
        vhost_break(vhost, -ENOBUFS);
        return;
    }
    vhost->waits[at] = *wait;
    vhost->waits[at].request = (uint16_t)request;
    vhost->waits[at].deadline = deadline_of(vhost, wait);
    vhost->wait_count++;
    if (!vhost->late_at || vhost->waits[at].deadline < vhost->late_at) {
        vhost->late_at = vhost->waits[at].deadline;
    }
}

/* What is answered by itself needs not be acknowledged. */
static bool is_question(const struct vhost_wait *wait)
{
    switch (wait->kind) {
    case VHOST_WAIT_FEATURES:
    case VHOST_WAIT_PROTOCOL:
    case VHOST_WAIT_QUEUES:
    case VHOST_WAIT_STOPPED:
        return true;
    default:
        return false;
    }
}

static void put_with(struct viommu_vhost *vhost, uint32_t request, const void *payload, size_t size,
                     const struct vhost_wait *wait, const int *fds, unsigned fd_count)
{
    uint32_t flags = wait && !is_question(wait) ? VHOST_USER_NEED_REPLY : 0;
    int ret;

    /* What waits is answered when it is cut off, too. */
    if (wait) {
        await(vhost, wait, request);
    }
    if (!vhost_alive(vhost)) {
        return;
    }
    ret = vhost_channel_put(&vhost->main, request, flags, payload, size, fds, fd_count);
    if (ret) {
        vhost_break(vhost, ret);
    }
}

void vhost_front_put(struct viommu_vhost *vhost, uint32_t request, const void *payload, size_t size,
                     const struct vhost_wait *wait)
{
    put_with(vhost, request, payload, size, wait, NULL, 0);
}

static void put_number(struct viommu_vhost *vhost, uint32_t request, uint64_t number,
                       enum vhost_wait_kind kind)
{
    struct vhost_wait wait = {.kind = (uint8_t)kind};

    vhost_front_put(vhost, request, &number, sizeof(number), &wait);
}

static void ask(struct viommu_vhost *vhost, uint32_t request, enum vhost_wait_kind kind)
{
    struct vhost_wait wait = {.kind = (uint8_t)kind};

    vhost_front_put(vhost, request, NULL, 0, &wait);
}

static void put_state(struct viommu_vhost *vhost, uint32_t request, unsigned ring, unsigned number,
                      enum vhost_wait_kind kind)
{
    struct vhost_vring_state state = {.index = ring, .num = number};
    struct vhost_wait wait = {.kind = (uint8_t)kind, .ring = (uint8_t)ring};

    vhost_front_put(vhost, request, &state, sizeof(state), &wait);
}

/* ---- connection ---- */

static int watch(struct viommu_vhost *vhost, int fd)
{
    struct epoll_event event = {.events = EPOLLIN};

    return epoll_ctl(vhost->poll_fd, EPOLL_CTL_ADD, fd, &event) ? -errno : 0;
}

/* The second socket; the back-end's end of it waits in requests_fd. */
static int open_requests(struct viommu_vhost *vhost)
{
    int ends[2];
    int ret;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends)) {
        return -errno;
    }
    ret = vhost_channel_init(&vhost->requests, ends[0], VHOST_REPLIES_ROOM);
    if (ret) {
        close(ends[0]);
        close(ends[1]);
        return ret;
    }
    vhost->requests_fd = ends[1];
    return watch(vhost, ends[0]);
}

int vhost_front_open(struct viommu_vhost *vhost, int fd)
{
    int ret = open_requests(vhost);

    if (!ret) {
        ret = vhost_channel_init(&vhost->main, fd, VHOST_OUT_ROOM);
    }
    if (!ret) {
        ret = watch(vhost, fd);
        if (ret) {
            vhost->main.fd = -1; /* the caller's still */
        }
    }
    if (ret) {
        vhost_front_close(vhost);
        return ret;
    }
    vhost_opened(vhost, fd);
    vhost->watched[0] = EPOLLIN;
    vhost->watched[1] = EPOLLIN;
    ask(vhost, VHOST_USER_GET_FEATURES, VHOST_WAIT_FEATURES);
    return 0;
}

void vhost_front_close(struct viommu_vhost *vhost)
{
    vhost_opened(vhost, -1);
    vhost_unwatch(vhost, vhost->main.fd);
    vhost_unwatch(vhost, vhost->requests.fd);
    vhost_channel_fini(&vhost->main);
    vhost_channel_fini(&vhost->requests);
    if (vhost->requests_fd >= 0) {
        close(vhost->requests_fd);
        vhost->requests_fd = -1;
    }
    vhost->features_told = false;
    vhost->table_told = false;
    vhost_table_unplace(&vhost->table);
}

/* ---- memory ---- */

void vhost_front_send_table(struct viommu_vhost *vhost)
{
    struct vhost_wait wait = {.kind = VHOST_WAIT_TABLE};
    struct vhost_user_memory memory = {0};
    int ret;

    vhost_iotlb_drop(vhost);
    ret = vhost_table_build(&vhost->table);
    if (ret) {
        vhost_break(vhost, ret);
        return;
    }
    memory.count = vhost->table.region_count;
    memcpy(memory.regions, vhost->table.regions, memory.count * sizeof(*memory.regions));
    vhost->tables_out++;
    vhost->table_due = false;
    put_with(vhost, VHOST_USER_SET_MEM_TABLE, &memory,
             offsetof(struct vhost_user_memory, regions) + memory.count * sizeof(*memory.regions),
             &wait, vhost->table.fds, memory.count);
}

static void on_table(struct viommu_vhost *vhost)
{
    vhost->tables_out--;
    if (vhost->tables_out) {
        return;
    }
    if (vhost->memory_waits) {
        vhost->memory_waits = false;
        (void)viommu_memory_listener_complete(vhost->listener, vhost->memory_token);
    }
    if (vhost->table_due) {
        vhost_front_send_table(vhost);
    }
}

/* ---- rings ---- */

static void put_eventfd(struct viommu_vhost *vhost, uint32_t request, unsigned ring, int fd)
{
    struct vhost_wait wait = {.kind = VHOST_WAIT_ACK};
    uint64_t number = fd < 0 ? ring | VHOST_USER_NO_FD : ring;

    put_with(vhost, request, &number, sizeof(number), &wait, &fd, fd < 0 ? 0 : 1);
}

static void configure(struct viommu_vhost *vhost)
{
    if (!vhost->features_told) {
        put_number(vhost, VHOST_USER_SET_FEATURES,
                   vhost->accepted | FEATURES_NEEDED | VHOST_FEATURE_PROTOCOL_FEATURES,
                   VHOST_WAIT_ACK);
        vhost->features_told = true;
    }
    if (!vhost->table_told) {
        vhost->table_told = true;
        vhost_front_send_table(vhost);
    }
}

void vhost_front_start_ring(struct viommu_vhost *vhost, unsigned ring)
{
    struct vhost_wait wait = {.kind = VHOST_WAIT_ACK};
    struct vhost_ring *it = &vhost->rings[ring];
    struct vhost_vring_addr addresses = {
        .index = ring,
        .desc_user_addr = it->setup.descriptors,
        .used_user_addr = it->setup.used,
        .avail_user_addr = it->setup.available,
    };

    configure(vhost);
    it->state = VHOST_RING_ON;
    it->resend = true;
    vhost->rings_due = true;
    put_state(vhost, VHOST_USER_SET_VRING_NUM, ring, it->setup.size, VHOST_WAIT_ACK);
    put_state(vhost, VHOST_USER_SET_VRING_BASE, ring, it->setup.next, VHOST_WAIT_ACK);
    vhost_front_put(vhost, VHOST_USER_SET_VRING_ADDR, &addresses, sizeof(addresses), &wait);
    put_eventfd(vhost, VHOST_USER_SET_VRING_CALL, ring, it->setup.call);
    put_eventfd(vhost, VHOST_USER_SET_VRING_KICK, ring, it->setup.kick);
    put_state(vhost, VHOST_USER_SET_VRING_ENABLE, ring, 1, VHOST_WAIT_ACK);
    vhost_iotlb_work(vhost, vhost_now(vhost));
}

void vhost_front_stop_ring(struct viommu_vhost *vhost, unsigned ring)
{
    vhost->rings[ring].state = VHOST_RING_STOPPING;
    put_state(vhost, VHOST_USER_SET_VRING_ENABLE, ring, 0, VHOST_WAIT_ACK);
    put_state(vhost, VHOST_USER_GET_VRING_BASE, ring, 0, VHOST_WAIT_STOPPED);
}

static bool any_runs(const struct viommu_vhost *vhost)
{
    for (unsigned i = 0; i < vhost->config.rings; i++) {
        if (vhost->rings[i].state != VHOST_RING_OFF) {
            return true;
        }
    }
    return false;
}

static void on_stopped(struct viommu_vhost *vhost, const struct vhost_wait *wait,
                       const struct vhost_vring_state *state)
{
    struct vhost_ring *ring = &vhost->rings[wait->ring];

    if (state->index != wait->ring || state->num > UINT16_MAX) {
        vhost_break(vhost, -EPROTO);
        return;
    }
    vhost_ring_close(ring);
    ring->tell_stopped = true;
    ring->stopped_at = (uint16_t)state->num;
    if (!any_runs(vhost)) {
        vhost_iotlb_idle(vhost);
    }
}

/* ---- negotiation ---- */

static void on_features(struct viommu_vhost *vhost, uint64_t features)
{
    uint64_t needed = FEATURES_NEEDED | VHOST_FEATURE_PROTOCOL_FEATURES;
    uint64_t others =
        ~(VHOST_FEATURE_RING_PACKED | VHOST_FEATURE_LOG_ALL | VHOST_FEATURE_PROTOCOL_FEATURES);

    if ((features & needed) != needed) {
        vhost_break(vhost, -ENOTSUP);
        return;
    }
    vhost->features = (features & vhost->config.features & others) | FEATURES_NEEDED;
    ask(vhost, VHOST_USER_GET_PROTOCOL_FEATURES, VHOST_WAIT_PROTOCOL);
}

/* The last step: where it is to ask. */
static void connect_requests(struct viommu_vhost *vhost)
{
    struct vhost_wait wait = {.kind = VHOST_WAIT_CONNECTED};

    put_with(vhost, VHOST_USER_SET_BACKEND_REQ_FD, NULL, 0, &wait, &vhost->requests_fd, 1);
    close(vhost->requests_fd);
    vhost->requests_fd = -1;
}

static void on_protocol(struct viommu_vhost *vhost, uint64_t features)
{
    uint64_t both = features & (PROTOCOL_NEEDED | VHOST_USER_F_MQ);

    if ((features & PROTOCOL_NEEDED) != PROTOCOL_NEEDED) {
        vhost_break(vhost, -ENOTSUP);
        return;
    }
    vhost->protocol = both;
    /* Only what comes after this can be acknowledged. */
    vhost_front_put(vhost, VHOST_USER_SET_PROTOCOL_FEATURES, &both, sizeof(both), NULL);
    ask(vhost, VHOST_USER_SET_OWNER, VHOST_WAIT_ACK);
    if (both & VHOST_USER_F_MQ) {
        ask(vhost, VHOST_USER_GET_QUEUE_NUM, VHOST_WAIT_QUEUES);
    } else if (vhost->config.rings > 2) {
        vhost_break(vhost, -ENOTSUP);
        return;
    }
    connect_requests(vhost);
}

/* Some back-ends count rings, others pairs of them. */
static void on_queues(struct viommu_vhost *vhost, uint64_t count)
{
    if (count < VIOMMU_VHOST_RINGS_MAX && vhost->config.rings > 2 * count) {
        vhost_break(vhost, -ENOTSUP);
    }
}

/* Rings that another back-end was cut off from go on, where the driver's memory says. */
static void resume_rings(struct viommu_vhost *vhost)
{
    for (unsigned i = 0; i < vhost->config.rings && vhost_alive(vhost); i++) {
        struct vhost_ring *ring = &vhost->rings[i];

        if (ring->state == VHOST_RING_CUT) {
            configure(vhost); /* so that its memory is found */
            (void)vhost_iotlb_load16(vhost, ring->setup.used + 2, &ring->setup.next);
            vhost_front_start_ring(vhost, i);
        }
    }
}

static void on_connected(struct viommu_vhost *vhost)
{
    if (vhost->accepted & ~vhost->features) { /* another back-end, which can less */
        for (unsigned i = 0; i < vhost->config.rings; i++) {
            if (vhost->rings[i].state == VHOST_RING_CUT) {
                vhost_break(vhost, -ENOTSUP);
                return;
            }
        }
        vhost->accepted = 0; /* whose rings they were settles anew */
    }
    vhost->state = VIOMMU_VHOST_READY;
    vhost->tell_ready = true;
    resume_rings(vhost);
}

/* ---- answers and questions ---- */

/* That it was done: of all but questions. */
static void on_acknowledged(struct viommu_vhost *vhost, const struct vhost_wait *wait)
{
    switch (wait->kind) {
    case VHOST_WAIT_CONNECTED:
        on_connected(vhost);
        break;
    case VHOST_WAIT_TABLE:
        on_table(vhost);
        break;
    case VHOST_WAIT_DROP:
        vhost_iotlb_dropped(vhost);
        break;
    case VHOST_WAIT_CHANGE:
        vhost_iotlb_dropped(vhost);
        (void)viommu_change_complete(vhost->iommu, wait->token, 0);
        break;
    default:
        break;
    }
}

static void on_answer(struct viommu_vhost *vhost, const struct vhost_wait *wait)
{
    uint64_t number = vhost->main.payload.number;

    switch (wait->kind) {
    case VHOST_WAIT_FEATURES:
        on_features(vhost, number);
        break;
    case VHOST_WAIT_PROTOCOL:
        on_protocol(vhost, number);
        break;
    case VHOST_WAIT_QUEUES:
        on_queues(vhost, number);
        break;
    case VHOST_WAIT_STOPPED:
        on_stopped(vhost, wait, &vhost->main.payload.state);
        break;
    default:
        on_acknowledged(vhost, wait);
    }
}

/* A message on the first socket: the answer to the oldest question. */
static void receive_answer(struct viommu_vhost *vhost)
{
    const struct vhost_user_header *header = &vhost->main.header;
    struct vhost_wait wait = vhost->waits[vhost->wait_first];

    if (!vhost->wait_count || header->request != wait.request || header->size != sizeof(uint64_t) ||
        (header->flags & (VHOST_USER_VERSION_MASK | VHOST_USER_REPLY)) !=
            (VHOST_USER_VERSION | VHOST_USER_REPLY)) {
        vhost_break(vhost, -EPROTO);
        return;
    }
    if (!is_question(&wait) && vhost->main.payload.number) {
        vhost_break(vhost, -EIO); /* it refused; and who waits still does */
        return;
    }
    vhost->wait_first = (vhost->wait_first + 1) % VHOST_WAITS_MAX;
    vhost->wait_count--;
    on_answer(vhost, &wait);
}

/* A message on the second: it misses a translation, there is nothing else that it may ask. */
static void receive_question(struct viommu_vhost *vhost)
{
    const struct vhost_user_header *header = &vhost->requests.header;
    uint64_t done = 0;

    if (header->request != VHOST_USER_BACKEND_IOTLB_MSG ||
        header->size != sizeof(struct vhost_iotlb_msg) ||
        (header->flags & (VHOST_USER_VERSION_MASK | VHOST_USER_REPLY)) != VHOST_USER_VERSION) {
        vhost_break(vhost, -EPROTO);
        return;
    }
    vhost_iotlb_asked(vhost, &vhost->requests.payload.iotlb);
    if (vhost_alive(vhost) && (header->flags & VHOST_USER_NEED_REPLY)) {
        int ret = vhost_channel_put(&vhost->requests, header->request, VHOST_USER_REPLY, &done,
                                    sizeof(done), NULL, 0);

        if (ret) {
            vhost_break(vhost, ret);
        }
    }
}

void vhost_front_receive(struct viommu_vhost *vhost)
{
    int ret = 1;

    for (unsigned i = 0; i < VHOST_BUDGET && ret > 0 && vhost_alive(vhost); i++) {
        ret = vhost_channel_receive(&vhost->main);
        if (ret > 0) {
            receive_answer(vhost);
        } else if (ret < 0) {
            vhost_break(vhost, ret);
        }
    }
    ret = 1;
    for (unsigned i = 0; i < VHOST_BUDGET && ret > 0 && vhost_alive(vhost) && !vhost_is_busy(vhost);
         i++) {
        ret = vhost_channel_receive(&vhost->requests);
        if (ret > 0) {
            receive_question(vhost);
        } else if (ret < 0) {
            vhost_break(vhost, ret);
        }
    }
}
