/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The world of the model test: see world.h.
 */
#include "world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint16_t all_requesters[HISTORY_REQUESTERS] = {
    0x0008, 0x0009, 0x000a, 0x000b, 0x000c, 0x000f, 0x0100, 0x01f8, 0xff00, 0xffff,
};

void world_note(struct world *world, const char *format, ...)
{
    char *note = world->notes[world->note_count++ % WORLD_NOTES];
    int used = snprintf(note, sizeof(world->notes[0]), "%llu: ", (unsigned long long)world->step);
    va_list args;

    va_start(args, format);
    vsnprintf(note + used, sizeof(world->notes[0]) - (size_t)used, format, args);
    va_end(args);
}

void world_fail(struct world *world, const char *format, ...)
{
    unsigned first = world->note_count > WORLD_NOTES ? world->note_count - WORLD_NOTES : 0;
    va_list args;

    fflush(stdout);
    for (unsigned i = first; i < world->note_count; i++) {
        fprintf(stderr, "%s\n", world->notes[i % WORLD_NOTES]);
    }
    fprintf(stderr,
            "unit: width %u host %u caching %d superpages %d pass-through %d snoop %d ats %d "
            "domain bits %u records %u; translation %s, queue %s\n",
            world->vtd.address_width, world->vtd.host_address_width, world->vtd.caching_mode,
            !world->vtd.no_super_pages, !world->vtd.no_pass_through, !world->vtd.no_snoop_control,
            world->vtd.device_tlb, world->vtd.domain_bits, world->vtd.fault_records,
            world->translating ? "on" : "off", world->queue_on ? "on" : "off");
    fprintf(stderr, "MISMATCH: --seed %llu, step %llu: ", (unsigned long long)world->seed,
            (unsigned long long)world->step);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

void world_ok(struct world *world, int error, const char *what)
{
    if (error) {
        world_fail(world, "%s: %s (%d)", what, error < 0 ? strerror(-error) : "not 0", error);
    }
}

static void on_interrupt(void *opaque, const struct viommu_interrupt *interrupt)
{
    struct world *world = opaque;

    if (!interrupt->from_unit) {
        world->device_messages_seen++;
    } else if (interrupt->data == WORLD_FAULT_DATA) {
        world->fault_messages_seen++;
    } else if (interrupt->data == WORLD_WAIT_DATA) {
        world->wait_messages_seen++;
    } else {
        world_fail(world, "the unit sends a message %#x that nobody programmed", interrupt->data);
    }
}

static void on_event(void *opaque, const struct viommu_event *event)
{
    struct world *world = opaque;

    if (event->kind == VIOMMU_EVENT_DENIED) {
        world->denied_events++;
    }
}

static uint64_t world_clock(void *opaque)
{
    return ((struct world *)opaque)->clock;
}

static void choose_configuration(struct world *world)
{
    static const uint8_t host_widths[] = {36, 39, 46, 48, 52};
    static const uint8_t domain_bits[] = {4, 8, 16};
    static const uint16_t records[] = {1, 2, 3, 8};

    world->vtd = (struct viommu_vtd_config){
        .address_width = world_percent(world, 30) ? 39 : 48,
        .host_address_width = host_widths[world_below(world, 5)],
        .caching_mode = world_percent(world, 40),
        .no_super_pages = world_percent(world, 15),
        .no_pass_through = world_percent(world, 15),
        .no_queued_invalidation = world_percent(world, 10),
        .no_snoop_control = world_percent(world, 30),
        .device_tlb = world_percent(world, 60),
        .domain_bits = domain_bits[world_below(world, 3)],
        .fault_records = records[world_below(world, 4)],
    };
    if (world->vtd.no_queued_invalidation) {
        world->vtd.device_tlb = false; /* its invalidations need the queue */
    }
    world->walker = (struct walker_config){
        .host_width = world->vtd.host_address_width,
        .domain_bits = world->vtd.domain_bits,
        .super_pages = !world->vtd.no_super_pages,
        .snoop_control = !world->vtd.no_snoop_control,
        .pass_through = !world->vtd.no_pass_through,
        .device_tlb = world->vtd.device_tlb,
    };
}

/* The capability registers must say what was configured. */
static void check_capabilities(struct world *world)
{
    uint64_t cap = world->guest.cap;
    uint64_t ecap = world->guest.ecap;
    unsigned width = world->vtd.address_width;

    world->walker.sagaw = (unsigned)(cap >> 8 & 31);
    if (!(world->walker.sagaw & 2) != (width < 39) || !(world->walker.sagaw & 4) != (width < 48) ||
        world->walker.sagaw & ~6u) {
        world_fail(world, "SAGAW %#x for width %u", world->walker.sagaw, width);
    }
    if ((cap >> 16 & 63) + 1 != width || !(cap >> 7 & 1) == world->vtd.caching_mode ||
        4 + 2 * (cap & 7) != world->vtd.domain_bits ||
        (cap >> 34 & 15) != (world->vtd.no_super_pages ? 0u : 3u) ||
        world->guest.fault_count != world->vtd.fault_records) {
        world_fail(world, "CAP %#llx is not what was configured", (unsigned long long)cap);
    }
    if (!(ecap >> 1 & 1) != world->vtd.no_queued_invalidation ||
        !(ecap >> 2 & 1) == world->vtd.device_tlb ||
        !(ecap >> 6 & 1) != world->vtd.no_pass_through ||
        !(ecap >> 7 & 1) != world->vtd.no_snoop_control) {
        world_fail(world, "ECAP %#llx is not what was configured", (unsigned long long)ecap);
    }
}

static void make_universe(struct world *world)
{
    static const unsigned indexes[3] = {0, 1, 511};
    struct history *history = &world->history;

    memcpy(history->requesters, all_requesters, sizeof(all_requesters));
    history->tables[0] = 0x5000000; /* no memory there */
    for (unsigned i = 1; i < HISTORY_TABLES; i++) {
        history->tables[i] = world_page(WORLD_POOL + i - 1);
    }
    for (unsigned i = 0; i < 81; i++) {
        history->pages[history->page_count++] =
            (uint64_t)indexes[i / 27] << 39 | (uint64_t)indexes[i / 9 % 3] << 30 |
            (uint64_t)indexes[i / 3 % 3] << 21 | (uint64_t)indexes[i % 3] << 12;
    }
    for (unsigned i = 0; i < 4; i++) { /* around the interrupt range */
        static const uint32_t pages[4] = {0xfedff000, 0xfee00000, 0xfeeff000, 0xfef00000};

        history->pages[history->page_count++] = pages[i];
    }
    history->pages[history->page_count++] = 1ull << 48;
    history->pages[history->page_count++] = 1ull << 52;
    history->pages[history->page_count++] = ~0xfffull;
    history->ram = &world->ram;
    history->config = &world->walker;
    history->now = 1;
}

static void program_messages(struct world *world)
{
    guest_write(&world->guest, SPEC_FEDATA, 4, WORLD_FAULT_DATA);
    guest_write(&world->guest, SPEC_FEADDR, 4, 0xfee00000);
    guest_write(&world->guest, SPEC_IEDATA, 4, WORLD_WAIT_DATA);
    guest_write(&world->guest, SPEC_IEADDR, 4, 0xfee01000);
}

void world_init(struct world *world, uint64_t seed)
{
    struct viommu_memory *memory;
    struct guest_config config;

    memset(world, 0, sizeof(*world));
    world_forget_recent();
    world->seed = seed;
    world->random.state = seed;
    world->clock = 1000000000;
    world->wait_masked = true;
    choose_configuration(world);
    world_ok(world, viommu_memory_create(&memory), "memory");
    world_ok(world, ram_init(&world->ram, memory, 1ull << world->vtd.host_address_width), "ram");
    world_ok(world, ram_set_present(&world->ram, 0, true, NULL, NULL), "first slot");
    config = (struct guest_config){
        .vtd = world->vtd,
        .callbacks = {.interrupt = on_interrupt, .event = on_event},
        .opaque = world,
        .clock = world_clock,
        .iotlb_entries = world_percent(world, 50) ? 256 : 0,
        .memory = memory,
        .ram = world->ram.slots[0].host,
        .ram_pages = world->ram.slots[0].size / RAM_PAGE,
    };
    world_ok(world, guest_init(&world->guest, &config), "unit");
    world->guest.queue = world_page(WORLD_QUEUE);
    world->guest.status = world_page(WORLD_STATUS);
    check_capabilities(world);
    faults_init(&world->faults, world->vtd.fault_records);
    make_universe(world);
    program_messages(world);
    history_refresh(&world->history);
    for (unsigned i = 0; i < WORLD_DEVICES; i++) {
        world->devices[i].world = world;
    }
    world->guest.meanwhile = world_take_over_sometimes;
    world->guest.opaque = world;
}

void world_fini(struct world *world)
{
    guest_fini(&world->guest);
    viommu_memory_destroy(world->ram.memory);
    ram_fini(&world->ram);
}

void world_refresh(struct world *world)
{
    if (world->dirty) {
        history_refresh(&world->history);
        world->dirty = false;
    }
    if (history_full(&world->history)) {
        world_invalidate_all(world);
    }
}

bool world_faults_equal(struct world *world, const struct faults *faults)
{
    uint32_t status = (uint32_t)guest_read(&world->guest, SPEC_FSTS, 4);
    uint32_t expected = faults_status(faults);

    if (!(expected & SPEC_PPF)) {
        status &= 0xff; /* the index is not defined then */
    }
    if (status != expected) {
        return false;
    }
    for (unsigned i = 0; i < faults->count; i++) {
        uint64_t hi = guest_read(&world->guest, world->guest.fault_offset + 16 * i + 8, 8);

        if ((hi ^ faults->records[i].hi) & SPEC_F) {
            return false;
        }
        if (hi & SPEC_F && (hi != faults->records[i].hi ||
                            guest_read(&world->guest, world->guest.fault_offset + 16 * i, 8) !=
                                faults->records[i].lo)) {
            return false;
        }
    }
    return true;
}

static void check_control(struct world *world, uint64_t offset, bool masked, bool pending)
{
    uint32_t control = (uint32_t)guest_read(&world->guest, offset, 4);
    uint32_t expected = (masked ? SPEC_IM : 0) | (pending ? SPEC_IP : 0);

    if (control != expected) {
        world_fail(world, "interrupt control register %#llx is %#x, not %#x",
                   (unsigned long long)offset, control, expected);
    }
}

void world_drain(struct world *world)
{
    guest_process(&world->guest);
    if (world->fault_messages_seen != world->faults.messages) {
        world_fail(world, "%llu fault messages came, not %llu",
                   (unsigned long long)world->fault_messages_seen,
                   (unsigned long long)world->faults.messages);
    }
    check_control(world, SPEC_FECTL, world->faults.masked, world->faults.pending);
    if (world->vtd.no_queued_invalidation) {
        return;
    }
    if (world->wait_messages_seen != world->wait_messages) {
        world_fail(world, "%llu completion messages came, not %llu",
                   (unsigned long long)world->wait_messages_seen,
                   (unsigned long long)world->wait_messages);
    }
    check_control(world, SPEC_IECTL, world->wait_masked, world->wait_pending);
    if ((guest_read(&world->guest, SPEC_ICS, 4) & SPEC_IWC) != world->wait_complete) {
        world_fail(world, "ICS.IWC is not %d", world->wait_complete);
    }
}

struct world_device *world_any_device(struct world *world)
{
    unsigned start = world_below(world, WORLD_DEVICES);

    for (unsigned i = 0; i < WORLD_DEVICES; i++) {
        struct world_device *device = &world->devices[(start + i) % WORLD_DEVICES];

        if (device->device) {
            return device;
        }
    }
    return NULL;
}

uint16_t world_any_requester(struct world *world)
{
    return all_requesters[world_below(world, HISTORY_REQUESTERS)];
}

uint64_t world_any_page(struct world *world)
{
    /* Most of the time few pages, so that things meet. */
    unsigned bound = world_percent(world, 60) ? 10 : world->history.page_count;

    if (world_percent(world, 3)) {
        return world->history.pages[81 + world_below(world, 4)];
    }

    return world->history.pages[world_below(world, bound)];
}

uint16_t world_any_domain(struct world *world)
{
    static const uint16_t domains[] = {1, 1, 1, 2, 2, 5, 0, 15};

    return domains[world_below(world, 8)];
}
