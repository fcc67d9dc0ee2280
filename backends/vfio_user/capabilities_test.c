/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of what a far server says it can do: texts that are right, that leave things out, that are
 * no JSON, that are deep, long, or nonsense.
 */
#include "vfio_user/capabilities.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/random.h"

static struct vfio_user_far_capabilities got;

/* Reads a text of exactly so many bytes, nothing of which is beyond. */
static int parse_bytes(const void *text, size_t size)
{
    uint8_t *copy = malloc(size + !size);
    int ret;

    assert_non_null(copy);
    memcpy(copy, text, size);
    ret = vfio_user_far_capabilities_parse(copy, size, &got);
    free(copy);
    return ret;
}

static int parse(const char *text)
{
    int ret = parse_bytes(text, strlen(text) + 1);

    /* With or without its NUL. */
    assert_int_equal(parse_bytes(text, strlen(text)), ret);
    return ret;
}

static void expect_defaults(void)
{
    assert_int_equal(got.max_msg_fds, 1);
    assert_int_equal(got.max_data_xfer_size, 1048576);
    assert_int_equal(got.max_dma_maps, 65535);
    assert_int_equal(got.pgsizes, 4096);
    assert_false(got.twin_socket);
}

static void what_is_not_said_has_its_default(void **state)
{
    static const char *const texts[] = {
        "",
        "{}",
        " { } ",
        "{\"capabilities\":{}}",
        "{\"capabilities\" : { } }\n",
        "{\"other\":{\"max_msg_fds\":3}}",
        "{\"max_msg_fds\":3}",
        "{\"capabilities\":{\"migration\":{\"max_msg_fds\":3}}}",
        "{\"capabilities\":{\"twin_socket\":{\"supported\":false}}}",
        "{\"capabilities\":{\"twin_socket\":{}}}",
        "{\"capabilities\":{\"max\\u005fmsg_fds\":3}}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        assert_int_equal(parse(texts[i]), 0);
        expect_defaults();
    }
    assert_int_equal(parse_bytes("\0{", 2), 0);
    expect_defaults();
}

static void what_is_said_is_read(void **state)
{
    (void)state;
    assert_int_equal(
        parse("{\"x\":[1,-2.5e+3,[],{},null,true,false,\"\\\"}\"],\"capabilities\":{\"max_msg_"
              "fds\":8,"
              "\"max_data_xfer_size\" : 65536 ,\"max_dma_maps\":64,\"pgsizes\":2101248,"
              "\"twin_socket\":{\"supported\":true,\"fd_index\":3},\"write_multiple\":true}}"),
        0);
    assert_int_equal(got.max_msg_fds, 8);
    assert_int_equal(got.max_data_xfer_size, 65536);
    assert_int_equal(got.max_dma_maps, 64);
    assert_int_equal(got.pgsizes, 0x201000);
    assert_true(got.twin_socket);
    assert_int_equal(got.twin_fd_index, 3);
    assert_int_equal(parse("{\"capabilities\":{\"max_dma_maps\":18446744073709551615}}"), 0);
    assert_true(got.max_dma_maps == UINT64_MAX);
}

static void what_makes_no_sense_is_refused(void **state)
{
    static const char *const texts[] = {
        "{",
        "}",
        "[]",
        "1",
        "\"x\"",
        "null",
        "{}{}",
        "{} x",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{\"a\":1 \"b\":2}",
        "{\"a\":+1}",
        "{\"a\":-}",
        "{\"a\":1.}",
        "{\"a\":.5}",
        "{\"a\":1e}",
        "{\"a\":1e+}",
        "{\"a\":tru}",
        "{\"a\":nul}",
        "{\"a\":falsE}",
        "{\"a\":\"x}",
        "{\"a\":\"\\",
        "{\"a\":\"\n\"}",
        "{\"a\":[1,]}",
        "{\"a\":[1 2]}",
        "{\"a\":[}",
        "{\"a\":x}",
        "{\"capabilities\":1}",
        "{\"capabilities\":[]}",
        "{\"capabilities\":null}",
        "{\"capabilities\":{\"max_msg_fds\":-1}}",
        "{\"capabilities\":{\"max_msg_fds\":1.0}}",
        "{\"capabilities\":{\"max_msg_fds\":1e3}}",
        "{\"capabilities\":{\"max_msg_fds\":\"1\"}}",
        "{\"capabilities\":{\"max_msg_fds\":18446744073709551616}}",
        "{\"capabilities\":{\"max_msg_fds\":99999999999999999999999999}}",
        "{\"capabilities\":{\"max_data_xfer_size\":0}}",
        "{\"capabilities\":{\"max_dma_maps\":0}}",
        "{\"capabilities\":{\"pgsizes\":0}}",
        "{\"capabilities\":{\"pgsizes\":true}}",
        "{\"capabilities\":{\"twin_socket\":true}}",
        "{\"capabilities\":{\"twin_socket\":{\"supported\":1}}}",
        "{\"capabilities\":{\"twin_socket\":{\"supported\":true}}}",
        "{\"capabilities\":{\"twin_socket\":{\"supported\":true,\"fd_index\":-1}}}",
        "{\"capabilities\":{\"twin_socket\":{\"supported\":true,\"fd_index\":null}}}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        if (parse(texts[i]) != -EPROTO) {
            fail_msg("%s was taken", texts[i]);
        }
    }
}

static void depth_and_length_have_limits(void **state)
{
    static char text[20000];

    (void)state;
    for (unsigned depth = 1; depth < 5000; depth += depth < 40 ? 1 : 400) {
        char *at = text;

        at += sprintf(at, "{\"a\":");
        memset(at, '[', depth);
        at += depth;
        memset(at, ']', depth);
        at += depth;
        sprintf(at, "}");
        assert_int_equal(parse(text), depth <= 15 ? 0 : -EPROTO);
    }
    memset(text, ' ', sizeof(text));
    memcpy(text, "{}", 2);
    assert_int_equal(parse_bytes(text, 16384), 0);
    assert_int_equal(parse_bytes(text, 16385), -EPROTO);
}

/* Changed at random: what it says is of no interest, that it ends is, and what a sanitizer says. */
static void anything_else_ends(void **state)
{
    static const char usual[] =
        "{\"capabilities\":{\"max_msg_fds\":8,\"twin_socket\":{\"supported\":true,\"fd_index\":0},"
        "\"a\":[1,{\"b\":\"\\u0041\"},-1.5e3,null]}}";
    static const char bytes[] = "{}[]\",:\\0123456789.eE+-truefalsn \t\x01\xff";
    struct random random = {1};

    (void)state;
    for (unsigned i = 0; i < 20000; i++) {
        char text[sizeof(usual)];

        memcpy(text, usual, sizeof(usual));
        for (unsigned n = 1 + random_below(&random, 4); n; n--) {
            text[random_below(&random, sizeof(usual))] =
                bytes[random_below(&random, sizeof(bytes))];
        }
        (void)parse_bytes(text, random_below(&random, sizeof(usual) + 1));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_said_has_its_default),
        cmocka_unit_test(what_is_said_is_read),
        cmocka_unit_test(what_makes_no_sense_is_refused),
        cmocka_unit_test(depth_and_length_have_limits),
        cmocka_unit_test(anything_else_ends),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
