/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of DMA by messages: on both sockets, right and wrong, more than is read, and interrupts.
 */
#include "vfio_user/test_far.h"

#include "base/alloc.h"

#include <sys/eventfd.h>
#include <sys/socket.h>

static struct test_world world;

static int setup(void **state)
{
    (void)state;
    test_world_open(&world, NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    test_world_close(&world);
    return 0;
}

/* ---- the twin socket ------------------------------------------------------------------------- */

static void twin_sockets_carry_dma(void **state)
{
    uint32_t value = 77;

    (void)state;
    world.far.capabilities = TWIN_CAPABILITIES;
    test_world_disconnect(&world);
    test_world_connect(&world, &(struct test_wanted){0});
    test_world_settle(&world);
    assert_true(world.far.twin >= 0);
    test_world_map(&world, 0x10000, 0x80000, 1, SPEC_R | SPEC_W);
    assert_int_equal(test_world_write(&world, world.far.twin, 0x10000, &value, 4), 0);
    assert_int_equal(guest_load(&world.guest, 0x80000), 77);
    assert_int_equal(test_world_read(&world, world.far.twin, 0x10000, &value, 4), 0);
    /* On the other one, too. */
    assert_int_equal(test_world_read(&world, world.far.fd, 0x10000, &value, 4), 0);
    assert_int_equal(world.failed, 0);
    /* An answer has no place there. */
    test_far_dma(world.far.twin, VFIO_USER_DMA_READ, VFIO_USER_TYPE_REPLY, 1, 0, 4, NULL, 0);
    test_world_expect_failed(&world, -EPROTO);
    assert_int_equal(recv(world.far.twin, &value, 1, MSG_DONTWAIT), 0); /* both are closed */
    assert_int_equal(recv(world.far.fd, &value, 1, MSG_DONTWAIT), 0);
}

/* What waits is answered where it was asked, not here. */
static void an_answer_on_the_twin_is_none(void **state)
{
    struct vfio_user_header header;

    (void)state;
    world.far.capabilities = TWIN_CAPABILITIES;
    test_world_disconnect(&world);
    test_world_connect(&world, &(struct test_wanted){0});
    test_world_settle(&world);
    test_world_subscribe(&world);
    test_world_map(&world, 0x10000, 0x80000, 1, SPEC_R);
    test_world_invalidate(&world);
    (void)viommu_process(world.guest.iommu, 0);
    assert_int_equal(test_far_receive(&world.far, world.far.fd), 1);
    header = world.far.header;
    assert_int_equal(header.command, VFIO_USER_DMA_MAP);
    header.flags = VFIO_USER_TYPE_REPLY;
    test_far_send(world.far.twin, header, NULL, 0, NULL, 0, NULL, 0);
    test_world_expect_failed(&world, -EPROTO);
    assert_int_equal(test_world_statistics(&world).mappings, 0);
}

static void a_twin_that_leaves_is_the_end(void **state)
{
    (void)state;
    world.far.capabilities = TWIN_CAPABILITIES;
    test_world_disconnect(&world);
    test_world_connect(&world, &(struct test_wanted){0});
    test_world_settle(&world);
    close(world.far.twin);
    world.far.twin = -1;
    test_world_expect_failed(&world, -ECONNRESET);
}

static void twins_that_are_none(void **state)
{
    static const char twin[] =
        "{\"capabilities\":{\"twin_socket\":{\"supported\":true,\"fd_index\":1}}}";
    int fds[9];

    (void)state;
    for (unsigned i = 0; i < 9; i++) {
        fds[i] = eventfd(0, EFD_CLOEXEC);
    }
    for (unsigned i = 0; i < 5; i++) {
        int other = i == 3 ? socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)
                           : socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        int sent[9];

        test_world_connect_silently(&world, 0);
        memcpy(sent, fds, sizeof(fds));
        sent[1] = i >= 3 ? other : fds[1];
        /* None; one too few; no socket; one of another kind; of another family. */
        test_far_answer_version(&world.far, 0, 0, twin, 0, sent, i < 2 ? i : 8);
        test_world_expect_failed(&world, -EPROTO);
        close(other);
    }
    /* It is there, but more came than may. */
    for (unsigned i = 0; i < 9; i++) {
        close(fds[i]);
        fds[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    }
    test_world_connect_silently(&world, 0);
    test_far_answer_version(&world.far, 0, 0, twin, 0, fds, 9);
    test_world_expect_failed(&world, -EPROTO);
    /* Not asked for: closed. */
    test_world_connect_silently(&world, 0);
    test_far_answer_version(&world.far, 0, 0, "", 0, fds, 8);
    assert_int_equal(viommu_vfio_user_process(world.client), 0);
    for (unsigned i = 0; i < 9; i++) {
        close(fds[i]);
    }
}

/* ---- dma by message -------------------------------------------------------------------------- */

static int dma_error(uint16_t command, uint64_t address, uint64_t count, size_t size)
{
    static uint8_t data[VFIO_USER_MAX_DATA];

    test_far_dma(world.far.fd, command, 0, 9, address, count, data, size);
    assert_int_equal(viommu_vfio_user_process(world.client), 0);
    assert_int_equal(test_far_receive(&world.far, world.far.fd), 1);
    assert_int_equal(world.far.header.id, 9);
    return (int)world.far.header.error;
}

static void dma_that_is_refused(void **state)
{
    (void)state;
    test_world_map(&world, 0x10000, 0x80000, 1, SPEC_R);
    assert_int_equal(dma_error(VFIO_USER_DMA_READ, 0x10000, 4096, 0), 0);
    assert_int_equal(dma_error(VFIO_USER_DMA_READ, 0x10000, 4097, 0), EFAULT);
    assert_int_equal(dma_error(VFIO_USER_DMA_WRITE, 0x10000, 4, 4), EFAULT); /* it is read only */
    assert_int_equal(dma_error(VFIO_USER_DMA_READ, 0x11000, 4, 0), EFAULT);
    assert_int_equal(dma_error(VFIO_USER_DMA_READ, UINT64_MAX, 2, 0), EINVAL);
    assert_int_equal(dma_error(VFIO_USER_DMA_READ, 0x10000, UINT64_MAX, 0), EINVAL);
    assert_int_equal(dma_error(VFIO_USER_DMA_READ, 0x10000, VFIO_USER_MAX_DATA + 1, 0), EINVAL);
    assert_int_equal(dma_error(VFIO_USER_DMA_READ, 0x10000, 4, 1), EINVAL);
    assert_int_equal(dma_error(VFIO_USER_DMA_WRITE, 0x10000, 4, 3), EINVAL);
    assert_int_equal(dma_error(VFIO_USER_DMA_WRITE, 0x10000, 4, 5), EINVAL);
    assert_int_equal(dma_error(VFIO_USER_DMA_WRITE, 0x10000, UINT64_MAX, 4), EINVAL);
    assert_int_equal(dma_error(VFIO_USER_DMA_WRITE, 0x10000, VFIO_USER_MAX_DATA + 1, 0), EINVAL);
    assert_int_equal(test_world_statistics(&world).reads, 1);
    assert_int_equal(test_world_statistics(&world).writes, 0);
    assert_int_equal(test_world_statistics(&world).refused, 11);
}

static void the_largest_dma(void **state)
{
    uint8_t *data = malloc(VFIO_USER_MAX_DATA), *got = malloc(VFIO_USER_MAX_DATA);
    size_t have = 0, size = VFIO_USER_MAX_DATA + 32;
    uint8_t *message = malloc(size);
    struct vfio_user_header header = {
        .id = 3, .command = VFIO_USER_DMA_WRITE, .size = (uint32_t)size};
    struct vfio_user_dma_access access = {.address = 0x100008, .count = VFIO_USER_MAX_DATA};

    (void)state;
    assert_true(data && got && message);
    for (size_t i = 0; i < VFIO_USER_MAX_DATA; i++) {
        data[i] = (uint8_t)(i >> 3);
    }
    test_world_map(&world, 0x100000, 0x100000, 257, SPEC_R | SPEC_W);
    memcpy(message, &header, 16);
    memcpy(message + 16, &access, 16);
    memcpy(message + 32, data, VFIO_USER_MAX_DATA);
    while (have < size) {
        ssize_t n = send(world.far.fd, message + have, size - have, MSG_DONTWAIT);

        assert_true(n > 0);
        have += (size_t)n;
        assert_int_equal(viommu_vfio_user_process(world.client), 0);
    }
    assert_int_equal(test_far_receive(&world.far, world.far.fd), 1);
    assert_int_equal(world.far.header.error, 0);
    assert_memory_equal((uint8_t *)world.ram + 0x100008, data, VFIO_USER_MAX_DATA);
    test_far_dma(world.far.fd, VFIO_USER_DMA_READ, 0, 4, 0x100008, VFIO_USER_MAX_DATA, NULL, 0);
    have = 0;
    while (have < size) {
        ssize_t n;

        assert_int_equal(viommu_vfio_user_process(world.client), 0);
        n = recv(world.far.fd, message + have, size - have, MSG_DONTWAIT);
        assert_true(n > 0);
        have += (size_t)n;
    }
    assert_memory_equal(message + 32, data, VFIO_USER_MAX_DATA);
    free(data);
    free(got);
    free(message);
}

static void a_write_to_the_interrupt_range_is_an_interrupt(void **state)
{
    uint32_t data = 0x4041;

    (void)state;
    assert_int_equal(test_world_write(&world, world.far.fd, 0xfee01004, &data, 4), 0);
    assert_int_equal(world.interrupts, 1);
    assert_int_equal(world.interrupt.address, 0xfee01004);
    assert_int_equal(world.interrupt.data, 0x4041);
    assert_int_equal(world.interrupt.requester, REQUESTER);
    assert_false(world.interrupt.from_unit);
    test_far_dma(world.far.fd, VFIO_USER_DMA_WRITE, VFIO_USER_NO_REPLY, 1, 0xfee00000, 4, &data, 4);
    assert_int_equal(viommu_vfio_user_process(world.client), 0);
    assert_int_equal(world.interrupts, 2);
    assert_int_equal(test_far_receive(&world.far, world.far.fd), 0); /* none was wanted */
}

static void commands_only_a_client_may_send(void **state)
{
    (void)state;
    for (uint16_t command = 0; command < 20; command++) {
        if (command == VFIO_USER_DMA_READ || command == VFIO_USER_DMA_WRITE) {
            continue;
        }
        assert_int_equal(dma_error(command, 0, 0, 16), ENOTSUP);
        assert_int_equal(world.far.payload_size, 0);
        test_far_dma(world.far.fd, command, VFIO_USER_NO_REPLY, 9, 0, 0, NULL, 0);
        assert_int_equal(viommu_vfio_user_process(world.client), 0);
        assert_int_equal(test_far_receive(&world.far, world.far.fd), 0);
    }
    assert_int_equal(world.failed, 0);
}

static void dma_with_too_much_or_too_little(void **state)
{
    struct vfio_user_header header = {.id = 9, .command = VFIO_USER_DMA_READ};
    struct vfio_user_dma_access access = {.address = 0x10000, .count = 4};
    int fd = STDIN_FILENO;
    unsigned before = support_open_fds();

    (void)state;
    test_world_map(&world, 0x10000, 0x80000, 1, SPEC_R);
    test_far_send(world.far.fd, header, &access, 15, NULL, 0, NULL, 0);
    test_far_send(world.far.fd, header, &access, 0, NULL, 0, NULL, 0);
    test_far_send(world.far.fd, header, &access, 16, NULL, 0, &fd, 1);
    assert_int_equal(viommu_vfio_user_process(world.client), 0);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(test_far_receive(&world.far, world.far.fd), 1);
        assert_int_equal(world.far.header.error, EINVAL);
    }
    assert_int_equal(support_open_fds(), before);
    /* A read that wants no answer. */
    test_far_dma(world.far.fd, VFIO_USER_DMA_READ, VFIO_USER_NO_REPLY, 1, 0x10000, 4, NULL, 0);
    assert_int_equal(viommu_vfio_user_process(world.client), 0);
    assert_int_equal(test_far_receive(&world.far, world.far.fd), 0);
    assert_int_equal(test_world_statistics(&world).refused, 4);
}

static void a_server_that_does_not_read_is_not_read(void **state)
{
    unsigned sent = 0, got = 0;

    (void)state;
    test_world_map(&world, 0x100000, 0x100000, 64, SPEC_R);
    /* 256 KiB each, until it is not listened to any more. */
    for (unsigned idle = 0; idle < 3; idle++) {
        uint64_t before = test_world_statistics(&world).reads;

        if (sent < 200) {
            test_far_dma(world.far.fd, VFIO_USER_DMA_READ, 0, 1, 0x100000, 0x40000, NULL, 0);
            sent++;
        }
        assert_int_equal(viommu_vfio_user_process(world.client), 0);
        idle = test_world_statistics(&world).reads == before ? idle : 0;
    }
    assert_in_range(test_world_statistics(&world).reads, 16, 20);
    assert_false(test_world_is_readable(&world)); /* nothing can be done, and nothing is tried */
    /* When it reads, all is answered. */
    while (got < sent) {
        struct vfio_user_header header;
        size_t have = 0;
        uint8_t scrap[65536];

        while (recv(world.far.fd, &header, sizeof(header), MSG_DONTWAIT) != sizeof(header)) {
            assert_int_equal(viommu_vfio_user_process(world.client), 0);
        }
        while (have < header.size - sizeof(header)) {
            size_t left = header.size - sizeof(header) - have;
            ssize_t n = recv(world.far.fd, scrap, left < sizeof(scrap) ? left : sizeof(scrap),
                             MSG_DONTWAIT);

            assert_int_equal(viommu_vfio_user_process(world.client), 0);
            have += n > 0 ? (size_t)n : 0;
        }
        assert_int_equal(header.error, 0);
        got++;
    }
    assert_int_equal(world.failed, 0);
}

static void one_call_takes_in_a_bounded_number(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 200; i++) {
        test_far_dma(world.far.fd, 99, VFIO_USER_NO_REPLY, 1, 0, 0, NULL, 0);
    }
    assert_int_equal(viommu_vfio_user_process(world.client), 0);
    assert_in_range(test_world_statistics(&world).refused, 1, 100);
    while (test_world_is_readable(&world)) {
        assert_int_equal(viommu_vfio_user_process(world.client), 0);
    }
    assert_int_equal(test_world_statistics(&world).refused, 200);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* What is read counts as what comes: others have their turn. */
static void many_large_reads(void **state)
{
    const uint64_t size = VFIO_USER_MAX_DATA;
    unsigned reads = 0;

    (void)state;
    test_world_map(&world, 0x10000, 0, (unsigned)(size / 4096), SPEC_R);
    for (uint16_t i = 0; i < 12; i++) {
        test_far_dma(world.far.fd, VFIO_USER_DMA_READ, VFIO_USER_TYPE_COMMAND, i, 0x10000, size,
                     NULL, 0);
    }
    assert_int_equal(viommu_vfio_user_process(world.client), 0);
    reads = (unsigned)test_world_statistics(&world).reads;
    assert_int_equal(reads, 4);
    assert_int_equal(test_world_statistics(&world).refused, 0);
    assert_true(test_world_is_readable(&world));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(many_large_reads),
        TEST(twin_sockets_carry_dma),
        TEST(an_answer_on_the_twin_is_none),
        TEST(a_twin_that_leaves_is_the_end),
        TEST(twins_that_are_none),
        TEST(dma_that_is_refused),
        TEST(the_largest_dma),
        TEST(a_write_to_the_interrupt_range_is_an_interrupt),
        TEST(commands_only_a_client_may_send),
        TEST(dma_with_too_much_or_too_little),
        TEST(a_server_that_does_not_read_is_not_read),
        TEST(one_call_takes_in_a_bounded_number),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
