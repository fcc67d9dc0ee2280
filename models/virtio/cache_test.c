/* SPDX-License-Identifier: BSD-2-Clause */
/* The modes of the cache: a hostile one begins requests late, in order; a faithful one changes
   nothing. */
#include "virtio/test_virtio.h"

#include "support/random.h"

static const struct viommu_virtio_config defaults;

/* As bed_init, with a mode of the cache. */
static void begin(struct bed *bed, enum viommu_cache_mode mode, uint64_t seed)
{
    bed_init(bed, &defaults);
    viommu_destroy(bed->iommu);
    bed->config.cache_mode = mode;
    bed->config.cache_seed = seed;
    assert_int_equal(viommu_virtio_create(&bed->config, &bed->virtio, &bed->iommu), 0);
    bed_devices(bed, bed->iommu, bed->devices);
    assert_int_equal(viommu_start(bed->iommu), 0);
    assert_int_equal(viommu_virtio_accept(bed->iommu, viommu_virtio_features(bed->iommu)), 0);
}

/* What a request is answered in the end. */
static uint8_t answer(struct bed *bed, struct spec_virtio_request request)
{
    uint8_t status = bed_request(bed, request);

    if (status == BED_PENDING) {
        bed_process(bed);
        assert_int_equal(bed->done_count, 1);
        assert_int_equal(bed->done[0].token, bed->token);
        status = bed->done[0].status;
        bed->done_count = 0;
    }
    return status;
}

/* The old translation is used until the answer, and never after. */
static void test_hostile(void **state)
{
    unsigned late = 0;
    unsigned longest = 0;

    (void)state;
    for (uint64_t seed = 0; seed < 40; seed++) {
        unsigned calls = 0;
        struct bed bed;
        uint8_t status;

        begin(&bed, VIOMMU_CACHE_HOSTILE, seed);
        assert_int_equal(answer(&bed, spec_virtio_attach(1, 8, 0)), SPEC_S_OK);
        assert_int_equal(answer(&bed, spec_virtio_map(1, 0x1000, 0x1fff, 0x3000, 3)), SPEC_S_OK);
        assert_int_equal(bed_read(&bed, 0, 0x1000), 3);
        status = bed_unmap(&bed, 1, 0x1000, 0x1fff);
        while (status == BED_PENDING && !bed.done_count) {
            int ret;

            assert_int_equal(bed_read(&bed, 0, 0x1000), 3);
            ret = viommu_process(bed.iommu, 0);
            assert_int_equal(ret, bed.done_count ? 0 : VIOMMU_PENDING);
            calls++;
        }
        assert_int_equal(bed_read(&bed, 0, 0x1000), -EFAULT);
        late += calls > 0;
        longest = longest > calls ? longest : calls;
        bed_fini(&bed);
    }
    assert_in_range(late, 20, 39); /* most, and not all */
    assert_int_equal(longest, 5);
}

/* Those behind a late one wait, with nothing done; PROBE does not. */
static void test_order(void **state)
{
    struct spec_virtio_request probe = spec_virtio_probe(8);
    uint8_t out[600];
    size_t written;
    size_t size;
    void *data;

    (void)state;
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct bed bed;
        uint64_t token;

        begin(&bed, VIOMMU_CACHE_HOSTILE, seed);
        token = bed.token + 1;
        if (bed_attach(&bed, 1, 8, 0) != BED_PENDING) {
            bed_fini(&bed);
            continue;
        }
        assert_int_equal(bed_map(&bed, 1, 0x1000, 0x1fff, 0x3000, 3), BED_PENDING);
        assert_int_equal(bed_map(&bed, 1, 0x1000, 0x1fff, 0x3000, 3), BED_PENDING);
        assert_int_equal(bed_status(&bed).domains, 0);
        assert_int_equal(viommu_virtio_request(bed.iommu, probe.bytes, probe.size, out, 600, 99,
                                               &written), 0);
        assert_int_equal(written, 516);
        assert_int_equal(viommu_save(bed.iommu, &data, &size), -EBUSY);
        if (seed % 2) {
            /* The driver resets the device: what was not begun never is. */
            assert_int_equal(viommu_virtio_reset(bed.iommu, token + 3), VIOMMU_PENDING);
            bed.token++;
        }
        bed_process(&bed);
        assert_int_equal(bed.done_count, seed % 2 ? 4 : 3);
        for (unsigned i = 0; i < bed.done_count; i++) {
            assert_int_equal(bed.done[i].token, token + i);
            assert_int_equal(bed.done[i].status, seed % 2 ? (i < 3 ? SPEC_S_IOERR : SPEC_S_OK)
                                                          : (i < 2 ? SPEC_S_OK : SPEC_S_INVAL));
        }
        assert_int_equal(bed_read(&bed, 0, 0x1000), seed % 2 ? -EFAULT : 3);
        assert_int_equal(viommu_save(bed.iommu, &data, &size), 0);
        viommu_save_free(data);
        bed_fini(&bed);
    }
}

static struct spec_virtio_request any_request(struct random *random)
{
    uint32_t domain = random_below(random, 3);
    uint32_t endpoint = 8 + random_below(random, 3);
    uint64_t first = random_below(random, 8) * PAGE;
    uint64_t last = first + (1 + random_below(random, 3)) * PAGE - 1;

    switch (random_below(random, 6)) {
    case 0:
        return spec_virtio_attach(domain, endpoint, !random_below(random, 4));
    case 1:
        return spec_virtio_detach(domain, endpoint);
    case 2:
        return spec_virtio_unmap(domain, first, last);
    default:
        return spec_virtio_map(domain, first, last, random_below(random, 32) * PAGE, 3);
    }
}

/* A driver that waits for answers finds no difference in any mode. */
static void test_same_answers(void **state)
{
    enum viommu_cache_mode modes[] = {VIOMMU_CACHE_NORMAL, VIOMMU_CACHE_FAITHFUL,
                                      VIOMMU_CACHE_HOSTILE};
    struct random random = {7};
    struct bed beds[3];

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        begin(&beds[i], modes[i], 3);
    }
    for (unsigned step = 0; step < 3000; step++) {
        struct spec_virtio_request request = any_request(&random);
        unsigned device = random_below(&random, 3);
        uint64_t iova = random_below(&random, 10) * PAGE;
        uint8_t status = answer(&beds[0], request);
        int64_t read = bed_read(&beds[0], device, iova);

        assert_int_equal(bed_request(&beds[1], request), status);
        assert_int_equal(answer(&beds[2], request), status);
        for (unsigned i = 1; i < 3; i++) {
            assert_int_equal(bed_read(&beds[i], device, iova), read);
            assert_int_equal(bed_status(&beds[i]).mappings, bed_status(&beds[0]).mappings);
        }
    }
    for (unsigned i = 0; i < 3; i++) {
        bed_fini(&beds[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_same_answers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
