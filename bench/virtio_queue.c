/* SPDX-License-Identifier: BSD-2-Clause */
/* See virtio_queue.h. Offsets and flags are those of the virtio specification (1.3). */
#include "virtio_queue.h"

#include "guest.h"
#include "virtio_spec.h"

#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    DESCRIPTORS = 0, /* in memory */
    AVAILABLE = 0x1000,
    USED = 0x2000,
    SLOTS = 0x4000,
    SIZE = 256, /* entries of the queue */

    NOTIFY = 0x3000, /* in BAR0 */

    TAIL = 4,
    TAIL_AT = QUEUE_SLOT - TAIL,
};

/* An interrupt is asked for, and goes nowhere. */
static void message_interrupt(void *opaque, unsigned vector)
{
    (void)opaque;
    (void)vector;
}

static void line_interrupt(void *opaque, bool level)
{
    (void)opaque;
    (void)level;
}

static int write_message(void *opaque, uint64_t address, uint32_t data)
{
    (void)opaque;
    (void)address;
    (void)data;
    return 0;
}

static const struct pci_bus_ops bus = {
    .message_interrupt = message_interrupt,
    .line_interrupt = line_interrupt,
    .write_message = write_message,
};

/* ---- registers ---- */

static void put(struct virtio_queue_driver *driver, uint64_t offset, unsigned size, uint64_t value)
{
    struct pci_function *function = &driver->iommu.pci.function;

    function->ops->bar_write(function->opaque, 0, offset, &value, size);
}

static uint8_t status(struct virtio_queue_driver *driver)
{
    struct pci_function *function = &driver->iommu.pci.function;
    uint8_t value = 0;

    function->ops->bar_read(function->opaque, 0, VIRTIO_PCI_COMMON_STATUS, &value, sizeof(value));
    return value;
}

static void status_add(struct virtio_queue_driver *driver, uint8_t bits)
{
    put(driver, VIRTIO_PCI_COMMON_STATUS, 1, status(driver) | bits);
}

static void accept_features(struct virtio_queue_driver *driver)
{
    uint64_t features =
        viommu_virtio_features(driver->iommu.unit.iommu) | UINT64_C(1) << VIRTIO_F_VERSION_1;

    for (unsigned half = 0; half < 2; half++) {
        put(driver, VIRTIO_PCI_COMMON_GFSELECT, 4, half);
        put(driver, VIRTIO_PCI_COMMON_GF, 4, (uint32_t)(features >> (32 * half)));
    }
}

static void enable_queue(struct virtio_queue_driver *driver)
{
    put(driver, VIRTIO_PCI_COMMON_Q_SELECT, 2, 0);
    put(driver, VIRTIO_PCI_COMMON_Q_SIZE, 2, SIZE);
    put(driver, VIRTIO_PCI_COMMON_Q_DESCLO, 4, DESCRIPTORS);
    put(driver, VIRTIO_PCI_COMMON_Q_AVAILLO, 4, AVAILABLE);
    put(driver, VIRTIO_PCI_COMMON_Q_USEDLO, 4, USED);
    put(driver, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
}

static void start(struct virtio_queue_driver *driver)
{
    struct pci_function *function = &driver->iommu.pci.function;
    uint16_t command = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;

    function->bus = &bus;
    pci_config_write(&function->config, PCI_COMMAND, &command, sizeof(command));
    function->ops->config_written(function->opaque, PCI_COMMAND, sizeof(command));
    put(driver, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    status_add(driver, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
    accept_features(driver);
    status_add(driver, VIRTIO_CONFIG_S_FEATURES_OK);
    enable_queue(driver);
    status_add(driver, VIRTIO_CONFIG_S_DRIVER_OK);
    if (!(status(driver) & VIRTIO_CONFIG_S_FEATURES_OK)) {
        guest_die("the features are not accepted");
    }
}

/* ---- the queue ---- */

uint8_t *queue_driver_slot(const struct virtio_queue_driver *driver, uint64_t slot)
{
    return driver->ram + SLOTS + slot * QUEUE_SLOT;
}

/* The part of a request that the device reads. */
static uint32_t readable(const uint8_t *request)
{
    return request[0] == SPEC_VIRTIO_MAP ? 36 : request[0] == SPEC_VIRTIO_UNMAP ? 28 : 20;
}

/* Request number i of a batch has two descriptors. */
static void offer(struct virtio_queue_driver *driver, uint64_t slot, unsigned i)
{
    struct vring_desc *descriptors = (struct vring_desc *)(driver->ram + DESCRIPTORS) + 2 * i;
    uint16_t *available = (uint16_t *)(driver->ram + AVAILABLE);
    uint64_t gpa = SLOTS + slot * QUEUE_SLOT;

    driver->ram[gpa + TAIL_AT] = 0xff; /* no status */
    descriptors[0] = (struct vring_desc){gpa, readable(driver->ram + gpa), VRING_DESC_F_NEXT,
                                         (uint16_t)(2 * i + 1)};
    descriptors[1] = (struct vring_desc){gpa + TAIL_AT, TAIL, VRING_DESC_F_WRITE, 0};
    available[2 + driver->offered++ % SIZE] = (uint16_t)(2 * i);
}

/* Whether this is the next one that has come back, and is OK. */
static bool came_back(struct virtio_queue_driver *driver, uint64_t slot, unsigned i)
{
    const struct vring_used_elem *used =
        (const struct vring_used_elem *)(driver->ram + USED + 4) + driver->seen++ % SIZE;

    return used->id == 2 * i && used->len == TAIL &&
           !driver->ram[SLOTS + slot * QUEUE_SLOT + TAIL_AT];
}

static uint16_t used_index(const struct virtio_queue_driver *driver)
{
    return atomic_load_explicit((_Atomic uint16_t *)(driver->ram + USED + 2), memory_order_acquire);
}

bool queue_driver_send(struct virtio_queue_driver *driver, uint64_t slot, unsigned count)
{
    bool ok = true;

    for (unsigned i = 0; i < count; i++) {
        offer(driver, slot + i, i);
    }
    atomic_store_explicit((_Atomic uint16_t *)(driver->ram + AVAILABLE + 2), driver->offered,
                          memory_order_release);
    put(driver, NOTIFY, 2, 0);
    while (used_index(driver) != driver->offered) {
        virtio_iommu_process(&driver->iommu); /* nothing is under way: once would do */
    }
    for (unsigned i = 0; i < count; i++) {
        ok = came_back(driver, slot + i, i) && ok;
    }
    return ok;
}

/* ---- life ---- */

static void add_memory(struct virtio_queue_driver *driver)
{
    struct viommu_memory_slot slot = {.last = driver->ram_size - 1, .fd = -1};
    struct viommu_memory_batch *batch;

    driver->ram = aligned_alloc(GUEST_PAGE, driver->ram_size);
    if (!driver->ram) {
        guest_die("memory");
    }
    memset(driver->ram, 0, driver->ram_size);
    slot.host = driver->ram;
    guest_ok(viommu_memory_batch_begin(driver->iommu.unit.memory, &batch), "adding memory");
    guest_ok(viommu_memory_batch_add(batch, &slot), "adding memory");
    guest_ok(viommu_memory_batch_commit(batch, NULL, NULL), "adding memory");
}

void queue_driver_init(struct virtio_queue_driver *driver, uint64_t slots, uint32_t mappings_max,
                       uint16_t endpoint)
{
    const struct viommu_virtio_config config = {.mappings_max = mappings_max};
    const struct viommu_device_config device = {.requester = endpoint};

    *driver = (struct virtio_queue_driver){.slots = slots};
    driver->ram_size = (SLOTS + slots * QUEUE_SLOT + GUEST_PAGE - 1) & ~(GUEST_PAGE - 1);
    guest_ok(virtio_iommu_init(&driver->iommu, "virtio-iommu", &config, NULL),
             "making a virtio-iommu");
    add_memory(driver);
    guest_ok(viommu_device_add(driver->iommu.unit.iommu, &device, &driver->device),
             "adding a device");
    guest_ok(viommu_start(driver->iommu.unit.iommu), "starting");
    start(driver);
}

void queue_driver_fini(struct virtio_queue_driver *driver)
{
    viommu_device_remove(driver->device);
    virtio_iommu_process(&driver->iommu);
    virtio_iommu_fini(&driver->iommu);
    free(driver->ram);
}
