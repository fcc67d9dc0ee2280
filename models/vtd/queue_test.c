/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the invalidation queue: every descriptor and its reserved bits, errors and repair, the
 * ring,
 * wait descriptors. How descriptors that wait for devices overlap is in device_tlb_test.c.
 */
#include "vtd/test_unit.h"

#include "base/alloc.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>

/* Reasons in IQERCD. */
enum { BAD_TAIL = 1, BAD_FETCH = 2, BAD_TYPE = 3, BAD_RESERVED = 4, BAD_WIDTH = 5, BAD_MODE = 7 };

static void queue_init(struct unit *unit, const struct viommu_vtd_config *config)
{
    unit_init(unit, config);
    guest_queue_on(&unit->guest);
}

static uint32_t status_word(struct unit *unit)
{
    return (uint32_t)guest_load(&unit->guest, unit->guest.status);
}

static void expect_error(struct unit *unit, unsigned reason, unsigned head)
{
    struct guest *guest = &unit->guest;

    assert_int_equal(guest_read(guest, SPEC_FSTS, 4) & SPEC_IQE, SPEC_IQE);
    assert_int_equal(guest_read(guest, SPEC_IQERCD, 8) & 0xf, reason);
    assert_int_equal(unit_head(unit), head);
}

static void expect_done(struct unit *unit)
{
    assert_int_equal(guest_read(&unit->guest, SPEC_FSTS, 4) & SPEC_IQE, 0);
    assert_int_equal(unit_head(unit), unit->guest.queue_tail);
}

/*
 * Overwrites the descriptor at `index` by a wait, clears the error, as Linux does: fetching
 * resumes.
 */
static void repair(struct unit *unit, unsigned index)
{
    struct guest *guest = &unit->guest;
    uint32_t value = ++guest->status_value;
    struct spec_descriptor wait = spec_wait(SPEC_WAIT_STATUS, guest->status, value);

    guest_store(guest, guest->queue + 16 * index, wait.lo);
    guest_store(guest, guest->queue + 16 * index + 8, wait.hi);
    guest_write(guest, SPEC_FSTS, 4, SPEC_IQE);
    guest_process(guest);
    expect_done(unit);
    assert_int_equal(status_word(unit), value);
}

static void expect_refused(struct unit *unit, struct spec_descriptor descriptor, unsigned reason)
{
    unsigned index = unit->guest.queue_tail;

    unit_submit(unit, descriptor);
    expect_error(unit, reason, index);
    repair(unit, index);
}

static void expect_accepted(struct unit *unit, struct spec_descriptor descriptor)
{
    unit_submit(unit, descriptor);
    expect_done(unit);
}

/* Each descriptor, and which of its bits must be clear. */
struct layout {
    struct spec_descriptor good;
    uint64_t reserved_lo;
    uint64_t reserved_hi;
};

#define BITS(last, first) ((~0ull >> (63 - (last))) & (~0ull << (first)))

static const struct layout layouts[] = {
    {{0x11, 0}, BITS(8, 6) | BITS(15, 12) | BITS(63, 50), ~0ull},
    {{0x12, 0}, BITS(8, 8) | BITS(15, 12) | BITS(63, 32), BITS(11, 7)},
    {{0x32, 0x1000}, BITS(8, 8) | BITS(15, 12) | BITS(63, 32), BITS(11, 7)},
    {{0x3, 0}, BITS(8, 4) | BITS(15, 12) | BITS(31, 21) | BITS(51, 48) | BITS(63, 52), BITS(11, 1)},
    {{0x4, 0}, BITS(8, 5) | BITS(26, 12) | BITS(63, 48), ~0ull},
    {{0x5, 0}, BITS(8, 7) | BITS(31, 12), BITS(1, 0)},
};

static void test_reserved_bits(void **state)
{
    struct unit unit;

    (void)state;
    queue_init(&unit, &(struct viommu_vtd_config){.device_tlb = true});
    for (unsigned i = 0; i < sizeof(layouts) / sizeof(*layouts); i++) {
        expect_accepted(&unit, layouts[i].good);
        for (unsigned bit = 0; bit < 64; bit++) {
            struct spec_descriptor lo = layouts[i].good;
            struct spec_descriptor hi = layouts[i].good;

            lo.lo |= 1ull << bit;
            hi.hi |= 1ull << bit;
            if (layouts[i].reserved_lo >> bit & 1) {
                expect_refused(&unit, lo, BAD_RESERVED);
            }
            if (layouts[i].reserved_hi >> bit & 1) {
                expect_refused(&unit, hi, BAD_RESERVED);
            }
        }
    }
    unit_fini(&unit);
}

static void test_bits_that_may_be_anything(void **state)
{
    static const struct spec_descriptor accepted[] = {
        /* Fields that a global one ignores: ids; drains, address, mask 63, hint. */
        {0x11 | 0xffffull << 16 | 0xffffull << 32 | 3ull << 48, 0},
        {0x12 | 3u << 6 | 0xffffull << 16, ~0ull & ~BITS(11, 7)},
        {0x22 | 3u << 6 | 0xffffull << 16, ~0ull & ~BITS(11, 7)},
        {0x32 | 3u << 6, ~0xfffull | 0x40 | 18},
        {0x3 | 31u << 16 | 0xffffull << 32, ~0xfffull | 1}, /* any number of pending ones */
        {0x4 | 31u << 27 | 0xffffull << 32, 0},
        {0x14 | 31u << 27 | 0xffffull << 32, 0},
        {0x5 | 0xffffffffull << 32, ~3ull}, /* no status write: address and data are ignored */
    };
    struct unit unit;

    (void)state;
    queue_init(&unit, &(struct viommu_vtd_config){.device_tlb = true});
    for (unsigned i = 0; i < sizeof(accepted) / sizeof(*accepted); i++) {
        expect_accepted(&unit, accepted[i]);
    }
    unit_fini(&unit);
}

/* The type has seven bits; only five values mean something. */
static void test_types(void **state)
{
    struct unit unit;

    (void)state;
    queue_init(&unit, &(struct viommu_vtd_config){.device_tlb = true});
    for (unsigned type = 0; type < 128; type++) {
        struct spec_descriptor descriptor = {(type & 15) | (type >> 4) << 9 | 0x10, 0};

        if (type >= 1 && type <= 5) {
            continue;
        }
        expect_refused(&unit, descriptor, BAD_TYPE);
    }
    unit_fini(&unit);
}

static void test_device_tlb_type_needs_the_capability(void **state)
{
    struct unit unit;

    (void)state;
    queue_init(&unit, &(struct viommu_vtd_config){0});
    expect_refused(&unit, spec_device_tlb_invalidate(unit.id, 0, 0), BAD_TYPE);
    unit_fini(&unit);
}

static void test_reserved_values(void **state)
{
    struct unit unit;

    (void)state;
    queue_init(&unit, &(struct viommu_vtd_config){0});
    expect_refused(&unit, (struct spec_descriptor){0x1, 0}, BAD_RESERVED);
    expect_refused(&unit, (struct spec_descriptor){0x2, 0}, BAD_RESERVED);
    for (unsigned mask = 19; mask < 64; mask++) {
        expect_refused(&unit, (struct spec_descriptor){0x32, mask}, BAD_RESERVED);
    }
    unit_fini(&unit);
}

/* What stands before a bad descriptor is done; the bad one and what stands behind it are not. */
static void test_error_in_the_middle(void **state)
{
    struct unit unit;
    struct guest *guest = &unit.guest;

    (void)state;
    queue_init(&unit, &(struct viommu_vtd_config){0});
    guest_queue_put(guest, spec_wait(SPEC_WAIT_STATUS, guest->status, 1));
    guest_queue_put(guest, (struct spec_descriptor){0, 0});
    guest_queue_put(guest, spec_wait(SPEC_WAIT_STATUS, guest->status + 8, 2));
    guest_queue_kick(guest);
    guest_process(guest);
    expect_error(&unit, BAD_TYPE, 1);
    assert_int_equal(status_word(&unit), 1);
    assert_int_equal(guest_load(guest, guest->status + 8), 0);
    /* A new tail while the error is set fetches nothing. */
    guest_queue_put(guest, spec_wait(SPEC_WAIT_STATUS, guest->status + 16, 3));
    guest_queue_kick(guest);
    guest_process(guest);
    expect_error(&unit, BAD_TYPE, 1);
    assert_int_equal(guest_load(guest, guest->status + 16), 0);
    repair(&unit, 1);
    assert_int_equal(guest_load(guest, guest->status + 8), 2);
    assert_int_equal(guest_load(guest, guest->status + 16), 3);
    unit_fini(&unit);
}

/* Clearing the error without a repair finds the same descriptor again, and says so again. */
static void test_error_again(void **state)
{
    struct unit unit;
    struct guest *guest = &unit.guest;

    (void)state;
    queue_init(&unit, &(struct viommu_vtd_config){0});
    unit_fault_message(&unit, 0xfee00000, 0x33);
    unit_submit(&unit, (struct spec_descriptor){0, 0});
    assert_int_equal(unit.interrupt_count, 1);
    assert_int_equal(unit.interrupts[0].data, 0x33);
    guest_write(guest, SPEC_FSTS, 4, SPEC_IQE);
    guest_process(guest);
    expect_error(&unit, BAD_TYPE, 0);
    assert_int_equal(unit.interrupt_count, 2);
    repair(&unit, 0);
    assert_int_equal(unit.interrupt_count, 2);
    unit_fini(&unit);
}

static void test_tail_outside(void **state)
{
    struct unit unit;
    struct guest *guest = &unit.guest;

    (void)state;
    queue_init(&unit, &(struct viommu_vtd_config){0});
    guest_queue_put(guest, spec_wait(SPEC_WAIT_STATUS, guest->status, 1));
    guest_write(guest, SPEC_IQT, 8, 256 << 4);
    guest_process(guest);
    expect_error(&unit, BAD_TAIL, 0);
    assert_int_equal(status_word(&unit), 0);
    /* A tail inside, and it goes on. */
    guest_queue_kick(guest);
    guest_write(guest, SPEC_FSTS, 4, SPEC_IQE);
    guest_process(guest);
    expect_done(&unit);
    assert_int_equal(status_word(&unit), 1);
    unit_fini(&unit);
}

/* Turns the queue on at an address; the register's low bits come with it. */
static void queue_at(struct unit *unit, uint64_t iqa, uint64_t tail)
{
    struct guest *guest = &unit->guest;

    guest_write(guest, SPEC_IQT, 8, tail << 4);
    guest_write(guest, SPEC_IQA, 8, iqa);
    guest_command(guest, SPEC_QIE, true);
    guest_process(guest);
}

static void test_fetch_error(void **state)
{
    struct unit unit;

    (void)state;
    unit_init(&unit, &(struct viommu_vtd_config){0});
    queue_at(&unit, 0x40000000, 1);
    expect_error(&unit, BAD_FETCH, 0);
    /* Off, and on at a good place. */
    guest_command(&unit.guest, SPEC_QIE, false);
    guest_write(&unit.guest, SPEC_FSTS, 4, SPEC_IQE);
    guest_queue_on(&unit.guest);
    expect_accepted(&unit, spec_wait(0, 0, 0));
    unit_fini(&unit);
}

static void test_wide_descriptors(void **state)
{
    struct unit unit;

    (void)state;
    unit_init(&unit, &(struct viommu_vtd_config){0});
    queue_at(&unit, guest_page(&unit.guest) | 1 << 11, 2);
    expect_error(&unit, BAD_WIDTH, 0);
    unit_fini(&unit);
}

static void test_root_table_mode(void **state)
{
    struct unit unit;
    struct guest *guest = &unit.guest;

    (void)state;
    queue_init(&unit, &(struct viommu_vtd_config){0});
    guest_write(guest, SPEC_RTADDR, 8, guest_page(guest) | 1 << 10);
    guest_command(guest, SPEC_SRTP, true);
    unit_submit(&unit, spec_wait(0, 0, 0));
    expect_error(&unit, BAD_MODE, 0);
    unit_fini(&unit);
}

/* A tail that was written before the queue is turned on counts. */
static void test_tail_before_enable(void **state)
{
    struct unit unit;
    struct guest *guest = &unit.guest;

    (void)state;
    queue_init(&unit, &(struct viommu_vtd_config){0});
    guest_queue_off(guest);
    assert_int_equal(unit_head(&unit), 0);
    guest_queue_put(guest, spec_wait(SPEC_WAIT_STATUS, guest->status, 9));
    guest_queue_kick(guest);
    guest_process(guest);
    assert_int_equal(status_word(&unit), 0);
    guest_command(guest, SPEC_QIE, true);
    guest_process(guest);
    assert_int_equal(status_word(&unit), 9);
    expect_done(&unit);
    unit_fini(&unit);
}

/* Off and on again: the head begins at 0. */
static void test_disable_resets_head(void **state)
{
    struct unit unit;

    (void)state;
    queue_init(&unit, &(struct viommu_vtd_config){0});
    expect_accepted(&unit, spec_wait(0, 0, 0));
    assert_int_equal(unit_head(&unit), 1);
    guest_queue_off(&unit.guest);
    assert_int_equal(unit_head(&unit), 0);
    guest_queue_on(&unit.guest);
    guest_queue_wait(&unit.guest);
    assert_int_equal(unit_head(&unit), 1);
    unit_fini(&unit);
}

static void test_wrap(void **state)
{
    struct unit unit;

    (void)state;
    queue_init(&unit, &(struct viommu_vtd_config){0});
    for (unsigned i = 0; i < 700; i++) {
        guest_queue_wait(&unit.guest);
        assert_int_equal(unit_head(&unit), (i + 1) % 256);
    }
    unit_fini(&unit);
}

/* Fills all but one of the queue's entries, then goes round its end. */
static void try_size(unsigned qs)
{
    struct unit unit;
    struct guest *guest = &unit.guest;
    unsigned entries = 256u << qs;

    unit_init(&unit, &(struct viommu_vtd_config){0});
    guest->queue_entries = entries;
    guest->queue = guest_page(guest);
    for (unsigned i = 1; i < 1u << qs; i++) {
        assert_int_equal(guest_page(guest), guest->queue + i * GUEST_PAGE);
    }
    guest->status = guest_page(guest);
    queue_at(&unit, guest->queue | qs, 0);
    for (unsigned i = 0; i < entries - 1; i++) {
        guest_queue_put(guest, spec_wait(0, 0, 0));
    }
    guest_queue_kick(guest);
    guest_process(guest);
    assert_int_equal(unit_head(&unit), entries - 1);
    expect_accepted(&unit, spec_wait(SPEC_WAIT_STATUS, guest->status, 5));
    assert_int_equal(status_word(&unit), 5);
    assert_int_equal(unit_head(&unit), 0);
    expect_accepted(&unit, spec_wait(SPEC_WAIT_STATUS, guest->status, 6));
    assert_int_equal(status_word(&unit), 6);
    guest_write(guest, SPEC_IQT, 8, (uint64_t)entries << 4);
    guest_process(guest);
    if (qs < 7) { /* the register has no more bits */
        expect_error(&unit, BAD_TAIL, 1);
    }
    unit_fini(&unit);
}

static void test_sizes(void **state)
{
    (void)state;
    for (unsigned qs = 0; qs < 8; qs++) {
        try_size(qs);
    }
}

/* ---- wait descriptors ------------------------------------------------------------------------ */

static void test_wait_without_anything(void **state)
{
    struct unit unit;

    (void)state;
    queue_init(&unit, &(struct viommu_vtd_config){0});
    unit_completion_message(&unit, 0xfee00000, 1);
    expect_accepted(&unit, spec_wait(0, unit.guest.status, 77));
    assert_int_equal(status_word(&unit), 0);
    assert_int_equal(unit.interrupt_count, 0);
    assert_int_equal(guest_read(&unit.guest, SPEC_ICS, 4), 0);
    unit_fini(&unit);
}

/* Four bytes are written, no more. */
static void test_wait_status(void **state)
{
    struct unit unit;
    struct guest *guest = &unit.guest;

    (void)state;
    queue_init(&unit, &(struct viommu_vtd_config){0});
    guest_store(guest, guest->status, ~0ull);
    expect_accepted(&unit, spec_wait(SPEC_WAIT_STATUS, guest->status + 4, 0x12345678));
    assert_int_equal(guest_load(guest, guest->status), 0x12345678ffffffff);
    unit_fini(&unit);
}

static void test_wait_interrupt(void **state)
{
    struct unit unit;
    struct guest *guest = &unit.guest;

    (void)state;
    queue_init(&unit, &(struct viommu_vtd_config){.unit_requester = 0xf8});
    unit_completion_message(&unit, 0x1fee00000, 0x77);
    expect_accepted(&unit, spec_wait(SPEC_WAIT_INTERRUPT, guest->status, 5));
    assert_int_equal(status_word(&unit), 0);
    assert_int_equal(unit.interrupt_count, 1);
    assert_int_equal(unit.interrupts[0].address, 0x1fee00000);
    assert_int_equal(unit.interrupts[0].data, 0x77);
    assert_int_equal(unit.interrupts[0].requester, 0xf8);
    assert_true(unit.interrupts[0].from_unit);
    assert_int_equal(guest_read(guest, SPEC_ICS, 4), SPEC_IWC);
    assert_int_equal(guest_read(guest, SPEC_IECTL, 4), 0);
    unit_fini(&unit);
}

/* The status is there when the interrupt comes. */
static void test_wait_both(void **state)
{
    struct unit unit;

    (void)state;
    queue_init(&unit, &(struct viommu_vtd_config){0});
    unit_completion_message(&unit, 0xfee00000, 0x77);
    expect_accepted(&unit, spec_wait(SPEC_WAIT_INTERRUPT | SPEC_WAIT_STATUS, unit.guest.status, 5));
    assert_int_equal(unit.interrupt_count, 1);
    assert_int_equal(unit.status_at_interrupt, 5);
    unit_fini(&unit);
}

/* While IWC is set another completion raises nothing; once it is cleared it does. */
static void test_wait_interrupt_once(void **state)
{
    struct unit unit;
    struct guest *guest = &unit.guest;

    (void)state;
    queue_init(&unit, &(struct viommu_vtd_config){0});
    unit_completion_message(&unit, 0xfee00000, 0x77);
    expect_accepted(&unit, spec_wait(SPEC_WAIT_INTERRUPT, 0, 0));
    expect_accepted(&unit, spec_wait(SPEC_WAIT_INTERRUPT, 0, 0));
    assert_int_equal(unit.interrupt_count, 1);
    guest_write(guest, SPEC_ICS, 4, 0);
    assert_int_equal(guest_read(guest, SPEC_ICS, 4), SPEC_IWC);
    guest_write(guest, SPEC_ICS, 4, SPEC_IWC);
    assert_int_equal(guest_read(guest, SPEC_ICS, 4), 0);
    expect_accepted(&unit, spec_wait(SPEC_WAIT_INTERRUPT, 0, 0));
    assert_int_equal(unit.interrupt_count, 2);
    unit_fini(&unit);
}

/* Masked it is pending; unmasked it goes out, once. */
static void test_wait_interrupt_masked(void **state)
{
    struct unit unit;
    struct guest *guest = &unit.guest;

    (void)state;
    queue_init(&unit, &(struct viommu_vtd_config){0});
    assert_int_equal(guest_read(guest, SPEC_IECTL, 4), SPEC_IM);
    expect_accepted(&unit, spec_wait(SPEC_WAIT_INTERRUPT, 0, 0));
    assert_int_equal(guest_read(guest, SPEC_IECTL, 4), SPEC_IM | SPEC_IP);
    assert_int_equal(unit.interrupt_count, 0);
    guest_write(guest, SPEC_IECTL, 4, 0);
    guest_process(guest);
    assert_int_equal(unit.interrupt_count, 1);
    assert_int_equal(guest_read(guest, SPEC_IECTL, 4), 0);
    unit_fini(&unit);
}

/* What was pending is forgotten when software has seen the status. */
static void test_wait_interrupt_withdrawn(void **state)
{
    struct unit unit;
    struct guest *guest = &unit.guest;

    (void)state;
    queue_init(&unit, &(struct viommu_vtd_config){0});
    expect_accepted(&unit, spec_wait(SPEC_WAIT_INTERRUPT, 0, 0));
    guest_write(guest, SPEC_ICS, 4, SPEC_IWC);
    assert_int_equal(guest_read(guest, SPEC_IECTL, 4), SPEC_IM);
    guest_write(guest, SPEC_IECTL, 4, 0);
    guest_process(guest);
    assert_int_equal(unit.interrupt_count, 0);
    unit_fini(&unit);
}

/* Address bits past the host width are ignored; where no memory is nothing happens. */
static void test_wait_status_address(void **state)
{
    struct unit unit;
    struct guest *guest = &unit.guest;

    (void)state;
    queue_init(&unit, &(struct viommu_vtd_config){.host_address_width = 40});
    expect_accepted(&unit, spec_wait(SPEC_WAIT_STATUS, guest->status | ~0ull << 40, 5));
    assert_int_equal(status_word(&unit), 5);
    expect_accepted(&unit, spec_wait(SPEC_WAIT_STATUS, 0x80000000, 6));
    guest_queue_wait(guest);
    unit_fini(&unit);
}

/* ---- work ------------------------------------------------------------------------------------ */

static void test_budget(void **state)
{
    struct unit unit;
    struct guest *guest = &unit.guest;
    unsigned calls = 0;

    (void)state;
    queue_init(&unit, &(struct viommu_vtd_config){0});
    for (unsigned i = 0; i < 20; i++) {
        guest_queue_put(guest, spec_iotlb_invalidate(SPEC_GLOBAL, 0, 0, 0, false));
    }
    guest_queue_kick(guest);
    while (viommu_process(guest->iommu, 1) == VIOMMU_PENDING) {
        calls++;
        assert_true(unit_head(&unit) <= calls);
        assert_true(calls < 100);
    }
    assert_true(calls >= 19);
    expect_done(&unit);
    unit_fini(&unit);
}

/* DMA under way holds an invalidation open: neither head nor status tells of it before. */
static void test_drain(void **state)
{
    struct unit unit;
    struct guest *guest = &unit.guest;

    (void)state;
    queue_init(&unit, &(struct viommu_vtd_config){0});
    assert_int_equal(viommu_dma_begin(guest->iommu), 0);
    guest_queue_put(guest, spec_iotlb_invalidate(SPEC_GLOBAL, 0, 0, 0, false));
    guest_queue_put(guest, spec_wait(SPEC_WAIT_STATUS, guest->status, 5));
    guest_queue_kick(guest);
    guest_process(guest);
    assert_int_equal(unit_head(&unit), 0);
    assert_int_equal(status_word(&unit), 0);
    viommu_dma_end(guest->iommu);
    guest_process(guest);
    assert_int_equal(status_word(&unit), 5);
    expect_done(&unit);
    unit_fini(&unit);
}

/* The queue turns off only when what was started has retired. */
static void test_disable_waits(void **state)
{
    struct unit unit;
    struct guest *guest = &unit.guest;

    (void)state;
    queue_init(&unit, &(struct viommu_vtd_config){0});
    assert_int_equal(viommu_dma_begin(guest->iommu), 0);
    unit_submit(&unit, spec_iotlb_invalidate(SPEC_GLOBAL, 0, 0, 0, false));
    guest_write(guest, SPEC_GCMD, 4, 0);
    guest_process(guest);
    assert_int_equal(guest_read(guest, SPEC_GSTS, 4) & SPEC_QIE, SPEC_QIE);
    viommu_dma_end(guest->iommu);
    guest_process(guest);
    assert_int_equal(guest_read(guest, SPEC_GSTS, 4) & SPEC_QIE, 0);
    assert_int_equal(unit_head(&unit), 0);
    unit_fini(&unit);
}

static void test_no_queue(void **state)
{
    struct unit unit;
    struct guest *guest = &unit.guest;

    (void)state;
    unit_init(&unit, &(struct viommu_vtd_config){.no_queued_invalidation = true});
    guest_write(guest, SPEC_IQA, 8, guest_page(guest));
    guest_write(guest, SPEC_IQT, 8, 0x10);
    guest_write(guest, SPEC_GCMD, 4, SPEC_QIE);
    guest_process(guest);
    assert_int_equal(guest_read(guest, SPEC_GSTS, 4), 0);
    for (uint64_t offset = SPEC_IQH; offset < 0xb8; offset += 4) {
        assert_int_equal(guest_read(guest, offset, 4), 0);
    }
    unit_fini(&unit);
}

/* Without memory for the processing thread's first section the work is not lost. */
static void *process_without_memory(void *arg)
{
    struct unit *unit = arg;
    int ret;

    base_alloc_fail_at(1);
    ret = viommu_process(unit->guest.iommu, 0);
    base_alloc_fail_at(0);
    return (void *)(intptr_t)ret;
}

static void test_no_memory_for_the_section(void **state)
{
    struct unit unit;
    struct pollfd pollfd = {.events = POLLIN};
    pthread_t thread;
    void *ret;

    (void)state;
    queue_init(&unit, &(struct viommu_vtd_config){0});
    guest_queue_put(&unit.guest, spec_wait(SPEC_WAIT_STATUS, unit.guest.status, 5));
    guest_queue_kick(&unit.guest);
    assert_int_equal(pthread_create(&thread, NULL, process_without_memory, &unit), 0);
    assert_int_equal(pthread_join(thread, &ret), 0);
    assert_int_equal((intptr_t)ret, -ENOMEM);
    assert_int_equal(status_word(&unit), 0);
    pollfd.fd = viommu_event_fd(unit.guest.iommu);
    assert_int_equal(poll(&pollfd, 1, 1000), 1);
    guest_process(&unit.guest);
    assert_int_equal(status_word(&unit), 5);
    unit_fini(&unit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reserved_bits),
        cmocka_unit_test(test_bits_that_may_be_anything),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_device_tlb_type_needs_the_capability),
        cmocka_unit_test(test_reserved_values),
        cmocka_unit_test(test_error_in_the_middle),
        cmocka_unit_test(test_error_again),
        cmocka_unit_test(test_tail_outside),
        cmocka_unit_test(test_fetch_error),
        cmocka_unit_test(test_wide_descriptors),
        cmocka_unit_test(test_root_table_mode),
        cmocka_unit_test(test_tail_before_enable),
        cmocka_unit_test(test_disable_resets_head),
        cmocka_unit_test(test_wrap),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_wait_without_anything),
        cmocka_unit_test(test_wait_status),
        cmocka_unit_test(test_wait_interrupt),
        cmocka_unit_test(test_wait_both),
        cmocka_unit_test(test_wait_interrupt_once),
        cmocka_unit_test(test_wait_interrupt_masked),
        cmocka_unit_test(test_wait_interrupt_withdrawn),
        cmocka_unit_test(test_wait_status_address),
        cmocka_unit_test(test_budget),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_disable_waits),
        cmocka_unit_test(test_no_queue),
        cmocka_unit_test(test_no_memory_for_the_section),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
