/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of lines: words, symbols, expectations, definitions, arguments, numbers, near words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "line.h"

#include <stdlib.h>
#include <string.h>

static void test_words(void **state)
{
    struct symbols symbols = {0};
    struct complaint complaint;
    struct line line;

    (void)state;
    assert_true(line_parse(&line, " dma write d 0x10 text=\"a # \\\"b\\\"\" => ok x!=1 # end\n",
                           &symbols, &complaint));
    assert_int_equal(line.word_count, 5);
    assert_null(line.words[0].key);
    assert_string_equal(line.words[0].value, "dma");
    assert_string_equal(line.words[4].key, "text");
    assert_string_equal(line.words[4].value, "a # \"b\"");
    assert_true(line.has_expectation);
    assert_int_equal(line.expected_count, 2);
    assert_string_equal(line.expected[0].value, "ok");
    assert_string_equal(line.expected[1].key, "x");
    assert_true(line.expected[1].differs);
    assert_string_equal(line.text, "dma write d 0x10 text=\"a # \\\"b\\\"\" => ok x!=1");
    line_fini(&line);
}

static void test_nothing(void **state)
{
    static const char *const texts[] = {"", "\n", "   ", "# comment", "  # comment\n"};
    struct symbols symbols = {0};
    struct complaint complaint;
    struct line line;

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        assert_true(line_parse(&line, texts[i], &symbols, &complaint));
        assert_int_equal(line.word_count, 0);
        line_fini(&line);
    }
}

static void test_symbols(void **state)
{
    struct symbols symbols = {0};
    struct complaint complaint;
    struct line line;

    (void)state;
    assert_true(line_parse(&line, "$a = 0x10+1k", &symbols, &complaint));
    assert_int_equal(line.word_count, 0);
    line_fini(&line);
    assert_true(line_parse(&line, "$who = 00:03.0", &symbols, &complaint));
    line_fini(&line);
    assert_true(line_parse(&line, "read $a+4 $who \"$a\" => v=$a", &symbols, &complaint));
    assert_string_equal(line.words[1].value, "0x410+4");
    assert_string_equal(line.words[2].value, "00:03.0");
    assert_string_equal(line.words[3].value, "$a");
    assert_string_equal(line.expected[0].value, "0x410");
    line_fini(&line);
    assert_false(line_parse(&line, "read $b", &symbols, &complaint));
    assert_string_equal(complaint.word, "$b");
    line_fini(&line);
    symbols_destroy(&symbols);
}

static void test_wrong_lines(void **state)
{
    static const char *const texts[] = {"=> ok",     "a =>",   "a => b => c", "a \"b",
                                        "$a",        "$a =",   "$a = b c",    "$ = 1",
                                        "$a => ok"};
    struct symbols symbols = {0};
    struct complaint complaint;
    struct line line;

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        assert_false(line_parse(&line, texts[i], &symbols, &complaint));
        assert_int_not_equal(strlen(complaint.text), 0);
        line_fini(&line);
    }
}

/* Binds a line whose first word is the operation. */
static bool bind(struct line *line, const char *text, const char *arguments)
{
    struct symbols symbols = {0};
    struct complaint complaint;

    assert_true(line_parse(line, text, &symbols, &complaint));
    line->first_argument = 1;
    return line_bind(line, arguments, &complaint);
}

static void expect_argument(const struct line *line, const char *name, const char *value)
{
    const struct word *word = line_argument(line, name);

    if (!value) {
        assert_null(word);
        return;
    }
    assert_non_null(word);
    assert_string_equal(word->value, value);
}

static void test_arguments(void **state)
{
    static const char arguments[] = "at size [perm] [page=] [new!]";
    struct line line;

    (void)state;
    assert_true(bind(&line, "op 1 2", arguments));
    expect_argument(&line, "at", "1");
    expect_argument(&line, "size", "2");
    expect_argument(&line, "perm", NULL);
    line_fini(&line);

    /* A flag anywhere, names in any order, bare words into what is left. */
    assert_true(bind(&line, "op new 5 page=4k at=7 rw", arguments));
    expect_argument(&line, "at", "7");
    expect_argument(&line, "size", "5");
    expect_argument(&line, "perm", "rw");
    expect_argument(&line, "page", "4k");
    expect_argument(&line, "new", "new");
    line_fini(&line);

    assert_false(bind(&line, "op 1", arguments));
    line_fini(&line);
    assert_false(bind(&line, "op 1 2 3 4", arguments));
    line_fini(&line);
    assert_false(bind(&line, "op 1 2 new=1", arguments));
    line_fini(&line);
    assert_false(bind(&line, "op 1 2 new new", arguments));
    line_fini(&line);
    assert_false(bind(&line, "op 1 2 at=1 at=2", arguments));
    line_fini(&line);
    assert_true(bind(&line, "op 1 X=2 y", "at ..."));
    expect_argument(&line, "at", "1");
    line_fini(&line);
}

static void test_numbers(void **state)
{
    static const char *const wrong[] = {"",   "x", "0x", "1kk", "1+", "+1", "0x10000000000000000",
                                        "1 2", "18000000000g", "--1", "1q"};
    uint64_t value;

    (void)state;
    assert_true(number_value("12", &value));
    assert_int_equal(value, 12);
    assert_true(number_value("0xFf", &value));
    assert_int_equal(value, 255);
    assert_true(number_value("2m", &value));
    assert_int_equal(value, 2 << 20);
    assert_true(number_value("1g-4k+0x10", &value));
    assert_int_equal(value, (1 << 30) - 4096 + 16);
    assert_true(number_value("-1", &value));
    assert_true(value == UINT64_MAX);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_false(number_value(wrong[i], &value));
    }
}

static void test_durations(void **state)
{
    uint64_t value;

    (void)state;
    assert_true(duration_value("500ms", &value));
    assert_int_equal(value, 500000000);
    assert_true(duration_value("2s", &value));
    assert_int_equal(value, 2000000000);
    assert_true(duration_value("7ns", &value));
    assert_int_equal(value, 7);
    assert_false(duration_value("7", &value));
    assert_false(duration_value("ms", &value));
    assert_false(duration_value("-1s", &value));
    assert_false(duration_value("99999999999999999s", &value));
}

static const char *next_word(void *opaque)
{
    const char *const **at = opaque;

    return **at ? *(*at)++ : NULL;
}

static void test_nearest(void **state)
{
    static const char *const words[] = {"dma read", "dma write", "device", NULL};
    const char *const *at = words;
    const char *near;

    (void)state;
    near = nearest("dma rea", next_word, &at);
    assert_non_null(near);
    assert_string_equal(near, "dma read");
    at = words;
    assert_null(nearest("zzzz", next_word, &at));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words),     cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_symbols),   cmocka_unit_test(test_wrong_lines),
        cmocka_unit_test(test_arguments), cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_durations), cmocka_unit_test(test_nearest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
