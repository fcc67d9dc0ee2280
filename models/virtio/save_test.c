/* SPDX-License-Identifier: BSD-2-Clause */
/* States that are saved, and go on in another instance; and states that are refused. */
#include "virtio/test_virtio.h"

#include "base/alloc.h"
#include "save/stream.h"

#define HEADER_SIZE 32u
#define CHECKSUM_AT 28u
/* The model's section: behind the header, the first section's header and its 8 bytes, and its own
   header, which ends in the length. */
#define BODY_AT (HEADER_SIZE + 24 + 8 + 24)

struct state {
    uint8_t *data;
    size_t size;
};

static struct state save(struct viommu *iommu)
{
    struct state state;
    void *data;

    assert_int_equal(viommu_save(iommu, &data, &state.size), 0);
    state.data = data;
    return state;
}

static struct viommu *second(const struct bed *bed, struct viommu_device **devices)
{
    struct viommu *iommu;

    assert_int_equal(viommu_virtio_create(&bed->config, &bed->virtio, &iommu), 0);
    bed_devices(bed, iommu, devices);
    return iommu;
}

static void take_over(struct bed *bed)
{
    struct viommu_device *devices[BED_DEVICES];
    struct state first = save(bed->iommu);
    struct viommu *iommu = second(bed, devices);
    struct state again;

    assert_int_equal(viommu_load(iommu, first.data, first.size), 0);
    again = save(iommu);
    assert_int_equal(again.size, first.size);
    assert_memory_equal(again.data, first.data, first.size);
    viommu_save_free(first.data);
    viommu_save_free(again.data);
    viommu_destroy(bed->iommu);
    bed->iommu = iommu;
    memcpy(bed->devices, devices, sizeof(devices));
}

static void prepare(struct bed *bed)
{
    static const struct viommu_range region = {0x800000, 0x8fffff};

    bed_space(bed, &region, 1);
    bed_begin(bed, &(struct viommu_virtio_config){
                       .bypass = true, .mappings_max = 10, .domains_max = 3,
                       .domain_endpoints_max = 2, .faults_max = 4});
    assert_int_equal(viommu_virtio_accept(bed->iommu, 0x57), 0); /* without MMIO */
    assert_int_equal(bed_attach(bed, 1, 8, 0), SPEC_S_OK);
    assert_int_equal(bed_attach(bed, 7, 9, SPEC_ATTACH_BYPASS), SPEC_S_OK);
    assert_int_equal(bed_map(bed, 1, 0x1000, 0x1fff, 0x3000, SPEC_MAP_READ), SPEC_S_OK);
    assert_int_equal(bed_map(bed, 1, 0x5000, 0x6fff, 0x8000, SPEC_MAP_RW), SPEC_S_OK);
    assert_int_equal(viommu_mmio_write(bed->iommu, SPEC_CONFIG_BYPASS, 1, 0), 0);
    bed_process(bed);
    assert_int_equal(bed_read(bed, 2, 0x9000), -EFAULT);
    assert_int_equal(bed_read(bed, 0, 0x9008), -EFAULT);
}

static void test_goes_on(void **state)
{
    struct bed bed;

    (void)state;
    prepare(&bed);
    take_over(&bed);
    assert_int_equal(bed_read(&bed, 0, 0x1000), 3);
    assert_int_equal(bed_write(&bed, 0, 0x1000), -EFAULT);
    assert_int_equal(bed_read(&bed, 0, 0x6000), 9);
    assert_int_equal(bed_read(&bed, 1, 0x7000), 7);
    assert_int_equal(bed_read(&bed, 2, 0x7000), -EFAULT);
    bed_process(&bed);
    assert_int_equal(bed.faulted, 1);
    bed_expect_fault(&bed, SPEC_FAULT_R_DOMAIN, 0x101, 10, 0x9000);
    bed_expect_fault(&bed, SPEC_FAULT_R_MAPPING, 0x101, 8, 0x9008);
    assert_int_equal(bed_map(&bed, 1, 0x8000, 0x8fff, 0, SPEC_MAP_MMIO), SPEC_S_INVAL);
    assert_int_equal(bed_unmap(&bed, 1, 0x5000, 0x5fff), SPEC_S_RANGE);
    assert_int_equal(bed_status(&bed).mappings, 2);
    assert_int_equal(bed_detach(&bed, 1, 8), SPEC_S_OK);
    assert_int_equal(bed_status(&bed).domains, 1);
    assert_int_equal(viommu_reset(bed.iommu), 0);
    assert_int_equal(bed_read(&bed, 2, 0x7000), 7);
    bed_fini(&bed);
}

static void save_is_refused(struct bed *bed)
{
    size_t size;
    void *data;

    assert_int_equal(viommu_save(bed->iommu, &data, &size), -EBUSY);
}

/* A request that is being told of is in no list any more: it would be lost. */
static void test_while_told(void **state)
{
    struct viommu_translation out;
    struct bed bed;

    (void)state;
    prepare(&bed);
    assert_int_equal(viommu_dma_begin(bed.iommu), 0);
    assert_int_equal(viommu_device_translate(bed.devices[0], NULL, 0x1000, VIOMMU_READ, &out), 0);
    assert_int_equal(bed_unmap(&bed, 1, 0x1000, 0x1fff), BED_PENDING);
    viommu_dma_end(bed.iommu);
    bed.on_done = save_is_refused;
    bed_process(&bed);
    assert_int_equal(bed.done_count, 1);
    take_over(&bed);
    bed_process(&bed);
    assert_int_equal(bed.done_count, 1);
    bed_fini(&bed);
}

/* What was pending completes once, in the new instance, and is not done again. */
static void test_pending(void **state)
{
    uint64_t token;
    struct bed bed;

    (void)state;
    prepare(&bed);
    assert_int_equal(viommu_dma_begin(bed.iommu), 0);
    assert_int_equal(viommu_mmio_write(bed.iommu, SPEC_CONFIG_BYPASS, 1, 1), 0);
    assert_int_equal(bed_unmap(&bed, 1, 0x1000, 0x1fff), BED_PENDING);
    token = bed.token;
    assert_int_equal(bed_map(&bed, 1, 0x1000, 0x1fff, 0x4000, SPEC_MAP_RW), BED_PENDING);
    assert_int_equal(bed_unmap(&bed, 1, 0x6000, 0x6fff), BED_PENDING);
    take_over(&bed);
    viommu_dma_end(bed.iommu); /* of the same memory */
    assert_int_equal(bed_status(&bed).pending, 3);
    bed_process(&bed);
    assert_int_equal(bed.done_count, 3);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(bed.done[i].token, token + i);
        assert_int_equal(bed.done[i].status, i == 2 ? SPEC_S_RANGE : SPEC_S_OK);
    }
    assert_int_equal(bed_read(&bed, 0, 0x1000), 4);
    assert_int_equal(bed_read(&bed, 2, 0x7000), 7);
    bed_fini(&bed);
}

static void seal(struct state *state)
{
    uint32_t crc = save_crc32c(0, state->data, CHECKSUM_AT);

    crc = save_crc32c(crc, state->data + HEADER_SIZE, state->size - HEADER_SIZE);
    for (unsigned i = 0; i < 4; i++) {
        state->data[CHECKSUM_AT + i] = (uint8_t)(crc >> 8 * i);
    }
}

/*
 * Each byte another, the checksum right: what is refused has changed nothing, what is accepted is
 * saved again to the byte, and works.
 */
static void test_changed(void **state)
{
    static const uint8_t flips[] = {0x01, 0x02, 0x80, 0xff};
    struct viommu_device *devices[BED_DEVICES];
    struct state whole;
    unsigned accepted = 0;
    struct bed bed;

    (void)state;
    prepare(&bed);
    assert_int_equal(viommu_dma_begin(bed.iommu), 0);
    assert_int_equal(bed_unmap(&bed, 1, 0x1000, 0x1fff), BED_PENDING);
    viommu_dma_end(bed.iommu);
    whole = save(bed.iommu);
    for (size_t i = BODY_AT; i < BODY_AT + spec_virtio_get(whole.data + BODY_AT - 8, 8); i++) {
        for (size_t j = 0; j < sizeof(flips); j++) {
            struct viommu *iommu = second(&bed, devices);
            int ret;

            whole.data[i] ^= flips[j];
            seal(&whole);
            ret = viommu_load(iommu, whole.data, whole.size);
            if (!ret) {
                struct state again = save(iommu);

                accepted++;
                assert_int_equal(again.size, whole.size);
                assert_memory_equal(again.data, whole.data, whole.size);
                viommu_save_free(again.data);
                while (viommu_process(iommu, 0) == VIOMMU_PENDING) {
                }
                bed.done_count = 0;
            } else {
                assert_true(ret == -EBADMSG || ret == -EINVAL || ret == -ENODEV ||
                            ret == -ENOTSUP);
            }
            whole.data[i] ^= flips[j];
            seal(&whole);
            assert_int_equal(viommu_load(iommu, whole.data, whole.size), ret ? 0 : -EALREADY);
            viommu_destroy(iommu);
        }
    }
    assert_true(accepted > 50); /* addresses, tokens, permissions */
    viommu_save_free(whole.data);
    bed_fini(&bed);
}

/* Bypass, and mappings of devices, where a guest cannot have made them. */
static void test_not_offered(void **state)
{
    static const struct {
        size_t at; /* in the body, with one domain and one mapping */
        uint8_t bits;
    } cases[] = {{54, 1}, {63, 1}, {92, 4}};
    struct viommu_virtio_config config = {
        .features = VIOMMU_VIRTIO_INPUT_RANGE | VIOMMU_VIRTIO_MAP_UNMAP};

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        struct viommu_device *devices[BED_DEVICES];
        struct viommu *iommu;
        struct state whole;
        struct bed bed;

        bed_init(&bed, &config);
        assert_int_equal(bed_attach(&bed, 1, 8, 0), SPEC_S_OK);
        if (i != 1) {
            assert_int_equal(bed_map(&bed, 1, 0x1000, 0x1fff, 0, SPEC_MAP_READ), SPEC_S_OK);
        }
        whole = save(bed.iommu);
        if (i < 3) {
            assert_int_equal(whole.data[BODY_AT + cases[i].at] & cases[i].bits, 0);
            whole.data[BODY_AT + cases[i].at] |= cases[i].bits;
        }
        seal(&whole);
        iommu = second(&bed, devices);
        assert_int_equal(viommu_load(iommu, whole.data, whole.size), i < 3 ? -EBADMSG : 0);
        viommu_destroy(iommu);
        viommu_save_free(whole.data);
        bed_fini(&bed);
    }
}

static void test_another_configuration(void **state)
{
    struct viommu_device *devices[BED_DEVICES];
    struct viommu_virtio_config config;
    struct viommu *iommu;
    struct viommu_virtio_config whole_config;
    struct state whole;
    struct bed bed;

    (void)state;
    prepare(&bed);
    whole_config = bed.virtio;
    whole = save(bed.iommu);
    for (unsigned i = 0; i < 9; i++) {
        config = bed.virtio;
        switch (i) {
        case 0:
            config.features = VIOMMU_VIRTIO_MAP_UNMAP;
            break;
        case 1:
            config.page_size_mask = 0x1000;
            break;
        case 2:
            config.input.last = 0xffffff;
            break;
        case 3:
            config.domain_last = 100;
            break;
        case 4:
            config.host_address_width = 40;
            break;
        case 5:
            config.probe_size = 100;
            break;
        case 7:
            config.mappings_max = 1;
            break;
        default:
            config.bypass = false;
            break;
        }
        bed.virtio = config;
        iommu = second(&bed, devices);
        assert_int_equal(viommu_load(iommu, whole.data, whole.size), -EINVAL);
        assert_int_equal(viommu_start(iommu), 0);
        viommu_destroy(iommu);
        bed.virtio = whole_config;
    }
    /* A device that it names is not there. */
    assert_int_equal(viommu_virtio_create(&bed.config, &bed.virtio, &iommu), 0);
    assert_int_equal(viommu_load(iommu, whole.data, whole.size), -ENODEV);
    viommu_destroy(iommu);
    viommu_save_free(whole.data);
    bed_fini(&bed);
}

/* The guest has mapped what the devices' space here keeps for something else. */
static void test_another_space(void **state)
{
    struct viommu_device *devices[BED_DEVICES];
    struct viommu_iova_reservation *r;
    struct viommu_iova_conflict conflict;
    struct viommu_iova *first;
    struct viommu *iommu;
    struct state whole;
    struct bed other;
    struct bed bed;

    (void)state;
    prepare(&bed);
    whole = save(bed.iommu);
    bed_space(&other, NULL, 0);
    assert_int_equal(bed_reserve(&other, VIOMMU_IOVA_RESERVED, 0x6800, 0x68ff, &r, NULL), 0);
    first = bed.space;
    bed.space = other.space;
    iommu = second(&bed, devices);
    assert_int_equal(viommu_load(iommu, whole.data, whole.size), -EINVAL);
    /* Nothing has changed: once it is given back, the same instance is loaded. */
    viommu_iova_release(r);
    assert_int_equal(viommu_load(iommu, whole.data, whole.size), 0);
    assert_int_equal(bed_reserve(&other, VIOMMU_IOVA_RESERVED, 0x6800, 0x68ff, &r, &conflict),
                     -EEXIST);
    assert_string_equal(conflict.holder.owner, "domain 1 of 00:01.0");
    viommu_destroy(iommu);
    /* So it is with limits. */
    assert_int_equal(viommu_iova_limit(other.host, &(struct viommu_range){0, 0x5fff}, 1, NULL), 0);
    iommu = second(&bed, devices);
    assert_int_equal(viommu_load(iommu, whole.data, whole.size), -EINVAL);
    assert_int_equal(viommu_start(iommu), 0);
    viommu_destroy(iommu);
    bed.space = first;
    viommu_iova_destroy(other.space);
    viommu_save_free(whole.data);
    bed_fini(&bed);
}

static void test_no_memory(void **state)
{
    struct viommu_device *devices[BED_DEVICES];
    struct viommu *iommu;
    struct state whole;
    struct bed bed;

    (void)state;
    prepare(&bed);
    assert_int_equal(viommu_dma_begin(bed.iommu), 0);
    assert_int_equal(bed_unmap(&bed, 1, 0x1000, 0x1fff), BED_PENDING);
    viommu_dma_end(bed.iommu);
    whole = save(bed.iommu);
    iommu = second(&bed, devices);
    for (unsigned long n = 1;; n++) {
        int ret;

        base_alloc_fail_at(n);
        ret = viommu_load(iommu, whole.data, whole.size);
        base_alloc_fail_at(0);
        if (!ret) {
            assert_true(n > 8);
            break;
        }
        assert_int_equal(ret, -ENOMEM);
    }
    viommu_destroy(iommu);
    viommu_save_free(whole.data);
    bed_fini(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goes_on),  cmocka_unit_test(test_pending),
        cmocka_unit_test(test_while_told),
        cmocka_unit_test(test_changed),  cmocka_unit_test(test_another_configuration),
        cmocka_unit_test(test_not_offered), cmocka_unit_test(test_another_space),
        cmocka_unit_test(test_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
