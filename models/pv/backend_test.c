/* SPDX-License-Identifier: BSD-2-Clause */
/* Paravirtual operations: the adapter to backends, with one that is a bit mask, and with a trace.
 */
#include "pv/test_calls.h"

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
    assert_int_equal(viommu_pv_backend_map(backend, 8, 0, &memory, VIOMMU_READ), -ERANGE);
    assert_int_equal(viommu_pv_backend_map(backend, 16, 9, &memory, VIOMMU_READ), -ERANGE);
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

/* ---- the engine, in front of a trace ---- */

static struct viommu_pv_backend *traced;
static int refusal; /* what the subscriber behind the trace says to an unmapping */

static int traced_map(void *opaque, void *space, uint64_t device_frame, unsigned order,
                      uint64_t handle, uint32_t perm)
{
    const struct viommu_pv_memory memory = {.host = opaque, .fd = -1, .gpa = handle << 12};
    int error = viommu_pv_backend_map(traced, device_frame, order, &memory, perm);

    return error ? -ENOMEM : world_map(opaque, space, device_frame, order, handle, perm);
}

static int traced_unmap(void *opaque, void *space, uint64_t device_frame, unsigned order)
{
    int error = viommu_pv_backend_unmap(traced, device_frame, order);

    return error ? error : world_unmap(opaque, space, device_frame, order);
}

static int traced_flush(void *opaque, void *space, uint64_t first, uint64_t last)
{
    int error = viommu_pv_backend_flush(traced);

    return error ? error : world_flush(opaque, space, first, last);
}

static void traced_isolate(void *opaque, void *space)
{
    (void)viommu_pv_backend_isolate(traced);
    world_isolate(opaque, space);
}

static int behind_change(void *opaque, const struct viommu_change *change)
{
    (void)opaque;
    return change->kind == VIOMMU_CHANGE_UNMAP ? refusal : 0;
}

static int behind_fence(void *opaque)
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
    const struct viommu_subscription behind = {
        .kinds = VIOMMU_CHANGE_MAP | VIOMMU_CHANGE_UNMAP,
        .form = VIOMMU_FORM_RANGE,
        .role = VIOMMU_ROLE_MIRROR,
        .change = behind_change,
        .fence = behind_fence,
    };
    struct viommu_trace_config config = {.fd = memfd_create("trace", MFD_CLOEXEC), .next = &behind};
    struct viommu_pv_ops ops = world_ops;
    struct viommu_subscription what;
    struct viommu_trace *trace;
    struct world *world;

    (void)state;
    ops.map = traced_map;
    ops.unmap = traced_unmap;
    ops.flush = traced_flush;
    ops.isolate = traced_isolate;
    assert_true(config.fd >= 0);
    assert_int_equal(viommu_trace_create(&config, &trace), 0);
    viommu_trace_subscription(trace, &what);
    assert_int_equal(viommu_pv_backend_create(&what, &traced), 0);
    world = world_create(&(struct viommu_pv_config){.ops = &ops}, 2);
    assert_int_equal(world_enable(world, 0), VIOMMU_PV_OK);
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
    world_end(world);
    expect(config.fd, "\"call\":\"unmap\"", 2); /* what was dropped is not unmapped again */
    viommu_pv_backend_destroy(traced);
    assert_int_equal(viommu_trace_destroy(trace), 0);
    assert_int_equal(close(config.fd), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_backend),
        cmocka_unit_test(test_later_answers),
        cmocka_unit_test(test_no_answer),
        cmocka_unit_test(test_trace),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
