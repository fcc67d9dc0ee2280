/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of pinning and releasing: what a pin gives, what it refuses, its limits; devices and
 * instances that go while windows are open. What wants windows back is in revoke_test.c.
 */
#include "device/test_window.h"

#include "base/alloc.h"

#include <errno.h>

static struct test_model model;
static struct viommu_device *device;

static int setup(void **state)
{
    (void)state;
    model_init(&model);
    device = model_device(&model, 0x28);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    model_fini(&model);
    return 0;
}

static int pin(struct holder *holder, const struct viommu_range *ranges, size_t count)
{
    return holder_pin(holder, device, ranges, count);
}

static void expect_iov(const struct holder *holder, size_t i, uint64_t gpa, size_t len)
{
    assert_true(i < holder->iov_count);
    assert_ptr_equal(holder->iov[i].iov_base, model.ram + gpa);
    assert_int_equal(holder->iov[i].iov_len, len);
}

static void test_one_page(void **state)
{
    struct viommu_range range = {0x1234, 0x1235};
    struct holder holder = {0};

    (void)state;
    model.offset = 0x3000;
    assert_int_equal(pin(&holder, &range, 1), 0);
    assert_int_equal(holder.iov_count, 1);
    expect_iov(&holder, 0, 0x4234, 2);
    assert_int_equal(model_stats(&model).windows_open, 1);
    holder_release(&holder);
    assert_int_equal(model_stats(&model).windows_open, 0);
    viommu_window_release(NULL);
    assert_int_equal(holder.revoked, 0);
}

/* Every page is asked for by itself, and a page that is asked for in two parts twice. */
static void test_pages(void **state)
{
    static const struct viommu_range ranges[] = {{0xfff, 0x3000}, {0x3001, 0x3fff}};
    struct holder holder = {0};

    (void)state;
    assert_int_equal(pin(&holder, ranges, 2), 0);
    assert_int_equal(model.translations, 5);
    assert_int_equal(holder.iov_count, 1);
    expect_iov(&holder, 0, 0xfff, 0x3001);
    assert_int_equal(model_stats(&model).pages_pinned, 5);
    assert_int_equal(model_stats(&model).windows_pinned, 1);
    holder_release(&holder);
    assert_int_equal(model_stats(&model).pages_pinned, 5);
}

/* In the order of the ranges; what does not follow is an entry of its own. */
static void test_several_ranges(void **state)
{
    static const struct viommu_range ranges[] = {
        {0x5000, 0x5fff}, {0x4000, 0x4fff}, {0x4000, 0x4007}, {0x4010, 0x6001}};
    struct holder holder = {0};

    (void)state;
    assert_int_equal(pin(&holder, ranges, 4), 0);
    assert_int_equal(holder.iov_count, 4);
    expect_iov(&holder, 0, 0x5000, 0x1000);
    expect_iov(&holder, 1, 0x4000, 0x1000);
    expect_iov(&holder, 2, 0x4000, 8);
    expect_iov(&holder, 3, 0x4010, 0x1ff2);
    holder_release(&holder);
}

/* Slots that are neighbours for the guest need not be here, and the other way round. */
static void test_slots(void **state)
{
    static const struct viommu_range range = {MODEL_RAM - 0x1000, MODEL_RAM + 0x2fff};
    struct viommu_memory_slot slots[] = {
        {.first = MODEL_RAM, .last = MODEL_RAM + 0xfff, .host = model.ram, .fd = -1},
        {.first = MODEL_RAM + 0x1000,
         .last = MODEL_RAM + 0x2fff,
         .host = model.ram + 0x1000,
         .fd = -1},
    };
    struct holder holder = {0};

    (void)state;
    add_slots(&model, slots, 2);
    assert_int_equal(pin(&holder, &range, 1), 0);
    assert_int_equal(holder.iov_count, 2);
    expect_iov(&holder, 0, MODEL_RAM - 0x1000, 0x1000);
    expect_iov(&holder, 1, 0, 0x3000);
    assert_int_equal(holder.window->slot_count, 3);
    holder_release(&holder);
}

static void test_room(void **state)
{
    static const struct viommu_range ranges[] = {{0, 7}, {16, 23}, {24, 31}, {64, 64}};
    struct holder holder = {.room = 2};

    (void)state;
    assert_int_equal(pin(&holder, ranges, 4), -ENOSPC);
    assert_int_equal(model_stats(&model).windows_open, 0);
    holder.room = 3;
    assert_int_equal(pin(&holder, ranges, 4), 0);
    assert_int_equal(holder.iov_count, 3);
    holder_release(&holder);
    holder.no_room = true;
    assert_int_equal(pin(&holder, ranges, 1), -ENOSPC);
}

/* Nothing is pinned where a part of it cannot be. */
static void refuse(int error, uint64_t first, uint64_t last)
{
    const struct viommu_range ranges[] = {{0x1000, 0x1fff}, {first, last}, {0x1000, 0x1fff}};
    struct holder holder = {.perm = VIOMMU_WRITE};
    uint64_t before = model_stats(&model).windows_pinned;

    assert_int_equal(pin(&holder, ranges, 3), error);
    assert_null(holder.window);
    assert_int_equal(model_stats(&model).windows_open, 0);
    assert_int_equal(model_stats(&model).windows_pinned, before);
}

static void test_refused(void **state)
{
    struct viommu_memory_slot rom = {.first = 0x80000,
                                     .last = 0x80fff,
                                     .host = model.ram,
                                     .fd = -1,
                                     .flags = VIOMMU_MEMORY_READONLY};
    struct viommu_range range = {0x80000, 0x80fff};
    struct holder reader = {.perm = VIOMMU_READ};

    (void)state;
    add_slots(&model, &rom, 1);
    refuse(-ENXIO, MODEL_RAM - 1, MODEL_RAM);
    refuse(-ENXIO, 0xfee00000, 0xfee00003);
    refuse(-EROFS, 0x80000, 0x80000);
    refuse(-EROFS, 0x80010, 0x80010);
    model.last = 0x3fff;
    refuse(-EFAULT, 0x3fff, 0x4000);
    model.last = UINT64_MAX;
    model.perm = VIOMMU_READ;
    refuse(-EFAULT, 0, 0);
    assert_int_equal(pin(&reader, &range, 1), 0);
    holder_release(&reader);
    iommu_lock(&model.iommu);
    device_deny(device, -EIO, "a test");
    iommu_unlock(&model.iommu);
    refuse(-EPERM, 0, 0);
    assert_int_equal(viommu_device_reset(device), 0);
    assert_int_equal(pin(&reader, &range, 1), 0);
    holder_release(&reader);
}

static int pin_as(const struct viommu_dma_attrs *attrs, const struct viommu_window_request *request)
{
    struct viommu_window *window;
    struct iovec iov[4];
    size_t count = 4;
    int ret = viommu_device_pin(device, attrs, request, iov, &count, &window);

    if (!ret) {
        viommu_window_release(window);
    }
    return ret;
}

static void test_misuse(void **state)
{
    static const struct viommu_range range = {0, 7};
    static const struct viommu_range backwards = {8, 7};
    static const struct viommu_range all = {0, UINT64_MAX};
    struct viommu_window_request good = {&range, 1, VIOMMU_READ, holder_on_revoke, NULL, NULL};
    struct viommu_window_request bad[] = {good, good, good, good, good, good, good};
    struct viommu_dma_attrs attrs[] = {{.alias = 1},
                                       {.type = VIOMMU_DMA_TRANSLATION},
                                       {.type = VIOMMU_DMA_TRANSLATED},
                                       {.type = (enum viommu_dma_type)7}};

    (void)state;
    bad[0].count = 0;
    bad[1].count = VIOMMU_WINDOW_RANGES_MAX + 1;
    bad[2].perm = 0;
    bad[3].perm = 5;
    bad[4].revoke = NULL;
    bad[5].ranges = &backwards;
    bad[6].ranges = &all;
    assert_int_equal(pin_as(NULL, &good), 0);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(pin_as(NULL, &bad[i]), -EINVAL);
    }
    for (size_t i = 0; i < sizeof(attrs) / sizeof(attrs[0]); i++) {
        assert_int_equal(pin_as(&attrs[i], &good), -EINVAL);
    }
    assert_int_equal(viommu_device_add_alias(device, 0x99), 1);
    assert_int_equal(pin_as(&attrs[0], &good), 0);
}

/* Ranges, one byte each, and bytes in all: as many as there can be, and one more. */
static void test_limits_of_a_window(void **state)
{
    static struct viommu_range ranges[VIOMMU_WINDOW_RANGES_MAX];
    struct viommu_range largest = {0, VIOMMU_WINDOW_BYTES_MAX - 1};
    struct viommu_range two[] = {{0, VIOMMU_WINDOW_BYTES_MAX - 2}, {0, 0}, {0, 0}};
    struct holder holder = {0};

    (void)state;
    for (size_t i = 0; i < VIOMMU_WINDOW_RANGES_MAX; i++) {
        ranges[i] = (struct viommu_range){i, i};
    }
    assert_int_equal(pin(&holder, ranges, VIOMMU_WINDOW_RANGES_MAX), 0);
    assert_int_equal(holder.iov_count, 1);
    assert_int_equal(holder.window->range_count, 1);
    holder_release(&holder);
    assert_int_equal(pin(&holder, &largest, 1), -ENXIO); /* there is less memory, is all */
    largest.last++;
    assert_int_equal(pin(&holder, &largest, 1), -EINVAL);
    assert_int_equal(pin(&holder, two, 2), -ENXIO);
    assert_int_equal(pin(&holder, two, 3), -EINVAL);
}

static void test_limits_of_a_device(void **state)
{
    static struct holder holders[VIOMMU_WINDOWS_MAX];
    static const struct viommu_range ranges[] = {{0, MODEL_RAM - 1}, {0, MODEL_RAM - 1}};
    struct viommu_device *other = model_device(&model, 0x30);
    struct holder one_more = {0};
    size_t whole = VIOMMU_WINDOWS_PAGES_MAX / (2 * MODEL_RAM / 4096);

    (void)state;
    for (size_t i = 0; i < VIOMMU_WINDOWS_MAX; i++) {
        holders[i] = (struct holder){0};
        assert_int_equal(pin(&holders[i], ranges, 2), i < whole ? 0 : -EBUSY);
        if (i >= whole) {
            break;
        }
    }
    assert_int_equal(holder_pin(&one_more, other, ranges, 2), 0);
    holder_release(&one_more);
    holder_release(&holders[3]);
    assert_int_equal(pin(&holders[3], ranges, 2), 0);
    assert_in_range(whole, 1, VIOMMU_WINDOWS_MAX - 1);
    for (size_t i = 0; i < whole; i++) {
        holder_release(&holders[i]);
    }
    for (size_t i = 0; i < VIOMMU_WINDOWS_MAX; i++) {
        assert_int_equal(pin(&holders[i], &(struct viommu_range){5, 5}, 1), 0);
    }
    assert_int_equal(pin(&one_more, &(struct viommu_range){5, 5}, 1), -EBUSY);
    holder_release(&holders[7]);
    assert_int_equal(pin(&one_more, &(struct viommu_range){5, 5}, 1), 0);
    holder_release(&one_more);
    for (size_t i = 0; i < VIOMMU_WINDOWS_MAX; i++) {
        holder_release(&holders[i]);
    }
    assert_int_equal(model_stats(&model).windows_open, 0);
}

/* Each allocation fails once. */
static void test_no_memory(void **state)
{
    static const struct viommu_range range = {0, MODEL_RAM + 0x5fff};
    struct viommu_memory_slot slots[6];
    struct holder holder = {0};
    unsigned failed = 0;

    (void)state;
    for (size_t i = 0; i < 6; i++) {
        slots[i] = (struct viommu_memory_slot){
            .first = MODEL_RAM + 0x1000 * i,
            .last = MODEL_RAM + 0x1000 * i + 0xfff,
            .host = model.ram + 0x2000 * i,
            .fd = -1,
        };
    }
    add_slots(&model, slots, 6);
    /* The first pin of an instance has it listen to memory. */
    base_alloc_fail_at(1);
    assert_int_equal(pin(&holder, &range, 1), -ENOMEM);
    base_alloc_fail_at(0);
    assert_int_equal(pin(&holder, &range, 1), 0);
    holder_release(&holder);
    for (;;) {
        int ret;

        base_alloc_fail_at(failed + 1);
        ret = pin(&holder, &range, 1);
        base_alloc_fail_at(0);
        if (!ret) {
            break;
        }
        assert_int_equal(ret, -ENOMEM);
        assert_int_equal(model_stats(&model).windows_open, 0);
        failed++;
    }
    assert_int_equal(failed, 3); /* the window, its slots growing twice */
    holder_release(&holder);
}

/* The same of a window into one slot, whose pages do not follow one another. */
static void test_no_memory_for_runs(void **state)
{
    static const struct viommu_range ranges[] = {
        {0x0000, 0x0fff}, {0x2000, 0x2fff}, {0x4000, 0x4fff}, {0x6000, 0x6fff}, {0x8000, 0x8fff}};
    struct holder holder = {0};
    unsigned failed = 0;
    int ret;

    (void)state;
    assert_int_equal(pin(&holder, ranges, 1), 0); /* it listens */
    holder_release(&holder);
    do {
        base_alloc_fail_at(failed + 1);
        ret = pin(&holder, ranges, 5);
        base_alloc_fail_at(0);
        assert_true(!ret || ret == -ENOMEM);
        assert_int_equal(model_stats(&model).windows_open, !ret);
        failed += ret != 0;
    } while (ret);
    assert_int_equal(failed, 3); /* the window, its runs growing twice */
    for (size_t i = 0; i < 5; i++) {
        expect_iov(&holder, i, ranges[i].first, 4096);
    }
    holder_release(&holder);
}

static void test_before_start(void **state)
{
    static const struct viommu_range range = {0, 7};
    struct test_model early = {0};
    struct holder holder = {0};

    (void)state;
    model_create(&early);
    model_add_ram(&early, 0, MODEL_RAM - 1, 0);
    assert_int_equal(holder_pin(&holder, model_device(&early, 1), &range, 1), -EAGAIN);
    assert_int_equal(viommu_start(&early.iommu), 0);
    assert_int_equal(holder_pin(&holder, early.iommu.devices, &range, 1), 0);
    holder_release(&holder);
    model_fini(&early);
}

static void test_device_goes(void **state)
{
    static const struct viommu_range range = {0, 0x1fff};
    struct viommu_device *other = model_device(&model, 0x30);
    struct holder holders[3] = {{0}};
    struct holder of_other = {0};

    (void)state;
    assert_int_equal(holder_pin(&of_other, other, &range, 1), 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pin(&holders[i], &range, 1), 0);
    }
    holder_release(&holders[1]);
    assert_int_equal(viommu_device_remove(device), 0);
    assert_int_equal(model_stats(&model).windows_open, 3);
    assert_int_equal(model_stats(&model).windows_pinned, 4);
    holder_release(&holders[0]);
    assert_int_equal(model_stats(&model).windows_open, 2);
    assert_int_equal(viommu_device_remove(other), 0);
    holder_release(&holders[2]);
    holder_release(&of_other);
    assert_int_equal(model_stats(&model).windows_open, 0);
    assert_int_equal(model_stats(&model).pages_pinned, 8);
}

/* The instance stays until its last window is released. */
static void test_instance_goes(void **state)
{
    static const struct viommu_range range = {0, 0x1fff};
    struct test_model other;
    struct holder first = {0};
    struct holder second = {0};

    (void)state;
    model_init(&other);
    assert_int_equal(holder_pin(&first, model_device(&other, 1), &range, 1), 0);
    assert_int_equal(holder_pin(&second, model_device(&other, 2), &range, 1), 0);
    viommu_destroy(&other.iommu);
    assert_int_equal(other.destroyed, 0);
    viommu_memory_destroy(other.memory);
    holder_release(&second);
    assert_int_equal(other.destroyed, 0);
    holder_release(&first);
    assert_int_equal(other.destroyed, 1);
    free(other.ram);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static const struct CMUnitTest tests[] = {
    TEST(test_one_page),
    TEST(test_pages),
    TEST(test_several_ranges),
    TEST(test_slots),
    TEST(test_room),
    TEST(test_refused),
    TEST(test_misuse),
    TEST(test_limits_of_a_window),
    TEST(test_limits_of_a_device),
    TEST(test_no_memory),
    TEST(test_no_memory_for_runs),
    TEST(test_before_start),
    TEST(test_device_goes),
    TEST(test_instance_goes),
};

int main(void)
{
    return cmocka_run_group_tests_name("window", tests, NULL, NULL);
}
