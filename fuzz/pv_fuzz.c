/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzzes paravirtual operations: raw calls, several of them under way at once, the random
 * operations of pv/test_random.h between them, and others in the middle of a step. After some, and
 * in the end, all that must hold is checked (pv/test_world.h), references and what devices remember
 * included.
 *
 * The first byte: how often long calls yield (two bits), which VMs have not enabled the interface
 * (four), whether those began with something mapped, and whether more may await a flush. Then an
 * operation is two bytes, which allocation fails and which step (0: none), and one that says what
 * comes: how long a raw call is, whose bytes follow; 0, a random operation, of eight bytes; or one
 * of `enum` below. A raw call's head has the version, operation and size that would be right,
 * xor'ed with what the input has there. One that yields is gone on with at once, or kept, as the
 * input says.
 */
#include "bytes.h"

#include "pv/test_random.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    RAW_MAX = 96,
    OPERATIONS_MAX = 64,
    CHECK_EVERY = 8, /* it takes longer than the operations do */
    KEPT_MAX = 4,
    OUT_MAX = 1024,
};

/* Beyond the lengths of raw calls: */
enum {
    GO_ON = RAW_MAX, /* with a call that was kept: which, and how much room there is for it */
    FORGET,          /* one: which */
    REFUSE,          /* calls (two bytes) */
    MEANWHILE,       /* at which step of the next operation; eight bytes of what */
};

struct kept {
    struct viommu_pv_call *rest;
    size_t room;
};

static struct kept kept[KEPT_MAX];
static uint8_t meanwhile[8];

static void answered(int ret, size_t written, size_t room)
{
    WORLD_CHECK(ret == 0 || ret == -EINVAL || ret == -ENOENT);
    WORLD_CHECK(written <= room && (ret || written >= sizeof(struct viommu_pv_answer)));
}

/* Goes on with a call until it is answered. */
static void finish(struct world *world, struct viommu_pv_call *rest, size_t room)
{
    uint8_t out[OUT_MAX];
    size_t written;
    int ret;

    do {
        ret = viommu_pv_resume(world->pv, rest, out, room, &written);
    } while (ret == VIOMMU_PENDING);
    WORLD_CHECK(ret == 0);
    answered(ret, written, room);
}

/* Goes on for one step with one that was kept. */
static void go_on(struct world *world, struct kept *one, size_t room)
{
    uint8_t out[OUT_MAX];
    size_t written;
    int ret;

    if (!one->rest) {
        return;
    }
    room = room & 1 ? one->room : room;
    ret = viommu_pv_resume(world->pv, one->rest, out, room, &written);
    if (ret != VIOMMU_PENDING) {
        answered(ret, written, room);
        one->rest = ret ? one->rest : NULL;
    }
}

static void keep(struct world *world, struct viommu_pv_call *rest, size_t room)
{
    for (unsigned i = 0; i < KEPT_MAX; i++) {
        if (!kept[i].rest) {
            kept[i] = (struct kept){rest, room};
            return;
        }
    }
    finish(world, rest, room);
}

static void raw_call(struct world *world, struct fuzz_input *input, size_t size)
{
    uint8_t *in = malloc(size); /* of its size exactly */
    uint8_t out[OUT_MAX];
    struct viommu_pv_call *rest = NULL;
    struct viommu_pv_head head;
    size_t room = fuzz_byte(input);
    uint8_t vm = fuzz_byte(input);
    size_t written = 0;
    int ret;

    room = room & 1 ? sizeof(out) : room;
    for (size_t i = 0; i < size; i++) {
        in[i] = fuzz_byte(input);
    }
    if (size >= sizeof(head)) {
        memcpy(&head, in, sizeof(head));
        head.version ^= VIOMMU_PV_VERSION;
        head.size ^= (uint32_t)size;
        memcpy(in, &head, sizeof(head));
    }
    ret = viommu_pv_call(world->pv, vm & 3, in, size, out, room, &written,
                         world->yield_every ? &rest : NULL);
    memset(in, 0xff, size); /* read once */
    free(in);
    if (ret != VIOMMU_PENDING) {
        answered(ret, written, room);
    } else if (vm & 4) {
        keep(world, rest, room);
    } else {
        finish(world, rest, room);
    }
}

static void in_the_middle(struct world *world)
{
    random_in_the_middle(world, meanwhile);
}

static void random_operation(struct world *world, struct fuzz_input *input)
{
    uint8_t bytes[8];

    for (unsigned i = 0; i < sizeof(bytes); i++) {
        bytes[i] = fuzz_byte(input);
    }
    (void)random_operate(world, bytes);
}

static void operation(struct world *world, struct fuzz_input *input, uint8_t what)
{
    uint8_t which;

    if (what == 0) {
        random_operation(world, input);
    } else if (what < RAW_MAX) {
        raw_call(world, input, what);
    } else if (what == GO_ON) {
        which = fuzz_byte(input);
        go_on(world, &kept[which % KEPT_MAX], fuzz_byte(input));
    } else if (what == FORGET) {
        which = fuzz_byte(input) % KEPT_MAX;
        viommu_pv_cancel(world->pv, kept[which].rest);
        kept[which].rest = NULL;
    } else if (what == REFUSE) {
        world->refuse_call = fuzz_number(input, 2);
    } else if (what == MEANWHILE) {
        world->intrude = in_the_middle;
        world->intrude_at = world->steps + fuzz_byte(input);
        for (unsigned i = 0; i < sizeof(meanwhile); i++) {
            meanwhile[i] = fuzz_byte(input);
        }
    }
}

static struct world *create(uint8_t how)
{
    const struct viommu_pv_config small = {.deferred_max = how & 0x80 ? 100 : 8,
                                           .contexts_max = RANDOM_CONTEXTS + 1,
                                           .mappings_max = how & 0x80 ? 400 : 100,
                                           .tables_max = 24,
                                           .items_max = 16};
    struct world *world = world_create(&small, 0);

    for (unsigned i = 0; i < WORLD_VMS; i++) {
        bool waits = how >> (2 + i) & 1;

        WORLD_CHECK(world_add_vm(world, i, !(waits && (how & 0x40))) == 0);
        WORLD_CHECK(waits || world_enable(world, i) == VIOMMU_PV_OK);
    }
    world->yield_every = how & 3;
    return world;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size, 0};
    struct world *world = create(fuzz_byte(&input));

    for (unsigned i = 0; i < OPERATIONS_MAX && fuzz_more(&input); i++) {
        uint8_t fail = fuzz_byte(&input);
        uint8_t step = fuzz_byte(&input);

        base_alloc_fail_at(fail & 7);
        world->fail_at = step & 31 ? world->steps + (step & 31) : 0;
        world->flush_fails = step >= 240;
        operation(world, &input, fuzz_byte(&input));
        base_alloc_fail_at(0);
        world->flush_fails = false;
        if (i % CHECK_EVERY == CHECK_EVERY - 1) {
            world_check(world);
        }
    }
    world->fail_at = 0;
    world->intrude_at = 0;
    for (unsigned i = 0; i < KEPT_MAX; i++) {
        if (i & 1) {
            viommu_pv_cancel(world->pv, kept[i].rest);
        } else if (kept[i].rest) {
            finish(world, kept[i].rest, kept[i].room);
        }
        kept[i].rest = NULL;
    }
    world_check(world);
    world_end(world);
    return 0;
}
