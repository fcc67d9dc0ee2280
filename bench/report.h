/* SPDX-License-Identifier: BSD-2-Clause */
/* How results are printed: as text, or as one JSON object. */
#ifndef VIOMMU_BENCH_REPORT_H
#define VIOMMU_BENCH_REPORT_H

#include "measure.h"

struct report {
    bool json;
    unsigned rows; /* printed so far */
};

void report_begin(struct report *report, const struct measure_options *options);
void report_row(struct report *report, const struct row *row, const struct result *result);
void report_end(struct report *report);

#endif
