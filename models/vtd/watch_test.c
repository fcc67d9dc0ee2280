/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of watching a unit: each kind of observation is told once, in order, with what it says;
 * nobody is told when nobody watches.
 */
#include "vtd/test_unit.h"

#include <errno.h>
#include <string.h>

#define SEEN_MAX 256
#define IOVA 0x40000ull

static struct {
    struct viommu_observation all[SEEN_MAX];
    unsigned count;
    unsigned next; /* the first that no expectation has met */
    struct viommu_event event;
} seen;

static const struct viommu_vtd_config defaults;

static void observe(void *opaque, const struct viommu_observation *observation)
{
    assert_ptr_equal(opaque, &seen);
    assert_true(seen.count < SEEN_MAX);
    seen.all[seen.count++] = *observation;
    if (observation->event) {
        seen.event = *observation->event;
    }
}

static void watch(struct unit *unit)
{
    struct viommu_watcher watcher = {.observe = observe, .opaque = &seen};

    memset(&seen, 0, sizeof(seen));
    assert_int_equal(viommu_watch(unit->guest.iommu, &watcher), 0);
}

/* The next observation is this one, but for its number and time, which are checked here. */
static void expect(const struct unit *unit, struct viommu_observation wanted)
{
    struct viommu_observation *got = &seen.all[seen.next];

    assert_true(seen.next < seen.count);
    assert_int_equal(got->index, ++seen.next);
    assert_int_equal(got->time, unit->now);
    assert_int_equal(got->kind, wanted.kind);
    wanted.index = got->index;
    wanted.time = got->time;
    wanted.event = got->event;
    assert_int_equal(got->offset, wanted.offset);
    assert_int_equal(got->value, wanted.value);
    assert_int_equal(got->low, wanted.low);
    assert_int_equal(got->high, wanted.high);
    assert_int_equal(got->iova, wanted.iova);
    assert_int_equal(got->gpa, wanted.gpa);
    assert_int_equal(got->mask, wanted.mask);
    assert_int_equal(got->size, wanted.size);
    assert_int_equal(got->slot, wanted.slot);
    assert_int_equal(got->reason, wanted.reason);
    assert_int_equal(got->wanted, wanted.wanted);
    assert_int_equal(got->perm, wanted.perm);
    assert_int_equal(got->type, wanted.type);
    assert_int_equal(got->requester, wanted.requester);
    assert_int_equal(got->error, wanted.error);
}

static void expect_write(const struct unit *unit, uint64_t offset, unsigned size, uint64_t value)
{
    expect(unit, (struct viommu_observation){.kind = VIOMMU_OBSERVED_WRITE,
                                             .offset = offset,
                                             .size = size,
                                             .value = value});
}

static void expect_descriptor(const struct unit *unit, enum viommu_observed kind, uint32_t slot,
                              struct spec_descriptor descriptor)
{
    expect(unit, (struct viommu_observation){
                     .kind = kind, .slot = slot, .low = descriptor.lo, .high = descriptor.hi});
}

static void expect_no_more(void)
{
    assert_int_equal(seen.next, seen.count);
}

static void test_registers_and_commands(void **state)
{
    struct unit unit;
    struct guest *guest = &unit.guest;

    (void)state;
    unit_init(&unit, &defaults);
    watch(&unit);
    unit.now = 12345;
    guest_write(guest, SPEC_RTADDR, 8, 0x5000);
    guest_write(guest, SPEC_GCMD, 4, 0xffffffff00000000 | SPEC_SRTP);
    expect_write(&unit, SPEC_RTADDR, 8, 0x5000);
    expect_write(&unit, SPEC_GCMD, 4, SPEC_SRTP); /* what lies outside of the access is cut off */
    expect_no_more();
    unit.now++;
    guest_process(guest);
    expect(&unit, (struct viommu_observation){
                      .kind = VIOMMU_OBSERVED_COMMAND, .offset = SPEC_GCMD, .value = SPEC_SRTP});
    expect(&unit, (struct viommu_observation){
                      .kind = VIOMMU_OBSERVED_COMPLETED, .offset = SPEC_GCMD, .value = SPEC_SRTP});
    expect_no_more();
    assert_int_equal(viommu_reset(guest->iommu), 0);
    expect(&unit, (struct viommu_observation){.kind = VIOMMU_OBSERVED_RESET});
    /* Reads are not told, nor what lies outside of the arguments' range. */
    guest_read(guest, SPEC_GSTS, 4);
    assert_int_equal(viommu_mmio_write(guest->iommu, 0, 9, 0), -EINVAL);
    expect_no_more();
    unit_fini(&unit);
}

static void test_register_invalidation(void **state)
{
    uint64_t request = 1ull << 63 | 1ull << 60 | 7ull << 32; /* IVT, global, domain 7 */
    struct unit unit;
    struct guest *guest = &unit.guest;
    uint64_t offset;

    (void)state;
    unit_init(&unit, &defaults);
    offset = guest->iotlb_offset + 8; /* IVA comes first */
    watch(&unit);
    guest_write(guest, offset, 8, request);
    guest_process(guest);
    expect_write(&unit, offset, 8, request);
    expect(&unit, (struct viommu_observation){.kind = VIOMMU_OBSERVED_COMMAND,
                                              .offset = offset,
                                              .value = request,
                                              .low = 0x12 | 7 << 16});
    expect(&unit, (struct viommu_observation){.kind = VIOMMU_OBSERVED_COMPLETED,
                                              .offset = offset,
                                              .value = guest_read(guest, offset, 8)});
    /* One that is refused only completes. */
    guest_write(guest, SPEC_CCMD, 8, 1ull << 63);
    guest_process(guest);
    expect_write(&unit, SPEC_CCMD, 8, 1ull << 63);
    expect(&unit,
           (struct viommu_observation){.kind = VIOMMU_OBSERVED_COMPLETED, .offset = SPEC_CCMD});
    expect_no_more();
    unit_fini(&unit);
}

static void test_queue(void **state)
{
    struct spec_descriptor flush = spec_iotlb_invalidate(SPEC_GLOBAL, 0, 0, 0, false);
    struct spec_descriptor bad = {.lo = 0xf, .hi = 99};
    struct spec_descriptor wait;
    struct unit unit;
    struct guest *guest = &unit.guest;

    (void)state;
    unit_init(&unit, &defaults);
    guest_queue_on(guest);
    unit_completion_message(&unit, 0xfee01000, 0x41);
    wait = spec_wait(SPEC_WAIT_STATUS | SPEC_WAIT_INTERRUPT, guest->status, 5);
    watch(&unit);
    guest_queue_put(guest, flush);
    guest_queue_put(guest, wait);
    guest_queue_put(guest, bad);
    guest_queue_kick(guest);
    guest_process(guest);
    expect_write(&unit, SPEC_IQT, 8, 3 << 4);
    expect_descriptor(&unit, VIOMMU_OBSERVED_DESCRIPTOR, 0, flush);
    expect_descriptor(&unit, VIOMMU_OBSERVED_DESCRIPTOR, 1, wait);
    expect_descriptor(&unit, VIOMMU_OBSERVED_RETIRED, 0, flush);
    expect(&unit, (struct viommu_observation){.kind = VIOMMU_OBSERVED_MESSAGE,
                                              .offset = SPEC_IECTL,
                                              .gpa = 0xfee01000,
                                              .value = 0x41});
    expect_descriptor(&unit, VIOMMU_OBSERVED_RETIRED, 1, wait);
    expect(&unit, (struct viommu_observation){.kind = VIOMMU_OBSERVED_REFUSED,
                                              .slot = 2,
                                              .low = bad.lo,
                                              .high = bad.hi,
                                              .reason = 3});
    expect_no_more();
    unit_fini(&unit);
}

/* What cannot be read is refused without anything in it. */
static void test_queue_without_memory(void **state)
{
    struct unit unit;
    struct guest *guest = &unit.guest;

    (void)state;
    unit_init(&unit, &defaults);
    guest_write(guest, SPEC_IQA, 8, 1ull << 40);
    guest_command(guest, SPEC_QIE, true);
    watch(&unit);
    guest_write(guest, SPEC_IQT, 4, 1 << 4);
    guest_process(guest);
    expect_write(&unit, SPEC_IQT, 4, 1 << 4);
    expect(&unit, (struct viommu_observation){.kind = VIOMMU_OBSERVED_REFUSED, .reason = 2});
    expect_no_more();
    unit_fini(&unit);
}

static void test_misses_and_faults(void **state)
{
    struct unit unit;
    uint64_t page;

    (void)state;
    unit_init(&unit, &defaults);
    unit_translate(&unit);
    page = guest_page(&unit.guest);
    unit_map(&unit, IOVA, page, 1, SPEC_R);
    watch(&unit);
    assert_int_equal(unit_read(&unit, IOVA + 8), 0);
    expect(&unit, (struct viommu_observation){.kind = VIOMMU_OBSERVED_MISS,
                                              .requester = unit.id,
                                              .iova = IOVA + 8,
                                              .gpa = page + 8,
                                              .mask = 0xfff,
                                              .wanted = VIOMMU_READ,
                                              .perm = VIOMMU_READ});
    /* The second is answered from the cache. */
    assert_int_equal(unit_read(&unit, IOVA + 16), 0);
    expect_no_more();
    assert_int_equal(unit_write(&unit, IOVA), -EFAULT);
    expect(&unit, (struct viommu_observation){.kind = VIOMMU_OBSERVED_FAULT,
                                              .requester = unit.id,
                                              .iova = IOVA,
                                              .wanted = VIOMMU_WRITE,
                                              .reason = SPEC_WRITE});
    expect(&unit, (struct viommu_observation){.kind = VIOMMU_OBSERVED_MISS,
                                              .requester = unit.id,
                                              .iova = IOVA,
                                              .wanted = VIOMMU_WRITE,
                                              .error = -EFAULT});
    expect_no_more();
    unit_fini(&unit);
}

static void test_fault_records_and_message(void **state)
{
    struct viommu_vtd_config config = {.fault_records = 2};
    struct viommu_observation fault = {.kind = VIOMMU_OBSERVED_FAULT,
                                       .iova = IOVA,
                                       .wanted = VIOMMU_READ,
                                       .reason = SPEC_READ};
    struct viommu_observation miss = {.kind = VIOMMU_OBSERVED_MISS,
                                      .iova = IOVA,
                                      .wanted = VIOMMU_READ,
                                      .error = -EFAULT};
    struct unit unit;

    (void)state;
    unit_init(&unit, &config);
    unit_translate(&unit);
    unit_fault_message(&unit, 0xfee02000, 0x42);
    watch(&unit);
    fault.requester = miss.requester = unit.id;
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(unit_read(&unit, IOVA), -EFAULT);
        fault.slot = i < 2 ? i : 0;
        fault.error = i < 2 ? 0 : -ENOSPC;
        expect(&unit, fault);
        if (i == 0) {
            expect(&unit, (struct viommu_observation){.kind = VIOMMU_OBSERVED_MESSAGE,
                                                      .offset = SPEC_FECTL,
                                                      .gpa = 0xfee02000,
                                                      .value = 0x42});
        }
        expect(&unit, miss);
    }
    expect_no_more();
    unit_fini(&unit);
}

static void test_translation_request(void **state)
{
    struct viommu_vtd_config config = {.device_tlb = true};
    struct viommu_device_config with_ats = {.requester = 0x0108, .ats = true};
    struct viommu_ats_entry entries[4];
    struct viommu_device *device;
    struct unit unit;
    uint64_t page;

    (void)state;
    unit_init(&unit, &config);
    guest_ok(viommu_device_add(unit.guest.iommu, &with_ats, &device), "device");
    unit_translate_as(&unit, SPEC_TT_ALL);
    page = guest_page(&unit.guest);
    unit_map(&unit, IOVA, page, 1, SPEC_R | SPEC_W);
    guest_attach(&unit.guest, 0x0108, UNIT_DOMAIN, unit.table, unit.levels, SPEC_TT_ALL);
    watch(&unit);
    /* A run of entries is one request. */
    assert_int_equal(viommu_device_ats_translate(device, NULL, IOVA, 0x4000, false, entries, 4), 1);
    expect(&unit, (struct viommu_observation){.kind = VIOMMU_OBSERVED_MISS,
                                              .requester = 0x0108,
                                              .type = VIOMMU_DMA_TRANSLATION,
                                              .iova = IOVA,
                                              .gpa = page,
                                              .mask = 0xfff,
                                              .wanted = VIOMMU_READ | VIOMMU_WRITE,
                                              .perm = VIOMMU_READ | VIOMMU_WRITE});
    expect_no_more();
    unit_fini(&unit);
}

/* ---- a device that does not answer: the wait is given up, and there are events */

static int no_answer(void *opaque, const struct viommu_change *change)
{
    (void)opaque;
    (void)change;
    return VIOMMU_PENDING;
}

static void test_given_up_and_events(void **state)
{
    struct viommu_vtd_config config = {.device_tlb = true};
    struct viommu_device_config with_ats = {.requester = 0x0108, .ats = true};
    struct viommu_subscription what = {.kinds = VIOMMU_CHANGE_DEVICE_TLB, .change = no_answer};
    struct spec_descriptor flush = spec_device_tlb_invalidate(0x0108, IOVA, 0);
    struct spec_descriptor wait;
    struct viommu_subscriber *subscriber;
    struct viommu_device *device;
    struct unit unit;
    struct guest *guest = &unit.guest;

    (void)state;
    unit_init(&unit, &config);
    guest_queue_on(guest);
    guest_ok(viommu_device_add(guest->iommu, &with_ats, &device), "device");
    guest_ok(viommu_device_subscribe(device, &what, &subscriber), "subscribe");
    wait = spec_wait(SPEC_WAIT_STATUS, guest->status, 1);
    watch(&unit);
    guest_queue_put(guest, flush);
    guest_queue_put(guest, wait);
    guest_queue_kick(guest);
    guest_process(guest);
    expect_write(&unit, SPEC_IQT, 8, 2 << 4);
    expect_descriptor(&unit, VIOMMU_OBSERVED_DESCRIPTOR, 0, flush);
    expect_descriptor(&unit, VIOMMU_OBSERVED_DESCRIPTOR, 1, wait);
    expect_no_more();
    unit.now += 1000 * UNIT_MS;
    guest_process(guest);
    expect(&unit, (struct viommu_observation){.kind = VIOMMU_OBSERVED_EVENT,
                                              .requester = 0x0108,
                                              .error = seen.all[seen.next].error});
    expect(&unit, (struct viommu_observation){.kind = VIOMMU_OBSERVED_EVENT,
                                              .requester = 0x0108,
                                              .error = seen.all[seen.next].error});
    assert_int_equal(seen.event.requester, 0x0108);
    assert_true(seen.event.kind == VIOMMU_EVENT_DENIED || seen.event.kind == VIOMMU_EVENT_FENCED);
    expect_descriptor(&unit, VIOMMU_OBSERVED_RETIRED, 0, flush);
    expect(&unit, (struct viommu_observation){.kind = VIOMMU_OBSERVED_RETIRED,
                                              .slot = 1,
                                              .low = wait.lo,
                                              .high = wait.hi,
                                              .error = -ETIMEDOUT});
    expect_no_more();
    unit_fini(&unit);
}

/* ---- who watches */

static void test_nobody(void **state)
{
    struct viommu_watcher nothing = {.opaque = &seen};
    struct unit unit;
    struct guest *guest = &unit.guest;

    (void)state;
    unit_init(&unit, &defaults);
    watch(&unit);
    assert_int_equal(viommu_watch(guest->iommu, &nothing), -EINVAL);
    guest_write(guest, SPEC_RTADDR, 8, 0x5000);
    expect_write(&unit, SPEC_RTADDR, 8, 0x5000); /* the refused call changed nothing */
    assert_int_equal(viommu_watch(guest->iommu, NULL), 0);
    assert_int_equal(viommu_watch(guest->iommu, NULL), 0);
    unit_translate(&unit);
    assert_int_equal(unit_read(&unit, IOVA), -EFAULT);
    assert_int_equal(viommu_reset(guest->iommu), 0);
    expect_no_more();
    /* The next one counts from 1. */
    watch(&unit);
    guest_write(guest, SPEC_RTADDR, 8, 0x6000);
    expect_write(&unit, SPEC_RTADDR, 8, 0x6000);
    expect_no_more();
    unit_fini(&unit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_registers_and_commands),
        cmocka_unit_test(test_register_invalidation),
        cmocka_unit_test(test_queue),
        cmocka_unit_test(test_queue_without_memory),
        cmocka_unit_test(test_misses_and_faults),
        cmocka_unit_test(test_fault_records_and_message),
        cmocka_unit_test(test_translation_request),
        cmocka_unit_test(test_given_up_and_events),
        cmocka_unit_test(test_nobody),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
