/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Subscribers: who is told when a device's translations change.
 *
 * A subscriber belongs to a device and names the kinds of changes, the range and the form that it
 * wants: a cache of translations (a soft TLB, a vhost device), or a device-TLB. It is called from
 * viommu_process(), without a lock held. It may answer at once, or later by token; the guest's
 * invalidation completes only when every answer is there. A subscriber that fails, or does not
 * answer in time, is fenced (no longer called) and its device is denied: no stale translation can
 * be used.
 */
#ifndef VIOMMU_NOTIFY_H
#define VIOMMU_NOTIFY_H

#include <viommu/device.h>

#ifdef __cplusplus
extern "C" {
#endif

struct viommu_subscriber;

enum viommu_change_kind {
    /*
     * Translations of [first, last] may have changed: drop what you have cached for any page that
     * meets it, larger pages whole. Sent for the guest's invalidations of what is cached in the
     * IOMMU, whether or not the subscriber holds anything there, and for the whole space when the
     * device's tables change.
     */
    VIOMMU_CHANGE_UNMAP = 2,
    /* The guest told the device to drop [first, last] from its device-TLB. */
    VIOMMU_CHANGE_DEVICE_TLB = 4,
};

/* What ranges a subscriber can take. */
enum viommu_form {
    VIOMMU_FORM_POW2 = 0, /* only naturally aligned blocks of a power of two: the fewest that fit */
    VIOMMU_FORM_RANGE,    /* any range, in one call */
};

/* One change. */
struct viommu_change {
    enum viommu_change_kind kind;
    uint16_t requester; /* the id the guest named */
    uint64_t first;     /* device addresses */
    uint64_t last;
    uint64_t token; /* for viommu_change_complete() */
};

struct viommu_subscription {
    uint32_t kinds; /* enum viommu_change_kind, or'ed */
    enum viommu_form form;
    /* Only what lies in here, changes are cut to it; all zero stands for the whole space. */
    struct viommu_range range;
    /*
     * Returns 0: done; VIOMMU_PENDING: viommu_change_complete(token) follows, from any thread but
     * not from inside this call; a negative errno: it failed. Control calls on the same instance
     * are refused inside (-EDEADLK); translate, read and write are allowed.
     */
    int (*change)(void *opaque, const struct viommu_change *change);
    void *opaque;
};

/*
 * Subscribes to changes of a device's translations, from the next one on. A subscriber that caches
 * translations encloses asking for one and caching it in one section (viommu_dma_begin), and each
 * use of what it cached: it is told only when such sections have ended, and the guest's
 * invalidation completes only when those have that used what it had cached.
 *
 * Returns 0; -EINVAL without a callback, with unknown kinds or form, or a range whose first is
 * above its last; -EDEADLK from a change callback; -ENOMEM.
 */
int viommu_device_subscribe(struct viommu_device *device, const struct viommu_subscription *what,
                            struct viommu_subscriber **out);

/*
 * Ends a subscription: when it returns the callback is not running and will not be called. What it
 * had not acknowledged counts as acknowledged. Blocks while another thread runs its callback. NULL
 * is accepted. Returns 0, or -EDEADLK from a change callback.
 */
int viommu_subscriber_destroy(struct viommu_subscriber *subscriber);

/*
 * Acknowledges a change that was PENDING: status 0, or a negative errno when it failed (the
 * subscriber is then fenced and its device denied). Any thread, but not inside a change callback
 * (-EDEADLK). Returns 0; -ENOENT for a token that nobody waits for: never given, already completed,
 * or timed out.
 */
int viommu_change_complete(struct viommu *iommu, uint64_t token, int status);

#ifdef __cplusplus
}
#endif

#endif
