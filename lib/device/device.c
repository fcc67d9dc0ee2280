/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * DMA: translate, read, write.
 *
 * The hot path is hit(): a requester's context, its tag's id, one probe of the cache. Whatever that
 * does not answer goes to the model. All of it runs inside a section; locks are taken only by the
 * model, to fetch a context or to record a fault.
 */
#include "device/dma.h"
#include "iommu/watch.h"
#include "space/space.h"

/*
 * These two begin with a line of the instruction cache: they are so short that where they happen to
 * lie changes their time by a fifth.
 */
#define SHORT_CALL __attribute__((aligned(64)))

SHORT_CALL int viommu_dma_begin(struct viommu *iommu)
{
    return epoch_enter(iommu->epoch) ? 0 : -ENOMEM;
}

SHORT_CALL void viommu_dma_end(struct viommu *iommu)
{
    epoch_leave(iommu->epoch);
}

static bool is_denied(const struct viommu_device *device)
{
    return atomic_load_explicit(&device->denied, memory_order_relaxed);
}

/* Answers an untranslated request from the cache, as nearly all are. `found` may be NULL. */
static inline bool hit(struct viommu_device *device, struct requester *requester, uint64_t iova,
                       uint32_t perm, struct viommu_translation *out, struct dma_found *found)
{
    struct context *context = atomic_load_explicit(&requester->context, memory_order_acquire);
    uint64_t probed;
    uint64_t frame;
    uint64_t id;

    if (!context || !context->tag || is_denied(device)) {
        return false;
    }
    id = atomic_load_explicit(&context->tag->id, memory_order_acquire);
    /* What the entry does not allow the tables may, by now: the model looks, and faults if not. */
    if (!id) {
        return false;
    }
    probed = iotlb_probe(&device->iommu->iotlb.table, id, iova, &frame);
    if (probed & iotlb_wanted(perm)) {
        return false;
    }
    *out = (struct viommu_translation){
        .gpa = iotlb_gpa(frame, iova),
        .mask = (1ULL << IOTLB_PAGE_SHIFT) - 1,
        .perm = iotlb_perm(probed),
    };
    if (found) {
        found->domain = context->tag->key.domain;
        found->level = iotlb_level(probed);
    }
    counter_add(&device->stats.iotlb_hits, 1);
    return true;
}

/* What the cache does not answer. Returns 0, -EPERM (denied), -EFAULT or -EAGAIN. */
static int ask_model(const struct dma_request *request, struct viommu_translation *out)
{
    struct viommu_device *device = request->device;
    int ret;

    counter_add(&device->stats.iotlb_misses, 1);
    ret = is_denied(device) ? -EPERM : device->iommu->model->translate(device->iommu, request, out);
    if (ret) {
        /* A look ahead of need is nothing that the device asked for. */
        counter_add(&device->stats.refused, !request->quiet);
        watch_miss(request, ret, 0, 0, 0);
    } else {
        watch_miss(request, 0, out->gpa, out->mask, out->perm);
    }
    return ret;
}

int dma_translate(const struct dma_request *request, struct viommu_translation *out)
{
    if (request->type == VIOMMU_DMA_UNTRANSLATED &&
        hit(request->device, request->requester, request->iova, request->perm, out,
            request->found)) {
        return 0;
    }
    return ask_model(request, out);
}

/* Any request, inside a section or not. */
static __attribute__((noinline)) int translate_any(struct viommu_device *device,
                                                   const struct viommu_dma_attrs *attrs,
                                                   uint64_t iova, uint32_t perm,
                                                   struct viommu_translation *out)
{
    struct epoch *epoch = device->iommu->epoch;
    struct dma_request request;
    int ret;

    if (!epoch_enter(epoch)) {
        return -ENOMEM;
    }
    ret = attrs && attrs->type == VIOMMU_DMA_TRANSLATION
              ? -EINVAL
              : dma_request_init(&request, device, attrs, iova, perm);
    if (!ret) {
        ret = dma_translate(&request, out);
    }
    epoch_leave(epoch);
    return ret;
}

/* A plain request inside a section, which the cache has not answered. */
static __attribute__((noinline)) int missed(struct viommu_device *device,
                                            struct requester *requester, uint64_t iova,
                                            uint32_t perm, struct viommu_translation *out)
{
    struct dma_request request = {
        .device = device, .requester = requester, .iova = iova, .perm = perm};

    return ask_model(&request, out);
}

int viommu_device_translate(struct viommu_device *device, const struct viommu_dma_attrs *attrs,
                            uint64_t iova, uint32_t perm, struct viommu_translation *out)
{
    struct requester *requester;

    perm &= VIOMMU_READ | VIOMMU_WRITE;
    if (attrs || !epoch_inside_first(device->iommu->epoch)) {
        return translate_any(device, attrs, iova, perm, out);
    }
    /* The short way: nothing is nested, and no request made up for a hit. */
    requester = atomic_load_explicit(&device->requesters[0], memory_order_acquire);
    return hit(device, requester, iova, perm, out, NULL)
               ? 0
               : missed(device, requester, iova, perm, out);
}

/* Every page of an access is translated by itself, however large the page that maps it. */
#define PIECE_MASK 0xfffULL

/* One access of a device: how it asks, where its bytes are, and what remains. */
struct access {
    struct viommu_device *device;
    const struct viommu_dma_attrs *attrs;
    uint64_t iova;
    uint8_t *buf;
    size_t left;
    bool write;
    unsigned refusals; /* by IOMMUs behind this one, taken back, one after the other */
};

/* No memory is there, but a space may have something. */
#define PIECE_ELSEWHERE 1

/* What became of one page of an access. */
struct piece {
    size_t len;
    bool interrupt; /* it is a message, to be handed on outside of the section */
    uint64_t gpa;   /* where it leads, if that is no memory */
    uint16_t requester;
};

/* Moves bytes that lie in one translated page. */
static int piece_move(const struct access *access, uint64_t gpa, size_t len)
{
    const struct memory_snapshot *memory = memory_snapshot(access->device->iommu->memory);
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
static int piece_interrupt(const struct access *access, const struct dma_request *request,
                           struct piece *piece)
{
    if (!access->write && !piece->len) {
        return 0;
    }
    if (!access->write || piece->len != 4 || (access->iova & 3)) {
        access->device->iommu->model->refuse_interrupt(access->device->iommu, request);
        counter_add(&access->device->stats.refused, 1);
        return -EFAULT;
    }
    piece->interrupt = true;
    piece->requester = request->requester->id;
    return 0;
}

/* Translates and moves the first page of what is left. In a section. */
static int piece_run(const struct access *access, struct piece *piece)
{
    uint32_t perm = access->write ? VIOMMU_WRITE : access->left ? VIOMMU_READ : 0;
    struct viommu_translation translation;
    struct dma_request request;
    uint64_t in_page;
    int ret;

    ret = dma_request_init(&request, access->device, access->attrs, access->iova, perm);
    if (!ret) {
        ret = dma_translate(&request, &translation);
    }
    if (ret) {
        return ret;
    }
    in_page = PIECE_MASK - (access->iova & PIECE_MASK);
    piece->len = access->left && access->left - 1 > in_page ? in_page + 1 : access->left;
    if (translation.interrupt) {
        return piece_interrupt(access, &request, piece);
    }
    ret = piece_move(access, translation.gpa, piece->len);
    if (ret == -ENXIO) {
        piece->gpa = translation.gpa;
        piece->requester = request.requester->id;
        ret = access->device->iommu->space ? PIECE_ELSEWHERE : -ENXIO;
    }
    return ret;
}

/*
 * What is no memory is looked for in the space behind it. A part of the page may go: the rest is
 * translated again, as a callback runs outside of the section. The section is left.
 */
static __attribute__((noinline)) int piece_elsewhere(struct access *access, struct piece *piece)
{
    struct viommu *iommu = access->device->iommu;
    struct space_step step = {
        .space = iommu->space,
        .address = piece->gpa,
        .buf = access->buf,
        .len = piece->len,
        .write = access->write,
        .attrs = {.requester = piece->requester},
        .owner = iommu,
        .section = iommu->epoch,
    };
    int ret = space_step(&step);

    piece->len = ret ? 0 : step.len;
    if (ret == -EAGAIN) {
        return ++access->refusals < SPACE_REFUSALS_MAX ? 0 : -EACCES;
    }
    access->refusals = 0;
    return ret;
}

/* Hands a device's message on. */
static void interrupt_tell(const struct access *access, const struct piece *piece)
{
    struct viommu *iommu = access->device->iommu;
    struct viommu_interrupt interrupt = {
        .address = access->iova,
        .requester = piece->requester,
    };
    struct callback_mark mark;
    uint32_t data;

    memcpy(&data, access->buf, sizeof(data));
    interrupt.data = le32toh(data);
    counter_add(&access->device->stats.interrupts_requested, 1);
    if (iommu->callbacks.interrupt) {
        callback_enter(&mark, iommu, false);
        iommu->callbacks.interrupt(iommu->opaque, &interrupt);
        callback_leave(&mark);
    }
}

/* One page, in a section of its own: a long access holds no invalidation back for long. */
static int access_step(struct access *access)
{
    struct viommu_device *device = access->device;
    struct piece piece = {0};
    int ret;

    if (!epoch_enter(device->iommu->epoch)) {
        return -ENOMEM;
    }
    ret = piece_run(access, &piece);
    if (ret == PIECE_ELSEWHERE) {
        ret = piece_elsewhere(access, &piece);
    } else {
        epoch_leave(device->iommu->epoch);
    }
    if (ret) {
        return ret;
    }
    if (piece.interrupt) {
        interrupt_tell(access, &piece);
    } else {
        counter_add(access->write ? &device->stats.bytes_written : &device->stats.bytes_read,
                    piece.len);
    }
    if (piece.len) {
        /* A zero-length access may have no buffer to move along. */
        access->iova += piece.len;
        access->buf += piece.len;
        access->left -= piece.len;
    }
    return 0;
}

static int access_run(struct access *access)
{
    const struct viommu_dma_attrs *attrs = access->attrs;
    int ret;

    if ((access->left && access->left - 1 > UINT64_MAX - access->iova) ||
        (attrs && attrs->type == VIOMMU_DMA_TRANSLATION)) {
        return -EINVAL;
    }
    do {
        ret = access_step(access);
    } while (!ret && access->left);
    return ret;
}

int viommu_device_read(struct viommu_device *device, const struct viommu_dma_attrs *attrs,
                       uint64_t iova, void *buf, size_t len)
{
    struct access access = {
        .device = device, .attrs = attrs, .iova = iova, .buf = buf, .left = len};

    return access_run(&access);
}

int viommu_device_write(struct viommu_device *device, const struct viommu_dma_attrs *attrs,
                        uint64_t iova, const void *buf, size_t len)
{
    struct access access = {
        .device = device,
        .attrs = attrs,
        .iova = iova,
        .buf = (uint8_t *)(uintptr_t)buf, /* a write only reads it */
        .left = len,
        .write = true,
    };

    return access_run(&access);
}
