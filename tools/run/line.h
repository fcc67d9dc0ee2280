/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One line of a scenario, taken apart.
 *
 *     word word key=value "a text"   => status field=value   # comment
 *
 * Words are separated by blanks. `$name` in a word is replaced by what the symbol stands for. What
 * stands behind `=>` is the expectation. A line of the form `$name = value` defines a symbol.
 *
 * A command says what arguments it takes in a string of words:
 *
 *     name     needed          [name]   may be left out       [name!]  a flag: its bare name
 *     [name=]  may be left out, only as name=value            ...      any further words
 *
 * line_bind() hands out the words of a line: `key=value` goes to the argument of that name; a bare
 * word to the flag of that name, else to the first argument in order that has nothing yet.
 */
#ifndef VIOMMU_TOOLS_RUN_LINE_H
#define VIOMMU_TOOLS_RUN_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    LINE_WORDS_MAX = 64,
    LINE_NAME_MAX = 32,
};

/* One word; of `key=value` the two halves, else key is NULL. */
struct word {
    char *key;
    char *value;
    bool differs; /* written key!=value, in an expectation */
    char argument[LINE_NAME_MAX]; /* the argument it was bound to; empty for a further word */
};

struct line {
    char *text; /* as read, without comment; "" when nothing is left */
    struct word words[LINE_WORDS_MAX];
    unsigned word_count;
    unsigned first_argument; /* the words before it name the operation */
    struct word expected[LINE_WORDS_MAX];
    unsigned expected_count;
    bool has_expectation;
    size_t arrow; /* where in the text the expectation begins */
};

struct symbol {
    struct symbol *next;
    char *name;
    char *value;
};

struct symbols {
    struct symbol *first;
};

/* Gives a symbol its value, the last one counts. */
void symbol_set(struct symbols *symbols, const char *name, const char *value);
const char *symbol_get(const struct symbols *symbols, const char *name);
void symbols_destroy(struct symbols *symbols);

/* What is wrong with a line: the word at fault, and a sentence. */
struct complaint {
    char word[128];
    char text[512];
};

/*
 * Takes a text apart, replacing symbols. False when it cannot. A line that is empty, a comment, or
 * a definition (which is made here) has no words. The line must be released with line_fini() in
 * either case.
 */
bool line_parse(struct line *line, const char *text, struct symbols *symbols,
                struct complaint *complaint);
void line_fini(struct line *line);

/* Hands the words from first_argument on out to the arguments. */
bool line_bind(struct line *line, const char *arguments, struct complaint *complaint);

/* The word bound to an argument, or NULL. */
const struct word *line_argument(const struct line *line, const char *name);

/*
 * The value of numbers joined by + and -, each decimal or hexadecimal with a suffix; -1 is all
 * ones. False when the text is something else.
 */
bool number_value(const char *text, uint64_t *out);

/* A number and its unit: ns, us, ms, s. */
bool duration_value(const char *text, uint64_t *out);

/*
 * The candidate nearest to a mistyped word, or NULL when none is near. `next` returns one candidate
 * after the other, then NULL.
 */
const char *nearest(const char *word, const char *(*next)(void *opaque), void *opaque);

#endif
