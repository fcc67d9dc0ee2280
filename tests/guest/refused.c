/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * refused.c - checks that DMA outside the mappings is stopped and told.  See device_checks.h.
 *
 * Each refusal is checked twice: memory did not change (or did not leak into the device), and the
 * guest's own log tells of this very DMA: requester, address, direction, reason.
 *
 * VFIO's domains are flushed before an unmap returns, in lazy mode too (only the kernel's own DMA
 * mappings are queued), so "just unmapped" is exact in every mode.
 */
#include <errno.h>
#include <string.h>

#include "device_checks.h"
#include "init.h"
#include "iova.h"
#include "kmsg.h"
#include "memory.h"
#include "report.h"
#include "vfio.h"

enum {
    ROGUE_BYTES = 64,
    ROGUE_BYTES_QEMU = 4,   /* QEMU's virtio-iommu tells a fault for every four bytes */
    CANARY_TRIES = 64,
    ATTEMPTS = 3,
    SMALLEST_WIDTH = 39,
};

/*
 * What the log must say.  Of an address beyond the unit's width the architecture records only the
 * bits within it; QEMU's own unit records all.  Both are taken: every width has the bits compared.
 */
static struct kmsg_fault expected_fault(struct station *s, bool write, uint64_t iova,
                                        unsigned reason)
{
    struct kmsg_fault fault = {
        .write = write,
        .source = s->edu->source,
        .addr = iova & ~(uint64_t)(PAGE - 1),
        .ignored = reason == FAULT_REASON_WIDTH ? ~((1ull << SMALLEST_WIDTH) - 1) : 0,
        .reason = reason,
    };

    return fault;
}

static unsigned rogue_bytes(void)
{
    return init_word("viommu.qemu-unit") ? ROGUE_BYTES_QEMU : ROGUE_BYTES;
}

/* How many DMAs were to be refused; the harness outside compares it with the server's counter. */
static unsigned provoked;

unsigned refused_count(void)
{
    return provoked;
}

struct outcome {
    bool ended;         /* the device came to an end with its DMA */
    bool told;          /* the guest was told */
    const char *how;
};

/*
 * Let the device do what it may not.  The interrupt of one fault may be missing and all be well:
 * when the driver still works at the fault before, it finds the new record by itself.  Then
 * another try brings an interrupt.  An interrupt that is really lost leaves its record pending,
 * and so no try ever brings one.
 */
static struct outcome provoke(struct station *s, bool write, uint64_t iova, unsigned reason)
{
    struct kmsg_fault fault = expected_fault(s, write, iova, reason);
    struct outcome outcome = {0};
    struct kmsg_wait wait = {0};

    for (unsigned i = 0; i < ATTEMPTS && !outcome.told && !wait.line; i++) {
        kmsg_before_fault(&wait);
        provoked++;
        outcome.ended = write ? !edu_to_ram(s->edu, iova, 0, rogue_bytes())
                              : !edu_from_ram(s->edu, iova, 0, rogue_bytes());
        outcome.told = kmsg_wait_fault(&wait, &fault);
    }
    outcome.how = kmsg_told(&wait);
    return outcome;
}

void write_refused(struct station *s, uint64_t iova, uint8_t *memory, unsigned reason,
                   const char *what)
{
    uint64_t canary = pattern_new_seed();
    struct outcome outcome;

    if (!station_load(s, pattern_new_seed())) {
        check(false, "%s: %s", s->edu->bdf, what);
        return;
    }
    if (memory) {
        pattern_fill(memory, PAGE, canary);
    }
    outcome = provoke(s, true, iova, reason);
    check(outcome.told, "%s: %s: %s", s->edu->bdf, what, outcome.how);
    if (!memory) {
        return;
    }
    report_detail("%s", outcome.ended ? "MEMORY CHANGED" : "the device hangs");
    check(outcome.ended && pattern_matches(memory, 0, PAGE, canary), "%s: %s: memory unchanged",
          s->edu->bdf, what);
}

void read_refused(struct station *s, uint64_t iova, uint8_t *memory, unsigned reason,
                  const char *what)
{
    uint64_t secret = pattern_new_seed();
    struct outcome outcome;
    bool ended;

    if (!station_load(s, pattern_new_seed())) {
        check(false, "%s: %s", s->edu->bdf, what);
        return;
    }
    pattern_fill(memory, PAGE, secret);
    outcome = provoke(s, false, iova, reason);
    check(outcome.told, "%s: %s: %s", s->edu->bdf, what, outcome.how);
    ended = outcome.ended && station_show(s);
    report_detail("%s", ended ? "THE DEVICE HAS THE BYTES" : "the device hangs");
    check(ended && !pattern_matches(s->window, 0, 8, secret), "%s: %s: nothing leaks", s->edu->bdf,
          what);
}

/* A page whose own guest-physical address is an IOVA that nobody maps. */
static uint8_t *get_canary(uint64_t *gpa)
{
    for (unsigned i = 0; i < CANARY_TRIES; i++) {
        uint8_t *page = memory_get(PAGE, PAGE);

        if (!page) {
            return NULL;
        }
        *gpa = memory_gpa(page);
        if (*gpa != 0 && (*gpa < IOVA_FIRST || *gpa > IOVA_LAST)) {
            return page;
        }
        /* Not given back: the next one must be another. */
    }
    return NULL;
}

static void check_never_mapped(struct station *s)
{
    uint64_t gpa = 0;
    uint8_t *canary = get_canary(&gpa);

    if (!canary) {
        check(false, "%s: a page to guard", s->edu->bdf);
        return;
    }
    write_refused(s, gpa, canary, FAULT_REASON_WRITE, "write to a page never mapped");
    read_refused(s, gpa, canary, FAULT_REASON_READ, "read from a page never mapped");
    memory_put(canary, PAGE);
}

static void check_unmapped(struct station *s)
{
    uint8_t *page = memory_get(PAGE, PAGE);
    uint64_t seed = pattern_new_seed();
    bool ok = page && !vfio_map(s->container, GONE_IOVA, page, PAGE, DMA_BOTH) &&
              station_load(s, seed) && !edu_to_ram(s->edu, GONE_IOVA, 0, PAGE) &&
              pattern_matches(page, 0, PAGE, seed) && !vfio_unmap(s->container, GONE_IOVA, PAGE);

    if (check(ok, "%s: map a page, use it, unmap it", s->edu->bdf)) {
        write_refused(s, GONE_IOVA, page, FAULT_REASON_WRITE, "write to a page just unmapped");
    }
    if (page) {
        memory_put(page, PAGE);
    }
}

/*
 * A write to a read-only page: before its translation can be cached, and after.  There is no test
 * of a write-only page: Linux makes it readable.  QEMU's own unit stops a write that its cache
 * refuses, but does not tell.
 */
static void check_read_only(struct station *s, bool qemu_unit)
{
    uint8_t *page = memory_get(PAGE, PAGE);
    uint64_t seed = pattern_new_seed();
    bool ok = page && !vfio_map(s->container, GUARD_IOVA, page, PAGE, DMA_READ);

    if (!check(ok, "%s: map a read-only page", s->edu->bdf)) {
        return;
    }
    write_refused(s, GUARD_IOVA + 0x100, page, FAULT_REASON_WRITE, "write to a read-only page");
    pattern_fill(page, PAGE, seed);
    ok = !edu_from_ram(s->edu, GUARD_IOVA, 0, PAGE) && station_show(s);
    report_detail("the bytes are not those sent");
    check(ok && pattern_matches(s->window, 0, PAGE, seed), "%s: read it", s->edu->bdf);
    if (!qemu_unit) {
        write_refused(s, GUARD_IOVA + 0x100, page, FAULT_REASON_WRITE, "write to it once more");
    }
    vfio_unmap(s->container, GUARD_IOVA, PAGE);
    memory_put(page, PAGE);
}

static void check_beyond_width(struct station *s)
{
    uint64_t last;

    if (vfio_last_iova(s->container, &last) || last == UINT64_MAX) {
        return;
    }
    write_refused(s, last + 1 + GONE_IOVA, NULL, kmsg_reason_width(),
                  "write beyond the address width");
}

/* A device that may not master the bus does not DMA at all, and nobody is told of a fault. */
static void check_bus_master(struct station *s)
{
    uint64_t canary = pattern_new_seed();
    bool ok = station_load(s, pattern_new_seed()) && !edu_bus_master(s->edu, false);

    pattern_fill(s->window, PAGE, canary);
    ok = ok && !edu_to_ram(s->edu, WINDOW_IOVA, 0, PAGE);
    report_detail("memory changed, or the device hangs");
    check(ok && pattern_matches(s->window, 0, PAGE, canary), "%s: no DMA while bus master is off",
          s->edu->bdf);
    edu_bus_master(s->edu, true);
}

/*
 * More faults than the unit has records and than the driver likes to see: none gets through, and
 * the unit goes on.
 */
static void check_fault_storm(struct station *s, unsigned count)
{
    uint64_t canary = pattern_new_seed(), seed = pattern_new_seed(), gpa = 0;
    uint8_t *page = get_canary(&gpa);
    struct kmsg_fault fault = expected_fault(s, true, gpa, FAULT_REASON_WRITE);
    struct kmsg_wait wait;
    bool ok = page && station_load(s, pattern_new_seed());

    if (page) {
        pattern_fill(page, PAGE, canary);
    }
    kmsg_before_storm(&wait);
    for (unsigned i = 0; ok && i < count; i++) {
        provoked++;
        ok = !edu_to_ram(s->edu, gpa, 0, rogue_bytes());
    }
    ok = kmsg_after_storm(&wait, &fault) && ok;
    report_detail("no interrupt, or memory changed");
    check(ok && pattern_matches(page, 0, PAGE, canary), "%s: %u refused writes in a row",
          s->edu->bdf, count);
    ok = station_load(s, seed) && station_show(s);
    report_detail("no DMA any more");
    check(ok && pattern_matches(s->window, 0, PAGE, seed), "%s: DMA goes on after them",
          s->edu->bdf);
    if (page) {
        memory_put(page, PAGE);
    }
}

void check_refused(struct station *s, const struct plan *plan)
{
    check_never_mapped(s);
    check_unmapped(s);
    check_read_only(s, plan->qemu_unit);
    check_beyond_width(s);
    check_bus_master(s);
    check_fault_storm(s, plan->qemu_unit ? plan->pages : plan->storm);
}

void check_isolation(struct station *a, struct station *b)
{
    uint8_t *pages = memory_get(3 * PAGE, PAGE);
    uint64_t seed_a = pattern_new_seed(), seed_b = pattern_new_seed();
    bool ok = pages && !vfio_map(a->container, SAME_IOVA, pages, PAGE, DMA_BOTH) &&
              !vfio_map(b->container, SAME_IOVA, pages + PAGE, PAGE, DMA_BOTH) &&
              !vfio_map(a->container, ONLY_A_IOVA, pages + 2 * PAGE, PAGE, DMA_BOTH);

    ok = ok && station_load(a, seed_a) && station_load(b, seed_b) &&
         !edu_to_ram(a->edu, SAME_IOVA, 0, PAGE) && !edu_to_ram(b->edu, SAME_IOVA, 0, PAGE);
    report_detail("the bytes are not where they belong");
    check(ok && pattern_matches(pages, 0, PAGE, seed_a) &&
              pattern_matches(pages + PAGE, 0, PAGE, seed_b),
          "%s and %s: one IOVA, two domains, two pages", a->edu->bdf, b->edu->bdf);
    if (ok) {
        write_refused(b, ONLY_A_IOVA, pages + 2 * PAGE, FAULT_REASON_WRITE,
                      "write to what only the other domain maps");
    }
    ok = ok && station_load(a, seed_a) && !edu_to_ram(a->edu, ONLY_A_IOVA, 0, PAGE);
    check(ok && pattern_matches(pages + 2 * PAGE, 0, PAGE, seed_a), "%s: its own domain maps it",
          a->edu->bdf);
    vfio_unmap(a->container, SAME_IOVA, PAGE);
    vfio_unmap(b->container, SAME_IOVA, PAGE);
    vfio_unmap(a->container, ONLY_A_IOVA, PAGE);
    if (pages) {
        memory_put(pages, 3 * PAGE);
    }
}

void check_shared_domain(struct edu *a, struct edu *b)
{
    unsigned groups[2] = {a->group, b->group};
    struct station sa = {.edu = a}, sb = {.edu = b};
    uint8_t *pages = memory_get(2 * PAGE, PAGE);
    uint64_t seed = pattern_new_seed();
    int container, fds[2];
    int error = vfio_open(groups, 2, &container, fds);
    bool ok;

    errno = -error;
    if (!check(!error && pages, "%s and %s: one container for both", a->bdf, b->bdf)) {
        return;
    }
    sa.container = sb.container = container;
    sa.window = sb.window = pages;
    ok = !vfio_map(container, WINDOW_IOVA, pages, PAGE, DMA_BOTH) &&
         !vfio_map(container, SHARED_IOVA, pages + PAGE, PAGE, DMA_BOTH) &&
         !edu_open(a, fds[0]) && !edu_open(b, fds[1]);
    ok = ok && station_load(&sa, seed) && !edu_to_ram(a, SHARED_IOVA, 0, PAGE) &&
         !edu_from_ram(b, SHARED_IOVA, 0, PAGE) && station_show(&sb);
    report_detail("the bytes are not those sent");
    ok = ok && pattern_matches(pages, 0, PAGE, seed);
    if (check(ok, "%s writes, %s reads: one domain", a->bdf, b->bdf) &&
        check(!vfio_unmap(container, SHARED_IOVA, PAGE), "unmap it")) {
        write_refused(&sa, SHARED_IOVA, pages + PAGE, FAULT_REASON_WRITE, "unmapped for both");
        write_refused(&sb, SHARED_IOVA, pages + PAGE, FAULT_REASON_WRITE, "unmapped for both");
    }
    edu_close(a);
    edu_close(b);
    vfio_close(container, fds, 2);
    memory_put(pages, 2 * PAGE);
}
