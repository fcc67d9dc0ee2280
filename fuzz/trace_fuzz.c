/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzzes the reader of traces, and the replay of what it takes for one: the input is the file. What
 * is replayed twice, once with all of it printed, comes to the same end.
 */
#include "trace/replay.h"

#include <stdlib.h>
#include <string.h>

/* Lines of control that are replayed: each may make a page, or an invalidation. */
#define RECORDS_MAX 400

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static FILE *nowhere;
    FILE *file = size ? fmemopen((void *)(uintptr_t)data, size, "r") : NULL;
    struct replay_counts counts[2];
    struct trace_error errors[2] = {{0}};
    enum replay_verdict verdicts[2];
    struct trace trace;

    if (!file) {
        return 0;
    }
    if (!nowhere) {
        nowhere = fopen("/dev/null", "w");
    }
    if (trace_read(file, &trace, &errors[0])) {
        if (trace.count > RECORDS_MAX) {
            trace.count = RECORDS_MAX;
            trace.ended = false;
        }
        for (unsigned i = 0; i < 2; i++) {
            verdicts[i] = trace_replay(&trace, i ? nowhere : NULL, &counts[i], &errors[i]);
        }
        if (verdicts[0] != verdicts[1] || memcmp(&counts[0], &counts[1], sizeof(counts[0])) != 0 ||
            errors[0].line != errors[1].line || strcmp(errors[0].text, errors[1].text) != 0) {
            abort();
        }
        trace_drop(&trace);
    } else if (!errors[0].text[0]) {
        abort(); /* it is refused without a reason */
    }
    fclose(file);
    return 0;
}
