/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Row: 1 GiB of mappings told to a far vfio-user server: how long a message takes that is sent,
 * answered and counted, and how many regions and messages it is.
 *
 * The far server is a thread that answers each command at once, and maps nothing: what is measured
 * is our client, the socket, and the kernel's switching between the two. Messages carry no
 * descriptor, for the guest's memory here is of no file.
 *
 * Figures: pages of which no two follow one another, for a server that takes a million regions;
 * whole tables that follow one another; and pages that follow one another but were mapped one by
 * one in no order, which a server with 16,384 regions makes us join.
 */
#include "bench.h"
#include "mirrored.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <viommu/vfio_user.h>

#include "vfio_user/protocol.h"

#define TABLES 512 /* 1 GiB */
#define TABLES_QUICK 8
#define MANY 1000000
#define FEW 16384
#define BATCH 16
#define WAIT_MS 20000
#define TEXT_MAX 128

/* ---- the far server ---- */

struct far {
    int fd; /* its end */
    unsigned maps_max;
    pthread_t thread;
    struct viommu_vfio_user *client;
    struct viommu_subscriber *subscriber;
    int failed;
};

static bool get(int fd, void *data, size_t size)
{
    return size == 0 || recv(fd, data, size, MSG_WAITALL) == (ssize_t)size;
}

/* The answer to a command, after its header. Returns its size. */
static size_t answer(const struct far *far, uint16_t command, const uint8_t *payload, char *out)
{
    if (command == VFIO_USER_VERSION) {
        const struct vfio_user_version version = {VFIO_USER_MAJOR, VFIO_USER_MINOR};
        int n = snprintf(out + sizeof(version), TEXT_MAX - sizeof(version),
                         "{\"capabilities\":{\"max_dma_maps\":%u}}", far->maps_max);

        memcpy(out, &version, sizeof(version));
        return sizeof(version) + (size_t)n + 1;
    }
    if (command == VFIO_USER_DMA_UNMAP) {
        memcpy(out, payload, sizeof(struct vfio_user_dma_unmap));
        return sizeof(struct vfio_user_dma_unmap);
    }
    return 0;
}

static void *serve(void *opaque)
{
    struct far *far = opaque;
    struct {
        struct vfio_user_header header;
        char text[TEXT_MAX];
    } out;
    uint8_t payload[4096];
    struct vfio_user_header header;

    while (get(far->fd, &header, sizeof(header)) &&
           header.size - sizeof(header) <= sizeof(payload) &&
           get(far->fd, payload, header.size - sizeof(header))) {
        out.header = header;
        out.header.flags = VFIO_USER_TYPE_REPLY;
        out.header.size =
            (uint32_t)(sizeof(header) + answer(far, header.command, payload, out.text));
        if (send(far->fd, &out, out.header.size, MSG_NOSIGNAL) < 0) {
            break;
        }
    }
    return NULL;
}

static void client_failed(void *opaque, int error)
{
    ((struct far *)opaque)->failed = error;
}

/* Connect a client of `device` to a server that takes so many regions. */
static bool far_open(struct far *far, struct viommu_device *device, unsigned maps_max)
{
    struct viommu_vfio_user_config config = {
        .device = device,
        .timeout_ms = WAIT_MS,
        .failed = client_failed,
        .opaque = far,
    };
    int pair[2];

    memset(far, 0, sizeof(*far));
    far->maps_max = maps_max;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        return false;
    }
    far->fd = pair[0];
    config.fd = pair[1];
    return pthread_create(&far->thread, NULL, serve, far) == 0 &&
           viommu_vfio_user_create(&config, &far->client) == 0;
}

static void far_close(struct far *far)
{
    viommu_subscriber_destroy(far->subscriber);
    viommu_vfio_user_destroy(far->client);
    shutdown(far->fd, SHUT_RDWR);
    pthread_join(far->thread, NULL);
    close(far->fd);
    memset(far, 0, sizeof(*far));
}

static struct viommu_vfio_user_statistics statistics(const struct far *far)
{
    struct viommu_vfio_user_statistics s;

    viommu_vfio_user_statistics(far->client, &s, sizeof(s));
    return s;
}

/* Let both work until neither has anything to do. */
static bool settle(struct mirrored *m, struct far *far)
{
    struct pollfd fds[2] = {
        {.fd = viommu_vfio_user_event_fd(far->client), .events = POLLIN},
        {.fd = viommu_event_fd(m->guest.iommu), .events = POLLIN},
    };
    struct viommu_subscriber_status status;

    for (;;) {
        if (viommu_vfio_user_process(far->client) < 0) {
            return false;
        }
        viommu_process(m->guest.iommu, 0);
        viommu_subscriber_status(far->subscriber, &status, sizeof(status));
        if (status.fenced) {
            return false;
        }
        if (!status.behind && statistics(far).mappings + statistics(far).unmaps ==
                                  statistics(far).maps) {
            return true;
        }
        if (poll(fds, 2, WAIT_MS) <= 0) {
            return false;
        }
    }
}

static bool far_subscribe(struct mirrored *m, struct far *far)
{
    struct viommu_subscription what;
    struct pollfd fd = {.fd = viommu_vfio_user_event_fd(far->client), .events = POLLIN};
    int ret;

    while ((ret = viommu_vfio_user_subscription(far->client, &what)) == -EAGAIN) {
        if (poll(&fd, 1, WAIT_MS) <= 0 || viommu_vfio_user_process(far->client) < 0) {
            return false;
        }
    }
    return ret == 0 &&
           viommu_device_subscribe(m->mirrors[0].device, &what, &far->subscriber) == 0 &&
           settle(m, far);
}

/* ---- the row ---- */

struct state {
    struct mirrored scattered;
    struct mirrored contiguous;
    struct far far;
};

static void teardown(void *opaque)
{
    struct state *state = opaque;

    mirrored_fini(&state->scattered);
    mirrored_fini(&state->contiguous);
    free(state);
}

static void *setup(bool quick)
{
    struct state *state = calloc(1, sizeof(*state));
    struct mirrored_layout layout = {
        .tables = quick ? TABLES_QUICK : TABLES,
        .per_table = MIRRORED_ENTRIES,
        .scattered = true,
        .devices = 1,
    };

    if (!state) {
        return NULL;
    }
    mirrored_init(&state->scattered, &layout);
    layout.scattered = false;
    mirrored_init(&state->contiguous, &layout);
    guest_queue_on(&state->contiguous.guest);
    return state;
}

static uint64_t pages_of(void *opaque)
{
    return ((struct state *)opaque)->scattered.pages;
}

static bool run(void *opaque, uint64_t count)
{
    struct state *state = opaque;

    (void)count; /* one step */
    return far_open(&state->far, state->scattered.mirrors[0].device, MANY) &&
           far_subscribe(&state->scattered, &state->far);
}

static bool check(void *opaque)
{
    struct state *state = opaque;

    return state->far.failed == 0;
}

static void end(void *opaque)
{
    struct state *state = opaque;

    if (state->far.client) {
        far_close(&state->far);
    }
    guest_process(&state->scattered.guest);
}

static void figure(struct figure *figure, const char *name, uint64_t value, const char *unit)
{
    snprintf(figure->name, sizeof(figure->name), "%s", name);
    figure->value = (double)value;
    figure->unit = unit;
}

/* Two figures of what one was told. False: it went wrong. */
static bool count(struct far *far, const char *what, bool ok, struct figure *figures)
{
    struct viommu_vfio_user_statistics s = {0};
    char name[64];

    if (ok) {
        s = statistics(far);
    }
    snprintf(name, sizeof(name), "%s, regions", what);
    figure(&figures[0], name, s.mappings, "regions");
    snprintf(name, sizeof(name), "%s, messages", what);
    figure(&figures[1], name, s.maps + s.unmaps, "messages");
    if (far->client) {
        far_close(far);
    }
    return ok;
}

static bool at_once(struct mirrored *m, const char *what, unsigned maps_max,
                    struct figure *figures)
{
    struct far far;
    bool ok = far_open(&far, m->mirrors[0].device, maps_max) && far_subscribe(m, &far);

    ok = count(&far, what, ok, figures);
    guest_process(&m->guest);
    return ok;
}

/* Mapped by the guest a few pages at a time, in no order. */
static bool one_by_one(struct mirrored *m, const char *what, struct figure *figures)
{
    uint64_t pages[BATCH], page = 0;
    struct far far;
    bool ok;

    for (uint64_t i = 0; i < m->pages; i++) {
        mirrored_clear(m, i);
    }
    ok = mirrored_sync(m) && far_open(&far, m->mirrors[0].device, FEW) && far_subscribe(m, &far);
    for (uint64_t done = 0; ok && done < m->pages; done += BATCH) {
        for (unsigned i = 0; i < BATCH; i++) {
            page = mirrored_next(page, m->pages);
            mirrored_restore(m, page);
            pages[i] = page;
            guest_queue_put(&m->guest,
                            spec_iotlb_invalidate(SPEC_SELECTIVE, MIRRORED_DOMAIN,
                                                  mirrored_iova(m, pages[i]), 0, true));
        }
        guest_queue_kick(&m->guest);
        ok = settle(m, &far);
    }
    ok = count(&far, what, ok, figures);
    guest_process(&m->guest);
    return ok;
}

static int figures(void *opaque, struct figure *figures)
{
    struct state *state = opaque;

    if (!at_once(&state->scattered, "scattered", MANY, &figures[0]) ||
        !at_once(&state->contiguous, "in order", FEW, &figures[2]) ||
        !one_by_one(&state->contiguous, "in order, mapped page by page", &figures[4])) {
        return -1;
    }
    return 6;
}

static const struct row rows[] = {
    {
        .name = "vfio-user-map",
        .text = "1 GiB of scattered pages told to a far vfio-user server that answers at once",
        .unit = "page",
        .single = true,
        .rounds = 3,
        .wall = true,
        .step_of = pages_of,
        .setup = setup,
        .teardown = teardown,
        .figures = figures,
        .side_count = 1,
        .sides = {{.name = "viommu", .run = run, .end = end, .check = check}},
    },
};

const struct row_list vfio_user_rows = {rows, sizeof(rows) / sizeof(rows[0])};
