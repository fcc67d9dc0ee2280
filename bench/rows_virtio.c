/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rows: MAP and UNMAP of 4 KiB through viommu_virtio_request, where so many are mapped.
 *
 * A run is a number of requests of one kind, made beforehand: the oldest mappings go, or new ones
 * come. Before it as many of the other kind are sent, at other addresses, which is not timed. So
 * there are always about as many mappings as the row says, and neither side has just used what it
 * is asked for.
 */
#include "bench.h"
#include "virtio_world.h"

#include <stdlib.h>

struct requests {
    struct virtio_world world;
    uint64_t step;     /* requests in a run */
    uint8_t *requests; /* of the run */
    uint8_t *others;   /* of the part before it */
};

static void teardown(void *state)
{
    struct requests *r = state;

    virtio_world_fini(&r->world);
    free(r->requests);
    free(r->others);
    free(r);
}

static void *setup(uint64_t mappings, uint64_t step)
{
    struct requests *r = calloc(1, sizeof(*r));

    if (!r) {
        return NULL;
    }
    virtio_world_init(&r->world, mappings, 0);
    r->step = step;
    r->requests = calloc(step, VIRTIO_REQUEST);
    r->others = calloc(step, VIRTIO_REQUEST);
    if (!r->requests || !r->others) {
        teardown(r);
        return NULL;
    }
    return r;
}

static void *setup_1k(bool quick)
{
    (void)quick;
    return setup(1000, 400);
}

static void *setup_100k(bool quick)
{
    return quick ? setup(2000, 400) : setup(100000, 20000);
}

static void *setup_1m(bool quick)
{
    return quick ? setup(5000, 400) : setup(1000000, 20000);
}

static uint64_t step_of(void *state)
{
    return ((struct requests *)state)->step;
}

/* The requests that take the oldest places away, and those that take the next ones. */
static void prepare(struct requests *r, struct virtio_window *window, uint8_t *unmaps,
                    uint8_t *maps)
{
    for (uint64_t i = 0; i < r->step; i++) {
        virtio_put_unmap(unmaps + i * VIRTIO_REQUEST, window->oldest);
        virtio_put_map(maps + i * VIRTIO_REQUEST, window->next);
        window->oldest = virtio_next(&r->world, window->oldest);
        window->next = virtio_next(&r->world, window->next);
    }
}

static void map_begin(void *state)
{
    struct requests *r = state;

    prepare(r, &r->world.window, r->others, r->requests);
    (void)virtio_send(&r->world, r->others, r->step);
}

static void map_begin_baseline(void *state)
{
    struct requests *r = state;

    prepare(r, &r->world.baseline_window, r->others, r->requests);
    (void)virtio_send_baseline(&r->world, r->others, r->step);
}

static void unmap_begin(void *state)
{
    struct requests *r = state;

    prepare(r, &r->world.window, r->requests, r->others);
    (void)virtio_send(&r->world, r->others, r->step);
}

static void unmap_begin_baseline(void *state)
{
    struct requests *r = state;

    prepare(r, &r->world.baseline_window, r->requests, r->others);
    (void)virtio_send_baseline(&r->world, r->others, r->step);
}

static bool run(void *state, uint64_t count)
{
    struct requests *r = state;

    return virtio_send(&r->world, r->requests, count);
}

static bool run_baseline(void *state, uint64_t count)
{
    struct requests *r = state;

    return virtio_send_baseline(&r->world, r->requests, count);
}

static bool check(void *state)
{
    struct requests *r = state;

    return virtio_window_ok(&r->world);
}

static bool check_baseline(void *state)
{
    struct requests *r = state;

    return virtio_window_ok_baseline(&r->world);
}

#define ROW(ROW_NAME, ROW_TEXT, SETUP, BEGIN, BEGIN_BASELINE)                                      \
    {                                                                                              \
        .name = ROW_NAME, .text = ROW_TEXT, .unit = "request", .step_of = step_of, .single = true, \
        .setup = SETUP, .teardown = teardown, .side_count = 2, .ratio_count = 1,                   \
        .sides = {{"viommu", BEGIN, run, NULL, check},                                             \
                  {"GTree", BEGIN_BASELINE, run_baseline, NULL, check_baseline}},                  \
        .ratios = {{0, 1, RATIO_SPEEDUP, 4}},                                                      \
    }

static const struct row rows[] = {
    ROW("virtio-map-1k", "MAP, a page, 1,000 mappings", setup_1k, map_begin, map_begin_baseline),
    ROW("virtio-map-100k", "MAP, a page, 100,000 mappings", setup_100k, map_begin,
        map_begin_baseline),
    ROW("virtio-map-1m", "MAP, a page, 1,000,000 mappings", setup_1m, map_begin,
        map_begin_baseline),
    ROW("virtio-unmap-1k", "UNMAP, a page, 1,000 mappings", setup_1k, unmap_begin,
        unmap_begin_baseline),
    ROW("virtio-unmap-100k", "UNMAP, a page, 100,000 mappings", setup_100k, unmap_begin,
        unmap_begin_baseline),
    ROW("virtio-unmap-1m", "UNMAP, a page, 1,000,000 mappings", setup_1m, unmap_begin,
        unmap_begin_baseline),
};

const struct row_list virtio_rows = {rows, sizeof(rows) / sizeof(rows[0])};
