/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The fault-recording registers as specified: see faults.h.
 */
#include "faults.h"

#include "../support/vtd_spec.h"

#include <string.h>

void faults_init(struct faults *faults, unsigned count)
{
    memset(faults, 0, sizeof(*faults));
    faults->count = count;
    faults->masked = true;
}

static bool any_record(const struct faults *faults)
{
    for (unsigned i = 0; i < faults->count; i++) {
        if (faults->records[i].hi & SPEC_F) {
            return true;
        }
    }
    return false;
}

static bool any_status(const struct faults *faults)
{
    return faults->overflow || faults->queue_errors || any_record(faults);
}

static void event(struct faults *faults)
{
    if (faults->masked) {
        faults->pending = true;
    } else {
        faults->messages++;
    }
}

static void settle(struct faults *faults)
{
    if (!any_status(faults)) {
        faults->pending = false;
    }
}

void faults_record(struct faults *faults, uint64_t lo, uint64_t hi)
{
    bool first = !any_record(faults);
    bool quiet = !any_status(faults);

    if (faults->overflow) {
        return;
    }
    if (faults->records[faults->next].hi & SPEC_F) {
        faults->overflow = true;
        return;
    }
    faults->records[faults->next].lo = lo;
    faults->records[faults->next].hi = hi | SPEC_F;
    if (first) {
        faults->index = faults->next;
    }
    faults->next = (faults->next + 1) % faults->count;
    if (quiet) {
        event(faults);
    }
}

void faults_queue_error(struct faults *faults, uint32_t bit)
{
    bool quiet = !any_status(faults);

    faults->queue_errors |= bit;
    if (quiet) {
        event(faults);
    }
}

void faults_clear_record(struct faults *faults, unsigned index)
{
    faults->records[index].hi &= ~SPEC_F;
    settle(faults);
}

void faults_write_status(struct faults *faults, uint32_t value)
{
    if (value & SPEC_PFO) {
        faults->overflow = false;
    }
    faults->queue_errors &= ~value;
    settle(faults);
}

void faults_mask(struct faults *faults, bool masked)
{
    faults->masked = masked;
    if (!masked && faults->pending) {
        faults->pending = false;
        faults->messages++;
    }
}

void faults_translation_off(struct faults *faults)
{
    faults->next = 0;
}

uint32_t faults_status(const struct faults *faults)
{
    uint32_t status = faults->queue_errors;

    if (faults->overflow) {
        status |= SPEC_PFO;
    }
    if (any_record(faults)) {
        status |= SPEC_PPF | faults->index << 8;
    }
    return status;
}
