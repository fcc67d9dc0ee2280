/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What mirrors hold, written into a saved state, and taken over from there.
 *
 * A mirror's part of a stream: form and range of its subscription (the borders of what it holds
 * depend on them), whether it is fenced; then every mapping that it was given, in order, with its
 * exact borders; then its differences, each a block of one of those.
 *
 * What is read is checked whole before a mirror has it: mappings in order and in its range, none
 * with a target that wraps, differences that are blocks of mappings. Where they lead is not checked
 * here: what guest memory and the guest's tables do not say goes on the first walk.
 */
#include "shadow/sync.h"

#include <errno.h>

/* A mapping in a stream: first, last, gpa (8 bytes each), permissions (1). */
#define MAPPING_BYTES 25u
/*
 * No view makes mappings of more blocks: they end with 1 GiB, lead to their own address, or to
 * memory that there is.
 */
#define BLOCKS_MAX (1u << 20)

bool follow_quiet(const struct viommu *iommu)
{
    bool fencing = false;

    for (const struct mirror *mirror = iommu->follow.mirrors; mirror; mirror = mirror->next) {
        fencing |= mirror->fencing;
    }
    return iommu->follow.phase == FOLLOW_IDLE && !iommu->follow.active && !follow_trying(iommu) &&
           !iommu->follow.fences_due && !fencing;
}

bool follow_waits(const struct viommu *iommu)
{
    for (const struct mirror *mirror = iommu->follow.mirrors; mirror; mirror = mirror->next) {
        if (mirror->waits) {
            return true;
        }
    }
    return false;
}

/* ---- written -------------------------------------------------------------------------------- */

static void mapping_put(struct save_writer *writer, const struct shadow_extent *mapping)
{
    save_put64(writer, mapping->first);
    save_put64(writer, mapping->last);
    save_put64(writer, mapping->gpa);
    save_put8(writer, (uint8_t)mapping->perm);
}

/* Everything it was given, by count; with a writer, it is put there. */
static uint64_t given_each(const struct viommu *iommu, const struct mirror *mirror,
                           struct save_writer *writer)
{
    struct layout layout = mirror_layout(iommu, mirror);
    struct shadow_extent given;
    uint64_t count = 0;
    uint64_t at = 0;

    while (layout_given(mirror, &layout, at, UINT64_MAX, &given)) {
        count++;
        if (writer) {
            mapping_put(writer, &given);
        }
        if (given.last == UINT64_MAX) {
            break;
        }
        at = given.last + 1;
    }
    return count;
}

void mirror_save(const struct viommu *iommu, const struct mirror *mirror,
                 struct save_writer *writer)
{
    const struct viommu_subscription *what = &mirror->subscriber->what;
    struct range_cursor cursor;
    struct range_run run;

    save_put8(writer, what->form);
    save_put8(writer, mirror->subscriber->fenced);
    save_put64(writer, what->range.first);
    save_put64(writer, what->range.last);
    save_put64(writer, given_each(iommu, mirror, NULL));
    (void)given_each(iommu, mirror, writer);
    save_put64(writer, mirror->missing.count);
    range_cursor_seek(&cursor, &mirror->missing, 0);
    while (range_cursor_next(&cursor, UINT64_MAX, &run)) {
        struct shadow_extent missing = {run.first, run.last, run.target, (uint32_t)run.tag};

        mapping_put(writer, &missing);
    }
}

/* ---- read ----------------------------------------------------------------------------------- */

static bool mapping_get(struct save_section *section, const struct viommu_range *range,
                        struct shadow_extent *mapping)
{
    mapping->first = save_get64(section);
    mapping->last = save_get64(section);
    mapping->gpa = save_get64(section);
    mapping->perm = save_get8(section);
    return !section->error && mapping->first <= mapping->last && mapping->first >= range->first &&
           mapping->last <= range->last && mapping->perm &&
           !(mapping->perm & ~(uint32_t)(VIOMMU_READ | VIOMMU_WRITE)) &&
           mapping->gpa <= UINT64_MAX - (mapping->last - mapping->first);
}

/* How many mappings follow; there are no more than the section has bytes for. */
static uint64_t count_get(struct save_section *section)
{
    uint64_t count = save_get64(section);

    if (count > section->left / MAPPING_BYTES) {
        save_spoil(section);
    }
    return section->error ? 0 : count;
}

/* Each lies behind all that were read before. */
static int run_add(struct range_map *map, const struct shadow_extent *mapping)
{
    struct range_run run = {mapping->first, mapping->last, mapping->gpa, mapping->perm};
    struct range_run behind;

    return range_map_from(map, mapping->first, &behind) ? -EBADMSG : range_map_insert(map, &run);
}

static uint64_t blocks_max(const struct mirror *mirror)
{
    uint64_t pages = mirror->subscriber->device->iommu->follow.memory->pages;

    return pages > BLOCKS_MAX ? pages : BLOCKS_MAX;
}

static int given_read(struct adoption *adoption, struct save_section *section)
{
    const struct viommu_range *range = &adoption->mirror->subscriber->what.range;
    uint64_t count = count_get(section);
    struct shadow_extent mapping;

    for (uint64_t i = 0; i < count; i++) {
        uint64_t blocks;
        int ret;

        if (!mapping_get(section, range, &mapping)) {
            return -EBADMSG;
        }
        blocks = mirror_blocks(adoption->mirror, &mapping);
        ret = blocks <= blocks_max(adoption->mirror) ? run_add(&adoption->odd, &mapping) : -EBADMSG;
        if (ret) {
            return ret;
        }
        adoption->mappings += blocks;
    }
    return section->error;
}

/* Whether the block of an order that holds an address of a mapping is in it, with its target. */
static bool holds_block(const struct range_run *run, uint64_t address, unsigned order)
{
    uint64_t mask = order < 64 ? (1ULL << order) - 1 : UINT64_MAX;

    return (address & ~mask) >= run->first && (address | mask) <= run->last &&
           !((run->target - run->first) & mask);
}

/* Whether a difference is a block of a mapping that it was given. */
static bool is_block(const struct adoption *adoption, const struct shadow_extent *missing)
{
    struct pow2_split split;
    struct pow2_block block;
    struct range_run run;

    if (!range_map_find(&adoption->odd, missing->first, &run) || run.last < missing->last ||
        range_run_target(&run, missing->first) != missing->gpa || run.tag != missing->perm) {
        return false;
    }
    if (adoption->mirror->subscriber->what.form != VIOMMU_FORM_POW2) {
        return run.first == missing->first && run.last == missing->last;
    }
    /* The largest that begins there, unless the address lies within a larger one. */
    pow2_begin_with_target(&split, missing->first, run.last, missing->gpa);
    return pow2_next(&split, &block) && block.last == missing->last &&
           (block.order >= 64 || !holds_block(&run, missing->first, block.order + 1));
}

static int missing_read(struct adoption *adoption, struct save_section *section)
{
    const struct viommu_range *range = &adoption->mirror->subscriber->what.range;
    uint64_t count = count_get(section);
    struct shadow_extent missing;

    for (uint64_t i = 0; i < count; i++) {
        int ret = mapping_get(section, range, &missing) && is_block(adoption, &missing)
                      ? run_add(&adoption->missing, &missing)
                      : -EBADMSG;

        if (ret) {
            return ret;
        }
    }
    adoption->mappings -= count;
    return section->error;
}

int adoption_read(struct adoption *adoption, struct mirror *mirror, struct save_section *section)
{
    const struct viommu_subscription *what = &mirror->subscriber->what;
    uint8_t form;
    uint8_t fenced;
    struct viommu_range range;
    int ret;

    *adoption = (struct adoption){.mirror = mirror};
    range_map_init(&adoption->odd);
    range_map_init(&adoption->missing);
    form = save_get8(section);
    fenced = save_get8(section);
    range.first = save_get64(section);
    range.last = save_get64(section);
    if (section->error || form > VIOMMU_FORM_RANGE || fenced > 1) {
        return -EBADMSG;
    }
    if (form != what->form || range.first != what->range.first || range.last != what->range.last) {
        return -EINVAL;
    }
    adoption->fenced = fenced;
    ret = given_read(adoption, section);
    ret = ret ? ret : missing_read(adoption, section);
    if (!ret && fenced && adoption->odd.count) {
        return -EBADMSG; /* one that is fenced holds nothing */
    }
    return ret;
}

void adoption_fini(struct adoption *adoption)
{
    range_map_fini(&adoption->odd);
    range_map_fini(&adoption->missing);
}

static void begin_at(struct block *block, uint64_t address)
{
    unsigned index = (unsigned)((address - block->first) >> 12);

    if (address >= block->first && address <= block->last && index >= block->from &&
        index <= block->to && (block->new[index] & SHADOW_PERM)) {
        block->new[index] |= SHADOW_START;
    }
}

void adopted_mark_starts(const struct viommu *iommu, const struct shadow *shadow,
                         struct block *block)
{
    struct range_cursor cursor;
    struct range_run run;

    for (const struct mirror *m = iommu->follow.mirrors; m; m = m->next) {
        if (!m->adopting || m->target_shadow != shadow) {
            continue;
        }
        range_cursor_seek(&cursor, &m->odd, block->first);
        while (range_cursor_next(&cursor, block->last, &run)) {
            begin_at(block, run.first);
            begin_at(block, run.last + 1);
        }
    }
}

void mirror_adopt(struct viommu *iommu, struct adoption *adoption)
{
    struct mirror *mirror = adoption->mirror;
    struct viommu_subscription *what = &mirror->subscriber->what;

    mirror->waits = false;
    mirror->subscriber->fenced = adoption->fenced;
    if (adoption->fenced) {
        mirror->review_wanted = false;
        return;
    }
    mirror->adopting = true;
    mirror->odd = adoption->odd;
    mirror->missing = adoption->missing;
    mirror->mappings = adoption->mappings;
    range_map_init(&adoption->odd);
    range_map_init(&adoption->missing);
    if (what->mappings_max) {
        uint64_t room = UINT64_MAX - what->mappings_max;

        what->mappings_max += mirror->mappings < room ? mirror->mappings : room;
    }
    if (mirror->missing.count) {
        mirror->retry_pause = MIRROR_RETRY_PAUSE;
        mirror->retry_time = iommu_now(iommu) + mirror->retry_pause;
    }
}

void adoption_over(struct viommu *iommu, struct mirror *mirror)
{
    mirror->adopting = false;
    if (!mirror->odd.count) {
        range_map_fini(&mirror->odd); /* with what it keeps for later: there was much */
    }
    mirror_count(iommu, mirror);
}
