/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * allowed.c - checks of one edu device doing what its mappings allow.  See device_checks.h.
 *
 * All IOVAs lie between IOVA_FIRST and IOVA_LAST (iova.h), except the highest one there is.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "device_checks.h"
#include "init.h"
#include "iova.h"
#include "memory.h"
#include "report.h"
#include "vfio.h"

enum {
    FIRED_MS = 5000,
};

bool station_open(struct station *s, struct edu *edu)
{
    int error;

    memset(s, 0, sizeof(*s));
    s->edu = edu;
    s->window = memory_get(PAGE, PAGE);
    if (!s->window) {
        return check(false, "%s: memory", edu->bdf);
    }
    error = vfio_open(&edu->group, 1, &s->container, &s->group_fd);
    if (error) {
        errno = -error;
        return check(false, "%s: VFIO opens group %u", edu->bdf, edu->group);
    }
    error = vfio_map(s->container, WINDOW_IOVA, s->window, PAGE, DMA_BOTH);
    if (!error) {
        error = edu_open(edu, s->group_fd);
    }
    errno = -error;
    if (!check(!error, "%s: VFIO opens group %u and the device%s", edu->bdf, edu->group,
               vfio_was_unsafe() ? ", with unsafe interrupts" : "")) {
        vfio_close(s->container, &s->group_fd, 1);
        return false;
    }
    return true;
}

void station_close(struct station *s)
{
    edu_close(s->edu);
    vfio_close(s->container, &s->group_fd, 1);
    memory_put(s->window, PAGE);
}

bool station_load(struct station *s, uint64_t seed)
{
    pattern_fill(s->window, PAGE, seed);
    return edu_from_ram(s->edu, WINDOW_IOVA, 0, PAGE) == 0;
}

bool station_show(struct station *s)
{
    memset(s->window, 0, PAGE);
    return edu_to_ram(s->edu, WINDOW_IOVA, 0, PAGE) == 0;
}

static void check_identity(struct station *s)
{
    struct edu *edu = s->edu;
    uint32_t id = edu_read(edu, EDU_ID);
    uint32_t alive;

    report_detail("reads %08x", id);
    check((id & 0xffff) == 0x00ed, "%s: identification %08x", edu->bdf, id);
    edu_write(edu, EDU_LIVENESS, 0x12345678);
    alive = edu_read(edu, EDU_LIVENESS);
    report_detail("reads %08x", alive);
    check(alive == ~0x12345678u, "%s: liveness", edu->bdf);
}

static void check_both_ways(struct station *s)
{
    uint64_t seed = pattern_new_seed();
    bool done = station_load(s, seed);

    check(done, "%s: DMA of 4096 bytes from RAM ends", s->edu->bdf);
    done = station_show(s);
    report_detail("%s", done ? "the bytes are not those sent" : "no end");
    check(done && pattern_matches(s->window, 0, PAGE, seed),
          "%s: DMA of 4096 bytes to RAM brings the same bytes", s->edu->bdf);
}

/* Two pages beside each other for the device, apart in memory. */
static void check_page_border(struct station *s)
{
    static const struct {
        unsigned offset, count;
    } parts[] = {{0, 1}, {PAGE - 1, 1}, {PAGE - 1, 2}, {PAGE - 3, 7}, {PAGE / 2, PAGE}};
    uint8_t *arena = memory_get(3 * PAGE, PAGE);
    bool same = arena != NULL;

    if (!same || vfio_map(s->container, PAIR_IOVA, arena + 2 * PAGE, PAGE, DMA_BOTH) ||
        vfio_map(s->container, PAIR_IOVA + PAGE, arena, PAGE, DMA_BOTH)) {
        check(false, "%s: map two pages", s->edu->bdf);
        return;
    }
    for (unsigned i = 0; same && i < sizeof(parts) / sizeof(parts[0]); i++) {
        uint64_t seed = pattern_new_seed();
        unsigned count = parts[i].count, first = PAGE - parts[i].offset;
        unsigned low = count < first ? count : first;

        memset(arena, 0, 3 * PAGE);
        same = station_load(s, seed) &&
               !edu_to_ram(s->edu, PAIR_IOVA + parts[i].offset, 0, count) &&
               pattern_matches(arena + 2 * PAGE + parts[i].offset, 0, low, seed) &&
               pattern_matches(arena, low, count - low, seed) &&
               arena[count - low] == 0 && arena[PAGE] == 0 &&
               (parts[i].offset == 0 || arena[2 * PAGE + parts[i].offset - 1] == 0);
        report_detail("offset %u, %u bytes", parts[i].offset, count);
    }
    check(same, "%s: DMA to RAM over a page border, and of few bytes", s->edu->bdf);

    /* The other way: what crosses the border must arrive whole. */
    memset(arena, 0, 3 * PAGE);
    pattern_fill(arena + 2 * PAGE, PAGE, 1);
    pattern_fill(arena, PAGE, 2);
    same = !edu_from_ram(s->edu, PAIR_IOVA + PAGE / 2, 0, PAGE) && station_show(s) &&
           pattern_matches(s->window, PAGE / 2, PAGE / 2, 1) &&
           pattern_matches(s->window + PAGE / 2, 0, PAGE / 2, 2);
    report_detail("the bytes are not those sent");
    check(same, "%s: DMA from RAM over a page border", s->edu->bdf);
    vfio_unmap(s->container, PAIR_IOVA, 2 * PAGE);
    memory_put(arena, 3 * PAGE);
}

/* Each page of an IOVA range is another page of memory, in an order that is mixed up. */
static void check_scattered(struct station *s, unsigned pages)
{
    uint8_t *arena = memory_get((size_t)pages * PAGE, PAGE);
    unsigned *order = calloc(pages, sizeof(*order));
    bool same = arena && order;
    unsigned at = 0;

    for (unsigned i = 0; same && i < pages; i++) {
        order[i] = i;
    }
    for (unsigned i = pages; same && i > 1; i--) {
        unsigned j = (i * 2654435761u >> 7) % i, t = order[i - 1];

        order[i - 1] = order[j];
        order[j] = t;
    }
    for (unsigned i = 0; same && i < pages; i++) {
        same = !vfio_map(s->container, MANY_IOVA + (uint64_t)i * PAGE,
                         arena + (size_t)order[i] * PAGE, PAGE, DMA_BOTH);
        pattern_fill(arena + (size_t)i * PAGE, PAGE, i + 1);
    }
    check(same, "%s: map %u scattered pages", s->edu->bdf, pages);
    for (at = 0; same && at < pages; at++) {
        same = !edu_from_ram(s->edu, MANY_IOVA + (uint64_t)at * PAGE, 0, PAGE) &&
               station_show(s) && pattern_matches(s->window, 0, PAGE, order[at] + 1);
    }
    report_detail("page %u is not what RAM holds", at - 1);
    check(same, "%s: DMA from %u scattered pages", s->edu->bdf, pages);
    for (at = 0; same && at < pages; at++) {
        same = station_load(s, 1000 + at) &&
               !edu_to_ram(s->edu, MANY_IOVA + (uint64_t)at * PAGE, 0, PAGE);
    }
    for (at = 0; same && at < pages; at++) {
        same = pattern_matches(arena + (size_t)order[at] * PAGE, 0, PAGE, 1000 + at);
    }
    report_detail("page %u did not get its bytes", at - 1);
    check(same, "%s: DMA to %u scattered pages", s->edu->bdf, pages);
    report_detail("%s", "unmap failed");
    check(!vfio_unmap(s->container, MANY_IOVA, (size_t)pages * PAGE), "%s: unmap them at once",
          s->edu->bdf);
    if (arena) {
        memory_put(arena, (size_t)pages * PAGE);
    }
    free(order);
}

/* A region of 2 MiB, then one small page at the same IOVA. */
static void check_super_page(struct station *s)
{
    static const unsigned offsets[] = {0, 0x1000, 0x123000, SUPER_PAGE - PAGE};
    uint8_t *big = memory_get(SUPER_PAGE, SUPER_PAGE);
    uint8_t *small = memory_get(PAGE, PAGE);
    bool super = big && memory_is_super_page(big, SUPER_PAGE);
    uint64_t seed = 0;
    bool same;

    same = big && small && !vfio_map(s->container, SUPER_IOVA, big, SUPER_PAGE, DMA_BOTH);
    for (unsigned i = 0; same && i < sizeof(offsets) / sizeof(offsets[0]); i++) {
        seed = pattern_new_seed();
        same = station_load(s, seed) && !edu_to_ram(s->edu, SUPER_IOVA + offsets[i], 0, PAGE) &&
               pattern_matches(big + offsets[i], 0, PAGE, seed);
        report_detail("offset %#x", offsets[i]);
    }
    check(same, "%s: DMA to 2 MiB (%s in memory)", s->edu->bdf,
          super ? "one piece" : "many pieces");
    same = same && !vfio_unmap(s->container, SUPER_IOVA, SUPER_PAGE) &&
           !vfio_map(s->container, SUPER_IOVA + SUPER_PAGE - PAGE, small, PAGE, DMA_BOTH) &&
           station_load(s, seed + 1) &&
           !edu_to_ram(s->edu, SUPER_IOVA + SUPER_PAGE - PAGE, 0, PAGE) &&
           pattern_matches(small, 0, PAGE, seed + 1) &&
           pattern_matches(big + SUPER_PAGE - PAGE, 0, PAGE, seed);
    report_detail("DMA still reaches the old memory, or nothing");
    check(same, "%s: a small page in place of the 2 MiB is seen at once", s->edu->bdf);
    pattern_new_seed();
    vfio_unmap(s->container, SUPER_IOVA + SUPER_PAGE - PAGE, PAGE);
    if (big) {
        memory_put(big, SUPER_PAGE);
    }
    if (small) {
        memory_put(small, PAGE);
    }
}

static void check_highest(struct station *s)
{
    uint64_t seed = pattern_new_seed(), last = 0, iova;
    uint8_t *page = memory_get(PAGE, PAGE);
    int error = vfio_last_iova(s->container, &last);
    bool same;

    iova = last & ~(uint64_t)(PAGE - 1);
    errno = -error;
    same = !error && page && !vfio_map(s->container, iova, page, PAGE, DMA_BOTH);
    same = same && station_load(s, seed) && !edu_to_ram(s->edu, iova, 0, PAGE) &&
           pattern_matches(page, 0, PAGE, seed);
    check(same, "%s: DMA to the highest page there is, %#llx", s->edu->bdf,
          (unsigned long long)iova);
    vfio_unmap(s->container, iova, PAGE);
    if (page) {
        memory_put(page, PAGE);
    }
}

/* The same IOVA leads to two pages in turn. */
static void check_remap(struct station *s, unsigned rounds)
{
    uint8_t *pages = memory_get(2 * PAGE, PAGE);
    bool same = pages != NULL;
    unsigned i;

    for (i = 0; same && i < rounds; i++) {
        uint8_t *now = pages + (i & 1) * PAGE;
        uint8_t *old = pages + (~i & 1) * PAGE;
        uint64_t seed = pattern_new_seed();

        same = !vfio_map(s->container, REMAP_IOVA, now, PAGE, DMA_BOTH) && station_load(s, seed) &&
               !edu_to_ram(s->edu, REMAP_IOVA, 0, PAGE) && pattern_matches(now, 0, PAGE, seed) &&
               (i == 0 || pattern_matches(old, 0, PAGE, seed - 1)) &&
               !vfio_unmap(s->container, REMAP_IOVA, PAGE);
    }
    report_detail("round %u", i - 1);
    check(same, "%s: another page at the same IOVA is seen at once, %u times", s->edu->bdf, rounds);
    if (pages) {
        memory_put(pages, 2 * PAGE);
    }
}

/* More invalidations than the driver's queue has room for. */
static void check_storm(struct station *s, unsigned cycles)
{
    uint8_t *page = memory_get(PAGE, PAGE);
    uint64_t seed = pattern_new_seed();
    bool same = page != NULL;

    for (unsigned i = 0; same && i < cycles; i++) {
        uint64_t iova = STORM_IOVA + (uint64_t)(i & 7) * PAGE;

        same = !vfio_map(s->container, iova, page, PAGE, DMA_BOTH) &&
               !vfio_unmap(s->container, iova, PAGE);
    }
    same = same && !vfio_map(s->container, STORM_IOVA, page, PAGE, DMA_BOTH) &&
           station_load(s, seed) && !edu_to_ram(s->edu, STORM_IOVA, 0, PAGE) &&
           pattern_matches(page, 0, PAGE, seed) && !vfio_unmap(s->container, STORM_IOVA, PAGE);
    check(same, "%s: %u times map and unmap, then DMA", s->edu->bdf, cycles);
    if (page) {
        memory_put(page, PAGE);
    }
}

struct mapper {
    struct station *station;
    unsigned cycles;
    bool failed;
    bool done;      /* atomic */
};

static void *map_and_unmap(void *arg)
{
    struct mapper *m = arg;
    uint8_t *page = memory_get(PAGE, PAGE);

    m->failed = page == NULL;
    for (unsigned i = 0; !m->failed && i < m->cycles; i++) {
        m->failed = vfio_map(m->station->container, STORM_IOVA, page, PAGE, DMA_BOTH) ||
                    vfio_unmap(m->station->container, STORM_IOVA, PAGE);
    }
    if (page) {
        memory_put(page, PAGE);
    }
    __atomic_store_n(&m->done, true, __ATOMIC_RELEASE);
    return NULL;
}

/* DMA through one mapping while another thread changes the table beside it. */
static void check_meanwhile(struct station *s, unsigned cycles)
{
    struct mapper mapper = {.station = s, .cycles = cycles};
    unsigned rounds = 0;
    pthread_t thread;
    bool same = true, last;

    if (pthread_create(&thread, NULL, map_and_unmap, &mapper)) {
        check(false, "%s: a second thread", s->edu->bdf);
        return;
    }
    do {
        uint64_t seed = pattern_new_seed();

        last = __atomic_load_n(&mapper.done, __ATOMIC_ACQUIRE);
        same = station_load(s, seed) && station_show(s) &&
               pattern_matches(s->window, 0, PAGE, seed);
        rounds++;
    } while (same && !last);
    pthread_join(thread, NULL);
    report_detail("%s", same ? "map or unmap failed" : "the bytes are not those sent");
    check(same && !mapper.failed, "%s: %u DMAs while another thread maps and unmaps %u times",
          s->edu->bdf, 2 * rounds, cycles);
}

/* Did the eventfd fire, on however slow a machine? */
static bool fired(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    uint64_t count;

    return poll(&p, 1, FIRED_MS) == 1 && read(fd, &count, sizeof(count)) == sizeof(count);
}

static void check_msi(struct station *s)
{
    struct edu *edu = s->edu;
    int fd, error;
    bool ok;

    if (init_word("pci=nomsi")) {
        return; /* the kernel's VFIO lets nobody have it */
    }
    fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    error = vfio_set_msi(edu->fd, fd);
    errno = -error;
    if (!check(!error, "%s: MSI on an eventfd", edu->bdf)) {
        close(fd);
        return;
    }
    edu_write(edu, EDU_IRQ_RAISE, 0x5);
    ok = fired(fd);
    report_detail("%s", ok ? "wrong status" : "no interrupt");
    ok = ok && edu_read(edu, EDU_IRQ_STATUS) == 0x5;
    edu_write(edu, EDU_IRQ_ACK, 0x5);
    check(ok && edu_read(edu, EDU_IRQ_STATUS) == 0, "%s: MSI arrives, status and acknowledgement",
          edu->bdf);
    ok = !edu_to_ram_irq(edu, WINDOW_IOVA, 0, 16) && fired(fd);
    report_detail("%s", ok ? "wrong status" : "no interrupt");
    ok = ok && edu_read(edu, EDU_IRQ_STATUS) == EDU_DMA_IRQ;
    edu_write(edu, EDU_IRQ_ACK, EDU_DMA_IRQ);
    check(ok, "%s: MSI at the end of a DMA", edu->bdf);
    vfio_set_msi(edu->fd, -1);
    close(fd);
}

void check_allowed(struct station *s, const struct plan *plan)
{
    check_identity(s);
    check_both_ways(s);
    check_page_border(s);
    check_scattered(s, plan->pages);
    check_super_page(s);
    check_highest(s);
    check_remap(s, plan->pages < 16 ? plan->pages : 16);
    check_storm(s, plan->storm);
    check_meanwhile(s, plan->storm);
    check_msi(s);
}
