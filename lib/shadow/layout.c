/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Layouts: the mappings that follow from a view, and what a mirror was given of them.
 *
 * Nothing of this is stored: pieces are derived from extents, slots and allowed ranges whenever
 * they are asked for, so that what a mirror holds costs no memory of its own. Every piece is
 * returned whole, whatever address was asked for: its borders do not depend on the question.
 */
#include "iommu/iommu.h"

struct layout mirror_layout(const struct viommu *iommu, const struct mirror *mirror)
{
    return (struct layout){
        .kind = mirror->kind,
        .shadow = mirror->shadow,
        .memory = iommu->follow.memory,
        .last = mirror->identity_last,
        .mappings = mirror->source,
    };
}

struct layout view_layout(const struct viommu *iommu, const struct shadow_view *view)
{
    return (struct layout){
        .kind = view->kind,
        .memory = iommu->follow.memory,
        .last = view->last,
        .mappings = view->mappings,
    };
}

const struct viommu_memory_slot *memory_list_from(const struct memory_list *memory, uint64_t gpa)
{
    size_t low = 0;
    size_t high = memory->count;

    while (low < high) {
        size_t mid = (low + high) / 2;

        if (gpa > memory->slots[mid].last) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low < memory->count ? &memory->slots[low] : NULL;
}

const struct viommu_range *mirror_allowed_from(const struct mirror *mirror, uint64_t address)
{
    size_t low = 0;
    size_t high = mirror->allowed_count;

    while (low < high) {
        size_t mid = (low + high) / 2;

        if (address > mirror->allowed[mid].last) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low < mirror->allowed_count ? &mirror->allowed[low] : NULL;
}

static bool identity_extent(const struct layout *layout, uint64_t from, uint64_t last,
                            struct shadow_extent *extent)
{
    const struct viommu_memory_slot *slot = memory_list_from(layout->memory, from);

    if (!slot || slot->first > last || slot->first > layout->last || from > layout->last) {
        return false;
    }
    *extent = (struct shadow_extent){
        .first = slot->first,
        .last = slot->last < layout->last ? slot->last : layout->last,
        .gpa = slot->first,
        .perm = VIOMMU_READ | VIOMMU_WRITE,
    };
    return true;
}

/* A run is one extent, whatever its size. */
static bool mapping_extent(const struct layout *layout, uint64_t from, uint64_t last,
                           struct shadow_extent *extent)
{
    struct range_run run;

    last = last < layout->last ? last : layout->last;
    if (from > last || !mappings_next(layout->mappings, layout->ahead, from, last, &run)) {
        return false;
    }
    *extent = (struct shadow_extent){
        .first = run.first,
        .last = run.last < layout->last ? run.last : layout->last,
        .gpa = run.target,
        .perm = (uint32_t)(run.tag & MAPPINGS_PERM),
    };
    return true;
}

static bool layout_extent(const struct layout *layout, uint64_t from, uint64_t last,
                          struct shadow_extent *extent)
{
    switch (layout->kind) {
    case VIEW_IDENTITY:
        return identity_extent(layout, from, last, extent);
    case VIEW_TABLES:
        return shadow_map_next(&layout->shadow->map, layout->patch, from, last, extent);
    case VIEW_MAPPINGS:
        return mapping_extent(layout, from, last, extent);
    default:
        return false;
    }
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* The first piece of an extent that ends at `from` or above, and begins at `last` or below. */
static bool extent_piece(const struct mirror *mirror, const struct memory_list *memory,
                         const struct shadow_extent *extent, uint64_t from, uint64_t last,
                         struct shadow_extent *piece)
{
    const struct viommu_range *allowed;
    const struct viommu_memory_slot *slot;
    uint64_t end = smaller(extent->last, last);
    uint64_t at = larger(extent->first, from);
    uint64_t gpa;

    while (at <= end) {
        allowed = mirror_allowed_from(mirror, at);
        if (!allowed || allowed->first > end) {
            return false;
        }
        at = larger(at, allowed->first);
        gpa = extent->gpa + (at - extent->first);
        slot = memory_list_from(memory, gpa);
        if (!slot || (slot->first > gpa && slot->first - gpa > end - at)) {
            return false;
        }
        if (slot->first > gpa) {
            at += slot->first - gpa; /* perhaps not allowed: look again */
            continue;
        }
        piece->perm = extent->perm;
        if (slot->flags & VIOMMU_MEMORY_READONLY) {
            piece->perm &= ~(uint32_t)VIOMMU_WRITE;
        }
        piece->first = larger(extent->first, allowed->first);
        if (slot->first > extent->gpa) {
            piece->first = larger(piece->first, extent->first + (slot->first - extent->gpa));
        }
        piece->gpa = extent->gpa + (piece->first - extent->first);
        piece->last = smaller(extent->last, allowed->last);
        if (slot->last - gpa < piece->last - at) {
            piece->last = at + (slot->last - gpa);
        }
        if (piece->perm) {
            return true;
        }
        if (piece->last >= end) {
            return false;
        }
        at = piece->last + 1;
    }
    return false;
}

enum answer layout_look(const struct mirror *mirror, const struct layout *layout, uint64_t from,
                        uint64_t last, struct shadow_extent *piece, uint64_t *later)
{
    struct shadow_extent extent;

    for (unsigned i = 0; i < LAYOUT_LOOKS; i++) {
        if (!layout_extent(layout, from, last, &extent)) {
            return ANSWER_NO;
        }
        if (extent_piece(mirror, layout->memory, &extent, from, last, piece)) {
            return ANSWER_YES;
        }
        if (extent.last >= last) {
            return ANSWER_NO;
        }
        from = extent.last + 1;
    }
    *later = from;
    return ANSWER_LATER;
}

bool layout_piece(const struct mirror *mirror, const struct layout *layout, uint64_t from,
                  uint64_t last, struct shadow_extent *piece)
{
    enum answer answer;

    do {
        answer = layout_look(mirror, layout, from, last, piece, &from);
    } while (answer == ANSWER_LATER);
    return answer == ANSWER_YES;
}

static void cut_front(struct shadow_extent *extent, uint64_t first)
{
    extent->gpa += first - extent->first;
    extent->first = first;
}

static void from_run(const struct range_run *run, struct shadow_extent *extent)
{
    *extent = (struct shadow_extent){run->first, run->last, run->target, (uint32_t)run->tag};
}

enum answer layout_look_given(const struct mirror *mirror, const struct layout *layout,
                              uint64_t from, uint64_t last, struct shadow_extent *piece,
                              uint64_t *later)
{
    struct range_run before;
    struct range_run run;
    enum answer answer;
    bool found;
    bool odd;

    if (!mirror->odd.count) {
        return layout_look(mirror, layout, from, last, piece, later);
    }
    found = range_map_from(&mirror->odd, from, &run);
    odd = found && run.first <= last;
    if (odd && run.first <= from) {
        from_run(&run, piece);
        return ANSWER_YES;
    }
    answer = layout_look(mirror, layout, from, odd ? run.first - 1 : last, piece, later);
    if (answer == ANSWER_NO && odd) {
        from_run(&run, piece);
        return ANSWER_YES;
    }
    if (answer != ANSWER_YES) {
        return answer;
    }
    if (found && piece->last >= run.first) {
        piece->last = run.first - 1; /* the odd one may begin behind what was asked for */
    }
    if (piece->first < from && range_map_before(&mirror->odd, from, &before) &&
        before.last >= piece->first) {
        cut_front(piece, before.last + 1);
    }
    return ANSWER_YES;
}

bool layout_given(const struct mirror *mirror, const struct layout *layout, uint64_t from,
                  uint64_t last, struct shadow_extent *piece)
{
    enum answer answer;

    do {
        answer = layout_look_given(mirror, layout, from, last, piece, &from);
    } while (answer == ANSWER_LATER);
    return answer == ANSWER_YES;
}

/* The part of a piece from an address on that a mapping has, too: equal target and permission. */
static bool same_there(const struct shadow_extent *piece, const struct shadow_extent *mapping,
                       uint64_t at)
{
    return piece->perm == mapping->perm &&
           piece->gpa + (at - piece->first) == mapping->gpa + (at - mapping->first);
}

enum answer layout_agrees(const struct mirror *mirror, const struct layout *layout,
                          const struct shadow_extent *mapping, uint64_t *at)
{
    struct shadow_extent piece;

    for (unsigned i = 0; i < LAYOUT_LOOKS; i++) {
        if (!layout_piece(mirror, layout, *at, *at, &piece) ||
            !same_there(&piece, mapping, *at)) {
            return ANSWER_NO;
        }
        if (piece.last >= mapping->last) {
            return ANSWER_YES;
        }
        *at = piece.last + 1;
    }
    return ANSWER_LATER;
}

uint64_t layout_common(const struct shadow_extent *a, const struct shadow_extent *b)
{
    uint64_t first = larger(a->first, b->first);
    uint64_t last = smaller(a->last, b->last);

    return first <= last && same_there(a, b, first) ? last - first + 1 : 0;
}
