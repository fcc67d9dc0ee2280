/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the tests of the VT-d unit share: a unit with a guest around it, one device, a virtual
 * clock, and
 * a record of what the embedder was told.
 *
 * The guest (support/guest.h) is written from the specification and knows nothing of the
 * library's own
 * headers. Functions here that check end the running test with an assertion of cmocka.
 */
#ifndef VIOMMU_VTD_TEST_UNIT_H
#define VIOMMU_VTD_TEST_UNIT_H

#include "support/guest.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define UNIT_RECORDS 64
#define UNIT_DOMAIN 7
#define UNIT_MS 1000000ull

struct unit {
    struct guest guest;
    struct viommu_device *device; /* 00:05.0 */
    uint16_t id;                  /* its requester id */
    unsigned levels;              /* of its page tables */
    uint64_t table;               /* 0 until unit_translate */
    uint64_t now;                 /* virtual nanoseconds */
    /* What the embedder was told; counts may exceed what is kept. */
    struct viommu_interrupt interrupts[UNIT_RECORDS];
    unsigned interrupt_count;
    struct viommu_event events[UNIT_RECORDS];
    unsigned event_count;
    /* The status word as it was when the last interrupt came. */
    uint32_t status_at_interrupt;
};

/* A started unit with a device behind it; translation and the queue are off. */
void unit_init(struct unit *unit, const struct viommu_vtd_config *config);
void unit_fini(struct unit *unit);

/*
 * Gives the device empty tables (untranslated requests, domain UNIT_DOMAIN) and turns
 * translation on.
 */
void unit_translate(struct unit *unit);
/* The same with a translation type. */
void unit_translate_as(struct unit *unit, enum spec_translation_type type);

/* Maps a page in the device's tables; returns the guest address of the entry. */
uint64_t unit_map(struct unit *unit, uint64_t iova, uint64_t gpa, unsigned level, uint64_t flags);

/* 8 bytes of DMA, or none; what the call returned. */
int unit_read(struct unit *unit, uint64_t iova);
int unit_write(struct unit *unit, uint64_t iova);
int unit_read_nothing(struct unit *unit, uint64_t iova);

/* What a translation of a read leads to; dies when it is refused. */
uint64_t unit_gpa(struct unit *unit, uint64_t iova);

/* The fault record of a number, upper quadword. */
uint64_t unit_record(struct unit *unit, unsigned i);
void unit_clear_record(struct unit *unit, unsigned i);

/* There is exactly one new fault: this one. Clears it. */
void unit_expect_fault(struct unit *unit, unsigned reason, uint64_t iova, bool write);
/* The same, for an AT field. */
void unit_expect_fault_as(struct unit *unit, unsigned reason, uint64_t iova, bool write,
                          unsigned type);
void unit_expect_no_fault(struct unit *unit);

/* Unmasks an event: its message goes to this address with this data. */
void unit_fault_message(struct unit *unit, uint64_t address, uint32_t data);
void unit_completion_message(struct unit *unit, uint64_t address, uint32_t data);

/* Puts a descriptor into the queue, moves the tail, processes. */
void unit_submit(struct unit *unit, struct spec_descriptor descriptor);

/* Index of IQH. */
unsigned unit_head(struct unit *unit);

#endif
