/* SPDX-License-Identifier: BSD-2-Clause */
/* What the rooms of units and saved states know of virtio-iommus. */
#ifndef VIOMMU_TOOLS_RUN_VIRTIO_H
#define VIOMMU_TOOLS_RUN_VIRTIO_H

#include "run.h"

void virtio_room_destroy(struct virtio_room *room);

const struct viommu_virtio_config *virtio_unit_config(const struct unit *unit);

/* Another instance as the unit's, not started. Returns 0 or a negative errno. */
int virtio_unit_create(const struct unit *unit, struct viommu **out);

#endif
