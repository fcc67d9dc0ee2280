/* SPDX-License-Identifier: BSD-2-Clause */
/* The viommu command: finds the subcommand and hands it the rest of the command line. */
#include "tools.h"

#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <viommu/iommu.h>

struct subcommand {
    const char *name;
    const char *help;
    int (*run)(int argc, char **argv);
};

static const struct subcommand subcommands[] = {
    {"run", "play a scenario: one operation a line, one result a line", viommu_tool_run},
#ifdef VIOMMU_HAVE_SERVE
    {"serve", "be an IOMMU, and devices behind it, for QEMU (vfio-user)", viommu_tool_serve},
#endif
    {"acpi", "write the ACPI table that tells a guest of its IOMMU", viommu_tool_acpi},
    {"iova", "tell which device addresses host devices can use, and what fits", viommu_tool_iova},
};

enum { SUBCOMMANDS = sizeof(subcommands) / sizeof(subcommands[0]) };

static void print_usage(FILE *out)
{
    fputs("Usage: viommu SUBCOMMAND [ARGUMENT...]\n"
          "A virtual IOMMU: try it, serve it, describe it to a guest.\n\n", out);
    for (unsigned i = 0; i < SUBCOMMANDS; i++) {
        fprintf(out, "  %-8s %s\n", subcommands[i].name, subcommands[i].help);
    }
    fputs("\n  --help, --usage, --version\n"
          "\n`viommu SUBCOMMAND --help` tells more.\n\n"
          "Exit status: 0 all is well, 1 a check or an operation failed, 2 wrong usage.\n", out);
}

/* Output that was lost is a failure, whatever it was of: a full disk must not pass for success. */
static void check_output(void)
{
    int error = fflush(stdout) ? errno : 0;

    if (error || ferror(stdout)) { /* an earlier write's reason is gone */
        fprintf(stderr, "viommu: cannot write to standard output%s%s\n", error ? ": " : "",
                error ? strerror(error) : "");
        _exit(TOOL_FAILED);
    }
}

/* A standard stream that came closed would else be the next file or socket that is opened. It is
 * opened for reading, so that writing to it still fails. */
static bool reserve_standard_streams(void)
{
    int fd;

    do {
        fd = open("/dev/null", O_RDONLY);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    return fd >= 0 && close(fd) == 0;
}

static bool is_one_of(const char *word, const char *const *words)
{
    while (*words && strcmp(word, *words) != 0) {
        words++;
    }
    return *words != NULL;
}

static void print_version(FILE *out, struct argp_state *state)
{
    (void)state;
    fprintf(out, "viommu %s\n", viommu_version());
}

static int unknown(const char *name)
{
    if (*name == '-') {
        fprintf(stderr, "viommu: there is no option '%s'; before a subcommand there are: --help "
                        "--usage --version\n", name);
        return TOOL_USAGE;
    }
    fprintf(stderr, "viommu: there is no subcommand '%s'; there are:", name);
    for (unsigned i = 0; i < SUBCOMMANDS; i++) {
        fprintf(stderr, " %s", subcommands[i].name);
    }
    fputs("\n", stderr);
    return TOOL_USAGE;
}

int main(int argc, char **argv)
{
    static const char *const asks_for_help[] = {"--help", "-h", "-?", "help", "--usage", NULL};
    static const char *const asks_for_version[] = {"--version", "-V", NULL};

    if (!reserve_standard_streams() || atexit(check_output)) {
        return TOOL_FAILED;
    }
    if (argc < 2) {
        print_usage(stderr);
        return TOOL_USAGE;
    }
    argp_program_version_hook = print_version; /* of the subcommands */
    if (is_one_of(argv[1], asks_for_help)) {
        print_usage(stdout);
        return TOOL_OK;
    }
    if (is_one_of(argv[1], asks_for_version)) {
        print_version(stdout, NULL);
        return TOOL_OK;
    }
    for (unsigned i = 0; i < SUBCOMMANDS; i++) {
        if (!strcmp(argv[1], subcommands[i].name)) {
            return subcommands[i].run(argc - 1, argv + 1);
        }
    }
    return unknown(argv[1]);
}
