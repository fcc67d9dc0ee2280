/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Paravirtual IOMMU operations: the engine behind them, for a hypervisor.
 *
 * The engine is given the bytes of a call (viommu/pv_abi.h) and says what to answer. It keeps who
 * mapped what, counts references, and drops them only when a flush that began after the unmapping
 * has succeeded. Frames, references, privileges and the real IOMMU are the hypervisor's: it brings
 * a table of operations, all of which are needed.
 *
 * Threads: all functions may be called from any thread. No lock is held while an operation of the
 * table runs, and it may call back: a VM may begin to die at any moment, inside any operation.
 * Nothing is ever waited for: what cannot end yet returns VIOMMU_PENDING, and is called again.
 */
#ifndef VIOMMU_PV_H
#define VIOMMU_PV_H

#include <viommu/notify.h>
#include <viommu/pv_abi.h>

#ifdef __cplusplus
extern "C" {
#endif

struct viommu_pv;
struct viommu_pv_call;

enum viommu_pv_page_state {
    VIOMMU_PV_PAGE_RAM = 0,
    VIOMMU_PV_PAGE_READ_ONLY,    /* RAM that the VM may not write: writable is EACCES */
    VIOMMU_PV_PAGE_DIRTY_LOGGED, /* RAM whose writes are logged: `mark_dirty` when writable */
    VIOMMU_PV_PAGE_PAGED_OUT,    /* `prepare` starts to bring it in, and the call is EAGAIN */
    VIOMMU_PV_PAGE_SHARED,       /* with other VMs: `prepare` unshares it before it is writable */
    VIOMMU_PV_PAGE_ON_DEMAND,    /* there is none yet: `prepare` populates it */
    VIOMMU_PV_PAGE_MMIO,         /* not RAM: never referenced, mapped only when flagged */
};

/* What a look-up finds. */
struct viommu_pv_page {
    uint64_t handle; /* the hypervisor's name for it: a machine frame, say. Of PAGED_OUT and
                        ON_DEMAND none is needed */
    uint32_t owner;  /* the VM that the page belongs to, which may be another than was named */
    enum viommu_pv_page_state state;
};

/* A range of device frames that a device needs mapped one to one. */
struct viommu_pv_range {
    uint64_t first;
    uint64_t last;
};

/*
 * What the hypervisor does. `opaque` is that of the configuration, `space` what `context_create`
 * gave. None is called under a lock, any from any thread that calls the engine, several at a time.
 * "May fail" is said where one may; an error other than those named is taken for the first one.
 */
struct viommu_pv_ops {
    /*
     * The page of `order` at a frame of a VM; a larger one than order 0 is contiguous, has one
     * state and one owner. No side effects, as the privilege to the owner's page is judged by the
     * answer. May fail: -ENOENT.
     */
    int (*lookup)(void *opaque, uint32_t vm, uint64_t frame, unsigned order,
                  struct viommu_pv_page *page);
    /*
     * With side effects: populates, pages in, or (`write`) unshares what `lookup` found. 0: it is
     * done, and looked up again; -EAGAIN: it was started or cannot be done now; -ENOENT; -ENOMEM.
     */
    int (*prepare)(void *opaque, uint32_t vm, uint64_t frame, unsigned order, bool write);
    /*
     * A reference to the page, if it still is at that frame: what was looked up may have changed.
     * Never of MMIO. May fail: -ENOENT. It is dropped once, by `put_page`, which cannot fail.
     */
    int (*get_page)(void *opaque, uint32_t vm, uint64_t frame, unsigned order, uint64_t handle);
    void (*put_page)(void *opaque, unsigned order, uint64_t handle);
    /* One as a writable page, while the page is not in use as another type. May fail: -EBUSY. */
    int (*get_type)(void *opaque, unsigned order, uint64_t handle);
    void (*put_type)(void *opaque, unsigned order, uint64_t handle);
    /*
     * A page that is dirty-logged may be written from now on; or could until now. Both times it has
     * to be in the log: what is read from the log in between does not end the device's writing.
     */
    void (*mark_dirty)(void *opaque, unsigned order, uint64_t handle);
    /* Whether a VM may make a call of that kind at all (enum viommu_pv_operation). */
    bool (*may_call)(void *opaque, uint32_t vm, unsigned operation);
    /* Whether a VM may map pages of another one; never asked for its own. Also whether it may know,
       of a page that it does not map, that it is about to be removed (with each of READ and WRITE).
     */
    bool (*may_use)(void *opaque, uint32_t vm, uint32_t other, uint32_t perm);
    /*
     * The ranges that a device needs one to one, and those where nothing can be mapped for it
     * (viommu_pv_backend_holes); in both no mapping of the VM's is made. At most `room` are
     * written, *count is how many there are. Asked when the device is added; not again while it is
     * there. May fail: -ENODEV.
     */
    int (*reserved)(void *opaque, uint32_t vm, uint32_t device, struct viommu_pv_range *ranges,
                    size_t room, size_t *count);
    /* A context comes to be, with nothing mapped, or (id 0) as the VM began; *space becomes its
       name, not NULL. May fail: -ENOMEM. */
    int (*context_create)(void *opaque, uint32_t vm, uint32_t context, void **space);
    /* It ends: nothing is mapped in it and no device is attached. */
    void (*context_destroy)(void *opaque, void *space);
    /*
     * Takes a device, or one function of a device that was added with several, from one space to
     * another (NULL: to none, where it reaches nothing). What the engine was not told of, phantom
     * functions say, goes with it. May fail: -ENODEV, -ENOMEM; then it is where it was. To NULL it
     * does not fail.
     */
    int (*attach)(void *opaque, uint32_t device, void *from, void *to);
    /* A reserved range is mapped one to one, or no more; where nothing can be mapped there is
       nothing to do. Mapping may fail: -ENOMEM. */
    int (*identity)(void *opaque, void *space, uint64_t first, uint64_t last, bool mapped);
    /*
     * Maps a page whole, in the real IOMMU; nothing is mapped there. May fail: -ENOMEM, or
     * -EADDRNOTAVAIL for a place where it cannot map (better told by `reserved`), and has done
     * nothing then; -EIO: it may be mapped, or come to be. That counts as a flush that failed: it
     * is unmapped and flushed, and its references are held until that is done.
     */
    int (*map)(void *opaque, void *space, uint64_t device_frame, unsigned order, uint64_t handle,
               uint32_t perm);
    /*
     * Clears what `map` made, so that a flush which begins later leaves nothing of it anywhere. A
     * failure counts as that of a flush.
     */
    int (*unmap)(void *opaque, void *space, uint64_t device_frame, unsigned order);
    /*
     * When it returns 0 no device reaches what was cleared in [first, last] before. A failure
     * isolates the context: no reference is dropped.
     */
    int (*flush)(void *opaque, void *space, uint64_t first, uint64_t last);
    /* Cuts the devices of a space off, for a flush failed. They stay so until they are attached
     * anew. */
    void (*isolate)(void *opaque, void *space);
    /*
     * Takes away a part of what a VM that was not started empty has mapped from the beginning in
     * context 0, reserved ranges excepted. *cursor is 0 at first, and then what the last call left.
     * 0: all of it is gone but for the flush; VIOMMU_PENDING: more is to be done. May fail: -EIO.
     */
    int (*drop_default)(void *opaque, uint32_t vm, void *space, uint64_t *cursor);
    /* Whether a long operation should yield now. Asked between two items. */
    bool (*yield)(void *opaque);
    /*
     * A VM is asked to give back a page that is about to be removed: one call for each mapping of
     * it. It unmaps, flushes and acknowledges (ACKNOWLEDGE).
     */
    void (*give_back)(void *opaque, uint32_t mapper, uint32_t context, uint64_t device_frame,
                      uint32_t vm, uint64_t frame);
    /* It says that it has; so many mappings of the page it still has, those not flushed included.
     */
    void (*acknowledged)(void *opaque, uint32_t mapper, uint32_t vm, uint64_t frame,
                         uint64_t remaining);
};

/* Fields left zero take the value in parentheses. */
struct viommu_pv_config {
    const struct viommu_pv_ops *ops; /* needed, and each operation in it; used until the end */
    void *opaque;
    uint64_t frame_max;        /* largest frame, up to 2^52 - 1 (2^36 - 1) */
    uint64_t device_frame_max; /* up to 2^45 - 1 (2^36 - 1) */
    uint64_t orders;           /* bits 0 (needed), 9 and 18: orders of pages (all three) */
    uint64_t count_max;        /* items of a call (1,048,576) */
    uint64_t mappings_max;     /* of a VM (1,048,576) */
    uint64_t tables_max;       /* of a VM; about 36 KiB each at most (16,384) */
    uint32_t contexts_max;     /* of a VM (16) */
    uint32_t items_max;        /* of map_foreign, up to 65,536 (512) */
    uint32_t deferred_max; /* frames of a context that may await a flush, up to 65,536 (1,024) */
};

/*
 * Creates an engine. Returns 0; -EINVAL for a table that lacks an operation, or a value out of
 * range; -ENOMEM.
 */
int viommu_pv_create(const struct viommu_pv_config *config, struct viommu_pv **out);

/* Destroys it. NULL is accepted. Returns 0, or -EBUSY while it has VMs. */
int viommu_pv_destroy(struct viommu_pv *pv);

/*
 * A VM comes to be, with context 0. `empty`: nothing is mapped in that, so there is nothing to take
 * away when the VM enables the interface. Returns 0; -EEXIST; -EINVAL for VIOMMU_PV_SELF; -ENOMEM,
 * or the failure of `context_create`.
 */
int viommu_pv_vm_add(struct viommu_pv *pv, uint32_t vm, bool empty);

/*
 * A VM dies, as a mapper and as an owner: from the first call on, calls of it and mappings of its
 * pages are refused. All its mappings are taken away, those that others have of its pages are
 * revoked, and all references dropped. Time is in proportion to those mappings.
 *
 * Returns 0 when it is gone; VIOMMU_PENDING when it should yield, or when another thread (or a
 * caller further up) is in the middle of something with the VM: call again. -ENOENT without such a
 * VM. -EIO: a flush failed, and what a device may still reach keeps its references; call again.
 */
int viommu_pv_vm_destroy(struct viommu_pv *pv, uint32_t vm);

/*
 * A device is a VM's from now on, attached to context 0; its reserved ranges are mapped there.
 * Returns 0; -ENOENT without such a VM; -ESHUTDOWN for one that is dying; -EEXIST; -EIO while
 * context 0 is isolated, as a flush failed; -EADDRNOTAVAIL when something is mapped where the
 * device has reserved ranges; -EINVAL for ranges that are no ranges; -EBUSY in the middle of
 * another device of the VM; -ENODEV, -ENOMEM.
 */
int viommu_pv_device_add(struct viommu_pv *pv, uint32_t vm, uint32_t device);

/* Functions that a device may have. */
#define VIOMMU_PV_FUNCTIONS_MAX 256

/*
 * The same for a device of several functions, phantom functions among them, that must never be in
 * different contexts: as they share a requester id, say. Whichever of them a call names, all are
 * moved, or none: where one cannot be, those before it are taken back; and should that fail all of
 * them are taken to no space, where the device reaches nothing until it is attached anew. Their
 * reserved ranges are those of all. `functions` is copied.
 *
 * Returns as viommu_pv_device_add; -EEXIST when any is there; -EINVAL for none, more than
 * VIOMMU_PV_FUNCTIONS_MAX, one that is named twice, or ranges that meet without being the same.
 */
int viommu_pv_device_add_functions(struct viommu_pv *pv, uint32_t vm, const uint32_t *functions,
                                   size_t count);

/* It is no more, with all its functions, whichever is named. Returns 0, -ENOENT, -ENODEV; -EBUSY in
   the middle of another device of the VM. */
int viommu_pv_device_remove(struct viommu_pv *pv, uint32_t vm, uint32_t device);

/*
 * A call of a VM. `in` is what the guest wrote and `out` where the answer goes; both may be guest
 * memory that changes meanwhile. *written becomes the size of the answer.
 *
 * Returns 0 when the call is answered. VIOMMU_PENDING: it yielded, and *rest is what is left of it;
 * with `rest` NULL it never yields. -ENOENT without such a VM; -EINVAL when `out` has no place for
 * the answer, or `in` for the head of a call: nothing was done.
 */
int viommu_pv_call(struct viommu_pv *pv, uint32_t vm, const void *in, size_t in_size, void *out,
                   size_t out_size, size_t *written, struct viommu_pv_call **rest);

/*
 * Goes on with a call that yielded; `out_size` is what it was. Returns 0 when it is answered, and
 * `rest` is no more; VIOMMU_PENDING. -EINVAL: `out` is too small now.
 */
int viommu_pv_resume(struct viommu_pv *pv, struct viommu_pv_call *rest, void *out, size_t out_size,
                     size_t *written);

/* Forgets a call that yielded; what was done stays. NULL is accepted. */
void viommu_pv_cancel(struct viommu_pv *pv, struct viommu_pv_call *rest);

/*
 * A page is to be removed from a VM: from now on it is not mapped any more (ENOENT), and everyone
 * who has it mapped is asked to give it back, once a mapping. Returns 0 when no mapping is left;
 * VIOMMU_PENDING, and may be called again to see. -ENOENT without such a VM; -ENOMEM.
 */
int viommu_pv_page_remove(struct viommu_pv *pv, uint32_t vm, uint64_t frame);

/*
 * Takes a page that is to be removed away from those who have it mapped: a page of any order that
 * it is part of is unmapped, flushed, and its references dropped; the slots say so until they are
 * unmapped. Returns 0 when no mapping is left; VIOMMU_PENDING, as viommu_pv_vm_destroy; -EIO: a
 * flush failed, the page is not free; -ENOENT without such a VM; -EINVAL for a page that is not to
 * be removed.
 */
int viommu_pv_page_revoke(struct viommu_pv *pv, uint32_t vm, uint64_t frame);

/* The page has been removed, or stays after all: what is at that frame now may be mapped. Returns
   0, -ENOENT, -ENOMEM. */
int viommu_pv_page_settle(struct viommu_pv *pv, uint32_t vm, uint64_t frame);

/* How a VM stands. Members are only ever added, at the end. */
struct viommu_pv_vm_status {
    uint64_t mappings; /* slots in use in its contexts: live, to be flushed, revoked */
    uint64_t pending;  /* of them: unmapped, and not flushed */
    uint64_t revoked;  /* of them: taken away */
    uint64_t mapped;   /* mappings of its frames and pages, whoever made them; not the revoked */
    uint64_t tables;
    uint64_t contexts;
    uint64_t isolated; /* contexts that a flush failed in */
    bool enabled;
    bool dying;
};

/* Tells how a VM stands, `size` bytes at most. Returns 0, -ENOENT. */
int viommu_pv_vm_status(struct viommu_pv *pv, uint32_t vm, struct viommu_pv_vm_status *status,
                        size_t size);

/*
 * The adapter to the library's backends: a space whose mappings a subscription (viommu/notify.h) of
 * a mirror keeps: VFIO, iommufd, a vfio-user server, a trace. Of the operations above map, unmap,
 * flush and isolate are these functions. What has no address here, and what the subscription does
 * not allow, is refused.
 *
 * A cache (vhost) cannot be driven so: it has no mappings, but asks an IOMMU's device for
 * translations, and there is none.
 */
struct viommu_pv_backend;

/* The host's side of a page. */
struct viommu_pv_memory {
    void *host; /* where it lies in this process, contiguous */
    int fd;     /* and the file behind it, or -1; a vfio-user server maps that, and needs it */
    uint64_t fd_offset;
    uint64_t gpa; /* what a trace calls it */
};

/*
 * Creates one; the subscription is copied, but not what it points to. Returns 0; -EINVAL for one
 * that lacks a callback or does not want MAP and UNMAP; -ENOTSUP for a cache, for one that takes no
 * 4 KiB pages, or that has mappings already (`adopt`); -ENOMEM.
 */
int viommu_pv_backend_create(const struct viommu_subscription *what,
                             struct viommu_pv_backend **out);
/*
 * Nobody is in any of these functions, nor comes to one later: viommu_pv_backend_complete() of an
 * answer that nobody waited for any longer is the caller's to keep away. NULL is accepted.
 */
void viommu_pv_backend_destroy(struct viommu_pv_backend *backend);

/* How long an answer that comes later is waited for: 10,000 ms, if nobody says otherwise. */
void viommu_pv_backend_set_timeout(struct viommu_pv_backend *backend, uint32_t milliseconds);

/*
 * Device frames up to `last` where the backend can map nothing: outside its aperture, or in the
 * host's reservations. At most `room` are written, sorted; *count is how many there are. They
 * belong to what `reserved` tells of a device that is to be in such a space: then the VM knows them
 * beforehand, and what the engine chooses lies outside.
 */
void viommu_pv_backend_holes(const struct viommu_pv_backend *backend, uint64_t last,
                             struct viommu_pv_range *ranges, size_t room, size_t *count);

/*
 * For a backend that answered VIOMMU_PENDING: what viommu_change_complete() is to a subscriber.
 * Status 0, or a negative errno when it failed; -EIO and -ETIMEDOUT of a mapping: nobody knows
 * whether it was made. Any thread but the one that waits, which is in one of the functions below;
 * not inside the backend's functions. Returns 0; -ENOENT for a token that nobody waits for.
 */
int viommu_pv_backend_complete(struct viommu_pv_backend *backend, uint64_t token, int status);

/*
 * Returns 0, or what the backend says; -EADDRNOTAVAIL where it can map nothing; -ERANGE for a page
 * that is not aligned as it needs that: nothing was mapped then. -EIO: it did not answer in time,
 * nobody knows what it did, or it failed before; all there was has been dropped, or is to be, by
 * isolating it. One call at a time a backend: a caller with several threads sees to that.
 */
int viommu_pv_backend_map(struct viommu_pv_backend *backend, uint64_t device_frame, unsigned order,
                          const struct viommu_pv_memory *memory, uint32_t perm);
/* Returns 0, or what the backend says. Its answer may come later: then the flush has it. */
int viommu_pv_backend_unmap(struct viommu_pv_backend *backend, uint64_t device_frame,
                            unsigned order);
/* Waits for the answer to an unmapping. Returns 0; -EIO when that, or one before, was not done:
   then it tries once more to drop all, if it was to. */
int viommu_pv_backend_flush(struct viommu_pv_backend *backend);
/*
 * Drops all there is, for good: no more is mapped with it, and unmapping has nothing to do. Returns
 * 0, or that the device may still reach what it should not: call again, or flush.
 *
 * A device that the backend cut off instead (`cut_off` of VFIO and iommufd) reaches nothing, but
 * what is mapped may stay so: destroy that backend before the device is let in again.
 */
int viommu_pv_backend_isolate(struct viommu_pv_backend *backend);
/*
 * For a caller that knows better: whoever the mappings were given to is no more (the process of a
 * vfio-user server has ended, a VFIO container was closed). Nothing of them can be reached; it is
 * as after an isolation that succeeded. One call at a time a backend, as above: not from another
 * thread while one of those waits.
 */
void viommu_pv_backend_gone(struct viommu_pv_backend *backend);

#ifdef __cplusplus
}
#endif

#endif
