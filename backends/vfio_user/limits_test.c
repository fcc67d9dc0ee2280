/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the client at its limits: no descriptors left, no place for another command, a server
 * that does not read or is gone when it is to be fenced, and answers to mappings that come in
 * another order or with what they must not bring.
 */
#include "vfio_user/test_far.h"

#include <fcntl.h>
#include <sys/socket.h>

#include "vfio_user/client.h"

static struct test_world world;
static struct viommu_subscription what;
static struct vfio_user_header came[8]; /* the last commands that the server took */
static struct vfio_user_dma_unmap unmapped[8];

static int setup(void **state)
{
    (void)state;
    test_world_open(&world, NULL);
    assert_int_equal(viommu_vfio_user_subscription(world.client, &what), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    test_world_close(&world);
    return 0;
}

static int change(enum viommu_change_kind kind, uint64_t first)
{
    const struct viommu_change change = {
        .kind = kind, .first = first, .last = first + 0xfff, .fd = -1, .perm = VIOMMU_READ};

    return what.change(what.opaque, &change);
}

static int map(uint64_t first)
{
    return change(VIOMMU_CHANGE_MAP, first);
}

static int unmap(uint64_t first)
{
    return change(VIOMMU_CHANGE_UNMAP, first);
}

static void take(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(test_far_receive(&world.far, world.far.fd), 1);
        came[i] = world.far.header;
        if (came[i].command == VFIO_USER_DMA_UNMAP) {
            memcpy(&unmapped[i], world.far.payload, sizeof(unmapped[i]));
        }
    }
}

static void answer(unsigned i, uint32_t error)
{
    struct vfio_user_header header = came[i];
    bool unmaps = header.command == VFIO_USER_DMA_UNMAP && !error;

    header.flags = VFIO_USER_TYPE_REPLY | (error ? VFIO_USER_ERROR : 0);
    header.error = error;
    test_far_send(world.far.fd, header, &unmapped[i], unmaps ? sizeof(unmapped[i]) : 0, NULL, 0,
                  NULL, 0);
    assert_int_equal(viommu_vfio_user_process(world.client), 0);
}

static int send_bytes(size_t size, const int *fds, unsigned n_fds)
{
    static const uint8_t data[VFIO_USER_MAX_PAYLOAD];

    return viommu_vfio_user_send(world.client, VFIO_USER_REGION_WRITE, data, size, NULL, 0, fds,
                                 n_fds, NULL, NULL);
}

static void fill(void)
{
    while (world.client->main.output.bytes == 0) {
        assert_int_equal(send_bytes(100000, NULL, 0), 0);
    }
}

static void ignore(void *opaque, const struct viommu_vfio_user_reply *reply)
{
    (void)opaque;
    (void)reply;
}

/* What has to wait needs descriptors of its own: without them nothing was sent, and all goes on. */
static void without_descriptors_nothing_waits(void **state)
{
    const int fds[2] = {world.memory_fd, world.memory_fd};
    unsigned before;

    (void)state;
    fill();
    before = support_open_fds();
    for (unsigned left = 0; left < 2; left++) {
        support_starve_fds(world.memory_fd, left);
        assert_int_equal(send_bytes(4, fds, 2), -EMFILE);
        support_feed_fds();
        assert_int_equal(support_open_fds(), before);
    }
    assert_int_equal(send_bytes(4, fds, 2), 0);
    assert_int_equal(support_open_fds(), before + 2);
    assert_int_equal(viommu_vfio_user_process(world.client), 0);
    assert_int_equal(world.failed, 0);
}

/* Descriptors that come when there is no room for them make an answer one without a result. */
static void descriptors_that_find_no_room(void **state)
{
    const int fds[2] = {world.memory_fd, world.memory_fd};
    struct vfio_user_header header;

    (void)state;
    assert_int_equal(map(0), VIOMMU_PENDING);
    take(1);
    header = came[0];
    header.flags = VFIO_USER_TYPE_REPLY;
    test_far_send(world.far.fd, header, NULL, 0, NULL, 0, fds, 2);
    support_starve_fds(world.memory_fd, 0);
    assert_int_equal(viommu_vfio_user_process(world.client), -EPROTO);
    support_feed_fds();
}

static void no_place_for_another_command(void **state)
{
    (void)state;
    for (unsigned i = 0; i < REQUESTS_MAX - REQUESTS_OWN; i++) {
        assert_int_equal(viommu_vfio_user_send(world.client, VFIO_USER_DEVICE_RESET, NULL, 0, NULL,
                                               0, NULL, 0, ignore, NULL),
                         0);
    }
    for (unsigned i = 0; i < REQUESTS_OWN; i++) {
        assert_int_equal(map(i << 12), VIOMMU_PENDING);
    }
    assert_int_equal(map(0x100000), -ENOBUFS);
    assert_int_equal(unmap(0), -ENOBUFS);
    assert_int_equal(test_world_statistics(&world).maps, REQUESTS_OWN);
    assert_int_equal(test_world_statistics(&world).unmaps, 0);
    assert_int_equal(viommu_vfio_user_process(world.client), 0);
    /* It cannot be asked to drop everything: then it is cut off. */
    assert_int_equal(what.fence(what.opaque), -ENOBUFS);
    test_world_expect_failed(&world, -ENOBUFS);
}

/* Once it is cut off nothing is sent or kept, though nobody has looked yet. */
static void after_the_cut_there_is_nothing(void **state)
{
    size_t waits;

    (void)state;
    assert_int_equal(map(0), VIOMMU_PENDING);
    fill();
    assert_int_equal(what.fence(what.opaque), -ETIMEDOUT);
    waits = world.client->main.output.bytes;
    assert_int_equal(map(0x1000), -EPIPE);
    assert_int_equal(unmap(0), -EPIPE);
    assert_int_equal(what.fence(what.opaque), -EPIPE);
    assert_int_equal(send_bytes(4, NULL, 0), -EPIPE);
    assert_int_equal(world.client->main.output.bytes, waits);
    assert_int_equal(test_world_statistics(&world).unmaps, 1);
    test_world_expect_failed(&world, -ETIMEDOUT);
    assert_int_equal(what.fence(what.opaque), -EPIPE);
}

static void one_that_is_gone_when_it_is_fenced(void **state)
{
    (void)state;
    assert_int_equal(map(0), VIOMMU_PENDING);
    fill();
    close(world.far.fd);
    world.far.fd = -1;
    assert_int_equal(what.fence(what.opaque), -EPIPE);
    test_world_expect_failed(&world, -ECONNRESET);
}

/* An UNMAP that is answered before the MAP, and one more; then the MAP is refused. */
static void answers_in_another_order(void **state)
{
    (void)state;
    assert_int_equal(map(0), VIOMMU_PENDING);
    assert_int_equal(unmap(0), VIOMMU_PENDING);
    assert_int_equal(unmap(0), VIOMMU_PENDING);
    take(3);
    answer(2, 0);
    answer(1, 0);
    answer(0, ENOSPC);
    assert_int_equal(test_world_statistics(&world).mappings, 0);
    assert_int_equal(what.fence(what.opaque), 0);
    assert_int_equal(world.failed, 0);
}

/* Only the answer to the last of several fences says that nothing is there. */
static void a_fence_is_confirmed_by_its_own_answer(void **state)
{
    (void)state;
    assert_int_equal(map(0), VIOMMU_PENDING);
    assert_int_equal(what.fence(what.opaque), -EINPROGRESS);
    assert_int_equal(map(0x1000), VIOMMU_PENDING);
    assert_int_equal(what.fence(what.opaque), -EINPROGRESS);
    take(4);
    answer(0, 0);
    answer(1, 0);
    assert_int_equal(test_world_statistics(&world).mappings, 1);
    assert_int_equal(what.fence(what.opaque), -EINPROGRESS);
    take(1);
    answer(0, 0);
    assert_int_equal(what.fence(what.opaque), 0);
    assert_int_equal(test_world_statistics(&world).mappings, 0);
}

/* Answers to what the backend asks are exactly as they must be. */
static void answers_with_more_or_other(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        struct vfio_user_header header;
        struct vfio_user_dma_unmap other;

        assert_int_equal(i < 2 ? map(0x1000) : unmap(0x1000), VIOMMU_PENDING);
        take(1);
        header = came[0];
        header.flags = VFIO_USER_TYPE_REPLY;
        other = unmapped[0];
        other.address += i == 2;
        other.size += i == 3;
        /* A file that nobody wants; bytes; another place; another size. */
        test_far_send(world.far.fd, header, &other,
                      i == 0   ? 0
                      : i == 1 ? 4
                               : sizeof(other),
                      NULL, 0, &world.memory_fd, i == 0);
        test_world_expect_failed(&world, -EPROTO);
        test_world_reconnect(&world);
        assert_int_equal(viommu_vfio_user_subscription(world.client, &what), 0);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(without_descriptors_nothing_waits),      TEST(descriptors_that_find_no_room),
        TEST(no_place_for_another_command),           TEST(after_the_cut_there_is_nothing),
        TEST(one_that_is_gone_when_it_is_fenced),     TEST(answers_in_another_order),
        TEST(a_fence_is_confirmed_by_its_own_answer), TEST(answers_with_more_or_other),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
