/* SPDX-License-Identifier: BSD-2-Clause */
/* Every request, and every status that it can be answered with. */
#include "virtio/test_virtio.h"

#include "base/alloc.h"

static const struct viommu_virtio_config defaults;

static void test_attach(void **state)
{
    struct spec_virtio_request odd = spec_virtio_attach(1, 8, 0);
    struct bed bed;

    (void)state;
    bed_init(&bed, &defaults);
    assert_int_equal(bed_attach(&bed, 1, 8, 0), SPEC_S_OK);
    assert_int_equal(bed_attach(&bed, 1, 8, 0), SPEC_S_OK); /* it is there already */
    assert_int_equal(bed_attach(&bed, 1, 9, 0), SPEC_S_OK);
    assert_int_equal(bed_status(&bed).domains, 1);
    assert_int_equal(bed_status(&bed).endpoints, 2);
    odd.bytes[16] = 1; /* reserved */
    assert_int_equal(bed_request(&bed, odd), SPEC_S_INVAL);
    assert_int_equal(bed_attach(&bed, 1, 8, 2), SPEC_S_INVAL);
    assert_int_equal(bed_attach(&bed, 1, 8, 1u << 31), SPEC_S_INVAL);
    assert_int_equal(bed_attach(&bed, 1, 11, 0), SPEC_S_NOENT);
    assert_int_equal(bed_attach(&bed, 1, 0x10008, 0), SPEC_S_NOENT);
    assert_int_equal(bed_attach(&bed, 65536, 8, 0), SPEC_S_RANGE);
    assert_int_equal(bed_attach(&bed, 1, 10, SPEC_ATTACH_BYPASS), SPEC_S_INVAL);
    assert_int_equal(bed_attach(&bed, 2, 10, SPEC_ATTACH_BYPASS), SPEC_S_OK);
    assert_int_equal(bed_attach(&bed, 2, 8, 0), SPEC_S_INVAL);
    assert_int_equal(bed_status(&bed).domains, 2);
    /* To another domain: out of the first one. The last one out ends it. */
    assert_int_equal(bed_attach(&bed, 3, 8, 0), SPEC_S_OK);
    assert_int_equal(bed_attach(&bed, 3, 9, 0), SPEC_S_OK);
    assert_int_equal(bed_status(&bed).domains, 2);
    assert_int_equal(bed_map(&bed, 1, 0, 0xfff, 0, SPEC_MAP_RW), SPEC_S_NOENT);
    bed_fini(&bed);
}

static void test_detach(void **state)
{
    struct spec_virtio_request odd = spec_virtio_detach(1, 8);
    struct bed bed;

    (void)state;
    bed_init(&bed, &defaults);
    assert_int_equal(bed_detach(&bed, 1, 8), SPEC_S_INVAL);
    assert_int_equal(bed_attach(&bed, 1, 8, 0), SPEC_S_OK);
    assert_int_equal(bed_attach(&bed, 2, 9, 0), SPEC_S_OK);
    assert_int_equal(bed_detach(&bed, 1, 77), SPEC_S_NOENT);
    assert_int_equal(bed_detach(&bed, 5, 8), SPEC_S_INVAL);
    assert_int_equal(bed_detach(&bed, 2, 8), SPEC_S_INVAL);
    assert_int_equal(bed_detach(&bed, 1, 10), SPEC_S_INVAL);
    odd.bytes[12] = 1; /* reserved, and to be ignored */
    assert_int_equal(bed_request(&bed, odd), SPEC_S_OK);
    assert_int_equal(bed_status(&bed).domains, 1);
    assert_int_equal(bed_detach(&bed, 1, 8), SPEC_S_INVAL);
    bed_fini(&bed);
}

static void test_map(void **state)
{
    struct bed bed;

    (void)state;
    bed_init(&bed, &(struct viommu_virtio_config){.input = {0x1000, 0xffffffff},
                                                  .host_address_width = 40});
    assert_int_equal(bed_map(&bed, 1, 0x1000, 0x1fff, 0, SPEC_MAP_RW), SPEC_S_NOENT);
    assert_int_equal(bed_attach(&bed, 1, 8, 0), SPEC_S_OK);
    assert_int_equal(bed_attach(&bed, 2, 9, SPEC_ATTACH_BYPASS), SPEC_S_OK);
    assert_int_equal(bed_map(&bed, 2, 0x1000, 0x1fff, 0, SPEC_MAP_RW), SPEC_S_INVAL);
    assert_int_equal(bed_map(&bed, 1, 0x10000, 0x1ffff, 0x3000, SPEC_MAP_RW), SPEC_S_OK);
    /* Taken: whole, in part at either end, or around it. */
    assert_int_equal(bed_map(&bed, 1, 0x10000, 0x1ffff, 0x3000, SPEC_MAP_RW), SPEC_S_INVAL);
    assert_int_equal(bed_map(&bed, 1, 0xf000, 0x10fff, 0, SPEC_MAP_RW), SPEC_S_INVAL);
    assert_int_equal(bed_map(&bed, 1, 0x1f000, 0x20fff, 0, SPEC_MAP_RW), SPEC_S_INVAL);
    assert_int_equal(bed_map(&bed, 1, 0xf000, 0x20fff, 0, SPEC_MAP_RW), SPEC_S_INVAL);
    /* Not in granules. */
    assert_int_equal(bed_map(&bed, 1, 0x30800, 0x30fff, 0, SPEC_MAP_RW), SPEC_S_RANGE);
    assert_int_equal(bed_map(&bed, 1, 0x30000, 0x31ffe, 0, SPEC_MAP_RW), SPEC_S_RANGE);
    assert_int_equal(bed_map(&bed, 1, 0x30000, 0x31000, 0, SPEC_MAP_RW), SPEC_S_RANGE);
    assert_int_equal(bed_map(&bed, 1, 0x30000, 0x30fff, 0x10, SPEC_MAP_RW), SPEC_S_RANGE);
    /* Outside, and turned around. */
    assert_int_equal(bed_map(&bed, 1, 0, 0x1fff, 0, SPEC_MAP_RW), SPEC_S_RANGE);
    assert_int_equal(bed_map(&bed, 1, 0xfffff000, 0x100000fff, 0, SPEC_MAP_RW), SPEC_S_RANGE);
    assert_int_equal(bed_map(&bed, 1, 0x40000, 0x3ffff, 0, SPEC_MAP_RW), SPEC_S_INVAL);
    assert_int_equal(bed_map(&bed, 1, 0x40000, 0x3efff, 0, SPEC_MAP_RW), SPEC_S_INVAL);
    assert_int_equal(bed_map(&bed, 1, 0x40800, 0x3ffff, 0, SPEC_MAP_RW), SPEC_S_RANGE);
    /* Guest addresses that are none. */
    assert_int_equal(bed_map(&bed, 1, 0x40000, 0x40fff, 1ull << 40, SPEC_MAP_RW), SPEC_S_FAULT);
    assert_int_equal(bed_map(&bed, 1, 0x40000, 0x41fff, (1ull << 40) - PAGE, SPEC_MAP_RW),
                     SPEC_S_FAULT);
    assert_int_equal(bed_map(&bed, 1, 0x40000, 0x41fff, -PAGE, SPEC_MAP_RW), SPEC_S_FAULT);
    assert_int_equal(bed_map(&bed, 1, 0x40000, 0x40fff, (1ull << 40) - PAGE, SPEC_MAP_RW),
                     SPEC_S_OK);
    /* Flags, known and unknown; the interrupt window. */
    assert_int_equal(bed_map(&bed, 1, 0x50000, 0x50fff, 0, 8), SPEC_S_INVAL);
    assert_int_equal(bed_map(&bed, 1, 0x50000, 0x50fff, 0, SPEC_MAP_RW | SPEC_MAP_MMIO), SPEC_S_OK);
    assert_int_equal(bed_map(&bed, 1, 0x60000, 0x60fff, 0, 0), SPEC_S_OK);
    assert_int_equal(bed_map(&bed, 1, 0xfee00000, 0xfee00fff, 0, SPEC_MAP_RW), SPEC_S_INVAL);
    assert_int_equal(bed_map(&bed, 1, 0xfe000000, 0xfeffffff, 0, SPEC_MAP_RW), SPEC_S_INVAL);
    assert_int_equal(bed_map(&bed, 1, 0xfef00000, 0xfef00fff, 0, SPEC_MAP_RW), SPEC_S_OK);
    assert_int_equal(bed_status(&bed).mappings, 5);
    bed_fini(&bed);
}

/* The last page of 64 bits, and all of them, without INPUT_RANGE. */
static void test_map_everything(void **state)
{
    struct viommu_virtio_config config = {
        .features = VIOMMU_VIRTIO_MAP_UNMAP, .host_address_width = 64};
    struct bed bed;

    (void)state;
    bed_init(&bed, &config);
    assert_int_equal(bed_attach(&bed, UINT32_MAX, 8, 0), SPEC_S_OK);
    assert_int_equal(bed_map(&bed, UINT32_MAX, -PAGE, UINT64_MAX, 0x5000, SPEC_MAP_RW), SPEC_S_OK);
    assert_int_equal(bed_read(&bed, 0, -PAGE), 5);
    assert_int_equal(bed_map(&bed, UINT32_MAX, 0, 0xfedfffff, 0x1000, SPEC_MAP_RW), SPEC_S_OK);
    assert_int_equal(bed_map(&bed, UINT32_MAX, 0xfef00000, ~PAGE, 0xfef00000, SPEC_MAP_RW),
                     SPEC_S_OK);
    assert_int_equal(bed_read(&bed, 0, 0x4000), 5);
    assert_int_equal(bed_unmap(&bed, UINT32_MAX, 0, UINT64_MAX), SPEC_S_OK);
    assert_int_equal(bed_status(&bed).mappings, 0);
    assert_int_equal(bed_read(&bed, 0, -PAGE), -EFAULT);
    /* Not offered: neither the flags nor the request. */
    assert_int_equal(bed_map(&bed, UINT32_MAX, 0, 0xfff, 0, SPEC_MAP_MMIO), SPEC_S_INVAL);
    assert_int_equal(bed_attach(&bed, 1, 9, SPEC_ATTACH_BYPASS), SPEC_S_INVAL);
    assert_int_equal(bed_request(&bed, spec_virtio_probe(8)), BED_SILENT);
    bed_fini(&bed);
}

/* The examples of the specification's text, in pages. */
static void test_unmap(void **state)
{
    static const struct {
        uint64_t maps[2][2];
        uint64_t first, last;
        uint8_t status;
        unsigned left;
    } cases[] = {
        {{{0}}, 0, 4, SPEC_S_OK, 0},
        {{{0, 9}}, 0, 9, SPEC_S_OK, 0},
        {{{0, 4}, {5, 9}}, 0, 9, SPEC_S_OK, 0},
        {{{0, 9}}, 0, 4, SPEC_S_RANGE, 1},
        {{{0, 4}, {5, 9}}, 0, 4, SPEC_S_OK, 1},
        {{{0, 4}}, 0, 9, SPEC_S_OK, 0},
        {{{0, 4}, {10, 14}}, 0, 14, SPEC_S_OK, 0},
        /* And others: the last mapping is cut, the first is, one is cut out of the middle. */
        {{{0, 4}, {5, 9}}, 0, 8, SPEC_S_RANGE, 2},
        {{{0, 4}, {5, 9}}, 1, 9, SPEC_S_RANGE, 2},
        {{{0, 9}}, 3, 5, SPEC_S_RANGE, 1},
        {{{2, 4}}, 20, 30, SPEC_S_OK, 1},
        {{{2, 4}, {6, 7}}, 5, 5, SPEC_S_OK, 2},
    };
    struct spec_virtio_request odd = spec_virtio_unmap(1, 0, 0xfff);
    struct bed bed;

    (void)state;
    bed_init(&bed, &defaults);
    assert_int_equal(bed_unmap(&bed, 1, 0, 0xfff), SPEC_S_NOENT);
    assert_int_equal(bed_attach(&bed, 1, 8, 0), SPEC_S_OK);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (unsigned j = 0; j < 2 && cases[i].maps[j][1]; j++) {
            assert_int_equal(bed_map(&bed, 1, cases[i].maps[j][0] * PAGE,
                                     cases[i].maps[j][1] * PAGE + 0xfff, 0, SPEC_MAP_RW),
                             SPEC_S_OK);
        }
        assert_int_equal(bed_unmap(&bed, 1, cases[i].first * PAGE, cases[i].last * PAGE + 0xfff),
                         cases[i].status);
        assert_int_equal(bed_status(&bed).mappings, cases[i].left);
        assert_int_equal(bed_unmap(&bed, 1, 0, UINT64_MAX), SPEC_S_OK);
    }
    assert_int_equal(bed_unmap(&bed, 1, 0x1000, 0xfff), SPEC_S_INVAL);
    odd.bytes[24] = 1; /* reserved */
    assert_int_equal(bed_request(&bed, odd), SPEC_S_INVAL);
    assert_int_equal(bed_attach(&bed, 2, 9, SPEC_ATTACH_BYPASS), SPEC_S_OK);
    assert_int_equal(bed_unmap(&bed, 2, 0, 0xfff), SPEC_S_INVAL);
    bed_fini(&bed);
}

static void expect_zeroes(const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        assert_int_equal(bytes[i], 0);
    }
}

/* What the used length counts was written, whatever the status. */
static void test_probe(void **state)
{
    static const struct viommu_range regions[] = {{0x8000, 0x9fff}, {0xa0000, 0xbffff}};
    struct viommu_virtio_config config = {.probe_size = 100};
    struct spec_virtio_request request = spec_virtio_probe(9);
    uint8_t out[200];
    size_t written;
    struct bed bed;

    (void)state;
    bed_space(&bed, regions, 2);
    bed_begin(&bed, &config);
    memset(out, 0xaa, sizeof(out));
    assert_int_equal(viommu_virtio_request(bed.iommu, request.bytes, request.size, out,
                                           sizeof(out), 1, &written), 0);
    assert_int_equal(written, 104);
    assert_int_equal(spec_virtio_get(out, 4), 1 | 20 << 16);
    assert_int_equal(spec_virtio_get(out + 4, 4), 1);
    assert_int_equal(spec_virtio_get(out + 8, 8), 0xfee00000);
    assert_int_equal(spec_virtio_get(out + 16, 8), 0xfeefffff);
    assert_int_equal(spec_virtio_get(out + 24, 4), 1 | 20 << 16);
    assert_int_equal(spec_virtio_get(out + 28, 4), 0);
    assert_int_equal(spec_virtio_get(out + 32, 8), 0x8000);
    assert_int_equal(spec_virtio_get(out + 40, 8), 0x9fff);
    assert_int_equal(spec_virtio_get(out + 56, 8), 0xa0000);
    assert_int_equal(spec_virtio_get(out + 64, 8), 0xbffff);
    expect_zeroes(out + 72, 32);
    assert_int_equal(out[104], 0xaa);
    /* Too little room for the properties: the status stands at the end. */
    memset(out, 0xaa, sizeof(out));
    assert_int_equal(viommu_virtio_request(bed.iommu, request.bytes, request.size, out, 103, 1,
                                           &written), 0);
    assert_int_equal(written, 103);
    assert_int_equal(spec_virtio_get(out + 99, 4), SPEC_S_INVAL);
    expect_zeroes(out, 99);
    memset(out, 0xaa, sizeof(out));
    request = spec_virtio_probe(12);
    assert_int_equal(viommu_virtio_request(bed.iommu, request.bytes, request.size, out, 104, 1,
                                           &written), 0);
    assert_int_equal(written, 104);
    assert_int_equal(spec_virtio_get(out + 100, 4), SPEC_S_NOENT);
    expect_zeroes(out, 100);
    assert_int_equal(out[104], 0xaa);
    /* What is told to be reserved is. */
    assert_int_equal(bed_attach(&bed, 1, 8, 0), SPEC_S_OK);
    assert_int_equal(bed_map(&bed, 1, 0x9000, 0xafff, 0, SPEC_MAP_RW), SPEC_S_INVAL);
    assert_int_equal(bed_map(&bed, 1, 0x7000, 0x7fff, 0, SPEC_MAP_RW), SPEC_S_OK);
    assert_int_equal(bed_map(&bed, 1, 0x90000, 0xfffff, 0, SPEC_MAP_RW), SPEC_S_INVAL);
    bed_fini(&bed);
}

/* What cannot be decoded, or answered. */
static void test_rubbish(void **state)
{
    struct spec_virtio_request requests[] = {
        spec_virtio_attach(1, 8, 0),           spec_virtio_detach(1, 8),
        spec_virtio_map(1, 0, 0xfff, 0, 3),    spec_virtio_unmap(1, 0, 0xfff),
        spec_virtio_probe(8),
    };
    uint8_t out[600];
    size_t written;
    struct bed bed;

    (void)state;
    bed_init(&bed, &defaults);
    for (unsigned i = 0; i < 5; i++) {
        for (size_t size = 0; size <= requests[i].size; size++) {
            for (size_t room = 0; room < 8; room++) {
                memset(out, 0xaa, sizeof(out));
                assert_int_equal(viommu_virtio_request(bed.iommu, requests[i].bytes, size, out,
                                                       room, 1, &written), 0);
                if (size < 4 || room < 4) {
                    assert_int_equal(written, 0);
                } else {
                    assert_int_equal(written, i == 4 ? room : 4);
                    expect_zeroes(out, written - 4);
                    assert_true(size == requests[i].size || out[written - 4] == SPEC_S_INVAL);
                }
                assert_int_equal(out[written], 0xaa);
            }
        }
    }
    for (unsigned type = 0; type < 256; type++) {
        requests[0].bytes[0] = (uint8_t)type;
        if (!type || type > 5) {
            assert_int_equal(bed_request(&bed, requests[0]), BED_SILENT);
        }
    }
    requests[0].bytes[0] = 1;
    requests[0].bytes[1] = requests[0].bytes[3] = 0xff; /* reserved, ignored */
    assert_int_equal(bed_request(&bed, requests[0]), SPEC_S_OK);
    assert_int_equal(viommu_virtio_request(bed.iommu, NULL, 0, NULL, 0, 1, &written), 0);
    bed_fini(&bed);
}

static void test_not_negotiated(void **state)
{
    uint64_t features;
    struct bed bed;

    (void)state;
    bed_init(&bed, &defaults);
    features = viommu_virtio_features(bed.iommu);
    assert_int_equal(features, 0x77);
    assert_int_equal(viommu_virtio_accept(bed.iommu, features | VIOMMU_VIRTIO_BYPASS), -EINVAL);
    assert_int_equal(viommu_virtio_accept(bed.iommu, 1ull << 32), 0);
    assert_int_equal(bed_attach(&bed, 1, 8, SPEC_ATTACH_BYPASS), SPEC_S_INVAL);
    assert_int_equal(bed_attach(&bed, 1, 8, 0), SPEC_S_OK);
    assert_int_equal(bed_map(&bed, 1, 0, 0xfff, 0, SPEC_MAP_RW), SPEC_S_UNSUPP);
    assert_int_equal(bed_unmap(&bed, 1, 0, 0xfff), SPEC_S_UNSUPP);
    assert_int_equal(viommu_virtio_accept(bed.iommu, VIOMMU_VIRTIO_MAP_UNMAP), 0);
    assert_int_equal(bed_map(&bed, 1, 0, 0xfff, 0, SPEC_MAP_MMIO), SPEC_S_INVAL);
    /* The field is the driver's only with the feature. */
    assert_int_equal(viommu_mmio_write(bed.iommu, SPEC_CONFIG_BYPASS, 1, 1), 0);
    assert_int_equal(bed_read(&bed, 1, 0x3000), -EFAULT);
    bed_fini(&bed);
}

static void test_limits(void **state)
{
    struct viommu_virtio_config config = {
        .domains_max = 2,
        .domain_endpoints_max = 2,
        .mappings_max = 3,
        .domain_first = 5,
        .domain_last = 9,
    };
    struct bed bed;

    (void)state;
    bed_init(&bed, &config);
    assert_int_equal(bed_attach(&bed, 4, 8, 0), SPEC_S_RANGE);
    assert_int_equal(bed_attach(&bed, 10, 8, 0), SPEC_S_RANGE);
    assert_int_equal(bed_attach(&bed, 5, 8, 0), SPEC_S_OK);
    assert_int_equal(bed_attach(&bed, 5, 9, 0), SPEC_S_OK);
    assert_int_equal(bed_attach(&bed, 5, 10, 0), SPEC_S_UNSUPP);
    assert_int_equal(bed_attach(&bed, 5, 9, 0), SPEC_S_OK);
    assert_int_equal(bed_attach(&bed, 6, 10, 0), SPEC_S_OK);
    assert_int_equal(bed_attach(&bed, 7, 9, 0), SPEC_S_NOMEM);
    assert_int_equal(bed_attach(&bed, 7, 10, 0), SPEC_S_OK); /* its old one goes */
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(bed_map(&bed, i & 1 ? 5 : 7, i * PAGE, i * PAGE + 0xfff, 0, 3), SPEC_S_OK);
    }
    assert_int_equal(bed_map(&bed, 5, 0x9000, 0x9fff, 0, 3), SPEC_S_NOMEM);
    assert_int_equal(bed_unmap(&bed, 7, 0, 0xfff), SPEC_S_OK);
    assert_int_equal(bed_map(&bed, 5, 0x9000, 0x9fff, 0, 3), SPEC_S_OK);
    /* A domain takes its mappings along. */
    assert_int_equal(bed_detach(&bed, 7, 10), SPEC_S_OK);
    assert_int_equal(bed_status(&bed).mappings, 2);
    assert_int_equal(bed_map(&bed, 5, 0xa000, 0xafff, 0, 3), SPEC_S_OK);
    bed_fini(&bed);
}

static void test_config_space(void **state)
{
    struct viommu_virtio_config config = {
        .page_size_mask = 0x40201000, .input = {0x1000, 0xffffffffff}, .domain_last = 77,
        .probe_size = 256, .bypass = true};
    uint64_t value;
    struct bed bed;

    (void)state;
    bed_init(&bed, &config);
    assert_int_equal(viommu_mmio_read(bed.iommu, 0, 8, &value), 0);
    assert_int_equal(value, 0x40201000);
    assert_int_equal(viommu_mmio_read(bed.iommu, 8, 8, &value), 0);
    assert_int_equal(value, 0x1000);
    assert_int_equal(viommu_mmio_read(bed.iommu, 16, 8, &value), 0);
    assert_int_equal(value, 0xffffffffff);
    assert_int_equal(viommu_mmio_read(bed.iommu, 24, 8, &value), 0);
    assert_int_equal(value, 77ull << 32);
    assert_int_equal(viommu_mmio_read(bed.iommu, 32, 8, &value), 0);
    assert_int_equal(value, 256 | 1ull << 32);
    assert_int_equal(viommu_mmio_read(bed.iommu, 36, 1, &value), 0);
    assert_int_equal(value, 1);
    assert_int_equal(viommu_mmio_read(bed.iommu, 39, 8, &value), 0);
    assert_int_equal(value, 0);
    assert_int_equal(viommu_mmio_read(bed.iommu, UINT64_MAX, 8, &value), 0);
    assert_int_equal(value, 0);
    /* Of all fields `bypass` alone is written, and only with 0 or 1. */
    for (unsigned offset = 0; offset < 40; offset++) {
        assert_int_equal(viommu_mmio_write(bed.iommu, offset, 1, 2), 0);
    }
    assert_int_equal(viommu_mmio_read(bed.iommu, 36, 4, &value), 0);
    assert_int_equal(value, 1);
    assert_int_equal(viommu_mmio_write(bed.iommu, 33, 8, 0xff00ffffffull), 0);
    assert_int_equal(viommu_mmio_read(bed.iommu, 32, 8, &value), 0);
    assert_int_equal(value, 256);
    assert_int_equal(viommu_mmio_write(bed.iommu, UINT64_MAX - 1, 8, UINT64_MAX), 0);
    assert_int_equal(viommu_mmio_write(bed.iommu, 37, 8, 0x101), 0);
    assert_int_equal(viommu_mmio_read(bed.iommu, 36, 1, &value), 0);
    assert_int_equal(value, 0);
    bed_fini(&bed);
}

static void test_configuration(void **state)
{
    static const struct viommu_virtio_config bad[] = {
        {.features = VIOMMU_VIRTIO_PROBE},
        {.features = VIOMMU_VIRTIO_MAP_UNMAP | VIOMMU_VIRTIO_BYPASS | VIOMMU_VIRTIO_BYPASS_CONFIG},
        {.features = VIOMMU_VIRTIO_MAP_UNMAP | 1 << 7},
        {.page_size_mask = 0x801},
        {.page_size_mask = 1ull << 31},
        {.input = {0x1000, 0x1000}},
        {.input = {0x2000, 0x1fff}},
        {.input = {0x800, 0xffff}},
        {.domain_first = 9, .domain_last = 8},
        {.host_address_width = 31},
        {.host_address_width = 65},
        {.probe_size = 23},
        {.probe_size = 65537},
        {.faults_max = 65537},
    };
    struct viommu_config config = {.cache_mode = VIOMMU_CACHE_NORMAL};
    struct viommu *iommu;
    struct bed bed;

    (void)state;
    bed_init(&bed, &defaults);
    config.memory = bed.memory;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(viommu_virtio_create(&config, &bad[i], &iommu), -EINVAL);
    }
    for (unsigned long n = 1;; n++) {
        int ret;

        base_alloc_fail_at(n);
        ret = viommu_virtio_create(&config, &defaults, &iommu);
        if (!ret) {
            base_alloc_fail_at(0);
            break;
        }
        assert_int_equal(ret, -ENOMEM);
    }
    assert_int_equal(viommu_virtio_accept(iommu, 0), -EAGAIN);
    assert_int_equal(viommu_virtio_reset(iommu, 0), -EAGAIN);
    viommu_destroy(iommu);
    bed_fini(&bed);
}

/* No request changes anything when memory fails, wherever it does. */
static void test_allocation_failures(void **state)
{
    const struct spec_virtio_request requests[] = {
        spec_virtio_attach(1, 8, 0),          spec_virtio_map(1, 0, 0xfff, 0, 3),
        spec_virtio_attach(2, 9, 0),          spec_virtio_attach(1, 9, 0),
        spec_virtio_attach(3, 8, 0),          spec_virtio_map(1, 0x1000, 0x1fff, 0x2000, 1),
        spec_virtio_unmap(1, 0, 0x1fff),      spec_virtio_detach(1, 9),
        spec_virtio_attach(4, 10, 1),         spec_virtio_detach(3, 8),
    };
    struct bed bed;

    (void)state;
    bed_init(&bed, &(struct viommu_virtio_config){.bypass = true});
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        struct viommu_virtio_status before = bed_status(&bed);
        unsigned failures = 0;
        uint8_t status;

        for (;;) {
            struct viommu_virtio_status after;

            base_alloc_fail_at(failures + 1);
            status = bed_request(&bed, requests[i]);
            if (status != SPEC_S_NOMEM) {
                break;
            }
            after = bed_status(&bed);
            assert_int_equal(after.domains, before.domains);
            assert_int_equal(after.endpoints, before.endpoints);
            assert_int_equal(after.mappings, before.mappings);
            failures++;
        }
        base_alloc_fail_at(0);
        assert_int_equal(status, SPEC_S_OK);
        bed_process(&bed);
    }
    assert_int_equal(bed_status(&bed).domains, 1);
    bed_fini(&bed);
}

/* UNMAP, where an allocation would fail: there has to be none. */
static uint8_t unmap_without_memory(struct bed *bed, uint64_t first, uint64_t last)
{
    uint8_t status;

    base_alloc_fail_at(1);
    status = bed_unmap(bed, 1, first, last);
    assert_false(base_alloc_failed());
    base_alloc_fail_at(0);
    return status;
}

#define UNMAPPED_PAGES UINT64_C(3000)

static void map_many(struct bed *bed)
{
    for (uint64_t i = 0; i < UNMAPPED_PAGES; i++) {
        assert_int_equal(bed_map(bed, 1, i * PAGE, i * PAGE + 0xfff, 0x3000, 3), SPEC_S_OK);
    }
}

/* So it never fails for want of it: from all mappings one by one, and at once. */
static void test_unmap_needs_no_memory(void **state)
{
    struct bed bed;

    (void)state;
    bed_init(&bed, &defaults);
    assert_int_equal(bed_attach(&bed, 1, 8, 0), SPEC_S_OK);
    map_many(&bed);
    for (uint64_t i = 0; i < UNMAPPED_PAGES; i++) {
        uint64_t first = i * 1009 % UNMAPPED_PAGES * PAGE;

        assert_int_equal(bed_read(&bed, 0, first), 3);
        assert_int_equal(unmap_without_memory(&bed, first, first + 0xfff), SPEC_S_OK);
        assert_int_equal(bed_status(&bed).mappings, UNMAPPED_PAGES - i - 1);
    }
    map_many(&bed);
    assert_int_equal(unmap_without_memory(&bed, 0x800, 0x17ff), SPEC_S_RANGE);
    assert_int_equal(unmap_without_memory(&bed, 0, UINT64_MAX), SPEC_S_OK);
    assert_int_equal(unmap_without_memory(&bed, 0, UINT64_MAX), SPEC_S_OK);
    assert_int_equal(bed_status(&bed).mappings, 0);
    bed_fini(&bed);
}

/*
 * One that has to wait needs none either; the next ones do while it waits, and without are NOMEM
 * and change nothing.
 */
static void test_unmap_behind_another(void **state)
{
    struct bed bed;

    (void)state;
    bed_init(&bed, &defaults);
    assert_int_equal(bed_attach(&bed, 1, 8, 0), SPEC_S_OK);
    map_many(&bed);
    for (unsigned round = 0; round < 3; round++) {
        uint64_t mappings = bed_status(&bed).mappings;
        uint64_t first = round * 3 * PAGE;

        assert_int_equal(viommu_dma_begin(bed.iommu), 0);
        assert_int_equal(unmap_without_memory(&bed, first, first + 0xfff), BED_PENDING);
        base_alloc_fail_at(1);
        assert_int_equal(bed_unmap(&bed, 1, first + PAGE, first + PAGE + 0xfff), SPEC_S_NOMEM);
        assert_true(base_alloc_failed());
        base_alloc_fail_at(0);
        assert_int_equal(bed_status(&bed).mappings, mappings - 1);
        assert_int_equal(bed_status(&bed).pending, 1);
        assert_int_equal(bed_write(&bed, 0, first), -EFAULT);
        assert_int_equal(bed_write(&bed, 0, first + PAGE), 0);
        /* With memory it waits behind the other. */
        assert_int_equal(bed_unmap(&bed, 1, first + PAGE, first + PAGE + 0xfff), BED_PENDING);
        assert_int_equal(bed_write(&bed, 0, first + PAGE), -EFAULT);
        viommu_dma_end(bed.iommu);
        bed_process(&bed);
        assert_int_equal(bed.done_count, 2);
        assert_int_equal(bed.done[0].status, SPEC_S_OK);
        assert_int_equal(bed.done[1].status, SPEC_S_OK);
        bed.done_count = 0;
        assert_int_equal(unmap_without_memory(&bed, first + 2 * PAGE, first + 2 * PAGE + 0xfff),
                         SPEC_S_OK);
        assert_int_equal(bed_status(&bed).mappings, mappings - 3);
    }
    bed_fini(&bed);
}

/* Mapping and unmapping without end takes no more memory than the mappings that are there. */
static void test_storm(void **state)
{
    uint64_t most = 0;
    struct bed bed;

    (void)state;
    bed_init(&bed, &(struct viommu_virtio_config){.mappings_max = 1000});
    for (unsigned round = 0; round < 200; round++) {
        unsigned made = 0;

        assert_int_equal(bed_attach(&bed, round % 7, 8, 0), SPEC_S_OK);
        while (bed_map(&bed, round % 7, made * 2 * PAGE, made * 2 * PAGE + 0xfff, 0, 3) ==
               SPEC_S_OK) {
            made++;
        }
        assert_int_equal(made, 1000);
        assert_int_equal(bed_read(&bed, 0, 2 * PAGE * (round % 1000)), 0);
        most = most > bed_status(&bed).memory ? most : bed_status(&bed).memory;
        assert_true(bed_status(&bed).memory < 1000 * 110 + 4096 * 4);
        if (round % 3) {
            assert_int_equal(bed_unmap(&bed, round % 7, 0, UINT64_MAX), SPEC_S_OK);
        }
        assert_int_equal(bed_attach(&bed, round % 7, 9, 0), SPEC_S_OK);
        assert_int_equal(bed_detach(&bed, round % 7, 9), SPEC_S_OK);
        assert_int_equal(bed_detach(&bed, round % 7, 8), SPEC_S_OK);
        assert_int_equal(bed_status(&bed).mappings, 0);
        assert_true(bed_status(&bed).memory < 4096 * 4);
    }
    bed_fini(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attach),         cmocka_unit_test(test_detach),
        cmocka_unit_test(test_map),            cmocka_unit_test(test_map_everything),
        cmocka_unit_test(test_unmap),          cmocka_unit_test(test_probe),
        cmocka_unit_test(test_rubbish),        cmocka_unit_test(test_not_negotiated),
        cmocka_unit_test(test_limits),         cmocka_unit_test(test_config_space),
        cmocka_unit_test(test_configuration),  cmocka_unit_test(test_allocation_failures),
        cmocka_unit_test(test_storm),          cmocka_unit_test(test_unmap_needs_no_memory),
        cmocka_unit_test(test_unmap_behind_another),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
