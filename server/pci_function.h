/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A PCI function that can be served: where a device model and whoever serves it meet.
 *
 * Below it stands the device (edu, the VT-d unit), which fills in ops and builds config. Above it
 * stands the server (a vfio-user endpoint, or a test), which calls ops and fills in bus. The device
 * owns the structure. Reads and writes of a BAR are always inside it, of any size and alignment.
 *
 * Every call is made on the server's one thread. A bus call may be made from inside an ops call; it
 * never calls back into the function.
 */
#ifndef VIOMMU_SERVER_PCI_FUNCTION_H
#define VIOMMU_SERVER_PCI_FUNCTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pci_config.h"

/* Memory of the client at [first, last], as it offers it for DMA. */
struct pci_dma_region {
    uint64_t first;
    uint64_t last;
    uint64_t file_offset;
    bool readable;
    bool writable;
};

/*
 * Whoever wants a client's memory: the unit for all devices behind it, or a device without a unit.
 *
 * The server guarantees: regions never overlap, and an unmap follows a map of the same region, with
 * what the map stored in *cookie.
 */
struct pci_memory_ops {
    /* fd is -1 when the client offers messages only; it stays the caller's, who closes it
     * afterwards. Returns 0 or a negative errno. */
    int (*map)(void *opaque, const struct pci_dma_region *region, int fd, void **cookie);
    /* When it returns no new access to the region starts; those under way may go on. */
    void (*unmap)(void *opaque, uint64_t first, uint64_t last, void *cookie);
    /* Is an access to a region that was unmapped still under way? */
    bool (*unmapping)(void *opaque);
};

struct pci_function_ops {
    void (*bar_read)(void *opaque, unsigned bar, uint64_t offset, void *data, size_t size);
    void (*bar_write)(void *opaque, unsigned bar, uint64_t offset, const void *data, size_t size);

    /* Software reads these bytes of configuration space: config may be brought up to date. May be
     * NULL. */
    void (*config_reading)(void *opaque, uint64_t offset, size_t size);
    /* Software wrote these bytes of configuration space; config holds the new values. May be
       NULL. */
    void (*config_written)(void *opaque, uint64_t offset, size_t size);

    /* Back to the state after power-on. config was reset before. Mapped memory stays. */
    void (*reset)(void *opaque);
    /* Is DMA of before the reset still under way? The client is told that the reset is done when it
     * is not. May be NULL. */
    bool (*resetting)(void *opaque);
};

/* What a function may ask of the bus it is on. */
struct pci_bus_ops {
    /* Signal message-signalled interrupt number vector: of MSI-X when that is enabled, else of
       MSI. */
    void (*message_interrupt)(void *opaque, unsigned vector);
    /* Set the level of the INTx line. Idempotent. */
    void (*line_interrupt)(void *opaque, bool level);
    /* A posted 32-bit write to a bus address that is not memory: an interrupt message. Returns 0,
     * or a negative errno when there is nobody to take it. */
    int (*write_message)(void *opaque, uint64_t address, uint32_t data);
    /*
     * Copy from or to memory that the client offered without a file: by asking it, and waiting for
     * its answer up to deadline_ms (of clock_ms()). Return 0; -ENOTSUP when the client cannot be
     * asked; -EFAULT when it refuses, a part may be copied then; or another negative errno, and
     * then it is given up. Only regions that are mapped are asked for.
     */
    int (*read_memory)(void *opaque, uint64_t address, void *data, size_t size,
                       uint64_t deadline_ms);
    int (*write_memory)(void *opaque, uint64_t address, const void *data, size_t size,
                        uint64_t deadline_ms);
};

struct vfio_user_remote_ops;

struct pci_function {
    const char *name; /* for messages to people */
    const struct pci_function_ops *ops;
    void *opaque;
    struct pci_config config;
    const struct pci_memory_ops *memory; /* NULL: nobody wants memory of its client */
    void *memory_opaque;
    unsigned memory_max; /* regions that it takes at one time; 0: as many as the protocol has */
    const struct vfio_user_remote_ops *remote; /* NULL, but for one that is in another process */
    const struct pci_bus_ops *bus; /* NULL while nobody serves the function */
    void *bus_opaque;
};

static inline void pci_function_message_interrupt(struct pci_function *function, unsigned vector)
{
    if (function->bus) {
        function->bus->message_interrupt(function->bus_opaque, vector);
    }
}

/* The function wants its INTx line asserted, or not. The status register shows this even while the
 * command register keeps the line itself down: drivers that share interrupts rely on it. */
static inline void pci_function_line_interrupt(struct pci_function *function, bool wanted)
{
    bool disabled = pci_config_intx_disabled(&function->config);

    pci_config_set_intx_status(&function->config, wanted);
    if (function->bus) {
        function->bus->line_interrupt(function->bus_opaque, wanted && !disabled);
    }
}

#endif
