/* SPDX-License-Identifier: BSD-2-Clause */
/* Making the guest of the rows, and knowing the right answers. */
#include "world.h"

/* Leaf tables are filled directly: large worlds have millions of entries. */
static void map_leaf_table(struct world *world, uint64_t first)
{
    uint64_t entry = guest_map(&world->guest, world->table, WORLD_LEVELS, world_iova(first),
                               world_gpa(world, first), 1, SPEC_R | SPEC_W);

    for (uint64_t i = 1; i < 512; i++) {
        guest_store(&world->guest, entry + i * 8, world_gpa(world, first + i) | SPEC_R | SPEC_W);
    }
}

static void wake(void *opaque)
{
    struct world *world = opaque;

    world->woken = true;
}

static void init(struct world *world, uint64_t pages, void (*wake_function)(void *opaque))
{
    struct guest_config config = {
        .callbacks = {.wake = wake_function},
        .opaque = world,
        .ram_pages = pages / 512 + pages / (512 * 512) + 64,
    };
    struct guest *guest = &world->guest;

    world->pages = pages;
    guest_ok(guest_init(guest, &config), "making a guest");
    world->table = guest_page(guest);
    for (uint64_t i = 0; i < pages; i += 512) {
        map_leaf_table(world, i);
    }
    for (unsigned i = 0; i < WORLD_DEVICES; i++) {
        struct viommu_device_config device = {.requester = viommu_requester(0, i + 1, 0)};

        guest_attach(guest, device.requester, WORLD_DOMAIN, world->table, WORLD_LEVELS,
                     SPEC_TT_UNTRANSLATED);
        guest_ok(viommu_device_add(guest->iommu, &device, &world->devices[i]), "adding a device");
    }
    guest_set_root(guest);
    guest_command(guest, SPEC_TE, true);
}

void world_init(struct world *world, uint64_t pages)
{
    init(world, pages, NULL);
}

void world_init_woken(struct world *world, uint64_t pages)
{
    init(world, pages, wake);
}

void world_fini(struct world *world)
{
    guest_fini(&world->guest);
}

bool world_touch(struct world *world, struct viommu_device *device)
{
    for (uint64_t i = 0; i < world->pages; i++) {
        struct viommu_translation t;

        if (viommu_device_translate(device, NULL, world_iova(i), VIOMMU_READ, &t) ||
            t.gpa != world_gpa(world, i)) {
            return false;
        }
    }
    return true;
}

bool world_tour_ok(const struct world *world, const struct tour *tour)
{
    uint64_t page = tour->start;
    uint64_t sum = 0;

    for (uint64_t i = 0; i < tour->count; i++) {
        sum += world_gpa(world, page);
        page = world_next(world, page);
    }
    return page == tour->page && sum == tour->sum;
}

uint64_t world_entry(struct world *world, uint64_t page)
{
    return guest_map(&world->guest, world->table, WORLD_LEVELS, world_iova(page),
                     world_gpa(world, page), 1, SPEC_R | SPEC_W);
}
