/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Spaces that follow a guest memory: case by case, and at random against what a plain list of slots
 * says. Invariants of the space are checked after every change (check.c).
 */
#include <viommu/iova.h>
#include <viommu/save.h>

#include "base/alloc.h"
#include "memory/test_memory.h"

#include <errno.h>
#include <string.h>

#define RANGE(first, last) (&(struct viommu_range){first, last})

struct fixture {
    struct viommu_memory *memory;
    struct viommu_iova *space;
    struct viommu_iova_owner *vmm;
    struct viommu_iova_owner *disk;
    struct viommu_iova_follower *follower;
    struct viommu_memory_listener *listener;
    bool hold; /* the listener answers VIOMMU_PENDING */
    uint64_t token;
};

static int on_leaving(void *opaque, const struct viommu_memory_change *change)
{
    struct fixture *f = opaque;

    f->token = change->token;
    return f->hold ? VIOMMU_PENDING : 0;
}

static const struct viommu_memory_listener_ops listener_ops = {.leaving = on_leaving};

static void begin_space(struct fixture *f, bool identity)
{
    const struct viommu_iova_config config = {.identity = identity};

    assert_int_equal(viommu_iova_create(&config, &f->space), 0);
    assert_int_equal(viommu_iova_owner_create(f->space, "vmm", &f->vmm), 0);
    assert_int_equal(viommu_iova_owner_create(f->space, "disk", &f->disk), 0);
}

static void begin(struct fixture *f, bool identity)
{
    memset(f, 0, sizeof(*f));
    assert_int_equal(viommu_memory_create(&f->memory), 0);
    assert_int_equal(viommu_memory_listener_add(f->memory, &listener_ops, f, &f->listener), 0);
    begin_space(f, identity);
}

static void end(struct fixture *f)
{
    viommu_iova_destroy(f->space);
    viommu_memory_destroy(f->memory);
}

static void follow(struct fixture *f)
{
    assert_int_equal(viommu_iova_follow(f->vmm, f->memory, &f->follower, NULL), 0);
}

static int reserve(struct fixture *f, uint64_t first, uint64_t last, bool movable,
                   struct viommu_iova_reservation **out)
{
    const struct viommu_iova_request request = {
        .type = VIOMMU_IOVA_SW_MSI, .range = {first, last}, .movable = movable};
    struct viommu_iova_conflict conflict;

    return viommu_iova_reserve(f->disk, &request, 1, out, &conflict);
}

static int ram(struct fixture *f, uint64_t gpa)
{
    return test_add_one(f->memory, gpa, 1, 0);
}

static int gone(struct fixture *f, uint64_t gpa)
{
    return test_remove_one(f->memory, gpa, 1);
}

static void let_go(struct fixture *f)
{
    f->hold = false;
    assert_int_equal(viommu_memory_listener_complete(f->listener, f->token), 0);
    viommu_memory_process(f->memory);
}

static size_t memories(const struct fixture *f)
{
    const struct viommu_iova_memory *m = NULL;
    size_t count = 0;

    while ((m = viommu_iova_memory_next(f->vmm, m))) {
        count++;
    }
    return count;
}

static void test_refused_before_it_is_there(void **state)
{
    struct viommu_iova_reservation *window;
    struct viommu_iova_conflict conflict;
    struct viommu_memory_batch *batch;
    struct fixture f;

    (void)state;
    begin(&f, true);
    assert_int_equal(ram(&f, 0x10000), 0);
    follow(&f);
    assert_int_equal(memories(&f), 1);
    assert_int_equal(reserve(&f, 0x20000, 0x20fff, false, &window), 0);
    assert_int_equal(reserve(&f, 0x10000, 0x10fff, false, &window), -EADDRINUSE);
    assert_int_equal(viommu_iova_follower_refused(f.follower, &conflict), -ENOENT);
    /* One slot of two does not fit: neither comes. */
    batch = test_begin(f.memory);
    test_add(batch, 0x30000, 1, 1);
    test_add(batch, 0x1f000, 2, 2);
    test_remove(batch, 0x10000, 1);
    assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), -EADDRNOTAVAIL);
    assert_false(test_present(f.memory, 0x30000));
    assert_true(test_present(f.memory, 0x10000));
    assert_int_equal(memories(&f), 1);
    assert_int_equal(viommu_iova_follower_refused(f.follower, &conflict), 0);
    assert_int_equal(conflict.asked.kind, VIOMMU_IOVA_MEMORY);
    assert_string_equal(conflict.asked.owner, "vmm");
    assert_int_equal(conflict.asked.range.first, 0x1f000);
    assert_int_equal(conflict.holder.kind, VIOMMU_IOVA_RESERVATION);
    assert_string_equal(conflict.holder.owner, "disk");
    assert_int_equal(conflict.holder.range.first, 0x20000);
    assert_int_equal(reserve(&f, 0x30000, 0x30fff, false, &window), 0);
    /* Outside limits, or mapped: the same errno, another holder. */
    assert_int_equal(viommu_iova_limit(f.disk, RANGE(0, 0xfffff), 1, NULL), 0);
    assert_int_equal(ram(&f, 0x100000), -EADDRNOTAVAIL);
    assert_int_equal(viommu_iova_follower_refused(f.follower, &conflict), 0);
    assert_int_equal(conflict.holder.kind, VIOMMU_IOVA_LIMIT);
    assert_int_equal(viommu_iova_map(f.disk, RANGE(0x40000, 0x40fff), NULL), 0);
    assert_int_equal(ram(&f, 0x40000), -EADDRNOTAVAIL);
    assert_int_equal(viommu_iova_follower_refused(f.follower, &conflict), 0);
    assert_int_equal(conflict.holder.kind, VIOMMU_IOVA_MAPPING);
    viommu_iova_unfollow(f.follower);
    assert_int_equal(memories(&f), 0);
    assert_int_equal(ram(&f, 0x40000), 0);
    end(&f);
}

/* What cannot follow, does not, and says why. */
static void test_what_is_there_does_not_fit(void **state)
{
    struct viommu_iova_follower *follower;
    struct viommu_iova_reservation *window;
    struct viommu_iova_conflict conflict;
    struct fixture f;

    (void)state;
    begin(&f, true);
    assert_int_equal(ram(&f, 0x10000), 0);
    assert_int_equal(ram(&f, 0x20000), 0);
    assert_int_equal(reserve(&f, 0x20000, 0x20fff, false, &window), 0);
    assert_int_equal(viommu_iova_follow(f.vmm, f.memory, &follower, &conflict), -EADDRNOTAVAIL);
    assert_int_equal(conflict.holder.range.first, 0x20000);
    assert_int_equal(memories(&f), 0);
    assert_int_equal(ram(&f, 0x30000), 0); /* nobody judges */
    assert_int_equal(viommu_iova_follow(NULL, f.memory, &follower, NULL), -EINVAL);
    assert_int_equal(viommu_iova_follow(f.vmm, NULL, &follower, NULL), -EINVAL);
    assert_int_equal(viommu_iova_follow(f.vmm, f.memory, NULL, NULL), -EINVAL);
    assert_int_equal(viommu_iova_follower_refused(NULL, &conflict), -EINVAL);
    viommu_iova_unfollow(NULL);
    end(&f);
}

static void test_windows_give_way(void **state)
{
    struct viommu_iova_reservation *window;
    uint64_t iova;
    struct fixture f;

    (void)state;
    begin(&f, true);
    follow(&f);
    assert_int_equal(reserve(&f, 0x10000, 0x10fff, true, &window), 0);
    assert_int_equal(ram(&f, 0x10000), 0);
    assert_int_not_equal(viommu_iova_reservation_range(window).first, 0x10000);
    /* In use it stays. */
    assert_int_equal(viommu_iova_doorbell_map(window, 0xfee00000, &iova, NULL), 0);
    assert_int_equal(ram(&f, viommu_iova_reservation_range(window).first), -EADDRNOTAVAIL);
    end(&f);
    /* Where the guest programs an IOMMU nothing is refused; windows are not placed over it. */
    begin(&f, false);
    follow(&f);
    assert_int_equal(reserve(&f, 0x10000, 0x10fff, false, &window), 0);
    assert_int_equal(ram(&f, 0x10000), 0);
    assert_int_equal(ram(&f, 0x20000), 0);
    assert_int_equal(reserve(&f, 0x20000, 0x20fff, true, &window), 0);
    assert_int_not_equal(viommu_iova_reservation_range(window).first, 0x20000);
    end(&f);
}

/* What goes is there until nobody can reach it. */
static void test_leaves_when_it_is_gone(void **state)
{
    struct viommu_iova_reservation *window;
    struct fixture f;

    (void)state;
    begin(&f, true);
    follow(&f);
    assert_int_equal(ram(&f, 0x10000), 0);
    f.hold = true;
    assert_int_equal(gone(&f, 0x10000), VIOMMU_PENDING);
    assert_int_equal(reserve(&f, 0x10000, 0x10fff, false, &window), -EADDRINUSE);
    /* It comes again before: then both are there, and one stays. */
    assert_int_equal(ram(&f, 0x10000), VIOMMU_PENDING);
    assert_int_equal(memories(&f), 2);
    let_go(&f);
    assert_int_equal(memories(&f), 1);
    assert_int_equal(reserve(&f, 0x10000, 0x10fff, false, &window), -EADDRINUSE);
    assert_int_equal(gone(&f, 0x10000), 0);
    assert_int_equal(memories(&f), 0);
    assert_int_equal(reserve(&f, 0x10000, 0x10fff, false, &window), 0);
    end(&f);
}

/* It begins while a batch waits: what that removes counts, what it adds, too. */
static void test_begins_in_the_middle(void **state)
{
    struct viommu_iova_follower *other;
    struct viommu_iova_reservation *window;
    struct viommu_iova_conflict conflict;
    struct fixture f;

    (void)state;
    begin(&f, true);
    assert_int_equal(ram(&f, 0x10000), 0);
    f.hold = true;
    assert_int_equal(gone(&f, 0x10000), VIOMMU_PENDING);
    assert_int_equal(ram(&f, 0x20000), VIOMMU_PENDING);
    follow(&f);
    assert_int_equal(memories(&f), 2);
    assert_int_equal(reserve(&f, 0x10000, 0x10fff, false, &window), -EADDRINUSE);
    assert_int_equal(reserve(&f, 0x20000, 0x20fff, false, &window), -EADDRINUSE);
    let_go(&f);
    assert_int_equal(memories(&f), 1);
    viommu_iova_unfollow(f.follower);
    /* Refused because of what comes: what goes is not left behind. */
    f.hold = true;
    assert_int_equal(gone(&f, 0x20000), VIOMMU_PENDING);
    assert_int_equal(ram(&f, 0x30000), VIOMMU_PENDING);
    assert_int_equal(reserve(&f, 0x30000, 0x30fff, false, &window), 0);
    assert_int_equal(viommu_iova_follow(f.vmm, f.memory, &other, &conflict), -EADDRNOTAVAIL);
    assert_int_equal(conflict.holder.range.first, 0x30000);
    assert_int_equal(memories(&f), 0);
    let_go(&f);
    end(&f);
}

/* Two spaces: what the second refuses the first has not. */
static void test_two_spaces(void **state)
{
    struct viommu_iova_reservation *window;
    struct viommu_iova_conflict conflict;
    struct fixture f;
    struct fixture g;

    (void)state;
    begin(&f, true);
    g = f;
    begin_space(&g, true);
    follow(&f);
    follow(&g);
    assert_int_equal(reserve(&f, 0x10000, 0x10fff, false, &window), 0);
    assert_int_equal(reserve(&g, 0x20000, 0x20fff, false, &window), 0);
    assert_int_equal(ram(&f, 0x10000), -EADDRNOTAVAIL);
    assert_int_equal(ram(&f, 0x20000), -EADDRNOTAVAIL);
    assert_int_equal(memories(&f) + memories(&g), 0);
    assert_int_equal(viommu_iova_follower_refused(f.follower, &conflict), 0);
    assert_int_equal(conflict.holder.range.first, 0x10000);
    assert_int_equal(viommu_iova_follower_refused(g.follower, &conflict), 0);
    assert_int_equal(conflict.holder.range.first, 0x20000);
    assert_int_equal(ram(&f, 0x30000), 0);
    assert_int_equal(memories(&f) + memories(&g), 2);
    /* One goes, with its owner or its space; the other stays. */
    viommu_iova_owner_destroy(g.vmm);
    assert_int_equal(ram(&f, 0x20000), 0);
    viommu_iova_destroy(g.space);
    assert_int_equal(ram(&f, 0x10000), -EADDRNOTAVAIL);
    /* The space holds the memory. */
    viommu_memory_destroy(f.memory);
    assert_int_equal(memories(&f), 2);
    viommu_iova_destroy(f.space);
}

/* What follows a slot is not the embedder's to remove; what a loaded space has is taken over. */
static void test_taken_over(void **state)
{
    struct viommu_iova_memory *memory;
    struct fixture f;
    struct fixture g;
    size_t size;
    void *data;

    (void)state;
    begin(&f, true);
    follow(&f);
    assert_int_equal(ram(&f, 0x10000), 0);
    assert_int_equal(ram(&f, 0x20000), 0);
    viommu_iova_memory_remove(viommu_iova_memory_next(f.vmm, NULL));
    assert_int_equal(memories(&f), 2);
    assert_int_equal(viommu_iova_memory_add(f.vmm, RANGE(0x20000, 0x20fff), true, &memory, NULL),
                     0);
    assert_int_equal(viommu_iova_save(f.space, &data, &size), 0);
    g = f;
    assert_int_equal(viommu_iova_load(data, size, &g.space), 0);
    viommu_save_free(data);
    g.disk = viommu_iova_owner_next(g.space, NULL);
    g.vmm = viommu_iova_owner_next(g.space, g.disk);
    assert_string_equal(viommu_iova_owner_name(g.vmm), "vmm");
    assert_int_equal(memories(&g), 3);
    follow(&g);
    assert_int_equal(memories(&g), 3);
    assert_int_equal(gone(&f, 0x10000), 0);
    assert_int_equal(gone(&f, 0x20000), 0);
    assert_int_equal(memories(&g), 1); /* what was declared */
    assert_int_equal(memories(&f), 1);
    viommu_iova_destroy(g.space);
    end(&f);
}

/* Each allocation fails once. */
static void test_no_memory(void **state)
{
    struct viommu_iova_reservation *window;
    struct fixture f;
    unsigned failures = 0;
    int error;

    (void)state;
    begin(&f, true);
    assert_int_equal(ram(&f, 0x10000), 0);
    assert_int_equal(reserve(&f, 0x20000, 0x20fff, true, &window), 0);
    for (unsigned long n = 1;; n++) {
        base_alloc_fail_at(n);
        error = viommu_iova_follow(f.vmm, f.memory, &f.follower, NULL);
        if (!base_alloc_failed()) {
            break;
        }
        failures++;
        assert_int_equal(error, -ENOMEM);
        assert_int_equal(memories(&f), 0);
    }
    base_alloc_fail_at(0);
    assert_int_equal(error, 0);
    for (unsigned long n = 1;; n++) {
        struct viommu_memory_batch *batch = test_begin(f.memory);

        test_add(batch, 0x20000, 1, 1);
        base_alloc_fail_at(n);
        error = viommu_memory_batch_commit(batch, NULL, NULL);
        if (!base_alloc_failed()) {
            break;
        }
        base_alloc_fail_at(0);
        failures++;
        assert_int_equal(error, -ENOMEM);
        assert_int_equal(memories(&f), 1);
        assert_false(test_present(f.memory, 0x20000));
        assert_int_equal(viommu_iova_reservation_range(window).first, 0x20000);
    }
    base_alloc_fail_at(0);
    assert_int_equal(error, 0);
    assert_true(failures > 4);
    end(&f);
}

/* ---- at random ---- */

enum {
    PAGES = 12,
    SPACES = 2,
    STEPS = 30000,
};

struct world {
    struct fixture f[SPACES];
    bool slot[PAGES];                                       /* all accepted batches lead there */
    unsigned claims[PAGES];                                 /* what a space must have */
    struct viommu_iova_reservation *fixed[SPACES][PAGES];
    bool going[PAGES];                                      /* a batch that waits removes them */
    bool waits;
};

static uint32_t random_below(uint32_t *seed, uint32_t n)
{
    *seed = *seed * 1664525 + 1013904223;
    return (*seed >> 8) % n;
}

static void expect_claims(const struct world *w, unsigned s)
{
    const struct viommu_iova_memory *m = NULL;
    unsigned found[PAGES] = {0};

    while ((m = viommu_iova_memory_next(w->f[s].vmm, m))) {
        struct viommu_range range = viommu_iova_memory_range(m, NULL);

        assert_int_equal(range.last - range.first, PAGE - 1);
        found[range.first / PAGE]++;
    }
    if (w->f[s].follower) {
        assert_memory_equal(found, w->claims, sizeof(found));
    } else {
        static const unsigned none[PAGES];

        assert_memory_equal(found, none, sizeof(found));
    }
    for (unsigned p = 0; p < PAGES; p++) {
        assert_false(found[p] && w->fixed[s][p]);
    }
}

static bool forbidden(const struct world *w, unsigned page)
{
    for (unsigned s = 0; s < SPACES; s++) {
        if (w->f[s].follower && w->fixed[s][page]) {
            return true;
        }
    }
    return false;
}

/* A batch that turns some pages over: slots go, others come, some go and come. */
static void turn_over(struct world *w, uint32_t *seed)
{
    struct viommu_memory_batch *batch = test_begin(w->f[0].memory);
    bool goes[PAGES] = {false};
    bool comes[PAGES] = {false};
    bool refused = false;
    bool removes = false;
    int error;

    w->f[0].hold = !random_below(seed, 3);
    for (unsigned p = 0; p < PAGES; p++) {
        goes[p] = w->slot[p] && !random_below(seed, 4);
        comes[p] = (!w->slot[p] || goes[p]) && !random_below(seed, 4);
        if (goes[p]) {
            test_remove(batch, p * PAGE, 1);
        }
        if (comes[p]) {
            test_add(batch, p * PAGE, 1, p);
        }
        removes = removes || goes[p];
        refused = refused || (comes[p] && forbidden(w, p));
    }
    error = viommu_memory_batch_commit(batch, NULL, NULL);
    if (refused) {
        assert_int_equal(error, -EADDRNOTAVAIL);
        return;
    }
    assert_int_equal(error, removes && w->f[0].hold ? VIOMMU_PENDING : 0);
    for (unsigned p = 0; p < PAGES; p++) {
        w->slot[p] = (w->slot[p] && !goes[p]) || comes[p];
        w->going[p] = error && goes[p];
        w->claims[p] = w->slot[p] + w->going[p];
    }
    w->waits = error;
}

static void finish(struct world *w)
{
    let_go(&w->f[0]);
    w->waits = false;
    for (unsigned p = 0; p < PAGES; p++) {
        w->going[p] = false;
        w->claims[p] = w->slot[p];
    }
}

static void change_space(struct world *w, unsigned s, uint32_t *seed)
{
    unsigned p = random_below(seed, PAGES);
    bool conflicts = false;

    if (!random_below(seed, 4)) {
        if (w->f[s].follower) {
            viommu_iova_unfollow(w->f[s].follower);
            w->f[s].follower = NULL;
            return;
        }
        for (p = 0; p < PAGES; p++) {
            conflicts = conflicts || (w->claims[p] && w->fixed[s][p]);
        }
        assert_int_equal(viommu_iova_follow(w->f[s].vmm, w->f[s].memory, &w->f[s].follower, NULL),
                         conflicts ? -EADDRNOTAVAIL : 0);
        return;
    }
    if (w->fixed[s][p]) {
        viommu_iova_release(w->fixed[s][p]);
        w->fixed[s][p] = NULL;
        return;
    }
    conflicts = w->f[s].follower && w->claims[p];
    assert_int_equal(reserve(&w->f[s], p * PAGE, p * PAGE + (PAGE - 1), false, &w->fixed[s][p]),
                     conflicts ? -EADDRINUSE : 0);
    w->fixed[s][p] = conflicts ? NULL : w->fixed[s][p];
}

static void test_random(void **state)
{
    struct world w;
    uint32_t seed = 1;

    (void)state;
    memset(&w, 0, sizeof(w));
    begin(&w.f[0], true);
    w.f[1].memory = w.f[0].memory;
    begin_space(&w.f[1], true);
    for (unsigned i = 0; i < STEPS; i++) {
        if (random_below(&seed, 2)) {
            change_space(&w, random_below(&seed, SPACES), &seed);
        } else if (w.waits) {
            finish(&w);
        } else {
            turn_over(&w, &seed);
        }
        expect_claims(&w, 0);
        expect_claims(&w, 1);
    }
    if (w.waits) {
        finish(&w);
    }
    viommu_iova_destroy(w.f[1].space);
    end(&w.f[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused_before_it_is_there),
        cmocka_unit_test(test_what_is_there_does_not_fit),
        cmocka_unit_test(test_windows_give_way),
        cmocka_unit_test(test_leaves_when_it_is_gone),
        cmocka_unit_test(test_begins_in_the_middle),
        cmocka_unit_test(test_two_spaces),
        cmocka_unit_test(test_taken_over),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_random),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
