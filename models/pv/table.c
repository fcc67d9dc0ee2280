/* SPDX-License-Identifier: BSD-2-Clause */
/* The slots of a context. See table.h. */
#include "pv/table.h"

#include <errno.h>
#include <stddef.h>

#include "base/alloc.h"

enum {
    BITS = 9,
    ENTRIES = 1 << BITS,
    WORDS = ENTRIES / 64,
    LINE = 64,
};

/* What an entry of a table above level 0 points to. */
union entry {
    struct pv_table *below;
    struct pv_slot *slot;
};

struct pv_table {
    struct pv_table *parent;
    uint64_t first; /* device frame */
    uint16_t place; /* in the parent */
    uint16_t used;
    uint16_t filled; /* entries that are full; level 0: not used, nor the bits for it */
    uint8_t level;
    bool stays; /* when it is empty */
    uint64_t present[WORDS];
    union {
        _Alignas(LINE) struct pv_slot slots[ENTRIES]; /* level 0 */
        struct {
            uint64_t full[WORDS];
            uint64_t large[WORDS]; /* the entry is a slot */
            union entry entries[ENTRIES];
        };
    };
};

_Static_assert(sizeof(struct pv_slot) == LINE || sizeof(void *) < 8, "a slot is a cache line");

static bool bit(const uint64_t *words, unsigned place)
{
    return words[place / 64] >> place % 64 & 1;
}

static void bit_set(uint64_t *words, unsigned place)
{
    words[place / 64] |= UINT64_C(1) << place % 64;
}

static void bit_clear(uint64_t *words, unsigned place)
{
    words[place / 64] &= ~(UINT64_C(1) << place % 64);
}

/* The first place from `place` on whose bit, xor'ed with `flip`, is set; ENTRIES: none. */
static unsigned bit_next(const uint64_t *words, uint64_t flip, unsigned place)
{
    while (place < ENTRIES) {
        uint64_t word = (words[place / 64] ^ flip) >> place % 64;

        if (word) {
            return place + (unsigned)__builtin_ctzll(word);
        }
        place = (place / 64 + 1) * 64;
    }
    return ENTRIES;
}

static unsigned place_of(uint64_t device_frame, unsigned level)
{
    return (unsigned)(device_frame >> level * BITS) & (ENTRIES - 1);
}

/* Frames that one entry of a level covers, less one. */
static uint64_t reach(unsigned level)
{
    return (UINT64_C(1) << level * BITS) - 1;
}

void pv_tree_init(struct pv_tree *tree, struct pv_context *context, uint64_t last, uint64_t *tables,
                  uint64_t tables_max)
{
    *tree = (struct pv_tree){.context = context,
                             .last = last,
                             .levels = 3, /* pages of order 18 need so many */
                             .tables = tables,
                             .tables_max = tables_max};
    while (last >> tree->levels * BITS) {
        tree->levels++;
    }
}

static struct pv_table *allocate(unsigned level)
{
    return base_alloc_aligned(_Alignof(struct pv_table), level
                                                             ? offsetof(struct pv_table, entries) +
                                                                   ENTRIES * sizeof(union entry)
                                                             : sizeof(struct pv_table));
}

static struct pv_table *table_create(struct pv_tree *tree, struct pv_table *parent, unsigned level,
                                     uint64_t device_frame, int *error)
{
    struct pv_table *table;

    if (*tree->tables >= tree->tables_max) {
        *error = -ENOSPC;
        return NULL;
    }
    if (level == 0 && tree->spare) {
        table =
            tree->spare; /* nothing is in it: its bits are clear, and slots are written when used */
        tree->spare = NULL;
    } else {
        table = allocate(level);
    }
    if (!table) {
        *error = -ENOMEM;
        return NULL;
    }
    table->parent = parent;
    table->level = (uint8_t)level;
    table->first = device_frame & ~reach(level + 1);
    table->stays = false;
    if (parent) {
        table->place = (uint16_t)place_of(device_frame, level + 1);
        parent->entries[table->place].below = table;
        bit_set(parent->present, table->place);
        parent->used++;
    } else {
        tree->root = table;
    }
    ++*tree->tables;
    return table;
}

/* An entry is full now, or not any more; so may be the tables above. */
static void set_full(struct pv_table *table, unsigned place)
{
    while (table) {
        bit_set(table->full, place);
        if (++table->filled < ENTRIES) {
            return;
        }
        place = table->place;
        table = table->parent;
    }
}

static void clear_full(struct pv_table *table, unsigned place)
{
    while (table && bit(table->full, place)) {
        bit_clear(table->full, place);
        table->filled--;
        place = table->place;
        table = table->parent;
    }
}

static void stay_no_more(struct pv_tree *tree, struct pv_table *table)
{
    unsigned i = 0;

    while (tree->stay[i] != table) {
        i++;
    }
    tree->stay[i] = NULL;
    table->stays = false;
}

/* Frees a table without entries, and those above that have none then. */
static void prune(struct pv_tree *tree, struct pv_table *table)
{
    while (table && table->used == 0) {
        struct pv_table *parent = table->parent;

        if (parent) {
            bit_clear(parent->present, table->place);
            parent->entries[table->place].below = NULL;
            parent->used--;
        } else {
            tree->root = NULL;
        }
        if (table->stays) {
            stay_no_more(tree, table);
        }
        if (tree->recent == table) {
            tree->recent = NULL;
        }
        if (table->level == 0 && !tree->spare) {
            tree->spare = table;
        } else {
            base_free(table);
        }
        --*tree->tables;
        table = parent;
    }
}

/* A table stays no more; it is freed if it is empty. */
static void leave(struct pv_tree *tree, struct pv_table *table)
{
    stay_no_more(tree, table);
    prune(tree, table);
}

void pv_tree_trim(struct pv_tree *tree)
{
    for (unsigned i = 0; i < PV_STAY; i++) {
        if (tree->stay[i]) {
            leave(tree, tree->stay[i]);
        }
    }
}

/* A table of level 0 has become empty: it stays instead of the one that does so longest, unless a
   good part of what the VM may have is there. */
static void emptied(struct pv_tree *tree, struct pv_table *table)
{
    if (table->stays) {
        return;
    }
    if (tree->stay[tree->stays]) {
        leave(tree, tree->stay[tree->stays]);
    }
    if (*tree->tables > tree->tables_max / 2) {
        pv_tree_trim(tree);
    }
    tree->stay[tree->stays] = table;
    tree->stays = (tree->stays + 1) % PV_STAY;
    table->stays = true;
}

void pv_tree_fini(struct pv_tree *tree)
{
    pv_tree_trim(tree);
    base_free(tree->spare);
    tree->spare = NULL;
}

/* Whether the table of level 0 that was used last is the one for a device frame. */
static inline bool is_recent(const struct pv_tree *tree, uint64_t device_frame)
{
    return tree->recent && tree->recent->first == (device_frame & ~reach(1));
}

static struct pv_table *leaf_search(struct pv_tree *tree, uint64_t device_frame,
                                    struct pv_slot **large)
{
    struct pv_table *table = device_frame > tree->last ? NULL : tree->root;

    while (table && table->level) {
        unsigned place = place_of(device_frame, table->level);

        if (bit(table->large, place)) {
            *large = table->entries[place].slot;
            return NULL;
        }
        table = table->entries[place].below;
    }
    tree->recent = table ? table : tree->recent;
    return table;
}

/*
 * The table of level 0 that a device frame is in, which is remembered; or NULL. *large becomes the
 * slot of a larger page that covers it, or NULL.
 */
static inline struct pv_table *leaf_of(struct pv_tree *tree, uint64_t device_frame,
                                       struct pv_slot **large)
{
    *large = NULL;
    return is_recent(tree, device_frame) ? tree->recent : leaf_search(tree, device_frame, large);
}

struct pv_slot *pv_tree_find(struct pv_tree *tree, uint64_t device_frame)
{
    struct pv_slot *large;
    struct pv_table *table = leaf_of(tree, device_frame, &large);
    unsigned place = place_of(device_frame, 0);

    return table ? bit(table->present, place) ? &table->slots[place] : NULL : large;
}

unsigned pv_tree_free_run(struct pv_tree *tree, uint64_t device_frame, unsigned max)
{
    struct pv_slot *large;
    struct pv_table *table = leaf_of(tree, device_frame, &large);
    unsigned place = place_of(device_frame, 0);
    unsigned end = ENTRIES;

    if (table) {
        __builtin_prefetch(&table->slots[place], 1);
        end = bit_next(table->present, 0, place);
    }
    return large ? 0 : end - place < max ? end - place : max;
}

bool pv_tree_is_free(struct pv_tree *tree, uint64_t device_frame)
{
    struct pv_slot *large;
    struct pv_table *table = leaf_of(tree, device_frame, &large);
    unsigned place = place_of(device_frame, 0);

    if (!table) {
        return !large;
    }
    __builtin_prefetch(&table->slots[place], 1);
    return !bit(table->present, place);
}

unsigned pv_tree_used_run(struct pv_tree *tree, uint64_t device_frame, unsigned max,
                          struct pv_slot **out)
{
    struct pv_slot *large;
    struct pv_table *table = leaf_of(tree, device_frame, &large);
    unsigned place = place_of(device_frame, 0);
    unsigned end;

    if (!table) {
        return 0;
    }
    *out = &table->slots[place];
    end = bit_next(table->present, UINT64_MAX, place);
    return end - place < max ? end - place : max;
}

struct pv_slot *pv_tree_next(const struct pv_tree *tree, uint64_t from)
{
    struct pv_table *table = tree->root;

    if (from > tree->last) {
        return NULL;
    }
    while (table) {
        unsigned place = place_of(from, table->level);
        unsigned next = bit_next(table->present, 0, place);

        pv_step();
        if (next == ENTRIES) {
            /* Behind all that this table covers. */
            uint64_t end = table->first + reach(table->level + 1u);

            if (end >= tree->last) {
                return NULL;
            }
            from = end + 1;
            table = tree->root;
            continue;
        }
        if (next != place) {
            from = table->first + ((uint64_t)next << table->level * BITS);
        }
        if (table->level == 0) {
            return &table->slots[next];
        }
        if (bit(table->large, next)) {
            return table->entries[next].slot;
        }
        table = table->entries[next].below;
    }
    return NULL;
}

/* The table of `level` for a device frame, made if need be. */
static int table_for(struct pv_tree *tree, uint64_t device_frame, unsigned level,
                     struct pv_table **out)
{
    struct pv_table *table = tree->root;
    int error = 0;

    if (!table) {
        table = table_create(tree, NULL, tree->levels - 1, device_frame, &error);
    }
    while (table && table->level > level) {
        unsigned place = place_of(device_frame, table->level);
        struct pv_table *below;

        if (bit(table->large, place)) {
            return -EEXIST;
        }
        below = table->entries[place].below;
        if (!below) {
            below = table_create(tree, table, table->level - 1u, device_frame, &error);
            if (!below) {
                prune(tree, table);
            }
        }
        table = below;
    }
    *out = table;
    return table ? 0 : error;
}

/* The table that a page of an order is to be in, made if need be; of level 0 it is remembered. */
static int table_to_claim(struct pv_tree *tree, uint64_t device_frame, unsigned level,
                          struct pv_table **out)
{
    int error;

    *out = tree->recent;
    if (level == 0 && is_recent(tree, device_frame)) {
        return 0;
    }
    error = table_for(tree, device_frame, level, out);
    if (error == -ENOSPC) {
        pv_tree_trim(tree);
        error = table_for(tree, device_frame, level, out);
    }
    if (!error && level == 0) {
        tree->recent = *out;
    }
    return error;
}

/* Slots of a table of level 0 have become used. */
static inline void count_taken(struct pv_tree *tree, struct pv_table *table, unsigned count)
{
    table->used = (uint16_t)(table->used + count);
    tree->slots += count;
    if (table->used == ENTRIES) {
        set_full(table->parent, table->place);
    }
}

/* Marks slots of a table of level 0 that are free as used, or the other way about. */
static void turn_run(struct pv_table *table, unsigned place, unsigned count)
{
    for (unsigned at = place, end = place + count; at < end;) {
        unsigned many = 64 - at % 64 < end - at ? 64 - at % 64 : end - at;

        table->present[at / 64] ^= UINT64_MAX >> (64 - many) << at % 64;
        at += many;
    }
}

static void take_run(struct pv_tree *tree, struct pv_table *table, unsigned place, unsigned count)
{
    turn_run(table, place, count);
    count_taken(tree, table, count);
}

int pv_tree_claim_run(struct pv_tree *tree, uint64_t device_frame, unsigned *count,
                      struct pv_slot **out)
{
    unsigned place = place_of(device_frame, 0);
    struct pv_table *table;
    unsigned end;
    int error = table_to_claim(tree, device_frame, 0, &table);

    if (error) {
        return error;
    }
    end = bit_next(table->present, 0, place);
    if (end == place) {
        return -EEXIST;
    }
    *count = end - place < *count ? end - place : *count;
    *out = &table->slots[place];
    take_run(tree, table, place, *count);
    return 0;
}

int pv_tree_claim_one(struct pv_tree *tree, uint64_t device_frame, struct pv_slot **out)
{
    unsigned place = place_of(device_frame, 0);
    struct pv_table *table;
    int error = table_to_claim(tree, device_frame, 0, &table);

    if (error) {
        return error;
    }
    if (bit(table->present, place)) {
        return -EEXIST;
    }
    *out = &table->slots[place];
    bit_set(table->present, place);
    count_taken(tree, table, 1);
    return 0;
}

/* Empty tables that are in the way of a larger page do not stay. */
static void trim_range(struct pv_tree *tree, uint64_t first, uint64_t last)
{
    for (unsigned i = 0; i < PV_STAY; i++) {
        if (tree->stay[i] && tree->stay[i]->first >= first && tree->stay[i]->first <= last) {
            leave(tree, tree->stay[i]);
        }
    }
}

int pv_tree_claim(struct pv_tree *tree, uint64_t device_frame, unsigned order, struct pv_slot **out)
{
    unsigned level = order / BITS;
    uint64_t last = device_frame + (UINT64_C(1) << order) - 1;
    struct pv_slot *slot;
    struct pv_table *table;
    unsigned place;
    int error;

    if (order) {
        slot = pv_tree_next(tree, device_frame);
        if (slot && slot->device_frame <= last) {
            return -EEXIST;
        }
        trim_range(tree, device_frame, last);
    }
    error = table_to_claim(tree, device_frame, level, &table);
    if (error) {
        return error;
    }
    place = place_of(device_frame, level);
    if (bit(table->present, place)) {
        return -EEXIST;
    }
    if (level) {
        slot = base_alloc(sizeof(*slot));
        if (!slot) {
            prune(tree, table);
            return -ENOMEM;
        }
        table->entries[place].slot = slot;
        bit_set(table->large, place);
        bit_set(table->present, place);
        table->used++;
        set_full(table, place);
        tree->slots++;
    } else {
        slot = &table->slots[place];
        take_run(tree, table, place, 1);
    }
    *slot = (struct pv_slot){.device_frame = device_frame,
                             .context = tree->context,
                             .order = (uint8_t)order,
                             .state = PV_SLOT_CLAIMED};
    *out = slot;
    return 0;
}

/* The table that a slot of a larger page lies in. */
static struct pv_table *table_of(const struct pv_tree *tree, const struct pv_slot *slot)
{
    struct pv_table *table = tree->root;

    while (table->level > slot->order / BITS) {
        table = table->entries[place_of(slot->device_frame, table->level)].below;
    }
    return table;
}

static void remove_large(struct pv_tree *tree, struct pv_slot *slot)
{
    struct pv_table *table = table_of(tree, slot);
    unsigned place = place_of(slot->device_frame, table->level);

    bit_clear(table->present, place);
    clear_full(table, place);
    table->used--;
    bit_clear(table->large, place);
    table->entries[place].slot = NULL;
    base_free(slot);
    prune(tree, table);
}

/* The table of level 0 that has a slot at a place. */
static struct pv_table *leaf_with(struct pv_slot *slot, unsigned place)
{
    return (struct pv_table *)(void *)((char *)(slot - place) - offsetof(struct pv_table, slots));
}

/* Slots of a table of level 0 have become free. */
static inline void count_freed(struct pv_tree *tree, struct pv_table *table, unsigned count)
{
    tree->slots -= count;
    if (table->used == ENTRIES) {
        clear_full(table->parent, table->place);
    }
    table->used = (uint16_t)(table->used - count);
    if (table->used == 0) {
        emptied(tree, table);
    }
}

void pv_tree_remove(struct pv_tree *tree, struct pv_slot *slot)
{
    unsigned place = place_of(slot->device_frame, 0);
    struct pv_table *table;

    slot->state = PV_SLOT_FREE;
    if (slot->order) {
        tree->slots--;
        remove_large(tree, slot);
        return;
    }
    table = leaf_with(slot, place);
    bit_clear(table->present, place);
    count_freed(tree, table, 1);
}

void pv_tree_remove_run(struct pv_tree *tree, struct pv_slot *slots, unsigned count)
{
    unsigned place = place_of(slots->device_frame, 0);
    struct pv_table *table = leaf_with(slots, place);

    for (unsigned i = 0; i < count; i++) {
        slots[i].state = PV_SLOT_FREE;
    }
    turn_run(table, place, count);
    count_freed(tree, table, count);
}

bool pv_tree_gap(const struct pv_tree *tree, uint64_t from, uint64_t to, uint64_t *out)
{
    struct pv_table *table = tree->root;

    while (from <= to) {
        unsigned place;
        unsigned next;

        if (!table) {
            *out = from;
            return true;
        }
        place = place_of(from, table->level);
        next = bit_next(table->level ? table->full : table->present, UINT64_MAX, place);
        if (next == ENTRIES) {
            uint64_t end = table->first + reach(table->level + 1u);

            if (end >= tree->last) {
                return false;
            }
            from = end + 1;
            table = tree->root;
            continue;
        }
        if (next != place) {
            from = table->first + ((uint64_t)next << table->level * BITS);
        }
        table = table->level && bit(table->present, next) ? table->entries[next].below : NULL;
    }
    return false;
}

#ifdef VIOMMU_TESTING

struct checking {
    const struct pv_tree *tree;
    const char *(*each)(void *opaque, const struct pv_slot *slot);
    void *opaque;
    uint64_t slots;
    uint64_t tables;
    unsigned stay;
};

static const char *check_slot(struct checking *checking, const struct pv_table *table,
                              unsigned place, const struct pv_slot *slot)
{
    checking->slots++;
    if (slot->state == PV_SLOT_FREE || slot->state > PV_SLOT_REVOKED) {
        return "a slot in use says that it is not";
    }
    if (slot->order != table->level * BITS ||
        slot->device_frame != table->first + ((uint64_t)place << table->level * BITS) ||
        slot->context != checking->tree->context) {
        return "a slot does not know where it is";
    }
    return checking->each ? checking->each(checking->opaque, slot) : NULL;
}

static const char *check_table(struct checking *checking, const struct pv_table *table)
{
    unsigned used = 0;
    unsigned filled = 0;
    const char *wrong = NULL;

    checking->tables++;
    for (unsigned place = 0; place < ENTRIES && !wrong; place++) {
        bool full = false;

        if (bit(table->present, place)) {
            used++;
            if (table->level == 0) {
                full = true;
                wrong = check_slot(checking, table, place, &table->slots[place]);
            } else if (bit(table->large, place)) {
                full = true;
                wrong = check_slot(checking, table, place, table->entries[place].slot);
            } else {
                const struct pv_table *below = table->entries[place].below;

                full = (below->level ? below->filled : below->used) == ENTRIES;
                if (below->parent != table || below->place != place ||
                    below->level + 1 != table->level) {
                    return "a table is not where it says";
                }
                wrong = check_table(checking, below);
            }
        } else if (table->level && (bit(table->large, place) || table->entries[place].below)) {
            return "an entry that is not there";
        }
        filled += full;
        if (table->level && full != bit(table->full, place)) {
            return "full or not";
        }
    }
    if (!wrong && (used != table->used || (table->level && filled != table->filled))) {
        return "a table's count is wrong";
    }
    checking->stay += table->level == 0 && table->stays;
    return !wrong && used == 0 && (table->level || !table->stays) ? "an empty table" : wrong;
}

/* The table of level 0 for a device frame, whatever is remembered. */
static const struct pv_table *leaf_by_walk(const struct pv_tree *tree, uint64_t device_frame)
{
    const struct pv_table *table = tree->root;

    while (table && table->level) {
        unsigned place = place_of(device_frame, table->level);

        table = bit(table->large, place) ? NULL : table->entries[place].below;
    }
    return table;
}

const char *pv_tree_check(const struct pv_tree *tree,
                          const char *(*each)(void *opaque, const struct pv_slot *slot),
                          void *opaque)
{
    struct checking checking = {.tree = tree, .each = each, .opaque = opaque};
    const char *wrong = tree->root ? check_table(&checking, tree->root) : NULL;

    if (!wrong && checking.slots != tree->slots) {
        wrong = "the tree's count is wrong";
    }
    for (unsigned i = 0; i < PV_STAY; i++) {
        checking.stay -= tree->stay[i] && tree->stay[i]->stays;
    }
    if (!wrong && checking.stay) {
        wrong = "tables that stay are not known";
    }
    if (!wrong && tree->recent && tree->recent != leaf_by_walk(tree, tree->recent->first)) {
        wrong = "a table is remembered that is not there";
    }
    return wrong;
}

#endif
