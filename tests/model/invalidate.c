/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The model test invalidates: by registers and by queue, everything or a part, and with accesses
 * while the invalidation is under way. What completes is told to the history.
 */
#include "world.h"

#include <errno.h>
#include <stdatomic.h>

#define BATCH_MAX 6

/* One invalidation, however it is submitted. */
struct invalidation {
    bool iotlb;
    enum spec_granularity granularity;
    uint16_t domain;
    uint16_t requester;
    unsigned function_mask;
    uint64_t address;
    unsigned address_mask;
    uint64_t time;
};

static struct invalidation any_invalidation(struct world *world)
{
    static const uint8_t masks[] = {0, 0, 0, 1, 9, 18, 27};
    unsigned most = (unsigned)(world->guest.cap >> 48 & 63);
    struct invalidation invalidation = {
        .iotlb = world_percent(world, 70),
        .granularity = 1 + world_below(world, 3),
        .domain = world_any_domain(world),
        .requester = world_any_requester(world),
        .function_mask = world_percent(world, 50) ? world_below(world, 4) : 0,
        .address = world_any_page(world),
        .address_mask = masks[world_below(world, 7)],
    };

    if (invalidation.granularity == SPEC_GLOBAL && world_percent(world, 60)) {
        invalidation.granularity = SPEC_SELECTIVE;
    }
    if (invalidation.address_mask > most) {
        invalidation.address_mask = most;
    }
    return invalidation;
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

/*
 * What the guest writes: bits that no domain and no address has are ignored, and may be anything.
 */
static struct invalidation with_ignored_bits(struct world *world,
                                             const struct invalidation *invalidation)
{
    struct invalidation copy = *invalidation;

    if (world_percent(world, 20)) {
        copy.domain |= (uint16_t)(random_u64(&world->random) << world->vtd.domain_bits);
        copy.address |= random_u64(&world->random) << world->vtd.address_width;
    }
    return copy;
}

static void completed(struct world *world, const struct invalidation *invalidation)
{
    if (invalidation->iotlb) {
        uint64_t mask = (1ull << (invalidation->address_mask + 12)) - 1;
        /* Hardware looks at the bits that an address can have. */
        uint64_t address = invalidation->address & ((1ull << world->vtd.address_width) - 1);

        kept_invalidate_pages(&world->kept, invalidation->time, invalidation->granularity,
                              invalidation->domain, address & ~mask, address | mask);
        history_invalidate_iotlb(&world->history, invalidation->time, invalidation->granularity,
                                 invalidation->domain, invalidation->address & ~mask,
                                 invalidation->address | mask);
    } else {
        kept_invalidate_contexts(&world->kept, invalidation->time, invalidation->granularity,
                                 invalidation->domain, invalidation->requester,
                                 invalidation->function_mask);
        history_invalidate_context(&world->history, invalidation->time, invalidation->granularity,
                                   invalidation->domain, invalidation->requester,
                                   invalidation->function_mask);
    }
}

/*
 * Whether the root-table register names a mode that is not legacy mode: nothing is invalidated
 * then.
 */
static bool wrong_mode(const struct world *world)
{
    return world->history.root >> 10 & 3;
}

/* Registers report the granularity that was performed: the one asked for, or a coarser one. */
static void by_registers(struct world *world, struct invalidation *invalidation)
{
    struct invalidation written = with_ignored_bits(world, invalidation);
    unsigned actual;

    note(world, &written, "registers");
    world_refresh(world);
    invalidation->time = history_submit(&world->history);
    if (invalidation->iotlb) {
        guest_flush_iotlb(&world->guest, written.granularity, written.domain, written.address,
                          written.address_mask);
        actual = guest_read(&world->guest, world->guest.iotlb_offset + 8, 8) >> 57 & 3;
    } else {
        guest_flush_context(&world->guest, written.granularity, written.domain, written.requester,
                            written.function_mask);
        actual = guest_read(&world->guest, SPEC_CCMD, 8) >> 59 & 3;
    }
    if (wrong_mode(world)) {
        if (actual) {
            world_fail(world, "actual granularity %u though the root table is of no mode", actual);
        }
        return;
    }
    if (!actual || actual > (unsigned)invalidation->granularity) {
        world_fail(world, "actual granularity %u for %d", actual, invalidation->granularity);
    }
    completed(world, invalidation);
}

static void put(struct world *world, const struct invalidation *invalidation)
{
    struct invalidation written = with_ignored_bits(world, invalidation);
    struct spec_descriptor descriptor;

    note(world, &written, "queue");
    if (written.iotlb) {
        descriptor = spec_iotlb_invalidate(written.granularity, written.domain, written.address,
                                           written.address_mask, world_percent(world, 30));
    } else {
        descriptor = spec_context_invalidate(written.granularity, written.domain,
                                             written.requester, written.function_mask);
    }
    guest_queue_put(&world->guest, descriptor);
}

static void accept_queue(struct world *world)
{
    ram_accept(&world->ram, world_page(WORLD_QUEUE), RAM_PAGE);
    ram_accept(&world->ram, world_page(WORLD_STATUS), RAM_PAGE);
}

/* A wait descriptor of some kind; returns its flags. */
static unsigned put_wait(struct world *world)
{
    unsigned flags = SPEC_WAIT_STATUS;

    if (world_percent(world, 30)) {
        flags |= SPEC_WAIT_INTERRUPT;
    }
    if (world_percent(world, 30)) {
        flags |= SPEC_WAIT_FENCE;
    }
    world_note(world, "wait descriptor, flags %#x", flags);
    guest_queue_put(&world->guest,
                    spec_wait(flags, world->guest.status, ++world->guest.status_value));
    return flags;
}

static bool status_written(struct world *world)
{
    _Atomic uint32_t *status = guest_host(&world->guest, world->guest.status);

    return atomic_load(status) == world->guest.status_value;
}

/* The wait descriptor's interrupt, in the mirror. */
static void wait_interrupt(struct world *world, unsigned flags)
{
    if (!(flags & SPEC_WAIT_INTERRUPT) || world->wait_complete) {
        return;
    }
    world->wait_complete = true;
    if (world->wait_masked) {
        world->wait_pending = true;
    } else {
        world->wait_messages++;
    }
}

/* Lets a submitted queue finish, with accesses meanwhile. */
static void finish(struct world *world)
{
    unsigned calls = 0;

    accept_queue(world);
    while (!status_written(world)) {
        int result;

        /* When a faithful cache drops something, exactly, is not known here before it is over. */
        if (world_percent(world, 40) && world->kept.mode != VIOMMU_CACHE_FAITHFUL) {
            world_access(world);
            accept_queue(world);
        }
        result = viommu_process(world->guest.iommu, 1 + world_below(world, 3));
        accept_queue(world);
        if (result < 0 || ++calls > 200000) {
            world_fail(world, "the wait descriptor does not complete (process: %d, FSTS %#llx)",
                       result, (unsigned long long)guest_read(&world->guest, SPEC_FSTS, 4));
        }
    }
}

static void check_head(struct world *world)
{
    uint64_t head = guest_read(&world->guest, SPEC_IQH, 8);

    if (head != world->guest.queue_tail * 16ull) {
        world_fail(world, "the queue's head is %#llx, not at its tail", (unsigned long long)head);
    }
}

/* DMA that began before an invalidation holds it back. */
static void hold_back(struct world *world)
{
    for (unsigned i = 0; i < 5; i++) {
        int result = viommu_process(world->guest.iommu, 64);

        if (result < 0) {
            world_fail(world, "process: %d", result);
        }
    }
    if (status_written(world)) {
        world_fail(world, "an invalidation completed while DMA was under way");
    }
    viommu_dma_end(world->guest.iommu);
}

static void by_queue(struct world *world, struct invalidation *list, unsigned count)
{
    bool held = world_percent(world, 15);
    unsigned flags;

    world_refresh(world);
    for (unsigned i = 0; i < count; i++) {
        put(world, &list[i]);
        list[i].time = history_submit(&world->history);
    }
    if (world_percent(world, 20)) {
        guest_queue_put(&world->guest,
                        spec_interrupt_cache_invalidate(world_percent(world, 50),
                                                        (uint16_t)world_below(world, 65536),
                                                        world_below(world, 8)));
    }
    flags = put_wait(world);
    if (held) {
        world_note(world, "with DMA under way");
        guest_ok(viommu_dma_begin(world->guest.iommu), "section");
    }
    guest_queue_kick(&world->guest);
    if (held) {
        hold_back(world);
    }
    finish(world);
    wait_interrupt(world, flags);
    for (unsigned i = 0; i < count; i++) {
        completed(world, &list[i]);
    }
    world_drain(world);
    accept_queue(world);
    check_head(world);
}

static void expect_queue_error(struct world *world, uint16_t reasons, uint64_t head);
static void repair(struct world *world);

/* In a wrong mode every descriptor is refused, until the guest sets another root. */
static void refused_by_mode(struct world *world)
{
    uint64_t head = world->guest.queue_tail * 16ull;
    unsigned flags = put_wait(world);

    guest_queue_kick(&world->guest);
    accept_queue(world);
    expect_queue_error(world, 1 << 7, head);
    world_set_root(world, world_page(WORLD_ROOTS));
    repair(world);
    finish(world);
    wait_interrupt(world, flags);
    world_drain(world);
    check_head(world);
}

void world_invalidate(struct world *world)
{
    struct invalidation list[BATCH_MAX];
    unsigned count = 1 + world_below(world, BATCH_MAX);

    if (world->queue_on && wrong_mode(world)) {
        refused_by_mode(world);
        return;
    }
    if (!world->queue_on) {
        list[0] = any_invalidation(world);
        by_registers(world, &list[0]);
        return;
    }
    for (unsigned i = 0; i < count; i++) {
        list[i] = any_invalidation(world);
    }
    by_queue(world, list, count);
}

void world_invalidate_page(struct world *world, uint16_t domain, uint64_t iova)
{
    struct invalidation invalidation = {
        .iotlb = true,
        .granularity = SPEC_SELECTIVE,
        .domain = domain,
        .address = iova,
    };

    if (wrong_mode(world)) {
        return;
    }
    if (world->queue_on) {
        by_queue(world, &invalidation, 1);
    } else {
        by_registers(world, &invalidation);
    }
}

void world_invalidate_all(struct world *world)
{
    uint64_t time;

    if (wrong_mode(world)) {
        world_set_root(world, world_page(WORLD_ROOTS));
    }
    world_note(world, "invalidate everything");
    time = history_submit(&world->history);
    if (world->queue_on) {
        guest_queue_put(&world->guest, spec_context_invalidate(SPEC_GLOBAL, 0, 0, 0));
        guest_queue_put(&world->guest, spec_iotlb_invalidate(SPEC_GLOBAL, 0, 0, 0, false));
        guest_queue_wait(&world->guest);
        accept_queue(world);
    } else {
        guest_flush_context(&world->guest, SPEC_GLOBAL, 0, 0, 0);
        guest_flush_iotlb(&world->guest, SPEC_GLOBAL, 0, 0, 0);
    }
    kept_invalidate_contexts(&world->kept, time, SPEC_GLOBAL, 0, 0, 0);
    kept_invalidate_pages(&world->kept, time, SPEC_GLOBAL, 0, 0, 0);
    history_invalidate_context(&world->history, time, SPEC_GLOBAL, 0, 0, 0);
    history_invalidate_iotlb(&world->history, time, SPEC_GLOBAL, 0, 0, 0);
}

/* Descriptors that are refused, and the reasons (a bit each) that are right. */
static const struct {
    struct spec_descriptor descriptor;
    uint16_t reasons;
} bad[] = {
    {{0, 0}, 1 << 3},
    {{6, 0}, 1 << 3},
    {{15, 0}, 1 << 3},
    {{5 | 1 << 9, 0}, 1 << 3},                   /* upper type bits */
    {{1, 0}, 1 << 3 | 1 << 4},                   /* no granularity */
    {{2, 0}, 1 << 3 | 1 << 4},
    {{1 | 1 << 4 | 1 << 6, 0}, 1 << 4},
    {{1 | 1 << 4 | 1ull << 50, 0}, 1 << 4},
    {{1 | 1 << 4, 1}, 1 << 4},
    {{2 | 1 << 4 | 1 << 8, 0}, 1 << 4},
    {{2 | 1 << 4 | 1 << 12, 0}, 1 << 4},
    {{2 | 1 << 4 | 1ull << 32, 0}, 1 << 4},
    {{2 | 1 << 4, 1 << 7}, 1 << 4},
    {{4 | 1 << 5, 0}, 1 << 4},
    {{4, 1}, 1 << 4},
    {{5 | 1 << 8, 0}, 1 << 4},
    {{5 | 1 << 12, 0}, 1 << 4},
    {{5, 1}, 1 << 4},
    {{3 | 1 << 4, 0}, 1 << 3 | 1 << 4}, /* a wrong type without device-TLBs */
    {{3, 2}, 1 << 3 | 1 << 4},
};

/* Makes the queue go on after an error. */
static void repair(struct world *world)
{
    guest_write(&world->guest, SPEC_FSTS, 4, SPEC_IQE);
    faults_write_status(&world->faults, SPEC_IQE);
}

static void expect_queue_error(struct world *world, uint16_t reasons, uint64_t head)
{
    unsigned reason;

    guest_process(&world->guest);
    accept_queue(world);
    faults_queue_error(&world->faults, SPEC_IQE);
    reason = guest_read(&world->guest, SPEC_IQERCD, 8) & 15;
    if (!world_faults_equal(world, &world->faults) || !(reasons >> reason & 1)) {
        world_fail(world, "queue error: FSTS %#llx, not %#x; reason %u",
                   (unsigned long long)guest_read(&world->guest, SPEC_FSTS, 4),
                   faults_status(&world->faults), reason);
    }
    if (guest_read(&world->guest, SPEC_IQH, 8) != head) {
        world_fail(world, "queue error: head %#llx, not %#llx",
                   (unsigned long long)guest_read(&world->guest, SPEC_IQH, 8),
                   (unsigned long long)head);
    }
    if (status_written(world)) {
        world_fail(world, "a wait descriptor behind a queue error completed");
    }
    world_drain(world);
}

static void bad_tail(struct world *world)
{
    uint64_t head = guest_read(&world->guest, SPEC_IQH, 8);
    unsigned flags;

    flags = put_wait(world);
    accept_queue(world);
    guest_write(&world->guest, SPEC_IQT, 8, 256 * 16);
    expect_queue_error(world, 1 << 1, head);
    guest_queue_kick(&world->guest);
    repair(world);
    finish(world);
    wait_interrupt(world, flags);
}

void world_bad_descriptor(struct world *world)
{
    unsigned which = world_below(world, sizeof(bad) / sizeof(bad[0]) + 1);
    uint64_t head;
    uint64_t slot;
    unsigned flags;

    if (!world->queue_on || wrong_mode(world)) {
        return;
    }
    world_refresh(world);
    world_note(world, "bad descriptor %u", which);
    if (which == sizeof(bad) / sizeof(bad[0])) {
        bad_tail(world);
    } else {
        head = world->guest.queue_tail * 16ull;
        slot = world->guest.queue + head;
        guest_queue_put(&world->guest, bad[which].descriptor);
        flags = put_wait(world);
        guest_queue_kick(&world->guest);
        accept_queue(world);
        expect_queue_error(world, bad[which].reasons, head);
        /* A write of the tail does not start it again; a repaired descriptor and FSTS do. */
        guest_queue_kick(&world->guest);
        guest_process(&world->guest);
        if (status_written(world)) {
            world_fail(world, "the queue went on in spite of IQE");
        }
        guest_store(&world->guest, slot + 8, 0);
        guest_store(&world->guest, slot, 5);
        repair(world);
        finish(world);
        wait_interrupt(world, flags);
    }
    world_drain(world);
    accept_queue(world);
    check_head(world);
}

/*
 * Device-TLB invalidations: who hears of them, and that the wait descriptor waits for the answer.
 */

static void expect_heard(struct world *world, struct world_device *device, uint64_t first,
                         uint64_t last)
{
    if (device->denied) {
        return; /* fenced */
    }
    if (!device->heard || device->heard_first > first || device->heard_last < last) {
        world_fail(world, "device %04x did not hear of [%#llx, %#llx]", device->requester,
                   (unsigned long long)first, (unsigned long long)last);
    }
}

/* The answer failed, or did not come: the device is denied; the queue may have stopped. */
static void expect_denied(struct world *world, struct world_device *device, uint64_t events)
{
    uint32_t status;

    for (unsigned i = 0; i < 100; i++) {
        guest_process(&world->guest);
    }
    status = (uint32_t)guest_read(&world->guest, SPEC_FSTS, 4) & (SPEC_ICE | SPEC_ITE);
    if (status) {
        faults_queue_error(&world->faults, status);
        world_drain(world);
        guest_write(&world->guest, SPEC_FSTS, 4, status);
        faults_write_status(&world->faults, status);
    }
    device->denied = true;
    if (world->denied_events == events) {
        world_fail(world, "no event tells that %04x is denied", device->requester);
    }
    if (!status_written(world)) {
        /* Aborted, as the specification has it: the guest asks again. */
        guest_queue_put(&world->guest,
                        spec_wait(SPEC_WAIT_STATUS, world->guest.status,
                                  world->guest.status_value));
        guest_queue_kick(&world->guest);
    }
    finish(world);
    world_drain(world);
    accept_queue(world);
}

/* The device answers, perhaps while requests that it sent before are under way. */
static void answer(struct world *world, struct world_device *device)
{
    bool held = world_percent(world, 30);

    if (held) {
        guest_ok(viommu_dma_begin(world->guest.iommu), "section");
    }
    world_ok(world, viommu_change_complete(world->guest.iommu, device->token, 0), "complete");
    if (held) {
        world_note(world, "answered with DMA under way");
        hold_back(world);
    }
}

void world_device_tlb(struct world *world)
{
    struct world_device *device = world_any_device(world);
    unsigned order = world_percent(world, 50) ? 0 : world_below(world, 20);
    uint64_t size = 1ull << (order + 12);
    uint64_t first = world_any_page(world) & ~(size - 1);
    uint64_t events = world->denied_events;

    if (!world->queue_on || wrong_mode(world) || !device || !device->ats || !device->subscriber) {
        return;
    }
    world_refresh(world);
    device->heard = false;
    device->answer = world_percent(world, 50)   ? WORLD_ANSWER_NOW
                     : world_percent(world, 80) ? WORLD_ANSWER_LATER
                     : world_percent(world, 50) ? WORLD_ANSWER_FAIL
                                                : WORLD_ANSWER_NEVER;
    world_note(world, "invalidate device-TLB %04x %#llx order %u, answer %d", device->requester,
               (unsigned long long)first, order, device->answer);
    guest_queue_put(&world->guest, spec_device_tlb_invalidate(device->requester, first, order));
    guest_queue_put(&world->guest,
                    spec_wait(SPEC_WAIT_STATUS, world->guest.status, ++world->guest.status_value));
    guest_queue_kick(&world->guest);
    accept_queue(world);
    guest_process(&world->guest);
    accept_queue(world);
    expect_heard(world, device, first, first + (size - 1));
    if (!device->denied && device->answer != WORLD_ANSWER_NOW) {
        if (device->answer != WORLD_ANSWER_FAIL && status_written(world)) {
            world_fail(world, "the wait descriptor did not wait for %04x", device->requester);
        }
        if (device->answer == WORLD_ANSWER_NEVER) {
            world->clock += 600 * 1000000ull;
        }
        if (device->answer != WORLD_ANSWER_LATER) {
            expect_denied(world, device, events);
            return;
        }
        world_access(world);
        answer(world, device);
        if (viommu_change_complete(world->guest.iommu, device->token, 0) != -ENOENT) {
            world_fail(world, "a token was good twice");
        }
    }
    finish(world);
    world_drain(world);
    accept_queue(world);
}
