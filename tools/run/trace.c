/* SPDX-License-Identifier: BSD-2-Clause */
/* See trace.h. */
#include "trace.h"

#include "../tools.h"
#include "../trace/replay.h"
#include "../trace/writer.h"
#include "virtio.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <string.h>

void trace_begin(struct run *run, struct unit *unit)
{
    int error;

    if (!run->trace_file) {
        return;
    }
    error = unit->virtio ? trace_writer_open_virtio(run->trace_file, unit->iommu,
                                                    virtio_unit_config(unit), &unit->tracer)
                         : trace_writer_open(run->trace_file, unit->iommu, &unit->vtd,
                                             &unit->tracer);
    if (error) {
        run_error(run, run->trace_file, "cannot trace into it: %s", trace_writer_error(error));
    }
    run->trace_file = NULL; /* no other unit */
}

void trace_end(struct run *run, struct unit *unit)
{
    int error = unit->tracer ? trace_writer_close(unit->tracer) : 0;

    unit->tracer = NULL;
    if (error) {
        run_error(run, NULL, "the trace is not complete: %s", strerror(-error));
    }
}

void traces_end_virtio(struct run *run)
{
    for (struct unit *unit = run->units; unit; unit = unit->next) {
        if (unit->virtio) {
            trace_end(run, unit);
        }
    }
}

static void print_verdict(const char *name, bool json, bool is_virtio, enum replay_verdict verdict,
                          const struct replay_counts *counts)
{
    if (json) {
        json_t *object = json_pack("{s:s, s:b, s:I, s:I, s:I, s:I, s:I}", "trace", name, "passed",
                                   verdict == REPLAY_SAME, "writes", (json_int_t)counts->writes,
                                   "commands", (json_int_t)counts->commands, "descriptors",
                                   (json_int_t)counts->descriptors, "retired",
                                   (json_int_t)counts->retired, "requests",
                                   (json_int_t)counts->requests);

        json_dumpf(object, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(object);
        return;
    }
    if (is_virtio) {
        printf("%s: %" PRIu64 " writes, %" PRIu64 " requests: %s\n", name, counts->writes,
               counts->requests, verdict == REPLAY_SAME ? "as traced" : "differs");
        return;
    }
    printf("%s: %" PRIu64 " writes, %" PRIu64 " commands, %" PRIu64 " descriptors, %" PRIu64
           " retired: %s\n",
           name, counts->writes, counts->commands, counts->descriptors, counts->retired,
           verdict == REPLAY_SAME ? "as traced" : "differs");
}

static void complain(const char *name, const struct trace_error *error)
{
    if (error->line) {
        fprintf(stderr, "%s:%u: %s\n", name, error->line, error->text);
    } else {
        fprintf(stderr, "%s: %s\n", name, error->text);
    }
}

static int play_trace(FILE *file, const char *name, bool quiet, bool json)
{
    struct trace trace;
    struct trace_error error = {0};
    struct replay_counts counts;
    enum replay_verdict verdict;
    bool is_virtio;

    if (!trace_read(file, &trace, &error)) {
        complain(name, &error);
        return TOOL_USAGE;
    }
    verdict = trace_replay(&trace, quiet || json ? NULL : stdout, &counts, &error);
    is_virtio = trace.is_virtio;
    trace_drop(&trace);
    if (verdict != REPLAY_FAILED && (!quiet || verdict == REPLAY_DIFFERS)) {
        print_verdict(name, json, is_virtio, verdict, &counts);
    }
    if (verdict != REPLAY_SAME) {
        fflush(stdout);
        complain(name, &error);
    }
    return verdict == REPLAY_SAME ? TOOL_OK : verdict == REPLAY_DIFFERS ? TOOL_FAILED : TOOL_USAGE;
}

int trace_play(const char *name, bool quiet, bool json)
{
    FILE *file = strcmp(name, "-") ? fopen(name, "r") : stdin;
    int status;

    if (!file) {
        fprintf(stderr, "viommu run: %s: %s\n", name, strerror(errno));
        return TOOL_USAGE;
    }
    status = play_trace(file, strcmp(name, "-") ? name : "standard input", quiet, json);
    if (file != stdin) {
        fclose(file);
    }
    return status;
}
