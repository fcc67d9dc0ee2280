/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest memory as the model test believes it to be: see ram.h.
 */
#include "ram.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static int protect(struct ram_slot *slot, bool accessible)
{
    if (!accessible) {
        return mprotect(slot->host, slot->size, PROT_NONE);
    }
    if (mprotect(slot->host, slot->size, PROT_READ | PROT_WRITE)) {
        return -1;
    }
    memcpy(slot->host, slot->shadow, slot->size);
    return 0;
}

int ram_set_present(struct ram *ram, unsigned index, bool present, void (*finish)(void *opaque),
                    void *opaque)
{
    struct ram_slot *slot = &ram->slots[index];
    struct viommu_memory_batch *batch;
    int error;

    if (present && protect(slot, true)) {
        return -errno;
    }
    error = viommu_memory_batch_begin(ram->memory, &batch);
    if (error) {
        return error;
    }
    if (present) {
        error = viommu_memory_batch_add(batch, &(struct viommu_memory_slot){
                                                   .first = slot->first,
                                                   .last = slot->first + slot->size - 1,
                                                   .host = slot->host,
                                                   .fd = -1,
                                                   .flags = slot->rom ? VIOMMU_MEMORY_READONLY : 0,
                                               });
    } else {
        error = viommu_memory_batch_remove(batch, slot->first, slot->first + slot->size - 1);
    }
    if (error) {
        viommu_memory_batch_abort(batch);
        return error;
    }
    error = viommu_memory_batch_commit(batch, NULL, NULL);
    for (unsigned tries = 0; error == VIOMMU_PENDING && tries < 1000; tries++) {
        finish(opaque);
        error = viommu_memory_process(ram->memory);
    }
    if (!error) {
        slot->present = present;
        if (!present && protect(slot, false)) {
            return -errno;
        }
    }
    return error;
}

int ram_init(struct ram *ram, struct viommu_memory *memory, uint64_t top)
{
    static const struct {
        uint64_t first;
        unsigned pages;
        bool rom;
    } layout[RAM_SLOTS] = {
        {0, 64, false},
        {0x1f8000, 16, false}, /* across a 2 MiB border */
        {0x40000000, 4, true},
        {0, 16, false}, /* at the top */
    };

    memset(ram, 0, sizeof(*ram));
    ram->memory = memory;
    for (unsigned i = 0; i < RAM_SLOTS; i++) {
        struct ram_slot *slot = &ram->slots[i];

        slot->size = layout[i].pages * RAM_PAGE;
        slot->first = i == RAM_SLOTS - 1 ? top - slot->size : layout[i].first;
        slot->rom = layout[i].rom;
        slot->shadow = calloc(1, slot->size);
        slot->host = mmap(NULL, slot->size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (!slot->shadow || slot->host == MAP_FAILED) {
            return -ENOMEM;
        }
    }
    return 0;
}

void ram_fini(struct ram *ram)
{
    for (unsigned i = 0; i < RAM_SLOTS; i++) {
        if (ram->slots[i].host && ram->slots[i].host != MAP_FAILED) {
            munmap(ram->slots[i].host, ram->slots[i].size);
        }
        free(ram->slots[i].shadow);
    }
}

static struct ram_slot *find_any(struct ram *ram, uint64_t gpa, uint64_t len)
{
    for (unsigned i = 0; i < RAM_SLOTS; i++) {
        struct ram_slot *slot = &ram->slots[i];

        if (gpa >= slot->first && gpa - slot->first < slot->size &&
            len <= slot->size - (gpa - slot->first)) {
            return slot;
        }
    }
    return NULL;
}

struct ram_slot *ram_find(struct ram *ram, uint64_t gpa, uint64_t len)
{
    struct ram_slot *slot = find_any(ram, gpa, len);

    return slot && slot->present ? slot : NULL;
}

bool ram_load64(struct ram *ram, uint64_t gpa, uint64_t *value)
{
    struct ram_slot *slot = ram_find(ram, gpa, 8);

    if (!slot) {
        return false;
    }
    memcpy(value, slot->host + (gpa - slot->first), 8);
    *value = le64toh(*value);
    return true;
}

void ram_store64(struct ram *ram, uint64_t gpa, uint64_t value)
{
    struct ram_slot *slot = find_any(ram, gpa, 8);

    if (!slot) {
        return;
    }
    value = htole64(value);
    memcpy(slot->shadow + (gpa - slot->first), &value, 8);
    if (slot->present) {
        memcpy(slot->host + (gpa - slot->first), &value, 8);
    }
}

void ram_accept(struct ram *ram, uint64_t gpa, uint64_t len)
{
    struct ram_slot *slot = ram_find(ram, gpa, len);

    if (slot) {
        memcpy(slot->shadow + (gpa - slot->first), slot->host + (gpa - slot->first), len);
    }
}

bool ram_check(struct ram *ram, uint64_t *where)
{
    for (unsigned i = 0; i < RAM_SLOTS; i++) {
        struct ram_slot *slot = &ram->slots[i];

        if (!slot->present || !memcmp(slot->host, slot->shadow, slot->size)) {
            continue;
        }
        for (uint64_t at = 0; at < slot->size; at++) {
            if (slot->host[at] != slot->shadow[at]) {
                *where = slot->first + at;
                return false;
            }
        }
    }
    return true;
}
