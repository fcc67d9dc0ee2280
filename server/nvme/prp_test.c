/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of PRP lists: each shape by hand, then thousands at random against a model that knows
 * nothing of lists: the address of every byte.
 */
#include "prp.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum {
    LIST_PAGES = 64,
    LIST_ROOM = LIST_PAGES << 16,
};

#define LISTS UINT64_C(0x40000000)
#define DATA  UINT64_C(0x8000000000)

static uint8_t lists[LIST_ROOM];
static unsigned reads, fail_read;
static size_t read_bytes;

static int read_list(void *opaque, uint64_t iova, void *data, size_t size)
{
    (void)opaque;
    if (++reads == fail_read) {
        return -EPERM;
    }
    if (iova < LISTS || size > LIST_ROOM || iova - LISTS > LIST_ROOM - size) {
        return -EFAULT;
    }
    read_bytes += size;
    memcpy(data, lists + (iova - LISTS), size);
    return 0;
}

static void put_entry(uint64_t iova, uint64_t entry)
{
    memcpy(lists + (iova - LISTS), &entry, sizeof(entry));
}

static struct nvme_prp_memory memory = {.read = read_list, .page_shift = 12};
static struct device_dma_range ranges[NVME_RANGES_MAX];
static size_t count;

static int decode(uint64_t prp1, uint64_t prp2, size_t length)
{
    reads = 0;
    read_bytes = 0;
    return nvme_prp_decode(&memory, prp1, prp2, length, ranges, &count);
}

static int setup(void **state)
{
    (void)state;
    memset(lists, 0, sizeof(lists));
    memory.page_shift = 12;
    fail_read = 0;
    return 0;
}

static void assert_range(size_t i, uint64_t iova, size_t size)
{
    assert_int_equal(ranges[i].iova, iova);
    assert_int_equal(ranges[i].size, size);
}

static void one_entry(void **state)
{
    (void)state;
    assert_int_equal(decode(DATA, 1, 4096), 0);
    assert_int_equal(count, 1);
    assert_range(0, DATA, 4096);
    assert_int_equal(decode(DATA + 4092, 1, 4), 0);
    assert_range(0, DATA + 4092, 4);
    assert_int_equal(reads, 0);
    assert_int_equal(decode(DATA + 2, 0, 4), -EINVAL);
    assert_int_equal(decode(DATA + 1, 0, 4), -EINVAL);
}

static void two_entries(void **state)
{
    (void)state;
    assert_int_equal(decode(DATA + 4, DATA + 0x5000, 4096), 0);
    assert_int_equal(count, 2);
    assert_range(0, DATA + 4, 4092);
    assert_range(1, DATA + 0x5000, 4);
    assert_int_equal(decode(DATA, DATA + 0x5000, 8192), 0);
    assert_range(1, DATA + 0x5000, 4096);
    /* Neighbours are one. */
    assert_int_equal(decode(DATA + 4, DATA + 0x1000, 8188), 0);
    assert_int_equal(count, 1);
    assert_range(0, DATA + 4, 8188);
    assert_int_equal(decode(DATA, DATA + 0x5004, 8192), -EINVAL);
    assert_int_equal(reads, 0);
    /* The end of the address space has no neighbour. */
    assert_int_equal(decode(UINT64_MAX - 4095, 0, 8192), 0);
    assert_int_equal(count, 2);
    assert_range(1, 0, 4096);
}

static void a_list(void **state)
{
    (void)state;
    put_entry(LISTS + 8, DATA + 0x3000);
    put_entry(LISTS + 16, DATA + 0x9000);
    assert_int_equal(decode(DATA, LISTS + 8, 4096 * 3 - 4), 0);
    assert_int_equal(count, 3);
    assert_range(1, DATA + 0x3000, 4096);
    assert_range(2, DATA + 0x9000, 4092);
    assert_int_equal(reads, 1);
    assert_int_equal(read_bytes, 16);
    assert_int_equal(decode(DATA, LISTS + 4, 4096 * 3), -EINVAL);
    put_entry(LISTS + 16, DATA + 0x9008);
    assert_int_equal(decode(DATA, LISTS + 8, 4096 * 3), -EINVAL);
    assert_int_equal(decode(DATA, LISTS - 8, 4096 * 3), -EFAULT);
    fail_read = 1;
    assert_int_equal(decode(DATA, LISTS, 4096 * 3), -EPERM);
}

static void a_list_that_leads_to_the_next(void **state)
{
    (void)state;
    /* Only one entry is left in its page: it leads on. */
    put_entry(LISTS + 4088, LISTS + 0x4000);
    put_entry(LISTS + 0x4000, DATA + 0x3000);
    put_entry(LISTS + 0x4008, DATA + 0x5000);
    assert_int_equal(decode(DATA, LISTS + 4088, 4096 * 3), 0);
    assert_int_equal(count, 3);
    assert_range(1, DATA + 0x3000, 4096);
    assert_range(2, DATA + 0x5000, 4096);
    assert_int_equal(reads, 2);
    /* As many entries as are needed: the last is for data. */
    put_entry(LISTS + 4080, DATA + 0x3000);
    put_entry(LISTS + 4088, DATA + 0x5000);
    assert_int_equal(decode(DATA, LISTS + 4080, 4096 * 3), 0);
    assert_int_equal(count, 3);
    assert_int_equal(reads, 1);
    /* One that leads on begins a page. */
    put_entry(LISTS + 4088, LISTS + 0x4008);
    assert_int_equal(decode(DATA, LISTS + 4080, 4096 * 4), -EINVAL);
    put_entry(LISTS + 4088, LISTS + 0x4000);
    fail_read = 2;
    assert_int_equal(decode(DATA, LISTS + 4080, 4096 * 4), -EPERM);
}

static void a_list_that_leads_to_itself_ends(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 512; i++) {
        put_entry(LISTS + i * 8, LISTS);
    }
    assert_int_equal(decode(DATA, LISTS + 4088, NVME_TRANSFER_MAX), 0);
    assert_int_equal(count, 256);
    assert_int_equal(reads, 2);
}

/* ---- the model ----------------------------------------------------------------------------- */

struct shape {
    uint64_t pages[NVME_RANGES_MAX + 1]; /* device addresses of pages, in order */
    size_t n;
    uint64_t prp1, prp2;
    size_t length;
};

static unsigned long next_random(void)
{
    return (unsigned long)random();
}

/* Random pages, some of them neighbours. */
static void choose_pages(struct shape *shape, uint64_t page)
{
    for (size_t i = 0; i < shape->n; i++) {
        bool neighbour = i > 0 && next_random() % 3 == 0;

        shape->pages[i] =
            neighbour ? shape->pages[i - 1] + page : DATA + next_random() % 100000 * page;
    }
}

/* Put the pages from the second on into lists, the first of which begins somewhere in its page. */
static uint64_t write_lists(const struct shape *shape, uint64_t page)
{
    uint64_t list_page = LISTS, at = LISTS + next_random() % (page / 8) * 8, first = at;

    if (next_random() % 2) {
        at = first = LISTS + page - 8 * (1 + next_random() % 3);
    }
    for (size_t i = 1; i < shape->n; i++) {
        if (at % page == page - 8 && i + 1 < shape->n) {
            list_page += page * (1 + next_random() % 3);
            put_entry(at, list_page);
            at = list_page;
        }
        put_entry(at, shape->pages[i]);
        at += 8;
    }
    return first;
}

static void make_shape(struct shape *shape, uint64_t page)
{
    uint64_t offset = next_random() % 2 ? 0 : next_random() % (page / 4) * 4;

    shape->length = 1 + next_random() % (next_random() % 2 ? 4 * page : NVME_TRANSFER_MAX);
    if (shape->length > NVME_TRANSFER_MAX) {
        shape->length = NVME_TRANSFER_MAX;
    }
    shape->n = (size_t)((offset + shape->length + page - 1) / page);
    choose_pages(shape, page);
    shape->prp1 = shape->pages[0] + offset;
    shape->prp2 = shape->n == 2 ? shape->pages[1] : write_lists(shape, page);
}

/* Each byte of the transfer is where the model says. */
static void check_shape(const struct shape *shape, uint64_t page)
{
    uint64_t offset = shape->prp1 % page;
    size_t done = 0;

    for (size_t i = 0; i < count; i++) {
        assert_true(ranges[i].size > 0);
        for (size_t at = 0; at < ranges[i].size; at += 4) {
            uint64_t place = offset + done + at;

            assert_int_equal(ranges[i].iova + at, shape->pages[place / page] + place % page);
        }
        done += ranges[i].size;
        assert_true(i == 0 || ranges[i - 1].iova + ranges[i - 1].size != ranges[i].iova);
    }
    assert_int_equal(done, shape->length);
}

static void random_shapes(void **state)
{
    static struct shape shape;

    (void)state;
    srandom(20240611);
    for (unsigned i = 0; i < 3000; i++) {
        memory.page_shift = 12 + (i % 5);
        make_shape(&shape, UINT64_C(1) << memory.page_shift);
        assert_int_equal(decode(shape.prp1, shape.prp2, shape.length), 0);
        assert_true(count <= NVME_RANGES_MAX);
        check_shape(&shape, UINT64_C(1) << memory.page_shift);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(one_entry, setup),
        cmocka_unit_test_setup(two_entries, setup),
        cmocka_unit_test_setup(a_list, setup),
        cmocka_unit_test_setup(a_list_that_leads_to_the_next, setup),
        cmocka_unit_test_setup(a_list_that_leads_to_itself_ends, setup),
        cmocka_unit_test_setup(random_shapes, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
