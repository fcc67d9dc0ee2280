/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of mirrors behind a VT-d unit: what a device reaches (views), and that every invalidation
 * is followed before it is complete. What unit and mirrors want of each other: limits_test.c.
 *
 * What a mirror is told is a line of text: "+first-last>gpa" for a MAP, "-first-last" for an
 * UNMAP, "@first-last" for a device-TLB, "!" for its fence.
 */
#include "vtd/test_unit.h"
#include "vtd/unit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define RW (SPEC_R | SPEC_W)
#define TOLD_MAX 1024
#define IDENTITY "+0-3fffff>0" /* all of the guest's RAM */
#define IOVA 0x40000000ull
#define TARGET 0x300000ull
#define OTHER_DOMAIN (UNIT_DOMAIN + 1)
#define WIDTH_48 ((1ull << 48) - 1)

struct record {
    char told[TOLD_MAX];
    unsigned causes;
    int answer; /* to every call */
    int unmap_answer;
    uint64_t token;
    struct viommu_subscriber *subscriber;
};

static struct unit unit;
static struct record record;
static const struct viommu_vtd_config caching = {.caching_mode = true};

static void say(struct record *r, const char *text)
{
    size_t length = strlen(r->told);

    snprintf(r->told + length, TOLD_MAX - length, "%s%s", length ? " " : "", text);
}

static int on_change(void *opaque, const struct viommu_change *change)
{
    struct record *r = opaque;
    char target[24] = "";
    char text[80];

    if (change->kind == VIOMMU_CHANGE_MAP) {
        snprintf(target, sizeof(target), ">%llx", (unsigned long long)change->gpa);
    }
    snprintf(text, sizeof(text), "%c%llx-%llx%s",
             change->kind == VIOMMU_CHANGE_MAP     ? '+'
             : change->kind == VIOMMU_CHANGE_UNMAP ? '-'
                                                   : '@',
             (unsigned long long)change->first, (unsigned long long)change->last, target);
    say(r, text);
    r->causes |= 1u << change->cause;
    r->token = change->token;
    return change->kind == VIOMMU_CHANGE_UNMAP && r->unmap_answer ? r->unmap_answer : r->answer;
}

static int on_fence(void *opaque)
{
    say(opaque, "!");
    return 0;
}

static void told(const char *expected)
{
    assert_string_equal(record.told, expected);
    record.told[0] = 0;
    record.causes = 0;
}

/* The same, and it was told for one reason only. */
static void told_for(enum viommu_cause cause, const char *expected)
{
    assert_int_equal(record.causes, 1u << cause);
    told(expected);
}

static struct viommu_subscription subscription(void)
{
    return (struct viommu_subscription){
        .kinds = VIOMMU_CHANGE_MAP | VIOMMU_CHANGE_UNMAP,
        .form = VIOMMU_FORM_RANGE,
        .role = VIOMMU_ROLE_MIRROR,
        .change = on_change,
        .fence = on_fence,
        .opaque = &record,
    };
}

static int setup_with(const struct viommu_vtd_config *config, uint32_t kinds)
{
    struct viommu_subscription what = subscription();

    record = (struct record){0};
    unit_init(&unit, config);
    what.kinds |= kinds;
    assert_int_equal(viommu_device_subscribe(unit.device, &what, &record.subscriber), 0);
    guest_process(&unit.guest);
    return 0;
}

/* A mirror, and translation is off. */
static int setup(void **state)
{
    (void)state;
    return setup_with(&caching, 0);
}

/* With empty tables. */
static int setup_tables(void **state)
{
    (void)setup(state);
    unit_translate(&unit);
    guest_process(&unit.guest);
    record.told[0] = 0;
    record.causes = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unit_fini(&unit);
    return 0;
}

static void map(uint64_t iova, uint64_t gpa)
{
    (void)unit_map(&unit, iova, gpa, 1, RW);
}

/* ---- views ----------------------------------------------------------------------------------- */

static struct shadow_view view_now(void)
{
    struct viommu *iommu = unit.guest.iommu;
    struct shadow_view view = {0};

    assert_true(epoch_enter(iommu->epoch));
    iommu_lock(iommu);
    vtd_view(iommu, unit.id, &view);
    iommu_unlock(iommu);
    epoch_leave(iommu->epoch);
    return view;
}

static void test_translation_on_and_off(void **state)
{
    (void)state;
    told_for(VIOMMU_CAUSE_REPLAY, IDENTITY);
    assert_int_equal(view_now().kind, VIEW_IDENTITY);
    assert_int_equal(view_now().last, WIDTH_48);
    guest_set_root(&unit.guest);
    told("");
    guest_command(&unit.guest, SPEC_TE, true); /* without a context: nothing */
    told_for(VIOMMU_CAUSE_CONTEXT, "-0-3fffff");
    assert_int_equal(view_now().kind, VIEW_NONE);
    guest_command(&unit.guest, SPEC_TE, false);
    told_for(VIOMMU_CAUSE_CONTEXT, IDENTITY);
    guest_command(&unit.guest, SPEC_TE, true);
    told("-0-3fffff");
    assert_int_equal(viommu_reset(unit.guest.iommu), 0);
    guest_process(&unit.guest);
    told(IDENTITY);
}

/* A context of a device comes, changes and goes; each invalidation that may say so is enough. */
static void invalidate_context(unsigned how)
{
    struct guest *guest = &unit.guest;

    switch (how) {
    case 0:
        guest_flush_context(guest, SPEC_GLOBAL, 0, 0, 0);
        break;
    case 1:
        guest_flush_context(guest, SPEC_DOMAIN, UNIT_DOMAIN, 0, 0);
        break;
    case 2:
        guest_flush_context(guest, SPEC_SELECTIVE, UNIT_DOMAIN, unit.id, 0);
        break;
    case 3:
        guest_flush_context(guest, SPEC_SELECTIVE, UNIT_DOMAIN, unit.id & ~7u, 3);
        break;
    case 4:
        guest_set_root(guest);
        break;
    default:
        guest_queue_on(guest);
        guest_queue_put(guest, spec_context_invalidate(SPEC_SELECTIVE, UNIT_DOMAIN, unit.id, 0));
        guest_queue_wait(guest);
        guest_queue_off(guest);
        break;
    }
}

static void test_contexts(void **state)
{
    struct guest *guest = &unit.guest;

    (void)state;
    unit_translate(&unit);
    map(IOVA, TARGET);
    guest_flush_iotlb(guest, SPEC_GLOBAL, 0, 0, 0);
    for (unsigned how = 0; how < 6; how++) {
        guest_attach(guest, unit.id, UNIT_DOMAIN, unit.table, unit.levels, SPEC_TT_UNTRANSLATED);
        invalidate_context(how);
        record.told[0] = 0;
        record.causes = 0;
        assert_int_equal(view_now().kind, VIEW_TABLES);
        assert_int_equal(view_now().root, unit.table);
        assert_int_equal(view_now().levels, 4);
        assert_int_equal(view_now().domain, UNIT_DOMAIN);
        guest_attach(guest, unit.id, UNIT_DOMAIN, 0, unit.levels, SPEC_TT_PASS);
        told("");
        invalidate_context(how);
        told_for(VIOMMU_CAUSE_CONTEXT, IDENTITY " -40000000-40000fff");
        guest_context(guest, unit.id, 0, 0);
        invalidate_context(how);
        told_for(VIOMMU_CAUSE_CONTEXT, "-0-3fffff");
        assert_int_equal(view_now().kind, VIEW_NONE);
        guest_attach(guest, unit.id, UNIT_DOMAIN, unit.table, unit.levels, SPEC_TT_UNTRANSLATED);
        invalidate_context(how);
        told_for(VIOMMU_CAUSE_CONTEXT, "+40000000-40000fff>300000");
    }
}

/* Another device's context is no concern of this one. */
static void test_other_devices_context(void **state)
{
    struct guest *guest = &unit.guest;

    (void)state;
    map(IOVA, TARGET);
    guest_context(guest, unit.id, 0, 0);
    guest_flush_context(guest, SPEC_SELECTIVE, UNIT_DOMAIN, unit.id + 8, 0);
    told("");
    guest_flush_context(guest, SPEC_SELECTIVE, UNIT_DOMAIN, unit.id, 0);
    assert_int_equal(view_now().kind, VIEW_NONE);
}

/* What faults is nothing at all. */
static void test_bad_contexts(void **state)
{
    struct guest *guest = &unit.guest;
    uint64_t reserved_low = 1 | 1ull << 4;
    uint64_t root;

    (void)state;
    map(IOVA, TARGET);
    guest_flush_iotlb(guest, SPEC_GLOBAL, 0, 0, 0);
    told("+40000000-40000fff>300000");
    guest_context(guest, unit.id, reserved_low | unit.table, 2 | UNIT_DOMAIN << 8);
    invalidate_context(0);
    told("-40000000-40000fff");
    guest_context(guest, unit.id, 1 | unit.table, 3 | UNIT_DOMAIN << 8); /* a width it has not */
    invalidate_context(0);
    told("");
    assert_int_equal(view_now().kind, VIEW_NONE);
    guest_attach(guest, unit.id, UNIT_DOMAIN, unit.table, 4, SPEC_TT_ALL); /* no ATS */
    invalidate_context(0);
    assert_int_equal(view_now().kind, VIEW_NONE);
    guest_attach(guest, unit.id, UNIT_DOMAIN, unit.table, 4, SPEC_TT_UNTRANSLATED);
    invalidate_context(0);
    told("+40000000-40000fff>300000");
    root = guest_load(guest, guest->root);
    guest_store(guest, guest->root, root & ~1ull);
    invalidate_context(0);
    told("-40000000-40000fff");
    guest_store(guest, guest->root, root);
    invalidate_context(4);
    told("+40000000-40000fff>300000");
    unit_expect_no_fault(&unit); /* looking is not a request */
}

/* Tables of three levels end at 39 bits. */
static void test_levels(void **state)
{
    struct guest *guest = &unit.guest;
    uint64_t table = guest_page(guest);

    (void)state;
    (void)guest_map(guest, table, 3, IOVA, TARGET, 1, RW);
    guest_attach(guest, unit.id, UNIT_DOMAIN, table, 3, SPEC_TT_UNTRANSLATED);
    invalidate_context(0);
    told("+40000000-40000fff>300000");
    assert_int_equal(view_now().levels, 3);
    assert_int_equal(view_now().root, table);
}

/* ---- invalidations of translations ----------------------------------------------------------- */

enum how {
    BY_GLOBAL,
    BY_DOMAIN,
    BY_PAGE,
    BY_PAGES, /* an address mask */
    HOWS,
};

static struct spec_descriptor descriptor(enum how how, uint16_t domain)
{
    switch (how) {
    case BY_GLOBAL:
        return spec_iotlb_invalidate(SPEC_GLOBAL, 0, 0, 0, false);
    case BY_DOMAIN:
        return spec_iotlb_invalidate(SPEC_DOMAIN, domain, 0, 0, false);
    case BY_PAGE:
        return spec_iotlb_invalidate(SPEC_SELECTIVE, domain, IOVA, 0, false);
    default:
        return spec_iotlb_invalidate(SPEC_SELECTIVE, domain, IOVA & ~0x3fffull, 2, false);
    }
}

static const enum viommu_cause causes[HOWS] = {
    VIOMMU_CAUSE_GLOBAL,
    VIOMMU_CAUSE_DOMAIN,
    VIOMMU_CAUSE_PAGES,
    VIOMMU_CAUSE_PAGES,
};

static void by_register(enum how how, uint16_t domain)
{
    struct guest *guest = &unit.guest;

    switch (how) {
    case BY_GLOBAL:
        guest_flush_iotlb(guest, SPEC_GLOBAL, 0, 0, 0);
        break;
    case BY_DOMAIN:
        guest_flush_iotlb(guest, SPEC_DOMAIN, domain, 0, 0);
        break;
    case BY_PAGE:
        guest_flush_iotlb(guest, SPEC_SELECTIVE, domain, IOVA, 0);
        break;
    default:
        guest_flush_iotlb(guest, SPEC_SELECTIVE, domain, IOVA & ~0x3fffull, 2);
        break;
    }
}

/* What it says of the pages at IOVA, of which only some are looked at. */
static const char *const mapped[HOWS] = {
    "+40000000-40004fff>300000",
    "+40000000-40004fff>300000",
    "+40000000-40000fff>300000",
    "+40000000-40003fff>300000",
};

static void test_by_register(void **state)
{
    (void)state;
    for (enum how how = 0; how < HOWS; how++) {
        for (unsigned i = 0; i < 5; i++) {
            map(IOVA + i * 0x1000, TARGET + i * 0x1000);
        }
        told("");
        if (how != BY_GLOBAL) {
            by_register(how, OTHER_DOMAIN);
            told("");
        }
        by_register(how, UNIT_DOMAIN);
        told_for(causes[how], mapped[how]);
        by_register(how, UNIT_DOMAIN);
        told("");
        for (unsigned i = 0; i < 5; i++) {
            (void)unit_map(&unit, IOVA + i * 0x1000, 0, 1, 0);
        }
        by_register(BY_GLOBAL, 0);
        record.told[0] = 0;
        record.causes = 0;
    }
}

/* Through the queue; and complete only when the mirror has answered. */
static void test_by_queue(void **state)
{
    struct guest *guest = &unit.guest;

    (void)state;
    guest_queue_on(guest);
    for (enum how how = 0; how < HOWS; how++) {
        unsigned wait = ++guest->status_value;

        map(IOVA, TARGET);
        record.answer = VIOMMU_PENDING;
        guest_queue_put(guest, descriptor(how, UNIT_DOMAIN));
        guest_queue_put(guest, spec_wait(SPEC_WAIT_STATUS, guest->status, wait));
        guest_queue_kick(guest);
        guest_process(guest);
        told_for(causes[how], "+40000000-40000fff>300000");
        assert_int_not_equal((uint32_t)guest_load(guest, guest->status), wait);
        assert_int_equal(viommu_change_complete(guest->iommu, record.token, 0), 0);
        guest_process(guest);
        assert_int_equal((uint32_t)guest_load(guest, guest->status), wait);
        record.answer = 0;
        (void)unit_map(&unit, IOVA, 0, 1, 0);
        guest_queue_put(guest, descriptor(how, UNIT_DOMAIN));
        guest_queue_wait(guest);
        told_for(causes[how], "-40000000-40000fff");
    }
}

/* The register's busy bit, too. */
static void test_register_waits(void **state)
{
    struct guest *guest = &unit.guest;
    uint64_t busy = 1ull << 63;

    (void)state;
    map(IOVA, TARGET);
    record.answer = VIOMMU_PENDING;
    guest_write(guest, guest->iotlb_offset + 8, 8, busy | (uint64_t)SPEC_GLOBAL << 60);
    guest_process(guest);
    told("+40000000-40000fff>300000");
    assert_true(guest_read(guest, guest->iotlb_offset + 8, 8) & busy);
    assert_int_equal(viommu_change_complete(guest->iommu, record.token, 0), 0);
    guest_process(guest);
    assert_false(guest_read(guest, guest->iotlb_offset + 8, 8) & busy);
    guest_context(guest, unit.id, 0, 0);
    guest_write(guest, SPEC_CCMD, 8, busy | (uint64_t)SPEC_GLOBAL << 61);
    guest_process(guest);
    told("-40000000-40000fff");
    assert_true(guest_read(guest, SPEC_CCMD, 8) & busy);
    assert_int_equal(viommu_change_complete(guest->iommu, record.token, 0), 0);
    guest_process(guest);
    assert_false(guest_read(guest, SPEC_CCMD, 8) & busy);
}

/* And the status of translation and of the root pointer. */
static void test_commands_wait(void **state)
{
    struct guest *guest = &unit.guest;

    (void)state;
    guest_set_root(guest);
    record.answer = VIOMMU_PENDING;
    record.told[0] = 0;
    guest_write(guest, SPEC_GCMD, 4, SPEC_TE);
    guest_process(guest);
    told("-0-3fffff");
    assert_false(guest_read(guest, SPEC_GSTS, 4) & SPEC_TE);
    assert_int_equal(viommu_change_complete(guest->iommu, record.token, 0), 0);
    guest_process(guest);
    assert_true(guest_read(guest, SPEC_GSTS, 4) & SPEC_TE);
}

/* A mirror that fails does not stop the guest: it is fenced, and the operation is complete. */
static void test_failure(void **state)
{
    struct guest *guest = &unit.guest;

    (void)state;
    map(IOVA, TARGET);
    by_register(BY_GLOBAL, 0);
    record.unmap_answer = -EIO;
    (void)unit_map(&unit, IOVA, 0, 1, 0);
    by_register(BY_GLOBAL, 0);
    told("+40000000-40000fff>300000 -40000000-40000fff !");
    assert_int_equal(unit_read(&unit, IOVA), -EPERM);
    record.unmap_answer = 0;
    map(IOVA, TARGET);
    by_register(BY_GLOBAL, 0);
    told("");
    assert_int_equal(viommu_device_reset(unit.device), 0);
    guest_process(guest);
    told_for(VIOMMU_CAUSE_REPLAY, "+40000000-40000fff>300000");
    assert_int_equal(unit_read(&unit, IOVA), 0);
}

static void test_time_out(void **state)
{
    struct guest *guest = &unit.guest;
    unsigned wait;

    (void)state;
    guest_queue_on(guest);
    wait = ++guest->status_value;
    map(IOVA, TARGET);
    record.answer = VIOMMU_PENDING;
    guest_queue_put(guest, descriptor(BY_DOMAIN, UNIT_DOMAIN));
    guest_queue_put(guest, spec_wait(SPEC_WAIT_STATUS, guest->status, wait));
    guest_queue_kick(guest);
    guest_process(guest);
    unit.now += 499 * UNIT_MS;
    guest_process(guest);
    assert_int_not_equal((uint32_t)guest_load(guest, guest->status), wait);
    unit.now += UNIT_MS;
    guest_process(guest);
    told("+40000000-40000fff>300000 !");
    assert_int_equal((uint32_t)guest_load(guest, guest->status), wait);
}

/* Pages of all sizes are one mapping each; nothing is looked at twice. */
static void test_super_pages(void **state)
{
    (void)state;
    (void)unit_map(&unit, IOVA, 0x200000, 2, RW);
    by_register(BY_PAGE, UNIT_DOMAIN);
    told("+40000000-401fffff>200000");
    (void)unit_map(&unit, IOVA, 0, 2, RW);
    by_register(BY_PAGE, UNIT_DOMAIN);
    told("-40000000-401fffff +40000000-401fffff>0");
}

/* An entry with a reserved bit set is not mapped, and that is told. */
static void test_reserved_bits(void **state)
{
    (void)state;
    (void)unit_map(&unit, IOVA, TARGET | 1ull << 62, 1, RW);
    (void)unit_map(&unit, IOVA + 0x1000, TARGET, 1, RW);
    by_register(BY_GLOBAL, 0);
    told("+40001000-40001fff>300000");
    assert_true(unit.event_count > 0);
    assert_int_equal(unit.events[unit.event_count - 1].kind, VIOMMU_EVENT_BAD_ENTRY);
    assert_int_equal(unit.events[unit.event_count - 1].first, IOVA);
}

/* ---- device-TLBs ----------------------------------------------------------------------------- */

/* It is not told what caches are told; of a device-TLB it hears where it asked for that. */
static void test_device_tlb(void **state)
{
    struct viommu_vtd_config config = {.caching_mode = true, .device_tlb = true};
    struct guest *guest = &unit.guest;

    (void)state;
    (void)setup_with(&config, VIOMMU_CHANGE_DEVICE_TLB);
    unit_translate_as(&unit, SPEC_TT_ALL);
    map(IOVA, TARGET);
    guest_queue_on(guest);
    guest_queue_put(guest, descriptor(BY_GLOBAL, 0));
    guest_queue_wait(guest);
    told(IDENTITY " -0-3fffff +40000000-40000fff>300000");
    guest_queue_put(guest, spec_device_tlb_invalidate(unit.id, IOVA, 0));
    guest_queue_wait(guest);
    told("@40000000-40000fff");
    assert_int_equal(view_now().kind, VIEW_TABLES);
}

/* ---- several devices ------------------------------------------------------------------------- */

/* A device that moves to another domain keeps what both have. */
static void test_moves_to_another_domain(void **state)
{
    struct guest *guest = &unit.guest;
    uint64_t table = guest_page(guest);

    (void)state;
    map(IOVA, TARGET);
    map(IOVA + 0x2000, TARGET);
    by_register(BY_GLOBAL, 0);
    record.told[0] = 0;
    (void)guest_map(guest, table, 4, IOVA, TARGET, 1, RW);
    (void)guest_map(guest, table, 4, IOVA + 0x5000, TARGET, 1, RW);
    guest_attach(guest, unit.id, OTHER_DOMAIN, table, 4, SPEC_TT_UNTRANSLATED);
    guest_flush_context(guest, SPEC_SELECTIVE, UNIT_DOMAIN, unit.id, 0);
    told("-40002000-40002fff +40005000-40005fff>300000");
    (void)guest_map(guest, table, 4, IOVA + 0x7000, TARGET, 1, RW);
    by_register(BY_DOMAIN, UNIT_DOMAIN); /* it is there no more */
    told("");
    by_register(BY_DOMAIN, OTHER_DOMAIN);
    told("+40007000-40007fff>300000");
}

/* Another id has another context entry. */
static void test_another_id(void **state)
{
    struct guest *guest = &unit.guest;

    (void)state;
    map(IOVA, TARGET);
    by_register(BY_GLOBAL, 0);
    told("+40000000-40000fff>300000");
    assert_int_equal(viommu_device_set_requester(unit.device, unit.id + 8), 0);
    guest_process(guest);
    told_for(VIOMMU_CAUSE_CONTEXT, "-40000000-40000fff");
    assert_int_equal(viommu_device_set_requester(unit.device, unit.id), 0);
    guest_process(guest);
    told("+40000000-40000fff>300000");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_translation_on_and_off, setup, teardown),
        cmocka_unit_test_setup_teardown(test_contexts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_devices_context, setup_tables, teardown),
        cmocka_unit_test_setup_teardown(test_bad_contexts, setup_tables, teardown),
        cmocka_unit_test_setup_teardown(test_levels, setup_tables, teardown),
        cmocka_unit_test_setup_teardown(test_by_register, setup_tables, teardown),
        cmocka_unit_test_setup_teardown(test_by_queue, setup_tables, teardown),
        cmocka_unit_test_setup_teardown(test_register_waits, setup_tables, teardown),
        cmocka_unit_test_setup_teardown(test_commands_wait, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failure, setup_tables, teardown),
        cmocka_unit_test_setup_teardown(test_time_out, setup_tables, teardown),
        cmocka_unit_test_setup_teardown(test_super_pages, setup_tables, teardown),
        cmocka_unit_test_setup_teardown(test_reserved_bits, setup_tables, teardown),
        cmocka_unit_test_setup_teardown(test_device_tlb, NULL, teardown),
        cmocka_unit_test_setup_teardown(test_moves_to_another_domain, setup_tables, teardown),
        cmocka_unit_test_setup_teardown(test_another_id, setup_tables, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
