/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vfio.h - VFIO type1 v2 from the guest's user space.
 *
 * Vocabulary.  "Container": one IOMMU domain with its mappings.  "Group": the devices the kernel
 * cannot tell apart; here always one device.  Functions return 0 or a negative errno.  One thread
 * only.
 */
#ifndef VIOMMU_GUEST_VFIO_H
#define VIOMMU_GUEST_VFIO_H

#include <stddef.h>
#include <stdint.h>

enum {
    DMA_READ = 1,   /* the device may read */
    DMA_WRITE = 2,  /* the device may write */
    DMA_BOTH = 3,
};

/* Give a PCI device ("0000:00:05.0") to vfio-pci and find its group's number. */
int vfio_bind(const char *bdf, unsigned *group);

/* Open a container that holds these groups; on success group_fds[] are open too. */
int vfio_open(const unsigned *groups, unsigned count, int *container, int *group_fds);

/* Was the module parameter allow_unsafe_interrupts needed? */
int vfio_was_unsafe(void);

int vfio_map(int container, uint64_t iova, void *memory, size_t size, int perm);
int vfio_unmap(int container, uint64_t iova, size_t size);

/* The last IOVA that can be mapped. */
int vfio_last_iova(int container, uint64_t *last);

/* Make vector 0 of the device's MSI signal an eventfd. */
int vfio_set_msi(int device, int eventfd);

#endif
