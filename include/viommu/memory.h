/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest physical memory: which guest addresses are RAM or ROM, and where they lie in this process.
 *
 * One memory object serves every IOMMU of a virtual machine. It is a set of slots that do not
 * overlap. Slots change in batches, while devices run: the next accesses see either all of a batch
 * or nothing of it. A batch that removes memory is complete only when no DMA can touch the removed
 * slots any more; until then their host memory must stay mapped.
 *
 * Threads: every function may be called from any thread unless its comment says otherwise.
 */
#ifndef VIOMMU_MEMORY_H
#define VIOMMU_MEMORY_H

#include <viommu/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct viommu_memory;
struct viommu_memory_batch;
struct viommu_memory_listener;

enum viommu_memory_flags {
    VIOMMU_MEMORY_READONLY = 1, /* ROM: devices may read it, their writes are refused */
};

/* One piece of guest memory. */
struct viommu_memory_slot {
    uint64_t first;     /* guest-physical address of its first byte, 4 KiB aligned */
    uint64_t last;      /* of its last byte; last + 1 is 4 KiB aligned */
    void *host;         /* where `first` lies in this process */
    int fd;             /* file behind it, or -1; for who maps by file, never closed here */
    uint64_t fd_offset; /* offset of `first` in that file */
    uint32_t flags;     /* enum viommu_memory_flags */
};

/*
 * Creates an empty memory. Returns 0, -ENOMEM, -EMFILE and -ENFILE (no file descriptor for
 * viommu_memory_event_fd), or -ENOSPC (more than 32,767 live memory objects in this
 * process, or no watch for its descriptor).
 */
int viommu_memory_create(struct viommu_memory **out);

/*
 * Gives the memory back; NULL is accepted. IOMMUs that use it, and IOVA spaces that follow it, keep
 * it alive until they are destroyed themselves. The caller's own DMA must have stopped, and its
 * batches must be ended; those that are still pending are dropped without a call of done, and
 * listeners go with the memory.
 */
void viommu_memory_destroy(struct viommu_memory *memory);

/* Opens a batch of changes. Any number may be open. Returns 0 or -ENOMEM. */
int viommu_memory_batch_begin(struct viommu_memory *memory, struct viommu_memory_batch **out);

/*
 * Adds a slot. Overlap with other slots is judged at commit. Returns 0; -EINVAL for a range that is
 * empty or unaligned, a host address that is missing, not 8-byte aligned, or whose range wraps, or
 * unknown flags; -ENOMEM.
 */
int viommu_memory_batch_add(struct viommu_memory_batch *batch,
                            const struct viommu_memory_slot *slot);

/*
 * Removes every slot inside [first, last]. Removals of a batch come before its additions, whatever
 * the order of the calls. Returns 0; -EINVAL when first > last; -ENOMEM. That a slot reaches out of
 * the range, or that there is none in it, is found at commit.
 */
int viommu_memory_batch_remove(struct viommu_memory_batch *batch, uint64_t first, uint64_t last);

/*
 * Called when a batch is complete. Runs in viommu_memory_process(), without any lock held, perhaps
 * on another thread before the commit itself has returned VIOMMU_PENDING. It may call everything
 * here.
 */
typedef void viommu_memory_done(void *opaque);

/*
 * Ends the batch, whatever is returned, and applies it. Batches apply in the order of their
 * commits.
 *
 * Returns 0 when it is complete (done is not called); VIOMMU_PENDING when DMA that may touch
 * removed memory is still under way, a window into it is open (viommu/window.h), or a listener has
 * not answered: done(opaque) follows from viommu_memory_process(), done may be NULL. With a
 * negative errno nothing changed: -EEXIST a slot overlaps another; -ENOENT nothing to remove in a
 * range; -EINVAL a slot is only partly inside a removed range; -EADDRNOTAVAIL an IOVA space that
 * follows the memory has addresses of an added slot for something else, or -ENOSPC no room for more
 * (viommu_iova_follow); -ENOMEM.
 *
 * Calls listeners. May not be called from a listener (-EDEADLK).
 */
int viommu_memory_batch_commit(struct viommu_memory_batch *batch, viommu_memory_done *done,
                               void *opaque);

/* Ends the batch without applying it; NULL is accepted. */
void viommu_memory_batch_abort(struct viommu_memory_batch *batch);

/*
 * Goes on with batches that are pending, and calls their done functions. Never blocks. Returns 0
 * when no batch is pending, VIOMMU_PENDING otherwise.
 */
int viommu_memory_process(struct viommu_memory *memory);

/* A descriptor that polls readable when viommu_memory_process() has work. Owned by the memory. */
int viommu_memory_event_fd(struct viommu_memory *memory);

/*
 * Copies len bytes at a guest-physical address out of, or into, guest memory. The access is checked
 * whole before the first byte moves. Returns 0; -ENXIO where some of it is not guest memory; -EROFS
 * for a write to a READONLY slot; -EINVAL when gpa + len passes the top of the address space;
 * -ENOMEM on a thread's first access (viommu_dma_begin tells why).
 */
int viommu_memory_read(struct viommu_memory *memory, uint64_t gpa, void *buf, size_t len);
int viommu_memory_write(struct viommu_memory *memory, uint64_t gpa, const void *buf, size_t len);

/*
 * One 16-bit word of guest memory, little endian, in one access: what a ring's index needs, which
 * the guest reads and writes meanwhile. A load is an acquire (what is read later is not older), a
 * store a release (what was written before is seen before). Returns 0; -EINVAL for an odd address;
 * -ENXIO, -EROFS and -ENOMEM as above.
 */
int viommu_memory_load16(struct viommu_memory *memory, uint64_t gpa, uint16_t *value);
int viommu_memory_store16(struct viommu_memory *memory, uint64_t gpa, uint16_t value);

/* A batch as listeners see it. */
struct viommu_memory_change {
    const struct viommu_memory_slot *removed;
    size_t removed_count;
    const struct viommu_memory_slot *added;
    size_t added_count;
    uint64_t token; /* for viommu_memory_listener_complete() */
};

/* What a listener does; any member may be NULL. `opaque` is the listener's own pointer. */
struct viommu_memory_listener_ops {
    /*
     * Before the change: let go of the slots that are to be removed. Returns 0, or VIOMMU_PENDING
     * and calls viommu_memory_listener_complete() later (never from inside this call).
     */
    int (*changing)(void *opaque, const struct viommu_memory_change *change);
    /* After the change is complete: removed slots cannot be reached, added ones can. */
    void (*changed)(void *opaque, const struct viommu_memory_change *change);
    /*
     * Between the two, where slots are removed: new accesses do not find them any more, and those
     * that were under way have ended. Whoever holds pointers into them lets go. Answers as
     * `changing` does.
     */
    int (*leaving)(void *opaque, const struct viommu_memory_change *change);
};

/*
 * Adds a listener. It hears of batches committed from then on. Returns 0, -ENOMEM, or -EDEADLK from
 * inside a listener.
 */
int viommu_memory_listener_add(struct viommu_memory *memory,
                               const struct viommu_memory_listener_ops *ops, void *opaque,
                               struct viommu_memory_listener **out);

/*
 * Removes a listener: when it returns no call of it is running or will be made, and a batch no
 * longer waits for it. Blocks while another thread runs one of its calls. Returns 0, or -EDEADLK
 * from inside a listener.
 */
int viommu_memory_listener_remove(struct viommu_memory_listener *listener);

/*
 * Ends a listener's pending answer. Returns 0, or -ENOENT for a token that nobody waits for (each
 * is good once).
 */
int viommu_memory_listener_complete(struct viommu_memory_listener *listener, uint64_t token);

#ifdef __cplusplus
}
#endif

#endif
