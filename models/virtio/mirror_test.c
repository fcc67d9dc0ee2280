/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Mirrors of a virtio-iommu's devices: what they are told of each request, what becomes of one that
 * a mirror cannot follow, and in which order all that completes.
 */
#include "virtio/test_mirror.h"

#include "base/alloc.h"

#define ALL_RAM "+0-3ffff>0rw"

static const struct viommu_virtio_config defaults;
static struct bed bed;
static struct mirror_bed one;
static struct mirror_bed two;
static struct mirror_bed extra; /* where a test makes one more */

/* Two endpoints of domain 1, each with a mirror. */
static int setup(void **state)
{
    (void)state;
    bed_init(&bed, &defaults);
    mirror_begin(&bed, 0, &one);
    mirror_begin(&bed, 1, &two);
    assert_int_equal(bed_finish(&bed, bed_attach(&bed, 1, 8, 0)), SPEC_S_OK);
    assert_int_equal(bed_finish(&bed, bed_attach(&bed, 1, 9, 0)), SPEC_S_OK);
    mirror_told(&one, "");
    mirror_told(&two, "");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    base_alloc_fail_at(0);
    bed_fini(&bed);
    return 0;
}

static uint8_t map(uint64_t first, uint64_t last, uint64_t gpa)
{
    return bed_finish(&bed, bed_map(&bed, 1, first, last, gpa, SPEC_MAP_RW));
}

static uint8_t unmap(uint64_t first, uint64_t last)
{
    return bed_finish(&bed, bed_unmap(&bed, 1, first, last));
}

static void add_slot(uint64_t first, uint64_t last, void *host, uint32_t flags)
{
    struct viommu_memory_slot slot = {
        .first = first, .last = last, .host = host, .fd = -1, .flags = flags};
    struct viommu_memory_batch *batch;

    assert_int_equal(viommu_memory_batch_begin(bed.memory, &batch), 0);
    assert_int_equal(viommu_memory_batch_add(batch, &slot), 0);
    assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), 0);
    bed_process(&bed);
}

static void remove_slot(uint64_t first, uint64_t last)
{
    struct viommu_memory_batch *batch;
    int ret;

    assert_int_equal(viommu_memory_batch_begin(bed.memory, &batch), 0);
    assert_int_equal(viommu_memory_batch_remove(batch, first, last), 0);
    ret = viommu_memory_batch_commit(batch, NULL, NULL);
    assert_true(ret == 0 || ret == VIOMMU_PENDING);
    bed_process(&bed);
    (void)viommu_memory_process(bed.memory);
}

static void expect_done(unsigned index, uint64_t token, uint8_t status)
{
    assert_true(bed.done_count > index);
    assert_int_equal(bed.done[index].token, token);
    assert_int_equal(bed.done[index].status, status);
}

/* ---- what they are told ---- */

/* A MAP is one mapping, whatever its size; each goes as it came. */
static void test_map_and_unmap(void **state)
{
    (void)state;
    assert_int_equal(map(0x1000, 0x1fff, 0x3000), SPEC_S_OK);
    assert_int_equal(map(0x2000, 0x9fff, 0x4000), SPEC_S_OK);
    mirror_told(&one, "+1000-1fff>3000rw +2000-9fff>4000rw");
    mirror_told(&two, "+1000-1fff>3000rw +2000-9fff>4000rw");
    assert_int_equal(bed_read(&bed, 0, 0x1000), 3);
    assert_int_equal(bed_finish(&bed, bed_map(&bed, 1, 0x10000, 0x10fff, 0, SPEC_MAP_READ)),
                     SPEC_S_OK);
    mirror_told(&one, "+10000-10fff>0r");
    assert_int_equal(unmap(0x2000, 0x3fff), SPEC_S_RANGE);
    mirror_told(&one, "");
    assert_int_equal(unmap(0, 0xfffff), SPEC_S_OK);
    mirror_told(&one, "-1000-1fff -2000-9fff -10000-10fff");
    assert_int_equal(one.count, 0);
    assert_int_equal(bed_status(&bed).mappings, 0);
    assert_int_equal(bed_read(&bed, 0, 0x1000), -EFAULT);
}

/* What is refused tells nobody anything. */
static void test_refused_requests(void **state)
{
    (void)state;
    assert_int_equal(map(0x1000, 0x1fff, 0x3000), SPEC_S_OK);
    mirror_told(&one, "+1000-1fff>3000rw");
    assert_int_equal(map(0, 0x1fff, 0x3000), SPEC_S_INVAL);
    assert_int_equal(map(0xfee00000, 0xfee00fff, 0x3000), SPEC_S_INVAL);
    assert_int_equal(unmap(0x8000, 0x8fff), SPEC_S_OK);
    assert_int_equal(bed_finish(&bed, bed_detach(&bed, 2, 8)), SPEC_S_INVAL);
    mirror_told(&one, "");
}

/* Endpoints come and go: what both domains have the same stays mapped. */
static void test_domains(void **state)
{
    (void)state;
    assert_int_equal(bed_finish(&bed, bed_attach(&bed, 2, 10, 0)), SPEC_S_OK);
    assert_int_equal(map(0x1000, 0x2fff, 0x3000), SPEC_S_OK);
    assert_int_equal(map(0x5000, 0x5fff, 0x7000), SPEC_S_OK);
    assert_int_equal(bed_finish(&bed, bed_map(&bed, 2, 0x1000, 0x1fff, 0x3000, SPEC_MAP_RW)),
                     SPEC_S_OK);
    assert_int_equal(bed_finish(&bed, bed_map(&bed, 2, 0x2000, 0x2fff, 0x4000, SPEC_MAP_RW)),
                     SPEC_S_OK);
    one.told[0] = 0;
    assert_int_equal(bed_finish(&bed, bed_attach(&bed, 2, 8, 0)), SPEC_S_OK);
    mirror_told(&one, "-5000-5fff");
    assert_int_equal(mirror_status(&one).mappings, 1);
    /* What it kept has another border than the mapping that goes. */
    assert_int_equal(bed_finish(&bed, bed_unmap(&bed, 2, 0x2000, 0x2fff)), SPEC_S_OK);
    mirror_told(&one, "-1000-2fff +1000-1fff>3000rw");
    assert_int_equal(bed_finish(&bed, bed_detach(&bed, 2, 8)), SPEC_S_OK);
    mirror_told(&one, "-1000-1fff");
    assert_int_equal(bed_finish(&bed, bed_attach(&bed, 1, 8, 0)), SPEC_S_OK);
    mirror_told(&one, "+1000-2fff>3000rw +5000-5fff>7000rw");
    /* The last one to leave takes the domain along. */
    assert_int_equal(bed_finish(&bed, bed_detach(&bed, 1, 8)), SPEC_S_OK);
    assert_int_equal(bed_finish(&bed, bed_detach(&bed, 1, 9)), SPEC_S_OK);
    mirror_told(&one, "-1000-2fff -5000-5fff");
    assert_int_equal(two.count, 0);
    assert_int_equal(bed_status(&bed).domains, 1);
}

/* With bypass, guest memory one to one, but for what is reserved; and memory comes and goes. */
static void test_bypass(void **state)
{
    static const struct viommu_range region = {0x8000, 0x8fff};
    struct viommu_virtio_config config = {.bypass = true};
    uint8_t *more = aligned_alloc(PAGE, 4 * PAGE);

    (void)state;
    bed_space(&bed, &region, 1);
    bed_begin(&bed, &config);
    mirror_begin(&bed, 0, &one);
    mirror_told(&one, "+0-7fff>0rw +9000-3ffff>9000rw");
    assert_int_equal(bed_finish(&bed, bed_attach(&bed, 1, 8, 0)), SPEC_S_OK);
    mirror_told(&one, "-0-7fff -9000-3ffff");
    assert_int_equal(map(0x1000, 0x1fff, 0x3000), SPEC_S_OK);
    assert_int_equal(bed_finish(&bed, bed_attach(&bed, 2, 8, 1)), SPEC_S_OK);
    mirror_told(&one, "+1000-1fff>3000rw -1000-1fff +0-7fff>0rw +9000-3ffff>9000rw");
    add_slot(0x100000, 0x101fff, more, VIOMMU_MEMORY_READONLY);
    mirror_told(&one, "+100000-101fff>100000r");
    remove_slot(0x100000, 0x101fff);
    mirror_told(&one, "-100000-101fff");
    assert_int_equal(bed_finish(&bed, bed_detach(&bed, 2, 8)), SPEC_S_OK);
    mirror_told(&one, "");
    assert_int_equal(viommu_mmio_write(bed.iommu, SPEC_CONFIG_BYPASS, 1, 0), 0);
    bed_process(&bed);
    mirror_told(&one, "-0-7fff -9000-3ffff");
    assert_int_equal(viommu_mmio_write(bed.iommu, SPEC_CONFIG_BYPASS, 1, 1), 0);
    bed_process(&bed);
    mirror_told(&one, "+0-7fff>0rw +9000-3ffff>9000rw");
    bed_fini(&bed);
    free(more);
}

/* A mapping is cut by memory, and follows it. */
static void test_memory(void **state)
{
    uint8_t *more = aligned_alloc(PAGE, 4 * PAGE);

    (void)state;
    assert_int_equal(map(0x1000000, 0x1009fff, 0x3e000), SPEC_S_OK);
    mirror_told(&one, "+1000000-1001fff>3e000rw");
    assert_int_equal(bed.event.kind, VIOMMU_EVENT_NOT_MAPPED);
    assert_int_equal(bed.event.first, 0x1002000);
    assert_int_equal(bed.event.last, 0x1009fff);
    add_slot(0x42000, 0x43fff, more, 0);
    mirror_told(&one, "+1004000-1005fff>42000rw");
    add_slot(0x40000, 0x41fff, more + 2 * PAGE, VIOMMU_MEMORY_READONLY);
    mirror_told(&one, "+1002000-1003fff>40000r");
    remove_slot(0x42000, 0x43fff);
    mirror_told(&one, "-1004000-1005fff");
    assert_int_equal(unmap(0x1000000, 0x1009fff), SPEC_S_OK);
    mirror_told(&one, "-1000000-1001fff -1002000-1003fff");
    /* Of what the guest calls MMIO nobody expects memory. */
    bed.events = 0;
    assert_int_equal(bed_finish(&bed, bed_map(&bed, 1, 0, 0xfff, 0x100000, 7)), SPEC_S_OK);
    assert_int_equal(bed.events, 0);
    teardown(state);
    free(more);
}

static void test_resets(void **state)
{
    (void)state;
    assert_int_equal(map(0x1000, 0x1fff, 0x3000), SPEC_S_OK);
    assert_int_equal(viommu_virtio_reset(bed.iommu, ++bed.token), VIOMMU_PENDING);
    assert_int_equal(bed_finish(&bed, BED_PENDING), SPEC_S_OK);
    mirror_told(&one, "+1000-1fff>3000rw -1000-1fff");
    assert_int_equal(viommu_virtio_accept(bed.iommu, viommu_virtio_features(bed.iommu)), 0);
    assert_int_equal(bed_finish(&bed, bed_attach(&bed, 1, 8, 0)), SPEC_S_OK);
    assert_int_equal(map(0x1000, 0x1fff, 0x3000), SPEC_S_OK);
    assert_int_equal(viommu_reset(bed.iommu), 0);
    bed_process(&bed);
    mirror_told(&one, "+1000-1fff>3000rw -1000-1fff");
    assert_int_equal(bed_status(&bed).mappings, 0);
}

/* Blocks, where a mirror takes nothing else. */
static void test_blocks(void **state)
{
    (void)state;
    mirror_prepare(&extra);
    extra.what.form = VIOMMU_FORM_POW2;
    assert_int_equal(mirror_subscribe(&bed, 0, &extra), 0);
    assert_int_equal(map(0x1000, 0x5fff, 0x11000), SPEC_S_OK);
    mirror_told(&extra, "+1000-1fff>11000rw +2000-3fff>12000rw +4000-5fff>14000rw");
    mirror_told(&one, "+1000-5fff>11000rw");
    mirror_answers(&extra, 3, -ENOSPC, VIOMMU_CHANGE_MAP);
    assert_int_equal(map(0x9000, 0xdfff, 0x11000), SPEC_S_NOMEM);
    mirror_told(&extra, "+9000-9fff>11000rw +a000-bfff>12000rw +c000-dfff>14000rw? -9000-9fff "
                      "-a000-bfff");
    assert_int_equal(mirror_status(&extra).mappings, 3);
    assert_int_equal(mirror_status(&extra).differences, 0);
}

/* ---- what fails ---- */

/* A MAP that one cannot follow is undone where it was done. */
static void test_map_fails(void **state)
{
    uint64_t events = bed.events;

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct mirror_bed *failing = i ? &one : &two;

        mirror_answers(failing, 1, i ? -EIO : -ENOSPC, VIOMMU_CHANGE_MAP);
        assert_int_equal(map(0x1000, 0x2fff, 0x3000), i ? SPEC_S_DEVERR : SPEC_S_NOMEM);
        assert_int_equal(one.count, 0);
        assert_int_equal(two.count, 0);
        assert_int_equal(bed_status(&bed).mappings, 0);
        assert_int_equal(mirror_status(failing).differences, 0);
        assert_false(mirror_status(failing).fenced);
    }
    assert_int_equal(bed.events, events);
    assert_int_equal(bed_read(&bed, 0, 0x1000), -EFAULT);
    /* Nothing is in the way of another try. */
    assert_int_equal(map(0x1000, 0x2fff, 0x3000), SPEC_S_OK);
    assert_int_equal(one.count, 1);
    assert_int_equal(two.count, 1);
}

/* Only the second part of what memory cuts fails. */
static void test_map_fails_in_part(void **state)
{
    uint8_t *more = aligned_alloc(PAGE, 4 * PAGE);

    (void)state;
    add_slot(0x40000, 0x43fff, more, 0);
    mirror_answers(&one, 2, -ENOMEM, VIOMMU_CHANGE_MAP);
    assert_int_equal(map(0x1000, 0x4fff, 0x3e000), SPEC_S_NOMEM);
    mirror_told(&one, "+1000-2fff>3e000rw +3000-4fff>40000rw? -1000-2fff");
    assert_int_equal(two.count, 0);
    teardown(state);
    free(more);
}

static void test_limit_of_mappings(void **state)
{
    (void)state;
    mirror_prepare(&extra);
    extra.what.mappings_max = 1;
    assert_int_equal(mirror_subscribe(&bed, 0, &extra), 0);
    assert_int_equal(map(0x1000, 0x1fff, 0), SPEC_S_OK);
    assert_int_equal(map(0x2000, 0x2fff, 0), SPEC_S_NOMEM);
    assert_int_equal(unmap(0x1000, 0x1fff), SPEC_S_OK);
    assert_int_equal(map(0x2000, 0x2fff, 0), SPEC_S_OK);
    mirror_told(&extra, "+1000-1fff>0rw -1000-1fff +2000-2fff>0rw");
}

/* An ATTACH that fails leaves the endpoint where it was. */
static void test_attach_fails(void **state)
{
    (void)state;
    assert_int_equal(map(0x1000, 0x1fff, 0x3000), SPEC_S_OK);
    assert_int_equal(map(0x4000, 0x5fff, 0x6000), SPEC_S_OK);
    assert_int_equal(bed_finish(&bed, bed_attach(&bed, 2, 8, 0)), SPEC_S_OK);
    assert_int_equal(
        bed_finish(&bed, bed_map(&bed, 2, 0x4000, 0x4fff, 0x6000, SPEC_MAP_RW)), SPEC_S_OK);
    assert_int_equal(
        bed_finish(&bed, bed_map(&bed, 2, 0x8000, 0x8fff, 0x9000, SPEC_MAP_RW)), SPEC_S_OK);
    one.told[0] = 0;
    for (unsigned in = 1; in <= 2; in++) {
        mirror_answers(&one, in, -ENOSPC, VIOMMU_CHANGE_MAP);
        assert_int_equal(bed_finish(&bed, bed_attach(&bed, 1, 8, 0)), SPEC_S_NOMEM);
        assert_int_equal(one.count, 2);
        assert_int_equal(mirror_status(&one).differences, 0);
        assert_int_equal(bed_read(&bed, 0, 0x8000), 9);
        assert_int_equal(bed_read(&bed, 0, 0x1000), -EFAULT);
        mirror_told(&one, in == 1 ? "+1000-1fff>3000rw?"
                                  : "+1000-1fff>3000rw +5000-5fff>7000rw? -1000-1fff");
    }
    /* To bypass, too. */
    mirror_answers(&one, 1, -EIO, VIOMMU_CHANGE_MAP);
    assert_int_equal(bed_finish(&bed, bed_attach(&bed, 3, 8, 1)), SPEC_S_DEVERR);
    assert_int_equal(one.count, 2);
    assert_int_equal(bed_status(&bed).domains, 2);
    assert_int_equal(bed_finish(&bed, bed_attach(&bed, 3, 8, 1)), SPEC_S_OK);
    assert_int_equal(one.count, 1);
    assert_int_equal(bed_read(&bed, 0, 0x1000), 1);
}

/* A mirror that fails to unmap is fenced, its device denied; others go on, as does the guest. */
static void test_unmap_fails(void **state)
{
    (void)state;
    assert_int_equal(map(0x1000, 0x1fff, 0x3000), SPEC_S_OK);
    mirror_answers(&one, 1, -EIO, VIOMMU_CHANGE_UNMAP);
    assert_int_equal(unmap(0x1000, 0x1fff), SPEC_S_OK);
    mirror_told(&one, "+1000-1fff>3000rw -1000-1fff? !");
    mirror_told(&two, "+1000-1fff>3000rw -1000-1fff");
    assert_int_equal(map(0x1000, 0x1fff, 0x3000), SPEC_S_OK);
    mirror_told(&one, "");
    assert_int_equal(bed_read(&bed, 0, 0x1000), -EPERM);
    assert_int_equal(bed_read(&bed, 1, 0x1000), 3);
    assert_int_equal(viommu_device_reset(bed.devices[0]), 0);
    bed_process(&bed);
    mirror_told(&one, "+1000-1fff>3000rw");
}

/* What a mirror does not answer in time is a failure, and fences it besides. */
static void test_no_answer(void **state)
{
    (void)state;
    mirror_answers(&one, 1, VIOMMU_PENDING, VIOMMU_CHANGE_MAP);
    assert_int_equal(map(0x1000, 0x1fff, 0x3000), BED_PENDING);
    bed.now += 501 * MS;
    assert_int_equal(bed_finish(&bed, BED_PENDING), SPEC_S_DEVERR);
    mirror_told(&one, "+1000-1fff>3000rw& !");
    assert_int_equal(two.count, 0);
    assert_true(mirror_status(&one).fenced);
    assert_int_equal(bed_status(&bed).mappings, 0);
}

/* What cannot be answered is a difference: it is tried again. */
static void test_differences(void **state)
{
    (void)state;
    assert_int_equal(viommu_mmio_write(bed.iommu, SPEC_CONFIG_BYPASS, 1, 1), 0);
    bed_process(&bed);
    mirror_answers(&one, 1, -ENOSPC, VIOMMU_CHANGE_MAP);
    assert_int_equal(bed_finish(&bed, bed_detach(&bed, 1, 8)), SPEC_S_OK);
    mirror_told(&one, ALL_RAM "?");
    assert_int_equal(mirror_status(&one).differences, 1);
    bed.now += 11 * MS;
    bed_process(&bed);
    mirror_told(&one, ALL_RAM);
    assert_int_equal(mirror_status(&one).differences, 0);
}

/* ---- what waits ---- */

/* A mirror that takes its time: DMA by a new mapping waits for it, and so do later requests. */
static void test_pending_map(void **state)
{
    uint64_t token;

    (void)state;
    mirror_answers(&one, 1, VIOMMU_PENDING, VIOMMU_CHANGE_MAP);
    assert_int_equal(map(0x1000, 0x1fff, 0x3000), BED_PENDING);
    token = bed.token;
    mirror_told(&two, "+1000-1fff>3000rw");
    assert_int_equal(bed_read(&bed, 0, 0x1000), -EFAULT);
    assert_int_equal(bed_read(&bed, 1, 0x1000), -EFAULT);
    assert_int_equal(bed_unmap(&bed, 1, 0x1000, 0x1fff), BED_PENDING);
    assert_int_equal(bed_attach(&bed, 1, 10, 0), BED_PENDING);
    assert_int_equal(bed_map(&bed, 1, 0x1000, 0x1fff, 0x4000, SPEC_MAP_RW), BED_PENDING);
    assert_int_equal(bed_map(&bed, 1, 0x1000, 0x2fff, 0x4000, SPEC_MAP_RW), BED_PENDING);
    bed_process(&bed);
    assert_int_equal(bed.done_count, 0);
    mirror_told(&two, "");
    mirror_complete(&one, 0);
    bed_process(&bed);
    assert_int_equal(bed.done_count, 5);
    for (unsigned i = 0; i < 5; i++) {
        expect_done(i, token + i, i < 4 ? SPEC_S_OK : SPEC_S_INVAL);
    }
    mirror_told(&one, "+1000-1fff>3000rw& -1000-1fff +1000-1fff>4000rw");
    assert_int_equal(bed_read(&bed, 2, 0x1000), 4);
    assert_int_equal(bed_status(&bed).refused, 1);
}

/* It fails in the end: the UNMAP that waited finds nothing. */
static void test_pending_map_fails(void **state)
{
    uint64_t token;

    (void)state;
    mirror_answers(&one, 1, VIOMMU_PENDING, VIOMMU_CHANGE_MAP);
    assert_int_equal(map(0x1000, 0x1fff, 0x3000), BED_PENDING);
    token = bed.token;
    assert_int_equal(bed_unmap(&bed, 1, 0x1000, 0x1fff), BED_PENDING);
    mirror_complete(&one, -ENOMEM);
    bed_process(&bed);
    expect_done(0, token, SPEC_S_NOMEM);
    expect_done(1, token + 1, SPEC_S_OK);
    mirror_told(&two, "+1000-1fff>3000rw -1000-1fff");
    assert_int_equal(two.count, 0);
}

/* DMA loses a mapping at once; it is complete when mirrors have followed. */
static void test_pending_unmap(void **state)
{
    (void)state;
    assert_int_equal(map(0x1000, 0x1fff, 0x3000), SPEC_S_OK);
    assert_int_equal(bed_read(&bed, 0, 0x1000), 3);
    mirror_answers(&one, 1, VIOMMU_PENDING, VIOMMU_CHANGE_UNMAP);
    assert_int_equal(unmap(0x1000, 0x1fff), BED_PENDING);
    assert_int_equal(bed_read(&bed, 0, 0x1000), -EFAULT);
    assert_int_equal(bed_status(&bed).mappings, 0);
    mirror_complete(&one, 0);
    assert_int_equal(bed_finish(&bed, BED_PENDING), SPEC_S_OK);
}

/* An endpoint goes by its old domain until its mirror has the new. */
static void test_pending_attach(void **state)
{
    (void)state;
    assert_int_equal(map(0x1000, 0x1fff, 0x3000), SPEC_S_OK);
    assert_int_equal(bed_finish(&bed, bed_attach(&bed, 2, 8, 0)), SPEC_S_OK);
    assert_int_equal(
        bed_finish(&bed, bed_map(&bed, 2, 0x1000, 0x1fff, 0x5000, SPEC_MAP_RW)), SPEC_S_OK);
    one.told[0] = 0;
    mirror_answers(&one, 1, VIOMMU_PENDING, VIOMMU_CHANGE_MAP);
    assert_int_equal(bed_finish(&bed, bed_attach(&bed, 1, 8, 0)), BED_PENDING);
    assert_int_equal(bed_read(&bed, 0, 0x1000), 5);
    mirror_complete(&one, 0);
    assert_int_equal(bed_finish(&bed, BED_PENDING), SPEC_S_OK);
    mirror_told(&one, "-1000-1fff +1000-1fff>3000rw&");
    assert_int_equal(bed_read(&bed, 0, 0x1000), 3);
    assert_int_equal(bed_status(&bed).domains, 1);
}

/* In one cluster something goes, and what comes fails: what was there comes back. */
static void test_attach_fails_in_a_cluster(void **state)
{
    (void)state;
    assert_int_equal(map(0x1000, 0x2fff, 0x3000), SPEC_S_OK);
    assert_int_equal(bed_finish(&bed, bed_attach(&bed, 2, 8, 0)), SPEC_S_OK);
    assert_int_equal(
        bed_finish(&bed, bed_map(&bed, 2, 0x2000, 0x3fff, 0x9000, SPEC_MAP_RW)), SPEC_S_OK);
    one.told[0] = 0;
    mirror_answers(&one, 1, -ENOSPC, VIOMMU_CHANGE_MAP);
    assert_int_equal(bed_finish(&bed, bed_attach(&bed, 1, 8, 0)), SPEC_S_NOMEM);
    mirror_told(&one, "-2000-3fff +1000-2fff>3000rw? +2000-3fff>9000rw");
    assert_int_equal(mirror_status(&one).differences, 0);
    assert_int_equal(mirror_status(&one).mappings, 1);
}

/* What comes fails where the mirror holds one piece in several mappings: all of that goes first. */
static void test_attach_fails_in_a_piece(void **state)
{
    (void)state;
    assert_int_equal(map(0x2000, 0x2fff, 0x2000), SPEC_S_OK);
    assert_int_equal(bed_finish(&bed, bed_attach(&bed, 2, 8, 1)), SPEC_S_OK);
    assert_int_equal(map(0x1000, 0x1fff, 0x3000), SPEC_S_OK);
    mirror_told(&one, "+2000-2fff>2000rw +0-1fff>0rw +3000-3ffff>3000rw");
    mirror_answers(&one, 1, -ENOSPC, VIOMMU_CHANGE_MAP);
    assert_int_equal(bed_finish(&bed, bed_attach(&bed, 1, 8, 0)), SPEC_S_NOMEM);
    mirror_told(&one, "-0-1fff +1000-1fff>3000rw? -3000-3ffff +0-1fff>0rw +3000-3ffff>3000rw");
}

/* A reset does not wait for its turn. */
static void test_reset_while_pending(void **state)
{
    uint64_t token;

    (void)state;
    for (unsigned attach = 0; attach < 2; attach++) {
        bed.done_count = 0;
        assert_int_equal(map(0x1000, 0x1fff, 0x3000), SPEC_S_OK);
        if (attach) {
            assert_int_equal(bed_finish(&bed, bed_detach(&bed, 1, 8)), SPEC_S_OK);
        }
        mirror_answers(&one, 1, VIOMMU_PENDING, VIOMMU_CHANGE_MAP);
        assert_int_equal(attach ? bed_attach(&bed, 1, 8, 0)
                                : bed_map(&bed, 1, 0x8000, 0x8fff, 0, SPEC_MAP_RW),
                         BED_PENDING);
        bed_process(&bed);
        token = bed.token;
        assert_int_equal(bed_map(&bed, 1, 0x2000, 0x2fff, 0x3000, SPEC_MAP_RW), BED_PENDING);
        assert_int_equal(viommu_virtio_reset(bed.iommu, ++bed.token), VIOMMU_PENDING);
        assert_int_equal(bed_status(&bed).domains, 0);
        bed_process(&bed);
        assert_int_equal(bed.done_count, 0);
        mirror_complete(&one, 0);
        bed_process(&bed);
        assert_int_equal(bed.done_count, 3);
        expect_done(0, token, SPEC_S_IOERR);
        expect_done(1, token + 1, SPEC_S_IOERR);
        expect_done(2, token + 2, SPEC_S_OK);
        assert_int_equal(one.count, 0);
        assert_int_equal(two.count, 0);
        assert_int_equal(bed_status(&bed).mappings, 0);
        assert_int_equal(viommu_virtio_accept(bed.iommu, 0x77), 0);
        assert_int_equal(bed_finish(&bed, bed_attach(&bed, 1, 9, 0)), SPEC_S_OK);
        assert_int_equal(bed_finish(&bed, bed_attach(&bed, 1, 8, 0)), SPEC_S_OK);
    }
}

/* The platform's forgets all; and what comes after it waits until mirrors are back. */
static void test_platform_reset_while_pending(void **state)
{
    (void)state;
    mirror_answers(&one, 1, VIOMMU_PENDING, VIOMMU_CHANGE_MAP);
    assert_int_equal(map(0x1000, 0x1fff, 0x3000), BED_PENDING);
    assert_int_equal(bed_unmap(&bed, 1, 0x1000, 0x1fff), BED_PENDING);
    assert_int_equal(viommu_reset(bed.iommu), 0);
    assert_int_equal(bed_status(&bed).pending, 0);
    assert_int_equal(viommu_virtio_accept(bed.iommu, 0x77), 0);
    assert_int_equal(bed_attach(&bed, 1, 8, 0), BED_PENDING);
    bed_process(&bed);
    assert_int_equal(bed.done_count, 0);
    mirror_complete(&one, 0);
    bed_process(&bed);
    assert_int_equal(bed.done_count, 1);
    expect_done(0, bed.token, SPEC_S_OK);
    assert_int_equal(one.count, 0);
    assert_int_equal(two.count, 0);
}

/* A device that goes takes its part in what is tried along. */
static void test_device_goes_while_pending(void **state)
{
    (void)state;
    mirror_answers(&one, 1, VIOMMU_PENDING, VIOMMU_CHANGE_MAP);
    assert_int_equal(map(0x1000, 0x1fff, 0x3000), BED_PENDING);
    assert_int_equal(viommu_device_remove(bed.devices[0]), 0);
    assert_int_equal(bed_finish(&bed, BED_PENDING), SPEC_S_OK);
    assert_int_equal(two.count, 1);
    /* Both go: the domain, too. */
    mirror_answers(&two, 1, VIOMMU_PENDING, VIOMMU_CHANGE_UNMAP);
    assert_int_equal(unmap(0x1000, 0x1fff), BED_PENDING);
    assert_int_equal(viommu_device_remove(bed.devices[1]), 0);
    assert_int_equal(bed_status(&bed).domains, 0);
    assert_int_equal(bed_finish(&bed, BED_PENDING), SPEC_S_OK);
    assert_int_equal(bed_status(&bed).mappings, 0);
}

/* ---- what mirrors may map ---- */

static void test_allowed(void **state)
{
    static const struct viommu_range allowed[] = {{0, 0x7fff}, {0x10000, (1ull << 48) - 1}};

    (void)state;
    mirror_prepare(&extra);
    extra.what.allowed = allowed;
    extra.what.allowed_count = 2;
    assert_int_equal(mirror_subscribe(&bed, 2, &extra), 0);
    assert_int_equal(map(0x8000, 0x8fff, 0x3000), SPEC_S_OK);
    assert_int_equal(bed_finish(&bed, bed_attach(&bed, 1, 10, 0)), SPEC_S_UNSUPP);
    assert_int_equal(unmap(0x8000, 0x8fff), SPEC_S_OK);
    assert_int_equal(map(0xfef00000, 0xfef0ffff, 0), SPEC_S_OK);
    assert_int_equal(bed_finish(&bed, bed_attach(&bed, 1, 10, 0)), SPEC_S_OK);
    assert_int_equal(map(0x7000, 0x8fff, 0x3000), SPEC_S_INVAL);
    assert_int_equal(map(0xf000, 0x10fff, 0x3000), SPEC_S_INVAL);
    assert_int_equal(map(0x7000, 0x7fff, 0x3000), SPEC_S_OK);
    assert_int_equal(map(0x10000, 0x10fff, 0x3000), SPEC_S_OK);
    mirror_told(&extra, "+fef00000-fef0ffff>0rw +7000-7fff>3000rw +10000-10fff>3000rw");
}

static uint64_t config_field(struct viommu *iommu, uint64_t at)
{
    uint64_t value;

    assert_int_equal(viommu_mmio_read(iommu, at, 8, &value), 0);
    return value;
}

static void test_narrowed_sizes(void **state)
{
    struct viommu_virtio_config config = {.features = VIOMMU_VIRTIO_MAP_UNMAP};
    struct bed other = {.virtio = config};

    (void)state;
    bed_memory(&other);
    other.config = (struct viommu_config){.memory = other.memory};
    assert_int_equal(viommu_virtio_create(&other.config, &config, &other.iommu), 0);
    bed_devices(&other, other.iommu, other.devices);
    mirror_prepare(&extra);
    extra.what.page_sizes = 1 << 12 | 1 << 21;
    assert_int_equal(mirror_subscribe(&other, 0, &extra), 0);
    assert_int_equal(viommu_start(other.iommu), 0);
    assert_int_equal(config_field(other.iommu, 0), 1 << 12 | 1 << 21);
    assert_int_equal(config_field(other.iommu, 16), UINT64_MAX);
    bed_fini(&other);
}

static void test_narrowed(void **state)
{
    static const struct viommu_range low = {0, 0xffff12345678};
    static const struct viommu_range nothing = {0, 0xfff};
    struct viommu_virtio_config config = {.page_size_mask = 1 << 14 | 1 << 21 | 1 << 30};
    struct bed other = {.virtio = config};

    (void)state;
    bed_memory(&other);
    other.config = (struct viommu_config){.memory = other.memory};
    assert_int_equal(viommu_virtio_create(&other.config, &config, &other.iommu), 0);
    bed_devices(&other, other.iommu, other.devices);
    mirror_prepare(&extra);
    extra.what.allowed = &nothing;
    extra.what.allowed_count = 1;
    assert_int_equal(mirror_subscribe(&other, 0, &extra), -ERANGE);
    extra.what.allowed = &low;
    extra.what.page_sizes = 1 << 12 | 1 << 21;
    assert_int_equal(mirror_subscribe(&other, 0, &extra), -ERANGE);
    extra.what.page_sizes = 1 << 12 | 1 << 14 | 1 << 21;
    assert_int_equal(mirror_subscribe(&other, 0, &extra), 0);
    assert_int_equal(viommu_start(other.iommu), 0);
    assert_int_equal(config_field(other.iommu, 0), 1 << 14 | 1 << 21);
    assert_int_equal(config_field(other.iommu, 16), 0xffff12343fff);
    assert_int_equal(mirror_subscribe(&other, 1, &extra), 0);
    extra.what.allowed = &nothing;
    assert_int_equal(mirror_subscribe(&other, 1, &extra), -ERANGE);
    bed_fini(&other);
}

/* ---- new ones ---- */

/* Who comes later is told of all that is there; who goes is told nothing more. */
static void test_subscribe_late(void **state)
{
    struct mirror_bed late;

    (void)state;
    assert_int_equal(map(0x1000, 0x1fff, 0x3000), SPEC_S_OK);
    mirror_begin(&bed, 0, &late);
    mirror_told(&late, "+1000-1fff>3000rw");
    mirror_told(&one, "+1000-1fff>3000rw");
    assert_int_equal(viommu_subscriber_destroy(late.subscriber), 0);
    assert_int_equal(unmap(0x1000, 0x1fff), SPEC_S_OK);
    mirror_told(&late, "");
    /* A device that takes another id has what that has. */
    assert_int_equal(map(0x1000, 0x1fff, 0x3000), SPEC_S_OK);
    one.told[0] = 0;
    assert_int_equal(viommu_device_set_requester(bed.devices[0], 77), 0);
    bed_process(&bed);
    mirror_told(&one, "-1000-1fff");
}

/* What went with a mirror's help is not kept, however often. */
static void test_memory_of_mappings(void **state)
{
    uint64_t least = bed_status(&bed).memory;

    (void)state;
    one.silent = true;
    two.silent = true;
    for (unsigned turn = 0; turn < 2; turn++) {
        for (uint64_t i = 0; i < 900; i++) {
            assert_int_equal(map(i * PAGE, (i + 1) * PAGE - 1, 0), SPEC_S_OK);
        }
        assert_true(bed_status(&bed).memory > least + 24576);
        assert_int_equal(unmap(0, 900 * PAGE - 1), SPEC_S_OK);
        assert_true(bed_status(&bed).memory < least + 20480);
    }
}

/* An allocation that fails is NOMEM, or nothing at all: mirrors hold what the guest was told. */
static void test_no_memory(void **state)
{
    (void)state;
    assert_int_equal(map(0x1000, 0x1fff, 0x3000), SPEC_S_OK);
    assert_int_equal(bed_finish(&bed, bed_attach(&bed, 2, 10, 0)), SPEC_S_OK);
    for (unsigned n = 1; n < 12; n++) {
        uint8_t status;

        base_alloc_fail_at(n);
        status = map(0x4000, 0x4fff, 0x3000);
        base_alloc_fail_at(0);
        assert_true(status == SPEC_S_OK || status == SPEC_S_NOMEM);
        assert_int_equal(one.count, 1 + (status == SPEC_S_OK));
        base_alloc_fail_at(n);
        status = bed_finish(&bed, bed_attach(&bed, 2, 8, 0));
        base_alloc_fail_at(0);
        assert_true(status == SPEC_S_OK || status == SPEC_S_NOMEM);
        if (status == SPEC_S_OK) {
            assert_int_equal(one.count, 0);
            assert_int_equal(bed_finish(&bed, bed_attach(&bed, 1, 8, 0)), SPEC_S_OK);
        }
        assert_int_equal(one.count, two.count);
        base_alloc_fail_at(n);
        status = unmap(0x4000, 0x4fff);
        base_alloc_fail_at(0);
        assert_int_equal(unmap(0x4000, 0x4fff), SPEC_S_OK);
        assert_int_equal(one.count, 1);
        assert_int_equal(two.count, 1);
    }
}

/* An UNMAP that mirrors follow is done, whatever allocation fails, when nothing else goes on. */
static void test_unmap_without_memory(void **state)
{
    bool failed = true;

    (void)state;
    for (unsigned n = 1; failed; n++) {
        assert_int_equal(map(0x1000, 0x1fff, 0x3000), SPEC_S_OK);
        assert_int_equal(bed_read(&bed, 0, 0x1000), 3);
        base_alloc_fail_at(n);
        assert_int_equal(unmap(0x1000, 0x1fff), SPEC_S_OK);
        failed = base_alloc_failed();
        base_alloc_fail_at(0);
        assert_int_equal(bed_read(&bed, 0, 0x1000), -EFAULT);
        assert_int_equal(bed_status(&bed).mappings, 0);
        assert_int_equal(one.count + two.count, 0);
    }
}

/* Behind another one it may be refused, and then has changed nothing. */
static void test_unmap_behind_another_without_memory(void **state)
{
    (void)state;
    assert_int_equal(map(0x1000, 0x1fff, 0x3000), SPEC_S_OK);
    assert_int_equal(map(0x4000, 0x4fff, 0x3000), SPEC_S_OK);
    assert_int_equal(viommu_dma_begin(bed.iommu), 0);
    assert_int_equal(bed_unmap(&bed, 1, 0x1000, 0x1fff), BED_PENDING);
    base_alloc_fail_at(1);
    assert_int_equal(bed_unmap(&bed, 1, 0x4000, 0x4fff), SPEC_S_NOMEM);
    base_alloc_fail_at(0);
    viommu_dma_end(bed.iommu);
    bed_process(&bed);
    expect_done(0, bed.token - 1, SPEC_S_OK);
    assert_int_equal(bed.done_count, 1);
    assert_int_equal(bed_read(&bed, 0, 0x1000), -EFAULT);
    assert_int_equal(bed_read(&bed, 0, 0x4000), 3);
    assert_int_equal(one.count, 1);
    assert_int_equal(two.count, 1);
    bed.done_count = 0;
    assert_int_equal(unmap(0x4000, 0x4fff), SPEC_S_OK);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_map_and_unmap),
        TEST(test_refused_requests),
        TEST(test_domains),
        cmocka_unit_test(test_bypass),
        cmocka_unit_test_setup(test_memory, setup),
        TEST(test_resets),
        TEST(test_blocks),
        TEST(test_map_fails),
        cmocka_unit_test_setup(test_map_fails_in_part, setup),
        TEST(test_limit_of_mappings),
        TEST(test_attach_fails),
        TEST(test_attach_fails_in_a_cluster),
        TEST(test_attach_fails_in_a_piece),
        TEST(test_unmap_fails),
        TEST(test_no_answer),
        TEST(test_differences),
        TEST(test_pending_map),
        TEST(test_pending_map_fails),
        TEST(test_pending_unmap),
        TEST(test_pending_attach),
        TEST(test_reset_while_pending),
        TEST(test_platform_reset_while_pending),
        TEST(test_device_goes_while_pending),
        TEST(test_allowed),
        cmocka_unit_test(test_narrowed),
        cmocka_unit_test(test_narrowed_sizes),
        TEST(test_subscribe_late),
        TEST(test_memory_of_mappings),
        TEST(test_no_memory),
        TEST(test_unmap_without_memory),
        TEST(test_unmap_behind_another_without_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
