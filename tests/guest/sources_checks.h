/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * sources_checks.h - the library's readers of what a host says of reserved addresses
 * (viommu/iova_source.h), on the guest's own kernel.
 */
#ifndef VIOMMU_GUEST_SOURCES_CHECKS_H
#define VIOMMU_GUEST_SOURCES_CHECKS_H

#include <stdbool.h>

/*
 * Reads the reserved regions of all groups, /proc/iomem, and the configuration space of all
 * functions, and compares them with what else the kernel says of the same.  The machine has one
 * bridge more than 32 MiB of 32-bit memory below it and more than 1 GiB of prefetchable memory, and
 * a switch. `dump`: print what was read, so that it can be kept:
 *   # source: PATH HEX
 */
void check_sources(bool dump);

#endif
