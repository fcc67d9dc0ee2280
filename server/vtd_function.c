/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The VT-d unit behind a BAR; vtd_function.h has the layout.
 */
#include "vtd_function.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <stdlib.h>
#include <string.h>

#include <viommu/save.h>

#include "client_memory.h"
#include "handover/fds.h"
#include "log.h"

enum {
    PROCESS_BUDGET = 4096,
    /* Lines of a kind that are printed: a guest can cause them at will. */
    LINES_MAX = 100,
    /* Regions that leave, beyond which no more are taken in. */
    LEAVING_MAX = 4096,
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

        viommu_mmio_read(vtd->iommu, offset + done, n, &value);
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
        viommu_mmio_write(vtd->iommu, offset + done, n, value);
    }
}

/* Where the registers are matters to people: the DMAR table has to say the same. A host bridge's
 * BAR is sized while it decodes, so the address that a BAR being sized seems to have is left out.
 */
static void config_written(void *opaque)
{
    struct vtd_function *vtd = opaque;
    uint64_t address = pci_config_bar_address(&vtd->function.config, 0);
    uint64_t sizing = UINT64_C(0x100000000) - VTD_BAR_SIZE;

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
    viommu_reset(vtd->iommu);
}

/* Apply a batch of one change. The batch is ended whatever happens. */
static int commit(struct viommu_memory_batch *batch, int ret, viommu_memory_done *done,
                  void *opaque)
{
    if (ret < 0) {
        viommu_memory_batch_abort(batch);
        return ret;
    }
    return viommu_memory_batch_commit(batch, done, opaque);
}

static int dma_map(void *opaque, const struct pci_dma_region *region, int fd, void **cookie)
{
    struct vtd_function *vtd = opaque;
    struct viommu_memory_slot slot = {.first = region->first, .last = region->last, .fd = -1};
    struct viommu_memory_batch *batch;
    struct client_mapping *mapping;
    int ret;

    *cookie = NULL;
    /* What cannot be mapped (ROM of the client's own) is not memory that devices may reach. */
    if (fd < 0 || !region->readable) {
        return 0;
    }
    /* The region that is the whole address space has no size that a mapping could have. */
    if (region->last - region->first == UINT64_MAX) {
        return -EINVAL;
    }
    /* While something cannot leave, all that comes later cannot, either. */
    if (vtd->leaving_count >= LEAVING_MAX) {
        return -EBUSY;
    }
    ret = client_mapping_create(fd, region->file_offset, region->last - region->first + 1,
                                region->writable, &mapping);
    if (ret < 0) {
        return ret;
    }
    slot.host = client_mapping_address(mapping);
    slot.flags = region->writable ? 0 : VIOMMU_MEMORY_READONLY;
    ret = viommu_memory_batch_begin(vtd->memory, &batch);
    if (ret == 0) {
        ret = commit(batch, viommu_memory_batch_add(batch, &slot), NULL, NULL);
    }
    if (ret < 0) {
        client_mapping_destroy(mapping);
        return ret;
    }
    *cookie = mapping;
    return 0;
}

/* A region that was unmapped, until nothing uses it any more. */
struct leaving_region {
    struct leaving_region *next;
    struct leaving_region **link; /* what leads to it */
    struct vtd_function *vtd;
    struct client_mapping *mapping;
};

static void enlist(struct leaving_region *region)
{
    struct vtd_function *vtd = region->vtd;

    region->next = vtd->leaving;
    region->link = &vtd->leaving;
    if (region->next) {
        region->next->link = &region->next;
    }
    vtd->leaving = region;
    vtd->leaving_count++;
}

static void delist(struct leaving_region *region)
{
    *region->link = region->next;
    if (region->next) {
        region->next->link = region->link;
    }
    region->vtd->leaving_count--;
}

static void unmapped(void *opaque)
{
    struct leaving_region *region = opaque;

    delist(region);
    client_mapping_destroy(region->mapping);
    free(region);
}

static void dma_unmap(void *opaque, uint64_t first, uint64_t last, void *cookie)
{
    struct vtd_function *vtd = opaque;
    struct viommu_memory_batch *batch;
    struct leaving_region *region;
    int ret = -ENOMEM;

    if (!cookie) {
        return;
    }
    region = malloc(sizeof(*region));
    if (region) {
        *region = (struct leaving_region){.vtd = vtd, .mapping = cookie};
        enlist(region);
        ret = viommu_memory_batch_begin(vtd->memory, &batch);
    }
    if (ret == 0) {
        ret = commit(batch, viommu_memory_batch_remove(batch, first, last), unmapped, region);
    }
    if (ret == 0) {
        unmapped(region);
    } else if (ret < 0) {
        /* Memory is used up. The mapping has to stay, for the unit still knows it. */
        server_log("%s: cannot remove guest memory: %s", vtd->function.name, strerror(-ret));
        if (region) {
            delist(region);
            free(region);
        }
    }
}

static bool unmapping(void *opaque)
{
    return ((struct vtd_function *)opaque)->leaving != NULL;
}

static const struct pci_function_ops ops = {
    .bar_read = bar_read,
    .bar_write = bar_write,
    .config_written = config_written,
    .reset = reset,
};

static const struct pci_memory_ops memory_ops = {
    .map = dma_map,
    .unmap = dma_unmap,
    .unmapping = unmapping,
};

static void interrupt(void *opaque, const struct viommu_interrupt *message)
{
    struct vtd_function *vtd = opaque;
    const struct pci_function *function = &vtd->function;

    if (function->bus &&
        function->bus->write_message(function->bus_opaque, message->address, message->data) == 0) {
        vtd->messages_sent++;
    } else {
        vtd->messages_lost++;
    }
}

static void event(void *opaque, const struct viommu_event *event)
{
    struct vtd_function *vtd = opaque;

    if (vtd->events++ >= LINES_MAX) {
        return;
    }
    server_log("%s: %s (requester %02x:%02x.%x, addresses 0x%llx to 0x%llx, error %d)",
               vtd->function.name, event->text ? event->text : "event", event->requester >> 8,
               event->requester >> 3 & 0x1f, event->requester & 7, (unsigned long long)event->first,
               (unsigned long long)event->last, event->error);
}

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

static int create_unit(struct vtd_function *vtd, const struct viommu_vtd_config *config,
                       const struct viommu_config *caches)
{
    struct viommu_config common = caches ? *caches : (struct viommu_config){0};
    int ret = viommu_memory_create(&vtd->memory);

    if (ret < 0) {
        return ret;
    }
    common.callbacks = (struct viommu_callbacks){.interrupt = interrupt, .event = event};
    common.opaque = vtd;
    common.memory = vtd->memory;
    return viommu_vtd_create(&common, config, &vtd->iommu);
}

int vtd_function_init(struct vtd_function *vtd, const char *name,
                      const struct viommu_vtd_config *config,
                      const struct viommu_config *caches)
{
    int ret;

    memset(vtd, 0, sizeof(*vtd));
    vtd->function = (struct pci_function){
        .name = name,
        .ops = &ops,
        .opaque = vtd,
        .memory = &memory_ops,
        .memory_opaque = vtd,
    };
    build_config(&vtd->function.config);
    ret = client_memory_guard();
    if (ret == 0) {
        ret = create_unit(vtd, config, caches);
    }
    if (ret < 0) {
        vtd_function_fini(vtd);
        return ret;
    }
    vtd->register_size = viommu_vtd_register_size(vtd->iommu);
    vtd->losses_logged = client_memory_losses();
    return 0;
}

int vtd_function_start(struct vtd_function *vtd)
{
    return viommu_start(vtd->iommu);
}

void vtd_function_fini(struct vtd_function *vtd)
{
    viommu_destroy(vtd->iommu);
    viommu_memory_destroy(vtd->memory);
    while (vtd->leaving) {
        unmapped(vtd->leaving);
    }
    vtd->iommu = NULL;
    vtd->memory = NULL;
}

void vtd_function_process(struct vtd_function *vtd)
{
    viommu_process(vtd->iommu, PROCESS_BUDGET);
    viommu_memory_process(vtd->memory);
}

void vtd_function_report(struct vtd_function *vtd)
{
    uint64_t losses = client_memory_losses();

    if (losses != vtd->losses_logged) {
        server_log("%s: part of the client's memory is gone; zeros stand in for it",
                   vtd->function.name);
        vtd->losses_logged = losses;
    }
}

int vtd_function_save(const struct vtd_function *vtd, struct save_writer *writer)
{
    void *data;
    size_t size;
    int ret = viommu_save(vtd->iommu, &data, &size);

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
    return section->error ? section->error : viommu_load(vtd->iommu, data, size);
}
