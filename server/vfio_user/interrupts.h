/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The interrupts of one function as VFIO sees them: for each index (INTx, MSI, MSI-X, error,
 * request) a row of vectors, and for each vector the eventfd by which the client wants to hear of
 * it.
 *
 * A message-signalled vector that is triggered while it has no eventfd is remembered and signalled
 * when it gets one: clients set eventfds up in stages, after the guest has enabled the capability.
 *
 * INTx is a level. It is "automasked": signalled once when the level is high and it is not masked,
 * which masks it; the client unmasks when the guest has acknowledged, and if the level is still
 * high it is signalled again.
 *
 * Invariant: an eventfd in a vector is ours, non-blocking, and -1 when there is none.
 */
#ifndef VIOMMU_SERVER_VFIO_USER_INTERRUPTS_H
#define VIOMMU_SERVER_VFIO_USER_INTERRUPTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vfio_user/protocol.h"

enum {
    VFIO_USER_MAX_VECTORS = 64, /* of one index */
};

struct vfio_user_vector {
    int eventfd;
    bool pending;
};

struct vfio_user_interrupts {
    unsigned count[VFIO_PCI_NUM_IRQS];
    struct vfio_user_vector vector[VFIO_PCI_NUM_IRQS][VFIO_USER_MAX_VECTORS];
    bool intx_level;
    bool intx_masked;
    uint64_t signalled; /* eventfd writes made */
};

void vfio_user_interrupts_init(struct vfio_user_interrupts *interrupts);

/* Close every eventfd. The counts and the INTx level stay. */
void vfio_user_interrupts_clear(struct vfio_user_interrupts *interrupts);

/* A device's reset: nothing pending, INTx low and not masked. The client's eventfds stay. */
void vfio_user_interrupts_reset(struct vfio_user_interrupts *interrupts);

/* How many vectors an index has. count is at most VFIO_USER_MAX_VECTORS. */
void vfio_user_interrupts_set_count(struct vfio_user_interrupts *interrupts, unsigned index,
                                    unsigned count);

/* Fill in flags and count for info->index. Returns 0 or -EINVAL. */
int vfio_user_interrupts_info(const struct vfio_user_interrupts *interrupts,
                              struct vfio_irq_info *info);

/*
 * Do what a SET_IRQS command says. data is what followed the structure. fds[] are those that came
 * along; the ones that are kept are replaced by -1. Returns 0 or a negative errno: -EINVAL for a
 * request that makes no sense, -ENOTSUP for one that is legal but not served. Nothing is changed on
 * error.
 */
int vfio_user_interrupts_set(struct vfio_user_interrupts *interrupts,
                             const struct vfio_irq_set *set, const uint8_t *data, size_t data_size,
                             int *fds, unsigned n_fds);

/* Are all of these eventfds? Makes them non-blocking. Returns 0 or a negative errno. */
int vfio_user_interrupts_accept(const int *fds, unsigned n_fds);

/* The device raises a vector of MSI or MSI-X. */
void vfio_user_interrupts_trigger(struct vfio_user_interrupts *interrupts, unsigned index,
                                  unsigned vector);

/* The device's INTx line has this level. */
void vfio_user_interrupts_set_level(struct vfio_user_interrupts *interrupts, bool level);

#endif
