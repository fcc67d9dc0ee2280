/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What `viommu serve` says at its end, on standard output: what this process counted, also when it
 * took over from another one.
 */
#ifndef VIOMMU_TOOLS_SERVE_SUMMARY_H
#define VIOMMU_TOOLS_SERVE_SUMMARY_H

#include <stdint.h>

struct service;

/* One of its lines. */
void summary_print_line(const char *what, uint64_t n);

void summary_print(const struct service *service);

#endif
