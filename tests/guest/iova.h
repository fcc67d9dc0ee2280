/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * iova.h - where the guest tests map, and the steps they share.
 *
 * Every IOVA but the highest is below 256 MiB.  No page of memory that stands guard (a canary) may
 * have a guest-physical address in [IOVA_FIRST, IOVA_LAST].
 */
#ifndef VIOMMU_GUEST_IOVA_H
#define VIOMMU_GUEST_IOVA_H

#include <stdbool.h>
#include <stdint.h>

#include "device_checks.h"

enum {
    IOVA_FIRST = 0x08000000,
    WINDOW_IOVA = 0x08000000,
    PAIR_IOVA = 0x08010000,
    MANY_IOVA = 0x081f0000,     /* goes over a 2 MiB border: two tables */
    SUPER_IOVA = 0x08600000,
    REMAP_IOVA = 0x08a00000,
    STORM_IOVA = 0x08a10000,
    GONE_IOVA = 0x08b00000,     /* mapped, then unmapped */
    GUARD_IOVA = 0x08b10000,    /* mapped with less than both permissions */
    SAME_IOVA = 0x08c00000,     /* two devices map it */
    ONLY_A_IOVA = 0x08c10000,   /* only one of them */
    SHARED_IOVA = 0x08d00000,
    SHUFFLE_IOVA = 0x08e00000,  /* 2 MiB */
    IOVA_LAST = 0x08ffffff,
};

/* Bring a pattern into the device's buffer, or the buffer into the window. */
bool station_load(struct station *s, uint64_t seed);
bool station_show(struct station *s);

/*
 * The device writes, or reads, where it may not; that this is stopped and told is checked. *memory
 * is the page that it would reach, were the DMA not stopped; NULL (of a write) when there is none.
 * `reason` is enum FAULT_REASON_*.
 */
void write_refused(struct station *s, uint64_t iova, uint8_t *memory, unsigned reason,
                   const char *what);
void read_refused(struct station *s, uint64_t iova, uint8_t *memory, unsigned reason,
                  const char *what);

#endif
