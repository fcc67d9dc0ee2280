/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * VFIO and iommufd, asked; see kernel.h.
 *
 * The headers of Debian 12 know neither iommufd nor VFIO's own character devices: the few requests
 * that open a device are described here under names of our own.
 */
#include "kernel.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <viommu/iommufd.h>
#include <viommu/vfio.h>

#define IOMMUFD_ALLOC _IO(';', 0x81)
#define DEVICE_BIND _IO(VFIO_TYPE, VFIO_BASE + 18)
#define DEVICE_ATTACH _IO(VFIO_TYPE, VFIO_BASE + 19)

struct alloc_request {
    uint32_t size;
    uint32_t flags;
    uint32_t ioas; /* out */
};

struct bind_request {
    uint32_t size;
    uint32_t flags;
    int32_t iommufd;
    uint32_t device; /* out */
};

struct attach_request {
    uint32_t size;
    uint32_t flags;
    uint32_t ioas;
};

/* Says what went wrong, and what is often the reason for that error. */
static bool fail(const char *what, int error, int usual, const char *reason)
{
    fprintf(stderr, "viommu iova: %s: %s", what, strerror(error));
    if (error == usual) {
        fprintf(stderr, " (%s)", reason);
    }
    fputc('\n', stderr);
    return false;
}

/* Opens DEV/NAME. -1: that was said. */
static int open_file(const struct kernel_paths *paths, const char *name, const char *absent)
{
    char path[PATH_MAX];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", paths->dev, name);
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        if (errno == EBUSY) {
            fail(path, errno, EBUSY, "another program has it");
        } else {
            fail(path, errno, ENOENT, absent);
        }
    }
    return fd;
}

/* Copies what a subscription allows: no range at all there means any address. */
static bool take(struct kernel_answer *answer, const struct viommu_subscription *what)
{
    answer->count = what->allowed ? what->allowed_count : 1;
    answer->ranges = calloc(answer->count, sizeof(*answer->ranges));
    if (!answer->ranges) {
        return fail(answer->who, ENOMEM, 0, "");
    }
    if (what->allowed) {
        memcpy(answer->ranges, what->allowed, answer->count * sizeof(*answer->ranges));
    } else {
        answer->ranges[0] = (struct viommu_range){0, UINT64_MAX};
    }
    return true;
}

/* ---- VFIO ---- */

bool kernel_find_group(const struct kernel_paths *paths, const char *device, unsigned *group)
{
    char path[PATH_MAX];
    char target[PATH_MAX];
    const char *slash;
    ssize_t size;

    snprintf(path, sizeof(path), "%s/bus/pci/devices/%s/iommu_group", paths->sysfs, device);
    size = readlink(path, target, sizeof(target) - 1);
    if (size < 0) {
        return fail(path, errno, ENOENT, "the device is in no IOMMU group");
    }
    target[size] = 0;
    slash = strrchr(target, '/');
    if (sscanf(slash ? slash + 1 : target, "%u", group) != 1) {
        return fail(path, EIO, 0, "");
    }
    return true;
}

/* Puts the group into the container, which gets its IOMMU by that. */
static bool join(const char *who, int container, int group)
{
    struct vfio_group_status status = {.argsz = sizeof(status)};

    if (ioctl(group, VFIO_GROUP_GET_STATUS, &status) < 0) {
        return fail(who, errno, ENOTTY, "this is no group of VFIO's");
    }
    if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE)) {
        return fail(who, EBUSY, EBUSY, "a device of the group is bound to another driver");
    }
    if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) < 0) {
        return fail(who, errno, 0, "");
    }
    if (ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) < 0) {
        return fail(who, errno, EPERM,
                    "without interrupt remapping VFIO wants allow_unsafe_interrupts");
    }
    return true;
}

static bool ask_container(int container, struct kernel_answer *answer)
{
    struct viommu_vfio_config config = {.container = container};
    struct viommu_subscription what;
    struct viommu_vfio *vfio;
    int error = viommu_vfio_create(&config, &vfio);
    bool done;

    if (error) {
        return fail(answer->who, -error, ERANGE, "no address at all can be mapped");
    }
    viommu_vfio_subscription(vfio, &what);
    done = take(answer, &what);
    viommu_vfio_destroy(vfio);
    return done;
}

bool kernel_ask_vfio(const struct kernel_paths *paths, unsigned group,
                     struct kernel_answer *answer)
{
    int container = open_file(paths, "vfio/vfio", "is the module vfio loaded?");
    bool done = false;
    char name[32];
    int fd;

    *answer = (struct kernel_answer){.count = 0};
    snprintf(answer->who, sizeof(answer->who), "VFIO group %u", group);
    if (container < 0) {
        return false;
    }
    snprintf(name, sizeof(name), "vfio/%u", group);
    fd = open_file(paths, name, "no device of the group is bound to VFIO's driver");
    if (fd >= 0) {
        done = join(answer->who, container, fd) && ask_container(container, answer);
        close(fd);
    }
    close(container);
    return done;
}

/* ---- iommufd ---- */

/* The name of VFIO's character device for a PCI device, below /dev. */
static bool find_device(const struct kernel_paths *paths, const char *device, char *name,
                        size_t room)
{
    char path[PATH_MAX];
    struct dirent *entry;
    bool found = false;
    DIR *directory;

    snprintf(path, sizeof(path), "%s/bus/pci/devices/%s/vfio-dev", paths->sysfs, device);
    directory = opendir(path);
    while (directory && !found && (entry = readdir(directory))) {
        found = !strncmp(entry->d_name, "vfio", 4);
        if (found) {
            snprintf(name, room, "vfio/devices/%s", entry->d_name);
        }
    }
    if (directory) {
        closedir(directory);
    }
    return found ? true : fail(path, ENOENT, ENOENT,
                               "it is not bound to VFIO's driver, or the kernel has no character "
                               "devices of VFIO's");
}

/* Makes an address space and attaches the device to it. */
static bool attach(const char *who, int iommufd, int device, uint32_t *ioas)
{
    struct bind_request bind = {.size = sizeof(bind), .iommufd = iommufd};
    struct alloc_request alloc = {.size = sizeof(alloc)};
    struct attach_request request = {.size = sizeof(request)};

    if (ioctl(device, DEVICE_BIND, &bind) < 0 || ioctl(iommufd, IOMMUFD_ALLOC, &alloc) < 0) {
        return fail(who, errno, EBUSY, "another program has the device, or its group");
    }
    request.ioas = alloc.ioas;
    if (ioctl(device, DEVICE_ATTACH, &request) < 0) {
        return fail(who, errno, EPERM,
                    "without interrupt remapping iommufd wants allow_unsafe_interrupts");
    }
    *ioas = alloc.ioas;
    return true;
}

static bool ask_space(int iommufd, uint32_t ioas, struct kernel_answer *answer)
{
    struct viommu_iommufd_config config = {.fd = iommufd, .ioas = ioas};
    struct viommu_subscription what;
    struct viommu_iommufd *backend;
    int error = viommu_iommufd_create(&config, &backend);
    bool done;

    if (error) {
        return fail(answer->who, -error, ERANGE, "no address at all can be mapped");
    }
    viommu_iommufd_subscription(backend, &what);
    done = take(answer, &what);
    viommu_iommufd_destroy(backend);
    return done;
}

bool kernel_ask_iommufd(const struct kernel_paths *paths, const char *device,
                        struct kernel_answer *answer)
{
    bool done = false;
    char name[300];
    uint32_t ioas = 0;
    int iommufd;
    int fd;

    *answer = (struct kernel_answer){.count = 0};
    snprintf(answer->who, sizeof(answer->who), "iommufd %s", device);
    if (!find_device(paths, device, name, sizeof(name))) {
        return false;
    }
    iommufd = open_file(paths, "iommu", "is the module iommufd loaded?");
    if (iommufd < 0) {
        return false;
    }
    fd = open_file(paths, name, "it has just gone");
    if (fd >= 0) {
        done = attach(answer->who, iommufd, fd, &ioas) && ask_space(iommufd, ioas, answer);
        close(fd);
    }
    close(iommufd);
    return done;
}
