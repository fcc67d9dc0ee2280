/* SPDX-License-Identifier: BSD-2-Clause */
/* Numbers and requester ids as people write them; see parse.h. */
#include "parse.h"

/* The value of a digit in the base, or -1. */
static int digit_value(char c, unsigned base)
{
    int value = -1;

    if (c >= '0' && c <= '9') {
        value = c - '0';
    } else if (c >= 'a' && c <= 'f') {
        value = c - 'a' + 10;
    } else if (c >= 'A' && c <= 'F') {
        value = c - 'A' + 10;
    }
    return value < (int)base ? value : -1;
}

/* Digits of the base, at least one; false too when the value does not fit. */
static bool parse_digits(const char **text, unsigned base, uint64_t *out)
{
    const char *at = *text;
    uint64_t value = 0;

    if (digit_value(*at, base) < 0) {
        return false;
    }
    for (; digit_value(*at, base) >= 0; at++) {
        uint64_t next;

        if (__builtin_mul_overflow(value, (uint64_t)base, &next) ||
            __builtin_add_overflow(next, (uint64_t)digit_value(*at, base), &next)) {
            return false;
        }
        value = next;
    }
    *text = at;
    *out = value;
    return true;
}

/* How far a suffix shifts; 0 when c is none. */
static unsigned suffix_shift(char c)
{
    switch (c) {
    case 'k':
    case 'K':
        return 10;
    case 'm':
    case 'M':
        return 20;
    case 'g':
    case 'G':
        return 30;
    case 't':
    case 'T':
        return 40;
    default:
        return 0;
    }
}

bool parse_number_part(const char **text, uint64_t *out)
{
    const char *at = *text;
    uint64_t value;
    unsigned shift;

    if (at[0] == '0' && (at[1] == 'x' || at[1] == 'X')) {
        at += 2;
        if (!parse_digits(&at, 16, &value)) {
            return false;
        }
    } else if (!parse_digits(&at, 10, &value)) {
        return false;
    }
    shift = suffix_shift(*at);
    if (shift) {
        if (value > UINT64_MAX >> shift) {
            return false;
        }
        value <<= shift;
        at++;
    }
    *text = at;
    *out = value;
    return true;
}

bool parse_number(const char *text, uint64_t *out)
{
    return parse_number_part(&text, out) && !*text;
}

bool parse_bus_part(const char **text, uint8_t *bus)
{
    const char *at = *text;
    uint64_t value;

    if (!parse_digits(&at, 16, &value) || value > 0xff || *at != ':') {
        return false;
    }
    *bus = (uint8_t)value;
    *text = at + 1;
    return true;
}

bool parse_function_part(const char **text, uint8_t *device, uint8_t *function)
{
    const char *at = *text;
    uint64_t value;

    if (!parse_digits(&at, 16, &value) || value > 0x1f || *at != '.') {
        return false;
    }
    *device = (uint8_t)value;
    at++;
    if (*at < '0' || *at > '7') {
        return false;
    }
    *function = (uint8_t)(*at - '0');
    *text = at + 1;
    return true;
}

bool parse_requester(const char *text, uint16_t *out)
{
    uint8_t bus;
    uint8_t device;
    uint8_t function;

    if (!parse_bus_part(&text, &bus) || !parse_function_part(&text, &device, &function) || *text) {
        return false;
    }
    *out = (uint16_t)(bus << 8 | device << 3 | function);
    return true;
}
