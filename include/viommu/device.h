/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The DMA side: the devices behind an IOMMU, and what they read, write and translate.
 *
 * A device is a PCI function with a requester id. Its requests are translated as the guest's tables
 * say; a request that is refused becomes a fault in the model, for the guest to see, and an error
 * here.
 *
 * Sections. A translation is good only until an invalidation of it completes. Whoever uses a
 * translation encloses translate and use in one section (viommu_dma_begin, viommu_dma_end): an
 * invalidation that starts meanwhile is held open until the section ends. viommu_device_read and
 * viommu_device_write do so themselves. Sections cost one memory fence, nest, and must be short:
 * they belong to their thread and delay the guest's invalidations.
 *
 * Threads: any number of threads may issue DMA for any devices at once; translations that are
 * cached take no lock. None of these functions blocks.
 */
#ifndef VIOMMU_DEVICE_H
#define VIOMMU_DEVICE_H

#include <viommu/iommu.h>
#include <viommu/iova.h>

#ifdef __cplusplus
extern "C" {
#endif

struct viommu_device;

/* Aliases a device can have besides its own requester id. */
#define VIOMMU_ALIASES_MAX 7

struct viommu_device_config {
    uint16_t requester; /* the id that its requests carry; unique in the instance unless `shared` */
    /*
     * The id is that of a bridge and several devices use it: each is added with the same id and
     * with this flag.
     */
    bool shared;
    /* It has a device-TLB (PCI ATS): it may send translation requests and translated requests. */
    bool ats;
    /*
     * The IOVA space (viommu/iova.h) that says which addresses the device may use; NULL: all of
     * them. Devices that share their host mappings share a space. It outlives the device.
     */
    struct viommu_iova *space;
};

/*
 * Adds a device; devices may come while the instance runs. Returns 0; -EEXIST when the requester id
 * is taken by a device and not shared by both, or the guest has mapped, for others with this id,
 * what the space closes; -ENOTSUP for `ats` when the unit has no device-TLB support; -ERANGE for a
 * space whose addresses end below what the model's address width can be or, once the instance is
 * started, is; -ENOSPC for a space of more ranges than PROBE has room for (viommu/virtio.h);
 * -EDEADLK from a change callback; -ENOMEM.
 */
int viommu_device_add(struct viommu *iommu, const struct viommu_device_config *config,
                      struct viommu_device **out);

/*
 * Removes a device and its subscribers; NULL is accepted. The caller sees to it that no other
 * thread is in a call on it. Changes that its subscribers had not acknowledged count as
 * acknowledged: the device is gone. Its pinned windows stay open (viommu/window.h). Returns 0, or
 * -EDEADLK from a change callback.
 */
int viommu_device_remove(struct viommu_device *device);

/*
 * Gives it another requester id (a guest renumbered its buses). What the IOMMU cached for the old
 * id is not used for the new one; subscribers are not told, drop what they cached. Returns 0;
 * -EEXIST as viommu_device_add; -EDEADLK; -ENOMEM.
 */
int viommu_device_set_requester(struct viommu_device *device, uint16_t requester);

/*
 * Gives it one more id to issue requests under (a phantom function): the n-th added is alias n,
 * from 1. Returns the alias number; -EEXIST when the id is taken, shared or not; -ENOSPC past
 * VIOMMU_ALIASES_MAX; -EDEADLK; -ENOMEM.
 */
int viommu_device_add_alias(struct viommu_device *device, uint16_t requester);

/*
 * Takes the aliases back, all of them. Returns 0 or -EDEADLK. No other thread may use one
 * meanwhile.
 */
int viommu_device_remove_aliases(struct viommu_device *device);

/*
 * A function-level reset: a denied device is admitted again, and its subscribers that were fenced
 * hear of changes again; a mirror is told anew of all that is mapped. The device's own cached
 * translations are the caller's to drop, and its pinned windows to release.
 * Returns 0 or -EDEADLK.
 */
int viommu_device_reset(struct viommu_device *device);

/* The id it has now. */
uint16_t viommu_device_requester(const struct viommu_device *device);

/* How a request names its address: the AT field of a PCI Express request. */
enum viommu_dma_type {
    VIOMMU_DMA_UNTRANSLATED = 0,
    VIOMMU_DMA_TRANSLATION = 1, /* asks for a translation to cache: viommu_device_ats_translate */
    VIOMMU_DMA_TRANSLATED = 2,  /* carries an address that such a request returned */
};

/* What a request carries besides its address. NULL stands for all zero. */
struct viommu_dma_attrs {
    enum viommu_dma_type type;
    unsigned alias; /* 0: the device's own id; n: its n-th alias */
};

/* Where a request goes. */
struct viommu_translation {
    uint64_t gpa;     /* guest-physical address of the byte asked for */
    uint64_t mask;    /* page size - 1: it holds for every address with equal upper bits */
    uint32_t perm;    /* enum viommu_perm: what the tables allow there */
    bool interrupt;   /* not memory: a message to the interrupt controller at this address */
};

/*
 * Opens and closes a section. begin returns 0, or -ENOMEM: a thread's first section needs a little
 * memory; it is then not open. End it on the thread that began it.
 */
int viommu_dma_begin(struct viommu *iommu);
void viommu_dma_end(struct viommu *iommu);

/*
 * Translates one address for an access that needs `perm` (enum viommu_perm; 0 is a zero-length
 * read). The result may be used until the enclosing section ends; outside a section it is only a
 * statement about the past.
 *
 * Returns 0; -EFAULT when the guest's tables refuse it (the fault is recorded as the architecture
 * says; with translation off, an address above the host width is refused and recorded nowhere);
 * -EPERM when the device is denied; -EAGAIN before viommu_start; -EINVAL for an alias it does not
 * have, or a type other than UNTRANSLATED and TRANSLATED; -ENOTSUP for a translated request of a
 * device added without `ats`; -ENOMEM on a thread's first section.
 */
int viommu_device_translate(struct viommu_device *device, const struct viommu_dma_attrs *attrs,
                            uint64_t iova, uint32_t perm, struct viommu_translation *out);

/*
 * Translates a list of addresses, as viommu_device_translate does one by one in their order, but
 * much faster where they are cached: for descriptor chains and page lists. gpas[i] becomes where
 * iovas[i] leads; it holds up to the end of that address' page of 4 KiB. Both may be one array. It
 * ends at the first address that is not translated; *translated is how many were before it, and
 * what follows in gpas is not written.
 *
 * Inside a section the results may be used until it ends. Outside they are a statement about the
 * past, each about another moment. A long list keeps its section open: a few hundred addresses take
 * a microsecond when they are cached, but a walk each when they are not.
 *
 * Returns 0 when all were translated; -ENXIO when an address is not memory but a message to the
 * interrupt controller; else the error of viommu_device_translate. attrs are checked even when
 * count is 0.
 */
int viommu_device_translate_many(struct viommu_device *device, const struct viommu_dma_attrs *attrs,
                                 const uint64_t *iovas, size_t count, uint32_t perm, uint64_t *gpas,
                                 size_t *translated);

/*
 * Reads from, or writes to, guest memory as the device: `len` bytes at `iova`. Every 4 KiB page is
 * translated by itself, in order of addresses, as packets on a bus are: when one is refused those
 * before it have been done. len 0 is a zero-length read or write, which moves nothing but is
 * checked.
 *
 * A write of 4 aligned bytes to the interrupt address range calls the `interrupt` callback.
 *
 * What leads to no guest memory goes to viommu_config.space, if there is one, in pieces as its
 * regions want them, each translated by itself; registers of the instance itself are not reached.
 * Their callbacks are not part of the access's own section: an invalidation waits for them only
 * where the caller has one open.
 *
 * Returns 0; the errors of viommu_device_translate; -ENXIO where the translation leads to nothing;
 * -EROFS for a write to ROM; -EINVAL where iova + len passes the top of the address space; and, of
 * the space, all errors of an access (viommu/space.h).
 */
int viommu_device_read(struct viommu_device *device, const struct viommu_dma_attrs *attrs,
                       uint64_t iova, void *buf, size_t len);
int viommu_device_write(struct viommu_device *device, const struct viommu_dma_attrs *attrs,
                        uint64_t iova, const void *buf, size_t len);

/* One entry of a translation completion (PCI ATS). */
struct viommu_ats_entry {
    uint64_t iova; /* first address it holds for, aligned to its size */
    uint64_t gpa;  /* first translated address; meaningless when perm is 0 */
    uint64_t mask; /* size - 1 */
    uint32_t perm; /* enum viommu_perm; 0: there is no translation now, ask again later */
    bool untranslated_only; /* the device must not use translated requests here (the U bit) */
    bool snoop;             /* accesses must be snooped: the N bit, from the tables' snoop bit */
};

/*
 * A translation request as PCI ATS has it: asks for the translation of [iova, iova + len - 1] and
 * fills entries in order, `count` at most; the device may cache them until it is told to invalidate
 * (viommu_device_subscribe). With `no_write` it asks to read only. attrs gives the alias; its type
 * does not count.
 *
 * Enclose the call and the storing of its entries in one section (viommu_dma_begin): the device is
 * told to invalidate only after such sections have ended, so nothing old can be stored after that.
 * And acknowledge an invalidation only when no translated request that uses the range can still
 * begin.
 *
 * Returns the number of entries (1 or more; fewer than asked for is normal); -EFAULT when the
 * request is refused as a whole (Unsupported Request or Completer Abort on a bus), with the fault
 * recorded; -EPERM when the device is denied; -ENOTSUP when it was added without `ats`; -EAGAIN
 * before viommu_start; -EINVAL for len or count 0, a range that passes the top of the address
 * space, or an alias that it does not have; -ENOMEM on a thread's first section.
 */
int viommu_device_ats_translate(struct viommu_device *device, const struct viommu_dma_attrs *attrs,
                                uint64_t iova, uint64_t len, bool no_write,
                                struct viommu_ats_entry *entries, unsigned count);

#ifdef __cplusplus
}
#endif

#endif
