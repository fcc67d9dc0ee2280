/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * disk_checks.c - the disk does what disks do.  See disk_checks.h.
 *
 * Whatever a check changes on the disk it marks, so that the next one, and the harness outside,
 * know what is on it.
 */
#include "disk_checks.h"

#include <errno.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "init.h"
#include "iova.h"
#include "kmsg.h"
#include "load.h"
#include "memory.h"
#include "report.h"

enum {
    ADMIN_DELETE_QUEUE = 0x00,
    ADMIN_LOG_PAGE = 0x02,
    ADMIN_IDENTIFY = 0x06,
    ADMIN_GET_FEATURES = 0x0a,
    ADMIN_UNKNOWN = 0x7e,
    IO_READ = 0x02,
    IO_UNKNOWN = 0x7e,
    IDENTIFY_NAMESPACE = 0,
    IDENTIFY_CONTROLLER = 1,
    STATUS_INVALID_OPCODE = 0x001,
    STATUS_INVALID_FIELD = 0x002,
    STATUS_INVALID_NAMESPACE = 0x00b,
    STATUS_OUT_OF_RANGE = 0x080,
    STATUS_INVALID_QUEUE = 0x101,
    STATUS_INVALID_LOG_PAGE = 0x109,
    EVERY_NAMESPACE = 0xffffffff,
    BUFFERED_GENERATION = 0x7000,
    RESETS = 3,
};

void check_disk_whole(struct disk *disk, const struct disk_plan *plan, const char *when)
{
    struct load load;
    bool ok = load_run(disk, LOAD_WRITE, plan->threads, &load);

    check(ok, "%s: the whole disk is written by %u threads, %u calls", when, plan->threads,
          load.done);
    ok = load_run(disk, LOAD_READ, plan->threads, &load);
    check(ok, "%s: and holds just that, read by %u threads, %u calls", when, plan->threads,
          load.done);
}

void check_disk_neighbour(const struct disk_plan *plan, const char *when)
{
    uint64_t seed = pattern_new_seed();
    bool ok;

    if (!plan->edu) {
        return;
    }
    ok = station_load(plan->edu, seed) && station_show(plan->edu);
    report_detail("%s", ok ? "the bytes are not those sent" : "no end");
    check(ok && pattern_matches(plan->edu->window, 0, PAGE, seed), "%s: DMA of %s works", when,
          plan->edu->edu->bdf);
}

/* Through the page cache: what was written and synced is on the disk, whoever reads it. */
static void check_buffered(struct disk *disk)
{
    static const struct {
        unsigned first, count;
    } parts[] = {{1, 1}, {7, 9}, {4096 - 3, 2048}, {20000, 1}, {30001, 777}};
    uint8_t *data = memory_get(DISK_TRANSFER_MAX + PAGE, PAGE);
    bool written = data != NULL, direct = true, cached = true;

    for (unsigned i = 0; written && i < sizeof(parts) / sizeof(parts[0]); i++) {
        disk_fill(data + 3, parts[i].first, parts[i].count, (uint16_t)(BUFFERED_GENERATION + i));
        disk_mark(disk, parts[i].first, parts[i].count, (uint16_t)(BUFFERED_GENERATION + i));
        written = disk_write(disk->buffered, data + 3, parts[i].first, parts[i].count) == 0;
    }
    check(written && fsync(disk->buffered) == 0, "writes through the page cache, and fsync");
    for (unsigned i = 0; written && i < sizeof(parts) / sizeof(parts[0]); i++) {
        /* With the neighbours, in whole blocks. */
        unsigned first = (parts[i].first - 1) / disk->block * disk->block;
        unsigned count = (parts[i].count + 1 + disk->block) / disk->block * disk->block;

        direct = direct && disk_read(disk->direct, data, first, count) == 0 &&
                 disk_matching(disk, data, first, count) == count;
    }
    report_detail("something else is on the disk");
    check(direct, "are on the disk, and their neighbours as before");
    if (ioctl(disk->buffered, BLKFLSBUF)) {
        check(false, "forget what is cached");
    }
    for (unsigned first = 0; cached && first < 65536 && first < disk->sectors; first += 1024) {
        cached = disk_read(disk->buffered, data + 1, first, 1024) == 0 &&
                 disk_matching(disk, data + 1, first, 1024) == 1024;
    }
    report_detail("something else is read");
    check(cached, "reads through the page cache, with read-ahead");
    memory_put(data, DISK_TRANSFER_MAX + PAGE);
}

static unsigned long queue_limit(const char *name)
{
    char path[96], value[32] = "0";

    snprintf(path, sizeof(path), "/sys/block/nvme0n1/queue/%s", name);
    init_read_file(path, value, sizeof(value));
    return strtoul(value, NULL, 10);
}

static bool range_ioctl(const struct disk *disk, unsigned long request, unsigned first,
                        unsigned count)
{
    uint64_t range[2] = {(uint64_t)first * SECTOR, (uint64_t)count * SECTOR};

    return ioctl(disk->direct, request, range) == 0;
}

static bool range_matches(const struct disk *disk, uint8_t *data, unsigned first, unsigned count)
{
    return disk_read(disk->direct, data, first, count) == 0 &&
           disk_matching(disk, data, first, count) == count;
}

static void check_zeroes(struct disk *disk, uint8_t *data)
{
    static const struct {
        unsigned first, count;
    } parts[] = {{512, 8}, {1024, 1000}, {40960, 8192}};
    unsigned long limit = queue_limit("write_zeroes_max_bytes");
    bool ok = true;

    for (unsigned i = 0; ok && i < sizeof(parts) / sizeof(parts[0]); i++) {
        unsigned first = parts[i].first, count = parts[i].count;

        ok = range_ioctl(disk, BLKZEROOUT, first, count);
        disk_mark(disk, first, count, MARK_ZEROS);
        for (unsigned at = first - 8; ok && at < first + count + 8; at += 1024) {
            ok = range_matches(disk, data, at, 1024);
        }
        report_detail("the range from sector %u", first);
    }
    check(ok, "zeroes by %s: there, and nowhere else",
          limit ? "the command Write Zeroes" : "writes: the disk has no Write Zeroes");
}

/* What was discarded may be anything old, or zeros: then it is written again. */
static void check_discard(struct disk *disk, uint8_t *data)
{
    const unsigned first = 2048, count = 2048;
    unsigned old = 0, zeros = 0;

    if (!queue_limit("discard_max_bytes")) {
        note("guest: the disk does not discard");
        return;
    }
    if (!check(range_ioctl(disk, BLKDISCARD, first, count) &&
               disk_read(disk->direct, data, first, count) == 0, "discard")) {
        return;
    }
    for (unsigned i = 0; i < count; i++) {
        static const uint8_t nothing[SECTOR];

        old += disk_matching(disk, data + (size_t)i * SECTOR, first + i, 1);
        zeros += memcmp(data + (size_t)i * SECTOR, nothing, SECTOR) == 0;
    }
    report_detail("%u sectors are as before, %u zeros, of %u", old, zeros, count);
    check(old + zeros == count, "what was discarded is zeros (%u) or as before (%u)", zeros, old);
    disk_mark(disk, first, count, zeros == count ? MARK_ZEROS : MARK_UNKNOWN);
    check(range_matches(disk, data, first - 64, 64) &&
          range_matches(disk, data, first + count, 64), "and its neighbours are as before");
}

static void check_status(int status, int wanted, const char *what)
{
    report_detail("the status is 0x%x, 0x%x wanted", status, wanted);
    check(status == wanted, "%s: status 0x%03x", what, wanted);
}

static void text(char *to, const uint8_t *from, unsigned size)
{
    memcpy(to, from, size);
    to[size] = '\0';
    for (unsigned i = size; i > 0 && to[i - 1] == ' '; i--) {
        to[i - 1] = '\0';
    }
}

static void check_identify(struct disk *disk, uint8_t *data)
{
    struct disk_command c = {.opcode = ADMIN_IDENTIFY, .cdw10 = IDENTIFY_CONTROLLER, .data = data,
                             .size = PAGE};
    char serial[21], model[41];
    uint64_t blocks;

    check_status(disk_admin(disk, &c), 0, "identify controller");
    text(serial, data + 4, 20);
    text(model, data + 24, 40);
    note("guest: controller \"%s\", serial \"%s\", transfers up to %u KiB", model, serial,
         data[77] ? 4u << data[77] : 0);
    c.cdw10 = IDENTIFY_NAMESPACE;
    c.nsid = 1;
    check_status(disk_admin(disk, &c), 0, "identify namespace");
    memcpy(&blocks, data, sizeof(blocks));
    report_detail("%llu blocks", (unsigned long long)blocks);
    check(blocks * disk->block == disk->sectors, "the namespace is as large as the disk");
    memset(data, 0, PAGE);
    c = (struct disk_command){.opcode = ADMIN_LOG_PAGE, .nsid = EVERY_NAMESPACE, .data = data,
                              .size = 512, .cdw10 = 2 | 127u << 16};
    check_status(disk_admin(disk, &c), 0, "log page SMART");
    report_detail("critical warning 0x%x", data[0]);
    check(data[0] == 0, "SMART: no critical warning");
    memcpy(&blocks, data + 48, sizeof(blocks));
    report_detail("%llu units", (unsigned long long)blocks);
    check(blocks > 0, "SMART: it knows that it was written: %llu units",
          (unsigned long long)blocks);
}

/* Commands that end with an error say which. */
static void check_refusals(struct disk *disk, uint8_t *data)
{
    struct disk_command unknown = {.opcode = ADMIN_UNKNOWN};
    struct disk_command io_unknown = {.opcode = IO_UNKNOWN, .nsid = 1};
    struct disk_command namespace = {.opcode = ADMIN_IDENTIFY, .nsid = 0xfffffffe, .data = data,
                                     .size = PAGE};
    struct disk_command field = {.opcode = ADMIN_IDENTIFY, .cdw10 = 0xee, .data = data,
                                 .size = PAGE};
    struct disk_command log_page = {.opcode = ADMIN_LOG_PAGE, .cdw10 = 0xbe | 127u << 16,
                                    .data = data, .size = 512};
    struct disk_command queue = {.opcode = ADMIN_DELETE_QUEUE, .cdw10 = 999};
    struct disk_command feature = {.opcode = ADMIN_GET_FEATURES, .cdw10 = 0x77};
    uint64_t end = disk->sectors / disk->block;
    struct disk_command beyond = {.opcode = IO_READ, .nsid = 1, .cdw10 = (uint32_t)end,
                                  .cdw11 = (uint32_t)(end >> 32), .data = data,
                                  .size = disk->block * SECTOR};
    struct disk_command over = beyond;
    int status;

    check_status(disk_admin(disk, &unknown), STATUS_INVALID_OPCODE, "an unknown admin command");
    check_status(disk_io(disk, &io_unknown), STATUS_INVALID_OPCODE, "an unknown I/O command");
    check_status(disk_admin(disk, &namespace), STATUS_INVALID_NAMESPACE,
                 "identify a namespace that is not there");
    check_status(disk_admin(disk, &field), STATUS_INVALID_FIELD, "identify something unknown");
    status = disk_admin(disk, &log_page);
    check_status(status, status == STATUS_INVALID_FIELD ? status : STATUS_INVALID_LOG_PAGE,
                 "an unknown log page");
    check_status(disk_admin(disk, &queue), STATUS_INVALID_QUEUE,
                 "delete a queue that is not there");
    check_status(disk_admin(disk, &feature), STATUS_INVALID_FIELD, "an unknown feature");
    check_status(disk_io(disk, &beyond), STATUS_OUT_OF_RANGE, "read past the end");
    over.cdw10 = (uint32_t)end - 1;
    over.cdw12 = 1;
    over.size *= 2;
    check_status(disk_io(disk, &over), STATUS_OUT_OF_RANGE, "read over the end");
}

static void check_resets(struct disk *disk, uint8_t *data)
{
    bool ok = true;

    for (unsigned i = 0; ok && i < RESETS; i++) {
        int error = disk_reset(disk);

        ok = !error && range_matches(disk, data, i * 4096, 1024);
        report_detail("%s", error ? strerror(-error) : "something else is read");
    }
    check(ok, "the controller is reset %u times, all queues made anew", RESETS);
}

static void check_disk_log(void)
{
    static const char *const complaints[] = {
        "I/O error", "nvme nvme0: I/O", "nvme nvme0: Abort", "nvme nvme0: Removing",
        "nvme nvme0: controller is down", "Buffer I/O",
    };
    const char *line = NULL;

    kmsg_show("default/read/poll queues");
    for (unsigned i = 0; i < sizeof(complaints) / sizeof(complaints[0]) && !line; i++) {
        line = kmsg_find(complaints[i]);
    }
    report_detail("%s", line);
    check(!line, "no complaint of the disk's driver in the log");
}

void check_disk(struct disk *disk, const struct disk_plan *plan)
{
    uint8_t *data = memory_get(DISK_TRANSFER_MAX, PAGE);
    struct load load;
    bool ok;

    if (!data) {
        check(false, "memory");
        return;
    }
    check_disk_whole(disk, plan, "first");
    check_disk_whole(disk, plan, "again");
    check_buffered(disk);
    check_zeroes(disk, data);
    check_discard(disk, data);
    check_identify(disk, data);
    check_disk_log();
    check_refusals(disk, data);
    check_resets(disk, data);
    check_disk_neighbour(plan, "beside it");
    ok = load_run(disk, LOAD_READ, plan->threads, &load);
    check(ok, "after all of that everything is where it should be, %u calls", load.done);
    check(fsync(disk->direct) == 0, "flush");
    memory_put(data, DISK_TRANSFER_MAX);
}
