/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A saved stream (save/stream.h) in pieces, its sections, which an input changes: one byte that
 * chooses (enum piece_change), and operands. Numbers in it are little endian, as the machine's are.
 */
#ifndef VIOMMU_FUZZ_PIECES_H
#define VIOMMU_FUZZ_PIECES_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "sealed.h"

enum piece_change {
    PUT,     /* section, place (2 bytes), the byte that is put there */
    CUT,     /* section, by how much (2) it becomes shorter */
    REPLACE, /* section, length (2), its bytes from then on */
    DROP,    /* section */
    SWAP,    /* two sections */
    REPEAT,  /* section: it comes again after itself */
    HEAD,    /* section, place, byte: in what is before its bytes */
    INSERT,  /* section, place (2), length, bytes */
    FRAME,   /* place, byte: in the header of the whole */
    SHORTER, /* by how much (2) the whole becomes shorter */
    PIECES_CHANGES,
};

enum {
    PIECES_FRAME = SEALED_HEADER_SIZE,
    PIECES_COUNT_AT = 12,
    PIECES_HEAD = 24, /* before the bytes of a section */
    PIECES_FLAGS_AT = 10, /* kind, instance and version are before */
    PIECES_LENGTH_AT = 16,
    PIECES_MAX = 16,
};

struct piece {
    uint8_t head[PIECES_HEAD];
    uint8_t *body;
    size_t size;
};

/* A stream in pieces. */
struct pieces {
    uint8_t frame[PIECES_FRAME];
    struct piece pieces[PIECES_MAX];
    unsigned count;
    size_t shorter;
};

/* From malloc; `bytes` NULL: zeros. */
static inline uint8_t *pieces_copy(const uint8_t *bytes, size_t size)
{
    uint8_t *copy = calloc(1, size + 1);

    if (!copy) {
        abort();
    }
    if (bytes) {
        memcpy(copy, bytes, size);
    }
    return copy;
}

static inline void pieces_take(struct pieces *pieces, const uint8_t *bytes, size_t whole)
{
    size_t at = PIECES_FRAME;

    memset(pieces, 0, sizeof(*pieces));
    memcpy(pieces->frame, bytes, PIECES_FRAME);
    while (at < whole && pieces->count < PIECES_MAX) {
        struct piece *piece = &pieces->pieces[pieces->count++];
        uint64_t size;

        memcpy(piece->head, bytes + at, PIECES_HEAD);
        memcpy(&size, piece->head + PIECES_LENGTH_AT, sizeof(size));
        piece->size = (size_t)size;
        piece->body = pieces_copy(bytes + at + PIECES_HEAD, piece->size);
        at += PIECES_HEAD + piece->size;
    }
}

static inline void pieces_fini(struct pieces *pieces)
{
    for (unsigned i = 0; i < pieces->count; i++) {
        free(pieces->pieces[i].body);
    }
    pieces->count = 0;
}

/* The whole as it is now, from malloc; sealed: its length and checksum are right. */
static inline uint8_t *pieces_join(const struct pieces *pieces, bool sealed, size_t *size)
{
    size_t whole = PIECES_FRAME, at = PIECES_FRAME;
    uint8_t *bytes;

    for (unsigned i = 0; i < pieces->count; i++) {
        whole += PIECES_HEAD + pieces->pieces[i].size;
    }
    bytes = pieces_copy(NULL, whole);
    memcpy(bytes, pieces->frame, PIECES_FRAME);
    for (unsigned i = 0; i < pieces->count; i++) {
        const struct piece *piece = &pieces->pieces[i];

        memcpy(bytes + at, piece->head, PIECES_HEAD);
        memcpy(bytes + at + PIECES_HEAD, piece->body, piece->size);
        at += PIECES_HEAD + piece->size;
    }
    *size = whole - (pieces->shorter < whole ? pieces->shorter : whole);
    if (sealed && *size >= PIECES_FRAME) {
        sealed_mend(bytes, *size);
    }
    return bytes;
}

static inline struct piece *pieces_any(struct pieces *pieces, struct fuzz_input *input)
{
    unsigned which = fuzz_byte(input);

    return pieces->count > 0 ? &pieces->pieces[which % pieces->count] : NULL;
}

static inline void pieces_resize(struct piece *piece, size_t size)
{
    uint8_t *body = pieces_copy(NULL, size);
    uint64_t length = size;

    memcpy(body, piece->body, size < piece->size ? size : piece->size);
    free(piece->body);
    piece->body = body;
    piece->size = size;
    memcpy(piece->head + PIECES_LENGTH_AT, &length, sizeof(length));
}

static inline void pieces_fill(struct piece *piece, size_t at, size_t count,
                               struct fuzz_input *input)
{
    for (size_t i = 0; i < count; i++) {
        piece->body[at + i] = fuzz_byte(input);
    }
}

static inline void pieces_insert(struct piece *piece, struct fuzz_input *input)
{
    size_t at = (size_t)fuzz_number(input, 2) % (piece->size + 1), count = fuzz_byte(input);
    size_t rest = piece->size - at;

    pieces_resize(piece, piece->size + count);
    memmove(piece->body + at + count, piece->body + at, rest);
    pieces_fill(piece, at, count, input);
}

static inline void pieces_count(struct pieces *pieces)
{
    uint32_t count = pieces->count;

    memcpy(pieces->frame + PIECES_COUNT_AT, &count, sizeof(count));
}

static inline void pieces_drop(struct pieces *pieces, struct piece *piece)
{
    size_t after = (size_t)(&pieces->pieces[--pieces->count] - piece);

    free(piece->body);
    memmove(piece, piece + 1, after * sizeof(*piece));
    pieces_count(pieces);
}

static inline void pieces_repeat(struct pieces *pieces, struct piece *piece)
{
    size_t after;

    if (pieces->count == PIECES_MAX) {
        return;
    }
    after = (size_t)(&pieces->pieces[pieces->count++] - piece);
    memmove(piece + 1, piece, after * sizeof(*piece));
    piece[1].body = pieces_copy(piece->body, piece->size);
    pieces_count(pieces);
}

static inline void pieces_change_one(struct pieces *pieces, enum piece_change what,
                                     struct piece *piece, struct fuzz_input *input)
{
    struct piece other, *second;
    size_t at;

    switch (what) {
    case PUT:
        at = (size_t)fuzz_number(input, 2);
        if (piece->size > 0) {
            piece->body[at % piece->size] = fuzz_byte(input);
        }
        break;
    case CUT:
        at = (size_t)fuzz_number(input, 2);
        pieces_resize(piece, at < piece->size ? piece->size - at : 0);
        break;
    case REPLACE:
        at = (size_t)fuzz_number(input, 2);
        pieces_resize(piece, at < input->size ? at : input->size);
        pieces_fill(piece, 0, piece->size, input);
        break;
    case DROP:
        pieces_drop(pieces, piece);
        break;
    case SWAP:
        second = pieces_any(pieces, input);
        other = *piece;
        *piece = *second;
        *second = other;
        break;
    case REPEAT:
        pieces_repeat(pieces, piece);
        break;
    case HEAD:
        at = fuzz_byte(input) % PIECES_HEAD;
        piece->head[at] = fuzz_byte(input);
        break;
    default:
        pieces_insert(piece, input);
        break;
    }
}

static inline void pieces_change(struct pieces *pieces, enum piece_change what,
                                 struct fuzz_input *input)
{
    struct piece *piece = what < FRAME ? pieces_any(pieces, input) : NULL;
    size_t at;

    if (piece) {
        pieces_change_one(pieces, what, piece, input);
    } else if (what == FRAME) {
        at = fuzz_byte(input) % PIECES_FRAME;
        pieces->frame[at] = fuzz_byte(input);
    } else if (what == SHORTER) {
        pieces->shorter += (size_t)fuzz_number(input, 2);
    }
}

#endif
