/* SPDX-License-Identifier: BSD-2-Clause */
/* Paravirtual operations: the adapter to backends, with one that is a bit mask, and with a trace.
 */
#include "pv/test_behind.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <viommu/trace.h>

struct mirror {
    uint64_t mapped; /* bit n: page n */
    unsigned maps;
    unsigned unmaps;
    unsigned fences;
    unsigned unfenced; /* so many do not succeed */
    int answer;
    /* With an answer of VIOMMU_PENDING: */
    struct viommu_pv_backend *backend;
    int status; /* the answer that comes later */
    bool silent;
    uint64_t token;
    pthread_t thread;
    unsigned outstanding;
};

static void *answer_later(void *opaque)
{
    const struct timespec pause = {.tv_nsec = 2000000};
    struct mirror *mirror = opaque;

    nanosleep(&pause, NULL);
    __atomic_store_n(&mirror->outstanding, 0, __ATOMIC_SEQ_CST);
    (void)viommu_pv_backend_complete(mirror->backend, mirror->token, mirror->status);
    return NULL;
}

static void pend(struct mirror *mirror, uint64_t token)
{
    assert_int_equal(__atomic_exchange_n(&mirror->outstanding, 1, __ATOMIC_SEQ_CST), 0);
    mirror->token = token;
    if (!mirror->silent) {
        assert_int_equal(pthread_create(&mirror->thread, NULL, answer_later, mirror), 0);
        assert_int_equal(pthread_detach(mirror->thread), 0);
    }
}

static int on_change(void *opaque, const struct viommu_change *change)
{
    struct mirror *mirror = opaque;
    uint64_t bit = UINT64_C(1) << (change->first >> 12 & 63);

    if (mirror->answer < 0) {
        return mirror->answer;
    }
    if (mirror->answer == VIOMMU_PENDING) {
        pend(mirror, change->token);
        if (mirror->status || mirror->silent) {
            return VIOMMU_PENDING;
        }
    }
    if (change->kind == VIOMMU_CHANGE_MAP) {
        assert_false(mirror->mapped & bit);
        assert_int_equal(change->last - change->first, 0xfff);
        assert_ptr_equal(change->host, mirror);
        mirror->mapped |= bit;
        mirror->maps++;
    } else {
        assert_int_equal(change->kind, VIOMMU_CHANGE_UNMAP);
        assert_true(mirror->mapped & bit);
        mirror->mapped &= ~bit;
        mirror->unmaps++;
    }
    return mirror->answer;
}

static int on_fence(void *opaque)
{
    struct mirror *mirror = opaque;

    mirror->fences++;
    if (mirror->unfenced) {
        mirror->unfenced--;
        return -EBUSY;
    }
    mirror->mapped = 0;
    return 0;
}

static void test_backend(void **state)
{
    static const struct viommu_range allowed[] = {{0, 0x7fff}, {0x10000, 0x1ffff}};
    struct mirror mirror = {.maps = 0};
    struct viommu_subscription what = {
        .kinds = VIOMMU_CHANGE_MAP | VIOMMU_CHANGE_UNMAP,
        .form = VIOMMU_FORM_RANGE,
        .role = VIOMMU_ROLE_MIRROR,
        .change = on_change,
        .fence = on_fence,
        .opaque = &mirror,
        .allowed = allowed,
        .allowed_count = 2,
        .mappings_max = 3,
    };
    struct viommu_pv_memory memory = {.host = &mirror, .fd = -1};
    struct viommu_pv_backend *backend;

    (void)state;
    what.fence = NULL;
    assert_int_equal(viommu_pv_backend_create(&what, &backend), -EINVAL);
    what.fence = on_fence;
    what.page_sizes = 1 << 21;
    assert_int_equal(viommu_pv_backend_create(&what, &backend), -ENOTSUP);
    what.page_sizes = 0;
    assert_int_equal(viommu_pv_backend_create(&what, &backend), 0);
    assert_int_equal(viommu_pv_backend_map(backend, 1, 0, &memory, VIOMMU_READ), 0);
    assert_int_equal(viommu_pv_backend_map(backend, 8, 0, &memory, VIOMMU_READ), -EADDRNOTAVAIL);
    assert_int_equal(viommu_pv_backend_map(backend, 16, 9, &memory, VIOMMU_READ), -EADDRNOTAVAIL);
    assert_int_equal(viommu_pv_backend_map(backend, 16, 0, &memory, VIOMMU_READ), 0);
    assert_int_equal(viommu_pv_backend_map(backend, 17, 0, &memory, VIOMMU_READ), 0);
    assert_int_equal(viommu_pv_backend_map(backend, 18, 0, &memory, VIOMMU_READ), -ENOMEM);
    assert_int_equal(viommu_pv_backend_unmap(backend, 17, 0), 0);
    assert_int_equal(viommu_pv_backend_flush(backend), 0);
    assert_int_equal(mirror.mapped, 1u << 1 | 1u << 16);
    mirror.answer = -ENODEV;
    assert_int_equal(viommu_pv_backend_unmap(backend, 16, 0), -ENODEV);
    assert_int_equal(viommu_pv_backend_flush(backend), -EIO);
    mirror.answer = 0;
    assert_int_equal(viommu_pv_backend_isolate(backend), 0);
    assert_int_equal(mirror.mapped, 0);
    assert_int_equal(viommu_pv_backend_flush(backend), 0);
    assert_int_equal(viommu_pv_backend_unmap(backend, 1, 0), 0);
    assert_int_equal(viommu_pv_backend_map(backend, 1, 0, &memory, VIOMMU_READ), -EIO);
    assert_int_equal(mirror.unmaps, 1);
    viommu_pv_backend_destroy(backend);
    viommu_pv_backend_destroy(NULL);
}

static struct viommu_pv_backend *pending_backend(struct mirror *mirror)
{
    const struct viommu_subscription what = {
        .kinds = VIOMMU_CHANGE_MAP | VIOMMU_CHANGE_UNMAP,
        .form = VIOMMU_FORM_RANGE,
        .role = VIOMMU_ROLE_MIRROR,
        .change = on_change,
        .fence = on_fence,
        .opaque = mirror,
    };

    *mirror = (struct mirror){.answer = VIOMMU_PENDING};
    assert_int_equal(viommu_pv_backend_create(&what, &mirror->backend), 0);
    return mirror->backend;
}

/* Answers that come later are waited for, one call at a time. */
static void test_later_answers(void **state)
{
    struct mirror mirror;
    struct viommu_pv_backend *backend = pending_backend(&mirror);
    struct viommu_pv_memory memory = {.host = &mirror, .fd = -1};

    (void)state;
    assert_int_equal(viommu_pv_backend_map(backend, 1, 0, &memory, VIOMMU_READ), 0);
    assert_int_equal(viommu_pv_backend_map(backend, 2, 0, &memory, VIOMMU_READ), 0);
    assert_int_equal(viommu_pv_backend_unmap(backend, 1, 0), 0);
    assert_int_equal(viommu_pv_backend_flush(backend), 0);
    assert_int_equal(mirror.outstanding, 0); /* the flush has waited */
    assert_int_equal(viommu_pv_backend_map(backend, 4, 0, &memory, VIOMMU_READ), 0);
    assert_int_equal(viommu_pv_backend_map(backend, 5, 0, &memory, VIOMMU_READ), 0);
    assert_int_equal(viommu_pv_backend_unmap(backend, 4, 0), 0);
    assert_int_equal(viommu_pv_backend_unmap(backend, 5, 0), 0); /* has waited for the other */
    assert_int_equal(viommu_pv_backend_flush(backend), 0);
    assert_int_equal(viommu_pv_backend_unmap(backend, 2, 0), 0);
    assert_int_equal(viommu_pv_backend_map(backend, 2, 0, &memory, VIOMMU_READ), 0);
    assert_int_equal(viommu_pv_backend_complete(backend, mirror.token, 0), -ENOENT);
    /* A mapping that fails is one that was not made; an unmapping that does fails the flush. */
    mirror.status = -ENOMEM;
    assert_int_equal(viommu_pv_backend_map(backend, 3, 0, &memory, VIOMMU_READ), -ENOMEM);
    assert_int_equal(viommu_pv_backend_flush(backend), 0);
    assert_int_equal(viommu_pv_backend_unmap(backend, 2, 0), 0);
    assert_int_equal(viommu_pv_backend_flush(backend), -EIO);
    assert_int_equal(viommu_pv_backend_flush(backend), -EIO);
    assert_int_equal(viommu_pv_backend_isolate(backend), 0);
    assert_int_equal(mirror.fences, 1);
    viommu_pv_backend_destroy(backend);
}

static void test_no_answer(void **state)
{
    struct mirror mirror;
    struct viommu_pv_backend *backend = pending_backend(&mirror);
    struct viommu_pv_memory memory = {.host = &mirror, .fd = -1};

    (void)state;
    /* A mapping that may still be made: all is dropped. */
    mirror.silent = true;
    viommu_pv_backend_set_timeout(backend, 5);
    assert_int_equal(viommu_pv_backend_map(backend, 1, 0, &memory, VIOMMU_READ), -EIO);
    assert_int_equal(mirror.fences, 1);
    assert_int_equal(viommu_pv_backend_complete(backend, mirror.token, 0), -ENOENT);
    assert_int_equal(viommu_pv_backend_map(backend, 1, 0, &memory, VIOMMU_READ), -EIO);
    viommu_pv_backend_destroy(backend);

    backend = pending_backend(&mirror);
    assert_int_equal(viommu_pv_backend_map(backend, 1, 0, &memory, VIOMMU_READ), 0);
    mirror.silent = true;
    viommu_pv_backend_set_timeout(backend, 5);
    assert_int_equal(viommu_pv_backend_unmap(backend, 1, 0), 0);
    assert_int_equal(viommu_pv_backend_flush(backend), -EIO);
    viommu_pv_backend_destroy(backend);
}

/* ---- what it cannot be, or have ---- */

static struct viommu_subscription usual(struct mirror *mirror)
{
    return (struct viommu_subscription){
        .kinds = VIOMMU_CHANGE_MAP | VIOMMU_CHANGE_UNMAP,
        .form = VIOMMU_FORM_RANGE,
        .role = VIOMMU_ROLE_MIRROR,
        .change = on_change,
        .fence = on_fence,
        .opaque = mirror,
    };
}

/* The subscription of the vhost backend is a cache's: it has no mappings. */
static void test_no_mirror(void **state)
{
    struct mirror mirror = {.maps = 0};
    const struct viommu_subscription good = usual(&mirror);
    struct viommu_subscription what = {
        .kinds = VIOMMU_CHANGE_UNMAP, .form = VIOMMU_FORM_RANGE, .change = on_change};
    struct viommu_pv_backend *backend;

    (void)state;
    assert_int_equal(viommu_pv_backend_create(&what, &backend), -ENOTSUP);
    what = good;
    what.role = VIOMMU_ROLE_CACHE;
    assert_int_equal(viommu_pv_backend_create(&what, &backend), -ENOTSUP);
    what.role = (enum viommu_role)7;
    assert_int_equal(viommu_pv_backend_create(&what, &backend), -EINVAL);
    what = good;
    what.adopt = true;
    assert_int_equal(viommu_pv_backend_create(&what, &backend), -ENOTSUP);
    what = good;
    what.kinds = VIOMMU_CHANGE_UNMAP;
    assert_int_equal(viommu_pv_backend_create(&what, &backend), -EINVAL);
    what = good;
    what.change = NULL;
    assert_int_equal(viommu_pv_backend_create(&what, &backend), -EINVAL);
}

static void expect_holes(const struct viommu_subscription *what, uint64_t last,
                         const struct viommu_pv_range *wanted, size_t count)
{
    struct viommu_pv_range ranges[8];
    struct viommu_pv_backend *backend;
    size_t got = 99;

    assert_int_equal(viommu_pv_backend_create(what, &backend), 0);
    viommu_pv_backend_holes(backend, last, NULL, 0, &got);
    assert_int_equal(got, count);
    memset(ranges, 0xee, sizeof(ranges));
    viommu_pv_backend_holes(backend, last, ranges, 8, &got);
    assert_int_equal(got, count);
    assert_memory_equal(ranges, wanted, count * sizeof(*wanted));
    if (count > 1) {
        /* No more than there is room for. */
        memset(ranges, 0xee, sizeof(ranges));
        viommu_pv_backend_holes(backend, last, ranges, 1, &got);
        assert_int_equal(got, count);
        assert_memory_equal(ranges, wanted, sizeof(*wanted));
        assert_true(ranges[1].first == UINT64_C(0xeeeeeeeeeeeeeeee));
    }
    viommu_pv_backend_destroy(backend);
}

static void test_holes(void **state)
{
    static const struct viommu_range some[] = {{0x1001, 0x17ff},
                                               {0x1800, 0x4ffe},
                                               {0x5800, 0x7fff},
                                               {0x8001, 0x8ffe},
                                               {0x20000, UINT64_MAX - 4096}};
    static const struct viommu_range small = {0x10, 0xff0};
    struct mirror mirror = {.maps = 0};
    struct viommu_subscription what = usual(&mirror);

    (void)state;
    expect_holes(&what, UINT64_MAX >> 19, NULL, 0);
    expect_holes(&what, UINT64_MAX >> 12, NULL, 0);
    what.allowed = some;
    what.allowed_count = 5;
    expect_holes(&what, 100, (const struct viommu_pv_range[]){{0, 1}, {4, 5}, {8, 0x1f}}, 3);
    expect_holes(&what, 3, (const struct viommu_pv_range[]){{0, 1}}, 1);
    expect_holes(&what, 0x10, (const struct viommu_pv_range[]){{0, 1}, {4, 5}, {8, 0x10}}, 3);
    expect_holes(&what, 4, (const struct viommu_pv_range[]){{0, 1}, {4, 4}}, 2);
    expect_holes(&what, UINT64_MAX >> 12,
                 (const struct viommu_pv_range[]){
                     {0, 1}, {4, 5}, {8, 0x1f}, {UINT64_MAX >> 12, UINT64_MAX >> 12}},
                 4);
    what.allowed = &small;
    what.allowed_count = 1;
    expect_holes(&what, 7, (const struct viommu_pv_range[]){{0, 7}}, 1);
    /* What the subscription is for, besides. */
    what.range = (struct viommu_range){0x3000, 0x20fff};
    expect_holes(&what, 7, (const struct viommu_pv_range[]){{0, 7}}, 1);
    what.allowed = some;
    what.allowed_count = 5;
    expect_holes(&what, 100,
                 (const struct viommu_pv_range[]){{0, 2}, {4, 5}, {8, 0x1f}, {0x21, 100}}, 4);
    what.allowed = NULL;
    expect_holes(&what, 100, (const struct viommu_pv_range[]){{0, 2}, {0x21, 100}}, 2);
}

/* ---- what it says when it fails ---- */

static void test_failures(void **state)
{
    struct mirror mirror = {.answer = -EIO};
    struct viommu_subscription what = usual(&mirror);
    struct viommu_pv_memory memory = {.host = &mirror, .fd = -1};
    struct viommu_pv_backend *backend;

    (void)state;
    /* A refusal is one, whatever its number: -EIO would say that nobody knows. */
    assert_int_equal(viommu_pv_backend_create(&what, &backend), 0);
    assert_int_equal(viommu_pv_backend_map(backend, 1, 0, &memory, VIOMMU_READ), -ENOMEM);
    assert_int_equal(mirror.fences, 0);
    mirror.answer = 0;
    assert_int_equal(viommu_pv_backend_map(backend, 1, 0, &memory, VIOMMU_READ), 0);
    /* It does not drop what it has: it is asked at each flush and each unmapping until it does. */
    mirror.unfenced = 4;
    assert_int_equal(viommu_pv_backend_isolate(backend), -EBUSY);
    assert_int_equal(viommu_pv_backend_map(backend, 2, 0, &memory, VIOMMU_READ), -EIO);
    assert_int_equal(mirror.fences, 1);
    assert_int_equal(viommu_pv_backend_flush(backend), -EIO);
    assert_int_equal(viommu_pv_backend_unmap(backend, 1, 0), -EIO);
    assert_int_equal(viommu_pv_backend_isolate(backend), -EBUSY);
    assert_int_equal(mirror.fences, 4);
    assert_int_equal(mirror.unmaps, 0);
    assert_int_equal(viommu_pv_backend_unmap(backend, 1, 0), 0);
    assert_int_equal(mirror.fences, 5);
    assert_int_equal(viommu_pv_backend_flush(backend), 0);
    assert_int_equal(viommu_pv_backend_isolate(backend), 0);
    assert_int_equal(mirror.fences, 5); /* there is nothing left to be dropped */
    assert_int_equal(viommu_pv_backend_map(backend, 2, 0, &memory, VIOMMU_READ), -EIO);
    viommu_pv_backend_destroy(backend);
}

/* An answer that says that nobody knows is one of a mapping that may be there. */
static void test_unknown_answer(void **state)
{
    static const int unknown[] = {-EIO, -ETIMEDOUT};

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct mirror mirror;
        struct viommu_pv_backend *backend = pending_backend(&mirror);
        struct viommu_pv_memory memory = {.host = &mirror, .fd = -1};

        mirror.status = unknown[i];
        assert_int_equal(viommu_pv_backend_map(backend, 1, 0, &memory, VIOMMU_READ), -EIO);
        assert_int_equal(mirror.fences, 1);
        assert_int_equal(viommu_pv_backend_flush(backend), 0); /* all was dropped */
        viommu_pv_backend_destroy(backend);
    }
}

/* Who had the mappings is no more: nothing is waited for. */
static void test_gone(void **state)
{
    struct mirror mirror;
    struct viommu_pv_backend *backend = pending_backend(&mirror);
    struct viommu_pv_memory memory = {.host = &mirror, .fd = -1};

    (void)state;
    assert_int_equal(viommu_pv_backend_map(backend, 1, 0, &memory, VIOMMU_READ), 0);
    mirror.status = -ENOSPC; /* an answer that is not the last one's */
    assert_int_equal(viommu_pv_backend_map(backend, 2, 0, &memory, VIOMMU_READ), -ENOSPC);
    mirror.silent = true;
    assert_int_equal(viommu_pv_backend_unmap(backend, 1, 0), 0);
    viommu_pv_backend_gone(backend);
    assert_int_equal(viommu_pv_backend_complete(backend, mirror.token, 0), -ENOENT);
    assert_int_equal(viommu_pv_backend_flush(backend), 0);
    assert_int_equal(viommu_pv_backend_map(backend, 2, 0, &memory, VIOMMU_READ), -EIO);
    assert_int_equal(viommu_pv_backend_unmap(backend, 1, 0), 0);
    assert_int_equal(mirror.fences, 0);
    viommu_pv_backend_destroy(backend);
}

/* ---- the engine, in front of a trace ---- */

static int refusal; /* what the subscriber behind the trace says to an unmapping */

static int after_change(void *opaque, const struct viommu_change *change)
{
    (void)opaque;
    return change->kind == VIOMMU_CHANGE_UNMAP ? refusal : 0;
}

static int after_fence(void *opaque)
{
    (void)opaque;
    return 0;
}

/* Reads what was written since the last time, and asserts that a text comes so often in it. */
static void expect(int fd, const char *text, unsigned times)
{
    char lines[8192];
    ssize_t got = pread(fd, lines, sizeof(lines) - 1, 0);
    unsigned found = 0;

    assert_true(got >= 0);
    lines[got] = 0;
    for (const char *at = lines; (at = strstr(at, text)); at++) {
        found++;
    }
    assert_int_equal(found, times);
}

static void test_trace(void **state)
{
    const struct viommu_subscription after = {
        .kinds = VIOMMU_CHANGE_MAP | VIOMMU_CHANGE_UNMAP,
        .form = VIOMMU_FORM_RANGE,
        .role = VIOMMU_ROLE_MIRROR,
        .change = after_change,
        .fence = after_fence,
    };
    struct viommu_trace_config config = {.fd = memfd_create("trace", MFD_CLOEXEC), .next = &after};
    struct viommu_subscription what;
    struct viommu_trace *trace;
    struct world *world;

    (void)state;
    assert_true(config.fd >= 0);
    assert_int_equal(viommu_trace_create(&config, &trace), 0);
    viommu_trace_subscription(trace, &what);
    world = behind_create(&what, &(struct viommu_pv_config){.deferred_max = 64});
    assert_int_equal(world_do_map(world, 0, (struct world_range){0, 1, 5, 9, 3, 0, 3, 0}),
                     VIOMMU_PV_OK);
    expect(config.fd, "\"call\":\"map\"", 3);
    expect(config.fd,
           "\"first\":\"0xa000\",\"last\":\"0xafff\",\"gpa\":\"0x406000\","
           "\"perm\":\"rw\"",
           1);
    assert_int_equal(world_do_unmap(world, 0, (struct world_range){0, 1, 5, 9, 1, 0, 0, 0}),
                     VIOMMU_PV_OK);
    expect(config.fd, "\"call\":\"unmap\"", 1);
    world_check(world);
    /* The backend fails: what it was to unmap keeps its references, and all is dropped. */
    refusal = -ENODEV;
    assert_int_equal(world_do_unmap(world, 0, (struct world_range){0, 1, 6, 10, 1, 0, 0, 0}),
                     VIOMMU_PV_EIO);
    assert_int_equal(world_status(world, 0).isolated, 1);
    expect(config.fd, "\"call\":\"fence\"", 1);
    world_check(world);
    behind_end(world);
    expect(config.fd, "\"call\":\"unmap\"", 2); /* what was dropped is not unmapped again */
    assert_int_equal(viommu_trace_destroy(trace), 0);
    assert_int_equal(close(config.fd), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_backend),        cmocka_unit_test(test_later_answers),
        cmocka_unit_test(test_no_answer),      cmocka_unit_test(test_no_mirror),
        cmocka_unit_test(test_holes),          cmocka_unit_test(test_failures),
        cmocka_unit_test(test_unknown_answer), cmocka_unit_test(test_gone),
        cmocka_unit_test(test_trace),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
