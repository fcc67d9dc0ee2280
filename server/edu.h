/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The edu device, 1234:11e8: a small PCI function for driver writers, after its published
 * description, but with full 64-bit DMA addresses.
 *
 * BAR0, 1 MiB. Below 0x80 registers take 4-byte accesses, from 0x80 on 4 or 8 bytes; any other
 * access reads as all ones and writes nothing.
 *
 *   0x00 identification       0x04 liveness: reads back inverted    0x08 factorial: n in, n! out
 *   0x20 status               0x24 interrupt status                 0x60 raise    0x64 acknowledge
 *   0x80 DMA source           0x88 DMA destination                  0x90 DMA count
 *   0x98 DMA command: 1 start, 2 from the buffer to memory, 4 interrupt (0x100) when done
 *
 * Its buffer of 4 KiB is at 0x40000, for DMA only. Work is done inside the register write that
 * starts it, so the busy bits are never seen set. A transfer that leaves the buffer is not begun;
 * one that is refused leaves the buffer as it was. Both end with their interrupt, like good ones.
 */
#ifndef VIOMMU_SERVER_EDU_H
#define VIOMMU_SERVER_EDU_H

#include <stddef.h>
#include <stdint.h>

#include "device_dma.h"
#include "pci_function.h"

enum {
    EDU_BAR_SIZE = 0x100000,
    EDU_BUFFER = 0x40000,
    EDU_BUFFER_SIZE = 4096,
    EDU_IDENTIFICATION = 0x010000ed,
};

enum edu_register {
    EDU_REG_IDENTIFICATION = 0x00,
    EDU_REG_LIVENESS = 0x04,
    EDU_REG_FACTORIAL = 0x08,
    EDU_REG_STATUS = 0x20,
    EDU_REG_INTERRUPT_STATUS = 0x24,
    EDU_REG_INTERRUPT_RAISE = 0x60,
    EDU_REG_INTERRUPT_ACK = 0x64,
    EDU_REG_DMA_SOURCE = 0x80,
    EDU_REG_DMA_DESTINATION = 0x88,
    EDU_REG_DMA_COUNT = 0x90,
    EDU_REG_DMA_COMMAND = 0x98,
};

#define EDU_STATUS_INTERRUPT    0x80u
#define EDU_DMA_START           1u
#define EDU_DMA_TO_MEMORY       2u
#define EDU_DMA_INTERRUPT       4u
#define EDU_INTERRUPT_FACTORIAL 0x001u
#define EDU_INTERRUPT_DMA       0x100u

struct edu {
    struct pci_function function;
    struct device_dma dma;
    uint32_t liveness;
    uint32_t factorial;
    uint32_t status;
    uint32_t interrupt_status;
    uint64_t dma_source;
    uint64_t dma_destination;
    uint64_t dma_count;
    uint64_t dma_command;
    uint8_t buffer[EDU_BUFFER_SIZE];
    uint64_t transfers; /* done */
    uint64_t refusals;  /* stopped by an error or by bus master being off */
};

struct save_section;
struct save_writer;

/* State for another process: registers, buffer, configuration space. Loading returns 0 or
 * -EBADMSG. */
void edu_save(const struct edu *edu, struct save_writer *writer);
int edu_load(struct edu *edu, struct save_section *section);

/* name stays the caller's and must outlive the device. */
void edu_init(struct edu *edu, const char *name, const struct device_dma *dma);

#endif
