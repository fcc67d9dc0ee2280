/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The world of the mirrors' model test: see world.h.
 */
#include "world.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ACK_TIMEOUT 500000000ull
#define ROUNDS_MAX 200000u

static const uint16_t requesters[WORLD_DEVICES] = {0x0008, 0x0009, 0x0010, 0x0108};

/* Notes. */

void world_note(struct world *world, const char *format, ...)
{
    char *note = world->notes[world->note_count++ % WORLD_NOTES];
    int used = snprintf(note, sizeof(world->notes[0]), "%llu: ", (unsigned long long)world->step);
    va_list args;

    va_start(args, format);
    vsnprintf(note + used, sizeof(world->notes[0]) - (size_t)used, format, args);
    va_end(args);
    if (world->trace) {
        printf("%s\n", note);
    }
}

void world_fail(struct world *world, const char *format, ...)
{
    unsigned first = world->note_count > WORLD_NOTES ? world->note_count - WORLD_NOTES : 0;
    va_list args;

    fflush(stdout);
    for (unsigned i = first; i < world->note_count; i++) {
        fprintf(stderr, "%s\n", world->notes[i % WORLD_NOTES]);
    }
    fprintf(stderr, "seed %llu, step %llu: ", (unsigned long long)world->seed,
            (unsigned long long)world->step);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\nreplay: mirror_test --seed %llu --steps %llu\n",
            (unsigned long long)world->seed, (unsigned long long)world->step + 1);
    if (world->alloc_failed_at) {
        fprintf(stderr, "or mirror_alloc_test --seed %llu --at %lu\n",
                (unsigned long long)world->seed, world->alloc_failed_at);
    }
    if (world->trouble.at) {
        fprintf(stderr, "or mirror_failure_test --seed %llu --mode ... --at %lu\n",
                (unsigned long long)world->seed, world->trouble.at);
    }
    abort();
}

void world_ok(struct world *world, int error, const char *what)
{
    if (error) {
        world_fail(world, "%s: %s (%d)", what, error < 0 ? strerror(-error) : "not 0", error);
    }
}

/* Work. */

void world_process(struct world *world)
{
    unsigned budget = world_percent(world, 50) ? 0 : 1 + world_below(world, 20);
    int result;

    for (unsigned round = 0;; round++) {
        takeover_sometimes(world);
        result = viommu_process(world->guest.iommu, budget);
        if (result == 0) {
            return;
        }
        if (result != VIOMMU_PENDING && !(result == -ENOMEM && world->trouble.alloc)) {
            world_fail(world, "viommu_process: %d", result);
        }
        if (round > ROUNDS_MAX) {
            world_fail(world, "viommu_process never ends");
        }
    }
}

bool world_answer(struct world *world)
{
    unsigned first = world_below(world, WORLD_MIRRORS);

    for (unsigned i = 0; i < WORLD_MIRRORS; i++) {
        struct mirror *mirror = &world->mirrors[(first + i) % WORLD_MIRRORS];
        uint64_t token = mirror->recorder.pending.token;
        int status = mirror->answer == ANSWER_FAIL ? -EIO : 0;

        if (!mirror->subscriber || !mirror->recorder.outstanding ||
            mirror->answer == ANSWER_NEVER) {
            continue;
        }
        recorder_complete(&mirror->recorder, status);
        world_ok(world, viommu_change_complete(world->guest.iommu, token, status), "complete");
        if (viommu_change_complete(world->guest.iommu, token, 0) != -ENOENT) {
            world_fail(world, "a token was good twice");
        }
        return true;
    }
    return false;
}

/* Time passes until those that never answer have been fenced. */
static bool time_out(struct world *world)
{
    uint64_t tokens[WORLD_MIRRORS];
    bool late[WORLD_MIRRORS];
    bool some = false;

    for (unsigned i = 0; i < WORLD_MIRRORS; i++) {
        late[i] = world->mirrors[i].subscriber && world->mirrors[i].recorder.outstanding;
        tokens[i] = world->mirrors[i].recorder.pending.token;
        some |= late[i];
    }
    if (!some) {
        return false;
    }
    world_note(world, "somebody does not answer in time");
    world->clock += ACK_TIMEOUT + ACK_TIMEOUT / 5;
    world_process(world);
    for (unsigned i = 0; i < WORLD_MIRRORS; i++) {
        if (late[i] && !world->mirrors[i].recorder.fenced) {
            world_fail(world, "mirror %u did not answer in time and is not fenced", i);
        }
        if (late[i] && viommu_change_complete(world->guest.iommu, tokens[i], 0) != -ENOENT) {
            world_fail(world, "a token that timed out is good");
        }
    }
    return true;
}

/* What the operation waits for may not be over while a mirror has not answered. */
static void check_waited(struct world *world, const char *what)
{
    for (unsigned i = 0; i < WORLD_MIRRORS; i++) {
        const struct recorder *recorder = &world->mirrors[i].recorder;
        const struct viommu_change *change = &recorder->pending;

        if (!world->mirrors[i].subscriber || !recorder->outstanding ||
            !(world->causes >> change->cause & 1) || change->cause == VIOMMU_CAUSE_RETRY ||
            change->cause == VIOMMU_CAUSE_REPLAY ||
            (change->cause == VIOMMU_CAUSE_MEMORY && change->kind == VIOMMU_CHANGE_MAP)) {
            continue;
        }
        world_fail(world, "%s is over, but mirror %u has not answered", what, i);
    }
}

void world_finish(struct world *world, bool (*done)(struct world *world), const char *what)
{
    for (unsigned round = 0; round < ROUNDS_MAX; round++) {
        world_process(world);
        if (done(world)) {
            check_waited(world, what);
            return;
        }
        if (!world_answer(world) && !time_out(world) && round > 1000) {
            break;
        }
    }
    world_fail(world, "%s does not end", what);
}


static void settle(struct world *world)
{
    do {
        world_process(world);
    } while (world_answer(world) || time_out(world));
}

/* Operations. */

void world_begin(struct world *world, uint32_t causes)
{
    struct viommu_stats stats;

    world->interleaved = false;
    world->one_sync = false;
    world->taken_over = false;
    world->causes = causes;
    model_note_stale(world);
    viommu_stats_get(world->guest.iommu, &stats, sizeof(stats));
    world->interrupted_before = stats.pages_interrupted;
    world->rewritten_before = world->rewritten_events;
    world->stop_before = world->stop_events;
    for (unsigned i = 0; i < WORLD_MIRRORS; i++) {
        snprintf(world->mirrors[i].name, sizeof(world->mirrors[i].name), "    %u", i);
        world->mirrors[i].recorder.trace = world->trace ? world->mirrors[i].name : NULL;
        recorder_begin(&world->mirrors[i].recorder);
    }
}

static void check_denied(struct world *world, const struct mirror *mirror)
{
    uint8_t byte;
    int result = viommu_device_read(world->devices[mirror->device].device, NULL, 0x1000, &byte, 1);

    if (result != -EPERM) {
        world_fail(world, "device %u is not denied: %d", mirror->device, result);
    }
}

/* A fence must have a reason, and a reason must have its fence. */
static void check_fence(struct world *world, struct mirror *mirror,
                        const struct viommu_subscriber_status *status)
{
    unsigned number = (unsigned)(mirror - world->mirrors);

    if (status->fenced != mirror->recorder.fenced) {
        world_fail(world, "mirror %u: fenced is %d", number, status->fenced);
    }
    if (mirror->expect_fence && !status->fenced) {
        world_fail(world, "mirror %u failed, but is not fenced", number);
    }
    if (status->fenced && !mirror->expect_fence && !mirror->may_fence && !world->trouble.alloc &&
        world->policy != VIOMMU_REWRITE_FENCE) {
        world_fail(world, "mirror %u is fenced for nothing", number);
    }
    /* A policy denies as a failure does; too many differences, too; a quota does not. */
    if (mirror->expect_fence || (status->fenced && !world->trouble.alloc)) {
        check_denied(world, mirror);
    }
}

static void check_status(struct world *world, struct mirror *mirror)
{
    struct viommu_subscriber_status status;
    unsigned number = (unsigned)(mirror - world->mirrors);

    viommu_subscriber_status(mirror->subscriber, &status, sizeof(status));
    check_fence(world, mirror, &status);
    mirror->differs = status.differences;
    if (status.fenced) {
        return;
    }
    if (status.mappings != mirror->recorder.mapped.count) {
        world_fail(world, "mirror %u: %llu mappings, but status says %llu", number,
                   (unsigned long long)mirror->recorder.mapped.count,
                   (unsigned long long)status.mappings);
    }
    if (status.behind && !status.differences && !world->trouble.alloc) {
        world_fail(world, "mirror %u is behind, though nothing is to be done", number);
    }
    if (status.differences && !mirror->recorder.what.mappings_max && !world->failures &&
        !world->trouble.alloc) {
        world_fail(world, "mirror %u has differences, though nothing failed", number);
    }
}

static void check_interrupted(struct world *world, uint64_t interrupted, bool exact)
{
    struct viommu_stats stats;
    uint64_t counted;

    viommu_stats_get(world->guest.iommu, &stats, sizeof(stats));
    counted = stats.pages_interrupted - world->interrupted_before;
    if (exact && counted != interrupted) {
        world_fail(world, "%llu pages interrupted, but counted %llu",
                   (unsigned long long)interrupted, (unsigned long long)counted);
    }
    world->interrupted += interrupted;
}

static void check_causes(struct world *world, const struct mirror *mirror)
{
    uint32_t causes = world->causes | 1u << VIOMMU_CAUSE_RETRY;

    if (mirror->recorder.causes & ~causes) {
        world_fail(world, "mirror %u heard of causes %#x in an operation of %#x",
                   (unsigned)(mirror - world->mirrors), mirror->recorder.causes, causes);
    }
}

/* One sync that rewrote live entries was told of, and the policy kept. */
static void check_rewritten(struct world *world, const struct mirror *mirror)
{
    if (!mirror->recorder.rewritten || !world->one_sync) {
        return;
    }
    if (world->rewritten_events == world->rewritten_before) {
        world_fail(world, "no event tells of entries that were rewritten");
    }
    if (world->policy == VIOMMU_REWRITE_FENCE) {
        world_fail(world, "mirror %u followed entries that were rewritten, against the policy",
                   (unsigned)(mirror - world->mirrors));
    }
    if (world->policy == VIOMMU_REWRITE_STOP && world->stop_events == world->stop_before) {
        world_fail(world, "no event asks to stop");
    }
}

void world_end(struct world *world)
{
    uint64_t interrupted = 0;
    bool exact = !world->interleaved && !world->trouble.alloc;

    settle(world);
    exact &= !world->taken_over;
    model_refresh(world);
    for (unsigned i = 0; i < WORLD_MIRRORS; i++) {
        struct mirror *mirror = &world->mirrors[i];

        if (!mirror->subscriber) {
            continue;
        }
        exact &= !mirror->differs; /* as it was before, */
        check_status(world, mirror);
        exact &= !mirror->differs && !mirror->recorder.fenced; /* and is now */
        if (mirror->recorder.fenced) {
            continue;
        }
        check_causes(world, mirror);
        check_rewritten(world, mirror);
        if (!world->interleaved) {
            interrupted += recorder_end(&mirror->recorder, world->one_sync);
            exact &= !mirror->recorder.excused;
        }
        model_check(world, mirror);
    }
    check_interrupted(world, interrupted, exact && !world->failures);
    model_unused(world);
}

void world_heal(struct world *world)
{
    bool more = true;

    world_note(world, "nothing fails any more");
    world_begin(world, 1u << VIOMMU_CAUSE_RETRY);
    world->healing = true;
    settle(world);
    for (unsigned round = 0; more && round < 20; round++) {
        more = false;
        world->clock += 1100000000;
        settle(world);
        for (unsigned i = 0; i < WORLD_MIRRORS; i++) {
            struct mirror *mirror = &world->mirrors[i];

            if (mirror->subscriber) {
                check_status(world, mirror);
                more |= mirror->differs && !mirror->recorder.fenced &&
                        !mirror->recorder.what.mappings_max;
            }
        }
    }
    if (more) {
        world_fail(world, "what failed is not made good");
    }
    world->interleaved = true;
    world_end(world);
    world->healing = false;
}

/* Life. */

static uint64_t clock_now(void *opaque)
{
    return ((struct world *)opaque)->clock;
}

static void on_event(void *opaque, const struct viommu_event *event)
{
    struct world *world = opaque;

    if (world->trace) {
        printf("    event %d of %04x, error %d: [%#llx, %#llx] %s\n", event->kind, event->requester,
               event->error, (unsigned long long)event->first, (unsigned long long)event->last,
               event->text);
    }
    world->fenced_events += event->kind == VIOMMU_EVENT_FENCED;
    world->denied_events += event->kind == VIOMMU_EVENT_DENIED;
    world->rewritten_events += event->kind == VIOMMU_EVENT_REWRITTEN ||
                               event->kind == VIOMMU_EVENT_OVERFLOW;
    world->stop_events += event->kind == VIOMMU_EVENT_STOP;
    if (event->kind == VIOMMU_EVENT_REENTRY) {
        world_fail(world, "event %d: %s", event->kind, event->text);
    }
}

static void add_devices(struct world *world)
{
    for (unsigned i = 0; i < WORLD_DEVICES; i++) {
        struct viommu_device_config config = {.requester = requesters[i]};

        world->devices[i].requester = requesters[i];
        world_ok(world, viommu_device_add(world->guest.iommu, &config, &world->devices[i].device),
                 "device");
    }
}

void world_init(struct world *world, uint64_t seed, const struct trouble *trouble)
{
    static const uint8_t widths[] = {48, 46, 52, 48};
    struct guest_config config = {
        .callbacks = {.event = on_event},
        .opaque = world,
        .clock = clock_now,
        .ram_pages = 256,
    };

    memset(world, 0, sizeof(*world));
    world->seed = seed;
    world->random.state = seed;
    world->clock = 1000000000;
    world->vtd = (struct viommu_vtd_config){
        .address_width = world_percent(world, 75) ? 48 : 39,
        .host_address_width = widths[world_below(world, 4)],
        .caching_mode = true,
        .no_super_pages = world_percent(world, 15),
        .no_snoop_control = world_percent(world, 15),
        .no_pass_through = world_percent(world, 10),
    };
    world->policy = seed % 16 == 10   ? VIOMMU_REWRITE_STOP
                    : seed % 16 == 14 ? VIOMMU_REWRITE_FENCE
                                      : VIOMMU_REWRITE_CONTINUE;
    world_ok(world, viommu_memory_create(&config.memory), "memory");
    world->guest.memory = config.memory;
    memory_init(world);
    memory_add_all(world);
    config.ram = world->slots[SLOT_MAIN].hosts[0];
    config.vtd = world->vtd;
    config.rewrite_policy = world->policy;
    world_ok(world, guest_init(&world->guest, &config), "guest");
    model_init(world);
    tables_init(world);
    add_devices(world);
    world->trouble = *trouble;
    for (unsigned i = 0; i < 6; i++) {
        context_edit(world);
    }
    command_start(world);
    model_refresh(world);
    model_unused(world);
}

void world_fini(struct world *world)
{
    struct viommu_memory *memory = world->guest.memory;

    for (unsigned i = 0; i < WORLD_MIRRORS; i++) {
        if (world->mirrors[i].subscriber) {
            mirrors_remove(world, &world->mirrors[i]);
        }
        recorder_fini(&world->mirrors[i].recorder);
    }
    guest_fini(&world->guest);
    viommu_memory_destroy(memory);
    memory_fini(world);
    model_fini(world);
}
