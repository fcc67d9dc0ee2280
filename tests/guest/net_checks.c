/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * net_checks.c - see net_checks.h.
 */
#include "net_checks.h"

#include <stdio.h>
#include <unistd.h>

#include "init.h"
#include "iova.h"
#include "memory.h"
#include "report.h"

enum {
    F_VERSION_1 = 32,
    F_ACCESS_PLATFORM = 33,
    LINK_SECONDS = 15,
    SOME_FRAMES = 500,
    REBINDS = 3,
    IN_THE_MIDDLE = 100,
};

static void check_edu(const struct net_plan *plan, const char *when)
{
    uint64_t seed = pattern_new_seed();
    bool ok;

    if (!plan->edu) {
        return;
    }
    ok = station_load(plan->edu, seed) && station_show(plan->edu);
    report_detail("%s", ok ? "the bytes are not those sent" : "no end");
    check(ok && pattern_matches(plan->edu->window, 0, PAGE, seed), "%s: DMA of %s works", when,
          plan->edu->edu->bdf);
}

static bool check_link(const struct net *net, bool up, const char *when)
{
    report_detail("not within %d s", LINK_SECONDS);
    return check(net_wait_link(net, up, LINK_SECONDS), "%s: the link is %s", when,
                 up ? "up" : "down");
}

static bool check_echo(const struct net *net, unsigned frames, bool lossy, const char *when)
{
    struct net_echo echo;
    bool ok = net_echo(net, frames, lossy, &echo);

    report_detail("%u came back, %u wrong, %u twice, %u were sent again", echo.back, echo.wrong,
                  echo.twice, echo.again);
    check(ok, "%s: %u frames come back unchanged", when, frames);
    if (!ok) {
        net_show_counters(net);
    }
    note("guest: %u frames in %.1f s, %u sent again", echo.back, echo.seconds, echo.again);
    return ok;
}

static void check_features(const struct net *net, const char *when)
{
    report_detail("not both of them were agreed on");
    check(net_has_feature(net, F_VERSION_1) && net_has_feature(net, F_ACCESS_PLATFORM),
          "%s: VERSION_1 and ACCESS_PLATFORM", when);
}

void check_net(struct net *net, const struct net_plan *plan)
{
    check_features(net, "before");
    if (!check_link(net, true, "before")) {
        return;
    }
    check_edu(plan, "before");
    check_echo(net, plan->frames, false, "before");
    for (unsigned i = 0; i < REBINDS; i++) {
        net_send_some(net, IN_THE_MIDDLE);
        if (!check(net_unbind(net), "the driver leaves in the middle of it") ||
            !check(net_bind(net), "and returns") || !check_link(net, true, "after that")) {
            return;
        }
        check_features(net, "after that");
        check_echo(net, SOME_FRAMES, false, "after that");
    }
    check_edu(plan, "afterwards");
}

/* What is done to the far process while frames are under way. */
static void crash(struct net *net, const struct net_plan *plan, const char *what, const char *mend)
{
    net_send_some(net, IN_THE_MIDDLE);
    if (!init_ask(what)) {
        return;
    }
    net_send_some(net, IN_THE_MIDDLE);
    check_edu(plan, what);
    if (mend) {
        check_link(net, false, what);
        check_edu(plan, "with the link down");
        if (!init_ask(mend)) {
            return;
        }
    }
    if (check_link(net, true, "then")) {
        check_echo(net, plan->frames, true, "then");
    }
}

void check_net_crashes(struct net *net, const struct net_plan *plan)
{
    if (!check_link(net, true, "before") || !check_echo(net, SOME_FRAMES, false, "before")) {
        return;
    }
    crash(net, plan, "echo: kill", "echo: start");
    crash(net, plan, "echo: kill and start", NULL);
    crash(net, plan, "echo: garbage", NULL);
    /* It hangs, and the driver resets the device: that ends. */
    if (init_ask("echo: stop")) {
        net_send_some(net, IN_THE_MIDDLE);
        check(net_unbind(net), "the far process hangs: the driver leaves");
        check(net_bind(net), "and returns");
        check_link(net, false, "the far process hangs");
        check_edu(plan, "the far process hangs");
        if (init_ask("echo: continue") && check_link(net, true, "it goes on")) {
            check_echo(net, plan->frames, true, "it goes on");
        }
    }
    check_echo(net, SOME_FRAMES, true, "afterwards");
}
