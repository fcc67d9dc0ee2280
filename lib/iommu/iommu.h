/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One IOMMU instance: its lock, its work, its outgoing messages, and the model behind it.
 *
 * Vocabulary. A *model* is what the guest programs; it answers registers, and translates what the
 * cache does not know. *Work* is what viommu_process does: the model's own (queue, commands), calls
 * to subscribers, time-outs, events and interrupts.
 *
 * Locking. `lock` protects everything here but what is atomic. No callback but the clock's, `wake`
 * and the watcher's is made with it held: events are put into an *outbox* under the lock, messages
 * stay with the model, and viommu_process tells both after it. One thread at a time processes
 * (`processing`). DMA takes the lock only to fetch a context, to record a fault, and for a watcher.
 *
 * No wake-up is lost: work comes (iommu_kick) under the lock, and viommu_process forgets the last
 * wake-up, looks for work, and stops processing under the lock. So a kick comes before it looks, or
 * while it processes (`work_came`: it looks again), or after, and then it wakes.
 *
 * A thread inside a change callback carries a mark (callback_enter): control calls on the same
 * instance are refused there.
 */
#ifndef VIOMMU_IOMMU_IOMMU_H
#define VIOMMU_IOMMU_IOMMU_H

#include "base/wake.h"
#include "device/requester.h"
#include "iotlb/iotlb.h"
#include "iotlb/kept.h"
#include "memory/memory.h"
#include "notify/notify.h"
#include "shadow/follow.h"

#include <pthread.h>
#include <viommu/iommu.h>
#include <viommu/watch.h>

#define REQUESTER_BUCKETS 256
#define OUTBOX_EVENTS 64

/* Where a translation comes from. */
struct dma_found {
    int32_t domain; /* or WINDOW_DOMAIN_ANY: not known, WINDOW_DOMAIN_NONE: nothing translates */
    uint8_t level;  /* of the page: 0 for 4 KiB, 1 for 2 MiB, 2 for 1 GiB */
};

/* A request as the model sees it. */
struct dma_request {
    struct viommu_device *device;
    struct requester *requester;
    uint64_t iova;
    uint32_t perm; /* enum viommu_perm; 0: a zero-length read */
    enum viommu_dma_type type;
    bool quiet; /* asked ahead of need: a refusal is not recorded */
    struct dma_found *found; /* NULL, or filled in where the request is allowed */
};

/* Models, as saved states name them. */
enum model_id {
    MODEL_VTD = 1,
    MODEL_VIRTIO = 2,
    MODEL_TEST = 0xffff, /* of unit tests */
};

/*
 * What a model does. One constant table a model; every member is there, but where `or NULL` is
 * said.
 */
struct model {
    /* Frees the model's own state. No lock, nobody else in. */
    void (*destroy)(struct viommu *iommu);
    /* Power-on values; for start and reset. Under the lock. */
    void (*reset)(struct viommu *iommu);
    /* A byte range of registers, little endian, `size` 1 to 8. Under the lock. */
    uint64_t (*mmio_read)(struct viommu *iommu, uint64_t offset, unsigned size);
    void (*mmio_write)(struct viommu *iommu, uint64_t offset, unsigned size, uint64_t value);
    /*
     * The next message that the unit itself has to send. Returns false when there is none. Under
     * the lock.
     */
    bool (*take_message)(struct viommu *iommu, struct viommu_interrupt *out);
    /*
     * Does work, taking a unit of *budget for each piece. Returns true when it stopped for the
     * budget. Under the lock; never waits. The thread has had a section: epoch_enter does not fail.
     */
    bool (*work)(struct viommu *iommu, unsigned *budget);
    /* Whether it waits for a drain: viommu_process should look again soon. Under the lock. */
    bool (*draining)(struct viommu *iommu);
    /*
     * Makes one callback of its own, giving the lock up meanwhile. Returns false when none is due.
     * Or NULL. Under the lock, in viommu_process.
     */
    bool (*deliver)(struct viommu *iommu);
    /* No device uses a requester any more; it is about to go. Or NULL. Under the lock. */
    void (*requester_gone)(struct viommu *iommu, struct requester *requester);
    /*
     * Translates what the cache does not know, and caches it. In a section, without the lock.
     * Returns 0, -EFAULT (the fault is recorded) or -EAGAIN (not started).
     */
    int (*translate)(struct viommu *iommu, const struct dma_request *request,
                     struct viommu_translation *out);
    /* Refuses a request that was translated: an access that the interrupt range does not take. */
    void (*refuse_interrupt)(struct viommu *iommu, const struct dma_request *request);
    /*
     * One entry of a translation request. In a section, without the lock. Returns 0 or as
     * translate.
     */
    int (*ats)(struct viommu *iommu, const struct dma_request *request,
               struct viommu_ats_entry *out);
    /*
     * These addresses are about to be closed to a requester (device/reserved.h), besides those that
     * are. Its guest is told, and uses none of them; so nothing may be mapped there. `closed`
     * follows for those that count no more: the old ones, or these when they do not come. Returns
     * 0; -EEXIST, and what is mapped in *holder; -ENOSPC (too many to tell of); -ENOMEM. Or both
     * NULL: the guest is told nothing, it maps what it likes. Under the lock.
     */
    int (*closing)(struct viommu *iommu, struct requester *requester, const struct closed *closed,
                   struct viommu_iova_side *holder);
    void (*closed)(struct viommu *iommu, struct requester *requester,
                   const struct closed *closed);
    /*
     * Whether the guest has mapped, for a requester, some of the `size` bytes from `first` on;
     * *behind is then an address behind which there is more room. Or NULL. Under the lock.
     */
    bool (*maps)(struct viommu *iommu, const struct requester *requester, uint64_t first,
                 uint64_t size, uint64_t *behind);
    /* Whether devices may have device-TLBs. Under the lock. */
    bool (*has_ats)(const struct viommu *iommu);
    /* Whether its guests tell enough for mirrors to follow them. Under the lock. */
    bool (*can_mirror)(const struct viommu *iommu);
    /*
     * Device addresses above `last` cannot be mapped, and of page sizes (bit n: 2^n bytes) only
     * these: before the start the model sees to it that the guest does not use others. Returns 0 or
     * -ERANGE: it needs more. Under the lock.
     */
    int (*narrow)(struct viommu *iommu, uint64_t last, uint64_t page_sizes);
    /*
     * What the device of a requester reaches, as the guest's tables are now. In a section, under
     * the lock.
     */
    void (*view)(struct viommu *iommu, uint16_t requester, struct shadow_view *out);
    /*
     * A trial (shadow/trial.h) is over: 0, or why it failed. The next one may begin. Or NULL. Under
     * the lock, in viommu_process.
     */
    void (*tried)(struct viommu *iommu, int error);
    /* How its tables read. Permissions have the bits of enum viommu_perm. */
    const struct pagetable_format *(*format)(const struct viommu *iommu);
    /* Where devices' interrupts go: never mapped. An empty range (first > last): nowhere. */
    struct viommu_range interrupts;

    /* What it is called in a saved state, and the version of its part of that. */
    uint32_t id;
    uint16_t save_version;
    /* Whether its state can be saved as it is now; NULL: always. Under the lock. */
    bool (*quiet)(const struct viommu *iommu);
    /* Writes configuration and state into an open section. Under the lock. */
    void (*save)(struct viommu *iommu, struct save_writer *writer);
    /*
     * Reads what save wrote (this version or an older one) and checks it, whole, into memory of
     * base_alloc: *state, which the caller frees whatever is returned. Nothing else changes.
     * Returns 0, -EBADMSG, -ENOTSUP, -EINVAL (another configuration), -ENODEV (an id that no device
     * has) or -ENOMEM. Under the lock.
     */
    int (*decode)(struct viommu *iommu, struct save_section *section, void **state);
    /* How *state is freed, if there is more to it than base_free; or NULL. */
    void (*discard)(void *state);
    /*
     * Puts it in place of the power-on values; may take what *state points to. Under the lock.
     */
    void (*restore)(struct viommu *iommu, const void *state);
};

struct outbox {
    struct viommu_event events[OUTBOX_EVENTS];
    unsigned count;
    unsigned lost; /* since the last delivery */
};

struct viommu {
    const struct model *model;
    pthread_mutex_t lock;
    _Atomic bool started;
    _Atomic bool watched; /* there is a watcher */
    bool processing;     /* a thread is in viommu_process */
    bool work_came;      /* and something came meanwhile */
    uint64_t poll_pause;   /* until a drain is looked at again; wake_pause */
    uint64_t drains_polled; /* stats.drains when it was last looked at */
    uint64_t drain_open;    /* while the model works: the first drain that is not over; or 0 */
    struct viommu_memory *memory;
    struct epoch *epoch; /* the memory's */
    struct viommu_callbacks callbacks;
    void *opaque;
    struct viommu_space *space; /* behind the memory; or NULL */
    uint64_t (*clock)(void *opaque); /* NULL: the host's */
    uint64_t ack_timeout;            /* nanoseconds */
    struct wake wake;
    struct iotlb iotlb;
    struct kept *kept; /* what is cached in the modes that are not normal; NULL: iotlb is used */
    struct requester *requesters[REQUESTER_BUCKETS];
    struct viommu_device *devices;
    struct viommu_device *followed; /* those that have subscribers: changes look at these only */
    struct windows windows;
    struct notify notify;
    struct follow follow;
    struct outbox outbox;
    struct viommu_watcher watcher;
    uint64_t observations; /* that it was told */
    struct viommu_stats stats; /* what is counted under the lock, and by devices that are gone */
};

/* Common part of creation. Returns 0 or a negative errno; iommu_fini undoes it. */
int iommu_init(struct viommu *iommu, const struct model *model, const struct viommu_config *config);
void iommu_fini(struct viommu *iommu);

void iommu_lock(struct viommu *iommu);
void iommu_unlock(struct viommu *iommu);
/* Takes the lock if nobody has it. */
bool iommu_trylock(struct viommu *iommu);

/* There is work: wakes whoever watches the event fd, or calls `wake`. Under the lock. */
void iommu_kick(struct viommu *iommu);

uint64_t iommu_now(const struct viommu *iommu);

/* Puts an event to be told into the outbox. Under the lock. */
void iommu_post_event(struct viommu *iommu, const struct viommu_event *event);

/* Marks this thread as inside a callback of the instance. */
struct callback_mark {
    const struct viommu *iommu;
    bool change; /* a change callback: control calls are refused */
    struct callback_mark *outer;
};
void callback_enter(struct callback_mark *mark, const struct viommu *iommu, bool change);
void callback_leave(struct callback_mark *mark);

/*
 * Whether a control call must be refused because this thread is inside a change callback of the
 * instance; posts an event that says so. Takes the lock.
 */
bool iommu_reentered(struct viommu *iommu);

/* Adds a device's counters to a sum. */
void stats_add_device(struct viommu_stats *sum, const struct viommu_device *device);

#endif
