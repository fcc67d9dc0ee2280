/* SPDX-License-Identifier: BSD-2-Clause */
/* Reading what sysfs says of an IOMMU group's reserved regions. */
#include <viommu/iova_source.h>

#include <errno.h>
#include <string.h>

/* What is left of the text. */
struct text {
    const char *at;
    const char *end;
};

static void skip_blanks(struct text *text)
{
    while (text->at < text->end && (*text->at == ' ' || *text->at == '\t')) {
        text->at++;
    }
}

static int digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* A number with 0x in front, of 64 bits at most. */
static bool read_number(struct text *text, uint64_t *out)
{
    unsigned digits = 0;

    skip_blanks(text);
    if (text->end - text->at < 3 || text->at[0] != '0' || text->at[1] != 'x') {
        return false;
    }
    text->at += 2;
    *out = 0;
    for (; text->at < text->end && digit(*text->at) >= 0; text->at++) {
        if (digits++ == 16) {
            return false;
        }
        *out = *out << 4 | (uint64_t)digit(*text->at);
    }
    return digits > 0;
}

/* The word up to the end of the line, which is passed over. */
static bool read_type(struct text *text, enum viommu_iova_type *type)
{
    const char *word;
    size_t length;

    skip_blanks(text);
    word = text->at;
    while (text->at < text->end && *text->at != '\n') {
        text->at++;
    }
    length = (size_t)(text->at - word);
    text->at += text->at < text->end;
    while (length && (word[length - 1] == ' ' || word[length - 1] == '\r')) {
        length--;
    }
    *type = VIOMMU_IOVA_RESERVED;
    for (unsigned i = 0; i < VIOMMU_IOVA_TYPES; i++) {
        const char *name = viommu_iova_type_name((enum viommu_iova_type)i);

        if (length == strlen(name) && !memcmp(name, word, length)) {
            *type = (enum viommu_iova_type)i;
        }
    }
    return length > 0;
}

int viommu_iova_read_reserved_regions(const char *text, size_t size,
                                      struct viommu_iova_request *requests, size_t *count)
{
    struct text rest = {text, text + size};
    size_t room = *count;
    size_t n = 0;

    while (rest.at < rest.end) {
        struct viommu_iova_request request = {0};

        if (*rest.at == '\n') {
            rest.at++;
            continue;
        }
        if (!read_number(&rest, &request.range.first) ||
            !read_number(&rest, &request.range.last) || !read_type(&rest, &request.type) ||
            request.range.first > request.range.last) {
            return -EIO;
        }
        if (n < room) {
            requests[n] = request;
        }
        n++;
    }
    *count = n;
    return n > room ? -ENOSPC : 0;
}
