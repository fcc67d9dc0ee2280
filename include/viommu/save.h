/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Saving an instance and restoring it: for a snapshot, a migration, or another process that takes
 * over while the guest runs.
 *
 *     old:  viommu_save(iommu, &data, &size);     ... and the old one is processed no more
 *     new:  viommu_vtd_create(...); viommu_device_add(...); viommu_device_subscribe(...);
 *           viommu_load(iommu, data, size);       ... in place of viommu_start
 *
 * Saved is what a guest can see or has begun: registers, faults, messages that were not handed on,
 * commands and invalidations under way; which devices there are and which of them are denied; and
 * what each mirror holds. Not saved: guest memory, configurations, caches and those who keep them,
 * statistics, events that were not told, pinned windows. The embedder brings the first two, the
 * rest begins anew. Release windows before: an invalidation that waits for one in the old instance
 * does not in the new one.
 *
 * Invalidations that were not complete are carried out again, from the first of them. So a wait
 * descriptor completes once: by the old instance before the save, or by the new one. Both would
 * complete those that are under way: of the two only one may be processed after the save. When a
 * takeover fails, that is the old one: saving changes nothing in it.
 *
 * Mirrors. The mappings of a VFIO container or an iommufd belong to its file, which may go to
 * another process. A mirror that is subscribed there with `adopt` (viommu/notify.h) takes over the
 * record of what the old one held, and is told only what differs: first of all what has changed by
 * then in the guest's tables, or in its memory. What is unchanged is not unmapped, nor mapped
 * again, whatever its borders are. It is then told of changes as ever. A mirror without `adopt` is
 * new: it is told of all that is mapped. A rewritten live entry is not noticed as such when it was
 * rewritten between the save and the first viommu_process().
 */
#ifndef VIOMMU_SAVE_H
#define VIOMMU_SAVE_H

#include <viommu/iommu.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Saves the instance's state: *size bytes at *data, to be given back by viommu_save_free. The
 * format has a version, and tells when it was cut short or changed; it does not depend on the
 * machine. Any thread; the instance's lock is held for as long as it takes to write down what
 * mirrors hold, nanoseconds for each mapping. Stop the devices and the guest before: what they do
 * after it is not in it.
 *
 * Returns 0; -EAGAIN before viommu_start; -EBUSY while a mirror is being told of something (what it
 * holds is known only when it has answered, and its invalidation is over): call viommu_process()
 * until it has no more to do, when viommu_event_fd() says so, and try again; a mirror takes no
 * longer than the time-out of acknowledgements for each answer; so too while requests to a
 * virtio-iommu with a hostile cache are late, and while its `completed` is being called, by
 * whatever thread: what that tells of would not be in the state; -EDEADLK from a change callback;
 * -ENOMEM.
 */
int viommu_save(struct viommu *iommu, void **data, size_t *size);

/* Gives saved state back; NULL is accepted. */
void viommu_save_free(void *data);

/*
 * Brings an instance that was not started to a saved state, and starts it. It is of the same model
 * and configuration as the one that was saved, and has the same devices: the same ids, aliases in
 * the same order, and flags. (Of several devices that share an id, or mirrors of a device with the
 * same key, the order in which they were added counts.) Each mirror with `adopt` was saved; those
 * that were saved and are not there are left out. Denied devices are denied; their caches, and
 * mirrors that were fenced, hear nothing until the device is reset. `data` need not be trusted, but
 * nobody changes it meanwhile.
 *
 * No other thread is in a call on the instance or changes its memory meanwhile. Takes as long as it
 * takes to read what mirrors hold.
 *
 * Where it fails nothing has changed: the instance may be loaded again, or started. Returns 0;
 * -EALREADY when it is started; -EBADMSG when this is no saved state, was cut short or changed, or
 * makes no sense; -ENOTSUP when it is newer than this library; -EINVAL when it is of another model,
 * or another configuration of the instance or of a mirror, or the guest of a virtio-iommu has
 * mapped what the IOVA space of a device keeps for something else here; -ENODEV when the devices
 * are others, or a mirror with `adopt` is not in it; -EBUSY while guest memory is being removed,
 * where a mirror of this instance has heard of that; -EDEADLK from a change callback; -ENOMEM.
 */
int viommu_load(struct viommu *iommu, const void *data, size_t size);

#ifdef __cplusplus
}
#endif

#endif
