/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The table room: builds root, context and second-level page tables in guest memory, as a guest
 * does, so that a scenario reads "map this, translate that".
 *
 * Tables are taken one page after the other from a region that the scenario names, and never given
 * back. What the builder remembers is the root table and, for each domain, the top of its page
 * table; the rest it reads back from guest memory. So raw entries and built ones mix.
 *
 * Levels count from 1, the table of 4 KiB pages; a 48-bit domain has 4, a 57-bit one 5.
 */
#include "run.h"

#include <inttypes.h>
#include <stdlib.h>

enum {
    PAGE = 4096,
    PRESENT = 1,
    FPD = 2,
    TYPE_SHIFT = 2,
    DOMAIN_SHIFT = 8, /* in the upper half of a context entry */
    READ_WRITE = 3,
    SUPER_PAGE = 1 << 7,
    LEVEL_BITS = 9,
    LEAF_LEVEL_MAX = 3,
    MAP_PAGES_MAX = 1 << 20,
};

static const uint64_t address_bits = 0x000ffffffffff000;

struct domain {
    struct domain *next;
    uint64_t id;
    unsigned levels;
    uint64_t top;
};

struct tables {
    uint64_t next; /* free from here */
    uint64_t last;
    uint64_t root; /* 0: none yet */
    struct domain *domains;
};

void tables_destroy(struct tables *tables)
{
    while (tables && tables->domains) {
        struct domain *domain = tables->domains;

        tables->domains = domain->next;
        free(domain);
    }
    free(tables);
}

/* The builder of the current unit, or an error. */
static struct tables *unit_tables(struct run *run)
{
    struct unit *unit = run_unit(run);

    if (unit && !unit->tables) {
        run_error(run, NULL, "where may tables lie? `tables at size` says so");
    }
    return unit ? unit->tables : NULL;
}

static void do_tables(struct run *run)
{
    struct unit *unit = run_unit(run);
    uint64_t at;
    uint64_t size;

    if (!unit || !arg_number(run, "at", &at) || !arg_number(run, "size", &size)) {
        return;
    }
    if (at % PAGE || size % PAGE || !size || size - 1 > UINT64_MAX - at) {
        run_error(run, NULL, "tables lie in whole 4k pages");
        return;
    }
    tables_destroy(unit->tables);
    unit->tables = run_alloc(sizeof(*unit->tables));
    unit->tables->next = at;
    unit->tables->last = at + (size - 1);
}

/* A zeroed page for a table; 0 with an error said when there is none. */
static uint64_t take_page(struct run *run, struct tables *tables)
{
    static const uint8_t zeros[PAGE];
    uint64_t at = tables->next;

    if (at > tables->last) {
        run_error(run, NULL, "the region for tables is used up");
        return 0;
    }
    tables->next += PAGE;
    return guest_write(run, at, zeros, PAGE) ? at : 0;
}

static uint64_t root_table(struct run *run, struct tables *tables)
{
    if (!tables->root) {
        tables->root = take_page(run, tables);
    }
    return tables->root;
}

uint64_t tables_root(struct run *run)
{
    struct tables *tables = unit_tables(run);

    return tables ? root_table(run, tables) : 0;
}

static void do_root(struct run *run)
{
    struct tables *tables = unit_tables(run);

    if (!tables) {
        return;
    }
    if (arg_given(run, "at")) {
        arg_number(run, "at", &tables->root);
    } else if (arg_flag(run, "new")) {
        tables->root = take_page(run, tables);
    }
    result_hex(&run->result, "at", root_table(run, tables));
}

static void do_root_entry(struct run *run)
{
    struct tables *tables = unit_tables(run);
    uint64_t bus;
    uint64_t low;
    uint64_t high = 0;

    if (!tables || !arg_number_max(run, "bus", 255, &bus) || !arg_number(run, "low", &low) ||
        !arg_number(run, "high", &high) || !root_table(run, tables)) {
        return;
    }
    guest_write64(run, tables->root + 16 * bus + 8, high);
    guest_write64(run, tables->root + 16 * bus, low);
    result_hex(&run->result, "at", tables->root + 16 * bus);
}

/* Where a requester's context entry lies; its table is made when there is none. */
static uint64_t context_address(struct run *run, struct tables *tables, uint16_t requester)
{
    uint64_t entry;
    uint64_t value;

    if (!root_table(run, tables)) {
        return 0;
    }
    entry = tables->root + 16 * (uint64_t)(requester >> 8);
    value = guest_read64(run, entry);
    if (!run->failed && !(value & PRESENT)) {
        value = take_page(run, tables) | PRESENT;
        guest_write64(run, entry, value);
    }
    return run->failed ? 0 : (value & address_bits) + 16 * (uint64_t)(requester & 0xff);
}

/* The upper half first: an entry that becomes present is complete. */
static void write_context(struct run *run, uint64_t at, uint64_t low, uint64_t high)
{
    guest_write64(run, at + 8, high);
    guest_write64(run, at, low);
    result_hex(&run->result, "at", at);
    result_hex(&run->result, "low", low);
    result_hex(&run->result, "high", high);
}

static void do_context_entry(struct run *run)
{
    struct tables *tables = unit_tables(run);
    uint16_t requester;
    uint64_t low;
    uint64_t high = 0;
    uint64_t at;

    if (!tables || !arg_requester(run, "requester", &requester) ||
        !arg_number(run, "low", &low) || !arg_number(run, "high", &high)) {
        return;
    }
    at = context_address(run, tables, requester);
    if (at) {
        write_context(run, at, low, high);
    }
}

static struct domain *find_domain(struct tables *tables, uint64_t id)
{
    struct domain *domain = tables->domains;

    while (domain && domain->id != id) {
        domain = domain->next;
    }
    return domain;
}

static unsigned levels_of(unsigned width)
{
    return width == 39 ? 3 : width == 57 ? 5 : 4;
}

/* The domain, made with the unit's width when it is new; NULL with an error said. */
static struct domain *get_domain(struct run *run, struct tables *tables, uint64_t id,
                                 unsigned levels)
{
    struct domain *domain = find_domain(tables, id);

    if (domain) {
        return domain;
    }
    if (!levels) {
        levels = levels_of(run->unit->vtd.address_width);
    }
    domain = run_alloc(sizeof(*domain));
    *domain = (struct domain){tables->domains, id, levels, 0};
    tables->domains = domain;
    domain->top = take_page(run, tables);
    return run->failed ? NULL : domain;
}

/* The argument width as a number of levels. */
static bool levels_argument(struct run *run, unsigned *levels)
{
    static const char *const words[] = {"39", "48", "57", NULL};
    unsigned which;

    if (!arg_given(run, "width")) {
        return true;
    }
    if (!arg_choice(run, "width", words, &which)) {
        return false;
    }
    *levels = 3 + which;
    return true;
}

static void do_domain(struct run *run)
{
    struct tables *tables = unit_tables(run);
    struct domain *domain;
    unsigned levels = 0;
    uint64_t id;

    if (!tables || !arg_number(run, "domain", &id) || !levels_argument(run, &levels)) {
        return;
    }
    domain = get_domain(run, tables, id, levels);
    if (!domain) {
        return;
    }
    if (levels) {
        domain->levels = levels;
    }
    if (arg_flag(run, "new")) {
        domain->top = take_page(run, tables);
    }
    arg_number(run, "table", &domain->top);
    result_hex(&run->result, "table", domain->top);
    result_decimal(&run->result, "levels", domain->levels);
}

/* The lower half of a context entry but for the type, from the arguments. */
static bool context_flags(struct run *run, uint64_t *low)
{
    static const char *const types[] = {"untranslated", "device-tlb", "pass-through", "reserved",
                                        NULL};
    unsigned type = 0;
    uint64_t bits = 0;

    if (!arg_choice(run, "type", types, &type) || !arg_number(run, "low", &bits)) {
        return false;
    }
    *low |= bits | (uint64_t)type << TYPE_SHIFT | (arg_flag(run, "absent") ? 0 : PRESENT) |
            (arg_flag(run, "fpd") ? FPD : 0);
    return true;
}

static void do_context(struct run *run)
{
    struct tables *tables = unit_tables(run);
    struct domain *domain;
    uint16_t requester;
    unsigned levels = 0;
    uint64_t id;
    uint64_t table;
    uint64_t bits = 0;
    uint64_t low;
    uint64_t at;

    if (!tables || !arg_requester(run, "requester", &requester) ||
        !arg_number_max(run, "domain", UINT16_MAX, &id) || !levels_argument(run, &levels) ||
        !arg_number(run, "high", &bits)) {
        return;
    }
    domain = get_domain(run, tables, id, levels);
    if (!domain) {
        return;
    }
    table = domain->top;
    if (!arg_number(run, "table", &table)) {
        return;
    }
    low = table;
    at = context_address(run, tables, requester);
    if (at && context_flags(run, &low)) {
        write_context(run, at, low,
                      bits | id << DOMAIN_SHIFT | ((levels ? levels : domain->levels) - 2));
    }
}

static uint64_t level_size(unsigned level)
{
    return (uint64_t)PAGE << LEVEL_BITS * (level - 1);
}

static uint64_t entry_address(uint64_t table, uint64_t iova, unsigned level)
{
    return table + 8 * (iova / level_size(level) & ((1 << LEVEL_BITS) - 1));
}

/*
 * The address of the table of `level` for an iova; tables above it are made when `make` is set. 0
 * when there is none, with an error said for what is not merely absent.
 */
static uint64_t find_table(struct run *run, struct tables *tables, const struct domain *domain,
                           uint64_t iova, unsigned level, bool make)
{
    uint64_t table = domain->top;

    for (unsigned at = domain->levels; at > level; at--) {
        uint64_t entry = entry_address(table, iova, at);
        uint64_t value = guest_read64(run, entry);

        if (run->failed) {
            return 0;
        }
        if (value & READ_WRITE && value & SUPER_PAGE && at <= LEAF_LEVEL_MAX) {
            run_error(run, NULL, "a super-page maps 0x%" PRIx64 " already: unmap it first", iova);
            return 0;
        }
        if (!(value & READ_WRITE)) {
            if (!make) {
                return 0;
            }
            value = take_page(run, tables) | READ_WRITE;
            if (run->failed) {
                return 0;
            }
            guest_write64(run, entry, value);
        }
        table = value & address_bits;
    }
    return table;
}

/* The domain named by the argument, and its tables. */
static struct domain *domain_argument(struct run *run, struct tables **tables)
{
    uint64_t id;

    *tables = unit_tables(run);
    if (!*tables || !arg_number(run, "domain", &id)) {
        return NULL;
    }
    return get_domain(run, *tables, id, 0);
}

struct mapping {
    uint64_t iova;
    uint64_t gpa;
    uint64_t size;
    uint64_t page;
    uint64_t bits;
    unsigned level;
};

static bool mapping_fits(struct run *run, const struct domain *domain, const struct mapping *map)
{
    unsigned width = 12 + LEVEL_BITS * domain->levels;

    if (!map->size || map->iova % map->page || map->size % map->page) {
        run_error(run, NULL, "iova and size are multiples of the page size");
        return false;
    }
    if (map->size / map->page > MAP_PAGES_MAX) {
        run_error(run, NULL, "this is more than %d pages", MAP_PAGES_MAX);
        return false;
    }
    if (map->size - 1 > UINT64_MAX - map->iova || (map->iova + (map->size - 1)) >> width) {
        run_error(run, NULL, "the domain's tables reach %u bits only", width);
        return false;
    }
    return true;
}

static bool mapping_arguments(struct run *run, struct mapping *map)
{
    static const char *const pages[] = {"4k", "2m", "1g", NULL};
    uint32_t perm = VIOMMU_READ | VIOMMU_WRITE;
    unsigned which = 0;

    *map = (struct mapping){0};
    if (!arg_number(run, "iova", &map->iova) || !arg_number(run, "gpa", &map->gpa) ||
        !arg_number(run, "size", &map->size) || !arg_number(run, "bits", &map->bits) ||
        !arg_perm(run, "perm", &perm) || !arg_choice(run, "page", pages, &which)) {
        return false;
    }
    map->level = which + 1;
    map->page = level_size(map->level);
    map->bits |= perm | (map->level > 1 ? SUPER_PAGE : 0);
    return true;
}

static void do_map(struct run *run)
{
    struct tables *tables;
    struct domain *domain = domain_argument(run, &tables);
    struct mapping map;

    if (!domain || !mapping_arguments(run, &map) || !mapping_fits(run, domain, &map)) {
        return;
    }
    for (uint64_t done = 0; done < map.size; done += map.page) {
        uint64_t iova = map.iova + done;
        uint64_t table = find_table(run, tables, domain, iova, map.level, true);

        if (!table) {
            return;
        }
        guest_write64(run, entry_address(table, iova, map.level), (map.gpa + done) | map.bits);
    }
    result_decimal(&run->result, "pages", map.size / map.page);
}

/* Clears the leaf that maps iova; returns its size, or that of the hole there. 0: an error. */
static uint64_t clear_leaf(struct run *run, const struct domain *domain, uint64_t iova,
                           uint64_t room, unsigned *cleared)
{
    uint64_t table = domain->top;

    for (unsigned level = domain->levels;; level--) {
        uint64_t entry = entry_address(table, iova, level);
        uint64_t value = guest_read64(run, entry);
        uint64_t size = level_size(level);

        if (run->failed) {
            return 0;
        }
        if (!(value & READ_WRITE)) {
            return size - iova % size;
        }
        if (level == 1 || (level <= LEAF_LEVEL_MAX && value & SUPER_PAGE)) {
            if (iova % size || size > room) {
                run_error(run, NULL, "0x%" PRIx64 " lies in a larger page", iova);
                return 0;
            }
            guest_write64(run, entry, 0);
            ++*cleared;
            return size;
        }
        table = value & address_bits;
    }
}

static void do_unmap(struct run *run)
{
    struct tables *tables;
    struct domain *domain = domain_argument(run, &tables);
    struct mapping map = {.page = PAGE};
    unsigned cleared = 0;

    if (!domain || !arg_number(run, "iova", &map.iova) || !arg_number(run, "size", &map.size) ||
        !mapping_fits(run, domain, &map)) {
        return;
    }
    while (map.size) {
        uint64_t step = clear_leaf(run, domain, map.iova, map.size, &cleared);

        if (!step) {
            return;
        }
        step = step < map.size ? step : map.size;
        map.iova += step;
        map.size -= step;
    }
    result_decimal(&run->result, "pages", cleared);
}

static bool level_argument(struct run *run, const struct domain *domain, unsigned *level)
{
    uint64_t value = 0;

    if (!arg_number_max(run, "level", domain->levels, &value)) {
        return false;
    }
    if (!value) {
        run_error(run, "0", "levels count from 1");
    }
    *level = (unsigned)value;
    return value != 0;
}

static void do_entry(struct run *run)
{
    struct tables *tables;
    struct domain *domain = domain_argument(run, &tables);
    unsigned level;
    uint64_t iova;
    uint64_t value;
    uint64_t table;

    if (!domain || !arg_number(run, "iova", &iova) || !level_argument(run, domain, &level) ||
        !arg_number(run, "value", &value)) {
        return;
    }
    table = find_table(run, tables, domain, iova, level, true);
    if (!table) {
        return;
    }
    guest_write64(run, entry_address(table, iova, level), value);
    result_hex(&run->result, "at", entry_address(table, iova, level));
}

static void do_table(struct run *run)
{
    struct tables *tables;
    struct domain *domain = domain_argument(run, &tables);
    unsigned level;
    uint64_t iova;
    uint64_t table;

    if (!domain || !arg_number(run, "iova", &iova) || !level_argument(run, domain, &level)) {
        return;
    }
    table = find_table(run, tables, domain, iova, level, false);
    if (!table) {
        result_status(&run->result, "none");
        return;
    }
    result_hex(&run->result, "at", table);
    result_hex(&run->result, "entry", entry_address(table, iova, level));
    result_hex(&run->result, "value", guest_read64(run, entry_address(table, iova, level)));
}

const struct command table_commands[] = {
    {"tables", "at size", "Names the guest memory from which tables are taken.", do_tables},
    {"root", "[at=] [new!]",
     "Tells where the root table is; makes one, or takes that at an address.", do_root},
    {"root-entry", "bus low [high]", "Writes a raw root entry.", do_root_entry},
    {"context", "requester domain [type=] [width=] [table=] [low=] [high=] [fpd!] [absent!]",
     "Writes a context entry: the requester belongs to the domain.", do_context},
    {"context-entry", "requester low [high]", "Writes a raw context entry.", do_context_entry},
    {"domain", "domain [width=] [table=] [new!]",
     "Makes a domain's page table, or gives the domain another one.", do_domain},
    {"map", "domain iova gpa size [perm] [page=] [bits=]", "Maps pages in a domain's table.",
     do_map},
    {"unmap", "domain iova size", "Clears the leaf entries of a range.", do_unmap},
    {"entry", "domain iova level value", "Writes a raw entry of any level.", do_entry},
    {"table", "domain iova level", "Tells where a table is, and the entry for an address in it.",
     do_table},
    {0},
};
