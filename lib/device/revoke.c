/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Windows that are wanted back: by invalidations, and by memory that is removed. Structures,
 * invariants and locking: window.h.
 */
#include "base/alloc.h"
#include "iommu/iommu.h"

#include <errno.h>

/* Looking at so many pages costs a unit of the budget. */
#define LOOKS_A_UNIT 32

void windows_init(struct viommu *iommu)
{
    window_list_init(&iommu->windows.orphans);
    iommu->windows.wanted_end = &iommu->windows.wanted;
}

void windows_fini(struct viommu *iommu)
{
    if (iommu->windows.listener) {
        (void)viommu_memory_listener_remove(iommu->windows.listener);
    }
    window_list_fini(&iommu->windows.orphans);
}

bool windows_keep(struct viommu *iommu)
{
    bool keep;

    iommu_lock(iommu);
    keep = atomic_load(&iommu->windows.orphans.count) != 0;
    iommu->windows.destroyed = keep;
    iommu->wake.tell = NULL; /* the embedder hears of no work any more */
    iommu_unlock(iommu);
    return keep;
}

/* ---- who is concerned ---- */

static bool ranges_meet(const struct viommu_window *window, const struct window_concern *concern)
{
    /* A page that is mapped by a larger one is dropped with all of that. */
    uint64_t mask = (1ULL << window->origin.shift) - 1;
    uint64_t first = concern->first & ~mask;
    uint64_t last = concern->last | mask;

    if (!first && last == UINT64_MAX) {
        return true;
    }
    for (size_t i = 0; i < window->range_count; i++) {
        if (window->ranges[i].first <= last && window->ranges[i].last >= first) {
            return true;
        }
    }
    return false;
}

static bool is_concerned(const struct viommu_window *window, const struct window_wait *wait)
{
    const struct window_concern *concern = &wait->concern;

    if (window->birth >= wait->before || ((window->id ^ concern->id) & concern->compared)) {
        return false;
    }
    if (concern->domain != WINDOW_DOMAIN_ANY && window->origin.domain != WINDOW_DOMAIN_ANY &&
        window->origin.domain != concern->domain) {
        return false;
    }
    return ranges_meet(window, concern);
}

/* Windows are looked at in every range that they have. */
static void count_look(struct viommu *iommu, const struct viommu_window *window)
{
    iommu->windows.looked += 1 + (unsigned)(window->range_count / WINDOWS_RANGES_A_LOOK);
}

/* ---- the list of those that are wanted ---- */

/* With the lock of the window's list. */
static void want(struct viommu *iommu, struct viommu_window *window)
{
    struct windows *windows = &iommu->windows;

    if (window->wanted) {
        return;
    }
    window->wanted = true;
    window->next_wanted = NULL;
    window->wanted_link = windows->wanted_end;
    *windows->wanted_end = window;
    windows->wanted_end = &window->next_wanted;
    windows->to_fence = windows->to_fence ? windows->to_fence : window;
    windows->to_expire = windows->to_expire ? windows->to_expire : window;
    windows->to_call = windows->to_call ? windows->to_call : window;
    iommu_kick(iommu);
}

static void pass(struct viommu_window **at, const struct viommu_window *window)
{
    if (*at == window) {
        *at = window->next_wanted;
    }
}

static void wanted_unlink(struct windows *windows, struct viommu_window *window)
{
    pass(&windows->to_fence, window);
    pass(&windows->to_expire, window);
    pass(&windows->to_call, window);
    *window->wanted_link = window->next_wanted;
    if (window->next_wanted) {
        window->next_wanted->wanted_link = window->wanted_link;
    } else {
        windows->wanted_end = window->wanted_link;
    }
}

static void stand(struct window_wait *wait, struct viommu_window *window)
{
    wait->at = window;
    if (!window) {
        return;
    }
    wait->next = window->waits;
    wait->link = &window->waits;
    if (wait->next) {
        wait->next->link = &wait->next;
    }
    window->waits = wait;
}

void windows_forget(struct window_wait *wait)
{
    if (wait->at) {
        *wait->link = wait->next;
        if (wait->next) {
            wait->next->link = wait->link;
        }
        wait->at = NULL;
    }
}

static void step(struct window_wait *wait)
{
    struct viommu_window *next = wait->at->next_wanted;

    windows_forget(wait);
    stand(wait, next);
}

/* Takes it out of the list; those who stand there go on. */
static void leave_wanted(struct viommu *iommu, struct viommu_window *window)
{
    while (window->waits) {
        step(window->waits);
    }
    wanted_unlink(&iommu->windows, window);
    iommu_kick(iommu);
}

void window_unwant(struct viommu *iommu, struct viommu_window *window)
{
    struct windows *windows = &iommu->windows;

    if (!window->wanted) {
        return;
    }
    leave_wanted(iommu, window);
    window->wanted = false;
    if (window->for_memory && !--windows->leaving) {
        (void)viommu_memory_listener_complete(windows->listener, windows->leaving_token);
    }
}

/* Nobody wants an open window any more. From then on whoever releases it frees it at once. */
static void unwant(struct viommu *iommu, struct viommu_window *window)
{
    struct window_list *list = window->list;

    leave_wanted(iommu, window);
    pthread_mutex_lock(&list->lock);
    window->wanted = false;
    pthread_mutex_unlock(&list->lock);
}

void windows_reset(struct viommu *iommu)
{
    struct viommu_window *next;

    for (struct viommu_window *w = iommu->windows.wanted; w; w = next) {
        next = w->next_wanted;
        if (!w->overdue && !w->for_memory) {
            unwant(iommu, w);
        }
    }
}

/* ---- waiting ---- */

void windows_concern(struct window_wait *wait, const struct window_concern *concern)
{
    wait->concern = *concern;
    wait->concerns = true;
}

static void ask_list(struct viommu *iommu, struct window_list *list,
                     const struct window_wait *wait)
{
    /* What has to be found is linked since before the drain ended. */
    if (!atomic_load_explicit(&list->count, memory_order_acquire)) {
        return;
    }
    pthread_mutex_lock(&list->lock);
    for (struct viommu_window *w = list->first; w; w = w->next) {
        count_look(iommu, w);
        if (!w->wanted && is_concerned(w, wait)) {
            want(iommu, w);
        }
    }
    pthread_mutex_unlock(&list->lock);
}

bool windows_ask(struct viommu *iommu, struct window_wait *wait, uint64_t before)
{
    if (!wait->concerns) {
        return false;
    }
    windows_forget(wait);
    wait->before = before;
    for (struct viommu_device *d = iommu->windows.devices; d; d = d->next_pinned) {
        ask_list(iommu, &d->windows, wait);
    }
    ask_list(iommu, &iommu->windows.orphans, wait);
    stand(wait, iommu->windows.wanted);
    return !windows_over(wait);
}

bool windows_over(struct window_wait *wait)
{
    while (wait->at && (wait->at->stopped || !is_concerned(wait->at, wait))) {
        count_look(wait->at->iommu, wait->at);
        step(wait);
    }
    return !wait->at;
}

bool windows_spent(const struct viommu *iommu)
{
    return iommu->windows.looked >= WINDOWS_LOOKED_MAX;
}

/* ---- calls, and time ---- */

/*
 * Calls one of the window's functions. The lock is given up meanwhile. Returns false when it was
 * released inside: the window is gone.
 */
static bool window_call(struct viommu *iommu, struct viommu_window *window, bool fence, int *ret)
{
    struct callback_mark mark;

    window->calling = true;
    window->caller = pthread_self();
    iommu_unlock(iommu);
    callback_enter(&mark, iommu, false);
    if (fence) {
        *ret = window->fence(window->opaque);
    } else {
        window->revoke(window->opaque);
    }
    callback_leave(&mark);
    iommu_lock(iommu);
    window->calling = false;
    pthread_cond_broadcast(&iommu->notify.idle);
    if (window->released) {
        window_free(window);
        return false;
    }
    return true;
}

void windows_wait_for_look(struct viommu *iommu, const struct viommu_device *device)
{
    while (iommu->windows.looking == device) {
        pthread_cond_wait(&iommu->notify.idle, &iommu->lock);
    }
}

/*
 * Whether nobody wants the window any more: it leads where it led, or was released meanwhile. The
 * lock is given up.
 */
static bool need_not_ask(struct viommu *iommu, struct viommu_window *window)
{
    struct window_origin origin;
    uint64_t birth;
    bool same;

    if (window->for_memory || !window->device) {
        return false;
    }
    window->calling = true;
    window->caller = pthread_self();
    iommu->windows.looking = window->device;
    iommu_unlock(iommu);
    same = window_look(window, &birth, &origin);
    iommu_lock(iommu);
    iommu->windows.looking = NULL;
    window->calling = false;
    pthread_cond_broadcast(&iommu->notify.idle);
    if (!window->wanted) {
        return true;
    }
    if (!same || window->for_memory || !window->device) {
        return false;
    }
    window->birth = birth;
    window->origin = origin;
    iommu->stats.windows_kept++;
    window->handled = false;
    unwant(iommu, window);
    return true;
}

static void revoke(struct viommu *iommu, struct viommu_window *window)
{
    iommu->windows.to_call = window->next_wanted;
    window->deadline = UINT64_MAX;
    window->handled = true;
    if (!window->asked) {
        if (need_not_ask(iommu, window)) {
            return;
        }
        window->asked = true;
        iommu->stats.windows_revoked++;
        if (!window_call(iommu, window, false, NULL)) {
            return;
        }
    }
    window->deadline = iommu_now(iommu) + iommu->ack_timeout;
}

/* The window may be gone afterwards: what is told of it is noted before. */
static void fence(struct viommu *iommu, struct viommu_window *window)
{
    struct viommu_event event = {
        .kind = VIOMMU_EVENT_OVERDUE,
        .requester = window->id,
        .first = window->ranges[0].first,
        .last = window->ranges[0].last,
    };
    int ret = -ETIMEDOUT;

    iommu->windows.to_fence = window->next_wanted;
    if (window->fence && !window_call(iommu, window, true, &ret)) {
        ret = 0; /* released, so its use has stopped */
    } else {
        window->stopped = true;
    }
    event.error = ret < 0 ? ret : ret ? -EPROTO : 0;
    event.text = ret ? "a pinned window was not released in time, and may still be used"
                     : "a pinned window was not released in time; its use was stopped";
    iommu_post_event(iommu, &event);
    iommu_kick(iommu);
}

unsigned windows_deliver(struct viommu *iommu)
{
    struct windows *windows = &iommu->windows;
    unsigned cost;

    if (windows->to_fence != windows->to_expire) {
        fence(iommu, windows->to_fence);
        return 1;
    }
    if (!windows->to_call) {
        return 0;
    }
    cost = 1 + (unsigned)(windows->to_call->pages / LOOKS_A_UNIT);
    revoke(iommu, windows->to_call);
    return cost;
}

void windows_expire(struct viommu *iommu, uint64_t now)
{
    struct windows *windows = &iommu->windows;

    while (windows->to_expire != windows->to_call && windows->to_expire->deadline <= now) {
        struct viommu_window *window = windows->to_expire;

        windows->to_expire = window->next_wanted;
        window->overdue = true;
        iommu->stats.windows_overdue++;
        if (window->device) {
            device_deny(window->device, -ETIMEDOUT, "a pinned window was not released in time");
        }
    }
}

uint64_t windows_deadline(const struct viommu *iommu)
{
    const struct windows *windows = &iommu->windows;

    return windows->to_expire != windows->to_call ? windows->to_expire->deadline : 0;
}

/* ---- memory that is removed ---- */

static bool leads_there(const struct viommu_window *window,
                        const struct viommu_memory_change *change)
{
    for (size_t i = 0; i < window->slot_count; i++) {
        for (size_t j = 0; j < change->removed_count; j++) {
            if (window->slots[i].first <= change->removed[j].last &&
                window->slots[i].last >= change->removed[j].first) {
                return true;
            }
        }
    }
    return false;
}

static void leave_list(struct viommu *iommu, struct window_list *list,
                       const struct viommu_memory_change *change)
{
    uint64_t published = memory_published(iommu->memory);

    pthread_mutex_lock(&list->lock);
    for (struct viommu_window *w = list->first; w; w = w->next) {
        if (w->birth < published && leads_there(w, change)) {
            w->for_memory = true;
            iommu->windows.leaving++;
            want(iommu, w);
        }
    }
    pthread_mutex_unlock(&list->lock);
}

/* Slots are gone, but for those who pinned them before. */
static int memory_leaving(void *opaque, const struct viommu_memory_change *change)
{
    struct viommu *iommu = opaque;
    int ret;

    iommu_lock(iommu);
    for (struct viommu_device *d = iommu->windows.devices; d; d = d->next_pinned) {
        leave_list(iommu, &d->windows, change);
    }
    leave_list(iommu, &iommu->windows.orphans, change);
    iommu->windows.leaving_token = change->token;
    ret = iommu->windows.leaving ? VIOMMU_PENDING : 0;
    iommu_unlock(iommu);
    return ret;
}

static const struct viommu_memory_listener_ops listener_ops = {.leaving = memory_leaving};

static int first_slots(void *opaque, const struct viommu_memory_slot *slots, size_t count)
{
    (void)opaque;
    (void)slots;
    (void)count;
    return 0;
}

int windows_listen(struct viommu *iommu)
{
    if (iommu->windows.listener) {
        return 0;
    }
    return memory_listener_begin(iommu->memory, &listener_ops, iommu, first_slots,
                                 &iommu->windows.listener);
}
