/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzzes saved states: bytes that are none, frames that are right around anything, and states of a
 * unit with devices and mirrors in which the input changes bytes and numbers; the checksum is made
 * right again. What is accepted is run: registers, queue, DMA, until it comes to rest.
 *
 * An instance that refused a state must accept the unit's own as if nothing had been. One that
 * accepts a state must save the same bytes again.
 *
 * Memory: page 1 is the root table, 2 the context table of bus 0, 3 the queue, 4 on: tables.
 */
#include "input.h"
#include "sealed.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MIRRORS 2
#define STATE_MAX 65536u
#define CALLS_MAX 4000000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct state {
    uint8_t bytes[STATE_MAX];
    size_t size;
};

static struct bench bench;
static struct state own;
static struct state changed;

/* ---- mirrors: what a state says that they hold need not be true ------------------------------ */

static int on_change(void *opaque, const struct viommu_change *change)
{
    (void)opaque;
    if (change->first > change->last) {
        guest_die("a change of [%#llx, %#llx]", (unsigned long long)change->first,
                  (unsigned long long)change->last);
    }
    return 0;
}

static int on_fence(void *opaque)
{
    (void)opaque;
    return 0;
}

static void subscribe(struct viommu_device *const *devices, bool adopt)
{
    for (unsigned i = 0; i < MIRRORS; i++) {
        struct viommu_subscription what = {
            .kinds = VIOMMU_CHANGE_MAP | VIOMMU_CHANGE_UNMAP,
            .form = i ? VIOMMU_FORM_POW2 : VIOMMU_FORM_RANGE,
            .role = VIOMMU_ROLE_MIRROR,
            .change = on_change,
            .fence = on_fence,
            .adopt = adopt,
        };
        struct viommu_subscriber *subscriber;

        guest_ok(viommu_device_subscribe(devices[i], &what, &subscriber), "subscribe");
    }
}

/* ---- the unit -------------------------------------------------------------------------------- */

static void set_up(void)
{
    struct guest *guest = &bench.guest;
    unsigned levels = guest->cap >> 10 & 1 ? 4 : 3;

    guest_store(guest, 0x1000, 0x2001);
    guest_store(guest, 0x1010, 0x2001);
    for (unsigned i = 0; i < 16; i++) {
        guest_store(guest, 0x2000 + i * 16 + 8, (levels - 2) | 1 << 8);
        guest_store(guest, 0x2000 + i * 16, 0x4001);
    }
    for (unsigned i = 0; i < levels; i++) {
        guest_store(guest, 0x4000 + i * GUEST_PAGE, (0x5000 + i * GUEST_PAGE) | 3);
    }
    for (unsigned i = 0; i < 8; i++) {
        guest_store(guest, 0x4000 + (levels - 1) * GUEST_PAGE + i * 8, (i * 2 * GUEST_PAGE) | 3);
    }
    guest_write(guest, SPEC_RTADDR, 8, 0x1000);
    guest_write(guest, SPEC_GCMD, 4, SPEC_SRTP);
    guest_write(guest, SPEC_GCMD, 4, SPEC_TE);
    guest->queue = 0x3000;
    guest->queue_entries = 256;
    guest_write(guest, SPEC_IQA, 8, guest->queue);
    guest_write(guest, SPEC_FECTL, 4, 0);
}

/* One thing that a guest or an embedder does. */
static void step(struct fuzz_input *input)
{
    struct guest *guest = &bench.guest;
    uint8_t operation = fuzz_byte(input);
    uint64_t index;

    switch (operation & 7) {
    case 0:
    case 1:
        guest_write(guest, (uint64_t)(operation >> 3) * 4 + (operation & 1 ? 0x80 : 0), 4,
                    fuzz_number(input, 4));
        break;
    case 2:
        guest_write(guest, guest->iotlb_offset + (operation >> 3), 4, fuzz_number(input, 4));
        break;
    case 3:
        index = guest->queue_tail;
        guest_store(guest, guest->queue + index * 16, fuzz_number(input, 8));
        guest_store(guest, guest->queue + index * 16 + 8, fuzz_number(input, 2));
        guest->queue_tail = (unsigned)(index + 1) % 256;
        guest_write(guest, SPEC_IQT, 8, guest->queue_tail * 16ull);
        break;
    case 4:
        bench_store(&bench, fuzz_number(input, 2), fuzz_number(input, 1 + (operation >> 5)));
        break;
    case 5:
        bench_dma(&bench, input);
        break;
    default:
        bench_embedder(&bench, input);
        break;
    }
    bench_check(&bench);
}

/* ---- states ---------------------------------------------------------------------------------- */

static bool save(struct viommu *iommu, struct state *state)
{
    void *data;
    size_t size;

    guest_ok(viommu_save(iommu, &data, &size), "save");
    state->size = size <= STATE_MAX ? size : 0;
    memcpy(state->bytes, data, state->size);
    viommu_save_free(data);
    return state->size;
}

static void store(struct state *state, size_t at, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes && at + i < state->size; i++) {
        state->bytes[at + i] = (uint8_t)(value >> 8 * i);
    }
}

static void seal(struct state *state)
{
    if (state->size >= SEALED_HEADER_SIZE) {
        sealed_mend(state->bytes, state->size);
    }
}

static void take_bytes(struct fuzz_input *input, struct state *state, size_t at)
{
    while (input->size && at < STATE_MAX) {
        state->bytes[at++] = fuzz_byte(input);
    }
    state->size = at;
}

/* Some changes of bytes and of numbers: they count from the beginning, or back from the end. */
static void change_some(struct fuzz_input *input)
{
    unsigned count = 1 + (fuzz_byte(input) & 15);

    changed = own;
    for (unsigned i = 0; i < count; i++) {
        uint8_t kind = fuzz_byte(input);
        size_t at = fuzz_number(input, 2) % changed.size;

        at = kind & 1 ? changed.size - 1 - at : at;
        switch (kind >> 1 & 7) {
        case 0:
            changed.bytes[at] ^= (uint8_t)(1u << (kind >> 5));
            break;
        case 1:
            store(&changed, at, fuzz_number(input, 8), 8);
            break;
        case 2:
            store(&changed, at, fuzz_number(input, 4), 4);
            break;
        case 3:
            changed.size -= changed.size > at ? at % 64 : 0;
            break;
        default:
            store(&changed, at, fuzz_number(input, 1), 1);
            break;
        }
    }
    seal(&changed);
}

/* Whether it may be saved otherwise than it was loaded: sections that are passed over, or flags. */
static bool has_optional(const struct state *state)
{
    struct save_reader reader;
    struct save_section section;

    if (save_open(&reader, SAVE_INSTANCE, state->bytes, state->size)) {
        return true;
    }
    while (save_next(&reader, &section)) {
        if (section.flags) {
            return true;
        }
    }
    return false;
}

static bool known(int result)
{
    return result == 0 || result == -EBADMSG || result == -ENOTSUP || result == -EINVAL ||
           result == -ENODEV;
}

/* Devices are saved in their order. */
static void expect_same(struct viommu *iommu, const struct state *state)
{
    static struct state again;

    if (bench.reordered) {
        return;
    }
    if (!save(iommu, &again) || again.size != state->size ||
        memcmp(again.bytes, state->bytes, again.size)) {
        guest_die("what was loaded is not what is saved");
    }
}

/* Loads what the input made; goes on with that, or with what was saved. */
static void load(bool exact)
{
    struct bench_second second;
    uint8_t *copy = malloc(changed.size ? changed.size : 1);
    bool mirrors = bench.guest.vtd.caching_mode;
    int result;

    if (!copy) {
        abort();
    }
    memcpy(copy, changed.bytes, changed.size);
    bench_second(&bench, &second);
    if (mirrors) {
        subscribe(second.devices, true);
    }
    result = viommu_load(second.iommu, copy, changed.size);
    free(copy);
    if (!known(result)) {
        guest_die("viommu_load: %d", result);
    }
    if (result) {
        result = viommu_load(second.iommu, own.bytes, own.size);
        guest_ok(result, "the unit's own state");
        expect_same(second.iommu, &own);
    } else if (exact && mirrors && !has_optional(&changed)) {
        expect_same(second.iommu, &changed);
    }
    bench_take_over(&bench, &second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size, 0};
    uint8_t mode;

    bench_init(&bench, &input);
    set_up();
    mode = fuzz_byte(&input);
    for (unsigned i = mode >> 3; i && fuzz_more(&input); i--) {
        step(&input);
    }
    if (bench.guest.vtd.caching_mode) {
        subscribe(bench.devices, false);
        for (unsigned i = 0; viommu_process(bench.guest.iommu, 0) == VIOMMU_PENDING; i++) {
            if (i > CALLS_MAX) {
                guest_die("viommu_process does not end");
            }
        }
    }
    if (!save(bench.guest.iommu, &own)) {
        bench_fini(&bench);
        return 0;
    }
    switch (mode & 7) {
    case 0:
        take_bytes(&input, &changed, 0);
        break;
    case 1: /* a right header around them */
        changed = own;
        changed.bytes[12] = fuzz_byte(&input);
        take_bytes(&input, &changed, SEALED_HEADER_SIZE);
        seal(&changed);
        break;
    default:
        change_some(&input);
        break;
    }
    load((mode & 7) > 1);
    while (fuzz_more(&input)) {
        step(&input);
    }
    bench_fini(&bench);
    return 0;
}
