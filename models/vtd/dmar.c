/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The builder of the ACPI DMAR table (VT-d specification, chapter "BIOS Considerations").
 *
 * The table is a 48-byte header, then remapping structures in the order of their types: DRHD (a
 * unit), RMRR (reserved memory), ATSR (root ports with device-TLBs). Each ends in device scopes.
 * The builder checks everything first, then writes (acpi/table.h).
 */
#include <viommu/dmar.h>

#include "acpi/table.h"
#include "range/range_set.h"

#include <errno.h>

enum {
    DRHD = 0,
    DRHD_SIZE = 16,
    DRHD_INCLUDE_PCI_ALL = 1,
    RMRR = 1,
    RMRR_SIZE = 24,
    ATSR = 2,
    ATSR_SIZE = 8,
    ATSR_ALL_PORTS = 1,
    SCOPE_SIZE = 6,
    FLAG_INTR_REMAP = 1,
    FLAG_X2APIC_OPT_OUT = 2,
    PAGE = 4096,
    REGISTER_PAGES_LOG2_MAX = 15, /* the size field of a DRHD has 4 bits */
};

static int check_scope(const struct viommu_dmar_scope *scope)
{
    bool numbered =
        scope->type == VIOMMU_DMAR_SCOPE_IOAPIC || scope->type == VIOMMU_DMAR_SCOPE_HPET;

    if (scope->type < VIOMMU_DMAR_SCOPE_ENDPOINT || scope->type > VIOMMU_DMAR_SCOPE_HPET) {
        return -EINVAL;
    }
    if (scope->enumeration_id && !numbered) {
        return -EINVAL;
    }
    if (!scope->path_length || scope->path_length > VIOMMU_DMAR_PATH_MAX) {
        return -EINVAL;
    }
    for (unsigned i = 0; i < scope->path_length; i++) {
        if (scope->path[i].device > 31 || scope->path[i].function > 7) {
            return -EINVAL;
        }
    }
    return 0;
}

/* Checks the scopes of one structure and that its length, with them, fits its 16-bit field. */
static int check_scopes(const struct viommu_dmar_scope *scopes, size_t count, size_t fixed_size)
{
    size_t length = fixed_size;

    if (count && !scopes) {
        return -EINVAL;
    }
    for (size_t i = 0; i < count; i++) {
        int error = check_scope(&scopes[i]);

        if (error) {
            return error;
        }
        length += SCOPE_SIZE + 2u * scopes[i].path_length;
        if (length > UINT16_MAX) {
            return -E2BIG;
        }
    }
    return 0;
}

/* The exponent of a register space of 2^n pages, or a negative errno. */
static int register_pages_log2(uint64_t size)
{
    uint64_t pages = size / PAGE;

    if (size % PAGE || !pages || (pages & (pages - 1))) {
        return -EINVAL;
    }
    if (pages > (uint64_t)1 << REGISTER_PAGES_LOG2_MAX) {
        return -EINVAL;
    }
    return __builtin_ctzll(pages);
}

/* The unit that takes what is left of a segment comes after all others of that segment. */
static int check_include_all(const struct viommu_dmar *dmar, size_t index)
{
    for (size_t i = index + 1; i < dmar->unit_count; i++) {
        if (dmar->units[i].segment == dmar->units[index].segment) {
            return -EINVAL;
        }
    }
    return 0;
}

static int check_units(const struct viommu_dmar *dmar)
{
    if (dmar->unit_count && !dmar->units) {
        return -EINVAL;
    }
    for (size_t i = 0; i < dmar->unit_count; i++) {
        const struct viommu_dmar_unit *unit = &dmar->units[i];
        int error = check_scopes(unit->scopes, unit->scope_count, DRHD_SIZE);

        if (!error && unit->base % PAGE) {
            error = -EINVAL;
        }
        if (!error && register_pages_log2(unit->register_size) < 0) {
            error = -EINVAL;
        }
        if (!error && unit->register_size - 1 > UINT64_MAX - unit->base) {
            error = -EINVAL;
        }
        if (!error && unit->include_all) {
            error = check_include_all(dmar, i);
        }
        if (error) {
            return error;
        }
    }
    return 0;
}

static int check_reserved(const struct viommu_dmar *dmar)
{
    if (dmar->reserved_count && !dmar->reserved) {
        return -EINVAL;
    }
    for (size_t i = 0; i < dmar->reserved_count; i++) {
        const struct viommu_dmar_reserved *reserved = &dmar->reserved[i];
        int error = check_scopes(reserved->scopes, reserved->scope_count, RMRR_SIZE);

        if (error) {
            return error;
        }
        /* The format wants at least one device that uses the memory. */
        if (!reserved->scope_count || reserved->first > reserved->last) {
            return -EINVAL;
        }
        if (reserved->first % PAGE || reserved->last % PAGE != PAGE - 1) {
            return -EINVAL;
        }
    }
    return 0;
}

static int check_ats(const struct viommu_dmar *dmar)
{
    if (dmar->ats_count && !dmar->ats) {
        return -EINVAL;
    }
    for (size_t i = 0; i < dmar->ats_count; i++) {
        int error = check_scopes(dmar->ats[i].scopes, dmar->ats[i].scope_count, ATSR_SIZE);

        if (error) {
            return error;
        }
    }
    return 0;
}

static int check(const struct viommu_dmar *dmar)
{
    int error;

    if (!dmar->host_address_width || dmar->host_address_width > 64) {
        return -EINVAL;
    }
    error = check_units(dmar);
    if (!error) {
        error = check_reserved(dmar);
    }
    if (!error) {
        error = check_ats(dmar);
    }
    return error;
}

static size_t scopes_size(const struct viommu_dmar_scope *scopes, size_t count)
{
    size_t size = 0;

    for (size_t i = 0; i < count; i++) {
        size += SCOPE_SIZE + 2u * scopes[i].path_length;
    }
    return size;
}

static void put_scopes(struct acpi_cursor *cursor, const struct viommu_dmar_scope *scopes,
                       size_t count)
{
    for (size_t i = 0; i < count; i++) {
        acpi_put(cursor, scopes[i].type, 1);
        acpi_put(cursor, SCOPE_SIZE + 2u * scopes[i].path_length, 1);
        acpi_put(cursor, 0, 2);
        acpi_put(cursor, scopes[i].enumeration_id, 1);
        acpi_put(cursor, scopes[i].start_bus, 1);
        for (unsigned j = 0; j < scopes[i].path_length; j++) {
            acpi_put(cursor, scopes[i].path[j].device, 1);
            acpi_put(cursor, scopes[i].path[j].function, 1);
        }
    }
}

static void put_header(struct acpi_cursor *cursor, const struct viommu_dmar *dmar)
{
    acpi_put_header(cursor, "DMAR", 1);
    acpi_put(cursor, dmar->host_address_width - 1u, 1);
    acpi_put(cursor, (dmar->interrupt_remapping ? FLAG_INTR_REMAP : 0) |
                         (dmar->x2apic_opt_out ? FLAG_X2APIC_OPT_OUT : 0), 1);
    acpi_put(cursor, 0, 8);
    acpi_put(cursor, 0, 2);
}

static void put_unit(struct acpi_cursor *cursor, const struct viommu_dmar_unit *unit)
{
    acpi_put(cursor, DRHD, 2);
    acpi_put(cursor, DRHD_SIZE + scopes_size(unit->scopes, unit->scope_count), 2);
    acpi_put(cursor, unit->include_all ? DRHD_INCLUDE_PCI_ALL : 0, 1);
    acpi_put(cursor, (unsigned)register_pages_log2(unit->register_size), 1);
    acpi_put(cursor, unit->segment, 2);
    acpi_put(cursor, unit->base, 8);
    put_scopes(cursor, unit->scopes, unit->scope_count);
}

static void put_reserved(struct acpi_cursor *cursor, const struct viommu_dmar_reserved *reserved)
{
    acpi_put(cursor, RMRR, 2);
    acpi_put(cursor, RMRR_SIZE + scopes_size(reserved->scopes, reserved->scope_count), 2);
    acpi_put(cursor, 0, 2);
    acpi_put(cursor, reserved->segment, 2);
    acpi_put(cursor, reserved->first, 8);
    acpi_put(cursor, reserved->last, 8);
    put_scopes(cursor, reserved->scopes, reserved->scope_count);
}

static void put_ats(struct acpi_cursor *cursor, const struct viommu_dmar_ats *ats)
{
    acpi_put(cursor, ATSR, 2);
    acpi_put(cursor, ATSR_SIZE + scopes_size(ats->scopes, ats->scope_count), 2);
    acpi_put(cursor, ats->all_ports ? ATSR_ALL_PORTS : 0, 1);
    acpi_put(cursor, 0, 1);
    acpi_put(cursor, ats->segment, 2);
    put_scopes(cursor, ats->scopes, ats->scope_count);
}

int64_t viommu_dmar_build(const struct viommu_dmar *dmar, void *table, size_t size)
{
    struct acpi_cursor cursor = {.table = table, .size = size};
    int error = check(dmar);

    if (error) {
        return error;
    }
    put_header(&cursor, dmar);
    for (size_t i = 0; i < dmar->unit_count; i++) {
        put_unit(&cursor, &dmar->units[i]);
    }
    for (size_t i = 0; i < dmar->reserved_count; i++) {
        put_reserved(&cursor, &dmar->reserved[i]);
    }
    for (size_t i = 0; i < dmar->ats_count; i++) {
        put_ats(&cursor, &dmar->ats[i]);
    }
    return acpi_finish(&cursor);
}

/* ---- of an IOVA space ---- */

static int gather(const struct viommu_iova_owner *owner, struct range_set *set)
{
    const struct viommu_iova_reservation *reservation = NULL;
    int error = 0;

    while (!error && (reservation = viommu_iova_reservation_next(owner, reservation))) {
        struct viommu_range range = viommu_iova_reservation_range(reservation);

        if (viommu_iova_reservation_type(reservation) == VIOMMU_IOVA_DIRECT) {
            error = range_set_add(set, range.first & ~(uint64_t)(PAGE - 1),
                                  range.last | (PAGE - 1));
        }
    }
    return error;
}

int viommu_dmar_reserve(const struct viommu_iova_owner *owner,
                        const struct viommu_dmar_reserved *like,
                        struct viommu_dmar_reserved *out, size_t *count)
{
    struct range_cursor cursor;
    struct range_set set;
    struct range_run run;
    size_t room;
    int error;

    if (!owner || !like || !count || (*count && !out)) {
        return -EINVAL;
    }
    room = *count;
    range_set_init(&set);
    error = gather(owner, &set);
    if (!error) {
        *count = set.map.count;
        error = *count > room ? -ENOSPC : 0;
    }
    range_cursor_seek(&cursor, &set.map, 0);
    for (size_t i = 0; !error && range_cursor_next(&cursor, UINT64_MAX, &run); i++) {
        out[i] = *like;
        out[i].first = run.first;
        out[i].last = run.last;
    }
    range_set_fini(&set);
    return error;
}
