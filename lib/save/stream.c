/* SPDX-License-Identifier: BSD-2-Clause */
/* Saved state: the frame, its checksum, and the numbers in it. */
#include "save/stream.h"

#include "base/alloc.h"

#include <errno.h>
#include <string.h>

#define FORMAT_VERSION 1u

/* Where the fields of the header are. */
#define HEADER_VERSION 8u
#define HEADER_SECTIONS 12u
#define HEADER_LENGTH 16u
#define HEADER_APPLICATION 24u
#define HEADER_CHECKSUM 28u
#define HEADER_SIZE 32u

/* And of a section's. */
#define SECTION_INSTANCE 4u
#define SECTION_VERSION 8u
#define SECTION_FLAGS 10u
#define SECTION_ZERO 12u
#define SECTION_LENGTH 16u
#define SECTION_SIZE 24u

#define ROOM_FIRST 1024u

static const unsigned char magic[8] = {'v', 'I', 'O', 'M', 'M', 'U', '\r', '\n'};

uint32_t save_crc32c(uint32_t crc, const void *bytes, size_t count)
{
    const unsigned char *at = bytes;
    uint32_t table[256];

    /* Made anew each time: that costs less than it takes to say when it is made. */
    for (uint32_t i = 0; i < 256; i++) {
        table[i] = i;
        for (unsigned bit = 0; bit < 8; bit++) {
            table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0x82f63b78u : 0);
        }
    }
    crc = ~crc;
    for (size_t i = 0; i < count; i++) {
        crc = crc >> 8 ^ table[(crc ^ at[i]) & 0xff];
    }
    return ~crc;
}

static void store(unsigned char *at, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        at[i] = (unsigned char)(value >> 8 * i);
    }
}

static uint64_t load(const unsigned char *at, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes; i++) {
        value |= (uint64_t)at[i] << 8 * i;
    }
    return value;
}

/* The checksum of a whole stream. */
static uint32_t checksum(const unsigned char *data, size_t size)
{
    uint32_t crc = save_crc32c(0, data, HEADER_CHECKSUM);

    return save_crc32c(crc, data + HEADER_SIZE, size - HEADER_SIZE);
}

/* ---- writing -------------------------------------------------------------------------------- */

/* Room for so many bytes more, or NULL: the error is noted. */
static unsigned char *grow(struct save_writer *writer, size_t count)
{
    size_t room = writer->room ? writer->room : ROOM_FIRST;
    unsigned char *data;

    if (writer->error) {
        return NULL;
    }
    while (room < SIZE_MAX / 2 && room - writer->size < count) {
        room *= 2;
    }
    if (room - writer->size < count) {
        writer->error = -ENOMEM;
        return NULL;
    }
    if (room != writer->room) {
        data = base_realloc_array(writer->data, room, 1);
        if (!data) {
            writer->error = -ENOMEM;
            return NULL;
        }
        writer->data = data;
        writer->room = room;
    }
    writer->size += count;
    return writer->data + writer->size - count;
}

static void put(struct save_writer *writer, uint64_t value, unsigned bytes)
{
    unsigned char *at = grow(writer, bytes);

    if (at) {
        store(at, value, bytes);
    }
}

void save_writer_init(struct save_writer *writer, enum save_application application)
{
    unsigned char *header;

    *writer = (struct save_writer){0};
    header = grow(writer, HEADER_SIZE);
    if (header) {
        memset(header, 0, HEADER_SIZE);
        memcpy(header, magic, sizeof(magic));
        store(header + HEADER_VERSION, FORMAT_VERSION, 4);
        store(header + HEADER_APPLICATION, application, 4);
    }
}

void save_writer_fini(struct save_writer *writer)
{
    base_free(writer->data);
    *writer = (struct save_writer){0};
}

void save_begin(struct save_writer *writer, uint32_t kind, uint32_t instance, uint16_t version,
                uint16_t flags)
{
    unsigned char *header = grow(writer, SECTION_SIZE);

    if (!header) {
        return;
    }
    store(header, kind, 4);
    store(header + SECTION_INSTANCE, instance, 4);
    store(header + SECTION_VERSION, version, 2);
    store(header + SECTION_FLAGS, flags, 2);
    store(header + SECTION_ZERO, 0, 4);
    store(header + SECTION_LENGTH, 0, 8);
    writer->section = writer->size - SECTION_SIZE;
    writer->sections++;
}

void save_end(struct save_writer *writer)
{
    if (!writer->error && writer->section) {
        store(writer->data + writer->section + SECTION_LENGTH,
              writer->size - writer->section - SECTION_SIZE, 8);
    }
    writer->section = 0;
}

void save_put8(struct save_writer *writer, uint8_t value)
{
    put(writer, value, 1);
}

void save_put16(struct save_writer *writer, uint16_t value)
{
    put(writer, value, 2);
}

void save_put32(struct save_writer *writer, uint32_t value)
{
    put(writer, value, 4);
}

void save_put64(struct save_writer *writer, uint64_t value)
{
    put(writer, value, 8);
}

void save_put_bytes(struct save_writer *writer, const void *bytes, size_t count)
{
    unsigned char *at = grow(writer, count);

    if (at && count) {
        memcpy(at, bytes, count);
    }
}

int save_finish(struct save_writer *writer, void **data, size_t *size)
{
    int error = writer->error;

    if (error) {
        save_writer_fini(writer);
        return error;
    }
    store(writer->data + HEADER_SECTIONS, writer->sections, 4);
    store(writer->data + HEADER_LENGTH, writer->size, 8);
    store(writer->data + HEADER_CHECKSUM, checksum(writer->data, writer->size), 4);
    *data = writer->data;
    *size = writer->size;
    *writer = (struct save_writer){0};
    return 0;
}

void save_free(void *data)
{
    base_free(data);
}

/* ---- reading -------------------------------------------------------------------------------- */

/* Takes the section that begins where the reader is. False: it does not fit into what is left. */
static bool section_take(struct save_reader *reader, struct save_section *section)
{
    uint64_t length;

    if (reader->left < SECTION_SIZE) {
        return false;
    }
    length = load(reader->at + SECTION_LENGTH, 8);
    if (length > reader->left - SECTION_SIZE || load(reader->at + SECTION_ZERO, 4)) {
        return false;
    }
    *section = (struct save_section){
        .kind = (uint32_t)load(reader->at, 4),
        .instance = (uint32_t)load(reader->at + SECTION_INSTANCE, 4),
        .version = (uint16_t)load(reader->at + SECTION_VERSION, 2),
        .flags = (uint16_t)load(reader->at + SECTION_FLAGS, 2),
        .at = reader->at + SECTION_SIZE,
        .left = (size_t)length,
    };
    reader->at += SECTION_SIZE + length;
    reader->left -= SECTION_SIZE + (size_t)length;
    return true;
}

/* Whether so many sections fill what is left. */
static bool sections_fit(struct save_reader reader, uint64_t count)
{
    struct save_section section;

    while (reader.left) {
        if (!count-- || !section_take(&reader, &section)) {
            return false;
        }
    }
    return !count;
}

int save_open(struct save_reader *reader, enum save_application application, const void *data,
              size_t size)
{
    const unsigned char *header = data;
    uint64_t version;

    *reader = (struct save_reader){0};
    if (size < HEADER_SIZE || memcmp(header, magic, sizeof(magic)) ||
        load(header + HEADER_LENGTH, 8) != size ||
        load(header + HEADER_CHECKSUM, 4) != checksum(header, size) ||
        load(header + HEADER_APPLICATION, 4) != (uint64_t)application) {
        return -EBADMSG;
    }
    version = load(header + HEADER_VERSION, 4);
    if (version != FORMAT_VERSION) {
        return version ? -ENOTSUP : -EBADMSG;
    }
    *reader = (struct save_reader){header + HEADER_SIZE, size - HEADER_SIZE};
    if (!sections_fit(*reader, load(header + HEADER_SECTIONS, 4))) {
        *reader = (struct save_reader){0};
        return -EBADMSG;
    }
    return 0;
}

bool save_next(struct save_reader *reader, struct save_section *section)
{
    return section_take(reader, section);
}

static void section_fail(struct save_section *section, int error)
{
    if (!section->error) {
        section->error = error;
    }
}

int save_accept(struct save_section *section, uint16_t newest)
{
    if (section->version > newest) {
        section_fail(section, -ENOTSUP);
    } else if (!section->version) {
        section_fail(section, -EBADMSG);
    }
    return section->error;
}

int save_unknown(const struct save_section *section)
{
    return section->flags & SAVE_OPTIONAL ? 0 : -ENOTSUP;
}

const void *save_get_bytes(struct save_section *section, size_t count)
{
    const unsigned char *at = section->at;

    if (section->error) {
        return NULL;
    }
    if (section->left < count) {
        section_fail(section, -EBADMSG);
        return NULL;
    }
    section->at += count;
    section->left -= count;
    return at;
}

static uint64_t get(struct save_section *section, unsigned bytes)
{
    const unsigned char *at = save_get_bytes(section, bytes);

    return at ? load(at, bytes) : 0;
}

uint8_t save_get8(struct save_section *section)
{
    return (uint8_t)get(section, 1);
}

uint16_t save_get16(struct save_section *section)
{
    return (uint16_t)get(section, 2);
}

uint32_t save_get32(struct save_section *section)
{
    return (uint32_t)get(section, 4);
}

uint64_t save_get64(struct save_section *section)
{
    return get(section, 8);
}

void save_spoil(struct save_section *section)
{
    section_fail(section, -EBADMSG);
}

int save_close(struct save_section *section)
{
    if (section->left) {
        section_fail(section, -EBADMSG);
    }
    return section->error;
}
