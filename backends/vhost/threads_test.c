/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Threads that meet at a vhost object: a guest that remaps and invalidates, on the thread that
 * processes the IOMMU; the object's own, with the far side; and one that changes memory. What the
 * guest has invalidated the far side does not hold.
 */
#include "vhost/test_far.h"

#include "support/random.h"

#include <pthread.h>
#include <stdatomic.h>

#define PAGES         16
#define IOVA          0x200000ull
#define POOL          512 /* guest pages from here on */
#define ROUNDS        400
#define MEMORY_ROUNDS 20
#define EXTRA         (1ull << 30)

struct meeting {
    struct bed bed;
    pthread_mutex_t far_lock; /* of the far side */
    _Atomic bool stop;
    _Atomic uint64_t asked;
};

/* The object and the far side. */
static void *serve(void *arg)
{
    struct meeting *meeting = arg;
    struct bed *bed = &meeting->bed;
    struct random random = {7};

    while (!atomic_load(&meeting->stop)) {
        pthread_mutex_lock(&meeting->far_lock);
        for (unsigned i = 0; i < 4 && far_step(&bed->far); i++) {
            /* some of what it was told */
        }
        far_miss(&bed->far, IOVA + random_below(&random, PAGES * 4096), 1);
        pthread_mutex_unlock(&meeting->far_lock);
        atomic_fetch_add(&meeting->asked, 1);
        if (viommu_vhost_process(bed->vhost)) {
            fail_msg("it failed");
        }
    }
    return NULL;
}

static void *change_memory(void *arg)
{
    struct meeting *meeting = arg;
    struct viommu_memory *memory = meeting->bed.guest.memory;
    struct viommu_memory_slot extra = bed_slot(&meeting->bed, 0, 3, 0);

    extra.first += EXTRA;
    extra.last += EXTRA;
    for (unsigned i = 0; i < MEMORY_ROUNDS; i++) {
        struct viommu_memory_batch *batch;

        assert_int_equal(viommu_memory_batch_begin(memory, &batch), 0);
        if (i & 1) {
            assert_int_equal(viommu_memory_batch_remove(batch, extra.first, extra.last), 0);
        } else {
            assert_int_equal(viommu_memory_batch_add(batch, &extra), 0);
        }
        assert_true(viommu_memory_batch_commit(batch, NULL, NULL) >= 0);
        while (viommu_memory_process(memory) == VIOMMU_PENDING) {
            struct pollfd poller = {.fd = viommu_memory_event_fd(memory), .events = POLLIN};

            (void)poll(&poller, 1, 10);
        }
    }
    return NULL;
}

/* Nothing but `gpa` is held for a page. */
static void check_page(struct meeting *meeting, unsigned page, uint64_t gpa)
{
    struct far *far = &meeting->bed.far;
    uint64_t at = IOVA + page * 0x1000ull;
    uint64_t left;

    pthread_mutex_lock(&meeting->far_lock);
    for (unsigned i = 0; i < far->entry_count; i++) {
        const struct far_entry *e = &far->entries[i];

        if (at >= e->iova && at - e->iova < e->size) {
            assert_true(gpa && far_offset(far, e->uaddr + (at - e->iova), &left) == gpa);
        }
    }
    pthread_mutex_unlock(&meeting->far_lock);
}

static void remap(struct meeting *meeting)
{
    struct guest *guest = &meeting->bed.guest;
    struct random random = {3};

    for (unsigned i = 0; i < ROUNDS; i++) {
        unsigned page = random_below(&random, PAGES);
        uint64_t gpa = random_below(&random, 3) ? (POOL + random_below(&random, 64)) * 4096ull : 0;

        if (gpa) {
            bed_map(&meeting->bed, IOVA + page * 0x1000ull, gpa, 1);
        } else {
            bed_unmap(&meeting->bed, IOVA + page * 0x1000ull);
        }
        guest_queue_put(
            guest, spec_iotlb_invalidate(SPEC_SELECTIVE, 1, IOVA + page * 0x1000ull, 0, false));
        guest_queue_wait(guest);
        check_page(meeting, page, gpa);
    }
}

static void test_threads_meet(void **state)
{
    static struct meeting meeting;
    struct bed *bed = &meeting.bed;
    pthread_t server;
    pthread_t memory;

    (void)state;
    bed_start(bed);
    assert_int_equal(pthread_mutex_init(&meeting.far_lock, NULL), 0);
    assert_int_equal(pthread_create(&server, NULL, serve, &meeting), 0);
    assert_int_equal(pthread_create(&memory, NULL, change_memory, &meeting), 0);
    remap(&meeting);
    pthread_join(memory, NULL);
    atomic_store(&meeting.stop, true);
    pthread_join(server, NULL);
    assert_true(bed_statistics(bed).updates > 0);
    assert_true(bed_statistics(bed).acknowledged > 0);
    assert_int_equal(bed->failed, 0);
    bed_run(bed);
    bed_fini(bed);
    pthread_mutex_destroy(&meeting.far_lock);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads_meet),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
