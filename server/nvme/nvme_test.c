/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the controller as a driver uses it: life, reading and writing, threads.
 */
#include "test_guest.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct guest guest;
static const struct nvme_config by_hand = {.no_threads = true};

static int setup(void **state)
{
    (void)state;
    guest_open(&guest, &by_hand);
    guest_enable(&guest, 32);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    guest_close(&guest);
    return 0;
}

static void a_block_is_written_and_read(void **state)
{
    uint8_t *data = guest_at(&guest, GUEST_DATA);
    uint8_t file[4096];
    struct nvme_stats stats;

    (void)state;
    guest_create_queues(&guest, 1, 16);
    memset(data, 0x5a, 4096);
    assert_int_equal(guest_do(&guest, 1, guest_rw(true, 8, 8, GUEST_DATA), NULL), NVME_OK);
    assert_int_equal(pread(guest.fd, file, sizeof(file), 4096), sizeof(file));
    assert_memory_equal(file, data, sizeof(file));
    assert_int_equal(guest_do(&guest, 1, guest_rw(false, 100, 8, GUEST_DATA + 8192), NULL),
                     NVME_OK);
    assert_int_equal(pread(guest.fd, file, sizeof(file), 51200), sizeof(file));
    assert_memory_equal(file, data + 8192, sizeof(file));
    assert_int_equal(guest.pinned, 0);
    assert_int_equal(guest.messages[1], 2);
    nvme_stats_get(guest.nvme, &stats);
    assert_int_equal(stats.bytes_read, 4096);
    assert_int_equal(stats.bytes_written, 4096);
    assert_int_equal(stats.io_commands, 2);
    assert_int_equal(stats.pins, 2);
}

static void workers_do_the_same(void **state)
{
    static struct guest own;
    const struct nvme_config config = {.workers = 4};
    uint16_t cids[64];

    (void)state;
    guest_open(&own, &config);
    guest_enable(&own, 32);
    guest_create_queues(&own, 1, 128);
    for (unsigned i = 0; i < 64; i++) {
        cids[i] = guest_put(&own, 1, guest_rw(false, i * 8, 8, GUEST_DATA + i * 4096));
    }
    guest_ring(&own, 1);
    for (unsigned done = 0; done < 64;) {
        struct pollfd pollfd = {.fd = nvme_event_fd(own.nvme), .events = POLLIN};
        struct nvme_cqe cqe;

        assert_int_equal(poll(&pollfd, 1, 10000), 1);
        nvme_process(own.nvme);
        while (guest_poll(&own, 1, &cqe)) {
            assert_int_equal(cqe.status >> 1, NVME_OK);
            assert_in_range(cqe.cid, cids[0], cids[63]);
            done++;
        }
    }
    for (unsigned i = 0; i < 64; i++) {
        uint8_t file[4096];

        assert_int_equal(pread(own.fd, file, sizeof(file), i * 4096), sizeof(file));
        assert_memory_equal(file, guest_at(&own, GUEST_DATA + i * 4096), sizeof(file));
    }
    guest_close(&own);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_block_is_written_and_read, setup, teardown),
        cmocka_unit_test(workers_do_the_same),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
