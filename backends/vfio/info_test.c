/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of the kernel's answers: what they say, and that none leads out of its bytes. */
#include "vfio/info.h"

#include "base/alloc.h"
#include "vfio/test_answer.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define CAPS VFIO_IOMMU_INFO_CAPS
#define PGSIZES VFIO_IOMMU_INFO_PGSIZES

static const struct viommu_range usual[] = {{0xfef00000, 0x7fffffffff}, {0, 0xfedfffff}};

/* Parses a copy that ends with its memory, so that a read past the end is seen. */
static int parse(const struct test_answer *answer, size_t size, struct vfio_info *info)
{
    unsigned char *bytes = malloc(size ? size : 1);
    int ret;

    assert_non_null(bytes);
    memcpy(bytes, answer->bytes, size);
    ret = vfio_info_parse(bytes, size, info);
    free(bytes);
    return ret;
}

static void refused(const struct test_answer *answer, int error)
{
    struct vfio_info info;

    assert_int_equal(parse(answer, answer->size, &info), error);
    assert_null(info.allowed);
}

static void make_usual(struct test_answer *answer)
{
    answer_begin(answer, CAPS | PGSIZES, 0x40201000);
    answer_add_available(answer, 1000);
    /* 12 bytes long, so the next one is not aligned. */
    answer_add_ranges(answer, usual, 2);
}

static void test_usual(void **state)
{
    struct test_answer answer;
    struct vfio_info info;

    (void)state;
    make_usual(&answer);
    assert_int_equal(parse(&answer, answer.size, &info), 0);
    assert_int_equal(info.allowed_count, 2);
    assert_int_equal(info.allowed[0].first, 0);
    assert_int_equal(info.allowed[0].last, 0xfedfffff);
    assert_int_equal(info.allowed[1].first, 0xfef00000);
    assert_int_equal(info.allowed[1].last, 0x7fffffffff);
    assert_true(info.available_told);
    assert_int_equal(info.available, 1000);
    assert_int_equal(info.page_sizes, ~UINT64_C(0xfff));
    vfio_info_free(&info);
    assert_null(info.allowed);
}

static void test_nothing_told(void **state)
{
    struct test_answer answer;
    struct vfio_info info;

    (void)state;
    answer_begin(&answer, 0, 0x1000);
    assert_int_equal(parse(&answer, answer.size, &info), 0);
    assert_null(info.allowed);
    assert_int_equal(info.page_sizes, 0);
    assert_false(info.available_told);
    /* A kernel that knows no capabilities answers in the 16 bytes of old. */
    assert_int_equal(parse(&answer, 16, &info), 0);
    /* A flag, but an empty chain; and no page size at all. */
    answer_begin(&answer, CAPS | PGSIZES, 0);
    assert_int_equal(parse(&answer, answer.size, &info), 0);
    assert_null(info.allowed);
    assert_int_equal(info.page_sizes, 0);
}

static void test_unknown_capabilities(void **state)
{
    struct vfio_iommu_type1_info_cap_migration migration = {.pgsize_bitmap = 0x1000};
    struct vfio_iommu_type1_info_cap_iova_range other = {.nr_iovas = 99};
    struct test_answer answer;
    struct vfio_info info;

    (void)state;
    answer_begin(&answer, CAPS, 0);
    answer_add(&answer, VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION, 1, &migration, sizeof(migration));
    answer_add(&answer, VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, 2, &other, sizeof(other));
    answer_add(&answer, 0xffff, 1, &migration, sizeof(struct vfio_info_cap_header));
    answer_add_available(&answer, 5);
    assert_int_equal(parse(&answer, answer.size, &info), 0);
    assert_null(info.allowed);
    assert_int_equal(info.available, 5);
}

static void test_bad_chains(void **state)
{
    const size_t link = offsetof(struct vfio_info_cap_header, next);
    const uint32_t starts[] = {1, 8, 16, 19, ANSWER_BYTES, 0xfffffff8, UINT32_MAX};
    struct test_answer answer;
    size_t available;
    size_t ranges;

    (void)state;
    for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
        make_usual(&answer);
        answer_put32(&answer, offsetof(struct vfio_iommu_type1_info, cap_offset), starts[i]);
        refused(&answer, -EIO);
    }
    answer_begin(&answer, CAPS, 0);
    available = answer_add_available(&answer, 5);
    ranges = answer_add_ranges(&answer, usual, 2);
    answer_put32(&answer, ranges + link, (uint32_t)ranges); /* to itself */
    refused(&answer, -EIO);
    answer_put32(&answer, ranges + link, (uint32_t)available); /* back */
    refused(&answer, -EIO);
    answer_put32(&answer, ranges + link, (uint32_t)ranges + 1); /* into itself */
    refused(&answer, -EIO);
    answer_put32(&answer, ranges + link, (uint32_t)answer.size - 7); /* a header cut off */
    refused(&answer, -EIO);
}

static void test_bad_ranges(void **state)
{
    const size_t count = offsetof(struct vfio_iommu_type1_info_cap_iova_range, nr_iovas);
    const struct viommu_range backwards[] = {{0x2000, 0x1fff}};
    const struct viommu_range half[] = {{0x2000, 0x27ff}};
    struct test_answer answer;
    size_t ranges;

    (void)state;
    make_usual(&answer);
    ranges = answer.link - offsetof(struct vfio_info_cap_header, next);
    answer_put32(&answer, ranges + count, 3);
    refused(&answer, -EIO);
    answer_put32(&answer, ranges + count, UINT32_MAX);
    refused(&answer, -EIO);
    answer_begin(&answer, CAPS, 0);
    answer_add_ranges(&answer, backwards, 1);
    refused(&answer, -EIO);
    /* To allow nothing is not to allow everything. */
    answer_begin(&answer, CAPS, 0);
    answer_add_ranges(&answer, NULL, 0);
    refused(&answer, -ERANGE);
    answer_begin(&answer, CAPS, 0);
    answer_add_ranges(&answer, half, 1);
    refused(&answer, -ERANGE);
    /* Twice. */
    answer_begin(&answer, CAPS, 0);
    answer_add_ranges(&answer, usual, 2);
    answer_add_ranges(&answer, usual, 1);
    refused(&answer, -EIO);
}

static void test_cut_anywhere(void **state)
{
    struct test_answer answer;
    struct vfio_info info;

    (void)state;
    make_usual(&answer);
    for (size_t size = 0; size < answer.size; size++) {
        assert_int_equal(parse(&answer, size, &info), -EIO);
    }
}

/* Bytes changed at random: whatever the result, nothing is read outside, and it ends. */
static void test_garbage(void **state)
{
    uint64_t random = 1;

    (void)state;
    for (unsigned i = 0; i < 100000; i++) {
        struct test_answer answer;
        struct vfio_info info;

        make_usual(&answer);
        for (unsigned j = 0; j < 3; j++) {
            random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
            answer.bytes[(random >> 33) % answer.size] = (unsigned char)(random >> 56);
        }
        if (parse(&answer, answer.size, &info) == 0) {
            for (size_t j = 0; j < info.allowed_count; j++) {
                assert_true(info.allowed[j].first <= info.allowed[j].last);
                assert_true(j == 0 || info.allowed[j - 1].last < info.allowed[j].first - 1);
            }
            vfio_info_free(&info);
        }
    }
}

static void test_no_memory(void **state)
{
    struct test_answer answer;

    (void)state;
    make_usual(&answer);
    base_alloc_fail_at(1);
    refused(&answer, -ENOMEM);
    base_alloc_fail_at(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_usual),
        cmocka_unit_test(test_nothing_told),
        cmocka_unit_test(test_unknown_capabilities),
        cmocka_unit_test(test_bad_chains),
        cmocka_unit_test(test_bad_ranges),
        cmocka_unit_test(test_cut_anywhere),
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
