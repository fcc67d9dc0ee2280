/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest memory as the far side knows it: which of our slots it has, and by what key it finds a byte
 * of them.
 *
 * A *key* stands where the protocol has a "user address". Of the kernel's it is one: where the byte
 * lies in this process. A vhost-user back-end looks a key up in the memory table that it was given;
 * nothing else depends on it, so it is none of our addresses.
 *
 * The *regions* of that table are made of slots that have a file. Slots that follow one another in
 * guest memory and in a file are one region. Where that leaves too many, all slots of a file become
 * one, with what lies between them in the file: the back-end has the file anyway. A region's guest
 * address is then that of its first byte only, which nobody needs where an IOMMU is in use.
 *
 * Locking: the owner's.
 */
#ifndef VIOMMU_VHOST_TABLE_H
#define VIOMMU_VHOST_TABLE_H

#include "vhost/protocol.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <viommu/memory.h>

struct vhost_slot {
    struct viommu_memory_slot slot;
    dev_t device; /* of its file */
    ino_t inode;
    bool has_file;
    bool placed; /* the far side has it */
    unsigned region;
    uint64_t key; /* of its first byte */
};

struct vhost_table {
    bool of_kernel;
    struct vhost_slot *slots; /* sorted by guest address */
    size_t count;
    size_t room;
    struct vhost_user_region regions[VHOST_USER_REGIONS_MAX];
    int fds[VHOST_USER_REGIONS_MAX];
    unsigned region_count;
};

/* Where a guest address lies. */
struct vhost_place {
    uint64_t first; /* guest addresses of the slot */
    uint64_t last;
    uint64_t key;    /* of the address asked for */
    unsigned region; /* of the kernel's, which has no table of ours, each slot is one */
    bool readonly;
};

void vhost_table_fini(struct vhost_table *table);

/* Adds slots, none of which overlaps another. They are not placed yet. Returns 0 or -ENOMEM. */
int vhost_table_add(struct vhost_table *table, const struct viommu_memory_slot *slots,
                    size_t count);

/* Takes slots away. Returns whether one of them was placed. */
bool vhost_table_remove(struct vhost_table *table, const struct viommu_memory_slot *slots,
                        size_t count);

/* Makes the regions of the slots that there are. Returns 0, -ENOSPC (too many files) or -ENOMEM. */
int vhost_table_build(struct vhost_table *table);

/* The far side has none of them any more. */
void vhost_table_unplace(struct vhost_table *table);

/* Whether slots can be placed that are not. */
bool vhost_table_grown(const struct vhost_table *table);

bool vhost_table_find(const struct vhost_table *table, uint64_t gpa, struct vhost_place *place);

#endif
