/* SPDX-License-Identifier: BSD-2-Clause */
/* Random operations on spaces against a plain model of pages (test_model.h). */
#include "iova/test_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct model model;

static uint64_t random_state;

static uint8_t random_byte(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint8_t)((random_state * UINT64_C(0x2545f4914f6cdd1d)) >> 40);
}

static void test_random(void **state)
{
    unsigned refused = 0;
    unsigned done = 0;

    (void)state;
    for (unsigned round = 0; round < 24; round++) {
        random_state = 1 + round;
        model_begin(&model, round % 2, round / 2 % 3);
        for (unsigned step = 0; step < 600; step++) {
            uint8_t bytes[8];

            for (unsigned i = 0; i < sizeof(bytes); i++) {
                bytes[i] = random_byte();
            }
            if (random_byte() % 8 == 0) {
                base_alloc_fail_at(1 + random_byte() % 4);
            }
            if (model_operate(&model, bytes)) {
                refused++;
            } else {
                done++;
            }
            model_compare(&model);
        }
        model_end(&model);
    }
    /* Both happen, often. */
    assert_true(refused > 1000);
    assert_true(done > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
