/* SPDX-License-Identifier: BSD-2-Clause */
/* Allocation, with one failure on demand in test builds. */
#include "base/alloc.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef VIOMMU_TESTING
#include <stdatomic.h>

static _Atomic unsigned long fail_in;
static _Atomic int failed;

void base_alloc_fail_at(unsigned long n)
{
    atomic_store(&failed, 0);
    atomic_store(&fail_in, n);
}

int base_alloc_failed(void)
{
    return atomic_load(&failed);
}

static int must_fail(void)
{
    unsigned long n = atomic_load(&fail_in);

    while (n > 0) {
        if (atomic_compare_exchange_weak(&fail_in, &n, n - 1)) {
            if (n == 1) {
                atomic_store(&failed, 1);
            }
            return n == 1;
        }
    }
    return 0;
}
#else
static int must_fail(void)
{
    return 0;
}
#endif

void *base_alloc(size_t size)
{
    return must_fail() ? NULL : calloc(1, size);
}

void *base_alloc_array(size_t count, size_t size)
{
    /* calloc checks this too, but sanitizers take that for a mistake and end the program. */
    if (must_fail() || (size && count > SIZE_MAX / size)) {
        return NULL;
    }
    return calloc(count, size);
}

void *base_alloc_aligned(size_t align, size_t size)
{
    size_t rounded = (size + align - 1) & ~(align - 1);
    void *ptr;

    if (must_fail() || rounded < size) {
        return NULL;
    }
    ptr = aligned_alloc(align, rounded);
    if (ptr) {
        memset(ptr, 0, rounded);
    }
    return ptr;
}

void *base_realloc_array(void *old, size_t count, size_t size)
{
    if (must_fail() || (size && count > SIZE_MAX / size)) {
        return NULL;
    }
    /* realloc to nothing would free the old array and return NULL, as if it had failed. */
    return realloc(old, count && size ? count * size : 1);
}

void base_free(void *ptr)
{
    free(ptr);
}
