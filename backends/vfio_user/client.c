/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The vfio-user client: its life, its requests and their answers; client.h describes the data.
 */
#include "vfio_user/client.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "common/foreign.h"
#include "device/requester.h"

enum {
    TIMEOUT_DEFAULT_MS = 1000,
    /* What one call of viommu_vfio_user_process takes in from a channel. */
    MESSAGES_PER_CALL = 64,
    BYTES_PER_CALL = 4 << 20,
    /* Ids of commands that want no answer have this bit. */
    ID_SILENT = 0x8000,
    /* An errno in an answer is at most this. */
    ERRNO_MAX = 4095,
};

static const char our_capabilities[] =
    "{\"capabilities\":{\"max_msg_fds\":8,\"max_data_xfer_size\":1048576,"
    "\"twin_socket\":{\"supported\":true}}}";

_Static_assert((int)VFIO_USER_MAX_FDS == 8 && VFIO_USER_MAX_DATA == 1048576, "as the text says");
_Static_assert((int)VIOMMU_VFIO_USER_FDS_MAX == (int)VFIO_USER_MAX_FDS, "as the header says");
_Static_assert(ID_SILENT % (int)REQUESTS_MAX == 0, "an id is an index, and how often it was used");

/* ---- channels -------------------------------------------------------------------------------- */

static int channel_open(struct viommu_vfio_user *far, struct channel *channel, int fd)
{
    struct epoll_event event = {.events = EPOLLIN};
    int ret = vfio_user_connection_init(&channel->connection, fd);

    if (ret < 0) {
        return ret;
    }
    if (epoll_ctl(far->wake.poll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
        return -errno;
    }
    vfio_user_output_init(&channel->output, fd);
    channel->events = EPOLLIN;
    channel->open = true;
    return 0;
}

static void channel_close(struct viommu_vfio_user *far, struct channel *channel)
{
    if (channel->open) {
        /* Others may have copies of the descriptor: closing ours would end neither of these. */
        (void)epoll_ctl(far->wake.poll_fd, EPOLL_CTL_DEL, channel->connection.fd, NULL);
        (void)shutdown(channel->connection.fd, SHUT_RDWR);
        vfio_user_output_fini(&channel->output);
        vfio_user_connection_fini(&channel->connection);
        channel->open = false;
    }
}

/* Is so much waiting that the far server is not listened to? */
static bool congested(const struct channel *channel)
{
    return channel->output.bytes > ANSWERS_LIMIT;
}

/* Watches for what can be done on a channel that is open. The lock is held. */
static void watch(struct viommu_vfio_user *far, struct channel *channel)
{
    struct epoll_event event = {
        .events = (congested(channel) ? 0u : (uint32_t)EPOLLIN) |
                  (channel->output.bytes ? (uint32_t)EPOLLOUT : 0u),
    };

    if (event.events != channel->events) {
        channel->events = event.events;
        (void)epoll_ctl(far->wake.poll_fd, EPOLL_CTL_MOD, channel->connection.fd, &event);
    }
}

/* ---- requests -------------------------------------------------------------------------------- */

static void requests_init(struct viommu_vfio_user *far)
{
    for (unsigned i = REQUESTS_MAX; i-- > 0;) {
        far->requests[i].id = (uint16_t)i;
        far->requests[i].next = far->unused;
        far->unused = &far->requests[i];
    }
}

/* The lock is held. */
static void request_append(struct viommu_vfio_user *far, const struct request *what)
{
    struct request *request = far->unused;
    uint16_t id = request->id;

    far->unused = request->next;
    *request = *what;
    request->id = id;
    request->deadline = wake_now() + far->timeout;
    request->next = NULL;
    request->previous = far->waiting_last;
    *(far->waiting_last ? &far->waiting_last->next : &far->waiting) = request;
    far->waiting_last = request;
    far->waiting_count++;
}

/* The lock is held. */
static void request_remove(struct viommu_vfio_user *far, struct request *request)
{
    *(request->previous ? &request->previous->next : &far->waiting) = request->next;
    *(request->next ? &request->next->previous : &far->waiting_last) = request->previous;
    request->kind = REQUEST_NONE;
    request->id = (uint16_t)(request->id + REQUESTS_MAX) % ID_SILENT;
    request->next = far->unused;
    far->unused = request;
    far->waiting_count--;
}

/* The lock is held. */
static void arm(struct viommu_vfio_user *far)
{
    if (!far->timer && far->waiting) {
        far->timer = far->waiting->deadline;
        wake_at(&far->wake, far->timer);
    }
}

/* Was nothing sent, and the connection is as it was? */
static bool is_harmless(int error)
{
    return error == -ENOMEM || error == -EMFILE || error == -ENFILE || error == -EBADF ||
           error == -ETOOMANYREFS || error == -ENOBUFS;
}

/* Notes what became of a send; nothing is sent where one broke the connection before. The lock is
 * held. */
static int sent(struct viommu_vfio_user *far, struct channel *channel, int ret)
{
    if (ret == 0) {
        watch(far, channel);
    } else if (!is_harmless(ret)) {
        far->broken = ret;
        wake_kick(&far->wake);
    }
    return ret;
}

int far_request(struct viommu_vfio_user *far, const struct request *request, const void *first,
                size_t first_size, const void *second, size_t second_size, const int *fds,
                unsigned n_fds)
{
    struct vfio_user_header header = {.command = request->command};
    int ret;

    if (!far->unused) {
        return -ENOBUFS;
    }
    header.id = far->unused->id;
    ret = sent(far, &far->main,
               vfio_user_output_send(&far->main.output, header, first, first_size, second,
                                     second_size, fds, n_fds));
    if (ret < 0) {
        return ret;
    }
    request_append(far, request);
    arm(far);
    return 0;
}

int far_answer(struct viommu_vfio_user *far, struct channel *channel,
               const struct vfio_user_header *command, int error, const void *first,
               size_t first_size, const void *second, size_t second_size)
{
    struct vfio_user_header header = {
        .id = command->id,
        .command = command->command,
        .flags = VFIO_USER_TYPE_REPLY | (error < 0 ? VFIO_USER_ERROR : 0),
        .error = error < 0 ? (uint32_t)-error : 0,
    };
    int ret;

    pthread_mutex_lock(&far->lock);
    ret = far->broken;
    if (ret == 0) {
        ret =
            sent(far, channel,
                 vfio_user_output_send(&channel->output, header, first, error < 0 ? 0 : first_size,
                                       second, error < 0 ? 0 : second_size, NULL, 0));
    }
    pthread_mutex_unlock(&far->lock);
    return ret;
}

/* Tells who sent it; VERSION was nobody's. The lock is not held. Returns 0 or a negative errno: it
 * is over. */
static int request_end(struct viommu_vfio_user *far, const struct request *request,
                       const struct viommu_vfio_user_reply *reply)
{
    switch (request->kind) {
    case REQUEST_MAP:
    case REQUEST_UNMAP:
        /* Nobody waits for one that came too late, or whose subscriber went. */
        if (far->config.answered) {
            far->config.answered(far->config.opaque, request->token, reply->error);
        } else {
            (void)viommu_change_complete(far->iommu, request->token, reply->error);
        }
        return 0;
    case REQUEST_FENCE:
        return reply->error;
    case REQUEST_REGION:
        return far_region_answered(far, reply->error);
    default: /* REQUEST_EMBEDDER */
        request->reply(request->opaque, reply);
        return 0;
    }
}

/* It is over: answers all that waits, and tells. */
static int fail(struct viommu_vfio_user *far, int error)
{
    struct viommu_vfio_user_reply reply = {.error = error};

    pthread_mutex_lock(&far->lock);
    far->error = error;
    channel_close(far, &far->main);
    channel_close(far, &far->twin);
    wake_at(&far->wake, 0);
    wake_clear(&far->wake); /* there will be no more work */
    while (far->waiting) {
        struct request request = *far->waiting;

        request_remove(far, far->waiting);
        if (request.kind == REQUEST_EMBEDDER || request.kind == REQUEST_MAP ||
            request.kind == REQUEST_UNMAP) {
            pthread_mutex_unlock(&far->lock);
            reply.error = request.kind == REQUEST_MAP && far->config.answered ? -EIO : error;
            (void)request_end(far, &request, &reply);
            pthread_mutex_lock(&far->lock);
        }
    }
    pthread_mutex_unlock(&far->lock);
    if (far->config.failed) {
        far->config.failed(far->config.opaque, error);
    }
    return error;
}

/* ---- what comes ------------------------------------------------------------------------------ */

void far_ready(struct viommu_vfio_user *far)
{
    far->ready = true;
    if (far->config.ready) {
        far->config.ready(far->config.opaque);
    }
}

/* Takes the socket for the far server's commands, if it has one. */
static int take_twin(struct viommu_vfio_user *far, struct vfio_user_message *message)
{
    const struct vfio_user_far_capabilities *capabilities = &far->capabilities;
    int type = 0, domain, *fd;
    socklen_t type_size = sizeof(type), domain_size = sizeof(domain);
    int ret;

    if (!capabilities->twin_socket) {
        return 0;
    }
    if (message->fds_lost || capabilities->twin_fd_index >= message->n_fds) {
        return -EPROTO;
    }
    fd = &message->fds[capabilities->twin_fd_index];
    if (getsockopt(*fd, SOL_SOCKET, SO_DOMAIN, &domain, &domain_size) < 0 || domain != AF_UNIX) {
        return -EPROTO;
    }
    (void)getsockopt(*fd, SOL_SOCKET, SO_TYPE, &type, &type_size); /* it is a socket */
    if (type != SOCK_STREAM) {
        return -EPROTO;
    }
    pthread_mutex_lock(&far->lock);
    ret = channel_open(far, &far->twin, *fd);
    pthread_mutex_unlock(&far->lock);
    if (ret == 0) {
        *fd = -1;
    }
    return ret;
}

static int version_answered(struct viommu_vfio_user *far, struct vfio_user_message *message)
{
    struct vfio_user_version version;
    int ret;

    if (message->header.flags & VFIO_USER_ERROR || message->payload_size < sizeof(version)) {
        return -EPROTO;
    }
    memcpy(&version, message->payload, sizeof(version));
    if (version.major != VFIO_USER_MAJOR || version.minor > VFIO_USER_MINOR) {
        return -EPROTO;
    }
    ret = vfio_user_far_capabilities_parse(message->payload + sizeof(version),
                                           message->payload_size - sizeof(version),
                                           &far->capabilities);
    if (ret == 0) {
        ret = take_twin(far, message);
    }
    if (ret < 0) {
        return ret;
    }
    far->agreed = true;
    if (far->config.isolate) {
        return far_isolate(far);
    }
    far_ready(far);
    return 0;
}

/* Is the answer to a command of the backend's own as it must be? */
static bool answer_is_right(const struct request *request, const struct vfio_user_message *message)
{
    struct vfio_user_dma_unmap unmap;
    bool with_fds = message->n_fds || message->fds_lost;

    switch (request->kind) {
    case REQUEST_MAP:
    case REQUEST_REGION:
        return message->payload_size == 0 && !with_fds;
    case REQUEST_UNMAP:
    case REQUEST_FENCE:
        if (message->payload_size != sizeof(unmap) || with_fds) {
            return false;
        }
        memcpy(&unmap, message->payload, sizeof(unmap));
        return unmap.address == request->unmap.address && unmap.size == request->unmap.size;
    default:
        return true;
    }
}

/* With `isolate` nobody wants the descriptors that come with an answer. */
static int error_of(const struct viommu_vfio_user *far, const struct vfio_user_message *message)
{
    if (!(message->header.flags & VFIO_USER_ERROR)) {
        return message->fds_lost && !far->config.isolate ? -EMFILE : 0;
    }
    return message->header.error && message->header.error <= ERRNO_MAX ? -(int)message->header.error
                                                                       : -EIO;
}

/* Takes the request that a message answers. The lock is held. Returns 0 or -EPROTO. */
static int request_take(struct viommu_vfio_user *far, const struct vfio_user_message *message,
                        struct request *out)
{
    struct request *request = &far->requests[message->header.id % REQUESTS_MAX];

    /* Some servers leave the command out. */
    if (request->kind == REQUEST_NONE || request->id != message->header.id ||
        (message->header.command && request->command != message->header.command) ||
        (!(message->header.flags & VFIO_USER_ERROR) && !answer_is_right(request, message))) {
        return -EPROTO;
    }
    *out = *request;
    request_remove(far, request);
    far_count_mapping(far, out, error_of(far, message));
    return 0;
}

static int handle_answer(struct viommu_vfio_user *far, struct vfio_user_message *message)
{
    struct viommu_vfio_user_reply reply = {
        .error = error_of(far, message),
        .data = message->payload,
        .size = message->payload_size,
        .fds = message->fds,
        .fd_count = message->n_fds,
    };
    struct request request;
    int ret;

    pthread_mutex_lock(&far->lock);
    ret = request_take(far, message, &request);
    pthread_mutex_unlock(&far->lock);
    if (ret < 0) {
        return ret;
    }
    return request.kind == REQUEST_VERSION ? version_answered(far, message)
                                           : request_end(far, &request, &reply);
}

static int handle_message(struct viommu_vfio_user *far, struct channel *channel,
                          struct vfio_user_message *message)
{
    switch (message->header.flags & VFIO_USER_TYPE_MASK) {
    case VFIO_USER_TYPE_REPLY:
        return channel == &far->main ? handle_answer(far, message) : -EPROTO;
    case VFIO_USER_TYPE_COMMAND:
        return far->agreed ? far_serve_dma(far, channel, message) : -EPROTO;
    default:
        return -EPROTO;
    }
}

/*
 * Is there room for descriptors? They come with answers. Of a server that is isolated there is one
 * that is wanted: its second socket. What such servers have put aside leaves room for the others'.
 */
static bool takes_fds(const struct viommu_vfio_user *far, const struct channel *channel)
{
    const unsigned max = far->config.isolate ? FOREIGN_ASIDE_MAX / 2 : FOREIGN_ASIDE_MAX;

    return channel == &far->main && !(far->config.isolate && far->agreed) && foreign_aside() < max;
}

/* Receives, and writes what waits. Returns 0 or a negative errno: it is over. */
static int serve(struct viommu_vfio_user *far, struct channel *channel)
{
    size_t bytes = 0;
    int ret = 0;

    for (int i = 0; i < MESSAGES_PER_CALL && bytes < BYTES_PER_CALL && channel->open; i++) {
        struct vfio_user_message message;
        bool full;

        pthread_mutex_lock(&far->lock);
        ret = far->broken ? far->broken : vfio_user_output_flush(&channel->output);
        full = congested(channel);
        watch(far, channel);
        pthread_mutex_unlock(&far->lock);
        if (ret < 0 || full) {
            break;
        }
        channel->connection.no_fds = !takes_fds(far, channel);
        ret = vfio_user_connection_receive(&channel->connection, &message);
        if (ret <= 0) {
            break;
        }
        bytes += message.header.size;
        far->moved = 0;
        ret = handle_message(far, channel, &message);
        bytes += far->moved;
        if (ret < 0) {
            break;
        }
    }
    return ret < 0 ? ret : 0;
}

/* Returns 0, or -ETIMEDOUT. */
static int look_at_time(struct viommu_vfio_user *far)
{
    uint64_t now = wake_now();
    int ret = 0;

    pthread_mutex_lock(&far->lock);
    if (far->timer && far->timer <= now) {
        far->timer = 0;
        if (far->waiting && far->waiting->deadline <= now) {
            ret = -ETIMEDOUT;
        } else {
            wake_at(&far->wake, 0);
            arm(far);
        }
    }
    pthread_mutex_unlock(&far->lock);
    return ret;
}

/* ---- what the embedder calls ----------------------------------------------------------------- */

int viommu_vfio_user_process(struct viommu_vfio_user *far)
{
    int ret;

    if (far->error || far->processing) {
        return far->error;
    }
    far->processing = true;
    pthread_mutex_lock(&far->lock);
    /* All kicks are under the lock, so where there was none no system call is needed. */
    if (atomic_load(&far->wake.kicked)) {
        wake_clear(&far->wake);
    }
    pthread_mutex_unlock(&far->lock);
    ret = serve(far, &far->main);
    if (ret == 0) {
        ret = serve(far, &far->twin);
    }
    if (ret == 0) {
        ret = look_at_time(far);
    }
    if (ret < 0) {
        ret = fail(far, ret == -EPIPE ? -ECONNRESET : ret == -EBADMSG ? -EPROTO : ret);
    }
    far->processing = false;
    return ret;
}

/* May the embedder send this? */
static bool is_sendable(const struct viommu_vfio_user *far, uint16_t command, const void *first,
                        size_t first_size, const void *second, size_t second_size, const int *fds,
                        unsigned fd_count)
{
    return command != VFIO_USER_VERSION && command != VFIO_USER_DMA_MAP &&
           command != VFIO_USER_DMA_UNMAP && command != VFIO_USER_DMA_READ &&
           command != VFIO_USER_DMA_WRITE && first_size <= VFIO_USER_MAX_PAYLOAD &&
           second_size <= VFIO_USER_MAX_PAYLOAD - first_size && (first || !first_size) &&
           (second || !second_size) && fd_count <= VFIO_USER_MAX_FDS &&
           fd_count <= far->capabilities.max_msg_fds && (fds || !fd_count);
}

int viommu_vfio_user_send(struct viommu_vfio_user *far, uint16_t command, const void *first,
                          size_t first_size, const void *second, size_t second_size, const int *fds,
                          unsigned fd_count,
                          void (*reply)(void *opaque, const struct viommu_vfio_user_reply *reply),
                          void *opaque)
{
    struct request request = {
        .kind = REQUEST_EMBEDDER,
        .command = command,
        .reply = reply,
        .opaque = opaque,
    };
    int ret;

    pthread_mutex_lock(&far->lock);
    if (far->error || far->broken) {
        ret = -EPIPE;
    } else if (!far->ready) {
        ret = -EAGAIN;
    } else if (!is_sendable(far, command, first, first_size, second, second_size, fds, fd_count)) {
        ret = -EINVAL;
    } else if (far->main.output.bytes > COMMANDS_LIMIT ||
               (reply && far->waiting_count >= REQUESTS_MAX - REQUESTS_OWN)) {
        ret = -ENOBUFS;
    } else if (reply) {
        ret = far_request(far, &request, first, first_size, second, second_size, fds, fd_count);
    } else {
        struct vfio_user_header header = {
            .id = ID_SILENT | (far->next_silent++ % ID_SILENT),
            .command = command,
            .flags = VFIO_USER_NO_REPLY,
        };

        ret = sent(far, &far->main,
                   vfio_user_output_send(&far->main.output, header, first, first_size, second,
                                         second_size, fds, fd_count));
    }
    pthread_mutex_unlock(&far->lock);
    return ret;
}

int viommu_vfio_user_event_fd(struct viommu_vfio_user *far)
{
    return far->wake.poll_fd;
}

size_t viommu_vfio_user_transfer_max(const struct viommu_vfio_user *far)
{
    uint64_t max = far->capabilities.max_data_xfer_size;

    return far->ready ? (size_t)(max < VFIO_USER_MAX_DATA ? max : VFIO_USER_MAX_DATA) : 0;
}

size_t viommu_vfio_user_fds_max(const struct viommu_vfio_user *far)
{
    uint64_t max = far->capabilities.max_msg_fds;

    return far->ready ? (size_t)(max < VFIO_USER_MAX_FDS ? max : VFIO_USER_MAX_FDS) : 0;
}

int viommu_vfio_user_statistics(const struct viommu_vfio_user *far,
                                struct viommu_vfio_user_statistics *statistics, size_t size)
{
    pthread_mutex_t *lock = (pthread_mutex_t *)&far->lock;

    pthread_mutex_lock(lock);
    memcpy(statistics, &far->statistics,
           size < sizeof(far->statistics) ? size : sizeof(far->statistics));
    pthread_mutex_unlock(lock);
    return 0;
}

static int begin(struct viommu_vfio_user *far)
{
    static const struct vfio_user_version version = {VFIO_USER_MAJOR, VFIO_USER_MINOR};
    struct request request = {.kind = REQUEST_VERSION, .command = VFIO_USER_VERSION};
    int ret;

    pthread_mutex_lock(&far->lock);
    ret = far_request(far, &request, &version, sizeof(version), our_capabilities,
                      sizeof(our_capabilities), NULL, 0);
    if (far->broken) {
        /* It left already: told by viommu_vfio_user_process, as any other time. */
        ret = 0;
    }
    pthread_mutex_unlock(&far->lock);
    return ret;
}

int viommu_vfio_user_create(const struct viommu_vfio_user_config *config,
                            struct viommu_vfio_user **out)
{
    struct viommu_vfio_user *far;
    int ret;

    if (!config || !out || !config->device || config->fd < 0) {
        return -EINVAL;
    }
    far = base_alloc(sizeof(*far));
    if (!far) {
        return -ENOMEM;
    }
    far->config = *config;
    far->iommu = config->device->iommu;
    requests_init(far);
    far->timeout = (config->timeout_ms ? config->timeout_ms : TIMEOUT_DEFAULT_MS) * 1000000ull;
    ret = wake_init(&far->wake, NULL, NULL);
    if (ret < 0) {
        base_free(far);
        return ret;
    }
    pthread_mutex_init(&far->lock, NULL);
    ret = channel_open(far, &far->main, config->fd);
    if (ret == 0) {
        ret = begin(far);
    }
    if (ret < 0) {
        /* The socket stays the caller's. */
        if (far->main.open) {
            (void)epoll_ctl(far->wake.poll_fd, EPOLL_CTL_DEL, config->fd, NULL);
        }
        pthread_mutex_destroy(&far->lock);
        wake_fini(&far->wake);
        base_free(far);
        return ret;
    }
    *out = far;
    return 0;
}

void viommu_vfio_user_destroy(struct viommu_vfio_user *far)
{
    if (!far) {
        return;
    }
    channel_close(far, &far->main);
    channel_close(far, &far->twin);
    pthread_mutex_destroy(&far->lock);
    wake_fini(&far->wake);
    base_free(far->buffer);
    base_free(far);
}
