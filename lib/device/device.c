/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * DMA: translate, read, write.
 *
 * The hot path is dma_translate: a requester's context, its tag's id, one probe of the cache. Whatever
 * that does not answer goes to the model. Everything here runs inside a section; locks are taken only
 * by the model, to fetch a context or to record a fault.
 */
#include "device/dma.h"

#include <errno.h>

int viommu_dma_begin(struct viommu *iommu)
{
    return epoch_enter(iommu->epoch) ? 0 : -ENOMEM;
}

void viommu_dma_end(struct viommu *iommu)
{
    epoch_leave(iommu->epoch);
}

/* Looks the page up in the cache. */
static inline bool cached(const struct dma_request *request, struct viommu_translation *out)
{
    struct viommu *iommu = request->device->iommu;
    struct context *context =
        atomic_load_explicit(&request->requester->context, memory_order_acquire);
    uint64_t frame;
    uint64_t id;

    if (!context || !context->tag || request->type != VIOMMU_DMA_UNTRANSLATED) {
        return false;
    }
    id = atomic_load_explicit(&context->tag->id, memory_order_acquire);
    if (!id) {
        return false;
    }
    frame = iotlb_find(&iommu->iotlb, id, request->iova);
    /* What the entry does not allow the tables may, by now: the model looks, and faults if not. */
    if (!frame || (frame & request->perm) != request->perm) {
        return false;
    }
    out->mask = (1ULL << IOTLB_PAGE_SHIFT) - 1;
    out->gpa = (frame & ~out->mask) | (request->iova & out->mask);
    out->perm = frame & IOTLB_PERM_MASK;
    out->interrupt = false;
    return true;
}

/* From the cache, else by the model. Returns 0, -EPERM (denied), -EFAULT or -EAGAIN. */
static int dma_translate(const struct dma_request *request, struct viommu_translation *out)
{
    struct viommu_device *device = request->device;
    int ret;

    counter_add(&device->stats.translations, 1);
    if (atomic_load_explicit(&device->denied, memory_order_relaxed)) {
        counter_add(&device->stats.refused, 1);
        return -EPERM;
    }
    if (cached(request, out)) {
        counter_add(&device->stats.iotlb_hits, 1);
        return 0;
    }
    ret = device->iommu->model->translate(device->iommu, request, out);
    if (ret) {
        counter_add(&device->stats.refused, 1);
    }
    return ret;
}

int viommu_device_translate(struct viommu_device *device, const struct viommu_dma_attrs *attrs,
                            uint64_t iova, uint32_t perm, struct viommu_translation *out)
{
    struct epoch *epoch = device->iommu->epoch;
    struct dma_request request;
    int ret;

    if (!epoch_enter(epoch)) {
        return -ENOMEM;
    }
    ret = dma_request_init(&request, device, attrs, iova, perm & (VIOMMU_READ | VIOMMU_WRITE));
    if (!ret && request.type != VIOMMU_DMA_UNTRANSLATED && request.type != VIOMMU_DMA_TRANSLATED) {
        ret = -EINVAL;
    }
    if (!ret) {
        ret = dma_translate(&request, out);
    }
    epoch_leave(epoch);
    return ret;
}

/* One access of a device: where its bytes are, and what remains. */
struct access {
    struct dma_request request;
    uint8_t *buf;
    size_t left;
    bool write;
    bool interrupt; /* it was a message, to be handed on after the section */
};

/* Moves the bytes of one translated page. */
static int access_move(struct viommu *iommu, const struct access *access, uint64_t gpa, size_t len)
{
    const struct memory_snapshot *memory = memory_snapshot(iommu->memory);
    void *host;

    if (!len) {
        return 0;
    }
    host = memory_host(memory, gpa, len, access->write);
    if (!host) {
        return access->write ? memory_copy_in(memory, gpa, access->buf, len)
                             : memory_copy_out(memory, gpa, access->buf, len);
    }
    if (access->write) {
        memcpy(host, access->buf, len);
    } else {
        memcpy(access->buf, host, len);
    }
    return 0;
}

/* A page that belongs to the interrupt controller takes one aligned 32-bit store. */
static int access_interrupt(struct viommu *iommu, struct access *access)
{
    if (!access->write && !access->left) {
        return 0;
    }
    if (!access->write || access->left != 4 || (access->request.iova & 3)) {
        iommu->model->refuse_interrupt(iommu, &access->request);
        counter_add(&access->request.device->stats.refused, 1);
        return -EFAULT;
    }
    access->interrupt = true;
    return 0;
}

/* Translates and moves the first page of what is left. */
static int access_step(struct viommu *iommu, struct access *access)
{
    struct viommu_translation translation;
    size_t len = access->left;
    uint64_t in_page;
    int ret;

    ret = dma_translate(&access->request, &translation);
    if (ret) {
        return ret;
    }
    if (translation.interrupt) {
        ret = access_interrupt(iommu, access);
        len = access->left;
    } else {
        in_page = translation.mask - (access->request.iova & translation.mask);
        len = len && len - 1 > in_page ? in_page + 1 : len;
        ret = access_move(iommu, access, translation.gpa, len);
    }
    access->request.iova += len;
    access->buf += len;
    access->left -= len;
    return ret;
}

/* The message of a device, told outside of its section. */
static void interrupt_tell(struct viommu_device *device, uint16_t requester, uint64_t address,
                           const void *buf)
{
    struct viommu *iommu = device->iommu;
    struct viommu_interrupt interrupt = {.address = address, .requester = requester};
    struct callback_mark mark;
    uint32_t data;

    memcpy(&data, buf, sizeof(data));
    interrupt.data = le32toh(data);
    counter_add(&device->stats.interrupts_requested, 1);
    if (iommu->callbacks.interrupt) {
        callback_enter(&mark, iommu, false);
        iommu->callbacks.interrupt(iommu->opaque, &interrupt);
        callback_leave(&mark);
    }
}

static int access_run(struct viommu_device *device, const struct viommu_dma_attrs *attrs,
                      uint64_t iova, void *buf, size_t len, bool write)
{
    struct viommu *iommu = device->iommu;
    struct access access = {.buf = buf, .left = len, .write = write};
    uint32_t perm = write ? VIOMMU_WRITE : len ? VIOMMU_READ : 0;
    uint16_t requester = 0;
    int ret;

    if ((len && len - 1 > UINT64_MAX - iova) ||
        (attrs && attrs->type != VIOMMU_DMA_UNTRANSLATED &&
         attrs->type != VIOMMU_DMA_TRANSLATED)) {
        return -EINVAL;
    }
    if (!epoch_enter(iommu->epoch)) {
        return -ENOMEM;
    }
    ret = dma_request_init(&access.request, device, attrs, iova, perm);
    if (!ret) {
        requester = access.request.requester->id;
        do {
            ret = access_step(iommu, &access);
        } while (!ret && access.left);
    }
    epoch_leave(iommu->epoch);
    if (!ret && access.interrupt) {
        interrupt_tell(device, requester, iova, buf);
    } else if (!ret) {
        counter_add(write ? &device->stats.bytes_written : &device->stats.bytes_read, len);
    }
    return ret;
}

int viommu_device_read(struct viommu_device *device, const struct viommu_dma_attrs *attrs,
                       uint64_t iova, void *buf, size_t len)
{
    return access_run(device, attrs, iova, buf, len, false);
}

int viommu_device_write(struct viommu_device *device, const struct viommu_dma_attrs *attrs,
                        uint64_t iova, const void *buf, size_t len)
{
    /* A write only reads its buffer. */
    return access_run(device, attrs, iova, (void *)(uintptr_t)buf, len, true);
}
