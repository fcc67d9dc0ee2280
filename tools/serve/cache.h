/* SPDX-License-Identifier: BSD-2-Clause */
/* How viommu serve is told which cache its unit has: --cache-mode. */
#ifndef VIOMMU_TOOLS_SERVE_CACHE_H
#define VIOMMU_TOOLS_SERVE_CACHE_H

#include <viommu/iommu.h>

/* MODE[,quota=N][,seed=N]: sets what it says of caches. False, with nothing set, when it is not. */
bool cache_mode_parse(const char *text, struct viommu_config *config);

#endif
