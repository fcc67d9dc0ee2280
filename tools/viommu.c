/* SPDX-License-Identifier: BSD-2-Clause */
/* The viommu command: finds the subcommand and hands it the rest of the command line. */
#include "tools.h"

#include <stdio.h>
#include <string.h>

#include <viommu/iommu.h>

struct subcommand {
    const char *name;
    const char *help;
    int (*run)(int argc, char **argv);
};

static const struct subcommand subcommands[] = {
    {"run", "play a scenario: one operation a line, one result a line", viommu_tool_run},
#ifdef VIOMMU_HAVE_SERVE
    {"serve", "be a VT-d unit, and devices behind it, for QEMU (vfio-user)", viommu_tool_serve},
#endif
    {"acpi", "write the ACPI table that tells a guest of its IOMMU", viommu_tool_acpi},
};

enum { SUBCOMMANDS = sizeof(subcommands) / sizeof(subcommands[0]) };

static void print_usage(FILE *out)
{
    fputs("Usage: viommu SUBCOMMAND [ARGUMENT...]\n"
          "A virtual IOMMU: try it, serve it, describe it to a guest.\n\n", out);
    for (unsigned i = 0; i < SUBCOMMANDS; i++)
        fprintf(out, "  %-8s %s\n", subcommands[i].name, subcommands[i].help);
    fputs("\n  --help, --version\n"
          "\n`viommu SUBCOMMAND --help` tells more.\n"
          "Exit status: 0 all is well, 1 a check or an operation failed, 2 wrong usage.\n", out);
}

static int unknown(const char *name)
{
    fprintf(stderr, "viommu: there is no subcommand '%s'; there are:", name);
    for (unsigned i = 0; i < SUBCOMMANDS; i++)
        fprintf(stderr, " %s", subcommands[i].name);
    fputs("\n", stderr);
    return TOOL_USAGE;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_usage(stderr);
        return TOOL_USAGE;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        print_usage(stdout);
        return TOOL_OK;
    }
    if (!strcmp(argv[1], "--version")) {
        printf("viommu %s\n", viommu_version());
        return TOOL_OK;
    }
    for (unsigned i = 0; i < SUBCOMMANDS; i++) {
        if (!strcmp(argv[1], subcommands[i].name))
            return subcommands[i].run(argc - 1, argv + 1);
    }
    return unknown(argv[1]);
}
