/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The format of saved state: sections in a frame that tells whether it is whole.
 *
 * Nothing here knows what is saved. The library keeps an instance in such a stream, the server its
 * devices, each in sections of its own kinds.
 *
 * Structure. All numbers are little endian and of fixed width, and follow one another without gaps.
 *   header   magic (8 bytes), format version (4), sections (4), length of the whole in bytes (8),
 *            application (4), checksum (4)
 *   section  kind (4), instance (4), version (2), flags (2), zero (4), length of its body (8), body
 * The checksum is CRC-32C over all bytes but its own four. Every version of the format has this
 * header, so that damage is told from novelty. *Application* says whose kinds the sections have.
 *
 * A reader looks at the frame as a whole first: header, length, checksum, and that the sections
 * fill it exactly. Then sections are read one by one; none is read past its end.
 *
 * Errors, one for each situation:
 *   -EBADMSG  this is no such stream, or of another application, or was cut short or changed; or a
 *             section has more or less in it than its version says
 *   -ENOTSUP  the stream is whole, and newer than this program: its format, the version of a
 *             section, or a section that must be understood and is not known
 * Both writer and section remember their first error: what is asked of them after it does nothing,
 * and reads give 0. So a caller looks once, at the end.
 *
 * Locking: none.
 */
#ifndef VIOMMU_SAVE_STREAM_H
#define VIOMMU_SAVE_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Applications. */
enum save_application {
    SAVE_INSTANCE = 1, /* viommu_save */
    SAVE_SERVER = 2,   /* viommu serve */
    SAVE_IOVA = 3,     /* viommu_iova_save */
    SAVE_TZMPC = 4,    /* viommu_tzmpc_save */
};

/* Flags of a section. */
#define SAVE_OPTIONAL 1u /* who does not know its kind may pass over it */

struct save_writer {
    unsigned char *data;
    size_t size;
    size_t room;
    size_t section; /* where the header of the open section is; 0: none is open */
    uint32_t sections;
    int error;
};

/* Begins a stream. What was written is given up by save_writer_fini, or taken by finish. */
void save_writer_init(struct save_writer *writer, enum save_application application);
void save_writer_fini(struct save_writer *writer);

/*
 * Begins a section; everything that is put until the end is its body. `instance` tells sections of
 * one kind from another. `version` counts from 1. Sections do not nest.
 */
void save_begin(struct save_writer *writer, uint32_t kind, uint32_t instance, uint16_t version,
                uint16_t flags);
void save_end(struct save_writer *writer);

void save_put8(struct save_writer *writer, uint8_t value);
void save_put16(struct save_writer *writer, uint16_t value);
void save_put32(struct save_writer *writer, uint32_t value);
void save_put64(struct save_writer *writer, uint64_t value);
void save_put_bytes(struct save_writer *writer, const void *bytes, size_t count);

/*
 * Completes the stream and hands it over: give it back by save_free. Returns 0 or -ENOMEM; the
 * writer is empty then, whatever is returned.
 */
int save_finish(struct save_writer *writer, void **data, size_t *size);
void save_free(void *data);

/* A stream that is being read; it points into what it was opened with. */
struct save_reader {
    const unsigned char *at;
    size_t left;
};

/* One section of it, and how far it was read. */
struct save_section {
    uint32_t kind;
    uint32_t instance;
    uint16_t version;
    uint16_t flags;
    const unsigned char *at;
    size_t left;
    int error;
};

/*
 * Checks the whole frame. Returns 0, -EBADMSG, or -ENOTSUP for a newer format. The bytes stay in
 * place, and unchanged, while the reader and its sections are used.
 */
int save_open(struct save_reader *reader, enum save_application application, const void *data,
              size_t size);

/* The next section, in the order in which they were written. False: there is none. */
bool save_next(struct save_reader *reader, struct save_section *section);

/*
 * Whether a section's version is one from 1 to `newest`: 0, or -ENOTSUP, which it remembers. (0 is
 * no version: -EBADMSG.)
 */
int save_accept(struct save_section *section, uint16_t newest);

/* What to do with a section whose kind is not known: 0: pass over it; -ENOTSUP. */
int save_unknown(const struct save_section *section);

uint8_t save_get8(struct save_section *section);
uint16_t save_get16(struct save_section *section);
uint32_t save_get32(struct save_section *section);
uint64_t save_get64(struct save_section *section);
/* The next `count` bytes, in place; NULL where there are not so many. */
const void *save_get_bytes(struct save_section *section, size_t count);

/* Notes that what was read makes no sense: -EBADMSG, unless there was an error before. */
void save_spoil(struct save_section *section);

/* Ends the reading of a section. Returns its error; -EBADMSG where something was left. */
int save_close(struct save_section *section);

/* CRC-32C of bytes; `crc` is that of what comes before them, or 0. */
uint32_t save_crc32c(uint32_t crc, const void *bytes, size_t count);

#endif
