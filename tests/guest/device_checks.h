/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * device_checks.h - what is checked with one edu device, or with two, behind the IOMMU.
 *
 * Vocabulary.  "Station": one device opened in a container of its own, with one page (the window)
 * always mapped, through which the device's buffer is loaded and seen.  One thread only.
 */
#ifndef VIOMMU_GUEST_DEVICE_CHECKS_H
#define VIOMMU_GUEST_DEVICE_CHECKS_H

#include <stdbool.h>
#include <stdint.h>

#include "edu.h"

struct station {
    struct edu *edu;
    int container;
    int group_fd;
    uint8_t *window;    /* one page, at WINDOW_IOVA */
};

/* How much to do; from the kernel command line. */
struct plan {
    unsigned pages;     /* pages of the scattered test */
    unsigned storm;     /* map and unmap cycles */
    bool qemu_unit;     /* the unit is QEMU's own: see check_read_only() */
};

/* Open and close; what fails is reported. */
bool station_open(struct station *s, struct edu *edu);
void station_close(struct station *s);

/* Identification, DMA both ways, pages, interrupts: nothing here is refused. */
void check_allowed(struct station *s, const struct plan *plan);

/* Mappings of all sizes, in a mixed-up order. */
void check_shuffle(struct station *s, const struct plan *plan);

/* DMA that must be stopped; and how many of them there were so far, with two devices too. */
void check_refused(struct station *s, const struct plan *plan);
unsigned refused_count(void);

/* Two devices, each in its own domain. */
void check_isolation(struct station *a, struct station *b);

/* Two devices in one domain.  Both must be closed before. */
void check_shared_domain(struct edu *a, struct edu *b);

/* The device's process tries to reach what is none of its own. */
void check_hostile(struct station *s);

#endif
