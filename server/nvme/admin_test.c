/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of admin commands: what the controller says of itself, log pages, features, events, queues
 * made and deleted, and each refusal with its status.
 */
#include "test_guest.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct guest guest;

static int setup(void **state)
{
    const struct nvme_config config = {.no_threads = true, .queues = 4, .serial = "A12\n"};

    (void)state;
    guest_open(&guest, &config);
    guest_enable(&guest, 16);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    guest_close(&guest);
    return 0;
}

#define REFUSED(status) ((status) | NVME_DNR)

static uint16_t run(struct nvme_sqe sqe)
{
    return guest_do(&guest, 0, sqe, NULL);
}

/* Data of an admin command goes here; it is filled with ones first. */
static uint8_t *data(void)
{
    return guest_at(&guest, GUEST_DATA);
}

static uint64_t field(unsigned offset, unsigned size)
{
    uint64_t value = 0;

    memcpy(&value, data() + offset, size);
    return value;
}

static struct nvme_sqe with_data(uint8_t opcode)
{
    memset(data(), 0xff, 16384);
    return (struct nvme_sqe){
        .opcode = opcode,
        .prp1 = guest_iova(GUEST_DATA),
        .prp2 = guest_iova(GUEST_DATA + 4096),
    };
}

/* ---- identify ------------------------------------------------------------------------------ */

static uint16_t identify(unsigned cns, uint32_t nsid)
{
    struct nvme_sqe sqe = with_data(NVME_ADMIN_IDENTIFY);

    sqe.nsid = nsid;
    sqe.dw10 = cns;
    return run(sqe);
}

static void the_controller_identifies_itself(void **state)
{
    (void)state;
    assert_int_equal(identify(NVME_CNS_CONTROLLER, 0), NVME_OK);
    assert_int_equal(field(0, 4), 0x1af41234);
    assert_memory_equal(data() + 4, "A12-                ", 20);
    assert_int_equal(field(77, 1), 8);
    assert_int_equal(field(80, 4), 0x10400);
    assert_int_equal(field(258, 2), 0x0303);
    assert_int_equal(field(512, 2), 0x4466);
    assert_int_equal(field(516, 4), 1);
    assert_int_equal(field(520, 2), 0x1c);
    assert_int_equal(field(525, 1), 7);
    assert_memory_equal(data() + 768, "nqn.2014-08.org.nvmexpress:uuid:", 32);
    assert_int_equal(strlen((char *)data() + 768), 68);
    assert_int_equal(field(4095, 1), 0);
    assert_int_equal(data()[4096], 0xff);
}

static void the_namespace_is_identified(void **state)
{
    (void)state;
    assert_int_equal(identify(NVME_CNS_NAMESPACE, 1), NVME_OK);
    assert_int_equal(field(0, 8), GUEST_FILE_SIZE / 512);
    assert_int_equal(field(8, 8), GUEST_FILE_SIZE / 512);
    /* It is as large as the file is now. */
    assert_int_equal(ftruncate(guest.fd, 512 * 99), 0);
    assert_int_equal(identify(NVME_CNS_NAMESPACE, 1), NVME_OK);
    assert_int_equal(field(0, 8), 99);
    assert_int_equal(ftruncate(guest.fd, GUEST_FILE_SIZE), 0);
    assert_int_equal(identify(NVME_CNS_NAMESPACE, 1), NVME_OK);
    assert_int_equal(field(0, 8), GUEST_FILE_SIZE / 512);
    assert_int_equal(field(99, 1), 0);
    assert_int_equal(field(128, 4), 9 << 16);
    assert_int_equal(identify(NVME_CNS_NAMESPACE_DESCRIPTORS, 1), NVME_OK);
    assert_int_equal(field(0, 4), 0x1003);
    assert_int_equal(field(20, 4), 0);
    assert_int_equal(identify(NVME_CNS_ACTIVE_NAMESPACES, 0), NVME_OK);
    assert_int_equal(field(0, 8), 1);
    assert_int_equal(identify(NVME_CNS_ACTIVE_NAMESPACES, 1), NVME_OK);
    assert_int_equal(field(0, 8), 0);
}

static void what_is_not_there_is_not_identified(void **state)
{
    (void)state;
    for (unsigned cns = 0; cns < 256; cns++) {
        bool known = cns <= NVME_CNS_NAMESPACE_DESCRIPTORS;

        assert_int_equal(identify(cns, NVME_NSID_ALL),
                         cns == NVME_CNS_CONTROLLER ? NVME_OK
                         : known                    ? REFUSED(NVME_INVALID_NAMESPACE)
                                                    : REFUSED(NVME_INVALID_FIELD));
    }
    assert_int_equal(identify(NVME_CNS_NAMESPACE, 0), REFUSED(NVME_INVALID_NAMESPACE));
    assert_int_equal(identify(NVME_CNS_NAMESPACE, 2), REFUSED(NVME_INVALID_NAMESPACE));
    assert_int_equal(identify(NVME_CNS_NAMESPACE_DESCRIPTORS, 2), REFUSED(NVME_INVALID_NAMESPACE));
    assert_int_equal(identify(NVME_CNS_ACTIVE_NAMESPACES, NVME_NSID_ALL - 1),
                     REFUSED(NVME_INVALID_NAMESPACE));
}

/* Data at any offset, in two pages; refused where an entry is wrong or memory is not reached. */
static void admin_data_goes_where_entries_say(void **state)
{
    struct nvme_sqe sqe = with_data(NVME_ADMIN_IDENTIFY);

    (void)state;
    sqe.dw10 = NVME_CNS_CONTROLLER;
    sqe.prp1 += 4000;
    sqe.prp2 += 4096;
    assert_int_equal(run(sqe), NVME_OK);
    assert_memory_equal(data() + 4004, "A12-", 4);
    assert_int_equal(data()[3999], 0xff);
    assert_int_equal(data()[4096], 0xff);
    assert_int_equal(data()[8192 + 3999], 0);
    assert_int_equal(data()[8192 + 4000], 0xff);
    sqe.prp1 += 2;
    assert_int_equal(run(sqe), REFUSED(NVME_PRP_OFFSET_INVALID));
    sqe.prp1 -= 2;
    sqe.prp2 += 8;
    assert_int_equal(run(sqe), REFUSED(NVME_PRP_OFFSET_INVALID));
    sqe.prp2 = 0;
    assert_int_equal(run(sqe), NVME_DATA_TRANSFER_ERROR);
}

static void what_is_not_supported_is_refused(void **state)
{
    static const uint8_t supported[] = {0, 1, 2, 4, 5, 6, 8, 9, 10, 12};
    struct nvme_sqe sqe = {0};

    (void)state;
    for (unsigned opcode = 0; opcode < 256; opcode++) {
        if (!memchr(supported, (int)opcode, sizeof(supported))) {
            sqe.opcode = (uint8_t)opcode;
            assert_int_equal(run(sqe), REFUSED(NVME_INVALID_OPCODE));
        }
    }
    sqe.opcode = NVME_ADMIN_IDENTIFY;
    sqe.flags = 0x40; /* SGL */
    assert_int_equal(run(sqe), REFUSED(NVME_INVALID_FIELD));
    sqe.flags = 1; /* fused */
    assert_int_equal(run(sqe), REFUSED(NVME_INVALID_FIELD));
}

/* ---- log pages ----------------------------------------------------------------------------- */

static struct nvme_sqe log_page(unsigned page, uint64_t offset, uint32_t length)
{
    struct nvme_sqe sqe = with_data(NVME_ADMIN_GET_LOG_PAGE);
    uint32_t dwords = length / 4 - 1;

    sqe.nsid = NVME_NSID_ALL;
    sqe.dw10 = dwords << 16 | page;
    sqe.dw11 = dwords >> 16;
    sqe.dw12 = (uint32_t)offset;
    sqe.dw13 = (uint32_t)(offset >> 32);
    return sqe;
}

static void errors_are_logged(void **state)
{
    (void)state;
    assert_int_equal(run(log_page(NVME_LOG_ERROR, 0, 4096)), NVME_OK);
    assert_int_equal(field(0, 8), 0);
    assert_int_equal(field(4088, 8), 0);
    for (unsigned i = 0; i < 70; i++) {
        run((struct nvme_sqe){.opcode = 0xff, .nsid = i});
    }
    assert_int_equal(run(log_page(NVME_LOG_ERROR, 0, 4096)), NVME_OK);
    assert_int_equal(field(0, 8), 70);
    assert_int_equal(field(8, 2), 0);
    assert_int_equal(field(10, 2), 70);
    assert_int_equal(field(12, 2), REFUSED(NVME_INVALID_OPCODE) << 1);
    assert_int_equal(field(14, 2), 0xffff);
    assert_int_equal(field(24, 4), 69);
    assert_int_equal(field(64, 8), 69);
    assert_int_equal(field(63 * 64, 8), 7);
    /* From the middle, and further than it goes: the rest is zero. */
    assert_int_equal(run(log_page(NVME_LOG_ERROR, 4032, 128)), NVME_OK);
    assert_int_equal(field(0, 8), 7);
    assert_int_equal(field(64, 8), 0);
    assert_int_equal(data()[128], 0xff);
}

static void health_is_logged(void **state)
{
    (void)state;
    guest_create_queues(&guest, 1, 8);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(guest_do(&guest, 1, guest_rw(false, 0, 8, GUEST_DATA), NULL), NVME_OK);
    }
    assert_int_equal(guest_do(&guest, 1, guest_rw(true, 0, 1, GUEST_DATA), NULL), NVME_OK);
    run((struct nvme_sqe){.opcode = 0xff});
    assert_int_equal(run(log_page(NVME_LOG_SMART, 0, 512)), NVME_OK);
    assert_int_equal(field(0, 1), 0);
    assert_int_equal(field(1, 2), 303);
    assert_int_equal(field(32, 8), 1);
    assert_int_equal(field(48, 8), 1);
    assert_int_equal(field(64, 8), 3);
    assert_int_equal(field(80, 8), 1);
    assert_int_equal(field(176, 8), 1);
}

static void other_log_pages(void **state)
{
    (void)state;
    assert_int_equal(run(log_page(NVME_LOG_FIRMWARE, 0, 512)), NVME_OK);
    assert_int_equal(field(0, 1), 1);
    assert_int_equal(run(log_page(NVME_LOG_CHANGED_NAMESPACES, 0, 4096)), NVME_OK);
    assert_int_equal(field(0, 4), 0);
    assert_int_equal(run(log_page(NVME_LOG_COMMANDS, 0, 4096)), NVME_OK);
    assert_int_equal(field(NVME_ADMIN_IDENTIFY * 4, 4), 1);
    assert_int_equal(field(NVME_ADMIN_ASYNC_EVENT * 4, 4), 1);
    assert_int_equal(field(3 * 4, 4), 0);
    assert_int_equal(field(1024 + NVME_IO_WRITE * 4, 4), 3);
    assert_int_equal(field(1024 + 5 * 4, 4), 0);
}

static void log_pages_that_are_refused(void **state)
{
    struct nvme_sqe sqe;

    (void)state;
    for (unsigned page = 0; page < 256; page++) {
        if (page < NVME_LOG_ERROR || page > NVME_LOG_COMMANDS) {
            assert_int_equal(run(log_page(page, 0, 512)), REFUSED(NVME_INVALID_LOG_PAGE));
        }
    }
    assert_int_equal(run(log_page(NVME_LOG_SMART, 2, 512)), REFUSED(NVME_INVALID_FIELD));
    assert_int_equal(run(log_page(NVME_LOG_SMART, 516, 512)), REFUSED(NVME_INVALID_FIELD));
    assert_int_equal(run(log_page(NVME_LOG_SMART, UINT64_C(1) << 32, 512)),
                     REFUSED(NVME_INVALID_FIELD));
    assert_int_equal(run(log_page(NVME_LOG_SMART, 512, 4)), NVME_OK);
    assert_int_equal(run(log_page(NVME_LOG_SMART, 0, NVME_TRANSFER_MAX + 4)),
                     REFUSED(NVME_INVALID_FIELD));
    sqe = log_page(NVME_LOG_SMART, 0, 512);
    sqe.dw11 = 0xffff;
    assert_int_equal(run(sqe), REFUSED(NVME_INVALID_FIELD));
    sqe.dw11 = 0;
    sqe.nsid = 1;
    assert_int_equal(run(sqe), REFUSED(NVME_INVALID_FIELD));
    sqe.nsid = 0;
    assert_int_equal(run(sqe), NVME_OK);
}

/* ---- features ------------------------------------------------------------------------------ */

static uint16_t get(uint32_t dw10, uint32_t dw11, uint32_t nsid, uint32_t *value)
{
    return guest_do(&guest, 0,
                    (struct nvme_sqe){.opcode = NVME_ADMIN_GET_FEATURES,
                                      .nsid = nsid,
                                      .dw10 = dw10,
                                      .dw11 = dw11},
                    value);
}

static uint16_t set(uint32_t dw10, uint32_t dw11, uint32_t nsid)
{
    return run((struct nvme_sqe){
        .opcode = NVME_ADMIN_SET_FEATURES, .nsid = nsid, .dw10 = dw10, .dw11 = dw11});
}

static void features_are_set_and_come_back(void **state)
{
    static const struct {
        uint32_t feature, nsid, dw11, standard, other;
    } all[] = {
        {NVME_FEATURE_ARBITRATION, 0, 0, 0, 0x01020303},
        {NVME_FEATURE_POWER, 0, 0, 0, 0x20},
        {NVME_FEATURE_TEMPERATURE, 0, 0, 343, 350},
        {NVME_FEATURE_ERROR_RECOVERY, 1, 0, 0, 0x1234},
        {NVME_FEATURE_WRITE_CACHE, 0, 0, 1, 0},
        {NVME_FEATURE_COALESCING, 0, 0, 0, 0x0a05},
        {NVME_FEATURE_VECTOR, 0, 3, 3, 0x10003},
        {NVME_FEATURE_ATOMICITY, 0, 0, 0, 1},
        {NVME_FEATURE_ASYNC_EVENTS, 0, 0, 0, 0x11f},
    };
    uint32_t value;

    (void)state;
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        uint32_t feature = all[i].feature, nsid = all[i].nsid, dw11 = all[i].dw11;

        assert_int_equal(get(feature, dw11, nsid, &value), NVME_OK);
        assert_int_equal(value, all[i].standard);
        assert_int_equal(set(feature, all[i].other, nsid), NVME_OK);
        assert_int_equal(get(feature, dw11, nsid, &value), NVME_OK);
        assert_int_equal(value, all[i].other);
        for (unsigned select = 1; select <= 2; select++) {
            assert_int_equal(get(feature | select << 8, dw11, nsid, &value), NVME_OK);
            assert_int_equal(value, all[i].standard);
        }
        assert_int_equal(get(feature | 3 << 8, dw11, nsid, &value), NVME_OK);
        assert_int_equal(value, feature == NVME_FEATURE_ERROR_RECOVERY ? 6 : 4);
        assert_int_equal(get(feature | 4 << 8, dw11, nsid, &value), REFUSED(NVME_INVALID_FIELD));
        assert_int_equal(set(feature | UINT32_C(1) << 31, all[i].standard, nsid),
                         REFUSED(NVME_FEATURE_NOT_SAVEABLE));
    }
    /* A reset brings the defaults back. */
    guest_write32(&guest, NVME_REG_CC, 0);
    guest_enable(&guest, 16);
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        assert_int_equal(get(all[i].feature, all[i].dw11, all[i].nsid, &value), NVME_OK);
        assert_int_equal(value, all[i].standard);
    }
}

static void features_that_are_refused(void **state)
{
    uint32_t value;

    (void)state;
    for (uint32_t feature = 0; feature < 256; feature++) {
        if (feature == 0 || feature == 3 || feature > NVME_FEATURE_ASYNC_EVENTS) {
            assert_int_equal(get(feature, 0, 0, &value), REFUSED(NVME_INVALID_FIELD));
            assert_int_equal(set(feature, 0, 0), REFUSED(NVME_INVALID_FIELD));
        }
    }
    assert_int_equal(set(NVME_FEATURE_POWER, 1, 0), REFUSED(NVME_INVALID_FIELD));
    assert_int_equal(set(NVME_FEATURE_TEMPERATURE, 1 << 16, 0), REFUSED(NVME_INVALID_FIELD));
    assert_int_equal(set(NVME_FEATURE_TEMPERATURE, 2 << 20, 0), REFUSED(NVME_INVALID_FIELD));
    assert_int_equal(get(NVME_FEATURE_TEMPERATURE, 1 << 16, 0, &value),
                     REFUSED(NVME_INVALID_FIELD));
    assert_int_equal(set(NVME_FEATURE_ERROR_RECOVERY, 0x10000, 1), REFUSED(NVME_INVALID_FIELD));
    assert_int_equal(set(NVME_FEATURE_ERROR_RECOVERY, 0, 0), REFUSED(NVME_INVALID_NAMESPACE));
    assert_int_equal(set(NVME_FEATURE_ERROR_RECOVERY, 0, NVME_NSID_ALL), NVME_OK);
    assert_int_equal(get(NVME_FEATURE_ERROR_RECOVERY, 0, NVME_NSID_ALL, &value),
                     REFUSED(NVME_INVALID_NAMESPACE));
    assert_int_equal(set(NVME_FEATURE_WRITE_CACHE, 1, 1),
                     REFUSED(NVME_FEATURE_NOT_NAMESPACE_SPECIFIC));
    assert_int_equal(set(NVME_FEATURE_WRITE_CACHE, 1, NVME_NSID_ALL), NVME_OK);
    assert_int_equal(set(NVME_FEATURE_VECTOR, 5, 0), REFUSED(NVME_INVALID_FIELD));
    assert_int_equal(get(NVME_FEATURE_VECTOR, 5, 0, &value), REFUSED(NVME_INVALID_FIELD));
    assert_int_equal(set(NVME_FEATURE_VECTOR, 4 | 0x10000, 0), NVME_OK);
    assert_int_equal(set(NVME_FEATURE_VECTOR, 4, 0), NVME_OK);
    assert_int_equal(get(NVME_FEATURE_VECTOR, 4, 0, &value), NVME_OK);
    assert_int_equal(value, 4);
}

static void the_number_of_queues(void **state)
{
    uint32_t value;

    (void)state;
    assert_int_equal(get(NVME_FEATURE_QUEUES, 0, 0, &value), NVME_OK);
    assert_int_equal(value, 0x00030003);
    assert_int_equal(guest_do(&guest, 0,
                              (struct nvme_sqe){.opcode = NVME_ADMIN_SET_FEATURES,
                                                .dw10 = NVME_FEATURE_QUEUES,
                                                .dw11 = 0x00100020},
                              &value),
                     NVME_OK);
    assert_int_equal(value, 0x00030003);
    assert_int_equal(set(NVME_FEATURE_QUEUES, 0xffff, 0), REFUSED(NVME_INVALID_FIELD));
    assert_int_equal(set(NVME_FEATURE_QUEUES, 0xffff0000, 0), REFUSED(NVME_INVALID_FIELD));
    guest_create_queues(&guest, 1, 8);
    assert_int_equal(set(NVME_FEATURE_QUEUES, 0, 0), REFUSED(NVME_COMMAND_SEQUENCE_ERROR));
}

/* ---- events -------------------------------------------------------------------------------- */

static const struct nvme_sqe event_request = {.opcode = NVME_ADMIN_ASYNC_EVENT};

static void assert_no_event(void)
{
    struct nvme_cqe cqe;

    nvme_process(guest.nvme);
    assert_false(guest_poll(&guest, 0, &cqe));
}

static void assert_event(uint16_t cid, uint32_t result)
{
    struct nvme_cqe cqe;

    nvme_process(guest.nvme);
    assert_true(guest_poll(&guest, 0, &cqe));
    assert_int_equal(cqe.cid, cid);
    assert_int_equal(cqe.status >> 1, NVME_OK);
    assert_int_equal(cqe.result, result);
}

static void wrong_doorbells_are_events(void **state)
{
    uint16_t a = guest_submit(&guest, 0, event_request), b = guest_submit(&guest, 0, event_request);
    struct nvme_stats stats;

    (void)state;
    guest_create_queues(&guest, 1, 8);
    guest_write32(&guest, NVME_REG_DOORBELLS + 16, 1); /* no such queue */
    assert_event(a, 0x010000);
    /* Another of the type waits until the page is read, without "retain". */
    guest_write32(&guest, NVME_REG_DOORBELLS + 8, 8);
    assert_no_event();
    {
        struct nvme_sqe sqe = log_page(NVME_LOG_ERROR, 0, 64);

        sqe.dw10 |= 0x8000;
        assert_int_equal(run(sqe), NVME_OK);
        assert_no_event();
    }
    assert_int_equal(run(log_page(NVME_LOG_ERROR, 0, 64)), NVME_OK);
    assert_event(b, 0x010100);
    /* Completion queues: none, beyond its end, and further than there are entries. */
    guest_write32(&guest, NVME_REG_DOORBELLS + 20, 1);
    guest_write32(&guest, NVME_REG_DOORBELLS + 12, 8);
    guest_write32(&guest, NVME_REG_DOORBELLS + 12, 1);
    guest_write32(&guest, NVME_REG_DOORBELLS + 0xff8, 1);
    nvme_stats_get(guest.nvme, &stats);
    assert_int_equal(stats.doorbells_refused, 6);
    assert_int_equal(stats.events, 2);
    assert_int_equal(guest_do(&guest, 1, guest_rw(false, 0, 1, GUEST_DATA), NULL), NVME_OK);
}

static void a_warm_controller_is_an_event(void **state)
{
    uint16_t a = guest_submit(&guest, 0, event_request), b = guest_submit(&guest, 0, event_request);

    (void)state;
    assert_int_equal(set(NVME_FEATURE_TEMPERATURE, 303, 0), NVME_OK);
    assert_no_event();
    assert_int_equal(set(NVME_FEATURE_ASYNC_EVENTS, 2, 0), NVME_OK);
    assert_event(a, 0x020101);
    assert_int_equal(run(log_page(NVME_LOG_SMART, 0, 512)), NVME_OK);
    assert_int_equal(field(0, 1), 2);
    assert_int_equal(set(NVME_FEATURE_TEMPERATURE, 304, 0), NVME_OK);
    assert_no_event();
    assert_int_equal(set(NVME_FEATURE_TEMPERATURE, 1 << 20 | 303, 0), NVME_OK);
    assert_event(b, 0x020101);
}

static void a_file_that_grows_is_an_event(void **state)
{
    uint16_t a = guest_submit(&guest, 0, event_request), b = guest_submit(&guest, 0, event_request);

    (void)state;
    assert_int_equal(ftruncate(guest.fd, GUEST_FILE_SIZE + 5000), 0);
    nvme_rescan(guest.nvme);
    assert_no_event();
    assert_int_equal(set(NVME_FEATURE_ASYNC_EVENTS, NVME_ASYNC_NAMESPACES, 0), NVME_OK);
    assert_int_equal(ftruncate(guest.fd, GUEST_FILE_SIZE + 5700), 0);
    nvme_rescan(guest.nvme);
    nvme_rescan(guest.nvme);
    assert_event(a, 0x040002);
    assert_int_equal(identify(NVME_CNS_NAMESPACE, 1), NVME_OK);
    assert_int_equal(field(0, 8), GUEST_FILE_SIZE / 512 + 11);
    assert_int_equal(run(log_page(NVME_LOG_CHANGED_NAMESPACES, 0, 8)), NVME_OK);
    assert_int_equal(field(0, 8), 1);
    assert_int_equal(run(log_page(NVME_LOG_CHANGED_NAMESPACES, 0, 8)), NVME_OK);
    assert_int_equal(field(0, 8), 0);
    /* A read that meets the end of a file that was cut short looks, too. */
    guest_create_queues(&guest, 1, 8);
    assert_int_equal(ftruncate(guest.fd, 4096), 0);
    assert_int_equal(guest_do(&guest, 1, guest_rw(false, 8, 1, GUEST_DATA), NULL),
                     NVME_UNRECOVERED_READ_ERROR);
    assert_event(b, 0x040002);
    assert_int_equal(guest_do(&guest, 1, guest_rw(false, 8, 1, GUEST_DATA), NULL),
                     REFUSED(NVME_LBA_OUT_OF_RANGE));
    /* So does a write, which does not make it longer. */
    assert_int_equal(ftruncate(guest.fd, 2048), 0);
    assert_int_equal(guest_do(&guest, 1, guest_rw(true, 6, 1, GUEST_DATA), NULL), NVME_WRITE_FAULT);
    assert_int_equal(guest_do(&guest, 1, guest_rw(true, 6, 1, GUEST_DATA), NULL),
                     REFUSED(NVME_LBA_OUT_OF_RANGE));
    assert_int_equal(lseek(guest.fd, 0, SEEK_END), 2048);
}

/* No room in the admin completion queue: the event is told when there is some. */
static void an_event_waits_for_room(void **state)
{
    struct nvme_cqe cqe;
    uint16_t cid;

    (void)state;
    guest_write32(&guest, NVME_REG_CC, 0);
    guest_enable(&guest, 4);
    cid = guest_submit(&guest, 0, event_request);
    for (unsigned i = 0; i < 3; i++) {
        guest_submit(&guest, 0, (struct nvme_sqe){.opcode = 0xff});
    }
    guest_write32(&guest, NVME_REG_DOORBELLS + 16, 1);
    assert_int_equal(guest.nvme->state.cq[0].tail, 3);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(guest_poll(&guest, 0, &cqe));
        assert_int_not_equal(cqe.cid, cid);
    }
    assert_event(cid, 0x010000);
}

static void requests_for_events_are_limited_and_aborted(void **state)
{
    struct nvme_sqe abort = {.opcode = NVME_ADMIN_ABORT};
    struct nvme_cqe cqe;
    uint16_t cids[NVME_ASYNC_REQUESTS_MAX], cid;

    (void)state;
    for (unsigned i = 0; i < NVME_ASYNC_REQUESTS_MAX; i++) {
        cids[i] = guest_submit(&guest, 0, event_request);
    }
    assert_int_equal(run(event_request), REFUSED(NVME_ASYNC_EVENT_LIMIT));
    abort.dw10 = (uint32_t)cids[1] << 16;
    cid = guest_submit(&guest, 0, abort);
    assert_true(guest_poll(&guest, 0, &cqe));
    assert_int_equal(cqe.cid, cids[1]);
    assert_int_equal(cqe.status >> 1, NVME_ABORT_REQUESTED);
    assert_true(guest_poll(&guest, 0, &cqe));
    assert_int_equal(cqe.cid, cid);
    assert_int_equal(cqe.result, 0);
    cid = guest_submit(&guest, 0, abort);
    assert_true(guest_poll(&guest, 0, &cqe));
    assert_int_equal(cqe.result, 1);
    guest_write32(&guest, NVME_REG_DOORBELLS + 16, 1);
    assert_event(cids[0], 0x010000);
    assert_int_equal(run(log_page(NVME_LOG_ERROR, 0, 64)), NVME_OK);
    guest_write32(&guest, NVME_REG_DOORBELLS + 16, 1);
    assert_event(cids[2], 0x010000);
    /* A reset forgets the rest. */
    guest_write32(&guest, NVME_REG_CC, 0);
    guest_enable(&guest, 16);
    guest_write32(&guest, NVME_REG_DOORBELLS + 16, 1);
    assert_no_event();
}

/* ---- queues -------------------------------------------------------------------------------- */

static struct nvme_sqe delete(uint8_t opcode, uint32_t id)
{
    return (struct nvme_sqe){.opcode = opcode, .dw10 = id};
}

static void completion_queues_that_are_refused(void **state)
{
    struct nvme_sqe sqe;

    (void)state;
    assert_int_equal(run(guest_create_cq(0, 8, 0)), REFUSED(NVME_INVALID_QUEUE_ID));
    sqe = guest_create_cq(1, 8, 1);
    sqe.dw10 = 7 << 16 | 5;
    assert_int_equal(run(sqe), REFUSED(NVME_INVALID_QUEUE_ID));
    sqe.dw10 = 7 << 16 | 0xffff;
    assert_int_equal(run(sqe), REFUSED(NVME_INVALID_QUEUE_ID));
    assert_int_equal(run(guest_create_cq(1, 1, 1)), REFUSED(NVME_INVALID_QUEUE_SIZE));
    assert_int_equal(run(guest_create_cq(1, 1025, 1)), REFUSED(NVME_INVALID_QUEUE_SIZE));
    sqe = guest_create_cq(1, 8, 1);
    sqe.dw11 &= ~UINT32_C(1);
    assert_int_equal(run(sqe), REFUSED(NVME_INVALID_FIELD));
    sqe = guest_create_cq(1, 8, 1);
    sqe.prp1 += 64;
    assert_int_equal(run(sqe), REFUSED(NVME_PRP_OFFSET_INVALID));
    assert_int_equal(run(guest_create_cq(1, 8, 5)), REFUSED(NVME_INVALID_INTERRUPT_VECTOR));
    assert_int_equal(run(guest_create_cq(1, 1024, 4)), NVME_OK);
    assert_int_equal(run(guest_create_cq(1, 8, 1)), REFUSED(NVME_INVALID_QUEUE_ID));
    /* Without MSI-X there is one vector. */
    guest_set_config(&guest, nvme_function(guest.nvme)->config.msix + PCI_MSIX_FLAGS, 0);
    assert_int_equal(run(guest_create_cq(2, 8, 1)), REFUSED(NVME_INVALID_INTERRUPT_VECTOR));
    assert_int_equal(run(guest_create_cq(2, 8, 0)), NVME_OK);
}

static void entry_sizes_are_those_of_the_specification(void **state)
{
    (void)state;
    guest_write32(&guest, NVME_REG_CC, 5u << 20 | 6u << 16 | NVME_CC_EN);
    assert_int_equal(run(guest_create_cq(1, 8, 1)), REFUSED(NVME_INVALID_QUEUE_SIZE));
    guest_write32(&guest, NVME_REG_CC, 4u << 20 | 7u << 16 | NVME_CC_EN);
    assert_int_equal(run(guest_create_cq(1, 8, 1)), NVME_OK);
    assert_int_equal(run(guest_create_sq(1, 8, 1)), REFUSED(NVME_INVALID_QUEUE_SIZE));
}

static void submission_queues_that_are_refused(void **state)
{
    struct nvme_sqe sqe;

    (void)state;
    assert_int_equal(run(guest_create_sq(1, 8, 1)), REFUSED(NVME_COMPLETION_QUEUE_INVALID));
    assert_int_equal(run(guest_create_cq(1, 8, 1)), NVME_OK);
    assert_int_equal(run(guest_create_sq(1, 8, 0)), REFUSED(NVME_INVALID_QUEUE_ID));
    assert_int_equal(run(guest_create_sq(1, 8, 5)), REFUSED(NVME_INVALID_QUEUE_ID));
    assert_int_equal(run(guest_create_sq(0, 8, 1)), REFUSED(NVME_INVALID_QUEUE_ID));
    assert_int_equal(run(guest_create_sq(5, 8, 1)), REFUSED(NVME_INVALID_QUEUE_ID));
    assert_int_equal(run(guest_create_sq(1, 1, 1)), REFUSED(NVME_INVALID_QUEUE_SIZE));
    sqe = guest_create_sq(1, 8, 1);
    sqe.dw11 &= ~UINT32_C(1);
    assert_int_equal(run(sqe), REFUSED(NVME_INVALID_FIELD));
    sqe = guest_create_sq(1, 8, 1);
    sqe.prp1 += 2048;
    assert_int_equal(run(sqe), REFUSED(NVME_PRP_OFFSET_INVALID));
    assert_int_equal(run(guest_create_sq(1, 8, 1)), NVME_OK);
    assert_int_equal(run(guest_create_sq(1, 8, 1)), REFUSED(NVME_INVALID_QUEUE_ID));
}

static void queues_are_deleted_in_order(void **state)
{
    (void)state;
    guest_create_queues(&guest, 1, 8);
    /* A second one that shares the completion queue. */
    assert_int_equal(run(guest_create_sq(2, 8, 1)), NVME_OK);
    assert_int_equal(run(delete(NVME_ADMIN_DELETE_CQ, 1)), REFUSED(NVME_INVALID_QUEUE_DELETION));
    assert_int_equal(run(delete(NVME_ADMIN_DELETE_SQ, 1)), NVME_OK);
    assert_int_equal(run(delete(NVME_ADMIN_DELETE_SQ, 1)), REFUSED(NVME_INVALID_QUEUE_ID));
    assert_int_equal(run(delete(NVME_ADMIN_DELETE_CQ, 1)), REFUSED(NVME_INVALID_QUEUE_DELETION));
    assert_int_equal(run(delete(NVME_ADMIN_DELETE_SQ, 2)), NVME_OK);
    assert_int_equal(run(delete(NVME_ADMIN_DELETE_CQ, 1)), NVME_OK);
    assert_int_equal(run(delete(NVME_ADMIN_DELETE_CQ, 1)), REFUSED(NVME_INVALID_QUEUE_ID));
    for (unsigned id = 0; id < 3; id++) {
        static const uint32_t ids[] = {0, 5, 0xffff};

        assert_int_equal(run(delete(NVME_ADMIN_DELETE_CQ, ids[id])),
                         REFUSED(NVME_INVALID_QUEUE_ID));
        assert_int_equal(run(delete(NVME_ADMIN_DELETE_SQ, ids[id])),
                         REFUSED(NVME_INVALID_QUEUE_ID));
    }
    guest_create_queues(&guest, 1, 4);
    assert_int_equal(guest_do(&guest, 1, guest_rw(false, 0, 1, GUEST_DATA), NULL), NVME_OK);
}

static void commands_are_aborted(void **state)
{
    struct nvme_sqe abort = {.opcode = NVME_ADMIN_ABORT};
    struct nvme_cqe cqe;
    uint16_t cids[20];
    uint32_t result;

    (void)state;
    guest_create_queues(&guest, 1, 32);
    for (unsigned i = 0; i < 20; i++) {
        cids[i] = guest_put(&guest, 1, guest_rw(false, i, 1, GUEST_DATA));
    }
    guest_ring(&guest, 1);
    /* One that is with the workers, but was not begun, and one that waits. */
    for (unsigned i = 0; i < 20; i += 19) {
        abort.dw10 = (uint32_t)cids[i] << 16 | 1;
        assert_true(guest.pinned == 8);
        (void)guest_submit(&guest, 0, abort);
        assert_true(guest_poll(&guest, 0, &cqe));
        assert_int_equal(cqe.result, 0);
        assert_true(guest_poll(&guest, 1, &cqe));
        assert_int_equal(cqe.cid, cids[i]);
        assert_int_equal(cqe.status >> 1, NVME_ABORT_REQUESTED | NVME_STATUS_MORE);
    }
    guest_settle(&guest);
    for (unsigned i = 1; i < 19; i++) {
        assert_true(guest_poll(&guest, 1, &cqe));
        assert_int_equal(cqe.cid, cids[i]);
        assert_int_equal(cqe.status >> 1, NVME_OK);
    }
    /* What is not there any more, or never was. */
    assert_int_equal(guest_do(&guest, 0, abort, &result), NVME_OK);
    assert_int_equal(result, 1);
    abort.dw10 = 1 << 16 | 3;
    assert_int_equal(guest_do(&guest, 0, abort, &result), NVME_OK);
    assert_int_equal(result, 1);
    abort.dw10 = 1 << 16 | 0xfff0;
    assert_int_equal(guest_do(&guest, 0, abort, &result), NVME_OK);
    assert_int_equal(result, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(the_controller_identifies_itself),
        TEST(the_namespace_is_identified),
        TEST(what_is_not_there_is_not_identified),
        TEST(admin_data_goes_where_entries_say),
        TEST(what_is_not_supported_is_refused),
        TEST(errors_are_logged),
        TEST(health_is_logged),
        TEST(other_log_pages),
        TEST(log_pages_that_are_refused),
        TEST(features_are_set_and_come_back),
        TEST(features_that_are_refused),
        TEST(the_number_of_queues),
        TEST(wrong_doorbells_are_events),
        TEST(a_warm_controller_is_an_event),
        TEST(a_file_that_grows_is_an_event),
        TEST(an_event_waits_for_room),
        TEST(requests_for_events_are_limited_and_aborted),
        TEST(completion_queues_that_are_refused),
        TEST(entry_sizes_are_those_of_the_specification),
        TEST(submission_queues_that_are_refused),
        TEST(queues_are_deleted_in_order),
        TEST(commands_are_aborted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
