/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Lines for people; see log.h. One destination for the process, set before the server runs.
 */
#include "log.h"

#include <stdarg.h>
#include <stdbool.h>

static FILE *destination;
static bool redirected;

void server_log_to(FILE *stream)
{
    destination = stream;
    redirected = true;
}

void server_log(const char *format, ...)
{
    FILE *stream = redirected ? destination : stderr;
    char line[512];
    va_list args;

    if (!stream) {
        return;
    }
    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    fprintf(stream, "viommu: %s\n", line);
    fflush(stream);
}
