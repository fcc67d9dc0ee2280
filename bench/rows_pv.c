/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rows: paravirtual map and unmap, one page or 512 in a call, deferred or not, each in two layouts;
 * the destruction of a VM with a million mappings; and what a mapping costs in memory.
 *
 * Both sides are given the same calls, and do the same to the same hypervisor: a table of
 * operations that counts references of a page in an array and does nothing else. The baseline
 * (baseline_pv.h) keeps what the interface promises of these calls in the structures that are
 * common, but for one thing: it holds its mutex while it calls the hypervisor, as is common, where
 * the engine gives its own up and takes it back.
 */
#include "baseline_pv.h"
#include "bench.h"
#include "support/pv_quiet.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>

enum {
    OWNER = 1,
    MAPPER = 2,
    BATCH = 512,
    DEFERRED = 1024,
    NEAR = 4096, /* pages */
    RW = VIOMMU_PV_READ | VIOMMU_PV_WRITE,
};

struct pv_bench {
    uint64_t live;  /* mappings that stay */
    uint64_t block; /* so many lie side by side */
    uint64_t apart; /* 0, or: those that stay are so far from each other */
    bool near;      /* what comes and goes lies together */
    uint64_t frames;
    struct viommu_pv *pv;
    uint32_t *refs; /* of pages: what both sides count in */
    uint32_t *types;
    uint64_t flushes;
    uint64_t at;
    struct base_pv *base;
    bool filled; /* the baseline has the mapper */
};

/* ---- the hypervisor ---- */

static int op_lookup(void *opaque, uint32_t vm, uint64_t frame, unsigned order,
                     struct viommu_pv_page *page)
{
    (void)order;
    if (frame >= ((struct pv_bench *)opaque)->frames) {
        return -ENOENT;
    }
    *page = (struct viommu_pv_page){.handle = frame, .owner = vm};
    return 0;
}

static int op_get_page(void *opaque, uint32_t vm, uint64_t frame, unsigned order, uint64_t handle)
{
    (void)vm, (void)frame, (void)order;
    ((struct pv_bench *)opaque)->refs[handle]++;
    return 0;
}

static void op_put_page(void *opaque, unsigned order, uint64_t handle)
{
    (void)order;
    ((struct pv_bench *)opaque)->refs[handle]--;
}

static int op_get_type(void *opaque, unsigned order, uint64_t handle)
{
    (void)order;
    ((struct pv_bench *)opaque)->types[handle]++;
    return 0;
}

static void op_put_type(void *opaque, unsigned order, uint64_t handle)
{
    (void)order;
    ((struct pv_bench *)opaque)->types[handle]--;
}

static int op_context_create(void *opaque, uint32_t vm, uint32_t context, void **space)
{
    (void)vm, (void)context;
    *space = opaque;
    return 0;
}

static int op_flush(void *opaque, void *space, uint64_t first, uint64_t last)
{
    (void)space, (void)first, (void)last;
    ((struct pv_bench *)opaque)->flushes++;
    return 0;
}

/* Both sides call through a table that is not known when they are compiled. */
static const struct viommu_pv_ops *hypervisor(void)
{
    static struct viommu_pv_ops ops;
    static struct viommu_pv_ops *volatile it = &ops;

    ops = pv_quiet();
    ops.lookup = op_lookup;
    ops.get_page = op_get_page;
    ops.put_page = op_put_page;
    ops.get_type = op_get_type;
    ops.put_type = op_put_type;
    ops.context_create = op_context_create;
    ops.flush = op_flush;
    return it;
}

/* ---- the engine ---- */

/* A call of the mapper's: a frame of the owner's at the device frame of the same number. */
static struct viommu_pv_map_call a_call(unsigned operation, uint64_t place, uint64_t count,
                                        uint32_t flags)
{
    return (struct viommu_pv_map_call){
        .head = {VIOMMU_PV_VERSION, (uint16_t)operation, sizeof(struct viommu_pv_map_call)},
        .vm = OWNER,
        .frame = place,
        .device_frame = place,
        .count = count,
        .perm = operation == VIOMMU_PV_MAP ? RW : 0,
        .flags = flags,
    };
}

static bool call(struct pv_bench *b, unsigned operation, uint64_t place, uint64_t count,
                 uint32_t flags)
{
    struct viommu_pv_map_call in = a_call(operation, place, count, flags);
    struct viommu_pv_answer out;
    size_t written;

    return !viommu_pv_call(b->pv, MAPPER, &in, sizeof(in), &out, sizeof(out), &written, NULL) &&
           out.status == VIOMMU_PV_OK;
}

static bool mapper_add(struct pv_bench *b)
{
    struct viommu_pv_head in = {VIOMMU_PV_VERSION, VIOMMU_PV_ENABLE, sizeof(in)};
    struct viommu_pv_answer out;
    size_t written;

    return !viommu_pv_vm_add(b->pv, MAPPER, true) &&
           !viommu_pv_call(b->pv, MAPPER, &in, sizeof(in), &out, sizeof(out), &written, NULL) &&
           out.status == VIOMMU_PV_OK;
}

/*
 * Two layouts. Spread: those that stay take every second page, or every second block of 512; what
 * comes and goes takes the others, in no useful order, so that little of it is in the CPU's caches.
 * Near: those that stay lie side by side, and what comes and goes behind them, in NEAR pages.
 */
static uint64_t stays(const struct pv_bench *b, uint64_t number)
{
    if (b->apart) {
        return number * b->apart;
    }
    return b->near ? number : number / b->block * 2 * b->block + number % b->block;
}

static uint64_t next_place(struct pv_bench *b)
{
    if (b->near) {
        b->at = (b->at + 7919) % (NEAR / b->block);
        return b->live + b->at * b->block;
    }
    b->at = (b->at + 7919) % (b->live / b->block);
    return (b->at * 2 + 1) * b->block;
}

static bool engine(struct pv_bench *b, uint64_t count, uint64_t batch, uint32_t flags)
{
    bool ok = true;

    for (uint64_t i = 0; ok && i < count; i += batch) {
        uint64_t place = next_place(b);

        ok = call(b, VIOMMU_PV_MAP, place, batch, 0) &&
             call(b, VIOMMU_PV_UNMAP, place, batch, flags);
    }
    return ok;
}

static bool engine_one(void *state, uint64_t count)
{
    return engine(state, count, 1, 0);
}

static bool engine_one_deferred(void *state, uint64_t count)
{
    return engine(state, count, 1, VIOMMU_PV_DEFER);
}

static bool engine_batch(void *state, uint64_t count)
{
    return engine(state, count, BATCH, 0);
}

static bool engine_batch_deferred(void *state, uint64_t count)
{
    return engine(state, count, BATCH, VIOMMU_PV_DEFER);
}

/* ---- the baseline ---- */

static bool base_call(struct pv_bench *b, unsigned operation, uint64_t place, uint64_t count,
                      uint32_t flags)
{
    struct viommu_pv_map_call in = a_call(operation, place, count, flags);
    struct viommu_pv_answer out;

    base_pv_call(b->base, MAPPER, &in, sizeof(in), &out);
    return out.status == VIOMMU_PV_OK;
}

static bool base(struct pv_bench *b, uint64_t count, uint64_t batch, uint32_t flags)
{
    bool ok = true;

    for (uint64_t i = 0; ok && i < count; i += batch) {
        uint64_t place = next_place(b);

        ok = base_call(b, VIOMMU_PV_MAP, place, batch, 0) &&
             base_call(b, VIOMMU_PV_UNMAP, place, batch, flags);
    }
    return ok;
}

static bool base_one(void *state, uint64_t count)
{
    return base(state, count, 1, 0);
}

static bool base_one_deferred(void *state, uint64_t count)
{
    return base(state, count, 1, VIOMMU_PV_DEFER);
}

static bool base_batch(void *state, uint64_t count)
{
    return base(state, count, BATCH, 0);
}

static bool base_batch_deferred(void *state, uint64_t count)
{
    return base(state, count, BATCH, VIOMMU_PV_DEFER);
}

/* ---- destruction ---- */

static void engine_fill(void *state)
{
    struct pv_bench *b = state;
    bool ok = mapper_add(b);

    for (uint64_t at = 0; ok && at < b->live; at += b->block) {
        ok = call(b, VIOMMU_PV_MAP, stays(b, at), b->block, 0);
    }
    if (!ok) {
        abort();
    }
}

static bool engine_destroy(void *state, uint64_t count)
{
    (void)count;
    return !viommu_pv_vm_destroy(((struct pv_bench *)state)->pv, MAPPER);
}

static void base_fill(void *state)
{
    struct pv_bench *b = state;
    bool ok = true;

    base_pv_vm_add(b->base, MAPPER);
    for (uint64_t at = 0; ok && at < b->live; at += b->block) {
        ok = base_call(b, VIOMMU_PV_MAP, stays(b, at), b->block, 0);
    }
    if (!ok) {
        abort();
    }
    b->filled = true;
}

static bool base_destroy(void *state, uint64_t count)
{
    struct pv_bench *b = state;

    (void)count;
    base_pv_vm_destroy(b->base, MAPPER);
    b->filled = false;
    return true;
}

static bool check_gone(void *state)
{
    const struct pv_bench *b = state;

    for (uint64_t i = 0; i < b->frames; i++) {
        if (b->refs[i] || b->types[i]) {
            return false;
        }
    }
    return true;
}

/* ---- the world ---- */

static void teardown(void *state)
{
    struct pv_bench *b = state;

    (void)viommu_pv_vm_destroy(b->pv, MAPPER);
    (void)viommu_pv_vm_destroy(b->pv, OWNER);
    (void)viommu_pv_destroy(b->pv);
    if (b->filled) {
        (void)base_destroy(b, 0);
    }
    base_pv_vm_destroy(b->base, OWNER);
    base_pv_destroy(b->base);
    free(b->refs);
    free(b->types);
    free(b);
}

static struct pv_bench *setup(uint64_t live, uint64_t block, bool near)
{
    struct pv_bench *b = calloc(1, sizeof(*b));
    struct viommu_pv_config config = {.ops = hypervisor(),
                                      .opaque = b,
                                      .frame_max = UINT32_MAX,
                                      .device_frame_max = UINT32_MAX,
                                      .mappings_max = 1 << 21,
                                      .count_max = 1 << 21,
                                      .deferred_max = DEFERRED};

    if (!b) {
        return NULL;
    }
    b->live = live;
    b->block = block;
    b->near = near;
    b->frames = 2 * live;
    b->refs = calloc(b->frames, sizeof(*b->refs));
    b->types = calloc(b->frames, sizeof(*b->types));
    b->base = base_pv_create(&config);
    base_pv_vm_add(b->base, OWNER);
    if (!b->refs || !b->types || viommu_pv_create(&config, &b->pv) ||
        viommu_pv_vm_add(b->pv, OWNER, true)) {
        abort();
    }
    return b;
}

static void *setup_live(bool quick, uint64_t block, bool near)
{
    struct pv_bench *b = setup(quick ? 8 * BATCH : 200 * BATCH, block, near);

    if (b) {
        engine_fill(b);
        base_fill(b);
    }
    return b;
}

static void *setup_one(bool quick)
{
    return setup_live(quick, 1, false);
}

static void *setup_one_near(bool quick)
{
    return setup_live(quick, 1, true);
}

static void *setup_batch(bool quick)
{
    return setup_live(quick, BATCH, false);
}

static void *setup_batch_near(bool quick)
{
    return setup_live(quick, BATCH, true);
}

static void *setup_destroy(bool quick)
{
    return setup(quick ? 8 * BATCH : 2048 * BATCH, BATCH, false);
}

static uint64_t live_of(void *state)
{
    return ((struct pv_bench *)state)->live;
}

/* ---- memory ---- */

static double bytes_in_use(void)
{
    struct mallinfo2 info = mallinfo2();

    return (double)info.uordblks + (double)info.hblkhd;
}

/* What filling adds, a mapping. */
static double bytes_of(struct pv_bench *b, void (*fill)(void *state))
{
    double before = bytes_in_use();

    fill(b);
    return (bytes_in_use() - before) / (double)b->live;
}

static void *setup_memory(bool quick)
{
    return setup(quick ? 8 * BATCH : 200 * BATCH, BATCH, true);
}

/* In a world of its own, with pages that far from each other. */
static double engine_bytes_of(uint64_t live, uint64_t apart)
{
    struct pv_bench *b = setup(live, 1, false);
    double bytes;

    b->apart = apart;
    b->frames = live * apart;
    free(b->refs);
    free(b->types);
    b->refs = calloc(b->frames, sizeof(*b->refs));
    b->types = calloc(b->frames, sizeof(*b->types));
    if (!b->refs || !b->types) {
        abort();
    }
    bytes = bytes_of(b, engine_fill);
    teardown(b);
    return bytes;
}

static int memory_figures(void *state, struct figure *figures)
{
    struct pv_bench *b = state;
    const struct figure all[] = {
        {"viommu, side by side", "bytes a mapping", bytes_of(b, engine_fill), 0},
        {"GHashTable and GTree, wherever", "bytes a mapping", bytes_of(b, base_fill), 0},
        {"viommu, every eighth page", "bytes a mapping", engine_bytes_of(b->live, 8), 0},
        {"viommu, every 512th page", "bytes a mapping", engine_bytes_of(8 * BATCH, 512), 0},
    };
    int count = sizeof(all) / sizeof(all[0]);

    for (int i = 0; i < count; i++) {
        figures[i] = all[i];
    }
    return count;
}

#define LIVE(set, engine_run, base_run)                                                            \
    .unit = "pair", .setup = set, .teardown = teardown, .side_count = 2, .ratio_count = 1,         \
    .ratios = {{0, 1, RATIO_SPEEDUP, 4}},                                                          \
    .sides = {                                                                                     \
        {.name = "viommu", .run = engine_run},                                                     \
        {.name = "GHashTable and GTree", .run = base_run},                                         \
    }

static const struct row rows[] = {
    {
        .name = "pv-one",
        .text = "map and unmap of a page, a call each, flushed; spread among 102,400 that stay",
        LIVE(setup_one, engine_one, base_one),
    },
    {
        .name = "pv-one-deferred",
        .text = "the same, deferred",
        LIVE(setup_one, engine_one_deferred, base_one_deferred),
    },
    {
        .name = "pv-one-near",
        .text = "map and unmap of a page, a call each, flushed; of 4,096 that lie together",
        LIVE(setup_one_near, engine_one, base_one),
    },
    {
        .name = "pv-one-near-deferred",
        .text = "the same, deferred",
        LIVE(setup_one_near, engine_one_deferred, base_one_deferred),
    },
    {
        .name = "pv-512",
        .text = "map and unmap of 512 pages, a call each, flushed; spread among 102,400 that stay",
        .step = BATCH,
        LIVE(setup_batch, engine_batch, base_batch),
    },
    {
        .name = "pv-512-deferred",
        .text = "the same, deferred",
        .step = BATCH,
        LIVE(setup_batch, engine_batch_deferred, base_batch_deferred),
    },
    {
        .name = "pv-512-near",
        .text = "map and unmap of 512 pages, a call each, flushed; of 4,096 that lie together",
        .step = BATCH,
        LIVE(setup_batch_near, engine_batch, base_batch),
    },
    {
        .name = "pv-512-near-deferred",
        .text = "the same, deferred",
        .step = BATCH,
        LIVE(setup_batch_near, engine_batch_deferred, base_batch_deferred),
    },
    {
        .name = "pv-destroy",
        .text = "destruction of a VM that maps 1,048,576 pages of another",
        .unit = "mapping",
        .single = true,
        .rounds = 9,
        .step_of = live_of,
        .setup = setup_destroy,
        .teardown = teardown,
        .side_count = 2,
        .ratio_count = 1,
        .ratios = {{0, 1, RATIO_SPEEDUP, 4}},
        .sides =
            {
                {.name = "viommu",
                 .begin = engine_fill,
                 .run = engine_destroy,
                 .check = check_gone},
                {.name = "GHashTable and GTree",
                 .begin = base_fill,
                 .run = base_destroy,
                 .check = check_gone},
            },
    },
    {
        .name = "pv-memory",
        .text = "memory that a mapping of a page takes",
        .unit = "mapping",
        .setup = setup_memory,
        .teardown = teardown,
        .figures = memory_figures,
    },
};

const struct row_list pv_rows = {rows, sizeof(rows) / sizeof(rows[0])};
