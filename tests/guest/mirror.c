/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * mirror.c - a small guest inside the test guest.  See mirror.h.
 */
#include "mirror.h"

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "iova.h"
#include "memory.h"
#include "report.h"

enum {
    SYNC_SECONDS = 300,         /* 100,000 mappings on an emulated CPU */
    SETTLE_SECONDS = 30,
};

static uint64_t seconds_now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec;
}

/* ---- what the backend is told ---- */

static void record(struct mirror *m, const struct viommu_change *change, int answer)
{
    unsigned at = mirror_calls(m);

    if (at < MIRROR_CALLS) {
        m->calls[at] = (struct mirror_call){
            .kind = change->kind,
            .first = change->first,
            .last = change->last,
            .gpa = change->gpa,
            .perm = change->perm,
            .answer = answer,
        };
    }
    if (change->kind == VIOMMU_CHANGE_MAP) {
        m->maps++;
    } else {
        m->unmaps++;
    }
    if (answer < 0) {
        m->refused++;
    }
}

static int on_change(void *opaque, const struct viommu_change *change)
{
    struct mirror *m = opaque;
    int answer = m->backend.change(m->backend.opaque, change);

    record(m, change, answer);
    return answer;
}

static int on_fence(void *opaque)
{
    struct mirror *m = opaque;

    m->fences++;
    return m->backend.fence(m->backend.opaque);
}

static void on_event(void *opaque, const struct viommu_event *event)
{
    struct mirror *m = opaque;
    unsigned kind = (unsigned)event->kind;

    if (kind < MIRROR_EVENT_KINDS) {
        m->events[kind]++;
        m->last_event[kind] = *event;
    }
}

void mirror_forget(struct mirror *m)
{
    m->maps = m->unmaps = m->refused = m->fences = 0;
    memset(m->events, 0, sizeof(m->events));
}

unsigned mirror_calls_at(const struct mirror *m, enum viommu_change_kind kind, uint64_t first,
                         uint64_t last)
{
    unsigned n = 0;

    for (unsigned i = 0; i < mirror_calls(m) && i < MIRROR_CALLS; i++) {
        const struct mirror_call *call = &m->calls[i];

        n += call->kind == kind && call->first <= last && call->last >= first;
    }
    return n;
}

void mirror_show_calls(const struct mirror *m)
{
    enum { SHOWN = 20 };

    for (unsigned i = 0; i < mirror_calls(m) && i < SHOWN; i++) {
        const struct mirror_call *call = &m->calls[i];

        note("call %u: %s [%#llx, %#llx] gpa %#llx perm %u: %d", i,
             call->kind == VIOMMU_CHANGE_MAP ? "map" : "unmap", (unsigned long long)call->first,
             (unsigned long long)call->last, (unsigned long long)call->gpa, call->perm,
             call->answer);
    }
    note("calls: %u maps, %u unmaps, of them %u failed", m->maps, m->unmaps, m->refused);
}

struct viommu_subscriber_status mirror_status(struct mirror *m)
{
    struct viommu_subscriber_status status = {0};

    viommu_subscriber_status(m->subscriber, &status, sizeof(status));
    return status;
}

/* ---- the unit works ---- */

/* Let the unit do what it can now; sleep a little when that was nothing. */
static void work(struct mirror *m)
{
    if (viommu_process(m->guest.iommu, 0) == 0) {
        struct pollfd p = {.fd = viommu_event_fd(m->guest.iommu), .events = POLLIN};

        poll(&p, 1, 10);
    }
}

/* As guest_queue_wait(), for longer. */
static void queue_wait(struct mirror *m)
{
    struct guest *guest = &m->guest;
    _Atomic uint32_t *status = guest_host(guest, guest->status);
    uint32_t value = ++guest->status_value;
    uint64_t end = seconds_now() + SYNC_SECONDS;

    guest_queue_put(guest, spec_wait(SPEC_WAIT_STATUS, guest->status, value));
    guest_queue_kick(guest);
    while (le32toh(atomic_load(status)) != value) {
        if (seconds_now() > end) {
            guest_die("the inner unit does not complete an invalidation");
        }
        work(m);
    }
}

void mirror_invalidate(struct mirror *m, uint64_t iova, unsigned order)
{
    guest_queue_put(&m->guest,
                    spec_iotlb_invalidate(SPEC_SELECTIVE, MIRROR_DOMAIN, iova, order, false));
    queue_wait(m);
}

void mirror_invalidate_domain(struct mirror *m)
{
    guest_queue_put(&m->guest, spec_iotlb_invalidate(SPEC_DOMAIN, MIRROR_DOMAIN, 0, 0, false));
    queue_wait(m);
}

bool mirror_wait_differences(struct mirror *m, uint64_t differences, unsigned seconds)
{
    uint64_t end = seconds_now() + seconds;

    while (mirror_status(m).differences != differences && seconds_now() <= end) {
        work(m);
    }
    return mirror_status(m).differences == differences;
}

static bool wait_until_complete(struct mirror *m)
{
    uint64_t end = seconds_now() + SETTLE_SECONDS;

    while (mirror_status(m).behind && seconds_now() <= end) {
        work(m);
    }
    return !mirror_status(m).behind;
}

/* ---- tables ---- */

void mirror_map(struct mirror *m, uint64_t iova, uint64_t gpa, uint32_t perm)
{
    guest_map(&m->guest, m->table, 4, iova, gpa, 1, perm);
}

void mirror_map_big(struct mirror *m, uint64_t iova, uint64_t gpa)
{
    guest_map(&m->guest, m->table, 4, iova, gpa, 2, SPEC_R | SPEC_W);
}

void mirror_split(struct mirror *m, uint64_t iova, uint64_t gpa)
{
    uint64_t slot = guest_map(&m->guest, m->table, 4, iova, gpa, 2, SPEC_R | SPEC_W);
    uint64_t table = guest_page(&m->guest);

    for (unsigned i = 0; i < SUPER_PAGE / PAGE; i++) {
        guest_store(&m->guest, table + i * 8, (gpa + i * (uint64_t)PAGE) | SPEC_R | SPEC_W);
    }
    guest_store(&m->guest, slot, table | SPEC_R | SPEC_W);
}

void mirror_unmap(struct mirror *m, uint64_t iova)
{
    mirror_map(m, iova, 0, 0);
}

/* ---- memory ---- */

static void add_slot(struct viommu_memory_batch *batch, uint64_t first, size_t size, void *host)
{
    struct viommu_memory_slot slot = {
        .first = first,
        .last = first + size - 1,
        .host = host,
        .fd = -1,
    };

    guest_ok(viommu_memory_batch_add(batch, &slot), "a slot");
}

static void set_flag(void *opaque)
{
    *(bool *)opaque = true;
}

/* Commit, and wait for the end as an embedder's loop does. */
static bool commit(struct mirror *m, struct viommu_memory_batch *batch)
{
    uint64_t end = seconds_now() + SETTLE_SECONDS;
    bool done = false;
    int answer = viommu_memory_batch_commit(batch, set_flag, &done);

    if (answer != VIOMMU_PENDING) {
        return answer == 0;
    }
    while (!done && seconds_now() <= end) {
        viommu_memory_process(m->memory);
        if (!done) {
            work(m);
        }
    }
    return done;
}

bool mirror_plug(struct mirror *m, bool in)
{
    struct viommu_memory_batch *batch;

    guest_ok(viommu_memory_batch_begin(m->memory, &batch), "a batch");
    if (in) {
        add_slot(batch, PLUG, PLUG_SIZE, m->plug);
    } else {
        guest_ok(viommu_memory_batch_remove(batch, PLUG, PLUG + PLUG_SIZE - 1), "a removal");
    }
    return commit(m, batch) && (!m->subscriber || wait_until_complete(m));
}

static bool make_memory(struct mirror *m)
{
    struct viommu_memory_batch *batch;

    m->ram = memory_get(RAM_SIZE, SUPER_PAGE);
    m->window = memory_get(WINDOW_SIZE, PAGE);
    m->plug = memory_get(PLUG_SIZE, PAGE);
    if (!m->ram || !m->window || !m->plug || viommu_memory_create(&m->memory)) {
        return false;
    }
    guest_ok(viommu_memory_batch_begin(m->memory, &batch), "a batch");
    add_slot(batch, 0, RAM_SIZE, m->ram);
    add_slot(batch, WINDOW_IOVA, WINDOW_SIZE, m->window);
    add_slot(batch, PLUG, PLUG_SIZE, m->plug);
    return commit(m, batch);
}

/* ---- all of it ---- */

static int make_inner(struct mirror *m)
{
    struct guest_config config = {
        .vtd = {.caching_mode = true},
        .callbacks = {.event = on_event},
        .opaque = m,
        .ram_pages = RAM_SIZE / PAGE,
    };
    struct viommu_device_config device = {.requester = (uint16_t)m->station.edu->source};
    int error;

    if (!make_memory(m)) {
        return -ENOMEM;
    }
    config.memory = m->memory;
    config.ram = m->ram;
    error = guest_init(&m->guest, &config);
    return error ? error : viommu_device_add(m->guest.iommu, &device, &m->device);
}

bool mirror_open(struct mirror *m, struct edu *edu, bool iommufd, unsigned limit)
{
    const char *name = iommufd ? "iommufd" : "a VFIO container";
    int error;

    memset(m, 0, sizeof(*m));
    m->station.edu = edu;
    error = make_inner(m);
    errno = -error;
    if (!check(!error, "an inner unit")) {
        return false;
    }
    m->station.window = m->window;
    error = host_open(&m->host, edu, iommufd, limit);
    errno = -error;
    return check(!error, "%s: in %s", edu->bdf, name);
}

void mirror_close(struct mirror *m)
{
    host_close(&m->host);
    guest_fini(&m->guest);
    viommu_memory_destroy(m->memory);
    memory_put(m->ram, RAM_SIZE);
    memory_put(m->window, WINDOW_SIZE);
    memory_put(m->plug, PLUG_SIZE);
}

bool mirror_subscribe(struct mirror *m, uint64_t mappings_max, uint32_t differences_max)
{
    struct viommu_subscription what;
    int error = host_attach(&m->host, &m->backend);

    errno = -error;
    if (!check(!error, "a backend for it")) {
        return false;
    }
    what = m->backend;
    what.change = on_change;
    what.fence = on_fence;
    what.opaque = m;
    what.differences_max = differences_max;
    if (mappings_max) {
        what.mappings_max = mappings_max;
    }
    error = viommu_device_subscribe(m->device, &what, &m->subscriber);
    errno = -error;
    if (!check(!error, "it subscribes")) {
        host_detach(&m->host);
        return false;
    }
    report_detail("still behind after %d s", SETTLE_SECONDS);
    return check(wait_until_complete(m), "it gets what is mapped");
}

bool mirror_unsubscribe(struct mirror *m)
{
    int error = viommu_subscriber_destroy(m->subscriber);

    m->subscriber = NULL;
    if (!error) {
        error = host_detach(&m->host);
    }
    errno = -error;
    return check(!error, "it unsubscribes, and unmaps everything");
}

bool mirror_reaches(struct mirror *m, uint64_t iova, uint8_t *memory)
{
    struct station *s = &m->station;
    uint64_t seed = pattern_new_seed();

    pattern_fill(memory, PAGE, seed);
    if (edu_from_ram(s->edu, iova, 0, PAGE) || !station_show(s) ||
        !pattern_matches(s->window, 0, PAGE, seed)) {
        report_detail("a read from %#llx brings other bytes", (unsigned long long)iova);
        return false;
    }
    memset(memory, 0, PAGE);
    if (edu_to_ram(s->edu, iova, 0, PAGE) || !pattern_matches(memory, 0, PAGE, seed)) {
        report_detail("a write to %#llx does not arrive", (unsigned long long)iova);
        return false;
    }
    return true;
}
