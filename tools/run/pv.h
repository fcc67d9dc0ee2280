/* SPDX-License-Identifier: BSD-2-Clause */
/* What the two halves of the paravirtual room share: pv.c is the hypervisor, pv_call.c its guests.
 */
#ifndef VIOMMU_TOOLS_RUN_PV_H
#define VIOMMU_TOOLS_RUN_PV_H

#include "hypervisor.h"
#include "run.h"

struct pv_room {
    struct viommu_pv *pv;
    struct viommu_pv_ops ops;
    struct viommu_pv_config config;
    struct hypervisor hypervisor;
    struct viommu_pv_call *rest; /* a call that yielded, or NULL */
    uint8_t *out;
    size_t out_size;
};

/* The room; NULL, with an error said, when there is no engine. */
struct pv_room *pv_room(struct run *run);
/* The number of a VM; says what is wrong. */
bool pv_arg_vm(struct run *run, const char *name, uint32_t *out);
/* 32 bits. */
bool pv_arg_32(struct run *run, const char *name, uint32_t *out);
/* Ranges FIRST-LAST joined by commas; returns how many, or 0 with an error said. */
size_t pv_arg_ranges(struct run *run, const char *name, struct viommu_pv_range *out, size_t room);

#endif
