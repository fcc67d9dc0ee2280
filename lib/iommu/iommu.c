/* SPDX-License-Identifier: BSD-2-Clause */
/* The instance: life, work, time, and what is told to the embedder. */
#include "iommu/watch.h"

#include "base/alloc.h"

#include <errno.h>

#define DEFAULT_BUDGET 256
/*
 * What a round has left for mirrors, subscribers and holders when the model's work ended it: a
 * guest that keeps the model busy keeps nobody from making room for memory that is removed.
 */
#define OTHERS_BUDGET 16
/*
 * Sections end within a microsecond as a rule, and setting a timer costs more: a drain is looked at
 * so often before the event fd is left to tell of it.
 */
#define DRAIN_LOOKS 16
#define DEFAULT_ACK_TIMEOUT_MS 500
#define DEFAULT_IOTLB_ENTRIES 16384
#define DEFAULT_CACHE_QUOTA 65536
#define CACHE_QUOTA_MAX (1u << 24)

static _Thread_local struct callback_mark *marks;

void callback_enter(struct callback_mark *mark, const struct viommu *iommu, bool change)
{
    *mark = (struct callback_mark){.iommu = iommu, .change = change, .outer = marks};
    marks = mark;
}

void callback_leave(struct callback_mark *mark)
{
    marks = mark->outer;
}

/* Whether this thread is inside a callback of the instance. */
static bool inside_callback(const struct viommu *iommu, bool change_only)
{
    for (const struct callback_mark *mark = marks; mark; mark = mark->outer) {
        if (mark->iommu == iommu && (mark->change || !change_only)) {
            return true;
        }
    }
    return false;
}

bool iommu_reentered(struct viommu *iommu)
{
    struct viommu_event event = {
        .kind = VIOMMU_EVENT_REENTRY,
        .error = -EDEADLK,
        .text = "a control call from inside a change callback was refused",
    };

    if (!inside_callback(iommu, true)) {
        return false;
    }
    iommu_lock(iommu);
    iommu_post_event(iommu, &event);
    iommu_unlock(iommu);
    return true;
}

static bool config_valid(const struct viommu_config *config)
{
    uint32_t entries = config->iotlb_entries;

    if (!config->memory || config->rewrite_policy > VIOMMU_REWRITE_STOP ||
        config->cache_mode > VIOMMU_CACHE_HOSTILE || config->cache_quota > CACHE_QUOTA_MAX) {
        return false;
    }
    return !entries || (entries >= 256 && entries <= 1u << 24 && !(entries & (entries - 1)));
}

/* The cache of a mode that is not normal. */
static int init_kept(struct viommu *iommu, const struct viommu_config *config)
{
    uint32_t quota = config->cache_quota ? config->cache_quota : DEFAULT_CACHE_QUOTA;

    if (config->cache_mode == VIOMMU_CACHE_NORMAL) {
        return 0;
    }
    return kept_create(config->cache_mode, config->cache_seed, quota, &iommu->kept);
}

int iommu_init(struct viommu *iommu, const struct model *model, const struct viommu_config *config)
{
    uint32_t ack_ms = config->ack_timeout_ms ? config->ack_timeout_ms : DEFAULT_ACK_TIMEOUT_MS;
    uint32_t entries = config->iotlb_entries ? config->iotlb_entries : DEFAULT_IOTLB_ENTRIES;
    int ret;

    if (!config_valid(config)) {
        return -EINVAL;
    }
    *iommu = (struct viommu){
        .model = model,
        .memory = config->memory,
        .epoch = memory_epoch(config->memory),
        .callbacks = config->callbacks,
        .opaque = config->opaque,
        .space = config->space,
        .clock = config->clock,
        .ack_timeout = ack_ms * 1000000ULL,
    };
    pthread_mutex_init(&iommu->lock, NULL);
    windows_init(iommu);
    ret = notify_init(&iommu->notify);
    if (ret) {
        goto no_notify;
    }
    ret = iotlb_init(&iommu->iotlb, iommu->epoch, entries);
    if (ret) {
        goto no_iotlb;
    }
    ret = init_kept(iommu, config);
    if (ret) {
        goto no_kept;
    }
    ret = wake_init(&iommu->wake, config->callbacks.wake, config->opaque);
    if (ret) {
        goto no_wake;
    }
    follow_init(iommu, config);
    memory_get(iommu->memory);
    return 0;

no_wake:
    kept_destroy(iommu->kept);
no_kept:
    iotlb_fini(&iommu->iotlb);
no_iotlb:
    notify_fini(&iommu->notify);
no_notify:
    windows_fini(iommu);
    pthread_mutex_destroy(&iommu->lock);
    return ret;
}

void iommu_fini(struct viommu *iommu)
{
    while (iommu->devices) {
        device_free(iommu->devices);
    }
    follow_fini(iommu);
    windows_fini(iommu);
    wake_fini(&iommu->wake);
    kept_destroy(iommu->kept);
    iotlb_fini(&iommu->iotlb);
    notify_fini(&iommu->notify);
    pthread_mutex_destroy(&iommu->lock);
    memory_put(iommu->memory);
}

void viommu_destroy(struct viommu *iommu)
{
    if (!iommu) {
        return;
    }
    while (iommu->devices) {
        device_free(iommu->devices);
    }
    if (windows_keep(iommu)) {
        /* The last window that is released destroys it. Mirrors are gone: nobody answers memory. */
        follow_memory_stop(iommu);
    } else {
        iommu->model->destroy(iommu);
    }
}

void iommu_lock(struct viommu *iommu)
{
    pthread_mutex_lock(&iommu->lock);
}

bool iommu_trylock(struct viommu *iommu)
{
    return pthread_mutex_trylock(&iommu->lock) == 0;
}

void iommu_unlock(struct viommu *iommu)
{
    pthread_mutex_unlock(&iommu->lock);
}

void iommu_kick(struct viommu *iommu)
{
    iommu->work_came = true;
    if (!iommu->processing) {
        wake_kick(&iommu->wake);
    }
}

uint64_t iommu_now(const struct viommu *iommu)
{
    return iommu->clock ? iommu->clock(iommu->opaque) : wake_now();
}

/* Events that a guest can cause at will do not take the room of those that matter more. */
static unsigned room_for(enum viommu_event_kind kind)
{
    switch (kind) {
    case VIOMMU_EVENT_BAD_ENTRY:
    case VIOMMU_EVENT_NOT_MAPPED:
    case VIOMMU_EVENT_CACHE_FULL:
        return OUTBOX_EVENTS / 2;
    case VIOMMU_EVENT_REWRITTEN:
        return OUTBOX_EVENTS * 3 / 4;
    default:
        return OUTBOX_EVENTS;
    }
}

void iommu_post_event(struct viommu *iommu, const struct viommu_event *event)
{
    struct outbox *outbox = &iommu->outbox;

    watch_event(iommu, event);
    if (outbox->count >= room_for(event->kind)) {
        outbox->lost++;
        iommu->stats.events_lost++;
        return;
    }
    outbox->events[outbox->count++] = *event;
    iommu_kick(iommu);
}

static void tell_events(struct viommu *iommu, const struct outbox *outbox)
{
    struct viommu_event lost = {
        .kind = VIOMMU_EVENT_OVERFLOW,
        .error = (int)outbox->lost,
        .text = "events were lost: too many came at once",
    };

    for (unsigned i = 0; i < outbox->count; i++) {
        iommu->callbacks.event(iommu->opaque, &outbox->events[i]);
    }
    if (outbox->lost) {
        iommu->callbacks.event(iommu->opaque, &lost);
    }
}

/* Empties the outbox, without the lock while the embedder is called. Returns how many it told. */
static unsigned deliver_events(struct viommu *iommu)
{
    struct outbox copy;
    struct callback_mark mark;

    if (!iommu->outbox.count) {
        return 0;
    }
    copy = iommu->outbox;
    iommu->outbox = (struct outbox){0};
    if (iommu->callbacks.event) {
        iommu_unlock(iommu);
        callback_enter(&mark, iommu, false);
        tell_events(iommu, &copy);
        callback_leave(&mark);
        iommu_lock(iommu);
    }
    return copy.count;
}

/* Hands one message of the unit on, likewise. Returns how many: one or none. */
static unsigned deliver_message(struct viommu *iommu)
{
    struct viommu_interrupt interrupt;
    struct callback_mark mark;

    if (!iommu->model->take_message(iommu, &interrupt)) {
        return 0;
    }
    iommu->stats.interrupts_sent++;
    if (iommu->callbacks.interrupt) {
        iommu_unlock(iommu);
        callback_enter(&mark, iommu, false);
        iommu->callbacks.interrupt(iommu->opaque, &interrupt);
        callback_leave(&mark);
        iommu_lock(iommu);
    }
    return 1;
}

static void charge(unsigned *budget, unsigned units)
{
    *budget -= units < *budget ? units : *budget;
}

/* A callback of the model's own. Returns false when none is due. */
static bool model_deliver(struct viommu *iommu)
{
    return iommu->model->deliver && iommu->model->deliver(iommu);
}

/*
 * Calls subscribers, holders of windows and the model's own in turn, so that none keep the others
 * waiting; one of each even when mirrors have used the budget up.
 */
static void deliver_calls(struct viommu *iommu, unsigned *budget)
{
    unsigned told;

    do {
        told = notify_deliver(iommu);
        told += windows_deliver(iommu);
        told += model_deliver(iommu);
        charge(budget, told);
        iommu->work_came |= told > 0;
    } while (told && *budget);
}

/*
 * One round of everything. A callback costs a unit, so that one which makes new work cannot keep
 * the call going. Returns true when the budget ended it.
 */
static bool work_round(struct viommu *iommu, unsigned *budget)
{
    unsigned told;
    bool stopped;

    iommu->windows.looked = 0;
    stopped = iommu->model->work(iommu, budget);
    iommu->drain_open = 0;
    if (stopped && !*budget) {
        *budget = OTHERS_BUDGET;
    }
    stopped |= follow_work(iommu, budget);
    if (notify_deadline(iommu) || windows_deadline(iommu)) {
        uint64_t now = iommu_now(iommu);

        notify_expire(iommu, now);
        windows_expire(iommu, now);
    }
    deliver_calls(iommu, budget);
    do {
        told = deliver_message(iommu) + deliver_events(iommu);
        charge(budget, told);
    } while (told && *budget);
    return stopped || !*budget;
}

/* The earlier of two times; 0 is never. */
static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a && (!b || a < b) ? a : b;
}

/*
 * Has the event fd tell when to come again: soon for a drain, with growing pauses while the same
 * one lasts; or when somebody's time is up.
 */
static void timer_set(struct viommu *iommu, bool draining)
{
    uint64_t deadline =
        earlier(earlier(notify_deadline(iommu), follow_deadline(iommu)), windows_deadline(iommu));

    if (iommu->clock) {
        deadline = 0;
    }
    if (iommu->stats.drains != iommu->drains_polled) {
        iommu->drains_polled = iommu->stats.drains;
        iommu->poll_pause = 0;
        iommu->stats.drains_delayed += draining;
    }
    if (draining) {
        uint64_t poll = wake_now() + wake_pause(&iommu->poll_pause);

        deadline = earlier(deadline, poll);
    }
    /* What is waited for has most often come by then: a time that nobody needs any more stays. */
    if (deadline) {
        wake_by(&iommu->wake, deadline);
    }
}

int viommu_process(struct viommu *iommu, unsigned budget)
{
    unsigned looks = DRAIN_LOOKS;
    bool stopped;
    bool draining;

    if (!atomic_load(&iommu->started)) {
        return -EAGAIN;
    }
    if (inside_callback(iommu, false)) {
        return -EDEADLK;
    }
    /* Work reads guest memory: with the thread's record there, no section below can fail. */
    if (!epoch_prepare()) {
        iommu_lock(iommu);
        wake_remind(&iommu->wake);
        wake_kick(&iommu->wake);
        iommu_unlock(iommu);
        return -ENOMEM;
    }
    if (!budget) {
        budget = DEFAULT_BUDGET;
    }
    iommu_lock(iommu);
    if (iommu->processing) {
        /* Whoever is inside does it: this caller has nothing to come back for. */
        iommu->work_came = true;
        iommu_unlock(iommu);
        return 0;
    }
    iommu->processing = true;
    wake_clear(&iommu->wake);
    do {
        iommu->work_came = false;
        stopped = work_round(iommu, &budget);
        draining = iotlb_renew(&iommu->iotlb);
        draining |= iommu->model->draining(iommu);
        draining |= notify_look(iommu);
    } while (!stopped && (iommu->work_came || (draining && looks-- > 0)));
    timer_set(iommu, draining);
    iommu->processing = false;
    if (stopped) {
        wake_kick(&iommu->wake);
    }
    iommu_unlock(iommu);
    epoch_reap(iommu->epoch);
    return stopped ? VIOMMU_PENDING : 0;
}

int viommu_event_fd(struct viommu *iommu)
{
    return iommu->wake.poll_fd;
}

static void admit_everyone(struct viommu *iommu)
{
    for (struct viommu_device *device = iommu->devices; device; device = device->next) {
        device_admit(device);
    }
}

int viommu_start(struct viommu *iommu)
{
    int ret = -EALREADY;

    iommu_lock(iommu);
    if (!atomic_load(&iommu->started) && follow_waits(iommu)) {
        ret = -EBUSY;
    } else if (!atomic_load(&iommu->started)) {
        iommu->model->reset(iommu);
        follow_review(iommu, NULL, NULL, NULL, VIOMMU_CAUSE_REPLAY);
        atomic_store(&iommu->started, true);
        wake_remind(&iommu->wake);
        ret = 0;
    }
    iommu_unlock(iommu);
    return ret;
}

int viommu_reset(struct viommu *iommu)
{
    if (!atomic_load(&iommu->started)) {
        return -EAGAIN;
    }
    if (iommu_reentered(iommu)) {
        return -EDEADLK;
    }
    iommu_lock(iommu);
    watch_reset(iommu);
    iommu->model->reset(iommu);
    windows_reset(iommu);
    requesters_forget(iommu, 0, 0);
    requesters_told(iommu);
    iotlb_drop_all(&iommu->iotlb);
    if (iommu->kept) {
        kept_drop_all(iommu->kept);
    }
    notify_drop_all(iommu);
    admit_everyone(iommu);
    follow_review(iommu, NULL, NULL, NULL, VIOMMU_CAUSE_CONTEXT);
    iommu_kick(iommu);
    iommu_unlock(iommu);
    return 0;
}

int viommu_mmio_read(struct viommu *iommu, uint64_t offset, unsigned size, uint64_t *value)
{
    if (size < 1 || size > 8) {
        return -EINVAL;
    }
    if (!atomic_load(&iommu->started)) {
        return -EAGAIN;
    }
    iommu_lock(iommu);
    *value = iommu->model->mmio_read(iommu, offset, size);
    iommu_unlock(iommu);
    return 0;
}

int viommu_mmio_write(struct viommu *iommu, uint64_t offset, unsigned size, uint64_t value)
{
    if (size < 1 || size > 8) {
        return -EINVAL;
    }
    if (!atomic_load(&iommu->started)) {
        return -EAGAIN;
    }
    if (iommu_reentered(iommu)) {
        return -EDEADLK;
    }
    iommu_lock(iommu);
    watch_write(iommu, offset, size, value);
    iommu->model->mmio_write(iommu, offset, size, value);
    iommu_unlock(iommu);
    return 0;
}
