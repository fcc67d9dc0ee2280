/* SPDX-License-Identifier: BSD-2-Clause */
/* Paravirtual operations in front of the iommufd backend, whose kernel is played. */
#include <viommu/iommufd.h>

#include "pv/test_behind.h" /* first: there are things called `space` in it */

#include "iommufd/test_kernel.h"

#include "kernel_cases.h"

static struct viommu_iommufd *iommufd;

static void backend_begin(struct viommu_subscription *what, bool with_cut_off)
{
    struct viommu_iommufd_config config = {
        .fd = FD,
        .ioas = IOAS,
        .cut_off = with_cut_off ? cut_off : NULL,
        .opaque = &space,
    };

    assert_int_equal(viommu_iommufd_create(&config, &iommufd), 0);
    viommu_iommufd_subscription(iommufd, what);
}

static int backend_end(void)
{
    return viommu_iommufd_destroy(iommufd);
}

static void kernel_ranges(const struct viommu_range *ranges, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        kernel.ranges[i] = (struct iommufd_range){ranges[i].first, ranges[i].last};
    }
    kernel.range_count = count;
    kernel.alignment = 1; /* or the ends of these would not be such */
}

static void kernel_pages(uint64_t size)
{
    kernel.alignment = size;
}
