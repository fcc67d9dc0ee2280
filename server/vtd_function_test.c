/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the VT-d unit as a served PCI function: a client maps memory, programs the unit through
 * region writes, and an edu device behind it does DMA that goes where the tables say.
 */
#include "vtd_function.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "client_memory.h"
#include "edu.h"
#include "log.h"
#include "vfio_user/test_client.h"

/* Registers and bits, by their names in the VT-d specification. */
enum {
    VER_REG = 0x00,
    CAP_REG = 0x08,
    GCMD_REG = 0x18,
    GSTS_REG = 0x1c,
    RTADDR_REG = 0x20,
    FSTS_REG = 0x34,
    FECTL_REG = 0x38,
    FEDATA_REG = 0x3c,
    FEADDR_REG = 0x40,
    IQT_REG = 0x88,
    GCMD_SRTP = 1 << 30,
};
#define GCMD_TE (1u << 31)

/* Guest memory: 1 MiB at 1 MiB, and the tables in it. */
enum {
    RAM_FIRST = 0x100000,
    RAM_SIZE = 0x100000,
    ROOT = 0x100000,
    CONTEXT = 0x101000,
    TABLE = 0x102000, /* four levels, one page each */
    DATA = 0x110000,
    IOVA = 0x7000,
    REQUESTER = 0x28, /* 00:05.0 */
};

static struct vtd_function vtd;
static struct edu edu;
static struct viommu_device *device;
static struct vfio_user_endpoint endpoint;
static struct test_client client;
static int ram_fd;
static uint8_t *ram;

static int setup(void **state)
{
    static const struct viommu_vtd_config config = {.address_width = 48};
    struct viommu_device_config device_config = {.requester = REQUESTER};
    struct device_dma dma = unit_dma;
    uint16_t command = PCI_COMMAND_MASTER;

    (void)state;
    assert_int_equal(vtd_function_init(&vtd, "vtd", &config, NULL), 0);
    assert_int_equal(viommu_start(vtd.unit.iommu), 0);
    assert_int_equal(viommu_device_add(vtd.unit.iommu, &device_config, &device), 0);
    dma.opaque = device;
    edu_init(&edu, "edu", &dma);
    pci_config_write(&edu.function.config, PCI_COMMAND, &command, sizeof(command));
    test_client_open(&client, &endpoint, &vtd.function);
    test_client_negotiate(&client);
    ram_fd = memfd_create("ram", MFD_CLOEXEC);
    assert_int_equal(ftruncate(ram_fd, RAM_SIZE), 0);
    ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, ram_fd, 0);
    assert_ptr_not_equal(ram, MAP_FAILED);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    test_client_close(&client);
    viommu_device_remove(device);
    vtd_function_fini(&vtd);
    munmap(ram, RAM_SIZE);
    close(ram_fd);
    return 0;
}

static uint64_t get(uint64_t offset, uint32_t size)
{
    uint64_t value = 0;

    assert_int_equal(test_client_read(&client, 0, offset, &value, size), 0);
    return value;
}

static void put(uint64_t offset, uint32_t size, uint64_t value)
{
    assert_int_equal(test_client_write(&client, 0, offset, &value, size), 0);
    unit_process(&vtd.unit);
}

static void put_entry(uint64_t gpa, uint64_t value)
{
    memcpy(ram + (gpa - RAM_FIRST), &value, sizeof(value));
}

static int map_ram(uint32_t flags)
{
    return test_client_map(&client, RAM_FIRST, RAM_SIZE, 0, flags, ram_fd);
}

/* IOVA leads to DATA for the edu device, and nothing else leads anywhere. */
static void translate_one_page(void)
{
    put_entry(ROOT, CONTEXT | 1);
    put_entry(CONTEXT + 16 * REQUESTER, TABLE | 1);
    put_entry(CONTEXT + 16 * REQUESTER + 8, 1 << 8 | 2);
    for (uint64_t level = 0; level < 3; level++) {
        put_entry(TABLE + level * 0x1000, (TABLE + (level + 1) * 0x1000) | 3);
    }
    put_entry(TABLE + 0x3000 + 8 * (IOVA >> 12), DATA | 3);
    put(RTADDR_REG, 8, ROOT);
    put(GCMD_REG, 4, GCMD_SRTP);
    assert_true(get(GSTS_REG, 4) & GCMD_SRTP);
    put(GCMD_REG, 4, GCMD_TE);
    assert_true(get(GSTS_REG, 4) & GCMD_TE);
}

static void edu_put(uint64_t offset, uint64_t value)
{
    edu.function.ops->bar_write(&edu, 0, offset, &value, 8);
}

static void dma(uint64_t source, uint64_t destination, uint64_t count, uint64_t command)
{
    edu_put(EDU_REG_DMA_SOURCE, source);
    edu_put(EDU_REG_DMA_DESTINATION, destination);
    edu_put(EDU_REG_DMA_COUNT, count);
    edu_put(EDU_REG_DMA_COMMAND, command | EDU_DMA_START);
}

static void it_is_a_host_bridge_with_a_large_bar(void **state)
{
    struct vfio_region_info info = {.argsz = sizeof(info)};
    uint32_t value;

    (void)state;
    assert_int_equal(
        test_client_command(&client, VFIO_USER_DEVICE_GET_REGION_INFO, &info, sizeof(info)), 0);
    memcpy(&info, client.payload, sizeof(info));
    assert_int_equal(info.size, 16 << 20);
    test_client_read(&client, VFIO_PCI_CONFIG_REGION_INDEX, PCI_CLASS_REVISION, &value, 4);
    assert_int_equal(value >> 8, 0x060000);
    value = 0;
    test_client_write(&client, VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND, &value, 2);
    test_client_read(&client, VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND, &value, 2);
    assert_int_equal(value, PCI_COMMAND_MASTER);
    value = 0xfd000000;
    test_client_write(&client, VFIO_PCI_CONFIG_REGION_INDEX, PCI_BASE_ADDRESS_0, &value, 4);
    value = PCI_COMMAND_MEMORY;
    test_client_write(&client, VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND, &value, 2);
    assert_int_equal(vtd.logged_address, 0xfd000000);
}

static void registers_of_any_size(void **state)
{
    uint8_t all[64];
    uint64_t cap = get(CAP_REG, 8);

    (void)state;
    assert_int_not_equal(get(VER_REG, 4), 0);
    assert_int_not_equal(cap, 0);
    assert_int_equal(get(CAP_REG, 4), cap & UINT32_MAX);
    assert_int_equal(get(CAP_REG + 4, 4), cap >> 32);
    assert_int_equal(test_client_read(&client, 0, 0, all, sizeof(all)), 0);
    assert_memory_equal(all + CAP_REG, &cap, 8);
    put(FEDATA_REG, 4, 0x1234);
    assert_int_equal(get(FEDATA_REG, 4), 0x1234);
    for (uint64_t offset = 0; offset < 0x110; offset++) {
        for (uint32_t size = 1; size <= 17; size += 4) {
            assert_int_equal(test_client_read(&client, 0, offset, all, size), 0);
            memset(all, 0, sizeof(all));
            assert_int_equal(test_client_write(&client, 0, offset, all, size), 0);
            unit_process(&vtd.unit);
        }
    }
}

static void beyond_the_registers(void **state)
{
    static uint8_t data[VFIO_USER_MAX_DATA];

    (void)state;
    assert_int_equal(get(vtd.register_size, 8), 0);
    assert_int_equal(get(VTD_ABSENT_IOAPIC - 8, 8), 0);
    assert_int_equal(get(VTD_ABSENT_IOAPIC - 4, 8), 0xffffffff00000000);
    assert_int_equal(get(VTD_ABSENT_IOAPIC + 0x10, 4), 0xffffffff);
    assert_int_equal(get(VTD_BAR_SIZE - 1, 1), 0xff);
    assert_int_equal(test_client_read(&client, 0, 0, data, sizeof(data)), 0);
    assert_int_equal(test_client_read(&client, 0, VTD_BAR_SIZE - sizeof(data), data, sizeof(data)),
                     0);
    assert_int_equal(data[0], 0);
    assert_int_equal(data[sizeof(data) - 1], 0xff);
    memset(data, 0, sizeof(data));
    put(vtd.register_size - 4, 8, UINT64_MAX);
    assert_int_equal(get(vtd.register_size, 4), 0);
}

static void dma_goes_where_the_tables_say(void **state)
{
    (void)state;
    assert_int_equal(map_ram(3), 0);
    translate_one_page();
    memset(ram + (DATA - RAM_FIRST), 0x5a, 256);
    dma(IOVA, EDU_BUFFER, 256, 0);
    assert_int_equal(edu.transfers, 1);
    assert_int_equal(edu.buffer[255], 0x5a);
    dma(EDU_BUFFER, IOVA + 0x100, 256, EDU_DMA_TO_MEMORY);
    assert_int_equal(edu.transfers, 2);
    assert_int_equal(ram[DATA - RAM_FIRST + 0x1ff], 0x5a);
    assert_int_equal(ram[DATA - RAM_FIRST + 0x200], 0);
}

static void a_fault_becomes_a_message(void **state)
{
    struct vfio_user_dma_access access;

    (void)state;
    assert_int_equal(map_ram(3), 0);
    translate_one_page();
    put(FEADDR_REG, 4, 0xfee01000);
    put(FEDATA_REG, 4, 0x4321);
    put(FECTL_REG, 4, 0);
    dma(IOVA + 0x1000, EDU_BUFFER, 16, 0);
    unit_process(&vtd.unit);
    assert_int_equal(edu.refusals, 1);
    assert_int_equal(test_client_receive(&client), 1);
    assert_int_equal(client.header.command, VFIO_USER_DMA_WRITE);
    assert_true(client.header.flags & VFIO_USER_NO_REPLY);
    memcpy(&access, client.payload, sizeof(access));
    assert_int_equal(access.address, 0xfee01000);
    assert_int_equal(client.payload[16], 0x21);
    assert_int_equal(vtd.unit.messages_sent, 1);
    assert_int_not_equal(get(FSTS_REG, 4), 0);
}

static void a_device_may_send_interrupts(void **state)
{
    struct vfio_user_dma_access access;
    uint32_t data = 0x99;

    (void)state;
    memcpy(edu.buffer, &data, sizeof(data));
    dma(EDU_BUFFER, 0xfee00000, 4, EDU_DMA_TO_MEMORY);
    assert_int_equal(test_client_receive(&client), 1);
    memcpy(&access, client.payload, sizeof(access));
    assert_int_equal(access.address, 0xfee00000);
    assert_int_equal(client.payload[16], 0x99);
}

static void memory_that_is_unmapped_is_gone(void **state)
{
    (void)state;
    assert_int_equal(map_ram(3), 0);
    dma(DATA, EDU_BUFFER, 16, 0);
    assert_int_equal(edu.transfers, 1);
    assert_int_equal(test_client_unmap(&client, RAM_FIRST, RAM_SIZE, 0), 0);
    dma(DATA, EDU_BUFFER, 16, 0);
    assert_int_equal(edu.refusals, 1);
    assert_int_equal(map_ram(3), 0);
    dma(DATA, EDU_BUFFER, 16, 0);
    assert_int_equal(edu.transfers, 2);
    /* The client leaves, another comes: nothing is left of the first one's memory. */
    test_client_close(&client);
    dma(DATA, EDU_BUFFER, 16, 0);
    assert_int_equal(edu.refusals, 2);
    test_client_open(&client, &endpoint, &vtd.function);
    test_client_negotiate(&client);
    assert_int_equal(map_ram(3), 0);
    dma(DATA, EDU_BUFFER, 16, 0);
    assert_int_equal(edu.transfers, 3);
}

static void memory_of_other_kinds(void **state)
{
    (void)state;
    /* Read-only memory can be read; what comes without a descriptor is not memory to us. */
    assert_int_equal(map_ram(VFIO_DMA_MAP_FLAG_READ), 0);
    dma(DATA, EDU_BUFFER, 16, 0);
    assert_int_equal(edu.transfers, 1);
    dma(EDU_BUFFER, DATA, 16, EDU_DMA_TO_MEMORY);
    assert_int_equal(edu.refusals, 1);
    assert_int_equal(test_client_map(&client, 0x400000, 0x1000, 0, 3, -1), 0);
    dma(0x400000, EDU_BUFFER, 16, 0);
    assert_int_equal(edu.refusals, 2);
    assert_int_equal(test_client_unmap(&client, 0x400000, 0x1000, 0), 0);
    assert_int_equal(test_client_map(&client, 0x500000, 0x1000, 0, 0, ram_fd), 0);
    dma(0x500000, EDU_BUFFER, 16, 0);
    assert_int_equal(edu.refusals, 3);
    /* And some cannot be. */
    assert_int_equal(test_client_map(&client, 0x600001, 0x1000, 0, 3, ram_fd), -EINVAL);
    assert_int_equal(test_client_map(&client, 0x600000, 0x1001, 0, 3, ram_fd), -EINVAL);
    assert_int_equal(test_client_map(&client, 0x600000, 0x1000, 1, 3, ram_fd), -EINVAL);
    assert_int_equal(test_client_map(&client, 0x600000, RAM_SIZE, 0x1000, 3, ram_fd), -EINVAL);
    assert_int_equal(test_client_map(&client, 0x600000, 0x1000, 0, 3, client.fd), -EINVAL);
}

static void memory_cut_short_is_survived(void **state)
{
    (void)state;
    assert_int_equal(client_memory_guard(), 0);
    assert_int_equal(map_ram(3), 0);
    assert_int_equal(ftruncate(ram_fd, 0), 0);
    edu.buffer[0] = 1;
    dma(DATA, EDU_BUFFER, 16, 0);
    assert_int_equal(edu.buffer[0], 0);
    unit_report(&vtd.unit);
    assert_int_equal(vtd.unit.losses_logged, client_memory_losses());
    /* The unit reads tables there, too. */
    put(RTADDR_REG, 8, ROOT);
    put(GCMD_REG, 4, GCMD_SRTP);
    put(GCMD_REG, 4, GCMD_TE);
    dma(DATA, EDU_BUFFER, 16, 0);
    assert_int_equal(edu.refusals, 1);
}

static void reset_turns_translation_off(void **state)
{
    (void)state;
    assert_int_equal(map_ram(3), 0);
    translate_one_page();
    assert_int_equal(test_client_command(&client, VFIO_USER_DEVICE_RESET, NULL, 0), 0);
    assert_int_equal(get(GSTS_REG, 4), 0);
    dma(DATA, EDU_BUFFER, 16, 0);
    assert_int_equal(edu.transfers, 1);
    translate_one_page();
    dma(IOVA, EDU_BUFFER, 16, 0);
    assert_int_equal(edu.transfers, 2);
}

static void keep_it(void *opaque)
{
    (void)opaque;
}

/* The edu's DMA address space is the memory's while translation is off. */
static struct device_dma_pin *pin_data(void)
{
    const struct device_dma_range range = {.iova = DATA, .size = 16};
    const struct device_dma_request request = {.ranges = &range, .count = 1, .revoke = keep_it};
    struct device_dma_pin *pin;
    struct iovec iov[1];
    size_t count = 1;

    assert_int_equal(unit_dma.pin(device, &request, iov, &count, &pin), 0);
    return pin;
}

static void unpin(struct device_dma_pin *pin)
{
    unit_dma.unpin(device, pin);
    for (unsigned i = 0; i < 1000 && vtd.unit.leaving; i++) {
        unit_process(&vtd.unit);
        usleep(1000);
    }
    assert_null(vtd.unit.leaving);
    assert_int_equal(vtd.unit.leaving_count, 0);
    vfio_user_endpoint_update(&endpoint);
}

/* A client that wants no replies cannot pile up regions that leave, either. */
static void unmaps_without_a_reply_wait_too(void **state)
{
    struct vfio_user_dma_unmap unmap = {.argsz = sizeof(unmap), .address = RAM_FIRST,
                                        .size = RAM_SIZE};
    struct vfio_user_dma_map map = {.argsz = sizeof(map), .flags = 3, .size = 0x1000};
    struct device_dma_pin *pin;

    (void)state;
    assert_int_equal(map_ram(3), 0);
    pin = pin_data();
    for (unsigned i = 0; i < 10; i++) {
        test_client_send(&client, VFIO_USER_DMA_UNMAP, VFIO_USER_NO_REPLY, &unmap, sizeof(unmap),
                         NULL, 0);
        unmap.address = map.address = 0x1000000 + i * 0x1000;
        unmap.size = 0x1000;
        test_client_send(&client, VFIO_USER_DMA_MAP, VFIO_USER_NO_REPLY, &map, sizeof(map),
                         &ram_fd, 1);
    }
    assert_int_equal(vfio_user_endpoint_ready(&endpoint), 0);
    assert_int_equal(vtd.unit.leaving_count, 1);
    assert_int_equal(vfio_user_endpoint_events(&endpoint), 0);
    unpin(pin);
    for (unsigned i = 0; i < 20; i++) {
        assert_int_equal(vfio_user_endpoint_ready(&endpoint), 0);
        unit_process(&vtd.unit);
    }
    assert_int_equal(test_client_receive(&client), 0);
    assert_int_equal(test_client_unmap(&client, map.address, 0x1000, 0), 0);
    assert_int_equal(endpoint.dma.n, 0);
}

/* Nor can one that leaves and comes back. */
static void what_leaves_is_bounded(void **state)
{
    struct device_dma_pin *pin;

    (void)state;
    assert_int_equal(map_ram(3), 0);
    pin = pin_data();
    for (uint64_t i = 0; i < 5000; i++) {
        assert_int_equal(test_client_map(&client, 0x10000000 + i * 0x1000, 0x1000, 0, 3, ram_fd),
                         0);
    }
    test_client_close(&client);
    assert_int_equal(vtd.unit.leaving_count, 5001);
    test_client_open(&client, &endpoint, &vtd.function);
    test_client_negotiate(&client);
    assert_int_equal(map_ram(3), -EBUSY);
    unpin(pin);
    assert_int_equal(map_ram(3), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(it_is_a_host_bridge_with_a_large_bar),
        TEST(registers_of_any_size),
        TEST(beyond_the_registers),
        TEST(dma_goes_where_the_tables_say),
        TEST(a_fault_becomes_a_message),
        TEST(a_device_may_send_interrupts),
        TEST(memory_that_is_unmapped_is_gone),
        TEST(memory_of_other_kinds),
        TEST(memory_cut_short_is_survived),
        TEST(reset_turns_translation_off),
        TEST(unmaps_without_a_reply_wait_too),
        TEST(what_leaves_is_bounded),
    };

    server_log_to(NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
