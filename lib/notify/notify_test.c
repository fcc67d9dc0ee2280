/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of subscribers: their answers, at once and later; tokens; time-outs; fence and deny;
 * removal while
 * one runs; what is refused inside a callback.
 */
#include "base/alloc.h"
#include "iommu/test_model.h"

#include <errno.h>
#include <sched.h>
#include <semaphore.h>

#define ID 0x28
#define CALLS 64

/* A subscriber's side. */
struct follower {
    struct test_model *model;
    struct viommu_subscriber *subscriber;
    int answer;
    unsigned count;
    struct viommu_change calls[CALLS];
    int (*inside)(struct follower *follower, const struct viommu_change *change);
    /* For a callback that runs until the test lets it go. */
    sem_t entered;
    sem_t leave;
};

static struct test_model model;

static int on_change(void *opaque, const struct viommu_change *change)
{
    struct follower *follower = opaque;

    assert_true(follower->count < CALLS);
    follower->calls[follower->count++] = *change;
    return follower->inside ? follower->inside(follower, change) : follower->answer;
}

static void follow(struct viommu_device *device, struct follower *follower, int answer)
{
    struct viommu_subscription what = {
        .kinds = VIOMMU_CHANGE_DEVICE_TLB, .change = on_change, .opaque = follower};

    *follower = (struct follower){.model = &model, .answer = answer};
    assert_int_equal(viommu_device_subscribe(device, &what, &follower->subscriber), 0);
}

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

static int complete(const struct follower *follower, unsigned i, int status)
{
    return viommu_change_complete(&model.iommu, follower->calls[i].token, status);
}

static int dma(struct viommu_device *device)
{
    uint64_t value;

    return viommu_device_read(device, NULL, 0x1000, &value, sizeof(value));
}

static void test_bad_subscriptions(void **state)
{
    struct viommu_device *device = model_device(&model, ID);
    struct viommu_subscription what = {.kinds = VIOMMU_CHANGE_DEVICE_TLB};
    struct viommu_subscriber *subscriber;

    (void)state;
    assert_int_equal(viommu_device_subscribe(device, &what, &subscriber), -EINVAL);
    what.change = on_change;
    what.kinds = 0;
    assert_int_equal(viommu_device_subscribe(device, &what, &subscriber), -EINVAL);
    what.kinds = VIOMMU_CHANGE_DEVICE_TLB | 1u << 30;
    assert_int_equal(viommu_device_subscribe(device, &what, &subscriber), -EINVAL);
    what.kinds = VIOMMU_CHANGE_DEVICE_TLB;
    base_alloc_fail_at(1);
    assert_int_equal(viommu_device_subscribe(device, &what, &subscriber), -ENOMEM);
    base_alloc_fail_at(0);
    assert_int_equal(viommu_subscriber_destroy(NULL), 0);
}

static void test_answered_at_once(void **state)
{
    struct viommu_device *device = model_device(&model, ID);
    struct follower follower;
    struct wait *wait;

    (void)state;
    follow(device, &follower, 0);
    wait = model_post(&model, ID, 0x7000);
    assert_int_equal(follower.count, 0); /* told by processing only */
    assert_false(model_over(&model, wait));
    model_process(&model);
    assert_int_equal(follower.count, 1);
    assert_int_equal(follower.calls[0].first, 0x7000);
    assert_int_equal(follower.calls[0].last, 0x7fff);
    assert_int_equal(follower.calls[0].requester, ID);
    assert_true(model_over(&model, wait));
    assert_false(wait->failed || wait->timed_out);
    /* The token is used up. */
    assert_int_equal(complete(&follower, 0, 0), -ENOENT);
    assert_int_equal(model.event_count, 0);
}

static void test_nobody_to_tell(void **state)
{
    struct viommu_device *device = model_device(&model, ID);
    struct follower follower;

    (void)state;
    follow(device, &follower, 0);
    assert_true(model_over(&model, model_post(&model, ID + 1, 0)));
    model_process(&model);
    assert_int_equal(follower.count, 0);
}

/* Everyone with the id is told: aliases, devices that share it, several subscribers. */
static void test_who_is_told(void **state)
{
    struct viommu_device_config config = {.requester = 0x40, .shared = true};
    struct viommu_device *device = model_device(&model, ID);
    struct viommu_device *bridged[2];
    struct follower followers[4];

    (void)state;
    assert_int_equal(viommu_device_add_alias(device, 0x30), 1);
    follow(device, &followers[0], 0);
    follow(device, &followers[1], 0);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(viommu_device_add(&model.iommu, &config, &bridged[i]), 0);
        follow(bridged[i], &followers[2 + i], 0);
    }
    (void)model_post(&model, 0x30, 0);
    (void)model_post(&model, 0x40, 0);
    (void)model_post(&model, ID, 0);
    model_process(&model);
    assert_int_equal(followers[0].count, 2);
    assert_int_equal(followers[1].count, 2);
    assert_int_equal(followers[2].count, 1);
    assert_int_equal(followers[3].count, 1);
    /* Each call has its own token. */
    assert_int_not_equal(followers[0].calls[0].token, followers[1].calls[0].token);
    assert_int_not_equal(followers[0].calls[0].token, followers[0].calls[1].token);
}

static void test_answered_later(void **state)
{
    struct viommu_device *device = model_device(&model, ID);
    struct follower follower;
    struct wait *waits[2];

    (void)state;
    follow(device, &follower, VIOMMU_PENDING);
    waits[0] = model_post(&model, ID, 0);
    waits[1] = model_post(&model, ID, 0x1000);
    model_process(&model);
    assert_int_equal(follower.count, 2);
    assert_int_equal(follower.calls[1].first, 0x1000);
    assert_int_equal(complete(&follower, 1, 0), 0);
    assert_false(model_over(&model, waits[0]));
    assert_true(model_over(&model, waits[1]));
    assert_int_equal(complete(&follower, 1, 0), -ENOENT);
    assert_int_equal(complete(&follower, 0, 0), 0);
    assert_true(model_over(&model, waits[0]));
    assert_int_equal(model_stats(&model).acks_pending, 2);
    assert_int_equal(viommu_change_complete(&model.iommu, 0, 0), -ENOENT);
    assert_int_equal(viommu_change_complete(&model.iommu, UINT64_MAX, 0), -ENOENT);
}

/* A wait ends when the last of its subscribers has answered. */
static void test_several_answers(void **state)
{
    struct viommu_device *device = model_device(&model, ID);
    struct follower followers[3];
    struct wait *wait;

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        follow(device, &followers[i], i == 1 ? 0 : VIOMMU_PENDING);
    }
    wait = model_post(&model, ID, 0);
    model_process(&model);
    assert_int_equal(complete(&followers[2], 0, 0), 0);
    assert_false(model_over(&model, wait));
    assert_int_equal(complete(&followers[0], 0, 0), 0);
    assert_true(model_over(&model, wait));
}

/* A token that was never given out, because the call has not been made yet. */
static void test_token_of_a_queued_call(void **state)
{
    struct viommu_device *device = model_device(&model, ID);
    struct follower follower;
    uint64_t token;

    (void)state;
    follow(device, &follower, VIOMMU_PENDING);
    (void)model_post(&model, ID, 0);
    for (token = 0; token < 16; token++) {
        assert_int_equal(viommu_change_complete(&model.iommu, token, 0), -ENOENT);
    }
    model_process(&model);
    assert_int_equal(follower.count, 1);
}

/* ---- failures -------------------------------------------------------------------------------- */

static void expect_fenced(unsigned from, int error, uint64_t first)
{
    assert_int_equal(model.event_count, from + 2);
    assert_int_equal(model.events[from].kind, VIOMMU_EVENT_FENCED);
    assert_int_equal(model.events[from].error, error);
    assert_int_equal(model.events[from].requester, ID);
    assert_int_equal(model.events[from].first, first);
    assert_int_equal(model.events[from].last, first + 0xfff);
    assert_non_null(model.events[from].text);
    assert_int_equal(model.events[from + 1].kind, VIOMMU_EVENT_DENIED);
    assert_int_equal(model.events[from + 1].requester, ID);
}

/* An error fences the subscriber and denies its device, no other. */
static void test_error(void **state)
{
    struct viommu_device *device = model_device(&model, ID);
    struct viommu_device *other = model_device(&model, ID + 1);
    struct follower followers[3];
    struct wait *wait;

    (void)state;
    follow(device, &followers[0], 0);
    follow(device, &followers[1], -EIO);
    follow(other, &followers[2], 0);
    wait = model_post(&model, ID, 0x3000);
    model_process(&model);
    assert_true(model_over(&model, wait));
    assert_true(wait->failed && !wait->timed_out);
    assert_int_equal(wait->requester, ID);
    expect_fenced(0, -EIO, 0x3000);
    assert_int_equal(dma(device), -EPERM);
    assert_int_equal(dma(other), 0);
    (void)model_post(&model, ID, 0);
    (void)model_post(&model, ID + 1, 0);
    model_process(&model);
    assert_int_equal(followers[0].count, 2);
    assert_int_equal(followers[1].count, 1); /* fenced: told no more */
    assert_int_equal(followers[2].count, 1);
    /* A reset of the device lifts both. */
    assert_int_equal(viommu_device_reset(device), 0);
    assert_int_equal(dma(device), 0);
    followers[1].answer = 0;
    (void)model_post(&model, ID, 0);
    model_process(&model);
    assert_int_equal(followers[1].count, 2);
}

static void test_error_later(void **state)
{
    struct viommu_device *device = model_device(&model, ID);
    struct follower follower;
    struct wait *waits[2];

    (void)state;
    follow(device, &follower, VIOMMU_PENDING);
    waits[0] = model_post(&model, ID, 0);
    waits[1] = model_post(&model, ID, 0x1000);
    model_process(&model);
    assert_int_equal(complete(&follower, 1, -ENODEV), 0);
    model_process(&model);
    expect_fenced(0, -ENODEV, 0x1000);
    /* With the subscriber went its other pending call. */
    assert_true(model_over(&model, waits[0]));
    assert_true(model_over(&model, waits[1]));
    assert_int_equal(complete(&follower, 0, 0), -ENOENT);
    assert_int_equal(dma(device), -EPERM);
}

/* An answer that is none of the three is a failure. */
static void test_strange_answer(void **state)
{
    struct viommu_device *device = model_device(&model, ID);
    struct follower follower;

    (void)state;
    follow(device, &follower, 77);
    (void)model_post(&model, ID, 0);
    model_process(&model);
    assert_int_equal(model.event_count, 2);
    assert_true(model.events[0].error < 0);
    assert_int_equal(dma(device), -EPERM);
}

/* What the denied device has under way still holds the wait. */
static void test_fence_waits_for_dma(void **state)
{
    struct viommu_device *device = model_device(&model, ID);
    struct follower follower;
    struct wait *wait;

    (void)state;
    follow(device, &follower, -EIO);
    wait = model_post(&model, ID, 0);
    assert_int_equal(viommu_dma_begin(&model.iommu), 0);
    model_process(&model);
    assert_false(model_over(&model, wait));
    viommu_dma_end(&model.iommu);
    assert_true(model_over(&model, wait));
}

static void test_time_out(void **state)
{
    struct viommu_device *device = model_device(&model, ID);
    struct follower follower;
    struct wait *waits[2];

    (void)state;
    follow(device, &follower, VIOMMU_PENDING);
    waits[0] = model_post(&model, ID, 0);
    model_process(&model);
    model.now += 60 * MODEL_MS;
    waits[1] = model_post(&model, ID, 0x1000);
    model_process(&model);
    assert_int_equal(complete(&follower, 0, 0), 0);
    model.now += 60 * MODEL_MS; /* past the first one's time, which has been answered */
    model_process(&model);
    assert_true(model_over(&model, waits[0]));
    assert_false(model_over(&model, waits[1]));
    assert_int_equal(model.event_count, 0);
    model.now += 60 * MODEL_MS;
    model_process(&model);
    assert_true(model_over(&model, waits[1]));
    assert_true(waits[1]->timed_out && !waits[1]->failed);
    assert_int_equal(waits[1]->requester, ID);
    expect_fenced(0, -ETIMEDOUT, 0x1000);
    assert_int_equal(complete(&follower, 1, 0), -ENOENT);
    assert_int_equal(model_stats(&model).acks_timed_out, 1);
    assert_int_equal(dma(device), -EPERM);
}

static void test_no_memory(void **state)
{
    struct viommu_device *device = model_device(&model, ID);
    struct follower follower;
    struct wait *wait;

    (void)state;
    follow(device, &follower, 0);
    base_alloc_fail_at(1);
    wait = model_post(&model, ID, 0x2000);
    base_alloc_fail_at(0);
    model_process(&model);
    assert_true(model_over(&model, wait));
    assert_int_equal(follower.count, 0);
    expect_fenced(0, -ENOMEM, 0x2000);
}

/* ---- inside a callback ----------------------------------------------------------------------- */

static int control_calls(struct follower *follower, const struct viommu_change *change)
{
    struct viommu *iommu = &follower->model->iommu;
    struct viommu_device_config config = {.requester = 0x99};
    struct viommu_subscription what = {
        .kinds = VIOMMU_CHANGE_DEVICE_TLB, .change = on_change, .opaque = NULL};
    struct viommu_subscriber *subscriber;
    struct viommu_device *device = follower->subscriber->device;
    struct viommu_device *added;

    assert_int_equal(viommu_reset(iommu), -EDEADLK);
    assert_int_equal(viommu_process(iommu, 0), -EDEADLK);
    assert_int_equal(viommu_mmio_write(iommu, 0, 4, 0), -EDEADLK);
    assert_int_equal(viommu_device_add(iommu, &config, &added), -EDEADLK);
    assert_int_equal(viommu_device_remove(device), -EDEADLK);
    assert_int_equal(viommu_device_set_requester(device, 5), -EDEADLK);
    assert_int_equal(viommu_device_add_alias(device, 5), -EDEADLK);
    assert_int_equal(viommu_device_remove_aliases(device), -EDEADLK);
    assert_int_equal(viommu_device_reset(device), -EDEADLK);
    assert_int_equal(viommu_device_subscribe(device, &what, &subscriber), -EDEADLK);
    assert_int_equal(viommu_subscriber_destroy(follower->subscriber), -EDEADLK);
    assert_int_equal(viommu_change_complete(iommu, change->token, 0), -EDEADLK);
    return follower->answer;
}

/*
 * Control calls are refused, and an event tells of each that the embedder would not notice
 * otherwise.
 */
static void test_control_calls_are_refused(void **state)
{
    struct viommu_device *device = model_device(&model, ID);
    struct follower follower;

    (void)state;
    follow(device, &follower, VIOMMU_PENDING);
    follower.inside = control_calls;
    (void)model_post(&model, ID, 0);
    model_process(&model);
    assert_int_equal(follower.count, 1);
    assert_int_equal(model.event_count, 11); /* all but viommu_process */
    for (unsigned i = 0; i < 11; i++) {
        assert_int_equal(model.events[i].kind, VIOMMU_EVENT_REENTRY);
        assert_int_equal(model.events[i].error, -EDEADLK);
    }
    /* The token is still good. */
    assert_int_equal(complete(&follower, 0, 0), 0);
}

static int dma_inside(struct follower *follower, const struct viommu_change *change)
{
    struct viommu_device *device = follower->subscriber->device;
    struct viommu_translation out;
    struct viommu_stats stats;
    uint64_t value = 5;

    (void)change;
    assert_int_equal(viommu_device_write(device, NULL, 0x2000, &value, 8), 0);
    assert_int_equal(viommu_device_read(device, NULL, 0x2000, &value, 8), 0);
    assert_int_equal(viommu_device_translate(device, NULL, 0x2000, VIOMMU_READ, &out), 0);
    assert_int_equal(viommu_mmio_read(&follower->model->iommu, 0, 8, &value), 0);
    assert_int_equal(viommu_stats_get(&follower->model->iommu, &stats, sizeof(stats)), 0);
    return 0;
}

static void test_dma_is_allowed(void **state)
{
    struct viommu_device *device = model_device(&model, ID);
    struct follower follower;

    (void)state;
    follow(device, &follower, 0);
    follower.inside = dma_inside;
    (void)model_post(&model, ID, 0);
    model_process(&model);
    assert_int_equal(follower.count, 1);
    assert_int_equal(model.event_count, 0);
}

static struct test_model second;

static int control_another(struct follower *follower, const struct viommu_change *change)
{
    (void)follower;
    (void)change;
    assert_int_equal(viommu_mmio_write(&second.iommu, 0, 8, 1), 0);
    assert_int_equal(viommu_process(&second.iommu, 0), 0);
    assert_int_equal(viommu_reset(&second.iommu), 0);
    return 0;
}

/* Another instance may be controlled. */
static void test_another_instance(void **state)
{
    struct viommu_device *device = model_device(&model, ID);
    struct follower follower;

    (void)state;
    model_init(&second);
    follow(device, &follower, 0);
    follower.inside = control_another;
    (void)model_post(&model, ID, 0);
    model_process(&model);
    assert_int_equal(follower.count, 1);
    model_fini(&second);
}

/* ---- other threads --------------------------------------------------------------------------- */

static void *complete_first(void *arg)
{
    return (void *)(intptr_t)complete(arg, 0, 0);
}

/* Another thread completes it before the callback has returned PENDING. */
static int completed_meanwhile(struct follower *follower, const struct viommu_change *change)
{
    pthread_t thread;
    void *ret;

    (void)change;
    assert_int_equal(pthread_create(&thread, NULL, complete_first, follower), 0);
    assert_int_equal(pthread_join(thread, &ret), 0);
    assert_null(ret);
    return VIOMMU_PENDING;
}

static void test_completed_before_it_returned(void **state)
{
    struct viommu_device *device = model_device(&model, ID);
    struct follower follower;
    struct wait *wait;

    (void)state;
    follow(device, &follower, 0);
    follower.inside = completed_meanwhile;
    wait = model_post(&model, ID, 0);
    model_process(&model);
    assert_true(model_over(&model, wait));
    assert_int_equal(complete(&follower, 0, 0), -ENOENT);
    model.now += 1000 * MODEL_MS;
    model_process(&model);
    assert_int_equal(model.event_count, 0);
}

static int until_released(struct follower *follower, const struct viommu_change *change)
{
    (void)change;
    sem_post(&follower->entered);
    sem_wait(&follower->leave);
    return follower->answer;
}

static void *process_thread(void *arg)
{
    (void)arg;
    while (viommu_process(&model.iommu, 0) == VIOMMU_PENDING) {
    }
    return NULL;
}

static _Atomic int destroyed;

static void *destroy_thread(void *arg)
{
    struct follower *follower = arg;

    assert_int_equal(viommu_subscriber_destroy(follower->subscriber), 0);
    atomic_store(&destroyed, 1);
    return NULL;
}

static void *remove_thread(void *arg)
{
    struct follower *follower = arg;

    assert_int_equal(viommu_device_remove(follower->subscriber->device), 0);
    atomic_store(&destroyed, 1);
    return NULL;
}

/* Destroying one whose callback runs in another thread waits until it has returned. */
static void destroy_while_running(void *(*destroy)(void *), int answer)
{
    struct viommu_device *device = model_device(&model, ID);
    struct timespec moment = {0, 20000000};
    struct follower follower;
    struct wait *wait;
    pthread_t processing;
    pthread_t destroying;

    follow(device, &follower, answer);
    follower.inside = until_released;
    sem_init(&follower.entered, 0, 0);
    sem_init(&follower.leave, 0, 0);
    atomic_store(&destroyed, 0);
    wait = model_post(&model, ID, 0);
    assert_int_equal(pthread_create(&processing, NULL, process_thread, NULL), 0);
    sem_wait(&follower.entered);
    assert_int_equal(pthread_create(&destroying, NULL, destroy, &follower), 0);
    nanosleep(&moment, NULL);
    assert_int_equal(atomic_load(&destroyed), 0);
    sem_post(&follower.leave);
    assert_int_equal(pthread_join(destroying, NULL), 0);
    assert_int_equal(pthread_join(processing, NULL), 0);
    assert_int_equal(atomic_load(&destroyed), 1);
    assert_true(model_over(&model, wait));
    assert_int_equal(follower.count, 1);
    assert_int_equal(complete(&follower, 0, 0), -ENOENT);
    sem_destroy(&follower.entered);
    sem_destroy(&follower.leave);
}

static void test_destroy_while_running(void **state)
{
    (void)state;
    destroy_while_running(destroy_thread, 0);
}

static void test_destroy_while_running_then_pending(void **state)
{
    (void)state;
    destroy_while_running(destroy_thread, VIOMMU_PENDING);
}

static void test_destroy_while_running_then_error(void **state)
{
    (void)state;
    destroy_while_running(destroy_thread, -EIO);
}

static void test_remove_device_while_running(void **state)
{
    (void)state;
    destroy_while_running(remove_thread, VIOMMU_PENDING);
}

/* Reset while a callback runs elsewhere: what it answers concerns nobody any more. */
static void test_reset_while_running(void **state)
{
    static const int answers[] = {0, VIOMMU_PENDING};

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct viommu_device *device = model_device(&model, (uint16_t)(ID + i));
        struct follower follower;
        pthread_t processing;

        follow(device, &follower, answers[i]);
        follower.inside = until_released;
        sem_init(&follower.entered, 0, 0);
        sem_init(&follower.leave, 0, 0);
        (void)model_post(&model, (uint16_t)(ID + i), 0);
        assert_int_equal(pthread_create(&processing, NULL, process_thread, NULL), 0);
        sem_wait(&follower.entered);
        assert_int_equal(viommu_reset(&model.iommu), 0);
        assert_int_equal(complete(&follower, 0, 0), -ENOENT);
        sem_post(&follower.leave);
        assert_int_equal(pthread_join(processing, NULL), 0);
        model.now += 1000 * MODEL_MS;
        model_process(&model);
        assert_int_equal(model.event_count, 0);
        sem_destroy(&follower.entered);
        sem_destroy(&follower.leave);
    }
}

/* Calls answered by a thread of the subscriber's own, many times: nothing is lost or told twice. */
struct answering {
    _Atomic uint64_t token;
    _Atomic bool stop;
    _Atomic unsigned answered;
};

static int hand_over(void *opaque, const struct viommu_change *change)
{
    struct answering *answering = opaque;

    atomic_store(&answering->token, change->token);
    return VIOMMU_PENDING;
}

static void *answer_thread(void *arg)
{
    struct answering *answering = arg;

    while (!atomic_load(&answering->stop)) {
        uint64_t token = atomic_exchange(&answering->token, 0);

        if (token) {
            assert_int_equal(viommu_change_complete(&model.iommu, token, 0), 0);
            atomic_fetch_add(&answering->answered, 1);
        } else {
            sched_yield();
        }
    }
    return NULL;
}

static void test_answers_from_a_thread(void **state)
{
    struct viommu_device *device = model_device(&model, ID);
    struct answering answering = {0};
    struct viommu_subscription what = {
        .kinds = VIOMMU_CHANGE_DEVICE_TLB, .change = hand_over, .opaque = &answering};
    struct viommu_subscriber *subscriber;
    pthread_t thread;

    (void)state;
    assert_int_equal(viommu_device_subscribe(device, &what, &subscriber), 0);
    assert_int_equal(pthread_create(&thread, NULL, answer_thread, &answering), 0);
    for (unsigned i = 0; i < 2000; i++) {
        struct wait *wait;

        model.wait_count = 0;
        wait = model_post(&model, ID, 0);
        while (!model_over(&model, wait)) {
            model_process(&model);
            sched_yield();
        }
    }
    atomic_store(&answering.stop, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(atomic_load(&answering.answered), 2000);
}

/* ---- removal --------------------------------------------------------------------------------- */

/* One that goes counts as having answered, whether it was called or only about to be. */
static void test_removal(void **state)
{
    (void)state;
    for (unsigned called = 0; called < 2; called++) {
        struct viommu_device *device = model_device(&model, ID);
        struct follower followers[2];
        struct wait *wait;

        follow(device, &followers[0], VIOMMU_PENDING);
        follow(device, &followers[1], VIOMMU_PENDING);
        wait = model_post(&model, ID, 0);
        if (called) {
            model_process(&model);
        }
        assert_int_equal(viommu_subscriber_destroy(followers[0].subscriber), 0);
        assert_false(model_over(&model, wait));
        assert_int_equal(viommu_device_remove(device), 0);
        assert_true(model_over(&model, wait));
        model_process(&model);
        assert_int_equal(followers[0].count, called);
        assert_int_equal(followers[1].count, called);
    }
}

static void test_destroyed_with_the_instance(void **state)
{
    struct viommu_device *device = model_device(&model, ID);
    struct follower followers[2];

    (void)state;
    follow(device, &followers[0], VIOMMU_PENDING);
    follow(device, &followers[1], 0);
    (void)model_post(&model, ID, 0);
    model_process(&model);
    (void)model_post(&model, ID, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_bad_subscriptions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_answered_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nobody_to_tell, setup, teardown),
        cmocka_unit_test_setup_teardown(test_who_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(test_answered_later, setup, teardown),
        cmocka_unit_test_setup_teardown(test_several_answers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_token_of_a_queued_call, setup, teardown),
        cmocka_unit_test_setup_teardown(test_error, setup, teardown),
        cmocka_unit_test_setup_teardown(test_error_later, setup, teardown),
        cmocka_unit_test_setup_teardown(test_strange_answer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fence_waits_for_dma, setup, teardown),
        cmocka_unit_test_setup_teardown(test_time_out, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_control_calls_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dma_is_allowed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_another_instance, setup, teardown),
        cmocka_unit_test_setup_teardown(test_completed_before_it_returned, setup, teardown),
        cmocka_unit_test_setup_teardown(test_destroy_while_running, setup, teardown),
        cmocka_unit_test_setup_teardown(test_destroy_while_running_then_pending, setup, teardown),
        cmocka_unit_test_setup_teardown(test_destroy_while_running_then_error, setup, teardown),
        cmocka_unit_test_setup_teardown(test_remove_device_while_running, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset_while_running, setup, teardown),
        cmocka_unit_test_setup_teardown(test_answers_from_a_thread, setup, teardown),
        cmocka_unit_test_setup_teardown(test_removal, setup, teardown),
        cmocka_unit_test_setup_teardown(test_destroyed_with_the_instance, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
