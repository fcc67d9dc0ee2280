/* SPDX-License-Identifier: BSD-2-Clause */
/* The time, for deadlines: it only grows, and has no date. */
#ifndef VIOMMU_SERVER_CLOCK_H
#define VIOMMU_SERVER_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t clock_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

#endif
