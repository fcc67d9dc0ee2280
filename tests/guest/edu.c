/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * edu.c - drive the "edu" PCI device through VFIO.  See edu.h.
 *
 * Facts.  DMA registers take 8-byte accesses; the buffer's address as the device sees it is
 * 0x40000. QEMU's own device starts a DMA 100 ms after the command and cuts addresses to 28 bits
 * unless its property dma_mask says otherwise; neither is required here.
 */
#include "edu.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    DMA_SRC = 0x80,
    DMA_DST = 0x88,
    DMA_COUNT = 0x90,
    DMA_COMMAND = 0x98,
    COMMAND_RUN = 1,
    COMMAND_TO_RAM = 2,
    COMMAND_IRQ = 4,
    BUFFER = 0x40000,
    SPINS = 200,
    TIMEOUT_MS = 5000,
};

static unsigned read_hex(const char *bdf, const char *name)
{
    char path[128];
    unsigned value = 0;
    FILE *f;

    snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", bdf, name);
    f = fopen(path, "re");
    if (!f) {
        return 0;
    }
    if (fscanf(f, "%x", &value) != 1) {
        value = 0;
    }
    fclose(f);
    return value;
}

static int by_source(const void *a, const void *b)
{
    const struct edu *x = a, *y = b;

    return (x->source > y->source) - (x->source < y->source);
}

unsigned edu_find(struct edu *list, unsigned max)
{
    DIR *dir = opendir("/sys/bus/pci/devices");
    struct dirent *entry;
    unsigned n = 0;

    if (!dir) {
        return 0;
    }
    while (n < max && (entry = readdir(dir)) != NULL) {
        unsigned segment, bus, dev, fn;

        if (sscanf(entry->d_name, "%x:%x:%x.%x", &segment, &bus, &dev, &fn) != 4 ||
            read_hex(entry->d_name, "vendor") != 0x1234 ||
            read_hex(entry->d_name, "device") != 0x11e8) {
            continue;
        }
        memset(&list[n], 0, sizeof(list[n]));
        snprintf(list[n].bdf, sizeof(list[n].bdf), "%.15s", entry->d_name);
        list[n].source = bus << 8 | dev << 3 | fn;
        list[n].fd = -1;
        n++;
    }
    closedir(dir);
    qsort(list, n, sizeof(*list), by_source);
    return n;
}

static int set_command(struct edu *edu, uint16_t set, uint16_t clear)
{
    uint16_t command;

    if (pread(edu->fd, &command, 2, (off_t)(edu->config + PCI_COMMAND)) != 2) {
        return -EIO;
    }
    command = (uint16_t)((command & ~clear) | set);
    if (pwrite(edu->fd, &command, 2, (off_t)(edu->config + PCI_COMMAND)) != 2) {
        return -EIO;
    }
    return 0;
}

int edu_bus_master(struct edu *edu, bool on)
{
    return set_command(edu, on ? PCI_COMMAND_MASTER : 0, on ? 0 : PCI_COMMAND_MASTER);
}

static int region(struct edu *edu, unsigned index, struct vfio_region_info *info)
{
    memset(info, 0, sizeof(*info));
    info->argsz = sizeof(*info);
    info->index = index;
    return ioctl(edu->fd, VFIO_DEVICE_GET_REGION_INFO, info) < 0 ? -errno : 0;
}

static int map_bar(struct edu *edu)
{
    struct vfio_region_info info;
    void *bar;
    int error;

    error = region(edu, VFIO_PCI_CONFIG_REGION_INDEX, &info);
    if (error) {
        return error;
    }
    edu->config = info.offset;
    error = set_command(edu, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 0);
    if (error) {
        return error;
    }
    error = region(edu, VFIO_PCI_BAR0_REGION_INDEX, &info);
    if (error) {
        return error;
    }
    if (info.size < BUFFER + EDU_BUFFER_SIZE || !(info.flags & VFIO_REGION_INFO_FLAG_MMAP)) {
        return -ENXIO;
    }
    bar = mmap(NULL, info.size, PROT_READ | PROT_WRITE, MAP_SHARED, edu->fd, (off_t)info.offset);
    if (bar == MAP_FAILED) {
        return -errno;
    }
    edu->bar = bar;
    edu->bar_size = info.size;
    return 0;
}

int edu_open(struct edu *edu, int group_fd)
{
    int fd = ioctl(group_fd, VFIO_GROUP_GET_DEVICE_FD, edu->bdf);

    return fd < 0 ? -errno : edu_use(edu, fd);
}

int edu_use(struct edu *edu, int fd)
{
    int error;

    edu->fd = fd;
    error = map_bar(edu);
    if (error) {
        edu_close(edu);
    }
    return error;
}

void edu_close(struct edu *edu)
{
    if (edu->bar) {
        munmap((void *)edu->bar, edu->bar_size);
    }
    if (edu->fd >= 0) {
        close(edu->fd);
    }
    edu->bar = NULL;
    edu->fd = -1;
}

uint32_t edu_read(struct edu *edu, unsigned reg)
{
    return *(volatile uint32_t *)(edu->bar + reg);
}

void edu_write(struct edu *edu, unsigned reg, uint32_t value)
{
    *(volatile uint32_t *)(edu->bar + reg) = value;
}

static void write64(struct edu *edu, unsigned reg, uint64_t value)
{
    *(volatile uint64_t *)(edu->bar + reg) = value;
}

static int run_dma(struct edu *edu, uint64_t src, uint64_t dst, unsigned count, unsigned command)
{
    /* What memory holds must be there before the device is told to look. */
    __sync_synchronize();
    write64(edu, DMA_SRC, src);
    write64(edu, DMA_DST, dst);
    write64(edu, DMA_COUNT, count);
    write64(edu, DMA_COMMAND, command | COMMAND_RUN);
    for (unsigned i = 0; i < SPINS + TIMEOUT_MS; i++) {
        if (!(edu_read(edu, DMA_COMMAND) & COMMAND_RUN)) {
            __sync_synchronize();
            return 0;
        }
        if (i >= SPINS) {
            usleep(1000);
        }
    }
    return -ETIMEDOUT;
}

int edu_to_ram(struct edu *edu, uint64_t iova, unsigned offset, unsigned count)
{
    return run_dma(edu, BUFFER + offset, iova, count, COMMAND_TO_RAM);
}

int edu_from_ram(struct edu *edu, uint64_t iova, unsigned offset, unsigned count)
{
    return run_dma(edu, iova, BUFFER + offset, count, 0);
}

int edu_to_ram_irq(struct edu *edu, uint64_t iova, unsigned offset, unsigned count)
{
    return run_dma(edu, BUFFER + offset, iova, count, COMMAND_TO_RAM | COMMAND_IRQ);
}
