/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The iommufd backend: an I/O address space (IOAS) of the kernel's iommufd that mirrors a device's
 * translations. Used as the VFIO backend is (viommu/vfio.h). The address space's mappings belong to
 * the backend.
 *
 * It does not ask for REPLACE: changing a device's whole page table is not without a moment in
 * which nothing is mapped on every host driver.
 */
#ifndef VIOMMU_IOMMUFD_H
#define VIOMMU_IOMMUFD_H

#include <viommu/notify.h>

#ifdef __cplusplus
extern "C" {
#endif

struct viommu_iommufd;

struct viommu_iommufd_config {
    int fd;                /* of /dev/iommu; not closed here */
    uint32_t ioas;         /* id of the address space, the device attached to it or soon */
    uint64_t mappings_max; /* 0: any number */
    /* As in struct viommu_vfio_config: detaches the device. */
    int (*cut_off)(void *opaque);
    void *opaque;
    bool adopt; /* as in struct viommu_vfio_config */
};

/*
 * Reads from the kernel which addresses may be mapped. Attach devices first: each may narrow them.
 * Returns 0; -EINVAL for no descriptor; -ERANGE when no address at all may be mapped; -EIO for an
 * answer of the kernel's that makes no sense; -ENOMEM; or what its IOMMU_IOAS_IOVA_RANGES returned
 * (-ENOENT: no such address space).
 */
int viommu_iommufd_create(const struct viommu_iommufd_config *config, struct viommu_iommufd **out);

/* As viommu_vfio_destroy. */
int viommu_iommufd_destroy(struct viommu_iommufd *iommufd);

/* As viommu_vfio_subscription. */
void viommu_iommufd_subscription(struct viommu_iommufd *iommufd, struct viommu_subscription *out);

#ifdef __cplusplus
}
#endif

#endif
