/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The kernel's vhost: IOTLB messages of version 2, read from and written to the device's
 * descriptor, one a call. A write has been done when it returns; there is no other acknowledgement.
 * All else is done by ioctls, and is the embedder's.
 */
#include "vhost/private.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/vhost.h>
#include <sys/ioctl.h>
#include <unistd.h>

_Static_assert(sizeof(struct vhost_msg_v2) == 72, "a message is padded");

int vhost_kernel_begin(int fd)
{
    uint64_t features = 0;
    int flags;

    if (ioctl(fd, VHOST_GET_BACKEND_FEATURES, &features) ||
        !(features & UINT64_C(1) << VHOST_BACKEND_F_IOTLB_MSG_V2)) {
        return -ENOTSUP;
    }
    features = UINT64_C(1) << VHOST_BACKEND_F_IOTLB_MSG_V2;
    if (ioctl(fd, VHOST_SET_BACKEND_FEATURES, &features)) {
        return -ENOTSUP;
    }
    flags = fcntl(fd, F_GETFL);
    return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -errno : 0;
}

void vhost_kernel_receive(struct viommu_vhost *vhost)
{
    for (unsigned i = 0; i < VHOST_BUDGET && vhost_alive(vhost); i++) {
        struct vhost_msg_v2 message;
        ssize_t n;

        do {
            n = read(vhost->fd, &message, sizeof(message));
        } while (n < 0 && errno == EINTR);
        if (n < 0 && errno == EAGAIN) {
            return;
        }
        if (n <= 0) {
            vhost_break(vhost, n ? -errno : -ECONNRESET);
        } else if (n != sizeof(message) || message.type != VHOST_IOTLB_MSG_V2) {
            vhost_break(vhost, -EPROTO);
        } else {
            vhost_iotlb_asked(vhost, &message.iotlb);
        }
    }
}

/*
 * Before the descriptor is closed, of which the embedder has copies as a rule: the kernel then
 * still uses what it holds. Where it does not take this either nothing more can be done here: the
 * change that met it has failed, and rings are the embedder's to stop.
 */
void vhost_kernel_end(int fd)
{
    struct vhost_msg_v2 message = {
        .type = VHOST_IOTLB_MSG_V2,
        .iotlb = {.size = VHOST_LAST + 1, .type = VHOST_IOTLB_INVALIDATE},
    };

    (void)!write(fd, &message, sizeof(message));
}

void vhost_kernel_put(struct viommu_vhost *vhost, const struct vhost_iotlb_msg *iotlb)
{
    struct vhost_msg_v2 message = {.type = VHOST_IOTLB_MSG_V2, .iotlb = *iotlb};
    ssize_t n;

    if (!vhost_alive(vhost)) {
        return;
    }
    do {
        n = write(vhost->fd, &message, sizeof(message));
    } while (n < 0 && errno == EINTR);
    if (n != sizeof(message)) {
        vhost_break(vhost, n < 0 ? -errno : -EIO);
    } else if (iotlb->type == VHOST_IOTLB_INVALIDATE) {
        vhost->statistics.acknowledged++;
    }
}
