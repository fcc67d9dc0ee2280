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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct model model;

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
        model_operate(&model, bytes);
    }
    model_compare(&model);
    model_end(&model);
    return 0;
}
