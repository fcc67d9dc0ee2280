/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The example hypervisor: the machine's pages, which VM has which, and the engine's operations on
 * them.
 *
 * A page is free, or a VM's. It may be a VM's no more and still not be free: while it is referred
 * to, because a device may reach it.
 */
#ifndef HYPERVISOR_MACHINE_H
#define HYPERVISOR_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#include <viommu/pv.h>

enum {
    MACHINE_PAGES = 128,
};

/* What the operations tell. */
struct machine_events {
    /* The mapper is asked to give back what it has at a device frame. */
    void (*give_back)(uint64_t device_frame);
    /* It has said that it did. */
    void (*acknowledged)(void);
};

extern const struct viommu_pv_ops machine_ops;

void machine_create(const struct machine_events *events, bool careless);
/* The first frames of a VM, from machine page `first` on. */
void machine_give(uint32_t vm, uint64_t first, uint64_t count);
/* The machine page at a frame, or -1. */
int64_t machine_page(uint32_t vm, uint64_t frame);
/* A frame is the VM's no more. False: its page is still referred to, so it is not free. */
bool machine_take(uint32_t vm, uint64_t frame);
/* Nobody refers to any page. */
bool machine_is_quiet(void);

#endif
