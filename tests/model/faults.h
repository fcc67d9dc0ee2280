/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The fault-recording registers as the specification's text has them: what they must hold after
 * each fault, and how many messages the unit must have sent.
 */
#ifndef VIOMMU_MODEL_FAULTS_H
#define VIOMMU_MODEL_FAULTS_H

#include <stdbool.h>
#include <stdint.h>

#define FAULTS_MAX 256

struct faults {
    unsigned count; /* of the record registers */
    struct {
        uint64_t lo;
        uint64_t hi;
    } records[FAULTS_MAX];
    unsigned next; /* the internal index */
    unsigned index; /* FRI */
    bool overflow;
    uint32_t queue_errors; /* IQE, ICE, ITE as in FSTS */
    bool masked;
    bool pending;
    uint64_t messages;
};

void faults_init(struct faults *faults, unsigned count);

/* A fault that is to be logged; the F bit is set here. */
void faults_record(struct faults *faults, uint64_t lo, uint64_t hi);

/* IQE, ICE or ITE becomes set. */
void faults_queue_error(struct faults *faults, uint32_t bit);

/* What the guest writes. */
void faults_clear_record(struct faults *faults, unsigned index);
void faults_write_status(struct faults *faults, uint32_t value);
void faults_mask(struct faults *faults, bool masked);

/* Remapping was turned off. */
void faults_translation_off(struct faults *faults);

/* FSTS; `index_counts` says whether FRI is defined. */
uint32_t faults_status(const struct faults *faults);

#endif
