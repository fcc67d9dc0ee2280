/* SPDX-License-Identifier: BSD-2-Clause */
/* Printing. Names and texts are this program's own: nothing in them needs escaping in JSON. */
#include "report.h"

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

struct machine {
    struct utsname system;
    char cpu[128];
    long cpus;
    char load[64];
};

/* What follows "model name : " in /proc/cpuinfo; not every architecture has it. */
static void read_cpu(char *out, size_t size)
{
    FILE *file = fopen("/proc/cpuinfo", "r");
    char line[256];

    snprintf(out, size, "unknown CPU");
    while (file && fgets(line, sizeof(line), file)) {
        char *value = strchr(line, ':');

        if (value && value[1] && !strncmp(line, "model name", 10)) {
            value[strcspn(value, "\n\"\\")] = '\0';
            snprintf(out, size, "%s", value + 2);
            break;
        }
    }
    if (file) {
        fclose(file);
    }
}

static void read_load(char *out, size_t size)
{
    FILE *file = fopen("/proc/loadavg", "r");
    double load = 0;

    if (file && fscanf(file, "%lf", &load) == 1) {
        snprintf(out, size, "%.2f", load);
    } else {
        snprintf(out, size, "0");
    }
    if (file) {
        fclose(file);
    }
}

static void machine_read(struct machine *machine)
{
    uname(&machine->system);
    read_cpu(machine->cpu, sizeof(machine->cpu));
    read_load(machine->load, sizeof(machine->load));
    machine->cpus = sysconf(_SC_NPROCESSORS_ONLN);
}

void report_begin(struct report *report, const struct measure_options *options)
{
    struct machine machine;

    machine_read(&machine);
    if (report->json) {
        printf("{\"machine\": {\"cpu\": \"%s\", \"cpus\": %ld, \"system\": \"%s %s %s\"},\n"
               " \"load\": %s, \"quick\": %s, \"rounds\": %u,\n \"rows\": [",
               machine.cpu, machine.cpus, machine.system.sysname, machine.system.release,
               machine.system.machine, machine.load, options->quick ? "true" : "false",
               options->rounds);
        return;
    }
    printf("%s, %ld CPUs, %s %s %s, load %s; %u rounds of %.1f ms a side\n", machine.cpu,
           machine.cpus, machine.system.sysname, machine.system.release, machine.system.machine,
           machine.load, options->rounds, (double)options->round_ns / 1e6);
    if (options->quick) {
        puts("quick: this only shows that it works, the figures mean nothing");
    }
}

static const char *verdict(const struct ratio *ratio, double value)
{
    return goal_met(ratio, value) ? "met" : "missed";
}

static void text_ratio(const struct row *row, const struct ratio *ratio,
                       const struct ratio_result *result)
{
    printf("    %-28s %8.2fx %s %-20s (%.2f to %.2f)", row->sides[ratio->subject].name,
           result->median, ratio->kind == RATIO_SPEEDUP ? "faster than" : "the time of",
           row->sides[ratio->baseline].name, result->low, result->high);
    if (ratio->goal > 0) {
        printf("  goal %s %gx: %s", ratio->kind == RATIO_SPEEDUP ? ">=" : "<=", ratio->goal,
               verdict(ratio, result->median));
    }
    putchar('\n');
}

static void text_figure(const struct figure *figure)
{
    printf("  %-40s %12.3f %s", figure->name, figure->value, figure->unit);
    if (figure->goal > 0) {
        printf("  goal <= %g: %s", figure->goal, figure_met(figure) ? "met" : "missed");
    }
    putchar('\n');
}

static void text_row(const struct row *row, const struct result *result)
{
    printf("\n%s: %s\n", row->name, row->text);
    for (unsigned i = 0; i < row->side_count; i++) {
        printf("  %-30s %10.2f ns a %s\n", row->sides[i].name, result->ns[i], row->unit);
    }
    for (unsigned i = 0; i < row->ratio_count; i++) {
        text_ratio(row, &row->ratios[i], &result->ratios[i]);
    }
    for (unsigned i = 0; i < result->figure_count; i++) {
        text_figure(&result->figures[i]);
    }
    if (result->has_note) {
        printf("  %s\n", result->note);
    }
}

static void json_ratio(const struct row *row, const struct ratio *ratio,
                       const struct ratio_result *result)
{
    printf("{\"subject\": \"%s\", \"baseline\": \"%s\", \"kind\": \"%s\", \"ratio\": %.3f, "
           "\"low\": %.3f, \"high\": %.3f",
           row->sides[ratio->subject].name, row->sides[ratio->baseline].name,
           ratio->kind == RATIO_SPEEDUP ? "speedup" : "cost", result->median, result->low,
           result->high);
    if (ratio->goal > 0) {
        printf(", \"goal\": %g, \"met\": %s", ratio->goal,
               goal_met(ratio, result->median) ? "true" : "false");
    }
    putchar('}');
}

static void json_figure(const struct figure *figure)
{
    printf("{\"name\": \"%s\", \"value\": %.4f, \"unit\": \"%s\"", figure->name,
           figure->value, figure->unit);
    if (figure->goal > 0) {
        printf(", \"goal\": %g, \"met\": %s", figure->goal,
               figure_met(figure) ? "true" : "false");
    }
    putchar('}');
}

static void json_figures(const struct result *result)
{
    printf(",\n   \"figures\": [");
    for (unsigned i = 0; i < result->figure_count; i++) {
        printf("%s", i ? ",\n    " : "");
        json_figure(&result->figures[i]);
    }
    printf("]");
}

static void json_row(const struct report *report, const struct row *row,
                     const struct result *result)
{
    printf("%s\n  {\"name\": \"%s\", \"unit\": \"%s\", \"ns\": {", report->rows ? "," : "",
           row->name, row->unit);
    for (unsigned i = 0; i < row->side_count; i++) {
        printf("%s\"%s\": %.3f", i ? ", " : "", row->sides[i].name, result->ns[i]);
    }
    printf("},\n   \"ratios\": [");
    for (unsigned i = 0; i < row->ratio_count; i++) {
        printf("%s", i ? ",\n    " : "");
        json_ratio(row, &row->ratios[i], &result->ratios[i]);
    }
    printf("]");
    if (result->figure_count) {
        json_figures(result);
    }
    if (result->has_note) {
        printf(",\n   \"note\": \"%s\"", result->note);
    }
    printf("}");
}

void report_row(struct report *report, const struct row *row, const struct result *result)
{
    if (report->json) {
        json_row(report, row, result);
    } else {
        text_row(row, result);
    }
    report->rows++;
    fflush(stdout);
}

void report_end(struct report *report)
{
    if (report->json) {
        puts("\n ]}");
    }
}
