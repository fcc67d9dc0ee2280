/* SPDX-License-Identifier: BSD-2-Clause */
/* The ABI: what is malformed, what answers look like, and tables that lack an operation. */
#include "pv/test_calls.h"

#include <setjmp.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <cmocka.h>

static const struct viommu_pv_config defaults;

static void test_incomplete_tables(void **state)
{
    struct viommu_pv_config config = {.ops = NULL};
    struct viommu_pv_ops ops;
    struct viommu_pv *pv;

    (void)state;
    assert_int_equal(viommu_pv_create(&config, &pv), -EINVAL);
    for (size_t at = 0; at < sizeof(ops); at += sizeof(void (*)(void))) {
        ops = world_ops;
        memset((uint8_t *)&ops + at, 0, sizeof(void (*)(void)));
        config.ops = &ops;
        assert_int_equal(viommu_pv_create(&config, &pv), -EINVAL);
    }
    config.ops = &world_ops;
    assert_int_equal(viommu_pv_create(&config, &pv), 0);
    assert_int_equal(viommu_pv_vm_add(pv, VIOMMU_PV_SELF, true), -EINVAL);
    assert_int_equal(viommu_pv_destroy(pv), 0);
    assert_int_equal(viommu_pv_destroy(NULL), 0);
    config.orders = 2;
    assert_int_equal(viommu_pv_create(&config, &pv), -EINVAL);
    config.orders = 3;
    assert_int_equal(viommu_pv_create(&config, &pv), -EINVAL);
    config.orders = 0;
    config.device_frame_max = UINT64_C(1) << 45;
    assert_int_equal(viommu_pv_create(&config, &pv), -EINVAL);
    config.device_frame_max = 0;
    config.deferred_max = 65537;
    assert_int_equal(viommu_pv_create(&config, &pv), -EINVAL);
    config.deferred_max = 0;
    base_alloc_fail_at(1);
    assert_int_equal(viommu_pv_create(&config, &pv), -ENOMEM);
}

static void test_caps(void **state)
{
    struct world *world = world_create(&defaults, 1);
    struct viommu_pv_head in = WORLD_HEAD(VIOMMU_PV_CAPS, in);
    struct viommu_pv_caps out;

    (void)state;
    memset(&out, 0xff, sizeof(out));
    assert_int_equal(world_call(world, 0, &in, sizeof(in), &out, sizeof(out)), VIOMMU_PV_OK);
    assert_int_equal(out.answer.version, 1);
    assert_int_equal(out.answer.operation, VIOMMU_PV_CAPS);
    assert_int_equal(out.answer.size, sizeof(out));
    assert_int_equal(out.answer.zero, 0);
    assert_int_equal(out.frame_max, 2 * WORLD_FRAMES - 1);
    assert_int_equal(out.device_frame_max, WORLD_DEVICE - 1);
    assert_int_equal(out.orders, 1 | 1 << 9 | 1 << 18);
    assert_int_equal(out.deferred_max, 1024);
    assert_int_equal(out.contexts_max, 16);
    assert_int_equal(out.count_max, 1 << 20);
    assert_int_equal(out.mappings_max, 1 << 20);
    assert_int_equal(out.tables_max, 1 << 14);
    assert_int_equal(out.items_max, 512);
    assert_int_equal(out.zero, 0);
    world_end(world);
    world = world_create(&(struct viommu_pv_config){.orders = 1,
                                                    .count_max = 11,
                                                    .mappings_max = 12,
                                                    .tables_max = 13,
                                                    .contexts_max = 14,
                                                    .items_max = 15,
                                                    .deferred_max = 16},
                         1);
    assert_int_equal(world_call(world, 0, &in, sizeof(in), &out, sizeof(out)), VIOMMU_PV_OK);
    assert_int_equal(out.orders, 1);
    assert_int_equal(out.count_max, 11);
    assert_int_equal(out.mappings_max, 12);
    assert_int_equal(out.tables_max, 13);
    assert_int_equal(out.contexts_max, 14);
    assert_int_equal(out.items_max, 15);
    assert_int_equal(out.deferred_max, 16);
    world_end(world);
}

/* Calls, each of which is well-formed, and the places of what must be zero in it.
 */
struct sample {
    union {
        struct viommu_pv_head head;
        struct viommu_pv_reserved_call reserved;
        struct viommu_pv_alloc_call alloc;
        struct viommu_pv_free_call free;
        struct viommu_pv_attach_call attach;
        struct viommu_pv_map_call map;
        struct viommu_pv_flush_call flush;
        struct viommu_pv_lookup_call lookup;
        struct viommu_pv_find_call find;
        struct viommu_pv_foreign_call foreign;
        struct viommu_pv_acknowledge_call acknowledge;
        uint8_t bytes[64];
    } call;
    int zero[8]; /* offsets of bytes with a bit that is not known; -1 ends */
};

#define AT(type, member) (int)offsetof(type, member)

static const struct sample samples[] = {
    {{.head = WORLD_HEAD(VIOMMU_PV_CAPS, struct viommu_pv_head)}, {-1}},
    {{.head = WORLD_HEAD(VIOMMU_PV_ENABLE, struct viommu_pv_head)}, {-1}},
    {{.attach = {.head = WORLD_HEAD(VIOMMU_PV_ATTACH, struct viommu_pv_attach_call)}}, {-1}},
    {{.reserved = {.head = WORLD_HEAD(VIOMMU_PV_RESERVED, struct viommu_pv_reserved_call),
                   .device = VIOMMU_PV_ALL}},
     {-1}},
    {{.alloc = {.head = WORLD_HEAD(VIOMMU_PV_CONTEXT_ALLOC, struct viommu_pv_alloc_call)}},
     {AT(struct viommu_pv_alloc_call, flags), AT(struct viommu_pv_alloc_call, zero), -1}},
    {{.map = {.head = WORLD_HEAD(VIOMMU_PV_MAP, struct viommu_pv_map_call),
              .vm = VIOMMU_PV_SELF,
              .perm = 1,
              .count = 1}},
     {AT(struct viommu_pv_map_call, zero), AT(struct viommu_pv_map_call, flags) + 1,
      AT(struct viommu_pv_map_call, perm) + 2, -1}},
    {{.flush = {.head = WORLD_HEAD(VIOMMU_PV_FLUSH, struct viommu_pv_flush_call)}},
     {AT(struct viommu_pv_flush_call, flags) + 3, -1}},
    {{.lookup = {.head = WORLD_HEAD(VIOMMU_PV_LOOKUP, struct viommu_pv_lookup_call),
                 .device_frame = 9}},
     {AT(struct viommu_pv_lookup_call, zero) + 2, -1}},
    {{.find = {.head = WORLD_HEAD(VIOMMU_PV_FIND, struct viommu_pv_find_call), .frame = 9}}, {-1}},
    {{.foreign = {.head = WORLD_HEAD(VIOMMU_PV_MAP_FOREIGN, struct viommu_pv_foreign_call),
                  .perm = 1}},
     {AT(struct viommu_pv_foreign_call, zero), AT(struct viommu_pv_foreign_call, flags) + 1,
      AT(struct viommu_pv_foreign_call, perm) + 3, -1}},
    {{.map = {.head = WORLD_HEAD(VIOMMU_PV_UNMAP, struct viommu_pv_map_call),
              .vm = VIOMMU_PV_SELF,
              .device_frame = 100,
              .count = 1}},
     {AT(struct viommu_pv_map_call, zero), AT(struct viommu_pv_map_call, flags) + 1,
      AT(struct viommu_pv_map_call, perm), -1}},
    {{.acknowledge = {.head =
                          WORLD_HEAD(VIOMMU_PV_ACKNOWLEDGE, struct viommu_pv_acknowledge_call)}},
     {AT(struct viommu_pv_acknowledge_call, zero), -1}},
    {{.free = {.head = WORLD_HEAD(VIOMMU_PV_CONTEXT_FREE, struct viommu_pv_free_call),
               .context = 1}},
     {AT(struct viommu_pv_free_call, zero), -1}},
};

static uint32_t send(struct world *world, const struct sample *sample, size_t size)
{
    uint8_t *in = malloc(size);
    uint8_t out[256];
    uint32_t status;

    memcpy(in, sample->call.bytes, size); /* of its size exactly, for a sanitizer to see */
    status = world_call(world, 0, in, size, out, sizeof(out));
    free(in);
    return status;
}

static void test_malformed(void **state)
{
    struct world *world = world_create(&defaults, 1);

    (void)state;
    assert_int_equal(world_enable(world, 0), VIOMMU_PV_OK);
    for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++) {
        struct sample sample = samples[i];
        size_t size = sample.call.head.size;

        for (const int *at = sample.zero; *at >= 0; at++) {
            sample.call.bytes[*at] ^= 0x80;
            assert_int_equal(send(world, &sample, size), VIOMMU_PV_EINVAL);
            sample.call.bytes[*at] ^= 0x80;
        }
        sample.call.head.version = 2;
        assert_int_equal(send(world, &sample, size), VIOMMU_PV_EINVAL);
        sample.call.head.version = 1;
        for (unsigned wrong = 0; wrong < size; wrong += 4) {
            sample.call.head.size = wrong;
            assert_int_equal(send(world, &sample, size), VIOMMU_PV_EINVAL);
        }
        sample.call.head.size = (uint32_t)size + 8;
        assert_int_equal(send(world, &sample, size), VIOMMU_PV_EINVAL);
        assert_int_equal(send(world, &sample, size + 8 < 64 ? size + 8 : 64), VIOMMU_PV_EINVAL);
        sample.call.head.size = (uint32_t)size;
        for (size_t cut = sizeof(struct viommu_pv_head); cut < size; cut += 4) {
            assert_int_equal(send(world, &sample, cut), VIOMMU_PV_EINVAL);
        }
        assert_true(send(world, &sample, size) != VIOMMU_PV_EINVAL);
        world_check(world);
    }
    for (unsigned operation = 0; operation < 70000; operation += operation < 20 ? 1 : 9999) {
        struct sample sample = samples[0];

        sample.call.head.operation = (uint16_t)operation;
        if (operation == 0 || operation > VIOMMU_PV_ACKNOWLEDGE) {
            assert_int_equal(send(world, &sample, 8), VIOMMU_PV_EOPNOTSUPP);
        }
    }
    world_end(world);
}

static void test_buffers(void **state)
{
    struct world *world = world_create(&(struct viommu_pv_config){.items_max = 4}, 1);
    struct {
        struct viommu_pv_foreign_call call;
        uint64_t frames[5];
    } in = {.call = {.head = {1, VIOMMU_PV_MAP_FOREIGN, sizeof(in.call) + 32},
                     .vm = VIOMMU_PV_SELF,
                     .device_frame_max = 9,
                     .perm = 1,
                     .count = 4}};
    uint8_t out[32 + 4 * 16];
    size_t written;

    (void)state;
    assert_int_equal(world_enable(world, 0), VIOMMU_PV_OK);
    assert_int_equal(viommu_pv_call(world->pv, 0, &in, 7, out, sizeof(out), &written, NULL),
                     -EINVAL);
    assert_int_equal(viommu_pv_call(world->pv, 0, &in, sizeof(in), out, 31, &written, NULL),
                     -EINVAL);
    assert_int_equal(viommu_pv_call(world->pv, 7, &in, sizeof(in), out, 32, &written, NULL),
                     -ENOENT);
    assert_int_equal(world_call(world, 0, &in, sizeof(in), out, sizeof(out) - 1), VIOMMU_PV_EINVAL);
    assert_int_equal(world_status(world, 0).mappings, 0);
    assert_int_equal(world_call(world, 0, &in, sizeof(in), out, sizeof(out)), VIOMMU_PV_OK);
    assert_int_equal(world_status(world, 0).mappings, 4);
    in.call.count = 5;
    assert_int_equal(world_call(world, 0, &in, sizeof(in), out, sizeof(out)), VIOMMU_PV_ERANGE);
    in.call.count = UINT32_MAX;
    assert_int_equal(world_call(world, 0, &in, sizeof(in), out, sizeof(out)), VIOMMU_PV_ERANGE);
    in.call.count = 3;
    assert_int_equal(world_call(world, 0, &in, sizeof(in), out, sizeof(out)), VIOMMU_PV_EINVAL);
    world_end(world);
}

/* The bytes of a call may change as soon as it has been made. */
static void test_a_call_is_read_once(void **state)
{
    struct world *world = world_create(&defaults, 1);
    struct viommu_pv_map_call in = {
        .head = WORLD_HEAD(VIOMMU_PV_MAP, in), .vm = VIOMMU_PV_SELF, .count = 3, .perm = 1};
    struct viommu_pv_call *rest = NULL;
    struct viommu_pv_answer out;
    size_t written;

    (void)state;
    assert_int_equal(world_enable(world, 0), VIOMMU_PV_OK);
    world->yield_every = 1;
    assert_int_equal(
        viommu_pv_call(world->pv, 0, &in, sizeof(in), &out, sizeof(out), &written, &rest),
        VIOMMU_PENDING);
    memset(&in, 0xff, sizeof(in));
    assert_int_equal(viommu_pv_resume(world->pv, rest, &out, sizeof(out) - 1, &written), -EINVAL);
    while (viommu_pv_resume(world->pv, rest, &out, sizeof(out), &written) == VIOMMU_PENDING) {
    }
    assert_int_equal(out.status, VIOMMU_PV_OK);
    assert_int_equal(out.done, 3);
    assert_int_equal(written, sizeof(out));
    world_end(world);
}

/* The bytes of a call, in a page that can only be read while they are copied. */
enum {
    PAGE = 4096,
};
static uint8_t *guarded;
static uint8_t times[PAGE]; /* that each byte of it was read */

static void reading(const void *from, size_t size, bool begins)
{
    size_t at = (size_t)((const uint8_t *)from - guarded);

    assert_true(size == 0 || (at < PAGE && size <= PAGE - at));
    assert_int_equal(mprotect(guarded, PAGE, begins ? PROT_READ : PROT_NONE), 0);
    for (size_t i = at; begins && i < at + size; i++) {
        assert_int_equal(times[i]++, 0);
    }
}

/* Makes a call from there; its end is that of the page. */
static uint32_t send_guarded(struct world *world, const void *call, size_t size, bool yields)
{
    uint8_t out[256];
    uint32_t status;

    assert_int_equal(mprotect(guarded, PAGE, PROT_READ | PROT_WRITE), 0);
    memcpy(guarded + PAGE - size, call, size);
    assert_int_equal(mprotect(guarded, PAGE, PROT_NONE), 0);
    memset(times, 0, sizeof(times));
    world->yield_every = yields;
    pv_reading = reading;
    status = world_call(world, 0, guarded + PAGE - size, size, out, sizeof(out));
    pv_reading = NULL;
    return status;
}

/*
 * No byte of a call is read twice, and none but to copy it: whatever call it is, however it is cut
 * short, malformed or refused, and where it yields.
 */
static void test_no_byte_is_read_twice(void **state)
{
    (void)state;
    guarded = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(guarded, MAP_FAILED);
    for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++) {
        for (unsigned yields = 0; yields < 2; yields++) {
            struct world *world = world_create(&defaults, 1);
            struct sample sample = samples[i];
            size_t size = sample.call.head.size;

            assert_int_equal(world_enable(world, 0), VIOMMU_PV_OK);
            if (sample.call.head.operation == VIOMMU_PV_MAP_FOREIGN) {
                sample.call.foreign.count = 2;
                sample.call.foreign.device_frame_max = 9;
                sample.call.head.size = (uint32_t)(size += 16);
            }
            (void)send_guarded(world, &sample.call, size, yields);
            for (size_t j = PAGE - size; j < PAGE; j++) {
                assert_int_equal(times[j], 1); /* all that matters is read */
            }
            for (size_t cut = sizeof(struct viommu_pv_head); cut < size; cut += 4) {
                (void)send_guarded(world, &sample.call, cut, yields);
            }
            for (size_t at = 0; at < size; at++) {
                sample.call.bytes[at] ^= 0x81;
                (void)send_guarded(world, &sample.call, size, yields);
                sample.call.bytes[at] ^= 0x81;
            }
            world->yield_every = 0;
            world_check(world);
            world_end(world);
        }
    }
    assert_int_equal(munmap(guarded, PAGE), 0);
}

/* Pages of order 18, so many that their frames are more than a number holds: 2^64 and what is left
   over, which alone would be in range. */
static void test_numbers_that_overflow(void **state)
{
    static const uint64_t counts[] = {UINT64_C(1) << 46, (UINT64_C(1) << 46) + 1, UINT64_C(3) << 46,
                                      (UINT64_C(1) << 52) - 1};
    struct world *world =
        world_create(&(struct viommu_pv_config){.count_max = (UINT64_C(1) << 52) - 1}, 1);

    (void)state;
    assert_int_equal(world_enable(world, 0), VIOMMU_PV_OK);
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        for (unsigned operation = VIOMMU_PV_MAP; operation <= VIOMMU_PV_UNMAP; operation++) {
            struct world_range range = {
                .of = VIOMMU_PV_SELF, .count = counts[i], .order = 18, .perm = 1};
            struct viommu_pv_answer answer;

            assert_int_equal(world_ranged(world, 0, operation, &range, &answer), VIOMMU_PV_ERANGE);
            assert_int_equal(answer.done, 0);
            range.order = 9;
            assert_int_equal(world_ranged(world, 0, operation, &range, NULL), VIOMMU_PV_ERANGE);
        }
    }
    world_end(world);
}

/* A number past the largest that CAPS tells, of each call that has one. */
static void test_numbers_past_the_largest(void **state)
{
    struct world *world = world_create(&defaults, 1);
    struct viommu_pv_lookup_call look = {.head = WORLD_HEAD(VIOMMU_PV_LOOKUP, look)};
    struct viommu_pv_find_call find = {.head = WORLD_HEAD(VIOMMU_PV_FIND, find), .vm = 9};
    struct viommu_pv_flush_call flush = {.head = WORLD_HEAD(VIOMMU_PV_FLUSH, flush)};
    struct viommu_pv_reserved_call reserved = {.head = WORLD_HEAD(VIOMMU_PV_RESERVED, reserved),
                                               .device = VIOMMU_PV_ALL};
    uint8_t out[256];

    (void)state;
    assert_int_equal(world_enable(world, 0), VIOMMU_PV_OK);
    look.device_frame = WORLD_DEVICE - 1;
    assert_int_equal(world_call(world, 0, &look, sizeof(look), out, 256), VIOMMU_PV_ENXIO);
    look.device_frame = WORLD_DEVICE;
    assert_int_equal(world_call(world, 0, &look, sizeof(look), out, 256), VIOMMU_PV_ERANGE);
    look.device_frame = UINT64_MAX;
    assert_int_equal(world_call(world, 0, &look, sizeof(look), out, 256), VIOMMU_PV_ERANGE);
    find.frame = 2 * WORLD_FRAMES;
    assert_int_equal(world_call(world, 0, &find, sizeof(find), out, 256), VIOMMU_PV_ERANGE);
    find.frame--;
    assert_int_equal(world_call(world, 0, &find, sizeof(find), out, 256), VIOMMU_PV_ESRCH);
    flush.last = WORLD_DEVICE;
    assert_int_equal(world_call(world, 0, &flush, sizeof(flush), out, 256), VIOMMU_PV_ERANGE);
    flush.last--;
    assert_int_equal(world_call(world, 0, &flush, sizeof(flush), out, 256), VIOMMU_PV_OK);
    flush.first = WORLD_DEVICE;
    assert_int_equal(world_call(world, 0, &flush, sizeof(flush), out, 256), VIOMMU_PV_EINVAL);
    reserved.room = 65537;
    assert_int_equal(world_call(world, 0, &reserved, sizeof(reserved), out, 256), VIOMMU_PV_ERANGE);
    world_end(world);
}

/* What functions find on the stack that do not write there. */
__attribute__((noinline)) static void leave_behind(uint8_t byte)
{
    volatile uint8_t stack[16384];

    for (size_t i = 0; i < sizeof(stack); i++) {
        stack[i] = byte;
    }
}

/* The whole answer to a call, in a world of its own. Steps of it fail, from one on. */
static size_t answer_of(const struct sample *sample, size_t size, unsigned long fail, uint8_t byte,
                        uint8_t *out)
{
    struct world *world = world_create(&defaults, 1);
    size_t written;

    assert_int_equal(world_enable(world, 0), VIOMMU_PV_OK);
    assert_int_equal(viommu_pv_device_add(world->pv, 0, 1), 0);
    memset(out, 0, 256);
    world->fail_at = fail ? world->steps + fail : 0;
    world->fail_more = 99;
    leave_behind(byte);
    assert_int_equal(
        viommu_pv_call(world->pv, 0, sample->call.bytes, size, out, 256, &written, NULL), 0);
    world->fail_at = 0;
    world_end(world);
    return written;
}

/* An answer, of whatever call, says nothing of what is in the hypervisor's memory. */
static void test_answers_tell_nothing_else(void **state)
{
    uint8_t answers[2][256];

    (void)state;
    for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++) {
        for (unsigned how = 0; how < 9; how++) {
            struct sample sample = samples[i];
            size_t size = sample.call.head.size;
            size_t written;

            if (sample.call.head.operation == VIOMMU_PV_MAP_FOREIGN) {
                sample.call.foreign.count = 2;
                sample.call.head.size = (uint32_t)(size += 16);
            } else if (sample.call.head.operation == VIOMMU_PV_RESERVED) {
                sample.call.reserved.room = how & 1 ? 8 : 0;
            }
            sample.call.head.version = how == 7 ? 9 : VIOMMU_PV_VERSION;
            size = how == 8 ? sizeof(struct viommu_pv_head) : size;
            written = answer_of(&sample, size, how < 6 ? how : 0, 0x55, answers[0]);
            assert_int_equal(answer_of(&sample, size, how < 6 ? how : 0, 0xaa, answers[1]),
                             written);
            assert_memory_equal(answers[0], answers[1], 256);
        }
    }
}

static union {
    uint8_t bytes[256];
    struct viommu_pv_answer answer;
} shared; /* by guest and hypervisor: the call comes and the answer goes here */

static void scribble(struct world *world)
{
    (void)world;
    memset(shared.bytes, 0xff, sizeof(shared.bytes));
}

/* Makes a call in the shared page, which the guest overwrites at a step (0: at none); returns
   whether there was such a step. */
static bool send_shared(const struct sample *sample, unsigned long at, struct viommu_pv_answer *out)
{
    struct world *world = world_create(&defaults, 1);
    size_t size = sample->call.head.size;
    size_t written;
    bool done;

    assert_int_equal(world_enable(world, 0), VIOMMU_PV_OK);
    memcpy(shared.bytes, sample->call.bytes, size);
    world->intrude = scribble;
    world->intrude_at = at ? world->steps + at : 0;
    assert_int_equal(viommu_pv_call(world->pv, 0, shared.bytes, size, shared.bytes,
                                    sizeof(shared.bytes), &written, NULL),
                     0);
    done = at && world->steps >= world->intrude_at;
    *out = shared.answer;
    world_check(world);
    world_end(world);
    return done;
}

/* At any step of any call the guest may change what it wrote, and nothing comes of it. */
static void test_a_call_in_a_shared_page(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++) {
        struct sample sample = samples[i];
        struct viommu_pv_answer expected;
        struct viommu_pv_answer out;

        if (sample.call.head.operation == VIOMMU_PV_MAP_FOREIGN) {
            sample.call.foreign.count = 2; /* frames 0 and 0 */
            sample.call.foreign.device_frame_max = 9;
            sample.call.head.size += 16;
        }
        (void)send_shared(&sample, 0, &expected);
        assert_int_equal(expected.operation, sample.call.head.operation);
        for (unsigned long at = 1; send_shared(&sample, at, &out); at++) {
            assert_memory_equal(&out, &expected, sizeof(out));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_incomplete_tables),
        cmocka_unit_test(test_caps),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_buffers),
        cmocka_unit_test(test_a_call_is_read_once),
        cmocka_unit_test(test_a_call_in_a_shared_page),
        cmocka_unit_test(test_no_byte_is_read_twice),
        cmocka_unit_test(test_numbers_that_overflow),
        cmocka_unit_test(test_numbers_past_the_largest),
        cmocka_unit_test(test_answers_tell_nothing_else),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
