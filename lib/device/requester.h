/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Requesters and devices.
 *
 * A *requester* is an id that DMA carries, with what the model found out about it (its *context*:
 * translation type, table root). A *device* uses one requester of its own and some aliases; devices
 * behind a bridge share one requester.
 *
 * Locking: lists and fields change under the IOMMU's lock. A device's requester pointers and a
 * requester's context are read by DMA inside a section: they are published atomically and what they
 * pointed to is freed by epoch_defer.
 */
#ifndef VIOMMU_DEVICE_REQUESTER_H
#define VIOMMU_DEVICE_REQUESTER_H

#include "device/reserved.h"
#include "device/window.h"
#include "iotlb/iotlb.h"

#include <viommu/device.h>

/*
 * What a model knows of a requester, as of one moment; immutable. Models put it first in a
 * structure of their own.
 */
struct context {
    struct epoch_deferred deferred;
    struct iotlb_tag *tag; /* where its untranslated requests are cached, or NULL: not at all */
};

struct requester {
    struct epoch_deferred deferred;
    struct requester *next; /* in the IOMMU's bucket */
    uint16_t id;
    bool shared;
    bool forgotten;                     /* just now: those who cache for it are about to be told */
    unsigned users;                     /* devices that use it */
    _Atomic(struct closed *) closed;    /* to it; NULL: nothing is */
    struct closed *closed_next;         /* while the lists of a space change */
    _Atomic(struct context *) context; /* NULL: to be fetched */
};

/* Written by the thread that issues the device's DMA; read by anyone. */
struct device_stats {
    _Atomic uint64_t iotlb_hits;
    _Atomic uint64_t iotlb_misses; /* every other request to translate */
    _Atomic uint64_t walks;
    _Atomic uint64_t refused;
    _Atomic uint64_t interrupts_requested;
    _Atomic uint64_t bytes_read;
    _Atomic uint64_t bytes_written;
};

struct viommu_device {
    struct viommu *iommu;
    _Atomic(struct requester *) requesters[1 + VIOMMU_ALIASES_MAX]; /* its own, then aliases */
    _Atomic uint32_t requester_count;
    _Atomic bool denied;
    bool ats;
    struct viommu_device *next; /* in the IOMMU's list */
    struct viommu_device **link; /* what points to this one there */
    struct viommu_device *next_followed; /* among those with subscribers */
    struct viommu_device **followed_link;
    struct viommu_subscriber *subscribers;
    struct iova_tenant tenant;       /* of its space */
    bool own_space;                  /* nobody else is in that */
    struct iova_usable *usable;      /* what it may use; NULL: everything */
    struct iova_usable *usable_next; /* while the lists of its space change */
    struct viommu_device *next_pinned; /* among those that have pinned windows */
    _Atomic bool pins;                 /* it is there */
    _Alignas(64) struct device_stats stats;
    _Alignas(64) struct window_list windows;
};

/* Adds to a counter that one thread at a time writes. */
static inline void counter_add(_Atomic uint64_t *counter, uint64_t n)
{
    uint64_t value = atomic_load_explicit(counter, memory_order_relaxed);

    atomic_store_explicit(counter, value + n, memory_order_relaxed);
}

/*
 * The requester of an id for one more device, made if there is none. Returns 0, -EEXIST when it is
 * taken and not shared, or -ENOMEM. Under the lock.
 */
int requester_take(struct viommu *iommu, uint16_t id, bool shared, struct requester **out);
void requester_release(struct viommu *iommu, struct requester *requester);

/* The requester of an id, or NULL. Under the lock. */
struct requester *requester_find(struct viommu *iommu, uint16_t id);

/* Forgets what is known of a requester: its next request fetches it anew. Under the lock. */
void requester_forget(struct viommu *iommu, struct requester *requester);

/*
 * Forgets every requester whose id equals `id` in the bits of `mask` (0: all of them). Under the
 * lock.
 */
void requesters_forget(struct viommu *iommu, uint16_t id, uint16_t mask);

/* Takes a device out of its instance and frees it. Under no lock; nobody uses it any more. */
void device_free(struct viommu_device *device);

/* Those who cache for requesters that were forgotten have been told. Under the lock. */
void requesters_told(struct viommu *iommu);

/* Tells whoever watches of those that are there, if the model wants to know of them. Under the
   lock. */
void requesters_watch(struct viommu *iommu);

/* Refuses the device's DMA from now on; says so in an event. Under the lock. */
void device_deny(struct viommu_device *device, int error, const char *text);

/* Admits it again, and tells its subscribers of changes again. Under the lock. */
void device_admit(struct viommu_device *device);

#endif
