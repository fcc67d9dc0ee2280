/* SPDX-License-Identifier: BSD-2-Clause */
/* The VT-d unit: configuration, capabilities, life, and its share of viommu_process. */
#include "vtd/unit.h"

#include "base/alloc.h"

#include <errno.h>

static bool config_valid(const struct viommu_vtd_config *config)
{
    return (config->address_width == 39 || config->address_width == 48) &&
           config->host_address_width >= 36 && config->host_address_width <= 52 &&
           config->domain_bits >= 4 && config->domain_bits <= 16 && config->domain_bits % 2 == 0 &&
           config->fault_records >= 1 && config->fault_records <= VTD_FAULT_RECORDS_MAX &&
           !(config->device_tlb && config->no_queued_invalidation);
}

static void config_fill(struct viommu_vtd_config *config)
{
    config->address_width = config->address_width ? config->address_width : 48;
    config->host_address_width = config->host_address_width ? config->host_address_width : 48;
    config->domain_bits = config->domain_bits ? config->domain_bits : 16;
    config->fault_records = config->fault_records ? config->fault_records : 8;
}

static uint64_t capabilities(const struct viommu_vtd_config *config)
{
    uint64_t cap = CAP_ZLR | CAP_PSI | CAP_DWD | CAP_DRD;

    cap |= (uint64_t)(config->domain_bits - 4) / 2;
    cap |= config->caching_mode ? CAP_CM : 0;
    cap |= CAP_SAGAW_39 | (config->address_width == 48 ? CAP_SAGAW_48 : 0);
    cap |= (uint64_t)(config->address_width - 1) << CAP_MGAW_SHIFT;
    cap |= (uint64_t)(VTD_FRO / 16) << CAP_FRO_SHIFT;
    cap |= config->no_super_pages ? 0 : CAP_SLLPS_2M | CAP_SLLPS_1G;
    cap |= (uint64_t)(config->fault_records - 1) << CAP_NFR_SHIFT;
    cap |= (uint64_t)VTD_MAMV << CAP_MAMV_SHIFT;
    return cap;
}

static uint64_t extended_capabilities(const struct viommu_vtd_config *config)
{
    uint64_t ecap = ECAP_C | (uint64_t)(VTD_IRO / 16) << ECAP_IRO_SHIFT;

    ecap |= config->no_queued_invalidation ? 0 : ECAP_QI;
    ecap |= config->device_tlb ? ECAP_DT : 0;
    ecap |= config->no_pass_through ? 0 : ECAP_PT;
    ecap |= config->no_snoop_control ? 0 : ECAP_SC;
    return ecap;
}

/* How paging entries read in this configuration (9.8). */
static struct pagetable_format format_of(const struct viommu_vtd_config *config)
{
    uint64_t host_last = (1ULL << config->host_address_width) - 1;
    uint64_t common = (PAGETABLE_ADDRESS & ~host_last) | ENTRY_RESERVED_62;

    return (struct pagetable_format){
        .read = ENTRY_READ,
        .write = ENTRY_WRITE,
        .large = ENTRY_LARGE,
        .reserved_table = common | ENTRY_SNOOP,
        .reserved_page = common | (config->no_snoop_control ? ENTRY_SNOOP : 0),
        .large_levels = config->no_super_pages ? 0 : 1 << 1 | 1 << 2,
    };
}

/* Takes super pages back that mirrors cannot map. */
static void limit_super_pages(struct vtd *vtd)
{
    if (vtd->limits.no_2m) {
        vtd->cap &= ~CAP_SLLPS_2M;
        vtd->format.large_levels &= (uint8_t)~(1 << 1);
    }
    if (vtd->limits.no_1g) {
        vtd->cap &= ~CAP_SLLPS_1G;
        vtd->format.large_levels &= (uint8_t)~(1 << 2);
    }
}

static int configure(struct vtd *vtd, const struct viommu_vtd_config *config)
{
    struct viommu_vtd_config filled = *config;

    config_fill(&filled);
    if (!config_valid(&filled)) {
        return -EINVAL;
    }
    if (vtd->limits.address_width && filled.address_width > vtd->limits.address_width) {
        filled.address_width = vtd->limits.address_width;
    }
    vtd->config = filled;
    vtd->cap = capabilities(&filled);
    vtd->ecap = extended_capabilities(&filled);
    vtd->format = format_of(&filled);
    limit_super_pages(vtd);
    return 0;
}

static void vtd_destroy(struct viommu *iommu)
{
    struct vtd *vtd = vtd_of(iommu);

    iommu_fini(iommu);
    base_free(vtd);
}

static void vtd_reset(struct viommu *iommu)
{
    struct vtd *vtd = vtd_of(iommu);

    vtd_queue_reset(vtd);
    vtd_commands_reset(vtd);
    vtd_registers_reset(vtd);
}

static bool vtd_work(struct viommu *iommu, unsigned *budget)
{
    struct vtd *vtd = vtd_of(iommu);
    bool moved;

    do {
        moved = vtd_commands_step(vtd);
        moved |= vtd_queue_step(vtd, budget);
    } while (moved);
    return !*budget && vtd_queue_ready(vtd);
}

static bool vtd_draining(struct viommu *iommu)
{
    const struct vtd *vtd = vtd_of(iommu);

    return vtd_commands_draining(vtd) || vtd_queue_draining(vtd);
}

static bool vtd_has_ats(const struct viommu *iommu)
{
    return ((const struct vtd *)iommu)->config.device_tlb;
}

static bool vtd_can_mirror(const struct viommu *iommu)
{
    return ((const struct vtd *)iommu)->config.caching_mode;
}

static uint64_t width_last(unsigned width)
{
    return (1ULL << width) - 1;
}

/* Page sizes that guests may use now: bit n for 2^n bytes. */
static uint64_t page_sizes(const struct vtd *vtd)
{
    uint64_t sizes = 1 << 12;

    sizes |= vtd->format.large_levels & 1 << 1 ? 1 << 21 : 0;
    sizes |= vtd->format.large_levels & 1 << 2 ? 1 << 30 : 0;
    return sizes;
}

static int vtd_narrow(struct viommu *iommu, uint64_t last, uint64_t sizes)
{
    struct vtd *vtd = vtd_of(iommu);
    struct viommu_vtd_config config = vtd->config;

    if (last >= width_last(vtd->config.address_width) && !(page_sizes(vtd) & ~sizes)) {
        return 0;
    }
    if (atomic_load(&iommu->started) || last < width_last(39)) {
        return -ERANGE;
    }
    if (last < width_last(48)) {
        vtd->limits.address_width = 39;
    }
    vtd->limits.no_2m |= !(sizes & 1 << 21);
    vtd->limits.no_1g |= !(sizes & 1 << 30);
    return configure(vtd, &config);
}

static const struct pagetable_format *vtd_format(const struct viommu *iommu)
{
    return &((const struct vtd *)iommu)->format;
}

static const struct model vtd_model = {
    .destroy = vtd_destroy,
    .reset = vtd_reset,
    .mmio_read = vtd_mmio_read,
    .mmio_write = vtd_mmio_write,
    .take_message = vtd_take_message,
    .work = vtd_work,
    .draining = vtd_draining,
    .translate = vtd_translate,
    .refuse_interrupt = vtd_refuse_interrupt,
    .ats = vtd_ats,
    .has_ats = vtd_has_ats,
    .can_mirror = vtd_can_mirror,
    .narrow = vtd_narrow,
    .view = vtd_view,
    .format = vtd_format,
    .interrupts = {VTD_INTERRUPT_FIRST, VTD_INTERRUPT_LAST},
    .id = MODEL_VTD,
    .save_version = VTD_SAVE_VERSION,
    .save = vtd_save,
    .decode = vtd_decode,
    .restore = vtd_restore,
};

int viommu_vtd_create(const struct viommu_config *config,
                      const struct viommu_vtd_config *vtd_config, struct viommu **out)
{
    struct vtd *vtd = base_alloc_aligned(_Alignof(struct vtd), sizeof(*vtd));
    int ret;

    if (!vtd) {
        return -ENOMEM;
    }
    ret = configure(vtd, vtd_config);
    if (!ret) {
        ret = iommu_init(&vtd->iommu, &vtd_model, config);
    }
    if (ret) {
        base_free(vtd);
        return ret;
    }
    *out = &vtd->iommu;
    return 0;
}

static bool devices_with_ats(const struct viommu *iommu)
{
    for (const struct viommu_device *device = iommu->devices; device; device = device->next) {
        if (device->ats) {
            return true;
        }
    }
    return false;
}

int viommu_vtd_configure(struct viommu *iommu, const struct viommu_vtd_config *config)
{
    int ret = -EBUSY;

    if (iommu->model != &vtd_model) {
        return -EINVAL;
    }
    iommu_lock(iommu);
    if (!atomic_load(&iommu->started) && (config->device_tlb || !devices_with_ats(iommu)) &&
        (config->caching_mode || !notify_has_mirrors(iommu))) {
        ret = configure(vtd_of(iommu), config);
    }
    iommu_unlock(iommu);
    return ret;
}

uint64_t viommu_vtd_register_size(const struct viommu *iommu)
{
    (void)iommu;
    return VTD_REGISTER_SIZE;
}
