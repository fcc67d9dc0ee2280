/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * kmsg.c - the guest kernel's own log.  See kmsg.h.
 *
 * Data structure: all lines read so far, in order, in lines[]; beside each the fault that it tells
 * of, if any, and whether a check has claimed it.  A read of /dev/kmsg gives one record:
 * "priority,sequence,time,flags;text\n", then lines that begin with a space, which are dropped.
 *
 * The drivers' rate limit: ten calls in a window of five seconds that starts with the first.  With
 * VT-d one fault makes three calls: one for the status, one for each record, one for the record
 * after the last.  So three faults fit; with a virtio-iommu a fault is one call, and ten fit.  A
 * fault near the end of a window waits until it is surely over.
 */
#include "kmsg.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "report.h"

enum {
    MAX_LINES = 8192,
    WINDOW_NEARLY_OVER_MS = 4500,
    WINDOW_OVER_MS = 5500,
    LINE_TIMEOUT_MS = 5000,
    INTERRUPT_TIMEOUT_MS = 1000,
    STORM_SETTLES_MS = 50,
    SEGMENT = 5, /* characters: "0000:" */
};

struct line {
    char *text;
    bool is_fault;
    bool claimed;
    struct kmsg_fault fault;
};

static int fd = -1;
static struct line lines[MAX_LINES];
static unsigned line_count;

static bool wait_for_all;
static unsigned window_faults;
static uint64_t window_start_ms;

static uint64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* What a driver of IOMMUs says, and how. */
struct driver {
    const char *interrupt;      /* in the row of its fault interrupt in /proc/interrupts */
    unsigned faults_a_window;
    unsigned reason_width;
    bool (*parse)(const char *text, struct kmsg_fault *fault);
};

static bool parse_vtd(const char *text, struct kmsg_fault *fault)
{
    unsigned bus, dev, fn, reason;
    unsigned long long addr;
    char kind[8];
    int length = 0;
    const char *p = strstr(text, "[DMA ");

    if (!p || sscanf(p, "[DMA %7s", kind) != 1) {
        return false;
    }
    p = strstr(p, "Request device [");
    if (!p) {
        return false;
    }
    p += strlen("Request device [");
    sscanf(p, "%*4x:%*2x:%n", &length); /* newer kernels say the segment first */
    if (sscanf(p + (length ? SEGMENT : 0), "%x:%x.%x] fault addr 0x%llx [fault reason 0x%x", &bus,
               &dev, &fn, &addr, &reason) != 5) {
        return false;
    }
    fault->write = kind[0] == 'W';
    fault->source = bus << 8 | dev << 3 | fn;
    fault->addr = addr;
    fault->ignored = 0;
    fault->undirected = false;
    fault->reason = reason;
    return true;
}

static bool parse_virtio(const char *text, struct kmsg_fault *fault)
{
    const char *p = strstr(text, " fault from EP ");
    unsigned long long addr = 0;
    char kind[8] = "";
    unsigned endpoint;

    if (!p || sscanf(p, " fault from EP %u at 0x%llx [%7[RWX]]", &endpoint, &addr, kind) < 2) {
        return false;
    }
    fault->write = strchr(kind, 'W') != NULL;
    fault->source = endpoint;
    fault->addr = addr & ~0xfffull;
    fault->ignored = 0;
    fault->reason = fault->write ? FAULT_REASON_WRITE : FAULT_REASON_READ;
    if (!strstr(text, ": page fault")) {
        fault->reason = FAULT_REASON_OTHER;
    }
    /* QEMU's does not tell the direction where nothing is mapped. */
    fault->undirected = !kind[0];
    return true;
}

static const struct driver vtd = {" dmar0", 3, FAULT_REASON_WIDTH, parse_vtd};
/* An address beyond the width is one that is not mapped. */
static const struct driver virtio = {" virtio0", 10, FAULT_REASON_WRITE, parse_virtio};
static const struct driver *driver = &vtd;

static void add_line(const char *text)
{
    struct line *l = &lines[line_count];

    if (line_count == MAX_LINES) {
        return;
    }
    l->text = strdup(text);
    if (!l->text) {
        return;
    }
    l->is_fault = driver->parse(text, &l->fault);
    line_count++;
}

/* Take in what is new. */
static void read_log(void)
{
    char record[2048];

    for (;;) {
        ssize_t n = read(fd, record, sizeof(record) - 1);
        char *text, *end;

        if (n < 0 && (errno == EPIPE || errno == EINTR)) {
            continue;   /* EPIPE: the oldest records were overwritten, reading goes on after them */
        }
        if (n <= 0) {
            return;
        }
        record[n] = '\0';
        text = strchr(record, ';');
        if (!text) {
            continue;
        }
        end = strchr(++text, '\n');
        if (end) {
            *end = '\0';
        }
        add_line(text);
    }
}

int kmsg_open(bool all, bool virtio_iommu)
{
    wait_for_all = all;
    driver = virtio_iommu ? &virtio : &vtd;
    fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    read_log();
    return 0;
}

unsigned kmsg_reason_width(void)
{
    return driver->reason_width;
}

const char *kmsg_find(const char *text)
{
    read_log();
    for (unsigned i = 0; i < line_count; i++) {
        if (strstr(lines[i].text, text)) {
            return lines[i].text;
        }
    }
    return NULL;
}

void kmsg_show(const char *text)
{
    read_log();
    for (unsigned i = 0; i < line_count; i++) {
        if (strstr(lines[i].text, text)) {
            note("log: %s", lines[i].text);
        }
    }
}

void kmsg_show_last(unsigned count)
{
    read_log();
    for (unsigned i = line_count > count ? line_count - count : 0; i < line_count; i++) {
        note("log: %s", lines[i].text);
    }
}

/* Fault interrupts of the first unit, over all CPUs. */
static unsigned long fault_interrupts(void)
{
    FILE *f = fopen("/proc/interrupts", "re");
    unsigned long total = 0;
    char row[1024];

    while (f && fgets(row, sizeof(row), f)) {
        char *p = strchr(row, ':');

        if (!p || !strstr(row, driver->interrupt)) {
            continue;
        }
        for (p++;;) {
            char *end;
            unsigned long n = strtoul(p, &end, 10);

            if (end == p || !isspace((unsigned char)*end)) {
                break;
            }
            total += n;
            p = end;
        }
    }
    if (f) {
        fclose(f);
    }
    return total;
}

/* Is fault a what b expects? */
static bool same_fault(const struct kmsg_fault *a, const struct kmsg_fault *b)
{
    return (a->undirected || (a->write == b->write && a->reason == b->reason)) &&
           a->source == b->source && ((a->addr ^ b->addr) & ~b->ignored) == 0;
}

/* Begin a new window, or stay in the one that is; `full`: do not stay in one that is used up. */
static void enter_window(bool full)
{
    uint64_t age = now_ms() - window_start_ms;

    if (age < WINDOW_OVER_MS && window_start_ms != 0 &&
        (age >= WINDOW_NEARLY_OVER_MS || (full && window_faults >= driver->faults_a_window))) {
        usleep((useconds_t)(WINDOW_OVER_MS - age) * 1000);
        age = WINDOW_OVER_MS;
    }
    if (age >= WINDOW_OVER_MS || window_start_ms == 0) {
        window_start_ms = now_ms();
        window_faults = 0;
    }
}

void kmsg_before_storm(struct kmsg_wait *wait)
{
    enter_window(false);
    window_faults = driver->faults_a_window;
    wait->line = false;
    wait->interrupts = fault_interrupts();
}

bool kmsg_after_storm(const struct kmsg_wait *wait, const struct kmsg_fault *expected)
{
    usleep(STORM_SETTLES_MS * 1000);
    read_log();
    for (unsigned i = 0; i < line_count; i++) {
        if (lines[i].is_fault && same_fault(&lines[i].fault, expected)) {
            lines[i].claimed = true;
        }
    }
    return fault_interrupts() > wait->interrupts;
}

void kmsg_before_fault(struct kmsg_wait *wait)
{
    enter_window(wait_for_all);
    read_log();
    wait->line = window_faults++ < driver->faults_a_window;
    wait->interrupts = fault_interrupts();
}

const char *kmsg_told(const struct kmsg_wait *wait)
{
    return wait->line ? "the guest's log tells it" : "the guest gets the fault interrupt";
}

/* Claim the first line that tells of this fault. */
static bool claim(const struct kmsg_fault *expected)
{
    read_log();
    for (unsigned i = 0; i < line_count; i++) {
        struct line *l = &lines[i];

        if (l->is_fault && !l->claimed && same_fault(&l->fault, expected)) {
            l->claimed = true;
            note("log: %s", l->text);
            return true;
        }
    }
    return false;
}

/* One look; a line that the rate limit might let through all the same is claimed too. */
static bool seen(const struct kmsg_wait *wait, const struct kmsg_fault *expected)
{
    bool line = claim(expected);

    return line || (!wait->line && fault_interrupts() > wait->interrupts);
}

bool kmsg_wait_fault(const struct kmsg_wait *wait, const struct kmsg_fault *expected)
{
    uint64_t end = now_ms() + (wait->line ? LINE_TIMEOUT_MS : INTERRUPT_TIMEOUT_MS);

    do {
        if (seen(wait, expected)) {
            return true;
        }
        usleep(1000);
    } while (now_ms() < end);
    report_detail("no %s for a %s of device %02x:%02x.%x, address 0x%llx, reason 0x%02x",
                  wait->line ? "line" : "interrupt", expected->write ? "write" : "read",
                  expected->source >> 8, expected->source >> 3 & 31, expected->source & 7,
                  (unsigned long long)expected->addr, expected->reason);
    return false;
}

unsigned kmsg_strays(void)
{
    unsigned n = 0;

    read_log();
    for (unsigned i = 0; i < line_count; i++) {
        if (lines[i].is_fault && !lines[i].claimed) {
            note("stray: %s", lines[i].text);
            n++;
        }
    }
    return n;
}
