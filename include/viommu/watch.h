/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Watching an instance: a function is told of each step as it is taken. What a guest writes, what
 * the unit reads, begins and completes, what devices ask that the cache does not answer, and what
 * is refused. It is for tracing; a trace of a subscriber's calls is viommu/trace.h.
 *
 * Observations come one at a time, under the instance's lock, numbered in the order in which things
 * happened. The function therefore only writes down: it calls nothing of this library on the
 * instance or its devices, and it is quick, for the guest's register accesses and faults wait
 * meanwhile. A translation that misses waits for the lock only while somebody watches.
 *
 * While nobody watches, each place costs one branch that is predicted; an answer from the cache
 * does not even have that. Where the library is built with sys/sdt.h, the same places are USDT
 * probes of the provider `viommu`; docs/trace.md lists them.
 */
#ifndef VIOMMU_WATCH_H
#define VIOMMU_WATCH_H

#include <viommu/iommu.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What happened. In parentheses: the members that say more. */
enum viommu_observed {
    VIOMMU_OBSERVED_RESET = 1,  /* viommu_reset was called */
    VIOMMU_OBSERVED_WRITE,      /* the guest wrote registers (offset, size, value) */
    VIOMMU_OBSERVED_COMMAND,    /* what a register asked for was begun (offset, value; of an
                                   invalidation low and high, as a descriptor) */
    VIOMMU_OBSERVED_COMPLETED,  /* it is complete (offset, value; of an invalidation register what
                                   it reads now) */
    VIOMMU_OBSERVED_DESCRIPTOR, /* a descriptor was read and begun (slot, low, high) */
    VIOMMU_OBSERVED_REFUSED,    /* the queue stopped at one (slot, reason; low and high, 0 where it
                                   could not be read) */
    VIOMMU_OBSERVED_RETIRED,    /* a descriptor is complete; they come in order (slot, low, high;
                                   error is -ETIMEDOUT for a wait that was given up) */
    VIOMMU_OBSERVED_MISS,       /* a request that the cache did not answer (requester, type, iova,
                                   wanted, error, and when it was not refused gpa, mask, perm) */
    VIOMMU_OBSERVED_FAULT,      /* a fault (requester, type, iova, wanted, reason, slot: the record
                                   taken; error is -ENOSPC when there was none) */
    VIOMMU_OBSERVED_MESSAGE,    /* the unit sends a message (offset of the register that controls
                                   it, gpa: where to, value) */
    VIOMMU_OBSERVED_EVENT,      /* an event for the embedder (event) */
    /* Of a virtio-iommu only: */
    VIOMMU_OBSERVED_ACCEPTED,  /* the driver accepted features (value) */
    VIOMMU_OBSERVED_REQUEST,   /* a request was taken (number, size, room; bytes, slot of them:
                                  what was read of it) */
    VIOMMU_OBSERVED_RESTART,   /* viommu_virtio_reset was called (number) */
    VIOMMU_OBSERVED_ANSWERED,  /* one of both is complete (number, status, size: bytes that were
                                  written) */
    VIOMMU_OBSERVED_REQUESTER, /* an id that endpoints can have came (value 1) or went (0); also at
                                  the beginning, of each that is there (requester, value) */
    VIOMMU_OBSERVED_CLOSED,    /* an IOVA space closes addresses to an id (requester, low: first,
                                  high: last), one of the list that counts from now on; slot counts
                                  from 0, and an empty list is one range that ends before it
                                  begins */
};

/* In `status`: the request has no answer. */
#define VIOMMU_OBSERVED_SILENCE UINT32_MAX

/* One observation. Members are only ever added, at the end. Those that do not belong to its kind
   are 0. */
struct viommu_observation {
    enum viommu_observed kind;
    uint64_t index; /* 1 for the first that the watcher is told, then one more each time */
    uint64_t time;  /* nanoseconds of the instance's clock */
    uint64_t offset;
    uint64_t value;
    uint64_t low; /* a descriptor's halves */
    uint64_t high;
    uint64_t iova;
    uint64_t gpa;  /* what `iova` leads to */
    uint64_t mask; /* the page around it is mask + 1 bytes */
    uint32_t size; /* bytes */
    uint32_t slot;
    uint32_t reason; /* the architecture's number */
    uint32_t wanted; /* enum viommu_perm: what was asked for */
    uint32_t perm;   /* what is allowed */
    uint32_t type;   /* enum viommu_dma_type */
    uint16_t requester;
    int error; /* 0 or a negative errno */
    const struct viommu_event *event;
    uint64_t number;      /* of a request or restart; from 1, for all that were */
    const uint8_t *bytes; /* of a request; valid during the call */
    uint64_t room;        /* bytes for its answer */
    uint32_t status;      /* what it was answered: enum viommu_virtio_status_code */
};

/* Who watches. */
struct viommu_watcher {
    void (*observe)(void *opaque, const struct viommu_observation *observation);
    void *opaque;
};

/*
 * Sets who watches; NULL: nobody. At any time, also while devices and the guest are at work: the
 * one before is not called any more when this returns. Copied. Returns 0; -EINVAL for a watcher
 * without a function.
 */
int viommu_watch(struct viommu *iommu, const struct viommu_watcher *watcher);

#ifdef __cplusplus
}
#endif

#endif
