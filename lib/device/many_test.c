/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of lists of addresses: the same answers as one by one, whatever is cached and however long
 * the list; where it ends; errors.
 *
 * The model caches nothing, so a test puts into the cache what it wants there, leading elsewhere
 * than the model would: what came out of the cache shows.
 */
#include "base/alloc.h"
#include "iommu/test_model.h"

#include <errno.h>

#define RW     (VIOMMU_READ | VIOMMU_WRITE)
#define OFFSET UINT64_C(0x100000)     /* of the model */
#define CACHED UINT64_C(0x7000000000) /* of what is cached */
#define LIST   700

static struct test_model model;
static struct viommu_device *device;
static struct context context;
static uint64_t iovas[LIST];
static uint64_t gpas[LIST];
static size_t translated;

/* A number below `bound`, the same in every run. */
static unsigned any(unsigned bound)
{
    static uint64_t state = 1;

    state = state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)((state >> 33) * bound >> 31);
}

static bool percent(unsigned n)
{
    return any(100) < n;
}

static struct requester *requester(void)
{
    return atomic_load(&device->requesters[0]);
}

static int setup(void **state)
{
    struct iotlb_key key = {.root = 0x1000, .domain = 1, .levels = 4};

    (void)state;
    model_init(&model);
    model.offset = OFFSET;
    device = model_device(&model, 0x28);
    context = (struct context){.tag = iotlb_tag_get(&model.iommu.iotlb, &key)};
    assert_non_null(context.tag);
    atomic_store(&requester()->context, &context);
    for (unsigned i = 0; i < LIST; i++) {
        iovas[i] = i * 0x1008;
        gpas[i] = UINT64_MAX;
    }
    translated = SIZE_MAX;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    atomic_store(&requester()->context, NULL);
    iotlb_tag_put(&model.iommu.iotlb, context.tag);
    model_fini(&model);
    return 0;
}

static void cache(uint64_t iova, uint32_t perm)
{
    iotlb_fill(&model.iommu.iotlb, context.tag, atomic_load(&context.tag->id), iova, CACHED + iova,
               perm, 0);
}

static int many(size_t count, uint32_t perm)
{
    return viommu_device_translate_many(device, NULL, iovas, count, perm, gpas, &translated);
}

/* What one by one gives for the first `count`, against what the list gave. */
static void expect_as_singles(size_t count, uint32_t perm, int ret)
{
    struct viommu_translation out;
    size_t i;

    for (i = 0; i < count; i++) {
        int single = viommu_device_translate(device, NULL, iovas[i], perm, &out);

        if (single) {
            assert_int_equal(ret, single);
            break;
        }
        assert_true(i < translated);
        assert_int_equal(gpas[i], out.gpa);
    }
    assert_int_equal(translated, i);
    assert_int_equal(ret == 0, i == count);
}

static void test_nothing_cached(void **state)
{
    (void)state;
    assert_int_equal(many(LIST, VIOMMU_READ), 0);
    assert_int_equal(translated, LIST);
    for (unsigned i = 0; i < LIST; i++) {
        assert_int_equal(gpas[i], iovas[i] + OFFSET);
    }
    assert_int_equal(model.translations, LIST);
    assert_int_equal(model_stats(&model).translations, LIST);
    assert_int_equal(model_stats(&model).iotlb_hits, 0);
}

/* Lists of every length up to three steps and some, all cached but one, or all. */
static void test_one_miss(void **state)
{
    (void)state;
    for (unsigned count = 0; count < 14; count++) {
        for (unsigned miss = 0; miss <= count; miss++) {
            uint64_t hits = model_stats(&model).iotlb_hits;

            iotlb_drop_tag(&model.iommu.iotlb, context.tag);
            for (unsigned i = 0; i < count; i++) {
                if (i != miss) {
                    cache(iovas[i], RW);
                }
            }
            gpas[count] = UINT64_MAX;
            assert_int_equal(many(count, VIOMMU_WRITE), 0);
            assert_int_equal(translated, count);
            assert_int_equal(gpas[count], UINT64_MAX);
            for (unsigned i = 0; i < count; i++) {
                assert_int_equal(gpas[i], iovas[i] + (i == miss ? OFFSET : CACHED));
            }
            assert_int_equal(model_stats(&model).iotlb_hits - hits, count - (miss < count));
        }
    }
}

/* Any list, with any pages cached with any permission, some refused: in a section and outside. */
static void test_equal_to_singles(void **state)
{
    (void)state;
    model.last = 0x7fffff;
    for (unsigned round = 0; round < 3000; round++) {
        uint32_t perm = any(4);
        size_t count = any(round % 8 ? 20 : LIST);
        unsigned cached = any(101);
        bool section = percent(50);
        int ret;

        model.perm = percent(90) ? RW : any(4);
        iotlb_drop_tag(&model.iommu.iotlb, context.tag);
        for (size_t i = 0; i < count; i++) {
            iovas[i] = percent(99) ? any(0x200000) : any(0x10000000);
            if (percent(cached)) {
                cache(iovas[i], percent(80) ? RW : any(4));
            }
        }
        if (section) {
            assert_int_equal(viommu_dma_begin(&model.iommu), 0);
        }
        ret = many(count, perm);
        expect_as_singles(count, perm, ret);
        if (section) {
            viommu_dma_end(&model.iommu);
        }
    }
    assert_false(epoch_inside(model.iommu.epoch));
}

/* The results may take the place of the addresses, wherever the cache does not answer. */
static void test_in_place(void **state)
{
    uint64_t list[13];
    const unsigned count = sizeof(list) / sizeof(*list);

    (void)state;
    for (unsigned misses = 0; misses < 1u << count; misses += 3) {
        iotlb_drop_tag(&model.iommu.iotlb, context.tag);
        for (unsigned i = 0; i < count; i++) {
            list[i] = iovas[i];
            if (!(misses >> i & 1)) {
                cache(iovas[i], RW);
            }
        }
        assert_int_equal(
            viommu_device_translate_many(device, NULL, list, count, VIOMMU_READ, list, &translated),
            0);
        for (unsigned i = 0; i < count; i++) {
            assert_int_equal(list[i], iovas[i] + (misses >> i & 1 ? OFFSET : CACHED));
        }
    }
}

static void test_refused_in_the_middle(void **state)
{
    (void)state;
    for (unsigned end = 1; end < LIST; end += end < 20 ? 1 : 97) {
        iotlb_drop_tag(&model.iommu.iotlb, context.tag);
        for (unsigned i = 0; i < end; i += 3) {
            cache(iovas[i], RW);
        }
        model.last = iovas[end] - 1;
        assert_int_equal(many(LIST, VIOMMU_READ), -EFAULT);
        assert_int_equal(translated, end);
        assert_int_equal(model_stats(&model).refused, 1);
        teardown(state);
        setup(state);
    }
}

static void test_interrupt_range(void **state)
{
    (void)state;
    iovas[5] = 0xfee00000;
    assert_int_equal(many(10, VIOMMU_WRITE), -ENXIO);
    assert_int_equal(translated, 5);
    assert_int_equal(gpas[5], UINT64_MAX);
}

static void test_denied(void **state)
{
    (void)state;
    cache(iovas[0], RW);
    iommu_lock(&model.iommu);
    device_deny(device, -EIO, "test");
    iommu_unlock(&model.iommu);
    assert_int_equal(many(4, VIOMMU_READ), -EPERM);
    assert_int_equal(translated, 0);
    assert_int_equal(gpas[0], UINT64_MAX);
    assert_int_equal(model.translations, 0);
}

static int with(const struct viommu_dma_attrs *attrs, size_t count)
{
    return viommu_device_translate_many(device, attrs, iovas, count, VIOMMU_READ, gpas,
                                        &translated);
}

static void test_bad_attributes(void **state)
{
    static const struct viommu_dma_attrs bad[] = {{.alias = 1},
                                                  {.alias = UINT32_MAX},
                                                  {.type = VIOMMU_DMA_TRANSLATION},
                                                  {.type = (enum viommu_dma_type)3}};

    (void)state;
    cache(iovas[0], RW);
    for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        for (size_t count = 0; count < 3; count++) {
            translated = SIZE_MAX;
            assert_int_equal(with(&bad[i], count), -EINVAL);
            assert_int_equal(translated, 0);
        }
    }
    assert_int_equal(model.translations, 0);
    assert_false(epoch_inside(model.iommu.epoch));
}

/* Neither an alias nor a translated request is answered with what is cached for others. */
static void test_other_attributes(void **state)
{
    struct viommu_dma_attrs alias = {.alias = 1};
    struct viommu_dma_attrs translated_request = {.type = VIOMMU_DMA_TRANSLATED};

    (void)state;
    assert_int_equal(viommu_device_add_alias(device, 0x29), 1);
    cache(iovas[0], RW);
    assert_int_equal(with(&(struct viommu_dma_attrs){0}, 1), 0);
    assert_int_equal(gpas[0], iovas[0] + CACHED);
    assert_int_equal(with(&alias, 1), 0);
    assert_int_equal(gpas[0], iovas[0] + OFFSET);
    gpas[0] = 0;
    assert_int_equal(with(&translated_request, 1), 0);
    assert_int_equal(gpas[0], iovas[0] + OFFSET);
}

/* Nothing is cached for a requester whose context is not known, or has no tag, or no id. */
static void test_no_tag(void **state)
{
    struct iotlb_tag *tag = context.tag;

    (void)state;
    cache(iovas[0], RW);
    atomic_store(&requester()->context, NULL);
    assert_int_equal(many(1, VIOMMU_READ), 0);
    assert_int_equal(gpas[0], iovas[0] + OFFSET);
    atomic_store(&requester()->context, &context);
    context.tag = NULL;
    assert_int_equal(many(2, VIOMMU_READ), 0);
    assert_int_equal(gpas[0], iovas[0] + OFFSET);
    context.tag = tag;
    atomic_store(&tag->id, 0);
    assert_int_equal(many(3, VIOMMU_READ), 0);
    assert_int_equal(gpas[0], iovas[0] + OFFSET);
    assert_int_equal(model_stats(&model).iotlb_hits, 0);
}

static void *first_section(void *arg)
{
    (void)arg;
    base_alloc_fail_at(1);
    assert_int_equal(many(LIST, VIOMMU_READ), -ENOMEM);
    assert_int_equal(translated, 0);
    base_alloc_fail_at(0);
    assert_int_equal(many(LIST, VIOMMU_READ), 0);
    return NULL;
}

static void test_first_section_without_memory(void **state)
{
    pthread_t thread;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, first_section, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(epoch_drained(model.iommu.epoch, epoch_begin_drain(model.iommu.epoch)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nothing_cached, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_miss, setup, teardown),
        cmocka_unit_test_setup_teardown(test_equal_to_singles, setup, teardown),
        cmocka_unit_test_setup_teardown(test_in_place, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused_in_the_middle, setup, teardown),
        cmocka_unit_test_setup_teardown(test_interrupt_range, setup, teardown),
        cmocka_unit_test_setup_teardown(test_denied, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_attributes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_attributes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_tag, setup, teardown),
        cmocka_unit_test_setup_teardown(test_first_section_without_memory, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
