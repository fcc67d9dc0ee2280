/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The TrustZone MPC: registers, the look-up table, blocked accesses.
 *
 * The table has a word for 32 blocks, bit n for block 32 * word + n: 1 is non-secure. `translate`
 * reads it, and CTRL, without a lock, as single atomic loads. A write of either stores first, then
 * tells who has cached what it changed, all under the lock: so a CPU that asks again after it was
 * told sees the new state.
 *
 * Locking: `lock` guards all registers; the table and CTRL are written under it and read by
 * anybody. `interrupt` is called without it.
 */
#include "tzmpc/spec.h"

#include "base/alloc.h"
#include "save/stream.h"
#include "space/space.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <viommu/tzmpc.h>

struct viommu_tzmpc {
    struct viommu_tzmpc_config config;
    struct viommu_region *memory; /* NULL when it is released; the registers may live longer */
    struct viommu_region *registers;
    _Atomic unsigned regions; /* not released yet */
    uint32_t words;

    pthread_mutex_t lock;
    _Atomic uint32_t ctrl; /* without GATE_ACK, which follows GATE_REQ */
    uint32_t index;
    bool int_stat;
    bool int_en;
    uint32_t info1;
    uint32_t info2;
    bool level; /* of the interrupt line, when nobody has the lock */
    _Atomic uint32_t *table;
};

/* ---- the memory ---- */

static uint64_t block_size(const struct viommu_tzmpc *mpc)
{
    return UINT64_C(1) << mpc->config.block_bits;
}

static bool block_non_secure(const struct viommu_tzmpc *mpc, uint64_t address)
{
    uint64_t block = address >> mpc->config.block_bits;
    uint32_t word = atomic_load_explicit(&mpc->table[block / 32], memory_order_acquire);

    return word >> block % 32 & 1;
}

static bool gated(const struct viommu_tzmpc *mpc)
{
    return atomic_load_explicit(&mpc->ctrl, memory_order_acquire) & MPC_CTRL_GATE_REQ;
}

static bool allowed(const struct viommu_tzmpc *mpc, uint64_t address, unsigned index)
{
    return !gated(mpc) && block_non_secure(mpc, address) == (index == VIOMMU_TZMPC_NON_SECURE);
}

static unsigned memory_index(void *opaque, const struct viommu_bus_attrs *attrs)
{
    (void)opaque;
    return attrs->unspecified || attrs->secure ? VIOMMU_TZMPC_SECURE : VIOMMU_TZMPC_NON_SECURE;
}

static void memory_translate(void *opaque, uint64_t address, unsigned index,
                             struct viommu_hop *hop)
{
    const struct viommu_tzmpc *mpc = opaque;

    hop->page = block_size(mpc);
    if (allowed(mpc, address, index)) {
        hop->space = mpc->config.space;
        hop->address = mpc->config.address + address;
        hop->perm = VIOMMU_READ | VIOMMU_WRITE;
    }
}

/*
 * Releases the lock, then tells who is interested of the line, when its level has changed. It is
 * compared before the lock is released: whoever clears an interrupt on another thread at once may
 * make the two calls change places, but none is lost.
 */
static void unlock(struct viommu_tzmpc *mpc)
{
    bool level = mpc->int_stat && mpc->int_en;
    bool changed = level != mpc->level;

    mpc->level = level;
    pthread_mutex_unlock(&mpc->lock);
    if (changed && mpc->config.interrupt) {
        mpc->config.interrupt(mpc->config.opaque, level);
    }
}

/* The first blocked access is kept until it is cleared; under the lock. */
static void latch(struct viommu_tzmpc *mpc, uint64_t address, unsigned index, uint16_t requester)
{
    if (mpc->int_stat) {
        return;
    }
    mpc->int_stat = true;
    mpc->info1 = mpc->config.base + (uint32_t)address;
    mpc->info2 = requester;
    mpc->info2 |= index == VIOMMU_TZMPC_NON_SECURE ? MPC_INFO2_HNONSEC : 0;
    mpc->info2 |= block_non_secure(mpc, address) ? MPC_INFO2_CFG_NS : 0;
}

static int memory_refused(void *opaque, uint64_t address, uint32_t perm, unsigned index,
                          const struct viommu_bus_attrs *attrs)
{
    struct viommu_tzmpc *mpc = opaque;
    uint32_t ctrl;
    int error;

    (void)perm;
    pthread_mutex_lock(&mpc->lock);
    ctrl = atomic_load_explicit(&mpc->ctrl, memory_order_relaxed);
    if (ctrl & MPC_CTRL_GATE_REQ) {
        error = -EIO; /* not blocked, only held off: no interrupt */
    } else if (allowed(mpc, address, index)) {
        error = -EAGAIN; /* the table was written meanwhile */
    } else {
        latch(mpc, address, index, attrs->requester);
        error = ctrl & MPC_CTRL_SEC_RESP ? -EIO : 0;
    }
    unlock(mpc);
    return error;
}

/* ---- what changes translations; under the lock ---- */

static void tell(struct viommu_tzmpc *mpc, uint64_t first, uint64_t last)
{
    if (mpc->memory) {
        viommu_region_iommu_changed(mpc->memory, VIOMMU_INDEX_ALL, first, last);
    }
}

static void ctrl_set(struct viommu_tzmpc *mpc, uint32_t value)
{
    uint32_t old = atomic_load_explicit(&mpc->ctrl, memory_order_relaxed);

    value &= MPC_CTRL_WRITABLE;
    atomic_store_explicit(&mpc->ctrl, value, memory_order_release);
    if ((old ^ value) & MPC_CTRL_GATE_REQ) {
        tell(mpc, 0, mpc->config.size - 1);
    }
}

/* Bits of a word of the table that stand for blocks. */
static uint32_t word_mask(const struct viommu_tzmpc *mpc, uint32_t word)
{
    uint64_t blocks = (mpc->config.size >> mpc->config.block_bits) - (uint64_t)word * 32;

    return blocks < 32 ? (1u << blocks) - 1 : UINT32_MAX;
}

/* Each run of blocks that changed is told alone: their neighbours stay cached. */
static void word_set(struct viommu_tzmpc *mpc, uint32_t word, uint32_t value)
{
    uint32_t old = atomic_load_explicit(&mpc->table[word], memory_order_relaxed);
    uint32_t differ;

    value &= word_mask(mpc, word);
    differ = old ^ value;
    atomic_store_explicit(&mpc->table[word], value, memory_order_release);
    for (unsigned first = 0; first < 32; first++) {
        unsigned last = first;

        if (!(differ >> first & 1)) {
            continue;
        }
        while (last < 31 && differ >> (last + 1) & 1) {
            last++;
        }
        tell(mpc, ((uint64_t)word * 32 + first) << mpc->config.block_bits,
             (((uint64_t)word * 32 + last + 1) << mpc->config.block_bits) - 1);
        first = last;
    }
}

/* ---- registers; under the lock ---- */

static uint32_t id_register(uint64_t offset)
{
    static const uint8_t ids[] = {0x04, 0x00, 0x00, 0x00, 0x60, 0xb8,
                                  0x1b, 0x00, 0x0d, 0xf0, 0x05, 0xb1};

    return ids[(offset - MPC_ID_FIRST) / 4];
}

static uint32_t ctrl_get(const struct viommu_tzmpc *mpc)
{
    uint32_t ctrl = atomic_load_explicit(&mpc->ctrl, memory_order_relaxed);

    return ctrl | (ctrl & MPC_CTRL_GATE_REQ ? MPC_CTRL_GATE_ACK : 0);
}

static uint32_t table_get(const struct viommu_tzmpc *mpc)
{
    return atomic_load_explicit(&mpc->table[mpc->index], memory_order_relaxed);
}

/* What a whole register reads as. */
static uint32_t register_get(const struct viommu_tzmpc *mpc, uint64_t offset)
{
    switch (offset) {
    case MPC_CTRL:
        return ctrl_get(mpc);
    case MPC_BLK_MAX:
        return mpc->words - 1;
    case MPC_BLK_CFG:
        return mpc->config.block_bits - MPC_BLOCK_BITS_MIN;
    case MPC_BLK_IDX:
        return mpc->index;
    case MPC_BLK_LUT:
        return table_get(mpc);
    case MPC_INT_STAT:
        return mpc->int_stat;
    case MPC_INT_EN:
        return mpc->int_en;
    case MPC_INT_INFO1:
        return mpc->info1;
    case MPC_INT_INFO2:
        return mpc->info2;
    default:
        return offset >= MPC_ID_FIRST ? id_register(offset) : 0;
    }
}

/* Only an access to all of BLK_LUT moves the index. */
static void index_advance(struct viommu_tzmpc *mpc, unsigned size)
{
    if (size == 4 && atomic_load_explicit(&mpc->ctrl, memory_order_relaxed) & MPC_CTRL_AUTOINC) {
        mpc->index = mpc->index + 1 < mpc->words ? mpc->index + 1 : 0;
    }
}

static bool locked_down(const struct viommu_tzmpc *mpc, uint64_t offset)
{
    return atomic_load_explicit(&mpc->ctrl, memory_order_relaxed) & MPC_CTRL_LOCKDOWN &&
           (offset == MPC_CTRL || offset == MPC_BLK_LUT || offset == MPC_INT_EN);
}

static void register_set(struct viommu_tzmpc *mpc, uint64_t offset, uint32_t value)
{
    switch (offset) {
    case MPC_CTRL:
        ctrl_set(mpc, value);
        break;
    case MPC_BLK_IDX:
        mpc->index = value % mpc->words;
        break;
    case MPC_BLK_LUT:
        word_set(mpc, mpc->index, value);
        break;
    case MPC_INT_CLEAR:
        if (value & MPC_IRQ) {
            mpc->int_stat = false;
            mpc->info1 = 0;
            mpc->info2 = 0;
        }
        break;
    case MPC_INT_EN:
        mpc->int_en = value & MPC_IRQ;
        break;
    case MPC_INT_SET:
        mpc->int_stat |= value & MPC_IRQ;
        break;
    default:
        break;
    }
}

/* Non-secure software sees what the device is, and nothing else. */
static bool visible(uint64_t offset, const struct viommu_bus_attrs *attrs)
{
    return attrs->secure || attrs->unspecified || offset >= MPC_ID_FIRST;
}

static int registers_read(void *opaque, uint64_t offset, unsigned size,
                          const struct viommu_bus_attrs *attrs, uint64_t *value)
{
    struct viommu_tzmpc *mpc = opaque;
    uint64_t place = offset & ~UINT64_C(3);

    if (!visible(place, attrs)) {
        *value = 0;
        return 0;
    }
    pthread_mutex_lock(&mpc->lock);
    *value = register_get(mpc, place) >> 8 * (offset & 3);
    *value &= UINT64_MAX >> (64 - 8 * size);
    if (place == MPC_BLK_LUT) {
        index_advance(mpc, size);
    }
    pthread_mutex_unlock(&mpc->lock);
    return 0;
}

/* A part of a register: the rest of it stays, where it is kept at all. */
static uint32_t merge(const struct viommu_tzmpc *mpc, uint64_t offset, unsigned size,
                      uint64_t value)
{
    uint64_t place = offset & ~UINT64_C(3);
    uint32_t mask = (uint32_t)(UINT64_MAX >> (64 - 8 * size)) << 8 * (offset & 3);
    uint32_t old = place == MPC_INT_CLEAR || place == MPC_INT_SET ? 0 : register_get(mpc, place);

    return (old & ~mask) | ((uint32_t)value << 8 * (offset & 3) & mask);
}

static int registers_write(void *opaque, uint64_t offset, unsigned size,
                           const struct viommu_bus_attrs *attrs, uint64_t value)
{
    struct viommu_tzmpc *mpc = opaque;
    uint64_t place = offset & ~UINT64_C(3);

    if (!visible(place, attrs)) {
        return 0;
    }
    pthread_mutex_lock(&mpc->lock);
    if (!locked_down(mpc, place)) {
        register_set(mpc, place, merge(mpc, offset, size, value));
    }
    if (place == MPC_BLK_LUT) {
        index_advance(mpc, size);
    }
    unlock(mpc);
    return 0;
}

/* ---- life ---- */

static const struct viommu_region_iommu_ops memory_ops = {
    .index_count = 2,
    .index_of = memory_index,
    .translate = memory_translate,
    .refused = memory_refused,
};

static const struct viommu_region_ops register_ops = {
    .read = registers_read,
    .write = registers_write,
    .max_size = 4,
};

static void mpc_free(struct viommu_tzmpc *mpc)
{
    pthread_mutex_destroy(&mpc->lock);
    base_free(mpc->table);
    base_free(mpc);
}

static void on_released(void *opaque)
{
    struct viommu_tzmpc *mpc = opaque;

    if (atomic_fetch_sub(&mpc->regions, 1) == 1) {
        mpc_free(mpc);
    }
}

/* Behind the lock nobody tells of it any more, and it may be freed. */
static void on_memory_released(void *opaque)
{
    struct viommu_tzmpc *mpc = opaque;

    pthread_mutex_lock(&mpc->lock);
    mpc->memory = NULL;
    pthread_mutex_unlock(&mpc->lock);
    on_released(mpc);
}

static bool complete_config(struct viommu_tzmpc_config *config)
{
    if (!config->block_bits) {
        config->block_bits = 12;
    }
    return config->space && config->block_bits >= MPC_BLOCK_BITS_MIN &&
           config->block_bits <= MPC_BLOCK_BITS_MAX && config->size &&
           !(config->size & ((UINT64_C(1) << config->block_bits) - 1)) &&
           config->size >> config->block_bits <= (uint64_t)MPC_WORDS_MAX * 32 &&
           config->size - 1 <= UINT64_MAX - config->address;
}

static int make_regions(struct viommu_bus *bus, struct viommu_tzmpc *mpc)
{
    struct viommu_region_config memory = {
        .name = mpc->config.name,
        .owner = mpc,
        .kind = VIOMMU_REGION_IOMMU,
        .last = mpc->config.size - 1,
        .iommu = &memory_ops,
        .opaque = mpc,
        .released = on_memory_released,
    };
    struct viommu_region_config registers = {
        .name = mpc->config.name,
        .owner = mpc,
        .kind = VIOMMU_REGION_MMIO,
        .last = MPC_SIZE - 1,
        .ops = &register_ops,
        .opaque = mpc,
        .released = on_released,
    };
    int error = viommu_region_create(bus, &memory, &mpc->memory);

    if (error) {
        return error;
    }
    mpc->regions = 1;
    error = viommu_region_create(bus, &registers, &mpc->registers);
    mpc->regions += !error;
    return error;
}

int viommu_tzmpc_create(struct viommu_bus *bus, const struct viommu_tzmpc_config *config,
                        struct viommu_tzmpc **out)
{
    struct viommu_tzmpc_config complete = *config;
    struct viommu_tzmpc *mpc;
    int error;

    if (!complete_config(&complete) || space_bus(complete.space) != bus) {
        return -EINVAL;
    }
    mpc = base_alloc(sizeof(*mpc));
    if (!mpc) {
        return -ENOMEM;
    }
    mpc->config = complete;
    mpc->words = (uint32_t)(((complete.size >> complete.block_bits) + 31) / 32);
    pthread_mutex_init(&mpc->lock, NULL);
    mpc->table = base_alloc_array(mpc->words, sizeof(mpc->table[0]));
    error = mpc->table ? make_regions(bus, mpc) : -ENOMEM;
    if (error && mpc->memory) {
        viommu_region_destroy(mpc->memory); /* which frees the rest */
        return error;
    }
    if (error) {
        mpc_free(mpc);
        return error;
    }
    atomic_init(&mpc->ctrl, MPC_CTRL_RESET);
    mpc->int_en = true;
    *out = mpc;
    return 0;
}

void viommu_tzmpc_destroy(struct viommu_tzmpc *mpc)
{
    struct viommu_region *registers;

    if (mpc) {
        registers = mpc->registers;
        viommu_region_destroy(mpc->memory);
        viommu_region_destroy(registers);
    }
}

struct viommu_region *viommu_tzmpc_memory(struct viommu_tzmpc *mpc)
{
    return mpc->memory;
}

struct viommu_region *viommu_tzmpc_registers(struct viommu_tzmpc *mpc)
{
    return mpc->registers;
}

void viommu_tzmpc_reset(struct viommu_tzmpc *mpc)
{
    pthread_mutex_lock(&mpc->lock);
    ctrl_set(mpc, MPC_CTRL_RESET);
    for (uint32_t i = 0; i < mpc->words; i++) {
        atomic_store_explicit(&mpc->table[i], 0, memory_order_release);
    }
    tell(mpc, 0, mpc->config.size - 1);
    mpc->index = 0;
    mpc->int_stat = false;
    mpc->int_en = true;
    mpc->info1 = 0;
    mpc->info2 = 0;
    unlock(mpc);
}

bool viommu_tzmpc_interrupt(struct viommu_tzmpc *mpc)
{
    bool level;

    pthread_mutex_lock(&mpc->lock);
    level = mpc->level;
    pthread_mutex_unlock(&mpc->lock);
    return level;
}

/* ---- saved state: a section of registers, and one of the table ---- */

enum {
    KIND_REGISTERS = 1,
    KIND_TABLE,
};

#define STATE_VERSION 1u /* of both */

/* What was read of a state, and checked. */
struct loaded {
    uint64_t size;
    uint32_t block_bits;
    uint32_t ctrl;
    uint32_t index;
    bool int_stat;
    bool int_en;
    uint32_t info1;
    uint32_t info2;
    struct save_section table; /* at its first word */
};

int viommu_tzmpc_save(struct viommu_tzmpc *mpc, void **data, size_t *size)
{
    struct save_writer writer;

    save_writer_init(&writer, SAVE_TZMPC);
    pthread_mutex_lock(&mpc->lock);
    save_begin(&writer, KIND_REGISTERS, 0, STATE_VERSION, 0);
    save_put64(&writer, mpc->config.size);
    save_put32(&writer, mpc->config.block_bits);
    save_put32(&writer, atomic_load_explicit(&mpc->ctrl, memory_order_relaxed));
    save_put32(&writer, mpc->index);
    save_put8(&writer, mpc->int_stat);
    save_put8(&writer, mpc->int_en);
    save_put32(&writer, mpc->info1);
    save_put32(&writer, mpc->info2);
    save_end(&writer);
    save_begin(&writer, KIND_TABLE, 0, STATE_VERSION, 0);
    for (uint32_t i = 0; i < mpc->words; i++) {
        save_put32(&writer, atomic_load_explicit(&mpc->table[i], memory_order_relaxed));
    }
    save_end(&writer);
    pthread_mutex_unlock(&mpc->lock);
    return save_finish(&writer, data, size);
}

static bool get_flag(struct save_section *section)
{
    uint8_t value = save_get8(section);

    if (value > 1) {
        save_spoil(section);
    }
    return value;
}

/* The next section, which is of this kind. */
static int open_section(struct save_reader *reader, uint32_t kind, struct save_section *section)
{
    if (!save_next(reader, section)) {
        return -EBADMSG;
    }
    if (section->kind != kind) {
        return section->kind > KIND_TABLE && save_unknown(section) ? -ENOTSUP : -EBADMSG;
    }
    return save_accept(section, STATE_VERSION);
}

static int registers_load(struct save_reader *reader, struct loaded *loaded)
{
    struct save_section section;
    int error = open_section(reader, KIND_REGISTERS, &section);

    if (error) {
        return error;
    }
    loaded->size = save_get64(&section);
    loaded->block_bits = save_get32(&section);
    loaded->ctrl = save_get32(&section);
    loaded->index = save_get32(&section);
    loaded->int_stat = get_flag(&section);
    loaded->int_en = get_flag(&section);
    loaded->info1 = save_get32(&section);
    loaded->info2 = save_get32(&section);
    /* What no software can bring about. */
    if (loaded->ctrl & ~MPC_CTRL_WRITABLE || loaded->info2 & ~MPC_INFO2_ALL ||
        (!loaded->int_stat && (loaded->info1 || loaded->info2))) {
        save_spoil(&section);
    }
    return save_close(&section);
}

static int table_load(const struct viommu_tzmpc *mpc, struct save_reader *reader,
                      struct loaded *loaded)
{
    struct save_section section;
    int error = open_section(reader, KIND_TABLE, &section);

    if (error) {
        return error;
    }
    loaded->table = section;
    for (uint32_t i = 0; i < mpc->words && !section.error; i++) {
        if (save_get32(&section) & ~word_mask(mpc, i)) {
            save_spoil(&section);
        }
    }
    return save_close(&section);
}

static int state_load(const struct viommu_tzmpc *mpc, const void *data, size_t size,
                      struct loaded *loaded)
{
    struct save_reader reader;
    struct save_section more;
    int error = save_open(&reader, SAVE_TZMPC, data, size);

    if (!error) {
        error = registers_load(&reader, loaded);
    }
    if (!error &&
        (loaded->size != mpc->config.size || loaded->block_bits != mpc->config.block_bits)) {
        error = -EINVAL;
    }
    if (!error && loaded->index >= mpc->words) {
        error = -EBADMSG;
    }
    if (!error) {
        error = table_load(mpc, &reader, loaded);
    }
    while (!error && save_next(&reader, &more)) {
        error = more.kind <= KIND_TABLE ? -EBADMSG : save_unknown(&more);
    }
    return error;
}

int viommu_tzmpc_load(struct viommu_tzmpc *mpc, const void *data, size_t size)
{
    struct loaded loaded;
    int error = state_load(mpc, data, size, &loaded);

    if (error) {
        return error;
    }
    pthread_mutex_lock(&mpc->lock);
    atomic_store_explicit(&mpc->ctrl, loaded.ctrl, memory_order_release);
    for (uint32_t i = 0; i < mpc->words; i++) {
        atomic_store_explicit(&mpc->table[i], save_get32(&loaded.table), memory_order_release);
    }
    tell(mpc, 0, mpc->config.size - 1);
    mpc->index = loaded.index;
    mpc->int_stat = loaded.int_stat;
    mpc->int_en = loaded.int_en;
    mpc->info1 = loaded.info1;
    mpc->info2 = loaded.info2;
    unlock(mpc);
    return 0;
}
