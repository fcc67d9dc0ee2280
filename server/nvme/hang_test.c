/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of workers that hang: this program has a store of its own, whose jobs end when they are
 * let. What is shown: a guest's reset completes all the same, and so does the device's end.
 */
#include "test_guest.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static int gate[2]; /* a job takes a byte from it to end */
static atomic_uint flushes;
static atomic_uint begun; /* jobs of this test */

/* Instead of those in store.c. */
void nvme_store_run(struct nvme_store *store, struct nvme_job *job)
{
    char byte;

    (void)store;
    flushes += job->op == NVME_STORE_FLUSH;
    begun++;
    job->result = read(gate[0], &byte, 1) == 1 ? 0 : -EIO;
}

int nvme_store_size(const struct nvme_store *store, uint64_t *size)
{
    (void)store;
    *size = GUEST_FILE_SIZE;
    return 0;
}

static struct guest guest;
static uint64_t time_ms;

static uint64_t test_clock(void)
{
    return time_ms;
}

static int set_up(unsigned destroy_ms)
{
    const struct nvme_config config = {.workers = 2, .destroy_ms = destroy_ms};

    assert_int_equal(pipe(gate), 0);
    begun = 0;
    guest_open(&guest, &config);
    guest.nvme->now_ms = test_clock;
    guest_enable(&guest, 32);
    guest_create_queues(&guest, 1, 64);
    return 0;
}

static int setup(void **state)
{
    (void)state;
    return set_up(30000);
}

/* Its workers are not waited for. */
static int setup_hasty(void **state)
{
    (void)state;
    return set_up(50);
}

static void let_end(unsigned n)
{
    while (n-- > 0) {
        assert_int_equal(write(gate[1], "x", 1), 1);
    }
}

/* Until so many windows are left. */
static void wait_pinned(unsigned pinned)
{
    for (unsigned i = 0; guest.pinned != pinned && i < 1000; i++) {
        struct pollfd pollfd = {.fd = nvme_event_fd(guest.nvme), .events = POLLIN};

        poll(&pollfd, 1, 10);
        nvme_process(guest.nvme);
    }
    assert_int_equal(guest.pinned, pinned);
}

static void submit_reads(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        guest_put(&guest, 1, guest_rw(false, i, 1, GUEST_DATA + i * 4096));
    }
    guest_ring(&guest, 1);
}

/* Until the workers have begun so many, which is as many as they can. */
static void wait_begun(unsigned count)
{
    for (unsigned i = 0; begun < count && i < 10000; i++) {
        usleep(1000);
    }
    assert_int_equal(begun, count);
}

static void a_reset_waits_for_what_has_begun(void **state)
{
    struct nvme_stats stats;
    struct nvme_cqe cqe;

    (void)state;
    submit_reads(10);
    wait_begun(2);
    assert_int_equal(guest.pinned, 4);
    guest_write32(&guest, NVME_REG_CC, 0);
    /* What no worker had begun is given back at once. */
    assert_int_equal(guest.pinned, 2);
    assert_int_equal(guest_read32(&guest, NVME_REG_CSTS), NVME_CSTS_RDY);
    let_end(1);
    wait_pinned(1);
    assert_int_equal(guest_read32(&guest, NVME_REG_CSTS), NVME_CSTS_RDY);
    let_end(1);
    wait_pinned(0);
    assert_int_equal(guest_read32(&guest, NVME_REG_CSTS), 0);
    /* Nothing of before is told to the new queues. */
    guest_enable(&guest, 32);
    guest_create_queues(&guest, 1, 64);
    nvme_process(guest.nvme);
    assert_false(guest_poll(&guest, 1, &cqe));
    nvme_stats_get(guest.nvme, &stats);
    assert_int_equal(stats.dropped, 2);
    guest_close(&guest);
}

static void a_reset_does_not_wait_for_ever(void **state)
{
    struct nvme_cqe cqe;

    (void)state;
    submit_reads(10);
    wait_begun(2);
    guest_write32(&guest, NVME_REG_CC, 0);
    time_ms += 1999;
    assert_int_equal(guest_read32(&guest, NVME_REG_CSTS), NVME_CSTS_RDY);
    time_ms += 1;
    assert_int_equal(guest_read32(&guest, NVME_REG_CSTS), 0);
    assert_int_equal(guest.pinned, 2);
    /* The guest goes on; commands that need no worker end. */
    guest_enable(&guest, 32);
    guest_create_queues(&guest, 1, 64);
    assert_int_equal(guest_do(&guest, 1, guest_rw(false, UINT64_MAX, 1, GUEST_DATA), NULL),
                     NVME_LBA_OUT_OF_RANGE | NVME_DNR);
    submit_reads(1);
    let_end(3);
    wait_pinned(0);
    assert_true(guest_poll(&guest, 1, &cqe));
    assert_int_equal(cqe.cid, 0x1001);
    assert_false(guest_poll(&guest, 1, &cqe));
    guest_close(&guest);
}

/* The guest enables again without having seen the end of the reset. */
static void a_guest_that_does_not_wait_is_served(void **state)
{
    (void)state;
    submit_reads(2);
    wait_begun(2);
    guest_write32(&guest, NVME_REG_CC, 0);
    guest_enable(&guest, 32);
    assert_int_equal(guest.pinned, 2);
    let_end(2);
    wait_pinned(0);
    assert_int_equal(guest_read32(&guest, NVME_REG_CSTS), NVME_CSTS_RDY);
    guest_close(&guest);
}

static void a_queue_is_deleted_when_its_commands_have_ended(void **state)
{
    const struct nvme_sqe delete = {.opcode = NVME_ADMIN_DELETE_SQ, .dw10 = 1};
    struct nvme_cqe cqe;
    unsigned aborted = 0, ended = 0;
    uint16_t cid;

    (void)state;
    submit_reads(10);
    wait_begun(2);
    cid = guest_submit(&guest, 0, delete);
    assert_int_equal(guest.pinned, 2);
    while (guest_poll(&guest, 1, &cqe)) {
        assert_int_equal(cqe.status >> 1, NVME_ABORTED_SQ_DELETION | NVME_STATUS_MORE);
        aborted++;
    }
    assert_int_equal(aborted, 8);
    assert_false(guest_poll(&guest, 0, &cqe));
    /* Nothing more is fetched from it, and it cannot be deleted twice. */
    submit_reads(1);
    assert_int_equal(guest_do(&guest, 0, delete, NULL), NVME_INVALID_QUEUE_ID | NVME_DNR);
    let_end(2);
    wait_pinned(0);
    while (guest_poll(&guest, 1, &cqe)) {
        assert_int_equal(cqe.status >> 1, NVME_OK);
        ended++;
    }
    assert_int_equal(ended, 2);
    assert_true(guest_poll(&guest, 0, &cqe));
    assert_int_equal(cqe.cid, cid);
    assert_int_equal(cqe.status >> 1, NVME_OK);
    guest_close(&guest);
}

static void what_has_begun_is_not_aborted(void **state)
{
    const struct nvme_sqe abort = {.opcode = NVME_ADMIN_ABORT, .dw10 = 0x1000 << 16 | 1};
    uint32_t result;

    (void)state;
    submit_reads(1);
    wait_begun(1);
    assert_int_equal(guest_do(&guest, 0, abort, &result), NVME_OK);
    assert_int_equal(result, 1);
    /* Nor is its memory given back: it is when the worker is done. */
    guest_revoke(&guest, GUEST_DATA, 4096);
    assert_int_equal(guest.pinned, 1);
    let_end(1);
    wait_pinned(0);
    guest_close(&guest);
}

static void a_shutdown_waits_for_its_flush(void **state)
{
    (void)state;
    guest_write32(&guest, NVME_REG_CC, 4u << 20 | 6u << 16 | 1u << 14 | NVME_CC_EN);
    assert_int_equal(guest_read32(&guest, NVME_REG_CSTS),
                     NVME_CSTS_RDY | NVME_CSTS_SHST_OCCURRING);
    let_end(1);
    for (unsigned i = 0; i < 10000; i++) {
        usleep(1000);
        nvme_process(guest.nvme);
        if (guest_read32(&guest, NVME_REG_CSTS) == (NVME_CSTS_RDY | NVME_CSTS_SHST_COMPLETE)) {
            break;
        }
    }
    assert_int_equal(guest_read32(&guest, NVME_REG_CSTS), NVME_CSTS_RDY | NVME_CSTS_SHST_COMPLETE);
    guest_close(&guest);
}

static void settle_shutdown(void)
{
    for (unsigned i = 0; i < 20000; i++) {
        struct pollfd pollfd = {.fd = nvme_event_fd(guest.nvme), .events = POLLIN};

        poll(&pollfd, 1, 1);
        nvme_process(guest.nvme);
        if (guest_read32(&guest, NVME_REG_CSTS) == (NVME_CSTS_RDY | NVME_CSTS_SHST_COMPLETE)) {
            return;
        }
    }
    fail();
}

/* However much is in flight, and however often the guest asks. */
static void a_shutdown_always_has_its_flush(void **state)
{
    const uint32_t cc = 4u << 20 | 6u << 16 | NVME_CC_EN;

    (void)state;
    flushes = 0;
    guest_create_queues(&guest, 2, 128);
    submit_reads(63);
    for (unsigned i = 0; i < 127; i++) {
        guest_put(&guest, 2, guest_rw(false, i, 1, GUEST_DATA + i * 4096));
    }
    guest_ring(&guest, 2);
    for (unsigned i = 0; i < 10; i++) {
        nvme_process(guest.nvme);
    }
    for (unsigned i = 0; i < 200; i++) {
        guest_write32(&guest, NVME_REG_CC, cc | 1u << 14);
        assert_int_equal(guest_read32(&guest, NVME_REG_CSTS),
                         NVME_CSTS_RDY | NVME_CSTS_SHST_OCCURRING);
        guest_write32(&guest, NVME_REG_CC, cc);
    }
    let_end(200);
    settle_shutdown();
    assert_int_equal(flushes, 1);
    guest_close(&guest);
}

/* What no worker has begun does not begin once the function is no bus master. */
static void without_the_bus_nothing_begins(void **state)
{
    (void)state;
    submit_reads(10);
    wait_begun(2);
    assert_int_equal(guest.pinned, 4);
    guest_set_config(&guest, PCI_COMMAND, PCI_COMMAND_MEMORY);
    assert_int_equal(guest.pinned, 2);
    let_end(2);
    wait_pinned(0);
    guest_close(&guest);
}

/* The last: it leaves threads behind, which end with the gate. */
static void the_end_does_not_wait_for_ever(void **state)
{
    (void)state;
    submit_reads(3);
    wait_begun(2);
    assert_int_equal(nvme_destroy(guest.nvme), -ETIMEDOUT);
    /* What they use is still pinned, and only that. */
    assert_int_equal(guest.pinned, 2);
    close(gate[1]);
    usleep(50000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_reset_waits_for_what_has_begun, setup),
        cmocka_unit_test_setup(a_reset_does_not_wait_for_ever, setup),
        cmocka_unit_test_setup(a_guest_that_does_not_wait_is_served, setup),
        cmocka_unit_test_setup(a_queue_is_deleted_when_its_commands_have_ended, setup),
        cmocka_unit_test_setup(what_has_begun_is_not_aborted, setup),
        cmocka_unit_test_setup(a_shutdown_waits_for_its_flush, setup),
        cmocka_unit_test_setup(a_shutdown_always_has_its_flush, setup),
        cmocka_unit_test_setup(without_the_bus_nothing_begins, setup),
        cmocka_unit_test_setup(the_end_does_not_wait_for_ever, setup_hasty),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
