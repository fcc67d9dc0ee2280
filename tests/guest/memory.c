/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * memory.c - pages to DMA into, and patterns to recognise them by.  See memory.h.
 *
 * A pattern's byte at offset o is a byte of a mixed (seed, o / 8): no two places hold the same.
 */
#include "memory.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void *memory_get(size_t size, size_t align)
{
    size_t whole = size + align;
    uint8_t *raw = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint8_t *start;

    if (raw == MAP_FAILED) {
        return NULL;
    }
    start = (uint8_t *)(((uintptr_t)raw + align - 1) & ~(uintptr_t)(align - 1));
    if (start > raw) {
        munmap(raw, (size_t)(start - raw));
    }
    if (raw + whole > start + size) {
        munmap(start + size, (size_t)(raw + whole - (start + size)));
    }
    if (size >= SUPER_PAGE) {
        madvise(start, size, MADV_HUGEPAGE);
    }
    memset(start, 0, size);
    mlock(start, size);
    return start;
}

void memory_put(void *memory, size_t size)
{
    munmap(memory, size);
}

uint64_t memory_gpa(const void *page)
{
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    uint64_t entry = 0;
    ssize_t n;

    if (fd < 0) {
        return 0;
    }
    n = pread(fd, &entry, sizeof(entry), (off_t)((uintptr_t)page / PAGE * sizeof(entry)));
    close(fd);
    if (n != sizeof(entry) || !(entry >> 63)) {
        return 0;
    }
    return (entry & ((1ull << 55) - 1)) * PAGE;
}

bool memory_is_super_page(const void *memory, size_t size)
{
    const uint8_t *bytes = memory;
    uint64_t first = memory_gpa(bytes);

    if (first == 0 || first % size != 0) {
        return false;
    }
    for (size_t at = PAGE; at < size; at += PAGE) {
        if (memory_gpa(bytes + at) != first + at) {
            return false;
        }
    }
    return true;
}

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

static uint8_t pattern_byte(size_t offset, uint64_t seed)
{
    return (uint8_t)(mix(seed ^ mix(offset / 8)) >> (offset % 8 * 8));
}

void pattern_fill(void *memory, size_t size, uint64_t seed)
{
    uint8_t *bytes = memory;

    for (size_t i = 0; i < size; i++) {
        bytes[i] = pattern_byte(i, seed);
    }
}

bool pattern_matches(const void *memory, size_t offset, size_t size, uint64_t seed)
{
    const volatile uint8_t *bytes = memory;

    for (size_t i = 0; i < size; i++) {
        if (bytes[i] != pattern_byte(offset + i, seed)) {
            return false;
        }
    }
    return true;
}

uint64_t pattern_new_seed(void)
{
    static uint64_t seed = 1000;

    return ++seed;
}
