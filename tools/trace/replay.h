/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Replays the control part of a trace: makes a unit of the same configuration, writes its registers
 * as the guest did, puts each descriptor where the queue points, and compares what the unit makes
 * of it with what the trace says.
 *
 * Compared, each in its order: commands begun and completed, descriptors begun, refused and
 * retired, messages of the completion event; at the end the registers, and the status word that the
 * last wait wrote. Devices are not replayed, so neither are faults, and waits that were given up
 * because a device did not answer are a difference.
 *
 * Of a virtio-iommu (virtio_replay.c): its driver's requests are sent again, byte by byte, and the
 * answers compared; in the end how it stands. Of devices there are the ids.
 */
#ifndef VIOMMU_TOOLS_TRACE_REPLAY_H
#define VIOMMU_TOOLS_TRACE_REPLAY_H

#include "reader.h"

enum replay_verdict {
    REPLAY_SAME,
    REPLAY_DIFFERS, /* *error says where, and how */
    REPLAY_FAILED,  /* it could not be replayed: likewise */
};

/* How a replay that stopped did so. */
struct replay_end {
    enum replay_verdict verdict;
    struct trace_error *error;
};

/* Stops it, unless it has stopped already. */
__attribute__((format(printf, 4, 5))) void replay_stop(struct replay_end *end,
                                                       enum replay_verdict verdict, unsigned line,
                                                       const char *format, ...);

struct replay_counts {
    uint64_t writes;
    uint64_t commands;
    uint64_t descriptors;
    uint64_t retired;
    uint64_t requests; /* of a virtio-iommu, which has of the others only writes; restarts too */
};

/* `out` gets a line for each that is replayed; NULL: nothing. */
enum replay_verdict trace_replay(const struct trace *trace, FILE *out,
                                 struct replay_counts *counts, struct trace_error *error);

/* The same for one that is known to be of a virtio-iommu. */
enum replay_verdict trace_replay_virtio(const struct trace *trace, FILE *out,
                                        struct replay_counts *counts, struct trace_error *error);

#endif
