/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * report.c - how the guest program says what it found.  See report.h.
 *
 * A line is built whole and written with one call, so that it reaches the console in one piece.
 */
#include "report.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static unsigned checks;
static unsigned failures;
static char detail[256];

void report_detail(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(detail, sizeof(detail), fmt, ap);
    va_end(ap);
}

bool check(bool ok, const char *fmt, ...)
{
    int error = errno;
    char what[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(what, sizeof(what), fmt, ap);
    va_end(ap);
    checks++;
    if (ok) {
        printf("ok %u %s\n", checks, what);
    } else {
        failures++;
        printf("not ok %u %s: %s\n", checks, what, detail[0] ? detail : strerror(error));
    }
    fflush(stdout);
    detail[0] = '\0';
    return ok;
}

void note(const char *fmt, ...)
{
    char text[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    printf("# %s\n", text);
    fflush(stdout);
}

unsigned report_failures(void)
{
    return failures;
}
