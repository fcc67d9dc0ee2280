/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The subcommands of `viommu`. Each gets its own name as argv[0], prints its own --help through
 * argp, and returns the exit status of the program.
 */
#ifndef VIOMMU_TOOLS_TOOLS_H
#define VIOMMU_TOOLS_TOOLS_H

enum tool_exit {
    TOOL_OK = 0,
    TOOL_FAILED = 1, /* a check or an operation failed */
    TOOL_USAGE = 2,  /* the command line, or a scenario, is wrong */
};

int viommu_tool_run(int argc, char **argv);
int viommu_tool_acpi(int argc, char **argv);
int viommu_tool_iova(int argc, char **argv);
int viommu_tool_serve(int argc, char **argv);

#endif
