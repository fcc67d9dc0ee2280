/* SPDX-License-Identifier: BSD-2-Clause */
/* The power-of-two split. Orders of 64 are kept away from the shifts, which end at 63. */
#include "range/pow2.h"

/* The order of the largest block that begins at the address. */
static unsigned alignment(uint64_t address)
{
    return address ? (unsigned)__builtin_ctzll(address) : 64;
}

/* The number of the highest bit; value != 0. */
static unsigned highest_bit(uint64_t value)
{
    return 63 - (unsigned)__builtin_clzll(value);
}

/* The order of the largest block that has no more addresses than [first, last]. */
static unsigned size_order(uint64_t first, uint64_t last)
{
    uint64_t less_one = last - first;

    return less_one == UINT64_MAX ? 64 : highest_bit(less_one + 1);
}

/* 2^order - 1 */
static uint64_t low_bits(unsigned order)
{
    return order == 64 ? UINT64_MAX : (UINT64_C(1) << order) - 1;
}

void pow2_begin(struct pow2_split *split, uint64_t first, uint64_t last)
{
    pow2_begin_with_target(split, first, last, first);
}

void pow2_begin_with_target(struct pow2_split *split, uint64_t first, uint64_t last,
                            uint64_t target)
{
    *split = (struct pow2_split){.first = first, .last = last, .target = target,
                                  .over = first > last};
}

bool pow2_next(struct pow2_split *split, struct pow2_block *block)
{
    unsigned aligned = alignment(split->first | split->target);
    unsigned fits = size_order(split->first, split->last);

    if (split->over) {
        return false;
    }
    block->order = aligned < fits ? aligned : fits;
    block->first = split->first;
    block->last = split->first + low_bits(block->order);
    block->target = split->target;
    split->over = block->last == split->last;
    split->first = block->last + 1;
    split->target += low_bits(block->order) + 1;
    return true;
}

/*
 * Without a limit the orders rise to the middle and fall after it. The middle is the address with
 * most zeros at its end: that of the highest bit in which first and last differ. Each bit of the
 * two distances to it is one block, unless both are whole and meet in one.
 */
static unsigned count_unlimited(uint64_t first, uint64_t last)
{
    uint64_t differ = first ^ last;
    uint64_t mask;
    uint64_t middle;

    if (!differ) {
        return 1;
    }
    mask = low_bits(highest_bit(differ) + 1);
    if (!(first & mask) && (last & mask) == mask) {
        return 1;
    }
    middle = last & ~(mask >> 1);
    /* last - middle + 1 is at most 2^63. */
    return (unsigned)__builtin_popcountll(middle - first) +
           (unsigned)__builtin_popcountll(last - middle + 1);
}

/* With one, the blocks between the first and the last border of that order all have it. */
static uint64_t count_limited(uint64_t first, uint64_t last, unsigned order)
{
    uint64_t mask = low_bits(order);
    uint64_t front = -first & mask;
    uint64_t back = (last + 1) & mask;

    /* The range has a border of the order, so front + back fit. Less one: the sum may be 2^64. */
    uint64_t middle = ((last - first - front - back + 1) & ~mask) >> order;

    return (unsigned)__builtin_popcountll(front) + (unsigned)__builtin_popcountll(back) + middle;
}

unsigned pow2_count(uint64_t first, uint64_t last)
{
    return first > last ? 0 : count_unlimited(first, last);
}

uint64_t pow2_count_with_target(uint64_t first, uint64_t last, uint64_t target)
{
    unsigned limit = alignment(first ^ target);
    uint64_t differ = first ^ last;

    if (first > last) {
        return 0;
    }
    /* Where no border of the limit's order is crossed, no block reaches it. */
    if (limit == 64 || !(differ >> limit)) {
        return count_unlimited(first, last);
    }
    return count_limited(first, last, limit);
}
