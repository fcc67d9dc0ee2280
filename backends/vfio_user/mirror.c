/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a mirror is told, as DMA_MAP and DMA_UNMAP.
 *
 * What servers do, and what follows from it:
 * - They map what a DMA_MAP brings a file for, at the offset it says; a region without a file they
 *   reach by messages. So memory without a file is mapped, too; and so is all memory, where a
 *   server takes no descriptors.
 * - They refuse a region that overlaps another, and one larger than 8 TiB; and an UNMAP that is not
 *   exactly one region, unless it has the flag ALL. Mirrors are told of whole mappings, one call
 *   each (`unmap_spans` is false): one UNMAP that takes several is not known to them.
 * - Addresses and sizes need no alignment, so ranges of any form do.
 * - Commands are carried out in the order in which they come. A change is PENDING until its answer
 *   is there.
 *
 * A fence cannot wait for an answer. It sends UNMAP of all, and reports honestly that it is not
 * confirmed, unless nothing was mapped. When the answer does not come, or says no, the connection
 * is given up, and a server that lives drops all when it sees that. When UNMAP of all cannot be
 * written at once, or nothing can, the connection is shut down in the fence:
 * viommu_vfio_user_process would write it later, but the guest's invalidation is over, and nobody
 * may call it. What no one can do is to take mapped pages of a file away from a process that means
 * to keep them.
 *
 * With `isolate` nothing is mirrored. The far server gets regions without a file that cover every
 * address, once; it then asks for each access by a message, which is translated and checked when it
 * comes. To mirror without files would say no more: a message is checked all the same, and each
 * invalidation would cost a round trip, and each mapping one of the regions that a server can have.
 * First one region of everything is tried; a server with a limit gets 48 bits in pieces.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "device/requester.h"
#include "vfio_user/client.h"

static uint32_t flags_of(uint32_t perm)
{
    return (perm & VIOMMU_READ ? VFIO_DMA_MAP_FLAG_READ : 0u) |
           (perm & VIOMMU_WRITE ? VFIO_DMA_MAP_FLAG_WRITE : 0u);
}

/* The lock is held by these three. */

static int map(struct viommu_vfio_user *far, const struct viommu_change *change)
{
    bool file = change->fd >= 0 && far->capabilities.max_msg_fds > 0;
    struct vfio_user_dma_map map = {
        .argsz = sizeof(map),
        .flags = flags_of(change->perm),
        .offset = file ? change->fd_offset : 0,
        .address = change->first,
        .size = change->last - change->first + 1,
    };
    struct request request = {
        .kind = REQUEST_MAP,
        .command = VFIO_USER_DMA_MAP,
        .token = change->token,
        .generation = far->generation,
    };
    int ret;

    if (change->last - change->first >= REGION_SIZE_MAX) {
        return -E2BIG;
    }
    ret = far_request(far, &request, &map, sizeof(map), NULL, 0, &change->fd, file);
    if (ret < 0) {
        return ret;
    }
    far->exposed++;
    far->statistics.maps++;
    return VIOMMU_PENDING;
}

static int unmap(struct viommu_vfio_user *far, struct request *request)
{
    int ret;

    request->command = VFIO_USER_DMA_UNMAP;
    request->unmap.argsz = sizeof(request->unmap);
    request->generation = far->generation;
    ret = far_request(far, request, &request->unmap, sizeof(request->unmap), NULL, 0, NULL, 0);
    if (ret < 0) {
        return ret;
    }
    far->statistics.unmaps++;
    return VIOMMU_PENDING;
}

static int unmap_exactly(struct viommu_vfio_user *far, const struct viommu_change *change)
{
    struct request request = {
        .kind = REQUEST_UNMAP,
        .token = change->token,
        .unmap = {.address = change->first, .size = change->last - change->first + 1},
    };

    return unmap(far, &request);
}

static int on_change(void *opaque, const struct viommu_change *change)
{
    struct viommu_vfio_user *far = opaque;
    int ret;

    pthread_mutex_lock(&far->lock);
    if (far->error || far->broken) {
        ret = -EPIPE;
    } else if (change->kind == VIOMMU_CHANGE_MAP) {
        ret = map(far, change);
    } else if (change->kind == VIOMMU_CHANGE_UNMAP) {
        ret = unmap_exactly(far, change);
    } else { /* not asked for */
        ret = -ENOTSUP;
    }
    pthread_mutex_unlock(&far->lock);
    return ret;
}

/* Nothing more can be asked of it: that the connection is over it reads, when it reads. */
static void cut(struct viommu_vfio_user *far, int error)
{
    if (far->main.open) {
        (void)shutdown(far->main.connection.fd, SHUT_RDWR);
    }
    if (!far->error && !far->broken) {
        far->broken = error;
        wake_kick(&far->wake);
    }
}

static int on_fence(void *opaque)
{
    struct viommu_vfio_user *far = opaque;
    struct request request = {
        .kind = REQUEST_FENCE,
        .unmap = {.flags = VFIO_DMA_UNMAP_FLAG_ALL},
    };
    int ret = 0;

    pthread_mutex_lock(&far->lock);
    if (far->exposed + far->exposed_earlier) {
        ret = -EPIPE;
        if (!far->error && !far->broken) {
            far->exposed_earlier += far->exposed;
            far->exposed = 0;
            far->generation++;
            ret = unmap(far, &request);
            /* It has it, not confirmed; or it could not even be sent: then nothing else helps. */
            if (ret == VIOMMU_PENDING) {
                ret = vfio_user_output_flush(&far->main.output);
                ret = ret < 0 ? ret : far->main.output.bytes ? -ETIMEDOUT : -EINPROGRESS;
            }
        }
        if (ret != -EINPROGRESS) {
            cut(far, ret);
        }
    }
    pthread_mutex_unlock(&far->lock);
    return ret;
}

void far_count_mapping(struct viommu_vfio_user *far, const struct request *request, int status)
{
    bool current = request->generation == far->generation;

    switch (request->kind) {
    case REQUEST_MAP:
        far->statistics.mappings += status == 0;
        far->exposed -= status < 0 && current && far->exposed;
        break;
    case REQUEST_UNMAP:
        far->statistics.mappings -= status == 0 && far->statistics.mappings;
        far->exposed -= status == 0 && current && far->exposed;
        break;
    case REQUEST_FENCE:
        if (status == 0 && current) {
            far->exposed_earlier = 0;
            far->statistics.mappings = 0;
        }
        break;
    case REQUEST_REGION:
        far->statistics.mappings += status == 0;
        break;
    default:
        break;
    }
}

int viommu_vfio_user_subscription(struct viommu_vfio_user *far, struct viommu_subscription *out)
{
    uint64_t mappings_max = far->capabilities.max_dma_maps;

    if (far->config.isolate) {
        return -ENOTSUP;
    }
    if (!far->ready) {
        return -EAGAIN;
    }
    if (far->config.mappings_max && far->config.mappings_max < mappings_max) {
        mappings_max = far->config.mappings_max;
    }
    *out = (struct viommu_subscription){
        .kinds = VIOMMU_CHANGE_MAP | VIOMMU_CHANGE_UNMAP,
        .form = VIOMMU_FORM_RANGE,
        .role = VIOMMU_ROLE_MIRROR,
        .change = on_change,
        .opaque = far,
        .fence = on_fence,
        /* Any multiple of the smallest page. */
        .page_sizes = ~((far->capabilities.pgsizes & -far->capabilities.pgsizes) - 1),
        .unmap_spans = false,
        .mappings_max = mappings_max,
    };
    return 0;
}

/* ---- isolation ------------------------------------------------------------------------------- */

static int ask_region(struct viommu_vfio_user *far, uint64_t first, uint64_t size)
{
    struct vfio_user_dma_map map = {
        .argsz = sizeof(map),
        .flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
        .address = first,
        .size = size,
    };
    struct request request = {.kind = REQUEST_REGION, .command = VFIO_USER_DMA_MAP};
    int ret;

    pthread_mutex_lock(&far->lock);
    ret = far_request(far, &request, &map, sizeof(map), NULL, 0, NULL, 0);
    far->statistics.maps += ret == 0;
    pthread_mutex_unlock(&far->lock);
    far->regions_asked += ret == 0;
    return ret;
}

int far_isolate(struct viommu_vfio_user *far)
{
    /* All but the last page: a size of 64 bits cannot say more. */
    return ask_region(far, 0, ~UINT64_C(0xfff));
}

/* The server does not take everything as one. */
static int ask_pieces(struct viommu_vfio_user *far)
{
    uint64_t count = REGIONS;
    int ret = 0;

    if (far->config.mappings_max && far->config.mappings_max < count) {
        count = far->config.mappings_max;
    }
    for (uint64_t i = 0; i < count && ret == 0; i++) {
        ret = ask_region(far, i * REGION_SIZE_MAX, REGION_SIZE_MAX);
    }
    return ret;
}

int far_region_answered(struct viommu_vfio_user *far, int status)
{
    far->regions_answered++;
    far->regions_made += status == 0;
    if (far->regions_answered < far->regions_asked) {
        return 0;
    }
    if (far->regions_made) {
        far_ready(far);
        return 0;
    }
    return far->regions_asked == 1 ? ask_pieces(far) : status;
}
