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
    bool release; /* from inside revoke */
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
    return 0;
}

static int try_pin_to(struct viommu_device *device, struct holder *holder, uint64_t first,
                      uint64_t last, uint32_t perm)
{
    struct viommu_range range = {first, last};
    struct viommu_window_request request = {
        .ranges = &range,
        .count = 1,
        .perm = perm,
        .revoke = on_revoke,
        .fence = on_fence,
        .opaque = holder,
    };

    holder->iov_count = 8;
    return viommu_device_pin(device, NULL, &request, holder->iov, &holder->iov_count,
                             &holder->window);
}

static int try_pin(struct viommu_device *device, struct holder *holder, uint64_t first,
                   uint64_t last)
{
    return try_pin_to(device, holder, first, last, VIOMMU_READ);
}

/* Pins so many pages from IOVA on, which lead to places that do not follow one another. */
static void pin_large(struct world *world, struct holder *holder, size_t pages)
{
    static struct iovec iov[256];
    size_t count = 256;
    struct viommu_range range = {IOVA, IOVA + pages * 0x1000 - 1};
    struct viommu_window_request request = {
        .ranges = &range,
        .count = 1,
        .perm = VIOMMU_READ,
        .revoke = on_revoke,
        .opaque = holder,
    };

    assert_int_equal(viommu_device_pin(world->unit.device, NULL, &request, iov, &count,
                                       &holder->window), 0);
}

static void pin(struct world *world, struct holder *holder, uint64_t first, uint64_t last)
{
    *holder = (struct holder){0};
    assert_int_equal(try_pin(world->unit.device, holder, first, last), 0);
}

/* The guest has the window's page lead elsewhere, and does not say so yet. */
static void move(struct world *world, const struct holder *holder)
{
    bool old = holder->iov[0].iov_base == guest_host(&world->unit.guest, OLD);

    unit_map(&world->unit, IOVA, old ? NEW : OLD, 1, RW);
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
    move(world, &holder);
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

/* Nor what is pinned while requests that began before it are still under way. */
static void test_pinned_meanwhile(void **state)
{
    struct world world;
    struct holder new;
    struct guest *guest = &world.unit.guest;

    (void)state;
    world_init(&world);
    unit_map(&world.unit, IOVA, NEW, 1, RW);
    assert_int_equal(viommu_dma_begin(guest->iommu), 0);
    submit(&world, spec_iotlb_invalidate(SPEC_GLOBAL, 0, 0, 0, false));
    pin(&world, &new, IOVA, IOVA + 0xfff);
    assert_ptr_equal(new.iov[0].iov_base, guest_host(guest, NEW));
    assert_false(is_complete(&world));
    viommu_dma_end(guest->iommu);
    assert_true(is_complete(&world));
    assert_int_equal(new.revoked, 0);
    release(&new);
    world_fini(&world);
}

/* A page that is mapped by a larger one goes with all of it: no matter how it was found. */
static void try_super_page(unsigned level, uint64_t size)
{
    struct world world;
    struct holder holder;
    struct spec_descriptor middle =
        spec_iotlb_invalidate(SPEC_SELECTIVE, UNIT_DOMAIN, size / 2, 0, false);

    world_init(&world);
    unit_map(&world.unit, 0, 0, level, RW);
    for (int hit = 0; hit < 2; hit++) {
        pin(&world, &holder, 0x3000, 0x3000);
        unit_map(&world.unit, 0, 0, level, SPEC_W);
        submit(&world, middle);
        assert_false(is_complete(&world));
        release(&holder);
        assert_true(is_complete(&world));
        unit_map(&world.unit, 0, 0, level, RW);
        /* Has it cached, for the second time. */
        assert_int_equal(unit_read(&world.unit, 0x3000), 0);
    }
    pin(&world, &holder, 0x3000, 0x3000);
    submit(&world, spec_iotlb_invalidate(SPEC_SELECTIVE, UNIT_DOMAIN, size, 0, false));
    assert_true(is_complete(&world));
    release(&holder);
    world_fini(&world);
}

static void test_super_pages(void **state)
{
    (void)state;
    try_super_page(2, SIZE_2M);
    try_super_page(3, SIZE_1G);
}

/* Others in the queue go on; what comes behind retires in order. */
static void test_others_go_on(void **state)
{
    struct world world;
    struct holder holder;
    struct guest *guest = &world.unit.guest;
    uint64_t other;
    unsigned head;

    (void)state;
    world_init(&world);
    other = guest_page(guest);
    pin(&world, &holder, IOVA, IOVA + 0xfff);
    move(&world, &holder);
    head = unit_head(&world.unit);
    submit(&world, spec_iotlb_invalidate(SPEC_SELECTIVE, UNIT_DOMAIN, IOVA, 0, false));
    guest_queue_put(guest, spec_iotlb_invalidate(SPEC_SELECTIVE, UNIT_DOMAIN, IOVA + 0x1000, 0,
                                                 false));
    guest_queue_put(guest, spec_wait(SPEC_WAIT_STATUS, other, 5));
    guest_queue_kick(guest);
    guest_process(guest);
    assert_int_equal(stats_of(&world).iotlb_invalidations[2], 2);
    assert_int_equal(unit_head(&world.unit), head);
    assert_false(is_complete(&world));
    assert_int_equal((uint32_t)guest_load(guest, other), 0);
    assert_int_equal(unit_read(&world.unit, IOVA), 0);
    release(&holder);
    assert_true(is_complete(&world));
    assert_int_equal((uint32_t)guest_load(guest, other), 5);
    assert_int_equal(unit_head(&world.unit), head + 4);
    world_fini(&world);
}

static void test_too_late(void **state)
{
    struct world world;
    struct holder holder;

    (void)state;
    world_init(&world);
    pin(&world, &holder, IOVA, IOVA + 0xfff);
    move(&world, &holder);
    submit(&world, spec_iotlb_invalidate(SPEC_DOMAIN, UNIT_DOMAIN, 0, 0, false));
    world.unit.now += TIMEOUT - 1;
    assert_false(is_complete(&world));
    world.unit.now += 1;
    assert_true(is_complete(&world));
    assert_int_equal(holder.fenced, 1);
    assert_int_equal(unit_read(&world.unit, IOVA), -EPERM);
    assert_int_equal(guest_read(&world.unit.guest, SPEC_FSTS, 4), 0); /* the guest sees nothing */
    assert_int_equal(viommu_device_reset(world.unit.device), 0);
    assert_int_equal(unit_read(&world.unit, IOVA), 0);
    release(&holder);
    world_fini(&world);
}

static void test_release_inside(void **state)
{
    struct world world;
    struct holder holder;

    (void)state;
    world_init(&world);
    pin(&world, &holder, IOVA, IOVA + 0xfff);
    move(&world, &holder);
    holder.release = true;
    submit(&world, spec_context_invalidate(SPEC_GLOBAL, 0, 0, 0));
    assert_true(is_complete(&world));
    assert_int_equal(holder.revoked, 1);
    world_fini(&world);
}

/* A command of GCMD, and invalidation by register, wait; registers are read as ever. */
static void test_registers(void **state)
{
    struct world world;
    struct holder holder;
    struct guest *guest = &world.unit.guest;

    (void)state;
    world_init(&world);
    pin(&world, &holder, IOVA, IOVA + 0xfff);
    move(&world, &holder);
    guest_write(guest, SPEC_GCMD, 4, SPEC_TE | SPEC_QIE | SPEC_SRTP);
    guest_process(guest);
    assert_int_equal(guest_read(guest, SPEC_GSTS, 4) & SPEC_SRTP, 0);
    release(&holder);
    guest_process(guest);
    assert_int_equal(guest_read(guest, SPEC_GSTS, 4) & SPEC_SRTP, SPEC_SRTP);

    pin(&world, &holder, IOVA, IOVA + 0xfff);
    guest_write(guest, SPEC_GCMD, 4, SPEC_QIE);
    guest_process(guest);
    assert_int_equal(guest_read(guest, SPEC_GSTS, 4) & SPEC_TE, SPEC_TE);
    release(&holder);
    guest_process(guest);
    assert_int_equal(guest_read(guest, SPEC_GSTS, 4) & SPEC_TE, 0);

    /* With translation off it is memory itself that is pinned. */
    pin(&world, &holder, OLD, OLD);
    guest_write(guest, SPEC_GCMD, 4, SPEC_TE);
    guest_process(guest);
    assert_int_equal(guest_read(guest, SPEC_GSTS, 4) & (SPEC_TE | SPEC_QIE), 0);
    release(&holder);
    guest_process(guest);
    assert_int_equal(guest_read(guest, SPEC_GSTS, 4) & (SPEC_TE | SPEC_QIE), SPEC_TE);

    pin(&world, &holder, IOVA, IOVA + 0xfff);
    move(&world, &holder);
    guest_write(guest, SPEC_CCMD, 8, 1ull << 63 | (uint64_t)SPEC_GLOBAL << 61);
    guest_process(guest);
    assert_true(guest_read(guest, SPEC_CCMD, 8) >> 63);
    release(&holder);
    guest_process(guest);
    assert_false(guest_read(guest, SPEC_CCMD, 8) >> 63);

    pin(&world, &holder, IOVA, IOVA + 0xfff);
    move(&world, &holder);
    guest_write(guest, guest->iotlb_offset + 8, 8, 1ull << 63 | (uint64_t)SPEC_GLOBAL << 60);
    guest_process(guest);
    assert_true(guest_read(guest, guest->iotlb_offset + 8, 8) >> 63);
    assert_int_equal(holder.revoked, 1);
    world.unit.now += TIMEOUT;
    guest_process(guest);
    assert_false(guest_read(guest, guest->iotlb_offset + 8, 8) >> 63);
    release(&holder);
    world_fini(&world);
}

/* A device in pass-through has its domain, too; another device's windows are others. */
static void test_pass_through(void **state)
{
    struct world world;
    struct holder holder;
    struct holder passed;
    struct viommu_device_config config = {.requester = viommu_requester(0, 6, 0)};
    struct guest *guest = &world.unit.guest;
    struct viommu_device *device;

    (void)state;
    world_init(&world);
    assert_int_equal(viommu_device_add(guest->iommu, &config, &device), 0);
    guest_attach(guest, config.requester, UNIT_DOMAIN + 1, 0, world.unit.levels,
                 SPEC_TT_PASS);
    pin(&world, &holder, IOVA, IOVA + 0xfff);
    passed = (struct holder){0};
    assert_int_equal(try_pin(device, &passed, OLD, OLD + 0xfff), 0);
    guest_attach(guest, config.requester, UNIT_DOMAIN, world.unit.table, world.unit.levels,
                 SPEC_TT_UNTRANSLATED);
    submit(&world, spec_context_invalidate(SPEC_DOMAIN, UNIT_DOMAIN + 1, 0, 0));
    assert_false(is_complete(&world));
    assert_int_equal(holder.revoked, 0);
    assert_int_equal(passed.revoked, 1);
    release(&passed);
    assert_true(is_complete(&world));
    guest_attach(guest, config.requester, UNIT_DOMAIN + 1, 0, world.unit.levels, SPEC_TT_PASS);
    submit(&world, spec_context_invalidate(SPEC_SELECTIVE, 0, config.requester, 0));
    assert_true(is_complete(&world));
    passed = (struct holder){0};
    assert_int_equal(try_pin(device, &passed, OLD, OLD + 0xfff), 0);
    submit(&world, spec_iotlb_invalidate(SPEC_DOMAIN, UNIT_DOMAIN + 1, 0, 0, false));
    assert_true(is_complete(&world));
    submit(&world, spec_iotlb_invalidate(SPEC_SELECTIVE, UNIT_DOMAIN, OLD, 0, false));
    assert_true(is_complete(&world));
    guest_attach(guest, config.requester, UNIT_DOMAIN, world.unit.table, world.unit.levels,
                 SPEC_TT_UNTRANSLATED);
    submit(&world, spec_context_invalidate(SPEC_SELECTIVE, 0, config.requester, 0));
    assert_false(is_complete(&world));
    assert_int_equal(holder.revoked, 0);
    release(&passed);
    assert_true(is_complete(&world));
    release(&holder);
    world_fini(&world);
}

/* What the device-TLB is told does not concern windows: those are of untranslated requests. */
static void test_device_tlb(void **state)
{
    struct world world;
    struct holder holder;

    (void)state;
    world_init_as(&world, &(struct viommu_vtd_config){.device_tlb = true});
    pin(&world, &holder, IOVA, IOVA + 0xfff);
    submit(&world, spec_device_tlb_invalidate(world.unit.id, IOVA, 0));
    assert_true(is_complete(&world));
    assert_int_equal(holder.revoked, 0);
    release(&holder);
    world_fini(&world);
}

static void test_faults(void **state)
{
    struct world world;
    struct holder holder = {0};

    (void)state;
    world_init(&world);
    unit_map(&world.unit, IOVA + 0x1000, OLD, 1, SPEC_W);
    assert_int_equal(try_pin(world.unit.device, &holder, IOVA, IOVA + 0x2fff), -EFAULT);
    unit_expect_fault(&world.unit, 6, IOVA + 0x1000, false);
    unit_map(&world.unit, IOVA + 0x1000, OLD, 1, SPEC_R);
    assert_int_equal(try_pin_to(world.unit.device, &holder, IOVA, IOVA + 0x2fff,
                                VIOMMU_READ | VIOMMU_WRITE),
                     -EFAULT);
    unit_expect_fault(&world.unit, 5, IOVA + 0x1000, true);
    assert_int_equal(try_pin_to(world.unit.device, &holder, 0xfee00000, 0xfee00003,
                                VIOMMU_READ | VIOMMU_WRITE),
                     -EFAULT);
    unit_expect_fault(&world.unit, SPEC_INTERRUPT_REQUEST, 0xfee00000, false);
    assert_int_equal(try_pin_to(world.unit.device, &holder, 0xfee00000, 0xfee00003, VIOMMU_WRITE),
                     -ENXIO);
    unit_expect_no_fault(&world.unit);
    assert_int_equal(stats_of(&world).windows_open, 0);
    world_fini(&world);
}

/* Has many invalidations carried out that concern no window, and counts the calls that it takes. */
static unsigned calls_for_many(struct world *world)
{
    struct guest *guest = &world->unit.guest;
    unsigned calls = 0;

    for (unsigned i = 0; i < 60; i++) {
        guest_queue_put(guest, spec_iotlb_invalidate(SPEC_SELECTIVE, UNIT_DOMAIN, IOVA + 0x1000, 0,
                                                     false));
    }
    guest_queue_kick(guest);
    while (viommu_process(guest->iommu, 1000) == VIOMMU_PENDING) {
        calls++;
    }
    assert_int_equal(unit_head(&world->unit), 60);
    return calls;
}

/* A queue full of invalidations and very many windows: one call does not look at all of it. */
static void test_rounds(void **state)
{
    static struct holder holders[1000];
    struct world world;

    (void)state;
    world_init(&world);
    for (unsigned i = 0; i < 1000; i++) {
        pin(&world, &holders[i], IOVA, IOVA);
    }
    assert_in_range(calls_for_many(&world), 3, 10);
    assert_int_equal(stats_of(&world).windows_revoked, 0);
    for (unsigned i = 0; i < 1000; i++) {
        release(&holders[i]);
    }
    world_fini(&world);
}

/* The same of windows with very many ranges: each byte of a page that is even. */
static void test_rounds_of_ranges(void **state)
{
    static struct viommu_range ranges[GUEST_PAGE / 2];
    static struct iovec iov[GUEST_PAGE / 2];
    struct viommu_window *windows[100];
    struct viommu_window_request request = {
        .ranges = ranges,
        .count = GUEST_PAGE / 2,
        .perm = VIOMMU_READ,
        .revoke = on_revoke,
    };
    struct world world;

    (void)state;
    world_init(&world);
    for (unsigned i = 0; i < GUEST_PAGE / 2; i++) {
        ranges[i] = (struct viommu_range){IOVA + 2 * i, IOVA + 2 * i};
    }
    for (unsigned i = 0; i < 100; i++) {
        size_t count = GUEST_PAGE / 2;

        assert_int_equal(viommu_device_pin(world.unit.device, NULL, &request, iov, &count,
                                           &windows[i]),
                         0);
    }
    assert_in_range(calls_for_many(&world), 50, 70);
    for (unsigned i = 0; i < 100; i++) {
        viommu_window_release(windows[i]);
    }
    world_fini(&world);
}

static void put_waits(struct world *world, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        guest_queue_put(&world->unit.guest, spec_wait(0, 0, 0));
    }
    guest_queue_kick(&world->unit.guest);
}

/* A guest whose queue is never empty keeps nobody from being asked for memory that is removed. */
static void test_busy_queue(void **state)
{
    struct viommu_memory_batch *batch;
    struct viommu_memory_slot slot = {
        .first = 0x80000000, .last = 0x80000fff, .fd = -1};
    struct holder holder;
    struct world world;

    (void)state;
    world_init(&world);
    slot.host = guest_host(&world.unit.guest, NEW);
    guest_ok(viommu_memory_batch_begin(world.unit.guest.memory, &batch), "batch");
    guest_ok(viommu_memory_batch_add(batch, &slot), "slot");
    guest_ok(viommu_memory_batch_commit(batch, NULL, NULL), "commit");
    unit_map(&world.unit, IOVA, slot.first, 1, RW);
    pin(&world, &holder, IOVA, IOVA);
    guest_ok(viommu_memory_batch_begin(world.unit.guest.memory, &batch), "batch");
    guest_ok(viommu_memory_batch_remove(batch, slot.first, slot.last), "removal");
    assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), VIOMMU_PENDING);
    put_waits(&world, 50);
    for (unsigned i = 0; i < 10; i++) {
        put_waits(&world, 50);
        assert_int_equal(viommu_process(world.unit.guest.iommu, 50), VIOMMU_PENDING);
    }
    assert_int_equal(holder.revoked, 1);
    release(&holder);
    assert_int_equal(viommu_memory_process(world.unit.guest.memory), 0);
    world_fini(&world);
}

/* A window that leads where it led is looked at, and not asked back, whatever was dropped. */
static void check_kept(struct world *world, struct holder *holder,
                       struct spec_descriptor descriptor)
{
    uint64_t kept = stats_of(world).windows_kept;

    submit(world, descriptor);
    assert_true(is_complete(world));
    assert_int_equal(holder->revoked, 0);
    assert_int_equal(stats_of(world).windows_kept, kept + 1);
    assert_int_equal(stats_of(world).windows_open, 1);
}

static void test_kept(void **state)
{
    struct world world;
    struct holder holder;
    uint64_t table;

    (void)state;
    world_init(&world);
    pin(&world, &holder, IOVA + 0x123, IOVA + 0x1fff);
    check_kept(&world, &holder, spec_iotlb_invalidate(SPEC_GLOBAL, 0, 0, 0, false));
    check_kept(&world, &holder, spec_iotlb_invalidate(SPEC_DOMAIN, UNIT_DOMAIN, 0, 0, false));
    check_kept(&world, &holder,
               spec_iotlb_invalidate(SPEC_SELECTIVE, UNIT_DOMAIN, IOVA + 0x1000, 0, false));
    check_kept(&world, &holder, spec_context_invalidate(SPEC_GLOBAL, 0, 0, 0));
    /* Other pages of the domain changed. */
    unit_map(&world.unit, IOVA + 0x2000, OLD, 1, RW);
    check_kept(&world, &holder, spec_iotlb_invalidate(SPEC_DOMAIN, UNIT_DOMAIN, 0, 0, false));
    /* More is allowed there, and other tables, of another domain, say the same. */
    unit_map(&world.unit, IOVA, OLD, 1, SPEC_R);
    check_kept(&world, &holder, spec_iotlb_invalidate(SPEC_DOMAIN, UNIT_DOMAIN, 0, 0, false));
    table = world.unit.table;
    world.unit.table = guest_page(&world.unit.guest);
    unit_map(&world.unit, IOVA, OLD, 1, RW);
    unit_map(&world.unit, IOVA + 0x1000, OLD + 0x1000, 1, RW);
    guest_attach(&world.unit.guest, world.unit.id, UNIT_DOMAIN + 1, world.unit.table,
                 world.unit.levels, SPEC_TT_UNTRANSLATED);
    check_kept(&world, &holder, spec_context_invalidate(SPEC_SELECTIVE, 0, world.unit.id, 0));
    assert_int_not_equal(table, world.unit.table);
    /* It is of the new domain then, and of the old one no more. */
    submit(&world, spec_iotlb_invalidate(SPEC_DOMAIN, UNIT_DOMAIN, 0, 0, false));
    assert_true(is_complete(&world));
    unit_map(&world.unit, IOVA + 0x1000, OLD, 1, RW);
    submit(&world, spec_iotlb_invalidate(SPEC_DOMAIN, UNIT_DOMAIN + 1, 0, 0, false));
    assert_false(is_complete(&world));
    assert_int_equal(holder.revoked, 1);
    release(&holder);
    assert_true(is_complete(&world));
    world_fini(&world);
}

/* What differs in one page, or does not allow enough, is asked back. */
static void check_not_kept(uint64_t iova, uint64_t gpa, uint64_t flags, uint32_t perm)
{
    struct world world;
    struct holder holder = {0};

    world_init(&world);
    assert_int_equal(try_pin_to(world.unit.device, &holder, IOVA, IOVA + 0x1fff, perm), 0);
    unit_map(&world.unit, iova, gpa, 1, flags);
    submit(&world, spec_iotlb_invalidate(SPEC_DOMAIN, UNIT_DOMAIN, 0, 0, false));
    assert_false(is_complete(&world));
    assert_int_equal(holder.revoked, 1);
    assert_int_equal(stats_of(&world).windows_kept, 0);
    assert_int_equal(stats_of(&world).faults_recorded, 0);
    release(&holder);
    assert_true(is_complete(&world));
    world_fini(&world);
}

static void test_not_kept(void **state)
{
    (void)state;
    check_not_kept(IOVA, OLD + 0x1000, RW, VIOMMU_READ);
    check_not_kept(IOVA + 0x1000, OLD, RW, VIOMMU_READ);
    check_not_kept(IOVA + 0x1000, OLD + 0x1000, 0, VIOMMU_READ);
    check_not_kept(IOVA + 0x1000, OLD + 0x1000, SPEC_W, VIOMMU_READ);
    check_not_kept(IOVA, OLD, SPEC_R, VIOMMU_WRITE);
    check_not_kept(IOVA, OLD, SPEC_R, VIOMMU_READ | VIOMMU_WRITE);
    check_not_kept(IOVA + 0x1000, 0x7fffff000, RW, VIOMMU_READ); /* no memory there */
}

/* A large window is looked at in many steps; changes in its last page are seen. */
static void test_kept_large(void **state)
{
    struct world world;
    struct holder holder;

    (void)state;
    world_init(&world);
    for (uint64_t page = 0; page < 200; page++) {
        unit_map(&world.unit, IOVA + page * 0x1000, OLD + page % 7 * 0x1000, 1, RW);
    }
    holder = (struct holder){0};
    pin_large(&world, &holder, 200);
    check_kept(&world, &holder, spec_iotlb_invalidate(SPEC_GLOBAL, 0, 0, 0, false));
    unit_map(&world.unit, IOVA + 199 * 0x1000, NEW, 1, RW);
    submit(&world, spec_iotlb_invalidate(SPEC_GLOBAL, 0, 0, 0, false));
    assert_false(is_complete(&world));
    release(&holder);
    assert_true(is_complete(&world));
    world_fini(&world);
}

/* The machine is reset while an invalidation waits: it is gone, and the next ones wait again. */
static void test_reset(void **state)
{
    struct world world;
    struct holder holder;
    struct guest *guest = &world.unit.guest;

    (void)state;
    world_init(&world);
    pin(&world, &holder, IOVA, IOVA + 0xfff);
    move(&world, &holder);
    submit(&world, spec_iotlb_invalidate(SPEC_DOMAIN, UNIT_DOMAIN, 0, 0, false));
    assert_false(is_complete(&world));
    assert_int_equal(viommu_reset(guest->iommu), 0);
    assert_false(is_complete(&world));
    world.unit.now += 2 * TIMEOUT;
    assert_false(is_complete(&world));
    assert_int_equal(holder.fenced, 0);
    guest_write(guest, SPEC_RTADDR, 8, guest->root);
    guest_write(guest, SPEC_GCMD, 4, SPEC_SRTP);
    guest_process(guest);
    assert_int_equal(guest_read(guest, SPEC_GSTS, 4) & SPEC_SRTP, 0);
    release(&holder);
    assert_int_equal(holder.revoked, 1);
    guest_process(guest);
    assert_int_equal(guest_read(guest, SPEC_GSTS, 4) & SPEC_SRTP, SPEC_SRTP);
    world_fini(&world);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_kinds),
    cmocka_unit_test(test_pinned_after),
    cmocka_unit_test(test_pinned_meanwhile),
    cmocka_unit_test(test_super_pages),
    cmocka_unit_test(test_others_go_on),
    cmocka_unit_test(test_too_late),
    cmocka_unit_test(test_release_inside),
    cmocka_unit_test(test_registers),
    cmocka_unit_test(test_pass_through),
    cmocka_unit_test(test_device_tlb),
    cmocka_unit_test(test_faults),
    cmocka_unit_test(test_rounds),
    cmocka_unit_test(test_rounds_of_ranges),
    cmocka_unit_test(test_busy_queue),
    cmocka_unit_test(test_kept),
    cmocka_unit_test(test_not_kept),
    cmocka_unit_test(test_kept_large),
    cmocka_unit_test(test_reset),
};

int main(void)
{
    return cmocka_run_group_tests_name("vtd_window", tests, NULL, NULL);
}
