/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest memory and the far side: regions made of slots, slots that come and go while rings run; and
 * addresses at the very top.
 */
#include "vhost/test_far.h"

#include "iommu/test_model.h"
#include "vhost/private.h"

/* ---- regions ---- */

struct files {
    int fds[12];
    char byte[4096];
};

static void files_init(struct files *files)
{
    for (unsigned i = 0; i < 12; i++) {
        files->fds[i] = memfd_create("file", MFD_CLOEXEC);
        assert_true(files->fds[i] >= 0);
    }
}

static void files_fini(struct files *files)
{
    for (unsigned i = 0; i < 12; i++) {
        close(files->fds[i]);
    }
}

static struct viommu_memory_slot slot_of(struct files *files, uint64_t first, uint64_t size,
                                         int file, uint64_t offset)
{
    return (struct viommu_memory_slot){.first = first,
                                       .last = first + size - 1,
                                       .host = files->byte,
                                       .fd = file < 0 ? -1 : files->fds[file],
                                       .fd_offset = offset};
}

static void test_slots_become_regions(void **state)
{
    struct vhost_table table = {0};
    struct vhost_place place;
    struct files files;

    (void)state;
    files_init(&files);
    {
        const struct viommu_memory_slot slots[] = {
            slot_of(&files, 0x100000, 0x10000, 0, 0x10000), /* continues the next one */
            slot_of(&files, 0xf0000, 0x10000, 0, 0),
            slot_of(&files, 0x200000, 0x1000, 0, 0x20000), /* of the file, but not of the memory */
            slot_of(&files, 0x300000, 0x1000, 1, 0x1000),
            slot_of(&files, 0x301000, 0x1000, -1, 0),
            slot_of(&files, 0x302000, 0x1000, 1, 0x1000), /* again */
            slot_of(&files, 0x303000, 0x1000, 2, INT64_MAX - 0xffe),
        };

        assert_int_equal(vhost_table_add(&table, slots, 7), 0);
        assert_true(vhost_table_grown(&table));
        assert_false(vhost_table_find(&table, 0xf0000, &place));
        assert_int_equal(vhost_table_build(&table), 0);
        assert_false(vhost_table_grown(&table));
        assert_int_equal(table.region_count, 4);
        assert_true(table.regions[0].gpa == 0xf0000 && table.regions[0].size == 0x20000 &&
                    table.regions[0].offset == 0);
        assert_true(table.regions[1].gpa == 0x200000 && table.regions[1].offset == 0x20000);
        assert_true(vhost_table_find(&table, 0x10ffff, &place));
        assert_true(place.key == table.regions[0].uaddr + 0x1ffff && place.first == 0x100000 &&
                    place.last == 0x10ffff);
        assert_true(vhost_table_find(&table, 0x302010, &place));
        assert_true(place.key == table.regions[3].uaddr + 0x10);
        assert_false(vhost_table_find(&table, 0x301000, &place));
        assert_false(vhost_table_find(&table, 0x303000, &place));
        assert_false(vhost_table_find(&table, 0x304000, &place));
        assert_false(vhost_table_find(&table, 0xeffff, &place));
        for (unsigned i = 1; i < 4; i++) {
            assert_true(table.regions[i].uaddr >
                        table.regions[i - 1].uaddr + table.regions[i - 1].size);
        }
        assert_true(vhost_table_remove(&table, &slots[2], 1));
        assert_false(vhost_table_remove(&table, &slots[2], 1));
        assert_false(vhost_table_remove(&table, &slots[4], 1));
        assert_int_equal(table.count, 5);
    }
    vhost_table_fini(&table);
    files_fini(&files);
}

/* Of a file that is in one piece, a part of which is there twice. */
static void test_a_part_is_there_twice(void **state)
{
    struct vhost_table table = {0};
    struct vhost_place place;
    struct files files;

    (void)state;
    files_init(&files);
    for (int i = 1; i < 8; i++) {
        struct viommu_memory_slot slot = slot_of(&files, (uint64_t)i * 0x10000, 0x1000, i, 0);

        assert_int_equal(vhost_table_add(&table, &slot, 1), 0);
    }
    {
        const struct viommu_memory_slot slots[] = {
            slot_of(&files, 0x100000, 0x4000, 0, 0),
            slot_of(&files, 0x200000, 0x1000, 0, 0x1000),
        };

        assert_int_equal(vhost_table_add(&table, slots, 2), 0);
    }
    assert_int_equal(vhost_table_build(&table), 0);
    assert_int_equal(table.region_count, 8);
    assert_true(vhost_table_find(&table, 0x103fff, &place));
    assert_true(table.regions[place.region].size == 0x4000);
    assert_true(place.key == table.regions[place.region].uaddr + 0x3fff);
    vhost_table_fini(&table);
    files_fini(&files);
}

/* Files of different file systems may have one inode number. */
static void test_files_of_one_number(void **state)
{
    struct vhost_table table = {0};
    struct files files;

    (void)state;
    files_init(&files);
    for (unsigned i = 0; i < 10; i++) {
        struct viommu_memory_slot slot =
            slot_of(&files, i * 0x1000u, 0x1000, (int)(i & 1), i * 0x1000u);

        assert_int_equal(vhost_table_add(&table, &slot, 1), 0);
        table.slots[i].device = i & 1;
        table.slots[i].inode = 7;
    }
    assert_int_equal(vhost_table_build(&table), 0);
    assert_int_equal(table.region_count, 2);
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(table.fds[table.slots[i].region], table.slots[i].slot.fd);
    }
    vhost_table_fini(&table);
    files_fini(&files);
}

/* More than eight: what is of one file is one, with what lies between. */
static void test_many_slots_of_a_file(void **state)
{
    struct vhost_table table = {0};
    struct vhost_place place;
    struct files files;

    (void)state;
    files_init(&files);
    for (unsigned i = 0; i < 100; i++) {
        struct viommu_memory_slot slot =
            slot_of(&files, (uint64_t)i * 0x10000, 0x1000, i % 8, (99 - i) / 8 * 0x3000u);

        assert_int_equal(vhost_table_add(&table, &slot, 1), 0);
    }
    assert_int_equal(vhost_table_build(&table), 0);
    assert_int_equal(table.region_count, 8);
    for (unsigned i = 0; i < 100; i++) {
        const struct vhost_user_region *region;

        assert_true(vhost_table_find(&table, i * 0x10000u + 5, &place));
        region = &table.regions[place.region];
        assert_int_equal(table.fds[place.region], files.fds[i % 8]);
        assert_int_equal(place.key - region->uaddr + region->offset, (99 - i) / 8 * 0x3000 + 5);
        assert_true(place.key + 0xffa < region->uaddr + region->size);
    }
    {
        struct viommu_memory_slot slot = slot_of(&files, 0x1000000, 0x1000, 8, 0);

        assert_int_equal(vhost_table_add(&table, &slot, 1), 0);
        assert_int_equal(vhost_table_build(&table), -ENOSPC);
        assert_false(vhost_table_find(&table, 0, &place));
        assert_false(vhost_table_remove(&table, &slot, 1));
        assert_int_equal(vhost_table_build(&table), 0);
    }
    vhost_table_fini(&table);

    /* Regions that are too large for keys. */
    for (unsigned i = 0; i < 4; i++) {
        const struct viommu_memory_slot slots[] = {
            slot_of(&files, i * 0x100000u, 0x1000, (int)i, 0),
            slot_of(&files, i * 0x100000u + 0x1000, 0x1000, (int)i, INT64_MAX - 0x1fff),
            slot_of(&files, i * 0x100000u + 0x3000, 0x1000, (int)i, 0x7000),
        };

        assert_int_equal(vhost_table_add(&table, slots, 3), 0);
    }
    assert_int_equal(vhost_table_build(&table), -ENOSPC);
    vhost_table_fini(&table);

    /* The second reaches so far up that the third has no key. */
    {
        const uint64_t large = INT64_MAX;
        const uint64_t rest = large - (UINT64_C(1) << 44) - (UINT64_C(3) << 30);
        const struct viommu_memory_slot slots[] = {
            slot_of(&files, 0, large, 0, 0),
            slot_of(&files, large, rest, 1, 0),
            slot_of(&files, large + rest, 0x1000, 2, 0),
        };

        assert_int_equal(vhost_table_add(&table, slots, 3), 0);
        assert_int_equal(vhost_table_build(&table), -ENOSPC);
        vhost_table_fini(&table);
    }
    files_fini(&files);
}

/* ---- slots that come and go ---- */

static void on_done(void *opaque)
{
    *(bool *)opaque = true;
}

/* Begins to remove guest pages [first, last]; returns what the commit did. */
static int remove_pages(struct bed *bed, uint64_t first, uint64_t last, bool *done)
{
    struct viommu_memory_batch *batch;

    assert_int_equal(viommu_memory_batch_begin(bed->guest.memory, &batch), 0);
    assert_int_equal(viommu_memory_batch_remove(batch, first * 4096, last * 4096 + 4095), 0);
    return viommu_memory_batch_commit(batch, on_done, done);
}

#define EXTRA 0x100000ull /* guest page of a second slot */

static void bed_start_with_extra(struct bed *bed)
{
    struct viommu_memory_slot extra;

    bed_start(bed);
    extra = bed_slot(bed, FAR_PAGES - 16, FAR_PAGES - 1, 0);
    extra.first += EXTRA * 4096;
    extra.last += EXTRA * 4096;
    bed_slots(bed, &extra, 1);
    bed_run(bed);
}

#define EXTRA_FIRST (EXTRA + FAR_PAGES - 16)
#define EXTRA_LAST  (EXTRA + FAR_PAGES - 1)

static void test_memory_comes_and_goes(void **state)
{
    struct bed bed;
    unsigned from;
    bool done = false;

    (void)state;
    bed_start_with_extra(&bed);
    assert_int_equal(bed.far.memory.count, 2);
    assert_non_null(far_find(&bed.far, 0x102000, 3)); /* told anew */
    bed_map(&bed, 0x200000, EXTRA_FIRST * 4096, SPEC_R);
    far_miss(&bed.far, 0x200000, 1);
    bed_run(&bed);
    assert_non_null(far_find(&bed.far, 0x200000, 1));

    /* It goes when the far side has let go of it: entries first, then the table. */
    from = bed.far.log_count;
    bed.far.silent = true;
    assert_int_equal(remove_pages(&bed, EXTRA_FIRST, EXTRA_LAST, &done), VIOMMU_PENDING);
    far_miss(&bed.far, 0x200000, 1); /* it is still mapped, but is given nothing */
    bed_run(&bed);
    assert_int_equal(viommu_memory_process(bed.guest.memory), VIOMMU_PENDING);
    assert_false(done);
    assert_int_equal(far_count(&bed.far, from, VHOST_USER_SET_MEM_TABLE, 0), 1);
    assert_int_equal(bed.far.memory.count, 1);
    assert_null(far_find(&bed.far, 0x200000, 1));
    far_pay(&bed.far);
    bed.far.silent = false;
    bed_run(&bed);
    while (viommu_memory_process(bed.guest.memory) == VIOMMU_PENDING) {
        /* until drains are over */
    }
    assert_true(done);
    bed_run(&bed);
    assert_non_null(far_find(&bed.far, 0x102000, 3));

    /* And when it comes back what was refused is answered. */
    {
        struct viommu_memory_slot extra = bed_slot(&bed, FAR_PAGES - 16, FAR_PAGES - 1, 0);

        extra.first += EXTRA * 4096;
        extra.last += EXTRA * 4096;
        bed_slots(&bed, &extra, 1);
    }
    bed_run(&bed);
    bed_wait(&bed, 1000);
    assert_int_equal(bed.far.memory.count, 2);
    assert_non_null(far_find(&bed.far, 0x200000, 1));
    assert_int_equal(bed_faults(&bed), 0);
    bed_fini(&bed);
}

/*
 * A run ends where its region does, though the next one follows in the file and in this process;
 * but not where slots meet that are one region.
 */
static void test_runs_end_with_a_region(void **state)
{
    const struct vhost_iotlb_msg *update;
    struct bed bed;

    (void)state;
    bed_start(&bed);
    for (unsigned i = 0; i < 3; i++) {
        struct viommu_memory_slot slot = bed_slot(&bed, 512 + 2 * i, 513 + 2 * i, 0);

        /* The second follows the first, the third comes elsewhere. */
        slot.first += (i < 2 ? EXTRA : 2 * EXTRA) * 4096;
        slot.last += (i < 2 ? EXTRA : 2 * EXTRA) * 4096;
        bed_slots(&bed, &slot, 1);
        for (unsigned page = 0; page < 2; page++) {
            bed_map(&bed, 0x200000 + (2 * i + page) * 0x1000, slot.first + page * 0x1000, SPEC_R);
        }
    }
    bed_run(&bed);
    assert_int_equal(bed.far.memory.count, 3); /* with that of the ring */
    far_miss(&bed.far, 0x203000, 1);
    bed_run(&bed);
    update = far_last(&bed.far, VHOST_IOTLB_UPDATE);
    assert_true(update->iova == 0x200000 && update->size == 0x4000);
    bed_flush_begin(&bed, 0x200000, 3);
    bed_run(&bed);
    assert_true(bed_flushed(&bed));
    far_miss(&bed.far, 0x204000, 1);
    bed_run(&bed);
    update = far_last(&bed.far, VHOST_IOTLB_UPDATE);
    assert_true(update->iova == 0x204000 && update->size == 0x2000);
    assert_null(far_find(&bed.far, 0x203000, 1));
    bed_fini(&bed);
}

/* What the far side does not let go of, it loses. */
static void test_memory_goes_without_an_answer(void **state)
{
    struct bed bed;
    bool done = false;

    (void)state;
    bed_start_with_extra(&bed);
    bed.far.silent = true;
    assert_int_equal(remove_pages(&bed, EXTRA_FIRST, EXTRA_LAST, &done), VIOMMU_PENDING);
    bed.clock += 1001 * FAR_MS;
    assert_int_equal(viommu_vhost_process(bed.vhost), -ETIMEDOUT);
    while (viommu_memory_process(bed.guest.memory) == VIOMMU_PENDING) {
        /* until drains are over */
    }
    assert_true(done);
    bed_fini(&bed);
}

/* It is told of the last state only, however often that changes meanwhile. */
static void test_memory_changes_often(void **state)
{
    struct bed bed;
    unsigned from;

    (void)state;
    bed_start(&bed);
    from = bed.far.log_count;
    bed.far.silent = true;
    for (unsigned i = 0; i < 20; i++) {
        struct viommu_memory_slot extra = bed_slot(&bed, i, i, 0);

        extra.first += EXTRA * 4096;
        extra.last += EXTRA * 4096;
        bed_slots(&bed, &extra, 1);
        (void)viommu_vhost_process(bed.vhost);
    }
    bed_run(&bed);
    assert_int_equal(far_count(&bed.far, from, VHOST_USER_SET_MEM_TABLE, 0), 1);
    bed.far.silent = false;
    far_pay(&bed.far);
    bed_run(&bed);
    assert_int_equal(far_count(&bed.far, from, VHOST_USER_SET_MEM_TABLE, 0), 2);
    assert_int_equal(bed.far.memory.count, 2); /* they follow one another */
    assert_int_equal(bed.far.memory.regions[0].size + bed.far.memory.regions[1].size,
                     (FAR_PAGES + 20) * 4096);
    bed_fini(&bed);
}

static void test_too_many_files(void **state)
{
    struct files files;
    struct bed bed;

    (void)state;
    files_init(&files);
    bed_init(&bed);
    for (unsigned i = 0; i < 8; i++) {
        struct viommu_memory_slot slot = bed_slot(&bed, i, i, 0);

        slot.first += (EXTRA + i) * 4096;
        slot.last += (EXTRA + i) * 4096;
        slot.fd = files.fds[i];
        bed_slots(&bed, &slot, 1);
    }
    bed_create(&bed);
    bed_run(&bed);
    assert_int_equal(bed.ready, 1);
    bed_start_ring(&bed, 0, 0x100000);
    assert_int_equal(bed.failed, 1);
    assert_int_equal(bed.error, -ENOSPC);
    bed_fini(&bed);
    files_fini(&files);
}

/* Memory that cannot be remembered: it fails, and another connection knows all. */
static void test_memory_is_lost(void **state)
{
    struct viommu_memory_slot extra;
    struct viommu_memory_batch *batch;
    struct bed bed;
    int again = -ENOMEM;
    int end;

    (void)state;
    bed_start(&bed);
    extra = bed_slot(&bed, 1, 1, 0);
    extra.first += EXTRA * 4096;
    extra.last += EXTRA * 4096;
    assert_int_equal(viommu_memory_batch_begin(bed.guest.memory, &batch), 0);
    assert_int_equal(viommu_memory_batch_add(batch, &extra), 0);
    /* The commit itself needs some. */
    for (unsigned long n = 1; !bed.failed; n++) {
        base_alloc_fail_at(n);
        if (!viommu_memory_batch_commit(batch, NULL, NULL)) {
            base_alloc_fail_at(0);
            bed_run(&bed);
            assert_int_equal(bed.failed, 1);
        } else {
            base_alloc_fail_at(0);
            assert_int_equal(viommu_memory_batch_begin(bed.guest.memory, &batch), 0);
            assert_int_equal(viommu_memory_batch_add(batch, &extra), 0);
        }
    }
    assert_int_equal(bed.error, -ENOMEM);
    end = bed_pair(&bed);
    for (unsigned long n = 1; again == -ENOMEM; n++) {
        base_alloc_fail_at(n); /* of what is to remember it, too */
        again = viommu_vhost_reconnect(bed.vhost, end);
        base_alloc_fail_at(0);
    }
    assert_int_equal(again, 0);
    bed_run(&bed);
    assert_int_equal(bed.far.memory.count, 2);
    /* And it is told of what goes. */
    assert_int_equal(viommu_memory_batch_begin(bed.guest.memory, &batch), 0);
    assert_int_equal(viommu_memory_batch_remove(batch, extra.first, extra.last), 0);
    (void)viommu_memory_batch_commit(batch, NULL, NULL);
    bed_run(&bed);
    assert_int_equal(bed.far.memory.count, 1);
    bed_fini(&bed);
}

/* Another far side asks before it has a memory table: what the first had leads nowhere there. */
static void test_asked_before_the_table(void **state)
{
    struct bed bed;
    unsigned from;

    (void)state;
    bed_start(&bed);
    bed_map(&bed, 0x200000, 0x50000, SPEC_R);
    far_close(&bed.far);
    bed_run(&bed);
    assert_int_equal(viommu_vhost_reconnect(bed.vhost, bed_pair(&bed)), 0);
    bed.far.protocol &= ~VHOST_USER_F_MQ; /* so nothing but acknowledgements is left to say */
    bed.far.silent = true;
    from = bed.far.log_count;
    bed_run(&bed);
    assert_int_equal(viommu_vhost_state(bed.vhost), VIOMMU_VHOST_NEGOTIATING);
    far_miss(&bed.far, 0x200000, 1);
    bed_run(&bed);
    assert_int_equal(far_count(&bed.far, from, VHOST_USER_IOTLB_MSG, VHOST_IOTLB_UPDATE), 0);
    far_pay(&bed.far);
    bed.far.silent = false;
    bed_run(&bed);
    bed_wait(&bed, 10);
    assert_non_null(far_find(&bed.far, 0x200000, 1));
    bed_fini(&bed);
}

/* ---- the top of the address space ---- */

static void test_the_very_top(void **state)
{
    const struct vhost_iotlb_msg *message;
    const uint64_t top = UINT64_MAX - 0xfff;
    struct viommu_change change = {.kind = VIOMMU_CHANGE_UNMAP, .requester = 0x18};
    struct viommu_vhost_config config;
    struct test_model model;
    struct bed bed = {.far = {.fd = -1, .requests = -1}};
    struct wait wait = {0};
    uint16_t id = 0x18;

    (void)state;
    model = (struct test_model){0};
    model_create(&model);
    bed.ram_fd = memfd_create("ram", MFD_CLOEXEC);
    assert_int_equal(ftruncate(bed.ram_fd, MODEL_RAM), 0);
    {
        struct viommu_memory_slot slot = {
            .first = 0, .last = MODEL_RAM - 1, .host = model.ram, .fd = bed.ram_fd};
        struct viommu_memory_batch *batch;

        assert_int_equal(viommu_memory_batch_begin(model.memory, &batch), 0);
        assert_int_equal(viommu_memory_batch_add(batch, &slot), 0);
        assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), 0);
    }
    assert_int_equal(viommu_start(&model.iommu), 0);
    bed.guest.memory = model.memory;
    bed.device = model_device(&model, 0x18);
    config = bed_config(&bed);
    config.fd = bed_pair(&bed);
    assert_int_equal(viommu_vhost_create(&config, &bed.vhost), 0);
    bed_run(&bed);
    {
        struct viommu_vhost_ring ring = {.size = 16,
                                         .descriptors = 0,
                                         .available = 0x1000,
                                         .used = 0x2000,
                                         .kick = -1,
                                         .call = -1};

        assert_int_equal(viommu_vhost_ring_start(bed.vhost, 0, &ring), 0);
    }
    bed_run(&bed);
    assert_non_null(far_find(&bed.far, 0x2000, 3));
    model.offset = 0x8000; /* the last pages lead to the first ones */
    far_miss(&bed.far, top + 5, 3);
    bed_run(&bed);
    message = far_last(&bed.far, VHOST_IOTLB_UPDATE);
    assert_true(message->iova + message->size - 1 == UINT64_MAX - 1);
    assert_non_null(far_find(&bed.far, UINT64_MAX - 1, 3));
    far_miss(&bed.far, UINT64_MAX, 3);
    bed_run(&bed);
    assert_int_equal(bed_statistics(&bed).denied, 1);

    change.first = top;
    change.last = UINT64_MAX;
    iommu_lock(&model.iommu);
    notify_post(&model.iommu, &change, model_has_id, &id, &wait);
    iommu_kick(&model.iommu);
    iommu_unlock(&model.iommu);
    model_process(&model);
    assert_int_equal(wait.deliveries, 1);
    bed_run(&bed);
    assert_int_equal(wait.deliveries, 0);
    assert_null(far_find(&bed.far, top, 1));
    viommu_vhost_destroy(bed.vhost);
    far_close(&bed.far);
    free(bed.far.log);
    free(bed.far.entries);
    close(bed.ram_fd);
    model_fini(&model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slots_become_regions),
        cmocka_unit_test(test_a_part_is_there_twice),
        cmocka_unit_test(test_files_of_one_number),
        cmocka_unit_test(test_many_slots_of_a_file),
        cmocka_unit_test(test_memory_comes_and_goes),
        cmocka_unit_test(test_runs_end_with_a_region),
        cmocka_unit_test(test_memory_goes_without_an_answer),
        cmocka_unit_test(test_memory_changes_often),
        cmocka_unit_test(test_too_many_files),
        cmocka_unit_test(test_memory_is_lost),
        cmocka_unit_test(test_asked_before_the_table),
        cmocka_unit_test(test_the_very_top),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
