/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The object: its life, its lock, what comes from elsewhere, and viommu_vhost_process.
 *
 * The end of a far side comes in two steps. Whoever finds that something is wrong notes it
 * (vhost_break), on whatever thread that is; viommu_vhost_process then cuts it off, and answers all
 * that waited for it: in a change callback nothing can be completed. A fence comes from the other
 * side: the guest's invalidation is over by then, so the connection is shut down at once, and
 * viommu_vhost_process does the rest.
 */
#include "vhost/private.h"

#include "base/alloc.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

void vhost_break(struct viommu_vhost *vhost, int error)
{
    if (vhost_alive(vhost)) {
        vhost->error = error;
        wake_kick(&vhost->wake);
    }
}

void vhost_opened(struct viommu_vhost *vhost, int fd)
{
    iommu_lock(vhost->iommu);
    vhost->open_fd = fd;
    atomic_store(&vhost->fenced, 0);
    iommu_unlock(vhost->iommu);
}

uint64_t vhost_now(const struct viommu_vhost *vhost)
{
    uint64_t now;

    if (!vhost->iommu->clock) {
        return iommu_now(vhost->iommu);
    }
    /* The embedder's is called under the lock, and may count on that. */
    iommu_lock(vhost->iommu);
    now = iommu_now(vhost->iommu);
    iommu_unlock(vhost->iommu);
    return now;
}

/* ---- what is polled for ---- */

void vhost_unwatch(struct viommu_vhost *vhost, int fd)
{
    if (fd >= 0) {
        (void)epoll_ctl(vhost->poll_fd, EPOLL_CTL_DEL, fd, NULL);
    }
}

/* What is polled for nothing is taken out: that its peer hung up would be told all the same. */
static void watch(struct viommu_vhost *vhost, unsigned which, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events};
    int operation = EPOLL_CTL_MOD;

    if (vhost->watched[which] == events || fd < 0) {
        return;
    }
    if (!events) {
        operation = EPOLL_CTL_DEL;
    } else if (!vhost->watched[which]) {
        operation = EPOLL_CTL_ADD;
    }
    vhost->watched[which] = events;
    if (epoll_ctl(vhost->poll_fd, operation, fd, &event)) {
        vhost_break(vhost, -errno);
    }
}

/* Sends what is waiting, and has it told when more can be done. */
static void settle(struct viommu_vhost *vhost)
{
    struct vhost_channel *main = &vhost->main;
    struct vhost_channel *requests = &vhost->requests;
    int ret = atomic_load(&vhost->fenced);

    if (ret) {
        vhost_break(vhost, ret); /* before what writing to it says */
        ret = 0;
    }
    if (vhost->config.kind == VIOMMU_VHOST_KERNEL) {
        return;
    }
    if (vhost_alive(vhost)) {
        ret = vhost_channel_flush(main);
        ret = ret ? ret : vhost_channel_flush(requests);
    }
    if (ret) {
        vhost_break(vhost, ret == -EPIPE ? -ECONNRESET : ret);
    }
    if (vhost_alive(vhost) && !vhost_is_busy(vhost) &&
        (vhost->rings_due || vhost->questions_left)) {
        vhost->questions_left = false;
        wake_kick(&vhost->wake); /* all has left, or come, at once: nothing else may come */
    }
    watch(vhost, 0, main->fd, EPOLLIN | (vhost_channel_waiting(main) ? EPOLLOUT : 0u));
    watch(vhost, 1, requests->fd,
          (vhost_is_busy(vhost) ? 0u : EPOLLIN) |
              (vhost_channel_waiting(requests) ? EPOLLOUT : 0u));
}

/*
 * Sees to it that it is told when the next answer is late, or something is to be tried again. A
 * timer that is set too early stays: most answers come, and each time that is set costs a system
 * call.
 */
static void set_timer(struct viommu_vhost *vhost)
{
    uint64_t next = vhost->retry_at;

    if (vhost->late_at && (!next || vhost->late_at < next)) {
        next = vhost->late_at;
    }
    /* With a clock of the embedder's own there is no descriptor that could tell. */
    if (!vhost->iommu->clock && next && (!vhost->timer_at || next < vhost->timer_at)) {
        vhost->timer_at = next;
        wake_at(&vhost->wake, next);
    }
}

/* ---- the end of a far side ---- */

/* `error` is why the guest's invalidations were not acknowledged; 0: they count as if they were. */
static void answer_waits(struct viommu_vhost *vhost, int error)
{
    for (; vhost->wait_count; vhost->wait_count--) {
        const struct vhost_wait *wait = &vhost->waits[vhost->wait_first];

        if (wait->kind == VHOST_WAIT_CHANGE) {
            /* It never said that it dropped it, and may still be at work there. */
            (void)viommu_change_complete(vhost->iommu, wait->token, error);
        }
        vhost->wait_first = (vhost->wait_first + 1) % VHOST_WAITS_MAX;
    }
    vhost->late_at = 0;
    vhost->tables_out = 0;
    vhost->table_due = false;
    if (vhost->memory_waits) {
        vhost->memory_waits = false;
        (void)viommu_memory_listener_complete(vhost->listener, vhost->memory_token);
    }
}

static void cut_off(struct viommu_vhost *vhost, int error)
{
    vhost->state = VIOMMU_VHOST_FAILED;
    vhost->tell_ready = false;
    vhost->tell_failed = true;
    vhost_front_close(vhost);
    if (vhost->fd >= 0) {
        vhost_opened(vhost, -1);
        vhost_kernel_end(vhost->fd);
        vhost_unwatch(vhost, vhost->fd);
        close(vhost->fd);
        vhost->fd = -1;
    }
    answer_waits(vhost, error);
    vhost_iotlb_forget(vhost);
    for (unsigned i = 0; i < vhost->config.rings; i++) {
        struct vhost_ring *ring = &vhost->rings[i];

        if (ring->state == VHOST_RING_ON) {
            ring->state = VHOST_RING_CUT;
        } else if (ring->state == VHOST_RING_STOPPING) {
            vhost_ring_close(ring);
        }
        ring->tell_stopped = false;
    }
}

/* Most answers have come by the time that the first of them would be late: only then are the others
   looked at. */
static void look_for_late(struct viommu_vhost *vhost, uint64_t now)
{
    if (!vhost->late_at || now < vhost->late_at) {
        return;
    }
    vhost->late_at = 0;
    for (unsigned i = 0; i < vhost->wait_count; i++) {
        uint64_t deadline = vhost->waits[(vhost->wait_first + i) % VHOST_WAITS_MAX].deadline;

        if (deadline <= now) {
            vhost_break(vhost, -ETIMEDOUT);
            return;
        }
        if (!vhost->late_at || deadline < vhost->late_at) {
            vhost->late_at = deadline;
        }
    }
}

/* ---- what comes from elsewhere ---- */

static int on_change(void *opaque, const struct viommu_change *change)
{
    struct viommu_vhost *vhost = opaque;
    int ret;

    pthread_mutex_lock(&vhost->lock);
    ret = vhost_iotlb_changed(vhost, change);
    settle(vhost);
    set_timer(vhost);
    pthread_mutex_unlock(&vhost->lock);
    return ret;
}

/* Under the IOMMU's lock. */
static void on_drop(struct notify_follower *follower)
{
    struct viommu_vhost *vhost = (struct viommu_vhost *)follower;

    atomic_store(&vhost->drop_wanted, true);
    wake_kick(&vhost->wake);
}

/*
 * Likewise. Whoever has the other end of a socket reads that it is over, whatever we do from here
 * on. There is no such thing to do to the kernel: it is told to drop everything once more.
 */
static void on_fence(struct notify_follower *follower, int error)
{
    struct viommu_vhost *vhost = (struct viommu_vhost *)follower;

    if (vhost->open_fd < 0) {
        return;
    }
    if (vhost->config.kind == VIOMMU_VHOST_KERNEL) {
        vhost_kernel_end(vhost->open_fd);
    } else {
        (void)shutdown(vhost->open_fd, SHUT_RDWR);
    }
    atomic_store(&vhost->fenced, error);
    wake_kick(&vhost->wake);
}

/* Whether the far side has a memory table, which has to follow. */
static bool has_table(const struct viommu_vhost *vhost)
{
    return vhost_alive(vhost) && vhost->table_told;
}

static int on_changing(void *opaque, const struct viommu_memory_change *change)
{
    struct viommu_vhost *vhost = opaque;
    bool waits = false;

    pthread_mutex_lock(&vhost->lock);
    if (vhost_table_remove(&vhost->table, change->removed, change->removed_count) &&
        vhost_alive(vhost)) {
        if (vhost->config.kind == VIOMMU_VHOST_KERNEL) {
            vhost_iotlb_drop(vhost);
        } else {
            vhost_front_send_table(vhost);
            waits = true;
        }
    }
    if (vhost->error && vhost->state != VIOMMU_VHOST_FAILED) {
        /* It is about to be cut off, and may have the memory until then. */
        waits = true;
    }
    if (waits) {
        vhost->memory_waits = true;
        vhost->memory_token = change->token;
    }
    settle(vhost);
    wake_kick(&vhost->wake);
    pthread_mutex_unlock(&vhost->lock);
    return waits ? VIOMMU_PENDING : 0;
}

static void on_changed(void *opaque, const struct viommu_memory_change *change)
{
    struct viommu_vhost *vhost = opaque;
    int ret;

    pthread_mutex_lock(&vhost->lock);
    ret = vhost_table_add(&vhost->table, change->added, change->added_count);
    if (ret) {
        vhost->memory_lost = true;
        vhost_break(vhost, ret);
    } else if (has_table(vhost) && vhost_table_grown(&vhost->table)) {
        if (vhost->tables_out) {
            vhost->table_due = true;
        } else {
            vhost_front_send_table(vhost);
        }
    }
    settle(vhost);
    wake_kick(&vhost->wake);
    pthread_mutex_unlock(&vhost->lock);
}

static const struct viommu_memory_listener_ops memory_ops = {
    .changing = on_changing,
    .changed = on_changed,
};

/* Under the memory's lock. */
static int on_slots(void *opaque, const struct viommu_memory_slot *slots, size_t count)
{
    struct viommu_vhost *vhost = opaque;

    return vhost_table_add(&vhost->table, slots, count);
}

/* ---- work ---- */

static void work(struct viommu_vhost *vhost)
{
    uint64_t now = vhost_now(vhost);

    if (vhost->timer_at && vhost->timer_at <= now) {
        vhost->timer_at = 0;
    }
    if (atomic_load(&vhost->fenced)) {
        vhost_break(vhost, atomic_load(&vhost->fenced));
    }
    if (atomic_exchange(&vhost->drop_wanted, false)) {
        vhost_iotlb_drop(vhost);
    }
    if (vhost->config.kind == VIOMMU_VHOST_KERNEL) {
        vhost_kernel_receive(vhost);
    } else if (vhost_alive(vhost)) {
        vhost_front_receive(vhost);
    }
    if (vhost_alive(vhost)) {
        look_for_late(vhost, now);
        vhost_iotlb_work(vhost, now);
    }
    settle(vhost);
    if (vhost->error && vhost->state != VIOMMU_VHOST_FAILED) {
        cut_off(vhost, vhost->error);
    }
    set_timer(vhost);
}

/* Makes one callback that is due, without the lock. Returns false when none is. */
static bool tell(struct viommu_vhost *vhost)
{
    const struct viommu_vhost_config *config = &vhost->config;
    bool ready = vhost->tell_ready;
    bool failed = vhost->tell_failed;
    unsigned ring = 0;
    uint16_t next = 0;
    int error = vhost->error;

    while (ring < config->rings && !vhost->rings[ring].tell_stopped) {
        ring++;
    }
    if (!ready && !failed && ring == config->rings) {
        return false;
    }
    if (ready) {
        vhost->tell_ready = false;
    } else if (failed) {
        vhost->tell_failed = false;
    } else {
        vhost->rings[ring].tell_stopped = false;
        next = vhost->rings[ring].stopped_at;
    }
    pthread_mutex_unlock(&vhost->lock);
    if (ready && config->ready) {
        config->ready(config->opaque);
    } else if (!ready && failed && config->failed) {
        config->failed(config->opaque, error);
    } else if (!ready && !failed && config->stopped) {
        config->stopped(config->opaque, ring, next);
    }
    pthread_mutex_lock(&vhost->lock);
    return true;
}

int viommu_vhost_process(struct viommu_vhost *vhost)
{
    int ret;

    if (iommu_reentered(vhost->iommu)) {
        return -EDEADLK; /* no change can be completed there */
    }
    if (!epoch_prepare()) {
        wake_kick(&vhost->wake);
        return -ENOMEM;
    }
    pthread_mutex_lock(&vhost->lock);
    wake_clear(&vhost->wake);
    work(vhost);
    while (tell(vhost)) {
        /* one after the other */
    }
    ret = vhost->state == VIOMMU_VHOST_FAILED ? vhost->error : 0;
    pthread_mutex_unlock(&vhost->lock);
    return ret;
}

int viommu_vhost_event_fd(struct viommu_vhost *vhost)
{
    return vhost->poll_fd;
}

/* ---- life ---- */

static int check(const struct viommu_vhost_config *config)
{
    if (!config->device || !config->memory || config->fd < 0 ||
        config->memory != config->device->iommu->memory ||
        (config->kind != VIOMMU_VHOST_USER && config->kind != VIOMMU_VHOST_KERNEL)) {
        return -EINVAL;
    }
    if (config->kind == VIOMMU_VHOST_USER &&
        (!config->rings || config->rings > VIOMMU_VHOST_RINGS_MAX)) {
        return -EINVAL;
    }
    return 0;
}

static int subscribe(struct viommu_vhost *vhost)
{
    struct viommu_subscription what = {
        .kinds = VIOMMU_CHANGE_UNMAP,
        .form = VIOMMU_FORM_RANGE,
        .role = VIOMMU_ROLE_CACHE,
        .change = on_change,
        .opaque = vhost,
    };

    return notify_follow(vhost->config.device, &what, &vhost->follower, &vhost->subscriber);
}

static int begin_kernel(struct viommu_vhost *vhost)
{
    struct epoll_event event = {.events = EPOLLIN};
    int ret = vhost_kernel_begin(vhost->config.fd);

    if (!ret && epoll_ctl(vhost->poll_fd, EPOLL_CTL_ADD, vhost->config.fd, &event)) {
        ret = -errno;
    }
    if (!ret) {
        vhost->fd = vhost->config.fd;
        vhost_opened(vhost, vhost->fd);
        vhost->state = VIOMMU_VHOST_READY;
        vhost->tell_ready = true;
        wake_kick(&vhost->wake);
    }
    return ret;
}

/* What has descriptors: the event fd, and the wake-ups in it. */
static int make_poll(struct viommu_vhost *vhost)
{
    struct epoll_event event = {.events = EPOLLIN};
    int ret = wake_init(&vhost->wake, NULL, NULL);

    if (ret) {
        return ret;
    }
    vhost->poll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (vhost->poll_fd < 0 ||
        epoll_ctl(vhost->poll_fd, EPOLL_CTL_ADD, vhost->wake.poll_fd, &event)) {
        ret = -errno;
        if (vhost->poll_fd >= 0) {
            close(vhost->poll_fd);
        }
        wake_fini(&vhost->wake);
    }
    return ret;
}

/* All but what destroy undoes before. */
static void release(struct viommu_vhost *vhost)
{
    if (vhost->listener) {
        (void)viommu_memory_listener_remove(vhost->listener);
    }
    (void)viommu_subscriber_destroy(vhost->subscriber);
    for (unsigned i = 0; i < vhost->config.rings; i++) {
        vhost_ring_close(&vhost->rings[i]);
    }
    vhost_front_close(vhost);
    vhost_table_fini(&vhost->table);
    range_map_fini(&vhost->held);
    close(vhost->poll_fd);
    wake_fini(&vhost->wake);
    pthread_mutex_destroy(&vhost->lock);
    base_free(vhost);
}

static int begin(struct viommu_vhost *vhost)
{
    int ret =
        memory_listener_begin(vhost->config.memory, &memory_ops, vhost, on_slots, &vhost->listener);

    if (!ret) {
        ret = subscribe(vhost);
    }
    if (!ret) {
        pthread_mutex_lock(&vhost->lock);
        ret = vhost->config.kind == VIOMMU_VHOST_KERNEL ? begin_kernel(vhost)
                                                        : vhost_front_open(vhost, vhost->config.fd);
        if (!ret) {
            settle(vhost);
            set_timer(vhost);
        }
        pthread_mutex_unlock(&vhost->lock);
    }
    return ret;
}

int viommu_vhost_create(const struct viommu_vhost_config *config, struct viommu_vhost **out)
{
    struct viommu_vhost *vhost;
    int ret = check(config);

    if (ret) {
        return ret;
    }
    vhost = base_alloc(sizeof(*vhost));
    if (!vhost) {
        return -ENOMEM;
    }
    ret = make_poll(vhost);
    if (ret) {
        base_free(vhost);
        return ret;
    }
    vhost->follower = (struct notify_follower){.drop = on_drop, .fence = on_fence};
    vhost->config = *config;
    if (config->kind == VIOMMU_VHOST_KERNEL) {
        vhost->config.rings = 0;
    }
    vhost->iommu = config->device->iommu;
    vhost->table.of_kernel = config->kind == VIOMMU_VHOST_KERNEL;
    vhost->fd = -1;
    vhost->open_fd = -1;
    vhost->main.fd = -1;
    vhost->requests.fd = -1;
    vhost->requests_fd = -1;
    range_map_init(&vhost->held);
    for (unsigned i = 0; i < VIOMMU_VHOST_RINGS_MAX; i++) {
        vhost->rings[i].setup.kick = -1;
        vhost->rings[i].setup.call = -1;
    }
    (void)pthread_mutex_init(&vhost->lock, NULL);
    ret = begin(vhost);
    if (ret) {
        release(vhost);
        return ret;
    }
    *out = vhost;
    return 0;
}

void viommu_vhost_destroy(struct viommu_vhost *vhost)
{
    if (!vhost) {
        return;
    }
    pthread_mutex_lock(&vhost->lock);
    if (vhost->state != VIOMMU_VHOST_FAILED) {
        vhost_break(vhost, -ECONNRESET);
        cut_off(vhost, 0);
    }
    pthread_mutex_unlock(&vhost->lock);
    release(vhost);
}

/*
 * Where it could not remember what memory there is: it is told from the beginning. It has failed
 * for that, so nobody waits for the old listener's answer.
 */
static int listen_again(struct viommu_vhost *vhost)
{
    bool lost;
    int ret = 0;

    pthread_mutex_lock(&vhost->lock);
    lost = vhost->memory_lost && vhost->state == VIOMMU_VHOST_FAILED;
    pthread_mutex_unlock(&vhost->lock);
    if (!lost) {
        return 0;
    }
    if (vhost->listener) {
        ret = viommu_memory_listener_remove(vhost->listener);
        if (ret) {
            return ret;
        }
        vhost->listener = NULL;
    }
    vhost_table_fini(&vhost->table);
    vhost->memory_lost = false; /* until that is said again, which may be on another thread */
    ret =
        memory_listener_begin(vhost->config.memory, &memory_ops, vhost, on_slots, &vhost->listener);
    if (ret) {
        vhost->memory_lost = true;
    }
    return ret;
}

int viommu_vhost_reconnect(struct viommu_vhost *vhost, int fd)
{
    int ret;

    if (vhost->config.kind == VIOMMU_VHOST_KERNEL) {
        return -ENOTSUP;
    }
    ret = listen_again(vhost);
    if (ret) {
        return ret;
    }
    pthread_mutex_lock(&vhost->lock);
    ret = vhost->state != VIOMMU_VHOST_FAILED           ? -EBUSY
          : atomic_load(&vhost->config.device->denied) ? -EPERM
                                                       : 0;
    if (!ret) {
        vhost->state = VIOMMU_VHOST_NEGOTIATING;
        vhost->error = 0;
        vhost->features = 0;
        ret = vhost_front_open(vhost, fd);
        if (ret) {
            answer_waits(vhost, 0); /* of this connection, so none of the guest's */
            vhost->state = VIOMMU_VHOST_FAILED;
            vhost->error = ret;
        } else {
            settle(vhost);
            wake_kick(&vhost->wake);
        }
    }
    pthread_mutex_unlock(&vhost->lock);
    return ret;
}

/* ---- rings ---- */

/* Whether `size` bytes lie where addresses may. What is aligned, to 2 at least, begins there. */
static bool area_valid(uint64_t first, uint64_t size, uint64_t align)
{
    return first % align == 0 && size - 1 <= VHOST_LAST - first;
}

static bool ring_valid(const struct viommu_vhost_ring *setup)
{
    uint64_t size = setup->size;

    return size && size <= 32768 && !(size & (size - 1)) && setup->kick >= -1 &&
           setup->call >= -1 && area_valid(setup->descriptors, 16 * size, 16) &&
           area_valid(setup->available, 2 * size + 6, 2) &&
           area_valid(setup->used, 8 * size + 6, 4);
}

static int start_ring(struct viommu_vhost *vhost, unsigned number,
                      const struct viommu_vhost_ring *setup)
{
    struct vhost_ring *ring = &vhost->rings[number];
    struct viommu_vhost_ring copy = *setup;
    int ret;

    if (vhost->state == VIOMMU_VHOST_FAILED || vhost->error) {
        return -EPIPE;
    }
    if (vhost->state != VIOMMU_VHOST_READY) {
        return -EAGAIN;
    }
    if (ring->state != VHOST_RING_OFF) {
        return -EBUSY;
    }
    ret = vhost_ring_copy(&copy);
    if (ret) {
        return ret;
    }
    ring->setup = copy;
    vhost_front_start_ring(vhost, number);
    settle(vhost);
    wake_kick(&vhost->wake);
    return 0;
}

int viommu_vhost_ring_start(struct viommu_vhost *vhost, unsigned ring,
                            const struct viommu_vhost_ring *setup)
{
    int ret;

    if (ring >= vhost->config.rings || !ring_valid(setup)) {
        return -EINVAL;
    }
    if (!epoch_prepare()) {
        return -ENOMEM;
    }
    pthread_mutex_lock(&vhost->lock);
    ret = start_ring(vhost, ring, setup);
    pthread_mutex_unlock(&vhost->lock);
    return ret;
}

int viommu_vhost_ring_stop(struct viommu_vhost *vhost, unsigned number)
{
    struct vhost_ring *ring;
    int ret = 0;

    if (number >= vhost->config.rings) {
        return -EINVAL;
    }
    ring = &vhost->rings[number];
    pthread_mutex_lock(&vhost->lock);
    if (ring->state == VHOST_RING_ON) {
        vhost_front_stop_ring(vhost, number);
        settle(vhost);
        wake_kick(&vhost->wake);
    } else if (ring->state == VHOST_RING_CUT) {
        vhost_ring_close(ring);
    } else {
        ret = -EINVAL;
    }
    pthread_mutex_unlock(&vhost->lock);
    return ret;
}

/* ---- what is known ---- */

enum viommu_vhost_state viommu_vhost_state(const struct viommu_vhost *vhost)
{
    return vhost->state;
}

uint64_t viommu_vhost_features(const struct viommu_vhost *vhost)
{
    return vhost->state == VIOMMU_VHOST_READY ? vhost->features : 0;
}

int viommu_vhost_accept(struct viommu_vhost *vhost, uint64_t features)
{
    int ret = 0;

    pthread_mutex_lock(&vhost->lock);
    if (vhost->state != VIOMMU_VHOST_READY) {
        ret = -EAGAIN;
    }
    for (unsigned i = 0; !ret && i < vhost->config.rings; i++) {
        if (vhost->rings[i].state != VHOST_RING_OFF) {
            ret = -EBUSY;
        }
    }
    if (!ret && (features & ~vhost->features)) {
        ret = -EINVAL;
    }
    if (!ret) {
        vhost->accepted = features;
        vhost->features_told = false; /* said before the next ring starts */
    }
    pthread_mutex_unlock(&vhost->lock);
    return ret;
}

int viommu_vhost_statistics(const struct viommu_vhost *vhost,
                            struct viommu_vhost_statistics *statistics, size_t size)
{
    struct viommu_vhost *self = (struct viommu_vhost *)(uintptr_t)vhost;
    size_t known = size < sizeof(vhost->statistics) ? size : sizeof(vhost->statistics);

    pthread_mutex_lock(&self->lock);
    memset(statistics, 0, size);
    memcpy(statistics, &vhost->statistics, known);
    pthread_mutex_unlock(&self->lock);
    return 0;
}
