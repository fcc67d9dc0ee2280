/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pinned windows inside the library.
 *
 * window.c makes and releases them; revoke.c is about those that are wanted back; look.c finds out
 * whether one has to be.
 *
 * Vocabulary. A window is *open* from its pin to its release. Its *birth* is the time of the epoch
 * before it was translated. A *concern* is what an operation takes away: requesters, a domain, a
 * range. A window is *wanted* once an operation that it concerns has asked for it: then its revoke
 * function is called (*asked*), its time runs, it is *overdue*, its fence function is called, and
 * it is *stopped*.
 *
 * How an operation waits. It drops what is cached, drains, and then *asks*: every window that was
 * born before the drain and that it concerns is wanted. All of them are linked by then: a pin runs
 * in a section and links the window at its end, and one born before the drain began was in a
 * section that the drain waited for. Wanted windows are in one list, in the order in which they
 * were. The operation *stands* at the first of them that holds it back, and moves on when that goes
 * or is stopped; those behind it are through. So each looks at each window once, and releasing one
 * moves only those who stand there.
 *
 * Before a wanted window is asked back it is *looked at*: its pages are translated anew, as a pin
 * would now. Where all is as it was the window is born again, with what was found, and nobody waits
 * for it any more: it is the same as if it had been released and pinned once more in between.
 * Guests drop more than they changed: Linux drops whole domains.
 *
 * Invariants:
 * - `wanted` lists, in this order: stopped windows, overdue ones that are to be fenced (from
 *   `to_fence`), asked ones (from `to_expire`), those to be asked (from `to_call`). The three
 *   pointers are NULL at the end of the list.
 * - A wait stands at a wanted window, or nowhere: then it is over.
 * - A window whose function runs is not freed.
 *
 * Locking: a list's own lock for what is in it and for its windows' `wanted`; the IOMMU's lock for
 * all the rest, `wanted` too, taken first. So a window that nobody wants, which is nearly every
 * one, is pinned and released without the IOMMU's lock.
 */
#ifndef VIOMMU_DEVICE_WINDOW_H
#define VIOMMU_DEVICE_WINDOW_H

#include <pthread.h>
#include <stdatomic.h>
#include <viommu/window.h>

struct dma_found;

/* Open windows: of a device, or of devices that are gone. */
struct window_list {
    pthread_mutex_t lock;
    struct viommu_window *first;
    _Atomic unsigned count; /* written under the lock */
    uint64_t pages;
    _Atomic uint64_t pinned; /* so far */
    _Atomic uint64_t pages_pinned;
};

/* Domains that are no guest's. */
#define WINDOW_DOMAIN_ANY (-1)  /* a concern: every domain; a window: not known */
#define WINDOW_DOMAIN_NONE (-2) /* a window: translation was off */

struct window_concern {
    uint64_t first; /* device addresses */
    uint64_t last;
    int32_t domain;
    uint16_t id; /* requesters that are equal in the bits of `compared` */
    uint16_t compared;
};

/* An operation's wait. Zeroed, it concerns nothing. */
struct window_wait {
    struct window_concern concern;
    bool concerns;
    uint64_t before;          /* windows born earlier */
    struct viommu_window *at; /* where it stands */
    struct window_wait *next; /* there */
    struct window_wait **link;
};

/* Where its pages come from: an invalidation that concerns it names this. */
struct window_origin {
    int32_t domain;
    uint8_t shift; /* log2 of the largest page */
};

/* A slot of guest memory that a window leads to. */
struct window_slot {
    uint64_t first;
    uint64_t last;
    const void *host;
};

/* Guest memory that a window leads to, in the order of its ranges. */
struct window_run {
    uint64_t gpa;
    uint64_t size;
};

struct viommu_window {
    struct viommu *iommu;
    struct viommu_device *device; /* NULL: gone */
    struct window_list *list;
    struct viommu_window *next; /* there */
    struct viommu_window **link;
    void (*revoke)(void *opaque);
    int (*fence)(void *opaque);
    void *opaque;

    /* How it was translated. */
    uint64_t birth;
    uint64_t pages;
    struct window_origin origin;
    uint32_t perm;
    unsigned alias;
    uint16_t id;
    struct window_slot *slots; /* own_slots, or more */
    size_t slot_count;
    struct window_slot own_slots[2];
    struct window_run *runs; /* own_runs, or more */
    size_t run_count;
    struct window_run own_runs[2];

    bool wanted;
    struct viommu_window *next_wanted;
    struct viommu_window **wanted_link;
    struct window_wait *waits; /* that stand here */
    bool asked;      /* revoke was called, perhaps for an operation that a reset ended */
    bool handled;    /* looked at, or asked; becomes true while it is wanted only */
    bool overdue;
    bool stopped;    /* holds no operation back any more */
    bool for_memory; /* memory waits for it */
    bool calling;    /* one of its functions runs */
    bool released;   /* meanwhile, from inside */
    pthread_t caller;
    uint64_t deadline;

    size_t range_count;
    struct viommu_range ranges[];
};

/* Of an instance. */
struct windows {
    struct viommu_device *devices; /* that have pinned */
    struct window_list orphans;    /* their devices are gone */
    struct viommu_window *wanted;
    struct viommu_window **wanted_end;
    struct viommu_window *to_fence;
    struct viommu_window *to_expire;
    struct viommu_window *to_call;
    struct viommu_memory_listener *listener; /* from the first pin on */
    unsigned leaving;       /* windows that a removal of memory waits for */
    uint64_t leaving_token; /* its answer */
    bool destroyed;         /* the instance is only there for its orphans */
    struct viommu_device *looking; /* a window of this one is being looked at */
    unsigned looked;        /* windows looked at in this round of work */
};

/*
 * A round of work looks at so many windows, then it ends, and others have their turn at the lock.
 * The operation that passes the bound is the last one to ask. One with many ranges counts for more.
 */
#define WINDOWS_LOOKED_MAX 16384u
#define WINDOWS_RANGES_A_LOOK 8u

void window_list_init(struct window_list *list);
void window_list_fini(struct window_list *list);

/* ---- window.c ---- */

void window_free(struct viommu_window *window);

/* A device goes: its windows become orphans. Under the lock. */
void windows_orphan(struct viommu *iommu, struct viommu_device *device);

/* One more page, from where `found` says; the first one sets it. */
void window_origin_add(struct window_origin *origin, const struct dma_found *found, bool first);

/* ---- look.c ---- */

/*
 * Whether a window of a device that is there leads where it led, by the tables as they are now.
 * Then *birth and *origin are those of a pin that is made now. Without the lock.
 */
bool window_look(const struct viommu_window *window, uint64_t *birth,
                 struct window_origin *origin);

/* ---- revoke.c ---- */

void windows_init(struct viommu *iommu);
void windows_fini(struct viommu *iommu);

/* The instance is being destroyed; its devices are gone. Returns whether windows keep it. */
bool windows_keep(struct viommu *iommu);

/* Has the memory's removals wait for windows, from now on. Returns 0 or -ENOMEM. Under the lock. */
int windows_listen(struct viommu *iommu);

/* What the operation takes away. */
void windows_concern(struct window_wait *wait, const struct window_concern *concern);

/*
 * Wants those that were born before `before` and are concerned: a drain with this target is over.
 * Returns whether the wait has to wait for one. Under the lock.
 */
bool windows_ask(struct viommu *iommu, struct window_wait *wait, uint64_t before);

/* Whether the wait is over: moves it on. Under the lock. */
bool windows_over(struct window_wait *wait);

/* Whether enough windows were looked at in this round. Under the lock. */
bool windows_spent(const struct viommu *iommu);

/* Whether it stands somewhere; it may be over when it is moved on. */
static inline bool windows_stands(const struct window_wait *wait)
{
    return wait->at != NULL;
}

/*
 * Whether there are none at all, as where no device has pinned: then nothing has to be asked after
 * a drain. Under the lock.
 */
static inline bool windows_none(const struct windows *windows)
{
    return !windows->devices && !windows->wanted &&
           !atomic_load_explicit(&windows->orphans.count, memory_order_acquire);
}

/* Nobody waits any more (reset). */
void windows_forget(struct window_wait *wait);

/* What operations wanted is not wanted any more: they were all forgotten. Under the lock. */
void windows_reset(struct viommu *iommu);

/*
 * Makes one call of a window's function, or finds that it need not be made, without the lock.
 * Returns what that took of a budget; 0: nothing is due.
 */
unsigned windows_deliver(struct viommu *iommu);

/* Waits until no window of the device is being looked at. Under the lock, given up meanwhile. */
void windows_wait_for_look(struct viommu *iommu, const struct viommu_device *device);

/* Whoever took too long is overdue. Under the lock. */
void windows_expire(struct viommu *iommu, uint64_t now);

/* When the next one is; 0: none. */
uint64_t windows_deadline(const struct viommu *iommu);

/* Takes a window that is being released out of what wants it. Under the lock. */
void window_unwant(struct viommu *iommu, struct viommu_window *window);

#endif
