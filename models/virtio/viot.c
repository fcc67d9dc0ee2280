/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The builder of the ACPI VIOT table (ACPI specification, "Virtual I/O Translation Table").
 *
 * The table is a 48-byte header, then nodes: first the virtio-iommus, then ranges of PCI functions.
 * A range says where in the table the node of its virtio-iommu is, in 16 bits; since those come
 * first, their places are known when the ranges are written. The builder checks everything first.
 */
#include <viommu/viot.h>

#include "acpi/table.h"

#include <errno.h>

enum {
    HEADER_SIZE = 48,
    PCI_RANGE = 1,
    PCI_RANGE_SIZE = 24,
    VIRTIO_IOMMU_PCI = 3,
    VIRTIO_IOMMU_PCI_SIZE = 16,
};

static size_t iommu_offset(size_t index)
{
    return HEADER_SIZE + VIRTIO_IOMMU_PCI_SIZE * index;
}

static bool in_range(const struct viommu_viot_iommu *iommu, const struct viommu_viot_range *range)
{
    return iommu->segment == range->segment && iommu->function >= range->first &&
           iommu->function <= range->last;
}

static bool overlap(const struct viommu_viot_range *a, const struct viommu_viot_range *b)
{
    return a->segment == b->segment && a->first <= b->last && b->first <= a->last;
}

static int check_sizes(const struct viommu_viot *viot)
{
    if ((viot->iommu_count && !viot->iommus) || (viot->range_count && !viot->ranges)) {
        return -EINVAL;
    }
    if (viot->iommu_count > UINT16_MAX || viot->range_count > UINT16_MAX - viot->iommu_count) {
        return -E2BIG;
    }
    if (viot->iommu_count && iommu_offset(viot->iommu_count - 1) > UINT16_MAX) {
        return -E2BIG;
    }
    return 0;
}

static int check_iommus(const struct viommu_viot *viot)
{
    for (size_t i = 0; i < viot->iommu_count; i++) {
        for (size_t j = 0; j < i; j++) {
            if (viot->iommus[i].segment == viot->iommus[j].segment &&
                viot->iommus[i].function == viot->iommus[j].function) {
                return -EINVAL;
            }
        }
    }
    return 0;
}

static int check_range(const struct viommu_viot *viot, size_t index)
{
    const struct viommu_viot_range *range = &viot->ranges[index];

    if (range->first > range->last || range->iommu >= viot->iommu_count) {
        return -EINVAL;
    }
    for (size_t i = 0; i < viot->iommu_count; i++) {
        if (in_range(&viot->iommus[i], range)) {
            return -EINVAL;
        }
    }
    for (size_t i = 0; i < index; i++) {
        if (overlap(range, &viot->ranges[i])) {
            return -EINVAL;
        }
    }
    return 0;
}

static int check(const struct viommu_viot *viot)
{
    int error = check_sizes(viot);

    if (!error) {
        error = check_iommus(viot);
    }
    for (size_t i = 0; !error && i < viot->range_count; i++) {
        error = check_range(viot, i);
    }
    return error;
}

static void put_header(struct acpi_cursor *cursor, const struct viommu_viot *viot)
{
    acpi_put_header(cursor, "VIOT", 0);
    acpi_put(cursor, viot->iommu_count + viot->range_count, 2);
    acpi_put(cursor, HEADER_SIZE, 2);
    acpi_put(cursor, 0, 8);
}

static void put_iommu(struct acpi_cursor *cursor, const struct viommu_viot_iommu *iommu)
{
    acpi_put(cursor, VIRTIO_IOMMU_PCI, 1);
    acpi_put(cursor, 0, 1);
    acpi_put(cursor, VIRTIO_IOMMU_PCI_SIZE, 2);
    acpi_put(cursor, iommu->segment, 2);
    acpi_put(cursor, iommu->function, 2);
    acpi_put(cursor, 0, 8);
}

static void put_range(struct acpi_cursor *cursor, const struct viommu_viot_range *range)
{
    acpi_put(cursor, PCI_RANGE, 1);
    acpi_put(cursor, 0, 1);
    acpi_put(cursor, PCI_RANGE_SIZE, 2);
    acpi_put(cursor, range->first, 4); /* the first endpoint id */
    acpi_put(cursor, range->segment, 2);
    acpi_put(cursor, range->segment, 2);
    acpi_put(cursor, range->first, 2);
    acpi_put(cursor, range->last, 2);
    acpi_put(cursor, iommu_offset(range->iommu), 2);
    acpi_put(cursor, 0, 6);
}

int64_t viommu_viot_build(const struct viommu_viot *viot, void *table, size_t size)
{
    struct acpi_cursor cursor = {.table = table, .size = size};
    int error = check(viot);

    if (error) {
        return error;
    }
    put_header(&cursor, viot);
    for (size_t i = 0; i < viot->iommu_count; i++) {
        put_iommu(&cursor, &viot->iommus[i]);
    }
    for (size_t i = 0; i < viot->range_count; i++) {
        put_range(&cursor, &viot->ranges[i]);
    }
    return acpi_finish(&cursor);
}
