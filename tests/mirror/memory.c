/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest memory of the mirrors' model test: slots that come, go, change their host memory or become
 * ROM. Host memory of a slot that is gone is inaccessible.
 */
#include "world.h"

#include <endian.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

static const struct {
    uint64_t first;
    uint64_t size;
} layout[SLOTS] = {
    [SLOT_MAIN] = {0, 0x100000},
    [SLOT_LOW] = {0x180000, 0x100000}, /* across a 2 MiB border */
    [SLOT_MIDDLE] = {0x280000, 0x80000},
    [SLOT_ROM] = {0x300000, 0x40000},
    [SLOT_BIG] = {0x40000000, 0x40800000},
    [SLOT_HIGH] = {0xfe800000, 0x600000}, /* up to the interrupt range, or beyond it */
    [SLOT_END] = {0x7fffc00000, 0x400000},
};

static uint8_t *reserve(struct world *world, uint64_t size)
{
    /* A page between any two, so that host memory of two slots is never contiguous. */
    uint8_t *host = mmap(NULL, size + WORLD_PAGE, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (host == MAP_FAILED) {
        world_fail(world, "no host memory");
    }
    return host;
}

static void protect(struct world *world, uint8_t *host, uint64_t size, bool accessible)
{
    if (mprotect(host, size, accessible ? PROT_READ | PROT_WRITE : PROT_NONE)) {
        world_fail(world, "mprotect: %s", strerror(errno));
    }
}

void memory_init(struct world *world)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        struct memory_slot *slot = &world->slots[i];

        slot->size = layout[i].size;
        if (i == SLOT_HIGH && world->seed % 4 == 3) {
            slot->size += 0x400000;
        }
        for (unsigned j = 0; j < (i == SLOT_MAIN ? 1 : 2); j++) {
            slot->hosts[j] = reserve(world, slot->size);
        }
        slot->slot = (struct viommu_memory_slot){
            .first = layout[i].first,
            .last = layout[i].first + slot->size - 1,
            .host = slot->hosts[0],
            .fd = i % 2 ? 1000 + (int)i : -1,
            .fd_offset = i % 2 ? 0x100000 * i : 0,
            .flags = i == SLOT_ROM ? VIOMMU_MEMORY_READONLY : 0,
        };
    }
}

void memory_fini(struct world *world)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        for (unsigned j = 0; j < 2; j++) {
            if (world->slots[i].hosts[j]) {
                munmap(world->slots[i].hosts[j], world->slots[i].size + WORLD_PAGE);
            }
        }
    }
}

static struct memory_slot *find(struct world *world, uint64_t gpa)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        struct memory_slot *slot = &world->slots[i];

        if (slot->present && slot->slot.first <= gpa && gpa <= slot->slot.last) {
            return slot;
        }
    }
    return NULL;
}

uint64_t *memory_word(struct world *world, uint64_t gpa)
{
    struct memory_slot *slot = find(world, gpa);

    return slot ? (uint64_t *)((uint8_t *)slot->slot.host + (gpa - slot->slot.first)) : NULL;
}

bool memory_load(struct world *world, uint64_t gpa, uint64_t *value)
{
    uint64_t *word = memory_word(world, gpa);

    if (word) {
        *value = le64toh(*word);
    }
    return word;
}

void memory_store(struct world *world, uint64_t gpa, uint64_t value)
{
    uint64_t *word = memory_word(world, gpa);

    if (word) {
        atomic_store((_Atomic uint64_t *)word, htole64(value));
    }
    world->dirty = true;
}

uint64_t memory_any_page(struct world *world)
{
    static const uint64_t elsewhere[] = {
        0x100000, 0x17f000, 0x340000, 0xfedff000, 0xfee00000, 0xfef00000, 0x100000000,
    };
    const struct memory_slot *slot = &world->slots[world_below(world, SLOTS)];
    uint64_t pages = slot->size / WORLD_PAGE;
    uint64_t page;

    if (world_percent(world, 8)) {
        return elsewhere[world_below(world, 7)];
    }
    page = world_percent(world, 60) ? world_below(world, 16) : world_below(world, (unsigned)pages);
    if (world_percent(world, 20)) {
        page = pages - 1 - page % pages;
    }
    return slot->slot.first + page * WORLD_PAGE;
}

uint64_t memory_effective(struct world *world, uint64_t raw)
{
    static struct memory_slot *last;
    struct memory_slot *slot = last;
    uint64_t gpa = raw & ~0xfffull;

    if (!raw || spec_in_interrupt_range(gpa)) {
        return 0;
    }
    if (slot < world->slots || slot >= world->slots + SLOTS || !slot->present ||
        gpa < slot->slot.first || gpa > slot->slot.last) {
        slot = find(world, gpa);
        if (!slot) {
            return 0;
        }
        last = slot;
    }
    if (slot->slot.flags & VIOMMU_MEMORY_READONLY) {
        raw &= ~(uint64_t)VIOMMU_WRITE;
    }
    return raw & 3 ? raw : 0;
}

/* Recorders know of slots that come before they come, and of those that go until they are gone. */

static void announce(struct world *world, const struct viommu_memory_slot *slot)
{
    world->memory.slots[world->memory.count++] = *slot;
}

static void forget(struct world *world, const struct viommu_memory_slot *slot)
{
    for (unsigned i = 0; i < world->memory.count; i++) {
        if (world->memory.slots[i].host == slot->host &&
            world->memory.slots[i].flags == slot->flags) {
            world->memory.slots[i] = world->memory.slots[--world->memory.count];
            return;
        }
    }
}

struct batch {
    unsigned count;
    struct {
        unsigned slot;
        bool remove;
        bool add;
        struct viommu_memory_slot old;
        struct viommu_memory_slot new;
    } items[2];
};

/* What is to become of one slot. */
static bool plan(struct world *world, struct batch *batch, unsigned number)
{
    struct memory_slot *slot = &world->slots[number];
    unsigned i = batch->count;

    if (number == SLOT_MAIN || (i && batch->items[0].slot == number)) {
        return false;
    }
    batch->items[i].slot = number;
    batch->items[i].remove = slot->present;
    batch->items[i].add = !slot->present || world_percent(world, 40);
    batch->items[i].old = batch->items[i].new = slot->slot;
    if (batch->items[i].add && world_percent(world, 40)) {
        batch->items[i].new.host = slot->hosts[!slot->which];
    }
    if (batch->items[i].add && world_percent(world, 20)) {
        batch->items[i].new.flags ^= VIOMMU_MEMORY_READONLY;
    }
    batch->count++;
    return true;
}

static int commit(struct world *world, struct batch *batch)
{
    struct viommu_memory_batch *changes;
    int error = viommu_memory_batch_begin(world->guest.memory, &changes);

    for (unsigned i = 0; i < batch->count && !error; i++) {
        if (batch->items[i].remove) {
            error = viommu_memory_batch_remove(changes, batch->items[i].old.first,
                                               batch->items[i].old.last);
        }
        if (batch->items[i].add && !error) {
            error = viommu_memory_batch_add(changes, &batch->items[i].new);
        }
        if (error) {
            viommu_memory_batch_abort(changes);
        }
    }
    return error ? error : viommu_memory_batch_commit(changes, NULL, NULL);
}

static bool batch_done(struct world *world)
{
    return viommu_memory_process(world->guest.memory) == 0;
}

static void apply(struct world *world, struct batch *batch)
{
    for (unsigned i = 0; i < batch->count; i++) {
        struct memory_slot *slot = &world->slots[batch->items[i].slot];

        if (batch->items[i].remove) {
            forget(world, &batch->items[i].old);
            for (unsigned j = 0; j < WORLD_MIRRORS; j++) {
                if (world->mirrors[j].subscriber && batch->items[i].old.host !=
                                                        batch->items[i].new.host) {
                    recorder_no_host(&world->mirrors[j].recorder, batch->items[i].old.host,
                                     slot->size);
                }
            }
        }
        slot->present = batch->items[i].add;
        slot->slot = batch->items[i].new;
        slot->which = slot->slot.host == slot->hosts[1];
        if (!slot->present || slot->slot.host != batch->items[i].old.host) {
            protect(world, batch->items[i].old.host, slot->size, false);
        }
    }
    world->dirty = true;
}

static void perform(struct world *world, struct batch *batch)
{
    int error;

    for (unsigned i = 0; i < batch->count; i++) {
        world_note(world, "memory slot %u:%s%s%s%s", batch->items[i].slot,
                   batch->items[i].remove ? " goes" : "", batch->items[i].add ? " comes" : "",
                   batch->items[i].new.host != batch->items[i].old.host ? " (other host)" : "",
                   batch->items[i].new.flags != batch->items[i].old.flags ? " (ROM flag)" : "");
        if (batch->items[i].add) {
            protect(world, batch->items[i].new.host, world->slots[batch->items[i].slot].size,
                    true);
            announce(world, &batch->items[i].new);
        }
    }
    error = commit(world, batch);
    if (error == VIOMMU_PENDING) {
        world_finish(world, batch_done, "a batch of memory changes");
        error = 0;
    }
    if (error == -ENOMEM && world->trouble.alloc) {
        for (unsigned i = 0; i < batch->count; i++) {
            if (batch->items[i].add) {
                forget(world, &batch->items[i].new);
            }
        }
        return;
    }
    world_ok(world, error, "memory batch");
    apply(world, batch);
}

void memory_change(struct world *world)
{
    struct batch batch = {0};

    /* A swap of the same host and flags is no change: its extents may stay or not. */
    if (!plan(world, &batch, world_below(world, SLOTS))) {
        return;
    }
    if (world_percent(world, 25)) {
        plan(world, &batch, world_below(world, SLOTS));
    }
    for (unsigned i = 0; i < batch.count; i++) {
        if (batch.items[i].remove && batch.items[i].add &&
            batch.items[i].old.host == batch.items[i].new.host) {
            batch.items[i].new.host = world->slots[batch.items[i].slot]
                                          .hosts[!world->slots[batch.items[i].slot].which];
        }
    }
    model_refresh(world);
    world_begin(world, 1u << VIOMMU_CAUSE_MEMORY);
    perform(world, &batch);
    model_refresh(world);
    world_end(world);
}

void memory_add_all(struct world *world)
{
    struct viommu_memory_batch *batch;

    world_ok(world, viommu_memory_batch_begin(world->guest.memory, &batch), "batch");
    for (unsigned i = 0; i < SLOTS; i++) {
        world->slots[i].present = i == SLOT_MAIN || world_percent(world, 75);
        if (world->slots[i].present) {
            announce(world, &world->slots[i].slot);
            world_ok(world, viommu_memory_batch_add(batch, &world->slots[i].slot), "add");
        } else {
            protect(world, world->slots[i].slot.host, world->slots[i].size, false);
        }
    }
    world_ok(world, viommu_memory_batch_commit(batch, NULL, NULL), "commit");
}
