/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of PCI configuration space: what software can read, size, change and not change.
 */
#include "pci_config.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static const struct pci_ids ids = {
    .vendor = 0x1234,
    .device = 0x5678,
    .subsystem_vendor = 0x9abc,
    .subsystem = 0xdef0,
    .revision = 3,
    .interrupt_pin = 1,
    .class_code = 0x060000,
};

static uint32_t get(const struct pci_config *config, unsigned offset, unsigned size)
{
    uint32_t value = 0;

    pci_config_read(config, offset, &value, size);
    return value;
}

static void put(struct pci_config *config, unsigned offset, unsigned size, uint32_t value)
{
    pci_config_write(config, offset, &value, size);
}

static void ids_are_readable_and_fixed(void **state)
{
    struct pci_config config;
    uint8_t ones[PCI_CONFIG_SIZE];

    (void)state;
    pci_config_init(&config, &ids);
    memset(ones, 0xff, sizeof(ones));
    pci_config_write(&config, 0, ones, sizeof(ones));
    assert_int_equal(get(&config, PCI_VENDOR_ID, 4), 0x56781234);
    assert_int_equal(get(&config, PCI_CLASS_REVISION, 4), 0x06000003);
    assert_int_equal(get(&config, PCI_SUBSYSTEM_VENDOR_ID, 4), 0xdef09abc);
    assert_int_equal(get(&config, PCI_INTERRUPT_PIN, 1), 1);
    assert_int_equal(get(&config, PCI_HEADER_TYPE, 1), 0);
    assert_int_equal(get(&config, PCI_STATUS, 2), 0);
    assert_int_equal(get(&config, PCI_INTERRUPT_LINE, 1), 0xff);
}

static void bars_can_be_sized_and_placed(void **state)
{
    struct pci_config config;

    (void)state;
    pci_config_init(&config, &ids);
    assert_int_equal(pci_config_add_bar(&config, 0, 16 << 20, PCI_BAR_MEMORY32, false), 0);
    assert_int_equal(pci_config_add_bar(&config, 2, UINT64_C(1) << 33, PCI_BAR_MEMORY64, true), 0);
    put(&config, PCI_BASE_ADDRESS_0, 4, UINT32_MAX);
    assert_int_equal(get(&config, PCI_BASE_ADDRESS_0, 4), 0xff000000);
    put(&config, PCI_BASE_ADDRESS_0, 4, 0xfd123456);
    assert_int_equal(get(&config, PCI_BASE_ADDRESS_0, 4), 0xfd000000);
    assert_int_equal(pci_config_bar_address(&config, 0), 0xfd000000);
    put(&config, PCI_BASE_ADDRESS_2, 4, UINT32_MAX);
    put(&config, PCI_BASE_ADDRESS_3, 4, UINT32_MAX);
    assert_int_equal(get(&config, PCI_BASE_ADDRESS_2, 4), 0xc);
    assert_int_equal(get(&config, PCI_BASE_ADDRESS_3, 4), 0xfffffffe);
    assert_int_equal(pci_config_bar_address(&config, 2), UINT64_C(0xfffffffe00000000));
    assert_int_equal(pci_config_bar_address(&config, 1), 0);
    assert_int_equal(pci_config_bar_address(&config, 77), 0);
}

static void bars_that_cannot_be_are_refused(void **state)
{
    struct pci_config config;

    (void)state;
    pci_config_init(&config, &ids);
    assert_int_equal(pci_config_add_bar(&config, 0, 8, PCI_BAR_MEMORY32, false), -EINVAL);
    assert_int_equal(pci_config_add_bar(&config, 0, 48, PCI_BAR_MEMORY32, false), -EINVAL);
    assert_int_equal(pci_config_add_bar(&config, 6, 16, PCI_BAR_MEMORY32, false), -EINVAL);
    assert_int_equal(pci_config_add_bar(&config, UINT32_MAX, 16, PCI_BAR_MEMORY64, false), -EINVAL);
    assert_int_equal(pci_config_add_bar(&config, 5, 16, PCI_BAR_MEMORY64, false), -EINVAL);
    assert_int_equal(pci_config_add_bar(&config, 0, UINT64_C(1) << 32, PCI_BAR_MEMORY32, false),
                     -EINVAL);
    assert_int_equal(pci_config_add_bar(&config, 1, 16, PCI_BAR_MEMORY64, false), 0);
    assert_int_equal(pci_config_add_bar(&config, 2, 16, PCI_BAR_MEMORY32, false), -EINVAL);
    assert_int_equal(pci_config_add_bar(&config, 1, 16, PCI_BAR_MEMORY32, false), -EINVAL);
}

static void command_bits(void **state)
{
    struct pci_config config;

    (void)state;
    pci_config_init(&config, &ids);
    put(&config, PCI_COMMAND, 2, 0xffff);
    assert_true(pci_config_bus_master(&config));
    assert_true(pci_config_memory_enabled(&config));
    assert_true(pci_config_intx_disabled(&config));
    assert_int_equal(get(&config, PCI_COMMAND, 2) & PCI_COMMAND_IO, 0);
    pci_config_reset(&config);
    assert_false(pci_config_bus_master(&config));
    pci_config_hardwire(&config, PCI_COMMAND, PCI_COMMAND_MASTER, PCI_COMMAND_MASTER);
    put(&config, PCI_COMMAND, 2, 0);
    assert_true(pci_config_bus_master(&config));
    pci_config_reset(&config);
    assert_true(pci_config_bus_master(&config));
}

static void capabilities_form_a_list(void **state)
{
    struct pci_config config;
    int msi, vendor;

    (void)state;
    pci_config_init(&config, &ids);
    assert_int_equal(get(&config, PCI_STATUS, 2) & PCI_STATUS_CAP_LIST, 0);
    assert_int_equal(pci_config_msi_messages(&config), 0);
    msi = pci_config_add_msi(&config, 3);
    vendor = pci_config_add_capability(&config, PCI_CAP_ID_VNDR, 6);
    assert_int_equal(msi, 0x40);
    assert_true(vendor >= msi + 14 && vendor % 4 == 0);
    assert_int_equal(pci_config_add_msi(&config, 0), -EINVAL);
    assert_true(get(&config, PCI_STATUS, 2) & PCI_STATUS_CAP_LIST);
    assert_int_equal(get(&config, PCI_CAPABILITY_LIST, 1), msi);
    assert_int_equal(get(&config, (unsigned)msi, 2), (unsigned)vendor << 8 | PCI_CAP_ID_MSI);
    assert_int_equal(get(&config, (unsigned)vendor, 2), PCI_CAP_ID_VNDR);
    assert_int_equal(pci_config_msi_messages(&config), 8);
    pci_config_allow(&config, (unsigned)vendor, 0xffff0000);
    put(&config, (unsigned)vendor, 4, UINT32_MAX);
    assert_int_equal(get(&config, (unsigned)vendor, 4), 0xffff0000 | PCI_CAP_ID_VNDR);
    assert_int_equal(pci_config_add_capability(&config, PCI_CAP_ID_VNDR, 200), -ENOSPC);
    assert_int_equal(pci_config_add_capability(&config, PCI_CAP_ID_VNDR, 1), -ENOSPC);
    assert_true(pci_config_add_capability(&config, PCI_CAP_ID_VNDR, 256 - 0x58) > 0);
    assert_int_equal(pci_config_add_capability(&config, PCI_CAP_ID_VNDR, 2), -ENOSPC);
}

/* What the builder did to the words of BARs and of later capabilities does not spoil them. */
static void bars_and_capabilities_are_whole(void **state)
{
    struct pci_config config;

    (void)state;
    pci_config_init(&config, &ids);
    for (unsigned offset = PCI_BASE_ADDRESS_0 - 3; offset < PCI_BASE_ADDRESS_5 + 4; offset++) {
        pci_config_allow(&config, offset, UINT32_MAX);
        pci_config_hardwire(&config, offset, 0x30, 0x30);
    }
    assert_int_equal(pci_config_add_bar(&config, 0, 4096, PCI_BAR_MEMORY32, false), 0);
    pci_config_allow(&config, PCI_BASE_ADDRESS_0, UINT32_MAX);
    put(&config, PCI_BASE_ADDRESS_0, 4, UINT32_MAX);
    assert_int_equal(get(&config, PCI_BASE_ADDRESS_0, 4), 0xfffff000);
    assert_int_equal(get(&config, PCI_BASE_ADDRESS_1, 4), 0);
    assert_int_equal(get(&config, PCI_BASE_ADDRESS_5, 4), 0);

    pci_config_allow(&config, 0x40 + PCI_MSI_ADDRESS_LO, UINT32_MAX);
    put(&config, 0x40 + PCI_MSI_ADDRESS_LO, 4, UINT32_MAX);
    assert_int_equal(pci_config_add_msi(&config, 0), 0x40);
    assert_int_equal(get(&config, 0x40 + PCI_MSI_ADDRESS_LO, 4), 0);
    put(&config, 0x40 + PCI_MSI_ADDRESS_LO, 4, UINT32_MAX);
    assert_int_equal(get(&config, 0x40 + PCI_MSI_ADDRESS_LO, 4), 0xfffffffc);
}

static void msi_registers(void **state)
{
    struct pci_config config;
    unsigned msi;

    (void)state;
    pci_config_init(&config, &ids);
    assert_int_equal(pci_config_add_msi(&config, 6), -EINVAL);
    msi = (unsigned)pci_config_add_msi(&config, 0);
    assert_int_equal(pci_config_msi_messages(&config), 1);
    put(&config, msi + PCI_MSI_FLAGS, 2, 0xffff);
    assert_int_equal(get(&config, msi + PCI_MSI_FLAGS, 2),
                     PCI_MSI_FLAGS_ENABLE | PCI_MSI_FLAGS_64BIT);
    assert_true(pci_config_msi_enabled(&config));
    put(&config, msi + PCI_MSI_ADDRESS_LO, 4, UINT32_MAX);
    put(&config, msi + PCI_MSI_ADDRESS_HI, 4, UINT32_MAX);
    put(&config, msi + PCI_MSI_DATA_64, 4, UINT32_MAX);
    assert_int_equal(get(&config, msi + PCI_MSI_ADDRESS_LO, 4), 0xfffffffc);
    assert_int_equal(get(&config, msi + PCI_MSI_ADDRESS_HI, 4), 0xffffffff);
    assert_int_equal(get(&config, msi + PCI_MSI_DATA_64, 4), 0xffff);
    pci_config_reset(&config);
    assert_false(pci_config_msi_enabled(&config));
}

static void msix_registers(void **state)
{
    struct pci_config config;
    unsigned msix;

    (void)state;
    pci_config_init(&config, &ids);
    assert_int_equal(pci_config_msix_vectors(&config), 0);
    assert_false(pci_config_msix_enabled(&config));
    /* Table and pending bits have to be inside a memory BAR, apart from each other. */
    assert_int_equal(pci_config_add_msix(&config, 8, 2, 0, 0x800), -EINVAL);
    assert_int_equal(pci_config_add_bar(&config, 2, 0x1000, PCI_BAR_MEMORY64, false), 0);
    assert_int_equal(pci_config_add_msix(&config, 0, 2, 0, 0x800), -EINVAL);
    assert_int_equal(pci_config_add_msix(&config, 2049, 2, 0, 0x800), -EINVAL);
    assert_int_equal(pci_config_add_msix(&config, 8, 3, 0, 0x800), -EINVAL);
    assert_int_equal(pci_config_add_msix(&config, 8, 6, 0, 0x800), -EINVAL);
    assert_int_equal(pci_config_add_msix(&config, 8, 2, 4, 0x800), -EINVAL);
    assert_int_equal(pci_config_add_msix(&config, 8, 2, 0xf88, 0), -EINVAL);
    assert_int_equal(pci_config_add_msix(&config, 8, 2, 0, 0x1000), -EINVAL);
    assert_int_equal(pci_config_add_msix(&config, 8, 2, 0, 0x78), -EINVAL);
    assert_int_equal(pci_config_add_msix(&config, 8, 2, 8, 0x80), -EINVAL);
    msix = (unsigned)pci_config_add_msix(&config, 65, 2, 0x100, 0xff0);
    assert_int_equal(pci_config_add_msix(&config, 8, 2, 0, 0x800), -EINVAL);
    assert_int_equal(pci_config_msix_vectors(&config), 65);
    assert_int_equal(get(&config, msix, 1), PCI_CAP_ID_MSIX);
    assert_int_equal(get(&config, msix + PCI_MSIX_FLAGS, 2), 64);
    assert_int_equal(get(&config, msix + PCI_MSIX_TABLE, 4), 0x102);
    assert_int_equal(get(&config, msix + PCI_MSIX_PBA, 4), 0xff2);
    put(&config, msix + PCI_MSIX_TABLE, 4, UINT32_MAX);
    put(&config, msix + PCI_MSIX_PBA, 4, UINT32_MAX);
    put(&config, msix + PCI_MSIX_FLAGS, 2, 0xffff);
    assert_int_equal(get(&config, msix + PCI_MSIX_FLAGS, 2),
                     PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL | 64);
    assert_int_equal(get(&config, msix + PCI_MSIX_TABLE, 4), 0x102);
    assert_int_equal(get(&config, msix + PCI_MSIX_PBA, 4), 0xff2);
    assert_true(pci_config_msix_enabled(&config));
    pci_config_reset(&config);
    assert_false(pci_config_msix_enabled(&config));
}

static void any_offset_and_size_is_harmless(void **state)
{
    struct pci_config config;
    uint8_t data[600];

    (void)state;
    pci_config_init(&config, &ids);
    memset(data, 0xff, sizeof(data));
    pci_config_write(&config, 250, data, sizeof(data));
    pci_config_write(&config, UINT64_MAX, data, sizeof(data));
    pci_config_write(&config, UINT64_MAX - 1, data, sizeof(data));
    pci_config_read(&config, UINT64_MAX - 1, data, 16);
    for (int i = 0; i < 16; i++) {
        assert_int_equal(data[i], 0);
    }
    memset(data, 0xff, sizeof(data));
    pci_config_read(&config, 0, data, sizeof(data));
    assert_int_equal(data[0], 0x34);
    assert_int_equal(data[256], 0);
    assert_int_equal(data[599], 0);
    pci_config_allow(&config, 1000, 1);
    pci_config_hardwire(&config, 1000, 1, 1);
    pci_config_allow(&config, UINT32_MAX, 1);
    /* One write over several registers counts for each. */
    memset(data, 0xff, 8);
    pci_config_write(&config, PCI_COMMAND - 1, data, 4);
    assert_true(pci_config_bus_master(&config));
    assert_int_equal(get(&config, PCI_VENDOR_ID, 4), 0x56781234);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_readable_and_fixed),
        cmocka_unit_test(bars_can_be_sized_and_placed),
        cmocka_unit_test(bars_that_cannot_be_are_refused),
        cmocka_unit_test(command_bits),
        cmocka_unit_test(capabilities_form_a_list),
        cmocka_unit_test(bars_and_capabilities_are_whole),
        cmocka_unit_test(msi_registers),
        cmocka_unit_test(msix_registers),
        cmocka_unit_test(any_offset_and_size_is_harmless),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
