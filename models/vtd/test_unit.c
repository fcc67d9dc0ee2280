/* SPDX-License-Identifier: BSD-2-Clause */
/* The unit of test_unit.h. */
#include "vtd/test_unit.h"

#include <string.h>

static void on_interrupt(void *opaque, const struct viommu_interrupt *interrupt)
{
    struct unit *unit = opaque;

    if (unit->interrupt_count < UNIT_RECORDS) {
        unit->interrupts[unit->interrupt_count] = *interrupt;
    }
    unit->interrupt_count++;
    if (unit->guest.status) {
        unit->status_at_interrupt = (uint32_t)guest_load(&unit->guest, unit->guest.status);
    }
}

static void on_event(void *opaque, const struct viommu_event *event)
{
    struct unit *unit = opaque;

    if (unit->event_count < UNIT_RECORDS) {
        unit->events[unit->event_count] = *event;
    }
    unit->event_count++;
}

static uint64_t on_clock(void *opaque)
{
    return ((struct unit *)opaque)->now;
}

void unit_init(struct unit *unit, const struct viommu_vtd_config *config)
{
    struct guest_config guest_config = {
        .vtd = *config,
        .callbacks = {.interrupt = on_interrupt, .event = on_event},
        .opaque = unit,
        .clock = on_clock,
    };
    struct viommu_device_config device = {
        .requester = viommu_requester(0, 5, 0),
        .ats = config->device_tlb,
    };

    memset(unit, 0, sizeof(*unit));
    unit->now = 1;
    unit->id = device.requester;
    unit->levels = config->address_width == 39 ? 3 : 4;
    guest_ok(guest_init(&unit->guest, &guest_config), "guest");
    guest_ok(viommu_device_add(unit->guest.iommu, &device, &unit->device), "device");
}

void unit_fini(struct unit *unit)
{
    guest_fini(&unit->guest);
}

void unit_translate_as(struct unit *unit, enum spec_translation_type type)
{
    struct guest *guest = &unit->guest;

    unit->table = guest_page(guest);
    guest_attach(guest, unit->id, UNIT_DOMAIN, unit->table, unit->levels, type);
    guest_set_root(guest);
    guest_command(guest, SPEC_TE, true);
}

void unit_translate(struct unit *unit)
{
    unit_translate_as(unit, SPEC_TT_UNTRANSLATED);
}

uint64_t unit_map(struct unit *unit, uint64_t iova, uint64_t gpa, unsigned level, uint64_t flags)
{
    return guest_map(&unit->guest, unit->table, unit->levels, iova, gpa, level, flags);
}

int unit_read(struct unit *unit, uint64_t iova)
{
    uint64_t value;

    return viommu_device_read(unit->device, NULL, iova, &value, sizeof(value));
}

int unit_write(struct unit *unit, uint64_t iova)
{
    uint64_t value = 0x5a5a5a5a5a5a5a5a;

    return viommu_device_write(unit->device, NULL, iova, &value, sizeof(value));
}

int unit_read_nothing(struct unit *unit, uint64_t iova)
{
    uint64_t value;

    return viommu_device_read(unit->device, NULL, iova, &value, 0);
}

uint64_t unit_gpa(struct unit *unit, uint64_t iova)
{
    struct viommu_translation out;

    assert_int_equal(viommu_device_translate(unit->device, NULL, iova, VIOMMU_READ, &out), 0);
    return out.gpa;
}

uint64_t unit_record(struct unit *unit, unsigned i)
{
    return guest_read(&unit->guest, unit->guest.fault_offset + 16 * i + 8, 8);
}

void unit_clear_record(struct unit *unit, unsigned i)
{
    guest_write(&unit->guest, unit->guest.fault_offset + 16 * i + 12, 4, 1u << 31);
}

void unit_expect_fault_as(struct unit *unit, unsigned reason, uint64_t iova, bool write,
                          unsigned type)
{
    struct guest *guest = &unit->guest;
    uint64_t status = guest_read(guest, SPEC_FSTS, 4);
    unsigned i = (unsigned)(status >> 8 & 0xff);
    uint64_t high = unit_record(unit, i);

    assert_true(status & SPEC_PPF);
    assert_int_equal(high, SPEC_F | (write ? 0 : SPEC_T1) | (uint64_t)type << 60 |
                               (uint64_t)reason << 32 | unit->id);
    assert_int_equal(guest_read(guest, guest->fault_offset + 16 * i, 8), iova & ~0xfffull);
    unit_clear_record(unit, i);
    unit_expect_no_fault(unit);
}

void unit_expect_fault(struct unit *unit, unsigned reason, uint64_t iova, bool write)
{
    unit_expect_fault_as(unit, reason, iova, write, 0);
}

void unit_expect_no_fault(struct unit *unit)
{
    assert_int_equal(guest_read(&unit->guest, SPEC_FSTS, 4) & (SPEC_PPF | SPEC_PFO), 0);
}

void unit_fault_message(struct unit *unit, uint64_t address, uint32_t data)
{
    guest_write(&unit->guest, SPEC_FEDATA, 4, data);
    guest_write(&unit->guest, SPEC_FEADDR, 8, address);
    guest_write(&unit->guest, SPEC_FECTL, 4, 0);
}

void unit_completion_message(struct unit *unit, uint64_t address, uint32_t data)
{
    guest_write(&unit->guest, SPEC_IEDATA, 4, data);
    guest_write(&unit->guest, SPEC_IEADDR, 8, address);
    guest_write(&unit->guest, SPEC_IECTL, 4, 0);
}

void unit_submit(struct unit *unit, struct spec_descriptor descriptor)
{
    guest_queue_put(&unit->guest, descriptor);
    guest_queue_kick(&unit->guest);
    guest_process(&unit->guest);
}

unsigned unit_head(struct unit *unit)
{
    return (unsigned)(guest_read(&unit->guest, SPEC_IQH, 8) >> 4);
}
