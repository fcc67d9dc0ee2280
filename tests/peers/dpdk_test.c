/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * DPDK's testpmd behind our IOMMU, by our vhost front-end (run.py starts this).
 *
 *   dpdk_test TESTPMD DIRECTORY [--log FILE] [--virtio] [--scale PERCENT]
 *
 * Frames go to testpmd and come back, in rings and buffers whose addresses are the device's, while
 * the guest maps and unmaps other buffers, moves rings, makes mistakes, and while testpmd hangs,
 * dies and comes again. All the time the ledger compares what it is given with what the tables say;
 * memory that was taken away is poisoned: what is read there would come back, what is written there
 * is seen.
 *
 * Prints "ok NAME" or "not ok NAME: WHY" for each check, in an order that matters: they share one
 * virtual machine.
 */
#include "traffic.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    OWN_PAGE = RING_PAGES, /* of the window, for a check by itself */
    LAZY_BATCH = 16,
    MORE_SECONDS = 30,
    POISON = 0xa5,
};

static unsigned scale = 100;

struct test {
    struct world world;
    struct traffic traffic;
    struct random random;
    char why[300];
};

/* ---- help ---- */

static unsigned scaled(unsigned count)
{
    count = count * scale / 100;
    return count ? count : 1;
}

static const char *because(struct test *test, const char *what, uint64_t a, uint64_t b)
{
    snprintf(test->why, sizeof(test->why), "%s: %llu, %llu", what, (unsigned long long)a,
             (unsigned long long)b);
    return test->why;
}

/* Takes pages that the device does not use elsewhere, in one step. */
static unsigned map_elsewhere(struct test *test, unsigned count, enum flush flush, bool in_place)
{
    struct world *world = &test->world;
    unsigned pages[64];
    uint64_t old[64];
    unsigned taken = traffic_take(&test->traffic, pages, count);

    for (unsigned i = 0; i < taken; i++) {
        old[i] = world->pages[pages[i]].gpa;
        if (in_place) {
            world_map(world, pages[i], world_take(world), traffic_perm(&test->random));
        } else {
            world_map(world, pages[i], 0, 0);
        }
    }
    if (taken) {
        world_flush(world, flush);
    }
    for (unsigned i = 0; i < taken; i++) {
        world_give(world, old[i]); /* poisoned, and looked at when it is used again */
        if (!in_place) {
            world_map(world, pages[i], world_take(world), traffic_perm(&test->random));
        }
    }
    if (taken && !in_place) {
        world_flush(world, flush); /* caching mode: what was not present is told, too */
    }
    traffic_give_back(&test->traffic, pages, taken);
    return taken;
}

/* As many pages as are wanted; of many, until frames have come back meanwhile: when other threads
 * get a CPU is not for the guest to say. */
static const char *map_many_elsewhere(struct test *test, unsigned wanted, unsigned batch,
                                      enum flush flush, bool in_place)
{
    uint64_t end = world_now() + MORE_SECONDS * 1000000000ull;
    uint64_t before = atomic_load(&test->traffic.received);
    bool more = wanted >= 1000;

    for (unsigned done = 0; done < wanted || more;) {
        unsigned count = map_elsewhere(test, batch, flush, in_place);

        done += count;
        if (!count) {
            world_sleep(50);
        }
        if (atomic_load(&test->traffic.wrong)) {
            return test->world.net.wrong;
        }
        more = more && atomic_load(&test->traffic.received) == before && world_now() < end;
    }
    if (wanted >= 1000 && atomic_load(&test->traffic.received) == before) {
        return "no frame came back meanwhile";
    }
    return traffic_wait(&test->traffic, 100);
}

/* Lends a page of the check's own, whole, beside the traffic's. */
static void lend_own(struct test *test, unsigned ring, bool *lent)
{
    struct world *world = &test->world;
    struct net_buffer buffer = {
        .iova = world_iova(OWN_PAGE),
        .host = world_host(world, world->pages[OWN_PAGE].gpa),
        .offset = 100,
        .length = ring ? 300 : NET_HEADER + NET_FRAME_MAX,
        .owner = lent,
    };

    pthread_mutex_lock(&test->traffic.lock);
    *lent = true;
    if (ring) {
        net_send(&world->net, &buffer);
    } else {
        net_receive_into(&world->net, &buffer);
    }
    net_kick(&world->net, ring);
    pthread_mutex_unlock(&test->traffic.lock);
}

static bool is_lent(struct test *test, const bool *lent)
{
    bool is;

    pthread_mutex_lock(&test->traffic.lock);
    is = *lent;
    pthread_mutex_unlock(&test->traffic.lock);
    return is;
}

static bool wait_until_back(struct test *test, const bool *lent)
{
    for (unsigned i = 0; is_lent(test, lent); i++) {
        if (i > 100000) {
            return false;
        }
        world_sleep(100);
    }
    return true;
}

static bool wait_for_fault(struct test *test, uint64_t before)
{
    for (unsigned i = 0; world_faults(&test->world) == before; i++) {
        if (i > 100000) {
            return false;
        }
        world_sleep(100);
    }
    return true;
}

static void unmap_own(struct test *test)
{
    struct world *world = &test->world;
    uint64_t gpa = world->pages[OWN_PAGE].gpa;

    world_map(world, OWN_PAGE, 0, 0);
    world_flush(world, FLUSH_PAGES);
    world_give(world, gpa);
}

/* ---- checks, with an IOMMU that is told of each change ---- */

static const char *check_echo(struct test *test)
{
    const char *why = traffic_wait(&test->traffic, scaled(2000));

    if (!why && !atomic_load(&test->world.wire.misses)) {
        why = "testpmd never asked";
    }
    return why;
}

/* The buffers were mapped one after another to pages one after another. */
static const char *check_runs(struct test *test)
{
    uint64_t longest = atomic_load(&test->world.wire.longest);

    return longest > GUEST_PAGE ? NULL
                                : because(test, "the longest UPDATE, bytes", longest, GUEST_PAGE);
}

static const char *check_strict(struct test *test)
{
    return map_many_elsewhere(test, scaled(5000), 4, FLUSH_PAGES, false);
}

static const char *check_lazy(struct test *test)
{
    return map_many_elsewhere(test, scaled(5000), LAZY_BATCH, FLUSH_DOMAIN, false);
}

static const char *check_in_place(struct test *test)
{
    return map_many_elsewhere(test, scaled(1000), 4, FLUSH_PAGES, true);
}

/* Drops counted in the ledger are of pages that testpmd said it dropped. It holds more of them the
 * more frames pass between changes: where they were few, there are more changes. */
static const char *check_it_held_them(struct test *test)
{
    uint64_t end = world_now() + MORE_SECONDS * 1000000000ull;
    uint64_t drops = ledger_drops(&test->world.ledger);

    printf("# %llu pages dropped\n", (unsigned long long)drops);
    while (drops <= scaled(1000) && world_now() < end) {
        const char *why = map_many_elsewhere(test, 4, 4, FLUSH_PAGES, false);

        if (why) {
            return why;
        }
        drops = ledger_drops(&test->world.ledger);
    }
    return drops > scaled(1000) ? NULL : because(test, "pages dropped", drops, scaled(1000));
}

static const char *check_rings_invalidated(struct test *test)
{
    const char *why = NULL;

    for (unsigned i = 0; i < 20 && !why; i++) {
        world_flush_anyway(&test->world, random_below(&test->random, RING_PAGES), 1);
        why = traffic_wait(&test->traffic, 50);
    }
    return why;
}

/* Another page of memory for a part of a ring, which holds what the first held. */
static const char *move_ring(struct test *test, unsigned page)
{
    struct world *world = &test->world;
    struct net_ring *ring = &world->net.rings[page / 4];
    uint8_t **part = page % 4 == 0 ? &ring->descriptors
                     : page % 4 == 1 ? &ring->available
                                     : &ring->used;
    const char *why = traffic_pause(&test->traffic);
    uint64_t old = world->pages[page].gpa;
    uint64_t gpa;

    if (why) {
        return why;
    }
    pthread_mutex_lock(&test->traffic.lock);
    gpa = world_take(world);
    memcpy(world_host(world, gpa), world_host(world, old), GUEST_PAGE);
    world_map(world, page, gpa, LEDGER_READ | LEDGER_WRITE);
    world_flush(world, FLUSH_PAGES);
    *part = world_host(world, gpa);
    world_give(world, old);
    pthread_mutex_unlock(&test->traffic.lock);
    traffic_go_on(&test->traffic);
    return traffic_wait(&test->traffic, 50);
}

static const char *check_rings_moved(struct test *test)
{
    const char *why = NULL;

    for (unsigned i = 0; i < 20 && !why; i++) {
        why = move_ring(test, i / 3 % 2 * 4 + i % 3);
    }
    return why;
}

static const char *check_denied_and_healed(struct test *test)
{
    struct world *world = &test->world;
    uint64_t faults = world_faults(world);
    uint64_t healed = world_statistics(world).healed;
    uint64_t gpa = world_take(world);
    bool lent;

    /* Its bytes are in memory; only the mapping is missing. */
    world->pages[OWN_PAGE].gpa = gpa;
    lend_own(test, 1, &lent);
    if (!wait_for_fault(test, faults)) {
        return "no fault was recorded";
    }
    world_sleep(50000);
    if (!is_lent(test, &lent)) {
        return "a frame left a page that is not mapped";
    }
    world_map(world, OWN_PAGE, gpa, LEDGER_READ);
    world_flush(world, FLUSH_PAGES);
    if (!wait_until_back(test, &lent)) {
        return "mapped, but the frame does not leave";
    }
    if (world_statistics(world).healed == healed) {
        return "it was not counted";
    }
    unmap_own(test);
    return traffic_wait(&test->traffic, 100);
}

static const char *check_read_only_page(struct test *test)
{
    struct world *world = &test->world;
    uint64_t faults = world_faults(world);
    uint64_t gpa = world_take(world);
    const uint8_t *at = world_host(world, gpa);
    bool lent;

    world_map(world, OWN_PAGE, gpa, LEDGER_READ);
    world_flush(world, FLUSH_PAGES);
    traffic_may_lose(&test->traffic, true);
    lend_own(test, 0, &lent);
    if (!wait_for_fault(test, faults)) {
        return "no fault was recorded";
    }
    world_sleep(200000);
    for (unsigned i = 0; i < GUEST_PAGE; i++) {
        if (at[i] != POISON) {
            return because(test, "byte, value", i, at[i]);
        }
    }
    if (!is_lent(test, &lent)) {
        return "the buffer was used";
    }
    /* Now it may be written: what it holds for reading has to go first. */
    world_map(world, OWN_PAGE, gpa, LEDGER_READ | LEDGER_WRITE);
    world_flush(world, FLUSH_PAGES);
    if (!wait_until_back(test, &lent)) {
        return "made writable, but nothing is received";
    }
    unmap_own(test);
    traffic_wait(&test->traffic, 300);
    traffic_may_lose(&test->traffic, false);
    return traffic_wait(&test->traffic, 100);
}

/* ---- checks, with a far side that fails ---- */

/* Unmaps and maps some; with a far side that does not answer it takes as long as the time-out. */
static const char *invalidate_in_time(struct test *test, uint64_t limit_ms)
{
    uint64_t begin = world_now();
    uint64_t ms;

    map_elsewhere(test, 8, FLUSH_PAGES, false);
    ms = (world_now() - begin) / 1000000;
    return ms <= limit_ms ? NULL : because(test, "invalidations took ms", ms, limit_ms);
}

/* The same until one of the pages was held, and that is noticed. */
static const char *invalidate_until_failed(struct test *test, unsigned failed)
{
    const char *why = NULL;

    for (unsigned i = 0; i < 100 && !why && atomic_load(&test->world.failed) == failed; i++) {
        why = invalidate_in_time(test, 4 * TIMEOUT_MS + 5000);
    }
    return why;
}

static bool is_denied(struct test *test)
{
    struct viommu_translation translation;

    return viommu_device_translate(test->world.device, NULL, world_iova(0), VIOMMU_READ,
                                   &translation) == -EPERM;
}

/* `denied`: it was told to drop translations, and did not say that it did. */
static const char *fail_and_come_again(struct test *test, unsigned failed, int error, bool denied)
{
    struct world *world = &test->world;
    const char *why;

    if (!world_wait(&world->failed, failed + 1)) {
        return "the front-end does not notice";
    }
    if (atomic_load(&world->error) != error) {
        return because(test, "it failed with another error", (unsigned)-atomic_load(&world->error),
                       (unsigned)-error);
    }
    if (viommu_vhost_state(world->vhost) != VIOMMU_VHOST_FAILED) {
        return "the state is not FAILED";
    }
    if (is_denied(test) != denied) {
        return denied ? "the device is not denied" : "the device is denied";
    }
    /* Nobody holds anything: this is done at once. */
    why = invalidate_in_time(test, 5000);
    if (!why) {
        traffic_may_lose(&test->traffic, true);
        guest_ok(denied ? viommu_device_reset(world->device) : 0, "device_reset");
        world_reconnect(world);
        why = traffic_wait(&test->traffic, 500);
        traffic_may_lose(&test->traffic, false);
    }
    if (!why) {
        why = map_many_elsewhere(test, scaled(200), 4, FLUSH_PAGES, false);
    }
    if (!why && atomic_load(&world->failed) != failed + 1) {
        why = "it failed again";
    }
    return why;
}

static const char *check_killed(struct test *test)
{
    unsigned failed = atomic_load(&test->world.failed);

    far_kill(&test->world.far);
    return fail_and_come_again(test, failed, -ECONNRESET, false);
}

static const char *check_killed_in_invalidation(struct test *test)
{
    unsigned failed = atomic_load(&test->world.failed);
    const char *why;

    /* It cannot answer, and does not end before it should. */
    far_stop(&test->world.far);
    atomic_store(&test->world.wire.victim, test->world.far.pid);
    why = invalidate_until_failed(test, failed);
    atomic_store(&test->world.wire.victim, 0); /* its number may be another's soon */
    far_kill(&test->world.far);
    return why ? why : fail_and_come_again(test, failed, -ECONNRESET, true);
}

static const char *check_hangs(struct test *test)
{
    unsigned failed = atomic_load(&test->world.failed);
    const char *why;

    far_stop(&test->world.far);
    why = invalidate_until_failed(test, failed);
    return why ? why : fail_and_come_again(test, failed, -ETIMEDOUT, true);
}

static const char *check_nonsense(struct test *test)
{
    unsigned failed = atomic_load(&test->world.failed);
    const char *why;

    atomic_store(&test->world.wire.garble, true);
    why = invalidate_until_failed(test, failed);
    return why ? why : fail_and_come_again(test, failed, -EPROTO, true);
}

/* ---- all of it ---- */

static const struct {
    const char *name;
    const char *(*check)(struct test *test);
    bool vtd_only; /* a virtio-iommu's guest invalidates by unmapping alone */
} checks[] = {
    {"frames come back", check_echo, false},
    {"pages side by side are told of at once", check_runs, false},
    {"buffers are mapped elsewhere, strictly", check_strict, false},
    {"buffers are mapped elsewhere, lazily", check_lazy, false},
    {"buffers are mapped elsewhere in place", check_in_place, false},
    {"testpmd held what was taken away", check_it_held_them, false},
    {"rings are invalidated", check_rings_invalidated, true},
    {"rings are moved", check_rings_moved, false},
    {"a page that is not mapped: a fault, then it is mapped", check_denied_and_healed, false},
    {"a page that is read-only is not written", check_read_only_page, false},
    {"testpmd is killed and comes again", check_killed, false},
    {"testpmd is killed while it should answer", check_killed_in_invalidation, false},
    {"testpmd hangs", check_hangs, false},
    {"testpmd answers nonsense", check_nonsense, false},
};

static unsigned open_files(void)
{
    DIR *directory = opendir("/proc/self/fd");
    unsigned count = 0;

    while (directory && readdir(directory)) {
        count++;
    }
    if (directory) {
        closedir(directory);
    }
    return count;
}

static bool report(const struct test *test, const char *name, const char *why)
{
    const char *unit = test->world.is_virtio ? "virtio-iommu" : "VT-d";

    if (why) {
        printf("not ok %s, %s: %s\n", name, unit, why);
    } else {
        printf("ok %s, %s\n", name, unit);
    }
    if (why && test->world.vhost) {
        printf("# the front-end failed %u times, the last time with %d\n",
               atomic_load(&test->world.failed), atomic_load(&test->world.error));
    }
    fflush(stdout);
    return !why;
}

static bool run_checks(struct test *test)
{
    struct ledger *ledger = &test->world.ledger;
    bool good = true;

    for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]) && good; i++) {
        uint64_t begin = world_now();
        const char *why;

        if (checks[i].vtd_only && test->world.is_virtio) {
            continue;
        }
        why = checks[i].check(test);
        if (!why) {
            why = ledger_why(ledger);
        }
        good = report(test, checks[i].name, why);
        printf("# %.2f s, %llu frames\n", (double)(world_now() - begin) / 1e9,
               (unsigned long long)atomic_load(&test->traffic.received));
    }
    return good;
}

int main(int argc, char **argv)
{
    static struct test test;
    struct world_options options = {0};
    unsigned files = open_files();
    bool good;

    if (argc < 3) {
        fprintf(stderr, "usage: dpdk_test TESTPMD DIRECTORY [--log FILE] [--virtio] "
                        "[--scale PERCENT]\n");
        return 2;
    }
    options.program = argv[1];
    options.directory = argv[2];
    for (int i = 3; i < argc; i++) {
        options.is_virtio = options.is_virtio || !strcmp(argv[i], "--virtio");
        if (i + 1 < argc && !strcmp(argv[i], "--log")) {
            options.log = argv[i + 1];
        } else if (i + 1 < argc && !strcmp(argv[i], "--scale")) {
            scale = (unsigned)atoi(argv[i + 1]);
        }
    }
    test.random.state = 2;
    world_init(&test.world, &options);
    traffic_start(&test.traffic, &test.world);
    good = run_checks(&test);
    traffic_stop(&test.traffic);
    world_fini(&test.world);
    if (!report(&test, "nothing stays open", open_files() == files ? NULL : "descriptors")) {
        good = false;
    }
    return good ? 0 : 1;
}
