/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzzes what reads a host's words on reserved addresses: a text of sysfs, one of /proc/iomem, a
 * bridge's configuration space, and what VFIO tells of its IOMMU. The first byte chooses; what was
 * read is sound, or refused.
 */
#include <viommu/iova_source.h>

#include <base/alloc.h>
#include <vfio/info.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ROOM 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool holds)
{
    if (!holds) {
        abort();
    }
}

static void read_text(const uint8_t *data, size_t size, bool iomem)
{
    struct viommu_iova_request requests[ROOM];
    size_t count = ROOM;
    int error = iomem ? viommu_iova_read_iomem((const char *)data, size, requests, &count)
                      : viommu_iova_read_reserved_regions((const char *)data, size, requests,
                                                          &count);

    expect(error == 0 || (iomem && error == -EACCES) || error == -EIO ||
           (error == -ENOSPC && count > ROOM));
    for (size_t i = 0; !error && i < count; i++) {
        expect(requests[i].range.first <= requests[i].range.last);
        expect(viommu_iova_type_name(requests[i].type));
    }
}

static void read_bridge(const uint8_t *data, size_t size)
{
    struct viommu_pci_bridge bridge;
    int error = viommu_pci_bridge_read(data, size, &bridge);

    expect(error == 0 || error == -EIO || error == -ENODEV);
    expect(bridge.window_count <= 2 && (!error || !bridge.window_count));
    for (unsigned i = 0; i < bridge.window_count; i++) {
        expect(bridge.windows[i].first <= bridge.windows[i].last);
    }
}

/* The second byte: which allocation fails; 0: none. */
static void read_vfio(const uint8_t *data, size_t size)
{
    uint8_t fail = size ? data[0] : 0;
    struct vfio_info info;
    int error;

    base_alloc_fail_at(fail);
    error = vfio_info_parse(data + (size ? 1 : 0), size - (size ? 1 : 0), &info);
    base_alloc_fail_at(0);
    expect(error == 0 || error == -EIO || error == -ERANGE || (error == -ENOMEM && fail));
    expect(!error || (!info.allowed && !info.allowed_count));
    for (size_t i = 0; !error && i < info.allowed_count; i++) {
        const struct viommu_range *range = &info.allowed[i];

        expect(range->first < range->last && !(range->first & 0xfff) && !(~range->last & 0xfff));
        expect(!i || range->first > range[-1].last + 1);
    }
    if (!error) {
        vfio_info_free(&info);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *exactly;

    if (!size) {
        return 0;
    }
    /* Of its own, so that a read past its end is seen. */
    exactly = malloc(size - 1 ? size - 1 : 1);
    if (!exactly) {
        return 0;
    }
    memcpy(exactly, data + 1, size - 1);
    if (data[0] == 4) {
        read_vfio(exactly, size - 1);
    } else if (data[0] & 1) {
        read_text(exactly, size - 1, data[0] & 2);
    } else {
        read_bridge(exactly, size - 1);
    }
    free(exactly);
    return 0;
}
