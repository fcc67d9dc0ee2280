/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The bytes of an ACPI table, for the builders of tables.
 *
 * A table is written through a cursor that only counts once the room has run out, so one pass
 * serves both to build a table and to learn its length. A table is little endian; it begins with a
 * header of 36 bytes, the same for all, and all its bytes add up to zero.
 */
#ifndef VIOMMU_MODELS_ACPI_TABLE_H
#define VIOMMU_MODELS_ACPI_TABLE_H

#include <stddef.h>
#include <stdint.h>

/* Where the next byte goes; what does not fit is counted only. */
struct acpi_cursor {
    uint8_t *table; /* NULL: all is counted only */
    size_t size;
    size_t length;
};

/* The low `bytes` bytes of a value, lowest first. */
void acpi_put(struct acpi_cursor *cursor, uint64_t value, unsigned bytes);

/* The header; its length and checksum are filled in at the end. The signature has four letters. */
void acpi_put_header(struct acpi_cursor *cursor, const char *signature, uint8_t revision);

/*
 * Fills in length and checksum, unless all was only counted. Returns the length; -ENOSPC when the
 * table did not fit; -E2BIG when it is longer than the format allows.
 */
int64_t acpi_finish(struct acpi_cursor *cursor);

#endif
