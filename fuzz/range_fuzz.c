/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzzes the range map, the range set and the power-of-two split against plain models.
 *
 * The map is compared with the sorted array of range/test_model.h, and checks its own invariants
 * after every change; allocations fail when the input says so. The set is compared with the map
 * that holds the same runs one by one: subtracting is cutting, adding is cutting and inserting. The
 * split's blocks are added up.
 *
 * Addresses: a byte chooses the bottom, the middle or the top of the space, one near the last used,
 * or any 8 bytes. So short inputs make runs that meet.
 */
#include "bytes.h"

#include "base/alloc.h"
#include "range/pow2.h"
#include "range/range_set.h"
#include "range/test_model.h"

#include <stdlib.h>

/* More steps than other targets: an operation is cheap, and many make a tree higher. */
#define STEPS_MAX 4000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct target {
    struct fuzz_input input;
    struct range_map map;
    struct range_set set;
    uint64_t last_address;
    unsigned long fail_at; /* the allocation of the next operation that fails; 0: none */
};

static struct model model;
static struct model set_model; /* of runs that may touch */

static void expect(bool holds)
{
    if (!holds) {
        abort();
    }
}

static uint64_t some_address(struct target *target)
{
    uint8_t kind = fuzz_byte(&target->input);
    uint64_t address;

    if (kind < 0x80) {
        address = kind; /* the bottom */
    } else if (kind < 0xa0) {
        address = UINT64_MAX - (kind & 31);
    } else if (kind < 0xb0) {
        address = (UINT64_C(1) << 63) - 8 + (kind & 15);
    } else if (kind < 0xf0) {
        address = target->last_address + (kind & 63);
    } else if (kind < 0xf8) {
        address = fuzz_number(&target->input, 2) << (kind & 7) * 6;
    } else {
        address = fuzz_number(&target->input, 8);
    }
    target->last_address = address;
    return address;
}

/* Makes the operation's n-th allocation fail, if the input asked for it before. */
static void begin_failing(struct target *target)
{
    base_alloc_fail_at(target->fail_at);
    target->fail_at = 0;
}

/* Whether the operation failed, as it had to, for want of memory. */
static bool out_of_memory(const struct target *target, int error)
{
    bool failed = base_alloc_failed();

    base_alloc_fail_at(0);
    expect((error == -ENOMEM) == failed);
    if (failed) {
        expect(model_is(&model, &target->map));
    }
    return failed;
}

static void insert(struct target *target)
{
    uint8_t kind = fuzz_byte(&target->input);
    struct range_run run = {.first = some_address(target)};
    int error;

    run.last = kind & 1 ? run.first + (kind >> 4) : some_address(target);
    run.target = kind & 2 ? run.first : some_address(target);
    run.tag = (kind & 4 ? RANGE_NO_TARGET : 0) | (kind >> 3 & 1);
    if (model.count + 2 >= MODEL_MAX) {
        return;
    }
    begin_failing(target);
    error = range_map_insert(&target->map, &run);
    if (!out_of_memory(target, error)) {
        expect(error == model_insert(&model, run));
    }
}

/* Of a run that is there, or any range. */
static void erase(struct target *target)
{
    uint64_t first = some_address(target);
    uint64_t last;
    struct range_run erased;
    size_t at = model_from(&model, first);
    int error;

    if (at < model.count) {
        first = model.runs[at].first;
        last = model.runs[at].last;
    } else {
        last = some_address(target);
    }
    error = range_map_erase(&target->map, first, last, &erased);
    if (!error) {
        expect(model_same_run(&erased, &model.runs[at]));
    }
    expect(error == model_erase(&model, first, last));
}

static void cut(struct target *target)
{
    uint64_t first = some_address(target);
    uint64_t last = some_address(target);
    int error;

    if (model.count + 2 >= MODEL_MAX) {
        return;
    }
    begin_failing(target);
    error = range_map_cut(&target->map, first, last);
    if (!out_of_memory(target, error)) {
        expect(error == model_cut(&model, first, last));
    }
}

static void split(struct target *target)
{
    uint64_t address = some_address(target);
    int error;

    if (model.count + 2 >= MODEL_MAX) {
        return;
    }
    begin_failing(target);
    error = range_map_split(&target->map, address);
    if (!out_of_memory(target, error)) {
        expect(error == model_split(&model, address));
    }
}

static void merge(struct target *target)
{
    uint64_t address = some_address(target);

    expect(range_map_merge(&target->map, address) == model_merge(&model, address));
}

static void find(struct target *target)
{
    expect(model_looks_same(&model, &target->map, some_address(target)));
}

static void find_gap(struct target *target)
{
    uint8_t kind = fuzz_byte(&target->input);
    uint64_t first = some_address(target);
    uint64_t last = some_address(target);
    uint64_t size = kind & 128 ? some_address(target) : 1u + (kind & 15);
    uint64_t align = UINT64_C(1) << (kind >> 4 & 7) * (kind & 1 ? 9 : 1);
    uint64_t expected = 0;
    uint64_t found = 0;
    int error = first <= last && size ? model_find_gap(&model, first, last, size, align, &expected)
                                      : -EINVAL;

    expect(range_map_find_gap(&target->map, first, last, size, align, &found) == error);
    /* Another place than the lowest is right only behind so many misses. */
    if (!error && found != expected) {
        expect(found > expected && found <= last && last - found >= size - 1);
        expect(!(found & (align - 1)) && model.count >= RANGE_GAP_TRIES);
        expect(model_from(&model, found) == model_from(&model, found + (size - 1)));
    }
}

/* The next few insertions cannot fail. */
static void reserved(struct target *target)
{
    unsigned count = fuzz_byte(&target->input) & 63;

    if (model.count + 64 >= MODEL_MAX || range_map_reserve(&target->map, count)) {
        return;
    }
    for (unsigned i = 0; i < count; i++) {
        uint64_t address = some_address(target);
        struct range_run run = {address, address, address, 0};

        base_alloc_fail_at(1);
        expect(range_map_insert(&target->map, &run) == model_insert(&model, run));
        expect(!base_alloc_failed());
    }
    base_alloc_fail_at(0);
    range_map_release(&target->map);
}

/* Whether the set is what its model's runs are, joined where they touch. */
static bool set_is_model(const struct target *target)
{
    struct range_cursor cursor;
    struct range_run run;
    size_t at = 0;

    range_cursor_seek(&cursor, &target->set.map, 0);
    while (range_cursor_next(&cursor, UINT64_MAX, &run)) {
        uint64_t last;

        if (at == set_model.count || set_model.runs[at].first != run.first) {
            return false;
        }
        last = set_model.runs[at++].last;
        while (at < set_model.count && set_model.runs[at].first - 1 == last) {
            last = set_model.runs[at++].last;
        }
        if (last != run.last) {
            return false;
        }
    }
    return at == set_model.count;
}

static void change_set(struct target *target, bool add)
{
    struct range_run run = {.first = some_address(target), .tag = RANGE_NO_TARGET};
    int error;

    run.last = some_address(target);
    if (set_model.count + 2 >= MODEL_MAX) {
        return;
    }
    begin_failing(target);
    error = add ? range_set_add(&target->set, run.first, run.last)
                : range_set_subtract(&target->set, run.first, run.last);
    expect((error == -ENOMEM) == base_alloc_failed());
    base_alloc_fail_at(0);
    if (!error) {
        model_cut(&set_model, run.first, run.last);
        if (add) {
            model_insert(&set_model, run);
        }
        expect(range_set_contains(&target->set, run.first, run.last) == add);
        expect(range_set_meets(&target->set, run.first, run.last) == add);
    } else {
        expect(error == -ENOMEM || run.first > run.last);
    }
    expect(set_is_model(target));
}

static void power_of_two(struct target *target)
{
    uint64_t first = some_address(target);
    uint64_t last = some_address(target);
    uint64_t to = some_address(target);
    uint64_t next = first;
    struct pow2_split split;
    struct pow2_block block;
    unsigned count = 0;

    if (first > last || UINT64_MAX - to < last - first) {
        return;
    }
    pow2_begin_with_target(&split, first, last, to);
    /* Targets can make too many blocks to see them all. */
    while (count < 1000 && pow2_next(&split, &block)) {
        uint64_t mask = block.order == 64 ? UINT64_MAX : (UINT64_C(1) << block.order) - 1;

        expect(block.first == next && block.last == next + mask && block.last <= last);
        expect(block.target == to + (next - first) && !((block.first | block.target) & mask));
        next = block.last + 1;
        count++;
    }
    if (count < 1000) {
        expect(next - 1 == last);
        expect(pow2_count_with_target(first, last, to) == count);
    }
    expect(pow2_count(first, last) <= POW2_BLOCKS_MAX);
}

static void operate(struct target *target)
{
    uint8_t operation = fuzz_byte(&target->input);

    switch (operation & 15) {
    case 0:
        erase(target);
        break;
    case 1:
        cut(target);
        break;
    case 2:
        split(target);
        break;
    case 3:
        merge(target);
        break;
    case 4:
        find(target);
        break;
    case 5:
        find_gap(target);
        break;
    case 6:
        reserved(target);
        break;
    case 7:
        change_set(target, true);
        break;
    case 8:
        change_set(target, false);
        break;
    case 9:
        power_of_two(target);
        break;
    case 10:
        target->fail_at = 1u + (operation >> 6);
        break;
    default:
        insert(target);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct target target = {.input = {data, size, 0}};

    model.count = 0;
    set_model.count = 0;
    range_map_init(&target.map);
    range_set_init(&target.set);
    for (unsigned step = 0; target.input.size && step < STEPS_MAX; step++) {
        operate(&target);
    }
    expect(model_is(&model, &target.map));
    range_map_fini(&target.map);
    range_set_fini(&target.set);
    return 0;
}
