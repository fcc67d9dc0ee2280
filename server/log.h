/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the server tells people: one line a call, on standard error unless redirected.
 */
#ifndef VIOMMU_SERVER_LOG_H
#define VIOMMU_SERVER_LOG_H

#include <stdio.h>

/* Where lines go from now on; NULL: nowhere. */
void server_log_to(FILE *stream);

/* Write "viommu: ", the formatted text and a newline. */
void server_log(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
