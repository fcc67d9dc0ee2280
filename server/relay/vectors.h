/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The eventfds that a client has given for a far device's interrupts, remembered: a far server that
 * comes back is given them again.
 *
 * Or it is never given them, but others, each far server new ones, and what it says by those is
 * passed on. Then one that was cut off and lives has no part in the interrupts of the next one, and
 * none can do anything to the client, which shares an eventfd's counter and its flags with whoever
 * has it. An interrupt takes a detour by this process for that.
 *
 * For each interrupt index a row, as long as the far server said. Invariants: an entry is a
 * descriptor of ours, or -1; one of ours that the far server has is only where the client has given
 * one.
 */
#ifndef VIOMMU_SERVER_RELAY_VECTORS_H
#define VIOMMU_SERVER_RELAY_VECTORS_H

#include <stdint.h>

#include "far_info.h"

struct loop;
struct relay_own_vector;

struct relay_vectors {
    struct loop *loop; /* NULL: the far server is given the client's */
    int *fds[VFIO_PCI_NUM_IRQS];
    struct relay_own_vector *own[VFIO_PCI_NUM_IRQS];
    uint32_t count[VFIO_PCI_NUM_IRQS];
};

/* There are none. With a loop the far server is given others, which are watched there. */
void relay_vectors_init(struct relay_vectors *vectors, struct loop *loop);

/* Close all of them, and give the rows up. The far server is cut off already. */
void relay_vectors_fini(struct relay_vectors *vectors);

/* Have a row for this index, which the device has. Returns 0 or -ENOMEM. */
int relay_vectors_reserve(struct relay_vectors *vectors, const struct far_info *info,
                          uint32_t index);

/* A range of a row that there is. Closes what was there; takes fds[] over, replacing them by -1;
 * NULL: none any more. */
void relay_vectors_set(struct relay_vectors *vectors, uint32_t index, uint32_t start,
                       uint32_t count, int *fds);

/* From this place on, the next one that has an eventfd. Returns whether there is one. */
bool relay_vectors_next(const struct relay_vectors *vectors, uint32_t *index, uint32_t *vector);

/* What the far server is to be given for one that has an eventfd; it stays theirs. Returns a
 * descriptor, or a negative errno. */
int relay_vectors_give(struct relay_vectors *vectors, uint32_t index, uint32_t vector);

/* The far server is gone, or cut off: what it says by what it was given is not heard any more, but
 * for what it said until now. */
void relay_vectors_cut(struct relay_vectors *vectors);

#endif
