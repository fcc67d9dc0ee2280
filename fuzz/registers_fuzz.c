/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzzes the registers: writes and reads of any size anywhere, with DMA, memory contents and work
 * between them.
 */
#include "input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A register by number, or any offset. */
static uint64_t any_offset(struct bench *bench, struct fuzz_input *input)
{
    static const uint8_t known[] = {
        0x18, 0x18, 0x1c, 0x20, 0x24, 0x28, 0x2c, 0x34, 0x38, 0x3c, 0x40, 0x44, 0x80, 0x84,
        0x88, 0x8c, 0x90, 0x94, 0x98, 0x9c, 0xa0, 0xa4, 0xa8, 0xac, 0xb0, 0xb4, 0x00, 0x08,
    };
    uint8_t kind = fuzz_byte(input);

    if (kind < sizeof(known)) {
        return known[kind];
    }
    if (kind < 64) {
        return bench->guest.iotlb_offset + (kind & 15);
    }
    if (kind < 128) {
        return bench->guest.fault_offset + (kind & 63);
    }
    return kind & 64 ? fuzz_number(input, 8) : fuzz_number(input, 2) & 0x3fff;
}

static void access_register(struct bench *bench, struct fuzz_input *input, bool write)
{
    uint64_t offset = any_offset(bench, input);
    uint8_t sizes = fuzz_byte(input);
    unsigned size = 1 + (sizes & 7);
    uint64_t value = 0;

    if (write) {
        /* The value may lie at the top of the register, which is where the action bits are. */
        value = fuzz_number(input, sizes & 8 ? 2 : size);
        if (sizes & 16) {
            value <<= 8 * size - 8;
        }
        guest_write(&bench->guest, offset, size, value);
        return;
    }
    value = guest_read(&bench->guest, offset, size);
    if (size < 8 && value >> (8 * size)) {
        guest_die("a read of %u bytes gives %#llx", size, (unsigned long long)value);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size, 0};
    struct bench bench;

    bench_init(&bench, &input);
    while (fuzz_more(&input)) {
        uint8_t operation = fuzz_byte(&input);
        uint64_t index;

        switch (operation & 7) {
        case 0:
        case 1:
        case 2:
            access_register(&bench, &input, true);
            break;
        case 3:
            access_register(&bench, &input, false);
            break;
        case 4:
            index = fuzz_number(&input, 2); /* first, whatever the compiler does with arguments */
            bench_store(&bench, index, fuzz_number(&input, 1 + (operation >> 5)));
            break;
        case 5:
            bench_dma(&bench, &input);
            break;
        case 6:
            bench_embedder(&bench, &input);
            break;
        default:
            bench_settle(&bench);
            break;
        }
        bench_check(&bench);
    }
    bench_fini(&bench);
    return 0;
}
