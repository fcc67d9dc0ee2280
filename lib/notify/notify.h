/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Delivery of changes to subscribers, and the wait for their answers.
 *
 * Vocabulary. A *delivery* is one change for one subscriber: queued, then running (its callback is
 * being called), then pending (it answered VIOMMU_PENDING) until completed or timed out. A *wait*
 * is the model's side: it counts the deliveries, and holds the drain, that an operation of the
 * guest still needs before it is complete.
 *
 * Invariants:
 * - A wait is over when it has no delivery left and its drain is over. A delivery points to its
 *   wait until it ends; a model that resets ends them all (notify_forget).
 * - A delivery that ends in failure or in time fences its subscriber and denies its device; the
 *   wait then needs a drain that begins after the denial.
 * - A wait that is *held* has its deliveries made only when its operation says so (when requests
 *   that could cache the old have ended). Else deliveries are made in order, and those of different
 *   operations overlap.
 * - A change is cut to the subscriber's range, and into the blocks of its form; each block is a
 *   delivery of its own.
 * - No lock is held while a callback runs. A subscriber whose callback runs is not freed.
 *
 * Locking: the IOMMU's lock, for everything.
 */
#ifndef VIOMMU_NOTIFY_NOTIFY_H
#define VIOMMU_NOTIFY_NOTIFY_H

#include <pthread.h>
#include <viommu/notify.h>

struct requester;

/* What an operation waits for. */
struct wait {
    uint64_t drain;      /* target of its drain; 0: none */
    unsigned deliveries; /* that have not ended */
    bool told;           /* there were some */
    bool held;           /* they are not to be made yet */
    bool failed;         /* a subscriber answered with an error */
    bool timed_out;      /* or did not answer */
    uint16_t requester;  /* which one, when one of the two is set */
};

enum delivery_state {
    DELIVERY_QUEUED,
    DELIVERY_RUNNING,
    DELIVERY_PENDING,
    DELIVERY_ENDED, /* while its callback still runs */
};

struct delivery {
    struct delivery *next;
    struct viommu_subscriber *subscriber;
    struct wait *wait;
    struct viommu_change change;
    enum delivery_state state;
    uint64_t deadline; /* set when it is called */
};

struct viommu_subscriber {
    struct viommu_subscriber *next; /* of the device */
    struct viommu_device *device;
    struct viommu_subscription what;
    bool fenced;
    bool running; /* its callback is being called */
};

struct notify {
    struct delivery *first; /* in order */
    struct delivery **end;
    uint64_t token_next;
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

/* Makes one queued call, without the lock while it runs. Returns false when none is queued. */
bool notify_deliver(struct viommu *iommu);

/* Ends what took too long. */
void notify_expire(struct viommu *iommu, uint64_t now);

/* When the next delivery expires; 0: none is pending. */
uint64_t notify_deadline(const struct viommu *iommu);

/* Nobody waits for these any more (reset): they end unheard. */
void notify_forget(struct viommu *iommu, const struct wait *wait);

/* Begins a drain on behalf of a wait: it needs what began until now to have ended. */
void wait_drain(struct viommu *iommu, struct wait *wait);

/* Whether the requests that began before its drain have ended. */
bool wait_drained(struct viommu *iommu, const struct wait *wait);

/* Frees a device's subscribers. Blocks (without the lock) while a callback of one runs. */
void notify_remove_device(struct viommu *iommu, struct viommu_device *device);

#endif
