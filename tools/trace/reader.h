/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reads a trace: every line is checked, and those of control are kept. Control is what the guest
 * asks of the unit and what the unit makes of it; misses, faults and events come from devices.
 */
#ifndef VIOMMU_TOOLS_TRACE_READER_H
#define VIOMMU_TOOLS_TRACE_READER_H

#include <stdbool.h>
#include <stdio.h>

#include "words.h"

/*
 * A line of control. Members are as in struct viommu_observation, but for a virtio-iommu's: `value`
 * is the number of a request, restart or answer, and whether a requester is present; `reason` a
 * status; `size` how many bytes a request has, or were written; `slot` how many of them are in
 * trace.bytes, from `low` on; `high` its room. `slot` is also a requester.
 */
struct trace_record {
    unsigned kind;
    unsigned line; /* in the file, from 1 */
    uint64_t offset;
    uint64_t value;
    uint64_t low;
    uint64_t high;
    uint64_t address;
    uint32_t size;
    uint32_t slot;
    uint32_t reason;
    int error;
};

struct trace {
    bool is_virtio; /* then of what follows: virtio, regions, states, bytes; else the others */
    struct viommu_virtio_config virtio;
    struct viommu_virtio_region *regions; /* of the configuration */
    struct trace_state start_state; /* has_start */
    struct trace_state end_state;   /* ended */
    uint8_t *bytes; /* of all requests */
    size_t byte_count;
    size_t byte_room;
    struct viommu_vtd_config config;
    bool has_capabilities; /* a trace that was written by hand may come without, and has_start */
    uint64_t cap;
    uint64_t ecap;
    struct trace_record *records;
    size_t count;
    size_t room;
    bool has_start; /* what the registers were when it began */
    uint64_t start[TRACE_REGISTERS];
    bool ended; /* the writer came to an end: */
    unsigned end_line;
    uint64_t registers[TRACE_REGISTERS];
};

struct trace_error {
    unsigned line; /* 0: no line is to blame */
    char text[160];
};

/*
 * Reads it all. What follows the last line break is passed over: a writer that was killed may have
 * left the half of a line. False: *error says why; there is nothing to drop.
 */
bool trace_read(FILE *file, struct trace *trace, struct trace_error *error);
void trace_drop(struct trace *trace);

#endif
