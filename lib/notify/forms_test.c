/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of what a subscriber asks for: kinds, range, form. Changes are cut to the range, given in
 * one call or in blocks, held until their operation lets them go, and told once for each requester.
 */
#include "base/alloc.h"
#include "iommu/test_model.h"

#include <errno.h>

#define ID 0x28
#define CALLS 128

struct follower {
    struct viommu_subscriber *subscriber;
    int answer;
    unsigned count;
    struct viommu_change calls[CALLS];
};

static struct test_model model;
static struct viommu_device *device;

static int on_change(void *opaque, const struct viommu_change *change)
{
    struct follower *follower = opaque;

    assert_true(follower->count < CALLS);
    follower->calls[follower->count++] = *change;
    return follower->answer;
}

static void follow(struct follower *follower, uint32_t kinds, enum viommu_form form, uint64_t first,
                   uint64_t last)
{
    struct viommu_subscription what = {
        .kinds = kinds,
        .form = form,
        .range = {first, last},
        .change = on_change,
        .opaque = follower,
    };

    *follower = (struct follower){0};
    assert_int_equal(viommu_device_subscribe(device, &what, &follower->subscriber), 0);
}

static bool everyone(const struct requester *requester, const void *what)
{
    (void)requester;
    (void)what;
    return true;
}

static void post(struct wait *wait, enum viommu_change_kind kind, uint64_t first, uint64_t last)
{
    struct viommu_change change = {.kind = kind, .first = first, .last = last};

    iommu_lock(&model.iommu);
    notify_post(&model.iommu, &change, everyone, NULL, wait);
    iommu_kick(&model.iommu);
    iommu_unlock(&model.iommu);
}

/* Posts and delivers; the wait has to be over then. */
static void tell(uint64_t first, uint64_t last)
{
    struct wait wait = {0};

    post(&wait, VIOMMU_CHANGE_UNMAP, first, last);
    model_process(&model);
    assert_int_equal(wait.deliveries, 0);
}

static void hold(struct wait *wait)
{
    iommu_lock(&model.iommu);
    notify_hold(&model.iommu, wait);
    iommu_unlock(&model.iommu);
}

static void let_go(struct wait *wait)
{
    iommu_lock(&model.iommu);
    notify_release(&model.iommu, wait);
    iommu_kick(&model.iommu);
    iommu_unlock(&model.iommu);
    model_process(&model);
}

static void heard(struct follower *follower, uint64_t first, uint64_t last)
{
    assert_int_equal(follower->count, 1);
    assert_int_equal(follower->calls[0].first, first);
    assert_int_equal(follower->calls[0].last, last);
    follower->count = 0;
}

static int setup(void **state)
{
    (void)state;
    model_init(&model);
    device = model_device(&model, ID);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    model_fini(&model);
    return 0;
}

static void test_cut_to_the_range(void **state)
{
    struct follower follower;

    (void)state;
    follow(&follower, VIOMMU_CHANGE_UNMAP, VIOMMU_FORM_RANGE, 0x3000, 0x7fff);
    tell(0x1000, 0x3fff); /* begins before */
    heard(&follower, 0x3000, 0x3fff);
    tell(0x7000, 0x9fff); /* ends behind */
    heard(&follower, 0x7000, 0x7fff);
    tell(0, UINT64_MAX); /* both */
    heard(&follower, 0x3000, 0x7fff);
    tell(0x4000, 0x4fff);
    heard(&follower, 0x4000, 0x4fff);
    tell(0x2fff, 0x3000); /* one byte */
    heard(&follower, 0x3000, 0x3000);
    tell(0x1000, 0x2fff);
    tell(0x8000, UINT64_MAX);
    assert_int_equal(follower.count, 0);
}

static void test_top_of_the_space(void **state)
{
    struct follower follower;

    (void)state;
    follow(&follower, VIOMMU_CHANGE_UNMAP, VIOMMU_FORM_RANGE, UINT64_MAX - 0xfff, UINT64_MAX);
    tell(0, UINT64_MAX);
    heard(&follower, UINT64_MAX - 0xfff, UINT64_MAX);
    tell(UINT64_MAX, UINT64_MAX);
    heard(&follower, UINT64_MAX, UINT64_MAX);
}

static void test_zero_range_is_everything(void **state)
{
    struct follower range;
    struct follower blocks;

    (void)state;
    follow(&range, VIOMMU_CHANGE_UNMAP, VIOMMU_FORM_RANGE, 0, 0);
    follow(&blocks, VIOMMU_CHANGE_UNMAP, VIOMMU_FORM_POW2, 0, 0);
    tell(0, UINT64_MAX);
    heard(&range, 0, UINT64_MAX);
    heard(&blocks, 0, UINT64_MAX);
}

static void test_fewest_blocks(void **state)
{
    static const uint64_t first[] = {0x3000, 0x4000, 0x8000, 0x10000};
    static const uint64_t last[] = {0x3fff, 0x7fff, 0xffff, 0x10fff};
    struct follower follower;

    (void)state;
    follow(&follower, VIOMMU_CHANGE_UNMAP, VIOMMU_FORM_POW2, 0, 0);
    tell(0x3000, 0x10fff);
    assert_int_equal(follower.count, 4);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(follower.calls[i].first, first[i]);
        assert_int_equal(follower.calls[i].last, last[i]);
    }
    /* Blocks are counted one by one: each has a token of its own. */
    assert_true(follower.calls[0].token != follower.calls[1].token);
}

static void test_blocks_all_count(void **state)
{
    struct follower follower;
    struct wait wait = {0};

    (void)state;
    follow(&follower, VIOMMU_CHANGE_UNMAP, VIOMMU_FORM_POW2, 0, 0);
    follower.answer = VIOMMU_PENDING;
    post(&wait, VIOMMU_CHANGE_UNMAP, 0x1000, 0x3fff);
    model_process(&model);
    assert_int_equal(follower.count, 2);
    assert_int_equal(wait.deliveries, 2);
    assert_int_equal(viommu_change_complete(&model.iommu, follower.calls[1].token, 0), 0);
    assert_int_equal(wait.deliveries, 1);
    assert_int_equal(viommu_change_complete(&model.iommu, follower.calls[0].token, 0), 0);
    assert_int_equal(wait.deliveries, 0);
}

static void test_kinds(void **state)
{
    struct follower cache;
    struct follower tlb;
    struct follower both;
    struct wait wait = {0};

    (void)state;
    follow(&cache, VIOMMU_CHANGE_UNMAP, VIOMMU_FORM_RANGE, 0, 0);
    follow(&tlb, VIOMMU_CHANGE_DEVICE_TLB, VIOMMU_FORM_RANGE, 0, 0);
    follow(&both, VIOMMU_CHANGE_UNMAP | VIOMMU_CHANGE_DEVICE_TLB, VIOMMU_FORM_RANGE, 0, 0);
    tell(0x1000, 0x1fff);
    assert_int_equal(cache.count, 1);
    assert_int_equal(tlb.count, 0);
    assert_int_equal(both.count, 1);
    post(&wait, VIOMMU_CHANGE_DEVICE_TLB, 0x1000, 0x1fff);
    model_process(&model);
    assert_int_equal(cache.count, 1);
    assert_int_equal(tlb.count, 1);
    assert_int_equal(both.count, 2);
    assert_int_equal(both.calls[1].kind, VIOMMU_CHANGE_DEVICE_TLB);
}

static void test_each_requester_once(void **state)
{
    struct follower follower;

    (void)state;
    assert_int_equal(viommu_device_add_alias(device, ID + 1), 1);
    follow(&follower, VIOMMU_CHANGE_UNMAP, VIOMMU_FORM_RANGE, 0, 0);
    tell(0x1000, 0x1fff);
    assert_int_equal(follower.count, 2);
    assert_int_equal(follower.calls[0].requester, ID);
    assert_int_equal(follower.calls[1].requester, ID + 1);
}

static void test_held(void **state)
{
    struct follower follower;
    struct wait held = {0};

    (void)state;
    follow(&follower, VIOMMU_CHANGE_UNMAP, VIOMMU_FORM_RANGE, 0, 0);
    hold(&held);
    post(&held, VIOMMU_CHANGE_UNMAP, 0x1000, 0x1fff);
    model_process(&model);
    assert_int_equal(follower.count, 0);
    assert_int_equal(held.deliveries, 1);
    tell(0x2000, 0x2fff); /* another operation does not wait for it */
    heard(&follower, 0x2000, 0x2fff);

    let_go(&held);
    heard(&follower, 0x1000, 0x1fff);
    assert_int_equal(held.deliveries, 0);
}

/* Who comes while a wait holds may have asked for what is about to go: it drops everything. */
static void test_newcomers_drop_everything(void **state)
{
    struct follower follower;
    struct follower newcomer;
    struct follower tlb;
    struct wait held = {0};

    (void)state;
    follow(&follower, VIOMMU_CHANGE_UNMAP, VIOMMU_FORM_RANGE, 0, 0);
    hold(&held);
    post(&held, VIOMMU_CHANGE_UNMAP, 0x1000, 0x1fff);
    follow(&newcomer, VIOMMU_CHANGE_UNMAP, VIOMMU_FORM_RANGE, 0x4000, 0x7fff);
    follow(&tlb, VIOMMU_CHANGE_DEVICE_TLB, VIOMMU_FORM_RANGE, 0, 0);
    let_go(&held);
    heard(&follower, 0x1000, 0x1fff);
    heard(&newcomer, 0x4000, 0x7fff);
    assert_int_equal(tlb.count, 0);
    assert_int_equal(held.deliveries, 0);
}

/* So do those of a device that took another id meanwhile. */
static void test_another_id_drops_everything(void **state)
{
    struct follower follower;
    struct wait held = {0};

    (void)state;
    follow(&follower, VIOMMU_CHANGE_UNMAP, VIOMMU_FORM_RANGE, 0, 0);
    hold(&held);
    assert_int_equal(viommu_device_set_requester(device, ID + 8), 0);
    let_go(&held);
    heard(&follower, 0, UINT64_MAX);
    assert_int_equal(follower.calls[0].requester, ID + 8);
}

static void test_held_and_forgotten(void **state)
{
    struct follower follower;
    struct wait held = {0};

    (void)state;
    follow(&follower, VIOMMU_CHANGE_UNMAP, VIOMMU_FORM_RANGE, 0, 0);
    hold(&held);
    post(&held, VIOMMU_CHANGE_UNMAP, 0x1000, 0x1fff);
    iommu_lock(&model.iommu);
    notify_forget(&model.iommu, &held);
    iommu_unlock(&model.iommu);
    assert_int_equal(held.deliveries, 0);
    model_process(&model);
    assert_int_equal(follower.count, 0);
}

static void test_subscriber_goes_while_held(void **state)
{
    struct follower follower;
    struct wait held = {0};

    (void)state;
    follow(&follower, VIOMMU_CHANGE_UNMAP, VIOMMU_FORM_RANGE, 0, 0);
    hold(&held);
    post(&held, VIOMMU_CHANGE_UNMAP, 0x1000, 0x1fff);
    assert_int_equal(viommu_subscriber_destroy(follower.subscriber), 0);
    assert_int_equal(held.deliveries, 0);
    let_go(&held);
    assert_int_equal(follower.count, 0);
}

static void test_told_says_whether_there_was_anybody(void **state)
{
    struct follower follower;
    struct wait wait = {0};

    (void)state;
    follow(&follower, VIOMMU_CHANGE_UNMAP, VIOMMU_FORM_RANGE, 0x1000, 0x1fff);
    post(&wait, VIOMMU_CHANGE_UNMAP, 0x2000, 0x2fff);
    assert_false(wait.told);
    post(&wait, VIOMMU_CHANGE_UNMAP, 0x1000, 0x2fff);
    assert_true(wait.told);
    model_process(&model);
}

/*
 * The second of three blocks finds no memory: the subscriber is fenced, and nothing of it is left.
 */
static void test_no_memory_for_a_block(void **state)
{
    struct follower follower;
    struct wait wait = {0};

    (void)state;
    follow(&follower, VIOMMU_CHANGE_UNMAP, VIOMMU_FORM_POW2, 0, 0);
    base_alloc_fail_at(2);
    post(&wait, VIOMMU_CHANGE_UNMAP, 0x1000, 0x4fff);
    base_alloc_fail_at(0);
    assert_int_equal(wait.deliveries, 0);
    assert_true(wait.failed);
    model_process(&model);
    assert_int_equal(follower.count, 0);
    tell(0x1000, 0x1fff);
    assert_int_equal(follower.count, 0);
}

static void test_bad_subscriptions(void **state)
{
    struct viommu_subscription what = {
        .kinds = VIOMMU_CHANGE_UNMAP,
        .range = {2, 1},
        .change = on_change,
    };
    struct viommu_subscriber *subscriber;

    (void)state;
    assert_int_equal(viommu_device_subscribe(device, &what, &subscriber), -EINVAL);
    what.range.last = 2;
    what.form = (enum viommu_form)2;
    assert_int_equal(viommu_device_subscribe(device, &what, &subscriber), -EINVAL);
    what.form = VIOMMU_FORM_RANGE;
    what.kinds = 1;
    assert_int_equal(viommu_device_subscribe(device, &what, &subscriber), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_cut_to_the_range, setup, teardown),
        cmocka_unit_test_setup_teardown(test_top_of_the_space, setup, teardown),
        cmocka_unit_test_setup_teardown(test_zero_range_is_everything, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fewest_blocks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_blocks_all_count, setup, teardown),
        cmocka_unit_test_setup_teardown(test_kinds, setup, teardown),
        cmocka_unit_test_setup_teardown(test_each_requester_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_held, setup, teardown),
        cmocka_unit_test_setup_teardown(test_newcomers_drop_everything, setup, teardown),
        cmocka_unit_test_setup_teardown(test_another_id_drops_everything, setup, teardown),
        cmocka_unit_test_setup_teardown(test_held_and_forgotten, setup, teardown),
        cmocka_unit_test_setup_teardown(test_subscriber_goes_while_held, setup, teardown),
        cmocka_unit_test_setup_teardown(test_told_says_whether_there_was_anybody, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_memory_for_a_block, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_subscriptions, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
