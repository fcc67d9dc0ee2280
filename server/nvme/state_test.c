/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of quiescing, and of state that another controller goes on with.
 */
#include "test_guest.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "save/stream.h"

static struct guest guest;
static const struct nvme_config by_hand = {.no_threads = true};
static unsigned quiets;

static void count_quiet(void *opaque)
{
    assert_ptr_equal(opaque, &quiets);
    quiets++;
}

static int setup(void **state)
{
    (void)state;
    quiets = 0;
    guest_open(&guest, &by_hand);
    guest_enable(&guest, 16);
    guest_create_queues(&guest, 1, 16);
    guest_create_queues(&guest, 2, 8);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    guest_close(&guest);
    return 0;
}

static void quiet_comes_when_all_has_ended(void **state)
{
    struct nvme_cqe cqe;
    uint16_t cid;

    (void)state;
    nvme_quiesce(guest.nvme, count_quiet, &quiets);
    assert_int_equal(quiets, 1);
    nvme_resume(guest.nvme);
    cid = guest_submit(&guest, 1, guest_rw(false, 0, 8, GUEST_DATA));
    nvme_quiesce(guest.nvme, count_quiet, &quiets);
    assert_int_equal(quiets, 1);
    assert_false(nvme_quiet(guest.nvme));
    /* What comes now stays in its queue. */
    guest_submit(&guest, 1, guest_rw(false, 8, 8, GUEST_DATA + 4096));
    guest_settle(&guest);
    assert_int_equal(quiets, 2);
    assert_true(nvme_quiet(guest.nvme));
    assert_true(guest_poll(&guest, 1, &cqe));
    assert_int_equal(cqe.cid, cid);
    assert_false(guest_poll(&guest, 1, &cqe));
    nvme_resume(guest.nvme);
    assert_int_equal(guest_expect(&guest, 1, (uint16_t)(cid + 1), NULL), NVME_OK);
    assert_int_equal(quiets, 2);
}

static void save(struct nvme *nvme, void **data, size_t *size)
{
    struct save_writer writer;

    save_writer_init(&writer, SAVE_SERVER);
    save_begin(&writer, 1, 0, 1, 0);
    nvme_save(nvme, &writer);
    save_end(&writer);
    assert_int_equal(save_finish(&writer, data, size), 0);
}

static int load(struct nvme *nvme, const void *data, size_t size)
{
    struct save_reader reader;
    struct save_section section;
    int ret;

    assert_int_equal(save_open(&reader, SAVE_SERVER, data, size), 0);
    assert_true(save_next(&reader, &section));
    ret = nvme_load(nvme, &section);
    return ret == 0 ? save_close(&section) : ret;
}

/* Another controller takes the place of the guest's, with the same memory and file. */
static void replace(const struct nvme_config *config)
{
    struct nvme_config own = *config;
    struct pci_function *old = nvme_function(guest.nvme), *function;
    struct device_dma dma = guest.nvme->dma;
    struct nvme *next;
    size_t size;
    void *data;

    nvme_quiesce(guest.nvme, NULL, NULL);
    guest_settle(&guest);
    assert_true(nvme_quiet(guest.nvme));
    save(guest.nvme, &data, &size);
    own.fd = dup(guest.fd);
    assert_int_equal(nvme_create(&own, "disk", &dma, NULL, &next), 0);
    nvme_quiesce(next, NULL, NULL);
    assert_int_equal(load(next, data, size), 0);
    function = nvme_function(next);
    function->bus = old->bus;
    function->bus_opaque = old->bus_opaque;
    nvme_destroy(guest.nvme);
    guest.nvme = next;
    nvme_resume(next);
    save_free(data);
}

static void another_goes_on(void **state)
{
    const struct nvme_sqe event = {.opcode = NVME_ADMIN_ASYNC_EVENT};
    struct nvme_cqe cqe;
    uint16_t event_cid, cid;
    uint32_t result;

    (void)state;
    event_cid = guest_submit(&guest, 0, event);
    for (unsigned i = 0; i < 37; i++) {
        assert_int_equal(guest_do(&guest, 1, guest_rw(true, i, 1, GUEST_DATA), NULL), NVME_OK);
    }
    assert_int_equal(guest_do(&guest, 0,
                              (struct nvme_sqe){.opcode = NVME_ADMIN_SET_FEATURES,
                                                .dw10 = NVME_FEATURE_ASYNC_EVENTS,
                                                .dw11 = 0x11f},
                              NULL),
                     NVME_OK);
    nvme_quiesce(guest.nvme, NULL, NULL);
    cid = guest_submit(&guest, 2, guest_rw(false, 77, 1, GUEST_DATA));
    assert_false(guest_poll(&guest, 0, &cqe));
    replace(&by_hand);
    /* The command that waited in its queue, queues where they were, features, and the request. */
    assert_int_equal(guest_expect(&guest, 2, cid, NULL), NVME_OK);
    for (unsigned i = 0; i < 37; i++) {
        assert_int_equal(guest_do(&guest, 1, guest_rw(true, i, 1, GUEST_DATA), NULL), NVME_OK);
    }
    assert_int_equal(guest_do(&guest, 0,
                              (struct nvme_sqe){.opcode = NVME_ADMIN_GET_FEATURES,
                                                .dw10 = NVME_FEATURE_ASYNC_EVENTS},
                              &result),
                     NVME_OK);
    assert_int_equal(result, 0x11f);
    guest_write32(&guest, NVME_REG_DOORBELLS + 8, 1000);
    assert_true(guest_poll(&guest, 0, &cqe));
    assert_int_equal(cqe.cid, event_cid);
    assert_int_equal(guest.messages[1], 74);
}

/* While one server was replaced, the file grew. */
static void a_file_that_changed_meanwhile_is_told(void **state)
{
    struct nvme_cqe cqe;

    (void)state;
    guest_submit(&guest, 0, (struct nvme_sqe){.opcode = NVME_ADMIN_ASYNC_EVENT});
    assert_int_equal(guest_do(&guest, 0,
                              (struct nvme_sqe){.opcode = NVME_ADMIN_SET_FEATURES,
                                                .dw10 = NVME_FEATURE_ASYNC_EVENTS,
                                                .dw11 = NVME_ASYNC_NAMESPACES},
                              NULL),
                     NVME_OK);
    nvme_quiesce(guest.nvme, NULL, NULL);
    assert_int_equal(ftruncate(guest.fd, GUEST_FILE_SIZE * 2), 0);
    replace(&by_hand);
    assert_true(guest_poll(&guest, 0, &cqe));
    assert_int_equal(cqe.result, 0x040002);
}

static void a_stopped_controller_moves_too(void **state)
{
    (void)state;
    guest_write32(&guest, NVME_REG_CC, 0);
    replace(&by_hand);
    assert_int_equal(guest_read32(&guest, NVME_REG_CSTS), 0);
    guest_enable(&guest, 8);
    guest_create_queues(&guest, 1, 16);
    assert_int_equal(guest_do(&guest, 1, guest_rw(false, 0, 8, GUEST_DATA), NULL), NVME_OK);
}

static void a_shutdown_is_finished_by_the_other(void **state)
{
    (void)state;
    nvme_quiesce(guest.nvme, NULL, NULL);
    guest.nvme->state.csts |= NVME_CSTS_SHST_OCCURRING;
    replace(&by_hand);
    guest_settle(&guest);
    assert_int_equal(guest_read32(&guest, NVME_REG_CSTS), NVME_CSTS_RDY | NVME_CSTS_SHST_COMPLETE);
}

static void assert_queues_make_sense(void)
{
    for (unsigned i = 0; i <= NVME_QUEUES_DEFAULT; i++) {
        const struct nvme_sq *sq = &guest.nvme->state.sq[i];
        const struct nvme_cq *cq = &guest.nvme->state.cq[i];

        if (sq->exists) {
            assert_true(sq->head < sq->entries && sq->tail < sq->entries);
            assert_true(guest.nvme->state.cq[sq->cqid].exists);
            assert_int_equal(sq->cqid == 0, i == 0);
        }
        if (cq->exists) {
            assert_true(cq->head < cq->entries && cq->tail < cq->entries);
            assert_in_range(cq->vector, 0, NVME_QUEUES_DEFAULT);
        }
    }
}

/* Any byte may be wrong: it is refused, or what is loaded keeps the invariants. */
static void damaged_state_is_harmless(void **state)
{
    struct save_writer writer;
    struct nvme_state before;
    size_t refused = 0, size;
    uint8_t *body;
    void *data;

    (void)state;
    nvme_quiesce(guest.nvme, NULL, NULL);
    save(guest.nvme, &data, &size);
    body = (uint8_t *)data;
    before = guest.nvme->state;
    for (size_t at = size - 1; at > 60; at--) {
        struct save_reader reader;
        struct save_section section;
        const uint8_t *bytes;
        uint8_t *copy;
        void *again;
        size_t length;

        /* The frame is made anew around a body with one byte changed, or cut short. */
        assert_int_equal(save_open(&reader, SAVE_SERVER, body, size), 0);
        assert_true(save_next(&reader, &section));
        length = section.left;
        bytes = save_get_bytes(&section, length);
        copy = malloc(length);
        memcpy(copy, bytes, length);
        if (at - 60 > length) {
            free(copy);
            continue;
        }
        {
            uint8_t *byte = &copy[length - (at - 60)];

            *byte = at % 2 && *byte ? 0 : (uint8_t)(*byte ^ (1 + at % 255));
        }
        save_writer_init(&writer, SAVE_SERVER);
        save_begin(&writer, 1, 0, 1, 0);
        save_put_bytes(&writer, copy, at % 7 ? length : at - 60);
        save_end(&writer);
        assert_int_equal(save_finish(&writer, &again, &length), 0);
        if (load(guest.nvme, again, length) < 0) {
            assert_memory_equal(&guest.nvme->state.cc, &before.cc, sizeof(before.cc));
            refused++;
        } else {
            assert_queues_make_sense();
            nvme_resume(guest.nvme);
            guest_settle(&guest);
            nvme_quiesce(guest.nvme, NULL, NULL);
        }
        assert_int_equal(load(guest.nvme, body, size), 0);
        save_free(again);
        free(copy);
    }
    assert_true(refused > 200);
    save_free(data);
}

static void another_shape_is_refused(void **state)
{
    static const struct nvme_config others[] = {
        {.no_threads = true, .queues = 4},
        {.no_threads = true, .lba_shift = 12},
    };
    size_t size;
    void *data;

    (void)state;
    nvme_quiesce(guest.nvme, NULL, NULL);
    save(guest.nvme, &data, &size);
    for (unsigned i = 0; i < 2; i++) {
        struct nvme_config config = others[i];
        struct nvme *other;

        config.fd = dup(guest.fd);
        assert_int_equal(nvme_create(&config, "disk", &guest.nvme->dma, NULL, &other), 0);
        assert_int_equal(load(other, data, size), -EBADMSG);
        nvme_destroy(other);
    }
    save_free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(quiet_comes_when_all_has_ended, setup, teardown),
        cmocka_unit_test_setup_teardown(another_goes_on, setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_that_changed_meanwhile_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(a_stopped_controller_moves_too, setup, teardown),
        cmocka_unit_test_setup_teardown(a_shutdown_is_finished_by_the_other, setup, teardown),
        cmocka_unit_test_setup_teardown(damaged_state_is_harmless, setup, teardown),
        cmocka_unit_test_setup_teardown(another_shape_is_refused, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
