/* SPDX-License-Identifier: BSD-2-Clause */
/* The baseline of baseline.h. */
#include "baseline.h"

#define ENTRY_ADDRESS 0x000ffffffffff000ULL
#define ENTRY_READ 1ULL
#define ENTRY_WRITE 2ULL
#define ENTRY_LARGE (1ULL << 7)
#define PAGE_SIZES 3 /* 4 KiB, 2 MiB, 1 GiB */

struct key {
    uint64_t page; /* number of the page, of its own size */
    uint32_t level;
    uint16_t domain;
};

struct value {
    uint64_t gpa; /* of the page */
    uint64_t mask;
    uint64_t perm;
};

static guint key_hash(gconstpointer pointer)
{
    const struct key *key = pointer;
    uint64_t all = key->page ^ (uint64_t)key->domain << 48 ^ (uint64_t)key->level << 44;

    return (guint)(all * 0x9e3779b97f4a7c15ULL >> 32);
}

static gboolean key_equal(gconstpointer a, gconstpointer b)
{
    const struct key *x = a;
    const struct key *y = b;

    return x->page == y->page && x->level == y->level && x->domain == y->domain;
}

void baseline_init(struct baseline *baseline, unsigned cap, const uint8_t *ram, uint64_t root,
                   unsigned levels)
{
    g_mutex_init(&baseline->lock);
    baseline->table = g_hash_table_new_full(key_hash, key_equal, g_free, g_free);
    baseline->cap = cap;
    baseline->ram = ram;
    baseline->root = root;
    baseline->levels = levels;
}

void baseline_fini(struct baseline *baseline)
{
    g_hash_table_destroy(baseline->table);
    g_mutex_clear(&baseline->lock);
}

void baseline_reset(struct baseline *baseline)
{
    g_mutex_lock(&baseline->lock);
    g_hash_table_remove_all(baseline->table);
    g_mutex_unlock(&baseline->lock);
}

static unsigned shift_of(unsigned level)
{
    return 12 + 9 * level;
}

static const struct value *find(struct baseline *baseline, uint16_t domain, uint64_t iova)
{
    for (unsigned level = 0; level < PAGE_SIZES; level++) {
        struct key key = {.page = iova >> shift_of(level), .level = level, .domain = domain};
        const struct value *value = g_hash_table_lookup(baseline->table, &key);

        if (value) {
            return value;
        }
    }
    return NULL;
}

static const struct value *insert(struct baseline *baseline, uint16_t domain, uint64_t iova,
                                  unsigned level, const struct value *walked)
{
    struct key *key = g_new(struct key, 1);
    struct value *value = g_new(struct value, 1);

    if (baseline->cap && g_hash_table_size(baseline->table) >= baseline->cap) {
        g_hash_table_remove_all(baseline->table);
    }
    *key = (struct key){.page = iova >> shift_of(level), .level = level, .domain = domain};
    *value = *walked;
    g_hash_table_insert(baseline->table, key, value);
    return value;
}

static const struct value *walk(struct baseline *baseline, uint16_t domain, uint64_t iova)
{
    uint64_t table = baseline->root;
    uint64_t perm = ENTRY_READ | ENTRY_WRITE;
    struct value value;

    for (unsigned level = baseline->levels; level-- > 0;) {
        uint64_t slot = table + (iova >> shift_of(level) & 511) * 8;
        uint64_t entry = *(const volatile uint64_t *)(baseline->ram + slot);

        perm &= entry;
        if (!perm) {
            return NULL;
        }
        table = entry & ENTRY_ADDRESS;
        if (!level || (entry & ENTRY_LARGE)) {
            value.mask = (1ULL << shift_of(level)) - 1;
            value.gpa = table & ~value.mask;
            value.perm = perm;
            return insert(baseline, domain, iova, level, &value);
        }
    }
    return NULL;
}

bool baseline_translate(struct baseline *baseline, uint16_t domain, uint64_t iova, uint64_t perm,
                        uint64_t *gpa)
{
    const struct value *value;
    bool ok;

    g_mutex_lock(&baseline->lock);
    value = find(baseline, domain, iova);
    if (!value) {
        value = walk(baseline, domain, iova);
    }
    ok = value && !(perm & ~value->perm);
    if (ok) {
        *gpa = value->gpa | (iova & value->mask);
    }
    g_mutex_unlock(&baseline->lock);
    return ok;
}
