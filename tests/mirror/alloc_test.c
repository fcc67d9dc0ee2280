/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Every allocation fails once, one after another, through a life of mirrors in the world of the
 * model test: a mirror is fenced, or it holds what is right (world.h tells what that is), and a
 * device reset lets it in again. Nothing crashes, and nothing leaks (the address sanitizer looks).
 *
 * --seed N runs another life, --at N only the life in which the N-th allocation fails.
 */
#include "base/alloc.h"

#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIVES_MAX 50000

static struct world world; /* large */

static void (*const operations[])(struct world *world) = {
    mirrors_subscribe,   mirrors_subscribe,   mirrors_subscribe, invalidate_some,
    invalidate_some,     mirrors_subscribe,   command_root,      invalidate_some,
    command_translation, memory_change,       invalidate_twice,  command_renumber,
    memory_change,       mirrors_unsubscribe, invalidate_some,   mirrors_subscribe,
    command_reset,       invalidate_some,     command_device,    memory_change,
    invalidate_some,
};

/* After the failure all is well again: those that were fenced are let in, and nothing differs. */
static void recover(void)
{
    base_alloc_fail_at(0);
    for (unsigned i = 0; i < 4 * WORLD_DEVICES; i++) {
        command_device(&world);
    }
    world_heal(&world);
    for (unsigned i = 0; i < WORLD_MIRRORS; i++) {
        if (world.mirrors[i].subscriber && !world.mirrors[i].recorder.what.mappings_max &&
            world.mirrors[i].differs) {
            world_fail(&world, "mirror %u still differs", i);
        }
    }
    invalidate_twice(&world);
}

/* Returns whether there were so many allocations. */
static bool live(uint64_t seed, unsigned long n)
{
    static const struct trouble trouble = {.alloc = true};
    bool failed;

    world_init(&world, seed, &trouble);
    world.alloc_failed_at = n;
    base_alloc_fail_at(n);
    for (world.step = 0; world.step < sizeof(operations) / sizeof(operations[0]); world.step++) {
        operations[world.step](&world);
    }
    failed = base_alloc_failed();
    if (failed) {
        recover();
    }
    world_fini(&world);
    base_alloc_fail_at(0);
    return failed;
}

/* Returns how many allocations a life has. */
static unsigned long lives(uint64_t seed)
{
    for (unsigned long n = 1; n < LIVES_MAX; n++) {
        if (!live(seed, n)) {
            return n - 1;
        }
    }
    guest_die("%d allocations and more", LIVES_MAX);
}

int main(int argc, char **argv)
{
    uint64_t seed = 0;
    unsigned long only = 0;

    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--seed")) {
            seed = strtoull(argv[i + 1], NULL, 0);
        } else if (!strcmp(argv[i], "--at")) {
            only = strtoul(argv[i + 1], NULL, 0);
        } else {
            fprintf(stderr, "usage: mirror_alloc_test [--seed N [--at N]]\n");
            return 2;
        }
    }
    if (only) {
        live(seed, only);
        return 0;
    }
    for (uint64_t i = seed ? seed : 2; i <= (seed ? seed : 3); i++) {
        printf("seed %llu: %lu allocations failed, one a life\n", (unsigned long long)i, lives(i));
    }
    printf("mirror allocations: ok\n");
    return 0;
}
