/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * mirror_checks.h - what is checked of a mirror that keeps real mappings (mirror.h).
 */
#ifndef VIOMMU_GUEST_MIRROR_CHECKS_H
#define VIOMMU_GUEST_MIRROR_CHECKS_H

#include "mirror.h"

/* How much to do; from the kernel command line. */
struct mirror_plan {
    unsigned pages;     /* scattered pages of the test of many */
    unsigned limit;     /* mappings that the host takes, fewer than the pages */
};

/*
 * The checks run in this order.  First, with translation off and on: the last leaves the mirror
 * subscribed, translation on, the window mapped.
 */
bool check_start(struct mirror *m);

/* Each of these leaves everything as it was. */
void check_three_pages(struct mirror *m);
void check_nothing_changed(struct mirror *m);
void check_permissions(struct mirror *m);
void check_rewrite(struct mirror *m);
void check_big_page(struct mirror *m);
void check_memory_goes(struct mirror *m);

/* Many pages: more than the host takes; and more than are remembered: the fence falls. */
void check_many(struct mirror *m, const struct mirror_plan *plan);
void check_too_many(struct mirror *m, const struct mirror_plan *plan);

/* The host fails: the device is cut off. */
void check_cut_off(struct mirror *m);

#endif
