/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of how a unit's work finds its thread: due for its own, by a descriptor from another
   one. */
#include "unit.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

#include "vtd_function.h"

enum {
    RTADDR_REG = 0x20,
    GCMD_REG = 0x18,
    FECTL_REG = 0x38,
    GCMD_SRTP = 1 << 30,
};
#define GCMD_TE (1u << 31)

static struct vtd_function vtd;
static struct viommu_device *device;

static bool readable(int fd)
{
    struct pollfd pollfd = {.fd = fd, .events = POLLIN};

    return poll(&pollfd, 1, 0) == 1;
}

static bool told_by_a_descriptor(void)
{
    return readable(vtd.unit.work_fd) || readable(viommu_event_fd(vtd.unit.iommu));
}

static void write_register(uint64_t offset, uint32_t value)
{
    assert_int_equal(viommu_mmio_write(vtd.unit.iommu, offset, 4, value), 0);
}

/* No memory, so every request faults; and the unit interrupts for the first. */
static int setup(void **state)
{
    const struct viommu_vtd_config config = {0};
    const struct viommu_device_config device_config = {.requester = 0x28};

    (void)state;
    assert_int_equal(vtd_function_init(&vtd, "vtd", &config, NULL), 0);
    assert_int_equal(viommu_device_add(vtd.unit.iommu, &device_config, &device), 0);
    assert_int_equal(viommu_start(vtd.unit.iommu), 0);
    write_register(RTADDR_REG, 0x1000);
    write_register(GCMD_REG, GCMD_SRTP);
    write_register(GCMD_REG, GCMD_TE);
    write_register(FECTL_REG, 0);
    unit_process(&vtd.unit);
    assert_false(unit_is_due(&vtd.unit));
    assert_false(told_by_a_descriptor());
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    viommu_device_remove(device);
    vtd_function_fini(&vtd);
    return 0;
}

static void *fault(void *opaque)
{
    char byte;

    (void)opaque;
    assert_true(viommu_device_read(device, NULL, 0x5000, &byte, 1) != 0);
    return NULL;
}

/* Its own thread looks anyway. */
static void work_of_its_own_thread(void **state)
{
    (void)state;
    fault(NULL);
    assert_true(unit_is_due(&vtd.unit));
    assert_false(told_by_a_descriptor());
    unit_process(&vtd.unit);
    assert_false(unit_is_due(&vtd.unit));
    assert_int_equal(vtd.unit.messages_lost, 1); /* the fault's: there is no client */
}

static void work_of_another_thread(void **state)
{
    pthread_t thread;
    uint64_t count;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, fault, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(unit_is_due(&vtd.unit));
    assert_true(readable(vtd.unit.work_fd));
    assert_int_equal(read(vtd.unit.work_fd, &count, sizeof(count)), sizeof(count));
    assert_int_equal(count, 1);
    assert_true(unit_is_due(&vtd.unit)); /* until it is done */
    unit_process(&vtd.unit);
    assert_false(unit_is_due(&vtd.unit));
    assert_false(told_by_a_descriptor());
    assert_int_equal(vtd.unit.messages_lost, 1);
}

static void what_is_put_off(void **state)
{
    (void)state;
    unit_go_on_later(&vtd.unit);
    assert_true(unit_is_due(&vtd.unit));
    assert_false(told_by_a_descriptor());
    unit_process(&vtd.unit);
    assert_false(unit_is_due(&vtd.unit));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(work_of_its_own_thread, setup, teardown),
        cmocka_unit_test_setup_teardown(work_of_another_thread, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_put_off, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
