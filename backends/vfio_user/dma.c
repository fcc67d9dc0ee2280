/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The far server's DMA_READ and DMA_WRITE, as requests of the device.
 *
 * Nothing in them is believed: the size is checked against the message, the address range is
 * whatever viommu_device_read and viommu_device_write make of it, page by page, at this moment. An
 * invalidation that begins meanwhile waits for their section. A write to the interrupt range is a
 * message-signalled interrupt, there too. What is refused is answered with the errno; a read that
 * was refused in the middle is answered with no data.
 */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "vfio_user/client.h"

/* A read buffer larger than this is given back. */
#define BUFFER_KEEP 65536

static int reserve_buffer(struct viommu_vfio_user *far, size_t size)
{
    uint8_t *buffer;

    if (size <= far->buffer_room) {
        return 0;
    }
    buffer = base_alloc(size);
    if (!buffer) {
        return -ENOMEM;
    }
    base_free(far->buffer);
    far->buffer = buffer;
    far->buffer_room = size;
    return 0;
}

static int dma_read(struct viommu_vfio_user *far, const struct vfio_user_message *message,
                    const struct vfio_user_dma_access *access)
{
    int ret;

    if (message->payload_size != sizeof(*access) || access->count > VFIO_USER_MAX_DATA) {
        return -EINVAL;
    }
    far->moved = access->count;
    ret = reserve_buffer(far, access->count);
    return ret < 0 ? ret
                   : viommu_device_read(far->config.device, NULL, access->address, far->buffer,
                                        access->count);
}

static int dma_write(struct viommu_vfio_user *far, const struct vfio_user_message *message,
                     const struct vfio_user_dma_access *access)
{
    if (access->count > VFIO_USER_MAX_DATA ||
        message->payload_size - sizeof(*access) != access->count) {
        return -EINVAL;
    }
    return viommu_device_write(far->config.device, NULL, access->address,
                               message->payload + sizeof(*access), access->count);
}

static int carry_out(struct viommu_vfio_user *far, const struct vfio_user_message *message,
                     struct vfio_user_dma_access *access)
{
    bool reads = message->header.command == VFIO_USER_DMA_READ;

    if (!reads && message->header.command != VFIO_USER_DMA_WRITE) {
        return -ENOTSUP;
    }
    if (message->payload_size < sizeof(*access) || message->n_fds || message->fds_lost ||
        (reads && (message->header.flags & VFIO_USER_NO_REPLY))) {
        return -EINVAL;
    }
    memcpy(access, message->payload, sizeof(*access));
    return reads ? dma_read(far, message, access) : dma_write(far, message, access);
}

int far_serve_dma(struct viommu_vfio_user *far, struct channel *channel,
                  const struct vfio_user_message *message)
{
    struct vfio_user_dma_access access = {0};
    bool reads = message->header.command == VFIO_USER_DMA_READ;
    int error = carry_out(far, message, &access);
    int ret = 0;

    pthread_mutex_lock(&far->lock);
    if (error < 0) {
        far->statistics.refused++;
    } else if (reads) {
        far->statistics.reads++;
    } else {
        far->statistics.writes++;
    }
    pthread_mutex_unlock(&far->lock);
    if (!(message->header.flags & VFIO_USER_NO_REPLY)) {
        ret = far_answer(far, channel, &message->header, error, &access, sizeof(access),
                         far->buffer, reads && error == 0 ? access.count : 0);
    }
    if (far->buffer_room > BUFFER_KEEP) {
        base_free(far->buffer);
        far->buffer = NULL;
        far->buffer_room = 0;
    }
    return ret;
}
