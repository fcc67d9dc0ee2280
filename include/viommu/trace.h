/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The tracing backend: writes down every change it is told of, with the time, as JSON lines; alone,
 * as a mirror or cache of its own, or in front of another subscriber, to which it hands them on.
 *
 *     {"index":12,"time":1234567890,"call":"map","requester":"00:03.0","first":"0x1000",
 *      "last":"0x1fff","gpa":"0x5000","perm":"rw","cause":"pages","token":7,"answer":0,"took":210}
 *
 * (on one line). "index" counts the lines from 1. Times are nanoseconds: "time" of the host's
 * monotonic clock when the call began, "took" how long it lasted. "call" is map, unmap, replace,
 * skipped, device-tlb or fence; "answer" is 0, "pending" or a negative errno.
 *
 * Not every line has all members. Of a fence there is no more than index, time, call, answer and
 * took. Lines of a mirror have "cause" (pages, domain, global, context, memory, replay or retry:
 * enum viommu_cause); all but unmap have "perm" (r, w, rw or none), and all but what was skipped
 * and is not mapped have "gpa". Device-tlb lines, and those of a cache, have none of the three.
 *
 * The completion of a pending change is not seen here. A line is written before its call returns: a
 * slow reader slows the subscriber down.
 */
#ifndef VIOMMU_TRACE_H
#define VIOMMU_TRACE_H

#include <viommu/notify.h>

#ifdef __cplusplus
extern "C" {
#endif

struct viommu_trace;

struct viommu_trace_config {
    /*
     * Lines are written here, whole, each with one write. Not closed here. What cannot be written
     * is lost, and nothing else happens; but a pipe or socket that nobody reads any more raises
     * SIGPIPE: ignore that signal.
     */
    int fd;
    /* The subscriber to hand changes to; NULL: every change is answered with 0. Copied. */
    const struct viommu_subscription *next;
    /* With no `next`: what to subscribe to, without its functions. Copied. */
    struct viommu_subscription what;
    /* Of a mirror: write down what was compared and is as it was, too. Handed on only to one that
       asks for it itself. */
    bool skips;
};

/*
 * A trace serves one subscription at a time. Returns 0; -EINVAL for no descriptor, or a `next`
 * without the functions it needs; -ENOMEM.
 */
int viommu_trace_create(const struct viommu_trace_config *config, struct viommu_trace **out);

/* Unsubscribe first; NULL is accepted. Returns 0 when every line was written, or the error of the
   last one that was not. */
int viommu_trace_destroy(struct viommu_trace *trace);

/* Fills in a subscription. What it points to lives as long as the trace. */
void viommu_trace_subscription(struct viommu_trace *trace, struct viommu_subscription *out);

#ifdef __cplusplus
}
#endif

#endif
