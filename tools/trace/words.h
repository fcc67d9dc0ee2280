/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Traces of a unit: what writer and reader share. docs/trace.md describes the format.
 *
 * A trace is lines of JSON. The first says what made it and how the unit is configured; each other
 * is one observation (viommu/watch.h); the last, if the writer came to an end, has the registers as
 * they were then.
 */
#ifndef VIOMMU_TOOLS_TRACE_WORDS_H
#define VIOMMU_TOOLS_TRACE_WORDS_H

#include <stddef.h>
#include <stdint.h>

#include <viommu/vtd.h>
#include <viommu/watch.h>

enum {
    TRACE_FORMAT = 1,
    TRACE_END = VIOMMU_OBSERVED_EVENT + 1, /* the kind of the last line */
    TRACE_KINDS,
};

/* By kind; index 0 is no kind. */
extern const char *const trace_kind_words[TRACE_KINDS];

/* The registers of the last line. What DMA or devices cause in them is not in `mask`. */
struct trace_register {
    const char *name;
    uint64_t offset;
    uint8_t size;
    uint64_t mask;
};
enum { TRACE_REGISTERS = 18 };
extern const struct trace_register trace_registers[TRACE_REGISTERS];

/* One on/off member of the unit's configuration, as it is called in a trace and in a scenario. */
struct trace_switch {
    const char *name;
    size_t offset; /* of the bool in struct viommu_vtd_config */
    bool inverse;  /* there it is the other way round: no_... */
};
enum { TRACE_SWITCHES = 6 };
extern const struct trace_switch trace_switches[TRACE_SWITCHES];

/* What a descriptor asks for, by its type field; for people. */
const char *trace_descriptor_word(uint64_t low);

/* The kind of an event; static. */
const char *trace_event_word(enum viommu_event_kind kind);

#endif
