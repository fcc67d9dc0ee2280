/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Unit tests of vhost/channel.h: what is written at once is of whole messages; what came at once is
 * read at once, and handed out message by message; descriptors, none of which is left open.
 *
 * The far end of what is written is a socket that keeps writes apart, where a write of a part of a
 * message would be seen.
 */
#include "vhost/channel.h"

#include "common/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/fds.h"

enum { ROOM = 4096, ROUNDS = 1000, WRITE_BYTES = 65536 };

static size_t most = SIZE_MAX; /* of a write */

/* Instead of the C library's. */
ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    struct msghdr less = *message;
    struct iovec first = message->msg_iov[0];

    if (first.iov_len > most) {
        first.iov_len = most;
        less.msg_iov = &first;
        less.msg_iovlen = 1;
    }
    return syscall(SYS_sendmsg, fd, &less, flags);
}

/* A message's payload: its number, and then bytes that follow from it. */
static size_t make_payload(uint32_t number, uint8_t *payload)
{
    size_t size = 4 + number * 7 % 300;

    memset(payload, (int)(number & 0xff), size);
    memcpy(payload, &number, sizeof(number));
    return size;
}

static void put(struct vhost_channel *channel, uint32_t number, int fd)
{
    uint8_t payload[512];
    size_t size = make_payload(number, payload);

    assert_int_equal(vhost_channel_put(channel, number, 0, payload, size, &fd, fd >= 0), 0);
}

/* Takes one write: messages from `number` on. Returns the number of the next. */
static uint32_t take_write(int fd, uint32_t number)
{
    static uint8_t bytes[WRITE_BYTES];
    ssize_t n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
    size_t at = 0;

    assert_true(n > 0);
    while (at < (size_t)n) {
        uint8_t payload[512];
        size_t size = make_payload(number, payload);
        struct vhost_user_header header;

        assert_true((size_t)n - at >= sizeof(header) + size);
        memcpy(&header, bytes + at, sizeof(header));
        assert_int_equal(header.request, number);
        assert_int_equal(header.size, size);
        assert_memory_equal(bytes + at + sizeof(header), payload, size);
        at += sizeof(header) + size;
        number++;
    }
    return number;
}

/* Again and again past the end of the buffer, and with descriptors now and then. */
static void test_whole_messages(void **state)
{
    struct vhost_channel channel;
    uint32_t given = 0, taken = 0;
    int ends[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
    assert_int_equal(vhost_channel_init(&channel, ends[0], ROOM), 0);
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < round % 10 + 1; i++) {
            put(&channel, given, given % 17 == 0 ? ends[1] : -1);
            given++;
        }
        assert_int_equal(vhost_channel_flush(&channel), 0);
        assert_int_equal(vhost_channel_waiting(&channel), 0);
        while (taken < given) {
            taken = take_write(ends[1], taken);
        }
    }
    vhost_channel_fini(&channel);
    close(ends[1]);
}

/* Nobody reads, and the socket's buffer is its smallest: it takes all of a write or nothing. */
static void test_all_or_nothing(void **state)
{
    struct vhost_channel channel;
    uint32_t given = 0, taken = 0;
    int ends[2], least = 1;

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    assert_int_equal(setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &least, sizeof(least)), 0);
    assert_int_equal(vhost_channel_init(&channel, ends[0], 16 * ROOM), 0);
    while (given < 200) {
        put(&channel, given++, -1);
    }
    while (taken < given) {
        assert_int_equal(vhost_channel_flush(&channel), 0);
        assert_true(vhost_channel_waiting(&channel) > 0 || taken > 0);
        taken = take_write(ends[1], taken);
    }
    vhost_channel_fini(&channel);
    close(ends[1]);
}

/* A socket that takes less than a message all the same: what follows is the rest of it. */
static void test_by_halves(void **state)
{
    static uint8_t bytes[WRITE_BYTES];
    struct vhost_channel channel;
    uint32_t given = 0, taken = 0;
    size_t size = 0;
    int ends[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    assert_int_equal(vhost_channel_init(&channel, ends[0], ROOM), 0);
    most = 97;
    for (unsigned round = 0; round < 10; round++) {
        while (given < (round + 1) * 20) {
            put(&channel, given, given % 7 == 0 ? ends[1] : -1);
            given++;
            assert_int_equal(vhost_channel_flush(&channel), 0);
        }
        assert_int_equal(vhost_channel_waiting(&channel), 0);
        assert_int_equal(channel.parcel_count, 0);
        for (ssize_t n = 1; n > 0; size += n > 0 ? (size_t)n : 0) {
            n = recv(ends[1], bytes + size, sizeof(bytes) - size, MSG_DONTWAIT);
        }
    }
    most = SIZE_MAX;
    assert_int_equal(send(ends[0], bytes, 1, 0), 1); /* the sockets are there still */
    for (size_t at = 0; at < size; taken++) {
        uint8_t payload[512];
        size_t length = make_payload(taken, payload);

        assert_true(size - at >= sizeof(struct vhost_user_header) + length);
        at += sizeof(struct vhost_user_header);
        assert_memory_equal(bytes + at, payload, length);
        at += length;
    }
    assert_int_equal(taken, given);
    vhost_channel_fini(&channel);
    close(ends[1]);
}

/* One of them cannot be copied: nothing is put, and no copy is left. */
static void test_descriptor_that_is_none(void **state)
{
    const unsigned before = support_open_fds();
    struct vhost_channel channel;
    int ends[2];
    int fds[3];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    assert_int_equal(vhost_channel_init(&channel, ends[0], ROOM), 0);
    fds[0] = fds[1] = ends[1];
    fds[2] = -1;
    assert_int_equal(vhost_channel_put(&channel, 1, 0, NULL, 0, fds, 3), -EBADF);
    assert_int_equal(support_open_fds(), before + 2);
    assert_int_equal(vhost_channel_waiting(&channel), 0);
    assert_int_equal(channel.parcel_count, 0);
    vhost_channel_fini(&channel);
    close(ends[1]);
    assert_int_equal(support_open_fds(), before);
}

/* No more messages with descriptors, and no more bytes, wait than there is room for. */
static void test_no_room(void **state)
{
    static const uint8_t payload[500];
    const unsigned before = support_open_fds();
    struct vhost_channel channel;
    unsigned puts = 0;
    int ends[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    assert_int_equal(vhost_channel_init(&channel, ends[0], ROOM), 0);
    while (!vhost_channel_put(&channel, 1, 0, NULL, 0, ends, 1)) {
        puts++;
    }
    assert_int_equal(puts, CHANNEL_PARCELS);
    while (!vhost_channel_put(&channel, 1, 0, payload, sizeof(payload), NULL, 0)) {
        puts++;
    }
    assert_int_equal(puts, CHANNEL_PARCELS + (ROOM - CHANNEL_PARCELS * 12) / 512);
    assert_true(vhost_channel_waiting(&channel) <= ROOM);
    vhost_channel_fini(&channel);
    close(ends[1]);
    assert_int_equal(support_open_fds(), before);
}

/* Descriptors came, and could not be opened: they are no less wrong. */
static void test_descriptors_that_are_lost(void **state)
{
    uint8_t message[sizeof(struct vhost_user_header)] = {0};
    struct vhost_channel channel;
    struct rlimit limit, none;
    int ends[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    assert_true(support_send_fds(ends[1], message, sizeof(message), ends, 1) > 0);
    assert_int_equal(vhost_channel_init(&channel, ends[0], ROOM), 0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = limit;
    none.rlim_cur = 3;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    assert_int_equal(vhost_channel_receive(&channel), -EPROTO);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    vhost_channel_fini(&channel);
    close(ends[1]);
}

/* ---- in ---- */

/* A message that comes: its number in its payload, which may be empty. Returns its bytes. */
static size_t make_message(uint32_t number, uint8_t *bytes)
{
    struct vhost_user_header header = {.request = number, .size = number % 4 * 4};

    memcpy(bytes, &header, sizeof(header));
    for (unsigned i = 0; i < number % 4; i++) {
        memcpy(bytes + sizeof(header) + i * sizeof(number), &number, sizeof(number));
    }
    return sizeof(header) + header.size;
}

static size_t make_messages(uint32_t first, unsigned count, uint8_t *bytes)
{
    size_t size = 0;

    for (unsigned i = 0; i < count; i++) {
        size += make_message(first + i, bytes + size);
    }
    return size;
}

static void assert_received(struct vhost_channel *channel, uint32_t number)
{
    uint8_t bytes[64];
    size_t size = make_message(number, bytes);

    assert_int_equal(vhost_channel_receive(channel), 1);
    assert_memory_equal(&channel->header, bytes, sizeof(channel->header));
    assert_memory_equal(channel->payload.bytes, bytes + sizeof(channel->header),
                        size - sizeof(channel->header));
}

static int open_for_reading(struct vhost_channel *channel)
{
    int ends[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    assert_int_equal(vhost_channel_init(channel, ends[0], ROOM), 0);
    return ends[1];
}

static bool is_empty(int fd)
{
    char byte;

    return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0;
}

/* What came together is read together. */
static void test_read_at_once(void **state)
{
    static uint8_t bytes[WRITE_BYTES];
    struct vhost_channel channel;
    int far = open_for_reading(&channel);

    (void)state;
    assert_int_equal(vhost_channel_receive(&channel), 0);
    for (uint32_t count = 1; count < 40; count++) {
        size_t size = make_messages(count, count, bytes);

        assert_int_equal(write(far, bytes, size), (ssize_t)size);
        for (uint32_t i = 0; i < count; i++) {
            assert_received(&channel, count + i);
            assert_true(is_empty(channel.fd));
        }
        assert_int_equal(vhost_channel_receive(&channel), 0);
    }
    vhost_channel_fini(&channel);
    close(far);
}

/* More than fits, and in pieces of all sizes. */
static void test_read_in_pieces(void **state)
{
    enum { COUNT = 600 };
    static uint8_t bytes[WRITE_BYTES];
    size_t size = make_messages(0, COUNT, bytes);

    (void)state;
    for (size_t piece = 1; piece <= size; piece += piece < 100 ? 1 : piece) {
        struct vhost_channel channel;
        int far = open_for_reading(&channel), ret;
        uint32_t taken = 0;

        for (size_t at = 0; at < size; at += piece) {
            size_t n = piece < size - at ? piece : size - at;

            assert_int_equal(write(far, bytes + at, n), (ssize_t)n);
            do { /* as who is woken while there is something to read */
                while ((ret = vhost_channel_receive(&channel)) == 1) {
                    assert_int_equal(channel.header.request, taken++);
                }
                assert_int_equal(ret, 0);
            } while (!is_empty(channel.fd));
        }
        assert_int_equal(taken, COUNT);
        vhost_channel_fini(&channel);
        close(far);
    }
}

/* What was sent before it left counts. */
static void test_peer_leaves(void **state)
{
    uint8_t bytes[256];
    struct vhost_channel channel;
    int far = open_for_reading(&channel), ret;
    size_t size = make_messages(1, 3, bytes);

    (void)state;
    assert_int_equal(write(far, bytes, size), (ssize_t)size);
    close(far);
    for (uint32_t i = 1; i <= 3; i++) {
        assert_received(&channel, i);
    }
    ret = vhost_channel_receive(&channel);
    assert_int_equal(ret ? ret : vhost_channel_receive(&channel), -ECONNRESET);
    vhost_channel_fini(&channel);
}

/* They were sent before they were refused. */
static void test_descriptors_come(void **state)
{
    uint8_t bytes[64];
    struct iovec iov = {bytes, make_message(2, bytes)};
    struct vhost_channel channel;
    int ends[2], next;

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    next = dup(ends[1]);
    assert_true(next >= 0);
    close(next);
    assert_int_equal(socket_send(ends[1], &iov, 1, &ends[1], 1), (ssize_t)iov.iov_len);
    assert_int_equal(vhost_channel_init(&channel, ends[0], ROOM), 0);
    assert_int_equal(vhost_channel_receive(&channel), -EPROTO);
    assert_int_equal(dup(ends[1]), next); /* it was closed */
    close(next);
    vhost_channel_fini(&channel);
    close(ends[1]);
}

static void test_descriptors_are_refused(void **state)
{
    uint8_t bytes[64];
    struct iovec iov = {bytes, make_message(2, bytes)};
    struct vhost_channel channel;
    int far = open_for_reading(&channel);
    const int yes = 1;

    (void)state;
    if (setsockopt(far, SOL_SOCKET, 83 /* SO_PASSRIGHTS */, &yes, sizeof(yes)) == 0) {
        assert_int_equal(socket_send(far, &iov, 1, &far, 1), -EPERM);
        assert_int_equal(vhost_channel_receive(&channel), 0);
        assert_int_equal(write(far, bytes, iov.iov_len), (ssize_t)iov.iov_len);
        assert_received(&channel, 2);
    }
    vhost_channel_fini(&channel);
    close(far);
}

/* The embedder asked its socket to be told who sends: that is no descriptor. */
static void test_who_sends(void **state)
{
    static const int told[] = {SO_PASSCRED, SO_PASSSEC, 76 /* SO_PASSPIDFD */};
    uint8_t bytes[64];
    size_t size = make_message(2, bytes);
    const int yes = 1;

    (void)state;
    for (unsigned i = 0; i < sizeof(told) / sizeof(*told); i++) {
        struct vhost_channel channel;
        int ends[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
        (void)setsockopt(ends[0], SOL_SOCKET, told[i], &yes, sizeof(yes));
        assert_int_equal(write(ends[1], bytes, size), (ssize_t)size);
        assert_int_equal(vhost_channel_init(&channel, ends[0], ROOM), 0);
        assert_received(&channel, 2);
        assert_int_equal(write(ends[1], bytes, size), (ssize_t)size);
        assert_int_equal(vhost_channel_receive(&channel), 0); /* the last read got all */
        assert_received(&channel, 2);
        vhost_channel_fini(&channel);
        close(ends[1]);
    }
}

static void test_too_large(void **state)
{
    const struct vhost_user_header header = {.size = VHOST_USER_PAYLOAD_IN_MAX + 1};
    struct vhost_channel channel;
    int far = open_for_reading(&channel);

    (void)state;
    assert_int_equal(write(far, &header, sizeof(header)), sizeof(header));
    assert_int_equal(vhost_channel_receive(&channel), -EPROTO);
    vhost_channel_fini(&channel);
    close(far);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_messages),
        cmocka_unit_test(test_all_or_nothing),
        cmocka_unit_test(test_by_halves),
        cmocka_unit_test(test_descriptor_that_is_none),
        cmocka_unit_test(test_no_room),
        cmocka_unit_test(test_descriptors_that_are_lost),
        cmocka_unit_test(test_read_at_once),
        cmocka_unit_test(test_read_in_pieces),
        cmocka_unit_test(test_peer_leaves),
        cmocka_unit_test(test_descriptors_come),
        cmocka_unit_test(test_descriptors_are_refused),
        cmocka_unit_test(test_who_sends),
        cmocka_unit_test(test_too_large),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
