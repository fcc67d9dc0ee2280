/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of DMA: translate, read, write, over pages, holes, ROM and the interrupt range; errors;
 * sections.
 */
#include "base/alloc.h"
#include "iommu/test_model.h"

#include <errno.h>

#define RW (VIOMMU_READ | VIOMMU_WRITE)

static struct test_model model;
static struct viommu_device *device;

static int setup(void **state)
{
    (void)state;
    model_init(&model);
    device = model_device(&model, 0x28);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    model_fini(&model);
    return 0;
}

static int read_at(uint64_t iova, void *buf, size_t len)
{
    return viommu_device_read(device, NULL, iova, buf, len);
}

static int write_at(uint64_t iova, const void *buf, size_t len)
{
    return viommu_device_write(device, NULL, iova, buf, len);
}

static void test_translate(void **state)
{
    struct viommu_translation out;

    (void)state;
    model.offset = 0x3000;
    assert_int_equal(viommu_device_translate(device, NULL, 0x1234, VIOMMU_READ, &out), 0);
    assert_int_equal(out.gpa, 0x4234);
    assert_int_equal(out.mask, 0xfff);
    assert_int_equal(out.perm, RW);
    assert_false(out.interrupt);
    model.perm = VIOMMU_READ;
    assert_int_equal(viommu_device_translate(device, NULL, 0, VIOMMU_WRITE, &out), -EFAULT);
    assert_int_equal(viommu_device_translate(device, NULL, 0, 0, &out), 0);
    assert_int_equal(model_stats(&model).translations, 3);
    assert_int_equal(model_stats(&model).refused, 1);
}

static void test_bad_attributes(void **state)
{
    static const struct viommu_dma_attrs bad[] = {
        {.alias = 1}, {.alias = UINT32_MAX}, {.type = VIOMMU_DMA_TRANSLATION},
        {.type = (enum viommu_dma_type)3}, {.type = (enum viommu_dma_type)-1}};
    struct viommu_translation out;
    char byte = 0;

    (void)state;
    for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        assert_int_equal(viommu_device_translate(device, &bad[i], 0, VIOMMU_READ, &out), -EINVAL);
        assert_int_equal(viommu_device_read(device, &bad[i], 0, &byte, 1), -EINVAL);
        assert_int_equal(viommu_device_write(device, &bad[i], 0, &byte, 1), -EINVAL);
    }
    assert_int_equal(model.translations, 0);
}

/* Translated requests are for those who can have asked for a translation. */
static void test_translated_needs_ats(void **state)
{
    struct viommu_dma_attrs attrs = {.type = VIOMMU_DMA_TRANSLATED};
    struct viommu_device_config config = {.requester = 9};
    struct viommu_translation out;
    struct viommu_device *plain;
    char byte = 0;

    (void)state;
    assert_int_equal(viommu_device_add(&model.iommu, &config, &plain), 0);
    assert_int_equal(viommu_device_translate(device, &attrs, 0, VIOMMU_READ, &out), 0);
    assert_int_equal(viommu_device_translate(plain, &attrs, 0, VIOMMU_READ, &out), -ENOTSUP);
    assert_int_equal(viommu_device_read(plain, &attrs, 0, &byte, 1), -ENOTSUP);
    assert_int_equal(viommu_device_write(plain, &attrs, 0, &byte, 1), -ENOTSUP);
}

/* Every length over every border of the first pages. */
static void test_across_pages(void **state)
{
    static unsigned char out[0x5000];
    static unsigned char in[0x5000];
    static const uint64_t starts[] = {0, 1, 0xffe, 0xfff, 0x1000, 0x1001};
    static const size_t lengths[] = {1, 2, 3, 8, 0xfff, 0x1000, 0x1001, 0x2000, 0x3fff};

    (void)state;
    model.offset = 0x8000;
    for (size_t i = 0; i < sizeof(out); i++) {
        out[i] = (unsigned char)(i * 7 + i / 256);
    }
    for (unsigned s = 0; s < sizeof(starts) / sizeof(*starts); s++) {
        for (unsigned l = 0; l < sizeof(lengths) / sizeof(*lengths); l++) {
            unsigned char *host = model.ram + 0x8000 + starts[s];

            memset(model.ram, 0, MODEL_RAM);
            assert_int_equal(write_at(starts[s], out, lengths[l]), 0);
            assert_memory_equal(host, out, lengths[l]);
            assert_int_equal(host[-1], 0);
            assert_int_equal(host[lengths[l]], 0);
            memset(in, 0xee, sizeof(in));
            assert_int_equal(read_at(starts[s], in, lengths[l]), 0);
            assert_memory_equal(in, out, lengths[l]);
            assert_int_equal(in[lengths[l]], 0xee);
        }
    }
}

/* One that is refused in the middle: what lies before is done, nothing behind it. */
static void test_refused_in_the_middle(void **state)
{
    static unsigned char data[0x3000];

    (void)state;
    memset(data, 0x77, sizeof(data));
    model.last = 0x1fff;
    assert_int_equal(write_at(0x800, data, 0x2800), -EFAULT);
    assert_int_equal(model.ram[0x7ff], 0);
    assert_int_equal(model.ram[0x800], 0x77);
    assert_int_equal(model.ram[0x1fff], 0x77);
    assert_int_equal(model.ram[0x2000], 0);
    memset(data, 0, sizeof(data));
    assert_int_equal(read_at(0x800, data, 0x2800), -EFAULT);
    assert_int_equal(data[0x17ff], 0x77);
    assert_int_equal(data[0x1800], 0);
}

/* A larger page whose memory ends inside it: page by page all the same. */
static void test_memory_ends_inside_a_large_page(void **state)
{
    static unsigned char data[0x3000];

    (void)state;
    model.mask = 0x1fffff;
    memset(data, 0x77, sizeof(data));
    assert_int_equal(write_at(MODEL_RAM - 0x2000, data, 0x3000), -ENXIO);
    assert_int_equal(model.ram[MODEL_RAM - 0x2000], 0x77);
    assert_int_equal(model.ram[MODEL_RAM - 1], 0x77);
}

static void test_no_memory_there(void **state)
{
    uint64_t value = 0;

    (void)state;
    assert_int_equal(read_at(MODEL_RAM, &value, 8), -ENXIO);
    assert_int_equal(write_at(MODEL_RAM, &value, 8), -ENXIO);
    assert_int_equal(read_at(UINT64_MAX - 7, &value, 8), -ENXIO);
    assert_int_equal(read_at(MODEL_RAM - 1, &value, 1), 0);
}

/* The top of the address space: the last byte is there, one more is not. */
static void test_wrap(void **state)
{
    char bytes[2] = {0};

    (void)state;
    model.offset = 0x1000; /* UINT64_MAX + 0x1000 wraps to 0xfff */
    assert_int_equal(write_at(UINT64_MAX, bytes, 1), 0);
    assert_int_equal(write_at(UINT64_MAX, bytes, 2), -EINVAL);
    assert_int_equal(read_at(UINT64_MAX, bytes, 2), -EINVAL);
    assert_int_equal(read_at(UINT64_MAX - 8, bytes, SIZE_MAX), -EINVAL);
    assert_int_equal(write_at(UINT64_MAX, NULL, 0), 0);
    assert_int_equal(read_at(UINT64_MAX, NULL, 0), 0);
}

/* No byte moves, but it is checked. */
static void test_zero_length(void **state)
{
    (void)state;
    model.last = 0xfff;
    assert_int_equal(read_at(0x500, NULL, 0), 0);
    assert_int_equal(write_at(0x500, NULL, 0), 0);
    assert_int_equal(model.translations, 2);
    assert_int_equal(read_at(0x1000, NULL, 0), -EFAULT);
    assert_int_equal(write_at(0x1000, NULL, 0), -EFAULT);
    model.perm = VIOMMU_READ;
    assert_int_equal(write_at(0x500, NULL, 0), -EFAULT);
    model.perm = VIOMMU_WRITE;
    /* A zero-length read needs no permission to read. */
    assert_int_equal(read_at(0x500, NULL, 0), 0);
}

static void test_rom(void **state)
{
    struct viommu_memory_batch *batch;
    uint64_t value = 1;

    (void)state;
    assert_int_equal(viommu_memory_batch_begin(model.memory, &batch), 0);
    assert_int_equal(viommu_memory_batch_remove(batch, 0, MODEL_RAM - 1), 0);
    assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), 0);
    model_add_ram(&model, 0x1000, 0x1fff, VIOMMU_MEMORY_READONLY);
    model_add_ram(&model, 0x2000, 0x2fff, 0);
    model.ram[0x1000] = 9;
    assert_int_equal(read_at(0x1000, &value, 8), 0);
    assert_int_equal(value, 9);
    assert_int_equal(write_at(0x1000, &value, 8), -EROFS);
    assert_int_equal(model.ram[0x1001], 0);
    /* RAM, then ROM's far side: over the border of two slots. */
    assert_int_equal(read_at(0x1ffc, &value, 8), 0);
    assert_int_equal(write_at(0x1ffc, &value, 8), -EROFS);
}

/* ---- the interrupt range --------------------------------------------------------------------- */

static void test_interrupt(void **state)
{
    uint32_t data = htole32(0x12345678);

    (void)state;
    assert_int_equal(write_at(0xfee00010, &data, 4), 0);
    assert_int_equal(model.interrupt_count, 1);
    assert_int_equal(model.interrupts[0].address, 0xfee00010);
    assert_int_equal(model.interrupts[0].data, 0x12345678);
    assert_int_equal(model.interrupts[0].requester, 0x28);
    assert_false(model.interrupts[0].from_unit);
    assert_int_equal(model_stats(&model).interrupts_requested, 1);
    assert_int_equal(model_stats(&model).bytes_written, 0);
}

static void test_interrupt_of_an_alias(void **state)
{
    struct viommu_dma_attrs attrs = {.alias = 1};
    uint32_t data = 1;

    (void)state;
    assert_int_equal(viommu_device_add_alias(device, 0x29), 1);
    assert_int_equal(viommu_device_write(device, &attrs, 0xfee00000, &data, 4), 0);
    assert_int_equal(model.interrupts[0].requester, 0x29);
}

static void test_interrupt_range_refused(void **state)
{
    static const unsigned char data[8];

    (void)state;
    for (size_t len = 0; len <= 8; len++) {
        for (uint64_t at = 0; at < 8; at++) {
            if (len != 4 || at % 4) {
                assert_int_equal(write_at(0xfee00000 + at, data, len), -EFAULT);
            }
        }
    }
    assert_int_equal(model.refused_interrupts, 9 * 8 - 2);
    assert_int_equal(model.interrupt_count, 0);
    assert_int_equal(read_at(0xfee00000, NULL, 0), 0);
}

/* Page by page: memory, then a message; a message, then memory. */
static void test_interrupt_and_memory(void **state)
{
    uint32_t data[2] = {htole32(1), htole32(2)};

    (void)state;
    model.offset = 0x1000 - 0xfedff000ull;
    assert_int_equal(write_at(0xfedffffc, data, 8), 0);
    assert_int_equal(model.ram[0x1ffc], 1);
    assert_int_equal(model.interrupt_count, 1);
    assert_int_equal(model.interrupts[0].address, 0xfee00000);
    assert_int_equal(model.interrupts[0].data, 2);
    model.offset = 0x2000 - 0xfef00000ull;
    assert_int_equal(write_at(0xfeeffffc, data, 8), 0);
    assert_int_equal(model.interrupt_count, 2);
    assert_int_equal(model.interrupts[1].address, 0xfeeffffc);
    assert_int_equal(model.interrupts[1].data, 1);
    assert_int_equal(model.ram[0x2000], 2);
    assert_int_equal(model_stats(&model).bytes_written, 8);
}

static void process_inside(struct test_model *m)
{
    struct viommu_device *other;

    assert_int_equal(viommu_process(&m->iommu, 0), -EDEADLK);
    /* Control calls are allowed, and nothing is locked. */
    other = model_device(m, 0x99);
    assert_int_equal(viommu_device_remove(other), 0);
    assert_int_equal(viommu_mmio_write(&m->iommu, 0, 8, 5), 0);
}

static void test_calls_from_the_interrupt_callback(void **state)
{
    uint32_t data = 1;

    (void)state;
    model.in_callback = process_inside;
    assert_int_equal(write_at(0xfee00000, &data, 4), 0);
    assert_int_equal(model.interrupt_count, 1);
    assert_int_equal(model.reg, 5);
    assert_int_equal(viommu_process(&model.iommu, 0), 0);
    assert_int_equal(model.event_count, 0);
}

/* ---- denied, not started --------------------------------------------------------------------- */

static void test_denied(void **state)
{
    struct viommu_translation out;
    struct viommu_ats_entry entry;
    uint32_t data = 0;

    (void)state;
    iommu_lock(&model.iommu);
    device_deny(device, -EIO, "test");
    device_deny(device, -EIO, "test");
    iommu_unlock(&model.iommu);
    assert_int_equal(viommu_device_translate(device, NULL, 0, VIOMMU_READ, &out), -EPERM);
    assert_int_equal(read_at(0, &data, 4), -EPERM);
    assert_int_equal(write_at(0xfee00000, &data, 4), -EPERM);
    assert_int_equal(read_at(0, &data, 0), -EPERM);
    assert_int_equal(viommu_device_ats_translate(device, NULL, 0, 1, false, &entry, 1), -EPERM);
    model_process(&model);
    assert_int_equal(model.event_count, 1); /* once, however often */
    assert_int_equal(model.translations, 0);
    assert_int_equal(model_stats(&model).refused, 5);
    assert_int_equal(viommu_device_reset(device), 0);
    assert_int_equal(read_at(0, &data, 4), 0);
}

/* ---- sections -------------------------------------------------------------------------------- */

static void test_sections_nest(void **state)
{
    uint64_t target;
    uint64_t value;

    (void)state;
    assert_int_equal(viommu_dma_begin(&model.iommu), 0);
    assert_int_equal(viommu_dma_begin(&model.iommu), 0);
    target = epoch_begin_drain(model.iommu.epoch);
    viommu_dma_end(&model.iommu);
    assert_int_equal(read_at(0, &value, 8), 0);
    assert_false(epoch_drained(model.iommu.epoch, target));
    viommu_dma_end(&model.iommu);
    assert_true(epoch_drained(model.iommu.epoch, target));
}

/* A thread's first section needs memory; without it nothing is done and nothing is left open. */
static void *first_section(void *arg)
{
    struct viommu_translation out;
    struct viommu_ats_entry entry;
    char byte = 0;

    (void)arg;
    base_alloc_fail_at(1);
    assert_int_equal(viommu_dma_begin(&model.iommu), -ENOMEM);
    base_alloc_fail_at(1);
    assert_int_equal(read_at(0, &byte, 1), -ENOMEM);
    base_alloc_fail_at(1);
    assert_int_equal(write_at(0, &byte, 1), -ENOMEM);
    base_alloc_fail_at(1);
    assert_int_equal(viommu_device_translate(device, NULL, 0, VIOMMU_READ, &out), -ENOMEM);
    base_alloc_fail_at(1);
    assert_int_equal(viommu_device_ats_translate(device, NULL, 0, 1, false, &entry, 1), -ENOMEM);
    base_alloc_fail_at(0);
    assert_int_equal(read_at(0, &byte, 1), 0);
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

/* ---- threads --------------------------------------------------------------------------------- */

/* Each thread has its device; counters of each are exact. */
static void *dma_thread(void *arg)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < 5000; i++) {
        assert_int_equal(viommu_device_write(arg, NULL, 0x1000, &value, 0), 0);
        assert_int_equal(viommu_device_read(arg, NULL, 0x2000 + i % 64, &value, 8), 0);
    }
    return NULL;
}

static void test_threads(void **state)
{
    pthread_t threads[4];

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        struct viommu_device *own = model_device(&model, (uint16_t)(0x100 + i));

        assert_int_equal(pthread_create(&threads[i], NULL, dma_thread, own), 0);
    }
    for (unsigned i = 0; i < 100; i++) {
        model_process(&model);
        assert_int_equal(viommu_device_remove(model_device(&model, 0x200)), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_int_equal(model_stats(&model).translations, 40000);
    assert_int_equal(model_stats(&model).bytes_read, 160000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_translate, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_attributes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_translated_needs_ats, setup, teardown),
        cmocka_unit_test_setup_teardown(test_across_pages, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused_in_the_middle, setup, teardown),
        cmocka_unit_test_setup_teardown(test_memory_ends_inside_a_large_page, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_memory_there, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wrap, setup, teardown),
        cmocka_unit_test_setup_teardown(test_zero_length, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rom, setup, teardown),
        cmocka_unit_test_setup_teardown(test_interrupt, setup, teardown),
        cmocka_unit_test_setup_teardown(test_interrupt_of_an_alias, setup, teardown),
        cmocka_unit_test_setup_teardown(test_interrupt_range_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_interrupt_and_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_calls_from_the_interrupt_callback, setup, teardown),
        cmocka_unit_test_setup_teardown(test_denied, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sections_nest, setup, teardown),
        cmocka_unit_test_setup_teardown(test_first_section_without_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
