/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * memory.h - pages to DMA into, and patterns to recognise them by.  One thread only.
 */
#ifndef VIOMMU_GUEST_MEMORY_H
#define VIOMMU_GUEST_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PAGE = 4096,
    SUPER_PAGE = 2 << 20,
};

/* Zeroed memory that stays where it is; `align` is a power of two.  NULL when there is none. */
void *memory_get(size_t size, size_t align);
void memory_put(void *memory, size_t size);

/* Where the page is in the guest's physical memory, or 0. */
uint64_t memory_gpa(const void *page);

/* Is this region physically contiguous and aligned to its size? */
bool memory_is_super_page(const void *memory, size_t size);

/* A pattern is named by its seed; any part of it can be checked at its offset. */
void pattern_fill(void *memory, size_t size, uint64_t seed);
bool pattern_matches(const void *memory, size_t offset, size_t size, uint64_t seed);

/* A seed that was not used before. */
uint64_t pattern_new_seed(void);

#endif
