/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The baseline of the rows of paravirtual operations: the same calls, kept the way that is common.
 *
 * VMs are in a GHashTable by id. A context is a GTree of its device frames, whose nodes are entries
 * that are allocated one by one, and a GPtrArray of what awaits its flush; a VM has a GHashTable of
 * its frames, each with the list of the entries that map it. One mutex is taken once a call.
 *
 * It keeps what the interface promises of map, unmap and flush: the same bytes are read and
 * checked, privileges and pages are asked for in the same order by the same table of operations,
 * references are dropped after the flush, what waits is bounded, a slot in use stays, one that
 * waits is flushed before it is mapped again, what is not mapped so is not unmapped. In its favour,
 * it holds its mutex while it calls the hypervisor, so nothing there may call back; and it knows no
 * larger pages, reserved ranges, pages that are removed, calls that yield, nor that anything fails.
 * Frames are keys by themselves, not by their address; a VM that dies is flushed once, and its tree
 * freed whole.
 */
#ifndef VIOMMU_BENCH_BASELINE_PV_H
#define VIOMMU_BENCH_BASELINE_PV_H

#include <viommu/pv.h>

struct base_pv;

/* Of the configuration it uses the operations, deferred_max, mappings_max and the largest
   frames. */
struct base_pv *base_pv_create(const struct viommu_pv_config *config);
void base_pv_destroy(struct base_pv *pv);

/* A VM with one context comes; it dies, with all that it maps. Nobody maps pages of it then. */
void base_pv_vm_add(struct base_pv *pv, uint32_t vm);
void base_pv_vm_destroy(struct base_pv *pv, uint32_t vm);

/* A call that maps or unmaps, and its answer. */
void base_pv_call(struct base_pv *pv, uint32_t vm, const void *in, size_t in_size,
                  struct viommu_pv_answer *out);

#endif
