/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of the virtio transport over PCI: capabilities, registers, status, interrupts, state. */
#include "virtio/pci.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include <viommu/memory.h>

#include "save/stream.h"
#include "virtio/test_driver.h"

enum {
    ACKNOWLEDGE = VIRTIO_CONFIG_S_ACKNOWLEDGE,
    DRIVER = VIRTIO_CONFIG_S_DRIVER,
    FEATURES_OK = VIRTIO_CONFIG_S_FEATURES_OK,
    DRIVER_OK = VIRTIO_CONFIG_S_DRIVER_OK,
    NEEDS_RESET = VIRTIO_CONFIG_S_NEEDS_RESET,
    FAILED = VIRTIO_CONFIG_S_FAILED,

    DEVICE_SIZE = 40,
    FEATURES = 0x25,
};

/* A device that writes down what it is told. */
static struct {
    uint64_t accepted;
    unsigned accepts, notified[2], resets, power_ons;
    int accept_error;
    bool reset_takes_time;
    uint8_t config[DEVICE_SIZE];
} device;

static struct virtio_pci pci;
static struct viommu_memory *memory;
static struct test_driver driver;

static int accept(void *opaque, uint64_t features)
{
    assert_ptr_equal(opaque, &device);
    device.accepts++;
    device.accepted = features;
    return device.accept_error;
}

static void notified(void *opaque, unsigned queue)
{
    (void)opaque;
    device.notified[queue]++;
}

static int reset(void *opaque)
{
    (void)opaque;
    device.resets++;
    return device.reset_takes_time;
}

static void power_on(void *opaque)
{
    (void)opaque;
    device.power_ons++;
}

static void config_read(void *opaque, uint32_t offset, void *data, uint32_t size)
{
    (void)opaque;
    assert_true(offset < DEVICE_SIZE && size > 0 && size <= DEVICE_SIZE - offset);
    memcpy(data, device.config + offset, size);
}

static bool config_write(void *opaque, uint32_t offset, const void *data, uint32_t size)
{
    bool other;

    (void)opaque;
    assert_true(offset < DEVICE_SIZE && size > 0 && size <= DEVICE_SIZE - offset);
    other = memcmp(device.config + offset, data, size) != 0;
    memcpy(device.config + offset, data, size);
    return other;
}

static const struct virtio_device_ops ops = {
    .accept = accept,
    .notified = notified,
    .reset = reset,
    .power_on = power_on,
    .config_read = config_read,
    .config_write = config_write,
};

static void make(struct virtio_pci *of)
{
    const struct virtio_device what = {
        .id = 23,
        .class_code = 0x080600,
        .features = FEATURES,
        .config_size = DEVICE_SIZE,
        .queues = 2,
        .queue_size = 64,
        .ops = &ops,
        .opaque = &device,
    };

    virtio_pci_init(of, "test", &what, memory);
}

static int setup(void **state)
{
    struct viommu_memory_slot slot = {
        .first = TEST_RAM, .last = TEST_RAM + TEST_RAM_SIZE - 1, .fd = -1};
    struct viommu_memory_batch *batch;

    (void)state;
    memset(&device, 0, sizeof(device));
    for (unsigned i = 0; i < DEVICE_SIZE; i++) {
        device.config[i] = (uint8_t)(0x80 + i);
    }
    test_driver_open(&driver);
    assert_int_equal(viommu_memory_create(&memory), 0);
    slot.host = driver.ram;
    assert_int_equal(viommu_memory_batch_begin(memory, &batch), 0);
    assert_int_equal(viommu_memory_batch_add(batch, &slot), 0);
    assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), 0);
    make(&pci);
    test_driver_attach(&driver, &pci.function);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    viommu_memory_destroy(memory);
    test_driver_close(&driver);
    return 0;
}

static uint64_t common(unsigned offset, unsigned size)
{
    return test_get(&driver, offset, size);
}

static void set_common(unsigned offset, unsigned size, uint64_t value)
{
    test_put(&driver, offset, size, value);
}

static void enable_msix(void)
{
    test_config_put(&driver, test_capability(&driver, PCI_CAP_ID_MSIX, 0) + PCI_MSIX_FLAGS, 2,
                    PCI_MSIX_FLAGS_ENABLE);
}

/* ---- what it is ---- */

static void it_is_a_modern_virtio_device(void **state)
{
    (void)state;
    assert_int_equal(test_config_get(&driver, PCI_VENDOR_ID, 4), 0x10571af4);
    assert_int_equal(test_config_get(&driver, PCI_CLASS_REVISION, 4), 0x08060001);
    assert_int_equal(test_config_get(&driver, PCI_INTERRUPT_PIN, 1), 1);
    assert_int_equal(pci_config_msix_vectors(&pci.function.config), 3);
}

static void capabilities_say_where_all_is(void **state)
{
    static const struct {
        uint8_t type;
        uint32_t offset, length, size;
    } wanted[] = {
        {VIRTIO_PCI_CAP_COMMON_CFG, 0, 56, 16},
        {VIRTIO_PCI_CAP_ISR_CFG, TEST_ISR, 1, 16},
        {VIRTIO_PCI_CAP_DEVICE_CFG, TEST_CONFIG, DEVICE_SIZE, 16},
        {VIRTIO_PCI_CAP_NOTIFY_CFG, TEST_NOTIFY, 8, 20},
        {VIRTIO_PCI_CAP_PCI_CFG, 0, 0, 20},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        unsigned at = test_capability(&driver, PCI_CAP_ID_VNDR, i);

        assert_int_not_equal(at, 0);
        assert_int_equal(test_config_get(&driver, at + VIRTIO_PCI_CAP_LEN, 1), wanted[i].size);
        assert_int_equal(test_config_get(&driver, at + VIRTIO_PCI_CAP_CFG_TYPE, 1), wanted[i].type);
        assert_int_equal(test_config_get(&driver, at + VIRTIO_PCI_CAP_BAR, 4), 0);
        assert_int_equal(test_config_get(&driver, at + VIRTIO_PCI_CAP_OFFSET, 4), wanted[i].offset);
        assert_int_equal(test_config_get(&driver, at + VIRTIO_PCI_CAP_LENGTH, 4), wanted[i].length);
        if (wanted[i].type == VIRTIO_PCI_CAP_NOTIFY_CFG) {
            assert_int_equal(test_config_get(&driver, at + VIRTIO_PCI_NOTIFY_CAP_MULT, 4), 4);
        }
    }
    assert_int_equal(test_capability(&driver, PCI_CAP_ID_VNDR, 5), 0);
}

static void bars_are_sized(void **state)
{
    (void)state;
    test_config_put(&driver, PCI_BASE_ADDRESS_0, 4, UINT32_MAX);
    assert_int_equal(test_config_get(&driver, PCI_BASE_ADDRESS_0, 4), 0xffffc000);
    test_config_put(&driver, PCI_BASE_ADDRESS_1, 4, UINT32_MAX);
    assert_int_equal(test_config_get(&driver, PCI_BASE_ADDRESS_1, 4), 0xfffff000);
}

/* ---- features and status ---- */

static void features_in_halves(void **state)
{
    (void)state;
    assert_int_equal(common(VIRTIO_PCI_COMMON_DF, 4), FEATURES | TEST_INDIRECT | TEST_EVENT_INDEX);
    set_common(VIRTIO_PCI_COMMON_DFSELECT, 4, 1);
    assert_int_equal(common(VIRTIO_PCI_COMMON_DF, 4), 1);
    set_common(VIRTIO_PCI_COMMON_DFSELECT, 4, 2);
    assert_int_equal(common(VIRTIO_PCI_COMMON_DF, 4), 0);
    set_common(VIRTIO_PCI_COMMON_DFSELECT, 4, UINT32_MAX);
    assert_int_equal(common(VIRTIO_PCI_COMMON_DF, 4), 0);
    test_features(&driver, UINT64_C(0x123456789abcdef0));
    assert_int_equal(common(VIRTIO_PCI_COMMON_GF, 4), 0x12345678);
    set_common(VIRTIO_PCI_COMMON_GFSELECT, 4, 2);
    assert_int_equal(common(VIRTIO_PCI_COMMON_GF, 4), 0);
    set_common(VIRTIO_PCI_COMMON_GF, 4, 1); /* goes nowhere */
    set_common(VIRTIO_PCI_COMMON_GFSELECT, 4, 0);
    assert_int_equal(common(VIRTIO_PCI_COMMON_GF, 4), 0x9abcdef0);
}

static bool accepts(uint64_t features)
{
    set_common(VIRTIO_PCI_COMMON_STATUS, 1, 0);
    test_status_add(&driver, ACKNOWLEDGE | DRIVER);
    test_features(&driver, features);
    test_status_add(&driver, FEATURES_OK);
    return test_status(&driver) == (ACKNOWLEDGE | DRIVER | FEATURES_OK);
}

static void features_that_are_accepted(void **state)
{
    (void)state;
    assert_false(accepts(0));
    assert_false(accepts(FEATURES)); /* not without VERSION_1 */
    assert_int_equal(device.accepts, 0);
    assert_false(accepts(TEST_VERSION_1 | 2)); /* not offered */
    assert_false(accepts(TEST_VERSION_1 | UINT64_C(1) << 63));
    assert_int_equal(device.accepts, 0);
    assert_true(accepts(TEST_VERSION_1));
    assert_int_equal(device.accepted, 0);
    assert_true(accepts(TEST_VERSION_1 | TEST_EVENT_INDEX | FEATURES));
    assert_int_equal(device.accepted, FEATURES); /* the transport's are its own */
    assert_true(pci.queues[1].ring.event_index);
    assert_false(pci.queues[1].ring.indirect);
    test_features(&driver, 0); /* too late */
    assert_int_equal(common(VIRTIO_PCI_COMMON_GF, 4), 1);
    assert_true(accepts(TEST_VERSION_1 | TEST_INDIRECT));
    assert_true(pci.queues[0].ring.indirect);
    assert_false(pci.queues[0].ring.event_index);
    device.accept_error = -EINVAL;
    assert_false(accepts(TEST_VERSION_1));
}

static void status_bits(void **state)
{
    (void)state;
    assert_int_equal(test_status(&driver), 0);
    set_common(VIRTIO_PCI_COMMON_STATUS, 1, ACKNOWLEDGE);
    set_common(VIRTIO_PCI_COMMON_STATUS, 1, DRIVER); /* none goes but by a reset */
    assert_int_equal(test_status(&driver), ACKNOWLEDGE | DRIVER);
    set_common(VIRTIO_PCI_COMMON_STATUS, 1, NEEDS_RESET | 0x30); /* not the driver's */
    assert_int_equal(test_status(&driver), ACKNOWLEDGE | DRIVER);
    set_common(VIRTIO_PCI_COMMON_STATUS, 1, DRIVER_OK); /* not before FEATURES_OK */
    assert_int_equal(test_status(&driver), ACKNOWLEDGE | DRIVER);
    test_features(&driver, TEST_VERSION_1);
    set_common(VIRTIO_PCI_COMMON_STATUS, 1, FEATURES_OK | DRIVER_OK);
    assert_int_equal(test_status(&driver), ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    assert_int_equal(device.accepts, 1);
    set_common(VIRTIO_PCI_COMMON_STATUS, 1, FEATURES_OK);
    assert_int_equal(device.accepts, 1);
    set_common(VIRTIO_PCI_COMMON_STATUS, 2, 0); /* another width */
    assert_int_equal(device.resets, 0);
    set_common(VIRTIO_PCI_COMMON_STATUS, 1, 0);
    assert_int_equal(test_status(&driver), 0);
    assert_int_equal(device.resets, 1);
    set_common(VIRTIO_PCI_COMMON_STATUS, 1, 0); /* there is nothing to forget */
    assert_int_equal(device.resets, 1);
}

static void what_a_reset_forgets(void **state)
{
    (void)state;
    test_begin(&driver, FEATURES);
    enable_msix();
    set_common(VIRTIO_PCI_COMMON_MSIX, 2, 1);
    set_common(VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
    set_common(VIRTIO_PCI_COMMON_Q_MSIX, 2, 2);
    pci.queues[1].ring.next = pci.queues[1].ring.returned = 5;
    set_common(VIRTIO_PCI_COMMON_STATUS, 1, 0);
    assert_int_equal(common(VIRTIO_PCI_COMMON_MSIX, 2), 0xffff);
    assert_int_equal(common(VIRTIO_PCI_COMMON_Q_SELECT, 2), 0);
    assert_int_equal(common(VIRTIO_PCI_COMMON_GF, 4), 0);
    set_common(VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
    assert_int_equal(common(VIRTIO_PCI_COMMON_Q_MSIX, 2), 0xffff);
    assert_int_equal(common(VIRTIO_PCI_COMMON_Q_SIZE, 2), 64);
    assert_int_equal(common(VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
    assert_int_equal(common(VIRTIO_PCI_COMMON_Q_DESCLO, 8), 0);
    assert_int_equal(pci.queues[1].ring.next, 0);
    assert_int_equal(pci.queues[1].ring.returned, 0);
    assert_false(pci.queues[1].ring.indirect);
    assert_true(pci_config_msix_enabled(&pci.function.config)); /* that is PCI's */
}

static void a_reset_that_takes_time(void **state)
{
    (void)state;
    test_begin(&driver, 0);
    device.reset_takes_time = true;
    device.notified[0] = 0;
    set_common(VIRTIO_PCI_COMMON_STATUS, 1, 0);
    assert_int_not_equal(test_status(&driver), 0);
    set_common(VIRTIO_PCI_COMMON_STATUS, 1, 0);
    assert_int_equal(device.resets, 1);
    test_status_add(&driver, FAILED);
    assert_false(test_status(&driver) & FAILED);
    test_notify(&driver, 0);
    test_put(&driver, TEST_CONFIG, 1, 1);
    assert_int_equal(device.notified[0], 0);
    assert_int_equal(device.config[0], 0x80);
    assert_false(virtio_pci_queue_runs(&pci, 0));
    virtio_pci_reset_done(&pci);
    assert_int_equal(test_status(&driver), 0);
    test_status_add(&driver, ACKNOWLEDGE);
    assert_int_equal(test_status(&driver), ACKNOWLEDGE);
}

static void power_goes_and_comes(void **state)
{
    (void)state;
    test_begin(&driver, 0);
    device.reset_takes_time = true;
    set_common(VIRTIO_PCI_COMMON_STATUS, 1, 0);
    pci_config_reset(&pci.function.config);
    pci.function.ops->reset(pci.function.opaque);
    assert_int_equal(device.power_ons, 1);
    assert_int_equal(test_status(&driver), 0);
    assert_int_equal(common(VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
}

/* ---- queues ---- */

static void queue_registers(void **state)
{
    (void)state;
    assert_int_equal(common(VIRTIO_PCI_COMMON_NUMQ, 2), 2);
    for (unsigned queue = 0; queue < 2; queue++) {
        set_common(VIRTIO_PCI_COMMON_Q_SELECT, 2, queue);
        assert_int_equal(common(VIRTIO_PCI_COMMON_Q_NOFF, 2), queue);
        assert_int_equal(common(VIRTIO_PCI_COMMON_Q_SIZE, 2), 64);
    }
    set_common(VIRTIO_PCI_COMMON_Q_SIZE, 2, 128); /* too many */
    set_common(VIRTIO_PCI_COMMON_Q_SIZE, 2, 0);
    set_common(VIRTIO_PCI_COMMON_Q_SIZE, 2, 24); /* no power of two */
    assert_int_equal(common(VIRTIO_PCI_COMMON_Q_SIZE, 2), 64);
    set_common(VIRTIO_PCI_COMMON_Q_SIZE, 2, 16);
    assert_int_equal(common(VIRTIO_PCI_COMMON_Q_SIZE, 2), 16);
    set_common(VIRTIO_PCI_COMMON_Q_DESCLO, 4, 0x89abcde0);
    set_common(VIRTIO_PCI_COMMON_Q_DESCHI, 4, 0x01234567);
    assert_int_equal(common(VIRTIO_PCI_COMMON_Q_DESCLO, 8), UINT64_C(0x0123456789abcde0));
    set_common(VIRTIO_PCI_COMMON_Q_AVAILLO, 8, UINT64_C(0x1122334455667788));
    assert_int_equal(common(VIRTIO_PCI_COMMON_Q_AVAILHI, 4), 0x11223344);
    set_common(VIRTIO_PCI_COMMON_Q_USEDHI, 4, 5);
    set_common(VIRTIO_PCI_COMMON_Q_USEDLO, 2, 5); /* not its width */
    set_common(VIRTIO_PCI_COMMON_Q_USEDLO + 2, 4, 5);
    assert_int_equal(common(VIRTIO_PCI_COMMON_Q_USEDLO, 8), UINT64_C(5) << 32);
    set_common(VIRTIO_PCI_COMMON_Q_SELECT, 2, 0);
    assert_int_equal(common(VIRTIO_PCI_COMMON_Q_DESCLO, 8), 0);
}

static void a_queue_that_is_none(void **state)
{
    (void)state;
    set_common(VIRTIO_PCI_COMMON_Q_SELECT, 2, 2);
    assert_int_equal(common(VIRTIO_PCI_COMMON_Q_SELECT, 2), 2);
    assert_int_equal(common(VIRTIO_PCI_COMMON_Q_SIZE, 2), 0);
    for (unsigned offset = VIRTIO_PCI_COMMON_Q_SIZE; offset < 56; offset += 2) {
        set_common(offset, 2, 1);
        set_common(offset, 4, 1);
        set_common(offset, 8, 1);
    }
    assert_int_equal(common(VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
    test_put(&driver, TEST_NOTIFY + 8, 2, 0);
}

static void an_enabled_queue_stays_as_it_is(void **state)
{
    (void)state;
    test_queue(&driver, 0, 16);
    assert_int_equal(common(VIRTIO_PCI_COMMON_Q_ENABLE, 2), 1);
    set_common(VIRTIO_PCI_COMMON_Q_SIZE, 2, 8);
    set_common(VIRTIO_PCI_COMMON_Q_DESCLO, 4, 0);
    set_common(VIRTIO_PCI_COMMON_Q_ENABLE, 2, 0);
    assert_int_equal(common(VIRTIO_PCI_COMMON_Q_SIZE, 2), 16);
    assert_int_equal(common(VIRTIO_PCI_COMMON_Q_DESCLO, 4), TEST_DESCRIPTORS);
    assert_int_equal(common(VIRTIO_PCI_COMMON_Q_ENABLE, 2), 1);
    set_common(VIRTIO_PCI_COMMON_Q_MSIX, 2, 1); /* this may change */
    assert_int_equal(common(VIRTIO_PCI_COMMON_Q_MSIX, 2), 1);
}

static void a_queue_that_cannot_be(void **state)
{
    (void)state;
    set_common(VIRTIO_PCI_COMMON_Q_USEDLO, 4, TEST_USED + 2);
    set_common(VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
    assert_int_equal(common(VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
    set_common(VIRTIO_PCI_COMMON_Q_USEDLO, 4, TEST_USED);
    set_common(VIRTIO_PCI_COMMON_Q_ENABLE, 2, 2); /* only 1 enables */
    assert_int_equal(common(VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
}

static void notifications(void **state)
{
    (void)state;
    test_notify(&driver, 0);
    assert_int_equal(device.notified[0], 0); /* it does not run */
    test_begin(&driver, 0);
    assert_int_equal(device.notified[0], 1); /* there may be something from before */
    assert_int_equal(device.notified[1], 1);
    test_notify(&driver, 1);
    assert_int_equal(device.notified[0], 1);
    assert_int_equal(device.notified[1], 2);
    test_put(&driver, TEST_NOTIFY, 4, 0);
    assert_int_equal(device.notified[0], 2);
    test_config_put(&driver, PCI_COMMAND, 2, PCI_COMMAND_MEMORY); /* no bus mastering */
    test_notify(&driver, 0);
    assert_int_equal(device.notified[0], 2);
    test_config_put(&driver, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    assert_int_equal(device.notified[0], 3);
    test_status_add(&driver, FAILED);
    test_notify(&driver, 0);
    assert_int_equal(device.notified[0], 3);
}

static void a_queue_that_is_not_enabled(void **state)
{
    (void)state;
    test_begin(&driver, 0);
    pci.queues[1].ring.enabled = false;
    device.notified[0] = device.notified[1] = 0;
    test_notify(&driver, 1);
    assert_int_equal(device.notified[1], 0);
    set_common(VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
    set_common(VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1); /* late, and it may be filled */
    assert_int_equal(device.notified[1], 1);
}

/* ---- interrupts ---- */

/* A chain came back to a queue. */
static void come_back(unsigned queue)
{
    assert_int_equal(virtio_ring_return(&pci.queues[queue].ring, 0, 0), 0);
    virtio_pci_returned(&pci, queue);
}

static void interrupts_by_the_line(void **state)
{
    (void)state;
    test_begin(&driver, 0);
    come_back(1);
    assert_true(driver.line);
    assert_true(test_config_get(&driver, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
    assert_int_equal(test_get(&driver, TEST_ISR, 1), 1);
    assert_false(driver.line);
    assert_int_equal(test_get(&driver, TEST_ISR, 1), 0);
    come_back(0);
    virtio_pci_broken(&pci, 0, -EBADMSG);
    assert_int_equal(test_get(&driver, TEST_ISR, 1), 3);
    assert_int_equal(driver.messages[0] + driver.messages[1] + driver.messages[2], 0);
}

static void interrupts_by_messages(void **state)
{
    (void)state;
    test_begin(&driver, 0);
    enable_msix();
    set_common(VIRTIO_PCI_COMMON_MSIX, 2, 0);
    set_common(VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
    set_common(VIRTIO_PCI_COMMON_Q_MSIX, 2, 1);
    come_back(1);
    assert_int_equal(driver.messages[1], 1);
    come_back(0); /* has no vector */
    set_common(VIRTIO_PCI_COMMON_Q_SELECT, 2, 0);
    set_common(VIRTIO_PCI_COMMON_Q_MSIX, 2, 2);
    come_back(0);
    assert_int_equal(driver.messages[2], 1);
    virtio_pci_broken(&pci, 0, -ENXIO);
    assert_int_equal(driver.messages[0], 1);
    assert_false(driver.line);
    assert_int_equal(test_get(&driver, TEST_ISR, 1), 0);
}

static void vectors_that_are_none(void **state)
{
    (void)state;
    set_common(VIRTIO_PCI_COMMON_MSIX, 2, 2);
    assert_int_equal(common(VIRTIO_PCI_COMMON_MSIX, 2), 2);
    set_common(VIRTIO_PCI_COMMON_MSIX, 2, 3);
    assert_int_equal(common(VIRTIO_PCI_COMMON_MSIX, 2), 0xffff);
    set_common(VIRTIO_PCI_COMMON_Q_MSIX, 2, 0);
    assert_int_equal(common(VIRTIO_PCI_COMMON_Q_MSIX, 2), 0);
    set_common(VIRTIO_PCI_COMMON_Q_MSIX, 2, 0xfffe);
    assert_int_equal(common(VIRTIO_PCI_COMMON_Q_MSIX, 2), 0xffff);
}

static void a_broken_queue_stops_the_device(void **state)
{
    (void)state;
    test_begin(&driver, 0);
    virtio_pci_broken(&pci, 1, -EBADMSG);
    assert_true(test_status(&driver) & NEEDS_RESET);
    device.notified[0] = 0;
    test_notify(&driver, 0);
    assert_int_equal(device.notified[0], 0);
    assert_false(virtio_pci_queue_runs(&pci, 0));
    come_back(0); /* nobody hears of that */
    assert_int_equal(test_get(&driver, TEST_ISR, 1), 2);
    virtio_pci_broken(&pci, 0, -EBADMSG); /* said already */
    assert_int_equal(test_get(&driver, TEST_ISR, 1), 0);
    assert_int_equal(pci.needed_resets, 1);
    test_begin(&driver, 0);
    assert_true(virtio_pci_queue_runs(&pci, 0));
}

/* ---- the device's configuration, and other ways to all of it ---- */

static void the_device_configuration(void **state)
{
    uint8_t page[0x1000];
    uint8_t before = (uint8_t)common(VIRTIO_PCI_COMMON_CFGGENERATION, 1);

    (void)state;
    assert_int_equal(test_get(&driver, TEST_CONFIG + 3, 2), 0x8483);
    assert_int_equal(test_get(&driver, TEST_CONFIG + DEVICE_SIZE - 1, 4), 0x80 + DEVICE_SIZE - 1);
    assert_int_equal(test_get(&driver, TEST_CONFIG - 1, 2), 0x8000);
    assert_int_equal(test_get(&driver, TEST_CONFIG + DEVICE_SIZE, 4), 0);
    pci.function.ops->bar_read(&pci, 0, TEST_CONFIG - 0x800, page, sizeof(page));
    assert_memory_equal(page + 0x800, device.config, DEVICE_SIZE);
    test_put(&driver, TEST_CONFIG, 2, 0x8180); /* the same */
    assert_int_equal(common(VIRTIO_PCI_COMMON_CFGGENERATION, 1), before);
    test_put(&driver, TEST_CONFIG + 1, 2, 0x1234);
    assert_int_equal(device.config[1], 0x34);
    assert_int_equal(device.config[2], 0x12);
    assert_int_not_equal(common(VIRTIO_PCI_COMMON_CFGGENERATION, 1), before);
    memset(page, 7, sizeof(page));
    pci.function.ops->bar_write(&pci, 0, TEST_CONFIG - 0x800, page, sizeof(page));
    assert_int_equal(device.config[DEVICE_SIZE - 1], 7);
}

static void by_configuration_space(void **state)
{
    unsigned at = test_capability(&driver, PCI_CAP_ID_VNDR, 4);
    unsigned data = at + sizeof(struct virtio_pci_cap);

    (void)state;
    test_config_put(&driver, at + VIRTIO_PCI_CAP_OFFSET, 4, VIRTIO_PCI_COMMON_NUMQ);
    test_config_put(&driver, at + VIRTIO_PCI_CAP_LENGTH, 4, 2);
    assert_int_equal(test_config_get(&driver, data, 4), 2);
    test_config_put(&driver, at + VIRTIO_PCI_CAP_OFFSET, 4, VIRTIO_PCI_COMMON_STATUS);
    test_config_put(&driver, at + VIRTIO_PCI_CAP_LENGTH, 4, 1);
    test_config_put(&driver, data, 1, ACKNOWLEDGE);
    assert_int_equal(test_status(&driver), ACKNOWLEDGE);
    assert_int_equal(test_config_get(&driver, data, 1), ACKNOWLEDGE);
    test_config_put(&driver, at + VIRTIO_PCI_CAP_LENGTH, 4, 3); /* no length */
    test_config_put(&driver, data, 4, ACKNOWLEDGE | DRIVER);
    test_config_put(&driver, at + VIRTIO_PCI_CAP_LENGTH, 4, 1);
    test_config_put(&driver, at + VIRTIO_PCI_CAP_BAR, 1, 1); /* not its BAR */
    test_config_put(&driver, data, 4, ACKNOWLEDGE | DRIVER);
    test_config_put(&driver, at + VIRTIO_PCI_CAP_BAR, 1, 0);
    assert_int_equal(test_status(&driver), ACKNOWLEDGE);
    test_config_put(&driver, at + VIRTIO_PCI_CAP_OFFSET, 4, 0x4000); /* past its end */
    test_config_put(&driver, data, 4, 1);
    test_config_get(&driver, data, 4);
    test_config_put(&driver, at + VIRTIO_PCI_CAP_LENGTH, 4, 4);
    test_config_put(&driver, at + VIRTIO_PCI_CAP_OFFSET, 4, UINT32_MAX - 3);
    test_config_put(&driver, data, 4, 1);
    test_config_get(&driver, data, 4);
    test_config_put(&driver, at + VIRTIO_PCI_CAP_OFFSET, 4, TEST_CONFIG + 2); /* askew */
    test_config_put(&driver, data, 4, 0);
    assert_int_equal(device.config[2], 0x82);
    test_config_put(&driver, at + VIRTIO_PCI_CAP_OFFSET, 4, TEST_CONFIG);
    assert_int_equal(test_config_get(&driver, data, 4), 0x83828180);
    assert_int_equal(test_config_get(&driver, data + 4, 4) & 0xff, PCI_CAP_ID_MSIX);
}

static void reads_of_any_size_and_place(void **state)
{
    uint8_t all[0x4000];

    (void)state;
    test_begin(&driver, 0);
    come_back(0);
    pci.function.ops->bar_read(&pci, 0, 0, all, sizeof(all));
    assert_int_equal(all[VIRTIO_PCI_COMMON_STATUS], ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    assert_int_equal(all[TEST_ISR], 1);
    assert_int_equal(all[TEST_CONFIG], 0x80);
    assert_int_equal(all[TEST_NOTIFY], 0);
    for (uint64_t offset = 0; offset < 64; offset++) {
        for (unsigned size = 1; size <= 8 && offset + size <= sizeof(all); size++) {
            uint64_t value = 0;

            memcpy(&value, all + offset, size);
            assert_int_equal(test_get(&driver, offset, size), value);
        }
    }
    pci.function.ops->bar_read(&pci, 1, 0, all, 0x1000);
    pci.function.ops->bar_write(&pci, 1, 0, all, 0x1000);
}

/* ---- state ---- */

/* Saves, spoils one byte where that is asked for, and loads into another one. */
static int load_saved(struct virtio_pci *to, size_t byte, uint8_t bits)
{
    struct save_writer writer;
    struct save_section section;
    int ret;

    save_writer_init(&writer, SAVE_SERVER);
    save_begin(&writer, 1, 0, 1, 0);
    writer.section = writer.size; /* what follows is the section's body */
    virtio_pci_save(&pci, &writer);
    assert_int_equal(writer.error, 0);
    if (bits) {
        writer.data[writer.section + byte] ^= bits;
    }
    section = (struct save_section){
        .at = writer.data + writer.section, .left = writer.size - writer.section, .version = 1};
    make(to);
    ret = virtio_pci_load(to, &section);
    if (ret == 0) {
        assert_int_equal(section.left, 0);
    }
    save_writer_fini(&writer);
    return ret;
}

static void it_goes_on_elsewhere(void **state)
{
    static struct virtio_pci to;

    (void)state;
    test_begin(&driver, TEST_EVENT_INDEX | FEATURES);
    set_common(VIRTIO_PCI_COMMON_MSIX, 2, 1);
    come_back(1);
    assert_int_equal(load_saved(&to, 0, 0), 0);
    assert_int_equal(to.status, pci.status);
    assert_int_equal(to.driver_features, pci.driver_features);
    assert_int_equal(to.config_vector, 1);
    assert_int_equal(to.isr, pci.isr);
    assert_memory_equal(&to.queues[1].ring, &pci.queues[1].ring, sizeof(to.queues[1].ring));
    assert_true(to.queues[0].ring.event_index);
}

/* What no driver can bring about is not taken. Bytes after those of configuration space. */
static void state_that_makes_no_sense(void **state)
{
    static struct virtio_pci to;
    static const struct {
        size_t byte;
        uint8_t bits;
    } wrong[] = {
        {8, 2},     /* features that are not offered */
        {12, 1},    /* without VERSION_1 */
        {16, 0xff}, /* a vector */
        {20, 0x10}, /* status bits */
        {20, 8},    /* DRIVER_OK without FEATURES_OK */
        {22, 4},    /* the ISR register */
        {23, 2},    /* no boolean */
        {24, 1},    /* queues */
        {28, 4},    /* a vector: of 0xffff */
        {30, 1},    /* a size: no power of two */
        {30, 8},    /* none */
        {30, 0x88}, /* of more than there may be */
        {32, 2},    /* no boolean */
        {33, 1},    /* descriptors askew */
    };

    (void)state;
    test_begin(&driver, 0);
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(load_saved(&to, PCI_CONFIG_SIZE + wrong[i].byte, wrong[i].bits), -EBADMSG);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(it_is_a_modern_virtio_device, setup, teardown),
        cmocka_unit_test_setup_teardown(capabilities_say_where_all_is, setup, teardown),
        cmocka_unit_test_setup_teardown(bars_are_sized, setup, teardown),
        cmocka_unit_test_setup_teardown(features_in_halves, setup, teardown),
        cmocka_unit_test_setup_teardown(features_that_are_accepted, setup, teardown),
        cmocka_unit_test_setup_teardown(status_bits, setup, teardown),
        cmocka_unit_test_setup_teardown(what_a_reset_forgets, setup, teardown),
        cmocka_unit_test_setup_teardown(a_reset_that_takes_time, setup, teardown),
        cmocka_unit_test_setup_teardown(power_goes_and_comes, setup, teardown),
        cmocka_unit_test_setup_teardown(queue_registers, setup, teardown),
        cmocka_unit_test_setup_teardown(a_queue_that_is_none, setup, teardown),
        cmocka_unit_test_setup_teardown(an_enabled_queue_stays_as_it_is, setup, teardown),
        cmocka_unit_test_setup_teardown(a_queue_that_cannot_be, setup, teardown),
        cmocka_unit_test_setup_teardown(notifications, setup, teardown),
        cmocka_unit_test_setup_teardown(a_queue_that_is_not_enabled, setup, teardown),
        cmocka_unit_test_setup_teardown(interrupts_by_the_line, setup, teardown),
        cmocka_unit_test_setup_teardown(interrupts_by_messages, setup, teardown),
        cmocka_unit_test_setup_teardown(vectors_that_are_none, setup, teardown),
        cmocka_unit_test_setup_teardown(a_broken_queue_stops_the_device, setup, teardown),
        cmocka_unit_test_setup_teardown(the_device_configuration, setup, teardown),
        cmocka_unit_test_setup_teardown(by_configuration_space, setup, teardown),
        cmocka_unit_test_setup_teardown(reads_of_any_size_and_place, setup, teardown),
        cmocka_unit_test_setup_teardown(it_goes_on_elsewhere, setup, teardown),
        cmocka_unit_test_setup_teardown(state_that_makes_no_sense, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
