/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * disk_checks.h - what is checked with a disk behind the IOMMU: each function is one part of the
 * test (word viommu.part).
 */
#ifndef VIOMMU_GUEST_DISK_CHECKS_H
#define VIOMMU_GUEST_DISK_CHECKS_H

#include <stdbool.h>

#include "device_checks.h"
#include "disk.h"

/* How much to do; from the kernel command line. */
struct disk_plan {
    unsigned threads;
    struct station *edu;    /* another device, to be used meanwhile; NULL: there is none */
    bool translated;        /* there is a unit, and it is on */
};

/* The disk does what disks do. */
void check_disk(struct disk *disk, const struct disk_plan *plan);

/* What the host does to it reaches the guest as errors, and ends. */
void check_disk_failures(struct disk *disk, const struct disk_plan *plan);

/* It is used until the machine ends without warning. */
void check_disk_killed(struct disk *disk, const struct disk_plan *plan);

/* Another process takes the server's place. */
void check_disk_takeover(struct disk *disk, const struct disk_plan *plan);

/* It is in a process of its own, which maps no more than it may, dies, and comes again. */
void check_disk_far(struct disk *disk, const struct disk_plan *plan);

/* How fast it is: no figure is judged. */
void measure_disk(struct disk *disk, const struct disk_plan *plan);

/* The whole disk is written, and read back, by many at once. */
void check_disk_whole(struct disk *disk, const struct disk_plan *plan, const char *when);

/* The other device's DMA works. */
void check_disk_neighbour(const struct disk_plan *plan, const char *when);

#endif
