/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzzes the shadow map against the plain model of shadow/test_model.h, which compares the two
 * around every change and checks the map's invariants; allocations fail when the input says so.
 *
 * The first byte is the number of levels. Blocks are chosen by one byte: a region and one of the
 * first or the last blocks in it. A block's values are changed by shapes, a stretch each.
 */
#include "bytes.h"

#include "shadow/test_model.h"

/* A run of level 2 costs the model 262144 values. */
#define REGIONS_MAX 8u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct target {
    struct fuzz_input input;
    unsigned regions_put;
    unsigned long fail_at; /* the allocation of the next operation that fails; 0: none */
};

static struct model model;

static unsigned some_region(uint8_t byte)
{
    return (byte & 3) % model.regions;
}

static unsigned some_block(uint8_t byte)
{
    unsigned block = byte >> 3;

    return byte & 4 ? MODEL_BLOCKS - 1 - block : block;
}

static uint64_t some_address(struct target *target)
{
    uint8_t where = fuzz_byte(&target->input);

    if (where == 0xff) {
        return fuzz_number(&target->input, 8);
    }
    return model_block_base(&model, some_region(where), some_block(where)) +
           (fuzz_number(&target->input, 2) << 5) - 1;
}

/* Ends what an operation that may lack memory did. */
static void end(struct target *target, int error)
{
    model_expect((error == -ENOMEM) == base_alloc_failed(), "an error of memory");
    model_expect(!error || error == -ENOMEM, "another error");
    base_alloc_fail_at(0);
    target->fail_at = 0;
}

/* Shapes: what, where, how much, to which guest page, how. */
static void change_block(struct target *target, unsigned shapes)
{
    uint8_t where = fuzz_byte(&target->input);
    unsigned region = some_region(where);
    unsigned block = some_block(where);
    uint64_t values[SHADOW_PAGES];
    bool whole = false;

    memcpy(values, model_block(&model, region, block), sizeof(values));
    for (unsigned i = 0; i < shapes; i++) {
        uint8_t shape = fuzz_byte(&target->input);
        unsigned at = (unsigned)fuzz_number(&target->input, 2) & (SHADOW_PAGES - 1);
        unsigned count = 1u + ((unsigned)fuzz_number(&target->input, 2) & (SHADOW_PAGES - 1));
        uint8_t to = fuzz_byte(&target->input);
        /* Where pages lead: in line with their addresses, or near the ends of guest memory. */
        uint64_t gpa = (at + (to & 63)) * 4096ULL;

        if (to & 64) {
            gpa = SHADOW_TARGET - (to & 63) * 4096ULL;
        }
        whole = to >> 7;
        model_shape(values, (enum model_shape)((shape & 7) % MODEL_SHAPES), at, count, gpa,
                    1u + (shape >> 3) % 3);
    }
    base_alloc_fail_at(target->fail_at);
    end(target, model_put_block(&model, region, block, values, whole));
    model_compare_block(&model, region, block);
}

static void put_region(struct target *target, uint64_t perm)
{
    unsigned region = some_region(fuzz_byte(&target->input));
    uint64_t gpa = fuzz_number(&target->input, 3) << 30;

    /* The top of a map of two levels is no run. */
    if ((perm && model.map.levels == 2) || target->regions_put++ >= REGIONS_MAX) {
        return;
    }
    base_alloc_fail_at(target->fail_at);
    end(target, model_put_region(&model, region, gpa, perm));
}

static void break_region(struct target *target)
{
    unsigned region = some_region(fuzz_byte(&target->input));

    if (model.run[region]) {
        base_alloc_fail_at(target->fail_at);
        end(target, model_break(&model, region));
    }
}

/* What was reserved and not used leaves nothing behind. */
static void reserve(struct target *target)
{
    static const struct shadow_slot empty;
    uint8_t level = 1u + (fuzz_byte(&target->input) & 1u);
    uint64_t address = some_address(target);
    uint64_t bytes = model.map.bytes;
    const struct shadow_slot *slot;
    int error;

    base_alloc_fail_at(target->fail_at);
    error = shadow_map_reserve(&model.map, level, address);
    end(target, error == -EINVAL ? 0 : error);
    slot = shadow_map_slot(&model.map, level, address);
    model_expect(error || slot, "a way that leads nowhere");
    if (!error && slot->kind == SHADOW_EMPTY) {
        shadow_map_replace(&model.map, level, address, &empty);
    }
    model_expect(model.map.bytes == bytes, "a way is left");
    shadow_map_check(&model.map);
}

static void operate(struct target *target)
{
    uint8_t operation = fuzz_byte(&target->input);
    uint64_t from;

    switch (operation & 7) {
    case 0:
        from = some_address(target);
        model_look(&model, from, some_address(target));
        break;
    case 1:
        put_region(target, operation >> 6);
        break;
    case 2:
        break_region(target);
        break;
    case 3:
        reserve(target);
        break;
    case 4:
        target->fail_at = 1u + (operation >> 3) % 6;
        break;
    default:
        change_block(target, 1u + (operation >> 6));
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct target target = {.input = {data, size, 0}};

    base_alloc_fail_at(0);
    model_reset(&model, 2u + (fuzz_byte(&target.input) & 3u));
    while (fuzz_more(&target.input)) {
        operate(&target);
    }
    model_compare(&model, 0, UINT64_MAX);
    model_free(&model, 1u + (size & 31));
    return 0;
}
