/* SPDX-License-Identifier: BSD-2-Clause */
/* CPUs with their soft TLBs, and TrustZone MPCs; see space.h. */
#include "space.h"

#include <stdlib.h>

static struct bus_thing *arg_cpu(struct run *run)
{
    struct bus_thing *thing = arg_bus_thing(run, "name");

    if (thing && !thing->cpu) {
        run_error(run, thing->name, "this is no CPU");
        return NULL;
    }
    return thing;
}

static struct bus_thing *arg_mpc(struct run *run)
{
    struct bus_thing *thing = arg_bus_thing(run, "name");

    if (thing && !thing->mpc) {
        run_error(run, thing->name, "this is no MPC");
        return NULL;
    }
    return thing;
}

/* ---- MPCs ---- */

static void on_interrupt(void *opaque, bool level)
{
    struct bus_thing *thing = opaque;

    thing->level = level;
    thing->calls++;
}

static void do_mpc(struct run *run)
{
    struct viommu_tzmpc_config config = {.interrupt = on_interrupt};
    struct bus_thing *into = arg_bus_space(run, "into");
    struct bus_thing *thing = into ? bus_thing_add(run, "") : NULL;
    struct bus_thing *registers = thing ? bus_thing_add(run, ".registers") : NULL;
    uint64_t block = 4096;
    uint64_t base = 0;
    int error;

    if (!registers || !arg_number(run, "size", &config.size) ||
        !arg_number(run, "at", &config.address) || !arg_number(run, "block", &block) ||
        !arg_number_max(run, "base", UINT32_MAX, &base)) {
        return;
    }
    if (!block || block & (block - 1)) {
        run_error(run, NULL, "block= is a power of two");
        return;
    }
    config.name = thing->name;
    config.block_bits = (unsigned)__builtin_ctzll(block);
    config.space = into->space;
    config.base = (uint32_t)base;
    config.opaque = thing;
    error = config.block_bits ? viommu_tzmpc_create(thing->room->bus, &config, &thing->mpc)
                              : errno_of_word("invalid");
    result_errno(&run->result, error);
    if (error) {
        bus_thing_forget(registers);
        bus_thing_forget(thing);
        return;
    }
    thing->region = viommu_tzmpc_memory(thing->mpc);
    registers->region = viommu_tzmpc_registers(thing->mpc);
    registers->part = true;
    thing->into = registers; /* it goes with it */
}

static void do_mpc_interrupt(struct run *run)
{
    struct bus_thing *thing = arg_mpc(run);

    if (thing) {
        result_switch(&run->result, "level", viommu_tzmpc_interrupt(thing->mpc));
        result_decimal(&run->result, "calls", thing->calls);
        thing->calls = 0;
    }
}

static void do_mpc_reset(struct run *run)
{
    struct bus_thing *thing = arg_mpc(run);

    if (thing) {
        viommu_tzmpc_reset(thing->mpc);
    }
}

static void do_mpc_destroy(struct run *run)
{
    struct bus_thing *thing = arg_mpc(run);

    if (thing) {
        viommu_tzmpc_destroy(thing->mpc);
        bus_thing_forget(thing->into);
        bus_thing_forget(thing);
    }
}

/* ---- CPUs ---- */

static void do_cpu(struct run *run)
{
    struct viommu_cpu_config config = {0};
    struct bus_thing *thing = bus_thing_add(run, "");
    uint64_t indexes = 0;
    uint64_t page = 4096;
    uint64_t entries = 0;
    uint64_t notifiers = 0;
    int error;

    if (!thing || !arg_number_max(run, "indexes", UINT32_MAX, &indexes) ||
        !arg_number_max(run, "page", UINT32_MAX, &page) ||
        !arg_number_max(run, "entries", UINT32_MAX, &entries) ||
        !arg_number_max(run, "notifiers", UINT32_MAX, &notifiers)) {
        return;
    }
    if (!page || page & (page - 1)) {
        run_error(run, NULL, "page= is a power of two");
        return;
    }
    config.indexes = (unsigned)indexes;
    config.page_bits = (unsigned)__builtin_ctzll(page);
    config.entries = (unsigned)entries;
    config.notifiers = (unsigned)notifiers;
    error = viommu_cpu_create(thing->room->bus, &config, &thing->cpu);
    result_errno(&run->result, error);
    if (error) {
        bus_thing_forget(thing);
    }
}

static void do_cpu_look(struct run *run)
{
    struct bus_thing *thing = arg_cpu(run);
    struct bus_thing *space = thing ? arg_bus_space(run, "space") : NULL;
    struct viommu_bus_attrs attrs;
    uint64_t index = 0;

    if (space && arg_number_max(run, "index", UINT32_MAX, &index) &&
        arg_bus_attributes(run, &attrs)) {
        result_errno(&run->result,
                     viommu_cpu_set_space(thing->cpu, (unsigned)index, space->space, &attrs));
    }
}

static void do_cpu_begin(struct run *run)
{
    struct bus_thing *thing = arg_cpu(run);
    int error;

    if (thing) {
        error = viommu_cpu_begin(thing->cpu);
        thing->begun += !error;
        result_errno(&run->result, error);
    }
}

static void do_cpu_end(struct run *run)
{
    struct bus_thing *thing = arg_cpu(run);

    if (thing && !thing->begun) {
        run_error(run, thing->name, "it does not run");
    } else if (thing) {
        thing->begun--;
        viommu_cpu_end(thing->cpu);
    }
}

static void do_cpu_safe_point(struct run *run)
{
    struct bus_thing *thing = arg_cpu(run);

    if (thing) {
        viommu_cpu_safe_point(thing->cpu, viommu_cpu_tlb(thing->cpu));
    }
}

static void do_cpu_destroy(struct run *run)
{
    struct bus_thing *thing = arg_cpu(run);

    if (thing && thing->begun) {
        run_error(run, thing->name, "it runs");
    } else if (thing) {
        viommu_cpu_destroy(thing->cpu);
        bus_thing_forget(thing);
    }
}

/* index= and at; and that the CPU can be used. */
static bool arg_place(struct run *run, struct bus_thing *thing, unsigned *index, uint64_t *at)
{
    uint64_t number = 0;

    if (!thing || !arg_number(run, "at", at) ||
        !arg_number_max(run, "index", VIOMMU_CPU_INDEXES_MAX - 1, &number)) {
        return false;
    }
    *index = (unsigned)number;
    if (!viommu_cpu_tlb(thing->cpu)->parts[*index].entries) {
        run_error(run, thing->name, "it has no such MMU index");
        return false;
    }
    return true;
}

static void do_cpu_read(struct run *run)
{
    struct bus_thing *thing = arg_cpu(run);
    enum viommu_cpu_use use = arg_flag(run, "fetch") ? VIOMMU_CPU_FETCH : VIOMMU_CPU_READ;
    uint64_t length = 1;
    unsigned index;
    uint64_t at = 0;
    uint8_t *bytes;
    uint64_t value = 0;
    int error;

    if (!arg_place(run, thing, &index, &at) || !arg_number_max(run, "len", 1 << 20, &length)) {
        return;
    }
    bytes = run_alloc(length);
    if (length == 1 || length == 2 || length == 4 || length == 8) {
        error = viommu_cpu_load(thing->cpu, viommu_cpu_tlb(thing->cpu), index, at,
                                (unsigned)length, use, &value);
        for (unsigned i = 0; i < length; i++) {
            bytes[i] = (uint8_t)(value >> 8 * i);
        }
    } else {
        error = viommu_cpu_access(thing->cpu, index, at, bytes, length, use);
    }
    result_errno(&run->result, error);
    if (!error) {
        memory_result_bytes(run, bytes, length);
    }
    free(bytes);
}

static void do_cpu_write(struct run *run)
{
    struct bus_thing *thing = arg_cpu(run);
    unsigned index;
    uint64_t at = 0;
    uint8_t *bytes;
    size_t size;
    uint64_t value = 0;
    int error;

    if (!arg_place(run, thing, &index, &at) || !arg_data(run, &bytes, &size)) {
        return;
    }
    if (size == 1 || size == 2 || size == 4 || size == 8) {
        for (unsigned i = 0; i < size; i++) {
            value |= (uint64_t)bytes[i] << 8 * i;
        }
        error = viommu_cpu_store(thing->cpu, viommu_cpu_tlb(thing->cpu), index, at, (unsigned)size,
                                 value);
    } else {
        error = viommu_cpu_access(thing->cpu, index, at, bytes, size, VIOMMU_CPU_WRITE);
    }
    result_errno(&run->result, error);
    free(bytes);
}

static void do_cpu_fill(struct run *run)
{
    struct bus_thing *thing = arg_cpu(run);
    unsigned index;
    uint64_t at = 0;
    int perm;

    if (!arg_place(run, thing, &index, &at)) {
        return;
    }
    perm = viommu_cpu_fill(thing->cpu, index, at);
    result_errno(&run->result, perm < 0 ? perm : 0);
    if (perm >= 0) {
        bus_result_perm(run, (uint32_t)perm);
    }
}

static void do_cpu_cached(struct run *run)
{
    struct bus_thing *thing = arg_cpu(run);
    const struct viommu_cpu_tlb *tlb;
    unsigned index;
    uint64_t at = 0;
    uint32_t perm;

    if (!arg_place(run, thing, &index, &at)) {
        return;
    }
    tlb = viommu_cpu_tlb(thing->cpu);
    perm = viommu_tlb_find(tlb, index, at, 1, VIOMMU_CPU_READ) ? VIOMMU_READ : 0;
    perm |= viommu_tlb_find(tlb, index, at, 1, VIOMMU_CPU_WRITE) ? VIOMMU_WRITE : 0;
    perm |= viommu_tlb_find(tlb, index, at, 1, VIOMMU_CPU_FETCH) ? VIOMMU_EXEC : 0;
    bus_result_perm(run, perm);
}

static void do_cpu_flush(struct run *run)
{
    struct bus_thing *thing = arg_cpu(run);

    if (thing) {
        viommu_cpu_flush(thing->cpu);
    }
}

static void do_cpu_stats(struct run *run)
{
    struct bus_thing *thing = arg_cpu(run);
    struct viommu_cpu_stats stats;

    if (!thing) {
        return;
    }
    viommu_cpu_stats(thing->cpu, &stats);
    result_decimal(&run->result, "fills", stats.fills);
    result_decimal(&run->result, "uncached", stats.uncached);
    result_decimal(&run->result, "dropped", stats.entries_dropped);
    result_decimal(&run->result, "ranged", stats.ranged_flushes);
    result_decimal(&run->result, "full", stats.full_flushes);
    result_decimal(&run->result, "armed", stats.armed);
    result_word(&run->result, "asked", viommu_cpu_tlb(thing->cpu)->asked ? "yes" : "no");
}

const struct command cpu_commands[] = {
    {"mpc", "name size into [at=] [block=] [base=]",
     "Makes a TrustZone MPC: the regions NAME, in front of a space, and NAME.registers.", do_mpc},
    {"mpc interrupt", "name", "Its line, and how often it changed since the last time.",
     do_mpc_interrupt},
    {"mpc reset", "name", "Resets it.", do_mpc_reset},
    {"mpc destroy", "name", "Gives it back, with its regions.", do_mpc_destroy},
    {"cpu", "name [indexes=] [page=] [entries=] [notifiers=]", "Makes a CPU.", do_cpu},
    {"cpu look", "name space [index=] " BUS_ATTRIBUTES, "What an MMU index looks at, and as whom.",
     do_cpu_look},
    {"cpu begin", "name", "It runs.", do_cpu_begin},
    {"cpu end", "name", "It stops.", do_cpu_end},
    {"cpu safe-point", "name", "It comes to a safe point.", do_cpu_safe_point},
    {"cpu destroy", "name", "Destroys it.", do_cpu_destroy},
    {"cpu read", "name at [len=] [index=] [fetch!]", "Reads, or fetches.", do_cpu_read},
    {"cpu write", "name at [index=] " DATA_ARGUMENTS, "Writes.", do_cpu_write},
    {"cpu fill", "name at [index=]", "Fills its TLB.", do_cpu_fill},
    {"cpu cached", "name at [index=]", "What its TLB allows for an address.", do_cpu_cached},
    {"cpu flush", "name", "Drops all entries.", do_cpu_flush},
    {"cpu stats", "name", "What its TLB did.", do_cpu_stats},
    {0},
};
