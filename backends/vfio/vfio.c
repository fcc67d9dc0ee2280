/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The VFIO backend: what a mirror is told, as ioctls of a type-1 version-2 container.
 *
 * What the kernel does, and what follows from it:
 * - It refuses to unmap a part of a mapping (EINVAL, with nothing done); mirrors are told of whole
 *   mappings only. One call may take many that lie in its range: `unmap_spans`.
 * - It tells how many bytes it unmapped. All that a mirror is told to unmap is mapped, without
 *   gaps, so any other figure means that kernel and library are not of one mind: a failure.
 * - It never maps over a mapping (EEXIST), and not more than a number of them (ENOSPC).
 * - A size of 64 bits cannot say 2^64: all is unmapped by a flag for that (Linux 5.12), or in two
 *   halves. No mapping lies across the middle: no model has addresses of 64 bits.
 *
 * Mappings are left behind when a fence could not drop them, and the device was cut off instead.
 * They are dropped before the next one is made, which is when the device is let in again.
 *
 * Locking: none. A mirror has one call outstanding; the rest is the embedder's.
 */
#include <viommu/vfio.h>

#include "base/alloc.h"
#include "vfio/info.h"

#include <errno.h>
#include <linux/vfio.h>
#include <sys/ioctl.h>

/* The kernel's own limit, where it does not tell it. */
#define MAPPINGS_DEFAULT 65535u
/* An answer to GET_INFO is never so long: ranges are few. */
#define ANSWER_MAX (1u << 20)
#define ANSWER_TRIES 8

#define HALF (UINT64_C(1) << 63)

struct viommu_vfio {
    struct viommu_vfio_config config;
    struct vfio_info info;
    uint64_t mappings_max;
    bool knows_unmap_all;
    bool left_behind; /* a fence failed to drop mappings */
};

static int map(const struct viommu_vfio *vfio, const struct viommu_change *change)
{
    struct vfio_iommu_type1_dma_map request = {
        .argsz = sizeof(request),
        .flags = (change->perm & VIOMMU_READ ? VFIO_DMA_MAP_FLAG_READ : 0u) |
                 (change->perm & VIOMMU_WRITE ? VFIO_DMA_MAP_FLAG_WRITE : 0u),
        .vaddr = (uintptr_t)change->host,
        .iova = change->first,
        .size = change->last - change->first + 1,
    };

    return ioctl(vfio->config.container, VFIO_IOMMU_MAP_DMA, &request) < 0 ? -errno : 0;
}

/* Unmaps what lies in a range, whole mappings; tells how much that was. */
static int unmap(const struct viommu_vfio *vfio, uint32_t flags, uint64_t first, uint64_t size,
                 uint64_t *unmapped)
{
    struct vfio_iommu_type1_dma_unmap request = {
        .argsz = sizeof(request),
        .flags = flags,
        .iova = first,
        .size = size,
    };

    *unmapped = 0;
    if (ioctl(vfio->config.container, VFIO_IOMMU_UNMAP_DMA, &request) < 0) {
        return -errno;
    }
    *unmapped = request.size;
    return 0;
}

static int unmap_exactly(const struct viommu_vfio *vfio, const struct viommu_change *change)
{
    uint64_t size = change->last - change->first + 1;
    uint64_t unmapped;
    int ret = unmap(vfio, 0, change->first, size, &unmapped);

    if (ret == 0 && unmapped != size) {
        return -EIO;
    }
    return ret;
}

static int unmap_all(struct viommu_vfio *vfio)
{
    uint64_t unmapped;
    int ret;

    if (vfio->knows_unmap_all) {
        ret = unmap(vfio, VFIO_DMA_UNMAP_FLAG_ALL, 0, 0, &unmapped);
    } else {
        int upper = unmap(vfio, 0, HALF, HALF, &unmapped);

        ret = unmap(vfio, 0, 0, HALF, &unmapped);
        ret = ret < 0 ? ret : upper;
    }
    vfio->left_behind = ret < 0;
    return ret;
}

static int on_change(void *opaque, const struct viommu_change *change)
{
    struct viommu_vfio *vfio = opaque;

    switch (change->kind) {
    case VIOMMU_CHANGE_MAP:
        if (vfio->left_behind) {
            int ret = unmap_all(vfio);

            if (ret < 0) {
                return ret;
            }
        }
        return map(vfio, change);
    case VIOMMU_CHANGE_UNMAP:
        return unmap_exactly(vfio, change);
    default: /* not asked for */
        return -ENOTSUP;
    }
}

static int on_fence(void *opaque)
{
    struct viommu_vfio *vfio = opaque;
    int ret = unmap_all(vfio);

    if (ret < 0 && vfio->config.cut_off) {
        return vfio->config.cut_off(vfio->config.opaque);
    }
    return ret;
}

/* Asks the kernel about the IOMMU, with as much room as it says that the answer takes. */
static int ask(int container, struct vfio_info *info)
{
    size_t size = sizeof(struct vfio_iommu_type1_info);

    for (unsigned i = 0; i < ANSWER_TRIES && size <= ANSWER_MAX; i++) {
        struct vfio_iommu_type1_info *answer = base_alloc(size);
        size_t needed;
        int ret = 0;

        if (!answer) {
            return -ENOMEM;
        }
        answer->argsz = (uint32_t)size;
        if (ioctl(container, VFIO_IOMMU_GET_INFO, answer) < 0) {
            ret = -errno;
        }
        needed = answer->argsz;
        if (ret == 0 && needed <= size) {
            ret = vfio_info_parse(answer, size, info);
            base_free(answer);
            return ret;
        }
        base_free(answer);
        if (ret < 0) {
            return ret;
        }
        size = needed;
    }
    return -EIO;
}

static bool is_type1_v2(int container)
{
    return ioctl(container, VFIO_GET_API_VERSION) == VFIO_API_VERSION &&
           ioctl(container, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU) > 0;
}

static uint64_t mappings_max(const struct viommu_vfio_config *config, const struct vfio_info *info)
{
    uint64_t kernel = info->available_told ? info->available : MAPPINGS_DEFAULT;

    if (config->mappings_max == 0) {
        return kernel;
    }
    if (info->available_told && info->available < config->mappings_max) {
        return info->available;
    }
    return config->mappings_max;
}

int viommu_vfio_create(const struct viommu_vfio_config *config, struct viommu_vfio **out)
{
    struct viommu_vfio *vfio;
    int ret;

    if (!config || !out || config->container < 0 || !is_type1_v2(config->container)) {
        return -EINVAL;
    }
    vfio = base_alloc(sizeof(*vfio));
    if (!vfio) {
        return -ENOMEM;
    }
    vfio->config = *config;
    ret = ask(config->container, &vfio->info);
    if (ret == 0) {
        vfio->mappings_max = mappings_max(config, &vfio->info);
        /*
         * In a subscription 0 means any number. A container that is adopted may be full: what comes
         * besides the kernel then refuses.
         */
        vfio->mappings_max += !vfio->mappings_max && config->adopt;
        ret = vfio->mappings_max ? 0 : -ENOSPC;
    }
    if (ret < 0) {
        vfio_info_free(&vfio->info);
        base_free(vfio);
        return ret;
    }
    vfio->knows_unmap_all = ioctl(config->container, VFIO_CHECK_EXTENSION, VFIO_UNMAP_ALL) > 0;
    *out = vfio;
    return 0;
}

int viommu_vfio_destroy(struct viommu_vfio *vfio)
{
    int ret;

    if (!vfio) {
        return 0;
    }
    ret = unmap_all(vfio);
    vfio_info_free(&vfio->info);
    base_free(vfio);
    return ret;
}

void viommu_vfio_subscription(struct viommu_vfio *vfio, struct viommu_subscription *out)
{
    *out = (struct viommu_subscription){
        .kinds = VIOMMU_CHANGE_MAP | VIOMMU_CHANGE_UNMAP,
        .form = VIOMMU_FORM_RANGE,
        .role = VIOMMU_ROLE_MIRROR,
        .change = on_change,
        .opaque = vfio,
        .fence = on_fence,
        .allowed = vfio->info.allowed,
        .allowed_count = vfio->info.allowed_count,
        .page_sizes = vfio->info.page_sizes,
        .unmap_spans = true,
        .mappings_max = vfio->mappings_max,
        .adopt = vfio->config.adopt,
    };
}
