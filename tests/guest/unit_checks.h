/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * unit_checks.h - what the guest's kernel says of the IOMMU, before and after all else.
 */
#ifndef VIOMMU_GUEST_UNIT_CHECKS_H
#define VIOMMU_GUEST_UNIT_CHECKS_H

#include <stdbool.h>

#include "edu.h"

/* What the kernel found, from its log and from /sys. */
void check_unit(void);

/* The device ("0000:06:00.0") is behind the unit, and translated as the kernel was told. */
bool check_behind_unit(const char *bdf);

/* The same of an edu, which is then bound to vfio-pci. */
void check_edu_group(struct edu *edu);

/* Nothing is in the log that should not be: no fault that no check asked for, no complaint. */
void check_log(void);

#endif
