/* SPDX-License-Identifier: BSD-2-Clause */
/* Decoding and comparing; see far_info.h. */
#include "far_info.h"

#include <errno.h>
#include <string.h>

#include "common/foreign.h"

enum {
    ACCESS_FLAGS = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE,
    MAP_ALIGNMENT = 4096,
};

void far_info_init(struct far_info *info)
{
    memset(info, 0, sizeof(*info));
    for (unsigned i = 0; i < VFIO_PCI_NUM_REGIONS; i++) {
        info->regions[i].fd = -1;
    }
}

static void drop_file(struct far_region *region)
{
    if (region->fd >= 0) {
        foreign_close(region->fd);
    }
    region->fd = -1;
    region->flags &= ACCESS_FLAGS;
    region->offset = 0;
    region->area_count = 0;
}

void far_info_fini(struct far_info *info)
{
    for (unsigned i = 0; i < VFIO_PCI_NUM_REGIONS; i++) {
        drop_file(&info->regions[i]);
    }
    far_info_init(info);
}

int far_info_device(struct far_info *info, const void *data, size_t size)
{
    struct vfio_user_device_info device;

    if (size < sizeof(device)) {
        return -EPROTO;
    }
    memcpy(&device, data, sizeof(device));
    /* A client finds the device by its configuration space. */
    if (!(device.flags & VFIO_DEVICE_FLAGS_PCI) ||
        device.num_regions <= VFIO_PCI_CONFIG_REGION_INDEX) {
        return -EPROTO;
    }
    info->flags = device.flags & (VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET);
    info->region_count =
        device.num_regions < VFIO_PCI_NUM_REGIONS ? device.num_regions : VFIO_PCI_NUM_REGIONS;
    info->irq_count = device.num_irqs < VFIO_PCI_NUM_IRQS ? device.num_irqs : VFIO_PCI_NUM_IRQS;
    return 0;
}

static bool is_area(const struct far_region *region,
                    const struct vfio_region_sparse_mmap_area *area)
{
    return area->size > 0 && area->offset <= region->size &&
           area->size <= region->size - area->offset &&
           ((area->offset | area->size) & (MAP_ALIGNMENT - 1)) == 0;
}

/* The areas that follow a capability's header. Returns 0, -EPROTO, or -ENOSPC: there are too many.
 */
static int take_areas(struct far_region *region, const uint8_t *data, size_t size)
{
    struct vfio_region_info_cap_sparse_mmap cap;

    if (size < sizeof(cap)) {
        return -EPROTO;
    }
    memcpy(&cap, data, sizeof(cap));
    if (cap.nr_areas > (size - sizeof(cap)) / sizeof(region->areas[0])) {
        return -EPROTO;
    }
    if (cap.nr_areas == 0 || cap.nr_areas > FAR_AREAS_MAX) {
        return -ENOSPC;
    }
    memcpy(region->areas, data + sizeof(cap), cap.nr_areas * sizeof(region->areas[0]));
    for (uint32_t i = 0; i < cap.nr_areas; i++) {
        if (!is_area(region, &region->areas[i])) {
            return -EPROTO;
        }
    }
    region->area_count = cap.nr_areas;
    return 0;
}

/* Goes along the chain of capabilities, which only leads on: so it ends. */
static int take_capabilities(struct far_region *region, const uint8_t *data, size_t size,
                             uint32_t first)
{
    struct vfio_info_cap_header cap;
    uint32_t before = sizeof(struct vfio_region_info) - 1;
    int ret = 0;

    for (uint32_t at = first; ret == 0 && at != 0; before = at, at = cap.next) {
        if (at <= before || at > size || size - at < sizeof(cap)) {
            return -EPROTO;
        }
        memcpy(&cap, data + at, sizeof(cap));
        if (cap.id == VFIO_REGION_INFO_CAP_SPARSE_MMAP) {
            ret = take_areas(region, data + at, size - at);
        }
    }
    return ret;
}

int far_info_region(struct far_info *info, unsigned index, const void *data, size_t size, int *fds,
                    unsigned n_fds, bool files)
{
    struct far_region *region = &info->regions[index];
    struct vfio_region_info answer;
    int ret = 0;

    if (size < sizeof(answer)) {
        return -EPROTO;
    }
    memcpy(&answer, data, sizeof(answer));
    if (answer.index != index) {
        return -EPROTO;
    }
    drop_file(region);
    region->size = answer.size;
    region->flags = answer.size > 0 ? answer.flags & ACCESS_FLAGS : 0;
    /* More than there was room for is not there: such a region cannot be mapped. Nor can one whose
     * pages somebody would have to be waited for: the client would do that. */
    if (!files || region->size == 0 || !(answer.flags & VFIO_REGION_INFO_FLAG_MMAP) || n_fds == 0 ||
        answer.argsz > size || !foreign_is_file(fds[0], NULL)) {
        return 0;
    }
    if (answer.flags & VFIO_REGION_INFO_FLAG_CAPS) {
        ret = take_capabilities(region, data, size, answer.cap_offset);
    }
    if (ret < 0) {
        region->area_count = 0;
        return ret == -ENOSPC ? 0 : ret;
    }
    region->flags |= VFIO_REGION_INFO_FLAG_MMAP;
    region->offset = answer.offset;
    region->fd = fds[0];
    fds[0] = -1;
    return 0;
}

int far_info_irqs(struct far_info *info, unsigned index, const void *data, size_t size)
{
    struct vfio_irq_info answer;

    if (size < sizeof(answer)) {
        return -EPROTO;
    }
    memcpy(&answer, data, sizeof(answer));
    if (answer.index != index || answer.count > FAR_VECTORS_MAX) {
        return -EPROTO;
    }
    info->irqs[index] = (struct far_irqs){
        .flags = answer.flags & (VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_MASKABLE |
                                 VFIO_IRQ_INFO_AUTOMASKED | VFIO_IRQ_INFO_NORESIZE),
        .count = answer.count,
    };
    return 0;
}

size_t far_info_region_answer(const struct far_info *info, unsigned index, uint32_t argsz,
                              uint8_t answer[FAR_REGION_ANSWER_MAX])
{
    const struct far_region *region = &info->regions[index];
    size_t areas = region->area_count * sizeof(region->areas[0]);
    struct vfio_region_info head = {
        .argsz = sizeof(head),
        .flags = region->flags,
        .index = index,
        .size = region->size,
        .offset = region->offset,
    };
    struct vfio_region_info_cap_sparse_mmap cap = {
        .header = {.id = VFIO_REGION_INFO_CAP_SPARSE_MMAP, .version = 1},
        .nr_areas = region->area_count,
    };

    if (region->area_count > 0) {
        head.argsz = (uint32_t)(sizeof(head) + sizeof(cap) + areas);
        head.flags |= VFIO_REGION_INFO_FLAG_CAPS;
    }
    if (region->area_count > 0 && argsz >= head.argsz) {
        head.cap_offset = sizeof(head);
        memcpy(answer + sizeof(head), &cap, sizeof(cap));
        memcpy(answer + sizeof(head) + sizeof(cap), region->areas, areas);
    }
    memcpy(answer, &head, sizeof(head));
    return head.cap_offset ? head.argsz : sizeof(head);
}

/* Another file cannot be put in the place of the one that a client has mapped. */
static bool same_file(int one, int other)
{
    struct foreign_identity a, b;

    return foreign_identify(one, &a) == 0 && foreign_identify(other, &b) == 0 &&
           a.device == b.device && a.inode == b.inode;
}

const char *far_info_difference(const struct far_info *told, const struct far_info *now)
{
    if (told->flags != now->flags || told->region_count != now->region_count ||
        told->irq_count != now->irq_count) {
        return "is another device";
    }
    for (unsigned i = 0; i < told->irq_count; i++) {
        if (told->irqs[i].flags != now->irqs[i].flags ||
            told->irqs[i].count != now->irqs[i].count) {
            return "has other interrupts";
        }
    }
    for (unsigned i = 0; i < told->region_count; i++) {
        const struct far_region *a = &told->regions[i], *b = &now->regions[i];

        if (a->flags != b->flags || a->size != b->size || a->offset != b->offset ||
            a->area_count != b->area_count ||
            memcmp(a->areas, b->areas, a->area_count * sizeof(a->areas[0])) != 0) {
            return "has other regions";
        }
        if ((a->flags & VFIO_REGION_INFO_FLAG_MMAP) && !same_file(a->fd, b->fd)) {
            return "has its mapped registers in another file than the client has mapped";
        }
    }
    return NULL;
}
