/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The entries of a CPU's soft TLB, and what is dropped of them; see private.h.
 *
 * Beside each entry stands a slot with its links: one for each IOMMU that it came through, in a
 * hash table by pair and page, so that a change of few pages finds what crossed them without
 * looking at other entries. A full flush of a part is a new generation: tags of older ones match
 * nothing. Their links stay until the slot is filled again, is swept, or is found in a bucket; they
 * do no harm but to keep a pair armed.
 */
#include "space/private.h"

#include "base/alloc.h"

#include <errno.h>
#include <string.h>

static uint64_t page_size(const struct viommu_cpu *cpu)
{
    return UINT64_C(1) << cpu->tlb.page_bits;
}

static unsigned part_of(const struct viommu_cpu *cpu, uint32_t slot)
{
    return slot / cpu->config.entries;
}

int tlb_init(struct viommu_cpu *cpu)
{
    unsigned entries = cpu->config.entries;

    cpu->slot_count = entries * cpu->config.indexes;
    cpu->entries = base_alloc_array(cpu->slot_count, sizeof(*cpu->entries));
    cpu->slots = base_alloc_array(cpu->slot_count, sizeof(*cpu->slots));
    cpu->links = base_alloc_array((size_t)cpu->slot_count * CACHED_HOPS_MAX, sizeof(*cpu->links));
    cpu->link_bucket_count = entries;
    while (cpu->link_bucket_count < cpu->slot_count) {
        cpu->link_bucket_count *= 2;
    }
    cpu->link_buckets = base_alloc_array(cpu->link_bucket_count, sizeof(uint32_t));
    if (!cpu->entries || !cpu->slots || !cpu->links || !cpu->link_buckets) {
        return -ENOMEM;
    }
    memset(cpu->link_buckets, 0xff, cpu->link_bucket_count * sizeof(uint32_t)); /* NO_LINK */
    cpu->tlb.page_bits = cpu->config.page_bits;
    cpu->tlb.page_mask = -page_size(cpu);
    for (unsigned i = 0; i < cpu->config.indexes; i++) {
        cpu->tlb.parts[i] = (struct viommu_tlb_part){
            .entries = &cpu->entries[(size_t)i * entries], .mask = entries - 1, .generation = 1};
    }
    return 0;
}

void tlb_fini(struct viommu_cpu *cpu)
{
    base_free(cpu->entries);
    base_free(cpu->slots);
    base_free(cpu->links);
    base_free(cpu->link_buckets);
}

/* ---- links ---- */

static uint32_t *bucket_of(const struct viommu_cpu *cpu, uint32_t pair, uint64_t page)
{
    uint64_t hash = (page + ((uint64_t)pair << 40)) * UINT64_C(0x9e3779b97f4a7c15);

    return &cpu->link_buckets[hash >> 32 & (cpu->link_bucket_count - 1)];
}

static uint32_t *link_bucket(const struct viommu_cpu *cpu, const struct link *link)
{
    return bucket_of(cpu, link->pair, link->first >> cpu->tlb.page_bits);
}

static void link_add(struct viommu_cpu *cpu, uint32_t number, uint32_t pair, uint64_t first)
{
    struct link *link = &cpu->links[number];
    uint32_t *bucket;

    *link = (struct link){.pair = pair, .prev = NO_LINK, .first = first};
    bucket = link_bucket(cpu, link);
    link->next = *bucket;
    if (link->next != NO_LINK) {
        cpu->links[link->next].prev = number;
    }
    *bucket = number;
    cpu->pairs[pair].links++;
}

static void link_remove(struct viommu_cpu *cpu, uint32_t number)
{
    const struct link *link = &cpu->links[number];

    if (link->prev != NO_LINK) {
        cpu->links[link->prev].next = link->next;
    } else {
        *link_bucket(cpu, link) = link->next;
    }
    if (link->next != NO_LINK) {
        cpu->links[link->next].prev = link->prev;
    }
    cpu->pairs[link->pair].links--;
}

/* ---- dropping ---- */

static bool slot_current(const struct viommu_cpu *cpu, uint32_t number)
{
    return cpu->slots[number].generation == cpu->tlb.parts[part_of(cpu, number)].generation;
}

/* The entry is none any more, and tied to nothing. */
static void slot_drop(struct viommu_cpu *cpu, uint32_t number)
{
    struct slot *slot = &cpu->slots[number];

    for (uint32_t i = 0; i < slot->links; i++) {
        link_remove(cpu, number * CACHED_HOPS_MAX + i);
    }
    slot->links = 0;
    slot->generation = 0;
    memset(cpu->entries[number].tag, 0, sizeof(cpu->entries[number].tag));
}

void tlb_sweep(struct viommu_cpu *cpu)
{
    for (uint32_t i = 0; i < cpu->slot_count; i++) {
        if (cpu->slots[i].links && !slot_current(cpu, i)) {
            slot_drop(cpu, i);
        }
    }
}

void tlb_flush(struct viommu_cpu *cpu, unsigned index)
{
    struct viommu_tlb_part *part = &cpu->tlb.parts[index];

    cpu_count(cpu, STAT_FULL, 1);
    if (++part->generation < page_size(cpu)) {
        return;
    }
    /* Generations begin anew: nothing may be left of the last ones. */
    for (uint32_t i = 0; i < cpu->config.entries; i++) {
        slot_drop(cpu, index * cpu->config.entries + i);
    }
    part->generation = 1;
}

void tlb_flush_page(struct viommu_cpu *cpu, unsigned index, uint64_t address)
{
    const struct viommu_tlb_part *part = &cpu->tlb.parts[index];
    uint64_t place = (address >> cpu->tlb.page_bits) & part->mask;

    slot_drop(cpu, (uint32_t)(index * cpu->config.entries + place));
}

static bool link_meets(const struct viommu_cpu *cpu, const struct link *link, uint32_t pair,
                       uint64_t first, uint64_t last)
{
    return link->pair == pair && link->first <= last &&
           link->first + (page_size(cpu) - 1) >= first;
}

static void drop_told(struct viommu_cpu *cpu, uint32_t slot)
{
    cpu_count(cpu, STAT_DROPPED, slot_current(cpu, slot));
    slot_drop(cpu, slot);
}

static void flush_bucket(struct viommu_cpu *cpu, uint32_t pair, uint64_t page, uint64_t first,
                         uint64_t last)
{
    uint32_t number = *bucket_of(cpu, pair, page);

    while (number != NO_LINK) {
        if (link_meets(cpu, &cpu->links[number], pair, first, last)) {
            /* Others of its links may have been in this bucket. */
            drop_told(cpu, number / CACHED_HOPS_MAX);
            number = *bucket_of(cpu, pair, page);
        } else {
            number = cpu->links[number].next;
        }
    }
}

static void flush_slots(struct viommu_cpu *cpu, uint32_t pair, uint64_t first, uint64_t last)
{
    for (uint32_t i = 0; i < cpu->slot_count; i++) {
        for (uint32_t j = 0; j < cpu->slots[i].links; j++) {
            if (link_meets(cpu, &cpu->links[i * CACHED_HOPS_MAX + j], pair, first, last)) {
                drop_told(cpu, i);
            }
        }
    }
}

void tlb_flush_range(struct viommu_cpu *cpu, uint32_t pair, uint64_t first, uint64_t last)
{
    uint64_t reach = page_size(cpu) - 1;
    uint64_t from = (first > reach ? first - reach : 0) >> cpu->tlb.page_bits;
    uint64_t to = last >> cpu->tlb.page_bits;

    cpu_count(cpu, STAT_RANGED, 1);
    if (to - from >= cpu->slot_count / 4) {
        flush_slots(cpu, pair, first, last);
        return;
    }
    for (uint64_t page = from; page <= to; page++) {
        flush_bucket(cpu, pair, page, first, last);
    }
}

/* ---- filling ---- */

static uint64_t tag_for(uint64_t tag, uint32_t perm, uint32_t needed)
{
    return perm & needed ? tag : 0;
}

void tlb_insert(struct viommu_cpu *cpu, unsigned index, uint64_t address, const struct route *route,
                uint32_t perm)
{
    const struct viommu_tlb_part *part = &cpu->tlb.parts[index];
    uint64_t place = (address >> cpu->tlb.page_bits) & part->mask;
    uint32_t number = (uint32_t)(index * cpu->config.entries + place);
    uint64_t page = address & cpu->tlb.page_mask;
    uint64_t inside = address - page;
    uint64_t tag = page | part->generation;
    struct viommu_tlb_entry *entry = &cpu->entries[number];
    struct slot *slot = &cpu->slots[number];

    slot_drop(cpu, number);
    for (unsigned i = 0; i < route->hop_count; i++) {
        link_add(cpu, number * CACHED_HOPS_MAX + i, route->hops[i].pair,
                 route->hops[i].address - inside);
    }
    slot->links = route->hop_count;
    slot->generation = part->generation;
    entry->addend = (uintptr_t)route->region->host + (uintptr_t)route->offset - (uintptr_t)address;
    entry->tag[VIOMMU_CPU_READ] = tag_for(tag, perm, VIOMMU_READ);
    entry->tag[VIOMMU_CPU_WRITE] = tag_for(tag, perm, VIOMMU_WRITE);
    entry->tag[VIOMMU_CPU_FETCH] = tag_for(tag, perm, VIOMMU_EXEC);
    cpu_count(cpu, STAT_FILLS, 1);
}
