/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzzes paravirtual operations: raw calls, and the random operations of pv/test_random.h between
 * them. After some, and in the end, all that must hold is checked (pv/test_world.h), references and what devices
 * remember included.
 *
 * The first byte: how often long calls yield. Then an operation is two bytes, which allocation
 * fails and which step (0: none), a byte that says how long a raw call is (0: a random operation,
 * of eight bytes) and its bytes. A raw call's head has the version, operation and size that would
 * be right, xor'ed with what the input has there.
 */
#include "bytes.h"

#include "pv/test_random.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    RAW_MAX = 96,
    OPERATIONS_MAX = 64,
    CHECK_EVERY = 8, /* it takes longer than the operations do */
};

static void raw_call(struct world *world, struct fuzz_input *input, uint8_t length)
{
    size_t size = length % RAW_MAX;
    uint8_t *in = malloc(size ? size : 1); /* of its size exactly */
    uint8_t out[1024];
    struct viommu_pv_call *rest = NULL;
    struct viommu_pv_head head;
    size_t room = fuzz_byte(input) & 1 ? sizeof(out) : fuzz_byte(input);
    uint32_t vm = fuzz_byte(input) & 3;
    size_t written = 0;
    int ret;

    for (size_t i = 0; i < size; i++) {
        in[i] = fuzz_byte(input);
    }
    if (size >= sizeof(head)) {
        memcpy(&head, in, sizeof(head));
        head.version ^= VIOMMU_PV_VERSION;
        head.size ^= (uint32_t)size;
        memcpy(in, &head, sizeof(head));
    }
    ret = viommu_pv_call(world->pv, vm, in, size, out, room, &written,
                         world->yield_every ? &rest : NULL);
    memset(in, 0xff, size); /* read once */
    while (ret == VIOMMU_PENDING) {
        ret = viommu_pv_resume(world->pv, rest, out, room, &written);
    }
    WORLD_CHECK(ret == 0 || ret == -EINVAL || ret == -ENOENT);
    WORLD_CHECK(written <= room && (ret || written >= sizeof(struct viommu_pv_answer)));
    free(in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct viommu_pv_config small = {.deferred_max = 8,
                                                  .contexts_max = RANDOM_CONTEXTS + 1,
                                                  .mappings_max = 100,
                                                  .tables_max = 24,
                                                  .items_max = 16};
    struct fuzz_input input = {data, size, 0};
    struct world *world = world_create(&small, WORLD_VMS);

    for (unsigned i = 0; i < WORLD_VMS; i++) {
        WORLD_CHECK(world_enable(world, i) == VIOMMU_PV_OK);
    }
    world->yield_every = fuzz_byte(&input) & 3;
    for (unsigned i = 0; i < OPERATIONS_MAX && fuzz_more(&input); i++) {
        uint8_t fail = fuzz_byte(&input);
        uint8_t step = fuzz_byte(&input);
        uint8_t length = fuzz_byte(&input);

        base_alloc_fail_at(fail & 7);
        world->fail_at = step & 31 ? world->steps + (step & 31) : 0;
        world->flush_fails = step >= 240;
        if (length) {
            raw_call(world, &input, length);
        } else {
            uint8_t bytes[8];

            for (unsigned j = 0; j < sizeof(bytes); j++) {
                bytes[j] = fuzz_byte(&input);
            }
            (void)random_operate(world, bytes);
        }
        base_alloc_fail_at(0);
        world->flush_fails = false;
        if (i % CHECK_EVERY == CHECK_EVERY - 1) {
            world_check(world);
        }
    }
    world_check(world);
    world_end(world);
    return 0;
}
