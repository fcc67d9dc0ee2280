/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The mirrors' model test: random tables, contexts, memory, devices and invalidations of every
 * kind, with mirrors of every kind, against a slow model (world.h tells what is right).
 *
 * Without arguments it runs fixed seeds, some seconds in all. --seed N --steps N runs one seed,
 * and --seeds N --steps N that many from a seed on; a mismatch prints what to give here. The number
 * of a seed decides what goes wrong in its world (troubles[]) and the policy for rewritten entries.
 *
 * --trace N prints every step, call and event from step N on. A mismatch after many steps is easier
 * to read after fewer: --shrink runs the seeds from --seed on (--seeds of them, 1,000 without) with
 * steps so few that only short failures show.
 */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct world world; /* large */

/* By seed % 8: half of the worlds are without failures. */
static const struct trouble troubles[8] = {
    [1] = {.map_fails = 10},
    [3] = {.pending = 40},
    [5] = {.pending = 20, .map_fails = 15, .late_fails = 10},
    [7] = {.pending = 15, .map_fails = 10, .other_fails = 10, .late_fails = 5, .never = 2},
};

/* Operations and how often, of 1000. */
static const struct {
    unsigned weight;
    void (*operation)(struct world *world);
} operations[] = {
    {670, invalidate_some},   {50, invalidate_twice}, {60, memory_change},
    {60, mirrors_subscribe},  {12, mirrors_unsubscribe}, {30, command_translation},
    {25, command_root},       {28, command_device},   {20, command_renumber},
    {15, command_time},       {4, command_reset},     {6, world_heal},
    {12, command_queue},    {8, takeover},
};

static void one_step(void)
{
    unsigned which = world_below(&world, 1000);

    for (size_t i = 0; i < sizeof(operations) / sizeof(operations[0]); i++) {
        if (which < operations[i].weight) {
            operations[i].operation(&world);
            return;
        }
        which -= operations[i].weight;
    }
}

static uint64_t trace_from = UINT64_MAX;

static void run_seed(uint64_t seed, uint64_t steps, bool verbose)
{
    uint64_t calls = 0;

    world_init(&world, seed, &troubles[seed % 8]);
    world.trace = !trace_from;
    for (unsigned i = 0; i < 6; i++) {
        mirrors_subscribe(&world);
    }
    for (world.step = 0; world.step < steps; world.step++) {
        world.trace = world.step >= trace_from;
        one_step();
    }
    world_heal(&world);
    for (unsigned i = 0; i < WORLD_MIRRORS; i++) {
        calls += world.mirrors[i].recorder.call_count;
    }
    if (verbose) {
        printf("seed %llu: %llu steps, %llu calls of the last mirrors, %llu pages looked at and "
               "mapped, %llu interrupted, %llu fences, %llu takeovers\n",
               (unsigned long long)seed, (unsigned long long)steps, (unsigned long long)calls,
               (unsigned long long)world.mapped_pages, (unsigned long long)world.interrupted,
               (unsigned long long)world.fenced_events, (unsigned long long)world.takeovers);
    }
    world_fini(&world);
}

static int usage(void)
{
    fprintf(stderr, "usage: mirror_test [--seed N] [--seeds N] [--steps N] [--trace N] "
                    "[--shrink]\n");
    return 2;
}

int main(int argc, char **argv)
{
    uint64_t seed = 1;
    uint64_t seeds = 0;
    uint64_t steps = 400;
    bool shrink = false;
    bool chosen = argc > 1;

    for (int i = 1; i < argc; i++) {
        uint64_t *number = !strcmp(argv[i], "--seed")    ? &seed
                           : !strcmp(argv[i], "--seeds") ? &seeds
                           : !strcmp(argv[i], "--steps") ? &steps
                           : !strcmp(argv[i], "--trace") ? &trace_from
                                                         : NULL;

        if (!strcmp(argv[i], "--shrink")) {
            shrink = true;
        } else if (number && i + 1 < argc) {
            *number = strtoull(argv[++i], NULL, 0);
        } else {
            return usage();
        }
    }
    if (!seeds) {
        seeds = shrink ? 1000 : chosen ? 1 : 16;
    }
    /* Few steps first, so that what can fail early does. */
    for (uint64_t few = 3; shrink && few < steps; few *= 2) {
        for (uint64_t i = 0; i < seeds; i++) {
            run_seed(seed + i, few, false);
        }
    }
    for (uint64_t i = 0; i < seeds; i++) {
        run_seed(seed + i, steps, chosen && seeds < 100);
    }
    printf("mirror: ok (%llu seeds of %llu steps)\n", (unsigned long long)seeds,
           (unsigned long long)steps);
    return 0;
}
