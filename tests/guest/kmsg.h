/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * kmsg.h - the guest kernel's own log, and the DMA faults it tells of.
 *
 * Vocabulary.  "Fault": one line of the VT-d driver, such as
 *   DMAR: [DMA Write NO_PASID] Request device [00:05.0] fault addr 0x8000 [fault reason 0x05] ...
 * "Stray": a fault that no check asked for.
 *
 * The driver's own rate limit lets three faults into the log in five seconds; of others only the
 * fault interrupt can be counted.  So a check says before its DMA that it will be refused, and
 * afterwards waits for the line, or for the interrupt.  One thread only.
 */
#ifndef VIOMMU_GUEST_KMSG_H
#define VIOMMU_GUEST_KMSG_H

#include <stdbool.h>
#include <stdint.h>

struct kmsg_fault {
    bool write;
    unsigned source;    /* requester id: bus << 8 | device << 3 | function */
    uint64_t addr;      /* page address */
    uint64_t ignored;   /* in what is expected: address bits that do not matter */
    unsigned reason;
};

/* The architecture's reasons that these tests provoke. */
enum {
    FAULT_REASON_WRITE = 0x05,  /* no write permission, or nothing mapped */
    FAULT_REASON_READ = 0x06,   /* no read permission, or nothing mapped */
};

/* What kmsg_before_fault() found. */
struct kmsg_wait {
    bool line;                  /* the log will show it */
    unsigned long interrupts;   /* how many fault interrupts there were */
};

/* Open the log and read what the kernel said so far.  `all`: see kmsg_before_fault(). */
int kmsg_open(bool all);

/* Does a line so far contain this text?  Returns the line, or NULL. */
const char *kmsg_find(const char *text);

/* Print all lines so far that contain the text, as notes. */
void kmsg_show(const char *text);

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
