/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PCI configuration space; pci_config.h describes the data. Register names are those of
 * <linux/pci_regs.h>.
 */
#include "pci_config.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <string.h>

#include "save/stream.h"

static uint32_t get_word(const uint8_t *bytes, unsigned offset, unsigned size)
{
    uint32_t word = 0;

    for (unsigned i = 0; i < size; i++) {
        word |= (uint32_t)bytes[offset + i] << (8 * i);
    }
    return word;
}

static void put_word(uint8_t *bytes, unsigned offset, unsigned size, uint32_t word)
{
    for (unsigned i = 0; i < size; i++) {
        bytes[offset + i] = (uint8_t)(word >> (8 * i));
    }
}

/* Define the value that a register has now and after each reset. */
static void define(struct pci_config *config, unsigned offset, unsigned size, uint32_t word)
{
    put_word(config->value, offset, size, word);
    put_word(config->initial, offset, size, word);
}

void pci_config_init(struct pci_config *config, const struct pci_ids *ids)
{
    memset(config, 0, sizeof(*config));
    define(config, PCI_VENDOR_ID, 2, ids->vendor);
    define(config, PCI_DEVICE_ID, 2, ids->device);
    define(config, PCI_SUBSYSTEM_VENDOR_ID, 2, ids->subsystem_vendor);
    define(config, PCI_SUBSYSTEM_ID, 2, ids->subsystem);
    define(config, PCI_CLASS_REVISION, 4, ids->class_code << 8 | ids->revision);
    define(config, PCI_INTERRUPT_PIN, 1, ids->interrupt_pin);
    put_word(config->writable, PCI_COMMAND, 2,
             PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_PARITY | PCI_COMMAND_SERR |
                 PCI_COMMAND_INTX_DISABLE);
    put_word(config->writable, PCI_CACHE_LINE_SIZE, 1, 0xff);
    put_word(config->writable, PCI_INTERRUPT_LINE, 1, 0xff);
    config->next_capability = 0x40;
    config->last_link = PCI_CAPABILITY_LIST;
}

int pci_config_add_bar(struct pci_config *config, unsigned bar, uint64_t size,
                       enum pci_bar_kind kind, bool prefetchable)
{
    unsigned n = kind == PCI_BAR_MEMORY64 ? 2 : 1;
    unsigned offset = PCI_BASE_ADDRESS_0 + 4 * bar;
    uint64_t mask = ~(size - 1);
    uint32_t type = 0;

    if (size < 16 || (size & (size - 1)) != 0 || bar >= PCI_CONFIG_N_BARS ||
        bar + n > PCI_CONFIG_N_BARS || (n == 1 && size > UINT32_C(1) << 31)) {
        return -EINVAL;
    }
    for (unsigned i = 0; i < n; i++) {
        if (config->bar_size[bar + i] || get_word(config->writable, offset + 4 * i, 4)) {
            return -EINVAL;
        }
    }
    if (kind == PCI_BAR_MEMORY64) {
        type |= PCI_BASE_ADDRESS_MEM_TYPE_64;
        put_word(config->writable, offset + 4, 4, (uint32_t)(mask >> 32));
    }
    if (prefetchable) {
        type |= PCI_BASE_ADDRESS_MEM_PREFETCH;
    }
    define(config, offset, 4, type);
    put_word(config->writable, offset, 4, (uint32_t)mask);
    config->bar_size[bar] = size;
    return 0;
}

int pci_config_add_capability(struct pci_config *config, uint8_t id, unsigned length)
{
    unsigned offset = config->next_capability;
    unsigned status = get_word(config->initial, PCI_STATUS, 2);

    if (length < 2 || offset == 0 || offset + length > PCI_CONFIG_SIZE) {
        return -ENOSPC;
    }
    define(config, PCI_STATUS, 2, status | PCI_STATUS_CAP_LIST);
    define(config, config->last_link, 1, offset);
    memset(config->value + offset, 0, length);
    memset(config->initial + offset, 0, length);
    memset(config->writable + offset, 0, length);
    define(config, offset + PCI_CAP_LIST_ID, 1, id);
    config->last_link = (uint8_t)(offset + PCI_CAP_LIST_NEXT);
    /* Wraps to 0, which means full, when the capability ends where the space does. */
    config->next_capability = (uint8_t)((offset + length + 3) & ~3u);
    return (int)offset;
}

int pci_config_add_msi(struct pci_config *config, unsigned log2_messages)
{
    int offset;

    if (log2_messages > 5 || config->msi) {
        return -EINVAL;
    }
    offset = pci_config_add_capability(config, PCI_CAP_ID_MSI, PCI_MSI_DATA_64 + 2);
    if (offset < 0) {
        return offset;
    }
    config->msi = (uint8_t)offset;
    define(config, config->msi + PCI_MSI_FLAGS, 2, PCI_MSI_FLAGS_64BIT | log2_messages << 1);
    put_word(config->writable, config->msi + PCI_MSI_FLAGS, 2,
             PCI_MSI_FLAGS_ENABLE | (log2_messages ? PCI_MSI_FLAGS_QSIZE : 0));
    put_word(config->writable, config->msi + PCI_MSI_ADDRESS_LO, 4, ~UINT32_C(3));
    put_word(config->writable, config->msi + PCI_MSI_ADDRESS_HI, 4, ~UINT32_C(0));
    put_word(config->writable, config->msi + PCI_MSI_DATA_64, 2, 0xffff);
    return offset;
}

/* Is [offset, offset + size) inside a memory BAR, on a border of 8 bytes? */
static bool inside_bar(const struct pci_config *config, unsigned bar, uint32_t offset,
                       uint32_t size)
{
    return bar < PCI_CONFIG_N_BARS && offset % 8 == 0 &&
           (uint64_t)offset + size <= config->bar_size[bar];
}

int pci_config_add_msix(struct pci_config *config, unsigned vectors, unsigned bar,
                        uint32_t table_offset, uint32_t pending_offset)
{
    uint32_t table_size = vectors * PCI_MSIX_ENTRY_SIZE;
    uint32_t pending_size = (vectors + 63) / 64 * 8;
    int offset;

    if (vectors == 0 || vectors > PCI_MSIX_FLAGS_QSIZE + 1 || config->msix ||
        !inside_bar(config, bar, table_offset, table_size) ||
        !inside_bar(config, bar, pending_offset, pending_size) ||
        (table_offset < pending_offset + pending_size &&
         pending_offset < table_offset + table_size)) {
        return -EINVAL;
    }
    offset = pci_config_add_capability(config, PCI_CAP_ID_MSIX, PCI_CAP_MSIX_SIZEOF);
    if (offset < 0) {
        return offset;
    }
    config->msix = (uint8_t)offset;
    define(config, config->msix + PCI_MSIX_FLAGS, 2, vectors - 1);
    put_word(config->writable, config->msix + PCI_MSIX_FLAGS, 2,
             PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    define(config, config->msix + PCI_MSIX_TABLE, 4, table_offset | bar);
    define(config, config->msix + PCI_MSIX_PBA, 4, pending_offset | bar);
    return offset;
}

/* Is this word the builder's to decide on? Those of BARs are as pci_config_add_bar made them. */
static bool is_builders(unsigned offset)
{
    const unsigned bars_end = PCI_BASE_ADDRESS_0 + 4 * PCI_CONFIG_N_BARS;

    return offset <= PCI_BASE_ADDRESS_0 - 4 ||
           (offset >= bars_end && offset <= PCI_CONFIG_SIZE - 4);
}

void pci_config_allow(struct pci_config *config, unsigned offset, uint32_t bits)
{
    if (is_builders(offset)) {
        put_word(config->writable, offset, 4, get_word(config->writable, offset, 4) | bits);
    }
}

void pci_config_hardwire(struct pci_config *config, unsigned offset, uint32_t bits, uint32_t value)
{
    if (is_builders(offset)) {
        uint32_t old = get_word(config->initial, offset, 4);

        put_word(config->writable, offset, 4, get_word(config->writable, offset, 4) & ~bits);
        define(config, offset, 4, (old & ~bits) | (value & bits));
    }
}

void pci_config_read(const struct pci_config *config, uint64_t offset, void *data, size_t size)
{
    uint8_t *bytes = data;

    for (size_t i = 0; i < size; i++) {
        bool inside = offset < PCI_CONFIG_SIZE && i < PCI_CONFIG_SIZE - offset;

        bytes[i] = inside ? config->value[offset + i] : 0;
    }
}

void pci_config_write(struct pci_config *config, uint64_t offset, const void *data, size_t size)
{
    const uint8_t *bytes = data;

    for (size_t i = 0; i < size && offset < PCI_CONFIG_SIZE && i < PCI_CONFIG_SIZE - offset; i++) {
        uint8_t mask = config->writable[offset + i];
        uint8_t *value = &config->value[offset + i];

        *value = (uint8_t)((*value & ~mask) | (bytes[i] & mask));
    }
}

void pci_config_reset(struct pci_config *config)
{
    memcpy(config->value, config->initial, sizeof(config->value));
}

uint64_t pci_config_bar_address(const struct pci_config *config, unsigned bar)
{
    unsigned offset = PCI_BASE_ADDRESS_0 + 4 * bar;
    uint64_t address;

    if (bar >= PCI_CONFIG_N_BARS || !config->bar_size[bar]) {
        return 0;
    }
    address = get_word(config->value, offset, 4);
    if (address & PCI_BASE_ADDRESS_MEM_TYPE_64) {
        address |= (uint64_t)get_word(config->value, offset + 4, 4) << 32;
    }
    return address & ~(uint64_t)0xf;
}

static uint32_t command(const struct pci_config *config)
{
    return get_word(config->value, PCI_COMMAND, 2);
}

bool pci_config_memory_enabled(const struct pci_config *config)
{
    return command(config) & PCI_COMMAND_MEMORY;
}

bool pci_config_bus_master(const struct pci_config *config)
{
    return command(config) & PCI_COMMAND_MASTER;
}

bool pci_config_intx_disabled(const struct pci_config *config)
{
    return command(config) & PCI_COMMAND_INTX_DISABLE;
}

bool pci_config_msi_enabled(const struct pci_config *config)
{
    return config->msi &&
           (get_word(config->value, config->msi + PCI_MSI_FLAGS, 2) & PCI_MSI_FLAGS_ENABLE);
}

unsigned pci_config_msi_messages(const struct pci_config *config)
{
    unsigned flags;

    if (!config->msi) {
        return 0;
    }
    flags = get_word(config->initial, config->msi + PCI_MSI_FLAGS, 2);
    return 1u << ((flags & PCI_MSI_FLAGS_QMASK) >> 1);
}

bool pci_config_msix_enabled(const struct pci_config *config)
{
    return config->msix &&
           (get_word(config->value, config->msix + PCI_MSIX_FLAGS, 2) & PCI_MSIX_FLAGS_ENABLE);
}

unsigned pci_config_msix_vectors(const struct pci_config *config)
{
    unsigned flags;

    if (!config->msix) {
        return 0;
    }
    flags = get_word(config->initial, config->msix + PCI_MSIX_FLAGS, 2);
    return (flags & PCI_MSIX_FLAGS_QSIZE) + 1;
}

void pci_config_set_intx_status(struct pci_config *config, bool asserted)
{
    if (asserted) {
        config->value[PCI_STATUS] |= PCI_STATUS_INTERRUPT;
    } else {
        config->value[PCI_STATUS] &= (uint8_t)~PCI_STATUS_INTERRUPT;
    }
}

void pci_config_save(const struct pci_config *config, struct save_writer *writer)
{
    save_put_bytes(writer, config->value, sizeof(config->value));
}

int pci_config_load(struct pci_config *config, struct save_section *section)
{
    const uint8_t *value = save_get_bytes(section, sizeof(config->value));

    for (unsigned i = 0; value && i < PCI_CONFIG_SIZE; i++) {
        /* The status of the line is the function's to change, the rest is software's. */
        uint8_t changeable = config->writable[i] | (i == PCI_STATUS ? PCI_STATUS_INTERRUPT : 0);

        if ((value[i] ^ config->initial[i]) & ~changeable) {
            save_spoil(section);
        }
    }
    if (!section->error) {
        memcpy(config->value, value, sizeof(config->value));
    }
    return section->error;
}
