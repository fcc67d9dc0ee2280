/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzzes the IOVA space against the plain model of iova/test_model.h, which judges what comes of
 * each operation; the space checks its invariants after each, too. Allocations fail when the input
 * says so.
 *
 * The first byte chooses the kind of space and where in the address space it is. Then an operation
 * is nine bytes: which allocation fails (0: none), and the eight that the model takes.
 */
#include "bytes.h"

#include "iova/test_model.h"

#include <errno.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct model model;

static void expect(int ret, int wanted)
{
    if (ret != wanted && !(ret == -ENOMEM && base_alloc_failed())) {
        abort();
    }
}

/* A range from two bytes, in steps of half a granule: it may end before it begins. */
static struct viommu_range any_range(const uint8_t *bytes)
{
    return (struct viommu_range){(uint64_t)bytes[0] << 11, ((uint64_t)bytes[1] << 11) - 1};
}

/* Whether it is whole granules. */
static bool is_whole(const struct viommu_range *range)
{
    return range->first <= range->last && !((range->first | (range->last + 1)) & 0xfff);
}

/* What lacks something, on a space of its own. */
static void without(struct viommu_iova *space, struct viommu_iova_owner *owner,
                    struct viommu_iova_conflict *conflict)
{
    static const char name[] =
        "a name that is longer than the name of an owner of a space can ever be";
    const struct viommu_range range = {0x1000, 0x1fff};
    const struct viommu_iova_request request = {.type = VIOMMU_IOVA_RESERVED, .range = range};
    struct viommu_iova_reservation *reservation;
    struct viommu_iova_memory *memory;
    struct viommu_iova *another;
    struct viommu_iova_owner *other;
    uint64_t at;
    bool flag;

    base_alloc_fail_at(0);
    expect(viommu_iova_create(NULL, &another), -EINVAL);
    expect(viommu_iova_create(&(struct viommu_iova_config){0}, NULL), -EINVAL);
    expect(viommu_iova_create(&(struct viommu_iova_config){.granule = 3}, &another), -EINVAL);
    expect(viommu_iova_owner_create(NULL, "x", &other), -EINVAL);
    expect(viommu_iova_owner_create(space, NULL, &other), -EINVAL);
    expect(viommu_iova_owner_create(space, "", &other), -EINVAL);
    expect(viommu_iova_owner_create(space, name, &other), -EINVAL);
    expect(viommu_iova_owner_create(space, "x", NULL), -EINVAL);
    expect(viommu_iova_limit(NULL, &range, 1, conflict), -EINVAL);
    expect(viommu_iova_limit(owner, &range, 0, conflict), -EINVAL);
    expect(viommu_iova_reserve(NULL, &request, 1, &reservation, conflict), -EINVAL);
    expect(viommu_iova_reserve(owner, NULL, 1, &reservation, conflict), -EINVAL);
    expect(viommu_iova_reserve(owner, &request, 1, NULL, conflict), -EINVAL);
    expect(viommu_iova_reserve(owner, NULL, 0, NULL, conflict), 0);
    expect(viommu_iova_memory_add(NULL, &range, true, &memory, conflict), -EINVAL);
    expect(viommu_iova_memory_add(owner, NULL, true, &memory, conflict), -EINVAL);
    expect(viommu_iova_memory_add(owner, &range, true, NULL, conflict), -EINVAL);
    expect(viommu_iova_memory_fits(NULL, &range, "x", conflict), -EINVAL);
    expect(viommu_iova_memory_fits(space, NULL, "x", conflict), -EINVAL);
    expect(viommu_iova_memory_fits(space, &range, NULL, conflict), -EINVAL);
    expect(viommu_iova_memory_fits(space, &range, name, conflict), -EINVAL);
    expect(viommu_iova_map(NULL, &range, conflict), -EINVAL);
    expect(viommu_iova_map(owner, NULL, conflict), -EINVAL);
    expect(viommu_iova_unmap(NULL, &range), -EINVAL);
    expect(viommu_iova_unmap(owner, NULL), -EINVAL);
    expect(viommu_iova_alloc(NULL, 0x1000, 0, NULL, &at), -EINVAL);
    expect(viommu_iova_alloc(owner, 0x1000, 0, NULL, NULL), -EINVAL);
    expect(viommu_iova_doorbell_map(NULL, 0, &at, &flag), -EINVAL);
    expect(viommu_iova_doorbell_unmap(NULL, 0, &flag), -ENOENT);
    viommu_iova_release(NULL);
    viommu_iova_memory_remove(NULL);
    viommu_iova_owner_destroy(NULL);
    viommu_iova_destroy(NULL);
}

/* Anything on a space of its own; what is wrong in it is refused. */
static void with(struct viommu_iova_owner *owner, const uint8_t *bytes,
                 struct viommu_iova_conflict *conflict)
{
    struct viommu_range ranges[2] = {any_range(bytes), any_range(bytes + 2)};
    struct viommu_iova_request requests[2] = {
        {.type = (enum viommu_iova_type)(bytes[4] & 7), .range = ranges[0]},
        {.type = VIOMMU_IOVA_SW_MSI,
         .range = ranges[1],
         .movable = bytes[4] & 8,
         .bounds = {ranges[0].last, ranges[0].first},
         .align = (uint64_t)bytes[5] << 8}};
    struct viommu_iova_reservation *reservations[2];
    struct viommu_iova_memory *memory[2];
    uint64_t at;
    int ret;

    ret = viommu_iova_reserve(owner, requests, 1 + (bytes[4] >> 4 & 1), reservations, conflict);
    if (!ret && bytes[4] & 0x10) {
        expect(viommu_iova_doorbell_map(reservations[1], 0, NULL, NULL), -EINVAL);
        if (!viommu_iova_doorbell_map(reservations[1], 0, &at, NULL)) {
            expect(viommu_iova_doorbell_unmap(reservations[1], 0, NULL), 0);
        }
    }
    if (!ret && bytes[4] & 0x20) {
        viommu_iova_release(reservations[0]);
    }
    if (!is_whole(&ranges[1])) {
        expect(viommu_iova_map(owner, &ranges[1], conflict), -EINVAL);
    } else {
        (void)viommu_iova_map(owner, &ranges[1], conflict);
    }
    for (unsigned i = 0; i < 2; i++) {
        if (viommu_iova_memory_add(owner, &ranges[i], i, &memory[i], conflict)) {
            memory[i] = NULL;
        }
    }
    viommu_iova_memory_remove(memory[bytes[6] & 1]); /* in either order */
    viommu_iova_memory_remove(memory[~bytes[6] & 1]);
    (void)viommu_iova_limit(owner, ranges, 2, conflict);
    (void)viommu_iova_alloc(owner, (uint64_t)bytes[7] << 9, (uint64_t)bytes[6] << 9, &ranges[1],
                            &at);
    (void)viommu_iova_unmap(owner, &ranges[0]);
    (void)viommu_iova_unmap(owner, &ranges[1]);
}

static void misuse(const uint8_t *bytes, bool told)
{
    const struct viommu_iova_config config = {.identity = bytes[7] & 1};
    struct viommu_iova_conflict conflict;
    struct viommu_iova_owner *owner;
    struct viommu_iova *space;

    if (viommu_iova_create(&config, &space)) {
        return;
    }
    if (!viommu_iova_owner_create(space, "owner", &owner)) {
        if (bytes[7] == 0xff) {
            without(space, owner, told ? &conflict : NULL);
        }
        with(owner, bytes, told ? &conflict : NULL);
        with(owner, bytes, told ? &conflict : NULL);
    }
    viommu_iova_destroy(space);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size, 0};
    uint8_t kind = fuzz_byte(&input);

    model_begin(&model, kind & 1, kind >> 1);
    while (fuzz_more(&input)) {
        uint8_t bytes[8];
        uint8_t fail = fuzz_byte(&input);

        for (unsigned i = 0; i < sizeof(bytes); i++) {
            bytes[i] = fuzz_byte(&input);
        }
        base_alloc_fail_at(fail & 7);
        if (fail & 0x80) {
            misuse(bytes, fail & 0x40);
            base_alloc_fail_at(0); /* the model takes care of that itself */
        } else {
            model_operate(&model, bytes);
        }
    }
    model_compare(&model);
    model_end(&model);
    return 0;
}
