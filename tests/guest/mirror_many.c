/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * mirror_many.c - more mappings than the host takes, and a host that fails.  See mirror_checks.h.
 *
 * The many pages share a few pages of inner memory, in an order in which no two neighbours are
 * beside each other: each is a mapping of its own.
 */
#include <errno.h>
#include <inttypes.h>
#include <time.h>

#include "iova.h"
#include "kmsg.h"
#include "memory.h"
#include "mirror_checks.h"
#include "report.h"

#define MANY_BASE (1ull << 32)

enum {
    STRIDE = 7,
    RETRY_SECONDS = 120,
    FEW = 100,                  /* differences that may be remembered */
};

static double now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static uint64_t many_iova(unsigned i)
{
    return MANY_BASE + (uint64_t)i * PAGE;
}

static uint64_t many_gpa(unsigned i)
{
    return POOL + (uint64_t)(i * STRIDE % POOL_PAGES) * PAGE;
}

static void map_many(struct mirror *m, unsigned pages)
{
    double begin = now();

    for (unsigned i = 0; i < pages; i++) {
        mirror_map(m, many_iova(i), many_gpa(i), SPEC_R | SPEC_W);
    }
    mirror_invalidate_domain(m);
    note("%u pages, %u map calls: %.1f s", pages, m->maps, now() - begin);
}

static void unmap_many(struct mirror *m, unsigned first, unsigned end)
{
    double begin = now();

    for (unsigned i = first; i < end; i++) {
        mirror_unmap(m, many_iova(i));
    }
    mirror_invalidate_domain(m);
    note("%u pages unmapped: %.1f s", end - first, now() - begin);
}

static bool reaches(struct mirror *m, unsigned i)
{
    return mirror_reaches(m, many_iova(i), mirror_host(m, many_gpa(i)));
}

/* The kernel's own count agrees. */
static void check_left(struct mirror *m, int64_t wanted)
{
    int64_t left = host_mappings_left(&m->host);

    if (left >= 0) {
        report_detail("%" PRId64 " left, %" PRId64 " wanted", left, wanted);
        check(left == wanted, "the kernel has room for %" PRId64 " more", left);
    }
}

void check_many(struct mirror *m, const struct mirror_plan *plan)
{
    unsigned before = (unsigned)mirror_status(m).mappings;
    unsigned fit = plan->limit - before, missing = plan->pages - fit;
    struct viommu_subscriber_status status;

    mirror_forget(m);
    map_many(m, plan->pages);
    status = mirror_status(m);
    report_detail("%" PRIu64 " mapped, %" PRIu64 " differences, %u missing", status.mappings,
                  status.differences, missing);
    check(status.mappings == plan->limit && status.differences == missing && !status.fenced,
          "%u scattered pages: %u mappings, %u differences", plan->pages, plan->limit, missing);
    report_detail("%u events", m->events[VIOMMU_EVENT_DIFFERS]);
    check(m->events[VIOMMU_EVENT_DIFFERS] == 1 && m->events[VIOMMU_EVENT_FENCED] == 0,
          "one event tells of them");
    check_left(m, 0);
    check(reaches(m, 0) && reaches(m, fit / 2), "DMA to those that fit, both ways");
    write_refused(&m->station, many_iova(plan->pages - 1),
                  mirror_host(m, many_gpa(plan->pages - 1)), FAULT_REASON_WRITE,
                  "write to one that did not fit");

    /* As many go as are missing, and a few more. */
    unmap_many(m, 0, missing + FEW);
    report_detail("%" PRIu64 " differences", mirror_status(m).differences);
    check(mirror_wait_differences(m, 0, RETRY_SECONDS), "%u go: the others are mapped",
          missing + FEW);
    report_detail("%" PRIu64 " mappings", mirror_status(m).mappings);
    check(mirror_status(m).mappings == plan->limit - FEW, "%u mappings", plan->limit - FEW);
    check_left(m, FEW);
    report_detail("%u events", m->events[VIOMMU_EVENT_FOLLOWS]);
    check(m->events[VIOMMU_EVENT_FOLLOWS] == 1, "one event tells that it follows");
    check(reaches(m, plan->pages - 1), "DMA to one that did not fit before, both ways");
    unmap_many(m, missing + FEW, plan->pages);
    report_detail("%" PRIu64 " mappings", mirror_status(m).mappings);
    check(mirror_status(m).mappings == before, "all go");
}

/* The device is fenced: nothing is mapped, and no DMA gets through. */
static void check_fenced(struct mirror *m)
{
    report_detail("fenced %d, %u calls of fence, %u events FENCED, %u DENIED",
                  mirror_status(m).fenced, m->fences, m->events[VIOMMU_EVENT_FENCED],
                  m->events[VIOMMU_EVENT_DENIED]);
    check(mirror_status(m).fenced && m->fences == 1 && m->events[VIOMMU_EVENT_FENCED] == 1 &&
              m->events[VIOMMU_EVENT_DENIED] == 1,
          "the fence falls, once, and two events tell");
    report_detail("%" PRIu64 " mappings", mirror_status(m).mappings);
    check(mirror_status(m).mappings == 0, "nothing is mapped any more");
}

/* Nothing arrives in the window, which the tables still map. */
static void check_no_dma(struct mirror *m, bool fault, const char *what)
{
    struct kmsg_fault expected = {
        .write = true,
        .source = m->station.edu->source,
        .addr = WINDOW_IOVA,
        .reason = FAULT_REASON_WRITE,
    };
    uint64_t canary = pattern_new_seed();
    struct kmsg_wait wait;
    bool told = true;

    pattern_fill(m->window, PAGE, canary);
    if (fault) {
        kmsg_before_storm(&wait);
    }
    edu_to_ram(m->station.edu, WINDOW_IOVA, 0, PAGE);
    if (fault) {
        told = kmsg_after_storm(&wait, &expected);
    }
    report_detail("%s", told ? "MEMORY CHANGED" : "no fault interrupt");
    check(told && pattern_matches(m->window, 0, PAGE, canary), "%s", what);
}

/* A reset of the device lets it in again: it gets what the tables say now. */
static void check_let_in(struct mirror *m)
{
    int error = viommu_device_reset(m->device);

    errno = -error;
    check(!error, "the device is reset");
    mirror_invalidate_domain(m);
    report_detail("fenced, or not all is mapped");
    check(!mirror_status(m).fenced && mirror_wait_differences(m, 0, RETRY_SECONDS) &&
              mirror_reaches(m, WINDOW_IOVA + PAGE, m->window + PAGE),
          "it is let in again: DMA both ways");
}

void check_too_many(struct mirror *m, const struct mirror_plan *plan)
{
    /* The library is told of a higher limit than VFIO has: the kernel itself refuses. */
    uint64_t mappings_max = m->host.iommufd ? plan->limit : plan->limit + 10 * FEW;

    if (!mirror_unsubscribe(m) || !mirror_subscribe(m, mappings_max, FEW)) {
        return;
    }
    check(mirror_reaches(m, WINDOW_IOVA + PAGE, m->window + PAGE),
          "a new backend has what the tables say: DMA both ways");
    mirror_forget(m);
    map_many(m, plan->limit + 2 * FEW);
    if (!m->host.iommufd) {
        report_detail("%u", m->refused);
        check(m->refused > FEW, "the kernel refuses what is too many");
    }
    check_fenced(m);
    check_left(m, plan->limit);
    check_no_dma(m, true, "DMA is stopped, and the kernel tells");
    unmap_many(m, 0, plan->limit + 2 * FEW);
    check_let_in(m);
}

void check_cut_off(struct mirror *m)
{
    int error;

    mirror_map(m, MANY_BASE, POOL, SPEC_R | SPEC_W);
    mirror_invalidate(m, MANY_BASE, 0);
    mirror_forget(m);
    error = host_break(&m->host);
    errno = -error;
    if (!check(!error, "the kernel refuses every call")) {
        return;
    }
    mirror_unmap(m, MANY_BASE);
    mirror_invalidate(m, MANY_BASE, 0);
    report_detail("fenced %d, cut off %u times", mirror_status(m).fenced, m->host.cut_offs);
    check(mirror_status(m).fenced && m->fences == 1 && m->host.cut_offs == 1,
          "an unmap fails: the fence falls, the device is cut off");
    check_no_dma(m, false, "no DMA of it gets through");
    host_mend(&m->host);
    edu_bus_master(m->station.edu, true);
}
