/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest tables of the mirrors' model test: the universe, a walker, and random edits.
 *
 * The walker is written from the specification, and knows nothing of caches. All tables of a level
 * are alike and are linked from any place of the level above, so one edit may change many places.
 */
#include "world.h"

#include <endian.h>
#include <string.h>

enum table_layout { /* page numbers of the main slot; the last level-1 tables lie in SLOT_LOW */
    TABLES_4 = 16,
    TABLES_4_COUNT = 2,
    TABLES_3 = 20,
    TABLES_3_COUNT = 3,
    TABLES_2 = 24,
    TABLES_2_COUNT = 6,
    TABLES_1 = 32,
    TABLES_1_COUNT = 12,
    TABLES_1_LOW = 2, /* of them in SLOT_LOW */
};

#define LOW_TABLES 0x190000ull
#define TARGET 0x000ffffffffff000ull

static const uint16_t used_4[] = {0, 511};
static const uint16_t used_3[] = {0, 1, 3, 511};
static const uint16_t used_2[] = {0, 1, 503, 511}; /* 503 of 3: the interrupt range */

static uint64_t block_address(unsigned block)
{
    uint64_t address = (uint64_t)used_4[block / 16] << 39 | (uint64_t)used_3[block / 4 % 4] << 30 |
                       (uint64_t)used_2[block % 4] << 21;

    return address;
}

uint64_t tables_page_address(unsigned page)
{
    return block_address(page / 512) + page % 512 * WORLD_PAGE;
}

int tables_page_index(uint64_t address)
{
    for (unsigned block = 0; block < WORLD_BLOCKS; block++) {
        if (address >> 21 == block_address(block) >> 21) {
            return (int)(block * 512 + (address >> 12 & 511));
        }
    }
    return -1;
}

/* The walker. */

static bool reserved(const struct world *world, unsigned level, bool leaf, uint64_t entry)
{
    uint64_t bits = 1ull << 62;

    bits |= ~((1ull << world->vtd.host_address_width) - 1) & ((1ull << 52) - 1);
    if (level == 4 || (leaf && level > 1 && world->vtd.no_super_pages)) {
        bits |= SPEC_PS;
    }
    if (!leaf || world->vtd.no_snoop_control) {
        bits |= SPEC_SNP;
    }
    if (leaf && level > 1) {
        bits |= ((1ull << (12 + 9 * (level - 1))) - 1) & ~0xfffull;
    }
    return entry & bits;
}

/* Reads the entry of an address above level 1; returns false when nothing is there. */
static bool step(struct world *world, uint64_t table, unsigned level, uint64_t address,
                 uint64_t *entry, bool *leaf)
{
    if (!memory_load(world, table + (address >> (3 + 9 * level) & 511) * 8, entry) ||
        !(*entry & 3)) {
        return false;
    }
    *leaf = level < 4 && *entry & SPEC_PS;
    return !reserved(world, level, *leaf, *entry);
}

static void fill(uint64_t *values, uint64_t first, uint64_t perm)
{
    for (unsigned i = 0; i < 512; i++) {
        values[i] = perm ? (first + i * WORLD_PAGE) | perm : 0;
    }
}

void tables_read_block(struct world *world, unsigned space, unsigned block, uint64_t *values)
{
    uint64_t address = block_address(block);
    uint64_t table = world->spaces[space].root;
    unsigned levels = world->spaces[space].levels;
    uint64_t perm = 3;
    const uint64_t *word;
    uint64_t entry;
    bool leaf;

    memset(values, 0, 512 * sizeof(*values));
    if (levels == 3 && address >> 39) {
        return;
    }
    for (unsigned level = levels; level > 1; level--) {
        if (!step(world, table, level, address, &entry, &leaf)) {
            return;
        }
        perm &= entry & 3;
        table = entry & TARGET;
        if (leaf) {
            uint64_t mask = (1ull << (3 + 9 * level)) - 1;

            fill(values, table | (address & mask), perm);
            return;
        }
    }
    word = memory_word(world, table);
    for (unsigned i = 0; word && i < 512; i++) {
        entry = le64toh(word[i]);
        if (perm & entry & 3 && !reserved(world, 1, true, entry)) {
            values[i] = (entry & TARGET) | (perm & entry & 3);
        }
    }
}

/* Edits. */

static uint64_t any_table(struct world *world, unsigned level)
{
    unsigned table;

    switch (level) {
    case 4:
        return (TABLES_4 + world_below(world, TABLES_4_COUNT)) * WORLD_PAGE;
    case 3:
        return (TABLES_3 + world_below(world, TABLES_3_COUNT)) * WORLD_PAGE;
    case 2:
        return (TABLES_2 + world_below(world, TABLES_2_COUNT)) * WORLD_PAGE;
    default:
        table = world_below(world, TABLES_1_COUNT);
        if (table < TABLES_1_LOW) {
            return LOW_TABLES + table * WORLD_PAGE;
        }
        return (TABLES_1 + table) * WORLD_PAGE;
    }
}

static uint64_t any_slot(struct world *world, uint64_t table, unsigned level)
{
    unsigned index = level == 4   ? used_4[world_below(world, 2)]
                     : level == 3 ? used_3[world_below(world, 4)]
                     : level == 2 ? used_2[world_below(world, 4)]
                                  : world_below(world, 512);

    return table + index * 8;
}

static uint64_t any_perm(struct world *world)
{
    return world_percent(world, 75) ? 3 : 1 + world_below(world, 2);
}

/* Bits that hardware ignores in a leaf. */
static uint64_t any_ignored(struct world *world)
{
    static const uint8_t bits[] = {2, 3, 4, 5, 6, 8, 9, 10, 52, 55, 61, 63};

    return world_percent(world, 15) ? 1ull << bits[world_below(world, sizeof(bits))] : 0;
}

/* An entry that cannot be used, or maps nothing. */
static uint64_t bad_entry(struct world *world)
{
    switch (world_below(world, 4)) {
    case 0:
        return random_u64(&world->random) | 1ull << 62 | 1; /* reserved */
    case 1:
        return random_u64(&world->random) & ~3ull; /* not present */
    case 2:
        return 1ull << 51 | 3; /* beyond the host width, or reserved */
    default:
        return 0x30000000000ull | 3; /* of a table: no memory; of a page as well */
    }
}

/* Changes some neighbouring leaf entries. */
static void edit_leaves(struct world *world)
{
    uint64_t table = any_table(world, 1);
    unsigned kind = world_below(world, 12);
    unsigned first = world_percent(world, 50)   ? world_below(world, 512)
                     : world_percent(world, 70) ? world_below(world, 8)
                                                : 511 - world_below(world, 4);
    unsigned count = world_percent(world, 40)   ? 1
                     : world_percent(world, 60) ? 1 + world_below(world, 12)
                                                : 1 + world_below(world, 512);
    uint64_t gpa = memory_any_page(world);
    uint64_t perm = any_perm(world);
    uint64_t ignored = any_ignored(world);

    world_note(world, "leaves of %#llx: %u, %u of them: kind %u, %#llx perm %llu",
               (unsigned long long)table, first, count, kind, (unsigned long long)gpa,
               (unsigned long long)perm);
    for (unsigned i = first; i < first + count && i < 512; i++) {
        uint64_t slot = table + i * 8;
        uint64_t entry = 0;

        memory_load(world, slot, &entry);
        switch (kind) {
        case 0:
        case 1:
        case 2: /* contiguous */
            entry = (gpa + (i - first) * WORLD_PAGE) | perm | ignored;
            break;
        case 3: /* all to one page */
            entry = gpa | perm;
            break;
        case 4: /* scattered */
            entry = memory_any_page(world) | any_perm(world);
            break;
        case 5:
        case 6:
            entry = 0;
            break;
        case 7: /* permissions only */
            entry = entry & 3 ? (entry & ~3ull) | perm : entry;
            break;
        case 9:
        case 10: /* all moved alike: what was contiguous stays so */
            entry = entry & 3 ? entry + (gpa & 0xff000) : entry;
            break;
        case 8: /* nothing that counts */
            entry ^= any_ignored(world) | (world->vtd.no_snoop_control ? 0 : SPEC_SNP);
            break;
        default:
            entry = entry & 3 && world_percent(world, 50) ? entry ^ 1ull << 62 : bad_entry(world);
            break;
        }
        memory_store(world, slot, entry);
    }
}

static uint64_t super_page(struct world *world, unsigned level)
{
    static const uint64_t big[] = {0, 0x40000000, 0x80000000, 0xc0000000};
    uint64_t mask = (1ull << (3 + 9 * level)) - 1;
    uint64_t gpa = level == 3 ? big[world_below(world, 4)] : memory_any_page(world) & ~mask;

    if (world_percent(world, 4)) {
        gpa |= 0x10000; /* reserved */
    }
    return gpa | SPEC_PS | any_perm(world) | any_ignored(world);
}

/* Changes one entry above the leaf tables. */
static void edit_upper(struct world *world)
{
    unsigned level = world_percent(world, 60) ? 2 : world_percent(world, 70) ? 3 : 4;
    uint64_t slot = any_slot(world, any_table(world, level), level);
    uint64_t entry = 0;

    memory_load(world, slot, &entry);
    switch (world_below(world, 12)) {
    case 0:
    case 1:
        entry = 0;
        break;
    case 2: /* cut, or restored */
        entry = entry & 3 ? entry & ~3ull : entry | 3;
        break;
    case 3:
        entry = entry & 3 && !(entry & SPEC_PS) ? (entry & ~3ull) | any_perm(world) : entry;
        break;
    case 4:
    case 5:
    case 6:
        if (level < 4) {
            entry = super_page(world, level);
            break;
        }
        /* fall through */
    case 7:
        entry = world_percent(world, 70) ? entry : bad_entry(world);
        break;
    default:
        entry = any_table(world, level - 1) | 3;
        break;
    }
    world_note(world, "entry %#llx of level %u: %#llx", (unsigned long long)slot, level,
               (unsigned long long)entry);
    memory_store(world, slot, entry);
}

/* A super page becomes a table that says the same, or the other way. */
static void split_or_join(struct world *world)
{
    unsigned level = world_percent(world, 85) ? 2 : 3;
    uint64_t slot = any_slot(world, any_table(world, level), level);
    uint64_t table = any_table(world, level - 1);
    uint64_t step_size = 1ull << (3 + 9 * (level - 1));
    uint64_t first = 0;
    uint64_t entry = 0;

    memory_load(world, slot, &entry);
    if (!(entry & 3)) {
        return;
    }
    if (entry & SPEC_PS) {
        uint64_t flags = (entry & 3) | (level == 3 ? SPEC_PS : 0);

        first = entry & TARGET & ~(step_size * 512 - 1);
        world_note(world, "split %#llx (level %u, %#llx) into %#llx", (unsigned long long)slot,
                   level, (unsigned long long)entry, (unsigned long long)table);
        for (unsigned i = 0; i < 512; i++) {
            memory_store(world, table + i * 8, (first + i * step_size) | flags);
        }
        memory_store(world, slot, table | 3);
        return;
    }
    if (!memory_load(world, entry & TARGET, &first) || !(first & 3)) {
        return;
    }
    entry = (first & TARGET & ~(step_size * 512 - 1)) | SPEC_PS | (first & 3);
    world_note(world, "join %#llx (level %u) to %#llx", (unsigned long long)slot, level,
               (unsigned long long)entry);
    memory_store(world, slot, entry);
}

static void clear_table(struct world *world)
{
    unsigned level = 1 + world_below(world, 2);
    uint64_t table = any_table(world, level);

    world_note(world, "clear table %#llx of level %u", (unsigned long long)table, level);
    for (unsigned i = 0; i < 512; i++) {
        memory_store(world, table + i * 8, 0);
    }
}

/* What was exactly so stays so, and there is nothing to tell. */
static void copy_table(struct world *world)
{
    uint64_t slot = any_slot(world, any_table(world, 2), 2);
    uint64_t copy = any_table(world, 1);
    uint64_t entry = 0;
    uint64_t value = 0;

    memory_load(world, slot, &entry);
    if (!(entry & 3) || entry & SPEC_PS || !memory_load(world, entry & TARGET, &value)) {
        return;
    }
    world_note(world, "copy of %#llx into %#llx for %#llx", (unsigned long long)(entry & TARGET),
               (unsigned long long)copy, (unsigned long long)slot);
    for (unsigned i = 0; i < 512; i++) {
        memory_load(world, (entry & TARGET) + i * 8, &value);
        memory_store(world, copy + i * 8, value);
    }
    memory_store(world, slot, (entry & ~TARGET) | copy);
}

void tables_edit(struct world *world)
{
    unsigned which = world_below(world, 100);

    if (which < 62) {
        edit_leaves(world);
    } else if (which < 85) {
        edit_upper(world);
    } else if (which < 93) {
        split_or_join(world);
    } else if (which < 97) {
        copy_table(world);
    } else {
        clear_table(world);
    }
}

/* Everything is linked at first, so that edits of leaves matter. */
void tables_init(struct world *world)
{
    for (unsigned i = 0; i < TABLES_4_COUNT; i++) {
        for (unsigned j = 0; j < 2; j++) {
            memory_store(world, (TABLES_4 + i) * WORLD_PAGE + used_4[j] * 8,
                         any_table(world, 3) | 3);
        }
    }
    for (unsigned i = 0; i < TABLES_3_COUNT; i++) {
        for (unsigned j = 0; j < 4; j++) {
            memory_store(world, (TABLES_3 + i) * WORLD_PAGE + used_3[j] * 8,
                         any_table(world, 2) | 3);
        }
    }
    for (unsigned i = 0; i < TABLES_2_COUNT; i++) {
        for (unsigned j = 0; j < 4; j++) {
            memory_store(world, (TABLES_2 + i) * WORLD_PAGE + used_2[j] * 8,
                         world_percent(world, 50) ? any_table(world, 1) | 3 : 0);
        }
    }
    for (unsigned i = 0; i < WORLD_SPACES; i++) {
        world->spaces[i].levels = i < 2 && world->vtd.address_width == 48 ? 4 : 3;
        world->spaces[i].root = world->spaces[i].levels == 4 ? (TABLES_4 + i) * WORLD_PAGE
                                                             : (TABLES_3 + i % 3) * WORLD_PAGE;
    }
    for (unsigned i = 0; i < 10; i++) {
        tables_edit(world);
    }
}
