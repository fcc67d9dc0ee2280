/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A simulated hypervisor for scenarios of paravirtual operations: VMs with 4,096 frames, machine
 * pages that count their references, and an IOMMU whose devices remember what they were told until
 * it is flushed. It fills in the table that viommu/pv.h asks for.
 */
#ifndef VIOMMU_TOOLS_RUN_HYPERVISOR_H
#define VIOMMU_TOOLS_RUN_HYPERVISOR_H

#include <viommu/pv.h>

enum {
    HYPERVISOR_VMS = 8,
    HYPERVISOR_FRAMES = 4096,
    HYPERVISOR_DEVICES = 8,
};

struct hypervisor_page {
    uint32_t owner;
    unsigned refs;
    unsigned types;
    unsigned dirty;
    bool typed; /* in use as another type */
    bool free;
};

struct hypervisor_frame {
    struct hypervisor_page *page; /* or NULL */
    enum viommu_pv_page_state state;
};

struct hypervisor_translation {
    struct hypervisor_translation *next;
    uint64_t device_frame;
    unsigned order;
    uint64_t handle;
    uint32_t perm;
    bool stale; /* unmapped, and not flushed: a device may use it still */
};

struct hypervisor_space {
    struct hypervisor_translation *translations;
    bool isolated;
};

struct hypervisor_device {
    bool there;
    uint32_t vm;
    uint32_t id;
    size_t reserved_count;
    struct viommu_pv_range reserved[4];
    struct hypervisor_space *space; /* or NULL */
};

struct hypervisor_vm {
    bool there;
    uint64_t default_left; /* pieces of the default map */
    uint32_t refused;      /* bit n: it may not use the pages of VM n */
    struct hypervisor_frame frames[HYPERVISOR_FRAMES];
};

/* A VM was asked to give a page back. */
struct hypervisor_asked {
    struct hypervisor_asked *next;
    uint32_t mapper;
    uint32_t context;
    uint64_t device_frame;
    uint32_t vm;
    uint64_t frame;
};

struct hypervisor {
    struct hypervisor_vm vms[HYPERVISOR_VMS];
    struct hypervisor_page pages[HYPERVISOR_VMS * HYPERVISOR_FRAMES];
    struct hypervisor_device devices[HYPERVISOR_DEVICES];
    struct hypervisor_asked *asked;
    uint32_t refused_calls; /* bit n: operation n */
    uint64_t yield_every;   /* 0: never */
    uint64_t yield_asked;
    bool flush_fails;
    bool attach_fails;
    bool map_fails;
    uint64_t flushes;
    uint64_t prepared;
    uint64_t acknowledged;
    bool bare; /* a device was without a range that it needs */
};

extern const struct viommu_pv_ops hypervisor_ops; /* `opaque` is a struct hypervisor */

/* The pages of a VM that is new, or gone. */
void hypervisor_vm_begin(struct hypervisor *hypervisor, uint32_t vm, uint64_t default_pieces);
void hypervisor_vm_end(struct hypervisor *hypervisor, uint32_t vm);
/* What a device reaches at a device frame; a live translation first. NULL: nothing. */
const struct hypervisor_translation *hypervisor_translate(const struct hypervisor_device *device,
                                                          uint64_t device_frame);
struct hypervisor_device *hypervisor_device(struct hypervisor *hypervisor, uint32_t vm,
                                            uint32_t id);
/* An unused one; NULL: there are as many as there may be. */
struct hypervisor_device *hypervisor_device_add(struct hypervisor *hypervisor, uint32_t vm,
                                                uint32_t id);
struct hypervisor_asked *hypervisor_asked_take(struct hypervisor *hypervisor);

#endif
