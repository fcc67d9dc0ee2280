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

#include <viommu/virtio.h>
#include <viommu/vtd.h>
#include <viommu/watch.h>

enum {
    TRACE_FORMAT = 1,
    TRACE_END = VIOMMU_OBSERVED_REQUESTER + 1, /* the kind of the last line */
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

/* One number of a virtio-iommu's configuration, likewise. */
struct trace_number {
    const char *name;
    size_t offset; /* in struct viommu_virtio_config */
    size_t size;
    bool bits; /* an address or a bit pattern; the others count */
};
enum { TRACE_NUMBERS = 12 };
extern const struct trace_number trace_numbers[TRACE_NUMBERS];

uint64_t trace_number_get(const struct trace_number *number,
                          const struct viommu_virtio_config *config);
void trace_number_set(const struct trace_number *number, struct viommu_virtio_config *config,
                      uint64_t value);

/* The longest request, in bytes, and what is read of it. */
enum { TRACE_REQUEST_MAX = 72, TRACE_BYTES_MAX = 36 };

/* How a virtio-iommu stands, as the first line and the last say. */
struct trace_state {
    uint64_t features;
    uint64_t domains;
    uint64_t endpoints;
    uint64_t mappings;
    uint64_t bypass;
};
enum { TRACE_STATES = 5 };
extern const char *const trace_state_words[TRACE_STATES]; /* by their order */
struct trace_state trace_state_of(struct viommu *iommu);

/* What a virtio-iommu's request asks for, by its first byte; what it was answered, "none": it was
   not. Static. */
const char *trace_request_word(unsigned type);
enum { TRACE_STATUSES = VIOMMU_VIRTIO_NOMEM + 1 };
extern const char *const trace_status_words[TRACE_STATUSES];
const char *trace_status_word(uint32_t status);

/* What a descriptor asks for, by its type field; for people. */
const char *trace_descriptor_word(uint64_t low);

/* The kind of an event; static. */
const char *trace_event_word(enum viommu_event_kind kind);

#endif
