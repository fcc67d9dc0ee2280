/* SPDX-License-Identifier: BSD-2-Clause */
/* Slots of guest memory, and the regions that a back-end is given; table.h describes them. */
#include "vhost/table.h"

#include "base/alloc.h"
#include "common/foreign.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Keys of regions begin here, with room between them: none continues another. */
#define KEY_FIRST (UINT64_C(1) << 44)
#define KEY_GAP   (UINT64_C(1) << 30)

void vhost_table_fini(struct vhost_table *table)
{
    base_free(table->slots);
    *table = (struct vhost_table){.of_kernel = table->of_kernel};
}

static uint64_t size_of(const struct vhost_slot *slot)
{
    return slot->slot.last - slot->slot.first + 1;
}

/* No file reaches further than a signed 64-bit offset. */
static bool offsets_valid(const struct vhost_slot *slot)
{
    return slot->slot.fd_offset <= INT64_MAX && size_of(slot) <= INT64_MAX - slot->slot.fd_offset;
}

static void identify(struct vhost_slot *slot)
{
    struct foreign_identity identity;

    if (slot->slot.fd >= 0 && offsets_valid(slot) && !foreign_identify(slot->slot.fd, &identity)) {
        slot->has_file = true;
        slot->device = identity.device;
        slot->inode = identity.inode;
    }
}

/* The first slot that ends at the address or above. */
static size_t slot_from(const struct vhost_table *table, uint64_t gpa)
{
    size_t low = 0;
    size_t high = table->count;

    while (low < high) {
        size_t mid = (low + high) / 2;

        if (gpa > table->slots[mid].slot.last) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

int vhost_table_add(struct vhost_table *table, const struct viommu_memory_slot *slots, size_t count)
{
    if (table->room - table->count < count) {
        size_t room =
            2 * table->room > table->count + count ? 2 * table->room : table->count + count;
        struct vhost_slot *larger = base_realloc_array(table->slots, room, sizeof(*larger));

        if (!larger) {
            return -ENOMEM;
        }
        table->slots = larger;
        table->room = room;
    }
    for (size_t i = 0; i < count; i++) {
        size_t at = slot_from(table, slots[i].first);
        struct vhost_slot *slot = &table->slots[at];

        memmove(slot + 1, slot, (table->count - at) * sizeof(*slot));
        *slot = (struct vhost_slot){.slot = slots[i]};
        table->count++;
        if (table->of_kernel) {
            slot->key = (uintptr_t)slot->slot.host;
            slot->placed = true;
        } else {
            identify(slot);
        }
    }
    return 0;
}

bool vhost_table_remove(struct vhost_table *table, const struct viommu_memory_slot *slots,
                        size_t count)
{
    bool placed = false;

    for (size_t i = 0; i < count; i++) {
        size_t at = slot_from(table, slots[i].first);

        if (at < table->count && table->slots[at].slot.first == slots[i].first) {
            struct vhost_slot *slot = &table->slots[at];

            placed |= slot->placed;
            table->count--;
            memmove(slot, slot + 1, (table->count - at) * sizeof(*slot));
        }
    }
    return placed;
}

void vhost_table_unplace(struct vhost_table *table)
{
    for (size_t i = 0; i < table->count; i++) {
        table->slots[i].placed = false;
    }
}

bool vhost_table_grown(const struct vhost_table *table)
{
    for (size_t i = 0; i < table->count; i++) {
        if (table->slots[i].has_file && !table->slots[i].placed) {
            return true;
        }
    }
    return false;
}

/* ---- regions ---- */

static int compare(const void *a, const void *b)
{
    const struct vhost_slot *one = *(struct vhost_slot *const *)a;
    const struct vhost_slot *other = *(struct vhost_slot *const *)b;

    if (one->device != other->device) {
        return one->device < other->device ? -1 : 1;
    }
    if (one->inode != other->inode) {
        return one->inode < other->inode ? -1 : 1;
    }
    if (one->slot.fd_offset != other->slot.fd_offset) {
        return one->slot.fd_offset < other->slot.fd_offset ? -1 : 1;
    }
    return one->slot.first < other->slot.first ? -1 : 1;
}

/* Whether `next`, which comes after it in order, belongs into the region of `last`. */
static bool joins(const struct vhost_slot *last, const struct vhost_slot *next, bool by_file)
{
    if (last->device != next->device || last->inode != next->inode) {
        return false;
    }
    return by_file || (next->slot.fd_offset - last->slot.fd_offset == size_of(last) &&
                       next->slot.first - last->slot.first == size_of(last));
}

/* Puts the slots into regions, in order. Returns how many those are, some of which may not fit. */
static unsigned lay_out(struct vhost_table *table, struct vhost_slot **sorted, size_t count,
                        bool by_file)
{
    unsigned regions = 0;

    for (size_t i = 0; i < count; i++) {
        struct vhost_slot *slot = sorted[i];
        struct vhost_user_region *region = NULL;
        uint64_t end;

        if (i && joins(sorted[i - 1], slot, by_file)) {
            slot->region = regions - 1;
        } else {
            slot->region = regions++;
        }
        if (slot->region >= VHOST_USER_REGIONS_MAX) {
            continue;
        }
        region = &table->regions[slot->region];
        if (!i || sorted[i - 1]->region != slot->region) {
            *region =
                (struct vhost_user_region){.gpa = slot->slot.first, .offset = slot->slot.fd_offset};
            table->fds[slot->region] = slot->slot.fd;
        }
        end = slot->slot.fd_offset - region->offset + size_of(slot);
        region->size = region->size > end ? region->size : end;
    }
    return regions;
}

/* Gives the regions their keys. Returns false where they do not fit into 64 bits. */
static bool give_keys(struct vhost_table *table)
{
    uint64_t key = KEY_FIRST;

    for (unsigned i = 0; i < table->region_count; i++) {
        struct vhost_user_region *region = &table->regions[i];

        if (key > UINT64_MAX - 2 * KEY_GAP || region->size > UINT64_MAX - 2 * KEY_GAP - key) {
            return false;
        }
        region->uaddr = key;
        key = ((key + region->size) | (KEY_GAP - 1)) + 1 + KEY_GAP;
    }
    return true;
}

/* The slots that have a file, in the order of their files. Returns NULL without memory. */
static struct vhost_slot **sort(struct vhost_table *table, size_t *count)
{
    struct vhost_slot **sorted = base_alloc_array(table->count + 1, sizeof(struct vhost_slot *));

    *count = 0;
    vhost_table_unplace(table);
    for (size_t i = 0; sorted && i < table->count; i++) {
        if (table->slots[i].has_file) {
            sorted[(*count)++] = &table->slots[i];
        }
    }
    if (sorted) {
        qsort(sorted, *count, sizeof(*sorted), compare);
    }
    return sorted;
}

int vhost_table_build(struct vhost_table *table)
{
    size_t count;
    struct vhost_slot **sorted = sort(table, &count);
    unsigned regions;
    int ret = 0;

    if (!sorted) {
        return -ENOMEM;
    }
    regions = lay_out(table, sorted, count, false);
    if (regions > VHOST_USER_REGIONS_MAX) {
        regions = lay_out(table, sorted, count, true);
    }
    table->region_count = regions;
    if (regions > VHOST_USER_REGIONS_MAX || !give_keys(table)) {
        table->region_count = 0;
        ret = -ENOSPC;
    }
    for (size_t i = 0; !ret && i < count; i++) {
        const struct vhost_user_region *region = &table->regions[sorted[i]->region];

        sorted[i]->placed = true;
        sorted[i]->key = region->uaddr + (sorted[i]->slot.fd_offset - region->offset);
    }
    base_free(sorted);
    return ret;
}

bool vhost_table_find(const struct vhost_table *table, uint64_t gpa, struct vhost_place *place)
{
    size_t at = slot_from(table, gpa);
    const struct vhost_slot *slot;

    if (at == table->count) {
        return false;
    }
    slot = &table->slots[at];
    if (gpa < slot->slot.first || !slot->placed) {
        return false;
    }
    *place = (struct vhost_place){
        .first = slot->slot.first,
        .last = slot->slot.last,
        .key = slot->key + (gpa - slot->slot.first),
        .region = table->of_kernel ? (unsigned)at : slot->region,
        .readonly = slot->slot.flags & VIOMMU_MEMORY_READONLY,
    };
    return true;
}
