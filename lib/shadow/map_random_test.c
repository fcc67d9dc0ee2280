/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Random changes of the shadow map against the model of test_model.h, in maps of all depths, with
 * allocations that fail.
 */
#include "shadow/test_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define PAGE UINT64_C(4096)
#define SIZE_2M (512 * PAGE)
#define SIZE_1G (512 * SIZE_2M)

static struct model model; /* too large for a stack */

static uint64_t random_state;

static uint64_t random_number(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state * UINT64_C(0x2545f4914f6cdd1d);
}

static unsigned random_below(unsigned end)
{
    return (unsigned)((random_number() >> 16) % end);
}

static unsigned some_block(void)
{
    static const unsigned blocks[] = {0, 1, 2, 3, 255, 256, 510, 511};

    return blocks[random_below(8)];
}

static uint64_t some_address(void)
{
    uint64_t address = model_block_base(&model, random_below(model.regions), some_block());

    switch (random_below(8)) {
    case 0:
        return random_number();
    case 1:
        return random_number() & ((1ULL << shadow_shift(model.map.levels)) - 1);
    case 2:
        return address - random_below(2);
    default:
        return address + random_below(SIZE_2M);
    }
}

static int change_block(void)
{
    unsigned region = random_below(model.regions);
    unsigned block = some_block();
    uint64_t values[SHADOW_PAGES];

    memcpy(values, model_block(&model, region, block), sizeof(values));
    for (unsigned i = random_below(4); i < 4; i++) {
        unsigned at = random_below(SHADOW_PAGES);
        unsigned count = 1 + random_below(random_below(2) ? 8 : SHADOW_PAGES);
        uint64_t gpa = (uint64_t)random_below(3) * SIZE_1G + at * PAGE;

        if (!random_below(4)) {
            at = 0;
            count = SHADOW_PAGES;
        }
        model_shape(values, random_below(MODEL_SHAPES), at, count, gpa, 1 + random_below(3));
    }
    return model_put_block(&model, region, block, values, random_below(2));
}

static int change(void)
{
    unsigned region = random_below(model.regions);

    switch (random_below(40)) {
    case 0:
        return model_put_region(&model, region, 0, 0);
    case 1:
        /* The top of a map of two levels is no run. */
        return model.map.levels == 2 ? 0 : model_put_region(&model, region, random_number(),
                                                            1 + random_below(3));
    case 2:
        return model.run[region] ? model_break(&model, region) : 0;
    default:
        return change_block();
    }
}

static void test_random(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 8; round++) {
        random_state = 1 + round;
        model_reset(&model, 2 + round % 4);
        for (unsigned step = 0; step < 400; step++) {
            int error;

            base_alloc_fail_at(random_below(4) ? 0 : 1 + random_below(4));
            error = change();
            assert_int_equal(error == -ENOMEM, base_alloc_failed());
            base_alloc_fail_at(0);
            for (unsigned i = 0; i < 4; i++) {
                model_look(&model, some_address(), some_address());
                model_look(&model, some_address(), UINT64_MAX);
                model_compare_block(&model, random_below(model.regions), some_block());
            }
            if (step % 50 == 0) {
                model_compare(&model, 0, UINT64_MAX);
            }
        }
        model_compare(&model, 0, UINT64_MAX);
        model_free(&model, 1 + round * 3);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
