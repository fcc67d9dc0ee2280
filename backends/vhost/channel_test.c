/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Unit tests of vhost/channel.h: what is written at once is of whole messages.
 *
 * The far end is a socket that keeps writes apart, where a write of a part of a message would be seen.
 */
#include "vhost/channel.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { ROOM = 4096, ROUNDS = 1000, WRITE_BYTES = 65536 };

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_messages),
        cmocka_unit_test(test_all_or_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
