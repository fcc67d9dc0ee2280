/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzzes the reader of traces, and the replay of what it takes for one: the input is the file. What
 * is replayed twice, once with all of it printed, comes to the same end.
 *
 * When the first byte is 0, the next two say which allocation fails, and the file comes after them:
 * with the highest bit an allocation of the reader's, else of the replay's.
 */
#include "trace/replay.h"

#include <stdlib.h>
#include <string.h>

#include "failing.h"

/* Lines of control that are replayed: each may make a page, or an invalidation. */
#define RECORDS_MAX 400

static void shorten(struct trace *trace)
{
    if (trace->count > RECORDS_MAX) {
        trace->count = RECORDS_MAX;
        trace->ended = false;
    }
}

/* What it comes to is told, or there is a reason. */
static void play_failing(FILE *file, unsigned which)
{
    struct trace_error error = {0};
    struct replay_counts counts;
    struct trace trace;
    bool taken;

    failing_alloc_at(which & 0x8000 ? which & 0x7fff : 0);
    taken = trace_read(file, &trace, &error);
    failing_alloc_at(which & 0x8000 ? 0 : which);
    if (taken) {
        shorten(&trace);
        if (trace_replay(&trace, NULL, &counts, &error) != REPLAY_SAME && !error.text[0]) {
            abort();
        }
        trace_drop(&trace);
    } else if (!error.text[0]) {
        abort();
    }
    failing_alloc_at(0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const bool fails = size > 3 && data[0] == 0;
    const unsigned which = fails ? data[1] | (unsigned)data[2] << 8 : 0;
    static FILE *nowhere;
    const size_t skip = fails ? 3 : 0;
    FILE *file = size ? fmemopen((void *)((uintptr_t)data + skip), size - skip, "r") : NULL;
    struct replay_counts counts[2];
    struct trace_error errors[2] = {{0}};
    enum replay_verdict verdicts[2];
    struct trace trace;

    if (!file) {
        return 0;
    }
    if (fails) {
        play_failing(file, which);
        fclose(file);
        return 0;
    }
    if (!nowhere) {
        nowhere = fopen("/dev/null", "w");
    }
    if (trace_read(file, &trace, &errors[0])) {
        shorten(&trace);
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
