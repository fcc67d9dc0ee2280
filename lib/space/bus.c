/* SPDX-License-Identifier: BSD-2-Clause */
/* The bus: spaces, commits that replace their views, and waiting for who uses old ones. */
#include "space/private.h"
#include "space/space.h"

#include "base/alloc.h"
#include "base/wake.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <time.h>

#define YIELDS 64 /* before a wait begins to sleep */

_Thread_local struct space_thread space_thread;

static struct snapshot *snapshot_alloc(struct viommu_bus *bus, uint32_t count)
{
    struct snapshot *snapshot =
        base_alloc(sizeof(*snapshot) + (size_t)count * sizeof(snapshot->views[0]));

    if (snapshot) {
        snapshot->bus = bus;
        snapshot->count = count;
    }
    return snapshot;
}

/* Under the lock. */
static void view_put(struct view *view)
{
    if (!view || --view->references) {
        return;
    }
    for (uint32_t i = 0; i < view->count; i++) {
        region_put(view->ranges[i].region);
    }
    base_free(view);
}

/* Under the lock. */
static void snapshot_drop(struct snapshot *snapshot)
{
    for (uint32_t i = 0; i < snapshot->count; i++) {
        view_put(snapshot->views[i]);
    }
    base_free(snapshot);
}

static void snapshot_free(struct epoch_deferred *deferred)
{
    struct snapshot *snapshot =
        (struct snapshot *)((char *)deferred - offsetof(struct snapshot, deferred));
    struct viommu_bus *bus = snapshot->bus;

    pthread_mutex_lock(&bus->lock);
    snapshot_drop(snapshot);
    pthread_mutex_unlock(&bus->lock);
}

static int init_epochs(struct viommu_bus *bus)
{
    int error = epoch_init(&bus->epoch);

    if (error) {
        return error;
    }
    error = epoch_init(&bus->calls);
    if (error) {
        epoch_fini(&bus->epoch);
    }
    return error;
}

int viommu_bus_create(struct viommu_bus **out)
{
    struct viommu_bus *bus = base_alloc(sizeof(*bus));
    struct snapshot *empty = snapshot_alloc(bus, 0);
    int error = bus && empty ? init_epochs(bus) : -ENOMEM;

    if (error) {
        base_free(empty);
        base_free(bus);
        return error;
    }
    atomic_init(&bus->snapshot, empty);
    pthread_mutex_init(&bus->lock, NULL);
    pthread_mutex_init(&bus->told, NULL);
    *out = bus;
    return 0;
}

void viommu_bus_destroy(struct viommu_bus *bus)
{
    if (!bus) {
        return;
    }
    while (bus->cpus) {
        viommu_cpu_destroy(bus->cpus);
    }
    snapshot_free(&snapshot_now(bus)->deferred);
    epoch_fini(&bus->epoch);
    for (uint32_t i = 0; i < bus->space_count; i++) {
        base_free(bus->spaces[i]);
    }
    epoch_fini(&bus->calls);
    while (bus->regions) {
        struct viommu_region *region = bus->regions;

        bus->regions = region->next;
        region_free(region);
    }
    pthread_mutex_destroy(&bus->told);
    pthread_mutex_destroy(&bus->lock);
    base_free(bus);
}

/* ---- spaces ---- */

int viommu_space_create(struct viommu_region *root, struct viommu_space **out)
{
    struct viommu_bus *bus = root->bus;
    struct viommu_space *space = base_alloc(sizeof(*space));
    const struct snapshot *shown;
    int error = 0;

    if (!space) {
        return -ENOMEM;
    }
    space->bus = bus;
    space->root = root;
    pthread_mutex_lock(&bus->lock);
    shown = snapshot_now(bus);
    /* A number is free when the view of who had it is shown no more. */
    while (space->number < bus->space_count &&
           (bus->spaces[space->number] ||
            (space->number < shown->count && shown->views[space->number]))) {
        space->number++;
    }
    if (space->number == SPACES_MAX) {
        error = -ENOSPC;
    } else {
        bus->spaces[space->number] = space;
        bus->space_count += space->number == bus->space_count;
        region_get(root);
    }
    pthread_mutex_unlock(&bus->lock);
    if (error) {
        base_free(space);
        return error;
    }
    *out = space;
    return 0;
}

/* Its number may be another's after the next commit. */
void viommu_space_destroy(struct viommu_space *space)
{
    if (!space) {
        return;
    }
    pthread_mutex_lock(&space->bus->lock);
    space->bus->spaces[space->number] = NULL;
    region_put(space->root);
    pthread_mutex_unlock(&space->bus->lock);
    base_free(space);
}

struct viommu_bus *space_bus(const struct viommu_space *space)
{
    return space->bus;
}

/* ---- commits ---- */

/* The view of one space for the next snapshot: the last one, if it is not outdated. */
static int next_view(struct viommu_bus *bus, const struct snapshot *last, uint32_t number,
                     struct view **out)
{
    const struct viommu_space *space = bus->spaces[number];
    struct view *view = number < last->count ? last->views[number] : NULL;
    int error = 0;

    if (!space) {
        return 0;
    }
    assert(!view || view->root == space->root); /* a number stays taken while its view is shown */
    if (!view || view_outdated(space->root, view->built)) {
        error = view_build(space->root, &view);
    }
    if (!error) {
        view->references++;
        *out = view;
    }
    return error;
}

static int build(struct viommu_bus *bus, struct snapshot **out)
{
    const struct snapshot *last = snapshot_now(bus);
    struct snapshot *next = snapshot_alloc(bus, bus->space_count);
    int error = next ? 0 : -ENOMEM;

    for (uint32_t i = 0; !error && i < next->count; i++) {
        error = next_view(bus, last, i, &next->views[i]);
    }
    if (error && next) {
        snapshot_drop(next);
    }
    *out = next;
    return error;
}

/* The later one has as many numbers or more: they are used again, and never fewer. */
static bool snapshots_differ(const struct snapshot *last, const struct snapshot *next)
{
    for (uint32_t i = 0; i < next->count; i++) {
        if (i >= last->count || last->views[i] != next->views[i]) {
            return true;
        }
    }
    return false;
}

/* Unpublish, ask, drain: in this order (see private.h). */
static void publish(struct viommu_bus *bus, struct snapshot *next)
{
    struct snapshot *last = atomic_exchange(&bus->snapshot, next);

    pthread_mutex_lock(&bus->told);
    for (struct viommu_cpu *cpu = bus->cpus; cpu; cpu = cpu->next) {
        cpu_ask_all(cpu);
    }
    pthread_mutex_unlock(&bus->told);
    epoch_defer(&bus->epoch, &last->deferred, snapshot_free);
}

static void reap(struct viommu_bus *bus)
{
    epoch_reap(&bus->epoch);
    epoch_reap(&bus->calls);
}

int viommu_bus_commit(struct viommu_bus *bus)
{
    struct snapshot *next;
    int error;

    pthread_mutex_lock(&bus->lock);
    error = build(bus, &next);
    if (!error && snapshots_differ(snapshot_now(bus), next)) {
        publish(bus, next);
    } else if (!error) {
        snapshot_drop(next);
    }
    pthread_mutex_unlock(&bus->lock);
    reap(bus);
    return error;
}

/* ---- waiting ---- */

bool section_enter(struct viommu_bus *bus)
{
    if (!epoch_enter(&bus->epoch)) {
        return false;
    }
    space_thread.sections++;
    return true;
}

void section_leave(struct viommu_bus *bus)
{
    space_thread.sections--;
    epoch_leave(&bus->epoch);
}

void viommu_bus_wait_begin(struct viommu_bus *bus, struct viommu_bus_ticket *ticket)
{
    ticket->sections = epoch_begin_drain(&bus->epoch);
    ticket->calls = 0;
}

static void ask_everybody(struct viommu_bus *bus)
{
    pthread_mutex_lock(&bus->told);
    for (struct viommu_cpu *cpu = bus->cpus; cpu; cpu = cpu->next) {
        cpu_ask(cpu);
    }
    pthread_mutex_unlock(&bus->told);
}

uint64_t bus_drain_begin(struct viommu_bus *bus)
{
    return epoch_begin_drain(&bus->epoch);
}

bool bus_drained(struct viommu_bus *bus, uint64_t target)
{
    if (epoch_drained(&bus->epoch, target)) {
        return true;
    }
    ask_everybody(bus);
    return false;
}

/* A call begins inside of a section, and goes on behind its end. */
int viommu_bus_wait_end(struct viommu_bus *bus, struct viommu_bus_ticket *ticket)
{
    if (!epoch_drained(&bus->epoch, ticket->sections)) {
        ask_everybody(bus);
        return VIOMMU_PENDING;
    }
    if (!ticket->calls) {
        epoch_reap(&bus->epoch);
        ticket->calls = epoch_begin_drain(&bus->calls);
    }
    if (!epoch_drained(&bus->calls, ticket->calls)) {
        return VIOMMU_PENDING;
    }
    epoch_reap(&bus->calls);
    return 0;
}

/* Lets others run before something is looked at again, for the n-th time. */
static void pause_for(unsigned n, uint64_t *pause)
{
    struct timespec time = {0};

    if (n < YIELDS) {
        sched_yield();
        return;
    }
    time.tv_nsec = (long)wake_pause(pause);
    nanosleep(&time, NULL);
}

bool bus_may_wait(void)
{
    return !space_thread.sections && !space_thread.calls;
}

int viommu_bus_wait(struct viommu_bus *bus)
{
    struct viommu_bus_ticket ticket;
    uint64_t pause = 0;

    if (!bus_may_wait()) {
        return -EDEADLK;
    }
    viommu_bus_wait_begin(bus, &ticket);
    for (unsigned n = 0; viommu_bus_wait_end(bus, &ticket) == VIOMMU_PENDING; n++) {
        pause_for(n, &pause);
    }
    return 0;
}

/* Waits until no CPU is as it was. */
static void settle(struct viommu_bus *bus)
{
    uint64_t target = epoch_begin_drain(&bus->epoch);
    uint64_t pause = 0;

    for (unsigned n = 0; !epoch_drained(&bus->epoch, target); n++) {
        ask_everybody(bus);
        pause_for(n, &pause);
    }
}

/* Whether the bus is among the first `count` that the thread's access has changed. */
static bool has_changed(const struct viommu_bus *bus, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (space_thread.changed[i] == bus) {
            return true;
        }
    }
    return false;
}

static void note_changed(struct viommu_bus *bus)
{
    unsigned count = space_thread.changed_count;

    if (count < CHANGED_MAX && !has_changed(bus, count)) {
        space_thread.changed[space_thread.changed_count++] = bus;
    }
}

/*
 * Not for calls: a callback may wait for something that this thread does next. An access to
 * registers that had begun goes on.
 */
void bus_settle(struct viommu_bus *bus)
{
    struct viommu_bus *changed[CHANGED_MAX];
    unsigned count = space_thread.changed_count;

    if (!count || space_thread.calls) {
        return;
    }
    if (space_thread.sections) {
        /* Until the CPU ends its bus is there; of another bus that is not known. */
        space_thread.changed_count = 0;
        if (has_changed(bus, count)) {
            note_changed(bus);
        }
        return;
    }
    memcpy(changed, space_thread.changed, count * sizeof(changed[0]));
    space_thread.changed_count = 0;
    for (unsigned i = 0; i < count; i++) {
        settle(changed[i]);
    }
}

void viommu_bus_stats(struct viommu_bus *bus, struct viommu_bus_stats *stats, size_t size)
{
    struct viommu_bus_stats now = {
        .reentries = atomic_load_explicit(&bus->reentries, memory_order_relaxed),
    };

    memset(stats, 0, size);
    memcpy(stats, &now, size < sizeof(now) ? size : sizeof(now));
}

void viommu_region_iommu_changed(struct viommu_region *region, uint32_t index, uint64_t first,
                                 uint64_t last)
{
    struct viommu_bus *bus = region->bus;

    if (first > last || region->kind != VIOMMU_REGION_IOMMU) {
        return;
    }
    pthread_mutex_lock(&bus->told);
    for (uint32_t i = 0; i < region->iommu->index_count; i++) {
        if (index != i && index != VIOMMU_INDEX_ALL) {
            continue;
        }
        for (struct pair *pair = region->armed[i]; pair; pair = pair->armed_next) {
            cpu_ask_range(pair->cpu, pair, first, last);
        }
    }
    pthread_mutex_unlock(&bus->told);
    if (space_thread.calls) {
        note_changed(bus);
    }
}
