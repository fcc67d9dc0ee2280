/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The eventfds that a client has given for a far device's interrupts, remembered: a far server that
 * comes back is given them again.
 *
 * For each interrupt index a row, as long as the far server said. Invariant: an entry is a
 * descriptor of ours, or -1.
 */
#ifndef VIOMMU_SERVER_RELAY_VECTORS_H
#define VIOMMU_SERVER_RELAY_VECTORS_H

#include <stdint.h>

#include "far_info.h"

struct relay_vectors {
    int *fds[VFIO_PCI_NUM_IRQS];
    uint32_t count[VFIO_PCI_NUM_IRQS];
};

/* Close all of them, and give the rows up. */
void relay_vectors_fini(struct relay_vectors *vectors);

/* Have a row for this index, which the device has. Returns 0 or -ENOMEM. */
int relay_vectors_reserve(struct relay_vectors *vectors, const struct far_info *info,
                          uint32_t index);

/* A range of a row that there is. Closes what was there; takes fds[] over, replacing them by -1;
 * NULL: none any more. */
void relay_vectors_set(struct relay_vectors *vectors, uint32_t index, uint32_t start,
                       uint32_t count, int *fds);

/* From this place on, the next one that has an eventfd, which stays theirs: -1: there is none. */
int relay_vectors_next(const struct relay_vectors *vectors, uint32_t *index, uint32_t *vector);

#endif
