/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest that fills memory and registers with nonsense: nothing may crash or take unbounded time.
 */
#ifndef VIOMMU_MODEL_GARBAGE_H
#define VIOMMU_MODEL_GARBAGE_H

#include <stdint.h>

void garbage_run(uint64_t seed, uint64_t steps);

#endif
