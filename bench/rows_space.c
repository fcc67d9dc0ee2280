/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rows: a CPU's soft TLB, and the views that it is filled from.
 *
 * The CPU looks at 256 pages of 4 KiB behind an MPC. The bare array is what a TLB hit cannot do
 * without: one load of an entry, a comparison with its tag, and the value. The flush rows do one
 * round an operation: one block is closed or opened by the MPC's registers, then all pages are
 * touched; the other side drops everything instead of what crossed the block.
 */
#include "bench.h"

#include <stdlib.h>
#include <string.h>
#include <viommu/cpu_tlb.h>
#include <viommu/tzmpc.h>

#define PAGE 4096u
#define PAGES 256u
#define ENTRIES 1024u
#define MEMORY 0x10000000u
#define REGISTERS 0x50000000u
#define SPREAD 1021u /* pages are visited out of order */

struct plain_entry {
    uint64_t tag;
    uintptr_t addend;
};

struct tlb_state {
    struct viommu_bus *bus;
    struct viommu_space *space;
    struct viommu_tzmpc *mpc;
    struct viommu_cpu *cpu;
    const struct viommu_cpu_tlb *tlb;
    struct plain_entry plain[ENTRIES];
    uint8_t *ram;
    unsigned pages; /* that are looked at */
    uint64_t sum;
    uint64_t rounds;
    bool wrong;
};

static const struct viommu_bus_attrs secure = {.secure = true};
static const struct viommu_bus_attrs normal = {0};

static void tlb_teardown(void *opaque)
{
    struct tlb_state *state = opaque;

    if (state->cpu) {
        viommu_cpu_end(state->cpu);
    }
    viommu_tzmpc_destroy(state->mpc);
    viommu_bus_destroy(state->bus);
    free(state->ram);
    free(state);
}

static uint64_t any_page(uint64_t i)
{
    return MEMORY + i * SPREAD % PAGES * PAGE;
}

static int make_space(struct tlb_state *state)
{
    struct viommu_region_config container = {.last = UINT64_MAX};
    struct viommu_region_config ram = {
        .kind = VIOMMU_REGION_RAM, .last = state->pages * PAGE - 1, .host = state->ram};
    struct viommu_tzmpc_config mpc = {.size = state->pages * PAGE};
    struct viommu_region *root;
    struct viommu_region *region;

    return viommu_bus_create(&state->bus) || viommu_region_create(state->bus, &container, &root) ||
           viommu_space_create(root, &state->space) ||
           viommu_region_create(state->bus, &container, &root) ||
           viommu_space_create(root, &mpc.space) ||
           viommu_region_create(state->bus, &ram, &region) ||
           viommu_region_add(root, region, 0, 0) ||
           viommu_tzmpc_create(state->bus, &mpc, &state->mpc);
}

static int make_cpu(struct tlb_state *state)
{
    struct viommu_region_config container = {.last = UINT64_MAX};
    struct viommu_cpu_config config = {.entries = ENTRIES, .indexes = 2};
    struct viommu_region *root;

    if (viommu_region_create(state->bus, &container, &root) ||
        viommu_region_add(root, viommu_tzmpc_memory(state->mpc), MEMORY, 0) ||
        viommu_region_add(root, viommu_tzmpc_registers(state->mpc), REGISTERS, 0)) {
        return -1;
    }
    viommu_space_destroy(state->space);
    return viommu_space_create(root, &state->space) || viommu_bus_commit(state->bus) ||
           viommu_cpu_create(state->bus, &config, &state->cpu) ||
           viommu_cpu_set_space(state->cpu, 0, state->space, &normal) ||
           viommu_cpu_set_space(state->cpu, 1, state->space, &secure) ||
           viommu_cpu_begin(state->cpu);
}

static struct tlb_state *set_up(unsigned pages)
{
    struct tlb_state *state = calloc(1, sizeof(*state));
    uint32_t all = UINT32_MAX;

    if (!state) {
        return NULL;
    }
    state->pages = pages;
    state->ram = aligned_alloc(PAGE, (size_t)pages * PAGE);
    if (!state->ram || make_space(state) || make_cpu(state)) {
        tlb_teardown(state);
        return NULL;
    }
    memset(state->ram, 1, (size_t)pages * PAGE);
    for (unsigned i = 0; i < pages / 32; i++) {
        (void)viommu_space_write(state->space, REGISTERS + 0x1c, &all, 4, &secure);
    }
    state->tlb = viommu_cpu_tlb(state->cpu);
    for (unsigned i = 0; i < pages; i++) {
        uint64_t page = MEMORY + i * PAGE;

        state->plain[page / PAGE % ENTRIES] =
            (struct plain_entry){page, (uintptr_t)state->ram - MEMORY};
        (void)viommu_cpu_fill(state->cpu, 0, page);
    }
    return state;
}

static void *tlb_setup(bool quick)
{
    (void)quick;
    return set_up(PAGES);
}

/* ---- a hit ---- */

static bool hit(void *opaque, uint64_t count)
{
    struct tlb_state *state = opaque;
    uint64_t sum = 0;

    for (uint64_t i = 0; i < count; i++) {
        uint64_t value;

        if (viommu_cpu_load(state->cpu, state->tlb, 0, any_page(i), 8, VIOMMU_CPU_READ, &value)) {
            return false;
        }
        sum += value & 1;
    }
    state->sum = sum - count;
    return true;
}

static bool hit_plain(void *opaque, uint64_t count)
{
    struct tlb_state *state = opaque;
    uint64_t sum = 0;

    for (uint64_t i = 0; i < count; i++) {
        uint64_t address = any_page(i);
        const struct plain_entry *entry = &state->plain[address / PAGE % ENTRIES];

        if (entry->tag != (address & -(uint64_t)PAGE)) {
            return false;
        }
        sum += __atomic_load_n((uint64_t *)(entry->addend + address), __ATOMIC_RELAXED) & 1;
    }
    state->sum = sum - count;
    return true;
}

static bool sum_is_right(void *opaque)
{
    return ((struct tlb_state *)opaque)->sum == 0;
}

/* ---- filling ---- */

static bool fill(void *opaque, uint64_t count)
{
    struct tlb_state *state = opaque;

    for (uint64_t i = 0; i < count; i++) {
        if (viommu_cpu_fill(state->cpu, 0, any_page(i)) <= 0) {
            return false;
        }
    }
    return true;
}

/* ---- flushes ---- */

static bool toggle_and_touch(struct tlb_state *state, uint64_t count, bool all)
{
    for (uint64_t i = 0; i < count; i++) {
        uint32_t word = state->rounds++ & 1 ? UINT32_MAX : UINT32_MAX & ~(1u << 5);
        unsigned open = 0;

        if (viommu_cpu_store(state->cpu, state->tlb, 1, REGISTERS + 0x1c, 4, word)) {
            return false;
        }
        if (all) {
            viommu_cpu_flush(state->cpu);
        }
        for (unsigned j = 0; j < state->pages; j++) {
            uint64_t value;

            if (viommu_cpu_load(state->cpu, state->tlb, 0, MEMORY + j * PAGE, 8, VIOMMU_CPU_READ,
                                &value)) {
                return false;
            }
            open += value & 1;
        }
        state->wrong |= open != state->pages - !(word >> 5 & 1);
    }
    return true;
}

static bool ranged(void *opaque, uint64_t count)
{
    return toggle_and_touch(opaque, count, false);
}

static bool full(void *opaque, uint64_t count)
{
    return toggle_and_touch(opaque, count, true);
}

/* The index stays at word 0. */
static void *flush_set_up(unsigned pages)
{
    struct tlb_state *state = set_up(pages);
    uint32_t zero = 0;

    if (state && (viommu_space_write(state->space, REGISTERS, &zero, 4, &secure) ||
                  viommu_space_write(state->space, REGISTERS + 0x18, &zero, 4, &secure))) {
        tlb_teardown(state);
        return NULL;
    }
    return state;
}

static void *flush_setup(bool quick)
{
    (void)quick;
    return flush_set_up(PAGES);
}

static void *flush_full_setup(bool quick)
{
    (void)quick;
    return flush_set_up(ENTRIES);
}

static bool flush_is_right(void *opaque)
{
    return !((struct tlb_state *)opaque)->wrong;
}

/* ---- views ---- */

enum { SIZES = 3 };
static const unsigned sizes[SIZES] = {10, 1000, 100000};

struct view_state {
    struct viommu_bus *buses[SIZES];
    struct viommu_space *spaces[SIZES];
    struct viommu_region *regions[SIZES]; /* one of each */
    uint64_t wrong;
    bool on;
};

static void view_teardown(void *opaque)
{
    struct view_state *state = opaque;

    for (unsigned i = 0; i < SIZES; i++) {
        viommu_bus_destroy(state->buses[i]);
    }
    free(state);
}

static bool make_view(struct view_state *state, unsigned which)
{
    static uint8_t page[PAGE];
    struct viommu_region_config container = {.last = UINT64_MAX};
    struct viommu_region_config ram = {
        .kind = VIOMMU_REGION_RAM, .last = PAGE - 1, .host = page};
    struct viommu_region *root;

    if (viommu_bus_create(&state->buses[which]) ||
        viommu_region_create(state->buses[which], &container, &root) ||
        viommu_space_create(root, &state->spaces[which])) {
        return false;
    }
    for (uint64_t i = 0; i < sizes[which]; i++) {
        if (viommu_region_create(state->buses[which], &ram, &state->regions[which]) ||
            viommu_region_add(root, state->regions[which], i * 2 * PAGE, 0)) {
            return false;
        }
    }
    return !viommu_bus_commit(state->buses[which]);
}

static void *view_setup(bool quick)
{
    struct view_state *state = calloc(1, sizeof(*state));
    bool ok = state;

    (void)quick;
    for (unsigned i = 0; ok && i < SIZES; i++) {
        ok = make_view(state, i);
    }
    if (!ok && state) {
        view_teardown(state);
        return NULL;
    }
    return state;
}

static bool look_up(struct view_state *state, unsigned which, uint64_t count)
{
    uint64_t place = 1;

    for (uint64_t i = 0; i < count; i++) {
        struct viommu_route route;

        place = place * 6364136223846793005 + 1442695040888963407;
        if (viommu_space_resolve(state->spaces[which],
                                 (place >> 33) % sizes[which] * 2 * PAGE + 8, &normal, &route)) {
            return false;
        }
        state->wrong += route.offset != 8;
    }
    return true;
}

static bool look_up_10(void *state, uint64_t count)
{
    return look_up(state, 0, count);
}

static bool look_up_1000(void *state, uint64_t count)
{
    return look_up(state, 1, count);
}

static bool look_up_100000(void *state, uint64_t count)
{
    return look_up(state, 2, count);
}

static bool rebuild(struct view_state *state, unsigned which, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        state->on = !state->on;
        viommu_region_enable(state->regions[which], state->on);
        if (viommu_bus_commit(state->buses[which])) {
            return false;
        }
    }
    return true;
}

static bool rebuild_10(void *state, uint64_t count)
{
    return rebuild(state, 0, count);
}

static bool rebuild_1000(void *state, uint64_t count)
{
    return rebuild(state, 1, count);
}

static bool rebuild_100000(void *state, uint64_t count)
{
    return rebuild(state, 2, count);
}

static bool views_are_right(void *opaque)
{
    return ((struct view_state *)opaque)->wrong == 0;
}

#define FLUSH_ROW(ROW_NAME, ROW_TEXT, SETUP)                                                       \
    {                                                                                              \
        .name = ROW_NAME, .text = ROW_TEXT, .unit = "round", .setup = SETUP,                       \
        .teardown = tlb_teardown,                                                                  \
        .sides = {{.name = "what crossed the block", .run = ranged, .check = flush_is_right},      \
                  {.name = "a flush of all", .run = full, .check = flush_is_right}},               \
        .side_count = 2, .ratios = {{0, 1, RATIO_SPEEDUP, 10}}, .ratio_count = 1,                  \
    }

static const struct row rows[] = {
    {
        .name = "tlb-hit",
        .text = "a load of 8 bytes that the soft TLB answers, 256 pages",
        .unit = "load",
        .setup = tlb_setup,
        .teardown = tlb_teardown,
        .sides =
            {
                {.name = "viommu", .run = hit, .check = sum_is_right},
                {.name = "a bare array with tags", .run = hit_plain, .check = sum_is_right},
            },
        .side_count = 2,
        .ratios = {{0, 1, RATIO_COST, 1.5}},
        .ratio_count = 1,
    },
    {
        .name = "tlb-fill",
        .text = "a page behind an MPC is looked up and put into the soft TLB",
        .unit = "fill",
        .setup = tlb_setup,
        .teardown = tlb_teardown,
        .sides = {{.name = "viommu", .run = fill}},
        .side_count = 1,
    },
    FLUSH_ROW("tlb-flush", "one block of an MPC is closed or opened, then 256 pages are touched",
              flush_setup),
    FLUSH_ROW("tlb-flush-full",
              "one block of an MPC is closed or opened, with 1,024 pages in 1,024 entries",
              flush_full_setup),
    {
        .name = "view-lookup",
        .text = "an address is looked up in a view, in no order",
        .unit = "look-up",
        .setup = view_setup,
        .teardown = view_teardown,
        .sides =
            {
                {.name = "10 regions", .run = look_up_10, .check = views_are_right},
                {.name = "1,000 regions", .run = look_up_1000, .check = views_are_right},
                {.name = "100,000 regions", .run = look_up_100000, .check = views_are_right},
            },
        .side_count = 3,
        .ratios = {{2, 0, RATIO_COST, 0}},
        .ratio_count = 1,
    },
    {
        .name = "view-rebuild",
        .text = "one region is switched on or off, and shown",
        .unit = "commit",
        .setup = view_setup,
        .teardown = view_teardown,
        .rounds = 5,
        .sides =
            {
                {.name = "10 regions", .run = rebuild_10},
                {.name = "1,000 regions", .run = rebuild_1000},
                {.name = "100,000 regions", .run = rebuild_100000},
            },
        .side_count = 3,
        .ratios = {{2, 0, RATIO_COST, 0}},
        .ratio_count = 1,
    },
};

const struct row_list space_rows = {rows, sizeof(rows) / sizeof(rows[0])};
