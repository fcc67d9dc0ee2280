/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * See net.h.
 *
 * What should be is looked at in one place (settle): which rings the driver lets run, and whether
 * the far process can work on them. Everything that may change either calls it.
 *
 * A ring is *idle*, *runs*, is *stopping*: asked for back, and not let go of yet; or it is *cut*:
 * it ran when the far process left, and goes on with the next one. While any that ran before a
 * reset is not idle, the function is *draining*, and no ring starts.
 */
#include "virtio/net.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <viommu/vhost.h>

#include "clock.h"
#include "log.h"
#include "loop.h"
#include "shared_eventfd.h"
#include "unix_socket.h"
#include "virtio/pci.h"

enum {
    QUEUES = 2, /* what the driver receives, what it sends */
    QUEUE_SIZE = 256,
    CONFIG_SIZE = 8, /* MAC and status */
    USED_INDEX = 2,  /* in the used ring */

    /* Pauses between attempts to reach the far process. */
    PAUSE_MIN_MS = 50,
    PAUSE_MAX_MS = 2000,
    STEADY_MS = 2000, /* one that stays for so long is not one that comes and goes */

    LINES_MAX = 100, /* that the far process can have printed */
};

#define BIT(n) (UINT64_C(1) << (n))

/* What this function offers by itself. */
#define OWN_FEATURES                                                                               \
    (BIT(VIRTIO_NET_F_MAC) | BIT(VIRTIO_NET_F_STATUS) | BIT(VIRTIO_F_VERSION_1) |                  \
     BIT(VIRTIO_F_ACCESS_PLATFORM))

/* What concerns the rings' contents alone: it is offered if the far process offers it. */
#define FAR_FEATURES                                                                               \
    (BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_GUEST_TSO4) |        \
     BIT(VIRTIO_NET_F_GUEST_TSO6) | BIT(VIRTIO_NET_F_GUEST_ECN) | BIT(VIRTIO_NET_F_HOST_TSO4) |    \
     BIT(VIRTIO_NET_F_HOST_TSO6) | BIT(VIRTIO_NET_F_HOST_ECN) | BIT(VIRTIO_NET_F_MRG_RXBUF) |      \
     BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(VIRTIO_RING_F_EVENT_IDX))

enum ring_state { RING_IDLE, RING_RUNS, RING_STOPPING, RING_CUT };

struct net_ring {
    struct virtio_net *net;
    enum ring_state state;
    uint16_t next; /* where to go on */
    bool lost;     /* the far process left without saying: the used ring has it */
    int kick;      /* -1: none yet for the next far process; so of call */
    struct loop_source call;
};

struct virtio_net {
    struct virtio_pci pci;
    struct virtio_net_setup setup;
    struct viommu_vhost *vhost; /* NULL: the far process was never reached */
    struct loop_source far;     /* of vhost, which has something to do */
    struct loop_source timer;   /* the next attempt to reach it */
    unsigned pause_ms;
    int refused;       /* what the last attempt failed with; 0: it did not */
    uint64_t ready_at; /* in ms, when the far process became ready */
    struct net_ring rings[QUEUES];
    bool up;         /* the link, as the driver is told */
    bool accepted;   /* the far process knows what the driver has settled on */
    bool unsuitable; /* and cannot do that */
    bool draining;
    bool driver_waits; /* for its reset, which ends when all is drained */
    uint64_t lines;
    uint64_t arrivals, departures, kicks, calls;
};

__attribute__((format(printf, 2, 3))) static void say(struct virtio_net *net, const char *format,
                                                      ...)
{
    char text[256];
    va_list arguments;

    if (net->lines++ < LINES_MAX) {
        va_start(arguments, format);
        vsnprintf(text, sizeof(text), format, arguments);
        va_end(arguments);
        server_log("%s: %s", net->pci.function.name, text);
    }
}

static bool is_ready(const struct virtio_net *net)
{
    return net->vhost && viommu_vhost_state(net->vhost) == VIOMMU_VHOST_READY;
}

/* ---- link ---- */

static void update_link(struct virtio_net *net)
{
    bool up = is_ready(net) && !net->unsuitable;

    if (up != net->up) {
        net->up = up;
        virtio_pci_config_changed(&net->pci);
    }
}

/* ---- rings ---- */

/* Has the far process told what the driver has settled on. Returns whether that holds now. No ring
 * runs then: what was accepted is forgotten only with the driver or with the far process, when all
 * are idle or cut. */
static bool accept_far(struct virtio_net *net)
{
    uint64_t settled = virtio_pci_settled(&net->pci), far;
    int ret;

    if (net->accepted || net->unsuitable || settled == 0) {
        return net->accepted;
    }
    far = viommu_vhost_features(net->vhost);
    ret =
        settled & ~(far | OWN_FEATURES) ? -ENOTSUP : viommu_vhost_accept(net->vhost, settled & far);
    net->accepted = ret == 0;
    net->unsuitable = ret < 0;
    if (net->unsuitable) {
        say(net, "%s offers less than the driver uses: it has to start again", net->setup.far);
    }
    return net->accepted;
}

/* Where a ring goes on whose far process left, and did not say how far it was. */
static void find_next(struct virtio_net *net, unsigned queue)
{
    struct net_ring *own = &net->rings[queue];
    uint64_t place = net->pci.queues[queue].ring.used + USED_INDEX;
    uint16_t index;

    if (own->lost &&
        viommu_device_read(net->setup.device, NULL, place, &index, sizeof(index)) == 0) {
        own->next = le16toh(index);
    }
    own->lost = false;
}

static void start_ring(struct virtio_net *net, unsigned queue)
{
    const struct virtio_ring *ring = &net->pci.queues[queue].ring;
    struct net_ring *own = &net->rings[queue];
    const struct viommu_vhost_ring setup = {
        .size = ring->size,
        .next = own->next,
        .descriptors = ring->descriptors,
        .available = ring->available,
        .used = ring->used,
        .kick = own->kick,
        .call = own->call.fd,
    };
    int ret = viommu_vhost_ring_start(net->vhost, queue, &setup);

    if (ret < 0) {
        say(net, "queue %u cannot start: %s", queue, strerror(-ret));
        return;
    }
    own->state = RING_RUNS;
    (void)shared_eventfd_signal(own->kick); /* there may be something in it already */
}

static void stop_ring(struct virtio_net *net, unsigned queue)
{
    struct net_ring *own = &net->rings[queue];

    if ((own->state == RING_RUNS || own->state == RING_CUT) &&
        viommu_vhost_ring_stop(net->vhost, queue) == 0) {
        own->lost = own->state == RING_CUT;
        own->state = own->state == RING_CUT ? RING_IDLE : RING_STOPPING;
    }
}

/* Makes rings run that should, and stops those that should not. */
static void settle(struct virtio_net *net)
{
    bool can = !net->draining && is_ready(net) && accept_far(net);

    for (unsigned i = 0; i < QUEUES; i++) {
        if (net->draining || !virtio_pci_queue_runs(&net->pci, i)) {
            stop_ring(net, i);
        } else if (can && net->rings[i].state == RING_IDLE) {
            find_next(net, i);
            start_ring(net, i);
        }
    }
    update_link(net);
}

static bool all_idle(const struct virtio_net *net)
{
    for (unsigned i = 0; i < QUEUES; i++) {
        if (net->rings[i].state != RING_IDLE) {
            return false;
        }
    }
    return true;
}

/* What was settled with a driver that is gone. */
static void forget_driver(struct virtio_net *net)
{
    for (unsigned i = 0; i < QUEUES; i++) {
        net->rings[i].next = 0;
        net->rings[i].lost = false;
    }
    net->accepted = net->unsuitable = false;
    if (!is_ready(net)) {
        virtio_pci_offer(&net->pci, OWN_FEATURES); /* whoever comes can do that */
    }
}

/* A ring became idle. */
static void look_whether_drained(struct virtio_net *net)
{
    if (!net->draining || !all_idle(net)) {
        return;
    }
    net->draining = false;
    forget_driver(net);
    if (net->driver_waits) {
        net->driver_waits = false;
        virtio_pci_reset_done(&net->pci);
    }
}

/* Returns whether the far process still has to let go. */
static bool drain(struct virtio_net *net)
{
    for (unsigned i = 0; i < QUEUES; i++) {
        stop_ring(net, i);
    }
    net->draining = !all_idle(net);
    if (!net->draining) {
        forget_driver(net);
    }
    update_link(net);
    return net->draining;
}

static void called(void *opaque, uint32_t events)
{
    struct net_ring *ring = opaque;
    struct virtio_net *net = ring->net;

    (void)events;
    if (ring->call.fd >= 0 && shared_eventfd_take(ring->call.fd)) {
        net->calls++;
        virtio_pci_interrupt(&net->pci, (unsigned)(ring - net->rings));
    }
}

/* ---- eventfds, of which each far process gets new ones ---- */

static void unwatch(struct virtio_net *net, struct loop_source *source)
{
    if (source->fd >= 0) {
        loop_remove(net->setup.loop, source);
        close(source->fd);
        source->fd = -1;
    }
}

static int watch(struct virtio_net *net, struct loop_source *source, int fd,
                 void (*then)(void *opaque, uint32_t events), void *opaque)
{
    *source = (struct loop_source){.fd = fd, .events = EPOLLIN, .ready = then, .opaque = opaque};
    return loop_add(net->setup.loop, source);
}

/* A far process that is gone, or was cut off and lives, is not listened to any more. */
static void drop_eventfds(struct virtio_net *net, struct net_ring *ring)
{
    unwatch(net, &ring->call);
    if (ring->kick >= 0) {
        close(ring->kick);
        ring->kick = -1;
    }
}

static int make_eventfds(struct virtio_net *net, struct net_ring *ring)
{
    int call, ret;

    ring->kick = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    call = ring->kick < 0 ? -1 : eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    ret = call < 0 ? -errno : watch(net, &ring->call, call, called, ring);
    if (ret < 0) {
        drop_eventfds(net, ring);
    }
    return ret;
}

/* Before the next far process: rings that were cut go on with these. */
static int renew_eventfds(struct virtio_net *net)
{
    int ret = 0;

    for (unsigned i = 0; i < QUEUES && ret == 0; i++) {
        struct net_ring *ring = &net->rings[i];

        if (ring->kick < 0) {
            ret = make_eventfds(net, ring);
        }
        if (ret == 0 && ring->state == RING_CUT) {
            ret = viommu_vhost_ring_renew(net->vhost, i, ring->kick, ring->call.fd);
        }
    }
    return ret;
}

/* ---- the far process ---- */

static void try_later(struct virtio_net *net)
{
    const struct itimerspec pause = {
        .it_value = {.tv_sec = net->pause_ms / 1000, .tv_nsec = net->pause_ms % 1000 * 1000000L},
    };

    timerfd_settime(net->timer.fd, 0, &pause, NULL);
    net->pause_ms = 2 * net->pause_ms < PAUSE_MAX_MS ? 2 * net->pause_ms : PAUSE_MAX_MS;
}

/*
 * Rings that were cut go on, with what the driver had settled on: it is interrupted, because what
 * the last far process would have said after it was cut off nobody heard. Returns whether there
 * were any.
 */
static bool resume(struct virtio_net *net)
{
    bool any = false;

    for (unsigned i = 0; i < QUEUES; i++) {
        if (net->rings[i].state == RING_CUT) {
            net->rings[i].state = RING_RUNS;
            virtio_pci_interrupt(&net->pci, i);
            (void)shared_eventfd_signal(net->rings[i].kick);
            any = true;
        }
    }
    return any;
}

static void ready(void *opaque)
{
    struct virtio_net *net = opaque;

    net->arrivals++;
    net->ready_at = clock_ms();
    net->accepted = resume(net);
    net->unsuitable = false;
    say(net, "%s is there", net->setup.far);
    virtio_pci_offer(&net->pci, OWN_FEATURES | (viommu_vhost_features(net->vhost) & FAR_FEATURES));
    settle(net);
}

static void stopped(void *opaque, unsigned ring, uint16_t next)
{
    struct virtio_net *net = opaque;

    net->rings[ring].state = RING_IDLE;
    net->rings[ring].next = next;
    net->rings[ring].lost = false;
    look_whether_drained(net);
    settle(net);
}

static void failed(void *opaque, int error)
{
    struct virtio_net *net = opaque;

    net->departures++;
    say(net, "%s is gone: %s", net->setup.far,
        error == -ECONNRESET  ? "it left"
        : error == -ETIMEDOUT ? "it does not answer"
        : error == -EPROTO    ? "what it says makes no sense"
        : error == -ENOTSUP   ? "it offers less than is needed"
                              : strerror(-error));
    for (unsigned i = 0; i < QUEUES; i++) {
        struct net_ring *ring = &net->rings[i];

        called(ring, 0); /* what it said last */
        drop_eventfds(net, ring);
        ring->lost |= ring->state == RING_STOPPING;
        ring->state = ring->state == RING_RUNS || ring->state == RING_CUT ? RING_CUT : RING_IDLE;
    }
    net->accepted = false;
    look_whether_drained(net);
    update_link(net);
    if (net->ready_at && clock_ms() - net->ready_at >= STEADY_MS) {
        net->pause_ms = PAUSE_MIN_MS;
    }
    net->ready_at = 0;
    try_later(net);
}

static void far_ready(void *opaque, uint32_t events)
{
    (void)events;
    viommu_vhost_process(((struct virtio_net *)opaque)->vhost);
}

/* The first connection. */
static int make_vhost(struct virtio_net *net, int fd)
{
    const struct viommu_vhost_config config = {
        .kind = VIOMMU_VHOST_USER,
        .device = net->setup.device,
        .memory = net->setup.memory,
        .fd = fd,
        .features = FAR_FEATURES,
        .rings = QUEUES,
        .timeout_ms = net->setup.timeout_ms,
        .writable_is_readable = true, /* DPDK and Linux know each other so */
        .ready = ready,
        .stopped = stopped,
        .failed = failed,
        .opaque = net,
    };
    int ret = viommu_vhost_create(&config, &net->vhost);

    if (ret < 0) {
        close(fd);
        return ret;
    }
    ret = watch(net, &net->far, viommu_vhost_event_fd(net->vhost), far_ready, net);
    if (ret < 0) {
        viommu_vhost_destroy(net->vhost);
        net->vhost = NULL;
    }
    return ret;
}

/* Reaches for the far process. What it says comes later. */
static int reach(struct virtio_net *net)
{
    int ret = renew_eventfds(net), fd;

    if (ret < 0) {
        return ret;
    }
    fd = unix_socket_connect(net->setup.far);
    if (fd < 0) {
        return fd;
    }
    if (!net->vhost) {
        return make_vhost(net, fd);
    }
    viommu_device_reset(net->setup.device); /* it was denied if the last one held on to memory */
    ret = viommu_vhost_reconnect(net->vhost, fd);
    if (ret < 0) {
        close(fd);
    }
    return ret;
}

static void attempt(struct virtio_net *net)
{
    int ret = reach(net);

    if (ret < 0) {
        if (ret != net->refused) {
            say(net, "waiting for %s: %s", net->setup.far, strerror(-ret));
        }
        try_later(net);
    }
    net->refused = ret;
}

static void timer_ready(void *opaque, uint32_t events)
{
    struct virtio_net *net = opaque;
    uint64_t count;

    (void)events;
    if (read(net->timer.fd, &count, sizeof(count)) == sizeof(count)) {
        attempt(net);
    }
}

/* ---- the device, for its transport ---- */

static int accept(void *opaque, uint64_t features)
{
    (void)opaque;
    (void)features; /* what was offered: the far process hears of it before its rings start */
    return 0;
}

static void notified(void *opaque, unsigned queue)
{
    struct virtio_net *net = opaque;

    if (net->rings[queue].state == RING_RUNS) {
        net->kicks++;
        (void)shared_eventfd_signal(net->rings[queue].kick);
    } else {
        settle(net);
    }
}

static void halted(void *opaque)
{
    settle(opaque);
}

static int reset(void *opaque)
{
    struct virtio_net *net = opaque;

    net->driver_waits = drain(net);
    return net->driver_waits;
}

static void power_on(void *opaque)
{
    struct virtio_net *net = opaque;

    net->driver_waits = false;
    drain(net);
}

static bool powering_on(void *opaque)
{
    return ((const struct virtio_net *)opaque)->draining;
}

static void config_read(void *opaque, uint32_t offset, void *data, uint32_t size)
{
    const struct virtio_net *net = opaque;
    uint8_t config[CONFIG_SIZE] = {0};

    memcpy(config, net->setup.mac, VIRTIO_NET_MAC_SIZE);
    config[VIRTIO_NET_MAC_SIZE] = net->up ? VIRTIO_NET_S_LINK_UP : 0;
    memcpy(data, config + offset, size);
}

static bool config_write(void *opaque, uint32_t offset, const void *data, uint32_t size)
{
    (void)opaque;
    (void)offset;
    (void)data;
    (void)size;
    return false; /* it is the device's alone */
}

static const struct virtio_device_ops ops = {
    .accept = accept,
    .notified = notified,
    .halted = halted,
    .reset = reset,
    .power_on = power_on,
    .powering_on = powering_on,
    .config_read = config_read,
    .config_write = config_write,
};

/* ---- life ---- */

static int make_timer(struct virtio_net *net)
{
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);

    return timer < 0 ? -errno : watch(net, &net->timer, timer, timer_ready, net);
}

int virtio_net_create(const struct virtio_net_setup *setup, const char *name,
                      struct virtio_net **out)
{
    struct virtio_net *net = calloc(1, sizeof(*net));
    const struct virtio_device device = {
        .id = 1,
        .class_code = 0x020000,
        .features = OWN_FEATURES,
        .config_size = CONFIG_SIZE,
        .queues = QUEUES,
        .queue_size = QUEUE_SIZE,
        .elsewhere = true,
        .ops = &ops,
        .opaque = net,
    };
    int ret;

    if (!net) {
        return -ENOMEM;
    }
    net->setup = *setup;
    net->pause_ms = PAUSE_MIN_MS;
    net->timer.fd = -1;
    for (unsigned i = 0; i < QUEUES; i++) {
        net->rings[i].net = net;
        net->rings[i].kick = net->rings[i].call.fd = -1;
    }
    virtio_pci_init(&net->pci, name, &device, NULL);
    ret = make_timer(net);
    if (ret < 0) {
        virtio_net_destroy(net);
        return ret;
    }
    attempt(net);
    *out = net;
    return 0;
}

void virtio_net_destroy(struct virtio_net *net)
{
    if (!net) {
        return;
    }
    if (net->vhost) {
        loop_remove(net->setup.loop, &net->far);
        viommu_vhost_destroy(net->vhost);
    }
    unwatch(net, &net->timer);
    for (unsigned i = 0; i < QUEUES; i++) {
        drop_eventfds(net, &net->rings[i]);
    }
    free(net);
}

struct pci_function *virtio_net_function(struct virtio_net *net)
{
    return &net->pci.function;
}

void virtio_net_summary(const struct virtio_net *net,
                        void (*line)(const char *name, uint64_t value))
{
    struct viommu_vhost_statistics of = {0};

    if (net->vhost) {
        viommu_vhost_statistics(net->vhost, &of, sizeof(of));
    }
    line("far process came", net->arrivals);
    line("far process left", net->departures);
    line("notifications passed on", net->kicks);
    line("interrupts passed on", net->calls);
    line("far process asked for addresses", of.misses);
    line("of them refused", of.denied);
    line("refused, and later allowed", of.healed);
    line("translations given", of.updates);
    line("translations taken back", of.invalidations);
    line("of them acknowledged", of.acknowledged);
}
