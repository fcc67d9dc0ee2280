/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of saving and loading a unit: what goes on in another instance. What a guest sees of it is
 * in the scenarios; which states are refused in save_state_test.c; mirrors are in
 * shadow/adopt_test.c.
 */
#include "vtd/test_save.h"

/* ---- what goes on ---------------------------------------------------------------------------- */

static void test_tables_and_queue_go_on(void **state)
{
    struct guest *guest = &unit.guest;

    (void)state;
    unit_init(&unit, &plain);
    unit_translate(&unit);
    guest_queue_on(guest);
    unit_map(&unit, 0x1000, 0x5000, 1, SPEC_R | SPEC_W);
    assert_int_equal(unit_gpa(&unit, 0x1000), 0x5000);
    take_over(&unit);
    assert_int_equal(unit_gpa(&unit, 0x1000), 0x5000);
    guest_queue_wait(guest);
    take_over(&unit);
    guest_queue_wait(guest);
    guest_queue_off(guest);
    take_over(&unit);
    guest_queue_on(guest);
    guest_command(guest, SPEC_TE, false);
    take_over(&unit);
    assert_int_equal(unit_gpa(&unit, 0x1000), 0x1000);
    unit_fini(&unit);
}

/* Before each viommu_process of a guest that waits. */
static void always(void *opaque)
{
    take_over(opaque);
}

/* Nothing is ever done by the instance to which it was given. */
static void test_every_command_in_another_instance(void **state)
{
    struct guest *guest = &unit.guest;

    (void)state;
    unit_init(&unit, &plain);
    guest->meanwhile = always;
    guest->opaque = &unit;
    unit_translate(&unit);
    unit_map(&unit, 0x1000, 0x5000, 1, SPEC_R | SPEC_W);
    guest_flush_context(guest, SPEC_GLOBAL, 0, 0, 0);
    guest_flush_iotlb(guest, SPEC_SELECTIVE, UNIT_DOMAIN, 0x1000, 0);
    assert_int_equal(unit_gpa(&unit, 0x1000), 0x5000);
    guest_queue_on(guest);
    for (unsigned i = 0; i < 300; i++) {
        guest_queue_put(guest, spec_iotlb_invalidate(SPEC_GLOBAL, 0, 0, 0, false));
        guest_queue_wait(guest);
    }
    guest_queue_off(guest);
    guest_set_root(guest);
    guest_command(guest, SPEC_TE, false);
    unit_fini(&unit);
}

/* A descriptor that was under way has gone bad: the guest sees an error, and commands complete. */
static void test_descriptor_gone_bad(void **state)
{
    struct guest *guest = &unit.guest;

    (void)state;
    unit_init(&unit, &plain);
    unit_translate(&unit);
    guest_queue_on(guest);
    guest_ok(viommu_dma_begin(guest->iommu), "section");
    guest_queue_put(guest, spec_iotlb_invalidate(SPEC_GLOBAL, 0, 0, 0, false));
    guest_queue_kick(guest);
    guest_process(guest);
    assert_int_equal(unit_head(&unit), 0);
    /* The queue is to go off behind it. */
    guest_write(guest, SPEC_GCMD, 4, SPEC_TE);
    guest_process(guest);
    assert_true(guest_read(guest, SPEC_GSTS, 4) & SPEC_QIE);
    take_over(&unit);
    guest_store(guest, guest->queue, 0xf);
    viommu_dma_end(guest->iommu);
    guest_process(guest);
    assert_true(guest_read(guest, SPEC_FSTS, 4) & SPEC_IQE);
    assert_false(guest_read(guest, SPEC_GSTS, 4) & SPEC_QIE);
    unit_fini(&unit);
}

/*
 * The queue is to go off behind a descriptor that is under way; what the guest puts there after
 * that is not carried out.
 */
static void test_no_more_than_was_under_way(void **state)
{
    struct guest *guest = &unit.guest;

    (void)state;
    unit_init(&unit, &plain);
    guest_queue_on(guest);
    guest_ok(viommu_dma_begin(guest->iommu), "section");
    for (unsigned i = 0; i < 2; i++) {
        guest_queue_put(guest, spec_iotlb_invalidate(SPEC_GLOBAL, 0, 0, 0, false));
    }
    guest_queue_kick(guest);
    guest_process(guest);
    guest_write(guest, SPEC_GCMD, 4, 0);
    guest_queue_put(guest, spec_wait(SPEC_WAIT_STATUS, guest->status, 1));
    guest_queue_kick(guest);
    take_over(&unit);
    viommu_dma_end(guest->iommu);
    guest_process(guest);
    assert_false(guest_read(guest, SPEC_GSTS, 4) & SPEC_QIE);
    assert_int_equal(guest_load(guest, guest->status), 0);
    unit_fini(&unit);
}

/* The queue is to go off, and the guest took the tail back. */
static void test_tail_taken_back(void **state)
{
    struct guest *guest = &unit.guest;

    (void)state;
    unit_init(&unit, &plain);
    guest_queue_on(guest);
    guest_ok(viommu_dma_begin(guest->iommu), "section");
    guest_queue_put(guest, spec_iotlb_invalidate(SPEC_GLOBAL, 0, 0, 0, false));
    guest_queue_kick(guest);
    guest_process(guest);
    guest_write(guest, SPEC_GCMD, 4, 0);
    guest_process(guest);
    guest_write(guest, SPEC_IQT, 8, 0);
    take_over(&unit);
    guest_process(guest);
    viommu_dma_end(guest->iommu);
    guest_process(guest);
    assert_false(guest_read(guest, SPEC_GSTS, 4) & SPEC_QIE);
    unit_fini(&unit);
}

/* ---- when it can be done --------------------------------------------------------------------- */

static void test_before_and_after_the_start(void **state)
{
    struct stream stream;
    struct viommu_device *device;
    struct viommu *second;
    void *data;
    size_t size;

    (void)state;
    unit_init(&unit, &plain);
    stream = save(unit.guest.iommu);
    second = second_of(&unit, &device);
    assert_int_equal(viommu_save(second, &data, &size), -EAGAIN);
    assert_int_equal(viommu_load(second, stream.data, stream.size), 0);
    assert_int_equal(viommu_load(second, stream.data, stream.size), -EALREADY);
    assert_int_equal(viommu_load(second, stream.data, 3), -EALREADY);
    assert_int_equal(viommu_start(second), -EALREADY);
    viommu_destroy(second);
    viommu_save_free(stream.data);
    viommu_save_free(NULL);
    unit_fini(&unit);
}

static int in_change(void *opaque, const struct viommu_change *change)
{
    struct viommu *iommu = opaque;
    void *data;
    size_t size;

    (void)change;
    if (viommu_save(iommu, &data, &size) != -EDEADLK || viommu_load(iommu, "", 0) != -EDEADLK) {
        abort();
    }
    return 0;
}

static void test_not_from_a_change_callback(void **state)
{
    struct viommu_subscription what = {.kinds = VIOMMU_CHANGE_UNMAP, .change = in_change};
    struct viommu_subscriber *subscriber;

    (void)state;
    unit_init(&unit, &plain);
    what.opaque = unit.guest.iommu;
    assert_int_equal(viommu_device_subscribe(unit.device, &what, &subscriber), 0);
    guest_set_root(&unit.guest);
    unit_fini(&unit);
}

static void test_no_memory(void **state)
{
    struct stream stream;
    struct viommu_device *device;
    struct viommu *second;
    void *data = NULL;
    size_t size;
    unsigned failures = 0;
    int ret = -ENOMEM;

    (void)state;
    unit_init(&unit, &plain);
    for (unsigned long n = 1; ret; n++) {
        base_alloc_fail_at(n);
        ret = viommu_save(unit.guest.iommu, &data, &size);
        failures += ret == -ENOMEM;
        assert_true(!ret || ret == -ENOMEM);
    }
    assert_true(failures >= 1);
    viommu_save_free(data);
    base_alloc_fail_at(0);
    stream = save(unit.guest.iommu);
    second = second_of(&unit, &device);
    ret = -ENOMEM;
    failures = 0;
    for (unsigned long n = 1; ret; n++) {
        base_alloc_fail_at(n);
        ret = viommu_load(second, stream.data, stream.size);
        failures += ret == -ENOMEM;
        assert_true(!ret || ret == -ENOMEM);
    }
    base_alloc_fail_at(0);
    assert_true(failures >= 3);
    viommu_destroy(second);
    viommu_save_free(stream.data);
    unit_fini(&unit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables_and_queue_go_on),
        cmocka_unit_test(test_every_command_in_another_instance),
        cmocka_unit_test(test_descriptor_gone_bad),
        cmocka_unit_test(test_no_more_than_was_under_way),
        cmocka_unit_test(test_tail_taken_back),
        cmocka_unit_test(test_before_and_after_the_start),
        cmocka_unit_test(test_not_from_a_change_callback),
        cmocka_unit_test(test_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
