/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The VT-d unit behind a BAR; vtd_function.h has the layout.
 */
#include "vtd_function.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <string.h>

#include <viommu/save.h>

#include "handover/fds.h"
#include "log.h"

enum {
    /* Lines that are printed: a guest can cause them at will. */
    LINES_MAX = 100,
};

/* The part of [offset, offset + size) that lies in the registers. */
static size_t register_part(const struct vtd_function *vtd, uint64_t offset, size_t size)
{
    if (offset >= vtd->register_size) {
        return 0;
    }
    return size < vtd->register_size - offset ? size : (size_t)(vtd->register_size - offset);
}

static void bar_read(void *opaque, unsigned bar, uint64_t offset, void *data, size_t size)
{
    struct vtd_function *vtd = opaque;
    size_t registers = register_part(vtd, offset, size);
    uint8_t *bytes = data;

    (void)bar;
    memset(data, 0, size);
    for (size_t done = 0; done < registers; done += 8) {
        unsigned n = registers - done < 8 ? (unsigned)(registers - done) : 8;
        uint64_t value = 0;

        viommu_mmio_read(vtd->unit.iommu, offset + done, n, &value);
        memcpy(bytes + done, &value, n);
    }
    if (offset + size > VTD_ABSENT_IOAPIC) {
        size_t skip = offset < VTD_ABSENT_IOAPIC ? (size_t)(VTD_ABSENT_IOAPIC - offset) : 0;

        memset(bytes + skip, 0xff, size - skip);
    }
}

static void bar_write(void *opaque, unsigned bar, uint64_t offset, const void *data, size_t size)
{
    struct vtd_function *vtd = opaque;
    size_t registers = register_part(vtd, offset, size);
    const uint8_t *bytes = data;

    (void)bar;
    for (size_t done = 0; done < registers; done += 8) {
        unsigned n = registers - done < 8 ? (unsigned)(registers - done) : 8;
        uint64_t value = 0;

        memcpy(&value, bytes + done, n);
        viommu_mmio_write(vtd->unit.iommu, offset + done, n, value);
    }
}

/* Where the registers are matters to people: the DMAR table has to say the same. A host bridge's
 * BAR is sized while it decodes, so the address that a BAR being sized seems to have is left out.
 */
static void config_written(void *opaque, uint64_t offset, size_t size)
{
    struct vtd_function *vtd = opaque;
    uint64_t address = pci_config_bar_address(&vtd->function.config, 0);
    uint64_t sizing = UINT64_C(0x100000000) - VTD_BAR_SIZE;

    (void)offset;
    (void)size;
    if (pci_config_memory_enabled(&vtd->function.config) && address != vtd->logged_address &&
        address != sizing) {
        vtd->logged_address = address;
        if (vtd->placements++ >= LINES_MAX) {
            return;
        }
        server_log("%s: the guest placed the registers at 0x%llx", vtd->function.name,
                   (unsigned long long)address);
    }
}

static void reset(void *opaque)
{
    struct vtd_function *vtd = opaque;

    vtd->logged_address = 0;
    viommu_reset(vtd->unit.iommu);
}

static const struct pci_function_ops ops = {
    .bar_read = bar_read,
    .bar_write = bar_write,
    .config_written = config_written,
    .reset = reset,
};

static void build_config(struct pci_config *config)
{
    static const struct pci_ids ids = {
        .vendor = 0x1234,
        .device = 0x11d0,
        .subsystem_vendor = 0x1234,
        .subsystem = 0x11d0,
        .class_code = 0x060000,
    };

    pci_config_init(config, &ids);
    pci_config_add_bar(config, 0, VTD_BAR_SIZE, PCI_BAR_MEMORY32, false);
    pci_config_hardwire(config, PCI_COMMAND, PCI_COMMAND_MASTER, PCI_COMMAND_MASTER);
}

int vtd_function_init(struct vtd_function *vtd, const char *name,
                      const struct viommu_vtd_config *config,
                      const struct viommu_config *caches)
{
    struct viommu_config common;
    int ret;

    memset(vtd, 0, sizeof(*vtd));
    vtd->function = (struct pci_function){
        .name = name,
        .ops = &ops,
        .opaque = vtd,
        .memory = &unit_memory_ops,
        .memory_opaque = &vtd->unit,
    };
    build_config(&vtd->function.config);
    ret = unit_init(&vtd->unit, &vtd->function, caches, &common);
    if (ret == 0) {
        ret = viommu_vtd_create(&common, config, &vtd->unit.iommu);
    }
    if (ret < 0) {
        vtd_function_fini(vtd);
        return ret;
    }
    vtd->register_size = viommu_vtd_register_size(vtd->unit.iommu);
    return 0;
}

void vtd_function_fini(struct vtd_function *vtd)
{
    unit_fini(&vtd->unit);
}

int vtd_function_save(const struct vtd_function *vtd, struct save_writer *writer)
{
    void *data;
    size_t size;
    int ret = viommu_save(vtd->unit.iommu, &data, &size);

    if (ret < 0) {
        return ret;
    }
    pci_config_save(&vtd->function.config, writer);
    save_put64(writer, vtd->logged_address);
    handover_put_data(writer, data, size);
    viommu_save_free(data);
    return 0;
}

int vtd_function_load(struct vtd_function *vtd, struct save_section *section)
{
    const void *data;
    size_t size;

    pci_config_load(&vtd->function.config, section);
    vtd->logged_address = save_get64(section);
    data = handover_get_data(section, SIZE_MAX, &size);
    return section->error ? section->error : viommu_load(vtd->unit.iommu, data, size);
}
