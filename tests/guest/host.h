/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * host.h - the kernel's interface under a mirror: a VFIO container, or an I/O address space of
 * iommufd, with one edu device in it; and the library's backend for it.
 *
 * "Host" as the library sees it: here that is the test guest's own kernel.  Functions return 0 or a
 * negative errno.  One thread only.
 */
#ifndef VIOMMU_GUEST_HOST_H
#define VIOMMU_GUEST_HOST_H

#include <stdbool.h>
#include <stdint.h>

#include <viommu/notify.h>

#include "edu.h"

struct viommu_vfio;
struct viommu_iommufd;

struct host {
    bool iommufd;               /* or VFIO's container */
    unsigned limit;             /* mappings that iommufd's backend shall keep to */
    struct edu *edu;
    int fd;                     /* the container, or /dev/iommu */
    int group_fd;               /* VFIO */
    uint32_t ioas;              /* iommufd */
    int whole_fd;               /* while broken: what fd was; otherwise -1 */
    struct viommu_vfio *vfio;
    struct viommu_iommufd *backend;
    unsigned cut_offs;          /* times that the backend had the device cut off */
};

/* Open the interface and, in it, the device, which is bound to vfio-pci. */
int host_open(struct host *host, struct edu *edu, bool iommufd, unsigned limit);
void host_close(struct host *host);

/*
 * Make the library's backend and fill in its subscription.  VFIO's asks the kernel how many
 * mappings there can be; iommufd has no limit, and its backend keeps to that of host_open().
 */
int host_attach(struct host *host, struct viommu_subscription *out);
int host_detach(struct host *host);

/* How many mappings VFIO has room for; -1 when the kernel does not say. */
int64_t host_mappings_left(struct host *host);

/* From now on every call of the backend to the kernel fails; and no longer. */
int host_break(struct host *host);
void host_mend(struct host *host);

/* Set the limit of mappings that containers opened from now on have (VFIO). */
bool host_set_limit(unsigned mappings);

#endif
