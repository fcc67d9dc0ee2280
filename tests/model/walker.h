/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The reference walker of the model test: what a guest's tables say at this moment, read step by
 * step as the specification's text has it, with no thought of speed. It shares no code with the
 * library.
 *
 * A *context value* is what root and context table say of a requester; a *page value* is what the
 * page tables under one root say of one 4 KiB page. reason 0 is success; a page value with perm 0
 * is "not present", which has no reason of its own (a read fails with one code, a write with
 * another).
 */
#ifndef VIOMMU_MODEL_WALKER_H
#define VIOMMU_MODEL_WALKER_H

#include "ram.h"

#include <viommu/vtd.h>

struct walker_config {
    unsigned host_width;
    unsigned domain_bits;
    unsigned sagaw; /* bit n: n + 2 levels */
    bool super_pages;
    bool snoop_control;
    bool pass_through;
    bool device_tlb;
};

struct context_value {
    uint64_t table;
    uint16_t domain;
    uint8_t reason;
    uint8_t type;
    uint8_t levels;
    bool silent; /* fault-processing-disable: faults from here on are not recorded */
};

struct page_value {
    uint64_t gpa;  /* of the 4 KiB page */
    uint64_t mask; /* of the leaf: page size - 1 */
    uint8_t reason;
    uint8_t perm;
};

/* `root` is the root-table register as it was when the guest set the root pointer. */
struct context_value walker_context(struct ram *ram, const struct walker_config *config,
                                    uint64_t root, uint16_t requester);

struct page_value walker_page(struct ram *ram, const struct walker_config *config, uint64_t table,
                              unsigned levels, uint64_t iova);

#endif
