/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The bed of the window target: a unit of either model, its guest's memory and the slots in it that
 * change, its tables and requests, and the devices, windows and reservations that the target plays
 * with.
 *
 * Memory: RAM from 0, with the tables of a VT-d guest; PLACES with a slot each, or none; a large
 * slot from LARGE on.
 */
#ifndef VIOMMU_FUZZ_WINDOW_GUEST_H
#define VIOMMU_FUZZ_WINDOW_GUEST_H

#include "bytes.h"
#include "support/guest.h"
#include "support/virtio_spec.h"

#include <base/alloc.h>
#include <errno.h>
#include <string.h>

#define DEVICES      4
#define SPACED       3 /* so many of them are in the space, the last one is not */
#define MIRRORS      2
#define WINDOWS      6
#define RESERVATIONS 6
#define HELD_MAX     2048 /* by a mirror: more than all pages that can be mapped */
#define PLACES       4
#define RAM_PAGES    16u
#define PLACE_PAGES  8u
#define LARGE_PAGES  160u
#define LARGE        0x200000ull
#define IOVS         12
#define ROUNDS       2000u

/* Where the guest's tables are, of four levels; the last one covers the first 2 MiB. */
#define ROOT       0x1000ull
#define CONTEXT    0x2000ull
#define TABLE      0x4000ull
#define TABLES_END 0x8000u

struct bed;

struct window {
    struct bed *bed;
    struct viommu_window *window;
    struct iovec iov[IOVS];
    size_t iov_count;
    unsigned batch; /* how many there had been when it was pinned */
    bool obliging;  /* goes when it is asked to */
};

struct bed {
    uint8_t kind;
    bool virtio;
    bool hostile;
    struct viommu_memory *memory;
    struct viommu_iova *space;
    struct viommu_iova_owner *host;
    struct viommu *iommu;
    struct viommu_device *devices[DEVICES];
    struct mirror {
        struct bed *bed;
        struct viommu_subscriber *subscriber;
        unsigned device;
        struct viommu_range held[HELD_MAX]; /* in no order */
        unsigned count;
    } mirrors[MIRRORS];
    struct viommu_iova_reservation *reservations[RESERVATIONS];
    struct window windows[WINDOWS];
    struct viommu_memory_slot places[PLACES]; /* no host: not there */
    struct viommu_memory_slot gone;           /* of the batch that is under way */
    bool changing;
    unsigned batch;
    uint64_t clock;
    uint64_t iotlb;
    bool section; /* is open */
};

static uint8_t ram[RAM_PAGES * 4096] __attribute__((aligned(4096)));
static uint8_t hosts[PLACES][2][PLACE_PAGES * 4096] __attribute__((aligned(4096)));
static uint8_t large[LARGE_PAGES * 4096] __attribute__((aligned(4096)));

/* Whether a call may have ended so: with one of the errors (0 ends them), or for lack of memory. */
static void expect(int ret, const int *errors, const char *what)
{
    bool found = !ret || (ret == -ENOMEM && base_alloc_failed());

    while (*errors && !found) {
        found = ret == -*errors++;
    }
    if (!found) {
        guest_die("%s: %d", what, ret);
    }
}

/* ---- memory ---- */

static void on_done(void *opaque)
{
    struct bed *bed = opaque;
    const uint8_t *host = bed->gone.host;
    size_t size = (size_t)(bed->gone.last - bed->gone.first) + 1;

    bed->changing = false;
    for (unsigned i = 0; host && i < WINDOWS; i++) {
        const struct window *window = &bed->windows[i];

        for (size_t j = 0; window->window && window->batch < bed->batch && j < window->iov_count;
             j++) {
            const uint8_t *at = window->iov[j].iov_base;

            if (at < host + size && at + window->iov[j].iov_len > host) {
                guest_die("memory is gone, and a window leads there");
            }
        }
    }
}

/* Takes a place's slot away, or puts one there, or another one. */
static void change_memory(struct bed *bed, uint8_t kind)
{
    static const int refusals[] = {0};
    unsigned number = kind % PLACES;
    struct viommu_memory_slot *place = &bed->places[number];
    struct viommu_memory_slot next = {
        .first = 0x100000 + number * 0x10000 + (kind & 4 ? 0x1000u : 0),
        .last = 0x100000 + number * 0x10000 + (kind & 8 ? 0x6fff : 0x4fff),
        .host = hosts[number][kind >> 4 & 1],
        .fd = -1,
        .flags = kind & 32 ? VIOMMU_MEMORY_READONLY : 0,
    };
    struct viommu_memory_batch *batch;
    int ret;

    if (bed->changing) {
        (void)viommu_memory_process(bed->memory);
        return;
    }
    /* The host memory of an address does not depend on where the slot begins. */
    next.host = (uint8_t *)next.host + (kind & 4 ? 0x1000 : 0);
    ret = viommu_memory_batch_begin(bed->memory, &batch);
    if (ret) {
        expect(ret, refusals, "batch");
        return;
    }
    if (place->host) {
        ret = viommu_memory_batch_remove(batch, place->first, place->last);
    }
    if (!ret && kind & 64) {
        ret = viommu_memory_batch_add(batch, &next);
    }
    if (ret) {
        viommu_memory_batch_abort(batch);
        expect(ret, refusals, "batch");
        return;
    }
    bed->gone = *place;
    bed->changing = true;
    bed->batch++;
    ret = viommu_memory_batch_commit(batch, on_done, bed);
    if (ret && ret != VIOMMU_PENDING) {
        bed->changing = false;
        expect(ret, refusals, "commit");
        return;
    }
    *place = kind & 64 ? next : (struct viommu_memory_slot){0};
    if (!ret) {
        on_done(bed);
    }
}

/* ---- the guest ---- */

static void store(uint64_t gpa, uint64_t value)
{
    memcpy(ram + gpa, &value, sizeof(value));
}

static void write_register(struct bed *bed, uint64_t offset, unsigned size, uint64_t value)
{
    guest_ok(viommu_mmio_write(bed->iommu, offset, size, value), "register");
}

static void request(struct bed *bed, const struct spec_virtio_request *request)
{
    uint8_t answer[4];
    size_t written;
    int ret = viommu_virtio_request(bed->iommu, request->bytes, request->size, answer,
                                    sizeof(answer), 0, &written);

    if (ret && ret != VIOMMU_PENDING && ret != -EBUSY) {
        guest_die("a request: %d", ret);
    }
}

/* Where pages lead: the guest's memory, places, the large slot. */
static uint64_t target_of(uint8_t kind)
{
    switch (kind & 7) {
    case 0:
        return LARGE;
    case 1:
        return 0x8000;
    case 2:
        return 0x200000 - 0x1000;
    default:
        return 0x100000 + (uint64_t)((kind & 7) - 3) % PLACES * 0x10000 +
               (uint64_t)(kind >> 7) * 4096;
    }
}

/* Maps, or unmaps, pages that lead to one place after the other, or all to one. */
static void map(struct bed *bed, struct fuzz_input *input)
{
    uint8_t kind = fuzz_byte(input);
    unsigned first = fuzz_byte(input);
    unsigned count = fuzz_byte(input);
    unsigned step = kind >> 3 & 3;
    uint64_t target = target_of(kind);
    uint64_t perm = kind >> 5 & 3;

    if (bed->virtio) {
        struct spec_virtio_request made =
            perm && step == 1
                ? spec_virtio_map(1, first * 4096ull, (first + count) * 4096ull + 4095, target,
                                  (uint32_t)perm)
            : perm ? spec_virtio_map(1, first * 4096ull, first * 4096ull + 4095,
                                     target + count * 4096ull, (uint32_t)perm)
                   : spec_virtio_unmap(1, first * 4096ull, (first + count) * 4096ull + 4095);

        request(bed, &made);
        return;
    }
    for (unsigned i = 0; i <= count && first + i < 512; i++) {
        store(TABLE + 0x3000 + 8 * (first + i), perm ? (target + step * i * 4096ull) | perm : 0);
    }
}

static void attach(struct bed *bed, uint8_t kind)
{
    unsigned id = kind & 32 ? 20 + (kind & 3) : 8 + (kind & 3);

    if (bed->virtio) {
        struct spec_virtio_request made =
            kind & 4 ? spec_virtio_detach(1, id) : spec_virtio_attach(1, id, kind >> 3 & 1);

        request(bed, &made);
        return;
    }
    store(CONTEXT + 16 * id + 8, 2 | (uint64_t)(1 + (kind >> 4 & 1)) << 8);
    store(CONTEXT + 16 * id, kind & 4 ? 0 : TABLE | 1 | (kind & 8 ? 2 << 2 : 1 << 2));
}

/* An invalidation by registers, or translation off or on; the device side of a virtio-iommu. */
static void command(struct bed *bed, uint8_t kind)
{
    uint64_t status;

    if (bed->virtio) {
        if (kind & 1) {
            (void)viommu_mmio_write(bed->iommu, SPEC_CONFIG_BYPASS, 1, kind >> 1 & 1);
        } else {
            (void)viommu_virtio_reset(bed->iommu, 0);
            (void)viommu_virtio_accept(bed->iommu, 0x77);
        }
        return;
    }
    guest_ok(viommu_mmio_read(bed->iommu, SPEC_GSTS, 4, &status), "status");
    switch (kind & 3) {
    case 0:
        write_register(bed, SPEC_CCMD, 8, 1ull << 63 | 1ull << 61);
        break;
    case 1:
        write_register(bed, bed->iotlb, 8, (uint64_t)(kind >> 4) << 12 | 3);
        write_register(bed, bed->iotlb + 8, 8,
                       1ull << 63 | (uint64_t)(1 + (kind >> 2 & 3) % 3) << 60 | 1ull << 32);
        break;
    case 2:
        write_register(bed, SPEC_GCMD, 4, (status & SPEC_GSTS_STICKY) ^ SPEC_TE);
        break;
    default:
        write_register(bed, SPEC_GCMD, 4, (status & SPEC_GSTS_STICKY) | SPEC_SRTP);
        break;
    }
}

static void guest(struct bed *bed, struct fuzz_input *input)
{
    uint8_t kind = fuzz_byte(input);

    switch (kind & 3) {
    case 0:
    case 1:
        map(bed, input);
        break;
    case 2:
        attach(bed, fuzz_byte(input));
        break;
    default:
        command(bed, fuzz_byte(input));
        break;
    }
}

#endif
