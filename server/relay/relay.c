/* SPDX-License-Identifier: BSD-2-Clause */
/* The states of a device in another process; relay.h has them. */
#include "relay.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <viommu/device.h>
#include <viommu/notify.h>

#include "clock.h"
#include "commands.h"
#include "log.h"
#include "unix_socket.h"
#include "vfio_user/remote.h"

enum {
    /* Between two tries: it doubles, from the first to the last. */
    PAUSE_MIN_MS = 100,
    PAUSE_MAX_MS = 5000,
    /* Having been up for so long, it begins at the first again. */
    STEADY_MS = 10000,
    /* Between two looks at whether the far server was told of all mappings. */
    LOOK_MS = 2,
    /* After a fence, which calls from where nothing can be left. */
    FENCE_MS = 1,
    /* Lines about one device that are printed: a far server can cause them at will. */
    LINES_MAX = 100,
};

static const char *explain(int error)
{
    return error == -ECONNREFUSED ? "nobody serves there"
           : error == -ENOENT     ? "there is no such socket"
           : error == -ECONNRESET ? "it left"
           : error == -ETIMEDOUT  ? "it does not answer"
           : error == -EPROTO     ? "what it says makes no sense"
           : error == -EAGAIN     ? "it does not take another client"
                                  : strerror(-error);
}

/* ---- the timer ------------------------------------------------------------------------------ */

static void set_timer(struct relay *relay, uint64_t ms)
{
    const struct itimerspec when = {
        .it_value = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000},
    };

    timerfd_settime(relay->timer.fd, 0, &when, NULL);
}

/* ---- down ----------------------------------------------------------------------------------- */

struct viommu_vfio_user_statistics relay_statistics(const struct relay *relay)
{
    struct viommu_vfio_user_statistics all = relay->past, now;

    all.mappings = 0;
    if (relay->far) {
        viommu_vfio_user_statistics(relay->far, &now, sizeof(now));
        all.maps += now.maps;
        all.unmaps += now.unmaps;
        all.mappings = now.mappings;
        all.reads += now.reads;
        all.writes += now.writes;
        all.refused += now.refused;
    }
    return all;
}

/* Leave the far server, if there is one. */
static void leave(struct relay *relay)
{
    relay->past = relay_statistics(relay);
    if (relay->subscriber) {
        viommu_subscriber_destroy(relay->subscriber);
        relay->subscriber = NULL;
    }
    if (relay->far) {
        loop_remove(relay->loop, &relay->watch);
        viommu_vfio_user_destroy(relay->far);
        relay->far = NULL;
    }
    relay_vectors_cut(&relay->vectors);
    far_info_fini(&relay->fresh);
    relay->state = RELAY_DOWN;
    relay->broken = 0;
}

static void wait_for_next_try(struct relay *relay)
{
    set_timer(relay, relay->pause_ms);
    relay->pause_ms = 2 * relay->pause_ms < PAUSE_MAX_MS ? 2 * relay->pause_ms : PAUSE_MAX_MS;
}

/* Say why it is down; once, while tries fail for one reason. */
static void tell(struct relay *relay, int error, const char *what)
{
    if (relay->told_error != error && relay->lines++ < LINES_MAX) {
        server_log("%s: the far server at %s: %s; trying again", relay->config.name,
                   relay->config.path, what ? what : explain(error));
    }
    relay->told_error = error;
}

/* The far server is no good, for this reason. */
static void lose(struct relay *relay, int error, const char *what)
{
    bool was_up = relay->state == RELAY_UP;

    relay->losses += was_up;
    if (was_up && clock_ms() - relay->up_since >= STEADY_MS) {
        relay->pause_ms = PAUSE_MIN_MS;
    }
    leave(relay);
    tell(relay, error, what);
    wait_for_next_try(relay);
    if (!relay_commands_lose(relay)) {
        return;
    }
    /* A reset is what brings it back: it may be there again, once. */
    if (was_up) {
        relay_join_now(relay);
    } else {
        relay_commands_reset(relay, -EIO);
    }
}

/* ---- joining -------------------------------------------------------------------------------- */

static void advance(struct relay *relay);

/* Take in the answer to the question of this step. There is one question at a time, and none after
 * something went wrong. */
static int learn(struct relay *relay, const struct viommu_vfio_user_reply *reply)
{
    switch (relay->step) {
    case RELAY_STEP_DEVICE:
        return far_info_device(&relay->fresh, reply->data, reply->size);
    case RELAY_STEP_REGIONS:
        return far_info_region(&relay->fresh, relay->index, reply->data, reply->size, reply->fds,
                               reply->fd_count, !relay->config.isolate);
    case RELAY_STEP_IRQS:
        return far_info_irqs(&relay->fresh, relay->index, reply->data, reply->size);
    default:
        return 0;
    }
}

static void begin_step(struct relay *relay, enum relay_step step)
{
    relay->step = step;
    relay->index = relay->vector = 0;
}

/* The next of a step, or the next step. */
static void step_on(struct relay *relay)
{
    switch (relay->step) {
    case RELAY_STEP_REGIONS:
        if (++relay->index == relay->fresh.region_count) {
            begin_step(relay, RELAY_STEP_IRQS);
        }
        break;
    case RELAY_STEP_IRQS:
        relay->index++;
        break;
    case RELAY_STEP_VECTORS:
        relay->vector++;
        break;
    default:
        begin_step(relay, relay->step + 1);
    }
}

static void answered(void *opaque, const struct viommu_vfio_user_reply *reply)
{
    struct relay *relay = opaque;
    int ret = reply->error ? reply->error : learn(relay, reply);

    if (ret < 0) {
        relay->broken = ret;
        return;
    }
    step_on(relay);
    advance(relay);
}

/* Ask; the answer leads on. */
static void ask(struct relay *relay, uint16_t command, const void *payload, size_t size, int fd)
{
    int ret = viommu_vfio_user_send(relay->far, command, payload, size, NULL, 0, &fd, fd >= 0,
                                    answered, relay);

    if (ret < 0) {
        relay->broken = ret;
    }
}

static void ask_for_region(struct relay *relay)
{
    const struct vfio_region_info info = {
        .argsz = FAR_REGION_ANSWER_MAX,
        .index = relay->index,
    };

    ask(relay, VFIO_USER_DEVICE_GET_REGION_INFO, &info, sizeof(info), -1);
}

static void ask_for_irqs(struct relay *relay)
{
    const struct vfio_irq_info info = {.argsz = sizeof(info), .index = relay->index};

    ask(relay, VFIO_USER_DEVICE_GET_IRQ_INFO, &info, sizeof(info), -1);
}

static void give_vector(struct relay *relay)
{
    int fd = relay_vectors_give(&relay->vectors, relay->index, relay->vector);
    const struct vfio_irq_set set = {
        .argsz = sizeof(set),
        .flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
        .index = relay->index,
        .start = relay->vector,
        .count = 1,
    };

    if (fd < 0) {
        relay->broken = fd;
    } else if (viommu_vfio_user_fds_max(relay->far) == 0) {
        relay->broken = -ENOTSUP;
        tell(relay, -ENOTSUP, "takes no descriptors, and cannot be given the client's interrupts");
    } else {
        ask(relay, VFIO_USER_DEVICE_SET_IRQS, &set, sizeof(set), fd);
    }
}

/* All is known: is it what the client was told? */
static bool is_expected(struct relay *relay)
{
    const char *difference = NULL;

    if (!relay->told) {
        far_info_fini(&relay->info);
        relay->info = relay->fresh;
        far_info_init(&relay->fresh);
        return true;
    }
    difference = relay->io_fds ? "would have to replace descriptors that the client has"
                               : far_info_difference(&relay->info, &relay->fresh);
    if (difference) {
        tell(relay, -EEXIST, difference);
        relay->broken = -EEXIST;
    }
    return !difference;
}

static int on_change(void *opaque, const struct viommu_change *change)
{
    const struct relay *relay = opaque;

    return relay->mirror.change(relay->mirror.opaque, change);
}

/* It is told nothing more, and the device is denied: to go on, it is left and joined again. */
static int on_fence(void *opaque)
{
    struct relay *relay = opaque;

    set_timer(relay, FENCE_MS);
    return relay->mirror.fence(relay->mirror.opaque);
}

/* From here on the far server hears of mappings; or asks for each access, and need not. */
static void subscribe(struct relay *relay)
{
    struct viommu_subscription what;
    int ret;

    viommu_device_reset(relay->config.device);
    if (!relay->config.isolate) {
        ret = viommu_vfio_user_subscription(relay->far, &relay->mirror);
        if (ret == 0) {
            what = relay->mirror;
            what.change = on_change;
            what.fence = on_fence;
            what.opaque = relay;
            ret = viommu_device_subscribe(relay->config.device, &what, &relay->subscriber);
        }
        if (ret < 0) {
            relay->broken = ret;
            return;
        }
    }
    set_timer(relay, LOOK_MS);
}

/* Do what the step says; where it says nothing, the next one. */
static void advance(struct relay *relay)
{
    if (relay->step == RELAY_STEP_IRQS && relay->index == relay->fresh.irq_count) {
        if (!is_expected(relay)) {
            return;
        }
        begin_step(relay, RELAY_STEP_RESET);
    }
    if (relay->step == RELAY_STEP_RESET && !(relay->info.flags & VFIO_DEVICE_FLAGS_RESET)) {
        begin_step(relay, RELAY_STEP_VECTORS);
    }
    if (relay->step == RELAY_STEP_VECTORS) {
        if (relay_vectors_next(&relay->vectors, &relay->index, &relay->vector)) {
            give_vector(relay);
            return;
        }
        begin_step(relay, RELAY_STEP_MEMORY);
    }
    switch (relay->step) {
    case RELAY_STEP_DEVICE:
        ask(relay, VFIO_USER_DEVICE_GET_INFO,
            &(struct vfio_user_device_info){.argsz = sizeof(struct vfio_user_device_info)},
            sizeof(struct vfio_user_device_info), -1);
        break;
    case RELAY_STEP_REGIONS:
        ask_for_region(relay);
        break;
    case RELAY_STEP_IRQS:
        ask_for_irqs(relay);
        break;
    case RELAY_STEP_RESET:
        ask(relay, VFIO_USER_DEVICE_RESET, NULL, 0, -1);
        break;
    default: /* RELAY_STEP_MEMORY */
        subscribe(relay);
    }
}

/* Versions are agreed on. */
static void far_agreed(void *opaque)
{
    struct relay *relay = opaque;

    begin_step(relay, RELAY_STEP_DEVICE);
    advance(relay);
}

static void far_ready(void *opaque, uint32_t events)
{
    struct relay *relay = opaque;
    int ret = viommu_vfio_user_process(relay->far);

    (void)events;
    if (relay->broken < 0) {
        ret = relay->broken;
    }
    if (ret < 0) {
        lose(relay, ret, NULL);
    } else {
        relay_commands_settle(relay);
    }
}

static int connect_far(struct relay *relay)
{
    struct viommu_vfio_user_config config = {
        .device = relay->config.device,
        .fd = unix_socket_connect(relay->config.path),
        .isolate = relay->config.isolate,
        .timeout_ms = relay->config.answer_ms,
        .ready = far_agreed,
        .opaque = relay,
    };
    int ret;

    if (config.fd < 0) {
        return config.fd;
    }
    ret = viommu_vfio_user_create(&config, &relay->far);
    if (ret < 0) {
        relay->far = NULL;
        close(config.fd);
        return ret;
    }
    relay->watch = (struct loop_source){
        .fd = viommu_vfio_user_event_fd(relay->far),
        .events = EPOLLIN,
        .ready = far_ready,
        .opaque = relay,
    };
    ret = loop_add(relay->loop, &relay->watch);
    if (ret < 0) {
        viommu_vfio_user_destroy(relay->far);
        relay->far = NULL;
    }
    return ret;
}

static int join(struct relay *relay)
{
    int ret = connect_far(relay);

    if (ret < 0) {
        return ret;
    }
    relay->state = RELAY_JOINING;
    begin_step(relay, RELAY_STEP_VERSION);
    relay->deadline = clock_ms() + relay->config.join_ms;
    set_timer(relay, relay->config.join_ms);
    return 0;
}

static void try_to_join(struct relay *relay)
{
    int ret = join(relay);

    if (ret < 0) {
        lose(relay, ret, NULL);
    }
}

void relay_join_now(struct relay *relay)
{
    if (relay->state == RELAY_DOWN) {
        try_to_join(relay);
    }
}

/* ---- up ------------------------------------------------------------------------------------- */

static void go_up(struct relay *relay)
{
    far_info_fini(&relay->fresh);
    relay->state = RELAY_UP;
    relay->up_since = clock_ms();
    relay->joins++;
    set_timer(relay, 0);
    if (relay->told_error && relay->lines++ < LINES_MAX) {
        server_log("%s: the far server at %s is there", relay->config.name, relay->config.path);
    }
    relay->told_error = 0;
    relay_commands_reset(relay, 0);
}

static struct viommu_subscriber_status mirror_status(const struct relay *relay)
{
    struct viommu_subscriber_status status = {.behind = false};

    if (relay->subscriber) {
        viommu_subscriber_status(relay->subscriber, &status, sizeof(status));
    }
    return status;
}

/* Was the far server told of all that is mapped? Who goes on mapping does not hold it up for ever.
 */
static void look_at_memory(struct relay *relay)
{
    if (!mirror_status(relay).behind || clock_ms() >= relay->deadline) {
        go_up(relay);
    } else {
        set_timer(relay, LOOK_MS);
    }
}

static void timer_ready(void *opaque, uint32_t events)
{
    struct relay *relay = opaque;
    uint64_t count;

    (void)events;
    if (read(relay->timer.fd, &count, sizeof(count)) != sizeof(count)) {
        return;
    }
    if (relay->state == RELAY_DOWN) {
        try_to_join(relay);
    } else if (mirror_status(relay).fenced) {
        lose(relay, -ESTALE, "it did not follow the guest's mappings");
    } else if (relay->state == RELAY_JOINING && relay->step == RELAY_STEP_MEMORY) {
        look_at_memory(relay);
    } else if (relay->state == RELAY_JOINING) {
        lose(relay, -ETIMEDOUT, NULL);
    }
}

/* ---- the client ----------------------------------------------------------------------------- */

static void client_came(void *opaque, struct vfio_user_endpoint *endpoint)
{
    struct relay *relay = opaque;

    relay->endpoint = endpoint;
    relay_join_now(relay);
}

/* What the client set up there goes with the connection, and the next client begins anew. */
static void client_left(void *opaque)
{
    struct relay *relay = opaque;
    bool down = relay->state == RELAY_DOWN;

    relay->endpoint = NULL;
    relay->told = relay->io_fds = false;
    relay_commands_drop(relay);
    leave(relay);
    relay_vectors_fini(&relay->vectors);
    if (!down) {
        relay->pause_ms = PAUSE_MIN_MS;
        set_timer(relay, 1);
    }
}

/* Nothing is taken in from a client that has to wait for what the device is, nor while the far
 * server is given what the client has; nor before it is known which eventfds it has. */
static bool full(const void *opaque)
{
    const struct relay *relay = opaque;

    return (relay->state == RELAY_JOINING && (!relay->told || relay->step >= RELAY_STEP_VECTORS)) ||
           relay->giving || relay->command_count == RELAY_COMMANDS_MAX ||
           relay->command_bytes >= RELAY_BYTES_MAX;
}

static const struct vfio_user_remote_ops remote_ops = {
    .attach = client_came,
    .detach = client_left,
    .command = relay_command,
    .full = full,
};

int relay_open(struct relay *relay, struct loop *loop, const struct relay_config *config)
{
    int ret;

    memset(relay, 0, sizeof(*relay));
    relay->loop = loop;
    relay->config = *config;
    relay->config.answer_ms = config->answer_ms ? config->answer_ms : RELAY_ANSWER_MS;
    relay->config.join_ms = config->join_ms ? config->join_ms : RELAY_JOIN_MS;
    relay->pause_ms = PAUSE_MIN_MS;
    far_info_init(&relay->fresh);
    far_info_init(&relay->info);
    relay_vectors_init(&relay->vectors, config->isolate ? loop : NULL);
    relay->function.name = config->name;
    relay->function.opaque = relay;
    relay->function.remote = &remote_ops;
    relay->timer = (struct loop_source){
        .fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK),
        .events = EPOLLIN,
        .ready = timer_ready,
        .opaque = relay,
    };
    if (relay->timer.fd < 0) {
        return -errno;
    }
    ret = loop_add(loop, &relay->timer);
    if (ret == 0) {
        ret = join(relay);
        if (ret < 0) {
            loop_remove(loop, &relay->timer);
        }
    }
    if (ret < 0) {
        close(relay->timer.fd);
    }
    return ret;
}

void relay_close(struct relay *relay)
{
    leave(relay);
    relay_vectors_fini(&relay->vectors);
    far_info_fini(&relay->info);
    loop_remove(relay->loop, &relay->timer);
    close(relay->timer.fd);
}
