/* SPDX-License-Identifier: BSD-2-Clause */
/* Paravirtual operations in front of the VFIO backend, whose kernel is played. */
#include <viommu/vfio.h>

#include "pv/test_behind.h" /* first: there are things called `space` in it */

#include "vfio/test_kernel.h"

#include "kernel_cases.h"

static struct viommu_vfio *vfio;

static void backend_begin(struct viommu_subscription *what, bool with_cut_off)
{
    struct viommu_vfio_config config = {
        .container = CONTAINER,
        .cut_off = with_cut_off ? cut_off : NULL,
        .opaque = &space,
    };

    assert_int_equal(viommu_vfio_create(&config, &vfio), 0);
    viommu_vfio_subscription(vfio, what);
}

static int backend_end(void)
{
    return viommu_vfio_destroy(vfio);
}

static void kernel_ranges(const struct viommu_range *ranges, unsigned count)
{
    answer_begin(&kernel.answer, VFIO_IOMMU_INFO_CAPS | VFIO_IOMMU_INFO_PGSIZES, 0x1000);
    answer_add_ranges(&kernel.answer, ranges, count);
}

static void kernel_pages(uint64_t size)
{
    answer_begin(&kernel.answer, VFIO_IOMMU_INFO_CAPS | VFIO_IOMMU_INFO_PGSIZES, size);
    answer_add_ranges(&kernel.answer, usual, 2);
}
