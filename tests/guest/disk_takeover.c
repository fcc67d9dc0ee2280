/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * disk_takeover.c - another process takes the server's place while the guest uses disk and edu.
 * See disk_checks.h.
 *
 * The harness outside (init_ask()) stops the guest, has a new server take over, and lets the guest
 * go on.  The guest must not notice: no call fails, none brings something else, and what was mapped
 * before still is.
 */
#include "disk_checks.h"

#include "init.h"
#include "load.h"
#include "report.h"

enum {
    TAKEOVERS = 3,
    SOME_CALLS = 50,
    WITHIN_SECONDS = 30,
};

static bool runs(struct load *load, const char *when)
{
    bool ok = load_wait_done(load, SOME_CALLS, WITHIN_SECONDS);

    load_detail(load);
    return check(ok && !load->failed && !load->wrong, "%s: I/O runs", when);
}

void check_disk_takeover(struct disk *disk, const struct disk_plan *plan)
{
    unsigned takeovers = init_number("viommu.takeovers=", TAKEOVERS);
    struct load load;

    check_disk_whole(disk, plan, "before");
    check_disk_neighbour(plan, "before");
    if (!load_begin(&load, disk, LOAD_MIXED, plan->threads)) {
        return;
    }
    if (runs(&load, "before") && init_ask("hold") &&
        check(load_wait_still(&load, WITHIN_SECONDS), "transfers do not end") &&
        init_ask("a takeover that fails") &&
        runs(&load, "after a takeover that failed")) {
        check_disk_neighbour(plan, "after a takeover that failed");
    }
    for (unsigned i = 0; i < takeovers; i++) {
        if (!init_ask("takeover") || !runs(&load, "after a takeover")) {
            break;
        }
        check_disk_neighbour(plan, "after a takeover");
    }
    check(load_end(&load), "through %u takeovers no call failed or brought something else; %u "
          "done, the slowest took %u ms", takeovers, load.done, load.slowest_ms);
    check_disk_whole(disk, plan, "afterwards");
    check(disk_reset(disk) == 0, "afterwards: the controller is reset");
    check_disk_whole(disk, plan, "after that");
}
