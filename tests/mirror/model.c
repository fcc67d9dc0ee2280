/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The slow model of the mirrors' model test: logs of raw values and of views, what syncs cover,
 * and the comparison of a mirror with them (world.h tells the words).
 */
#include "world.h"

#include <stdlib.h>
#include <string.h>

void model_init(struct world *world)
{
    world->now = calloc(WORLD_SPACES * WORLD_PAGES, sizeof(*world->now));
    world->logs = calloc(WORLD_SPACES * WORLD_PAGES, sizeof(*world->logs));
    if (!world->now || !world->logs) {
        world_fail(world, "no memory");
    }
}

void model_fini(struct world *world)
{
    free(world->now);
    free(world->logs);
}

/* Logs. */

static void log_value(struct page_log *log, uint64_t value, uint64_t end)
{
    for (unsigned i = 0; i < log->count; i++) {
        if (log->old[i] == value) {
            log->end[i] = end;
            return;
        }
    }
    if (log->count == WORLD_OLD) {
        log->any = true;
        memmove(log->old, log->old + 1, sizeof(log->old) - sizeof(log->old[0]));
        memmove(log->end, log->end + 1, sizeof(log->end) - sizeof(log->end[0]));
        log->count--;
    }
    log->old[log->count] = value;
    log->end[log->count++] = end;
}

/* Drops what ceased at `time` or before. */
static void forget_values(struct page_log *log, uint64_t time)
{
    unsigned kept = 0;

    if (!log->count) {
        return;
    }
    for (unsigned i = 0; i < log->count; i++) {
        if (log->end[i] > time) {
            log->old[kept] = log->old[i];
            log->end[kept++] = log->end[i];
        }
    }
    /* Those that were dropped for lack of room ceased before those that were kept. */
    log->any &= kept == WORLD_OLD;
    log->count = (uint8_t)kept;
}

static bool same_view(const struct view *a, const struct view *b)
{
    return a->kind == b->kind && a->domain == b->domain &&
           (a->kind != VIEW_TABLES || a->space == b->space);
}

static void log_view(struct device *device, const struct view *view, uint64_t end)
{
    if (device->view_count) {
        if (same_view(&device->views[device->view_count - 1].view, view)) {
            return;
        }
        device->views[device->view_count - 1].end = end;
    }
    if (device->view_count == WORLD_VIEWS) {
        device->any_view = true;
        memmove(device->views, device->views + 1, sizeof(device->views) - sizeof(device->views[0]));
        device->view_count--;
    }
    device->views[device->view_count++] = (struct logged_view){*view, WORLD_NOW};
}

/* Remembers some, of those of the last change more. */
static void note_changed(struct world *world, unsigned page)
{
    unsigned at = world->changed_count++;

    if (at >= WORLD_CHANGED) {
        at = world_below(world, 4 * WORLD_CHANGED);
    }
    if (at < WORLD_CHANGED) {
        world->changed[at] = page;
    }
}

void model_refresh(struct world *world)
{
    uint64_t values[512];

    if (!world->dirty) {
        return;
    }
    world->dirty = false;
    world->time++;
    for (unsigned i = 0; i < WORLD_SPACES * WORLD_BLOCKS; i++) {
        uint64_t *now = world->now + i * 512;

        tables_read_block(world, i / WORLD_BLOCKS, i % WORLD_BLOCKS, values);
        if (!memcmp(values, now, sizeof(values))) {
            continue;
        }
        for (unsigned j = 0; j < 512; j++) {
            if (now[j] != values[j]) {
                log_value(&world->logs[i * 512 + j], now[j], world->time);
                now[j] = values[j];
                note_changed(world, i * 512 + j);
            }
        }
    }
    for (unsigned i = 0; i < WORLD_DEVICES; i++) {
        struct view view = context_read(world, world->devices[i].requester);

        log_view(&world->devices[i], &view, world->time);
    }
}

uint64_t model_submit(struct world *world)
{
    model_refresh(world);
    return world->time;
}

/*
 * A mirror whose view changes may be taken to what a space said at its last sync, and then to what
 * it says now.
 */
void model_note_stale(struct world *world)
{
    memset(world->stale, 0, sizeof(world->stale));
    for (unsigned i = 0; i < WORLD_SPACES * WORLD_PAGES; i++) {
        world->stale[i % WORLD_PAGES] |= world->causes >> VIOMMU_CAUSE_CONTEXT & 1 &&
                                         (world->logs[i].count || world->logs[i].any);
    }
}

/* What syncs cover. */

void model_view_synced(struct world *world, uint64_t time, unsigned number)
{
    struct device *device = &world->devices[number];
    unsigned kept = 0;

    for (unsigned i = 0; i < device->view_count; i++) {
        if (device->views[i].end > time) {
            device->views[kept++] = device->views[i];
        }
    }
    device->any_view &= kept == WORLD_VIEWS;
    device->view_count = kept;
}

/* Whether an invalidation of a domain reaches whatever the device may have been seen with. */
static bool all_of_domain(const struct device *device, uint16_t domain)
{
    const struct view *now = &device->views[device->view_count - 1].view;

    for (unsigned i = 0; i < device->view_count; i++) {
        if (device->views[i].view.domain != domain && !same_view(&device->views[i].view, now)) {
            return false;
        }
    }
    return !device->any_view;
}

void model_context_synced(struct world *world, uint64_t time, enum spec_granularity granularity,
                          uint16_t domain, uint16_t requester, unsigned function_mask)
{
    static const uint16_t masks[4] = {0, 4, 6, 7};

    for (unsigned i = 0; i < WORLD_DEVICES; i++) {
        const struct device *device = &world->devices[i];
        bool covered = granularity == SPEC_GLOBAL || all_of_domain(device, domain);

        if (granularity == SPEC_SELECTIVE &&
            (device->requester ^ requester) & ~masks[function_mask] & 0xffff) {
            covered = false;
        }
        if (covered) {
            model_view_synced(world, time, i);
        }
    }
}

static bool has_mirror(const struct world *world, unsigned device, bool fenced_too)
{
    for (unsigned i = 0; i < WORLD_MIRRORS; i++) {
        const struct mirror *mirror = &world->mirrors[i];

        if (mirror->subscriber && mirror->device == device &&
            (fenced_too || !mirror->recorder.fenced)) {
            return true;
        }
    }
    return false;
}

/* Whether a device certainly uses this space under this domain. */
static bool uses(const struct device *device, unsigned space, uint16_t domain)
{
    for (unsigned i = 0; i < device->view_count; i++) {
        const struct view *view = &device->views[i].view;

        if (view->kind != VIEW_TABLES || view->space != space || view->domain != domain) {
            return false;
        }
    }
    return !device->any_view;
}

static bool may_use(const struct device *device, unsigned space)
{
    for (unsigned i = 0; i < device->view_count; i++) {
        const struct view *view = &device->views[i].view;

        if (view->kind == VIEW_TABLES && view->space == space) {
            return true;
        }
    }
    return device->any_view;
}

void model_pages_synced(struct world *world, uint64_t time, enum spec_granularity granularity,
                        uint16_t domain, uint64_t first, uint64_t last)
{
    for (unsigned space = 0; space < WORLD_SPACES; space++) {
        bool covered = granularity == SPEC_GLOBAL;

        for (unsigned i = 0; i < WORLD_DEVICES && world->translating; i++) {
            covered |= has_mirror(world, i, false) && uses(&world->devices[i], space, domain);
        }
        for (unsigned page = 0; page < WORLD_PAGES && covered; page++) {
            uint64_t address = tables_page_address(page);

            if (granularity != SPEC_SELECTIVE || (first <= address && address <= last)) {
                forget_values(&world->logs[space * WORLD_PAGES + page], time);
            }
        }
    }
}

void model_unused(struct world *world)
{
    for (unsigned space = 0; space < WORLD_SPACES; space++) {
        bool used = false;

        for (unsigned i = 0; i < WORLD_DEVICES && world->translating; i++) {
            used |= has_mirror(world, i, true) && may_use(&world->devices[i], space);
        }
        for (unsigned page = 0; page < WORLD_PAGES && !used; page++) {
            forget_values(&world->logs[space * WORLD_PAGES + page], WORLD_NOW - 1);
        }
    }
}

/* The comparison. */

bool model_maybe_identity(const struct world *world, unsigned number)
{
    const struct device *device = &world->devices[number];
    bool identity = !world->translating || device->any_view;

    for (unsigned i = 0; i < device->view_count; i++) {
        identity |= device->views[i].view.kind == VIEW_IDENTITY;
    }
    return identity;
}

/* Where a mirror can have a page at all. */
static bool may_map(const struct recorder *recorder, uint64_t address)
{
    const struct viommu_range *range = &recorder->what.range;
    bool allowed = !recorder->what.allowed_count;

    if (spec_in_interrupt_range(address) ||
        ((range->first || range->last) && (address < range->first || address > range->last))) {
        return false;
    }
    for (size_t i = 0; i < recorder->what.allowed_count; i++) {
        allowed |= recorder->allowed[i].first <= address && address <= recorder->allowed[i].last;
    }
    return allowed;
}

static bool possible_in_space(struct world *world, unsigned space, unsigned page, uint64_t actual)
{
    const struct page_log *log = &world->logs[space * WORLD_PAGES + page];

    if (log->any || memory_effective(world, world->now[space * WORLD_PAGES + page]) == actual) {
        return true;
    }
    for (unsigned i = 0; i < log->count; i++) {
        if (memory_effective(world, log->old[i]) == actual) {
            return true;
        }
    }
    return false;
}

static bool possible(struct world *world, const struct mirror *mirror, unsigned page,
                     uint64_t actual)
{
    const struct device *device = &world->devices[mirror->device];
    uint64_t address = tables_page_address(page);

    if (!may_map(&mirror->recorder, address) || (!actual && mirror->differs)) {
        return !actual;
    }
    if (!world->translating) {
        return memory_effective(world, address | 3) == actual;
    }
    for (unsigned i = device->view_count; i--;) {
        const struct view *view = &device->views[i].view;
        bool good = view->kind == VIEW_NONE       ? !actual
                    : view->kind == VIEW_IDENTITY ? memory_effective(world, address | 3) == actual
                                                  : possible_in_space(world, view->space, page,
                                                                      actual);

        if (good) {
            return true;
        }
    }
    return device->any_view;
}

static _Noreturn void wrong_page(struct world *world, const struct mirror *mirror, unsigned page,
                                 uint64_t actual)
{
    const struct device *device = &world->devices[mirror->device];
    uint64_t address = tables_page_address(page);

    world_note(world, "translation %s; %zu mappings, differences: %d",
               world->translating ? "on" : "off", mirror->recorder.mapped.count, mirror->differs);
    for (unsigned i = 0; i < device->view_count; i++) {
        const struct view *view = &device->views[i].view;
        const struct page_log *log = &world->logs[view->space * WORLD_PAGES + page];

        world_note(world, "it may be seen with: view %d space %u domain %u; raw %#llx now",
                   view->kind, view->space, view->domain,
                   (unsigned long long)world->now[view->space * WORLD_PAGES + page]);
        for (unsigned j = 0; j < log->count; j++) {
            world_note(world, "  raw %#llx before", (unsigned long long)log->old[j]);
        }
    }
    world_fail(world, "mirror %u of device %u: %#llx is %#llx, that cannot be",
               (unsigned)(mirror - world->mirrors), mirror->device, (unsigned long long)address,
               (unsigned long long)actual);
}

/* One mapping is one super page, a slot, or pages of 4 KiB in one 2 MiB block. */
static void check_size(struct world *world, const struct mirror *mirror,
                       const struct recorder_mapping *mapping)
{
    bool may_grow = mirror->recorder.what.mappings_max ||
                    model_maybe_identity(world, mirror->device);

    if ((mapping->first ^ mapping->last) >> 21 && !may_grow &&
        ((mapping->first ^ mapping->last) >> 30 ||
         (mapping->first ^ mapping->gpa) & ((1ull << 30) - 1))) {
        world_fail(world, "mirror %u: [%#llx, %#llx] is too large for one mapping",
                   (unsigned)(mirror - world->mirrors), (unsigned long long)mapping->first,
                   (unsigned long long)mapping->last);
    }
}

void model_check(struct world *world, struct mirror *mirror)
{
    const struct recorder *recorder = &mirror->recorder;
    size_t at = 0;

    for (unsigned page = 0; page < WORLD_PAGES; page++) {
        uint64_t address = tables_page_address(page);
        const struct recorder_mapping *mapping;
        uint64_t actual = 0;

        while (at < recorder->mapped.count && recorder->mapped.list[at].last < address) {
            at++;
        }
        mapping = at < recorder->mapped.count ? &recorder->mapped.list[at] : NULL;
        if (mapping && mapping->first <= address) {
            actual = (mapping->gpa + (address - mapping->first)) | mapping->perm;
            world->mapped_pages++;
        }
        if (!possible(world, mirror, page, actual)) {
            wrong_page(world, mirror, page, actual);
        }
    }
    for (size_t i = 0; i < recorder->mapped.count; i++) {
        check_size(world, mirror, &recorder->mapped.list[i]);
    }
}
