/* SPDX-License-Identifier: BSD-2-Clause */
/* The mappings of a mirror, and the judgement of what it is told; see held.h. */
#include "held.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE = 4096 };

static const struct viommu_range interrupt_range = {0xfee00000, 0xfeefffff};

void held_drop(struct held *held)
{
    free(held->mappings);
    *held = (struct held){0};
}

struct held_mapping *held_at(const struct held *held, size_t index)
{
    return &held->mappings[index < held->gap ? index : index + (held->room - held->count)];
}

size_t held_from(const struct held *held, uint64_t address)
{
    size_t low = 0;
    size_t high = held->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (held_at(held, middle)->last < address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

const struct held_mapping *held_find(const struct held *held, uint64_t address)
{
    size_t index = held_from(held, address);

    return index < held->count && held_at(held, index)->first <= address ? held_at(held, index)
                                                                         : NULL;
}

static bool meets(const struct held *held, uint64_t first, uint64_t last)
{
    size_t index = held_from(held, first);

    return index < held->count && held_at(held, index)->first <= last;
}

static bool inside(const struct viommu_range *range, uint64_t first, uint64_t last)
{
    return first >= range->first && last <= range->last;
}

static bool in_terms_range(const struct viommu_subscription *terms,
                           const struct viommu_change *change)
{
    return (!terms->range.first && !terms->range.last) ||
           inside(&terms->range, change->first, change->last);
}

static bool in_allowed(const struct viommu_subscription *terms, const struct viommu_change *change)
{
    for (size_t i = 0; i < terms->allowed_count; i++) {
        if (inside(&terms->allowed[i], change->first, change->last)) {
            return true;
        }
    }
    return !terms->allowed;
}

/* A naturally aligned block of a power of two, in its target (0 for none), too. */
static bool is_block(uint64_t first, uint64_t last, uint64_t gpa)
{
    uint64_t mask = last - first; /* its size, less one */

    return !(mask & (mask + 1)) && !(first & mask) && !(gpa & mask);
}

static const char *judge_map(const struct held *held, const struct viommu_subscription *terms,
                             const struct viommu_change *change)
{
    if (meets(held, change->first, change->last)) {
        return "a map over something that is mapped";
    }
    if (!change->perm || change->perm & ~(uint32_t)(VIOMMU_READ | VIOMMU_WRITE)) {
        return "a map without permissions, or with unknown ones";
    }
    if (!in_allowed(terms, change)) {
        return "a map outside what is allowed";
    }
    if (change->first <= interrupt_range.last && change->last >= interrupt_range.first) {
        return "a map in the interrupt range";
    }
    if (terms->form == VIOMMU_FORM_POW2 &&
        !is_block(change->first, change->last, change->gpa)) {
        return "a map that is no naturally aligned block of a power of two";
    }
    if (terms->mappings_max && held->count >= terms->mappings_max) {
        return "more mappings than can exist";
    }
    return NULL;
}

static const char *judge_unmap(const struct held *held, const struct viommu_subscription *terms,
                               const struct viommu_change *change)
{
    size_t index = held_from(held, change->first);
    const struct held_mapping *begin;
    const struct held_mapping *end;
    size_t count = 1;

    if (!meets(held, change->first, change->last)) {
        return "an unmap of what is not mapped";
    }
    begin = held_at(held, index);
    if (begin->first < change->first || begin->last > change->last) {
        return "an unmap that cuts a mapping";
    }
    if (begin->first > change->first) {
        return "an unmap that begins where nothing is mapped";
    }
    for (end = begin; end->last < change->last; count++) {
        const struct held_mapping *next = index + count < held->count
                                              ? held_at(held, index + count)
                                              : NULL;

        if (!next || next->first != end->last + 1) {
            return "an unmap that covers what is not mapped";
        }
        if (next->last > change->last) {
            return "an unmap that cuts a mapping";
        }
        end = next;
    }
    if (count > 1 && !(terms->unmap_spans && terms->form == VIOMMU_FORM_RANGE)) {
        return "an unmap of several mappings at once";
    }
    return count == 1 && begin->gpa != change->gpa ? "an unmap that names another target" : NULL;
}

static const char *judge_replace(const struct held *held, const struct viommu_subscription *terms,
                                 const struct viommu_change *change)
{
    const struct held_mapping *mapping = held_find(held, change->first);

    if (!(terms->kinds & VIOMMU_CHANGE_REPLACE)) {
        return "a replace, which was not asked for";
    }
    if (!mapping || mapping->first != change->first || mapping->last != change->last) {
        return "a replace of what is not exactly one mapping";
    }
    return mapping->gpa == change->gpa && mapping->perm == change->perm
               ? "a replace that changes nothing"
               : NULL;
}

static const char *judge_skipped(const struct held *held, const struct viommu_change *change)
{
    const struct held_mapping *mapping = held_find(held, change->first);

    if (!change->perm) {
        return meets(held, change->first, change->last) ? "something mapped was skipped as absent"
                                                        : NULL;
    }
    /* What could not be mapped is not held, and yet is as it was. */
    return mapping && (mapping->perm != change->perm ||
                       mapping->gpa + (change->first - mapping->first) != change->gpa)
               ? "something was skipped that is mapped differently"
               : NULL;
}

const char *held_judge(const struct held *held, const struct viommu_subscription *terms,
                       const struct viommu_change *change)
{
    if (change->first > change->last || change->first % PAGE || (change->last + 1) % PAGE ||
        change->gpa % PAGE) {
        return "a change that is no range of whole pages";
    }
    if (!in_terms_range(terms, change)) {
        return "a change outside the range";
    }
    switch (change->kind) {
    case VIOMMU_CHANGE_MAP:
        return judge_map(held, terms, change);
    case VIOMMU_CHANGE_UNMAP:
        return judge_unmap(held, terms, change);
    case VIOMMU_CHANGE_REPLACE:
        return judge_replace(held, terms, change);
    case VIOMMU_CHANGE_SKIPPED:
        return terms->kinds & VIOMMU_CHANGE_SKIPPED ? judge_skipped(held, change)
                                                    : "a skip, which was not asked for";
    case VIOMMU_CHANGE_DEVICE_TLB:
        return terms->kinds & VIOMMU_CHANGE_DEVICE_TLB ? NULL
                                                       : "a device-TLB change, not asked for";
    }
    return "a change of unknown kind";
}

/* Moves the gap to an index. */
static void move_gap(struct held *held, size_t index)
{
    size_t width = held->room - held->count;
    struct held_mapping *all = held->mappings;

    if (index < held->gap) {
        memmove(&all[index + width], &all[index], (held->gap - index) * sizeof(*all));
    } else if (index > held->gap) {
        memmove(&all[held->gap], &all[held->gap + width], (index - held->gap) * sizeof(*all));
    }
    held->gap = index;
}

/* Memory that cannot be had ends the program. */
static void make_room(struct held *held)
{
    if (held->count < held->room) {
        return;
    }
    move_gap(held, held->count);
    held->room = held->room ? 2 * held->room : 16;
    held->mappings = reallocarray(held->mappings, held->room, sizeof(*held->mappings));
    if (!held->mappings) {
        fputs("viommu run: out of memory\n", stderr);
        exit(EXIT_FAILURE);
    }
}

static void insert(struct held *held, const struct viommu_change *change)
{
    size_t index = held_from(held, change->first);

    make_room(held);
    move_gap(held, index);
    held->mappings[held->gap++] = (struct held_mapping){change->first, change->last, change->gpa,
                                                        change->host, change->perm};
    held->count++;
}

static void take_away(struct held *held, const struct viommu_change *change)
{
    size_t begin = held_from(held, change->first);
    size_t end = begin;

    while (end < held->count && held_at(held, end)->last <= change->last) {
        end++;
    }
    move_gap(held, end);
    held->gap = begin;
    held->count -= end - begin;
}

void held_apply(struct held *held, const struct viommu_change *change)
{
    struct held_mapping *mapping;

    switch (change->kind) {
    case VIOMMU_CHANGE_MAP:
        insert(held, change);
        break;
    case VIOMMU_CHANGE_UNMAP:
        take_away(held, change);
        break;
    case VIOMMU_CHANGE_REPLACE:
        mapping = held_at(held, held_from(held, change->first));
        mapping->gpa = change->gpa;
        mapping->host = change->host;
        mapping->perm = change->perm;
        break;
    default:
        break;
    }
}
