/* SPDX-License-Identifier: BSD-2-Clause */
/* What `viommu serve` says at its end, on standard output. */
#ifndef VIOMMU_TOOLS_SERVE_SUMMARY_H
#define VIOMMU_TOOLS_SERVE_SUMMARY_H

#include <stdint.h>

struct service;

/* What all devices did. */
struct summary {
    uint64_t transfers;
    uint64_t refusals;
};

void summary_print(const struct service *service);

#endif
