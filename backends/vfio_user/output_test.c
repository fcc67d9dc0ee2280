/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of messages on their way out: at once, kept, in part, with descriptors, and when memory or
 * descriptors are refused.
 */
#include "vfio_user/output.h"

#include "base/alloc.h"
#include "vfio_user/test_far.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>

static struct vfio_user_output output;
static struct test_far far;
static int pair[2];
static unsigned fds_at_start;
static uint8_t block[100000];

static int setup(void **state)
{
    (void)state;
    fds_at_start = support_open_fds();
    far = (struct test_far){.fd = -1};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    vfio_user_output_init(&output, pair[0]);
    for (size_t i = 0; i < sizeof(block); i++) {
        block[i] = (uint8_t)(i * 7);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    vfio_user_output_fini(&output);
    assert_int_equal(output.bytes, 0);
    test_far_forget(&far);
    close(pair[0]);
    close(pair[1]);
    assert_int_equal(support_open_fds(), fds_at_start);
    return 0;
}

static int send_one(uint16_t id, size_t first, size_t second, const int *fds, unsigned n_fds)
{
    struct vfio_user_header header = {.id = id, .command = 9};

    return vfio_user_output_send(&output, header, block, first, block + 1000, second, fds, n_fds);
}

static void expect_one(uint16_t id, size_t first, size_t second, unsigned n_fds)
{
    assert_int_equal(test_far_receive(&far, pair[1]), 1);
    assert_int_equal(far.header.id, id);
    assert_int_equal(far.header.size, 16 + first + second);
    assert_int_equal(far.payload_size, first + second);
    assert_memory_equal(far.payload, block, first);
    assert_memory_equal(far.payload + first, block + 1000, second);
    assert_int_equal(far.n_fds, n_fds);
}

static void what_fits_goes_at_once(void **state)
{
    int fd = pair[0];

    (void)state;
    assert_int_equal(send_one(1, 0, 0, NULL, 0), 0);
    assert_int_equal(send_one(2, 10, 0, &fd, 1), 0);
    assert_int_equal(send_one(3, 10, 20, NULL, 0), 0);
    assert_int_equal(output.bytes, 0);
    expect_one(1, 0, 0, 0);
    expect_one(2, 10, 0, 1);
    expect_one(3, 10, 20, 0);
    assert_int_equal(test_far_receive(&far, pair[1]), 0);
}

/* Fills the socket with small messages. Returns how many it took. */
static uint16_t fill(void)
{
    uint16_t id = 0;

    while (!output.bytes) {
        assert_int_equal(send_one(id++, 100, 0, NULL, 0), 0);
        assert_true(id < 20000);
    }
    return id;
}

/* Headers are whole in one read: test_far_receive insists. */
static void what_does_not_fit_follows_in_order(void **state)
{
    int fds[3] = {pair[0], pair[1], STDIN_FILENO};
    uint16_t id = fill();

    (void)state;
    assert_int_equal(output.bytes, 116);
    for (unsigned i = 0; i < 50; i++) {
        assert_int_equal(send_one((uint16_t)(id + i), i * 31, i * 17, fds, i % 4), 0);
    }
    for (unsigned i = 0; i < id; i++) {
        expect_one((uint16_t)i, 100, 0, 0);
        assert_int_equal(vfio_user_output_flush(&output), 0);
    }
    for (unsigned i = 0; i < 50; i++) {
        expect_one((uint16_t)(id + i), i * 31, i * 17, i % 4);
        assert_int_equal(vfio_user_output_flush(&output), 0);
    }
    assert_int_equal(output.bytes, 0);
}

static void the_descriptors_of_what_waits_are_our_own(void **state)
{
    unsigned before;
    uint16_t id = fill();
    int fd = memfd_create("x", MFD_CLOEXEC);

    (void)state;
    before = support_open_fds();
    assert_int_equal(send_one(id, 0, 0, &fd, 1), 0);
    close(fd);
    assert_int_equal(support_open_fds(), before);
    for (unsigned i = 0; i < id; i++) {
        expect_one((uint16_t)i, 100, 0, 0);
        assert_int_equal(vfio_user_output_flush(&output), 0);
    }
    assert_int_equal(vfio_user_output_flush(&output), 0);
    expect_one(id, 0, 0, 1);
    assert_true(fcntl(far.fds[0], F_GET_SEALS) >= 0);
}

/* Takes all that is there; returns how many bytes, and adds up the descriptors. */
static size_t take(uint8_t *to, size_t room, unsigned *n_fds)
{
    union {
        char room[CMSG_SPACE(16 * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec iov = {.iov_base = to, .iov_len = room};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.room,
                         .msg_controllen = sizeof(control.room)};
    ssize_t n = recvmsg(pair[1], &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    assert_true(n > 0);
    for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg); cmsg; cmsg = CMSG_NXTHDR(&msg, cmsg)) {
        for (size_t i = 0; i < (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(fd));
            close(fd);
            ++*n_fds;
        }
    }
    return (size_t)n;
}

/*
 * A message longer than the socket takes: the rest follows, the descriptors came with its head, and
 * once; whether it was begun at once or has waited.
 */
static void a_long_one_goes_in_parts(void **state)
{
    static uint8_t got[16 + 3000000];
    struct vfio_user_header header = {.id = 1, .command = 9};
    uint8_t *data = calloc(3000000, 1);
    unsigned before = support_open_fds();
    int fd = pair[0];

    (void)state;
    assert_non_null(data);
    for (size_t i = 0; i < 3000000; i++) {
        data[i] = (uint8_t)(i >> 5);
    }
    for (unsigned waits = 0; waits < 2; waits++) {
        uint16_t first = waits ? fill() : 0;
        unsigned n_fds = 0;
        size_t have = 0;

        assert_int_equal(
            vfio_user_output_send(&output, header, data, 1500000, data + 1500000, 1500000, &fd, 1),
            0);
        assert_int_equal(support_open_fds(), before + waits);
        assert_true(output.bytes > 0);
        assert_int_equal(send_one(2, 5, 0, NULL, 0), 0);
        for (unsigned i = 0; i < first; i++) {
            expect_one((uint16_t)i, 100, 0, 0);
            assert_int_equal(vfio_user_output_flush(&output), 0);
        }
        while (have < sizeof(got)) {
            have += take(got + have, sizeof(got) - have, &n_fds);
            assert_int_equal(vfio_user_output_flush(&output), 0);
        }
        assert_memory_equal(got + 16, data, 3000000);
        assert_int_equal(n_fds, 1);
        expect_one(2, 5, 0, 0);
        assert_int_equal(support_open_fds(), before);
    }
    free(data);
}

static void what_still_waits_is_dropped(void **state)
{
    int fd = pair[0];

    (void)state;
    fill();
    assert_int_equal(send_one(1, 0, 0, &fd, 1), 0); /* teardown looks */
}

static void refusals_leave_the_connection_as_it_was(void **state)
{
    struct rlimit old, limit;
    uint16_t id;
    int fds[8], bad = 999;

    (void)state;
    assert_int_equal(send_one(1, 0, 0, &bad, 1), -EBADF);
    id = fill();
    for (unsigned i = 0; i < 8; i++) {
        fds[i] = pair[i % 2];
    }
    assert_int_equal(send_one(1, 0, 0, &bad, 1), -EBADF);
    base_alloc_fail_at(1);
    assert_int_equal(send_one(1, 0, 0, fds, 8), -ENOMEM);
    base_alloc_fail_at(0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    limit = old;
    limit.rlim_cur = (rlim_t)dup(STDIN_FILENO);
    close((int)limit.rlim_cur);
    limit.rlim_cur += 4;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(send_one(1, 0, 0, fds, 8), -EMFILE);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_equal(send_one(id, 1, 2, fds, 8), 0);
    for (unsigned i = 0; i < id; i++) {
        expect_one((uint16_t)i, 100, 0, 0);
        assert_int_equal(vfio_user_output_flush(&output), 0);
    }
    assert_int_equal(vfio_user_output_flush(&output), 0);
    expect_one(id, 1, 2, 8);
}

/* Half a message that cannot be kept: nothing can follow. */
static void half_a_message_is_the_end(void **state)
{
    struct vfio_user_header header = {.id = 1, .command = 9};
    uint8_t *data = calloc(3000000, 1);

    (void)state;
    base_alloc_fail_at(1);
    assert_int_equal(vfio_user_output_send(&output, header, data, 3000000, NULL, 0, NULL, 0),
                     -EPIPE);
    base_alloc_fail_at(0);
    free(data);
}

static void who_left_is_told_of(void **state)
{
    (void)state;
    fill();
    close(pair[1]);
    pair[1] = -1;
    assert_int_equal(vfio_user_output_flush(&output), -EPIPE);
    vfio_user_output_fini(&output);
    assert_int_equal(send_one(1, 0, 0, NULL, 0), -EBADF);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_fits_goes_at_once),
        TEST(what_does_not_fit_follows_in_order),
        TEST(the_descriptors_of_what_waits_are_our_own),
        TEST(a_long_one_goes_in_parts),
        TEST(what_still_waits_is_dropped),
        TEST(refusals_leave_the_connection_as_it_was),
        TEST(half_a_message_is_the_end),
        TEST(who_left_is_told_of),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
