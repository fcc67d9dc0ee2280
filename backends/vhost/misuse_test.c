/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A host that has no memory, and an embedder that asks for what makes no sense.
 */
#include "vhost/test_far.h"

#include "vhost/private.h"

#include <pthread.h>

static void use_everything(struct bed *bed)
{
    struct viommu_vhost_ring ring = {.size = 16,
                                     .descriptors = 0x100000,
                                     .available = 0x101000,
                                     .used = 0x102000,
                                     .kick = bed->ram_fd,
                                     .call = -1};

    bed_run(bed);
    (void)viommu_vhost_ring_start(bed->vhost, 0, &ring);
    bed_run(bed);
    if (!bed->failed) {
        far_miss(&bed->far, 0x200000, 1);
    }
    bed_run(bed);
    bed_flush_begin(bed, 0x200000, 0);
    bed_run(bed);
    bed->clock += 200 * FAR_MS;
    bed_run(bed);
    (void)viommu_vhost_process(bed->vhost);
}

static void test_no_memory(void **state)
{
    unsigned long n = 0;
    bool failed = true;

    (void)state;
    while (failed) {
        struct viommu_vhost_config config;
        struct bed bed;
        int fd;

        bed_init(&bed);
        for (uint64_t i = 0; i < 3; i++) {
            bed_map(&bed, 0x100000 + i * 0x1000, 0x40000 + i * 0x1000, 3);
        }
        bed_map(&bed, 0x200000, 0x50000, SPEC_R);
        config = bed_config(&bed);
        fd = config.fd = bed_pair(&bed);
        base_alloc_fail_at(++n);
        if (viommu_vhost_create(&config, &bed.vhost)) {
            bed.vhost = NULL;
            assert_true(fcntl(fd, F_GETFD) >= 0); /* ours still */
            close(fd);
        } else {
            use_everything(&bed);
            assert_true(bed_flushed(&bed));
            /* Whatever failed: it holds nothing that it should not. */
            assert_true(bed.failed || !far_find(&bed.far, 0x200000, 1));
        }
        failed = base_alloc_failed();
        base_alloc_fail_at(0);
        bed_fini(&bed);
    }
    assert_true(n > 5);
}

static void test_configuration_is_checked(void **state)
{
    struct viommu_vhost_config config;
    struct viommu_memory *other;
    struct viommu_vhost *vhost;
    struct bed bed;

    (void)state;
    bed_init(&bed);
    config = bed_config(&bed);
    config.fd = -1;
    assert_int_equal(viommu_vhost_create(&config, &vhost), -EINVAL);
    config.fd = bed_pair(&bed);
    config.rings = 0;
    assert_int_equal(viommu_vhost_create(&config, &vhost), -EINVAL);
    config.rings = VIOMMU_VHOST_RINGS_MAX + 1;
    assert_int_equal(viommu_vhost_create(&config, &vhost), -EINVAL);
    config.rings = 1;
    config.kind = 2;
    assert_int_equal(viommu_vhost_create(&config, &vhost), -EINVAL);
    config.kind = VIOMMU_VHOST_USER;
    assert_int_equal(viommu_memory_create(&other), 0);
    config.memory = other;
    assert_int_equal(viommu_vhost_create(&config, &vhost), -EINVAL);
    viommu_memory_destroy(other);
    config.kind = VIOMMU_VHOST_KERNEL;
    config.memory = bed.guest.memory;
    assert_int_equal(viommu_vhost_create(&config, &vhost), -ENOTSUP); /* a socket */
    close(config.fd);
    viommu_vhost_destroy(NULL);
    bed_fini(&bed);
}

static void test_rings_are_checked(void **state)
{
    const struct viommu_vhost_ring good = {.size = 256,
                                           .descriptors = 0x1000,
                                           .available = 0x2000,
                                           .used = 0x3000,
                                           .kick = -1,
                                           .call = -1};
    static const uint16_t sizes[] = {0, 3, 65535};
    static const struct viommu_vhost_ring places[] = {
        {.descriptors = 0x1008, .available = 0x2000, .used = 0x3000},
        {.descriptors = 0x1000, .available = 0x2001, .used = 0x3000},
        {.descriptors = 0x1000, .available = 0x2000, .used = 0x3002},
        {.descriptors = UINT64_MAX - 15, .available = 0x2000, .used = 0x3000},
        {.descriptors = UINT64_MAX - 4095, .available = 0x2000, .used = 0x3000},
        {.descriptors = 0x1000, .available = 0x2000, .used = UINT64_MAX - 3},
    };
    struct viommu_vhost_ring bad;
    struct bed bed;

    (void)state;
    bed_init(&bed);
    bed_create(&bed);
    assert_int_equal(viommu_vhost_ring_start(bed.vhost, 0, &good), -EAGAIN);
    assert_int_equal(viommu_vhost_accept(bed.vhost, 0), -EAGAIN);
    bed_run(&bed);
    assert_int_equal(viommu_vhost_ring_start(bed.vhost, 2, &good), -EINVAL);
    assert_int_equal(viommu_vhost_ring_stop(bed.vhost, 2), -EINVAL);
    assert_int_equal(viommu_vhost_ring_renew(bed.vhost, UINT32_MAX, -1, -1), -EINVAL);
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        bad = good;
        bad.size = sizes[i];
        assert_int_equal(viommu_vhost_ring_start(bed.vhost, 0, &bad), -EINVAL);
    }
    for (unsigned i = 0; i < sizeof(places) / sizeof(*places); i++) {
        bad = good;
        bad.descriptors = places[i].descriptors;
        bad.available = places[i].available;
        bad.used = places[i].used;
        assert_int_equal(viommu_vhost_ring_start(bed.vhost, 0, &bad), -EINVAL);
    }
    bad = good;
    bad.kick = -2;
    assert_int_equal(viommu_vhost_ring_start(bed.vhost, 0, &bad), -EINVAL);
    bad = good;
    bad.call = 1000;
    assert_int_equal(viommu_vhost_ring_start(bed.vhost, 0, &bad), -EBADF);
    assert_int_equal(viommu_vhost_ring_start(bed.vhost, 0, &good), 0);
    assert_int_equal(viommu_vhost_ring_start(bed.vhost, 0, &good), -EBUSY);
    bed_run(&bed);
    /* Its memory is nowhere: that is no fault, and nothing that would end. */
    assert_int_equal(bed_faults(&bed), 0);
    assert_int_equal(viommu_vhost_state(bed.vhost), VIOMMU_VHOST_READY);
    far_close(&bed.far);
    bed_run(&bed);
    assert_int_equal(viommu_vhost_ring_start(bed.vhost, 0, &good), -EPIPE);
    assert_int_equal(viommu_vhost_ring_stop(bed.vhost, 0), 0);
    assert_int_equal(viommu_vhost_ring_stop(bed.vhost, 0), -EINVAL);
    bed_fini(&bed);
}

/* A clock that begins at 0. */
static void test_the_first_nanosecond(void **state)
{
    struct bed bed;

    (void)state;
    bed_init(&bed);
    bed.clock = 0;
    bed_create(&bed);
    bed_run(&bed);
    bed_start_ring(&bed, 0, 0x100000);
    far_miss(&bed.far, 0x200000, 1);
    bed_run(&bed);
    bed_map(&bed, 0x200000, 0x50000, SPEC_R);
    bed_flush_begin(&bed, 0x200000, 0);
    bed_run(&bed);
    assert_true(bed_flushed(&bed));
    bed_wait(&bed, 10);
    assert_non_null(far_find(&bed.far, 0x200000, 1));
    bed_fini(&bed);
}

struct nested {
    struct bed *bed;
    unsigned calls;
};

static int process_inside(void *opaque, const struct viommu_change *change)
{
    struct nested *nested = opaque;

    (void)change;
    nested->calls++;
    far_step(&nested->bed->far); /* which acknowledges what it was told before */
    assert_int_equal(viommu_vhost_process(nested->bed->vhost), -EDEADLK);
    return 0;
}

/* Where changes are told nothing can be acknowledged: what came is looked at later. */
static void test_processed_inside_of_a_change(void **state)
{
    struct viommu_translation translation;
    struct viommu_subscriber *subscriber;
    struct bed bed;
    struct nested nested = {.bed = &bed};
    struct viommu_subscription what = {
        .kinds = VIOMMU_CHANGE_UNMAP, .change = process_inside, .opaque = &nested};

    (void)state;
    bed_init(&bed);
    /* Who subscribed last is told first. */
    assert_int_equal(viommu_device_subscribe(bed.device, &what, &subscriber), 0);
    bed_create(&bed);
    bed_run(&bed);
    bed_start_ring(&bed, 0, 0x100000);
    bed_map(&bed, 0x200000, 0x50000, SPEC_R);
    far_miss(&bed.far, 0x200000, 1);
    bed_run(&bed);
    bed_flush_begin(&bed, 0x200000, 0);
    assert_int_equal(nested.calls, 1);
    assert_false(bed_flushed(&bed));
    assert_true(bed_has_work(&bed));
    bed_run(&bed);
    assert_true(bed_flushed(&bed));
    assert_int_equal(viommu_device_translate(bed.device, NULL, 0x100000, 1, &translation), 0);
    assert_int_equal(viommu_subscriber_destroy(subscriber), 0);
    bed_fini(&bed);
}

/* What is held is cut in its midst, and there is no memory for it: then all may be held. */
static void test_cut_without_memory(void **state)
{
    bool seen = false;

    (void)state;
    for (unsigned long n = 1; n < 8; n++) {
        struct bed bed;

        bed_init(&bed);
        bed_create(&bed);
        bed_run(&bed);
        bed_start_ring(&bed, 0, 0x100000);
        for (uint64_t i = 0; i < 8; i++) {
            bed_map(&bed, 0x200000 + i * 0x1000, 0x50000 + i * 0x1000, SPEC_R);
        }
        far_miss(&bed.far, 0x200000, 1);
        bed_run(&bed);
        for (uint64_t at = 0x400000; bed.vhost->held.count < 31; at += 0x2000) {
            bed_map(&bed, at, 0x60000, SPEC_R);
            far_miss(&bed.far, at, 1);
            bed_run(&bed);
        }
        base_alloc_fail_at(n);
        bed_flush_begin(&bed, 0x203000, 0);
        base_alloc_fail_at(0);
        if (bed.vhost->all_held) {
            seen = true;
            bed_run(&bed);
            bed_unmap(&bed, 0x400000);
            bed_flush_begin(&bed, 0x400000, 0);
            bed_run(&bed);
            assert_true(bed_flushed(&bed));
            assert_null(far_find(&bed.far, 0x400000, 1));
        }
        bed_fini(&bed);
    }
    assert_true(seen);
}

/* An interrupt is no memory, whatever it would lead to. */
static void test_interrupts_are_no_memory(void **state)
{
    struct bed bed;

    (void)state;
    bed_init(&bed);
    bed_create(&bed);
    bed_run(&bed);
    bed_start_ring(&bed, 0, 0x100000);
    far_miss(&bed.far, 0xfee00000, VIOMMU_WRITE);
    bed_run(&bed);
    assert_null(far_find(&bed.far, 0xfee00000, VIOMMU_WRITE));
    assert_int_equal(bed_statistics(&bed).denied, 1);
    bed_fini(&bed);
}

/* With what is no socket, and without memory: it stays what it was, and nothing is left open. */
static void test_reconnects_in_vain(void **state)
{
    struct bed bed;
    unsigned fds;
    int end;

    (void)state;
    bed_start(&bed);
    assert_int_equal(viommu_vhost_reconnect(bed.vhost, bed.ram_fd), -EBUSY);
    far_close(&bed.far);
    bed_run(&bed);
    fds = bed_open_fds();
    assert_int_equal(viommu_vhost_reconnect(bed.vhost, bed.ram_fd), -EPERM); /* says epoll */
    assert_int_equal(viommu_vhost_state(bed.vhost), VIOMMU_VHOST_FAILED);
    assert_int_equal(viommu_vhost_process(bed.vhost), -EPERM);
    assert_int_equal(viommu_vhost_reconnect(bed.vhost, -1), -EBADF);
    assert_true(fcntl(bed.ram_fd, F_GETFD) >= 0);
    assert_int_equal(bed_open_fds(), fds);
    end = bed_pair(&bed);
    for (unsigned long n = 1;; n++) {
        int ret;

        base_alloc_fail_at(n);
        ret = viommu_vhost_reconnect(bed.vhost, end);
        base_alloc_fail_at(0);
        if (!ret) {
            assert_true(n > 2);
            break;
        }
        assert_int_equal(ret, -ENOMEM);
        assert_int_equal(bed_open_fds(), fds + 2);
    }
    bed_run(&bed);
    assert_int_equal(viommu_vhost_state(bed.vhost), VIOMMU_VHOST_READY);
    assert_non_null(far_find(&bed.far, 0x102000, 3));
    bed_fini(&bed);
}

/* Features are those of the far side that is there. */
static void test_features_are_checked(void **state)
{
    struct viommu_vhost_ring bad = {
        .size = 16, .descriptors = 0x1000, .available = 0x2000, .used = 0x3000, .call = 1000};
    struct viommu_vhost_statistics statistics[2];
    struct bed bed;
    unsigned fds;

    (void)state;
    bed_init(&bed);
    bed_create(&bed);
    bed_run(&bed);
    assert_int_equal(viommu_vhost_accept(bed.vhost, UINT64_C(1) << 63), -EINVAL);
    assert_int_equal(viommu_vhost_accept(bed.vhost, viommu_vhost_features(bed.vhost)), 0);
    bad.kick = bed.ram_fd;
    fds = bed_open_fds();
    assert_int_equal(viommu_vhost_ring_start(bed.vhost, 0, &bad), -EBADF);
    assert_int_equal(bed_open_fds(), fds);
    far_close(&bed.far);
    bed_run(&bed);
    assert_int_equal(viommu_vhost_reconnect(bed.vhost, bed_pair(&bed)), 0);
    bed.far.features &= ~UINT64_C(0xff);
    bed_run(&bed);
    bed_start_ring(&bed, 0, 0x100000);
    assert_int_equal(bed.far.accepted & 0xff, 0);
    assert_int_equal(viommu_vhost_accept(bed.vhost, 0), -EBUSY);

    memset(statistics, 0xee, sizeof(statistics));
    assert_int_equal(viommu_vhost_statistics(bed.vhost, statistics, sizeof(statistics)), 0);
    assert_true(statistics[0].updates > 0);
    assert_int_equal(statistics[1].misses, 0); /* what is not known here */
    memset(statistics, 0xee, sizeof(statistics));
    assert_int_equal(viommu_vhost_statistics(bed.vhost, statistics, sizeof(uint64_t)), 0);
    assert_int_equal(statistics[0].misses, 0);
    assert_true(statistics[0].denied == UINT64_C(0xeeeeeeeeeeeeeeee));
    bed_fini(&bed);
}

/* A thread's first call, without memory for it: it is made again. */
static void *call_first(void *opaque)
{
    const struct viommu_vhost_ring ring = {.size = 16,
                                           .descriptors = 0x1000,
                                           .available = 0x2000,
                                           .used = 0x3000,
                                           .kick = -1,
                                           .call = -1};
    struct bed *bed = opaque;

    base_alloc_fail_at(1);
    assert_int_equal(viommu_vhost_ring_start(bed->vhost, 0, &ring), -ENOMEM);
    base_alloc_fail_at(1);
    assert_int_equal(viommu_vhost_process(bed->vhost), -ENOMEM);
    base_alloc_fail_at(0);
    assert_true(bed_has_work(bed));
    assert_int_equal(viommu_vhost_process(bed->vhost), 0);
    return NULL;
}

static void test_first_call_of_a_thread(void **state)
{
    pthread_t thread;
    struct bed bed;

    (void)state;
    bed_init(&bed);
    bed_create(&bed);
    bed_run(&bed);
    assert_false(bed_has_work(&bed));
    assert_int_equal(pthread_create(&thread, NULL, call_first, &bed), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    bed_fini(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_configuration_is_checked),
        cmocka_unit_test(test_rings_are_checked),
        cmocka_unit_test(test_cut_without_memory),
        cmocka_unit_test(test_interrupts_are_no_memory),
        cmocka_unit_test(test_reconnects_in_vain),
        cmocka_unit_test(test_features_are_checked),
        cmocka_unit_test(test_first_call_of_a_thread),
        cmocka_unit_test(test_the_first_nanosecond),
        cmocka_unit_test(test_processed_inside_of_a_change),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
