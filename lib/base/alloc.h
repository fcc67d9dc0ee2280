/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * All memory of the library comes from here, so that test builds can make any allocation fail.
 */
#ifndef VIOMMU_BASE_ALLOC_H
#define VIOMMU_BASE_ALLOC_H

#include <stddef.h>

/* Zeroed memory, or NULL. */
void *base_alloc(size_t size);

/* A zeroed array, or NULL; a size that overflows is NULL. */
void *base_alloc_array(size_t count, size_t size);

/* Zeroed memory aligned to `align` (a power of two; size is rounded up to it), or NULL. */
void *base_alloc_aligned(size_t align, size_t size);

/* Grows or shrinks an array as realloc does; the old one stays valid when NULL is returned. */
void *base_realloc_array(void *old, size_t count, size_t size);

void base_free(void *ptr);

#ifdef VIOMMU_TESTING
/* The n-th allocation from now fails (1: the next), once; 0: none does. Process-wide. */
void base_alloc_fail_at(unsigned long n);
/* Whether the failure asked for has happened. */
int base_alloc_failed(void);
#endif

#endif
