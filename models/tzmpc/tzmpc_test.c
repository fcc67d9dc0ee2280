/* SPDX-License-Identifier: BSD-2-Clause */
/* The MPC's registers in both views and all sizes; blocked accesses; what a CPU has cached. */
#include "space/test_space.h"
#include "tzmpc/spec.h"

#include "base/alloc.h"
#include "save/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <viommu/save.h>
#include <viommu/tzmpc.h>

#define MEMORY 0x10000000u
#define REGISTERS 0x50000000u
#define BLOCK 4096u
#define BLOCKS 70u
#define RESET_CTRL 0x100u

struct bed {
    struct viommu_bus *bus;
    struct viommu_region *root;
    struct viommu_space *space;
    struct viommu_space *behind;
    struct viommu_tzmpc *mpc;
    struct viommu_cpu *cpu; /* MMU index 0 is secure, 1 is not */
    const struct viommu_cpu_tlb *tlb;
    bool level;
    unsigned calls;
    bool stale; /* the CPU was told before the table had changed */
    unsigned kicks;
    bool expected; /* non-secure, of block 3, when the CPU is told */
    char ram[BLOCKS * BLOCK];
};

static void on_interrupt(void *opaque, bool level)
{
    struct bed *bed = opaque;

    bed->level = level;
    bed->calls++;
    assert_int_equal(viommu_tzmpc_interrupt(bed->mpc), level);
}

static int setup(void **state)
{
    struct bed *bed = calloc(1, sizeof(*bed));
    struct viommu_tzmpc_config config = {.name = "mpc",
                                         .size = sizeof(bed->ram),
                                         .address = 0x4000,
                                         .base = MEMORY,
                                         .opaque = bed,
                                         .interrupt = on_interrupt};
    struct viommu_cpu_config cpu = {.indexes = 2};
    struct viommu_region *box;
    struct viommu_region *ram;

    assert_int_equal(viommu_bus_create(&bed->bus), 0);
    bed->root = test_region(bed->bus, "root", VIOMMU_REGION_CONTAINER, 0, NULL);
    box = test_region(bed->bus, "behind", VIOMMU_REGION_CONTAINER, 0, NULL);
    ram = test_region(bed->bus, "ram", VIOMMU_REGION_RAM, sizeof(bed->ram), bed->ram);
    assert_int_equal(viommu_region_add(box, ram, 0x4000, 0), 0);
    assert_int_equal(viommu_space_create(bed->root, &bed->space), 0);
    assert_int_equal(viommu_space_create(box, &bed->behind), 0);
    config.space = bed->behind;
    assert_int_equal(viommu_tzmpc_create(bed->bus, &config, &bed->mpc), 0);
    assert_int_equal(viommu_region_add(bed->root, viommu_tzmpc_memory(bed->mpc), MEMORY, 0), 0);
    assert_int_equal(viommu_region_add(bed->root, viommu_tzmpc_registers(bed->mpc), REGISTERS, 0),
                     0);
    assert_int_equal(viommu_bus_commit(bed->bus), 0);
    assert_int_equal(viommu_cpu_create(bed->bus, &cpu, &bed->cpu), 0);
    bed->tlb = viommu_cpu_tlb(bed->cpu);
    assert_int_equal(viommu_cpu_set_space(bed->cpu, 0, bed->space, &secure), 0);
    assert_int_equal(viommu_cpu_set_space(bed->cpu, 1, bed->space, &normal), 0);
    memset(bed->ram, 0x5a, sizeof(bed->ram));
    *state = bed;
    return 0;
}

static int teardown(void **state)
{
    struct bed *bed = *state;

    viommu_tzmpc_destroy(bed->mpc);
    viommu_bus_destroy(bed->bus);
    free(bed);
    return 0;
}

static uint64_t get_as(struct bed *bed, const struct viommu_bus_attrs *attrs, unsigned offset,
                       unsigned size)
{
    uint64_t value = 0;

    assert_int_equal(viommu_space_read(bed->space, REGISTERS + offset, &value, size, attrs), 0);
    return value;
}

static uint32_t get(struct bed *bed, unsigned offset)
{
    return (uint32_t)get_as(bed, &secure, offset, 4);
}

static void set_as(struct bed *bed, const struct viommu_bus_attrs *attrs, unsigned offset,
                   unsigned size, uint64_t value)
{
    assert_int_equal(viommu_space_write(bed->space, REGISTERS + offset, &value, size, attrs), 0);
}

static void set(struct bed *bed, unsigned offset, uint32_t value)
{
    set_as(bed, &secure, offset, 4, value);
}

static void open_block(struct bed *bed, unsigned block, bool non_secure)
{
    uint32_t word;

    set(bed, MPC_BLK_IDX, block / 32);
    word = (uint32_t)get_as(bed, &secure, MPC_BLK_LUT, 2); /* does not move the index */
    word |= (uint32_t)get_as(bed, &secure, MPC_BLK_LUT + 2, 2) << 16;
    word &= ~(1u << block % 32);
    word |= (uint32_t)non_secure << block % 32;
    set(bed, MPC_BLK_LUT, word);
}

/* The byte that a read gives, or an error. */
static int peek(struct bed *bed, const struct viommu_bus_attrs *attrs, uint64_t address)
{
    unsigned char byte = 0xee;
    int error = viommu_space_read(bed->space, MEMORY + address, &byte, 1, attrs);

    return error ? error : byte;
}

static void after_reset(void **state)
{
    struct bed *bed = *state;
    static const uint8_t ids[] = {4, 0, 0, 0, 0x60, 0xb8, 0x1b, 0, 0x0d, 0xf0, 5, 0xb1};

    for (unsigned again = 0; again < 2; again++) {
        assert_int_equal(get(bed, MPC_CTRL), RESET_CTRL);
        assert_int_equal(get(bed, MPC_BLK_MAX), 2);
        assert_int_equal(get(bed, MPC_BLK_CFG), 7);
        assert_int_equal(get(bed, MPC_BLK_IDX), 0);
        assert_int_equal(get(bed, MPC_BLK_LUT), 0);
        assert_int_equal(get(bed, MPC_BLK_IDX), 1);
        assert_int_equal(get(bed, MPC_INT_STAT), 0);
        assert_int_equal(get(bed, MPC_INT_EN), 1);
        assert_int_equal(get(bed, MPC_INT_INFO1), 0);
        assert_int_equal(get(bed, MPC_INT_INFO2), 0);
        assert_int_equal(get(bed, 0x38), 0);
        for (unsigned i = 0; i < sizeof(ids); i++) {
            assert_int_equal(get(bed, MPC_ID_FIRST + 4 * i), ids[i]);
            set(bed, MPC_ID_FIRST + 4 * i, 0xffffffff);
            assert_int_equal(get_as(bed, &normal, MPC_ID_FIRST + 4 * i, 4), ids[i]);
        }
        /* Everything that can be undone. */
        set(bed, MPC_BLK_IDX, 2);
        set(bed, MPC_BLK_LUT, 0xffffffff);
        set(bed, MPC_INT_SET, 1);
        set(bed, MPC_INT_EN, 0);
        set(bed, MPC_CTRL, 0xffffffff);
        assert_int_equal(get(bed, MPC_CTRL), 0x800001d0);
        viommu_tzmpc_reset(bed->mpc);
        assert_int_equal(viommu_tzmpc_interrupt(bed->mpc), false);
    }
}

static void sizes_and_the_index(void **state)
{
    struct bed *bed = *state;

    set(bed, MPC_BLK_LUT, 0x11111111);
    set(bed, MPC_BLK_LUT, 0x22222222);
    assert_int_equal(get(bed, MPC_BLK_IDX), 2);
    set(bed, MPC_BLK_LUT, 0xffffffff);
    assert_int_equal(get(bed, MPC_BLK_IDX), 0); /* it wraps */
    assert_int_equal(get(bed, MPC_BLK_LUT), 0x11111111);
    assert_int_equal(get(bed, MPC_BLK_LUT), 0x22222222);
    assert_int_equal(get(bed, MPC_BLK_LUT), 0x3f); /* there are 70 blocks */
    /* Parts of a word change what they hold, and do not move the index. */
    set_as(bed, &secure, MPC_BLK_LUT + 1, 1, 0xab);
    set_as(bed, &secure, MPC_BLK_LUT + 2, 2, 0xcdef);
    assert_int_equal(get_as(bed, &secure, MPC_BLK_LUT + 2, 1), 0xef);
    assert_int_equal(get(bed, MPC_BLK_IDX), 0);
    assert_int_equal(get(bed, MPC_BLK_LUT), 0xcdefab11);
    set(bed, MPC_CTRL, 0);
    assert_int_equal(get(bed, MPC_BLK_LUT), 0x22222222);
    assert_int_equal(get(bed, MPC_BLK_IDX), 1);
    set(bed, MPC_BLK_LUT, 5);
    assert_int_equal(get(bed, MPC_BLK_IDX), 1);
    set_as(bed, &secure, MPC_CTRL + 1, 1, 1);
    assert_int_equal(get(bed, MPC_CTRL), 0x100);
    /* Eight bytes, and some that lie across: as their parts. */
    set(bed, MPC_BLK_IDX, 0);
    set_as(bed, &secure, MPC_BLK_IDX, 8, 0x7777777700000001);
    assert_int_equal(get(bed, MPC_BLK_IDX), 2);
    set(bed, MPC_BLK_IDX, 4);
    assert_int_equal(get(bed, MPC_BLK_LUT), 0x77777777);
    set_as(bed, &secure, MPC_BLK_LUT - 1, 2, 0xffff);
    set_as(bed, &secure, MPC_INT_SET + 1, 2, 0xffff);
    assert_int_equal(get(bed, MPC_INT_STAT), 0);
}

static void non_secure_software_sees_ids(void **state)
{
    struct bed *bed = *state;
    static const struct viommu_bus_attrs unknown = {.unspecified = true};

    set(bed, MPC_INT_SET, 1);
    for (unsigned offset = 0; offset < 0x40; offset += 4) {
        assert_int_equal(get_as(bed, &normal, offset, 4), 0);
        set_as(bed, &normal, offset, 4, 0xffffffff);
    }
    assert_int_equal(get(bed, MPC_CTRL), RESET_CTRL);
    assert_int_equal(get(bed, MPC_BLK_IDX), 0); /* not moved by reads or writes */
    assert_int_equal(get(bed, MPC_BLK_LUT), 0);
    assert_int_equal(get(bed, MPC_INT_STAT), 1);
    assert_int_equal(get_as(bed, &unknown, MPC_INT_STAT, 4), 1);
}

static void lockdown(void **state)
{
    struct bed *bed = *state;

    set(bed, MPC_BLK_LUT, 1);
    set_as(bed, &secure, MPC_CTRL + 3, 1, 0x80);
    assert_int_equal(get(bed, MPC_CTRL), 0x80000100);
    set(bed, MPC_CTRL, 0);
    set(bed, MPC_INT_EN, 0);
    set(bed, MPC_BLK_IDX, 0);
    set(bed, MPC_BLK_LUT, 2);
    assert_int_equal(get(bed, MPC_CTRL), 0x80000100);
    assert_int_equal(get(bed, MPC_INT_EN), 1);
    set(bed, MPC_BLK_IDX, 0);
    assert_int_equal(get(bed, MPC_BLK_LUT), 1);
    set(bed, MPC_INT_SET, 1); /* the rest goes on */
    assert_true(bed->level);
    set(bed, MPC_INT_CLEAR, 1);
    assert_false(bed->level);
    viommu_tzmpc_reset(bed->mpc);
    assert_int_equal(get(bed, MPC_CTRL), RESET_CTRL);
}

static void blocked_accesses(void **state)
{
    struct bed *bed = *state;
    const struct viommu_bus_attrs other = {.requester = 0xbeef};

    open_block(bed, 3, true);
    assert_int_equal(peek(bed, &normal, 3 * BLOCK), 0x5a);
    assert_int_equal(peek(bed, &secure, 2 * BLOCK), 0x5a);
    assert_int_equal(bed->calls, 0);
    /* Reads are zero, writes are ignored; the first one is kept. */
    assert_int_equal(peek(bed, &other, 4 * BLOCK + 5), 0);
    assert_int_equal(viommu_space_write(bed->space, MEMORY + 3 * BLOCK - 1, "ab", 2, &normal), 0);
    assert_int_equal(bed->ram[3 * BLOCK - 1], 0x5a);
    assert_int_equal(bed->ram[3 * BLOCK], 'b');
    assert_true(bed->level);
    assert_int_equal(bed->calls, 1);
    assert_int_equal(get(bed, MPC_INT_STAT), 1);
    assert_int_equal(get(bed, MPC_INT_INFO1), MEMORY + 4 * BLOCK + 5);
    assert_int_equal(get(bed, MPC_INT_INFO2), 0x1beef);
    set(bed, MPC_INT_CLEAR, 0xfffffffe);
    assert_true(bed->level);
    set(bed, MPC_INT_CLEAR, 1);
    assert_false(bed->level);
    assert_int_equal(get(bed, MPC_INT_INFO1) | get(bed, MPC_INT_INFO2), 0);
    /* A bus error; a secure access to a non-secure block is blocked as well; no interrupt. */
    set(bed, MPC_CTRL, MPC_CTRL_SEC_RESP | MPC_CTRL_AUTOINC);
    set(bed, MPC_INT_EN, 0);
    assert_int_equal(peek(bed, &secure, 3 * BLOCK), -EIO);
    assert_false(bed->level);
    assert_int_equal(get(bed, MPC_INT_STAT), 1);
    assert_int_equal(get(bed, MPC_INT_INFO2), 0x20003);
    set(bed, MPC_INT_EN, 1);
    assert_true(bed->level);
    /* A latch that software set keeps nothing. */
    set(bed, MPC_INT_CLEAR, 1);
    set(bed, MPC_INT_SET, 1);
    assert_int_equal(peek(bed, &secure, 3 * BLOCK), -EIO);
    assert_int_equal(get(bed, MPC_INT_INFO2), 0);
}

static void gating(void **state)
{
    struct bed *bed = *state;

    set(bed, MPC_CTRL, MPC_CTRL_GATE_REQ);
    assert_int_equal(get(bed, MPC_CTRL), MPC_CTRL_GATE_REQ | MPC_CTRL_GATE_ACK);
    assert_int_equal(peek(bed, &secure, 0), -EIO);
    assert_int_equal(peek(bed, &normal, 0), -EIO);
    assert_int_equal(get(bed, MPC_INT_STAT), 0);
    set(bed, MPC_CTRL, MPC_CTRL_GATE_ACK);
    assert_int_equal(get(bed, MPC_CTRL), 0);
    assert_int_equal(peek(bed, &secure, 0), 0x5a);
}

static int cpu_load(struct bed *bed, unsigned index, unsigned block)
{
    uint64_t value;
    int error = viommu_cpu_load(bed->cpu, bed->tlb, index, MEMORY + block * BLOCK, 1,
                                VIOMMU_CPU_READ, &value);

    return error ? error : (int)value;
}

static bool cached(struct bed *bed, unsigned index, unsigned block)
{
    return viommu_tlb_find(bed->tlb, index, MEMORY + block * BLOCK, 1, VIOMMU_CPU_READ);
}

static void what_a_cpu_has_cached(void **state)
{
    struct bed *bed = *state;
    struct viommu_cpu_stats stats;
    uint32_t value;

    set(bed, MPC_CTRL, MPC_CTRL_SEC_RESP);
    set(bed, MPC_BLK_LUT, 0x0000ffff);
    assert_int_equal(viommu_cpu_begin(bed->cpu), 0);
    for (unsigned i = 0; i < 16; i++) {
        assert_int_equal(cpu_load(bed, 1, i), 0x5a);
        assert_int_equal(cpu_load(bed, 0, 16 + i), 0x5a);
    }
    assert_int_equal(viommu_tzmpc_interrupt(bed->mpc), 0);
    /* The CPU itself closes blocks 3, 5 and 6: the very next access fails. */
    value = 0x0000ff97;
    assert_int_equal(viommu_cpu_store(bed->cpu, bed->tlb, 0, REGISTERS + MPC_BLK_LUT, 4, value), 0);
    viommu_cpu_stats(bed->cpu, &stats);
    assert_int_equal(stats.entries_dropped, 3);
    for (unsigned i = 0; i < 16; i++) {
        assert_int_equal(cached(bed, 1, i), i != 3 && i != 5 && i != 6);
        assert_true(cached(bed, 0, 16 + i));
    }
    assert_int_equal(cpu_load(bed, 1, 3), -EIO);
    assert_int_equal(get(bed, MPC_INT_INFO1), MEMORY + 3 * BLOCK);
    assert_int_equal(cpu_load(bed, 0, 3), 0x5a);
    /* The same again changes nothing, and all of a word is one range. */
    assert_int_equal(viommu_cpu_store(bed->cpu, bed->tlb, 0, REGISTERS + MPC_BLK_LUT, 4, value), 0);
    viommu_cpu_stats(bed->cpu, &stats);
    assert_int_equal(stats.entries_dropped, 3);
    assert_int_equal(viommu_cpu_store(bed->cpu, bed->tlb, 0, REGISTERS + MPC_BLK_LUT, 4, ~value),
                     0);
    assert_false(cached(bed, 0, 17));
    assert_int_equal(cpu_load(bed, 0, 17), -EIO);
    assert_int_equal(cpu_load(bed, 1, 31), 0x5a);
    /* Gates, and resets, close all. */
    assert_int_equal(viommu_cpu_store(bed->cpu, bed->tlb, 0, REGISTERS + MPC_CTRL, 4,
                                      MPC_CTRL_GATE_REQ), 0);
    assert_int_equal(cpu_load(bed, 1, 31), -EIO);
    viommu_tzmpc_reset(bed->mpc);
    viommu_cpu_safe_point(bed->cpu, bed->tlb);
    assert_int_equal(cpu_load(bed, 1, 31), 0);
    viommu_cpu_end(bed->cpu);
}

/* Whoever is told asks at once: it must see the new table. */
static void on_kick(void *opaque)
{
    struct bed *bed = opaque;
    struct viommu_route route;

    bed->kicks++;
    if (!viommu_space_resolve(bed->space, MEMORY + 3 * BLOCK, &normal, &route)) {
        bed->stale |= (route.perm != 0) != bed->expected;
    }
}

static void the_table_is_written_before_anybody_is_told(void **state)
{
    struct bed *bed = *state;
    struct viommu_cpu_config config = {.kick = on_kick, .opaque = bed};

    viommu_cpu_destroy(bed->cpu);
    assert_int_equal(viommu_cpu_create(bed->bus, &config, &bed->cpu), 0);
    assert_int_equal(viommu_cpu_set_space(bed->cpu, 0, bed->space, &normal), 0);
    for (unsigned i = 0; i < 4; i++) {
        bed->expected = !(i & 1);
        open_block(bed, 3, bed->expected);
        assert_int_equal(viommu_cpu_begin(bed->cpu), 0);
        (void)viommu_cpu_fill(bed->cpu, 0, MEMORY + 3 * BLOCK);
        viommu_cpu_end(bed->cpu);
    }
    assert_int_equal(bed->kicks, 3); /* all but the first, before anything was cached */
    assert_false(bed->stale);
}

/* An alias keeps the registers; the memory is gone, and is not told of. */
static void registers_that_outlive_the_memory(void **state)
{
    struct bed *bed = *state;
    struct viommu_region *alias =
        test_alias(bed->bus, "alias", viommu_tzmpc_registers(bed->mpc), 0, MPC_SIZE);

    assert_int_equal(viommu_region_add(bed->root, alias, REGISTERS, 1), 0);
    viommu_tzmpc_destroy(bed->mpc);
    bed->mpc = NULL;
    assert_int_equal(viommu_bus_commit(bed->bus), 0);
    assert_int_equal(viommu_bus_wait(bed->bus), 0);
    assert_int_equal(peek(bed, &secure, 0), -ENXIO);
    set(bed, MPC_BLK_LUT, 0xffffffff);
    set(bed, MPC_CTRL, MPC_CTRL_GATE_REQ);
    set(bed, MPC_BLK_IDX, 0);
    assert_int_equal(get(bed, MPC_BLK_LUT), 0xffffffff);
}

static void configurations(void **state)
{
    struct bed *bed = *state;
    struct viommu_tzmpc_config config = {.size = 96, .block_bits = 5, .space = bed->behind};
    struct viommu_bus *other;
    struct viommu_tzmpc *mpc;

    assert_int_equal(viommu_tzmpc_create(bed->bus, &config, &mpc), 0);
    viommu_tzmpc_destroy(mpc);
    config.size = 95;
    assert_int_equal(viommu_tzmpc_create(bed->bus, &config, &mpc), -EINVAL);
    config.size = 0;
    assert_int_equal(viommu_tzmpc_create(bed->bus, &config, &mpc), -EINVAL);
    config.size = 1ull << 31;
    assert_int_equal(viommu_tzmpc_create(bed->bus, &config, &mpc), -EINVAL);
    config = (struct viommu_tzmpc_config){.size = 4096, .space = NULL};
    assert_int_equal(viommu_tzmpc_create(bed->bus, &config, &mpc), -EINVAL);
    config.space = bed->behind;
    config.block_bits = 21;
    assert_int_equal(viommu_tzmpc_create(bed->bus, &config, &mpc), -EINVAL);
    config.block_bits = 4;
    assert_int_equal(viommu_tzmpc_create(bed->bus, &config, &mpc), -EINVAL);
    config.block_bits = 0;
    config.address = UINT64_MAX - 4094;
    assert_int_equal(viommu_tzmpc_create(bed->bus, &config, &mpc), -EINVAL);
    config.address = 0;
    assert_int_equal(viommu_bus_create(&other), 0); /* the space is not of this one */
    assert_int_equal(viommu_tzmpc_create(other, &config, &mpc), -EINVAL);
    viommu_bus_destroy(other);
    for (unsigned n = 1; n < 20; n++) {
        int error;

        base_alloc_fail_at(n);
        error = viommu_tzmpc_create(bed->bus, &config, &mpc);
        if (!base_alloc_failed()) {
            base_alloc_fail_at(0);
            assert_int_equal(error, 0);
            assert_true(n > 4);
            viommu_tzmpc_destroy(mpc);
            break;
        }
        assert_int_equal(error, -ENOMEM);
    }
}

/* ---- saved state ---- */

static void save_and_load(void **state)
{
    static const unsigned offsets[] = {0x00, 0x18, 0x20, 0x28, 0x2c, 0x30};
    struct bed *bed = *state;
    uint32_t before[6];
    uint32_t table[3];
    void *data;
    void *again;
    size_t size;
    size_t size_again;
    char byte;

    set(bed, 0x1c, 0x80000001);
    set(bed, 0x1c, 0x12345678);
    set(bed, 0x00, 0x10);
    set(bed, 0x18, 2);
    set(bed, 0x1c, 0x2a);
    assert_int_equal(viommu_space_read(bed->space, MEMORY + BLOCK, &byte, 1, &normal), -EIO);
    assert_true(bed->level);
    for (unsigned i = 0; i < 6; i++) {
        before[i] = get(bed, offsets[i]);
    }
    assert_int_equal(viommu_tzmpc_save(bed->mpc, &data, &size), 0);

    /* Another state, and a CPU that has it cached. */
    viommu_tzmpc_reset(bed->mpc);
    assert_false(bed->level);
    assert_int_equal(viommu_cpu_begin(bed->cpu), 0);
    assert_int_equal(viommu_cpu_access(bed->cpu, 0, MEMORY, &byte, 1, VIOMMU_CPU_READ), 0);
    assert_non_null(viommu_tlb_find(bed->tlb, 0, MEMORY, 1, VIOMMU_CPU_READ));
    assert_int_equal(viommu_tzmpc_load(bed->mpc, data, size), 0);
    viommu_cpu_safe_point(bed->cpu, bed->tlb);
    assert_null(viommu_tlb_find(bed->tlb, 0, MEMORY, 1, VIOMMU_CPU_READ));
    viommu_cpu_end(bed->cpu);

    assert_true(bed->level);
    for (unsigned i = 0; i < 6; i++) {
        assert_int_equal(get(bed, offsets[i]), before[i]);
    }
    assert_int_equal(viommu_tzmpc_save(bed->mpc, &again, &size_again), 0);
    assert_int_equal(size_again, size);
    assert_memory_equal(again, data, size);
    for (unsigned i = 0; i < 3; i++) {
        set(bed, 0x18, i);
        table[i] = get(bed, 0x1c);
    }
    assert_int_equal(table[0], 0x80000001);
    assert_int_equal(table[1], 0x12345678);
    assert_int_equal(table[2], 0x2a);
    viommu_save_free(again);
    viommu_save_free(data);
}

/* The length and the checksum of a stream that was changed on purpose. */
static void mend(unsigned char *bytes, size_t size)
{
    uint32_t crc = save_crc32c(save_crc32c(0, bytes, 28), bytes + 32, size - 32);

    for (unsigned i = 0; i < 4; i++) {
        bytes[28 + i] = (unsigned char)(crc >> 8 * i);
    }
}

/* Of the state: where a byte lies, what it becomes, and the answer. */
static void what_makes_no_sense_is_refused(void **state)
{
    enum { BODY = 32 + 24, TABLE = BODY + 30 };
    static const struct {
        unsigned at;
        unsigned char value;
        int answer;
    } changes[] = {
        {BODY, 1, -EINVAL},               /* the size */
        {BODY + 8, 13, -EINVAL},          /* of a block */
        {BODY + 12, 0x80, -EBADMSG},      /* CTRL */
        {BODY + 16, 3, -EBADMSG},         /* the index */
        {BODY + 20, 2, -EBADMSG},         /* INT_STAT */
        {BODY + 21, 2, -EBADMSG},         /* INT_EN */
        {BODY + 22, 1, -EBADMSG},         /* INT_INFO1, without an interrupt */
        {BODY + 26, 1, -EBADMSG},         /* INT_INFO2 */
        {BODY + 28, 4, -EBADMSG},
        {TABLE + 24 + 8, 0x40, -EBADMSG}, /* a block behind the last */
        {TABLE, 1, -EBADMSG},             /* the registers twice */
        {TABLE, 3, -ENOTSUP},
        {32 + 8, 2, -ENOTSUP},            /* a version */
        {TABLE + 8, 2, -ENOTSUP},
    };
    struct bed *bed = *state;
    unsigned char *data;
    void *saved;
    size_t size;

    set(bed, 0x1c, 5);
    assert_int_equal(viommu_tzmpc_save(bed->mpc, &saved, &size), 0);
    data = malloc(size);
    assert_int_equal(size, TABLE + 24 + 12);
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        memcpy(data, saved, size);
        data[changes[i].at] = changes[i].value;
        assert_int_equal(viommu_tzmpc_load(bed->mpc, data, size), -EBADMSG);
        mend(data, size);
        assert_int_equal(viommu_tzmpc_load(bed->mpc, data, size), changes[i].answer);
    }
    for (size_t length = 0; length < size; length++) {
        assert_int_equal(viommu_tzmpc_load(bed->mpc, saved, length), -EBADMSG);
    }
    set(bed, 0x18, 0);
    assert_int_equal(get(bed, 0x1c), 5);
    free(data);
    viommu_save_free(saved);
}

/* Behind it lies what it is programmed by. */
static void its_own_registers(void **state)
{
    struct bed *bed = *state;
    struct viommu_tzmpc_config config = {.size = 0x1000, .address = 0x70000000};
    struct viommu_bus_stats stats;
    struct viommu_tzmpc *mpc;
    uint32_t value;

    config.space = bed->space;
    assert_int_equal(viommu_tzmpc_create(bed->bus, &config, &mpc), 0);
    assert_int_equal(viommu_region_add(bed->root, viommu_tzmpc_memory(mpc), 0x60000000, 0), 0);
    assert_int_equal(viommu_region_add(bed->root, viommu_tzmpc_registers(mpc), 0x70000000, 0), 0);
    assert_int_equal(viommu_bus_commit(bed->bus), 0);
    assert_int_equal(viommu_space_read(bed->space, 0x60000000, &value, 4, &secure), -EDEADLK);
    assert_int_equal(viommu_space_read(bed->space, 0x70000000, &value, 4, &secure), 0);
    viommu_bus_stats(bed->bus, &stats, sizeof(stats));
    assert_int_equal(stats.reentries, 1);
    viommu_tzmpc_destroy(mpc);
}

static void no_memory_to_save(void **state)
{
    struct bed *bed = *state;
    void *data;
    size_t size;

    base_alloc_fail_at(1);
    assert_int_equal(viommu_tzmpc_save(bed->mpc, &data, &size), -ENOMEM);
    base_alloc_fail_at(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(after_reset, setup, teardown),
        cmocka_unit_test_setup_teardown(sizes_and_the_index, setup, teardown),
        cmocka_unit_test_setup_teardown(non_secure_software_sees_ids, setup, teardown),
        cmocka_unit_test_setup_teardown(lockdown, setup, teardown),
        cmocka_unit_test_setup_teardown(blocked_accesses, setup, teardown),
        cmocka_unit_test_setup_teardown(gating, setup, teardown),
        cmocka_unit_test_setup_teardown(its_own_registers, setup, teardown),
        cmocka_unit_test_setup_teardown(what_a_cpu_has_cached, setup, teardown),
        cmocka_unit_test_setup_teardown(the_table_is_written_before_anybody_is_told, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(save_and_load, setup, teardown),
        cmocka_unit_test_setup_teardown(what_makes_no_sense_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(no_memory_to_save, setup, teardown),
        cmocka_unit_test_setup_teardown(registers_that_outlive_the_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(configurations, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
