/* SPDX-License-Identifier: BSD-2-Clause */
/* What requests wait for: DMA under way, subscribers, windows; and in which order they complete. */
#include "virtio/test_virtio.h"

#include "base/alloc.h"
#include "device/dma.h"
#include "virtio/unit.h"

#include <pthread.h>

static const struct viommu_virtio_config defaults;

/* A cache: what it is told, and how it answers. */
struct cache {
    struct viommu_change changes[16];
    unsigned count;
    int answer;
};

static int on_change(void *opaque, const struct viommu_change *change)
{
    struct cache *cache = opaque;

    assert_true(cache->count < 16);
    cache->changes[cache->count++] = *change;
    return cache->answer;
}

static struct viommu_subscriber *subscribe(struct bed *bed, unsigned device, struct cache *cache)
{
    struct viommu_subscription what = {
        .kinds = VIOMMU_CHANGE_UNMAP,
        .form = VIOMMU_FORM_RANGE,
        .change = on_change,
        .opaque = cache,
    };
    struct viommu_subscriber *subscriber;

    assert_int_equal(viommu_device_subscribe(bed->devices[device], &what, &subscriber), 0);
    return subscriber;
}

static void prepare(struct bed *bed, const struct viommu_virtio_config *config)
{
    bed_init(bed, config);
    assert_int_equal(bed_attach(bed, 1, 8, 0), SPEC_S_OK);
    bed_process(bed);
    assert_int_equal(bed_map(bed, 1, 0x1000, 0x1fff, 0x3000, SPEC_MAP_RW), SPEC_S_OK);
    assert_int_equal(bed_map(bed, 1, 0x4000, 0x5fff, 0x8000, SPEC_MAP_RW), SPEC_S_OK);
    assert_int_equal(bed_read(bed, 0, 0x1000), 3);
}

static void expect_done(struct bed *bed, unsigned index, uint64_t token, uint8_t status)
{
    assert_true(bed->done_count > index);
    assert_int_equal(bed->done[index].token, token);
    assert_int_equal(bed->done[index].status, status);
}

/* A section holds back what takes something away, and what came after it; nothing else. */
static void test_section(void **state)
{
    struct viommu_translation out;
    struct bed bed;
    uint64_t token;

    (void)state;
    prepare(&bed, &defaults);
    assert_int_equal(viommu_dma_begin(bed.iommu), 0);
    assert_int_equal(viommu_device_translate(bed.devices[0], NULL, 0x1000, VIOMMU_READ, &out), 0);
    assert_int_equal(bed_map(&bed, 1, 0x8000, 0x8fff, 0, SPEC_MAP_RW), SPEC_S_OK);
    assert_int_equal(bed_unmap(&bed, 1, 0x9000, 0x9fff), SPEC_S_OK);
    assert_int_equal(bed_unmap(&bed, 1, 0x1000, 0x1fff), BED_PENDING);
    token = bed.token;
    assert_int_equal(viommu_device_translate(bed.devices[0], NULL, 0x1000, VIOMMU_READ, &out),
                     -EFAULT);
    /* Its effect is there; it is told in its turn. */
    assert_int_equal(bed_map(&bed, 1, 0x1000, 0x1fff, 0x6000, SPEC_MAP_RW), BED_PENDING);
    assert_int_equal(bed_map(&bed, 1, 0x1000, 0x1fff, 0x6000, SPEC_MAP_RW), BED_PENDING);
    assert_int_equal(bed_detach(&bed, 9, 9), BED_PENDING);
    assert_int_equal(bed_status(&bed).pending, 4);
    bed_process(&bed);
    assert_int_equal(bed.done_count, 0);
    viommu_dma_end(bed.iommu);
    bed_process(&bed);
    assert_int_equal(bed.done_count, 4);
    expect_done(&bed, 0, token, SPEC_S_OK);
    expect_done(&bed, 1, token + 1, SPEC_S_OK);
    expect_done(&bed, 2, token + 2, SPEC_S_INVAL);
    expect_done(&bed, 3, token + 3, SPEC_S_INVAL);
    assert_int_equal(bed_read(&bed, 0, 0x1000), 6);
    assert_int_equal(bed_status(&bed).pending, 0);
    bed_fini(&bed);
}

/* One that is over, and not told yet, still comes first. */
static void test_order(void **state)
{
    struct bed bed;
    uint64_t token;

    (void)state;
    prepare(&bed, &defaults);
    assert_int_equal(viommu_dma_begin(bed.iommu), 0);
    assert_int_equal(bed_unmap(&bed, 1, 0x1000, 0x1fff), BED_PENDING);
    token = bed.token;
    viommu_dma_end(bed.iommu);
    assert_int_equal(bed_unmap(&bed, 1, 0x4000, 0x5fff), BED_PENDING);
    assert_int_equal(bed_map(&bed, 1, 0x1001, 0x1fff, 0, SPEC_MAP_RW), BED_PENDING);
    bed_process(&bed);
    assert_int_equal(bed.done_count, 3);
    expect_done(&bed, 0, token, SPEC_S_OK);
    expect_done(&bed, 1, token + 1, SPEC_S_OK);
    expect_done(&bed, 2, token + 2, SPEC_S_RANGE);
    bed_fini(&bed);
}

/* A section holds back everything that takes something away. */
static void test_section_holds_all(void **state)
{
    struct bed bed;

    (void)state;
    for (unsigned kind = 0; kind < 6; kind++) {
        prepare(&bed, &(struct viommu_virtio_config){.bypass = true});
        assert_int_equal(viommu_dma_begin(bed.iommu), 0);
        switch (kind) {
        case 0:
            assert_int_equal(bed_detach(&bed, 1, 8), BED_PENDING);
            break;
        case 1:
            assert_int_equal(bed_attach(&bed, 2, 8, 0), BED_PENDING);
            break;
        case 2: /* out of bypass */
            assert_int_equal(bed_attach(&bed, 2, 9, 0), BED_PENDING);
            break;
        case 3:
            assert_int_equal(viommu_virtio_reset(bed.iommu, ++bed.token), VIOMMU_PENDING);
            assert_int_equal(viommu_virtio_accept(bed.iommu, 0x77), 0);
            break;
        case 4: /* what the driver does after it wrote the field has that behind it */
            assert_int_equal(viommu_mmio_write(bed.iommu, SPEC_CONFIG_BYPASS, 1, 0), 0);
            assert_int_equal(bed_unmap(&bed, 1, 0x9000, 0x9fff), BED_PENDING);
            break;
        default:
            assert_int_equal(bed_unmap(&bed, 1, 0x1000, 0x5fff), BED_PENDING);
            break;
        }
        bed_process(&bed);
        assert_int_equal(bed.done_count, 0);
        viommu_dma_end(bed.iommu);
        bed_process(&bed);
        assert_int_equal(bed.done_count, 1);
        expect_done(&bed, 0, bed.token, SPEC_S_OK);
        bed_fini(&bed);
    }
}

/* PROBE needs not wait; and nothing else is taken when too many wait. */
static void test_many_pending(void **state)
{
    struct spec_virtio_request request = spec_virtio_detach(1, 8);
    unsigned pending = 0;
    uint8_t out[600];
    size_t written;
    struct bed bed;
    int ret;

    (void)state;
    prepare(&bed, &defaults);
    assert_int_equal(viommu_dma_begin(bed.iommu), 0);
    bed.virtio.completed = NULL;
    while ((ret = viommu_virtio_request(bed.iommu, request.bytes, request.size, out, 4, pending,
                                        &written)) == VIOMMU_PENDING) {
        pending++;
    }
    assert_int_equal(ret, -EBUSY);
    assert_int_equal(pending, 256);
    assert_int_equal(viommu_virtio_reset(bed.iommu, 1), -EBUSY);
    /* The driver may write the field as often as it likes. */
    for (unsigned i = 0; i < 1000; i++) {
        assert_int_equal(viommu_mmio_write(bed.iommu, SPEC_CONFIG_BYPASS, 1, i & 1), 0);
    }
    assert_int_equal(bed_status(&bed).pending, 257);
    viommu_dma_end(bed.iommu);
    assert_int_equal(viommu_reset(bed.iommu), 0);
    assert_int_equal(bed_status(&bed).pending, 0);
    assert_int_equal(bed_status(&bed).domains, 0);
    bed_process(&bed);
    assert_int_equal(bed.done_count, 0);
    /* Behind something that waits PROBE is answered at once. */
    assert_int_equal(viommu_virtio_accept(bed.iommu, 0x77), 0);
    assert_int_equal(bed_attach(&bed, 1, 8, 0), SPEC_S_OK);
    assert_int_equal(viommu_dma_begin(bed.iommu), 0);
    assert_int_equal(bed_detach(&bed, 1, 8), BED_PENDING);
    request = spec_virtio_probe(8);
    assert_int_equal(viommu_virtio_request(bed.iommu, request.bytes, request.size, out, 600, 1,
                                           &written), 0);
    assert_int_equal(written, 516);
    viommu_dma_end(bed.iommu);
    bed_fini(&bed); /* with one pending */
}

static void test_caches_are_told(void **state)
{
    struct cache first = {.count = 0};
    struct cache second = {.count = 0};
    struct bed bed;

    (void)state;
    prepare(&bed, &(struct viommu_virtio_config){.bypass = true});
    subscribe(&bed, 0, &first);
    subscribe(&bed, 1, &second);
    bed_process(&bed);
    /* MAP takes nothing away, nor does an UNMAP of nothing. */
    assert_int_equal(bed_map(&bed, 1, 0x8000, 0x8fff, 0, SPEC_MAP_RW), SPEC_S_OK);
    assert_int_equal(bed_unmap(&bed, 1, 0x20000, 0x2ffff), SPEC_S_OK);
    bed_process(&bed);
    assert_int_equal(first.count, 0);
    /* Exactly what went, in one call. */
    assert_int_equal(bed_unmap(&bed, 1, 0, 0x7fff), BED_PENDING);
    bed_process(&bed);
    assert_int_equal(bed.done_count, 1);
    assert_int_equal(first.count, 1);
    assert_int_equal(first.changes[0].kind, VIOMMU_CHANGE_UNMAP);
    assert_int_equal(first.changes[0].requester, 8);
    assert_int_equal(first.changes[0].first, 0x1000);
    assert_int_equal(first.changes[0].last, 0x5fff);
    assert_int_equal(second.count, 0);
    /* Out of bypass; into another domain; out of it. */
    assert_int_equal(bed_attach(&bed, 1, 9, 0), BED_PENDING);
    assert_int_equal(bed_attach(&bed, 2, 9, 0), BED_PENDING);
    assert_int_equal(bed_detach(&bed, 2, 9), BED_PENDING);
    bed_process(&bed);
    assert_int_equal(first.count, 1);
    assert_int_equal(second.count, 3);
    assert_int_equal(second.changes[2].first, 0);
    assert_int_equal(second.changes[2].last, UINT64_MAX);
    assert_int_equal(bed.done_count, 4);
    /* The field concerns the one that is not attached. */
    assert_int_equal(viommu_mmio_write(bed.iommu, SPEC_CONFIG_BYPASS, 1, 0), 0);
    bed_process(&bed);
    assert_int_equal(first.count, 1);
    assert_int_equal(second.count, 4);
    /* From nothing to a domain: there was nothing to be cached. */
    assert_int_equal(bed_attach(&bed, 1, 9, 0), SPEC_S_OK);
    assert_int_equal(viommu_virtio_reset(bed.iommu, 5), VIOMMU_PENDING);
    bed_process(&bed);
    assert_int_equal(first.count, 2);
    assert_int_equal(second.count, 5);
    bed_fini(&bed);
}

static void test_cache_answers_late(void **state)
{
    struct cache cache = {.answer = VIOMMU_PENDING};
    uint64_t token;
    struct bed bed;

    (void)state;
    prepare(&bed, &defaults);
    subscribe(&bed, 0, &cache);
    assert_int_equal(bed_unmap(&bed, 1, 0x1000, 0x1fff), BED_PENDING);
    token = bed.token;
    assert_int_equal(bed_unmap(&bed, 1, 0x4000, 0x5fff), BED_PENDING);
    bed_process(&bed);
    assert_int_equal(cache.count, 2); /* they overlap */
    assert_int_equal(viommu_change_complete(bed.iommu, cache.changes[1].token, 0), 0);
    bed_process(&bed);
    assert_int_equal(bed.done_count, 0);
    assert_int_equal(viommu_dma_begin(bed.iommu), 0);
    assert_int_equal(viommu_change_complete(bed.iommu, cache.changes[0].token, 0), 0);
    bed_process(&bed);
    assert_int_equal(bed.done_count, 0); /* requests with what it had cached end first */
    viommu_dma_end(bed.iommu);
    bed_process(&bed);
    expect_done(&bed, 0, token, SPEC_S_OK);
    expect_done(&bed, 1, token + 1, SPEC_S_OK);
    bed_fini(&bed);
}

/* One that never answers is fenced, its device denied, and the request completes. */
static void test_cache_never_answers(void **state)
{
    struct cache cache = {.answer = VIOMMU_PENDING};
    struct bed bed;

    (void)state;
    prepare(&bed, &defaults);
    subscribe(&bed, 0, &cache);
    assert_int_equal(bed_unmap(&bed, 1, 0x1000, 0x1fff), BED_PENDING);
    bed_process(&bed);
    bed.now += 499 * MS;
    bed_process(&bed);
    assert_int_equal(bed.done_count, 0);
    bed.now += 2 * MS;
    bed_process(&bed);
    expect_done(&bed, 0, bed.token, SPEC_S_OK);
    assert_int_equal(bed_read(&bed, 0, 0x4000), -EPERM);
    bed_fini(&bed);
}

/* One that cannot be told for want of memory is fenced at once; the UNMAP is not refused. */
static void test_cache_without_memory(void **state)
{
    struct cache cache = {.answer = 0};
    struct bed bed;

    (void)state;
    prepare(&bed, &defaults);
    subscribe(&bed, 0, &cache);
    bed_process(&bed);
    base_alloc_fail_at(1);
    assert_int_equal(bed_unmap(&bed, 1, 0x1000, 0x1fff), SPEC_S_OK);
    assert_true(base_alloc_failed());
    base_alloc_fail_at(0);
    bed_process(&bed);
    assert_int_equal(cache.count, 0);
    assert_int_equal(bed_read(&bed, 0, 0x4000), -EPERM);
    bed_fini(&bed);
}

/* Bypass goes, comes and goes; whoever is attached before all have heard of it hears of it, too. */
static void test_attached_out_of_bypass(void **state)
{
    struct cache caches[2] = {{.answer = VIOMMU_PENDING}, {.answer = 0}};
    struct bed bed;

    (void)state;
    bed_init(&bed, &(struct viommu_virtio_config){.bypass = true});
    subscribe(&bed, 0, &caches[0]);
    subscribe(&bed, 1, &caches[1]);
    assert_int_equal(viommu_mmio_write(bed.iommu, SPEC_CONFIG_BYPASS, 1, 0), 0);
    bed_process(&bed);
    assert_int_equal(caches[1].count, 1);
    assert_int_equal(viommu_mmio_write(bed.iommu, SPEC_CONFIG_BYPASS, 1, 1), 0);
    assert_int_equal(bed_read(&bed, 1, 0x3000), 3); /* and it caches that */
    assert_int_equal(viommu_mmio_write(bed.iommu, SPEC_CONFIG_BYPASS, 1, 0), 0);
    assert_int_equal(bed_attach(&bed, 1, 9, 0), BED_PENDING);
    caches[0].answer = 0;
    assert_int_equal(viommu_change_complete(bed.iommu, caches[0].changes[0].token, 0), 0);
    bed_process(&bed);
    expect_done(&bed, 0, bed.token, SPEC_S_OK);
    assert_int_equal(caches[1].count, 2);
    assert_int_equal(caches[1].changes[1].last, UINT64_MAX);
    bed_fini(&bed);
}

static void on_revoke(void *opaque)
{
    ++*(unsigned *)opaque;
}

static struct viommu_window *pin(struct bed *bed, unsigned device, uint64_t iova, unsigned *revoked)
{
    struct viommu_range range = {iova, iova + 0xfff};
    struct viommu_window_request request = {
        .ranges = &range,
        .count = 1,
        .perm = VIOMMU_WRITE,
        .revoke = on_revoke,
        .opaque = revoked,
    };
    struct viommu_window *window;
    struct iovec iov[1];
    size_t parts = 1;

    assert_int_equal(viommu_device_pin(bed->devices[device], NULL, &request, iov, &parts, &window),
                     0);
    return window;
}

static void test_windows(void **state)
{
    struct viommu_window *windows[3];
    unsigned revoked[3] = {0};
    struct bed bed;

    (void)state;
    prepare(&bed, &(struct viommu_virtio_config){.bypass = true});
    windows[0] = pin(&bed, 0, 0x1000, &revoked[0]);
    windows[1] = pin(&bed, 0, 0x4000, &revoked[1]);
    windows[2] = pin(&bed, 1, 0x4000, &revoked[2]); /* bypass */
    assert_int_equal(bed_unmap(&bed, 1, 0x1000, 0x1fff), BED_PENDING);
    bed_process(&bed);
    assert_int_equal(revoked[0], 1);
    assert_int_equal(revoked[1] + revoked[2], 0);
    assert_int_equal(bed.done_count, 0);
    viommu_window_release(windows[0]);
    bed_process(&bed);
    assert_int_equal(bed.done_count, 1);
    assert_int_equal(bed_detach(&bed, 1, 8), BED_PENDING);
    bed_process(&bed);
    assert_int_equal(revoked[1], 1);
    assert_int_equal(revoked[2], 0);
    viommu_window_release(windows[1]);
    bed_process(&bed);
    assert_int_equal(bed.done_count, 2);
    assert_int_equal(viommu_mmio_write(bed.iommu, SPEC_CONFIG_BYPASS, 1, 0), 0);
    assert_int_equal(bed_attach(&bed, 1, 8, 0), BED_PENDING);
    bed_process(&bed);
    assert_int_equal(revoked[2], 1);
    assert_int_equal(bed.done_count, 2);
    viommu_window_release(windows[2]);
    bed_process(&bed);
    assert_int_equal(bed.done_count, 3);
    bed_fini(&bed);
}

/* A device that is pulled out, or gets another id, leaves its domain: as if it had been
   detached. */
static void test_endpoint_gone(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < 3; kind++) {
        struct viommu_window *windows[2];
        unsigned revoked[2] = {0};
        struct bed bed;

        prepare(&bed, &defaults);
        assert_int_equal(bed_attach(&bed, 2, 9, 0), SPEC_S_OK);
        assert_int_equal(bed_map(&bed, 2, 0x1000, 0x1fff, 0x9000, SPEC_MAP_RW), SPEC_S_OK);
        windows[0] = pin(&bed, 0, 0x1000, &revoked[0]);
        windows[1] = pin(&bed, 1, 0x1000, &revoked[1]);
        if (kind == 0) {
            assert_int_equal(viommu_device_remove(bed.devices[0]), 0);
        } else if (kind == 1) {
            assert_int_equal(viommu_device_set_requester(bed.devices[0], 77), 0);
        } else {
            /* Both at once. */
            assert_int_equal(viommu_device_set_requester(bed.devices[0], 77), 0);
            assert_int_equal(viommu_mmio_write(bed.iommu, SPEC_CONFIG_BYPASS, 1, 1), 0);
        }
        assert_int_equal(bed_status(&bed).domains, 1);
        assert_int_equal(bed_detach(&bed, 1, 8), BED_PENDING);
        bed_process(&bed);
        assert_int_equal(revoked[0], 1);
        assert_int_equal(revoked[1], 0); /* another's leads where it led */
        assert_int_equal(bed.done_count, 0);
        viommu_window_release(windows[0]);
        bed_process(&bed);
        expect_done(&bed, 0, bed.token, SPEC_S_NOENT);
        assert_int_equal(bed_status(&bed).pending, 0);
        viommu_window_release(windows[1]);
        bed_fini(&bed);
    }
}

/* A request that began under the old id does not become one of whoever has that id now. */
static void test_old_id(void **state)
{
    struct viommu_device_config config = {.requester = 8};
    struct dma_request request = {.iova = 0x1000, .perm = VIOMMU_READ};
    struct viommu_translation out;
    struct viommu_device *other;
    struct bed bed;

    (void)state;
    prepare(&bed, &defaults);
    assert_int_equal(bed_attach(&bed, 1, 9, 0), SPEC_S_OK); /* the domain stays */
    assert_int_equal(viommu_dma_begin(bed.iommu), 0);
    request.device = bed.devices[0];
    request.requester = atomic_load(&request.device->requesters[0]);
    assert_int_equal(dma_translate(&request, &out), 0);
    assert_int_equal(viommu_device_set_requester(bed.devices[0], 77), 0);
    assert_int_equal(dma_translate(&request, &out), -EFAULT);
    assert_int_equal(viommu_device_add(bed.iommu, &config, &other), 0);
    assert_int_equal(bed_attach(&bed, 1, 8, 0), BED_PENDING);
    assert_int_equal(viommu_device_translate(other, NULL, 0x1000, VIOMMU_READ, &out), 0);
    assert_int_equal(dma_translate(&request, &out), -EFAULT);
    bed_expect_no_fault(&bed); /* it would be told of the other device */
    bed_process(&bed);
    assert_int_equal(bed.done_count, 0);
    viommu_dma_end(bed.iommu);
    bed_process(&bed);
    expect_done(&bed, 0, bed.token, SPEC_S_OK);
    bed_fini(&bed);
}

/* The field changes again and again while somebody has not answered. */
static void test_bypass_again(void **state)
{
    struct cache cache = {.answer = VIOMMU_PENDING};
    struct bed bed;

    (void)state;
    bed_init(&bed, &(struct viommu_virtio_config){.bypass = true});
    subscribe(&bed, 0, &cache);
    assert_int_equal(viommu_mmio_write(bed.iommu, SPEC_CONFIG_BYPASS, 1, 0), 0);
    bed_process(&bed);
    assert_int_equal(cache.count, 1);
    for (unsigned i = 0; i < 11; i++) {
        assert_int_equal(viommu_mmio_write(bed.iommu, SPEC_CONFIG_BYPASS, 1, ~i & 1), 0);
        assert_int_equal(bed_read(&bed, 0, 0x3000), i & 1 ? -EFAULT : 3);
        bed_process(&bed);
    }
    assert_int_equal(cache.count, 1);
    assert_int_equal(viommu_mmio_write(bed.iommu, SPEC_CONFIG_BYPASS, 1, 0), 0);
    assert_int_equal(bed_attach(&bed, 1, 9, 0), BED_PENDING);
    assert_int_equal(viommu_change_complete(bed.iommu, cache.changes[0].token, 0), 0);
    bed_process(&bed);
    assert_int_equal(cache.count, 2); /* it could have cached it again */
    assert_int_equal(bed.done_count, 0);
    assert_int_equal(viommu_change_complete(bed.iommu, cache.changes[1].token, 0), 0);
    bed_process(&bed);
    assert_int_equal(bed.done_count, 1);
    bed_fini(&bed);
}

/* ---- what sections may look into ---- */

/* Ways in which an endpoint, the only one, leaves its domain. */
static void leave_by_detach(struct bed *bed)
{
    (void)bed_detach(bed, 1, 8);
}

static void leave_by_attach(struct bed *bed)
{
    (void)bed_attach(bed, 2, 8, 0);
}

static void leave_with_device(struct bed *bed)
{
    assert_int_equal(viommu_device_remove(bed->devices[0]), 0);
}

static void leave_by_id(struct bed *bed)
{
    assert_int_equal(viommu_device_set_requester(bed->devices[0], 77), 0);
}

static void leave_by_reset(struct bed *bed)
{
    assert_int_equal(viommu_virtio_reset(bed->iommu, 1), VIOMMU_PENDING);
}

static void leave_by_power(struct bed *bed)
{
    assert_int_equal(viommu_reset(bed->iommu), 0);
}

/*
 * A section that begins just before a context is forgotten may go to its domain: the domain is
 * handed to the epoch after that, so that the section holds it back.
 */
static void test_context_goes_before_its_domain(void **state)
{
    void (*const ways[])(struct bed *bed) = {leave_by_detach, leave_by_attach, leave_with_device,
                                             leave_by_id,     leave_by_reset,  leave_by_power};

    (void)state;
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        const struct virtio_context *context;
        const struct virtio_domain *domain;
        struct bed bed;

        prepare(&bed, &defaults);
        /* With a section open both stay, and can be looked at. */
        assert_int_equal(viommu_dma_begin(bed.iommu), 0);
        context = (const struct virtio_context *)atomic_load(
            &atomic_load(&bed.devices[0]->requesters[0])->context);
        assert_non_null(context);
        domain = context->domain;
        assert_non_null(domain);
        ways[i](&bed);
        assert_true(context->base.deferred.target > 0);
        assert_true(domain->mappings.deferred.target > context->base.deferred.target);
        viommu_dma_end(bed.iommu);
        bed_process(&bed);
        bed_fini(&bed);
    }
}

static void *map_elsewhere(void *bed)
{
    assert_int_equal(bed_map(bed, 1, 0x10000, 0x10fff, 0, SPEC_MAP_RW), BED_PENDING);
    return NULL;
}

static void map_twice(struct bed *bed)
{
    pthread_t thread;

    bed->on_done = NULL;
    assert_int_equal(bed_map(bed, 1, 0x11000, 0x11fff, 0, SPEC_MAP_RW), SPEC_S_OK);
    assert_int_equal(pthread_create(&thread, NULL, map_elsewhere, bed), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

/*
 * While one is told of, others are behind it: another thread's may return before `completed` has
 * begun. Not so those of its own.
 */
static void test_order_while_told(void **state)
{
    struct viommu_translation out;
    struct bed bed;

    (void)state;
    prepare(&bed, &defaults);
    assert_int_equal(viommu_dma_begin(bed.iommu), 0);
    assert_int_equal(viommu_device_translate(bed.devices[0], NULL, 0x1000, VIOMMU_READ, &out), 0);
    assert_int_equal(bed_unmap(&bed, 1, 0x1000, 0x1fff), BED_PENDING);
    viommu_dma_end(bed.iommu);
    bed.on_done = map_twice;
    bed_process(&bed);
    assert_int_equal(bed.done_count, 2);
    expect_done(&bed, 1, bed.token, SPEC_S_OK);
    bed_fini(&bed);
}

/* What goes while a section may look at it is kept until that ends, and no longer. */
static void test_memory_of_mappings(void **state)
{
    struct bed bed;
    uint64_t least;
    uint64_t most;

    (void)state;
    prepare(&bed, &defaults);
    least = bed_status(&bed).memory;
    for (uint64_t i = 0; i < 4000; i++) {
        assert_int_equal(
            bed_map(&bed, 1, (16 + i) * PAGE, (17 + i) * PAGE - 1, 0, SPEC_MAP_RW), SPEC_S_OK);
    }
    most = bed_status(&bed).memory;
    assert_int_equal(viommu_dma_begin(bed.iommu), 0);
    assert_int_equal(bed_unmap(&bed, 1, 16 * PAGE, 2016 * PAGE - 1), BED_PENDING);
    assert_int_equal(bed_unmap(&bed, 1, 2016 * PAGE, 4016 * PAGE - 1), BED_PENDING);
    bed_process(&bed);
    assert_int_equal(bed_status(&bed).memory, most);
    viommu_dma_end(bed.iommu);
    bed_process(&bed);
    assert_int_equal(bed.done_count, 2);
    assert_true(bed_status(&bed).memory < least + 16384);
    bed_fini(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_while_told),
        cmocka_unit_test(test_memory_of_mappings),
        cmocka_unit_test(test_context_goes_before_its_domain),
        cmocka_unit_test(test_section),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_section_holds_all),
        cmocka_unit_test(test_many_pending),
        cmocka_unit_test(test_caches_are_told),
        cmocka_unit_test(test_cache_answers_late),
        cmocka_unit_test(test_cache_never_answers),
        cmocka_unit_test(test_cache_without_memory),
        cmocka_unit_test(test_attached_out_of_bypass),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_endpoint_gone),
        cmocka_unit_test(test_old_id),
        cmocka_unit_test(test_bypass_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
