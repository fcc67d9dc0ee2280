/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The tracing backend: a subscriber that writes a line for each call, and hands it on or answers.
 *
 * A line is put together in a buffer and given to the kernel in one write, so that lines of
 * several processes that append to one file do not mix. It is written when the call has been
 * answered. A line that could not be written is lost, and the error remembered; where only its
 * beginning came through, the next one starts with a line break, so that one line only is bad.
 *
 * Locking: none. A trace serves one subscription, whose calls come one at a time.
 */
#include <viommu/trace.h>

#include "base/alloc.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 512

struct viommu_trace {
    int fd;
    bool forwards;                   /* `next` is there */
    struct viommu_subscription next; /* whom changes are handed to */
    struct viommu_subscription what; /* what is subscribed to */
    struct viommu_range *allowed;    /* a copy: what `what` points to */
    uint64_t index;                  /* of the last line */
    int error;                       /* of the last write that failed */
    bool torn;                       /* the last line written ends in the middle */
};

/* A line in the making. */
struct line {
    char text[LINE_MAX_BYTES]; /* the first byte is a line break, for use after a torn line */
    size_t length;
};

static uint64_t now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

__attribute__((format(printf, 2, 3)))
static void add(struct line *line, const char *format, ...)
{
    size_t room = sizeof(line->text) - line->length;
    va_list arguments;
    int length;

    va_start(arguments, format);
    length = vsnprintf(line->text + line->length, room, format, arguments);
    va_end(arguments);
    /* The longest line has some 300 bytes. */
    if (length > 0) {
        line->length += (size_t)length < room ? (size_t)length : room - 1;
    }
}

static void write_line(struct viommu_trace *trace, const struct line *line)
{
    size_t from = trace->torn ? 0 : 1;
    size_t done = from;

    while (done < line->length) {
        ssize_t written = write(trace->fd, line->text + done, line->length - done);

        if (written > 0) {
            done += (size_t)written;
        } else if (written == 0 || errno != EINTR) {
            trace->error = written == 0 ? -EIO : -errno;
            /* With the line break alone the line before is ended, and this one not begun. */
            trace->torn = done > 1 || (done == 0 && trace->torn);
            return;
        }
    }
    trace->torn = false;
}

static const char *call_word(enum viommu_change_kind kind)
{
    switch (kind) {
    case VIOMMU_CHANGE_MAP:
        return "map";
    case VIOMMU_CHANGE_UNMAP:
        return "unmap";
    case VIOMMU_CHANGE_DEVICE_TLB:
        return "device-tlb";
    case VIOMMU_CHANGE_REPLACE:
        return "replace";
    case VIOMMU_CHANGE_SKIPPED:
        return "skipped";
    }
    return "unknown";
}

static const char *cause_word(enum viommu_cause cause)
{
    static const char *const words[VIOMMU_CAUSES] = {
        [VIOMMU_CAUSE_PAGES] = "pages",     [VIOMMU_CAUSE_DOMAIN] = "domain",
        [VIOMMU_CAUSE_GLOBAL] = "global",   [VIOMMU_CAUSE_CONTEXT] = "context",
        [VIOMMU_CAUSE_MEMORY] = "memory",   [VIOMMU_CAUSE_REPLAY] = "replay",
        [VIOMMU_CAUSE_RETRY] = "retry",
    };

    return (unsigned)cause < VIOMMU_CAUSES ? words[cause] : "unknown";
}

static const char *perm_word(uint32_t perm)
{
    static const char *const words[] = {"none", "r", "w", "rw"};

    return words[perm & (VIOMMU_READ | VIOMMU_WRITE)];
}

static void begin_line(struct viommu_trace *trace, struct line *line, uint64_t time,
                       const char *call)
{
    line->text[0] = '\n';
    line->length = 1;
    add(line, "{\"index\":%" PRIu64 ",\"time\":%" PRIu64 ",\"call\":\"%s\"", ++trace->index, time,
        call);
}

static void end_line(struct viommu_trace *trace, struct line *line, int answer, uint64_t took)
{
    if (answer == VIOMMU_PENDING) {
        add(line, ",\"answer\":\"pending\"");
    } else {
        add(line, ",\"answer\":%d", answer);
    }
    add(line, ",\"took\":%" PRIu64 "}\n", took);
    write_line(trace, line);
}

/* What a change says; of a mirror's, where to, how and why. */
static void add_change(struct line *line, const struct viommu_change *change, bool mirror)
{
    add(line, ",\"requester\":\"%02x:%02x.%x\"", change->requester >> 8,
        change->requester >> 3 & 0x1f, change->requester & 7);
    add(line, ",\"first\":\"0x%" PRIx64 "\",\"last\":\"0x%" PRIx64 "\"", change->first,
        change->last);
    if (mirror && change->kind != VIOMMU_CHANGE_DEVICE_TLB) {
        if (change->kind == VIOMMU_CHANGE_UNMAP || change->perm) {
            add(line, ",\"gpa\":\"0x%" PRIx64 "\"", change->gpa);
        }
        if (change->kind != VIOMMU_CHANGE_UNMAP) {
            add(line, ",\"perm\":\"%s\"", perm_word(change->perm));
        }
        add(line, ",\"cause\":\"%s\"", cause_word(change->cause));
    }
    add(line, ",\"token\":%" PRIu64, change->token);
}

/* Hands a change on, unless it is one that only the trace asked for. */
static int answer(const struct viommu_trace *trace, const struct viommu_change *change)
{
    if (!trace->forwards || !(trace->next.kinds & (uint32_t)change->kind)) {
        return 0;
    }
    return trace->next.change(trace->next.opaque, change);
}

static int on_change(void *opaque, const struct viommu_change *change)
{
    struct viommu_trace *trace = opaque;
    uint64_t start = now();
    int ret = answer(trace, change);
    uint64_t end = now();
    struct line line;

    begin_line(trace, &line, start, call_word(change->kind));
    add_change(&line, change, trace->what.role == VIOMMU_ROLE_MIRROR);
    end_line(trace, &line, ret, end - start);
    return ret;
}

static int on_fence(void *opaque)
{
    struct viommu_trace *trace = opaque;
    uint64_t start = now();
    int ret = trace->forwards ? trace->next.fence(trace->next.opaque) : 0;
    uint64_t end = now();
    struct line line;

    begin_line(trace, &line, start, "fence");
    end_line(trace, &line, ret, end - start);
    return ret;
}

static bool is_usable(const struct viommu_trace_config *config)
{
    const struct viommu_subscription *what = config->next ? config->next : &config->what;

    if (config->fd < 0 || (what->allowed_count && !what->allowed)) {
        return false;
    }
    return !config->next ||
           (what->change && (what->role != VIOMMU_ROLE_MIRROR || what->fence));
}

int viommu_trace_create(const struct viommu_trace_config *config, struct viommu_trace **out)
{
    struct viommu_trace *trace;

    if (!config || !out || !is_usable(config)) {
        return -EINVAL;
    }
    trace = base_alloc(sizeof(*trace));
    if (!trace) {
        return -ENOMEM;
    }
    trace->fd = config->fd;
    trace->forwards = config->next != NULL;
    trace->what = config->next ? *config->next : config->what;
    trace->next = trace->what;
    trace->what.change = on_change;
    trace->what.opaque = trace;
    trace->what.fence = NULL;
    if (trace->what.role == VIOMMU_ROLE_MIRROR) {
        trace->what.fence = on_fence;
        trace->what.kinds |= config->skips ? VIOMMU_CHANGE_SKIPPED : 0u;
    }
    if (trace->what.allowed) {
        size_t count = trace->what.allowed_count;

        trace->allowed = base_alloc_array(count, sizeof(*trace->allowed));
        if (!trace->allowed) {
            base_free(trace);
            return -ENOMEM;
        }
        memcpy(trace->allowed, trace->what.allowed, count * sizeof(*trace->allowed));
        trace->what.allowed = trace->allowed;
    }
    *out = trace;
    return 0;
}

int viommu_trace_destroy(struct viommu_trace *trace)
{
    int ret;

    if (!trace) {
        return 0;
    }
    ret = trace->error;
    base_free(trace->allowed);
    base_free(trace);
    return ret;
}

void viommu_trace_subscription(struct viommu_trace *trace, struct viommu_subscription *out)
{
    *out = trace->what;
}
