/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the unit with a faithful and with a hostile cache: what scenarios cannot reach, which is
 * that a hostile one keeps every promise for every seed. (What a faithful one holds, exactly, is
 * compared in tests/model.)
 */
#include "../tests/support/guest.h"
#include "base/alloc.h"
#include "vtd/unit.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define SEEDS 200
#define DOMAIN 1
#define IOVA UINT64_C(0x200000)
#define OLD UINT64_C(0x5000)
#define NEW UINT64_C(0x6000)
#define RW (SPEC_R | SPEC_W)

static struct guest guest;
static struct viommu_device *device;
static const uint16_t id = 0x28;
static unsigned events;

static void on_event(void *opaque, const struct viommu_event *event)
{
    (void)opaque;
    events += event->kind == VIOMMU_EVENT_CACHE_FULL;
}

static void begin(enum viommu_cache_mode mode, uint64_t seed)
{
    struct guest_config config = {
        .callbacks.event = on_event,
        .cache_mode = mode,
        .cache_seed = seed,
        .cache_quota = 16,
    };
    struct viommu_device_config of_device = {.requester = id};

    events = 0;
    guest_ok(guest_init(&guest, &config), "guest");
    guest_ok(viommu_device_add(guest.iommu, &of_device, &device), "device");
    guest_set_root(&guest);
}

static void end(void)
{
    guest_fini(&guest);
}

/* Tables of their own for the device, where IOVA leads to `gpa`. */
static void attach(uint64_t gpa)
{
    uint64_t table = guest_page(&guest);

    guest_map(&guest, table, 4, IOVA, gpa, 1, RW);
    guest_attach(&guest, id, DOMAIN, table, 4, SPEC_TT_UNTRANSLATED);
}

static uint64_t gpa_of(uint64_t iova)
{
    struct viommu_translation translation;

    guest_ok(viommu_device_translate(device, NULL, iova, VIOMMU_READ, &translation), "translate");
    return translation.gpa;
}

static bool status_written(void)
{
    return *(uint32_t *)guest_host(&guest, guest.status) == guest.status_value;
}

static void submit_wait(void)
{
    guest_queue_put(&guest, spec_wait(SPEC_WAIT_STATUS, guest.status, ++guest.status_value));
    guest_queue_kick(&guest);
}

/* Puts a wait descriptor and has the queue worked off, with a request between any two calls. */
static unsigned finish_with_requests(void)
{
    unsigned calls = 0;

    submit_wait();
    while (!status_written()) {
        uint64_t gpa = gpa_of(IOVA);

        assert_true(gpa == OLD || gpa == NEW);
        assert_true(viommu_process(guest.iommu, 0) >= 0);
        assert_true(++calls < 1000);
    }
    return calls;
}

static void expect_new(void)
{
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(gpa_of(IOVA), NEW);
    }
}

/* The page, which is cached, has another target: the invalidations of that are in the queue. */
static void begin_replaced(enum viommu_cache_mode mode, uint64_t seed)
{
    begin(mode, seed);
    attach(OLD);
    guest_queue_on(&guest);
    guest_command(&guest, SPEC_TE, true);
    assert_int_equal(gpa_of(IOVA), OLD);
    attach(NEW);
    guest_queue_put(&guest, spec_context_invalidate(SPEC_SELECTIVE, DOMAIN, id, 0));
    guest_queue_put(&guest, spec_iotlb_invalidate(seed & 1 ? SPEC_DOMAIN : SPEC_SELECTIVE, DOMAIN,
                                                  IOVA, 0, false));
}

/*
 * Context and IOTLB invalidation, submitted together: however late each begins, a request between
 * them brings nothing back through the old context.
 */
static void test_invalidations_begin_in_order(void **state)
{
    unsigned most = 0;

    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        unsigned calls;

        begin_replaced(VIOMMU_CACHE_HOSTILE, seed);
        calls = finish_with_requests();
        most = calls > most ? calls : most;
        expect_new();
        end();
    }
    assert_true(most > 4);
}

/* The same, by registers, one after the other. */
static void test_register_invalidations_begin_late(void **state)
{
    unsigned old = 0;

    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        begin(VIOMMU_CACHE_HOSTILE, seed);
        attach(OLD);
        guest_command(&guest, SPEC_TE, true);
        assert_int_equal(gpa_of(IOVA), OLD);
        attach(NEW);
        guest_flush_context(&guest, SPEC_GLOBAL, 0, 0, 0);
        guest_write(&guest, guest.iotlb_offset + 8, 8, 1ull << 63 | 1ull << 60);
        while (guest_read(&guest, guest.iotlb_offset + 8, 8) >> 63) {
            assert_true(viommu_process(guest.iommu, 0) >= 0);
            old += gpa_of(IOVA) == OLD && guest_read(&guest, guest.iotlb_offset + 8, 8) >> 63;
        }
        expect_new();
        end();
    }
    assert_true(old > SEEDS / 4);
}

/* A queue full of invalidations that are late, and more of them than can be under way. */
static void test_a_queue_of_late_invalidations(void **state)
{
    (void)state;
    begin(VIOMMU_CACHE_HOSTILE, 3);
    attach(OLD);
    guest_queue_on(&guest);
    guest_command(&guest, SPEC_TE, true);
    for (unsigned i = 0; i < 250; i++) {
        guest_queue_put(&guest, spec_iotlb_invalidate(SPEC_GLOBAL, 0, 0, 0, false));
    }
    assert_true(finish_with_requests() > 100);
    end();
}

/* ---- windows ---- */

#define WINDOWS 24

static void on_revoke(void *opaque)
{
    (void)opaque;
}

/* Pins the page, and returns where that leads. */
static uint64_t pin(struct viommu_window **window)
{
    struct viommu_range range = {IOVA, IOVA + 0xfff};
    struct viommu_window_request request = {
        .ranges = &range, .count = 1, .perm = VIOMMU_READ, .revoke = on_revoke};
    struct iovec iov;
    size_t count = 1;

    guest_ok(viommu_device_pin(device, NULL, &request, &iov, &count, window), "pin");
    return (uint64_t)((uint8_t *)iov.iov_base - guest.ram);
}

/*
 * Windows are pinned all the time while an invalidation is late, begins, and waits: it does not
 * complete while one is open that leads where the page did. Returns how many did.
 */
static unsigned pin_until_complete(void)
{
    struct viommu_window *windows[WINDOWS];
    bool leads_to_old[WINDOWS];
    unsigned old = 0;
    unsigned open;

    for (unsigned i = 0; i < WINDOWS; i++) {
        leads_to_old[i] = pin(&windows[i]) == OLD;
        old += leads_to_old[i];
        if (i % 3 == 0) {
            assert_true(viommu_process(guest.iommu, 0) >= 0);
        }
        assert_false(old && status_written());
    }
    open = old;
    for (unsigned i = 0; i < WINDOWS; i++) {
        guest_process(&guest);
        assert_false(open && status_written());
        viommu_window_release(windows[i]);
        open -= leads_to_old[i];
    }
    guest_process(&guest);
    assert_true(status_written());
    return old;
}

static void test_windows_while_late(void **state)
{
    static const enum viommu_cache_mode modes[] = {VIOMMU_CACHE_FAITHFUL, VIOMMU_CACHE_HOSTILE};
    unsigned late = 0;

    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        uint64_t gpa;
        size_t count;

        begin_replaced(modes[seed / 2 % 2], seed);
        submit_wait();
        late += pin_until_complete() > 1;
        expect_new();
        guest_ok(viommu_device_translate_many(device, NULL, (uint64_t[]){IOVA}, 1, VIOMMU_READ,
                                              &gpa, &count),
                 "list");
        assert_int_equal(gpa, NEW);
        end();
    }
    assert_true(late > SEEDS / 4);
}

/* ---- saved states ---- */

/* What is late when a state is saved is carried out in the instance that goes on from it. */
static void test_saved_while_late(void **state)
{
    unsigned late = 0;

    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct viommu_device_config config = {.requester = id};
        struct viommu *second;
        void *data;
        size_t size;

        begin_replaced(VIOMMU_CACHE_HOSTILE, seed);
        submit_wait();
        late += viommu_process(guest.iommu, 0) == VIOMMU_PENDING;
        guest_ok(viommu_save(guest.iommu, &data, &size), "save");
        guest_ok(guest_second(&guest, &second), "second");
        guest_ok(viommu_device_add(second, &config, &device), "device");
        guest_ok(viommu_load(second, data, size), "load");
        viommu_save_free(data);
        guest_take_over(&guest, second);
        if (!status_written()) {
            (void)gpa_of(IOVA);
        }
        guest_process(&guest);
        assert_true(status_written());
        expect_new();
        end();
    }
    assert_true(late > SEEDS / 4);
}

/* What is late when the platform is reset, or the unit destroyed, is forgotten. */
static void test_reset_while_late(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        begin(VIOMMU_CACHE_HOSTILE, seed);
        attach(OLD);
        guest_queue_on(&guest);
        guest_queue_put(&guest, spec_context_invalidate(SPEC_GLOBAL, 0, 0, 0));
        guest_queue_put(&guest, spec_iotlb_invalidate(SPEC_GLOBAL, 0, 0, 0, false));
        guest_queue_kick(&guest);
        (void)viommu_process(guest.iommu, 0);
        if (seed % 2) {
            guest_ok(viommu_reset(guest.iommu), "reset");
            assert_int_equal(viommu_process(guest.iommu, 0), 0);
        }
        end();
    }
}

/* Without memory nothing is kept, and an event says so; requests go on. */
static void test_no_memory_to_keep(void **state)
{
    (void)state;
    begin(VIOMMU_CACHE_FAITHFUL, 0);
    attach(OLD);
    guest_command(&guest, SPEC_TE, true);
    for (unsigned long n = 1; n <= 2; n++) {
        base_alloc_fail_at(n);
        assert_int_equal(gpa_of(IOVA), OLD);
        assert_true(base_alloc_failed());
        base_alloc_fail_at(0);
        guest_process(&guest);
        assert_int_equal(events, n);
        guest_flush_iotlb(&guest, SPEC_GLOBAL, 0, 0, 0);
        guest_flush_context(&guest, SPEC_GLOBAL, 0, 0, 0);
    }
    end();
}

static void test_what_cannot_be_configured(void **state)
{
    static const struct viommu_config wrong[] = {
        {.cache_mode = (enum viommu_cache_mode)(VIOMMU_CACHE_HOSTILE + 1)},
        {.cache_mode = VIOMMU_CACHE_FAITHFUL, .cache_quota = (1u << 24) + 1},
    };
    struct viommu_memory *memory;

    (void)state;
    guest_ok(viommu_memory_create(&memory), "memory");
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct viommu_config config = wrong[i];
        struct viommu_vtd_config vtd = {0};
        struct viommu *iommu;

        config.memory = memory;
        assert_int_equal(viommu_vtd_create(&config, &vtd, &iommu), -EINVAL);
        config.cache_mode = VIOMMU_CACHE_HOSTILE;
        config.cache_quota = 1u << 24;
        assert_int_equal(viommu_vtd_create(&config, &vtd, &iommu), 0);
        viommu_destroy(iommu);
    }
    viommu_memory_destroy(memory);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_invalidations_begin_in_order),
        cmocka_unit_test(test_register_invalidations_begin_late),
        cmocka_unit_test(test_a_queue_of_late_invalidations),
        cmocka_unit_test(test_windows_while_late),
        cmocka_unit_test(test_saved_while_late),
        cmocka_unit_test(test_reset_while_late),
        cmocka_unit_test(test_no_memory_to_keep),
        cmocka_unit_test(test_what_cannot_be_configured),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
