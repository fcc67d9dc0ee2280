/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Many addresses translated with one call.
 *
 * The list is taken in *pieces* of PIECE_ADDRESSES, each in a section, so that a long list that is
 * translated outside of any holds no invalidation back for long. A piece is a *run* of addresses
 * that the cache answers, again and again, with an address between that it does not answer, which
 * goes the way of a single one.
 *
 * A run looks its set-up (context, id, whether the device is denied) up once. What it finds under
 * that id is good until the section ends, as it is for a single translation: an invalidation that
 * comes meanwhile gives the tag a new id, or drops pages, and then waits for this section; and no
 * id is used again before such waits are over. A device that is denied meanwhile is let finish the
 * piece at most.
 */
#include "device/dma.h"

#define PIECE_ADDRESSES 256

/* What was asked for, and how far it is. */
struct many {
    struct viommu_device *device;
    const struct viommu_dma_attrs *attrs;
    struct requester *requester;
    const uint64_t *iovas;
    uint64_t *gpas;
    uint32_t perm;
};

/* The id that the requester's addresses are cached under; 0: none. */
static uint64_t id_of(const struct many *many)
{
    struct context *context = atomic_load_explicit(&many->requester->context, memory_order_acquire);

    if (!context || !context->tag ||
        atomic_load_explicit(&many->device->denied, memory_order_relaxed) ||
        (many->attrs && many->attrs->type != VIOMMU_DMA_UNTRANSLATED)) {
        return 0;
    }
    return atomic_load_explicit(&context->tag->id, memory_order_acquire);
}

/* Translates an address if the cache answers it. */
static inline __attribute__((always_inline)) bool
cached(const struct iotlb_table *table, uint64_t id, uint64_t wanted, uint64_t iova, uint64_t *gpa)
{
    uint64_t frame;

    if (__builtin_expect((iotlb_probe(table, id, iova, &frame) & wanted) != 0, false)) {
        return false;
    }
    *gpa = iotlb_gpa(frame, iova);
    return true;
}

/*
 * Translates from `done` on as far as the cache answers, up to `end`. Returns how far that is. What
 * it costs is instructions: so there are four addresses to a step, and it is not inline, for the
 * steps need every register. No address is read again once its place may have been written: iovas
 * and gpas may be one array.
 */
static __attribute__((noinline)) size_t run(const struct many *many, size_t done, size_t end)
{
    const struct iotlb_table table = many->device->iommu->iotlb.table;
    const uint64_t *iovas = many->iovas;
    uint64_t *gpas = many->gpas;
    uint64_t wanted = iotlb_wanted(many->perm);
    uint64_t id = id_of(many);
    size_t i = done;

    if (!id) {
        return done;
    }
    for (; i + 4 <= end; i += 4) {
        if (!cached(&table, id, wanted, iovas[i], &gpas[i])) {
            break;
        }
        if (!cached(&table, id, wanted, iovas[i + 1], &gpas[i + 1])) {
            i += 1;
            break;
        }
        if (!cached(&table, id, wanted, iovas[i + 2], &gpas[i + 2])) {
            i += 2;
            break;
        }
        if (!cached(&table, id, wanted, iovas[i + 3], &gpas[i + 3])) {
            i += 3;
            break;
        }
    }
    while (i < end && cached(&table, id, wanted, iovas[i], &gpas[i])) {
        i++;
    }
    counter_add(&many->device->stats.iotlb_hits, i - done);
    return i;
}

/* One that the cache does not answer. */
static int single(const struct many *many, size_t i)
{
    struct viommu_translation translation;
    int ret = viommu_device_translate(many->device, many->attrs, many->iovas[i], many->perm,
                                      &translation);

    if (!ret && translation.interrupt) {
        ret = -ENXIO;
    }
    if (!ret) {
        many->gpas[i] = translation.gpa;
    }
    return ret;
}

/* All from *done to end. In a section. */
static int piece(struct many *many, size_t *done, size_t end)
{
    int ret = dma_requester(many->device, many->attrs, &many->requester);

    while (!ret) {
        *done = run(many, *done, end);
        if (*done == end) {
            break;
        }
        ret = single(many, *done);
        *done += !ret;
    }
    return ret;
}

int viommu_device_translate_many(struct viommu_device *device, const struct viommu_dma_attrs *attrs,
                                 const uint64_t *iovas, size_t count, uint32_t perm, uint64_t *gpas,
                                 size_t *translated)
{
    struct epoch *epoch = device->iommu->epoch;
    struct many many = {
        .device = device,
        .attrs = attrs,
        .iovas = iovas,
        .gpas = gpas,
        .perm = perm & (VIOMMU_READ | VIOMMU_WRITE),
    };
    size_t done = 0;
    int ret;

    *translated = 0;
    if (attrs && attrs->type == VIOMMU_DMA_TRANSLATION) {
        return -EINVAL;
    }
    do {
        size_t left = count - done;

        if (!epoch_enter(epoch)) {
            return -ENOMEM;
        }
        ret = piece(&many, &done, done + (left < PIECE_ADDRESSES ? left : PIECE_ADDRESSES));
        epoch_leave(epoch);
        *translated = done;
    } while (!ret && done < count);
    return ret;
}
