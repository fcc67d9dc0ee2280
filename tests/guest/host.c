/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * host.c - the kernel's interface under a mirror.  See host.h.
 *
 * The headers of Debian 12 know neither iommufd nor VFIO's own character devices: the few requests
 * that open a device are declared here as the kernel has them.
 */
#include "host.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <viommu/iommufd.h>
#include <viommu/vfio.h>

#include "report.h"
#include "vfio.h"

struct ioas_alloc {
    uint32_t size;
    uint32_t flags;
    uint32_t out_ioas_id;
};

struct bind_iommufd {
    uint32_t argsz;
    uint32_t flags;
    int32_t iommufd;
    uint32_t out_devid;
};

struct attach_table {
    uint32_t argsz;
    uint32_t flags;
    uint32_t pt_id;
};

#define IOAS_ALLOC _IO(';', 0x81)
#define DEVICE_BIND_IOMMUFD _IO(VFIO_TYPE, VFIO_BASE + 18)
#define DEVICE_ATTACH_TABLE _IO(VFIO_TYPE, VFIO_BASE + 19)

/* Open the VFIO character device of a PCI device. */
static int open_device(const char *bdf)
{
    char path[300];
    struct dirent *entry;
    int fd = -1;
    DIR *dir;

    snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/vfio-dev", bdf);
    dir = opendir(path);
    if (!dir) {
        return -errno;
    }
    errno = ENODEV;
    while (fd < 0 && (entry = readdir(dir)) != NULL) {
        if (strncmp(entry->d_name, "vfio", 4) == 0) {
            snprintf(path, sizeof(path), "/dev/vfio/devices/%s", entry->d_name);
            fd = open(path, O_RDWR | O_CLOEXEC);
        }
    }
    if (fd < 0) {
        fd = -errno;
    }
    closedir(dir);
    return fd;
}

/* Bind the device to iommufd and attach it to a new address space. */
static int attach_device(struct host *host, int device)
{
    struct bind_iommufd bind = {.argsz = sizeof(bind), .iommufd = host->fd};
    struct ioas_alloc alloc = {.size = sizeof(alloc)};
    struct attach_table attach = {.argsz = sizeof(attach)};

    if (ioctl(device, DEVICE_BIND_IOMMUFD, &bind) < 0 || ioctl(host->fd, IOAS_ALLOC, &alloc) < 0) {
        return -errno;
    }
    host->ioas = alloc.out_ioas_id;
    attach.pt_id = alloc.out_ioas_id;
    return ioctl(device, DEVICE_ATTACH_TABLE, &attach) < 0 ? -errno : 0;
}

static int open_iommufd(struct host *host)
{
    int device = open_device(host->edu->bdf);
    int error;

    if (device < 0) {
        return device;
    }
    host->fd = open("/dev/iommu", O_RDWR | O_CLOEXEC);
    error = host->fd < 0 ? -errno : attach_device(host, device);
    if (error) {
        close(device);
        if (host->fd >= 0) {
            close(host->fd);
        }
        return error;
    }
    error = edu_use(host->edu, device);
    if (error) {
        close(host->fd);
    }
    return error;
}

static int open_container(struct host *host)
{
    int error = vfio_open(&host->edu->group, 1, &host->fd, &host->group_fd);

    if (error) {
        return error;
    }
    error = edu_open(host->edu, host->group_fd);
    if (error) {
        vfio_close(host->fd, &host->group_fd, 1);
    }
    return error;
}

int host_open(struct host *host, struct edu *edu, bool iommufd, unsigned limit)
{
    memset(host, 0, sizeof(*host));
    host->iommufd = iommufd;
    host->limit = limit;
    host->edu = edu;
    host->group_fd = -1;
    host->whole_fd = -1;
    return iommufd ? open_iommufd(host) : open_container(host);
}

void host_close(struct host *host)
{
    edu_close(host->edu);
    if (host->iommufd) {
        close(host->fd);
    } else {
        vfio_close(host->fd, &host->group_fd, 1);
    }
}

/* What an embedder does when a backend cannot unmap. */
static int cut_off(void *opaque)
{
    struct host *host = opaque;

    host->cut_offs++;
    return edu_bus_master(host->edu, false);
}

static int attach_vfio(struct host *host, struct viommu_subscription *out)
{
    struct viommu_vfio_config config = {
        .container = host->fd,
        .cut_off = cut_off,
        .opaque = host,
    };
    int error = viommu_vfio_create(&config, &host->vfio);

    if (!error) {
        viommu_vfio_subscription(host->vfio, out);
    }
    return error;
}

static int attach_iommufd(struct host *host, struct viommu_subscription *out)
{
    struct viommu_iommufd_config config = {
        .fd = host->fd,
        .ioas = host->ioas,
        .mappings_max = host->limit,
        .cut_off = cut_off,
        .opaque = host,
    };
    int error = viommu_iommufd_create(&config, &host->backend);

    if (!error) {
        viommu_iommufd_subscription(host->backend, out);
    }
    return error;
}

int host_attach(struct host *host, struct viommu_subscription *out)
{
    memset(out, 0, sizeof(*out));
    return host->iommufd ? attach_iommufd(host, out) : attach_vfio(host, out);
}

int host_detach(struct host *host)
{
    int error = host->iommufd ? viommu_iommufd_destroy(host->backend)
                              : viommu_vfio_destroy(host->vfio);

    host->backend = NULL;
    host->vfio = NULL;
    return error;
}

int64_t host_mappings_left(struct host *host)
{
    return host->iommufd ? -1 : vfio_mappings_left(host->fd);
}

int host_break(struct host *host)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int error = 0;

    host->whole_fd = fcntl(host->fd, F_DUPFD_CLOEXEC, 0);
    if (null < 0 || host->whole_fd < 0 || dup3(null, host->fd, O_CLOEXEC) < 0) {
        error = -errno;
    }
    close(null);
    return error;
}

void host_mend(struct host *host)
{
    if (host->whole_fd >= 0) {
        dup3(host->whole_fd, host->fd, O_CLOEXEC);
        close(host->whole_fd);
        host->whole_fd = -1;
    }
}

bool host_set_limit(unsigned mappings)
{
    FILE *f = fopen("/sys/module/vfio_iommu_type1/parameters/dma_entry_limit", "we");
    bool done = f && fprintf(f, "%u", mappings) > 0;

    if (f && fclose(f) != 0) {
        done = false;
    }
    return done;
}
