/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Delivery of changes to subscribers, and the wait for their answers.
 *
 * Vocabulary. A *delivery* is one change for one subscriber: held, then queued, then running (its
 * callback is being called), then pending (it answered VIOMMU_PENDING) until completed or timed
 * out. A *wait* is the model's side: it counts the deliveries, and has the drain, the batch of
 * mirrors and the pinned windows, that an operation of the guest still needs before it is complete.
 *
 * Invariants:
 * - A wait is over when it has no delivery left, its drain is over, its batch is done, and it
 *   stands at no window. A delivery points to its wait until it ends, and a window to those that
 *   stand at it; a model that resets ends them all (notify_forget).
 * - A delivery that ends in failure or in time fences its subscriber and denies its device; the
 *   wait then needs a drain that begins after the denial.
 * - A wait that *holds* has its deliveries made only when its operation releases them: when
 *   requests have ended that could cache the old. Subscribers that came meanwhile could ask for the
 *   old, too: they are then told to drop everything.
 * - Deliveries are made in the order of their release; those of different operations overlap.
 * - A change is cut to the subscriber's range, and into the blocks of its form; each block is a
 *   delivery of its own.
 * - Each delivery is in one list: its wait's, the queue, or `out` (called, not ended), which is in
 *   the order of deadlines.
 * - No lock is held while a callback runs. A subscriber whose callback runs is not freed.
 *
 * Locking: the IOMMU's lock, for everything.
 */
#ifndef VIOMMU_NOTIFY_NOTIFY_H
#define VIOMMU_NOTIFY_NOTIFY_H

#include "device/window.h"

#include <pthread.h>
#include <viommu/notify.h>

struct mirror;
struct requester;

struct delivery;

/*
 * Who waits, inside the library, for something that nobody tells of (a drain of another epoch): a
 * subscriber whose PENDING answers viommu_process() asks after, again and again until they are over
 * or in time. The functions are called under the IOMMU's lock, and never wait.
 */
struct notify_follower {
    /* Of the PENDING answer that it gave last; 0: it answers by viommu_change_complete. */
    uint64_t target;
    bool (*over)(struct notify_follower *follower, uint64_t target); /* NULL where it is always 0 */
    /* Drop all that is cached: it is told no more, or the device has another id, or is denied. */
    void (*drop)(struct notify_follower *follower);
    /*
     * It is fenced, with this error: cut off now who may still use what it did not drop. What it
     * was told of counts as done when this returns. NULL: there is nobody.
     */
    void (*fence)(struct notify_follower *follower, int error);
};

/* In order. Zeroed it is empty. */
struct delivery_list {
    struct delivery *first;
    struct delivery *last;
};

/* What an operation waits for. */
struct wait {
    uint64_t drain;            /* target of its drain; 0: none */
    unsigned deliveries;       /* that have not ended */
    struct delivery_list held; /* those that are not to be made yet */
    uint64_t births;           /* notify.births when it began to hold */
    bool holds;
    bool listed;               /* in notify.holding: something was held */
    struct wait *next_holding; /* there */
    bool told;          /* there were deliveries */
    bool failed;        /* a subscriber answered with an error */
    bool timed_out;     /* or did not answer */
    uint64_t follow;    /* the batch in which mirrors follow (shadow/follow.h); 0: none does */
    struct window_wait windows; /* pinned windows that are to be released */
    uint16_t requester; /* which one, when one of the two is set */
};

enum delivery_state {
    DELIVERY_WAITING, /* held or queued */
    DELIVERY_RUNNING,
    DELIVERY_PENDING,
    DELIVERY_ENDED, /* while its callback still runs */
};

struct delivery {
    struct delivery *next;
    struct delivery *previous;
    struct delivery_list *list;
    struct viommu_subscriber *subscriber;
    struct wait *wait;
    struct viommu_change change;
    enum delivery_state state;
    bool of_mirror;    /* a mirror's, and part of it; `wait` is its, too */
    uint64_t deadline; /* set when it is called */
    uint64_t target;   /* a follower's; 0: nobody asks after it */
};

struct viommu_subscriber {
    struct viommu_subscriber *next; /* of the device */
    struct viommu_device *device;
    struct viommu_subscription what;
    uint64_t birth; /* notify.births when it began to hear of changes of this requester */
    bool fenced;
    bool running; /* its callback is being called */
    struct notify_follower *follower; /* or NULL */
    struct mirror *mirror; /* of one whose role that is */
    struct viommu_iova_owner *limits; /* in its device's space, or NULL: what it is allowed */
};

/* A model starts nothing that tells somebody while so many deliveries are outstanding. */
#define NOTIFY_OUTSTANDING_MAX 1024u

struct notify {
    struct delivery_list queue;
    struct delivery_list out;
    struct wait *holding;
    unsigned outstanding; /* deliveries that have not ended */
    unsigned followed;    /* of these: with a target */
    uint64_t token_next;
    uint64_t births; /* subscribers that came, came back, or whose device took another id */
    pthread_cond_t idle; /* a callback ended */
};

int notify_init(struct notify *notify);
void notify_fini(struct notify *notify);

/*
 * Tells everyone who asked: the subscribers of every device that has a requester which `match` says
 * is concerned, once for each such requester. What the wait then needs is counted in it. Without
 * memory the subscriber is fenced. The change's requester is filled in.
 */
typedef bool notify_match(const struct requester *requester, const void *what);
void notify_post(struct viommu *iommu, const struct viommu_change *change, notify_match *match,
                 const void *what, struct wait *wait);

/* From here on what is posted for the wait is held back. */
void notify_hold(struct viommu *iommu, struct wait *wait);

/*
 * Lets it go, and tells those who have come since to drop everything. Nothing may be held, and the
 * wait may not hold at all.
 */
void notify_release(struct viommu *iommu, struct wait *wait);

/* A device's subscribers begin anew: they were let in again, or its id changed. */
void notify_born_again(struct viommu *iommu, struct viommu_device *device);

/* Makes one queued call, without the lock while it runs. Returns false when none is queued. */
bool notify_deliver(struct viommu *iommu);

/*
 * Calls a mirror, without the lock while it runs. mirror_answer follows, now or later, unless the
 * mirror is fenced or goes.
 */
void notify_call(struct viommu *iommu, struct mirror *mirror, const struct viommu_change *change);

/* Nobody waits for a mirror's answer any more. */
void notify_call_off(struct viommu *iommu, struct mirror *mirror);

/* Calls a mirror's fence function, likewise. Returns what it did. */
int notify_call_fence(struct viommu *iommu, struct viommu_subscriber *subscriber);

/* Ends what took too long. */
void notify_expire(struct viommu *iommu, uint64_t now);

/* Subscribes a follower, as viommu_device_subscribe. It lives as long as the subscriber. */
int notify_follow(struct viommu_device *device, const struct viommu_subscription *what,
                  struct notify_follower *follower, struct viommu_subscriber **out);

/* Asks after pending answers of followers. Returns whether some are not over. */
bool notify_look(struct viommu *iommu);

/* Followers of a device, or of all, drop what they have cached. */
void notify_drop_device(struct viommu_device *device);
void notify_drop_all(struct viommu *iommu);

/* When the next delivery expires; 0: none is pending. */
uint64_t notify_deadline(const struct viommu *iommu);

/* Nobody waits for these any more (reset): they end unheard. */
void notify_forget(struct viommu *iommu, struct wait *wait);

/* Begins a drain on behalf of a wait: it needs what began until now to have ended. */
void wait_drain(struct viommu *iommu, struct wait *wait);

/* Whether the requests that began before its drain have ended. */
bool wait_drained(struct viommu *iommu, const struct wait *wait);

/* Whether a device of the instance has a mirror. */
bool notify_has_mirrors(const struct viommu *iommu);

/* Frees a device's subscribers. Blocks (without the lock) while a callback of one runs. */
void notify_remove_device(struct viommu *iommu, struct viommu_device *device);

#endif
