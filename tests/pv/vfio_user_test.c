/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Paravirtual operations in front of a device server of another process, which answers later: the
 * client of the vfio-user backend, and the far server of its tests (test_far.h). The engine waits
 * in the test's thread, or in one of its own; another drives client and server.
 */
#include "vfio_user/test_far.h"

#include <pthread.h>
#include <time.h>

#include "pv/test_behind.h"

static const struct viommu_pv_config usual_config = {.deferred_max = 64};

static struct test_world far_world;
static struct world *world;

/* Drives client and server. The lock is for the server, which tests look at. */
static struct {
    pthread_t thread;
    pthread_mutex_t lock;
    bool stop;
    unsigned unknown; /* answers that nobody waited for */
} driver = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void pause_shortly(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
}

static void *drive(void *opaque)
{
    bool stop = false;

    (void)opaque;
    while (!stop) {
        pthread_mutex_lock(&driver.lock);
        (void)viommu_vfio_user_process(far_world.client);
        if (far_world.far.fd >= 0) {
            test_far_step(&far_world.far);
        }
        stop = driver.stop;
        pthread_mutex_unlock(&driver.lock);
        pause_shortly();
    }
    return NULL;
}

static void on_answered(void *opaque, uint64_t token, int status)
{
    (void)opaque;
    driver.unknown += viommu_pv_backend_complete(behind.backends[0], token, status) == -ENOENT;
}

static int setup(void **state)
{
    const struct test_wanted wanted = {.client.answered = on_answered};
    struct viommu_subscription what;

    (void)state;
    test_world_open(&far_world, &wanted);
    assert_int_equal(viommu_vfio_user_subscription(far_world.client, &what), 0);
    world = behind_create(&what, &usual_config);
    driver.stop = false;
    driver.unknown = 0;
    assert_int_equal(pthread_create(&driver.thread, NULL, drive, NULL), 0);
    return 0;
}

static void stop_driver(void)
{
    pthread_mutex_lock(&driver.lock);
    driver.stop = true;
    pthread_mutex_unlock(&driver.lock);
    assert_int_equal(pthread_join(driver.thread, NULL), 0);
}

static int teardown(void **state)
{
    (void)state;
    behind_end(world);
    stop_driver();
    test_world_close(&far_world);
    return 0;
}

static void far_hold(bool hold)
{
    pthread_mutex_lock(&driver.lock);
    far_world.far.hold = hold;
    pthread_mutex_unlock(&driver.lock);
}

/* Waits until the server holds an answer back. */
static void far_expect_held(void)
{
    bool holds = false;

    while (!holds) {
        pause_shortly();
        pthread_mutex_lock(&driver.lock);
        holds = far_world.far.holds;
        pthread_mutex_unlock(&driver.lock);
    }
}

static void far_release(void)
{
    pthread_mutex_lock(&driver.lock);
    test_far_release(&far_world.far);
    pthread_mutex_unlock(&driver.lock);
}

static unsigned far_regions(void)
{
    unsigned count;

    pthread_mutex_lock(&driver.lock);
    count = far_world.far.region_count;
    pthread_mutex_unlock(&driver.lock);
    return count;
}

static void far_refuse(int error)
{
    pthread_mutex_lock(&driver.lock);
    far_world.far.refuse = error;
    pthread_mutex_unlock(&driver.lock);
}

static void far_hangs_up(void)
{
    pthread_mutex_lock(&driver.lock);
    close(far_world.far.fd);
    far_world.far.fd = -1;
    pthread_mutex_unlock(&driver.lock);
}

/* ---- calls that wait ---- */

struct call {
    pthread_t thread;
    uint64_t frame;
    uint64_t device_frame;
    uint64_t count;
    uint32_t flags;
    bool ended;
    uint32_t status;
};

static void *run_unmap(void *opaque)
{
    struct call *call = opaque;

    call->status =
        behind_do_unmap(world, call->frame, call->device_frame, call->count, call->flags);
    __atomic_store_n(&call->ended, true, __ATOMIC_SEQ_CST);
    return NULL;
}

static void *run_map(void *opaque)
{
    struct call *call = opaque;

    call->status = behind_do_map(world, call->frame, call->device_frame, call->count);
    __atomic_store_n(&call->ended, true, __ATOMIC_SEQ_CST);
    return NULL;
}

static void *run_flush(void *opaque)
{
    struct call *call = opaque;

    call->status = world_do_flush(world, 0, 0);
    __atomic_store_n(&call->ended, true, __ATOMIC_SEQ_CST);
    return NULL;
}

static void begin(struct call *call, void *(*run)(void *))
{
    assert_int_equal(pthread_create(&call->thread, NULL, run, call), 0);
}

/* It waits for the server. */
static void expect_waiting(const struct call *call)
{
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    assert_false(__atomic_load_n(&call->ended, __ATOMIC_SEQ_CST));
}

static uint32_t end(struct call *call)
{
    assert_int_equal(pthread_join(call->thread, NULL), 0);
    return call->status;
}

/* ---- */

static void test_map_and_unmap(void **state)
{
    (void)state;
    assert_int_equal(behind_do_map(world, 5, 9, 3), VIOMMU_PV_OK);
    assert_int_equal(far_regions(), 3);
    pthread_mutex_lock(&driver.lock);
    for (unsigned i = 0; i < 3; i++) {
        const struct test_region *region = test_far_find(&far_world.far, (9 + i) << 12);

        assert_true(region && region->file);
        assert_int_equal(region->map.offset, (5 + i) << 12);
        assert_int_equal(region->map.size, 0x1000);
    }
    pthread_mutex_unlock(&driver.lock);
    assert_int_equal(world_do_map(world, 0, (struct world_range){0, 0, 512, 512, 1, 9, 1, 0}),
                     VIOMMU_PV_OK);
    assert_int_equal(far_regions(), 4);
    assert_int_equal(behind_do_unmap(world, 5, 9, 2, 0), VIOMMU_PV_OK);
    assert_int_equal(far_regions(), 2);
    assert_int_equal(world->pages[5].refs, 0);
    assert_int_equal(driver.unknown, 0);
    world_check(world);
}

/* The server has unmapped when it says so, and not before. */
static void test_a_flush_waits(void **state)
{
    struct call call = {.frame = 5, .device_frame = 9, .count = 1};

    (void)state;
    assert_int_equal(behind_do_map(world, 5, 9, 2), VIOMMU_PV_OK);
    far_hold(true);
    begin(&call, run_unmap);
    far_expect_held();
    expect_waiting(&call);
    assert_int_equal(world->pages[5].refs, 1);
    far_release();
    assert_int_equal(end(&call), VIOMMU_PV_OK);
    assert_int_equal(world->pages[5].refs, 0);
    /* What is deferred does not wait; its flush does, and so does the next thing that is asked. */
    call = (struct call){.ended = false};
    assert_int_equal(behind_do_unmap(world, 6, 10, 1, VIOMMU_PV_DEFER), VIOMMU_PV_OK);
    far_expect_held();
    assert_int_equal(world->pages[6].refs, 1);
    begin(&call, run_flush);
    expect_waiting(&call);
    assert_int_equal(world->pages[6].refs, 1);
    far_hold(false);
    far_release();
    assert_int_equal(end(&call), VIOMMU_PV_OK);
    assert_int_equal(world->pages[6].refs, 0);
    world_check(world);
}

static void test_one_call_at_a_time(void **state)
{
    struct call call = {.frame = 7, .device_frame = 20, .count = 1};

    (void)state;
    assert_int_equal(behind_do_map(world, 5, 9, 1), VIOMMU_PV_OK);
    far_hold(true);
    assert_int_equal(behind_do_unmap(world, 5, 9, 1, VIOMMU_PV_DEFER), VIOMMU_PV_OK);
    far_expect_held();
    begin(&call, run_map);
    expect_waiting(&call);
    assert_int_equal(far_world.far.maps, 1);
    far_hold(false);
    far_release();
    assert_int_equal(end(&call), VIOMMU_PV_OK);
    assert_int_equal(far_regions(), 1);
    assert_int_equal(world->pages[5].refs, 1); /* not flushed yet */
    world_check(world);
}

static void test_a_mapping_is_refused(void **state)
{
    (void)state;
    far_refuse(ENOSPC);
    assert_int_equal(behind_do_map(world, 5, 9, 1), VIOMMU_PV_ENOSPC);
    assert_int_equal(world->pages[5].refs, 0);
    assert_int_equal(world_status(world, 0).isolated, 0);
    assert_int_equal(behind_do_map(world, 5, 9, 1), VIOMMU_PV_OK);
    world_check(world);
}

/*
 * It says that it did not unmap: nothing is dropped before it has answered that it unmapped all,
 * which it is asked to then.
 */
static void test_an_unmapping_is_refused(void **state)
{
    (void)state;
    assert_int_equal(behind_do_map(world, 5, 9, 2), VIOMMU_PV_OK);
    far_refuse(EBUSY);
    assert_int_equal(behind_do_unmap(world, 5, 9, 1, 0), VIOMMU_PV_EIO);
    assert_int_equal(world_status(world, 0).isolated, 1);
    assert_int_equal(world->pages[5].refs, 1);
    assert_int_equal(world->pages[6].refs, 1);
    world_check(world);
    while (far_regions()) {
        pause_shortly();
    }
    assert_int_equal(far_world.far.unmap_alls, 1);
    while (world_do_flush(world, 0, 0) != VIOMMU_PV_OK) {
        pause_shortly(); /* its answer is on its way */
    }
    assert_int_equal(world_status(world, 0).isolated, 0);
    assert_int_equal(world->pages[5].refs, 0);
    assert_int_equal(behind_do_unmap(world, 6, 10, 1, 0), VIOMMU_PV_OK);
    assert_int_equal(world->pages[6].refs, 0);
    assert_int_equal(behind_do_map(world, 5, 9, 1), VIOMMU_PV_EIO);
}

/* It does not answer in time: the answer that comes later counts for nothing. */
static void test_no_answer(void **state)
{
    (void)state;
    assert_int_equal(behind_do_map(world, 5, 9, 1), VIOMMU_PV_OK);
    viommu_pv_backend_set_timeout(behind.backends[0], 30);
    far_hold(true);
    assert_int_equal(behind_do_unmap(world, 5, 9, 1, VIOMMU_PV_DEFER), VIOMMU_PV_OK);
    far_expect_held();
    pthread_mutex_lock(&driver.lock); /* nor does it take in what it is asked then */
    assert_int_equal(world_do_flush(world, 0, 0), VIOMMU_PV_EIO);
    assert_int_equal(world_do_flush(world, 0, 0), VIOMMU_PV_EIO);
    assert_int_equal(world_status(world, 0).isolated, 1);
    assert_int_equal(world->pages[5].refs, 1);
    far_world.far.hold = false;
    test_far_release(&far_world.far);
    assert_int_equal(viommu_vfio_user_process(far_world.client), 0);
    assert_int_equal(driver.unknown, 1);
    assert_int_equal(world_do_flush(world, 0, 0), VIOMMU_PV_EIO);
    assert_int_equal(world->pages[5].refs, 1);
    pthread_mutex_unlock(&driver.lock);
    while (world_do_flush(world, 0, 0) != VIOMMU_PV_OK) {
        pause_shortly();
    }
    assert_int_equal(world->pages[5].refs, 0);
    world_check(world);
}

/* It is gone, and may have what it was asked to map. */
static void test_hung_up(void **state)
{
    struct call call = {.frame = 6, .device_frame = 10, .count = 1};

    (void)state;
    assert_int_equal(behind_do_map(world, 5, 9, 1), VIOMMU_PV_OK);
    far_hold(true);
    begin(&call, run_map);
    far_expect_held();
    expect_waiting(&call);
    far_hangs_up();
    assert_int_equal(end(&call), VIOMMU_PV_EIO);
    assert_int_equal(world_status(world, 0).isolated, 1);
    assert_int_equal(world->pages[5].refs, 1);
    assert_int_equal(world->pages[6].refs, 1);
    assert_int_equal(behind_do_unmap(world, 5, 9, 1, 0), VIOMMU_PV_EIO);
    assert_int_equal(world_do_flush(world, 0, 0), VIOMMU_PV_EIO);
    assert_int_equal(behind_do_map(world, 7, 11, 1), VIOMMU_PV_EIO);
    assert_int_equal(viommu_pv_vm_destroy(world->pv, 0), -EIO);
    assert_int_equal(world->pages[5].refs, 1);
    assert_int_equal(world->pages[6].refs, 1);
    world_check(world);
    /* The hypervisor has seen its process end. */
    viommu_pv_backend_gone(behind.backends[0]);
    assert_int_equal(world_destroy_vm(world, 0), 0);
    assert_int_equal(world->pages[5].refs + world->pages[6].refs, 0);
}

/* It hangs up while an unmapping waits for its answer. */
static void test_hung_up_at_a_flush(void **state)
{
    struct call call = {.frame = 5, .device_frame = 9, .count = 1};

    (void)state;
    assert_int_equal(behind_do_map(world, 5, 9, 1), VIOMMU_PV_OK);
    far_hold(true);
    begin(&call, run_unmap);
    far_expect_held();
    far_hangs_up();
    assert_int_equal(end(&call), VIOMMU_PV_EIO);
    assert_int_equal(world->pages[5].refs, 1);
    assert_int_equal(world_status(world, 0).isolated, 1);
    world_check(world);
    viommu_pv_backend_gone(behind.backends[0]);
    assert_int_equal(world_do_flush(world, 0, 0), VIOMMU_PV_OK);
    assert_int_equal(world->pages[5].refs, 0);
}

/* Servers that take no pages of 4 KiB, or no more than so many regions. */
static void test_limits(void **state)
{
    struct viommu_subscription what;
    struct viommu_pv_backend *backend;

    (void)state;
    stop_driver();
    assert_int_equal(viommu_vfio_user_subscription(far_world.client, &what), 0);
    assert_int_equal(what.mappings_max, 65535);
    test_world_disconnect(&far_world);
    far_world.far.capabilities = "{\"capabilities\":{\"max_dma_maps\":2,\"pgsizes\":2097152}}";
    test_world_connect(&far_world, &(struct test_wanted){.client.answered = on_answered});
    test_world_settle(&far_world);
    assert_int_equal(viommu_vfio_user_subscription(far_world.client, &what), 0);
    assert_int_equal(viommu_pv_backend_create(&what, &backend), -ENOTSUP);
    test_world_disconnect(&far_world);
    far_world.far.capabilities = "{\"capabilities\":{\"max_dma_maps\":2,\"pgsizes\":4096}}";
    test_world_connect(&far_world, &(struct test_wanted){.client.answered = on_answered});
    test_world_settle(&far_world);
    assert_int_equal(viommu_vfio_user_subscription(far_world.client, &what), 0);
    viommu_pv_backend_destroy(behind.backends[0]);
    assert_int_equal(viommu_pv_backend_create(&what, &behind.backends[0]), 0);
    driver.stop = false;
    assert_int_equal(pthread_create(&driver.thread, NULL, drive, NULL), 0);
    assert_int_equal(behind_do_map(world, 5, 9, 3), VIOMMU_PV_ENOSPC);
    assert_int_equal(far_regions(), 2);
    assert_int_equal(world_status(world, 0).mappings, 2);
    world_check(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_map_and_unmap, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_flush_waits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_call_at_a_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_mapping_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_unmapping_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_answer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hung_up, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hung_up_at_a_flush, setup, teardown),
        cmocka_unit_test_setup_teardown(test_limits, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
