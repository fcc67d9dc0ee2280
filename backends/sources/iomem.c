/* SPDX-License-Identifier: BSD-2-Clause */
/* Reading the windows of host bridges from /proc/iomem. */
#include <viommu/iova_source.h>

#include <errno.h>
#include <string.h>

/* What is left of a line. */
struct line {
    const char *at;
    const char *end;
};

static bool skip(struct line *line, const char *text)
{
    size_t length = strlen(text);

    if ((size_t)(line->end - line->at) < length || memcmp(line->at, text, length)) {
        return false;
    }
    line->at += length;
    return true;
}

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* How far a line is set in: what is inside something else is, by two more. */
static size_t take_depth(struct line *line)
{
    size_t depth = 0;

    for (; line->at < line->end && *line->at == ' '; line->at++) {
        depth++;
    }
    return depth;
}

/* A hexadecimal number without 0x, of 64 bits at most. */
static bool read_number(struct line *line, uint64_t *out)
{
    unsigned digits = 0;

    *out = 0;
    for (; line->at < line->end && digit(*line->at) >= 0; line->at++) {
        if (digits++ == 16) {
            return false;
        }
        *out = *out << 4 | (uint64_t)digit(*line->at);
    }
    return digits > 0;
}

static struct line take_line(const char **text, const char *end)
{
    const char *newline = memchr(*text, '\n', (size_t)(end - *text));
    struct line line = {*text, newline ? newline : end};

    *text = newline ? newline + 1 : end;
    return line;
}

int viommu_iova_read_iomem(const char *text, size_t size, struct viommu_iova_request *requests,
                           size_t *count)
{
    const char *end = text + size;
    size_t room = *count;
    size_t outer = SIZE_MAX; /* how far the window is set in that this may be inside of */
    bool seen = false;
    size_t lines = 0;
    size_t n = 0;

    while (text < end) {
        struct line line = take_line(&text, end);
        struct viommu_iova_request request = {.type = VIOMMU_IOVA_P2P};
        size_t depth = take_depth(&line);

        if (line.at == line.end) {
            continue;
        }
        if (!read_number(&line, &request.range.first) || !skip(&line, "-") ||
            !read_number(&line, &request.range.last) || !skip(&line, " : ") ||
            request.range.first > request.range.last) {
            return -EIO;
        }
        lines++;
        seen = seen || request.range.last;
        /* A window of the host bridge may be inside something else, such as "Reserved". */
        outer = depth <= outer ? SIZE_MAX : outer;
        if (outer == SIZE_MAX && skip(&line, "PCI Bus ")) {
            outer = depth;
            if (n < room) {
                requests[n] = request;
            }
            n++;
        }
    }
    if (lines && !seen) {
        return -EACCES;
    }
    *count = n;
    return n > room ? -ENOSPC : 0;
}
