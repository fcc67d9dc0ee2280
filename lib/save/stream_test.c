/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of the format of saved state: what is read is what was written, or nothing is. */
#include "save/stream.h"

#include "base/alloc.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define KIND 7u
#define HEADER_SIZE 32u
#define SECTION_SIZE 24u

/* A stream with two sections, the second of them empty and optional. */
static int write_sample(void **data, size_t *size)
{
    struct save_writer writer;

    save_writer_init(&writer, SAVE_SERVER);
    save_begin(&writer, KIND, 3, 2, 0);
    save_put8(&writer, 0x12);
    save_put16(&writer, 0x3456);
    save_put32(&writer, 0x789abcde);
    save_put64(&writer, 0x0123456789abcdefULL);
    save_put_bytes(&writer, "bytes", 5);
    save_end(&writer);
    save_begin(&writer, KIND + 1, 0, 1, SAVE_OPTIONAL);
    save_end(&writer);
    return save_finish(&writer, data, size);
}

static void store(unsigned char *at, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        at[i] = (unsigned char)(value >> 8 * i);
    }
}

/* Makes the checksum right again after a change. */
static void seal(unsigned char *data, size_t size)
{
    uint32_t crc = save_crc32c(0, data, HEADER_SIZE - 4);

    store(data + HEADER_SIZE - 4, save_crc32c(crc, data + HEADER_SIZE, size - HEADER_SIZE), 4);
}

static int open_it(const void *data, size_t size)
{
    struct save_reader reader;
    int ret = save_open(&reader, SAVE_SERVER, data, size);

    if (ret) {
        struct save_section section;

        assert_false(save_next(&reader, &section));
    }
    return ret;
}

static void test_checksum_is_the_known_one(void **state)
{
    (void)state;
    assert_int_equal(save_crc32c(0, "123456789", 9), 0xe3069283);
    assert_int_equal(save_crc32c(save_crc32c(0, "1234", 4), "56789", 5), 0xe3069283);
    assert_int_equal(save_crc32c(0, NULL, 0), 0);
}

static void test_what_was_written_is_read(void **state)
{
    struct save_reader reader;
    struct save_section section;
    void *data;
    size_t size;

    (void)state;
    assert_int_equal(write_sample(&data, &size), 0);
    assert_int_equal(size, HEADER_SIZE + SECTION_SIZE + 20 + SECTION_SIZE);
    assert_int_equal(save_open(&reader, SAVE_SERVER, data, size), 0);
    assert_true(save_next(&reader, &section));
    assert_int_equal(section.kind, KIND);
    assert_int_equal(section.instance, 3);
    assert_int_equal(section.version, 2);
    assert_int_equal(section.flags, 0);
    assert_int_equal(save_accept(&section, 2), 0);
    assert_int_equal(save_get8(&section), 0x12);
    assert_int_equal(save_get16(&section), 0x3456);
    assert_int_equal(save_get32(&section), 0x789abcde);
    assert_int_equal(save_get64(&section), 0x0123456789abcdefULL);
    assert_memory_equal(save_get_bytes(&section, 5), "bytes", 5);
    assert_int_equal(save_close(&section), 0);
    assert_true(save_next(&reader, &section));
    assert_int_equal(section.kind, KIND + 1);
    assert_int_equal(section.flags, SAVE_OPTIONAL);
    assert_int_equal(save_close(&section), 0);
    assert_false(save_next(&reader, &section));
    save_free(data);
}

/* The bytes are what the format says, whatever machine writes them. */
static void test_numbers_are_little_endian(void **state)
{
    static const unsigned char section[] = {7, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0,
                                            20, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x56, 0x34};
    unsigned char *bytes;
    void *data;
    size_t size;

    (void)state;
    assert_int_equal(write_sample(&data, &size), 0);
    bytes = data;
    assert_memory_equal(bytes, "vIOMMU\r\n\1\0\0\0\2\0\0\0", 16);
    assert_int_equal(bytes[16], size);
    assert_memory_equal(bytes + 17, "\0\0\0\0\0\0\0\2\0\0\0", 11);
    assert_memory_equal(bytes + HEADER_SIZE, section, sizeof(section));
    save_free(data);
}

static void test_a_stream_may_be_empty(void **state)
{
    struct save_writer writer;
    struct save_reader reader;
    struct save_section section;
    void *data;
    size_t size;

    (void)state;
    save_writer_init(&writer, SAVE_INSTANCE);
    assert_int_equal(save_finish(&writer, &data, &size), 0);
    assert_int_equal(save_open(&reader, SAVE_INSTANCE, data, size), 0);
    assert_false(save_next(&reader, &section));
    save_free(data);
}

static void test_each_cut_and_each_flip_is_found(void **state)
{
    unsigned char *copy;
    void *data;
    size_t size;

    (void)state;
    assert_int_equal(write_sample(&data, &size), 0);
    for (size_t cut = 0; cut < size; cut++) {
        /* In memory of just that size, so that a read past it is found. */
        copy = malloc(cut ? cut : 1);
        assert_non_null(copy);
        memcpy(copy, data, cut);
        assert_int_equal(open_it(copy, cut), -EBADMSG);
        free(copy);
    }
    copy = malloc(size + 1);
    assert_non_null(copy);
    memcpy(copy, data, size);
    copy[size] = 0;
    assert_int_equal(open_it(copy, size + 1), -EBADMSG);
    for (size_t at = 0; at < size; at++) {
        for (unsigned change = 1; change < 256; change++) {
            copy[at] ^= (unsigned char)change;
            assert_int_equal(open_it(copy, size), -EBADMSG);
            copy[at] ^= (unsigned char)change;
        }
    }
    assert_int_equal(open_it(copy, size), 0);
    free(copy);
    save_free(data);
}

static void test_a_newer_format_is_told_apart(void **state)
{
    unsigned char *bytes;
    void *data;
    size_t size;

    (void)state;
    assert_int_equal(write_sample(&data, &size), 0);
    bytes = data;
    store(bytes + 8, 2, 4);
    seal(bytes, size);
    assert_int_equal(open_it(data, size), -ENOTSUP);
    store(bytes + 8, 0, 4);
    seal(bytes, size);
    assert_int_equal(open_it(data, size), -EBADMSG);
    store(bytes + 8, 1, 4);
    seal(bytes, size);
    assert_int_equal(open_it(data, size), 0);
    save_free(data);
}

static void test_a_stream_of_others_is_refused(void **state)
{
    struct save_reader reader;
    void *data;
    size_t size;

    (void)state;
    assert_int_equal(write_sample(&data, &size), 0);
    assert_int_equal(save_open(&reader, SAVE_INSTANCE, data, size), -EBADMSG);
    save_free(data);
}

/* Frames whose checksum is right, and whose sections do not fit. */
static void test_sections_fill_the_frame(void **state)
{
    static const struct {
        size_t at;
        uint64_t value;
        unsigned bytes;
    } wrong[] = {
        {12, 1, 4}, /* fewer sections than there are */
        {12, 3, 4}, /* more */
        {12, 0, 4},
        {HEADER_SIZE + 16, 19, 8}, /* a body that ends too early */
        {HEADER_SIZE + 16, 45, 8}, /* or past the end */
        {HEADER_SIZE + 16, UINT64_MAX, 8},
        {HEADER_SIZE + 16, UINT64_MAX - SECTION_SIZE + 1, 8},
        {HEADER_SIZE + 12, 1, 4}, /* what has to be zero */
    };
    unsigned char *copy;
    void *data;
    size_t size;

    (void)state;
    assert_int_equal(write_sample(&data, &size), 0);
    copy = malloc(size);
    assert_non_null(copy);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        memcpy(copy, data, size);
        store(copy + wrong[i].at, wrong[i].value, wrong[i].bytes);
        seal(copy, size);
        assert_int_equal(open_it(copy, size), -EBADMSG);
    }
    free(copy);
    save_free(data);
}

static void first_section(void *data, size_t size, struct save_section *section)
{
    struct save_reader reader;

    assert_int_equal(save_open(&reader, SAVE_SERVER, data, size), 0);
    assert_true(save_next(&reader, section));
}

static void test_versions_of_sections(void **state)
{
    struct save_section section;
    void *data;
    size_t size;

    (void)state;
    assert_int_equal(write_sample(&data, &size), 0);
    first_section(data, size, &section);
    assert_int_equal(save_accept(&section, 1), -ENOTSUP);
    assert_int_equal(save_get8(&section), 0);
    assert_int_equal(save_close(&section), -ENOTSUP);
    first_section(data, size, &section);
    assert_int_equal(save_accept(&section, 3), 0);
    section.version = 0;
    assert_int_equal(save_accept(&section, 3), -EBADMSG);
    save_free(data);
}

static void test_unknown_sections(void **state)
{
    struct save_section required = {.flags = 0};
    struct save_section optional = {.flags = SAVE_OPTIONAL};

    (void)state;
    assert_int_equal(save_unknown(&required), -ENOTSUP);
    assert_int_equal(save_unknown(&optional), 0);
}

static void test_nothing_is_read_past_a_section(void **state)
{
    struct save_section section;
    void *data;
    size_t size;

    (void)state;
    assert_int_equal(write_sample(&data, &size), 0);
    first_section(data, size, &section);
    assert_non_null(save_get_bytes(&section, 13));
    assert_int_equal(save_get64(&section), 0); /* 7 are left */
    assert_int_equal(save_get8(&section), 0);  /* and the error stays */
    assert_null(save_get_bytes(&section, 0));
    assert_int_equal(save_close(&section), -EBADMSG);

    first_section(data, size, &section);
    assert_null(save_get_bytes(&section, SIZE_MAX));
    assert_int_equal(save_close(&section), -EBADMSG);

    first_section(data, size, &section);
    assert_non_null(save_get_bytes(&section, 19));
    assert_int_equal(save_close(&section), -EBADMSG); /* one is left */

    first_section(data, size, &section);
    assert_non_null(save_get_bytes(&section, 20));
    assert_int_equal(save_close(&section), 0);
    save_spoil(&section);
    assert_int_equal(save_close(&section), -EBADMSG);
    save_free(data);
}

/* A stream that does not fit into the first room, with every allocation failing once. */
static int write_large(void **data, size_t *size)
{
    static const unsigned char block[5000];
    struct save_writer writer;

    save_writer_init(&writer, SAVE_SERVER);
    for (unsigned i = 0; i < 20; i++) {
        save_begin(&writer, i, i, 1, 0);
        save_put32(&writer, i);
        save_put_bytes(&writer, block, sizeof(block));
        save_end(&writer);
    }
    return save_finish(&writer, data, size);
}

static void test_no_memory(void **state)
{
    void *data = NULL;
    size_t size = 0;
    unsigned failures = 0;

    (void)state;
    for (unsigned long n = 1;; n++) {
        int ret;

        base_alloc_fail_at(n);
        ret = write_large(&data, &size);
        if (!base_alloc_failed()) {
            base_alloc_fail_at(0);
            assert_int_equal(ret, 0);
            break;
        }
        assert_int_equal(ret, -ENOMEM);
        assert_null(data);
        failures++;
    }
    assert_true(failures > 3);
    assert_int_equal(open_it(data, size), 0);
    save_free(data);
}

static void test_more_than_there_can_be(void **state)
{
    struct save_writer writer;
    void *data = NULL;
    size_t size;

    (void)state;
    save_writer_init(&writer, SAVE_SERVER);
    save_put_bytes(&writer, NULL, SIZE_MAX - 16);
    save_put8(&writer, 1);
    assert_int_equal(save_finish(&writer, &data, &size), -ENOMEM);
    assert_null(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checksum_is_the_known_one),
        cmocka_unit_test(test_what_was_written_is_read),
        cmocka_unit_test(test_numbers_are_little_endian),
        cmocka_unit_test(test_a_stream_may_be_empty),
        cmocka_unit_test(test_each_cut_and_each_flip_is_found),
        cmocka_unit_test(test_a_newer_format_is_told_apart),
        cmocka_unit_test(test_a_stream_of_others_is_refused),
        cmocka_unit_test(test_sections_fill_the_frame),
        cmocka_unit_test(test_versions_of_sections),
        cmocka_unit_test(test_unknown_sections),
        cmocka_unit_test(test_nothing_is_read_past_a_section),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_more_than_there_can_be),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
