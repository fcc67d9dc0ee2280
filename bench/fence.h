/* SPDX-License-Identifier: BSD-2-Clause */
/* The baseline of what is measured in fences: one full memory fence. */
#ifndef VIOMMU_BENCH_FENCE_H
#define VIOMMU_BENCH_FENCE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * Full fences, one after the other, each with a store to order as every use of a fence has: on x86
 * the cheapest way to have both is an exchange.
 */
static inline bool fence_run(uint64_t count)
{
    static _Thread_local _Atomic uint64_t word;

    for (uint64_t i = 0; i < count; i++) {
#if defined(__x86_64__)
        (void)atomic_exchange_explicit(&word, i, memory_order_seq_cst);
#else
        atomic_store_explicit(&word, i, memory_order_release);
        atomic_thread_fence(memory_order_seq_cst);
#endif
    }
    return true;
}

#endif
