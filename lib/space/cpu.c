/* SPDX-License-Identifier: BSD-2-Clause */
/* A CPU: how it runs, what it is asked, and what its TLB does not answer; see private.h. */
#include "space/private.h"

#include "base/alloc.h"

#include <errno.h>
#include <string.h>

static bool complete_config(struct viommu_cpu_config *config)
{
    config->indexes = config->indexes ? config->indexes : 1;
    config->page_bits = config->page_bits ? config->page_bits : 12;
    config->entries = config->entries ? config->entries : 1024;
    config->notifiers = config->notifiers ? config->notifiers : 64;
    return config->indexes <= VIOMMU_CPU_INDEXES_MAX && config->page_bits >= 10 &&
           config->page_bits <= 16 && config->entries >= 16 && config->entries <= 1u << 20 &&
           !(config->entries & (config->entries - 1)) && config->notifiers <= 4096;
}

static void cpu_free(struct viommu_cpu *cpu)
{
    pairs_fini(cpu);
    tlb_fini(cpu);
    base_free(cpu);
}

int viommu_cpu_create(struct viommu_bus *bus, const struct viommu_cpu_config *config,
                      struct viommu_cpu **out)
{
    struct viommu_cpu_config complete = *config;
    struct viommu_cpu *cpu;
    int error;

    if (!complete_config(&complete)) {
        return -EINVAL;
    }
    cpu = base_alloc(sizeof(*cpu));
    if (!cpu) {
        return -ENOMEM;
    }
    cpu->bus = bus;
    cpu->config = complete;
    error = tlb_init(cpu);
    if (!error) {
        error = pairs_init(cpu);
    }
    if (error) {
        cpu_free(cpu);
        return error;
    }
    pthread_mutex_lock(&bus->told);
    cpu->next = bus->cpus;
    bus->cpus = cpu;
    pthread_mutex_unlock(&bus->told);
    *out = cpu;
    return 0;
}

static void leave_running(struct viommu_cpu *cpu)
{
    struct viommu_cpu **place = &space_thread.running;

    while (*place && *place != cpu) {
        place = &(*place)->running_next;
    }
    if (*place) {
        *place = cpu->running_next;
    }
}

void viommu_cpu_destroy(struct viommu_cpu *cpu)
{
    struct viommu_cpu **place;

    if (!cpu) {
        return;
    }
    leave_running(cpu);
    pthread_mutex_lock(&cpu->bus->told);
    place = &cpu->bus->cpus;
    while (*place != cpu) {
        place = &(*place)->next;
    }
    *place = cpu->next;
    pthread_mutex_unlock(&cpu->bus->told);
    cpu_free(cpu);
}

const struct viommu_cpu_tlb *viommu_cpu_tlb(const struct viommu_cpu *cpu)
{
    return &cpu->tlb;
}

int viommu_cpu_set_space(struct viommu_cpu *cpu, unsigned index, struct viommu_space *space,
                         const struct viommu_bus_attrs *attrs)
{
    if (index >= cpu->config.indexes || (space && space->bus != cpu->bus)) {
        return -EINVAL;
    }
    cpu->parts[index] = (struct part){.space = space, .attrs = *attrs};
    tlb_flush(cpu, index);
    return 0;
}

/* ---- being asked ---- */

void cpu_ask(struct viommu_cpu *cpu)
{
    if (__atomic_load_n(&cpu->tlb.asked, __ATOMIC_RELAXED)) {
        return;
    }
    __atomic_store_n(&cpu->tlb.asked, 1, __ATOMIC_RELEASE);
    if (cpu->config.kick) {
        cpu->config.kick(cpu->config.opaque);
    }
}

void cpu_ask_all(struct viommu_cpu *cpu)
{
    cpu->asked_all = true;
    cpu_ask(cpu);
}

void cpu_ask_range(struct viommu_cpu *cpu, const struct pair *pair, uint64_t first, uint64_t last)
{
    uint32_t number = (uint32_t)(pair - cpu->pairs);

    for (unsigned i = 0; i < cpu->asked_count; i++) {
        struct asked_range *asked = &cpu->asked[i];

        if (asked->pair == number && asked->first == first && asked->last == last) {
            return;
        }
    }
    if (cpu->asked_count == ASKED_MAX) {
        cpu_ask_all(cpu);
        return;
    }
    cpu->asked[cpu->asked_count++] =
        (struct asked_range){.pair = number, .first = first, .last = last};
    cpu_ask(cpu);
}

static void flush_all(struct viommu_cpu *cpu)
{
    for (unsigned i = 0; i < cpu->config.indexes; i++) {
        tlb_flush(cpu, i);
    }
}

/* Drops what was asked for. */
static void answer(struct viommu_cpu *cpu)
{
    struct asked_range asked[ASKED_MAX];
    unsigned count;
    bool all;

    pthread_mutex_lock(&cpu->bus->told);
    __atomic_store_n(&cpu->tlb.asked, 0, __ATOMIC_RELAXED);
    count = cpu->asked_count;
    memcpy(asked, cpu->asked, count * sizeof(asked[0]));
    all = cpu->asked_all;
    cpu->asked_count = 0;
    cpu->asked_all = false;
    pthread_mutex_unlock(&cpu->bus->told);
    if (all) {
        flush_all(cpu);
        return;
    }
    for (unsigned i = 0; i < count; i++) {
        if (cpu->pairs[asked[i].pair].links) {
            tlb_flush_range(cpu, asked[i].pair, asked[i].first, asked[i].last);
        } else {
            pair_rest(cpu, asked[i].pair); /* told in vain */
        }
    }
}

/* The section has just begun. */
static void answer_if_asked(struct viommu_cpu *cpu)
{
    if (__atomic_load_n(&cpu->tlb.asked, __ATOMIC_ACQUIRE)) {
        answer(cpu);
    }
}

/* ---- running ---- */

/* Whether a running CPU is inside the bus's section, and may leave it. */
static bool holds_section(const struct viommu_cpu *cpu, const struct viommu_bus *bus)
{
    return cpu->bus == bus && !(cpu->away && cpu->depth == 1);
}

/* Whether all others that this thread runs have passed a safe point. */
static bool others_passed(const struct viommu_cpu *cpu)
{
    for (const struct viommu_cpu *other = space_thread.running; other;
         other = other->running_next) {
        if (other != cpu && holds_section(other, cpu->bus) && !other->passed) {
            return false;
        }
    }
    return true;
}

/*
 * A safe point: the CPU has just left its section. Sections of one thread nest, so those of its
 * CPUs are one, which began with the first of them: it begins anew only where all are left at once.
 * Then all answer: a drain that began before does not wait for them any more.
 */
static void pass(struct viommu_cpu *cpu)
{
    bool all = others_passed(cpu);

    cpu->passed = true;
    for (struct viommu_cpu *other = space_thread.running; all && other;
         other = other->running_next) {
        if (other != cpu && holds_section(other, cpu->bus)) {
            section_leave(cpu->bus);
        }
    }
    (void)section_enter(cpu->bus); /* the thread has a record: it cannot fail */
    answer_if_asked(cpu);
    for (struct viommu_cpu *other = space_thread.running; all && other;
         other = other->running_next) {
        if (other != cpu && holds_section(other, cpu->bus)) {
            (void)section_enter(cpu->bus);
            answer_if_asked(other);
        }
        other->passed &= other->bus != cpu->bus;
    }
}

int viommu_cpu_begin(struct viommu_cpu *cpu)
{
    if (cpu->depth) {
        cpu->depth++;
        cpu->passed = false; /* what it holds is good until the outermost end */
        return 0;
    }
    if (!section_enter(cpu->bus)) {
        return -ENOMEM;
    }
    cpu->depth = 1;
    cpu->passed = false;
    cpu->running_next = space_thread.running;
    space_thread.running = cpu;
    answer_if_asked(cpu);
    return 0;
}

void viommu_cpu_end(struct viommu_cpu *cpu)
{
    if (--cpu->depth == 0) {
        leave_running(cpu);
        section_leave(cpu->bus);
        bus_settle(cpu->bus);
    }
}

/* What a new section reads is what is published now: what was asked before must be known to it. */
void viommu_cpu_honour(struct viommu_cpu *cpu)
{
    if (cpu->depth == 1 && !cpu->away) {
        section_leave(cpu->bus);
        pass(cpu);
    }
}

void viommu_cpu_flush(struct viommu_cpu *cpu)
{
    flush_all(cpu);
}

void viommu_cpu_flush_page(struct viommu_cpu *cpu, unsigned index, uint64_t address)
{
    if (index < cpu->config.indexes) {
        tlb_flush_page(cpu, index, address);
    }
}

/* ---- accesses ---- */

static uint32_t use_perm(enum viommu_cpu_use use)
{
    return use == VIOMMU_CPU_WRITE ? VIOMMU_WRITE
           : use == VIOMMU_CPU_READ ? VIOMMU_READ
                                    : VIOMMU_EXEC;
}

static int walk(struct viommu_cpu *cpu, unsigned index, uint64_t address, enum viommu_cpu_use use,
                struct viommu_cpu_walk *out)
{
    uint64_t inside = address & ~cpu->tlb.page_mask;
    int error;

    *out = (struct viommu_cpu_walk){.address = address,
                                    .perm = VIOMMU_READ | VIOMMU_WRITE | VIOMMU_EXEC};
    if (!cpu->config.walk) {
        return 0;
    }
    *out = (struct viommu_cpu_walk){.perm = 0};
    error = cpu->config.walk(cpu->config.opaque, index, address, use, out);
    /* A page leads to a page. */
    out->address = (out->address & cpu->tlb.page_mask) | inside;
    return error > 0 ? -EIO : error;
}

/* What allows something leads to a region. */
static bool can_be_cached(const struct viommu_cpu *cpu, const struct route *route, uint64_t address)
{
    uint64_t inside = address & ~cpu->tlb.page_mask;

    return route->region->host && !route->uncached && route->hop_count <= CACHED_HOPS_MAX &&
           route->before >= inside && route->after >= ~cpu->tlb.page_mask - inside;
}

/* Asks for all permissions at once, and makes an entry of the answer. Returns what is allowed. */
static int fill(struct viommu_cpu *cpu, unsigned index, uint64_t address,
                const struct viommu_cpu_walk *walked)
{
    const struct part *part = &cpu->parts[index];
    struct route route;
    uint32_t perm;
    int error;

    error = route_find(cpu->bus, part->space, walked->address,
                       walked->has_attrs ? &walked->attrs : &part->attrs, 0, cpu, &route);
    perm = error ? 0 : route.perm & walked->perm;
    if (perm && can_be_cached(cpu, &route, walked->address)) {
        tlb_insert(cpu, index, address, &route, perm);
    } else {
        cpu_count(cpu, STAT_UNCACHED, 1);
    }
    for (unsigned i = 0; i < route.hop_count; i++) {
        if (route.hops[i].pair != NO_PAIR) {
            cpu->pairs[route.hops[i].pair].links--;
        }
    }
    return error ? error : (int)perm;
}

int viommu_cpu_fill(struct viommu_cpu *cpu, unsigned index, uint64_t address)
{
    struct viommu_cpu_walk walked;
    int error;

    if (!cpu->depth || index >= cpu->config.indexes) {
        return -EINVAL;
    }
    if (cpu->away) {
        return -EDEADLK;
    }
    error = walk(cpu, index, address, VIOMMU_CPU_READ, &walked);
    return error ? error : fill(cpu, index, address, &walked);
}

static void copy(void *host, void *buf, size_t len, enum viommu_cpu_use use)
{
    uint64_t value = 0;

    if (len != 1 && len != 2 && len != 4 && len != 8) {
        memcpy(use == VIOMMU_CPU_WRITE ? host : buf, use == VIOMMU_CPU_WRITE ? buf : host, len);
    } else if (use == VIOMMU_CPU_WRITE) {
        memcpy(&value, buf, len);
        viommu_tlb_store(host, (unsigned)len, value);
    } else {
        value = viommu_tlb_load(host, (unsigned)len);
        memcpy(buf, &value, len);
    }
}

/* Through the space: the CPU holds no pointers meanwhile, and may be asked. */
static int access_space(struct viommu_cpu *cpu, const struct part *part,
                        const struct viommu_cpu_walk *walked, void *buf, size_t len, uint32_t need)
{
    bool outermost = cpu->depth == 1;
    int error;

    cpu->away = true;
    if (outermost) {
        section_leave(cpu->bus);
    }
    error = space_access(part->space, walked->address, buf, len,
                         walked->has_attrs ? &walked->attrs : &part->attrs, need);
    cpu->away = false;
    if (outermost) {
        pass(cpu);
    }
    return error;
}

/* An access inside one page. */
static int access_page(struct viommu_cpu *cpu, unsigned index, uint64_t address, void *buf,
                       size_t len, enum viommu_cpu_use use)
{
    const struct part part = cpu->parts[index];
    uint32_t need = use_perm(use);
    struct viommu_cpu_walk walked;
    void *host = viommu_tlb_find(&cpu->tlb, index, address, (unsigned)len, use);
    int error;

    if (host) {
        copy(host, buf, len, use);
        return 0;
    }
    if (!part.space) {
        return -ENXIO;
    }
    error = walk(cpu, index, address, use, &walked);
    if (error) {
        return error;
    }
    if (!(walked.perm & need)) {
        return -EACCES;
    }
    (void)fill(cpu, index, address, &walked);
    host = viommu_tlb_find(&cpu->tlb, index, address, (unsigned)len, use);
    if (host) {
        copy(host, buf, len, use);
        return 0;
    }
    return access_space(cpu, &part, &walked, buf, len, need);
}

int viommu_cpu_access(struct viommu_cpu *cpu, unsigned index, uint64_t address, void *buf,
                      size_t len, enum viommu_cpu_use use)
{
    char *at = buf;
    int error = 0;

    if (!cpu->depth || index >= cpu->config.indexes || (unsigned)use > VIOMMU_CPU_FETCH ||
        (len && len - 1 > UINT64_MAX - address)) {
        return -EINVAL;
    }
    if (cpu->away) {
        return -EDEADLK;
    }
    viommu_cpu_safe_point(cpu, &cpu->tlb);
    while (len && !error) {
        uint64_t rest = ~cpu->tlb.page_mask - (address & ~cpu->tlb.page_mask);
        size_t bytes = len - 1 > rest ? (size_t)rest + 1 : len;

        error = access_page(cpu, index, address, at, bytes, use);
        address += bytes;
        at += bytes;
        len -= bytes;
    }
    return error;
}

void viommu_cpu_stats(const struct viommu_cpu *cpu, struct viommu_cpu_stats *out)
{
    pthread_mutex_lock(&cpu->bus->told);
    *out = (struct viommu_cpu_stats){
        .fills = atomic_load_explicit(&cpu->stats[STAT_FILLS], memory_order_relaxed),
        .uncached = atomic_load_explicit(&cpu->stats[STAT_UNCACHED], memory_order_relaxed),
        .entries_dropped = atomic_load_explicit(&cpu->stats[STAT_DROPPED], memory_order_relaxed),
        .ranged_flushes = atomic_load_explicit(&cpu->stats[STAT_RANGED], memory_order_relaxed),
        .full_flushes = atomic_load_explicit(&cpu->stats[STAT_FULL], memory_order_relaxed),
        .armed = cpu->armed,
    };
    pthread_mutex_unlock(&cpu->bus->told);
}
