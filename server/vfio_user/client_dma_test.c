/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of memory that is reached by messages: what is asked, right answers, and each wrong one. In
 * between also how an endpoint offers a twin socket, and gives up a client that answers wrongly.
 */
#include "client_dma.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

#include "../clock.h"
#include "../log.h"
#include "common/foreign.h"
#include "test_fixture.h"
#include "test_twin.h"

enum {
    BASE = TEST_TWIN_BASE,
    PATIENCE_MS = 10000, /* where an answer comes */
    SHORT_MS = 50,       /* where none does */
};

static struct vfio_user_client_dma dma;
static struct test_twin twin;
static uint8_t data[2 << 20];

static int open_twin(void **state)
{
    int theirs;

    (void)state;
    assert_int_equal(vfio_user_client_dma_open(&dma, 1 << 20, &theirs), 0);
    test_twin_start(&twin, theirs);
    return 0;
}

static int close_twin(void **state)
{
    (void)state;
    test_twin_stop(&twin);
    vfio_user_client_dma_close(&dma);
    assert_false(dma.open);
    return 0;
}

static int read_ms(uint64_t address, size_t size, unsigned ms)
{
    return vfio_user_client_dma_read(&dma, address, data, size, clock_ms() + ms);
}

static int write_ms(uint64_t address, size_t size, unsigned ms)
{
    return vfio_user_client_dma_write(&dma, address, data, size, clock_ms() + ms);
}

static void copies(void **state)
{
    (void)state;
    assert_int_equal(read_ms(BASE + 5000, 9000, PATIENCE_MS), 0);
    assert_memory_equal(data, twin.memory + 5000, 9000);
    memset(data, 0x5a, 100);
    assert_int_equal(write_ms(BASE + 1, 100, PATIENCE_MS), 0);
    assert_memory_equal(data, twin.memory + 1, 100);
    assert_int_equal(twin.memory[101], 101);
    assert_int_equal(dma.reads, 1);
    assert_int_equal(dma.writes, 1);
    assert_int_equal(read_ms(BASE, 0, PATIENCE_MS), 0);
    assert_int_equal(twin.reads, 1);
}

static void large_ones_are_split(void **state)
{
    (void)state;
    assert_int_equal(read_ms(BASE + 7, sizeof(data), PATIENCE_MS), 0);
    assert_memory_equal(data, twin.memory + 7, sizeof(data));
    assert_int_equal(twin.reads, 2);
    assert_int_equal(twin.largest, 1 << 20);
    memset(data, 0xa5, sizeof(data));
    assert_int_equal(write_ms(BASE, (1 << 20) + 1, PATIENCE_MS), 0);
    assert_int_equal(twin.writes, 2);
    assert_int_equal(twin.memory[1 << 20], 0xa5);
    assert_int_equal(twin.memory[(1 << 20) + 1], (uint8_t)(1 ^ 0x100));
}

static void client_may_take_little(void **state)
{
    int theirs;

    close_twin(state);
    assert_int_equal(vfio_user_client_dma_open(&dma, 0, &theirs), -ENOTSUP);
    assert_int_equal(vfio_user_client_dma_open(&dma, 100, &theirs), 0);
    test_twin_start(&twin, theirs);
    assert_int_equal(read_ms(BASE, 1001, PATIENCE_MS), 0);
    assert_memory_equal(data, twin.memory, 1001);
    assert_int_equal(twin.reads, 11);
    assert_int_equal(twin.largest, 100);
    close_twin(state);
    assert_int_equal(vfio_user_client_dma_open(&dma, UINT64_MAX, &theirs), 0);
    assert_int_equal(dma.transfer_max, 1 << 20);
    test_twin_start(&twin, theirs);
}

static void refusals_end_nothing(void **state)
{
    (void)state;
    assert_int_equal(read_ms(0x1000, 4, PATIENCE_MS), -EFAULT);
    twin.how = TWIN_REFUSES;
    assert_int_equal(write_ms(BASE, 4, PATIENCE_MS), -EFAULT);
    twin.how = TWIN_REFUSES_ODDLY;
    assert_int_equal(read_ms(BASE, 4, PATIENCE_MS), -EFAULT);
    assert_int_equal(dma.refused, 3);
    assert_int_equal(dma.error, 0);
    twin.how = TWIN_TRICKLES;
    assert_int_equal(read_ms(BASE, 300, PATIENCE_MS), 0);
    assert_memory_equal(data, twin.memory, 300);
}

/* What a wrong answer to a read and to a write ends with. */
static int wrong(enum test_twin_how how, bool write)
{
    const bool silent = how == TWIN_SILENT || how == TWIN_STOPS_MIDWAY;
    const unsigned ms = silent ? SHORT_MS : PATIENCE_MS;
    uint64_t begin;
    int ret, again;

    open_twin(NULL);
    twin.how = how;
    begin = clock_ms();
    memset(data, 0x11, 64);
    ret = write ? write_ms(BASE + 64, 64, ms) : read_ms(BASE + 64, 64, ms);
    assert_true(ret < 0);
    assert_int_equal(dma.error, ret);
    if (ret == -ETIMEDOUT) {
        assert_true(clock_ms() - begin >= SHORT_MS);
    }
    for (unsigned i = 0; i < 64; i++) {
        assert_int_equal(data[i], 0x11); /* nothing of it was taken */
    }
    /* It is for good, and costs nothing more. */
    twin.how = TWIN_ANSWERS;
    again = read_ms(BASE, 4, PATIENCE_MS);
    assert_int_equal(again, ret);
    assert_int_equal(vfio_user_client_dma_post(&dma, BASE, data, 4), ret);
    close_twin(NULL);
    return ret;
}

static void wrong_answers_end_it(void **state)
{
    (void)state;
    for (int write = 0; write < 2; write++) {
        for (enum test_twin_how how = TWIN_OTHER_ID; how < TWIN_ENDS; how++) {
            int ret = wrong(how, write);

            if (how == TWIN_SILENT || how == TWIN_STOPS_MIDWAY) {
                assert_int_equal(ret, -ETIMEDOUT);
            } else if (how == TWIN_CLOSES || how == TWIN_CLOSES_MIDWAY) {
                assert_int_equal(ret, -ECONNRESET);
            } else {
                assert_int_equal(ret, -EPROTO);
            }
        }
    }
}

/* The limit is that of all messages together. */
static void deadline_is_for_all(void **state)
{
    int theirs;

    close_twin(state);
    assert_int_equal(vfio_user_client_dma_open(&dma, 1, &theirs), 0);
    test_twin_start(&twin, theirs);
    assert_int_equal(read_ms(BASE, sizeof(data), SHORT_MS), -ETIMEDOUT);
    assert_true(twin.reads < sizeof(data));
}

/* Nobody reads at the other end: neither does it block, nor is anything without bound kept. */
static void posts_do_not_wait(void **state)
{
    int theirs, ret = 0;
    unsigned sent = 0;

    close_twin(state);
    assert_int_equal(vfio_user_client_dma_open(&dma, 1 << 20, &theirs), 0);
    while (ret == 0 && sent < 1000000) {
        ret = vfio_user_client_dma_post(&dma, 0xfee00000, "abcd", 4);
        sent += ret == 0;
    }
    assert_int_equal(ret, -ENOBUFS);
    assert_int_equal(dma.error, 0);
    assert_true(dma.connection.output_end - dma.connection.output_first < 64);
    test_twin_start(&twin, theirs);
    /* What was kept goes before a request. */
    assert_int_equal(read_ms(BASE, 4, PATIENCE_MS), 0);
    assert_int_equal(twin.posted, sent);
}

/* Who leaves is found when what was kept is sent on; the reason stays. */
static void posts_to_who_left(void **state)
{
    int theirs, ret = 0;

    close_twin(state);
    assert_int_equal(vfio_user_client_dma_open(&dma, 1 << 20, &theirs), 0);
    while (ret == 0) {
        ret = vfio_user_client_dma_post(&dma, 0xfee00000, "abcd", 4);
    }
    assert_int_equal(ret, -ENOBUFS);
    assert_int_equal(vfio_user_client_dma_flush(&dma), 0);
    close(theirs);
    assert_int_equal(vfio_user_client_dma_flush(&dma), -EPIPE);
    assert_int_equal(dma.error, -EPIPE);
    assert_int_equal(vfio_user_client_dma_flush(&dma), -EPIPE);
    assert_int_equal(read_ms(BASE, 4, PATIENCE_MS), -EPIPE);
    vfio_user_client_dma_close(&dma);
    /* Or by the post itself. */
    assert_int_equal(vfio_user_client_dma_open(&dma, 1 << 20, &theirs), 0);
    close(theirs);
    assert_int_equal(vfio_user_client_dma_post(&dma, 0xfee00000, "abcd", 4), -EPIPE);
    assert_int_equal(dma.error, -EPIPE);
    vfio_user_client_dma_close(&dma);
    open_twin(state);
}

static void on_signal(int number)
{
    (void)number;
}

/* A signal that comes while an answer is waited for changes nothing. */
static void signals_end_nothing(void **state)
{
    const struct sigaction action = {.sa_handler = on_signal};
    const struct itimerval often = {{0, 2000}, {0, 2000}}, never = {{0, 0}, {0, 0}};
    struct sigaction before;

    (void)state;
    assert_int_equal(sigaction(SIGALRM, &action, &before), 0);
    assert_int_equal(setitimer(ITIMER_REAL, &often, NULL), 0);
    twin.how = TWIN_SILENT;
    assert_int_equal(read_ms(BASE, 4, SHORT_MS), -ETIMEDOUT);
    assert_int_equal(setitimer(ITIMER_REAL, &never, NULL), 0);
    assert_int_equal(sigaction(SIGALRM, &before, NULL), 0);
}

static void no_sockets_for_a_twin(void **state)
{
    struct vfio_user_client_dma other;
    int theirs;

    (void)state;
    support_starve_fds(dma.connection.fd, 1);
    assert_int_equal(vfio_user_client_dma_open(&other, 1 << 20, &theirs), -EMFILE);
    support_feed_fds();
}

/* There is no room for any: nothing has to be put aside. */
static void answers_have_no_descriptors(void **state)
{
    const struct vfio_user_header header = {
        .id = 0xbad, .size = sizeof(header), .flags = VFIO_USER_TYPE_REPLY};
    struct vfio_user_client_dma other;
    unsigned aside = foreign_aside();
    int theirs, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)state;
    if (fd < 0) {
        skip();
    }
    assert_int_equal(vfio_user_client_dma_open(&other, 1 << 20, &theirs), 0);
    assert_true(support_send_fds(theirs, &header, sizeof(header), &fd, 1) > 0);
    assert_int_equal(vfio_user_client_dma_read(&other, BASE, data, 4, clock_ms() + SHORT_MS),
                     -EPROTO);
    vfio_user_client_dma_close(&other);
    assert_int_equal(foreign_aside(), aside);
    close(theirs);
    close(fd);
}

static void closed_is_refused(void **state)
{
    static struct vfio_user_client_dma closed;

    (void)state;
    assert_int_equal(vfio_user_client_dma_read(&closed, BASE, data, 4, 0), -ENOTSUP);
    assert_int_equal(vfio_user_client_dma_flush(&closed), 0);
    assert_int_equal(vfio_user_client_dma_post(&closed, BASE, data, 4), -ENOTSUP);
    vfio_user_client_dma_close(&closed);
}

/* ---- over an endpoint ----------------------------------------------------------------------- */

static void twin_is_offered_to_who_takes_it(void **state)
{
    static const char *const without[] = {
        "{}",
        "{\"capabilities\":{\"twin_socket\":{}}}",
        "{\"capabilities\":{\"twin_socket\":{\"supported\":false}}}",
        "{\"capabilities\":{\"twin_socket\":true}}",
        "{\"twin_socket\":{\"supported\":true}}",
        "{\"capabilities\":{\"twin_socket\":{\"supported\":true},\"max_data_xfer_size\":0}}",
    };
    const struct pci_bus_ops *bus;

    for (size_t i = 0; i < sizeof(without) / sizeof(without[0]); i++) {
        assert_int_equal(test_twin_negotiate(&client, without[i]), -1);
        bus = recorder.function.bus;
        assert_int_equal(bus->read_memory(&endpoint, BASE, data, 4, clock_ms() + PATIENCE_MS),
                         -ENOTSUP);
        assert_int_equal(vfio_user_endpoint_ready(&endpoint), 0);
        teardown(state);
        setup_raw(state);
    }
    test_twin_start(&twin, test_twin_negotiate(&client, TEST_TWIN_WANTED));
    bus = recorder.function.bus;
    assert_int_equal(bus->read_memory(&endpoint, BASE, data, 4, clock_ms() + PATIENCE_MS), 0);
    assert_memory_equal(data, twin.memory, 4);
    assert_int_equal(bus->write_memory(&endpoint, BASE + 64, data, 4, clock_ms() + PATIENCE_MS), 0);
    /* All that we say goes there, in its order. */
    assert_int_equal(bus->write_message(&endpoint, 0xfee00000, 1), 0);
    assert_int_equal(bus->read_memory(&endpoint, BASE, data, 4, clock_ms() + PATIENCE_MS), 0);
    assert_int_equal(twin.posted, 1);
    assert_int_equal(test_client_receive(&client), 0);
    test_twin_stop(&twin);
}

static void wrong_answer_gives_the_client_up(void **state)
{
    struct pollfd poll_fd = {.events = POLLIN};
    const struct pci_bus_ops *bus = recorder.function.bus;

    (void)state;
    test_twin_start(&twin, test_twin_negotiate(&client, TEST_TWIN_WANTED));
    twin.how = TWIN_TOO_LONG;
    assert_int_equal(bus->read_memory(&endpoint, BASE, data, 4, clock_ms() + PATIENCE_MS), -EPROTO);
    /* Who watches the socket is woken, though the client sends nothing. */
    poll_fd.fd = endpoint.connection.fd;
    assert_int_equal(poll(&poll_fd, 1, 0), 1);
    assert_int_equal(vfio_user_endpoint_ready(&endpoint), -EPROTO);
    test_twin_stop(&twin);
}

/* In the middle of a command: the reason is told, not that its reply cannot be sent. */
static void reason_is_kept(void **state)
{
    const struct pci_bus_ops *bus = recorder.function.bus;

    (void)state;
    test_twin_start(&twin, test_twin_negotiate(&client, TEST_TWIN_WANTED));
    twin.how = TWIN_SILENT;
    test_client_send(&client, VFIO_USER_DEVICE_RESET, 0, NULL, 0, NULL, 0);
    assert_int_equal(bus->write_memory(&endpoint, BASE, data, 4, clock_ms() + SHORT_MS),
                     -ETIMEDOUT);
    assert_int_equal(vfio_user_endpoint_ready(&endpoint), -ETIMEDOUT);
    assert_int_equal(recorder.resets, 0);
    test_twin_stop(&twin);
}

static int setup_endpoint(void **state)
{
    server_log_to(NULL);
    return setup_raw(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(copies, open_twin, close_twin),
        cmocka_unit_test_setup_teardown(large_ones_are_split, open_twin, close_twin),
        cmocka_unit_test_setup_teardown(client_may_take_little, open_twin, close_twin),
        cmocka_unit_test_setup_teardown(refusals_end_nothing, open_twin, close_twin),
        cmocka_unit_test(wrong_answers_end_it),
        cmocka_unit_test_setup_teardown(deadline_is_for_all, open_twin, close_twin),
        cmocka_unit_test_setup_teardown(posts_do_not_wait, open_twin, close_twin),
        cmocka_unit_test_setup_teardown(posts_to_who_left, open_twin, close_twin),
        cmocka_unit_test_setup_teardown(signals_end_nothing, open_twin, close_twin),
        cmocka_unit_test_setup_teardown(no_sockets_for_a_twin, open_twin, close_twin),
        cmocka_unit_test(answers_have_no_descriptors),
        cmocka_unit_test(closed_is_refused),
        cmocka_unit_test_setup_teardown(twin_is_offered_to_who_takes_it, setup_endpoint, teardown),
        cmocka_unit_test_setup_teardown(wrong_answer_gives_the_client_up, setup_endpoint, teardown),
        cmocka_unit_test_setup_teardown(reason_is_kept, setup_endpoint, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
