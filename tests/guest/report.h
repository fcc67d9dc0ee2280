/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * report.h - how the guest program says what it found.
 *
 * One line a check, on standard output: "ok N what" or "not ok N what: detail".  The harness
 * outside reads these lines from the serial console.  One thread only.
 */
#ifndef VIOMMU_GUEST_REPORT_H
#define VIOMMU_GUEST_REPORT_H

#include <stdbool.h>

/* Say why the next check fails, should it fail.  Without this the detail is errno's text. */
void report_detail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Print the line of one check and return `ok`. */
bool check(bool ok, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Print a line that is no check, after "# ". */
void note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* How many checks failed so far. */
unsigned report_failures(void);

#endif
