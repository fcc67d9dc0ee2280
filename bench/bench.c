/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * bench - how fast the library is, against the way it is commonly done.
 *
 * Each row has a process of its own: what a row leaves behind in the allocators, and where the next
 * one's memory comes to lie because of it, would make figures depend on which rows ran before.
 *
 * Exit status: 0, whatever the figures are; 1 when something failed or gave a wrong result; 2 for a
 * wrong command line.
 */
#include "bench.h"
#include "report.h"

#include <argp.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUNDS 21
#define ROUND_NS 10000000
#define QUICK_ROUNDS 2
#define QUICK_ROUND_NS 200000

static const struct row_list *const lists[] = {
    &translate_rows, &threads_rows,    &walk_rows,
    &section_rows,   &invalidate_rows, &disturbed_rows,
    &range_rows,     &sync_rows,       &sync_page_rows,
    &sync_first_rows, &watch_rows,     &virtio_rows,
    &virtio_translate_rows, &pv_rows, &space_rows, &vfio_user_rows,
    &iova_rows,
#ifdef BENCH_SERVER
    &virtio_queue_rows,
#endif
};
#define LIST_COUNT (sizeof(lists) / sizeof(lists[0]))

struct arguments {
    bool list;
    bool json;
    struct measure_options measure;
    char **patterns;
    unsigned pattern_count;
};

const char *argp_program_version = "bench (viommu " VIOMMU_VERSION ")";

static const struct argp_option options[] = {
    {"list", 'l', NULL, 0, "List the rows and stop", 0},
    {"quick", 'q', NULL, 0, "Run each row for a moment: shows that it works, not how fast", 0},
    {"json", 'j', NULL, 0, "Print JSON", 0},
    {"rounds", 'r', "N", 0, "Rounds of each row, 1 to 32 (21)", 0},
    {"time", 't', "MS", 0, "Milliseconds that a side runs in a round, 1 to 10000 (10)", 0},
    {0},
};

static unsigned long number(struct argp_state *state, const char *text, unsigned long last)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);

    if (*end || value < 1 || value > last) {
        argp_error(state, "not a number from 1 to %lu: %s", last, text);
    }
    return value;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *arguments = state->input;

    switch (key) {
    case 'l':
        arguments->list = true;
        return 0;
    case 'q':
        arguments->measure =
            (struct measure_options){true, QUICK_ROUNDS, QUICK_ROUND_NS};
        return 0;
    case 'j':
        arguments->json = true;
        return 0;
    case 'r':
        arguments->measure.rounds = (unsigned)number(state, arg, BENCH_ROUNDS_MAX);
        return 0;
    case 't':
        arguments->measure.round_ns = number(state, arg, 10000) * 1000000;
        return 0;
    case ARGP_KEY_ARGS:
        arguments->patterns = state->argv + state->next;
        arguments->pattern_count = (unsigned)(state->argc - state->next);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    .options = options,
    .parser = parse,
    .args_doc = "[ROW...]",
    .doc = "Measures libviommu against baselines in the same run.\v"
           "ROW is a name or a shell pattern; without one, every row is measured.",
};

static bool matches(const struct row *row, const struct arguments *arguments)
{
    for (unsigned i = 0; i < arguments->pattern_count; i++) {
        if (!fnmatch(arguments->patterns[i], row->name, 0)) {
            return true;
        }
    }
    return !arguments->pattern_count;
}

static bool known(const char *pattern)
{
    for (unsigned i = 0; i < LIST_COUNT; i++) {
        for (unsigned j = 0; j < lists[i]->count; j++) {
            if (!fnmatch(pattern, lists[i]->rows[j].name, 0)) {
                return true;
            }
        }
    }
    return false;
}

static bool all_known(const struct arguments *arguments)
{
    bool ok = true;

    for (unsigned i = 0; i < arguments->pattern_count; i++) {
        if (!known(arguments->patterns[i])) {
            fprintf(stderr, "bench: no row %s; --list shows them\n", arguments->patterns[i]);
            ok = false;
        }
    }
    return ok;
}

static bool measure_here(const struct row *row, const struct arguments *arguments,
                         struct report *report)
{
    struct result result;
    const char *broken = measure_row(row, &arguments->measure, &result);

    if (broken) {
        fprintf(stderr, "bench: %s: broken: %s\n", row->name, broken);
        return false;
    }
    report_row(report, row, &result);
    return true;
}

static bool measure(const struct row *row, const struct arguments *arguments, struct report *report)
{
    int status = 0;
    pid_t child;

    fflush(stdout);
    child = fork();
    if (child < 0) {
        perror("bench: fork");
        return false;
    }
    if (!child) {
        exit(measure_here(row, arguments, report) ? 0 : 1);
    }
    if (waitpid(child, &status, 0) != child || status) {
        fprintf(stderr, "bench: %s: not measured\n", row->name);
        return false;
    }
    report->rows++;
    return true;
}

static bool run_list(const struct row_list *list, const struct arguments *arguments,
                     struct report *report)
{
    bool ok = true;

    for (unsigned i = 0; i < list->count; i++) {
        const struct row *row = &list->rows[i];

        if (!matches(row, arguments)) {
            continue;
        }
        if (arguments->list) {
            printf("%-24s %s\n", row->name, row->text);
        } else {
            ok = measure(row, arguments, report) && ok;
        }
    }
    return ok;
}

int main(int argc, char **argv)
{
    struct arguments arguments = {.measure = {false, ROUNDS, ROUND_NS}};
    struct report report = {.json = false};
    bool ok = true;

    argp_err_exit_status = 2;
    argp_parse(&argp, argc, argv, 0, NULL, &arguments);
    if (!all_known(&arguments)) {
        return 2;
    }
    report.json = arguments.json;
#ifndef BENCH_SERVER
    fputs("bench: built without jansson, so without the row virtio-queue\n", stderr);
#endif
    if (!arguments.list) {
        report_begin(&report, &arguments.measure);
    }
    for (unsigned i = 0; i < LIST_COUNT; i++) {
        ok = run_list(lists[i], &arguments, &report) && ok;
    }
    if (!arguments.list) {
        report_end(&report);
    }
    return ok ? 0 : 1;
}
