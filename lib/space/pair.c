/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pairs: of which IOMMU regions, and attribute indexes, a CPU wants to be told; see private.h.
 *
 * A hash table of a fixed size, so a fill needs no memory and finds its pair in one step. A pair
 * stays armed when its last entry goes: it rests when it was told something in vain, or when its
 * place is needed. So what opens and closes one page again and again arms once.
 */
#include "space/private.h"

#include "base/alloc.h"

#include <errno.h>

static uint32_t *bucket_of(const struct viommu_cpu *cpu, uint64_t id, uint32_t index)
{
    uint64_t hash = (id * INDEXES_MAX + index) * UINT64_C(0x9e3779b97f4a7c15);

    return &cpu->pair_buckets[hash >> 32 & (cpu->pair_bucket_count - 1)];
}

int pairs_init(struct viommu_cpu *cpu)
{
    uint32_t count = cpu->config.notifiers;

    cpu->pair_bucket_count = 1;
    while (cpu->pair_bucket_count < count) {
        cpu->pair_bucket_count *= 2;
    }
    cpu->pairs = base_alloc_array(count, sizeof(*cpu->pairs));
    cpu->pair_buckets = base_alloc_array(cpu->pair_bucket_count, sizeof(uint32_t));
    if (!cpu->pairs || !cpu->pair_buckets) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < cpu->pair_bucket_count; i++) {
        cpu->pair_buckets[i] = NO_PAIR;
    }
    for (uint32_t i = 0; i < count; i++) {
        cpu->pairs[i].cpu = cpu;
        cpu->pairs[i].next = i + 1 < count ? i + 1 : NO_PAIR;
    }
    return 0;
}

/* Under `told`. */
static void disarm(struct pair *pair)
{
    if (!pair->region) {
        return;
    }
    if (pair->armed_prev) {
        pair->armed_prev->armed_next = pair->armed_next;
    } else {
        pair->region->armed[pair->index] = pair->armed_next;
    }
    if (pair->armed_next) {
        pair->armed_next->armed_prev = pair->armed_prev;
    }
    pair->region = NULL;
    pair->armed_next = NULL;
    pair->armed_prev = NULL;
    pair->cpu->armed--;
}

/* Under `told`. */
static void arm(struct pair *pair, struct viommu_region *region)
{
    pair->region = region;
    pair->armed_prev = NULL;
    pair->armed_next = region->armed[pair->index];
    if (pair->armed_next) {
        pair->armed_next->armed_prev = pair;
    }
    region->armed[pair->index] = pair;
    pair->cpu->armed++;
}

void pairs_fini(struct viommu_cpu *cpu)
{
    if (cpu->pairs) {
        pthread_mutex_lock(&cpu->bus->told);
        for (uint32_t i = 0; i < cpu->config.notifiers; i++) {
            disarm(&cpu->pairs[i]);
        }
        pthread_mutex_unlock(&cpu->bus->told);
    }
    base_free(cpu->pairs);
    base_free(cpu->pair_buckets);
}

void pairs_forget(struct viommu_region *region)
{
    for (uint32_t i = 0; i < region->iommu->index_count; i++) {
        while (region->armed[i]) {
            disarm(region->armed[i]);
        }
    }
}

void pair_rest(struct viommu_cpu *cpu, uint32_t number)
{
    struct pair *pair = &cpu->pairs[number];
    uint32_t *place;

    if (!pair->id || pair->links) {
        return;
    }
    pthread_mutex_lock(&cpu->bus->told);
    disarm(pair);
    pthread_mutex_unlock(&cpu->bus->told);
    place = bucket_of(cpu, pair->id, pair->index);
    while (*place != number) {
        place = &cpu->pairs[*place].next;
    }
    *place = pair->next;
    pair->id = 0;
    pair->next = cpu->pair_free;
    cpu->pair_free = number;
}

/* Lets all pairs rest that no valid entry came through. */
static void make_room(struct viommu_cpu *cpu)
{
    tlb_sweep(cpu);
    for (uint32_t i = 0; i < cpu->config.notifiers; i++) {
        pair_rest(cpu, i);
    }
}

uint32_t pair_arm(struct viommu_cpu *cpu, struct viommu_region *region, uint32_t index)
{
    uint32_t *bucket = bucket_of(cpu, region->id, index);
    uint32_t number = *bucket;
    struct pair *pair;

    while (number != NO_PAIR) {
        pair = &cpu->pairs[number];
        if (pair->id == region->id && pair->index == index) {
            pair->links++;
            return number;
        }
        number = pair->next;
    }
    if (cpu->pair_free == NO_PAIR) {
        make_room(cpu);
    }
    number = cpu->pair_free;
    if (number == NO_PAIR) {
        return NO_PAIR;
    }
    pair = &cpu->pairs[number];
    cpu->pair_free = pair->next;
    pair->id = region->id;
    pair->index = index;
    pair->links = 1;
    pair->next = *bucket;
    *bucket = number;
    pthread_mutex_lock(&cpu->bus->told);
    arm(pair, region);
    pthread_mutex_unlock(&cpu->bus->told);
    return number;
}
