/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of reads and writes of a socket: what descriptors come with, how many, and the end.
 */
#include "common/socket.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/fds.h"

static int ends[2];
static unsigned fds_at_start;
static unsigned interrupts; /* so many calls are cut short by a signal */

static bool interrupted(void)
{
    if (!interrupts) {
        return false;
    }
    interrupts--;
    errno = EINTR;
    return true;
}

/* Instead of the C library's. */
ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    return interrupted() ? -1 : syscall(SYS_sendmsg, fd, message, flags);
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    return interrupted() ? -1 : syscall(SYS_recvmsg, fd, message, flags);
}

static int setup(void **state)
{
    (void)state;
    fds_at_start = support_open_fds();
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends);
}

static int teardown(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        if (ends[i] >= 0) {
            close(ends[i]);
        }
    }
    return support_open_fds() == fds_at_start ? 0 : -1;
}

static void close_all(const struct socket_fds *fds)
{
    for (unsigned i = 0; i < fds->count; i++) {
        close(fds->fds[i]);
    }
}

static void descriptors_come_with_the_first_byte(void **state)
{
    char text[] = "text", got[8];
    struct iovec iov[2] = {{.iov_base = text, .iov_len = 1}, {.iov_base = text + 1, .iov_len = 3}};
    int fds[SOCKET_FDS_MAX];
    struct socket_fds came;

    (void)state;
    for (unsigned i = 0; i < SOCKET_FDS_MAX; i++) {
        fds[i] = ends[0];
    }
    assert_int_equal(socket_send(ends[0], iov, 2, fds, SOCKET_FDS_MAX), 4);
    assert_int_equal(socket_receive(ends[1], got, 2, &came, SOCKET_FDS_IN_MAX), 2);
    assert_int_equal(came.count, SOCKET_FDS_MAX);
    assert_false(came.lost);
    close_all(&came);
    assert_int_equal(socket_receive(ends[1], got + 2, 6, &came, SOCKET_FDS_IN_MAX), 2);
    assert_int_equal(came.count, 0);
    assert_memory_equal(got, text, 4);
}

static void what_has_no_room_is_lost(void **state)
{
    const int fds[] = {ends[0], ends[0], ends[0], ends[0], ends[0], ends[0]};
    struct iovec iov = {.iov_base = (char[]){'x'}, .iov_len = 1};
    struct socket_fds came;
    char got;

    (void)state;
    assert_int_equal(socket_send(ends[0], &iov, 1, fds, 6), 1);
    assert_int_equal(socket_receive(ends[1], &got, 1, &came, 2), 1);
    assert_true(came.lost);
    assert_in_range(came.count, 1, 5);
    close_all(&came);
}

static void not_now_and_the_end(void **state)
{
    struct iovec iov = {.iov_base = (char[4096]){0}, .iov_len = 4096};
    struct socket_fds came;
    ssize_t n;
    char got;

    (void)state;
    assert_int_equal(socket_receive(ends[1], &got, 1, &came, 2), 0);
    do {
        n = socket_send(ends[0], &iov, 1, NULL, 0);
    } while (n > 0);
    assert_int_equal(n, 0);
    close(ends[0]);
    ends[0] = -1;
    assert_int_equal(socket_send(ends[1], &iov, 1, NULL, 0), -EPIPE);
    do {
        n = socket_receive(ends[1], iov.iov_base, iov.iov_len, &came, 2);
    } while (n > 0);
    assert_int_equal(n, -ECONNRESET);
    assert_int_equal(came.count, 0);
}

static void a_signal_is_no_error(void **state)
{
    struct iovec iov = {.iov_base = (char[]){'x'}, .iov_len = 1};
    struct socket_fds came;
    char got = 0;

    (void)state;
    interrupts = 3;
    assert_int_equal(socket_send(ends[0], &iov, 1, NULL, 0), 1);
    assert_int_equal(interrupts, 0);
    interrupts = 3;
    assert_int_equal(socket_receive(ends[1], &got, 1, &came, 2), 1);
    assert_int_equal(interrupts, 0);
    assert_int_equal(got, 'x');
}

/* What the embedder's socket tells besides, of who sends, is no descriptor. */
static void who_sends_is_no_descriptor(void **state)
{
    const int yes = 1;
    struct iovec iov = {.iov_base = (char[]){'x'}, .iov_len = 1};
    struct socket_fds came;
    char got;

    (void)state;
    assert_int_equal(setsockopt(ends[1], SOL_SOCKET, SO_PASSCRED, &yes, sizeof(yes)), 0);
    assert_int_equal(socket_send(ends[0], &iov, 1, ends, 1), 1);
    assert_int_equal(socket_receive(ends[1], &got, 1, &came, SOCKET_FDS_IN_MAX), 1);
    assert_int_equal(came.count, 1);
    close_all(&came);
    assert_int_equal(socket_send(ends[0], &iov, 1, NULL, 0), 1);
    assert_int_equal(socket_receive(ends[1], &got, 1, &came, SOCKET_FDS_IN_MAX), 1);
    assert_int_equal(came.count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(descriptors_come_with_the_first_byte, setup, teardown),
        cmocka_unit_test_setup_teardown(what_has_no_room_is_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(not_now_and_the_end, setup, teardown),
        cmocka_unit_test_setup_teardown(a_signal_is_no_error, setup, teardown),
        cmocka_unit_test_setup_teardown(who_sends_is_no_descriptor, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
