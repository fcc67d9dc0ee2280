/* SPDX-License-Identifier: BSD-2-Clause */
/* Results, their expectations, and how they are printed; see result.h. */
#include "result.h"

#include "../parse.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <viommu/types.h>

/* What a status or an answer is called. The first word of an errno is the one printed. */
static const struct {
    int error;
    const char *word;
} errno_words[] = {
    {0, "ok"},
    {VIOMMU_PENDING, "pending"},
    {-EFAULT, "refused"},
    {-EPERM, "denied"},
    {-EAGAIN, "not-started"},
    {-EINVAL, "invalid"},
    {-EEXIST, "exists"},
    {-ENOENT, "not-found"},
    {-ENXIO, "no-memory"},
    {-EROFS, "read-only"},
    {-ENOTSUP, "unsupported"},
    {-EBUSY, "busy"},
    {-EALREADY, "already"},
    {-EDEADLK, "deadlock"},
    {-ENOSPC, "full"},
    {-E2BIG, "too-big"},
    {-ERANGE, "out-of-range"},
    {-EIO, "io-error"},
    {-ETIMEDOUT, "timed-out"},
    {-ENOMEM, "host-memory"},
    {-EMFILE, "host-files"},
    {-EBADMSG, "damaged"},
    {-ENODEV, "no-device"},
    {-EPROTO, "protocol"},
    {-ELOOP, "loop"},
    {-EACCES, "not-allowed"},
    {-EADDRINUSE, "memory"},
    {-EADDRNOTAVAIL, "reserved"},
};

enum { ERRNO_WORDS = sizeof(errno_words) / sizeof(errno_words[0]) };

const char *errno_word(int error)
{
    for (unsigned i = 0; i < ERRNO_WORDS; i++) {
        if (errno_words[i].error == error) {
            return errno_words[i].word;
        }
    }
    return error > 0 ? "ok" : "failed";
}

int errno_of_word(const char *word)
{
    for (unsigned i = 0; i < ERRNO_WORDS; i++) {
        if (errno_words[i].error < 0 && !strcmp(errno_words[i].word, word)) {
            return errno_words[i].error;
        }
    }
    return 0;
}

void result_reset(struct result *result)
{
    for (unsigned i = 0; i < result->field_count; i++) {
        free(result->fields[i].text);
    }
    *result = (struct result){.status = "ok"};
}

void result_status(struct result *result, const char *status)
{
    result->status = status;
}

void result_errno(struct result *result, int error)
{
    result->status = errno_word(error);
}

/* A new field; past the limit the last one is used again, which no command comes to. */
static struct field *add(struct result *result, const char *name, enum field_kind kind)
{
    struct field *field;

    if (result->field_count == RESULT_FIELDS_MAX) {
        free(result->fields[--result->field_count].text);
    }
    field = &result->fields[result->field_count++];
    *field = (struct field){.kind = kind};
    snprintf(field->name, sizeof(field->name), "%s", name);
    return field;
}

void result_decimal(struct result *result, const char *name, uint64_t value)
{
    add(result, name, FIELD_DECIMAL)->number = value;
}

void result_hex(struct result *result, const char *name, uint64_t value)
{
    add(result, name, FIELD_HEX)->number = value;
}

void result_size(struct result *result, const char *name, uint64_t value)
{
    add(result, name, FIELD_SIZE)->number = value;
}

void result_requester(struct result *result, const char *name, uint16_t value)
{
    add(result, name, FIELD_REQUESTER)->number = value;
}

void result_word(struct result *result, const char *name, const char *value)
{
    add(result, name, FIELD_WORD)->text = strdup(value);
}

void result_text(struct result *result, const char *name, const char *value, size_t size)
{
    add(result, name, FIELD_TEXT)->text = strndup(value, size);
}

void result_switch(struct result *result, const char *name, bool on)
{
    result_word(result, name, on ? "on" : "off");
}

void result_perm(struct result *result, const char *name, uint32_t perm)
{
    static const char *const words[] = {"none", "r", "w", "rw"};

    result_word(result, name, words[perm & (VIOMMU_READ | VIOMMU_WRITE)]);
}

/* A size with the largest suffix that loses nothing. */
static void print_size(uint64_t value, char *out, size_t room)
{
    static const char suffixes[] = " kmgt";
    unsigned n = 0;

    while (value && !(value & 1023) && n < 4) {
        value >>= 10;
        n++;
    }
    if (n) {
        snprintf(out, room, "%" PRIu64 "%c", value, suffixes[n]);
    } else {
        snprintf(out, room, "%" PRIu64, value);
    }
}

/* The value as it is printed, but for quotes. `room` holds numbers. */
static const char *field_value(const struct field *field, char *room, size_t size)
{
    switch (field->kind) {
    case FIELD_DECIMAL:
        snprintf(room, size, "%" PRIu64, field->number);
        return room;
    case FIELD_HEX:
        snprintf(room, size, "0x%" PRIx64, field->number);
        return room;
    case FIELD_SIZE:
        print_size(field->number, room, size);
        return room;
    case FIELD_REQUESTER:
        snprintf(room, size, "%02x:%02x.%x", (unsigned)(field->number >> 8 & 0xff),
                 (unsigned)(field->number >> 3 & 0x1f), (unsigned)(field->number & 7));
        return room;
    default:
        return field->text ? field->text : "";
    }
}

static bool is_number(const struct field *field)
{
    return field->kind == FIELD_DECIMAL || field->kind == FIELD_HEX || field->kind == FIELD_SIZE;
}

struct check {
    const struct result *result;
    struct symbols *symbols;
    requester_names *names;
    void *opaque;
};

/* One choice of an expected value against a field. */
static bool equals_one(const struct check *check, const struct field *field, const char *expected)
{
    char room[32];
    uint64_t number;
    uint16_t requester;

    if (is_number(field)) {
        return number_value(expected, &number) && number == field->number;
    }
    if (field->kind == FIELD_REQUESTER) {
        if (parse_requester(expected, &requester) ||
            check->names(check->opaque, expected, &requester)) {
            return requester == field->number;
        }
        return number_value(expected, &number) && number == field->number;
    }
    return !strcmp(expected, field_value(field, room, sizeof(room)));
}

/* The same for a|b|c; field NULL compares with the status. A text, and nothing, is one choice. */
static bool equals(const struct check *check, const struct field *field, const char *expected)
{
    char *choices;
    char *rest;
    char *choice;
    bool found = false;

    if (!*expected || (field && field->kind == FIELD_TEXT)) {
        return field && equals_one(check, field, expected);
    }
    choices = strdup(expected);
    for (choice = strtok_r(choices, "|", &rest); choice && !found;
         choice = strtok_r(NULL, "|", &rest)) {
        found = field ? equals_one(check, field, choice) : !strcmp(check->result->status, choice);
    }
    free(choices);
    return found;
}

static const struct field *find_field(const struct result *result, const char *name)
{
    for (unsigned i = 0; i < result->field_count; i++) {
        if (!strcmp(result->fields[i].name, name)) {
            return &result->fields[i];
        }
    }
    return NULL;
}

static bool mismatch(struct complaint *complaint, const struct word *word, const char *came)
{
    snprintf(complaint->word, sizeof(complaint->word), "%s%s%s", word->key ? word->key : "",
             !word->key ? "" : word->differs ? "!=" : "=", word->value);
    snprintf(complaint->text, sizeof(complaint->text), "%s", came);
    return false;
}

static bool check_word(const struct check *check, const struct word *word,
                       struct complaint *complaint, bool *wrong)
{
    const struct field *field;
    char room[32];
    char came[400];

    if (!word->key) {
        snprintf(came, sizeof(came), "%s", check->result->status);
        return equals(check, NULL, word->value) || mismatch(complaint, word, came);
    }
    field = find_field(check->result, word->key);
    if (!field) {
        snprintf(came, sizeof(came), "%s, without a field '%s'", check->result->status, word->key);
        return mismatch(complaint, word, came);
    }
    if (word->value[0] == '?') {
        *wrong = !word->value[1] || word->differs;
        if (!*wrong) {
            symbol_set(check->symbols, word->value + 1, field_value(field, room, sizeof(room)));
        }
        return !*wrong || mismatch(complaint, word, "a symbol is set with field=?name");
    }
    snprintf(came, sizeof(came), "%s=%s", field->name, field_value(field, room, sizeof(room)));
    return equals(check, field, word->value) != word->differs || mismatch(complaint, word, came);
}

bool result_check(const struct result *result, const struct line *line, struct symbols *symbols,
                  requester_names *names, void *opaque, struct complaint *complaint, bool *wrong)
{
    struct check check = {result, symbols, names, opaque};

    *wrong = false;
    for (unsigned i = 0; i < line->expected_count; i++) {
        if (!check_word(&check, &line->expected[i], complaint, wrong)) {
            return false;
        }
    }
    return true;
}

/* A text in quotes, as line.c reads it. */
static void print_quoted(const char *text, FILE *out)
{
    fputc('"', out);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') {
            fputc('\\', out);
        }
        fputc(*text, out);
    }
    fputc('"', out);
}

static void print_value(const struct field *field, FILE *out)
{
    char room[32];
    const char *value = field_value(field, room, sizeof(room));

    if (field->kind == FIELD_TEXT) {
        print_quoted(value, out);
    } else {
        fputs(value, out);
    }
}

void result_print(const struct result *result, FILE *out)
{
    fputs(result->status, out);
    for (unsigned i = 0; i < result->field_count; i++) {
        fprintf(out, " %s=", result->fields[i].name);
        print_value(&result->fields[i], out);
    }
}

void result_print_symbols(const struct result *result, const struct line *line, FILE *out)
{
    for (unsigned i = 0; i < line->expected_count; i++) {
        const struct word *word = &line->expected[i];
        const struct field *field = word->key ? find_field(result, word->key) : NULL;

        if (field && word->value[0] == '?') {
            fprintf(out, "$%s = ", word->value + 1);
            print_value(field, out);
            fputc('\n', out);
        }
    }
}

/* Numbers that a reader of JSON might round are texts, as they are printed. */
static json_t *field_json(const struct field *field)
{
    char room[32];

    if (field->kind == FIELD_DECIMAL && field->number <= (uint64_t)1 << 53) {
        return json_integer((json_int_t)field->number);
    }
    return json_string(field_value(field, room, sizeof(room)));
}

void result_print_json(const struct result *result, const struct line *line, unsigned line_number,
                       const char *operation, bool passed, FILE *out)
{
    json_t *object = json_object();
    json_t *fields = json_object();

    for (unsigned i = 0; i < result->field_count; i++) {
        json_object_set_new(fields, result->fields[i].name, field_json(&result->fields[i]));
    }
    json_object_set_new(object, "line", json_integer(line_number));
    json_object_set_new(object, "operation", json_string(operation));
    json_object_set_new(object, "status", json_string(result->status));
    json_object_set_new(object, "fields", fields);
    if (line->has_expectation) {
        json_object_set_new(object, "passed", json_boolean(passed));
    }
    json_dumpf(object, out, JSON_COMPACT);
    fputc('\n', out);
    json_decref(object);
}
