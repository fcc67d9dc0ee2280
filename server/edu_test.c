/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the edu device against a memory and a bus of the test's own.
 */
#include "edu.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "save/stream.h"

enum {
    RAM_FIRST = 0x100000,
    RAM_SIZE = 0x3000,
};

/* High addresses lead to the same memory: no bit of an address may be lost on the way. */
#define RAM_HIGH UINT64_C(0xfedcba9800000000)

static struct edu edu;
static uint8_t ram[RAM_SIZE];
static unsigned messages, resets;
static bool line;

static int find(uint64_t iova, size_t size)
{
    if (iova >= RAM_HIGH) {
        iova -= RAM_HIGH;
    }
    if (iova < RAM_FIRST || iova + size > RAM_FIRST + RAM_SIZE) {
        return -EFAULT;
    }
    return (int)(iova - RAM_FIRST);
}

static int ram_read(void *opaque, uint64_t iova, void *data, size_t size)
{
    int at = find(iova, size);

    (void)opaque;
    if (at < 0) {
        return at;
    }
    memcpy(data, ram + at, size);
    return 0;
}

static int ram_write(void *opaque, uint64_t iova, const void *data, size_t size)
{
    int at = find(iova, size);

    (void)opaque;
    if (at < 0) {
        return at;
    }
    memcpy(ram + at, data, size);
    return 0;
}

static void bus_message(void *opaque, unsigned vector)
{
    (void)opaque;
    assert_int_equal(vector, 0);
    messages++;
}

static void bus_line(void *opaque, bool level)
{
    (void)opaque;
    line = level;
}

static const struct pci_bus_ops bus = {
    .message_interrupt = bus_message,
    .line_interrupt = bus_line,
};

static void count_reset(void *opaque)
{
    (void)opaque;
    resets++;
}

static uint64_t get(uint64_t offset, size_t size)
{
    uint64_t value = 0;

    edu.function.ops->bar_read(&edu, 0, offset, &value, size);
    return value;
}

static void put(uint64_t offset, size_t size, uint64_t value)
{
    edu.function.ops->bar_write(&edu, 0, offset, &value, size);
}

static void set_config(unsigned offset, uint16_t value)
{
    pci_config_write(&edu.function.config, offset, &value, sizeof(value));
    edu.function.ops->config_written(&edu, offset, sizeof(value));
}

static void dma(uint64_t source, uint64_t destination, uint64_t count, uint64_t command)
{
    put(EDU_REG_DMA_SOURCE, 8, source);
    put(EDU_REG_DMA_DESTINATION, 8, destination);
    put(EDU_REG_DMA_COUNT, 8, count);
    put(EDU_REG_DMA_COMMAND, 8, command);
    assert_int_equal(get(EDU_REG_DMA_COMMAND, 8) & EDU_DMA_START, 0);
}

static int setup(void **state)
{
    static const struct device_dma memory = {.read = ram_read, .write = ram_write};

    (void)state;
    edu_init(&edu, "edu", &memory);
    edu.function.bus = &bus;
    edu.dma.reset = count_reset;
    messages = resets = 0;
    line = false;
    memset(ram, 0, sizeof(ram));
    set_config(PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    return 0;
}

static void registers(void **state)
{
    (void)state;
    assert_int_equal(get(EDU_REG_IDENTIFICATION, 4), 0x010000ed);
    put(EDU_REG_IDENTIFICATION, 4, 5);
    assert_int_equal(get(EDU_REG_IDENTIFICATION, 4), 0x010000ed);
    put(EDU_REG_LIVENESS, 4, 0x12345678);
    assert_int_equal(get(EDU_REG_LIVENESS, 4), 0xedcba987);
    put(EDU_REG_FACTORIAL, 4, 5);
    assert_int_equal(get(EDU_REG_FACTORIAL, 4), 120);
    put(EDU_REG_FACTORIAL, 4, 0);
    assert_int_equal(get(EDU_REG_FACTORIAL, 4), 1);
    put(EDU_REG_FACTORIAL, 4, 33);
    assert_int_equal(get(EDU_REG_FACTORIAL, 4), 0x80000000);
    put(EDU_REG_FACTORIAL, 4, UINT32_MAX);
    assert_int_equal(get(EDU_REG_FACTORIAL, 4), 0);
    put(EDU_REG_STATUS, 4, UINT32_MAX);
    assert_int_equal(get(EDU_REG_STATUS, 4), EDU_STATUS_INTERRUPT);
}

static void dma_registers_are_64_bits_wide(void **state)
{
    (void)state;
    put(EDU_REG_DMA_SOURCE, 8, UINT64_C(0x1122334455667788));
    assert_int_equal(get(EDU_REG_DMA_SOURCE, 8), UINT64_C(0x1122334455667788));
    assert_int_equal(get(EDU_REG_DMA_SOURCE, 4), 0x55667788);
    assert_int_equal(get(EDU_REG_DMA_SOURCE + 4, 4), 0x11223344);
    put(EDU_REG_DMA_SOURCE + 4, 4, 0xaabbccdd);
    put(EDU_REG_DMA_SOURCE, 4, 0x99);
    assert_int_equal(get(EDU_REG_DMA_SOURCE, 8), UINT64_C(0xaabbccdd00000099));
}

static void odd_accesses_do_nothing(void **state)
{
    static uint8_t large[EDU_BAR_SIZE];

    (void)state;
    put(EDU_REG_LIVENESS, 4, 0);
    put(EDU_REG_LIVENESS, 2, 0x1234);
    put(EDU_REG_LIVENESS, 8, 0x1234);
    put(EDU_REG_LIVENESS - 2, 4, 0x1234);
    assert_int_equal(get(EDU_REG_LIVENESS, 4), UINT32_MAX);
    assert_int_equal(get(EDU_REG_IDENTIFICATION, 1), 0xff);
    assert_int_equal(get(EDU_REG_IDENTIFICATION, 8), UINT64_MAX);
    assert_int_equal(get(EDU_REG_DMA_SOURCE + 4, 8), UINT64_MAX);
    assert_int_equal(get(0xa0, 8), UINT64_MAX);
    put(0xa0, 8, 1);
    put(EDU_REG_DMA_SOURCE + 4, 8, 1);
    assert_int_equal(get(EDU_REG_DMA_SOURCE, 8), 0);
    memset(large, 0xff, sizeof(large));
    edu.function.ops->bar_write(&edu, 0, 0, large, sizeof(large));
    edu.function.ops->bar_read(&edu, 0, 0, large, sizeof(large));
    assert_int_equal(large[0], 0xff);
    assert_int_equal(edu.transfers + edu.refusals, 0);
}

static void dma_both_ways(void **state)
{
    (void)state;
    memset(ram, 0x5a, 100);
    dma(RAM_FIRST, EDU_BUFFER, 100, EDU_DMA_START);
    assert_int_equal(edu.transfers, 1);
    assert_int_equal(edu.buffer[99], 0x5a);
    assert_int_equal(edu.buffer[100], 0);
    dma(EDU_BUFFER + 50, RAM_HIGH + RAM_FIRST + 0x1000, 51, EDU_DMA_START | EDU_DMA_TO_MEMORY);
    assert_int_equal(edu.transfers, 2);
    assert_int_equal(ram[0x1000], 0x5a);
    assert_int_equal(ram[0x1000 + 49], 0x5a);
    assert_int_equal(ram[0x1000 + 50], 0);
    /* The whole buffer, and nothing at all. */
    dma(RAM_FIRST, EDU_BUFFER, EDU_BUFFER_SIZE, EDU_DMA_START);
    dma(RAM_FIRST, EDU_BUFFER + EDU_BUFFER_SIZE, 0, EDU_DMA_START);
    assert_int_equal(edu.transfers, 4);
    assert_int_equal(messages, 0);
    assert_false(line);
}

static void dma_that_leaves_the_buffer_is_refused(void **state)
{
    static const struct {
        uint64_t address, count;
    } bad[] = {
        {EDU_BUFFER - 1, 1},
        {EDU_BUFFER, EDU_BUFFER_SIZE + 1},
        {EDU_BUFFER + 1, EDU_BUFFER_SIZE},
        {EDU_BUFFER, UINT64_MAX},
        {EDU_BUFFER + EDU_BUFFER_SIZE + 1, 0},
        {UINT64_MAX, 1},
        {0, 1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        dma(RAM_FIRST, bad[i].address, bad[i].count, EDU_DMA_START);
        dma(bad[i].address, RAM_FIRST, bad[i].count, EDU_DMA_START | EDU_DMA_TO_MEMORY);
    }
    assert_int_equal(edu.transfers, 0);
    assert_int_equal(edu.refusals, 2 * sizeof(bad) / sizeof(bad[0]));
}

static void refused_dma_changes_nothing(void **state)
{
    (void)state;
    edu.buffer[0] = 7;
    dma(0x1000, EDU_BUFFER, 16, EDU_DMA_START | EDU_DMA_INTERRUPT);
    assert_int_equal(edu.buffer[0], 7);
    assert_int_equal(edu.refusals, 1);
    assert_true(line);
    assert_int_equal(get(EDU_REG_INTERRUPT_STATUS, 4), EDU_INTERRUPT_DMA);
    set_config(PCI_COMMAND, PCI_COMMAND_MEMORY);
    dma(RAM_FIRST, EDU_BUFFER, 16, EDU_DMA_START);
    assert_int_equal(edu.buffer[0], 7);
    assert_int_equal(edu.refusals, 2);
}

static void line_interrupt(void **state)
{
    uint16_t status;

    (void)state;
    put(EDU_REG_INTERRUPT_RAISE, 4, 0x30);
    assert_true(line);
    assert_int_equal(get(EDU_REG_INTERRUPT_STATUS, 4), 0x30);
    put(EDU_REG_INTERRUPT_ACK, 4, 0x10);
    assert_true(line);
    /* The command register holds the line down; the status register still tells. */
    set_config(PCI_COMMAND, PCI_COMMAND_INTX_DISABLE);
    assert_false(line);
    pci_config_read(&edu.function.config, PCI_STATUS, &status, sizeof(status));
    assert_true(status & PCI_STATUS_INTERRUPT);
    set_config(PCI_COMMAND, 0);
    assert_true(line);
    put(EDU_REG_INTERRUPT_ACK, 4, 0x20);
    assert_false(line);
    pci_config_read(&edu.function.config, PCI_STATUS, &status, sizeof(status));
    assert_false(status & PCI_STATUS_INTERRUPT);
    put(EDU_REG_INTERRUPT_RAISE, 4, 0);
    assert_false(line);
    assert_int_equal(messages, 0);
}

static void message_interrupt(void **state)
{
    (void)state;
    set_config(edu.function.config.msi + PCI_MSI_FLAGS, PCI_MSI_FLAGS_ENABLE);
    put(EDU_REG_INTERRUPT_RAISE, 4, 1);
    put(EDU_REG_INTERRUPT_RAISE, 4, 1);
    assert_int_equal(messages, 2);
    put(EDU_REG_STATUS, 4, EDU_STATUS_INTERRUPT);
    put(EDU_REG_FACTORIAL, 4, 3);
    assert_int_equal(messages, 3);
    dma(RAM_FIRST, EDU_BUFFER, 4, EDU_DMA_START | EDU_DMA_INTERRUPT);
    assert_int_equal(messages, 4);
    assert_int_equal(get(EDU_REG_INTERRUPT_STATUS, 4), 0x101);
    put(EDU_REG_INTERRUPT_ACK, 4, UINT32_MAX);
    assert_false(line);
}

static void reset(void **state)
{
    (void)state;
    put(EDU_REG_LIVENESS, 4, 1);
    put(EDU_REG_INTERRUPT_RAISE, 4, 1);
    dma(RAM_FIRST, EDU_BUFFER, 4, EDU_DMA_START);
    edu.buffer[0] = 1;
    assert_true(line);
    edu.function.ops->reset(&edu);
    assert_false(line);
    assert_int_equal(resets, 1);
    assert_int_equal(get(EDU_REG_LIVENESS, 4), 0);
    assert_int_equal(get(EDU_REG_DMA_SOURCE, 8), 0);
    assert_int_equal(edu.buffer[0], 0);
}

/* Saves the device and loads it into another one, with `change` done to a byte of it. Returns the
 * error of loading. */
static int move(struct edu *to, size_t at, uint8_t change)
{
    struct save_writer writer;
    struct save_section section = {.kind = 1};
    uint8_t bytes[8192];
    int ret;

    save_writer_init(&writer, SAVE_SERVER);
    save_begin(&writer, 1, 0, 1, 0);
    edu_save(&edu, &writer);
    section.left = writer.size - (writer.section + 24);
    assert_true(section.left <= sizeof(bytes));
    memcpy(bytes, writer.data + writer.size - section.left, section.left);
    save_writer_fini(&writer);
    bytes[at] ^= change;
    section.at = bytes;
    edu_init(to, "next", &edu.dma);
    ret = edu_load(to, &section);
    return ret < 0 ? ret : save_close(&section);
}

static void saved_and_loaded(void **state)
{
    static struct edu next;
    const size_t registers = PCI_CONFIG_SIZE;

    (void)state;
    set_config(PCI_COMMAND, PCI_COMMAND_MASTER);
    put(EDU_REG_LIVENESS, 4, 1);
    put(EDU_REG_FACTORIAL, 4, 5);
    put(EDU_REG_STATUS, 4, 0x80);
    put(EDU_REG_INTERRUPT_RAISE, 4, 0x30);
    put(EDU_REG_DMA_SOURCE, 8, RAM_FIRST);
    put(EDU_REG_DMA_DESTINATION, 8, EDU_BUFFER);
    put(EDU_REG_DMA_COUNT, 8, 16);
    memset(ram, 0x44, 16);
    put(EDU_REG_DMA_COMMAND, 8, EDU_DMA_START);
    assert_int_equal(move(&next, 0, 0), 0);
    assert_true(pci_config_bus_master(&next.function.config));
    assert_int_equal(next.liveness, ~1u);
    assert_int_equal(next.factorial, 120);
    assert_int_equal(next.status, 0x80);
    assert_int_equal(next.interrupt_status, 0x30);
    assert_int_equal(next.dma_source, RAM_FIRST);
    assert_int_equal(next.dma_destination, EDU_BUFFER);
    assert_int_equal(next.dma_count, 16);
    assert_int_equal(next.dma_command, edu.dma_command);
    assert_memory_equal(next.buffer, edu.buffer, EDU_BUFFER_SIZE);
    assert_int_equal(next.buffer[15], 0x44);
    /* What software cannot have written is refused: an id, a status bit, a DMA that runs. */
    assert_int_equal(move(&next, PCI_VENDOR_ID, 1), -EBADMSG);
    assert_int_equal(move(&next, PCI_COMMAND + 1, 0x80), -EBADMSG);
    assert_int_equal(move(&next, registers + 8, 1), -EBADMSG);
    assert_int_equal(move(&next, registers + 40, EDU_DMA_START), -EBADMSG);
    assert_int_equal(move(&next, PCI_COMMAND, PCI_COMMAND_MEMORY), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(saved_and_loaded, setup, NULL),
        cmocka_unit_test_setup(registers, setup),
        cmocka_unit_test_setup(dma_registers_are_64_bits_wide, setup),
        cmocka_unit_test_setup(odd_accesses_do_nothing, setup),
        cmocka_unit_test_setup(dma_both_ways, setup),
        cmocka_unit_test_setup(dma_that_leaves_the_buffer_is_refused, setup),
        cmocka_unit_test_setup(refused_dma_changes_nothing, setup),
        cmocka_unit_test_setup(line_interrupt, setup),
        cmocka_unit_test_setup(message_interrupt, setup),
        cmocka_unit_test_setup(reset, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
