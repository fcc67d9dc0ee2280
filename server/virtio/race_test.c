/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A driver and a device on one virtqueue, on two threads that sleep when they have nothing to do:
 * no notification and no interrupt is lost, whether they are asked for by flag or by event index.
 *
 * The driver offers some chains, wakes the device if that has asked for it, and takes back what
 * has come. The device carries out a few at a time, as iommu.c does, and wakes the driver if that
 * has asked for it. Who sleeps for SLEEP_MAX_MS while there is something to do was not told.
 */
#include "virtio/ring.h"

#include <linux/virtio_ring.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <viommu/memory.h>

#include "virtio/test_driver.h"

enum {
    RUN_MS = 600,
    SLEEP_MAX_MS = 10000,
    AT_A_TIME = 3,
    SPIN_MAX = 64,
    LOOKS_MAX = 4000,
};

static struct test_driver driver;
static struct viommu_memory *memory;
static struct virtio_ring ring;
static struct virtio_chain chain;
static int notification, interrupt;
static atomic_bool stop;

static uint16_t *word(uint64_t gpa)
{
    return test_at(&driver, gpa);
}

static uint16_t load(uint64_t gpa)
{
    return __atomic_load_n(word(gpa), __ATOMIC_ACQUIRE);
}

static void store(uint64_t gpa, uint16_t value)
{
    __atomic_store_n(word(gpa), value, __ATOMIC_RELEASE);
}

static const uint64_t used_event = TEST_AVAILABLE + 4 + 2 * TEST_SIZE;
static const uint64_t available_event = TEST_USED + 4 + 8 * TEST_SIZE;

static void tell(int fd)
{
    uint64_t one = 1;

    (void)!write(fd, &one, sizeof(one)); /* it fails only when it is full, and so was told */
}

/* Returns false when nobody told of anything. */
static bool sleep_on(int fd)
{
    struct pollfd told = {.fd = fd, .events = POLLIN};
    uint64_t count;

    return poll(&told, 1, SLEEP_MAX_MS) == 1 && read(fd, &count, sizeof(count)) == sizeof(count);
}

/* Now and then a little later, so that the two meet in each moment. */
static void dawdle(unsigned *seed)
{
    for (int i = rand_r(seed) % SPIN_MAX; i > 0; i--) {
        atomic_signal_fence(memory_order_seq_cst);
    }
}

/* ---- the device ---- */

/* Returns 1 when there may be more, 0 when not, or a negative errno: the queue is broken. */
static int carry_out_some(unsigned *seed)
{
    unsigned done = 0;
    int ret = 0;

    while (done < AT_A_TIME && (ret = virtio_ring_peek(&ring, &chain)) == 1) {
        virtio_ring_take(&ring);
        dawdle(seed);
        ret = virtio_ring_return(&ring, chain.head, 0);
        if (ret < 0) {
            return ret;
        }
        done++;
    }
    ret = ret < 0 || done == 0 ? ret : virtio_ring_wants_interrupt(&ring);
    if (ret > 0) {
        tell(interrupt);
    }
    return ret < 0 ? ret : done == AT_A_TIME;
}

/* Returns NULL, or what went wrong. No assertion is made on this thread. */
static void *device(void *opaque)
{
    static char lost[] = "a notification was lost", broken[] = "the queue is broken";
    unsigned seed = 1;

    (void)opaque;
    while (!atomic_load(&stop)) {
        int ret = 1;

        if (!sleep_on(notification)) {
            return lost;
        }
        while (ret > 0) {
            ret = carry_out_some(&seed);
            dawdle(&seed);
        }
        if (ret < 0) {
            return broken;
        }
    }
    return NULL;
}

/* ---- the driver ---- */

static void offer(uint16_t count)
{
    uint16_t before = driver.offered[0];

    for (uint16_t i = 0; i < count; i++, driver.offered[0]++) {
        store(TEST_AVAILABLE + 4 + 2 * (driver.offered[0] % TEST_SIZE),
              driver.offered[0] % TEST_SIZE);
    }
    store(TEST_AVAILABLE + 2, driver.offered[0]);
    atomic_thread_fence(memory_order_seq_cst);
    if (ring.event_index ? vring_need_event(load(available_event), driver.offered[0], before)
                         : !(load(TEST_USED) & VRING_USED_F_NO_NOTIFY)) {
        tell(notification);
    }
}

static uint16_t returned(void)
{
    uint16_t index = load(TEST_USED + 2), count = (uint16_t)(index - driver.seen[0]);

    driver.seen[0] = index;
    return count;
}

/* Takes back what has come, some at least. 0: nobody told of it. It sleeps only after a while, so
 * that what it offers next often comes while the device finds that there is nothing more. */
static uint16_t take_back(unsigned *seed)
{
    uint16_t count = returned();

    for (int i = rand_r(seed) % LOOKS_MAX; count == 0 && i > 0; i--) {
        count = returned();
    }
    while (count == 0) {
        store(used_event, driver.seen[0]);
        atomic_thread_fence(memory_order_seq_cst);
        count = returned();
        if (count == 0 && !sleep_on(interrupt)) {
            return 0;
        }
        count = count ? count : returned();
    }
    return count;
}

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static const char *drive(void)
{
    int64_t end = now_ms() + RUN_MS;
    unsigned seed = 2, under_way = 0;

    while (now_ms() < end || under_way > 0) {
        unsigned room = now_ms() < end ? TEST_SIZE - under_way : 0;
        uint16_t count = room ? (uint16_t)(1 + (unsigned)rand_r(&seed) % room) : 0;

        if (count > 0) {
            offer(count);
        }
        under_way += count;
        dawdle(&seed);
        count = take_back(&seed);
        if (count == 0 || count > under_way) {
            return count ? "more came back than was offered"
                         : "what was offered does not come back: somebody was not told";
        }
        under_way -= count;
    }
    return NULL;
}

static void run(bool event_index)
{
    const char *wrong;
    void *wrong_there;
    pthread_t thread;

    ring.event_index = event_index;
    assert_int_equal(pthread_create(&thread, NULL, device, NULL), 0);
    wrong = drive();
    atomic_store(&stop, true);
    tell(notification);
    assert_int_equal(pthread_join(thread, &wrong_there), 0);
    if (wrong || wrong_there) {
        fail_msg("%s", wrong_there ? (const char *)wrong_there : wrong);
    }
}

static void told_by_flags(void **state)
{
    (void)state;
    run(false);
}

static void told_by_event_indices(void **state)
{
    (void)state;
    run(true);
}

/* ---- both ---- */

static int setup(void **state)
{
    struct viommu_memory_slot slot = {
        .first = TEST_RAM, .last = TEST_RAM + TEST_RAM_SIZE - 1, .fd = -1};
    struct viommu_memory_batch *batch;

    (void)state;
    test_driver_open(&driver);
    slot.host = test_at(&driver, TEST_RAM);
    assert_int_equal(viommu_memory_create(&memory), 0);
    assert_int_equal(viommu_memory_batch_begin(memory, &batch), 0);
    assert_int_equal(viommu_memory_batch_add(batch, &slot), 0);
    assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), 0);
    ring = (struct virtio_ring){.memory = memory};
    virtio_ring_reset(&ring, TEST_SIZE);
    ring.descriptors = TEST_DESCRIPTORS;
    ring.available = TEST_AVAILABLE;
    ring.used = TEST_USED;
    ring.enabled = true;
    for (unsigned i = 0; i < TEST_SIZE; i++) {
        test_descriptor(&driver, TEST_DESCRIPTORS, i, TEST_DATA, 16, 0, 0);
    }
    notification = eventfd(0, EFD_CLOEXEC);
    interrupt = eventfd(0, EFD_CLOEXEC);
    atomic_store(&stop, false);
    return notification < 0 || interrupt < 0;
}

static int teardown(void **state)
{
    (void)state;
    close(notification);
    close(interrupt);
    viommu_memory_destroy(memory);
    test_driver_close(&driver);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(told_by_flags, setup, teardown),
        cmocka_unit_test_setup_teardown(told_by_event_indices, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
