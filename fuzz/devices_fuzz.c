/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzzes what a guest does to the server's small devices through their BARs and configuration
 * spaces: the edu, the VT-d unit's function, and functions that are made of anything.
 *
 * Held: an access stays in what it is given (a sanitizer sees what does not); read-only bits of the
 * configuration space never change; a state that was saved is loaded again; a BAR's address is a
 * multiple of its size; DMA of the edu stays inside its buffer.
 *
 * Input: a byte: which device; then operations, a byte each, with their operands.
 */
#include "bytes.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <stdlib.h>
#include <string.h>

#include "edu.h"
#include "log.h"
#include "pci_config.h"
#include "pci_function.h"
#include "save/stream.h"
#include "vtd_function.h"

#define MEMORY_SIZE 0x10000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct bed {
    struct edu edu;
    struct vtd_function vtd;
    struct pci_function *function;
    bool is_edu;
    bool refuse; /* DMA */
};

static uint8_t memory[MEMORY_SIZE];

static void check(bool holds)
{
    if (!holds) {
        abort();
    }
}

/* ---- DMA ---- */

static int on_read(void *opaque, uint64_t iova, void *data, size_t size)
{
    const struct bed *bed = opaque;

    check(size <= EDU_BUFFER_SIZE);
    if (bed->refuse || iova > MEMORY_SIZE || size > MEMORY_SIZE - iova) {
        return -EFAULT;
    }
    memcpy(data, memory + iova, size);
    return 0;
}

static int on_write(void *opaque, uint64_t iova, const void *data, size_t size)
{
    const struct bed *bed = opaque;

    check(size <= EDU_BUFFER_SIZE);
    if (bed->refuse || iova > MEMORY_SIZE || size > MEMORY_SIZE - iova) {
        return -EFAULT;
    }
    memcpy(memory + iova, data, size);
    return 0;
}

static void on_reset(void *opaque)
{
    ((struct bed *)opaque)->refuse = false;
}

/* ---- what a guest does ---- */

/* Exactly as long as it is said to be. */
static void access(struct bed *bed, struct fuzz_input *input, bool config)
{
    static const uint8_t sizes[] = {1, 2, 4, 8, 3, 12, 64, 0};
    uint8_t kind = fuzz_byte(input);
    size_t size = sizes[kind & 7];
    uint64_t offset = kind & 8 ? fuzz_number(input, 4) : fuzz_number(input, 2);
    uint64_t room = config ? UINT64_MAX : bed->function->config.bar_size[0];
    uint8_t *bytes = malloc(size ? size : 1);

    check(bytes != NULL);
    memset(bytes, 0x5a, size);
    if (kind & 16) {
        for (size_t i = 0; i < size; i++) {
            bytes[i] = fuzz_byte(input);
        }
    }
    offset = kind & 32 && !config ? room - size : offset;
    if (config && kind & 16) {
        pci_config_write(&bed->function->config, offset, bytes, size);
        bed->function->ops->config_written(bed->function->opaque, offset, size);
    } else if (config) {
        pci_config_read(&bed->function->config, offset, bytes, size);
    } else if (offset <= room && size <= room - offset) { /* else the endpoint refuses it */
        if (kind & 16) {
            bed->function->ops->bar_write(bed->function->opaque, 0, offset, bytes, size);
        } else {
            bed->function->ops->bar_read(bed->function->opaque, 0, offset, bytes, size);
        }
    }
    free(bytes);
}

static void check_config(const struct pci_config *config)
{
    for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++) {
        uint8_t changeable = config->writable[i] | (i == PCI_STATUS ? PCI_STATUS_INTERRUPT : 0);

        check(!((config->value[i] ^ config->initial[i]) & ~changeable));
    }
    for (unsigned i = 0; i <= PCI_CONFIG_N_BARS; i++) {
        uint64_t address = pci_config_bar_address(config, i);

        check(!address || !(address & (config->bar_size[i] - 1)));
    }
}

/* ---- functions that are made of anything ---- */

static void make(struct fuzz_input *input)
{
    const struct pci_ids ids = {.vendor = 1, .interrupt_pin = fuzz_byte(input) & 1};
    struct pci_config config;

    pci_config_init(&config, &ids);
    while (fuzz_more(input)) {
        uint8_t kind = fuzz_byte(input);
        uint8_t more = fuzz_byte(input);
        uint64_t size = more >> 6 == 3 ? fuzz_number(input, 8) : UINT64_C(1) << (more & 63);
        int ret;

        switch (kind & 7) {
        case 0:
            ret = pci_config_add_bar(&config, kind >> 3 & 7, size,
                                     kind & 64 ? PCI_BAR_MEMORY64 : PCI_BAR_MEMORY32, kind & 128);
            check(ret == 0 || ret == -EINVAL);
            break;
        case 1:
            ret = pci_config_add_capability(&config, kind, more);
            check(ret == -ENOSPC || (ret >= 0x40 && ret + more <= PCI_CONFIG_SIZE));
            break;
        case 2:
            ret = pci_config_add_msi(&config, more & 7);
            check(ret == -EINVAL || ret == -ENOSPC ||
                  pci_config_msi_messages(&config) == 1u << (more & 7));
            break;
        case 3: {
            unsigned vectors = (unsigned)fuzz_number(input, 2);
            uint32_t table = (uint32_t)fuzz_number(input, 3);
            uint32_t pending = (uint32_t)fuzz_number(input, 3);

            ret = pci_config_add_msix(&config, vectors, kind >> 3 & 7, table, pending);
            check(ret == -EINVAL || ret == -ENOSPC || pci_config_msix_vectors(&config) == vectors);
            break;
        }
        case 4:
            pci_config_allow(&config, (unsigned)(more | (kind & 8) << 5), (uint32_t)size);
            break;
        case 5:
            pci_config_hardwire(&config, (unsigned)(more | (kind & 8) << 5), (uint32_t)size, more);
            break;
        case 6:
            pci_config_set_intx_status(&config, kind & 8);
            pci_config_write(&config, more, &size, kind >> 5);
            break;
        default:
            pci_config_reset(&config);
            break;
        }
        check_config(&config);
        (void)pci_config_msi_enabled(&config);
        (void)pci_config_msix_enabled(&config);
        (void)pci_config_msi_messages(&config);
        (void)pci_config_msix_vectors(&config);
    }
}

/* ---- states ---- */

static int save(struct bed *bed, struct save_writer *writer)
{
    save_writer_init(writer, SAVE_SERVER);
    save_begin(writer, 1, 0, 1, 0);
    if (!bed->is_edu) {
        return vtd_function_save(&bed->vtd, writer);
    }
    edu_save(&bed->edu, writer);
    return 0;
}

static void begin(struct bed *bed, bool is_edu);

static void end(struct bed *bed)
{
    if (!bed->is_edu) {
        vtd_function_fini(&bed->vtd);
    }
}

/* What is saved, perhaps changed, is another device's. */
static void move(struct bed *bed, struct fuzz_input *input)
{
    struct save_section section = {.kind = 1, .version = 1};
    static struct bed other;
    struct save_writer writer;
    unsigned changes = fuzz_byte(input) & 7;
    size_t cut = changes == 7 ? fuzz_number(input, 2) : 0;
    uint8_t *body;
    size_t size;
    int ret;

    if (save(bed, &writer)) {
        save_writer_fini(&writer);
        return;
    }
    check(!writer.error);
    size = writer.size - writer.section - 24;
    body = malloc(size);
    check(body != NULL);
    memcpy(body, writer.data + writer.section + 24, size);
    save_writer_fini(&writer);
    for (unsigned i = 0; i < changes && i < 6; i++) {
        size_t at = fuzz_number(input, 2) % size;

        body[at] ^= fuzz_byte(input);
    }
    begin(&other, bed->is_edu);
    section.at = body;
    section.left = size - cut % size;
    ret = bed->is_edu ? edu_load(&other.edu, &section) : vtd_function_load(&other.vtd, &section);
    check(changes || !ret);
    if (!ret) {
        check_config(&other.function->config);
    }
    end(&other);
    free(body);
}

static void begin(struct bed *bed, bool is_edu)
{
    const struct device_dma dma = {
        .read = on_read, .write = on_write, .reset = on_reset, .opaque = bed};
    const struct viommu_vtd_config config = {0};
    const struct viommu_config caches = {.iotlb_entries = 256};

    memset(bed, 0, sizeof(*bed));
    bed->is_edu = is_edu;
    if (is_edu) {
        edu_init(&bed->edu, "edu", &dma);
        bed->function = &bed->edu.function;
    } else {
        check(vtd_function_init(&bed->vtd, "vtd", &config, &caches) == 0);
        bed->function = &bed->vtd.function;
    }
}

/* A unit of a width that there is not leaves nothing. */
static void begin_wrongly(void)
{
    const struct viommu_vtd_config config = {.address_width = 7};
    const struct viommu_config caches = {.iotlb_entries = 256};
    static struct vtd_function vtd;

    check(vtd_function_init(&vtd, "vtd", &config, &caches) == -EINVAL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size, 0};
    static struct bed bed;
    uint8_t kind = fuzz_byte(&input);

    server_log_to(NULL);
    if ((kind & 3) == 3) {
        make(&input);
        return 0;
    }
    begin(&bed, kind & 1);
    if (kind & 4) {
        bed.edu.dma.reset = NULL;
    }
    if (!bed.is_edu && !(kind & 8)) {
        check(viommu_start(bed.vtd.unit.iommu) == 0);
    }
    if (kind & 16) {
        begin_wrongly();
    }
    while (fuzz_more(&input)) {
        uint8_t operation = fuzz_byte(&input);

        switch (operation & 7) {
        case 0:
        case 1:
        case 2:
            access(&bed, &input, false);
            break;
        case 3:
        case 4:
            access(&bed, &input, true);
            break;
        case 5:
            move(&bed, &input);
            break;
        case 6:
            bed.refuse = operation & 8;
            break;
        default:
            pci_config_reset(&bed.function->config);
            bed.function->ops->reset(bed.function->opaque);
            break;
        }
        check_config(&bed.function->config);
    }
    end(&bed);
    return 0;
}
