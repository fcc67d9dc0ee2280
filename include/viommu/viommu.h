/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Everything libviommu offers.
 *
 * Begin with viommu/memory.h (the guest's memory), viommu/vtd.h (a unit), viommu/iommu.h (what all
 * units have) and viommu/device.h (DMA). docs/embedding.md tells how they fit together;
 * `pkg-config --cflags --libs viommu` how to link.
 */
#ifndef VIOMMU_VIOMMU_H
#define VIOMMU_VIOMMU_H

#include <viommu/cpu_tlb.h>
#include <viommu/device.h>
#include <viommu/device_region.h>
#include <viommu/dmar.h>
#include <viommu/iommu.h>
#include <viommu/iommufd.h>
#include <viommu/iova.h>
#include <viommu/iova_source.h>
#include <viommu/memory.h>
#include <viommu/notify.h>
#include <viommu/pv.h>
#include <viommu/pv_abi.h>
#include <viommu/save.h>
#include <viommu/space.h>
#include <viommu/trace.h>
#include <viommu/types.h>
#include <viommu/tzmpc.h>
#include <viommu/vfio.h>
#include <viommu/vfio_user.h>
#include <viommu/vhost.h>
#include <viommu/viot.h>
#include <viommu/virtio.h>
#include <viommu/vtd.h>
#include <viommu/watch.h>
#include <viommu/window.h>

#endif
