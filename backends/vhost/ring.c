/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The eventfds of a ring, which the back-end has, too: copies of the embedder's, so that those may
 * be closed.
 */
#include "vhost/private.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static int copy_fd(int *fd)
{
    if (*fd >= 0) {
        *fd = fcntl(*fd, F_DUPFD_CLOEXEC, 0);
        return *fd < 0 ? -errno : 0;
    }
    return 0;
}

static void close_fds(const struct viommu_vhost_ring *setup)
{
    if (setup->kick >= 0) {
        close(setup->kick);
    }
    if (setup->call >= 0) {
        close(setup->call);
    }
}

int vhost_ring_copy(struct viommu_vhost_ring *setup)
{
    struct viommu_vhost_ring copy = *setup;
    int ret = copy_fd(&copy.kick);

    if (!ret) {
        ret = copy_fd(&copy.call);
        if (ret) {
            close_fds(&copy);
        }
    }
    if (!ret) {
        *setup = copy;
    }
    return ret;
}

void vhost_ring_close(struct vhost_ring *ring)
{
    close_fds(&ring->setup);
    ring->setup.kick = -1;
    ring->setup.call = -1;
    ring->state = VHOST_RING_OFF;
    ring->resend = false;
}

int viommu_vhost_ring_renew(struct viommu_vhost *vhost, unsigned number, int kick, int call)
{
    struct viommu_vhost_ring setup;
    struct vhost_ring *ring;
    int ret;

    if (number >= vhost->config.rings || kick < -1 || call < -1) {
        return -EINVAL;
    }
    ring = &vhost->rings[number];
    pthread_mutex_lock(&vhost->lock);
    setup = ring->setup;
    setup.kick = kick;
    setup.call = call;
    ret = vhost->state != VIOMMU_VHOST_FAILED ? -EBUSY
          : ring->state != VHOST_RING_CUT     ? -EINVAL
                                              : vhost_ring_copy(&setup);
    if (!ret) {
        close_fds(&ring->setup);
        ring->setup = setup;
    }
    pthread_mutex_unlock(&vhost->lock);
    return ret;
}
