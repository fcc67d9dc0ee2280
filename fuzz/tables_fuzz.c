/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzzes root, context and page tables: entries of any content in a small memory, and DMA of every
 * kind through them, with invalidations that leave something cached.
 *
 * Page 1 is the root table, page 2 the context table of bus 0 at first; the other pages are what
 * the entries make of them. Translation is on.
 */
#include "input.h"

#define ROOT 0x1000ull
#define CONTEXT 0x2000ull
#define TABLE 0x3000ull

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An entry that leads to a page of memory, with some bits, or 8 bytes as they come. */
static uint64_t any_entry(struct fuzz_input *input)
{
    uint8_t kind = fuzz_byte(input);
    uint64_t entry;

    if (kind >= 0xf0) {
        return fuzz_number(input, 8);
    }
    entry = (uint64_t)(kind % BENCH_RAM_PAGES) << 12;
    entry |= fuzz_number(input, 2) & 0xfff; /* permissions, page size, the reserved bits below 12 */
    if (kind >= 0xc0) {
        entry |= 1ull << (fuzz_byte(input) & 63);
    }
    return entry;
}

/* The place is read first, whatever the compiler does with arguments. */
static void store_entry(struct bench *bench, struct fuzz_input *input)
{
    uint64_t index = fuzz_number(input, 2);

    bench_store(bench, index, any_entry(input));
}

static void store_context(struct bench *bench, struct fuzz_input *input)
{
    static const uint8_t slots[4] = {0x08, 0x09, 0x0a, 0x07};
    uint8_t kind = fuzz_byte(input);
    uint64_t slot = (CONTEXT + slots[kind & 3] * 16u) / 8;
    uint64_t lo = TABLE + ((uint64_t)(kind >> 5) << 12) + 1 + (kind & 0xc);
    uint64_t hi = 1 + (kind >> 4 & 1) + ((uint64_t)fuzz_byte(input) << 8);

    if (hi >> 15) {
        lo ^= any_entry(input);
        hi ^= fuzz_number(input, 8);
    }
    bench_store(bench, slot + 1, hi);
    bench_store(bench, slot, lo);
}

/* A path to a page: entries at the indexes of an address, from a table on. */
static void store_path(struct bench *bench, struct fuzz_input *input)
{
    uint8_t kind = fuzz_byte(input);
    unsigned levels = 3 + (kind & 1);
    unsigned leaf = 1 + (kind >> 1 & 3) % 3;
    uint64_t iova = fuzz_number(input, 5) << 8;
    uint64_t table = TABLE + ((uint64_t)(kind >> 5) << 12);

    for (unsigned level = levels; level; level--) {
        uint64_t slot = table / 8 + (iova >> (12 + 9 * (level - 1)) & 511);
        uint64_t entry;

        if (level == leaf) {
            entry = (kind & 16 ? 0 : (uint64_t)(kind % BENCH_RAM_PAGES) << 12) |
                    (level > 1 ? SPEC_PS : 0) | 3;
            bench_store(bench, slot, level > 1 ? entry & 0xfff : entry);
            return;
        }
        entry = any_entry(input) | 1;
        bench_store(bench, slot, entry);
        table = entry & (BENCH_RAM_PAGES - 1ull) << 12;
    }
}

/* Deferred work is what the other targets are about: here it is done at once. */
static void process(struct bench *bench)
{
    for (unsigned i = 0; i < 16 && viommu_process(bench->guest.iommu, 64) == VIOMMU_PENDING; i++) {
        /* again */
    }
}

static void invalidate(struct bench *bench, struct fuzz_input *input)
{
    struct guest *guest = &bench->guest;
    uint8_t kind = fuzz_byte(input);

    if (kind & 1) {
        guest_write(guest, SPEC_CCMD, 8,
                    1ull << 63 | (uint64_t)(kind >> 1 & 3) << 61 |
                        (uint64_t)(kind >> 3 & 3) << 32 | 8u << 16 | kind >> 5);
    } else {
        guest_write(guest, guest->iotlb_offset, 8, fuzz_number(input, 5) << 8 | (kind >> 5));
        guest_write(guest, guest->iotlb_offset + 8, 8,
                    1ull << 63 | (uint64_t)(kind >> 1 & 3) << 60 |
                        (uint64_t)(kind >> 3 & 3) << 32);
    }
    process(bench);
}

static void command(struct bench *bench, struct fuzz_input *input)
{
    uint8_t kind = fuzz_byte(input);

    if (kind & 1) {
        guest_write(&bench->guest, SPEC_RTADDR, 8,
                    kind & 2 ? fuzz_number(input, 8) : ROOT + ((uint64_t)(kind >> 4) << 10));
    }
    guest_write(&bench->guest, SPEC_GCMD, 4, (kind & 4 ? 0 : SPEC_TE) | (kind & 8 ? 0 : SPEC_SRTP));
    process(bench);
}

static void clear_faults(struct bench *bench)
{
    struct guest *guest = &bench->guest;

    for (unsigned i = 0; i < guest->fault_count && i < 8; i++) {
        guest_write(guest, guest->fault_offset + 16 * i + 12, 4, 1u << 31);
    }
    guest_write(guest, SPEC_FSTS, 4, SPEC_PFO);
}

static void prepare(struct bench *bench)
{
    bench_store(bench, ROOT / 8, CONTEXT | 1);
    bench_store(bench, ROOT / 8 + 2, CONTEXT | 1); /* bus 1 */
    guest_write(&bench->guest, SPEC_RTADDR, 8, ROOT);
    guest_write(&bench->guest, SPEC_GCMD, 4, SPEC_SRTP);
    guest_write(&bench->guest, SPEC_GCMD, 4, SPEC_TE);
    process(bench);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size, 0};
    struct bench bench;

    bench_init(&bench, &input);
    prepare(&bench);
    while (fuzz_more(&input)) {
        uint8_t operation = fuzz_byte(&input);

        switch (operation & 15) {
        case 0:
        case 1:
            store_entry(&bench, &input);
            break;
        case 2:
            store_context(&bench, &input);
            break;
        case 3:
            store_path(&bench, &input);
            break;
        case 4:
            invalidate(&bench, &input);
            break;
        case 5:
            command(&bench, &input);
            break;
        case 6:
            bench_embedder(&bench, &input);
            break;
        case 7:
            clear_faults(&bench);
            break;
        default:
            bench_dma(&bench, &input);
            break;
        }
        bench_check(&bench);
    }
    bench_fini(&bench);
    return 0;
}
