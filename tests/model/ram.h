/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the model test believes of guest memory: a few slots at fixed places, some of which come and
 * go. Host memory of an absent slot is made inaccessible, so that the library is caught when it
 * touches it; its contents are lost, as when a machine unplugs memory.
 *
 * Beside each slot lies a *shadow*: what the slot must contain. ram_check() compares; whoever
 * changes guest memory changes both (ram_store64), or accepts what was written (ram_accept).
 */
#ifndef VIOMMU_MODEL_RAM_H
#define VIOMMU_MODEL_RAM_H

#include <viommu/memory.h>

#define RAM_SLOTS 4
#define RAM_PAGE 4096ull

struct ram_slot {
    uint64_t first;
    uint64_t size;
    uint8_t *host;
    uint8_t *shadow;
    bool present;
    bool rom;
};

struct ram {
    struct viommu_memory *memory;
    struct ram_slot slots[RAM_SLOTS];
};

/* `top` is the first address that no guest address reaches; the last slot ends there. */
int ram_init(struct ram *ram, struct viommu_memory *memory, uint64_t top);
void ram_fini(struct ram *ram);

/* Adds or removes a slot, in the library too. `finish` goes on with its pending work. */
int ram_set_present(struct ram *ram, unsigned slot, bool present, void (*finish)(void *opaque),
                    void *opaque);

/* The slot that holds all of [gpa, gpa + len - 1] and is present, or NULL. */
struct ram_slot *ram_find(struct ram *ram, uint64_t gpa, uint64_t len);

bool ram_load64(struct ram *ram, uint64_t gpa, uint64_t *value);
void ram_store64(struct ram *ram, uint64_t gpa, uint64_t value);

/* Takes what guest memory holds at [gpa, gpa + len - 1] as right. */
void ram_accept(struct ram *ram, uint64_t gpa, uint64_t len);

/* Returns false, and where, when guest memory is not as it must be. */
bool ram_check(struct ram *ram, uint64_t *where);

#endif
