/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the client: agreeing on a version, commands and their answers, time-outs, and servers
 * that do wrong or do too much.
 */
#include "vfio_user/test_far.h"

#include "base/alloc.h"
#include "common/foreign.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>

static struct test_world world;

static int setup(void **state)
{
    (void)state;
    test_world_open(&world, NULL);
    return 0;
}

static int setup_unconnected(void **state)
{
    (void)state;
    test_world_open(&world, &(struct test_wanted){.no_client = true});
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    test_world_close(&world);
    return 0;
}

/* ---- versions -------------------------------------------------------------------------------- */

static void agrees_on_a_version(void **state)
{
    struct vfio_user_version version;

    (void)state;
    test_world_connect_silently(&world, 0);
    world.ready = 0;
    memcpy(&version, world.far.payload, sizeof(version));
    assert_int_equal(version.major, 0);
    assert_int_equal(version.minor, 0);
    assert_int_equal(viommu_vfio_user_process(world.client), 0);
    assert_int_equal(world.ready, 0);
    assert_int_equal(viommu_vfio_user_transfer_max(world.client), 0);
    assert_int_equal(viommu_vfio_user_send(world.client, 13, NULL, 0, NULL, 0, NULL, 0, NULL, NULL),
                     -EAGAIN);
    test_far_answer_version(&world.far, 0, 0, "{\"capabilities\":{\"max_data_xfer_size\":5000}}", 0,
                            NULL, 0);
    assert_true(test_world_is_readable(&world));
    assert_int_equal(viommu_vfio_user_process(world.client), 0);
    assert_int_equal(world.ready, 1);
    assert_int_equal(viommu_vfio_user_transfer_max(world.client), 5000);
    test_world_connect_silently(&world, 0);
    test_far_answer_version(&world.far, 0, 0,
                            "{\"capabilities\":{\"max_data_xfer_size\":500000000}}", 0, NULL, 0);
    assert_int_equal(viommu_vfio_user_process(world.client), 0);
    assert_int_equal(viommu_vfio_user_transfer_max(world.client), 1048576);
}

static void versions_that_do_not_fit(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 6; i++) {
        test_world_connect_silently(&world, 0);
        test_far_answer_version(&world.far, i == 0, i == 1,
                                i == 2   ? "{"
                                : i == 3 ? "{\"capabilities\":7}"
                                         : "",
                                i == 4 ? VFIO_USER_ERROR : 0, NULL, 0);
        if (i < 5) {
            test_world_expect_failed(&world, -EPROTO);
        } else {
            assert_int_equal(viommu_vfio_user_process(world.client), 0);
        }
    }
    test_world_connect_silently(&world, 0);
    world.far.header.flags = VFIO_USER_TYPE_REPLY;
    test_far_send(world.far.fd, world.far.header, "abc", 3, NULL, 0, NULL, 0);
    test_world_expect_failed(&world, -EPROTO);
    /* A command before there is a version. */
    test_world_connect_silently(&world, 0);
    test_far_dma(world.far.fd, VFIO_USER_DMA_READ, 0, 1, 0, 4, NULL, 0);
    test_world_expect_failed(&world, -EPROTO);
    assert_int_equal(world.ready, 2); /* the usual one, and the last of the six */
}

static void configurations_that_make_no_sense(void **state)
{
    struct viommu_vfio_user_config config = {.device = world.device, .fd = -1};
    struct viommu_vfio_user *client;
    int pair[2];

    (void)state;
    assert_int_equal(viommu_vfio_user_create(&config, &client), -EINVAL);
    assert_int_equal(viommu_vfio_user_create(NULL, &client), -EINVAL);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    config.fd = pair[0];
    assert_int_equal(viommu_vfio_user_create(&config, NULL), -EINVAL);
    config.device = NULL;
    assert_int_equal(viommu_vfio_user_create(&config, &client), -EINVAL);
    config.device = world.device;
    for (unsigned n = 1;; n++) {
        base_alloc_fail_at(n);
        if (viommu_vfio_user_create(&config, &client) == 0) {
            break;
        }
        assert_true(base_alloc_failed());
        assert_true(fcntl(pair[0], F_GETFD) >= 0); /* it is the caller's */
    }
    base_alloc_fail_at(0);
    viommu_vfio_user_destroy(client);
    assert_int_equal(fcntl(pair[0], F_GETFD), -1);
    close(pair[1]);
    viommu_vfio_user_destroy(NULL);
    /* One who left already is found out later, as ever. */
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    close(pair[1]);
    config.fd = pair[0];
    assert_int_equal(viommu_vfio_user_create(&config, &client), 0);
    assert_int_equal(viommu_vfio_user_process(client), -ECONNRESET);
    viommu_vfio_user_destroy(client);
}

/* ---- commands -------------------------------------------------------------------------------- */

static struct {
    unsigned count;
    int error;
    size_t size;
    uint8_t data[64];
    unsigned fd_count;
    int taken;
    unsigned again;          /* so often it sends another from inside */
    int opaque[REGIONS_MAX]; /* of each call, in order */
} replies;

static void on_reply(void *opaque, const struct viommu_vfio_user_reply *reply)
{
    replies.opaque[replies.count++ % REGIONS_MAX] = (int)(intptr_t)opaque;
    replies.error = reply->error;
    replies.size = reply->size;
    if (reply->size) {
        memcpy(replies.data, reply->data, reply->size < 64 ? reply->size : 64);
    }
    replies.fd_count = reply->fd_count;
    replies.taken = -1;
    if (reply->fd_count > 1) {
        replies.taken = reply->fds[1];
        reply->fds[1] = -1;
    }
    /* Anything may be called from here. */
    (void)viommu_vfio_user_process(world.client);
    (void)test_world_statistics(&world);
    if (replies.again) {
        replies.again--;
        (void)viommu_vfio_user_send(world.client, VFIO_USER_DEVICE_RESET, NULL, 0, NULL, 0, NULL, 0,
                                    on_reply, opaque);
    }
}

static int send_command(uint16_t command, const void *data, size_t size, int number)
{
    return viommu_vfio_user_send(world.client, command, data, size, "xy", 2, NULL, 0, on_reply,
                                 (void *)(intptr_t)number);
}

static void answer(const struct vfio_user_header *command, uint32_t flags, uint32_t error,
                   const void *data, size_t size, const int *fds, unsigned n_fds)
{
    struct vfio_user_header header = *command;

    header.flags = VFIO_USER_TYPE_REPLY | flags;
    header.error = error;
    test_far_send(world.far.fd, header, data, size, NULL, 0, fds, n_fds);
}

static void commands_are_answered(void **state)
{
    int fds[3] = {world.memory_fd, world.memory_fd, world.memory_fd};
    unsigned before = support_open_fds();

    (void)state;
    memset(&replies, 0, sizeof(replies));
    assert_int_equal(send_command(VFIO_USER_REGION_READ, "abcd", 4, 5), 0);
    assert_int_equal(test_far_receive(&world.far, world.far.fd), 1);
    assert_int_equal(world.far.header.command, VFIO_USER_REGION_READ);
    assert_int_equal(world.far.header.flags, 0);
    assert_int_equal(world.far.payload_size, 6);
    assert_memory_equal(world.far.payload, "abcdxy", 6);
    assert_int_equal(replies.count, 0);
    answer(&world.far.header, 0, 0, "hello", 5, fds, 3);
    assert_int_equal(viommu_vfio_user_process(world.client), 0);
    assert_int_equal(replies.count, 1);
    assert_int_equal(replies.opaque[0], 5);
    assert_int_equal(replies.error, 0);
    assert_int_equal(replies.size, 5);
    assert_memory_equal(replies.data, "hello", 5);
    assert_int_equal(replies.fd_count, 3);
    assert_int_equal(viommu_vfio_user_process(world.client), 0);
    assert_int_equal(support_open_fds(), before + 1); /* what was not taken is closed */
    close(replies.taken);
    /* An error; a nameless one; one out of range; with descriptors lost. */
    for (unsigned i = 0; i < 4; i++) {
        static const uint32_t errors[] = {ENOENT, 0, 5000, 0};
        int many[9];

        for (unsigned j = 0; j < 9; j++) {
            many[j] = world.memory_fd;
        }
        assert_int_equal(send_command(VFIO_USER_REGION_READ, NULL, 0, 6), 0);
        assert_int_equal(test_far_receive(&world.far, world.far.fd), 1);
        answer(&world.far.header, i < 3 ? VFIO_USER_ERROR : 0, errors[i], NULL, 0, many,
               i < 3 ? 0 : 9);
        assert_int_equal(viommu_vfio_user_process(world.client), 0);
        assert_int_equal(replies.error, i == 0 ? -ENOENT : i < 3 ? -EIO : -EMFILE);
        if (replies.taken >= 0) {
            close(replies.taken);
        }
    }
    assert_int_equal(replies.count, 5);
}

static void commands_that_are_refused(void **state)
{
    static const uint16_t own[] = {VFIO_USER_VERSION, VFIO_USER_DMA_MAP, VFIO_USER_DMA_UNMAP,
                                   VFIO_USER_DMA_READ, VFIO_USER_DMA_WRITE};
    int fds[9] = {0};
    int bad = 999;

    (void)state;
    for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++) {
        assert_int_equal(send_command(own[i], NULL, 0, 0), -EINVAL);
    }
    assert_int_equal(viommu_vfio_user_send(world.client, 9, NULL, VFIO_USER_MAX_PAYLOAD + 1, NULL,
                                           0, NULL, 0, NULL, NULL),
                     -EINVAL);
    assert_int_equal(viommu_vfio_user_send(world.client, 9, fds, 1, fds, VFIO_USER_MAX_PAYLOAD,
                                           NULL, 0, NULL, NULL),
                     -EINVAL);
    assert_int_equal(viommu_vfio_user_send(world.client, 8, NULL, 0, NULL, 0, fds, 9, NULL, NULL),
                     -EINVAL);
    /* Bytes and descriptors that are nowhere. */
    assert_int_equal(viommu_vfio_user_send(world.client, 9, NULL, 1, NULL, 0, NULL, 0, NULL, NULL),
                     -EINVAL);
    assert_int_equal(viommu_vfio_user_send(world.client, 9, NULL, 0, NULL, 1, NULL, 0, NULL, NULL),
                     -EINVAL);
    assert_int_equal(viommu_vfio_user_send(world.client, 8, NULL, 0, NULL, 0, NULL, 1, NULL, NULL),
                     -EINVAL);
    assert_int_equal(viommu_vfio_user_send(world.client, 8, NULL, 0, NULL, 0, &bad, 1, NULL, NULL),
                     -EBADF);
    assert_int_equal(test_far_receive(&world.far, world.far.fd), 0);
    assert_int_equal(viommu_vfio_user_send(world.client, 8, NULL, 0, NULL, 0, fds, 8, NULL, NULL),
                     0);
    assert_int_equal(test_far_receive(&world.far, world.far.fd), 1);
    assert_int_equal(world.far.n_fds, 8);
    /* A server that takes one descriptor gets no two. */
    test_world_connect_silently(&world, 0);
    test_far_answer_version(&world.far, 0, 0, "", 0, NULL, 0);
    assert_int_equal(viommu_vfio_user_process(world.client), 0);
    assert_int_equal(viommu_vfio_user_send(world.client, 8, NULL, 0, NULL, 0, fds, 2, NULL, NULL),
                     -EINVAL);
    assert_int_equal(viommu_vfio_user_send(world.client, 8, NULL, 0, NULL, 0, fds, 1, NULL, NULL),
                     0);
}

static void answers_in_any_order(void **state)
{
    struct vfio_user_header commands[100];

    (void)state;
    memset(&replies, 0, sizeof(replies));
    for (int round = 0; round < 400; round++) {
        int n = 1 + round % 100;

        replies.count = 0;
        for (int i = 0; i < n; i++) {
            assert_int_equal(send_command(VFIO_USER_DEVICE_RESET, NULL, 0, i), 0);
            assert_int_equal(test_far_receive(&world.far, world.far.fd), 1);
            commands[i] = world.far.header;
        }
        for (int i = n - 1; i >= 0; i--) {
            commands[i].command = i % 2 ? 0 : commands[i].command; /* some leave it out */
            answer(&commands[i], 0, 0, NULL, 0, NULL, 0);
        }
        assert_int_equal(viommu_vfio_user_process(world.client), 0);
        assert_int_equal(viommu_vfio_user_process(world.client), 0);
        assert_int_equal(replies.count, n);
        for (int i = 0; i < n; i++) {
            assert_int_equal(replies.opaque[i], n - 1 - i);
        }
    }
}

static void a_reply_may_send(void **state)
{
    (void)state;
    memset(&replies, 0, sizeof(replies));
    replies.again = 50;
    assert_int_equal(send_command(VFIO_USER_DEVICE_RESET, NULL, 0, 1), 0);
    for (unsigned i = 0; i < 51; i++) {
        test_far_step(&world.far);
        assert_int_equal(viommu_vfio_user_process(world.client), 0);
    }
    assert_int_equal(replies.count, 51);
}

/* What broke in the midst of that is told, and then there is no more work. */
static void a_reply_may_send_in_vain(void **state)
{
    (void)state;
    memset(&replies, 0, sizeof(replies));
    replies.again = 1;
    assert_int_equal(send_command(VFIO_USER_DEVICE_RESET, NULL, 0, 1), 0);
    test_far_step(&world.far);
    assert_int_equal(shutdown(world.far.fd, SHUT_RD), 0);
    assert_int_equal(viommu_vfio_user_process(world.client), -ECONNRESET);
    assert_int_equal(world.failed, 1);
    assert_false(test_world_is_readable(&world));
}

static void too_many_commands_are_refused(void **state)
{
    static uint8_t large[VFIO_USER_MAX_PAYLOAD];
    unsigned sent = 0;
    struct viommu_change change = {.kind = VIOMMU_CHANGE_MAP, .last = 0xfff, .fd = -1, .perm = 3};
    struct viommu_subscription what;

    (void)state;
    memset(&replies, 0, sizeof(replies));
    while (send_command(VFIO_USER_DEVICE_RESET, NULL, 0, 1) == 0) {
        assert_true(++sent < 1000);
    }
    assert_int_equal(sent, 248);
    assert_int_equal(send_command(VFIO_USER_DEVICE_RESET, NULL, 0, 1), -ENOBUFS);
    /* The backend's own have a place. */
    assert_int_equal(viommu_vfio_user_subscription(world.client, &what), 0);
    assert_int_equal(what.change(what.opaque, &change), VIOMMU_PENDING);
    test_far_step(&world.far);
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(viommu_vfio_user_process(world.client), 0);
    }
    assert_int_equal(replies.count, 248);
    assert_int_equal(world.far.region_count, 1);
    /* Bytes that nobody reads are bounded, too. */
    sent = 0;
    while (viommu_vfio_user_send(world.client, 10, large, sizeof(large), NULL, 0, NULL, 0, NULL,
                                 NULL) == 0) {
        assert_true(++sent < 10);
    }
    assert_true(sent >= 1 && sent <= 3);
    assert_int_equal(what.change(what.opaque, &(struct viommu_change){.kind = VIOMMU_CHANGE_UNMAP,
                                                                      .last = 0xfff}),
                     VIOMMU_PENDING);
    assert_int_equal(world.failed, 0);
}

/* ---- servers that do wrong ------------------------------------------------------------------- */

static void answers_that_nobody_asked_for(void **state)
{
    struct vfio_user_header commands[2];

    (void)state;
    /* Any id, with nothing waiting. */
    for (unsigned id = 0; id < 0x10000; id += 0x1111) {
        answer(&(struct vfio_user_header){.id = (uint16_t)id, .command = 9}, 0, 0, NULL, 0, NULL,
               0);
        test_world_expect_failed(&world, -EPROTO);
        test_world_reconnect(&world);
    }
    for (unsigned i = 0; i < 7; i++) {
        memset(&replies, 0, sizeof(replies));
        assert_int_equal(send_command(VFIO_USER_DEVICE_RESET, NULL, 0, 1), 0);
        assert_int_equal(test_far_receive(&world.far, world.far.fd), 1);
        commands[0] = commands[1] = world.far.header;
        switch (i) {
        case 0: /* twice */
            answer(&commands[0], 0, 0, NULL, 0, NULL, 0);
            break;
        case 1: /* as another command */
            commands[1].command = VFIO_USER_REGION_READ;
            break;
        case 2: /* the number of another use of the same place */
            commands[1].id = (uint16_t)(commands[1].id + 256);
            break;
        case 3: /* of a command that wants none */
            assert_int_equal(
                viommu_vfio_user_send(world.client, 10, NULL, 0, NULL, 0, NULL, 0, NULL, NULL), 0);
            assert_int_equal(test_far_receive(&world.far, world.far.fd), 1);
            assert_int_equal(world.far.header.flags, VFIO_USER_NO_REPLY);
            commands[1] = world.far.header;
            break;
        case 6: /* a late one of another, which had the same place */
            answer(&commands[0], 0, 0, NULL, 0, NULL, 0);
            assert_int_equal(viommu_vfio_user_process(world.client), 0);
            replies.count = 0;
            assert_int_equal(send_command(VFIO_USER_DEVICE_RESET, NULL, 0, 1), 0);
            break;
        case 4: /* one of VERSION, again */
            commands[1].command = VFIO_USER_VERSION;
            break;
        default:
            commands[1].id ^= 0x8000;
            break;
        }
        answer(&commands[1], 0, 0, NULL, 0, NULL, 0);
        test_world_expect_failed(&world, -EPROTO);
        assert_int_equal(replies.count, 1);
        assert_int_equal(replies.error, i == 0 ? 0 : -EPROTO);
        test_world_reconnect(&world);
    }
    /* A kind of message that there is not. */
    test_far_dma(world.far.fd, VFIO_USER_DMA_READ, 2, 1, 0, 4, NULL, 0);
    test_world_expect_failed(&world, -EPROTO);
}

static void answers_of_the_wrong_size(void **state)
{
    struct viommu_change map = {
        .kind = VIOMMU_CHANGE_MAP, .first = 0x1000, .last = 0x1fff, .fd = -1, .perm = 3};
    struct viommu_change unmap = {.kind = VIOMMU_CHANGE_UNMAP, .first = 0x1000, .last = 0x1fff};

    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        struct viommu_subscription what;
        struct {
            struct vfio_user_dma_unmap unmap;
            uint8_t more;
        } told = {.unmap = {.argsz = 24, .address = 0x1000, .size = 0x1000}};

        assert_int_equal(viommu_vfio_user_subscription(world.client, &what), 0);
        assert_int_equal(what.change(what.opaque, i ? &unmap : &map), VIOMMU_PENDING);
        assert_int_equal(test_far_receive(&world.far, world.far.fd), 1);
        told.unmap.size -= i == 4;
        told.unmap.address += i == 5;
        answer(&world.far.header, 0, 0, &told,
               i == 0   ? 1
               : i == 1 ? 0
               : i == 2 ? 23
               : i == 6 ? 25
                        : 24,
               &world.far.fd, i == 7);
        if (i == 3) { /* the right one */
            assert_int_equal(viommu_vfio_user_process(world.client), 0);
        } else {
            test_world_expect_failed(&world, -EPROTO);
        }
        test_world_reconnect(&world);
    }
}

static void sizes_that_cannot_be(void **state)
{
    static const uint32_t sizes[] = {0, 15, VFIO_USER_MAX_PAYLOAD + 17, UINT32_MAX};

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct vfio_user_header header = {.command = VFIO_USER_DMA_READ, .size = sizes[i]};

        test_far_send_raw(world.far.fd, &header, sizeof(header), NULL, 0);
        test_world_expect_failed(&world, -EPROTO);
        test_world_reconnect(&world);
    }
}

static void the_end_of_the_stream_anywhere(void **state)
{
    struct {
        struct vfio_user_header header;
        struct vfio_user_dma_access access;
    } message = {
        .header = {.command = VFIO_USER_DMA_READ, .size = sizeof(message)},
    };

    (void)state;
    for (size_t size = 0; size < sizeof(message); size++) {
        int fd = eventfd(0, EFD_CLOEXEC);

        memset(&replies, 0, sizeof(replies));
        assert_int_equal(send_command(VFIO_USER_DEVICE_RESET, NULL, 0, 1), 0);
        if (size) {
            test_far_send_raw(world.far.fd, &message, size, &fd, 1);
        }
        close(fd);
        if (size % 2) { /* half of it read */
            assert_int_equal(viommu_vfio_user_process(world.client), 0);
            assert_int_equal(viommu_vfio_user_process(world.client), 0);
        }
        assert_int_equal(shutdown(world.far.fd, SHUT_RDWR), 0);
        test_world_expect_failed(&world, -ECONNRESET);
        assert_int_equal(replies.count, 1);
        assert_int_equal(replies.error, -ECONNRESET);
        test_world_reconnect(&world);
    }
}

static uint64_t now_ms(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_nsec / 1000000;
}

static void time_is_limited(void **state)
{
    struct vfio_user_header first;
    uint64_t begin;

    (void)state;
    test_world_connect_silently(&world, 20);
    usleep(30000);
    assert_true(test_world_is_readable(&world));
    test_world_expect_failed(&world, -ETIMEDOUT);

    test_world_connect_silently(&world, 900);
    test_far_answer_version(&world.far, 0, 0, "", 0, NULL, 0);
    assert_int_equal(viommu_vfio_user_process(world.client), 0);
    usleep(950000);
    assert_int_equal(viommu_vfio_user_process(world.client), 0); /* nothing is waited for */
    assert_false(test_world_is_readable(&world));
    memset(&replies, 0, sizeof(replies));
    /* Each counts for itself. */
    assert_int_equal(send_command(VFIO_USER_DEVICE_RESET, NULL, 0, 1), 0);
    assert_int_equal(test_far_receive(&world.far, world.far.fd), 1);
    first = world.far.header;
    usleep(300000);
    begin = now_ms();
    assert_int_equal(send_command(VFIO_USER_DEVICE_RESET, NULL, 0, 2), 0);
    answer(&first, 0, 0, NULL, 0, NULL, 0);
    assert_int_equal(viommu_vfio_user_process(world.client), 0);
    do { /* it tells of the time by itself */
        assert_int_equal(
            poll(&(struct pollfd){viommu_vfio_user_event_fd(world.client), POLLIN, 0}, 1, 20000),
            1);
    } while (viommu_vfio_user_process(world.client) == 0);
    assert_true(now_ms() - begin >= 900);
    assert_int_equal(world.error, -ETIMEDOUT);
    assert_int_equal(replies.count, 2);
    assert_int_equal(replies.error, -ETIMEDOUT);
    assert_int_equal(replies.opaque[1], 2);
}

/* A send finds that it left: viommu_vfio_user_process is wanted, and says so. */
static void who_left_is_found_by_a_send(void **state)
{
    struct viommu_subscription what;
    struct viommu_change change = {
        .kind = VIOMMU_CHANGE_MAP, .last = 0xfff, .fd = -1, .perm = VIOMMU_READ};

    (void)state;
    assert_int_equal(viommu_vfio_user_subscription(world.client, &what), 0);
    close(world.far.fd);
    world.far.fd = -1;
    assert_int_equal(send_command(VFIO_USER_DEVICE_RESET, NULL, 0, 1), -EPIPE);
    assert_int_equal(what.change(what.opaque, &change), -EPIPE);
    assert_int_equal(world.failed, 0);
    assert_true(test_world_is_readable(&world));
    test_world_expect_failed(&world, -ECONNRESET);
    assert_int_equal(what.change(what.opaque, &change), -EPIPE);
}

/* Though others have copies of our end. */
static void the_server_sees_the_end(void **state)
{
    struct viommu_vfio_user_config config = {.device = world.device};
    struct viommu_vfio_user *client;
    uint8_t scrap[1000];
    int pair[2], copy;

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    copy = fcntl(pair[0], F_DUPFD_CLOEXEC, 0);
    assert_true(copy >= 0);
    config.fd = pair[0];
    assert_int_equal(viommu_vfio_user_create(&config, &client), 0);
    viommu_vfio_user_destroy(client);
    assert_true(recv(pair[1], scrap, sizeof(scrap), MSG_DONTWAIT) > 0); /* VERSION */
    assert_int_equal(recv(pair[1], scrap, sizeof(scrap), MSG_DONTWAIT), 0);
    close(copy);
    close(pair[1]);
}

static void no_reply_after_the_end_of_the_object(void **state)
{
    (void)state;
    memset(&replies, 0, sizeof(replies));
    assert_int_equal(send_command(VFIO_USER_DEVICE_RESET, NULL, 0, 1), 0);
    test_world_reconnect(&world);
    assert_int_equal(replies.count, 0);
    assert_int_equal(world.failed, 0);
}

/* ---- descriptors ----------------------------------------------------------------------------- */

/* A command is answered with two descriptors; returns the error that is told. */
static int answer_with(int fd)
{
    int fds[2] = {fd, fd};

    memset(&replies, 0, sizeof(replies));
    assert_int_equal(send_command(VFIO_USER_DEVICE_GET_REGION_INFO, NULL, 0, 1), 0);
    assert_int_equal(test_far_receive(&world.far, world.far.fd), 1);
    answer(&world.far.header, 0, 0, "hello", 5, fds, 2);
    assert_int_equal(viommu_vfio_user_process(world.client), 0);
    assert_int_equal(replies.count, 1);
    if (replies.taken >= 0) {
        close(replies.taken);
    }
    return replies.error;
}

/* What it sends besides its answers finds no room, and does no harm. */
static void one_that_is_isolated_gives_no_descriptors(void **state)
{
    const struct test_wanted wanted = {.client.isolate = true};
    unsigned before;

    (void)state;
    test_world_disconnect(&world);
    test_world_connect(&world, &wanted);
    test_world_settle(&world);
    before = support_open_fds();
    assert_int_equal(answer_with(world.memory_fd), 0);
    assert_int_equal(replies.fd_count, 0);
    assert_int_equal(replies.size, 5);
    assert_int_equal(support_open_fds(), before);
}

/* Of the room for what is put aside, those that are isolated have half. What is put aside stays, so
 * this comes before the last test. */
static void isolated_ones_leave_room_for_others(void **state)
{
    const struct test_wanted isolated = {.client.isolate = true};
    int sockets[FOREIGN_ASIDE_MAX];
    unsigned count = 0;

    (void)state;
    while (count < FOREIGN_ASIDE_MAX && foreign_aside() < FOREIGN_ASIDE_MAX / 2) {
        sockets[count] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_true(sockets[count] >= 0);
        foreign_close(sockets[count++]);
    }
    test_world_disconnect(&world);
    world.far.capabilities =
        "{\"capabilities\":{\"twin_socket\":{\"supported\":true,\"fd_index\":0}}}";
    test_world_connect(&world, &isolated);
    assert_int_equal(viommu_vfio_user_process(world.client), 0);
    test_far_step(&world.far);
    test_world_expect_failed(&world, -EPROTO); /* its second socket found no room */
    test_world_reconnect(&world);
    assert_int_equal(answer_with(world.memory_fd), 0);
    assert_int_equal(replies.fd_count, 2);
    for (unsigned i = 0; i < count; i++) {
        close(sockets[i]);
    }
}

/* The last test: what is put aside stays. */
static void descriptors_that_are_better_not_closed(void **state)
{
    int sockets[FOREIGN_ASIDE_MAX];
    unsigned count = 0;

    (void)state;
    while (count < FOREIGN_ASIDE_MAX && foreign_aside() < FOREIGN_ASIDE_MAX) {
        assert_int_equal(answer_with(world.memory_fd), 0);
        assert_int_equal(replies.fd_count, 2);
        sockets[count] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_true(sockets[count] >= 0);
        foreign_close(sockets[count++]);
    }
    assert_int_equal(answer_with(world.memory_fd), -EMFILE);
    assert_int_equal(replies.fd_count, 0);
    for (unsigned i = 0; i < count; i++) {
        close(sockets[i]);
    }
}

#define TEST(name)           cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TEST_IN(name, setup) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(agrees_on_a_version),
        TEST(versions_that_do_not_fit),
        TEST_IN(configurations_that_make_no_sense, setup_unconnected),
        TEST(commands_are_answered),
        TEST(commands_that_are_refused),
        TEST(answers_in_any_order),
        TEST(a_reply_may_send),
        TEST(a_reply_may_send_in_vain),
        TEST(too_many_commands_are_refused),
        TEST(answers_that_nobody_asked_for),
        TEST(answers_of_the_wrong_size),
        TEST(sizes_that_cannot_be),
        TEST(the_end_of_the_stream_anywhere),
        TEST(time_is_limited),
        TEST(who_left_is_found_by_a_send),
        TEST(the_server_sees_the_end),
        TEST(no_reply_after_the_end_of_the_object),
        TEST(one_that_is_isolated_gives_no_descriptors),
        TEST(isolated_ones_leave_room_for_others),
        TEST(descriptors_that_are_better_not_closed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
