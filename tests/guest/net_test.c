/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * net_test.c - /init of the test guest that has a network interface: a stock Linux kernel and its
 * own virtio-net driver, behind VT-d or a virtio-iommu; what it sends, another process sends back.
 *
 * Words of the kernel command line:
 *   viommu.part=WHAT  net, or crashes (net_checks.h)
 *   viommu.frames=N   frames that are sent (default 5000)
 *   viommu.edu=N      an edu that is used meanwhile is there (0: none)
 *   viommu.virtio     the unit is a virtio-iommu, not VT-d
 *   iommu.strict=1    checked against what the kernel made of it
 */
#include <string.h>

#include "device_checks.h"
#include "init.h"
#include "kmsg.h"
#include "net_checks.h"
#include "report.h"
#include "unit_checks.h"

/* The other device; false when there is none, or it cannot be used. */
static bool open_neighbour(struct edu *edu, struct station *station)
{
    if (!init_number("viommu.edu=", 0)) {
        return false;
    }
    if (!check(edu_find(edu, 1) == 1, "an edu device")) {
        return false;
    }
    check_edu_group(edu);
    return station_open(station, edu);
}

int main(void)
{
    const char *part;
    struct net_plan plan = {0};
    struct station station;
    struct net net;
    struct edu edu;

    init_set_up();
    if (kmsg_open(false, init_word("viommu.virtio") != NULL)) {
        check(false, "open /dev/kmsg");
    }
    init_load_modules();
    plan.frames = init_number("viommu.frames=", 5000);
    plan.frames = plan.frames < NET_FRAMES_MAX ? plan.frames : NET_FRAMES_MAX;
    part = init_word("viommu.part=");
    check_unit();
    if (net_open(&net)) {
        check_behind_unit(net.bdf);
        if (open_neighbour(&edu, &station)) {
            plan.edu = &station;
        }
        if (part && !strncmp(part, "crashes", 7)) {
            check_net_crashes(&net, &plan);
        } else {
            check_net(&net, &plan);
        }
        if (plan.edu) {
            station_close(&station);
        }
        net_close(&net);
    }
    check_log();
    init_finish();
}
