/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Subscribers: who is told when a device's translations change.
 *
 * A subscriber belongs to a device and names the kinds of changes, the range and the form that it
 * wants. There are two roles. A *cache* (a soft TLB, a vhost device, a device-TLB) is told what to
 * drop, whether or not it holds it. A *mirror* (VFIO, iommufd) keeps real mappings: it is told
 * exactly what differs between what it holds and what the device may reach now, and nothing else.
 *
 * Callbacks are made from viommu_process(), without a lock held. A subscriber may answer at once,
 * or later by token; the guest's invalidation completes only when every answer is there. One that
 * fails, or does not answer in time, is fenced (told no more; a mirror drops all it holds) and its
 * device is denied: no stale translation can be used. A mapping that a mirror could not make is no
 * such failure: it is remembered and tried again; or, where the guest asked for it by a request
 * that can be refused (viommu/virtio.h), undone everywhere, and the request is.
 *
 * What a mirror holds. With translation off, or for a device in pass-through, guest memory mapped
 * one to one, a mapping a slot of memory; with tables, what the tables say: a page of any size is
 * one mapping, and 4 KiB pages that came together and are contiguous are one, up to 2 MiB. A
 * mapping is only ever taken away whole: when a part of it changes the rest is mapped again at
 * once. Of a virtio-iommu, each mapping that the guest made is one, whatever its size. Never sent
 * to a mirror: the interrupt range (FEE00000-FEEFFFFF), guest addresses without memory (mapped when
 * memory comes), addresses outside `allowed` or closed by the device's IOVA space (mapped when that
 * opens them); ROM loses its write permission.
 */
#ifndef VIOMMU_NOTIFY_H
#define VIOMMU_NOTIFY_H

#include <viommu/device.h>

#ifdef __cplusplus
extern "C" {
#endif

struct viommu_subscriber;

enum viommu_change_kind {
    /* Mirrors: make this mapping; nothing is mapped in [first, last]. */
    VIOMMU_CHANGE_MAP = 1,
    /*
     * Caches: translations of [first, last] may have changed: drop what you have cached for any
     * page that meets it, larger pages whole. Sent for the guest's invalidations of what is cached
     * in the IOMMU, whether or not the subscriber holds anything there, and for the whole space
     * when the device's tables change.
     *
     * Mirrors: take this mapping away; it is one that MAP made, or several that follow one another
     * where `unmap_spans` allows that.
     */
    VIOMMU_CHANGE_UNMAP = 2,
    /* The guest told the device to drop [first, last] from its device-TLB. */
    VIOMMU_CHANGE_DEVICE_TLB = 4,
    /*
     * Mirrors that ask for it: the mapping of exactly [first, last] gets another target or other
     * permissions. Ask only where that is done without a moment in which neither is there. Not
     * sent to those that take blocks: the blocks of another target are others.
     */
    VIOMMU_CHANGE_REPLACE = 8,
    /*
     * Mirrors that ask for it, to trace: [first, last] was compared and is as it was, mapped (perm
     * is not 0) or not. Nothing is to be done.
     */
    VIOMMU_CHANGE_SKIPPED = 16,
};

/* What a subscriber is. */
enum viommu_role {
    VIOMMU_ROLE_CACHE = 0, /* told what to drop: UNMAP, DEVICE_TLB */
    VIOMMU_ROLE_MIRROR,    /* told what to map and unmap; may want DEVICE_TLB besides */
};

/* What ranges a subscriber can take. */
enum viommu_form {
    VIOMMU_FORM_POW2 = 0, /* only naturally aligned blocks of a power of two: the fewest that fit;
                             those of a mapping are aligned in their target, too */
    VIOMMU_FORM_RANGE,    /* any range, in one call */
};

/* One change. */
struct viommu_change {
    enum viommu_change_kind kind;
    uint16_t requester; /* the id the guest named; a mirror's: the device's own id */
    uint64_t first;     /* device addresses */
    uint64_t last;
    uint64_t token; /* for viommu_change_complete() */

    /* For mirrors. */
    enum viommu_cause cause;
    uint32_t perm; /* enum viommu_perm: of MAP, REPLACE and SKIPPED; otherwise 0 */
    uint64_t gpa;  /* where `first` leads: of MAP, REPLACE, SKIPPED, and UNMAP of one mapping */
    void *host;    /* of MAP and REPLACE: where that lies in this process, contiguous */
    int fd;        /* and the file behind it, or -1 */
    uint64_t fd_offset;
};

struct viommu_subscription {
    /* enum viommu_change_kind, or'ed. A mirror wants MAP and UNMAP at least, a cache neither MAP,
       REPLACE nor SKIPPED. */
    uint32_t kinds;
    enum viommu_form form;
    enum viommu_role role;
    /* Which of the device's translations, where its model has several; VT-d has 0 only. */
    uint32_t index;
    /* Only what lies in here, changes are cut to it; all zero stands for the whole space. */
    struct viommu_range range;
    /*
     * Returns 0: done; VIOMMU_PENDING: viommu_change_complete(token) follows, from any thread but
     * not from inside this call; a negative errno: it failed. Control calls on the same instance
     * are refused inside (-EDEADLK); translate, read and write are allowed. Of its mappings a
     * mirror has one call outstanding at a time; a DEVICE_TLB may come beside it. A MAP that fails
     * is tried again later; the failure of anything else fences the subscriber.
     */
    int (*change)(void *opaque, const struct viommu_change *change);
    void *opaque;

    /* For mirrors; the rest of this structure is zero for caches. */

    /*
     * Needed. The subscriber is fenced: drop every mapping; where that fails, cut the device off.
     * Called as `change` is. Returns 0, or a negative errno when the device may still reach what it
     * should not: an event says so, and nothing more can be done here.
     */
    int (*fence)(void *opaque);
    /*
     * What may be mapped: the host's aperture without its reservations, sorted, none touching
     * another; NULL: everything. Copied. Its end limits the address width of the model. Where the
     * device is in an IOVA space it becomes limits there (viommu_iova_limit), of an owner of its
     * own, for as long as the subscription lasts: it holds for all devices in the space.
     */
    const struct viommu_range *allowed;
    size_t allowed_count;
    /*
     * Bit n: pages of 2^n bytes can be mapped, by itself or in pieces; 0: any. 4 KiB must be there;
     * the model's guests are not offered pages of other sizes than these.
     */
    uint64_t page_sizes;
    bool unmap_spans;    /* one UNMAP may take several mappings that follow one another (RANGE) */
    /*
     * So many mappings can exist; 0: any number. Past it a MAP counts as failed without a call.
     * Above three quarters of it, mappings of 4 KiB pages grow together.
     */
    uint64_t mappings_max;
    /* So many failed mappings are remembered and tried again; past it the subscriber is fenced and
       its device denied. 0 is 65,536. */
    uint32_t differences_max;
    /*
     * It has mappings already, those that another instance gave it: they are the ones that a saved
     * state (viommu/save.h) tells of. It is told nothing before that is loaded, and then only what
     * differs by now. `mappings_max` counts what can exist besides them. Not once the instance is
     * started.
     */
    bool adopt;
    /* What it is called in a saved state, if its device has several mirrors. */
    uint32_t key;
};

/*
 * Subscribes to changes of a device's translations, from the next one on. A subscriber that caches
 * translations encloses asking for one and caching it in one section (viommu_dma_begin), and each
 * use of what it cached: it is told only when such sections have ended, and the guest's
 * invalidation completes only when those have that used what it had cached.
 *
 * A mirror is first told, alone and by viommu_process(), of all that is mapped now (nothing before
 * viommu_start); viommu_subscriber_status tells when that is over. It follows the device's own
 * requester id, not its aliases. A new id (viommu_device_set_requester) is followed by itself.
 *
 * Returns 0; -EINVAL without a callback it needs, with unknown kinds, role, form or index, a range
 * whose first is above its last, or `allowed` out of order; -EEXIST, -EADDRINUSE, -EADDRNOTAVAIL
 * or -ENOSPC when `allowed` cannot be limits of the device's space (viommu/iova.h); -ENOTSUP
 * for a mirror of a model that cannot be mirrored (VT-d without caching mode), or without 4 KiB
 * pages; -ERANGE for a mirror whose `allowed` ends below what the model's address width can be
 * (VT-d: 39 bits; virtio: the first granule of its input range) or, once the instance is started,
 * is, and then for one without page sizes that the guest may use, or ever without a virtio-iommu's
 * granule; -EALREADY for one to
 * be adopted when the instance is started; -EDEADLK from a change callback; -ENOMEM.
 */
int viommu_device_subscribe(struct viommu_device *device, const struct viommu_subscription *what,
                            struct viommu_subscriber **out);

/*
 * Ends a subscription: when it returns the callback is not running and will not be called. What it
 * had not acknowledged counts as acknowledged. What a mirror has mapped stays mapped: whoever owns
 * the mappings drops them. Blocks while another thread runs its callback. NULL is accepted. Returns
 * 0, or -EDEADLK from a change callback.
 */
int viommu_subscriber_destroy(struct viommu_subscriber *subscriber);

/*
 * Acknowledges a change that was PENDING: status 0, or a negative errno when it failed. Any thread,
 * but not inside a change callback (-EDEADLK). Returns 0; -ENOENT for a token that nobody waits
 * for: never given, already completed, or timed out.
 */
int viommu_change_complete(struct viommu *iommu, uint64_t token, int status);

/* How a subscriber stands. Members are only ever added, at the end. */
struct viommu_subscriber_status {
    bool fenced;
    bool behind;          /* a mirror: something it is to be told of is not finished */
    uint64_t mappings;    /* a mirror: mappings (or blocks of them) that it holds */
    uint64_t differences; /* a mirror: mappings that failed and are tried again */
};

/*
 * Tells how a subscriber stands, `size` bytes at most (a program built against another release
 * passes its own sizeof). Any thread. Returns 0.
 */
int viommu_subscriber_status(struct viommu_subscriber *subscriber,
                             struct viommu_subscriber_status *status, size_t size);

#ifdef __cplusplus
}
#endif

#endif
