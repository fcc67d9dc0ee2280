/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The vhost backend: a virtio device whose rings are worked on elsewhere (a vhost-user back-end
 * such as DPDK, or the kernel's vhost), behind a device of an IOMMU.
 *
 * The far side has guest memory, but not the guest's tables. It asks for a translation when it
 * meets an address that it does not know (MISS), keeps what it is answered (UPDATE), and is told to
 * drop it (INVALIDATE). This is that conversation, and of a vhost-user back-end everything else
 * besides: negotiation, memory table, rings.
 *
 * What holds. The guest's invalidation of a range completes only when the far side has acknowledged
 * that it dropped it, or was cut off, and the device denied: however it ended, by time-out,
 * nonsense, a refusal or its death. That does not depend on when viommu_vhost_process() is called.
 * What it is given never reaches further than the guest's tables do, nor than one piece of memory
 * contiguous in this process, nor gives more than they permit. What it holds is never changed in
 * place: it is told to drop it first. A MISS that the guest's tables refuse is a fault that the
 * guest sees; it is remembered, 128 at a time, and answered when they allow it.
 *
 * What is dropped for the embedder's sake and not the guest's (viommu_reset, another requester id,
 * a device that is denied, addresses that its IOVA space closes) is not waited for: the far side is
 * told by the next viommu_vhost_process(). Stop its rings before, where that matters.
 *
 * Nothing here blocks, and there is no hidden thread: what the far side says is read, and what it
 * waits for is done, by viommu_vhost_process(), when viommu_vhost_event_fd() polls readable.
 *
 * What it is worth. A vhost-user back-end is given descriptors of guest memory, all of it: the
 * IOMMU protects against mistakes of the guest and of an honest back-end, not against a malicious
 * one. One that is cut off is answered nothing more, and an honest one stops when it reads that its
 * connection is over. But it keeps its mappings of guest memory, and until it has read that (it
 * hangs, or is stopped) it may go on with what it had not dropped: the guest's invalidation does
 * not wait for it. Only its end as a process is certain. The kernel acknowledges an INVALIDATE by
 * taking it; when it does not, it is told once more to drop everything, and the rings are yours to
 * stop.
 *
 * Threads: calls on one object by one thread at a time, but not those of other objects, devices or
 * of the IOMMU.
 */
#ifndef VIOMMU_VHOST_H
#define VIOMMU_VHOST_H

#include <viommu/device.h>

#ifdef __cplusplus
extern "C" {
#endif

struct viommu_vhost;

enum { VIOMMU_VHOST_RINGS_MAX = 64 };

/* What is at the other end. */
enum viommu_vhost_kind {
    VIOMMU_VHOST_USER = 0, /* a vhost-user back-end; the descriptor is a connected stream socket */
    VIOMMU_VHOST_KERNEL,   /* the kernel; the descriptor is of /dev/vhost-*: IOTLB messages only */
};

enum viommu_vhost_state {
    VIOMMU_VHOST_NEGOTIATING = 0, /* it has not said yet what it can do */
    VIOMMU_VHOST_READY,           /* it has; rings can be set up and started */
    VIOMMU_VHOST_FAILED,          /* gone, or cut off: see viommu_vhost_reconnect */
};

struct viommu_vhost_config {
    enum viommu_vhost_kind kind;
    struct viommu_device *device; /* whose translations it uses; it outlives the object */
    struct viommu_memory *memory; /* guest memory: the IOMMU's own, whose slots have files */
    int fd;                       /* taken over when creating succeeds; your ioctls need a copy */
    /* Wanted at most: the device's features, and of the transport's INDIRECT_DESC, EVENT_IDX and
       others that concern rings. VERSION_1 and ACCESS_PLATFORM are always there, packed rings
       never. */
    uint64_t features;
    unsigned rings;      /* 1 to VIOMMU_VHOST_RINGS_MAX; of the kernel it does not count */
    uint32_t timeout_ms; /* for answers other than to an INVALIDATE; 0: 1000 */
    /*
     * Where the far side asks to read and write, and the guest's tables allow to write only, it may
     * read, too. DPDK asks so for buffers that it only writes, and can do nothing with less; and
     * Linux, as a guest, allows no more for them.
     */
    bool writable_is_readable;
    /*
     * Any member may be NULL. Called from viommu_vhost_process(), with nothing locked; they may
     * call everything here but viommu_vhost_process and viommu_vhost_destroy.
     */
    void (*ready)(void *opaque); /* READY now */
    /* A ring is stopped, and would go on at this place of its available ring. */
    void (*stopped)(void *opaque, unsigned ring, uint16_t next);
    /*
     * FAILED now, `error` says why: -ECONNRESET it left; -ETIMEDOUT it did not answer; -EPROTO it
     * said what makes no sense; -EIO it refused something; -ENOTSUP it lacks what is needed
     * (VERSION_1, ACCESS_PLATFORM, REPLY_ACK, BACKEND_REQ, so many rings); -ENOBUFS it does not
     * read; -ENOSPC guest memory lies in more files than it takes; an error of ours, as -ENOMEM.
     * No ring runs, and the far side is cut off. Where an INVALIDATE of the guest's was not
     * acknowledged, whatever the error, the device is denied as well, and an event of the unit says
     * so: viommu_device_reset admits it again.
     */
    void (*failed)(void *opaque, int error);
    void *opaque;
};

/*
 * Begins. Returns 0; -EINVAL for a configuration that makes no sense; -ENOTSUP for a kernel without
 * IOTLB messages; -ENOMEM, -EMFILE, -ENFILE; and the errors of viommu_device_subscribe. The
 * kernel's is READY from the first viommu_vhost_process() on; of its rings nothing is known here.
 */
int viommu_vhost_create(const struct viommu_vhost_config *config, struct viommu_vhost **out);

/* Ends it: the far side is disconnected, whatever it was doing. What it had not acknowledged counts
   as acknowledged: that it does no more is yours to know. NULL is accepted. Not from a callback of
   changes (viommu/notify.h) or of memory. */
void viommu_vhost_destroy(struct viommu_vhost *vhost);

/* Polls readable when viommu_vhost_process() has work, time-outs included. Owned by the object. */
int viommu_vhost_event_fd(struct viommu_vhost *vhost);

/* Reads and answers, a bounded amount; sends what is waiting. Never blocks. Returns 0; the error
   that `failed` was told; -ENOMEM on a thread's first call: nothing was done, call again; or
   -EDEADLK from a callback of changes of this IOMMU (viommu/notify.h): likewise. */
int viommu_vhost_process(struct viommu_vhost *vhost);

/* How it stands. */
enum viommu_vhost_state viommu_vhost_state(const struct viommu_vhost *vhost);

/* Device features that both sides have; 0 before it is READY. */
uint64_t viommu_vhost_features(const struct viommu_vhost *vhost);

/* What the driver accepted of them. Before the first ring starts. Returns 0; -EINVAL for others;
   -EAGAIN before READY; -EBUSY while a ring runs. */
int viommu_vhost_accept(struct viommu_vhost *vhost, uint64_t features);

/* A split ring as its driver has set it up. Addresses are the device's, through its translations.
 */
struct viommu_vhost_ring {
    uint16_t size; /* a power of two up to 32,768 */
    uint16_t next; /* where to go on in the available ring; 0 at first */
    uint64_t descriptors;
    uint64_t available;
    uint64_t used;
    /* Eventfds; not kept, but copied. A back-end has them, too, and can make a plain write or read
       of either wait for ever, whatever poll() said. */
    int kick; /* the driver notifies; -1: none, it polls */
    int call; /* the device interrupts; -1: it does not */
};

/*
 * Starts a ring. Returns 0 (the far side may still be told); -EINVAL for a ring that makes no
 * sense; -EAGAIN before READY; -EBUSY while it runs or is stopping, or would go on with another
 * connection; -EPIPE when FAILED; -ENOMEM, -EMFILE.
 */
int viommu_vhost_ring_start(struct viommu_vhost *vhost, unsigned ring,
                            const struct viommu_vhost_ring *setup);

/*
 * Stops it; `stopped` is called when the far side has let go of it, or `failed`. When FAILED, it
 * does not go on with another connection; nothing is called. Returns 0, or -EINVAL for one that
 * does not run.
 */
int viommu_vhost_ring_stop(struct viommu_vhost *vhost, unsigned ring);

/*
 * Other eventfds for a ring that goes on with another connection: before that is made. The far side
 * that was cut off may live and has the old ones, with which it could take the new one's
 * notifications away, or have the driver interrupted. What came by the old `call` last is yours to
 * pass on. Returns 0; -EINVAL for a ring that does not go on, or descriptors below -1; -EBUSY
 * unless FAILED; -EMFILE, and nothing is changed.
 */
int viommu_vhost_ring_renew(struct viommu_vhost *vhost, unsigned ring, int kick, int call);

/*
 * Another connection, after the first has FAILED: the far side was started again. Everything is
 * said anew; rings that ran, and were not stopped since, go on where their used rings say, before
 * `ready` is called, with the eventfds that they had, unless viommu_vhost_ring_renew gave them
 * others. Returns 0 (negotiating); -EBUSY unless FAILED; -EPERM while the device is
 * denied: reset it first (its used rings could not be read); -ENOTSUP for the kernel; -ENOMEM,
 * -EMFILE. fd is taken over when it succeeds.
 */
int viommu_vhost_reconnect(struct viommu_vhost *vhost, int fd);

/* Since it was created. Members are only ever added, at the end. */
struct viommu_vhost_statistics {
    uint64_t misses;        /* it asked */
    uint64_t denied;        /* and the tables refused */
    uint64_t healed;        /* and later allowed it */
    uint64_t updates;       /* sent */
    uint64_t invalidations; /* sent */
    uint64_t acknowledged;  /* of those */
    uint64_t skipped;       /* not sent: nothing was held there */
};

/* `size` bytes at most. Returns 0. */
int viommu_vhost_statistics(const struct viommu_vhost *vhost,
                            struct viommu_vhost_statistics *statistics, size_t size);

#ifdef __cplusplus
}
#endif

#endif
