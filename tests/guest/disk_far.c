/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * disk_far.c - the disk is in a process of its own, behind the server that has the unit.  See
 * disk_checks.h.
 *
 * The harness outside (init_ask()) stops the guest and compares what that process has mapped with
 * what the guest's tables say; and it kills the process in the middle of I/O, and starts another.
 * The guest sees errors, then, until it looks for the disk again.
 */
#include "disk_checks.h"

#include <string.h>

#include "init.h"
#include "kmsg.h"
#include "load.h"
#include "report.h"

enum {
    COMPARISONS = 3,
    SOME_CALLS = 50,
    WITHIN_SECONDS = 60,
};

static bool runs(struct load *load, const char *when)
{
    bool ok = load_wait_done(load, SOME_CALLS, WITHIN_SECONDS);

    load_detail(load);
    return check(ok && !load->failed && !load->wrong, "%s: I/O runs", when);
}

/*
 * Of what the guest lets the disk reach, with transfers under way and without. They are held, and
 * all threads wait for one: a guest that is stopped while it maps has told nobody yet.
 */
static void check_compared(struct disk *disk, const struct disk_plan *plan)
{
    struct load load;

    if (!load_begin(&load, disk, LOAD_MIXED, plan->threads)) {
        return;
    }
    for (unsigned i = 0; i < COMPARISONS; i++) {
        if (!runs(&load, "compared") || !init_ask("hold") ||
            !check(load_wait_still(&load, WITHIN_SECONDS), "compared: transfers do not end") ||
            !init_ask("compare what is mapped")) {
            break;
        }
    }
    check(load_end(&load), "compared %u times, no call failed or brought something else; %u done",
          COMPARISONS, load.done);
    init_ask("compare what is mapped");
}

static void check_killed(struct disk *disk, const struct disk_plan *plan)
{
    const char *what = "the disk's process is killed";
    struct load load;
    bool ok;

    if (!load_begin(&load, disk, LOAD_MIXED, plan->threads)) {
        return;
    }
    if (runs(&load, what) && init_ask("kill the far process")) {
        ok = load_wait_failed(&load, 1, WITHIN_SECONDS);
        load_detail(&load);
        check(ok, "%s: errors arrive: %s", what, strerror(load.error));
        check_disk_neighbour(plan, what);
        init_ask("start the far process");
    }
    load_end(&load);
    check(!load.wrong, "%s: no read brought something else; %u calls done, %u failed", what,
          load.done, load.failed);
    kmsg_show("nvme nvme");
    ok = disk_revive(disk);
    check(ok, "%s: the kernel finds the next one", what);
    if (ok) {
        check_disk_whole(disk, plan, "with the next one");
        check_disk_neighbour(plan, "with the next one");
        init_ask("compare what is mapped");
    }
}

void check_disk_far(struct disk *disk, const struct disk_plan *plan)
{
    check_disk_whole(disk, plan, "before");
    check_disk_neighbour(plan, "before");
    check_compared(disk, plan);
    check_disk_whole(disk, plan, "afterwards");
    check_killed(disk, plan);
}
