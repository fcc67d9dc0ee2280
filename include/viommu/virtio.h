/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The virtio-iommu model (Virtual I/O Device specification, version 1.3, device 23): a guest that
 * attaches endpoints to domains, and maps addresses in them, by requests. The model begins where
 * the transport ends: it is given the bytes of a request, and says what to answer. Rings,
 * descriptors and interrupts are the transport's.
 *
 * Endpoints are the devices of the instance: the endpoint id is the requester id. What the guest
 * may attach are the ids that devices have now, aliases too.
 *
 * What endpoints may not use is said by the IOVA space of their device
 * (viommu_device_config.space). PROBE tells it, as ranges that do not touch, of subtype RESERVED:
 * the space's reservations, of all types but relaxable ones, and what its limits leave out of the
 * input range; and the interrupt window, of subtype MSI. MAP of any of it for any endpoint of the
 * domain is refused (INVAL), as is ATTACH of an endpoint to a domain that has mapped some of it
 * (UNSUPP), and DMA there, in bypass mode, too. The specification has no way to tell a guest of
 * addresses that are always mapped one to one (VIOMMU_IOVA_DIRECT): the guest is told that they are
 * reserved, and nothing is mapped there.
 *
 * A change of the space that would close what the guest has mapped is refused (viommu/iova.h). Any
 * other is in force at once: MAP and DMA go by it, and PROBE answers by it from then on. (In bypass
 * mode pinned windows are asked back, and caches told; requests of the guest that come later
 * complete when those, and requests of devices that began before, have ended.) But drivers
 * probe an endpoint once, before it is attached: what is closed later such a guest learns by its
 * MAP being refused; and what is opened later it does not use before it probes again.
 *
 * The device configuration space (struct virtio_iommu_config of the specification, 40 bytes) is
 * what viommu_mmio_read and viommu_mmio_write answer. Of it a driver that negotiated BYPASS_CONFIG
 * may write the field `bypass`; all other writes are ignored.
 *
 * What a request takes away (UNMAP, DETACH, ATTACH of an endpoint that reached something else) is
 * complete only when requests of devices that began before have ended, subscribers have
 * acknowledged, and pinned windows were released. Mostly all that holds at once. If not the request
 * is pending, and the callback `completed` tells its status later. Requests complete in order. An
 * endpoint whose device is removed, or gets another id, is not attached any more: requests that
 * come later complete when its own, and its windows, have ended.
 *
 * Mirrors (viommu/notify.h) of its devices hold what the guest maps, or with bypass guest memory
 * one to one, without the reserved regions. A mapping of the guest is one mapping, cut by memory
 * only. They are called by viommu_process(), so requests in which they have a part are pending:
 * - MAP, and ATTACH to a domain with mappings or to a bypass domain. Mirrors go first: until all
 *   have followed devices do not find the mapping, and an endpoint goes by its old domain. When one
 *   cannot follow, what others did is undone, nothing has changed, and the request is answered
 *   NOMEM (-ENOMEM, -ENOSPC, -EMFILE, -ENFILE, -EDQUOT) or DEVERR.
 * - UNMAP. Devices do not find the mappings any more, at once; it is complete when mirrors have
 *   followed. One that cannot is fenced, its device denied; others go on, and the request is OK.
 * - What else takes something away: likewise.
 * Later requests, PROBE excepted, wait for their turn while mirrors try one, and find what it left.
 * A reset does not: what is tried is called off, what waits is answered IOERR, undone.
 * What nobody can be told of (memory that comes; bypass because of DETACH, a reset, or the field)
 * is a difference where it fails, and tried again.
 *
 * MAP of addresses that a mirror of the domain may not map (`allowed`) is answered INVAL, ATTACH of
 * its endpoint to a domain with such mappings UNSUPP. Before the start a mirror narrows the input
 * range and page_size_mask to what it can do.
 *
 * Devices cannot have device-TLBs.
 *
 * The modes of the cache for people who test drivers (viommu_config.cache_mode). A driver changes
 * what is mapped by requests only, each of which is its own invalidation: there is none to be
 * forgotten, and nothing that a cache keeps or loses shows. So *faithful* is the same as normal.
 * With a *hostile* one requests, but PROBE, begin late: they are pending, and until shortly before
 * they complete devices reach what they reached before. A driver that does not wait for the answer
 * to an UNMAP before it uses the memory, or to a MAP before it has a device use it, is found out.
 */
#ifndef VIOMMU_VIRTIO_H
#define VIOMMU_VIRTIO_H

#include <viommu/iommu.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Feature bits of the device; those of the transport (VERSION_1 and so on) are not the model's. */
enum viommu_virtio_feature {
    VIOMMU_VIRTIO_INPUT_RANGE = 1 << 0,
    VIOMMU_VIRTIO_DOMAIN_RANGE = 1 << 1,
    VIOMMU_VIRTIO_MAP_UNMAP = 1 << 2,
    VIOMMU_VIRTIO_BYPASS = 1 << 3, /* deprecated by BYPASS_CONFIG */
    VIOMMU_VIRTIO_PROBE = 1 << 4,
    VIOMMU_VIRTIO_MMIO = 1 << 5,
    VIOMMU_VIRTIO_BYPASS_CONFIG = 1 << 6,
};

/* What a request is answered with. */
enum viommu_virtio_status_code {
    VIOMMU_VIRTIO_OK = 0,
    VIOMMU_VIRTIO_IOERR = 1,
    VIOMMU_VIRTIO_UNSUPP = 2,
    VIOMMU_VIRTIO_DEVERR = 3,
    VIOMMU_VIRTIO_INVAL = 4,
    VIOMMU_VIRTIO_RANGE = 5,
    VIOMMU_VIRTIO_NOENT = 6,
    VIOMMU_VIRTIO_FAULT = 7,
    VIOMMU_VIRTIO_NOMEM = 8,
};

/* Fields left zero take the value in parentheses. */
struct viommu_virtio_config {
    /*
     * The features that are offered, MAP_UNMAP among them, BYPASS and BYPASS_CONFIG not together
     * (all but BYPASS).
     */
    uint64_t features;
    /*
     * Bit n: pages of 2^n bytes. The lowest one is the granule of mappings, 4 KiB to 1 GiB; the
     * others are hints to the guest (4 KiB, 2 MiB and 1 GiB).
     */
    uint64_t page_size_mask;
    /* Addresses that can be mapped, whole granules (0 to 2^48 - 1; without INPUT_RANGE all). */
    struct viommu_range input;
    uint32_t domain_first; /* domain ids, with DOMAIN_RANGE */
    uint32_t domain_last;  /* (65,535, and 0 for the first) */
    uint8_t host_address_width; /* of guest-physical addresses: 32 to 64 (52) */
    bool bypass; /* with BYPASS_CONFIG: what the field `bypass` begins with */
    /*
     * Bytes of properties that PROBE has room for, 24 to 65,536 (512). 24 for each reserved range,
     * and for the interrupt window (FEE00000-FEEFFFFF), which is always told.
     */
    uint32_t probe_size;
    /* Limits: what a guest can make us use. Past them requests are refused. */
    uint32_t domains_max;          /* (65,536): NOMEM */
    uint32_t domain_endpoints_max; /* endpoints in one domain (any number): UNSUPP */
    uint32_t mappings_max;         /* in all domains together (1,048,576): NOMEM */
    uint32_t faults_max;           /* faults that wait to be fetched, up to 65,536 (256) */
    /*
     * A request that was pending, or a reset, is complete; `status` is its status code. Called from
     * viommu_process(), without a lock held. NULL: nobody is told.
     */
    void (*completed)(void *opaque, uint64_t token, uint8_t status);
    /*
     * Faults wait to be fetched (viommu_virtio_fault). Called likewise, once until all have been
     * fetched. NULL: nobody is told.
     */
    void (*faulted)(void *opaque);
    /* `opaque` of both is viommu_config.opaque. */
};

/*
 * Creates an instance. Neither configuration may be NULL. Returns 0; -EINVAL for a value out of
 * range, or without a memory; -ENOMEM; -EMFILE,
 * -ENFILE or -ENOSPC (no file descriptor, or watch, for viommu_event_fd).
 */
int viommu_virtio_create(const struct viommu_config *config,
                         const struct viommu_virtio_config *virtio, struct viommu **out);

/* The features that are offered (enum viommu_virtio_feature). 0 for a unit of another model. */
uint64_t viommu_virtio_features(const struct viommu *iommu);

/*
 * The driver has accepted features (FEATURES_OK): until the next reset those count. Bits that are
 * not the model's are ignored. Returns 0; -EINVAL for a unit of another model, or for features that
 * are not offered; -EAGAIN before viommu_start; -EDEADLK from a change callback.
 */
int viommu_virtio_accept(struct viommu *iommu, uint64_t features);

/*
 * The device part of a request's work. `in` is what the driver wrote, and `out` where the answer
 * goes; both may be guest memory that changes meanwhile, and neither is used after the call.
 * *written becomes the used length: how many bytes of `out` hold the answer; 0 for a request that
 * has no place for one, or that is of an unknown type.
 *
 * The answer's last four bytes, struct virtio_iommu_req_tail, are a status code and three zeroes.
 * They follow the properties in the answer to PROBE, and are the whole answer otherwise.
 *
 * Returns 0 when it is complete; VIOMMU_PENDING when it is not yet: `completed` brings the token
 * and the status, and the tail (four bytes) is then the caller's to write at the beginning of the
 * request's buffer: *written is 0. -EBUSY when so many requests are pending that no more are taken:
 * nothing was done, come again when one has completed, or viommu_process() has run; -EINVAL for a
 * unit of another model; -EAGAIN before viommu_start; -EDEADLK from a change callback.
 *
 * Any thread; requests are carried out in the order of the calls.
 */
int viommu_virtio_request(struct viommu *iommu, const void *in, size_t in_size, void *out,
                          size_t out_size, uint64_t token, size_t *written);

/*
 * Resets the virtio device (the driver wrote 0 to the device status): no endpoint is attached,
 * there are no domains, nothing is accepted, no fault waits; `bypass` stays. viommu_reset() is the
 * platform's: it restores `bypass`, too, and forgets requests that are pending.
 *
 * Requests that were pending complete before it. Returns 0 when it is complete; VIOMMU_PENDING when
 * `completed` tells so later, with this token; -ENOMEM or -EBUSY: nothing was done, try again;
 * -EINVAL for a unit of another model; -EAGAIN before viommu_start; -EDEADLK from a change
 * callback.
 */
int viommu_virtio_reset(struct viommu *iommu, uint64_t token);

/* Bytes of a fault report. */
#define VIOMMU_VIRTIO_FAULT_SIZE 24

/*
 * Fetches the oldest fault as the event queue has it (struct virtio_iommu_fault) into a buffer of
 * the driver's. Returns VIOMMU_VIRTIO_FAULT_SIZE; 0 when none waits; -ENOSPC when the buffer is too
 * small: the fault stays; -EINVAL for a unit of another model.
 *
 * Faults for which there is no room are lost, and counted (viommu_stats.faults_lost).
 */
int viommu_virtio_fault(struct viommu *iommu, void *buf, size_t size);

/* How an instance stands. Members are only ever added, at the end. */
struct viommu_virtio_status {
    uint64_t domains;
    uint64_t endpoints;      /* attached */
    uint64_t mappings;       /* in all domains, one that mirrors are trying included */
    uint64_t memory;         /* bytes that mappings and indices use */
    uint64_t pending;        /* requests and resets that are not complete, or were not told */
    uint64_t faults_waiting; /* to be fetched */
    uint64_t requests;       /* that were answered, since viommu_start */
    uint64_t refused;        /* of them, with another status than OK */
    uint64_t features;       /* that the driver accepted */
};

/*
 * Tells how an instance stands, `size` bytes at most (a program built against another release
 * passes its own sizeof). Any thread. Returns 0, or -EINVAL for a unit of another model.
 */
int viommu_virtio_status(struct viommu *iommu, struct viommu_virtio_status *status, size_t size);

#ifdef __cplusplus
}
#endif

#endif
