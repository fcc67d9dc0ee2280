/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * net_checks.h - what is checked with a network interface behind the IOMMU, whose frames another
 * process sends back: each function is one part of the test (word viommu.part).
 *
 * Vocabulary.  "The far process": that one.
 */
#ifndef VIOMMU_GUEST_NET_CHECKS_H
#define VIOMMU_GUEST_NET_CHECKS_H

#include "device_checks.h"
#include "net.h"

/* How much to do; from the kernel command line. */
struct net_plan {
    unsigned frames;
    struct station *edu;    /* another device, to be used meanwhile; NULL: there is none */
};

/* All frames come back; the driver leaves and returns, also in the middle of it. */
void check_net(struct net *net, const struct net_plan *plan);

/* The far process dies, hangs, and says what makes no sense; each time it comes back. */
void check_net_crashes(struct net *net, const struct net_plan *plan);

#endif
