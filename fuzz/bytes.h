/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An input that is read piece by piece: numbers are little endian; past the end everything is 0,
 * and fuzz_more() says no. Each target is a loop of operations, one byte that chooses and its
 * operands, FUZZ_STEPS_MAX at most.
 */
#ifndef VIOMMU_FUZZ_BYTES_H
#define VIOMMU_FUZZ_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FUZZ_STEPS_MAX 400

struct fuzz_input {
    const uint8_t *data;
    size_t size;
    unsigned steps;
};

static inline uint64_t fuzz_number(struct fuzz_input *input, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes && input->size; i++) {
        value |= (uint64_t)*input->data++ << (8 * i);
        input->size--;
    }
    return value;
}

static inline uint8_t fuzz_byte(struct fuzz_input *input)
{
    return (uint8_t)fuzz_number(input, 1);
}

static inline bool fuzz_more(struct fuzz_input *input)
{
    return input->size && input->steps++ < FUZZ_STEPS_MAX;
}

#endif
