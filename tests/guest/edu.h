/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * edu.h - drive the "edu" PCI device (1234:11e8) from user space through VFIO.
 *
 * It holds a buffer of 4096 bytes and copies between that and memory by DMA; the buffer cannot be
 * seen in any other way.  Functions return 0 or a negative errno.  One thread only.
 */
#ifndef VIOMMU_GUEST_EDU_H
#define VIOMMU_GUEST_EDU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    EDU_ID = 0x00,              /* reads 0x010000ed */
    EDU_LIVENESS = 0x04,        /* reads back inverted */
    EDU_IRQ_STATUS = 0x24,
    EDU_IRQ_RAISE = 0x60,
    EDU_IRQ_ACK = 0x64,
    EDU_BUFFER_SIZE = 4096,
    EDU_DMA_IRQ = 0x100,        /* status bit of the interrupt at the end of a DMA */
};

struct edu {
    char bdf[16];               /* "0000:00:05.0" */
    unsigned source;            /* requester id */
    unsigned group;             /* number of its IOMMU group */
    int fd;                     /* VFIO device, or -1 */
    uint64_t config;            /* where configuration space is in fd */
    volatile uint8_t *bar;      /* BAR 0, or NULL */
    size_t bar_size;
};

/* Find the edu devices on the PCI buses; returns how many (at most max). */
unsigned edu_find(struct edu *list, unsigned max);

/* Open the device out of its group, map BAR 0, enable memory and bus master. */
int edu_open(struct edu *edu, int group_fd);
/* The same with a VFIO device that is open already; it is closed with the edu, or on failure. */
int edu_use(struct edu *edu, int fd);
void edu_close(struct edu *edu);

int edu_bus_master(struct edu *edu, bool on);

uint32_t edu_read(struct edu *edu, unsigned reg);
void edu_write(struct edu *edu, unsigned reg, uint32_t value);

/*
 * Copy between memory at an IOVA and the device's buffer, and wait for the end.  Whether the DMA
 * was refused cannot be seen here: the device ends the same way.
 */
int edu_to_ram(struct edu *edu, uint64_t iova, unsigned offset, unsigned count);
int edu_from_ram(struct edu *edu, uint64_t iova, unsigned offset, unsigned count);

/* The same, toward RAM, with an interrupt at the end. */
int edu_to_ram_irq(struct edu *edu, uint64_t iova, unsigned offset, unsigned count);

#endif
