/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * disk.h - the NVMe disk as the guest's kernel offers it, and what should be on it.
 *
 * Vocabulary.  "Sector": 512 bytes, whatever the disk's blocks are.  "Generation": a number that is
 * written into every sector beside the sector's own; so a sector that was lost, or landed
 * elsewhere, or is old, is seen.  "Mark": what a sector should hold: a generation, zeros, or
 * unknown (a write of it failed).
 *
 * Marks are not locked: threads use different sectors.  All else is of one thread.
 */
#ifndef VIOMMU_GUEST_DISK_H
#define VIOMMU_GUEST_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SECTOR = 512,
    MARK_ZEROS = 0,
    MARK_UNKNOWN = 0xffff,
    DISK_TRANSFER_MAX = 1 << 20,
};

struct disk {
    char bdf[16];       /* "0000:00:06.0" */
    int control;        /* /dev/nvme0: commands to the controller */
    int direct;         /* /dev/nvme0n1, past the page cache */
    int buffered;       /* and through it */
    unsigned sectors;
    unsigned block;     /* sectors in a block: the least that is written */
    unsigned align;     /* what direct I/O wants a buffer aligned to, bytes */
    uint16_t *marks;    /* one a sector */
};

/* Wait for the kernel's disk and open it; what fails is reported. */
bool disk_open(struct disk *disk);
void disk_close(struct disk *disk);

/*
 * Take the driver off the controller and bring it back, as an administrator does with one that the
 * kernel gave up; and open the disk again.  Nobody uses it meanwhile.
 */
bool disk_revive(struct disk *disk);

/* Mark sectors. */
void disk_mark(struct disk *disk, unsigned first, unsigned count, uint16_t mark);

/* What sectors of this generation hold. */
void disk_fill(void *to, unsigned first, unsigned count, uint16_t generation);

/* How many of these sectors, from the first on, are as they are marked. */
unsigned disk_matching(const struct disk *disk, const void *data, unsigned first, unsigned count);

/* All of it or an errno: 0 or negative. */
int disk_write(int fd, const void *data, unsigned first, unsigned count);
int disk_read(int fd, void *data, unsigned first, unsigned count);

/*
 * A command to the controller ("admin"), or to the disk.  0 to 0x7ff is the status that it ended
 * with, type and code (0 is success); negative is an errno.  `data` may be NULL.
 */
struct disk_command {
    uint8_t opcode;
    uint32_t nsid, cdw10, cdw11, cdw12;
    void *data;
    unsigned size;
};

int disk_admin(const struct disk *disk, const struct disk_command *c);
int disk_io(const struct disk *disk, const struct disk_command *c);

/* Have the kernel reset the controller: all queues are made anew.  0 or a negative errno. */
int disk_reset(const struct disk *disk);

/* Have the kernel look how large the disk is.  0 or a negative errno. */
int disk_rescan(const struct disk *disk);

/* Print what is on the disk, for the harness outside: "# disk: FIRST LAST MARK", decimal. */
void disk_show_marks(const struct disk *disk);

#endif
