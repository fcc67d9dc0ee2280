/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the controller as a driver uses it: life, reading and writing, threads.
 */
#include "test_guest.h"

#include <errno.h>
#include <linux/pci_regs.h>
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

/* ---- registers ----------------------------------------------------------------------------- */

static void access_bar(bool write, uint64_t offset, void *data, size_t size)
{
    struct pci_function *function = nvme_function(guest.nvme);

    if (write) {
        function->ops->bar_write(function->opaque, 0, offset, data, size);
    } else {
        function->ops->bar_read(function->opaque, 0, offset, data, size);
    }
}

static void registers_are_read_in_any_piece(void **state)
{
    uint8_t whole[NVME_BAR_SIZE], piece[64];
    uint64_t cap;

    (void)state;
    memset(whole, 0xaa, sizeof(whole));
    access_bar(false, 0, whole, sizeof(whole));
    memcpy(&cap, whole, sizeof(cap));
    assert_int_equal(cap & 0xffff, 1023);
    assert_int_equal(cap >> 16 & 1, 1);
    assert_int_equal(cap >> 32 & 15, 0); /* doorbells follow one another */
    assert_int_equal(cap >> 36 & 1, 0);  /* no subsystem reset */
    assert_int_equal(cap >> 37 & 0xff, 1);
    assert_int_equal(cap >> 48, 0x40);
    assert_int_equal(guest_read32(&guest, NVME_REG_VS), 0x10400);
    assert_int_equal(guest_read32(&guest, NVME_REG_AQA), 0x001f001f);
    for (size_t offset = 0; offset < 64; offset++) {
        for (size_t size = 1; size <= 16; size++) {
            access_bar(false, offset, piece, size);
            assert_memory_equal(piece, whole + offset, size);
        }
    }
    for (size_t offset = 0x40; offset < sizeof(whole); offset++) {
        assert_int_equal(whole[offset], 0);
    }
}

static void odd_writes_are_ignored(void **state)
{
    uint8_t before[64], after[64], ones[64];

    (void)state;
    memset(ones, 0xff, sizeof(ones));
    access_bar(false, 0, before, sizeof(before));
    for (uint64_t offset = 0; offset < 64; offset++) {
        for (size_t size = 1; size <= 16; size++) {
            if (offset % 4 != 0 || (size != 4 && size != 8)) {
                access_bar(true, offset, ones, size);
            }
        }
    }
    guest_write32(&guest, NVME_REG_CAP, 0);
    guest_write32(&guest, NVME_REG_VS, 0);
    guest_write32(&guest, NVME_REG_CSTS, 0xffffffff);
    guest_write32(&guest, 0x20, 0x4e564d65); /* NSSR is not there */
    guest_write64(&guest, 0x2000, UINT64_MAX);
    guest_write64(&guest, 0x3ff8, UINT64_MAX);
    access_bar(false, 0, after, sizeof(after));
    assert_memory_equal(before, after, sizeof(before));
}

static void admin_queues_are_written_in_halves(void **state)
{
    uint64_t value;

    (void)state;
    guest_write32(&guest, NVME_REG_CC, 0);
    guest_write32(&guest, NVME_REG_ASQ, 0x12345fff);
    guest_write32(&guest, NVME_REG_ASQ + 4, 0x9abcdef0);
    guest_write32(&guest, NVME_REG_ACQ + 4, 0x11111111);
    guest_write32(&guest, NVME_REG_ACQ, 0x22222222);
    guest_write32(&guest, NVME_REG_AQA, 0xffffffff);
    access_bar(false, NVME_REG_ASQ, &value, sizeof(value));
    assert_int_equal(value, 0x9abcdef012345000);
    access_bar(false, NVME_REG_ACQ, &value, sizeof(value));
    assert_int_equal(value, 0x1111111122222000);
    assert_int_equal(guest_read32(&guest, NVME_REG_AQA), 0x0fff0fff);
}

/* What a controller cannot be enabled with is its failure, until the guest takes CC.EN back. */
static void a_controller_that_cannot_be_enabled(void **state)
{
    static const struct {
        uint32_t cc, aqa, asq;
    } wrong[] = {
        {NVME_CC_EN | 1 << 4, 0x1f001f, 0x1000},  /* another command set */
        {NVME_CC_EN | 1 << 11, 0x1f001f, 0x1000}, /* weighted arbitration */
        {NVME_CC_EN | 5 << 7, 0x1f001f, 0x1000},  /* pages of 128 KiB */
        {NVME_CC_EN, 0x1f0000, 0x1000},
        {NVME_CC_EN, 0x00001f, 0x1000},
        {NVME_CC_EN | 1 << 7, 0x1f001f, 0x1000}, /* not at the begin of a page of 8 KiB */
    };

    (void)state;
    guest_write32(&guest, NVME_REG_CC, 0);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        guest_write32(&guest, NVME_REG_AQA, wrong[i].aqa);
        guest_write64(&guest, NVME_REG_ASQ, wrong[i].asq);
        guest_write64(&guest, NVME_REG_ACQ, 0x2000);
        guest_write32(&guest, NVME_REG_CC, wrong[i].cc);
        assert_int_equal(guest_read32(&guest, NVME_REG_CSTS), NVME_CSTS_CFS);
        guest_write32(&guest, NVME_REG_DOORBELLS, 1);
        guest_write32(&guest, NVME_REG_CC, 0);
        assert_int_equal(guest_read32(&guest, NVME_REG_CSTS), 0);
    }
    guest_enable(&guest, 8);
    guest_create_queues(&guest, 1, 8);
}

static void some_of_cc_only_changes_while_it_is_stopped(void **state)
{
    (void)state;
    guest_write32(&guest, NVME_REG_CC, 4u << 20 | 6u << 16 | 0x3ff0 | NVME_CC_EN | 0xe);
    assert_int_equal(guest_read32(&guest, NVME_REG_CC), 4u << 20 | 6u << 16 | NVME_CC_EN);
    guest_write32(&guest, NVME_REG_CC, 0xffffffff & ~NVME_CC_EN & ~0xc000u);
    assert_int_equal(guest_read32(&guest, NVME_REG_CC), 0x00ff3ff0);
}

static void larger_memory_pages(void **state)
{
    uint64_t list = GUEST_DATA + 8 * 65536;
    struct nvme_sqe sqe = guest_rw(false, 0, 512, list + 65536);
    uint64_t second = guest_iova(list + 6 * 65536), third = guest_iova(list + 4 * 65536);
    static uint8_t file[262144];

    (void)state;
    guest_write32(&guest, NVME_REG_CC, 0);
    guest_write32(&guest, NVME_REG_CC, 4u << 20 | 6u << 16 | 4u << 7 | NVME_CC_EN);
    /* The admin queues are not at the begin of such a page. */
    assert_int_equal(guest_read32(&guest, NVME_REG_CSTS), NVME_CSTS_CFS);
    guest_write32(&guest, NVME_REG_CC, 0);
    guest_write32(&guest, NVME_REG_CC, 4u << 20 | 6u << 16 | 2u << 7 | NVME_CC_EN);
    assert_int_equal(guest_read32(&guest, NVME_REG_CSTS), NVME_CSTS_RDY);
    guest.queues[0] = (struct guest_queue){.entries = 32, .phase = true};
    memset(guest_at(&guest, GUEST_QUEUE_ROOM), 0, GUEST_QUEUE_ROOM);
    guest_create_queues(&guest, 1, 8);
    /* Pages of 16 KiB: the list has entries for each but the first. */
    sqe.prp1 = guest_iova(list + 65536);
    sqe.prp2 = guest_iova(list);
    for (unsigned i = 0; i < 15; i++) {
        uint64_t entry = i % 2 ? second + i * 16384 : third + i * 16384;

        memcpy(guest_at(&guest, list + i * 8), &entry, 8);
    }
    assert_int_equal(guest_do(&guest, 1, sqe, NULL), NVME_OK);
    assert_int_equal(pread(guest.fd, file, sizeof(file), 0), sizeof(file));
    assert_memory_equal(guest_at(&guest, list + 65536), file, 16384);
    assert_memory_equal(guest_at(&guest, list + 4 * 65536), file + 16384, 16384);
    assert_memory_equal(guest_at(&guest, list + 6 * 65536 + 16384), file + 32768, 16384);
}

static void a_shutdown_flushes_and_can_be_undone(void **state)
{
    const uint32_t cc = 4u << 20 | 6u << 16 | NVME_CC_EN;
    struct nvme_cqe cqe;

    (void)state;
    guest_create_queues(&guest, 1, 8);
    guest_submit(&guest, 1, guest_rw(true, 0, 8, GUEST_DATA));
    guest_write32(&guest, NVME_REG_CC, cc | 1u << 14);
    assert_int_equal(guest_read32(&guest, NVME_REG_CSTS), NVME_CSTS_RDY | NVME_CSTS_SHST_OCCURRING);
    /* Nothing is fetched any more; what was ends. */
    guest_submit(&guest, 1, guest_rw(true, 0, 8, GUEST_DATA));
    guest_settle(&guest);
    assert_int_equal(guest_read32(&guest, NVME_REG_CSTS), NVME_CSTS_RDY | NVME_CSTS_SHST_COMPLETE);
    assert_true(guest_poll(&guest, 1, &cqe));
    assert_false(guest_poll(&guest, 1, &cqe));
    guest_write32(&guest, NVME_REG_CC, cc | 2u << 14);
    assert_int_equal(guest_read32(&guest, NVME_REG_CSTS), NVME_CSTS_RDY | NVME_CSTS_SHST_COMPLETE);
    guest_write32(&guest, NVME_REG_CC, 0);
    assert_int_equal(guest_read32(&guest, NVME_REG_CSTS), 0);
    guest_enable(&guest, 8);
    guest_create_queues(&guest, 1, 8);
    assert_int_equal(guest_do(&guest, 1, guest_rw(false, 0, 8, GUEST_DATA), NULL), NVME_OK);
}

/* A shutdown of a controller that is not enabled flushes, too, and ends with SHN. */
static void a_shutdown_of_a_stopped_controller(void **state)
{
    (void)state;
    guest_write32(&guest, NVME_REG_CC, 0);
    guest_write32(&guest, NVME_REG_CC, 1u << 14);
    guest_settle(&guest);
    assert_int_equal(guest_read32(&guest, NVME_REG_CSTS), NVME_CSTS_SHST_COMPLETE);
    guest_write32(&guest, NVME_REG_CC, 0);
    assert_int_equal(guest_read32(&guest, NVME_REG_CSTS), 0);
}

/* ---- interrupts ---------------------------------------------------------------------------- */

static void the_line_is_up_while_entries_wait(void **state)
{
    const struct nvme_sqe sqe = {.opcode = 0xff};
    struct nvme_cqe cqe;

    (void)state;
    guest_set_config(&guest, nvme_function(guest.nvme)->config.msix + PCI_MSIX_FLAGS, 0);
    guest_submit(&guest, 0, sqe);
    guest_submit(&guest, 0, sqe);
    assert_true(guest.line);
    guest_write32(&guest, NVME_REG_INTMS, 1);
    assert_int_equal(guest_read32(&guest, NVME_REG_INTMC), 1);
    assert_false(guest.line);
    guest_write32(&guest, NVME_REG_INTMC, 1);
    assert_true(guest.line);
    assert_true(guest_poll(&guest, 0, &cqe));
    assert_true(guest.line);
    assert_true(guest_poll(&guest, 0, &cqe));
    assert_false(guest.line);
    /* Not with MSI-X, and not of a queue without interrupts. */
    guest_submit(&guest, 0, sqe);
    assert_true(guest.line);
    guest_set_config(&guest, nvme_function(guest.nvme)->config.msix + PCI_MSIX_FLAGS,
                     PCI_MSIX_FLAGS_ENABLE);
    assert_false(guest.line);
    assert_int_equal(guest.messages[0], 0);
    guest_submit(&guest, 0, sqe);
    assert_int_equal(guest.messages[0], 1);
}

static void a_queue_without_interrupts(void **state)
{
    struct nvme_sqe sqe = guest_create_cq(1, 8, 1);
    struct nvme_cqe cqe;

    (void)state;
    sqe.dw11 &= ~UINT32_C(2);
    assert_int_equal(guest_do(&guest, 0, sqe, NULL), NVME_OK);
    assert_int_equal(guest_do(&guest, 0, guest_create_sq(1, 8, 1), NULL), NVME_OK);
    guest.queues[1] = (struct guest_queue){.entries = 8, .phase = true};
    guest_submit(&guest, 1, guest_rw(false, 0, 1, GUEST_DATA));
    guest_settle(&guest);
    assert_true(guest_poll(&guest, 1, &cqe));
    assert_int_equal(guest.messages[1], 0);
}

/* Without bus master nothing is fetched, and what ends then cannot be told. */
static void a_function_that_is_no_bus_master(void **state)
{
    (void)state;
    guest_create_queues(&guest, 1, 8);
    guest_set_config(&guest, PCI_COMMAND, PCI_COMMAND_MEMORY);
    guest_submit(&guest, 1, guest_rw(false, 0, 1, GUEST_DATA));
    guest_settle(&guest);
    assert_int_equal(guest.nvme->state.sq[1].head, 0);
    guest_set_config(&guest, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    assert_int_equal(guest_expect(&guest, 1, 0x1000, NULL), NVME_OK);
    guest_submit(&guest, 1, guest_rw(false, 0, 1, GUEST_DATA));
    guest_set_config(&guest, PCI_COMMAND, PCI_COMMAND_MEMORY);
    guest_settle(&guest);
    assert_int_equal(guest_read32(&guest, NVME_REG_CSTS), NVME_CSTS_RDY | NVME_CSTS_CFS);
}

static void doorbells_of_a_stopped_controller_do_nothing(void **state)
{
    struct nvme_stats stats;

    (void)state;
    guest_write32(&guest, NVME_REG_CC, 0);
    for (uint64_t offset = NVME_REG_DOORBELLS; offset < 0x2000; offset += 4) {
        guest_write32(&guest, offset, 0xffffffff);
    }
    nvme_stats_get(guest.nvme, &stats);
    assert_int_equal(stats.doorbells_refused, 0);
    assert_int_equal(stats.admin_commands, 0);
}

/* ---- life ---------------------------------------------------------------------------------- */

static unsigned lines;

static void count_line(const char *what, uint64_t n)
{
    assert_non_null(what);
    (void)n;
    lines++;
}

static void a_configuration_that_makes_no_sense(void **state)
{
    static const struct nvme_config wrong[] = {
        {.lba_shift = 10},
        {.queues = NVME_QUEUES_MAX + 1},
        {.workers = NVME_WORKERS_MAX + 1},
    };
    struct device_dma dma = guest.nvme->dma;
    struct nvme_config config = {.fd = dup(guest.fd)};
    struct nvme *other;

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct nvme_config one = wrong[i];

        one.fd = config.fd;
        assert_int_equal(nvme_create(&one, "x", &dma, NULL, &other), -EINVAL);
    }
    dma.pin = NULL;
    assert_int_equal(nvme_create(&config, "x", &dma, NULL, &other), -EINVAL);
    dma = guest.nvme->dma;
    assert_int_equal(ftruncate(guest.fd, 511), 0);
    assert_int_equal(nvme_create(&config, "x", &dma, NULL, &other), -EINVAL);
    close(config.fd);
    config.fd = -1;
    assert_int_equal(nvme_create(&config, "x", &dma, NULL, &other), -EBADF);
    nvme_summary(guest.nvme, count_line);
    assert_int_equal(lines, sizeof(struct nvme_stats) / sizeof(uint64_t));
}

static void the_loop_drives_it(void **state)
{
    struct nvme_config config = {.fd = dup(guest.fd), .queues = NVME_QUEUES_MAX};
    struct pci_function *function;
    struct nvme *other;
    struct loop loop;
    struct nvme_cqe cqe;

    (void)state;
    assert_int_equal(loop_init(&loop), 0);
    assert_int_equal(nvme_create(&config, "x", &guest.nvme->dma, &loop, &other), 0);
    nvme_destroy(guest.nvme);
    guest.nvme = other;
    function = nvme_function(other);
    assert_int_equal(pci_config_msix_vectors(&function->config), NVME_QUEUES_MAX + 1);
    guest_enable(&guest, 32);
    guest_submit(&guest, 0, guest_create_cq(1, 8, 63));
    guest_submit(&guest, 0, guest_create_sq(1, 8, 1));
    guest.queues[1] = (struct guest_queue){.entries = 8, .phase = true};
    guest_submit(&guest, 1, guest_rw(false, 0, 1, GUEST_DATA));
    while (!guest_poll(&guest, 1, &cqe)) {
        assert_true(loop_step(&loop, 10000) > 0);
    }
    assert_int_equal(cqe.status >> 1, NVME_OK);
    guest_close(&guest);
    loop_fini(&loop);
    guest_open(&guest, &by_hand);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_block_is_written_and_read),
        cmocka_unit_test(workers_do_the_same),
        TEST(registers_are_read_in_any_piece),
        TEST(odd_writes_are_ignored),
        TEST(admin_queues_are_written_in_halves),
        TEST(a_controller_that_cannot_be_enabled),
        TEST(some_of_cc_only_changes_while_it_is_stopped),
        TEST(larger_memory_pages),
        TEST(a_shutdown_flushes_and_can_be_undone),
        TEST(a_shutdown_of_a_stopped_controller),
        TEST(the_line_is_up_while_entries_wait),
        TEST(a_queue_without_interrupts),
        TEST(a_function_that_is_no_bus_master),
        TEST(doorbells_of_a_stopped_controller_do_nothing),
        TEST(a_configuration_that_makes_no_sense),
        TEST(the_loop_drives_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
