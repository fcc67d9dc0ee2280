/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Threads that measure together run on CPUs of their own: on a busy machine the scheduler would put
 * them on one, and they would measure its time slices.
 */
#ifndef VIOMMU_BENCH_PIN_H
#define VIOMMU_BENCH_PIN_H

/*
 * Puts the calling thread on the n-th CPU that the process may use, counted from 0. Does nothing
 * where there are not so many. The first call must be the main thread's.
 */
void pin(unsigned n);

/* Takes that back: any CPU that the process may use. */
void unpin(void);

#endif
