/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `viommu serve --trace FILE`: a trace of the unit (trace/writer.h), written out by a timer of the
 * server's loop, so that a reader is never more than a second behind.
 *
 * When the file cannot be written any more, that is said once, tracing ends, and the server goes
 * on.
 */
#ifndef VIOMMU_TOOLS_SERVE_TRACE_H
#define VIOMMU_TOOLS_SERVE_TRACE_H

#include "loop.h"
#include "options.h"
#include "trace/writer.h"

struct serve_trace {
    struct trace_writer *writer; /* NULL: nothing is traced (any more) */
    const char *path;
    struct loop *loop;
    struct loop_source timer;
};

/*
 * From here on the unit, which has been started, is traced into the file that the options name.
 * These, like the trace, must stay where they are until close. Returns 0, or a negative errno after
 * saying what went wrong.
 */
int serve_trace_open(struct serve_trace *trace, struct loop *loop, struct viommu *iommu,
                     const struct serve_options *options);

/* Ends it, while unit and loop exist. Does nothing for one that was never opened (all zero). */
void serve_trace_close(struct serve_trace *trace);

#endif
