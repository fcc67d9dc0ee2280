/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of fault recording: the records' ring, overflow, the fault event with its pending and
 * mask bits,
 * what a record says. Which reason each mistake has is in context_test.c and translate_test.c.
 */
#include "vtd/test_unit.h"

#define IOVA 0x12345000ull

/* A translating unit whose tables are empty: every request faults. */
static void fault_init(struct unit *unit, unsigned records)
{
    unit_init(unit, &(struct viommu_vtd_config){.fault_records = (uint16_t)records});
    unit_translate(unit);
}

static unsigned fri(struct unit *unit)
{
    return (unsigned)(guest_read(&unit->guest, SPEC_FSTS, 4) >> 8 & 0xff);
}

static uint32_t events(struct unit *unit)
{
    return (uint32_t)guest_read(&unit->guest, SPEC_FSTS, 4) & 0xff;
}

static uint32_t control(struct unit *unit)
{
    return (uint32_t)guest_read(&unit->guest, SPEC_FECTL, 4);
}

static void fault(struct unit *unit)
{
    assert_int_not_equal(unit_read(unit, IOVA), 0);
}

static void test_record(void **state)
{
    struct unit unit;
    struct guest *guest = &unit.guest;

    (void)state;
    fault_init(&unit, 8);
    assert_int_not_equal(unit_read(&unit, IOVA + 0x123), 0);
    assert_int_equal(guest_read(guest, guest->fault_offset, 8), IOVA);
    assert_int_equal(unit_record(&unit, 0), SPEC_F | SPEC_T1 | 6ull << 32 | unit.id);
    assert_int_not_equal(unit_write(&unit, IOVA + 0x1008), 0);
    assert_int_equal(guest_read(guest, guest->fault_offset + 16, 8), IOVA + 0x1000);
    assert_int_equal(unit_record(&unit, 1), SPEC_F | 5ull << 32 | unit.id);
    assert_int_equal(fri(&unit), 0);
    unit_fini(&unit);
}

/* Who asks to read and to write at once is an atomic operation. */
static void test_record_of_an_atomic(void **state)
{
    struct unit unit;
    struct viommu_translation out;

    (void)state;
    fault_init(&unit, 8);
    assert_int_not_equal(viommu_device_translate(unit.device, NULL, IOVA,
                                                 VIOMMU_READ | VIOMMU_WRITE, &out), 0);
    assert_int_equal(unit_record(&unit, 0), SPEC_F | SPEC_T1 | SPEC_T2 | 5ull << 32 | unit.id);
    unit_fini(&unit);
}

/* The address is cut at the widest that the unit translates. */
static void test_record_of_a_wide_address(void **state)
{
    struct unit unit;

    (void)state;
    fault_init(&unit, 8);
    assert_int_not_equal(unit_read(&unit, 0xabcd123456789000), 0);
    assert_int_equal(guest_read(&unit.guest, unit.guest.fault_offset, 8), 0x123456789000);
    assert_int_equal(unit_record(&unit, 0) >> 32 & 0xff, 4);
    unit_fini(&unit);
}

/* Records are filled in turn; FRI is the first of those that came since PPF was clear. */
static void test_ring(void **state)
{
    struct unit unit;

    (void)state;
    fault_init(&unit, 4);
    for (unsigned i = 0; i < 13; i++) {
        fault(&unit);
        assert_int_equal(events(&unit), SPEC_PPF);
        assert_int_equal(fri(&unit), i % 4);
        assert_true(unit_record(&unit, i % 4) & SPEC_F);
        unit_clear_record(&unit, i % 4);
        assert_int_equal(events(&unit), 0);
    }
    unit_fini(&unit);
}

static void test_index_of_a_batch(void **state)
{
    struct unit unit;

    (void)state;
    fault_init(&unit, 4);
    fault(&unit);
    unit_clear_record(&unit, 0);
    for (unsigned i = 0; i < 4; i++) {
        fault(&unit);
        assert_int_equal(fri(&unit), 1);
    }
    /* Cleared in order, and PPF stays until the last. */
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(events(&unit), SPEC_PPF);
        unit_clear_record(&unit, (1 + i) % 4);
    }
    assert_int_equal(events(&unit), 0);
    unit_fini(&unit);
}

static void test_overflow(void **state)
{
    struct unit unit;
    struct guest *guest = &unit.guest;
    struct viommu_stats stats;

    (void)state;
    fault_init(&unit, 2);
    fault(&unit);
    fault(&unit);
    assert_int_equal(events(&unit), SPEC_PPF);
    fault(&unit);
    assert_int_equal(events(&unit), SPEC_PPF | SPEC_PFO);
    /* With a record free again the overflow still stops recording... */
    unit_clear_record(&unit, 0);
    fault(&unit);
    assert_false(unit_record(&unit, 0) & SPEC_F);
    /* ...until it is cleared. */
    guest_write(guest, SPEC_FSTS, 4, SPEC_PFO);
    assert_int_equal(events(&unit), SPEC_PPF);
    fault(&unit);
    assert_true(unit_record(&unit, 0) & SPEC_F);
    viommu_stats_get(guest->iommu, &stats, sizeof(stats));
    assert_int_equal(stats.faults_recorded, 3);
    assert_int_equal(stats.faults_lost, 2);
    assert_int_equal(stats.refused, 5);
    unit_fini(&unit);
}

/* The record at the index is in use though others are free: that is an overflow too. */
static void test_overflow_out_of_order(void **state)
{
    struct unit unit;

    (void)state;
    fault_init(&unit, 2);
    fault(&unit);
    fault(&unit);
    unit_clear_record(&unit, 1);
    fault(&unit);
    assert_int_equal(events(&unit), SPEC_PPF | SPEC_PFO);
    unit_fini(&unit);
}

/* Linux ends its handler so, with a bit that is not there any more. */
static void test_linux_clears(void **state)
{
    struct unit unit;

    (void)state;
    fault_init(&unit, 1);
    fault(&unit);
    fault(&unit);
    unit_clear_record(&unit, 0);
    guest_write(&unit.guest, SPEC_FSTS, 4, SPEC_PFO | SPEC_PPF | 1 << 7);
    assert_int_equal(events(&unit), 0);
    fault(&unit);
    assert_int_equal(events(&unit), SPEC_PPF);
    unit_fini(&unit);
}

/* PPF is read-only; a 0 written to F does nothing; other bits of a record cannot be written. */
static void test_record_is_read_only(void **state)
{
    struct unit unit;
    struct guest *guest = &unit.guest;
    uint64_t high;

    (void)state;
    fault_init(&unit, 1);
    fault(&unit);
    high = unit_record(&unit, 0);
    guest_write(guest, SPEC_FSTS, 4, SPEC_PPF);
    guest_write(guest, guest->fault_offset, 8, ~0ull);
    guest_write(guest, guest->fault_offset + 8, 8, ~SPEC_F);
    guest_write(guest, guest->fault_offset + 8, 7, ~0ull);
    assert_int_equal(unit_record(&unit, 0), high);
    assert_int_equal(guest_read(guest, guest->fault_offset, 8), IOVA);
    assert_int_equal(events(&unit), SPEC_PPF);
    /* One byte is enough to clear it; the rest stays. */
    guest_write(guest, guest->fault_offset + 15, 1, 0x80);
    assert_int_equal(unit_record(&unit, 0), high & ~SPEC_F);
    unit_fini(&unit);
}

static void test_all_records(void **state)
{
    static const unsigned counts[] = {1, 2, 3, 8, 255, 256};

    (void)state;
    for (unsigned n = 0; n < sizeof(counts) / sizeof(*counts); n++) {
        struct unit unit;

        fault_init(&unit, counts[n]);
        assert_int_equal(unit.guest.fault_count, counts[n]);
        for (unsigned i = 0; i < counts[n]; i++) {
            assert_int_equal(unit_record(&unit, i), 0);
            fault(&unit);
            assert_true(unit_record(&unit, i) & SPEC_F);
        }
        assert_int_equal(events(&unit), SPEC_PPF);
        /* Behind the last there is nothing. */
        assert_int_equal(guest_read(&unit.guest, unit.guest.fault_offset + 16 * counts[n], 8), 0);
        unit_fini(&unit);
    }
}

/* The index begins again at 0 when translation is turned off. */
static void test_index_resets(void **state)
{
    struct unit unit;

    (void)state;
    fault_init(&unit, 4);
    fault(&unit);
    unit_clear_record(&unit, 0);
    guest_command(&unit.guest, SPEC_TE, false);
    guest_command(&unit.guest, SPEC_TE, true);
    fault(&unit);
    assert_int_equal(fri(&unit), 0);
    assert_true(unit_record(&unit, 0) & SPEC_F);
    unit_fini(&unit);
}

/* ---- the event ------------------------------------------------------------------------------- */

static void test_message(void **state)
{
    struct unit unit;

    (void)state;
    unit_init(&unit, &(struct viommu_vtd_config){.unit_requester = 0x1234});
    unit_translate(&unit);
    unit_fault_message(&unit, 0x1fee0100c, 0x4321);
    fault(&unit);
    assert_int_equal(unit.interrupt_count, 0); /* told by processing, not by DMA */
    guest_process(&unit.guest);
    assert_int_equal(unit.interrupt_count, 1);
    assert_int_equal(unit.interrupts[0].address, 0x1fee0100c);
    assert_int_equal(unit.interrupts[0].data, 0x4321);
    assert_int_equal(unit.interrupts[0].requester, 0x1234);
    assert_true(unit.interrupts[0].from_unit);
    assert_int_equal(control(&unit), 0);
    unit_fini(&unit);
}

/* More faults while software has not cleared the first raise no message; after it they do. */
static void test_one_message_a_batch(void **state)
{
    struct unit unit;

    (void)state;
    fault_init(&unit, 4);
    unit_fault_message(&unit, 0xfee00000, 1);
    for (unsigned i = 0; i < 6; i++) {
        fault(&unit);
        guest_process(&unit.guest);
    }
    assert_int_equal(unit.interrupt_count, 1);
    for (unsigned i = 0; i < 4; i++) {
        unit_clear_record(&unit, i);
    }
    /* The overflow is still there, and holds the event back. */
    assert_int_equal(events(&unit), SPEC_PFO);
    guest_write(&unit.guest, SPEC_FSTS, 4, SPEC_PFO);
    fault(&unit);
    guest_process(&unit.guest);
    assert_int_equal(unit.interrupt_count, 2);
    unit_fini(&unit);
}

static void test_masked(void **state)
{
    struct unit unit;
    struct guest *guest = &unit.guest;

    (void)state;
    fault_init(&unit, 4);
    assert_int_equal(control(&unit), SPEC_IM);
    fault(&unit);
    guest_process(guest);
    assert_int_equal(unit.interrupt_count, 0);
    assert_int_equal(control(&unit), SPEC_IM | SPEC_IP);
    /* IP cannot be written. */
    guest_write(guest, SPEC_FECTL, 4, SPEC_IM);
    assert_int_equal(control(&unit), SPEC_IM | SPEC_IP);
    guest_write(guest, SPEC_FECTL, 4, 0);
    guest_process(guest);
    assert_int_equal(unit.interrupt_count, 1);
    assert_int_equal(control(&unit), 0);
    /* Delivered is delivered: masking and unmasking again sends nothing, though PPF is set. */
    guest_write(guest, SPEC_FECTL, 4, SPEC_IM);
    guest_write(guest, SPEC_FECTL, 4, 0);
    guest_process(guest);
    assert_int_equal(unit.interrupt_count, 1);
    unit_fini(&unit);
}

/* Serviced while masked: nothing is pending any more. */
static void test_withdrawn(void **state)
{
    struct unit unit;
    struct guest *guest = &unit.guest;

    (void)state;
    fault_init(&unit, 4);
    fault(&unit);
    assert_int_equal(control(&unit), SPEC_IM | SPEC_IP);
    unit_clear_record(&unit, 0);
    assert_int_equal(control(&unit), SPEC_IM);
    guest_write(guest, SPEC_FECTL, 4, 0);
    guest_process(guest);
    assert_int_equal(unit.interrupt_count, 0);
    unit_fini(&unit);
}

/* Of two conditions one raises the event, and IP stays while one is left. */
static void test_two_conditions(void **state)
{
    struct unit unit;
    struct guest *guest = &unit.guest;

    (void)state;
    fault_init(&unit, 4);
    guest_queue_on(guest);
    fault(&unit);
    unit_submit(&unit, (struct spec_descriptor){0, 0});
    assert_int_equal(events(&unit), SPEC_PPF | SPEC_IQE);
    assert_int_equal(control(&unit), SPEC_IM | SPEC_IP);
    unit_clear_record(&unit, 0);
    assert_int_equal(control(&unit), SPEC_IM | SPEC_IP);
    guest_queue_off(guest);
    guest_write(guest, SPEC_FSTS, 4, SPEC_IQE);
    assert_int_equal(control(&unit), SPEC_IM);
    unit_fini(&unit);
}

/* One condition that software has not cleared holds back the event of another. */
static void test_second_condition_is_quiet(void **state)
{
    struct unit unit;
    struct guest *guest = &unit.guest;

    (void)state;
    fault_init(&unit, 4);
    guest_queue_on(guest);
    unit_fault_message(&unit, 0xfee00000, 1);
    unit_submit(&unit, (struct spec_descriptor){0, 0});
    assert_int_equal(unit.interrupt_count, 1);
    fault(&unit);
    guest_process(guest);
    assert_int_equal(events(&unit), SPEC_PPF | SPEC_IQE);
    assert_int_equal(unit.interrupt_count, 1);
    unit_clear_record(&unit, 0);
    guest_queue_off(guest);
    guest_write(guest, SPEC_FSTS, 4, SPEC_IQE);
    fault(&unit);
    guest_process(guest);
    assert_int_equal(unit.interrupt_count, 2);
    unit_fini(&unit);
}

/* Several writes in one access: message registers and control together. */
static void test_interrupt_by_wide_write(void **state)
{
    struct unit unit;
    struct guest *guest = &unit.guest;

    (void)state;
    fault_init(&unit, 4);
    guest_write(guest, SPEC_FEADDR, 8, 0xfee00000);
    fault(&unit);
    guest_write(guest, SPEC_FECTL, 8, 0x55ull << 32);
    guest_process(guest);
    assert_int_equal(unit.interrupt_count, 1);
    assert_int_equal(unit.interrupts[0].address, 0xfee00000);
    unit_fini(&unit);
}

/* A message that was sent keeps its address though the registers change before it is handed on. */
static void test_message_is_latched(void **state)
{
    struct unit unit;

    (void)state;
    fault_init(&unit, 4);
    unit_fault_message(&unit, 0xfee00000, 1);
    fault(&unit);
    assert_int_equal(control(&unit), 0);
    unit_fault_message(&unit, 0xfee01000, 2);
    guest_process(&unit.guest);
    assert_int_equal(unit.interrupt_count, 1);
    assert_int_equal(unit.interrupts[0].address, 0xfee00000);
    assert_int_equal(unit.interrupts[0].data, 1);
    unit_fini(&unit);
}

/* A reset forgets records, status and what was pending. */
static void test_reset(void **state)
{
    struct unit unit;
    struct guest *guest = &unit.guest;

    (void)state;
    fault_init(&unit, 2);
    unit_fault_message(&unit, 0xfee00000, 1);
    for (unsigned i = 0; i < 3; i++) {
        fault(&unit);
    }
    assert_int_equal(viommu_reset(guest->iommu), 0);
    guest_process(guest);
    assert_int_equal(unit.interrupt_count, 0);
    assert_int_equal(guest_read(guest, SPEC_FSTS, 4), 0);
    assert_int_equal(unit_record(&unit, 0), 0);
    assert_int_equal(control(&unit), SPEC_IM);
    guest_set_root(guest);
    guest_command(guest, SPEC_TE, true);
    fault(&unit);
    assert_int_equal(fri(&unit), 0);
    unit_fini(&unit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_record),
        cmocka_unit_test(test_record_of_an_atomic),
        cmocka_unit_test(test_record_of_a_wide_address),
        cmocka_unit_test(test_ring),
        cmocka_unit_test(test_index_of_a_batch),
        cmocka_unit_test(test_overflow),
        cmocka_unit_test(test_overflow_out_of_order),
        cmocka_unit_test(test_linux_clears),
        cmocka_unit_test(test_record_is_read_only),
        cmocka_unit_test(test_all_records),
        cmocka_unit_test(test_index_resets),
        cmocka_unit_test(test_message),
        cmocka_unit_test(test_one_message_a_batch),
        cmocka_unit_test(test_masked),
        cmocka_unit_test(test_withdrawn),
        cmocka_unit_test(test_two_conditions),
        cmocka_unit_test(test_second_condition_is_quiet),
        cmocka_unit_test(test_interrupt_by_wide_write),
        cmocka_unit_test(test_message_is_latched),
        cmocka_unit_test(test_reset),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
