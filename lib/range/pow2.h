/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A range cut into naturally aligned blocks of a power of two: the fewest that cover it exactly.
 *
 * Vocabulary. A *block* of order n is 2^n addresses that begin at a multiple of 2^n; the whole
 * 64-bit space is the block of order 64. A split *with a target* moves a second address along (a
 * mapping from iova to gpa): each block is then aligned in both. What the two are misaligned to
 * each other limits the order of all blocks, so a badly placed target can make many.
 *
 * Taking the largest block that fits, from the front, is the fewest: aligned blocks never cross, so
 * a larger one only ever replaces several smaller.
 *
 * Nothing is allocated and nothing can fail. Neither [first, last] nor the target's range wraps.
 */
#ifndef VIOMMU_RANGE_POW2_H
#define VIOMMU_RANGE_POW2_H

#include <stdbool.h>
#include <stdint.h>

/* No range needs more blocks, without a target: 63 orders upwards and 63 down again. */
#define POW2_BLOCKS_MAX 126

struct pow2_block {
    uint64_t first;
    uint64_t last;
    uint64_t target; /* where `first` leads; equal to it in a split without a target */
    unsigned order;  /* 0 to 64 */
};

/* What is left to be cut. */
struct pow2_split {
    uint64_t first;
    uint64_t last;
    uint64_t target;
    bool over;
};

/* Begins the split of [first, last], first <= last. */
void pow2_begin(struct pow2_split *split, uint64_t first, uint64_t last);

/* Begins it with a target, which belongs to `first`. */
void pow2_begin_with_target(struct pow2_split *split, uint64_t first, uint64_t last,
                            uint64_t target);

/* The next block, in order of addresses. False: there is none left. */
bool pow2_next(struct pow2_split *split, struct pow2_block *block);

/* How many blocks the split of [first, last] has, without making it. */
unsigned pow2_count(uint64_t first, uint64_t last);

/* The same with a target. */
uint64_t pow2_count_with_target(uint64_t first, uint64_t last, uint64_t target);

#endif
