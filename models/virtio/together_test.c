/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Everything at once, by a model of brute force: requests that pend behind sections, caches that
 * answer late and windows that are released late; devices that come, go and get other ids; the
 * field `bypass`; resets; other instances that go on. Statuses and translations agree with the
 * model, and answers come in order.
 *
 * What is tested most is what an answer promises. A *use* is a translation that somebody holds: a
 * section, a cache, a window. When something takes it away it is *doomed* by the request that did,
 * or, where no request did, by the next one. When that is answered, no use is left that it or an
 * earlier one doomed.
 */
#include "virtio/test_virtio.h"

#include "support/random.h"

#define DOMAINS 3u
#define SPACE 12u  /* pages that are mapped, or asked for */
#define IDS 6u     /* 8 to 13 */
#define WINDOWS 4u
#define SECTIONS 2u
#define STEPS 6000u
#define NEVER UINT64_MAX

struct use {
    bool held;
    uint16_t id;    /* under which it was translated */
    unsigned page;
    uint64_t gpa;
    bool bypass; /* by the field: also when the device has gone or has another id */
    uint64_t doomed; /* by the request of this number, or NEVER */
};

struct world;

struct cache {
    struct world *world;
    unsigned number; /* of its device */
    uint64_t tokens[8]; /* of changes that are not answered */
    unsigned token_count;
    struct use uses[SPACE];
};

struct model_domain {
    unsigned endpoints;
    bool bypass;
    uint64_t map[SPACE]; /* guest pages, plus one; 0: none */
};

struct pinned {
    struct viommu_window *window;
    struct use use;
};

struct world {
    struct bed bed;
    struct random random;
    struct model_domain domains[DOMAINS];
    int attached[IDS]; /* by id, less 8; -1: nowhere */
    uint16_t ids[BED_DEVICES]; /* of the devices; 0: it is out */
    bool bypass;
    struct cache caches[BED_DEVICES];
    struct pinned windows[WINDOWS];
    struct use sections[SECTIONS];
    unsigned section_count;
    uint8_t expected[256]; /* of requests that are pending, by their number */
    uint64_t answered;
};

static struct world *the_world;

static unsigned below(struct world *world, unsigned bound)
{
    return random_below(&world->random, bound);
}

/* ---- the model ---- */

static bool present(const struct world *world, unsigned id)
{
    for (unsigned i = 0; i < BED_DEVICES; i++) {
        if (world->ids[i] == id) {
            return true;
        }
    }
    return false;
}

/* Where a page leads, plus one; 0: nowhere. */
static uint64_t leads(const struct world *world, unsigned id, unsigned page)
{
    int domain = world->attached[id - 8];

    if (!present(world, id)) {
        return 0;
    }
    if (domain < 0) {
        return world->bypass ? page + 1 : 0;
    }
    return world->domains[domain].bypass ? page + 1 : world->domains[domain].map[page];
}

static void leave(struct world *world, unsigned id)
{
    int domain = world->attached[id - 8];

    world->attached[id - 8] = -1;
    if (domain >= 0 && !--world->domains[domain].endpoints) {
        world->domains[domain] = (struct model_domain){0};
    }
}

static uint8_t model_attach(struct world *world, unsigned domain, unsigned id, bool bypass)
{
    struct model_domain *to = &world->domains[domain];

    if (!present(world, id)) {
        return SPEC_S_NOENT;
    }
    if (to->endpoints && to->bypass != bypass) {
        return SPEC_S_INVAL;
    }
    if (world->attached[id - 8] != (int)domain) {
        leave(world, id);
        world->attached[id - 8] = (int)domain;
        to->endpoints++;
        to->bypass = bypass;
    }
    return SPEC_S_OK;
}

static uint8_t model_detach(struct world *world, unsigned domain, unsigned id)
{
    if (!present(world, id)) {
        return SPEC_S_NOENT;
    }
    if (world->attached[id - 8] != (int)domain) {
        return SPEC_S_INVAL;
    }
    leave(world, id);
    return SPEC_S_OK;
}

/* Every mapping is one page: no UNMAP splits one. */
static uint8_t model_map(struct world *world, unsigned domain, unsigned page, uint64_t gpa)
{
    struct model_domain *in = &world->domains[domain];

    if (!in->endpoints) {
        return SPEC_S_NOENT;
    }
    if (in->bypass || in->map[page]) {
        return SPEC_S_INVAL;
    }
    in->map[page] = gpa + 1;
    return SPEC_S_OK;
}

static uint8_t model_unmap(struct world *world, unsigned domain, unsigned first, unsigned last)
{
    struct model_domain *in = &world->domains[domain];

    if (!in->endpoints) {
        return SPEC_S_NOENT;
    }
    if (in->bypass) {
        return SPEC_S_INVAL;
    }
    for (unsigned page = first; page <= last; page++) {
        in->map[page] = 0;
    }
    return SPEC_S_OK;
}

/* ---- uses ---- */

static bool is_valid(const struct world *world, const struct use *use)
{
    return leads(world, use->id, use->page) == use->gpa + 1 ||
           (use->bypass && world->bypass && world->attached[use->id - 8] < 0);
}

/* `again`: who looks anew counts as one who asked anew. */
static void doom_one(struct world *world, struct use *use, bool again)
{
    bool valid = use->held && is_valid(world, use);

    if (use->held && !valid && use->doomed == NEVER) {
        use->doomed = world->bed.token + 1;
    } else if (valid && again) {
        use->doomed = NEVER;
        use->bypass = world->attached[use->id - 8] < 0;
    }
}

/* Something changed, by the request that is sent next, or before it. */
static void doom(struct world *world)
{
    for (unsigned i = 0; i < BED_DEVICES; i++) {
        for (unsigned page = 0; page < SPACE; page++) {
            doom_one(world, &world->caches[i].uses[page], false);
        }
    }
    for (unsigned i = 0; i < WINDOWS; i++) {
        doom_one(world, &world->windows[i].use, true);
    }
    for (unsigned i = 0; i < world->section_count; i++) {
        doom_one(world, &world->sections[i], false);
    }
}

static void expect_not_doomed(const struct use *use, uint64_t number)
{
    assert_true(!use->held || use->doomed > number);
}

static void answered(struct world *world, uint64_t number, uint8_t status)
{
    assert_int_equal(status, world->expected[number % 256]);
    assert_int_equal(number, world->answered + 1);
    world->answered = number;
    for (unsigned i = 0; i < BED_DEVICES; i++) {
        for (unsigned page = 0; page < SPACE; page++) {
            expect_not_doomed(&world->caches[i].uses[page], number);
        }
    }
    for (unsigned i = 0; i < WINDOWS; i++) {
        expect_not_doomed(&world->windows[i].use, number);
    }
    for (unsigned i = 0; i < world->section_count; i++) {
        expect_not_doomed(&world->sections[i], number);
    }
}

static void on_completed(void *opaque, uint64_t token, uint8_t status)
{
    (void)opaque;
    answered(the_world, token, status);
}

static int on_change(void *opaque, const struct viommu_change *change)
{
    struct cache *cache = opaque;

    for (unsigned page = 0; page < SPACE; page++) {
        if (page * PAGE <= change->last && page * PAGE + 0xfff >= change->first) {
            /* It is dropped when it is said to be. */
            cache->uses[page].held = false;
        }
    }
    if (cache->token_count < 8 && !below(cache->world, 3)) {
        cache->tokens[cache->token_count++] = change->token;
        return VIOMMU_PENDING;
    }
    return 0;
}

static void on_revoke(void *opaque)
{
    (void)opaque; /* windows are released now and then */
}

/* ---- devices ---- */

static void subscribe(struct world *world, unsigned number)
{
    struct viommu_subscription what = {
        .kinds = VIOMMU_CHANGE_UNMAP,
        .form = number ? VIOMMU_FORM_RANGE : VIOMMU_FORM_POW2,
        .change = on_change,
        .opaque = &world->caches[number],
    };
    struct viommu_subscriber *subscriber;

    world->caches[number] = (struct cache){.world = world, .number = number};
    assert_int_equal(viommu_device_subscribe(world->bed.devices[number], &what, &subscriber), 0);
}

static void plug(struct world *world, unsigned number, uint16_t id)
{
    struct viommu_device_config config = {.requester = id};

    assert_int_equal(viommu_device_add(world->bed.iommu, &config, &world->bed.devices[number]), 0);
    world->ids[number] = id;
    subscribe(world, number);
}

static uint16_t free_id(struct world *world)
{
    uint16_t id;

    do {
        id = (uint16_t)(8 + below(world, IDS));
    } while (present(world, id));
    return id;
}

/* Out, in again, or under another id. */
static void step_device(struct world *world)
{
    unsigned number = below(world, BED_DEVICES);
    uint16_t old = world->ids[number];
    uint16_t id = free_id(world);

    if (!old) {
        plug(world, number, id);
        return;
    }
    leave(world, old);
    if (below(world, 2)) {
        assert_int_equal(viommu_device_remove(world->bed.devices[number]), 0);
        world->ids[number] = 0;
        world->caches[number] = (struct cache){.world = world};
    } else {
        world->ids[number] = id;
        assert_int_equal(viommu_device_set_requester(world->bed.devices[number], id), 0);
        /* Whoever gives it another id has it drop what it cached. */
        memset(world->caches[number].uses, 0, sizeof(world->caches[number].uses));
    }
    doom(world);
}

/* ---- uses come and go ---- */

/* A device asks; fills a use in when it may. */
static void ask(struct world *world, struct use *use)
{
    unsigned number = below(world, BED_DEVICES);
    unsigned page = below(world, SPACE);
    struct viommu_device *device = world->bed.devices[number];
    struct viommu_translation out;
    uint64_t there;
    int ret;

    *use = (struct use){.id = world->ids[number], .page = page, .doomed = NEVER};
    if (!use->id) {
        return;
    }
    there = leads(world, use->id, page);
    ret = viommu_device_translate(device, NULL, page * PAGE, VIOMMU_WRITE, &out);
    assert_int_equal(ret, there ? 0 : -EFAULT);
    if (there) {
        assert_int_equal(out.gpa, (there - 1) * PAGE);
        use->held = true;
        use->gpa = there - 1;
        use->bypass = world->attached[use->id - 8] < 0;
    }
}

/* What a cache holds is used in a section, also while it has not heard that it is gone. */
static void use_cached(struct world *world, struct use *use)
{
    unsigned number = below(world, BED_DEVICES);

    *use = world->caches[number].uses[below(world, SPACE)];
}

static void step_section(struct world *world)
{
    struct use *use;

    if (world->section_count && below(world, 2)) {
        viommu_dma_end(world->bed.iommu);
        world->section_count--;
    } else if (world->section_count < SECTIONS) {
        assert_int_equal(viommu_dma_begin(world->bed.iommu), 0);
        use = &world->sections[world->section_count++];
        if (below(world, 2)) {
            ask(world, use);
        } else {
            use_cached(world, use);
        }
    }
}

static void step_cache(struct world *world)
{
    struct cache *cache = &world->caches[below(world, BED_DEVICES)];
    struct use use;

    if (cache->token_count && below(world, 2)) {
        /* One that went with its device, or was late, is not known any more. */
        (void)viommu_change_complete(world->bed.iommu, cache->tokens[--cache->token_count], 0);
        return;
    }
    assert_int_equal(viommu_dma_begin(world->bed.iommu), 0);
    ask(world, &use);
    for (unsigned i = 0; use.held && i < BED_DEVICES; i++) {
        if (world->ids[i] == use.id) {
            world->caches[i].uses[use.page] = use;
        }
    }
    viommu_dma_end(world->bed.iommu);
}

static void step_window(struct world *world)
{
    struct pinned *pinned = &world->windows[below(world, WINDOWS)];
    unsigned number = below(world, BED_DEVICES);
    unsigned page = below(world, SPACE);
    struct viommu_range range = {page * PAGE, page * PAGE + 0xfff};
    struct viommu_window_request request = {
        .ranges = &range, .count = 1, .perm = VIOMMU_WRITE, .revoke = on_revoke};
    struct iovec iov[1];
    size_t parts = 1;

    if (pinned->window) {
        viommu_window_release(pinned->window);
        *pinned = (struct pinned){0};
    } else if (world->ids[number]) {
        uint64_t there = leads(world, world->ids[number], page);
        int ret = viommu_device_pin(world->bed.devices[number], NULL, &request, iov, &parts,
                                    &pinned->window);

        assert_int_equal(ret, there ? 0 : -EFAULT);
        if (ret) {
            pinned->window = NULL;
            return;
        }
        pinned->use = (struct use){
            .held = true,
            .id = world->ids[number],
            .page = page,
            .gpa = there - 1,
            .bypass = world->attached[world->ids[number] - 8] < 0,
            .doomed = NEVER,
        };
    }
}

static void let_go(struct world *world)
{
    for (; world->section_count; world->section_count--) {
        viommu_dma_end(world->bed.iommu);
    }
    for (unsigned i = 0; i < WINDOWS; i++) {
        viommu_window_release(world->windows[i].window);
        world->windows[i] = (struct pinned){0};
    }
}

static void settle(struct world *world)
{
    let_go(world);
    do {
        for (unsigned i = 0; i < BED_DEVICES; i++) {
            struct cache *cache = &world->caches[i];

            while (cache->token_count) {
                (void)viommu_change_complete(world->bed.iommu,
                                             cache->tokens[--cache->token_count], 0);
            }
        }
        bed_process(&world->bed);
    } while (world->answered < world->bed.token && bed_status(&world->bed).pending);
    assert_int_equal(world->answered, world->bed.token);
}

/* ---- the driver ---- */

static void step_request(struct world *world)
{
    struct spec_virtio_request request;
    unsigned domain = below(world, DOMAINS);
    unsigned id = 8 + below(world, IDS);
    unsigned page = below(world, SPACE);
    unsigned last = page + below(world, SPACE - page);
    uint64_t gpa = below(world, BED_PAGES);
    uint64_t number = world->bed.token + 1;
    bool bypass = !below(world, 5);
    uint8_t expected;
    uint8_t status;

    if (number - world->answered > 200) {
        settle(world);
    }
    switch (below(world, 8)) {
    case 0:
    case 1:
        request = spec_virtio_attach(domain, id, bypass);
        expected = model_attach(world, domain, id, bypass);
        break;
    case 2:
        request = spec_virtio_detach(domain, id);
        expected = model_detach(world, domain, id);
        break;
    case 3:
    case 4:
        request = spec_virtio_unmap(domain, page * PAGE, last * PAGE + 0xfff);
        expected = model_unmap(world, domain, page, last);
        break;
    default:
        request = spec_virtio_map(domain, page * PAGE, page * PAGE + 0xfff, gpa * PAGE, 3);
        expected = model_map(world, domain, page, gpa);
        break;
    }
    world->expected[number % 256] = expected;
    doom(world);
    status = bed_request(&world->bed, request);
    if (status != BED_PENDING) {
        answered(world, number, status);
    }
}

static void forget(struct world *world)
{
    memset(world->domains, 0, sizeof(world->domains));
    for (unsigned i = 0; i < IDS; i++) {
        world->attached[i] = -1;
    }
}

static void step_reset(struct world *world)
{
    uint64_t number = world->bed.token + 1;
    int ret;

    forget(world);
    world->expected[number % 256] = SPEC_S_OK;
    doom(world);
    ret = viommu_virtio_reset(world->bed.iommu, number);
    world->bed.token = number;
    if (!ret) {
        answered(world, number, SPEC_S_OK);
    } else {
        assert_int_equal(ret, VIOMMU_PENDING);
    }
    assert_int_equal(viommu_virtio_accept(world->bed.iommu, 0x77), 0);
}

static void step_bypass(struct world *world)
{
    world->bypass = !world->bypass;
    doom(world);
    assert_int_equal(viommu_mmio_write(world->bed.iommu, SPEC_CONFIG_BYPASS, 1, world->bypass), 0);
}

/* Another instance goes on, with what is pending; caches begin empty. */
static void step_take_over(struct world *world)
{
    struct bed *bed = &world->bed;
    struct viommu *first = bed->iommu;
    size_t size;
    void *data;

    let_go(world);
    assert_int_equal(viommu_save(first, &data, &size), 0);
    assert_int_equal(viommu_virtio_create(&bed->config, &bed->virtio, &bed->iommu), 0);
    for (unsigned i = 0; i < BED_DEVICES; i++) {
        if (world->ids[i]) {
            plug(world, i, world->ids[i]);
        }
    }
    assert_int_equal(viommu_load(bed->iommu, data, size), 0);
    viommu_save_free(data);
    viommu_destroy(first);
}

static void step(struct world *world)
{
    unsigned kind = below(world, 400);
    struct use use;

    if (kind < 120) {
        step_request(world);
    } else if (kind < 180) {
        ask(world, &use);
    } else if (kind < 240) {
        step_cache(world);
    } else if (kind < 290) {
        step_window(world);
    } else if (kind < 330) {
        step_section(world);
    } else if (kind < 380) {
        (void)viommu_process(world->bed.iommu, 1 + below(world, 8));
    } else if (kind < 388) {
        step_device(world);
    } else if (kind < 394) {
        step_bypass(world);
    } else if (kind < 396) {
        step_reset(world);
    } else if (kind < 398) {
        step_take_over(world);
    } else {
        settle(world);
    }
}

static void test_together(void **state)
{
    struct world *world = calloc(1, sizeof(*world));

    (void)state;
    assert_non_null(world);
    the_world = world;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct viommu_virtio_config config = {.domain_last = DOMAINS};
        struct bed *bed = &world->bed;

        memset(world, 0, sizeof(*world));
        world->random = (struct random){seed};
        forget(world);
        bed_init(bed, &config);
        viommu_destroy(bed->iommu);
        bed->virtio.completed = on_completed;
        assert_int_equal(viommu_virtio_create(&bed->config, &bed->virtio, &bed->iommu), 0);
        for (unsigned i = 0; i < BED_DEVICES; i++) {
            plug(world, i, (uint16_t)(8 + i));
        }
        assert_int_equal(viommu_start(bed->iommu), 0);
        assert_int_equal(viommu_virtio_accept(bed->iommu, 0x77), 0);
        for (unsigned i = 0; i < STEPS; i++) {
            step(world);
        }
        settle(world);
        bed_fini(bed);
    }
    free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_together)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
