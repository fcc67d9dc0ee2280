/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the instance: creation, budgets, the event descriptor, time, callbacks and what may be
 * called from
 * them, more events than are kept, reset, several threads.
 */
#include "base/alloc.h"
#include "iommu/test_model.h"

#include <poll.h>
#include <semaphore.h>
#include <sys/resource.h>
#include <unistd.h>
#include <viommu/save.h>

static struct test_model model;

static int setup(void **state)
{
    (void)state;
    model_init(&model);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    model_fini(&model);
    return 0;
}

static bool readable(int ms)
{
    struct pollfd pollfd = {.fd = viommu_event_fd(&model.iommu), .events = POLLIN};

    return poll(&pollfd, 1, ms) == 1;
}

static void kick(void)
{
    iommu_lock(&model.iommu);
    iommu_kick(&model.iommu);
    iommu_unlock(&model.iommu);
}

static void post_events_of(enum viommu_event_kind kind, unsigned count)
{
    iommu_lock(&model.iommu);
    for (unsigned i = 0; i < count; i++) {
        struct viommu_event event = {.kind = kind, .first = i, .text = "test"};

        iommu_post_event(&model.iommu, &event);
    }
    iommu_unlock(&model.iommu);
}

static void post_events(unsigned count)
{
    post_events_of(VIOMMU_EVENT_HOST_FAILURE, count);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void test_version(void **state)
{
    (void)state;
    assert_non_null(viommu_version());
    assert_int_equal(viommu_start(&model.iommu), -EALREADY);
    viommu_destroy(NULL);
}

/* Each allocation and each descriptor of a creation may fail; what was made goes again. */
static int try_init(void)
{
    struct viommu_config config = {.memory = model.memory, .iotlb_entries = 256};
    struct test_model other = {0};
    int ret = iommu_init(&other.iommu, &test_model_table, &config);

    if (!ret) {
        iommu_fini(&other.iommu);
    }
    return ret;
}

static void test_creation_without_memory(void **state)
{
    unsigned n = 0;
    int ret;

    (void)state;
    do {
        base_alloc_fail_at(++n);
        ret = try_init();
        assert_int_equal(ret, base_alloc_failed() ? -ENOMEM : 0);
    } while (ret);
    base_alloc_fail_at(0);
}

static void test_creation_without_descriptors(void **state)
{
    struct rlimit old;
    struct rlimit none;
    int lowest = dup(0);
    int ret;

    (void)state;
    assert_true(lowest >= 0);
    close(lowest);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    for (rlim_t spare = 0;; spare++) {
        none = (struct rlimit){(rlim_t)lowest + spare, old.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
        ret = try_init();
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
        if (!ret) {
            assert_true(spare > 0);
            break;
        }
        assert_int_equal(ret, -EMFILE);
        /* Nothing was left open. */
        assert_int_equal(dup(0), lowest);
        close(lowest);
    }
}

static void test_reset(void **state)
{
    struct viommu_device *device = model_device(&model, 5);
    uint64_t value;

    (void)state;
    assert_int_equal(viommu_mmio_write(&model.iommu, 0, 8, 77), 0);
    iommu_lock(&model.iommu);
    device_deny(device, -EIO, "test");
    iommu_unlock(&model.iommu);
    assert_int_equal(viommu_device_read(device, NULL, 0, &value, 8), -EPERM);
    assert_int_equal(viommu_reset(&model.iommu), 0);
    assert_int_equal(model.resets, 2); /* the start was one */
    assert_int_equal(viommu_mmio_read(&model.iommu, 0, 8, &value), 0);
    assert_int_equal(value, 0);
    assert_int_equal(viommu_device_read(device, NULL, 0, &value, 8), 0);
}

/* ---- work and the event descriptor ----------------------------------------------------------- */

static void test_event_fd(void **state)
{
    (void)state;
    model_process(&model);
    assert_false(readable(0));
    kick();
    assert_true(readable(0));
    assert_int_equal(viommu_process(&model.iommu, 0), 0);
    assert_false(readable(0));
    post_events(1);
    assert_true(readable(0));
    model_process(&model);
    assert_false(readable(0));
    (void)model_post(&model, 1, 0);
    assert_true(readable(0));
    model_process(&model);
    assert_false(readable(0));
}

static void test_budget(void **state)
{
    (void)state;
    model.work = 10;
    for (unsigned left = 7; left; left = left > 3 ? left - 3 : 0) {
        assert_int_equal(viommu_process(&model.iommu, 3), VIOMMU_PENDING);
        assert_int_equal(model.work, left);
        assert_true(readable(0));
    }
    assert_int_equal(viommu_process(&model.iommu, 3), 0);
    assert_int_equal(model.work, 0);
    assert_false(readable(0));
    /* 0 stands for 256. */
    model.work = 300;
    assert_int_equal(viommu_process(&model.iommu, 0), VIOMMU_PENDING);
    assert_int_equal(model.work, 44);
    assert_int_equal(viommu_process(&model.iommu, 0), 0);
}

/* Work that comes while it works is done, or the descriptor is readable after it. */
static void more_work(struct test_model *m)
{
    if (m->event_count < 5) {
        m->work++;
        post_events(1);
    }
}

static void test_work_from_a_callback(void **state)
{
    (void)state;
    model.in_callback = more_work;
    post_events(1);
    while (readable(0)) {
        assert_true(viommu_process(&model.iommu, 0) >= 0);
    }
    assert_int_equal(model.event_count, 5);
    assert_int_equal(model.work, 0);
}

/* A callback that always makes new work cannot keep the call going for ever. */
static void always_more(struct test_model *m)
{
    (void)m;
    post_events(1);
}

static void test_endless_work_is_bounded(void **state)
{
    (void)state;
    model.in_callback = always_more;
    post_events(1);
    assert_int_equal(viommu_process(&model.iommu, 10), VIOMMU_PENDING);
    assert_true(readable(0));
    assert_true(model.event_count <= 20);
    model.in_callback = NULL;
    model_process(&model);
    assert_false(readable(0));
}

static int never(void *opaque, const struct viommu_change *change)
{
    (void)opaque;
    (void)change;
    return VIOMMU_PENDING;
}

/* Somebody's time is up: the descriptor tells, on the host's clock. */
static void test_timer(void **state)
{
    struct viommu_subscription what = {
        .kinds = VIOMMU_CHANGE_DEVICE_TLB, .change = never, .opaque = NULL};
    struct viommu_subscriber *subscriber;
    struct wait *wait;

    (void)state;
    model_fini(&model);
    model = (struct test_model){.host_clock = true, .ats = true};
    model_create(&model);
    assert_int_equal(viommu_start(&model.iommu), 0);
    assert_int_equal(viommu_device_subscribe(model_device(&model, 5), &what, &subscriber), 0);
    wait = model_post(&model, 5, 0);
    model_process(&model);
    assert_false(readable(0));
    assert_true(readable(5000));
    model_process(&model);
    assert_true(model_over(&model, wait));
    assert_true(wait->timed_out);
    assert_int_equal(model.event_count, 2);
    assert_false(readable(0));
}

/* ---- callbacks ------------------------------------------------------------------------------- */

/* The model anew, with the callback. */
static void setup_woken(void)
{
    model_fini(&model);
    model = (struct test_model){.ats = true, .host_clock = true, .woken_by_callback = true};
    model_create(&model);
    assert_int_equal(viommu_start(&model.iommu), 0);
    model_process(&model);
    model.wakes = 0;
}

/* Called once for whatever comes, until work begins; the descriptor stays silent. */
static void test_woken_by_a_callback(void **state)
{
    (void)state;
    setup_woken();
    for (unsigned i = 1; i < 4; i++) {
        kick();
        post_events(1);
        kick();
        assert_int_equal(model.wakes, i);
        assert_false(readable(0));
        assert_int_equal(viommu_process(&model.iommu, 0), 0);
        assert_int_equal(model.event_count, i);
    }
    assert_int_equal(model.wakes, 3);
}

/* What is left for the budget wakes again; what comes while it works and is done does not. */
static void test_woken_for_what_is_left(void **state)
{
    (void)state;
    setup_woken();
    model.work = 7;
    kick();
    assert_int_equal(viommu_process(&model.iommu, 3), VIOMMU_PENDING);
    assert_int_equal(model.wakes, 2);
    assert_int_equal(viommu_process(&model.iommu, 3), VIOMMU_PENDING);
    assert_int_equal(model.wakes, 3);
    assert_int_equal(viommu_process(&model.iommu, 3), 0);
    assert_int_equal(model.wakes, 3);
    model.in_callback = more_work;
    post_events(1);
    model_process(&model);
    assert_int_equal(model.event_count, 5);
    assert_int_equal(model.wakes, 4);
    assert_false(readable(0));
}

/* Times come by the descriptor even so. */
static void test_timer_with_the_callback(void **state)
{
    struct viommu_subscription what = {
        .kinds = VIOMMU_CHANGE_DEVICE_TLB, .change = never, .opaque = NULL};
    struct viommu_subscriber *subscriber;
    struct wait *wait;

    (void)state;
    setup_woken();
    assert_int_equal(viommu_device_subscribe(model_device(&model, 5), &what, &subscriber), 0);
    wait = model_post(&model, 5, 0);
    assert_int_equal(model.wakes, 1);
    model_process(&model);
    assert_true(readable(5000));
    model_process(&model);
    assert_true(model_over(&model, wait));
    assert_true(wait->timed_out);
    assert_false(readable(0));
    assert_int_equal(model.wakes, 1);
}

static void *process_without_memory(void *arg)
{
    (void)arg;
    base_alloc_fail_at(1);
    assert_int_equal(viommu_process(&model.iommu, 0), -ENOMEM);
    base_alloc_fail_at(0);
    return NULL;
}

/* Nothing was done for want of memory: that is told, whoever asked before. */
static void test_woken_without_memory(void **state)
{
    pthread_t thread;

    (void)state;
    setup_woken();
    for (unsigned i = 1; i < 3; i++) { /* the second time it has been told already */
        assert_int_equal(pthread_create(&thread, NULL, process_without_memory, NULL), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_int_equal(model.wakes, i);
    }
}

/* What was told too early to be worked on is told again when the instance is started, or loaded. */
static void test_woken_before_the_start(void **state)
{
    void *data;
    size_t size;

    (void)state;
    for (unsigned load = 0; load < 2; load++) {
        setup_woken();
        assert_int_equal(viommu_save(&model.iommu, &data, &size), 0);
        viommu_destroy(&model.iommu);
        model_begin(&model);
        model.wakes = 0;
        kick();
        assert_int_equal(model.wakes, 1);
        assert_int_equal(viommu_process(&model.iommu, 0), -EAGAIN);
        assert_int_equal(load ? viommu_load(&model.iommu, data, size)
                              : viommu_start(&model.iommu), 0);
        assert_int_equal(model.wakes, 2);
        model_process(&model);
        kick();
        assert_int_equal(model.wakes, 3);
        viommu_save_free(data);
    }
}

static void test_messages(void **state)
{
    (void)state;
    model.messages = 3;
    model_process(&model);
    assert_int_equal(model.interrupt_count, 3);
    assert_int_equal(model.interrupts[0].data, 3);
    assert_int_equal(model.interrupts[2].data, 1);
    assert_true(model.interrupts[0].from_unit);
    assert_int_equal(model_stats(&model).interrupts_sent, 3);
}

/* Callbacks need not be there. */
static void test_no_callbacks(void **state)
{
    (void)state;
    model.iommu.callbacks = (struct viommu_callbacks){.interrupt = NULL};
    model.messages = 3;
    post_events(100);
    model_process(&model);
    assert_int_equal(model.messages, 0);
    assert_int_equal(model.event_count, 0);
    assert_false(readable(0));
}

/* More events than are kept: the oldest are told, and how many were lost. */
static void test_overflow(void **state)
{
    struct viommu_event *last;

    (void)state;
    post_events(OUTBOX_EVENTS + 36);
    model_process(&model);
    assert_int_equal(model.event_count, OUTBOX_EVENTS + 1);
    for (unsigned i = 0; i < OUTBOX_EVENTS; i++) {
        assert_int_equal(model.events[i].kind, VIOMMU_EVENT_HOST_FAILURE);
        assert_int_equal(model.events[i].first, i);
    }
    last = &model.events[OUTBOX_EVENTS];
    assert_int_equal(last->kind, VIOMMU_EVENT_OVERFLOW);
    assert_int_equal(last->error, 36);
    assert_non_null(last->text);
    assert_int_equal(model_stats(&model).events_lost, 36);
    /* The next ones are told again. */
    post_events(1);
    model_process(&model);
    assert_int_equal(model.event_count, OUTBOX_EVENTS + 2);
}

/* Those that a guest causes at will leave room for the others. */
static void test_overflow_by_a_guest(void **state)
{
    static const enum viommu_event_kind kinds[] = {
        VIOMMU_EVENT_BAD_ENTRY, VIOMMU_EVENT_NOT_MAPPED, VIOMMU_EVENT_CACHE_FULL};

    (void)state;
    for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        model.event_count = 0;
        post_events_of(kinds[i], OUTBOX_EVENTS);
        post_events(1);
        model_process(&model);
        assert_int_equal(model.event_count, OUTBOX_EVENTS / 2 + 2);
        assert_int_equal(model.events[OUTBOX_EVENTS / 2].kind, VIOMMU_EVENT_HOST_FAILURE);
    }
}

/* Everything but processing may be called from an event. */
static void control_inside(struct test_model *m)
{
    struct viommu_stats stats;
    uint64_t value;

    assert_int_equal(viommu_process(&m->iommu, 0), -EDEADLK);
    assert_int_equal(viommu_mmio_write(&m->iommu, 0, 8, 3), 0);
    assert_int_equal(viommu_mmio_read(&m->iommu, 0, 8, &value), 0);
    assert_int_equal(viommu_stats_get(&m->iommu, &stats, sizeof(stats)), 0);
    assert_int_equal(viommu_device_remove(model_device(m, 0x77)), 0);
    assert_int_equal(viommu_reset(&m->iommu), 0);
}

static void test_calls_from_a_callback(void **state)
{
    (void)state;
    model.in_callback = control_inside;
    model.messages = 1;
    post_events(1);
    model_process(&model);
    assert_int_equal(model.event_count, 1);
    assert_int_equal(model.interrupt_count, 1);
    assert_int_equal(model.resets, 3);
    assert_int_equal(viommu_process(&model.iommu, 0), 0);
}

/* ---- threads --------------------------------------------------------------------------------- */

static sem_t entered;
static sem_t leave;

static void hold(struct test_model *m)
{
    (void)m;
    sem_post(&entered);
    sem_wait(&leave);
}

static void *process_once(void *arg)
{
    (void)arg;
    return (void *)(intptr_t)viommu_process(&model.iommu, 0);
}

/* One works at a time: others are told so at once, and what they came for is not lost. */
static void test_two_process(void **state)
{
    pthread_t thread;
    void *ret;

    (void)state;
    sem_init(&entered, 0, 0);
    sem_init(&leave, 0, 0);
    model.in_callback = hold;
    post_events(1);
    assert_int_equal(pthread_create(&thread, NULL, process_once, NULL), 0);
    sem_wait(&entered);
    model.in_callback = NULL;
    iommu_lock(&model.iommu);
    model.work = 5;
    iommu_unlock(&model.iommu);
    assert_int_equal(viommu_process(&model.iommu, 0), 0);
    assert_int_equal(model.work, 5);
    sem_post(&leave);
    assert_int_equal(pthread_join(thread, &ret), 0);
    assert_true(ret == NULL || readable(0));
    assert_int_equal(model.work, 0);
    sem_destroy(&entered);
    sem_destroy(&leave);
}

static _Atomic bool stop;

static void *poll_and_process(void *arg)
{
    struct pollfd pollfd = {.fd = viommu_event_fd(&model.iommu), .events = POLLIN};

    (void)arg;
    while (!atomic_load(&stop)) {
        if (poll(&pollfd, 1, 10) == 1) {
            int ret = viommu_process(&model.iommu, 2);

            assert_true(ret == 0 || ret == VIOMMU_PENDING);
        }
    }
    return NULL;
}

static int done_at_once(void *opaque, const struct viommu_change *change)
{
    (void)change;
    atomic_fetch_add((_Atomic unsigned *)opaque, 1);
    return 0;
}

/* Two event loops serve one instance: nothing is told twice, and nothing waits for ever. */
static void test_two_event_loops(void **state)
{
    static _Atomic unsigned told;
    struct viommu_subscription what = {
        .kinds = VIOMMU_CHANGE_DEVICE_TLB, .change = done_at_once, .opaque = &told};
    struct timespec moment = {0, 1000};
    struct viommu_subscriber *subscriber;
    pthread_t threads[2];

    (void)state;
    atomic_store(&told, 0);
    atomic_store(&stop, false);
    assert_int_equal(viommu_device_subscribe(model_device(&model, 5), &what, &subscriber), 0);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, poll_and_process, NULL), 0);
    }
    for (unsigned i = 0; i < 1000; i++) {
        struct wait *wait;

        model.wait_count = 0;
        wait = model_post(&model, 5, 0);
        for (unsigned n = 0; !model_over(&model, wait); n++) {
            assert_true(n < 100000);
            nanosleep(&moment, NULL);
        }
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_int_equal(atomic_load(&told), 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_version, setup, teardown),
        cmocka_unit_test_setup_teardown(test_creation_without_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_creation_without_descriptors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset, setup, teardown),
        cmocka_unit_test_setup_teardown(test_event_fd, setup, teardown),
        cmocka_unit_test_setup_teardown(test_budget, setup, teardown),
        cmocka_unit_test_setup_teardown(test_work_from_a_callback, setup, teardown),
        cmocka_unit_test_setup_teardown(test_endless_work_is_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_timer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_woken_by_a_callback, setup, teardown),
        cmocka_unit_test_setup_teardown(test_woken_for_what_is_left, setup, teardown),
        cmocka_unit_test_setup_teardown(test_timer_with_the_callback, setup, teardown),
        cmocka_unit_test_setup_teardown(test_woken_without_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_woken_before_the_start, setup, teardown),
        cmocka_unit_test_setup_teardown(test_messages, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_callbacks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_overflow, setup, teardown),
        cmocka_unit_test_setup_teardown(test_overflow_by_a_guest, setup, teardown),
        cmocka_unit_test_setup_teardown(test_calls_from_a_callback, setup, teardown),
        cmocka_unit_test_setup_teardown(test_two_process, setup, teardown),
        cmocka_unit_test_setup_teardown(test_two_event_loops, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
