/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * mirror_checks.c - a real device's real mappings follow the tables of an inner guest.  See
 * mirror_checks.h.
 *
 * Each check looks from both ends: at the calls that the backend got, and at what the device's DMA
 * reaches in memory.
 */
#include "mirror_checks.h"

#include <errno.h>
#include <string.h>

#include "iova.h"
#include "kmsg.h"
#include "memory.h"
#include "report.h"

enum {
    /* The checks' own place, beyond what iova.h has and below the big page. */
    THREE_IOVA = 0x20000000,
    PERM_IOVA = 0x20200000,
    REWRITE_IOVA = 0x20400000,
    PLUG_IOVA = 0x20600000,
    BIG_IOVA = 0x20800000,
    ORDER_2_MIB = 9,
};

/* A page of inner memory, the n-th of the pool: none beside another when n is even. */
static uint64_t pool_page(unsigned n)
{
    return POOL + (uint64_t)n * PAGE;
}

/* The calls were so many; shows them when not. */
static bool calls_are(struct mirror *m, unsigned maps, unsigned unmaps)
{
    bool ok = m->maps == maps && m->unmaps == unmaps && m->refused == 0;

    if (!ok) {
        report_detail("%u maps and %u unmaps (%u and %u wanted), %u failed", m->maps, m->unmaps,
                      maps, unmaps, m->refused);
        mirror_show_calls(m);
    }
    return ok;
}

/* ---- translation off and on ---- */

static void check_identity(struct mirror *m)
{
    uint8_t *page = mirror_host(m, pool_page(0));

    check(calls_are(m, 3, 0), "translation off: a mapping for each of the 3 pieces of memory");
    check(mirror_reaches(m, pool_page(0), page),
          "translation off: DMA reaches inner memory, both ways");
}

static bool translate(struct mirror *m)
{
    struct guest *guest = &m->guest;

    m->table = guest_page(guest);
    for (unsigned at = 0; at < WINDOW_SIZE; at += PAGE) {
        mirror_map(m, WINDOW_IOVA + at, WINDOW_IOVA + at, SPEC_R | SPEC_W);
    }
    guest_attach(guest, viommu_device_requester(m->device), MIRROR_DOMAIN, m->table, 4,
                 SPEC_TT_UNTRANSLATED);
    guest_set_root(guest);
    guest_queue_on(guest);
    mirror_forget(m);
    guest_command(guest, SPEC_TE, true);
    mirror_invalidate_domain(m);
    return true;
}

bool check_start(struct mirror *m)
{
    if (!mirror_subscribe(m, 0, 0)) {
        return false;
    }
    check_identity(m);
    translate(m);
    report_detail("not exactly the other pieces went");
    check(mirror_calls_at(m, VIOMMU_CHANGE_UNMAP, 0, RAM_SIZE - 1) == 1 &&
              mirror_calls_at(m, VIOMMU_CHANGE_UNMAP, PLUG, PLUG + PLUG_SIZE - 1) == 1,
          "translation on: memory that the tables do not name is unmapped");
    check(mirror_reaches(m, WINDOW_IOVA + PAGE, m->window + PAGE),
          "translation on: DMA through the tables, both ways");
    write_refused(&m->station, pool_page(2), mirror_host(m, pool_page(2)), FAULT_REASON_WRITE,
                  "write to what the tables do not name");
    return report_failures() == 0;
}

/* ---- changes ---- */

/* P1 stays while P2 and P3 go, by one invalidation of the 2 MiB around them. */
void check_three_pages(struct mirror *m)
{
    static const unsigned at[] = {10, 20, 30};

    mirror_forget(m);
    for (unsigned i = 0; i < 3; i++) {
        mirror_map(m, THREE_IOVA + i * PAGE, pool_page(at[i]), SPEC_R | SPEC_W);
    }
    mirror_invalidate(m, THREE_IOVA, ORDER_2_MIB);
    check(calls_are(m, 3, 0), "three pages: each is mapped");
    check(mirror_reaches(m, THREE_IOVA, mirror_host(m, pool_page(10))) &&
              mirror_reaches(m, THREE_IOVA + 2 * PAGE, mirror_host(m, pool_page(30))),
          "three pages: DMA both ways");
    mirror_forget(m);
    mirror_unmap(m, THREE_IOVA + PAGE);
    mirror_unmap(m, THREE_IOVA + 2 * PAGE);
    mirror_invalidate(m, THREE_IOVA, ORDER_2_MIB);
    check(calls_are(m, 0, m->unmaps) && m->unmaps >= 1 && m->unmaps <= 2 &&
              mirror_calls_at(m, VIOMMU_CHANGE_UNMAP, THREE_IOVA, THREE_IOVA + PAGE - 1) == 0,
          "two of three unmapped: the first was never away");
    check(mirror_reaches(m, THREE_IOVA, mirror_host(m, pool_page(10))),
          "two of three unmapped: DMA reaches the first");
    write_refused(&m->station, THREE_IOVA + PAGE, mirror_host(m, pool_page(20)),
                  FAULT_REASON_WRITE, "write to the second");
    read_refused(&m->station, THREE_IOVA + 2 * PAGE, mirror_host(m, pool_page(30)),
                 FAULT_REASON_READ, "read from the third");
    mirror_unmap(m, THREE_IOVA);
    mirror_invalidate(m, THREE_IOVA, 0);
}

void check_nothing_changed(struct mirror *m)
{
    mirror_forget(m);
    mirror_invalidate_domain(m);
    mirror_invalidate(m, THREE_IOVA, ORDER_2_MIB);
    mirror_invalidate(m, WINDOW_IOVA, ORDER_2_MIB);
    check(calls_are(m, 0, 0), "invalidations with nothing changed: no call");
}

void check_permissions(struct mirror *m)
{
    uint8_t *page = mirror_host(m, pool_page(40));
    uint64_t seed = pattern_new_seed();

    mirror_map(m, PERM_IOVA, pool_page(40), SPEC_R | SPEC_W);
    mirror_invalidate(m, PERM_IOVA, 0);
    check(mirror_reaches(m, PERM_IOVA, page), "a page to read and write: DMA both ways");
    mirror_forget(m);
    mirror_map(m, PERM_IOVA, pool_page(40), SPEC_R);
    mirror_invalidate(m, PERM_IOVA, 0);
    check(calls_are(m, 1, 1), "it becomes read-only: one unmap, one map");
    write_refused(&m->station, PERM_IOVA, page, FAULT_REASON_WRITE, "write to it");
    pattern_fill(page, PAGE, seed);
    report_detail("the bytes are not those sent");
    check(!edu_from_ram(m->station.edu, PERM_IOVA, 0, PAGE) && station_show(&m->station) &&
              pattern_matches(m->station.window, 0, PAGE, seed),
          "it can be read");
    mirror_unmap(m, PERM_IOVA);
    mirror_invalidate(m, PERM_IOVA, 0);
}

/* The guest writes another target into a live entry. */
void check_rewrite(struct mirror *m)
{
    uint8_t *before = mirror_host(m, pool_page(50)), *after = mirror_host(m, pool_page(60));
    uint64_t canary = pattern_new_seed();
    const struct viommu_event *event = &m->last_event[VIOMMU_EVENT_REWRITTEN];

    mirror_map(m, REWRITE_IOVA, pool_page(50), SPEC_R | SPEC_W);
    mirror_invalidate(m, REWRITE_IOVA, 0);
    check(mirror_reaches(m, REWRITE_IOVA, before), "an entry: DMA both ways");
    mirror_forget(m);
    mirror_map(m, REWRITE_IOVA, pool_page(60), SPEC_R | SPEC_W);
    mirror_invalidate(m, REWRITE_IOVA, 0);
    check(calls_are(m, 1, 1), "it is rewritten live: one unmap, one map");
    report_detail("%u events", m->events[VIOMMU_EVENT_REWRITTEN]);
    check(m->events[VIOMMU_EVENT_REWRITTEN] == 1 && event->first == REWRITE_IOVA &&
              event->from_gpa == pool_page(50) && event->to_gpa == pool_page(60),
          "an event tells of it");
    pattern_fill(before, PAGE, canary);
    check(mirror_reaches(m, REWRITE_IOVA, after), "DMA reaches the new page");
    report_detail("MEMORY CHANGED");
    check(pattern_matches(before, 0, PAGE, canary), "and not the old one");
    mirror_unmap(m, REWRITE_IOVA);
    mirror_invalidate(m, REWRITE_IOVA, 0);
}

/* 2 MiB; the same in small pages; one of them goes. */
void check_big_page(struct mirror *m)
{
    uint64_t middle = BIG_IOVA + SUPER_PAGE / 2;
    uint8_t *memory = mirror_host(m, BIG);

    mirror_forget(m);
    mirror_map_big(m, BIG_IOVA, BIG);
    mirror_invalidate(m, BIG_IOVA, ORDER_2_MIB);
    check(calls_are(m, 1, 0), "a page of 2 MiB is one mapping");
    check(mirror_reaches(m, middle, memory + SUPER_PAGE / 2), "DMA to its middle, both ways");
    mirror_forget(m);
    mirror_split(m, BIG_IOVA, BIG);
    mirror_invalidate(m, BIG_IOVA, ORDER_2_MIB);
    check(calls_are(m, 0, 0), "512 small pages in its place: no call");
    mirror_unmap(m, middle);
    mirror_invalidate(m, middle, 0);
    check(calls_are(m, 2, 1), "one of them goes: the rest is mapped again, in two pieces");
    write_refused(&m->station, middle, memory + SUPER_PAGE / 2, FAULT_REASON_WRITE, "write to it");
    check(mirror_reaches(m, middle - PAGE, memory + SUPER_PAGE / 2 - PAGE) &&
              mirror_reaches(m, middle + PAGE, memory + SUPER_PAGE / 2 + PAGE),
          "DMA to its neighbours, both ways");
    for (unsigned at = 0; at < SUPER_PAGE; at += PAGE) {
        mirror_unmap(m, BIG_IOVA + at);
    }
    mirror_forget(m);
    mirror_invalidate(m, BIG_IOVA, ORDER_2_MIB);
    report_detail("%u maps, %u unmaps", m->maps, m->unmaps);
    check(m->maps == 0 && m->unmaps >= 1 && m->unmaps <= 2, "all of them go");
}

/* Guest memory is unplugged while the tables lead to it, and plugged in again. */
void check_memory_goes(struct mirror *m)
{
    mirror_map(m, PLUG_IOVA, PLUG + PAGE, SPEC_R | SPEC_W);
    mirror_invalidate(m, PLUG_IOVA, 0);
    check(mirror_reaches(m, PLUG_IOVA, m->plug + PAGE), "a page of pluggable memory: DMA");
    mirror_forget(m);
    check(mirror_plug(m, false), "the memory goes");
    check(calls_are(m, 0, 1), "the memory goes: it is unmapped before");
    write_refused(&m->station, PLUG_IOVA, m->plug + PAGE, FAULT_REASON_WRITE,
                  "write to memory that went");
    mirror_forget(m);
    check(mirror_plug(m, true), "the memory comes back");
    check(calls_are(m, 1, 0) && mirror_reaches(m, PLUG_IOVA, m->plug + PAGE),
          "the memory comes back: it is mapped, DMA");
    mirror_unmap(m, PLUG_IOVA);
    mirror_invalidate(m, PLUG_IOVA, 0);
}
