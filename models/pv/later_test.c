/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Paravirtual operations from end to end: calls, the engine, the adapter, the trace backend, and
 * behind that an IOMMU that answers later, from a thread of its own. No page loses its last
 * reference while that reaches it, and the trace has all that was said.
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

enum {
    RW = VIOMMU_PV_READ | VIOMMU_PV_WRITE,
    DEVICE = 64, /* device frames that are used */
};

/* The IOMMU: one change at a time, which takes effect a little later than it was asked for. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool there; /* a change that has not been made */
    bool ends;
    struct viommu_change change;
    uint64_t reaches[DEVICE]; /* page + 1, or 0 */
    /* What goes wrong: */
    int answer;       /* to the next changes; what fails has no effect */
    bool silent;      /* the change is made, and nobody told, until the fence */
    int fence_answer; /* what fails does not fence */
    unsigned fences;
} iommu = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void make_change(void)
{
    uint64_t at = iommu.change.first >> 12;

    assert_true(at < DEVICE);
    if (iommu.answer == 0) {
        iommu.reaches[at] =
            iommu.change.kind == VIOMMU_CHANGE_MAP ? (iommu.change.gpa >> 12) + 1 : 0;
    }
}

static void *serve(void *opaque)
{
    const struct timespec pause = {.tv_nsec = 100000};

    pthread_mutex_lock(&iommu.lock);
    while (!iommu.ends) {
        uint64_t token;
        int answer;

        if (!iommu.there) {
            pthread_cond_wait(&iommu.changed, &iommu.lock);
            continue;
        }
        pthread_mutex_unlock(&iommu.lock);
        nanosleep(&pause, NULL);
        pthread_mutex_lock(&iommu.lock);
        if (!iommu.there) {
            continue; /* fenced */
        }
        make_change();
        iommu.there = false;
        token = iommu.change.token;
        answer = iommu.answer;
        if (!iommu.silent) {
            pthread_mutex_unlock(&iommu.lock);
            (void)viommu_pv_backend_complete(behind.backends[0], token, answer);
            pthread_mutex_lock(&iommu.lock);
        }
    }
    pthread_mutex_unlock(&iommu.lock);
    return opaque;
}

static int on_change(void *opaque, const struct viommu_change *change)
{
    (void)opaque;
    pthread_mutex_lock(&iommu.lock);
    assert_false(iommu.there);
    iommu.change = *change;
    iommu.there = true;
    pthread_cond_signal(&iommu.changed);
    pthread_mutex_unlock(&iommu.lock);
    return VIOMMU_PENDING;
}

static int on_fence(void *opaque)
{
    int answer;

    (void)opaque;
    pthread_mutex_lock(&iommu.lock);
    answer = iommu.fence_answer;
    iommu.fences++;
    if (!answer) {
        iommu.there = false;
        memset(iommu.reaches, 0, sizeof(iommu.reaches));
    }
    pthread_mutex_unlock(&iommu.lock);
    return answer;
}

static bool reaches(uint64_t page)
{
    bool yes = false;

    pthread_mutex_lock(&iommu.lock);
    for (unsigned i = 0; i < DEVICE; i++) {
        yes |= iommu.reaches[i] == page + 1;
    }
    pthread_mutex_unlock(&iommu.lock);
    return yes;
}

/* Who asked has stopped waiting; the IOMMU has not. */
static void until_it_is_made(void)
{
    bool there = true;

    while (there) {
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
        pthread_mutex_lock(&iommu.lock);
        there = iommu.there;
        pthread_mutex_unlock(&iommu.lock);
    }
}

/* ---- the hypervisor ---- */

static void put_page(void *opaque, unsigned order, uint64_t handle)
{
    struct world *world = opaque;

    if (world->pages[handle].refs == 1) {
        assert_false(reaches(handle));
    }
    world_put_page(opaque, order, handle);
}

/* ---- all of it ---- */

struct whole {
    pthread_t thread;
    struct viommu_trace *trace;
    struct world *world;
    int fd;
};

static void begin(struct whole *whole)
{
    const struct viommu_subscription after = {
        .kinds = VIOMMU_CHANGE_MAP | VIOMMU_CHANGE_UNMAP,
        .form = VIOMMU_FORM_RANGE,
        .role = VIOMMU_ROLE_MIRROR,
        .change = on_change,
        .fence = on_fence,
    };
    struct viommu_trace_config config = {.fd = memfd_create("trace", MFD_CLOEXEC), .next = &after};
    struct viommu_subscription what;

    iommu.there = iommu.ends = iommu.silent = false;
    iommu.answer = iommu.fence_answer = 0;
    iommu.fences = 0;
    memset(iommu.reaches, 0, sizeof(iommu.reaches));
    assert_true(config.fd >= 0);
    assert_int_equal(viommu_trace_create(&config, &whole->trace), 0);
    viommu_trace_subscription(whole->trace, &what);
    whole->fd = config.fd;
    whole->world = behind_create(&what, &(struct viommu_pv_config){.deferred_max = 8});
    behind.ops.put_page = put_page;
    assert_int_equal(pthread_create(&whole->thread, NULL, serve, NULL), 0);
}

static void end(struct whole *whole)
{
    behind_end(whole->world);
    for (unsigned i = 0; i < DEVICE; i++) {
        assert_int_equal(iommu.reaches[i], 0);
    }
    pthread_mutex_lock(&iommu.lock);
    iommu.ends = true;
    pthread_cond_broadcast(&iommu.changed);
    pthread_mutex_unlock(&iommu.lock);
    assert_int_equal(pthread_join(whole->thread, NULL), 0);
    assert_int_equal(viommu_trace_destroy(whole->trace), 0);
    assert_int_equal(close(whole->fd), 0);
}

/* How often a text comes in the trace. */
static unsigned traced(const struct whole *whole, const char *text)
{
    off_t size = lseek(whole->fd, 0, SEEK_END);
    char *lines = calloc(1, (size_t)size + 1);
    unsigned found = 0;

    assert_non_null(lines);
    assert_int_equal(pread(whole->fd, lines, (size_t)size, 0), size);
    for (const char *at = lines; (at = strstr(at, text)); at++) {
        found++;
    }
    free(lines);
    return found;
}

static struct world_range pages(uint64_t frame, uint64_t device_frame, uint64_t count)
{
    return (struct world_range){
        .of = 1, .frame = frame, .device_frame = device_frame, .count = count, .perm = RW};
}

static void test_answers_come_later(void **state)
{
    struct whole whole;
    uint64_t seed = 4711;
    unsigned done = 0;

    (void)state;
    begin(&whole);
    for (unsigned i = 0; i < 300; i++) {
        struct world_range range;
        struct viommu_pv_answer answer;

        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
        range = pages(seed >> 33 & 15, seed >> 40 & 31, 1 + (seed >> 50 & 3));
        range.flags = 0;
        if (seed >> 60 < 8) {
            (void)world_ranged(whole.world, 0, VIOMMU_PV_MAP, &range, &answer);
            done += (unsigned)answer.done;
        } else if (seed >> 60 < 14) {
            /* What is mapped there, whole. */
            struct viommu_pv_lookup_call in = {
                .head = WORLD_HEAD(VIOMMU_PV_LOOKUP, struct viommu_pv_lookup_call),
                .device_frame = range.device_frame};
            struct viommu_pv_lookup out = {.frame = 0};

            (void)world_call(whole.world, 0, &in, sizeof(in), &out, sizeof(out));
            range.frame = out.frame;
            range.flags = seed >> 59 & 1 ? VIOMMU_PV_DEFER : 0;
            (void)world_do_unmap(whole.world, 0, range);
        } else if (seed >> 60 == 14) {
            (void)viommu_pv_page_remove(whole.world->pv, 1, range.frame);
            (void)viommu_pv_page_revoke(whole.world->pv, 1, range.frame);
            (void)viommu_pv_page_settle(whole.world->pv, 1, range.frame);
        } else {
            (void)world_do_flush(whole.world, 0, 0);
        }
        world_check(whole.world);
    }
    assert_true(done > 30);
    assert_true(traced(&whole, "\"answer\":\"pending\"") > 100);
    assert_true(traced(&whole, "\"call\":\"unmap\"") > 30);
    assert_int_equal(traced(&whole, "\"call\":\"fence\""), 0);
    end(&whole);
}

/* A refusal that comes later: of a mapping, nothing was mapped; of an unmapping, it is isolated. */
static void test_refusals_come_later(void **state)
{
    struct whole whole;

    (void)state;
    begin(&whole);
    assert_int_equal(world_do_map(whole.world, 0, pages(1, 1, 1)), VIOMMU_PV_OK);
    iommu.answer = -ENOSPC;
    assert_int_equal(world_do_map(whole.world, 0, pages(2, 2, 1)), VIOMMU_PV_ENOSPC);
    assert_int_equal(whole.world->pages[WORLD_FRAMES + 2].refs, 0);
    world_check(whole.world);
    assert_int_equal(iommu.fences, 0);
    assert_int_equal(world_do_unmap(whole.world, 0, pages(1, 1, 1)), VIOMMU_PV_EIO);
    assert_int_equal(iommu.fences, 1);
    assert_int_equal(world_status(whole.world, 0).isolated, 1);
    assert_int_equal(whole.world->pages[WORLD_FRAMES + 1].refs, 1);
    assert_int_equal(world_do_flush(whole.world, 0, 0), VIOMMU_PV_OK);
    assert_int_equal(whole.world->pages[WORLD_FRAMES + 1].refs, 0);
    assert_int_equal(traced(&whole, "\"call\":\"fence\""), 1);
    end(&whole);
}

/* No answer to a mapping, which is made all the same; the fence that is to undo it fails at first.
 */
static void test_no_answer_comes(void **state)
{
    struct whole whole;
    const struct world_page *page;

    (void)state;
    begin(&whole);
    page = &whole.world->pages[WORLD_FRAMES + 1];
    viommu_pv_backend_set_timeout(behind.backends[0], 20);
    iommu.silent = true;
    iommu.fence_answer = -EIO;
    assert_int_equal(world_do_map(whole.world, 0, pages(1, 1, 1)), VIOMMU_PV_EIO);
    until_it_is_made();
    assert_true(reaches(WORLD_FRAMES + 1));
    assert_int_equal(page->refs, 1);
    assert_int_equal(page->types, 1);
    assert_int_equal(world_do_flush(whole.world, 0, 0), VIOMMU_PV_EIO);
    assert_int_equal(world_destroy_vm(whole.world, 0), -EIO);
    assert_int_equal(page->refs, 1);
    world_check(whole.world);
    iommu.fence_answer = 0;
    assert_int_equal(world_destroy_vm(whole.world, 0), 0); /* it is fenced at last */
    assert_false(reaches(WORLD_FRAMES + 1));
    assert_int_equal(page->refs, 0);
    end(&whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_come_later),
        cmocka_unit_test(test_refusals_come_later),
        cmocka_unit_test(test_no_answer_comes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
