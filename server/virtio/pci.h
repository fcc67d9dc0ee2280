/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The virtio transport over PCI, modern interface (virtio 1.3, section 4.1): a device with
 * virtqueues as a PCI function.
 *
 * Below stands the device (iommu.h, net.h), which fills in ops; above stands whoever serves the PCI
 * function. Between the two this keeps the device status, the negotiation, the queues' registers,
 * and the interrupts.
 *
 * BAR0 has the four structures, a page each: common configuration, ISR, device configuration,
 * notification; BAR1 has the MSI-X table. All of BAR0 can also be reached through the capability
 * for access by configuration space. A register is written in its own width (a 64-bit one in
 * halves, too); other writes are ignored. Reads may have any size and place.
 *
 * Status. Bits that the driver sets stay until it writes 0, which resets the device. A reset may
 * take time: until it is complete the status stays what it was, and all writes are ignored. The
 * device *runs* while DRIVER_OK is set, and neither FAILED nor NEEDS_RESET. NEEDS_RESET comes when
 * a queue is broken (ring.h). The device touches memory only while it runs, and bus mastering is
 * on.
 *
 * Rings of this process (ring.h) have guest-physical addresses, and nobody translates them. Those
 * of a device that has them worked on *elsewhere* are only written down here: their addresses are
 * the device's own, behind an IOMMU. The driver has to accept ACCESS_PLATFORM for that.
 *
 * Threads: the server's one thread.
 */
#ifndef VIOMMU_SERVER_VIRTIO_PCI_H
#define VIOMMU_SERVER_VIRTIO_PCI_H

#include <stdbool.h>
#include <stdint.h>

#include "pci_function.h"
#include "virtio/ring.h"

struct save_section;
struct save_writer;

enum {
    VIRTIO_PCI_QUEUES_MAX = 2,
    VIRTIO_PCI_NO_VECTOR = 0xffff,
};

/* What the device does when the driver has done something. */
struct virtio_device_ops {
    /* The driver accepts these features; those of the transport are not among them, unless rings
     * are worked on elsewhere. Returns 0, or a negative errno: then they are not accepted. */
    int (*accept)(void *opaque, uint64_t features);
    /* There may be something in a queue: the driver has notified, or the device begins to run. */
    void (*notified)(void *opaque, unsigned queue);
    /* It runs no more, and was not reset: the driver has given up, or switched bus mastering off.
     * It may run again later. May be NULL. */
    void (*halted)(void *opaque);
    /* Back to the beginning. Nothing of what was taken out of a queue may be given back. Returns 0,
     * or 1 when virtio_pci_reset_done will be called. */
    int (*reset)(void *opaque);
    /* The platform's reset: complete when it returns, but for DMA that is still under way. */
    void (*power_on)(void *opaque);
    /* Whether any is. May be NULL. */
    bool (*powering_on)(void *opaque);
    /* The device's own configuration. Inside of it; any size. Writing returns whether it is another
     * now. */
    void (*config_read)(void *opaque, uint32_t offset, void *data, uint32_t size);
    bool (*config_write)(void *opaque, uint32_t offset, const void *data, uint32_t size);
};

/* What a device is. */
struct virtio_device {
    uint16_t id; /* of the specification: 23 is an IOMMU */
    uint32_t class_code;
    uint64_t features; /* that it offers, without those of the transport; elsewhere: with them */
    uint32_t config_size;
    unsigned queues;
    uint16_t queue_size; /* of each, at most: a power of two up to VIRTIO_RING_SIZE_MAX */
    bool elsewhere;      /* its rings are worked on there */
    const struct virtio_device_ops *ops;
    void *opaque;
};

struct virtio_queue {
    struct virtio_ring ring;
    uint16_t vector; /* of MSI-X, or VIRTIO_PCI_NO_VECTOR */
};

struct virtio_pci {
    struct pci_function function;
    struct virtio_device device;
    struct virtio_queue queues[VIRTIO_PCI_QUEUES_MAX];
    uint32_t device_feature_select;
    uint32_t driver_feature_select;
    uint64_t driver_features;
    uint16_t config_vector;
    uint16_t queue_select;
    uint8_t status;
    uint8_t generation; /* of the device's configuration */
    uint8_t isr;
    bool resetting;
    int cfg; /* offset of the capability for access by configuration space */
    uint64_t needed_resets;
};

/* Makes the function of a device; `memory` is where its rings are. Both name and device->opaque
 * must outlive it. */
void virtio_pci_init(struct virtio_pci *pci, const char *name, const struct virtio_device *device,
                     struct viommu_memory *memory);

/* Whether a queue can be used now. */
bool virtio_pci_queue_runs(const struct virtio_pci *pci, unsigned queue);

/* Chains were returned to a queue: interrupts the driver if it wants that. */
void virtio_pci_returned(struct virtio_pci *pci, unsigned queue);

/* Interrupts the driver for a queue, whatever its ring says: who works on that has looked. */
void virtio_pci_interrupt(struct virtio_pci *pci, unsigned queue);

/* The device's configuration is another now, not by the driver: it is told. */
void virtio_pci_config_changed(struct virtio_pci *pci);

/* The device offers these features from now on: a driver that has settled on others is not asked
 * again before it resets the device. */
void virtio_pci_offer(struct virtio_pci *pci, uint64_t features);

/* The features that the driver has settled on, all of them; 0 before. */
uint64_t virtio_pci_settled(const struct virtio_pci *pci);

/* A queue is broken: the driver is asked for a reset. */
void virtio_pci_broken(struct virtio_pci *pci, unsigned queue, int error);

/* The reset that the device's ops began is complete. */
void virtio_pci_reset_done(struct virtio_pci *pci);

/* State for another process; loading returns 0 or a negative errno. */
void virtio_pci_save(const struct virtio_pci *pci, struct save_writer *writer);
int virtio_pci_load(struct virtio_pci *pci, struct save_section *section);

#endif
