/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Paravirtual operations in front of a backend that maps in the kernel, which the test plays: what
 * holds for VFIO and iommufd alike. The file that includes this one has the kernel (test_space.h,
 * with `kernel` and `ioctl`), pv/test_behind.h, and these:
 *
 *     backend_begin   creates the backend, and fills its subscription in; `cut_off` or not
 *     backend_end     destroys it
 *     kernel_ranges   the kernel says that only these addresses can be mapped
 *     kernel_pages    the kernel says that no page is smaller than this
 */

static void backend_begin(struct viommu_subscription *what, bool with_cut_off);
static int backend_end(void);
static void kernel_ranges(const struct viommu_range *ranges, unsigned count);
static void kernel_pages(uint64_t size);

static const struct viommu_pv_config usual_config = {.deferred_max = 64};

static int setup(void **state)
{
    (void)state;
    kernel_begin();
    return 0;
}

/* What the kernel has mapped is what the engine holds a reference for. */
static void check(struct world *world)
{
    const struct world_space *it = &world->spaces[0];

    world_check(world);
    for (unsigned i = 0; i < space.count; i++) {
        uint64_t frame = space.mappings[i].first >> 12;
        bool known = it->live[frame].there;

        for (unsigned n = 0; n < it->stale_count; n++) {
            known |= it->stale[n].device_frame == frame;
        }
        assert_true(known);
    }
}

static bool is_mapped(uint64_t first, uint64_t last)
{
    for (unsigned i = 0; i < space.count; i++) {
        if (space.mappings[i].first == first && space.mappings[i].last == last) {
            return true;
        }
    }
    return false;
}

static void test_map_and_unmap(void **state)
{
    struct viommu_subscription what;
    struct world *world;

    (void)state;
    backend_begin(&what, true);
    world = behind_create(&what, &usual_config);
    assert_int_equal(behind_do_map(world, 5, 9, 3), VIOMMU_PV_OK);
    assert_true(is_mapped(0x9000, 0x9fff) && is_mapped(0xa000, 0xafff) &&
                is_mapped(0xb000, 0xbfff));
    /* A large page is one mapping. */
    assert_int_equal(world_do_map(world, 0, (struct world_range){0, 0, 512, 512, 1, 9, 1, 0}),
                     VIOMMU_PV_OK);
    assert_true(is_mapped(0x200000, 0x3fffff));
    check(world);
    assert_int_equal(behind_do_unmap(world, 5, 9, 2, VIOMMU_PV_DEFER), VIOMMU_PV_OK);
    assert_int_equal(space.count, 2);
    assert_int_equal(world->pages[5].refs, 1);
    check(world);
    assert_int_equal(world_do_flush(world, 0, 0), VIOMMU_PV_OK);
    assert_int_equal(world->pages[5].refs, 0);
    assert_int_equal(world_status(world, 0).isolated, 0);
    check(world);
    behind_end(world);
    assert_int_equal(space.count, 0);
    assert_int_equal(space.cut_offs, 0);
    assert_int_equal(backend_end(), 0);
}

/* One page more than fits is refused, and changes nothing. */
static void test_full(void **state)
{
    struct viommu_subscription what;
    struct world *world;

    (void)state;
    backend_begin(&what, true);
    world = behind_create(&what, &usual_config);
    assert_int_equal(behind_do_map(world, 0, 16, MAPPINGS + 3), VIOMMU_PV_ENOSPC);
    assert_int_equal(space.count, MAPPINGS);
    assert_int_equal(world_status(world, 0).mappings, MAPPINGS);
    assert_int_equal(world_status(world, 0).isolated, 0);
    check(world);
    assert_int_equal(behind_do_unmap(world, 1, 17, 1, 0), VIOMMU_PV_OK);
    assert_int_equal(behind_do_map(world, 1, 17, 1), VIOMMU_PV_OK);
    check(world);
    behind_end(world);
    assert_int_equal(backend_end(), 0);
}

/* The number of mappings is not exceeded; the kernel is not even asked. */
static void test_number(void **state)
{
    struct viommu_subscription what;
    struct world *world;

    (void)state;
    backend_begin(&what, true);
    what.mappings_max = 2;
    world = behind_create(&what, &usual_config);
    assert_int_equal(behind_do_map(world, 0, 16, 3), VIOMMU_PV_ENOSPC);
    assert_int_equal(space.maps, 2);
    assert_int_equal(behind_do_unmap(world, 0, 16, 1, 0), VIOMMU_PV_OK);
    assert_int_equal(behind_do_map(world, 0, 16, 1), VIOMMU_PV_OK);
    assert_int_equal(behind_do_map(world, 9, 99, 1), VIOMMU_PV_ENOSPC);
    check(world);
    behind_end(world);
    assert_int_equal(backend_end(), 0);
}

/* Nothing is dropped while the kernel does not unmap; all of it when it does again. */
static void test_unmapping_fails(void **state)
{
    struct viommu_subscription what;
    struct world *world;

    (void)state;
    backend_begin(&what, false);
    world = behind_create(&what, &usual_config);
    assert_int_equal(behind_do_map(world, 5, 9, 3), VIOMMU_PV_OK);
    assert_int_equal(behind_do_unmap(world, 5, 9, 1, VIOMMU_PV_DEFER), VIOMMU_PV_OK);
    space.unmap_error = ENODEV;
    assert_int_equal(behind_do_unmap(world, 6, 10, 1, 0), VIOMMU_PV_EIO);
    assert_int_equal(world_status(world, 0).isolated, 1);
    assert_true(world->spaces[0].isolated);
    for (unsigned i = 5; i < 8; i++) {
        assert_int_equal(world->pages[i].refs, 1);
    }
    assert_int_equal(world_do_flush(world, 0, 0), VIOMMU_PV_EIO);
    assert_int_equal(behind_do_map(world, 20, 20, 1), VIOMMU_PV_EIO);
    assert_int_equal(viommu_pv_vm_destroy(world->pv, 0), -EIO);
    assert_int_equal(world->pages[5].refs, 1);
    check(world);
    assert_int_equal(space.count, 2);
    space.unmap_error = 0;
    behind_end(world);
    assert_int_equal(space.count, 0);
    assert_int_equal(backend_end(), 0);
}

/* The same; a flush is what tries again. */
static void test_flush_tries_again(void **state)
{
    struct viommu_subscription what;
    struct world *world;

    (void)state;
    backend_begin(&what, false);
    world = behind_create(&what, &usual_config);
    assert_int_equal(behind_do_map(world, 5, 9, 2), VIOMMU_PV_OK);
    space.unmap_error = EBUSY;
    assert_int_equal(behind_do_unmap(world, 5, 9, 1, 0), VIOMMU_PV_EIO);
    space.unmap_error = 0;
    assert_int_equal(space.count, 2);
    assert_int_equal(world_do_flush(world, 0, 0), VIOMMU_PV_OK);
    assert_int_equal(space.count, 0);
    assert_int_equal(world_status(world, 0).isolated, 0);
    /* The backend is finished: there is nothing to be unmapped, and nothing is mapped any more. */
    assert_int_equal(behind_do_unmap(world, 5, 9, 2, 0), VIOMMU_PV_OK);
    assert_int_equal(world->pages[5].refs + world->pages[6].refs, 0);
    assert_int_equal(behind_do_map(world, 5, 9, 1), VIOMMU_PV_EIO);
    assert_int_equal(space.maps, 2);
    check(world);
    behind_end(world);
    assert_int_equal(backend_end(), 0);
}

/* The device is cut off: it reaches nothing, and references may go. A new backend follows. */
static void test_cut_off(void **state)
{
    struct viommu_subscription what;
    struct world *world;
    uint32_t context;

    (void)state;
    backend_begin(&what, true);
    world = behind_create(&what, &usual_config);
    assert_int_equal(behind_do_map(world, 5, 9, 2), VIOMMU_PV_OK);
    space.unmap_error = ENODEV;
    assert_int_equal(behind_do_unmap(world, 5, 9, 1, 0), VIOMMU_PV_EIO);
    assert_int_equal(space.cut_offs, 1);
    assert_int_equal(world->pages[5].refs, 1);
    assert_int_equal(world_do_flush(world, 0, 0), VIOMMU_PV_OK);
    assert_int_equal(behind_do_unmap(world, 5, 9, 2, 0), VIOMMU_PV_OK);
    assert_int_equal(world->pages[5].refs, 0);
    assert_int_equal(space.cut_offs, 1); /* once is enough */
    world_check(world);
    space.unmap_error = 0;
    assert_int_equal(backend_end(), 0);
    assert_int_equal(space.count, 0);
    backend_begin(&behind.next, true);
    assert_int_equal(world_alloc(world, 0, &context), VIOMMU_PV_OK);
    assert_int_equal(world_do_map(world, 0, (struct world_range){context, 0, 5, 9, 2, 0, 3, 0}),
                     VIOMMU_PV_OK);
    assert_int_equal(space.count, 2);
    behind_end(world);
    assert_int_equal(space.count, 0);
    assert_int_equal(backend_end(), 0);
}

/* Cutting it off fails, too. */
static void test_not_even_cut_off(void **state)
{
    struct viommu_subscription what;
    struct world *world;

    (void)state;
    backend_begin(&what, true);
    world = behind_create(&what, &usual_config);
    assert_int_equal(behind_do_map(world, 5, 9, 2), VIOMMU_PV_OK);
    space.unmap_error = ENODEV;
    space.cut_off_answer = -ENXIO;
    assert_int_equal(behind_do_unmap(world, 5, 9, 1, 0), VIOMMU_PV_EIO);
    assert_int_equal(world_do_flush(world, 0, 0), VIOMMU_PV_EIO);
    assert_int_equal(world->pages[5].refs, 1);
    assert_int_equal(world->pages[6].refs, 1);
    check(world);
    /* The hypervisor closes the container itself, and says so. */
    space.unmap_error = 0;
    assert_int_equal(backend_end(), 0);
    viommu_pv_backend_gone(behind.backends[0]);
    assert_int_equal(world_do_flush(world, 0, 0), VIOMMU_PV_OK);
    assert_int_equal(world_status(world, 0).isolated, 0);
    behind_end(world);
}

/* The kernel says that it has unmapped less than it was asked to. */
static void test_in_part(void **state)
{
    struct viommu_subscription what;
    struct world *world;

    (void)state;
    backend_begin(&what, true);
    world = behind_create(&what, &usual_config);
    assert_int_equal(behind_do_map(world, 5, 9, 2), VIOMMU_PV_OK);
    space.unmap_less = 0x800;
    assert_int_equal(behind_do_unmap(world, 5, 9, 1, 0), VIOMMU_PV_EIO);
    assert_int_equal(world->pages[5].refs, 1);
    assert_int_equal(world_status(world, 0).isolated, 1);
    world_check(world);
    space.unmap_less = 0;
    behind_end(world);
    assert_int_equal(space.count, 0);
    assert_int_equal(backend_end(), 0);
}

/* ---- apertures ---- */

static const struct viommu_range aperture[] = {{0x10000, 0x7fffff}, {0x900800, 0xbff7ff}};

static uint32_t foreign(struct world *world, unsigned count, struct viommu_pv_item *items)
{
    struct {
        struct viommu_pv_foreign_call call;
        uint64_t frames[64];
    } in = {
        .call = {
            .vm = 1, .device_frame_max = WORLD_DEVICE - 1, .perm = VIOMMU_PV_READ, .count = count}};
    struct {
        struct viommu_pv_answer answer;
        struct viommu_pv_item items[64];
    } out;
    uint32_t status;

    in.call.head = (struct viommu_pv_head){VIOMMU_PV_VERSION, VIOMMU_PV_MAP_FOREIGN,
                                           (uint32_t)(sizeof(in.call) + count * sizeof(uint64_t))};
    for (unsigned i = 0; i < count; i++) {
        in.frames[i] = i;
    }
    status =
        world_call(world, 0, &in, sizeof(in.call) + count * sizeof(uint64_t), &out, sizeof(out));
    memcpy(items, out.items, count * sizeof(*items));
    return status;
}

/* The hypervisor did not tell its VM: then what is mapped there is refused, for the one reason. */
static void test_outside(void **state)
{
    struct viommu_subscription what;
    struct viommu_pv_item items[20];
    struct world *world;

    (void)state;
    kernel_ranges(aperture, 2);
    backend_begin(&what, true);
    world = behind_create(&what, &usual_config);
    assert_int_equal(behind_do_map(world, 5, 15, 2), VIOMMU_PV_EADDRNOTAVAIL);
    assert_int_equal(behind_do_map(world, 5, 0x7ff, 2), VIOMMU_PV_EADDRNOTAVAIL); /* the first is */
    assert_int_equal(behind_do_map(world, 5, 0x900, 1), VIOMMU_PV_EADDRNOTAVAIL); /* a part of it */
    assert_int_equal(behind_do_map(world, 5, 0x901, 1), VIOMMU_PV_OK);
    assert_int_equal(behind_do_map(world, 5, 0xbff, 1), VIOMMU_PV_EADDRNOTAVAIL);
    assert_int_equal(world_do_map(world, 0, (struct world_range){0, 0, 512, 0, 1, 9, 1, 0}),
                     VIOMMU_PV_EADDRNOTAVAIL);
    assert_int_equal(space.count, 2);
    assert_int_equal(world->pages[5].refs, 2);
    assert_int_equal(world_status(world, 0).isolated, 0);
    check(world);
    /* Each item has its own status, and is tried once. */
    assert_int_equal(foreign(world, 18, items), VIOMMU_PV_OK);
    for (unsigned i = 0; i < 18; i++) {
        assert_int_equal(items[i].status, i < 16 ? VIOMMU_PV_EADDRNOTAVAIL : VIOMMU_PV_OK);
    }
    assert_int_equal(items[16].device_frame, 16);
    assert_int_equal(space.count, 4);
    check(world);
    behind_end(world);
    assert_int_equal(backend_end(), 0);
}

/* It did: then nothing is done for such a page, and none is placed there. */
static void test_told(void **state)
{
    struct viommu_pv_reserved_call ask = {
        .head = WORLD_HEAD(VIOMMU_PV_RESERVED, struct viommu_pv_reserved_call),
        .device = VIOMMU_PV_ALL,
        .room = 4};
    struct {
        struct viommu_pv_reserved head;
        struct viommu_pv_range ranges[4];
    } told;
    struct viommu_subscription what;
    struct viommu_pv_item item;
    struct world *world;
    unsigned long steps;

    (void)state;
    kernel_ranges(aperture, 2);
    backend_begin(&what, true);
    world = behind_create(&what, &usual_config);
    behind.tells_holes = true;
    assert_int_equal(viommu_pv_device_add(world->pv, 0, 1), 0);
    assert_int_equal(world_call(world, 0, &ask, sizeof(ask), &told, sizeof(told)), VIOMMU_PV_OK);
    assert_int_equal(told.head.count, 3);
    assert_int_equal(told.ranges[0].first, 0);
    assert_int_equal(told.ranges[0].last, 15);
    assert_int_equal(told.ranges[1].first, 0x800);
    assert_int_equal(told.ranges[1].last, 0x900);
    assert_int_equal(told.ranges[2].first, 0xbff);
    assert_int_equal(told.ranges[2].last, WORLD_DEVICE - 1);
    steps = world->steps;
    assert_int_equal(behind_do_map(world, 5, 15, 2), VIOMMU_PV_EADDRNOTAVAIL);
    assert_int_equal(behind_do_map(world, 5, 0x7ff, 2), VIOMMU_PV_EADDRNOTAVAIL);
    assert_int_equal(world->steps, steps + 2); /* whether they may call */
    assert_int_equal(foreign(world, 1, &item), VIOMMU_PV_OK);
    assert_int_equal(item.status, VIOMMU_PV_OK);
    assert_int_equal(item.device_frame, 16);
    assert_int_equal(space.count, 1);
    check(world);
    behind_end(world);
    assert_int_equal(backend_end(), 0);
}

static void test_large_pages_only(void **state)
{
    struct viommu_subscription what;
    struct viommu_pv_backend *backend;

    (void)state;
    kernel_pages(0x10000);
    backend_begin(&what, true);
    assert_int_equal(viommu_pv_backend_create(&what, &backend), -ENOTSUP);
    assert_int_equal(backend_end(), 0);
    kernel_pages(0x1000);
    backend_begin(&what, true);
    what.adopt = true;
    assert_int_equal(viommu_pv_backend_create(&what, &backend), -ENOTSUP);
    assert_int_equal(backend_end(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_map_and_unmap, setup),
        cmocka_unit_test_setup(test_full, setup),
        cmocka_unit_test_setup(test_number, setup),
        cmocka_unit_test_setup(test_unmapping_fails, setup),
        cmocka_unit_test_setup(test_flush_tries_again, setup),
        cmocka_unit_test_setup(test_cut_off, setup),
        cmocka_unit_test_setup(test_not_even_cut_off, setup),
        cmocka_unit_test_setup(test_in_part, setup),
        cmocka_unit_test_setup(test_outside, setup),
        cmocka_unit_test_setup(test_told, setup),
        cmocka_unit_test_setup(test_large_pages_only, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
