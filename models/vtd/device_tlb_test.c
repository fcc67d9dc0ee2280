/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of device-TLB invalidations in the queue: what a device is told, how pending ones overlap,
 * fences, time-outs (ITE), wrong answers (ICE), resets and removals in the middle.
 */
#include "base/alloc.h"
#include "notify/notify.h"
#include "range/pow2.h"
#include "vtd/test_unit.h"

#include <errno.h>

#define CALLS 1400
#define EVERYTHING ((~0ull >> 1 & ~0xfffull) | 1) /* all address bits but the top one, and S */

/* A device-TLB: what it was told, and how it answers. */
struct tlb {
    struct viommu_subscriber *subscriber;
    int answer;
    unsigned count;
    struct viommu_change calls[CALLS];
};

static int on_change(void *opaque, const struct viommu_change *change)
{
    struct tlb *tlb = opaque;

    if (tlb->count < CALLS) {
        tlb->calls[tlb->count] = *change;
    }
    tlb->count++;
    return tlb->answer;
}

static void subscribe(struct viommu_device *device, struct tlb *tlb, int answer)
{
    struct viommu_subscription what = {
        .kinds = VIOMMU_CHANGE_DEVICE_TLB, .change = on_change, .opaque = tlb};

    *tlb = (struct tlb){.answer = answer};
    assert_int_equal(viommu_device_subscribe(device, &what, &tlb->subscriber), 0);
}

/* A translating unit with the queue on, whose device answers so. */
static void tlb_init(struct unit *unit, struct tlb *tlb, int answer)
{
    unit_init(unit, &(struct viommu_vtd_config){.device_tlb = true});
    unit_translate_as(unit, SPEC_TT_ALL);
    guest_queue_on(&unit->guest);
    subscribe(unit->device, tlb, answer);
}

static void complete(struct unit *unit, const struct tlb *tlb, unsigned i, int status)
{
    assert_int_equal(viommu_change_complete(unit->guest.iommu, tlb->calls[i].token, status), 0);
    guest_process(&unit->guest);
}

static uint32_t status_word(struct unit *unit)
{
    return (uint32_t)guest_load(&unit->guest, unit->guest.status);
}

static void submit_wait(struct unit *unit, unsigned flags, uint32_t value)
{
    unit_submit(unit, spec_wait(SPEC_WAIT_STATUS | flags, unit->guest.status, value));
}

static uint32_t fsts(struct unit *unit)
{
    return (uint32_t)guest_read(&unit->guest, SPEC_FSTS, 4);
}

static void test_told(void **state)
{
    struct unit unit;
    struct tlb tlb;

    (void)state;
    tlb_init(&unit, &tlb, 0);
    unit_submit(&unit, spec_device_tlb_invalidate(unit.id, 0x123000, 0));
    assert_int_equal(tlb.count, 1);
    assert_int_equal(tlb.calls[0].kind, VIOMMU_CHANGE_DEVICE_TLB);
    assert_int_equal(tlb.calls[0].requester, unit.id);
    assert_int_equal(tlb.calls[0].first, 0x123000);
    assert_int_equal(tlb.calls[0].last, 0x123fff);
    assert_int_equal(unit_head(&unit), 1);
    /* Of another requester it is not told. */
    unit_submit(&unit, spec_device_tlb_invalidate(unit.id + 1, 0x123000, 0));
    assert_int_equal(tlb.count, 1);
    assert_int_equal(unit_head(&unit), 2);
    unit_fini(&unit);
}

static void test_ranges(void **state)
{
    struct unit unit;
    struct tlb tlb;

    (void)state;
    tlb_init(&unit, &tlb, 0);
    for (unsigned order = 0; order <= 51; order++) {
        uint64_t first = 0xabcdef0123456000 & ~((1ull << (order + 12)) - 1);

        unit_submit(&unit, spec_device_tlb_invalidate(unit.id, first, order));
        assert_int_equal(tlb.calls[order].first, first);
        assert_int_equal(tlb.calls[order].last, first + ((1ull << (order + 12)) - 1));
    }
    /* Everything: all address bits but the top one set. */
    unit_submit(&unit, (struct spec_descriptor){3 | (uint64_t)unit.id << 32, EVERYTHING});
    assert_int_equal(tlb.calls[52].first, 0);
    assert_int_equal(tlb.calls[52].last, ~0ull);
    /* Without the size bit those are an address. */
    unit_submit(&unit, (struct spec_descriptor){3 | (uint64_t)unit.id << 32, ~0xfffull});
    assert_int_equal(tlb.calls[53].first, ~0xfffull);
    assert_int_equal(tlb.calls[53].last, ~0ull);
    unit_fini(&unit);
}

/* Pending ones overlap; head and wait tell of them in order. */
static void test_order_of_completion(void **state)
{
    struct unit unit;
    struct tlb tlb;
    struct viommu_stats stats;

    (void)state;
    tlb_init(&unit, &tlb, VIOMMU_PENDING);
    for (unsigned i = 0; i < 3; i++) {
        unit_submit(&unit, spec_device_tlb_invalidate(unit.id, i << 12, 0));
    }
    submit_wait(&unit, 0, 1);
    assert_int_equal(tlb.count, 3);
    assert_int_equal(unit_head(&unit), 0);
    complete(&unit, &tlb, 1, 0);
    assert_int_equal(unit_head(&unit), 0);
    complete(&unit, &tlb, 0, 0);
    assert_int_equal(unit_head(&unit), 2);
    assert_int_equal(status_word(&unit), 0);
    complete(&unit, &tlb, 2, 0);
    assert_int_equal(unit_head(&unit), 4);
    assert_int_equal(status_word(&unit), 1);
    viommu_stats_get(unit.guest.iommu, &stats, sizeof(stats));
    assert_int_equal(stats.acks_pending, 3);
    assert_int_equal(stats.device_tlb_invalidations, 3);
    assert_int_equal(fsts(&unit), 0);
    unit_fini(&unit);
}

/* A wait without the fence lets later ones start; with it they stay back until it has completed. */
static void test_fence(void **state)
{
    static const unsigned flags[] = {0, SPEC_WAIT_FENCE};

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct unit unit;
        struct tlb tlb;

        tlb_init(&unit, &tlb, VIOMMU_PENDING);
        unit_submit(&unit, spec_device_tlb_invalidate(unit.id, 0, 0));
        submit_wait(&unit, flags[i], 1);
        unit_submit(&unit, spec_device_tlb_invalidate(unit.id, 0x1000, 0));
        assert_int_equal(tlb.count, flags[i] ? 1 : 2);
        complete(&unit, &tlb, 0, 0);
        assert_int_equal(status_word(&unit), 1);
        assert_int_equal(tlb.count, 2);
        assert_int_equal(unit_head(&unit), 2);
        complete(&unit, &tlb, 1, 0);
        assert_int_equal(unit_head(&unit), 3);
        unit_fini(&unit);
    }
}

/* A bad descriptor behind a pending one is reported when it is the first that is left. */
static void test_error_behind_a_pending_one(void **state)
{
    struct unit unit;
    struct tlb tlb;

    (void)state;
    tlb_init(&unit, &tlb, VIOMMU_PENDING);
    unit_submit(&unit, spec_device_tlb_invalidate(unit.id, 0, 0));
    unit_submit(&unit, (struct spec_descriptor){0, 0});
    assert_int_equal(unit_head(&unit), 0);
    complete(&unit, &tlb, 0, 0);
    assert_int_equal(fsts(&unit) & SPEC_IQE, SPEC_IQE);
    assert_int_equal(unit_head(&unit), 1);
    unit_fini(&unit);
}

/* Translation requests that began before are over when the device is told. */
static void test_device_is_told_after_the_drain(void **state)
{
    struct unit unit;
    struct tlb tlb;

    (void)state;
    tlb_init(&unit, &tlb, 0);
    assert_int_equal(viommu_dma_begin(unit.guest.iommu), 0);
    unit_submit(&unit, spec_device_tlb_invalidate(unit.id, 0, 0));
    assert_int_equal(tlb.count, 0);
    viommu_dma_end(unit.guest.iommu);
    guest_process(&unit.guest);
    assert_int_equal(tlb.count, 1);
    assert_int_equal(unit_head(&unit), 1);
    unit_fini(&unit);
}

/* Translated requests under way when the device answered hold the completion back. */
static void test_completion_waits_for_translated_requests(void **state)
{
    struct unit unit;
    struct tlb tlb;

    (void)state;
    tlb_init(&unit, &tlb, VIOMMU_PENDING);
    unit_submit(&unit, spec_device_tlb_invalidate(unit.id, 0, 0));
    assert_int_equal(viommu_dma_begin(unit.guest.iommu), 0);
    complete(&unit, &tlb, 0, 0);
    assert_int_equal(unit_head(&unit), 0);
    viommu_dma_end(unit.guest.iommu);
    guest_process(&unit.guest);
    assert_int_equal(unit_head(&unit), 1);
    unit_fini(&unit);
}

/* More pending ones than the unit keeps: the rest waits its turn. */
static void test_many_pending(void **state)
{
    struct unit unit;
    struct tlb tlb;
    unsigned done = 0;

    (void)state;
    tlb_init(&unit, &tlb, VIOMMU_PENDING);
    for (unsigned i = 0; i < 380; i++) {
        while (unit.guest.queue_tail == (unit_head(&unit) + 255) % 256) { /* full */
            assert_true(done < tlb.count);
            complete(&unit, &tlb, done++, 0);
        }
        unit_submit(&unit, spec_device_tlb_invalidate(unit.id, (uint64_t)i << 12, 0));
    }
    while (done < tlb.count) {
        assert_int_equal(tlb.calls[done].first, (uint64_t)done << 12);
        complete(&unit, &tlb, done++, 0);
    }
    assert_int_equal(done, 380);
    assert_int_equal(unit_head(&unit), unit.guest.queue_tail);
    unit_fini(&unit);
}

/* ---- failures -------------------------------------------------------------------------------- */

/*
 * No answer in time: ITE with the device's id, waits that were pending are aborted, nothing is
 * fetched
 * until software has cleared it; the device is denied.
 */
static void test_time_out(void **state)
{
    struct unit unit;
    struct guest *guest = &unit.guest;
    struct tlb tlb;
    struct viommu_stats stats;

    (void)state;
    tlb_init(&unit, &tlb, VIOMMU_PENDING);
    unit_fault_message(&unit, 0xfee00000, 9);
    unit_submit(&unit, spec_device_tlb_invalidate(unit.id, 0, 0));
    submit_wait(&unit, 0, 1);
    unit.now += 499 * UNIT_MS;
    guest_process(guest);
    assert_int_equal(fsts(&unit), 0);
    unit.now += 2 * UNIT_MS;
    guest_process(guest);
    assert_int_equal(fsts(&unit), SPEC_ITE);
    assert_int_equal(guest_read(guest, SPEC_IQERCD, 8) >> 32 & 0xffff, unit.id);
    assert_int_equal(unit.interrupt_count, 1);
    /* Later ones are not fetched, the wait is never done. */
    submit_wait(&unit, 0, 2);
    assert_int_equal(status_word(&unit), 0);
    assert_int_equal(unit_read(&unit, 0), -EPERM);
    guest_write(guest, SPEC_FSTS, 4, SPEC_ITE);
    guest_process(guest);
    assert_int_equal(status_word(&unit), 2);
    assert_int_equal(unit_head(&unit), 3);
    assert_int_equal(fsts(&unit), 0);
    viommu_stats_get(guest->iommu, &stats, sizeof(stats));
    assert_int_equal(stats.acks_timed_out, 1);
    assert_int_equal(stats.waits_completed, 1);
    assert_int_equal(viommu_change_complete(guest->iommu, tlb.calls[0].token, 0), -ENOENT);
    unit_fini(&unit);
}

static void test_events_of_a_time_out(void **state)
{
    struct unit unit;
    struct tlb tlb;

    (void)state;
    tlb_init(&unit, &tlb, VIOMMU_PENDING);
    unit_submit(&unit, spec_device_tlb_invalidate(unit.id, 0x7000, 0));
    unit.now += 501 * UNIT_MS;
    guest_process(&unit.guest);
    assert_int_equal(unit.event_count, 2);
    assert_int_equal(unit.events[0].kind, VIOMMU_EVENT_FENCED);
    assert_int_equal(unit.events[0].requester, unit.id);
    assert_int_equal(unit.events[0].error, -ETIMEDOUT);
    assert_int_equal(unit.events[0].first, 0x7000);
    assert_int_equal(unit.events[0].last, 0x7fff);
    assert_int_equal(unit.events[1].kind, VIOMMU_EVENT_DENIED);
    assert_int_equal(unit.events[1].requester, unit.id);
    /* Fenced, it is told no more; after a reset of the device it is. */
    guest_write(&unit.guest, SPEC_FSTS, 4, SPEC_ITE);
    tlb.answer = 0;
    unit_submit(&unit, spec_device_tlb_invalidate(unit.id, 0, 0));
    assert_int_equal(tlb.count, 1);
    assert_int_equal(viommu_device_reset(unit.device), 0);
    unit_submit(&unit, spec_device_tlb_invalidate(unit.id, 0, 0));
    assert_int_equal(tlb.count, 2);
    assert_int_equal(unit_head(&unit), 3);
    unit_fini(&unit);
}

/* Of two devices that do not answer the first one's id is told. */
static void test_first_time_out_is_kept(void **state)
{
    struct unit unit;
    struct guest *guest = &unit.guest;
    struct viommu_device_config config = {.requester = viommu_requester(1, 0, 0), .ats = true};
    struct viommu_device *other;
    struct tlb tlbs[2];

    (void)state;
    tlb_init(&unit, &tlbs[0], VIOMMU_PENDING);
    assert_int_equal(viommu_device_add(guest->iommu, &config, &other), 0);
    subscribe(other, &tlbs[1], VIOMMU_PENDING);
    unit_submit(&unit, spec_device_tlb_invalidate(config.requester, 0, 0));
    unit.now += 100 * UNIT_MS;
    unit_submit(&unit, spec_device_tlb_invalidate(unit.id, 0, 0));
    unit.now += 450 * UNIT_MS;
    guest_process(guest);
    unit.now += 100 * UNIT_MS;
    guest_process(guest);
    assert_int_equal(fsts(&unit) & SPEC_ITE, SPEC_ITE);
    assert_int_equal(guest_read(guest, SPEC_IQERCD, 8) >> 32 & 0xffff, config.requester);
    unit_fini(&unit);
}

/* An answer that is an error: ICE with the device's id, and processing goes on. */
static void test_wrong_answer(void **state)
{
    struct unit unit;
    struct guest *guest = &unit.guest;
    struct tlb tlb;

    (void)state;
    tlb_init(&unit, &tlb, -EIO);
    unit_fault_message(&unit, 0xfee00000, 9);
    unit_submit(&unit, spec_device_tlb_invalidate(unit.id, 0, 0));
    assert_int_equal(fsts(&unit), SPEC_ICE);
    assert_int_equal(guest_read(guest, SPEC_IQERCD, 8) >> 48, unit.id);
    assert_int_equal(unit.interrupt_count, 1);
    submit_wait(&unit, 0, 5);
    assert_int_equal(status_word(&unit), 5);
    assert_int_equal(unit_read(&unit, 0), -EPERM);
    assert_int_equal(unit.events[0].kind, VIOMMU_EVENT_FENCED);
    assert_int_equal(unit.events[0].error, -EIO);
    guest_write(guest, SPEC_FSTS, 4, SPEC_ICE);
    assert_int_equal(fsts(&unit), 0);
    unit_fini(&unit);
}

static void test_wrong_answer_later(void **state)
{
    struct unit unit;
    struct tlb tlb;

    (void)state;
    tlb_init(&unit, &tlb, VIOMMU_PENDING);
    unit_submit(&unit, spec_device_tlb_invalidate(unit.id, 0, 0));
    submit_wait(&unit, 0, 5);
    complete(&unit, &tlb, 0, -ENODEV);
    assert_int_equal(fsts(&unit), SPEC_ICE);
    assert_int_equal(status_word(&unit), 5);
    assert_int_equal(unit.events[0].error, -ENODEV);
    unit_fini(&unit);
}

/* Without memory to tell a device, it is taken as one that cannot follow. */
static void test_no_memory_to_tell(void **state)
{
    struct unit unit;
    struct tlb tlb;

    (void)state;
    tlb_init(&unit, &tlb, 0);
    base_alloc_fail_at(1);
    unit_submit(&unit, spec_device_tlb_invalidate(unit.id, 0, 0));
    assert_true(base_alloc_failed());
    base_alloc_fail_at(0);
    assert_int_equal(tlb.count, 0);
    assert_int_equal(unit_read(&unit, 0), -EPERM);
    assert_int_equal(unit.events[0].kind, VIOMMU_EVENT_FENCED);
    assert_int_equal(unit.events[0].error, -ENOMEM);
    submit_wait(&unit, 0, 5);
    assert_int_equal(status_word(&unit), 5);
    unit_fini(&unit);
}

/* ---- in the middle --------------------------------------------------------------------------- */

static void test_reset(void **state)
{
    struct unit unit;
    struct guest *guest = &unit.guest;
    struct tlb tlb;

    (void)state;
    tlb_init(&unit, &tlb, VIOMMU_PENDING);
    unit_submit(&unit, spec_device_tlb_invalidate(unit.id, 0, 0));
    submit_wait(&unit, SPEC_WAIT_INTERRUPT, 1);
    assert_int_equal(viommu_reset(guest->iommu), 0);
    assert_int_equal(unit_head(&unit), 0);
    assert_int_equal(guest_read(guest, SPEC_GSTS, 4), 0);
    assert_int_equal(viommu_change_complete(guest->iommu, tlb.calls[0].token, 0), -ENOENT);
    unit.now += 1000 * UNIT_MS;
    guest_process(guest);
    assert_int_equal(status_word(&unit), 0);
    assert_int_equal(fsts(&unit), 0);
    assert_int_equal(unit.event_count, 0);
    /* Everything works anew; the subscriber is still there. */
    tlb.answer = 0;
    guest_set_root(guest);
    guest_queue_on(guest);
    unit_submit(&unit, spec_device_tlb_invalidate(unit.id, 0, 0));
    assert_int_equal(tlb.count, 2);
    submit_wait(&unit, 0, 2);
    assert_int_equal(status_word(&unit), 2);
    unit_fini(&unit);
}

/* A denied device is admitted by a reset of the platform. */
static void test_reset_admits(void **state)
{
    struct unit unit;
    struct tlb tlb;

    (void)state;
    tlb_init(&unit, &tlb, -EIO);
    unit_submit(&unit, spec_device_tlb_invalidate(unit.id, 0, 0));
    assert_int_equal(unit_read(&unit, 0), -EPERM);
    assert_int_equal(viommu_reset(unit.guest.iommu), 0);
    assert_int_equal(unit_read(&unit, 0), 0);
    unit_fini(&unit);
}

/* A device, or a subscriber, that goes counts as having answered. */
static void test_removal(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct unit unit;
        struct tlb tlb;

        tlb_init(&unit, &tlb, VIOMMU_PENDING);
        unit_submit(&unit, spec_device_tlb_invalidate(unit.id, 0, 0));
        submit_wait(&unit, 0, 3);
        assert_int_equal(i ? viommu_device_remove(unit.device)
                           : viommu_subscriber_destroy(tlb.subscriber), 0);
        guest_process(&unit.guest);
        assert_int_equal(status_word(&unit), 3);
        assert_int_equal(fsts(&unit), 0);
        assert_int_equal(viommu_change_complete(unit.guest.iommu, tlb.calls[0].token, 0), -ENOENT);
        unit_fini(&unit);
    }
}

/* Destroyed with one pending: nothing is left behind (a sanitizer looks). */
static void test_destroy(void **state)
{
    struct unit unit;
    struct tlb tlb;

    (void)state;
    tlb_init(&unit, &tlb, VIOMMU_PENDING);
    unit_submit(&unit, spec_device_tlb_invalidate(unit.id, 0, 0));
    submit_wait(&unit, 0, 3);
    assert_int_equal(tlb.count, 1);
    unit_fini(&unit);
}

/* Register commands complete when the queue's earlier ones have: turning the queue off waits. */
static void test_disable_waits_for_devices(void **state)
{
    struct unit unit;
    struct guest *guest = &unit.guest;
    struct tlb tlb;

    (void)state;
    tlb_init(&unit, &tlb, VIOMMU_PENDING);
    unit_submit(&unit, spec_device_tlb_invalidate(unit.id, 0, 0));
    guest_write(guest, SPEC_GCMD, 4, SPEC_TE);
    guest_process(guest);
    assert_true(guest_read(guest, SPEC_GSTS, 4) & SPEC_QIE);
    complete(&unit, &tlb, 0, 0);
    assert_false(guest_read(guest, SPEC_GSTS, 4) & SPEC_QIE);
    assert_true(guest_read(guest, SPEC_GSTS, 4) & SPEC_TE);
    unit_fini(&unit);
}

/* With a budget of one there is one descriptor, and one call of a subscriber, in each turn. */
static void test_budget(void **state)
{
    struct unit unit;
    struct guest *guest = &unit.guest;
    struct tlb tlb;
    unsigned calls = 0;

    (void)state;
    tlb_init(&unit, &tlb, 0);
    for (unsigned i = 0; i < 5; i++) {
        guest_queue_put(guest, spec_device_tlb_invalidate(unit.id, 0, 0));
    }
    guest_queue_kick(guest);
    while (viommu_process(guest->iommu, 1) == VIOMMU_PENDING) {
        calls++;
        assert_true(tlb.count <= calls);
        assert_true(calls < 100);
    }
    assert_true(calls >= 5);
    assert_int_equal(tlb.count, 5);
    assert_int_equal(unit_head(&unit), 5);
    unit_fini(&unit);
}

/*
 * A subscriber whose range is cut into many blocks, and which answers late: what is outstanding
 * stays bounded, and the queue goes on as answers come.
 */
static void test_outstanding_is_bounded(void **state)
{
    static struct tlb tlb;
    struct unit unit;
    struct viommu_subscription what = {
        .kinds = VIOMMU_CHANGE_DEVICE_TLB,
        .range = {0x1000, ~0ull - 0x1000},
        .change = on_change,
        .opaque = &tlb,
    };

    (void)state;
    unit_init(&unit, &(struct viommu_vtd_config){.device_tlb = true});
    unit_translate_as(&unit, SPEC_TT_ALL);
    guest_queue_on(&unit.guest);
    tlb = (struct tlb){.answer = VIOMMU_PENDING};
    assert_int_equal(viommu_device_subscribe(unit.device, &what, &tlb.subscriber), 0);
    for (unsigned i = 0; i < 50; i++) {
        guest_queue_put(&unit.guest,
                        (struct spec_descriptor){3 | (uint64_t)unit.id << 32, EVERYTHING});
    }
    submit_wait(&unit, 0, 7);
    for (unsigned rounds = 0; status_word(&unit) != 7; rounds++) {
        unsigned told = tlb.count;

        assert_in_range(told, 1, NOTIFY_OUTSTANDING_MAX + POW2_BLOCKS_MAX);
        assert_in_range(rounds, 0, 50);
        tlb.count = 0;
        for (unsigned i = 0; i < told; i++) {
            uint64_t token = tlb.calls[i].token;

            assert_int_equal(viommu_change_complete(unit.guest.iommu, token, 0), 0);
        }
        guest_process(&unit.guest);
    }
    unit_fini(&unit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_told),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_order_of_completion),
        cmocka_unit_test(test_fence),
        cmocka_unit_test(test_error_behind_a_pending_one),
        cmocka_unit_test(test_device_is_told_after_the_drain),
        cmocka_unit_test(test_completion_waits_for_translated_requests),
        cmocka_unit_test(test_many_pending),
        cmocka_unit_test(test_time_out),
        cmocka_unit_test(test_events_of_a_time_out),
        cmocka_unit_test(test_first_time_out_is_kept),
        cmocka_unit_test(test_wrong_answer),
        cmocka_unit_test(test_wrong_answer_later),
        cmocka_unit_test(test_no_memory_to_tell),
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_reset_admits),
        cmocka_unit_test(test_removal),
        cmocka_unit_test(test_destroy),
        cmocka_unit_test(test_disable_waits_for_devices),
        cmocka_unit_test(test_budget),
        cmocka_unit_test(test_outstanding_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
