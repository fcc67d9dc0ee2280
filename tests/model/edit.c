/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The model test changes the guest's tables: at random, and on purpose so that some mappings work.
 */
#include "world.h"

static uint64_t any_pool_page(struct world *world)
{
    return world_page(WORLD_POOL + world_below(world, WORLD_POOL_COUNT));
}

static uint64_t any_target(struct world *world, unsigned level)
{
    static const uint64_t large[] = {0, 0x200000, 0xfee00000, 0x40000000};
    uint64_t top = world->ram.slots[3].first;

    if (level > 1) {
        uint64_t mask = (1ull << (12 + 9 * (level - 1))) - 1;
        unsigned which = world_below(world, 6);

        return (which < 4 ? large[which] : which == 4 ? top : 0) & ~mask;
    }
    switch (world_below(world, 10)) {
    case 0:
        return any_pool_page(world);
    case 1:
        return world->ram.slots[1].first + world_below(world, 16) * RAM_PAGE;
    case 2:
        return world->ram.slots[2].first + world_below(world, 4) * RAM_PAGE;
    case 3:
        return top + world_below(world, 16) * RAM_PAGE;
    case 4:
        return world_percent(world, 30) ? 0xfee00000 : 0x6000000;
    default:
        return world_page(WORLD_DATA + world_below(world, WORLD_DATA_COUNT));
    }
}

static uint64_t any_permission(struct world *world)
{
    unsigned which = world_below(world, 10);

    return which < 7 ? 3 : which == 7 ? SPEC_R : which == 8 ? SPEC_W : 0;
}

static uint64_t any_ignored_bits(struct world *world)
{
    return world_percent(world, 20) ? random_u64(&world->random) & 0xbff000000000077cull : 0;
}

static uint64_t any_reserved_bit(struct world *world)
{
    static const uint8_t bits[] = {62, 51, 11, 7, 12, 20, 29, 36, 47};

    return 1ull << bits[world_below(world, 9)];
}

static uint64_t any_leaf(struct world *world, unsigned level)
{
    uint64_t entry = any_target(world, level) | any_permission(world);

    if (level == 2 || level == 3) {
        entry |= SPEC_PS;
    }
    return entry | any_ignored_bits(world);
}

static uint64_t any_entry(struct world *world, uint64_t table)
{
    unsigned which = world_below(world, 100);

    if (which < 12) {
        return 0;
    }
    if (which < 50) {
        return any_pool_page(world) | any_permission(world) | any_ignored_bits(world);
    }
    if (which < 82) {
        return any_leaf(world, 1 + world_below(world, 3));
    }
    if (which < 86) {
        return 0x5000000 | any_permission(world);
    }
    if (which < 93) {
        return any_leaf(world, 1 + world_below(world, 3)) | any_reserved_bit(world);
    }
    if (which < 96) {
        return any_pool_page(world) | 3 | any_reserved_bit(world);
    }
    if (which < 98) {
        return table | 3; /* points to itself */
    }
    return random_u64(&world->random);
}

static unsigned any_index(struct world *world)
{
    static const uint16_t indexes[] = {0, 0, 0, 1, 1, 511};

    return indexes[world_below(world, 6)];
}

void world_edit_tables(struct world *world)
{
    uint64_t table = any_pool_page(world);

    for (unsigned count = 1 + world_below(world, 3); count; count--) {
        uint64_t entry = any_entry(world, table);
        unsigned index = any_index(world);

        world_note(world, "table %#llx[%u] = %#llx", (unsigned long long)table, index,
                   (unsigned long long)entry);
        ram_store64(&world->ram, table + index * 8, entry);
    }
    world->dirty = true;
    world_refresh(world);
}

static unsigned any_levels(struct world *world)
{
    if (world->walker.sagaw & 8 && world_percent(world, 50)) {
        return 5;
    }
    return world->walker.sagaw & 4 && world_percent(world, 60) ? 4 : 3;
}

/* Where the context entry of a requester lies in the tables of a root: fixed, the entries vary. */
static uint64_t context_slot(unsigned root, uint16_t requester)
{
    unsigned table = requester >> 8 == 0 ? 0 : requester >> 8 == 1 ? 1 : 2;

    if (root == 1 && table) {
        table = 3 - table; /* the second root exchanges two of the tables */
    }
    return world_page(WORLD_CONTEXTS + table) + (requester & 0xff) * 16u;
}

static void store_context(struct world *world, uint16_t requester, uint64_t lo, uint64_t hi)
{
    uint64_t slot = context_slot(world_percent(world, 85) ? 0 : 1, requester);

    world_note(world, "context of %04x at %#llx = %#llx %#llx", requester,
               (unsigned long long)slot, (unsigned long long)lo, (unsigned long long)hi);
    ram_store64(&world->ram, slot, lo);
    ram_store64(&world->ram, slot + 8, hi);
    world->dirty = true;
}

static void good_context(struct world *world, uint16_t requester, uint64_t table, unsigned levels)
{
    unsigned type = world_below(world, 10);
    uint64_t silent = world_percent(world, 10) ? 2 : 0;

    type = type == 0   ? SPEC_TT_PASS
           : type <= 5 ? (world->vtd.device_tlb ? SPEC_TT_ALL : SPEC_TT_UNTRANSLATED)
                       : SPEC_TT_UNTRANSLATED;
    store_context(world, requester, 1 | silent | (uint64_t)type << 2 | table,
                  (levels - 2) | (uint64_t)world_any_domain(world) << 8 |
                      (uint64_t)world_below(world, 16) << 3); /* ignored bits */
}

void world_edit_context(struct world *world)
{
    uint16_t requester = world_any_requester(world);
    unsigned which = world_below(world, 100);
    uint64_t table = world->history.tables[world_below(world, HISTORY_TABLES)];

    if (which < 60) {
        good_context(world, requester, table, any_levels(world));
    } else if (which < 75) {
        store_context(world, requester, world_below(world, 2) * 2ull, 0);
    } else {
        static const uint8_t lo_bits[] = {4, 8, 11, 51, 63, 36};
        static const uint8_t hi_bits[] = {7, 24, 63, 23, 16};
        uint64_t lo = 1 | table | world_below(world, 4) << 2 | world_below(world, 2) << 1;
        uint64_t hi = world_below(world, 8) | (uint64_t)world_any_domain(world) << 8;

        if (world_percent(world, 60) && (lo >> 2 & 3) != 3) {
            if (world_percent(world, 50)) {
                lo |= 1ull << lo_bits[world_below(world, 6)];
            } else {
                hi |= 1ull << hi_bits[world_below(world, 5)];
            }
        }
        if (lo >> world->vtd.host_address_width || (lo >> 2 & 3) == SPEC_TT_PASS ||
            world->history.tables[0] == (lo & ~0xfffull) ||
            history_log(&world->history,
                        &(struct context_value){.table = lo & ~0xfffull, .levels = 3}, 0)) {
            store_context(world, requester, lo, hi);
        }
    }
    world_refresh(world);
}

void world_edit_root(struct world *world)
{
    unsigned root = world_below(world, WORLD_ROOT_COUNT);
    static const uint8_t buses[] = {0, 0, 1, 0xff};
    uint8_t bus = buses[world_below(world, 4)];
    uint64_t slot = world_page(WORLD_ROOTS + root) + bus * 16u;
    uint64_t lo = (context_slot(root, (uint16_t)(bus << 8)) & ~0xfffull) | 1;
    uint64_t hi = 0;

    switch (world_below(world, 12)) {
    case 0:
        lo = 0;
        break;
    case 1:
        lo |= 1ull << (1 + world_below(world, 11));
        break;
    case 2:
        hi = 1ull << world_below(world, 64);
        break;
    case 3:
        lo = 0x5000001; /* no memory there */
        break;
    case 4:
        lo |= 1ull << 63;
        break;
    default:
        break;
    }
    world_note(world, "root %u bus %02x = %#llx %#llx", root, bus, (unsigned long long)lo,
               (unsigned long long)hi);
    ram_store64(&world->ram, slot, lo);
    ram_store64(&world->ram, slot + 8, hi);
    world->dirty = true;
    world_refresh(world);
}

/* A requester that reaches memory: tables from the root down, in pages of the pool. */
void world_build_mapping(struct world *world)
{
    uint64_t table = world->history.tables[1 + world_below(world, HISTORY_TABLES - 1)];
    uint64_t iova = world_any_page(world) & 0x1ffffffffffffffull;
    unsigned levels = any_levels(world);
    unsigned leaf = 1;

    if (!world->vtd.no_super_pages && world_percent(world, 30)) {
        leaf = 2 + world_below(world, 2);
    }
    if (world_percent(world, 40)) {
        uint16_t requester = world_any_requester(world);
        uint64_t root_slot = world_page(WORLD_ROOTS) + (requester >> 8) * 16u;

        good_context(world, requester, table, levels);
        ram_store64(&world->ram, root_slot, (context_slot(0, requester) & ~0xfffull) | 1);
        ram_store64(&world->ram, root_slot + 8, 0);
    }
    world_note(world, "map %#llx under %#llx, %u levels, leaf at level %u",
               (unsigned long long)iova, (unsigned long long)table, levels, leaf);
    for (unsigned level = levels; level; level--) {
        uint64_t slot = table + (iova >> (12 + 9 * (level - 1)) & 511) * 8;
        uint64_t entry;

        if (level == leaf) {
            entry = any_leaf(world, level);
            if (leaf == 1) {
                entry &= ~SPEC_PS;
            }
            ram_store64(&world->ram, slot, entry);
            break;
        }
        table = any_pool_page(world);
        ram_store64(&world->ram, slot, table | 3);
    }
    world->dirty = true;
    world_refresh(world);
}

/* Where the leaf entry of an address lies, and its level; 0: there is none. */
static uint64_t find_leaf(struct world *world, const struct context_value *context, uint64_t iova,
                          unsigned *level)
{
    uint64_t table = context->table;

    for (*level = context->levels; *level; (*level)--) {
        uint64_t slot = table + (iova >> (12 + 9 * (*level - 1)) & 511) * 8;
        uint64_t entry;

        if (!ram_load64(&world->ram, slot, &entry) || !(entry & 3)) {
            return 0;
        }
        if (*level == 1 || (*level < 4 && entry & SPEC_PS)) {
            return slot;
        }
        table = entry & 0x000ffffffffff000ull;
    }
    return 0;
}

void world_revoke(struct world *world)
{
    uint64_t iova;
    struct world_device *device = world_recent(world, &iova);
    struct context_value context;
    uint64_t inside;
    unsigned level;
    uint64_t slot;

    if (!device) {
        return;
    }
    context = walker_context(&world->ram, &world->walker, world->history.root, device->requester);
    if (context.reason || context.type == SPEC_TT_PASS || iova >> (12 + 9 * context.levels)) {
        return;
    }
    slot = find_leaf(world, &context, iova, &level);
    if (!slot || !ram_find(&world->ram, slot, 8) || ram_find(&world->ram, slot, 8)->rom) {
        return;
    }
    world_note(world, "revoke %#llx of %04x: leaf entry at %#llx, level %u",
               (unsigned long long)iova, device->requester, (unsigned long long)slot, level);
    ram_store64(&world->ram, slot, world_percent(world, 50) ? 0 : any_leaf(world, level));
    world->dirty = true;
    world_refresh(world);
    /* Any page of a super-page stands for the whole. */
    inside = (iova ^ random_u64(&world->random)) & ((1ull << (12 + 9 * (level - 1))) - 1);
    world_invalidate_page(world, context.domain, iova ^ (inside & ~0xfffull));
    world_access(world);
}
