/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One IOMMU instance, whatever its model: configuration, registers, work, events, statistics.
 *
 * Life: a model's create function (viommu_vtd_create), then viommu_start, then registers and DMA,
 * then viommu_destroy. There are no hidden threads: what cannot finish at once is done by
 * viommu_process(), which the embedder calls when viommu_event_fd() polls readable, or when the
 * `wake` callback says so.
 *
 * Threads: every function may be called from any thread unless its comment says otherwise.
 * Functions of this header may take the instance's own lock for a short, bounded time; none blocks
 * longer. All callbacks but `clock`, `wake` and a watcher's (viommu/watch.h) are made without a
 * lock held, and all but these, and `interrupt` for a device's own message, come from
 * viommu_process().
 */
#ifndef VIOMMU_IOMMU_H
#define VIOMMU_IOMMU_H

#include <viommu/memory.h>
#include <viommu/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* An IOMMU instance. */
struct viommu;
struct viommu_space;

/* A message-signalled interrupt: a 32-bit store that the interrupt controller should see. */
struct viommu_interrupt {
    uint64_t address;
    uint32_t data;
    uint16_t requester; /* who sends it */
    bool from_unit;     /* sent by the IOMMU itself; then requester is the unit's own id */
};

enum viommu_event_kind {
    VIOMMU_EVENT_FENCED = 1,   /* a subscriber failed or did not answer in time: told no more */
    VIOMMU_EVENT_DENIED,       /* a requester's DMA is refused from now on */
    VIOMMU_EVENT_HOST_FAILURE, /* the host failed us (memory); `error` says how */
    VIOMMU_EVENT_REENTRY,      /* a control call from inside a change callback was refused */
    VIOMMU_EVENT_OVERFLOW,     /* events were lost: more happened than the queue between two
                                  viommu_process() calls holds; `error` is how many */
    /* Of mirrors (viommu/notify.h). */
    VIOMMU_EVENT_DIFFERS,   /* a mapping failed (`error`): the first that the subscriber misses */
    VIOMMU_EVENT_FOLLOWS,   /* it misses none any more */
    VIOMMU_EVENT_REWRITTEN, /* the guest changed live entries in place: `from_*` became `to_*` */
    VIOMMU_EVENT_STOP,      /* the policy for that asks to stop the virtual machine */
    VIOMMU_EVENT_BAD_ENTRY, /* entries that cannot be read, or with reserved bits set: not mapped */
    VIOMMU_EVENT_NOT_MAPPED, /* mapped by the guest to `to_gpa`, not by the subscriber: an address
                                that is not memory, or not allowed, or a write to ROM. Told when it
                                is first found in the tables, or asked for */
    VIOMMU_EVENT_QUOTA,      /* tables need more memory, or work, than the quota: fenced */
    /* Of pinned windows (viommu/window.h). */
    VIOMMU_EVENT_OVERDUE, /* one was not released in time, nothing waits for it any more; with
                             `error` set its use was not stopped. The range is its first */
    /* Of a faithful cache. */
    VIOMMU_EVENT_CACHE_FULL, /* the page that holds `first` and further ones are not kept. Told
                                once, until there is room again */
};

/* What the embedder is told. */
struct viommu_event {
    enum viommu_event_kind kind;
    uint16_t requester; /* whom it concerns, where it concerns one */
    int error;          /* a negative errno, or 0 */
    uint64_t first;     /* the addresses concerned, where there are some */
    uint64_t last;
    const char *text; /* a sentence for people; static */
    uint64_t from_gpa; /* what `first` led to before */
    uint64_t to_gpa;   /* what it leads to now */
    uint32_t from_perm; /* enum viommu_perm */
    uint32_t to_perm;
};

/*
 * What to do when a guest changes a live entry of its tables in place, and a mirror follows: for a
 * moment the device finds neither the old nor the new.
 */
enum viommu_rewrite_policy {
    VIOMMU_REWRITE_CONTINUE = 0, /* follow, and tell in an event */
    VIOMMU_REWRITE_FENCE,        /* fence the mirrors of these tables, and deny their devices */
    VIOMMU_REWRITE_STOP,         /* follow, and ask the embedder in an event to stop the machine */
};

/*
 * How translations, and what is found out about requesters, are cached. The modes that are not
 * normal are for people who test drivers: slow, with a lock, and each within what hardware may do.
 * They concern what devices ask the library (translate, read, write, translation requests), not
 * mirrors. In both, translations belong to a domain, as in hardware: tables that share a domain id
 * share them. No state that is saved has any of it.
 */
enum viommu_cache_mode {
    VIOMMU_CACHE_NORMAL = 0,
    /*
     * Keeps all until the guest invalidates it, pages whole and permissions as they were; where the
     * model lets hardware cache it (VT-d: in caching mode) also that something is not present, or a
     * fault. A guest that forgets an invalidation meets the old translation each time. When
     * `cache_quota` is used up, what else comes is not kept, and an event says so.
     */
    VIOMMU_CACHE_FAITHFUL,
    /*
     * Loses things at random, lets old and new take turns until an invalidation, and begins
     * invalidations late: until shortly before one completes, what it is to drop is still used.
     * Afterwards never. viommu_process() then returns VIOMMU_PENDING while one is late: call it
     * again. (What is left of both modes for a virtio-iommu, viommu/virtio.h says.)
     */
    VIOMMU_CACHE_HOSTILE,
};

/*
 * What the library calls. Any member may be NULL. `opaque` is viommu_config.opaque. All of the
 * functions of this library may be called from them, on this instance and on others, except
 * viommu_process and viommu_destroy on the same instance; but none from `wake`.
 */
struct viommu_callbacks {
    /*
     * The unit's own messages come from viommu_process(); a device's from its
     * viommu_device_write().
     */
    void (*interrupt)(void *opaque, const struct viommu_interrupt *interrupt);
    void (*event)(void *opaque, const struct viommu_event *event);
    /*
     * There is something for viommu_process() to do. It takes the place of viommu_event_fd(), which
     * then tells of times only (time-outs, and devices whose requests take long: go on watching
     * it), and saves the system calls of writing and reading that: for an embedder with a loop of
     * its own, or one that calls viommu_process() right after a register was written.
     *
     * Called once, and not again until viommu_process() has begun; by any thread inside any call
     * that brings work (a register written, a fault recorded, a change acknowledged), and by
     * viommu_process() itself when its budget ended, or it had no memory. What it told of before
     * the start it tells again then. It is called with the instance's lock held, and maybe with
     * others of the library: it notes that there is work, or wakes a thread that does it, and calls
     * nothing here.
     */
    void (*wake)(void *opaque);
};

/* What every model is configured with. */
struct viommu_config {
    struct viommu_memory *memory; /* the guest's memory; needed */
    struct viommu_callbacks callbacks;
    void *opaque;
    /*
     * Time in nanoseconds, never going back; NULL is the host's monotonic clock. With a clock of
     * the embedder's own, viommu_event_fd() does not tell of time-outs: call viommu_process() as
     * time goes. It is called with the instance's lock held: it only tells the time, and calls
     * nothing here.
     */
    uint64_t (*clock)(void *opaque);
    /*
     * How long a subscriber may take to acknowledge a change, and the holder of a pinned window to
     * release it, in milliseconds; 0 is 500.
     */
    uint32_t ack_timeout_ms;
    /* Entries of the translation cache, a power of two from 256 to 2^24; 0 is 16,384. */
    uint32_t iotlb_entries;
    /* For mirrors: what happens when the guest rewrites live entries. */
    enum viommu_rewrite_policy rewrite_policy;
    /*
     * Bytes that remembering what mirrors hold may take; 0 is 1 % of guest memory and 16 MiB. Past
     * it the mirrors of the tables that need more are fenced.
     */
    uint64_t shadow_quota;
    /* For people who test drivers; normal for all others. */
    enum viommu_cache_mode cache_mode;
    /* Faithful and hostile: how many pages are kept at most, up to 2^24; 0 is 65,536. */
    uint32_t cache_quota;
    /* Hostile: where the sequence begins. The same calls then have the same results. */
    uint64_t cache_seed;
    /*
     * The guest's other addresses (viommu/space.h): what devices read and write
     * (viommu_device_read, _write) and is not guest memory goes there, to registers of another
     * device as a rule. It outlives the instance. NULL: nothing is there.
     */
    struct viommu_space *space;
};

/*
 * Freezes the configuration and brings the instance to its power-on state. Returns 0; -EALREADY
 * when it is started; -EBUSY when a mirror waits to be adopted: viommu_load (viommu/save.h) starts
 * the instance then.
 */
int viommu_start(struct viommu *iommu);

/*
 * Gives the instance back; NULL is accepted. The caller sees to it that no other thread is in any
 * call on it or on its devices, and that no subscriber will complete a change. Devices and
 * subscribers that still exist are removed with it; what mirrors have mapped stays mapped, and
 * pinned windows stay open (viommu/window.h). Not from a listener of memory. Blocks while such a
 * listener of the instance's own runs.
 */
void viommu_destroy(struct viommu *iommu);

/*
 * A platform reset: registers back to their power-on values, pending work dropped, caches empty,
 * denied requesters admitted again. Devices and subscribers stay. Reset devices first, so that none
 * still runs: DMA under way is not waited for, and caches are not told. Mirrors follow, in
 * viommu_process(): translation is off. Returns 0; -EAGAIN before viommu_start; -EDEADLK from a
 * change callback.
 */
int viommu_reset(struct viommu *iommu);

/*
 * Does pending work: invalidations, commands, time-outs, callbacks. `budget` bounds it (a unit is a
 * descriptor, whose work is bounded itself, a page of tables compared, or a callback; 0 means 256);
 * a few units more go to whoever else waits when the guest's queue used it up. Never blocks. One
 * thread works at a time: while it is inside, it does what others come for, and they return 0 at
 * once.
 *
 * Returns 0 when nothing more can be done now (what waits for others wakes the event fd again);
 * VIOMMU_PENDING when the budget ended first: call again; -EAGAIN before viommu_start; -EDEADLK
 * from a callback of this instance; -ENOMEM on a thread's first call: nothing was done, call again.
 */
int viommu_process(struct viommu *iommu, unsigned budget);

/*
 * A descriptor that polls readable when viommu_process() has something to do, timers included; with
 * a `wake` callback, for timers alone. It belongs to the instance: do not read, write or close it.
 */
int viommu_event_fd(struct viommu *iommu);

/*
 * A guest's access to the instance's registers: `size` bytes (1 to 8) at `offset`, little endian.
 * Any offset and size are answered: what is no register reads 0 and ignores writes. Reads never
 * wait for pending work. Returns 0; -EINVAL for a size outside 1 to 8; -EAGAIN before viommu_start;
 * -EDEADLK for a write from a change callback.
 */
int viommu_mmio_read(struct viommu *iommu, uint64_t offset, unsigned size, uint64_t *value);
int viommu_mmio_write(struct viommu *iommu, uint64_t offset, unsigned size, uint64_t value);

/* Why a mirror is told something. */
enum viommu_cause {
    VIOMMU_CAUSE_PAGES = 0, /* a page-selective invalidation */
    VIOMMU_CAUSE_DOMAIN,    /* a domain-selective one */
    VIOMMU_CAUSE_GLOBAL,    /* a global one */
    VIOMMU_CAUSE_CONTEXT,   /* the device may have other tables: context, root, translation */
    VIOMMU_CAUSE_MEMORY,    /* guest memory came or went */
    VIOMMU_CAUSE_REPLAY,    /* the subscriber is new, or was let in again */
    VIOMMU_CAUSE_RETRY,     /* what had failed is tried again */
    VIOMMU_CAUSES
};

/*
 * Counters since viommu_start. Members are only ever added, at the end. Counters of one device's
 * DMA are exact as long as one thread at a time issues it.
 */
struct viommu_stats {
    uint64_t translations;          /* requests to translate, whatever became of them */
    uint64_t iotlb_hits;            /* answered from the cache */
    uint64_t walks;                 /* page-table walks */
    uint64_t context_fetches;       /* reads of a root and a context entry */
    uint64_t refused;               /* requests refused, recorded as a fault or not */
    uint64_t faults_recorded;       /* faults put where the guest can see them */
    uint64_t faults_lost;           /* faults for which there was no room */
    uint64_t interrupts_requested;  /* messages of devices handed on */
    uint64_t interrupts_sent;       /* messages of the unit itself */
    uint64_t bytes_read;            /* from guest memory, by devices */
    uint64_t bytes_written;
    uint64_t context_invalidations[3]; /* global, domain, device */
    uint64_t iotlb_invalidations[3];   /* global, domain, page */
    uint64_t device_tlb_invalidations;
    uint64_t interrupt_cache_invalidations;
    uint64_t waits_completed;       /* wait descriptors */
    uint64_t queue_errors;          /* descriptors refused */
    uint64_t drains;                /* waits for DMA under way */
    uint64_t drains_delayed;        /* times that work was left because DMA was still under way */
    uint64_t acks_pending;          /* changes that a subscriber acknowledged later */
    uint64_t acks_timed_out;        /* changes that nobody acknowledged in time */
    uint64_t events_lost;
    /* Of mirrors. Pages are of 4 KiB; arrays are by enum viommu_cause. */
    uint64_t tables_compared[VIOMMU_CAUSES];    /* leaf tables, or what stands in for one */
    uint64_t pages_present[VIOMMU_CAUSES];      /* compared, unchanged and mapped already */
    uint64_t pages_absent[VIOMMU_CAUSES];       /* compared, unchanged and not mapped */
    uint64_t pages_appeared[VIOMMU_CAUSES];     /* not there before */
    uint64_t pages_gone[VIOMMU_CAUSES];         /* not there any more */
    uint64_t pages_rewritten[VIOMMU_CAUSES];    /* another target or other permissions */
    uint64_t calls_map;             /* calls of mirrors, failed ones too */
    uint64_t calls_unmap;
    uint64_t calls_replace;
    uint64_t calls_failed;
    uint64_t pages_interrupted;     /* unchanged, but unmapped and mapped again with a neighbour */
    uint64_t windows;               /* times that something mapped was away for a moment */
    uint64_t window_ns;             /* how long, in all */
    uint64_t window_ns_max;         /* and at most */
    uint64_t retries;               /* failed mappings tried again */
    uint64_t shadow_bytes;          /* memory in use to remember what is mapped, now */
    uint64_t shadow_pages;          /* pages remembered, now */
    /* Of pinned windows (viommu/window.h). */
    uint64_t windows_pinned;
    uint64_t pages_pinned;          /* 4 KiB pages, or parts of one, in all of those */
    uint64_t windows_open;          /* now */
    uint64_t windows_revoked;       /* asked back */
    uint64_t windows_overdue;       /* and not released in time */
    uint64_t windows_kept;          /* not asked back: they lead where they led */
};

/*
 * Copies the counters to *stats, `size` bytes at most (a program built against another release
 * passes its own sizeof); what this release does not know is zeroed. Returns 0.
 */
int viommu_stats_get(struct viommu *iommu, struct viommu_stats *stats, size_t size);

/* The library's version: "major.minor.patch". */
const char *viommu_version(void);

#ifdef __cplusplus
}
#endif

#endif
