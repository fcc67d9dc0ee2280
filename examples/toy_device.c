/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A toy device server. Guest RAM is a file, FILE; each line of standard input is one event:
 *   m GPA VALUE      the guest stores 8 bytes in its memory
 *   w OFFSET VALUE   the guest writes a register of the IOMMU; r OFFSET 0 reads one
 *   d IOVA VALUE     the device, 00:05.0, writes 8 bytes by DMA
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <viommu/viommu.h>

int main(int argc, char **argv)
{
    const size_t size = 1 << 20;
    int fd = argc == 2 ? open(argv[1], O_RDWR) : -1;
    void *ram = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    struct viommu_memory_slot slot = {.first = 0, .last = size - 1, .host = ram, .fd = fd};
    struct viommu_device_config where = {.requester = viommu_requester(0, 5, 0)};
    struct viommu_vtd_config vtd = {0};
    struct viommu_config config = {0};
    struct viommu_memory_batch *batch;
    struct viommu_device *device;
    struct viommu *iommu;
    uint64_t address, value;
    char what;

    if (ram == MAP_FAILED || viommu_memory_create(&config.memory) ||
        viommu_memory_batch_begin(config.memory, &batch) || viommu_memory_batch_add(batch, &slot) ||
        viommu_memory_batch_commit(batch, NULL, NULL) || viommu_vtd_create(&config, &vtd, &iommu) ||
        viommu_start(iommu) || viommu_device_add(iommu, &where, &device))
        return 1;
    while (scanf(" %c %" SCNx64 " %" SCNx64, &what, &address, &value) == 3) {
        int error = 0;

        if (what == 'm')
            error = viommu_memory_write(config.memory, address, &value, 8);
        else if (what == 'w')
            error = viommu_mmio_write(iommu, address, 8, value);
        else if (what == 'r')
            error = viommu_mmio_read(iommu, address, 4, &value);
        else if (what == 'd')
            error = viommu_device_write(device, NULL, address, &value, 8);
        while (viommu_process(iommu, 0) == VIOMMU_PENDING)
            ;
        printf("%c %" PRIx64 " %" PRIx64 ": %s\n", what, address, value, strerror(-error));
    }
    viommu_destroy(iommu);
    viommu_memory_destroy(config.memory);
    return 0;
}
