/* SPDX-License-Identifier: BSD-2-Clause */
/* The arguments of an operation, read as what they mean; see run.h. */
#include "run.h"

#include "../parse.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum {
    /* Data that one operation writes; more would be a slip of the pen. */
    DATA_MAX = 16 << 20,
};

bool arg_given(const struct run *run, const char *name)
{
    return line_argument(&run->line, name) != NULL;
}

bool arg_flag(const struct run *run, const char *name)
{
    return arg_given(run, name);
}

bool arg_text(struct run *run, const char *name, const char **out)
{
    const struct word *word = line_argument(&run->line, name);

    if (word) {
        *out = word->value;
    }
    return true;
}

bool arg_number(struct run *run, const char *name, uint64_t *out)
{
    const struct word *word = line_argument(&run->line, name);

    if (word && !number_value(word->value, out)) {
        run_error(run, word->value, "%s is a number: decimal, or 0x and hexadecimal, then k, m, g "
                  "or t", name);
        return false;
    }
    return true;
}

bool arg_number_max(struct run *run, const char *name, uint64_t max, uint64_t *out)
{
    const struct word *word = line_argument(&run->line, name);
    uint64_t value;

    if (!word) {
        return true;
    }
    if (!arg_number(run, name, &value)) {
        return false;
    }
    if (value > max) {
        run_error(run, word->value, "%s is at most %llu", name, (unsigned long long)max);
        return false;
    }
    *out = value;
    return true;
}

bool arg_choice(struct run *run, const char *name, const char *const *words, unsigned *out)
{
    const struct word *word = line_argument(&run->line, name);
    char all[256] = "";

    if (!word) {
        return true;
    }
    for (unsigned i = 0; words[i]; i++) {
        if (!strcmp(words[i], word->value)) {
            *out = i;
            return true;
        }
        snprintf(all + strlen(all), sizeof(all) - strlen(all), "%s%s", i ? ", " : "", words[i]);
    }
    run_error(run, word->value, "%s is one of: %s", name, all);
    return false;
}

bool arg_switch(struct run *run, const char *name, bool *out)
{
    static const char *const words[] = {"off", "on", NULL};
    unsigned value = *out;

    if (!arg_choice(run, name, words, &value)) {
        return false;
    }
    *out = value;
    return true;
}

bool arg_perm(struct run *run, const char *name, uint32_t *out)
{
    static const char *const words[] = {"none", "r", "w", "rw", NULL};
    unsigned value = *out;

    if (!arg_choice(run, name, words, &value)) {
        return false;
    }
    *out = value;
    return true;
}

bool arg_requester(struct run *run, const char *name, uint16_t *out)
{
    const struct word *word = line_argument(&run->line, name);
    const struct device *device;
    uint64_t number;

    if (!word || parse_requester(word->value, out)) {
        return true;
    }
    device = device_find(run, word->value);
    if (device) {
        *out = viommu_device_requester(device_handle(device));
        return true;
    }
    if (!number_value(word->value, &number) || number > UINT16_MAX) {
        run_error(run, word->value, "%s is a device's name or a requester id, as 00:03.0", name);
        return false;
    }
    *out = (uint16_t)number;
    return true;
}

bool arg_duration(struct run *run, const char *name, uint64_t *out)
{
    const struct word *word = line_argument(&run->line, name);

    if (word && !duration_value(word->value + (word->value[0] == '+'), out)) {
        run_error(run, word->value, "%s is a time, as 500ms: a number and ns, us, ms or s", name);
        return false;
    }
    return true;
}

/* Hexadecimal digits, two a byte. */
static bool decode_hex(const char *text, uint8_t *out)
{
    for (size_t i = 0; text[i]; i++) {
        int digit;

        if (!isxdigit((unsigned char)text[i])) {
            return false;
        }
        digit = isdigit((unsigned char)text[i]) ? text[i] - '0'
                                                : tolower((unsigned char)text[i]) - 'a' + 10;
        out[i / 2] = (uint8_t)(out[i / 2] << 4 | digit);
    }
    return true;
}

/* Bytes that differ from one another and from seed to seed, the same in every run. */
static void make_pattern(uint64_t seed, uint8_t *out, size_t size)
{
    uint64_t state = seed * 0x9e3779b97f4a7c15 + 0x632be59bd9b4e019;

    for (size_t i = 0; i < size; i++) {
        state = state * 6364136223846793005 + 1442695040888963407;
        out[i] = (uint8_t)(state >> 56);
    }
}

/* The name of the one data argument that is given, NULL with an error when it is not one. */
static const char *data_argument(struct run *run)
{
    static const char *const names[] = {"text", "data", "fill", "pattern",
                                        "u8",   "u16",  "u32",  "u64"};
    const char *found = NULL;

    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (!arg_given(run, names[i])) {
            continue;
        }
        if (found) {
            run_error(run, names[i], "%s= and %s= are both given", found, names[i]);
            return NULL;
        }
        found = names[i];
    }
    if (!found) {
        run_error(run, NULL,
                  "what to write? text=, data=, fill=, pattern=, u8=, u16=, u32= or u64=");
    }
    return found;
}

static bool data_of_length(struct run *run, const char *name, uint8_t **out, size_t *size)
{
    bool fill = !strcmp(name, "fill");
    uint64_t value = 0;
    uint64_t length = 0;

    if (!arg_given(run, "len")) {
        run_error(run, name, "len= is missing");
        return false;
    }
    if (!arg_number_max(run, name, fill ? UINT8_MAX : UINT64_MAX, &value) ||
        !arg_number_max(run, "len", DATA_MAX, &length)) {
        return false;
    }
    *size = (size_t)length;
    *out = run_alloc(*size);
    if (fill) {
        memset(*out, (int)value, *size);
    } else {
        make_pattern(value, *out, *size);
    }
    return true;
}

static bool data_number(struct run *run, const char *name, uint8_t **out, size_t *size)
{
    size_t bits = (size_t)atoi(name + 1);
    uint64_t value = 0;

    if (!arg_number_max(run, name, UINT64_MAX >> (64 - bits), &value)) {
        return false;
    }
    *size = bits / 8;
    *out = run_alloc(*size);
    for (size_t i = 0; i < *size; i++) {
        (*out)[i] = (uint8_t)(value >> 8 * i);
    }
    return true;
}

static bool data_hex(struct run *run, const char *text, uint8_t **out, size_t *size)
{
    size_t digits = strlen(text);

    *size = digits / 2;
    *out = run_alloc(*size);
    if (digits % 2 || !decode_hex(text, *out)) {
        run_error(run, text, "data is hexadecimal digits, two a byte");
        free(*out);
        return false;
    }
    return true;
}

static bool data_once(struct run *run, uint8_t **out, size_t *size)
{
    const char *name = data_argument(run);
    const char *text;

    if (!name) {
        return false;
    }
    if (!strcmp(name, "fill") || !strcmp(name, "pattern")) {
        return data_of_length(run, name, out, size);
    }
    if (arg_given(run, "len")) {
        run_error(run, "len", "len= goes with fill= and pattern= only");
        return false;
    }
    if (name[0] == 'u') {
        return data_number(run, name, out, size);
    }
    text = line_argument(&run->line, name)->value;
    if (!strcmp(name, "data")) {
        return data_hex(run, text, out, size);
    }
    *size = strlen(text);
    *out = run_alloc(*size);
    memcpy(*out, text, *size);
    return true;
}

bool arg_data(struct run *run, uint8_t **out, size_t *size)
{
    uint64_t times = 1;
    uint8_t *all;
    uint8_t *once;

    if (!arg_number_max(run, "repeat", DATA_MAX, &times) || !data_once(run, &once, size)) {
        return false;
    }
    if (times * *size > DATA_MAX) {
        run_error(run, "repeat", "this is more than 16m of data");
        free(once);
        return false;
    }
    all = run_alloc((size_t)times * *size);
    for (size_t i = 0; i < times; i++) {
        memcpy(all + i * *size, once, *size);
    }
    free(once);
    *out = all;
    *size *= (size_t)times;
    return true;
}

void *run_alloc(size_t size)
{
    void *memory = calloc(1, size ? size : 1);

    if (!memory) {
        fputs("viommu run: out of memory\n", stderr);
        exit(EXIT_FAILURE);
    }
    return memory;
}

char *run_copy_text(const char *text)
{
    char *copied = run_alloc(strlen(text) + 1);

    strcpy(copied, text);
    return copied;
}
