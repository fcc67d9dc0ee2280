/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of framing: messages in pieces and in heaps, sizes that lie, descriptors by the dozen,
 * clients that leave or do not read.
 */
#include "vfio_user/connection.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "../log.h"
#include "common/foreign.h"
#include "test_fixture.h"

static void no_reply_is_honoured(void **state)
{
    uint8_t write[17] = {0};

    (void)state;
    write[12] = 1;
    write[16] = 0x77;
    test_client_send(&client, VFIO_USER_REGION_WRITE, VFIO_USER_NO_REPLY, write, sizeof(write),
                     NULL, 0);
    test_client_send(&client, VFIO_USER_REGION_WRITE, VFIO_USER_NO_REPLY, write, 3, NULL, 0);
    test_client_send(&client, 999, VFIO_USER_NO_REPLY, write, 3, NULL, 0);
    /* Replies of the client are no business of ours. */
    test_client_send(&client, VFIO_USER_DMA_WRITE, VFIO_USER_TYPE_REPLY, write, 16, NULL, 0);
    assert_int_equal(vfio_user_endpoint_ready(&endpoint), 0);
    assert_int_equal(test_client_receive(&client), 0);
    assert_int_equal(recorder.bar0[0], 0x77);
    assert_int_equal(test_client_command(&client, VFIO_USER_DEVICE_RESET, NULL, 0), 0);
}

static void the_largest_read_arrives_whole(void **state)
{
    uint8_t *data = malloc(VFIO_USER_MAX_DATA);

    (void)state;
    assert_non_null(data);
    assert_int_equal(test_client_read(&client, 2, 5, data, VFIO_USER_MAX_DATA), 0);
    assert_int_equal(data[0], 0x22);
    assert_int_equal(data[VFIO_USER_MAX_DATA - 1], 0x22);
    free(data);
}

static void descriptors_nobody_wants_are_closed(void **state)
{
    struct vfio_user_dma_map map = {
        .argsz = sizeof(map), .flags = 3, .address = 0x1000, .size = 0x1000};
    unsigned before = support_open_fds();
    int fds[64];

    (void)state;
    test_open_eventfds(fds, 64);
    assert_int_equal(test_client_command_fds(&client, VFIO_USER_DEVICE_RESET, NULL, 0, fds, 8), 0);
    /* Nine are one too many, whatever the command. */
    assert_int_equal(test_client_command_fds(&client, VFIO_USER_DEVICE_RESET, NULL, 0, fds, 9),
                     -EINVAL);
    assert_int_equal(
        test_client_command_fds(&client, VFIO_USER_DMA_MAP, &map, sizeof(map), fds, 64), -EINVAL);
    assert_int_equal(
        test_client_command_fds(&client, VFIO_USER_DEVICE_SET_IRQS, &map, sizeof(map), fds, 17),
        -EINVAL);
    assert_int_equal(test_client_command(&client, VFIO_USER_DEVICE_RESET, NULL, 0), 0);
    assert_int_equal(recorder.maps, 0);
    test_close_all(fds, 64);
    assert_int_equal(support_open_fds(), before);
}

static void a_flood_of_descriptors_on_single_bytes(void **state)
{
    struct vfio_user_header header = {.command = VFIO_USER_DEVICE_RESET, .size = 16};
    unsigned before = support_open_fds();
    int fds[8];

    (void)state;
    test_open_eventfds(fds, 8);
    for (size_t i = 0; i < sizeof(header); i++) {
        test_client_send_raw(&client, (uint8_t *)&header + i, 1, fds, 8);
        assert_int_equal(vfio_user_endpoint_ready(&endpoint), 0);
        /* Never more than one message's worth of them is held. */
        assert_true(support_open_fds() <= before + 8 + VFIO_USER_MAX_FDS);
    }
    assert_int_equal(test_client_receive(&client), 1);
    assert_int_equal(client.header.error, EINVAL);
    assert_int_equal(test_client_command(&client, VFIO_USER_DEVICE_RESET, NULL, 0), 0);
    test_close_all(fds, 8);
    assert_int_equal(support_open_fds(), before);
}

static void messages_may_come_byte_by_byte(void **state)
{
    struct {
        struct vfio_user_header header;
        struct vfio_user_region_access access;
        uint8_t data[8];
    } message = {
        .header = {.id = 0x1234, .command = VFIO_USER_REGION_WRITE, .size = sizeof(message)},
        .access = {.offset = 8, .count = 8},
        .data = {1, 2, 3, 4, 5, 6, 7, 8},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(message); i++) {
        assert_int_equal(test_client_receive(&client), 0);
        test_client_send_raw(&client, (uint8_t *)&message + i, 1, NULL, 0);
        assert_int_equal(vfio_user_endpoint_ready(&endpoint), 0);
    }
    assert_int_equal(test_client_receive(&client), 1);
    assert_int_equal(client.header.id, 0x1234);
    assert_int_equal(client.header.flags, VFIO_USER_TYPE_REPLY);
    assert_memory_equal(recorder.bar0 + 8, message.data, 8);
}

static void many_messages_may_come_at_once(void **state)
{
    (void)state;
    for (int i = 0; i < 100; i++) {
        test_client_send(&client, VFIO_USER_DEVICE_RESET, 0, NULL, 0, NULL, 0);
    }
    /* One call handles a bounded number, the next goes on. */
    assert_int_equal(vfio_user_endpoint_ready(&endpoint), 0);
    assert_true(recorder.resets > 0 && recorder.resets < 100);
    assert_int_equal(vfio_user_endpoint_ready(&endpoint), 0);
    assert_int_equal(recorder.resets, 100);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(test_client_receive(&client), 1);
        assert_int_equal(client.header.id, i + 2);
    }
}

static void sizes_that_cannot_be_end_the_connection(void **state)
{
    static const uint32_t sizes[] = {0, 15, VFIO_USER_MAX_PAYLOAD + 17, UINT32_MAX};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct vfio_user_header header = {.id = 5, .command = 13, .size = sizes[i]};

        test_client_send_raw(&client, &header, sizeof(header), NULL, 0);
        assert_int_equal(vfio_user_endpoint_ready(&endpoint), -EBADMSG);
        assert_int_equal(test_client_receive(&client), 1);
        assert_int_equal(client.header.error, EBADMSG);
        teardown(state);
        setup(state);
    }
}

static void the_largest_message_is_taken(void **state)
{
    struct vfio_user_header header = {.command = VFIO_USER_REGION_WRITE,
                                      .size = VFIO_USER_MAX_PAYLOAD + 16};
    struct vfio_user_region_access access = {.region = 2, .count = VFIO_USER_MAX_DATA};
    static uint8_t block[16384];

    (void)state;
    test_client_send_raw(&client, &header, sizeof(header), NULL, 0);
    test_client_send_raw(&client, &access, sizeof(access), NULL, 0);
    for (size_t i = 0; i < VFIO_USER_MAX_DATA / sizeof(block); i++) {
        assert_int_equal(test_client_receive(&client), 0);
        test_client_send_raw(&client, block, sizeof(block), NULL, 0);
        assert_int_equal(vfio_user_endpoint_ready(&endpoint), 0);
    }
    assert_int_equal(test_client_receive(&client), 1);
    assert_int_equal(client.header.flags, VFIO_USER_TYPE_REPLY);
    /* So much room is not kept. */
    assert_int_equal(test_client_command(&client, VFIO_USER_DEVICE_RESET, NULL, 0), 0);
    assert_true(endpoint.connection.payload_room <= 65536);
}

static void end_of_stream_anywhere(void **state)
{
    struct vfio_user_header header = {.command = VFIO_USER_DEVICE_RESET, .size = 20};

    for (size_t size = 0; size <= sizeof(header); size++) {
        int fd = eventfd(0, EFD_CLOEXEC);

        if (size > 0) {
            test_client_send_raw(&client, &header, size, &fd, 1);
        }
        close(fd);
        close(client.fd);
        client.fd = -1;
        assert_int_equal(vfio_user_endpoint_ready(&endpoint), -ECONNRESET);
        teardown(state);
        setup(state);
    }
}

static void a_client_that_does_not_read_is_not_read(void **state)
{
    struct vfio_user_region_access access = {.region = 2, .count = 65536};
    unsigned sent = 0, received = 0;

    (void)state;
    while (vfio_user_endpoint_events(&endpoint) & POLLIN) {
        test_client_send(&client, VFIO_USER_REGION_READ, 0, &access, sizeof(access), NULL, 0);
        assert_int_equal(vfio_user_endpoint_ready(&endpoint), 0);
        assert_true(++sent < 1000);
    }
    assert_int_equal(vfio_user_endpoint_events(&endpoint), POLLOUT);
    assert_true(endpoint.connection.output_end - endpoint.connection.output_first <
                VFIO_USER_OUTPUT_LIMIT + 65536 + 64);
    test_client_send(&client, VFIO_USER_DEVICE_RESET, 0, NULL, 0, NULL, 0);
    assert_int_equal(vfio_user_endpoint_ready(&endpoint), 0);
    assert_int_equal(recorder.resets, 0);
    /* Interrupt messages are not piled up either. */
    assert_int_equal(recorder.function.bus->write_message(&endpoint, 0xfee00000, 1), -ENOBUFS);
    assert_int_equal(endpoint.messages_lost, 1);
    while (test_client_receive(&client)) {
        received++;
        assert_int_equal(vfio_user_endpoint_ready(&endpoint), 0);
    }
    assert_int_equal(received, sent + 1);
    assert_int_equal(recorder.resets, 1);
    assert_int_equal(vfio_user_endpoint_events(&endpoint), POLLIN);
}

/* What is kept is whole and in order, however little of it the client takes at a time. */
static void replies_are_kept_in_order(void **state)
{
    struct vfio_user_region_access access = {.region = 2};
    uint8_t *stream = malloc(8 << 20);
    size_t have = 0, at = 0;
    unsigned id = 0;
    ssize_t n = 0;

    (void)state;
    assert_non_null(stream);
    for (unsigned i = 0; i < 300 || n > 0; i++) {
        n = i < 6 ? 0 : recv(client.fd, stream + have, i < 300 ? 7001 : 65536, MSG_DONTWAIT);
        have += n > 0 ? (size_t)n : 0;
        access.count = i < 6 || i % 5 == 0 ? 50000 - i * 7 : i;
        if (i < 200 && (vfio_user_endpoint_events(&endpoint) & POLLIN)) {
            test_client_send(&client, VFIO_USER_REGION_READ, 0, &access, sizeof(access), NULL, 0);
        }
        assert_int_equal(vfio_user_endpoint_ready(&endpoint), 0);
    }
    while (at < have) {
        struct vfio_user_header header;

        memcpy(&header, stream + at, sizeof(header));
        memcpy(&access, stream + at + sizeof(header), sizeof(access));
        id = id ? id + 1 : header.id;
        assert_int_equal(header.id, id);
        assert_int_equal(header.size, sizeof(header) + sizeof(access) + access.count);
        for (size_t i = sizeof(header) + sizeof(access); i < header.size; i++) {
            assert_int_equal(stream[at + i], 0x22);
        }
        at += header.size;
    }
    assert_int_equal(at, have);
    assert_true(id > 20);
    free(stream);
}

static void interrupt_messages_are_dma_writes(void **state)
{
    struct vfio_user_dma_access access;
    uint32_t data;

    (void)state;
    assert_int_equal(recorder.function.bus->write_message(&endpoint, 0xfee01000, 0x4041), 0);
    assert_int_equal(test_client_receive(&client), 1);
    assert_int_equal(client.header.command, VFIO_USER_DMA_WRITE);
    assert_int_equal(client.header.flags, VFIO_USER_TYPE_COMMAND | VFIO_USER_NO_REPLY);
    assert_int_equal(client.payload_size, sizeof(access) + sizeof(data));
    memcpy(&access, client.payload, sizeof(access));
    memcpy(&data, client.payload + sizeof(access), sizeof(data));
    assert_int_equal(access.address, 0xfee01000);
    assert_int_equal(access.count, 4);
    assert_int_equal(data, 0x4041);
    /* To a client that is gone: an error now, and the end at the next look. */
    close(client.fd);
    client.fd = -1;
    assert_true(recorder.function.bus->write_message(&endpoint, 0xfee01000, 1) < 0);
    assert_true(vfio_user_endpoint_ready(&endpoint) < 0);
}

/* The last test: what is put aside stays. There is an end to that, and no commands suffer but those
 * with descriptors. */
static void descriptors_that_are_better_not_closed(void **state)
{
    unsigned before, sent = 0, after;
    int fd, domain, ret = 0;
    socklen_t size = sizeof(domain);

    (void)state;
    before = foreign_aside();
    for (unsigned i = 0; i < FOREIGN_ASIDE_MAX + 8; i++) {
        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0) {
            break;
        }
        ret = test_client_command_fds(&client, VFIO_USER_DEVICE_RESET, NULL, 0, &fd, 1);
        close(fd);
        sent++;
    }
    after = foreign_aside();
    for (fd = 3; fd < 4 * FOREIGN_ASIDE_MAX; fd++) {
        if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_INET) {
            close(fd);
        }
    }
    if (sent == 0) {
        skip();
    }
    assert_int_equal(before, 0);
    assert_int_equal(after, FOREIGN_ASIDE_MAX);
    assert_int_equal(ret, -EINVAL);
    assert_int_equal(test_client_command(&client, VFIO_USER_DEVICE_RESET, NULL, 0), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(no_reply_is_honoured),
        TEST(the_largest_read_arrives_whole),
        TEST(descriptors_nobody_wants_are_closed),
        TEST(a_flood_of_descriptors_on_single_bytes),
        TEST(messages_may_come_byte_by_byte),
        TEST(many_messages_may_come_at_once),
        TEST(sizes_that_cannot_be_end_the_connection),
        TEST(the_largest_message_is_taken),
        TEST(end_of_stream_anywhere),
        TEST(a_client_that_does_not_read_is_not_read),
        TEST(replies_are_kept_in_order),
        TEST(interrupt_messages_are_dma_writes),
        TEST(descriptors_that_are_better_not_closed),
    };

    server_log_to(NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
