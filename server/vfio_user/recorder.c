/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The recording function; see recorder.h.
 */
#include "recorder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void recorder_read(void *opaque, unsigned bar, uint64_t offset, void *data, size_t size)
{
    struct recorder *r = opaque;

    if (bar == 0) {
        assert_true(offset + size <= RECORDER_BAR0_SIZE);
        memcpy(data, r->bar0 + offset, size);
    } else {
        memset(data, 0x22, size);
    }
}

static void recorder_write(void *opaque, unsigned bar, uint64_t offset, const void *data,
                           size_t size)
{
    struct recorder *r = opaque;

    if (bar == 0) {
        assert_true(offset + size <= RECORDER_BAR0_SIZE);
        memcpy(r->bar0 + offset, data, size);
    }
}

static void recorder_config_written(void *opaque, uint64_t offset, size_t size)
{
    (void)offset;
    (void)size;
    ((struct recorder *)opaque)->config_writes++;
}

static void recorder_reset(void *opaque)
{
    ((struct recorder *)opaque)->resets++;
}

static bool recorder_resetting(void *opaque)
{
    return ((struct recorder *)opaque)->resetting;
}

static int recorder_map(void *opaque, const struct pci_dma_region *region, int fd, void **cookie)
{
    struct recorder *r = opaque;

    r->maps++;
    r->region = *region;
    r->with_fd = fd >= 0;
    *cookie = (void *)(uintptr_t)(region->first + 1);
    return r->map_error;
}

static void recorder_unmap(void *opaque, uint64_t first, uint64_t last, void *cookie)
{
    struct recorder *r = opaque;

    r->unmaps++;
    r->unmapped_first = first;
    r->unmapped_last = last;
    r->unmapped_cookie = cookie;
}

static bool recorder_unmapping(void *opaque)
{
    return ((struct recorder *)opaque)->unmapping;
}

static const struct pci_function_ops recorder_ops = {
    .bar_read = recorder_read,
    .bar_write = recorder_write,
    .config_written = recorder_config_written,
    .reset = recorder_reset,
    .resetting = recorder_resetting,
};

static const struct pci_memory_ops recorder_memory_ops = {
    .map = recorder_map,
    .unmap = recorder_unmap,
    .unmapping = recorder_unmapping,
};

void recorder_init(struct recorder *recorder)
{
    static const struct pci_ids ids = {.vendor = 1, .device = 2, .interrupt_pin = 1};

    memset(recorder, 0, sizeof(*recorder));
    recorder->function =
        (struct pci_function){.name = "recorder", .ops = &recorder_ops, .opaque = recorder};
    recorder->function.memory = &recorder_memory_ops;
    recorder->function.memory_opaque = recorder;
    pci_config_init(&recorder->function.config, &ids);
    pci_config_add_bar(&recorder->function.config, 0, RECORDER_BAR0_SIZE, PCI_BAR_MEMORY32, false);
    pci_config_add_bar(&recorder->function.config, 2, RECORDER_BAR2_SIZE, PCI_BAR_MEMORY64, false);
    pci_config_add_msi(&recorder->function.config, 4);
    pci_config_add_msix(&recorder->function.config, RECORDER_MSIX_VECTORS, 2, 0x1000, 0x2000);
}
