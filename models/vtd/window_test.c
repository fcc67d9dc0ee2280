/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of pinned windows and what a guest does meanwhile: every kind of invalidation, those that
 * concern a window and those that do not, released in time, late, or never.
 *
 * An invalidation is seen to wait by the status word of a wait descriptor behind it, or by its
 * register.
 */
#include "iommu/iommu.h"
#include "vtd/test_unit.h"

#include <errno.h>

#define RW (SPEC_R | SPEC_W)
#define IOVA 0x40000000ull
#define OLD 0x300000ull
#define NEW 0x310000ull
#define SIZE_2M 0x200000ull
#define SIZE_1G 0x40000000ull
#define TIMEOUT (500 * UNIT_MS)

/* A window, and what its holder was told. */
struct holder {
    struct viommu_window *window;
    struct iovec iov[8];
    size_t iov_count;
    unsigned revoked;
    unsigned fenced;
    bool release;  /* from inside revoke */
    bool release_in_fence;
    int fence_answer;
};

struct world {
    struct unit unit;
    uint32_t status; /* that the last wait descriptor writes */
};

static void on_revoke(void *opaque)
{
    struct holder *holder = opaque;

    holder->revoked++;
    if (holder->release) {
        viommu_window_release(holder->window);
        holder->window = NULL;
    }
}

static int on_fence(void *opaque)
{
    struct holder *holder = opaque;

    holder->fenced++;
    if (holder->release_in_fence) {
        viommu_window_release(holder->window);
        holder->window = NULL;
    }
    return holder->fence_answer;
}

static int try_pin(struct viommu_device *device, struct holder *holder, uint64_t first,
                   uint64_t last)
{
    struct viommu_range range = {first, last};
    struct viommu_window_request request = {
        .ranges = &range,
        .count = 1,
        .perm = VIOMMU_READ,
        .revoke = on_revoke,
        .fence = on_fence,
        .opaque = holder,
    };

    holder->iov_count = 8;
    return viommu_device_pin(device, NULL, &request, holder->iov, &holder->iov_count,
                             &holder->window);
}

static void pin(struct world *world, struct holder *holder, uint64_t first, uint64_t last)
{
    *holder = (struct holder){0};
    assert_int_equal(try_pin(world->unit.device, holder, first, last), 0);
}

static void release(struct holder *holder)
{
    viommu_window_release(holder->window);
    holder->window = NULL;
}

static void world_init_as(struct world *world, const struct viommu_vtd_config *config)
{
    *world = (struct world){0};
    unit_init(&world->unit, config);
    unit_translate(&world->unit);
    guest_queue_on(&world->unit.guest);
    unit_map(&world->unit, IOVA, OLD, 1, RW);
    unit_map(&world->unit, IOVA + 0x1000, OLD + 0x1000, 1, RW);
    world->unit.guest.status = guest_page(&world->unit.guest);
}

static void world_init(struct world *world)
{
    world_init_as(world, &(struct viommu_vtd_config){0});
}

static void world_fini(struct world *world)
{
    unit_fini(&world->unit);
}

/* A descriptor, and a wait descriptor behind it. */
static void submit(struct world *world, struct spec_descriptor descriptor)
{
    struct guest *guest = &world->unit.guest;

    guest_queue_put(guest, descriptor);
    guest_queue_put(guest, spec_wait(SPEC_WAIT_STATUS, guest->status, ++world->status));
    guest_queue_kick(guest);
    guest_process(guest);
}

static bool is_complete(struct world *world)
{
    guest_process(&world->unit.guest);
    return (uint32_t)guest_load(&world->unit.guest, world->unit.guest.status) == world->status;
}

static struct viommu_stats stats_of(struct world *world)
{
    struct viommu_stats stats;

    viommu_stats_get(world->unit.guest.iommu, &stats, sizeof(stats));
    return stats;
}

/* An invalidation that concerns the window waits for it, and one that does not does not. */
static void check_waits(struct world *world, struct spec_descriptor descriptor, bool waits)
{
    struct holder holder;

    pin(world, &holder, IOVA, IOVA + 0xfff);
    submit(world, descriptor);
    assert_int_equal(is_complete(world), !waits);
    assert_int_equal(holder.revoked, waits);
    assert_int_equal(is_complete(world), !waits);
    assert_int_equal(holder.revoked, waits);
    release(&holder);
    assert_true(is_complete(world));
    assert_int_equal(holder.revoked, waits);
    assert_int_equal(holder.fenced, 0);
}

static void test_kinds(void **state)
{
    struct world world;
    uint16_t id;

    (void)state;
    world_init(&world);
    id = world.unit.id;
    check_waits(&world, spec_iotlb_invalidate(SPEC_GLOBAL, 0, 0, 0, false), true);
    check_waits(&world, spec_iotlb_invalidate(SPEC_DOMAIN, UNIT_DOMAIN, 0, 0, false), true);
    check_waits(&world, spec_iotlb_invalidate(SPEC_DOMAIN, UNIT_DOMAIN + 1, 0, 0, false), false);
    check_waits(&world, spec_iotlb_invalidate(SPEC_SELECTIVE, UNIT_DOMAIN, IOVA, 0, false), true);
    check_waits(&world, spec_iotlb_invalidate(SPEC_SELECTIVE, UNIT_DOMAIN, IOVA, 0, true), true);
    check_waits(&world, spec_iotlb_invalidate(SPEC_SELECTIVE, UNIT_DOMAIN + 1, IOVA, 0, false),
                false);
    check_waits(&world, spec_iotlb_invalidate(SPEC_SELECTIVE, UNIT_DOMAIN, IOVA + 0x1000, 0, false),
                false);
    check_waits(&world, spec_iotlb_invalidate(SPEC_SELECTIVE, UNIT_DOMAIN, IOVA - 0x1000, 0, false),
                false);
    check_waits(&world, spec_iotlb_invalidate(SPEC_SELECTIVE, UNIT_DOMAIN, IOVA + 0x3000, 2, false),
                true);
    check_waits(&world, spec_iotlb_invalidate(SPEC_SELECTIVE, UNIT_DOMAIN, IOVA + 0x4000, 2, false),
                false);
    check_waits(&world, spec_context_invalidate(SPEC_GLOBAL, 0, 0, 0), true);
    check_waits(&world, spec_context_invalidate(SPEC_DOMAIN, UNIT_DOMAIN, 0, 0), true);
    check_waits(&world, spec_context_invalidate(SPEC_DOMAIN, UNIT_DOMAIN + 1, 0, 0), false);
    check_waits(&world, spec_context_invalidate(SPEC_SELECTIVE, 0, id, 0), true);
    check_waits(&world, spec_context_invalidate(SPEC_SELECTIVE, 0, id ^ 4, 0), false);
    check_waits(&world, spec_context_invalidate(SPEC_SELECTIVE, 0, id ^ 4, 1), true);
    check_waits(&world, spec_context_invalidate(SPEC_SELECTIVE, 0, id ^ 8, 3), false);
    check_waits(&world, spec_interrupt_cache_invalidate(false, 0, 0), false);
    world_fini(&world);
}

/* What is pinned by the new translation is not waited for. */
static void test_pinned_after(void **state)
{
    struct world world;
    struct holder old;
    struct holder new;

    (void)state;
    world_init(&world);
    pin(&world, &old, IOVA, IOVA + 0xfff);
    assert_ptr_equal(old.iov[0].iov_base, guest_host(&world.unit.guest, OLD));
    unit_map(&world.unit, IOVA, NEW, 1, RW);
    submit(&world, spec_iotlb_invalidate(SPEC_SELECTIVE, UNIT_DOMAIN, IOVA, 0, false));
    assert_false(is_complete(&world));
    pin(&world, &new, IOVA, IOVA + 0xfff);
    assert_ptr_equal(new.iov[0].iov_base, guest_host(&world.unit.guest, NEW));
    release(&old);
    assert_true(is_complete(&world));
    assert_int_equal(new.revoked, 0);
    assert_int_equal(old.revoked, 1);
    release(&new);
    world_fini(&world);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_kinds),
    cmocka_unit_test(test_pinned_after),
};

int main(void)
{
    (void)on_fence;
    (void)stats_of;
    return cmocka_run_group_tests_name("vtd_window", tests, NULL, NULL);
}
