/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Saved states as inputs: an input becomes a stream of which length and checksum are right
 * (save/stream.h), so that what is in it is decoded.
 */
#ifndef VIOMMU_FUZZ_SEALED_H
#define VIOMMU_FUZZ_SEALED_H

#include <stddef.h>
#include <stdint.h>

#include "save/stream.h"

enum {
    SEALED_HEADER_SIZE = 32,
    SEALED_LENGTH_AT = 16,
    SEALED_CHECKSUM_AT = 28,
};

/* `size` is that of a header at least. */
static inline void sealed_mend(unsigned char *bytes, size_t size)
{
    uint32_t crc;

    for (unsigned i = 0; i < 8; i++) {
        bytes[SEALED_LENGTH_AT + i] = (unsigned char)((uint64_t)size >> 8 * i);
    }
    crc = save_crc32c(0, bytes, SEALED_CHECKSUM_AT);
    crc = save_crc32c(crc, bytes + SEALED_HEADER_SIZE, size - SEALED_HEADER_SIZE);
    for (unsigned i = 0; i < 4; i++) {
        bytes[SEALED_CHECKSUM_AT + i] = (unsigned char)(crc >> 8 * i);
    }
}

#endif
