/* SPDX-License-Identifier: BSD-2-Clause */
/* The baseline of baseline_virtio.h. */
#include "baseline_virtio.h"

#include "virtio_spec.h"

#include <endian.h>

#define IN_MAX 72
#define INTERRUPT_FIRST 0xfee00000u
#define INTERRUPT_LAST 0xfeefffffu

struct interval {
    uint64_t first;
    uint64_t last;
};

struct mapping {
    uint64_t target;
    uint32_t flags;
};

struct domain {
    GTree *mappings;
    unsigned endpoints;
};

static gint compare_ids(gconstpointer a, gconstpointer b, gpointer data)
{
    uint32_t x = GPOINTER_TO_UINT(a);
    uint32_t y = GPOINTER_TO_UINT(b);

    (void)data;
    return (x > y) - (x < y);
}

static gint compare_intervals(gconstpointer a, gconstpointer b, gpointer data)
{
    const struct interval *x = a;
    const struct interval *y = b;

    (void)data;
    return x->last < y->first ? -1 : x->first > y->last;
}

static void domain_free(gpointer data)
{
    struct domain *domain = data;

    g_tree_destroy(domain->mappings);
    g_free(domain);
}

void baseline_virtio_init(struct baseline_virtio *baseline, uint64_t mappings_max)
{
    *baseline = (struct baseline_virtio){
        .domains = g_tree_new_full(compare_ids, NULL, NULL, domain_free),
        .endpoints = g_tree_new_full(compare_ids, NULL, NULL, NULL),
        .granule = 0xfff,
        .input_last = (UINT64_C(1) << 48) - 1,
        .host_last = (UINT64_C(1) << 52) - 1,
        .mappings_max = mappings_max,
    };
    g_mutex_init(&baseline->lock);
}

void baseline_virtio_fini(struct baseline_virtio *baseline)
{
    g_tree_destroy(baseline->endpoints);
    g_tree_destroy(baseline->domains);
    g_mutex_clear(&baseline->lock);
}

static uint32_t get32(const uint8_t *at)
{
    uint32_t value;

    memcpy(&value, at, sizeof(value));
    return le32toh(value);
}

static uint64_t get64(const uint8_t *at)
{
    uint64_t value;

    memcpy(&value, at, sizeof(value));
    return le64toh(value);
}

static struct domain *domain_find(struct baseline_virtio *baseline, uint32_t id)
{
    return g_tree_lookup(baseline->domains, GUINT_TO_POINTER(id));
}

/* An endpoint that is not attached yet; the rows need no more. */
static uint8_t attach(struct baseline_virtio *baseline, const uint8_t *in)
{
    uint32_t id = get32(in + 4);
    uint32_t endpoint = get32(in + 8);
    struct domain *domain = domain_find(baseline, id);

    if (g_tree_lookup(baseline->endpoints, GUINT_TO_POINTER(endpoint))) {
        return SPEC_S_UNSUPP;
    }
    if (!domain) {
        domain = g_new0(struct domain, 1);
        domain->mappings = g_tree_new_full(compare_intervals, NULL, g_free, g_free);
        g_tree_insert(baseline->domains, GUINT_TO_POINTER(id), domain);
    }
    domain->endpoints++;
    g_tree_insert(baseline->endpoints, GUINT_TO_POINTER(endpoint), domain);
    return SPEC_S_OK;
}

static uint8_t addresses_check(const struct baseline_virtio *baseline,
                               const struct interval *interval, uint64_t target)
{
    uint64_t reach = interval->last - interval->first;

    if (interval->first > interval->last) {
        return SPEC_S_INVAL;
    }
    if ((interval->first | target | (interval->last + 1)) & baseline->granule ||
        interval->last > baseline->input_last) {
        return SPEC_S_RANGE;
    }
    if (target > baseline->host_last || reach > baseline->host_last - target) {
        return SPEC_S_FAULT;
    }
    return interval->first <= INTERRUPT_LAST && interval->last >= INTERRUPT_FIRST ? SPEC_S_INVAL
                                                                                  : SPEC_S_OK;
}

static uint8_t map(struct baseline_virtio *baseline, const uint8_t *in)
{
    struct interval interval = {get64(in + 8), get64(in + 16)};
    uint64_t target = get64(in + 24);
    uint32_t flags = get32(in + 32);
    struct domain *domain;
    struct interval *key;
    struct mapping *value;
    uint8_t status;

    if (flags & ~(SPEC_MAP_RW | SPEC_MAP_MMIO)) {
        return SPEC_S_INVAL;
    }
    domain = domain_find(baseline, get32(in + 4));
    if (!domain) {
        return SPEC_S_NOENT;
    }
    status = addresses_check(baseline, &interval, target);
    if (status) {
        return status;
    }
    if (g_tree_lookup(domain->mappings, &interval)) {
        return SPEC_S_INVAL;
    }
    if (baseline->mappings >= baseline->mappings_max) {
        return SPEC_S_NOMEM;
    }
    key = g_new(struct interval, 1);
    value = g_new(struct mapping, 1);
    *key = interval;
    *value = (struct mapping){target, flags};
    g_tree_insert(domain->mappings, key, value);
    baseline->mappings++;
    return SPEC_S_OK;
}

static uint8_t unmap(struct baseline_virtio *baseline, const uint8_t *in)
{
    struct interval interval = {get64(in + 8), get64(in + 16)};
    struct domain *domain;
    gpointer key;
    gpointer value;

    if (get32(in + 24)) {
        return SPEC_S_INVAL;
    }
    domain = domain_find(baseline, get32(in + 4));
    if (!domain) {
        return SPEC_S_NOENT;
    }
    if (interval.first > interval.last) {
        return SPEC_S_INVAL;
    }
    while (g_tree_lookup_extended(domain->mappings, &interval, &key, &value)) {
        const struct interval *found = key;

        if (found->first < interval.first || found->last > interval.last) {
            return SPEC_S_RANGE;
        }
        g_tree_remove(domain->mappings, found);
        baseline->mappings--;
    }
    return SPEC_S_OK;
}

static uint8_t carry_out(struct baseline_virtio *baseline, const uint8_t *in, size_t size)
{
    switch (in[0]) {
    case SPEC_VIRTIO_ATTACH:
        return size >= 20 ? attach(baseline, in) : SPEC_S_INVAL;
    case SPEC_VIRTIO_MAP:
        return size >= 36 ? map(baseline, in) : SPEC_S_INVAL;
    case SPEC_VIRTIO_UNMAP:
        return size >= 28 ? unmap(baseline, in) : SPEC_S_INVAL;
    default:
        return SPEC_S_UNSUPP;
    }
}

size_t baseline_virtio_request(struct baseline_virtio *baseline, const void *in, size_t in_size,
                               void *out, size_t out_size)
{
    uint8_t copy[IN_MAX];
    uint8_t tail[4] = {0};

    if (in_size < 4 || out_size < sizeof(tail)) {
        return 0;
    }
    memcpy(copy, in, in_size < sizeof(copy) ? in_size : sizeof(copy));
    g_mutex_lock(&baseline->lock);
    tail[0] = carry_out(baseline, copy, in_size);
    g_mutex_unlock(&baseline->lock);
    memcpy(out, tail, sizeof(tail));
    return sizeof(tail);
}

bool baseline_virtio_translate(struct baseline_virtio *baseline, uint32_t endpoint, uint64_t iova,
                               uint32_t perm, uint64_t *gpa)
{
    struct interval interval = {iova, iova};
    struct domain *domain;
    gpointer key;
    gpointer value;
    bool ok = false;

    g_mutex_lock(&baseline->lock);
    domain = g_tree_lookup(baseline->endpoints, GUINT_TO_POINTER(endpoint));
    if (domain && g_tree_lookup_extended(domain->mappings, &interval, &key, &value)) {
        const struct interval *found = key;
        const struct mapping *mapping = value;

        ok = !(perm & ~mapping->flags);
        *gpa = mapping->target + (iova - found->first);
    }
    g_mutex_unlock(&baseline->lock);
    return ok;
}
