/* SPDX-License-Identifier: BSD-2-Clause */
/* Everything libviommu offers. */
#ifndef VIOMMU_VIOMMU_H
#define VIOMMU_VIOMMU_H

#include <viommu/device.h>
#include <viommu/dmar.h>
#include <viommu/iommu.h>
#include <viommu/iommufd.h>
#include <viommu/iova.h>
#include <viommu/iova_source.h>
#include <viommu/memory.h>
#include <viommu/notify.h>
#include <viommu/save.h>
#include <viommu/trace.h>
#include <viommu/types.h>
#include <viommu/vfio.h>
#include <viommu/vtd.h>
#include <viommu/watch.h>
#include <viommu/window.h>

#endif
