/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An in-process guest: RAM, a VT-d unit, and what a guest's driver does with them, for tests.
 *
 * RAM is one slot from guest address 0; its pages are handed out by guest_page(), never taken back.
 * The driver's side (guest_set_root, guest_queue_*, guest_flush_*) goes through the registers and
 * the queue only, with the layouts of vtd_spec.h.
 *
 * Whatever cannot happen unless the library is wrong or the test is ends the program with a message
 * (guest_die): a test that goes on after that would only confuse.
 *
 * Threads: a guest's driver functions belong to one thread at a time; guest_store and guest_load
 * are atomic.
 */
#ifndef VIOMMU_SUPPORT_GUEST_H
#define VIOMMU_SUPPORT_GUEST_H

#include "vtd_spec.h"

#include <viommu/viommu.h>

#define GUEST_PAGE 4096ull

struct guest_config {
    struct viommu_vtd_config vtd;
    struct viommu_callbacks callbacks;
    void *opaque;
    uint64_t (*clock)(void *opaque);
    uint32_t ack_timeout_ms;
    uint32_t iotlb_entries;
    enum viommu_rewrite_policy rewrite_policy;
    uint64_t shadow_quota;
    enum viommu_cache_mode cache_mode;
    uint32_t cache_quota;
    uint64_t cache_seed;
    struct viommu_space *space;
    size_t ram_pages; /* 0: 1024 */
    /*
     * A memory and the host memory of guest addresses 0 to ram_pages, made by the caller; or NULL.
     */
    struct viommu_memory *memory;
    void *ram;
};

struct guest {
    struct viommu_memory *memory;
    struct viommu *iommu;
    struct viommu_config config;
    struct viommu_vtd_config vtd;
    uint8_t *ram;
    size_t ram_size;
    bool ram_borrowed; /* memory and ram are the caller's */
    uint64_t next_page; /* guest address of the first page not handed out */

    /* Read from the capability registers. */
    uint64_t cap;
    uint64_t ecap;
    uint64_t fault_offset;
    unsigned fault_count;
    uint64_t iotlb_offset;

    uint64_t root;
    uint64_t queue; /* 0: not on */
    unsigned queue_entries;
    unsigned queue_tail;
    uint64_t status; /* guest address of the wait status */
    uint32_t status_value;
    /* While another thread calls viommu_process; waits then only poll. */
    bool processed_elsewhere;
    /* Called before work is done for a guest that waits; or NULL. */
    void (*meanwhile)(void *opaque);
    void *opaque;
};

/* Ends the program. */
_Noreturn void guest_die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Dies unless `error` is 0; `what` is for the message. */
void guest_ok(int error, const char *what);

/*
 * Creates and starts everything; translation and the queue are off. Returns 0 or a negative errno.
 */
int guest_init(struct guest *guest, const struct guest_config *config);
void guest_fini(struct guest *guest);

/* Another instance like the guest's, not started. Returns as viommu_vtd_create. */
int guest_second(const struct guest *guest, struct viommu **second);
/* It takes the place of the guest's, which is destroyed. */
void guest_take_over(struct guest *guest, struct viommu *second);

/* A zeroed page of RAM. */
uint64_t guest_page(struct guest *guest);
void *guest_host(struct guest *guest, uint64_t gpa);
void guest_store(struct guest *guest, uint64_t gpa, uint64_t value);
uint64_t guest_load(struct guest *guest, uint64_t gpa);

uint64_t guest_read(struct guest *guest, uint64_t offset, unsigned size);
void guest_write(struct guest *guest, uint64_t offset, unsigned size, uint64_t value);

/* Calls viommu_process until it returns 0, and dies when it never does. */
void guest_process(struct guest *guest);

/* Processes (or yields) until the bits of a register have a value; dies after some seconds. */
void guest_poll(struct guest *guest, uint64_t offset, unsigned size, uint64_t bits,
                uint64_t value);

/* Sets or clears one bit of GCMD and waits for GSTS. */
void guest_command(struct guest *guest, uint32_t bit, bool on);

/* Makes a root table, if there is none, and tells the unit. */
void guest_set_root(struct guest *guest);

/* Writes the context entry of a requester; makes its context table. */
void guest_context(struct guest *guest, uint16_t requester, uint64_t lo, uint64_t hi);

/* The same for a device with page tables of 3 or 4 levels, or, with table 0, pass-through. */
void guest_attach(struct guest *guest, uint16_t requester, uint16_t domain, uint64_t table,
                  unsigned levels, enum spec_translation_type type);

/*
 * Maps one page of 4 KiB (level 1), 2 MiB (2) or 1 GiB (3) and makes the tables above. `flags` are
 * the entry's low bits. Returns the guest address of the entry.
 */
uint64_t guest_map(struct guest *guest, uint64_t table, unsigned levels, uint64_t iova,
                   uint64_t gpa, unsigned level, uint64_t flags);

/* Queued invalidation. The queue is one page: 256 entries. */
void guest_queue_on(struct guest *guest);
void guest_queue_off(struct guest *guest);
void guest_queue_put(struct guest *guest, struct spec_descriptor descriptor);
void guest_queue_kick(struct guest *guest); /* writes the tail */
/* Puts a wait descriptor with a fresh status value, kicks, and waits for it. */
void guest_queue_wait(struct guest *guest);

/* Register-based invalidation, waited for. */
void guest_flush_context(struct guest *guest, enum spec_granularity granularity, uint16_t domain,
                         uint16_t requester, unsigned function_mask);
void guest_flush_iotlb(struct guest *guest, enum spec_granularity granularity, uint16_t domain,
                       uint64_t address, unsigned address_mask);

#endif
