/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is copied from and to guest memory: queue entries, PRP lists, and the data of the few
 * commands that are not transfers of blocks. All of it is counted.
 */
#include "device.h"

#include <errno.h>

/* A function that is no bus master has no access to memory. */
static bool may_access(const struct nvme *nvme)
{
    return pci_config_bus_master(&nvme->function.config);
}

static int account(struct nvme *nvme, int ret, size_t size)
{
    if (ret < 0) {
        nvme->stats.dma_errors++;
    } else {
        nvme->stats.bytes_copied += size;
    }
    return ret;
}

int nvme_read_memory(struct nvme *nvme, uint64_t iova, void *data, size_t size)
{
    int ret = may_access(nvme) ? nvme->dma.read(nvme->dma.opaque, iova, data, size) : -EACCES;

    return account(nvme, ret, size);
}

int nvme_write_memory(struct nvme *nvme, uint64_t iova, const void *data, size_t size)
{
    int ret = may_access(nvme) ? nvme->dma.write(nvme->dma.opaque, iova, data, size) : -EACCES;

    return account(nvme, ret, size);
}

static int read_list(void *opaque, uint64_t iova, void *data, size_t size)
{
    return nvme_read_memory(opaque, iova, data, size);
}

uint16_t nvme_ranges(struct nvme *nvme, const struct nvme_sqe *sqe, size_t length,
                     struct device_dma_range ranges[NVME_RANGES_MAX], size_t *count)
{
    const struct nvme_prp_memory memory = {
        .read = read_list,
        .opaque = nvme,
        .page_shift = nvme_page_shift(nvme),
    };
    int ret = nvme_prp_decode(&memory, sqe->prp1, sqe->prp2, length, ranges, count);

    return ret == 0         ? NVME_OK
           : ret == -EINVAL ? NVME_PRP_OFFSET_INVALID | NVME_DNR
                            : NVME_DATA_TRANSFER_ERROR;
}

uint16_t nvme_copy_in(struct nvme *nvme, const struct nvme_sqe *sqe, void *data, size_t size)
{
    struct device_dma_range ranges[NVME_RANGES_MAX];
    size_t count, done = 0;
    uint16_t status = nvme_ranges(nvme, sqe, size, ranges, &count);

    for (size_t i = 0; status == NVME_OK && i < count; i++) {
        if (nvme_read_memory(nvme, ranges[i].iova, (char *)data + done, ranges[i].size) < 0) {
            status = NVME_DATA_TRANSFER_ERROR;
        }
        done += ranges[i].size;
    }
    return status;
}

void nvme_put(uint8_t *data, unsigned offset, unsigned size, uint64_t value)
{
    for (unsigned i = 0; i < size; i++) {
        data[offset + i] = (uint8_t)(value >> (8 * i));
    }
}

/* Write what lies in [at, at + range->size) of the data and the zeroes that follow it. */
static int write_range(struct nvme *nvme, const struct device_dma_range *range, const char *data,
                       size_t size, size_t at)
{
    static const char zeroes[4096];
    size_t done = 0;
    int ret = 0;

    while (ret == 0 && done < range->size) {
        bool inside = at + done < size;
        size_t most = inside ? size - at - done : sizeof(zeroes);
        size_t piece = range->size - done < most ? range->size - done : most;

        ret = nvme_write_memory(nvme, range->iova + done, inside ? data + at + done : zeroes,
                                piece);
        done += piece;
    }
    return ret;
}

uint16_t nvme_copy_out(struct nvme *nvme, const struct nvme_sqe *sqe, const void *data,
                       size_t size, size_t length)
{
    struct device_dma_range ranges[NVME_RANGES_MAX];
    size_t count, at = 0;
    uint16_t status = nvme_ranges(nvme, sqe, length, ranges, &count);

    for (size_t i = 0; status == NVME_OK && i < count; i++) {
        if (write_range(nvme, &ranges[i], data, size, at) < 0) {
            status = NVME_DATA_TRANSFER_ERROR;
        }
        at += ranges[i].size;
    }
    return status;
}
