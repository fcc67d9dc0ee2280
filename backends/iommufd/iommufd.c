/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The iommufd backend: the changes that a mirror is told of, as ioctls of an I/O address space.
 *
 * One UNMAP takes one mapping, exactly (`unmap_spans` is false). The kernel can unmap a range with
 * many mappings in it, but takes them one after the other and stops at the first that sticks out
 * of the range, or is in use otherwise: the call fails (ENOENT, EBUSY), and part of it is done. It
 * cannot be asked beforehand whether both ends of a range are ends of mappings, and to know it here
 * would be a second record of what the library remembers already. With one mapping a call both ends
 * are right because MAP made them, and a failure means that nothing was done. Little is lost: the
 * kernel flushes for each mapping, whichever way it is told.
 *
 * REPLACE is not asked for: a live mapping cannot be changed in place.
 *
 * Mappings that a failed fence left behind are dropped before the next is made, which is when the
 * device is let in again.
 *
 * Locking: none. A mirror has one call outstanding; the rest is the embedder's.
 */
#include <viommu/iommufd.h>

#include "base/alloc.h"
#include "common/allowed.h"
#include "iommufd/uapi.h"

#include <errno.h>

/* More ranges than any host has; and tries, because devices may be attached meanwhile. */
#define RANGES_MAX (1u << 16)
#define RANGES_TRIES 8

struct viommu_iommufd {
    struct viommu_iommufd_config config;
    struct viommu_range *allowed;
    size_t allowed_count;
    uint64_t page_sizes;
    bool left_behind; /* a fence failed to drop mappings */
};

static int map(const struct viommu_iommufd *iommufd, const struct viommu_change *change)
{
    struct iommufd_map request = {
        .size = sizeof(request),
        .flags = IOMMUFD_MAP_FIXED | (change->perm & VIOMMU_READ ? IOMMUFD_MAP_READ : 0u) |
                 (change->perm & VIOMMU_WRITE ? IOMMUFD_MAP_WRITE : 0u),
        .ioas = iommufd->config.ioas,
        .address = (uintptr_t)change->host,
        .length = change->last - change->first + 1,
        .iova = change->first,
    };

    return ioctl(iommufd->config.fd, IOMMUFD_MAP, &request) < 0 ? -errno : 0;
}

/* Tells how much was unmapped. */
static int unmap(const struct viommu_iommufd *iommufd, uint64_t first, uint64_t length,
                 uint64_t *unmapped)
{
    struct iommufd_unmap request = {
        .size = sizeof(request),
        .ioas = iommufd->config.ioas,
        .iova = first,
        .length = length,
    };

    *unmapped = 0;
    if (ioctl(iommufd->config.fd, IOMMUFD_UNMAP, &request) < 0) {
        return -errno;
    }
    *unmapped = request.length;
    return 0;
}

static int unmap_exactly(const struct viommu_iommufd *iommufd, const struct viommu_change *change)
{
    uint64_t length = change->last - change->first + 1;
    uint64_t unmapped;
    int ret = unmap(iommufd, change->first, length, &unmapped);

    if (ret == 0 && unmapped != length) {
        return -EIO;
    }
    return ret;
}

static int unmap_all(struct viommu_iommufd *iommufd)
{
    uint64_t unmapped;
    int ret = unmap(iommufd, 0, UINT64_MAX, &unmapped);

    if (ret == -ENOENT) {
        /* Either there was nothing, or no such address space, which comes to the same. */
        ret = 0;
    }
    iommufd->left_behind = ret < 0;
    return ret;
}

static int on_change(void *opaque, const struct viommu_change *change)
{
    struct viommu_iommufd *iommufd = opaque;

    switch (change->kind) {
    case VIOMMU_CHANGE_MAP:
        if (iommufd->left_behind) {
            int ret = unmap_all(iommufd);

            if (ret < 0) {
                return ret;
            }
        }
        return map(iommufd, change);
    case VIOMMU_CHANGE_UNMAP:
        return unmap_exactly(iommufd, change);
    default: /* not asked for */
        return -ENOTSUP;
    }
}

static int on_fence(void *opaque)
{
    struct viommu_iommufd *iommufd = opaque;
    int ret = unmap_all(iommufd);

    if (ret < 0 && iommufd->config.cut_off) {
        return iommufd->config.cut_off(iommufd->config.opaque);
    }
    return ret;
}

/* Takes over the ranges that the kernel put into an array. */
static int take_ranges(struct viommu_iommufd *iommufd, const struct iommufd_iova_ranges *answer,
                       const struct iommufd_range *ranges)
{
    size_t count = answer->count;
    int ret;

    iommufd->allowed = base_alloc_array(count, sizeof(*iommufd->allowed));
    if (!iommufd->allowed) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < count; i++) {
        iommufd->allowed[i] = (struct viommu_range){ranges[i].first, ranges[i].last};
    }
    ret = allowed_normalise(iommufd->allowed, &count);
    if (ret == 0 && count == 0) {
        /* In a subscription no range at all would mean everything. */
        ret = -ERANGE;
    }
    iommufd->allowed_count = count;
    /* Pages of any size can be mapped that is a multiple of the alignment. */
    iommufd->page_sizes = answer->alignment ? ~(answer->alignment - 1) : 0;
    return ret;
}

/* Asks once, with room for `room` ranges; tells how many there are. -EMSGSIZE: not enough. */
static int ask(struct viommu_iommufd *iommufd, uint32_t room, uint32_t *count)
{
    struct iommufd_range *ranges = base_alloc_array(room, sizeof(*ranges));
    struct iommufd_iova_ranges request = {
        .size = sizeof(request),
        .ioas = iommufd->config.ioas,
        .count = room,
        .ranges = (uintptr_t)ranges,
    };
    int ret;

    if (!ranges) {
        return -ENOMEM;
    }
    ret = ioctl(iommufd->config.fd, IOMMUFD_IOVA_RANGES, &request) < 0 ? -errno : 0;
    *count = request.count;
    if (ret == 0) {
        ret = request.count > room ? -EIO : take_ranges(iommufd, &request, ranges);
    }
    base_free(ranges);
    return ret;
}

static int read_ranges(struct viommu_iommufd *iommufd)
{
    uint32_t room = 4;

    for (unsigned i = 0; i < RANGES_TRIES && room <= RANGES_MAX; i++) {
        uint32_t count;
        int ret = ask(iommufd, room, &count);

        if (ret != -EMSGSIZE) {
            return ret;
        }
        if (count <= room) {
            return -EIO;
        }
        room = count;
    }
    return -EIO;
}

int viommu_iommufd_create(const struct viommu_iommufd_config *config, struct viommu_iommufd **out)
{
    struct viommu_iommufd *iommufd;
    int ret;

    if (!config || !out || config->fd < 0) {
        return -EINVAL;
    }
    iommufd = base_alloc(sizeof(*iommufd));
    if (!iommufd) {
        return -ENOMEM;
    }
    iommufd->config = *config;
    ret = read_ranges(iommufd);
    if (ret < 0) {
        base_free(iommufd->allowed);
        base_free(iommufd);
        return ret;
    }
    *out = iommufd;
    return 0;
}

int viommu_iommufd_destroy(struct viommu_iommufd *iommufd)
{
    int ret;

    if (!iommufd) {
        return 0;
    }
    ret = unmap_all(iommufd);
    base_free(iommufd->allowed);
    base_free(iommufd);
    return ret;
}

void viommu_iommufd_subscription(struct viommu_iommufd *iommufd, struct viommu_subscription *out)
{
    *out = (struct viommu_subscription){
        .kinds = VIOMMU_CHANGE_MAP | VIOMMU_CHANGE_UNMAP,
        .form = VIOMMU_FORM_RANGE,
        .role = VIOMMU_ROLE_MIRROR,
        .change = on_change,
        .opaque = iommufd,
        .fence = on_fence,
        .allowed = iommufd->allowed,
        .allowed_count = iommufd->allowed_count,
        .page_sizes = iommufd->page_sizes,
        .unmap_spans = false,
        .mappings_max = iommufd->config.mappings_max,
        .adopt = iommufd->config.adopt,
    };
}
