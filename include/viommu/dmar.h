/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The ACPI DMAR table, which tells a guest of its VT-d units (VT-d specification, chapter "BIOS
 * Considerations").
 */
#ifndef VIOMMU_DMAR_H
#define VIOMMU_DMAR_H

#include <viommu/iova.h>
#include <viommu/types.h>

#ifdef __cplusplus
extern "C" {
#endif

enum viommu_dmar_scope_type {
    VIOMMU_DMAR_SCOPE_ENDPOINT = 1,
    VIOMMU_DMAR_SCOPE_BRIDGE = 2, /* and everything below it */
    VIOMMU_DMAR_SCOPE_IOAPIC = 3,
    VIOMMU_DMAR_SCOPE_HPET = 4,
};

#define VIOMMU_DMAR_PATH_MAX 8

/* A device: a bus, then one (device, function) pair for each bridge on the way and for itself. */
struct viommu_dmar_scope {
    enum viommu_dmar_scope_type type;
    uint8_t enumeration_id; /* of an IOAPIC or HPET, else 0 */
    uint8_t start_bus;
    uint8_t path_length; /* 1 to VIOMMU_DMAR_PATH_MAX */
    struct {
        uint8_t device;
        uint8_t function;
    } path[VIOMMU_DMAR_PATH_MAX];
};

/* One remapping unit. */
struct viommu_dmar_unit {
    uint64_t base;          /* guest-physical address of its registers, 4 KiB aligned */
    uint64_t register_size; /* viommu_vtd_register_size() */
    uint16_t segment;
    bool include_all; /* every device that no other unit names; the last unit of its segment */
    const struct viommu_dmar_scope *scopes;
    size_t scope_count;
};

/* Memory that devices use from the start, to be identity-mapped (RMRR). */
struct viommu_dmar_reserved {
    uint64_t first; /* 4 KiB aligned */
    uint64_t last;
    uint16_t segment;
    const struct viommu_dmar_scope *scopes;
    size_t scope_count;
};

/* Root ports below which device-TLBs are allowed (ATSR). */
struct viommu_dmar_ats {
    uint16_t segment;
    bool all_ports;
    const struct viommu_dmar_scope *scopes;
    size_t scope_count;
};

struct viommu_dmar {
    uint8_t host_address_width; /* 1 to 64, as the units' configuration */
    bool interrupt_remapping;
    bool x2apic_opt_out;
    const struct viommu_dmar_unit *units;
    size_t unit_count;
    const struct viommu_dmar_reserved *reserved;
    size_t reserved_count;
    const struct viommu_dmar_ats *ats;
    size_t ats_count;
};

/*
 * Writes the table, checksum included, to `table`, `size` bytes at most. Returns its length (with a
 * NULL table too, to learn it); -EINVAL for a value the format cannot hold (path length, alignment,
 * widths); -ENOSPC when it does not fit `size`; -E2BIG when it is larger than the format allows.
 * Calls nothing back; any thread.
 */
int64_t viommu_dmar_build(const struct viommu_dmar *dmar, void *table, size_t size);

/*
 * What an owner of an IOVA space has reserved as VIOMMU_IOVA_DIRECT, as entries of a table: whole
 * pages, in order, none touching another; segment and scopes are those of `like`, the device in the
 * guest. *count is the room, then how many there are. Returns 0; -ENOSPC, with nothing filled in;
 * -EINVAL; -ENOMEM. A call for the space (viommu/iova.h).
 */
int viommu_dmar_reserve(const struct viommu_iova_owner *owner,
                        const struct viommu_dmar_reserved *like,
                        struct viommu_dmar_reserved *out, size_t *count);

#ifdef __cplusplus
}
#endif

#endif
