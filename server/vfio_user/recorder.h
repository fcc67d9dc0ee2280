/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A PCI function that remembers what it was asked. Only for unit tests.
 */
#ifndef VIOMMU_SERVER_VFIO_USER_RECORDER_H
#define VIOMMU_SERVER_VFIO_USER_RECORDER_H

#include "../pci_function.h"
#include "vfio_user/protocol.h"

enum {
    RECORDER_BAR0_SIZE = 0x1000,
    RECORDER_BAR2_SIZE = 2 * VFIO_USER_MAX_DATA,
    RECORDER_VECTORS = 16,
    RECORDER_MSIX_VECTORS = 40,
};

struct recorder {
    struct pci_function function;
    uint8_t bar0[RECORDER_BAR0_SIZE];
    unsigned resets, maps, unmaps, config_writes;
    struct pci_dma_region region; /* last mapped */
    bool with_fd;
    int map_error;
    bool unmapping; /* what it says of memory that was unmapped */
    bool resetting; /* and of its resets */
    uint64_t unmapped_first, unmapped_last;
    void *unmapped_cookie;
};

/* BAR0 is memory; BAR2, large, reads 0x22; INTx, MSI with RECORDER_VECTORS messages,
 * and MSI-X with RECORDER_MSIX_VECTORS, its table in BAR2. */
void recorder_init(struct recorder *recorder);

#endif
