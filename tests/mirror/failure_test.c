/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A call of a backend fails, at each point of a life of mirrors: it fails at once, or later, or is
 * never answered; and each n-th call fails. What failed is made good (a MAP), or its mirror is
 * fenced and its device denied until it is reset; world.h tells what must be right all the while.
 *
 * --seed N runs another life, --mode N --at N only that failure.
 */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Points after the first so many are not taken one by one. */
#define ALL_OF 40

static const struct trouble modes[] = {
    {.at = 1},
    {.at = 1, .every = true},
    {.at = 1, .at_is_pending = true, .late_fails = 100},
    {.at = 1, .at_is_pending = true, .never = 100},
    {.at = 1, .every = true, .pending = 30},
};

#define MODES (sizeof(modes) / sizeof(modes[0]))

static struct world world; /* large */

/* Returns whether there were so many calls. */
static bool live(uint64_t seed, size_t mode, unsigned long at)
{
    struct trouble trouble = modes[mode];
    bool reached;

    trouble.at = at;
    world_init(&world, seed, &trouble);
    life_run(&world);
    reached = world.calls >= at;
    life_recover(&world);
    world_fini(&world);
    return reached;
}

static unsigned lives(uint64_t seed, size_t mode)
{
    unsigned count = 0;

    /* Each call failing leaves nothing but fences: from the second on. */
    for (unsigned long at = 1 + modes[mode].every; live(seed, mode, at);
         at += 1 + (at > ALL_OF ? at / 8 : 0)) {
        count++;
    }
    return count;
}

static unsigned long number(int argc, char **argv, const char *name, unsigned long otherwise)
{
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], name)) {
            return strtoul(argv[i + 1], NULL, 0);
        }
    }
    return otherwise;
}

int main(int argc, char **argv)
{
    unsigned long seed = number(argc, argv, "--seed", 3);
    unsigned long only = number(argc, argv, "--at", 0);
    unsigned long mode = number(argc, argv, "--mode", 0);

    if (only && mode < MODES) {
        live(seed, mode, only);
        return 0;
    }
    for (mode = 0; mode < MODES; mode++) {
        printf("seed %lu, mode %lu:", seed, mode);
        fflush(stdout);
        printf(" %u points\n", lives(seed, mode));
    }
    printf("mirror failures: ok\n");
    return 0;
}
