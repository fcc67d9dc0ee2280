/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An emulated CPU's way to its spaces, and its soft TLB: what keeps the way short.
 *
 * A CPU has some *MMU indexes*: each looks through one space with one set of attributes, and has
 * its own part of the TLB, a table of pages found by page number. An entry says, for reading,
 * writing and executing at once, where a page of the CPU's addresses lies in this process. It is
 * made from the first access to a page that is RAM or ROM as a whole; what is smaller than a page,
 * or no memory, is never cached.
 *
 * A CPU *runs* between viommu_cpu_begin and viommu_cpu_end. Others ask it to drop entries; it does
 * so when it begins, and at its *safe points*: viommu_cpu_safe_point, and every access that is not
 * answered by the TLB. Pointers into guest memory are good until the next one. An IOMMU's change is
 * complete (viommu_bus_wait) when every CPU that was running has come to a safe point or has
 * stopped; so a CPU that sleeps, or waits for something, stops first.
 *
 * Threads: a CPU belongs to the thread that runs it; between an end and the next begin it may go to
 * another. Functions here are for that thread unless their comment says otherwise, and not from
 * inside a callback of a region that an access of this CPU has led to.
 */
#ifndef VIOMMU_CPU_TLB_H
#define VIOMMU_CPU_TLB_H

#include <string.h>
#include <viommu/space.h>

#ifdef __cplusplus
extern "C" {
#endif

struct viommu_cpu;

#define VIOMMU_CPU_INDEXES_MAX 16

/* What an access is, as an index of tags. */
enum viommu_cpu_use {
    VIOMMU_CPU_READ,
    VIOMMU_CPU_WRITE,
    VIOMMU_CPU_FETCH,
};

/* The layout of the TLB: for the inline functions below only. */
struct viommu_tlb_entry {
    uint64_t tag[3];  /* by use: the page's address and the generation; else it matches nothing */
    uintptr_t addend; /* host address = address + addend */
};

struct viommu_tlb_part {
    struct viommu_tlb_entry *entries;
    uint64_t mask;       /* entries - 1 */
    uint64_t generation; /* of valid entries; 1 and more, below the page size */
};

struct viommu_cpu_tlb {
    uint64_t page_mask; /* bits of an address above the page */
    uint32_t page_bits;
    uint32_t asked; /* atomic: something waits for a safe point */
    struct viommu_tlb_part parts[VIOMMU_CPU_INDEXES_MAX]; /* by MMU index */
};

/* What a CPU's own page tables make of an address. */
struct viommu_cpu_walk {
    uint64_t address;              /* in the space */
    uint32_t perm;                 /* VIOMMU_READ, VIOMMU_WRITE, VIOMMU_EXEC */
    bool has_attrs;                /* other attributes than those of the MMU index */
    struct viommu_bus_attrs attrs;
};

struct viommu_cpu_config {
    unsigned indexes;   /* MMU indexes, 1 to 16; 0 is 1 */
    unsigned page_bits; /* 10 to 16; 0 is 12 */
    unsigned entries;   /* of each MMU index: a power of two, 16 to 1,048,576; 0 is 1,024 */
    unsigned notifiers; /* pairs of IOMMU and attribute index with cached entries; 0 is 64,
                           at most 4,096 */
    void *opaque;
    /*
     * The CPU's own MMU: fills in *walk for an address, or returns a negative errno, which the
     * access returns. What it says must hold for the whole page, until viommu_cpu_flush or
     * viommu_cpu_flush_page is called. NULL: addresses are those of the space.
     */
    int (*walk)(void *opaque, unsigned index, uint64_t address, enum viommu_cpu_use use,
                struct viommu_cpu_walk *walk);
    /*
     * Something waits for a safe point: make the CPU come to one. Called from any thread, with a
     * lock held: it must not call anything of ours, nor block. May be NULL.
     */
    void (*kick)(void *opaque);
};

/* What a TLB did. */
struct viommu_cpu_stats {
    uint64_t fills;          /* entries made */
    uint64_t uncached;       /* accesses on which nothing could be cached */
    uint64_t entries_dropped; /* by changes of IOMMUs */
    uint64_t ranged_flushes; /* ranges of IOMMUs that were dropped */
    uint64_t full_flushes;   /* of one MMU index each */
    uint64_t armed;          /* pairs that tell this CPU of changes, now */
};

/* Creates a CPU, stopped; its indexes look at nothing. Returns 0, -EINVAL or -ENOMEM. */
int viommu_cpu_create(struct viommu_bus *bus, const struct viommu_cpu_config *config,
                      struct viommu_cpu **out);

/* Destroys a CPU that does not run; NULL is accepted. Nobody tells it of changes any more. */
void viommu_cpu_destroy(struct viommu_cpu *cpu);

/*
 * The space and the attributes of an MMU index; drops its entries. Returns 0, or -EINVAL for an
 * index that it does not have, or a space of another bus.
 */
int viommu_cpu_set_space(struct viommu_cpu *cpu, unsigned index, struct viommu_space *space,
                         const struct viommu_bus_attrs *attrs);

/*
 * Begins to run, and stops. They nest, on one thread, but then nothing is dropped before the
 * outermost end. Returns 0 or -ENOMEM (viommu_dma_begin tells why).
 */
int viommu_cpu_begin(struct viommu_cpu *cpu);
void viommu_cpu_end(struct viommu_cpu *cpu);

/* Does what viommu_cpu_safe_point found asked for. */
void viommu_cpu_honour(struct viommu_cpu *cpu);

/* The TLB, for the functions below. It stays where it is as long as the CPU lives. */
const struct viommu_cpu_tlb *viommu_cpu_tlb(const struct viommu_cpu *cpu);

/* Drops all entries, or those of one page of one MMU index, after a change of the CPU's own. */
void viommu_cpu_flush(struct viommu_cpu *cpu);
void viommu_cpu_flush_page(struct viommu_cpu *cpu, unsigned index, uint64_t address);

/*
 * Makes an entry for a page where that can be, as an access would; without side effects but on the
 * TLB. Returns what the page allows (0: nothing, or nothing is there), or a negative errno of an
 * access.
 */
int viommu_cpu_fill(struct viommu_cpu *cpu, unsigned index, uint64_t address);

/*
 * An access of any length that the TLB did not answer, or that was not looked up. A running CPU
 * only (-EINVAL). Returns 0 or an error of an access, as viommu/space.h has them (-EDEADLK also
 * where a callback of this CPU's access makes another by it); what `walk` returned; or -EACCES
 * where the CPU's own MMU does not allow it.
 */
int viommu_cpu_access(struct viommu_cpu *cpu, unsigned index, uint64_t address, void *buf,
                      size_t len, enum viommu_cpu_use use);

/* Any thread. */
void viommu_cpu_stats(const struct viommu_cpu *cpu, struct viommu_cpu_stats *out);

/* A place where the CPU holds no pointers. Cheap when nobody has asked for anything. */
static inline void viommu_cpu_safe_point(struct viommu_cpu *cpu, const struct viommu_cpu_tlb *tlb)
{
    if (__atomic_load_n(&tlb->asked, __ATOMIC_RELAXED)) {
        viommu_cpu_honour(cpu);
    }
}

/*
 * Where [address, address + size - 1] lies in this process, or NULL: not in the TLB for this use,
 * or in two pages. `index` is one that the CPU has, size 1 to 1,024. Good until the next safe
 * point.
 */
static inline void *viommu_tlb_find(const struct viommu_cpu_tlb *tlb, unsigned index,
                                    uint64_t address, unsigned size, enum viommu_cpu_use use)
{
    const struct viommu_tlb_part *part = &tlb->parts[index];
    const struct viommu_tlb_entry *entry =
        &part->entries[(address >> tlb->page_bits) & part->mask];
    uint64_t page = address & tlb->page_mask;

    /* The last byte lies in the same page, or the tag cannot be right. */
    if (entry->tag[use] != (page | part->generation) ||
        ((address + (size - 1)) & tlb->page_mask) != page) {
        return NULL;
    }
    return (void *)(entry->addend + (uintptr_t)address);
}

/* Loads and stores of 1, 2, 4 or 8 bytes; others read the same memory meanwhile. */
static inline uint64_t viommu_tlb_load(const void *host, unsigned size)
{
    uint64_t value = 0;

    if ((uintptr_t)host & (size - 1)) {
        memcpy(&value, host, size);
        return value;
    }
    switch (size) {
    case 1:
        return __atomic_load_n((const uint8_t *)host, __ATOMIC_RELAXED);
    case 2:
        return __atomic_load_n((const uint16_t *)host, __ATOMIC_RELAXED);
    case 4:
        return __atomic_load_n((const uint32_t *)host, __ATOMIC_RELAXED);
    default:
        return __atomic_load_n((const uint64_t *)host, __ATOMIC_RELAXED);
    }
}

static inline void viommu_tlb_store(void *host, unsigned size, uint64_t value)
{
    if ((uintptr_t)host & (size - 1)) {
        memcpy(host, &value, size);
        return;
    }
    switch (size) {
    case 1:
        __atomic_store_n((uint8_t *)host, (uint8_t)value, __ATOMIC_RELAXED);
        break;
    case 2:
        __atomic_store_n((uint16_t *)host, (uint16_t)value, __ATOMIC_RELAXED);
        break;
    case 4:
        __atomic_store_n((uint32_t *)host, (uint32_t)value, __ATOMIC_RELAXED);
        break;
    default:
        __atomic_store_n((uint64_t *)host, value, __ATOMIC_RELAXED);
        break;
    }
}

/*
 * An access of 1, 2, 4 or 8 bytes, at any address, of a running CPU: a load or a fetch of a
 * little-endian number, and a store of one. Returns as viommu_cpu_access.
 */
static inline int viommu_cpu_load(struct viommu_cpu *cpu, const struct viommu_cpu_tlb *tlb,
                                  unsigned index, uint64_t address, unsigned size,
                                  enum viommu_cpu_use use, uint64_t *value)
{
    const void *host = viommu_tlb_find(tlb, index, address, size, use);

    if (host) {
        *value = viommu_tlb_load(host, size);
        return 0;
    }
    *value = 0;
    return viommu_cpu_access(cpu, index, address, value, size, use);
}

static inline int viommu_cpu_store(struct viommu_cpu *cpu, const struct viommu_cpu_tlb *tlb,
                                   unsigned index, uint64_t address, unsigned size,
                                   uint64_t value)
{
    void *host = viommu_tlb_find(tlb, index, address, size, VIOMMU_CPU_WRITE);

    if (host) {
        viommu_tlb_store(host, size, value);
        return 0;
    }
    return viommu_cpu_access(cpu, index, address, &value, size, VIOMMU_CPU_WRITE);
}

#ifdef __cplusplus
}
#endif

#endif
