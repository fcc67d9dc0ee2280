/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzzes the invalidation queue: any descriptors, heads, tails and sizes; budgets, open sections,
 * devices that answer late, never, or with an error; repairs and switching off in the middle.
 *
 * The queue is on from the start, one page at QUEUE; the input may move it.
 */
#include "input.h"

#define QUEUE 0x2000ull
#define STATUS 0x1000ull

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A descriptor of a known type with operands, or 16 bytes as they come. */
static struct spec_descriptor any_descriptor(struct fuzz_input *input)
{
    static const uint16_t requesters[4] = {0x0008, 0x0009, 0x0107, 0x0300};
    uint8_t kind = fuzz_byte(input);
    struct spec_descriptor descriptor;

    switch (kind & 7) {
    case 0:
        return spec_context_invalidate(kind >> 3 & 3, fuzz_byte(input),
                                       requesters[kind >> 5 & 3], kind >> 6);
    case 1:
        return spec_iotlb_invalidate(kind >> 3 & 3, kind >> 5 & 3, fuzz_number(input, 4) << 12,
                                     fuzz_byte(input), kind >> 7);
    case 2:
        return spec_device_tlb_invalidate(requesters[kind >> 3 & 3], fuzz_number(input, 4) << 12,
                                          fuzz_byte(input) % 52);
    case 3:
        descriptor = spec_device_tlb_invalidate(requesters[kind >> 3 & 3], 0, 0);
        descriptor.hi = fuzz_number(input, 8);
        return descriptor;
    case 4:
        return spec_interrupt_cache_invalidate(kind >> 3 & 1, (uint16_t)fuzz_number(input, 2),
                                               kind >> 4);
    case 5:
    case 6:
        return spec_wait((kind & 0x38) << 1, STATUS + (kind >> 6) * 4, fuzz_byte(input));
    default:
        descriptor.lo = fuzz_number(input, 8);
        descriptor.hi = fuzz_number(input, 8);
        return descriptor;
    }
}

static void put(struct bench *bench, struct fuzz_input *input)
{
    struct spec_descriptor descriptor = any_descriptor(input);
    struct guest *guest = &bench->guest;

    guest_queue_put(guest, descriptor);
}

static void registers(struct bench *bench, struct fuzz_input *input)
{
    struct guest *guest = &bench->guest;
    uint8_t kind = fuzz_byte(input);

    switch (kind & 7) {
    case 0:
        guest_write(guest, SPEC_FSTS, 4, SPEC_IQE | SPEC_ICE | SPEC_ITE);
        break;
    case 1:
        guest_write(guest, SPEC_IQT, 4, fuzz_number(input, 3));
        break;
    case 2:
        guest_write(guest, SPEC_GCMD, 4, kind & 8 ? SPEC_QIE : 0);
        guest->queue_tail = 0; /* the next descriptor is the first again */
        break;
    case 3:
        guest_write(guest, SPEC_IQA, 8, (QUEUE & ~0xfffull) + ((uint64_t)kind >> 3));
        break;
    case 4:
        guest_write(guest, SPEC_IQA, 8, fuzz_number(input, 8));
        break;
    case 5:
        guest_write(guest, SPEC_ICS, 4, 1);
        guest_write(guest, SPEC_IECTL, 4, kind & 8 ? SPEC_IM : 0);
        guest_write(guest, SPEC_FECTL, 4, kind & 16 ? SPEC_IM : 0);
        break;
    case 6: /* the root's mode matters to the queue */
        guest_write(guest, SPEC_RTADDR, 8, (uint64_t)(kind >> 3 & 3) << 10);
        guest_write(guest, SPEC_GCMD, 4, SPEC_QIE | SPEC_SRTP);
        break;
    default:
        guest_write(guest, SPEC_GCMD, 4, SPEC_QIE | (kind & 8 ? SPEC_TE : 0));
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size, 0};
    struct bench bench;

    bench_init(&bench, &input);
    bench.guest.queue = QUEUE;
    bench.guest.queue_entries = 256;
    guest_write(&bench.guest, SPEC_IQA, 8, QUEUE);
    guest_write(&bench.guest, SPEC_GCMD, 4, SPEC_QIE);
    while (fuzz_more(&input)) {
        uint8_t operation = fuzz_byte(&input);

        switch (operation & 7) {
        case 0:
        case 1:
            put(&bench, &input);
            if (operation & 8) {
                guest_queue_kick(&bench.guest);
            }
            break;
        case 2:
            guest_queue_kick(&bench.guest);
            break;
        case 3:
            registers(&bench, &input);
            break;
        case 4:
            bench_dma(&bench, &input);
            break;
        case 5:
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
