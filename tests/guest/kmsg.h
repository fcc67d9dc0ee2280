/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * kmsg.h - the guest kernel's own log, and the DMA faults it tells of.
 *
 * Vocabulary.  "Fault": one line of the driver, of VT-d or of virtio-iommu, such as
 *   DMAR: [DMA Write NO_PASID] Request device [00:05.0] fault addr 0x8000 [fault reason 0x05] ...
 *   virtio_iommu virtio0: page fault from EP 40 at 0x8000 [W]
 * "Stray": a fault that no check asked for.
 *
 * The driver's own rate limit lets three faults into the log in five seconds, or ten
 * (virtio-iommu); of others only the fault interrupt can be counted.  So a check says before its
 * DMA that it will be refused, and afterwards waits for the line, or for the interrupt.  One thread
 * only.
 */
#ifndef VIOMMU_GUEST_KMSG_H
#define VIOMMU_GUEST_KMSG_H

#include <stdbool.h>
#include <stdint.h>

struct kmsg_fault {
    bool write;
    bool undirected;    /* it is not told whether it was a write, nor the reason */
    unsigned source;    /* requester id: bus << 8 | device << 3 | function */
    uint64_t addr;      /* page address */
    uint64_t ignored;   /* in what is expected: address bits that do not matter */
    unsigned reason;
};

/* VT-d's reasons that these tests provoke. A virtio-iommu tells of all but the last as "page". */
enum {
    FAULT_REASON_WIDTH = 0x04,  /* address beyond the domain's width */
    FAULT_REASON_WRITE = 0x05,  /* no write permission, or nothing mapped */
    FAULT_REASON_READ = 0x06,   /* no read permission, or nothing mapped */
    FAULT_REASON_OTHER = 0x100, /* a virtio-iommu's: "domain" or "unknown" */
};

/* What kmsg_before_fault() found. */
struct kmsg_wait {
    bool line;                  /* the log will show it */
    unsigned long interrupts;   /* how many fault interrupts there were */
};

/*
 * Open the log and read what the kernel said so far.  `all`: see kmsg_before_fault();
 * `virtio_iommu`: the driver is that of a virtio-iommu.
 */
int kmsg_open(bool all, bool virtio_iommu);

/* The reason that the driver tells for a write beyond the address width. */
unsigned kmsg_reason_width(void);

/* Does a line so far contain this text?  Returns the line, or NULL. */
const char *kmsg_find(const char *text);

/* Print all lines so far that contain the text, as notes. */
void kmsg_show(const char *text);

/* Print the first line that contains the text, and those around it, for a failure. */
void kmsg_show_around(const char *text);

/* Print the last lines of the log, for a failure. */
void kmsg_show_last(unsigned lines);

/*
 * A DMA comes that will be refused.  When kmsg_open() was told `all` this waits until the driver
 * will print again.
 */
void kmsg_before_fault(struct kmsg_wait *wait);

/* The DMA was refused: wait for the line, or the interrupt. */
bool kmsg_wait_fault(const struct kmsg_wait *wait, const struct kmsg_fault *expected);

/*
 * Many DMAs come that will all be refused as `expected` says: most of their lines will be missing.
 * Afterwards: was there a fault interrupt?
 */
void kmsg_before_storm(struct kmsg_wait *wait);
bool kmsg_after_storm(const struct kmsg_wait *wait, const struct kmsg_fault *expected);

/* In words: how the guest is told. */
const char *kmsg_told(const struct kmsg_wait *wait);

/* How many faults appeared that no check waited for; each is printed as a note. */
unsigned kmsg_strays(void);

#endif
