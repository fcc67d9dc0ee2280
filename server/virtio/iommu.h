/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The virtio-iommu as a PCI function: the model's requests come by a virtqueue, and its faults go
 * into the buffers of another.
 *
 * Requests are carried out in the order in which the driver offers them, as the notification comes,
 * a bounded number at a time; then the unit is due, and goes on (virtio_iommu_process). Each is
 * answered, malformed ones too: drivers wait for the answer without a time limit. One that is
 * *pending* has left the queue, and is answered when the model says that it is complete.
 *
 * A fault waits in the model until the driver has offered a buffer for it. A buffer that is too
 * small goes back with length 0.
 *
 * Threads: the server's one thread.
 */
#ifndef VIOMMU_SERVER_VIRTIO_IOMMU_H
#define VIOMMU_SERVER_VIRTIO_IOMMU_H

#include <stdbool.h>
#include <stdint.h>

#include <viommu/virtio.h>

#include "unit.h"
#include "virtio/pci.h"

enum {
    VIRTIO_IOMMU_PENDING_MAX = VIRTIO_RING_SIZE_MAX,
    VIRTIO_IOMMU_TAIL_SIZE = 4,
};

/*
 * A request that is pending, and where its tail goes: as many pieces as it has bytes at most. Done,
 * it stays here while the device does not run, for want of bus mastering.
 */
struct virtio_iommu_pending {
    uint64_t token;
    uint16_t head;
    bool done;
    uint8_t status; /* then it is this */
    uint8_t count;
    struct virtio_segment tail[VIRTIO_IOMMU_TAIL_SIZE];
};

struct virtio_iommu {
    struct virtio_pci pci;
    struct unit unit;
    struct virtio_iommu_pending pending[VIRTIO_IOMMU_PENDING_MAX];
    unsigned pending_count;
    uint64_t last_token;
    uint64_t reset_token; /* of the reset that is pending; 0: there is none */
    bool reset_again;     /* the model could not begin it */
    uint8_t *answer;      /* room for the largest */
    size_t answer_size;
    struct virtio_chain chain; /* the one at hand */
    uint64_t requests;         /* taken out of the queue */
    uint64_t pended;           /* of them, those that were pending */
    uint64_t malformed;        /* chains that made no sense, or led to what is no memory */
    uint64_t faults_told;
    uint64_t buffers_refused; /* for faults, too small */
    uint64_t faults_dropped;  /* their buffer was not in memory */
};

/* Creates memory and unit. name must outlive the function. Of `caches` what it says of caches is
 * taken; NULL: the defaults. Returns 0 or a negative errno. Then either viommu_start it, or
 * _load it. */
int virtio_iommu_init(struct virtio_iommu *iommu, const char *name,
                      const struct viommu_virtio_config *config,
                      const struct viommu_config *caches);

/*
 * State for another process. Saving returns 0 or viommu_save's negative errno, and writes into the
 * section that is open. The unit that is loaded has the same devices and guest memory; _load
 * returns 0 or a negative errno, and starts it.
 */
int virtio_iommu_save(const struct virtio_iommu *iommu, struct save_writer *writer);
int virtio_iommu_load(struct virtio_iommu *iommu, struct save_section *section);

/* Nobody serves the function any more; the devices behind it were removed. */
void virtio_iommu_fini(struct virtio_iommu *iommu);

/* Do pending work, a bounded amount: where unit_process would be called, this is. */
void virtio_iommu_process(struct virtio_iommu *iommu);

#endif
