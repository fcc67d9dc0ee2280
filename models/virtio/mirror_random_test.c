/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Random requests against mirrors that fail, take their time and are taken over, and memory that
 * comes and goes; with a model by brute force. The model carries each request out when it
 * completes, in order. When all is quiet, what each mirror holds is what the model says, page by
 * page, and so is what DMA finds; when a request completes and nothing else is under way, a mirror
 * holds nothing that it should not.
 */
#include "virtio/test_mirror.h"

#include "base/alloc.h"
#include "support/random.h"

#define IDS 4u
#define SPACE 32u   /* pages that can be mapped */
#define SLOTS 6u    /* of memory, of 8 pages each, behind the bed's own 16 */
#define MEMORY 64u  /* pages */
#define MIRRORS 4u  /* one for each device, and a second one */
#define RESERVED 20u
#define HOLE_FIRST 24u /* pages that the last device's mirror may not map */
#define HOLE_LAST 25u
#define IN_FLIGHT 6u
#define STEPS 20000u

struct page {
    unsigned mapping; /* 0: none */
    uint64_t gpa;
    uint32_t flags;
};

struct model_domain {
    bool exists;
    bool bypass;
    struct page pages[SPACE];
};

struct sent {
    struct spec_virtio_request request;
    uint64_t token;
};

struct world {
    struct bed bed;
    struct random random;
    struct mirror_bed mirrors[MIRRORS];
    struct model_domain domains[IDS];
    int attached[BED_DEVICES];
    bool bypass;
    unsigned mapping;
    struct sent sent[IN_FLIGHT];
    unsigned sent_count;
    bool reset;     /* one is under way: statuses of what came before it are not known */
    bool memory;    /* a change of it is under way */
    unsigned failed; /* MAPs, less requests */
    unsigned refused; /* requests, for mirrors */
    unsigned takeovers;
    unsigned chance; /* of a call to fail or to wait, in 256 */
    uint8_t slots[SLOTS]; /* 0: not there, 1: RAM, 2: ROM */
    uint8_t *backing;
};

static unsigned below(struct world *world, unsigned bound)
{
    return random_below(&world->random, bound);
}

static unsigned device_of(unsigned mirror)
{
    return mirror < BED_DEVICES ? mirror : 0;
}

/* ---- the model ---- */

static unsigned endpoints_of(const struct world *world, int id)
{
    unsigned count = 0;

    for (unsigned i = 0; i < BED_DEVICES; i++) {
        count += world->attached[i] == id;
    }
    return count;
}

static void leave(struct world *world, unsigned device)
{
    int id = world->attached[device];

    world->attached[device] = -1;
    if (id >= 0 && !endpoints_of(world, id)) {
        world->domains[id] = (struct model_domain){0};
    }
}

static bool in_hole(uint64_t page)
{
    return page >= HOLE_FIRST && page <= HOLE_LAST;
}

static uint8_t model_attach(struct world *world, unsigned id, unsigned device, bool bypass)
{
    struct model_domain *domain = &world->domains[id];

    if (domain->exists && domain->bypass != bypass) {
        return SPEC_S_INVAL;
    }
    if (world->attached[device] == (int)id) {
        return SPEC_S_OK;
    }
    for (unsigned i = HOLE_FIRST; device == BED_DEVICES - 1 && i <= HOLE_LAST; i++) {
        if (domain->pages[i].mapping) {
            return SPEC_S_UNSUPP;
        }
    }
    return SPEC_S_OK;
}

static void apply_attach(struct world *world, unsigned id, unsigned device, bool bypass)
{
    if (world->attached[device] != (int)id) {
        leave(world, device);
        world->attached[device] = (int)id;
        world->domains[id].exists = true;
        world->domains[id].bypass = bypass;
    }
}

static uint8_t model_map(const struct world *world, unsigned id, uint64_t first, uint64_t last)
{
    const struct model_domain *domain = &world->domains[id];

    if (!domain->exists) {
        return SPEC_S_NOENT;
    }
    if (domain->bypass) {
        return SPEC_S_INVAL;
    }
    if (last >= SPACE) {
        return SPEC_S_RANGE;
    }
    for (uint64_t i = first; i <= last; i++) {
        if (domain->pages[i].mapping || i == RESERVED ||
            (in_hole(i) && world->attached[BED_DEVICES - 1] == (int)id)) {
            return SPEC_S_INVAL;
        }
    }
    return SPEC_S_OK;
}

static void apply_map(struct world *world, unsigned id, uint64_t first, uint64_t last,
                      uint64_t gpa, uint32_t flags)
{
    world->mapping++;
    for (uint64_t i = first; i <= last; i++) {
        world->domains[id].pages[i] =
            (struct page){world->mapping, gpa + (i - first) * PAGE, flags};
    }
}

static uint8_t model_unmap(const struct world *world, unsigned id, uint64_t first, uint64_t last)
{
    const struct model_domain *domain = &world->domains[id];

    if (!domain->exists) {
        return SPEC_S_NOENT;
    }
    if (domain->bypass) {
        return SPEC_S_INVAL;
    }
    if (first && first < SPACE && domain->pages[first].mapping &&
        domain->pages[first].mapping == domain->pages[first - 1].mapping) {
        return SPEC_S_RANGE;
    }
    if (last + 1 < SPACE && domain->pages[last].mapping &&
        domain->pages[last].mapping == domain->pages[last + 1].mapping) {
        return SPEC_S_RANGE;
    }
    return SPEC_S_OK;
}

static void apply_unmap(struct world *world, unsigned id, uint64_t first, uint64_t last)
{
    for (uint64_t i = first; i <= last && i < SPACE; i++) {
        world->domains[id].pages[i] = (struct page){0};
    }
}

/* What the guest lets a device reach at a page: permissions, 0 for none. */
static uint32_t reaches(const struct world *world, unsigned device, uint64_t page, uint64_t *gpa)
{
    int id = world->attached[device];

    *gpa = page * PAGE;
    if (page == RESERVED || (device == BED_DEVICES - 1 && in_hole(page))) {
        return 0;
    }
    if (id < 0 ? world->bypass : world->domains[id].bypass) {
        return 3;
    }
    if (id < 0 || page >= SPACE || !world->domains[id].pages[page].mapping) {
        return 0;
    }
    *gpa = world->domains[id].pages[page].gpa;
    return world->domains[id].pages[page].flags & 3;
}

/* What a mirror holds at a page of that: memory only, and where it may. */
static uint32_t mirrored(const struct world *world, unsigned mirror, uint64_t page, uint64_t *gpa)
{
    uint32_t perm = reaches(world, device_of(mirror), page, gpa);
    uint64_t there = *gpa / PAGE;

    if (mirror == BED_DEVICES - 1 && in_hole(page)) {
        return 0;
    }
    if (there < MEMORY - SLOTS * 8) {
        return perm;
    }
    if (there >= MEMORY || !world->slots[(there - (MEMORY - SLOTS * 8)) / 8]) {
        return 0;
    }
    return world->slots[(there - (MEMORY - SLOTS * 8)) / 8] == 2 ? perm & 1 : perm;
}

/* ---- checks ---- */

static void check_held(struct world *world, unsigned mirror, bool all)
{
    struct mirror_bed *bed = &world->mirrors[mirror];
    bool fenced = mirror_status(bed).fenced;
    unsigned pages = 0;

    for (unsigned i = 0; i < bed->count; i++) {
        const struct held *held = &bed->held[i];

        for (uint64_t at = held->first; at < held->last; at += PAGE) {
            uint64_t gpa;

            mirror_must(mirrored(world, mirror, at / PAGE, &gpa) == held->perm,
                        "it holds what it should not");
            mirror_must(gpa == held->gpa + (at - held->first), "it leads elsewhere");
            pages++;
        }
    }
    for (uint64_t page = 0; all && !fenced && page < MEMORY; page++) {
        uint64_t gpa;

        pages -= mirrored(world, mirror, page, &gpa) != 0;
    }
    mirror_must(!all || !pages, "it misses something");
}

static void check_dma(struct world *world)
{
    struct viommu_translation out;

    for (unsigned i = 0; i < 8; i++) {
        unsigned device = below(world, BED_DEVICES);
        uint64_t page = below(world, SPACE);
        uint64_t gpa;
        uint32_t perm = reaches(world, device, page, &gpa);
        int ret = viommu_device_translate(world->bed.devices[device], NULL, page * PAGE,
                                          VIOMMU_READ, &out);

        if (ret != -EPERM) { /* denied */
            assert_int_equal(ret, perm & 1 ? 0 : -EFAULT);
            assert_true(ret || out.gpa == gpa);
        }
    }
}

/* ---- requests ---- */

static uint64_t field(const struct sent *sent, unsigned at, unsigned size)
{
    return spec_virtio_get(sent->request.bytes + at, size);
}

/* What the model answers to a request now; with `apply`, it is carried out. */
static uint8_t model_answer(struct world *world, const struct sent *sent, bool apply)
{
    unsigned id = (unsigned)field(sent, 4, 4);
    unsigned device = (unsigned)field(sent, 8, 4) - 8;
    uint64_t first = field(sent, 8, 8) / PAGE;
    uint64_t last = field(sent, 16, 8) / PAGE;
    bool bypass = field(sent, 12, 4);

    switch (sent->request.bytes[0]) {
    case SPEC_VIRTIO_ATTACH:
        if (apply) {
            apply_attach(world, id, device, bypass);
        }
        return model_attach(world, id, device, bypass);
    case SPEC_VIRTIO_DETACH:
        if (apply) {
            leave(world, device);
            return SPEC_S_OK;
        }
        return world->attached[device] == (int)id ? SPEC_S_OK : SPEC_S_INVAL;
    case SPEC_VIRTIO_MAP:
        if (apply) {
            apply_map(world, id, first, last, field(sent, 24, 8), (uint32_t)field(sent, 32, 4));
            return SPEC_S_OK;
        }
        return model_map(world, id, first, last);
    default:
        if (apply) {
            apply_unmap(world, id, first, last);
            return SPEC_S_OK;
        }
        return model_unmap(world, id, first, last);
    }
}

/* It is complete: the oldest one. */
static void completed(struct world *world, uint64_t token, uint8_t status)
{
    struct sent sent = world->sent[0];
    uint8_t expected;

    mirror_must(world->sent_count && sent.token == token, "completed out of order");
    memmove(world->sent, world->sent + 1, --world->sent_count * sizeof(sent));
    if (!sent.request.size) { /* a reset */
        world->reset = false;
        return;
    }
    if (world->reset) {
        return;
    }
    expected = model_answer(world, &sent, false);
    if (expected == SPEC_S_OK && status != SPEC_S_OK) {
        mirror_must(world->failed || base_alloc_failed(), "refused for no reason");
        mirror_must(status == SPEC_S_NOMEM || status == SPEC_S_DEVERR, "for another reason");
        world->failed -= world->failed > 0;
        world->refused++;
    } else {
        mirror_must(status == expected, "another status");
        if (status == SPEC_S_OK) {
            (void)model_answer(world, &sent, true);
        }
    }
    for (unsigned i = 0; !world->sent_count && !world->memory && i < MIRRORS; i++) {
        check_held(world, i, false);
    }
}

static void on_completed(void *opaque, uint64_t token, uint8_t status)
{
    completed(opaque, token, status);
}

static void expect(struct world *world, const struct spec_virtio_request *request)
{
    world->sent[world->sent_count++] = (struct sent){*request, ++world->bed.token};
}

static struct spec_virtio_request any_request(struct world *world)
{
    unsigned id = below(world, IDS);
    unsigned endpoint = 8 + below(world, BED_DEVICES);
    uint64_t first = below(world, SPACE) * PAGE;
    uint64_t last = first + (1 + below(world, 8)) * PAGE - 1;

    switch (below(world, 16)) {
    case 0:
    case 1:
        return spec_virtio_attach(id, endpoint, !below(world, 4));
    case 2:
        return spec_virtio_detach(id, endpoint);
    case 3:
    case 4:
    case 5:
    case 6:
        return spec_virtio_unmap(id, first, below(world, 3) ? last : SPACE * PAGE - 1);
    default:
        return spec_virtio_map(id, first, last, below(world, MEMORY - 4) * PAGE, below(world, 4));
    }
}

static void step_request(struct world *world)
{
    struct spec_virtio_request request = any_request(world);
    uint8_t out[4];
    size_t written;
    int ret;

    if (world->sent_count == IN_FLIGHT) {
        return;
    }
    expect(world, &request);
    ret = viommu_virtio_request(world->bed.iommu, request.bytes, request.size, out, sizeof(out),
                                world->bed.token, &written);
    if (!ret) {
        completed(world, world->bed.token, out[0]);
    } else {
        assert_int_equal(ret, VIOMMU_PENDING);
    }
}

static void step_reset(struct world *world)
{
    struct spec_virtio_request none = {.size = 0};
    int ret;

    if (world->sent_count == IN_FLIGHT || world->reset) {
        return;
    }
    expect(world, &none);
    ret = viommu_virtio_reset(world->bed.iommu, world->bed.token);
    assert_true(!ret || ret == VIOMMU_PENDING);
    assert_int_equal(viommu_virtio_accept(world->bed.iommu, 0x77), 0);
    world->reset = true;
    memset(world->domains, 0, sizeof(world->domains));
    for (unsigned i = 0; i < BED_DEVICES; i++) {
        world->attached[i] = -1;
    }
    if (!ret) {
        completed(world, world->bed.token, SPEC_S_OK);
    }
}

/* ---- mirrors ---- */

static int decide(void *opaque, const struct viommu_change *change)
{
    struct world *world = opaque;

    if (below(world, 256) >= world->chance) {
        return 0;
    }
    if (below(world, 2)) {
        return VIOMMU_PENDING;
    }
    if (change->kind == VIOMMU_CHANGE_MAP) {
        world->failed++;
        return below(world, 2) ? -ENOSPC : -EIO;
    }
    return 0;
}

static void step_answer(struct world *world)
{
    struct mirror_bed *mirror = &world->mirrors[below(world, MIRRORS)];
    bool fails = mirror->outstanding.kind == VIOMMU_CHANGE_MAP && !below(world, 4);

    if (mirror->pending) {
        world->failed += fails;
        mirror_complete(mirror, fails ? -ENOMEM : 0);
    }
}

/* One UNMAP that fails, so that a mirror is fenced. */
static void step_fence(struct world *world)
{
    unsigned mirror = below(world, BED_DEVICES - 1);

    mirror_answers(&world->mirrors[mirror], 1, -EIO, VIOMMU_CHANGE_UNMAP);
    world->failed++; /* an ATTACH in which that is fails */
}

static void subscribe(struct world *world, bool adopt)
{
    static const struct viommu_range allowed[] = {
        {0, HOLE_FIRST * PAGE - 1}, {(HOLE_LAST + 1) * PAGE, UINT64_MAX}};

    for (unsigned i = 0; i < MIRRORS; i++) {
        struct mirror_bed *mirror = &world->mirrors[i];

        mirror->what.form = i & 1 ? VIOMMU_FORM_POW2 : VIOMMU_FORM_RANGE;
        mirror->what.key = i;
        mirror->what.adopt = adopt;
        if (i == BED_DEVICES - 1) {
            mirror->what.allowed = allowed;
            mirror->what.allowed_count = 2;
        }
        assert_int_equal(mirror_subscribe(&world->bed, device_of(i), mirror), 0);
    }
}

static void process(struct world *world)
{
    while (viommu_process(world->bed.iommu, below(world, 3) ? 0 : 3) == VIOMMU_PENDING) {
    }
    (void)viommu_memory_process(world->bed.memory);
}

/* Another instance goes on. Mirrors for which nothing was under way are told nothing. */
static void step_take_over(struct world *world, bool quiet)
{
    struct bed *bed = &world->bed;
    unsigned calls[MIRRORS];
    struct viommu *old = bed->iommu;
    void *data;
    size_t size;
    int ret = world->memory ? -EBUSY : viommu_save(old, &data, &size);

    if (ret) {
        assert_int_equal(ret, -EBUSY);
        assert_false(quiet);
        return;
    }
    world->takeovers++;
    assert_int_equal(viommu_virtio_create(&bed->config, &bed->virtio, &bed->iommu), 0);
    bed_devices(bed, bed->iommu, bed->devices);
    for (unsigned i = 0; i < MIRRORS; i++) {
        calls[i] = world->mirrors[i].calls;
        (void)viommu_subscriber_destroy(world->mirrors[i].subscriber);
    }
    subscribe(world, true);
    assert_int_equal(viommu_load(bed->iommu, data, size), 0);
    viommu_save_free(data);
    viommu_destroy(old);
    process(world);
    for (unsigned i = 0; quiet && i < MIRRORS; i++) {
        mirror_must(calls[i] == world->mirrors[i].calls, "it is told again what it has");
    }
}

/* ---- memory ---- */

static void step_memory(struct world *world)
{
    unsigned slot = below(world, SLOTS);
    uint64_t first = (MEMORY - SLOTS * 8 + slot * 8) * PAGE;
    struct viommu_memory_slot what = {
        .first = first,
        .last = first + 8 * PAGE - 1,
        .host = world->backing + slot * 8 * PAGE,
        .fd = -1,
    };
    struct viommu_memory_batch *batch;
    int ret;

    if (world->memory) {
        return;
    }
    assert_int_equal(viommu_memory_batch_begin(world->bed.memory, &batch), 0);
    if (world->slots[slot]) {
        world->slots[slot] = 0;
        assert_int_equal(viommu_memory_batch_remove(batch, what.first, what.last), 0);
    } else {
        world->slots[slot] = (uint8_t)(1 + below(world, 2));
        what.flags = world->slots[slot] == 2 ? VIOMMU_MEMORY_READONLY : 0;
        assert_int_equal(viommu_memory_batch_add(batch, &what), 0);
    }
    ret = viommu_memory_batch_commit(batch, NULL, NULL);
    assert_true(!ret || ret == VIOMMU_PENDING);
    world->memory = true;
}

/* ---- all of it ---- */

/* All that is under way ends, and what failed is tried again. */
static void settle(struct world *world)
{
    unsigned chance = world->chance;

    world->chance = 0;
    for (unsigned round = 0; round < 200; round++) {
        process(world);
        for (unsigned i = 0; i < MIRRORS; i++) {
            if (world->mirrors[i].pending) {
                mirror_complete(&world->mirrors[i], 0);
            }
        }
    }
    for (unsigned i = 0; i < MIRRORS; i++) {
        world->mirrors[i].answer_in = 0;
        if (mirror_status(&world->mirrors[i]).fenced) {
            assert_int_equal(viommu_device_reset(world->bed.devices[device_of(i)]), 0);
        }
    }
    for (unsigned i = 0; i < 10; i++) {
        world->bed.now += 2000 * MS;
        process(world);
    }
    world->chance = chance;
    world->memory = false;
    world->failed = 0;
    assert_int_equal(world->sent_count, 0);
    for (unsigned i = 0; i < MIRRORS; i++) {
        assert_int_equal(mirror_status(&world->mirrors[i]).differences, 0);
        assert_false(mirror_status(&world->mirrors[i]).fenced);
        check_held(world, i, true);
    }
    check_dma(world);
}

static void step_rare(struct world *world)
{
    switch (below(world, 12)) {
    case 0:
        step_reset(world);
        break;
    case 1:
        step_fence(world);
        break;
    case 2:
        if (!world->sent_count && !world->memory) { /* it is done at once, not in order */
            world->bypass = !world->bypass;
            assert_int_equal(viommu_mmio_write(world->bed.iommu, 36, 1, world->bypass), 0);
            settle(world);
        }
        break;
    case 3:
    case 4:
        step_take_over(world, false);
        break;
    case 5:
        settle(world); /* NOMEM without a place in the order is told at once */
        base_alloc_fail_at(1 + below(world, 12));
        step_request(world);
        process(world);
        world->failed += base_alloc_failed();
        base_alloc_fail_at(0);
        settle(world);
        break;
    case 6:
        settle(world);
        step_take_over(world, true);
        settle(world);
        break;
    default:
        step_memory(world);
        break;
    }
}

static void world_init(struct world *world, uint64_t seed)
{
    static const struct viommu_range region = {RESERVED * PAGE, RESERVED * PAGE + 0xfff};
    struct bed *bed = &world->bed;
    struct bed second;
    struct viommu_memory_slot slot = {
        .last = (MEMORY - SLOTS * 8) * PAGE - 1,
        .host = world->backing + SLOTS * 8 * PAGE,
        .fd = -1,
    };
    struct viommu_memory_batch *batch;

    world->random = (struct random){seed};
    world->chance = 0;
    for (unsigned i = 0; i < BED_DEVICES; i++) {
        world->attached[i] = -1;
    }
    bed_space(bed, &region, 1);
    bed->other = bed->space; /* what the last one's mirror is allowed counts for it alone */
    bed_space(&second, &region, 1);
    bed->space = second.space;
    bed->now = 1;
    bed->virtio = (struct viommu_virtio_config){
        .input = {0, SPACE * PAGE - 1},
        .completed = on_completed,
    };
    assert_int_equal(viommu_memory_create(&bed->memory), 0);
    assert_int_equal(viommu_memory_batch_begin(bed->memory, &batch), 0);
    assert_int_equal(viommu_memory_batch_add(batch, &slot), 0);
    assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), 0);
    bed->config = (struct viommu_config){
        .memory = bed->memory, .opaque = world, .clock = bed_clock, .ack_timeout_ms = 1 << 20};
    assert_int_equal(viommu_virtio_create(&bed->config, &bed->virtio, &bed->iommu), 0);
    bed_devices(bed, bed->iommu, bed->devices);
    for (unsigned i = 0; i < MIRRORS; i++) {
        mirror_prepare(&world->mirrors[i]);
        world->mirrors[i].silent = true;
        world->mirrors[i].decide = decide;
        world->mirrors[i].opaque = world;
    }
    subscribe(world, false);
    assert_int_equal(viommu_start(bed->iommu), 0);
    assert_int_equal(viommu_virtio_accept(bed->iommu, 0x77), 0);
    process(world);
    world->chance = 24;
}

static void test_random(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct world *world = calloc(1, sizeof(*world));

        assert_non_null(world);
        world->backing = calloc(MEMORY, PAGE);
        assert_non_null(world->backing);
        world_init(world, seed);
        for (unsigned i = 0; i < STEPS; i++) {
            unsigned kind = below(world, 100);

            if (kind < 50) {
                step_request(world);
            } else if (kind < 75) {
                process(world);
            } else if (kind < 90) {
                step_answer(world);
            } else if (kind < 96) {
                step_rare(world);
            } else if (kind < 98) {
                settle(world);
            }
        }
        settle(world);
        assert_true(world->refused > STEPS / 1000 && world->takeovers > STEPS / 1000);
        viommu_destroy(world->bed.iommu);
        viommu_iova_destroy(world->bed.space);
        viommu_iova_destroy(world->bed.other);
        viommu_memory_destroy(world->bed.memory);
        free(world->backing);
        free(world);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
