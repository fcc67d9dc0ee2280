/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rows: a range map that holds so many runs loses one and gets another, again and again.
 *
 * The address space is cut into places, twice as many as there are runs; a run of one to sixteen
 * pages begins at the place's first address. Which places are taken is a window on one cycle
 * through all of them in no useful order (a linear congruential generator of full period): the
 * oldest run is erased, one is inserted at the next place. So no table of places is read beside the
 * map.
 *
 * The baseline is the way common systems write it: a GTree, which is an AVL tree, with a node a
 * run, key and value allocated one by one, a comparison function to which what overlaps is equal,
 * and a look-up for overlap before each insertion. The library's map keeps its largest gaps up to
 * date besides.
 */
#include "bench.h"

#include "range/range_map.h"

#include <glib.h>
#include <stdio.h>
#include <stdlib.h>

#define PLACE_SHIFT 17
#define BASE (UINT64_C(1) << 32)

struct key {
    uint64_t first;
    uint64_t last;
};

struct value {
    uint64_t target;
    uint64_t tag;
};

/* Which places are taken: `runs` places of the cycle, from `oldest` to before `next`. */
struct window {
    uint64_t oldest;
    uint64_t next;
    uint64_t steps; /* since the beginning */
};

struct ranges {
    uint64_t runs;
    uint64_t places; /* a power of two */
    struct range_map map;
    GTree *tree;
    struct window map_window;
    struct window tree_window;
};

static uint64_t next_place(const struct ranges *r, uint64_t place)
{
    return (place * 0xd1342543de82ef95ULL + 0x2545f4914f6cdd1dULL) & (r->places - 1);
}

/* The run at a place. */
static struct range_run run_at(uint64_t place)
{
    uint64_t first = BASE + (place << PLACE_SHIFT);
    uint64_t pages = 1 + (place * 0x9e3779b97f4a7c15ULL >> 60);

    return (struct range_run){first, first + (pages << 12) - 1, first ^ UINT64_C(1) << 45, 3};
}

/* ---- the library ---- */

static bool map_step(struct ranges *r)
{
    struct range_run old = run_at(r->map_window.oldest);
    struct range_run new = run_at(r->map_window.next);

    r->map_window.oldest = next_place(r, r->map_window.oldest);
    r->map_window.next = next_place(r, r->map_window.next);
    r->map_window.steps++;
    return !range_map_erase(&r->map, old.first, old.last, NULL) && !range_map_insert(&r->map, &new);
}

static bool map_run(void *state, uint64_t count)
{
    bool ok = true;

    for (uint64_t i = 0; ok && i < count; i++) {
        ok = map_step(state);
    }
    return ok;
}

/* ---- the baseline ---- */

static gint compare(gconstpointer a, gconstpointer b, gpointer data)
{
    const struct key *x = a;
    const struct key *y = b;

    (void)data;
    return x->last < y->first ? -1 : x->first > y->last;
}

static bool tree_insert(GTree *tree, const struct range_run *run)
{
    struct key *key = g_new(struct key, 1);
    struct value *value = g_new(struct value, 1);

    *key = (struct key){run->first, run->last};
    *value = (struct value){run->target, run->tag};
    if (g_tree_lookup(tree, key)) {
        g_free(key);
        g_free(value);
        return false;
    }
    g_tree_insert(tree, key, value);
    return true;
}

static bool tree_step(struct ranges *r)
{
    struct range_run old = run_at(r->tree_window.oldest);
    struct range_run new = run_at(r->tree_window.next);
    struct key key = {old.first, old.last};

    r->tree_window.oldest = next_place(r, r->tree_window.oldest);
    r->tree_window.next = next_place(r, r->tree_window.next);
    r->tree_window.steps++;
    return g_tree_remove(r->tree, &key) && tree_insert(r->tree, &new);
}

static bool tree_run(void *state, uint64_t count)
{
    bool ok = true;

    for (uint64_t i = 0; ok && i < count; i++) {
        ok = tree_step(state);
    }
    return ok;
}

/* ---- checks: some places, taken and free ---- */

#define SAMPLES 64

static bool same_run(const struct range_run *a, const struct range_run *b)
{
    return a->first == b->first && a->last == b->last && a->target == b->target && a->tag == b->tag;
}

static bool map_has(const struct ranges *r, uint64_t place)
{
    struct range_run wanted = run_at(place);
    struct range_run found;

    return range_map_find(&r->map, wanted.last, &found) && same_run(&found, &wanted);
}

static bool map_check(void *state)
{
    struct ranges *r = state;
    uint64_t taken = r->map_window.oldest;
    uint64_t free = r->map_window.next;
    bool ok = r->map.count == r->runs;

    for (unsigned i = 0; ok && i < SAMPLES && i < r->runs; i++) {
        ok = map_has(r, taken) && !map_has(r, free);
        taken = next_place(r, taken);
        free = next_place(r, free);
    }
    return ok;
}

static bool tree_has(const struct ranges *r, uint64_t place)
{
    struct range_run wanted = run_at(place);
    struct key key = {wanted.last, wanted.last};
    const struct value *value = g_tree_lookup(r->tree, &key);

    return value && value->target == wanted.target;
}

static bool tree_check(void *state)
{
    struct ranges *r = state;
    uint64_t taken = r->tree_window.oldest;
    uint64_t free = r->tree_window.next;
    bool ok = (uint64_t)g_tree_nnodes(r->tree) == r->runs;

    for (unsigned i = 0; ok && i < SAMPLES && i < r->runs; i++) {
        ok = tree_has(r, taken) && !tree_has(r, free);
        taken = next_place(r, taken);
        free = next_place(r, free);
    }
    return ok;
}

/* ---- rows ---- */

static void teardown(void *state)
{
    struct ranges *r = state;

    range_map_fini(&r->map);
    g_tree_destroy(r->tree);
    free(r);
}

static bool fill(struct ranges *r)
{
    uint64_t place = 0;
    bool ok = true;

    for (uint64_t i = 0; ok && i < r->runs; i++) {
        struct range_run run = run_at(place);

        ok = !range_map_insert(&r->map, &run) && tree_insert(r->tree, &run);
        place = next_place(r, place);
    }
    r->map_window.next = place;
    r->tree_window.next = place;
    return ok;
}

static void *setup(uint64_t runs)
{
    struct ranges *r = calloc(1, sizeof(*r));

    if (!r) {
        return NULL;
    }
    r->runs = runs;
    r->places = 1;
    while (r->places < 2 * runs) {
        r->places *= 2;
    }
    range_map_init(&r->map);
    r->tree = g_tree_new_full(compare, NULL, g_free, g_free);
    if (!fill(r)) {
        teardown(r);
        return NULL;
    }
    return r;
}

static void *setup_1k(bool quick)
{
    (void)quick;
    return setup(1000);
}

static void *setup_100k(bool quick)
{
    return setup(quick ? 2000 : 100000);
}

static void *setup_1m(bool quick)
{
    return setup(quick ? 5000 : 1000000);
}

static bool note(void *state, char *text, size_t size)
{
    struct ranges *r = state;

    snprintf(text, size,
             "the map: %.1f bytes a run, %u levels; a GTree: 72, and three times what malloc adds",
             (double)range_map_memory(&r->map) / (double)r->runs, r->map.height);
    return true;
}

#define SIDES                                                                                      \
    .unit = "pair", .teardown = teardown, .note = note, .side_count = 2, .ratio_count = 1,         \
    .sides = {                                                                                     \
        {.name = "range map", .run = map_run, .check = map_check},                                 \
        {.name = "GTree", .run = tree_run, .check = tree_check},                                   \
    }

static const struct row rows[] = {
    {
        .name = "range-1k",
        .text = "erase a run and insert another, 1,000 runs",
        .setup = setup_1k,
        .ratios = {{0, 1, RATIO_SPEEDUP, 4}},
        SIDES,
    },
    {
        .name = "range-100k",
        .text = "erase a run and insert another, 100,000 runs",
        .setup = setup_100k,
        .ratios = {{0, 1, RATIO_SPEEDUP, 6}},
        SIDES,
    },
    {
        .name = "range-1m",
        .text = "erase a run and insert another, 1,000,000 runs",
        .setup = setup_1m,
        .ratios = {{0, 1, RATIO_SPEEDUP, 6}},
        SIDES,
    },
};

const struct row_list range_rows = {rows, 3};
