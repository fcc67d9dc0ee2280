/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guest of the vhost target, and what its embedder does for it: tables, invalidations, memory
 * that comes and goes, rings, the device.
 */
#ifndef VIOMMU_FUZZ_VHOST_GUEST_H
#define VIOMMU_FUZZ_VHOST_GUEST_H

#include "vhost_far.h"

#include <viommu/vhost.h>

#define LEVELS     3
#define BASE       0x100000ull
#define REQUESTER  0x18
#define LARGE      0x200000ull   /* a large page of the guest's */
#define EXTRA      0x40000000ull /* a slot that comes and goes: the last pages of the file */
#define SLOT_COUNT 16u           /* others below it, of all sorts of files: */
#define SLOTS      (EXTRA - SLOT_COUNT * 0x4000u)
#define MANY       0x80000000ull /* many addresses, all of one page */
#define FLUSHES_MAX 100u         /* that are under way, of two entries of 256 */

static inline struct viommu_memory_slot slot(uint64_t first, unsigned page, unsigned count)
{
    return (struct viommu_memory_slot){.first = first,
                                       .last = first + count * 4096ull - 1,
                                       .host = ram + page * 4096ull,
                                       .fd = ram_fd,
                                       .fd_offset = page * 4096ull};
}

static inline void on_left(void *opaque)
{
    struct bed *bed = opaque;

    bed->extra_there = false;
    bed->extra_leaves = false;
}

static inline void change_memory(struct bed *bed)
{
    struct viommu_memory_slot extra = slot(EXTRA, PAGES, 4);
    struct viommu_memory_batch *batch;
    bool leaves = bed->extra_there;
    int ret;

    if (bed->extra_leaves || viommu_memory_batch_begin(bed->guest.memory, &batch)) {
        return;
    }
    ret = leaves ? viommu_memory_batch_remove(batch, extra.first, extra.last)
                 : viommu_memory_batch_add(batch, &extra);
    if (ret) {
        viommu_memory_batch_abort(batch);
        return;
    }
    bed->extra_leaves = leaves;
    ret = viommu_memory_batch_commit(batch, leaves ? on_left : NULL, bed);
    if (ret < 0) {
        bed->extra_leaves = false;
    } else if (!leaves) {
        bed->extra_there = true;
    } else if (!ret) {
        on_left(bed);
    }
}

static inline void map(struct bed *bed, uint8_t where, uint8_t to, uint8_t perm)
{
    uint64_t gpa = to & 0x80 ? EXTRA + (to & 7) * 4096ull : (to % PAGES) * 4096ull;

    if (perm & 0x80) {
        bed->large_outside = perm & 0x40;
        (void)guest_map(&bed->guest, bed->table, LEVELS, LARGE, perm & 0x40 ? EXTRA : 0, 2,
                        perm & 3);
    } else {
        (void)guest_map(&bed->guest, bed->table, LEVELS, BASE + (where % 128) * 4096ull, gpa, 1,
                        perm & 3);
    }
}

static inline void flush(struct bed *bed, uint8_t where, uint8_t kind)
{
    struct guest *guest = &bed->guest;
    bool all = kind & 0x80;

    /* A queue that is full would look as if it were empty: a guest waits. */
    if (guest->status_value - (uint32_t)guest_load(guest, guest->status) >= FLUSHES_MAX) {
        return;
    }
    guest_queue_put(guest,
                    spec_iotlb_invalidate(all ? SPEC_DOMAIN : SPEC_SELECTIVE, 1,
                                          (where & 0x40 ? LARGE : BASE) + (where % 32) * 4096ull,
                                          kind % 10, false));
    guest->status_value++;
    guest_queue_put(guest, spec_wait(SPEC_WAIT_STATUS, guest->status, guest->status_value));
    guest_queue_kick(guest);
}

static inline void ring(struct bed *bed, uint8_t what)
{
    struct viommu_vhost_ring setup = {
        .size = (uint16_t)(1u << (what >> 4)),
        .next = what,
        .descriptors = BASE + (what & 8 ? 8 : 0) * 4096ull,
        .available = BASE + 0x1000,
        .used = BASE + 0x2000,
        .kick = what & 4 ? -1 : ram_fd,
        .call = what & 4 ? ram_fd : -1,
    };

    if ((what & 0xf0) == 0xf0) {
        setup.size = what & 8 ? 0 : 3; /* none, or no power of two */
    } else if ((what & 0xf8) == 0xe8) {
        setup.used = BASE + (what & 2 ? 0x2001 : 0x1000000000000000ull);
    }
    if (what & 2 && what < 0xe0) {
        (void)viommu_vhost_ring_stop(bed->vhost, what & 1);
    } else {
        (void)viommu_vhost_ring_start(bed->vhost, what & 1, &setup);
    }
}

static inline void device(struct bed *bed, uint8_t what)
{
    switch (what % 4) {
    case 0:
        (void)viommu_device_reset(bed->device);
        break;
    case 1:
        (void)viommu_device_set_requester(bed->device, what & 4 ? REQUESTER : 0x20);
        break;
    case 2:
        (void)viommu_vhost_accept(bed->vhost, viommu_vhost_features(bed->vhost) |
                                                  (what & 8 ? UINT64_C(1) << 63 : 0));
        break;
    default:
        guest_write(&bed->guest, SPEC_GCMD, 4, SPEC_QIE | (what & 4 ? SPEC_TE : 0));
        break;
    }
}

#endif
