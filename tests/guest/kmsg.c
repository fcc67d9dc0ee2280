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
 *
 * Calls are fewer where one interrupt finds two faults, so a line may come where none was waited
 * for, and after the interrupt that was.  Whoever was content with an interrupt, or less, is *owed*
 * a line: one that comes later is no stray.
 */
#include "kmsg.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
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
    LINES_BEFORE = 40,
    LINES_AFTER = 20,
    MAX_OWED = 256,
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

struct owed {
    struct kmsg_fault fault;
    unsigned lines; /* how many may come */
};

static struct owed owed[MAX_OWED];
static unsigned owed_count;

static bool wait_for_all;
static unsigned window_faults;
static uint64_t window_start_ms;    /* the driver's window began then or later; 0: never */
static uint64_t window_seen_ms;     /* then or earlier */

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

void kmsg_show_around(const char *text)
{
    unsigned at = 0, end;

    read_log();
    while (at < line_count && !strstr(lines[at].text, text)) {
        at++;
    }
    end = at < line_count ? at + LINES_AFTER : at;
    for (unsigned i = at > LINES_BEFORE ? at - LINES_BEFORE : 0; i < end && i < line_count; i++) {
        note("log: %s", lines[i].text);
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
    uint64_t now = now_ms();
    uint64_t over = window_start_ms ? window_seen_ms + WINDOW_OVER_MS : now;

    if (now < over && (now - window_start_ms >= WINDOW_NEARLY_OVER_MS ||
                       (full && window_faults >= driver->faults_a_window))) {
        usleep((useconds_t)(over - now) * 1000);
        now = over;
    }
    if (now >= over) {
        window_start_ms = window_seen_ms = now_ms();
        window_faults = 0;
    }
}

/* Faults have been handled; they may have begun the window, or another where that was over. */
static void in_window(bool first)
{
    if (first || now_ms() - window_start_ms >= WINDOW_NEARLY_OVER_MS) {
        window_seen_ms = now_ms();
    }
}

/* Claim the first line that tells of this fault, and print it where that is asked for. */
static bool claim(const struct kmsg_fault *expected, bool show)
{
    read_log();
    for (unsigned i = 0; i < line_count; i++) {
        struct line *l = &lines[i];

        if (l->is_fault && !l->claimed && same_fault(&l->fault, expected)) {
            l->claimed = true;
            if (show) {
                note("log: %s", l->text);
            }
            return true;
        }
    }
    return false;
}

static void owe(const struct kmsg_fault *fault, unsigned most)
{
    if (owed_count < MAX_OWED) {
        owed[owed_count++] = (struct owed){*fault, most};
    }
}

/* Takes one of the lines that are owed, if this is one. */
static bool is_owed(const struct kmsg_fault *fault)
{
    for (unsigned i = 0; i < owed_count; i++) {
        if (owed[i].lines && same_fault(fault, &owed[i].fault)) {
            owed[i].lines--;
            return true;
        }
    }
    return false;
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
    uint64_t end = now_ms() + INTERRUPT_TIMEOUT_MS;
    bool told;

    while (!(told = fault_interrupts() > wait->interrupts) && now_ms() < end) {
        usleep(1000);
    }
    usleep(STORM_SETTLES_MS * 1000);
    while (claim(expected, false)) {
    }
    owe(expected, UINT_MAX);
    in_window(true);
    return told;
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

static bool wait_told(const struct kmsg_wait *wait, const struct kmsg_fault *expected)
{
    uint64_t end = now_ms() + (wait->line ? LINE_TIMEOUT_MS : INTERRUPT_TIMEOUT_MS);

    do {
        /* A line that the rate limit might let through all the same is claimed too. */
        if (claim(expected, true)) {
            return true;
        }
        if (!wait->line && fault_interrupts() > wait->interrupts) {
            owe(expected, 1);
            return true;
        }
        usleep(1000);
    } while (now_ms() < end);
    owe(expected, 1);
    return false;
}

bool kmsg_wait_fault(const struct kmsg_wait *wait, const struct kmsg_fault *expected)
{
    bool told = wait_told(wait, expected);

    in_window(window_faults == 1);
    if (!told) {
        report_detail("no %s for a %s of device %02x:%02x.%x, address 0x%llx, reason 0x%02x",
                      wait->line ? "line" : "interrupt", expected->write ? "write" : "read",
                      expected->source >> 8, expected->source >> 3 & 31, expected->source & 7,
                      (unsigned long long)expected->addr, expected->reason);
    }
    return told;
}

unsigned kmsg_strays(void)
{
    unsigned n = 0;

    read_log();
    for (unsigned i = 0; i < line_count; i++) {
        if (!lines[i].is_fault || lines[i].claimed) {
            continue;
        }
        lines[i].claimed = is_owed(&lines[i].fault); /* once; this may be asked again */
        if (!lines[i].claimed) {
            note("stray: %s", lines[i].text);
            n++;
        }
    }
    return n;
}
