/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of windows that are wanted back: who is concerned, when a wait is over, what holders are
 * told, those who are too late, and resets. Memory that is removed is in leaving_test.c.
 */
#include "device/test_window.h"

#include "base/alloc.h"

#include <errno.h>
#include <poll.h>
#include <time.h>

#define TIMEOUT (100 * MODEL_MS)
#define ID 0x28
#define DOMAIN 0 /* of all that the model translates */

static struct test_model model;
static struct viommu_device *device;

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

static void pin_of(struct holder *holder, struct viommu_device *of, uint64_t first, uint64_t last)
{
    assert_int_equal(holder_pin(holder, of, &(struct viommu_range){first, last}, 1), 0);
}

static void pin(struct holder *holder, uint64_t first, uint64_t last)
{
    pin_of(holder, device, first, last);
}

static struct wait *ask(const struct window_concern *concern)
{
    return model_ask(&model, concern);
}

static struct wait *ask_pages(uint64_t first, uint64_t last)
{
    return ask(&(struct window_concern){first, last, DOMAIN, 0, 0});
}

static bool over(struct wait *wait)
{
    return model_released(&model, wait);
}

static unsigned events_of(enum viommu_event_kind kind)
{
    unsigned count = 0;

    for (unsigned i = 0; i < model.event_count; i++) {
        count += model.events[i].kind == kind;
    }
    return count;
}

static void check_wanted(void)
{
    model_check_wanted(&model);
}

static void test_nothing_to_wait_for(void **state)
{
    struct wait nothing = {0};
    struct holder holder = {0};

    (void)state;
    assert_true(over(ask(&everything)));
    pin(&holder, 0, 0xfff);
    holder_release(&holder);
    assert_true(over(ask(&everything)));
    pin(&holder, 0, 0xfff);
    iommu_lock(&model.iommu);
    assert_false(windows_ask(&model.iommu, &nothing.windows, UINT64_MAX));
    iommu_unlock(&model.iommu);
    assert_true(over(&nothing));
    assert_int_equal(holder.revoked, 0);
    holder_release(&holder);
}

static void test_waits(void **state)
{
    struct holder holder = {0};
    struct wait *wait;

    (void)state;
    pin(&holder, 0, 0xfff);
    wait = ask(&everything);
    assert_int_equal(holder.revoked, 0); /* by viommu_process only */
    assert_false(over(wait));
    assert_int_equal(holder.revoked, 1);
    check_wanted();
    assert_false(over(wait));
    assert_int_equal(holder.revoked, 1);
    assert_int_equal(model_stats(&model).windows_revoked, 1);
    holder_release(&holder);
    assert_true(over(wait));
    check_wanted();
    assert_int_equal(events_of(VIOMMU_EVENT_DENIED), 0);
}

/* What was pinned later is not waited for, and not asked back. */
static void test_born_later(void **state)
{
    struct holder old = {0};
    struct holder new = {0};
    struct wait *wait;
    struct wait *later;

    (void)state;
    pin(&old, 0, 0xfff);
    wait = ask(&everything);
    pin(&new, 0, 0xfff);
    assert_false(over(wait));
    assert_int_equal(new.revoked, 0);
    later = ask(&everything);
    assert_false(over(later));
    assert_int_equal(new.revoked, 1);
    /* Though another operation wants it, the first one does not wait for it. */
    holder_release(&old);
    assert_true(over(wait));
    assert_false(over(later));
    holder_release(&new);
    assert_true(over(later));
}

/* A concern of some pages, of a window of some others; largest page of 2^shift bytes. */
static void try_pages(uint64_t first, uint64_t last, uint8_t shift, bool concerned)
{
    struct holder holder = {0};
    struct wait *wait;

    holder.perm = VIOMMU_READ;
    assert_int_equal(holder_pin(&holder, device,
                                (struct viommu_range[]){{0x5000, 0x5fff}, {0x8800, 0x8fff}}, 2),
                     0);
    holder.window->origin.shift = shift;
    wait = ask_pages(first, last);
    assert_int_equal(over(wait), !concerned);
    assert_int_equal(holder.revoked, concerned);
    holder_release(&holder);
    assert_true(over(wait));
    model.wait_count--;
}

static void test_pages(void **state)
{
    (void)state;
    try_pages(0x5000, 0x5fff, 12, true);
    try_pages(0, 0x4fff, 12, false);
    try_pages(0, 0x5000, 12, true);
    try_pages(0x6000, 0x7fff, 12, false);
    try_pages(0x6000, 0x8fff, 12, true);
    try_pages(0x8000, 0x8fff, 12, true); /* whole pages go */
    try_pages(0x9000, UINT64_MAX, 12, false);
    try_pages(0, UINT64_MAX, 12, true);
    try_pages(0x1ff000, 0x1fffff, 21, true);
    try_pages(0x200000, 0x200fff, 21, false);
    try_pages(0x200000, 0x200fff, 30, true);
    try_pages(0xffffffffc0000000, UINT64_MAX, 30, false);
}

static void try_domain(int32_t of_window, int32_t of_concern, bool concerned)
{
    struct window_concern concern = everything;
    struct holder holder = {0};

    pin(&holder, 0, 0xfff);
    holder.window->origin.domain = of_window;
    concern.domain = of_concern;
    assert_int_equal(over(ask(&concern)), !concerned);
    holder_release(&holder);
}

static void test_domains(void **state)
{
    struct holder holder = {0};

    (void)state;
    model.domains = true;
    pin(&holder, 0x3000, 0x3fff);
    assert_int_equal(holder.window->origin.domain, 3);
    holder_release(&holder);
    pin(&holder, 0x3000, 0x4fff);
    assert_int_equal(holder.window->origin.domain, WINDOW_DOMAIN_ANY);
    holder_release(&holder);
    try_domain(5, 5, true);
    try_domain(5, 6, false);
    try_domain(5, WINDOW_DOMAIN_ANY, true);
    try_domain(WINDOW_DOMAIN_ANY, 6, true);
    try_domain(WINDOW_DOMAIN_NONE, 6, false);
    try_domain(WINDOW_DOMAIN_NONE, 0, false);
    try_domain(WINDOW_DOMAIN_NONE, WINDOW_DOMAIN_ANY, true);
}

static void try_requester(uint16_t id, uint16_t compared, bool concerned)
{
    struct window_concern concern = everything;
    struct holder holder = {0};

    pin(&holder, 0, 0xfff);
    concern.id = id;
    concern.compared = compared;
    assert_int_equal(over(ask(&concern)), !concerned);
    holder_release(&holder);
}

static void test_requesters(void **state)
{
    struct holder holder = {0};
    struct window_concern concern = {0, UINT64_MAX, WINDOW_DOMAIN_ANY, ID, 0xffff};
    struct wait *wait;

    (void)state;
    try_requester(ID, 0xffff, true);
    try_requester(ID ^ 1, 0xffff, false);
    try_requester(ID ^ 1, 0xfffe, true);
    try_requester(ID ^ 0x8000, 0xfffe, false);
    /* The id that it was made under counts, whatever the device has now. */
    pin(&holder, 0, 0xfff);
    assert_int_equal(viommu_device_set_requester(device, 0x30), 0);
    wait = ask(&concern);
    assert_false(over(wait));
    concern.id = 0x30;
    assert_true(over(ask(&concern)));
    holder_release(&holder);
    assert_true(over(wait));
}

/* Several operations, several windows, any order of release: each waits for its own. */
static void test_each_for_its_own(void **state)
{
    static const unsigned orders[][4] = {
        {0, 1, 2, 3}, {3, 2, 1, 0}, {1, 3, 0, 2}, {2, 0, 3, 1}};

    (void)state;
    for (size_t o = 0; o < sizeof(orders) / sizeof(orders[0]); o++) {
        struct holder holders[4] = {{0}};
        struct wait *all;
        struct wait *waits[4];
        struct wait *upper;
        bool open[4] = {true, true, true, true};

        for (unsigned i = 0; i < 4; i++) {
            pin(&holders[i], 0x1000 * i, 0x1000 * i + 0xfff);
        }
        upper = ask_pages(0x2000, 0x3fff);
        for (unsigned i = 0; i < 4; i++) {
            waits[i] = ask_pages(0x1000 * i, 0x1000 * i + 0xfff);
        }
        all = ask(&everything);
        for (unsigned i = 0; i < 4; i++) {
            unsigned which = orders[o][i];

            check_wanted();
            holder_release(&holders[which]);
            open[which] = false;
            for (unsigned j = 0; j < 4; j++) {
                assert_int_equal(over(waits[j]), !open[j]);
                assert_int_equal(holders[j].revoked, j != orders[o][0]);
            }
            assert_int_equal(over(upper), !open[2] && !open[3]);
            assert_int_equal(over(all), i == 3);
        }
        model.wait_count -= 6;
    }
    assert_int_equal(events_of(VIOMMU_EVENT_DENIED), 0);
}

static void test_release_inside(void **state)
{
    struct holder holder = {.release_in_revoke = true};
    struct wait *wait;

    (void)state;
    pin(&holder, 0, 0xfff);
    wait = ask(&everything);
    assert_true(over(wait));
    assert_int_equal(holder.revoked, 1);
    assert_null(holder.window);
    assert_int_equal(model_stats(&model).windows_open, 0);
}

static struct holder *other_holder;

static void release_other(struct holder *holder)
{
    (void)holder;
    holder_release(other_holder);
}

/* One holder's callback releases what another one has, which is still to be asked. */
static void test_release_of_another_inside(void **state)
{
    struct holder first = {0};
    struct holder second = {0};
    struct wait *wait;

    (void)state;
    first.in_revoke = release_other;
    second.in_revoke = release_other;
    pin(&first, 0, 0xfff);
    pin(&second, 0, 0xfff);
    /* The last one pinned is the first in the device's list. */
    other_holder = &first;
    wait = ask(&everything);
    assert_false(over(wait));
    assert_int_equal(first.revoked, 0);
    assert_int_equal(second.revoked, 1);
    holder_release(&second);
    assert_true(over(wait));
}

static void test_too_late(void **state)
{
    struct viommu_translation out;
    struct holder holder = {0};
    struct holder in_time = {0};
    struct wait *wait;
    struct wait *both;

    (void)state;
    pin(&holder, 0x2000, 0x3fff);
    pin(&in_time, 0x4000, 0x4fff);
    both = ask(&everything);
    wait = ask_pages(0x2000, 0x2fff);
    assert_false(over(wait));
    model.now += TIMEOUT - 1;
    assert_false(over(wait));
    assert_int_equal(holder.fenced, 0);
    holder_release(&in_time);
    model.now += 1;
    assert_true(over(wait));
    assert_true(over(both));
    assert_int_equal(holder.fenced, 1);
    assert_int_equal(holder.revoked, 1);
    assert_int_equal(in_time.fenced, 0);
    assert_int_equal(model_stats(&model).windows_overdue, 1);
    assert_int_equal(events_of(VIOMMU_EVENT_DENIED), 1);
    assert_int_equal(events_of(VIOMMU_EVENT_OVERDUE), 1);
    assert_int_equal(model.events[model.event_count - 1].requester, ID);
    assert_int_equal(model.events[model.event_count - 1].error, 0);
    assert_int_equal(model.events[model.event_count - 1].first, 0x2000);
    assert_int_equal(model.events[model.event_count - 1].last, 0x3fff);
    assert_int_equal(viommu_device_translate(device, NULL, 0, VIOMMU_READ, &out), -EPERM);
    assert_int_equal(holder_pin(&in_time, device, &(struct viommu_range){0, 0}, 1), -EPERM);
    check_wanted();
    /* Nobody waits for it again, whatever becomes of the device. */
    assert_int_equal(viommu_device_reset(device), 0);
    assert_true(over(ask(&everything)));
    assert_int_equal(viommu_device_translate(device, NULL, 0, VIOMMU_READ, &out), 0);
    model.now += 10 * TIMEOUT;
    assert_true(over(ask(&everything)));
    assert_int_equal(holder.fenced, 1);
    assert_int_equal(events_of(VIOMMU_EVENT_DENIED), 1);
    holder_release(&holder);
    check_wanted();
}

/* What an event says of those who could not be stopped. */
static void try_fence(int answer, bool no_fence, int error)
{
    struct holder holder = {.fence_answer = answer, .no_fence = no_fence};
    struct wait *wait;
    unsigned events = model.event_count;

    pin(&holder, 0, 0xfff);
    wait = ask(&everything);
    assert_false(over(wait));
    model.now += TIMEOUT;
    assert_true(over(wait));
    assert_int_equal(holder.fenced, !no_fence);
    assert_int_equal(model.event_count, events + 2);
    assert_int_equal(model.events[events].kind, VIOMMU_EVENT_DENIED);
    assert_int_equal(model.events[events + 1].kind, VIOMMU_EVENT_OVERDUE);
    assert_int_equal(model.events[events + 1].error, error);
    assert_int_equal(viommu_device_reset(device), 0);
    holder_release(&holder);
}

static void test_fences(void **state)
{
    struct holder holder = {.release_in_fence = true};
    struct wait *wait;

    (void)state;
    try_fence(0, false, 0);
    try_fence(-EIO, false, -EIO);
    try_fence(1, false, -EPROTO);
    try_fence(0, true, -ETIMEDOUT);
    pin(&holder, 0, 0xfff);
    wait = ask(&everything);
    assert_false(over(wait));
    model.now += TIMEOUT;
    assert_true(over(wait));
    assert_null(holder.window);
    assert_int_equal(events_of(VIOMMU_EVENT_OVERDUE), 5); /* released, but too late */
    check_wanted();
}

/* Time runs from its own call on. */
static void test_time_of_each(void **state)
{
    struct holder first = {0};
    struct holder second = {0};
    struct wait *wait;
    struct wait *later;

    (void)state;
    pin(&first, 0, 0xfff);
    pin(&second, 0x1000, 0x1fff);
    wait = ask_pages(0, 0xfff);
    assert_false(over(wait));
    model.now += TIMEOUT / 2;
    later = ask(&everything);
    assert_false(over(later));
    model.now += TIMEOUT / 2;
    assert_true(over(wait));
    assert_false(over(later));
    assert_int_equal(second.fenced, 0);
    model.now += TIMEOUT / 2;
    assert_true(over(later));
    assert_int_equal(second.fenced, 1);
    holder_release(&second);
    holder_release(&first);
}

/* Without a clock of its own the descriptor tells when time is up. */
static void test_event_fd(void **state)
{
    static struct test_model real = {.ats = true, .host_clock = true};
    struct holder holder = {0};
    struct wait wait = {0};
    struct pollfd ready;
    uint64_t begin;
    int waited = 0;

    (void)state;
    model_create(&real);
    model_add_ram(&real, 0, MODEL_RAM - 1, 0);
    assert_int_equal(viommu_start(&real.iommu), 0);
    ready = (struct pollfd){.fd = viommu_event_fd(&real.iommu), .events = POLLIN};
    pin_of(&holder, model_device(&real, 1), 0, 0xfff);
    model_process(&real);
    assert_int_equal(poll(&ready, 1, 0), 0);
    real.offset = 0x1000;
    begin = wake_now();
    iommu_lock(&real.iommu);
    windows_concern(&wait.windows, &everything);
    assert_true(windows_ask(&real.iommu, &wait.windows, UINT64_MAX));
    iommu_unlock(&real.iommu);
    while (!holder.fenced) {
        assert_int_equal(poll(&ready, 1, 5000), 1);
        model_process(&real);
        waited += holder.revoked && !holder.fenced;
        if (wake_now() >= begin + TIMEOUT && !waited) {
            waited = 1; /* it was so late here that time was up before the holder was asked */
        }
    }
    assert_in_range(waited, 1, 3);
    iommu_lock(&real.iommu);
    assert_true(windows_over(&wait.windows));
    iommu_unlock(&real.iommu);
    holder_release(&holder);
    model_fini(&real);
}

/* A reset ends the wait; the window is asked no second time, but has its time anew. */
static void test_reset(void **state)
{
    struct holder holder = {0};
    struct holder late = {0};
    struct wait *wait;

    (void)state;
    pin(&late, 0x1000, 0x1fff);
    wait = ask_pages(0x1000, 0x1fff);
    assert_false(over(wait));
    model.now += TIMEOUT;
    assert_true(over(wait));
    assert_int_equal(viommu_device_reset(device), 0);
    pin(&holder, 0, 0xfff);
    wait = ask(&everything);
    assert_false(over(wait));
    assert_int_equal(viommu_reset(&model.iommu), 0);
    assert_true(over(wait));
    check_wanted();
    model.now += 2 * TIMEOUT;
    model_process(&model);
    assert_int_equal(holder.fenced, 0);
    wait = ask(&everything);
    assert_false(over(wait));
    assert_int_equal(holder.revoked, 1);
    model.now += TIMEOUT - 1;
    assert_false(over(wait));
    model.now += 1;
    assert_true(over(wait));
    assert_int_equal(holder.fenced, 1);
    assert_int_equal(late.fenced, 1);
    holder_release(&holder);
    holder_release(&late);
}

/* A window that nobody wants any more is released as one that nobody ever wanted. */
static void test_release_after_reset(void **state)
{
    struct holder holders[3] = {{0}};

    (void)state;
    for (int i = 0; i < 3; i++) {
        pin(&holders[i], 0, 0xfff);
    }
    (void)over(ask(&everything));
    holder_release(&holders[1]);
    assert_int_equal(viommu_reset(&model.iommu), 0);
    check_wanted();
    holder_release(&holders[0]);
    holder_release(&holders[2]);
    assert_null(model.iommu.windows.wanted);
}

static pthread_t releaser;
static _Atomic bool releaser_done;

static void *release_elsewhere(void *opaque)
{
    holder_release(opaque);
    atomic_store(&releaser_done, true);
    return NULL;
}

/* Nobody wants it any more, and yet its function runs: it is released when that has ended. */
static void reset_and_release(struct holder *holder)
{
    struct timespec pause = {.tv_nsec = 20000000};

    assert_int_equal(viommu_reset(&model.iommu), 0);
    assert_int_equal(pthread_create(&releaser, NULL, release_elsewhere, holder), 0);
    nanosleep(&pause, NULL);
    assert_false(atomic_load(&releaser_done));
}

static void reset(struct holder *holder)
{
    (void)holder;
    assert_int_equal(viommu_reset(&model.iommu), 0);
}

static void test_reset_inside(void **state)
{
    struct holder elsewhere = {.in_revoke = reset_and_release};
    struct holder inside = {.in_revoke = reset, .release_in_revoke = true};

    (void)state;
    atomic_store(&releaser_done, false);
    pin(&elsewhere, 0, 0xfff);
    (void)over(ask(&everything));
    assert_int_equal(pthread_join(releaser, NULL), 0);
    assert_int_equal(elsewhere.revoked, 1);
    pin(&inside, 0, 0xfff);
    (void)over(ask(&everything));
    assert_int_equal(inside.revoked, 1);
    assert_null(inside.window);
    check_wanted();
    assert_int_equal(model_stats(&model).windows_open, 0);
}

static int on_change(void *opaque, const struct viommu_change *change)
{
    (void)change;
    ++*(unsigned *)opaque;
    return 0;
}

/* Holders are asked though there are always subscribers to be told, and the other way about. */
static void test_asked_among_changes(void **state)
{
    unsigned told = 0;
    struct viommu_subscription what = {
        .kinds = VIOMMU_CHANGE_DEVICE_TLB, .change = on_change, .opaque = &told};
    struct viommu_subscriber *subscriber;
    struct holder holders[8] = {{0}};

    (void)state;
    assert_int_equal(viommu_device_subscribe(device, &what, &subscriber), 0);
    for (unsigned i = 0; i < 8; i++) {
        pin(&holders[i], 0, 0xfff);
        (void)model_post(&model, ID, 0x1000 * i);
    }
    (void)ask(&everything);
    assert_int_equal(viommu_process(&model.iommu, 8), VIOMMU_PENDING);
    assert_int_equal(told, 4);
    assert_int_equal(model_stats(&model).windows_revoked, 4);
    model_process(&model);
    assert_int_equal(told, 8);
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(holders[i].revoked, 1);
        holder_release(&holders[i]);
    }
}

static void test_device_goes(void **state)
{
    struct holder wanted = {0};
    struct holder later = {0};
    struct wait *wait;
    struct wait *second;

    (void)state;
    pin(&wanted, 0, 0xfff);
    pin(&later, 0x1000, 0x1fff);
    wait = ask_pages(0, 0xfff);
    assert_false(over(wait));
    assert_int_equal(viommu_device_remove(device), 0);
    assert_false(over(wait));
    second = ask_pages(0x1000, 0x1fff);
    assert_false(over(second));
    assert_int_equal(later.revoked, 1);
    holder_release(&wanted);
    assert_true(over(wait));
    model.now += TIMEOUT;
    assert_true(over(second));
    assert_int_equal(later.fenced, 1);
    assert_int_equal(events_of(VIOMMU_EVENT_DENIED), 0);
    assert_int_equal(events_of(VIOMMU_EVENT_OVERDUE), 1);
    holder_release(&later);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static const struct CMUnitTest tests[] = {
    TEST(test_nothing_to_wait_for),
    TEST(test_waits),
    TEST(test_born_later),
    TEST(test_pages),
    TEST(test_domains),
    TEST(test_requesters),
    TEST(test_each_for_its_own),
    TEST(test_release_inside),
    TEST(test_release_of_another_inside),
    TEST(test_too_late),
    TEST(test_fences),
    TEST(test_time_of_each),
    TEST(test_event_fd),
    TEST(test_reset),
    TEST(test_release_after_reset),
    TEST(test_reset_inside),
    TEST(test_asked_among_changes),
    TEST(test_device_goes),
};

int main(void)
{
    return cmocka_run_group_tests_name("revoke", tests, NULL, NULL);
}
