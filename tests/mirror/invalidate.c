/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The mirrors' model test edits and invalidates: by queue and by registers, with edits between
 * submission and completion, and again with nothing changed.
 */
#include "world.h"

#include <stdatomic.h>
#include <string.h>

#define BATCH_MAX 5

struct invalidation {
    bool iotlb;
    enum spec_granularity granularity;
    uint16_t domain;
    uint16_t requester;
    unsigned function_mask;
    uint64_t address;
    unsigned address_mask;
};

/* Of a page that changed lately, and of a domain that uses it. */
static void what_changed(struct world *world, struct invalidation *invalidation)
{
    unsigned count = world->changed_count < WORLD_CHANGED ? world->changed_count : WORLD_CHANGED;
    unsigned page = count ? world->changed[world_below(world, count)] : 0;

    invalidation->address = tables_page_address(page % WORLD_PAGES);
    for (unsigned i = 0; i < WORLD_DEVICES; i++) {
        const struct device *device = &world->devices[i];
        const struct view *view = &device->views[device->view_count - 1].view;

        if (view->kind == VIEW_TABLES && view->space == page / WORLD_PAGES) {
            invalidation->domain = view->domain;
            return;
        }
    }
}

static struct invalidation any_invalidation(struct world *world)
{
    static const uint8_t masks[] = {0, 0, 0, 1, 2, 5, 9, 10, 18, 27, 36};
    unsigned most = (unsigned)(world->guest.cap >> 48 & 63);
    unsigned mask = masks[world_below(world, sizeof(masks))];
    const struct device *device = &world->devices[world_below(world, WORLD_DEVICES)];
    struct invalidation invalidation = {
        .iotlb = world_percent(world, 75),
        .granularity = 1 + world_below(world, 3),
        .domain = (uint16_t)world_below(world, 6),
        .requester = device->requester,
        .function_mask = world_percent(world, 30) ? world_below(world, 4) : 0,
        .address = tables_page_address(world_below(world, WORLD_PAGES)),
        .address_mask = mask < most ? mask : most,
    };

    if (world_percent(world, 80)) {
        const struct view *view = &device->views[device->view_count - 1].view;

        invalidation.domain = view->domain;
    }
    if (world_percent(world, 60)) {
        what_changed(world, &invalidation);
    } else if (world_percent(world, 30)) {
        invalidation.address = tables_page_address(world_below(world, 8));
    }
    if (invalidation.granularity == SPEC_GLOBAL && world_percent(world, 50)) {
        invalidation.granularity = SPEC_SELECTIVE;
    }
    return invalidation;
}

static uint32_t cause_of(const struct invalidation *invalidation)
{
    if (!invalidation->iotlb) {
        return 1u << VIOMMU_CAUSE_CONTEXT;
    }
    return 1u << (invalidation->granularity == SPEC_GLOBAL   ? VIOMMU_CAUSE_GLOBAL
                  : invalidation->granularity == SPEC_DOMAIN ? VIOMMU_CAUSE_DOMAIN
                                                             : VIOMMU_CAUSE_PAGES);
}

static void note(struct world *world, const struct invalidation *invalidation, const char *how)
{
    if (invalidation->iotlb) {
        world_note(world, "invalidate IOTLB by %s: granularity %d domain %u %#llx am %u", how,
                   invalidation->granularity, invalidation->domain,
                   (unsigned long long)invalidation->address, invalidation->address_mask);
    } else {
        world_note(world, "invalidate context by %s: granularity %d domain %u %04x fm %u", how,
                   invalidation->granularity, invalidation->domain, invalidation->requester,
                   invalidation->function_mask);
    }
}

static void completed(struct world *world, const struct invalidation *invalidation, uint64_t time)
{
    uint64_t mask = (1ull << (invalidation->address_mask + 12)) - 1;

    if (invalidation->iotlb) {
        model_pages_synced(world, time, invalidation->granularity, invalidation->domain,
                           invalidation->address & ~mask, invalidation->address | mask);
    } else {
        model_context_synced(world, time, invalidation->granularity, invalidation->domain,
                             invalidation->requester, invalidation->function_mask);
    }
}

/* Edits of some kind, without any invalidation. */
static void edit(struct world *world, unsigned most)
{
    unsigned count = world_below(world, most + 1);

    for (unsigned i = 0; i < count; i++) {
        if (world_percent(world, 85)) {
            tables_edit(world);
        } else {
            context_edit(world);
        }
        /* Sometimes several values follow one another unseen. */
        if (world_percent(world, 30)) {
            model_refresh(world);
        }
    }
}

/* The guest changes things while the invalidation is under way. */
static void interleave(struct world *world)
{
    world_note(world, "meanwhile:");
    for (unsigned i = world_below(world, 4); i; i--) {
        viommu_process(world->guest.iommu, 1 + world_below(world, 3));
        edit(world, 1);
        model_refresh(world);
        world_answer(world);
    }
    world->interleaved = true;
}

static bool context_register_clear(struct world *world)
{
    return !(guest_read(&world->guest, SPEC_CCMD, 8) >> 63);
}

static bool iotlb_register_clear(struct world *world)
{
    return !(guest_read(&world->guest, world->guest.iotlb_offset + 8, 8) >> 63);
}

static void write_registers(struct world *world, const struct invalidation *what)
{
    struct guest *guest = &world->guest;

    if (!what->iotlb) {
        guest_write(guest, SPEC_CCMD, 8,
                    1ull << 63 | (uint64_t)what->granularity << 61 |
                        (uint64_t)what->function_mask << 32 | (uint64_t)what->requester << 16 |
                        what->domain);
        return;
    }
    if (what->granularity == SPEC_SELECTIVE) {
        guest_write(guest, guest->iotlb_offset, 8,
                    (what->address & ~((1ull << (what->address_mask + 12)) - 1)) |
                        what->address_mask);
    }
    guest_write(guest, guest->iotlb_offset + 8, 8,
                1ull << 63 | (uint64_t)what->granularity << 60 | (uint64_t)what->domain << 32);
}

static void by_registers(struct world *world, const struct invalidation *what, bool meanwhile)
{
    uint64_t time = model_submit(world);

    note(world, what, "registers");
    write_registers(world, what);
    if (meanwhile) {
        interleave(world);
    }
    world_finish(world, what->iotlb ? iotlb_register_clear : context_register_clear,
                 "a register-based invalidation");
    completed(world, what, time);
}

static bool status_written(struct world *world)
{
    _Atomic uint32_t *status = guest_host(&world->guest, world->guest.status);

    return atomic_load(status) == world->guest.status_value;
}

static void put(struct world *world, const struct invalidation *what)
{
    note(world, what, "queue");
    guest_queue_put(&world->guest,
                    what->iotlb
                        ? spec_iotlb_invalidate(what->granularity, what->domain, what->address,
                                                what->address_mask, world_percent(world, 20))
                        : spec_context_invalidate(what->granularity, what->domain,
                                                  what->requester, what->function_mask));
}

static void by_queue(struct world *world, const struct invalidation *list, unsigned count,
                     bool meanwhile)
{
    uint64_t time = model_submit(world);

    for (unsigned i = 0; i < count; i++) {
        put(world, &list[i]);
    }
    guest_queue_put(&world->guest, spec_wait(SPEC_WAIT_STATUS, world->guest.status,
                                             ++world->guest.status_value));
    guest_queue_kick(&world->guest);
    if (meanwhile) {
        interleave(world);
    }
    world_finish(world, status_written, "a wait descriptor");
    for (unsigned i = 0; i < count; i++) {
        completed(world, &list[i], time);
    }
}

/* Software uses the registers only while the queue is off. */
static void submit(struct world *world, const struct invalidation *list, unsigned count,
                   bool meanwhile)
{
    if (world->queue_on) {
        by_queue(world, list, count, meanwhile);
        return;
    }
    for (unsigned i = 0; i < count; i++) {
        by_registers(world, &list[i], meanwhile);
    }
}

/* Nothing may be told without an invalidation. */
static void edit_unseen(struct world *world)
{
    world->changed_count = 0;
    edit(world, 5);
    model_refresh(world);
    if (world_percent(world, 20)) {
        world_begin(world, 0);
        world_end(world);
    }
}

void invalidate_some(struct world *world)
{
    struct invalidation list[BATCH_MAX];
    bool meanwhile = world_percent(world, 15);
    bool one = !world->queue_on || world_percent(world, 60);
    unsigned count = one ? 1 : 1 + world_below(world, BATCH_MAX);
    uint32_t causes = 0;

    edit_unseen(world);
    for (unsigned i = 0; i < count; i++) {
        list[i] = any_invalidation(world);
        causes |= cause_of(&list[i]);
    }
    model_refresh(world);
    world_begin(world, causes);
    if (count == 1 && list[0].iotlb && !meanwhile) {
        world->one_sync = true;
    }
    submit(world, list, count, meanwhile);
    world_end(world);
}

static const struct invalidation everything[2] = {
    {.granularity = SPEC_GLOBAL},
    {.iotlb = true, .granularity = SPEC_GLOBAL},
};

void invalidate_all(struct world *world)
{
    world_begin(world, 1u << VIOMMU_CAUSE_CONTEXT | 1u << VIOMMU_CAUSE_GLOBAL);
    submit(world, everything, 2, false);
    world_end(world);
}

/* A mirror whose tables did not change hears nothing. */
void invalidate_twice(struct world *world)
{
    struct invalidation again = any_invalidation(world);
    uint64_t before[WORLD_MIRRORS];
    bool exact[WORLD_MIRRORS];

    edit(world, 3);
    invalidate_all(world);
    for (unsigned i = 0; i < WORLD_MIRRORS; i++) {
        before[i] = world->mirrors[i].recorder.call_count;
        exact[i] = world->mirrors[i].subscriber && !world->mirrors[i].differs &&
                   !world->mirrors[i].recorder.fenced;
    }
    invalidate_all(world);
    world_begin(world, cause_of(&again));
    submit(world, &again, 1, false);
    world_end(world);
    for (unsigned i = 0; i < WORLD_MIRRORS; i++) {
        if (exact[i] && world->mirrors[i].recorder.call_count != before[i]) {
            world_fail(world, "mirror %u: %llu calls though nothing changed", i,
                       (unsigned long long)(world->mirrors[i].recorder.call_count - before[i]));
        }
    }
    world->quiet++;
}
