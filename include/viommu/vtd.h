/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The Intel VT-d model (Intel Virtualization Technology for Directed I/O, architecture
 * specification): DMA remapping in legacy mode. What it does not do it reports absent in its
 * capability registers. docs/vtd-registers.md lists every register and field.
 */
#ifndef VIOMMU_VTD_H
#define VIOMMU_VTD_H

#include <viommu/iommu.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Fields left zero take the value in parentheses. */
struct viommu_vtd_config {
    /* Of device addresses: 39, 48 or 57 (48). Tables of each smaller width are walked, too. */
    uint8_t address_width;
    uint8_t host_address_width; /* of guest-physical addresses: 36 to 52 (48) */
    bool caching_mode;          /* CAP.CM: asks the guest to invalidate when it maps, too */
    bool no_super_pages;        /* no 2 MiB and 1 GiB pages */
    bool no_pass_through;       /* ECAP.PT clear */
    bool no_queued_invalidation; /* ECAP.QI clear: registers only */
    bool no_snoop_control;      /* ECAP.SC clear: the snoop bit of an entry is then reserved */
    bool device_tlb;            /* ECAP.DT: devices may have device-TLBs (ATS) */
    uint8_t domain_bits;        /* domain ids have so many bits: 4, 6, 8, 10, 12, 14 or 16 (16) */
    uint16_t fault_records;     /* 1 to 256 (8) */
    uint16_t unit_requester;    /* requester id of the unit's own messages (0) */
};

/*
 * Creates a unit. Neither configuration may be NULL. It can be configured until viommu_start.
 * Returns 0; -EINVAL for a value out of range, or without a memory; -ENOMEM; -EMFILE, -ENFILE or
 * -ENOSPC (no file descriptor, or watch, for viommu_event_fd).
 */
int viommu_vtd_create(const struct viommu_config *config, const struct viommu_vtd_config *vtd,
                      struct viommu **out);

/*
 * Configures it anew. Returns 0; -EINVAL as above, or for a unit of another model; -EBUSY once it
 * is started, or when it has devices with a device-TLB and the new configuration has none, or
 * mirrors (viommu/notify.h) and no caching mode. The address width is at most what mirrors can map.
 */
int viommu_vtd_configure(struct viommu *iommu, const struct viommu_vtd_config *vtd);

/*
 * Bytes of its register space, a multiple of 4 KiB: what viommu_mmio_* answers, DRHD should cover.
 */
uint64_t viommu_vtd_register_size(const struct viommu *iommu);

#ifdef __cplusplus
}
#endif

#endif
