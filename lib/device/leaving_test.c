/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of memory that is removed while windows into it are open. */
#include "device/test_window.h"

#include <errno.h>

#define TIMEOUT (100 * MODEL_MS)
#define SLOT 0x80000u

static struct test_model model;
static struct viommu_device *device;
static unsigned batches_done;

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

static void pin_of(struct holder *holder, struct viommu_device *of, uint64_t first, uint64_t last)
{
    assert_int_equal(holder_pin(holder, of, &(struct viommu_range){first, last}, 1), 0);
}

static void pin(struct holder *holder, uint64_t first, uint64_t last)
{
    pin_of(holder, device, first, last);
}

static bool over(struct wait *wait)
{
    return model_released(&model, wait);
}

static void on_done(void *opaque)
{
    (void)opaque;
    batches_done++;
}

/* Removes [first, last], and adds a slot there where `again` says at which address it lies. */
static int remove_slot(uint64_t first, uint64_t last, void *again)
{
    struct viommu_memory_slot slot = {.first = first, .last = last, .host = again, .fd = -1};
    struct viommu_memory_batch *batch;

    batches_done = 0;
    assert_int_equal(viommu_memory_batch_begin(model.memory, &batch), 0);
    assert_int_equal(viommu_memory_batch_remove(batch, first, last), 0);
    if (again) {
        assert_int_equal(viommu_memory_batch_add(batch, &slot), 0);
    }
    return viommu_memory_batch_commit(batch, on_done, NULL);
}

static bool removed(void)
{
    model_process(&model);
    (void)viommu_memory_process(model.memory);
    return batches_done == 1;
}

static void add_slot(uint64_t first, void *host)
{
    struct viommu_memory_slot slot = {
        .first = first, .last = first + 0xfff, .host = host, .fd = -1};

    add_slots(&model, &slot, 1);
}

static void test_memory_waits(void **state)
{
    struct holder holder = {0};
    struct holder elsewhere = {0};
    char byte;

    (void)state;
    add_slot(SLOT, model.ram);
    pin(&elsewhere, 0, 0xfff);
    assert_int_equal(remove_slot(SLOT, SLOT + 0xfff, NULL), 0);
    add_slot(SLOT, model.ram);
    pin(&holder, SLOT, SLOT);
    assert_int_equal(remove_slot(SLOT, SLOT + 0xfff, NULL), VIOMMU_PENDING);
    assert_int_equal(viommu_device_read(device, NULL, SLOT, &byte, 1), -ENXIO);
    assert_false(removed());
    assert_int_equal(holder.revoked, 1);
    assert_int_equal(elsewhere.revoked, 0);
    holder_release(&holder);
    assert_true(removed());
    holder_release(&elsewhere);
}

/* Not even for one that is overdue does memory go. */
static void test_memory_waits_for_the_late(void **state)
{
    struct holder before = {0};
    struct holder holder = {0};
    struct wait *wait;

    (void)state;
    add_slot(SLOT, model.ram);
    pin(&before, SLOT, SLOT);
    wait = model_ask(&model, &everything);
    assert_false(over(wait));
    model.now += TIMEOUT;
    assert_true(over(wait));
    assert_int_equal(viommu_device_reset(device), 0);
    model.offset = 0;
    pin(&holder, SLOT, SLOT);
    assert_int_equal(remove_slot(SLOT, SLOT + 0xfff, NULL), VIOMMU_PENDING);
    assert_false(removed());
    wait = model_ask(&model, &everything);
    assert_false(over(wait));
    model.now += TIMEOUT;
    assert_true(over(wait));
    assert_int_equal(holder.fenced, 1);
    assert_false(removed());
    holder_release(&holder);
    assert_false(removed());
    holder_release(&before);
    assert_true(removed());
}

/* A slot that takes the place of another one is other memory. */
static void test_memory_replaced(void **state)
{
    struct holder old = {0};
    struct holder new = {0};

    (void)state;
    add_slot(SLOT, model.ram);
    pin(&old, SLOT, SLOT);
    assert_int_equal(remove_slot(SLOT, SLOT + 0xfff, model.ram + 0x1000), VIOMMU_PENDING);
    pin(&new, SLOT, SLOT);
    assert_ptr_equal(new.iov[0].iov_base, model.ram + 0x1000);
    assert_false(removed());
    assert_int_equal(new.revoked, 0);
    holder_release(&old);
    assert_true(removed());
    assert_int_equal(remove_slot(SLOT, SLOT + 0xfff, NULL), VIOMMU_PENDING);
    assert_false(removed());
    assert_int_equal(new.revoked, 1);
    holder_release(&new);
    assert_true(removed());
}

/* Nor is what was pinned while others still used the old slot. */
static void test_memory_replaced_in_a_section(void **state)
{
    struct holder new = {0};

    (void)state;
    add_slot(SLOT, model.ram);
    pin(&new, SLOT, SLOT);
    holder_release(&new);
    assert_int_equal(viommu_dma_begin(&model.iommu), 0);
    assert_int_equal(remove_slot(SLOT, SLOT + 0xfff, model.ram + 0x1000), VIOMMU_PENDING);
    pin(&new, SLOT, SLOT);
    assert_ptr_equal(new.iov[0].iov_base, model.ram + 0x1000);
    assert_false(removed());
    viommu_dma_end(&model.iommu);
    assert_true(removed());
    assert_int_equal(new.revoked, 0);
    holder_release(&new);
}

/* While memory waits, a reset does not change that; the next removal starts anew. */
static void test_memory_and_reset(void **state)
{
    struct holder holder = {0};
    struct holder both = {0};
    struct viommu_range ranges[] = {{0, 0}, {SLOT + 0x1000, SLOT + 0x1000}, {SLOT, SLOT}};

    (void)state;
    add_slot(SLOT, model.ram);
    add_slot(SLOT + 0x1000, model.ram + 0x1000);
    pin(&holder, SLOT, SLOT);
    assert_int_equal(holder_pin(&both, device, ranges, 3), 0);
    assert_int_equal(remove_slot(SLOT + 0x1000, SLOT + 0x1fff, NULL), VIOMMU_PENDING);
    assert_false(removed());
    assert_int_equal(both.revoked, 1);
    assert_int_equal(holder.revoked, 0);
    (void)over(model_ask(&model, &everything));
    assert_int_equal(holder.revoked, 1);
    assert_int_equal(viommu_reset(&model.iommu), 0);
    model_check_wanted(&model);
    assert_false(removed());
    holder_release(&both);
    assert_true(removed());
    assert_int_equal(remove_slot(SLOT, SLOT + 0xfff, NULL), VIOMMU_PENDING);
    assert_false(removed());
    holder_release(&holder);
    assert_true(removed());
}

/* Two instances on one memory: it waits for windows of both. */
static void test_memory_of_two(void **state)
{
    struct test_model other = {.ats = true};
    struct viommu_config config = {.memory = model.memory, .clock = model_clock, .opaque = &other};
    struct holder first = {0};
    struct holder second = {0};

    (void)state;
    assert_int_equal(iommu_init(&other.iommu, &test_model_table, &config), 0);
    other.last = UINT64_MAX;
    other.mask = 0xfff;
    other.perm = VIOMMU_READ;
    assert_int_equal(viommu_start(&other.iommu), 0);
    add_slot(SLOT, model.ram);
    pin(&first, SLOT, SLOT);
    pin_of(&second, model_device(&other, 1), SLOT, SLOT);
    assert_int_equal(remove_slot(SLOT, SLOT + 0xfff, NULL), VIOMMU_PENDING);
    assert_false(removed());
    holder_release(&first);
    assert_false(removed());
    assert_int_equal(viommu_process(&other.iommu, 0), 0);
    assert_int_equal(second.revoked, 1);
    holder_release(&second);
    assert_true(removed());
    /* One that is destroyed while memory waits for its windows. */
    add_slot(SLOT, model.ram);
    pin_of(&second, other.iommu.devices, SLOT, SLOT);
    viommu_destroy(&other.iommu);
    assert_int_equal(remove_slot(SLOT, SLOT + 0xfff, NULL), VIOMMU_PENDING);
    assert_false(removed());
    assert_int_equal(other.destroyed, 0);
    holder_release(&second);
    assert_int_equal(other.destroyed, 1);
    assert_true(removed());
}

static int on_change(void *opaque, const struct viommu_change *change)
{
    (void)opaque;
    (void)change;
    return 0;
}

static int on_mirror_fence(void *opaque)
{
    (void)opaque;
    return 0;
}

/* Mirrors are gone with the instance: memory waits for windows only. */
static void test_memory_of_one_with_a_mirror(void **state)
{
    struct viommu_subscription mirror = {
        .kinds = VIOMMU_CHANGE_MAP | VIOMMU_CHANGE_UNMAP,
        .role = VIOMMU_ROLE_MIRROR,
        .change = on_change,
        .fence = on_mirror_fence,
    };
    struct viommu_memory *memory = model.memory;
    struct viommu_subscriber *subscriber;
    struct holder holder = {0};
    char byte;

    (void)state;
    add_slot(SLOT, model.ram);
    assert_int_equal(viommu_device_subscribe(device, &mirror, &subscriber), 0);
    pin(&holder, SLOT, SLOT);
    model_process(&model);
    viommu_destroy(&model.iommu);
    assert_int_equal(remove_slot(SLOT, SLOT + 0xfff, NULL), VIOMMU_PENDING);
    (void)viommu_memory_process(memory);
    assert_int_equal(viommu_memory_read(memory, SLOT, &byte, 1), -ENXIO);
    assert_int_equal(batches_done, 0);
    holder_release(&holder);
    (void)viommu_memory_process(memory);
    assert_int_equal(batches_done, 1);
    viommu_memory_destroy(memory);
    free(model.ram);
    model_init(&model);
}

/* One that waits already when its instance is destroyed. */
static void test_memory_of_one_that_goes(void **state)
{
    struct holder holder = {0};
    struct viommu_memory *memory = model.memory;

    (void)state;
    add_slot(SLOT, model.ram);
    pin(&holder, SLOT, SLOT);
    assert_int_equal(remove_slot(SLOT, SLOT + 0xfff, NULL), VIOMMU_PENDING);
    assert_false(removed());
    viommu_destroy(&model.iommu);
    (void)viommu_memory_process(memory);
    assert_int_equal(batches_done, 0);
    holder_release(&holder);
    (void)viommu_memory_process(memory);
    assert_int_equal(batches_done, 1);
    /* What the teardown destroys. */
    viommu_memory_destroy(memory);
    free(model.ram);
    model_init(&model);
}

/* When its instance is gone memory still asks for it, but nobody is told that there is work. */
static void test_nobody_is_woken(void **state)
{
    static struct test_model woken = {.woken_by_callback = true};
    struct viommu_memory_batch *batch;
    struct holder holder = {0};
    unsigned wakes;

    (void)state;
    model_create(&woken);
    model_add_ram(&woken, 0, 0xfff, 0);
    assert_int_equal(viommu_start(&woken.iommu), 0);
    pin_of(&holder, model_device(&woken, 1), 0, 0xfff);
    assert_int_equal(viommu_device_remove(woken.iommu.devices), 0);
    model_process(&woken);
    viommu_destroy(&woken.iommu);
    wakes = woken.wakes;
    assert_int_equal(viommu_memory_batch_begin(woken.memory, &batch), 0);
    assert_int_equal(viommu_memory_batch_remove(batch, 0, 0xfff), 0);
    assert_int_equal(viommu_memory_batch_commit(batch, on_done, NULL), VIOMMU_PENDING);
    holder_release(&holder);
    assert_int_equal(woken.wakes, wakes);
    (void)viommu_memory_process(woken.memory);
    viommu_memory_destroy(woken.memory);
    free(woken.ram);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static const struct CMUnitTest tests[] = {
    TEST(test_memory_waits),
    TEST(test_memory_waits_for_the_late),
    TEST(test_memory_replaced),
    TEST(test_memory_replaced_in_a_section),
    TEST(test_memory_of_one_with_a_mirror),
    TEST(test_memory_and_reset),
    TEST(test_memory_of_two),
    TEST(test_memory_of_one_that_goes),
    TEST(test_nobody_is_woken),
};

int main(void)
{
    return cmocka_run_group_tests_name("leaving", tests, NULL, NULL);
}
