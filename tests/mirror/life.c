/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A short life of some mirrors, for tests in which one thing fails at each of its points: world.h
 * tells the words.
 */
#include "world.h"

static void (*const operations[])(struct world *world) = {
    mirrors_subscribe,   mirrors_subscribe,   mirrors_subscribe, invalidate_some,
    invalidate_some,     mirrors_subscribe,   command_root,      invalidate_some,
    command_translation, memory_change,       invalidate_twice,  command_renumber,
    memory_change,       mirrors_unsubscribe, takeover,          invalidate_some,
    mirrors_subscribe,   takeover,
    command_reset,       invalidate_some,     command_device,    memory_change,
    invalidate_some,     invalidate_some,     command_queue,     invalidate_some,
    command_translation, invalidate_some,
};

void life_run(struct world *world)
{
    for (world->step = 0; world->step < sizeof(operations) / sizeof(operations[0]);
         world->step++) {
        operations[world->step](world);
    }
}

void life_recover(struct world *world)
{
    world->healing = true;
    for (unsigned i = 0; i < 4 * WORLD_DEVICES; i++) {
        command_device(world);
    }
    world_heal(world);
    for (unsigned i = 0; i < WORLD_MIRRORS; i++) {
        const struct mirror *mirror = &world->mirrors[i];

        if (mirror->subscriber && mirror->differs && !mirror->recorder.what.mappings_max) {
            world_fail(world, "mirror %u still differs", i);
        }
    }
    invalidate_twice(world);
}
