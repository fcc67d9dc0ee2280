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

/* Returns whether there were so many allocations. */
static bool live(uint64_t seed, unsigned long n)
{
    static const struct trouble trouble = {.alloc = true};
    bool failed;

    world_init(&world, seed, &trouble);
    world.alloc_failed_at = n;
    base_alloc_fail_at(n);
    life_run(&world);
    failed = base_alloc_failed();
    base_alloc_fail_at(0);
    life_recover(&world);
    world_fini(&world);
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
    for (uint64_t i = seed ? seed : 2; i <= (seed ? seed : 4); i++) {
        printf("seed %llu: %lu allocations failed, one a life\n", (unsigned long long)i, lives(i));
    }
    printf("mirror allocations: ok\n");
    return 0;
}
