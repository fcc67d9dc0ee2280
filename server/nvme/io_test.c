/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of I/O commands: data of every shape against a copy of the file, each status, memory that
 * is refused or wanted back, and queues that are full or hostile.
 */
#include "test_guest.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define REFUSED(status) ((status) | NVME_DNR)

static struct guest guest;
static char directory[] = "/tmp/viommu-nvme-XXXXXX";
static char fail_path[64];

static void open_with(const struct nvme_config *config)
{
    struct nvme_config own = *config;

    own.no_threads = true;
    own.fail_path = fail_path;
    guest_open(&guest, &own);
    guest_enable(&guest, 32);
    guest_create_queues(&guest, 1, 32);
}

static int setup(void **state)
{
    (void)state;
    open_with(&(struct nvme_config){0});
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(fail_path);
    guest_close(&guest);
    return 0;
}

static uint16_t run(struct nvme_sqe sqe)
{
    return guest_do(&guest, 1, sqe, NULL);
}

static struct nvme_sqe rw(bool write, uint64_t lba, uint32_t blocks)
{
    return guest_rw(write, lba, blocks, GUEST_DATA);
}

static struct nvme_sqe changed(struct nvme_sqe sqe, uint32_t nsid, uint8_t flags)
{
    sqe.nsid = nsid;
    sqe.flags = flags;
    return sqe;
}

static void commands_that_are_refused(void **state)
{
    static const uint8_t supported[] = {0, 1, 2, 8, 9};
    uint64_t blocks = GUEST_FILE_SIZE / 512;
    struct nvme_sqe sqe = rw(false, 0, 1);

    (void)state;
    for (unsigned opcode = 0; opcode < 256; opcode++) {
        if (!memchr(supported, (int)opcode, sizeof(supported))) {
            sqe.opcode = (uint8_t)opcode;
            assert_int_equal(run(sqe), REFUSED(NVME_INVALID_OPCODE));
        }
    }
    assert_int_equal(run(changed(rw(false, 0, 1), 0, 0)), REFUSED(NVME_INVALID_NAMESPACE));
    assert_int_equal(run(changed(rw(false, 0, 1), 2, 0)), REFUSED(NVME_INVALID_NAMESPACE));
    assert_int_equal(run(changed(rw(true, 0, 1), NVME_NSID_ALL, 0)),
                     REFUSED(NVME_INVALID_NAMESPACE));
    assert_int_equal(run(changed(rw(false, 0, 1), 1, 0x80)), REFUSED(NVME_INVALID_FIELD));
    assert_int_equal(run(changed(rw(false, 0, 1), 1, 2)), REFUSED(NVME_INVALID_FIELD));
    assert_int_equal(run(rw(false, blocks - 1, 1)), NVME_OK);
    assert_int_equal(run(rw(false, blocks - 1, 2)), REFUSED(NVME_LBA_OUT_OF_RANGE));
    assert_int_equal(run(rw(true, blocks, 1)), REFUSED(NVME_LBA_OUT_OF_RANGE));
    assert_int_equal(run(rw(false, UINT64_MAX, 1)), REFUSED(NVME_LBA_OUT_OF_RANGE));
    assert_int_equal(run(rw(false, UINT64_MAX, 2)), REFUSED(NVME_LBA_OUT_OF_RANGE));
    assert_int_equal(run(rw(true, UINT64_C(1) << 55, 1)), REFUSED(NVME_LBA_OUT_OF_RANGE));
    assert_int_equal(run(rw(false, 0, 2049)), REFUSED(NVME_INVALID_FIELD));
    assert_int_equal(run(rw(true, 0, 65536)), REFUSED(NVME_INVALID_FIELD));
    sqe = rw(true, 0, 1);
    sqe.dw12 |= NVME_RW_PRINFO;
    assert_int_equal(run(sqe), REFUSED(NVME_INVALID_FIELD));
    sqe = rw(true, 0, 1);
    sqe.prp1 += 2;
    assert_int_equal(run(sqe), REFUSED(NVME_PRP_OFFSET_INVALID));
    assert_int_equal(guest.pinned, 0);
}

static void memory_that_is_refused(void **state)
{
    uint64_t list = GUEST_DATA + 0x100000;

    (void)state;
    guest_set_rights(&guest, GUEST_DATA, 4096, GUEST_READABLE);
    assert_int_equal(run(rw(false, 0, 8)), NVME_DATA_TRANSFER_ERROR);
    assert_int_equal(run(rw(true, 0, 8)), NVME_OK);
    guest_set_rights(&guest, GUEST_DATA, 4096, GUEST_WRITABLE);
    assert_int_equal(run(rw(true, 0, 8)), NVME_DATA_TRANSFER_ERROR);
    assert_int_equal(run(rw(false, 0, 8)), NVME_OK);
    /* One page of several, then the list itself. */
    assert_int_equal(run(rw(true, 0, 16)), NVME_DATA_TRANSFER_ERROR);
    guest_set_rights(&guest, list, 4096, GUEST_WRITABLE);
    {
        struct nvme_sqe sqe = rw(false, 0, 32);

        sqe.prp2 = guest_iova(list);
        assert_int_equal(run(sqe), NVME_DATA_TRANSFER_ERROR);
        sqe.prp2 = 0;
        assert_int_equal(run(sqe), NVME_DATA_TRANSFER_ERROR);
    }
    guest.pin_error = -EBUSY;
    assert_int_equal(run(rw(false, 0, 8)), NVME_DATA_TRANSFER_ERROR);
    assert_int_equal(guest.pinned, 0);
}

/* What was read is the guest's when it is told so, and only what was read well. */
static void data_is_committed(void **state)
{
    struct nvme_sqe flush = {.opcode = NVME_IO_FLUSH, .nsid = 1};

    (void)state;
    assert_int_equal(run(rw(false, 0, 8)), NVME_OK);
    assert_int_equal(guest.commits, 1);
    assert_int_equal(run(rw(true, 0, 8)), NVME_OK);
    assert_int_equal(run(flush), NVME_OK);
    close(open(fail_path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    assert_int_equal(run(rw(false, 0, 8)), NVME_UNRECOVERED_READ_ERROR);
    unlink(fail_path);
    assert_int_equal(guest.commits, 1);
    guest.commit_error = -EFAULT;
    assert_int_equal(run(rw(false, 0, 8)), NVME_DATA_TRANSFER_ERROR);
    assert_int_equal(guest.commits, 2);
    /* A reset came before the end was seen. */
    guest_submit(&guest, 1, rw(false, 0, 8));
    assert_true(nvme_run_job(guest.nvme));
    guest_write32(&guest, NVME_REG_CC, 0);
    guest_settle(&guest);
    assert_int_equal(guest.commits, 2);
}

static void a_file_that_fails(void **state)
{
    const struct nvme_sqe flush = {.opcode = NVME_IO_FLUSH, .nsid = NVME_NSID_ALL};

    (void)state;
    close(open(fail_path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    assert_int_equal(run(rw(false, 0, 8)), NVME_UNRECOVERED_READ_ERROR);
    assert_int_equal(run(rw(true, 0, 8)), NVME_WRITE_FAULT);
    assert_int_equal(run(flush), NVME_WRITE_FAULT);
    unlink(fail_path);
    assert_int_equal(run(rw(false, 0, 8)), NVME_OK);
    assert_int_equal(run(flush), NVME_OK);
    assert_int_equal(run(changed(flush, 1, 0)), NVME_OK);
    assert_int_equal(run(changed(flush, 0, 0)), REFUSED(NVME_INVALID_NAMESPACE));
}

static void a_file_that_is_full(void **state)
{
    int full = open("/dev/full", O_RDWR | O_CLOEXEC);

    (void)state;
    assert_true(full >= 0);
    dup2(full, guest.nvme->store.fd);
    close(full);
    assert_int_equal(run(rw(true, 0, 8)), NVME_CAPACITY_EXCEEDED);
    full = open("/dev/null", O_RDONLY | O_CLOEXEC);
    dup2(full, guest.nvme->store.fd);
    close(full);
    assert_int_equal(run(rw(true, 0, 8)), NVME_INTERNAL_ERROR);
}

/* ---- data ---------------------------------------------------------------------------------- */

static uint8_t shadow[GUEST_FILE_SIZE];

/* Point a command at `size` bytes, at an offset into a page; pages are scattered over RAM, and the
 * list over two pages where there is room. Gives the place of each byte in RAM. */
static void scatter(struct nvme_sqe *sqe, size_t size, uint32_t *places)
{
    static uint16_t pages[GUEST_RAM_PAGES];
    uint64_t offset = (uint64_t)random() % 1024 * 4, list = GUEST_DATA;
    size_t first_page = GUEST_DATA / 4096 + 2, n = (offset + size + 4095) / 4096;
    uint64_t at = list + (uint64_t)random() % 512 * 8;

    for (unsigned i = 0; i < GUEST_RAM_PAGES; i++) {
        pages[i] = (uint16_t)i;
    }
    for (size_t i = 0; i < n; i++) {
        size_t other = first_page + i + (size_t)random() % (GUEST_RAM_PAGES - first_page - i);
        uint16_t page = pages[other];

        pages[other] = pages[first_page + i];
        pages[first_page + i] = page;
    }
    for (size_t i = 0; i < size; i++) {
        places[i] = pages[first_page + (offset + i) / 4096] * 4096u + (offset + i) % 4096;
    }
    sqe->prp1 = guest_iova(pages[first_page] * UINT64_C(4096) + offset);
    sqe->prp2 = n == 2 ? guest_iova(pages[first_page + 1] * UINT64_C(4096)) : guest_iova(at);
    for (size_t i = 1; n > 2 && i < n; i++) {
        uint64_t entry = guest_iova(pages[first_page + i] * UINT64_C(4096));

        if (at % 4096 == 4088 && i + 1 < n) {
            uint64_t next = guest_iova(list + 4096);

            memcpy(guest_at(&guest, at), &next, 8);
            at = list + 4096;
        }
        memcpy(guest_at(&guest, at), &entry, 8);
        at += 8;
    }
}

/* Reads and writes of any length at any place of memory, against plain copies. */
static void data_is_where_it_belongs(void **state)
{
    static uint32_t places[NVME_TRANSFER_MAX];

    (void)state;
    srandom(7);
    assert_int_equal(pread(guest.fd, shadow, sizeof(shadow), 0), sizeof(shadow));
    for (unsigned round = 0; round < 150; round++) {
        uint32_t blocks = 1 + (uint32_t)random() % (random() % 2 ? 30 : 2048);
        uint64_t lba = (uint64_t)random() % (GUEST_FILE_SIZE / 512 - blocks + 1);
        size_t size = blocks * 512u;
        bool write = random() % 2;
        struct nvme_sqe sqe = rw(write, lba, blocks);

        guest.iov_max = round % 2;
        scatter(&sqe, size, places);
        for (size_t i = 0; i < size; i += 1 + (size_t)random() % 64) {
            guest.ram[places[i]] = (uint8_t)random();
        }
        for (size_t i = 0; write && i < size; i++) {
            shadow[lba * 512 + i] = guest.ram[places[i]];
        }
        assert_int_equal(run(sqe), NVME_OK);
        for (size_t i = 0; !write && i < size; i++) {
            assert_int_equal(guest.ram[places[i]], shadow[lba * 512 + i]);
        }
    }
    {
        static uint8_t file[GUEST_FILE_SIZE];

        assert_int_equal(pread(guest.fd, file, sizeof(file), 0), sizeof(file));
        assert_memory_equal(file, shadow, sizeof(file));
    }
    assert_int_equal(guest.pinned, 0);
}

/* Memory in more pieces than there is room for: the command is refused, nothing else happens. */
static void blocks_of_4096_bytes(void **state)
{
    struct nvme_sqe sqe = {0};
    uint8_t file[8192];

    (void)state;
    guest_close(&guest);
    open_with(&(struct nvme_config){.lba_shift = 12});
    sqe = rw(false, 3, 2);
    assert_int_equal(run(sqe), NVME_OK);
    assert_int_equal(pread(guest.fd, file, sizeof(file), 3 * 4096), sizeof(file));
    assert_memory_equal(guest_at(&guest, GUEST_DATA), file, sizeof(file));
    assert_int_equal(run(rw(false, GUEST_FILE_SIZE / 4096, 1)), REFUSED(NVME_LBA_OUT_OF_RANGE));
    assert_int_equal(run(rw(false, 0, 257)), REFUSED(NVME_INVALID_FIELD));
}

static void zeroes_are_written(void **state)
{
    struct nvme_sqe sqe = {.opcode = NVME_IO_WRITE_ZEROES, .nsid = 1, .dw10 = 10, .dw12 = 4999};
    uint8_t *data = guest_at(&guest, GUEST_DATA);

    (void)state;
    assert_int_equal(run(sqe), NVME_OK);
    assert_int_equal(run(rw(false, 9, 2)), NVME_OK);
    assert_int_not_equal(data[511] | data[510] | data[509], 0);
    assert_int_equal(data[512] | data[1023], 0);
    assert_int_equal(run(rw(false, 5009, 2)), NVME_OK);
    assert_int_equal(data[0] | data[511], 0);
    assert_int_not_equal(data[512] | data[513] | data[514], 0);
    sqe.dw12 = 0xffff;
    assert_int_equal(run(sqe), REFUSED(NVME_LBA_OUT_OF_RANGE));
    sqe.dw12 = NVME_RW_DEALLOCATE | NVME_RW_FUA | 7;
    assert_int_equal(run(sqe), NVME_OK);
    sqe.dw12 = NVME_RW_PRINFO;
    assert_int_equal(run(sqe), REFUSED(NVME_INVALID_FIELD));
}

static void blocks_are_deallocated(void **state)
{
    struct nvme_sqe sqe = {.opcode = NVME_IO_DATASET_MANAGEMENT, .nsid = 1, .dw10 = 1,
                           .dw11 = NVME_DSM_DEALLOCATE, .prp1 = guest_iova(GUEST_DATA + 8192)};
    struct nvme_dsm_range *ranges = guest_at(&guest, GUEST_DATA + 8192);
    uint8_t *data = guest_at(&guest, GUEST_DATA);

    (void)state;
    ranges[0] = (struct nvme_dsm_range){.lba = 8, .blocks = 8};
    ranges[1] = (struct nvme_dsm_range){.lba = 100, .blocks = 0};
    assert_int_equal(run(sqe), NVME_OK);
    assert_int_equal(run(rw(false, 8, 8)), NVME_OK);
    for (unsigned i = 0; i < 4096; i++) {
        assert_int_equal(data[i], 0);
    }
    assert_int_equal(run(rw(false, 16, 1)), NVME_OK);
    assert_int_not_equal(data[0] | data[1] | data[2], 0);
    /* The second range is wrong: nothing was done. */
    ranges[0] = (struct nvme_dsm_range){.lba = 16, .blocks = 1};
    ranges[1] = (struct nvme_dsm_range){.lba = UINT64_MAX, .blocks = 2};
    assert_int_equal(run(sqe), REFUSED(NVME_LBA_OUT_OF_RANGE));
    assert_int_equal(run(rw(false, 16, 1)), NVME_OK);
    assert_int_not_equal(data[0] | data[1] | data[2], 0);
    /* Advice is not even looked at. */
    sqe.dw11 = 3;
    sqe.prp1 = 0;
    assert_int_equal(run(sqe), NVME_OK);
    sqe.dw11 = NVME_DSM_DEALLOCATE;
    assert_int_equal(run(sqe), NVME_DATA_TRANSFER_ERROR);
    sqe.prp1 = 1;
    assert_int_equal(run(sqe), REFUSED(NVME_PRP_OFFSET_INVALID));
}

/* Durable writes differ in nothing that can be seen here; the cache may be turned off. */
static void writes_without_a_cache(void **state)
{
    struct nvme_sqe sqe = rw(true, 0, 1);

    (void)state;
    sqe.dw12 |= NVME_RW_FUA;
    assert_int_equal(run(sqe), NVME_OK);
    assert_int_equal(guest_do(&guest, 0,
                              (struct nvme_sqe){.opcode = NVME_ADMIN_SET_FEATURES,
                                                .dw10 = NVME_FEATURE_WRITE_CACHE},
                              NULL),
                     NVME_OK);
    guest_submit(&guest, 1, rw(true, 0, 1));
    assert_true(guest.nvme->commands[0].job.durable);
    guest_settle(&guest);
}

static void a_disk_that_is_read_only(void **state)
{
    const uint8_t refused[] = {NVME_IO_WRITE, NVME_IO_WRITE_ZEROES, NVME_IO_DATASET_MANAGEMENT};
    struct nvme_sqe sqe = rw(false, 0, 1);

    (void)state;
    guest_close(&guest);
    open_with(&(struct nvme_config){.read_only = true});
    sqe.dw12 |= NVME_RW_FUA;
    assert_int_equal(run(sqe), NVME_OK);
    assert_int_equal(run((struct nvme_sqe){.opcode = NVME_IO_FLUSH, .nsid = 1}), NVME_OK);
    for (unsigned i = 0; i < sizeof(refused); i++) {
        sqe.opcode = refused[i];
        assert_int_equal(run(sqe), REFUSED(NVME_NAMESPACE_WRITE_PROTECTED));
    }
    assert_int_equal(guest_do(&guest, 0,
                              (struct nvme_sqe){.opcode = NVME_ADMIN_IDENTIFY, .nsid = 1,
                                                .prp1 = guest_iova(GUEST_DATA)},
                              NULL),
                     NVME_OK);
    assert_int_equal(((uint8_t *)guest_at(&guest, GUEST_DATA))[99], 1);
    /* A shutdown has nothing to write. */
    guest_write32(&guest, NVME_REG_CC, 4u << 20 | 6u << 16 | 1u << 14 | NVME_CC_EN);
    assert_int_equal(guest_read32(&guest, NVME_REG_CSTS), NVME_CSTS_RDY | NVME_CSTS_SHST_COMPLETE);
}

/* ---- memory that is wanted back ------------------------------------------------------------ */

static void memory_is_given_back_at_once(void **state)
{
    struct pollfd pollfd = {.fd = nvme_event_fd(guest.nvme), .events = POLLIN};
    struct nvme_stats stats;
    struct nvme_cqe cqe;
    uint16_t cids[3];

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        cids[i] = guest_submit(&guest, 1, guest_rw(false, i, 1, GUEST_DATA + i * 4096));
    }
    assert_int_equal(guest.pinned, 3);
    assert_int_equal(poll(&pollfd, 1, 0), 0);
    guest_revoke(&guest, GUEST_DATA + 4096, 4096);
    assert_int_equal(guest.pinned, 2);
    /* The controller has it on its list, and asks for a turn. */
    assert_int_equal(poll(&pollfd, 1, 0), 1);
    /* It waits again, and is pinned when the controller goes on. */
    nvme_process(guest.nvme);
    assert_int_equal(guest.pinned, 3);
    /* When its memory went away meanwhile, it fails. */
    guest_set_rights(&guest, GUEST_DATA + 4096, 4096, 0);
    guest_revoke(&guest, GUEST_DATA, 3 * 4096);
    assert_int_equal(guest.pinned, 0);
    guest_settle(&guest);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(guest_poll(&guest, 1, &cqe));
        assert_int_equal((cqe.status >> 1) & ~NVME_STATUS_MORE,
                         cqe.cid == cids[1] ? NVME_DATA_TRANSFER_ERROR : NVME_OK);
    }
    nvme_stats_get(guest.nvme, &stats);
    assert_int_equal(stats.revoked, 4);
    assert_int_equal(stats.put_back, 4);
    assert_int_equal(stats.pins_refused, 1);
}

/* What had a place at the workers and lost it is before those that never had one. */
static void what_is_put_back_is_first(void **state)
{
    uint16_t cids[10];

    (void)state;
    for (unsigned i = 0; i < 10; i++) {
        cids[i] = guest_submit(&guest, 1, guest_rw(false, i, 1, GUEST_DATA + i * 4096));
    }
    assert_int_equal(guest.nvme->waiting->request.cid, cids[8]);
    guest_revoke(&guest, GUEST_DATA + 3 * 4096, 4096);
    assert_int_equal(guest.nvme->waiting->request.cid, cids[3]);
    assert_int_equal(guest.nvme->waiting->next->request.cid, cids[8]);
}

/* A job that has ended and was not seen yet has its memory pinned to the end. */
static void the_end_comes_before_a_job_is_seen(void **state)
{
    (void)state;
    guest_submit(&guest, 1, rw(false, 0, 1));
    assert_true(nvme_run_job(guest.nvme));
    assert_int_equal(guest.pinned, 1);
}

static void a_reset_gives_back_everything(void **state)
{
    unsigned admitted = guest.resets;
    struct nvme_cqe cqe;

    (void)state;
    for (unsigned i = 0; i < 20; i++) {
        guest_submit(&guest, 1, guest_rw(false, i, 1, GUEST_DATA));
    }
    assert_int_equal(guest.pinned, 8);
    guest_write32(&guest, NVME_REG_CC, 0);
    assert_int_equal(guest.pinned, 0);
    assert_int_equal(guest_read32(&guest, NVME_REG_CSTS), 0);
    assert_false(nvme_run_job(guest.nvme));
    /* Whoever was cut off is admitted again with that. */
    guest_enable(&guest, 32);
    assert_int_equal(guest.resets, admitted + 1);
    guest_create_queues(&guest, 1, 32);
    guest_settle(&guest);
    assert_false(guest_poll(&guest, 1, &cqe));
    assert_int_equal(run(rw(false, 0, 8)), NVME_OK);
    /* The same by the function's reset. */
    guest_submit(&guest, 1, rw(false, 0, 8));
    nvme_function(guest.nvme)->ops->reset(nvme_function(guest.nvme)->opaque);
    assert_int_equal(guest.pinned, 0);
    assert_int_equal(guest.resets, admitted + 2);
}

/* ---- queues -------------------------------------------------------------------------------- */

static void queues_wrap(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 200; i++) {
        struct nvme_cqe cqe;
        uint16_t cid = guest_submit(&guest, 1, rw(false, i, 1));

        assert_int_equal(guest_expect(&guest, 1, cid, &cqe), NVME_OK);
        assert_int_equal(cqe.sqid, 1);
        assert_int_equal(cqe.sq_head, (i + 1) % 32);
    }
    assert_int_equal(guest.messages[1], 200);
}

/* Completions are never lost: commands are fetched only when there is room for them. */
static void a_completion_queue_that_is_full(void **state)
{
    struct nvme_cqe cqe;
    unsigned seen = 0;

    (void)state;
    guest_create_queues(&guest, 2, 32);
    /* Queue 3's completions go to a small queue of 4 entries, in the place of those of 3. */
    assert_int_equal(guest_do(&guest, 0, guest_create_cq(3, 4, 3), NULL), NVME_OK);
    assert_int_equal(guest_do(&guest, 0, guest_create_sq(3, 32, 3), NULL), NVME_OK);
    guest.queues[3] = (struct guest_queue){.entries = 32, .phase = true};
    for (unsigned i = 0; i < 20; i++) {
        guest_put(&guest, 3, rw(false, i, 1));
    }
    guest_ring(&guest, 3);
    guest_settle(&guest);
    assert_int_equal(guest.nvme->state.sq[3].head, 3);
    guest.queues[3].entries = 4;
    while (guest_poll(&guest, 3, &cqe)) {
        assert_int_equal(cqe.cid, seen);
        seen++;
        guest_settle(&guest);
    }
    assert_int_equal(seen, 20);
}

static void more_commands_than_fit(void **state)
{
    struct nvme_cqe cqe;
    unsigned seen = 0;

    (void)state;
    guest_create_queues(&guest, 2, 200);
    for (unsigned i = 0; i < 199; i++) {
        guest_put(&guest, 2, rw(false, i, 1));
    }
    guest_ring(&guest, 2);
    /* One turn fetches a part of them; all that can be in flight are fewer than there are. */
    assert_int_equal(guest.nvme->sq_work[2].commands, 64);
    for (unsigned i = 0; i < 4; i++) {
        nvme_process(guest.nvme);
    }
    /* One is left for a shutdown. */
    assert_int_equal(guest.nvme->sq_work[2].commands, NVME_COMMANDS - 1);
    guest_settle(&guest);
    while (guest_poll(&guest, 2, &cqe)) {
        seen++;
    }
    assert_int_equal(seen, 199);
}

static void command_ids_in_use_are_refused(void **state)
{
    struct nvme_cqe cqe;

    (void)state;
    guest_submit(&guest, 1, rw(false, 0, 1));
    guest.queues[1].next_cid--;
    guest_submit(&guest, 1, rw(false, 0, 1));
    assert_true(guest_poll(&guest, 1, &cqe));
    assert_int_equal(cqe.status >> 1, REFUSED(NVME_COMMAND_ID_CONFLICT) | NVME_STATUS_MORE);
    guest_settle(&guest);
    assert_true(guest_poll(&guest, 1, &cqe));
    assert_int_equal(cqe.status >> 1, NVME_OK);
    assert_int_equal(run(rw(false, 0, 1)), NVME_OK);
    /* Each queue has ids of its own. */
    guest_create_queues(&guest, 2, 8);
    guest.queues[2].next_cid = guest.queues[1].next_cid;
    guest_submit(&guest, 1, rw(false, 0, 1));
    assert_int_equal(guest_do(&guest, 2, rw(false, 0, 1), NULL), NVME_OK);
}

static void queues_that_cannot_be_reached(void **state)
{
    struct nvme_stats stats;

    (void)state;
    guest_set_rights(&guest, 1 * 2 * GUEST_QUEUE_ROOM, 4096, 0);
    guest_submit(&guest, 1, rw(false, 0, 1));
    assert_int_equal(guest_read32(&guest, NVME_REG_CSTS), NVME_CSTS_RDY | NVME_CSTS_CFS);
    guest_write32(&guest, NVME_REG_CC, 0);
    assert_int_equal(guest_read32(&guest, NVME_REG_CSTS), 0);
    guest_set_rights(&guest, 1 * 2 * GUEST_QUEUE_ROOM, 4096, GUEST_READABLE | GUEST_WRITABLE);
    guest_enable(&guest, 32);
    guest_create_queues(&guest, 1, 32);
    guest_set_rights(&guest, 1 * 2 * GUEST_QUEUE_ROOM + GUEST_QUEUE_ROOM, 4096, GUEST_READABLE);
    guest_submit(&guest, 1, rw(false, 0, 1));
    guest_submit(&guest, 1, rw(false, 1, 1));
    guest_settle(&guest);
    assert_int_equal(guest_read32(&guest, NVME_REG_CSTS), NVME_CSTS_RDY | NVME_CSTS_CFS);
    assert_int_equal(guest.pinned, 0);
    nvme_stats_get(guest.nvme, &stats);
    assert_int_equal(stats.fatal, 2);
    assert_int_equal(stats.dma_errors, 2);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(commands_that_are_refused),
        TEST(memory_that_is_refused),
        TEST(data_is_committed),
        TEST(a_file_that_fails),
        TEST(a_file_that_is_full),
        TEST(data_is_where_it_belongs),
        TEST(blocks_of_4096_bytes),
        TEST(zeroes_are_written),
        TEST(blocks_are_deallocated),
        TEST(writes_without_a_cache),
        TEST(a_disk_that_is_read_only),
        TEST(memory_is_given_back_at_once),
        TEST(what_is_put_back_is_first),
        TEST(the_end_comes_before_a_job_is_seen),
        TEST(a_reset_gives_back_everything),
        TEST(queues_wrap),
        TEST(a_completion_queue_that_is_full),
        TEST(more_commands_than_fit),
        TEST(command_ids_in_use_are_refused),
        TEST(queues_that_cannot_be_reached),
    };
    int failed;

    if (!mkdtemp(directory)) {
        return 1;
    }
    snprintf(fail_path, sizeof(fail_path), "%s/fail", directory);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(directory);
    return failed;
}
