/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The in-process guest of guest.h.
 */
#include "guest.h"

#include <endian.h>
#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

/*
 * A poll that lasts longer means that the library hangs. Sanitizers and 2 cores make this
 * generous.
 */
#define POLL_SECONDS 30

void guest_die(const char *format, ...)
{
    va_list args;

    fflush(stdout);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    abort();
}

void guest_ok(int error, const char *what)
{
    if (error) {
        guest_die("%s: %s (%d)", what, error < 0 ? strerror(-error) : "not 0", error);
    }
}

static int add_ram(struct guest *guest)
{
    struct viommu_memory_batch *batch;
    int error = viommu_memory_batch_begin(guest->memory, &batch);

    if (error) {
        return error;
    }
    error = viommu_memory_batch_add(batch, &(struct viommu_memory_slot){
                                               .last = guest->ram_size - 1,
                                               .host = guest->ram,
                                               .fd = -1,
                                           });
    if (error) {
        viommu_memory_batch_abort(batch);
        return error;
    }
    return viommu_memory_batch_commit(batch, NULL, NULL);
}

static int make_memory(struct guest *guest)
{
    int error;

    guest->ram = mmap(NULL, guest->ram_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                      -1, 0);
    if (guest->ram == MAP_FAILED) {
        guest->ram = NULL;
        return -ENOMEM;
    }
    error = viommu_memory_create(&guest->memory);
    return error ? error : add_ram(guest);
}

static void read_capabilities(struct guest *guest)
{
    guest->cap = guest_read(guest, SPEC_CAP, 8);
    guest->ecap = guest_read(guest, SPEC_ECAP, 8);
    guest->fault_offset = (guest->cap >> 24 & 0x3ff) * 16;
    guest->fault_count = (unsigned)(guest->cap >> 40 & 0xff) + 1;
    guest->iotlb_offset = (guest->ecap >> 8 & 0x3ff) * 16;
}

int guest_second(const struct guest *guest, struct viommu **second)
{
    return viommu_vtd_create(&guest->config, &guest->vtd, second);
}

void guest_take_over(struct guest *guest, struct viommu *second)
{
    viommu_destroy(guest->iommu);
    guest->iommu = second;
}

int guest_init(struct guest *guest, const struct guest_config *config)
{
    struct viommu_config unit = {
        .callbacks = config->callbacks,
        .opaque = config->opaque,
        .clock = config->clock,
        .ack_timeout_ms = config->ack_timeout_ms,
        .iotlb_entries = config->iotlb_entries,
        .rewrite_policy = config->rewrite_policy,
        .shadow_quota = config->shadow_quota,
        .cache_mode = config->cache_mode,
        .cache_quota = config->cache_quota,
        .cache_seed = config->cache_seed,
        .space = config->space,
    };
    int error;

    memset(guest, 0, sizeof(*guest));
    guest->ram_size = (config->ram_pages ? config->ram_pages : 1024) * GUEST_PAGE;
    guest->next_page = GUEST_PAGE; /* page 0 stays empty, so that 0 can say "none" */
    guest->ram_borrowed = config->memory;
    if (guest->ram_borrowed) {
        guest->ram = config->ram;
        guest->memory = config->memory;
        error = 0;
    } else {
        error = make_memory(guest);
    }
    if (!error) {
        unit.memory = guest->memory;
        guest->config = unit;
        guest->vtd = config->vtd;
        error = guest_second(guest, &guest->iommu);
    }
    if (!error) {
        error = viommu_start(guest->iommu);
    }
    if (error) {
        guest_fini(guest);
        return error;
    }
    read_capabilities(guest);
    return 0;
}

void guest_fini(struct guest *guest)
{
    viommu_destroy(guest->iommu);
    if (!guest->ram_borrowed) {
        viommu_memory_destroy(guest->memory);
        if (guest->ram) {
            munmap(guest->ram, guest->ram_size);
        }
    }
    memset(guest, 0, sizeof(*guest));
}

uint64_t guest_page(struct guest *guest)
{
    uint64_t page = guest->next_page;

    if (page >= guest->ram_size) {
        guest_die("the test needs more guest RAM");
    }
    guest->next_page += GUEST_PAGE;
    return page;
}

void *guest_host(struct guest *guest, uint64_t gpa)
{
    if (gpa >= guest->ram_size) {
        guest_die("guest address %#llx is not RAM", (unsigned long long)gpa);
    }
    return guest->ram + gpa;
}

void guest_store(struct guest *guest, uint64_t gpa, uint64_t value)
{
    atomic_store((_Atomic uint64_t *)guest_host(guest, gpa), htole64(value));
}

uint64_t guest_load(struct guest *guest, uint64_t gpa)
{
    return le64toh(atomic_load((_Atomic uint64_t *)guest_host(guest, gpa)));
}

uint64_t guest_read(struct guest *guest, uint64_t offset, unsigned size)
{
    uint64_t value = 0;

    guest_ok(viommu_mmio_read(guest->iommu, offset, size, &value), "register read");
    return value;
}

void guest_write(struct guest *guest, uint64_t offset, unsigned size, uint64_t value)
{
    guest_ok(viommu_mmio_write(guest->iommu, offset, size, value), "register write");
}

void guest_process(struct guest *guest)
{
    unsigned calls = 0;
    int result;

    if (guest->processed_elsewhere) {
        sched_yield();
        return;
    }
    do {
        if (guest->meanwhile) {
            guest->meanwhile(guest->opaque);
        }
        result = viommu_process(guest->iommu, 0);
        if (result < 0 && result != -ENOMEM) { /* for lack of memory: again */
            guest_die("viommu_process: %s", strerror(-result));
        }
        if (++calls > 1000000) {
            guest_die("viommu_process never ends");
        }
    } while (result != 0);
}

static uint64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* Called again and again by those who wait; dies when they have waited long. */
static void wait_a_little(struct guest *guest, uint64_t *since, const char *what)
{
    if (!*since) {
        *since = now();
    } else if (now() - *since > POLL_SECONDS * 1000000000ull) {
        guest_die("%s does not complete: FSTS %#llx IQH %#llx IQT %#llx GSTS %#llx", what,
                  (unsigned long long)guest_read(guest, SPEC_FSTS, 4),
                  (unsigned long long)guest_read(guest, SPEC_IQH, 8),
                  (unsigned long long)guest_read(guest, SPEC_IQT, 8),
                  (unsigned long long)guest_read(guest, SPEC_GSTS, 4));
    }
    if (guest->meanwhile) {
        guest->meanwhile(guest->opaque);
    }
    if (guest->processed_elsewhere) {
        sched_yield();
    } else if (viommu_process(guest->iommu, 0) == 0) {
        sched_yield();
    }
}

void guest_poll(struct guest *guest, uint64_t offset, unsigned size, uint64_t bits, uint64_t value)
{
    uint64_t since = 0;

    while ((guest_read(guest, offset, size) & bits) != value) {
        wait_a_little(guest, &since, "a register");
    }
}

void guest_command(struct guest *guest, uint32_t bit, bool on)
{
    uint32_t status = (uint32_t)guest_read(guest, SPEC_GSTS, 4) & SPEC_GSTS_STICKY;

    guest_write(guest, SPEC_GCMD, 4, on ? status | bit : status & ~bit);
    guest_poll(guest, SPEC_GSTS, 4, bit, on ? bit : 0);
}

void guest_set_root(struct guest *guest)
{
    if (!guest->root) {
        guest->root = guest_page(guest);
    }
    guest_write(guest, SPEC_RTADDR, 8, guest->root);
    guest_command(guest, SPEC_SRTP, true);
}

void guest_context(struct guest *guest, uint16_t requester, uint64_t lo, uint64_t hi)
{
    uint64_t slot;
    uint64_t root_entry;

    if (!guest->root) {
        guest->root = guest_page(guest);
    }
    slot = guest->root + (requester >> 8) * 16u;
    root_entry = guest_load(guest, slot);
    if (!(root_entry & 1)) {
        root_entry = guest_page(guest) | 1;
        guest_store(guest, slot, root_entry);
    }
    slot = (root_entry & ~0xfffull) + (requester & 0xff) * 16u;
    guest_store(guest, slot + 8, hi);
    guest_store(guest, slot, lo);
}

void guest_attach(struct guest *guest, uint16_t requester, uint16_t domain, uint64_t table,
                  unsigned levels, enum spec_translation_type type)
{
    guest_context(guest, requester, 1 | (uint64_t)type << 2 | table,
                  (uint64_t)(levels - 2) | (uint64_t)domain << 8);
}

uint64_t guest_map(struct guest *guest, uint64_t table, unsigned levels, uint64_t iova,
                   uint64_t gpa, unsigned level, uint64_t flags)
{
    uint64_t slot;
    unsigned at;

    for (at = levels;; at--) {
        uint64_t entry;

        slot = table + (iova >> (12 + 9 * (at - 1)) & 511) * 8;
        if (at == level) {
            break;
        }
        entry = guest_load(guest, slot);
        if (!(entry & (SPEC_R | SPEC_W))) {
            entry = guest_page(guest) | SPEC_R | SPEC_W;
            guest_store(guest, slot, entry);
        }
        table = entry & 0x000ffffffffff000ull;
    }
    guest_store(guest, slot, gpa | flags | (level > 1 ? SPEC_PS : 0));
    return slot;
}

void guest_queue_on(struct guest *guest)
{
    if (!guest->queue) {
        guest->queue = guest_page(guest);
        guest->status = guest_page(guest);
    }
    guest->queue_entries = 256;
    guest->queue_tail = 0;
    guest_write(guest, SPEC_IQT, 8, 0);
    guest_write(guest, SPEC_IQA, 8, guest->queue);
    guest_command(guest, SPEC_QIE, true);
}

void guest_queue_off(struct guest *guest)
{
    guest_command(guest, SPEC_QIE, false);
}

void guest_queue_put(struct guest *guest, struct spec_descriptor descriptor)
{
    uint64_t slot = guest->queue + guest->queue_tail * 16ull;

    guest_store(guest, slot, descriptor.lo);
    guest_store(guest, slot + 8, descriptor.hi);
    guest->queue_tail = (guest->queue_tail + 1) % guest->queue_entries;
}

void guest_queue_kick(struct guest *guest)
{
    guest_write(guest, SPEC_IQT, 8, guest->queue_tail * 16ull);
}

void guest_queue_wait(struct guest *guest)
{
    _Atomic uint32_t *status = guest_host(guest, guest->status);
    uint32_t value = ++guest->status_value;
    uint64_t since = 0;

    guest_queue_put(guest, spec_wait(SPEC_WAIT_STATUS, guest->status, value));
    guest_queue_kick(guest);
    while (le32toh(atomic_load(status)) != value) {
        wait_a_little(guest, &since, "a wait descriptor");
    }
}

void guest_flush_context(struct guest *guest, enum spec_granularity granularity, uint16_t domain,
                         uint16_t requester, unsigned function_mask)
{
    guest_write(guest, SPEC_CCMD, 8,
                1ull << 63 | (uint64_t)granularity << 61 | (uint64_t)function_mask << 32 |
                    (uint64_t)requester << 16 | domain);
    guest_poll(guest, SPEC_CCMD, 8, 1ull << 63, 0);
}

void guest_flush_iotlb(struct guest *guest, enum spec_granularity granularity, uint16_t domain,
                       uint64_t address, unsigned address_mask)
{
    if (granularity == SPEC_SELECTIVE) {
        guest_write(guest, guest->iotlb_offset, 8, (address & ~0xfffull) | address_mask);
    }
    guest_write(guest, guest->iotlb_offset + 8, 8,
                1ull << 63 | (uint64_t)granularity << 60 | (uint64_t)domain << 32 | 3ull << 48);
    guest_poll(guest, guest->iotlb_offset + 8, 8, 1ull << 63, 0);
}
