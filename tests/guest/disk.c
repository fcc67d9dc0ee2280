/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * disk.c - the NVMe disk as the guest's kernel offers it.  See disk.h.
 *
 * Word i (of 64) of a sector holds i, the generation and the sector's number, each in bits of its
 * own, mixed (XOR) with a word that depends on i alone.  disk_file.py knows the same rule.
 */
#include "disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/nvme_ioctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "memory.h"
#include "report.h"

enum {
    WORDS = SECTOR / 8,
    GENERATION_SHIFT = 32,
    WORD_SHIFT = 56,
    APPEARS_MS = 20000,
    BIND_TRIES = 15,        /* who serves it may have to come first */
    TRY_MS = 1000,
    STATUS_MASK = 0x7ff,    /* without "more" and "do not retry" */
};

static uint64_t mask_words[WORDS];

static void make_mask(void)
{
    uint64_t x = 0x9e3779b97f4a7c15ull;

    for (unsigned i = 0; i < WORDS; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        mask_words[i] = x;
    }
}

static void fill_sector(uint64_t *words, uint64_t sector, uint64_t generation)
{
    if (generation == MARK_ZEROS) {
        memset(words, 0, SECTOR);
        return;
    }
    for (uint64_t i = 0; i < WORDS; i++) {
        words[i] = (i << WORD_SHIFT | generation << GENERATION_SHIFT | sector) ^ mask_words[i];
    }
}

void disk_fill(void *to, unsigned first, unsigned count, uint16_t generation)
{
    uint64_t words[WORDS];

    for (unsigned i = 0; i < count; i++) {
        fill_sector(words, first + i, generation);
        memcpy((uint8_t *)to + (size_t)i * SECTOR, words, SECTOR);
    }
}

unsigned disk_matching(const struct disk *disk, const void *data, unsigned first, unsigned count)
{
    uint64_t words[WORDS];

    for (unsigned i = 0; i < count; i++) {
        uint16_t mark = disk->marks[first + i];

        if (mark == MARK_UNKNOWN) {
            continue;
        }
        fill_sector(words, first + i, mark);
        if (memcmp((const uint8_t *)data + (size_t)i * SECTOR, words, SECTOR)) {
            return i;
        }
    }
    return count;
}

void disk_mark(struct disk *disk, unsigned first, unsigned count, uint16_t mark)
{
    for (unsigned i = 0; i < count; i++) {
        disk->marks[first + i] = mark;
    }
}

int disk_write(int fd, const void *data, unsigned first, unsigned count)
{
    size_t size = (size_t)count * SECTOR, at = 0;

    while (at < size) {
        ssize_t n = pwrite(fd, (const uint8_t *)data + at, size - at,
                           (off_t)first * SECTOR + (off_t)at);

        if (n <= 0) {
            return n < 0 ? -errno : -EIO;
        }
        at += (size_t)n;
    }
    return 0;
}

int disk_read(int fd, void *data, unsigned first, unsigned count)
{
    size_t size = (size_t)count * SECTOR, at = 0;

    while (at < size) {
        ssize_t n = pread(fd, (uint8_t *)data + at, size - at, (off_t)first * SECTOR + (off_t)at);

        if (n <= 0) {
            return n < 0 ? -errno : -EIO;
        }
        at += (size_t)n;
    }
    return 0;
}

static int command(int fd, unsigned long request, const struct disk_command *c)
{
    struct nvme_passthru_cmd cmd = {
        .opcode = c->opcode, .nsid = c->nsid, .addr = (uintptr_t)c->data, .data_len = c->size,
        .cdw10 = c->cdw10, .cdw11 = c->cdw11, .cdw12 = c->cdw12,
    };
    int status = ioctl(fd, request, &cmd);

    return status < 0 ? -errno : status & STATUS_MASK;
}

int disk_admin(const struct disk *disk, const struct disk_command *c)
{
    return command(disk->control, NVME_IOCTL_ADMIN_CMD, c);
}

int disk_io(const struct disk *disk, const struct disk_command *c)
{
    return command(disk->direct, NVME_IOCTL_IO_CMD, c);
}

int disk_reset(const struct disk *disk)
{
    return ioctl(disk->control, NVME_IOCTL_RESET) < 0 ? -errno : 0;
}

int disk_rescan(const struct disk *disk)
{
    return ioctl(disk->control, NVME_IOCTL_RESCAN) < 0 ? -errno : 0;
}

/* The first entry of a directory, after its "." ones, that begins so; false: there is none. */
static bool find_entry(const char *directory, const char *begin, char *name, size_t size)
{
    DIR *dir = opendir(directory);
    struct dirent *entry;
    bool found = false;

    while (dir && !found && (entry = readdir(dir)) != NULL) {
        found = strncmp(entry->d_name, begin, strlen(begin)) == 0;
        if (found) {
            snprintf(name, size, "%.*s", (int)size - 1, entry->d_name);
        }
    }
    if (dir) {
        closedir(dir);
    }
    return found;
}

/* Where the controller is, and what the kernel calls it: both change when it is bound anew. */
static bool find_controller(struct disk *disk, char *name, size_t size)
{
    char path[280], target[256];
    const char *last;
    ssize_t n;

    if (!find_entry("/sys/class/nvme", "nvme", name, size)) {
        return false;
    }
    snprintf(path, sizeof(path), "/sys/class/nvme/%s/device", name);
    n = readlink(path, target, sizeof(target) - 1);
    if (n < 0) {
        return false;
    }
    target[n] = '\0';
    last = strrchr(target, '/');
    snprintf(disk->bdf, sizeof(disk->bdf), "%.15s", last ? last + 1 : target);
    return true;
}

/* Newer kernels take any buffer that the controller takes, older ones want whole sectors. */
static unsigned find_align(const struct disk *disk)
{
    uint8_t *page = memory_get(2 * PAGE, PAGE);
    unsigned align = SECTOR;

    if (page && disk_read(disk->direct, page + 4, 0, disk->block) == 0) {
        align = 4;
    }
    if (page) {
        memory_put(page, 2 * PAGE);
    }
    return align;
}

static bool open_nodes(struct disk *disk)
{
    char name[64], path[96];

    if (!find_controller(disk, name, sizeof(name))) {
        return false;
    }
    snprintf(path, sizeof(path), "/dev/%s", name);
    disk->control = open(path, O_RDWR | O_CLOEXEC);
    snprintf(path, sizeof(path), "/dev/%sn1", name);
    disk->direct = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
    disk->buffered = open(path, O_RDWR | O_CLOEXEC);
    if (disk->control >= 0 && disk->direct >= 0 && disk->buffered >= 0) {
        return true;
    }
    disk_close(disk);
    return false;
}

static bool wait_and_open(struct disk *disk, unsigned within_ms)
{
    for (unsigned ms = 0; ms < within_ms; ms += 10) {
        if (open_nodes(disk)) {
            return true;
        }
        usleep(10000);
    }
    return false;
}

bool disk_open(struct disk *disk)
{
    uint64_t size = 0;
    int block = 0;

    make_mask();
    memset(disk, 0, sizeof(*disk));
    if (!check(wait_and_open(disk, APPEARS_MS), "the kernel's NVMe driver finds a disk")) {
        return false;
    }
    if (ioctl(disk->direct, BLKGETSIZE64, &size) || ioctl(disk->direct, BLKSSZGET, &block)) {
        return check(false, "how large the disk is");
    }
    disk->sectors = (unsigned)(size / SECTOR);
    disk->block = (unsigned)block / SECTOR;
    disk->align = find_align(disk);
    disk->marks = malloc(disk->sectors * sizeof(*disk->marks));
    if (!disk->marks) {
        return check(false, "memory for marks");
    }
    disk_mark(disk, 0, disk->sectors, MARK_UNKNOWN);
    note("guest: disk %s, %u MiB, blocks of %d bytes, buffers aligned to %u", disk->bdf,
         disk->sectors / 2048, block, disk->align);
    return true;
}

static bool write_word(const char *path, const char *word)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, word, strlen(word)) >= 0;

    if (!ok) {
        note("%s: %s", path, strerror(errno));
    }
    if (fd >= 0) {
        close(fd);
    }
    return ok;
}

/* Of older kernels binding is over before the driver knows whether the controller works. If it does
 * not, for who serves it is not there yet, the driver lets the device go, and is asked again. */
bool disk_revive(struct disk *disk)
{
    char bound[96];

    disk_close(disk);
    snprintf(bound, sizeof(bound), "/sys/bus/pci/drivers/nvme/%s", disk->bdf);
    if (access(bound, F_OK) == 0) {
        write_word("/sys/bus/pci/drivers/nvme/unbind", disk->bdf);
    }
    for (unsigned i = 0; i < BIND_TRIES; i++) {
        if (access(bound, F_OK) != 0) {
            write_word("/sys/bus/pci/drivers/nvme/bind", disk->bdf);
        }
        if (wait_and_open(disk, TRY_MS)) {
            return true;
        }
    }
    return access(bound, F_OK) == 0 && wait_and_open(disk, APPEARS_MS);
}

void disk_close(struct disk *disk)
{
    close(disk->control);
    close(disk->direct);
    close(disk->buffered);
}

void disk_show_marks(const struct disk *disk)
{
    unsigned first = 0;

    for (unsigned i = 1; i <= disk->sectors; i++) {
        if (i == disk->sectors || disk->marks[i] != disk->marks[first]) {
            note("disk: %u %u %u", first, i - 1, disk->marks[first]);
            first = i;
        }
    }
}
