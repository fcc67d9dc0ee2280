/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vfio.c - VFIO type1 v2 from the guest's user space.  See vfio.h.
 *
 * Without interrupt remapping VFIO refuses SET_IOMMU (a device could forge interrupts) unless its
 * parameter allow_unsafe_interrupts is set.  It is set only after the refusal, so that a unit that
 * remaps interrupts is tested without it.
 */
#include "vfio.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/types.h>
#include <unistd.h>

#include "memory.h"

static int unsafe;
static bool recording;

void vfio_record(void)
{
    recording = true;
}

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void say(const char *format, ...)
{
    char line[128];
    va_list arguments;

    if (!recording) {
        return;
    }
    va_start(arguments, format);
    vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    printf("# vfio: %s\n", line);
    fflush(stdout);
}

/* The pieces of physical memory behind what was mapped; it is pinned, so they stay. */
static void say_parts(uint64_t iova, const uint8_t *memory, size_t size)
{
    size_t at = 0;

    while (recording && at < size) {
        uint64_t gpa = memory_gpa(memory + at);
        size_t end = at + PAGE;

        while (end < size && memory_gpa(memory + end) == gpa + (end - at)) {
            end += PAGE;
        }
        say("part %llx %llx %zx", (unsigned long long)iova + at, (unsigned long long)gpa, end - at);
        at = end;
    }
}

static int write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    ssize_t n;
    int error;

    if (fd < 0) {
        return -errno;
    }
    n = write(fd, text, strlen(text));
    error = n < 0 ? -errno : 0;
    close(fd);
    return error;
}

int vfio_bind(const char *bdf, unsigned *group)
{
    char path[128], target[256];
    const char *number;
    ssize_t n;
    int error;

    snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/driver_override", bdf);
    error = write_file(path, "vfio-pci");
    if (error) {
        return error;
    }
    error = write_file("/sys/bus/pci/drivers_probe", bdf);
    if (error) {
        return error;
    }
    snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/driver", bdf);
    n = readlink(path, target, sizeof(target) - 1);
    if (n < 0) {
        return -errno;
    }
    snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group", bdf);
    n = readlink(path, target, sizeof(target) - 1);
    if (n < 0) {
        return -errno;
    }
    target[n] = '\0';
    number = strrchr(target, '/');
    *group = number ? (unsigned)strtoul(number + 1, NULL, 10) : 0;
    say("group %x is %s", *group, bdf);
    return 0;
}

static int open_group(unsigned number, int container)
{
    struct vfio_group_status status = {.argsz = sizeof(status)};
    char path[64];
    int error, fd;

    snprintf(path, sizeof(path), "/dev/vfio/%u", number);
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    if (ioctl(fd, VFIO_GROUP_GET_STATUS, &status) < 0) {
        error = -errno;
    } else if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE)) {
        error = -EBUSY;
    } else if (ioctl(fd, VFIO_GROUP_SET_CONTAINER, &container) < 0) {
        error = -errno;
    } else {
        return fd;
    }
    close(fd);
    return error;
}

static int set_iommu(int container)
{
    if (ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) == 0) {
        return 0;
    }
    if (errno != EPERM) {
        return -errno;
    }
    unsafe = 1;
    write_file("/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts", "Y");
    return ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) < 0 ? -errno : 0;
}

int vfio_was_unsafe(void)
{
    return unsafe;
}

static const char *names(const unsigned *groups, unsigned count, char *text, size_t size)
{
    size_t length = 0;

    text[0] = '\0';
    for (unsigned i = 0; i < count && length < size; i++) {
        length += (size_t)snprintf(text + length, size - length, " %x", groups[i]);
    }
    return text;
}

int vfio_open(const unsigned *groups, unsigned count, int *container, int *group_fds)
{
    int error = 0;
    unsigned opened = 0;
    char text[64];

    *container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
    if (*container < 0) {
        return -errno;
    }
    say("open %x%s", (unsigned)*container, names(groups, count, text, sizeof(text)));
    for (; opened < count; opened++) {
        group_fds[opened] = open_group(groups[opened], *container);
        if (group_fds[opened] < 0) {
            error = group_fds[opened];
            goto undo;
        }
        /* The container takes its IOMMU with its first group; later ones join it. */
        if (opened == 0) {
            error = set_iommu(*container);
            if (error) {
                opened++;
                goto undo;
            }
        }
    }
    return 0;

undo:
    while (opened > 0) {
        close(group_fds[--opened]);
    }
    close(*container);
    return error;
}

void vfio_close(int container, const int *group_fds, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        close(group_fds[i]);
    }
    close(container);
    say("close %x", (unsigned)container);
}

int vfio_map(int container, uint64_t iova, void *memory, size_t size, int perm)
{
    struct vfio_iommu_type1_dma_map map = {
        .argsz = sizeof(map),
        .flags = (perm & DMA_READ ? VFIO_DMA_MAP_FLAG_READ : 0u) |
                 (perm & DMA_WRITE ? VFIO_DMA_MAP_FLAG_WRITE : 0u),
        .vaddr = (uintptr_t)memory,
        .iova = iova,
        .size = size,
    };

    if (ioctl(container, VFIO_IOMMU_MAP_DMA, &map) < 0) {
        return -errno;
    }
    say_parts(iova, memory, size);
    say("map %x %llx %zx %x", (unsigned)container, (unsigned long long)iova, size, (unsigned)perm);
    return 0;
}

int vfio_unmap(int container, uint64_t iova, size_t size)
{
    struct vfio_iommu_type1_dma_unmap unmap = {
        .argsz = sizeof(unmap),
        .iova = iova,
        .size = size,
    };

    if (ioctl(container, VFIO_IOMMU_UNMAP_DMA, &unmap) < 0) {
        return -errno;
    }
    if (unmap.size) {
        say("unmap %x %llx %zx", (unsigned)container, (unsigned long long)iova, size);
    }
    return unmap.size == size ? 0 : -ENOENT;
}

union info {
    struct vfio_iommu_type1_info info;
    char room[4096];
};

static int get_info(int container, union info *u)
{
    memset(u, 0, sizeof(*u));
    u->info.argsz = sizeof(*u);
    if (ioctl(container, VFIO_IOMMU_GET_INFO, u) < 0) {
        return -errno;
    }
    return u->info.argsz > sizeof(*u) ? -ENOSPC : 0;
}

/* The capability of that id, of those that follow the info; or NULL. */
static const void *find_capability(const union info *u, unsigned id)
{
    uint32_t at = u->info.flags & VFIO_IOMMU_INFO_CAPS ? u->info.cap_offset : 0;

    while (at) {
        const void *p = u->room + at;
        const struct vfio_info_cap_header *header = p;

        if (header->id == id) {
            return p;
        }
        at = header->next;
    }
    return NULL;
}

int vfio_last_iova(int container, uint64_t *last)
{
    const struct vfio_iommu_type1_info_cap_iova_range *ranges;
    union info u;
    int error = get_info(container, &u);

    if (error) {
        return error;
    }
    ranges = find_capability(&u, VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE);
    if (!ranges || ranges->nr_iovas == 0) {
        return -ENOENT;
    }
    *last = ranges->iova_ranges[ranges->nr_iovas - 1].end;
    return 0;
}

int64_t vfio_mappings_left(int container)
{
    const struct vfio_iommu_type1_info_dma_avail *left = NULL;
    union info u;

    if (get_info(container, &u) == 0) {
        left = find_capability(&u, VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL);
    }
    return left ? (int64_t)left->avail : -1;
}

int vfio_set_msi(int device, int eventfd)
{
    union {
        struct vfio_irq_set set;
        char room[sizeof(struct vfio_irq_set) + sizeof(int32_t)];
    } u;
    int32_t fd = eventfd;

    memset(&u, 0, sizeof(u));
    u.set.argsz = sizeof(u.room);
    u.set.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
    u.set.index = VFIO_PCI_MSI_IRQ_INDEX;
    u.set.count = 1;
    memcpy(u.set.data, &fd, sizeof(fd));
    return ioctl(device, VFIO_DEVICE_SET_IRQS, &u.set) < 0 ? -errno : 0;
}
