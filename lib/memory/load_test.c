/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Threads that read, commit, listen and process at once; ThreadSanitizer and AddressSanitizer
 * watch.
 *
 * Each writer owns a place in guest memory, of two slots that touch; every batch replaces both with
 * fresh host pages that hold one value. Readers read across the border and must find one value, or
 * nothing where the writer took both away. When a batch is complete its old pages are poisoned and
 * freed.
 *
 * Assertions are made on the main thread only; others count what they find wrong.
 */
#include "memory/test_memory.h"

#include "base/wake.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#define WRITERS 2
#define BATCHES 1500
#define WORDS 8
#define POISON UINT64_C(0xdeaddeaddeaddead)

struct load {
    struct viommu_memory *memory;
    struct viommu_memory_listener *listener;
    _Atomic bool stop;
    _Atomic unsigned wrong;
    _Atomic unsigned reads;
    _Atomic unsigned outstanding; /* pages that are not freed yet */
    _Atomic uint64_t token;       /* to be answered by the helper; 0: none */
};

struct writer {
    struct load *load;
    uint64_t gpa;
    struct host_pages *pages; /* in guest memory now */
};

/* Host memory of a place, one page for each slot; apart, so that no copy can run on by chance. */
struct host_pages {
    struct load *load;
    uint64_t *halves[2];
};

static struct host_pages *pages_new(struct load *load, uint64_t value)
{
    struct host_pages *pages = calloc(1, sizeof(*pages));

    for (unsigned half = 0; half < 2; half++) {
        pages->halves[half] = aligned_alloc(PAGE, PAGE);
        for (size_t i = 0; i < PAGE / sizeof(uint64_t); i++) {
            pages->halves[half][i] = value;
        }
    }
    pages->load = load;
    atomic_fetch_add(&load->outstanding, 1);
    return pages;
}

static void pages_free(void *opaque)
{
    struct host_pages *pages = opaque;

    for (unsigned half = 0; half < 2; half++) {
        for (size_t i = 0; i < PAGE / sizeof(uint64_t); i++) {
            pages->halves[half][i] = POISON;
        }
        free(pages->halves[half]);
    }
    atomic_fetch_sub(&pages->load->outstanding, 1);
    free(pages);
}

/* Old pages out, new ones in, in one batch; either may be NULL. */
static bool exchange_pages(struct writer *writer, struct host_pages *fresh)
{
    struct host_pages *old = writer->pages;
    struct viommu_memory_batch *batch;
    int result = viommu_memory_batch_begin(writer->load->memory, &batch);

    if (!result && old) {
        result = viommu_memory_batch_remove(batch, writer->gpa, writer->gpa + 2 * PAGE - 1);
    }
    for (unsigned half = 0; half < 2 && fresh && !result; half++) {
        struct viommu_memory_slot slot = test_slot(writer->gpa + half * PAGE, 1, 0);

        slot.host = fresh->halves[half];
        result = viommu_memory_batch_add(batch, &slot);
    }
    if (!result) {
        result = viommu_memory_batch_commit(batch, old ? pages_free : NULL, old);
    }
    if (!result && old) {
        pages_free(old);
    }
    writer->pages = fresh;
    return result == 0 || result == VIOMMU_PENDING;
}

static void *write_batches(void *arg)
{
    struct writer *writer = arg;

    for (uint64_t i = 1; i <= BATCHES; i++) {
        struct host_pages *fresh = i % 5 ? pages_new(writer->load, i) : NULL;

        atomic_fetch_add(&writer->load->wrong, !exchange_pages(writer, fresh));
        if (i % 8 == 0) {
            sched_yield();
        }
    }
    if (writer->pages) {
        atomic_fetch_add(&writer->load->wrong, !exchange_pages(writer, NULL));
    }
    return NULL;
}

static bool read_place(struct load *load, uint64_t gpa)
{
    uint64_t words[WORDS];
    int error = viommu_memory_read(load->memory, gpa + PAGE - sizeof(words) / 2, words,
                                   sizeof(words));

    if (error) {
        return error == -ENXIO;
    }
    for (unsigned i = 0; i < WORDS; i++) {
        if (words[i] == POISON || words[i] != words[0]) {
            return false;
        }
    }
    return true;
}

/* As the walker does: several loads in one section, of one snapshot. */
static bool load_place(struct load *load, uint64_t gpa)
{
    const struct memory_snapshot *snapshot;
    uint64_t a = 0;
    uint64_t b = 0;
    bool well;

    if (!epoch_enter(memory_epoch(load->memory))) {
        return false;
    }
    snapshot = memory_snapshot(load->memory);
    well = memory_load64(snapshot, gpa, &a) == memory_load64(snapshot, gpa + PAGE, &b);
    epoch_leave(memory_epoch(load->memory));
    return well && a == b && a != POISON;
}

static void *read_all(void *arg)
{
    struct load *load = arg;

    while (!atomic_load(&load->stop)) {
        for (uint64_t i = 0; i < WRITERS; i++) {
            atomic_fetch_add(&load->wrong, !read_place(load, i * 4 * PAGE));
            atomic_fetch_add(&load->wrong, !load_place(load, i * 4 * PAGE));
        }
        atomic_fetch_add(&load->reads, 1);
        sched_yield();
    }
    return NULL;
}

/* Every third answer is left to the helper. */
static int answer_some(void *opaque, const struct viommu_memory_change *change)
{
    struct load *load = opaque;

    if (change->token % 3) {
        return 0;
    }
    if (atomic_exchange(&load->token, change->token)) {
        atomic_fetch_add(&load->wrong, 1); /* told of the next before the last was answered */
    }
    return VIOMMU_PENDING;
}

static void *answer_for_listener(void *arg)
{
    struct load *load = arg;

    while (!atomic_load(&load->stop)) {
        uint64_t token = atomic_exchange(&load->token, 0);

        if (token) {
            atomic_fetch_add(&load->wrong,
                             viommu_memory_listener_complete(load->listener, token) != 0);
        }
        sched_yield();
    }
    return NULL;
}

/* Listeners that come and go meanwhile. */
static void *listen_now_and_then(void *arg)
{
    static const struct viommu_memory_listener_ops nothing;
    struct load *load = arg;

    while (!atomic_load(&load->stop)) {
        struct viommu_memory_listener *listener;

        if (viommu_memory_listener_add(load->memory, &nothing, NULL, &listener)) {
            atomic_fetch_add(&load->wrong, 1);
            break;
        }
        sched_yield();
        atomic_fetch_add(&load->wrong, viommu_memory_listener_remove(listener) != 0);
        usleep(100);
    }
    return NULL;
}

/* The event loop: sleeps until it is told. A wake-up that is lost shows as a time-out. */
static void *process_when_told(void *arg)
{
    struct load *load = arg;

    while (!atomic_load(&load->stop)) {
        struct pollfd pollfd = {.fd = viommu_memory_event_fd(load->memory), .events = POLLIN};

        if (poll(&pollfd, 1, 50) == 1) {
            (void)viommu_memory_process(load->memory);
        }
    }
    return NULL;
}

/* Whether all pages come free; that it takes long does not matter, as long as it goes on. */
static bool all_freed(struct load *load)
{
    unsigned left = atomic_load(&load->outstanding);
    uint64_t deadline = wake_now() + UINT64_C(60000000000);

    while (left && wake_now() < deadline) {
        unsigned now;

        usleep(1000);
        now = atomic_load(&load->outstanding);
        if (now != left) {
            deadline = wake_now() + UINT64_C(60000000000);
        }
        left = now;
    }
    return !left;
}

static void test_threads(void **state)
{
    static const struct viommu_memory_listener_ops ops = {.changing = answer_some};
    void *(*const helpers[])(void *) = {
        read_all, read_all, answer_for_listener, listen_now_and_then, process_when_told,
        process_when_told,
    };
    enum { HELPERS = sizeof(helpers) / sizeof(helpers[0]) };
    static struct load load;
    struct writer writers[WRITERS];
    pthread_t writer_threads[WRITERS];
    pthread_t helper_threads[HELPERS];

    load.memory = *state;
    assert_int_equal(viommu_memory_listener_add(*state, &ops, &load, &load.listener), 0);
    for (unsigned i = 0; i < HELPERS; i++) {
        assert_int_equal(pthread_create(&helper_threads[i], NULL, helpers[i], &load), 0);
    }
    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){.load = &load, .gpa = i * 4 * PAGE};
        assert_int_equal(pthread_create(&writer_threads[i], NULL, write_batches, &writers[i]), 0);
    }
    for (unsigned i = 0; i < WRITERS; i++) {
        pthread_join(writer_threads[i], NULL);
    }
    assert_true(all_freed(&load));
    atomic_store(&load.stop, true);
    for (unsigned i = 0; i < HELPERS; i++) {
        pthread_join(helper_threads[i], NULL);
    }
    assert_int_equal(atomic_load(&load.wrong), 0);
    assert_true(atomic_load(&load.reads) > 0);
    assert_true(test_finish(*state));
}

static int setup(void **state)
{
    return viommu_memory_create((struct viommu_memory **)state);
}

static int teardown(void **state)
{
    viommu_memory_destroy(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
