/* SPDX-License-Identifier: BSD-2-Clause */
/* What the tests of this room share: memory for slots, short ways to batches, a look at the fd. */
#ifndef VIOMMU_MEMORY_TEST_MEMORY_H
#define VIOMMU_MEMORY_TEST_MEMORY_H

#include "memory/memory.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <viommu/memory.h>

#include <cmocka.h>

#define PAGE UINT64_C(4096)
#define HOST_PAGES 64

static _Alignas(4096) unsigned char host_bytes[HOST_PAGES * 4096];

/* A slot of `pages` pages at gpa, with the host memory that begins at page `host_page` of ours. */
static inline struct viommu_memory_slot test_slot(uint64_t gpa, size_t pages, size_t host_page)
{
    return (struct viommu_memory_slot){
        .first = gpa,
        .last = gpa + (pages * PAGE - 1),
        .host = host_bytes + host_page * PAGE,
        .fd = -1,
    };
}

static inline struct viommu_memory_batch *test_begin(struct viommu_memory *memory)
{
    struct viommu_memory_batch *batch = NULL;

    assert_int_equal(viommu_memory_batch_begin(memory, &batch), 0);
    assert_non_null(batch);
    return batch;
}

static inline void test_add(struct viommu_memory_batch *batch, uint64_t gpa, size_t pages,
                            size_t host_page)
{
    struct viommu_memory_slot slot = test_slot(gpa, pages, host_page);

    assert_int_equal(viommu_memory_batch_add(batch, &slot), 0);
}

static inline void test_remove(struct viommu_memory_batch *batch, uint64_t gpa, size_t pages)
{
    assert_int_equal(viommu_memory_batch_remove(batch, gpa, gpa + (pages * PAGE - 1)), 0);
}

/* Batches of one change. What the commit returned. */
static inline int test_add_one(struct viommu_memory *memory, uint64_t gpa, size_t pages,
                               size_t host_page)
{
    struct viommu_memory_batch *batch = test_begin(memory);

    test_add(batch, gpa, pages, host_page);
    return viommu_memory_batch_commit(batch, NULL, NULL);
}

static inline int test_remove_one(struct viommu_memory *memory, uint64_t gpa, size_t pages)
{
    struct viommu_memory_batch *batch = test_begin(memory);

    test_remove(batch, gpa, pages);
    return viommu_memory_batch_commit(batch, NULL, NULL);
}

/* Whether the event fd becomes readable within `ms`. */
static inline bool test_readable(struct viommu_memory *memory, int ms)
{
    struct pollfd pollfd = {.fd = viommu_memory_event_fd(memory), .events = POLLIN};

    return poll(&pollfd, 1, ms) == 1;
}

/* Whether a byte at gpa can be read. */
static inline bool test_present(struct viommu_memory *memory, uint64_t gpa)
{
    unsigned char byte;

    return viommu_memory_read(memory, gpa, &byte, 1) == 0;
}

/* Processes as an event loop does, until nothing is pending. False when it takes too long. */
static inline bool test_finish(struct viommu_memory *memory)
{
    while (viommu_memory_process(memory)) {
        if (!test_readable(memory, 5000)) {
            return false;
        }
    }
    return true;
}

#endif
