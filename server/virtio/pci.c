/* SPDX-License-Identifier: BSD-2-Clause */
/* See pci.h. Names of registers are those of <linux/virtio_pci.h>. */
#include "virtio/pci.h"

#include <endian.h>
#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <string.h>

#include "log.h"
#include "save/stream.h"

enum {
    /* BAR0 */
    BAR_SIZE = 0x4000,
    COMMON = 0x0000,
    COMMON_SIZE = VIRTIO_PCI_COMMON_Q_USEDHI + 4,
    ISR = 0x1000,
    DEVICE = 0x2000,
    NOTIFY = 0x3000,
    NOTIFY_STRIDE = 4,
    STRUCTURE_SIZE = 0x1000,
    /* BAR1 */
    MSIX_BAR = 1,
    MSIX_BAR_SIZE = 0x1000,
    MSIX_TABLE = 0,
    MSIX_PENDING = 0x800,

    VIRTIO_VENDOR = 0x1af4,
    VIRTIO_MODERN_DEVICE = 0x1040, /* and the device's id */

    ISR_QUEUE = 1,
    ISR_CONFIG = 2,

    /* What a driver may set. */
    STATUS_DRIVERS = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |
                     VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK |
                     VIRTIO_CONFIG_S_FAILED,

    LINES_MAX = 100, /* that a guest can have printed */
};

#define TRANSPORT_FEATURES                                                                         \
    (UINT64_C(1) << VIRTIO_F_VERSION_1 | UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC |              \
     UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX)

static uint64_t offered(const struct virtio_pci *pci)
{
    return pci->device.features | (pci->device.elsewhere ? 0 : TRANSPORT_FEATURES);
}

/* Without these the device cannot be driven. */
static uint64_t needed(const struct virtio_pci *pci)
{
    return UINT64_C(1) << VIRTIO_F_VERSION_1 |
           (pci->device.elsewhere ? UINT64_C(1) << VIRTIO_F_ACCESS_PLATFORM : 0);
}

static unsigned vectors(const struct virtio_pci *pci)
{
    return pci->device.queues + 1;
}

/* ---- interrupts ---- */

static void update_line(struct virtio_pci *pci)
{
    bool messages = pci_config_msix_enabled(&pci->function.config);

    pci_function_line_interrupt(&pci->function, pci->isr != 0 && !messages);
}

/* By a message, or by the line and a bit of the ISR register. */
static void interrupt(struct virtio_pci *pci, uint16_t vector, uint8_t bit)
{
    if (!pci_config_msix_enabled(&pci->function.config)) {
        pci->isr |= bit;
        update_line(pci);
    } else if (vector != VIRTIO_PCI_NO_VECTOR) {
        pci_function_message_interrupt(&pci->function, vector);
    }
}

static uint8_t take_isr(struct virtio_pci *pci)
{
    uint8_t isr = pci->isr;

    pci->isr = 0;
    update_line(pci);
    return isr;
}

/* ---- status and queues ---- */

static bool runs(const struct virtio_pci *pci)
{
    const uint8_t bits =
        VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET | VIRTIO_CONFIG_S_FAILED;

    return (pci->status & bits) == VIRTIO_CONFIG_S_DRIVER_OK && !pci->resetting &&
           pci_config_bus_master(&pci->function.config);
}

bool virtio_pci_queue_runs(const struct virtio_pci *pci, unsigned queue)
{
    return pci->queues[queue].ring.enabled && runs(pci);
}

static void notified(struct virtio_pci *pci, unsigned queue)
{
    if (virtio_pci_queue_runs(pci, queue)) {
        pci->device.ops->notified(pci->device.opaque, queue);
    }
}

/* Whether the device runs may have changed. */
static void run_or_halt(struct virtio_pci *pci)
{
    for (unsigned i = 0; i < pci->device.queues; i++) {
        notified(pci, i);
    }
    if (!runs(pci) && pci->device.ops->halted) {
        pci->device.ops->halted(pci->device.opaque);
    }
}

void virtio_pci_returned(struct virtio_pci *pci, unsigned queue)
{
    struct virtio_queue *own = &pci->queues[queue];
    int ret;

    if (!virtio_pci_queue_runs(pci, queue)) {
        return; /* it broke */
    }
    ret = virtio_ring_wants_interrupt(&own->ring);
    if (ret < 0) {
        virtio_pci_broken(pci, queue, ret);
    } else if (ret) {
        interrupt(pci, own->vector, ISR_QUEUE);
    }
}

void virtio_pci_interrupt(struct virtio_pci *pci, unsigned queue)
{
    if (virtio_pci_queue_runs(pci, queue)) {
        interrupt(pci, pci->queues[queue].vector, ISR_QUEUE);
    }
}

void virtio_pci_config_changed(struct virtio_pci *pci)
{
    pci->generation++;
    if (pci->status & VIRTIO_CONFIG_S_DRIVER_OK && !pci->resetting) {
        interrupt(pci, pci->config_vector, ISR_CONFIG);
    }
}

void virtio_pci_offer(struct virtio_pci *pci, uint64_t features)
{
    pci->device.features = features;
}

uint64_t virtio_pci_settled(const struct virtio_pci *pci)
{
    return pci->status & VIRTIO_CONFIG_S_FEATURES_OK ? pci->driver_features : 0;
}

void virtio_pci_broken(struct virtio_pci *pci, unsigned queue, int error)
{
    if (pci->status & VIRTIO_CONFIG_S_NEEDS_RESET) {
        return;
    }
    pci->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
    if (pci->needed_resets++ < LINES_MAX) {
        server_log("%s: queue %u is broken (%s): the driver has to reset the device",
                   pci->function.name, queue,
                   error == -EBADMSG ? "an index makes no sense" : strerror(-error));
    }
    interrupt(pci, pci->config_vector, ISR_CONFIG);
}

/* All that the driver has set, as after power-on. */
static void forget_driver(struct virtio_pci *pci)
{
    pci->device_feature_select = pci->driver_feature_select = 0;
    pci->driver_features = 0;
    pci->config_vector = VIRTIO_PCI_NO_VECTOR;
    pci->queue_select = 0;
    pci->status = 0;
    pci->resetting = false;
    pci->isr = 0;
    for (unsigned i = 0; i < pci->device.queues; i++) {
        virtio_ring_reset(&pci->queues[i].ring, pci->device.queue_size);
        pci->queues[i].vector = VIRTIO_PCI_NO_VECTOR;
    }
    update_line(pci);
}

void virtio_pci_reset_done(struct virtio_pci *pci)
{
    forget_driver(pci);
}

/* With a status of 0 the device has done nothing that it would have to forget. */
static void driver_reset(struct virtio_pci *pci)
{
    if (pci->status != 0 && pci->device.ops->reset(pci->device.opaque)) {
        pci->resetting = true;
    } else {
        forget_driver(pci);
    }
}

/* What the driver has accepted of the transport's features. */
static void set_ring_features(struct virtio_pci *pci)
{
    for (unsigned i = 0; i < pci->device.queues; i++) {
        struct virtio_ring *ring = &pci->queues[i].ring;

        ring->indirect = pci->driver_features & UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC;
        ring->event_index = pci->driver_features & UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX;
    }
}

static bool accept_features(struct virtio_pci *pci)
{
    uint64_t features = pci->driver_features;

    if ((features & ~offered(pci)) || (needed(pci) & ~features) ||
        pci->device.ops->accept(pci->device.opaque, features & pci->device.features) < 0) {
        return false;
    }
    set_ring_features(pci);
    return true;
}

static void write_status(struct virtio_pci *pci, uint8_t value)
{
    uint8_t before = pci->status;
    uint8_t appeared = value & STATUS_DRIVERS & (uint8_t)~before;

    if (value == 0) {
        driver_reset(pci);
        return;
    }
    if (appeared & VIRTIO_CONFIG_S_FEATURES_OK && !accept_features(pci)) {
        appeared &= (uint8_t)~VIRTIO_CONFIG_S_FEATURES_OK;
    }
    if (!((before | appeared) & VIRTIO_CONFIG_S_FEATURES_OK)) {
        appeared &= (uint8_t)~VIRTIO_CONFIG_S_DRIVER_OK;
    }
    pci->status |= appeared;
    if (appeared & (VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_FAILED)) {
        run_or_halt(pci);
    }
}

/* ---- common configuration ---- */

static struct virtio_queue *selected(struct virtio_pci *pci)
{
    return pci->queue_select < pci->device.queues ? &pci->queues[pci->queue_select] : NULL;
}

static uint32_t half(uint64_t value, uint32_t select)
{
    return select > 1 ? 0 : (uint32_t)(value >> (32 * select));
}

static void fill_queue(const struct virtio_queue *queue, struct virtio_pci_common_cfg *common,
                       uint16_t index)
{
    common->queue_size = htole16(queue->ring.size);
    common->queue_msix_vector = htole16(queue->vector);
    common->queue_enable = htole16(queue->ring.enabled);
    common->queue_notify_off = htole16(index);
    common->queue_desc_lo = htole32((uint32_t)queue->ring.descriptors);
    common->queue_desc_hi = htole32((uint32_t)(queue->ring.descriptors >> 32));
    common->queue_avail_lo = htole32((uint32_t)queue->ring.available);
    common->queue_avail_hi = htole32((uint32_t)(queue->ring.available >> 32));
    common->queue_used_lo = htole32((uint32_t)queue->ring.used);
    common->queue_used_hi = htole32((uint32_t)(queue->ring.used >> 32));
}

static void fill_common(struct virtio_pci *pci, struct virtio_pci_common_cfg *common)
{
    const struct virtio_queue *queue = selected(pci);

    memset(common, 0, sizeof(*common));
    common->device_feature_select = htole32(pci->device_feature_select);
    common->device_feature = htole32(half(offered(pci), pci->device_feature_select));
    common->guest_feature_select = htole32(pci->driver_feature_select);
    common->guest_feature = htole32(half(pci->driver_features, pci->driver_feature_select));
    common->msix_config = htole16(pci->config_vector);
    common->num_queues = htole16((uint16_t)pci->device.queues);
    common->device_status = pci->status;
    common->config_generation = pci->generation;
    common->queue_select = htole16(pci->queue_select);
    if (queue) {
        fill_queue(queue, common, pci->queue_select);
    } else {
        common->queue_msix_vector = htole16(VIRTIO_PCI_NO_VECTOR);
    }
}

static void write_driver_features(struct virtio_pci *pci, uint32_t value)
{
    unsigned shift = 32 * pci->driver_feature_select;

    if (pci->status & VIRTIO_CONFIG_S_FEATURES_OK) {
        return; /* they are settled */
    }
    if (pci->driver_feature_select > 1) {
        return;
    }
    pci->driver_features &= ~((uint64_t)UINT32_MAX << shift);
    pci->driver_features |= (uint64_t)value << shift;
}

static uint16_t as_vector(const struct virtio_pci *pci, uint32_t value)
{
    return value < vectors(pci) ? (uint16_t)value : VIRTIO_PCI_NO_VECTOR;
}

static void set_half(uint64_t *address, unsigned upper, uint32_t value)
{
    unsigned shift = 32 * upper;

    *address = (*address & ~((uint64_t)UINT32_MAX << shift)) | (uint64_t)value << shift;
}

/* The place of a queue's rings: a 32-bit register. */
static void write_address(struct virtio_ring *ring, uint64_t offset, uint32_t value)
{
    unsigned upper = offset & 4 ? 1 : 0;

    switch (offset & ~UINT64_C(4)) {
    case VIRTIO_PCI_COMMON_Q_DESCLO:
        set_half(&ring->descriptors, upper, value);
        break;
    case VIRTIO_PCI_COMMON_Q_AVAILLO:
        set_half(&ring->available, upper, value);
        break;
    default:
        set_half(&ring->used, upper, value);
        break;
    }
}

static bool is_queue_size(const struct virtio_pci *pci, uint32_t size)
{
    return size > 0 && size <= pci->device.queue_size && !(size & (size - 1));
}

static void enable_queue(struct virtio_pci *pci, struct virtio_queue *queue)
{
    queue->ring.enabled = virtio_ring_is_sound(&queue->ring);
    if (queue->ring.enabled) {
        notified(pci, pci->queue_select);
    }
}

/* A register of the selected queue. What says where its rings are stays while it is enabled. */
static void write_queue(struct virtio_pci *pci, uint64_t offset, unsigned size, uint32_t value)
{
    struct virtio_queue *queue = selected(pci);

    if (!queue) {
        return;
    }
    if (offset == VIRTIO_PCI_COMMON_Q_MSIX && size == 2) {
        queue->vector = as_vector(pci, value);
    } else if (queue->ring.enabled) {
        return;
    } else if (offset == VIRTIO_PCI_COMMON_Q_SIZE && size == 2) {
        if (is_queue_size(pci, value)) {
            queue->ring.size = (uint16_t)value;
        }
    } else if (offset == VIRTIO_PCI_COMMON_Q_ENABLE && size == 2) {
        if (value == 1) {
            enable_queue(pci, queue);
        }
    } else if (offset >= VIRTIO_PCI_COMMON_Q_DESCLO && offset % 4 == 0 && size == 4) {
        write_address(&queue->ring, offset, value);
    }
}

static void write_common(struct virtio_pci *pci, uint64_t offset, unsigned size, uint32_t value)
{
    switch (offset << 4 | size) {
    case VIRTIO_PCI_COMMON_DFSELECT << 4 | 4:
        pci->device_feature_select = value;
        break;
    case VIRTIO_PCI_COMMON_GFSELECT << 4 | 4:
        pci->driver_feature_select = value;
        break;
    case VIRTIO_PCI_COMMON_GF << 4 | 4:
        write_driver_features(pci, value);
        break;
    case VIRTIO_PCI_COMMON_MSIX << 4 | 2:
        pci->config_vector = as_vector(pci, value);
        break;
    case VIRTIO_PCI_COMMON_STATUS << 4 | 1:
        write_status(pci, (uint8_t)value);
        break;
    case VIRTIO_PCI_COMMON_Q_SELECT << 4 | 2:
        pci->queue_select = (uint16_t)value;
        break;
    default:
        write_queue(pci, offset, size, value);
        break;
    }
}

/* ---- BAR0 ---- */

/* Copies what [offset, offset + size) and a structure of `length` bytes at `base` share. */
static void overlay(uint64_t offset, void *data, size_t size, uint64_t base, const void *structure,
                    size_t length)
{
    uint64_t first = offset > base ? offset : base;
    uint64_t end = offset + size < base + length ? offset + size : base + length;

    if (first < end) {
        memcpy((uint8_t *)data + (first - offset), (const uint8_t *)structure + (first - base),
               (size_t)(end - first));
    }
}

/* The part of the device's configuration that [*offset, *offset + *size) has. */
static bool device_part(const struct virtio_pci *pci, uint64_t *offset, size_t *size, size_t *skip)
{
    uint64_t first = *offset > DEVICE ? *offset : DEVICE;
    uint64_t end = *offset + *size;

    if (end > DEVICE + pci->device.config_size) {
        end = DEVICE + pci->device.config_size;
    }
    if (first >= end) {
        return false;
    }
    *skip = (size_t)(first - *offset);
    *offset = first - DEVICE;
    *size = (size_t)(end - first);
    return true;
}

static void bar_read(void *opaque, unsigned bar, uint64_t offset, void *data, size_t size)
{
    struct virtio_pci *pci = opaque;
    struct virtio_pci_common_cfg common;
    size_t part = size, skip;
    uint64_t place = offset;

    memset(data, 0, size);
    if (bar != 0) {
        return;
    }
    fill_common(pci, &common);
    overlay(offset, data, size, COMMON, &common, COMMON_SIZE);
    if (offset <= ISR && size > ISR - offset) {
        ((uint8_t *)data)[ISR - offset] = take_isr(pci);
    }
    if (device_part(pci, &place, &part, &skip)) {
        pci->device.ops->config_read(pci->device.opaque, (uint32_t)place, (uint8_t *)data + skip,
                                     (uint32_t)part);
    }
}

static void bar_write(void *opaque, unsigned bar, uint64_t offset, const void *data, size_t size)
{
    struct virtio_pci *pci = opaque;
    size_t part = size, skip;
    uint64_t place = offset, value = 0;

    if (bar != 0 || pci->resetting) {
        return;
    }
    if (device_part(pci, &place, &part, &skip)) {
        if (pci->device.ops->config_write(pci->device.opaque, (uint32_t)place,
                                          (const uint8_t *)data + skip, (uint32_t)part)) {
            pci->generation++;
        }
        return;
    }
    if (size > sizeof(value)) {
        return;
    }
    memcpy(&value, data, size);
    value = le64toh(value);
    if (offset >= NOTIFY && (offset - NOTIFY) / NOTIFY_STRIDE < pci->device.queues) {
        notified(pci, (unsigned)((offset - NOTIFY) / NOTIFY_STRIDE));
    } else if (offset < COMMON + COMMON_SIZE && size == 8 && offset % 8 == 0) {
        write_common(pci, offset, 4, (uint32_t)value);
        write_common(pci, offset + 4, 4, (uint32_t)(value >> 32));
    } else if (offset < COMMON + COMMON_SIZE) {
        write_common(pci, offset, (unsigned)size, (uint32_t)value);
    }
}

/* ---- configuration space ---- */

static uint32_t config_word(const struct virtio_pci *pci, int offset)
{
    uint32_t word;

    pci_config_read(&pci->function.config, (uint64_t)offset, &word, sizeof(word));
    return le32toh(word);
}

/* Where the capability for access by configuration space points: at 1, 2 or 4 bytes of BAR0. */
static bool cfg_target(const struct virtio_pci *pci, uint64_t *offset, size_t *size)
{
    uint32_t bar = config_word(pci, pci->cfg + VIRTIO_PCI_CAP_BAR) & 0xff;

    *offset = config_word(pci, pci->cfg + VIRTIO_PCI_CAP_OFFSET);
    *size = config_word(pci, pci->cfg + VIRTIO_PCI_CAP_LENGTH);
    return bar == 0 && (*size == 1 || *size == 2 || *size == 4) && *offset % *size == 0 &&
           *offset <= BAR_SIZE - *size;
}

/* Whether an access to configuration space touches that capability's data. */
static bool is_cfg_data(const struct virtio_pci *pci, uint64_t offset, size_t size)
{
    uint64_t first = (uint64_t)pci->cfg + sizeof(struct virtio_pci_cap);

    return offset < first + 4 && (offset >= first || size > first - offset);
}

static void config_reading(void *opaque, uint64_t offset, size_t size)
{
    struct virtio_pci *pci = opaque;
    uint8_t *data = pci->function.config.value + pci->cfg + sizeof(struct virtio_pci_cap);
    uint64_t place;
    size_t count;

    if (is_cfg_data(pci, offset, size) && cfg_target(pci, &place, &count)) {
        bar_read(pci, 0, place, data, count);
    }
}

static void config_written(void *opaque, uint64_t offset, size_t size)
{
    struct virtio_pci *pci = opaque;
    const uint8_t *data = pci->function.config.value + pci->cfg + sizeof(struct virtio_pci_cap);
    uint64_t place;
    size_t count;

    update_line(pci);
    if (is_cfg_data(pci, offset, size) && cfg_target(pci, &place, &count)) {
        bar_write(pci, 0, place, data, count);
    }
    /* What the driver notified of while bus mastering was off has to wait no longer. */
    if (offset < PCI_COMMAND + 2) {
        run_or_halt(pci);
    }
}

static void power_on(void *opaque)
{
    struct virtio_pci *pci = opaque;

    forget_driver(pci);
    pci->generation = 0;
    pci->device.ops->power_on(pci->device.opaque);
}

static bool powering_on(void *opaque)
{
    const struct virtio_pci *pci = opaque;

    return pci->device.ops->powering_on && pci->device.ops->powering_on(pci->device.opaque);
}

static const struct pci_function_ops ops = {
    .bar_read = bar_read,
    .bar_write = bar_write,
    .config_reading = config_reading,
    .config_written = config_written,
    .reset = power_on,
    .resetting = powering_on,
};

/* A capability that says where a structure is. `more` bytes follow what all have. */
static int add_capability(struct pci_config *config, uint8_t type, uint32_t offset, uint32_t length,
                          unsigned more)
{
    unsigned size = (unsigned)sizeof(struct virtio_pci_cap) + more;
    int at = pci_config_add_capability(config, PCI_CAP_ID_VNDR, size);

    if (at > 0) {
        unsigned place = (unsigned)at;

        pci_config_hardwire(config, place, 0xffff0000, (uint32_t)type << 24 | size << 16);
        pci_config_hardwire(config, place + VIRTIO_PCI_CAP_OFFSET, UINT32_MAX, offset);
        pci_config_hardwire(config, place + VIRTIO_PCI_CAP_LENGTH, UINT32_MAX, length);
    }
    return at;
}

/* All of it fits: 0x40 and 100 bytes. */
static void build_config(struct virtio_pci *pci)
{
    struct pci_config *config = &pci->function.config;
    const struct pci_ids ids = {
        .vendor = VIRTIO_VENDOR,
        .device = VIRTIO_MODERN_DEVICE + pci->device.id,
        .subsystem_vendor = VIRTIO_VENDOR,
        .subsystem = 0x1100,
        .revision = 1,
        .interrupt_pin = 1,
        .class_code = pci->device.class_code,
    };
    unsigned cfg;
    int notify;

    pci_config_init(config, &ids);
    pci_config_add_bar(config, 0, BAR_SIZE, PCI_BAR_MEMORY32, false);
    pci_config_add_bar(config, MSIX_BAR, MSIX_BAR_SIZE, PCI_BAR_MEMORY32, false);
    add_capability(config, VIRTIO_PCI_CAP_COMMON_CFG, COMMON, COMMON_SIZE, 0);
    add_capability(config, VIRTIO_PCI_CAP_ISR_CFG, ISR, 1, 0);
    if (pci->device.config_size > 0) {
        add_capability(config, VIRTIO_PCI_CAP_DEVICE_CFG, DEVICE, pci->device.config_size, 0);
    }
    notify = add_capability(config, VIRTIO_PCI_CAP_NOTIFY_CFG, NOTIFY,
                            NOTIFY_STRIDE * pci->device.queues, 4);
    pci_config_hardwire(config, (unsigned)notify + VIRTIO_PCI_NOTIFY_CAP_MULT, UINT32_MAX,
                        NOTIFY_STRIDE);
    pci->cfg = add_capability(config, VIRTIO_PCI_CAP_PCI_CFG, 0, 0, 4);
    cfg = (unsigned)pci->cfg;
    pci_config_allow(config, cfg + VIRTIO_PCI_CAP_BAR, 0xff);
    pci_config_allow(config, cfg + VIRTIO_PCI_CAP_OFFSET, UINT32_MAX);
    pci_config_allow(config, cfg + VIRTIO_PCI_CAP_LENGTH, UINT32_MAX);
    pci_config_allow(config, cfg + (unsigned)sizeof(struct virtio_pci_cap), UINT32_MAX);
    pci_config_add_msix(config, vectors(pci), MSIX_BAR, MSIX_TABLE, MSIX_PENDING);
}

void virtio_pci_init(struct virtio_pci *pci, const char *name, const struct virtio_device *device,
                     struct viommu_memory *memory)
{
    memset(pci, 0, sizeof(*pci));
    pci->device = *device;
    pci->function = (struct pci_function){.name = name, .ops = &ops, .opaque = pci};
    for (unsigned i = 0; i < device->queues; i++) {
        pci->queues[i].ring.memory = memory;
    }
    build_config(pci);
    forget_driver(pci);
}

/* ---- state for another process ---- */

static void save_ring(const struct virtio_ring *ring, struct save_writer *writer)
{
    save_put16(writer, ring->size);
    save_put8(writer, ring->enabled);
    save_put64(writer, ring->descriptors);
    save_put64(writer, ring->available);
    save_put64(writer, ring->used);
    save_put16(writer, ring->next);
    save_put16(writer, ring->returned);
    save_put16(writer, ring->told);
}

void virtio_pci_save(const struct virtio_pci *pci, struct save_writer *writer)
{
    pci_config_save(&pci->function.config, writer);
    save_put32(writer, pci->device_feature_select);
    save_put32(writer, pci->driver_feature_select);
    save_put64(writer, pci->driver_features);
    save_put16(writer, pci->config_vector);
    save_put16(writer, pci->queue_select);
    save_put8(writer, pci->status);
    save_put8(writer, pci->generation);
    save_put8(writer, pci->isr);
    save_put8(writer, pci->resetting);
    save_put32(writer, pci->device.queues);
    for (unsigned i = 0; i < pci->device.queues; i++) {
        save_put16(writer, pci->queues[i].vector);
        save_ring(&pci->queues[i].ring, writer);
    }
}

static bool get_bool(struct save_section *section)
{
    uint8_t value = save_get8(section);

    if (value > 1) {
        save_spoil(section);
    }
    return value;
}

static uint16_t get_vector(const struct virtio_pci *pci, struct save_section *section)
{
    uint16_t vector = save_get16(section);

    if (vector != as_vector(pci, vector)) {
        save_spoil(section);
    }
    return vector;
}

static void load_queue(struct virtio_pci *pci, struct virtio_queue *queue,
                       struct save_section *section)
{
    struct virtio_ring *ring = &queue->ring;

    queue->vector = get_vector(pci, section);
    ring->size = save_get16(section);
    ring->enabled = get_bool(section);
    ring->descriptors = save_get64(section);
    ring->available = save_get64(section);
    ring->used = save_get64(section);
    ring->next = save_get16(section);
    ring->returned = save_get16(section);
    ring->told = save_get16(section);
    if (!is_queue_size(pci, ring->size) || (ring->enabled && !virtio_ring_is_sound(ring))) {
        save_spoil(section);
    }
}

/* Whether status and features are what a driver can bring about. */
static bool is_status(const struct virtio_pci *pci)
{
    uint8_t status = pci->status;
    bool settled = status & VIRTIO_CONFIG_S_FEATURES_OK;

    return !(status & ~(STATUS_DRIVERS | VIRTIO_CONFIG_S_NEEDS_RESET)) &&
           (settled || !(status & VIRTIO_CONFIG_S_DRIVER_OK)) && (status || !pci->resetting) &&
           (!settled || (!(pci->driver_features & ~offered(pci)) &&
                         !(needed(pci) & ~pci->driver_features)));
}

int virtio_pci_load(struct virtio_pci *pci, struct save_section *section)
{
    pci_config_load(&pci->function.config, section);
    pci->device_feature_select = save_get32(section);
    pci->driver_feature_select = save_get32(section);
    pci->driver_features = save_get64(section);
    pci->config_vector = get_vector(pci, section);
    pci->queue_select = save_get16(section);
    pci->status = save_get8(section);
    pci->generation = save_get8(section);
    pci->isr = save_get8(section);
    pci->resetting = get_bool(section);
    if (pci->isr & ~(ISR_QUEUE | ISR_CONFIG) || !is_status(pci) ||
        save_get32(section) != pci->device.queues) {
        save_spoil(section);
    }
    for (unsigned i = 0; i < pci->device.queues; i++) {
        load_queue(pci, &pci->queues[i], section);
    }
    if (section->error) {
        forget_driver(pci); /* so that nobody goes on with half of it */
    } else if (pci->status & VIRTIO_CONFIG_S_FEATURES_OK) {
        set_ring_features(pci);
    }
    return section->error;
}
