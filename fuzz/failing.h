/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Allocations that fail, in targets that are linked so (fuzz/meson.build): those of all that is not
 * the library's testing build, which has its own way.
 */
#ifndef VIOMMU_FUZZ_FAILING_H
#define VIOMMU_FUZZ_FAILING_H

/* The n-th allocation from now fails, once; 0: none does. */
void failing_alloc_at(unsigned n);

#endif
