/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What may be mapped, as a subscription wants it said (viommu_subscription.allowed), made of what a
 * kernel reports: ranges that are sorted, made of whole 4 KiB pages, and none of which touches
 * another. What the kernel reports is believed, but checked: it decides what a device reaches.
 */
#ifndef VIOMMU_COMMON_ALLOWED_H
#define VIOMMU_COMMON_ALLOWED_H

#include <viommu/types.h>

/*
 * Sorts, joins ranges that overlap or follow one another, then drops what is not a whole page; in
 * place, so that *count becomes smaller or stays. Returns 0; -EIO for a range whose first is above
 * its last.
 */
int allowed_normalise(struct viommu_range *ranges, size_t *count);

#endif
