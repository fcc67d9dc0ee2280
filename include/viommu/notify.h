/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Subscribers: who is told when a device's translations change.
 *
 * A subscriber belongs to a device and names the kinds of changes that it wants. It is called from
 * viommu_process(), without a lock held. It may answer at once, or later by token; the guest's
 * invalidation completes only when every answer is there. A subscriber that fails, or does not answer
 * in time, is fenced (no longer called) and its device is denied: no stale translation can be used.
 */
#ifndef VIOMMU_NOTIFY_H
#define VIOMMU_NOTIFY_H

#include <viommu/device.h>

#ifdef __cplusplus
extern "C" {
#endif

struct viommu_subscriber;

enum viommu_change_kind {
    /* The guest told the device to drop [first, last] from its device-TLB. */
    VIOMMU_CHANGE_DEVICE_TLB = 4,
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
    /*
     * Returns 0: done; VIOMMU_PENDING: viommu_change_complete(token) follows, from any thread but not
     * from inside this call; a negative errno: it failed. Control calls on the same instance are
     * refused inside (-EDEADLK); translate, read and write are allowed.
     */
    int (*change)(void *opaque, const struct viommu_change *change);
    void *opaque;
};

/*
 * Subscribes to changes of a device's translations, from the next one on. Returns 0; -EINVAL without a
 * callback or with unknown kinds; -EDEADLK from a change callback; -ENOMEM.
 */
int viommu_device_subscribe(struct viommu_device *device, const struct viommu_subscription *what,
                            struct viommu_subscriber **out);

/*
 * Ends a subscription: when it returns the callback is not running and will not be called. What it had
 * not acknowledged counts as acknowledged. Blocks while another thread runs its callback. NULL is
 * accepted. Returns 0, or -EDEADLK from a change callback.
 */
int viommu_subscriber_destroy(struct viommu_subscriber *subscriber);

/*
 * Acknowledges a change that was PENDING: status 0, or a negative errno when it failed (the subscriber
 * is then fenced and its device denied). Any thread, but not inside a change callback (-EDEADLK).
 * Returns 0; -ENOENT for a token that nobody waits for: never given, already completed, or timed out.
 */
int viommu_change_complete(struct viommu *iommu, uint64_t token, int status);

#ifdef __cplusplus
}
#endif

#endif
