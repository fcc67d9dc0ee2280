/* SPDX-License-Identifier: BSD-2-Clause */
/* Traces in the runner: the first unit of a scenario is traced; a trace is replayed. */
#ifndef VIOMMU_TOOLS_RUN_TRACE_H
#define VIOMMU_TOOLS_RUN_TRACE_H

#include "run.h"

/* A unit has been started: it is traced if that was asked for and it is the first. */
void trace_begin(struct run *run, struct unit *unit);
/* An instance is about to be destroyed. */
void trace_end(struct run *run, struct unit *unit);

/* Ends those of virtio-iommus: their last line says which devices are attached. */
void traces_end_virtio(struct run *run);

/* Replays the trace in a file. Returns the exit status. */
int trace_play(const char *name, bool quiet, bool json);

#endif
