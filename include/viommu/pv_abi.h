/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Paravirtual IOMMU operations: what a guest and its hypervisor exchange (version 1).
 *
 * A guest, or a VM that models devices for others, asks for mappings by calls. A call is one of the
 * structures below, whole, in little-endian order; the answer is another. How they travel is the
 * hypervisor's. docs/pv.md tells the rules, this header the layout.
 *
 * A *VM* is a domain of the hypervisor. A *frame* is a number of a 4 KiB page of a VM's own
 * physical addresses, never of the machine's. A *device frame* is a number of a 4 KiB page of the
 * addresses that a device uses. A *context* is a set of mappings that devices are attached to. A
 * page of *order* n is 2^n frames, aligned to that in frames and device frames.
 *
 * What is not named here is zero: padding, unknown flags. Otherwise the answer is EINVAL.
 */
#ifndef VIOMMU_PV_ABI_H
#define VIOMMU_PV_ABI_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VIOMMU_PV_VERSION 1

/* The VM that calls. */
#define VIOMMU_PV_SELF UINT32_MAX
/* All devices of the VM that calls. */
#define VIOMMU_PV_ALL UINT32_MAX

enum viommu_pv_operation {
    VIOMMU_PV_CAPS = 1,
    VIOMMU_PV_RESERVED = 2,
    VIOMMU_PV_ENABLE = 3,
    VIOMMU_PV_CONTEXT_ALLOC = 4,
    VIOMMU_PV_CONTEXT_FREE = 5,
    VIOMMU_PV_ATTACH = 6,
    VIOMMU_PV_MAP = 7,
    VIOMMU_PV_UNMAP = 8,
    VIOMMU_PV_FLUSH = 9,
    VIOMMU_PV_LOOKUP = 10,
    VIOMMU_PV_FIND = 11,
    VIOMMU_PV_MAP_FOREIGN = 12,
    VIOMMU_PV_ACKNOWLEDGE = 13,
};

/* What a call comes to; each has one reason. */
enum viommu_pv_status {
    VIOMMU_PV_OK = 0,
    VIOMMU_PV_EPERM = 1,          /* the caller may not do that, or not to that VM or page */
    VIOMMU_PV_ENOENT = 2,         /* no page there, or it is about to be removed */
    VIOMMU_PV_ESRCH = 3,          /* no such VM */
    VIOMMU_PV_EIO = 5,            /* a flush failed; the context is isolated */
    VIOMMU_PV_ENXIO = 6,          /* not mapped */
    VIOMMU_PV_EBADF = 9,          /* no such context */
    VIOMMU_PV_EAGAIN = 11,        /* not ready, try again: the page, the slot, or `enable` */
    VIOMMU_PV_EACCES = 13,        /* the page is read-only */
    VIOMMU_PV_EBUSY = 16,         /* the page is in use as something that is not writable */
    VIOMMU_PV_EEXIST = 17,        /* the slot is in use; what is there stays */
    VIOMMU_PV_ENODEV = 19,        /* no such device, or it cannot be attached */
    VIOMMU_PV_EINVAL = 22,        /* the call is malformed */
    VIOMMU_PV_ENOSPC = 28,        /* a quota is used up */
    VIOMMU_PV_ERANGE = 34,        /* a number past the largest that `caps` tells, or an overflow */
    VIOMMU_PV_ENOTEMPTY = 39,     /* devices are attached to the context */
    VIOMMU_PV_EOPNOTSUPP = 95,    /* MMIO without the flag; or an operation there is not */
    VIOMMU_PV_EADDRNOTAVAIL = 99, /* a device frame is reserved, or cannot be mapped at all */
    VIOMMU_PV_ESHUTDOWN = 108,    /* a VM is dying */
    VIOMMU_PV_EALREADY = 114,     /* enabled before */
    VIOMMU_PV_ESTALE = 116,       /* something else is mapped there */
};

/* What a device may do with a page. */
enum viommu_pv_perm {
    VIOMMU_PV_READ = 1,
    VIOMMU_PV_WRITE = 2,
};

enum viommu_pv_flag {
    VIOMMU_PV_MMIO = 1,  /* map, map_foreign: the page may be MMIO */
    VIOMMU_PV_DEFER = 1, /* unmap: do not flush before the call returns */
    VIOMMU_PV_WHOLE = 1, /* flush: the whole context; first and last are zero */
};

/* Begins every call. */
struct viommu_pv_head {
    uint16_t version; /* VIOMMU_PV_VERSION */
    uint16_t operation;
    uint32_t size; /* of the whole structure, in bytes, with what follows it */
};

/* Begins every answer. */
struct viommu_pv_answer {
    uint16_t version;
    uint16_t operation; /* of the call */
    uint32_t size;
    uint32_t status; /* enum viommu_pv_status */
    uint32_t zero;
    uint64_t done;    /* items that were done and stay */
    uint64_t stopped; /* of map and unmap that failed: the device frame where */
};

/* CAPS, ENABLE: the head alone. Answers: this, and the answer alone. */
struct viommu_pv_caps {
    struct viommu_pv_answer answer;
    uint64_t frame_max; /* largest frame */
    uint64_t device_frame_max;
    uint64_t orders;       /* bit n: pages of order n */
    uint64_t count_max;    /* items of map and unmap */
    uint64_t mappings_max; /* of a VM */
    uint64_t tables_max;   /* of a VM: tables that hold mappings */
    uint32_t contexts_max; /* of a VM, the first one included */
    uint32_t items_max;    /* of map_foreign */
    uint32_t deferred_max; /* frames of a context that may await their flush */
    uint32_t zero;
};

/* RESERVED: what is mapped one to one, and never otherwise, for a device or for all; or cannot be
   mapped. */
struct viommu_pv_reserved_call {
    struct viommu_pv_head head;
    uint32_t device; /* or VIOMMU_PV_ALL */
    uint32_t room;   /* ranges that the buffer for the answer has room for */
};

struct viommu_pv_frames {
    uint64_t first;
    uint64_t last;
};

/* As many ranges as there are follow, or none when there is no room for all. */
struct viommu_pv_reserved {
    struct viommu_pv_answer answer; /* done: how many follow */
    uint64_t generation;            /* changes when the ranges do */
    uint32_t count;                 /* how many there are */
    uint32_t zero;
};

/* CONTEXT_ALLOC: */
struct viommu_pv_alloc_call {
    struct viommu_pv_head head;
    uint32_t flags; /* none yet */
    uint32_t zero;
};

struct viommu_pv_alloc {
    struct viommu_pv_answer answer;
    uint32_t context;
    uint32_t zero;
};

/* CONTEXT_FREE. Context 0, which each VM begins with, cannot be freed. Answer: the head alone. */
struct viommu_pv_free_call {
    struct viommu_pv_head head;
    uint32_t context;
    uint32_t zero;
};

/* ATTACH: the device leaves the context where it was. */
struct viommu_pv_attach_call {
    struct viommu_pv_head head;
    uint32_t device;
    uint32_t context;
};

/* MAP: item i maps page `frame + (i << order)` at `device_frame + (i << order)`. */
struct viommu_pv_map_call {
    struct viommu_pv_head head;
    uint32_t context;
    uint32_t vm; /* whose frames, or VIOMMU_PV_SELF */
    uint64_t frame;
    uint64_t device_frame;
    uint64_t count;
    uint32_t order;
    uint32_t perm;
    uint32_t flags;
    uint32_t zero;
};

/* UNMAP is struct viommu_pv_map_call, too: each item must be what is named; `perm` is zero. */

/* FLUSH: what was unmapped in [first, last], or anywhere, before the call began. */
struct viommu_pv_flush_call {
    struct viommu_pv_head head;
    uint32_t context;
    uint32_t flags;
    uint64_t first;
    uint64_t last;
};

/* LOOKUP: what is mapped at a device frame. */
struct viommu_pv_lookup_call {
    struct viommu_pv_head head;
    uint32_t context;
    uint32_t zero;
    uint64_t device_frame;
};

struct viommu_pv_lookup {
    struct viommu_pv_answer answer;
    uint64_t frame; /* that this device frame leads to */
    uint32_t vm;
    uint32_t perm;
    uint32_t order; /* of the page it is part of */
    uint32_t zero;
};

/* FIND: at which of the caller's device frames a frame is mapped. Of what others map it says
   nothing, so no privilege over the VM is needed. */
struct viommu_pv_find_call {
    struct viommu_pv_head head;
    uint32_t vm;
    uint32_t room; /* places that the buffer for the answer has room for */
    uint64_t frame;
};

struct viommu_pv_place {
    uint64_t device_frame;
    uint32_t context;
    uint32_t perm;
};

/* As many places as there is room for follow. */
struct viommu_pv_find {
    struct viommu_pv_answer answer; /* done: how many follow */
    uint64_t count;                 /* how many there are */
};

/* MAP_FOREIGN: `count` frames (uint64_t) follow. */
struct viommu_pv_foreign_call {
    struct viommu_pv_head head;
    uint32_t context;
    uint32_t vm;
    uint64_t device_frame_max; /* the highest that is wanted */
    uint32_t perm;
    uint32_t flags;
    uint32_t count;
    uint32_t zero;
};

/* One a frame follows the answer; `done` counts those with status 0. */
struct viommu_pv_item {
    uint64_t device_frame;
    uint32_t status;
    uint32_t zero;
};

/* ACKNOWLEDGE: the caller has given a frame back that it was asked for. EPERM: it maps nothing of
   it, and may map no page of the VM, so it is not told which are about to be removed. */
struct viommu_pv_acknowledge_call {
    struct viommu_pv_head head;
    uint32_t vm;
    uint32_t zero;
    uint64_t frame;
};

struct viommu_pv_acknowledged {
    struct viommu_pv_answer answer;
    uint64_t remaining; /* mappings of it that the caller still has, those not flushed included */
};

#ifdef __cplusplus
}
#endif

#endif
