/* SPDX-License-Identifier: BSD-2-Clause */
/* The bytes of an ACPI table; see table.h. */
#include "table.h"

#include <errno.h>

enum {
    OFFSET_LENGTH = 4,
    OFFSET_CHECKSUM = 9,
};

static void put_byte(struct acpi_cursor *cursor, uint8_t value)
{
    if (cursor->table && cursor->length < cursor->size) {
        cursor->table[cursor->length] = value;
    }
    cursor->length++;
}

void acpi_put(struct acpi_cursor *cursor, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        put_byte(cursor, (uint8_t)(value >> 8 * i));
    }
}

static void put_text(struct acpi_cursor *cursor, const char *text, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        put_byte(cursor, (uint8_t)text[i]);
    }
}

void acpi_put_header(struct acpi_cursor *cursor, const char *signature, uint8_t revision)
{
    put_text(cursor, signature, 4);
    acpi_put(cursor, 0, 4); /* length */
    acpi_put(cursor, revision, 1);
    acpi_put(cursor, 0, 1); /* checksum */
    put_text(cursor, "VIOMMU", 6);
    put_text(cursor, "VIOMMU  ", 8);
    acpi_put(cursor, 1, 4); /* OEM revision */
    put_text(cursor, "VIOM", 4);
    acpi_put(cursor, 1, 4); /* creator revision */
}

int64_t acpi_finish(struct acpi_cursor *cursor)
{
    struct acpi_cursor field = {
        .table = cursor->table, .size = cursor->length, .length = OFFSET_LENGTH,
    };
    uint8_t sum = 0;

    if (cursor->length > UINT32_MAX) {
        return -E2BIG;
    }
    if (!cursor->table) {
        return (int64_t)cursor->length;
    }
    if (cursor->length > cursor->size) {
        return -ENOSPC;
    }
    acpi_put(&field, cursor->length, 4);
    for (size_t i = 0; i < cursor->length; i++) {
        sum = (uint8_t)(sum + cursor->table[i]);
    }
    cursor->table[OFFSET_CHECKSUM] = (uint8_t)-sum;
    return (int64_t)cursor->length;
}
