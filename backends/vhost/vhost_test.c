/* SPDX-License-Identifier: BSD-2-Clause */
/* The vhost backend against a back-end that is stepped by hand: what is said, and when. */
#include "vhost/test_far.h"

#include "vhost/private.h"

#include <sys/resource.h>

static void test_negotiates(void **state)
{
    struct bed bed;
    unsigned from;

    (void)state;
    bed_init(&bed);
    bed_create(&bed);
    assert_int_equal(viommu_vhost_state(bed.vhost), VIOMMU_VHOST_NEGOTIATING);
    assert_int_equal(viommu_vhost_features(bed.vhost), 0);
    bed_run(&bed);
    assert_int_equal(bed.ready, 1);
    assert_int_equal(viommu_vhost_state(bed.vhost), VIOMMU_VHOST_READY);
    assert_true(viommu_vhost_features(bed.vhost) ==
                (0x0f | VHOST_FEATURE_VERSION_1 | VHOST_FEATURE_ACCESS_PLATFORM));
    assert_int_equal(viommu_vhost_accept(bed.vhost, 0x10), -EINVAL);
    assert_int_equal(viommu_vhost_accept(bed.vhost, 0x05), 0);
    assert_true(bed.far.requests >= 0);

    from = bed.far.log_count;
    bed_start_ring(&bed, 1, 0x100000);
    assert_true(bed.far.accepted ==
                (0x05 | VHOST_FEATURE_VERSION_1 | VHOST_FEATURE_ACCESS_PLATFORM |
                 VHOST_FEATURE_PROTOCOL_FEATURES));
    assert_int_equal(far_count(&bed.far, from, VHOST_USER_SET_MEM_TABLE, 0), 1);
    assert_int_equal(bed.far.memory.count, 1);
    assert_int_equal(bed.far.memory.regions[0].size, FAR_PAGES * 4096);
    assert_true(bed.far.rings[1].enabled);
    assert_int_equal(bed.far.rings[1].size, 256);
    assert_true(bed.far.rings[1].addresses.used_user_addr == 0x102000);
    assert_true(bed.far.rings[1].kick >= 0 && bed.far.rings[1].call >= 0);
    assert_int_equal(viommu_vhost_accept(bed.vhost, 0x05), -EBUSY);
    /* It can use the ring without asking. */
    for (uint64_t at = 0x100000; at < 0x103000; at += 0x1000) {
        assert_non_null(far_find(&bed.far, at, 3));
    }
    bed_fini(&bed);
}

static void test_refuses_what_lacks_something(void **state)
{
    static const struct {
        uint64_t features;
        uint64_t protocol;
        uint64_t queues;
        unsigned rings;
    } cases[] = {
        {FAR_FEATURES & ~VHOST_FEATURE_VERSION_1, FAR_PROTOCOL, 1, 2},
        {FAR_FEATURES & ~VHOST_FEATURE_ACCESS_PLATFORM, FAR_PROTOCOL, 1, 2},
        {FAR_FEATURES & ~VHOST_FEATURE_PROTOCOL_FEATURES, FAR_PROTOCOL, 1, 2},
        {FAR_FEATURES, FAR_PROTOCOL & ~VHOST_USER_F_REPLY_ACK, 1, 2},
        {FAR_FEATURES, FAR_PROTOCOL & ~VHOST_USER_F_BACKEND_REQ, 1, 2},
        {FAR_FEATURES, FAR_PROTOCOL & ~VHOST_USER_F_MQ, 1, 3},
        {FAR_FEATURES, FAR_PROTOCOL, 1, 3},
        {FAR_FEATURES, FAR_PROTOCOL, 0, 1},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct viommu_vhost_config config;
        struct bed bed;

        bed_init(&bed);
        config = bed_config(&bed);
        config.rings = cases[i].rings;
        config.fd = bed_pair(&bed);
        bed.far.features = cases[i].features;
        bed.far.protocol = cases[i].protocol;
        bed.far.queues = cases[i].queues;
        assert_int_equal(viommu_vhost_create(&config, &bed.vhost), 0);
        bed_run(&bed);
        assert_int_equal(bed.failed, 1);
        assert_int_equal(bed.error, -ENOTSUP);
        bed_fini(&bed);
    }
}

static void test_answers_what_is_missed(void **state)
{
    const struct vhost_iotlb_msg *update;
    const struct far_entry *entry;
    struct bed bed;
    uint64_t left;

    (void)state;
    bed_start(&bed);
    bed_map(&bed, 0x200000, 0x50000, SPEC_R);
    bed_map(&bed, 0x201000, 0x51000, SPEC_R);
    bed_map(&bed, 0x202000, 0x52000, SPEC_R | SPEC_W);
    bed_map(&bed, 0x203000, 0x54000, SPEC_R); /* not contiguous */
    far_miss(&bed.far, 0x201234, 1);
    bed_run(&bed);
    update = far_last(&bed.far, VHOST_IOTLB_UPDATE);
    assert_true(update->iova == 0x200000 && update->size == 0x3000 && update->perm == 1);
    entry = far_find(&bed.far, 0x201234, 1);
    assert_non_null(entry);
    assert_int_equal(far_offset(&bed.far, entry->uaddr + 0x1234, &left), 0x51234);

    /* It is told to drop what allows too little, before it is told more. */
    far_miss(&bed.far, 0x202010, 2);
    bed_run(&bed);
    entry = far_find(&bed.far, 0x202010, 3);
    assert_non_null(entry);
    assert_true(entry->iova == 0x202000 && entry->size == 0x1000);
    bed_fini(&bed);
}

static void test_invalidation_waits_for_acknowledgement(void **state)
{
    const struct vhost_iotlb_msg *message;
    struct viommu_vhost_statistics s;
    struct bed bed;

    (void)state;
    bed_start(&bed);
    bed_map(&bed, 0x200000, 0x50000, SPEC_R);
    far_miss(&bed.far, 0x200000, 1);
    bed_run(&bed);
    assert_non_null(far_find(&bed.far, 0x200000, 1));

    bed_unmap(&bed, 0x200000);
    bed.far.silent = true;
    bed_flush_begin(&bed, 0x200000, 0);
    bed_run(&bed);
    message = far_last(&bed.far, VHOST_IOTLB_INVALIDATE);
    assert_true(message->iova == 0x200000 && message->size == 0x1000);
    assert_false(bed_flushed(&bed));
    far_pay(&bed.far);
    bed_run(&bed);
    assert_true(bed_flushed(&bed));

    /* Nothing is held there now. */
    s = bed_statistics(&bed);
    assert_int_equal(s.skipped, 0);
    bed_flush_begin(&bed, 0x200000, 0);
    assert_true(bed_flushed(&bed));
    s = bed_statistics(&bed);
    assert_int_equal(s.skipped, 1);
    assert_int_equal(s.acknowledged, s.invalidations);
    bed_fini(&bed);
}

/* What is refused is a fault, one; what is looked at besides is none, nor is a second look. */
static void test_denied_is_healed(void **state)
{
    struct viommu_vhost_statistics s;
    struct viommu_stats stats;
    struct bed bed;

    (void)state;
    bed_start(&bed);
    assert_int_equal(bed_faults(&bed), 0);
    far_miss(&bed.far, 0x200040, 2);
    bed_run(&bed);
    assert_int_equal(bed_statistics(&bed).denied, 1);
    assert_int_equal(bed_faults(&bed), 1);
    for (unsigned i = 0; i < 20; i++) {
        bed_wait(&bed, 1000);
    }
    assert_int_equal(bed_faults(&bed), 0);
    bed_map(&bed, 0x200000, 0x50000, SPEC_R | SPEC_W);
    assert_null(far_find(&bed.far, 0x200000, 2));
    bed_wait(&bed, 1000);
    assert_non_null(far_find(&bed.far, 0x200040, 2));
    s = bed_statistics(&bed);
    assert_int_equal(s.healed, 1);
    assert_int_equal(s.misses, 1);
    assert_int_equal(bed_faults(&bed), 0);
    /* Nor did the device ask for what was looked at. */
    assert_int_equal(viommu_stats_get(bed.guest.iommu, &stats, sizeof(stats)), 0);
    assert_int_equal(stats.refused, 1);

    /* Where both are wanted the one that is refused is told. */
    bed_map(&bed, 0x300000, 0x51000, SPEC_R);
    far_miss(&bed.far, 0x300000, 3);
    bed_run(&bed);
    assert_int_equal(bed_faults(&bed), 1);
    /* The guest says that there is something new. */
    bed_map(&bed, 0x300000, 0x51000, SPEC_R | SPEC_W);
    bed_flush_begin(&bed, 0x300000, 0);
    bed_run(&bed);
    assert_non_null(far_find(&bed.far, 0x300000, 3));
    assert_int_equal(bed_statistics(&bed).healed, 2);
    bed_fini(&bed);
}

/* So many are remembered, the oldest go. */
static void test_many_are_denied(void **state)
{
    struct bed bed;

    (void)state;
    bed_start(&bed);
    for (unsigned i = 0; i < VHOST_DENIED_MAX + 10; i++) {
        far_miss(&bed.far, 0x400000 + i * 0x2000, 1);
        bed_run(&bed);
    }
    for (unsigned i = 0; i < VHOST_DENIED_MAX + 10; i++) {
        bed_map(&bed, 0x400000 + i * 0x2000, 0x50000, SPEC_R);
    }
    bed_wait(&bed, 1000);
    assert_int_equal(bed_statistics(&bed).healed, VHOST_DENIED_MAX);
    assert_null(far_find(&bed.far, 0x400000, 1));
    assert_non_null(far_find(&bed.far, 0x400000 + 10 * 0x2000, 1));
    bed_fini(&bed);
}

/* What was asked for by itself is healed by itself: the one who asked for it waits for no other. */
static void test_denied_by_what_is_asked(void **state)
{
    struct bed bed;

    (void)state;
    bed_start(&bed);
    far_miss(&bed.far, 0x200000, VIOMMU_READ);
    far_miss(&bed.far, 0x200800, VIOMMU_WRITE);
    bed_run(&bed);
    bed_map(&bed, 0x200000, 0x50000, SPEC_W);
    bed_wait(&bed, 10);
    assert_non_null(far_find(&bed.far, 0x200800, VIOMMU_WRITE));
    assert_int_equal(bed_statistics(&bed).healed, 1);
    bed_map(&bed, 0x200000, 0x50000, SPEC_R | SPEC_W);
    bed_wait(&bed, 1000);
    assert_non_null(far_find(&bed.far, 0x200000, VIOMMU_READ));
    assert_int_equal(bed_statistics(&bed).healed, 2);
    bed_fini(&bed);
}

/* Nothing is waited for where no ring runs. */
static void test_denied_ends_with_rings(void **state)
{
    struct bed bed;

    (void)state;
    bed_start(&bed);
    far_miss(&bed.far, 0x200000, 1);
    bed_run(&bed);
    assert_int_equal(viommu_vhost_ring_stop(bed.vhost, 0), 0);
    bed_run(&bed);
    bed_map(&bed, 0x200000, 0x50000, SPEC_R);
    bed_wait(&bed, 1000);
    assert_int_equal(bed_statistics(&bed).healed, 0);
    bed_fini(&bed);
}

static void test_rom_is_read_only(void **state)
{
    struct viommu_memory_slot rom;
    struct bed bed;

    (void)state;
    bed_init(&bed);
    rom = bed_slot(&bed, FAR_PAGES - 1, FAR_PAGES - 1, VIOMMU_MEMORY_READONLY);
    rom.first += 1 << 30;
    rom.last += 1 << 30;
    bed_slots(&bed, &rom, 1);
    bed_create(&bed);
    bed_run(&bed);
    bed_start_ring(&bed, 0, 0x100000);
    bed_map(&bed, 0x200000, rom.first, SPEC_R | SPEC_W);
    far_miss(&bed.far, 0x200000, 2);
    bed_run(&bed);
    assert_int_equal(bed_statistics(&bed).denied, 1);
    far_miss(&bed.far, 0x200000, 1);
    bed_run(&bed);
    assert_non_null(far_find(&bed.far, 0x200000, 1));
    assert_null(far_find(&bed.far, 0x200000, 2));
    bed_fini(&bed);
}

/* For far sides that ask for more than they use. */
static void test_writable_is_readable(void **state)
{
    (void)state;
    for (unsigned lenient = 0; lenient < 2; lenient++) {
        struct viommu_vhost_config config;
        struct bed bed;

        bed_init(&bed);
        config = bed_config(&bed);
        config.fd = bed_pair(&bed);
        config.writable_is_readable = lenient;
        assert_int_equal(viommu_vhost_create(&config, &bed.vhost), 0);
        bed_run(&bed);
        bed_start_ring(&bed, 0, 0x100000);
        bed_map(&bed, 0x200000, 0x50000, SPEC_W);
        bed_map(&bed, 0x201000, 0x52000, SPEC_R);
        far_miss(&bed.far, 0x200000, 3);
        far_miss(&bed.far, 0x201000, 3);
        bed_run(&bed);
        assert_int_equal(far_find(&bed.far, 0x200000, 3) != NULL, lenient);
        assert_null(far_find(&bed.far, 0x201000, 1));
        assert_int_equal(bed_faults(&bed), lenient ? 1 : 2);
        /* What is only to be read is as the tables say. */
        far_miss(&bed.far, 0x201000, 1);
        bed_run(&bed);
        assert_non_null(far_find(&bed.far, 0x201000, 1));
        assert_null(far_find(&bed.far, 0x201000, 2));
        bed_fini(&bed);
    }
}

/* A part of a large page is invalidated: all of the page goes, also what another UPDATE told. */
static void test_large_page_goes_whole(void **state)
{
    const struct vhost_iotlb_msg *message;
    struct viommu_memory_slot extra;
    struct bed bed;

    (void)state;
    bed_start(&bed);
    bed_map_large(&bed, 0x400000, 0x200000);
    far_miss(&bed.far, 0x412345, 3);
    bed_run(&bed);
    message = far_last(&bed.far, VHOST_IOTLB_UPDATE);
    assert_true(message->iova == 0x400000 && message->size == 0x200000);
    bed_flush_begin(&bed, 0x5ff000, 0);
    bed_run(&bed);
    assert_true(bed_flushed(&bed));
    message = far_last(&bed.far, VHOST_IOTLB_INVALIDATE);
    assert_true(message->iova == 0x400000 && message->size == 0x200000);

    /* Held only as far as there is memory. */
    extra = bed_slot(&bed, 16, 31, 0);
    extra.first += 1u << 30;
    extra.last += 1u << 30;
    bed_slots(&bed, &extra, 1);
    bed_run(&bed);
    bed_map_large(&bed, 0x600000, 1u << 30);
    far_miss(&bed.far, 0x618123, 1);
    bed_run(&bed);
    message = far_last(&bed.far, VHOST_IOTLB_UPDATE);
    assert_true(message->iova == 0x610000 && message->size == 0x10000);
    bed_fini(&bed);
}

/* Some back-ends ignore an UPDATE that begins where they have something. */
static void test_run_leaves_held_alone(void **state)
{
    const struct vhost_iotlb_msg *message;
    struct bed bed;

    (void)state;
    bed_start(&bed);
    bed_map(&bed, 0x200000, 0x50000, SPEC_R);
    far_miss(&bed.far, 0x200000, 1);
    bed_run(&bed);
    bed_map(&bed, 0x201000, 0x51000, SPEC_R);
    bed_map(&bed, 0x202000, 0x52000, SPEC_R);
    far_miss(&bed.far, 0x202000, 1);
    bed_run(&bed);
    message = far_last(&bed.far, VHOST_IOTLB_UPDATE);
    assert_true(message->iova == 0x201000 && message->size == 0x2000);
    assert_non_null(far_find(&bed.far, 0x201000, 1));
    /* It forgot: it is told the same again. */
    far_drop(&bed.far, 0x201000, 0x2000);
    far_miss(&bed.far, 0x202000, 1);
    bed_run(&bed);
    message = far_last(&bed.far, VHOST_IOTLB_UPDATE);
    assert_true(message->iova == 0x201000 && message->size == 0x2000);
    /* And what comes before something held ends there: it is dropped by itself. */
    bed_map(&bed, 0x301000, 0x71000, SPEC_R);
    far_miss(&bed.far, 0x301000, 1);
    bed_run(&bed);
    bed_map(&bed, 0x300000, 0x70000, SPEC_R);
    far_miss(&bed.far, 0x300000, 1);
    bed_run(&bed);
    message = far_last(&bed.far, VHOST_IOTLB_UPDATE);
    assert_true(message->iova == 0x300000 && message->size == 0x1000);
    bed_flush_begin(&bed, 0x300000, 0);
    bed_run(&bed);
    assert_null(far_find(&bed.far, 0x300000, 1));
    /* Only the target changed. */
    bed_map(&bed, 0x202000, 0x60000, SPEC_R);
    bed_flush_begin(&bed, 0x202000, 0);
    bed_run(&bed);
    far_miss(&bed.far, 0x202000, 1);
    bed_run(&bed);
    message = far_last(&bed.far, VHOST_IOTLB_UPDATE);
    assert_true(message->iova == 0x202000 && message->size == 0x1000);
    bed_fini(&bed);
}

/* What cannot be remembered is dropped, all of it; nothing is answered that may be held. */
static void test_more_than_is_remembered(void **state)
{
    struct bed bed;

    (void)state;
    bed_start(&bed);
    for (uint64_t i = 0; i < VHOST_HELD_MAX + 10; i++) {
        bed_map(&bed, 0x400000 + i * 0x2000, 0x50000, SPEC_R);
        far_miss(&bed.far, 0x400000 + i * 0x2000, 1);
        bed_run(&bed);
        assert_non_null(far_find(&bed.far, 0x400000 + i * 0x2000, 1));
    }
    assert_true(bed.far.entry_count < 100);
    assert_non_null(far_find(&bed.far, 0x100000, 3)); /* the ring is there again */
    assert_int_equal(bed_statistics(&bed).invalidations, 1);
    bed_fini(&bed);
}

static void assert_ring_is_told(struct bed *bed, uint64_t iova)
{
    for (unsigned i = 0; i < 3; i++) {
        assert_non_null(far_find(&bed->far, iova + i * 0x1000, 3));
    }
}

/* To make room for one ring it is told to drop another, which was told before. */
static void test_ring_drops_another(void **state)
{
    struct bed bed;

    (void)state;
    bed_start(&bed);
    bed_start_ring(&bed, 1, 0x108000);
    /* Of each ring there are three pieces. */
    for (uint64_t at = 0x400000; bed.vhost->held.count < VHOST_HELD_MAX; at += 0x2000) {
        bed_map(&bed, at, 0x50000, SPEC_R);
        far_miss(&bed.far, at, 1);
        bed_run(&bed);
    }
    /* It loses both, and asks for so much that there is room for the first only. */
    bed_flush_begin(&bed, 0x100000, 4);
    for (uint64_t at = 0x200000; at < 0x208000; at += 0x2000) {
        bed_map(&bed, at, 0x50000, SPEC_R);
        far_miss(&bed.far, at, 1);
    }
    bed_run(&bed);
    bed_wait(&bed, 2);
    assert_true(bed_flushed(&bed));
    assert_true(bed.far.entry_count < 100); /* all that was dropped */
    assert_ring_is_told(&bed, 0x100000);
    assert_ring_is_told(&bed, 0x108000);
    bed_fini(&bed);
}

/* An INVALIDATE of our own is not acknowledged yet: a guest's for the same waits, too. */
static void test_own_invalidation_is_waited_for(void **state)
{
    struct bed bed;

    (void)state;
    bed_start(&bed);
    bed_map(&bed, 0x200000, 0x50000, SPEC_R);
    far_miss(&bed.far, 0x200000, 1);
    bed_run(&bed);
    bed.far.silent = true;
    bed_map(&bed, 0x200000, 0x50000, SPEC_R | SPEC_W);
    far_miss(&bed.far, 0x200000, 2);
    (void)viommu_vhost_process(bed.vhost);
    bed_unmap(&bed, 0x200000);
    bed_flush_begin(&bed, 0x200000, 0);
    bed_flush_begin(&bed, 0x200000, 0);
    assert_false(bed_flushed(&bed));
    bed_run(&bed);
    assert_false(bed_flushed(&bed));
    far_pay(&bed.far);
    bed_run(&bed);
    assert_true(bed_flushed(&bed));
    assert_null(far_find(&bed.far, 0x200000, 1));
    bed_fini(&bed);
}

/* Another requester id: nothing old is held, though nobody invalidates. */
static void test_another_id(void **state)
{
    struct bed bed;

    (void)state;
    bed_start(&bed);
    bed_map(&bed, 0x200000, 0x50000, SPEC_R);
    far_miss(&bed.far, 0x200000, 1);
    bed_run(&bed);
    assert_int_equal(viommu_device_set_requester(bed.device, 0x20), 0);
    bed_run(&bed);
    assert_int_equal(bed.far.entry_count, 0);
    assert_int_equal(bed_faults(&bed), 0);
    /* When it is in the same tables its ring is found again. */
    guest_attach(&bed.guest, 0x20, 1, bed.table, FAR_LEVELS, SPEC_TT_UNTRANSLATED);
    bed_wait(&bed, 1000);
    assert_non_null(far_find(&bed.far, 0x102000, 3));
    bed_fini(&bed);
}

static void test_ring_is_told_anew(void **state)
{
    struct bed bed;

    (void)state;
    bed_start(&bed);
    bed_flush_begin(&bed, 0x100000, 2);
    bed_run(&bed);
    assert_true(bed_flushed(&bed));
    bed_run(&bed);
    for (uint64_t at = 0x100000; at < 0x103000; at += 0x1000) {
        assert_non_null(far_find(&bed.far, at, 3));
    }
    bed_fini(&bed);
}

/* It drops what begins where an invalidation ends. */
static void test_ring_behind_an_invalidation(void **state)
{
    struct bed bed;

    (void)state;
    bed_start(&bed);
    bed_map(&bed, 0xff000, 0x50000, 3);
    far_miss(&bed.far, 0xff000, 1);
    bed_run(&bed);
    bed_flush_begin(&bed, 0xff000, 0);
    bed_run(&bed);
    assert_true(bed_flushed(&bed));
    assert_ring_is_told(&bed, 0x100000);
    bed_fini(&bed);
}

static void test_ring_stops(void **state)
{
    struct bed bed;

    (void)state;
    bed_start(&bed);
    bed.far.rings[0].base = 77;
    assert_int_equal(viommu_vhost_ring_stop(bed.vhost, 1), -EINVAL);
    assert_int_equal(viommu_vhost_ring_stop(bed.vhost, 0), 0);
    assert_int_equal(viommu_vhost_ring_stop(bed.vhost, 0), -EINVAL);
    bed_run(&bed);
    assert_int_equal(bed.stopped, 1);
    assert_int_equal(bed.stopped_at, 77);
    assert_false(bed.far.rings[0].enabled);
    bed_start_ring(&bed, 0, 0x100000);
    assert_true(bed.far.rings[0].enabled);
    bed_fini(&bed);
}

static void test_far_side_leaves(void **state)
{
    struct bed bed;
    int fd;

    (void)state;
    bed_start(&bed);
    bed_map(&bed, 0x200000, 0x50000, SPEC_R);
    far_miss(&bed.far, 0x200000, 1);
    bed_run(&bed);
    bed.far.silent = true;
    bed_flush_begin(&bed, 0x200000, 0);
    assert_false(bed_flushed(&bed));
    far_close(&bed.far);
    bed_run(&bed);
    assert_int_equal(bed.failed, 1);
    assert_int_equal(bed.error, -ECONNRESET);
    assert_true(bed_flushed(&bed));
    assert_int_equal(viommu_vhost_state(bed.vhost), VIOMMU_VHOST_FAILED);

    /* Another one goes on where the used ring says, which the device has to be let in to read. */
    fd = bed_pair(&bed);
    assert_int_equal(viommu_vhost_reconnect(bed.vhost, fd), -EPERM);
    assert_int_equal(viommu_device_reset(bed.device), 0);
    ((uint16_t *)guest_host(&bed.guest, bed.used))[1] = 4711;
    assert_int_equal(viommu_vhost_reconnect(bed.vhost, fd), 0);
    bed_run(&bed);
    assert_int_equal(viommu_vhost_state(bed.vhost), VIOMMU_VHOST_READY);
    assert_int_equal(bed.ready, 2);
    assert_true(bed.far.rings[0].enabled);
    assert_int_equal(bed.far.rings[0].base, 4711);
    assert_non_null(far_find(&bed.far, 0x102000, 3));
    bed_fini(&bed);
}

static bool same_eventfd(int one, int other)
{
    const uint64_t three = 3;
    uint64_t count = 0;

    assert_int_equal(write(one, &three, sizeof(three)), sizeof(three));
    assert_int_equal(fcntl(other, F_SETFL, O_NONBLOCK), 0);
    return read(other, &count, sizeof(count)) == sizeof(count) && count == 3;
}

static int lowest_free(void)
{
    int fd = dup(STDERR_FILENO);

    assert_true(fd >= 0);
    close(fd);
    return fd;
}

/* Another back-end gets other eventfds, where its front-end has some for it. */
static void test_eventfds_are_renewed(void **state)
{
    int kick, call;
    unsigned fds;
    struct rlimit limit, none;
    struct bed bed;

    (void)state;
    bed_start(&bed);
    kick = eventfd(0, EFD_CLOEXEC);
    call = eventfd(0, EFD_CLOEXEC);
    assert_int_equal(viommu_vhost_ring_renew(bed.vhost, 0, kick, call), -EBUSY);
    far_close(&bed.far);
    bed_run(&bed);
    assert_int_equal(viommu_vhost_state(bed.vhost), VIOMMU_VHOST_FAILED);
    assert_int_equal(viommu_vhost_ring_renew(bed.vhost, 1, kick, call), -EINVAL); /* never ran */
    assert_int_equal(viommu_vhost_ring_renew(bed.vhost, 99, kick, call), -EINVAL);
    assert_int_equal(viommu_vhost_ring_renew(bed.vhost, 0, -2, call), -EINVAL);
    assert_int_equal(viommu_vhost_ring_renew(bed.vhost, 0, kick, -2), -EINVAL);
    fds = bed_open_fds();
    /* Room for none, and for one. */
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    for (unsigned room = 0; room < 2; room++) {
        none = limit;
        none.rlim_cur = (rlim_t)lowest_free() + room;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
        assert_int_equal(viommu_vhost_ring_renew(bed.vhost, 0, kick, call), -EMFILE);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
        assert_int_equal(bed_open_fds(), fds);
    }
    assert_int_equal(viommu_vhost_ring_renew(bed.vhost, 0, kick, call), 0);
    assert_int_equal(bed_open_fds(), fds);
    assert_int_equal(viommu_device_reset(bed.device), 0);
    assert_int_equal(viommu_vhost_reconnect(bed.vhost, bed_pair(&bed)), 0);
    bed_run(&bed);
    assert_true(bed.far.rings[0].enabled);
    assert_true(same_eventfd(kick, bed.far.rings[0].kick));
    assert_true(same_eventfd(call, bed.far.rings[0].call));
    /* None at all is possible, too. */
    far_close(&bed.far);
    bed_run(&bed);
    assert_int_equal(viommu_vhost_ring_renew(bed.vhost, 0, -1, -1), 0);
    assert_int_equal(viommu_device_reset(bed.device), 0);
    assert_int_equal(viommu_vhost_reconnect(bed.vhost, bed_pair(&bed)), 0);
    bed_run(&bed);
    assert_true(bed.far.rings[0].enabled);
    assert_int_equal(bed.far.rings[0].kick, -1);
    close(kick);
    close(call);
    bed_fini(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_negotiates),
        cmocka_unit_test(test_refuses_what_lacks_something),
        cmocka_unit_test(test_answers_what_is_missed),
        cmocka_unit_test(test_invalidation_waits_for_acknowledgement),
        cmocka_unit_test(test_denied_is_healed),
        cmocka_unit_test(test_many_are_denied),
        cmocka_unit_test(test_denied_by_what_is_asked),
        cmocka_unit_test(test_denied_ends_with_rings),
        cmocka_unit_test(test_rom_is_read_only),
        cmocka_unit_test(test_writable_is_readable),
        cmocka_unit_test(test_large_page_goes_whole),
        cmocka_unit_test(test_run_leaves_held_alone),
        cmocka_unit_test(test_more_than_is_remembered),
        cmocka_unit_test(test_ring_drops_another),
        cmocka_unit_test(test_own_invalidation_is_waited_for),
        cmocka_unit_test(test_another_id),
        cmocka_unit_test(test_ring_is_told_anew),
        cmocka_unit_test(test_ring_behind_an_invalidation),
        cmocka_unit_test(test_ring_stops),
        cmocka_unit_test(test_far_side_leaves),
        cmocka_unit_test(test_eventfds_are_renewed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
