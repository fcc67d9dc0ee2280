/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A model-based test: a guest changes its tables at random, and invalidates; the unit forgets what
 * it has cached; a far side obeys, asks, forgets, is slow, and is replaced. What that one holds is
 * compared with what it may hold.
 *
 * The model remembers, for each page of device addresses, every translation that was in the tables
 * at some time after the last invalidation of it that is complete began: those are what a cache may
 * hold. All pages of all entries of the far side must be among them, at each step.
 *
 * When all has settled the far side, asking, finds exactly what the tables say, and its rings
 * without asking.
 */
#include "vhost/test_far.h"

#include "support/random.h"
#include "vhost/private.h"

#define PAGES       20          /* of device addresses: those of a ring, and others */
#define BASE        0x100000ull /* the first of them */
#define RING_PAGES  3
#define POOL        64 /* guest pages that they lead to, from: */
#define POOL_FIRST  512
#define EXTRA_PAGES 8 /* the last of these, which are a slot that comes and goes */
#define HISTORY     128
#define FLUSHES     64

/* A translation. perm 0: nothing. */
struct target {
    unsigned page;
    uint8_t perm;
};

/* What was in the tables, oldest first; the last one is there now. */
struct history {
    struct target targets[HISTORY];
    unsigned count;
    unsigned gone; /* so many more were there before */
};

struct flush {
    uint32_t status;
    unsigned first; /* pages */
    unsigned last;
    unsigned marks[PAGES]; /* which translation was the last one when it began, ever counted */
};

struct world {
    struct bed bed;
    struct random random;
    struct history pages[PAGES];
    struct flush flushes[FLUSHES];
    unsigned flush_count;
    bool extra_there;
    bool extra_leaves;
};

static unsigned pick(struct world *world, unsigned below)
{
    return random_below(&world->random, below);
}

static uint64_t iova_of(unsigned page)
{
    return BASE + page * 0x1000ull;
}

static struct target now(const struct world *world, unsigned page)
{
    const struct history *history = &world->pages[page];

    return history->targets[history->count - 1];
}

/* ---- the model ---- */

static void note(struct world *world, unsigned page, struct target target)
{
    struct history *history = &world->pages[page];

    assert_true(history->count < HISTORY);
    history->targets[history->count++] = target;
}

/* What was there before `mark` may not be held any more. */
static void forget_before(struct history *history, unsigned mark)
{
    unsigned drop = mark > history->gone ? mark - history->gone : 0;

    memmove(history->targets, history->targets + drop,
            (history->count - drop) * sizeof(*history->targets));
    history->count -= drop;
    history->gone += drop;
}

static void see_completed(struct world *world)
{
    struct guest *guest = &world->bed.guest;
    uint32_t status = (uint32_t)guest_load(guest, guest->status);
    unsigned done = 0;

    while (done < world->flush_count && world->flushes[done].status <= status) {
        const struct flush *flush = &world->flushes[done++];

        for (unsigned i = flush->first; i <= flush->last; i++) {
            forget_before(&world->pages[i], flush->marks[i]);
        }
    }
    world->flush_count -= done;
    memmove(world->flushes, world->flushes + done, world->flush_count * sizeof(*world->flushes));
}

static bool may_hold(const struct world *world, unsigned page, uint64_t offset, uint8_t perm)
{
    const struct history *history = &world->pages[page];

    for (unsigned i = 0; i < history->count; i++) {
        const struct target *target = &history->targets[i];

        if (target->page * 4096ull == offset && !(perm & ~target->perm)) {
            return true;
        }
    }
    return false;
}

static void check(const struct world *world)
{
    const struct far *far = &world->bed.far;

    for (unsigned i = 0; i < far->entry_count; i++) {
        const struct far_entry *e = &far->entries[i];
        uint64_t left;

        assert_int_equal((e->iova | e->size | e->uaddr) & 0xfff, 0);
        for (uint64_t at = 0; at < e->size; at += 0x1000) {
            uint64_t page = (e->iova + at - BASE) >> 12;
            uint64_t offset = far_offset(far, e->uaddr + at, &left);

            assert_true(page < PAGES);
            if (!may_hold(world, (unsigned)page, offset, e->perm)) {
                fail_msg("page %u is held: %llx, %u", (unsigned)page, (unsigned long long)offset,
                         e->perm);
            }
        }
    }
}

/* ---- what happens ---- */

static void change_page(struct world *world, unsigned page)
{
    struct target target = {POOL_FIRST + pick(world, POOL), (uint8_t)pick(world, 4)};

    if (world->pages[page].count == HISTORY) {
        return;
    }
    /* Often such that it continues its neighbour. */
    if (page && pick(world, 2) && now(world, page - 1).perm &&
        now(world, page - 1).page < POOL_FIRST + POOL - 1) {
        target = now(world, page - 1);
        target.page++;
    }
    note(world, page, target);
    bed_map(&world->bed, iova_of(page), target.page * 4096ull, target.perm);
    if (!target.perm) {
        bed_unmap(&world->bed, iova_of(page));
    }
}

static void flush_pages(struct world *world, unsigned page, unsigned order)
{
    struct flush *flush = &world->flushes[world->flush_count];
    uint64_t first = iova_of(page) & ~((0x1000ull << order) - 1);
    uint64_t last = first + (0x1000ull << order) - 1;

    if (world->flush_count == FLUSHES) {
        return;
    }
    world->flush_count++;
    flush->first = first < BASE ? 0 : (unsigned)((first - BASE) >> 12);
    flush->last = last >= iova_of(PAGES) ? PAGES - 1 : (unsigned)((last - BASE) >> 12);
    for (unsigned i = flush->first; i <= flush->last; i++) {
        flush->marks[i] = world->pages[i].gone + world->pages[i].count - 1;
    }
    bed_flush_begin(&world->bed, first, order);
    flush->status = world->bed.guest.status_value;
}

static void miss(struct world *world, unsigned page)
{
    struct far *far = &world->bed.far;

    if (far->requests >= 0) {
        far_miss(far, iova_of(page) + pick(world, 4096), (uint8_t)(1 + pick(world, 3)));
    }
}

/* It has only so much room. */
static void forget_entry(struct world *world)
{
    struct far *far = &world->bed.far;

    if (far->entry_count) {
        far->entries[pick(world, far->entry_count)] = far->entries[far->entry_count - 1];
        far->entry_count--;
    }
}

static void replace_far(struct world *world)
{
    struct bed *bed = &world->bed;
    bool exact = bed->far.exact;

    far_close(&bed->far);
    bed->far.entry_count = 0;
    bed_run(bed);
    assert_int_equal(viommu_vhost_state(bed->vhost), VIOMMU_VHOST_FAILED);
    /* It is denied where an invalidation was not acknowledged yet. */
    assert_int_equal(viommu_device_reset(bed->device), 0);
    assert_int_equal(viommu_vhost_reconnect(bed->vhost, bed_pair(bed)), 0);
    bed->far.exact = exact;
}

static void on_left(void *opaque)
{
    struct world *world = opaque;

    world->extra_there = false;
    world->extra_leaves = false;
}

/* Guest pages at the end of the pool, which is a slot of its own. */
static void change_memory(struct world *world)
{
    struct bed *bed = &world->bed;
    struct viommu_memory_slot slot =
        bed_slot(bed, POOL_FIRST + POOL - EXTRA_PAGES, POOL_FIRST + POOL - 1, 0);
    struct viommu_memory_batch *batch;

    if (world->extra_leaves) {
        return;
    }
    assert_int_equal(viommu_memory_batch_begin(bed->guest.memory, &batch), 0);
    if (world->extra_there) {
        assert_int_equal(viommu_memory_batch_remove(batch, slot.first, slot.last), 0);
        world->extra_leaves = true;
        if (!viommu_memory_batch_commit(batch, on_left, world)) {
            on_left(world);
        }
    } else {
        assert_int_equal(viommu_memory_batch_add(batch, &slot), 0);
        assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), 0);
        world->extra_there = true;
    }
}

static void step(struct world *world)
{
    unsigned what = pick(world, 100);
    unsigned page = pick(world, PAGES);

    if (what < 25) {
        change_page(world, page);
    } else if (what < 45) {
        flush_pages(world, page, pick(world, 8) ? pick(world, 4) : 9);
    } else if (what < 65) {
        miss(world, page);
    } else if (what < 80) {
        (void)far_step(&world->bed.far);
    } else if (what < 93) {
        (void)viommu_vhost_process(world->bed.vhost);
    } else if (what < 94) {
        /* A denied device translates nothing. */
        if (viommu_vhost_state(world->bed.vhost) == VIOMMU_VHOST_READY) {
            bed_unit_forgets(&world->bed);
        }
    } else if (what < 96) {
        forget_entry(world);
    } else if (what < 98) {
        bed_run(&world->bed);
        world->bed.clock += 2 * FAR_MS;
    } else if (what < 99) {
        change_memory(world);
    } else if (pick(world, 10) == 0) {
        replace_far(world);
    }
    guest_process(&world->bed.guest);
    (void)viommu_memory_process(world->bed.guest.memory);
    see_completed(world);
    check(world);
}

/* ---- when all has settled ---- */

static bool is_there(const struct world *world, struct target target)
{
    return world->extra_there || target.page < POOL_FIRST + POOL - EXTRA_PAGES;
}

static void settle(struct world *world)
{
    struct bed *bed = &world->bed;

    bed_run(bed);
    guest_process(&bed->guest);
    while (viommu_memory_process(bed->guest.memory) == VIOMMU_PENDING) {
        bed_run(bed);
    }
    flush_pages(world, 0, 10);
    bed_run(bed);
    assert_true(bed_flushed(bed));
    for (unsigned i = 0; i < 4; i++) {
        bed_wait(bed, 1000);
    }
    see_completed(world);
    assert_int_equal(world->flush_count, 0);
    check(world);
    for (unsigned page = 0; page < PAGES; page++) {
        struct target target = now(world, page);

        assert_int_equal(world->pages[page].count, 1);
        for (uint8_t perm = 1; perm <= 3; perm++) {
            bool allowed = !(perm & ~target.perm) && is_there(world, target);

            /* A ring that cannot be read is no use. */
            if (page < RING_PAGES && allowed && (target.perm & VIOMMU_READ)) {
                assert_non_null(far_find(&bed->far, iova_of(page), perm));
            }
            if (!far_find(&bed->far, iova_of(page), perm)) {
                far_miss(&bed->far, iova_of(page) + 8, perm);
                bed_run(bed);
            }
            assert_int_equal(far_find(&bed->far, iova_of(page), perm) != NULL, allowed);
        }
    }
    check(world);
}

static void play(uint64_t seed, unsigned steps)
{
    struct world *world = calloc(1, sizeof(*world));
    struct bed *bed = &world->bed;
    struct viommu_memory_batch *batch;
    struct viommu_memory_slot slots[2];
    struct viommu_vhost_ring ring = {
        .size = 256,
        .descriptors = BASE,
        .available = BASE + 0x1000,
        .used = BASE + 0x2000,
        .kick = -1,
        .call = -1,
    };

    assert_non_null(world);
    world->random.state = seed;
    bed_init(bed);
    /* Three slots: what the pool ends with, and the rest. */
    assert_int_equal(viommu_memory_batch_begin(bed->guest.memory, &batch), 0);
    assert_int_equal(viommu_memory_batch_remove(batch, 0, FAR_PAGES * 4096 - 1), 0);
    slots[0] = bed_slot(bed, 0, POOL_FIRST + POOL - EXTRA_PAGES - 1, 0);
    slots[1] = bed_slot(bed, POOL_FIRST + POOL, FAR_PAGES - 1, 0);
    assert_int_equal(viommu_memory_batch_add(batch, &slots[0]), 0);
    assert_int_equal(viommu_memory_batch_add(batch, &slots[1]), 0);
    assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), 0);
    bed_create(bed);
    bed->far.exact = seed & 1;
    bed_run(bed);
    for (unsigned i = 0; i < PAGES; i++) {
        note(world, i, (struct target){0, 0});
    }
    assert_int_equal(viommu_vhost_ring_start(bed->vhost, 0, &ring), 0);
    bed_run(bed);
    for (unsigned i = 0; i < steps; i++) {
        step(world);
        if (i % 500 == 499) {
            settle(world);
        }
    }
    settle(world);
    bed_fini(bed);
    free(world);
}

static void test_random(void **state)
{
    const char *steps = getenv("VIOMMU_VHOST_STEPS");

    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        print_message("seed %llu\n", (unsigned long long)seed);
        play(seed * 0x9e3779b9 + seed, steps ? (unsigned)atoi(steps) : 10000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
