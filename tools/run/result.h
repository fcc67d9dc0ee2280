/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The result of an operation: a status word and named fields, and the expectation of them.
 *
 * It is printed in the form in which it is expected, so what a run prints is itself a scenario. An
 * expectation is words: a bare one is the status, `field=value` a field that must equal,
 * `field!=value` one that must differ. Each value may be a choice, `a|b`. `field=?name` expects
 * nothing and gives the field's value to a symbol.
 */
#ifndef VIOMMU_TOOLS_RUN_RESULT_H
#define VIOMMU_TOOLS_RUN_RESULT_H

#include "line.h"

#include <stdio.h>

enum { RESULT_FIELDS_MAX = 128 };

enum field_kind {
    FIELD_DECIMAL,
    FIELD_HEX,
    FIELD_SIZE,      /* with a suffix where it is round: 4k */
    FIELD_REQUESTER, /* BUS:DEV.FN */
    FIELD_WORD,
    FIELD_TEXT, /* printed in quotes */
};

struct field {
    char name[LINE_NAME_MAX];
    enum field_kind kind;
    uint64_t number;
    char *text;
};

struct result {
    const char *status; /* static */
    struct field fields[RESULT_FIELDS_MAX];
    unsigned field_count;
};

void result_reset(struct result *result);
/* The status word; it must be a constant. */
void result_status(struct result *result, const char *status);
/* The word for 0, VIOMMU_PENDING or a negative errno; positive counts are "ok". */
void result_errno(struct result *result, int error);
const char *errno_word(int error);
/* The errno, negative, that a word stands for; 0 when none does. */
int errno_of_word(const char *word);

void result_decimal(struct result *result, const char *name, uint64_t value);
void result_hex(struct result *result, const char *name, uint64_t value);
void result_size(struct result *result, const char *name, uint64_t value);
void result_requester(struct result *result, const char *name, uint16_t value);
void result_word(struct result *result, const char *name, const char *value);
void result_text(struct result *result, const char *name, const char *value, size_t size);
void result_switch(struct result *result, const char *name, bool on);
void result_perm(struct result *result, const char *name, uint32_t perm);

/* Gives a name that stands for a requester id, in expectations; false when it is none. */
typedef bool requester_names(void *opaque, const char *name, uint16_t *out);

/*
 * Compares with the line's expectation, and sets the symbols it names. Returns true when all is as
 * expected; else *complaint says what was expected (word) and that in a sentence (text). With
 * *wrong set the expectation itself makes no sense.
 */
bool result_check(const struct result *result, const struct line *line, struct symbols *symbols,
                  requester_names *names, void *opaque, struct complaint *complaint, bool *wrong);

/* "status name=value ..." */
void result_print(const struct result *result, FILE *out);
/* "$name = value" for each symbol that the line's expectation set, a line each. */
void result_print_symbols(const struct result *result, const struct line *line, FILE *out);
/* One JSON object: {"line":..,"operation":..,"status":..,"fields":{..}[,"passed":..]}. */
void result_print_json(const struct result *result, const struct line *line, unsigned line_number,
                       const char *operation, bool passed, FILE *out);

#endif
