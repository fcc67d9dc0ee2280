/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of devices on a bus: a device's region, an instance's registers, and DMA to what is no
 * memory.
 *
 *     master -> the device's region -> physical: RAM at 0, ports at PORTS, the unit's registers,
 *                                      who takes interrupts, a second IOMMU
 */
#include "base/alloc.h"
#include "iommu/test_model.h"
#include "space/test_space.h"

#include <errno.h>
#include <viommu/device_region.h>

#define PORTS      0x100000ull
#define REGISTERS  0x110000ull
#define SECOND     0x200000ull
#define INTERRUPTS 0xfee00000ull

static struct test_model model;
static struct viommu_device *device;
static struct viommu_bus *bus;
static struct viommu_space *physical;
static struct viommu_space *master;
static struct viommu_region *region;
static struct test_iommu second;
static unsigned char ram[64 * KIB];

static struct {
    unsigned reads;
    unsigned writes;
    uint64_t offset;
    uint64_t value;
    uint16_t requester;
    bool in_section;
    int (*then)(void); /* called by a write */
    int then_error;
} port;

static int on_read(void *opaque, uint64_t offset, unsigned size,
                   const struct viommu_bus_attrs *attrs, uint64_t *value)
{
    (void)opaque;
    (void)size;
    (void)attrs;
    port.reads++;
    *value = offset;
    return 0;
}

static int on_write(void *opaque, uint64_t offset, unsigned size,
                    const struct viommu_bus_attrs *attrs, uint64_t value)
{
    (void)opaque;
    (void)size;
    port.writes++;
    port.offset = offset;
    port.value = value;
    port.requester = attrs->requester;
    port.in_section |= epoch_inside(model.iommu.epoch);
    if (port.then) {
        port.then_error = port.then();
    }
    return 0;
}

static const struct viommu_region_ops port_ops = {.read = on_read, .write = on_write};

/* The second IOMMU, which notes whether the device's translation is held while it is asked. */
static bool second_in_section;

static void second_translate(void *opaque, uint64_t address, unsigned index,
                             struct viommu_hop *hop)
{
    second_in_section = epoch_inside(model.iommu.epoch);
    test_translate(opaque, address, index, hop);
}

static const struct viommu_region_iommu_ops second_ops = {
    .index_count = 2,
    .index_of = test_index_of,
    .translate = second_translate,
    .refused = test_refused,
};

static void add_second(struct viommu_region *container)
{
    struct viommu_region_config config = {.kind = VIOMMU_REGION_IOMMU,
                                          .last = TEST_PAGES * 4096 - 1,
                                          .iommu = &second_ops,
                                          .opaque = &second};

    test_iommu_init(bus, &second, 4096, physical);
    viommu_region_destroy(second.region);
    assert_int_equal(viommu_region_create(bus, &config, &second.region), 0);
    assert_int_equal(viommu_region_add(container, second.region, SECOND, 0), 0);
}

static void add_ports(struct viommu_region *container, uint64_t at)
{
    struct viommu_region_config config = {
        .kind = VIOMMU_REGION_MMIO, .last = 0xfff, .ops = &port_ops};
    struct viommu_region *ports;

    assert_int_equal(viommu_region_create(bus, &config, &ports), 0);
    assert_int_equal(viommu_region_add(container, ports, at, 0), 0);
}

static int setup(void **state)
{
    struct viommu_region *root;
    struct viommu_region *registers;

    (void)state;
    memset(ram, 0, sizeof(ram));
    memset(&port, 0, sizeof(port));
    model_init(&model);
    device = model_device(&model, 0x28);
    assert_int_equal(viommu_bus_create(&bus), 0);
    root = test_region(bus, "root", VIOMMU_REGION_CONTAINER, 0, NULL);
    assert_int_equal(viommu_space_create(root, &physical), 0);
    assert_int_equal(viommu_region_add(root, test_region(bus, "ram", VIOMMU_REGION_RAM,
                                                         sizeof(ram), ram), 0, 0), 0);
    add_ports(root, PORTS);
    add_ports(root, INTERRUPTS);
    assert_int_equal(viommu_registers_region_create(&model.iommu, bus, "registers", 4096,
                                                    &registers), 0);
    assert_int_equal(viommu_region_add(root, registers, REGISTERS, 0), 0);
    add_second(root);
    assert_int_equal(viommu_device_region_create(device, bus, "device", physical, &region), 0);
    assert_int_equal(viommu_space_create(region, &master), 0);
    assert_int_equal(viommu_bus_commit(bus), 0);
    model.iommu.space = physical;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (region) {
        assert_int_equal(viommu_device_region_destroy(region), 0);
    }
    viommu_bus_destroy(bus);
    model_fini(&model);
    return 0;
}

static int poke(uint64_t at, uint32_t value)
{
    return viommu_space_write(master, at, &value, 4, &normal);
}

static int peek(uint64_t at)
{
    uint32_t value;

    return viommu_space_read(master, at, &value, 4, &normal);
}

static int dma(uint64_t at, uint32_t value)
{
    return viommu_device_write(device, NULL, at, &value, 4);
}

static uint64_t reentries(void)
{
    struct viommu_bus_stats stats;

    viommu_bus_stats(bus, &stats, sizeof(stats));
    return stats.reentries;
}

/* ---- a device's region ---- */

static void test_translates_as_the_device(void **state)
{
    struct viommu_route route;

    (void)state;
    model.offset = 0x3000;
    assert_int_equal(poke(0x1010, 0x11223344), 0);
    assert_int_equal(ram[0x4010], 0x44);
    assert_int_equal(viommu_space_resolve(master, 0x1010, &normal, &route), 0);
    assert_int_equal(route.offset, 0x4010);
    assert_int_equal(route.first, 0x1000);
    assert_int_equal(route.last, 0x1fff);
    assert_int_equal(route.hops, 1);
    /* Requests of the device go another way, and come to its memory. */
    assert_int_equal(dma(0x1010, 5), 0);
    assert_int_equal(model.ram[0x4010], 5);
}

static void test_looking_records_nothing(void **state)
{
    struct viommu_route route;
    uint64_t refused;

    (void)state;
    model.perm = VIOMMU_READ;
    model.last = 0xffff;
    refused = model_stats(&model).refused;
    assert_int_equal(viommu_space_resolve(master, 0x1000, &normal, &route), 0);
    assert_int_equal(route.perm, VIOMMU_READ | VIOMMU_EXEC);
    assert_int_equal(model_stats(&model).refused, refused);
    assert_int_equal(peek(0x1000), 0);
    assert_int_equal(poke(0x1000, 1), -EFAULT);
    assert_int_equal(model_stats(&model).refused, refused + 1);
    assert_int_equal(peek(0x20000), -EFAULT);
}

static void test_interrupts_go_on_as_they_are(void **state)
{
    (void)state;
    model.offset = 0x3000;
    assert_int_equal(poke(INTERRUPTS + 8, 0x41), 0);
    assert_int_equal(port.writes, 1);
    assert_int_equal(port.offset, 8);
    assert_int_equal(port.value, 0x41);
    assert_int_equal(peek(INTERRUPTS), -EFAULT);
    assert_int_equal(model.refused_interrupts, 1);
}

static void test_denied(void **state)
{
    (void)state;
    iommu_lock(&model.iommu);
    device_deny(device, -EIO, "a test");
    iommu_unlock(&model.iommu);
    assert_int_equal(poke(0x1000, 1), -EPERM);
    assert_int_equal(viommu_device_reset(device), 0);
    assert_int_equal(poke(0x1000, 1), 0);
}

/* ---- CPUs behind it ---- */

static struct viommu_cpu *cpu_begin(void)
{
    struct viommu_cpu_config config = {0};
    struct viommu_cpu *cpu;

    assert_int_equal(viommu_cpu_create(bus, &config, &cpu), 0);
    assert_int_equal(viommu_cpu_set_space(cpu, 0, master, &normal), 0);
    assert_int_equal(viommu_cpu_begin(cpu), 0);
    return cpu;
}

static bool cached(struct viommu_cpu *cpu, uint64_t at)
{
    return viommu_tlb_find(viommu_cpu_tlb(cpu), 0, at, 4, VIOMMU_CPU_READ) != NULL;
}

static struct wait *post_unmap(uint64_t first)
{
    struct viommu_change change = {
        .kind = VIOMMU_CHANGE_UNMAP, .first = first, .last = first + 0xfff};
    struct wait *wait = &model.waits[model.wait_count++];
    uint16_t id = 0x28;

    *wait = (struct wait){0};
    iommu_lock(&model.iommu);
    notify_post(&model.iommu, &change, model_has_id, &id, wait);
    iommu_unlock(&model.iommu);
    model_process(&model);
    return wait;
}

static void test_a_change_waits_for_cpus(void **state)
{
    struct viommu_cpu *cpu = cpu_begin();
    struct wait *wait;

    (void)state;
    viommu_cpu_fill(cpu, 0, 0x1000);
    viommu_cpu_fill(cpu, 0, 0x2000);
    wait = post_unmap(0x1000);
    assert_int_equal(wait->deliveries, 1);
    assert_int_equal(model.iommu.notify.followed, 1);
    assert_true(cached(cpu, 0x1000));
    viommu_cpu_safe_point(cpu, viommu_cpu_tlb(cpu));
    assert_false(cached(cpu, 0x1000));
    assert_true(cached(cpu, 0x2000));
    model_process(&model);
    assert_int_equal(wait->deliveries, 0);
    assert_int_equal(model.iommu.notify.followed, 0);
    assert_false(wait->timed_out);
    viommu_cpu_end(cpu);
    /* Nobody runs: at once. */
    assert_int_equal(post_unmap(0x2000)->deliveries, 0);
    viommu_cpu_destroy(cpu);
}

static void test_a_cpu_that_does_not_stop(void **state)
{
    struct viommu_cpu *cpu = cpu_begin();
    struct wait *wait;

    (void)state;
    viommu_cpu_fill(cpu, 0, 0x1000);
    viommu_cpu_fill(cpu, 0, 0x2000);
    wait = post_unmap(0x1000);
    model.now += 100 * MODEL_MS;
    model_process(&model);
    assert_true(wait->timed_out);
    assert_int_equal(wait->deliveries, 0);
    assert_int_equal(model.iommu.notify.followed, 0);
    assert_true(atomic_load(&device->denied));
    viommu_cpu_safe_point(cpu, viommu_cpu_tlb(cpu));
    assert_false(cached(cpu, 0x2000));
    viommu_cpu_fill(cpu, 0, 0x2000);
    assert_false(cached(cpu, 0x2000));
    viommu_cpu_end(cpu);
    viommu_cpu_destroy(cpu);
}

static int renumber(void)
{
    return viommu_device_set_requester(device, 0x30);
}

static int reset(void)
{
    return viommu_reset(&model.iommu);
}

static int leave(void)
{
    int ret = viommu_device_region_destroy(region);

    region = NULL;
    return ret;
}

static void test_what_tells_no_subscriber(void **state)
{
    static int (*const ways[])(void) = {renumber, reset};
    struct viommu_cpu *cpu = cpu_begin();

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        viommu_cpu_fill(cpu, 0, 0x1000);
        assert_true(cached(cpu, 0x1000));
        assert_int_equal(ways[i](), 0);
        viommu_cpu_safe_point(cpu, viommu_cpu_tlb(cpu));
        assert_false(cached(cpu, 0x1000));
    }
    /* The region goes: not while this thread runs the CPU, which would not stop. */
    viommu_cpu_fill(cpu, 0, 0x1000);
    assert_int_equal(viommu_device_region_destroy(region), -EDEADLK);
    assert_int_equal(poke(0x1000, 1), 0);
    viommu_cpu_end(cpu);
    assert_int_equal(leave(), 0);
    assert_int_equal(viommu_cpu_begin(cpu), 0);
    assert_false(cached(cpu, 0x1000));
    viommu_cpu_end(cpu);
    viommu_cpu_destroy(cpu);
}

/* ---- life ---- */

static void test_given_back(void **state)
{
    struct viommu_region *other;

    (void)state;
    assert_int_equal(leave(), 0);
    assert_int_equal(poke(0x1000, 1), -EIO);
    assert_int_equal(viommu_device_remove(device), 0);
    assert_int_equal(poke(0x1000, 1), -EIO);
    device = model_device(&model, 0x28);
    assert_int_equal(viommu_device_region_create(device, bus, NULL, NULL, &other), -EINVAL);
    assert_int_equal(viommu_registers_region_create(&model.iommu, bus, NULL, 0, &other), -EINVAL);
    assert_int_equal(viommu_device_region_destroy(NULL), 0);
    for (unsigned i = 1;; i++) {
        int error;

        base_alloc_fail_at(i);
        error = viommu_device_region_create(device, bus, "again", physical, &other);
        base_alloc_fail_at(0);
        if (!error) {
            break;
        }
        assert_int_equal(error, -ENOMEM);
        assert_null(device->subscribers);
    }
    assert_int_equal(viommu_device_region_destroy(other), 0);
}

static void test_not_started(void **state)
{
    (void)state;
    atomic_store(&model.iommu.started, false);
    assert_int_equal(poke(0x1000, 1), -EIO);
    atomic_store(&model.iommu.started, true);
}

/* ---- registers, and what comes back ---- */

static int poke_ports(void)
{
    return poke(PORTS, 9);
}

static int dma_ports(void)
{
    return dma(PORTS, 9);
}

static int dma_registers(void)
{
    return dma(REGISTERS, 9);
}

static int dma_memory(void)
{
    return dma(0x1000, 9);
}

static void test_own_registers(void **state)
{
    uint32_t value = 7;

    (void)state;
    assert_int_equal(viommu_space_write(physical, REGISTERS, &value, 4, &normal), 0);
    assert_int_equal(model.reg, 7);
    assert_int_equal(poke(REGISTERS, 8), -EDEADLK);
    assert_int_equal(peek(REGISTERS), -EDEADLK);
    assert_int_equal(dma(REGISTERS, 8), -EDEADLK);
    assert_int_equal(model.reg, 7);
    assert_int_equal(reentries(), 3);
    /* By way of another IOMMU, too. */
    second.to[1][0] = REGISTERS | 3;
    assert_int_equal(poke(SECOND, 8), -EDEADLK);
    assert_int_equal(dma(SECOND, 8), -EDEADLK);
    assert_int_equal(model.reg, 7);
}

static void test_callbacks_that_come_back(void **state)
{
    static const struct {
        int (*then)(void);
        int error;
    } cases[] = {{poke_ports, -EDEADLK},
                 {dma_ports, -EDEADLK},
                 {dma_registers, -EDEADLK},
                 {dma_memory, 0}};

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        port.then = cases[i].then;
        port.then_error = 1;
        assert_int_equal(dma(PORTS, 1), 0);
        assert_int_equal(port.then_error, cases[i].error);
        port.then_error = 1;
        assert_int_equal(poke(PORTS, 1), 0);
        assert_int_equal(port.then_error, cases[i].error);
    }
    assert_int_equal(port.writes, 8);
    assert_int_equal(reentries(), 6);
}

/* ---- DMA to what is no memory ---- */

static void test_peer_to_peer(void **state)
{
    unsigned char bytes[24];
    uint64_t value;

    (void)state;
    assert_int_equal(dma(PORTS + 4, 0x55), 0);
    assert_int_equal(port.offset, 4);
    assert_int_equal(port.value, 0x55);
    assert_int_equal(port.requester, 0x28);
    /* A callback holds no invalidation back. */
    assert_false(port.in_section);
    assert_false(epoch_inside(model.iommu.epoch));
    /* In pieces, each translated anew. */
    model.translations = 0;
    assert_int_equal(viommu_device_read(device, NULL, PORTS + 8, bytes, sizeof(bytes)), 0);
    assert_int_equal(port.reads, 3);
    assert_int_equal(model.translations, 3);
    memcpy(&value, bytes + 16, 8);
    assert_int_equal(value, 24);
    /* Memory is memory, also where the space shows something else. */
    assert_int_equal(dma(0x1000, 0x66), 0);
    assert_int_equal(model.ram[0x1000], 0x66);
    assert_int_equal(ram[0x1000], 0);
    /* Behind the memory the space may have more of it. */
    assert_int_equal(dma(0x400000, 1), -ENXIO);
    assert_int_equal(viommu_device_read(device, NULL, PORTS, NULL, 0), 0);
    model.iommu.space = NULL;
    assert_int_equal(dma(PORTS, 1), -ENXIO);
}

static void test_second_iommu(void **state)
{
    (void)state;
    second.to[1][1] = 0x5000 | 1;
    second.answer = -EACCES;
    assert_int_equal(dma(SECOND + 0x1000, 1), -EACCES);
    assert_int_equal(second.refusals, 1);
    second.to[1][1] = 0x5000 | 3;
    assert_int_equal(dma(SECOND + 0x1010, 0x77), 0);
    assert_int_equal(ram[0x5010], 0x77);
    assert_true(second_in_section);
    assert_false(epoch_inside(model.iommu.epoch));
}

/* It says again and again that it allows by now what it does not. */
static void test_endless_refusals(void **state)
{
    (void)state;
    second.to[1][1] = 0;
    second.answer = -EAGAIN;
    second.refusals = 0;
    assert_int_equal(dma(SECOND + 0x1000, 1), -EACCES);
    assert_int_equal(second.refusals, 16);
    assert_false(epoch_inside(model.iommu.epoch));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_translates_as_the_device, setup, teardown),
        cmocka_unit_test_setup_teardown(test_looking_records_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_interrupts_go_on_as_they_are, setup, teardown),
        cmocka_unit_test_setup_teardown(test_denied, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_change_waits_for_cpus, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_cpu_that_does_not_stop, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_tells_no_subscriber, setup, teardown),
        cmocka_unit_test_setup_teardown(test_given_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_not_started, setup, teardown),
        cmocka_unit_test_setup_teardown(test_own_registers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_callbacks_that_come_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_peer_to_peer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_second_iommu, setup, teardown),
        cmocka_unit_test_setup_teardown(test_endless_refusals, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
