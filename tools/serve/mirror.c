/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * See mirror.h.
 */
#include "mirror.h"

#include <errno.h>
#include <unistd.h>

#include <viommu/trace.h>

#include "file.h"

static int subscribe(struct serve_mirror *mirror, struct viommu_device *device, bool adopt)
{
    struct viommu_trace_config config = {
        .fd = mirror->fd,
        .what = {
            .kinds = VIOMMU_CHANGE_MAP | VIOMMU_CHANGE_UNMAP,
            .form = VIOMMU_FORM_RANGE,
            .role = VIOMMU_ROLE_MIRROR,
        },
    };
    struct viommu_subscription what;
    int ret = viommu_trace_create(&config, &mirror->trace);

    if (ret < 0) {
        return ret;
    }
    viommu_trace_subscription(mirror->trace, &what);
    what.adopt = adopt;
    ret = viommu_device_subscribe(device, &what, &mirror->subscriber);
    if (ret < 0) {
        viommu_trace_destroy(mirror->trace);
    }
    return ret;
}

int serve_mirror_open(struct serve_mirror *mirror, struct viommu_device *device, const char *path)
{
    int ret;

    mirror->fd = serve_file_open(path, O_WRONLY | O_CREAT | O_TRUNC);
    if (mirror->fd < 0) {
        return mirror->fd;
    }
    ret = subscribe(mirror, device, false);
    if (ret < 0) {
        close(mirror->fd);
    }
    return ret;
}

int serve_mirror_adopt(struct serve_mirror *mirror, struct viommu_device *device, int fd)
{
    int ret;

    mirror->fd = fd;
    ret = subscribe(mirror, device, true);
    if (ret < 0) {
        close(fd);
    }
    return ret;
}

int serve_mirror_close(struct serve_mirror *mirror)
{
    int ret;

    viommu_subscriber_destroy(mirror->subscriber);
    ret = viommu_trace_destroy(mirror->trace);
    if (close(mirror->fd) < 0 && ret == 0) {
        ret = -errno;
    }
    return ret;
}
