/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of eventfds that another process has, too. The other process is the test: it turns
 * O_NONBLOCK off, and fills or empties the counter at the worst moment, which is behind each
 * poll(). Who waits is ended by an alarm.
 */
#include "shared_eventfd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static const uint64_t FULL = UINT64_MAX - 1;

static int fill_behind_poll = -1; /* this eventfd */
static unsigned polls;

int poll(struct pollfd *fds, nfds_t count, int timeout)
{
    struct timespec wait = {.tv_sec = timeout / 1000, .tv_nsec = timeout % 1000 * 1000000L};
    int ret = (int)syscall(SYS_ppoll, fds, count, timeout < 0 ? NULL : &wait, NULL, 0);

    polls++;
    if (fill_behind_poll >= 0) {
        const uint64_t full = FULL;

        assert_int_equal(write(fill_behind_poll, &full, sizeof(full)), sizeof(full));
        fill_behind_poll = -1;
    }
    return ret;
}

/* Where the kernel has no requests (an emulated one), there is only what it had before. */
static bool has_requests(void)
{
    unsigned long context = 0;

    if (syscall(SYS_io_setup, 1L, &context) < 0) {
        return false;
    }
    syscall(SYS_io_destroy, context);
    return true;
}

static uint64_t count_of(int fd)
{
    uint64_t count;

    return read(fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

static void signals_are_counted(void **state)
{
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

    (void)state;
    for (unsigned i = 0; i < 1000; i++) { /* more than completions have room */
        assert_true(shared_eventfd_signal(fd));
    }
    assert_int_equal(count_of(fd), 1000);
    assert_true(polls == 0 || !has_requests());
    assert_true(shared_eventfd_signal(fd));
    assert_true(shared_eventfd_take(fd));
    assert_false(shared_eventfd_take(fd));
    assert_int_equal(count_of(fd), 0);
    close(fd);
}

static void one_that_is_full(void **state)
{
    int fd = eventfd(0, EFD_CLOEXEC);

    (void)state;
    alarm(20);
    assert_int_equal(write(fd, &FULL, sizeof(FULL)), sizeof(FULL));
    for (unsigned i = 0; i < 3; i++) {
        (void)shared_eventfd_signal(fd);
    }
    assert_true(shared_eventfd_take(fd));
    assert_true(shared_eventfd_signal(fd));
    assert_int_equal(count_of(fd), 1);
    alarm(0);
    close(fd);
}

static void one_that_is_filled_behind_a_look(void **state)
{
    int fd = eventfd(0, EFD_CLOEXEC);

    (void)state;
    if (!has_requests()) {
        close(fd);
        skip();
    }
    alarm(20);
    polls = 0;
    fill_behind_poll = fd;
    assert_true(shared_eventfd_signal(fd));
    assert_int_equal(polls, 0); /* it does not look first */
    fill_behind_poll = -1;
    assert_int_equal(count_of(fd), 1);
    alarm(0);
    close(fd);
}

/* There is nothing in it, and a read would wait. */
static void one_that_is_emptied(void **state)
{
    int fd = eventfd(0, EFD_CLOEXEC);

    (void)state;
    alarm(20);
    assert_false(shared_eventfd_take(fd));
    assert_true(shared_eventfd_signal(fd));
    assert_int_equal(count_of(fd), 1);
    assert_false(shared_eventfd_take(fd));
    alarm(0);
    close(fd);
}

static atomic_bool stop;

static void *fill_and_empty(void *opaque)
{
    int fd = *(int *)opaque;

    while (!stop) {
        uint64_t count;

        if (write(fd, &FULL, sizeof(FULL)) < 0) {
            assert_int_equal(errno, EAGAIN);
        }
        (void)!read(fd, &count, sizeof(count));
    }
    return NULL;
}

/* The flag goes off and on, while another thread fills and empties the counter. */
static void one_that_is_filled_at_any_moment(void **state)
{
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    pthread_t thread;

    (void)state;
    if (!has_requests()) {
        close(fd);
        skip();
    }
    alarm(60);
    assert_int_equal(pthread_create(&thread, NULL, fill_and_empty, &fd), 0);
    for (unsigned i = 0; i < 20000; i++) {
        (void)shared_eventfd_signal(fd);
        (void)shared_eventfd_take(fd);
    }
    stop = true;
    pthread_join(thread, NULL);
    alarm(0);
    close(fd);
}

static void what_is_no_eventfd(void **state)
{
    int file = memfd_create("test", MFD_CLOEXEC);

    (void)state;
    assert_false(shared_eventfd_signal(-1));
    assert_false(shared_eventfd_take(-1));
    assert_false(shared_eventfd_take(file));
    close(file);
}

/* Whoever may not make requests writes. */
static int refuse_requests(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof(filter) / sizeof(*filter), .filter = filter};

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static bool works_by_writes(void)
{
    int fd = eventfd(0, EFD_CLOEXEC);
    bool ok = shared_eventfd_signal(fd) && shared_eventfd_signal(fd) && count_of(fd) == 2 &&
              polls == 2 && !shared_eventfd_take(fd);

    ok = ok && write(fd, &FULL, sizeof(FULL)) == sizeof(FULL) && !shared_eventfd_signal(fd) &&
         shared_eventfd_take(fd) && shared_eventfd_signal(fd) && shared_eventfd_take(fd);
    close(fd);
    return ok;
}

/* First of all: it is found out once what there is. */
static void without_requests(void **state)
{
    pid_t child = fork();
    int status;

    (void)state;
    assert_true(child >= 0);
    if (child == 0) {
        alarm(20);
        _exit(refuse_requests() ? 2 : works_by_writes() ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_not_equal(WEXITSTATUS(status), 1);
}

/* The context is the parent's. */
static void in_a_child(void **state)
{
    pid_t child;
    int status;

    (void)state;
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        polls = 0;
        alarm(20);
        _exit(works_by_writes() ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_requests),    cmocka_unit_test(signals_are_counted),
        cmocka_unit_test(one_that_is_full),    cmocka_unit_test(one_that_is_filled_behind_a_look),
        cmocka_unit_test(one_that_is_emptied), cmocka_unit_test(one_that_is_filled_at_any_moment),
        cmocka_unit_test(what_is_no_eventfd),  cmocka_unit_test(in_a_child),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
