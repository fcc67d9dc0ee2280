/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * shuffle.c - mappings of all sizes come and go in a mixed-up order.  See device_checks.h.
 *
 * Data structure: the IOVAs are cut into slots; each holds one mapping or none: some pages of one
 * arena, from any of its pages on, so that neighbours in IOVA may be neighbours in memory, or not,
 * and one page may be mapped several times.  The numbers are the same in every run.
 */
#include <errno.h>
#include <string.h>

#include "device_checks.h"
#include "iova.h"
#include "memory.h"
#include "report.h"
#include "../support/random.h"
#include "vfio.h"

enum {
    SLOTS = 32,
    SLOT_PAGES = 16,
    ARENA_PAGES = SUPER_PAGE / PAGE,
};

struct slot {
    unsigned page;      /* of the arena, at the slot's beginning */
    unsigned pages;     /* 0: nothing is mapped */
    bool writable;
};

struct shuffle {
    struct station *station;
    uint8_t *arena;
    struct slot slots[SLOTS];
    struct random random;
};

static uint64_t slot_iova(unsigned slot)
{
    return SHUFFLE_IOVA + (uint64_t)slot * SLOT_PAGES * PAGE;
}

static int change(struct shuffle *f, unsigned at)
{
    struct slot *slot = &f->slots[at];
    int container = f->station->container;

    if (slot->pages) {
        size_t size = (size_t)slot->pages * PAGE;

        slot->pages = 0;
        return vfio_unmap(container, slot_iova(at), size);
    }
    slot->pages = 1 + random_below(&f->random, SLOT_PAGES);
    slot->page = random_below(&f->random, ARENA_PAGES - SLOT_PAGES);
    slot->writable = random_percent(&f->random, 80);
    return vfio_map(container, slot_iova(at), f->arena + (size_t)slot->page * PAGE,
                    (size_t)slot->pages * PAGE, slot->writable ? DMA_BOTH : DMA_READ);
}

/* DMA from, and to, a page that is mapped in the slot, or in the next that has one. */
static bool reaches(struct shuffle *f, unsigned at)
{
    struct station *s = f->station;
    uint64_t seed = pattern_new_seed(), iova;
    struct slot *slot;
    uint8_t *memory;
    unsigned page;

    for (unsigned i = 0; i < SLOTS && !f->slots[at].pages; i++) {
        at = (at + 1) % SLOTS;
    }
    slot = &f->slots[at];
    if (!slot->pages) {
        return true;
    }
    page = random_below(&f->random, slot->pages);
    memory = f->arena + (size_t)(slot->page + page) * PAGE;
    iova = slot_iova(at) + (uint64_t)page * PAGE;
    report_detail("the bytes at %#llx are not those sent", (unsigned long long)iova);
    pattern_fill(memory, PAGE, seed);
    if (edu_from_ram(s->edu, iova, 0, PAGE) || !station_show(s) ||
        !pattern_matches(s->window, 0, PAGE, seed)) {
        return false;
    }
    memset(memory, 0, PAGE);
    return !slot->writable ||
           (!edu_to_ram(s->edu, iova, 0, PAGE) && pattern_matches(memory, 0, PAGE, seed));
}

void check_shuffle(struct station *s, const struct plan *plan)
{
    struct shuffle f = {.station = s, .arena = memory_get(SUPER_PAGE, SUPER_PAGE)};
    unsigned rounds = plan->qemu_unit ? plan->pages : 2 * plan->pages;
    int error = f.arena ? 0 : -ENOMEM;
    bool same = true;

    for (unsigned i = 0; !error && same && i < rounds; i++) {
        unsigned at = random_below(&f.random, SLOTS);

        error = change(&f, at);
        same = error || reaches(&f, at);
    }
    for (unsigned at = 0; !error && at < SLOTS; at++) {
        error = f.slots[at].pages ? change(&f, at) : 0;
    }
    if (error) {
        report_detail("%s", strerror(-error));
    }
    check(!error && same, "%s: %u mappings of 1 to %d pages come and go, DMA after each",
          s->edu->bdf, rounds, SLOT_PAGES);
    if (f.arena) {
        memory_put(f.arena, SUPER_PAGE);
    }
}
