/* SPDX-License-Identifier: BSD-2-Clause */
/* The loops of glance.h. */
#include "shadow/glance.h"

/* A guest writes its tables while they are read here, which ThreadSanitizer need not tell. */
#define GUEST_MAY_WRITE __attribute__((no_sanitize_thread, noinline))

#define LINE 64
#define LINES (SHADOW_PAGES * sizeof(uint64_t) / LINE)
#define PAIRS_A_LINE (LINE / sizeof(pair))

/* Two entries; where a table lies 8-byte aligned, so does a pair. */
typedef uint64_t pair __attribute__((vector_size(16), aligned(8), may_alias));

/* Has a line fetched; that it lies nowhere does no harm. */
static inline void fetch(const void *from, unsigned line)
{
    __builtin_prefetch((const void *)((uintptr_t)from + line * LINE));
}

/*
 * What all differences, all entries and all values together say: where target and permissions are
 * equal, no reserved bit is set anywhere, and no value is SHADOW_BAD or has more permissions than
 * are left, each entry's value is what is remembered.
 */
static bool is_same(const struct glance *glance, pair differences, pair entries, pair values)
{
    uint64_t keep = SHADOW_TARGET | glance->allowed;
    uint64_t impossible = SHADOW_BAD | (SHADOW_PERM & ~glance->allowed);

    return !((differences[0] | differences[1]) & keep) &&
           !((entries[0] | entries[1]) & glance->reserved) &&
           !((values[0] | values[1]) & impossible);
}

GUEST_MAY_WRITE bool glance_values(const struct glance *glance, const uint64_t *values)
{
    const volatile pair *entry = (const volatile pair *)glance->leaf;
    const pair *value = (const pair *)values;
    pair differences = {0};
    pair entries = {0};
    pair all = {0};

    for (unsigned line = 0; line < LINES; line++) {
        fetch(glance->next_leaf, line);
        fetch(glance->next_values, line);
        for (unsigned i = 0; i < PAIRS_A_LINE; i++) {
            pair e = *entry++;
            pair v = *value++;

            differences |= e ^ v;
            entries |= e;
            all |= v;
        }
    }
    return is_same(glance, differences, entries, all);
}

GUEST_MAY_WRITE bool glance_run(const struct glance *glance, uint64_t first)
{
    const volatile pair *entry = (const volatile pair *)glance->leaf;
    uint64_t page = first ? 4096 : 0;
    pair value = {first, first + page};
    pair step = {2 * page, 2 * page};
    pair differences = {0};
    pair entries = {0};

    for (unsigned line = 0; line < LINES; line++) {
        fetch(glance->next_leaf, line);
        for (unsigned i = 0; i < PAIRS_A_LINE; i++) {
            pair e = *entry++;

            differences |= e ^ value;
            entries |= e;
            value += step;
        }
    }
    return is_same(glance, differences, entries, (pair){first, first});
}
