/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What may come of one request for one page: every answer that some allowed context value with some
 * allowed page value gives. One of them must be what the library did.
 */
#ifndef VIOMMU_MODEL_OUTCOME_H
#define VIOMMU_MODEL_OUTCOME_H

#include "world.h"

#define OUTCOMES_MAX 512

struct request {
    uint16_t requester;
    enum viommu_dma_type type;
    uint64_t iova; /* page-aligned */
    uint32_t need; /* enum viommu_perm; 0 is a zero-length read */
    bool zero_write; /* need is 0, and it is a zero-length write */
    bool dword;    /* a write of four aligned bytes: at the interrupt range a message */
    bool no_write; /* of a translation request */
};

struct outcome {
    bool refused;
    bool silent; /* refused, and not recorded */
    bool interrupt;
    bool untranslated_only;
    uint8_t reason;
    uint8_t perm;
    uint64_t gpa; /* of the page */
    uint64_t mask;
};

/* A look-up that was made of the tables as they are, for a cache that keeps. */
struct note {
    bool page; /* else of a context */
    uint16_t domain;
    struct context_value context;
    struct page_value value;
};

#define NOTES_MAX 128

struct outcomes {
    struct request request;
    unsigned note_count;
    struct note notes[NOTES_MAX];
    unsigned count;
    struct outcome list[OUTCOMES_MAX];
};

/* The page of the request must be of the universe, unless translation is off. */
void outcomes_collect(struct world *world, const struct request *request,
                      struct outcomes *outcomes);

/* The request was made: what was looked up for it is known from now on. */
void outcomes_note(struct world *world, const struct outcomes *outcomes);

/*
 * The library refused: finds the outcome that explains what the fault registers hold now, and moves
 * the mirror on. Returns it, or NULL.
 */
const struct outcome *outcomes_refused(struct world *world, const struct outcomes *outcomes);

/* Fails, with a list of what would have been right. */
_Noreturn void outcomes_fail(struct world *world, const struct outcomes *outcomes,
                             const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
