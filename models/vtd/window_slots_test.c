/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of pinned windows whose memory is replaced by other memory at the same guest addresses
 * while an invalidation looks at them: the tables say what they said, and the window leads
 * somewhere else.
 */
#include "iommu/iommu.h"
#include "vtd/test_unit.h"

#include <pthread.h>
#include <semaphore.h>

#define RW    (SPEC_R | SPEC_W)
#define IOVA  0x40000000ull
#define FIRST 0x80000000ull /* of the slot: two pages */
#define OTHER 0x90000000ull /* of another one */

static uint8_t host[3][0x2000] __attribute__((aligned(4096)));

static struct unit unit;
static struct viommu_window *window;
static unsigned revoked;

static void on_revoke(void *opaque)
{
    (void)opaque;
    revoked++;
}

static uint64_t kept(void)
{
    struct viommu_stats stats;

    viommu_stats_get(unit.guest.iommu, &stats, sizeof(stats));
    return stats.windows_kept;
}

static struct viommu_memory_slot slot(uint64_t first, unsigned which)
{
    return (struct viommu_memory_slot){
        .first = first, .last = first + 0x1fff, .host = host[which], .fd = -1};
}

/* Removes the slot at an address, and adds another where there is one. */
static int change_memory(uint64_t first, uint64_t last, const struct viommu_memory_slot *added)
{
    struct viommu_memory_batch *batch;

    guest_ok(viommu_memory_batch_begin(unit.guest.memory, &batch), "batch");
    if (last) {
        guest_ok(viommu_memory_batch_remove(batch, first, last), "removal");
    }
    if (added) {
        guest_ok(viommu_memory_batch_add(batch, added), "slot");
    }
    return viommu_memory_batch_commit(batch, NULL, NULL);
}

static void pin(uint32_t perm)
{
    const struct viommu_range range = {IOVA + 0x1000, IOVA + 0x1fff};
    const struct viommu_window_request request = {
        .ranges = &range, .count = 1, .perm = perm, .revoke = on_revoke};
    struct iovec iov;
    size_t count = 1;

    assert_int_equal(viommu_device_pin(unit.device, NULL, &request, &iov, &count, &window), 0);
    assert_ptr_equal(iov.iov_base, host[0] + 0x1000);
}

static sem_t begun;
static sem_t to_end;

static void *hold_section(void *opaque)
{
    (void)opaque;
    guest_ok(viommu_dma_begin(unit.guest.iommu), "section");
    sem_post(&begun);
    sem_wait(&to_end);
    viommu_dma_end(unit.guest.iommu);
    return NULL;
}

/*
 * The guest drops everything. A section of another thread holds the command back until one of this
 * thread has begun, which holds back the batch only: the window is looked at when memory is another
 * already, and nobody has asked for it because of that.
 */
static void drop_everything(void)
{
    pthread_t thread;

    sem_init(&begun, 0, 0);
    sem_init(&to_end, 0, 0);
    assert_int_equal(pthread_create(&thread, NULL, hold_section, NULL), 0);
    sem_wait(&begun);
    guest_write(&unit.guest, unit.guest.iotlb_offset + 8, 8, 1ull << 63 | 1ull << 60);
    for (unsigned i = 0; i < 8; i++) {
        (void)viommu_process(unit.guest.iommu, 0);
    }
    guest_ok(viommu_dma_begin(unit.guest.iommu), "section");
    sem_post(&to_end);
    assert_int_equal(pthread_join(thread, NULL), 0);
    sem_destroy(&begun);
    sem_destroy(&to_end);
}

/* `same`: the window still leads where it led when the slot at `first` was replaced, or went. */
static void check(uint32_t perm, uint64_t first, const struct viommu_memory_slot *added, bool same)
{
    struct viommu_memory_slot slots[] = {slot(FIRST, 0), slot(OTHER, 1)};

    unit_init(&unit, &(struct viommu_vtd_config){0});
    revoked = 0;
    guest_ok(change_memory(0, 0, &slots[0]), "memory");
    guest_ok(change_memory(0, 0, &slots[1]), "memory");
    unit_translate(&unit);
    unit_map(&unit, IOVA, FIRST, 1, RW);
    unit_map(&unit, IOVA + 0x1000, FIRST + 0x1000, 1, RW);
    pin(perm);
    drop_everything();
    assert_int_equal(kept(), 0);
    assert_int_equal(change_memory(first, first + 0x1fff, added), VIOMMU_PENDING);
    guest_process(&unit.guest);
    assert_int_equal(revoked, !same);
    assert_int_equal(kept(), same);
    assert_int_equal(guest_read(&unit.guest, unit.guest.iotlb_offset + 8, 8) >> 63, !same);
    viommu_dma_end(unit.guest.iommu);
    (void)viommu_memory_process(unit.guest.memory);
    guest_process(&unit.guest);
    assert_int_equal(revoked, !same);
    viommu_window_release(window);
    guest_process(&unit.guest);
    assert_int_equal(viommu_memory_process(unit.guest.memory), 0);
    assert_int_equal(guest_read(&unit.guest, unit.guest.iotlb_offset + 8, 8) >> 63, 0);
    unit_fini(&unit);
}

static void test_another(void **state)
{
    struct viommu_memory_slot added = slot(FIRST, 2);

    (void)state;
    check(VIOMMU_READ, FIRST, &added, false);
    check(VIOMMU_WRITE, FIRST, &added, false);
}

static void test_gone(void **state)
{
    (void)state;
    check(VIOMMU_READ, FIRST, NULL, false);
}

/* The same memory, of which writes are refused now. */
static void test_rom(void **state)
{
    struct viommu_memory_slot added = slot(FIRST, 0);

    (void)state;
    added.flags = VIOMMU_MEMORY_READONLY;
    check(VIOMMU_WRITE, FIRST, &added, false);
    check(VIOMMU_READ | VIOMMU_WRITE, FIRST, &added, false);
    check(VIOMMU_READ, FIRST, &added, true);
}

/* The pinned page is where it was, in a slot that ends elsewhere, or begins elsewhere. */
static void test_borders(void **state)
{
    struct viommu_memory_slot longer = slot(FIRST, 0);
    struct viommu_memory_slot shorter = slot(FIRST, 0);

    (void)state;
    longer.last += 0x1000;
    check(VIOMMU_READ, FIRST, &longer, false);
    shorter.first += 0x1000;
    shorter.host = host[0] + 0x1000;
    check(VIOMMU_READ, FIRST, &shorter, false);
    shorter.host = host[0]; /* the pinned page leads to what the one before it led to */
    check(VIOMMU_READ, FIRST, &shorter, false);
}

/* Another slot goes: the window leads where it led. */
static void test_elsewhere(void **state)
{
    struct viommu_memory_slot added = slot(OTHER, 2);

    (void)state;
    check(VIOMMU_READ, OTHER, &added, true);
    check(VIOMMU_WRITE, OTHER, NULL, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_another),   cmocka_unit_test(test_gone),
        cmocka_unit_test(test_rom),       cmocka_unit_test(test_borders),
        cmocka_unit_test(test_elsewhere),
    };

    return cmocka_run_group_tests_name("vtd_window_slots", tests, NULL, NULL);
}
