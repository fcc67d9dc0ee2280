/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * hostile.c - a device whose process tries to reach everything.  See device_checks.h.
 *
 * The process is hostile_far.py, which worked as an edu until now.  The harness outside
 * (init_ask()) lets it ask for memory everywhere, and to write there; that this machine still runs,
 * and a large piece of its memory is as it was, is the check here.
 */
#include <string.h>

#include "device_checks.h"
#include "init.h"
#include "iova.h"
#include "memory.h"
#include "report.h"

enum {
    CANARY_SIZE = 64 << 20,
};

void check_hostile(struct station *s)
{
    uint64_t seed = pattern_new_seed(), mine = pattern_new_seed();
    uint8_t *canary = memory_get(CANARY_SIZE, PAGE);

    if (!check(canary != NULL, "%s: memory", s->edu->bdf)) {
        return;
    }
    pattern_fill(canary, CANARY_SIZE, seed);
    if (init_ask("attack")) {
        check(pattern_matches(canary, 0, CANARY_SIZE, seed),
              "%s: it tried to write everywhere, and %u MiB are as they were", s->edu->bdf,
              CANARY_SIZE >> 20);
        check(station_load(s, mine) && station_show(s) &&
                  pattern_matches(s->window, 0, PAGE, mine),
              "%s: where it may, it reads and writes", s->edu->bdf);
    }
    memory_put(canary, CANARY_SIZE);
}
