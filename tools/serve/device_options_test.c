/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of the argument of --device, with two kinds of our own. */
#include "device_options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "kind.h"

static bool set_read_only(struct serve_device_options *device, const char *value)
{
    device->nvme.read_only = true;
    return value == NULL;
}

static bool set_file(struct serve_device_options *device, const char *value)
{
    device->nvme.file = value;
    return true;
}

static const struct serve_key near_keys[] = {
    {"file", "the name of a file", true, set_file},
    {"readonly", NULL, false, set_read_only},
    {0},
};

static const struct serve_key no_keys[] = {{0}};

static const struct serve_kind kinds[] = {
    {.name = "near", .keys = near_keys},
    {.name = "far", .far = "where the other one is", .keys = no_keys},
};

const struct serve_kind *serve_kind_at(unsigned n)
{
    return n < 2 ? &kinds[n] : NULL;
}

const struct serve_kind *serve_kind_find(const char *name)
{
    for (unsigned i = 0; i < 2; i++) {
        if (!strcmp(kinds[i].name, name)) {
            return &kinds[i];
        }
    }
    return NULL;
}

static void test_what_is_said(void **state)
{
    struct serve_device_options device;
    char wrong[256];

    (void)state;
    assert_true(serve_device_options_parse(&device, "near,readonly,file=a:b,socket=s,at=05.1",
                                           wrong, sizeof(wrong)));
    assert_ptr_equal(device.kind, &kinds[0]);
    assert_null(device.far);
    assert_true(device.nvme.read_only);
    assert_string_equal(device.nvme.file, "a:b");
    assert_string_equal(device.socket, "s");
    assert_int_equal(device.requester, 0x29);
    serve_device_options_fini(&device);

    assert_true(serve_device_options_parse(&device, "far:/run/a:b=c,at=1:05.0,socket=s", wrong,
                                           sizeof(wrong)));
    assert_ptr_equal(device.kind, &kinds[1]);
    assert_string_equal(device.far, "/run/a:b=c");
    assert_int_equal(device.requester, 0x128);
    serve_device_options_fini(&device);
}

static void test_what_is_wrong(void **state)
{
    static const struct {
        const char *text;
        const char *wrong;
    } cases[] = {
        {"", "'' is no kind of device; there are: near far"},
        {"farther:x,at=05.0,socket=s", "'farther' is no kind of device; there are: near far"},
        {":x,at=05.0,socket=s", "'' is no kind"},
        {"near:x,at=05.0,socket=s,file=f", "near: ':x': this kind is in no other process"},
        {"near:,at=05.0,socket=s,file=f", "near: ':': this kind is in no other process"},
        {"far,at=05.0,socket=s", "far:SOCKET is needed: where the other one is"},
        {"far:,at=05.0,socket=s", "far:SOCKET is needed"},
        {"far:x", "far: at is needed"},
        {"far:x,at=05.0", "far: socket is needed"},
        {"far:x,at=05.0,socket=s,file=f", "far has no key 'file'; it takes: at socket"},
        {"near,at=05.0,socket=s", "near: file is needed"},
        {"near,at=05.0,socket=,file=f", "near: socket: '' is not the name of a socket"},
        {"near,at=05.0,at=06.0", "near: at is given twice"},
        {"near,readonly=1", "near: readonly takes no value"},
        {"near,at=5", "near: at: '5' is not"},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct serve_device_options device;
        char wrong[256] = "";

        assert_false(serve_device_options_parse(&device, cases[i].text, wrong, sizeof(wrong)));
        if (strncmp(wrong, cases[i].wrong, strlen(cases[i].wrong)) != 0) {
            fail_msg("'%s': '%s'", cases[i].text, wrong);
        }
        serve_device_options_fini(&device);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_said),
        cmocka_unit_test(test_what_is_wrong),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
