/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Measuring a row: its sides take turns, and of every figure the median counts.
 *
 * A ratio is taken within a round, where its two sides ran one after the other, and the median of
 * the rounds is reported with the quartiles around it; the quotient of two medians would let a slow
 * minute of the machine fall on one side.
 *
 * Time is the CPU time of the thread that does the work, which other programs on the machine
 * disturb least; where several threads do it, or wait for each other, it is that of the wall.
 */
#ifndef VIOMMU_BENCH_MEASURE_H
#define VIOMMU_BENCH_MEASURE_H

#include "bench.h"

struct measure_options {
    bool quick;
    unsigned rounds;   /* 1 to BENCH_ROUNDS_MAX */
    uint64_t round_ns; /* how long one side runs in a round */
};

struct ratio_result {
    double median;
    double low; /* quartiles */
    double high;
};

struct result {
    double ns[BENCH_SIDES_MAX]; /* of one operation */
    struct ratio_result ratios[BENCH_RATIOS_MAX];
    struct figure figures[BENCH_FIGURES_MAX];
    unsigned figure_count;
    bool has_note;
    char note[BENCH_NOTE_MAX];
};

/* Returns NULL, or what broke. */
const char *measure_row(const struct row *row, const struct measure_options *options,
                        struct result *result);

/* Whether a ratio reaches its goal; true without one. */
bool goal_met(const struct ratio *ratio, double value);

/* The same of a figure. */
bool figure_met(const struct figure *figure);

/* Nanoseconds of the monotonic clock. */
uint64_t bench_now(void);

#endif
