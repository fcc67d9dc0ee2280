/* SPDX-License-Identifier: BSD-2-Clause */
/* Subscribers, deliveries of changes to them, and what waits for their answers. */
#include "notify/notify.h"

#include "base/alloc.h"
#include "iommu/iommu.h"
#include "range/pow2.h"

#include <errno.h>
#include <string.h>

int notify_init(struct notify *notify)
{
    *notify = (struct notify){.token_next = 1};
    return -pthread_cond_init(&notify->idle, NULL);
}

static void list_append(struct delivery_list *list, struct delivery *delivery)
{
    delivery->list = list;
    delivery->next = NULL;
    delivery->previous = list->last;
    if (list->last) {
        list->last->next = delivery;
    } else {
        list->first = delivery;
    }
    list->last = delivery;
}

static void list_remove(struct delivery *delivery)
{
    struct delivery_list *list = delivery->list;

    if (delivery->previous) {
        delivery->previous->next = delivery->next;
    } else {
        list->first = delivery->next;
    }
    if (delivery->next) {
        delivery->next->previous = delivery->previous;
    } else {
        list->last = delivery->previous;
    }
}

static void list_move(struct delivery *delivery, struct delivery_list *to)
{
    list_remove(delivery);
    list_append(to, delivery);
}

void notify_fini(struct notify *notify)
{
    pthread_cond_destroy(&notify->idle);
}

void wait_drain(struct viommu *iommu, struct wait *wait)
{
    wait->drain = epoch_begin_drain(iommu->epoch);
    iommu->stats.drains++;
}

bool wait_drained(struct viommu *iommu, const struct wait *wait)
{
    if (!wait->drain) {
        return true;
    }
    /* Drains end in order: when one is open, so are those that began after it. */
    if (iommu->drain_open && wait->drain >= iommu->drain_open) {
        return false;
    }
    if (epoch_drained(iommu->epoch, wait->drain)) {
        return true;
    }
    iommu->drain_open = wait->drain;
    return false;
}

/* Ends a delivery. The memory of one whose callback runs is freed when that returns. */
static void delivery_end(struct delivery *delivery)
{
    struct notify *notify = &delivery->subscriber->device->iommu->notify;

    list_remove(delivery);
    notify->outstanding--;
    notify->followed -= delivery->target != 0;
    delivery->wait->deliveries--;
    if (delivery->state == DELIVERY_RUNNING) {
        delivery->state = DELIVERY_ENDED;
    } else if (!delivery->of_mirror) {
        base_free(delivery);
    }
}

static void list_end_of(struct delivery_list *list, const struct viommu_subscriber *subscriber)
{
    struct delivery *next;

    for (struct delivery *d = list->first; d; d = next) {
        next = d->next;
        if (d->subscriber == subscriber) {
            delivery_end(d);
        }
    }
}

/* Ends every delivery to a subscriber: it went, or is fenced. */
static void subscriber_end_deliveries(struct viommu *iommu, struct viommu_subscriber *subscriber)
{
    list_end_of(&iommu->notify.out, subscriber);
    list_end_of(&iommu->notify.queue, subscriber);
    for (struct wait *wait = iommu->notify.holding; wait; wait = wait->next_holding) {
        list_end_of(&wait->held, subscriber);
    }
}

/*
 * The subscriber failed: it is told no more, and its device, which may still use what it should
 * have dropped, is denied. `wait` needs those of its requests that are under way to end.
 */
static void subscriber_fence(struct viommu *iommu, struct viommu_subscriber *subscriber,
                             const struct viommu_change *change, struct wait *wait, int error)
{
    const char *text = error == -ETIMEDOUT ? "a subscriber did not acknowledge a change in time"
                                           : "a subscriber failed to follow a change";
    struct viommu_event event = {
        .kind = VIOMMU_EVENT_FENCED,
        .requester = change->requester,
        .error = error,
        .first = change->first,
        .last = change->last,
        .text = text,
    };

    subscriber->fenced = true;
    if (subscriber->follower && subscriber->follower->fence) {
        subscriber->follower->fence(subscriber->follower, error);
    }
    iommu_post_event(iommu, &event);
    device_deny(subscriber->device, error, text);
    wait->requester = change->requester;
    wait->timed_out |= error == -ETIMEDOUT;
    wait->failed |= error != -ETIMEDOUT;
    wait_drain(iommu, wait);
    subscriber_end_deliveries(iommu, subscriber);
    if (subscriber->mirror) {
        mirror_fence(iommu, subscriber->mirror);
    }
}

static void delivery_fail(struct viommu *iommu, struct delivery *delivery, int error)
{
    struct viommu_change change = delivery->change;

    if (delivery->of_mirror) {
        delivery_end(delivery);
        mirror_answer(iommu, delivery->subscriber->mirror, error);
        return;
    }
    subscriber_fence(iommu, delivery->subscriber, &change, delivery->wait, error);
}

static void post_block(struct viommu *iommu, struct viommu_subscriber *subscriber,
                       const struct viommu_change *change, struct wait *wait)
{
    struct notify *notify = &iommu->notify;
    struct delivery *delivery = base_alloc(sizeof(*delivery));

    wait->told = true;
    if (!delivery) {
        subscriber_fence(iommu, subscriber, change, wait, -ENOMEM);
        return;
    }
    delivery->subscriber = subscriber;
    delivery->wait = wait;
    delivery->change = *change;
    delivery->change.token = notify->token_next++;
    if (wait->holds && !wait->listed) {
        wait->listed = true;
        wait->next_holding = notify->holding;
        notify->holding = wait;
    }
    list_append(wait->holds ? &wait->held : &notify->queue, delivery);
    notify->outstanding++;
    wait->deliveries++;
}

/* The part of a change that lies in the subscriber's range, in its form. */
static void post_to(struct viommu *iommu, struct viommu_subscriber *subscriber,
                    struct viommu_change change, struct wait *wait)
{
    const struct viommu_range *range = &subscriber->what.range;
    struct pow2_split split;
    struct pow2_block block;

    change.first = change.first > range->first ? change.first : range->first;
    change.last = change.last < range->last ? change.last : range->last;
    if (change.first > change.last) {
        return;
    }
    if (subscriber->what.form == VIOMMU_FORM_RANGE) {
        post_block(iommu, subscriber, &change, wait);
        return;
    }
    pow2_begin(&split, change.first, change.last);
    while (!subscriber->fenced && pow2_next(&split, &block)) {
        change.first = block.first;
        change.last = block.last;
        post_block(iommu, subscriber, &change, wait);
    }
}

/* Whether a subscriber is told of the guest's invalidations. Mirrors follow them by themselves. */
static bool is_told(const struct viommu_subscriber *subscriber, enum viommu_change_kind kind)
{
    return (subscriber->what.kinds & kind) &&
           !(subscriber->mirror && kind == VIOMMU_CHANGE_UNMAP);
}

static void post_to_device(struct viommu *iommu, struct viommu_device *device,
                           const struct viommu_change *change, struct wait *wait)
{
    for (struct viommu_subscriber *s = device->subscribers; s; s = s->next) {
        if (!s->fenced && is_told(s, change->kind)) {
            post_to(iommu, s, *change, wait);
        }
    }
}

void notify_post(struct viommu *iommu, const struct viommu_change *change, notify_match *match,
                 const void *what, struct wait *wait)
{
    struct viommu_change named = *change;

    for (struct viommu_device *device = iommu->followed; device; device = device->next_followed) {
        uint32_t count = atomic_load(&device->requester_count);

        for (uint32_t i = 0; i < count; i++) {
            const struct requester *requester = atomic_load(&device->requesters[i]);

            if (match(requester, what)) {
                named.requester = requester->id;
                post_to_device(iommu, device, &named, wait);
            }
        }
    }
}

/* Tells the device's subscribers that came after the wait began to hold. */
static void drop_everything(struct viommu *iommu, struct viommu_device *device, struct wait *wait)
{
    struct viommu_change change = {.kind = VIOMMU_CHANGE_UNMAP, .last = UINT64_MAX};

    change.requester = atomic_load(&device->requesters[0])->id;
    for (struct viommu_subscriber *s = device->subscribers; s; s = s->next) {
        if (!s->fenced && is_told(s, change.kind) && s->birth > wait->births) {
            post_to(iommu, s, change, wait);
        }
    }
}

void notify_hold(struct viommu *iommu, struct wait *wait)
{
    wait->holds = true;
    wait->births = iommu->notify.births;
}

static void stop_holding(struct viommu *iommu, struct wait *wait)
{
    struct wait **link = &iommu->notify.holding;

    wait->holds = false;
    if (!wait->listed) {
        return;
    }
    while (*link != wait) {
        link = &(*link)->next_holding;
    }
    *link = wait->next_holding;
    wait->listed = false;
}

void notify_release(struct viommu *iommu, struct wait *wait)
{
    if (!wait->holds) {
        return;
    }
    stop_holding(iommu, wait);
    while (wait->held.first) {
        list_move(wait->held.first, &iommu->notify.queue);
    }
    if (wait->births != iommu->notify.births) {
        for (struct viommu_device *d = iommu->followed; d; d = d->next_followed) {
            drop_everything(iommu, d, wait);
        }
    }
}

void notify_born_again(struct viommu *iommu, struct viommu_device *device)
{
    for (struct viommu_subscriber *s = device->subscribers; s; s = s->next) {
        s->birth = ++iommu->notify.births;
    }
}

/* Calls one of a subscriber's functions: `change`, or `fence`. The lock is given up meanwhile. */
static int subscriber_call(struct viommu *iommu, struct viommu_subscriber *subscriber,
                           const struct viommu_change *change)
{
    struct callback_mark mark;
    int ret;

    subscriber->running = true;
    iommu_unlock(iommu);
    callback_enter(&mark, iommu, true);
    ret = change ? subscriber->what.change(subscriber->what.opaque, change)
                 : subscriber->what.fence(subscriber->what.opaque);
    callback_leave(&mark);
    iommu_lock(iommu);
    subscriber->running = false;
    pthread_cond_broadcast(&iommu->notify.idle);
    return ret;
}

/* Ends a delivery with its answer. */
static void delivery_answer(struct viommu *iommu, struct delivery *delivery, int status)
{
    if (status) {
        delivery_fail(iommu, delivery, status < 0 ? status : -EPROTO);
    } else if (delivery->of_mirror) {
        delivery_end(delivery);
        mirror_answer(iommu, delivery->subscriber->mirror, 0);
    } else {
        delivery_end(delivery);
    }
}

/* Calls the subscriber with a delivery that is in `out`. */
static void delivery_make(struct viommu *iommu, struct delivery *delivery)
{
    struct viommu_change change = delivery->change;
    int ret;

    delivery->state = DELIVERY_RUNNING;
    delivery->deadline = UINT64_MAX;
    ret = subscriber_call(iommu, delivery->subscriber, &change);
    if (delivery->state == DELIVERY_ENDED) {
        /* Completed, forgotten or timed out before its callback returned. */
        if (!delivery->of_mirror) {
            base_free(delivery);
        }
        return;
    }
    delivery->state = DELIVERY_PENDING;
    if (ret == VIOMMU_PENDING) {
        /* Only now: to read the clock for each of a million calls takes longer than the calls. */
        delivery->deadline = iommu_now(iommu) + iommu->ack_timeout;
        iommu->stats.acks_pending++;
        if (delivery->subscriber->follower) {
            delivery->target = delivery->subscriber->follower->target;
            iommu->notify.followed += delivery->target != 0;
        }
    } else {
        delivery_answer(iommu, delivery, ret);
    }
}

bool notify_deliver(struct viommu *iommu)
{
    struct delivery *delivery = iommu->notify.queue.first;

    if (!delivery) {
        return false;
    }
    list_move(delivery, &iommu->notify.out);
    delivery_make(iommu, delivery);
    return true;
}

void notify_call(struct viommu *iommu, struct mirror *mirror, const struct viommu_change *change)
{
    struct delivery *delivery = &mirror->delivery;

    *delivery = (struct delivery){
        .subscriber = mirror->subscriber,
        .wait = &mirror->wait,
        .change = *change,
        .of_mirror = true,
    };
    delivery->change.token = iommu->notify.token_next++;
    list_append(&iommu->notify.out, delivery);
    iommu->notify.outstanding++;
    mirror->wait.deliveries++;
    delivery_make(iommu, delivery);
}

void notify_call_off(struct viommu *iommu, struct mirror *mirror)
{
    subscriber_end_deliveries(iommu, mirror->subscriber);
}

int notify_call_fence(struct viommu *iommu, struct viommu_subscriber *subscriber)
{
    return subscriber_call(iommu, subscriber, NULL);
}

void notify_expire(struct viommu *iommu, uint64_t now)
{
    struct delivery *oldest = iommu->notify.out.first;

    while (oldest && oldest->deadline <= now) {
        iommu->stats.acks_timed_out++;
        if (oldest->of_mirror) {
            delivery_end(oldest);
            mirror_timed_out(iommu, oldest->subscriber->mirror);
        } else {
            delivery_fail(iommu, oldest, -ETIMEDOUT);
        }
        oldest = iommu->notify.out.first;
    }
}

bool notify_look(struct viommu *iommu)
{
    struct notify *notify = &iommu->notify;
    struct delivery *next = notify->followed ? notify->out.first : NULL;

    while (next) {
        struct delivery *d = next;

        next = d->next;
        if (d->target && d->subscriber->follower->over(d->subscriber->follower, d->target)) {
            delivery_answer(iommu, d, 0);
            iommu->work_came = true;
        }
    }
    return notify->followed;
}

void notify_drop_device(struct viommu_device *device)
{
    for (struct viommu_subscriber *s = device->subscribers; s; s = s->next) {
        if (s->follower) {
            s->follower->drop(s->follower);
        }
    }
}

void notify_drop_all(struct viommu *iommu)
{
    for (struct viommu_device *d = iommu->followed; d; d = d->next_followed) {
        notify_drop_device(d);
    }
}

uint64_t notify_deadline(const struct viommu *iommu)
{
    return iommu->notify.out.first ? iommu->notify.out.first->deadline : 0;
}

static void list_forget(struct delivery_list *list, const struct wait *wait)
{
    struct delivery *next;

    for (struct delivery *d = list->first; d; d = next) {
        next = d->next;
        if (d->wait == wait) {
            delivery_end(d);
        }
    }
}

void notify_forget(struct viommu *iommu, struct wait *wait)
{
    windows_forget(&wait->windows);
    if (wait->holds) {
        stop_holding(iommu, wait);
        list_forget(&wait->held, wait);
    }
    list_forget(&iommu->notify.queue, wait);
    list_forget(&iommu->notify.out, wait);
}

int viommu_change_complete(struct viommu *iommu, uint64_t token, int status)
{
    struct delivery *delivery;

    if (iommu_reentered(iommu)) {
        return -EDEADLK;
    }
    iommu_lock(iommu);
    delivery = iommu->notify.out.first;
    while (delivery && delivery->change.token != token) {
        delivery = delivery->next;
    }
    if (!delivery) {
        iommu_unlock(iommu);
        return -ENOENT;
    }
    delivery_answer(iommu, delivery, status);
    iommu_kick(iommu);
    iommu_unlock(iommu);
    return 0;
}

static void followed_link(struct viommu *iommu, struct viommu_device *device)
{
    device->next_followed = iommu->followed;
    device->followed_link = &iommu->followed;
    if (device->next_followed) {
        device->next_followed->followed_link = &device->next_followed;
    }
    iommu->followed = device;
}

static void followed_unlink(struct viommu_device *device)
{
    *device->followed_link = device->next_followed;
    if (device->next_followed) {
        device->next_followed->followed_link = device->followed_link;
    }
}

static bool allowed_valid(const struct viommu_subscription *what)
{
    for (size_t i = 0; what->allowed && i < what->allowed_count; i++) {
        const struct viommu_range *range = &what->allowed[i];

        if (range->first > range->last ||
            (i && (what->allowed[i - 1].last == UINT64_MAX ||
                   range->first <= what->allowed[i - 1].last + 1))) {
            return false;
        }
    }
    return !what->allowed || what->allowed_count;
}

static bool kinds_valid(const struct viommu_subscription *what)
{
    uint32_t of_caches = VIOMMU_CHANGE_UNMAP | VIOMMU_CHANGE_DEVICE_TLB;
    uint32_t needed = VIOMMU_CHANGE_MAP | VIOMMU_CHANGE_UNMAP;
    uint32_t of_mirrors = needed | VIOMMU_CHANGE_DEVICE_TLB | VIOMMU_CHANGE_REPLACE |
                          VIOMMU_CHANGE_SKIPPED;

    switch (what->role) {
    case VIOMMU_ROLE_CACHE:
        return what->kinds && !(what->kinds & ~of_caches);
    case VIOMMU_ROLE_MIRROR:
        return (what->kinds & needed) == needed && !(what->kinds & ~of_mirrors) && what->fence;
    default:
        return false;
    }
}

static bool subscription_valid(const struct viommu_subscription *what)
{
    return what->change && kinds_valid(what) && !what->index &&
           (what->form == VIOMMU_FORM_POW2 || what->form == VIOMMU_FORM_RANGE) &&
           what->range.first <= what->range.last && allowed_valid(what);
}

/* The last address that it may map. */
static uint64_t last_of(const struct viommu_subscriber *subscriber)
{
    const struct viommu_subscription *what = &subscriber->what;
    uint64_t usable = device_usable_last(subscriber->device);
    uint64_t allowed = what->allowed ? what->allowed[what->allowed_count - 1].last : UINT64_MAX;

    return usable < allowed ? usable : allowed;
}

/* What a mirror needs of the model, and the model of it. Under the lock. */
static int mirror_prepare(struct viommu *iommu, struct viommu_subscriber *subscriber)
{
    const struct viommu_subscription *what = &subscriber->what;
    int ret;

    if (what->adopt && atomic_load(&iommu->started)) {
        return -EALREADY;
    }
    if (!iommu->model->can_mirror(iommu) || (what->page_sizes && !(what->page_sizes & 4096))) {
        return -ENOTSUP;
    }
    ret = follow_memory_listen(iommu);
    if (!ret) {
        ret = mirror_attach(iommu, subscriber);
    }
    if (ret) {
        return ret;
    }
    ret = iommu->model->narrow(iommu, last_of(subscriber),
                               what->page_sizes ? what->page_sizes : UINT64_MAX);
    if (ret) {
        mirror_free(subscriber->mirror);
    }
    return ret;
}

/* Makes it one of the device's. Under the lock. */
static int subscriber_enter(struct viommu_device *device, struct viommu_subscriber *subscriber)
{
    struct viommu *iommu = device->iommu;
    int ret;

    if (subscriber->what.role == VIOMMU_ROLE_MIRROR) {
        ret = mirror_prepare(iommu, subscriber);
        if (ret) {
            return ret;
        }
        subscriber->what.allowed = NULL; /* the caller's */
    }
    if (!device->subscribers) {
        followed_link(iommu, device);
    }
    subscriber->birth = ++iommu->notify.births;
    subscriber->next = device->subscribers;
    device->subscribers = subscriber;
    if (subscriber->mirror) {
        subscriber->mirror->waits = subscriber->what.adopt;
        mirror_enter(iommu, subscriber->mirror);
    }
    return 0;
}

int notify_follow(struct viommu_device *device, const struct viommu_subscription *what,
                  struct notify_follower *follower, struct viommu_subscriber **out)
{
    struct viommu *iommu = device->iommu;
    struct viommu_subscriber *subscriber;
    int ret = 0;

    if (!subscription_valid(what)) {
        return -EINVAL;
    }
    if (iommu_reentered(iommu)) {
        return -EDEADLK;
    }
    subscriber = base_alloc(sizeof(*subscriber));
    if (!subscriber) {
        return -ENOMEM;
    }
    subscriber->device = device;
    subscriber->follower = follower;
    subscriber->what = *what;
    if (!what->range.first && !what->range.last) {
        subscriber->what.range.last = UINT64_MAX;
    }
    if (what->role == VIOMMU_ROLE_MIRROR && what->allowed) {
        ret = device_limit(device, what->allowed, what->allowed_count, &subscriber->limits);
    }
    if (!ret) {
        iommu_lock(iommu);
        ret = subscriber_enter(device, subscriber);
        iommu_unlock(iommu);
        if (ret) {
            device_unlimit(device, subscriber->limits);
        }
    }
    if (ret) {
        base_free(subscriber);
        return ret;
    }
    *out = subscriber;
    return 0;
}

int viommu_device_subscribe(struct viommu_device *device, const struct viommu_subscription *what,
                            struct viommu_subscriber **out)
{
    return notify_follow(device, what, NULL, out);
}

bool notify_has_mirrors(const struct viommu *iommu)
{
    return iommu->follow.mirrors != NULL;
}

static bool is_behind(const struct viommu *iommu, const struct mirror *mirror)
{
    if (mirror->subscriber->fenced) {
        return mirror->fence_due || mirror->fencing;
    }
    return mirror->review_wanted || mirror->review || mirror->switching || mirror->busy ||
           mirror->is_active || iommu->follow.wanted || iommu->follow.phase != FOLLOW_IDLE;
}

int viommu_subscriber_status(struct viommu_subscriber *subscriber,
                             struct viommu_subscriber_status *status, size_t size)
{
    struct viommu *iommu = subscriber->device->iommu;
    const struct mirror *mirror = subscriber->mirror;
    struct viommu_subscriber_status now = {0};
    size_t known = size < sizeof(now) ? size : sizeof(now);

    iommu_lock(iommu);
    now.fenced = subscriber->fenced;
    if (mirror) {
        now.behind = is_behind(iommu, mirror);
        now.mappings = mirror->mappings;
        now.differences = mirror->missing.count;
    }
    iommu_unlock(iommu);
    memset(status, 0, size);
    memcpy(status, &now, known);
    return 0;
}

/* Takes a subscriber out of its device and frees it. Under the lock, given up while it runs. */
static void subscriber_remove(struct viommu *iommu, struct viommu_subscriber *subscriber)
{
    struct viommu_subscriber **link = &subscriber->device->subscribers;

    while (*link != subscriber) {
        link = &(*link)->next;
    }
    *link = subscriber->next;
    if (!subscriber->device->subscribers) {
        followed_unlink(subscriber->device);
    }
    if (subscriber->mirror) {
        mirror_leave(iommu, subscriber->mirror);
    }
    subscriber_end_deliveries(iommu, subscriber);
    while (subscriber->running) {
        pthread_cond_wait(&iommu->notify.idle, &iommu->lock);
    }
    if (subscriber->mirror) {
        mirror_free(subscriber->mirror);
    }
    base_free(subscriber);
}

int viommu_subscriber_destroy(struct viommu_subscriber *subscriber)
{
    struct viommu_iova_owner *limits;
    struct viommu_device *device;
    struct viommu *iommu;

    if (!subscriber) {
        return 0;
    }
    limits = subscriber->limits;
    device = subscriber->device;
    iommu = device->iommu;
    if (iommu_reentered(iommu)) {
        return -EDEADLK;
    }
    iommu_lock(iommu);
    subscriber_remove(iommu, subscriber);
    iommu_kick(iommu);
    iommu_unlock(iommu);
    device_unlimit(device, limits);
    return 0;
}

void notify_remove_device(struct viommu *iommu, struct viommu_device *device)
{
    while (device->subscribers) {
        subscriber_remove(iommu, device->subscribers);
    }
}
