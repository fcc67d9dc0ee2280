/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of the unit's configuration: what is refused, what the capability registers say, life. */
#include "base/alloc.h"
#include "vtd/test_unit.h"

#include <errno.h>
#include <poll.h>

static struct viommu_memory *memory;

static int setup(void **state)
{
    (void)state;
    return viommu_memory_create(&memory);
}

static int teardown(void **state)
{
    (void)state;
    viommu_memory_destroy(memory);
    return 0;
}

static int create(const struct viommu_vtd_config *vtd)
{
    struct viommu_config config = {.memory = memory};
    struct viommu *iommu = NULL;
    int ret = viommu_vtd_create(&config, vtd, &iommu);

    viommu_destroy(iommu);
    return ret;
}

static void test_address_widths(void **state)
{
    (void)state;
    for (unsigned width = 0; width < 256; width++) {
        struct viommu_vtd_config vtd = {.address_width = (uint8_t)width};
        bool valid = width == 0 || width == 39 || width == 48 || width == 57;

        assert_int_equal(create(&vtd), valid ? 0 : -EINVAL);
        vtd = (struct viommu_vtd_config){.host_address_width = (uint8_t)width};
        valid = width == 0 || (width >= 36 && width <= 52);
        assert_int_equal(create(&vtd), valid ? 0 : -EINVAL);
    }
}

static void test_other_ranges(void **state)
{
    (void)state;
    for (unsigned bits = 0; bits < 256; bits++) {
        bool valid = bits == 0 || (bits >= 4 && bits <= 16 && bits % 2 == 0);

        assert_int_equal(create(&(struct viommu_vtd_config){.domain_bits = (uint8_t)bits}),
                         valid ? 0 : -EINVAL);
    }
    assert_int_equal(create(&(struct viommu_vtd_config){.fault_records = 256}), 0);
    assert_int_equal(create(&(struct viommu_vtd_config){.fault_records = 257}), -EINVAL);
    assert_int_equal(create(&(struct viommu_vtd_config){.fault_records = 65535}), -EINVAL);
    /* Device-TLBs are invalidated through the queue. */
    assert_int_equal(create(&(struct viommu_vtd_config){.device_tlb = true,
                                                        .no_queued_invalidation = true}),
                     -EINVAL);
}

static void test_common_configuration(void **state)
{
    struct viommu_vtd_config vtd = {0};
    struct viommu_config config = {0};
    struct viommu *iommu;

    (void)state;
    assert_int_equal(viommu_vtd_create(&config, &vtd, &iommu), -EINVAL);
    config.memory = memory;
    config.iotlb_entries = 128;
    assert_int_equal(viommu_vtd_create(&config, &vtd, &iommu), -EINVAL);
    config.iotlb_entries = 257;
    assert_int_equal(viommu_vtd_create(&config, &vtd, &iommu), -EINVAL);
    config.iotlb_entries = 1u << 25;
    assert_int_equal(viommu_vtd_create(&config, &vtd, &iommu), -EINVAL);
    config.iotlb_entries = 256;
    assert_int_equal(viommu_vtd_create(&config, &vtd, &iommu), 0);
    viommu_destroy(iommu);
    viommu_destroy(NULL);
}

/* Every allocation of a creation may fail; nothing is left behind. */
static void test_no_memory(void **state)
{
    struct viommu_vtd_config vtd = {0};
    unsigned n = 0;
    int ret;

    (void)state;
    do {
        base_alloc_fail_at(++n);
        ret = create(&vtd);
        assert_true(ret == -ENOMEM || !base_alloc_failed());
    } while (base_alloc_failed());
    base_alloc_fail_at(0);
    assert_int_equal(ret, 0);
    assert_true(n >= 3); /* the unit, its cache: at least */
}

/* ---- capability registers -------------------------------------------------------------------- */

static uint64_t field(uint64_t value, unsigned last, unsigned first)
{
    return value >> first & (~0ull >> (63 - (last - first)));
}

static void test_default_capabilities(void **state)
{
    struct unit unit;
    uint64_t cap;
    uint64_t ecap;

    (void)state;
    unit_init(&unit, &(struct viommu_vtd_config){0});
    cap = unit.guest.cap;
    ecap = unit.guest.ecap;
    assert_int_equal(field(cap, 2, 0), 6);    /* ND: 16 bits */
    assert_int_equal(field(cap, 7, 3), 0);    /* no RWBF, protected regions, CM */
    assert_int_equal(field(cap, 12, 8), 6);   /* SAGAW: 39 and 48 */
    assert_int_equal(field(cap, 21, 16), 47); /* MGAW */
    assert_int_equal(field(cap, 22, 22), 1);  /* ZLR */
    assert_int_equal(field(cap, 37, 34), 3);  /* 2 MiB and 1 GiB */
    assert_int_equal(field(cap, 39, 39), 1);  /* PSI */
    assert_int_equal(field(cap, 47, 40), 7);  /* NFR: 8 */
    assert_int_equal(field(cap, 53, 48), 18); /* MAMV */
    assert_int_equal(field(cap, 55, 54), 3);  /* both drains */
    assert_int_equal(field(cap, 63, 56), 0);  /* nothing of scalable mode, posted interrupts */
    assert_int_equal(ecap & ~(0x3ffull << 8), 0xc3); /* C, QI, PT, SC, and no more */
    unit_fini(&unit);
}

/* Each member of the configuration changes its own field and no other. */
static void test_capabilities_of_configurations(void **state)
{
    static const struct {
        struct viommu_vtd_config config;
        uint64_t cap;  /* bits that differ from the default's */
        uint64_t ecap;
    } cases[] = {
        {{.address_width = 48, .domain_bits = 16, .fault_records = 8}, 0, 0},
        {{.host_address_width = 52}, 0, 0},
        {{.address_width = 39}, 1ull << 10 | (47ull ^ 38) << 16, 0},
        {{.address_width = 57}, 1ull << 11 | (47ull ^ 56) << 16, 0},
        {{.caching_mode = true}, 1ull << 7, 0},
        {{.no_super_pages = true}, 3ull << 34, 0},
        {{.no_pass_through = true}, 0, 1 << 6},
        {{.no_queued_invalidation = true}, 0, 1 << 1},
        {{.no_snoop_control = true}, 0, 1 << 7},
        {{.device_tlb = true}, 0, 1 << 2},
        {{.domain_bits = 4}, 6, 0},
        {{.domain_bits = 10}, 6 ^ 3, 0},
        {{.fault_records = 1}, 7ull << 40, 0},
        {{.fault_records = 256}, 0xf8ull << 40, 0},
        {{.unit_requester = 0xffff}, 0, 0},
    };
    struct unit base;

    (void)state;
    unit_init(&base, &(struct viommu_vtd_config){0});
    for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct unit unit;

        unit_init(&unit, &cases[i].config);
        assert_int_equal(unit.guest.cap ^ base.guest.cap, cases[i].cap);
        assert_int_equal(unit.guest.ecap ^ base.guest.ecap, cases[i].ecap);
        unit_fini(&unit);
    }
    unit_fini(&base);
}

/* What the registers say of their own places is inside the register space, and nothing overlaps. */
static void test_places(void **state)
{
    struct unit unit;
    uint64_t size;
    uint64_t end;

    (void)state;
    unit_init(&unit, &(struct viommu_vtd_config){.fault_records = 256});
    size = viommu_vtd_register_size(unit.guest.iommu);
    end = unit.guest.fault_offset + 16ull * unit.guest.fault_count;
    assert_true(end <= size);
    assert_true(unit.guest.iotlb_offset + 16 <= size);
    assert_true(unit.guest.iotlb_offset >= 0xc0 && unit.guest.fault_offset >= 0xc0);
    assert_true(unit.guest.iotlb_offset + 16 <= unit.guest.fault_offset ||
                unit.guest.iotlb_offset >= end);
    unit_fini(&unit);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void test_configure(void **state)
{
    struct viommu_config config = {.memory = memory};
    struct viommu_vtd_config vtd = {0};
    struct viommu *iommu;
    uint64_t cap;

    (void)state;
    assert_int_equal(viommu_vtd_create(&config, &vtd, &iommu), 0);
    vtd.address_width = 40;
    assert_int_equal(viommu_vtd_configure(iommu, &vtd), -EINVAL);
    vtd.address_width = 39;
    vtd.caching_mode = true;
    assert_int_equal(viommu_vtd_configure(iommu, &vtd), 0);
    assert_int_equal(viommu_start(iommu), 0);
    assert_int_equal(viommu_start(iommu), -EALREADY);
    assert_int_equal(viommu_mmio_read(iommu, SPEC_CAP, 8, &cap), 0);
    assert_int_equal(field(cap, 21, 16), 38);
    assert_int_equal(field(cap, 7, 7), 1);
    vtd.caching_mode = false;
    assert_int_equal(viommu_vtd_configure(iommu, &vtd), -EBUSY);
    assert_int_equal(viommu_mmio_read(iommu, SPEC_CAP, 8, &cap), 0);
    assert_int_equal(field(cap, 7, 7), 1);
    viommu_destroy(iommu);
}

/* A device that has a device-TLB needs a unit that knows of them. */
static void test_configure_with_devices(void **state)
{
    struct viommu_config config = {.memory = memory};
    struct viommu_vtd_config vtd = {.device_tlb = true};
    struct viommu_device_config device_config = {.requester = 8, .ats = true};
    struct viommu_device *device;
    struct viommu *iommu;

    (void)state;
    assert_int_equal(viommu_vtd_create(&config, &vtd, &iommu), 0);
    assert_int_equal(viommu_device_add(iommu, &device_config, &device), 0);
    vtd.caching_mode = true;
    assert_int_equal(viommu_vtd_configure(iommu, &vtd), 0);
    vtd.device_tlb = false;
    assert_int_equal(viommu_vtd_configure(iommu, &vtd), -EBUSY);
    assert_int_equal(viommu_device_remove(device), 0);
    assert_int_equal(viommu_vtd_configure(iommu, &vtd), 0);
    viommu_destroy(iommu);
}

static void test_before_start(void **state)
{
    struct viommu_config config = {.memory = memory};
    struct viommu_vtd_config vtd = {.device_tlb = true};
    struct viommu_device_config device_config = {.requester = 8, .ats = true};
    struct viommu_ats_entry entry;
    struct viommu_translation out;
    struct viommu_device *device;
    struct viommu *iommu;
    uint32_t word = 0;

    (void)state;
    assert_int_equal(viommu_vtd_create(&config, &vtd, &iommu), 0);
    assert_int_equal(viommu_device_add(iommu, &device_config, &device), 0);
    assert_int_equal(viommu_process(iommu, 0), -EAGAIN);
    assert_int_equal(viommu_reset(iommu), -EAGAIN);
    assert_int_equal(viommu_device_translate(device, NULL, 0, VIOMMU_READ, &out), -EAGAIN);
    assert_int_equal(viommu_device_read(device, NULL, 0, &word, 4), -EAGAIN);
    assert_int_equal(viommu_device_write(device, NULL, 0xfee00000, &word, 4), -EAGAIN);
    assert_int_equal(viommu_device_ats_translate(device, NULL, 0, 1, false, &entry, 1), -EAGAIN);
    assert_int_equal(viommu_start(iommu), 0);
    assert_int_equal(viommu_device_translate(device, NULL, 0, VIOMMU_READ, &out), 0);
    viommu_destroy(iommu);
}

/* Several units on one memory do not know of one another. */
static void test_two_units(void **state)
{
    struct unit a;
    struct guest_config config = {.vtd.address_width = 39};
    struct guest b;

    (void)state;
    unit_init(&a, &(struct viommu_vtd_config){0});
    config.memory = a.guest.memory;
    config.ram = a.guest.ram;
    assert_int_equal(guest_init(&b, &config), 0);
    unit_translate(&a);
    assert_int_equal(guest_read(&b, SPEC_GSTS, 4), 0);
    assert_int_equal(unit_read(&a, 0x1000), -EFAULT);
    assert_int_equal(guest_read(&b, SPEC_FSTS, 4), 0);
    assert_int_equal(viommu_reset(b.iommu), 0);
    assert_int_equal(guest_read(&a.guest, SPEC_GSTS, 4), SPEC_TE | SPEC_SRTP);
    guest_fini(&b);
    unit_fini(&a);
}

/* Readable when there is work; not after it is done. */
static void test_event_fd(void **state)
{
    struct unit unit;
    struct pollfd pollfd = {.events = POLLIN};

    (void)state;
    unit_init(&unit, &(struct viommu_vtd_config){0});
    pollfd.fd = viommu_event_fd(unit.guest.iommu);
    guest_process(&unit.guest);
    assert_int_equal(poll(&pollfd, 1, 0), 0);
    guest_write(&unit.guest, SPEC_GCMD, 4, SPEC_SRTP);
    assert_int_equal(poll(&pollfd, 1, 0), 1);
    guest_process(&unit.guest);
    assert_int_equal(poll(&pollfd, 1, 0), 0);
    /* A command that waits for DMA: it wakes by itself. */
    assert_int_equal(viommu_dma_begin(unit.guest.iommu), 0);
    guest_write(&unit.guest, SPEC_GCMD, 4, SPEC_SRTP);
    guest_process(&unit.guest);
    viommu_dma_end(unit.guest.iommu);
    assert_int_equal(poll(&pollfd, 1, 2000), 1);
    guest_process(&unit.guest);
    assert_int_equal(guest_read(&unit.guest, SPEC_GSTS, 4), SPEC_SRTP);
    assert_int_equal(poll(&pollfd, 1, 0), 0);
    /* A fault with a message to send. */
    unit_fault_message(&unit, 0xfee00000, 1);
    unit_translate(&unit);
    guest_process(&unit.guest);
    assert_int_equal(poll(&pollfd, 1, 0), 0);
    (void)unit_read(&unit, 0);
    assert_int_equal(poll(&pollfd, 1, 0), 1);
    guest_process(&unit.guest);
    assert_int_equal(unit.interrupt_count, 1);
    assert_int_equal(poll(&pollfd, 1, 0), 0);
    unit_fini(&unit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_address_widths),
        cmocka_unit_test(test_other_ranges),
        cmocka_unit_test(test_common_configuration),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_default_capabilities),
        cmocka_unit_test(test_capabilities_of_configurations),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_configure),
        cmocka_unit_test(test_configure_with_devices),
        cmocka_unit_test(test_before_start),
        cmocka_unit_test(test_two_units),
        cmocka_unit_test(test_event_fd),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
