/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An address space in a kernel that a test plays, for tests of backends that map into one: the
 * mappings that it has, the calls that it got, how it is to fail; and what such a backend is asked
 * for and answers, whichever kernel interface is below it.
 *
 * A test program has one space. Its `ioctl` keeps it up to date; space_begin makes it empty.
 */
#ifndef VIOMMU_COMMON_TEST_SPACE_H
#define VIOMMU_COMMON_TEST_SPACE_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <viommu/notify.h>

#include <cmocka.h>

#define MAPPINGS 4 /* no more than these fit */

static struct {
    struct viommu_range mappings[MAPPINGS];
    unsigned count;
    unsigned maps; /* calls, also those that failed */
    unsigned unmaps;
    unsigned cut_offs;
    /* Injected failures. */
    int unmap_error;
    uint64_t unmap_less; /* so much less than was unmapped is told */
    int cut_off_answer;
} space;

/* ---- the kernel's side ----------------------------------------------------------------------- */

static inline void space_begin(void)
{
    memset(&space, 0, sizeof(space));
}

/* An answer of `ioctl`. */
static inline int refuse(int error)
{
    errno = error;
    return -1;
}

/* An answer of `ioctl`: `full` is the error when there is no room for one more. */
static inline int space_map(uint64_t first, uint64_t last, int full)
{
    for (unsigned i = 0; i < space.count; i++) {
        if (first <= space.mappings[i].last && space.mappings[i].first <= last) {
            return refuse(EEXIST);
        }
    }
    if (space.count == MAPPINGS) {
        return refuse(full);
    }
    space.mappings[space.count++] = (struct viommu_range){first, last};
    return 0;
}

/* The backend's callback that cuts the device off; its `opaque` is the space. */
static inline int cut_off(void *opaque)
{
    assert_ptr_equal(opaque, &space);
    space.cut_offs++;
    return space.cut_off_answer;
}

/* ---- the library's side ---------------------------------------------------------------------- */

static inline int map(const struct viommu_subscription *what, uint64_t first, uint64_t last,
                      uint32_t perm)
{
    struct viommu_change change = {
        .kind = VIOMMU_CHANGE_MAP,
        .first = first,
        .last = last,
        .perm = perm,
        .host = (void *)(uintptr_t)(0x70000000 + first),
    };

    return what->change(what->opaque, &change);
}

static inline int unmap(const struct viommu_subscription *what, uint64_t first, uint64_t last)
{
    struct viommu_change change = {.kind = VIOMMU_CHANGE_UNMAP, .first = first, .last = last};

    return what->change(what->opaque, &change);
}

/* A mirror that maps pages of 4 KiB on both sides of the interrupt range, below 512 GiB. */
static inline void expect_usual_mirror(const struct viommu_subscription *what)
{
    assert_int_equal(what->kinds, VIOMMU_CHANGE_MAP | VIOMMU_CHANGE_UNMAP);
    assert_int_equal(what->role, VIOMMU_ROLE_MIRROR);
    assert_int_equal(what->form, VIOMMU_FORM_RANGE);
    assert_int_equal(what->allowed_count, 2);
    assert_int_equal(what->allowed[0].first, 0);
    assert_int_equal(what->allowed[0].last, 0xfedfffff);
    assert_int_equal(what->allowed[1].first, 0xfef00000);
    assert_int_equal(what->allowed[1].last, 0x7fffffffff);
    assert_int_equal(what->page_sizes, ~UINT64_C(0xfff));
}

/* A change of a kind that the backend did not ask for. */
static inline void expect_no_replace(const struct viommu_subscription *what)
{
    struct viommu_change change = {.kind = VIOMMU_CHANGE_REPLACE};

    assert_int_equal(what->change(what->opaque, &change), -ENOTSUP);
}

/* Nothing could be unmapped, for this reason; the backend, of an empty space, has a cut_off. */
static inline void expect_fence_that_fails(const struct viommu_subscription *what, int error)
{
    map(what, 0x1000, 0x2fff, VIOMMU_READ);
    space.unmap_error = error;
    assert_int_equal(what->fence(what->opaque), 0); /* the device was cut off */
    assert_int_equal(space.cut_offs, 1);
    space.cut_off_answer = -ENXIO;
    assert_int_equal(what->fence(what->opaque), -ENXIO);
    /* What was left goes before anything else is mapped. */
    assert_int_equal(map(what, 0x8000, 0x8fff, VIOMMU_READ), -error);
    assert_int_equal(space.maps, 1);
    space.unmap_error = 0;
    assert_int_equal(map(what, 0x8000, 0x8fff, VIOMMU_READ), 0);
    assert_int_equal(space.count, 1);
    assert_int_equal(space.mappings[0].first, 0x8000);
    assert_int_equal(map(what, 0x9000, 0x9fff, VIOMMU_READ), 0);
    assert_int_equal(space.count, 2);
}

#endif
