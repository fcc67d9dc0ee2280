/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The VT-d unit as a PCI function: how a guest behind a vfio-user client reaches its registers.
 *
 * The function owns one unit (unit.h). BAR0 is 16 MiB; its first viommu_vtd_register_size() bytes
 * are the registers, its last 4 KiB read as all ones (see below), all else reads as zero. The
 * function is a host bridge with bus mastering always on: no driver binds to it, so nobody moves
 * its BAR and nobody would enable it to send messages.
 *
 * VTD_ABSENT_IOAPIC: a MADT may name this offset as an IOAPIC's address. An IOAPIC that reads all
 * ones is taken by Linux as absent, which keeps a guest from using the client's own IOAPIC behind
 * our back once interrupts are to be remapped.
 *
 * Threads: the server's one thread.
 */
#ifndef VIOMMU_SERVER_VTD_FUNCTION_H
#define VIOMMU_SERVER_VTD_FUNCTION_H

#include <stdbool.h>
#include <stdint.h>

#include <viommu/vtd.h>

#include "pci_function.h"
#include "unit.h"

enum {
    VTD_BAR_SIZE = 16 << 20,
    VTD_ABSENT_IOAPIC = VTD_BAR_SIZE - 4096,
};

struct save_section;
struct save_writer;

struct vtd_function {
    struct pci_function function;
    struct unit unit;
    uint64_t register_size;
    uint64_t logged_address;
    uint64_t placements; /* of the registers by the guest */
};

/* Create memory and unit. name must outlive the function. Of `caches` what it says of caches is
 * taken; NULL: the defaults. Returns 0 or a negative errno. Then either viommu_start
 * it, or _load it. */
int vtd_function_init(struct vtd_function *vtd, const char *name,
                      const struct viommu_vtd_config *config,
                      const struct viommu_config *caches);

/*
 * State for another process. Saving returns 0 or viommu_save's negative errno, and writes into the
 * section that is open. The unit that is loaded has the same devices and guest memory; _load
 * returns 0 or a negative errno, and starts it.
 */
int vtd_function_save(const struct vtd_function *vtd, struct save_writer *writer);
int vtd_function_load(struct vtd_function *vtd, struct save_section *section);

/* Nobody serves the function any more; the devices behind it were removed. */
void vtd_function_fini(struct vtd_function *vtd);

#endif
