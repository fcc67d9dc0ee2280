/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Looks at a window again: do its pages still lead where they led?
 *
 * They are translated one after the other, in the order in which they were pinned, and compared
 * with the window's runs of guest memory. It is done in steps, each in a section of its own: a
 * large window holds no invalidation back for long. What was found in an earlier step was true
 * after the birth that the window is given, and that is all that is needed: whoever invalidates
 * later asks anew.
 */
#include "device/dma.h"

/* Pages of a step. */
#define STEP_PAGES 64

struct look {
    const struct viommu_window *window;
    const struct memory_snapshot *memory;
    struct dma_request request;
    struct dma_found found;
    struct window_origin origin;
    uint64_t birth; /* 0: no step was made */
    uint64_t pages; /* that were looked at */

    /* What is next. */
    size_t range;
    uint64_t at; /* device address in the range */
    size_t run;
    uint64_t in_run;
};

enum look_result {
    LOOK_MORE,
    LOOK_SAME,
    LOOK_CHANGED,
};

static bool is_slot_of(const struct viommu_window *window, const struct viommu_memory_slot *slot)
{
    if (!slot || ((window->perm & VIOMMU_WRITE) && (slot->flags & VIOMMU_MEMORY_READONLY))) {
        return false;
    }
    for (size_t i = 0; i < window->slot_count; i++) {
        const struct window_slot *known = &window->slots[i];

        if (known->first == slot->first && known->last == slot->last &&
            known->host == slot->host) {
            return true;
        }
    }
    return false;
}

/* The next `len` bytes, which lie in one page: they lead to what is next in the runs. */
static bool look_at_page(struct look *look, uint64_t iova, uint64_t len)
{
    const struct viommu_window *window = look->window;
    const struct window_run *run = &window->runs[look->run];
    struct viommu_translation translation;

    look->request.iova = iova;
    look->found = (struct dma_found){0};
    if (look->run == window->run_count || dma_translate(&look->request, &translation) ||
        translation.interrupt || translation.gpa != run->gpa + look->in_run ||
        len > run->size - look->in_run ||
        !is_slot_of(window, memory_find(look->memory, translation.gpa))) {
        return false;
    }
    window_origin_add(&look->origin, &look->found, !look->pages++);
    look->in_run += len;
    if (look->in_run == run->size) {
        look->in_run = 0;
        look->run++;
    }
    return true;
}

/* In a section. */
static enum look_result look_step(struct look *look)
{
    const struct viommu_window *window = look->window;

    for (unsigned i = 0; i < STEP_PAGES; i++) {
        const struct viommu_range *range = &window->ranges[look->range];
        uint64_t page_last = look->at | 0xfff;
        uint64_t last = page_last < range->last ? page_last : range->last;

        if (!look_at_page(look, look->at, last - look->at + 1)) {
            return LOOK_CHANGED;
        }
        look->at = last + 1;
        if (last == range->last) {
            if (++look->range == window->range_count) {
                return LOOK_SAME;
            }
            look->at = window->ranges[look->range].first;
        }
    }
    return LOOK_MORE;
}

/* Begins a step. Returns false when its requests cannot be those that were pinned. */
static bool look_begin(struct look *look)
{
    const struct viommu_window *window = look->window;
    struct viommu_dma_attrs attrs = {.alias = window->alias};

    if (!look->birth) {
        look->birth = epoch_time(window->iommu->epoch);
    }
    look->memory = memory_snapshot(window->iommu->memory);
    if (dma_request_init(&look->request, window->device, &attrs, 0, window->perm) ||
        look->request.requester->id != window->id) {
        return false;
    }
    look->request.quiet = true;
    look->request.found = &look->found;
    return true;
}

bool window_look(const struct viommu_window *window, uint64_t *birth, struct window_origin *origin)
{
    struct look look = {.window = window, .at = window->ranges[0].first};
    enum look_result result = LOOK_MORE;

    while (result == LOOK_MORE && epoch_enter(window->iommu->epoch)) {
        result = look_begin(&look) ? look_step(&look) : LOOK_CHANGED;
        epoch_leave(window->iommu->epoch);
    }
    *birth = look.birth;
    *origin = look.origin;
    return result == LOOK_SAME;
}
