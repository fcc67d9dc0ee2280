/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The row `virtio-queue`: MAP and UNMAP of 4 KiB, in turns, by the guest's queue: 32 with a
 * notification, and each with its own. 1,000 pages are mapped.
 *
 * What is timed is the device and the driver's part at the queue: descriptors, the rings, a write
 * of the notification's register, the answers. The requests themselves were written beforehand. The
 * notification is a call, as for an embedder; what it costs a guest to get there is not in it. The
 * same requests are made without a queue beside them: by viommu_virtio_request, and of the
 * baseline, which has none.
 */
#include "bench.h"
#include "measure.h"
#include "virtio_queue.h"
#include "virtio_spec.h"
#include "virtio_world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAPPINGS 1000
#define STEP     4096 /* requests in a run: twice as many as pairs */

enum { BATCHES, ONE_BY_ONE, DIRECT, BASELINE, SIDES };

struct queue {
    struct virtio_world world; /* for the sides without a queue */
    struct virtio_queue_driver driver;
    struct virtio_window window; /* of what the driver has mapped */
    uint8_t *requests;           /* of the next run, without a queue */
    uint64_t start;              /* of the run that is timed */
    uint64_t time[SIDES];        /* all runs, on the wall */
    uint64_t done[SIDES];        /* requests in them */
};

static uint8_t *slot(const struct queue *q, uint64_t i)
{
    return queue_driver_slot(&q->driver, i);
}

static void teardown(void *state)
{
    struct queue *q = state;

    queue_driver_fini(&q->driver);
    virtio_world_fini(&q->world);
    free(q->requests);
    free(q);
}

/* What the world has mapped the driver has, too. */
static bool fill(struct queue *q)
{
    struct spec_virtio_request attach = spec_virtio_attach(VIRTIO_DOMAIN, VIRTIO_ENDPOINT, 0);
    bool ok;

    memcpy(slot(q, 0), attach.bytes, attach.size);
    ok = queue_driver_send(&q->driver, 0, 1);
    q->window.next = q->window.oldest;
    for (unsigned i = 0; ok && i < MAPPINGS; i++) {
        virtio_put_map(slot(q, 0), q->window.next);
        ok = queue_driver_send(&q->driver, 0, 1);
        q->window.next = virtio_next(&q->world, q->window.next);
    }
    return ok;
}

static void *setup(bool quick)
{
    struct queue *q = calloc(1, sizeof(*q));

    (void)quick;
    if (!q) {
        return NULL;
    }
    virtio_world_init(&q->world, MAPPINGS, 0);
    queue_driver_init(&q->driver, STEP, (uint32_t)q->world.places, VIRTIO_ENDPOINT);
    q->requests = calloc(STEP, VIRTIO_REQUEST);
    if (!q->requests || !fill(q)) {
        teardown(q);
        return NULL;
    }
    return q;
}

/* The requests of a run: an old page goes, a new one comes, and so on. */
static void prepare(const struct queue *q, struct virtio_window *window, uint8_t *requests,
                    size_t stride)
{
    for (uint64_t i = 0; i < STEP; i += 2) {
        virtio_put_unmap(requests + i * stride, window->oldest);
        virtio_put_map(requests + (i + 1) * stride, window->next);
        window->oldest = virtio_next(&q->world, window->oldest);
        window->next = virtio_next(&q->world, window->next);
    }
}

static void begin_queue(void *state)
{
    struct queue *q = state;

    prepare(q, &q->window, slot(q, 0), QUEUE_SLOT);
    q->start = bench_now();
}

static void begin_direct(void *state)
{
    struct queue *q = state;

    prepare(q, &q->world.window, q->requests, VIRTIO_REQUEST);
    q->start = bench_now();
}

static void begin_baseline(void *state)
{
    struct queue *q = state;

    prepare(q, &q->world.baseline_window, q->requests, VIRTIO_REQUEST);
    q->start = bench_now();
}

static void ended(struct queue *q, unsigned side)
{
    q->time[side] += bench_now() - q->start;
    q->done[side] += STEP;
}

static void end_batches(void *state)
{
    ended(state, BATCHES);
}

static void end_one_by_one(void *state)
{
    ended(state, ONE_BY_ONE);
}

static bool send(struct queue *q, uint64_t count, unsigned batch)
{
    bool ok = true;

    for (uint64_t i = 0; ok && i < count; i += batch) {
        ok = queue_driver_send(&q->driver, i, batch);
    }
    return ok;
}

static bool run_batches(void *state, uint64_t count)
{
    return send(state, count, QUEUE_BATCH_MAX);
}

static bool run_one_by_one(void *state, uint64_t count)
{
    return send(state, count, 1);
}

static bool run_direct(void *state, uint64_t count)
{
    struct queue *q = state;

    return virtio_send(&q->world, q->requests, count);
}

static bool run_baseline(void *state, uint64_t count)
{
    struct queue *q = state;

    return virtio_send_baseline(&q->world, q->requests, count);
}

static bool check_queue(void *state)
{
    struct queue *q = state;
    struct viommu_translation out;
    uint64_t place = q->window.oldest;
    bool ok = true;

    for (unsigned i = 0; ok && i < MAPPINGS; i++) {
        ok = !viommu_device_translate(q->driver.device, NULL, virtio_iova(place), VIOMMU_WRITE,
                                      &out) &&
             out.gpa == virtio_gpa(place);
        place = virtio_next(&q->world, place);
    }
    return ok &&
           viommu_device_translate(q->driver.device, NULL, virtio_iova(place), VIOMMU_READ, &out);
}

static bool check_direct(void *state)
{
    return virtio_window_ok(&((struct queue *)state)->world);
}

static bool check_baseline(void *state)
{
    return virtio_window_ok_baseline(&((struct queue *)state)->world);
}

static int figures(void *state, struct figure *figures)
{
    static const char *const names[] = {
        [BATCHES] = "by queue, 32 a notification",
        [ONE_BY_ONE] = "by queue, one a notification",
    };
    const struct queue *q = state;

    for (unsigned i = 0; i < 2; i++) {
        figures[i] = (struct figure){
            .unit = "requests a second",
            .value = (double)q->done[i] * 1e9 / (double)(q->time[i] ? q->time[i] : 1),
        };
        snprintf(figures[i].name, sizeof(figures[i].name), "%s", names[i]);
    }
    return 2;
}

static const struct row rows[] = {
    {
        .name = "virtio-queue",
        .text = "MAP and UNMAP of a page in turns by the guest's queue, 1,000 mappings",
        .unit = "request",
        .step = STEP,
        .single = true,
        .setup = setup,
        .teardown = teardown,
        .figures = figures,
        .side_count = SIDES,
        .ratio_count = 3,
        .sides =
            {
                [BATCHES] = {"by queue, 32 a notification", begin_queue, run_batches, end_batches,
                             check_queue},
                [ONE_BY_ONE] = {"by queue, one a notification", begin_queue, run_one_by_one,
                                end_one_by_one, check_queue},
                [DIRECT] = {"viommu_virtio_request", begin_direct, run_direct, NULL, check_direct},
                [BASELINE] = {"GTree, without a queue", begin_baseline, run_baseline, NULL,
                              check_baseline},
            },
        .ratios =
            {
                {BATCHES, DIRECT, RATIO_COST, 0},
                {ONE_BY_ONE, DIRECT, RATIO_COST, 0},
                {BATCHES, BASELINE, RATIO_SPEEDUP, 0},
            },
    },
};

const struct row_list virtio_queue_rows = {rows, sizeof(rows) / sizeof(rows[0])};
