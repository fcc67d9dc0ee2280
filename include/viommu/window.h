/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pinned windows: pointers into guest memory that a device holds for longer than a section.
 *
 * A transfer that another thread, the kernel or another machine carries out (a read from a disk
 * into guest memory) cannot be enclosed in a section: it would hold the guest's invalidations back
 * without a word. Such a device pins what it needs, uses the pointers, and releases the window.
 *
 * Who waits. An invalidation that takes a translation away completes only when the windows that
 * were made by it are released; a batch that removes memory completes only when the windows into
 * that memory are. What was pinned later, by what the tables say then, holds back neither. Nothing
 * blocks meanwhile: registers read as ever, other entries of the queue go on.
 *
 * Guests drop more than they changed; Linux, lazy, drops whole domains. So before a window is asked
 * back it is looked at: where its pages lead where they led, by the tables as they are then, and
 * allow what it was pinned for, nobody waits for it. It counts as pinned anew.
 *
 * `revoke` is how a holder hears of it, once for a window: release soon. It is called from
 * viommu_process(). Who pins has to have that called, and for the removal of memory, too.
 *
 * Too late. A window that is not released within the acknowledgement time-out after `revoke`
 * (viommu_config.ack_timeout_ms) is *overdue*: its device is denied (its requests get -EPERM until
 * viommu_device_reset), `fence` is called, events say both, and the guest's invalidations do not
 * wait for this window any more.
 *
 * What that is worth. A pointer in somebody's hands cannot be taken back by this library. Only
 * `fence` can make it true that nothing of the guest's is touched after the invalidation completed:
 * when it returns 0 no access through the window is possible any more. Without it, or when it
 * fails, whoever still uses the pointers reads or overwrites memory that the guest may have given
 * to somebody else; the event says so. It harms that guest only: for the host, memory is never said
 * to be removed while a window into it is open, overdue or not.
 *
 * Resets (viommu_reset, viommu_device_reset) ask nobody for anything and wait for nothing. Whoever
 * resets a device releases its windows. One that stays open still holds back later invalidations
 * that concern it, and the removal of its memory; an overdue one stays overdue, and the device is
 * admitted all the same. The same goes for windows of a requester id that the device gave up.
 *
 * A device may be removed, and the instance destroyed, before its windows are released. They hold
 * back what concerns them as before, but after viommu_destroy nobody calls `revoke`; the memory of
 * the instance is given back with the last of them.
 *
 * Nothing of windows is saved: release them first.
 */
#ifndef VIOMMU_WINDOW_H
#define VIOMMU_WINDOW_H

#include <viommu/device.h>

#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

struct viommu_window;

/* What one window can have: ranges, and bytes in all of them. */
#define VIOMMU_WINDOW_RANGES_MAX 4096
#define VIOMMU_WINDOW_BYTES_MAX (16u << 20)
/* And what a device can have open at once: windows, and 4 KiB pages (or parts) in all of them. */
#define VIOMMU_WINDOWS_MAX 4096
#define VIOMMU_WINDOWS_PAGES_MAX (1u << 18)

/* What is to be pinned, and whom to ask for it back. */
struct viommu_window_request {
    const struct viommu_range *ranges; /* device addresses, in the order of the transfer */
    size_t count;
    uint32_t perm; /* enum viommu_perm: what the device will do there; not 0 */
    /*
     * It is wanted back. Needed. Without a lock held; every function may be called, except
     * viommu_process and viommu_destroy on the same instance. May release the window. Be quick:
     * others wait for their call.
     */
    void (*revoke)(void *opaque);
    /*
     * The window is overdue: stop every use of its pointers now. Called once, as `revoke` is.
     * Returns 0 when no access through them is possible any more, or a negative errno. NULL: no
     * such thing can be done. The window is still to be released.
     */
    int (*fence)(void *opaque);
    void *opaque;
};

/*
 * Translates all ranges, or none, and gives the addresses in this process: *iov_count is the room
 * in iov, then how many entries were filled. They follow the ranges in order; bytes that follow one
 * another in this process are one entry. Every 4 KiB page is translated by itself, as a request of
 * the device. attrs may name an alias.
 *
 * Returns 0; -ENOSPC when iov has too little room; -EFAULT when a page is refused (the fault is
 * recorded as the architecture says); -EPERM when the device is denied; -ENXIO where a translation
 * leads to no guest memory, or to the interrupt controller; -EROFS to write to ROM; -EBUSY when the
 * device has as many windows or pages open as it can; -EAGAIN before viommu_start; -EINVAL for no
 * range, one whose first is above its last, more of them or more bytes than a window can have, perm
 * that is 0 or unknown, no revoke, an alias that the device does not have, or requests that are not
 * untranslated: what a device-TLB holds cannot be pinned; -ENOMEM.
 *
 * Threads: any, any number at once. It takes a lock of the device for a moment.
 */
int viommu_device_pin(struct viommu_device *device, const struct viommu_dma_attrs *attrs,
                      const struct viommu_window_request *request, struct iovec *iov,
                      size_t *iov_count, struct viommu_window **out);

/*
 * Ends a window: no pointer that it gave is used any more, by anybody. NULL is accepted. When it
 * returns, neither `revoke` nor `fence` is running or will be called, unless it was called from
 * inside one of them: it blocks while another thread is in such a call of this window. So call it
 * with no lock held that those take.
 *
 * Threads: any, at any time, but not while the device is being removed; of an instance that was
 * destroyed, not from a listener of memory.
 */
void viommu_window_release(struct viommu_window *window);

#ifdef __cplusplus
}
#endif

#endif
