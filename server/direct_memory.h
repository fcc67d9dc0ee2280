/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Client memory for a device without a unit: its DMA addresses are guest-physical, and reach what
 * its own connection has mapped.
 *
 * Structure: the regions that are mapped, a sorted array; those that were unmapped while pinned, a
 * list; and the pins, a list. A pin counts in each region that it touches. A region that is
 * unmapped is not found any more, its pins are revoked, and its mapping goes with the last of them.
 *
 * A device that keeps a revoked pin for longer than DIRECT_MEMORY_PATIENCE_MS is denied: all its
 * DMA is refused until it is reset. That is looked at when it asks for something.
 *
 * A region that came without a file is reached by messages: the bus asks the client
 * (pci_function.h), and all that one call asks is answered within DIRECT_MEMORY_ANSWER_MS, or the
 * client is given up; the server does nothing else meanwhile. What is pinned there is memory of our
 * own, of a bounded size: filled when the device is to read it, and written back by commit. Nobody
 * has to wait for such a pin: once its region is unmapped it leads nowhere, and commit fails.
 *
 * Locking: none, one thread.
 */
#ifndef VIOMMU_SERVER_DIRECT_MEMORY_H
#define VIOMMU_SERVER_DIRECT_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "device_dma.h"
#include "pci_function.h"

enum {
    DIRECT_MEMORY_PATIENCE_MS = 500,
    DIRECT_MEMORY_ANSWER_MS = 1000,
    DIRECT_MEMORY_BOUNCE_MAX = 128 << 20, /* bytes, of all pins together */
};

struct direct_region;

struct direct_memory {
    struct direct_region **regions;
    size_t count;
    size_t room;
    struct direct_region *leaving; /* unmapped, and still pinned */
    struct device_dma_pin *pins;
    struct pci_function *function; /* whose bus asks the client; NULL: nobody can */
    size_t bounced;                /* bytes of our own that are pinned */
    bool denied;
    uint64_t pinned;  /* pins made, in all */
    uint64_t revoked; /* of them, wanted back before they were unpinned */
};

/* Returns 0 or a negative errno. */
int direct_memory_init(struct direct_memory *memory);

/* Let the function tell it of its client's memory. */
void direct_memory_attach(struct direct_memory *memory, struct pci_function *function);

/* Nothing is mapped, and nothing pinned, any more. */
void direct_memory_fini(struct direct_memory *memory);

struct save_section;
struct save_writer;

/* What is not told by those who map and pin, for another process. Loading returns 0 or -EBADMSG. */
void direct_memory_save(const struct direct_memory *memory, struct save_writer *writer);
int direct_memory_load(struct direct_memory *memory, struct save_section *section);

/* For a function's memory and a device's DMA: opaque is the struct direct_memory. */
extern const struct pci_memory_ops direct_memory_ops;
extern const struct device_dma direct_memory_dma;

#endif
