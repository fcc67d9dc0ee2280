/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vfio.h - VFIO type1 v2 from the guest's user space.
 *
 * Vocabulary.  "Container": one IOMMU domain with its mappings.  "Group": the devices the kernel
 * cannot tell apart; here always one device.  Functions return 0 or a negative errno.  One thread
 * at a time.
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

/*
 * From now on print what is done, so that the harness outside knows what the device may reach (C is
 * a container; numbers are hexadecimal):
 *   # vfio: group G is BDF
 *   # vfio: open C G...
 *   # vfio: part IOVA GPA SIZE          of the next map: physically contiguous memory
 *   # vfio: map C IOVA SIZE PERM        PERM is 1, 2 or 3 (DMA_READ ...)
 *   # vfio: unmap C IOVA SIZE
 *   # vfio: close C
 */
void vfio_record(void);

/* Give a PCI device ("0000:00:05.0") to vfio-pci and find its group's number. */
int vfio_bind(const char *bdf, unsigned *group);

/* Open a container that holds these groups; on success group_fds[] are open too. */
int vfio_open(const unsigned *groups, unsigned count, int *container, int *group_fds);

/* Close both; what was mapped goes. */
void vfio_close(int container, const int *group_fds, unsigned count);

/* Was the module parameter allow_unsafe_interrupts needed? */
int vfio_was_unsafe(void);

int vfio_map(int container, uint64_t iova, void *memory, size_t size, int perm);
int vfio_unmap(int container, uint64_t iova, size_t size);

/* The last IOVA that can be mapped. */
int vfio_last_iova(int container, uint64_t *last);

/* How many more mappings the container takes, or -1 when the kernel does not say. */
int64_t vfio_mappings_left(int container);

/* Make vector 0 of the device's MSI signal an eventfd. */
int vfio_set_msi(int device, int eventfd);

#endif
