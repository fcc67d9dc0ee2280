/* SPDX-License-Identifier: BSD-2-Clause */
/* The time room: the virtual clock that all units share. It moves only here. */
#include "run.h"

#include <inttypes.h>

static void do_time(struct run *run)
{
    uint64_t step = 0;
    char text[32];

    if (!arg_duration(run, "step", &step)) {
        return;
    }
    if (step > UINT64_MAX - run->now) {
        run_error(run, NULL, "time ends after 2^64 nanoseconds");
        return;
    }
    run->now += step;
    snprintf(text, sizeof(text), "%" PRIu64 "us", run->now / 1000);
    result_word(&run->result, "now", text);
}

const struct command time_commands[] = {
    {"time", "[step]", "Lets time pass: time +500ms.", do_time},
    {0},
};
