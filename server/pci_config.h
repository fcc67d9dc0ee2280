/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The configuration space of one conventional PCI function, 256 bytes.
 *
 * Every byte has a value, a mask of the bits that software may change, and a value it returns to on
 * reset. BAR sizing needs no code of its own: the address bits below the BAR's size are simply not
 * writable. The builder calls (_init to _hardwire) define these masks once; afterwards only _write
 * and _reset change values.
 *
 * A write is one call whatever its size and offset; bytes outside the space are ignored, and read
 * as zero. No locking: one thread at a time.
 */
#ifndef VIOMMU_SERVER_PCI_CONFIG_H
#define VIOMMU_SERVER_PCI_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct save_section;
struct save_writer;

enum {
    PCI_CONFIG_SIZE = 256,
    PCI_CONFIG_N_BARS = 6,
};

struct pci_ids {
    uint16_t vendor;
    uint16_t device;
    uint16_t subsystem_vendor;
    uint16_t subsystem;
    uint8_t revision;
    uint8_t interrupt_pin; /* 0 none, 1 INTA ... */
    uint32_t class_code;   /* base class, subclass, programming interface: 0xBBSSPP */
};

struct pci_config {
    uint8_t value[PCI_CONFIG_SIZE];
    uint8_t writable[PCI_CONFIG_SIZE];
    uint8_t initial[PCI_CONFIG_SIZE];
    uint64_t bar_size[PCI_CONFIG_N_BARS]; /* 0: absent, or the upper half of a 64-bit BAR */
    uint8_t next_capability;              /* where the next capability may start */
    uint8_t last_link;                    /* offset of the byte that would point to it */
    uint8_t msi;                          /* offset of the MSI capability, 0 when absent */
    uint8_t msix;                         /* offset of the MSI-X capability, 0 when absent */
};

enum pci_bar_kind {
    PCI_BAR_MEMORY32,
    PCI_BAR_MEMORY64, /* takes this BAR and the next */
};

void pci_config_init(struct pci_config *config, const struct pci_ids *ids);

/* Add a memory BAR. size is a power of two, at least 16. Returns 0 or -EINVAL. */
int pci_config_add_bar(struct pci_config *config, unsigned bar, uint64_t size,
                       enum pci_bar_kind kind, bool prefetchable);

/* Add a capability of length bytes (its two-byte header included), all else zero and read-only
 * until _allow. Returns its offset or -ENOSPC. */
int pci_config_add_capability(struct pci_config *config, uint8_t id, unsigned length);

/* Add MSI with 64-bit addresses and 2^log2_messages messages (0 to 5). Returns its offset or a
 * negative errno. */
int pci_config_add_msi(struct pci_config *config, unsigned log2_messages);

/*
 * Add MSI-X with this many vectors (1 to 2048), whose table and pending bits are in a memory BAR
 * added before, at these offsets (multiples of 8, inside it, not overlapping). Returns the
 * capability's offset or a negative errno. Whoever delivers the messages keeps the table: a
 * vfio-user client never lets the server see it, and a function only names vectors.
 */
int pci_config_add_msix(struct pci_config *config, unsigned vectors, unsigned bar,
                        uint32_t table_offset, uint32_t pending_offset);

/* Make bits of a 32-bit word writable. A BAR's words stay as they are. */
void pci_config_allow(struct pci_config *config, unsigned offset, uint32_t bits);

/* Fix bits of a 32-bit word at a value: reads give it, writes cannot change it. A
 * BAR's words stay as they are. */
void pci_config_hardwire(struct pci_config *config, unsigned offset, uint32_t bits, uint32_t value);

void pci_config_read(const struct pci_config *config, uint64_t offset, void *data, size_t size);
void pci_config_write(struct pci_config *config, uint64_t offset, const void *data, size_t size);
void pci_config_reset(struct pci_config *config);

/* Where software placed a memory BAR, and whether it decodes at all. */
uint64_t pci_config_bar_address(const struct pci_config *config, unsigned bar);
bool pci_config_memory_enabled(const struct pci_config *config);

bool pci_config_bus_master(const struct pci_config *config);
bool pci_config_intx_disabled(const struct pci_config *config);
bool pci_config_msi_enabled(const struct pci_config *config);

/* How many messages the function can send; 0 without MSI. */
unsigned pci_config_msi_messages(const struct pci_config *config);

bool pci_config_msix_enabled(const struct pci_config *config);

/* How many vectors MSI-X has; 0 without it. */
unsigned pci_config_msix_vectors(const struct pci_config *config);

/* The state that software sees, for another process. What it may not change has to be what it is in
 * the function that loads it: -EBADMSG. */
void pci_config_save(const struct pci_config *config, struct save_writer *writer);
int pci_config_load(struct pci_config *config, struct save_section *section);

/* Show in the status register whether the INTx line is asserted. */
void pci_config_set_intx_status(struct pci_config *config, bool asserted);

#endif
