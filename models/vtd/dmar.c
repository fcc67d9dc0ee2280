/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The builder of the ACPI DMAR table (VT-d specification, chapter "BIOS Considerations").
 *
 * The table is a 48-byte header, then remapping structures in the order of their types: DRHD (a
 * unit), RMRR (reserved memory), ATSR (root ports with device-TLBs). Each ends in device scopes.
 * The builder checks everything first, then writes through a cursor that only counts once the room
 * has run out; so one pass serves both to build a table and to learn its length. A table is little
 * endian.
 */
#include <viommu/dmar.h>

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
    OFFSET_LENGTH = 4,
    OFFSET_CHECKSUM = 9,
    PAGE = 4096,
    REGISTER_PAGES_LOG2_MAX = 15, /* the size field of a DRHD has 4 bits */
};

/* Where the next byte goes; what does not fit is counted only. */
struct cursor {
    uint8_t *table;
    size_t size;
    size_t length;
};

static void put_byte(struct cursor *cursor, uint8_t value)
{
    if (cursor->table && cursor->length < cursor->size) {
        cursor->table[cursor->length] = value;
    }
    cursor->length++;
}

/* The low `bytes` bytes of a value, lowest first. */
static void put(struct cursor *cursor, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        put_byte(cursor, (uint8_t)(value >> 8 * i));
    }
}

static void put_text(struct cursor *cursor, const char *text, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        put_byte(cursor, (uint8_t)text[i]);
    }
}

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

static void put_scopes(struct cursor *cursor, const struct viommu_dmar_scope *scopes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        put(cursor, scopes[i].type, 1);
        put(cursor, SCOPE_SIZE + 2u * scopes[i].path_length, 1);
        put(cursor, 0, 2);
        put(cursor, scopes[i].enumeration_id, 1);
        put(cursor, scopes[i].start_bus, 1);
        for (unsigned j = 0; j < scopes[i].path_length; j++) {
            put(cursor, scopes[i].path[j].device, 1);
            put(cursor, scopes[i].path[j].function, 1);
        }
    }
}

/* The length is filled in at the end, see finish(). */
static void put_header(struct cursor *cursor, const struct viommu_dmar *dmar)
{
    put_text(cursor, "DMAR", 4);
    put(cursor, 0, 4); /* length */
    put(cursor, 1, 1); /* revision */
    put(cursor, 0, 1); /* checksum */
    put_text(cursor, "VIOMMU", 6);
    put_text(cursor, "VIOMMU  ", 8);
    put(cursor, 1, 4); /* OEM revision */
    put_text(cursor, "VIOM", 4);
    put(cursor, 1, 4); /* creator revision */
    put(cursor, dmar->host_address_width - 1u, 1);
    put(cursor, (dmar->interrupt_remapping ? FLAG_INTR_REMAP : 0) |
                    (dmar->x2apic_opt_out ? FLAG_X2APIC_OPT_OUT : 0), 1);
    put(cursor, 0, 8);
    put(cursor, 0, 2);
}

static void put_unit(struct cursor *cursor, const struct viommu_dmar_unit *unit)
{
    put(cursor, DRHD, 2);
    put(cursor, DRHD_SIZE + scopes_size(unit->scopes, unit->scope_count), 2);
    put(cursor, unit->include_all ? DRHD_INCLUDE_PCI_ALL : 0, 1);
    put(cursor, (unsigned)register_pages_log2(unit->register_size), 1);
    put(cursor, unit->segment, 2);
    put(cursor, unit->base, 8);
    put_scopes(cursor, unit->scopes, unit->scope_count);
}

static void put_reserved(struct cursor *cursor, const struct viommu_dmar_reserved *reserved)
{
    put(cursor, RMRR, 2);
    put(cursor, RMRR_SIZE + scopes_size(reserved->scopes, reserved->scope_count), 2);
    put(cursor, 0, 2);
    put(cursor, reserved->segment, 2);
    put(cursor, reserved->first, 8);
    put(cursor, reserved->last, 8);
    put_scopes(cursor, reserved->scopes, reserved->scope_count);
}

static void put_ats(struct cursor *cursor, const struct viommu_dmar_ats *ats)
{
    put(cursor, ATSR, 2);
    put(cursor, ATSR_SIZE + scopes_size(ats->scopes, ats->scope_count), 2);
    put(cursor, ats->all_ports ? ATSR_ALL_PORTS : 0, 1);
    put(cursor, 0, 1);
    put(cursor, ats->segment, 2);
    put_scopes(cursor, ats->scopes, ats->scope_count);
}

/* Writes the length, then the checksum that makes all bytes add up to zero. */
static void finish(uint8_t *table, size_t length)
{
    struct cursor field = {.table = table, .size = length, .length = OFFSET_LENGTH};
    uint8_t sum = 0;

    put(&field, length, 4);
    for (size_t i = 0; i < length; i++) {
        sum = (uint8_t)(sum + table[i]);
    }
    table[OFFSET_CHECKSUM] = (uint8_t)-sum;
}

int64_t viommu_dmar_build(const struct viommu_dmar *dmar, void *table, size_t size)
{
    struct cursor cursor = {.table = table, .size = size};
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
    if (cursor.length > UINT32_MAX) {
        return -E2BIG;
    }
    if (table) {
        if (cursor.length > size) {
            return -ENOSPC;
        }
        finish(table, cursor.length);
    }
    return (int64_t)cursor.length;
}
