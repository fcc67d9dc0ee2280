/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Root and context tables of the mirrors' model test: two root tables, buses 0 and 1, and what an
 * entry says of a device.
 */
#include "world.h"

#define ROOTS 1    /* page numbers */
#define CONTEXTS 3 /* [root][bus] */

static uint64_t root_slot(unsigned root, uint16_t requester)
{
    return (ROOTS + root) * WORLD_PAGE + (requester >> 8) * 16u;
}

static uint64_t context_slot(unsigned root, uint16_t requester)
{
    return (CONTEXTS + root * 2 + (requester >> 8 & 1)) * WORLD_PAGE + (requester & 0xff) * 16u;
}

static bool valid(const struct world *world, uint64_t lo, uint64_t hi)
{
    unsigned type = lo >> 2 & 3;
    unsigned levels = (unsigned)(hi & 7) + 2;

    if (!(lo & 1) || lo & 0xff0 || hi & 0x80 || hi >> 24) {
        return false;
    }
    if (levels != 3 && (levels != 4 || world->vtd.address_width != 48)) {
        return false;
    }
    return type == SPEC_TT_UNTRANSLATED || (type == SPEC_TT_PASS && !world->vtd.no_pass_through);
}

struct view context_read(struct world *world, uint16_t requester)
{
    struct view view = {.kind = VIEW_NONE};
    uint64_t lo = 0;
    uint64_t hi = 0;

    memory_load(world, root_slot(world->root, requester), &lo);
    if (!(lo & 1) || lo & 0xffe) {
        return view;
    }
    memory_load(world, context_slot(world->root, requester), &lo);
    memory_load(world, context_slot(world->root, requester) + 8, &hi);
    if (!valid(world, lo, hi)) {
        return view;
    }
    view.domain = (uint16_t)(hi >> 8);
    if ((lo >> 2 & 3) == SPEC_TT_PASS) {
        view.kind = VIEW_IDENTITY;
        return view;
    }
    for (unsigned i = 0; i < WORLD_SPACES; i++) {
        if (world->spaces[i].root == (lo & ~0xfffull) &&
            world->spaces[i].levels == (hi & 7) + 2) {
            view.kind = VIEW_TABLES;
            view.space = i;
            return view;
        }
    }
    world_fail(world, "a context entry that leads to no space");
}

static void write(struct world *world, unsigned root, uint16_t requester, uint64_t lo, uint64_t hi)
{
    memory_store(world, root_slot(root, requester),
                 (CONTEXTS + root * 2 + (requester >> 8 & 1)) * WORLD_PAGE | 1);
    memory_store(world, context_slot(root, requester) + 8, hi);
    memory_store(world, context_slot(root, requester), lo);
}

static void attach(struct world *world, unsigned root, uint16_t requester, unsigned space,
                   uint16_t domain)
{
    write(world, root, requester, world->spaces[space].root | SPEC_TT_UNTRANSLATED << 2 | 1,
          (uint64_t)domain << 8 | (world->spaces[space].levels - 2));
}

void context_attach(struct world *world, unsigned device, unsigned space, uint16_t domain)
{
    attach(world, world->root, world->devices[device].requester, space, domain);
}

static void cut(struct world *world, unsigned root, uint16_t requester)
{
    uint64_t entry = 0;

    memory_load(world, root_slot(root, requester), &entry);
    memory_store(world, root_slot(root, requester), entry ^ 1);
}

void context_edit(struct world *world)
{
    const struct device *device = &world->devices[world_below(world, WORLD_DEVICES)];
    uint16_t requester = world_percent(world, 90) ? device->requester : device->requester ^ 0x40;
    unsigned root = world_percent(world, 85) ? world->root : !world->root;
    uint16_t domain = (uint16_t)(1 + world_below(world, 4));
    uint64_t wide = world->vtd.address_width == 48 ? 2 : 1;
    unsigned space = world_below(world, WORLD_SPACES);
    unsigned kind = world_below(world, 20);

    world_note(world, "context of %04x, root %u: kind %u space %u domain %u", requester, root,
               kind, space, domain);
    switch (kind) {
    case 0:
    case 1:
    case 2:
        write(world, root, requester, SPEC_TT_PASS << 2 | 1, (uint64_t)domain << 8 | wide);
        break;
    case 3:
    case 4:
        write(world, root, requester, 0, 0);
        break;
    case 5:
        write(world, root, requester, 3 << 2 | 1 | world->spaces[space].root, 1 << 8 | wide);
        break;
    case 6: /* reserved bits, or a width there is not */
        write(world, root, requester, 1 | world->spaces[space].root,
              (uint64_t)domain << 8 | (world_percent(world, 50) ? 5 : 0x80 | wide));
        break;
    case 7:
        cut(world, root, requester);
        break;
    default:
        attach(world, root, requester, space, domain);
        break;
    }
}
