/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the client as a mirror: what the far server has mapped is what the guest's tables say,
 * by hand and against a brute-force model; fences; a new connection; and isolation, which needs no
 * mirror.
 */
#include "vfio_user/test_far.h"

#include "base/alloc.h"
#include "vfio_user/client.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "support/random.h"

#define RW (SPEC_R | SPEC_W)

static struct test_world world;

static int setup_with(const struct test_wanted *wanted)
{
    test_world_open(&world, wanted);
    return 0;
}

static int setup(void **state)
{
    (void)state;
    return setup_with(NULL);
}

static int setup_isolated(void **state)
{
    (void)state;
    return setup_with(&(struct test_wanted){.client.isolate = true, .no_caching_mode = true});
}

static int setup_without_file(void **state)
{
    (void)state;
    return setup_with(&(struct test_wanted){.memory_without_file = true});
}

static int teardown(void **state)
{
    (void)state;
    test_world_close(&world);
    return 0;
}

static void invalidate(void)
{
    test_world_invalidate(&world);
    test_world_settle(&world);
    assert_true(test_world_invalidated(&world));
}

static struct viommu_subscriber_status status(void)
{
    struct viommu_subscriber_status status;

    assert_int_equal(viommu_subscriber_status(world.mirror, &status, sizeof(status)), 0);
    return status;
}

/* ---- a mirror -------------------------------------------------------------------------------- */

static void expect_region(uint64_t iova, uint64_t size, uint64_t gpa, uint32_t flags)
{
    const struct test_region *region = test_far_find(&world.far, iova);

    assert_non_null(region);
    assert_true(region->file);
    assert_true(region->map.address == iova);
    assert_true(region->map.size == size);
    assert_true(region->map.offset == gpa + 0x10000);
    assert_int_equal(region->map.flags, flags);
}

static void follows_the_tables(void **state)
{
    (void)state;
    test_world_map(&world, 0x10000, 0x80000, 4, RW);
    test_world_map(&world, 0x20000, 0x90000, 1, SPEC_R);
    test_world_subscribe(&world);
    assert_int_equal(world.far.region_count, 2);
    expect_region(0x10000, 0x4000, 0x80000, 3);
    expect_region(0x20000, 0x1000, 0x90000, 1);
    /* A part of one goes: it goes, and the rest comes back. */
    test_world_unmap(&world, 0x11000, 1);
    invalidate();
    assert_int_equal(world.far.region_count, 3);
    expect_region(0x10000, 0x1000, 0x80000, 3);
    expect_region(0x12000, 0x2000, 0x82000, 3);
    /* Nothing changed: no message. */
    world.far.maps = world.far.unmaps = 0;
    invalidate();
    assert_int_equal(world.far.maps + world.far.unmaps, 0);
    /* Only the permission. */
    test_world_map(&world, 0x20000, 0x90000, 1, RW);
    invalidate();
    expect_region(0x20000, 0x1000, 0x90000, 3);
    assert_int_equal(test_world_statistics(&world).mappings, 3);
    /* All at once. */
    guest_attach(&world.guest, REQUESTER, DOMAIN, guest_page(&world.guest), LEVELS,
                 SPEC_TT_UNTRANSLATED);
    guest_queue_put(&world.guest, spec_context_invalidate(SPEC_DOMAIN, DOMAIN, 0, 0));
    invalidate();
    assert_int_equal(world.far.region_count, 0);
    assert_int_equal(test_world_statistics(&world).mappings, 0);
    assert_int_equal(test_world_statistics(&world).maps, world.far.maps + 4);
}

static void an_invalidation_waits_for_the_answer(void **state)
{
    (void)state;
    test_world_map(&world, 0x10000, 0x80000, 4, RW);
    test_world_subscribe(&world);
    world.far.hold = true;
    test_world_unmap(&world, 0x10000, 4);
    test_world_invalidate(&world);
    test_world_settle(&world);
    assert_int_equal(world.far.unmaps, 1);
    assert_false(test_world_invalidated(&world));
    test_far_release(&world.far);
    assert_int_equal(viommu_process(world.guest.iommu, 0), 0);
    assert_false(test_world_invalidated(&world)); /* it is there, and not read */
    assert_int_equal(viommu_vfio_user_process(world.client), 0);
    assert_int_equal(viommu_process(world.guest.iommu, 0), 0);
    assert_true(test_world_invalidated(&world));
}

/* While a change waits for its answer, the far server asks us, and its question is answered. */
static void dma_while_an_answer_is_awaited(void **state)
{
    uint8_t data[8];

    (void)state;
    test_world_map(&world, 0x10000, 0x80000, 4, RW);
    test_world_subscribe(&world);
    world.far.hold = true;
    test_world_unmap(&world, 0x10000, 1);
    test_world_invalidate(&world);
    test_world_settle(&world);
    assert_false(test_world_invalidated(&world));
    assert_int_equal(test_world_read(&world, world.far.fd, 0x11000, data, 8), 0);
    /* What is being taken away is not reached by a message already. */
    assert_int_equal(test_world_read(&world, world.far.fd, 0x10000, data, 8), -EFAULT);
    world.far.hold = false;
    test_far_release(&world.far);
    test_world_settle(&world);
    assert_true(test_world_invalidated(&world));
}

static void one_that_takes_no_descriptors_gets_messages(void **state)
{
    const struct test_region *region;
    uint32_t value = 0;

    (void)state;
    test_world_disconnect(&world);
    world.far.capabilities = "{\"capabilities\":{\"max_msg_fds\":0}}";
    test_world_connect(&world, &(struct test_wanted){0});
    test_world_settle(&world);
    assert_int_equal(viommu_vfio_user_fds_max(world.client), 0);
    test_world_map(&world, 0x10000, 0x80000, 2, RW);
    test_world_subscribe(&world);
    region = test_far_find(&world.far, 0x10000);
    assert_false(region->file);
    assert_true(region->map.offset == 0 && region->map.size == 0x2000);
    assert_int_equal(world.far.files, 0);
    guest_store(&world.guest, 0x81ff8, 0x1122334455667788);
    assert_int_equal(test_world_read(&world, world.far.fd, 0x11ffc, &value, 4), 0);
    assert_int_equal(value, 0x11223344);
}

static void memory_without_a_file_is_a_region_of_messages(void **state)
{
    const struct test_region *region;
    uint32_t value = 0;

    (void)state;
    test_world_map(&world, 0x10000, 0x80000, 2, RW);
    test_world_subscribe(&world);
    assert_int_equal(world.far.region_count, 1);
    region = test_far_find(&world.far, 0x10000);
    assert_false(region->file);
    assert_true(region->map.offset == 0 && region->map.size == 0x2000);
    guest_store(&world.guest, 0x81ff8, 0x1122334455667788);
    assert_int_equal(test_world_read(&world, world.far.fd, 0x11ffc, &value, 4), 0);
    assert_int_equal(value, 0x11223344);
}

static void a_mapping_that_is_refused_is_tried_again(void **state)
{
    (void)state;
    test_world_subscribe(&world);
    world.far.refuse = ENOSPC;
    test_world_map(&world, 0x10000, 0x80000, 1, RW);
    invalidate();
    assert_int_equal(world.far.region_count, 0);
    assert_int_equal(status().differences, 1);
    assert_int_equal(test_world_statistics(&world).mappings, 0);
    world.clock += 2000000000;
    test_world_settle(&world);
    assert_int_equal(world.far.region_count, 1);
    assert_int_equal(status().differences, 0);
}

/* What the far server says of page sizes and numbers is what the library is told. */
static void limits_are_taken_over(void **state)
{
    static const struct test_wanted lowered = {.client.mappings_max = 10};
    struct viommu_subscription what;

    (void)state;
    assert_int_equal(viommu_vfio_user_subscription(world.client, &what), 0);
    assert_int_equal(what.mappings_max, 65535);
    assert_true(what.page_sizes == ~UINT64_C(0xfff));
    assert_false(what.unmap_spans || what.adopt || what.allowed);
    assert_int_equal(what.form, VIOMMU_FORM_RANGE);
    assert_int_equal(what.kinds, VIOMMU_CHANGE_MAP | VIOMMU_CHANGE_UNMAP);
    assert_int_equal(what.role, VIOMMU_ROLE_MIRROR);
    for (unsigned i = 0; i < 2; i++) {
        test_world_disconnect(&world);
        world.far.capabilities = i ? "{\"capabilities\":{\"max_dma_maps\":9,\"pgsizes\":2097152}}"
                                   : "{\"capabilities\":{\"max_dma_maps\":64,\"pgsizes\":2101248}}";
        test_world_connect(&world, &lowered);
        assert_int_equal(viommu_vfio_user_subscription(world.client, &what), -EAGAIN);
        test_world_settle(&world);
        assert_int_equal(viommu_vfio_user_subscription(world.client, &what), 0);
        assert_int_equal(what.mappings_max, 10 - i);
        assert_true(what.page_sizes == (i ? ~UINT64_C(0x1fffff) : ~UINT64_C(0xfff)));
    }
    /* Without 4 KiB pages there is no mirror. */
    assert_int_equal(viommu_device_subscribe(world.device, &what, &world.mirror), -ENOTSUP);
}

static void changes_of_other_kinds_or_sizes_are_refused(void **state)
{
    struct viommu_change change = {.kind = VIOMMU_CHANGE_REPLACE, .last = 0xfff};
    struct viommu_subscription what;

    (void)state;
    assert_int_equal(viommu_vfio_user_subscription(world.client, &what), 0);
    assert_int_equal(what.change(what.opaque, &change), -ENOTSUP);
    change = (struct viommu_change){
        .kind = VIOMMU_CHANGE_MAP, .last = UINT64_C(1) << 43, .fd = -1, .perm = VIOMMU_READ};
    assert_int_equal(what.change(what.opaque, &change), -E2BIG);
    change.last--;
    assert_int_equal(what.change(what.opaque, &change), VIOMMU_PENDING);
    change.first = UINT64_C(1) << 43;
    change.last = change.first + 0xfff;
    change.fd = 999; /* no descriptor */
    assert_int_equal(what.change(what.opaque, &change), -EBADF);
    test_world_settle(&world);
    assert_int_equal(world.failed, 0);
    assert_int_equal(world.far.region_count, 1);
}

/* 1,000 pages that are mapped one at a time, where a server has no more than 64 regions. */
static void few_regions_are_enough_for_many_pages(void **state)
{
    static const struct test_wanted lowered = {.client.mappings_max = 64};

    (void)state;
    test_world_disconnect(&world);
    test_world_connect(&world, &lowered);
    world.far.regions_max = 64;
    test_world_settle(&world);
    test_world_subscribe(&world);
    for (unsigned i = 0; i < 1000; i++) {
        test_world_map(&world, 0x100000 + i * GUEST_PAGE, 0x10000 + i % 700 * GUEST_PAGE, 1, RW);
        invalidate();
        assert_int_equal(status().differences, 0);
    }
    assert_in_range(world.far.most, 48, 64);
    for (unsigned i = 0; i < 1000; i++) {
        const struct test_region *region = test_far_find(&world.far, 0x100000 + i * GUEST_PAGE);

        assert_non_null(region);
        assert_int_equal(0x100000 + i * GUEST_PAGE - region->map.address + region->map.offset,
                         0x20000 + i % 700 * GUEST_PAGE);
    }
}

/* ---- against a model ------------------------------------------------------------------------- */

#define PAGES 1024u
#define BASE  UINT64_C(0x40000000)

/* What the tables say of a page: 0, or its target and permissions, as in a leaf entry. */
static uint64_t model[PAGES];

static void edit(struct random *random)
{
    unsigned first = random_below(random, PAGES);
    unsigned count = 1 + random_below(random, random_percent(random, 20) ? 300 : 12);
    uint64_t gpa = (0x100 + random_below(random, 0x200)) * GUEST_PAGE;
    uint64_t flags = random_percent(random, 30) ? 0 : random_percent(random, 30) ? SPEC_R : RW;
    bool scattered = random_percent(random, 30);

    for (unsigned i = first; i < first + count && i < PAGES; i++) {
        uint64_t target = scattered ? (0x100 + random_below(random, 0x200)) * GUEST_PAGE
                                    : gpa + (i - first) % 0x100 * GUEST_PAGE;

        model[i] = flags ? target | flags : 0;
        guest_map(&world.guest, world.table, LEVELS, BASE + i * GUEST_PAGE, flags ? target : 0, 1,
                  flags);
    }
}

/* Every page that the far server has is as the model says; `all`: and it has all. */
static void compare(bool all)
{
    uint64_t mapped = 0, expected = 0;

    for (unsigned i = 0; i < world.far.region_count; i++) {
        assert_true(world.far.regions[i].map.address >= BASE);
        assert_int_equal(world.far.regions[i].map.size % GUEST_PAGE, 0);
        mapped += world.far.regions[i].map.size / GUEST_PAGE;
    }
    for (unsigned i = 0; i < PAGES; i++) {
        uint64_t iova = BASE + i * GUEST_PAGE;
        const struct test_region *region = test_far_find(&world.far, iova);

        expected += model[i] != 0;
        assert_true(region || !all || !model[i]);
        if (region) {
            assert_true(model[i] == ((iova - region->map.address + region->map.offset - 0x10000) |
                                     region->map.flags));
            mapped--;
        }
    }
    assert_int_equal(mapped, 0); /* nothing is elsewhere */
    assert_true(!all || expected == 0 || world.far.region_count);
}

static void random_edits(uint64_t seed, unsigned rounds, bool all)
{
    struct random random = {seed};

    memset(model, 0, sizeof(model));
    test_world_subscribe(&world);
    for (unsigned i = 0; i < rounds; i++) {
        for (unsigned n = 1 + random_below(&random, 3); n; n--) {
            edit(&random);
        }
        if (random_percent(&random, 20)) {
            world.far.refuse_map = all ? 0 : ENOMEM;
        }
        invalidate();
        compare(all);
    }
}

static void what_is_mapped_is_what_the_tables_say(void **state)
{
    (void)state;
    random_edits(1, 400, true);
    assert_true(world.far.most > 64);
}

static void with_64_regions_nothing_else_is_mapped(void **state)
{
    static const struct test_wanted lowered = {.client.mappings_max = 64};

    (void)state;
    test_world_disconnect(&world);
    test_world_connect(&world, &lowered);
    world.far.regions_max = 64;
    test_world_settle(&world);
    random_edits(2, 200, false);
    assert_int_equal(world.far.most, 64);
    assert_int_equal(world.far.unmap_alls, 0);
}

/* ---- fences ---------------------------------------------------------------------------------- */

static void an_unmap_that_is_refused_fences(void **state)
{
    (void)state;
    test_world_map(&world, 0x10000, 0x80000, 1, RW);
    test_world_map(&world, 0x20000, 0x80000, 1, RW);
    test_world_subscribe(&world);
    world.far.refuse = EBUSY;
    test_world_unmap(&world, 0x10000, 1);
    invalidate();
    assert_true(status().fenced);
    assert_int_equal(world.far.unmap_alls, 1);
    assert_int_equal(world.far.region_count, 0);
    assert_int_equal(world.events[VIOMMU_EVENT_FENCED], 1);
    assert_int_equal(world.events[VIOMMU_EVENT_HOST_FAILURE], 1); /* it was not confirmed yet */
    assert_int_equal(test_world_statistics(&world).mappings, 0);
    assert_int_equal(world.failed, 0);
    /* Admitted again, it is told anew. */
    assert_int_equal(viommu_device_reset(world.device), 0);
    test_world_settle(&world);
    assert_false(status().fenced);
    assert_int_equal(world.far.region_count, 1);
    expect_region(0x20000, 0x1000, 0x80000, 3);
    assert_int_equal(test_world_statistics(&world).mappings, 1);
}

/* The library's patience ends first: it fences, and what comes later is too late. */
static void an_answer_that_comes_too_late_is_ignored(void **state)
{
    (void)state;
    test_world_map(&world, 0x10000, 0x80000, 1, RW);
    test_world_subscribe(&world);
    world.far.hold = true;
    test_world_unmap(&world, 0x10000, 1);
    test_world_invalidate(&world);
    test_world_settle(&world);
    world.clock += 600000000;
    world.far.hold = false;
    test_world_settle(&world);
    assert_true(test_world_invalidated(&world));
    assert_true(status().fenced);
    assert_int_equal(world.far.unmap_alls, 1);
    test_far_release(&world.far);
    test_world_settle(&world);
    assert_int_equal(world.failed, 0);
    assert_int_equal(test_world_statistics(&world).mappings, 0);
}

static void a_fence_that_is_refused_is_the_end(void **state)
{
    struct viommu_subscription what;

    (void)state;
    test_world_map(&world, 0x10000, 0x80000, 1, RW);
    test_world_subscribe(&world);
    assert_int_equal(viommu_vfio_user_subscription(world.client, &what), 0);
    world.far.refuse = EIO;
    assert_int_equal(what.fence(what.opaque), -EINPROGRESS);
    test_world_settle(&world);
    assert_int_equal(world.failed, 1);
    assert_int_equal(world.error, -EIO);
    assert_int_equal(what.fence(what.opaque), -EPIPE);
    assert_int_equal(test_far_receive(&world.far, world.far.fd), 0); /* disconnected */
}

/* It cannot even be asked to drop everything: the fence itself ends the connection, whenever
 * viommu_vfio_user_process is called. */
static void a_server_that_does_not_read_is_cut_off_by_the_fence(void **state)
{
    struct pollfd poller = {.events = POLLRDHUP};
    struct viommu_subscription what;

    (void)state;
    poller.fd = world.far.fd;
    test_world_map(&world, 0x10000, 0x80000, 1, RW);
    test_world_subscribe(&world);
    assert_int_equal(viommu_vfio_user_subscription(world.client, &what), 0);
    while (write(world.client->main.connection.fd, &what, sizeof(what)) > 0) {
        /* until it is full */
    }
    assert_int_equal(poll(&poller, 1, 0), 0);
    assert_int_equal(what.fence(what.opaque), -ETIMEDOUT);
    assert_int_equal(poll(&poller, 1, 0), 1);
    assert_int_equal(world.failed, 0);
    assert_int_equal(viommu_vfio_user_process(world.client), -ETIMEDOUT);
    assert_int_equal(world.failed, 1);
}

static void with_nothing_mapped_a_fence_says_nothing(void **state)
{
    struct viommu_subscription what;

    (void)state;
    assert_int_equal(viommu_vfio_user_subscription(world.client, &what), 0);
    assert_int_equal(what.fence(what.opaque), 0);
    test_world_map(&world, 0x10000, 0x80000, 1, RW);
    test_world_subscribe(&world);
    assert_int_equal(what.fence(what.opaque), -EINPROGRESS);
    test_world_settle(&world);
    assert_int_equal(world.far.unmap_alls, 1);
    assert_int_equal(what.fence(what.opaque), 0); /* it was confirmed */
    assert_int_equal(world.far.unmap_alls, 1);
}

/* What was unmapped or refused is not there; what an older answer says is of what was there before.
 */
static void a_fence_knows_what_may_be_there(void **state)
{
    struct viommu_change map = {
        .kind = VIOMMU_CHANGE_MAP, .last = 0xfff, .fd = -1, .perm = VIOMMU_READ};
    struct viommu_change unmap = {.kind = VIOMMU_CHANGE_UNMAP, .last = 0xfff};
    struct vfio_user_header first;
    struct viommu_subscription what;

    (void)state;
    assert_int_equal(viommu_vfio_user_subscription(world.client, &what), 0);
    world.far.refuse = ENOSPC;
    assert_int_equal(what.change(what.opaque, &map), VIOMMU_PENDING);
    test_world_settle(&world);
    assert_int_equal(what.fence(what.opaque), 0);
    assert_int_equal(what.change(what.opaque, &map), VIOMMU_PENDING);
    test_world_settle(&world);
    assert_int_equal(what.change(what.opaque, &unmap), VIOMMU_PENDING);
    test_world_settle(&world);
    assert_int_equal(what.fence(what.opaque), 0);
    assert_int_equal(world.far.unmap_alls, 0);
    /* One that nobody answered, a fence, and another: then the first is refused after all. */
    assert_int_equal(what.change(what.opaque, &map), VIOMMU_PENDING);
    assert_int_equal(test_far_receive(&world.far, world.far.fd), 1);
    first = world.far.header;
    assert_int_equal(what.fence(what.opaque), -EINPROGRESS);
    assert_int_equal(what.change(what.opaque, &map), VIOMMU_PENDING);
    first.flags = VFIO_USER_TYPE_REPLY | VFIO_USER_ERROR;
    first.error = ENOSPC;
    test_far_send(world.far.fd, first, NULL, 0, NULL, 0, NULL, 0);
    test_world_settle(&world);
    assert_int_equal(world.far.unmap_alls, 1);
    assert_int_equal(world.far.region_count, 1);
    assert_int_equal(what.fence(what.opaque), -EINPROGRESS);
    test_world_settle(&world);
    assert_int_equal(world.far.region_count, 0);
    assert_int_equal(world.failed, 0);
}

/* ---- the far server dies --------------------------------------------------------------------- */

static void who_dies_fails_and_another_is_told_anew(void **state)
{
    (void)state;
    test_world_map(&world, 0x10000, 0x80000, 1, RW);
    test_world_map(&world, 0x20000, 0x90000, 1, RW);
    test_world_subscribe(&world);
    world.far.hold = true;
    test_world_unmap(&world, 0x10000, 1);
    test_world_invalidate(&world);
    test_world_settle(&world);
    assert_false(test_world_invalidated(&world));
    close(world.far.fd);
    world.far.fd = -1;
    test_world_settle(&world);
    assert_int_equal(world.failed, 1);
    assert_int_equal(world.error, -ECONNRESET);
    assert_true(test_world_invalidated(&world)); /* its mirror is fenced */
    assert_true(status().fenced);
    assert_int_equal(world.events[VIOMMU_EVENT_HOST_FAILURE], 1);

    test_world_disconnect(&world);
    test_world_connect(&world, &(struct test_wanted){0});
    test_world_settle(&world);
    test_world_subscribe(&world);
    assert_int_equal(viommu_device_reset(world.device), 0);
    test_world_settle(&world);
    assert_int_equal(world.far.region_count, 1);
    expect_region(0x20000, 0x1000, 0x90000, 3);
}

static void who_does_not_answer_fails_in_time(void **state)
{
    static const struct test_wanted hasty = {.client.timeout_ms = 1000};

    (void)state;
    test_world_disconnect(&world);
    test_world_connect(&world, &hasty);
    test_world_settle(&world);
    test_world_map(&world, 0x10000, 0x80000, 1, RW);
    test_world_subscribe(&world);
    world.far.hold = true;
    test_world_unmap(&world, 0x10000, 1);
    test_world_invalidate(&world);
    test_world_settle(&world);
    assert_int_equal(world.failed, 0);
    while (!world.failed) {
        usleep(20000);
        (void)viommu_vfio_user_process(world.client);
    }
    test_world_settle(&world);
    assert_int_equal(world.error, -ETIMEDOUT);
    assert_true(test_world_invalidated(&world));
    assert_true(status().fenced);
}

/* ---- isolation ------------------------------------------------------------------------------- */

static void expect_isolated(void)
{
    uint32_t value = 0x12345678;
    struct viommu_subscription what;

    assert_int_equal(world.ready, 1);
    assert_int_equal(world.far.files, 0);
    assert_int_equal(viommu_vfio_user_subscription(world.client, &what), -ENOTSUP);
    test_world_map(&world, 0x10000, 0x80000, 1, RW);
    invalidate();
    assert_int_equal(test_world_write(&world, world.far.fd, 0x10010, &value, 4), 0);
    value = 0;
    assert_int_equal(test_world_read(&world, world.far.fd, 0x10010, &value, 4), 0);
    assert_int_equal(value, 0x12345678);
    assert_int_equal(guest_load(&world.guest, 0x80010), 0x12345678);
    world.far.maps = world.far.unmaps = 0;
    test_world_unmap(&world, 0x10000, 1);
    invalidate();
    assert_int_equal(test_world_read(&world, world.far.fd, 0x10010, &value, 4), -EFAULT);
    assert_int_equal(test_world_write(&world, world.far.fd, 0x10010, &value, 4), -EFAULT);
    assert_int_equal(world.far.maps + world.far.unmaps, 0); /* an invalidation costs no message */
    assert_int_equal(world.far.files, 0);
}

static void one_region_of_everything_is_isolation(void **state)
{
    (void)state;
    /* A server without a limit takes one region; the usual one does not, and gets 8 TiB pieces. */
    assert_int_equal(world.far.region_count, 32);
    for (uint64_t i = 0; i < 32; i++) {
        const struct test_region *region = test_far_find(&world.far, i << 43);

        assert_non_null(region);
        assert_true(region->map.address == i << 43 && region->map.size == UINT64_C(1) << 43);
        assert_int_equal(region->map.flags, 3);
        assert_false(region->file);
    }
    expect_isolated();
}

static void isolate(unsigned regions_max, uint64_t size_max, uint64_t mappings_max)
{
    const struct test_wanted wanted = {.client = {.isolate = true, .mappings_max = mappings_max}};

    test_world_disconnect(&world);
    world.ready = 0;
    test_world_connect(&world, &wanted);
    world.far.regions_max = regions_max;
    world.far.region_size_max = size_max;
    test_world_settle(&world);
}

static void servers_that_take_less_or_more(void **state)
{
    (void)state;
    isolate(64, 0, 0);
    assert_int_equal(world.far.region_count, 1);
    assert_true(world.far.regions[0].map.address == 0);
    assert_true(world.far.regions[0].map.size == UINT64_C(0xfffffffffffff000));
    expect_isolated();
    isolate(10, UINT64_C(1) << 43, 0);
    assert_int_equal(world.far.region_count, 10);
    expect_isolated();
    isolate(64, UINT64_C(1) << 43, 3);
    assert_int_equal(world.far.region_count, 3);
    assert_int_equal(test_world_statistics(&world).mappings, 3);
    expect_isolated();
}

static void a_server_that_takes_no_region_fails(void **state)
{
    (void)state;
    isolate(64, 4096, 0);
    assert_int_equal(world.ready, 0);
    assert_int_equal(world.failed, 1);
    assert_int_equal(world.error, -EINVAL);
}

/* ---- memory that is refused ------------------------------------------------------------------ */

/* Whatever allocation fails, ours or the library's: nothing wrong is mapped, then or later. */
static void memory_that_is_refused(void **state)
{
    unsigned reached = 0;

    (void)state;
    for (unsigned long n = 1; n < 200; n++) {
        struct random random = {n};

        memset(model, 0, sizeof(model));
        guest_map(&world.guest, world.table, LEVELS, BASE, 0, 3, 0);
        test_world_reconnect(&world);
        test_world_subscribe(&world);
        assert_int_equal(viommu_device_reset(world.device), 0);
        test_world_settle(&world);
        base_alloc_fail_at(n);
        for (unsigned i = 0; i < 5; i++) {
            edit(&random);
            test_far_dma(world.far.fd, VFIO_USER_DMA_READ, 0, 1, BASE, 0x10000, NULL, 0);
            test_world_invalidate(&world);
            test_world_settle(&world);
            world.clock += 2000000000;
            test_world_settle(&world);
            assert_true(test_world_invalidated(&world));
        }
        reached += base_alloc_failed() != 0;
        base_alloc_fail_at(0);
        if (!world.failed) {
            compare(false);
        }
        world.failed = 0;
    }
    assert_true(reached > 10);
}

/* ---- threads --------------------------------------------------------------------------------- */

static atomic_bool stop;

static void *process_unit(void *opaque)
{
    while (!atomic_load(&stop)) {
        sched_yield();
        (void)viommu_process(opaque, 0);
    }
    return NULL;
}

static void changes_come_on_another_thread(void **state)
{
    struct random random = {5};
    struct viommu_subscription what;
    pthread_t thread;

    (void)state;
    memset(model, 0, sizeof(model));
    assert_int_equal(viommu_vfio_user_subscription(world.client, &what), 0);
    assert_int_equal(viommu_device_subscribe(world.device, &what, &world.mirror), 0);
    atomic_store(&stop, false);
    assert_int_equal(pthread_create(&thread, NULL, process_unit, world.guest.iommu), 0);
    for (unsigned i = 0; i < 100; i++) {
        edit(&random);
        test_world_invalidate(&world);
        while (!test_world_invalidated(&world)) {
            assert_int_equal(viommu_vfio_user_process(world.client), 0);
            test_far_step(&world.far);
            assert_int_equal(viommu_vfio_user_send(world.client, VFIO_USER_DEVICE_RESET, NULL, 0,
                                                   NULL, 0, NULL, 0, NULL, NULL),
                             0);
            (void)test_world_statistics(&world);
            test_far_dma(world.far.fd, VFIO_USER_DMA_READ, 0, 1, BASE, 4, NULL, 0);
        }
        compare(true);
    }
    assert_true(world.far.answers > 100);
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
}

#define TEST(name)           cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TEST_IN(name, setup) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(follows_the_tables),
        TEST(an_invalidation_waits_for_the_answer),
        TEST(dma_while_an_answer_is_awaited),
        TEST(one_that_takes_no_descriptors_gets_messages),
        TEST_IN(memory_without_a_file_is_a_region_of_messages, setup_without_file),
        TEST(a_mapping_that_is_refused_is_tried_again),
        TEST(limits_are_taken_over),
        TEST(changes_of_other_kinds_or_sizes_are_refused),
        TEST(few_regions_are_enough_for_many_pages),
        TEST(what_is_mapped_is_what_the_tables_say),
        TEST(with_64_regions_nothing_else_is_mapped),
        TEST(an_unmap_that_is_refused_fences),
        TEST(an_answer_that_comes_too_late_is_ignored),
        TEST(a_fence_that_is_refused_is_the_end),
        TEST(a_server_that_does_not_read_is_cut_off_by_the_fence),
        TEST(with_nothing_mapped_a_fence_says_nothing),
        TEST(a_fence_knows_what_may_be_there),
        TEST(who_dies_fails_and_another_is_told_anew),
        TEST(who_does_not_answer_fails_in_time),
        TEST_IN(one_region_of_everything_is_isolation, setup_isolated),
        TEST_IN(servers_that_take_less_or_more, setup_isolated),
        TEST_IN(a_server_that_takes_no_region_fails, setup_isolated),
        TEST(memory_that_is_refused),
        TEST(changes_come_on_another_thread),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
