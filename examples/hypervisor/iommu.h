/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The example hypervisor: its machine's IOMMU, and a device behind it.
 *
 * The machine's IOMMU is a VT-d unit of the library, and this is its driver: tables in the
 * machine's memory, invalidations through the unit's queue. So between the unmapping of a page and
 * the flush the device still reaches it, as it does on hardware.
 *
 * The device has a thread. It reads a ring of device frames by DMA, and of each reads a word and
 * writes one. It never stops by itself, and it forgets nothing: what was in its ring once it tries
 * for ever, so whatever it may still reach is written to.
 */
#ifndef HYPERVISOR_IOMMU_H
#define HYPERVISOR_IOMMU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    IOMMU_PAGES = 64,          /* machine pages from 0 on that the driver has */
    IOMMU_DEVICE_FRAMES = 512, /* of a space */
};

struct space;

/* Sets all up for a machine of `size` bytes at `machine`, with translation on and no space. */
bool iommu_create(uint8_t *machine, uint64_t size);
void iommu_destroy(void);

struct space *space_create(void);
void space_destroy(struct space *space);
/* The device is in a space from now on, or (NULL) in none. */
bool space_attach(struct space *space);
void space_map(struct space *space, uint64_t device_frame, uint64_t machine_frame, uint32_t perm);
void space_unmap(struct space *space, uint64_t device_frame);
/* When it returns true the device reaches nothing that was unmapped before. */
bool space_flush(struct space *space);

/* The device works, with its ring at this device frame. */
bool device_start(uint64_t ring);
/* Waits until it has gone through all that it knows `rounds` times more. */
bool device_wait(uint64_t rounds);
/* How often it was refused since it was started. */
uint64_t device_refused(void);
void device_stop(void);

#endif
