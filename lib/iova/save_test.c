/* SPDX-License-Identifier: BSD-2-Clause */
/* Spaces saved and loaded: nothing is lost, and what is damaged or makes no sense is refused
   whole. */
#include <viommu/iova.h>
#include <viommu/save.h>

#include "base/alloc.h"
#include "save/stream.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CHECKSUM_AT 28u
#define HEADER_SIZE 32u
#define SECTION_SIZE 24u

struct state {
    void *data;
    size_t size;
};

static struct state save(const struct viommu_iova *space)
{
    struct state state;

    assert_int_equal(viommu_iova_save(space, &state.data, &state.size), 0);
    return state;
}

static void mend(struct state *state)
{
    unsigned char *bytes = state->data;
    uint32_t crc = save_crc32c(0, bytes, CHECKSUM_AT);

    crc = save_crc32c(crc, bytes + HEADER_SIZE, state->size - HEADER_SIZE);
    for (unsigned i = 0; i < 4; i++) {
        bytes[CHECKSUM_AT + i] = (unsigned char)(crc >> 8 * i);
    }
}

static void reserve(struct viommu_iova_owner *owner, enum viommu_iova_type type, uint64_t first,
                    uint64_t last, bool movable, struct viommu_iova_reservation **out)
{
    const struct viommu_iova_request request = {
        .type = type,
        .range = {first, last},
        .movable = movable,
        .bounds = {0, movable ? 0xffffffff : 0},
        .align = movable ? 0x100000 : 0,
    };

    assert_int_equal(viommu_iova_reserve(owner, &request, 1, out, NULL), 0);
}

/* Some of everything. */
static struct viommu_iova *make(bool identity)
{
    const struct viommu_iova_config config = {.identity = identity};
    const struct viommu_range limits[] = {{0, 0xfffffff}, {0x20000000, 0x7fffffffff}};
    const struct viommu_range ram = {0x40000000, 0x7fffffff};
    const struct viommu_range later = {0x100000000, 0x1ffffffff};
    struct viommu_iova_reservation *r;
    struct viommu_iova_owner *disk;
    struct viommu_iova_owner *vmm;
    struct viommu_iova_memory *m;
    struct viommu_iova *space;
    uint64_t at;

    assert_int_equal(viommu_iova_create(&config, &space), 0);
    assert_int_equal(viommu_iova_owner_create(space, "vmm", &vmm), 0);
    assert_int_equal(viommu_iova_owner_create(space, "disk", &disk), 0);
    assert_int_equal(viommu_iova_limit(disk, limits, 2, NULL), 0);
    reserve(disk, VIOMMU_IOVA_MSI, 0xfee00000, 0xfeefffff, false, &r);
    reserve(disk, VIOMMU_IOVA_DIRECT_RELAXABLE, 0xa0000, 0xbffff, false, &r);
    reserve(vmm, VIOMMU_IOVA_P2P, 0xfee80000, 0xffffffff, false, &r);
    reserve(vmm, VIOMMU_IOVA_SW_MSI, 0x8000000, 0x80fffff, true, &r);
    assert_int_equal(viommu_iova_doorbell_map(r, 0xfee00040, &at, NULL), 0);
    assert_int_equal(viommu_iova_doorbell_map(r, 0xfee00080, &at, NULL), 0);
    assert_int_equal(viommu_iova_doorbell_map(r, 0x90001000, &at, NULL), 0);
    reserve(disk, VIOMMU_IOVA_SW_MSI, 0x8100000, 0x81fffff, true, &r);
    assert_int_equal(viommu_iova_memory_add(vmm, &ram, false, &m, NULL), 0);
    assert_int_equal(viommu_iova_memory_add(vmm, &later, true, &m, NULL), 0);
    assert_int_equal(viommu_iova_alloc(disk, 0x3000, 0x4000, NULL, &at), 0);
    assert_int_equal(viommu_iova_alloc(vmm, 0x200000, 0, NULL, &at), 0);
    assert_int_equal(viommu_iova_map(vmm, &(struct viommu_range){0xb0000, 0xb0fff}, NULL), 0);
    return space;
}

static void expect_same(const struct viommu_iova *space, const struct state *state)
{
    struct state again = save(space);

    assert_int_equal(again.size, state->size);
    assert_memory_equal(again.data, state->data, state->size);
    viommu_save_free(again.data);
}

static void test_nothing_is_lost(void **state)
{
    (void)state;
    for (unsigned identity = 0; identity < 2; identity++) {
        struct viommu_iova *space = make(identity);
        struct state saved = save(space);
        struct viommu_iova_reservation *window;
        struct viommu_iova_owner *disk;
        struct viommu_iova_owner *vmm;
        struct viommu_iova *loaded;
        bool declared;
        uint64_t at;
        bool fresh;

        assert_int_equal(viommu_iova_load(saved.data, saved.size, &loaded), 0);
        expect_same(loaded, &saved);
        expect_same(space, &saved);
        assert_int_equal(viommu_iova_generation(loaded), viommu_iova_generation(space));
        viommu_iova_destroy(space);

        disk = viommu_iova_owner_next(loaded, NULL);
        assert_string_equal(viommu_iova_owner_name(disk), "disk");
        vmm = viommu_iova_owner_next(loaded, disk);
        assert_string_equal(viommu_iova_owner_name(vmm), "vmm");
        assert_null(viommu_iova_owner_next(loaded, vmm));
        window = viommu_iova_reservation_next(vmm, NULL);
        assert_int_equal(viommu_iova_reservation_type(window), VIOMMU_IOVA_SW_MSI);
        /* It goes on: a doorbell that is there, one that is new, the end of one used twice. */
        assert_int_equal(viommu_iova_doorbell_map(window, 0x90001008, &at, &fresh), 0);
        assert_false(fresh);
        assert_int_equal(at, 0x8001008);
        assert_int_equal(viommu_iova_doorbell_map(window, 0x90000000, &at, &fresh), 0);
        assert_true(fresh);
        assert_int_equal(viommu_iova_doorbell_unmap(window, 0xfee00000, &fresh), 0);
        assert_false(fresh);
        assert_int_equal(viommu_iova_doorbell_unmap(window, 0xfee00000, &fresh), 0);
        assert_true(fresh);
        window = viommu_iova_reservation_next(vmm, window);
        assert_int_equal(viommu_iova_reservation_type(window), VIOMMU_IOVA_P2P);
        assert_null(viommu_iova_reservation_next(vmm, window));
        assert_int_equal(viommu_iova_memory_range(viommu_iova_memory_next(vmm, NULL), &declared)
                             .first, 0x100000000);
        assert_true(declared);
        assert_null(viommu_iova_memory_next(disk, NULL));
        /* A loose window still moves; the limits of an owner go with it. */
        window = viommu_iova_reservation_next(disk, NULL);
        assert_int_equal(viommu_iova_map(vmm, &(struct viommu_range){0x8100000, 0x8100fff}, NULL),
                         0);
        assert_int_not_equal(viommu_iova_reservation_range(window).first, 0x8100000);
        viommu_iova_owner_destroy(disk);
        assert_int_equal(viommu_iova_map(vmm, &(struct viommu_range){0x10000000, 0x10000fff},
                                         NULL), 0);
        viommu_save_free(saved.data);
        viommu_iova_destroy(loaded);
    }
}

/* Cut short anywhere, or with any bit changed: refused. */
static void test_damage(void **state)
{
    struct viommu_iova *space = make(true);
    struct state saved = save(space);
    unsigned char *bytes = saved.data;
    struct viommu_iova *loaded = NULL;

    (void)state;
    for (size_t size = 0; size < saved.size; size++) {
        /* Exactly as long as it is said to be: a sanitizer sees what goes beyond. */
        unsigned char *copy = malloc(size + 1);

        assert_non_null(copy);
        memcpy(copy, bytes, size);
        copy = realloc(copy, size ? size : 1);
        assert_int_equal(viommu_iova_load(copy, size, &loaded), -EBADMSG);
        free(copy);
    }
    for (size_t i = 0; i < saved.size * 8; i++) {
        int ret;

        bytes[i / 8] ^= (unsigned char)(1u << i % 8);
        ret = viommu_iova_load(bytes, saved.size, &loaded);
        assert_true(ret == -EBADMSG || ret == -ENOTSUP);
        bytes[i / 8] ^= (unsigned char)(1u << i % 8);
    }
    assert_null(loaded);
    /* The checksum made right again: whatever is accepted is a space that holds together. */
    for (size_t i = HEADER_SIZE * 8; i < saved.size * 8; i++) {
        int ret;

        bytes[i / 8] ^= (unsigned char)(1u << i % 8);
        mend(&saved);
        ret = viommu_iova_load(bytes, saved.size, &loaded);
        assert_true(!ret || ret == -EBADMSG || ret == -ENOTSUP);
        if (!ret) {
            expect_same(loaded, &saved);
            viommu_iova_destroy(loaded);
        }
        bytes[i / 8] ^= (unsigned char)(1u << i % 8);
    }
    mend(&saved);
    assert_int_equal(viommu_iova_load(bytes, saved.size, &loaded), 0);
    viommu_iova_destroy(loaded);
    viommu_save_free(saved.data);
    viommu_iova_destroy(space);
}

static void test_memory_fails(void **state)
{
    struct viommu_iova *space = make(false);
    struct state saved = save(space);
    struct viommu_iova *loaded;
    unsigned failures = 0;
    struct state again;
    int ret;

    (void)state;
    do {
        base_alloc_fail_at(++failures);
        ret = viommu_iova_load(saved.data, saved.size, &loaded);
        base_alloc_fail_at(0);
        assert_true(!ret || ret == -ENOMEM);
    } while (ret);
    assert_true(failures > 10);
    viommu_iova_destroy(loaded);
    failures = 0;
    do {
        base_alloc_fail_at(++failures);
        ret = viommu_iova_save(space, &again.data, &again.size);
        base_alloc_fail_at(0);
        assert_true(!ret || ret == -ENOMEM);
    } while (ret);
    viommu_save_free(again.data);
    assert_int_equal(viommu_iova_load(NULL, 0, &loaded), -EINVAL);
    assert_int_equal(viommu_iova_save(space, NULL, NULL), -EINVAL);
    viommu_save_free(saved.data);
    viommu_iova_destroy(space);
}

/* ---- states by hand: what no space can be ---- */

struct hand {
    uint64_t granule;
    unsigned identity;
    unsigned limited;
    struct viommu_range hole;
    unsigned type;
    struct viommu_range reserved;
    unsigned movable;
    struct viommu_range bounds;
    uint64_t align;
    uint64_t doorbell;
    uint64_t at;
    uint64_t uses; /* 0: no doorbell */
    struct viommu_range memory;
    uint32_t owner; /* of the mapping */
    struct viommu_range mapping;
};

static const struct hand right = {
    .granule = 4096,
    .identity = 1,
    .limited = 1,
    .hole = {0x100000, UINT64_MAX},
    .type = VIOMMU_IOVA_SW_MSI,
    .reserved = {0x10000, 0x1ffff},
    .doorbell = 0x90000000,
    .at = 0x1f000,
    .uses = 1,
    .memory = {0x20000, 0x2ffff},
    .mapping = {0x30000, 0x30fff},
};

static void put_range(struct save_writer *writer, const struct viommu_range *range)
{
    save_put64(writer, range->first);
    save_put64(writer, range->last);
}

static int load_hand(const struct hand *hand)
{
    struct save_writer writer;
    struct viommu_iova *space;
    void *data;
    size_t size;
    int ret;

    save_writer_init(&writer, SAVE_IOVA);
    save_begin(&writer, 1, 0, 1, 0);
    save_put8(&writer, (uint8_t)hand->identity);
    save_put64(&writer, hand->granule);
    save_put64(&writer, 7);
    save_end(&writer);
    save_begin(&writer, 2, 0, 1, 0);
    save_put8(&writer, 1);
    save_put_bytes(&writer, "a", 1);
    save_put8(&writer, (uint8_t)hand->limited);
    save_put32(&writer, 1);
    put_range(&writer, &hand->hole);
    save_end(&writer);
    save_begin(&writer, 3, 0, 1, 0);
    save_put32(&writer, 0);
    save_put8(&writer, (uint8_t)hand->type);
    put_range(&writer, &hand->reserved);
    save_put8(&writer, (uint8_t)hand->movable);
    if (hand->movable) {
        put_range(&writer, &hand->bounds);
        save_put64(&writer, hand->align);
    }
    save_put32(&writer, hand->uses != 0);
    if (hand->uses) {
        save_put64(&writer, hand->doorbell);
        save_put64(&writer, hand->at);
        save_put64(&writer, hand->uses);
    }
    save_end(&writer);
    save_begin(&writer, 4, 0, 1, 0);
    save_put32(&writer, 0);
    save_put8(&writer, 0);
    put_range(&writer, &hand->memory);
    save_end(&writer);
    save_begin(&writer, 5, 0, 1, 0);
    save_put32(&writer, hand->owner);
    put_range(&writer, &hand->mapping);
    save_end(&writer);
    assert_int_equal(save_finish(&writer, &data, &size), 0);
    ret = viommu_iova_load(data, size, &space);
    save_free(data);
    if (!ret) {
        viommu_iova_destroy(space);
    }
    return ret;
}

#define EXPECT(result, ...)                                                                        \
    do {                                                                                           \
        struct hand hand = right;                                                                  \
        __VA_ARGS__;                                                                               \
        assert_int_equal(load_hand(&hand), result);                                                \
    } while (0)

static void test_what_cannot_be(void **state)
{
    (void)state;
    EXPECT(0, (void)0);
    EXPECT(-EBADMSG, hand.granule = 0);
    EXPECT(-EBADMSG, hand.granule = 0x1800);
    EXPECT(-EBADMSG, hand.identity = 2);
    EXPECT(-EBADMSG, hand.limited = 0);
    EXPECT(-EBADMSG, hand.hole.first = 0);
    EXPECT(-EBADMSG, hand.hole.last = 0xfffff);
    EXPECT(-EBADMSG, hand.type = VIOMMU_IOVA_TYPES);
    EXPECT(-EBADMSG, hand.type = VIOMMU_IOVA_MSI); /* with a doorbell */
    EXPECT(0, hand.type = VIOMMU_IOVA_MSI; hand.uses = 0);
    EXPECT(-EBADMSG, hand.doorbell++);
    EXPECT(-EBADMSG, hand.at = 0x20000);
    EXPECT(-EBADMSG, hand.at = 0xf000);
    EXPECT(-EBADMSG, hand.uses = UINT64_MAX);
    EXPECT(-EBADMSG, hand.hole.first = 0x1f800); /* over the doorbell, and memory */
    EXPECT(-EBADMSG, hand.memory.first = 0x1ffff);
    EXPECT(0, hand.identity = 0; hand.memory.first = 0x1ffff);
    EXPECT(-EBADMSG, hand.memory.last = 0x100000);
    EXPECT(-EBADMSG, hand.memory.last = 0x30000);
    EXPECT(0, hand.identity = 0; hand.memory.last = 0x30000);
    EXPECT(-EBADMSG, hand.mapping.first = 0x30800);
    EXPECT(-EBADMSG, hand.mapping.last = 0x30ffe);
    EXPECT(-EBADMSG, hand.owner = 1);
    EXPECT(-EBADMSG, hand.mapping = (struct viommu_range){0x10000, 0x10fff});
    EXPECT(-EBADMSG, hand.mapping = (struct viommu_range){0xff000, 0x100fff});
    EXPECT(-EBADMSG, hand.mapping = (struct viommu_range){0x31000, 0x30fff});
    /* Windows that can move. */
    EXPECT(-EBADMSG, hand.movable = 1; hand.bounds.last = 0xfffff; hand.align = 4096);
    EXPECT(0, hand.movable = 1; hand.bounds.last = 0xfffff; hand.align = 4096; hand.uses = 0);
    EXPECT(-EBADMSG, hand.movable = 1; hand.bounds.last = 0x1fffe; hand.align = 4096;
           hand.uses = 0);
    EXPECT(-EBADMSG, hand.movable = 1; hand.bounds = (struct viommu_range){0x11000, 0xfffff};
           hand.align = 4096; hand.uses = 0);
    EXPECT(-EBADMSG, hand.movable = 1; hand.bounds.last = 0xfffff; hand.align = 0x20000;
           hand.uses = 0);
    EXPECT(-EBADMSG, hand.movable = 1; hand.bounds.last = 0xfffff; hand.align = 0x1800;
           hand.uses = 0);
    EXPECT(-EBADMSG, hand.movable = 1; hand.bounds.last = 0xfffff; hand.align = 4096;
           hand.uses = 0; hand.memory.first = 0x1ffff);
    EXPECT(-EBADMSG, hand.movable = 1; hand.bounds.last = 0xfffff; hand.align = 4096;
           hand.uses = 0; hand.mapping = (struct viommu_range){0x10000, 0x10fff});
    EXPECT(-EBADMSG, hand.movable = 2; hand.bounds.last = 0xfffff; hand.align = 4096;
           hand.uses = 0);
}

/* So many pages, and over them so many reservations, each of which covers them all. */
static int load_heap(unsigned pages, unsigned layers)
{
    struct save_writer writer;
    struct viommu_iova *space;
    void *data;
    size_t size;
    int ret;

    save_writer_init(&writer, SAVE_IOVA);
    save_begin(&writer, 1, 0, 1, 0);
    save_put8(&writer, 0);
    save_put64(&writer, 4096);
    save_put64(&writer, 7);
    save_end(&writer);
    save_begin(&writer, 2, 0, 1, 0);
    save_put8(&writer, 1);
    save_put_bytes(&writer, "a", 1);
    save_put8(&writer, 0);
    save_put32(&writer, 0);
    save_end(&writer);
    save_begin(&writer, 3, 0, 1, 0);
    for (unsigned i = 0; i < pages + layers; i++) {
        const struct viommu_range page = {i * 8192ull, i * 8192ull + 4095};
        const struct viommu_range all = {0, pages * 8192ull - 1};

        save_put32(&writer, 0);
        save_put8(&writer, VIOMMU_IOVA_RESERVED);
        put_range(&writer, i < pages ? &page : &all);
        save_put8(&writer, 0);
        save_put32(&writer, 0);
    }
    save_end(&writer);
    for (unsigned kind = 4; kind <= 5; kind++) {
        save_begin(&writer, kind, 0, 1, 0);
        save_end(&writer);
    }
    assert_int_equal(save_finish(&writer, &data, &size), 0);
    ret = viommu_iova_load(data, size, &space);
    save_free(data);
    if (!ret) {
        viommu_iova_destroy(space);
    }
    return ret;
}

/* A state that would take minutes is refused in time. */
static void test_heap(void **state)
{
    (void)state;
    assert_int_equal(load_heap(200, 200), 0);
    assert_int_equal(load_heap(3000, 3000), -EBADMSG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_lost),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_memory_fails),
        cmocka_unit_test(test_what_cannot_be),
        cmocka_unit_test(test_heap),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
