/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the fuzz targets of the VT-d unit share: a *bench*, a unit with devices, a subscriber that
 * answers as the input says, and a clock of its own. Input is read by bytes.h; each target is a
 * loop of operations, one byte that chooses and its operands, FUZZ_STEPS_MAX at most.
 *
 * What bench_check() looks at holds after every operation, whatever the input; else it aborts.
 */
#ifndef VIOMMU_FUZZ_INPUT_H
#define VIOMMU_FUZZ_INPUT_H

#include "bytes.h"
#include "support/guest.h"

#define BENCH_DEVICES 3
#define BENCH_TOKENS 64
#define BENCH_RAM_PAGES 24
#define BENCH_WINDOWS 7

/* A pinned window, or none. */
struct bench_window {
    struct viommu_window *window;
    struct iovec iov[8];
    uint8_t policy; /* what its holder does: see on_revoke, on_fence */
    unsigned revoked;
    unsigned fenced;
};

struct bench {
    struct guest guest;
    struct viommu_device *devices[BENCH_DEVICES];
    struct viommu_subscriber *subscribers[BENCH_DEVICES];
    uint64_t clock;
    unsigned checks;
    unsigned section; /* sections open */
    uint8_t answer;   /* what subscribers do: see on_change */
    uint64_t tokens[BENCH_TOKENS];
    unsigned token_count;
    bool device_tlb;
    struct bench_window windows[BENCH_WINDOWS];
};

/* Two bytes of configuration. Translation is off; tables and queue are the target's to make. */
void bench_init(struct bench *bench, struct fuzz_input *input);
void bench_fini(struct bench *bench);

/* One DMA operation of a device, chosen and described by the input. */
void bench_dma(struct bench *bench, struct fuzz_input *input);

/* Budgets, time, sections, tokens, resets, windows: what an embedder does. */
void bench_embedder(struct bench *bench, struct fuzz_input *input);

/* Stores 8 bytes of guest memory, at an address of 8-byte units. */
void bench_store(struct bench *bench, uint64_t index, uint64_t value);

void bench_check(struct bench *bench);

/* Processes until nothing is left, in bounded time; then checks. Closes sections. */
void bench_settle(struct bench *bench);

#endif
