/* SPDX-License-Identifier: BSD-2-Clause */
/* Takes lines of a scenario apart; see line.h. */
#include "line.h"

#include "../parse.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A text that grows; memory that cannot be had ends the program. */
struct text {
    char *bytes;
    size_t length;
    size_t room;
};

static void text_add(struct text *text, const char *bytes, size_t length)
{
    if (text->length + length + 1 > text->room) {
        text->room = 2 * (text->length + length + 1);
        text->bytes = realloc(text->bytes, text->room);
        if (!text->bytes) {
            fputs("viommu run: out of memory\n", stderr);
            exit(EXIT_FAILURE);
        }
    }
    memcpy(text->bytes + text->length, bytes, length);
    text->length += length;
    text->bytes[text->length] = '\0';
}

static char *copy(const char *bytes, size_t length)
{
    struct text text = {0};

    text_add(&text, bytes, length);
    return text.bytes;
}

/* Says what is wrong. Always false. */
__attribute__((format(printf, 4, 5))) static bool
complain(struct complaint *complaint, const char *word, size_t length, const char *format, ...)
{
    va_list list;

    snprintf(complaint->word, sizeof(complaint->word), "%.*s", (int)length, word);
    va_start(list, format);
    vsnprintf(complaint->text, sizeof(complaint->text), format, list);
    va_end(list);
    return false;
}

void symbol_set(struct symbols *symbols, const char *name, const char *value)
{
    struct symbol *symbol = symbols->first;

    while (symbol && strcmp(symbol->name, name)) {
        symbol = symbol->next;
    }
    if (!symbol) {
        symbol = calloc(1, sizeof(*symbol));
        if (!symbol) {
            abort();
        }
        symbol->name = copy(name, strlen(name));
        symbol->next = symbols->first;
        symbols->first = symbol;
    }
    free(symbol->value);
    symbol->value = copy(value, strlen(value));
}

const char *symbol_get(const struct symbols *symbols, const char *name)
{
    for (const struct symbol *symbol = symbols->first; symbol; symbol = symbol->next) {
        if (!strcmp(symbol->name, name)) {
            return symbol->value;
        }
    }
    return NULL;
}

void symbols_destroy(struct symbols *symbols)
{
    while (symbols->first) {
        struct symbol *symbol = symbols->first;

        symbols->first = symbol->next;
        free(symbol->name);
        free(symbol->value);
        free(symbol);
    }
}

static bool name_begins(char c)
{
    return isalpha((unsigned char)c) || c == '_';
}

static bool name_goes_on(char c)
{
    return isalnum((unsigned char)c) || c == '_';
}

static size_t name_length(const char *text)
{
    size_t length = 0;

    if (name_begins(*text)) {
        while (name_goes_on(text[length])) {
            length++;
        }
    }
    return length;
}

/* Adds what the symbol at *at (behind its $) stands for; moves *at behind it. */
static bool add_symbol(struct text *out, const char **at, const struct symbols *symbols,
                       struct complaint *complaint)
{
    size_t length = name_length(*at);
    char *name = copy(*at, length);
    const char *value = symbol_get(symbols, name);

    free(name);
    if (!value) {
        return complain(complaint, *at - 1, length + 1, "this symbol has no value");
    }
    text_add(out, value, strlen(value));
    *at += length;
    return true;
}

/* A text between quotes; *at stands on the first. */
static bool add_quoted(struct text *out, const char **at, struct complaint *complaint)
{
    const char *begin = (*at)++;

    while (**at && **at != '"') {
        if (**at == '\\' && (*at)[1]) {
            (*at)++;
        }
        text_add(out, (*at)++, 1);
    }
    if (!**at) {
        return complain(complaint, begin, strlen(begin), "the closing \" is missing");
    }
    (*at)++;
    return true;
}

/* The length of `key=` or `key!=` at the start of a word, 0 when it has none. */
static size_t key_length(const char *word)
{
    size_t length = 0;

    if (!name_begins(*word) && !isdigit((unsigned char)*word)) {
        return 0;
    }
    while (name_goes_on(word[length]) || word[length] == '-' || word[length] == '.') {
        length++;
    }
    if (word[length] == '=' && word[length + 1] != '>') {
        return length + 1;
    }
    if (word[length] == '!' && word[length + 1] == '=') {
        return length + 2;
    }
    return 0;
}

/* One word at *at, which stands on its first character; moves *at behind it. */
static bool parse_word(struct word *word, const char **at, const struct symbols *symbols,
                       struct complaint *complaint)
{
    size_t prefix = key_length(*at);
    struct text value = {0};
    bool good = true;

    *word = (struct word){0};
    if (prefix) {
        word->differs = (*at)[prefix - 2] == '!';
        word->key = copy(*at, prefix - 1 - word->differs);
        *at += prefix;
    }
    text_add(&value, "", 0);
    while (good && **at && !isspace((unsigned char)**at)) {
        if (**at == '"') {
            good = add_quoted(&value, at, complaint);
        } else if (**at == '$') {
            (*at)++;
            good = add_symbol(&value, at, symbols, complaint);
        } else {
            text_add(&value, (*at)++, 1);
        }
    }
    word->value = value.bytes;
    return good;
}

static void skip_blanks(const char **at)
{
    while (isspace((unsigned char)**at)) {
        (*at)++;
    }
}

static bool at_arrow(const char *at)
{
    return at[0] == '=' && at[1] == '>' && (!at[2] || isspace((unsigned char)at[2]));
}

static bool parse_words(struct line *line, const char *at, const struct symbols *symbols,
                        struct complaint *complaint)
{
    for (skip_blanks(&at); *at; skip_blanks(&at)) {
        unsigned *count = line->has_expectation ? &line->expected_count : &line->word_count;
        struct word *words = line->has_expectation ? line->expected : line->words;

        if (at_arrow(at)) {
            if (line->has_expectation || !line->word_count) {
                return complain(complaint, at, 2, "this is not the place for an expectation");
            }
            line->has_expectation = true;
            line->arrow = (size_t)(at - line->text);
            at += 2;
            continue;
        }
        if (*count == LINE_WORDS_MAX) {
            return complain(complaint, at, strcspn(at, " \t"), "more than %d words",
                            LINE_WORDS_MAX);
        }
        (*count)++;
        if (!parse_word(&words[*count - 1], &at, symbols, complaint)) {
            return false;
        }
    }
    if (line->has_expectation && !line->expected_count) {
        return complain(complaint, "=>", 2, "nothing is expected behind it");
    }
    return true;
}

/* $name = value; *at stands behind the $. A value that is a number is kept as its result. */
static bool define(const char *at, struct symbols *symbols, struct complaint *complaint)
{
    const char *begin = at - 1;
    size_t length = name_length(at);
    struct word value = {0};
    char number[24];
    uint64_t result;
    char *name;
    bool good;

    at += length;
    skip_blanks(&at);
    if (!length || *at != '=' || at[1] == '>') {
        return complain(complaint, begin, length + 1, "a definition is: $name = value");
    }
    at++;
    skip_blanks(&at);
    name = copy(begin + 1, length);
    good = parse_word(&value, &at, symbols, complaint);
    skip_blanks(&at);
    if (good && (*at || value.key || !*value.value)) {
        good = complain(complaint, begin, length + 1, "a definition has one value");
    }
    if (good && number_value(value.value, &result)) {
        snprintf(number, sizeof(number), "0x%llx", (unsigned long long)result);
        symbol_set(symbols, name, number);
    } else if (good) {
        symbol_set(symbols, name, value.value);
    }
    free(name);
    free(value.key);
    free(value.value);
    return good;
}

/* How much of a line is left without its comment and the blanks around. */
static size_t meaningful_length(const char *text)
{
    bool quoted = false;
    size_t length = 0;

    for (; text[length]; length++) {
        if (quoted && text[length] == '\\' && text[length + 1]) {
            length++;
        } else if (text[length] == '"') {
            quoted = !quoted;
        } else if (text[length] == '#' && !quoted) {
            break;
        }
    }
    while (length && isspace((unsigned char)text[length - 1])) {
        length--;
    }
    return length;
}

bool line_parse(struct line *line, const char *text, struct symbols *symbols,
                struct complaint *complaint)
{
    *line = (struct line){0};
    skip_blanks(&text);
    line->text = copy(text, meaningful_length(text));
    if (line->text[0] == '$') {
        return define(line->text + 1, symbols, complaint);
    }
    return parse_words(line, line->text, symbols, complaint);
}

void line_fini(struct line *line)
{
    for (unsigned i = 0; i < line->word_count; i++) {
        free(line->words[i].key);
        free(line->words[i].value);
    }
    for (unsigned i = 0; i < line->expected_count; i++) {
        free(line->expected[i].key);
        free(line->expected[i].value);
    }
    free(line->text);
    *line = (struct line){0};
}

/* One argument of a command, as its string says. */
struct argument {
    char name[LINE_NAME_MAX];
    bool needed;
    bool flag;
    bool keyed; /* only as name=value */
};

/* The next argument of the string; false at its end. `...` has the name "...". */
static bool next_argument(const char **at, struct argument *argument)
{
    size_t length;

    *argument = (struct argument){0};
    skip_blanks(at);
    length = strcspn(*at, " ");
    if (!length) {
        return false;
    }
    if ((*at)[0] == '[') {
        char mark = (*at)[length - 2];

        argument->flag = mark == '!';
        argument->keyed = mark == '=';
        snprintf(argument->name, sizeof(argument->name), "%.*s",
                 (int)(length - 2 - (mark == '!' || mark == '=')), *at + 1);
    } else {
        snprintf(argument->name, sizeof(argument->name), "%.*s", (int)length, *at);
        argument->needed = strcmp(argument->name, "...") != 0;
    }
    *at += length;
    return true;
}

struct candidates {
    const char *at;
    struct argument argument;
};

static const char *next_candidate(void *opaque)
{
    struct candidates *candidates = opaque;

    return next_argument(&candidates->at, &candidates->argument) ? candidates->argument.name : NULL;
}

/* The name an argument string gives to a word, or an empty one: nothing takes it. */
static bool argument_for(const struct line *line, const char *arguments, const struct word *word,
                         struct argument *out)
{
    const char *at = arguments;

    while (next_argument(&at, out)) {
        if (word->key ? !strcmp(out->name, word->key) && !out->flag
                      : out->flag && !strcmp(out->name, word->value)) {
            return true;
        }
    }
    at = arguments;
    while (!word->key && next_argument(&at, out)) {
        if (!out->flag && !out->keyed && strcmp(out->name, "...") &&
            !line_argument(line, out->name)) {
            return true;
        }
    }
    *out = (struct argument){0};
    return false;
}

static bool takes_more(const char *arguments)
{
    size_t length = strlen(arguments);

    return length >= 3 && !strcmp(arguments + length - 3, "...");
}

static bool bind_word(struct line *line, const char *arguments, struct word *word,
                      struct complaint *complaint)
{
    struct candidates candidates = {.at = arguments};
    struct argument argument;
    const char *name = word->key ? word->key : word->value;
    const char *near;

    if (word->differs) {
        return complain(complaint, name, strlen(name), "!= is for expectations");
    }
    if (argument_for(line, arguments, word, &argument)) {
        if (line_argument(line, argument.name)) {
            return complain(complaint, name, strlen(name), "given twice");
        }
        memcpy(word->argument, argument.name, sizeof(word->argument));
        return true;
    }
    if (takes_more(arguments)) {
        return true;
    }
    near = nearest(name, next_candidate, &candidates);
    if (near) {
        char copied[LINE_NAME_MAX];

        snprintf(copied, sizeof(copied), "%s", near);
        return complain(complaint, name, strlen(name), "no such argument; did you mean '%s'?",
                        copied);
    }
    return complain(complaint, name, strlen(name), "one argument too many; it takes: %s",
                    *arguments ? arguments : "nothing");
}

bool line_bind(struct line *line, const char *arguments, struct complaint *complaint)
{
    struct argument argument;
    const char *at = arguments;

    /* What has a name comes first, so that bare words fill what is left. */
    for (unsigned i = line->first_argument; i < line->word_count; i++) {
        if (line->words[i].key && !bind_word(line, arguments, &line->words[i], complaint)) {
            return false;
        }
    }
    for (unsigned i = line->first_argument; i < line->word_count; i++) {
        if (!line->words[i].key && !bind_word(line, arguments, &line->words[i], complaint)) {
            return false;
        }
    }
    while (next_argument(&at, &argument)) {
        if (argument.needed && !line_argument(line, argument.name)) {
            return complain(complaint, argument.name, strlen(argument.name),
                            "this argument is missing; it takes: %s", arguments);
        }
    }
    return true;
}

const struct word *line_argument(const struct line *line, const char *name)
{
    for (unsigned i = line->first_argument; i < line->word_count; i++) {
        if (!strcmp(line->words[i].argument, name)) {
            return &line->words[i];
        }
    }
    return NULL;
}

bool number_value(const char *text, uint64_t *out)
{
    uint64_t total = 0;
    bool minus = *text == '-';

    text += minus;
    for (;;) {
        uint64_t part;

        if (!parse_number_part(&text, &part)) {
            return false;
        }
        total = minus ? total - part : total + part;
        if (!*text) {
            break;
        }
        if (*text != '+' && *text != '-') {
            return false;
        }
        minus = *text++ == '-';
    }
    *out = total;
    return true;
}

bool duration_value(const char *text, uint64_t *out)
{
    static const struct {
        const char *name;
        uint64_t nanoseconds;
    } units[] = {{"ns", 1}, {"us", 1000}, {"ms", 1000000}, {"s", 1000000000}};
    char *end;
    unsigned long long value;

    if (!isdigit((unsigned char)*text)) {
        return false;
    }
    errno = 0;
    value = strtoull(text, &end, 10);
    if (errno) {
        return false;
    }
    for (unsigned i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (!strcmp(end, units[i].name)) {
            return !__builtin_mul_overflow((uint64_t)value, units[i].nanoseconds, out);
        }
    }
    return false;
}

enum { NEAREST_LENGTH_MAX = 40 };

/* Letters to add, drop or change to make one word of the other. */
static unsigned distance(const char *a, const char *b)
{
    unsigned row[NEAREST_LENGTH_MAX + 1];
    size_t length = strlen(b);

    if (length > NEAREST_LENGTH_MAX) {
        return NEAREST_LENGTH_MAX;
    }
    for (unsigned j = 0; j <= length; j++) {
        row[j] = j;
    }
    for (unsigned i = 1; a[i - 1]; i++) {
        unsigned diagonal = row[0];

        row[0] = i;
        for (unsigned j = 1; j <= length; j++) {
            unsigned change = diagonal + (a[i - 1] != b[j - 1]);
            unsigned other = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;

            diagonal = row[j];
            row[j] = change < other ? change : other;
        }
    }
    return row[length];
}

const char *nearest(const char *word, const char *(*next)(void *opaque), void *opaque)
{
    static char best[NEAREST_LENGTH_MAX + 1];
    unsigned best_distance = (unsigned)strlen(word) / 3 + 2;
    const char *candidate;
    bool found = false;

    while ((candidate = next(opaque))) {
        unsigned d = distance(word, candidate);

        if (d < best_distance) {
            best_distance = d;
            snprintf(best, sizeof(best), "%s", candidate);
            found = true;
        }
    }
    return found ? best : NULL;
}
