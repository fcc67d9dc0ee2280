/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A small reader of JSON; capabilities.h says what for.
 *
 * One pass, from left to right. `depth` is how many objects and arrays are open; a `place` is which
 * object a value is a member of, as far as that matters. A name with an escape in it is none that
 * does.
 */
#include "vfio_user/capabilities.h"

#include <errno.h>
#include <string.h>

#include "vfio_user/protocol.h"

enum {
    TEXT_MAX = 16384,
    DEPTH_MAX = 16,
};

/* Where in the text we are: which object, as far as that matters. */
enum place {
    PLACE_OUTER,
    PLACE_CAPABILITIES,
    PLACE_TWIN_SOCKET,
    PLACE_ELSEWHERE,
};

struct text {
    const uint8_t *at;
    const uint8_t *end;
    unsigned depth;
    struct vfio_user_far_capabilities *out;
    bool has_index;
};

struct name {
    const uint8_t *first;
    size_t size;
};

static bool read_value(struct text *text, enum place place, const struct name *name);

static void skip_space(struct text *text)
{
    while (text->at < text->end &&
           (*text->at == ' ' || *text->at == '\t' || *text->at == '\n' || *text->at == '\r')) {
        text->at++;
    }
}

/* The next byte that is no space; 0 at the end. */
static uint8_t peek(struct text *text)
{
    skip_space(text);
    return text->at < text->end ? *text->at : 0;
}

static bool take(struct text *text, uint8_t byte)
{
    if (peek(text) != byte) {
        return false;
    }
    text->at++;
    return true;
}

static bool take_word(struct text *text, const char *word)
{
    size_t size = strlen(word);

    if ((size_t)(text->end - text->at) < size || memcmp(text->at, word, size) != 0) {
        return false;
    }
    text->at += size;
    return true;
}

static bool name_is(const struct name *name, const char *word)
{
    return name->size == strlen(word) && memcmp(name->first, word, name->size) == 0;
}

/* A string, its bytes as they stand there. */
static bool read_string(struct text *text, struct name *string)
{
    if (!take(text, '"')) {
        return false;
    }
    string->first = text->at;
    while (text->at < text->end) {
        uint8_t byte = *text->at++;

        if (byte == '"') {
            string->size = (size_t)(text->at - 1 - string->first);
            return true;
        }
        if (byte < 0x20) {
            return false;
        }
        if (byte == '\\') {
            if (text->at == text->end) {
                return false;
            }
            text->at++;
        }
    }
    return false;
}

static bool is_digit(const struct text *text)
{
    return text->at < text->end && *text->at >= '0' && *text->at <= '9';
}

static bool skip_digits(struct text *text)
{
    if (!is_digit(text)) {
        return false;
    }
    while (is_digit(text)) {
        text->at++;
    }
    return true;
}

/* Any number; *plain tells whether it is one without sign, fraction and exponent that fits. */
static bool read_number(struct text *text, uint64_t *value, bool *plain)
{
    *value = 0;
    *plain = *text->at != '-';
    text->at += !*plain;
    if (!is_digit(text)) {
        return false;
    }
    while (is_digit(text)) {
        uint64_t digit = (uint64_t)(*text->at++ - '0');

        *plain = *plain && *value <= (UINT64_MAX - digit) / 10;
        *value = *value * 10 + digit;
    }
    if (text->at < text->end && *text->at == '.') {
        text->at++;
        *plain = false;
        if (!skip_digits(text)) {
            return false;
        }
    }
    if (text->at < text->end && (*text->at | 0x20) == 'e') {
        text->at++;
        *plain = false;
        if (text->at < text->end && (*text->at == '+' || *text->at == '-')) {
            text->at++;
        }
        if (!skip_digits(text)) {
            return false;
        }
    }
    return true;
}

/* Where a number of this name goes; NULL: it does not matter. */
static uint64_t *number_of(struct text *text, enum place place, const struct name *name)
{
    if (place == PLACE_TWIN_SOCKET && name_is(name, "fd_index")) {
        text->has_index = true;
        return &text->out->twin_fd_index;
    }
    if (place != PLACE_CAPABILITIES) {
        return NULL;
    }
    if (name_is(name, "max_msg_fds")) {
        return &text->out->max_msg_fds;
    }
    if (name_is(name, "max_data_xfer_size")) {
        return &text->out->max_data_xfer_size;
    }
    if (name_is(name, "max_dma_maps")) {
        return &text->out->max_dma_maps;
    }
    return name_is(name, "pgsizes") ? &text->out->pgsizes : NULL;
}

/* Which object an object of this name is. */
static enum place place_of(enum place place, const struct name *name)
{
    if (place == PLACE_OUTER && name_is(name, "capabilities")) {
        return PLACE_CAPABILITIES;
    }
    if (place == PLACE_CAPABILITIES && name_is(name, "twin_socket")) {
        return PLACE_TWIN_SOCKET;
    }
    return PLACE_ELSEWHERE;
}

static bool read_object(struct text *text, enum place place)
{
    if (!take(text, '{') || ++text->depth > DEPTH_MAX) {
        return false;
    }
    if (!take(text, '}')) {
        do {
            struct name name;

            if (!read_string(text, &name) || !take(text, ':') || !read_value(text, place, &name)) {
                return false;
            }
        } while (take(text, ','));
        if (!take(text, '}')) {
            return false;
        }
    }
    text->depth--;
    return true;
}

static bool read_array(struct text *text)
{
    static const struct name none = {(const uint8_t *)"", 0};

    if (!take(text, '[') || ++text->depth > DEPTH_MAX) {
        return false;
    }
    if (!take(text, ']')) {
        do {
            if (!read_value(text, PLACE_ELSEWHERE, &none)) {
                return false;
            }
        } while (take(text, ','));
        if (!take(text, ']')) {
            return false;
        }
    }
    text->depth--;
    return true;
}

static bool read_flag(struct text *text, bool *value)
{
    *value = *text->at == 't';
    return take_word(text, *value ? "true" : "false");
}

/* A value of a member that matters; it is one of the kind that it should be. */
static bool read_wanted(struct text *text, enum place place, const struct name *name, bool *wanted)
{
    uint64_t *number = number_of(text, place, name);
    bool plain;

    *wanted = true;
    if (number) {
        uint8_t byte = *text->at;

        return byte >= '0' && byte <= '9' && read_number(text, number, &plain) && plain;
    }
    if (place == PLACE_TWIN_SOCKET && name_is(name, "supported")) {
        return read_flag(text, &text->out->twin_socket);
    }
    if (place_of(place, name) != PLACE_ELSEWHERE) {
        return read_object(text, place_of(place, name));
    }
    *wanted = false;
    return true;
}

static bool read_value(struct text *text, enum place place, const struct name *name)
{
    struct name string;
    uint64_t number;
    bool flag;

    peek(text);
    if (text->at == text->end) {
        return false;
    }
    if (!read_wanted(text, place, name, &flag)) {
        return false;
    }
    if (flag) {
        return true;
    }
    switch (*text->at) {
    case '{':
        return read_object(text, PLACE_ELSEWHERE);
    case '[':
        return read_array(text);
    case '"':
        return read_string(text, &string);
    case 't':
    case 'f':
        return read_flag(text, &flag);
    case 'n':
        return take_word(text, "null");
    default:
        return read_number(text, &number, &flag);
    }
}

int vfio_user_far_capabilities_parse(const uint8_t *bytes, size_t size,
                                     struct vfio_user_far_capabilities *capabilities)
{
    struct text text = {.at = bytes, .out = capabilities};

    *capabilities = (struct vfio_user_far_capabilities){
        .max_msg_fds = 1,
        .max_data_xfer_size = VFIO_USER_MAX_DATA,
        .max_dma_maps = VFIO_USER_MAX_DMA_REGIONS,
        .pgsizes = VFIO_USER_PAGE_SIZES,
    };
    size = size ? strnlen((const char *)bytes, size) : 0;
    if (size == 0) {
        return 0;
    }
    text.end = bytes + size;
    if (size > TEXT_MAX || !read_object(&text, PLACE_OUTER) || peek(&text) != 0 ||
        text.at != text.end || (capabilities->twin_socket && !text.has_index) ||
        !capabilities->max_data_xfer_size || !capabilities->max_dma_maps ||
        !capabilities->pgsizes) {
        return -EPROTO;
    }
    return 0;
}
