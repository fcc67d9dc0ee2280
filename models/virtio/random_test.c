/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Random requests and DMA against a model by brute force: an array of pages for each domain, and
 * rules in the order of the specification's text. Statuses, translations, faults and counts agree
 * after every step, through resets, takeovers, and memory that fails.
 */
#include "virtio/test_virtio.h"

#include "base/alloc.h"
#include "support/random.h"

#define IDS 6u         /* domain ids 0 to 5; 5 is out of range */
#define SPACE 48u      /* pages that can be mapped; more exist */
#define MAPPINGS_MAX 40u
#define STEPS 40000u
#define KEPT 5u

struct page {
    unsigned mapping; /* its number; 0: none */
    uint64_t gpa;
    uint32_t flags;
};

struct model_domain {
    bool exists;
    bool bypass;
    struct page pages[SPACE];
};

/* A reservation that comes and goes, of one of two spaces: the last device has its own. */
struct kept {
    struct viommu_iova_reservation *reservation; /* NULL: it is not there */
    unsigned space;
    uint64_t first; /* pages */
    uint64_t last;
};

struct world {
    struct bed bed;
    struct viommu_iova_owner *owners[2];
    struct kept kept[KEPT];
    struct random random;
    struct model_domain domains[IDS];
    int attached[BED_DEVICES]; /* -1: nowhere */
    bool bypass;
    unsigned mapping; /* the last one's number */
};

static unsigned below(struct world *world, unsigned bound)
{
    return random_below(&world->random, bound);
}

/* Page 20 always, and what is reserved just now. */
static bool is_closed(const struct world *world, unsigned device, uint64_t page)
{
    bool closed = page == 20;

    for (unsigned i = 0; i < KEPT; i++) {
        const struct kept *kept = &world->kept[i];

        closed = closed || (kept->reservation && kept->space == (device == BED_DEVICES - 1) &&
                            page >= kept->first && page <= kept->last);
    }
    return closed;
}

static bool is_closed_in(const struct world *world, unsigned id, uint64_t page)
{
    bool closed = false;

    for (unsigned i = 0; i < BED_DEVICES; i++) {
        closed = closed || (world->attached[i] == (int)id && is_closed(world, i, page));
    }
    return closed;
}

/* Whether the domain has mapped what is closed to a device. */
static bool maps_closed(const struct world *world, unsigned id, unsigned device)
{
    bool meets = false;

    for (uint64_t i = 0; i < SPACE; i++) {
        meets = meets || (world->domains[id].pages[i].mapping && is_closed(world, device, i));
    }
    return meets;
}

static unsigned endpoints_of(const struct world *world, int id)
{
    unsigned count = 0;

    for (unsigned i = 0; i < BED_DEVICES; i++) {
        count += world->attached[i] == id;
    }
    return count;
}

static unsigned count_mappings(const struct world *world)
{
    unsigned count = 0;

    for (unsigned id = 0; id < IDS; id++) {
        unsigned last = 0;

        for (unsigned i = 0; i < SPACE; i++) {
            unsigned mapping = world->domains[id].pages[i].mapping;

            count += mapping && mapping != last;
            last = mapping;
        }
    }
    return count;
}

static unsigned count_domains(const struct world *world)
{
    unsigned count = 0;

    for (unsigned id = 0; id < IDS; id++) {
        count += world->domains[id].exists;
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

static uint8_t model_attach(struct world *world, unsigned id, unsigned endpoint, uint32_t flags)
{
    unsigned device = endpoint - 8;
    int old;

    if (flags > 1) {
        return SPEC_S_INVAL;
    }
    if (device >= BED_DEVICES) {
        return SPEC_S_NOENT;
    }
    if (id > 4) {
        return SPEC_S_RANGE;
    }
    old = world->attached[device];
    if (world->domains[id].exists && world->domains[id].bypass != flags) {
        return SPEC_S_INVAL;
    }
    if (old == (int)id) {
        return SPEC_S_OK;
    }
    if (world->domains[id].exists &&
        (endpoints_of(world, (int)id) >= 2 || maps_closed(world, id, device))) {
        return SPEC_S_UNSUPP;
    }
    if (!world->domains[id].exists &&
        count_domains(world) - (old >= 0 && endpoints_of(world, old) == 1) >= 2) {
        return SPEC_S_NOMEM;
    }
    leave(world, device);
    world->attached[device] = (int)id;
    world->domains[id].exists = true;
    world->domains[id].bypass = flags;
    return SPEC_S_OK;
}

static uint8_t model_detach(struct world *world, unsigned id, unsigned endpoint)
{
    unsigned device = endpoint - 8;

    if (device >= BED_DEVICES) {
        return SPEC_S_NOENT;
    }
    if (world->attached[device] != (int)id) {
        return SPEC_S_INVAL;
    }
    leave(world, device);
    return SPEC_S_OK;
}

static uint8_t model_map(struct world *world, unsigned id, uint64_t first, uint64_t last,
                         uint64_t gpa, uint32_t flags)
{
    struct model_domain *domain = &world->domains[id];

    if (flags > 7) {
        return SPEC_S_INVAL;
    }
    if (!domain->exists) {
        return SPEC_S_NOENT;
    }
    if (domain->bypass) {
        return SPEC_S_INVAL;
    }
    if ((first | gpa | (last + 1)) & 0xfff) {
        return SPEC_S_RANGE;
    }
    if (first > last) {
        return SPEC_S_INVAL;
    }
    if (last >= SPACE * PAGE) {
        return SPEC_S_RANGE;
    }
    if (gpa + (last - first) >= 1ull << 40) {
        return SPEC_S_FAULT;
    }
    for (uint64_t i = first / PAGE; i <= last / PAGE; i++) {
        if (domain->pages[i].mapping || is_closed_in(world, id, i)) {
            return SPEC_S_INVAL;
        }
    }
    if (count_mappings(world) >= MAPPINGS_MAX) {
        return SPEC_S_NOMEM;
    }
    world->mapping++;
    for (uint64_t i = first / PAGE; i <= last / PAGE; i++) {
        domain->pages[i] = (struct page){world->mapping, gpa + i * PAGE - first, flags};
    }
    return SPEC_S_OK;
}

static uint8_t model_unmap(struct world *world, unsigned id, uint64_t first, uint64_t last)
{
    struct model_domain *domain = &world->domains[id];
    uint64_t from = first / PAGE;
    uint64_t to = last / PAGE < SPACE ? last / PAGE : SPACE - 1;

    if (!domain->exists) {
        return SPEC_S_NOENT;
    }
    if (domain->bypass || first > last) {
        return SPEC_S_INVAL;
    }
    /* A mapping with a byte inside and one outside. */
    for (unsigned i = 0; i < SPACE; i++) {
        unsigned mapping = domain->pages[i].mapping;
        bool inside = false;
        bool outside = false;

        for (unsigned j = 0; mapping && j < SPACE; j++) {
            if (domain->pages[j].mapping == mapping) {
                inside |= j * PAGE <= last && j * PAGE + 0xfff >= first;
                outside |= j * PAGE < first || j * PAGE + 0xfff > last;
            }
        }
        if (inside && outside) {
            return SPEC_S_RANGE;
        }
    }
    for (uint64_t i = from; i <= to; i++) {
        if (i * PAGE >= first) {
            domain->pages[i] = (struct page){0};
        }
    }
    return SPEC_S_OK;
}

/* What a DMA of a device would find; fills the reason of its fault where it is refused. */
static bool model_translate(const struct world *world, unsigned device, uint64_t iova,
                            uint32_t perm, uint64_t *gpa, unsigned *reason)
{
    int id = world->attached[device];
    const struct page *page;

    *reason = SPEC_FAULT_R_MAPPING;
    if (is_closed(world, device, iova / PAGE)) {
        return false;
    }
    *gpa = iova;
    if (id < 0) {
        *reason = SPEC_FAULT_R_DOMAIN;
        return world->bypass;
    }
    if (world->domains[id].bypass) {
        return true;
    }
    if (iova / PAGE >= SPACE) {
        return false;
    }
    page = &world->domains[id].pages[iova / PAGE];
    *gpa = page->gpa + iova % PAGE;
    return page->mapping && !(perm & ~page->flags) && (page->flags & 3);
}

static void step_dma(struct world *world)
{
    unsigned device = below(world, BED_DEVICES);
    uint64_t iova = below(world, SPACE + 4) * PAGE + below(world, PAGE);
    uint32_t perm = below(world, 4);
    struct viommu_translation out;
    unsigned reason;
    uint64_t gpa;
    bool allowed = model_translate(world, device, iova, perm, &gpa, &reason);
    int ret = viommu_device_translate(world->bed.devices[device], NULL, iova, perm, &out);

    assert_int_equal(ret, allowed ? 0 : -EFAULT);
    if (allowed) {
        assert_int_equal(out.gpa, gpa);
        for (unsigned i = 0; i < 3; i++) {
            uint64_t other = (iova & ~out.mask) | (random_u64(&world->random) & out.mask);
            uint64_t there;

            assert_true(model_translate(world, device, other, perm, &there, &reason));
            assert_int_equal(there, (out.gpa & ~out.mask) | (other & out.mask));
        }
    } else {
        unsigned flags = (perm & 2 ? SPEC_FAULT_WRITE : 0) | SPEC_FAULT_ADDRESS |
                         (perm & 1 || !perm ? SPEC_FAULT_READ : 0);

        bed_expect_fault(&world->bed, reason, flags, 8 + device, iova);
    }
}

/* Mostly whole pages, mostly a few; now and then anything. */
static void any_range(struct world *world, uint64_t *first, uint64_t *last)
{
    *first = below(world, SPACE) * PAGE;
    *last = *first + (1 + below(world, 6)) * PAGE - 1;
    if (!below(world, 12)) {
        *last = (uint64_t)below(world, SPACE + 2) * PAGE - 1;
    }
    if (!below(world, 30)) {
        *first += below(world, 2 * PAGE);
    }
    if (!below(world, 30)) {
        *last += below(world, 2 * PAGE);
    }
}

static void step_request(struct world *world)
{
    struct spec_virtio_request request;
    struct world before;
    unsigned id = below(world, IDS);
    unsigned endpoint = 8 + below(world, BED_DEVICES + !below(world, 10));
    uint32_t flags = below(world, 12) ? below(world, 4) : below(world, 16);
    uint64_t gpa = below(world, 20) ? below(world, 60) * PAGE : (1ull << 40) - PAGE;
    uint8_t expected;
    uint64_t first;
    uint64_t last;
    uint8_t status;

    any_range(world, &first, &last);
    memcpy(before.domains, world->domains, sizeof(before.domains));
    memcpy(before.attached, world->attached, sizeof(before.attached));
    switch (below(world, 8)) {
    case 0:
        flags = below(world, 10) ? !below(world, 4) : 2;
        request = spec_virtio_attach(id, endpoint, flags);
        expected = model_attach(world, id, endpoint, flags);
        break;
    case 1:
        if (below(world, 3)) {
            return;
        }
        request = spec_virtio_detach(id, endpoint);
        expected = model_detach(world, id, endpoint);
        break;
    case 2:
    case 3:
        request = spec_virtio_unmap(id, first, last);
        expected = model_unmap(world, id, first, last);
        break;
    default:
        request = spec_virtio_map(id, first, last, gpa, flags);
        expected = model_map(world, id, first, last, gpa, flags);
        break;
    }
    if (!below(world, 8)) {
        base_alloc_fail_at(1 + below(world, 4));
    }
    status = bed_request(&world->bed, request);
    if (status == SPEC_S_NOMEM && base_alloc_failed()) {
        memcpy(world->domains, before.domains, sizeof(before.domains));
        memcpy(world->attached, before.attached, sizeof(before.attached));
    } else {
        assert_int_equal(status, expected);
    }
    base_alloc_fail_at(0);
}

static void forget(struct world *world)
{
    memset(world->domains, 0, sizeof(world->domains));
    for (unsigned i = 0; i < BED_DEVICES; i++) {
        world->attached[i] = -1;
    }
}

static void take_over(struct world *world)
{
    struct viommu_device *devices[BED_DEVICES];
    struct bed *bed = &world->bed;
    struct viommu *second;
    size_t size;
    void *data;

    assert_int_equal(viommu_save(bed->iommu, &data, &size), 0);
    assert_int_equal(viommu_virtio_create(&bed->config, &bed->virtio, &second), 0);
    bed_devices(&world->bed, second, devices);
    assert_int_equal(viommu_load(second, data, size), 0);
    viommu_save_free(data);
    viommu_destroy(bed->iommu);
    bed->iommu = second;
    memcpy(bed->devices, devices, sizeof(devices));
}

/* A reservation goes, or comes where no guest has mapped anything. */
static void step_space(struct world *world)
{
    struct kept *kept = &world->kept[below(world, KEPT)];
    struct viommu_iova_request request = {.type = VIOMMU_IOVA_RESERVED};
    struct viommu_iova_conflict conflict;
    bool meets = false;
    int ret;

    if (kept->reservation) {
        viommu_iova_release(kept->reservation);
        kept->reservation = NULL;
        return;
    }
    kept->space = below(world, 2);
    kept->first = below(world, SPACE);
    kept->last = kept->first + below(world, 4);
    /* A part of a page closes all of it. */
    request.range.first = kept->first * PAGE + below(world, 2) * 0x123;
    request.range.last = kept->last * PAGE + (below(world, 2) ? 0xfff : 0x456);
    for (unsigned i = 0; i < BED_DEVICES; i++) {
        for (uint64_t p = kept->first; p <= kept->last && p < SPACE; p++) {
            meets |= (i == BED_DEVICES - 1) == (int)kept->space && world->attached[i] >= 0 &&
                     world->domains[world->attached[i]].pages[p].mapping;
        }
    }
    ret = viommu_iova_reserve(world->owners[kept->space], &request, 1, &kept->reservation,
                              &conflict);
    assert_int_equal(ret, meets ? -EEXIST : 0);
    if (ret) {
        assert_int_equal(conflict.holder.kind, VIOMMU_IOVA_MAPPING);
        kept->reservation = NULL;
    }
    bed_process(&world->bed); /* what devices in bypass mode could use is waited for */
}

static void step_rare(struct world *world)
{
    switch (below(world, 16)) {
    case 2:
    case 3:
    case 4:
    case 5:
    case 6:
    case 7:
        step_space(world);
        break;
    case 0:
        assert_int_equal(viommu_virtio_reset(world->bed.iommu, 0), 0);
        assert_int_equal(viommu_virtio_accept(world->bed.iommu, 0x77), 0);
        forget(world);
        break;
    case 1:
        take_over(world);
        break;
    default:
        world->bypass = below(world, 2);
        assert_int_equal(viommu_mmio_write(world->bed.iommu, 36, 1, world->bypass), 0);
        bed_process(&world->bed);
        break;
    }
}

static void check_counts(struct world *world)
{
    struct viommu_virtio_status status = bed_status(&world->bed);
    unsigned attached = 0;

    for (unsigned i = 0; i < BED_DEVICES; i++) {
        attached += world->attached[i] >= 0;
    }
    assert_int_equal(status.domains, count_domains(world));
    assert_int_equal(status.endpoints, attached);
    assert_int_equal(status.mappings, count_mappings(world));
    assert_int_equal(status.pending, 0);
    assert_int_equal(status.faults_waiting, 0);
}

static void test_random(void **state)
{
    static const struct viommu_range region = {20 * PAGE, 20 * PAGE + 0xfff};
    struct viommu_virtio_config config = {
        .input = {0, SPACE * PAGE - 1},
        .domain_last = 4,
        .host_address_width = 40,
        .domains_max = 2,
        .domain_endpoints_max = 2,
        .mappings_max = MAPPINGS_MAX,
    };
    struct world *world = calloc(1, sizeof(*world));
    struct bed second;

    (void)state;
    assert_non_null(world);
    for (uint64_t seed = 1; seed <= 4; seed++) {
        world->random = (struct random){seed};
        world->bypass = false;
        forget(world);
        memset(world->kept, 0, sizeof(world->kept));
        bed_space(&second, &region, 1);
        bed_space(&world->bed, &region, 1);
        world->owners[0] = world->bed.host;
        world->owners[1] = second.host;
        world->bed.other = second.space;
        bed_begin(&world->bed, &config);
        for (unsigned i = 0; i < STEPS; i++) {
            unsigned kind = below(world, 200);

            if (kind < 2) {
                step_rare(world);
            } else if (kind < 120) {
                step_request(world);
            } else {
                step_dma(world);
            }
            check_counts(world);
        }
        bed_fini(&world->bed);
    }
    free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
