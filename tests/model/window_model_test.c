/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pinned windows against a brute-force rule of who waits for whom.
 *
 * Random pins, releases, invalidations of every kind, removals of memory, sections, time, devices
 * that go and come. The rule keeps, for every operation, the set of windows that it has to wait
 * for, and looks at all of it after every step: which wait descriptors were written, who was asked,
 * who was not, since it leads where it led, who was too late, what is denied, whether memory is
 * gone.
 *
 * Two domains of eight pages and one large page; two devices, the first with an alias in the other
 * domain. Page-selective invalidations drop their pages twice while a section is open, so what is
 * pinned in between may be waited for: then nothing is pinned in between.
 */
#include "support/guest.h"
#include "support/random.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGES 8u
#define LARGE PAGES /* a page number that stands for the large page */
#define WINDOWS 12
#define OPERATIONS 20
#define PIECES 3
#define EXTRA 0x10000000ull
#define EXTRA_PAGES 2u
#define TIMEOUT_MS 100
#define MS 1000000ull
#define LARGE_IOVA 0x200000ull

struct window {
    struct viommu_window *window; /* NULL: none */
    unsigned revoked; /* what the holder was told */
    unsigned fenced;
    bool yields; /* releases when it is asked, or when it is fenced */
    bool yields_late;
    bool released_inside;
    /* The rule. */
    bool open;
    uint64_t serial;
    unsigned device;
    bool orphan;
    uint16_t id;
    unsigned domain;
    unsigned pages[PIECES];
    uint64_t gpas[PIECES]; /* where they led */
    unsigned count;
    bool in_extra;
    bool asked;
    bool overdue;
    bool for_memory;
    uint64_t deadline;
};

struct operation {
    uint64_t number; /* its wait descriptor writes this + 1 */
    uint64_t serial;
    bool page_selective;
    bool of_domain;
    unsigned domain;
    uint16_t id; /* with `compared` */
    uint16_t compared;
    uint64_t first;
    uint64_t last;
    bool asked;
    bool waits[WINDOWS];
};

struct model {
    struct guest guest;
    struct random random;
    uint64_t seed;
    uint64_t now;
    uint64_t serial;
    struct viommu_device *devices[2];
    bool denied[2];
    uint64_t tables[2];
    uint64_t targets[2][PAGES];
    uint64_t status; /* a page of status words */
    uint8_t *extra;
    bool extra_there;
    bool removing;
    bool removal_asked;
    bool removal_done; /* the library says so */
    uint64_t removal_serial;
    bool section;
    struct window windows[WINDOWS];
    struct operation operations[OPERATIONS]; /* under way, in order */
    unsigned count;
    uint64_t numbers;
    unsigned waited; /* operations that had to wait, to see that the test shows something */
    unsigned kept;
    unsigned late;
};

static void fail(const struct model *model, const char *text, uint64_t detail)
{
    guest_die("--seed %llu: %s (%llu)", (unsigned long long)model->seed, text,
              (unsigned long long)detail);
}

static void release(struct window *window)
{
    viommu_window_release(window->window);
    window->window = NULL;
}

static void on_revoke(void *opaque)
{
    struct window *window = opaque;

    window->revoked++;
    if (window->yields) {
        release(window);
    }
}

static int on_fence(void *opaque)
{
    struct window *window = opaque;

    window->fenced++;
    if (window->yields_late) {
        release(window);
    }
    return 0;
}

static uint64_t on_clock(void *opaque)
{
    return ((struct model *)opaque)->now;
}

static void on_gone(void *opaque)
{
    ((struct model *)opaque)->removal_done = true;
}

/* ---- the rule ---- */

static uint64_t iova_of(unsigned page)
{
    return page == LARGE ? LARGE_IOVA : page * GUEST_PAGE;
}

static bool concerned(const struct window *window, const struct operation *operation)
{
    bool large = false;

    if (!window->open || window->serial >= operation->serial ||
        ((window->id ^ operation->id) & operation->compared) ||
        (operation->of_domain && operation->domain != window->domain)) {
        return false;
    }
    for (unsigned i = 0; i < window->count; i++) {
        large |= window->pages[i] == LARGE;
    }
    for (unsigned i = 0; i < window->count; i++) {
        uint64_t mask = large ? LARGE_IOVA - 1 : GUEST_PAGE - 1;
        uint64_t iova = iova_of(window->pages[i]);

        /* One large page in a window makes all of it count as large. */
        if ((operation->first & ~mask) <= iova && (operation->last | mask) >= iova) {
            return true;
        }
    }
    return false;
}

static uint64_t gpa_of(const struct model *model, unsigned domain, unsigned page)
{
    return page == LARGE ? 0 : model->targets[domain][page];
}

/* Whether a pin of its pages would give the same now. */
static bool leads_where_it_led(const struct model *model, const struct window *window)
{
    if (window->orphan || window->for_memory || model->denied[window->device]) {
        return false;
    }
    for (unsigned i = 0; i < window->count; i++) {
        uint64_t gpa = gpa_of(model, window->domain, window->pages[i]);

        if (gpa != window->gpas[i] || (gpa >= EXTRA && !model->extra_there)) {
            return false;
        }
    }
    return true;
}

/* The window is not there any more. */
static void rule_close(struct model *model, unsigned i)
{
    model->windows[i].open = false;
    for (unsigned j = 0; j < model->count; j++) {
        model->operations[j].waits[i] = false;
    }
}

static void rule_ask(struct model *model, unsigned i)
{
    struct window *window = &model->windows[i];

    if (window->asked) {
        return;
    }
    window->asked = true;
    window->deadline = model->now + TIMEOUT_MS * MS;
    if (window->yields) {
        rule_close(model, i);
    }
}

static void rule_expire(struct model *model)
{
    for (unsigned i = 0; i < WINDOWS; i++) {
        struct window *window = &model->windows[i];

        if (!window->open || !window->asked || window->overdue || window->deadline > model->now) {
            continue;
        }
        window->overdue = true;
        model->late++;
        model->denied[window->device] |= !window->orphan;
        for (unsigned j = 0; j < model->count; j++) {
            model->operations[j].waits[i] = false;
        }
        if (window->yields_late) {
            rule_close(model, i);
        }
    }
}

/* Asks, where no section is in the way. */
static void rule_work(struct model *model)
{
    rule_expire(model);
    for (unsigned j = 0; j < model->count && !model->section; j++) {
        struct operation *operation = &model->operations[j];

        for (unsigned i = 0; i < WINDOWS && !operation->asked; i++) {
            struct window *window = &model->windows[i];

            if (!concerned(window, operation)) {
                continue;
            }
            if (!window->asked && leads_where_it_led(model, window)) {
                window->serial = ++model->serial;
                model->kept++;
            } else {
                operation->waits[i] = !model->windows[i].overdue;
                model->waited += operation->waits[i];
                rule_ask(model, i);
            }
        }
        operation->asked = true;
    }
    if (model->removing && !model->removal_asked && !model->section) {
        model->removal_asked = true;
        for (unsigned i = 0; i < WINDOWS; i++) {
            struct window *window = &model->windows[i];

            if (window->open && window->in_extra && window->serial < model->removal_serial) {
                window->for_memory = true;
                rule_ask(model, i);
            }
        }
    }
}

static bool rule_complete(const struct operation *operation)
{
    for (unsigned i = 0; i < WINDOWS; i++) {
        if (operation->waits[i]) {
            return false;
        }
    }
    return operation->asked;
}

static bool rule_removed(const struct model *model)
{
    for (unsigned i = 0; i < WINDOWS; i++) {
        if (model->windows[i].open && model->windows[i].for_memory) {
            return false;
        }
    }
    return model->removal_asked;
}

/* ---- the library beside it ---- */

static void check_windows(const struct model *model)
{
    unsigned open = 0;
    struct viommu_stats stats;

    for (unsigned i = 0; i < WINDOWS; i++) {
        const struct window *window = &model->windows[i];

        open += window->open;
        if (window->open != (window->window != NULL)) {
            fail(model, "a window is open, or is not", i);
        }
        if (window->serial && (window->revoked != window->asked ||
                               window->fenced != window->overdue)) {
            fail(model, "a holder was asked, or fenced, and should not be; or the other way", i);
        }
    }
    viommu_stats_get(model->guest.iommu, &stats, sizeof(stats));
    if (stats.windows_open != open) {
        fail(model, "windows are counted wrongly", stats.windows_open);
    }
}

/* They retire in order: the first one that is not complete holds back those behind it. */
static void check_operations(struct model *model)
{
    unsigned done = 0;

    while (done < model->count && rule_complete(&model->operations[done])) {
        done++;
    }
    for (unsigned j = 0; j < model->count; j++) {
        const struct operation *operation = &model->operations[j];
        uint64_t at = model->status + operation->number % 64 * 8;
        bool written = (uint32_t)guest_load(&model->guest, at) == (uint32_t)operation->number + 1;

        if (written != (j < done)) {
            fail(model, written ? "an invalidation completed too early"
                                : "an invalidation waits for nobody",
                 operation->number);
        }
    }
    model->count -= done;
    memmove(model->operations, model->operations + done, model->count * sizeof(struct operation));
}

static void check_memory(struct model *model)
{
    viommu_memory_process(model->guest.memory);
    if (!model->removing) {
        return;
    }
    if (model->removal_done != rule_removed(model)) {
        fail(model, model->removal_done ? "memory went too early" : "memory does not go", 0);
    }
    model->removing = !model->removal_done;
}

static void settle(struct model *model)
{
    viommu_memory_process(model->guest.memory);
    guest_process(&model->guest);
    rule_work(model);
    check_windows(model);
    check_operations(model);
    check_memory(model);
}

/* ---- steps ---- */

static uint8_t *host_of(const struct model *model, uint64_t gpa)
{
    return gpa >= EXTRA ? model->extra + (gpa - EXTRA) : model->guest.ram + gpa;
}

/* What a pin gave leads where the tables do. */
static void check_iov(const struct model *model, const struct window *window,
                      const struct viommu_range *ranges, const struct iovec *iov, size_t count)
{
    size_t at = 0;
    size_t offset = 0;

    for (unsigned i = 0; i < window->count; i++) {
        uint64_t len = ranges[i].last - ranges[i].first + 1;
        uint64_t page = gpa_of(model, window->domain, window->pages[i]);
        const uint8_t *host = host_of(model, page + ranges[i].first - iova_of(window->pages[i]));

        if (at == count || (const uint8_t *)iov[at].iov_base + offset != host ||
            iov[at].iov_len - offset < len) {
            fail(model, "a window leads elsewhere", i);
        }
        offset += (size_t)len;
        if (offset == iov[at].iov_len) {
            at++;
            offset = 0;
        }
    }
    if (at != count) {
        fail(model, "a window has more than was asked for", count);
    }
}

static bool selective_in_section(const struct model *model)
{
    bool selective = false;

    for (unsigned j = 0; j < model->count; j++) {
        selective |= model->operations[j].page_selective && !model->operations[j].asked;
    }
    return selective && model->section;
}

static void pin(struct model *model, struct window *window)
{
    struct random *random = &model->random;
    unsigned device = random_below(random, 2);
    unsigned alias = !device && random_percent(random, 30);
    struct viommu_dma_attrs attrs = {.alias = alias};
    struct viommu_range ranges[PIECES];
    struct viommu_window_request request = {
        .ranges = ranges,
        .count = 1 + random_below(random, PIECES),
        .perm = 1 + random_below(random, 3),
        .revoke = on_revoke,
        .fence = on_fence,
        .opaque = window,
    };
    struct iovec iov[PIECES];
    size_t count = PIECES;
    bool missing = false;
    int expected;
    int ret;

    *window = (struct window){
        .yields = random_percent(random, 20),
        .yields_late = random_percent(random, 30),
        .device = device,
        .id = (uint16_t)(8 + device + 2 * alias),
        .domain = device || alias,
        .count = (unsigned)request.count,
    };
    for (unsigned i = 0; i < window->count; i++) {
        unsigned page = random_below(random, PAGES + 1);
        uint64_t gpa = gpa_of(model, window->domain, page);

        window->pages[i] = page;
        window->gpas[i] = gpa;
        window->in_extra |= gpa >= EXTRA;
        missing |= gpa >= EXTRA && !model->extra_there;
        ranges[i].first = iova_of(page) + random_below(random, 100);
        ranges[i].last = ranges[i].first + random_below(random, 3000);
    }
    ret = viommu_device_pin(model->devices[device], &attrs, &request, iov, &count,
                            &window->window);
    expected = model->denied[device] ? -EPERM : missing ? -ENXIO : 0;
    if (ret != expected) {
        fail(model, "a pin", (uint64_t)-ret);
    }
    if (!ret) {
        window->open = true;
        window->serial = ++model->serial;
        check_iov(model, window, ranges, iov, count);
    }
}

static void invalidate_as(struct model *model, unsigned kind, unsigned domain, unsigned page)
{
    struct random *random = &model->random;
    struct operation *operation = &model->operations[model->count++];
    unsigned order = random_below(random, 4);
    struct spec_descriptor descriptor;
    uint64_t at;

    *operation = (struct operation){.number = model->numbers++, .last = UINT64_MAX};
    operation->of_domain = kind == 1 || kind == 2 || kind == 4;
    operation->domain = domain;
    operation->page_selective = kind == 2;
    switch (kind) {
    case 0:
    case 1:
        descriptor = spec_iotlb_invalidate(kind ? SPEC_DOMAIN : SPEC_GLOBAL,
                                           (uint16_t)(1 + domain), 0, 0, false);
        break;
    case 2:
        operation->first = iova_of(page) & ~((GUEST_PAGE << order) - 1);
        operation->last = operation->first + (GUEST_PAGE << order) - 1;
        descriptor = spec_iotlb_invalidate(SPEC_SELECTIVE, (uint16_t)(1 + domain), iova_of(page),
                                           order, random_percent(random, 50));
        break;
    case 3:
    case 4:
        descriptor = spec_context_invalidate(kind == 4 ? SPEC_DOMAIN : SPEC_GLOBAL,
                                             (uint16_t)(1 + domain), 0, 0);
        break;
    default:
        order = random_below(random, 4);
        operation->id = (uint16_t)(8 + random_below(random, 5));
        operation->compared = (uint16_t)(0xffff & ~((order & 1) << 2) & ~(order > 1 ? 2 : 0) &
                                         ~(order == 3 ? 1 : 0));
        operation->compared = order == 2 ? 0xfff9 : operation->compared;
        descriptor = spec_context_invalidate(SPEC_SELECTIVE, 0, operation->id, order);
        break;
    }
    operation->serial = ++model->serial;
    guest_queue_put(&model->guest, descriptor);
    at = model->status + operation->number % 64 * 8;
    guest_store(&model->guest, at, 0);
    guest_queue_put(&model->guest,
                    spec_wait(SPEC_WAIT_STATUS, at, (uint32_t)operation->number + 1));
    guest_queue_kick(&model->guest);
}

static void invalidate(struct model *model)
{
    if (model->count < OPERATIONS) {
        invalidate_as(model, random_below(&model->random, 6), random_below(&model->random, 2),
                      random_below(&model->random, PAGES + 1));
    }
}

/* A page gets another target, and is invalidated in one of the ways. */
static void remap(struct model *model)
{
    struct random *random = &model->random;
    unsigned domain = random_below(random, 2);
    unsigned page = random_below(random, PAGES);
    uint64_t gpa = random_percent(random, 30)
                       ? EXTRA + random_below(random, EXTRA_PAGES) * GUEST_PAGE
                       : (1 + random_below(random, 60)) * GUEST_PAGE;

    if (model->count == OPERATIONS) {
        return;
    }
    model->targets[domain][page] = gpa;
    guest_map(&model->guest, model->tables[domain], 4, iova_of(page), gpa, 1, SPEC_R | SPEC_W);
    invalidate_as(model, random_below(random, 3), domain, page);
}

static void change_memory(struct model *model)
{
    struct viommu_memory_slot slot = {
        .first = EXTRA,
        .last = EXTRA + EXTRA_PAGES * GUEST_PAGE - 1,
        .host = model->extra,
        .fd = -1,
    };
    struct viommu_memory_batch *batch;
    int ret;

    if (model->removing) {
        return;
    }
    guest_ok(viommu_memory_batch_begin(model->guest.memory, &batch), "batch");
    if (model->extra_there) {
        guest_ok(viommu_memory_batch_remove(batch, slot.first, slot.last), "remove");
        model->removal_serial = ++model->serial;
        model->removing = true;
        model->removal_asked = false;
        model->removal_done = false;
    } else {
        guest_ok(viommu_memory_batch_add(batch, &slot), "add");
    }
    model->extra_there = !model->extra_there;
    ret = viommu_memory_batch_commit(batch, on_gone, model);
    if (ret && ret != VIOMMU_PENDING) {
        fail(model, "commit", (uint64_t)-ret);
    }
    model->removal_done |= !ret;
}

static void add_device(struct model *model, unsigned i)
{
    struct viommu_device_config config = {.requester = (uint16_t)(8 + i)};

    guest_ok(viommu_device_add(model->guest.iommu, &config, &model->devices[i]), "device");
    model->denied[i] = false;
}

/* The second device is replaced by a new one; its windows stay. */
static void replace_device(struct model *model)
{
    for (unsigned i = 0; i < WINDOWS; i++) {
        model->windows[i].orphan |= model->windows[i].open && model->windows[i].device;
    }
    guest_ok(viommu_device_remove(model->devices[1]), "remove");
    add_device(model, 1);
}

static void toggle_section(struct model *model)
{
    model->section = !model->section;
    if (model->section) {
        guest_ok(viommu_dma_begin(model->guest.iommu), "section");
    } else {
        viommu_dma_end(model->guest.iommu);
    }
}

static void step(struct model *model)
{
    struct random *random = &model->random;
    unsigned i = random_below(random, WINDOWS);
    unsigned what = random_below(random, 100);

    if (what < 40) {
        if (model->windows[i].open) {
            release(&model->windows[i]);
            rule_close(model, i);
        } else if (!selective_in_section(model)) {
            pin(model, &model->windows[i]);
        }
    } else if (what < 62) {
        invalidate(model);
    } else if (what < 72) {
        remap(model);
    } else if (what < 80) {
        model->now += random_below(random, 60) * MS;
    } else if (what < 86) {
        toggle_section(model);
    } else if (what < 91) {
        change_memory(model);
    } else if (what < 97) {
        guest_ok(viommu_device_reset(model->devices[what & 1]), "reset");
        model->denied[what & 1] = false;
    } else {
        replace_device(model);
    }
    settle(model);
}

static void prepare(struct model *model, enum viommu_cache_mode mode)
{
    struct guest *guest = &model->guest;
    struct guest_config config = {
        .clock = on_clock,
        .opaque = model,
        .ack_timeout_ms = TIMEOUT_MS,
        .iotlb_entries = 256,
        .cache_mode = mode,
        .cache_seed = model->seed,
    };

    guest_ok(guest_init(guest, &config), "guest");
    guest->next_page = 64 * GUEST_PAGE; /* below are pages that tables map */
    model->extra = aligned_alloc(GUEST_PAGE, EXTRA_PAGES * GUEST_PAGE);
    guest_ok(!model->extra, "memory");
    guest_set_root(guest);
    for (unsigned i = 0; i < 2; i++) {
        add_device(model, i);
        model->tables[i] = guest_page(guest);
        guest_map(guest, model->tables[i], 4, LARGE_IOVA, 0, 2, SPEC_R | SPEC_W);
        for (unsigned page = 0; page < PAGES; page++) {
            model->targets[i][page] = (1 + page) * GUEST_PAGE;
            guest_map(guest, model->tables[i], 4, iova_of(page), model->targets[i][page], 1,
                      SPEC_R | SPEC_W);
        }
    }
    guest_ok(viommu_device_add_alias(model->devices[0], 10) != 1, "alias");
    guest_attach(guest, 8, 1, model->tables[0], 4, SPEC_TT_UNTRANSLATED);
    guest_attach(guest, 9, 2, model->tables[1], 4, SPEC_TT_UNTRANSLATED);
    guest_attach(guest, 10, 2, model->tables[1], 4, SPEC_TT_UNTRANSLATED);
    model->status = guest_page(guest);
    guest_queue_on(guest);
    guest_command(guest, SPEC_TE, true);
}

static void run(uint64_t seed, unsigned steps, enum viommu_cache_mode mode)
{
    struct model *model = calloc(1, sizeof(*model));

    guest_ok(!model, "memory");
    model->random = (struct random){seed};
    model->seed = seed;
    model->now = MS;
    prepare(model, mode);
    for (unsigned i = 0; i < steps; i++) {
        step(model);
    }
    if (!model->waited || !model->late || !model->kept) {
        fail(model, "nothing waited, or nobody was late, or none was kept", model->waited);
    }
    if (model->section) {
        toggle_section(model);
    }
    for (unsigned i = 0; i < WINDOWS; i++) {
        release(&model->windows[i]);
        rule_close(model, i);
    }
    settle(model);
    if (model->count || model->removing) {
        fail(model, "something waits for nobody", model->count);
    }
    guest_fini(&model->guest);
    free(model->extra);
    free(model);
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 2 && !strcmp(argv[1], "--seed") ? strtoull(argv[2], NULL, 0) : 1;
    uint64_t seeds = argc > 2 ? 1 : 40;

    for (uint64_t i = 0; i < seeds; i++) {
        run(seed + i, 3000, VIOMMU_CACHE_NORMAL);
        run(seed + i, 1000, VIOMMU_CACHE_FAITHFUL);
        run(seed + i, 1000, VIOMMU_CACHE_HOSTILE);
    }
    printf("window model: ok\n");
    return 0;
}
