/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The edu device; edu.h lists its registers.
 */
#include "edu.h"

#include <string.h>

#include "save/stream.h"

static uint32_t factorial(uint32_t n)
{
    uint32_t product = 1;

    /* 34! and all larger ones are multiples of 2^32. */
    if (n >= 34) {
        return 0;
    }
    for (uint32_t i = 2; i <= n; i++) {
        product *= i;
    }
    return product;
}

static void update_line(struct edu *edu)
{
    bool msi = pci_config_msi_enabled(&edu->function.config);

    pci_function_line_interrupt(&edu->function, edu->interrupt_status != 0 && !msi);
}

static void raise_interrupt(struct edu *edu, uint32_t bits)
{
    edu->interrupt_status |= bits;
    update_line(edu);
    if (edu->interrupt_status != 0 && pci_config_msi_enabled(&edu->function.config)) {
        pci_function_message_interrupt(&edu->function, 0);
    }
}

static void acknowledge_interrupt(struct edu *edu, uint32_t bits)
{
    edu->interrupt_status &= ~bits;
    update_line(edu);
}

/* Does [address, address + count) lie inside the buffer? Gives its place there. */
static bool inside_buffer(uint64_t address, uint64_t count, size_t *place)
{
    if (address < EDU_BUFFER || address - EDU_BUFFER > EDU_BUFFER_SIZE ||
        count > EDU_BUFFER_SIZE - (address - EDU_BUFFER)) {
        return false;
    }
    *place = (size_t)(address - EDU_BUFFER);
    return true;
}

static bool transfer(struct edu *edu)
{
    bool to_memory = edu->dma_command & EDU_DMA_TO_MEMORY;
    uint8_t data[EDU_BUFFER_SIZE];
    size_t place, count;

    if (!pci_config_bus_master(&edu->function.config) ||
        !inside_buffer(to_memory ? edu->dma_source : edu->dma_destination, edu->dma_count,
                       &place)) {
        return false;
    }
    count = (size_t)edu->dma_count;
    if (to_memory) {
        return edu->dma.write(edu->dma.opaque, edu->dma_destination, edu->buffer + place, count) ==
               0;
    }
    if (edu->dma.read(edu->dma.opaque, edu->dma_source, data, count) != 0) {
        return false;
    }
    memcpy(edu->buffer + place, data, count);
    return true;
}

static void run_dma(struct edu *edu)
{
    if (!(edu->dma_command & EDU_DMA_START)) {
        return;
    }
    if (transfer(edu)) {
        edu->transfers++;
    } else {
        edu->refusals++;
    }
    edu->dma_command &= ~(uint64_t)EDU_DMA_START;
    if (edu->dma_command & EDU_DMA_INTERRUPT) {
        raise_interrupt(edu, EDU_INTERRUPT_DMA);
    }
}

/* The 64-bit register that covers an offset, or NULL. */
static uint64_t *dma_register(struct edu *edu, uint64_t offset)
{
    switch (offset & ~UINT64_C(7)) {
    case EDU_REG_DMA_SOURCE:
        return &edu->dma_source;
    case EDU_REG_DMA_DESTINATION:
        return &edu->dma_destination;
    case EDU_REG_DMA_COUNT:
        return &edu->dma_count;
    case EDU_REG_DMA_COMMAND:
        return &edu->dma_command;
    default:
        return NULL;
    }
}

static uint32_t read32(const struct edu *edu, uint64_t offset)
{
    switch (offset) {
    case EDU_REG_IDENTIFICATION:
        return EDU_IDENTIFICATION;
    case EDU_REG_LIVENESS:
        return edu->liveness;
    case EDU_REG_FACTORIAL:
        return edu->factorial;
    case EDU_REG_STATUS:
        return edu->status;
    case EDU_REG_INTERRUPT_STATUS:
        return edu->interrupt_status;
    default:
        return UINT32_MAX;
    }
}

static void write32(struct edu *edu, uint64_t offset, uint32_t value)
{
    switch (offset) {
    case EDU_REG_LIVENESS:
        edu->liveness = ~value;
        break;
    case EDU_REG_FACTORIAL:
        edu->factorial = factorial(value);
        if (edu->status & EDU_STATUS_INTERRUPT) {
            raise_interrupt(edu, EDU_INTERRUPT_FACTORIAL);
        }
        break;
    case EDU_REG_STATUS:
        edu->status = value & EDU_STATUS_INTERRUPT;
        break;
    case EDU_REG_INTERRUPT_RAISE:
        raise_interrupt(edu, value);
        break;
    case EDU_REG_INTERRUPT_ACK:
        acknowledge_interrupt(edu, value);
        break;
    default:
        break;
    }
}

static bool is_dma_access(uint64_t offset, size_t size)
{
    return offset >= EDU_REG_DMA_SOURCE && (size == 4 || size == 8) && offset % size == 0;
}

static void bar_read(void *opaque, unsigned bar, uint64_t offset, void *data, size_t size)
{
    struct edu *edu = opaque;

    (void)bar;
    memset(data, 0xff, size);
    if (offset < EDU_REG_DMA_SOURCE && size == 4) {
        uint32_t value = read32(edu, offset);

        memcpy(data, &value, sizeof(value));
    } else if (is_dma_access(offset, size)) {
        const uint64_t *reg = dma_register(edu, offset);
        uint64_t value = reg ? *reg >> (8 * (offset & 4)) : UINT64_MAX;

        memcpy(data, &value, size);
    }
}

static void bar_write(void *opaque, unsigned bar, uint64_t offset, const void *data, size_t size)
{
    struct edu *edu = opaque;

    (void)bar;
    if (offset < EDU_REG_DMA_SOURCE && size == 4) {
        uint32_t value;

        memcpy(&value, data, sizeof(value));
        write32(edu, offset, value);
    } else if (is_dma_access(offset, size)) {
        uint64_t *reg = dma_register(edu, offset);

        if (reg) {
            /* A 4-byte access writes one half and leaves the other. */
            memcpy((uint8_t *)reg + (offset & 7), data, size);
            if (reg == &edu->dma_command && (offset & 7) == 0) {
                run_dma(edu);
            }
        }
    }
}

/* A driver that changes how interrupts are delivered may find one waiting. */
static void config_written(void *opaque, uint64_t offset, size_t size)
{
    (void)offset;
    (void)size;
    update_line(opaque);
}

static void reset(void *opaque)
{
    struct edu *edu = opaque;

    edu->liveness = 0;
    edu->factorial = 0;
    edu->status = 0;
    edu->interrupt_status = 0;
    edu->dma_source = edu->dma_destination = edu->dma_count = edu->dma_command = 0;
    memset(edu->buffer, 0, sizeof(edu->buffer));
    update_line(edu);
    if (edu->dma.reset) {
        edu->dma.reset(edu->dma.opaque);
    }
}

static const struct pci_function_ops ops = {
    .bar_read = bar_read,
    .bar_write = bar_write,
    .config_written = config_written,
    .reset = reset,
};

void edu_init(struct edu *edu, const char *name, const struct device_dma *dma)
{
    static const struct pci_ids ids = {
        .vendor = 0x1234,
        .device = 0x11e8,
        .subsystem_vendor = 0x1af4,
        .subsystem = 0x1100,
        .revision = 0x10,
        .interrupt_pin = 1,
        .class_code = 0x00ff00,
    };

    memset(edu, 0, sizeof(*edu));
    edu->dma = *dma;
    edu->function = (struct pci_function){.name = name, .ops = &ops, .opaque = edu};
    pci_config_init(&edu->function.config, &ids);
    pci_config_add_bar(&edu->function.config, 0, EDU_BAR_SIZE, PCI_BAR_MEMORY32, false);
    pci_config_add_msi(&edu->function.config, 0);
}

void edu_save(const struct edu *edu, struct save_writer *writer)
{
    pci_config_save(&edu->function.config, writer);
    save_put32(writer, edu->liveness);
    save_put32(writer, edu->factorial);
    save_put32(writer, edu->status);
    save_put32(writer, edu->interrupt_status);
    save_put64(writer, edu->dma_source);
    save_put64(writer, edu->dma_destination);
    save_put64(writer, edu->dma_count);
    save_put64(writer, edu->dma_command);
    save_put_bytes(writer, edu->buffer, sizeof(edu->buffer));
}

int edu_load(struct edu *edu, struct save_section *section)
{
    const void *buffer;

    pci_config_load(&edu->function.config, section);
    edu->liveness = save_get32(section);
    edu->factorial = save_get32(section);
    edu->status = save_get32(section);
    edu->interrupt_status = save_get32(section);
    edu->dma_source = save_get64(section);
    edu->dma_destination = save_get64(section);
    edu->dma_count = save_get64(section);
    edu->dma_command = save_get64(section);
    buffer = save_get_bytes(section, sizeof(edu->buffer));
    if (buffer) {
        memcpy(edu->buffer, buffer, sizeof(edu->buffer));
    }
    /* No transfer is ever seen under way. */
    if (edu->status & ~EDU_STATUS_INTERRUPT || edu->dma_command & EDU_DMA_START) {
        save_spoil(section);
    }
    return section->error;
}
