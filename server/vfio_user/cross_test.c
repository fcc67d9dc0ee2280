/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Our own two ends of vfio-user against each other: the library's client, behind a unit, and an
 * endpoint that serves an edu device without one, on a thread of its own as if it were another
 * process. The edu device does DMA at addresses that the guest's tables translate: where it has the
 * memory mapped, and by messages.
 */
#include <linux/pci_regs.h>
#include <poll.h>
#include <pthread.h>

#include "vfio_user/test_far.h"

#include <sys/socket.h>

#include "../direct_memory.h"
#include "../edu.h"
#include "../log.h"
#include "endpoint.h"

#define RW   (SPEC_R | SPEC_W)
#define IOVA UINT64_C(0x10000)
#define GPA  UINT64_C(0x80000)

static struct test_world world;
static struct {
    struct direct_memory memory;
    struct device_dma dma;
    struct edu edu;
    struct vfio_user_endpoint endpoint;
    pthread_t thread;
    unsigned refusals; /* that are expected by the end */
} far;

static void *serve(void *opaque)
{
    struct vfio_user_endpoint *endpoint = opaque;
    int ret;

    do {
        struct pollfd poll_fd = {.fd = endpoint->connection.fd,
                                 .events = (short)vfio_user_endpoint_events(endpoint)};

        poll(&poll_fd, 1, 10);
        ret = vfio_user_endpoint_ready(endpoint);
    } while (ret == 0);
    return NULL;
}

static void on_ready(void *opaque)
{
    ((struct test_world *)opaque)->ready++;
}

static void on_failed(void *opaque, int error)
{
    ((struct test_world *)opaque)->failed++;
    ((struct test_world *)opaque)->error = error;
}

static void connect_both(bool isolate)
{
    struct viommu_vfio_user_config config = {
        .device = world.device,
        .isolate = isolate,
        .timeout_ms = 20000,
        .ready = on_ready,
        .failed = on_failed,
        .opaque = &world,
    };
    int pair[2];

    far.refusals = 0;
    assert_int_equal(direct_memory_init(&far.memory), 0);
    far.dma = direct_memory_dma;
    far.dma.opaque = &far.memory;
    edu_init(&far.edu, "edu", &far.dma);
    direct_memory_attach(&far.memory, &far.edu.function);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(vfio_user_endpoint_init(&far.endpoint, &far.edu.function, pair[0]), 0);
    assert_int_equal(pthread_create(&far.thread, NULL, serve, &far.endpoint), 0);
    config.fd = pair[1];
    assert_int_equal(viommu_vfio_user_create(&config, &world.client), 0);
    while (!world.ready) {
        assert_int_equal(viommu_vfio_user_process(world.client), 0);
    }
}

/* The client leaves first, which ends the thread. */
static void disconnect_both(void)
{
    assert_int_equal(viommu_subscriber_destroy(world.mirror), 0);
    world.mirror = NULL;
    viommu_vfio_user_destroy(world.client);
    world.client = NULL;
    pthread_join(far.thread, NULL);
    assert_int_equal(far.edu.refusals, far.refusals);
    vfio_user_endpoint_fini(&far.endpoint);
    assert_int_equal(far.memory.count, 0);
    direct_memory_fini(&far.memory);
}

static void work(void)
{
    (void)viommu_process(world.guest.iommu, 0);
    assert_int_equal(viommu_vfio_user_process(world.client), 0);
}

static int setup_with(bool isolate)
{
    server_log_to(NULL);
    test_world_open(&world, &(struct test_wanted){.no_client = true, .no_caching_mode = isolate});
    connect_both(isolate);
    return 0;
}

static int setup(void **state)
{
    (void)state;
    return setup_with(false);
}

static int setup_isolated(void **state)
{
    (void)state;
    return setup_with(true);
}

static int teardown(void **state)
{
    (void)state;
    disconnect_both();
    test_world_close(&world);
    return 0;
}

/* ---- commands of ours ------------------------------------------------------------------------ */

static struct {
    bool done;
    int error;
    uint8_t data[64];
    size_t size;
} reply;

static void on_reply(void *opaque, const struct viommu_vfio_user_reply *got)
{
    (void)opaque;
    reply.done = true;
    reply.error = got->error;
    reply.size = got->size < sizeof(reply.data) ? got->size : sizeof(reply.data);
    memcpy(reply.data, got->data, reply.size);
}

static int access_region(uint16_t command, uint32_t region, uint64_t offset, void *data,
                         uint32_t size)
{
    struct vfio_user_region_access access = {.offset = offset, .region = region, .count = size};
    bool writes = command == VFIO_USER_REGION_WRITE;

    reply.done = false;
    assert_int_equal(viommu_vfio_user_send(world.client, command, &access, sizeof(access), data,
                                           writes ? size : 0, NULL, 0, on_reply, NULL),
                     0);
    while (!reply.done) {
        work();
    }
    if (reply.error == 0 && !writes) {
        assert_int_equal(reply.size, sizeof(access) + size);
        memcpy(data, reply.data + sizeof(access), size);
    }
    return reply.error;
}

static void bus_master_on(void)
{
    uint16_t command = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;

    assert_int_equal(access_region(VFIO_USER_REGION_WRITE, VFIO_PCI_CONFIG_REGION_INDEX,
                                   PCI_COMMAND, &command, sizeof(command)),
                     0);
}

static void write_register(uint64_t offset, uint64_t value)
{
    assert_int_equal(access_region(VFIO_USER_REGION_WRITE, 0, offset, &value, 8), 0);
}

/* Moves bytes between the device's buffer and memory, as the guest sees it. */
static void transfer(uint64_t iova, bool to_memory, unsigned size)
{
    write_register(EDU_REG_DMA_SOURCE, to_memory ? EDU_BUFFER : iova);
    write_register(EDU_REG_DMA_DESTINATION, to_memory ? iova : EDU_BUFFER);
    write_register(EDU_REG_DMA_COUNT, size);
    write_register(EDU_REG_DMA_COMMAND, EDU_DMA_START | (to_memory ? EDU_DMA_TO_MEMORY : 0));
}

static void invalidate(void)
{
    test_world_invalidate(&world);
    while (!test_world_invalidated(&world)) {
        work();
    }
}

static void fill(uint64_t gpa, uint8_t first)
{
    uint8_t *page = guest_host(&world.guest, gpa);

    for (unsigned i = 0; i < GUEST_PAGE; i++) {
        page[i] = (uint8_t)(first + i * 3);
    }
}

/* Copies 4000 bytes from one place to another by the device. */
static void copy(uint64_t from, uint64_t to)
{
    transfer(from, false, 4000);
    transfer(to, true, 4000);
}

/* What is copied at 16 bytes into a page, over its end into the next. */
static void expect_copies(void)
{
    uint8_t *to = guest_host(&world.guest, GPA + 0x10000);

    bus_master_on();
    for (unsigned i = 0; i < 20; i++) {
        fill(GPA + i % 4 * GUEST_PAGE, (uint8_t)i);
        memset(to, 0, 2 * GUEST_PAGE);
        test_world_map(&world, IOVA, GPA + i % 4 * GUEST_PAGE, 1, SPEC_R);
        test_world_map(&world, IOVA + 0x10000, GPA + 0x10000, 2, RW);
        invalidate();
        copy(IOVA + 16, IOVA + 0x10000 + 200);
        assert_memory_equal(
            to + 200, (uint8_t *)guest_host(&world.guest, GPA + i % 4 * GUEST_PAGE) + 16, 4000);
        assert_int_equal(to[199], 0);
        assert_int_equal(to[4200], 0);
    }
    /* Read only, and then not at all. */
    fill(GPA + 3 * GUEST_PAGE, 19);
    transfer(IOVA, true, 100);
    assert_int_equal(*(uint8_t *)guest_host(&world.guest, GPA + 3 * GUEST_PAGE), 19);
    test_world_unmap(&world, IOVA, 1);
    test_world_unmap(&world, IOVA + 0x10000, 2);
    invalidate();
    memset(to, 0, 2 * GUEST_PAGE);
    copy(IOVA, IOVA + 0x10000);
    far.refusals = 3;
    for (unsigned i = 0; i < 2 * GUEST_PAGE; i++) {
        assert_int_equal(to[i], 0);
    }
    assert_int_equal(world.failed, 0);
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void the_device_reaches_what_it_has_mapped(void **state)
{
    struct viommu_subscription what;

    (void)state;
    assert_int_equal(viommu_vfio_user_subscription(world.client, &what), 0);
    assert_int_equal(viommu_device_subscribe(world.device, &what, &world.mirror), 0);
    expect_copies();
    /* Nothing of that was a message. */
    assert_int_equal(test_world_statistics(&world).reads + test_world_statistics(&world).writes, 0);
    assert_int_equal(test_world_statistics(&world).mappings, 0);
    assert_true(test_world_statistics(&world).maps >= 20);
}

static void isolated_it_asks_for_every_byte(void **state)
{
    struct viommu_vfio_user_statistics statistics;

    (void)state;
    expect_copies();
    statistics = test_world_statistics(&world);
    assert_int_equal(statistics.maps, 1); /* everything, once */
    assert_int_equal(statistics.unmaps, 0);
    assert_int_equal(statistics.mappings, 1);
    assert_true(statistics.reads >= 20 && statistics.writes >= 20);
    assert_true(statistics.refused > 0);
}

static void registers_and_errors_come_through(void **state)
{
    uint32_t value = 0;

    (void)state;
    assert_int_equal(access_region(VFIO_USER_REGION_READ, 0, EDU_REG_IDENTIFICATION, &value, 4), 0);
    assert_int_equal(value, EDU_IDENTIFICATION);
    assert_int_equal(access_region(VFIO_USER_REGION_READ, 0, UINT64_MAX, &value, 4), -EINVAL);
    assert_int_equal(access_region(VFIO_USER_REGION_READ, 77, 0, &value, 4), -EINVAL);
    assert_int_equal(world.failed, 0);
    assert_int_equal(viommu_vfio_user_transfer_max(world.client), 1048576);
}

/* A guest that maps much: regions by the thousand, and all gone by one fence. */
static void many_regions_and_a_fence(void **state)
{
    struct viommu_subscription what;

    (void)state;
    for (unsigned i = 0; i < 400; i++) {
        test_world_map(&world, 0x100000 + i * 2 * GUEST_PAGE, 0x100000 + i % 512 * GUEST_PAGE, 1,
                       RW);
    }
    assert_int_equal(viommu_vfio_user_subscription(world.client, &what), 0);
    assert_int_equal(viommu_device_subscribe(world.device, &what, &world.mirror), 0);
    while (test_world_statistics(&world).mappings < 400) {
        work();
    }
    assert_int_equal(what.fence(what.opaque), -EINPROGRESS);
    while (test_world_statistics(&world).mappings) {
        work();
    }
    assert_int_equal(what.fence(what.opaque), 0);
    registers_and_errors_come_through(state);
}

#define TEST(name, setup) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_device_reaches_what_it_has_mapped, setup),
        TEST(isolated_it_asks_for_every_byte, setup_isolated),
        TEST(registers_and_errors_come_through, setup),
        TEST(registers_and_errors_come_through, setup_isolated),
        TEST(many_regions_and_a_fence, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
