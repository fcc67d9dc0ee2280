/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * disk_failures.c - what the host does to the disk reaches the guest as errors, and ends.  See
 * disk_checks.h.
 *
 * Each check lets many threads use the disk, has the harness outside (init_ask()) do something to
 * it meanwhile, and sees that errors arrive in time, and that all works when it is over.
 */
#include "disk_checks.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

#include "init.h"
#include "kmsg.h"
#include "load.h"
#include "report.h"

enum {
    ERRORS_WITHIN_SECONDS = 60,
    WORKS_WITHIN_SECONDS = 60,
    SOME_CALLS = 50,
    HELD_ON_SECONDS = 8,
    RESETS_UNDER_LOAD = 3,
    RESET_TRIES = 10,
};

static double seconds_since(const struct timespec *began)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - began->tv_sec) + (double)(now.tv_nsec - began->tv_nsec) * 1e-9;
}

/*
 * End a load in which calls may have failed, but none may have brought something else; unless what
 * was on the disk is lost.
 */
static void end_load(struct load *load, bool lost, const char *what)
{
    load_end(load);
    check(lost || !load->wrong,
          "%s: no read brought something else; %u calls done, %u failed (%s), the "
          "slowest took %u ms",
          what, load->done, load->failed, strerror(load->error), load->slowest_ms);
}

/* Everything works again: that is, after a reset of the controller if it takes one. */
static void check_recovered(struct disk *disk, const struct disk_plan *plan, const char *what)
{
    check_disk_whole(disk, plan, what);
    check_disk_neighbour(plan, what);
}

/* Ways in which the backing file fails. */
struct file_failure {
    const char *what;
    const char *begin, *end;    /* what the harness outside is asked for */
    bool lost;                  /* what was on the disk is not there any more */
};

static const struct file_failure fails = {"the backing file fails", "fail", "work", false};
/* The disk becomes smaller, and grows again: the kernel has to look. */
static const struct file_failure is_cut = {"the backing file is cut", "truncate", "restore", true};

static void check_file_fails(struct disk *disk, const struct disk_plan *plan,
                             const struct file_failure *f)
{
    struct timespec began;
    struct load load;

    if (!load_begin(&load, disk, LOAD_MIXED, plan->threads)) {
        return;
    }
    load_detail(&load);
    check(load_wait_done(&load, SOME_CALLS, WORKS_WITHIN_SECONDS), "%s: I/O runs", f->what);
    clock_gettime(CLOCK_MONOTONIC, &began);
    if (init_ask(f->begin)) {
        bool ok = load_wait_failed(&load, 1, ERRORS_WITHIN_SECONDS);

        load_detail(&load);
        check(ok, "%s: errors arrive, after %.1f s: %s", f->what, seconds_since(&began),
              strerror(load.error));
        check_disk_neighbour(plan, f->what);
        init_ask(f->end);
    }
    if (f->lost) {
        check(disk_rescan(disk) == 0, "%s: the kernel looks at the disk anew", f->what);
    }
    clock_gettime(CLOCK_MONOTONIC, &began);
    load_detail(&load);
    check(load_wait_done(&load, SOME_CALLS, WORKS_WITHIN_SECONDS),
          "%s: it is over, and I/O runs again, after %.1f s", f->what, seconds_since(&began));
    end_load(&load, f->lost, f->what);
    check_recovered(disk, plan, f->what);
}

/* The kernel's driver may be at a reset of its own: try for a while. */
static int reset_until_it_works(struct disk *disk)
{
    int error = 0;

    for (unsigned i = 0; i < RESET_TRIES; i++) {
        error = disk_reset(disk);
        if (!error) {
            break;
        }
        sleep(1);
    }
    return error;
}

/*
 * Transfers do not end: the kernel waits, aborts, resets the controller and takes the memory away.
 * Then the unit waits for the device, until it cuts it off.
 */
static void check_held(struct disk *disk, const struct disk_plan *plan)
{
    const char *what = "transfers that do not end";
    struct timespec began;
    struct load load;
    int error;

    if (!load_begin(&load, disk, LOAD_MIXED, plan->threads)) {
        return;
    }
    load_detail(&load);
    check(load_wait_done(&load, SOME_CALLS, WORKS_WITHIN_SECONDS), "%s: I/O runs", what);
    clock_gettime(CLOCK_MONOTONIC, &began);
    if (init_ask("hold")) {
        bool ok;

        check_disk_neighbour(plan, what);
        ok = load_wait_failed(&load, 1, ERRORS_WITHIN_SECONDS);
        load_detail(&load);
        check(ok, "%s: errors arrive, after %.1f s: %s", what, seconds_since(&began),
              strerror(load.error));
        /* Long enough for the kernel to reset the controller, and for the unit to cut it off. */
        sleep(HELD_ON_SECONDS);
        check_disk_neighbour(plan, what);
        init_ask("release");
    }
    kmsg_show("nvme nvme");
    clock_gettime(CLOCK_MONOTONIC, &began);
    error = reset_until_it_works(disk);
    if (error) {
        end_load(&load, false, what);
        check(disk_revive(disk),
              "%s: they end; the kernel had given the disk up (%s), and finds it again",
              what, strerror(-error));
        if (!load_begin(&load, disk, LOAD_MIXED, plan->threads)) {
            return;
        }
    } else {
        check(true, "%s: they end, and the controller is reset, after %.1f s", what,
              seconds_since(&began));
    }
    load_detail(&load);
    check(load_wait_done(&load, SOME_CALLS, WORKS_WITHIN_SECONDS), "%s: I/O runs again", what);
    end_load(&load, false, what);
    check_recovered(disk, plan, what);
}

/* The guest resets the controller while transfers run: the kernel tries them again. */
static void check_reset_under_load(struct disk *disk, const struct disk_plan *plan)
{
    const char *what = "reset in the middle of I/O";
    struct load load;
    bool ok = true;

    if (!load_begin(&load, disk, LOAD_MIXED, plan->threads)) {
        return;
    }
    for (unsigned i = 0; ok && i < RESETS_UNDER_LOAD; i++) {
        int error;

        ok = load_wait_done(&load, SOME_CALLS, WORKS_WITHIN_SECONDS);
        load_detail(&load);
        error = ok ? reset_until_it_works(disk) : 0;
        if (error) {
            report_detail("%s", strerror(-error));
            ok = false;
        }
    }
    check(ok, "%s: the controller is reset %u times", what, RESETS_UNDER_LOAD);
    load_detail(&load);
    check(load_wait_done(&load, SOME_CALLS, WORKS_WITHIN_SECONDS), "%s: I/O runs again", what);
    end_load(&load, false, what);
    check_recovered(disk, plan, what);
}

void check_disk_failures(struct disk *disk, const struct disk_plan *plan)
{
    check_disk_whole(disk, plan, "before");
    check_reset_under_load(disk, plan);
    /* QEMU's own disk cannot be made to fail so. */
    if (!init_word("viommu.qemu-unit")) {
        check_file_fails(disk, plan, &fails);
        check_file_fails(disk, plan, &is_cut);
        check_held(disk, plan);
    }
}

void check_disk_killed(struct disk *disk, const struct disk_plan *plan)
{
    struct load load;
    bool ok;

    if (!load_begin(&load, disk, LOAD_MIXED, plan->threads)) {
        return;
    }
    ok = load_wait_done(&load, SOME_CALLS, WORKS_WITHIN_SECONDS);
    load_detail(&load);
    if (check(ok, "I/O runs")) {
        init_ask("kill");
    }
    end_load(&load, false, "no end came");
}
