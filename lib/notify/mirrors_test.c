/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of subscriptions of mirrors: which are taken, tokens, status, and their end while a call
 * runs or is outstanding. What mirrors are told: lib/shadow.
 */
#include "shadow/test_fixture.h"

#include <errno.h>
#include <semaphore.h>

#define MAP_AND_UNMAP (VIOMMU_CHANGE_MAP | VIOMMU_CHANGE_UNMAP)

/* ---- what is taken --------------------------------------------------------------------------- */

static void expect(int error)
{
    struct viommu_subscriber *subscriber = NULL;

    assert_int_equal(viommu_device_subscribe(m->device, &m->what, &subscriber), error);
    assert_true((subscriber == NULL) == (error != 0));
    if (subscriber) {
        assert_int_equal(viommu_subscriber_destroy(subscriber), 0);
    } else {
        assert_null(world_follow(&world)->mirrors);
        assert_null(m->device->subscribers);
    }
}

static void test_kinds(void **state)
{
    (void)state;
    for (uint32_t kinds = 0; kinds < 64; kinds++) {
        bool valid = (kinds & MAP_AND_UNMAP) == MAP_AND_UNMAP && kinds < 32;

        m->what.kinds = kinds;
        expect(valid ? 0 : -EINVAL);
    }
    m->what.kinds = MAP_AND_UNMAP | 1u << 31;
    expect(-EINVAL);
}

static void test_kinds_of_caches(void **state)
{
    (void)state;
    m->what.role = VIOMMU_ROLE_CACHE;
    for (uint32_t kinds = 0; kinds < 64; kinds++) {
        uint32_t possible = VIOMMU_CHANGE_UNMAP | VIOMMU_CHANGE_DEVICE_TLB;
        bool valid = kinds && !(kinds & ~possible);

        m->what.kinds = kinds;
        expect(valid ? 0 : -EINVAL);
    }
}

static void test_callbacks(void **state)
{
    (void)state;
    m->what.change = NULL;
    expect(-EINVAL);
    m->what.change = mirror_on_change;
    m->what.fence = NULL;
    expect(-EINVAL);
    m->what.fence = mirror_on_fence;
    expect(0);
}

static void test_role_form_index(void **state)
{
    (void)state;
    m->what.role = (enum viommu_role)2;
    expect(-EINVAL);
    m->what.role = (enum viommu_role)-1;
    expect(-EINVAL);
    m->what.role = VIOMMU_ROLE_MIRROR;
    m->what.form = (enum viommu_form)2;
    expect(-EINVAL);
    m->what.form = (enum viommu_form)-1;
    expect(-EINVAL);
    m->what.form = VIOMMU_FORM_POW2;
    m->what.index = 1;
    expect(-EINVAL);
    m->what.index = UINT32_MAX;
    expect(-EINVAL);
    m->what.index = 0;
    expect(0);
}

static void test_range(void **state)
{
    (void)state;
    m->what.range = (struct viommu_range){2, 1};
    expect(-EINVAL);
    m->what.range = (struct viommu_range){1, 0};
    expect(-EINVAL);
    m->what.range = (struct viommu_range){0x1000, 0x1fff};
    expect(0);
    m->what.range = (struct viommu_range){0, UINT64_MAX};
    expect(0);
}

static void test_allowed(void **state)
{
    struct viommu_range allowed[3] = {{0, 0xfff}, {0x2000, 0x2fff}, {0x4000, UINT64_MAX}};

    (void)state;
    m->what.allowed = allowed;
    expect(-EINVAL); /* none */
    m->what.allowed_count = 3;
    expect(0);
    allowed[1].first = 0x1000; /* touches */
    expect(-EINVAL);
    allowed[1].first = 0xfff; /* overlaps */
    expect(-EINVAL);
    allowed[1].first = 0x1001;
    expect(0);
    allowed[1] = (struct viommu_range){0x2001, 0x2000};
    expect(-EINVAL);
    allowed[1] = (struct viommu_range){0x5000, 0x5fff}; /* out of order */
    expect(-EINVAL);
    allowed[1] = (struct viommu_range){0x2000, UINT64_MAX}; /* nothing may follow */
    allowed[2] = (struct viommu_range){0x9000, 0x9fff};
    expect(-EINVAL);
    m->what.allowed_count = 2;
    expect(0);
    allowed[0] = (struct viommu_range){1, 0};
    m->what.allowed_count = 1;
    expect(-EINVAL);
}

/* The list is copied. */
static void test_allowed_is_copied(void **state)
{
    struct viommu_range allowed = {0x1000, 0x1fff};

    (void)state;
    m->what.allowed = &allowed;
    m->what.allowed_count = 1;
    assert_int_equal(mirror_subscribe(m), 0);
    allowed = (struct viommu_range){0x5000, 0x5fff};
    world_map(&world, 0x1000, 8, BIG, RW);
    world_sync(&world, 0, UINT64_MAX);
    mirror_told(m, "+1000-1fff>80000000rw");
}

static void test_not_supported(void **state)
{
    (void)state;
    world.model.no_mirrors = true;
    expect(-ENOTSUP);
    world.model.no_mirrors = false;
    m->what.page_sizes = 1ULL << 21;
    expect(-ENOTSUP);
    m->what.page_sizes = ~UINT64_C(4096);
    expect(-ENOTSUP);
    m->what.page_sizes = 4096;
    expect(0);
    m->what.role = VIOMMU_ROLE_CACHE; /* needs nothing of that */
    m->what.kinds = VIOMMU_CHANGE_UNMAP;
    world.model.no_mirrors = true;
    expect(0);
}

/* What the model is told of the mirror, and that it may not want it. */
static void test_narrow(void **state)
{
    const struct viommu_range allowed[] = {{0, 0xfff}, {0x2000, 0x123456789fff}};

    (void)state;
    expect(0);
    assert_int_equal(world.model.narrow_last, UINT64_MAX);
    assert_int_equal(world.model.narrow_sizes, UINT64_MAX);
    m->what.allowed = allowed;
    m->what.allowed_count = 2;
    m->what.page_sizes = 4096 | 1 << 21;
    expect(0);
    assert_int_equal(world.model.narrow_last, 0x123456789fff);
    assert_int_equal(world.model.narrow_sizes, 4096 | 1 << 21);
    world.model.narrow_answer = -ERANGE;
    expect(-ERANGE);
}

static void test_no_memory(void **state)
{
    int ret;

    (void)state;
    for (unsigned long n = 1;; n++) {
        base_alloc_fail_at(n);
        ret = mirror_subscribe(m);
        if (!ret) {
            break;
        }
        assert_int_equal(ret, -ENOMEM);
        assert_null(m->device->subscribers);
        assert_null(world.model.iommu.followed);
    }
    base_alloc_fail_at(0);
    world_process(&world);
}

/* ---- inside a callback ----------------------------------------------------------------------- */

static int refused[8];

static void call_everything(struct test_mirror *mirror, const struct viommu_change *change)
{
    struct viommu *iommu = &world.model.iommu;
    struct viommu_subscriber *subscriber = NULL;
    struct viommu_translation translation;

    (void)change;
    mirror->inside = NULL;
    refused[0] = viommu_device_subscribe(mirror->device, &mirror->what, &subscriber);
    refused[1] = viommu_subscriber_destroy(mirror->subscriber);
    refused[2] = viommu_change_complete(iommu, change->token, 0);
    refused[3] = viommu_device_reset(mirror->device);
    refused[4] = viommu_device_set_requester(mirror->device, 9);
    refused[5] = viommu_reset(iommu);
    refused[6] = viommu_process(iommu, 0);
    refused[7] = viommu_device_remove(mirror->device);
    mirror_expect(viommu_device_translate(mirror->device, NULL, 0x1000, VIOMMU_READ,
                                          &translation) == 0,
                  "translate is allowed");
}

static void test_control_calls_are_refused(void **state)
{
    (void)state;
    assert_int_equal(mirror_subscribe(m), 0);
    world_map(&world, 0x1000, 1, BIG, RW);
    m->inside = call_everything;
    world_process(&world);
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(refused[i], -EDEADLK);
    }
    assert_int_equal(world_events(&world, VIOMMU_EVENT_REENTRY), 7);
    mirror_told(m, "+1000-1fff>80000000rw");
}

static int fence_calls_back(void *opaque)
{
    struct test_mirror *mirror = opaque;

    refused[0] = viommu_subscriber_destroy(mirror->subscriber);
    return mirror_on_fence(mirror);
}

static void test_refused_in_a_fence(void **state)
{
    (void)state;
    m->what.fence = fence_calls_back;
    assert_int_equal(mirror_subscribe(m), 0);
    world_map(&world, 0x1000, 1, BIG, RW);
    world_process(&world);
    world_unmap(&world, 0x1000, 1);
    mirror_answers(m, 1, -EIO, false, VIOMMU_CHANGE_UNMAP);
    refused[0] = 0;
    world_sync(&world, 0, UINT64_MAX);
    assert_int_equal(refused[0], -EDEADLK);
    assert_int_equal(m->fences, 1);
}

/* ---- tokens ---------------------------------------------------------------------------------- */

static void test_tokens(void **state)
{
    uint64_t first;

    (void)state;
    assert_int_equal(mirror_subscribe(m), 0);
    world_map(&world, 0x1000, 1, BIG, RW);
    world_map(&world, 0x3000, 1, BIG, RW);
    mirror_answers(m, 1, VIOMMU_PENDING, true, 0);
    world_run(&world);
    first = m->outstanding.token;
    assert_int_equal(viommu_change_complete(&world.model.iommu, first + 1, 0), -ENOENT);
    assert_int_equal(viommu_change_complete(&world.model.iommu, 0, 0), -ENOENT);
    mirror_complete(m, 0);
    assert_int_equal(viommu_change_complete(&world.model.iommu, first, 0), -ENOENT);
    world_run(&world);
    assert_int_not_equal(m->outstanding.token, first);
    assert_int_equal(viommu_change_complete(&world.model.iommu, first, -EIO), -ENOENT);
    mirror_complete(m, 0);
    world_process(&world);
    assert_int_equal(mirror_status(m).mappings, 2);
}

/* Its own answer comes from another thread before the call returns. */
static sem_t token_there;
static sem_t answered;
static uint64_t token;

static void *answer_at_once(void *opaque)
{
    (void)opaque;
    sem_wait(&token_there);
    mirror_expect(viommu_change_complete(&world.model.iommu, token, 0) == 0, "the token");
    sem_post(&answered);
    return NULL;
}

static int waits_for_the_answer(void *opaque, const struct viommu_change *change)
{
    (void)opaque;
    token = change->token;
    sem_post(&token_there);
    sem_wait(&answered);
    return VIOMMU_PENDING;
}

static void test_answered_before_it_returned(void **state)
{
    pthread_t thread;

    (void)state;
    sem_init(&token_there, 0, 0);
    sem_init(&answered, 0, 0);
    m->what.change = waits_for_the_answer;
    assert_int_equal(mirror_subscribe(m), 0);
    world_map(&world, 0x1000, 1, BIG, RW);
    assert_int_equal(pthread_create(&thread, NULL, answer_at_once, NULL), 0);
    world_run(&world);
    pthread_join(thread, NULL);
    assert_int_equal(mirror_status(m).mappings, 1);
    assert_false(mirror_status(m).behind);
    assert_int_equal(model_stats(&world.model).acks_pending, 0);
}

/* ---- status ---------------------------------------------------------------------------------- */

static void test_status(void **state)
{
    struct viommu_subscriber_status status;
    unsigned char large[sizeof(status) + 16];

    (void)state;
    assert_int_equal(mirror_subscribe(m), 0);
    assert_true(mirror_status(m).behind);
    world_map(&world, 0x1000, 1, BIG, RW);
    world_map(&world, 0x3000, 1, BIG, RW);
    mirror_answers(m, 2, -EBUSY, false, 0);
    world_process(&world);
    status = mirror_status(m);
    assert_false(status.behind || status.fenced);
    assert_int_equal(status.mappings, 1);
    assert_int_equal(status.differences, 1);
    memset(large, 0xaa, sizeof(large));
    assert_int_equal(viommu_subscriber_status(m->subscriber,
                                              (struct viommu_subscriber_status *)(void *)large,
                                              sizeof(large)),
                     0);
    for (unsigned i = 0; i < 16; i++) {
        assert_int_equal(large[sizeof(status) + i], 0);
    }
    memset(&status, 0xaa, sizeof(status));
    assert_int_equal(viommu_subscriber_status(m->subscriber, &status, 1), 0);
    assert_false(status.fenced);
    assert_int_equal(status.differences, UINT64_C(0xaaaaaaaaaaaaaaaa));
}

static int cache_change(void *opaque, const struct viommu_change *change)
{
    (void)opaque;
    (void)change;
    return -EIO;
}

static void test_status_of_a_cache(void **state)
{
    struct viommu_subscription what = {.kinds = VIOMMU_CHANGE_DEVICE_TLB, .change = cache_change};
    struct viommu_subscriber_status status;
    struct viommu_subscriber *subscriber;

    (void)state;
    assert_int_equal(viommu_device_subscribe(m->device, &what, &subscriber), 0);
    assert_int_equal(viommu_subscriber_status(subscriber, &status, sizeof(status)), 0);
    assert_false(status.fenced || status.behind || status.mappings || status.differences);
    (void)model_post(&world.model, ID, 0);
    world_run(&world);
    assert_int_equal(viommu_subscriber_status(subscriber, &status, sizeof(status)), 0);
    assert_true(status.fenced);
}

/* ---- a device-TLB besides -------------------------------------------------------------------- */

static void test_device_tlb(void **state)
{
    struct wait *wait;

    (void)state;
    m->what.kinds |= VIOMMU_CHANGE_DEVICE_TLB;
    assert_int_equal(mirror_subscribe(m), 0);
    world_process(&world);
    wait = model_post(&world.model, ID, 0x5000);
    world_run(&world);
    mirror_told(m, "@5000-5fff");
    assert_true(model_over(&world.model, wait));
    mirror_answers(m, 1, -EIO, false, VIOMMU_CHANGE_DEVICE_TLB);
    world_map(&world, 0x1000, 1, BIG, RW);
    world_sync(&world, 0, UINT64_MAX);
    wait = model_post(&world.model, ID, 0x5000);
    world_process(&world);
    mirror_told(m, "+1000-1fff>80000000rw @5000-5fff? !"); /* a mirror is fenced as one */
    assert_true(wait->failed);
    assert_int_equal(world_events(&world, VIOMMU_EVENT_FENCED), 1);
    assert_true(mirror_status(m).fenced);
}

/* ---- its end while it runs ------------------------------------------------------------------- */

static sem_t entered;
static sem_t leave;
static int late_answer;
static bool in_fence;

static int runs(void *opaque, const struct viommu_change *change)
{
    struct test_mirror *mirror = opaque;
    int ret;

    if (in_fence) {
        return change->kind == VIOMMU_CHANGE_UNMAP ? -EIO : 0;
    }
    sem_post(&entered);
    sem_wait(&leave);
    ret = late_answer;
    mirror->calls++;
    return ret;
}

static int runs_fence(void *opaque)
{
    (void)opaque;
    if (in_fence) {
        sem_post(&entered);
        sem_wait(&leave);
    }
    return -EIO;
}

static void *process(void *opaque)
{
    (void)opaque;
    world_run(&world);
    return NULL;
}

static void *destroy(void *opaque)
{
    struct test_mirror *mirror = opaque;

    mirror_expect(viommu_subscriber_destroy(mirror->subscriber) == 0, "destroy");
    return NULL;
}

/* Waits until the mirror was taken out by the thread that destroys it, and that waits then. */
static void until_it_left(void)
{
    struct timespec pause = {.tv_nsec = 1000000};
    bool left = false;

    while (!left) {
        nanosleep(&pause, NULL);
        iommu_lock(&world.model.iommu);
        left = !world_follow(&world)->mirrors;
        iommu_unlock(&world.model.iommu);
    }
}

/* Destroys it while another thread is in one of its functions, which then answers like that. */
static void destroy_while_running(int answer, bool fence)
{
    pthread_t worker;
    pthread_t destroyer;

    sem_init(&entered, 0, 0);
    sem_init(&leave, 0, 0);
    late_answer = answer;
    in_fence = fence;
    m->what.change = runs;
    m->what.fence = runs_fence;
    assert_int_equal(mirror_subscribe(m), 0);
    world_map(&world, 0x1000, 1, BIG, RW);
    if (fence) {
        world_run(&world);
        world_unmap(&world, 0x1000, 1);
        (void)world_ask(&world, DOMAIN, 0, UINT64_MAX, VIOMMU_CAUSE_PAGES);
    }
    assert_int_equal(pthread_create(&worker, NULL, process, NULL), 0);
    sem_wait(&entered);
    assert_int_equal(pthread_create(&destroyer, NULL, destroy, m), 0);
    until_it_left();
    sem_post(&leave);
    pthread_join(destroyer, NULL);
    pthread_join(worker, NULL);
    m->subscriber = NULL;
    world_process(&world);
    assert_null(world_follow(&world)->mirrors);
    assert_null(world_follow(&world)->shadows);
    assert_int_equal(world_events(&world, VIOMMU_EVENT_HOST_FAILURE), 0);
    assert_int_equal(world.model.iommu.notify.outstanding, 0);
}

static void test_destroyed_while_running(void **state)
{
    (void)state;
    destroy_while_running(0, false);
}

static void test_destroyed_while_running_then_pending(void **state)
{
    (void)state;
    destroy_while_running(VIOMMU_PENDING, false);
}

static void test_destroyed_while_running_then_error(void **state)
{
    (void)state;
    destroy_while_running(-EIO, false);
}

static void test_destroyed_in_its_fence(void **state)
{
    (void)state;
    destroy_while_running(0, true);
}

/* Its device goes, with a call outstanding. */
static void test_device_goes(void **state)
{
    (void)state;
    assert_int_equal(mirror_subscribe(m), 0);
    world_map(&world, 0x1000, 1, BIG, RW);
    mirror_answers(m, 1, VIOMMU_PENDING, false, 0);
    world_run(&world);
    assert_int_equal(viommu_device_remove(m->device), 0);
    m->subscriber = NULL;
    assert_int_equal(viommu_change_complete(&world.model.iommu, m->outstanding.token, 0), -ENOENT);
    world_process(&world);
    assert_null(world_follow(&world)->mirrors);
}

/* The instance goes with all of that. */
static void test_instance_goes(void **state)
{
    (void)state;
    assert_int_equal(mirror_subscribe(m), 0);
    world_map(&world, 0x1000, 20, BIG, RW);
    mirror_answers(m, 1, VIOMMU_PENDING, false, 0);
    world_run(&world);
    assert_true(m->pending);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_kinds, setup_unsubscribed, teardown),
        cmocka_unit_test_setup_teardown(test_kinds_of_caches, setup_unsubscribed, teardown),
        cmocka_unit_test_setup_teardown(test_callbacks, setup_unsubscribed, teardown),
        cmocka_unit_test_setup_teardown(test_role_form_index, setup_unsubscribed, teardown),
        cmocka_unit_test_setup_teardown(test_range, setup_unsubscribed, teardown),
        cmocka_unit_test_setup_teardown(test_allowed, setup_unsubscribed, teardown),
        cmocka_unit_test_setup_teardown(test_allowed_is_copied, setup_unsubscribed, teardown),
        cmocka_unit_test_setup_teardown(test_not_supported, setup_unsubscribed, teardown),
        cmocka_unit_test_setup_teardown(test_narrow, setup_unsubscribed, teardown),
        cmocka_unit_test_setup_teardown(test_no_memory, setup_unsubscribed, teardown),
        cmocka_unit_test_setup_teardown(test_control_calls_are_refused,
                                        setup_unsubscribed, teardown),
        cmocka_unit_test_setup_teardown(test_refused_in_a_fence, setup_unsubscribed, teardown),
        cmocka_unit_test_setup_teardown(test_tokens, setup_unsubscribed, teardown),
        cmocka_unit_test_setup_teardown(test_answered_before_it_returned,
                                        setup_unsubscribed, teardown),
        cmocka_unit_test_setup_teardown(test_status, setup_unsubscribed, teardown),
        cmocka_unit_test_setup_teardown(test_status_of_a_cache, setup_unsubscribed, teardown),
        cmocka_unit_test_setup_teardown(test_device_tlb, setup_unsubscribed, teardown),
        cmocka_unit_test_setup_teardown(test_destroyed_while_running, setup_unsubscribed, teardown),
        cmocka_unit_test_setup_teardown(test_destroyed_while_running_then_pending,
                                        setup_unsubscribed, teardown),
        cmocka_unit_test_setup_teardown(test_destroyed_while_running_then_error,
                                        setup_unsubscribed, teardown),
        cmocka_unit_test_setup_teardown(test_destroyed_in_its_fence, setup_unsubscribed, teardown),
        cmocka_unit_test_setup_teardown(test_device_goes, setup_unsubscribed, teardown),
        cmocka_unit_test_setup_teardown(test_instance_goes, setup_unsubscribed, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
